/**
 * What may be written to the registers of memory types: MTRRs and PAT (SDM 3A, 12.11 and 12.12). The types are kept and
 * read back; memory behaves as write-back throughout, which no program can tell from the others.
 */
import { raise } from './cpu.ts';
import { PHYSICAL_BITS } from './cpuid.ts';
import { MSR, MTRR_FIXED, MTRR_VARIABLE, MTRR_VARIABLE_END } from './msr-numbers.ts';

/** Uncacheable, write combining, write through, write protected, write back. */
const MTRR_TYPES = new Set([0, 1, 4, 5, 6]);
/** PAT has UC- besides. */
const PAT_TYPES = new Set([...MTRR_TYPES, 7]);

/** Bits of the upper half that no physical address has. */
const BEYOND = ~((1 << (PHYSICAL_BITS - 32)) - 1);

const eachByte = (low: number, high: number, types: ReadonlySet<number>): boolean => {
  for (const word of [low, high])
    for (let shift = 0; shift < 32; shift += 8) if (!types.has((word >>> shift) & 0xff)) return false;
  return true;
};

/** Raises #GP(0) where one of these registers may not have the value; does nothing for others. */
export function checkMemoryType(msr: number, low: number, high: number): void {
  let good = true;
  if (msr >= MTRR_VARIABLE && msr < MTRR_VARIABLE_END) {
    // Base and type, then mask and valid bit.
    if (msr % 2 === 0) good = MTRR_TYPES.has(low & 0xff) && (low & 0xf00) === 0 && (high & BEYOND) === 0;
    else good = (low & 0x7ff) === 0 && (high & BEYOND) === 0;
  } else if (MTRR_FIXED.includes(msr)) good = eachByte(low, high, MTRR_TYPES);
  else if (msr === MSR.MTRR_DEF_TYPE) good = MTRR_TYPES.has(low & 0xff) && (low & ~0xcff) === 0 && high === 0;
  else if (msr === MSR.PAT) good = eachByte(low, high, PAT_TYPES);
  if (!good) raise(13, 0);
}
