/**
 * What a PC's BIOS leaves behind for the kernel that it started: interrupt controllers that are set up (IRQ 0 to 15 at
 * vectors 08h to 0Fh and 70h to 77h), the timer at 18.2 Hz, and a real-mode vector table whose entries end interrupts
 * and return; MTRRs. Kernels that go back to real mode without a BIOS of their own find a running machine.
 */
import type { Cpu } from '../x86/system/cpu.ts';
import { PHYSICAL_BITS } from '../x86/system/cpuid.ts';
import { MSR, writeMsr64 } from '../x86/system/msr-numbers.ts';
import type { Machine } from './machine.ts';

/** Where a BIOS has its IRET, by convention (IBM PC/AT technical reference, BIOS listing, F000:FF53). */
const IRET = 0xff53;
/** Ours for hardware interrupts of both controllers, in the same segment. */
const END_MASTER = 0xff60;
const END_SLAVE = 0xff70;
const SEGMENT = 0xf000;

const PUSH_AX_EOI = [0x50, 0xb0, 0x20];
const OUT_SLAVE = [0xe6, 0xa0];
const OUT_MASTER = [0xe6, 0x20];
const POP_AX_IRET = [0x58, 0xcf];

/** All MTRRs are on; what no other names is write-back. */
const MTRRS_ON = 0xc06;
const MTRR_VALID = 0x800;

/** Memory types as firmware sets them on every processor: Linux lets PAT alone where MTRRs are off. SDM 3A, 12.11. */
function setMemoryTypes(cpu: Cpu, lowRamBytes: number): void {
  for (const [first, last, types] of [
    [0x250, 0x258, 0x06060606],
    [0x268, 0x26f, 0x05050505],
  ])
    for (let msr = first; msr <= last; msr += first === 0x250 ? 8 : 1) writeMsr64(cpu, msr, types, types);
  // Devices below 4 GiB: uncached.
  const base = lowRamBytes <= 0xc0000000 ? 0xc0000000 : 0xe0000000;
  writeMsr64(cpu, 0x200, base | 0, 0);
  writeMsr64(cpu, 0x201, base | MTRR_VALID, (1 << (PHYSICAL_BITS - 32)) - 1);
  writeMsr64(cpu, MSR.MTRR_DEF_TYPE, MTRRS_ON, 0);
}

/** Sets it all up; the machine was just reset and its vCPUs do not run. */
export function leaveBios(machine: Machine, cpus: readonly Cpu[]): void {
  const { memory, pic, pit } = machine;
  for (const cpu of cpus) setMemoryTypes(cpu, machine.layout.lowRamBytes);
  const put = (at: number, bytes: readonly number[]): void => memory.write(SEGMENT * 16 + at, Uint8Array.from(bytes));
  put(IRET, [0xcf]);
  put(END_MASTER, [...PUSH_AX_EOI, ...OUT_MASTER, ...POP_AX_IRET]);
  put(END_SLAVE, [...PUSH_AX_EOI, ...OUT_SLAVE, ...OUT_MASTER, ...POP_AX_IRET]);
  for (let vector = 0; vector < 256; vector++) {
    const target = vector >= 8 && vector < 16 ? END_MASTER : vector >= 0x70 && vector < 0x78 ? END_SLAVE : IRET;
    memory.write32(vector * 4, (SEGMENT << 16) | target);
  }
  // ICW1 to ICW4, then the masks: timer, cascade and disk controllers are open (8259A data sheet).
  for (const [chip, base, cascade, mask] of [
    [pic.master, 0x08, 4, 0xb8],
    [pic.slave, 0x70, 2, 0x8f],
  ] as const) {
    chip.write(0, 1, 0x11);
    for (const value of [base, cascade, 1, mask]) chip.write(1, 1, value);
  }
  // Channel 0: mode 2, the longest count.
  pit.write(3, 1, 0x34);
  pit.write(0, 1, 0);
  pit.write(0, 1, 0);
}
