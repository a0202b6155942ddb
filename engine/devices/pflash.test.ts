import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pflash, pflashDirty, pflashState } from './pflash.ts';
import { fresh, snapshotSuite } from './testing.ts';

function make(readOnly = false) {
  const contents = new Uint8Array(16384).fill(0xff);
  contents.set([1, 2, 3, 4], 0);
  const dirty = fresh(pflashDirty);
  let changes = 0;
  const flash = new Pflash(fresh(pflashState), { contents, readOnly, dirty, changed: () => changes++ });
  flash.reset();
  return { contents, dirty, flash, changes: () => changes };
}

test('a probe as OVMF does it finds flash, and leaves what it holds', () => {
  const { flash } = make();
  assert.equal(flash.read(0, 1), 1);
  flash.write(0, 1, 0x50);
  assert.equal(flash.read(0, 1), 1);
  flash.write(0, 1, 0x70);
  assert.equal(flash.read(0, 1), 0);
  flash.write(0, 1, 0xff);
  assert.equal(flash.read(0, 4), 0x04030201);
});

test('programming clears bits, erasing sets those of a block, and what changed is told', () => {
  const { flash, contents, dirty, changes } = make();
  flash.write(0x1010, 1, 0x10);
  flash.write(0x1010, 1, 0x5a);
  assert.equal(flash.read(0x1010, 1), 0x80, 'the status, ready');
  flash.write(0x1010, 1, 0x40);
  flash.write(0x1010, 1, 0xf0);
  flash.write(0x1010, 1, 0xff);
  assert.equal(flash.read(0x1010, 1), 0x50);
  assert.deepEqual([dirty.first, dirty.end, changes()], [0x1010, 0x1011, 1]);
  flash.write(0x1fff, 1, 0x20);
  flash.write(0x1fff, 1, 0xd0);
  flash.write(0, 1, 0xff);
  assert.equal(contents[0x1010], 0xff);
  assert.equal(contents[0], 1);
  assert.deepEqual([dirty.first, dirty.end], [0x1000, 0x2000]);
  flash.write(0, 1, 0x20);
  flash.write(0, 1, 0x00);
  assert.equal(flash.read(0, 1), 0xb0, 'an erasure that was not confirmed');
});

test('buffered writes', () => {
  const { flash, contents } = make();
  flash.write(0x40, 1, 0xe8);
  assert.equal(flash.read(0x40, 1) & 0x80, 0x80);
  flash.write(0x40, 1, 7);
  flash.write(0x40, 4, 0x44332211);
  flash.write(0x44, 4, 0x88776655);
  flash.write(0x40, 1, 0xd0);
  assert.deepEqual([...contents.subarray(0x40, 0x49)], [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xff]);
});

test('read-only flash keeps what it has and says so; queries; hostile writes', () => {
  const { flash, contents, dirty } = make(true);
  flash.write(0, 1, 0x10);
  flash.write(0, 1, 0);
  assert.equal(flash.read(0, 1) & 0x12, 0x12);
  assert.deepEqual([contents[0], dirty.end], [1, 0]);
  flash.write(0, 1, 0x98);
  assert.deepEqual([flash.read(16, 1), flash.read(17, 1), flash.read(18, 1), flash.read(39, 1)], [0x51, 0x52, 0x59, 14]);
  flash.write(0, 1, 0x90);
  assert.equal(flash.read(0, 1), 0x89);
  const { flash: other, contents: kept } = make();
  for (let i = 0, seed = 1; i < 50_000; i++) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    other.write(seed % 16400, ([1, 2, 4] as const)[(seed >>> 20) % 3], seed >>> 4);
    other.read((seed >>> 3) % 16400, 4);
  }
  assert.equal(kept.length, 16384);
});

snapshotSuite(
  pflashState,
  (state) => new Pflash(state, { contents: new Uint8Array(8192), dirty: fresh(pflashDirty), changed() {} }),
  (flash) => {
    flash.write(0, 1, 0xe8);
    flash.write(0, 1, 3);
    flash.write(0, 2, 0x1234);
  },
  (flash) => [flash.read(0, 1), flash.read(1, 4)],
);
