/** x * y + z rounded once, on bit patterns: for the evaluator. To nearest, ties to even (IEEE 754-2008, 5.4.1). */

const words = new BigUint64Array(1);
const doubles = new Float64Array(words.buffer);
const singles = new Float32Array(words.buffer);

function numberOf(bits: 32 | 64, pattern: bigint): number {
  words[0] = pattern;
  return bits === 64 ? doubles[0] : singles[0];
}
function patternOf(bits: 32 | 64, value: number): bigint {
  words[0] = 0n;
  if (bits === 64) doubles[0] = value;
  else singles[0] = value;
  return words[0];
}

/** Significand, with the sign, and the exponent of its lowest bit. */
function parts(bits: 32 | 64, pattern: bigint): { significand: bigint; exponent: number } {
  const fraction = bits === 64 ? 52n : 23n;
  const field = Number((pattern >> fraction) & (bits === 64 ? 0x7ffn : 0xffn));
  const low = pattern & ((1n << fraction) - 1n);
  const magnitude = field === 0 ? low : low | (1n << fraction);
  const bias = bits === 64 ? 1075 : 150;
  const negative = pattern >> BigInt(bits - 1) !== 0n;
  return { significand: negative ? -magnitude : magnitude, exponent: Math.max(field, 1) - bias };
}

/** x * y + z; the product negated where `negate`. */
export function fusedMultiplyAdd(bits: 32 | 64, x: bigint, y: bigint, z: bigint, negate: boolean): bigint {
  const factor = negate ? x ^ (1n << BigInt(bits - 1)) : x;
  const [u, v, w] = [numberOf(bits, factor), numberOf(bits, y), numberOf(bits, z)];
  if (!Number.isFinite(u) || !Number.isFinite(v)) return patternOf(bits, u * v + w);
  if (!Number.isFinite(w)) return patternOf(bits, w);
  const [a, b, c] = [parts(bits, factor), parts(bits, y), parts(bits, z)];
  const exponent = Math.min(a.exponent + b.exponent, c.exponent);
  const product = (a.significand * b.significand) << BigInt(a.exponent + b.exponent - exponent);
  const sum = product + (c.significand << BigInt(c.exponent - exponent));
  // Zeros have the sign that two roundings give them too: an exact cancellation is positive.
  if (sum === 0n) return patternOf(bits, product === 0n ? u * v + w : 0);
  return round(bits, sum, exponent);
}

function round(bits: 32 | 64, value: bigint, exponent: number): bigint {
  const fraction = bits === 64 ? 52 : 23;
  const least = bits === 64 ? -1074 : -149;
  const sign = value < 0n ? 1n << BigInt(bits - 1) : 0n;
  const magnitude = value < 0n ? -value : value;
  const length = magnitude.toString(2).length;
  // The exponent of the lowest bit that is kept.
  let lowest = Math.max(exponent + length - fraction - 1, least);
  let kept: bigint;
  if (lowest <= exponent) kept = magnitude << BigInt(exponent - lowest);
  else {
    const shift = BigInt(lowest - exponent);
    kept = magnitude >> shift;
    const rest = magnitude - (kept << shift);
    const half = 1n << (shift - 1n);
    if (rest > half || (rest === half && (kept & 1n) !== 0n)) kept++;
  }
  if (kept >> BigInt(fraction + 1) !== 0n) {
    kept >>= 1n;
    lowest++;
  }
  const special = bits === 64 ? 0x7ff : 0xff;
  const field = kept >> BigInt(fraction) === 0n ? 0 : lowest - least + 1;
  if (field >= special) return sign | (BigInt(special) << BigInt(fraction));
  return sign | (BigInt(field) << BigInt(fraction)) | (kept & ((1n << BigInt(fraction)) - 1n));
}
