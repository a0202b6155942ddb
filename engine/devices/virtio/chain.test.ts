import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PIECE_MAX } from '../scatter.ts';
import { PlainMemory } from '../testing.ts';
import { CHAIN_BUFFERS_MAX, Chain } from './chain.ts';
import { random } from './testing-disk.ts';

test('buffers that touch become one; what makes no sense is named', () => {
  const chain = new Chain(new PlainMemory(65536));
  assert.equal(chain.add(0x1000, 16, false), undefined);
  assert.equal(chain.add(0x1010, 16, false), undefined);
  assert.equal(chain.add(0x3000, 0, false), undefined);
  assert.deepEqual(chain.readable, [{ address: 0x1000, length: 32 }]);
  assert.equal(chain.add(0x2000, 8, true), undefined);
  assert.match(chain.add(0x3000, 8, false) ?? '', /after a writable/);
  assert.match(chain.add(2 ** 52 - 4, 8, true) ?? '', /address space/);
  assert.match(chain.add(0, 2 ** 32 - 1, true) ?? '', /4 GiB/);
  const long = new Chain(new PlainMemory(16));
  for (let i = 0; i < CHAIN_BUFFERS_MAX; i++) assert.equal(long.add(0, 0, true), undefined);
  assert.match(long.add(0, 0, true) ?? '', /too many/);
});

test('bytes land in order however the buffers are cut, some beyond memory', () => {
  const size = 8 * PIECE_MAX;
  for (let seed = 1; seed <= 12; seed++) {
    const pick = random(seed);
    const memory = new PlainMemory(size);
    const chain = new Chain(memory);
    const where: number[] = [];
    let at = 4096;
    for (let i = 0; i < 40; i++) {
      const length = pick(6) === 0 ? pick(PIECE_MAX / 2) : pick(5000);
      const gap = pick(2) === 0 ? 0 : pick(999);
      if (at + gap + length > size) break;
      at += gap;
      chain.add(at, length, true);
      if (length > 0) where.push(at, length);
      at += length;
    }
    const offset = pick(3000);
    const total = chain.writableBytes - offset - pick(1000);
    const expected = Uint8Array.from({ length: total }, (_, i) => (i * 7 + (i >> 8)) & 0xff);
    let next = 0;
    chain.eachWritable(offset, total, (data, start) => {
      assert.equal(start, next);
      assert.ok(data.length <= PIECE_MAX && data.length > 0);
      data.set(expected.subarray(start, start + data.length));
      next += data.length;
    });
    assert.equal(next, total);
    // The same through a second chain over the same buffers, read this time.
    const back = new Chain(memory);
    for (let i = 0; i < where.length; i += 2) back.add(where[i], where[i + 1], false);
    const got = new Uint8Array(total);
    back.eachReadable(offset, total, (data, start) => got.set(data, start));
    assert.ok(Buffer.compare(got, expected) === 0);
    assert.ok(Buffer.compare(back.readBytes(offset, total), expected) === 0);
  }
  const beyond = new Chain(new PlainMemory(4096));
  beyond.add(4000, 200, false);
  const got = beyond.readBytes(0, 200);
  assert.deepEqual([got[95], got[96], got[199]], [0, 255, 255]);
});

test('a call within a call has a buffer of its own', () => {
  const memory = new PlainMemory(65536);
  const outer = new Chain(memory);
  outer.add(100, 10, true);
  outer.add(200, 10, true);
  const inner = new Chain(memory);
  inner.add(300, 10, true);
  inner.add(400, 10, true);
  outer.eachWritable(0, 20, (data) => {
    data.fill(1);
    inner.eachWritable(0, 20, (other) => other.fill(2));
  });
  assert.deepEqual([memory.data[100], memory.data[209], memory.data[300], memory.data[409]], [1, 1, 2, 2]);
});
