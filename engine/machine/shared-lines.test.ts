import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh } from '../devices/testing.ts';
import { gateState, LineGate, SharedLines, sharedLinesState } from './shared-lines.ts';

test('a line is high while one of its inputs is', () => {
  const levels = [false, false];
  const targets = levels.map((_, n) => ({
    set: (level: boolean) => {
      levels[n] = level;
    },
  }));
  const state = fresh(sharedLinesState);
  const lines = new SharedLines(state, targets);
  const [a, b, other] = [lines.input(1), lines.input(1), lines.input(0)];
  a.set(true);
  b.set(true);
  a.set(false);
  assert.deepEqual(levels, [false, true]);
  // Another thread's objects over the same state.
  const twin = new SharedLines(state, targets);
  twin.input(1);
  twin.input(1).set(false);
  assert.deepEqual(levels, [false, false]);
  other.set(true);
  assert.deepEqual(levels, [true, false]);
  for (let n = 1; n < 32; n++) lines.input(0);
  assert.throws(() => lines.input(0), /too many/);
});

test('a cut line stays low, and shows what is driven when it is whole again', () => {
  let level = false;
  const gate = new LineGate(fresh(gateState), {
    set: (value) => {
      level = value;
    },
  });
  gate.set(true);
  assert.equal(level, true);
  gate.cut(true);
  assert.equal(level, false);
  gate.set(false);
  gate.set(true);
  assert.equal(level, false);
  gate.cut(false);
  assert.equal(level, true);
});
