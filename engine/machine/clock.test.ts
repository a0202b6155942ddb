/** Machine time that is the instruction count of a vCPU. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedState } from '../memory/shared-state.ts';
import * as S from '../memory/vcpu-state.ts';
import { MachineClock } from './clock.ts';

function counting(scale: number): { clock: MachineClock; state: BigUint64Array; limit: () => bigint } {
  const shared = new SharedState(new SharedArrayBuffer(1 << 20), 0, 1 << 20, 1);
  const clock = new MachineClock(shared);
  const block = new BigUint64Array(new SharedArrayBuffer(S.STATE_BYTES));
  clock.count(new Int32Array(block.buffer), scale);
  clock.initialize(0);
  return { clock, state: block, limit: () => block[S.COUNT_LIMIT >> 3] };
}

test('time passes by instructions, and timers are due at counts, the earliest first', () => {
  const { clock, state, limit } = counting(4);
  const fired: string[] = [];
  const late = clock.timer('late', () => fired.push(`late ${clock.now()}`));
  const early = clock.timer('early', () => {
    fired.push(`early ${clock.now()}`);
    if (fired.length < 3) early.arm(clock.now() + 40);
  });
  clock.runDue();
  assert.equal(limit(), 0xffffffffffffffffn);
  late.arm(399);
  assert.equal(limit(), 100n);
  early.arm(200);
  assert.equal(limit(), 50n);
  state[S.INSTRUCTIONS >> 3] = 52n;
  assert.equal(clock.now(), 208);
  clock.runDue();
  assert.equal(limit(), 62n);
  state[S.INSTRUCTIONS >> 3] = 120n;
  clock.runDue();
  assert.deepEqual(fired, ['early 208', 'early 480', 'late 480']);
  assert.equal(limit(), 130n);
});

test('a vCPU that halts makes it the next deadline', () => {
  const { clock, state } = counting(1);
  assert.equal(clock.skip(), false);
  const fired: number[] = [];
  const timer = clock.timer('one', () => fired.push(clock.now()));
  state[S.INSTRUCTIONS >> 3] = 10n;
  timer.arm(1000.5);
  assert.equal(clock.skip(), true);
  assert.deepEqual(fired, [1001]);
  state[S.INSTRUCTIONS >> 3] = 20n;
  assert.equal(clock.now(), 1011);
  // A state that is loaded has its own time.
  clock.set(5000, 0);
  assert.equal(clock.now(), 5000);
});
