import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Port92, type Port92Wires, port92State } from './port92.ts';
import { fresh, snapshotSuite } from './testing.ts';

function wires(): Port92Wires & { on: boolean; resets: number } {
  const state = {
    on: false,
    resets: 0,
    a20: {
      get: () => state.on,
      set: (on: boolean) => {
        state.on = on;
      },
    },
    reset: () => {
      state.resets++;
    },
  };
  return state;
}

test('A20 as Linux a20.c does it, reset on the rising bit', () => {
  const w = wires();
  const port = new Port92(fresh(port92State), w);
  port.reset();
  assert.equal(port.read(0, 1), 0);
  port.write(0, 1, (port.read(0, 1) | 2) & ~1);
  assert.equal(w.on, true);
  w.on = false;
  assert.equal(port.read(0, 1), 0, 'the other way to the gate shows here');
  port.write(0, 1, 0x01);
  port.write(0, 1, 0x01);
  assert.equal(w.resets, 1);
});

snapshotSuite(
  port92State,
  (state) => new Port92(state, wires()),
  (port) => port.write(0, 1, 0xf8),
  (port) => port.read(0, 1),
);
