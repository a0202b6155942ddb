/**
 * Types of QMP arguments, written as QAPI writes them (`'*name'` is optional), with their check, their TypeScript
 * type and their form in `query-qmp-schema` (QEMU's QAPI, "Client JSON Protocol introspection").
 */
import { MonitorError } from './machine-control.ts';

/** A type of QAPI. `int` is a safe integer; `uint64` comes as a bigint. */
export type QapiType =
  | 'str'
  | 'int'
  | 'uint64'
  | 'number'
  | 'bool'
  | 'any'
  | { readonly enum: readonly string[] }
  | { readonly array: QapiType }
  | { readonly struct: QapiMembers }
  /** An object of `type` and `data`, where `type` says what `data` is. */
  | { readonly union: Readonly<Record<string, QapiType>> };

export type QapiMembers = { readonly [name: string]: QapiType };

type Optional<M> = { [K in keyof M as K extends `*${infer N}` ? N : never]?: QapiValue<M[K]> };
type Required<M> = { [K in keyof M as K extends `*${string}` ? never : K]: QapiValue<M[K]> };

/** The TypeScript type of arguments with these members. */
export type QapiArguments<M> = Optional<M> & Required<M>;

/** The TypeScript type of a value of a QAPI type. */
export type QapiValue<T> = T extends 'str'
  ? string
  : T extends 'int' | 'number'
    ? number
    : T extends 'uint64'
      ? bigint
      : T extends 'bool'
        ? boolean
        : T extends { readonly enum: readonly (infer E)[] }
          ? E
          : T extends { readonly array: infer A }
            ? QapiValue<A>[]
            : T extends { readonly struct: infer M }
              ? QapiArguments<M>
              : T extends { readonly union: infer U }
                ? { [K in keyof U]: { type: K; data: QapiValue<U[K]> } }[keyof U]
                : unknown;

const wrongType = (path: string, expected: string): MonitorError =>
  new MonitorError(`Invalid parameter type for '${path}', expected: ${expected}`);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Checks an object's members and returns it with its integers in the type they are declared with. */
export function checkMembers(members: QapiMembers, value: Record<string, unknown>, path = ''): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const prefix = path === '' ? '' : `${path}.`;
  for (const key of Object.keys(value))
    if (!Object.hasOwn(members, key) && !Object.hasOwn(members, `*${key}`))
      throw new MonitorError(`Parameter '${prefix}${key}' is unexpected`);
  for (const [declared, type] of Object.entries(members)) {
    const optional = declared.startsWith('*');
    const name = optional ? declared.slice(1) : declared;
    if (Object.hasOwn(value, name)) result[name] = checkValue(type, value[name], prefix + name);
    else if (!optional) throw new MonitorError(`Parameter '${prefix}${name}' is missing`);
  }
  return result;
}

/** Checks one value; throws a MonitorError that names `path`. */
export function checkValue(type: QapiType, value: unknown, path: string): unknown {
  if (typeof type === 'string') return checkBuiltin(type, value, path);
  if ('enum' in type) {
    if (typeof value !== 'string') throw wrongType(path, 'string');
    if (!type.enum.includes(value)) throw new MonitorError(`Parameter '${path}' does not accept value '${value.slice(0, 80)}'`);
    return value;
  }
  if ('array' in type) {
    if (!Array.isArray(value)) throw wrongType(path, 'array');
    return value.map((item, index) => checkValue(type.array, item, `${path}[${index}]`));
  }
  if (!isObject(value)) throw wrongType(path, 'object');
  if ('struct' in type) return checkMembers(type.struct, value, path);
  const kind = checkValue({ enum: Object.keys(type.union) }, value.type ?? missing(`${path}.type`), `${path}.type`) as string;
  return checkMembers({ type: 'str', data: type.union[kind] }, value, path);
}

function missing(path: string): never {
  throw new MonitorError(`Parameter '${path}' is missing`);
}

function checkBuiltin(type: string, value: unknown, path: string): unknown {
  switch (type) {
    case 'str':
      if (typeof value !== 'string') throw wrongType(path, 'string');
      return value;
    case 'bool':
      if (typeof value !== 'boolean') throw wrongType(path, 'boolean');
      return value;
    case 'number':
      if (typeof value !== 'number') throw wrongType(path, 'number');
      return value;
    case 'int':
      if (typeof value !== 'number' || !Number.isSafeInteger(value)) throw wrongType(path, 'integer');
      return value;
    case 'uint64': {
      if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) throw wrongType(path, 'uint64');
      const number = BigInt(value as number | bigint);
      if (number < 0n || number >= 1n << 64n) throw wrongType(path, 'uint64');
      return number;
    }
    default:
      return value;
  }
}

/** An entry of `query-qmp-schema`. */
export type SchemaInfo = { readonly name: string; readonly 'meta-type': string } & Readonly<Record<string, unknown>>;

const builtins: Readonly<Record<string, readonly [name: string, json: string]>> = {
  str: ['str', 'string'],
  int: ['int', 'int'],
  uint64: ['uint64', 'int'],
  number: ['number', 'number'],
  bool: ['bool', 'boolean'],
  any: ['any', 'value'],
};

/** Collects the schema of commands and events, with a number for each type that has no name. */
export class SchemaWriter {
  readonly entries: SchemaInfo[] = [];
  readonly #known = new Map<string, string>();
  #next = 0;

  command(name: string, members: QapiMembers, returns: QapiType): void {
    this.entries.push({
      name,
      'meta-type': 'command',
      'arg-type': this.#type({ struct: members }),
      'ret-type': this.#type(returns),
    });
  }

  event(name: string, members: QapiMembers): void {
    this.entries.push({ name, 'meta-type': 'event', 'arg-type': this.#type({ struct: members }) });
  }

  #type(type: QapiType): string {
    const key = JSON.stringify(type);
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const name =
      typeof type === 'string' ? builtins[type][0] : 'array' in type ? `[${this.#type(type.array)}]` : String(this.#next++);
    this.#known.set(key, name);
    this.entries.push(this.#describe(name, type));
    return name;
  }

  #describe(name: string, type: QapiType): SchemaInfo {
    if (typeof type === 'string') return { name, 'meta-type': 'builtin', 'json-type': builtins[type][1] };
    if ('enum' in type)
      return { name, 'meta-type': 'enum', members: type.enum.map((value) => ({ name: value })), values: type.enum };
    if ('array' in type) return { name, 'meta-type': 'array', 'element-type': this.#type(type.array) };
    if ('struct' in type) return { name, 'meta-type': 'object', members: this.#members(type.struct) };
    return {
      name,
      'meta-type': 'object',
      tag: 'type',
      members: this.#members({ type: { enum: Object.keys(type.union) } }),
      variants: Object.entries(type.union).map(([kind, data]) => ({ case: kind, type: this.#type({ struct: { data } }) })),
    };
  }

  #members(members: QapiMembers): Record<string, unknown>[] {
    return Object.entries(members).map(([declared, type]) =>
      declared.startsWith('*')
        ? { name: declared.slice(1), default: null, type: this.#type(type) }
        : { name: declared, type: this.#type(type) },
    );
  }
}
