/**
 * The long way of SSE's floating-point instructions: the helper that translated code calls where its inline path
 * cannot be sure of result and flags. Operands lie in the vCPU's temporaries: the first at TEMP, the second at
 * TEMP + 16, and the result is put at TEMP + 32; lanes that an operation does not make are zero there.
 *
 * First come quick paths in doubles, for finite normal numbers with all exceptions masked: there the rounding error
 * is computed exactly (Dekker 1971, Knuth TAOCP 2, 4.2.2), which says whether the precision flag must be set. What
 * they leave goes to the exact arithmetic of `sse-round`.
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
/** MXCSR with the flags left out: all masked, to nearest, neither DAZ nor FTZ. */
const PLAIN = 0x1f80;

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
  if (kind <= SseFloat.SQRT && (mxcsr & 0xffc0) === PLAIN) {
    const inexact = double ? quickDoubles(state, kind, lanes) : quickSingles(state, kind, lanes);
    if (inexact >= 0) {
      if (inexact === 1) state.u32[MXCSR / 4] = mxcsr | 0x20;
      return 0;
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

/** -1 where the exact arithmetic must do it, 1 where a result was rounded, else 0. Results are put only when all are made. */
function quickDoubles(state: SseState, kind: number, lanes: number): number {
  const { f64 } = state;
  let inexact = 0;
  const results = [0, 0];
  for (let lane = 0; lane < lanes; lane++) {
    const x = f64[(kind === SseFloat.SQRT ? Y64 : X64) + lane];
    const y = f64[Y64 + lane];
    // Error terms must neither overflow nor underflow.
    if (!(x === 0 || (Math.abs(x) > 2 ** -400 && Math.abs(x) < 2 ** 400))) return -1;
    if (!(y === 0 || (Math.abs(y) > 2 ** -400 && Math.abs(y) < 2 ** 400))) return -1;
    let result = 0;
    let error = 0;
    switch (kind) {
      case SseFloat.ADD:
        result = x + y;
        error = sumError(x, y, result);
        break;
      case SseFloat.SUB:
        result = x - y;
        error = sumError(x, -y, result);
        break;
      case SseFloat.MUL:
        result = x * y;
        error = productError(x, y, result);
        break;
      case SseFloat.DIV: {
        if (y === 0) return -1;
        result = x / y;
        const product = result * y;
        error = product === x ? productError(result, y, product) : 1;
        break;
      }
      default: {
        if (x < 0) return -1;
        result = Math.sqrt(x);
        const product = result * result;
        error = product === x ? productError(result, result, product) : 1;
      }
    }
    if (error !== 0) inexact = 1;
    results[lane] = result;
  }
  f64[R64] = results[0];
  f64[R64 + 1] = results[1];
  return inexact;
}

function quickSingles(state: SseState, kind: number, lanes: number): number {
  const { f32 } = state;
  let inexact = 0;
  const results = [0, 0, 0, 0];
  for (let lane = 0; lane < lanes; lane++) {
    const x = f32[(kind === SseFloat.SQRT ? Y32 : X32) + lane];
    const y = f32[Y32 + lane];
    if (!(x === 0 || (Math.abs(x) >= LEAST_SINGLE && Math.abs(x) < Number.POSITIVE_INFINITY))) return -1;
    if (!(y === 0 || (Math.abs(y) >= LEAST_SINGLE && Math.abs(y) < Number.POSITIVE_INFINITY))) return -1;
    // A double has more than twice the bits of a single: rounding twice gives what rounding once would.
    let wide = 0;
    let exactly = true;
    switch (kind) {
      case SseFloat.ADD:
        wide = x + y;
        exactly = sumError(x, y, wide) === 0;
        break;
      case SseFloat.SUB:
        wide = x - y;
        exactly = sumError(x, -y, wide) === 0;
        break;
      case SseFloat.MUL:
        wide = x * y;
        break;
      case SseFloat.DIV:
        if (y === 0) return -1;
        wide = x / y;
        exactly = Math.fround(wide) * y === x;
        break;
      default:
        if (x < 0) return -1;
        wide = Math.sqrt(x);
        exactly = Math.fround(wide) ** 2 === x;
    }
    const result = Math.fround(wide);
    if (wide === 0) {
      if (!exactly) return -1;
    } else if (!(Math.abs(result) > LEAST_SINGLE && Math.abs(result) < Number.POSITIVE_INFINITY)) return -1;
    if (!exactly || result !== wide) inexact = 1;
    results[lane] = result;
  }
  for (let lane = 0; lane < 4; lane++) f32[R32 + lane] = results[lane];
  return inexact;
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
