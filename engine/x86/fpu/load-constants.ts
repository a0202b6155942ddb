/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: 66-bit constants rounded by RC. SDM 1, 8.3.8; SDM 2, FLD1. */
import { type Float80, Rounding } from './float80.ts';

/** Exponent, significand rounded down, and whether rounding to nearest rounds up; none but 1 and 0 is exact. */
const CONSTANTS: readonly (readonly [number, number, number, boolean])[] = [
  [0x3fff, 0x80000000, 0x00000000, false],
  [0x4000, 0xd49a784b, 0xcd1b8afe, false],
  [0x3fff, 0xb8aa3b29, 0x5c17f0bb, true],
  [0x4000, 0xc90fdaa2, 0x2168c234, true],
  [0x3ffd, 0x9a209a84, 0xfbcff798, true],
  [0x3ffe, 0xb17217f7, 0xd1cf79ab, true],
  [0, 0, 0, false],
];

/** Constant `index` (the low bits of the opcode, 0 to 6) under rounding mode `rounding`. */
export function loadConstant(index: number, rounding: number, out: Float80): void {
  const [exp, high, low, nearestUp] = CONSTANTS[index];
  const inexact = index > 0 && index < 6;
  const up = inexact && (rounding === Rounding.UP || (rounding === Rounding.NEAREST && nearestUp));
  // No low word is all ones, so the increment does not carry.
  out.set(0, exp, high, low + (up ? 1 : 0));
}
