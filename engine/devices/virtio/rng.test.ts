import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, fresh, snapshotSuite } from '../testing.ts';
import { VirtioRng, virtioRngState } from './rng.ts';
import { ModernDriver, TestMachine } from './testing-driver.ts';

const MS = 1e6;

function make(bytes?: number) {
  const clock = new FakeClock();
  const limit = { state: fresh(virtioRngState), clock, timer: 'rng', bytes: bytes ?? 0, periodNs: 100 * MS };
  const machine = new TestMachine(new VirtioRng((target) => target.fill(7), bytes === undefined ? undefined : limit));
  const driver = new ModernDriver(machine);
  driver.negotiate();
  const queue = driver.queue(0, 16);
  driver.start();
  const ask = (length: number): number => {
    const address = machine.allocate(length);
    queue.add([{ address, length, write: true }]);
    queue.kick();
    return address;
  };
  const given = (): number[] => queue.usedAll().map(({ length }) => length);
  /** Whether the driver would kick for the next request: the event index stands at it. virtio 1.2, 2.7.10. */
  const heard = (): boolean => machine.memory.read16(queue.device + 4 + 16 * 8) === queue.position.next;
  return { clock, machine, ask, given, heard, state: limit.state };
}

test('each request gets what it asks for, up to a page', () => {
  const { machine, ask, given } = make();
  const address = ask(40);
  ask(10_000);
  assert.deepEqual(given(), [40, 4096]);
  assert.deepEqual(machine.bytes(address, 40), new Uint8Array(40).fill(7));
});

test('a period gives so many bytes; who waits gets more when the next begins', () => {
  const { clock, ask, given } = make(100);
  clock.advance(500 * MS);
  ask(60);
  ask(60);
  assert.deepEqual(given(), [60, 40], 'the second is cut short');
  ask(150);
  ask(30);
  assert.deepEqual(given(), []);
  clock.advance(99 * MS);
  assert.deepEqual(given(), [], 'the period began with the first request');
  clock.advance(1 * MS);
  assert.deepEqual(given(), [100]);
  clock.advance(100 * MS);
  assert.deepEqual(given(), [30]);
  // Nobody asks: nothing is saved up.
  clock.advance(1000 * MS);
  ask(4096);
  ask(1);
  assert.deepEqual(given(), [100]);
});

test('what was given is just what the period gives: the next request is heard of', () => {
  const { clock, ask, given, heard } = make(100);
  ask(100);
  assert.deepEqual(given(), [100]);
  assert.ok(heard());
  clock.advance(100 * MS);
  assert.ok(heard());
  ask(1);
  assert.deepEqual(given(), [1]);
});

test('no bytes at all; a reset begins anew', () => {
  const { clock, ask, given } = make(0);
  ask(10);
  clock.advance(1000 * MS);
  assert.deepEqual(given(), []);
  const other = make(10);
  other.ask(10);
  assert.equal(other.state.left, 0);
  other.machine.pci.reset();
  assert.equal(other.state.left, 10);
  other.state.left = 3;
  other.clock.advance(1000 * MS);
  assert.equal(other.state.left, 3, 'the period of before is over');
});

snapshotSuite(
  virtioRngState,
  (state, clock) => {
    const device = new VirtioRng(() => {}, { state, clock, timer: 'rng', bytes: 50, periodNs: MS });
    device.attach({ driverOk: false, queues: [] } as never);
    return { device, left: () => state.left };
  },
  ({ device }) => device.reset(),
  ({ left }) => [left()],
);
