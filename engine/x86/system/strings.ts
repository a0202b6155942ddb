/**
 * String instructions (SDM 1, 7.3.9) with REP, whole. Runs within pages go by bulk copy and fill where both sides
 * are memory; element by element otherwise. Registers move with each piece, so that a fault in the middle leaves
 * the instruction restartable. A long repetition stops at intervals to let interrupts in.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, FLAG, raise } from './cpu.ts';
import type { Debug } from './debug.ts';

const RAX = S.GPR;
const RCX = S.GPR + 8;
const RDX = S.GPR + 16;
const RSI = S.GPR + 48;
const RDI = S.GPR + 56;

const MOVS = 0;
const CMPS = 1;
const STOS = 2;
const LODS = 3;
const SCAS = 4;
const INS = 5;
const OUTS = 6;
/** Elements done before interrupts are looked at. */
const SLICE = 1 << 16;

export interface PortAccess {
  /** Raises #GP where the I/O permission does not allow the access (SDM 1, 18.5). */
  check(port: number, bytes: number): void;
}

export class Strings {
  readonly #cpu: Cpu;
  readonly #debug: Debug;
  readonly #ports: PortAccess;

  constructor(cpu: Cpu, debug: Debug, ports: PortAccess) {
    this.#cpu = cpu;
    this.#debug = debug;
    this.#ports = ports;
  }

  #index(register: number, width: number): number {
    const cpu = this.#cpu;
    if (width === 64) return cpu.getNumber(register);
    return width === 32 ? cpu.u32[register >> 2] : cpu.u16[register >> 1];
  }
  #setIndex(register: number, width: number, value: number): void {
    const cpu = this.#cpu;
    if (width === 64) cpu.setNumber(register, value);
    else if (width === 32) cpu.setNumber(register, value >>> 0);
    else cpu.u16[register >> 1] = value;
  }
  /** RCX, as a number that is exact up to 2^53 and at least that above it. */
  #count(width: number): number {
    const cpu = this.#cpu;
    if (width === 64) return cpu.u32[(RCX >> 2) + 1] * 4294967296 + cpu.u32[RCX >> 2];
    return width === 32 ? cpu.u32[RCX >> 2] : cpu.u16[RCX >> 1];
  }
  /** Takes `done`, below 2^32, off RCX: exact, however much it holds. */
  #spend(width: number, done: number): void {
    const cpu = this.#cpu;
    if (width === 64) {
      const low = cpu.u32[RCX >> 2];
      cpu.u32[RCX >> 2] = low - done;
      if (low < done) cpu.i32[(RCX >> 2) + 1]--;
    } else this.#setIndex(RCX, width, this.#count(width) - done);
  }
  /** Looks whether all of an element may be written, before any of it is. */
  #writable(address: number, bytes: number, user: boolean): void {
    const cpu = this.#cpu;
    cpu.translate(cpu.wrap(address), true, user);
    if ((address & 0xfff) + bytes > 4096) cpu.translate(cpu.wrap(address - (address & 0xfff) + 4096), true, user);
  }

  /** Linear address of an offset in a segment (a state offset, or ZERO in 64-bit mode), checked for `bytes`. */
  #address(segment: number, offset: number, bytes: number, write: boolean): number {
    const cpu = this.#cpu;
    if (cpu.is64) {
      const base = segment === S.ZERO ? 0 : cpu.getNumber(segment + S.SEG_BASE);
      const address = base + offset;
      // The last byte too: the lower half's end is looked at before any page.
      if (address < -0x800000000000 || (address >= 0 && address + bytes > 0x800000000000)) raise(13, 0);
      return address;
    }
    const at = segment >> 2;
    const low = cpu.u32[at + (S.SEG_LOW >> 2)];
    const high = cpu.u32[at + (S.SEG_HIGH >> 2)];
    if (offset < low || offset + bytes - 1 > high || (cpu.i32[at + (S.SEG_ACCESS >> 2)] & (write ? 2 : 1)) === 0)
      raise(segment === S.segment(S.SS) ? 12 : 13, 0);
    return (cpu.getNumber(segment + S.SEG_BASE) + offset) >>> 0;
  }

  #read(address: number, bytes: number, user: boolean): number {
    const cpu = this.#cpu;
    if (bytes === 1) return cpu.readByte(address, user);
    if (bytes === 2) return cpu.read16(address, user);
    return cpu.read32(address, user) >>> 0;
  }
  #write(address: number, bytes: number, value: number, user: boolean): void {
    const cpu = this.#cpu;
    if (bytes === 1) cpu.writeByte(address, value, user);
    else if (bytes === 2) cpu.write16(address, value, user);
    else cpu.write32(address, value | 0, user);
  }

  /**
   * Runs one string instruction. `what`: kind (3:0), element bytes (7:4), repeat (9:8: 1 REP/REPE, 2 REPNE), address
   * size (>> 12). `source` is the state offset of the source segment. True: done; false: more to do, interrupts may be taken.
   */
  run(what: number, source: number): boolean {
    const cpu = this.#cpu;
    const kind = what & 15;
    const bytes = (what >> 4) & 15;
    const repeat = (what >> 8) & 3;
    const width = what >> 12;
    const user = cpu.cpl === 3;
    const step = (cpu.i32[S.EFLAGS >> 2] & FLAG.DF) !== 0 ? -bytes : bytes;
    if (kind === INS || kind === OUTS) this.#ports.check(cpu.u16[RDX >> 1], bytes);
    if (repeat === 0) {
      this.#element(kind, bytes, step, width, source, user);
      return true;
    }
    let count = this.#count(width);
    if (count === 0) return true;
    // One by one where each is a step of its own.
    let budget = this.#debug.alone ? 1 : SLICE;
    while (count > 0 && budget > 0) {
      if ((kind === MOVS || kind === STOS || kind === INS) && step > 0 && budget > 1 && !cpu.watching) {
        const done = this.#bulk(kind, bytes, width, source, user, Math.min(count, budget * 16));
        if (done > 0) {
          count -= done;
          this.#spend(width, done);
          budget -= Math.ceil(done / 16);
          continue;
        }
      }
      this.#element(kind, bytes, step, width, source, user);
      count--;
      budget--;
      this.#spend(width, 1);
      if (kind === CMPS || kind === SCAS) {
        const zero = cpu.i32[S.FLAG_RES >> 2] === 0 && cpu.i32[(S.FLAG_RES >> 2) + 1] === 0;
        if (zero !== (repeat === 1)) return true;
      }
    }
    return count === 0;
  }

  /** Copies, fills or reads from a port what lies in one page on each side; gives the number of elements, 0 where it cannot. */
  #bulk(kind: number, bytes: number, width: number, source: number, user: boolean, count: number): number {
    const cpu = this.#cpu;
    const di = this.#index(RDI, width);
    let from = 0;
    let fromHost = 0;
    const si = kind === MOVS ? this.#index(RSI, width) : 0;
    // What is not aligned faults at its element.
    if (cpu.aligning && ((si | di) & (bytes - 1)) !== 0) return 0;
    // The source's faults come first.
    if (kind === MOVS) {
      from = this.#address(source, si, bytes, false);
      fromHost = cpu.translate(from, false, user);
      // Where the first element straddles pages, a fault of its second comes before any of the target.
      if (fromHost < 0 || (from & 0xfff) > 4096 - bytes) return 0;
    }
    const target = this.#address(cpu.is64 ? S.ZERO : S.segment(S.ES), di, bytes, true);
    let room = 4096 - (target & 0xfff);
    if (kind === MOVS) room = Math.min(room, 4096 - (from & 0xfff));
    if (width === 16) room = Math.min(room, 0x10000 - di, kind === MOVS ? 0x10000 - si : 0x10000);
    let elements = Math.min(count, Math.floor(room / bytes));
    if (elements === 0) return 0;
    if (!cpu.is64) {
      // Within the segment limits as a whole, else one at a time.
      const limit = (segment: number, offset: number): boolean =>
        offset + elements * bytes - 1 <= cpu.u32[(segment + S.SEG_HIGH) >> 2];
      if (!limit(S.segment(S.ES), di) || (kind === MOVS && !limit(source, si))) return 0;
    }
    const host = cpu.translate(target, true, user);
    if (host < 0) return 0;
    const memory = cpu.memory;
    if (kind === MOVS) {
      const distance = host - fromHost;
      if (distance > 0 && distance < elements * bytes) {
        // A forward copy onto its own source repeats a pattern: copy no further than the distance at once.
        if (distance < bytes) return 0;
        elements = Math.floor(distance / bytes);
      }
      memory.bytes.copyWithin(host, fromHost, fromHost + elements * bytes);
      this.#setIndex(RSI, width, si + elements * bytes);
    } else if (kind === INS) {
      const place = memory.bytes.subarray(host, host + elements * bytes);
      elements = (cpu.bus.readPortBlock?.(cpu.u16[RDX >> 1], bytes as 1 | 2 | 4, place) ?? 0) / bytes;
      if (elements === 0) return 0;
    } else {
      const length = elements * bytes;
      if (bytes === 1) memory.bytes.fill(cpu.u8[RAX], host, host + length);
      else if (cpu.i32[RAX >> 2] === 0 && (bytes < 8 || cpu.i32[(RAX >> 2) + 1] === 0)) memory.bytes.fill(0, host, host + length);
      else {
        memory.bytes.set(cpu.u8.subarray(RAX, RAX + bytes), host);
        for (let done = bytes; done < length; done *= 2)
          memory.bytes.copyWithin(host + done, host, host + Math.min(done, length - done));
      }
    }
    memory.note(host, elements * bytes);
    this.#setIndex(RDI, width, di + elements * bytes);
    return elements;
  }

  #element(kind: number, bytes: number, step: number, width: number, source: number, user: boolean): void {
    const cpu = this.#cpu;
    const extra = cpu.is64 ? S.ZERO : S.segment(S.ES);
    const si = this.#index(RSI, width);
    const di = this.#index(RDI, width);
    const half = Math.min(bytes, 4);
    switch (kind) {
      case MOVS: {
        const from = this.#address(source, si, bytes, false);
        const low = this.#read(from, half, user);
        const high = bytes === 8 ? this.#read(from + 4, 4, user) : 0;
        const to = this.#address(extra, di, bytes, true);
        if (bytes === 8) {
          this.#writable(to, 8, user);
          this.#write(to, 4, low, user);
          this.#write(to + 4, 4, high, user);
        } else this.#write(to, half, low, user);
        this.#setIndex(RSI, width, si + step);
        this.#setIndex(RDI, width, di + step);
        return;
      }
      case STOS: {
        const to = this.#address(extra, di, bytes, true);
        if (bytes === 8) {
          this.#writable(to, 8, user);
          this.#write(to, 4, cpu.i32[RAX >> 2], user);
          this.#write(to + 4, 4, cpu.i32[(RAX >> 2) + 1], user);
        } else this.#write(to, half, cpu.i32[RAX >> 2], user);
        this.#setIndex(RDI, width, di + step);
        return;
      }
      case LODS: {
        const from = this.#address(source, si, bytes, false);
        const low = this.#read(from, half, user);
        if (bytes === 8) {
          const high = this.#read(from + 4, 4, user);
          cpu.i32[RAX >> 2] = low;
          cpu.i32[(RAX >> 2) + 1] = high;
        } else if (bytes === 4) cpu.setNumber(RAX, low >>> 0);
        else if (bytes === 2) cpu.u16[RAX >> 1] = low;
        else cpu.u8[RAX] = low;
        this.#setIndex(RSI, width, si + step);
        return;
      }
      case CMPS:
      case SCAS: {
        // The destination is read first, as AMD processors do it: seen where both fault.
        const to = this.#address(extra, di, bytes, false);
        const otherLow = this.#read(to, half, user);
        const otherHigh = bytes === 8 ? this.#read(to + 4, 4, user) : 0;
        let low: number;
        let high = 0;
        if (kind === CMPS) {
          const from = this.#address(source, si, bytes, false);
          low = this.#read(from, half, user);
          if (bytes === 8) high = this.#read(from + 4, 4, user);
        } else {
          low = bytes === 1 ? cpu.u8[RAX] : bytes === 2 ? cpu.u16[RAX >> 1] : cpu.u32[RAX >> 2];
          if (bytes === 8) high = cpu.u32[(RAX >> 2) + 1];
        }
        if (kind === CMPS) this.#setIndex(RSI, width, si + step);
        this.#setIndex(RDI, width, di + step);
        this.#compare(bytes, low | 0, high | 0, otherLow | 0, otherHigh | 0);
        return;
      }
      case INS: {
        const to = this.#address(extra, di, bytes, true);
        this.#writable(to, bytes, user);
        this.#write(to, bytes, cpu.bus.readPort(cpu.u16[RDX >> 1], bytes as 1 | 2 | 4), user);
        this.#setIndex(RDI, width, di + step);
        return;
      }
      case OUTS: {
        const from = this.#address(source, si, bytes, false);
        const value = this.#read(from, bytes, user);
        cpu.bus.writePort(cpu.u16[RDX >> 1], bytes as 1 | 2 | 4, value);
        this.#setIndex(RSI, width, si + step);
        return;
      }
    }
  }

  /** Flags of a subtraction of `bytes`-wide values given as halves. */
  #compare(bytes: number, low: number, high: number, otherLow: number, otherHigh: number): void {
    const cpu = this.#cpu;
    const result = (low - otherLow) | 0;
    const vector = (~low & otherLow) | (~(low ^ otherLow) & result);
    let aux = vector & 8;
    if (bytes === 8) {
      const borrow = vector < 0 ? 1 : 0;
      const top = (high - otherHigh - borrow) | 0;
      const topVector = (~high & otherHigh) | (~(high ^ otherHigh) & top);
      aux |= topVector & 0xc0000000;
      cpu.i32[S.FLAG_RES >> 2] = result;
      cpu.i32[(S.FLAG_RES >> 2) + 1] = top;
    } else {
      const shift = 32 - bytes * 8;
      aux |= (vector << shift) & 0xc0000000;
      const signed = (result << shift) >> shift;
      cpu.i32[S.FLAG_RES >> 2] = signed;
      cpu.i32[(S.FLAG_RES >> 2) + 1] = signed >> 31;
    }
    cpu.i32[S.FLAG_AUX >> 2] = aux;
  }

  /** XLAT. */
  xlat(width: number, source: number): void {
    const cpu = this.#cpu;
    const base = this.#index(S.GPR + 24, width);
    let offset = base + cpu.u8[RAX];
    if (width === 32) offset >>>= 0;
    else if (width === 16) offset &= 0xffff;
    cpu.u8[RAX] = cpu.readByte(this.#address(source, offset, 1, false), cpu.cpl === 3);
  }
}
