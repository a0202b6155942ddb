/**
 * What a PC's BIOS leaves behind for the kernel that it started: interrupt controllers that are set up (IRQ 0 to 15 at
 * vectors 08h to 0Fh and 70h to 77h), the timer at 18.2 Hz, and a real-mode vector table whose entries end interrupts
 * and return. Kernels that go back to real mode without a BIOS of their own find a running machine.
 */
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

/** Sets it all up; the machine was just reset and its vCPUs do not run. */
export function leaveBios(machine: Machine): void {
  const { memory, pic, pit } = machine;
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
