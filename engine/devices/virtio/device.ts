/**
 * What a virtio device and its transport know of each other. A device class serves queues and a configuration space;
 * a transport (`transport-pci.ts`) owns status, features, queue addresses and interrupts.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import type { Chain } from './chain.ts';
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

/** Serves a queue on the spot until it is empty: `serve` returns the bytes it wrote. Then sends one interrupt if it is wanted. */
export function serveAll(transport: VirtioTransport, index: number, serve: (chain: Chain) => number): void {
  const queue = transport.queues[index];
  for (let count = 0; count < SERVE_MAX; count++) {
    const chain = queue.pop();
    if (chain === undefined) {
      queue.wantNotifications(true);
      if (queue.waiting() === 0) break;
      continue;
    }
    queue.push(chain, serve(chain));
  }
  transport.signal(index);
}
