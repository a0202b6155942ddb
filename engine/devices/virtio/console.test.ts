import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh, snapshotSuite } from '../testing.ts';
import { type ConsolePort, VirtioConsole, virtioConsoleState } from './console.ts';
import { LegacyDriver, ModernDriver, TestMachine, type TestQueue } from './testing-driver.ts';
import type { VirtioPciOptions } from './transport-pci.ts';

/** A back end that takes only so many bytes until it is emptied. */
class Sink {
  taken = '';
  limit = Infinity;
  write(data: Uint8Array): number {
    const count = Math.min(data.length, this.limit);
    this.limit -= count;
    this.taken += new TextDecoder('latin1').decode(data.slice(0, count));
    return count;
  }
}
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function make(options: Partial<VirtioPciOptions> = {}) {
  const consoleSink = new Sink();
  const agentSink = new Sink();
  const opened: boolean[] = [];
  const ports: ConsolePort[] = [
    { number: 0, kind: 'console', sink: consoleSink },
    { number: 2, kind: 'serial', name: 'org.qemu.guest_agent.0', sink: agentSink, opened: (open) => opened.push(open) },
  ];
  const device = new VirtioConsole(fresh(virtioConsoleState), ports, 4);
  const machine = new TestMachine(device, options);
  const driver = new ModernDriver(machine);
  driver.negotiate();
  const queues = Array.from({ length: 10 }, (_, index) => driver.queue(index, 16));
  driver.start();
  return { consoleSink, agentSink, opened, device, machine, driver, queues };
}
const control = (id: number, event: number, value: number): Uint8Array => Uint8Array.of(id, 0, 0, 0, event, 0, value, 0);

/** Gives the control queue buffers and decodes what comes. */
class ControlReader {
  readonly #queue: TestQueue;
  readonly #machine: TestMachine;
  readonly #at = new Map<number, number>();
  constructor(machine: TestMachine, queue: TestQueue) {
    this.#machine = machine;
    this.#queue = queue;
  }
  give(count: number): void {
    for (let i = 0; i < count; i++) {
      const address = this.#machine.allocate(64);
      this.#at.set(this.#queue.add([{ address, length: 64, write: true }]), address);
    }
    this.#queue.kick();
  }
  take(): string[] {
    return this.#queue.usedAll().map(({ id, length }) => {
      const data = this.#machine.bytes(this.#at.get(id) as number, length);
      const view = new DataView(data.buffer);
      return `${view.getUint32(0, true)}:${view.getUint16(4, true)}=${view.getUint16(6, true)}${new TextDecoder().decode(data.subarray(8)).replace(/\0$/, '')}`;
    });
  }
}

for (const packed of [false, true]) {
  test(`ports are announced, named and opened (${packed ? 'packed' : 'split'})`, () => {
    const { machine, queues, opened, device } = make({ packed });
    const reader = new ControlReader(machine, queues[2]);
    reader.give(8);
    queues[3].transfer(control(0, 0, 1));
    assert.deepEqual(reader.take(), ['0:1=0', '2:1=0']);
    queues[3].transfer(control(2, 3, 1));
    assert.deepEqual(reader.take(), ['2:7=1org.qemu.guest_agent.0', '2:6=1']);
    queues[3].transfer(control(2, 6, 1));
    assert.deepEqual(opened, [true]);
    const agent = device.frontend(2);
    agent.setOpen?.(false);
    agent.setOpen?.(false);
    assert.deepEqual(reader.take(), ['2:6=0']);
    // No buffers left but one: what is to be told waits, and only its last value.
    reader.give(0);
    queues[3].transfer(control(0, 3, 1));
    assert.equal(reader.take().length, 3);
    agent.setOpen?.(true);
    agent.setOpen?.(false);
    agent.setOpen?.(true);
    reader.give(4);
    const told = reader.take();
    assert.equal(told.at(-1), '2:6=1');
    reader.give(1);
    device.resize(0x141, 0x142);
    assert.deepEqual(reader.take(), ['0:5=0\x42\x01\x41\x01']);
  });

  test(`bytes both ways; a back end that is full; room only when the guest listens (${packed ? 'packed' : 'split'})`, () => {
    const { machine, queues, agentSink, consoleSink, device } = make({ packed });
    const agent = device.frontend(2);
    assert.ok(queues[1].transfer(text('hello')));
    assert.equal(consoleSink.taken, 'hello');
    queues[7].transfer(text('to the void'));
    queues[4].transfer(text('x'));

    // Port 2 has queues 6 and 7.
    agentSink.taken = '';
    agentSink.limit = 4;
    const big = 'abcdefghij'.repeat(1000);
    assert.equal(queues[7].transfer(text(big)), undefined, 'kept until there is room');
    queues[7].add([{ address: machine.put(text('END')), length: 3, write: false }]);
    queues[7].kick();
    assert.equal(agentSink.taken, 'abcd');
    agentSink.limit = 5000;
    agent.drained();
    assert.equal(agentSink.taken.length, 5004);
    agentSink.limit = Infinity;
    agent.drained();
    assert.equal(agentSink.taken, `${big}END`);
    assert.equal(queues[7].usedAll().length, 2);

    const into = machine.allocate(8);
    queues[6].add([{ address: into, length: 8, write: true }]);
    queues[6].add([{ address: machine.allocate(8), length: 8, write: true }]);
    assert.equal(agent.room(), 0, 'the guest has the port closed');
    queues[3].transfer(control(2, 6, 1));
    assert.equal(agent.room(), 8);
    assert.equal(agent.room(), 8);
    agent.receive(text('ping'));
    assert.equal(queues[6].used()?.length, 4);
    assert.equal(new TextDecoder().decode(machine.bytes(into, 4)), 'ping');
    assert.equal(agent.room(), 8);
    agent.receive(text('pong'));
    assert.equal(agent.room(), 0);
    assert.deepEqual(machine.trace, []);
  });
}

test('one console without ports, over the legacy interface; size; emergency write', () => {
  const sink = new Sink();
  const device = new VirtioConsole(fresh(virtioConsoleState), [{ number: 0, kind: 'console', sink }]);
  const machine = new TestMachine(device);
  const driver = new LegacyDriver(machine);
  driver.negotiate();
  const receive = driver.queue(0);
  const transmit = driver.queue(1);
  driver.start();
  transmit.transfer(text('plain'));
  assert.equal(sink.taken, 'plain');
  assert.equal(driver.read(20, 2), 80);
  assert.equal(driver.read(24, 4), 1);
  driver.read(19, 1);
  device.resize(132, 50);
  assert.equal(driver.read(19, 1) & 2, 2);
  assert.equal(driver.read(22, 2), 50);
  driver.write(28, 4, 0x21);
  assert.equal(sink.taken, 'plain!');
  const at = machine.allocate(16);
  receive.add([{ address: at, length: 16, write: true }]);
  assert.equal(device.frontend(0).room(), 16);
});

test('a reset closes ports and forgets what was to be told', () => {
  const { machine, driver, queues, opened } = make();
  queues[3].transfer(control(0, 0, 1));
  queues[3].transfer(control(2, 6, 1));
  driver.write(20, 1, 0);
  assert.deepEqual(opened, [true, false]);
  driver.negotiate();
  const again = Array.from({ length: 4 }, (_, index) => driver.queue(index, 16));
  driver.start();
  const reader = new ControlReader(machine, again[2]);
  reader.give(4);
  assert.deepEqual(reader.take(), []);
});

test('hostile messages: unknown ports and events, short ones, chains of a gigabyte, unwritable buffers', () => {
  const { machine, driver, queues, device } = make();
  for (const message of [control(99, 3, 1), control(1, 6, 1), control(2, 99, 1), control(2, 3, 7), Uint8Array.of(1, 2, 3)])
    queues[3].transfer(message);
  queues[3].transfer(Uint8Array.of(255, 255, 255, 255, 3, 0, 1, 0));
  assert.equal(driver.status & 0x40, 0);
  queues[1].add([{ address: 0, length: 0x40000000, write: false }]);
  queues[1].kick();
  assert.equal(driver.status & 0x40, 0x40);
  assert.equal(machine.trace.length, 1);
  const other = make();
  other.queues[0].add([{ address: 0, length: 4, write: false }]);
  assert.equal(other.device.frontend(0).room(), 0);
  assert.equal(other.driver.status & 0x40, 0x40);
  device.frontend(0).receive(text('x'));
});

test('ports that clash are refused', () => {
  const sink = new Sink();
  const state = fresh(virtioConsoleState);
  assert.throws(() => new VirtioConsole(state, [{ number: 0, kind: 'serial', sink }]));
  assert.throws(
    () =>
      new VirtioConsole(state, [
        { number: 1, kind: 'serial', sink },
        { number: 1, kind: 'serial', sink },
      ]),
  );
  assert.throws(() => new VirtioConsole(state, [{ number: 31, kind: 'serial', sink }]));
});

snapshotSuite(
  virtioConsoleState,
  (state) => {
    const device = new VirtioConsole(state, [
      { number: 0, kind: 'console', sink: new Sink() },
      { number: 1, kind: 'serial', sink: new Sink() },
    ]);
    if (state.columns === 0) new TestMachine(device);
    else device.attach({ hasFeature: () => true, queues: [] } as never);
    return device;
  },
  (device) => device.resize(100, 40),
  (device) => [...device.config(), device.guestOpen(1)],
);
