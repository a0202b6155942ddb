/**
 * How floating-point instructions are emitted: the operation is done with WebAssembly's own numbers; where the
 * operands, the result and MXCSR show that this is the whole truth it is written, else a helper does it again.
 *
 * It is the whole truth when no exception flag can change and the rounding is WebAssembly's: all exceptions masked,
 * rounding to nearest, the precision flag already set, no operand a NaN or denormal, and each result a normal number
 * or an exact zero. DAZ and FTZ are of no account then.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { CR4, MXCSR, VECTOR_RESULT, VECTOR_X, VECTOR_Y, VECTOR_Z } from '../../memory/vcpu-state.ts';
import { type SseFloatName, sseOperation } from '../fpu/sse-float.ts';
import { type Instruction, Vector } from './context.ts';
import { halvesOf, lanes, zero } from './sse-context.ts';

export type Precision = 32 | 64;
const OSXMMEXCPT = 0x400;

/** All exceptions masked, rounding to nearest, the precision flag set. */
export const plainMode = (b: Builder): Value => b.eq(b.and(b.state(MXCSR, 32), b.i32(0x7fa0)), b.i32(0x1fa0));
/** Denormal operands count as they are. */
export const noDaz = (b: Builder): Value => b.eqz(b.and(b.state(MXCSR, 32), b.i32(0x40)));

/** A vector, or its two halves. */
export type Halves = Value | readonly Value[];
export const listOf = (x: Halves): readonly Value[] => ('type' in x ? [x] : x);

/** Calls the helper on operands of 128 or 256 bits; raises what it says. The result lies at `RESULT`. */
export function callFloat(
  i: Instruction,
  name: SseFloatName,
  bits: Precision,
  count: number,
  x: Halves,
  y: Halves,
  imm?: Value,
  z?: Halves,
): void {
  const { b } = i;
  for (const [half, value] of listOf(x).entries()) b.setState(VECTOR_X + 16 * half, 128, value);
  for (const [half, value] of listOf(y).entries()) b.setState(VECTOR_Y + 16 * half, 128, value);
  if (z !== undefined) for (const [half, value] of listOf(z).entries()) b.setState(VECTOR_Z + 16 * half, 128, value);
  const raised = b.call('sse_float', 'i32', b.i32(sseOperation(name, bits, count)), imm ?? b.i32(0));
  b.if(raised, () => {
    b.if(b.eqz(b.and(b.state(CR4, 32), b.i32(OSXMMEXCPT))), () => b.raise(Vector.UD));
    b.raise(Vector.XM);
  });
}
/** Where the helper's result lies in the state. */
export const RESULT = VECTOR_RESULT;
/** Both halves of the helper's result, or the only one. */
export const resultHalves = (i: Instruction): Value[] => halvesOf(i).map((half) => i.b.state(RESULT + 16 * half, 128));

/** The low lane of a vector as a number. */
export const lane0 = (b: Builder, bits: Precision, x: Value): Value =>
  b.op(bits === 64 ? 'f64x2.extract_lane' : 'f32x4.extract_lane', [x], [0]);

const LEAST = { 32: 0x00800000n, 64: 0x0010000000000000n } as const;
const INFINITE = { 32: 0x7f800000n, 64: 0x7ff0000000000000n } as const;

/** Numbers of one precision, one at a time or all lanes of a vector: the tests that both need. */
export class Numbers {
  readonly #b: Builder;
  readonly #bits: Precision;
  readonly #packed: boolean;
  readonly #shape: string;

  constructor(b: Builder, bits: Precision, packed: boolean) {
    this.#b = b;
    this.#bits = bits;
    this.#packed = packed;
    this.#shape = packed ? (bits === 64 ? 'f64x2' : 'f32x4') : `f${bits}`;
  }
  op(verb: string, ...args: readonly Value[]): Value {
    return this.#b.op(`${this.#shape}.${verb}`, args);
  }
  constant(pattern: bigint): Value {
    const b = this.#b;
    if (this.#packed) return lanes(b, this.#bits, this.#bits === 64 ? [pattern, pattern] : [pattern, pattern, pattern, pattern]);
    return this.#bits === 64
      ? b.op('f64.reinterpret_i64', [b.i64(pattern)])
      : b.op('f32.reinterpret_i32', [b.i32(Number(pattern))]);
  }
  and(x: Value, y: Value): Value {
    return this.#b.and(x, y);
  }
  or(x: Value, y: Value): Value {
    return this.#b.or(x, y);
  }
  /** A scalar's bits without the sign, times two: tests of single numbers are cheaper on integers. */
  #magnitude(x: Value): Value {
    const b = this.#b;
    return b.shl(asBits(b, x), this.#int(1n));
  }
  #int(bits: bigint): Value {
    return this.#bits === 64 ? this.#b.i64(bits) : this.#b.i32(Number(BigInt.asIntN(32, bits)));
  }
  /** Whether the magnitude lies from one pattern up to another, exclusive. */
  #between(x: Value, from: bigint, to: bigint): Value {
    const b = this.#b;
    return b.ltU(b.sub(this.#magnitude(x), this.#int(2n * from)), this.#int(2n * (to - from)));
  }
  isZero(x: Value): Value {
    return this.#packed ? this.op('eq', x, this.constant(0n)) : this.#b.eqz(this.#magnitude(x));
  }
  /** Neither NaN nor denormal. */
  clean(x: Value): Value {
    if (!this.#packed) return this.or(this.#between(x, LEAST[this.#bits], INFINITE[this.#bits] + 1n), this.isZero(x));
    return this.or(this.op('ge', this.op('abs', x), this.constant(LEAST[this.#bits])), this.isZero(x));
  }
  /** A normal number, and more than the least one: nothing that was rounded up to it from below. */
  normal(x: Value): Value {
    if (!this.#packed) return this.#between(x, LEAST[this.#bits] + 1n, INFINITE[this.#bits]);
    const magnitude = this.op('abs', x);
    return this.and(
      this.op('gt', magnitude, this.constant(LEAST[this.#bits])),
      this.op('lt', magnitude, this.constant(INFINITE[this.#bits])),
    );
  }
  /** Whether a test holds (in all lanes), as i32. */
  holds(test: Value): Value {
    if (!this.#packed) return test;
    return this.#b.op(this.#bits === 64 ? 'i64x2.all_true' : 'i32x4.all_true', [test]);
  }
}

/** Low lane of a number (f32, f64) as a vector, or a vector itself. */
export function asBits(b: Builder, x: Value): Value {
  if (x.type === 'f64') return b.op('i64.reinterpret_f64', [x]);
  if (x.type === 'f32') return b.op('i32.reinterpret_f32', [x]);
  return x;
}

/** Zero-extended vector of an integer. */
export const fromInteger = (b: Builder, x: Value): Value =>
  b.op(x.type === 'i64' ? 'i64x2.replace_lane' : 'i32x4.replace_lane', [zero(b), x], [0]);
