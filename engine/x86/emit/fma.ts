/**
 * Fused multiply-add and half-precision conversions (SDM 1, 14.4 and 14.5): the helper rounds once. The three digits in
 * a name tell which operands are multiplied, and which is added: 1 is the destination, 2 VEX.vvvv, 3 r/m.
 */
import type { Value } from '../../ir/builder.ts';
import { Fused } from '../fpu/sse-float.ts';
import type { Emitter, Instruction } from './context.ts';
import { halvesOf, immediate, readHalves, readVector, writeHalves } from './sse-context.ts';
import { callFloat, RESULT, resultHalves } from './sse-float-context.ts';

const SIGNS = {
  FMADD: 0,
  FMSUB: Fused.SUBTRACT,
  FNMADD: Fused.NEGATE_PRODUCT,
  FNMSUB: Fused.NEGATE_PRODUCT | Fused.SUBTRACT,
  FMADDSUB: Fused.SUBTRACT_EVEN,
  FMSUBADD: Fused.SUBTRACT_ODD,
} as const;

/** The destination's own halves. */
const destination = (i: Instruction, packed: boolean): Value[] =>
  (packed ? halvesOf(i) : [0]).map((half) => i.b.getSlot(i.slot(0), 128, false, 'v128', 16 * half));

const multiplyAdd =
  (signs: number, order: string, bits: 32 | 64, packed: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const third = packed ? readHalves(i, 1) : [readVector(i, 1)];
    const second = packed ? readHalves(i, 0) : [readVector(i, 0)];
    const operands = [destination(i, packed), second, third];
    const [x, y, z] = [...order].map((digit) => operands[Number(digit) - 1]);
    const count = packed ? (i.form.wide ? 256 : 128) / bits : 1;
    callFloat(i, 'FMA', bits, count, x, y, b.i32(signs), z);
    if (packed) {
      writeHalves(i, resultHalves(i));
      return;
    }
    // What is above the number is the destination's own.
    const lane = bits === 64 ? 'i64x2' : 'i32x4';
    const merged = b.op(`${lane}.replace_lane`, [operands[0][0], b.state(RESULT, bits)], [0]);
    writeHalves(i, [merged]);
  };

export const fused: Record<string, Emitter> = {
  VCVTPH2PS(i) {
    const y = readVector(i, 1);
    callFloat(i, 'FROM_HALF', 32, i.form.wide ? 8 : 4, y, y);
    writeHalves(i, resultHalves(i));
  },
};
for (const [name, signs] of Object.entries(SIGNS))
  for (const order of ['132', '213', '231'])
    for (const shape of ['PS', 'PD', 'SS', 'SD']) {
      if (name.length > 6 && shape[0] === 'S') continue;
      fused[`V${name}${order}${shape}`] = multiplyAdd(signs, order, shape[1] === 'S' ? 32 : 64, shape[0] === 'P');
    }

/** VCVTPS2PH, to a register or to memory of half the width. */
export const toHalves: Emitter = (i) => {
  const { b } = i;
  // A fault of the store comes before the flags in MXCSR.
  if (i.isMemory(0)) b.leave('probe_store', i.address(), b.i32(i.form.wide ? 16 : 8));
  callFloat(i, 'TO_HALF', 32, i.form.wide ? 8 : 4, readHalves(i, 1), readHalves(i, 1), immediate(i));
  const result = b.state(RESULT, 128);
  if (i.isMemory(0)) {
    if (i.form.wide) b.store(128, i.address(), result);
    else b.store(64, i.address(), b.state(RESULT, 64));
    return;
  }
  b.putSlot(i.slot(0), 128, result);
  b.putSlot(i.slot(0), 128, b.v128(0n, 0n), 16);
};
