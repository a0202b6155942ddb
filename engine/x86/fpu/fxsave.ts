/**
 * The x87 part of the FXSAVE image, and what MMX instructions do to the x87 state. SDM 1, 10.5.1 (layout); SDM 3,
 * "The MMX State and MMX Register Aliasing"; SDM 2, FXSAVE and FXRSTOR.
 *
 * MXCSR (bytes 24 to 31) and the XMM registers (from byte 160) are the caller's. The legacy area of an XSAVE image is
 * the same; its x87 component is what these functions touch.
 */
import { controlWord } from './environment.ts';
import { type FpuState, initialize, summarize, TOP_MASK, TOP_SHIFT } from './fpu-state.ts';

/** Bytes 0 to 23 and 32 to 159 of `image`. `wide`: REX.W, 64-bit pointers without selectors. */
export function saveX87(state: FpuState, image: DataView, wide: boolean): void {
  image.setUint16(0, state.control, true);
  image.setUint16(2, state.status, true);
  image.setUint16(4, state.valid & 0xff, true);
  image.setUint16(6, state.opcode, true);
  image.setUint32(8, state.ipLow, true);
  image.setUint32(12, wide ? state.ipHigh : state.ipSelector & 0xffff, true);
  image.setUint32(16, state.dpLow, true);
  image.setUint32(20, wide ? state.dpHigh : state.dpSelector & 0xffff, true);
  const top = state.status >> TOP_SHIFT;
  const to = new Uint8Array(image.buffer, image.byteOffset, 160);
  for (let i = 0; i < 8; i++) {
    const from = ((top + i) & 7) * 16;
    to.set(state.registers.subarray(from, from + 10), 32 + i * 16);
    to.fill(0, 42 + i * 16, 48 + i * 16);
  }
}

/** The reverse of `saveX87`. Nothing in the x87 part can fault. */
export function restoreX87(state: FpuState, image: DataView, wide: boolean): void {
  state.control = controlWord(image.getUint16(0, true));
  state.status = image.getUint16(2, true);
  state.valid = image.getUint8(4);
  state.opcode = image.getUint16(6, true) & 0x7ff;
  state.ipLow = image.getUint32(8, true);
  state.ipHigh = wide ? image.getUint32(12, true) : 0;
  state.ipSelector = wide ? 0 : image.getUint16(12, true);
  state.dpLow = image.getUint32(16, true);
  state.dpHigh = wide ? image.getUint32(20, true) : 0;
  state.dpSelector = wide ? 0 : image.getUint16(20, true);
  const top = state.status >> TOP_SHIFT;
  const from = new Uint8Array(image.buffer, image.byteOffset, 160);
  for (let i = 0; i < 8; i++) state.registers.set(from.subarray(32 + i * 16, 42 + i * 16), ((top + i) & 7) * 16);
  summarize(state);
}

/** The x87 component in its initial configuration, as XRSTOR sets it where its bit in XSTATE_BV is clear (SDM 1, 13.6). */
export function resetX87(state: FpuState): void {
  initialize(state);
  state.registers.fill(0);
}

/** Whether the x87 component is in its initial configuration, so that XSAVEOPT and XSAVEC may skip it. */
export function isInitial(state: FpuState): boolean {
  return (
    state.control === 0x037f &&
    state.status === 0 &&
    state.valid === 0 &&
    (state.opcode | state.ipLow | state.ipHigh | state.ipSelector | state.dpLow | state.dpHigh | state.dpSelector) === 0 &&
    state.registers.every((byte) => byte === 0)
  );
}

/** What every MMX instruction but EMMS does besides its work: TOP becomes 0 and all registers are tagged valid. */
export function enterMmx(state: FpuState): void {
  state.status &= ~TOP_MASK;
  state.valid = 0xff;
}

/** An MMX register was written: its sign and exponent become all ones. The significand is the caller's. */
export function wroteMmx(state: FpuState, register: number): void {
  state.registers[register * 16 + 8] = 0xff;
  state.registers[register * 16 + 9] = 0xff;
}

/** EMMS: all registers are empty, TOP is 0 (SDM 3, "The MMX State and MMX Register Aliasing"). */
export function emptyMmx(state: FpuState): void {
  state.status &= ~TOP_MASK;
  state.valid = 0;
}
