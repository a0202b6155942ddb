/** Where things lie for both sides: the case and outcome blocks that `harness.c` reads and writes, and the addresses code sees. */

/** Code: a slot a case, INT3 all around it. Slots straddle pages now and then. */
export const CODE = 0x400000;
export const CODE_BYTES = 0x40000;
export const SLOT = 72;
export const SLOT_CODE = 16;
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

export const OUTCOME_BYTES = 832;
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

/**
 * Segments of 16-bit code, from a local descriptor table: where they begin, the highest offset (for the stack, which
 * expands down, the highest that is outside), the selector. Offsets of memory operands are those of flat code less `BASE16`.
 */
export const BASE16 = DATA - 0x8000;
export const SEGMENTS16 = {
  cs: { base: CODE, limit: 0xffff, selector: 0x07 },
  ds: { base: BASE16, limit: 0xffff, selector: 0x0f },
  es: { base: BASE16, limit: 0xa7ff, selector: 0x17 },
  ss: { base: BASE16, limit: 0x7fff, selector: 0x1f },
} as const;
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
