/**
 * System management mode (SDM 3C, chapter 32) with the save area of processors that have 64-bit mode, which firmware
 * knows by its revision 0x20064 (AMD APM 2, table 10-1). There is no I/O restart.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, CR4, EFER, FLAG, highOf, lowOf, raise } from './cpu.ts';
import { MSR, readMsr64, writeMsr64 } from './msr-numbers.ts';
import type { Paging } from './paging.ts';
import type { Registers } from './registers.ts';
import type { Segments } from './segments.ts';

/** Bit 17: SMBASE can be moved. */
const REVISION = 0x20064;
const CAN_MOVE = 0x20000;
const ENTRY = 0x8000;
/** Offsets from SMBASE. */
const SEGMENTS_AT = 0xfe00;
const AUTO_HALT_AT = 0xfec9;
const EFER_AT = 0xfed0;
const REVISION_AT = 0xfefc;
const SMBASE_AT = 0xff00;
const CR4_AT = 0xff48;
const CR3_AT = 0xff50;
const CR0_AT = 0xff58;
const DR7_AT = 0xff60;
const DR6_AT = 0xff68;
const RFLAGS_AT = 0xff70;
const RIP_AT = 0xff78;
const RAX_AT = 0xfff8;
/** Order of the segment registers, 16 bytes each. */
const ORDER = [S.ES, S.CS, S.SS, S.DS, S.FS, S.GS, S.GDTR, S.LDTR, S.IDTR, S.TR];
/** A writable data segment of four gigabytes. */
const FLAT = 0x8093;

export class SystemManagement {
  readonly #cpu: Cpu;
  readonly #paging: Paging;
  readonly #segments: Segments;
  readonly #registers: Registers;

  constructor(cpu: Cpu, paging: Paging, segments: Segments, registers: Registers) {
    this.#cpu = cpu;
    this.#paging = paging;
    this.#segments = segments;
    this.#registers = registers;
  }

  get inside(): boolean {
    return (this.#cpu.i32[S.SMM >> 2] & S.Smm.INSIDE) !== 0;
  }

  #put(at: number, low: number, high: number): void {
    this.#cpu.memory.write32(at, low >>> 0);
    this.#cpu.memory.write32(at + 4, high >>> 0);
  }
  /** Copies 64 bits of the state block to or from the save area. */
  #save(at: number, offset: number): void {
    this.#put(at, this.#cpu.i32[offset >> 2], this.#cpu.i32[(offset >> 2) + 1]);
  }
  #load(at: number, offset: number): void {
    this.#cpu.i32[offset >> 2] = this.#cpu.memory.read32(at) | 0;
    this.#cpu.i32[(offset >> 2) + 1] = this.#cpu.memory.read32(at + 4) | 0;
  }

  /** An SMI comes, between instructions: NEXT_RIP is where it goes on afterwards. One that comes inside waits for RSM. */
  enter(): void {
    const cpu = this.#cpu;
    const state = cpu.i32;
    if (this.inside) {
      state[S.SMM >> 2] |= S.Smm.WAITS;
      return;
    }
    state[S.SMM >> 2] = S.Smm.INSIDE | ((state[S.NMI >> 2] & S.Nmi.BLOCKED) !== 0 ? S.Smm.NMI_BLOCKED : 0);
    state[S.NMI >> 2] |= S.Nmi.BLOCKED;
    cpu.bus.setSmm(true);
    const base = readMsr64(cpu, MSR.SMBASE).low >>> 0;
    const { memory } = cpu;
    for (let n = 0; n < 16; n++) this.#save(base + RAX_AT - 8 * n, S.GPR + 8 * n);
    for (const [n, index] of ORDER.entries()) {
      const at = base + SEGMENTS_AT + 16 * n;
      memory.write16(at, cpu.selector(index));
      memory.write16(at + 2, cpu.segmentAttr(index) & 0xf0ff);
      memory.write32(at + 4, cpu.segmentLimit(index));
      this.#save(at + 8, S.segment(index) + S.SEG_BASE);
    }
    memory.write8(base + AUTO_HALT_AT, state[S.HALTED >> 2] !== 0 ? 1 : 0);
    this.#save(base + EFER_AT, S.EFER);
    memory.write32(base + REVISION_AT, REVISION);
    memory.write32(base + SMBASE_AT, base);
    for (const [at, offset] of SAVED) this.#save(base + at, offset);
    this.#put(base + RFLAGS_AT, cpu.eflags, 0);

    state[S.HALTED >> 2] = 0;
    state[S.SHADOW >> 2] = 0;
    cpu.eflags = 2;
    cpu.set32(S.CR0, cpu.cr0 & ~(CR0.PE | CR0.EM | CR0.TS | CR0.PG));
    cpu.set32(S.CR4, 0);
    cpu.set32(S.EFER, 0);
    state[(S.DR + 40) >> 2] = 0x400;
    state[S.CPL >> 2] = 0;
    for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS]) this.#segments.set(index, 0, 0, 0xffffffff, FLAT);
    this.#segments.set(S.CS, (base >>> 4) & 0xffff, base, 0xffffffff, FLAT);
    cpu.setNumber(S.NEXT_RIP, ENTRY);
    this.#changed();
  }

  /** RSM; #UD outside. Gives whether the processor goes on waiting in HLT. */
  leave(): boolean {
    if (!this.inside) raise(6);
    const cpu = this.#cpu;
    const state = cpu.i32;
    const { memory } = cpu;
    let base = readMsr64(cpu, MSR.SMBASE).low >>> 0;
    const read = (at: number): number => memory.read32(base + at) | 0;
    // What no processor can be in: it shuts down (SDM 3C, 32.4).
    const cr0 = read(CR0_AT);
    const cr4 = read(CR4_AT);
    const efer = read(EFER_AT);
    const paged = cr0 < 0;
    const wrong = (paged && (cr0 & CR0.PE) === 0) || ((cr0 & CR0.NW) !== 0 && (cr0 & CR0.CD) === 0);
    if (wrong || (paged && (efer & EFER.LME) !== 0 && (cr4 & CR4.PAE) === 0)) {
      cpu.bus.tripleFault();
      return false;
    }
    for (let n = 0; n < 16; n++) this.#load(base + RAX_AT - 8 * n, S.GPR + 8 * n);
    for (const [at, offset] of SAVED) this.#load(base + at, offset);
    cpu.set32(S.CR0, cr0 | CR0.ET);
    cpu.set32(S.EFER, paged ? efer : efer & ~EFER.LMA);
    cpu.eflags = read(RFLAGS_AT);
    for (const [n, index] of ORDER.entries()) {
      const at = SEGMENTS_AT + 16 * n;
      const attr = memory.read16(base + at + 2);
      const where = read(at + 8) >>> 0;
      const upper = read(at + 12);
      this.#segments.set(index, memory.read16(base + at), upper * 4294967296 + where, memory.read32(base + at + 4), attr);
    }
    // CPL is SS's (SDM 3C, 32.2).
    const virtual = (cpu.i32[S.EFLAGS >> 2] & FLAG.VM) !== 0;
    state[S.CPL >> 2] = (cr0 & CR0.PE) === 0 ? 0 : virtual ? 3 : (cpu.segmentAttr(S.SS) >> 5) & 3;
    const halted = memory.read8(base + AUTO_HALT_AT) === 1;
    if ((read(REVISION_AT) & CAN_MOVE) !== 0) base = read(SMBASE_AT) >>> 0;
    writeMsr64(cpu, MSR.SMBASE, lowOf(base), highOf(base));

    const before = state[S.SMM >> 2];
    state[S.SMM >> 2] = 0;
    if ((before & S.Smm.NMI_BLOCKED) === 0) {
      state[S.NMI >> 2] &= ~S.Nmi.BLOCKED;
      if ((state[S.NMI >> 2] & S.Nmi.WAITS) !== 0) Atomics.or(state, S.PENDING >> 2, S.Pending.NMI);
    }
    if ((before & S.Smm.WAITS) !== 0) Atomics.or(state, S.PENDING >> 2, S.Pending.SMI);
    cpu.bus.setSmm(false);
    this.#changed();
    return halted;
  }

  #changed(): void {
    this.#cpu.breakpointsChanged();
    this.#paging.flush();
    this.#segments.updateMode();
    this.#registers.updateFpuBlock();
  }
}

/** Plain registers: place in the save area, place in the state block. */
const SAVED: readonly (readonly [number, number])[] = [
  [CR4_AT, S.CR4],
  [CR3_AT, S.CR3],
  [CR0_AT, S.CR0],
  [DR7_AT, S.DR + 40],
  [DR6_AT, S.DR + 32],
  [RIP_AT, S.NEXT_RIP],
];
