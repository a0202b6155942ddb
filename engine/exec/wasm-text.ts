/**
 * The text of a module that `ModuleBuilder` made: instructions as WebAssembly's text format has them (Core Specification
 * 2.0, chapter 6), those that belong together on a line, blocks indented. For logs and for the goldens; it knows what our encoder writes and no more.
 */
import { pureOps, type Type } from '../ir/ops.ts';
import { ATOMICS, LOADS, STORES, W } from './opcodes.ts';
import { VALUE_TYPE } from './wasm.ts';

type Immediates = 'none' | 'local' | 'function' | 'label' | 'memory' | 'lane' | 'lanes';
interface Instruction {
  readonly name: string;
  readonly immediates: Immediates;
}

const TYPES = new Map(Object.entries(VALUE_TYPE).map(([type, code]) => [code, type as Type]));

/** By opcode: one byte, or the prefix shifted by 16 and the number after it. */
const INSTRUCTIONS = ((): ReadonlyMap<number, Instruction> => {
  const all = new Map<number, Instruction>();
  const add = (code: readonly number[], name: string, immediates: Immediates = 'none'): void => {
    let number = code[0];
    if (code.length > 1) number = (number << 16) | code.slice(1).reduce((sum, byte, n) => sum | ((byte & 0x7f) << (7 * n)), 0);
    if (!all.has(number)) all.set(number, { name, immediates });
  };
  for (const [name, code, immediates] of [
    ['unreachable', 0x00],
    ['br', W.br, 'label'],
    ['br_if', W.brIf, 'label'],
    ['return', W.return],
    ['call', W.call, 'function'],
    ['return_call', W.returnCall, 'function'],
    ['drop', W.drop],
    ['select', 0x1b],
    ['local.get', W.get, 'local'],
    ['local.set', W.set, 'local'],
    ['local.tee', W.tee, 'local'],
  ] as const)
    add([code], name, immediates);
  const sized = (kind: 'load' | 'store', key: string): string => {
    const [type, rest] = key.split('/');
    const bits = Number.parseInt(rest, 10);
    const whole = bits === { i32: 32, f32: 32, i64: 64, f64: 64, v128: 128 }[type];
    if (type === 'v128' && !whole) return `v128.load${bits}_zero`;
    return `${type}.${kind}${whole ? '' : `${bits}${kind === 'store' ? '' : rest.endsWith('s') ? '_s' : '_u'}`}`;
  };
  for (const [key, code] of Object.entries(LOADS)) add(code, sized('load', key), 'memory');
  for (const [key, code] of Object.entries(STORES)) add(code, sized('store', key), 'memory');
  for (const [kind, [w32, w64, w8, w16]] of Object.entries(ATOMICS)) {
    add([0xfe, w32], `i32.atomic.rmw.${kind}`, 'memory');
    add([0xfe, w64], `i64.atomic.rmw.${kind}`, 'memory');
    add([0xfe, w8], `i32.atomic.rmw8.${kind}_u`, 'memory');
    add([0xfe, w16], `i32.atomic.rmw16.${kind}_u`, 'memory');
  }
  const extending = '8x8_s 8x8_u 16x4_s 16x4_u 32x2_s 32x2_u 8_splat 16_splat 32_splat 64_splat'.split(' ');
  for (const [n, rest] of extending.entries()) add([0xfd, n + 1], `v128.load${rest}`, 'memory');
  for (const { name, code, immediates } of pureOps.values())
    if (!name.endsWith('.select')) add(code, name, immediates === 0 ? 'none' : immediates === 1 ? 'lane' : 'lanes');
  return all;
})();

/** Instructions that leave nothing for the next: a line ends after them. */
const LAST = /^(local\.set|drop|br|return|block|loop|if|else|end|unreachable|memory\.|\w+\.store)/;

export interface WasmTextOptions {
  /** Another text for the number of a global, such as the name of what it has the address of. */
  global?(index: number): string | undefined;
}

/** The functions that a module defines. Throws where it is not one of ours. */
export function wasmText(module: Uint8Array, options: WasmTextOptions = {}): string {
  return new Text(module, options).module();
}

class Text {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #global: (index: number) => string | undefined;
  #at = 8;
  #functions: string[] = [];
  /** By function and offset in it. */
  readonly #hints = new Map<string, boolean>();

  constructor(bytes: Uint8Array, { global = () => undefined }: WasmTextOptions) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#global = global;
  }

  #u8(): number {
    if (this.#at >= this.#bytes.length) throw new Error('wasm: cut off');
    return this.#bytes[this.#at++];
  }
  /** Unsigned LEB128; exact up to 2^53. */
  #u(): number {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.#u8();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
  }
  #s(): bigint {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.#u8();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(Number(shift) + 7, value);
    }
  }
  #name(): string {
    const length = this.#u();
    this.#at += length;
    return new TextDecoder().decode(this.#bytes.subarray(this.#at - length, this.#at));
  }

  module(): string {
    const out: string[] = [];
    while (this.#at < this.#bytes.length) {
      const id = this.#u8();
      const end = this.#u() + this.#at;
      if (id === 0) this.#custom();
      else if (id === 2) this.#imports();
      else if (id === 10)
        for (let count = this.#u(), n = 0; n < count; n++) {
          const size = this.#u();
          out.push(...this.#function(this.#functions.length + n, this.#at + size));
        }
      this.#at = end;
    }
    return out.join('\n');
  }

  #imports(): void {
    for (let count = this.#u(); count > 0; count--) {
      this.#name();
      const name = this.#name();
      const kind = this.#u8();
      if (kind === 0) {
        this.#u();
        this.#functions.push(`$${name}`);
      } else if (kind === 3) this.#at += 2;
      else {
        if (kind === 1) this.#u8();
        const limits = this.#u8();
        this.#u();
        if ((limits & 1) !== 0) this.#u();
      }
    }
  }

  /** Branch hints: the custom section `metadata.code.branch_hint` of the branch hinting proposal. */
  #custom(): void {
    if (this.#name() !== 'metadata.code.branch_hint') return;
    for (let count = this.#u(); count > 0; count--) {
      const index = this.#u();
      for (let hints = this.#u(); hints > 0; hints--) {
        const offset = this.#u();
        this.#u();
        this.#hints.set(`${index}:${offset}`, this.#u8() !== 0);
      }
    }
  }

  #function(index: number, end: number): string[] {
    const start = this.#at;
    const groups: string[] = [];
    for (let count = this.#u(); count > 0; count--) {
      const many = this.#u();
      groups.push(`${TYPES.get(this.#u8())}${many === 1 ? '' : `*${many}`}`);
    }
    const out = [`(func ${index}${groups.length === 0 ? '' : ` (local ${groups.join(' ')})`}`];
    let depth = 1;
    let line: string[] = [];
    const close = (): void => {
      if (line.length > 0) out.push('  '.repeat(depth) + line.join('  '));
      line = [];
    };
    while (this.#at < end) {
      const hint = this.#hints.get(`${index}:${this.#at - start}`);
      const code = this.#u8();
      if (code === W.end || code === W.else) {
        close();
        depth--;
      }
      const text = this.#instruction(code);
      if (depth > 0) line.push(hint === undefined ? text : `${text} ;; ${hint ? 'likely' : 'unlikely'}`);
      if (LAST.test(text)) close();
      if (code === W.else || code === W.block || code === W.loop || code === W.if) depth++;
    }
    close();
    out.push(')');
    return out;
  }

  #instruction(code: number): string {
    switch (code) {
      case W.block:
      case W.loop:
      case W.if: {
        const type = this.#u8();
        const name = code === W.block ? 'block' : code === W.loop ? 'loop' : 'if';
        return type === W.void ? name : `${name} (result ${TYPES.get(type)})`;
      }
      case W.else:
        return 'else';
      case W.end:
        return 'end';
      case 0x0e: {
        const labels = Array.from({ length: this.#u() + 1 }, () => this.#u());
        return `br_table ${labels.join(' ')}`;
      }
      case W.returnCallIndirect: {
        const type = this.#u();
        this.#u();
        return `return_call_indirect (type ${type})`;
      }
      case 0x1c: {
        const types = Array.from({ length: this.#u() }, () => TYPES.get(this.#u8()));
        return `select (result ${types.join(' ')})`;
      }
      case W.globalGet: {
        const index = this.#u();
        return `global.get ${this.#global(index) ?? index}`;
      }
      case W.i32Const:
      case W.i64Const: {
        const value = this.#s();
        return `${code === W.i32Const ? 'i32' : 'i64'}.const ${this.#number(value)}`;
      }
      case W.f32Const:
        this.#at += 4;
        return `f32.const ${this.#view.getFloat32(this.#at - 4, true)}`;
      case W.f64Const:
        this.#at += 8;
        return `f64.const ${this.#view.getFloat64(this.#at - 8, true)}`;
    }
    const prefixed = code === 0xfc || code === 0xfd || code === 0xfe;
    const number = prefixed ? (code << 16) | this.#u() : code;
    if (number === 0xfd000c) return `v128.const i64x2 ${this.#hex64()} ${this.#hex64()}`;
    // memory.copy and memory.fill: memories by their index
    if (number === 0xfc000a || number === 0xfc000b) {
      this.#at += number === 0xfc000a ? 2 : 1;
      return number === 0xfc000a ? 'memory.copy' : 'memory.fill';
    }
    const known = INSTRUCTIONS.get(number);
    if (known === undefined) throw new Error(`wasm: no instruction ${number.toString(16)}`);
    const { name, immediates } = known;
    switch (immediates) {
      case 'none':
        return name;
      case 'local':
      case 'label':
        return `${name} ${this.#u()}`;
      case 'function': {
        const index = this.#u();
        return `${name} ${this.#functions[index] ?? index}`;
      }
      case 'memory': {
        const alignment = this.#u();
        const offset = this.#u();
        const natural = alignment === 0 ? '' : ` align=${1 << alignment}`;
        return `${name}${offset === 0 ? '' : ` offset=0x${offset.toString(16)}`}${natural}`;
      }
      case 'lane':
        return `${name} ${this.#u8()}`;
      case 'lanes':
        return `${name} ${Array.from({ length: 16 }, () => this.#u8()).join(' ')}`;
    }
  }

  #hex64(): string {
    this.#at += 8;
    return `0x${this.#view.getBigUint64(this.#at - 8, true).toString(16)}`;
  }
  #number(value: bigint): string {
    if (value > -4096n && value < 4096n) return `${value}`;
    return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
  }
}
