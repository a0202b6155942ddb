/**
 * Machine-check banks (SDM 3B, chapter 16). Nothing of this CPU breaks by itself: what the banks hold was put there by
 * a monitor, `injectMachineCheck`.
 */
import { MCA, PENDING, Pending, CR4 as STATE_CR4 } from '../../memory/vcpu-state.ts';
import { type Cpu, CR4, raise } from './cpu.ts';
import { MCG_CAP, MSR, msrSlot } from './msr-numbers.ts';

export const MCA_BANKS = 10;
/** MCG_CAP: the banks, MCG_CTL is there, software error recovery. */
const CAPABILITIES = MCA_BANKS | (1 << 8) | (1 << 24);
const BANKS_FIRST = 0x400;
const BANKS_END = BANKS_FIRST + MCA_BANKS * 4;
const Register = { CTL: 0, STATUS: 1, ADDR: 2, MISC: 3 } as const;

/** MCG_STATUS: a machine check is being served. */
const MCIP = 4;
/** Upper half of MCi_STATUS: valid, overflow, uncorrected. */
const STATUS = { VAL: 0x80000000 | 0, OVER: 1 << 30, UC: 1 << 29 } as const;

const slotOf = (msr: number): number => MCA + (msr - BANKS_FIRST) * 8;
const isBank = (msr: number): boolean => msr >= BANKS_FIRST && msr < BANKS_END;

/** All errors are reported. */
export function resetMachineCheck(cpu: Cpu): void {
  for (let bank = 0; bank < MCA_BANKS; bank++) cpu.u64[(MCA + bank * 32) >> 3] = 0xffffffffffffffffn;
  cpu.u64[(msrSlot(MSR.MCG_CTL) as number) >> 3] = 0xffffffffffffffffn;
}

/** RDMSR of these registers; undefined: another's. */
export function readMachineCheck(cpu: Cpu, msr: number): { low: number; high: number } | undefined {
  if (msr === MCG_CAP) return { low: CAPABILITIES, high: 0 };
  if (!isBank(msr)) return undefined;
  const at = slotOf(msr) >> 2;
  return { low: cpu.i32[at], high: cpu.i32[at + 1] };
}

/** WRMSR of these registers; false: another's. */
export function writeMachineCheck(cpu: Cpu, msr: number, low: number, high: number): boolean {
  // Control registers take all ones or all zeros, status registers zero (SDM 3B, 16.3.2).
  const allOrNothing = (low === 0 && high === 0) || (low === -1 && high === -1);
  if (msr === MSR.MCG_CTL && !allOrNothing) raise(13, 0);
  if (msr === MSR.MCG_STATUS && (high !== 0 || (low & ~7) !== 0)) raise(13, 0);
  if (!isBank(msr)) return false;
  const register = msr & 3;
  if (register === Register.CTL && !allOrNothing) raise(13, 0);
  if (register === Register.STATUS && (low | high) !== 0) raise(13, 0);
  const at = slotOf(msr) >> 2;
  cpu.i32[at] = low;
  cpu.i32[at + 1] = high;
  return true;
}

/** An error for a bank, as two halves each. */
export interface MachineCheck {
  readonly bank: number;
  readonly status: readonly [number, number];
  readonly mcgStatus: readonly [number, number];
  readonly address: readonly [number, number];
  readonly misc: readonly [number, number];
}

/**
 * Puts an error into a bank of a vCPU, from any thread. An uncorrected one raises #MC; gives `'shutdown'` where that
 * cannot be: CR4.MCE is clear, or the guest still serves the one before.
 */
export function injectMachineCheck(state: Int32Array, error: MachineCheck): 'done' | 'shutdown' {
  const at = (MCA + error.bank * 32) >> 2;
  const put = (register: number, [low, high]: readonly [number, number]): void => {
    state[at + register * 2] = low;
    state[at + register * 2 + 1] = high;
  };
  const [low, high] = error.status;
  const held = state[at + Register.STATUS * 2 + 1];
  const uncorrected = (high & STATUS.UC) !== 0;
  const over = (held & STATUS.VAL) !== 0 ? STATUS.OVER : 0;
  if (!uncorrected && over !== 0) {
    // What is there stays; it is only noted that there was more.
    state[at + Register.STATUS * 2 + 1] = held | STATUS.OVER;
    return 'done';
  }
  const mcg = (msrSlot(MSR.MCG_STATUS) as number) >> 2;
  if (uncorrected && ((state[mcg] & MCIP) !== 0 || (state[STATE_CR4 >> 2] & CR4.MCE) === 0)) return 'shutdown';
  put(Register.ADDR, error.address);
  put(Register.MISC, error.misc);
  put(Register.STATUS, [low, high | over | STATUS.VAL]);
  if (!uncorrected) return 'done';
  state[mcg] = error.mcgStatus[0] | MCIP;
  state[mcg + 1] = error.mcgStatus[1];
  Atomics.or(state, PENDING >> 2, Pending.MACHINE_CHECK);
  return 'done';
}
