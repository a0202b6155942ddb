/**
 * Transcendental functions: F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FPTAN, FPATAN. SDM 1, 8.3.7 to 8.3.10.
 *
 * Choice: arguments of the trigonometric functions are reduced with Intel's documented 66-bit pi, not the true one,
 * whatever the host's processor does; the result is the function of the reduced argument. Everything is computed with
 * some 120 bits or more and rounded once by RC, so results are correctly rounded but for one case in 2^50; hardware is
 * within one unit in the last place of that. Beyond the domains the SDM defines: F2XM1 outside [-1, 1] gives its
 * operand, and so does FYL2XP1 at or below -1, as AMD processors do; between its bounds and infinity FYL2XP1 gives the
 * true value.
 *
 * Fixed-point numbers are BigInts; a suffix names their fractional bits. These instructions are rare, and take a few
 * microseconds.
 */
import { CONSTANT_BITS, LN2, LOG2_E, PI, PI66, PI66_BITS } from './constants.ts';
import { Convert80 } from './convert80.ts';
import { BIAS, classify, type Float80, Kind, TOP_BIT } from './float80.ts';
import { C2, PE, UE, ZE } from './fpu-state.ts';

/** Fractional bits of sine and cosine, and of the other functions. */
const TRIG = 128n;
const TRIG_ONE = 1n << TRIG;
const F = 192n;
const F_ONE = 1n << F;
const PI_F = PI >> (CONSTANT_BITS - F);
const LN2_F = LN2 >> (CONSTANT_BITS - F);

/** Number of bits of a positive BigInt. */
function bitLength(n: bigint): number {
  const hex = n.toString(16);
  return hex.length * 4 - (Math.clz32(Number.parseInt(hex[0], 16)) - 28);
}

function shiftLeft(n: bigint, count: number): bigint {
  return count >= 0 ? n << BigInt(count) : n >> BigInt(-count);
}

/** 2 * atanh(u), `bits` fractional bits. */
function doubleAtanh(u: bigint, bits: bigint): bigint {
  const square = (u * u) >> bits;
  let power = u;
  let sum = u;
  for (let k = 3n; ; k += 2n) {
    power = (power * square) >> bits;
    const term = power / k;
    if (term === 0n || term === -1n) break;
    sum += term;
  }
  return 2n * sum;
}

/** atan(z) for |z| < 1/8, F fractional bits. */
function smallAtan(z: bigint): bigint {
  const square = -((z * z) >> F);
  let power = z;
  let sum = z;
  for (let k = 3n; ; k += 2n) {
    power = (power * square) >> F;
    const term = power / k;
    if (term === 0n) break;
    sum += term;
  }
  return sum;
}

/** e^g - 1, F fractional bits. */
function expm1(g: bigint): bigint {
  let term = g;
  let sum = g;
  for (let k = 2n; ; k++) {
    term = ((term * g) >> F) / k;
    if (term === 0n) break;
    sum += term;
  }
  return sum;
}

const logTable: bigint[] = [];
/** ln(i / 64), 272 bits, for i from 32 to 128. */
function logOf(i: number): bigint {
  logTable[i] ??= doubleAtanh((BigInt(i - 64) << LOG_BITS) / BigInt(i + 64), LOG_BITS);
  return logTable[i];
}
const LOG_BITS = 272n;
const LOG_ONE = 1n << LOG_BITS;

const atanTable: bigint[] = [];
/** atan(i / 32), by halving twice until the series serves: atan(c) = atan(1/32) + atan((c - 1/32) / (1 + c/32)). */
function atanOf(i: number): bigint {
  if (i === 0) return 0n;
  let sum = 0n;
  let num = BigInt(i);
  let den = 32n;
  if (atanTable[i] !== undefined) return atanTable[i];
  const step = smallAtan(F_ONE / 32n);
  while (num * 16n > den) {
    [num, den] = [32n * num - den, 32n * den + num];
    sum += step;
  }
  atanTable[i] = sum + smallAtan((num << F) / den);
  return atanTable[i];
}

const exp2Table: bigint[] = [];
/** 2^(i/32), i from -32 to 32. */
function exp2Of(i: number): bigint {
  exp2Table[i + 32] ??= F_ONE + expm1((LN2_F * BigInt(i)) / 32n);
  return exp2Table[i + 32];
}

/** 2^64 / sqrt(2), rounded up, in words: significands above it belong to the next power of two. */
const SQRT2_HIGH = 0xb504f333;

export class Transcendental80 extends Convert80 {
  private reduced = 0n;
  private reducedExp = 0;
  private quadrant = 0;

  private significand(a: Float80): bigint {
    return (BigInt(a.hi >>> 0) << 32n) | BigInt(a.lo >>> 0);
  }

  /** Rounds m * 2^e, m > 0, into `out`; the true value lies strictly between m and m + 1. */
  private emit(out: Float80, sign: number, m: bigint, e: number, inexact = 1): void {
    const length = bitLength(m);
    const shift = length - 96;
    const top = shift >= 0 ? m >> BigInt(shift) : m << BigInt(-shift);
    const sticky = inexact === 1 || (shift > 0 && top << BigInt(shift) !== m) ? 1 : 0;
    const ext = Number(top & 0xffffffffn) | sticky;
    const lo = Number((top >> 32n) & 0xffffffffn) | 0;
    const hi = Number(top >> 64n) | 0;
    this.round(out, sign, e + length - 1 + BIAS, hi, lo, ext, 64);
  }

  /** Common entry of the one-operand functions: true where `out` (or a stop) is settled. */
  private special(a: Float80, kind: number, out: Float80): boolean {
    if (kind >= Kind.QNAN) {
      this.nan(a, a, out);
      return true;
    }
    return kind === Kind.DENORMAL && this.denormal();
  }

  /** Reduces |a| to r * 2^e in [-pi/4, pi/4] and the quadrant; returns 1 where r is negative. */
  private reduce66(a: Float80): number {
    const n = this.normalize(a, this.x);
    const e = n.exp - BIAS - 63;
    const s = this.significand(n);
    // Below 1/8 nothing is to be reduced.
    if (n.exp - BIAS < -3) {
      this.reduced = s;
      this.reducedExp = e;
      this.quadrant = 0;
      return 0;
    }
    // x in units of 2^-67, where pi/2 is PI66.
    const x = s << BigInt(e + PI66_BITS + 1);
    const q = x / PI66;
    const r = x - q * PI66;
    this.reducedExp = -PI66_BITS - 1;
    if (2n * r > PI66) {
      this.reduced = PI66 - r;
      this.quadrant = Number(q & 3n) + 1;
      return 1;
    }
    this.reduced = r;
    this.quadrant = Number(q & 3n);
    return 0;
  }

  /** r^2 with TRIG fractional bits. */
  private square(): bigint {
    const { reduced } = this;
    return shiftLeft(reduced * reduced, 2 * this.reducedExp + Number(TRIG));
  }

  /** sin(r) / r, TRIG bits; always below one. */
  private sineRatio(z: bigint): bigint {
    let term = TRIG_ONE;
    let sum = TRIG_ONE;
    for (let k = 2n, minus = true; ; k += 2n, minus = !minus) {
      term = ((term * z) >> TRIG) / (k * (k + 1n));
      if (term === 0n) break;
      sum += minus ? -term : term;
    }
    return sum - 1n;
  }

  /** cos(r), TRIG bits; always below one. */
  private cosine(z: bigint): bigint {
    let term = TRIG_ONE;
    let sum = TRIG_ONE;
    for (let k = 1n, minus = true; ; k += 2n, minus = !minus) {
      term = ((term * z) >> TRIG) / (k * (k + 1n));
      if (term === 0n) break;
      sum += minus ? -term : term;
    }
    return sum - 1n;
  }

  /**
   * Sine into `sine` and cosine into `cosine`, either may be absent. Returns C2 where |a| >= 2^63, and nothing is
   * computed.
   */
  sineCosine(a: Float80, sine: Float80 | undefined, cosine: Float80 | undefined): number {
    const kind = classify(a);
    const first = (sine ?? cosine) as Float80;
    if (this.special(a, kind, first)) {
      if (sine && cosine) cosine.copy(sine);
      return 0;
    }
    if (kind === Kind.INFINITY) {
      this.invalid(first);
      if (sine && cosine) cosine.copy(sine);
      return 0;
    }
    const { sign } = a;
    if (kind === Kind.ZERO) {
      sine?.zero(sign);
      cosine?.one(0);
      return 0;
    }
    if (a.exp >= BIAS + 63) return C2;
    const negative = this.reduce66(a);
    const { quadrant, reduced, reducedExp } = this;
    const z = this.square();
    const odd = (quadrant & 1) === 1;
    // r < 0 turns the sine of r only.
    const sineOf = (out: Float80, turned: number): void =>
      this.emit(out, turned ^ negative, reduced * this.sineRatio(z), reducedExp - Number(TRIG));
    const cosineOf = (out: Float80, turned: number): void => this.emit(out, turned, this.cosine(z), -Number(TRIG));
    const half = (quadrant >> 1) & 1;
    if (cosine) {
      if (odd) sineOf(cosine, half ^ 1);
      else cosineOf(cosine, half);
    }
    if (sine) {
      if (odd) cosineOf(sine, sign ^ half);
      else sineOf(sine, sign ^ half);
    }
    return 0;
  }

  /** Tangent; returns C2 where |a| >= 2^63. */
  tangent(a: Float80, out: Float80): number {
    const kind = classify(a);
    if (this.special(a, kind, out)) return 0;
    if (kind === Kind.INFINITY) {
      this.invalid(out);
      return 0;
    }
    if (kind === Kind.ZERO) {
      out.copy(a);
      return 0;
    }
    if (a.exp >= BIAS + 63) return C2;
    const sign = a.sign ^ this.reduce66(a);
    const z = this.square();
    const cosine = this.cosine(z);
    const ratio = this.sineRatio(z);
    const bits = Number(TRIG);
    if (this.quadrant & 1) {
      // cos / (r * ratio), with room for the digits of r.
      const divisor = this.reduced * ratio;
      const shift = bitLength(divisor);
      this.emit(out, sign ^ 1, (cosine << BigInt(shift)) / divisor, -this.reducedExp - shift);
    } else
      this.emit(out, sign, (this.reduced * ratio * TRIG_ONE) / cosine + (z === 0n ? this.reduced : 0n), this.reducedExp - bits);
    return 0;
  }

  /** atan(y / x) in its quadrant. SDM 2, table 3-31 (FPATAN). */
  arctangent(y: Float80, x: Float80, out: Float80): void {
    const ky = classify(y);
    const kx = classify(x);
    if (ky >= Kind.QNAN || kx >= Kind.QNAN) {
      this.nan(y, x, out);
      return;
    }
    if ((ky === Kind.DENORMAL || kx === Kind.DENORMAL) && this.denormal()) return;
    const { sign } = y;
    const turned = x.sign === 1;
    if (ky === Kind.INFINITY) {
      const eighths = kx === Kind.INFINITY ? (turned ? 3n : 1n) : 2n;
      this.emit(out, sign, (PI_F * eighths) >> 2n, -Number(F));
      return;
    }
    if (ky === Kind.ZERO || kx === Kind.INFINITY) {
      if (turned) this.emit(out, sign, PI_F, -Number(F));
      else out.zero(sign);
      return;
    }
    if (kx === Kind.ZERO) {
      this.emit(out, sign, PI_F >> 1n, -Number(F));
      return;
    }
    const ny = this.normalize(y, this.x);
    const nx = this.normalize(x, this.y);
    let difference = nx.exp - ny.exp;
    let num = this.significand(ny);
    let den = this.significand(nx);
    const swap = difference < 0 || (difference === 0 && num > den);
    if (swap) {
      [num, den] = [den, num];
      difference = -difference;
    }
    if (difference > 60 && !swap && !turned) {
      // t - t^3 / 3, with the digits that a small quotient needs.
      const q = (num << F) / den;
      const cube = difference > 200 ? 0n : ((q * q * q) >> BigInt(2 * Number(F) + 2 * difference)) / 3n;
      this.emit(out, sign, q - 1n - cube, -Number(F) - difference);
      return;
    }
    const t = difference > Number(F) ? 0n : (num << (F - BigInt(difference))) / den;
    const index = Number((t * 32n + F_ONE / 2n) >> F);
    const c = (F_ONE * BigInt(index)) / 32n;
    const z = index === 0 ? t : ((t - c) << F) / (F_ONE + ((t * c) >> F));
    let angle = atanOf(index) + smallAtan(z);
    if (swap) angle = turned ? (PI_F >> 1n) + angle : (PI_F >> 1n) - angle;
    else if (turned) angle = PI_F - angle;
    this.emit(out, sign, angle, -Number(F));
  }

  /** log2 of a normalized positive number, LOG_BITS fractional bits; exact for powers of two. */
  private log2(n: Float80): bigint {
    let k = n.exp - BIAS;
    let m = this.significand(n) << (LOG_BITS - 63n);
    if (m === LOG_ONE) return BigInt(k) << LOG_BITS;
    if (n.hi >>> 0 >= SQRT2_HIGH) {
      m >>= 1n;
      k++;
    }
    return (BigInt(k) << LOG_BITS) + this.log2OfNearOne(m);
  }

  /** log2(m) for m in [0.5, 2], keeping the digits of a result near zero. */
  private log2OfNearOne(m: bigint): bigint {
    const index = Number((m * 64n + LOG_ONE / 2n) >> LOG_BITS);
    const c = (LOG_ONE * BigInt(index)) / 64n;
    const ln = logOf(index) + doubleAtanh(((m - c) << LOG_BITS) / (m + c), LOG_BITS);
    return (ln * LOG2_E) >> CONSTANT_BITS;
  }

  /** y * log2(x). SDM 2, table 3-47 (FYL2X). */
  yLog2(x: Float80, y: Float80, out: Float80): void {
    const kx = classify(x);
    const ky = classify(y);
    if (kx >= Kind.QNAN || ky >= Kind.QNAN) {
      this.nan(x, y, out);
      return;
    }
    if (x.sign === 1 && kx !== Kind.ZERO) {
      this.invalid(out);
      return;
    }
    if (kx === Kind.ZERO) {
      if (ky === Kind.ZERO) {
        this.invalid(out);
        return;
      }
      if (ky !== Kind.INFINITY) this.flags |= ZE;
      out.infinity(y.sign ^ 1);
      return;
    }
    if (kx === Kind.INFINITY) {
      if (ky === Kind.ZERO) {
        this.invalid(out);
        return;
      }
      if (ky === Kind.DENORMAL && this.denormal()) return;
      out.infinity(y.sign);
      return;
    }
    const isOne = x.exp === BIAS && x.hi === TOP_BIT && x.lo === 0;
    if (isOne && ky === Kind.INFINITY) {
      this.invalid(out);
      return;
    }
    if ((kx === Kind.DENORMAL || ky === Kind.DENORMAL) && this.denormal()) return;
    const negative = x.exp < BIAS ? 1 : 0;
    if (ky === Kind.INFINITY) {
      out.infinity(y.sign ^ negative);
      return;
    }
    if (ky === Kind.ZERO || isOne) {
      out.zero(y.sign ^ negative);
      return;
    }
    const log = this.log2(this.normalize(x, this.x));
    const exact = (log & (LOG_ONE - 1n)) === 0n;
    const n = this.normalize(y, this.y);
    this.emit(
      out,
      y.sign ^ negative,
      (log < 0n ? -log : log) * this.significand(n),
      n.exp - BIAS - 63 - Number(LOG_BITS),
      exact ? 0 : 1,
    );
    // Processors do not tell exact results apart, and take them for inexact.
    this.flags |= out.exp === 0 ? PE | UE : PE;
  }

  /** y * log2(x + 1). SDM 2, table 3-48 (FYL2XP1). */
  yLog2Plus1(x: Float80, y: Float80, out: Float80): void {
    const kx = classify(x);
    const ky = classify(y);
    if (kx >= Kind.QNAN || ky >= Kind.QNAN) {
      this.nan(x, y, out);
      return;
    }
    const sign = x.sign ^ y.sign;
    if ((kx === Kind.ZERO && ky === Kind.INFINITY) || (kx === Kind.INFINITY && (ky === Kind.ZERO || x.sign === 1))) {
      this.invalid(out);
      return;
    }
    if ((kx === Kind.DENORMAL || ky === Kind.DENORMAL) && this.denormal()) return;
    if (x.sign === 1 && x.exp >= BIAS && kx !== Kind.INFINITY && (ky === Kind.NORMAL || ky === Kind.DENORMAL)) {
      this.flags |= PE;
      out.copy(x);
      return;
    }
    if (kx === Kind.INFINITY || ky === Kind.INFINITY) {
      out.infinity(sign);
      return;
    }
    if (kx === Kind.ZERO || ky === Kind.ZERO) {
      out.zero(sign);
      return;
    }
    const nx = this.normalize(x, this.x);
    const ny = this.normalize(y, this.y);
    const scale = ny.exp - BIAS - 63;
    const e = nx.exp - BIAS;
    const s = this.significand(nx);
    if (e < -70) {
      // x / ln 2 * (1 - x / 2)
      const half = shiftLeft(s, e - 63 - 1 + Number(F));
      const factor = F_ONE - (x.sign === 1 ? -half : half);
      this.emit(out, sign, ((s * LOG2_E * factor) >> F) * this.significand(ny), scale + e - 63 - Number(CONSTANT_BITS));
      return;
    }
    let log: bigint;
    if (e >= 0) {
      // Out of the documented range: 1 + x, to as many digits as there are, and its power of two apart.
      const sum = (s << LOG_BITS) + shiftLeft(LOG_ONE, 63 - e);
      const length = bitLength(sum) - 1;
      log =
        (BigInt(length - 63 - Number(LOG_BITS) + e) << LOG_BITS) + this.log2OfNearOne(shiftLeft(sum, Number(LOG_BITS) - length));
    } else {
      const fixed = shiftLeft(s, e - 63 + Number(LOG_BITS));
      let m = LOG_ONE + (x.sign === 1 ? -fixed : fixed);
      // Toward -1 the power of two must be taken out, for the table starts at one half.
      const length = bitLength(m) - 1 - Number(LOG_BITS);
      const k = length < -1 ? length : 0;
      m <<= BigInt(-k);
      log = (BigInt(k) << LOG_BITS) + this.log2OfNearOne(m);
    }
    this.emit(out, sign, (log < 0n ? -log : log) * this.significand(ny), scale - Number(LOG_BITS));
  }

  /** 2^a - 1. SDM 2, F2XM1. */
  exp2Minus1(a: Float80, out: Float80): void {
    const kind = classify(a);
    if (this.special(a, kind, out)) return;
    const { sign } = a;
    if (kind === Kind.INFINITY) {
      if (sign === 1) out.one(1);
      else out.infinity(0);
      return;
    }
    if (kind === Kind.ZERO) {
      out.copy(a);
      return;
    }
    if (a.exp >= BIAS) {
      const isOne = a.exp === BIAS && a.hi === TOP_BIT && a.lo === 0;
      if (isOne && sign === 1) out.set(1, BIAS - 1, TOP_BIT, 0);
      else out.copy(a);
      this.flags |= PE;
      return;
    }
    const n = this.normalize(a, this.x);
    const e = n.exp - BIAS;
    const s = this.significand(n);
    if (e < -68) {
      // x ln 2 * (1 + x ln 2 / 2)
      const g = s * LN2;
      const half = shiftLeft(g, e - 63 - 1 - Number(CONSTANT_BITS) + Number(F));
      this.emit(out, sign, (g * (F_ONE + (sign === 1 ? -half : half))) >> F, e - 63 - Number(CONSTANT_BITS));
      return;
    }
    const size = shiftLeft(s, e - 63 + Number(F));
    const x = sign === 1 ? -size : size;
    const index = Number((x * 32n + F_ONE / 2n) >> F);
    const rest = x - (F_ONE / 32n) * BigInt(index);
    const small = expm1((rest * LN2) >> CONSTANT_BITS);
    let result = small;
    if (index !== 0) {
      const power = exp2Of(index);
      result = power - F_ONE + ((power * small) >> F);
    }
    this.emit(out, sign, result < 0n ? -result : result, -Number(F));
  }
}
