/**
 * Paging and the software TLB (SDM 3A, chapter 4): 32-bit, PAE and 4-level paging, with large and global pages,
 * NX, WP, SMEP, SMAP, protection keys, accessed and dirty bits; and the slow path of memory accesses from translated code.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, CR4, EFER, FLAG, GuestFault, highOf, isCanonical, linear, lowOf, raise } from './cpu.ts';
import { RUN_ALONE } from './debug.ts';
import { MSR, readMsr64 } from './msr-numbers.ts';
import { Scratch } from './scratch.ts';

const PTE = { P: 1, W: 2, U: 4, A: 0x20, D: 0x40, PS: 0x80, G: 0x100 } as const;
/** Error code bits of #PF. */
const PF = { P: 1, W: 2, U: 4, RSVD: 8, I: 16, PK: 32 } as const;

export const Access = { READ: 0, WRITE: 1, EXECUTE: 2 } as const;

const TLB_WORDS = S.TLB_ENTRY_BYTES / 4;
const ITLB_WORDS = S.ITLB_ENTRY_BYTES / 4;
/** Large pages remembered in a space; with more of them INVLPG drops it all. */
const MAX_LARGE = 4096;
/** A piece's number without the sign that upper addresses have. */
const positive = (piece: number): number => (piece < 0 ? piece + 2 ** 36 : piece);
const gigabyteOf = (piece: number): number => Math.floor(positive(piece) / 512);
/** Canonical addresses are below, and from its negative on. */
const CANONICAL_END = 2 ** 47;
/** TLB entries that a flush undoes singly. */
const FILL_LOG = 512;

/** Stamps of one space: by mode, for supervisor and user. */
const STAMPS_OF_SPACE = 128;
/** Buckets of pages that were fetched from, and the one of a page. */
const FETCHED = 16384;
/** Fetches by the supervisor from pages that are not global, after which its pages are looked up by space again. */
const MAX_STRANGERS = 20_000;
const fetchedAt = (low: number, high: number): number => ((low >>> 12) ^ Math.imul(high, 0x9e5)) & (FETCHED - 1);

/** What others than its own thread need of a vCPU's TLBs: the words of its state block and of its spaces. */
export interface VcpuTlbs {
  readonly state: Int32Array;
  readonly tlb: Int32Array;
}

export class Paging {
  readonly #cpu: Cpu;
  readonly #scratch: Scratch;
  /** What the last walk found: permissions that hold along the whole way. */
  #writable = false;
  #dirty = false;
  #pageBits = 12;
  #pageGlobal = false;
  #physical = 0;
  #faultCode = 0;
  /** Upper entries of a walk that have no accessed bit yet. */
  readonly #upper = new Float64Array(4);
  /** Whether accesses to the page of an address must be seen; set by the debug unit. */
  watches: (address: number) => boolean = () => false;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
    this.#scratch = new Scratch(cpu);
    cpu.flushAll = () => this.flush();
    new Int32Array(cpu.buffer, cpu.at + S.EMPTY_TLB_AT, S.TLB_BYTES / 4).fill(-1);
    cpu.translate = (address, write, user) => this.translate(address, write ? Access.WRITE : Access.READ, user);
  }

  // --- walks ------------------------------------------------------------------------------------------------------

  /** Finds the physical address; false: a page fault with `#faultCode`. */
  #walk(address: number, access: number, user: boolean): boolean {
    const cpu = this.#cpu;
    const cr0 = cpu.cr0;
    if (cr0 >= 0) {
      // CR0.PG is the sign bit.
      this.#physical = this.#gated(address >>> 0);
      this.#writable = true;
      this.#dirty = true;
      this.#pageBits = 12;
      this.#pageGlobal = false;
      return true;
    }
    const cr4 = cpu.cr4;
    const write = access === Access.WRITE;
    const execute = access === Access.EXECUTE;
    const base = (write ? PF.W : 0) | (user ? PF.U : 0);
    const nxe = (cpu.efer & EFER.NXE) !== 0;
    const fetchBit = execute && ((nxe && (cr4 & CR4.PAE) !== 0) || (cr4 & CR4.SMEP) !== 0) ? PF.I : 0;
    const low = lowOf(address);
    const high = highOf(address);
    let writable = true;
    let userPage = true;
    let noExecute = false;
    let entryAt = 0;
    let entryLow = 0;
    let entryHigh = 0;
    let pageBits = 12;
    // Upper entries are marked accessed when the walk has succeeded: a fault leaves them as they are.
    let upper = 0;
    const memory = cpu.memory;
    const missing = (code: number): false => {
      this.#faultCode = base | fetchBit | code;
      return false;
    };

    if ((cr4 & CR4.PAE) === 0) {
      // 32-bit paging.
      entryAt = (cpu.u32[S.CR3 >> 2] & 0xfffff000) >>> 0;
      entryAt += (low >>> 22) * 4;
      entryLow = memory.read32(entryAt) | 0;
      if ((entryLow & PTE.P) === 0) return missing(0);
      writable = (entryLow & PTE.W) !== 0;
      userPage = (entryLow & PTE.U) !== 0;
      if ((entryLow & PTE.PS) !== 0 && (cr4 & CR4.PSE) !== 0) {
        pageBits = 22;
        if ((entryLow & (1 << 21)) !== 0) return missing(PF.P | PF.RSVD);
      } else {
        if ((entryLow & PTE.A) === 0) this.#upper[upper++] = entryAt;
        entryAt = ((entryLow & 0xfffff000) >>> 0) + ((low >>> 12) & 0x3ff) * 4;
        entryLow = memory.read32(entryAt) | 0;
        if ((entryLow & PTE.P) === 0) return missing(0);
        writable &&= (entryLow & PTE.W) !== 0;
        userPage &&= (entryLow & PTE.U) !== 0;
      }
    } else {
      let table: number;
      let level: number;
      const reservedHigh = nxe ? 0x7ff00000 : 0x80000000 | 0x7ff00000;
      if ((cpu.efer & EFER.LMA) !== 0) {
        table = (cpu.u32[S.CR3 >> 2] & 0xfffff000) + (cpu.u32[(S.CR3 >> 2) + 1] & 0xfffff) * 4294967296;
        table = table < 0 ? table + 4294967296 : table;
        level = 3;
      } else {
        // PAE: four pointers at CR3, without permissions.
        const pointerAt = ((cpu.u32[S.CR3 >> 2] & 0xffffffe0) >>> 0) + (low >>> 30) * 8;
        const pointer = memory.read32(pointerAt) | 0;
        const pointerHigh = memory.read32(pointerAt + 4) | 0;
        if ((pointer & PTE.P) === 0) return missing(0);
        if ((pointer & 0x1e6) !== 0) return missing(PF.P | PF.RSVD);
        table = ((pointer & 0xfffff000) >>> 0) + (pointerHigh & 0xfffff) * 4294967296;
        level = 1;
      }
      for (;;) {
        let index: number;
        if (level === 3) index = (high >>> 7) & 511;
        else if (level === 2) index = ((high & 0x7f) << 2) | (low >>> 30);
        else if (level === 1) index = (low >>> 21) & 511;
        else index = (low >>> 12) & 511;
        entryAt = table + index * 8;
        entryLow = memory.read32(entryAt) | 0;
        if ((entryLow & PTE.P) === 0) return missing(0);
        entryHigh = memory.read32(entryAt + 4) | 0;
        // Bits 52 to 62 are ignored in 4-level paging and reserved in PAE paging; bit 63 is reserved without NXE.
        const long = (cpu.efer & EFER.LMA) !== 0;
        if ((entryHigh & (long ? (nxe ? 0 : 0x80000000) : reservedHigh)) !== 0 || (entryHigh & 0xfff00) !== 0)
          return missing(PF.P | PF.RSVD);
        writable &&= (entryLow & PTE.W) !== 0;
        userPage &&= (entryLow & PTE.U) !== 0;
        noExecute ||= entryHigh < 0;
        if (level === 0) break;
        if ((entryLow & PTE.PS) !== 0) {
          if (level === 3) return missing(PF.P | PF.RSVD);
          pageBits = level === 2 ? 30 : 21;
          if ((entryLow & ((1 << pageBits) - 1) & ~0x1fff) !== 0) return missing(PF.P | PF.RSVD);
          break;
        }
        if ((entryLow & PTE.A) === 0) this.#upper[upper++] = entryAt;
        table = ((entryLow & 0xfffff000) >>> 0) + (entryHigh & 0xfffff) * 4294967296;
        level--;
      }
    }

    // Access rights (SDM 3A, 4.6).
    let allowed = true;
    if (user) {
      if (!userPage || (write && !writable)) allowed = false;
    } else {
      if (write && !writable && (cr0 & CR0.WP) !== 0) allowed = false;
      if (userPage) {
        if (execute && (cr4 & CR4.SMEP) !== 0) allowed = false;
        if (!execute && (cr4 & CR4.SMAP) !== 0 && !this.#liftSmap()) allowed = false;
      }
    }
    if (execute && noExecute) allowed = false;
    // Protection keys (SDM 3A, 4.6.2): bits 62:59 of the last entry, for data.
    let keyed = 0;
    if (!execute && (cr4 & (userPage ? CR4.PKE : CR4.PKS)) !== 0 && (cpu.efer & EFER.LMA) !== 0) {
      const rights = (userPage ? cpu.pkru : readMsr64(cpu, MSR.PKRS).low) >>> ((entryHigh >>> 26) & 30);
      const noWrite = (rights & 2) !== 0 && (user || (cr0 & CR0.WP) !== 0);
      if ((rights & 1) !== 0 || (write && noWrite)) keyed = PF.PK;
      if (noWrite) writable = false;
    }
    if (!allowed || keyed !== 0) return missing(PF.P | keyed);

    while (upper > 0) this.#setBits(this.#upper[--upper], 0, PTE.A);
    const wanted = write ? PTE.A | PTE.D : PTE.A;
    if ((entryLow & wanted) !== wanted) this.#setBits(entryAt, entryLow, wanted);
    this.#writable = writable || (!user && (cr0 & CR0.WP) === 0);
    this.#dirty = write || (entryLow & PTE.D) !== 0;
    this.#pageBits = pageBits;
    this.#pageGlobal = (entryLow & PTE.G) !== 0;
    if ((cr4 & CR4.PAE) === 0) {
      if (pageBits === 22) {
        // PSE-36: bits 20:13 are bits 39:32 of the address.
        const upper = (entryLow >>> 13) & 0xff;
        this.#physical = ((entryLow & 0xffc00000) >>> 0) + upper * 4294967296 + (low & 0x3fffff);
      } else this.#physical = ((entryLow & 0xfffff000) >>> 0) + (low & 0xfff);
    } else {
      const mask = pageBits === 30 ? 0x3fffffff : pageBits === 21 ? 0x1fffff : 0xfff;
      this.#physical = ((entryLow & ~mask) >>> 0) + (entryHigh & 0xfffff) * 4294967296 + (low & mask);
    }
    this.#physical = this.#gated(this.#physical);
    return true;
  }

  /** A physical address as it leaves the processor: without bit 20 where the gate is shut. */
  #gated(physical: number): number {
    if (this.#cpu.bus.a20()) return physical;
    return Math.floor(physical / 0x100000) % 2 === 1 ? physical - 0x100000 : physical;
  }

  /** Set while an explicit supervisor access may reach user pages in spite of SMAP. */
  #explicit = true;
  #liftSmap(): boolean {
    return this.#explicit && (this.#cpu.i32[S.EFLAGS >> 2] & FLAG.AC) !== 0;
  }

  /** Sets bits in a page-table entry with an atomic operation, unless another vCPU has changed it meanwhile. */
  #setBits(at: number, entry: number, bits: number): void {
    if ((entry & bits) === bits) return;
    const memory = this.#cpu.memory;
    const host = memory.host(at);
    if (host < 0 || memory.isReadOnly(at)) return;
    const words = this.#words;
    Atomics.or(words, host / 4, bits);
    memory.dirty[memory.pageOf(host)] = 1;
  }
  get #words(): Int32Array {
    this.#wordsView ??= new Int32Array(this.#cpu.buffer);
    return this.#wordsView;
  }
  #wordsView: Int32Array | undefined;

  // --- translation for helpers ------------------------------------------------------------------------------------

  /** Host offset of a linear address, or -1 for a device (its physical address is in `cpu.physical`). Raises #PF. */
  translate(address: number, access: typeof Access.READ | typeof Access.WRITE, user: boolean): number {
    const { tlb, memory } = this.#cpu;
    const low = lowOf(address);
    const high = highOf(address);
    const at = this.#space + (user ? S.TLB_USER / 4 : 0) + ((low >>> 12) & (S.TLB_ENTRIES - 1)) * TLB_WORDS;
    const tag = access === Access.WRITE ? at + S.TLB_WRITE / 4 : at;
    if (tlb[tag] === (low & ~0xfff) && tlb[tag + 1] === high) return memory.hostOf(tlb[at + S.TLB_PAGE / 4]) + (low & 0xfff);
    const host = this.frame(address, access, user);
    // What only EFLAGS.AC has let through belongs into a TLB of its own.
    if (host >= 0 && (user || (this.#cpu.i32[S.EFLAGS >> 2] & FLAG.AC) === 0)) this.#fill(address, access === Access.WRITE, user);
    return host;
  }

  /** As `translate`, always by the page tables: `cpu.physical` holds the address. */
  frame(address: number, access: number, user: boolean): number {
    const cpu = this.#cpu;
    // Helpers that know of the stack segment have looked before, and raised #SS.
    if (address >= CANONICAL_END || address < -CANONICAL_END) raise(13, 0);
    if (!this.#walk(address, access, user)) {
      cpu.setNumber(S.CR2, address);
      raise(14, this.#faultCode);
    }
    cpu.physical = this.#physical;
    const host = cpu.memory.host(this.#physical);
    if (access === Access.WRITE && host >= 0 && cpu.memory.isReadOnly(this.#physical)) return -1;
    return host;
  }

  /** The physical address of a linear one as the monitor wants it, without effect on the guest; -1 where none is mapped. */
  peek(address: number): number {
    // Accessed bits may be set by the walk: it only happens to pages that are present.
    this.#explicit = true;
    return this.#walk(address, Access.READ, false) || this.#walk(address, Access.EXECUTE, true) ? this.#physical : -1;
  }

  // --- the TLB ----------------------------------------------------------------------------------------------------

  /** Word index of the current address space's TLBs, and of the instruction TLB in use. */
  #space = 0;
  #itlb = 0;
  /**
   * Where global pages are on, those that the supervisor executes have an instruction TLB and stamps of their own, which a
   * change of the address space leaves alone (SDM 3A, 4.10.2.4). Nothing else comes into them.
   */
  #isGlobal = false;
  /** Pages that are not global the supervisor has fetched from meanwhile; with many it has none (page-table isolation). */
  #strangers = 0;
  /** PCID of each space; -1: none. */
  readonly #pcids = new Int32Array(S.SPACES).fill(-1);
  /** Entries filled in each space since it was last flushed, for flushes one by one; the count may exceed the log. */
  readonly #fillLogs = Array.from({ length: S.SPACES }, () => new Int32Array(FILL_LOG));
  readonly #fills = new Int32Array(S.SPACES).fill(FILL_LOG + 1);

  // --- stamps of the jump cache -----------------------------------------------------------------------------------

  /** Stamps by space (the last: of global pages), privilege and mode; 0: none yet. What has another stamp no longer holds. */
  readonly #stamps = new Int32Array((S.SPACES + 1) * STAMPS_OF_SPACE);
  #lastStamp = 0;
  /** Pages, by a hash, that an instruction TLB has had since all was flushed: INVLPG of others leaves the stamps alone. */
  readonly #fetched = new Uint8Array(FETCHED);
  #fetchedCount = 0;

  /** Makes all entries of the jump cache void. */
  newStamps(): void {
    this.#stamps.fill(0);
    this.selectTlb();
  }
  #stamp(): number {
    const cpu = this.#cpu;
    if (cpu.i32[(S.CODE_KEY >> 2) + 1] < 0) return -1;
    const space = this.#isGlobal ? S.SPACES : (this.#space * 4) / S.SPACE_BYTES;
    const at = space * STAMPS_OF_SPACE + (cpu.cpl === 3 ? STAMPS_OF_SPACE / 2 : 0) + (cpu.i32[S.MODE >> 2] & 63);
    if (this.#stamps[at] === 0) {
      if (this.#lastStamp === 0x7fffffff) {
        this.#stamps.fill(0);
        new Int32Array(cpu.buffer, cpu.at + S.JUMPS_AT, (S.JUMPS * S.JUMP_BYTES) / 4).fill(0);
        this.#lastStamp = 0;
      }
      // Low bits that are far apart spread over the jump cache. The factor is odd: no number comes twice, nor 0.
      this.#stamps[at] = Math.imul(++this.#lastStamp, 0x1e3779b1);
      if (this.#stamps[at] === -1) this.#stamps[at] = Math.imul(++this.#lastStamp, 0x1e3779b1);
    }
    return this.#stamps[at];
  }

  /** Drops everything, in all address spaces. */
  flush(): void {
    this.#fetched.fill(0);
    this.#fetchedCount = 0;
    for (let space = 0; space < S.SPACES; space++) {
      this.#flushSpace(space);
      this.#pcids[space] = -1;
    }
    this.#flushGlobal();
    this.changeSpace(true);
  }

  #flushGlobal(): void {
    this.#cpu.tlb.fill(-1, S.ITLB_GLOBAL / 4, S.TLBS_BYTES / 4);
    this.#large[S.SPACES].clear();
    this.#stamps.fill(0, S.SPACES * STAMPS_OF_SPACE);
  }

  #flushSpace(space: number): void {
    const { tlb } = this.#cpu;
    const fills = this.#fills[space];
    if (fills === 0) return;
    const start = (space * S.SPACE_BYTES) / 4;
    // TLBs that were hardly used since the last flush are undone entry by entry.
    if (fills <= FILL_LOG) {
      const log = this.#fillLogs[space];
      for (let n = 0; n < fills; n++) {
        const at = log[n];
        if (at < 0) tlb[~at] = -1;
        else {
          tlb[at] = -1;
          tlb[at + 2] = -1;
          tlb[at + 6] = -1;
        }
      }
    } else tlb.fill(-1, start, start + S.SPACE_BYTES / 4);
    this.#fills[space] = 0;
    this.#large[space].clear();
    this.#stamps.fill(0, space * STAMPS_OF_SPACE, (space + 1) * STAMPS_OF_SPACE);
  }

  /**
   * Large pages that entries were made from, by space (the last: global ones): numbers of their pieces of 2 MiB, or -1 - n for the n-th piece of
   * 1 GiB. An entry is of 4 KiB, so INVLPG must find the others of its page.
   */
  readonly #large = Array.from({ length: S.SPACES + 1 }, () => new Set<number>());
  #noteLarge(address: number, space = (this.#space * 4) / S.SPACE_BYTES): void {
    const large = this.#large[space];
    if (large.size > MAX_LARGE) return;
    const piece = Math.floor(address / 0x200000);
    if (this.#pageBits === 30) large.add(-1 - gigabyteOf(piece));
    else {
      large.add(positive(piece));
      // A page of 4 MiB is two pieces.
      if (this.#pageBits === 22) large.add(positive(piece) % 2 === 0 ? positive(piece) + 1 : positive(piece) - 1);
    }
  }
  #inLarge(space: number, address: number): boolean {
    const large = this.#large[space];
    const piece = Math.floor(address / 0x200000);
    return large.size > MAX_LARGE || large.has(positive(piece)) || large.has(-1 - gigabyteOf(piece));
  }

  /** CR3 was written: its PCID chooses the space, which loses its entries unless `keep` (SDM 3A, 4.10.4.1). */
  changeSpace(keep: boolean): void {
    const cpu = this.#cpu;
    const pcid = (cpu.cr4 & CR4.PCIDE) !== 0 ? cpu.i32[S.CR3 >> 2] & 0xfff : 0;
    const space = pcid & (S.SPACES - 1);
    if (!keep || this.#pcids[space] !== pcid) this.#flushSpace(space);
    this.#pcids[space] = pcid;
    this.#space = (space * S.SPACE_BYTES) / 4;
    this.selectTlb();
  }

  /** INVLPG: the page, in every space, for global pages lie in all. */
  flushPage(address: number): void {
    const { tlb } = this.#cpu;
    const low = lowOf(address);
    if (this.#fetched[fetchedAt(low, highOf(address))] !== 0) this.#stamps.fill(0);
    const entry = ((low >>> 12) & (S.TLB_ENTRIES - 1)) * TLB_WORDS;
    const itlb = ((low >>> 12) & (S.ITLB_ENTRIES - 1)) * ITLB_WORDS;
    for (let space = 0; space < S.SPACES; space++) {
      if (this.#fills[space] === 0) continue;
      if (this.#inLarge(space, address)) {
        // Entries are of 4 KiB each: all those of the large page must go.
        this.#flushSpace(space);
        continue;
      }
      const start = (space * S.SPACE_BYTES) / 4;
      for (let n = 0; n < S.TLB_COUNT; n++) {
        const first = start + n * (S.TLB_BYTES / 4);
        tlb[first + entry] = -1;
        tlb[first + entry + 2] = -1;
        for (let victim = 0; victim < S.TLB_VICTIMS; victim++) {
          const at = first + (S.TLB_ENTRIES + victim) * TLB_WORDS;
          if (tlb[at] !== (low & ~0xfff) || tlb[at + 1] !== highOf(address)) continue;
          tlb[at] = -1;
          tlb[at + 2] = -1;
        }
      }
      tlb[start + S.ITLB_SUPERVISOR / 4 + itlb] = -1;
      tlb[start + S.ITLB_USER / 4 + itlb] = -1;
    }
    if (this.#inLarge(S.SPACES, address)) this.#flushGlobal();
    else tlb[S.ITLB_GLOBAL / 4 + itlb] = -1;
    this.selectTlb();
  }

  /** INVPCID of one address space, or of all but global entries (SDM 2A, INVPCID). */
  flushPcid(pcid: number | undefined): void {
    for (let space = 0; space < S.SPACES; space++) if (pcid === undefined || this.#pcids[space] === pcid) this.#flushSpace(space);
    this.selectTlb();
  }

  /** Chooses the TLBs for the current privilege and EFLAGS.AC. */
  selectTlb(): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    const access = (cpu.i32[S.EFLAGS >> 2] & FLAG.AC) !== 0;
    const at = user ? S.TLB_USER : access ? S.TLB_AC : S.TLB_SUPERVISOR;
    const space = cpu.at + S.SPACES_AT + this.#space * 4;
    cpu.aligning = user && access && (cpu.cr0 & CR0.AM) !== 0;
    cpu.i32[S.TLB >> 2] = cpu.aligning ? cpu.at + S.EMPTY_TLB_AT : space + at;
    this.#isGlobal = !user && cpu.cr0 < 0 && (cpu.cr4 & CR4.PGE) !== 0 && this.#strangers < MAX_STRANGERS;
    this.#itlb = this.#isGlobal ? S.ITLB_GLOBAL / 4 : this.#space + (user ? S.ITLB_USER : S.ITLB_SUPERVISOR) / 4;
    cpu.i32[S.ITLB >> 2] = cpu.at + S.SPACES_AT + this.#itlb * 4;
    cpu.i32[S.JUMP_STAMP >> 2] = this.#stamp();
  }

  #itlbEntry(low: number): number {
    return this.#itlb + ((low >>> 12) & (S.ITLB_ENTRIES - 1)) * ITLB_WORDS;
  }

  /** Host offset of an instruction at a linear address, by way of the instruction TLB; -1 in a device. Raises #PF. */
  fetch(address: number): number {
    const { tlb, cpl, memory } = this.#cpu;
    const low = lowOf(address);
    const at = this.#itlbEntry(low);
    if (tlb[at] === (low & ~0xfff) && tlb[at + 1] === highOf(address)) return memory.hostOf(tlb[at + 2]) + (low & 0xfff);
    const host = this.frame(address, Access.EXECUTE, cpl === 3);
    if (host < 0) return host;
    if (this.#isGlobal && !this.#pageGlobal) {
      if (++this.#strangers === MAX_STRANGERS) this.flush();
      return host;
    }
    const page = memory.pageOf(host);
    const fetched = fetchedAt(low, highOf(address));
    if (this.#fetched[fetched] === 0) {
      // Before it says yes to every page it starts anew, and all else with it.
      if (++this.#fetchedCount > FETCHED / 4) this.flush();
      this.#fetched[fetched] = 1;
    }
    if (!this.#isGlobal) this.#noteFill(~at);
    if (this.#pageBits !== 12) this.#noteLarge(address, this.#isGlobal ? S.SPACES : undefined);
    tlb[at] = low & ~0xfff;
    tlb[at + 1] = highOf(address);
    tlb[at + 2] = page;
    return host;
  }

  /** The page of the backing that the instruction TLB has for a linear address; -1: none. */
  fetched(address: number): number {
    const { tlb } = this.#cpu;
    const low = lowOf(address);
    const at = this.#itlbEntry(low);
    return tlb[at] === (low & ~0xfff) && tlb[at + 1] === highOf(address) ? tlb[at + 2] : -1;
  }

  /** Takes a page out of the instruction TLB: each entry into it must lead past the dispatcher. */
  forgetFetch(address: number): void {
    this.#cpu.tlb[this.#itlbEntry(lowOf(address))] = -1;
  }

  /** Counts an entry of the current space: the index of its first word, inverted for instruction TLBs. */
  #noteFill(at: number): void {
    const space = (this.#space * 4) / S.SPACE_BYTES;
    const fills = this.#fills[space];
    // Others look only at the spaces whose bit is set when they take write permissions away.
    if (fills === 0) Atomics.or(this.#cpu.i32, S.SPACES_USED >> 2, 1 << space);
    if (fills < FILL_LOG) this.#fillLogs[space][fills] = at;
    this.#fills[space] = fills + 1;
  }

  /** Puts the page of the last walk into a TLB, the current one unless told; gives the host offset, or -1 for a device. */
  #fill(address: number, write: boolean, user?: boolean): number {
    const cpu = this.#cpu;
    const memory = cpu.memory;
    const physical = this.#physical;
    const host = memory.host(physical);
    if (host < 0) return -1;
    // A watched page never comes in, so that all of its accesses come here; nor does any while alignment is checked.
    if ((cpu.aligning && user === undefined) || (cpu.watching && this.watches(address)))
      return write && memory.isReadOnly(physical) ? -1 : host;
    const low = lowOf(address);
    const high = highOf(address);
    const tlb = cpu.tlb;
    const start =
      user === undefined ? (cpu.i32[S.TLB >> 2] - cpu.at - S.SPACES_AT) / 4 : this.#space + (user ? S.TLB_USER / 4 : 0);
    const at = start + ((low >>> 12) & (S.TLB_ENTRIES - 1)) * TLB_WORDS;
    const pageLow = low & ~0xfff;
    if (tlb[at] !== -1 && (tlb[at] !== pageLow || tlb[at + 1] !== high)) {
      this.#nextVictim = (this.#nextVictim + 1) % S.TLB_VICTIMS;
      const victim = start + (S.TLB_ENTRIES + this.#nextVictim) * TLB_WORDS;
      this.#noteFill(victim);
      tlb.copyWithin(victim, at, at + TLB_WORDS);
      this.#recheck(victim);
    }
    this.#noteFill(at);
    if (this.#pageBits !== 12) this.#noteLarge(address);
    const hostPage = host - (low & 0xfff);
    // Host address less linear address, as 64 bits.
    const hostLow = hostPage | 0;
    const hostHigh = Math.floor(hostPage / 4294967296);
    const borrow = hostLow >>> 0 < pageLow >>> 0 ? 1 : 0;
    const readOnly = memory.isReadOnly(physical);
    tlb[at + 4] = hostLow - pageLow;
    tlb[at + 5] = hostHigh - high - borrow;
    const page = memory.pageOf(host);
    tlb[at + 6] = page;
    tlb[at + 1] = high;
    tlb[at] = pageLow;
    if (write && !readOnly) memory.dirty[page] = 1;
    const writable =
      this.#writable && this.#dirty && !readOnly && memory.dirty[page] !== 0 && Atomics.load(memory.code, page) === 0;
    if (writable) {
      tlb[at + 3] = high;
      tlb[at + 2] = pageLow;
      // Another vCPU may have made this a code page just now: it looked at this entry before or will be seen here.
      if (Atomics.load(memory.code, page) !== 0) tlb[at + 2] = -1;
    } else tlb[at + 2] = -1;
    return readOnly && write ? -1 : host;
  }

  #nextVictim = 0;
  readonly #entry = new Int32Array(TLB_WORDS);

  /** Another thread may have taken the write permission away (`protect`) while an entry was moved. */
  #recheck(at: number): void {
    const { tlb, memory } = this.#cpu;
    const page = tlb[at + 6];
    if (tlb[at + 2] !== -1 && (memory.dirty[page] === 0 || Atomics.load(memory.code, page) !== 0)) tlb[at + 2] = -1;
  }

  /** Looks for a page among the entries that others took the place of, and changes it with that; gives the host offset, or -1. */
  #fromVictims(low: number, high: number, write: boolean): number {
    const cpu = this.#cpu;
    if (cpu.aligning) return -1;
    const { tlb } = cpu;
    const start = (cpu.i32[S.TLB >> 2] - cpu.at - S.SPACES_AT) / 4;
    const first = start + S.TLB_ENTRIES * TLB_WORDS;
    const tag = write ? 2 : 0;
    for (let victim = first; victim < first + S.TLB_VICTIMS * TLB_WORDS; victim += TLB_WORDS) {
      if (tlb[victim + tag] !== (low & ~0xfff) || tlb[victim + tag + 1] !== high) continue;
      const at = start + ((low >>> 12) & (S.TLB_ENTRIES - 1)) * TLB_WORDS;
      // A place that was empty is not known to the next flush.
      if (tlb[at] === -1) this.#noteFill(at);
      const page = tlb[victim + 6];
      for (let n = 0; n < TLB_WORDS; n++) this.#entry[n] = tlb[at + n];
      tlb.copyWithin(at, victim, victim + TLB_WORDS);
      tlb.set(this.#entry, victim);
      this.#recheck(at);
      this.#recheck(victim);
      if (write && tlb[at + 2] === -1) return -1;
      return cpu.memory.hostOf(page) + (low & 0xfff);
    }
    return -1;
  }

  /** Drops write permission for pages of the backing, `count` from `page`, from a vCPU's TLBs and from what its code remembers of them. */
  static protect({ state, tlb }: VcpuTlbs, page: number, count = 1): void {
    const used = Atomics.load(state, S.SPACES_USED >> 2);
    for (let space = 0; space < S.SPACES; space++) {
      if (((used >>> space) & 1) === 0) continue;
      const start = (space * S.SPACE_BYTES) / 4;
      const end = start + S.ITLB_SUPERVISOR / 4;
      for (let at = start; at < end; at += TLB_WORDS) {
        const distance = tlb[at + 6] - page;
        if (distance >= 0 && distance < count) tlb[at + 2] = -1;
      }
    }
    // A loop that is under way remembers pages: it must leave.
    Atomics.or(state, S.PENDING >> 2, S.Pending.PROTECT);
  }

  // --- slow paths of translated code ------------------------------------------------------------------------------

  /** Finds one address for an access of translated code; false: EXCEPTION is set. */
  #resolve(address: number, low: number, high: number, write: boolean, bytes = 1): boolean {
    const cpu = this.#cpu;
    // Its last byte too: the lower half's end is looked at before any page.
    const ends = high === 0x7fff && (low >>> 0) + bytes > 0x100000000;
    if (cpu.is64 && (ends || !isCanonical(low, high))) {
      cpu.i32[S.EXCEPTION >> 2] = 13;
      cpu.i32[S.EXCEPTION_CODE >> 2] = 0;
      return false;
    }
    if (!this.#walk(address, write ? Access.WRITE : Access.READ, cpu.cpl === 3)) {
      cpu.i32[S.CR2 >> 2] = low;
      cpu.i32[(S.CR2 >> 2) + 1] = high;
      cpu.i32[S.EXCEPTION >> 2] = 14;
      cpu.i32[S.EXCEPTION_CODE >> 2] = this.#faultCode;
      return false;
    }
    // What moves 16 bytes and more asks for alignment by itself, or does not at all.
    if (cpu.aligning && bytes <= 8 && (low & (bytes - 1)) !== 0) {
      cpu.i32[S.EXCEPTION >> 2] = 17;
      cpu.i32[S.EXCEPTION_CODE >> 2] = 0;
      return false;
    }
    return true;
  }

  /** Tells the debug unit of an access; false: EXCEPTION is set, the instruction must start again alone. */
  #seen(address: number, bytes: number, write: boolean): boolean {
    const cpu = this.#cpu;
    try {
      cpu.touched(address, bytes, write);
      return true;
    } catch (problem) {
      if (!(problem instanceof GuestFault)) throw problem;
      cpu.i32[S.EXCEPTION >> 2] = problem.vector;
      return false;
    }
  }

  /**
   * Reads at the address in SLOW_POINTER across pages or from a device, or refills the TLB. Gives a host address, in
   * SLOW_POINTER too, or 0 with EXCEPTION set.
   */
  slowLoad(bytes: number): number {
    const low = this.#cpu.i32[S.SLOW_POINTER >> 2];
    const high = this.#cpu.i32[(S.SLOW_POINTER >> 2) + 1];
    if ((low & 0xfff) + bytes <= 4096) {
      const host = this.#fromVictims(low, high, false);
      if (host >= 0) return this.#scratch.answer(host);
    }
    const address = linear(low, high);
    if (!this.#resolve(address, low, high, false, bytes)) return 0;
    if (this.#cpu.watching && !this.#seen(address, bytes, false)) return 0;
    const first = this.#physical;
    const room = 4096 - (low & 0xfff);
    const host = this.#fill(address, false);
    if (bytes <= room) {
      if (host >= 0) return this.#scratch.answer(host);
      this.#scratch.copyIn(first, bytes, 0);
      return this.#scratch.answer(this.#scratch.hold(bytes, first, 0, bytes));
    }
    const next = this.#cpu.wrap(address + room);
    if (!this.#resolve(next, lowOf(next), highOf(next), false)) return 0;
    this.#scratch.copyIn(first, room, 0);
    this.#scratch.copyIn(this.#physical, bytes - room, room);
    return this.#scratch.answer(this.#scratch.hold(bytes, first, this.#physical, room));
  }

  /**
   * Prepares a write at the address in SLOW_POINTER: a host address to store at, followed by `slowStoreEnd`; or 0 with
   * EXCEPTION set. `flags`: bytes, and bits of `SlowStore`.
   */
  slowStore(flags: number, load = false, alone = false, atomic = false): number {
    const cpu = this.#cpu;
    const bytes = flags & 0xff;
    const low = cpu.i32[S.SLOW_POINTER >> 2];
    const high = cpu.i32[(S.SLOW_POINTER >> 2) + 1];
    if (!alone && (low & 0xfff) + bytes <= 4096) {
      const host = this.#fromVictims(low, high, true);
      if (host >= 0) {
        cpu.i32[S.SCRATCH_SIZE >> 2] = 0;
        return this.#scratch.answer(host);
      }
    }
    const address = linear(low, high);
    if (!this.#resolve(address, low, high, true, bytes)) return 0;
    if (cpu.watching && !((!load || this.#seen(address, bytes, false)) && this.#seen(address, bytes, true))) return 0;
    const first = this.#physical;
    const room = 4096 - (low & 0xfff);
    const host = this.#fill(address, true);
    if (bytes <= room && host >= 0 && !alone) {
      // A locked operation beside code must be one in memory: others do theirs there, without the bus lock.
      const inPlace = atomic || (load && (flags & S.SlowStore.ALONE) !== 0);
      if (cpu.memory.code[cpu.memory.pageOf(host)] === 0 || (inPlace && !cpu.memory.isCode(host, bytes))) {
        cpu.i32[S.SCRATCH_SIZE >> 2] = 0;
        return this.#scratch.answer(host);
      }
      // Code lies in this page: whether it was hit is found when the bytes are there.
    }
    let second = 0;
    if (bytes > room) {
      const next = cpu.wrap(address + room);
      if (!this.#resolve(next, lowOf(next), highOf(next), true)) return 0;
      second = this.#physical;
    }
    const split = Math.min(bytes, room);
    if (
      (flags & S.SlowStore.ALONE) !== 0 &&
      (load || this.#isCode(first, split) || (bytes > split && this.#isCode(second, bytes - split)))
    ) {
      cpu.i32[S.EXCEPTION >> 2] = RUN_ALONE;
      return 0;
    }
    if (load) {
      this.#scratch.copyIn(first, split, 0);
      if (bytes > split) this.#scratch.copyIn(second, bytes - split, split);
    }
    return this.#scratch.answer(this.#scratch.hold(bytes, first, second, split));
  }

  /** Whether code was translated from the granules around some bytes of one page. */
  #isCode(physical: number, bytes: number): boolean {
    const { memory } = this.#cpu;
    const host = memory.host(physical);
    return host >= 0 && memory.isCode(host, bytes);
  }

  slowStoreEnd(): void {
    const cpu = this.#cpu;
    const bytes = cpu.i32[S.SCRATCH_SIZE >> 2];
    if (bytes === 0) return;
    cpu.i32[S.SCRATCH_SIZE >> 2] = 0;
    const split = cpu.i32[S.SCRATCH_SPLIT >> 2];
    this.#scratch.copyOut(cpu.f64[S.SCRATCH_PA0 >> 3], split, 0);
    if (bytes > split) this.#scratch.copyOut(cpu.f64[S.SCRATCH_PA1 >> 3], bytes - split, split);
  }

  #locked = false;
  /** As `slowStore`, with the old contents there. What is locked and not aligned holds the bus. */
  slowRmw(flags: number): number {
    const lock = (flags & S.SlowStore.LOCK) !== 0;
    const misaligned = (this.#cpu.i32[S.SLOW_POINTER >> 2] & ((flags & 0xff) - 1)) !== 0;
    if (lock) this.#cpu.bus.lockBus();
    const pointer = this.slowStore(flags, true, lock && misaligned, lock && !misaligned);
    const inScratch = pointer !== 0 && this.#cpu.i32[S.SCRATCH_SIZE >> 2] !== 0;
    if (lock && !inScratch) this.#cpu.bus.unlockBus();
    this.#locked = lock && inScratch;
    return pointer;
  }
  slowRmwEnd(): void {
    this.slowStoreEnd();
    if (this.#locked) {
      this.#locked = false;
      this.#cpu.bus.unlockBus();
    }
  }

  /** For descriptor tables and stacks: supervisor accesses that SMAP always applies to when CPL is 3. */
  implicitly<T>(body: () => T): T {
    this.#explicit = false;
    try {
      return body();
    } finally {
      this.#explicit = true;
    }
  }
}

export function isGuestFault(error: unknown): error is GuestFault {
  return error instanceof GuestFault;
}
