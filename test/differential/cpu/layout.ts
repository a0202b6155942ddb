/** Where things lie for both sides: the case and outcome blocks that `harness.c` reads and writes, and the addresses code sees. */

/** Code: a slot a case, INT3 all around it. Slots straddle pages now and then. */
export const CODE = 0x400000;
export const CODE_BYTES = 0x40000;
export const SLOT = 72;
export const SLOT_CODE = 16;
/** Where code always finds breakpoints: before the first case. */
export const LANDING: number = CODE + 8;
/** Memory operands: two pages that may be written, one that may only be read, nothing before and after. */
export const DATA = 0x600000;
export const DATA_BYTES = 0x2000;
export const READ_BYTES = 0x1000;
export const AREA_BYTES = DATA_BYTES + READ_BYTES;
export const BATCH = 2048;

/** A case and an outcome share these offsets. */
export const GPR = 0;
export const FLAGS = 128;
export const MXCSR = 132;
export const FS_BASE = 144;
export const GS_BASE = 152;
export const MM = 160;
export const XMM = 256;

export const CASE_BYTES = 768;
/** Upper halves of the YMM registers. */
export const CASE_YMM = 512;
/** What code the case is: 0 of 64 bits, 1 of 32, 2 of 16. */
export const KIND = 136;
export const LENGTH = 140;
export const CODE_AT = 224;

export const OUTCOME_BYTES = 848;
/** Selectors: ES, CS, SS, DS, FS, GS, 16 bits each. */
export const SELECTORS = 832;
export const OUTCOME_YMM = 576;
export const TRAP = 136;
export const ERROR = 140;
export const RIP = 224;
export const CR2 = 232;
/** Changed memory: the offsets of its first byte and past its last (multiples of 8), a hash, the first 64 bytes. */
export const FIRST = 240;
export const END = 244;
export const HASH = 248;
export const BYTES = 512;

/** Trap number of a case that did not come to an end. */
export const HUNG = 255;
/** A breakpoint: the instruction went to its end. */
export const DONE = 3;

/** Width of code. */
export type Mode = 64 | 32 | 16;
export const kindOf = (mode: Mode): number => (mode === 64 ? 0 : mode === 32 ? 1 : 2);

/** Where segments of 16-bit data begin: offsets of memory operands are those of flat code less this. */
export const BASE16 = DATA - 0x8000;
/** Descriptors of the local table, by number: `harness.c` has the same. Attributes as the hidden part of a register has them. */
export const LOCAL: readonly { readonly base: number; readonly limit: number; readonly attr: number }[] = [
  // 16-bit code, data, data that ends within the operands' pages, data that expands down to their start.
  { base: CODE, limit: 0xffff, attr: 0x00fb },
  { base: BASE16, limit: 0xffff, attr: 0x00f3 },
  { base: BASE16, limit: 0xa7ff, attr: 0x00f3 },
  { base: BASE16, limit: 0x7fff, attr: 0x00f7 },
  // 32-bit data that is read only, code that is executed only, data that expands down to the operands' pages.
  { base: 0, limit: 0xffffffff, attr: 0xc0f1 },
  { base: 0, limit: 0xffffffff, attr: 0xc0f9 },
  { base: 0, limit: 0x5fffff, attr: 0xc0f7 },
  // Not present: data, conforming code.
  { base: 0, limit: 0xffffffff, attr: 0xc073 },
  { base: 0, limit: 0xffffffff, attr: 0xc07f },
];
/** A selector of the local table. */
export const local = (number: number, privilege = 3): number => number * 8 + 4 + privilege;
/** Descriptors of Linux's own table by selector, those that programs see (arch/x86/include/asm/segment.h). */
export const GLOBAL: Readonly<Record<number, number>> = {
  0x08: 0xc09b,
  0x10: 0xa09b,
  0x18: 0xc093,
  0x20: 0xc0fb,
  0x28: 0xc0f3,
  0x30: 0xa0fb,
};
export const GLOBAL_BYTES = 0x80;
/** What code begins with: CS and DS as Linux has them, or the first of the local table. */
export const USER64 = 0x33;
export const USER32 = 0x23;
export const USER_DATA = 0x2b;

/** As many slots of 16-bit code lie below its operands. */
export const BATCH16 = 448;

/** A batch: cases of one mode over the same memory. */
export interface Batch {
  readonly count: number;
  readonly mode: Mode;
  /** `AREA_BYTES` of initial memory at `DATA`. */
  readonly memory: Uint8Array;
  readonly cases: Uint8Array;
}

/** Linear address of the code of case `n`. */
export const codeAddress = (n: number): number => CODE + n * SLOT + SLOT_CODE;
