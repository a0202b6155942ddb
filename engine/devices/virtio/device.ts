/**
 * What a virtio device and its transport know of each other. A device class serves queues and a configuration space;
 * a transport (`transport-pci.ts`) owns status, features, queue addresses and interrupts.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import type { Chain } from './chain.ts';
import { PUT_BACK } from './disk.ts';
import type { VirtQueue } from './queue.ts';

/** What a transport offers to its device. All calls want the machine lock held, unless they say otherwise. */
export interface VirtioTransport {
  readonly memory: GuestMemory;
  readonly queues: readonly VirtQueue[];
  /** Whether the driver accepted feature `bit`. */
  hasFeature(bit: number): boolean;
  /** Whether the driver said DRIVER_OK and nothing is broken. */
  readonly driverOk: boolean;
  /** Sends the interrupt of queue `index` if the driver wants one for what was given back. */
  signal(index: number): void;
  /** The device's configuration space changed by the device's own doing. virtio 1.2, 2.3. */
  configChanged(): void;
  /** The driver did what cannot be gone on from: sets DEVICE_NEEDS_RESET. virtio 1.2, 2.1.2. */
  fail(reason: string): void;
  /** Counts a chain that an I/O thread took; a modern driver's reset waits for all of them. */
  began(): void;
  ended(): void;
}

/** What a device offers to its transport. The machine lock is held; nothing may throw. */
export interface VirtioDevice {
  /** As QEMU calls it, without the transport: `virtio-rng`. */
  readonly name: string;
  /** Device type. virtio 1.2, chapter 5. */
  readonly type: number;
  /** PCI device id of the transitional form, if there is one. virtio 1.2, 4.1.2.1. */
  readonly legacyId?: number;
  /** PCI class: base class, subclass, programming interface. */
  readonly classCode: number;
  /** Feature bits of the device type that are offered. */
  readonly features: readonly number[];
  /** The largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** Bytes of configuration space, or 0. */
  readonly configSize: number;
  /** The configuration space as it is now. */
  config?(): Uint8Array;
  /** A driver's write to it; `value` has `size` bytes. */
  writeConfig?(offset: number, size: number, value: number): void;
  attach(transport: VirtioTransport): void;
  /** The driver says that queue `index` has new chains. */
  notified(index: number): void;
  /** The driver said DRIVER_OK. */
  started?(): void;
  /** Back to what it is at power-on; queues were reset already. */
  reset(): void;
}

/** Wakes the I/O thread that serves a device's queue: a store and an `Atomics.notify`. */
export interface Doorbell {
  ring(queue: number): void;
}

/** Runs `body` with the machine lock held: `MachineLock.hold`. */
export type Locked = <T>(body: () => T) => T;

/** Chains that one notification makes a device serve at most; a ring holds fewer unless the driver refills it meanwhile. */
export const SERVE_MAX = 4096;

/**
 * Serves a queue on the spot until it is empty, or as long as it `may`: `serve` returns the bytes it wrote. Then sends one
 * interrupt if it is wanted.
 */
export function serveAll(
  transport: VirtioTransport,
  index: number,
  serve: (chain: Chain) => number,
  may: () => boolean = () => true,
): void {
  const queue = transport.queues[index];
  for (let count = 0; count < SERVE_MAX; count++) {
    const chain = may() ? queue.pop() : undefined;
    if (chain === undefined) {
      queue.wantNotifications(true);
      if (!may() || queue.waiting() === 0) break;
      continue;
    }
    queue.push(chain, serve(chain));
  }
  transport.signal(index);
}

/** Completions that wait for their interrupt at most, and for how long (ms), while more requests are at hand. */
const BATCH_MAX = 16;
const BATCH_MS = 0.5;

/**
 * One interrupt for several completions while an I/O thread has more to do: a guest with many requests under way is
 * interrupted less often, one with a single request at once. The lock is held in all calls.
 */
export class SignalBatch {
  readonly #transport: VirtioTransport;
  readonly #index: number;
  #owed = 0;
  #since = 0;
  constructor(transport: VirtioTransport, index: number) {
    this.#transport = transport;
    this.#index = index;
  }

  /** A chain was given back. */
  given(): void {
    const now = performance.now();
    if (this.#owed++ === 0) this.#since = now;
    if (this.#owed >= BATCH_MAX || now - this.#since >= BATCH_MS) this.send();
  }

  /** Sends what is owed. */
  send(): void {
    if (this.#owed > 0) this.#transport.signal(this.#index);
    this.#owed = 0;
  }
}

/**
 * What an I/O thread does with a queue: takes chains, carries each out without the lock, gives it back. The lock is held
 * once for each chain: to give the last back and take the next; interrupts are put together, see `SignalBatch`. `carryOut` returns the bytes it wrote and
 * throws nothing but `PUT_BACK`: then the chain is taken anew later, and serving ends. Returns whether chains may be left because the `budget` of chains was used up.
 */
export function serveOffThread(
  transport: VirtioTransport,
  locked: Locked,
  index: number,
  budget: number,
  carryOut: (chain: Chain) => number,
): boolean {
  const queue = transport.queues[index];
  if (queue === undefined) return false;
  let done: Chain | undefined;
  let written = 0;
  const batch = new SignalBatch(transport, index);
  for (let left = budget; ; left--) {
    const next: Chain | undefined = locked(() => {
      if (done !== undefined) {
        queue.push(done, written);
        batch.given();
        transport.ended();
      }
      if (left <= 0) {
        batch.send();
        return undefined;
      }
      let chain = queue.pop();
      if (chain === undefined) {
        queue.wantNotifications(true);
        chain = queue.pop(); // one may have come before the driver saw that
      }
      if (chain === undefined) {
        batch.send();
        return undefined;
      }
      queue.wantNotifications(false);
      transport.began();
      return chain;
    });
    if (next === undefined) return left <= 0;
    try {
      written = carryOut(next);
    } catch (problem) {
      if (problem !== PUT_BACK) throw problem;
      locked(() => {
        queue.unpop(next);
        batch.send();
        transport.ended();
      });
      return false;
    }
    done = next;
  }
}
