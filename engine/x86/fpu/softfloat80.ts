/**
 * Arithmetic on 80-bit extended values: add, subtract, multiply, divide, square root, remainder, scale, extract,
 * round to integer and compare. SDM 1, chapters 4 and 8; SDM 2, the instruction of each name.
 *
 * `out` may be one of the operands. Nothing here allocates or uses BigInt.
 */

import { BIAS, classify, Float80, FloatContext, Kind, mulHigh, Rounding, TOP_BIT } from './float80.ts';
import { C0, C1, C2, C3, IE, PE, ZE } from './fpu-state.ts';

export class SoftFloat80 extends FloatContext {
  protected readonly x = new Float80();
  protected readonly y = new Float80();

  /** a + b; a - b where `negate` is 1. */
  add(a: Float80, b: Float80, out: Float80, negate: number): void {
    const ka = classify(a);
    const kb = classify(b);
    const signB = b.sign ^ negate;
    if ((ka | kb) !== Kind.NORMAL) {
      if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
        this.nan(a, b, out);
        return;
      }
      if (ka === Kind.INFINITY && kb === Kind.INFINITY && a.sign !== signB) {
        this.invalid(out);
        return;
      }
      if ((ka === Kind.DENORMAL || kb === Kind.DENORMAL) && this.denormal()) return;
      if (ka === Kind.INFINITY || kb === Kind.INFINITY) {
        out.infinity(ka === Kind.INFINITY ? a.sign : signB);
        return;
      }
      if (ka === Kind.ZERO || kb === Kind.ZERO) {
        if (ka === kb) {
          out.zero(a.sign === signB ? a.sign : this.rounding === Rounding.DOWN ? 1 : 0);
          return;
        }
        const from = ka === Kind.ZERO ? b : a;
        const n = this.normalize(from, this.x);
        this.round(out, ka === Kind.ZERO ? signB : a.sign, n.exp, n.hi, n.lo, 0, this.precision);
        return;
      }
      a = ka === Kind.DENORMAL ? this.normalize(a, this.x) : a;
      b = kb === Kind.DENORMAL ? this.normalize(b, this.y) : b;
    }
    this.addFinite(a, b, out, a.sign, signB);
  }

  /** The sum of two normalized numbers. */
  private addFinite(a: Float80, b: Float80, out: Float80, signA: number, signB: number): void {
    let big = a;
    let small = b;
    let sign = signA;
    const by = a.exp - b.exp;
    if (by < 0 || (by === 0 && this.compareSignificands(a, b) < 0)) {
      big = b;
      small = a;
      sign = signB;
    }
    let { exp } = big;
    this.shiftRight(small.hi, small.lo, 0, exp - small.exp);
    let { w0, w1, w2 } = this;
    if (signA === signB) {
      const lo = (big.lo >>> 0) + (w1 >>> 0);
      const hi = (big.hi >>> 0) + (w0 >>> 0) + (lo >= 4294967296 ? 1 : 0);
      w0 = hi | 0;
      w1 = lo | 0;
      if (hi >= 4294967296) {
        w2 = (w2 >>> 1) | (w2 & 1) | (w1 << 31);
        w1 = (w1 >>> 1) | (w0 << 31);
        w0 = (w0 >>> 1) | TOP_BIT;
        exp++;
      }
      this.round(out, sign, exp, w0, w1, w2, this.precision);
      return;
    }
    const ext = -(w2 >>> 0);
    const lo = (big.lo >>> 0) - (w1 >>> 0) - (ext < 0 ? 1 : 0);
    w0 = (big.hi - w0 - (lo < 0 ? 1 : 0)) | 0;
    w1 = lo | 0;
    w2 = ext | 0;
    if (w0 >= 0) {
      if ((w0 | w1 | w2) === 0) {
        out.zero(this.rounding === Rounding.DOWN ? 1 : 0);
        return;
      }
      // Two leading words of zero only happen where nothing was shifted out, or by one place.
      while (w0 === 0) {
        w0 = w1;
        w1 = w2;
        w2 = 0;
        exp -= 32;
      }
      const clz = Math.clz32(w0);
      if (clz > 0) {
        w0 = (w0 << clz) | (w1 >>> (32 - clz));
        w1 = (w1 << clz) | (w2 >>> (32 - clz));
        w2 <<= clz;
        exp -= clz;
      }
    }
    this.round(out, sign, exp, w0, w1, w2, this.precision);
  }

  /** a * b. */
  multiply(a: Float80, b: Float80, out: Float80): void {
    const ka = classify(a);
    const kb = classify(b);
    const sign = a.sign ^ b.sign;
    if ((ka | kb) !== Kind.NORMAL) {
      if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
        this.nan(a, b, out);
        return;
      }
      if ((ka === Kind.INFINITY && kb === Kind.ZERO) || (kb === Kind.INFINITY && ka === Kind.ZERO)) {
        this.invalid(out);
        return;
      }
      if ((ka === Kind.DENORMAL || kb === Kind.DENORMAL) && this.denormal()) return;
      if (ka === Kind.INFINITY || kb === Kind.INFINITY) {
        out.infinity(sign);
        return;
      }
      if (ka === Kind.ZERO || kb === Kind.ZERO) {
        out.zero(sign);
        return;
      }
      a = ka === Kind.DENORMAL ? this.normalize(a, this.x) : a;
      b = kb === Kind.DENORMAL ? this.normalize(b, this.y) : b;
    }
    // 128-bit product of the significands, in four words.
    const { hi: ah, lo: al } = a;
    const { hi: bh, lo: bl } = b;
    let p3 = mulHigh(ah, bh);
    let p2: number;
    let p1: number;
    let sticky = 0;
    if ((al | bl) === 0) {
      p2 = Math.imul(ah, bh);
      p1 = 0;
    } else {
      const t1 = (mulHigh(al, bl) >>> 0) + (Math.imul(ah, bl) >>> 0) + (Math.imul(al, bh) >>> 0);
      const t2 = (mulHigh(ah, bl) >>> 0) + (mulHigh(al, bh) >>> 0) + (Math.imul(ah, bh) >>> 0) + Math.floor(t1 / 4294967296);
      p3 = (p3 + Math.floor(t2 / 4294967296)) | 0;
      p2 = t2 | 0;
      p1 = t1 | 0;
      sticky = Math.imul(al, bl) !== 0 ? 1 : 0;
    }
    let exp = a.exp + b.exp - BIAS + 1;
    if (p3 >= 0) {
      p3 = (p3 << 1) | (p2 >>> 31);
      p2 = (p2 << 1) | (p1 >>> 31);
      p1 <<= 1;
      exp--;
    }
    this.round(out, sign, exp, p3, p2, p1 | sticky, this.precision);
  }

  /** a / b. */
  divide(a: Float80, b: Float80, out: Float80): void {
    const ka = classify(a);
    const kb = classify(b);
    const sign = a.sign ^ b.sign;
    if ((ka | kb) !== Kind.NORMAL) {
      if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
        this.nan(a, b, out);
        return;
      }
      if (ka === kb && (ka === Kind.ZERO || ka === Kind.INFINITY)) {
        this.invalid(out);
        return;
      }
      if (kb === Kind.ZERO && ka !== Kind.INFINITY) {
        this.flags |= ZE;
        out.infinity(sign);
        return;
      }
      if ((ka === Kind.DENORMAL || kb === Kind.DENORMAL) && this.denormal()) return;
      if (ka === Kind.INFINITY) {
        out.infinity(sign);
        return;
      }
      if (ka === Kind.ZERO || kb === Kind.INFINITY) {
        out.zero(sign);
        return;
      }
      a = ka === Kind.DENORMAL ? this.normalize(a, this.x) : a;
      b = kb === Kind.DENORMAL ? this.normalize(b, this.y) : b;
    }
    let exp = a.exp - b.exp + BIAS - 1;
    let n2 = a.hi;
    let n1 = a.lo;
    let n0 = 0;
    // The quotient has its leading one in place when the dividend's significand is below the divisor's.
    if (this.compareSignificands(a, b) >= 0) {
      n0 = n1 << 31;
      n1 = (n1 >>> 1) | (n2 << 31);
      n2 >>>= 1;
      exp++;
    }
    const { hi: d1, lo: d0 } = b;
    const q1 = this.quotientWord(n2, n1, n0, d1, d0);
    const q0 = this.quotientWord(this.w0, this.w1, 0, d1, d0);
    const { w0: r1, w1: r0 } = this;
    // The bit below the last place: whether twice the remainder reaches the divisor.
    let ext = 0;
    if ((r1 | r0) !== 0) {
      const e0 = (r0 << 1) >>> 0;
      const e1 = (r1 >>> 0) * 2 + (r0 >>> 31);
      const order = e1 !== d1 >>> 0 ? e1 - (d1 >>> 0) : e0 - (d0 >>> 0);
      ext = order < 0 ? 1 : order === 0 ? TOP_BIT : TOP_BIT | 1;
    }
    this.round(out, sign, exp, q1, q0, ext, this.precision);
  }

  /** floor((n2:n1:n0) / (d1:d0)) for n2:n1 < d1:d0 and bit 31 of d1 set; the remainder goes to w0:w1. */
  private quotientWord(n2: number, n1: number, n0: number, d1: number, d0: number): number {
    const divisor = d1 >>> 0;
    let q = Math.floor(((n2 >>> 0) * 4294967296 + (n1 >>> 0)) / divisor);
    if (q > 4294967295) q = 4294967295;
    // remainder = n - q * d over three words; the estimate is too large by at most 3, never too small by more than 1.
    const pl = Math.imul(q | 0, d0) >>> 0;
    const pm = (mulHigh(q | 0, d0) >>> 0) + (Math.imul(q | 0, d1) >>> 0);
    const ph = (mulHigh(q | 0, d1) >>> 0) + (pm >= 4294967296 ? 1 : 0);
    let r0 = (n0 >>> 0) - pl;
    let r1 = (n1 >>> 0) - (pm >>> 0);
    let r2 = (n2 >>> 0) - ph;
    if (r0 < 0) {
      r0 += 4294967296;
      r1--;
    }
    if (r1 < 0) {
      r1 += 4294967296;
      r2--;
    }
    while (r2 < 0) {
      q--;
      r0 += d0 >>> 0;
      r1 += divisor;
      if (r0 >= 4294967296) {
        r0 -= 4294967296;
        r1++;
      }
      if (r1 >= 4294967296) {
        r1 -= 4294967296;
        r2++;
      }
    }
    while (r2 > 0 || r1 > divisor || (r1 === divisor && r0 >= d0 >>> 0)) {
      q++;
      r0 -= d0 >>> 0;
      r1 -= divisor;
      if (r0 < 0) {
        r0 += 4294967296;
        r1--;
      }
      if (r1 < 0) {
        r1 += 4294967296;
        r2--;
      }
    }
    this.w0 = r1 | 0;
    this.w1 = r0 | 0;
    return q | 0;
  }

  /** Square root. */
  squareRoot(a: Float80, out: Float80): void {
    const kind = classify(a);
    if (kind >= Kind.QNAN) {
      this.nan(a, a, out);
      return;
    }
    if (kind === Kind.ZERO || (kind === Kind.INFINITY && a.sign === 0)) {
      out.copy(a);
      return;
    }
    if (a.sign === 1) {
      this.invalid(out);
      return;
    }
    if (kind === Kind.DENORMAL && this.denormal()) return;
    const n = this.normalize(a, this.x);
    const odd = (n.exp - BIAS) & 1;
    const exp = (n.exp - BIAS - odd) / 2 + BIAS;
    // Two bits of the radicand a step; the remainder (at most 67 bits) and the root in two words and a carry each.
    let hi = n.hi;
    let lo = n.lo;
    let r2 = 0;
    let r1 = 0;
    let r0 = 0;
    let q1 = 0;
    let q0 = 0;
    // With an odd exponent the radicand is in [2, 4): take it as it stands; else it is one place lower.
    if (odd === 0) {
      lo = (lo >>> 1) | (hi << 31);
      hi >>>= 1;
    }
    const last = odd === 0 ? n.lo << 31 : 0;
    for (let step = 0; step < 65; step++) {
      r2 = (r2 << 2) | (r1 >>> 30);
      r1 = (r1 << 2) | (r0 >>> 30);
      r0 = (r0 << 2) | (hi >>> 30);
      hi = (hi << 2) | (lo >>> 30);
      lo <<= 2;
      if (step === 31) hi = last;
      // Trial subtrahend: 4 * root + 1.
      const t2 = q1 >>> 30;
      const t1 = (q1 << 2) | (q0 >>> 30);
      const t0 = (q0 << 2) | 1;
      const fits = r2 !== t2 ? r2 > t2 : r1 !== t1 ? r1 >>> 0 > t1 >>> 0 : r0 >>> 0 >= t0 >>> 0;
      if (step === 64) {
        // The 65th bit rounds.
        const ext =
          (fits ? TOP_BIT : 0) | (fits ? (((r2 - t2) | (r1 - t1) | (r0 - t0)) !== 0 ? 1 : 0) : (r2 | r1 | r0) !== 0 ? 1 : 0);
        this.round(out, 0, exp, q1, q0, ext, this.precision);
        return;
      }
      q1 = (q1 << 1) | (q0 >>> 31);
      q0 = (q0 << 1) | (fits ? 1 : 0);
      if (fits) {
        const d0 = (r0 >>> 0) - (t0 >>> 0);
        const d1 = (r1 >>> 0) - (t1 >>> 0) - (d0 < 0 ? 1 : 0);
        r2 = r2 - t2 - (d1 < 0 ? 1 : 0);
        r1 = d1 | 0;
        r0 = d0 | 0;
      }
    }
  }

  /**
   * Partial remainder: truncating (FPREM) or to nearest (FPREM1). Returns the condition codes: C2 set where the
   * reduction is incomplete, else the low bits of the quotient in C0, C3, C1; -1 where there is no quotient.
   */
  remainder(a: Float80, b: Float80, out: Float80, nearest: boolean): number {
    const ka = classify(a);
    const kb = classify(b);
    if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
      this.nan(a, b, out);
      return -1;
    }
    if (ka === Kind.INFINITY || kb === Kind.ZERO) {
      this.invalid(out);
      return -1;
    }
    if ((ka === Kind.DENORMAL || kb === Kind.DENORMAL) && this.denormal()) return -1;
    if (ka === Kind.ZERO) {
      out.copy(a);
      return 0;
    }
    const n = this.normalize(a, this.x);
    if (kb === Kind.INFINITY) {
      this.round(out, a.sign, n.exp, n.hi, n.lo, 0, 64);
      return 0;
    }
    const d = this.normalize(b, this.y);
    return this.reduce(a.sign, n, d, out, nearest);
  }

  private reduce(sign: number, n: Float80, d: Float80, out: Float80, nearest: boolean): number {
    const difference = n.exp - d.exp;
    if (difference < (nearest ? -1 : 0)) {
      this.round(out, sign, n.exp, n.hi, n.lo, 0, 64);
      return 0;
    }
    const { hi: d1, lo: d0 } = d;
    let r1 = n.hi;
    let r0 = n.lo;
    let over = 0;
    let quotient = 0;
    // An incomplete step takes off 32 to 63 bits of the difference, so that the rest is a multiple of 32.
    const partial = difference >= 64;
    const steps = partial ? (difference & 31) | 32 : difference;
    for (let i = 0; i <= steps; i++) {
      if (i > 0) {
        over = r1 >>> 31;
        r1 = (r1 << 1) | (r0 >>> 31);
        r0 <<= 1;
      }
      quotient <<= 1;
      if (over !== 0 || (r1 !== d1 ? r1 >>> 0 > d1 >>> 0 : r0 >>> 0 >= d0 >>> 0)) {
        const low = (r0 >>> 0) - (d0 >>> 0);
        r1 = (r1 - d1 - (low < 0 ? 1 : 0)) | 0;
        r0 = low | 0;
        over = 0;
        quotient |= 1;
      }
    }
    let exp = difference < 0 ? n.exp : partial ? n.exp - steps : d.exp;
    if (nearest && !partial) {
      // Twice the remainder against the divisor; below the divisor's exponent the dividend itself is the remainder.
      const twice1 = difference < 0 ? r1 >>> 0 : (r1 >>> 0) * 2 + (r0 >>> 31);
      const twice0 = difference < 0 ? r0 >>> 0 : (r0 << 1) >>> 0;
      const order = twice1 !== d1 >>> 0 ? twice1 - (d1 >>> 0) : twice0 - (d0 >>> 0);
      if (order > 0 || (order === 0 && (quotient & 1) === 1)) {
        quotient++;
        sign ^= 1;
        if (difference < 0) {
          // divisor - dividend where the dividend's exponent is one less: subtract at the dividend's scale.
          const low = ((d0 << 1) >>> 0) - (r0 >>> 0);
          const high = (d1 >>> 0) * 2 + (d0 >>> 31) - (r1 >>> 0) - (low < 0 ? 1 : 0);
          r1 = high | 0;
          r0 = low | 0;
        } else {
          const low = (d0 >>> 0) - (r0 >>> 0);
          r1 = (d1 - r1 - (low < 0 ? 1 : 0)) | 0;
          r0 = low | 0;
        }
      }
    }
    const codes = partial ? C2 : (quotient & 4 ? C0 : 0) | (quotient & 2 ? C3 : 0) | (quotient & 1 ? C1 : 0);
    if ((r1 | r0) === 0) {
      out.zero(sign);
      return codes;
    }
    while (r1 === 0) {
      r1 = r0;
      r0 = 0;
      exp -= 32;
    }
    const clz = Math.clz32(r1);
    if (clz > 0) {
      r1 = (r1 << clz) | (r0 >>> (32 - clz));
      r0 <<= clz;
      exp -= clz;
    }
    this.round(out, sign, exp, r1, r0, 0, 64);
    return codes;
  }

  /** Truncates toward zero to an integer of at most 17 bits, saturating: the scale of FSCALE. */
  private scaleCount(b: Float80): number {
    const places = b.exp - BIAS;
    if (places < 0) return 0;
    const size = places > 16 ? 0x1ffff : b.hi >>> (31 - places);
    return b.sign === 1 ? -size : size;
  }

  /** a * 2 ^ trunc(b). SDM 2, table 3-30 (FSCALE). */
  scale(a: Float80, b: Float80, out: Float80): void {
    const ka = classify(a);
    const kb = classify(b);
    if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
      this.nan(a, b, out);
      return;
    }
    if (kb === Kind.INFINITY && ((ka === Kind.INFINITY && b.sign === 1) || (ka === Kind.ZERO && b.sign === 0))) {
      this.invalid(out);
      return;
    }
    if ((ka === Kind.DENORMAL || kb === Kind.DENORMAL) && this.denormal()) return;
    if (ka === Kind.INFINITY || ka === Kind.ZERO) {
      out.copy(a);
      return;
    }
    if (kb === Kind.INFINITY) {
      if (b.sign === 1) out.zero(a.sign);
      else out.infinity(a.sign);
      return;
    }
    const n = this.normalize(a, this.x);
    const count = kb === Kind.NORMAL ? this.scaleCount(b) : 0;
    this.round(out, a.sign, n.exp + count, n.hi, n.lo, 0, 64);
  }

  /**
   * Splits into exponent (as a number) and significand in [1, 2). False where an unmasked exception stops it.
   * SDM 2, FXTRACT.
   */
  extract(a: Float80, exponent: Float80, significand: Float80): void {
    const kind = classify(a);
    if (kind >= Kind.QNAN) {
      this.nan(a, a, significand);
      exponent.copy(significand);
      return;
    }
    if (kind === Kind.INFINITY) {
      significand.copy(a);
      exponent.infinity(0);
      return;
    }
    if (kind === Kind.ZERO) {
      this.flags |= ZE;
      significand.copy(a);
      exponent.infinity(1);
      return;
    }
    if (kind === Kind.DENORMAL && this.denormal()) return;
    const n = this.normalize(a, this.x);
    this.fromInt32(n.exp - BIAS, exponent);
    significand.set(a.sign, BIAS, n.hi, n.lo);
  }

  /** A 32-bit integer as a value: always exact. */
  fromInt32(value: number, out: Float80): void {
    if (value === 0) {
      out.zero(0);
      return;
    }
    const size = Math.abs(value) | 0;
    const clz = Math.clz32(size);
    out.set(value < 0 ? 1 : 0, BIAS + 31 - clz, size << clz, 0);
  }

  /** Rounds to an integral value by RC. SDM 2, FRNDINT. */
  roundToInteger(a: Float80, out: Float80): void {
    const kind = classify(a);
    if (kind >= Kind.QNAN) {
      this.nan(a, a, out);
      return;
    }
    if (kind === Kind.DENORMAL && this.denormal()) return;
    if (kind === Kind.INFINITY || kind === Kind.ZERO || a.exp >= BIAS + 63) {
      out.copy(a);
      return;
    }
    this.integer(a, this.rounding);
    const { w0, w1 } = this;
    if ((w0 | w1) === 0) {
      out.zero(a.sign);
      return;
    }
    const n = this.normalize(this.x.set(a.sign, BIAS + 63, w0, w1), this.x);
    out.copy(n);
  }

  /**
   * Rounds a finite value below 2^64 to an integer magnitude in w0:w1, raising PE and setting C1's `up`. Returns 1 where
   * the magnitude became 2^64.
   */
  protected integer(a: Float80, rounding: number): number {
    const normal = this.normalize(a, this.x);
    this.shiftRight(normal.hi, normal.lo, 0, Math.max(BIAS + 63 - normal.exp, 0));
    const ext = this.w2;
    if (ext === 0) {
      this.up = 0;
      return 0;
    }
    this.flags |= PE;
    let up: boolean;
    if (rounding === Rounding.NEAREST) up = ext < 0 && (ext << 1 !== 0 || (this.w1 & 1) === 1);
    else up = rounding === Rounding.DOWN ? a.sign === 1 : rounding === Rounding.UP ? a.sign === 0 : false;
    this.up = up ? 1 : 0;
    if (!up) return 0;
    this.w1 = (this.w1 + 1) | 0;
    if (this.w1 !== 0) return 0;
    this.w0 = (this.w0 + 1) | 0;
    return this.w0 === 0 ? 1 : 0;
  }

  /** Compares: C3, C2, C0 as FCOM sets them. `quiet`: QNaNs are unordered without IE (FUCOM). */
  compare(a: Float80, b: Float80, quiet: boolean): number {
    const ka = classify(a);
    const kb = classify(b);
    if (ka >= Kind.QNAN || kb >= Kind.QNAN) {
      if (!quiet || ka > Kind.QNAN || kb > Kind.QNAN) this.flags |= IE;
      return C3 | C2 | C0;
    }
    if (ka === Kind.DENORMAL || kb === Kind.DENORMAL) this.denormal();
    if (ka === Kind.ZERO && kb === Kind.ZERO) return C3;
    if (ka === Kind.ZERO) return b.sign === 1 ? 0 : C0;
    if (kb === Kind.ZERO || a.sign !== b.sign) return a.sign === 1 ? C0 : 0;
    const x = ka === Kind.DENORMAL ? this.normalize(a, this.x) : a;
    const y = kb === Kind.DENORMAL ? this.normalize(b, this.y) : b;
    const order = x.exp !== y.exp ? x.exp - y.exp : this.compareSignificands(x, y);
    if (order === 0) return C3;
    return order < 0 === (a.sign === 0) ? C0 : 0;
  }

  /** FXAM's C3, C2, C0 for a register that is not empty. */
  examine(a: Float80): number {
    switch (classify(a)) {
      case Kind.ZERO:
        return C3;
      case Kind.DENORMAL:
        return C3 | C2;
      case Kind.NORMAL:
        return C2;
      case Kind.INFINITY:
        return C2 | C0;
      case Kind.UNSUPPORTED:
        return 0;
      default:
        return C0;
    }
  }
}
