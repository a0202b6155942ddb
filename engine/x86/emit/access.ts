/** What the record of a memory operand is to check and to add: span and direction for segment limits, RIP-relative offsets. */
import { RIP_BASE, RIP_CARRY } from '../../memory/vcpu-state.ts';
import type { Decoder } from '../decode/decoder.ts';
import { operandBits } from '../decode/rows.ts';
import { loadLength, storeLength } from '../fpu/x87-forms.ts';
import { areaBytes } from '../fpu/xsave.ts';

/** Rows whose first operand, memory, is only read. */
const READ_ONLY =
  /^(ARPL|CMP|TEST|PUSH_E|JMP_E|CALL_E|MUL|IMUL1|I?DIV|BT|NOP|LMSW|LLDT|LTR|VERR|VERW|V?LDMXCSR|LGDT|LIDT|FXRSTOR|XRSTORS?|INVLPG|CLFLUSH|CALL_FAR_M|JMP_FAR_M|CMPS|LEA)$/;
/** Memory images by name. */
const IMAGES: Readonly<Record<string, number>> = { FXSAVE: 512, FXRSTOR: 512, INVPCID: 16 };

/** Bytes that the decoded memory operand spans from its address, and whether they are written (1) or read (0). */
export function memoryAccess(decoder: Decoder): { bytes: number; write: 0 | 1 } {
  const { row, size, wide } = decoder;
  const { mnemonic } = row;
  if (mnemonic === 'X87') {
    const [opcode, modrm] = [decoder.imm >> 8, decoder.imm & 0xff];
    const stores = storeLength(opcode, modrm, size !== 16);
    return { bytes: Math.max(1, stores, loadLength(opcode, modrm, size !== 16)), write: stores > 0 ? 1 : 0 };
  }
  const index = row.operands.findIndex((operand) => 'EMOWQ'.includes(operand.kind));
  const write = index === 0 && !READ_ONLY.test(mnemonic) ? 1 : 0;
  const letter = row.operands[index]?.size ?? '';
  if (letter !== 'a') return { bytes: Math.max(8, operandBits(letter, size, wide)) / 8, write };
  // What is at an address alone the instruction looks at by itself, but for images of a known size.
  if (mnemonic === 'CMPXCHG8B') return { bytes: size === 64 ? 16 : 8, write };
  return { bytes: IMAGES[mnemonic] ?? (/^X(SAVE|RSTOR)/.test(mnemonic) ? areaBytes(0) : 1), write };
}

/** Makes a RIP-relative displacement one from the start of the page, in which the instruction is at `position`. */
export function placeDisplacement(decoder: Decoder, position: number): void {
  if (decoder.base !== RIP_BASE) return;
  const sum = decoder.disp + position;
  // What 32 bits do not hold is carried by the index, which no such operand has.
  if (sum > 0x7fffffff) decoder.index = RIP_CARRY;
  decoder.disp = sum | 0;
}
