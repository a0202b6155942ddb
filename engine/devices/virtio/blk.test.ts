import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh, snapshotSuite } from '../testing.ts';
import { VirtioBlk, type VirtioBlkOptions, virtioBlkState } from './blk.ts';
import type { Locked } from './device.ts';
import { MemoryDisk } from './testing-disk.ts';
import { LegacyDriver, ModernDriver, RING_VARIANTS, TestMachine, type TestQueue } from './testing-driver.ts';
import type { VirtioPciOptions } from './transport-pci.ts';

let held = 0;
const locked: Locked = (body) => {
  held++;
  try {
    return body();
  } finally {
    held--;
  }
};

function make(options: VirtioBlkOptions = {}, pci: Partial<VirtioPciOptions> = {}, without: number[] = []) {
  const disk = new MemoryDisk(1 << 20);
  const rung: number[] = [];
  const device = new VirtioBlk(fresh(virtioBlkState), options, { ring: (queue) => rung.push(queue) });
  const machine = new TestMachine(device, pci);
  device.setSize(disk.size);
  const driver = new ModernDriver(machine);
  driver.negotiate(without);
  const queues = device.queueSizes.map((_, index) => driver.queue(index));
  driver.start();
  const work = (index = 0, budget = 1000): boolean => device.process(index, budget, disk, locked);
  return { disk, device, machine, driver, queues, rung, work };
}

function header(type: number, sector: number, rest: readonly number[] = []): Uint8Array {
  const bytes = new Uint8Array(16 + rest.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(8, sector % 2 ** 32, true);
  view.setUint32(12, Math.floor(sector / 2 ** 32), true);
  bytes.set(rest, 16);
  return bytes;
}
function range(sector: number, count: number, flags = 0): number[] {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, sector, true);
  view.setUint32(8, count, true);
  view.setUint32(12, flags, true);
  return [...bytes];
}

/** Adds a request; returns how to look at its answer after it was served. */
function submit(machine: TestMachine, queue: TestQueue, out: Uint8Array, room: number, indirect = false) {
  const into = machine.allocate(room + 1);
  machine.memory.write8(into + room, 0xee);
  queue.add(
    [
      { address: machine.put(out), length: out.length, write: false },
      ...(room > 0 ? [{ address: into, length: room, write: true }] : []),
      { address: into + room, length: 1, write: true },
    ],
    indirect,
  );
  queue.kick();
  return { data: () => machine.bytes(into, room), status: () => machine.memory.read8(into + room) };
}

for (const { name, options, without } of RING_VARIANTS) {
  test(`reads and writes over a ${name} ring`, () => {
    const { machine, queues, work, disk, rung } = make({}, options, without);
    const [queue] = queues;
    for (let round = 0; round < 60; round++) {
      const indirect = without.length === 0 && round % 2 === 0;
      const sector = (round * 13) % 2000;
      const data = Uint8Array.from({ length: 1024 }, (_, i) => i * 7 + round);
      const write = submit(machine, queue, header(1, sector, [...data]), 0, indirect);
      const read = submit(machine, queue, header(0, sector), 1024, indirect);
      assert.equal(queue.used(), undefined, 'nothing is served by the notification itself');
      assert.equal(work(), false);
      assert.deepEqual(
        queue.usedAll().map(({ length }) => length),
        [1, 1025],
      );
      assert.equal(write.status(), 0);
      assert.equal(read.status(), 0);
      assert.deepEqual(read.data(), data);
      assert.deepEqual(disk.data.slice(sector * 512, sector * 512 + 1024), data);
    }
    assert.ok(rung.length > 0);
    assert.deepEqual(machine.trace, []);
  });
}

test('a budget; interrupts are raised with the lock held and data moves without it', () => {
  const { machine, queues, work, disk } = make();
  const [queue] = queues;
  const read = disk.read.bind(disk);
  disk.read = (offset, buffer) => {
    assert.equal(held, 0);
    assert.equal(machine.state.inFlight, 1);
    read(offset, buffer);
  };
  for (let i = 0; i < 5; i++) submit(machine, queue, header(0, i), 512);
  assert.equal(work(0, 2), true);
  assert.equal(queue.usedAll().length, 2);
  assert.equal(work(0, 10), false);
  assert.equal(queue.usedAll().length, 3);
  assert.equal(machine.state.inFlight, 0);
  assert.equal(machine.line.level, true);
});

test('header and data spread over odd descriptors, and data beyond guest memory', () => {
  const { machine, queues, work } = make();
  const [queue] = queues;
  const at = machine.put(header(0, 3));
  const into = machine.allocate(600);
  queue.add([
    { address: at, length: 5, write: false },
    { address: at + 5, length: 11, write: false },
    { address: into, length: 1, write: true },
    { address: into + 1, length: 512, write: true },
  ]);
  queue.kick();
  work();
  assert.equal(queue.used()?.length, 513);
  assert.equal(machine.memory.read8(into + 512), 0);
  assert.deepEqual([...machine.bytes(into, 3)], [3, 2, 1]);
  const status = machine.allocate(1);
  machine.memory.write8(status, 9);
  queue.add([
    { address: machine.put(header(0, 0)), length: 16, write: false },
    { address: machine.memory.ramBytes - 256, length: 512, write: true },
    { address: status, length: 1, write: true },
  ]);
  queue.kick();
  work();
  assert.equal(machine.memory.read8(status), 0);
  assert.equal(machine.memory.read8(machine.memory.ramBytes - 255), 1);
});

test('flush, identification, discard, write zeroes, unknown requests', () => {
  const { machine, queues, work, disk } = make({ serial: 'a serial that is far too long' });
  const ask = (out: Uint8Array, room = 0) => {
    const request = submit(machine, queues[0], out, room);
    work();
    queues[0].usedAll();
    return request;
  };
  assert.equal(ask(header(4, 0)).status(), 0);
  assert.equal(disk.flushes, 1);
  assert.equal(new TextDecoder().decode(ask(header(8, 0), 20).data()), 'a serial that is far');
  assert.equal(ask(header(11, 0, [...range(8, 8), ...range(100, 1)])).status(), 0);
  assert.equal(ask(header(13, 0, range(4, 2, 1))).status(), 0);
  assert.deepEqual(disk.log, ['4096+4096', '51200+512', 'zero 2048+1024 unmap']);
  assert.ok(disk.data.subarray(2048, 3072).every((byte) => byte === 0));
  assert.equal(ask(header(11, 0, range(0, 1, 1))).status(), 2);
  assert.equal(ask(header(13, 0, range(0, 1, 2))).status(), 2);
  assert.equal(ask(header(11, 0, [...range(0, 1), ...range(2047, 2)])).status(), 1);
  assert.equal(ask(header(11, 0, [1, 2, 3])).status(), 1);
  assert.equal(ask(header(77, 0)).status(), 2);
  assert.equal(disk.log.length, 3);
});

test('ranges: past the end, odd lengths, far sectors; read-only; the host fails', () => {
  const { machine, queues, work, disk } = make();
  const ask = (out: Uint8Array, room = 0): number => {
    const request = submit(machine, queues[0], out, room);
    work();
    queues[0].usedAll();
    return request.status();
  };
  assert.equal(ask(header(0, 2047), 512), 0);
  assert.equal(ask(header(0, 2047), 1024), 1);
  assert.equal(ask(header(0, 2048), 512), 1);
  assert.equal(ask(header(0, 0), 100), 1);
  assert.equal(ask(header(0, 2 ** 63), 512), 1);
  assert.equal(ask(header(1, 2048, new Array(512).fill(1))), 1);
  disk.failures = 1;
  assert.equal(ask(header(0, 0), 512), 1);
  assert.equal(ask(header(0, 0), 512), 0);
  disk.readOnly = true;
  assert.equal(ask(header(1, 0, new Array(512).fill(1))), 1);
  assert.equal(ask(header(4, 0)), 0);
  assert.equal(ask(header(0, 0), 512), 0);
});

test('error policy: retry until it works, or ignore', () => {
  const answers: ('retry' | 'ignore')[] = ['retry', 'retry', 'ignore'];
  const seen: string[] = [];
  const { machine, queues, work, disk } = make({
    errorPolicy: (_error, operation) => {
      seen.push(operation);
      return answers.shift() ?? 'report';
    },
  });
  disk.failures = 2;
  const first = submit(machine, queues[0], header(0, 1), 512);
  work();
  assert.equal(first.status(), 0);
  assert.equal(first.data()[1], 0);
  disk.failures = 1;
  const second = submit(machine, queues[0], header(1, 1, new Array(512).fill(5)), 0);
  work();
  assert.equal(second.status(), 0);
  assert.deepEqual(seen, ['read', 'read', 'write']);
});

test('write-through: without FLUSH and after switching the cache off each write is flushed', () => {
  const plain = make({}, {}, [9]);
  submit(plain.machine, plain.queues[0], header(1, 0, new Array(512).fill(1)), 0);
  plain.work();
  assert.equal(plain.disk.flushes, 1);
  const cached = make();
  const write = (): void => {
    submit(cached.machine, cached.queues[0], header(1, 0, new Array(512).fill(1)), 0);
    cached.work();
  };
  write();
  assert.equal(cached.disk.flushes, 0);
  cached.machine.mmio.write(cached.driver.at.device + 32, 1, 0);
  assert.equal(cached.driver.deviceConfig(32, 1), 0);
  write();
  assert.equal(cached.disk.flushes, 1);
});

test('configuration: capacity, topology, queues; a resize interrupts and changes the generation', () => {
  const { driver, device, machine, queues } = make({
    queues: 4,
    logicalBlockSize: 512,
    physicalBlockSize: 4096,
    optIoSize: 65536,
  });
  assert.equal(driver.deviceConfig(0, 4), 2048);
  assert.equal(driver.deviceConfig(12, 4), 254);
  assert.equal(driver.deviceConfig(20, 4), 512);
  assert.equal(driver.deviceConfig(24, 1), 3);
  assert.equal(driver.deviceConfig(28, 4), 128);
  assert.equal(driver.deviceConfig(34, 2), 4);
  assert.equal(queues.length, 4);
  const generation = driver.read(21, 1);
  device.setSize(2 ** 42);
  assert.equal(driver.deviceConfig(4, 4), 2);
  assert.equal(driver.deviceConfig(0, 4), 0);
  assert.notEqual(driver.read(21, 1), generation);
  assert.equal(machine.mmio.read(driver.at.isr, 1), 2);
});

test('multi-queue: each queue has its vector', () => {
  const { machine, driver, queues, work, rung } = make({ queues: 3 });
  machine.enableMsix();
  submit(machine, queues[2], header(0, 0), 512);
  assert.deepEqual(rung, [2]);
  work(2);
  assert.deepEqual(machine.messages, [0x43]);
  assert.equal(driver.status & 0x40, 0);
});

test('a reset while a request is carried out: the driver waits, and the ring is left alone', () => {
  const { machine, driver, queues, work, disk } = make();
  const read = disk.read.bind(disk);
  disk.read = (offset, buffer) => {
    read(offset, buffer);
    driver.write(20, 1, 0);
    assert.notEqual(driver.status, 0);
  };
  submit(machine, queues[0], header(0, 0), 512);
  submit(machine, queues[0], header(0, 0), 512);
  assert.equal(work(), false);
  assert.equal(driver.status, 0);
  assert.equal(queues[0].used(), undefined);
});

test('hostile: no status byte, no header, a loop of descriptors', () => {
  for (const buffers of [
    [{ address: 0x1000, length: 16, write: false }],
    [
      { address: 0x1000, length: 8, write: false },
      { address: 0x1000, length: 1, write: true },
    ],
  ]) {
    const { driver, queues, work } = make();
    queues[0].add(buffers);
    queues[0].kick();
    work();
    assert.equal(driver.status & 0x40, 0x40);
  }
  const { machine, driver, queues, work } = make();
  submit(machine, queues[0], header(0, 0), 512);
  for (let i = 0; i < 256; i++) {
    machine.memory.write16(queues[0].desc + i * 16 + 12, 1);
    machine.memory.write16(queues[0].desc + i * 16 + 14, i ^ 1);
  }
  work();
  assert.equal(driver.status & 0x40, 0x40);
  assert.match(machine.trace[0], /longer than/);
});

test('over the legacy interface', () => {
  const disk = new MemoryDisk(65536);
  const device = new VirtioBlk(fresh(virtioBlkState), {}, { ring() {} });
  const machine = new TestMachine(device);
  device.setSize(disk.size);
  const driver = new LegacyDriver(machine);
  driver.negotiate();
  const queue = driver.queue(0);
  assert.equal(driver.read(20, 4), 128);
  machine.enableMsix();
  driver.write(22, 2, 1);
  assert.equal(driver.read(24, 4), 128, 'the configuration moves when MSI-X is on');
  const request = submit(machine, queue, header(0, 1), 512);
  device.process(0, 10, disk, locked);
  assert.equal(request.status(), 0);
  assert.deepEqual(machine.messages, [0x41]);
});

snapshotSuite(
  virtioBlkState,
  (state) => {
    const device = new VirtioBlk(state, {}, { ring() {} });
    device.attach({ configChanged() {}, hasFeature: () => true } as never);
    return device;
  },
  (device) => {
    device.setSize(12345 * 512);
    device.writeConfig(32, 1, 0);
  },
  (device) => [...device.config()],
);
