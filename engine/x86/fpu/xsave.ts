/**
 * XSAVE and its kin (SDM 1, chapter 13): x87, SSE and AVX state to and from memory, XCR0.
 *
 * There are two extended components: AVX, which lies at byte 576 in the standard and in the compacted format, and PKRU,
 * which the compacted format has right behind. Images are put together in a buffer: all of what is written is probed
 * first, so that a fault leaves memory and registers alone.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, CR4, isCanonical, linear, raise } from '../system/cpu.ts';
import type { FpuState } from './fpu-state.ts';
import { isInitial, resetX87, restoreX87, saveX87 } from './fxsave.ts';

export const Component = { X87: 1, SSE: 2, AVX: 4, PKRU: 0x200 } as const;
const LEGACY_BYTES = 512;
const HEADER_END = 576;
const AVX_AT = 576;
const AVX_BYTES = 256;
const MXCSR_AT = 24;
const XMM_AT = 160;
const COMPACTED_HIGH = 0x80000000 | 0;
const MXCSR_MASK = 0xffff;
const INITIAL_MXCSR = 0x1f80;

/** Where extended components lie in the standard format, as CPUID 0DH tells. */
export const AVX_AREA = { at: AVX_AT, bytes: AVX_BYTES } as const;
export const PKRU_AREA = { at: 2688, bytes: 8 } as const;

/** Where PKRU lies in the compacted format of an area for these components. */
const compactedPkru = (components: number): number => ((components & Component.AVX) !== 0 ? AVX_AT + AVX_BYTES : HEADER_END);
/** Bytes that an area for these components has in the standard format. */
export const areaBytes = (components: number): number =>
  (components & Component.PKRU) !== 0 ? PKRU_AREA.at + PKRU_AREA.bytes : compactedPkru(components);
/** The same in the compacted format. */
export const compactedBytes = (components: number): number =>
  compactedPkru(components) + ((components & Component.PKRU) !== 0 ? PKRU_AREA.bytes : 0);
/** Components of a CPU with these features. */
export const supportedComponents = (has: (feature: string) => boolean): number =>
  Component.X87 | Component.SSE | (has('avx') ? Component.AVX : 0) | (has('pku') ? Component.PKRU : 0);

/** Where an area lies: a linear address as two words; `stack`: its segment is SS. */
export interface Area {
  readonly low: number;
  readonly high: number;
  readonly stack: boolean;
}

export class Xsave {
  readonly #cpu: Cpu;
  readonly #state: FpuState;
  readonly #has: (feature: string) => boolean;
  readonly #image = new DataView(new ArrayBuffer(AVX_AT + AVX_BYTES));

  constructor(cpu: Cpu, state: FpuState, has: (feature: string) => boolean) {
    this.#cpu = cpu;
    this.#state = state;
    this.#has = has;
  }

  /** Components that XCR0 can enable. */
  get supported(): number {
    return supportedComponents(this.#has);
  }
  get #xcr0(): number {
    return this.#cpu.i32[S.XCR0 >> 2];
  }
  get #registers(): number {
    return this.#cpu.is64 ? 16 : 8;
  }

  #enabled(): void {
    if ((this.#cpu.cr4 & CR4.OSXSAVE) === 0) raise(6);
  }
  /** What comes before any access: #UD, #NM, an area that is aligned and at a canonical address. */
  #check({ low, high, stack }: Area): number {
    this.#enabled();
    if ((this.#cpu.cr0 & CR0.TS) !== 0) raise(7);
    if ((low & 63) !== 0) raise(13, 0);
    if (!isCanonical(low, high)) raise(stack ? 12 : 13, 0);
    return linear(low, high);
  }
  /** The components that EDX:EAX asks for. */
  get #requested(): number {
    return this.#xcr0 & this.#cpu.i32[S.GPR >> 2];
  }

  /** Components that are not in their initial state (13.6). */
  #inUse(): number {
    const { i32 } = this.#cpu;
    let used = isInitial(this.#state) ? 0 : Component.X87;
    if (this.#cpu.pkru !== 0) used |= Component.PKRU & this.supported;
    for (let n = 0; n < this.#registers; n++) {
      const at = (S.VECTOR + n * S.VECTOR_STRIDE) >> 2;
      if ((i32[at] | i32[at + 1] | i32[at + 2] | i32[at + 3]) !== 0) used |= Component.SSE;
      if ((i32[at + 4] | i32[at + 5] | i32[at + 6] | i32[at + 7]) !== 0) used |= Component.AVX;
    }
    return used;
  }

  xgetbv(): void {
    this.#enabled();
    const cpu = this.#cpu;
    const index = cpu.u32[(S.GPR + 8) >> 2];
    let value = this.#xcr0;
    if (index === 1 && this.#has('xgetbv1')) value &= this.#inUse();
    else if (index !== 0) raise(13, 0);
    cpu.setNumber(S.GPR, value);
    cpu.setNumber(S.GPR + 16, 0);
  }

  xsetbv(): void {
    this.#enabled();
    const cpu = this.#cpu;
    const [low, high] = [cpu.i32[S.GPR >> 2], cpu.i32[(S.GPR + 16) >> 2]];
    if (cpu.cpl !== 0 || cpu.u32[(S.GPR + 8) >> 2] !== 0) raise(13, 0);
    if (high !== 0 || (low & ~this.supported) !== 0 || (low & Component.X87) === 0) raise(13, 0);
    if ((low & Component.AVX) !== 0 && (low & Component.SSE) === 0) raise(13, 0);
    cpu.i32[S.XCR0 >> 2] = low;
  }

  /** XSAVE; with `optimize` XSAVEOPT, which leaves components in their initial state out. */
  save(area: Area, wide: boolean, optimize: boolean): void {
    const address = this.#check(area);
    const requested = this.#requested;
    const used = this.#inUse();
    this.#probe(address, areaBytes(requested));
    this.#write(address, requested, optimize ? requested & used : requested, (requested & 6) !== 0, wide, PKRU_AREA.at);
    const user = this.#cpu.cpl === 3;
    const old = this.#cpu.read32(address + LEGACY_BYTES, user);
    this.#cpu.write32(address + LEGACY_BYTES, (old & ~requested) | (used & requested), user);
  }

  /** XSAVEC and XSAVES: the compacted format. */
  saveCompacted(area: Area, wide: boolean): void {
    const address = this.#check(area);
    const cpu = this.#cpu;
    const requested = this.#requested;
    let used = this.#inUse() & requested;
    // Here MXCSR belongs to the SSE component.
    if (cpu.i32[S.MXCSR >> 2] !== INITIAL_MXCSR) used |= requested & Component.SSE;
    this.#probe(address, compactedBytes(requested));
    this.#write(address, requested, used, (used & Component.SSE) !== 0, wide, compactedPkru(requested));
    const user = cpu.cpl === 3;
    const header = [used, 0, requested, COMPACTED_HIGH];
    for (const [word, value] of header.entries()) cpu.write32(address + LEGACY_BYTES + 4 * word, value, user);
  }

  /** Looks whether all of an area can be written: its first and its last byte, as silicon does. */
  #probe(address: number, bytes: number): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    for (const at of [0, bytes - 1]) cpu.translate(cpu.wrap(address + at), true, user);
  }

  #write(address: number, requested: number, components: number, mxcsr: boolean, wide: boolean, pkruAt: number): void {
    const cpu = this.#cpu;
    const image = this.#image;
    const user = cpu.cpl === 3;
    const copy = (from: number, to: number): void => {
      cpu.writeBlock(cpu.wrap(address + from), new Uint8Array(image.buffer, from, to - from), user);
    };
    if ((components & Component.X87) !== 0) {
      saveX87(this.#state, image, wide);
      copy(0, MXCSR_AT);
      copy(32, XMM_AT);
    }
    if (mxcsr) {
      image.setInt32(MXCSR_AT, cpu.i32[S.MXCSR >> 2], true);
      image.setInt32(MXCSR_AT + 4, MXCSR_MASK, true);
      copy(MXCSR_AT, 32);
    }
    if ((components & requested & Component.PKRU) !== 0) {
      cpu.write32(cpu.wrap(address + pkruAt), cpu.pkru, user);
      cpu.write32(cpu.wrap(address + pkruAt + 4), 0, user);
    }
    for (const [component, at, offset] of [
      [Component.SSE, XMM_AT, 0],
      [Component.AVX, AVX_AT, 16],
    ] as const) {
      if ((components & requested & component) === 0) continue;
      for (let n = 0; n < this.#registers; n++)
        for (let word = 0; word < 4; word++)
          image.setInt32(at + 16 * n + 4 * word, cpu.i32[((S.VECTOR + n * S.VECTOR_STRIDE + offset) >> 2) + word], true);
      copy(at, at + 16 * this.#registers);
    }
  }

  /** XRSTOR, and with `compactedOnly` XRSTORS. */
  restore(area: Area, wide: boolean, compactedOnly: boolean): void {
    const address = this.#check(area);
    const cpu = this.#cpu;
    const image = this.#image;
    const user = cpu.cpl === 3;
    const requested = this.#requested;
    const read = (from: number, to: number): void => {
      cpu.readBlock(cpu.wrap(address + from), new Uint8Array(image.buffer, from, to - from), user);
    };
    // The header is looked at before anything changes (13.8, 13.12), but a fault of the area's start comes before.
    cpu.translate(address, false, user);
    read(LEGACY_BYTES, HEADER_END);
    const word = (n: number): number => image.getInt32(LEGACY_BYTES + 4 * n, true);
    const present = word(0);
    const format = word(2);
    const compacted = word(3) === COMPACTED_HIGH;
    if (compacted) {
      if (!this.#has('xsavec') || (format & ~this.#xcr0) !== 0 || word(1) !== 0 || (present & ~format) !== 0) raise(13, 0);
      for (let n = 4; n < 16; n++) if (word(n) !== 0) raise(13, 0);
    } else {
      if (compactedOnly || word(1) !== 0 || (present & ~this.#xcr0) !== 0) raise(13, 0);
      if ((word(2) | word(3) | word(4) | word(5)) !== 0) raise(13, 0);
    }
    const loads = requested & present;
    const withMxcsr = compacted ? (loads & Component.SSE) !== 0 : (requested & 6) !== 0;
    if ((loads & Component.X87) !== 0) {
      read(0, MXCSR_AT);
      read(32, XMM_AT);
    }
    let mxcsr = INITIAL_MXCSR;
    if (withMxcsr) {
      mxcsr = cpu.read32(cpu.wrap(address + MXCSR_AT), user);
      if ((mxcsr & ~MXCSR_MASK) !== 0) raise(13, 0);
    }
    const bytes = 16 * this.#registers;
    if ((loads & Component.SSE) !== 0) read(XMM_AT, XMM_AT + bytes);
    if ((loads & Component.AVX) !== 0) read(AVX_AT, AVX_AT + bytes);
    let pkru = 0;
    if ((loads & Component.PKRU) !== 0)
      pkru = cpu.read32(cpu.wrap(address + (compacted ? compactedPkru(format) : PKRU_AREA.at)), user);
    // From here on nothing faults.
    if ((requested & Component.PKRU) !== 0) cpu.pkru = pkru;
    if ((requested & Component.X87) !== 0) {
      if ((loads & Component.X87) !== 0) restoreX87(this.#state, image, wide);
      else resetX87(this.#state);
    }
    if (withMxcsr || (compacted && (requested & Component.SSE) !== 0)) cpu.i32[S.MXCSR >> 2] = mxcsr;
    for (const [component, at, offset] of [
      [Component.SSE, XMM_AT, 0],
      [Component.AVX, AVX_AT, 16],
    ] as const) {
      if ((requested & component) === 0) continue;
      const load = (loads & component) !== 0;
      for (let n = 0; n < this.#registers; n++)
        for (let k = 0; k < 4; k++)
          cpu.i32[((S.VECTOR + n * S.VECTOR_STRIDE + offset) >> 2) + k] = load ? image.getInt32(at + 16 * n + 4 * k, true) : 0;
    }
  }
}
