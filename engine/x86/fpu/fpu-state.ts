/**
 * The x87 and MMX state, as it lies in the vCPU's state block at `FPU` (memory/vcpu-state).
 *
 * Registers are the eight *physical* ones, R0 to R7 (ST(i) is R[(TOP + i) & 7], MMi is Ri), 16 bytes each:
 * 64-bit significand at +0, sign and exponent (16 bits) at +8. So an MMX register is a 64-bit load at its slot.
 */
import { bytes, struct, u32, type View } from '../../memory/struct.ts';

/** Bits of the status word (SDM 1, 8.1.3); the exception bits are the same in the control word, where set means masked. */
export const IE = 0x01;
export const DE = 0x02;
export const ZE = 0x04;
export const OE = 0x08;
export const UE = 0x10;
export const PE = 0x20;
export const SF = 0x40;
export const ES = 0x80;
export const C0 = 0x100;
export const C1 = 0x200;
export const C2 = 0x400;
export const TOP_SHIFT = 11;
export const TOP_MASK = 0x3800;
export const C3 = 0x4000;
export const BUSY = 0x8000;
/** The six exceptions. */
export const EXCEPTIONS = 0x3f;
/** Condition codes. */
export const CC = C0 | C1 | C2 | C3;

/** Control word after FNINIT (SDM 1, 8.1.5). */
export const INITIAL_CONTROL = 0x037f;
/** Control word after power-up or reset (SDM 3, table 10-1); FINIT differs. */
export const RESET_CONTROL = 0x0040;

/** Field specs of the x87 state, in layout order: registers come first. Spread them into a struct, or use `fpuStruct`. */
export const fpuFields = {
  /** R0 to R7, 16 bytes each. */
  registers: bytes(128),
  control: u32,
  /** Status word, TOP inside. */
  status: u32,
  /** Abridged tags as in FXSAVE: bit n set where Rn is not empty. */
  valid: u32,
  /** Opcode of the last non-control instruction: low 3 bits of its first byte, then its ModRM byte (11 bits). */
  opcode: u32,
  /** Last instruction and data pointers: offset (64 bits in two words) and selector. */
  ipLow: u32,
  ipHigh: u32,
  ipSelector: u32,
  dpLow: u32,
  dpHigh: u32,
  dpSelector: u32,
} as const;

/** The x87 state as a struct. */
export const fpuStruct = struct('fpu', 1, fpuFields);
export type FpuState = View<typeof fpuFields>;

/** What FNINIT does (SDM 2, FINIT): the registers keep their bits, all are tagged empty. */
export function initialize(state: FpuState): void {
  state.control = INITIAL_CONTROL;
  state.status = 0;
  state.valid = 0;
  state.opcode = 0;
  state.ipLow = 0;
  state.ipHigh = 0;
  state.ipSelector = 0;
  state.dpLow = 0;
  state.dpHigh = 0;
  state.dpSelector = 0;
}

/** Power-up or RESET (SDM 3, table 10-1): registers +0.0, control word 0x40, tags 'zero' (none empty). INIT leaves the x87 alone. */
export function powerUp(state: FpuState): void {
  initialize(state);
  state.registers.fill(0);
  state.control = RESET_CONTROL;
  state.valid = 0xff;
}

/** Recomputes ES and B, which say that an exception flag is set whose mask bit is clear (SDM 1, 8.1.3.3). */
export function summarize(state: FpuState): void {
  const status = state.status & ~(ES | BUSY) & 0xffff;
  state.status = status & ~state.control & EXCEPTIONS ? status | ES | BUSY : status;
}

/** Whether a waiting x87, MMX or WAIT instruction must report #MF (or IRQ 13 where CR0.NE is 0) before it runs. */
export function isPending(state: FpuState): boolean {
  return (state.status & ES) !== 0;
}
