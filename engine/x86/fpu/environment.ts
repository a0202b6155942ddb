/**
 * The x87 environment and state in memory: FNSTENV, FLDENV, FNSAVE, FRSTOR. SDM 1, 8.1.10, figures 8-9 to 8-12;
 * full tags, SDM 1, 8.1.7.
 */
import { type FpuState, summarize, TOP_SHIFT } from './fpu-state.ts';

/** Which of the four formats: operand size not 16 bits; real-address or virtual-8086 mode. */
export interface EnvironmentFormat {
  readonly wide: boolean;
  readonly real: boolean;
}

/** The 16-bit tag word: for each physical register 0 valid, 1 zero, 2 special, 3 empty. */
export function fullTags(state: FpuState): number {
  const { registers, valid } = state;
  let tags = 0;
  for (let n = 7; n >= 0; n--) {
    let tag = 3;
    if ((valid >> n) & 1) {
      const at = n * 16;
      const exp = (registers[at + 8] | (registers[at + 9] << 8)) & 0x7fff;
      const integerBit = registers[at + 7] >> 7;
      if (exp === 0x7fff) tag = 2;
      else if (exp === 0) tag = registers.subarray(at, at + 8).every((byte) => byte === 0) ? 1 : 2;
      else tag = integerBit === 1 ? 0 : 2;
    }
    tags = (tags << 2) | tag;
  }
  return tags;
}

/** Abridged tags of a full tag word: only whether each is empty matters. */
export function abridgeTags(tags: number): number {
  let valid = 0;
  for (let n = 0; n < 8; n++) if (((tags >> (2 * n)) & 3) !== 3) valid |= 1 << n;
  return valid;
}

/** Writes the environment to the start of `to`: 14 or 28 bytes. */
export function storeEnvironment(state: FpuState, to: DataView, { wide, real }: EnvironmentFormat): void {
  const { control, status, opcode } = state;
  const tags = fullTags(state);
  const ip = real ? (state.ipLow + (state.ipSelector << 4)) >>> 0 : state.ipLow;
  const dp = real ? (state.dpLow + (state.dpSelector << 4)) >>> 0 : state.dpLow;
  if (wide) {
    to.setUint32(0, 0xffff0000 | control, true);
    to.setUint32(4, 0xffff0000 | status, true);
    to.setUint32(8, 0xffff0000 | tags, true);
    if (real) {
      to.setUint32(12, 0xffff0000 | ip, true);
      to.setUint32(16, ((ip >>> 16) << 12) | opcode, true);
      to.setUint32(20, 0xffff0000 | dp, true);
      to.setUint32(24, (dp >>> 16) << 12, true);
    } else {
      to.setUint32(12, ip, true);
      to.setUint32(16, (opcode << 16) | (state.ipSelector & 0xffff), true);
      to.setUint32(20, dp, true);
      to.setUint32(24, 0xffff0000 | state.dpSelector, true);
    }
    return;
  }
  to.setUint16(0, control, true);
  to.setUint16(2, status, true);
  to.setUint16(4, tags, true);
  to.setUint16(6, ip, true);
  to.setUint16(8, real ? (((ip >>> 16) & 15) << 12) | opcode : state.ipSelector, true);
  to.setUint16(10, dp, true);
  to.setUint16(12, real ? ((dp >>> 16) & 15) << 12 : state.dpSelector, true);
}

/** Loads the environment from the start of `from`. ES follows from the flags and masks, whatever the image says. */
export function loadEnvironment(state: FpuState, from: DataView, { wide, real }: EnvironmentFormat): void {
  const step = wide ? 4 : 2;
  const word = (index: number): number => from.getUint16(index * step, true);
  const offset = (index: number): number => (wide ? from.getUint32(index * step, true) : from.getUint16(index * step, true));
  state.control = controlWord(word(0));
  state.status = word(1);
  state.valid = abridgeTags(word(2));
  if (real) {
    state.ipLow = (word(3) | ((offset(4) >>> 12) << 16)) >>> 0;
    state.opcode = word(4) & 0x7ff;
    state.ipSelector = 0;
    state.dpLow = (word(5) | ((offset(6) >>> 12) << 16)) >>> 0;
    state.dpSelector = 0;
  } else {
    state.ipLow = offset(3);
    state.ipSelector = word(4);
    // The 16-bit protected format has no room for the opcode.
    state.opcode = wide ? from.getUint16(18, true) & 0x7ff : 0;
    state.dpLow = offset(5);
    state.dpSelector = word(6);
  }
  state.ipHigh = 0;
  state.dpHigh = 0;
  summarize(state);
}

/** The control word as the register keeps it: bit 6 is always set, bits 7 and 13 to 15 are clear. */
export function controlWord(value: number): number {
  return (value & 0x1f3f) | 0x40;
}

/** Writes the registers ST(0) to ST(7), 80 bytes, at `at`. */
export function storeRegisters(state: FpuState, to: Uint8Array, at: number): void {
  const top = state.status >> TOP_SHIFT;
  for (let i = 0; i < 8; i++) {
    const from = ((top + i) & 7) * 16;
    to.set(state.registers.subarray(from, from + 10), at + i * 10);
  }
}

/** Loads the registers ST(0) to ST(7) from 80 bytes at `at`; TOP is that of the state now. */
export function loadRegisters(state: FpuState, from: Uint8Array, at: number): void {
  const top = state.status >> TOP_SHIFT;
  for (let i = 0; i < 8; i++) {
    state.registers.set(from.subarray(at + i * 10, at + i * 10 + 10), ((top + i) & 7) * 16);
  }
}
