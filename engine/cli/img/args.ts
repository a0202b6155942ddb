import { readFileSync } from 'node:fs';
import { BlockError } from '../../block/errors.ts';

/** A wrong command line: the message goes to stderr, the exit status is 1. */
export class UsageError extends Error {}

export interface OptionSpec {
  /** Options that take a value, by their name with dashes (`-f`, `--output`); the value is the key in the result. */
  values: Record<string, string>;
  flags: Record<string, string>;
}

export interface Parsed {
  values: Record<string, string>;
  /** Every value of options that may come more than once. */
  lists: Record<string, string[]>;
  flags: Set<string>;
  rest: string[];
}

/** getopt_long as qemu-img uses it: options anywhere, `-Ovalue`, `-O value`, `--name=value`, `-pq`. */
export function parseArgs(argv: string[], spec: OptionSpec): Parsed {
  const parsed: Parsed = { values: {}, lists: {}, flags: new Set(), rest: [] };
  const setValue = (key: string, value: string): void => {
    parsed.values[key] = value;
    parsed.lists[key] ??= [];
    parsed.lists[key].push(value);
  };
  for (let i = 0; i < argv.length; i++) {
    const arg = argv[i];
    if (arg === '--') {
      parsed.rest.push(...argv.slice(i + 1));
      break;
    }
    if (arg.startsWith('--')) {
      const equals = arg.indexOf('=');
      const name = equals < 0 ? arg : arg.slice(0, equals);
      if (name in spec.flags && equals < 0) parsed.flags.add(spec.flags[name]);
      else if (name in spec.values) {
        if (equals >= 0) setValue(spec.values[name], arg.slice(equals + 1));
        else if (++i < argv.length) setValue(spec.values[name], argv[i]);
        else throw new UsageError(`option '${name}' requires an argument`);
      } else throw new UsageError(`unrecognized option '${arg}'`);
      continue;
    }
    if (arg.startsWith('-') && arg.length > 1 && !/^-\d/.test(arg)) {
      for (let k = 1; k < arg.length; k++) {
        const name = `-${arg[k]}`;
        if (name in spec.flags) parsed.flags.add(spec.flags[name]);
        else if (name in spec.values) {
          if (k + 1 < arg.length) setValue(spec.values[name], arg.slice(k + 1));
          else if (++i < argv.length) setValue(spec.values[name], argv[i]);
          else throw new UsageError(`option requires an argument -- '${arg[k]}'`);
          break;
        } else throw new UsageError(`unrecognized option '${arg}'`);
      }
      continue;
    }
    parsed.rest.push(arg);
  }
  return parsed;
}

/** A size with QEMU's suffixes, in bytes. Throws a usage error. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?|0x[0-9a-f]+)\s*([bkKMGTPE]?)$/.exec(text);
  if (!match)
    throw new UsageError(
      `Invalid image size specified: '${text}'. You may use k, M, G, T, P or E suffixes for kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.`,
    );
  const power = { '': 0, b: 0, k: 1, K: 1, M: 2, G: 3, T: 4, P: 5, E: 6 }[match[2]] ?? 0;
  const size = Math.round(Number(match[1]) * 1024 ** power);
  if (!Number.isSafeInteger(size)) throw new UsageError(`Image size '${text}' is too large`);
  return size;
}

/** `name=value,...` with `,,` for a comma; a bare name means `on`. */
export function parseKeyValues(text: string): Map<string, string> {
  const result = new Map<string, string>();
  for (const part of text.replaceAll(',,', '\0').split(',')) {
    const item = part.replaceAll('\0', ',');
    if (item === '') continue;
    const equals = item.indexOf('=');
    if (equals < 0) result.set(item, 'on');
    else result.set(item.slice(0, equals), item.slice(equals + 1));
  }
  return result;
}

export function parseBool(value: string, name: string): boolean {
  if (['on', 'yes', 'true', 'y'].includes(value)) return true;
  if (['off', 'no', 'false', 'n'].includes(value)) return false;
  throw new UsageError(`Parameter '${name}' expects 'on' or 'off'`);
}

/** Secrets from `--object secret,id=...,data=...|file=...[,format=base64]`. */
export class Secrets {
  private readonly byId = new Map<string, Uint8Array>();

  constructor(objects: string[]) {
    for (const text of objects) {
      const [type, ...rest] = text.split(',');
      const options = parseKeyValues(rest.join(','));
      if (type !== 'secret' && options.get('qom-type') !== 'secret') throw new UsageError(`invalid object type: ${type}`);
      const id = options.get('id');
      if (!id) throw new UsageError(`Parameter 'id' is missing`);
      let data: Uint8Array;
      const file = options.get('file');
      if (file !== undefined) {
        try {
          data = readFileSync(file);
        } catch (error) {
          throw new BlockError('not-found', `Unable to read ${file}: ${(error as Error).message}`, error);
        }
      } else if (options.has('data')) data = new TextEncoder().encode(options.get('data'));
      else throw new UsageError(`secret '${id}': either 'file' or 'data' must be provided`);
      if (options.get('format') === 'base64') data = Buffer.from(new TextDecoder().decode(data), 'base64');
      this.byId.set(id, data);
    }
  }

  get(id: string): Uint8Array {
    const data = this.byId.get(id);
    if (!data) throw new BlockError('password', `No secret with id '${id}'`);
    return data;
  }

  /** For images opened by plain name: the only secret there is. */
  only(): Uint8Array | null {
    return this.byId.size === 1 ? [...this.byId.values()][0] : null;
  }
}

/** 5 GiB as qemu-img writes it. */
export function humanSize(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toPrecision(3))} ${units[unit]}`;
}
