/**
 * Reads a guest's page tables from outside, for `x`, `memsave`, `info tlb` and `info mem`: without touching
 * accessed and dirty bits, and without checking permissions (SDM 3A 4.3 to 4.5: 32-bit, PAE, 4-level, 5-level).
 *
 * The tables are the guest's, so any walk over all of them is bounded in the number of tables it reads.
 */
import type { CpuRegisters } from './machine-control.ts';

/** Reads RAM by physical address; all ones where there is none. */
export type PhysicalReader = (address: number, length: number) => Uint8Array;

const PG = 1n << 31n;
const PSE = 1n << 4n;
const PAE = 1n << 5n;
const LA57 = 1n << 12n;
const LMA = 1n << 10n;

const present = 1n;
const large = 1n << 7n;
const addressBits = 0x000f_ffff_ffff_f000n;

/** How an address space is paged: the widths of its levels. */
interface Shape {
  /** Bits of index a level, from the top. */
  readonly levels: readonly number[];
  readonly entryBytes: 4 | 8;
  /** Levels, counted from 1 at the bottom, where an entry may map a large page. */
  readonly largeAt: readonly number[];
  readonly root: bigint;
  /** Linear addresses are sign-extended from the top bit of the tables. */
  readonly canonical: boolean;
}

/** True where the vCPU has paging on. */
export const pagingEnabled = (registers: CpuRegisters): boolean => (registers.cr0 & PG) !== 0n;

function shapeOf(registers: CpuRegisters): Shape {
  const { cr3, cr4, efer } = registers;
  if ((efer & LMA) !== 0n) {
    const levels = (cr4 & LA57) !== 0n ? [9, 9, 9, 9, 9] : [9, 9, 9, 9];
    return { levels, entryBytes: 8, largeAt: [2, 3], root: cr3 & addressBits, canonical: true };
  }
  if ((cr4 & PAE) !== 0n) return { levels: [2, 9, 9], entryBytes: 8, largeAt: [2], root: cr3 & 0xffff_ffe0n, canonical: false };
  return {
    levels: [10, 10],
    entryBytes: 4,
    largeAt: (cr4 & PSE) !== 0n ? [2] : [],
    root: cr3 & 0xffff_f000n,
    canonical: false,
  };
}

/** The frame of a large 32-bit page has its bits 32 to 39 in the entry's bits 13 to 20 (PSE-36, SDM 3A 4.3). */
function frameOf(entry: bigint, shift: bigint, shape: Shape): bigint {
  if (shift === 12n) return shape.entryBytes === 4 ? entry & 0xffff_f000n : entry & addressBits;
  if (shape.entryBytes === 4) return (entry & 0xffc0_0000n) | (((entry >> 13n) & 0xffn) << 32n);
  return entry & addressBits & ~((1n << shift) - 1n);
}

function entryAt(bytes: Uint8Array, index: number, size: 4 | 8): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return size === 4 ? BigInt(view.getUint32(index * 4, true)) : view.getBigUint64(index * 8, true);
}

/** The physical address of a linear one, or undefined where no page is mapped. */
export function translate(registers: CpuRegisters, read: PhysicalReader, linear: bigint): bigint | undefined {
  if (!pagingEnabled(registers)) return BigInt.asUintN(64, linear);
  const shape = shapeOf(registers);
  const bits = shape.levels.reduce((sum, width) => sum + width, 12);
  if (shape.canonical && BigInt.asUintN(64, BigInt.asIntN(bits, linear)) !== BigInt.asUintN(64, linear)) return undefined;
  const address = BigInt.asUintN(bits, linear);
  let table = shape.root;
  let shift = BigInt(bits);
  for (let depth = 0; depth < shape.levels.length; depth++) {
    const width = BigInt(shape.levels[depth]);
    shift -= width;
    const index = (address >> shift) & ((1n << width) - 1n);
    const at = table + index * BigInt(shape.entryBytes);
    const entry = entryAt(read(Number(at), shape.entryBytes), 0, shape.entryBytes);
    if ((entry & present) === 0n) return undefined;
    const level = shape.levels.length - depth;
    if (level === 1 || (shape.largeAt.includes(level) && (entry & large) !== 0n))
      return frameOf(entry, shift, shape) | (address & ((1n << shift) - 1n));
    table = shape.entryBytes === 4 ? entry & 0xffff_f000n : entry & addressBits;
  }
  return undefined;
}

/** `length` bytes at a linear address, or undefined where a page of them is not mapped. */
export function readVirtual(
  registers: CpuRegisters,
  read: PhysicalReader,
  linear: bigint,
  length: number,
): Uint8Array | undefined {
  const result = new Uint8Array(length);
  const wide = (registers.efer & LMA) !== 0n ? 64 : 32;
  for (let done = 0; done < length; ) {
    const at = BigInt.asUintN(wide, linear + BigInt(done));
    const physical = translate(registers, read, at);
    if (physical === undefined || physical >= 1n << 52n) return undefined;
    const part = Math.min(length - done, 4096 - Number(at & 0xfffn));
    result.set(read(Number(physical), part), done);
    done += part;
  }
  return result;
}

/** A mapped page: its linear address (sign-extended), its entry, and what all levels together allow. */
export interface Mapping {
  readonly linear: bigint;
  readonly bytes: bigint;
  readonly physical: bigint;
  readonly entry: bigint;
  readonly large: boolean;
  readonly user: boolean;
  readonly writable: boolean;
}

/** Page-table entries that one walk looks at, at most: enough for every page of 64 GiB of guest memory in 4 KiB pages. */
const maxEntries = 1 << 24;

/** All mapped pages in order of linear address. Ends early, with `limited` set, when the tables describe too much. */
export function* mappings(
  registers: CpuRegisters,
  read: PhysicalReader,
  state: { limited: boolean } = { limited: false },
): Iterable<Mapping> {
  const shape = shapeOf(registers);
  const bits = shape.levels.reduce((sum, width) => sum + width, 12);
  let budget = maxEntries;

  function* walk(table: bigint, depth: number, base: bigint, shift: number, user: boolean, writable: boolean): Iterable<Mapping> {
    const width = shape.levels[depth];
    const below = BigInt(shift - width);
    const count = 1 << width;
    budget -= count;
    if (budget < 0) {
      state.limited = true;
      return;
    }
    const bytes = read(Number(table), count * shape.entryBytes);
    const level = shape.levels.length - depth;
    // Entries of a PAE page-directory-pointer table have no permission bits (SDM 3A table 4-8).
    const pointers = width === 2;
    for (let index = 0; index < count && !state.limited; index++) {
      const entry = entryAt(bytes, index, shape.entryBytes);
      if ((entry & present) === 0n) continue;
      const address = base | (BigInt(index) << below);
      const mayUser = user && (pointers || (entry & 4n) !== 0n);
      const mayWrite = writable && (pointers || (entry & 2n) !== 0n);
      const isLarge = shape.largeAt.includes(level) && (entry & large) !== 0n;
      if (level === 1 || isLarge) {
        const linear = shape.canonical ? BigInt.asUintN(64, BigInt.asIntN(bits, address)) : address;
        const physical = frameOf(entry, below, shape);
        yield { linear, bytes: 1n << below, physical, entry, large: isLarge, user: mayUser, writable: mayWrite };
      } else {
        const next = shape.entryBytes === 4 ? entry & 0xffff_f000n : entry & addressBits;
        yield* walk(next, depth + 1, address, shift - width, mayUser, mayWrite);
      }
    }
  }
  yield* walk(shape.root, 0, 0n, bits, true, true);
}
