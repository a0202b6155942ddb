/**
 * Conversions between 80-bit extended values and what memory operands hold: float, double, 16-, 32- and 64-bit
 * integers, packed BCD. SDM 1, 4.2, 4.7 and 8.2.
 */
import { BIAS, classify, EXP_MAX, type Float80, Kind, Rounding, TOP_BIT } from './float80.ts';
import { IE } from './fpu-state.ts';
import { SoftFloat80 } from './softfloat80.ts';

/** 10^18: the first magnitude that packed BCD cannot hold, in two words. */
const BCD_LIMIT_HIGH = 0x0de0b6b3;
const BCD_LIMIT_LOW = 0xa7640000;

export class Convert80 extends SoftFloat80 {
  /** Results of conversions to memory formats: high and low words, int32. */
  high = 0;
  low = 0;

  /** Float bits to a value. NaNs keep their signalling bit and denormals are marked `small`: the operation decides. */
  fromFloat32(bits: number, out: Float80): void {
    const sign = bits >>> 31;
    const exp = (bits >>> 23) & 0xff;
    const fraction = bits & 0x7fffff;
    if (exp === 0) {
      if (fraction === 0) {
        out.zero(sign);
        return;
      }
      const clz = Math.clz32(fraction);
      out.set(sign, BIAS - 126 + 8 - clz, fraction << clz, 0);
      out.small = 1;
      return;
    }
    out.set(sign, exp === 0xff ? EXP_MAX : exp + (BIAS - 127), (fraction << 8) | TOP_BIT, 0);
  }

  /** Double bits to a value, as `fromFloat32`. */
  fromFloat64(high: number, low: number, out: Float80): void {
    const sign = high >>> 31;
    const exp = (high >>> 20) & 0x7ff;
    const top = high & 0xfffff;
    if (exp === 0) {
      if ((top | low) === 0) {
        out.zero(sign);
        return;
      }
      this.normalize(out.set(sign, BIAS - 1022, (top << 11) | (low >>> 21), low << 11), out);
      out.small = 1;
      return;
    }
    out.set(sign, exp === 0x7ff ? EXP_MAX : exp + (BIAS - 1023), (top << 11) | (low >>> 21) | TOP_BIT, low << 11);
  }

  /** Signed 64-bit integer to a value: always exact. */
  fromInt64(high: number, low: number, out: Float80): void {
    if (high === low >> 31) {
      this.fromInt32(low | 0, out);
      return;
    }
    const sign = high < 0 ? 1 : 0;
    let hi = high | 0;
    let lo = low | 0;
    if (sign === 1) {
      lo = -lo | 0;
      hi = (~hi + (lo === 0 ? 1 : 0)) | 0;
    }
    if (hi < 0) out.set(sign, BIAS + 63, hi, lo);
    else this.normalize(out.set(sign, BIAS + 63, hi, lo), out);
  }

  /** The smaller format's NaN, or false where `a` is neither NaN nor unsupported. */
  private narrowNan(a: Float80, kind: number, out: Float80): boolean {
    if (kind < Kind.QNAN) return false;
    if (kind === Kind.UNSUPPORTED) this.invalid(out);
    else {
      if (kind === Kind.SNAN) this.flags |= IE;
      out.set(a.sign, 0, a.hi | 0x40000000, a.lo);
    }
    return true;
  }

  /** Rounds to a float; its bits go to `low`. `t` is scratch. */
  toFloat32(a: Float80, t: Float80): void {
    const kind = classify(a);
    if (this.narrowNan(a, kind, t)) {
      this.low = (t.sign << 31) | 0x7f800000 | ((t.hi >>> 8) & 0x7fffff);
      return;
    }
    if (kind === Kind.ZERO || kind === Kind.INFINITY) {
      this.low = (a.sign << 31) | (kind === Kind.ZERO ? 0 : 0x7f800000);
      return;
    }
    const n = this.normalize(a, t);
    this.round(t, a.sign, n.exp - BIAS + 127, n.hi, n.lo, 0, 24, 0xff);
    this.low = (t.sign << 31) | (t.exp << 23) | ((t.hi >>> 8) & 0x7fffff);
  }

  /** Rounds to a double; its bits go to `high` and `low`. `t` is scratch. */
  toFloat64(a: Float80, t: Float80): void {
    const kind = classify(a);
    if (this.narrowNan(a, kind, t)) t.exp = 0x7ff;
    else if (kind === Kind.ZERO) t.zero(a.sign);
    else if (kind === Kind.INFINITY) t.set(a.sign, 0x7ff, TOP_BIT, 0);
    else {
      const n = this.normalize(a, t);
      this.round(t, a.sign, n.exp - BIAS + 1023, n.hi, n.lo, 0, 53, 0x7ff);
    }
    this.high = (t.sign << 31) | (t.exp << 20) | ((t.hi >>> 11) & 0xfffff);
    this.low = (t.hi << 21) | (t.lo >>> 11);
  }

  /**
   * Rounds to a signed integer of 16, 32 or 64 bits in `high`:`low`; out of range gives IE and the integer indefinite
   * (the most negative number). `truncate`: FISTTP.
   */
  toInteger(a: Float80, bits: 16 | 32 | 64, truncate: boolean): void {
    if (this.magnitude(a, truncate)) {
      const { sign } = a;
      let fits: boolean;
      if (bits === 64) fits = this.w0 >= 0 || (sign === 1 && this.w0 === TOP_BIT && this.w1 === 0);
      else {
        const limit = bits === 32 ? 0x80000000 : 0x8000;
        const size = this.w1 >>> 0;
        fits = this.w0 === 0 && (size < limit || (sign === 1 && size === limit));
      }
      if (fits) {
        this.low = sign === 1 ? -this.w1 | 0 : this.w1;
        this.high = sign === 1 ? (~this.w0 + (this.w1 === 0 ? 1 : 0)) | 0 : this.w0;
        return;
      }
    }
    this.flags = IE;
    this.up = 0;
    this.high = TOP_BIT;
    this.low = bits === 64 ? 0 : bits === 32 ? TOP_BIT : -0x8000;
  }

  /** Rounded magnitude in w0:w1; false where there is none below 2^64. */
  private magnitude(a: Float80, truncate: boolean): boolean {
    const kind = classify(a);
    if (kind >= Kind.INFINITY) return false;
    if (kind === Kind.ZERO) {
      this.w0 = 0;
      this.w1 = 0;
      return true;
    }
    if (a.exp > BIAS + 63) return false;
    return this.integer(a, truncate ? Rounding.ZERO : this.rounding) === 0;
  }

  /** Rounds to 18 packed BCD digits and a sign: 10 bytes at `at`. False (and IE) where out of range: the indefinite. */
  toBcd(a: Float80, bytes: Uint8Array, at: number): boolean {
    if (this.magnitude(a, false)) {
      const high = this.w0 >>> 0;
      const low = this.w1 >>> 0;
      if (high < BCD_LIMIT_HIGH || (high === BCD_LIMIT_HIGH && low < BCD_LIMIT_LOW)) {
        let value = (BigInt(high) << 32n) | BigInt(low);
        for (let i = 0; i < 9; i++) {
          const two = Number(value % 100n);
          value /= 100n;
          bytes[at + i] = (Math.floor(two / 10) << 4) | (two % 10);
        }
        bytes[at + 9] = a.sign << 7;
        return true;
      }
    }
    this.flags = IE;
    this.up = 0;
    bcdIndefinite(bytes, at);
    return false;
  }

  /** Packed BCD to a value. Digits above 9 count as what they are (undefined by the SDM). */
  fromBcd(bytes: Uint8Array, at: number, out: Float80): void {
    let value = 0n;
    for (let i = 8; i >= 0; i--) value = value * 100n + BigInt((bytes[at + i] >> 4) * 10 + (bytes[at + i] & 15));
    this.fromInt64(Number(value >> 32n), Number(BigInt.asIntN(32, value)), out);
    out.sign = bytes[at + 9] >> 7;
  }
}

/** The packed BCD integer indefinite. */
export function bcdIndefinite(bytes: Uint8Array, at: number): void {
  bytes.fill(0, at, at + 7);
  bytes[at + 7] = 0xc0;
  bytes[at + 8] = 0xff;
  bytes[at + 9] = 0xff;
}
