/**
 * What the machine knows of its drives, whatever controller they hang on.
 *
 * A `DrivePart` is one drive of the configuration with the front end that the guest sees. An `IoPart` is what one I/O
 * thread serves: a controller's requests, for one drive (virtio-blk, IDE, AHCI ports, NVMe, floppy) or for all the
 * drives of an adapter whose queues they share (virtio-scsi). Every thread of the process makes both from the
 * configuration, in the same order; only an I/O thread has the images (`DrivePart.disk`).
 *
 * Who takes a medium out or puts one in (`DrivePart.slot`): under the machine lock call `slot.eject`; when it says that
 * the tray is open, let the I/O thread close the image and set `disk` to undefined, then `slot.remove()`; to put one in,
 * let the I/O thread open it and set `disk`, then `slot.insert(bytes)`, which closes the tray and tells the guest.
 */
import type { DriveConfig } from '../contract/machine-config.ts';
import type { Locked } from '../devices/virtio/device.ts';
import type { Disk, DiskErrorPolicy } from '../devices/virtio/disk.ts';
import type { SharedState } from '../memory/shared-state.ts';
import { f64, i32s, struct, u32, type View } from '../memory/struct.ts';

export const driveState = struct(
  'drive',
  2,
  {
    readBytes: f64,
    writtenBytes: f64,
    readOperations: f64,
    writeOperations: f64,
    flushOperations: f64,
    readNs: f64,
    writeNs: f64,
    flushNs: f64,
    /** Requests that failed because the host did. */
    errors: u32,
  },
  'host',
);

export const ioState = struct(
  'io',
  2,
  {
    /** Rung for the I/O thread. */
    bell: i32s(1),
    /** 1 while the thread carries requests out: who stops the machine waits until it is 0. */
    active: i32s(1),
    /** 1: the thread is to end; what it serves was unplugged. */
    ended: i32s(1),
  },
  'host',
);

/** A drive whose medium can be changed. Any thread may call; the machine lock is held. */
export interface MediumSlot {
  readonly trayOpen: boolean;
  /** The guest prevents removal. */
  readonly locked: boolean;
  /** Whether there is a medium, tray open or not. */
  readonly loaded: boolean;
  /** Presses the button; returns whether the tray is open now. Where the guest prevents it, it is asked; `force` overrides. */
  eject(force: boolean): boolean;
  /** The medium is gone; the tray stays as it is. */
  remove(): void;
  /** A medium of `bytes` is in, the tray closed; the guest is told. */
  insert(bytes: number): void;
}

export interface DrivePart {
  /** Place among the machine's drives; the same on every thread. */
  readonly index: number;
  readonly config: DriveConfig;
  readonly state: View<typeof driveState.fields>;
  /** The device that the guest sees, as QMP names it: the id of `-device`, or e.g. `ide0-cd0`. */
  readonly device: string;
  readonly io: IoPart;
  /** Where the medium can be changed. */
  readonly slot: MediumSlot | undefined;
  /** The image has so many bytes: at the start and after a resize, with the machine lock held. */
  setSize(bytes: number): void;
  /** The same for a drive that is being plugged in, of which the guest does not know yet. */
  setFirstSize(bytes: number): void;
  /** On the I/O thread: the image; undefined where there is no medium. Set by `setDisk`, which puts a counter before it. */
  readonly disk: Disk | undefined;
  /** On the I/O thread: what becomes of requests that the host fails; they are reported unless this is set. */
  policy: DiskErrorPolicy | undefined;
  setDisk(disk: Disk | undefined): void;
  /** The front end puts a request back where the policy says so; else a policy that stops the machine waits for it to go on. */
  readonly putsBack: boolean;
  /** For front ends: counts a failure, and asks the policy. */
  failed: DiskErrorPolicy;
}

export interface IoPart {
  /** Place among the machine's I/O threads. */
  readonly index: number;
  readonly drives: readonly DrivePart[];
  readonly state: View<typeof ioState.fields>;
  /** On the I/O thread, without the lock: carries out some of what waits; true where there may be more at once. */
  process(locked: Locked): boolean;
  /** Wakes the I/O thread. */
  ring(): void;
}

/** What a front end says of itself. */
export interface DriveFront {
  readonly device: string;
  readonly slot?: MediumSlot;
  readonly putsBack?: boolean;
  setSize(bytes: number): void;
  /** As `setSize`, before the guest knows of the drive; that unless given. */
  setFirstSize?(bytes: number): void;
}

/** The disk, with what is read and written counted for statistics. */
class CountedDisk implements Disk {
  readonly #disk: Disk;
  readonly #state: DrivePart['state'];
  constructor(disk: Disk, state: DrivePart['state']) {
    this.#disk = disk;
    this.#state = state;
  }
  get size(): number {
    return this.#disk.size;
  }
  get readOnly(): boolean {
    return this.#disk.readOnly;
  }
  read(offset: number, buffer: Uint8Array): void {
    const start = performance.now();
    this.#disk.read(offset, buffer);
    const state = this.#state;
    state.readNs += (performance.now() - start) * 1e6;
    state.readOperations++;
    state.readBytes += buffer.length;
  }
  write(offset: number, buffer: Uint8Array): void {
    const start = performance.now();
    this.#disk.write(offset, buffer);
    const state = this.#state;
    state.writeNs += (performance.now() - start) * 1e6;
    state.writeOperations++;
    state.writtenBytes += buffer.length;
  }
  flush(): void {
    const start = performance.now();
    this.#disk.flush();
    this.#state.flushNs += (performance.now() - start) * 1e6;
    this.#state.flushOperations++;
  }
  discard(offset: number, length: number): void {
    this.#disk.discard(offset, length);
  }
  writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.#disk.writeZeroes(offset, length, unmap);
  }
}

/** The lowest number that none of them has. */
function freeIndex(taken: readonly { readonly index: number }[]): number {
  let index = 0;
  while (taken.some((each) => each.index === index)) index++;
  return index;
}

/** The drives of a machine and their I/O threads, as controllers are made. Places stay the same while others come and go. */
export class DriveList {
  readonly drives: DrivePart[] = [];
  readonly threads: IoPart[] = [];
  readonly #shared: SharedState;

  constructor(shared: SharedState) {
    this.#shared = shared;
  }

  /** An I/O thread that has no drives yet, in the first place that is free unless `index` names one. */
  thread(process: (locked: Locked) => boolean, index: number = this.freeThread): IoPart {
    const state = this.#shared.struct(ioState, `io${index}`);
    const part: IoPart = {
      index,
      drives: [],
      state,
      process,
      ring() {
        Atomics.add(state.bell, 0, 1);
        Atomics.notify(state.bell, 0);
      },
    };
    this.threads.push(part);
    return part;
  }

  get freeThread(): number {
    return freeIndex(this.threads);
  }
  get freeDrive(): number {
    return freeIndex(this.drives);
  }

  /** Forgets a drive that was unplugged. */
  removeDrive(part: DrivePart): void {
    this.drives.splice(this.drives.indexOf(part), 1);
    const own = part.io.drives as DrivePart[];
    own.splice(own.indexOf(part), 1);
  }

  /** Forgets an I/O thread that serves nothing any more. */
  removeThread(io: IoPart): void {
    this.threads.splice(this.threads.indexOf(io), 1);
  }

  /** A drive that is served by `io`, in the first place that is free unless `index` names one. */
  drive(config: DriveConfig, io: IoPart, front: DriveFront, index: number = this.freeDrive): DrivePart {
    const state = this.#shared.struct(driveState, `drive${index}`);
    let disk: Disk | undefined;
    const part: DrivePart = {
      index,
      config,
      state,
      io,
      device: front.device,
      slot: front.slot,
      putsBack: front.putsBack ?? false,
      setSize: (bytes) => front.setSize(bytes),
      setFirstSize: (bytes) => (front.setFirstSize === undefined ? front.setSize(bytes) : front.setFirstSize(bytes)),
      get disk() {
        return disk;
      },
      setDisk(next) {
        disk = next === undefined ? undefined : new CountedDisk(next, state);
      },
      policy: undefined,
      failed(error, operation) {
        state.errors++;
        return part.policy?.(error, operation) ?? 'report';
      },
    };
    this.drives.push(part);
    (io.drives as DrivePart[]).push(part);
    return part;
  }

  /** Whether an I/O thread carries a request out. */
  get busy(): boolean {
    return this.threads.some(({ state }) => Atomics.load(state.active, 0) !== 0);
  }

  ringAll(): void {
    for (const each of this.threads) each.ring();
  }
}
