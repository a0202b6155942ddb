import { BlockError } from '../errors.ts';
import { type BlockNode, checkRange, isZero } from '../node.ts';
import { INCOMPAT_DIRTY, MAX_L1_BYTES } from './header.ts';
import { bits, type L2Entry } from './l2.ts';
import { Qcow2Reader, SECTOR, UNALLOCATED, ZERO } from './reader.ts';
import { repairIfNeeded, type Snapshot } from './snapshot.ts';

/** What a cluster range becomes when its content goes. */
type Clearing = 'discard' | 'zero' | 'zero-unmap' | 'drop';

/** A qcow2 image as a disk. Made by `openQcow2`; the parts it is made of are open, and closed with it. */
export class Qcow2Node extends Qcow2Reader implements BlockNode {
  private closed = false;
  private wrote = false;

  // ---- writing

  private beginWrite(offset: number, length: number): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.filename}: opened read-only`);
    if (this.meta.broken) throw new BlockError('corrupt', `${this.filename}: the image is marked corrupt; no more writes`);
    if (this.meta.needsRepair) repairIfNeeded(this);
    if (!this.wrote) {
      this.wrote = true;
      this.meta.beforeFirstWrite();
      this.bitmaps?.begin();
    }
    this.bitmaps?.mark(offset, length);
  }

  write(offset: number, buf: Uint8Array): void {
    checkRange(this.size, offset, buf.length);
    if (buf.length === 0) return;
    this.beginWrite(offset, buf.length);
    this.writeAny(offset, buf);
  }

  private writeAny(offset: number, buf: Uint8Array): void {
    if (this.cipher && (offset % SECTOR !== 0 || buf.length % SECTOR !== 0)) {
      const start = offset - (offset % SECTOR);
      const bounce = new Uint8Array(Math.ceil((offset + buf.length - start) / SECTOR) * SECTOR);
      this.readAny(start, bounce);
      bounce.set(buf, offset - start);
      this.writeAny(start, bounce);
      return;
    }
    let done = 0;
    while (done < buf.length) {
      this.meta.safePoint();
      const at = offset + done;
      this.map(at, buf.length - done);
      if (this.runInPlace) {
        this.putData(buf.subarray(done, done + this.runLength), this.runHost, at);
        done += this.runLength;
      } else done += this.allocateAndWrite(at, buf.subarray(done));
    }
  }

  /** Guest data to its place in the host file. */
  private putData(part: Uint8Array, host: number, guest: number): void {
    if (this.cipher) {
      const secret = new Uint8Array(part);
      this.cipher.encrypt(secret, Math.floor((this.cipher.byHost ? host : guest) / SECTOR));
      part = secret;
    }
    if (this.dataFile) {
      // The last cluster may reach past the disk; a raw data file must not.
      const inside = Math.max(0, Math.min(part.length, this.size - guest));
      this.dataFile.pwrite(inside === part.length ? part : part.subarray(0, inside), host);
    } else {
      this.meta.protect(host, part.length);
      this.meta.put(part, host);
    }
  }

  /** The L2 table of an L1 index, made or copied so that it is ours alone. */
  private ownTable(l1Index: number): number {
    const { meta } = this;
    const old = this.l2Table(l1Index);
    if (old !== 0 && meta.l1Copied[l1Index]) return old;
    const table = meta.allocRun(1);
    const copy = new Uint8Array(old === 0 ? 0 : meta.clusterSize);
    this.orFree(table, meta.clusterSize, () => {
      if (old === 0) meta.putZeroes(table, meta.clusterSize);
      else {
        meta.file.pread(copy, old);
        meta.put(copy, table);
      }
    });
    if (old !== 0) {
      meta.free(old, meta.clusterSize);
      meta.unclaim(old, 1);
    }
    meta.l2.forget(table, meta.clusterSize);
    meta.metadata.add(table / meta.clusterSize);
    meta.newTables.add(table);
    meta.setL1(l1Index, table, true);
    return table;
  }

  /** Writes what was allocated for; where the host fails that is given back, for nothing leads to it yet. */
  private orFree(host: number, bytes: number, write: () => void): void {
    try {
      write();
    } catch (error) {
      this.meta.free(host, bytes);
      throw error;
    }
  }

  private release(entry: L2Entry): void {
    if (entry.compressed) this.meta.free(entry.host, entry.length);
    else if (entry.host >= 0 && !this.meta.external) this.meta.free(entry.host, this.clusterSize);
  }

  /** Writes the start of `buf` where clusters must be made or copied first; returns how many bytes it did. */
  private allocateAndWrite(offset: number, buf: Uint8Array): number {
    const { meta, entry, clusterSize } = this;
    const l1Index = Math.floor(offset / meta.l2Coverage);
    const table = this.ownTable(l1Index);
    const first = Math.floor((offset - l1Index * meta.l2Coverage) / clusterSize);
    const inCluster = offset % clusterSize;
    this.loadEntry(table, first, entry);
    const reuse = !entry.compressed && entry.host >= 0 && entry.copied;
    if (reuse || meta.external) {
      if (!reuse) {
        entry.host = offset - inCluster;
        entry.copied = true;
      }
      const n = Math.min(buf.length, clusterSize - inCluster);
      this.fillCluster(
        table,
        first,
        entry,
        entry.host,
        reuse || meta.external,
        inCluster,
        buf.subarray(0, n),
        offset - inCluster,
      );
      return n;
    }
    // How many clusters from here on need a new home: to the end of the request, of the slice, or of such clusters.
    const perSlice = meta.l2.sliceSize / meta.entrySize;
    const most = Math.min(Math.ceil((inCluster + buf.length) / clusterSize), perSlice - (first % perSlice));
    let count = 1;
    while (count < most) {
      this.loadEntry(table, first + count, entry);
      if (!entry.compressed && entry.host >= 0 && entry.copied) break;
      count++;
    }
    const host = meta.allocRun(count);
    count = meta.allocated;
    /** Clusters whose data is written: their entries lead to them, or are about to. */
    let written = 0;
    try {
      return this.fillRun(offset, buf, table, first, host, count, (upTo) => {
        written = upTo;
      });
    } catch (error) {
      if (written < count) meta.free(host + written * clusterSize, (count - written) * clusterSize);
      throw error;
    }
  }

  /** Writes into `count` new clusters from `host` on and stores their entries; tells how many have their data. */
  private fillRun(
    offset: number,
    buf: Uint8Array,
    table: number,
    first: number,
    host: number,
    count: number,
    written: (clusters: number) => void,
  ): number {
    const { entry, clusterSize } = this;
    const inCluster = offset % clusterSize;
    let done = 0;
    for (let i = 0; i < count; ) {
      const from = i === 0 ? inCluster : 0;
      const rest = buf.length - done;
      if (from === 0 && rest >= clusterSize) {
        // Whole clusters: one write for all of them, then their entries.
        const whole = Math.min(count - i, Math.floor(rest / clusterSize));
        this.putData(buf.subarray(done, done + whole * clusterSize), host + i * clusterSize, offset + done);
        written(i + whole);
        for (let end = i + whole; i < end; i++) {
          this.loadEntry(table, first + i, entry);
          this.release(entry);
          this.storeNew(table, first + i, host + i * clusterSize);
        }
        done += whole * clusterSize;
      } else {
        const n = Math.min(rest, clusterSize - from);
        this.loadEntry(table, first + i, entry);
        this.fillCluster(
          table,
          first + i,
          entry,
          host + i * clusterSize,
          false,
          from,
          buf.subarray(done, done + n),
          offset + done - from,
          () => written(i + 1),
        );
        done += n;
        i++;
      }
    }
    return done;
  }

  private storeNew(table: number, index: number, host: number): void {
    const { entry } = this;
    entry.compressed = false;
    entry.copied = true;
    entry.host = host;
    entry.allocated = this.codec.all;
    entry.zero = 0;
    this.storeEntry(table, index, entry);
  }

  /**
   * Writes part of a cluster into `host`, with as much of the old content around it as must move along, and stores the
   * entry. `inPlace`: the host cluster is the entry's own, so what is allocated in it may stay as it is.
   */
  private fillCluster(
    table: number,
    index: number,
    entry: L2Entry,
    host: number,
    inPlace: boolean,
    from: number,
    part: Uint8Array,
    guestCluster: number,
    written?: () => void,
  ): void {
    const { subSize, clusterSize } = this;
    const old = { ...entry };
    const to = from + part.length;
    const firstSub = Math.floor(from / subSize);
    const endSub = Math.ceil(to / subSize);
    let low = from;
    let high = to;
    if (!inPlace && old.compressed) {
      low = 0;
      high = clusterSize;
    } else {
      if (!(inPlace && (old.allocated >>> firstSub) & 1)) low = firstSub * subSize;
      if (!(inPlace && (old.allocated >>> (endSub - 1)) & 1)) high = endSub * subSize;
      if (!inPlace && old.allocated) {
        low = Math.min(low, (31 - Math.clz32(old.allocated & -old.allocated)) * subSize);
        high = Math.max(high, (32 - Math.clz32(old.allocated)) * subSize);
      }
    }
    if (low === from && high === to) this.putData(part, host + from, guestCluster + from);
    else {
      const image = new Uint8Array(high - low);
      if (low < from) this.readAny(guestCluster + low, image.subarray(0, from - low));
      if (high > to) this.readAny(guestCluster + to, image.subarray(to - low));
      const fresh = !this.cipher && !this.dataFile && host + low >= this.meta.freshFrom;
      if (fresh && isZero(image)) this.putData(part, host + from, guestCluster + from);
      else {
        image.set(part, from - low);
        this.putData(image, host + low, guestCluster + low);
      }
    }
    written?.();
    if (!inPlace) this.release(old);
    const filled = bits(Math.floor(low / subSize), Math.ceil(high / subSize));
    entry.compressed = false;
    entry.copied = true;
    entry.host = host;
    entry.length = 0;
    entry.allocated = ((old.compressed ? 0 : old.allocated) | filled) >>> 0;
    entry.zero = ((old.compressed ? 0 : old.zero) & ~filled) >>> 0;
    this.storeEntry(table, index, entry);
  }

  /**
   * Writes one whole cluster compressed (`buf` may be shorter at the end of the disk). Where it does not get smaller it is
   * written plain.
   */
  writeCompressed(offset: number, buf: Uint8Array): void {
    const { meta, clusterSize } = this;
    checkRange(this.size, offset, buf.length);
    if (
      offset % clusterSize !== 0 ||
      (buf.length !== clusterSize && offset + buf.length !== this.size) ||
      buf.length > clusterSize
    )
      throw new BlockError('invalid', 'compressed writes are whole clusters');
    if (meta.external) throw new BlockError('unsupported', 'no compression with an external data file');
    if (this.cipher) throw new BlockError('unsupported', 'Compression and encryption not supported at the same time');
    this.beginWrite(offset, buf.length);
    meta.safePoint();
    let plain = buf;
    if (buf.length < clusterSize) {
      plain = new Uint8Array(clusterSize);
      plain.set(buf);
    }
    const { codecs } = this.host;
    const packed = meta.header.compressionType === 1 ? codecs.zstdCompress(plain) : codecs.deflateRaw(plain);
    if (packed.length >= clusterSize) {
      this.writeAny(offset, buf);
      return;
    }
    const l1Index = Math.floor(offset / meta.l2Coverage);
    const table = this.ownTable(l1Index);
    const index = Math.floor((offset - l1Index * meta.l2Coverage) / clusterSize);
    const at = meta.allocBytes(packed.length);
    this.orFree(at, packed.length, () => {
      meta.protect(at, packed.length);
      meta.put(packed, at);
    });
    const { entry } = this;
    this.loadEntry(table, index, entry);
    this.release(entry);
    entry.compressed = true;
    entry.copied = false;
    entry.host = at;
    entry.length = Math.ceil((at + packed.length) / SECTOR) * SECTOR - at;
    this.storeEntry(table, index, entry);
  }

  // ---- clearing

  writeZeroes(offset: number, length: number, unmap = true): void {
    checkRange(this.size, offset, length);
    if (length === 0) return;
    this.beginWrite(offset, length);
    this.zeroRange(offset, length, unmap, this.size);
  }

  /** `limit`: where the disk ends, or will end. */
  private zeroRange(offset: number, length: number, unmap: boolean, limit: number): void {
    const { subSize } = this;
    const end = offset + length;
    const plainOnly = this.meta.header.version < 3 && this.backing !== null;
    const start = Math.min(end, Math.ceil(offset / subSize) * subSize);
    const stop = end === limit ? end : Math.max(start, end - (end % subSize));
    if (plainOnly || start >= stop) {
      this.writeZeroBytes(offset, length);
      return;
    }
    this.writeZeroBytes(offset, start - offset);
    this.clear(start, stop, this.meta.header.version < 3 ? 'drop' : unmap ? 'zero-unmap' : 'zero');
    this.writeZeroBytes(stop, end - stop);
  }

  private writeZeroBytes(offset: number, length: number): void {
    const zeroes = new Uint8Array(Math.min(length, 1 << 20));
    while (length > 0) {
      const n = Math.min(length, zeroes.length);
      this.map(offset, n);
      const absent = this.runKind === ZERO || (this.runKind === UNALLOCATED && !(this.backing && offset < this.backing.size));
      const piece = Math.min(n, this.runLength);
      if (!absent) this.writeAny(offset, zeroes.subarray(0, piece));
      offset += piece;
      length -= piece;
    }
  }

  discard(offset: number, length: number): void {
    checkRange(this.size, offset, length);
    if (length === 0) return;
    this.beginWrite(offset, length);
    const start = Math.ceil(offset / this.subSize) * this.subSize;
    const end = offset + length === this.size ? this.size : offset + length - ((offset + length) % this.subSize);
    if (start < end) this.clear(start, end, 'discard');
  }

  /** `start` at a subcluster boundary, `end` too or at the end of what there is. */
  private clear(start: number, end: number, how: Clearing): void {
    const { meta, clusterSize, entry } = this;
    if (meta.external && this.rawData && how !== 'drop') {
      this.dataFile!.writeZeroes(start, Math.min(end, this.dataFile!.size()) - start);
      return;
    }
    let at = start;
    while (at < end) {
      meta.safePoint();
      const l1Index = Math.floor(at / meta.l2Coverage);
      const tableEnd = Math.min(end, (l1Index + 1) * meta.l2Coverage);
      const table = this.l2Table(l1Index);
      if (table === 0 && (how === 'drop' || !this.backing || at >= this.backing.size)) {
        at = tableEnd;
        continue;
      }
      if (table === 0 && how === 'discard' && meta.header.version < 3) {
        at = tableEnd;
        continue;
      }
      const perSlice = meta.l2.sliceSize / meta.entrySize;
      const index = Math.floor((at - l1Index * meta.l2Coverage) / clusterSize);
      const sliceEnd = Math.min(tableEnd, l1Index * meta.l2Coverage + (index - (index % perSlice) + perSlice) * clusterSize);
      for (; at < sliceEnd; ) {
        const inCluster = at % clusterSize;
        const stop = Math.min(sliceEnd, at - inCluster + clusterSize);
        this.clearCluster(l1Index, at, stop, how, entry);
        at = stop;
      }
    }
  }

  private clearCluster(l1Index: number, start: number, stop: number, how: Clearing, entry: L2Entry): void {
    const { meta, clusterSize, codec } = this;
    const index = Math.floor((start - l1Index * meta.l2Coverage) / clusterSize);
    const base = start - (start % clusterSize);
    const current = this.l2Table(l1Index);
    if (current) this.loadEntry(current, index, entry);
    else Object.assign(entry, codec.empty());
    const old = { ...entry };
    const whole = start === base && (stop === base + clusterSize || stop >= this.size || how === 'drop');
    const v3 = meta.header.version >= 3;
    if (whole) {
      const nothing = !old.compressed && old.host < 0 && old.zero === 0;
      const seesBacking = this.backing !== null && base < this.backing.size;
      if (how === 'drop' || !v3) {
        if (!old.compressed && old.host < 0 && old.zero === 0) return;
        if (how === 'discard' && seesBacking) return;
        Object.assign(entry, codec.empty());
      } else {
        if (nothing && !seesBacking) return;
        const keep = how === 'zero' && !old.compressed && old.host >= 0 && old.copied;
        const alreadyZero = !old.compressed && old.zero === codec.all && (old.host < 0 || keep);
        if (alreadyZero) return;
        Object.assign(entry, codec.empty());
        entry.zero = codec.all;
        if (keep) {
          entry.host = old.host;
          entry.copied = true;
        }
      }
      const table = this.ownTable(l1Index);
      if (entry.host < 0) {
        this.release(old);
        if (meta.external && old.host >= 0)
          this.dataFile!.discard(old.host, Math.min(clusterSize, Math.max(0, this.dataFile!.size() - old.host)));
      }
      this.storeEntry(table, index, entry);
      return;
    }
    // Part of a cluster: only extended L2 entries have parts.
    const range = bits(Math.floor((start - base) / this.subSize), Math.ceil((stop - base) / this.subSize));
    if (old.compressed) {
      if (how !== 'discard') this.writeZeroBytes(start, stop - start);
      return;
    }
    if ((old.zero & range) >>> 0 === range) return;
    const table = this.ownTable(l1Index);
    entry.allocated = (old.allocated & ~range) >>> 0;
    entry.zero = (old.zero | range) >>> 0;
    this.storeEntry(table, index, entry);
  }

  // ---- the whole

  flush(): void {
    if (this.readOnly) return;
    this.meta.flush();
  }

  get vmStateOffset(): number {
    return Math.ceil(this.size / this.meta.l2Coverage) * this.meta.l2Coverage;
  }

  /** Reads VM state of the active tables (after a snapshot with state was applied). */
  readVmState(offset: number, buf: Uint8Array): void {
    this.readAny(this.vmStateOffset + offset, buf);
  }

  /** Writes VM state, to be taken along by the next `createSnapshot`. */
  writeVmState(offset: number, buf: Uint8Array): void {
    if (buf.length === 0) return;
    if (this.meta.external) throw new BlockError('unsupported', 'no VM state with an external data file');
    this.beginWrite(0, 0);
    const at = this.vmStateOffset + offset;
    this.growL1(Math.ceil((at + buf.length) / this.meta.l2Coverage), this.size);
    this.writeAny(at, buf);
  }

  /** Drops VM state from the active tables. */
  clearVmState(): void {
    const start = this.vmStateOffset;
    const end = this.meta.l1Offsets.length * this.meta.l2Coverage;
    if (end > start) this.clear(start, end, 'drop');
  }

  /**
   * Gives every cluster of a range a place in the file, so that later writes change no tables.
   * `falloc` also reserves the space on the host, `full` writes it.
   */
  preallocate(offset: number, length: number, mode: 'metadata' | 'falloc' | 'full'): void {
    checkRange(this.size, offset, length);
    this.beginWrite(0, 0);
    const { meta, clusterSize, entry, codec } = this;
    const end = offset + length;
    for (let at = offset - (offset % clusterSize); at < end; ) {
      meta.safePoint();
      const l1Index = Math.floor(at / meta.l2Coverage);
      const table = this.ownTable(l1Index);
      const index = Math.floor((at - l1Index * meta.l2Coverage) / clusterSize);
      const most = Math.min(meta.l2Entries - index, Math.ceil((end - at) / clusterSize));
      let count = 0;
      while (count < most) {
        this.loadEntry(table, index + count, entry);
        if (entry.compressed || entry.host >= 0) break;
        count++;
      }
      if (count === 0) {
        at += clusterSize;
        continue;
      }
      const host = meta.external ? at : meta.allocRun(count);
      if (!meta.external) count = meta.allocated;
      const file = this.dataFile ?? meta.file;
      const bytes = count * clusterSize;
      if (!meta.external && host < meta.freshFrom) meta.putZeroes(host, bytes);
      if (mode === 'falloc') file.allocate(host, bytes);
      else if (mode === 'full') {
        const zeroes = new Uint8Array(Math.min(bytes, 2 << 20));
        for (let done = 0; done < bytes; done += zeroes.length) file.pwrite(zeroes, host + done);
      } else if (this.dataFile && this.dataFile.size() < host + bytes) this.dataFile.truncate(host + bytes);
      if (!meta.external && host + bytes > meta.freshFrom) meta.freshFrom = host + bytes;
      for (let i = 0; i < count; i++) {
        this.loadEntry(table, index + i, entry);
        const wasZero = entry.zero !== 0;
        entry.host = host + i * clusterSize;
        entry.copied = true;
        // What reads as zeros, or from the backing file, goes on doing so.
        if (!meta.extended && !wasZero && !this.cipher && !this.backing) entry.allocated = codec.all;
        else if (!meta.extended) entry.zero = 1;
        this.storeEntry(table, index + i, entry);
      }
      at += bytes;
    }
    meta.flush();
  }

  /** Drops all content, so that everything reads from the backing file again: after a commit. */
  makeEmpty(): void {
    this.beginWrite(0, this.size);
    this.clear(0, Math.ceil(this.size / this.clusterSize) * this.clusterSize, 'drop');
    this.meta.flush();
  }

  /** Writes another backing file name into the header. The open backing node is not changed. */
  setBackingName(file: string | null, format: string | null): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.filename}: opened read-only`);
    const { header } = this.meta;
    if (file !== null && this.rawData) throw new BlockError('invalid', 'Cannot set a backing file for a raw external data file');
    this.meta.beforeFirstWrite();
    this.meta.flush();
    header.backingFile = file;
    header.backingFormat = file === null ? null : format;
    this.meta.writeHeaderAll();
    this.meta.barrier();
  }

  /** Shows a snapshot's disk in place of the active one; for images opened for reading only. */
  selectSnapshot(snapshot: Snapshot): void {
    if (!this.readOnly) throw new BlockError('invalid', 'a snapshot is shown only by an image opened for reading');
    const { offsets } = this.meta.readL1(snapshot.l1Offset, snapshot.l1Size);
    this.meta.l1Offsets = offsets;
    this.meta.l1Copied = new Uint8Array(offsets.length);
    this.meta.header.size = snapshot.diskSize;
    this.meta.l2.forgetAll();
  }

  /** A longer L1, if it is shorter than that. */
  private growL1(entries: number, size: number): boolean {
    const { meta } = this;
    if (entries <= meta.l1Offsets.length) return false;
    if (entries * 8 > MAX_L1_BYTES)
      throw new BlockError('invalid', `${this.filename}: the L1 table would be too large; use larger clusters`);
    const offsets = new Float64Array(entries);
    offsets.set(meta.l1Offsets);
    const copied = new Uint8Array(entries);
    copied.set(meta.l1Copied);
    meta.switchL1(offsets, copied, size);
    return true;
  }

  resize(size: number): void {
    if (!Number.isSafeInteger(size) || size < 0 || size % SECTOR !== 0)
      throw new BlockError('invalid', 'The new size must be a multiple of 512');
    const old = this.size;
    if (size === old) return;
    const { meta } = this;
    if (this.snapshots.length > 0 && meta.header.version < 3)
      throw new BlockError('unsupported', `Can't resize a version 2 image which has snapshots`);
    this.beginWrite(0, 0);
    this.clearVmState();
    if (size < old) {
      // What is cut off within the last cluster must not come back when the disk grows again.
      const keep = Math.min(old, Math.ceil(size / this.clusterSize) * this.clusterSize);
      if (keep > size) this.zeroTail(size, keep);
      this.clear(keep, old, 'drop');
      this.bitmaps?.resize(size);
      meta.flush();
      meta.switchHeader({ size });
    } else {
      // The size changes last: what the new part would show of old clusters or of a longer backing file is hidden first.
      this.growL1(Math.ceil(size / meta.l2Coverage), old);
      this.bitmaps?.resize(size);
      const end = Math.ceil(old / this.clusterSize) * this.clusterSize;
      if (old < end) this.zeroTail(old, Math.min(size, end));
      if (this.backing && this.backing.size > old) this.zeroRange(old, Math.min(size, this.backing.size) - old, true, size);
      meta.flush();
      meta.switchHeader({ size });
    }
    if (this.dataFile && this.rawData) this.dataFile.truncate(size);
  }

  private zeroTail(offset: number, end: number): void {
    this.writeZeroBytes(offset, end - offset);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    try {
      if (!this.readOnly && !this.meta.broken) {
        this.meta.settle();
        if (this.wrote) this.bitmaps?.end();
        this.meta.settle();
        repairIfNeeded(this);
        if (this.meta.header.incompatible & INCOMPAT_DIRTY) this.meta.setDirty(false);
      }
    } finally {
      this.closeFiles();
    }
  }

  /** Lets go of the files without writing anything: after an error, or to play a crash. */
  closeFiles(): void {
    this.closed = true;
    this.meta.file.close();
    this.dataFile?.close();
    this.backing?.close();
  }

  /** Loads an entry of any L2 table, for the snapshot and check code. */
  entryAt(table: number, index: number, entry: L2Entry): void {
    this.loadEntry(table, index, entry);
  }

  putEntry(table: number, index: number, entry: L2Entry): void {
    this.storeEntry(table, index, entry);
  }
}
