/**
 * State structs: named, versioned records laid out in the machine's shared memory.
 *
 * A device declares its registers once with `struct(...)`. Every thread makes its own
 * view with `at(...)`; all views see the same registers, because the fields are accessors
 * over the shared buffer. A snapshot is these structs by name and version, plus RAM.
 *
 * Scalars occupy 4 bytes (`u32`, `i32`) or 8 (`f64`, `u64`); arrays are typed-array views.
 */

export interface FieldSpec<T> {
  readonly bytes: number;
  readonly align: number;
  /** Defines the accessor of this field on the view's prototype or, for arrays, on the view. */
  readonly kind: 'u32' | 'i32' | 'f64' | 'u64' | 'bytes' | 'u16s' | 'u32s' | 'i32s' | 'f64s';
  readonly count: number;
  readonly type?: T;
}

/** An unsigned 32-bit field. */
export const u32: FieldSpec<number> = { kind: 'u32', bytes: 4, align: 4, count: 1 };
/** A signed 32-bit field. */
export const i32: FieldSpec<number> = { kind: 'i32', bytes: 4, align: 4, count: 1 };
/** A double; used for times in nanoseconds and for addresses below 2^53. */
export const f64: FieldSpec<number> = { kind: 'f64', bytes: 8, align: 8, count: 1 };
/** An unsigned 64-bit field, seen as a bigint: for cold registers only. */
export const u64: FieldSpec<bigint> = { kind: 'u64', bytes: 8, align: 8, count: 1 };
/** `count` bytes, as a Uint8Array over shared memory. */
export const bytes = (count: number): FieldSpec<Uint8Array> => ({ kind: 'bytes', bytes: count, align: 4, count });
/** `count` 16-bit words. */
export const u16s = (count: number): FieldSpec<Uint16Array> => ({ kind: 'u16s', bytes: count * 2, align: 4, count });
/** `count` unsigned 32-bit words. */
export const u32s = (count: number): FieldSpec<Uint32Array> => ({ kind: 'u32s', bytes: count * 4, align: 4, count });
/** `count` signed 32-bit words; the form that `Atomics` wants. */
export const i32s = (count: number): FieldSpec<Int32Array> => ({ kind: 'i32s', bytes: count * 4, align: 4, count });
/** `count` doubles. */
export const f64s = (count: number): FieldSpec<Float64Array> => ({ kind: 'f64s', bytes: count * 8, align: 8, count });

// biome-ignore lint/suspicious/noExplicitAny: any field type is admitted here; the view restores the exact one
type Fields = Record<string, FieldSpec<any>>;
/** The typed view of a struct: one property for each field. */
export type View<F extends Fields> = {
  -readonly [K in keyof F]: F[K] extends FieldSpec<infer T> ? T : never;
};

export interface StructType<F extends Fields = Fields> {
  readonly name: string;
  readonly version: number;
  readonly size: number;
  /** `guest`: part of the machine's state; `host`: means something only to the threads of this process, never saved. */
  readonly scope: StructScope;
  readonly fields: F;
  /** Byte offset of each field from the start of the struct. */
  readonly offsets: { readonly [K in keyof F]: number };
  /** A view of the struct that lies at byte `address` (8-byte aligned) of `buffer`. */
  at(buffer: ArrayBufferLike, address: number): View<F>;
}

export type StructScope = 'guest' | 'host';

/** Declares a state struct. Fields are laid out in order, naturally aligned; the size is a multiple of 8. */
export function struct<const F extends Fields>(
  name: string,
  version: number,
  fields: F,
  scope: StructScope = 'guest',
): StructType<F> {
  const offsets: Record<string, number> = {};
  let end = 0;
  for (const [key, spec] of Object.entries(fields)) {
    end = Math.ceil(end / spec.align) * spec.align;
    offsets[key] = end;
    end += spec.bytes;
  }
  const size = Math.ceil(end / 8) * 8;

  class StructView {
    readonly $u: Uint32Array;
    readonly $i: Int32Array;
    readonly $f: Float64Array;
    readonly $b: BigUint64Array;
    constructor(buffer: ArrayBufferLike, address: number) {
      if (address % 8 !== 0) throw new RangeError(`struct ${name}: address ${address} is not 8-byte aligned`);
      this.$u = new Uint32Array(buffer, address, size / 4);
      this.$i = new Int32Array(buffer, address, size / 4);
      this.$f = new Float64Array(buffer, address, size / 8);
      this.$b = new BigUint64Array(buffer, address, size / 8);
      for (const [key, spec] of Object.entries(fields)) {
        const at = address + offsets[key];
        const view = arrayView(spec, buffer, at);
        if (view) Object.defineProperty(this, key, { value: view, enumerable: true });
      }
    }
  }
  for (const [key, spec] of Object.entries(fields)) {
    const word = offsets[key] / 4;
    const half = offsets[key] / 8;
    const define = (get: (this: StructView) => unknown, set: (this: StructView, value: never) => void): void => {
      Object.defineProperty(StructView.prototype, key, { get, set, enumerable: true });
    };
    if (spec.kind === 'u32')
      define(
        function (this: StructView) {
          return this.$u[word];
        },
        function (this: StructView, value: number) {
          this.$u[word] = value;
        } as never,
      );
    else if (spec.kind === 'i32')
      define(
        function () {
          return this.$i[word];
        },
        function (this: StructView, value: number) {
          this.$i[word] = value;
        } as never,
      );
    else if (spec.kind === 'f64')
      define(
        function () {
          return this.$f[half];
        },
        function (this: StructView, value: number) {
          this.$f[half] = value;
        } as never,
      );
    else if (spec.kind === 'u64')
      define(
        function () {
          return this.$b[half];
        },
        function (this: StructView, value: bigint) {
          this.$b[half] = value;
        } as never,
      );
  }
  return {
    name,
    version,
    size,
    scope,
    fields,
    offsets: offsets as { readonly [K in keyof F]: number },
    at: (buffer, address) => new StructView(buffer, address) as unknown as View<F>,
  };
}

function arrayView(spec: FieldSpec<unknown>, buffer: ArrayBufferLike, at: number): ArrayBufferView | undefined {
  switch (spec.kind) {
    case 'bytes':
      return new Uint8Array(buffer, at, spec.count);
    case 'u16s':
      return new Uint16Array(buffer, at, spec.count);
    case 'u32s':
      return new Uint32Array(buffer, at, spec.count);
    case 'i32s':
      return new Int32Array(buffer, at, spec.count);
    case 'f64s':
      return new Float64Array(buffer, at, spec.count);
    default:
      return undefined;
  }
}
