/**
 * The long way of SSE's floating-point instructions: the helper that translated code calls where its inline path
 * cannot be sure of result and flags. Operands lie in the vCPU's temporaries: at VECTOR_X, VECTOR_Y and, for fused
 * operations, VECTOR_Z; the result is put at VECTOR_RESULT; lanes that an operation does not make are zero there.
 *
 * First come quick paths in doubles, for the numbers that programs compute with: there the rounding error is computed
 * too (Dekker 1971; Knuth, TAOCP 2, 4.2.2), which says whether the precision flag must be set and, where rounding is
 * not to nearest, which neighbour is meant. What they leave goes to the exact arithmetic of `sse-round`.
 */
import {
  EXCEPTION,
  EXCEPTION_CODE,
  MXCSR,
  STATE_BYTES,
  CR4 as STATE_CR4,
  VECTOR_RESULT,
  VECTOR_X,
  VECTOR_Y,
  VECTOR_Z,
} from '../../memory/vcpu-state.ts';
import { CR4 } from '../system/cpu.ts';
import { BEFORE, F16, F32, F64, FloatContext, type Format, IE } from './sse-round.ts';

/** Operations; `sseOperation` packs one with format and lanes into the helper's argument. */
export const SseFloat = {
  ADD: 0,
  SUB: 1,
  MUL: 2,
  DIV: 3,
  SQRT: 4,
  MIN: 5,
  MAX: 6,
  /** imm: predicate 0 to 31. */
  CMP: 7,
  /** Result: a double that is to zero as the first operand is to the second, or NaN. imm 1: quiet NaNs are invalid (COMIS), 0: not (UCOMIS). */
  COMI: 8,
  /** imm: the instruction's. */
  ROUND: 9,
  /** Subtracts in even lanes, adds in odd ones. */
  ADDSUB: 10,
  /** imm: the instruction's. */
  DOT: 11,
  /** To the other of the two formats; the format given is the source's. */
  CONVERT: 12,
  /** To integers of 32 or 64 bits, rounding by MXCSR or truncating. */
  TO_I32: 13,
  TO_I64: 14,
  TRUNCATE_I32: 15,
  TRUNCATE_I64: 16,
  /** From integers; the format given is the destination's. */
  FROM_I32: 17,
  FROM_I64: 18,
  /** Singles from half-precision numbers in the low words of the second operand, and back; the format given is 32. */
  FROM_HALF: 19,
  /** imm: bits 1:0 rounding, bit 2: MXCSR's. */
  TO_HALF: 20,
  /** X * Y + Z, rounded once. imm: bits of `Fused`. */
  FMA: 21,
} as const;
export type SseFloatName = keyof typeof SseFloat;

/** Signs of a fused operation: the product and the addend negated, the addend in odd or even lanes only. */
export const Fused = {
  NEGATE_PRODUCT: 1,
  SUBTRACT: 2,
  SUBTRACT_EVEN: 4,
  SUBTRACT_ODD: 8,
} as const;

/** The helper's operation argument: operation, format (32 or 64 bits), number of lanes. */
export const sseOperation = (name: SseFloatName, bits: 32 | 64, lanes: number): number =>
  SseFloat[name] | (bits === 64 ? 0x100 : 0) | (lanes << 12);

/** One vCPU's state block as typed arrays. */
export interface SseState {
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
}

/** Views of the state block at byte `address` (a multiple of 8) of `buffer`. */
export const sseState = (buffer: ArrayBufferLike, address: number): SseState => ({
  u32: new Uint32Array(buffer, address, STATE_BYTES / 4),
  u64: new BigUint64Array(buffer, address, STATE_BYTES / 8),
  f32: new Float32Array(buffer, address, STATE_BYTES / 4),
  f64: new Float64Array(buffer, address, STATE_BYTES / 8),
});

const X32 = VECTOR_X / 4;
const Y32 = VECTOR_Y / 4;
const Z32 = VECTOR_Z / 4;
const R32 = VECTOR_RESULT / 4;
const X64 = VECTOR_X / 8;
const Y64 = VECTOR_Y / 8;
const Z64 = VECTOR_Z / 8;
const R64 = VECTOR_RESULT / 8;
const PLACES = { X: X32, Y: Y32, Z: Z32, R: R32 } as const;
/** Words of a result. */
const R_WORDS = 8;
/** The masks of all six exceptions in MXCSR. */
const ALL_MASKED = 0x1f80;

const context = new FloatContext();

/** What the helper gives. */
export const FloatStatus = {
  /** The result is there; all operands and results are tame (neither denormal nor NaN), and MXCSR is plain. */
  FINE: 0,
  /** An unmasked exception must be raised: `EXCEPTION` says which; the destination must be left alone. */
  RAISED: 1,
  /** The result is there; some number is not tame. */
  WILD: 2,
  /** The result is there and all are tame; MXCSR is not plain. */
  STRICT: 3,
} as const;

/** All exceptions masked, rounding to nearest, the precision flag set. */
const PLAIN_MASK = 0x7fa0;
const PLAIN = 0x1fa0;

/** Runs an operation; gives a `FloatStatus`. MXCSR has its new flags in any case. */
export function sseFloat(state: SseState, operation: number, imm: number): number {
  const { u32 } = state;
  const kind = operation & 0xff;
  const double = (operation & 0x100) !== 0;
  const lanes = operation >> 12;
  const mxcsr = u32[MXCSR / 4];
  let flags = -1;
  if (kind <= SseFloat.COMI)
    flags =
      kind >= SseFloat.MIN ? quickCompare(state, kind, double, lanes, mxcsr, imm) : quick(state, kind, double, lanes, mxcsr);
  else if (kind === SseFloat.FMA) flags = quickFused(state, double, lanes, mxcsr, imm);
  if (flags < 0) {
    context.load(mxcsr);
    exact(state, kind, double, lanes, imm & 0xff);
    flags = kind === SseFloat.DOT ? context.flags : reported(context.flags);
  }
  const now = mxcsr | flags;
  u32[MXCSR / 4] = now;
  if ((flags & ~(mxcsr >> 7) & 0x3f) !== 0) {
    // SDM 3A, 6.15, interrupt 19.
    u32[EXCEPTION / 4] = (u32[STATE_CR4 / 4] & CR4.OSXMMEXCPT) === 0 ? 6 : 19;
    u32[EXCEPTION_CODE / 4] = 0;
    return FloatStatus.RAISED;
  }
  if (!allTame(u32, kind, double, lanes)) return FloatStatus.WILD;
  return (now & PLAIN_MASK) === PLAIN ? FloatStatus.FINE : FloatStatus.STRICT;
}

/** Whether the numbers among operands and result are neither denormal nor NaN. */
function allTame(u32: Uint32Array, kind: number, double: boolean, lanes: number): boolean {
  const { X, Y, Z, R } = PLACES;
  switch (kind) {
    case SseFloat.CONVERT:
      return tame(u32, Y, double, lanes) && tame(u32, R, !double, lanes);
    case SseFloat.COMI:
    case SseFloat.CMP:
      return tame(u32, X, double, lanes) && tame(u32, Y, double, lanes);
    case SseFloat.FMA:
      return (
        tame(u32, X, double, lanes) && tame(u32, Y, double, lanes) && tame(u32, Z, double, lanes) && tame(u32, R, double, lanes)
      );
    default:
      // Conversions from and to integers are not asked.
      if (kind > SseFloat.DOT) return true;
      return tame(u32, X, double, lanes) && tame(u32, Y, double, lanes) && tame(u32, R, double, lanes);
  }
}

function tame(u32: Uint32Array, at: number, double: boolean, lanes: number): boolean {
  for (let lane = 0; lane < lanes; lane++) {
    const high = double ? u32[at + 2 * lane + 1] : u32[at + lane];
    const low = double ? u32[at + 2 * lane] : 0;
    const magnitude = high & 0x7fffffff;
    const infinite = double ? 0x7ff00000 : 0x7f800000;
    if (magnitude > infinite || (magnitude === infinite && low !== 0)) return false;
    if (magnitude < (double ? 0x00100000 : 0x00800000) && (magnitude !== 0 || low !== 0)) return false;
  }
  return true;
}

/** The flags that a step reports: an unmasked exception found before the computation keeps it from being done. */
const reported = (flags: number): number => ((flags & BEFORE & ~context.masked) !== 0 ? flags & BEFORE : flags);

// --- quick paths ------------------------------------------------------------------------------------------------

const SPLIT = 134217729; // 2^27 + 1
const LEAST_DOUBLE = 2 ** -1022;
const LEAST_SINGLE = 2 ** -126;

/** The error of `product` = fl(x * y), exact where nothing over- or underflows. */
function productError(x: number, y: number, product: number): number {
  const xs = x * SPLIT;
  const xh = xs - (xs - x);
  const xl = x - xh;
  const ys = y * SPLIT;
  const yh = ys - (ys - y);
  const yl = y - yh;
  return xl * yl - (product - xh * yh - xl * yh - xh * yl);
}
/** The error of `sum` = fl(x + y). */
function sumError(x: number, y: number, sum: number): number {
  const back = sum - x;
  return x - (sum - back) + (y - back);
}

/** What `step` found: the result to nearest, and a number of the sign of (exact result - result). */
let nearest = 0;
let error = 0;

/** One operation in doubles on finite operands. False where it must be left to the exact arithmetic. */
function step(kind: number, x: number, y: number): boolean {
  switch (kind) {
    case SseFloat.ADD:
      nearest = x + y;
      error = sumError(x, y, nearest);
      return true;
    case SseFloat.SUB:
      nearest = x - y;
      error = sumError(x, -y, nearest);
      return true;
    case SseFloat.MUL:
      nearest = x * y;
      error = productError(x, y, nearest);
      return true;
    case SseFloat.DIV: {
      nearest = x / y;
      const product = nearest * y;
      const rest = x - product - productError(nearest, y, product);
      error = y < 0 ? -rest : rest;
      return true;
    }
    default: {
      if (x < 0) return false;
      nearest = Math.sqrt(x);
      const product = nearest * nearest;
      error = x - product - productError(nearest, nearest, product);
      return true;
    }
  }
}

/** Whether the number to nearest must give way to its neighbour above (1) or below (-1). */
function direction(rounding: number): number {
  if (error === 0 || rounding === 0) return 0;
  if (rounding === 1) return error < 0 ? -1 : 0;
  if (rounding === 2) return error > 0 ? 1 : 0;
  if (nearest > 0) return error < 0 ? -1 : 0;
  return error > 0 ? 1 : 0;
}

/**
 * Arithmetic on normal numbers, zeros, infinities and NaNs with all exceptions masked. Puts the result, and gives the
 * flags; -1 where the exact arithmetic must do it.
 */
function quick(state: SseState, kind: number, double: boolean, lanes: number, mxcsr: number): number {
  if ((mxcsr & ALL_MASKED) !== ALL_MASKED) return -1;
  const { u32, f32, f64 } = state;
  const rounding = (mxcsr >> 13) & 3;
  // Error terms must neither overflow nor underflow.
  const least = double ? 2 ** -400 : LEAST_SINGLE;
  const most = double ? 2 ** 400 : 2 ** 128;
  u32.fill(0, R32, R32 + R_WORDS);
  let flags = 0;
  for (let lane = 0; lane < lanes; lane++) {
    const y = double ? f64[Y64 + lane] : f32[Y32 + lane];
    const x = kind === SseFloat.SQRT ? y : double ? f64[X64 + lane] : f32[X32 + lane];
    const ax = Math.abs(x);
    const ay = Math.abs(y);
    const finite = (ax === 0 || (ax >= least && ax < most)) && (ay === 0 || (ay >= least && ay < most));
    if (!finite || (kind === SseFloat.DIV && y === 0)) {
      // Denormals and extreme numbers are for the exact arithmetic.
      const smallest = double ? LEAST_DOUBLE : LEAST_SINGLE;
      if ((ax < smallest && ax !== 0) || (ay < smallest && ay !== 0)) return -1;
      const infinite = ax === Number.POSITIVE_INFINITY || ay === Number.POSITIVE_INFINITY;
      const unordered = Number.isNaN(ax) || Number.isNaN(ay);
      if (!infinite && !unordered && !(kind === SseFloat.DIV && y === 0)) return -1;
      flags |= special(state, kind, double, lane, x, y);
      continue;
    }
    if (!step(kind, x, y)) {
      flags |= special(state, kind, double, lane, x, y);
      continue;
    }
    if (!double) {
      // A double has more than twice the bits of a single: rounding twice to nearest gives what rounding once would.
      const single = Math.fround(nearest);
      if (single !== nearest) error = nearest - single;
      nearest = single;
      const magnitude = Math.abs(single);
      if (magnitude === 0 ? error !== 0 : !(magnitude > LEAST_SINGLE && magnitude < 2 ** 127)) return -1;
    }
    // The sign of an exact cancellation depends on the mode.
    if (nearest === 0 && rounding === 1 && kind <= SseFloat.SUB) return -1;
    if (error !== 0) flags |= 0x20;
    const turn = direction(rounding);
    if (double) {
      f64[R64 + lane] = nearest;
      if (turn !== 0) state.u64[R64 + lane] += turn > 0 === nearest > 0 ? 1n : -1n;
    } else {
      f32[R32 + lane] = nearest;
      if (turn !== 0) u32[R32 + lane] += turn > 0 === nearest > 0 ? 1 : -1;
    }
  }
  return flags;
}

/** A result that is an infinity or a NaN, or comes from one; no operand is denormal. Gives the flags. */
function special(state: SseState, kind: number, double: boolean, lane: number, x: number, y: number): number {
  const { u32, f32, f64 } = state;
  // The word that has sign and exponent, and the quiet bit in it.
  const quiet = double ? 0x80000 : 0x400000;
  const at = double ? 2 * lane + 1 : lane;
  if (Number.isNaN(x) || Number.isNaN(y)) {
    const xs = kind === SseFloat.SQRT ? Y32 : X32;
    const from = Number.isNaN(x) ? xs : Y32;
    const signaling = (Number.isNaN(x) && (u32[xs + at] & quiet) === 0) || (Number.isNaN(y) && (u32[Y32 + at] & quiet) === 0);
    u32[R32 + at] = u32[from + at] | quiet;
    if (double) u32[R32 + at - 1] = u32[from + at - 1];
    return signaling ? 1 : 0;
  }
  let result: number;
  switch (kind) {
    case SseFloat.ADD:
      result = x + y;
      break;
    case SseFloat.SUB:
      result = x - y;
      break;
    case SseFloat.MUL:
      result = x * y;
      break;
    case SseFloat.DIV:
      result = x / y;
      break;
    default:
      result = Math.sqrt(x);
  }
  if (Number.isNaN(result)) {
    u32[R32 + at] = double ? 0xfff80000 : 0xffc00000;
    if (double) u32[R32 + at - 1] = 0;
    return 1;
  }
  if (double) f64[R64 + lane] = result;
  else f32[R32 + lane] = result;
  return kind === SseFloat.DIV && y === 0 && Math.abs(x) !== Number.POSITIVE_INFINITY ? 4 : 0;
}

/** Compares, MIN and MAX: all their exceptions are found from the operands. -1 where DAZ has something to do. */
function quickCompare(state: SseState, kind: number, double: boolean, lanes: number, mxcsr: number, imm: number): number {
  const { u32, f32, f64 } = state;
  const smallest = double ? LEAST_DOUBLE : LEAST_SINGLE;
  const quiet = double ? 0x80000 : 0x400000;
  const predicate = imm & 3;
  const signal = kind === SseFloat.CMP ? signals(imm) : kind === SseFloat.COMI ? (imm & 1) !== 0 : true;
  u32.fill(0, R32, R32 + R_WORDS);
  let flags = 0;
  for (let lane = 0; lane < lanes; lane++) {
    const x = double ? f64[X64 + lane] : f32[X32 + lane];
    const y = double ? f64[Y64 + lane] : f32[Y32 + lane];
    const at = double ? 2 * lane + 1 : lane;
    const unordered = Number.isNaN(x) || Number.isNaN(y);
    if (unordered) {
      if (signal || (Number.isNaN(x) && (u32[X32 + at] & quiet) === 0) || (Number.isNaN(y) && (u32[Y32 + at] & quiet) === 0))
        flags |= 1;
    }
    if ((x !== 0 && Math.abs(x) < smallest) || (y !== 0 && Math.abs(y) < smallest)) {
      if ((mxcsr & 0x40) !== 0) return -1;
      if (!unordered) flags |= 2;
    }
    if (kind === SseFloat.COMI) {
      f64[R64] = orderNumber(unordered ? 2 : x === y ? 0 : x < y ? -1 : 1);
      return flags;
    }
    if (kind === SseFloat.CMP) {
      const below = predicate === 0 ? x === y : predicate === 1 ? x < y : predicate === 2 ? x <= y : false;
      const holds = unordered ? holdsUnordered(imm) : below === ((imm & 4) === 0);
      const mask = holds ? 0xffffffff : 0;
      u32[R32 + at] = mask;
      if (double) u32[R32 + at - 1] = mask;
      continue;
    }
    const from = (kind === SseFloat.MIN ? x < y : x > y) ? X32 : Y32;
    u32[R32 + at] = u32[from + at];
    if (double) u32[R32 + at - 1] = u32[from + at - 1];
  }
  return flags;
}

const orderNumber = (order: number): number => (order === 2 ? Number.NaN : order);

/** Predicates (SDM 2, CMPPD, table 3-1) that hold for NaNs, and those for which a quiet NaN is invalid. */
const holdsUnordered = (predicate: number): boolean => ((0x8778 >> (predicate & 15)) & 1) !== 0;
const signals = (predicate: number): boolean => ((predicate & 3) === 1 || (predicate & 3) === 2) !== ((predicate & 16) !== 0);

const bits64 = new BigInt64Array(1);
const double64 = new Float64Array(bits64.buffer);

/** x + y rounded to odd: where it is inexact, the neighbour whose last bit is one (Boldo and Melquiond 2008). */
function addToOdd(x: number, y: number): number {
  const sum = x + y;
  const lost = sumError(x, y, sum);
  if (lost === 0) return sum;
  double64[0] = sum;
  if ((bits64[0] & 1n) === 0n) bits64[0] += lost > 0 === sum > 0 ? 1n : -1n;
  return double64[0];
}

/**
 * Fused operations on numbers of usual size, rounding to nearest with all exceptions masked; the rest is left to the
 * exact arithmetic (-1). A single's product is exact in a double; a double's is a sum of two (Dekker).
 */
function quickFused(state: SseState, double: boolean, lanes: number, mxcsr: number, imm: number): number {
  if ((mxcsr & (ALL_MASKED | 0x6000)) !== ALL_MASKED) return -1;
  const { u32, f32, f64 } = state;
  const least = double ? 2 ** -400 : LEAST_SINGLE;
  const most = double ? 2 ** 400 : 2 ** 100;
  u32.fill(0, R32, R32 + R_WORDS);
  let flags = 0;
  for (let lane = 0; lane < lanes; lane++) {
    const x = double ? f64[X64 + lane] : f32[X32 + lane];
    const y = double ? f64[Y64 + lane] : f32[Y32 + lane];
    const z = double ? f64[Z64 + lane] : f32[Z32 + lane];
    const ax = Math.abs(x);
    const ay = Math.abs(y);
    const az = Math.abs(z);
    // Denormals, NaNs and infinities fail these as well.
    if (!(ax >= least && ax < most && ay >= least && ay < most && (az === 0 || (az >= least && az < most)))) return -1;
    const factor = (imm & Fused.NEGATE_PRODUCT) !== 0 ? -x : x;
    const addend = subtracts(imm, lane) ? -z : z;
    const product = factor * y;
    if (!double) {
      const sum = addToOdd(product, addend);
      const result = Math.fround(sum);
      const magnitude = Math.abs(result);
      if (!(magnitude > LEAST_SINGLE && magnitude < 2 ** 127)) return -1;
      if (result !== sum) flags |= 0x20;
      f32[R32 + lane] = result;
      continue;
    }
    const low = productError(factor, y, product);
    const first = addend + low;
    const firstLow = sumError(addend, low, first);
    const second = product + first;
    const secondLow = sumError(product, first, second);
    const rest = addToOdd(secondLow, firstLow);
    const result = second + rest;
    const magnitude = Math.abs(result);
    if (!(magnitude > 2 ** -300 && magnitude < 2 ** 1000)) return -1;
    if (rest !== 0 && sumError(second, rest, result) !== 0) flags |= 0x20;
    f64[R64 + lane] = result;
  }
  return flags;
}

const subtracts = (imm: number, lane: number): boolean =>
  (imm & (Fused.SUBTRACT | ((lane & 1) === 0 ? Fused.SUBTRACT_EVEN : Fused.SUBTRACT_ODD))) !== 0;

// --- exact ------------------------------------------------------------------------------------------------------

function exact(state: SseState, kind: number, double: boolean, lanes: number, imm: number): void {
  const { u32, u64 } = state;
  const f = double ? F64 : F32;
  const first = (lane: number): bigint => (double ? u64[X64 + lane] : BigInt(u32[X32 + lane]));
  const second = (lane: number): bigint => (double ? u64[Y64 + lane] : BigInt(u32[Y32 + lane]));
  const results: bigint[] = [];
  let resultBits: 32 | 64 = double ? 64 : 32;
  switch (kind) {
    case SseFloat.DOT:
      results.push(...dot(f, first, second, lanes, imm));
      break;
    case SseFloat.COMI: {
      const order = context.compare(f, first(0), second(0), imm === 1);
      state.f64[R64] = orderNumber(order);
      return;
    }
    case SseFloat.CONVERT:
      resultBits = double ? 32 : 64;
      for (let lane = 0; lane < lanes; lane++) results.push(context.convert(f, double ? F32 : F64, second(lane)));
      break;
    case SseFloat.TO_I32:
    case SseFloat.TRUNCATE_I32:
      resultBits = 32;
      for (let lane = 0; lane < lanes; lane++)
        results.push(context.toInteger(f, second(lane), 32, kind === SseFloat.TRUNCATE_I32));
      break;
    case SseFloat.TO_I64:
    case SseFloat.TRUNCATE_I64:
      resultBits = 64;
      results.push(context.toInteger(f, second(0), 64, kind === SseFloat.TRUNCATE_I64));
      break;
    case SseFloat.FROM_I32:
      for (let lane = 0; lane < lanes; lane++) results.push(context.fromInteger(f, BigInt(u32[Y32 + lane] | 0)));
      break;
    case SseFloat.FROM_I64:
      results.push(context.fromInteger(f, BigInt.asIntN(64, u64[Y64])));
      break;
    case SseFloat.FROM_HALF: {
      // Denormals are numbers here whatever DAZ says, and no exception.
      context.daz = false;
      for (let lane = 0; lane < lanes; lane++)
        results.push(context.convert(F16, F32, BigInt((u32[Y32 + (lane >> 1)] >>> (16 * (lane & 1))) & 0xffff)));
      context.flags &= IE;
      break;
    }
    case SseFloat.TO_HALF: {
      if ((imm & 4) === 0) context.rounding = (imm & 3) as 0 | 1 | 2 | 3;
      context.ftz = false;
      let joined = 0n;
      for (let lane = 0; lane < lanes; lane++) joined |= context.convert(F32, F16, second(lane)) << BigInt(16 * lane);
      resultBits = 64;
      results.push(joined, joined >> 64n);
      break;
    }
    case SseFloat.FMA:
      for (let lane = 0; lane < lanes; lane++) {
        const z = double ? u64[Z64 + lane] : BigInt(u32[Z32 + lane]);
        results.push(context.fused(f, first(lane), second(lane), z, (imm & Fused.NEGATE_PRODUCT) !== 0, subtracts(imm, lane)));
      }
      break;
    default:
      for (let lane = 0; lane < lanes; lane++) results.push(one(f, kind, lane, first(lane), second(lane), imm));
  }
  u32.fill(0, R32, R32 + R_WORDS);
  for (const [lane, bits] of results.entries()) {
    if (resultBits === 64) u64[R64 + lane] = BigInt.asUintN(64, bits);
    else u32[R32 + lane] = Number(BigInt.asUintN(32, bits));
  }
}

function one(f: Format, kind: number, lane: number, x: bigint, y: bigint, imm: number): bigint {
  switch (kind) {
    case SseFloat.ADD:
      return context.add(f, x, y);
    case SseFloat.SUB:
      return context.sub(f, x, y);
    case SseFloat.MUL:
      return context.mul(f, x, y);
    case SseFloat.DIV:
      return context.div(f, x, y);
    case SseFloat.SQRT:
      return context.sqrt(f, y);
    case SseFloat.ADDSUB:
      return (lane & 1) === 0 ? context.sub(f, x, y) : context.add(f, x, y);
    case SseFloat.ROUND:
      return context.toIntegral(f, y, imm);
    case SseFloat.CMP: {
      const predicate = imm & 3;
      // LT and LE signal for quiet NaNs, EQ and UNORD do not; nor do their opposites.
      const order = context.compare(f, x, y, signals(imm));
      const below = predicate === 0 ? order === 0 : predicate === 1 ? order < 0 : predicate === 2 ? order <= 0 : false;
      const holds = order === 2 ? holdsUnordered(imm) : below === ((imm & 4) === 0);
      return holds ? f.signBit * 2n - 1n : 0n;
    }
    default: {
      // MIN and MAX give the second operand for NaNs and for two zeros (SDM 2, MINPS); DAZ turns it into a zero.
      const order = context.compare(f, x, y, true);
      const takeFirst = kind === SseFloat.MIN ? order === -1 : order === 1;
      return context.operand(f, takeFirst ? x : y);
    }
  }
}

/**
 * DPPS, DPPD: products of the lanes that imm[7:4] chooses, added in pairs, to the lanes that imm[3:0] chooses. Each
 * step reports its exceptions by itself; after an unmasked one there is no next.
 */
function dot(f: Format, first: (lane: number) => bigint, second: (lane: number) => bigint, count: number, imm: number): bigint[] {
  let flags = 0;
  const step = (compute: () => bigint[]): bigint[] => {
    if ((flags & ~context.masked) !== 0) return [];
    context.flags = 0;
    const results = compute();
    flags |= reported(context.flags);
    return results;
  };
  // Each 128 bits by themselves, step by step together.
  const width = f === F64 ? 2 : 4;
  let terms = step(() =>
    Array.from({ length: count }, (_, lane) =>
      (imm & (16 << (lane % width))) !== 0 ? context.mul(f, first(lane), second(lane)) : 0n,
    ),
  );
  while (terms.length > count / width) {
    const from = terms;
    terms = step(() => Array.from({ length: from.length / 2 }, (_, n) => context.add(f, from[2 * n], from[2 * n + 1])));
  }
  context.flags = flags;
  return Array.from({ length: count }, (_, lane) =>
    (imm & (1 << (lane % width))) !== 0 ? (terms[Math.floor(lane / width)] ?? 0n) : 0n,
  );
}
