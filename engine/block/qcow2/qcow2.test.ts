import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { nodeBlockHost as host } from '../../host/block-file.ts';
import { BlockError, type BlockErrorCode } from '../errors.ts';
import { MemoryFile } from '../file.ts';
import { checkImage } from './check.ts';
import { createQcow2, type Qcow2CreateOptions } from './create.ts';
import { encodeHeader, INCOMPAT_DIRTY, readHeader } from './header.ts';
import { bits } from './l2.ts';
import type { Qcow2Node } from './node.ts';
import { openQcow2, type Qcow2OpenOptions } from './open.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from './snapshot.ts';

function make(options: Partial<Qcow2CreateOptions> = {}): MemoryFile {
  const file = new MemoryFile('image');
  createQcow2(file, host, { size: 1 << 20, clusterSize: 4096, ...options });
  return file;
}

function open(file: MemoryFile, options: Partial<Qcow2OpenOptions> = {}): Qcow2Node {
  return openQcow2(file, host, {
    write: true,
    openBacking: () => null,
    openDataFile: () => {
      throw new BlockError('not-found', 'no data file');
    },
    ...options,
  });
}

const fails = (code: BlockErrorCode, run: () => unknown, message = /./) =>
  assert.throws(run, (error: unknown) => error instanceof BlockError && error.code === code && message.test(error.message));

function readAt(node: Qcow2Node, offset: number, length: number): Uint8Array {
  const buf = new Uint8Array(length);
  node.read(offset, buf);
  return buf;
}

describe('qcow2 header', () => {
  it('reads back what it writes', () => {
    const file = make({ backingFile: 'base', backingFormat: 'raw', compression: 'zstd', lazyRefcounts: true });
    const header = readHeader(file);
    assert.equal(header.backingFile, 'base');
    assert.equal(header.backingFormat, 'raw');
    assert.equal(header.compressionType, 1);
    assert.deepEqual(encodeHeader(header), file.content().slice(0, 4096));
  });

  it('keeps extensions and fields it does not know', () => {
    const file = make();
    const header = readHeader(file);
    header.unknownExtensions.push({ type: 0x12345678, data: new Uint8Array([1, 2, 3]) });
    file.pwrite(encodeHeader(header), 0);
    assert.deepEqual(readHeader(file).unknownExtensions, [{ type: 0x12345678, data: new Uint8Array([1, 2, 3]) }]);
  });

  const bad: [string, number, number[], BlockErrorCode][] = [
    ['magic', 0, [0], 'format'],
    ['version', 4, [0, 0, 0, 4], 'unsupported'],
    ['cluster bits too small', 20, [0, 0, 0, 8], 'unsupported'],
    ['cluster bits too large', 20, [0, 0, 0, 22], 'unsupported'],
    ['a size beyond reach', 24, [0x7f], 'corrupt'],
    ['an L1 too small for the size', 36, [0, 0, 0, 0], 'corrupt'],
    ['an L1 too large', 36, [0xff, 0, 0, 0], 'corrupt'],
    ['an L1 off a boundary', 47, [1], 'corrupt'],
    ['no refcount table', 56, [0, 0, 0, 0], 'corrupt'],
    ['a huge refcount table', 56, [0xff], 'corrupt'],
    ['too many snapshots', 60, [0xff], 'corrupt'],
    ['an unknown incompatible feature', 72, [0x80], 'unsupported'],
    ['refcounts too wide', 99, [7], 'unsupported'],
    ['a header longer than its cluster', 100, [0, 0, 0x20, 0], 'corrupt'],
    ['an unknown encryption', 35, [9], 'unsupported'],
    ['LUKS without its header', 35, [2], 'corrupt'],
  ];
  for (const [what, offset, bytes, code] of bad)
    it(`refuses ${what}, and writes nothing`, () => {
      const file = make();
      file.pwrite(new Uint8Array(bytes), offset);
      const before = file.content();
      fails(code, () => open(file));
      assert.deepEqual(file.content(), before);
    });

  it('names an unknown feature by the name table of the image', () => {
    const file = make();
    const content = file.content();
    const at = Buffer.from(content).indexOf('extended L2 entries');
    file.pwrite(new TextEncoder().encode('time travel         '), at);
    file.pwrite(new Uint8Array([9]), at - 1);
    file.pwrite(new Uint8Array([2]), 78);
    fails('unsupported', () => open(file), /time travel/);
  });
});

describe('qcow2 image', () => {
  it('allocates no more than was written', () => {
    const file = make({ size: 2 ** 40, clusterSize: 65536 });
    const node = open(file);
    node.write(2 ** 39 + 5, new Uint8Array([1, 2, 3]));
    node.close();
    assert.ok(file.size() <= 9 * 65536, `${file.size()}`);
    const again = open(file);
    assert.deepEqual([...readAt(again, 2 ** 39 + 4, 5)], [0, 1, 2, 3, 0]);
    assert.deepEqual(again.blockStatus(0, 2 ** 39), { kind: 'unallocated', length: 2 ** 39 });
    assert.equal(again.blockStatus(2 ** 39, 65536).kind, 'data');
  });

  it('gives clusters back that were discarded', () => {
    const file = make();
    const node = open(file);
    node.write(0, new Uint8Array(1 << 20).fill(1));
    node.flush();
    const full = file.size();
    node.discard(0, 1 << 20);
    node.flush();
    node.write(0, new Uint8Array(1 << 20).fill(2));
    node.close();
    assert.equal(file.size(), full);
    assert.equal(checkImage(open(file)).leaks, 0);
  });

  it('with 1-bit refcounts it refuses snapshots and stays whole', () => {
    const file = make({ refcountBits: 1 });
    const node = open(file);
    node.write(0, new Uint8Array(10000).fill(7));
    fails('invalid', () => createSnapshot(node, { name: 'x' }), /refcounts of 1 bits/);
    node.writeCompressed(20480, new Uint8Array(4096).fill(1));
    node.writeCompressed(24576, new Uint8Array(4096).fill(2));
    node.close();
    const again = open(file);
    const result = checkImage(again);
    assert.deepEqual([result.corruptions, result.leaks], [0, 0]);
    assert.equal(readAt(again, 24576, 1)[0], 2);
  });

  it('keeps VM state with its snapshot', () => {
    const file = make();
    const node = open(file);
    const state = new Uint8Array(300000).map((_, i) => i * 7);
    node.writeVmState(0, state);
    createSnapshot(node, { name: 'running', vmStateSize: state.length, vmClock: 5e9 });
    node.write(0, new Uint8Array(100).fill(9));
    applySnapshot(node, 'running');
    const back = new Uint8Array(state.length);
    node.readVmState(0, back);
    assert.deepEqual(back, state);
    deleteSnapshot(node, 'running');
    node.clearVmState();
    node.close();
    const result = checkImage(open(file));
    assert.deepEqual([result.corruptions, result.leaks], [0, 0]);
  });

  it('repairs a dirty image when it is opened for writing', () => {
    const file = make({ lazyRefcounts: true });
    const node = open(file);
    node.write(0, new Uint8Array(50000).fill(3));
    node.flush();
    node.closeFiles();
    assert.ok(readHeader(file).incompatible & INCOMPAT_DIRTY);
    assert.ok(checkImage(open(file, { check: true, write: false })).corruptions > 0);
    const again = open(file);
    assert.equal(checkImage(again).corruptions, 0);
    assert.equal(readAt(again, 49999, 1)[0], 3);
    again.close();
    assert.equal(readHeader(file).incompatible & INCOMPAT_DIRTY, 0);
  });

  it('rebuilds refcounts that are gone', () => {
    const file = make();
    const node = open(file);
    node.write(0, new Uint8Array(200000).fill(3));
    node.close();
    file.pwrite(new Uint8Array(4096), readHeader(file).reftableOffset);
    const broken = open(file, { check: true });
    const result = checkImage(broken, 'all');
    assert.ok(result.corruptionsFixed > 0);
    assert.deepEqual([result.corruptions, result.leaks], [0, 0]);
    broken.close();
    const again = open(file);
    assert.equal(readAt(again, 199999, 1)[0], 3);
    again.write(300000, new Uint8Array(5000).fill(1));
    again.close();
    assert.equal(checkImage(open(file)).corruptions, 0);
  });

  it('marks an image corrupt instead of writing data over its tables, and opens it only to read then', () => {
    const file = make();
    const node = open(file);
    node.write(0, new Uint8Array(4096).fill(1));
    node.close();
    const header = readHeader(file);
    const table = new Uint8Array(8);
    file.pread(table, header.l1Offset);
    const l2 = new DataView(table.buffer).getUint32(4);
    // The first guest cluster now lies on the refcount table, flagged as ours alone.
    const entry = new Uint8Array(8);
    new DataView(entry.buffer).setUint32(0, 0x80000000);
    new DataView(entry.buffer).setUint32(4, header.reftableOffset);
    file.pwrite(entry, l2);
    const evil = open(file);
    fails('corrupt', () => evil.write(0, new Uint8Array(4096).fill(0xff)), /overwrite metadata/);
    fails('corrupt', () => evil.write(8192, new Uint8Array(1)));
    evil.close();
    fails('corrupt', () => open(file), /corrupt/);
    open(file, { write: false }).close();
  });

  it('bounds its memory: one small cache serves a large table', () => {
    const file = make({ size: 1 << 30, clusterSize: 512 });
    const node = open(file, { cache: { l2: 8192, refcount: 8192 } });
    for (let at = 0; at < 1 << 30; at += 1 << 20) node.write(at, new Uint8Array([at >> 20, 1]));
    for (let at = 0; at < 1 << 30; at += 1 << 20) assert.deepEqual([...readAt(node, at, 2)], [(at >> 20) & 255, 1]);
    node.close();
    assert.equal(checkImage(open(file)).corruptions, 0);
  });

  it('refuses ranges outside the disk', () => {
    const node = open(make());
    for (const [offset, length] of [
      [-1, 1],
      [1 << 20, 1],
      [(1 << 20) - 1, 2],
      [Number.NaN, 1],
      [0.5, 1],
    ])
      fails('invalid', () => node.read(offset, new Uint8Array(length)));
  });
});

it('bits of a mask', () => {
  assert.equal(bits(0, 32), 0xffffffff);
  assert.equal(bits(31, 32), 0x80000000);
  assert.equal(bits(0, 1), 1);
  assert.equal(bits(4, 8), 0xf0);
  assert.equal(bits(5, 5), 0);
});
