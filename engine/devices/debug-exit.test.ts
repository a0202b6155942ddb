import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DebugExit } from './debug-exit.ts';

test('the status is odd, and a byte', () => {
  const seen: number[] = [];
  const port = new DebugExit({ exit: (status) => seen.push(status) });
  port.write(0, 1, 0);
  port.write(0, 1, 0x10);
  port.write(0, 4, 0xffffffff);
  assert.deepEqual(seen, [1, 0x21, 0xff]);
  assert.equal(port.read(0, 1), 0);
});
