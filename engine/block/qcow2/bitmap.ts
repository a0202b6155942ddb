/** Persistent dirty bitmaps: kept true while we write. Source: docs/interop/qcow2.txt, "Bitmaps". */
import { setU64, u64 } from '../bytes.ts';
import { sane } from '../errors.ts';
import type { BlockFile } from '../file.ts';
import type { Qcow2Meta } from './meta.ts';

const IN_USE = 1;
const AUTO = 2;
const EXTRA_COMPATIBLE = 4;
const MAX_TABLE_ENTRIES = 0x100000;
/** Bitmap data held in memory before it is written out early. */
const MAX_HELD = 64 << 20;

export interface Bitmap {
  name: string;
  flags: number;
  type: number;
  granularityBits: number;
  tableOffset: number;
  tableSize: number;
  /** Where its entry starts in the directory. */
  entryAt: number;
}

/** Reads the directory. Throws `corrupt`. */
export function readBitmapDirectory(file: BlockFile, meta: Qcow2Meta): { bytes: Uint8Array; list: Bitmap[] } {
  const extension = meta.header.bitmaps!;
  sane(extension.directoryOffset + extension.directorySize <= file.size(), 'bitmap directory lies outside the file');
  const bytes = new Uint8Array(extension.directorySize);
  file.pread(bytes, extension.directoryOffset);
  const view = new DataView(bytes.buffer);
  const list: Bitmap[] = [];
  let at = 0;
  for (let i = 0; i < extension.count; i++) {
    sane(at + 24 <= bytes.length, 'bitmap directory is cut short');
    const nameLength = view.getUint16(at + 18);
    const extraLength = view.getUint32(at + 20);
    const end = at + Math.ceil((24 + nameLength + extraLength) / 8) * 8;
    sane(end <= bytes.length && nameLength > 0 && nameLength <= 1023, 'bitmap directory entry is not valid');
    const bitmap: Bitmap = {
      tableOffset: u64(view, at),
      tableSize: view.getUint32(at + 8),
      flags: view.getUint32(at + 12),
      type: bytes[at + 16],
      granularityBits: bytes[at + 17],
      name: new TextDecoder().decode(bytes.subarray(at + 24 + extraLength, at + 24 + extraLength + nameLength)),
      entryAt: at,
    };
    sane(bitmap.tableSize <= MAX_TABLE_ENTRIES && bitmap.granularityBits <= 63, `bitmap '${bitmap.name}' is not valid`);
    sane(
      bitmap.tableOffset % meta.clusterSize === 0 && bitmap.tableOffset + bitmap.tableSize * 8 <= file.size(),
      `the table of bitmap '${bitmap.name}' lies outside the file`,
    );
    if (extraLength > 0 && !(bitmap.flags & EXTRA_COMPATIBLE)) bitmap.type = 0;
    list.push(bitmap);
    at = end;
  }
  sane(at === bytes.length, 'bitmap directory has trailing bytes');
  return { bytes, list };
}

/** Table entries: the offset of a cluster, or 0 and 1 for all zeros and all ones. */
export function readBitmapTable(file: BlockFile, meta: Qcow2Meta, bitmap: Bitmap): Float64Array {
  const bytes = new Uint8Array(bitmap.tableSize * 8);
  file.pread(bytes, bitmap.tableOffset);
  const view = new DataView(bytes.buffer);
  const table = new Float64Array(bitmap.tableSize);
  for (let i = 0; i < table.length; i++) {
    const value = u64(view, i * 8);
    sane(
      value <= 1 || (Number.isFinite(value) && value % meta.clusterSize === 0),
      `table of bitmap '${bitmap.name}' is not valid`,
    );
    table[i] = value;
  }
  return table;
}

interface Tracked {
  bitmap: Bitmap;
  table: Float64Array;
  /** Changed or loaded clusters of the bitmap, by table index. */
  chunks: Map<number, Uint8Array>;
  enabled: boolean;
  resized: boolean;
}

/** Records writes into the image's enabled bitmaps. */
export class BitmapTracker {
  private readonly meta: Qcow2Meta;
  private readonly directory: Uint8Array;
  readonly list: Bitmap[];
  private tracked: Tracked[] = [];
  private readonly touched = new Set<Bitmap>();
  private held = 0;
  private size: number;
  private begun = false;
  private dropped: { offset: number; length: number }[] = [];

  constructor(meta: Qcow2Meta) {
    this.meta = meta;
    this.size = meta.header.size;
    const { bytes, list } = readBitmapDirectory(meta.file, meta);
    this.directory = bytes;
    this.list = list;
    if (meta.writable) this.claim();
  }

  /** Keeps the clusters of all bitmaps from being handed out or written over. */
  claim(): void {
    const { meta, list } = this;
    const extension = meta.header.bitmaps!;
    meta.claim(extension.directoryOffset, extension.directorySize, 'the bitmap directory');
    for (const bitmap of list) {
      // One overlap is enough to refuse the image; a directory made to keep us busy ends here.
      if (meta.overlap !== null) return;
      if (bitmap.tableSize) meta.claim(bitmap.tableOffset, bitmap.tableSize * 8, 'a bitmap table');
      for (const offset of readBitmapTable(meta.file, meta, bitmap)) if (offset > 1) meta.claim(offset, 1, 'bitmap data');
    }
  }

  /** Before the first write: enabled bitmaps are marked in use, so that a crash leaves them known to be stale. */
  begin(): void {
    if (this.begun) return;
    this.begun = true;
    for (const bitmap of this.list) if (bitmap.flags & AUTO) this.track(bitmap, true);
    this.writeDirectory();
  }

  private track(bitmap: Bitmap, enabled: boolean): void {
    if (bitmap.type !== 1 || bitmap.flags & IN_USE || this.touched.has(bitmap)) return;
    this.touched.add(bitmap);
    const table = readBitmapTable(this.meta.file, this.meta, bitmap);
    this.tracked.push({ bitmap, table, chunks: new Map(), enabled, resized: false });
    this.setFlags(bitmap, bitmap.flags | IN_USE);
  }

  private setFlags(bitmap: Bitmap, flags: number): void {
    bitmap.flags = flags;
    new DataView(this.directory.buffer).setUint32(bitmap.entryAt + 12, flags);
  }

  private writeDirectory(): void {
    this.meta.barrier();
    this.meta.put(this.directory, this.meta.header.bitmaps!.directoryOffset);
    this.meta.barrier();
  }

  private chunk(item: Tracked, index: number): Uint8Array {
    let chunk = item.chunks.get(index);
    if (chunk) return chunk;
    const size = this.meta.clusterSize;
    if (this.held + size > MAX_HELD) this.spill();
    chunk = new Uint8Array(size);
    const offset = item.table[index];
    if (offset > 1) this.meta.file.pread(chunk, offset);
    else if (offset === 1) chunk.fill(0xff);
    item.chunks.set(index, chunk);
    this.held += size;
    return chunk;
  }

  /** Writes data clusters out; the tables still name what they named until `end`. */
  private spill(): void {
    for (const item of this.tracked) {
      for (const [index, chunk] of item.chunks) {
        if (item.table[index] <= 1) {
          item.table[index] = this.meta.allocRun(1);
          this.meta.claim(item.table[index], 1);
        }
        this.meta.put(chunk, item.table[index]);
      }
      item.chunks.clear();
    }
    this.held = 0;
  }

  /** A range of the disk changed. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    const perChunk = this.meta.clusterSize * 8;
    for (const item of this.tracked) {
      if (!item.enabled) continue;
      const granularity = 2 ** item.bitmap.granularityBits;
      let bit = Math.floor(offset / granularity);
      const end = Math.ceil((offset + length) / granularity);
      while (bit < end) {
        const index = Math.floor(bit / perChunk);
        if (index >= item.table.length) break;
        const stop = Math.min(end, (index + 1) * perChunk);
        const chunk = this.chunk(item, index);
        for (; bit < stop; bit++) {
          const b = bit % perChunk;
          if ((b & 7) === 0 && stop - bit >= 8) {
            chunk[b >> 3] = 0xff;
            bit += 7;
          } else chunk[b >> 3] |= 1 << (b & 7);
        }
      }
    }
  }

  /** The disk gets another size: so does every bitmap that is still true. */
  resize(size: number): void {
    this.begin();
    for (const bitmap of this.list) this.track(bitmap, false);
    this.writeDirectory();
    const perChunk = this.meta.clusterSize * 8;
    for (const item of this.tracked) {
      const bitCount = Math.ceil(size / 2 ** item.bitmap.granularityBits);
      const chunks = Math.ceil(bitCount / perChunk);
      for (let i = chunks; i < item.table.length; i++) {
        if (item.table[i] > 1) {
          // The table on the disk names it until `end`.
          this.dropped.push({ offset: item.table[i], length: this.meta.clusterSize });
        }
        if (item.chunks.delete(i)) this.held -= this.meta.clusterSize;
      }
      const table = new Float64Array(chunks);
      table.set(item.table.subarray(0, chunks));
      const wasShorter = size < this.size;
      item.table = table;
      item.resized = true;
      if (wasShorter && bitCount % perChunk !== 0 && (table[chunks - 1] !== 0 || item.chunks.has(chunks - 1))) {
        const chunk = this.chunk(item, chunks - 1);
        const used = bitCount % perChunk;
        if (used & 7) chunk[used >> 3] &= (1 << (used & 7)) - 1;
        chunk.fill(0, Math.ceil(used / 8));
      }
    }
    this.size = size;
  }

  /** At close: bitmaps are written, and no longer in use. */
  end(): void {
    if (this.tracked.length === 0) return;
    const { meta } = this;
    this.spill();
    const view = new DataView(this.directory.buffer);
    for (const item of this.tracked) {
      const { bitmap } = item;
      const bytes = new Uint8Array(item.table.length * 8);
      const table = new DataView(bytes.buffer);
      for (let i = 0; i < item.table.length; i++) setU64(table, i * 8, item.table[i]);
      if (item.resized) {
        const old = { offset: bitmap.tableOffset, size: bitmap.tableSize };
        bitmap.tableSize = item.table.length;
        bitmap.tableOffset = bitmap.tableSize ? meta.allocContiguous(Math.ceil(bytes.length / meta.clusterSize)) : 0;
        if (bitmap.tableSize) meta.claim(bitmap.tableOffset, bytes.length);
        setU64(view, bitmap.entryAt, bitmap.tableOffset);
        view.setUint32(bitmap.entryAt + 8, bitmap.tableSize);
        if (old.size) {
          this.dropped.push({ offset: old.offset, length: old.size * 8 });
        }
      }
      meta.settle();
      if (bytes.length) meta.put(bytes, bitmap.tableOffset);
      this.setFlags(bitmap, bitmap.flags & ~IN_USE);
    }
    this.writeDirectory();
    for (const { offset, length } of this.dropped) {
      meta.unclaim(offset, length);
      meta.free(offset, length);
    }
    this.dropped = [];
    this.tracked = [];
    this.touched.clear();
    this.begun = false;
  }
}
