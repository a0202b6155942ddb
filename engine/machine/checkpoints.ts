/**
 * What the vCPU is like at certain instruction counts, as lines of the log: with `-icount` two runs, or two tiers, that are
 * the same say the same. test/differential/lockstep compares them.
 */
import * as S from '../memory/vcpu-state.ts';
import type { Cpu } from '../x86/system/cpu.ts';

/** Pieces of the state block that a hash covers besides registers and flags: segments, control and debug registers, x87, MSRs. */
const PIECES: readonly (readonly [number, number])[] = [
  [S.SEGMENTS, S.CR0],
  [S.CR0, S.CPL],
  [S.FPU, S.VECTOR],
  [S.MSRS, S.STATE_BYTES],
];

/** FNV-1a over words. */
function hash(cpu: Cpu): number {
  let sum = 0x811c9dc5;
  const add = (from: number, to: number): void => {
    for (let at = from >> 2; at < to >> 2; at++) sum = Math.imul(sum ^ cpu.i32[at], 0x01000193);
  };
  for (const [from, to] of PIECES) add(from, to);
  for (let n = 0; n < 16; n++) add(S.VECTOR + n * S.VECTOR_STRIDE, S.VECTOR + n * S.VECTOR_STRIDE + 32);
  return sum >>> 0;
}

const hex = (value: bigint): string => value.toString(16);

/** One line: count, RIP, flags, general registers, a hash of the rest. */
export function checkpoint(cpu: Cpu, count: number): string {
  const registers = Array.from({ length: 16 }, (_, n) => hex(cpu.u64[(S.GPR >> 3) + n]));
  const rip = hex(cpu.u64[S.NEXT_RIP >> 3]);
  return `vcpu_count ${count} rip ${rip} eflags ${cpu.eflags.toString(16)} gpr ${registers.join(' ')} rest ${hash(cpu).toString(16)}`;
}
