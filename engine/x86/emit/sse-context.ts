/**
 * What the vector emitters share: the checks at the head of every instruction, operands as 128-bit values, constants.
 *
 * An MMX operand is a 128-bit value whose upper half is zero when read and does not matter when written, so that
 * one emitter serves both register files.
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { FPU_BLOCK, VECTOR } from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, Vector } from './context.ts';
import { mmxCheck, mmxTouch } from './mmx-state.ts';

/** Bits of `FPU_BLOCK`. */
const SSE_UD = 1;
const DEVICE_NM = 2;
const MMX_UD = 4;
const AVX_UD = 8;

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

/** #UD unless the system has enabled AVX (CR4.OSXSAVE, XCR0), #NM with CR0.TS (SDM 1, 14.8; SDM 2, 2.4). */
export const checkAvx = (i: Instruction): void => checkAvailable(i, AVX_UD);

/** The halves of the vectors of this form. */
export const halvesOf = (i: Instruction): readonly (0 | 1)[] => (i.form.wide ? [0, 1] : [0]);

/** Reads operand `n` as 128-bit halves, one or two. */
export function readHalves(i: Instruction, n: number, anyAlignment = false): Value[] {
  const values = halvesOf(i).map((half) => {
    i.half = half;
    return readVector(i, n, anyAlignment);
  });
  i.half = 0;
  return values;
}
/** Writes what `readHalves` gave. */
export function writeHalves(i: Instruction, values: readonly Value[]): void {
  for (const [half, value] of values.entries()) {
    i.half = half as 0 | 1;
    writeVector(i, 0, value);
  }
  i.half = 0;
}
/** Writes the low `bits` of the destination; the rest of its low half is the first source's, or keeps. */
export function writeScalar(i: Instruction, bits: 32 | 64, value: Value): void {
  const { b } = i;
  if (i.results === undefined) b.putSlot(i.slot(0), bits, value);
  else b.set(i.results[0], b.op(`${SCALARS[value.type] ?? value.type}.replace_lane`, [readVector(i, 0), value], [0]));
}
const SCALARS: Readonly<Record<string, string>> = { i32: 'i32x4', i64: 'i64x2', f32: 'f32x4', f64: 'f64x2' };

/** #GP(0) unless the memory operand is aligned to 16 bytes. */
export function checkAligned(i: Instruction): void {
  const { b } = i;
  b.if(b.and(b.wrap(i.address()), b.i32(15)), () => b.raise(Vector.GP));
}

/** Reads operand `n` as a vector, zero-extended to 128 bits; 128-bit memory must be aligned unless `anyAlignment`. */
export function readVector(i: Instruction, n: number, anyAlignment = false): Value {
  const { b } = i;
  const { row } = i.form;
  if (n === 0 && row.first !== undefined) return b.getSlot(i.slotOf(row.first), 128, false, 'v128', 16 * i.half);
  const bits = i.bits(n);
  const offset = row.operands[n].size === 'x' ? 16 * i.half : 0;
  if (i.isMemory(n)) {
    if (bits === 128 && !anyAlignment && !row.vex) checkAligned(i);
    const address = offset === 0 ? i.address() : b.add(i.address(), b.i64(offset));
    if (bits < 32) return b.op('i32x4.replace_lane', [zero(b), b.load(bits, address)], [0]);
    return b.load(bits, address, false, 'v128');
  }
  // The registers behind narrow operands are read whole: less to tell apart, and what is above is not looked at.
  return b.getSlot(i.slot(n), isMmxOperand(i, n) ? 64 : 128, false, 'v128', offset);
}

/** Writes a vector to operand `n`: its low part as far as the operand goes; what is above in a register keeps. */
export function writeVector(i: Instruction, n: number, value: Value, anyAlignment = false): void {
  const { b } = i;
  if (i.results !== undefined) {
    b.set(i.results[i.half], value);
    return;
  }
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

/** The immediate where each half of a wide vector has `bits` of it to itself. */
export const halfImmediate = (i: Instruction, bits: number): Value =>
  i.half === 0 ? immediate(i) : i.b.shrU(immediate(i), i.b.i32(bits));

/** The register whose lanes' top bits choose for a variable blend: XMM0, or the fourth operand of the VEX forms. */
export const blendMask = (i: Instruction): Value =>
  i.form.row.vex ? i.b.getSlot(i.slot(2), 128, false, 'v128', 16 * i.half) : i.b.state(VECTOR, 128);

/** The value of a constant, or undefined. */
export const known = (value: Value): number | undefined =>
  value.by.op === 'const' ? Number(BigInt.asIntN(32, value.by.bits)) : undefined;

/** The lesser of a value and a constant, unsigned. */
export function atMost(b: Builder, value: Value, limit: number): Value {
  const constant = known(value);
  if (constant !== undefined) return b.i32(Math.min(constant >>> 0, limit));
  return b.select(b.ltU(value, b.i32(limit)), value, b.i32(limit));
}
