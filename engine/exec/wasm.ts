/** A WebAssembly binary encoder: bytes, LEB128, sections (Core Specification 2.0, chapter 5). */
import type { Type } from '../ir/ops.ts';

export const VALUE_TYPE: Record<Type, number> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };

/** A growing run of bytes. */
export class Bytes {
  #data = new Uint8Array(256);
  length = 0;

  #room(count: number): void {
    if (this.length + count <= this.#data.length) return;
    const larger = new Uint8Array(Math.max(this.#data.length * 2, this.length + count));
    larger.set(this.#data.subarray(0, this.length));
    this.#data = larger;
  }
  u8(value: number): void {
    if (this.length === this.#data.length) this.#room(1);
    this.#data[this.length++] = value;
  }
  raw(values: ArrayLike<number>): void {
    const count = values.length;
    this.#room(count);
    // Mostly it is an opcode of one or two bytes, for which `set` is slow.
    if (count > 16) this.#data.set(values, this.length);
    else for (let n = 0; n < count; n++) this.#data[this.length + n] = values[n];
    this.length += count;
  }
  /** Unsigned LEB128 of a 32-bit value. */
  u32(value: number): void {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.u8((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    this.u8(rest);
  }
  /** Signed LEB128 of a 32-bit value. */
  s32(value: number): void {
    let rest = value | 0;
    for (;;) {
      const byte = rest & 0x7f;
      rest >>= 7;
      if ((rest === 0 && (byte & 0x40) === 0) || (rest === -1 && (byte & 0x40) !== 0)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 0x80);
    }
  }
  /** Signed LEB128 of a 64-bit value. */
  s64(value: bigint): void {
    if (value >= -0x80000000n && value <= 0x7fffffffn) {
      this.s32(Number(value));
      return;
    }
    let rest = BigInt.asIntN(64, value);
    for (;;) {
      const byte = Number(rest & 0x7fn);
      rest >>= 7n;
      if ((rest === 0n && (byte & 0x40) === 0) || (rest === -1n && (byte & 0x40) !== 0)) {
        this.u8(byte);
        return;
      }
      this.u8(byte | 0x80);
    }
  }
  text(value: string): void {
    const encoded = new TextEncoder().encode(value);
    this.u32(encoded.length);
    this.raw(encoded);
  }
  view(): Uint8Array {
    return this.#data.subarray(0, this.length);
  }
}

export interface FunctionType {
  readonly params: readonly Type[];
  readonly results: readonly Type[];
}

/** Which way an `if` or a `br_if` goes as a rule: `at` is its offset in the function's code. */
export interface BranchHint {
  readonly at: number;
  readonly likely: boolean;
}

interface ImportedFunction {
  readonly module: string;
  readonly name: string;
  readonly type: number;
}

interface ImportedGlobal {
  readonly module: string;
  readonly name: string;
  readonly type: Type;
}

export interface MemoryImport {
  readonly module: string;
  readonly name: string;
  readonly initialPages: number;
  readonly maximumPages: number;
  readonly memory64: boolean;
}

export interface TableImport {
  readonly module: string;
  readonly name: string;
  readonly minimum: number;
}

/** Collects the parts of a module; functions are numbered imports first, in the order they are declared. */
export class ModuleBuilder {
  readonly #types: string[] = [];
  readonly #typeBytes: Uint8Array[] = [];
  readonly #imports: ImportedFunction[] = [];
  readonly #globals: ImportedGlobal[] = [];
  readonly #functions: { type: number; body: Uint8Array; hints: readonly BranchHint[] }[] = [];
  readonly #exports: { name: string; index: number }[] = [];
  /** What debuggers and profilers call the module. */
  name = '';
  memory: MemoryImport | undefined;
  table: TableImport | undefined;
  /** Functions (by index) to put into the table from `elementBase` when the module is instantiated. */
  elements: readonly number[] = [];
  elementBase = 0;

  type(type: FunctionType): number {
    const key = `${type.params.join()}:${type.results.join()}`;
    const known = this.#types.indexOf(key);
    if (known >= 0) return known;
    const bytes = new Bytes();
    bytes.u8(0x60);
    for (const list of [type.params, type.results]) {
      bytes.u32(list.length);
      for (const each of list) bytes.u8(VALUE_TYPE[each]);
    }
    this.#types.push(key);
    this.#typeBytes.push(bytes.view());
    return this.#types.length - 1;
  }

  /** Imports a function; all imports must be declared before the first function is defined. */
  import(module: string, name: string, type: FunctionType): number {
    if (this.#functions.length > 0) throw new Error('wasm: import after a function');
    this.#imports.push({ module, name, type: this.type(type) });
    return this.#imports.length - 1;
  }

  /** Imports a constant; gives its index. */
  importGlobal(module: string, name: string, type: Type): number {
    return this.#globals.push({ module, name, type }) - 1;
  }

  /** Reserves the index that the next defined function will have. */
  get nextIndex(): number {
    return this.#imports.length + this.#functions.length;
  }

  /** Adds a function with its locals declared and its code, `end` included; gives its index. */
  define(type: FunctionType, locals: readonly Type[], code: Uint8Array, hints: readonly BranchHint[] = []): number {
    const body = new Bytes();
    const groups: { type: Type; count: number }[] = [];
    for (const local of locals) {
      const last = groups[groups.length - 1];
      if (last !== undefined && last.type === local) last.count++;
      else groups.push({ type: local, count: 1 });
    }
    body.u32(groups.length);
    for (const group of groups) {
      body.u32(group.count);
      body.u8(VALUE_TYPE[group.type]);
    }
    const start = body.length;
    body.raw(code);
    this.#functions.push({
      type: this.type(type),
      body: body.view(),
      hints: hints.map(({ at, likely }) => ({ at: at + start, likely })),
    });
    return this.nextIndex - 1;
  }

  export(name: string, index: number): void {
    this.#exports.push({ name, index });
  }

  build(): Uint8Array {
    const out = new Bytes();
    out.raw([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);
    const section = (id: number, fill: (bytes: Bytes) => void): void => {
      const bytes = new Bytes();
      fill(bytes);
      out.u8(id);
      out.u32(bytes.length);
      out.raw(bytes.view());
    };
    section(1, (bytes) => {
      bytes.u32(this.#typeBytes.length);
      for (const type of this.#typeBytes) bytes.raw(type);
    });
    section(2, (bytes) => {
      bytes.u32(this.#imports.length + this.#globals.length + (this.memory ? 1 : 0) + (this.table ? 1 : 0));
      for (const each of this.#imports) {
        bytes.text(each.module);
        bytes.text(each.name);
        bytes.u8(0);
        bytes.u32(each.type);
      }
      for (const each of this.#globals) {
        bytes.text(each.module);
        bytes.text(each.name);
        bytes.u8(3);
        bytes.u8(VALUE_TYPE[each.type]);
        bytes.u8(0); // immutable
      }
      if (this.memory) {
        bytes.text(this.memory.module);
        bytes.text(this.memory.name);
        bytes.u8(2);
        // Limits: bit 0 maximum present, bit 1 shared, bit 2 64-bit addresses.
        bytes.u8(this.memory.memory64 ? 7 : 3);
        bytes.u32(this.memory.initialPages);
        bytes.u32(this.memory.maximumPages);
      }
      if (this.table) {
        bytes.text(this.table.module);
        bytes.text(this.table.name);
        bytes.u8(1);
        bytes.u8(0x70);
        bytes.u8(0);
        bytes.u32(this.table.minimum);
      }
    });
    section(3, (bytes) => {
      bytes.u32(this.#functions.length);
      for (const each of this.#functions) bytes.u32(each.type);
    });
    section(7, (bytes) => {
      bytes.u32(this.#exports.length);
      for (const each of this.#exports) {
        bytes.text(each.name);
        bytes.u8(0);
        bytes.u32(each.index);
      }
    });
    if (this.elements.length > 0)
      section(9, (bytes) => {
        bytes.u32(1);
        bytes.u8(0);
        bytes.u8(0x41);
        bytes.s32(this.elementBase);
        bytes.u8(0x0b);
        bytes.u32(this.elements.length);
        for (const index of this.elements) bytes.u32(index);
      });
    const hinted = this.#functions.filter(({ hints }) => hints.length > 0);
    if (hinted.length > 0)
      section(0, (bytes) => {
        bytes.text('metadata.code.branch_hint');
        bytes.u32(hinted.length);
        for (const [n, each] of this.#functions.entries()) {
          if (each.hints.length === 0) continue;
          bytes.u32(this.#imports.length + n);
          bytes.u32(each.hints.length);
          for (const { at, likely } of each.hints) {
            bytes.u32(at);
            bytes.u8(1);
            bytes.u8(likely ? 1 : 0);
          }
        }
      });
    section(10, (bytes) => {
      bytes.u32(this.#functions.length);
      for (const each of this.#functions) {
        bytes.u32(each.body.length);
        bytes.raw(each.body);
      }
    });
    // The name section, subsection 0 (core specification, 7.4.1).
    if (this.name !== '')
      section(0, (bytes) => {
        const name = new Bytes();
        name.text(this.name);
        bytes.text('name');
        bytes.u8(0);
        bytes.u32(name.length);
        bytes.raw(name.view());
      });
    return out.view();
  }
}
