/**
 * Constants of the transcendental functions as fixed-point BigInts, worked out once from their series, and the
 * 66-bit pi of argument reduction.
 */

/** Fractional bits of the stored constants. */
export const CONSTANT_BITS = 320n;
const GUARD = 32n;
const SCALE = CONSTANT_BITS + GUARD;

/** atan(1/n), or atanh(1/n) where `hyperbolic`, with SCALE fractional bits. */
function inverseTangent(n: bigint, hyperbolic: boolean): bigint {
  let term = (1n << SCALE) / n;
  let sum = term;
  const square = n * n;
  for (let k = 3n, minus = true; term !== 0n; k += 2n, minus = !minus) {
    term /= square;
    sum += minus && !hyperbolic ? -(term / k) : term / k;
  }
  return sum;
}

/** Pi, by Machin's formula. */
export const PI = (16n * inverseTangent(5n, false) - 4n * inverseTangent(239n, false)) >> GUARD;
/** ln 2 = 18 atanh(1/26) - 2 atanh(1/4801) + 8 atanh(1/8749). */
export const LN2 =
  (18n * inverseTangent(26n, true) - 2n * inverseTangent(4801n, true) + 8n * inverseTangent(8749n, true)) >> GUARD;
/** 1 / ln 2. */
export const LOG2_E = (1n << (2n * CONSTANT_BITS)) / LN2;

/**
 * The pi that reduces arguments of FSIN, FCOS, FSINCOS and FPTAN: 66 bits, 0.C90FDAA22168C234C * 4 (SDM 1, 8.3.8).
 * As an integer it has 66 fractional bits.
 */
export const PI66 = 0xc90fdaa22168c234cn;
export const PI66_BITS = 66;
