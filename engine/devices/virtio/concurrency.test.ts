/** A disk served on a real thread while the driver runs on another: no request is lost, and no notification that was left out was needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { MachineLock } from '../../memory/lock.ts';
import { VirtioBlk, virtioBlkState } from './blk.ts';
import { virtioState } from './state.ts';
import { ModernDriver, RING_VARIANTS, TestMachine, wantsKick } from './testing-driver.ts';
import type { IoThreadData } from './testing-io-thread.ts';

const ROUNDS = 1500;
/** Chains of three in a ring of 16. */
const DEPTH = 5;

for (const { name, options, without } of RING_VARIANTS) {
  test(`requests served by another thread over a ${name} ring`, { timeout: 30000 }, async (context) => {
    const words = new Int32Array(new SharedArrayBuffer(64)); // 0..2 the lock, 4 doorbell, 5 stop, 6 ready
    const blk = new SharedArrayBuffer(virtioBlkState.size);
    const virtio = new SharedArrayBuffer(virtioState.size);
    let kicks = 0;
    const device = new VirtioBlk(
      virtioBlkState.at(blk, 0),
      {},
      {
        ring: () => {
          kicks++;
          Atomics.add(words, 4, 1);
          Atomics.notify(words, 4);
        },
      },
    );
    const machine = new TestMachine(device, options, virtioState.at(virtio, 0));
    const data: IoThreadData = {
      ram: machine.memory.data.buffer as SharedArrayBuffer,
      words,
      blk,
      virtio,
      pci: machine.pciBuffer,
      packed: options.packed === true,
    };
    const worker = new Worker(new URL('./testing-io-thread.ts', import.meta.url), { workerData: data });
    context.after(() => worker.terminate());
    const failed = new Promise<Error | undefined>((resolve) => {
      worker.once('error', resolve);
      worker.once('exit', () => resolve(undefined));
    });
    while (Atomics.load(words, 6) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    const lock = new MachineLock(words, 0, 1);
    device.setSize(1 << 20);
    const driver = new ModernDriver(machine);
    driver.negotiate(without);
    const queue = driver.queue(0, 16);
    driver.start();
    const memory: GuestMemory = machine.memory;

    const header = machine.put(new Uint8Array(16));
    const status = machine.allocate(DEPTH);
    const into = machine.allocate(512 * DEPTH, 512);
    let lost = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const count = 1 + (round % DEPTH);
      for (let i = 0; i < count; i++) {
        memory.write8(status + i, 0xee);
        const before = queue.position;
        queue.add([
          { address: header, length: 16, write: false },
          { address: into + 512 * i, length: 512, write: true },
          { address: status + i, length: 1, write: true },
        ]);
        Atomics.add(words, 7, 1); // the barrier that a driver has between its index and the device's wish
        if (wantsKick(queue, before)) lock.hold(() => queue.kick());
      }
      const deadline = Date.now() + 4000;
      for (let served = 0; served < count; ) {
        if (queue.used() !== undefined) served++;
        else if (Date.now() > deadline) {
          lost++;
          break;
        }
      }
      if (lost > 0) break;
      for (let i = 0; i < count; i++) assert.equal(memory.read8(status + i), 0, `round ${round} of ${count}, request ${i}`);
    }
    Atomics.store(words, 5, 1);
    Atomics.add(words, 4, 1);
    Atomics.notify(words, 4);
    assert.equal(await failed, undefined);
    assert.equal(lost, 0, 'a request was not served: a needed notification was suppressed');
    assert.ok(kicks > 0);
    assert.equal(machine.state.inFlight, 0);
    assert.deepEqual(machine.trace, []);
  });
}
