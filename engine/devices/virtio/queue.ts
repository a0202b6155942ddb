/**
 * A virtqueue as the device sees it, split or packed as was negotiated. virtio 1.2, 2.6 to 2.8.
 *
 * All indexes, lengths and addresses come from the guest. Each is checked before use, each loop is bounded by the
 * queue size, and what makes no sense calls `broken`, after which the queue gives nothing more until a reset.
 * Everything that outlives a call lies in the state struct; the views kept here are a cache of this thread.
 *
 * All methods want the machine lock held.
 */
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { CHAIN_BUFFERS_MAX, Chain } from './chain.ts';
import { RingMemory } from './ring-memory.ts';
import {
  F_EVENT_IDX,
  F_INDIRECT_DESC,
  F_RING_PACKED,
  F_VERSION_1,
  hasBit,
  STATUS_DRIVER_OK,
  STATUS_NEEDS_RESET,
  type VirtioState,
} from './state.ts';

/** Descriptor flags. virtio 1.2, 2.7.5 and 2.8.1. */
export const DESC_NEXT = 1;
export const DESC_WRITE = 2;
export const DESC_INDIRECT = 4;
const DESC_AVAIL = 1 << 7;
const DESC_USED = 1 << 15;
export const DESC_BYTES = 16;

/** Split rings: the driver wants no interrupts, the device wants no notifications. virtio 1.2, 2.7.7, 2.7.10. */
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;
/** Packed rings' event suppression: always, never, at a given descriptor. virtio 1.2, 2.8.10. */
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;

/** True where index `event` lies among the last `count` steps to `index`. virtio 1.2, 2.7.10.1. */
const crossed = (event: number, index: number, count: number): boolean => ((index - event - 1) & 0xffff) < count;

export class VirtQueue {
  readonly index: number;
  /** The size that is offered and the largest that the driver may choose. */
  readonly maxSize: number;
  readonly #s: VirtioState;
  readonly #memory: GuestMemory;
  readonly #broken: (reason: string) => void;
  // This thread's views, valid while the addresses and the size are those in the struct.
  #desc: RingMemory | undefined;
  #driver: RingMemory | undefined;
  #device: RingMemory | undefined;
  #size = 0;
  #packed = false;

  constructor(state: VirtioState, index: number, maxSize: number, memory: GuestMemory, broken: (reason: string) => void) {
    this.index = index;
    this.maxSize = maxSize;
    this.#s = state;
    this.#memory = memory;
    this.#broken = broken;
  }

  #address(words: Uint32Array): number {
    return words[this.index * 2] + words[this.index * 2 + 1] * 2 ** 32;
  }
  get packed(): boolean {
    return hasBit(this.#s.driverFeatures, F_RING_PACKED);
  }
  get size(): number {
    return this.#s.queueSize[this.index];
  }

  /** Registers as after a reset of the device. */
  reset(): void {
    const s = this.#s;
    const i = this.index;
    s.queueSize[i] = this.maxSize;
    s.queueEnabled[i] = 0;
    s.queueResets[i] = 0;
    s.queueEpoch[i]++;
    for (const words of [s.queueDesc, s.queueDriver, s.queueDevice]) words.fill(0, i * 2, i * 2 + 2);
    s.nextAvail[i] = 0;
    s.nextUsed[i] = 0;
    s.wrap[i] = 3;
    s.unsignalled[i] = 0;
  }

  /** Checks the addresses and the size and puts the queue to work. virtio 1.2, 2.7, 2.8.4 and 4.1.4.3.2. */
  enable(): void {
    const s = this.#s;
    const size = this.size;
    if (size === 0 || size > this.maxSize) return this.#broken(`queue ${this.index}: size ${size}`);
    if (!this.packed && (size & (size - 1)) !== 0) return this.#broken(`queue ${this.index}: size ${size} is no power of two`);
    const aligned = (words: Uint32Array, align: number): boolean =>
      words[this.index * 2] % align === 0 && words[this.index * 2 + 1] < 2 ** 19;
    if (!aligned(s.queueDesc, 16) || !aligned(s.queueDriver, this.packed ? 4 : 2) || !aligned(s.queueDevice, 4))
      return this.#broken(`queue ${this.index}: bad address`);
    s.queueEnabled[this.index] = 1;
    s.queueResets[this.index] = 0;
  }

  /** Whether the device may use the queue now. A legacy driver may use it before DRIVER_OK. virtio 1.2, 3.1.2. */
  get ready(): boolean {
    const s = this.#s;
    if (s.queueEnabled[this.index] === 0 || (s.status & STATUS_NEEDS_RESET) !== 0) return false;
    return (s.status & STATUS_DRIVER_OK) !== 0 || !hasBit(s.driverFeatures, F_VERSION_1);
  }

  /** Brings this thread's views up to date. */
  #map(): void {
    const s = this.#s;
    const desc = this.#address(s.queueDesc);
    const driver = this.#address(s.queueDriver);
    const device = this.#address(s.queueDevice);
    const { size, packed } = this;
    if (
      this.#desc?.address === desc &&
      this.#driver?.address === driver &&
      this.#device?.address === device &&
      this.#size === size &&
      this.#packed === packed
    )
      return;
    this.#size = size;
    this.#packed = packed;
    this.#desc = new RingMemory(this.#memory, desc, size * DESC_BYTES);
    this.#driver = new RingMemory(this.#memory, driver, packed ? 4 : 6 + size * 2);
    this.#device = new RingMemory(this.#memory, device, packed ? 4 : 8 + size * 8);
  }

  #fail(reason: string): undefined {
    this.#broken(`queue ${this.index}: ${reason}`);
    return undefined;
  }

  /** How many chains wait, as far as one look tells: exact for split rings, 0 or 1 for packed ones; 0 where the ring is broken. */
  waiting(): number {
    if (!this.ready) return 0;
    this.#map();
    const s = this.#s;
    const i = this.index;
    if (this.#packed) return this.#packedReady() ? 1 : 0;
    const count = (this.#driver!.load16(2) - s.nextAvail[i]) & 0xffff;
    if (count <= this.#size) return count;
    this.#fail(`available index ${count} ahead of a queue of ${this.#size}`);
    return 0;
  }

  /** Takes the next chain, or undefined where there is none or the ring is broken. */
  pop(): Chain | undefined {
    if (this.waiting() === 0) return undefined;
    const chain = this.#packed ? this.#popPacked() : this.#popSplit();
    if (chain !== undefined) chain.epoch = this.#s.epoch * 0x10000 + this.#s.queueEpoch[this.index];
    return chain;
  }

  /** Puts the chain that was taken last back, to be taken again later: a back end is full. */
  unpop(chain: Chain): void {
    if (!this.current(chain)) return;
    const s = this.#s;
    const i = this.index;
    if (!this.packed) {
      s.nextAvail[i]--;
      return;
    }
    if (chain.entries > s.nextAvail[i]) s.wrap[i] ^= 1;
    s.nextAvail[i] = (s.nextAvail[i] - chain.entries + this.size) % this.size;
  }

  /** Whether no reset came since the chain was taken. */
  current(chain: Chain): boolean {
    return chain.epoch === this.#s.epoch * 0x10000 + this.#s.queueEpoch[this.index];
  }

  // Split rings. virtio 1.2, 2.7.

  #popSplit(): Chain | undefined {
    const s = this.#s;
    const i = this.index;
    const size = this.#size;
    const head = this.#driver!.get16(4 + (s.nextAvail[i] & (size - 1)) * 2);
    if (head >= size) return this.#fail(`available head ${head}`);
    const chain = new Chain(this.#memory);
    chain.id = head;
    const wrong = this.#walk(chain, this.#desc!, size, head, hasBit(s.driverFeatures, F_INDIRECT_DESC));
    if (wrong !== undefined) return this.#fail(wrong);
    s.nextAvail[i]++;
    return chain;
  }

  /** Follows a chain through a table; returns what is wrong with it. */
  #walk(chain: Chain, table: RingMemory, size: number, head: number, indirect: boolean): string | undefined {
    let at = head;
    for (let count = 0; ; count++) {
      if (count >= size) return 'chain longer than its table';
      const offset = at * DESC_BYTES;
      const address = table.get64(offset);
      const length = table.get32(offset + 8);
      const flags = table.get16(offset + 12);
      if ((flags & DESC_INDIRECT) !== 0) {
        // Neither nested nor followed by another. virtio 1.2, 2.7.5.3.1.
        if (!indirect) return 'indirect descriptor where none may be';
        if ((flags & DESC_NEXT) !== 0) return 'indirect descriptor with a successor';
        const inner = this.#indirect(address, length);
        return inner === undefined
          ? 'bad indirect table'
          : this.#walk(chain, inner, Math.min(inner.length / DESC_BYTES, CHAIN_BUFFERS_MAX), 0, false);
      }
      const wrong = chain.add(address, length, (flags & DESC_WRITE) !== 0);
      if (wrong !== undefined) return wrong;
      if ((flags & DESC_NEXT) === 0) return undefined;
      at = table.get16(offset + 14);
      if (at >= size) return `descriptor ${at} of ${size}`;
    }
  }

  #indirect(address: number, length: number): RingMemory | undefined {
    if (length === 0 || length % DESC_BYTES !== 0 || length / DESC_BYTES > 0x8000 || address + length > 2 ** 52) return undefined;
    return new RingMemory(this.#memory, address, length);
  }

  // Packed rings. virtio 1.2, 2.8.

  /** Whether the entry at `nextAvail` is available: its AVAIL bit equals the wrap counter and its USED bit does not. */
  #packedReady(): boolean {
    const s = this.#s;
    const flags = this.#desc!.load16(s.nextAvail[this.index] * DESC_BYTES + 14);
    const wrap = (s.wrap[this.index] & 1) !== 0;
    return ((flags & DESC_AVAIL) !== 0) === wrap && ((flags & DESC_USED) !== 0) !== wrap;
  }

  #popPacked(): Chain | undefined {
    const s = this.#s;
    const i = this.index;
    const size = this.#size;
    const table = this.#desc!;
    const chain = new Chain(this.#memory);
    let at: number = s.nextAvail[i];
    let count = 0;
    for (;;) {
      if (count >= size) return this.#fail('chain longer than the ring');
      const offset = at * DESC_BYTES;
      const flags = table.get16(offset + 14);
      const address = table.get64(offset);
      const length = table.get32(offset + 8);
      count++;
      if (++at === size) at = 0;
      if ((flags & DESC_INDIRECT) !== 0) {
        if (!hasBit(s.driverFeatures, F_INDIRECT_DESC) || count > 1 || (flags & DESC_NEXT) !== 0)
          return this.#fail('indirect descriptor where none may be');
        const inner = this.#indirect(address, length);
        if (inner === undefined) return this.#fail('bad indirect table');
        // The table's entries follow each other; only the WRITE flag means something. virtio 1.2, 2.8.7.
        for (let entry = 0; entry < inner.length; entry += DESC_BYTES) {
          const wrong = chain.add(inner.get64(entry), inner.get32(entry + 8), (inner.get16(entry + 14) & DESC_WRITE) !== 0);
          if (wrong !== undefined) return this.#fail(wrong);
        }
      } else {
        const wrong = chain.add(address, length, (flags & DESC_WRITE) !== 0);
        if (wrong !== undefined) return this.#fail(wrong);
      }
      if ((flags & DESC_NEXT) === 0) {
        chain.id = table.get16(offset + 12);
        break;
      }
    }
    chain.entries = count;
    if (at <= s.nextAvail[i]) s.wrap[i] ^= 1;
    s.nextAvail[i] = at;
    return chain;
  }

  // Giving back.

  /** Gives a chain back with `written` bytes stored in its writable part. A chain from before a reset is dropped. */
  push(chain: Chain, written: number): void {
    const s = this.#s;
    const i = this.index;
    if (!this.current(chain) || !this.ready) return;
    this.#map();
    const device = this.#device!;
    if (this.#packed) {
      const table = this.#desc!;
      const at = s.nextUsed[i];
      const offset = at * DESC_BYTES;
      table.set32(offset + 8, written);
      table.set16(offset + 12, chain.id);
      // The flags make it visible, so they go last. virtio 1.2, 2.8.21.1.
      const bits = (s.wrap[i] & 2) !== 0 ? DESC_AVAIL | DESC_USED : 0;
      table.store16(offset + 14, bits | (written > 0 ? DESC_WRITE : 0));
      const next = at + chain.entries;
      if (next >= this.#size) s.wrap[i] ^= 2;
      s.nextUsed[i] = next >= this.#size ? next - this.#size : next;
    } else {
      const entry = 4 + (s.nextUsed[i] & (this.#size - 1)) * 8;
      device.set32(entry, chain.id);
      device.set32(entry + 4, written);
      s.nextUsed[i]++;
      device.store16(2, s.nextUsed[i]);
    }
    s.unsignalled[i] = Math.min(0xffff, s.unsignalled[i] + chain.entries);
  }

  /** Whether the driver wants an interrupt for what was given back since the last call. virtio 1.2, 2.7.7, 2.8.10. */
  takeSignal(): boolean {
    const s = this.#s;
    const i = this.index;
    const count = s.unsignalled[i];
    if (count === 0 || !this.ready) return false;
    s.unsignalled[i] = 0;
    this.#map();
    const driver = this.#driver!;
    if (this.#packed) {
      const flags = driver.load16(2) & 3;
      if (flags !== EVENT_DESC || !hasBit(s.driverFeatures, F_EVENT_IDX) || count >= this.#size) return flags !== EVENT_DISABLE;
      const where = driver.load16(0);
      const wrap = (s.wrap[i] >> 1) & 1;
      const event = (where & 0x7fff) - (where >> 15 !== wrap ? this.#size : 0);
      return crossed(event, s.nextUsed[i], count);
    }
    if (hasBit(s.driverFeatures, F_EVENT_IDX)) return crossed(driver.load16(4 + this.#size * 2), s.nextUsed[i], count);
    return (driver.load16(0) & NO_INTERRUPT) === 0;
  }

  /**
   * Asks the driver for notifications of new chains, or says that they are not needed while the device looks by itself.
   * After asking, look once more: a chain may have come before the driver saw it. virtio 1.2, 2.7.10.
   */
  wantNotifications(want: boolean): void {
    if (!this.ready) return;
    this.#map();
    const s = this.#s;
    const i = this.index;
    const device = this.#device!;
    const event = hasBit(s.driverFeatures, F_EVENT_IDX);
    if (this.#packed) {
      if (want && event) {
        device.store16(0, s.nextAvail[i] | ((s.wrap[i] & 1) << 15));
        device.store16(2, EVENT_DESC);
      } else device.store16(2, want ? EVENT_ENABLE : EVENT_DISABLE);
    } else if (event) {
      // An index that is left behind is as good as none.
      if (want) device.store16(4 + this.#size * 8, s.nextAvail[i]);
    } else device.store16(0, want ? 0 : NO_NOTIFY);
  }
}
