/** Every pure operation against the WebAssembly engine itself, on random and edge operands. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Bytes, ModuleBuilder } from '../exec/wasm.ts';
import { evaluate } from './evaluate.ts';
import { fusesMultiplyAdd, type PureOp, pureOps, type Type } from './ops.ts';

const BITS: Record<Type, number> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 };
const LOAD: Record<Type, number[]> = { i32: [0x28], i64: [0x29], f32: [0x2a], f64: [0x2b], v128: [0xfd, 0] };
const STORE: Record<Type, number[]> = { i32: [0x36], i64: [0x37], f32: [0x38], f64: [0x39], v128: [0xfd, 0x0b] };

let seed = 12345;
const random = (): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed >>> 8;
};
const EDGES: Record<number, bigint[]> = {
  32: [
    0n,
    1n,
    0x7fffffffn,
    0x80000000n,
    0xffffffffn,
    0x80n,
    0xffn,
    0x8000n,
    0x3f800000n,
    0x7f800000n,
    0xff800000n,
    0x4f000000n,
    0xcf000000n,
    0x3fc00000n,
    0x7fc00001n,
    0xbf000000n,
    1n << 23n,
  ],
  64: [
    0n,
    1n,
    (1n << 63n) - 1n,
    1n << 63n,
    (1n << 64n) - 1n,
    0x3ff0000000000000n,
    0x7ff0000000000000n,
    0xfff0000000000000n,
    0x3ff8000000000000n,
    0x41e0000000000000n,
    0xc1e0000000000000n,
    0x43e0000000000000n,
    0x7ff8000000000001n,
    0xbfe0000000000000n,
    0x3ff0000030000000n,
    0x7fffff4000000001n,
  ],
};

function operand(bits: number): bigint {
  if (bits === 128) return operand(64) | (operand(64) << 64n);
  const pick = random() % 4;
  if (pick === 0) return EDGES[bits][random() % EDGES[bits].length];
  if (pick === 1 && bits === 64) return operand(32) | (operand(32) << 32n);
  let value = 0n;
  for (let n = 0; n < bits; n += 8) value |= BigInt(random() & 0xff) << BigInt(n);
  return pick === 2 ? value >> BigInt(random() % bits) : value;
}

/** A module with one function: operands are loaded from 0, 16, 32; the result is stored at 48. */
function compile(op: PureOp, lanes: readonly number[], memory: WebAssembly.Memory): () => void {
  const module = new ModuleBuilder();
  module.memory = { module: 'e', name: 'memory', initialPages: 1, maximumPages: 1, memory64: false };
  const code = new Bytes();
  const at = (address: number): void => {
    code.u8(0x41);
    code.s32(address);
  };
  at(48);
  for (const [n, type] of op.args.entries()) {
    at(n * 16);
    code.raw(LOAD[type]);
    code.u32(0);
    code.u32(0);
  }
  code.raw(op.code);
  if (op.immediates > 0) code.raw(lanes);
  code.raw(STORE[op.result]);
  code.u32(0);
  code.u32(0);
  code.u8(0x0b);
  module.export('f', module.define({ params: [], results: [] }, [], code.view()));
  const compiled = new WebAssembly.Module(module.build() as Uint8Array<ArrayBuffer>);
  return new WebAssembly.Instance(compiled, { e: { memory } }).exports.f as () => void;
}

const isNan = (bits: number, value: bigint): boolean =>
  bits === 32 ? (value & 0x7fffffffn) > 0x7f800000n : (value & ~(1n << 63n)) > 0x7ff0000000000000n;

/** Equal, or NaNs at the same places: their bits are not WebAssembly's to say. */
function same(op: PureOp, got: bigint, wanted: bigint): boolean {
  if (got === wanted) return true;
  const shape = op.name.split('.')[0];
  const width = /^f32/.test(shape) ? 32 : /^f64/.test(shape) ? 64 : 0;
  if (width === 0 || !/^(f32|f64|v128)$/.test(op.result)) return false;
  for (let n = 0; n < BITS[op.result]; n += width) {
    const mask = (1n << BigInt(width)) - 1n;
    const a = (got >> BigInt(n)) & mask;
    const b = (wanted >> BigInt(n)) & mask;
    if (a !== b && !(isNan(width, a) && isNan(width, b))) return false;
  }
  return true;
}

test('every operation agrees with the WebAssembly engine', () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const words = new BigUint64Array(memory.buffer, 0, 8);
  const failures: string[] = [];
  for (const op of pureOps.values()) {
    // What these do is the host's business.
    if (op.name.includes('relaxed') && !fusesMultiplyAdd) continue;
    const limit = op.immediates === 16 ? 32 : ({ i8x16: 16, i16x8: 8, i64x2: 2, f64x2: 2 }[op.name.split('.')[0]] ?? 4);
    for (let round = 0; round < (op.immediates > 0 ? 4 : 1); round++) {
      const lanes = Array.from({ length: op.immediates }, () => random() % limit);
      const run = compile(op, lanes, memory);
      for (let n = 0; n < 60; n++) {
        const args = op.args.map((type) => operand(BITS[type]));
        if (op.name.endsWith('select') && n % 2 === 0) args[2] = 0n;
        if (/\.(div|rem)_/.test(op.name) && (args[1] === 0n || args[1] === (1n << BigInt(BITS[op.args[1]])) - 1n)) continue;
        words.fill(0n);
        for (const [at, arg] of args.entries()) {
          words[at * 2] = BigInt.asUintN(64, arg);
          words[at * 2 + 1] = arg >> 64n;
        }
        run();
        const wanted = BigInt.asUintN(BITS[op.result], words[6] | (words[7] << 64n));
        const got = evaluate(op, args, lanes);
        if (!same(op, got, wanted)) {
          failures.push(
            `${op.name} ${lanes} (${args.map((arg) => arg.toString(16))}): ${got.toString(16)}, not ${wanted.toString(16)}`,
          );
          break;
        }
      }
    }
  }
  assert.deepEqual(failures, []);
  assert.ok(pureOps.size > 250);
});

test('NaNs as x86 processors make them', () => {
  const op = (name: string): PureOp => pureOps.get(name) as PureOp;
  assert.equal(evaluate(op('f64.sub'), [0x7ff0000000000000n, 0x7ff0000000000000n]), 0xfff8000000000000n);
  assert.equal(evaluate(op('f64.add'), [0x7ff0000000000001n, 0x7ff8000000000002n]), 0x7ff8000000000001n);
  assert.equal(evaluate(op('f32.demote_f64'), [0xfff8000020000000n]), 0xffc00001n);
});
