/** Model-specific registers that are kept as plain values, by address (SDM 4). */
import { MSRS } from '../../memory/vcpu-state.ts';
import type { Cpu } from './cpu.ts';

export const MSR = {
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  STAR: 0xc0000081,
  LSTAR: 0xc0000082,
  CSTAR: 0xc0000083,
  FMASK: 0xc0000084,
  KERNEL_GS_BASE: 0xc0000102,
  TSC_AUX: 0xc0000103,
  PAT: 0x277,
  MTRR_DEF_TYPE: 0x2ff,
  MISC_ENABLE: 0x1a0,
  TSC_ADJUST: 0x3b,
  KVM_WALL_CLOCK: 0x4b564d00,
  KVM_SYSTEM_TIME: 0x4b564d01,
  SMBASE: 0x9e,
  SPEC_CTRL: 0x48,
  DEBUGCTL: 0x1d9,
  MCG_CTL: 0x17b,
  MCG_STATUS: 0x17a,
  PKRS: 0x6e1,
} as const;
/** What the machine-check registers are; not kept, for it does not change. */
export const MCG_CAP = 0x179;

/** MTRRs of fixed ranges, and those of variable ranges: first and end. */
export const MTRR_FIXED: readonly number[] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
export const MTRR_VARIABLE = 0x200;
export const MTRR_VARIABLE_END = 0x210;
/** Those that came later lie last: saved states keep their places. */
const LATER: readonly number[] = [MSR.PKRS];
const KEPT: readonly number[] = [
  ...Object.values(MSR).filter((msr) => !LATER.includes(msr)),
  ...MTRR_FIXED,
  ...Array.from({ length: MTRR_VARIABLE_END - MTRR_VARIABLE }, (_, n) => MTRR_VARIABLE + n),
  ...LATER,
];

const slots = new Map<number, number>(KEPT.map((msr, n) => [msr, MSRS + n * 8]));

/** State offset of a kept MSR, or undefined. */
export const msrSlot = (msr: number): number | undefined => slots.get(msr);

/** A kept MSR as two signed halves. */
export function readMsr64(cpu: Cpu, msr: number): { low: number; high: number } {
  const at = (slots.get(msr) as number) >> 2;
  return { low: cpu.i32[at], high: cpu.i32[at + 1] };
}

export function writeMsr64(cpu: Cpu, msr: number, low: number, high: number): void {
  const at = (slots.get(msr) as number) >> 2;
  cpu.i32[at] = low;
  cpu.i32[at + 1] = high;
}
