import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IoMap } from '../../bus/io.ts';
import { PciBus, pciBusState, pciFunctionState } from '../../bus/pci.ts';
import { fresh, PlainMemory, snapshotSuite } from '../testing.ts';
import { VirtioRng } from './rng.ts';
import { F_RING_RESET, F_VERSION_1, hasBit, virtioState } from './state.ts';
import { random } from './testing-disk.ts';
import { LegacyDriver, ModernDriver, RING_VARIANTS, TestMachine } from './testing-driver.ts';
import { VirtioPci } from './transport-pci.ts';

const counting = (): VirtioRng => {
  let next = 1;
  return new VirtioRng((target) => {
    for (let i = 0; i < target.length; i++) target[i] = next++;
  });
};

test('identification of transitional, modern-only and legacy-only functions', () => {
  const transitional = new TestMachine(counting());
  assert.equal(transitional.config(0, 4), 0x10051af4);
  assert.equal(transitional.config(8, 1), 0);
  assert.equal(transitional.config(0x2c, 4), 0x00041af4);
  const modern = new TestMachine(counting(), { disableLegacy: true });
  assert.equal(modern.config(0, 4), 0x10441af4);
  assert.equal(modern.config(8, 1), 1);
  assert.equal(modern.config(0x10, 4), 0, 'no I/O BAR');
  const legacy = new TestMachine(counting(), { disableModern: true });
  assert.equal(legacy.config(0, 4), 0x10051af4);
  const driver = new LegacyDriver(legacy);
  assert.equal(driver.read(12, 2), 64);
  assert.throws(() => new TestMachine(counting(), { disableModern: true, disableLegacy: true }));
});

for (const { name, options, without } of RING_VARIANTS) {
  test(`entropy over a ${name} ring, many laps`, () => {
    const machine = new TestMachine(counting(), options);
    const driver = new ModernDriver(machine);
    driver.negotiate(without);
    const queue = driver.queue(0, 16);
    driver.start();
    machine.enableMsix();
    driver.write(22, 2, 0);
    driver.write(26, 2, 1);
    let expected = 1;
    for (let lap = 0; lap < 100; lap++) {
      const room = 1 + (lap % 7);
      const got = queue.transfer(new Uint8Array(0), room, without.length === 0 && lap % 3 === 0);
      assert.deepEqual(
        [...(got ?? [])],
        Array.from({ length: room }, () => expected++ & 0xff),
      );
    }
    assert.deepEqual(machine.trace, []);
    assert.ok(machine.messages.length > 0 && machine.messages.every((data) => data === 0x41), 'vector 1');
  });
}

test('a packed ring takes sizes that are no power of two, and chains that wrap', () => {
  const machine = new TestMachine(counting(), { packed: true });
  const driver = new ModernDriver(machine);
  driver.negotiate();
  const queue = driver.queue(0, 7);
  driver.start();
  for (let lap = 0; lap < 50; lap++) {
    const buffers = Array.from({ length: 1 + (lap % 5) }, () => ({ address: machine.allocate(2), length: 2, write: true }));
    queue.add(buffers);
    queue.kick();
    assert.equal(queue.used()?.length, 2 * buffers.length);
  }
});

test('legacy: INTx, ISR is cleared by reading, use before DRIVER_OK', () => {
  const machine = new TestMachine(counting());
  const driver = new LegacyDriver(machine);
  driver.negotiate();
  assert.equal(hasBit([driver.read(0, 4)], 28), true);
  const queue = driver.queue(0);
  assert.deepEqual([...(queue.transfer(new Uint8Array(0), 3) ?? [])], [1, 2, 3]);
  assert.equal(machine.line.level, true);
  assert.equal(driver.read(19, 1), 1);
  assert.equal(machine.line.level, false);
  assert.equal(driver.read(19, 1), 0);
  driver.start();
  assert.deepEqual([...(queue.transfer(new Uint8Array(0), 2) ?? [])], [4, 5]);
  driver.write(8, 4, 0);
  assert.equal(driver.read(8, 4), 0);
});

test('feature negotiation: what was not offered is refused, and so is a driver without VERSION_1', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  const [low, high] = driver.offered();
  assert.ok(hasBit([low, high], F_VERSION_1) && hasBit([low, high], F_RING_RESET));
  const attempt = (words: [number, number]): number => {
    driver.write(20, 1, 0);
    driver.write(20, 1, 3);
    for (const i of [0, 1]) {
      driver.write(8, 4, i);
      driver.write(12, 4, words[i]);
    }
    driver.write(20, 1, 0xb);
    return driver.status & 8;
  };
  assert.equal(attempt([low, high]), 8);
  assert.equal(attempt([low | 1, high]), 0);
  assert.equal(attempt([low, 0]), 0);
  driver.write(20, 1, 0xf);
  assert.equal(driver.status & 4, 0, 'no DRIVER_OK without FEATURES_OK');
});

test('queue registers: sizes, vectors out of range, writes to an enabled queue, reset of one queue, absent queues', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  driver.negotiate();
  driver.queue(0, 8);
  driver.start();
  driver.write(24, 2, 32);
  driver.write(32, 4, 0x5000);
  assert.equal(driver.read(24, 2), 8);
  assert.notEqual(driver.read(32, 4), 0x5000);
  driver.write(26, 2, 2);
  assert.equal(driver.read(26, 2), 0xffff, 'there are two vectors');
  driver.write(58, 2, 1);
  assert.equal(driver.read(28, 2), 0);
  assert.equal(driver.read(24, 2), 64);
  const again = driver.queue(0, 4);
  assert.equal(again.transfer(new Uint8Array(0), 1)?.length, 1);
  driver.write(22, 2, 5);
  assert.equal(driver.read(24, 2), 0);
  driver.write(28, 2, 1);
  assert.equal(driver.read(28, 2), 0);
  assert.equal(driver.status & 0x40, 0);
});

test('a broken ring: DEVICE_NEEDS_RESET with a configuration interrupt, quiet until the reset', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  driver.negotiate();
  const queue = driver.queue(0, 8);
  driver.start();
  machine.memory.write16(queue.driver + 2, 100);
  queue.kick();
  assert.equal(driver.status & 0x40, 0x40);
  assert.equal(machine.trace.length, 1);
  assert.equal(machine.mmio.read(driver.at.isr, 1), 2);
  queue.kick();
  assert.equal(machine.trace.length, 1);
  driver.negotiate();
  const next = driver.queue(0, 8);
  driver.start();
  assert.equal(next.transfer(new Uint8Array(0), 4)?.length, 4);
});

test('configuration-space window reads and writes the structures', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  const cap = driver.at.access;
  machine.config(cap + 4, 1, 4);
  machine.config(cap + 8, 4, 20);
  machine.config(cap + 12, 4, 1);
  machine.config(cap + 16, 4, 3);
  assert.equal(driver.status, 3);
  assert.equal(machine.config(cap + 16, 1), 3);
  machine.config(cap + 8, 4, 18);
  machine.config(cap + 12, 4, 2);
  assert.equal(machine.config(cap + 16, 2), 1, 'one queue');
  machine.config(cap + 8, 4, 0x7fffffff);
  machine.config(cap + 12, 4, 0x1234);
  machine.config(cap + 16, 4, 0xffffffff);
  assert.equal(driver.status, 3);
});

test('event index: no interrupt until the index that the driver named', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  driver.negotiate();
  const queue = driver.queue(0, 8);
  driver.start();
  machine.memory.write16(queue.driver + 4 + 16, 2); // used_event
  const isr = (): number => machine.mmio.read(driver.at.isr, 1);
  const seen: number[] = [];
  for (let i = 0; i < 4; i++) {
    queue.transfer(new Uint8Array(0), 1);
    seen.push(isr());
  }
  assert.deepEqual(seen, [0, 0, 1, 0]);
  assert.equal(machine.memory.read16(queue.device + 4 + 64), 4, 'asks for a notification of the next');
});

test('a modern driver waits for requests that are being carried out', () => {
  const machine = new TestMachine(counting());
  const driver = new ModernDriver(machine);
  driver.negotiate();
  driver.queue(0);
  driver.start();
  machine.pci.began();
  driver.write(22, 2, 0);
  driver.write(58, 2, 1);
  assert.equal(driver.read(58, 2), 1, 'the queue is still being reset');
  machine.pci.ended();
  assert.equal(driver.read(58, 2), 0);
  machine.pci.began();
  driver.write(20, 1, 0);
  assert.notEqual(driver.status, 0);
  machine.pci.ended();
  assert.equal(driver.status, 0);
});

test('hostile drivers: random registers and random rings neither throw nor run on', () => {
  for (let seed = 1; seed <= 60; seed++) {
    const pick = random(seed);
    const packed = seed % 2 === 0;
    const machine = new TestMachine(counting(), { packed });
    const driver = new ModernDriver(machine);
    driver.negotiate(packed ? [] : pick(2) === 0 ? [29] : []);
    const queue = driver.queue(0, 16);
    driver.start();
    const legacy = new LegacyDriver(machine);
    for (let step = 0; step < 300; step++) {
      switch (pick(8)) {
        case 0:
          driver.write(pick(64), ([1, 2, 4] as const)[pick(3)], pick(3) === 0 ? pick(2 ** 32) : pick(32));
          break;
        case 1:
          legacy.write(pick(64), ([1, 2, 4] as const)[pick(3)], pick(3) === 0 ? pick(2 ** 32) : pick(16));
          break;
        case 2:
          driver.read(pick(64), ([1, 2, 4] as const)[pick(3)]);
          legacy.read(pick(64), ([1, 2, 4] as const)[pick(3)]);
          break;
        case 3:
          machine.config(pick(256), ([1, 2, 4] as const)[pick(3)], pick(2 ** 32));
          break;
        case 4: {
          const at = queue.desc + pick(16) * 16;
          machine.memory.write64(at, pick(4) === 0 ? pick(2 ** 32) * 2 ** 21 : pick(2 ** 24));
          machine.memory.write32(at + 8, pick(4) === 0 ? pick(2 ** 32) : pick(4096));
          machine.memory.write32(at + 12, pick(2 ** 32));
          machine.memory.write16(at + 12, pick(8) | (pick(2) << 7) | (pick(2) << 15));
          if (packed) machine.memory.write16(at + 14, pick(8) | (pick(2) << 7) | (pick(2) << 15));
          else machine.memory.write16(at + 14, pick(20));
          break;
        }
        case 5:
          machine.memory.write16(queue.driver + pick(20) * 2, pick(20));
          break;
        default:
          queue.kick();
      }
      if ((driver.status & 0x40) !== 0 && pick(4) === 0) {
        driver.write(20, 1, 0);
        driver.write(20, 1, 3);
        driver.write(8, 4, 0);
        driver.write(12, 4, driver.features[0]);
        driver.write(8, 4, 1);
        driver.write(12, 4, driver.features[1]);
        driver.write(20, 1, 0xb);
        driver.write(22, 2, 0);
        driver.write(24, 2, 16);
        driver.write(32, 4, queue.desc);
        driver.write(40, 4, queue.driver);
        driver.write(48, 4, queue.device);
        driver.write(28, 2, 1);
        driver.write(20, 1, 0xf);
      }
    }
  }
});

snapshotSuite(
  virtioState,
  (state) => {
    const bus = new PciBus(fresh(pciBusState), {
      ports: new IoMap('ports'),
      memory: new IoMap('memory'),
      intx: [],
      deliverMsi() {},
    });
    return new VirtioPci(state, fresh(pciFunctionState), counting(), { bus, slot: 1, memory: new PlainMemory(65536) });
  },
  (pci) => {
    const handler = pci.function.spec.bars?.find((bar) => bar.index === 4)?.handler;
    handler?.write(20, 1, 3);
    handler?.write(22, 2, 0);
    handler?.write(24, 2, 16);
    handler?.write(32, 4, 0x1000);
    handler?.write(16, 2, 1);
    handler?.write(8, 4, 1);
    handler?.write(12, 4, 1);
  },
  (pci) => {
    const handler = pci.function.spec.bars?.find((bar) => bar.index === 4)?.handler;
    return Array.from({ length: 15 }, (_, i) => handler?.read(i * 4, 4));
  },
);
