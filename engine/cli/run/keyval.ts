/**
 * QEMU's option syntax: `value,key=value,flag`, where `,,` stands for a comma in a value, a bare flag means `on`,
 * and the first part may be the value of an implied key.
 */

/** A mistake on the command line; the message is for the person who typed it. */
export class OptionError extends Error {
  override readonly name = 'OptionError';
}

/** Splits at single commas; doubled ones become one. */
export function splitCommas(text: string): string[] {
  const parts: string[] = [];
  let part = '';
  for (let index = 0; index < text.length; index++) {
    if (text[index] !== ',') part += text[index];
    else if (text[index + 1] === ',') {
      part += ',';
      index++;
    } else {
      parts.push(part);
      part = '';
    }
  }
  parts.push(part);
  return parts;
}

/** The keys of one option, taken one by one; what is left in the end is an error that names it. */
export class Keyval {
  readonly #option: string;
  readonly #values = new Map<string, string>();
  /** Keys in the order they were given. */
  readonly #order: string[] = [];

  /** `option`: how messages name it, e.g. `-device foo,x=1`. `implied`: the key of a first part without `=`. */
  constructor(option: string, text: string, implied?: string) {
    this.#option = option;
    for (const [index, part] of splitCommas(text).entries()) {
      if (part === '') {
        if (index === 0 && text === '') continue;
        throw this.error('empty key');
      }
      const equals = part.indexOf('=');
      if (equals === 0) throw this.error(`key expected before '='`);
      if (equals > 0) this.#set(part.slice(0, equals), part.slice(equals + 1));
      else if (index === 0 && implied !== undefined) this.#set(implied, part);
      else this.#set(part, 'on');
    }
  }

  #set(key: string, value: string): void {
    if (!this.#values.has(key)) this.#order.push(key);
    this.#values.set(key, value);
  }

  error(message: string): OptionError {
    return new OptionError(`${this.#option}: ${message}`);
  }

  /** The keys that were not taken yet. */
  get rest(): readonly string[] {
    return this.#order.filter((key) => this.#values.has(key));
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** Takes a key as text. */
  text(key: string): string | undefined {
    const value = this.#values.get(key);
    this.#values.delete(key);
    return value;
  }

  required(key: string): string {
    const value = this.text(key);
    if (value === undefined) throw this.error(`Parameter '${key}' is missing`);
    return value;
  }

  /** Takes `on`, `off` (or yes, no, true, false, y, n). The old `nokey` form counts as `key=off`. */
  flag(key: string): boolean | undefined {
    const value = this.text(key);
    if (value === undefined) return this.text(`no${key}`) === undefined ? undefined : false;
    if (['on', 'yes', 'true', 'y'].includes(value)) return true;
    if (['off', 'no', 'false', 'n'].includes(value)) return false;
    throw this.error(`Parameter '${key}' expects 'on' or 'off'`);
  }

  /** Takes a whole number from `minimum` to `maximum`, decimal or 0x. */
  integer(key: string, minimum: number, maximum: number): number | undefined {
    const value = this.text(key);
    if (value === undefined) return undefined;
    const number = /^(0x[0-9a-f]+|\d+)$/i.test(value) ? Number(value) : Number.NaN;
    if (!(number >= minimum && number <= maximum))
      throw this.error(`Parameter '${key}' expects a number from ${minimum} to ${maximum}`);
    return number;
  }

  /** Takes a size in bytes with a suffix (k, M, G, T); a bare number counts in `unit` bytes. */
  size(key: string, unit = 1): number | undefined {
    const value = this.text(key);
    if (value === undefined) return undefined;
    const bytes = parseSize(value, unit);
    if (bytes === undefined)
      throw this.error(
        `Parameter '${key}' expects a size: a number, and k, M, G or T for kilobytes, megabytes, gigabytes, terabytes`,
      );
    return bytes;
  }

  /** Takes one of `values`. */
  choice<const V extends string>(key: string, values: readonly V[]): V | undefined {
    const value = this.text(key);
    if (value === undefined) return undefined;
    const found = values.find((each) => each === value);
    if (found === undefined) throw this.error(`Parameter '${key}' does not accept '${value}' (${values.join(', ')})`);
    return found;
  }

  /** Throws for a key that nobody took. */
  finish(): void {
    const [key] = this.rest;
    if (key !== undefined) throw this.error(`Invalid parameter '${key}'`);
  }
}

const suffixes: Readonly<Record<string, number>> = { '': 0, b: 0, k: 1, m: 2, g: 3, t: 4, p: 5 };

/** Reads a size; undefined where the text is none or is more than a number holds exactly. */
export function parseSize(text: string, unit = 1): number | undefined {
  const match = /^(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtp]?)(?:i?b)?$/i.exec(text);
  if (match === null) return undefined;
  const bytes = Number(match[1]) * (match[2] === '' ? unit : 1024 ** suffixes[match[2].toLowerCase()]);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
