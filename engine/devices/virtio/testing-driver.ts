/** A small virtio driver for tests: finds the structures as a guest does, lays rings out in guest memory, drives the registers. */
import assert from 'node:assert/strict';
import { type AccessSize, IoMap } from '../../bus/io.ts';
import { PciBus, pciBusState, pciFunctionState } from '../../bus/pci.ts';
import { fresh, PlainMemory, RecordedLine } from '../testing.ts';
import type { VirtioDevice } from './device.ts';
import { DESC_INDIRECT, DESC_NEXT, DESC_WRITE } from './queue.ts';
import { F_EVENT_IDX, F_INDIRECT_DESC, F_RING_PACKED, hasBit, type VirtioState, virtioState } from './state.ts';
import { VirtioPci, type VirtioPciOptions } from './transport-pci.ts';

const IO_BASE = 0xc000;
const MSIX_BASE = 0xe0000000;
const MODERN_BASE = 0xe0010000;

export interface Buffer {
  readonly address: number;
  readonly length: number;
  readonly write: boolean;
}

/** A machine with one virtio device at slot 3, its BARs mapped. */
export class TestMachine {
  readonly memory = new PlainMemory(16 * 2 ** 20);
  readonly ports = new IoMap('ports');
  readonly mmio = new IoMap('memory');
  readonly intx = [0, 1, 2, 3].map(() => new RecordedLine());
  readonly messages: number[] = [];
  readonly trace: string[] = [];
  readonly state: VirtioState;
  readonly pciBuffer = new SharedArrayBuffer(pciFunctionState.size);
  readonly bus: PciBus;
  readonly pci: VirtioPci;
  /** Next free byte of guest memory; rings lie above 1 MiB. */
  free = 0x200000;

  constructor(device: VirtioDevice, options: Partial<VirtioPciOptions> = {}, state = fresh(virtioState)) {
    this.state = state;
    this.bus = new PciBus(fresh(pciBusState), {
      ports: this.ports,
      memory: this.mmio,
      intx: this.intx,
      deliverMsi: (_address, data) => this.messages.push(data),
    });
    const trace = (message: string): number => this.trace.push(message);
    this.pci = new VirtioPci(state, pciFunctionState.at(this.pciBuffer, 0), device, {
      bus: this.bus,
      slot: 3,
      memory: this.memory,
      trace,
      ...options,
    });
    this.bus.reset();
    this.pci.reset();
    this.config(0x10, 4, IO_BASE);
    this.config(0x14, 4, MSIX_BASE);
    this.config(0x20, 4, MODERN_BASE);
    this.config(0x24, 4, 0);
    this.config(4, 2, 7);
    this.bus.sync();
  }

  get line(): RecordedLine {
    return this.intx[(3 + 3) & 3];
  }
  config(offset: number, size: AccessSize, value?: number): number {
    if (value !== undefined) this.pci.function.writeConfig(offset, size, value);
    return this.pci.function.readConfig(offset, size);
  }
  allocate(length: number, align = 16): number {
    const at = Math.ceil(this.free / align) * align;
    this.free = at + length;
    assert.ok(this.free <= this.memory.ramBytes, 'test guest is out of memory');
    return at;
  }
  put(data: Uint8Array): number {
    const at = this.allocate(data.length);
    this.memory.write(at, data);
    return at;
  }
  bytes(address: number, length: number): Uint8Array {
    const data = new Uint8Array(length);
    this.memory.read(address, data);
    return data;
  }
  /** Turns MSI-X on with data `0x40 + n` for vector n. */
  enableMsix(): void {
    let at = this.config(0x34, 1);
    while (at !== 0 && this.config(at, 1) !== 0x11) at = this.config(at + 1, 1);
    const vectors = (this.config(at + 2, 2) & 0x7ff) + 1;
    for (let vector = 0; vector < vectors; vector++) {
      this.mmio.write(MSIX_BASE + vector * 16, 4, 0xfee00000);
      this.mmio.write(MSIX_BASE + vector * 16 + 4, 4, 0);
      this.mmio.write(MSIX_BASE + vector * 16 + 8, 4, 0x40 + vector);
      this.mmio.write(MSIX_BASE + vector * 16 + 12, 4, 0);
    }
    this.config(at + 2, 2, 0x8000);
  }
}

/** Offsets of the modern structures in their BAR, found by the capabilities. */
export function modernStructures(machine: TestMachine): {
  common: number;
  isr: number;
  device: number;
  notify: number;
  multiplier: number;
  access: number;
} {
  const found = { common: 0, isr: 0, device: 0, notify: 0, multiplier: 0, access: 0 };
  for (let at = machine.config(0x34, 1); at !== 0; at = machine.config(at + 1, 1)) {
    if (machine.config(at, 1) !== 9) continue;
    const bar = machine.config(at + 4, 1);
    const where = MODERN_BASE + machine.config(at + 8, 4);
    const type = machine.config(at + 3, 1);
    if (type !== 5) assert.equal(bar, 4);
    if (type === 1) found.common = where;
    else if (type === 2) {
      found.notify = where;
      found.multiplier = machine.config(at + 16, 4);
    } else if (type === 3) found.isr = where;
    else if (type === 4) found.device = where;
    else if (type === 5) found.access = at;
  }
  return found;
}

/** What both drivers do with one queue. */
export class TestQueue {
  readonly desc: number;
  readonly driver: number;
  readonly device: number;
  readonly size: number;
  readonly packed: boolean;
  readonly machine: TestMachine;
  readonly features: readonly number[];
  readonly #kick: () => void;
  #next = 0;
  #wrap = 1;
  #usedAt = 0;
  #usedWrap = 1;
  #free: number[] = [];
  readonly #heads = new Map<number, number[]>();
  #id = 0;

  constructor(machine: TestMachine, size: number, features: readonly number[], kick: () => void, legacyBase?: number) {
    this.machine = machine;
    this.size = size;
    this.features = features;
    this.#kick = kick;
    this.packed = hasBit(features, F_RING_PACKED);
    const { memory } = machine;
    if (legacyBase !== undefined) {
      this.desc = legacyBase;
      this.driver = legacyBase + size * 16;
      this.device = Math.ceil((this.driver + 6 + size * 2) / 4096) * 4096;
    } else {
      this.desc = machine.allocate(size * 16);
      this.driver = machine.allocate(size * 2 + 6);
      this.device = machine.allocate(size * 8 + 8);
    }
    memory.write(this.desc, new Uint8Array(size * 16));
    memory.write(this.driver, new Uint8Array(this.packed ? 4 : size * 2 + 6));
    memory.write(this.device, new Uint8Array(this.packed ? 4 : size * 8 + 8));
    this.#free = Array.from({ length: size }, (_, i) => size - 1 - i);
  }

  /** Puts a chain in the ring; returns its id. */
  add(buffers: readonly Buffer[], indirect = false): number {
    const { memory } = this.machine;
    let list = buffers;
    let tableFlags = 0;
    if (indirect) {
      const table = this.machine.allocate(buffers.length * 16);
      buffers.forEach((buffer, i) => {
        const flags = (buffer.write ? DESC_WRITE : 0) | (i + 1 < buffers.length && !this.packed ? DESC_NEXT : 0);
        this.#descriptor(table + i * 16, buffer, flags, i + 1);
      });
      list = [{ address: table, length: buffers.length * 16, write: false }];
      tableFlags = DESC_INDIRECT;
    }
    if (this.packed) return this.#addPacked(list, tableFlags);
    const ids = list.map(() => this.#free.pop() as number);
    list.forEach((buffer, i) => {
      const flags = (buffer.write ? DESC_WRITE : 0) | (i + 1 < list.length ? DESC_NEXT : 0) | tableFlags;
      this.#descriptor(this.desc + ids[i] * 16, buffer, flags, ids[i + 1] ?? 0);
    });
    this.#heads.set(ids[0], ids);
    memory.write16(this.driver + 4 + (this.#next % this.size) * 2, ids[0]);
    this.#next = (this.#next + 1) & 0xffff;
    memory.write16(this.driver + 2, this.#next);
    return ids[0];
  }

  #descriptor(at: number, buffer: Buffer, flags: number, next: number): void {
    const { memory } = this.machine;
    memory.write64(at, buffer.address);
    memory.write32(at + 8, buffer.length);
    memory.write16(at + (this.packed ? 14 : 12), flags);
    memory.write16(at + (this.packed ? 12 : 14), next);
  }

  #addPacked(list: readonly Buffer[], extra: number): number {
    const { memory } = this.machine;
    const id = this.#id++ & 0x7fff;
    const entries: number[] = [];
    const flagsOf: number[] = [];
    list.forEach((buffer, i) => {
      const available = this.#wrap !== 0 ? 1 << 7 : 1 << 15;
      const flags = (buffer.write ? DESC_WRITE : 0) | (i + 1 < list.length ? DESC_NEXT : 0) | extra | available;
      const at = this.desc + this.#next * 16;
      memory.write64(at, buffer.address);
      memory.write32(at + 8, buffer.length);
      memory.write16(at + 12, id);
      entries.push(at);
      flagsOf.push(flags);
      if (++this.#next === this.size) {
        this.#next = 0;
        this.#wrap ^= 1;
      }
    });
    // The head last, so that the device sees the chain whole.
    for (let i = entries.length - 1; i >= 0; i--) memory.write16(entries[i] + 14, flagsOf[i]);
    this.#heads.set(id, entries);
    return id;
  }

  kick(): void {
    this.#kick();
  }

  /** Where the next chain goes: a free-running index, or a ring position and wrap counter. */
  get position(): { next: number; wrap: number } {
    return { next: this.#next, wrap: this.#wrap };
  }

  /** The next chain that the device gave back. */
  used(): { id: number; length: number } | undefined {
    const { memory } = this.machine;
    if (this.packed) {
      const at = this.desc + this.#usedAt * 16;
      const flags = memory.read16(at + 14);
      const bits = this.#usedWrap !== 0 ? 0x8080 : 0;
      if ((flags & 0x8080) !== bits) return undefined;
      const id = memory.read16(at + 12);
      const chain = this.#heads.get(id);
      assert.ok(chain, `used id ${id} that is not outstanding`);
      this.#heads.delete(id);
      this.#usedAt += chain.length;
      if (this.#usedAt >= this.size) {
        this.#usedAt -= this.size;
        this.#usedWrap ^= 1;
      }
      return { id, length: memory.read32(at + 8) };
    }
    if (memory.read16(this.device + 2) === this.#usedAt) return undefined;
    const at = this.device + 4 + (this.#usedAt % this.size) * 8;
    this.#usedAt = (this.#usedAt + 1) & 0xffff;
    const id = memory.read32(at);
    const ids = this.#heads.get(id);
    assert.ok(ids, `used id ${id} that is not outstanding`);
    this.#heads.delete(id);
    this.#free.push(...ids);
    return { id, length: memory.read32(at + 4) };
  }
  usedAll(): { id: number; length: number }[] {
    const all: { id: number; length: number }[] = [];
    for (let one = this.used(); one !== undefined; one = this.used()) all.push(one);
    return all;
  }

  /** Sends `data` and makes `room` bytes writable, kicks, and returns what the device wrote; undefined where it gave nothing back. */
  transfer(data: Uint8Array, room = 0, indirect = false): Uint8Array | undefined {
    const buffers: Buffer[] = [];
    if (data.length > 0) buffers.push({ address: this.machine.put(data), length: data.length, write: false });
    const into = room > 0 ? this.machine.put(new Uint8Array(room)) : 0;
    if (room > 0) buffers.push({ address: into, length: room, write: true });
    this.add(buffers, indirect);
    this.kick();
    const used = this.used();
    return used === undefined ? undefined : this.machine.bytes(into, Math.min(used.length, room));
  }
}

/** Whether the device wants to be notified of what was added since `before`. virtio 1.2, 2.7.10 and 2.8.10. */
export function wantsKick(queue: TestQueue, before: { next: number; wrap: number }): boolean {
  const { memory } = queue.machine;
  const { next, wrap } = queue.position;
  if (!queue.packed) {
    if (!hasBit(queue.features, F_EVENT_IDX)) return (memory.read16(queue.device) & 1) === 0;
    const event = memory.read16(queue.device + 4 + queue.size * 8);
    return ((next - event - 1) & 0xffff) < ((next - before.next) & 0xffff);
  }
  const flags = memory.read16(queue.device + 2);
  if (flags !== 2) return flags === 0;
  const where = memory.read16(queue.device);
  const event = (where & 0x7fff) - (where >> 15 !== wrap ? queue.size : 0);
  const added = next - before.next + (wrap !== before.wrap ? queue.size : 0);
  return ((next - event - 1) & 0xffff) < added;
}

/** The driver's side of the modern interface. */
export class ModernDriver {
  readonly machine: TestMachine;
  readonly at: ReturnType<typeof modernStructures>;
  features: [number, number] = [0, 0];

  constructor(machine: TestMachine) {
    this.machine = machine;
    this.at = modernStructures(machine);
  }
  read(offset: number, size: AccessSize): number {
    return this.machine.mmio.read(this.at.common + offset, size);
  }
  write(offset: number, size: AccessSize, value: number): void {
    this.machine.mmio.write(this.at.common + offset, size, value);
  }
  get status(): number {
    return this.read(20, 1);
  }
  deviceConfig(offset: number, size: AccessSize): number {
    return this.machine.mmio.read(this.at.device + offset, size);
  }
  offered(): [number, number] {
    const words: [number, number] = [0, 0];
    for (const i of [0, 1]) {
      this.write(0, 4, i);
      words[i] = this.read(4, 4);
    }
    return words;
  }
  /** Up to FEATURES_OK, with all that is offered less `without`. */
  negotiate(without: readonly number[] = []): void {
    this.write(20, 1, 0);
    this.write(20, 1, 1);
    this.write(20, 1, 3);
    this.features = this.offered();
    for (const bit of without) this.features[bit >> 5] = (this.features[bit >> 5] & ~(1 << (bit & 31))) >>> 0;
    for (const i of [0, 1]) {
      this.write(8, 4, i);
      this.write(12, 4, this.features[i]);
    }
    this.write(20, 1, 0xb);
    assert.equal(this.status & 8, 8, 'FEATURES_OK was refused');
  }
  queue(index: number, size?: number): TestQueue {
    this.write(22, 2, index);
    const chosen = size ?? this.read(24, 2);
    this.write(24, 2, chosen);
    const notify = this.at.notify + this.read(30, 2) * this.at.multiplier;
    const queue = new TestQueue(this.machine, chosen, this.features, () => this.machine.mmio.write(notify, 2, index));
    this.write(26, 2, index + 1);
    for (const [offset, address] of [
      [32, queue.desc],
      [40, queue.driver],
      [48, queue.device],
    ]) {
      this.write(offset, 4, address);
      this.write(offset + 4, 4, 0);
    }
    this.write(28, 2, 1);
    assert.equal(this.read(28, 2), 1, 'queue was refused');
    return queue;
  }
  start(): void {
    this.write(16, 2, 0);
    this.write(20, 1, 0xf);
  }
}

/** The driver's side of the legacy interface. */
export class LegacyDriver {
  readonly machine: TestMachine;
  features: [number, number] = [0, 0];
  constructor(machine: TestMachine) {
    this.machine = machine;
  }
  read(offset: number, size: AccessSize): number {
    return this.machine.ports.read(IO_BASE + offset, size);
  }
  write(offset: number, size: AccessSize, value: number): void {
    this.machine.ports.write(IO_BASE + offset, size, value);
  }
  negotiate(without: readonly number[] = []): void {
    this.write(18, 1, 0);
    this.write(18, 1, 3);
    let features = this.read(0, 4);
    for (const bit of without) features = (features & ~(1 << bit)) >>> 0;
    this.features = [features, 0];
    this.write(4, 4, features);
  }
  queue(index: number): TestQueue {
    this.write(14, 2, index);
    const size = this.read(12, 2);
    const base = this.machine.allocate(size * 32 + 8192, 4096);
    this.write(8, 4, base / 4096);
    return new TestQueue(this.machine, size, this.features, () => this.write(16, 2, index), base);
  }
  start(): void {
    this.write(18, 1, 7);
  }
}

/** The feature sets under which ring tests run. */
export const RING_VARIANTS: { name: string; options: Partial<VirtioPciOptions>; without: number[] }[] = [
  { name: 'split', options: {}, without: [F_EVENT_IDX, F_INDIRECT_DESC] },
  { name: 'split, event index', options: {}, without: [] },
  { name: 'packed', options: { packed: true }, without: [F_EVENT_IDX] },
  { name: 'packed, event index', options: { packed: true }, without: [] },
];
