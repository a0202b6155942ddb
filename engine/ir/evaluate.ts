/**
 * The meaning of the pure operations, for the reference executor: WebAssembly Core 2.0, 4.3, written down once more
 * with big integers and nothing of a host's vector unit.
 *
 * A value is its bits: an unsigned bigint of 32, 64 or 128 bits, for floating-point types too. Where WebAssembly
 * leaves a NaN's bits open, they are what x86 processors give: the first operand that is a NaN, made quiet, else the
 * default NaN, whose sign is set.
 */
import { fusedMultiplyAdd } from './fused.ts';
import type { PureOp } from './ops.ts';

const MASK: Record<number, bigint> = { 8: 0xffn, 16: 0xffffn, 32: 0xffffffffn, 64: (1n << 64n) - 1n, 128: (1n << 128n) - 1n };
const unsigned = (bits: number, value: bigint): bigint => BigInt.asUintN(bits, value);
const signed = (bits: number, value: bigint): bigint => BigInt.asIntN(bits, value);

// --- floating point ---------------------------------------------------------------------------------------------

const view = new DataView(new ArrayBuffer(8));

/** The number that 32 or 64 bits stand for. */
export function toNumber(bits: number, value: bigint): number {
  if (bits === 32) {
    view.setUint32(0, Number(value));
    return view.getFloat32(0);
  }
  view.setBigUint64(0, value);
  return view.getFloat64(0);
}

/** The bits of a number, rounded to nearest even where 32 are asked for. */
export function fromNumber(bits: number, value: number): bigint {
  if (Number.isNaN(value)) return defaultNan(bits);
  if (bits === 32) {
    view.setFloat32(0, Math.fround(value));
    return BigInt(view.getUint32(0));
  }
  view.setFloat64(0, value);
  return view.getBigUint64(0);
}

const quietBit = (bits: number): bigint => (bits === 32 ? 1n << 22n : 1n << 51n);
const signBit = (bits: number): bigint => 1n << BigInt(bits - 1);
const defaultNan = (bits: number): bigint => (bits === 32 ? 0xffc00000n : 0xfff8000000000000n);
const isNan = (bits: number, value: bigint): boolean =>
  bits === 32 ? (value & 0x7fffffffn) > 0x7f800000n : (value & 0x7fffffffffffffffn) > 0x7ff0000000000000n;

/** Result of arithmetic: a NaN among the operands goes through. */
function arithmetic(bits: number, args: readonly bigint[], compute: (...numbers: number[]) => number): bigint {
  for (const arg of args) if (isNan(bits, arg)) return arg | quietBit(bits);
  return fromNumber(bits, compute(...args.map((arg) => toNumber(bits, arg))));
}

/** Rounds to an integer, halves to even; keeps the sign of zero. */
function nearest(x: number): number {
  if (!Number.isFinite(x) || Math.abs(x) >= 4503599627370496) return x;
  const down = Math.floor(x);
  const part = x - down;
  const rounded = part < 0.5 ? down : part > 0.5 ? down + 1 : down % 2 === 0 ? down : down + 1;
  return rounded === 0 && (x < 0 || Object.is(x, -0)) ? -0 : rounded;
}

/** An integer as the nearest number of `bits`, halves to even. */
function convert(bits: number, value: bigint): bigint {
  if (bits === 64) return fromNumber(64, Number(value));
  // By way of a double a single would be rounded twice: round to 24 significant bits here.
  const negative = value < 0n;
  let magnitude = negative ? -value : value;
  const excess = BigInt(Math.max(0, magnitude.toString(2).length - 24));
  if (excess > 0n) {
    const rest = magnitude & ((1n << excess) - 1n);
    const half = 1n << (excess - 1n);
    magnitude >>= excess;
    if (rest > half || (rest === half && (magnitude & 1n) !== 0n)) magnitude++;
    magnitude <<= excess;
  }
  return fromNumber(32, Number(negative ? -magnitude : magnitude));
}

/** A number cut to an integer of `bits`, saturated; NaN gives 0. */
function truncate(bits: number, isSigned: boolean, x: number): bigint {
  if (Number.isNaN(x)) return 0n;
  const low = isSigned ? -(1n << BigInt(bits - 1)) : 0n;
  const high = (isSigned ? 1n << BigInt(bits - 1) : 1n << BigInt(bits)) - 1n;
  if (x === Number.POSITIVE_INFINITY) return unsigned(bits, high);
  if (x === Number.NEGATIVE_INFINITY) return unsigned(bits, low);
  const whole = BigInt(Math.trunc(x));
  return unsigned(bits, whole < low ? low : whole > high ? high : whole);
}

const FLOAT_UNARY: Record<string, (x: number) => number> = {
  ceil: Math.ceil,
  floor: Math.floor,
  trunc: Math.trunc,
  nearest,
  sqrt: Math.sqrt,
};
const FLOAT_BINARY: Record<string, (x: number, y: number) => number> = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  min: Math.min,
  max: Math.max,
};
const FLOAT_COMPARE: Record<string, (x: number, y: number) => boolean> = {
  eq: (x, y) => x === y,
  ne: (x, y) => x !== y,
  lt: (x, y) => x < y,
  gt: (x, y) => x > y,
  le: (x, y) => x <= y,
  ge: (x, y) => x >= y,
};

/** One floating-point operation of one lane; undefined: no such. */
function float(bits: number, verb: string, args: readonly bigint[]): bigint | undefined {
  const [x, y] = args;
  switch (verb) {
    case 'abs':
      return x & ~signBit(bits);
    case 'neg':
      return x ^ signBit(bits);
    case 'copysign':
      return (x & ~signBit(bits)) | (y & signBit(bits));
    case 'pmin':
      return toNumber(bits, y) < toNumber(bits, x) ? y : x;
    case 'pmax':
      return toNumber(bits, x) < toNumber(bits, y) ? y : x;
  }
  if (verb in FLOAT_UNARY) return arithmetic(bits, args, FLOAT_UNARY[verb]);
  if (verb in FLOAT_BINARY) return arithmetic(bits, args, FLOAT_BINARY[verb]);
  return undefined;
}

function changeWidth(from: number, to: number, value: bigint): bigint {
  if (!isNan(from, value)) return fromNumber(to, toNumber(from, value));
  const sign = value >> BigInt(from - 1);
  const fraction = from === 32 ? (value & 0x7fffffn) << 29n : (value & 0xfffffffffffffn) >> 29n;
  return to === 64 ? (sign << 63n) | 0x7ff8000000000000n | fraction : (sign << 31n) | 0x7fc00000n | fraction;
}

// --- integers ---------------------------------------------------------------------------------------------------

/** Comparison of integers of `bits`; undefined: the verb is none. */
function compare(bits: number, verb: string, x: bigint, y: bigint): boolean | undefined {
  const [relation, sign] = verb.split('_');
  const a = sign === 's' ? signed(bits, x) : x;
  const b = sign === 's' ? signed(bits, y) : y;
  switch (relation) {
    case 'eq':
      return a === b;
    case 'ne':
      return a !== b;
    case 'lt':
      return a < b;
    case 'gt':
      return a > b;
    case 'le':
      return a <= b;
    case 'ge':
      return a >= b;
    default:
      return undefined;
  }
}

const clamp = (value: bigint, low: bigint, high: bigint): bigint => (value < low ? low : value > high ? high : value);
const saturate = (bits: number, isSigned: boolean, value: bigint): bigint =>
  unsigned(
    bits,
    isSigned ? clamp(value, -(1n << BigInt(bits - 1)), (1n << BigInt(bits - 1)) - 1n) : clamp(value, 0n, MASK[bits]),
  );

function ones(value: bigint): bigint {
  let count = 0n;
  for (let rest = value; rest !== 0n; rest &= rest - 1n) count++;
  return count;
}

/** One integer operation of `bits`, scalar or of a lane; undefined: no such. */
function integer(bits: number, verb: string, args: readonly bigint[]): bigint | undefined {
  const [x, y] = args;
  const sx = signed(bits, x);
  const sy = y === undefined ? 0n : signed(bits, y);
  const count = y === undefined ? 0n : y % BigInt(bits);
  const cut = (value: bigint): bigint => unsigned(bits, value);
  switch (verb) {
    case 'add':
      return cut(x + y);
    case 'sub':
      return cut(x - y);
    case 'mul':
      return cut(x * y);
    case 'div_s':
      if (y === 0n || (sx === -(1n << BigInt(bits - 1)) && sy === -1n)) throw new Error('IR: division traps');
      return cut(sx / sy);
    case 'div_u':
      if (y === 0n) throw new Error('IR: division traps');
      return x / y;
    case 'rem_s':
      if (y === 0n) throw new Error('IR: division traps');
      return cut(sx % sy);
    case 'rem_u':
      if (y === 0n) throw new Error('IR: division traps');
      return x % y;
    case 'and':
      return x & y;
    case 'or':
      return x | y;
    case 'xor':
      return x ^ y;
    case 'shl':
      return cut(x << count);
    case 'shr_s':
      return cut(sx >> count);
    case 'shr_u':
      return x >> count;
    case 'rotl':
      return cut((x << count) | (x >> (BigInt(bits) - count)));
    case 'rotr':
      return cut((x >> count) | (x << (BigInt(bits) - count)));
    case 'clz':
      return BigInt(bits - (x === 0n ? 0 : x.toString(2).length));
    case 'ctz':
      return x === 0n ? BigInt(bits) : BigInt((x & -x).toString(2).length - 1);
    case 'popcnt':
      return ones(x);
    case 'extend8_s':
      return cut(signed(8, x));
    case 'extend16_s':
      return cut(signed(16, x));
    case 'extend32_s':
      return cut(signed(32, x));
    case 'add_sat_s':
      return saturate(bits, true, sx + sy);
    case 'add_sat_u':
      return saturate(bits, false, x + y);
    case 'sub_sat_s':
      return saturate(bits, true, sx - sy);
    case 'sub_sat_u':
      return saturate(bits, false, x - y);
    case 'min_s':
      return sx < sy ? x : y;
    case 'min_u':
      return x < y ? x : y;
    case 'max_s':
      return sx > sy ? x : y;
    case 'max_u':
      return x > y ? x : y;
    case 'avgr_u':
      return (x + y + 1n) >> 1n;
    case 'q15mulr_sat_s':
      return saturate(16, true, (sx * sy + 0x4000n) >> 15n);
    case 'abs':
      return cut(sx < 0n ? -sx : sx);
    case 'neg':
      return cut(-x);
    default:
      return undefined;
  }
}

// --- vectors ----------------------------------------------------------------------------------------------------

const split = (bits: number, value: bigint): bigint[] =>
  Array.from({ length: 128 / bits }, (_, n) => (value >> BigInt(n * bits)) & MASK[bits]);
const join = (bits: number, lanes: readonly bigint[]): bigint =>
  lanes.reduce((sum, lane, n) => sum | (unsigned(bits, lane) << BigInt(n * bits)), 0n);

const SHAPES: Record<string, { bits: number; float: boolean }> = {
  i8x16: { bits: 8, float: false },
  i16x8: { bits: 16, float: false },
  i32x4: { bits: 32, float: false },
  i64x2: { bits: 64, float: false },
  f32x4: { bits: 32, float: true },
  f64x2: { bits: 64, float: true },
};

function whole(verb: string, args: readonly bigint[]): bigint | undefined {
  const [x, y, z] = args;
  switch (verb) {
    case 'not':
      return x ^ MASK[128];
    case 'and':
      return x & y;
    case 'andnot':
      return x & (y ^ MASK[128]);
    case 'or':
      return x | y;
    case 'xor':
      return x ^ y;
    case 'bitselect':
      return (x & z) | (y & (z ^ MASK[128]));
    case 'any_true':
      return x === 0n ? 0n : 1n;
    case 'select':
      return z === 0n ? y : x;
    default:
      return undefined;
  }
}

function vector(shape: string, verb: string, args: readonly bigint[], lanes: readonly number[]): bigint | undefined {
  const { bits, float: isFloat } = SHAPES[shape];
  const count = 128 / bits;
  const [x, y] = args;
  switch (verb) {
    case 'splat':
      return join(
        bits,
        Array.from({ length: count }, () => x),
      );
    case 'extract_lane':
    case 'extract_lane_u':
      return split(bits, x)[lanes[0]];
    case 'extract_lane_s':
      return unsigned(32, signed(bits, split(bits, x)[lanes[0]]));
    case 'replace_lane':
      return join(bits, split(bits, x).with(lanes[0], y));
    case 'shuffle': {
      const both = [...split(8, x), ...split(8, y)];
      return join(
        8,
        lanes.map((lane) => both[lane]),
      );
    }
    case 'swizzle': {
      const bytes = split(8, x);
      return join(
        8,
        split(8, y).map((at) => (at < 16n ? bytes[Number(at)] : 0n)),
      );
    }
    case 'relaxed_madd':
    case 'relaxed_nmadd': {
      const [a, b, c] = args.map((arg) => split(bits, arg));
      const width = bits as 32 | 64;
      return join(
        bits,
        a.map((lane, n) => fusedMultiplyAdd(width, lane, b[n], c[n], verb === 'relaxed_nmadd')),
      );
    }
    case 'all_true':
      return split(bits, x).every((lane) => lane !== 0n) ? 1n : 0n;
    case 'bitmask':
      return split(bits, x).reduce((sum, lane, n) => sum | ((lane >> BigInt(bits - 1)) << BigInt(n)), 0n);
    case 'shl':
    case 'shr_s':
    case 'shr_u':
      return join(
        bits,
        split(bits, x).map((lane) => integer(bits, verb, [lane, y]) as bigint),
      );
    case 'demote_f64x2_zero':
      return join(
        32,
        split(64, x).map((lane) => changeWidth(64, 32, lane)),
      );
    case 'promote_low_f32x4':
      return join(
        64,
        split(32, x)
          .slice(0, 2)
          .map((lane) => changeWidth(32, 64, lane)),
      );
    case 'convert_i32x4_s':
      return join(
        32,
        split(32, x).map((lane) => convert(32, signed(32, lane))),
      );
    case 'convert_i32x4_u':
      return join(
        32,
        split(32, x).map((lane) => convert(32, lane)),
      );
    case 'convert_low_i32x4_s':
      return join(
        64,
        split(32, x)
          .slice(0, 2)
          .map((lane) => convert(64, signed(32, lane))),
      );
    case 'convert_low_i32x4_u':
      return join(
        64,
        split(32, x)
          .slice(0, 2)
          .map((lane) => convert(64, lane)),
      );
  }
  const sat = /^trunc_sat_f(32x4|64x2)_([su])/.exec(verb);
  if (sat !== null) {
    const width = sat[1] === '32x4' ? 32 : 64;
    return join(
      32,
      split(width, x).map((lane) => truncate(32, sat[2] === 's', toNumber(width, lane))),
    );
  }
  const narrow = /^narrow_i\d+x\d_([su])$/.exec(verb);
  if (narrow !== null)
    return join(
      bits,
      [...split(bits * 2, x), ...split(bits * 2, y)].map((lane) => saturate(bits, narrow[1] === 's', signed(bits * 2, lane))),
    );
  const half = bits / 2;
  const wide = (sign: string, lane: bigint): bigint => (sign === 's' ? signed(half, lane) : lane);
  const extend = /^(extend|extmul)_(low|high)_i\d+x\d+_([su])$/.exec(verb);
  if (extend !== null) {
    const [, what, part, sign] = extend;
    const pick = (value: bigint): bigint[] => {
      const all = split(half, value);
      return (part === 'low' ? all.slice(0, count) : all.slice(count)).map((lane) => wide(sign, lane));
    };
    const a = pick(x);
    if (what === 'extend') return join(bits, a);
    const b = pick(y);
    return join(
      bits,
      a.map((lane, n) => lane * b[n]),
    );
  }
  const pairwise = /^extadd_pairwise_i\d+x\d+_([su])$/.exec(verb);
  if (pairwise !== null) {
    const all = split(half, x).map((lane) => wide(pairwise[1], lane));
    return join(
      bits,
      Array.from({ length: count }, (_, n) => all[2 * n] + all[2 * n + 1]),
    );
  }
  if (verb === 'dot_i16x8_s') {
    const a = split(16, x).map((lane) => signed(16, lane));
    const b = split(16, y).map((lane) => signed(16, lane));
    return join(
      32,
      Array.from({ length: 4 }, (_, n) => a[2 * n] * b[2 * n] + a[2 * n + 1] * b[2 * n + 1]),
    );
  }
  const columns = args.map((arg) => split(bits, arg));
  const results: bigint[] = [];
  for (let n = 0; n < count; n++) {
    const operands = columns.map((column) => column[n]);
    let result: bigint | undefined;
    if (isFloat && verb in FLOAT_COMPARE)
      result = FLOAT_COMPARE[verb](toNumber(bits, operands[0]), toNumber(bits, operands[1])) ? MASK[bits] : 0n;
    else if (isFloat) result = float(bits, verb, operands);
    else {
      const relation = operands.length === 2 ? compare(bits, verb, operands[0], operands[1]) : undefined;
      result = relation === undefined ? integer(bits, verb, operands) : relation ? MASK[bits] : 0n;
    }
    if (result === undefined) return undefined;
    results.push(result);
  }
  return join(bits, results);
}

function scalar(type: string, verb: string, args: readonly bigint[]): bigint | undefined {
  const [x, y, z] = args;
  const bits = type.endsWith('64') ? 64 : 32;
  if (verb === 'select') return z === 0n ? y : x;
  if (verb.startsWith('reinterpret_')) return x;
  if (type[0] === 'f') {
    if (verb in FLOAT_COMPARE) return FLOAT_COMPARE[verb](toNumber(bits, x), toNumber(bits, y)) ? 1n : 0n;
    const from = /^convert_i(32|64)_([su])$/.exec(verb);
    if (from !== null) return convert(bits, from[2] === 's' ? signed(Number(from[1]), x) : x);
    if (verb === 'demote_f64') return changeWidth(64, 32, x);
    if (verb === 'promote_f32') return changeWidth(32, 64, x);
    return float(bits, verb, args);
  }
  const sat = /^trunc_sat_f(32|64)_([su])$/.exec(verb);
  if (sat !== null) return truncate(bits, sat[2] === 's', toNumber(Number(sat[1]), x));
  switch (verb) {
    case 'eqz':
      return x === 0n ? 1n : 0n;
    case 'wrap_i64':
      return unsigned(32, x);
    case 'extend_i32_s':
      return unsigned(64, signed(32, x));
    case 'extend_i32_u':
      return x;
  }
  const relation = args.length === 2 ? compare(bits, verb, x, y) : undefined;
  return relation === undefined ? integer(bits, verb, args) : relation ? 1n : 0n;
}

/** The result of a pure operation on the bits of its operands; `lanes` are its immediates. */
export function evaluate(op: PureOp, args: readonly bigint[], lanes: readonly number[] = []): bigint {
  const [head, verb] = op.name.split('.');
  const result =
    head === 'v128' ? whole(verb, args) : head in SHAPES ? vector(head, verb, args, lanes) : scalar(head, verb, args);
  if (result === undefined) throw new Error(`IR: no meaning for ${op.name}`);
  return result;
}
