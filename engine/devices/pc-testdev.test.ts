import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PcTestdev, pcTestdevState, TESTDEV_MEMORY } from './pc-testdev.ts';
import { fresh } from './testing.ts';

test('lines, latch and memory', () => {
  const levels: [number, boolean][] = [];
  const lines = Array.from({ length: 24 }, (_, n) => ({ set: (level: boolean) => void levels.push([n, level]) }));
  const device = new PcTestdev(fresh(pcTestdevState), lines);
  device.lines.write(11, 1, 1);
  device.lines.write(11, 4, 0);
  device.lines.write(30, 1, 1);
  assert.deepEqual(levels, [
    [11, true],
    [11, false],
  ]);
  device.latch.write(0, 4, 0x11223344);
  device.latch.write(1, 2, 0xaabb);
  assert.equal(device.latch.read(0, 4), 0x11aabb44);
  assert.equal(device.latch.read(3, 1), 0x11);
  device.memory.write(TESTDEV_MEMORY.length - 2, 4, 0xdeadbeef);
  assert.equal(device.memory.read(TESTDEV_MEMORY.length - 2, 2), 0xbeef);
  assert.equal(device.memory.read(TESTDEV_MEMORY.length - 2, 4), 0xffffbeef);
  device.reset();
  assert.equal(device.latch.read(0, 4), 0);
});
