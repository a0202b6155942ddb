/**
 * How floating-point instructions are emitted: the operation is done with WebAssembly's own numbers; where the
 * operands, the result and MXCSR show that this is the whole truth it is written, else a helper does it again.
 *
 * It is the whole truth when no exception flag can change and the rounding is WebAssembly's: all exceptions masked,
 * rounding to nearest, the precision flag already set, no operand a NaN or denormal, and each result a normal number
 * or an exact zero. DAZ and FTZ are of no account then.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { marksPlain, marksTame, PLAIN, PLAIN_MASK, Tame } from '../../ir/tame.ts';
import { MXCSR, VECTOR_RESULT, VECTOR_X, VECTOR_Y, VECTOR_Z } from '../../memory/vcpu-state.ts';
import { FloatStatus, type SseFloatName, sseOperation } from '../fpu/sse-float.ts';
import type { Instruction } from './context.ts';
import { halvesOf, known, lanes, zero } from './sse-context.ts';

export type Precision = 32 | 64;

/** Whether MXCSR is plain. */
export function plainMode(b: Builder): Value {
  const mxcsr = b.state(MXCSR, 32);
  const plain = b.eq(b.and(mxcsr, b.i32(PLAIN_MASK)), b.i32(PLAIN));
  // Where it is known otherwise the word is not read.
  marksPlain(mxcsr);
  return marksPlain(plain);
}
/** Denormal operands count as they are. */
export const noDaz = (b: Builder): Value => b.eqz(b.and(b.state(MXCSR, 32), b.i32(0x40)));

/** A vector, or its two halves. */
export type Halves = Value | readonly Value[];
export const listOf = (x: Halves): readonly Value[] => ('type' in x ? [x] : x);

/** Calls the helper on operands of 128 or 256 bits; raises what it says. The result lies at `RESULT`. Gives the helper's status. */
export function callFloat(
  i: Instruction,
  name: SseFloatName,
  bits: Precision,
  count: number,
  x: Halves,
  y: Halves,
  imm?: Value,
  z?: Halves,
): Value {
  const { b } = i;
  for (const [half, value] of listOf(x).entries()) b.setState(VECTOR_X + 16 * half, 128, value);
  for (const [half, value] of listOf(y).entries()) b.setState(VECTOR_Y + 16 * half, 128, value);
  if (z !== undefined) for (const [half, value] of listOf(z).entries()) b.setState(VECTOR_Z + 16 * half, 128, value);
  const status = b.call('sse_float', 'i32', b.i32(sseOperation(name, bits, count)), imm ?? b.i32(0));
  b.if(b.eq(status, b.i32(FloatStatus.RAISED)), () => b.raise(-1));
  return status;
}

/** Code that is made for this very instruction, not for its form. */
export const isFixed = (i: Instruction): boolean => known(i.b.field('length')) !== undefined;

/**
 * Ends the instruction, whose result is written, unless all numbers that the helper saw and made are tame: in a region
 * what follows takes that for granted.
 */
export function leaveUnlessTame(i: Instruction, status: Value): void {
  const { b } = i;
  if (!isFixed(i)) return;
  b.if(b.eq(status, b.i32(FloatStatus.WILD)), () => {
    i.complete?.();
    b.next();
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
  #int(bits: bigint): Value {
    return this.#bits === 64 ? this.#b.i64(bits) : this.#b.i32(Number(BigInt.asIntN(32, bits)));
  }
  /** A scalar's bits without the sign, times two: tests of single numbers are cheaper on integers. */
  #magnitude(x: Value): Value {
    const b = this.#b;
    return b.shl(asBits(b, x), this.#int(1n));
  }
  /** Lane by lane where packed. */
  isZero(x: Value): Value {
    return this.op('eq', x, this.constant(0n));
  }
  // The tests below are i32 values of 0 or 1, about all lanes where packed. What one computes no other uses, so that it
  // is computed where the test is made, and only if it is.

  /** Operands that are no denormals, and results that are normal numbers or exact zeros, as a list of tests. */
  arithmetic(operands: readonly Value[], results: readonly Value[], exact: (zero: Value, half: number) => Value): Value[] {
    if (!this.#packed)
      return [
        ...operands.map((x) => this.notDenormal(x)),
        ...results.map((x, half) => this.result(x, (zero) => exact(zero, half))),
      ];
    const b = this.#b;
    const denormals = (): Value[] => operands.map((x) => this.#denormals(x));
    const usual = this.#none([...denormals(), ...results.map((x) => this.#unusual(x))]);
    const zeros = results.map((x, half) => b.op('v128.andnot', [this.#unusual(x), exact(this.isZero(x), half)]));
    const test = b.or(usual, this.#none([...denormals(), ...zeros]));
    return [
      marksTame(
        test,
        ...operands.map((of) => ({ of, facts: this.#facts(Tame.NORMAL_PD, Tame.NORMAL_PS) })),
        ...results.map((of) => ({ of, facts: this.#tameFacts })),
      ),
    ];
  }
  /** Neither denormals nor NaNs. */
  clean(operands: readonly Value[]): Value {
    const b = this.#b;
    if (!this.#packed) return operands.flatMap((x) => [this.notDenormal(x), this.ordered(x)]).reduce((x, y) => b.and(x, y));
    const unordered = (x: Value): Value =>
      marksTame(this.op('ne', x, x), { of: x, facts: this.#facts(Tame.ORDERED_PD, Tame.ORDERED_PS) });
    const test = this.#none(operands.flatMap((x) => [this.#denormals(x), unordered(x)]));
    return marksTame(test, ...operands.map((of) => ({ of, facts: this.#tameFacts })));
  }

  /** Not denormal: zero less one is above them all. */
  notDenormal(x: Value): Value {
    const b = this.#b;
    if (this.#packed) return this.#none([this.#denormals(x)]);
    const less = b.sub(this.#magnitude(x), this.#int(1n));
    const test = this.#bits === 64 ? b.ne(b.shrU(less, b.i64(53)), b.i64(0)) : b.geU(less, this.#int(2n * LEAST[32] - 1n));
    return marksTame(test, { of: x, facts: this.#facts(Tame.NORMAL_D, Tame.NORMAL_S) });
  }
  /** Not a NaN. */
  ordered(x: Value): Value {
    const same = this.op('eq', x, x);
    if (this.#packed) return this.holds(same);
    return marksTame(same, { of: x, facts: this.#facts(Tame.ORDERED_D, Tame.ORDERED_S) });
  }
  /**
   * A normal number that was not rounded up from below the least one: for doubles, of the least exponent but one or more.
   * Or zero, where `exact` (lane by lane where packed) says that this is exact.
   */
  result(x: Value, exact: ((zero: Value) => Value) | undefined): Value {
    const b = this.#b;
    if (this.#packed) {
      const usual = this.#none([this.#unusual(x)]);
      return exact === undefined
        ? usual
        : b.or(usual, this.#none([b.op('v128.andnot', [this.#unusual(x), exact(this.isZero(x))])]));
    }
    const bits = asBits(b, x);
    let usual: Value;
    if (this.#bits === 64) {
      const exponent = b.and(b.shrU(bits, b.i64(52)), b.i64(0x7ff));
      usual = b.ltU(b.sub(exponent, b.i64(2)), b.i64(0x7fd));
    } else {
      const from = 2n * LEAST[32] + 2n;
      usual = b.ltU(b.sub(b.shl(bits, b.i32(1)), this.#int(from)), this.#int(2n * INFINITE[32] - from));
    }
    return marksTame(exact === undefined ? usual : b.or(usual, exact(this.isZero(x))), { of: x, facts: this.#tameFacts });
  }

  #facts(double: number, single: number): number {
    return this.#bits === 64 ? double : single;
  }
  get #tameFacts(): number {
    if (this.#packed) return this.#facts(Tame.NORMAL_PD | Tame.ORDERED_PD, Tame.NORMAL_PS | Tame.ORDERED_PS);
    return this.#facts(Tame.NORMAL_D | Tame.ORDERED_D, Tame.NORMAL_S | Tame.ORDERED_S);
  }
  /** No lane of any of the masks is set. */
  #none(masks: readonly Value[]): Value {
    const b = this.#b;
    return b.eqz(this.#signs(masks.reduce((x, y) => b.op('v128.or', [x, y]))));
  }
  /** Lanes from which twice the magnitude plus `bias` is below (or above) `limit`, as signed integers. */
  #compare(verb: 'gt_s' | 'lt_s', x: Value, bias: bigint, limit: bigint): Value {
    const b = this.#b;
    const shape = this.#bits === 64 ? 'i64x2' : 'i32x4';
    const twice = b.op(`${shape}.add`, [x, x]);
    return b.op(`${shape}.${verb}`, [b.op(`${shape}.add`, [twice, this.constant(bias)]), this.constant(limit)]);
  }
  /** Lanes that are denormal. With the least integer less one added, zeros are the greatest and denormals the least. */
  #denormals(x: Value): Value {
    const least = -(1n << BigInt(this.#bits - 1));
    const mask = this.#compare('lt_s', x, least - 1n, least + 2n * LEAST[this.#bits] - 1n);
    return marksTame(mask, { of: x, facts: this.#facts(Tame.NORMAL_PD, Tame.NORMAL_PS) });
  }
  /** Lanes that are no normal number above the least one. */
  #unusual(x: Value): Value {
    const from = 2n * LEAST[this.#bits] + 2n;
    const least = -(1n << BigInt(this.#bits - 1));
    return this.#compare('gt_s', x, least - from, least - from + 2n * INFINITE[this.#bits] - 1n);
  }
  #signs(mask: Value): Value {
    return this.#b.op(this.#bits === 64 ? 'i64x2.bitmask' : 'i32x4.bitmask', [mask]);
  }
  /** Whether a comparison holds (in all lanes), as i32. */
  holds(test: Value): Value {
    if (!this.#packed) return test;
    return this.#b.eq(this.#signs(test), this.#b.i32(this.#bits === 64 ? 3 : 15));
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
