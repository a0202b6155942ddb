/** The I/O thread of the concurrency test: an instance of its own of a virtio disk over the same state and memory. */
import { workerData } from 'node:worker_threads';
import { IoMap } from '../../bus/io.ts';
import { PciBus, pciBusState, pciFunctionState } from '../../bus/pci.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import { MachineLock } from '../../memory/lock.ts';
import { fresh } from '../testing.ts';
import { VirtioBlk, virtioBlkState } from './blk.ts';
import { virtioState } from './state.ts';
import { MemoryDisk } from './testing-disk.ts';
import { VirtioPci } from './transport-pci.ts';

export interface IoThreadData {
  readonly ram: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly blk: SharedArrayBuffer;
  readonly virtio: SharedArrayBuffer;
  readonly pci: SharedArrayBuffer;
  readonly packed: boolean;
}

/** Guest memory over a buffer that another thread made. */
class SharedMemory implements GuestMemory {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  constructor(buffer: SharedArrayBuffer) {
    this.#bytes = new Uint8Array(buffer);
    this.#view = new DataView(buffer);
  }
  get ramBytes(): number {
    return this.#bytes.length;
  }
  read8(address: number): number {
    return this.#view.getUint8(address);
  }
  read16(address: number): number {
    return this.#view.getUint16(address, true);
  }
  read32(address: number): number {
    return this.#view.getUint32(address, true);
  }
  read64(address: number): number {
    return this.read32(address) + this.read32(address + 4) * 2 ** 32;
  }
  write8(address: number, value: number): void {
    this.#view.setUint8(address, value);
  }
  write16(address: number, value: number): void {
    this.#view.setUint16(address, value, true);
  }
  write32(address: number, value: number): void {
    this.#view.setUint32(address, value, true);
  }
  write64(address: number, value: number): void {
    this.write32(address, value % 2 ** 32);
    this.write32(address + 4, Math.floor(value / 2 ** 32));
  }
  read(address: number, target: Uint8Array): void {
    target.set(this.#bytes.subarray(address, address + target.length));
  }
  write(address: number, source: Uint8Array): void {
    this.#bytes.set(source, address);
  }
  view(address: number, length: number): Uint8Array {
    return this.#bytes.subarray(address, address + length);
  }
  written(): void {}
}

const { ram, words, blk, virtio, pci, packed } = workerData as IoThreadData;
const lock = new MachineLock(words, 0, 2);
const device = new VirtioBlk(virtioBlkState.at(blk, 0), {}, { ring() {} });
const bus = new PciBus(fresh(pciBusState), { ports: new IoMap('ports'), memory: new IoMap('memory'), intx: [], deliverMsi() {} });
const memory = new SharedMemory(ram);
new VirtioPci(virtioState.at(virtio, 0), pciFunctionState.at(pci, 0), device, { bus, slot: 3, memory, packed });
const disk = new MemoryDisk(1 << 20);
const locked = <T>(body: () => T): T => lock.hold(body);

Atomics.store(words, 6, 1);
for (;;) {
  const seen = Atomics.load(words, 4);
  if (Atomics.load(words, 5) !== 0) break;
  while (device.process(0, 4, disk, locked));
  Atomics.wait(words, 4, seen, 5000);
}
