/**
 * What the vector emitters share: the checks at the head of every instruction, operands as 128-bit values, constants.
 *
 * An MMX operand is a 128-bit value whose upper half is zero when read and does not matter when written, so that
 * one emitter serves both register files.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { FPU_BLOCK } from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, Vector } from './context.ts';
import { mmxCheck, mmxTouch } from './mmx-state.ts';

/** Bits of `FPU_BLOCK`. */
const SSE_UD = 1;
const DEVICE_NM = 2;
const MMX_UD = 4;

/** True where the instruction has an MMX operand. */
export const isMmx = (i: Instruction): boolean => i.form.row.operands.some(({ kind }) => 'PQN'.includes(kind));
/** True where operand `n` is an MMX register or the memory operand of that size class. */
export const isMmxOperand = (i: Instruction, n: number): boolean => 'PQN'.includes(i.form.row.operands[n].kind);

/** #UD and #NM by CR0.EM, CR0.TS and CR4.OSFXSR (SDM 3A, 2.5 and 13.1). */
function checkAvailable(i: Instruction, undefinedBit: number): void {
  const { b } = i;
  const block = b.and(b.state(FPU_BLOCK, 32), b.i32(undefinedBit | DEVICE_NM));
  b.if(block, () => {
    b.if(b.and(block, b.i32(undefinedBit)), () => b.raise(Vector.UD));
    b.raise(Vector.NM);
  });
}

/** Puts the checks that all vector instructions begin with before `emit`, and the MMX side effects after it. */
export const vector =
  (emit: Emitter): Emitter =>
  (i) => {
    const { operands } = i.form.row;
    const usesXmm = operands.some(({ kind }) => 'VWU'.includes(kind));
    // Conversions from memory touch no MMX register, and leave the x87 alone.
    const usesMmx = isMmx(i) && !(i.form.row.mnemonic.startsWith('CVTPI2') && i.form.memory);
    if (usesXmm) checkAvailable(i, SSE_UD);
    else checkAvailable(i, MMX_UD);
    if (usesMmx) mmxCheck(i.b);
    emit(i);
    if (usesMmx) mmxTouch(i.b);
  };

/** Applies `vector` to a record of emitters. */
export const vectors = (emitters: Record<string, Emitter>): Record<string, Emitter> =>
  Object.fromEntries(Object.entries(emitters).map(([name, emit]) => [name, vector(emit)]));

/** #GP(0) unless the memory operand is aligned to 16 bytes. */
export function checkAligned(i: Instruction): void {
  const { b } = i;
  b.if(b.and(b.wrap(i.address()), b.i32(15)), () => b.raise(Vector.GP));
}

/** Reads operand `n` as a vector, zero-extended to 128 bits; 128-bit memory must be aligned unless `anyAlignment`. */
export function readVector(i: Instruction, n: number, anyAlignment = false): Value {
  const { b } = i;
  const bits = i.bits(n);
  if (i.isMemory(n)) {
    if (bits === 128 && !anyAlignment) checkAligned(i);
    if (bits < 32) return b.op('i32x4.replace_lane', [zero(b), b.load(bits, i.address())], [0]);
    return b.load(bits, i.address(), false, 'v128');
  }
  // The registers behind narrow operands are read whole: less to tell apart, and what is above is not looked at.
  return b.getSlot(i.slot(n), isMmxOperand(i, n) ? 64 : 128, false, 'v128');
}

/** Writes a vector to operand `n`: its low part as far as the operand goes; what is above in a register keeps. */
export function writeVector(i: Instruction, n: number, value: Value, anyAlignment = false): void {
  const { b } = i;
  const bits = isMmxOperand(i, n) && !i.isMemory(n) ? 64 : i.bits(n);
  const part =
    bits === 128 ? value : bits === 64 ? b.op('i64x2.extract_lane', [value], [0]) : b.op('i32x4.extract_lane', [value], [0]);
  if (i.isMemory(n)) {
    if (bits === 128 && !anyAlignment) checkAligned(i);
    b.store(bits, i.address(), part);
  } else {
    b.putSlot(i.slot(n), bits, part);
    if (isMmxOperand(i, n)) mmxWritten(i, n);
  }
}

/** The exponent and sign of an MMX register that was written become ones (SDM 1, 9.5.1). */
export function mmxWritten(i: Instruction, n: number): void {
  i.b.putSlot(i.slot(n), 16, i.b.i32(0xffff), 8);
}

export const zero = (b: Builder): Value => b.v128(0n, 0n);

/** A vector constant from lanes of `bits` each, lowest first. */
export function lanes(b: Builder, bits: 8 | 16 | 32 | 64, values: readonly (number | bigint)[]): Value {
  let all = 0n;
  for (const [n, value] of values.entries()) all |= BigInt.asUintN(bits, BigInt(value)) << BigInt(n * bits);
  return b.v128(BigInt.asUintN(64, all), all >> 64n);
}

/** The immediate of operand `n` as an unsigned byte. */
export const immediate = (i: Instruction): Value => i.b.and(i.b.field('imm'), i.b.i32(0xff));

/** The value of a constant, or undefined. */
export const known = (value: Value): number | undefined =>
  value.by.op === 'const' ? Number(BigInt.asIntN(32, value.by.bits)) : undefined;

/** The lesser of a value and a constant, unsigned. */
export function atMost(b: Builder, value: Value, limit: number): Value {
  const constant = known(value);
  if (constant !== undefined) return b.i32(Math.min(constant >>> 0, limit));
  return b.select(b.ltU(value, b.i32(limit)), value, b.i32(limit));
}
