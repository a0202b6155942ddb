/**
 * Damaged and hostile images: bytes of good images changed at random, with a liking for headers and tables. Whatever
 * happens must be a BlockError, soon, and a failed open must not have written.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BlockError } from '../../engine/block/errors.ts';
import { type BlockFile, type BlockHost, type FileExtent, MemoryFile } from '../../engine/block/file.ts';
import { openImage, openInFile } from '../../engine/block/open.ts';
import { checkImage } from '../../engine/block/qcow2/check.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import { Qcow2Node } from '../../engine/block/qcow2/node.ts';
import { openQcow2 } from '../../engine/block/qcow2/open.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from '../../engine/block/qcow2/snapshot.ts';
import { nodeBlockHost } from '../../engine/host/block-file.ts';
import { haveQemu, password, qemuImg, Random, scratch } from './harness.ts';

/** No file outside: names inside images lead nowhere. */
export const closedHost: BlockHost = {
  ...nodeBlockHost,
  openFile: (path) => {
    throw new BlockError('not-found', `Could not open '${path}'`);
  },
  exists: () => false,
  crypto: {
    ...nodeBlockHost.crypto,
    // Honest images ask for millions of rounds, so a damaged one may too; that is slow, not endless, and not for a test.
    pbkdf2: (word, salt, iterations, length, hash) => {
      if (iterations > 50_000) throw new BlockError('unsupported', 'too many rounds for a test');
      return nodeBlockHost.crypto.pbkdf2(word, salt, iterations, length, hash);
    },
  },
};

export interface Sample {
  format: string;
  bytes: Uint8Array;
  /** Offsets worth hitting: where headers and tables are. */
  hot: number[];
  /** A case takes long. */
  slow?: boolean;
}

const PAGE = 4096;

/** A sample with changes over it: what is not changed is not copied, so that a case costs little whatever the image's size. */
export class DamagedFile implements BlockFile {
  readonly name = 'hostile';
  readonly identity = 'hostile';
  readonly readOnly: boolean;
  /** Writes by whom the file was given to. */
  writes = 0;
  readonly #base: Uint8Array;
  readonly #pages = new Map<number, Uint8Array>();
  readonly #limit = 64 << 20;
  /** Bytes of the base that still hold. */
  #baseLength: number;
  #length: number;

  constructor(base: Uint8Array, length: number, readOnly: boolean) {
    this.#base = base;
    this.#length = length;
    this.#baseLength = length;
    this.readOnly = readOnly;
  }

  #page(index: number): Uint8Array {
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Uint8Array(PAGE);
      const from = index * PAGE;
      if (from < this.#baseLength) page.set(this.#base.subarray(from, Math.min(this.#baseLength, from + PAGE)));
      this.#pages.set(index, page);
    }
    return page;
  }

  /** Changes the file before it is given to anybody. */
  put(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const inside = (offset + at) % PAGE;
      const n = Math.min(bytes.length - at, PAGE - inside);
      this.#page(Math.floor((offset + at) / PAGE)).set(bytes.subarray(at, at + n), inside);
      at += n;
    }
  }

  size(): number {
    return this.#length;
  }
  pread(buf: Uint8Array, offset: number): void {
    const end = Math.min(buf.length, Math.max(0, this.#length - offset));
    for (let at = 0; at < end; ) {
      const place = offset + at;
      const inside = place % PAGE;
      const n = Math.min(end - at, PAGE - inside);
      const page = this.#pages.get(Math.floor(place / PAGE));
      if (page !== undefined) buf.set(page.subarray(inside, inside + n), at);
      else {
        const known = Math.max(0, Math.min(n, this.#baseLength - place));
        if (known > 0) buf.set(this.#base.subarray(place, place + known), at);
        buf.fill(0, at + known, at + n);
      }
      at += n;
    }
    buf.fill(0, end);
  }
  #grow(end: number): void {
    this.writes++;
    if (this.readOnly) throw new BlockError('read-only', 'hostile: opened read-only');
    if (end > this.#limit) throw new BlockError('no-space', 'hostile: no space left');
    this.#length = Math.max(this.#length, end);
  }
  pwrite(buf: Uint8Array, offset: number): void {
    this.#grow(offset + buf.length);
    this.put(offset, buf);
  }
  writeZeroes(offset: number, length: number): void {
    if (length <= 0) return;
    this.#grow(offset + length);
    const zeros = new Uint8Array(PAGE);
    for (let at = offset; at < offset + length; ) {
      const n = Math.min(offset + length - at, PAGE - (at % PAGE));
      if (n === PAGE && at >= this.#baseLength) this.#pages.delete(at / PAGE);
      else this.put(at, zeros.subarray(0, n));
      at += n;
    }
  }
  discard(offset: number, length: number): void {
    this.writeZeroes(offset, Math.min(length, this.#length - offset));
  }
  allocate(offset: number, length: number): void {
    this.#grow(offset + length);
  }
  truncate(size: number): void {
    this.#grow(size);
    if (size < this.#length) {
      // What comes again later is zeros.
      for (const [index, page] of this.#pages)
        if (index * PAGE >= size) this.#pages.delete(index);
        else if ((index + 1) * PAGE > size) page.fill(0, size - index * PAGE);
      this.#baseLength = Math.min(this.#baseLength, size);
    }
    this.#length = size;
  }
  extent(offset: number, length: number): FileExtent {
    return { data: offset < this.#length, length };
  }
  allocated(): number {
    return this.#length;
  }
  flush(): void {}
  close(): void {}
}

/** Small qcow2 images with something of everything in them. */
export function qcow2Samples(): Sample[] {
  const samples: Sample[] = [];
  for (const options of [
    { clusterSize: 512, refcountBits: 16 },
    { clusterSize: 4096, refcountBits: 8, compression: 'zstd' as const },
    { clusterSize: 16384, extendedL2: true, refcountBits: 64 },
    { clusterSize: 1024, version: 2 as const },
    { clusterSize: 65536, luks: { password: password(), iterTime: 1 } },
  ]) {
    const file = new MemoryFile('sample');
    createQcow2(file, nodeBlockHost, { size: 300 * 1024, ...options });
    const node = openQcow2(file, nodeBlockHost, {
      write: true,
      openBacking: () => null,
      openDataFile: () => {
        throw new Error('none');
      },
      password: password(),
    });
    const random = new Random(5);
    node.write(0, random.bytes(50_000));
    createSnapshot(node, { name: 'one' });
    node.write(20_000, random.bytes(30_000));
    for (let i = 0; i < 3 && !node.cipher; i++)
      node.writeCompressed(
        Math.ceil(100_000 / node.clusterSize + i) * node.clusterSize,
        new Uint8Array(node.clusterSize).fill(i),
      );
    node.writeZeroes(200_000, 20_000);
    createSnapshot(node, { name: 'two' });
    const { header } = node.meta;
    node.close();
    samples.push({
      format: 'qcow2',
      bytes: file.content(),
      slow: header.crypto !== undefined && header.crypto !== null,
      hot: [
        0,
        0,
        8,
        16,
        24,
        32,
        40,
        48,
        56,
        64,
        72,
        96,
        104,
        112,
        header.l1Offset,
        header.reftableOffset,
        header.snapshotsOffset,
        ...(header.crypto ? [header.crypto.offset, header.crypto.offset + 104, header.crypto.offset + 208] : []),
        ...[...node.meta.metadata].map((c) => c * node.clusterSize),
      ],
    });
  }
  if (haveQemu) samples.push(bitmapSample());
  return samples;
}

/** An image with persistent bitmaps, which only QEMU makes. */
function bitmapSample(): Sample {
  const { dir, remove } = scratch();
  try {
    const path = join(dir, 'image');
    for (const argv of [
      ['create', '-f', 'qcow2', '-o', 'cluster_size=512', path, '300k'],
      ['bitmap', '--add', '-g', '512', path, 'first'],
      ['bitmap', '--add', '-g', '64k', path, 'second'],
    ])
      assert.equal(qemuImg(...argv).status, 0);
    const node = openImage(nodeBlockHost, path, { write: true }) as Qcow2Node;
    node.write(1000, new Uint8Array(100_000).fill(3));
    node.close();
    const again = openImage(nodeBlockHost, path, { write: true }) as Qcow2Node;
    const { header } = again.meta;
    const hot = [
      0,
      88,
      104,
      112,
      130,
      header.bitmaps!.directoryOffset,
      header.bitmaps!.directoryOffset + 12,
      ...again.bitmaps!.list.map((b) => b.tableOffset),
    ];
    again.close();
    return { format: 'qcow2', bytes: new Uint8Array(readFileSync(path)), hot };
  } finally {
    remove();
  }
}

/** Small images of the formats we only read, made by qemu-img; none where it is missing. */
export function foreignSamples(): Sample[] {
  if (!haveQemu) return [];
  const { dir, remove } = scratch();
  try {
    const raw = new Uint8Array(3 << 20);
    raw.set(new Random(3).bytes(300_000), 100_000);
    writeFileSync(join(dir, 'raw'), raw);
    const kinds: [string, string, number[]][] = [
      ['vmdk', 'subformat=monolithicSparse', [0, 8, 12, 20, 28, 36, 44, 56, 512, 1024, 10752, 11264]],
      ['vmdk', 'subformat=streamOptimized', [0, 8, 12, 20, 44, 56, 77, 512, 65536]],
      ['vdi', '', [64, 72, 340, 368, 376, 384, 512]],
      ['vhdx', 'subformat=dynamic,block_size=1M', [65536, 131072, 196608, 262144, 1 << 20, 2 << 20, (2 << 20) + 65536, 3 << 20]],
      ['vpc', 'subformat=dynamic', [0, 48, 56, 60, 512, 528, 540, 544, 1536]],
    ];
    return kinds.map(([format, options, hot]) => {
      const path = join(dir, 'image');
      const made = qemuImg('convert', '-f', 'raw', '-O', format, ...(options ? ['-o', options] : []), join(dir, 'raw'), path);
      assert.equal(made.status, 0, made.out);
      const bytes = new Uint8Array(readFileSync(path));
      return { format, bytes, hot: hot.filter((at) => at < bytes.length) };
    });
  } finally {
    remove();
  }
}

/** A backing file that names itself, a pair that names each other, a device, a missing file, an unknown protocol. */
export function loops(): void {
  const { dir, remove } = scratch();
  const make = (name: string, backingFile: string): string => {
    const path = join(dir, name);
    const file = nodeBlockHost.openFile(path, { create: true });
    createQcow2(file, nodeBlockHost, { size: 1 << 20, backingFile, backingFormat: 'qcow2' });
    file.close();
    return path;
  };
  try {
    const cases: [string, RegExp][] = [
      [make('self', 'self'), /loop/],
      [make('one', 'two'), /loop/],
      [make('two', join(dir, 'one')), /loop/],
      [make('missing', 'nothing-here'), /No such file/],
      [make('protocol', 'http://example.org/x'), /protocol/],
      [make('folder', '.'), /directory/],
      [make('character', '/dev/zero'), /neither a regular file nor a block device/],
    ];
    for (const [path, message] of cases)
      assert.throws(
        () => openImage(nodeBlockHost, path),
        (error: unknown) => error instanceof BlockError && message.test(error.message),
        path,
      );
  } finally {
    remove();
  }
}

const EVIL = [0, 1, 0x7f, 0x80, 0xff];

export function damage(random: Random, sample: Sample, readOnly: boolean): DamagedFile {
  const length = random.chance(0.1) ? random.below(sample.bytes.length) : sample.bytes.length;
  const file = new DamagedFile(sample.bytes, length, readOnly);
  if (length === 0) return file;
  const hits = 1 + random.below(random.chance(0.8) ? 3 : 40);
  const byte = new Uint8Array(1);
  for (let i = 0; i < hits; i++) {
    const at = random.chance(0.85)
      ? Math.min(length - 1, random.pick(sample.hot) + random.below(random.chance(0.5) ? 16 : 600))
      : random.below(length);
    const how = random.below(8);
    if (how < 6) {
      file.pread(byte, at);
      if (how < 4) byte[0] = random.pick(EVIL);
      else byte[0] ^= 1 << random.below(8);
      file.put(at, byte);
    } else if (how < 7) {
      const piece = new Uint8Array(Math.min(length - at, 8 * (1 + random.below(8))));
      file.pread(piece, random.pick(sample.hot));
      file.put(at, piece);
    } else {
      const from = at - (at % 8);
      file.put(
        from,
        Uint8Array.from({ length: Math.min(8, length - from) }, () => random.below(256)),
      );
    }
  }
  return file;
}

/** Encrypted images cost a hundred times as much as others: they are chosen more rarely. */
const pickSample = (random: Random, samples: readonly Sample[]): Sample => {
  const sample = random.pick(samples);
  return sample.slow === true && random.chance(0.9) ? samples[0] : sample;
};

/** Tries one damaged image; returns true if it opened. */
export function hostileCase(seed: number, samples: Sample[]): boolean {
  const random = new Random(seed);
  const sample = pickSample(random, samples);
  const write = sample.format === 'qcow2' && random.chance(0.5);
  const check = write && random.chance(0.3);
  const file = damage(random, sample, !write);
  const head = new Uint8Array(80);
  file.pread(head, 0);
  const began = performance.now();
  const allow = <T>(what: string, run: () => T): T | null => {
    try {
      return run();
    } catch (error) {
      if (error instanceof BlockError) return null;
      throw new Error(`seed ${seed}: ${what}: ${(error as Error).message}`, { cause: error });
    }
  };
  const node = allow('open', () => openInFile(closedHost, file, { format: sample.format, write, check, password }));
  // A dirty image is repaired at open; that writes, by design.
  const dirty = (head[79] & 1) !== 0 && write;
  if (!node) {
    if (!dirty) assert.equal(file.writes, 0, `seed ${seed}: a failed open wrote to the image`);
  } else {
    const length = Math.min(node.size, 1 << 20);
    for (let i = 0; i < 6; i++) {
      const offset = random.below(Math.max(1, node.size - 4096));
      const n = Math.min(node.size - offset, 1 + random.below(random.chance(0.1) ? 70_000 : 5000));
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
        if (node.snapshots.length && random.chance(0.5))
          allow('apply', () => applySnapshot(node, random.pick(node.snapshots).id));
        if (node.snapshots.length && random.chance(0.5))
          allow('delete', () => deleteSnapshot(node, random.pick(node.snapshots).id));
        if (random.chance(0.3)) allow('resize', () => node.resize(512 * random.below(3000)));
        if (random.chance(0.3)) allow('repair', () => checkImage(node, 'all'));
        allow('flush', () => node.flush());
      }
    }
    allow('close', () => node.close());
  }
  const now = performance.now();
  if (now - began > CASE_MS) {
    // Of the processor's time: a busy host must not fail it. Cases before this one may have had some of that.
    const { user, system } = process.cpuUsage(sampled.cpu);
    const took = (user + system) / 1000;
    assert.ok(took < CASE_MS + SAMPLE_MS, `seed ${seed}: took ${took.toFixed(0)} ms`);
  }
  // Asking costs as much as a small case.
  if (now - sampled.at > SAMPLE_MS) sampled = { at: now, cpu: process.cpuUsage() };
  return node !== null;
}

/** How long a case may take, and how often the processor's time is asked for. */
const CASE_MS = 5000;
const SAMPLE_MS = 1000;
let sampled = { at: performance.now(), cpu: process.cpuUsage() };
