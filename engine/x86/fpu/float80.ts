/**
 * 80-bit extended values and the rounding that all arithmetic ends in.
 *
 * Values are held unpacked: sign, biased exponent, and the 64-bit significand in two int32 halves, so that nothing
 * on the common path needs BigInt or allocates. A significand in progress has a third word: the bits below the last
 * place, whose lowest bit is sticky. SDM 1, 4.2 and 4.8 (formats), 4.9 and 8.5 (exceptions).
 */
import { DE, IE, OE, PE, UE, ZE } from './fpu-state.ts';

export const EXP_MAX = 0x7fff;
export const BIAS = 0x3fff;
/** 0x80000000 as an int32: the integer bit in the high word. */
export const TOP_BIT = -0x80000000;
/** What an unmasked overflow subtracts from, and an unmasked underflow adds to, the exponent (SDM 1, 8.5.4). */
export const WRAP = 0x6000;

/** Rounding modes, as the RC field encodes them. */
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** What a value is; see `classify`. */
export const Kind = { NORMAL: 0, ZERO: 1, DENORMAL: 2, INFINITY: 3, QNAN: 4, SNAN: 5, UNSUPPORTED: 6 } as const;

/** An unpacked value. `hi` and `lo` are int32. */
export class Float80 {
  sign = 0;
  exp = 0;
  hi = 0;
  lo = 0;
  /** Set where the value was converted from a denormal float or double, for which DE is due though it is normal here. */
  small = 0;

  set(sign: number, exp: number, hi: number, lo: number): this {
    this.sign = sign;
    this.exp = exp;
    this.hi = hi | 0;
    this.lo = lo | 0;
    this.small = 0;
    return this;
  }

  copy(from: Float80): this {
    this.sign = from.sign;
    this.exp = from.exp;
    this.hi = from.hi;
    this.lo = from.lo;
    this.small = from.small;
    return this;
  }

  /** The QNaN floating-point indefinite. */
  indefinite(): this {
    return this.set(1, EXP_MAX, 0xc0000000, 0);
  }

  zero(sign: number): this {
    return this.set(sign, 0, 0, 0);
  }

  infinity(sign: number): this {
    return this.set(sign, EXP_MAX, TOP_BIT, 0);
  }

  one(sign: number): this {
    return this.set(sign, BIAS, TOP_BIT, 0);
  }
}

/** Kind of a value. Pseudo-denormals count as denormals; unnormals, pseudo-NaNs and pseudo-infinities as unsupported (SDM 1, 8.2.2). */
export function classify(a: Float80): number {
  const { exp, hi } = a;
  if (hi < 0) {
    if (exp !== EXP_MAX) return exp !== 0 ? (a.small ? Kind.DENORMAL : Kind.NORMAL) : Kind.DENORMAL;
    if (hi === TOP_BIT && a.lo === 0) return Kind.INFINITY;
    return hi & 0x40000000 ? Kind.QNAN : Kind.SNAN;
  }
  if (exp !== 0) return Kind.UNSUPPORTED;
  return (hi | a.lo) === 0 ? Kind.ZERO : Kind.DENORMAL;
}

/** High 32 bits of the product of two unsigned words, as int32. Exact: the double's error is far below half of 2^32. */
export function mulHigh(a: number, b: number): number {
  return (((a >>> 0) * (b >>> 0) - (Math.imul(a, b) >>> 0)) / 4294967296 + 0.5) | 0;
}

/**
 * Rounding and exception state of one instruction: set the first three fields from the control word, clear `flags`,
 * run one operation, read `flags`. An operation whose exception is unmasked and precedes the result (invalid, zero
 * divide, denormal) leaves `out` undefined; `stopped` tells.
 */
export class FloatContext {
  /** RC field. */
  rounding = 0;
  /** Bits of significand that add, subtract, multiply, divide and square root round to: 24, 53 or 64. */
  precision = 64;
  /** Exception masks: a set bit masks. */
  masks = 0x3f;
  /** Exceptions raised. */
  flags = 0;
  /** 1 where the last rounding increased the magnitude: C1. */
  up = 0;
  /** Words of a shifted or multiplied significand. */
  protected w0 = 0;
  protected w1 = 0;
  protected w2 = 0;
  private inexact = 0;
  /** Control word that the fields above come from. */
  private control = -1;

  /** Sets the context from a control word; clears flags. PC = 01 is reserved and taken as 64 bits. */
  begin(control: number): void {
    this.flags = 0;
    this.up = 0;
    if (control === this.control) return;
    this.control = control;
    this.rounding = (control >> 10) & 3;
    const pc = (control >> 8) & 3;
    this.precision = pc === 0 ? 24 : pc === 2 ? 53 : 64;
    this.masks = control & 0x3f;
  }

  /** Whether an unmasked exception keeps the operation from giving a result. */
  get stopped(): boolean {
    return (this.flags & ~this.masks & (IE | DE | ZE)) !== 0;
  }

  /** Raises DE; true where it is unmasked, and the operation must end. */
  denormal(): boolean {
    this.flags |= DE;
    return (this.masks & DE) === 0;
  }

  /** Raises IE with its masked result. */
  invalid(out: Float80): void {
    this.flags |= IE;
    out.indefinite();
  }

  /** Shifts a 96-bit significand right by `count` >= 0 into w0, w1, w2; what falls out stays as the sticky bit. */
  protected shiftRight(hi: number, lo: number, ext: number, count: number): void {
    if (count === 0) {
      this.w0 = hi;
      this.w1 = lo;
      this.w2 = ext;
      return;
    }
    if (count < 32) {
      const left = 32 - count;
      this.w0 = hi >>> count;
      this.w1 = (lo >>> count) | (hi << left);
      this.w2 = (ext >>> count) | (lo << left) | (ext << left !== 0 ? 1 : 0);
    } else if (count < 64) {
      const by = count - 32;
      const lost = ext | (by === 0 ? 0 : lo << (32 - by));
      this.w0 = 0;
      this.w1 = hi >>> by;
      this.w2 = (by === 0 ? lo : (lo >>> by) | (hi << (32 - by))) | (lost !== 0 ? 1 : 0);
    } else if (count < 96) {
      const by = count - 64;
      const lost = ext | lo | (by === 0 ? 0 : hi << (32 - by));
      this.w0 = 0;
      this.w1 = 0;
      this.w2 = (hi >>> by) | (lost !== 0 ? 1 : 0);
    } else {
      this.w0 = 0;
      this.w1 = 0;
      this.w2 = (hi | lo | ext) !== 0 ? 1 : 0;
    }
  }

  /** Whether to increment, given the last place, the bit below it and whether anything lies below that. */
  private increments(sign: number, last: number, half: number, sticky: number): boolean {
    switch (this.rounding) {
      case Rounding.NEAREST:
        return half !== 0 && (sticky | last) !== 0;
      case Rounding.DOWN:
        return sign !== 0 && (half | sticky) !== 0;
      case Rounding.UP:
        return sign === 0 && (half | sticky) !== 0;
      default:
        return false;
    }
  }

  /** Rounds a significand to `precision` bits from bit 95 into `out`; sets `inexact` and `up`. Returns 1 on carry out. */
  private roundSignificand(out: Float80, sign: number, hi: number, lo: number, ext: number, precision: number): number {
    let up: boolean;
    if (precision === 64) {
      this.inexact = ext;
      if (ext === 0) {
        this.up = 0;
        out.hi = hi;
        out.lo = lo;
        return 0;
      }
      up = this.increments(sign, lo & 1, ext & TOP_BIT, ext << 1);
      if (up) {
        lo = (lo + 1) | 0;
        if (lo === 0) hi = (hi + 1) | 0;
      }
    } else if (precision === 53) {
      const below = lo & 0x3ff;
      this.inexact = (lo & 0x7ff) | ext;
      up = this.increments(sign, lo & 0x800, lo & 0x400, below | ext);
      lo &= ~0x7ff;
      if (up) {
        lo = (lo + 0x800) | 0;
        if (lo === 0) hi = (hi + 1) | 0;
      }
    } else {
      this.inexact = (hi & 0xff) | lo | ext;
      up = this.increments(sign, hi & 0x100, hi & 0x80, (hi & 0x7f) | lo | ext);
      hi &= ~0xff;
      lo = 0;
      if (up) hi = (hi + 0x100) | 0;
    }
    this.up = up ? 1 : 0;
    out.lo = lo;
    if (up && hi === 0 && lo === 0) {
      out.hi = TOP_BIT;
      return 1;
    }
    out.hi = hi;
    return 0;
  }

  /**
   * Rounds and packs a normalized significand (bit 31 of `hi` set) with a biased exponent that may be out of range;
   * raises overflow, underflow and precision. `max` is the exponent of infinity in the format.
   */
  round(out: Float80, sign: number, exp: number, hi: number, lo: number, ext: number, precision: number, max = EXP_MAX): void {
    out.sign = sign;
    out.small = 0;
    if (exp <= 0) {
      this.roundTiny(out, sign, exp, hi, lo, ext, precision);
      return;
    }
    const result = exp + this.roundSignificand(out, sign, hi, lo, ext, precision);
    if (this.inexact !== 0) this.flags |= PE;
    if (result < max) out.exp = result;
    else this.overflow(out, sign, result, precision, max);
  }

  private overflow(out: Float80, sign: number, exp: number, precision: number, max: number): void {
    this.flags |= OE;
    if ((this.masks & OE) === 0) {
      out.exp = exp - WRAP;
      // FSCALE can go too far for the wrapped exponent.
      if (out.exp >= EXP_MAX) {
        out.infinity(sign);
        this.flags |= PE;
        this.up = 1;
      }
      return;
    }
    this.flags |= PE;
    const { rounding } = this;
    const infinite =
      rounding === Rounding.NEAREST || (rounding === Rounding.DOWN && sign === 1) || (rounding === Rounding.UP && sign === 0);
    this.up = infinite ? 1 : 0;
    if (infinite) {
      out.exp = max;
      out.hi = TOP_BIT;
      out.lo = 0;
      return;
    }
    out.exp = max - 1;
    out.hi = precision === 24 ? ~0xff : -1;
    out.lo = precision === 24 ? 0 : precision === 53 ? ~0x7ff : -1;
  }

  /** Below the smallest normal number. Tininess is judged after rounding (SDM 1, 4.9.1.5). */
  private roundTiny(out: Float80, sign: number, exp: number, hi: number, lo: number, ext: number, precision: number): void {
    const carry = this.roundSignificand(out, sign, hi, lo, ext, precision);
    const tiny = exp + carry <= 0;
    if (tiny && (this.masks & UE) === 0) {
      this.flags |= this.inexact !== 0 ? UE | PE : UE;
      out.exp = exp + carry + WRAP;
      if (out.exp <= 0) {
        out.zero(sign);
        this.flags |= PE;
        this.up = 0;
      }
      return;
    }
    this.shiftRight(hi, lo, ext, 1 - exp);
    this.roundSignificand(out, sign, this.w0, this.w1, this.w2, precision);
    out.exp = out.hi < 0 ? 1 : 0;
    if (this.inexact !== 0) this.flags |= tiny ? UE | PE : PE;
  }

  /** A value with its leading one in bit 31 of `hi`; the exponent may go below 1. `a` itself where it is normal. */
  protected normalize(a: Float80, into: Float80): Float80 {
    if (a.hi < 0) {
      if (a.exp !== 0) return a;
      return into.set(a.sign, 1, a.hi, a.lo);
    }
    const clz = a.hi !== 0 ? Math.clz32(a.hi) : 32 + Math.clz32(a.lo);
    let hi = a.hi;
    let lo = a.lo;
    if (clz >= 32) {
      hi = lo << (clz - 32);
      lo = 0;
    } else if (clz > 0) {
      hi = (hi << clz) | (lo >>> (32 - clz));
      lo <<= clz;
    }
    return into.set(a.sign, (a.exp === 0 ? 1 : a.exp) - clz, hi, lo);
  }

  /** Compares significands as unsigned 64-bit numbers: negative, 0 or positive. */
  protected compareSignificands(a: Float80, b: Float80): number {
    const high = (a.hi >>> 0) - (b.hi >>> 0);
    return high !== 0 ? high : (a.lo >>> 0) - (b.lo >>> 0);
  }

  /**
   * The result where at least one operand is a NaN or unsupported (SDM 1, table 4-7): the QNaN of an SNaN and a QNaN,
   * else the larger significand, else the positive one.
   */
  nan(a: Float80, b: Float80, out: Float80): void {
    const ka = classify(a);
    const kb = classify(b);
    if (ka === Kind.UNSUPPORTED || kb === Kind.UNSUPPORTED) {
      this.invalid(out);
      return;
    }
    if (ka === Kind.SNAN || kb === Kind.SNAN) this.flags |= IE;
    let from: Float80;
    if (kb < Kind.QNAN) from = a;
    else if (ka < Kind.QNAN) from = b;
    else if (ka !== kb) from = ka === Kind.QNAN ? a : b;
    else {
      const order = this.compareSignificands(a, b);
      from = order > 0 || (order === 0 && a.sign === 0) ? a : b;
    }
    out.set(from.sign, EXP_MAX, from.hi | 0x40000000, from.lo);
  }
}
