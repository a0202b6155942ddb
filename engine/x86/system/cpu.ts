/**
 * One vCPU as the long helpers see it: views over its state block, guest memory by linear address, and the faults
 * they raise.
 *
 * A linear address is a number: canonical 64-bit addresses are signed 48-bit values (so the upper half is
 * negative), 32-bit ones are 0 to 2^32 - 1. Both are exact. Helpers raise faults by throwing the one `GuestFault`
 * of the vCPU; the boundary to translated code turns it into EXCEPTION.
 */
import type { PhysicalMemory } from '../../memory/physical.ts';
import * as S from '../../memory/vcpu-state.ts';

/** What a vCPU asks of the machine around it. Calls to devices take the machine lock inside. */
export interface CpuBus {
  readonly index: number;
  readonly count: number;
  readPort(port: number, size: 1 | 2 | 4): number;
  /** Several reads of a port at once; returns how many bytes of `target` were filled, 0 where they are made one by one. */
  readPortBlock?(port: number, size: 1 | 2 | 4, target: Uint8Array): number;
  writePort(port: number, size: 1 | 2 | 4, value: number): void;
  readMmio(address: number, size: 1 | 2 | 4): number;
  writeMmio(address: number, size: 1 | 2 | 4, value: number): void;
  /** The vector to take now (INTA), or -1. */
  acknowledge(): number;
  /** Time-stamp counter in ticks, a number below 2^53. */
  tsc(): number;
  /** Ticks at the TSC's rate while this vCPU's thread had a core. */
  cycles(): number;
  /** Sets the TSC's value (WRMSR). */
  setTsc(value: number): void;
  /** MSRs of the local APIC and its base; undefined: not one of them; false: #GP. */
  readApicMsr(index: number): { low: number; high: number } | undefined | false;
  writeApicMsr(index: number, low: number, high: number): boolean | undefined;
  /** The performance counters' entry of the local APIC's vector table. */
  performanceInterrupt(): void;
  /** Requests PERFORMANCE in so many nanoseconds; Infinity: not at all. */
  performanceTimer(ns: number): void;
  readTpr(): number;
  writeTpr(value: number): void;
  /** Paravirtual clock: the guest wrote its MSR. */
  kvmClock(msr: number, low: number, high: number): void;
  /** KVM's hypercalls (Linux, Documentation/virt/kvm/x86/hypercalls.rst): wakes the vCPU of an APIC id. */
  kick(apicId: number): void;
  /** Sends the interrupt of an ICR value to the APIC ids `first + n` for each bit n of the two words; gives how many there were. */
  sendIpis(low: number, high: number, first: number, icr: number): number;
  /** Whether address line 20 is let through (the AT's gate). */
  a20(): boolean;
  /** System management mode begins or ends: memory of its own comes or goes. */
  setSmm(inside: boolean): void;
  /** The vCPU spins: another may need the host's core. */
  relax(): void;
  /** A triple fault, or another end of the machine. */
  tripleFault(): void;
  /** Random 32 bits. */
  random(): number;
  /** Takes and releases the lock that makes misaligned and 16-byte locked operations whole. */
  lockBus(): void;
  unlockBus(): void;
}

/** The fault that a helper throws; `vector`, `code` and `hasCode` say which. */
export class GuestFault {
  vector = 0;
  code = 0;
}

export const FLAG = {
  CF: 1,
  PF: 4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  VM: 0x20000,
  AC: 0x40000,
  VIF: 0x80000,
  VIP: 0x100000,
  ID: 0x200000,
} as const;
export const ARITHMETIC = 0x8d5;

export const CR0 = {
  PE: 1,
  MP: 2,
  EM: 4,
  TS: 8,
  ET: 16,
  NE: 32,
  WP: 1 << 16,
  AM: 1 << 18,
  NW: 1 << 29,
  CD: 1 << 30,
  PG: 1 << 31,
} as const;
export const CR4 = {
  VME: 1,
  PVI: 2,
  TSD: 4,
  DE: 8,
  PSE: 16,
  PAE: 32,
  MCE: 64,
  PGE: 128,
  PCE: 256,
  OSFXSR: 512,
  OSXMMEXCPT: 1024,
  UMIP: 2048,
  LA57: 4096,
  FSGSBASE: 1 << 16,
  PCIDE: 1 << 17,
  OSXSAVE: 1 << 18,
  SMEP: 1 << 20,
  SMAP: 1 << 21,
  PKE: 1 << 22,
  PKS: 1 << 24,
} as const;
export const EFER = { SCE: 1, LME: 0x100, LMA: 0x400, NXE: 0x800 } as const;

const fault = new GuestFault();

/** Raises an exception from a helper. */
export function raise(vector: number, code = 0): never {
  fault.vector = vector;
  fault.code = code;
  throw fault;
}

/** The signed 48-bit form of a linear address given as two halves. */
export const linear = (low: number, high: number): number => (high | 0) * 4294967296 + (low >>> 0);
/** True where a 64-bit address is canonical. */
export const isCanonical = (low: number, high: number): boolean => {
  void low;
  const top = (high | 0) >> 15;
  return top === 0 || top === -1;
};
/** Low 32 bits of a linear address, signed. */
export const lowOf = (address: number): number => address | 0;
export const highOf = (address: number): number => Math.floor(address / 4294967296) | 0;

export class Cpu {
  readonly bus: CpuBus;
  readonly memory: PhysicalMemory;
  /** Byte offset of the state block in the machine memory. */
  readonly at: number;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly f64: Float64Array;
  readonly i64: BigInt64Array;
  readonly u64: BigUint64Array;
  /** The TLBs of all address spaces, see `SPACES_AT`. */
  readonly tlb: Int32Array;
  readonly buffer: ArrayBufferLike;
  /** Called when what decoding depends on has changed (mode, CS, flat segments). */
  modeChanged: () => void = () => {};
  /** Drops the TLB and what hangs on it; set by the paging unit. */
  flushAll: () => void = () => {};
  /** Debug registers were written, or CR4.DE. */
  breakpointsChanged: () => void = () => {};
  /** A task whose TSS asks for a debug trap was switched to. */
  taskTrap: () => void = () => {};
  /** Programs' operands must be aligned: CPL 3, EFLAGS.AC and CR0.AM. Kept by the paging unit. */
  aligning = false;
  /** #AC for an operand of a program that is not aligned, once it is known that there is no page fault. */
  checkAlignment(address: number, bytes: number): void {
    if ((address & (bytes - 1)) !== 0) raise(17, 0);
  }
  /** Accesses of helpers to linear addresses are told to `touched`. */
  watching = false;
  touched: (address: number, bytes: number, write: boolean) => void = () => {};
  /** Which TF counts for the trap after the instruction that runs alone: the one before it, the one it leaves, or none. */
  trapRule: 'before' | 'after' | 'none' = 'before';

  constructor(bus: CpuBus, memory: PhysicalMemory, buffer: ArrayBufferLike, at: number) {
    this.bus = bus;
    this.memory = memory;
    this.buffer = buffer;
    this.at = at;
    this.u8 = new Uint8Array(buffer, at, S.STATE_BYTES);
    this.u16 = new Uint16Array(buffer, at, S.STATE_BYTES / 2);
    this.i32 = new Int32Array(buffer, at, S.STATE_BYTES / 4);
    this.u32 = new Uint32Array(buffer, at, S.STATE_BYTES / 4);
    this.f64 = new Float64Array(buffer, at, S.STATE_BYTES / 8);
    this.i64 = new BigInt64Array(buffer, at, S.STATE_BYTES / 8);
    this.u64 = new BigUint64Array(buffer, at, S.STATE_BYTES / 8);
    this.tlb = new Int32Array(buffer, at + S.SPACES_AT, S.TLBS_BYTES / 4);
  }

  // --- plain state ------------------------------------------------------------------------------------------------

  get32(offset: number): number {
    return this.i32[offset >> 2];
  }
  set32(offset: number, value: number): void {
    this.i32[offset >> 2] = value;
  }
  /** A 64-bit field as a signed number; exact below 2^53. */
  getNumber(offset: number): number {
    return this.i32[(offset >> 2) + 1] * 4294967296 + this.u32[offset >> 2];
  }
  setNumber(offset: number, value: number): void {
    this.i32[offset >> 2] = lowOf(value);
    this.i32[(offset >> 2) + 1] = highOf(value);
  }
  get cr0(): number {
    return this.i32[S.CR0 >> 2];
  }
  get cr4(): number {
    return this.i32[S.CR4 >> 2];
  }
  get efer(): number {
    return this.i32[S.EFER >> 2];
  }
  get cpl(): number {
    return this.i32[S.CPL >> 2];
  }
  get isProtected(): boolean {
    return (this.cr0 & CR0.PE) !== 0;
  }
  get isVirtual8086(): boolean {
    return (this.i32[S.EFLAGS >> 2] & FLAG.VM) !== 0;
  }
  /** IA-32e mode is active (64-bit or compatibility). */
  get isLongActive(): boolean {
    return (this.efer & EFER.LMA) !== 0;
  }
  /** CS is a 64-bit code segment. */
  get is64(): boolean {
    return (this.i32[S.MODE >> 2] & 3) === 2;
  }

  /** EFLAGS with the arithmetic flags filled in. */
  get eflags(): number {
    const aux = this.i32[S.FLAG_AUX >> 2];
    const low = this.i32[S.FLAG_RES >> 2];
    const high = this.i32[(S.FLAG_RES >> 2) + 1];
    let flags = this.i32[S.EFLAGS >> 2] | 2;
    if (aux < 0) flags |= FLAG.CF;
    let parity = (low ^ (aux >>> 8)) & 0xff;
    parity ^= parity >> 4;
    if (((0x9669 >> (parity & 15)) & 1) !== 0) flags |= FLAG.PF;
    flags |= (aux << 1) & FLAG.AF;
    if ((low | high) === 0) flags |= FLAG.ZF;
    if (high < 0 !== ((aux & 1) !== 0)) flags |= FLAG.SF;
    if ((((aux >>> 31) ^ (aux >>> 30)) & 1) !== 0) flags |= FLAG.OF;
    return flags;
  }
  set eflags(flags: number) {
    this.setArithmetic(flags);
    this.i32[S.EFLAGS >> 2] = (flags & ~ARITHMETIC & 0x3f7fd5) | 2;
  }
  /** Sets the six arithmetic flags from an image of EFLAGS. */
  setArithmetic(flags: number): void {
    const notZero = (flags & FLAG.ZF) === 0 ? 1 : 0;
    const delta = ((flags & FLAG.PF) !== 0 ? 0 : 1) ^ notZero;
    const cf = flags & 1;
    const of = (flags >> 11) & 1;
    this.i32[S.FLAG_RES >> 2] = notZero;
    this.i32[(S.FLAG_RES >> 2) + 1] = 0;
    this.i32[S.FLAG_AUX >> 2] = (cf << 31) | ((cf ^ of) << 30) | (delta << 8) | (((flags >> 4) & 1) << 3) | ((flags >> 7) & 1);
  }

  /** Rights of protection keys for user pages; translations that were made under others go. */
  get pkru(): number {
    return this.i32[S.PKRU >> 2];
  }
  set pkru(value: number) {
    if (value === this.pkru) return;
    this.i32[S.PKRU >> 2] = value;
    if ((this.cr4 & CR4.PKE) !== 0) this.flushAll();
  }

  // --- segments ---------------------------------------------------------------------------------------------------

  selector(index: number): number {
    return this.i32[(S.segment(index) + S.SEG_SELECTOR) >> 2] & 0xffff;
  }
  segmentBase(index: number): number {
    return this.getNumber(S.segment(index) + S.SEG_BASE);
  }
  segmentLimit(index: number): number {
    return this.u32[(S.segment(index) + S.SEG_LIMIT) >> 2];
  }
  segmentAttr(index: number): number {
    return this.i32[(S.segment(index) + S.SEG_ATTR) >> 2];
  }

  /** Linear address of `bytes` at an offset of the stack segment, outside of 64-bit mode; #SS(`code`) beyond its limits. */
  stackAddress(offset: number, bytes: number, code = 0): number {
    const at = S.segment(S.SS) >> 2;
    if (offset < this.u32[at + (S.SEG_LOW >> 2)] || offset + bytes - 1 > this.u32[at + (S.SEG_HIGH >> 2)]) raise(12, code);
    return (this.segmentBase(S.SS) + offset) >>> 0;
  }

  // --- guest memory by linear address -----------------------------------------------------------------------------

  /** Set by the paging unit: host offset of a linear address for an access, or -1 where a device is; raises faults. */
  translate: (address: number, write: boolean, user: boolean) => number = () => -1;
  /** Physical address that the last `translate` found. */
  physical = 0;

  /** Tables and stacks of the supervisor lie anywhere in IA-32e mode, also while compatibility mode runs. */
  #one(address: number, write: boolean, user: boolean): number {
    return this.translate(user || !this.isLongActive ? this.wrap(address) : address, write, user);
  }
  /** Looks whether both pages of a write that straddles them may be written, in order. */
  #both(address: number, user: boolean): void {
    this.#one(address, true, user);
    this.#one(address - (address & 0xfff) + 4096, true, user);
  }
  /** Keeps an address to the width of the current mode. */
  wrap(address: number): number {
    if (this.isLongActive && this.is64) return address;
    return address < 0 || address > 0xffffffff ? address >>> 0 : address;
  }

  readByte(address: number, user: boolean): number {
    if (this.watching) this.touched(this.wrap(address), 1, false);
    const host = this.#one(address, false, user);
    if (host >= 0) return this.memory.bytes[host];
    return this.bus.readMmio(this.physical, 1);
  }
  read16(address: number, user: boolean): number {
    if (this.watching) this.touched(this.wrap(address), 2, false);
    if (this.aligning && user) this.checkAlignment(address, 2);
    if ((address & 0xfff) === 0xfff) return this.readByte(address, user) | (this.readByte(address + 1, user) << 8);
    const host = this.#one(address, false, user);
    if (host >= 0) return this.memory.data.getUint16(host, true);
    return this.bus.readMmio(this.physical, 2);
  }
  read32(address: number, user: boolean): number {
    if (this.watching) this.touched(this.wrap(address), 4, false);
    if (this.aligning && user) this.checkAlignment(address, 4);
    if ((address & 0xfff) > 0xffc) return this.read16(address, user) | (this.read16(address + 2, user) << 16);
    const host = this.#one(address, false, user);
    if (host >= 0) return this.memory.data.getInt32(host, true);
    return this.bus.readMmio(this.physical, 4) | 0;
  }
  /** Reads bytes that may lie in several pages; devices are read in words of 32 bits, so lengths are multiples of 4. */
  readBlock(address: number, into: Uint8Array, user: boolean): void {
    for (let done = 0; done < into.length; ) {
      const at = this.wrap(address + done);
      const count = Math.min(into.length - done, 4096 - (lowOf(at) & 0xfff));
      const host = this.watching ? -1 : this.#one(at, false, user);
      if (host >= 0) into.set(this.memory.bytes.subarray(host, host + count), done);
      else
        for (let n = done; n < done + count; n += 4) {
          const word = this.read32(this.wrap(address + n), user);
          for (let byte = 0; byte < 4; byte++) into[n + byte] = word >>> (8 * byte);
        }
      done += count;
    }
  }
  /** Writes what `readBlock` reads. */
  writeBlock(address: number, from: Uint8Array, user: boolean): void {
    for (let done = 0; done < from.length; ) {
      const at = this.wrap(address + done);
      const count = Math.min(from.length - done, 4096 - (lowOf(at) & 0xfff));
      const host = this.watching ? -1 : this.#one(at, true, user);
      if (host >= 0) {
        this.memory.bytes.set(from.subarray(done, done + count), host);
        this.memory.note(host, count);
      } else
        for (let n = done; n < done + count; n += 4)
          this.write32(this.wrap(address + n), from[n] | (from[n + 1] << 8) | (from[n + 2] << 16) | (from[n + 3] << 24), user);
      done += count;
    }
  }
  /** A 64-bit value as a signed number (exact for canonical addresses). */
  read64(address: number, user: boolean): number {
    const host = this.#whole(address, false, user);
    if (host >= 0) return linear(this.memory.data.getInt32(host, true), this.memory.data.getInt32(host + 4, true));
    const low = this.read32(address, user);
    return linear(low, this.read32(address + 4, user));
  }
  /** Reads 64 bits as two signed halves into `low` and `high`: entries of descriptor tables. */
  readPair(address: number): void {
    const host = this.#whole(address, false, false);
    if (host >= 0) {
      this.low = this.memory.data.getInt32(host, true);
      this.high = this.memory.data.getInt32(host + 4, true);
      return;
    }
    this.low = this.read32(address, false);
    this.high = this.read32(address + 4, false);
  }
  low = 0;
  high = 0;
  /** Host offset of 8 bytes where nothing but the address matters; -1: they go the long way, by halves. */
  #whole(address: number, write: boolean, user: boolean): number {
    if (this.watching || (this.aligning && user) || (address & 0xfff) > 0xff8) return -1;
    return this.#one(address, write, user);
  }
  writeByte(address: number, value: number, user: boolean): void {
    if (this.watching) this.touched(this.wrap(address), 1, true);
    const host = this.#one(address, true, user);
    if (host < 0) this.bus.writeMmio(this.physical, 1, value & 0xff);
    else {
      this.memory.bytes[host] = value;
      this.memory.note(host, 1);
    }
  }
  write16(address: number, value: number, user: boolean): void {
    if (this.watching) this.touched(this.wrap(address), 2, true);
    if (this.aligning && user) this.checkAlignment(address, 2);
    if ((address & 0xfff) === 0xfff) {
      this.#both(address, user);
      this.writeByte(address, value, user);
      this.writeByte(address + 1, value >> 8, user);
      return;
    }
    const host = this.#one(address, true, user);
    if (host < 0) this.bus.writeMmio(this.physical, 2, value & 0xffff);
    else {
      this.memory.data.setUint16(host, value, true);
      this.memory.note(host, 2);
    }
  }
  write32(address: number, value: number, user: boolean): void {
    if (this.watching) this.touched(this.wrap(address), 4, true);
    if (this.aligning && user) this.checkAlignment(address, 4);
    if ((address & 0xfff) > 0xffc) {
      this.#both(address, user);
      this.write16(address, value, user);
      this.write16(address + 2, value >> 16, user);
      return;
    }
    const host = this.#one(address, true, user);
    if (host < 0) this.bus.writeMmio(this.physical, 4, value >>> 0);
    else {
      this.memory.data.setInt32(host, value, true);
      this.memory.note(host, 4);
    }
  }
  write64(address: number, value: number, user: boolean): void {
    const host = this.#whole(address, true, user);
    if (host >= 0) {
      this.memory.data.setInt32(host, lowOf(value), true);
      this.memory.data.setInt32(host + 4, highOf(value), true);
      this.memory.note(host, 8);
      return;
    }
    if ((address & 0xfff) > 0xff8) this.#both(address, user);
    else this.#one(address, true, user);
    this.write32(address, lowOf(value), user);
    this.write32(address + 4, highOf(value), user);
  }
}
