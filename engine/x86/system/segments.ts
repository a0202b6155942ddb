/** Segmentation (SDM 3A, chapters 3 and 5): descriptors, segment loads, and the decoding mode that follows from them. */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, highOf, isCanonical, linear, lowOf, raise } from './cpu.ts';

/** Attribute bits: the second descriptor word shifted right by 8. */
export const ATTR = {
  TYPE: 15,
  S: 16,
  DPL: 0x60,
  P: 0x80,
  L: 0x2000,
  DB: 0x4000,
  G: 0x8000,
  CODE: 8,
  CONFORMING: 4,
  RW: 2,
  ACCESSED: 1,
} as const;

export interface Descriptor {
  readonly low: number;
  readonly high: number;
  /** Linear address of the descriptor, for setting its accessed or busy bit. */
  readonly at: number;
  readonly base: number;
  readonly limit: number;
  readonly attr: number;
}

export const dpl = (attr: number): number => (attr >> 5) & 3;
export const isPresent = (attr: number): boolean => (attr & ATTR.P) !== 0;
export const isCode = (attr: number): boolean => (attr & (ATTR.S | ATTR.CODE)) === (ATTR.S | ATTR.CODE);
export const isConforming = (attr: number): boolean => (attr & ATTR.CONFORMING) !== 0;

/** The lowest and the highest offset inside a segment (SDM 3A, 5.3); what expands down begins above its limit. */
export function boundsOf(limit: number, attr: number): { readonly low: number; readonly high: number } {
  if ((attr & ATTR.CODE) !== 0 || (attr & 4) === 0) return { low: 0, high: limit >>> 0 };
  return { low: (limit + 1) >>> 0, high: (attr & ATTR.DB) !== 0 ? 0xffffffff : 0xffff };
}

export class Segments {
  readonly #cpu: Cpu;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  /** Fills a segment register's hidden part. */
  set(index: number, selector: number, base: number, limit: number, attr: number): void {
    const cpu = this.#cpu;
    const at = S.segment(index) >> 2;
    cpu.i32[at] = lowOf(base);
    cpu.i32[at + 1] = highOf(base);
    cpu.i32[at + (S.SEG_LIMIT >> 2)] = limit | 0;
    cpu.i32[at + (S.SEG_ATTR >> 2)] = attr;
    cpu.i32[at + (S.SEG_SELECTOR >> 2)] = selector;
    const code = (attr & ATTR.CODE) !== 0;
    const { low, high } = boundsOf(limit, attr);
    cpu.i32[at + (S.SEG_LOW >> 2)] = low;
    cpu.i32[at + (S.SEG_HIGH >> 2)] = high;
    let access = 0;
    if ((attr & (ATTR.P | ATTR.S)) === (ATTR.P | ATTR.S)) {
      if (!code || (attr & ATTR.RW) !== 0) access |= 1;
      if (!code && (attr & ATTR.RW) !== 0) access |= 2;
      // Without protection no segment is read-only, not even CS: boot sectors store by it.
      if (!cpu.isProtected) access = 3;
    }
    cpu.i32[at + (S.SEG_ACCESS >> 2)] = access;
  }

  /** A register in real or virtual-8086 mode: base is selector * 16. The limit and type of real mode stay as they were. */
  setReal(index: number, selector: number): void {
    const cpu = this.#cpu;
    if (cpu.isVirtual8086) {
      this.set(index, selector, selector << 4, 0xffff, 0xf3);
      return;
    }
    const attr = index === S.CS ? 0x9b : 0x93;
    const limit = cpu.segmentLimit(index);
    this.set(index, selector, selector << 4, limit < 0xffff ? 0xffff : limit, attr);
  }

  /** Makes a segment register unusable: a null selector. */
  setNull(index: number, selector: number): void {
    const cpu = this.#cpu;
    // In 64-bit mode base and attributes of a null FS or GS keep no meaning, but SS remembers its DPL.
    this.set(index, selector, 0, 0, index === S.SS ? 0x93 | (cpu.cpl << 5) | ATTR.DB : 0);
    cpu.i32[(S.segment(index) + S.SEG_ACCESS) >> 2] = 0;
  }

  /** Takes a segment away from an outer level: the selector becomes null, and its base stays for 64-bit code. */
  drop(index: number): void {
    const cpu = this.#cpu;
    const at = S.segment(index) >> 2;
    cpu.i32[at + (S.SEG_SELECTOR >> 2)] = 0;
    cpu.i32[at + (S.SEG_ATTR >> 2)] = 0;
    cpu.i32[at + (S.SEG_ACCESS >> 2)] = 0;
  }

  /** Reads the descriptor of a selector; raises `vector` with the selector as code where the table does not reach. */
  descriptor(selector: number, vector = 13): Descriptor {
    const cpu = this.#cpu;
    const table = (selector & 4) !== 0 ? S.LDTR : S.GDTR;
    const limit = cpu.segmentLimit(table);
    const offset = selector & 0xfff8;
    if (offset + 7 > limit || (table === S.LDTR && !isPresent(cpu.segmentAttr(S.LDTR)))) raise(vector, selector & 0xfffc);
    const at = cpu.segmentBase(table) + offset;
    cpu.readPair(at);
    return decode(cpu.low, cpu.high, at);
  }

  /** Sets the accessed bit of a code or data descriptor. */
  touch(descriptor: Descriptor): void {
    if ((descriptor.attr & ATTR.ACCESSED) === 0)
      this.#cpu.writeByte(descriptor.at + 5, (descriptor.attr | ATTR.ACCESSED) & 0xff, false);
  }

  /** Loads a descriptor's contents into a register. */
  install(index: number, selector: number, descriptor: Descriptor): void {
    this.touch(descriptor);
    this.set(index, selector, descriptor.base, descriptor.limit, descriptor.attr | ATTR.ACCESSED);
  }

  /** MOV, POP and far-pointer loads of ES, SS, DS, FS, GS (SDM 2, MOV). */
  load(index: number, selector: number): void {
    const cpu = this.#cpu;
    if (!cpu.isProtected || cpu.isVirtual8086) {
      this.setReal(index, selector);
      this.updateMode();
      return;
    }
    const rpl = selector & 3;
    const cpl = cpu.cpl;
    if ((selector & 0xfffc) === 0) {
      if (index === S.SS && (!cpu.is64 || cpl === 3 || rpl !== cpl)) raise(13, 0);
      this.setNull(index, selector);
      this.updateMode();
      return;
    }
    const descriptor = this.descriptor(selector);
    const { attr } = descriptor;
    const code = selector & 0xfffc;
    if ((attr & ATTR.S) === 0) raise(13, code);
    if (index === S.SS) {
      if (rpl !== cpl || (attr & ATTR.CODE) !== 0 || (attr & ATTR.RW) === 0 || dpl(attr) !== cpl) raise(13, code);
      if (!isPresent(attr)) raise(12, code);
    } else {
      if ((attr & ATTR.CODE) !== 0 && (attr & ATTR.RW) === 0) raise(13, code);
      if (!(isCode(attr) && isConforming(attr)) && (rpl > dpl(attr) || cpl > dpl(attr))) raise(13, code);
      if (!isPresent(attr)) raise(11, code);
    }
    this.install(index, selector, descriptor);
    this.updateMode();
  }

  /** Loads CS once all checks are done; `cpl` becomes the RPL of the selector. Without `update` the caller does that. */
  setCode(selector: number, descriptor: Descriptor, cpl: number, update = true): void {
    const cpu = this.#cpu;
    this.install(S.CS, (selector & 0xfffc) | cpl, descriptor);
    cpu.i32[S.CPL >> 2] = cpl;
    if (update) this.updateMode();
  }

  /** Recomputes what decoding and the TLB depend on. Called after every change of CS, SS, DS, ES, CPL, CR0, EFER or AC. */
  updateMode(): void {
    const cpu = this.#cpu;
    const csAttr = cpu.segmentAttr(S.CS);
    let mode: number;
    if (cpu.isLongActive && (csAttr & ATTR.L) !== 0) mode = 2;
    else {
      mode = (csAttr & ATTR.DB) !== 0 ? 1 : 0;
      if ((cpu.segmentAttr(S.SS) & ATTR.DB) !== 0) mode |= 4;
      if (mode === 5 && this.#flat(S.CS, 1) && this.#flat(S.SS, 3) && this.#flat(S.DS, 3) && this.#flat(S.ES, 3)) mode |= 8;
    }
    if (!cpu.isProtected || cpu.isVirtual8086) mode |= 32;
    cpu.i32[S.MODE >> 2] = mode;
    // With a base or a limit of its own the code segment makes something else of a RIP than its linear address.
    const linearRip = (mode & 3) === 2 || (cpu.segmentBase(S.CS) === 0 && cpu.segmentLimit(S.CS) === 0xffffffff);
    cpu.i32[(S.CODE_KEY >> 2) + 1] = (mode << 12) | (linearRip ? 0 : 0x80000000);
    cpu.modeChanged();
  }

  #flat(index: number, access: number): boolean {
    const cpu = this.#cpu;
    const at = S.segment(index) >> 2;
    return (
      cpu.i32[at] === 0 &&
      cpu.i32[at + (S.SEG_LOW >> 2)] === 0 &&
      cpu.i32[at + (S.SEG_HIGH >> 2)] === -1 &&
      (cpu.i32[at + (S.SEG_ACCESS >> 2)] & access) === access
    );
  }

  /** Base of the system descriptor of a selector, which has 16 bytes in IA-32e mode; #GP where it is not canonical. */
  systemBase(descriptor: Descriptor, selector: number): number {
    const cpu = this.#cpu;
    if (!cpu.isLongActive) return descriptor.base;
    const upper = cpu.read32(descriptor.at + 8, false);
    if (!isCanonical(descriptor.base | 0, upper)) raise(13, selector & 0xfffc);
    return linear(descriptor.base | 0, upper);
  }

  /** After a change of CR0.PE: segments keep their hidden parts, CPL is 0. */
  enterOrLeaveProtection(): void {
    const cpu = this.#cpu;
    if ((cpu.cr0 & CR0.PE) === 0) cpu.i32[S.CPL >> 2] = 0;
    this.updateMode();
  }
}

/** Takes a descriptor apart (SDM 3A, figure 3-8). */
export function decode(low: number, high: number, at: number): Descriptor {
  const attr = (high >>> 8) & 0xf0ff;
  let limit = ((low & 0xffff) | (high & 0xf0000)) >>> 0;
  if ((attr & ATTR.G) !== 0) limit = ((limit << 12) | 0xfff) >>> 0;
  const base = ((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)) >>> 0;
  return { low, high, at, base, limit, attr };
}
