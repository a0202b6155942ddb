/** Floating-point arithmetic, compares, minima, square roots, rounding (SDM 1, 10.4.1, 11.4.1, 12; SDM 2 for each). */
import type { Value } from '../../ir/builder.ts';
import { MXCSR } from '../../memory/vcpu-state.ts';
import type { SseFloatName } from '../fpu/sse-float.ts';
import type { Emitter, Instruction } from './context.ts';
import { immediate, lanes, readHalves, readVector, writeHalves, writeScalar } from './sse-context.ts';
import {
  callFloat,
  lane0,
  leaveUnlessTame,
  Numbers,
  noDaz,
  type Precision,
  plainMode,
  RESULT,
  resultHalves,
} from './sse-float-context.ts';
import { pick } from './sse-integer.ts';

interface Shape {
  readonly bits: Precision;
  readonly packed: boolean;
}
const PS: Shape = { bits: 32, packed: true };
const PD: Shape = { bits: 64, packed: true };
const SS: Shape = { bits: 32, packed: false };
const SD: Shape = { bits: 64, packed: false };
const SHAPES = { PS, PD, SS, SD } as const;

const countOf = (i: Instruction, shape: Shape): number => (shape.packed ? (i.form.wide ? 256 : 128) / shape.bits : 1);

/** All of the tests. */
const all = (i: Instruction, tests: readonly Value[]): Value => tests.reduce((x, y) => i.b.and(x, y));

/** Writes the destination: all of it, or the low lane. */
function put(i: Instruction, shape: Shape, values: readonly Value[]): void {
  if (shape.packed) writeHalves(i, values);
  else writeScalar(i, shape.bits, values[0]);
}

/** Writes `values` where `sure` holds, else what the helper makes of the operands. */
function settle(
  i: Instruction,
  shape: Shape,
  sure: Value,
  values: readonly Value[],
  name: SseFloatName,
  x: readonly Value[],
  y: readonly Value[],
  imm?: Value,
): void {
  const { b } = i;
  b.if(
    sure,
    () => put(i, shape, values),
    () => {
      const status = callFloat(i, name, shape.bits, countOf(i, shape), x, y, imm);
      if (shape.packed) writeHalves(i, resultHalves(i));
      else writeScalar(i, shape.bits, b.state(RESULT, shape.bits));
      leaveUnlessTame(i, status);
    },
  );
}

/** The lanes that count: whole halves, or the low lane. */
const numbersOf = (i: Instruction, shape: Shape, x: readonly Value[]): readonly Value[] =>
  shape.packed ? x : [lane0(i.b, shape.bits, x[0])];
/** Operand `n` of a packed instruction, or the register that a scalar is the low lane of. */
const operandOf = (i: Instruction, shape: Shape, n: number): readonly Value[] =>
  shape.packed ? readHalves(i, n) : [readVector(i, n)];

const arithmeticOn = (
  i: Instruction,
  shape: Shape,
  name: 'ADD' | 'SUB' | 'MUL' | 'DIV',
  x: readonly Value[],
  y: readonly Value[],
): void => {
  const { b } = i;
  const n = new Numbers(b, shape.bits, shape.packed);
  const vs = numbersOf(i, shape, y);
  const us = numbersOf(i, shape, x);
  const results = us.map((u, half) => n.op(name.toLowerCase(), u, vs[half]));
  // A sum of zero is exact; a product or quotient only where an operand is zero. Infinities and NaNs show in the result,
  // but for a quotient by infinity, which is zero.
  const exact = (zero: Value, half: number): Value => {
    if (name === 'ADD' || name === 'SUB') return zero;
    const first = n.isZero(us[half]);
    return n.and(zero, name === 'DIV' ? first : n.or(first, n.isZero(vs[half])));
  };
  const tests = [plainMode(b), ...n.arithmetic([...us, ...vs], results, exact)];
  settle(i, shape, all(i, tests), results, name, x, y);
};

const arithmetic =
  (name: 'ADD' | 'SUB' | 'MUL' | 'DIV', shape: Shape): Emitter =>
  (i) => {
    const y = operandOf(i, shape, 1);
    arithmeticOn(i, shape, name, operandOf(i, shape, 0), y);
  };

const squareRoot =
  (shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, shape.packed);
    const y = operandOf(i, shape, 1);
    const vs = numbersOf(i, shape, y);
    const results = vs.map((v) => n.op('sqrt', v));
    // The root of a negative number is a NaN.
    const tests = n.arithmetic(vs, results, (zero) => zero);
    settle(i, shape, all(i, [plainMode(b), ...tests]), results, 'SQRT', y, y);
  };

/** The second operand unless the first is strictly less (or greater). */
const extreme =
  (name: 'MIN' | 'MAX', shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, shape.packed);
    const y = operandOf(i, shape, 1);
    const x = operandOf(i, shape, 0);
    const vs = numbersOf(i, shape, y);
    const us = numbersOf(i, shape, x);
    const results = us.map((u, half) => {
      const v = vs[half];
      const first = n.op(name === 'MIN' ? 'lt' : 'gt', u, v);
      return shape.packed ? b.op('v128.bitselect', [u, v, first]) : b.select(first, u, v);
    });
    settle(i, shape, n.clean([...us, ...vs]), results, name, x, y);
  };

/**
 * Masks by a predicate of the immediate: EQ LT LE UNORD NEQ NLT NLE ORD. The VEX forms have 32 predicates; on ordered
 * operands only the low three bits matter (SDM 2, CMPPD, table 3-1).
 */
const compare =
  (shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, shape.packed);
    const y = operandOf(i, shape, 1);
    const x = operandOf(i, shape, 0);
    const predicate = b.and(immediate(i), b.i32(i.form.row.vex ? 31 : 7));
    const vs = numbersOf(i, shape, y);
    // Clean operands are ordered: predicate 3 is never true.
    const bit = (k: number): Value => b.and(predicate, b.i32(1 << k));
    const flip = b.neg(b.and(b.op('i32.shr_u', [predicate, b.i32(2)]), b.i32(1)));
    const us = numbersOf(i, shape, x);
    const results = us.map((u, half) => {
      const v = vs[half];
      if (shape.packed) {
        const none = b.v128(0n, 0n);
        const less = b.op('v128.select', [n.op('lt', u, v), n.op('eq', u, v), bit(0)]);
        const upper = b.op('v128.select', [none, n.op('le', u, v), bit(0)]);
        const chosen = b.op('v128.select', [upper, less, bit(1)]);
        return b.op('v128.xor', [chosen, b.op('i32x4.splat', [flip])]);
      }
      const less = b.select(bit(0), n.op('lt', u, v), n.op('eq', u, v));
      const upper = b.select(bit(0), b.i32(0), n.op('le', u, v));
      const mask = b.xor(b.neg(b.select(bit(1), upper, less)), flip);
      return shape.bits === 64 ? b.sext(mask) : mask;
    });
    settle(i, shape, n.clean([...us, ...vs]), results, 'CMP', x, y, predicate);
  };

/** COMIS and UCOMIS: ZF, PF, CF; the others are cleared. */
const compareFlags =
  (shape: Shape, signal: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, false);
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const [u, v] = [lane0(b, shape.bits, x), lane0(b, shape.bits, y)];
    const wide = (value: Value): Value => (shape.bits === 64 ? value : b.op('f64.promote_f32', [value]));
    const [first, second] = [b.variable('f64'), b.variable('f64')];
    b.if(
      n.clean([u, v]),
      () => {
        b.set(first, wide(u));
        b.set(second, wide(v));
      },
      () => {
        // The helper gives a number that is as the first is to the second when it is compared with zero.
        callFloat(i, 'COMI', shape.bits, 1, x, y, b.i32(signal ? 1 : 0));
        b.set(first, b.state(RESULT, 64, false, 'f64'));
        b.set(second, b.op('f64.reinterpret_i64', [b.i64(0)]));
      },
    );
    b.flags('compare', 64, b.get(first), b.get(second));
  };

/** Neighbours added or subtracted, of the first source and then of the second. */
const horizontal =
  (name: 'ADD' | 'SUB', shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const y = readHalves(i, 1);
    const x = readHalves(i, 0);
    const bytes = shape.bits / 8;
    const order = shape.bits === 64 ? [0, 2] : [0, 2, 4, 6];
    const odd = order.map((lane) => lane + 1);
    arithmeticOn(
      i,
      shape,
      name,
      x.map((value, half) => b.op('i8x16.shuffle', [value, y[half]], pick(bytes, order))),
      x.map((value, half) => b.op('i8x16.shuffle', [value, y[half]], pick(bytes, odd))),
    );
  };

const addSubtract =
  (shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, true);
    const y = readHalves(i, 1);
    const x = readHalves(i, 0);
    const signs = shape.bits === 64 ? lanes(b, 64, [1n << 63n, 0n]) : lanes(b, 32, [1n << 31n, 0n, 1n << 31n, 0n]);
    const results = x.map((u, half) => n.op('add', u, b.op('v128.xor', [y[half], signs])));
    const tests = n.arithmetic([...x, ...y], results, (zero) => zero);
    settle(i, shape, all(i, [plainMode(b), ...tests]), results, 'ADDSUB', x, y);
  };

/** To integral values: the mode is the immediate's or MXCSR's; bit 3 keeps the precision flag as it is. */
const round =
  (shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const n = new Numbers(b, shape.bits, shape.packed);
    const y = operandOf(i, shape, 1);
    const imm = immediate(i);
    const vs = numbersOf(i, shape, y);
    const mxcsr = b.state(MXCSR, 32);
    const mode = b.and(b.select(b.and(imm, b.i32(4)), b.shrU(mxcsr, b.i32(13)), imm), b.i32(3));
    const low = b.and(mode, b.i32(1));
    const quiet = b.ne(b.and(imm, b.i32(8)), b.i32(0));
    const results = vs.map((v) => {
      const upward = b.select(low, n.op('trunc', v), n.op('ceil', v));
      const downward = b.select(low, n.op('floor', v), n.op('nearest', v));
      return b.select(b.and(mode, b.i32(2)), upward, downward);
    });
    const ordered = all(
      i,
      vs.map((v) => n.ordered(v)),
    );
    const integral = all(
      i,
      vs.map((v, half) => n.holds(n.op('eq', v, results[half]))),
    );
    const rounds = b.and(b.and(ordered, noDaz(b)), b.or(plainMode(b), quiet));
    settle(i, shape, b.or(integral, rounds), results, 'ROUND', y, y, imm);
  };

const dot =
  (shape: Shape): Emitter =>
  (i) => {
    const y = readHalves(i, 1);
    const x = readHalves(i, 0);
    callFloat(i, 'DOT', shape.bits, countOf(i, shape), x, y, immediate(i));
    writeHalves(i, resultHalves(i));
  };

/**
 * RCP and RSQRT. The SDM bounds the relative error by 1.5 * 2^-12 and leaves the rest to the processor; Intel's and
 * AMD's tables differ. Here it is the correctly rounded quotient, to nearest whatever MXCSR says: denormal operands
 * count as zeros, denormal results become zeros, and no flag is touched.
 */
const approximate =
  (root: boolean, shape: Shape): Emitter =>
  (i) => {
    const { b } = i;
    const splat = (pattern: bigint): Value => lanes(b, 32, [pattern, pattern, pattern, pattern]);
    const and = (p: Value, q: Value): Value => b.op('v128.and', [p, q]);
    const signs = splat(0x80000000n);
    const flush = (x: Value): Value => {
      const small = b.op('f32x4.lt', [b.op('f32x4.abs', [x]), splat(0x00800000n)]);
      return b.op('v128.bitselect', [and(x, signs), x, small]);
    };
    const results = operandOf(i, shape, 1).map((y) => {
      const operand = flush(y);
      const divisor = root ? b.op('f32x4.sqrt', [operand]) : operand;
      let result = flush(b.op('f32x4.div', [splat(0x3f800000n), divisor]));
      if (root) {
        const negative = b.op('f32x4.lt', [operand, splat(0n)]);
        result = b.op('v128.bitselect', [splat(0xffc00000n), result, negative]);
      }
      const unordered = b.op('f32x4.ne', [y, y]);
      return b.op('v128.bitselect', [b.op('v128.or', [y, splat(0x00400000n)]), result, unordered]);
    });
    if (shape.packed) writeHalves(i, results);
    else writeScalar(i, 32, b.op('i32x4.extract_lane', [results[0]], [0]));
  };

const each = (mnemonic: string, make: (shape: Shape) => Emitter): Record<string, Emitter> =>
  Object.fromEntries(Object.entries(SHAPES).map(([suffix, shape]) => [mnemonic + suffix, make(shape)]));

export const sseFloats: Record<string, Emitter> = {
  ...each('ADD', (shape) => arithmetic('ADD', shape)),
  ...each('SUB', (shape) => arithmetic('SUB', shape)),
  ...each('MUL', (shape) => arithmetic('MUL', shape)),
  ...each('DIV', (shape) => arithmetic('DIV', shape)),
  ...each('SQRT', squareRoot),
  ...each('MIN', (shape) => extreme('MIN', shape)),
  ...each('MAX', (shape) => extreme('MAX', shape)),
  ...each('CMP', compare),
  ...each('ROUND', round),
  UCOMISS: compareFlags(SS, false),
  UCOMISD: compareFlags(SD, false),
  COMISS: compareFlags(SS, true),
  COMISD: compareFlags(SD, true),
  HADDPS: horizontal('ADD', PS),
  HADDPD: horizontal('ADD', PD),
  HSUBPS: horizontal('SUB', PS),
  HSUBPD: horizontal('SUB', PD),
  ADDSUBPS: addSubtract(PS),
  ADDSUBPD: addSubtract(PD),
  DPPS: dot(PS),
  DPPD: dot(PD),
  RCPPS: approximate(false, PS),
  RCPSS: approximate(false, SS),
  RSQRTPS: approximate(true, PS),
  RSQRTSS: approximate(true, SS),
};
