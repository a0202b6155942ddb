import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Debugcon, debugconState } from './debugcon.ts';
import { fresh, snapshotSuite } from './testing.ts';

test('bytes reach the sink; they wait while it is full, in order, and no more than fit', () => {
  const got: number[] = [];
  let room = 0;
  const port = new Debugcon(fresh(debugconState), {
    sink: {
      write(data) {
        const taken = Math.min(room, data.length);
        room -= taken;
        got.push(...data.subarray(0, taken));
        return taken;
      },
    },
  });
  port.reset();
  assert.equal(port.read(0, 1), 0xe9);
  room = 1;
  port.write(0, 1, 0x41);
  port.write(0, 2, 0x4342);
  assert.deepEqual(got, [0x41]);
  room = 10;
  port.drained();
  assert.deepEqual(got, [0x41, 0x42, 0x43]);
  room = 0;
  for (let i = 0; i < 5000; i++) port.write(0, 1, i & 0xff);
  room = 1e6;
  port.drained();
  assert.equal(got.length, 3 + 4096);
  assert.deepEqual(
    got.slice(3),
    Array.from({ length: 4096 }, (_, i) => i & 0xff),
  );
});

const seen: number[][] = [];
snapshotSuite(
  debugconState,
  (state) => {
    const out: number[] = [];
    seen.push(out);
    return Object.assign(
      new Debugcon(state, {
        sink: {
          write(data) {
            if (!open) return 0;
            out.push(...data);
            return data.length;
          },
        },
      }),
      { out },
    );
  },
  (port) => {
    for (const c of 'held back') port.write(0, 1, c.charCodeAt(0));
  },
  (port) => {
    open = true;
    port.drained();
    return port.out;
  },
);
let open = false;
