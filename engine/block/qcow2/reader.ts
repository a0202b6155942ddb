/** Looking up and reading guest data of a qcow2 image. Writing is in node.ts. */
import { sane } from '../errors.ts';
import type { BlockFile, BlockHost } from '../file.ts';
import type { SectorCipher } from '../luks.ts';
import { type BlockNode, type BlockRun, checkRange } from '../node.ts';
import type { BitmapTracker } from './bitmap.ts';
import { AUTOCLEAR_RAW_DATA } from './header.ts';
import { L2Codec, type L2Entry } from './l2.ts';
import type { Qcow2Meta } from './meta.ts';
import type { Snapshot } from './snapshot.ts';

export const UNALLOCATED = 0;
export const ZERO = 1;
export const DATA = 2;
export const COMPRESSED = 3;
export const SECTOR = 512;

export interface Qcow2Parts {
  host: BlockHost;
  backing: BlockNode | null;
  dataFile: BlockFile | null;
  cipher: SectorCipher | null;
  snapshots: Snapshot[];
  bitmaps: BitmapTracker | null;
}

/** The reading half of a qcow2 disk. */
export abstract class Qcow2Reader {
  readonly format = 'qcow2';
  readonly meta: Qcow2Meta;
  readonly codec: L2Codec;
  readonly cipher: SectorCipher | null;
  readonly dataFile: BlockFile | null;
  readonly host: BlockHost;
  backing: BlockNode | null;
  snapshots: Snapshot[];
  bitmaps: BitmapTracker | null;
  protected readonly data: BlockFile;
  protected readonly subSize: number;
  protected readonly rawData: boolean;
  protected readonly entry: L2Entry;
  private unpacked: Uint8Array | null = null;
  protected unpackedFrom = -1;

  // The run that `map` found.
  protected runKind = UNALLOCATED;
  protected runLength = 0;
  protected runHost = 0;
  protected runInPlace = false;
  private runBytes = 0;

  constructor(meta: Qcow2Meta, parts: Qcow2Parts) {
    this.meta = meta;
    this.codec = new L2Codec(meta);
    this.entry = this.codec.empty();
    this.host = parts.host;
    this.backing = parts.backing;
    this.dataFile = parts.dataFile;
    this.data = parts.dataFile ?? meta.file;
    this.cipher = parts.cipher;
    this.snapshots = parts.snapshots;
    this.bitmaps = parts.bitmaps;
    this.subSize = meta.clusterSize / this.codec.subclusters;
    this.rawData = (meta.header.autoclear & AUTOCLEAR_RAW_DATA) !== 0;
    if (parts.dataFile) {
      const file = parts.dataFile;
      meta.flushData = () => {
        if (!file.readOnly) file.flush();
      };
    }
  }

  get filename(): string {
    return this.meta.file.name;
  }
  get size(): number {
    return this.meta.header.size;
  }
  get readOnly(): boolean {
    return !this.meta.writable;
  }
  get clusterSize(): number {
    return this.meta.clusterSize;
  }

  // ---- looking up

  /** The L2 table of an L1 index; 0 for none. */
  l2Table(index: number): number {
    const { meta } = this;
    if (index >= meta.l1Offsets.length) return 0;
    const offset = meta.l1Offsets[index];
    sane(!Number.isNaN(offset), `${this.filename}: L1 entry ${index} is not valid`);
    sane(offset < meta.freshFrom, `${this.filename}: L2 table ${index} lies beyond the end of the file`);
    return offset;
  }

  protected loadEntry(table: number, index: number, entry: L2Entry): void {
    const { l2 } = this.meta;
    const at = index * this.meta.entrySize;
    const slice = l2.get(table + at - (at % l2.sliceSize));
    this.codec.decode(slice.view, at % l2.sliceSize, entry);
    if (entry.host >= 0 && this.meta.external)
      sane(entry.compressed || entry.host % this.clusterSize === 0, 'data file offset is not valid');
  }

  protected storeEntry(table: number, index: number, entry: L2Entry): void {
    const { l2 } = this.meta;
    const at = index * this.meta.entrySize;
    const slice = l2.get(table + at - (at % l2.sliceSize));
    this.codec.encode(slice.view, at % l2.sliceSize, entry);
    l2.touch(slice, at % l2.sliceSize, this.meta.entrySize);
    if (entry.compressed || this.unpackedFrom >= 0) this.unpackedFrom = -1;
  }

  /** Kind of subclusters from `sub` on, and (in `kindCount`) how many in a row have it. */
  private kindAt(entry: L2Entry, sub: number): number {
    if (entry.compressed) {
      this.kindCount = this.codec.subclusters - sub;
      return COMPRESSED;
    }
    const kindOf = (s: number) => ((entry.allocated >>> s) & 1 ? DATA : (entry.zero >>> s) & 1 ? ZERO : UNALLOCATED);
    const kind = kindOf(sub);
    let end = sub + 1;
    while (end < this.codec.subclusters && kindOf(end) === kind) end++;
    this.kindCount = end - sub;
    return kind;
  }
  private kindCount = 0;

  /** Finds what [offset, offset + length) starts with; results in `run*`. */
  protected map(offset: number, length: number): void {
    const { meta, entry, clusterSize } = this;
    const l1Index = Math.floor(offset / meta.l2Coverage);
    const inTable = offset - l1Index * meta.l2Coverage;
    const table = this.l2Table(l1Index);
    if (table === 0) {
      this.runKind = UNALLOCATED;
      this.runLength = Math.min(length, meta.l2Coverage - inTable);
      this.runInPlace = false;
      return;
    }
    const perSlice = meta.l2.sliceSize / meta.entrySize;
    let index = Math.floor(inTable / clusterSize);
    const inCluster = inTable - index * clusterSize;
    this.loadEntry(table, index, entry);
    const sub = Math.floor(inCluster / this.subSize);
    const kind = this.kindAt(entry, sub);
    const inPlace = kind === DATA && entry.copied && meta.l1Copied[l1Index] === 1;
    this.runKind = kind;
    this.runInPlace = inPlace;
    this.runHost = kind === COMPRESSED ? entry.host : entry.host + inCluster;
    this.runBytes = entry.length;
    let found = (sub + this.kindCount) * this.subSize - inCluster;
    if (kind !== COMPRESSED) {
      let host = entry.host + clusterSize;
      let whole = sub + this.kindCount === this.codec.subclusters;
      while (whole && found < length && ++index % perSlice !== 0) {
        this.loadEntry(table, index, entry);
        if (entry.compressed || this.kindAt(entry, 0) !== kind) break;
        if (kind === DATA && (entry.host !== host || (entry.copied && meta.l1Copied[l1Index] === 1) !== inPlace)) break;
        found += this.kindCount * this.subSize;
        whole = this.kindCount === this.codec.subclusters;
        host += clusterSize;
      }
    }
    this.runLength = Math.min(length, found);
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.size, offset, length);
    if (length === 0) return { kind: 'data', length: 0 };
    this.map(offset, length);
    const kind = this.runKind;
    if (kind === UNALLOCATED || kind === ZERO) {
      const result: BlockRun = { kind: kind === ZERO ? 'zero' : 'unallocated', length: this.runLength };
      while (result.length < length) {
        this.map(offset + result.length, length - result.length);
        if (this.runKind !== kind) break;
        result.length += this.runLength;
      }
      return result;
    }
    if (kind === COMPRESSED) return { kind: 'data', length: this.runLength, compressed: true };
    return this.cipher
      ? { kind: 'data', length: this.runLength }
      : { kind: 'data', length: this.runLength, hostOffset: this.runHost };
  }

  // ---- reading

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.size, offset, buf.length);
    this.readAny(offset, buf);
  }

  /** Reads guest offsets, also those past the end of the disk where VM state lies. */
  protected readAny(offset: number, buf: Uint8Array): void {
    if (this.cipher && (offset % SECTOR !== 0 || buf.length % SECTOR !== 0)) {
      const start = offset - (offset % SECTOR);
      const bounce = new Uint8Array(Math.ceil((offset + buf.length - start) / SECTOR) * SECTOR);
      this.readAny(start, bounce);
      buf.set(bounce.subarray(offset - start, offset - start + buf.length));
      return;
    }
    let done = 0;
    while (done < buf.length) {
      const at = offset + done;
      this.map(at, buf.length - done);
      const part = this.runLength === buf.length ? buf : buf.subarray(done, done + this.runLength);
      done += part.length;
      if (this.runKind === DATA) {
        const host = this.runHost;
        this.data.pread(part, host);
        if (this.cipher) this.cipher.decrypt(part, Math.floor((this.cipher.byHost ? host : at) / SECTOR));
      } else if (this.runKind === COMPRESSED) {
        const inCluster = at % this.clusterSize;
        part.set(this.unpack(this.runHost, this.runBytes).subarray(inCluster, inCluster + part.length));
      } else if (this.runKind === UNALLOCATED && this.backing && at < this.size) this.readBacking(at, part);
      else part.fill(0);
    }
  }

  private readBacking(offset: number, part: Uint8Array): void {
    const inside = Math.max(0, Math.min(part.length, this.backing!.size - offset));
    if (inside > 0) this.backing!.read(offset, inside === part.length ? part : part.subarray(0, inside));
    if (inside < part.length) part.fill(0, inside);
  }

  private unpack(host: number, length: number): Uint8Array {
    if (this.unpackedFrom === host && this.unpacked) return this.unpacked;
    this.unpackedFrom = -1;
    sane(host < this.meta.freshFrom, `${this.filename}: compressed cluster lies beyond the end of the file`);
    const packed = new Uint8Array(length);
    this.meta.file.pread(packed, host);
    const { codecs } = this.host;
    const plain =
      this.meta.header.compressionType === 1
        ? codecs.zstdDecompress(packed, this.clusterSize)
        : codecs.inflateRaw(packed, this.clusterSize);
    sane(plain.length === this.clusterSize, `${this.filename}: compressed cluster at ${host} is too short`);
    this.unpacked = plain;
    this.unpackedFrom = host;
    return plain;
  }
}
