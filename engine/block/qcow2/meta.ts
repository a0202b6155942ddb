/**
 * The metadata of an open qcow2 image: header, L1, refcounts, and the order in which they reach the disk.
 *
 * Goal: cut the power after any write, lose any set of writes not yet flushed, and the image is still sound: at worst
 * clusters are counted that nobody uses (leaks). So, at every commit:
 *   1. refcounts that went up, and L2 tables nobody points to yet; then a flush (guest data of new clusters with it)
 *   2. refcount table entries of new blocks, or the new refcount table and the header; then a flush
 *   3. L2 entries and L1 entries
 * and refcounts go down (`free`) only after a flush that follows step 3, when nothing on the disk names the cluster any
 * more. What cannot be ordered so (bit 63 of entries when snapshots come and go) happens under the dirty bit, which
 * makes every implementation repair at the next open; version 2 has no such bit and keeps the harmless direction.
 * With lazy refcounts the dirty bit stands from the first allocation and step 1 leaves refcounts out.
 *
 * Source: docs/interop/qcow2.txt, "Host cluster management", "Cluster mapping".
 */
import { setU64 } from '../bytes.ts';
import { BlockError, sane } from '../errors.ts';
import type { BlockFile } from '../file.ts';
import { type Slice, TableCache } from './cache.ts';
import {
  AUTOCLEAR_BITMAPS,
  COMPAT_LAZY_REFCOUNTS,
  encodeHeader,
  type Header,
  INCOMPAT_CORRUPT,
  INCOMPAT_DATA_FILE,
  INCOMPAT_DIRTY,
  INCOMPAT_EXTENDED_L2,
  MAX_REFTABLE_BYTES,
} from './header.ts';

const SLICE_BYTES = 65536;
const PENDING_LIMIT = 4096;
/** L2 offsets, and host offsets of clusters, end at bit 55; ours end at 2^53. */
const MAX_OFFSET = Number.MAX_SAFE_INTEGER;

export interface CacheSizes {
  /** Bytes of L2 tables held in memory; default 32 MiB. */
  l2?: number;
  /** Bytes of refcount blocks held in memory; default 8 MiB. */
  refcount?: number;
}

interface Freed {
  cluster: number;
  count: number;
}

export class Qcow2Meta {
  readonly file: BlockFile;
  readonly header: Header;
  readonly clusterSize: number;
  readonly extended: boolean;
  readonly entrySize: number;
  /** Entries in an L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2Coverage: number;
  readonly refcountBits: number;
  readonly maxRefcount: number;
  readonly blockEntries: number;
  readonly l2: TableCache;
  readonly refs: TableCache;
  /** True if guest data lies in its own file, where clusters are not counted. */
  readonly external: boolean;

  /** Active L1: offset of each L2 table (0 none, NaN not valid), and bit 63. */
  l1Offsets: Float64Array = new Float64Array(0);
  l1Copied: Uint8Array = new Uint8Array(0);
  private readonly l1Dirty = new Set<number>();
  /** Offsets of L2 tables that nothing on the disk points to yet. */
  readonly newTables = new Set<number>();

  private reftable: Float64Array;
  private readonly reftableDirty = new Set<number>();
  private reftableMoved: { offset: number; clusters: number } | null = null;

  private pending: Freed[] = [];
  private freeHint = 0;
  /** Bytes: every cluster from here on has never been written, so it reads as zeros. */
  freshFrom: number;
  /** The file must be at least this long at the next commit. */
  private needLength = 0;
  private unflushed = false;
  /** Clusters that hold metadata: never handed out, never written as guest data. */
  readonly metadata = new Set<number>();
  /** Give freed clusters back to the host. */
  unmap = true;
  broken = false;
  /** A change under the dirty bit failed half way: refcounts and flags need the checker before the bit may go. */
  needsRepair = false;
  /** Flushes guest data when it lives in another file. */
  flushData: (() => void) | null = null;
  private lazyActive = false;
  readonly writable: boolean;

  constructor(file: BlockFile, header: Header, writable: boolean, sizes: CacheSizes = {}) {
    this.file = file;
    this.header = header;
    this.writable = writable;
    this.clusterSize = 1 << header.clusterBits;
    this.extended = (header.incompatible & INCOMPAT_EXTENDED_L2) !== 0;
    this.external = (header.incompatible & INCOMPAT_DATA_FILE) !== 0;
    this.entrySize = this.extended ? 16 : 8;
    this.l2Entries = this.clusterSize / this.entrySize;
    this.l2Coverage = this.l2Entries * this.clusterSize;
    this.refcountBits = 1 << header.refcountOrder;
    this.maxRefcount = this.refcountBits >= 53 ? MAX_OFFSET : 2 ** this.refcountBits - 1;
    this.blockEntries = (this.clusterSize * 8) / this.refcountBits;
    const slice = Math.min(this.clusterSize, SLICE_BYTES);
    this.l2 = new TableCache(file, slice, sizes.l2 ?? 32 << 20);
    this.refs = new TableCache(file, slice, sizes.refcount ?? 8 << 20);
    this.freshFrom = Math.ceil(file.size() / this.clusterSize) * this.clusterSize;

    this.loadL1();
    const bytes = new Uint8Array(header.reftableClusters * this.clusterSize);
    file.pread(bytes, header.reftableOffset);
    const view = new DataView(bytes.buffer);
    this.reftable = new Float64Array(bytes.length / 8);
    for (let i = 0; i < this.reftable.length; i++) this.reftable[i] = this.decodeTableOffset(view, i * 8, 0xffffffff);
    if (writable) this.collectMetadata();
  }

  /** A table's offset; 0 for none, NaN where reserved bits are set or it is not aligned. */
  private decodeTableOffset(view: DataView, at: number, highMask: number): number {
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    const reserved = (hi & 0x7fffffff & ~highMask) | (lo & 0x1ff);
    const offset = ((hi & highMask) >>> 0) * 0x100000000 + (lo & ~0x1ff ? (lo & ~0x1ff) >>> 0 : 0);
    if (reserved !== 0 || offset > MAX_OFFSET || offset % this.clusterSize !== 0) return Number.NaN;
    return offset;
  }

  /** Reads L1 entries from anywhere; used for the active L1 and for those of snapshots. */
  readL1(offset: number, entries: number): { offsets: Float64Array; copied: Uint8Array } {
    const offsets = new Float64Array(entries);
    const copied = new Uint8Array(entries);
    const piece = new Uint8Array(Math.min(entries * 8, 65536));
    for (let done = 0; done < entries * 8; done += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, entries * 8 - done));
      this.file.pread(part, offset + done);
      const view = new DataView(part.buffer, part.byteOffset, part.length);
      for (let at = 0; at < part.length; at += 8) {
        offsets[(done + at) / 8] = this.decodeTableOffset(view, at, 0x00ffffff);
        copied[(done + at) / 8] = view.getUint8(at) >> 7;
      }
    }
    return { offsets, copied };
  }

  private loadL1(): void {
    const { offsets, copied } = this.readL1(this.header.l1Offset, this.header.l1Size);
    this.l1Offsets = offsets;
    this.l1Copied = copied;
  }

  /** What the tables found at open disagree about: two of them share a cluster. Such an image is not opened for writing. */
  overlap: string | null = null;

  /** Marks a region as metadata. */
  claim(offset: number, length: number, what = 'metadata'): void {
    const end = Math.ceil((offset + length) / this.clusterSize);
    for (let c = Math.floor(offset / this.clusterSize); c < end; c++) {
      if (this.metadata.has(c)) this.overlap ??= `${what} at ${offset} overlaps other metadata`;
      this.metadata.add(c);
    }
  }

  unclaim(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / this.clusterSize);
    for (let c = Math.floor(offset / this.clusterSize); c < end; c++) this.metadata.delete(c);
  }

  private collectMetadata(): void {
    const { header } = this;
    this.claim(0, 1);
    this.overlap = null;
    this.claim(header.l1Offset, header.l1Size * 8, 'the active L1 table');
    this.claim(header.reftableOffset, header.reftableClusters * this.clusterSize, 'the refcount table');
    if (header.crypto) this.claim(header.crypto.offset, header.crypto.length, 'the encryption header');
    for (const offset of this.reftable) if (offset > 0) this.claim(offset, this.clusterSize, 'a refcount block');
    for (const offset of this.l1Offsets) if (offset > 0) this.claim(offset, this.clusterSize, 'an L2 table');
    for (const offset of this.reftable)
      if (Number.isNaN(offset) || offset >= this.freshFrom) this.overlap ??= 'the refcount table has an entry that is not valid';
  }

  /** Something is wrong enough that writing on would make it worse: say so in the image, refuse from now on. */
  markCorrupt(message: string): never {
    if (this.writable && !this.broken) {
      this.broken = true;
      if (this.header.version === 3) {
        this.header.incompatible |= INCOMPAT_CORRUPT;
        this.writeHeaderFields();
      }
    }
    throw new BlockError('corrupt', `${this.file.name}: ${message}`);
  }

  // ---- writing, and the order of it

  /** A write of metadata or guest data into the image file. */
  put(bytes: Uint8Array, offset: number): void {
    this.unflushed = true;
    if (offset + bytes.length > this.freshFrom)
      this.freshFrom = Math.ceil((offset + bytes.length) / this.clusterSize) * this.clusterSize;
    this.file.pwrite(bytes, offset);
  }

  putZeroes(offset: number, length: number): void {
    this.unflushed = true;
    if (offset + length > this.freshFrom) this.freshFrom = Math.ceil((offset + length) / this.clusterSize) * this.clusterSize;
    this.file.writeZeroes(offset, length);
  }

  /** Everything written so far is durable when it returns. */
  barrier(): void {
    this.flushData?.();
    if (!this.unflushed) return;
    this.file.flush();
    this.unflushed = false;
  }

  /** The header's fixed fields, in one sector: the atomic switch. */
  writeHeaderFields(): void {
    this.put(encodeHeader(this.header).subarray(0, Math.max(72, Math.min(this.header.headerLength, 512))), 0);
  }

  /** Changes fields and writes them, atomically; if the write fails, the fields are what they were. */
  switchHeader(change: Partial<Header>): void {
    const before: Partial<Header> = {};
    for (const key of Object.keys(change) as (keyof Header)[]) Object.assign(before, { [key]: this.header[key] });
    Object.assign(this.header, change);
    try {
      this.writeHeaderFields();
    } catch (error) {
      Object.assign(this.header, before);
      throw error;
    }
    try {
      this.barrier();
    } catch (error) {
      // Which header the disk holds is not known any more: writing on could lose everything.
      this.broken = true;
      throw error;
    }
  }

  /** The whole first cluster: fields, extensions, backing file name. */
  writeHeaderAll(): void {
    this.put(encodeHeader(this.header), 0);
  }

  setDirty(on: boolean): void {
    if (this.header.version < 3) return;
    const was = (this.header.incompatible & INCOMPAT_DIRTY) !== 0;
    if (was === on) return;
    this.barrier();
    const { incompatible } = this.header;
    this.switchHeader({ incompatible: on ? incompatible | INCOMPAT_DIRTY : incompatible & ~INCOMPAT_DIRTY });
  }

  get lazy(): boolean {
    return this.header.version === 3 && (this.header.compatible & COMPAT_LAZY_REFCOUNTS) !== 0;
  }

  /** Before the first change of an image: bits that no longer hold must go. */
  beforeFirstWrite(): void {
    if (!this.header.unknownAutoclear) return;
    this.switchHeader({ unknownAutoclear: false });
  }

  /** Call between operations, when no slice is held. */
  safePoint(): void {
    if (this.pending.length > PENDING_LIMIT) this.flush();
    else if (this.l2.crowded || this.refs.crowded) this.commit();
  }

  /** Writes all metadata in order; the last step need not be durable when it returns. */
  commit(): void {
    if (this.broken) throw new BlockError('corrupt', `${this.file.name}: the image is marked corrupt; no more writes`);
    const counting = !this.lazyActive;
    if (
      !(
        this.l2.anyDirty ||
        this.l1Dirty.size ||
        (counting && (this.refs.anyDirty || this.reftableDirty.size || this.reftableMoved))
      )
    )
      return;
    if (this.needLength > this.file.size()) {
      this.unflushed = true;
      this.file.truncate(this.needLength);
    }
    this.needLength = 0;
    if (counting) this.writeRefs();
    const isNew = (offset: number) => this.newTables.has(offset - (offset % this.clusterSize));
    if (this.l2.writeBack(isNew)) this.unflushed = true;
    if (this.l2.anyDirty || this.l1Dirty.size) this.barrier();
    if (counting) this.writeReftable();
    if (this.l2.writeBack()) this.unflushed = true;
    this.writeL1Entries();
    this.newTables.clear();
  }

  private writeRefs(): void {
    if (this.refs.writeBack()) this.unflushed = true;
  }

  private writeReftable(): void {
    if (this.reftableMoved) {
      const { offset, clusters } = this.reftableMoved;
      const bytes = new Uint8Array(clusters * this.clusterSize);
      const view = new DataView(bytes.buffer);
      for (let i = 0; i < this.reftable.length; i++) setU64(view, i * 8, this.reftable[i]);
      this.put(bytes, offset);
      this.barrier();
      const old = { offset: this.header.reftableOffset, clusters: this.header.reftableClusters };
      this.switchHeader({ reftableOffset: offset, reftableClusters: clusters });
      this.reftableMoved = null;
      this.reftableDirty.clear();
      this.unclaim(old.offset, old.clusters * this.clusterSize);
      this.free(old.offset, old.clusters * this.clusterSize);
    } else if (this.reftableDirty.size) {
      this.barrier();
      const bytes = new Uint8Array(512);
      const view = new DataView(bytes.buffer);
      for (const sector of new Set([...this.reftableDirty].map((i) => i >> 6))) {
        for (let i = 0; i < 64; i++) setU64(view, i * 8, this.reftable[sector * 64 + i]);
        this.put(bytes, this.header.reftableOffset + sector * 512);
      }
      this.barrier();
      this.reftableDirty.clear();
    }
  }

  private writeL1Entries(): void {
    if (this.l1Dirty.size === 0) return;
    const sectors = new Set([...this.l1Dirty].map((i) => Math.floor(i / 64)));
    for (const sector of sectors)
      this.put(this.encodeL1(this.l1Offsets, this.l1Copied, sector * 64, 64), this.header.l1Offset + sector * 512);
    this.l1Dirty.clear();
  }

  /** L1 bytes of entries [first, first + count), zeros past the table's end. */
  encodeL1(offsets: Float64Array, copied: Uint8Array | null, first: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count * 8);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < count && first + i < offsets.length; i++) {
      const offset = offsets[first + i];
      sane(!Number.isNaN(offset), 'an L1 entry is not valid');
      setU64(view, i * 8, offset);
      if (copied?.[first + i]) view.setUint8(i * 8, view.getUint8(i * 8) | 0x80);
    }
    return bytes;
  }

  /** All that was written before is durable when it returns; then clusters that nothing names any more become free. */
  flush(): void {
    this.commit();
    this.barrier();
    this.applyFrees();
  }

  /** Everything on the disk, nothing pending. */
  settle(): void {
    this.lazyActive = false;
    // Applying frees makes refcounts dirty; moving the refcount table frees the old one. Two rounds are always enough
    // for one move, and a move frees but does not allocate.
    for (let round = 0; round < 4; round++) {
      this.commitRefs();
      this.flush();
      if (this.pending.length === 0 && !this.refs.anyDirty) break;
    }
    this.commitRefs();
    this.barrier();
  }

  private commitRefs(): void {
    this.commit();
    if (this.refs.anyDirty || this.reftableDirty.size || this.reftableMoved) {
      this.writeRefs();
      this.writeReftable();
    }
  }

  // ---- L1

  setL1(index: number, offset: number, copied: boolean): void {
    this.l1Offsets[index] = offset;
    this.l1Copied[index] = copied ? 1 : 0;
    this.l1Dirty.add(index);
  }

  /** Replaces the active L1 by another, atomically (one header sector). `size` is the disk's new size. */
  switchL1(offsets: Float64Array, copied: Uint8Array, size: number): void {
    this.commit();
    const clusters = Math.max(1, Math.ceil((offsets.length * 8) / this.clusterSize));
    const offset = this.allocContiguous(clusters);
    this.claim(offset, clusters * this.clusterSize);
    const bytes = new Uint8Array(clusters * this.clusterSize);
    bytes.set(this.encodeL1(offsets, copied, 0, offsets.length));
    try {
      this.put(bytes, offset);
      this.commitRefs();
      this.barrier();
    } catch (error) {
      this.unclaim(offset, clusters * this.clusterSize);
      this.free(offset, clusters * this.clusterSize);
      throw error;
    }
    const old = { offset: this.header.l1Offset, size: this.header.l1Size };
    this.switchHeader({ l1Offset: offset, l1Size: offsets.length, size });
    this.l1Offsets = offsets;
    this.l1Copied = copied;
    this.l1Dirty.clear();
    if (old.size > 0) {
      this.unclaim(old.offset, old.size * 8);
      this.free(old.offset, Math.ceil((old.size * 8) / this.clusterSize) * this.clusterSize);
    }
  }

  // ---- refcounts

  private refSlice(block: number, index: number): Slice {
    const byte = Math.floor((index * this.refcountBits) / 8);
    return this.refs.get(block + byte - (byte % this.refs.sliceSize));
  }

  get reftableLength(): number {
    return this.reftable.length;
  }

  /** Offset of the n-th refcount block; 0 for none. Throws `corrupt` if it cannot be one. */
  blockOffset(index: number): number {
    if (index >= this.reftable.length) return 0;
    const offset = this.reftable[index];
    sane(!Number.isNaN(offset), `refcount table entry ${index} is not valid`);
    return offset;
  }

  /** Raw entry for the checker: NaN where it is not valid. */
  rawBlockOffset(index: number): number {
    return this.reftable[index];
  }

  refcount(cluster: number): number {
    const blockIndex = Math.floor(cluster / this.blockEntries);
    const block = this.blockOffset(blockIndex);
    if (block === 0) return 0;
    const index = cluster % this.blockEntries;
    const { view } = this.refSlice(block, index);
    const mask = this.refs.sliceSize - 1;
    switch (this.header.refcountOrder) {
      case 4:
        return view.getUint16((index * 2) & mask);
      case 3:
        return view.getUint8(index & mask);
      case 5:
        return view.getUint32((index * 4) & mask);
      case 6: {
        const at = (index * 8) & mask;
        return Math.min(MAX_OFFSET, view.getUint32(at) * 0x100000000 + view.getUint32(at + 4));
      }
      default: {
        const bit = index * this.refcountBits;
        return (view.getUint8((bit >> 3) & mask) >> (bit & 7)) & this.maxRefcount;
      }
    }
  }

  /** The next cluster at or after this one that is counted by the same refcount block; the first behind the block for none. */
  nextCounted(cluster: number): number {
    const blockIndex = Math.floor(cluster / this.blockEntries);
    const end = (blockIndex + 1) * this.blockEntries;
    const block = this.blockOffset(blockIndex);
    if (block === 0) return end;
    const perSlice = (this.refs.sliceSize * 8) / this.refcountBits;
    for (let at = cluster; at < end; ) {
      const index = at % this.blockEntries;
      const { bytes } = this.refSlice(block, index);
      const stop = at - (index % perSlice) + perSlice;
      let byte = Math.floor(((index % perSlice) * this.refcountBits) / 8);
      if (bytes[byte] === 0) {
        while (byte < bytes.length && bytes[byte] === 0) byte++;
        at = Math.max(at, stop - perSlice + Math.floor((byte * 8) / this.refcountBits));
      }
      for (; at < stop; at++) {
        if (this.refcount(at) !== 0) return at;
        // Something is set in this byte, which may count several clusters; behind it, bytes are looked at again.
        if (((at + 1) * this.refcountBits) % 8 === 0) {
          at++;
          break;
        }
      }
    }
    return end;
  }

  private setRefcount(cluster: number, value: number): void {
    const block = this.blockOffset(Math.floor(cluster / this.blockEntries));
    sane(block !== 0, 'a refcount block is missing');
    const index = cluster % this.blockEntries;
    const slice = this.refSlice(block, index);
    const mask = this.refs.sliceSize - 1;
    const order = this.header.refcountOrder;
    if (order >= 3) {
      const bytes = 1 << (order - 3);
      const at = (index * bytes) & mask;
      if (bytes === 1) slice.view.setUint8(at, value);
      else if (bytes === 2) slice.view.setUint16(at, value);
      else if (bytes === 4) slice.view.setUint32(at, value);
      else setU64(slice.view, at, value);
      this.refs.touch(slice, at, bytes);
    } else {
      const bit = index * this.refcountBits;
      const at = (bit >> 3) & mask;
      const shift = bit & 7;
      slice.view.setUint8(at, (slice.view.getUint8(at) & ~(this.maxRefcount << shift)) | (value << shift));
      this.refs.touch(slice, at, 1);
    }
  }

  /** For the repairer: any value, making the block if it is missing. */
  forceRefcount(cluster: number, value: number): void {
    while (!this.tableReaches(cluster, 1)) this.growReftable(cluster, 1);
    this.ensureBlocks(cluster, 1);
    this.setRefcount(cluster, value);
    if (value === 0) this.freeHint = Math.min(this.freeHint, cluster);
  }

  /** Counts one more (or `by` more) user of a cluster. Throws `invalid` if the width cannot hold it. */
  retain(cluster: number, by = 1): void {
    const value = this.refcount(cluster);
    if (value === 0) this.markCorrupt(`cluster ${cluster} is in use but its refcount is 0`);
    if (value + by > this.maxRefcount)
      throw new BlockError('invalid', `${this.file.name}: refcounts of ${this.refcountBits} bits cannot count another reference`);
    this.setRefcount(cluster, value + by);
  }

  /** One user less for every cluster the range touches, once the disk no longer names it. */
  free(offset: number, length: number): void {
    const cluster = Math.floor(offset / this.clusterSize);
    const count = Math.ceil((offset + length) / this.clusterSize) - cluster;
    const last = this.pending[this.pending.length - 1];
    if (last && last.cluster + last.count === cluster) last.count += count;
    else this.pending.push({ cluster, count });
  }

  private applyFrees(): void {
    const list = this.pending;
    this.pending = [];
    let at = 0;
    let gone = 0;
    let goneStart = 0;
    const release = (): void => {
      try {
        if (gone && this.unmap && !this.external) this.file.discard(goneStart * this.clusterSize, gone * this.clusterSize);
      } catch (error) {
        // The host keeps the storage of what is free; nothing is wrong with the image.
        if (!(error instanceof BlockError)) throw error;
      }
      gone = 0;
    };
    try {
      for (; at < list.length; at++) {
        const run = list[at];
        for (; run.count > 0; run.cluster++, run.count--) {
          const c = run.cluster;
          const value = this.refcount(c);
          if (value === 0) this.markCorrupt(`cluster ${c} is freed more often than it is used`);
          this.setRefcount(c, value - 1);
          if (value > 1) continue;
          if (c < this.freeHint) this.freeHint = c;
          this.l2.forget(c * this.clusterSize, this.clusterSize);
          if (this.compressCluster === c) this.compressAt = 0;
          if (gone && goneStart + gone === c) gone++;
          else {
            release();
            goneStart = c;
            gone = 1;
          }
        }
      }
    } finally {
      // Where the host failed, the rest is for the next time.
      if (at < list.length && !this.broken) this.pending.unshift(...list.slice(at));
      release();
    }
  }

  private ensureBlocks(first: number, count: number): void {
    const end = Math.floor((first + count - 1) / this.blockEntries);
    for (let index = Math.floor(first / this.blockEntries); index <= end; index++)
      if (this.blockOffset(index) === 0) this.makeBlock(index, first, count);
  }

  /** A new refcount block, placed where it counts itself if it can, and off the run [avoid, avoid + count). */
  private makeBlock(index: number, avoid: number, count: number): void {
    sane(index < this.reftable.length, 'the refcount table is too short');
    const start = index * this.blockEntries;
    let at = start;
    while (at < start + this.blockEntries && ((at >= avoid && at < avoid + count) || this.metadata.has(at))) at++;
    const self = at < start + this.blockEntries;
    if (!self) {
      // The run fills all that this block counts: put it anywhere after.
      at = Math.max(avoid + count, start + this.blockEntries);
      while (this.metadata.has(at) || this.refcount(at) !== 0) at++;
    }
    const offset = at * this.clusterSize;
    this.putZeroes(offset, this.clusterSize);
    this.refs.forget(offset, this.clusterSize);
    this.reftable[index] = offset;
    this.reftableDirty.add(index);
    this.metadata.add(at);
    this.grow(offset + this.clusterSize);
    if (!self) this.ensureBlocks(at, 1);
    this.setRefcount(at, 1);
  }

  /** Can the table name the blocks that count this run, and two more for blocks that must lie elsewhere? */
  private tableReaches(first: number, count: number): boolean {
    return Math.floor((first + count - 1) / this.blockEntries) + 2 < this.reftable.length || this.hasBlocks(first, count);
  }

  private hasBlocks(first: number, count: number): boolean {
    const end = Math.floor((first + count - 1) / this.blockEntries);
    for (let index = Math.floor(first / this.blockEntries); index <= end; index++)
      if (this.blockOffset(index) === 0) return false;
    return true;
  }

  /** A longer refcount table, somewhere else. It takes clusters, so a run found before must be looked for again. */
  private growReftable(first: number, count: number): void {
    const index = Math.floor((first + count - 1) / this.blockEntries) + 3;
    const perCluster = this.clusterSize / 8;
    const wanted = Math.ceil(Math.max(index + 1, this.reftable.length * 1.5) / perCluster);
    const limit = Math.floor(MAX_REFTABLE_BYTES / this.clusterSize);
    const clusters = Math.min(wanted, limit);
    if (index >= clusters * perCluster)
      throw new BlockError('no-space', `${this.file.name}: the image has reached the largest file its refcount table can count`);
    const bigger = new Float64Array(clusters * perCluster);
    bigger.set(this.reftable);
    this.reftable = bigger;
    const previous = this.reftableMoved;
    const at = this.allocContiguous(clusters);
    this.claim(at, clusters * this.clusterSize);
    this.reftableMoved = { offset: at, clusters };
    if (previous) {
      this.unclaim(previous.offset, previous.clusters * this.clusterSize);
      this.free(previous.offset, previous.clusters * this.clusterSize);
    }
  }

  private grow(end: number): void {
    if (end > this.needLength) this.needLength = end;
  }

  private take(first: number, count: number): number {
    if ((first + count) * this.clusterSize > MAX_OFFSET)
      throw new BlockError('no-space', `${this.file.name}: the image file is too large`);
    // First of all: where this fails nothing has changed.
    if (this.lazy && !this.lazyActive) {
      this.setDirty(true);
      this.lazyActive = true;
    }
    this.ensureBlocks(first, count);
    for (let c = first; c < first + count; c++) this.setRefcount(c, 1);
    if (first <= this.freeHint) this.freeHint = Math.max(this.freeHint, first + count);
    this.grow((first + count) * this.clusterSize);
    return first * this.clusterSize;
  }

  private firstFree(from: number): number {
    let c = from;
    while (this.refcount(c) !== 0) c++;
    if (this.metadata.has(c)) this.markCorrupt(`cluster ${c} holds metadata but its refcount is 0`);
    return c;
  }

  /** Up to `max` clusters in a row; returns the offset, the count in `allocated`. */
  allocRun(max: number): number {
    for (;;) {
      const first = this.firstFree(this.freeHint);
      this.freeHint = first;
      let count = 1;
      while (count < max && this.refcount(first + count) === 0 && !this.metadata.has(first + count)) count++;
      if (!this.tableReaches(first, count)) {
        this.growReftable(first, count);
        continue;
      }
      this.allocated = count;
      return this.take(first, count);
    }
  }
  allocated = 0;

  /** Exactly `count` clusters in a row. */
  allocContiguous(count: number): number {
    let first = this.firstFree(this.freeHint);
    let run = 0;
    while (run < count) {
      if (this.refcount(first + run) === 0 && !this.metadata.has(first + run)) run++;
      else {
        first = this.firstFree(first + run + 1);
        run = 0;
      }
    }
    if (this.tableReaches(first, count)) return this.take(first, count);
    this.growReftable(first, count);
    return this.allocContiguous(count);
  }

  private compressAt = 0;
  private compressCluster = -1;

  /** Room for compressed data, any alignment; counts one user on every cluster it touches. */
  allocBytes(length: number): number {
    const size = this.clusterSize;
    if (this.compressAt !== 0) {
      const inCluster = this.compressAt % size;
      const cluster = Math.floor(this.compressAt / size);
      if (this.refcount(cluster) > 0 && this.refcount(cluster) < this.maxRefcount) {
        const next = cluster + 1;
        const spills = inCluster + length > size;
        if (!spills || (this.refcount(next) === 0 && !this.metadata.has(next) && this.tableReaches(next, 1))) {
          const at = this.compressAt;
          this.retain(cluster);
          if (spills) this.take(next, 1);
          this.setCompressAt(at + length);
          return at;
        }
      }
    }
    const at = this.allocRun(1);
    this.setCompressAt(at + length);
    return at;
  }

  private setCompressAt(at: number): void {
    // A cursor at a cluster boundary names a cluster that is not ours.
    this.compressAt = at % this.clusterSize === 0 ? 0 : at;
    this.compressCluster = this.compressAt === 0 ? -1 : Math.floor(at / this.clusterSize);
  }

  /** Throws (and marks the image corrupt) if guest data would be written over metadata. */
  protect(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / this.clusterSize);
    for (let c = Math.floor(offset / this.clusterSize); c < end; c++)
      if (this.metadata.has(c)) this.markCorrupt(`guest data at ${offset} would overwrite metadata`);
  }

  get bitmapsValid(): boolean {
    return (this.header.autoclear & AUTOCLEAR_BITMAPS) !== 0;
  }

  /** Takes the refcount table that the checker built. */
  adoptReftable(table: Float64Array): void {
    this.reftable = table;
    this.reftableDirty.clear();
    this.reftableMoved = null;
    this.pending = [];
    this.refs.forgetAll();
    this.recollect();
  }

  /** After a repair gave clusters back: forgets what was held on to. The caller claims snapshot and bitmap tables again. */
  recollect(): void {
    this.freeHint = 0;
    this.compressAt = 0;
    this.metadata.clear();
    this.collectMetadata();
  }
}
