/**
 * Damaged and hostile images: bytes of good images changed at random, with a liking for headers and tables. Whatever
 * happens must be a BlockError, soon, and a failed open must not have written.
 */
import assert from 'node:assert/strict';
import { BlockError } from '../../engine/block/errors.ts';
import { type BlockHost, MemoryFile } from '../../engine/block/file.ts';
import { openInFile } from '../../engine/block/open.ts';
import { checkImage } from '../../engine/block/qcow2/check.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import { Qcow2Node } from '../../engine/block/qcow2/node.ts';
import { openQcow2 } from '../../engine/block/qcow2/open.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from '../../engine/block/qcow2/snapshot.ts';
import { nodeBlockHost } from '../../engine/host/block-file.ts';
import { Random } from './harness.ts';

/** No file outside: names inside images lead nowhere. */
export const closedHost: BlockHost = {
  ...nodeBlockHost,
  openFile: (path) => {
    throw new BlockError('not-found', `Could not open '${path}'`);
  },
  exists: () => false,
};

export interface Sample {
  format: string;
  bytes: Uint8Array;
  /** Offsets worth hitting: where headers and tables are. */
  hot: number[];
}

class WatchedFile extends MemoryFile {
  writes = 0;
  override pwrite(buf: Uint8Array, offset: number): void {
    this.writes++;
    super.pwrite(buf, offset);
  }
  override writeZeroes(offset: number, length: number): void {
    this.writes++;
    super.writeZeroes(offset, length);
  }
  override truncate(size: number): void {
    this.writes++;
    super.truncate(size);
  }
}

/** Small qcow2 images with something of everything in them. */
export function qcow2Samples(): Sample[] {
  const samples: Sample[] = [];
  for (const options of [
    { clusterSize: 512, refcountBits: 16 },
    { clusterSize: 4096, refcountBits: 8, compression: 'zstd' as const },
    { clusterSize: 16384, extendedL2: true, refcountBits: 64 },
    { clusterSize: 1024, version: 2 as const },
  ]) {
    const file = new MemoryFile('sample');
    createQcow2(file, nodeBlockHost, { size: 300 * 1024, ...options });
    const node = openQcow2(file, nodeBlockHost, {
      write: true,
      openBacking: () => null,
      openDataFile: () => {
        throw new Error('none');
      },
    });
    const random = new Random(5);
    node.write(0, random.bytes(50_000));
    createSnapshot(node, { name: 'one' });
    node.write(20_000, random.bytes(30_000));
    for (let i = 0; i < 3; i++) node.writeCompressed(Math.ceil(100_000 / node.clusterSize + i) * node.clusterSize, new Uint8Array(node.clusterSize).fill(i));
    node.writeZeroes(200_000, 20_000);
    createSnapshot(node, { name: 'two' });
    const { header } = node.meta;
    node.close();
    samples.push({
      format: 'qcow2',
      bytes: file.content(),
      hot: [0, 0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 96, 104, 112, header.l1Offset, header.reftableOffset, header.snapshotsOffset, ...[...node.meta.metadata].map((c) => c * node.clusterSize)],
    });
  }
  return samples;
}

const EVIL = [0, 1, 0x7f, 0x80, 0xff];

export function damage(random: Random, sample: Sample): Uint8Array {
  const bytes = sample.bytes.slice(0, random.chance(0.1) ? random.below(sample.bytes.length) : undefined);
  if (bytes.length === 0) return bytes;
  const hits = 1 + random.below(random.chance(0.8) ? 3 : 40);
  for (let i = 0; i < hits; i++) {
    const at = random.chance(0.85) ? Math.min(bytes.length - 1, random.pick(sample.hot) + random.below(random.chance(0.5) ? 16 : 600)) : random.below(bytes.length);
    if (random.chance(0.5)) bytes[at] = random.pick(EVIL);
    else if (random.chance(0.5)) bytes[at] ^= 1 << random.below(8);
    else if (random.chance(0.5)) bytes.copyWithin(at, random.pick(sample.hot), random.pick(sample.hot) + 8 * (1 + random.below(8)));
    else for (let k = at - (at % 8); k < at + 8 && k < bytes.length; k++) bytes[k] = random.below(256);
  }
  return bytes;
}

/** Tries one damaged image; returns true if it opened. */
export function hostileCase(seed: number, samples: Sample[]): boolean {
  const random = new Random(seed);
  const sample = random.pick(samples);
  const bytes = damage(random, sample);
  const write = sample.format === 'qcow2' && random.chance(0.5);
  const check = write && random.chance(0.3);
  const file = new WatchedFile('hostile', bytes, 64 << 20, !write);
  const started = performance.now();
  const allow = <T>(what: string, run: () => T): T | null => {
    try {
      return run();
    } catch (error) {
      if (error instanceof BlockError) return null;
      throw new Error(`seed ${seed}: ${what}: ${(error as Error).message}`, { cause: error });
    }
  };
  const node = allow('open', () => openInFile(closedHost, file, { format: sample.format, write, check }));
  // A dirty image is repaired at open; that writes, by design.
  const dirty = bytes.length > 80 && (bytes[79] & 1) !== 0 && write;
  if (!node) {
    if (!dirty) assert.equal(file.writes, 0, `seed ${seed}: a failed open wrote to the image`);
  } else {
    const length = Math.min(node.size, 1 << 20);
    for (let i = 0; i < 6; i++) {
      const offset = random.below(Math.max(1, node.size - 4096));
      const n = Math.min(node.size - offset, 1 + random.below(70_000));
      allow('read', () => node.read(offset, new Uint8Array(n)));
      allow('status', () => {
        for (let at = 0, k = 0; at < length && k < 2000; k++) at += node.blockStatus(at, length - at).length;
      });
      if (write) {
        allow('write', () => node.write(offset, random.bytes(n)));
        allow('zero', () => node.writeZeroes(offset, n));
        allow('discard', () => node.discard(offset, n));
      }
    }
    if (node instanceof Qcow2Node) {
      allow('check', () => checkImage(node, 'none'));
      if (write) {
        if (random.chance(0.5)) allow('snapshot', () => createSnapshot(node, { name: 'x' }));
        if (node.snapshots.length && random.chance(0.5)) allow('apply', () => applySnapshot(node, random.pick(node.snapshots).id));
        if (node.snapshots.length && random.chance(0.5)) allow('delete', () => deleteSnapshot(node, random.pick(node.snapshots).id));
        if (random.chance(0.3)) allow('resize', () => node.resize(512 * random.below(3000)));
        if (random.chance(0.3)) allow('repair', () => checkImage(node, 'all'));
        allow('flush', () => node.flush());
      }
    }
    allow('close', () => node.close());
  }
  const took = performance.now() - started;
  assert.ok(took < 5000, `seed ${seed}: took ${took.toFixed(0)} ms`);
  return node !== null;
}
