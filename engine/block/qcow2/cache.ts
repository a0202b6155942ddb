import { sane } from '../errors.ts';
import type { BlockFile } from '../file.ts';

/** A piece of a table as it stands in memory. Dirty bytes are [dirtyLow, dirtyHigh). */
export class Slice {
  readonly offset: number;
  readonly view: DataView;
  readonly bytes: Uint8Array;
  dirtyLow = 0;
  dirtyHigh = 0;
  used = 0;

  constructor(offset: number, size: number) {
    this.offset = offset;
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }

  get dirty(): boolean {
    return this.dirtyHigh > this.dirtyLow;
  }
}

const SECTOR = 512;

/**
 * Slices of one kind of table (L2 tables or refcount blocks), least recently used first out. It never writes by
 * itself: dirty slices stay until the owner writes them in its order, so the owner asks `crowded` between operations.
 */
export class TableCache {
  private readonly slices = new Map<number, Slice>();
  private readonly file: BlockFile;
  readonly sliceSize: number;
  private readonly limit: number;
  private clock = 0;
  private last: Slice | null = null;
  private dirtyCount = 0;

  /** @param sliceSize bytes, a power of two that divides a cluster. @param bytes what the cache may hold when clean. */
  constructor(file: BlockFile, sliceSize: number, bytes: number) {
    this.file = file;
    this.sliceSize = sliceSize;
    this.limit = Math.max(8, Math.floor(bytes / sliceSize));
  }

  /** The slice at a file offset that is a multiple of the slice size. Valid until the next `get`. */
  get(offset: number): Slice {
    if (this.last !== null && this.last.offset === offset) return this.last;
    let slice = this.slices.get(offset);
    if (slice === undefined) {
      sane(Number.isSafeInteger(offset) && offset > 0, 'a table lies at an impossible offset');
      if (this.slices.size >= this.limit) this.evict();
      slice = new Slice(offset, this.sliceSize);
      this.file.pread(slice.bytes, offset);
      this.slices.set(offset, slice);
    }
    slice.used = ++this.clock;
    this.last = slice;
    return slice;
  }

  /** Marks bytes of a slice as changed. */
  touch(slice: Slice, at: number, length: number): void {
    if (!slice.dirty) {
      this.dirtyCount++;
      slice.dirtyLow = at;
      slice.dirtyHigh = at + length;
      return;
    }
    if (at < slice.dirtyLow) slice.dirtyLow = at;
    if (at + length > slice.dirtyHigh) slice.dirtyHigh = at + length;
  }

  /** True when the owner should write back before going on. */
  get crowded(): boolean {
    return this.dirtyCount * 2 > this.limit;
  }

  get anyDirty(): boolean {
    return this.dirtyCount > 0;
  }

  /** Writes dirty slices that the filter wants, in file order, whole sectors. Returns how many. */
  writeBack(want?: (offset: number) => boolean): number {
    if (this.dirtyCount === 0) return 0;
    const dirty: Slice[] = [];
    for (const slice of this.slices.values()) if (slice.dirty && (want === undefined || want(slice.offset))) dirty.push(slice);
    dirty.sort((a, b) => a.offset - b.offset);
    for (const slice of dirty) {
      const low = slice.dirtyLow - (slice.dirtyLow % SECTOR);
      const high = Math.min(this.sliceSize, Math.ceil(slice.dirtyHigh / SECTOR) * SECTOR);
      this.file.pwrite(slice.bytes.subarray(low, high), slice.offset + low);
      slice.dirtyLow = slice.dirtyHigh = 0;
      this.dirtyCount--;
    }
    return dirty.length;
  }

  /** Forgets what lies in a range, dirty or not: the clusters were freed or rewritten elsewhere. */
  forget(offset: number, length: number): void {
    this.last = null;
    const drop = (slice: Slice): void => {
      if (slice.dirty) this.dirtyCount--;
      this.slices.delete(slice.offset);
    };
    if (length / this.sliceSize > this.slices.size) {
      for (const slice of [...this.slices.values()]) if (slice.offset >= offset && slice.offset < offset + length) drop(slice);
      return;
    }
    for (let at = offset; at < offset + length; at += this.sliceSize) {
      const slice = this.slices.get(at);
      if (slice) drop(slice);
    }
  }

  forgetAll(): void {
    this.slices.clear();
    this.last = null;
    this.dirtyCount = 0;
  }

  private evict(): void {
    const clean = [...this.slices.values()].filter((slice) => !slice.dirty).sort((a, b) => a.used - b.used);
    for (const slice of clean.slice(0, Math.max(1, clean.length >> 2))) this.slices.delete(slice.offset);
    this.last = null;
  }
}
