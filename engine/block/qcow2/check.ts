/**
 * Counts every reference to every cluster and compares with the refcounts; repairs what can be repaired without
 * guessing at data. Source: docs/interop/qcow2.txt; result fields as QAPI `ImageCheck` names them.
 */
import { setU64 } from '../bytes.ts';
import { BlockError } from '../errors.ts';
import { readBitmapTable } from './bitmap.ts';
import { INCOMPAT_CORRUPT } from './header.ts';
import type { Qcow2Node } from './node.ts';
import { encodedSnapshotBytes, fixCopied } from './snapshot.ts';

export interface CheckResult {
  corruptions: number;
  leaks: number;
  corruptionsFixed: number;
  leaksFixed: number;
  /** What stopped the check itself. */
  checkErrors: number;
  totalClusters: number;
  allocatedClusters: number;
  compressedClusters: number;
  fragmentedClusters: number;
  imageEndOffset: number;
  /** The first findings, in words. */
  messages: string[];
}

const MAX_MESSAGES = 200;
const CHUNK = 4096;
/** Clusters counted at most: 1 GiB of counters. */
const MAX_CHUNKS = 65536;

/** Reference counts of a sparse file. */
class Counts {
  private readonly chunks = new Map<number, Uint32Array>();
  highest = -1;

  add(cluster: number): number {
    const index = Math.floor(cluster / CHUNK);
    let chunk = this.chunks.get(index);
    if (!chunk) {
      if (this.chunks.size >= MAX_CHUNKS) throw new BlockError('unsupported', 'the image is too large to check in memory');
      chunk = new Uint32Array(CHUNK);
      this.chunks.set(index, chunk);
    }
    if (cluster > this.highest) this.highest = cluster;
    return ++chunk[cluster % CHUNK];
  }

  get(cluster: number): number {
    return this.chunks.get(Math.floor(cluster / CHUNK))?.[cluster % CHUNK] ?? 0;
  }

  /** The next cluster at or after this one that may be counted; Infinity for none. */
  next(cluster: number): number {
    if (this.chunks.has(Math.floor(cluster / CHUNK))) return cluster;
    let best = Number.POSITIVE_INFINITY;
    for (const index of this.chunks.keys()) if (index * CHUNK >= cluster && index * CHUNK < best) best = index * CHUNK;
    return best;
  }
}

interface Scan {
  result: CheckResult;
  counts: Counts;
  /** Clusters whose refcount is too high, and too low. */
  leaked: number[];
  missing: number[];
  /** The refcount tables themselves are damaged. */
  structural: boolean;
  copiedErrors: number;
}

function scan(node: Qcow2Node): Scan {
  const { meta } = node;
  const { header } = meta;
  const size = node.clusterSize;
  const counts = new Counts();
  const fileEnd = Math.ceil(meta.file.size() / size);
  const result: CheckResult = {
    corruptions: 0,
    leaks: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
    checkErrors: 0,
    totalClusters: Math.ceil(node.size / size),
    allocatedClusters: 0,
    compressedClusters: 0,
    fragmentedClusters: 0,
    imageEndOffset: 0,
    messages: [],
  };
  const found: Scan = { result, counts, leaked: [], missing: [], structural: false, copiedErrors: 0 };
  const say = (message: string): void => {
    if (result.messages.length < MAX_MESSAGES) result.messages.push(message);
  };
  const bad = (message: string): void => {
    result.corruptions++;
    say(`ERROR ${message}`);
  };
  /** Counts a range; false if it lies where nothing can be. */
  const count = (offset: number, length: number, what: string): boolean => {
    if (!Number.isSafeInteger(offset) || length <= 0) return length <= 0;
    const first = Math.floor(offset / size);
    const end = Math.ceil((offset + length) / size);
    if (end > fileEnd + 1) {
      bad(`${what} at ${offset} lies beyond the end of the file`);
      return false;
    }
    for (let c = first; c < end; c++) counts.add(c);
    return true;
  };

  const safeRefcount = (cluster: number): number => {
    try {
      return meta.refcount(cluster);
    } catch {
      return 0;
    }
  };

  const entry = node.codec.empty();
  const countTables = (offsets: Float64Array, copied: Uint8Array | null, label: string): void => {
    const seen = new Set<number>();
    let previous = -1;
    const dataEnd = Math.ceil(node.size / size);
    for (let i = 0; i < offsets.length; i++) {
      const table = offsets[i];
      if (table === 0) continue;
      if (Number.isNaN(table) || table >= meta.freshFrom) {
        bad(`${label} L1 entry ${i} is not valid`);
        continue;
      }
      if (!count(table, size, `${label} L2 table`)) continue;
      if (seen.has(table)) {
        bad(`${label} L1 entry ${i} names an L2 table that another entry names too`);
        continue;
      }
      seen.add(table);
      if (copied && (safeRefcount(table / size) === 1) !== (copied[i] === 1)) {
        found.copiedErrors++;
        bad(`OFLAG_COPIED L2 cluster: l1_index=${i} refcount=${safeRefcount(table / size)}`);
      }
      for (let index = 0; index < meta.l2Entries; index++) {
        try {
          node.entryAt(table, index, entry);
        } catch (error) {
          bad(`${label} L2 table at ${table}, entry ${index}: ${(error as Error).message}`);
          continue;
        }
        if (entry.compressed) {
          count(entry.host, entry.length, 'compressed cluster');
          if (copied) {
            if (entry.copied) {
              found.copiedErrors++;
              bad(`compressed cluster at ${entry.host} has its copied flag set`);
            }
            result.compressedClusters++;
            result.allocatedClusters++;
            result.fragmentedClusters++;
          }
        } else if (entry.host >= 0) {
          if (meta.external) {
            if (entry.host !== (i * meta.l2Entries + index) * size)
              bad(`cluster at guest offset ${(i * meta.l2Entries + index) * size} is not there in the data file`);
            if (copied && entry.allocated) result.allocatedClusters++;
            continue;
          }
          count(entry.host, size, 'data cluster');
          if (copied) {
            const used = safeRefcount(entry.host / size);
            if ((used === 1) !== entry.copied) {
              found.copiedErrors++;
              bad(`OFLAG_COPIED data cluster: l2_entry at ${entry.host} refcount=${used}`);
            }
            if (entry.allocated && i * meta.l2Entries + index < dataEnd) {
              result.allocatedClusters++;
              if (previous >= 0 && entry.host !== previous + size) result.fragmentedClusters++;
              previous = entry.host;
            }
          }
        }
      }
    }
  };

  count(0, 1, 'header');
  count(header.l1Offset, header.l1Size * 8, 'active L1 table');
  countTables(meta.l1Offsets, meta.l1Copied, 'active');
  const l1Tables = new Set<number>();
  for (const snapshot of node.snapshots) {
    if (snapshot.l1Size > 0 && l1Tables.has(snapshot.l1Offset)) {
      bad(`snapshot '${snapshot.name}' shares its L1 table with another`);
      continue;
    }
    l1Tables.add(snapshot.l1Offset);
    if (!count(snapshot.l1Offset, snapshot.l1Size * 8, 'snapshot L1 table')) continue;
    countTables(meta.readL1(snapshot.l1Offset, snapshot.l1Size).offsets, null, `snapshot '${snapshot.name}'`);
  }
  if (header.snapshotCount) count(header.snapshotsOffset, encodedSnapshotBytes(node.snapshots), 'snapshot table');
  if (header.crypto) count(header.crypto.offset, header.crypto.length, 'encryption header');
  if (header.bitmaps && node.bitmaps) {
    count(header.bitmaps.directoryOffset, header.bitmaps.directorySize, 'bitmap directory');
    const bitmapTables = new Set<number>();
    for (const bitmap of node.bitmaps.list) {
      if (bitmap.tableSize > 0 && bitmapTables.has(bitmap.tableOffset)) {
        bad(`bitmap '${bitmap.name}' shares its table with another`);
        continue;
      }
      bitmapTables.add(bitmap.tableOffset);
      count(bitmap.tableOffset, bitmap.tableSize * 8, 'bitmap table');
      try {
        for (const offset of readBitmapTable(meta.file, meta, bitmap)) if (offset > 1) count(offset, size, 'bitmap data');
      } catch (error) {
        bad((error as Error).message);
      }
    }
  }
  const withoutRefs = counts.highest;
  count(header.reftableOffset, header.reftableClusters * size, 'refcount table');
  const blocks = new Set<number>();
  for (let i = 0; i < meta.reftableLength; i++) {
    const offset = meta.rawBlockOffset(i);
    if (offset === 0) continue;
    if (Number.isNaN(offset) || offset >= meta.freshFrom || blocks.has(offset)) {
      bad(`refcount block ${i} is not valid`);
      found.structural = true;
      continue;
    }
    blocks.add(offset);
    const before = counts.get(offset / size);
    count(offset, size, 'refcount block');
    if (before > 0) {
      bad(`refcount block ${i} shares its cluster`);
      found.structural = true;
    }
  }
  if (withoutRefs < 0) found.structural = true;
  if (found.structural) return found;

  // Compare, skipping what neither side knows.
  const end = Math.max(counts.highest + 1, meta.reftableLength * meta.blockEntries);
  for (let block = 0; block * meta.blockEntries < end; block++) {
    const first = block * meta.blockEntries;
    const offset = meta.blockOffset(block);
    // A block in a hole of the file counts nothing: only what was counted there matters. That keeps a sparse giant quick.
    const has =
      offset !== 0 && (meta.refs.anyDirty || meta.file.extent(offset, size).data || meta.file.extent(offset, size).length < size);
    const stop = Math.min(end, first + meta.blockEntries);
    // The next clusters that either side may know.
    let mentioned = -1;
    let counted = -1;
    for (let c = first; ; c++) {
      if (mentioned < c) mentioned = counts.next(c);
      if (has && counted < c) counted = meta.nextCounted(c);
      c = Math.min(mentioned, has ? counted : mentioned);
      if (c >= stop) break;
      const used = counts.get(c);
      const value = has ? meta.refcount(c) : 0;
      if (value !== 0) result.imageEndOffset = (c + 1) * size;
      if (value === used) continue;
      if (value > used) {
        result.leaks++;
        found.leaked.push(c);
        say(`Leaked cluster ${c} refcount=${value} reference=${used}`);
      } else {
        result.corruptions++;
        found.missing.push(c);
        if (offset === 0) found.structural = true;
        say(`ERROR cluster ${c} refcount=${value} reference=${used}`);
      }
      if (found.leaked.length + found.missing.length > 1 << 24) {
        found.structural = true;
        return found;
      }
    }
  }
  return found;
}

/** Writes new refcount structures behind everything else, then switches to them. */
function rebuild(node: Qcow2Node, counts: Counts): void {
  const { meta } = node;
  const { header } = meta;
  const size = node.clusterSize;
  // What the old structures were counted for is not counted in the new ones.
  const old = new Map<number, number>();
  const drop = (c: number) => old.set(c, (old.get(c) ?? 0) + 1);
  for (let i = 0; i < header.reftableClusters; i++) drop(header.reftableOffset / size + i);
  const seen = new Set<number>();
  for (let i = 0; i < meta.reftableLength; i++) {
    const offset = meta.rawBlockOffset(i);
    if (offset > 0 && offset < meta.freshFrom && !seen.has(offset)) {
      seen.add(offset);
      drop(offset / size);
    }
  }
  const uses = (c: number) => Math.max(0, counts.get(c) - (old.get(c) ?? 0));
  const start = Math.max(counts.highest + 1, Math.ceil(meta.file.size() / size));
  const needed = new Set<number>();
  for (let c = counts.next(0); c <= counts.highest; c = counts.next(c + 1))
    if (uses(c)) needed.add(Math.floor(c / meta.blockEntries));
  let total = 0;
  let tableClusters = 0;
  for (;;) {
    for (let c = start; c < start + total; c++) needed.add(Math.floor(c / meta.blockEntries));
    let last = 0;
    for (const index of needed) if (index > last) last = index;
    tableClusters = Math.ceil(((last + 1) * 8) / size);
    if (needed.size + tableClusters === total) break;
    total = needed.size + tableClusters;
  }
  const table = new Float64Array((tableClusters * size) / 8);
  let at = start + tableClusters;
  const block = new Uint8Array(size);
  const view = new DataView(block.buffer);
  const bits = meta.refcountBits;
  for (const index of [...needed].sort((a, b) => a - b)) {
    block.fill(0);
    for (let i = 0; i < meta.blockEntries; i++) {
      const c = index * meta.blockEntries + i;
      const value = c >= start && c < start + total ? 1 : uses(c);
      if (value === 0) continue;
      if (value > meta.maxRefcount) throw new BlockError('corrupt', `cluster ${c} has more users than ${bits} bits can count`);
      if (bits === 64) setU64(view, i * 8, value);
      else if (bits === 32) view.setUint32(i * 4, value);
      else if (bits === 16) view.setUint16(i * 2, value);
      else if (bits === 8) block[i] = value;
      else block[(i * bits) >> 3] |= value << ((i * bits) & 7);
    }
    meta.put(block, at * size);
    table[index] = at * size;
    at++;
  }
  const bytes = new Uint8Array(tableClusters * size);
  const tableView = new DataView(bytes.buffer);
  for (let i = 0; i < table.length; i++) setU64(tableView, i * 8, table[i]);
  meta.put(bytes, start * size);
  meta.barrier();
  meta.switchHeader({ reftableOffset: start * size, reftableClusters: tableClusters });
  meta.adoptReftable(table);
}

/** Checks, and repairs leaks or everything that can be. Nothing is written with `none`. */
export function checkImage(node: Qcow2Node, repair: 'none' | 'leaks' | 'all' = 'none'): CheckResult {
  const { meta } = node;
  const first = scan(node);
  if (repair === 'none') return first.result;
  const corrupt = (meta.header.incompatible & INCOMPAT_CORRUPT) !== 0;
  if (first.result.corruptions + first.result.leaks === 0) {
    if (corrupt && repair === 'all') clearCorrupt(node);
    return first.result;
  }
  if (repair === 'all' && first.structural) rebuild(node, first.counts);
  else if (!first.structural) {
    for (const c of first.leaked) meta.forceRefcount(c, first.counts.get(c));
    if (repair === 'all')
      for (const c of first.missing) {
        if (first.counts.get(c) > meta.maxRefcount) continue;
        meta.forceRefcount(c, first.counts.get(c));
      }
  }
  if (repair === 'all') {
    meta.settle();
    try {
      fixCopied(node);
    } catch (error) {
      // Tables that cannot be walked stay as they are; the second scan counts them.
      if (!(error instanceof BlockError && error.code === 'corrupt')) throw error;
    }
  }
  meta.settle();
  recollect(node);
  const second = scan(node).result;
  second.corruptionsFixed = Math.max(0, first.result.corruptions - second.corruptions);
  second.leaksFixed = Math.max(0, first.result.leaks - second.leaks);
  second.messages = [...first.result.messages, ...second.messages].slice(0, MAX_MESSAGES);
  if (corrupt && second.corruptions === 0 && repair === 'all') clearCorrupt(node);
  return second;
}

/** Learns anew which clusters hold metadata, after a repair gave some back. */
export function recollect(node: Qcow2Node): void {
  const { meta } = node;
  const { header } = meta;
  meta.recollect();
  if (header.snapshotCount) meta.claim(header.snapshotsOffset, encodedSnapshotBytes(node.snapshots), 'the snapshot table');
  for (const snapshot of node.snapshots)
    if (snapshot.l1Size && meta.overlap === null)
      meta.claim(snapshot.l1Offset, snapshot.l1Size * 8, 'the L1 table of a snapshot');
  node.bitmaps?.claim();
}

function clearCorrupt(node: Qcow2Node): void {
  const { meta } = node;
  meta.barrier();
  meta.switchHeader({ incompatible: meta.header.incompatible & ~INCOMPAT_CORRUPT });
}
