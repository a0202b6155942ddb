/**
 * Exact binary floating-point arithmetic by the rules of SSE (SDM 1, 4.8, 4.9, 11.5; IEEE 754-2008): every rounding
 * mode, DAZ and FTZ, NaNs, and all six exceptions. Numbers are bit patterns in BigInts: this is the last resort, for
 * what the translated code and the quick paths of `sse-float` leave over.
 */

/** Exception flags: the low six bits of MXCSR. */
export const IE = 1;
export const DE = 2;
export const ZE = 4;
export const OE = 8;
export const UE = 16;
export const PE = 32;
/** Found before the result is computed; an unmasked one keeps the others from being looked for. */
export const BEFORE = IE | DE | ZE;

export interface Format {
  /** Width of the fraction field. */
  readonly fraction: number;
  readonly bias: number;
  /** The exponent field of infinities and NaNs. */
  readonly special: number;
  readonly signBit: bigint;
  readonly quietBit: bigint;
  readonly fractionMask: bigint;
  readonly infinity: bigint;
  /** The "real indefinite": what an invalid operation gives. */
  readonly indefinite: bigint;
}

function format(bits: number, fraction: number): Format {
  const exponentBits = bits - 1 - fraction;
  const special = (1 << exponentBits) - 1;
  const infinity = BigInt(special) << BigInt(fraction);
  const signBit = 1n << BigInt(bits - 1);
  const quietBit = 1n << BigInt(fraction - 1);
  return {
    fraction,
    bias: special >> 1,
    special,
    signBit,
    quietBit,
    fractionMask: (1n << BigInt(fraction)) - 1n,
    infinity,
    indefinite: signBit | infinity | quietBit,
  };
}
export const F16 = format(16, 10);
export const F32 = format(32, 23);
export const F64 = format(64, 52);

export type Rounding = 0 | 1 | 2 | 3; // nearest even, down, up, toward zero

/** Fields of MXCSR that results depend on, and the flags of the instruction so far. */
export class FloatContext {
  rounding: Rounding = 0;
  daz = false;
  ftz = false;
  /** Exceptions that are masked, as flag bits. */
  masked = 0x3f;
  flags = 0;

  load(mxcsr: number): void {
    this.rounding = ((mxcsr >> 13) & 3) as Rounding;
    this.daz = (mxcsr & 0x40) !== 0;
    this.masked = (mxcsr >> 7) & 0x3f;
    // Flush to zero is a way to answer a masked underflow.
    this.ftz = (mxcsr & 0x8000) !== 0 && (this.masked & UE) !== 0;
    this.flags = 0;
  }

  // --- looking at numbers ---------------------------------------------------------------------------------------

  isNaN(f: Format, x: bigint): boolean {
    return (x & ~f.signBit) > f.infinity;
  }
  isSignaling(f: Format, x: bigint): boolean {
    return this.isNaN(f, x) && (x & f.quietBit) === 0n;
  }
  isInfinite(f: Format, x: bigint): boolean {
    return (x & ~f.signBit) === f.infinity;
  }
  isZero(f: Format, x: bigint): boolean {
    return (x & ~f.signBit) === 0n;
  }
  isDenormal(f: Format, x: bigint): boolean {
    const magnitude = x & ~f.signBit;
    return magnitude !== 0n && magnitude <= f.fractionMask;
  }
  /** The operand as the arithmetic sees it: with DAZ a denormal is a zero. */
  operand(f: Format, x: bigint): bigint {
    return this.daz && this.isDenormal(f, x) ? x & f.signBit : x;
  }
  /** Notes a denormal operand. */
  denormal(f: Format, ...operands: readonly bigint[]): void {
    for (const x of operands) if (this.isDenormal(f, x)) this.flags |= DE;
  }
  /** The NaN that an operation with NaN operands gives: the first of them, quieted (SDM 1, table 4-7). */
  propagate(f: Format, ...operands: readonly bigint[]): bigint {
    let chosen: bigint | undefined;
    for (const x of operands) {
      if (!this.isNaN(f, x)) continue;
      if (this.isSignaling(f, x)) this.flags |= IE;
      chosen ??= x | f.quietBit;
    }
    return chosen as bigint;
  }
  invalid(f: Format): bigint {
    this.flags |= IE;
    return f.indefinite;
  }

  /** Significand with the hidden bit, and the exponent of its lowest bit. */
  #unpack(f: Format, x: bigint): { significand: bigint; exponent: number } {
    const exponent = Number((x & ~f.signBit) >> BigInt(f.fraction));
    const fraction = x & f.fractionMask;
    if (exponent === 0) return { significand: fraction, exponent: 1 - f.bias - f.fraction };
    return { significand: fraction | (f.fractionMask + 1n), exponent: exponent - f.bias - f.fraction };
  }

  // --- rounding -------------------------------------------------------------------------------------------------

  /** Drops `shift` low bits by the rounding mode; says in `#inexact` whether any was one. */
  #inexact = false;
  #drop(negative: boolean, value: bigint, shift: number): bigint {
    if (shift <= 0) {
      this.#inexact = false;
      return value << BigInt(-shift);
    }
    const kept = value >> BigInt(shift);
    const rest = value - (kept << BigInt(shift));
    this.#inexact = rest !== 0n;
    if (rest === 0n) return kept;
    switch (this.rounding) {
      case 0: {
        const half = 1n << BigInt(shift - 1);
        return rest > half || (rest === half && (kept & 1n) !== 0n) ? kept + 1n : kept;
      }
      case 1:
        return negative ? kept + 1n : kept;
      case 2:
        return negative ? kept : kept + 1n;
      default:
        return kept;
    }
  }

  /**
   * Rounds `significand` * 2^`exponent` (not zero) to the format and notes overflow, underflow and inexactness. A
   * lowest bit of one may stand for more bits below, where at least two bits more than the format's are given.
   */
  round(f: Format, negative: boolean, significand: bigint, exponent: number): bigint {
    const sign = negative ? f.signBit : 0n;
    const least = 1 - f.bias;
    const lengthOf = (x: bigint): number => x.toString(2).length;
    const top = lengthOf(significand) - 1 + exponent;
    const precise = this.#drop(negative, significand, top - f.fraction - exponent);
    const inexact = this.#inexact;
    // Tiny is judged after rounding as if the exponent had no bounds (SDM 1, 4.9.1.5).
    const roundedTop = top + (precise > f.fractionMask * 2n + 1n ? 1 : 0);
    if (roundedTop < least) {
      const denormal = this.#drop(negative, significand, least - f.fraction - exponent);
      const lost = this.#inexact;
      if (this.ftz) {
        this.flags |= UE | PE;
        return sign;
      }
      // Unmasked, the bits that a denormal has no room for do not count as lost.
      if ((this.masked & UE) === 0) this.flags |= inexact ? UE | PE : UE;
      else if (lost) this.flags |= UE | PE;
      return sign | denormal;
    }
    if (roundedTop > f.bias) {
      this.flags |= (this.masked & OE) !== 0 || inexact ? OE | PE : OE;
      const toInfinity = this.rounding === 0 || (this.rounding === 1 && negative) || (this.rounding === 2 && !negative);
      return sign | (toInfinity ? f.infinity : f.infinity - 1n);
    }
    if (inexact) this.flags |= PE;
    // Where the value lies just below the least normal number, `precise` carries into it.
    if (top < least) return sign | (f.fractionMask + 1n);
    return sign + (BigInt(top + f.bias - 1) << BigInt(f.fraction)) + precise;
  }

  // --- arithmetic -----------------------------------------------------------------------------------------------

  add(f: Format, left: bigint, right: bigint): bigint {
    const x = this.operand(f, left);
    const y = this.operand(f, right);
    if (this.isNaN(f, x) || this.isNaN(f, y)) return this.propagate(f, x, y);
    if (this.isInfinite(f, x)) {
      if (this.isInfinite(f, y) && x !== y) return this.invalid(f);
      this.denormal(f, y);
      return x;
    }
    this.denormal(f, x, y);
    if (this.isInfinite(f, y)) return y;
    const u = this.#unpack(f, x);
    const v = this.#unpack(f, y);
    const exponent = Math.min(u.exponent, v.exponent);
    const a = u.significand << BigInt(u.exponent - exponent);
    const b = v.significand << BigInt(v.exponent - exponent);
    const sum = ((x & f.signBit) !== 0n ? -a : a) + ((y & f.signBit) !== 0n ? -b : b);
    if (sum === 0n) {
      // Equal signs keep theirs; an exact cancellation is +0, or -0 when rounding down.
      if ((x & f.signBit) === (y & f.signBit)) return x & f.signBit;
      return this.rounding === 1 ? f.signBit : 0n;
    }
    return this.round(f, sum < 0n, sum < 0n ? -sum : sum, exponent);
  }

  sub(f: Format, left: bigint, right: bigint): bigint {
    // The sign of a NaN stays.
    return this.add(f, left, this.isNaN(f, right) ? right : right ^ f.signBit);
  }

  mul(f: Format, left: bigint, right: bigint): bigint {
    const x = this.operand(f, left);
    const y = this.operand(f, right);
    if (this.isNaN(f, x) || this.isNaN(f, y)) return this.propagate(f, x, y);
    const sign = (x ^ y) & f.signBit;
    if (this.isInfinite(f, x) || this.isInfinite(f, y)) {
      if (this.isZero(f, x) || this.isZero(f, y)) return this.invalid(f);
      this.denormal(f, x, y);
      return sign | f.infinity;
    }
    this.denormal(f, x, y);
    if (this.isZero(f, x) || this.isZero(f, y)) return sign;
    const u = this.#unpack(f, x);
    const v = this.#unpack(f, y);
    return this.round(f, sign !== 0n, u.significand * v.significand, u.exponent + v.exponent);
  }

  /** left * right + addend, rounded once; the product or the addend negated first. NaNs keep their signs. */
  fused(f: Format, left: bigint, right: bigint, addend: bigint, negate: boolean, subtract: boolean): bigint {
    const x = this.operand(f, left);
    const y = this.operand(f, right);
    let z = this.operand(f, addend);
    const invalidProduct = (this.isInfinite(f, x) && this.isZero(f, y)) || (this.isZero(f, x) && this.isInfinite(f, y));
    if (this.isNaN(f, x) || this.isNaN(f, y) || this.isNaN(f, z)) return this.propagate(f, x, y, z);
    if (invalidProduct) return this.invalid(f);
    if (subtract) z ^= f.signBit;
    const sign = (x ^ y ^ (negate ? f.signBit : 0n)) & f.signBit;
    if (this.isInfinite(f, x) || this.isInfinite(f, y)) {
      if (this.isInfinite(f, z) && (z & f.signBit) !== sign) return this.invalid(f);
      this.denormal(f, x, y, z);
      return sign | f.infinity;
    }
    this.denormal(f, x, y, z);
    if (this.isInfinite(f, z)) return z;
    const u = this.#unpack(f, x);
    const v = this.#unpack(f, y);
    const w = this.#unpack(f, z);
    const product = u.significand * v.significand;
    const exponent = Math.min(u.exponent + v.exponent, w.exponent);
    const a = product << BigInt(u.exponent + v.exponent - exponent);
    const c = w.significand << BigInt(w.exponent - exponent);
    const sum = (sign !== 0n ? -a : a) + ((z & f.signBit) !== 0n ? -c : c);
    if (sum === 0n) {
      if (sign === (z & f.signBit)) return sign;
      return this.rounding === 1 ? f.signBit : 0n;
    }
    return this.round(f, sum < 0n, sum < 0n ? -sum : sum, exponent);
  }

  div(f: Format, left: bigint, right: bigint): bigint {
    const x = this.operand(f, left);
    const y = this.operand(f, right);
    if (this.isNaN(f, x) || this.isNaN(f, y)) return this.propagate(f, x, y);
    const sign = (x ^ y) & f.signBit;
    if (this.isInfinite(f, x)) {
      if (this.isInfinite(f, y)) return this.invalid(f);
      this.denormal(f, y);
      return sign | f.infinity;
    }
    if (this.isInfinite(f, y)) {
      this.denormal(f, x);
      return sign;
    }
    if (this.isZero(f, y)) {
      if (this.isZero(f, x)) return this.invalid(f);
      this.flags |= ZE;
      return sign | f.infinity;
    }
    this.denormal(f, x, y);
    if (this.isZero(f, x)) return sign;
    const u = this.#unpack(f, x);
    const v = this.#unpack(f, y);
    const extra = 2 * f.fraction + 4;
    const dividend = u.significand << BigInt(extra);
    const quotient = dividend / v.significand;
    const sticky = quotient * v.significand === dividend ? 0n : 1n;
    return this.round(f, sign !== 0n, (quotient << 1n) | sticky, u.exponent - v.exponent - extra - 1);
  }

  sqrt(f: Format, operand: bigint): bigint {
    const x = this.operand(f, operand);
    if (this.isNaN(f, x)) return this.propagate(f, x);
    if (this.isZero(f, x)) return x;
    if ((x & f.signBit) !== 0n) return this.invalid(f);
    if (this.isInfinite(f, x)) return x;
    this.denormal(f, x);
    let { significand, exponent } = this.#unpack(f, x);
    // Enough bits for the root, and an even exponent.
    let shift = 2 * f.fraction + 6;
    if (((exponent - shift) & 1) !== 0) shift++;
    significand <<= BigInt(shift);
    exponent -= shift;
    const root = integerRoot(significand);
    const sticky = root * root === significand ? 0n : 1n;
    return this.round(f, false, (root << 1n) | sticky, exponent / 2 - 1);
  }

  // --- conversions ----------------------------------------------------------------------------------------------

  fromInteger(f: Format, value: bigint): bigint {
    return value === 0n ? 0n : this.round(f, value < 0n, value < 0n ? -value : value, 0);
  }

  convert(from: Format, to: Format, operand: bigint): bigint {
    const x = this.operand(from, operand);
    const sign = (x & from.signBit) === 0n ? 0n : to.signBit;
    if (this.isNaN(from, x)) {
      if (this.isSignaling(from, x)) this.flags |= IE;
      const shift = BigInt(Math.abs(to.fraction - from.fraction));
      const fraction = x & from.fractionMask;
      return sign | to.infinity | to.quietBit | (to.fraction > from.fraction ? fraction << shift : fraction >> shift);
    }
    if (this.isInfinite(from, x)) return sign | to.infinity;
    if (this.isZero(from, x)) return sign;
    this.denormal(from, x);
    const { significand, exponent } = this.#unpack(from, x);
    return this.round(to, sign !== 0n, significand, exponent);
  }

  /** To a signed integer of `bits`; what does not fit gives the least one ("integer indefinite"). */
  toInteger(f: Format, operand: bigint, bits: 32 | 64, truncate: boolean): bigint {
    const x = this.operand(f, operand);
    const indefinite = -(1n << BigInt(bits - 1));
    const { significand, exponent } = this.#unpack(f, x);
    if (this.isNaN(f, x) || this.isInfinite(f, x) || exponent > 64) {
      this.flags |= IE;
      return indefinite;
    }
    const negative = (x & f.signBit) !== 0n;
    const rounding = this.rounding;
    if (truncate) this.rounding = 3;
    const magnitude = this.#drop(negative, significand, -exponent);
    this.rounding = rounding;
    const value = negative ? -magnitude : magnitude;
    if (value < indefinite || value >= -indefinite) {
      this.flags |= IE;
      return indefinite;
    }
    if (this.#inexact) this.flags |= PE;
    return value;
  }

  /** To an integral value in the same format. `control` is the instruction's: bits 1:0 mode, 2: MXCSR's mode, 3: quiet. */
  toIntegral(f: Format, operand: bigint, control: number): bigint {
    const x = this.operand(f, operand);
    if (this.isNaN(f, x)) return this.propagate(f, x);
    const { significand, exponent } = this.#unpack(f, x);
    if (this.isInfinite(f, x) || this.isZero(f, x) || exponent >= 0) return x;
    const sign = x & f.signBit;
    const rounding = this.rounding;
    if ((control & 4) === 0) this.rounding = (control & 3) as Rounding;
    const magnitude = this.#drop(sign !== 0n, significand, -exponent);
    this.rounding = rounding;
    if (this.#inexact && (control & 8) === 0) this.flags |= PE;
    if (magnitude === 0n) return sign;
    const flags = this.flags;
    const result = this.round(f, sign !== 0n, magnitude, 0);
    this.flags = flags;
    return result;
  }

  // --- comparison -----------------------------------------------------------------------------------------------

  /** -1 less, 0 equal, 1 greater, 2 unordered. `signal`: a quiet NaN is invalid too. */
  compare(f: Format, left: bigint, right: bigint, signal: boolean): -1 | 0 | 1 | 2 {
    const x = this.operand(f, left);
    const y = this.operand(f, right);
    if (this.isNaN(f, x) || this.isNaN(f, y)) {
      if (signal || this.isSignaling(f, x) || this.isSignaling(f, y)) this.flags |= IE;
      return 2;
    }
    this.denormal(f, x, y);
    const order = (v: bigint): bigint => ((v & f.signBit) !== 0n ? -(v & ~f.signBit) : v);
    const [a, b] = [order(x), order(y)];
    return a < b ? -1 : a > b ? 1 : 0;
  }
}

/** Floor of the square root. */
function integerRoot(value: bigint): bigint {
  let root = 1n << BigInt((value.toString(2).length + 1) >> 1);
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}
