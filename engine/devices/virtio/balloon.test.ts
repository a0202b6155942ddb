import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock, fresh, snapshotSuite } from '../testing.ts';
import { VirtioBalloon, virtioBalloonState } from './balloon.ts';
import { ModernDriver, RING_VARIANTS, TestMachine } from './testing-driver.ts';
import type { VirtioPciOptions } from './transport-pci.ts';

const MIB = 2 ** 20;

function make(pci: Partial<VirtioPciOptions> = {}, without: number[] = []) {
  const clock = new FakeClock();
  const log: string[] = [];
  const device = new VirtioBalloon(fresh(virtioBalloonState), {
    clock,
    reporting: true,
    release: (address, length) => log.push(`release ${address / 4096}+${length / 4096}`),
    reclaim: (address, length) => log.push(`reclaim ${address / 4096}+${length / 4096}`),
    changed: (bytes) => log.push(`memory ${bytes / MIB}`),
  });
  const machine = new TestMachine(device, pci);
  const driver = new ModernDriver(machine);
  driver.negotiate(without);
  const queues = [0, 1, 2, 3].map((index) => driver.queue(index, 16));
  driver.start();
  return { clock, log, device, machine, driver, queues };
}
const pages = (...numbers: number[]): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer);
function figures(...values: [number, bigint][]): Uint8Array {
  const bytes = new Uint8Array(values.length * 10);
  const view = new DataView(bytes.buffer);
  values.forEach(([tag, value], i) => {
    view.setUint16(i * 10, tag, true);
    view.setBigUint64(i * 10 + 2, value, true);
  });
  return bytes;
}

for (const { name, options, without } of RING_VARIANTS) {
  test(`inflate, deflate, report over a ${name} ring`, () => {
    const { machine, queues, log } = make(options, without);
    queues[0].transfer(pages(1000, 1001, 1002, 50, 49, 48, 0xffffffff, 1003));
    assert.deepEqual(log.splice(0), ['release 1000+3', 'release 48+3', 'release 1003+1']);
    queues[1].transfer(pages(1001));
    assert.deepEqual(log.splice(0), ['reclaim 1001+1']);
    queues[3].add([
      { address: 8 * MIB, length: 2 * MIB, write: true },
      { address: 12 * MIB + 5, length: 8192, write: true },
      { address: 15 * MIB, length: 2 * MIB, write: true },
    ]);
    queues[3].kick();
    assert.deepEqual(log.splice(0), ['release 2048+512', 'release 3073+1']);
    assert.equal(queues[3].usedAll().length, 1);
    assert.deepEqual(machine.trace, []);
  });

  test(`statistics over a ${name} ring: the buffer goes round when they are asked for`, () => {
    const { machine, queues, device, clock } = make(options, without);
    const [, , queue] = queues;
    const give = (data: Uint8Array): void => {
      queue.add([{ address: machine.put(data), length: data.length, write: false }]);
      queue.kick();
    };
    assert.deepEqual(device.statistics(), { updated: 0, stats: {} });
    give(figures([4, 1000n], [5, 2n ** 40n], [6, 0xffffffffffffffffn], [99, 1n]));
    assert.deepEqual(device.statistics().stats, { 'stat-free-memory': 1000, 'stat-total-memory': 2 ** 40 });
    assert.equal(queue.used(), undefined);
    device.setPolling(2);
    clock.advance(1);
    assert.ok(queue.used());
    clock.advance(2e9);
    assert.equal(queue.used(), undefined, 'the driver has the buffer');
    give(figures([4, 999n]));
    assert.deepEqual(device.statistics().stats, { 'stat-free-memory': 999 });
    clock.advance(2e9);
    assert.ok(queue.used());
    device.setPolling(0);
    give(figures([4, 998n]));
    clock.advance(10e9);
    assert.equal(queue.used(), undefined);
  });
}

test('a target interrupts and shows in the configuration; the driver answers with what it gave', () => {
  const { device, driver, machine, log } = make();
  device.setTarget(12 * MIB);
  assert.equal(machine.mmio.read(driver.at.isr, 1), 2);
  assert.equal(driver.deviceConfig(0, 4), 1024);
  machine.mmio.write(driver.at.device + 4, 4, 512);
  assert.equal(driver.deviceConfig(4, 4), 512);
  assert.equal(device.memory(), 14 * MIB);
  assert.deepEqual(log, ['memory 14']);
  device.setTarget(1e15);
  assert.equal(driver.deviceConfig(0, 4), 0);
});

test('without statistics the queue of reports is the third', () => {
  const { queues, log } = make({}, [1]);
  queues[2].add([{ address: MIB, length: 4096, write: true }]);
  queues[2].kick();
  assert.deepEqual(log, ['release 256+1']);
});

test('hostile: a list of a gigabyte', () => {
  const { driver, queues } = make();
  queues[0].add([{ address: 0, length: 2 ** 30, write: false }]);
  queues[0].kick();
  assert.equal(driver.status & 0x40, 0x40);
});

snapshotSuite(
  virtioBalloonState,
  (state, clock) => {
    const device = new VirtioBalloon(state, { clock });
    device.attach({ memory: { ramBytes: 64 * MIB }, configChanged() {} } as never);
    return device;
  },
  (device) => {
    device.setTarget(32 * MIB);
    device.writeConfig(4, 4, 77);
  },
  (device) => [...device.config(), device.memory(), device.statistics()],
);
