/**
 * The long way of SSE's floating-point instructions: the helper that translated code calls where its inline path
 * cannot be sure of result and flags. Operands lie in the vCPU's temporaries: the first at TEMP, the second at
 * TEMP + 16, and the result is put at TEMP + 32; lanes that an operation does not make are zero there.
 *
 * First come quick paths in doubles, for the numbers that programs compute with: there the rounding error is computed
 * too (Dekker 1971; Knuth, TAOCP 2, 4.2.2), which says whether the precision flag must be set and, where rounding is
 * not to nearest, which neighbour is meant. What they leave goes to the exact arithmetic of `sse-round`.
 */
import { MXCSR, STATE_BYTES, TEMP } from '../../memory/vcpu-state.ts';
import { BEFORE, F32, F64, FloatContext, type Format } from './sse-round.ts';

/** Operations; `sseOperation` packs one with format and lanes into the helper's argument. */
export const SseFloat = {
  ADD: 0,
  SUB: 1,
  MUL: 2,
  DIV: 3,
  SQRT: 4,
  MIN: 5,
  MAX: 6,
  /** imm: predicate 0 to 7. */
  CMP: 7,
  /** Result: ZF, PF, CF at their places in EFLAGS. imm 1: quiet NaNs are invalid (COMIS), 0: not (UCOMIS). */
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
} as const;
export type SseFloatName = keyof typeof SseFloat;

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

const X32 = TEMP / 4;
const Y32 = X32 + 4;
const R32 = X32 + 8;
const X64 = TEMP / 8;
const Y64 = X64 + 2;
const R64 = X64 + 4;
/** The masks of all six exceptions in MXCSR. */
const ALL_MASKED = 0x1f80;

const context = new FloatContext();

/**
 * Runs an operation. Gives 0, or 1 where an unmasked exception must be raised (#XM, or #UD where CR4.OSXMMEXCPT
 * is clear); then the destination must be left alone. MXCSR has its new flags either way.
 */
export function sseFloat(state: SseState, operation: number, imm: number): number {
  const kind = operation & 0xff;
  const double = (operation & 0x100) !== 0;
  const lanes = operation >> 12;
  const mxcsr = state.u32[MXCSR / 4];
  if (kind <= SseFloat.COMI) {
    const flags =
      kind >= SseFloat.MIN ? quickCompare(state, kind, double, lanes, mxcsr, imm) : quick(state, kind, double, lanes, mxcsr);
    if (flags >= 0) {
      state.u32[MXCSR / 4] = mxcsr | flags;
      return (flags & ~(mxcsr >> 7)) !== 0 ? 1 : 0;
    }
  }
  context.load(mxcsr);
  exact(state, kind, double, lanes, imm & 0xff);
  const flags = kind === SseFloat.DOT ? context.flags : reported(context.flags);
  const unmasked = ~context.masked;
  state.u32[MXCSR / 4] = mxcsr | flags;
  return (flags & unmasked) !== 0 ? 1 : 0;
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
  u32.fill(0, R32, R32 + 4);
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
  const signal = kind === SseFloat.CMP ? predicate === 1 || predicate === 2 : kind === SseFloat.COMI ? (imm & 1) !== 0 : true;
  u32.fill(0, R32, R32 + 4);
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
      u32[R32] = unordered ? 0x45 : x === y ? 0x40 : x < y ? 1 : 0;
      return flags;
    }
    if (kind === SseFloat.CMP) {
      const holds = predicate === 0 ? x === y : predicate === 1 ? x < y : predicate === 2 ? x <= y : unordered;
      const mask = holds === ((imm & 4) === 0) ? 0xffffffff : 0;
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
      results.push(...dot(f, first, second, double ? 2 : 4, imm));
      break;
    case SseFloat.COMI: {
      const order = context.compare(f, first(0), second(0), imm === 1);
      u32[R32] = order === 2 ? 0x45 : order === 0 ? 0x40 : order < 0 ? 1 : 0;
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
    default:
      for (let lane = 0; lane < lanes; lane++) results.push(one(f, kind, lane, first(lane), second(lane), imm));
  }
  u64[R64] = 0n;
  u64[R64 + 1] = 0n;
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
      const order = context.compare(f, x, y, predicate === 1 || predicate === 2);
      const holds =
        predicate === 0
          ? order === 0
          : predicate === 1
            ? order === -1
            : predicate === 2
              ? order === -1 || order === 0
              : order === 2;
      return holds === ((imm & 4) === 0) ? f.signBit * 2n - 1n : 0n;
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
  let terms = step(() =>
    Array.from({ length: count }, (_, lane) => ((imm & (16 << lane)) !== 0 ? context.mul(f, first(lane), second(lane)) : 0n)),
  );
  while (terms.length > 1) {
    const from = terms;
    terms = step(() => Array.from({ length: from.length / 2 }, (_, n) => context.add(f, from[2 * n], from[2 * n + 1])));
  }
  context.flags = flags;
  const sum = terms[0] ?? 0n;
  return Array.from({ length: count }, (_, lane) => ((imm & (1 << lane)) !== 0 ? sum : 0n));
}
