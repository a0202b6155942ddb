/** Internal snapshots. Source: docs/interop/qcow2.txt, "Snapshots". For the order of writes see meta.ts. */
import { setU64, u64 } from '../bytes.ts';
import { BlockError, sane } from '../errors.ts';
import type { BlockFile } from '../file.ts';
import { checkImage, recollect } from './check.ts';
import { type Header, MAX_L1_BYTES, MAX_SNAPSHOTS } from './header.ts';
import type { L2Entry } from './l2.ts';
import type { Qcow2Node } from './node.ts';

const MAX_TABLE_BYTES = 64 << 20;
const MAX_EXTRA = 1024;

export interface Snapshot {
  id: string;
  name: string;
  l1Offset: number;
  l1Size: number;
  /** Seconds since the epoch, and the rest in nanoseconds. */
  seconds: number;
  nanoseconds: number;
  /** Time the guest had run, in nanoseconds. */
  vmClock: number;
  vmStateSize: number;
  /** Bytes; the image's own size where an old entry does not say. */
  diskSize: number;
  /** Extra data past the fields we know, as it was. */
  extra: Uint8Array;
}

/** Reads the snapshot table. `bytes` is its length in the file. */
export function readSnapshots(file: BlockFile, header: Header): { list: Snapshot[]; bytes: number } {
  const list: Snapshot[] = [];
  const clusterSize = 1 << header.clusterBits;
  let at = header.snapshotsOffset;
  const end = file.size();
  const fixed = new Uint8Array(40);
  const view = new DataView(fixed.buffer);
  const decoder = new TextDecoder();
  for (let i = 0; i < header.snapshotCount; i++) {
    sane(at + 40 <= end, 'the snapshot table lies beyond the end of the file');
    file.pread(fixed, at);
    const idLength = view.getUint16(12);
    const nameLength = view.getUint16(14);
    const extraLength = view.getUint32(36);
    sane(extraLength <= MAX_EXTRA, 'a snapshot has too much extra data');
    const rest = new Uint8Array(extraLength + idLength + nameLength);
    sane(at + 40 + rest.length <= end, 'the snapshot table lies beyond the end of the file');
    file.pread(rest, at + 40);
    const extra = new DataView(rest.buffer, 0, extraLength);
    const snapshot: Snapshot = {
      l1Offset: u64(view, 0),
      l1Size: view.getUint32(8),
      seconds: view.getUint32(16),
      nanoseconds: view.getUint32(20),
      vmClock: u64(view, 24),
      vmStateSize: extraLength >= 8 ? u64(extra, 0) : view.getUint32(32),
      diskSize: extraLength >= 16 ? u64(extra, 8) : header.size,
      extra: rest.slice(16, Math.max(16, extraLength)),
      id: decoder.decode(rest.subarray(extraLength, extraLength + idLength)),
      name: decoder.decode(rest.subarray(extraLength + idLength)),
    };
    sane(snapshot.l1Size * 8 <= MAX_L1_BYTES, `snapshot ${i}: its L1 table is too large`);
    sane(Number.isFinite(snapshot.diskSize) && Number.isFinite(snapshot.vmStateSize), `snapshot ${i}: sizes are not plausible`);
    sane(
      Number.isFinite(snapshot.l1Offset) &&
        snapshot.l1Offset % clusterSize === 0 &&
        snapshot.l1Offset + snapshot.l1Size * 8 <= end,
      `snapshot ${i}: its L1 table lies outside the file`,
    );
    sane(snapshot.l1Offset > 0 || snapshot.l1Size === 0, `snapshot ${i}: its L1 table overlaps the header`);
    list.push(snapshot);
    at += Math.ceil((40 + rest.length) / 8) * 8;
    sane(at - header.snapshotsOffset <= MAX_TABLE_BYTES, 'the snapshot table is too large');
  }
  return { list, bytes: at - header.snapshotsOffset };
}

function encodeSnapshots(list: Snapshot[]): Uint8Array {
  const encoder = new TextEncoder();
  const parts = list.map((snapshot) => {
    const id = encoder.encode(snapshot.id);
    const name = encoder.encode(snapshot.name);
    const extraLength = 16 + snapshot.extra.length;
    const part = new Uint8Array(Math.ceil((40 + extraLength + id.length + name.length) / 8) * 8);
    const view = new DataView(part.buffer);
    setU64(view, 0, snapshot.l1Offset);
    view.setUint32(8, snapshot.l1Size);
    view.setUint16(12, id.length);
    view.setUint16(14, name.length);
    view.setUint32(16, snapshot.seconds);
    view.setUint32(20, snapshot.nanoseconds);
    setU64(view, 24, snapshot.vmClock);
    view.setUint32(32, snapshot.vmStateSize > 0xffffffff ? 0 : snapshot.vmStateSize);
    view.setUint32(36, extraLength);
    setU64(view, 40, snapshot.vmStateSize);
    setU64(view, 48, snapshot.diskSize);
    part.set(snapshot.extra, 56);
    part.set(id, 40 + extraLength);
    part.set(name, 40 + extraLength + id.length);
    return part;
  });
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Every L2 table of an L1, and every entry in it that is not empty. `entry` is reused. */
export function walk(
  node: Qcow2Node,
  offsets: Float64Array,
  onTable: (table: number, l1Index: number) => void,
  onEntry: (entry: L2Entry, table: number, index: number) => void,
): void {
  const { meta } = node;
  const entry = node.codec.empty();
  const seen = new Set<number>();
  for (let i = 0; i < offsets.length; i++) {
    const table = offsets[i];
    if (table === 0) continue;
    sane(!seen.has(table), `L1 entry ${i} names an L2 table that another entry names too`);
    seen.add(table);
    sane(table > 0 && table < meta.freshFrom, `L1 entry ${i} is not valid`);
    meta.safePoint();
    onTable(table, i);
    for (let index = 0; index < meta.l2Entries; index++) {
      node.entryAt(table, index, entry);
      if (entry.compressed || entry.host >= 0) onEntry(entry, table, index);
    }
  }
}

function clustersOf(node: Qcow2Node, entry: L2Entry): [number, number] {
  const size = node.clusterSize;
  const first = Math.floor(entry.host / size);
  return entry.compressed ? [first, Math.floor((entry.host + entry.length - 1) / size)] : [first, first];
}

/** Counts one more user of everything an L1 reaches; nothing is changed if a refcount would overflow. */
function retainAll(node: Qcow2Node, offsets: Float64Array): void {
  const { meta } = node;
  const full = (cluster: number): void => {
    const value = meta.refcount(cluster);
    if (value >= meta.maxRefcount)
      throw new BlockError('invalid', `${node.filename}: refcounts of ${meta.refcountBits} bits cannot count another snapshot`);
    sane(value > 0, `cluster ${cluster} is in use but its refcount is 0`);
  };
  const each = (use: (cluster: number) => void): void => {
    walk(
      node,
      offsets,
      (table) => use(table / node.clusterSize),
      (entry) => {
        const [first, last] = clustersOf(node, entry);
        for (let c = first; c <= last; c++) use(c);
      },
    );
  };
  each(full);
  // Compressed clusters may share a host cluster, so a count can still run over in the second pass: `retain` says so.
  each((cluster) => meta.retain(cluster));
}

function releaseAll(node: Qcow2Node, offsets: Float64Array): void {
  const { meta } = node;
  walk(
    node,
    offsets,
    (table) => meta.free(table, node.clusterSize),
    (entry) => meta.free(entry.host, entry.compressed ? entry.length : node.clusterSize),
  );
}

/** Sets bit 63 in the active tables to what the refcounts say. */
export function fixCopied(node: Qcow2Node): number {
  const { meta } = node;
  let changed = 0;
  let tableIndex = 0;
  walk(
    node,
    meta.l1Offsets,
    (table, index) => {
      tableIndex = index;
      const copied = meta.refcount(table / node.clusterSize) === 1;
      if (copied !== (meta.l1Copied[tableIndex] === 1)) {
        meta.setL1(index, table, copied);
        changed++;
      }
    },
    (entry, table, index) => {
      const copied = !entry.compressed && (meta.external || meta.refcount(Math.floor(entry.host / node.clusterSize)) === 1);
      if (copied !== entry.copied) {
        entry.copied = copied;
        node.putEntry(table, index, entry);
        changed++;
      }
    },
  );
  return changed;
}

/** Writes the table somewhere new and switches to it. */
function writeTable(node: Qcow2Node, list: Snapshot[]): void {
  const { meta } = node;
  const { header } = meta;
  const old = { offset: header.snapshotsOffset, count: header.snapshotCount, bytes: encodeSnapshots(node.snapshots).length };
  if (list.length > 0) {
    const bytes = encodeSnapshots(list);
    const offset = meta.allocContiguous(Math.ceil(bytes.length / node.clusterSize));
    meta.claim(offset, bytes.length);
    meta.put(bytes, offset);
    meta.flush();
    meta.switchHeader({ snapshotsOffset: offset, snapshotCount: list.length });
  } else {
    meta.flush();
    meta.switchHeader({ snapshotsOffset: 0, snapshotCount: 0 });
  }
  if (old.count > 0) {
    meta.unclaim(old.offset, old.bytes);
    meta.free(old.offset, old.bytes);
  }
  node.snapshots = list;
}

/** Runs a change that cannot be ordered soundly under the dirty bit; repairs if it fails half way. */
function guarded<T>(node: Qcow2Node, change: () => T): T {
  const { meta } = node;
  if (node.readOnly) throw new BlockError('read-only', `${node.filename}: opened read-only`);
  if (meta.broken) throw new BlockError('corrupt', `${node.filename}: the image is marked corrupt; no more writes`);
  if (meta.external) throw new BlockError('unsupported', 'no internal snapshots with an external data file');
  meta.beforeFirstWrite();
  meta.settle();
  repairIfNeeded(node);
  meta.setDirty(true);
  meta.needsRepair = true;
  let result: T;
  try {
    result = change();
    meta.settle();
  } catch (error) {
    try {
      if (!meta.broken) repairIfNeeded(node);
    } catch {
      // Still no room, or worse: the dirty bit stays, and the next change, close or open tries again.
    }
    throw error;
  }
  meta.needsRepair = false;
  meta.setDirty(false);
  return result;
}

/** Puts refcounts and flags right after a change that failed half way. */
export function repairIfNeeded(node: Qcow2Node): void {
  const { meta } = node;
  if (!meta.needsRepair) return;
  meta.settle();
  checkImage(node, 'all');
  recollect(node);
  meta.settle();
  meta.needsRepair = false;
  meta.setDirty(false);
}

export function findSnapshot(node: Qcow2Node, idOrName: string): Snapshot {
  const found = node.snapshots.find((s) => s.id === idOrName) ?? node.snapshots.find((s) => s.name === idOrName);
  if (!found) throw new BlockError('not-found', `Can't find snapshot '${idOrName}'`);
  return found;
}

export interface SnapshotRequest {
  name: string;
  /** Bytes written with `writeVmState` that go along. */
  vmStateSize?: number;
  vmClock?: number;
}

export function createSnapshot(node: Qcow2Node, request: SnapshotRequest): Snapshot {
  const { meta } = node;
  if (node.snapshots.length >= MAX_SNAPSHOTS) throw new BlockError('invalid', 'too many snapshots');
  if (new TextEncoder().encode(request.name).length > 255) throw new BlockError('invalid', 'the snapshot name is too long');
  const id = node.snapshots.reduce((max, s) => Math.max(max, /^\d+$/.test(s.id) ? Number(s.id) : 0), 0) + 1;
  if (!request.vmStateSize && !node.readOnly && !meta.external) node.clearVmState();
  const now = node.host.now();
  const snapshot: Snapshot = {
    id: String(id),
    name: request.name,
    l1Offset: 0,
    l1Size: meta.l1Offsets.length,
    seconds: Math.floor(now),
    nanoseconds: Math.floor((now % 1) * 1e9),
    vmClock: request.vmClock ?? 0,
    vmStateSize: request.vmStateSize ?? 0,
    diskSize: node.size,
    // The instruction count of the guest, all ones where it is not counted.
    extra: new Uint8Array(8).fill(0xff),
  };
  guarded(node, () => {
    retainAll(node, meta.l1Offsets);
    meta.settle();
    fixCopied(node);
    meta.settle();
    const clusters = Math.max(1, Math.ceil((snapshot.l1Size * 8) / node.clusterSize));
    snapshot.l1Offset = meta.allocContiguous(clusters);
    const bytes = new Uint8Array(clusters * node.clusterSize);
    bytes.set(meta.encodeL1(meta.l1Offsets, null, 0, meta.l1Offsets.length));
    meta.claim(snapshot.l1Offset, bytes.length);
    meta.put(bytes, snapshot.l1Offset);
    writeTable(node, [...node.snapshots, snapshot]);
  });
  if (snapshot.vmStateSize) {
    node.clearVmState();
    meta.flush();
  }
  return snapshot;
}

export function deleteSnapshot(node: Qcow2Node, idOrName: string): void {
  const snapshot = findSnapshot(node, idOrName);
  const { meta } = node;
  const { offsets } = meta.readL1(snapshot.l1Offset, snapshot.l1Size);
  guarded(node, () => {
    writeTable(
      node,
      node.snapshots.filter((s) => s !== snapshot),
    );
    releaseAll(node, offsets);
    const bytes = Math.ceil((snapshot.l1Size * 8) / node.clusterSize) * node.clusterSize;
    meta.unclaim(snapshot.l1Offset, bytes);
    if (bytes > 0) meta.free(snapshot.l1Offset, bytes);
    meta.flush();
    fixCopied(node);
  });
}

/** Makes the disk what it was at the snapshot, size included. */
export function applySnapshot(node: Qcow2Node, idOrName: string): Snapshot {
  const snapshot = findSnapshot(node, idOrName);
  const { meta } = node;
  const taken = meta.readL1(snapshot.l1Offset, snapshot.l1Size);
  if (snapshot.diskSize !== node.size && meta.header.version < 3)
    throw new BlockError('unsupported', `the snapshot's disk size differs, which version 2 cannot apply`);
  const needed = Math.ceil(snapshot.diskSize / meta.l2Coverage);
  sane(needed * 8 <= MAX_L1_BYTES, 'the snapshot needs too large an L1 table');
  guarded(node, () => {
    const offsets = new Float64Array(Math.max(taken.offsets.length, needed));
    offsets.set(taken.offsets);
    node.bitmaps?.begin();
    node.bitmaps?.resize(snapshot.diskSize);
    retainAll(node, offsets);
    meta.settle();
    const old = meta.l1Offsets;
    for (const table of old) if (table > 0) meta.unclaim(table, 1);
    meta.switchL1(offsets, new Uint8Array(offsets.length), snapshot.diskSize);
    for (const table of offsets) if (table > 0) meta.metadata.add(table / node.clusterSize);
    releaseAll(node, old);
    meta.flush();
    fixCopied(node);
    node.bitmaps?.mark(0, snapshot.diskSize);
  });
  return snapshot;
}

/** Bytes of the image that nothing but this snapshot uses: what its deletion gives back. */
export function exclusiveBytes(node: Qcow2Node, snapshot: Snapshot): number {
  const { meta } = node;
  const { offsets } = meta.readL1(snapshot.l1Offset, snapshot.l1Size);
  let clusters = Math.ceil((snapshot.l1Size * 8) / node.clusterSize);
  const alone = (cluster: number): boolean => meta.refcount(cluster) === 1;
  walk(
    node,
    offsets,
    (table) => {
      if (alone(table / node.clusterSize)) clusters++;
    },
    (entry) => {
      if (entry.compressed ? alone(clustersOf(node, entry)[0]) : alone(Math.floor(entry.host / node.clusterSize))) clusters++;
    },
  );
  return clusters * node.clusterSize;
}

/** Bytes of the snapshot table in the file. */
export function encodedSnapshotBytes(list: Snapshot[]): number {
  return encodeSnapshots(list).length;
}
