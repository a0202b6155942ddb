/**
 * The guest-physical address map over the machine memory: which host bytes back a page, whether they may be
 * written, and what a write to them has to tell others (code that was translated, dirty pages).
 *
 * Every thread has an instance; the flags lie in shared memory. RAM, video memory and ROM all lie in one stretch of
 * the machine memory (`backing`), so a page's flags are found by its place there.
 */
import type { GuestMemory } from './guest-memory.ts';

export interface Region {
  readonly base: number;
  readonly length: number;
  /** Byte offset in the machine memory. */
  readonly host: number;
  readonly readOnly: boolean;
  readonly name: string;
}

export interface Backing {
  readonly buffer: ArrayBufferLike;
  /** First byte of guest-visible memory, and its end; 4 KiB aligned. */
  readonly start: number;
  readonly end: number;
  /** One byte a page: nonzero when some vCPU holds code translated from it. */
  readonly codePages: number;
  /** One word a page: which of its 32 granules of 128 bytes hold translated code. */
  readonly codeGranules: number;
  /** One byte a page: nonzero when it was written since it was last cleared. */
  readonly dirtyPages: number;
}

/** Told when a write touches bytes that code was translated from: the page's index in the backing. */
export type CodeWritten = (page: number) => void;

export class PhysicalMemory implements GuestMemory {
  readonly ramBytes: number;
  readonly bytes: Uint8Array;
  readonly data: DataView;
  readonly code: Uint8Array;
  readonly granules: Int32Array;
  readonly dirty: Uint8Array;
  readonly #start: number;
  #regions: readonly Region[] = [];
  #lowRam = 0;
  #lowRamHost = 0;
  #last: Region | undefined;
  #holeBase = 0;
  #holeEnd = 0;
  /** Set by the machine: what a device's write to translated code leads to. */
  codeWritten: CodeWritten = () => {};

  constructor(backing: Backing, ramBytes: number) {
    this.ramBytes = ramBytes;
    this.bytes = new Uint8Array(backing.buffer);
    this.data = new DataView(backing.buffer);
    const pages = (backing.end - backing.start) / 4096;
    this.code = new Uint8Array(backing.buffer, backing.codePages, pages);
    this.granules = new Int32Array(backing.buffer, backing.codeGranules, pages);
    this.dirty = new Uint8Array(backing.buffer, backing.dirtyPages, pages);
    this.#start = backing.start;
  }

  /** Replaces the map. Later regions win over earlier ones where they overlap; `hole` is a range that no memory backs. */
  setRegions(regions: readonly Region[], hole?: { readonly base: number; readonly length: number }): void {
    const ram = regions[0];
    this.#holeBase = hole?.base ?? 0;
    this.#holeEnd = hole === undefined ? 0 : hole.base + hole.length;
    this.#regions = [...regions].reverse();
    this.#last = undefined;
    // RAM from 1 MiB up is never overlaid.
    this.#lowRam = ram.length;
    this.#lowRamHost = ram.host;
  }

  get regions(): readonly Region[] {
    return [...this.#regions].reverse();
  }

  /** The region of a physical address, or undefined where no memory is. */
  region(address: number): Region | undefined {
    const last = this.#last;
    if (last !== undefined && address >= 0x100000 && address >= last.base && address < last.base + last.length) return last;
    if (address < this.#holeEnd && address >= this.#holeBase) return undefined;
    for (const region of this.#regions)
      if (address >= region.base && address < region.base + region.length) {
        this.#last = region;
        return region;
      }
    return undefined;
  }

  /** Host byte offset of a physical address that memory backs, else -1. */
  host(address: number): number {
    if (address >= 0x100000 && address < this.#lowRam) return this.#lowRamHost + address;
    const region = this.region(address);
    return region === undefined ? -1 : region.host + (address - region.base);
  }

  /** True where writes to the page are dropped. */
  isReadOnly(address: number): boolean {
    if (address >= 0x100000 && address < this.#lowRam) return false;
    return this.region(address)?.readOnly ?? false;
  }

  /** Index of the page of flags that belongs to a host byte offset. */
  pageOf(host: number): number {
    return Math.floor((host - this.#start) / 4096);
  }

  /** Host byte offset of the page of that index. */
  hostOf(page: number): number {
    return this.#start + page * 4096;
  }

  /** Notes a write of `length` bytes (within one page) at host offset `host`. */
  note(host: number, length: number): void {
    const page = this.pageOf(host);
    this.dirty[page] = 1;
    if (this.isCode(host, length)) this.codeWritten(page);
  }

  /** Whether code was translated from the granules around `length` bytes (within one page) at host offset `host`. */
  isCode(host: number, length: number): boolean {
    const page = this.pageOf(host);
    if (this.code[page] === 0) return false;
    const first = (host & 0xfff) >> 7;
    const last = Math.min(31, ((host & 0xfff) + length - 1) >> 7);
    const mask = (last === 31 ? -1 : (2 << last) - 1) & ~((1 << first) - 1);
    return (this.granules[page] & mask) !== 0;
  }

  read8(address: number): number {
    const host = this.host(address);
    return host < 0 ? 0xff : this.bytes[host];
  }
  read16(address: number): number {
    return this.#readSmall(address, 2);
  }
  read32(address: number): number {
    const host = this.host(address);
    if (host >= 0 && (address & 0xfff) <= 0xffc) return this.data.getUint32(host, true);
    return this.#readSmall(address, 4);
  }
  read64(address: number): number {
    return this.read32(address) + this.read32(address + 4) * 2 ** 32;
  }
  #readSmall(address: number, bytes: number): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = value * 256 + this.read8(address + i);
    return value;
  }
  write8(address: number, value: number): void {
    const host = this.host(address);
    if (host < 0 || this.isReadOnly(address)) return;
    this.bytes[host] = value;
    this.note(host, 1);
  }
  write16(address: number, value: number): void {
    this.write8(address, value & 0xff);
    this.write8(address + 1, (value >> 8) & 0xff);
  }
  write32(address: number, value: number): void {
    const host = this.host(address);
    if (host >= 0 && (address & 0xfff) <= 0xffc && !this.isReadOnly(address)) {
      this.data.setUint32(host, value, true);
      this.note(host, 4);
      return;
    }
    this.write16(address, value & 0xffff);
    this.write16(address + 2, value >>> 16);
  }
  write64(address: number, value: number): void {
    this.write32(address, value % 2 ** 32);
    this.write32(address + 4, Math.floor(value / 2 ** 32));
  }
  read(address: number, target: Uint8Array): void {
    for (let done = 0; done < target.length; ) {
      const at = address + done;
      const count = Math.min(target.length - done, 4096 - (at % 4096));
      const host = this.host(at);
      if (host < 0) target.fill(0xff, done, done + count);
      else target.set(this.bytes.subarray(host, host + count), done);
      done += count;
    }
  }
  write(address: number, source: Uint8Array): void {
    for (let done = 0; done < source.length; ) {
      const at = address + done;
      const count = Math.min(source.length - done, 4096 - (at % 4096));
      const host = this.host(at);
      if (host >= 0 && !this.isReadOnly(at)) {
        this.bytes.set(source.subarray(done, done + count), host);
        this.note(host, count);
      }
      done += count;
    }
  }
  view(address: number, length: number): Uint8Array | undefined {
    const region = this.region(address);
    if (region === undefined || region.readOnly || address + length > region.base + region.length) return undefined;
    // The legacy hole may cut a low region in two.
    if (address < 0x100000 && address + length > 0xa0000) return undefined;
    const host = region.host + (address - region.base);
    return this.bytes.subarray(host, host + length);
  }
  written(address: number, length: number): void {
    for (let done = 0; done < length; ) {
      const at = address + done;
      const count = Math.min(length - done, 4096 - (at % 4096));
      const host = this.host(at);
      if (host >= 0) this.note(host, count);
      done += count;
    }
  }
}
