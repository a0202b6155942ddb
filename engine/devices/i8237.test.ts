import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I8237, i8237State } from './i8237.ts';
import { fresh, PlainMemory, snapshotSuite } from './testing.ts';

function make(state = fresh(i8237State)) {
  const memory = new PlainMemory(1 << 20);
  const dma = new I8237(state, memory);
  const program = (channel: number, mode: number, address: number, count: number): void => {
    const [chip, step] = channel < 4 ? [dma.first, 1] : [dma.second, 2];
    const n = channel & 3;
    chip.write(11 * step, 1, mode | n);
    chip.write(12 * step, 1, 0);
    for (const [register, value] of [
      [2 * n, address],
      [2 * n + 1, count],
    ]) {
      chip.write(register * step, 1, value & 0xff);
      chip.write(register * step, 1, value >> 8);
    }
    chip.write(10 * step, 1, n);
  };
  return { dma, memory, program };
}

test('bytes go up or down inside their page; a count ends, masks the channel, or begins anew', () => {
  const { dma, memory, program } = make();
  dma.reset();
  assert.equal(dma.ready(2), false);
  dma.pages.write(1, 1, 3);
  program(2, 0x44, 0xfffe, 5);
  assert.deepEqual([dma.ready(2), dma.kind(2), dma.left(2)], [true, 'to-memory', 6]);
  assert.equal(dma.write(2, Uint8Array.of(1, 2, 3)), false);
  assert.deepEqual([memory.data[0x3fffe], memory.data[0x3ffff], memory.data[0x30000]], [1, 2, 3]);
  assert.equal(dma.write(2, Uint8Array.of(4, 5, 6)), true);
  assert.equal(dma.ready(2), false);
  assert.equal(dma.first.read(8, 1), 4);
  assert.equal(dma.first.read(8, 1), 0);
  program(2, 0x78, 0x1003, 3);
  memory.data.set([10, 11, 12, 13], 0x31000);
  const data = new Uint8Array(4);
  dma.peek(2, data);
  assert.deepEqual([...data], [13, 12, 11, 10]);
  assert.equal(dma.skip(2, 4), true);
  assert.deepEqual([dma.ready(2), dma.left(2)], [true, 4], 'begun anew');
  program(2, 0x64, 0x1003, 3);
  assert.equal(dma.write(2, Uint8Array.of(1, 2, 3, 4)), true);
  assert.deepEqual([...memory.data.slice(0x31000, 0x31004)], [4, 3, 2, 1]);
});

test('words have pages of 128 KiB', () => {
  const { dma, memory, program } = make();
  dma.reset();
  dma.pages.write(11, 1, 5);
  program(5, 0x44, 0x8000, 1);
  assert.equal(dma.left(5), 4);
  assert.equal(dma.write(5, Uint8Array.of(1, 2, 3, 4)), true);
  assert.deepEqual([...memory.data.slice(0x50000, 0x50004)], [1, 2, 3, 4]);
});

snapshotSuite(
  i8237State,
  (state) => make(state).dma,
  (dma) => {
    for (let register = 0; register < 12; register++) dma.first.write(register, 1, 0x40 + register);
  },
  (dma) => Array.from({ length: 16 }, (_, register) => dma.first.read(register, 1)),
);
