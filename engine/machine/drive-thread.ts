/**
 * The I/O thread's end of what the control thread asks of a drive: changes of its chain, jobs, snapshots, and the state
 * of the whole machine, which goes into the image of one drive.
 *
 * The control thread posts a `DriveRequest` and rings the drive's bell; the answer is posted back. While the state of the
 * machine is written or read, the thread looks for a cancellation only.
 */
import {
  type Drive,
  type DriveDescription,
  type DriveHooks,
  type DriveOptions,
  describeSnapshot,
  type SnapshotDescription,
} from '../block/drive.ts';
import type { DriveJob, JobPlan } from '../block/drive-jobs.ts';
import { BlockError } from '../block/errors.ts';
import type { LimitValues } from '../block/limits.ts';
import type { Qcow2Node } from '../block/qcow2/node.ts';
import { applySnapshot, createSnapshot, deleteSnapshot, findSnapshot } from '../block/qcow2/snapshot.ts';
import type { DriveConfig } from '../contract/machine-config.ts';
import type { Disk } from '../devices/virtio/disk.ts';
import { Request } from './control-words.ts';
import { type DiskFailure, DriveErrors } from './drive-errors.ts';
import type { DrivePart, IoPart } from './drive-list.ts';
import type { Machine } from './machine.ts';
import { RemoteServer } from './remote-disk.ts';
import { loadState, StateError, type StateSource, saveState } from './vm-state.ts';

/** What the control thread asks for, and what it is answered. */
export interface DriveRequests {
  describe: [Record<never, never>, DriveDescription];
  resize: [{ readonly size: number }, null];
  overlay: [
    {
      readonly file: string;
      readonly format: string;
      readonly mode: 'absolute-paths' | 'existing';
      readonly nodeName: string | undefined;
    },
    null,
  ];
  medium: [{ readonly options: DriveOptions | undefined }, null];
  limits: [{ readonly values: LimitValues }, null];
  jobStart: [{ readonly plan: JobPlan }, null];
  jobAction: [{ readonly job: string; readonly action: JobAction }, null];
  /** A snapshot of the image; with `state` the machine's state goes into it. */
  snapshotCreate: [{ readonly name: string; readonly clockNs: number; readonly state: boolean }, SnapshotDescription];
  snapshotDelete: [{ readonly name: string }, null];
  snapshotApply: [{ readonly name: string }, SnapshotDescription];
  /** Loads the machine's state out of the snapshot that was applied last. */
  stateLoad: [{ readonly name: string }, null];
  flush: [Record<never, never>, null];
  /** Opens the image of a drive that was plugged in; the guest knows nothing of it yet. */
  attach: [Record<never, never>, null];
  /** Closes the image of a drive that was taken away. */
  detach: [Record<never, never>, null];
  /** The disk can be used through the buffer from now on (`remote-disk.ts`), until the same comes without one. */
  remote: [{ readonly remote: number; readonly buffer: SharedArrayBuffer | undefined }, null];
}

export type JobAction =
  | { readonly do: 'pause' | 'resume' | 'complete' }
  | { readonly do: 'cancel'; readonly force: boolean }
  | { readonly do: 'speed'; readonly speed: number };

export type DriveRequest = {
  [K in keyof DriveRequests]: { readonly id: number; readonly drive: number; readonly ask: K } & DriveRequests[K][0];
}[keyof DriveRequests];

/** From the control thread, `drive` the drive's place among the machine's; `cancel` ends the request that is being carried out. */
export type ToDrive = DriveRequest | { readonly id: number; readonly ask: 'cancel' };

/** A job, as it is told. */
export interface JobReport {
  readonly id: string;
  readonly done: number;
  readonly total: number;
  readonly ready: boolean;
  readonly paused: boolean;
  readonly ended: boolean;
  readonly cancelled: boolean;
  readonly speed: number;
  readonly error?: string;
}

export type FromDrive =
  | { readonly type: 'answer'; readonly id: number; readonly result: unknown }
  | { readonly type: 'refusal'; readonly id: number; readonly code: string; readonly message: string; readonly torn: boolean }
  | { readonly type: 'progress'; readonly id: number; readonly done: number; readonly total: number }
  | { readonly type: 'job'; readonly drive: number; readonly job: JobReport }
  /** A request of the guest failed on the host. */
  | ({ readonly type: 'error'; readonly drive: number } & DiskFailure);

export const reportOf = ({ id, done, total, ready, paused, ended, cancelled, speed, error }: DriveJob): JobReport => ({
  id,
  done,
  total,
  ready,
  paused,
  ended,
  cancelled,
  speed,
  error,
});

/** Milliseconds between two looks at whether the files are still there. */
const LOOK_MS = 1000;
/** Bytes of VM state that are written or read at once. */
const PIECE = 1 << 20;

export interface DriveThreadHost {
  openDrive(config: DriveConfig, hooks: DriveHooks): Drive;
  /** The next message of the control thread, or undefined. */
  receive(): ToDrive | undefined;
  send(message: FromDrive): void;
  log(line: string): void;
}

interface OwnDrive {
  readonly part: DrivePart;
  readonly drive: Drive;
  readonly errors: DriveErrors;
}

export class DriveThread {
  readonly #machine: Machine;
  readonly #host: DriveThreadHost;
  readonly #io: IoPart;
  readonly #drives: OwnDrive[] = [];
  readonly #waiting: DriveRequest[] = [];
  readonly #remotes = new Map<number, RemoteServer>();
  #looked = 0;

  /** Opens the images of all drives of an I/O thread; throws a `BlockError`, with nothing left open. */
  constructor(machine: Machine, io: IoPart, host: DriveThreadHost) {
    this.#machine = machine;
    this.#host = host;
    this.#io = io;
    try {
      for (const part of io.drives) this.#open(part);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #open(part: DrivePart): Drive {
    const { index, config, io } = part;
    const machine = this.#machine;
    const host = this.#host;
    const { control, shared } = machine;
    const ending = (): boolean => Atomics.load(control.ending, 0) !== 0;
    const { bell } = io.state;
    const drive = host.openDrive(config, {
      job: (job) => host.send({ type: 'job', drive: index, job: reportOf(job) }),
      sleep(milliseconds) {
        const until = performance.now() + milliseconds;
        for (let left = milliseconds; left > 0 && !ending(); left = until - performance.now())
          Atomics.wait(bell, 0, Atomics.load(bell, 0), Math.min(left, 1000));
      },
    });
    if (config.limits !== undefined) drive.setLimits(config.limits);
    const errors = new DriveErrors({
      shared,
      drive: part,
      stop: () => machine.request(Request.IO_ERROR),
      told: (failure) => host.send({ type: 'error', drive: index, ...failure }),
      wait: part.putsBack ? undefined : () => this.#waitForGoingOn(io),
    });
    part.policy = errors.policy;
    this.#drives.push({ part, drive, errors });
    return drive;
  }

  /** The image of a drive that was plugged in to the controller that this thread serves. */
  #attach(index: number): void {
    const { shared, pci } = this.#machine;
    shared.lock.hold(() => pci.sync());
    const part = this.#io.drives.find((each) => each.index === index);
    if (part === undefined) throw new BlockError('not-found', 'there is no such drive');
    const drive = this.#open(part);
    const disk = drive.options === undefined ? undefined : drive.disk;
    shared.lock.hold(() => {
      part.setDisk(disk);
      part.setFirstSize(disk?.size ?? 0);
    });
  }

  #detach(index: number): void {
    const { shared, pci } = this.#machine;
    shared.lock.hold(() => pci.sync());
    const at = this.#drives.findIndex(({ part }) => part.index === index);
    if (at < 0) throw new BlockError('not-found', 'there is no such drive');
    const [{ part, drive }] = this.#drives.splice(at, 1);
    part.setDisk(undefined);
    this.#close(part, drive);
  }

  /** What the front ends get, in the order of the I/O thread's drives; undefined where there is no medium. */
  get disks(): (Disk | undefined)[] {
    return this.#drives.map(({ drive }) => (drive.options === undefined ? undefined : drive.disk));
  }

  close(): void {
    for (const { drive, part } of this.#drives.splice(0)) this.#close(part, drive);
  }

  #close(part: DrivePart, drive: Drive): void {
    drive.close((message) => this.#host.log(`vivarium: ${part.config.file}: ${message}`));
  }

  /** In the middle of a request: until the machine was stopped and goes on. What is asked for meanwhile is done. */
  #waitForGoingOn(io: IoPart): boolean {
    const { control } = this.#machine;
    // Who stops the machine must not wait for this request.
    Atomics.store(io.state.active, 0, 0);
    for (;;) {
      const seen = Atomics.load(io.state.bell, 0);
      if (Atomics.load(control.ending, 0) !== 0) return false;
      this.work();
      Atomics.store(io.state.active, 0, 1);
      if (Atomics.load(control.running, 0) !== 0) return true;
      Atomics.store(io.state.active, 0, 0);
      Atomics.wait(io.state.bell, 0, seen, 1000);
    }
  }

  /** Carries out what was asked for and a piece of each job; returns after how many milliseconds there is more to do. */
  work(): number {
    for (;;) {
      const message = this.#waiting.shift() ?? this.#host.receive();
      if (message === undefined) break;
      if (message.ask === 'cancel') continue;
      try {
        this.#host.send({ type: 'answer', id: message.id, result: this.#carryOut(message) ?? null });
      } catch (error) {
        const { code = 'internal' } = error as { code?: string };
        const text = error instanceof BlockError || error instanceof StateError ? error.message : String((error as Error).stack);
        this.#host.send({
          type: 'refusal',
          id: message.id,
          code,
          message: text,
          torn: error instanceof StateError && error.torn,
        });
      }
    }
    for (const server of this.#remotes.values()) server.serve();
    const now = performance.now();
    if (now - this.#looked > LOOK_MS && Atomics.load(this.#machine.control.running, 0) !== 0) {
      this.#looked = now;
      this.#look();
    }
    let next = Number.POSITIVE_INFINITY;
    for (const { drive } of this.#drives) next = Math.min(next, drive.work(now));
    return next;
  }

  /** A file that was moved away or deleted would take all that is written from now on with it. */
  #look(): void {
    for (const { part, drive, errors } of this.#drives) {
      if (part.config.onWriteError !== 'stop') continue;
      const reason = drive.lost();
      if (reason !== undefined) errors.lost(reason);
    }
  }

  #carryOut(request: DriveRequest): unknown {
    if (request.ask === 'attach') return this.#attach(request.drive);
    if (request.ask === 'detach') return this.#detach(request.drive);
    const own = this.#drives.find(({ part }) => part.index === request.drive);
    if (own === undefined) throw new BlockError('not-found', 'there is no such drive');
    const { drive } = own;
    switch (request.ask) {
      case 'describe':
        return drive.describe();
      case 'resize':
        return drive.resize(request.size);
      case 'overlay':
        return drive.overlay(request.file, request.format, request.mode, request.nodeName);
      case 'medium':
        drive.setMedium(request.options);
        return own.part.setDisk(request.options === undefined ? undefined : drive.disk);
      case 'limits':
        return drive.setLimits(request.values);
      case 'jobStart':
        return drive.start(request.plan);
      case 'jobAction':
        return jobAction(drive, request.job, request.action);
      case 'snapshotCreate':
        return describeSnapshot(this.#create(drive, request));
      case 'snapshotDelete':
        return deleteSnapshot(drive.snapshots, request.name);
      case 'snapshotApply':
        return describeSnapshot(applySnapshot(drive.snapshots, request.name));
      case 'stateLoad':
        return this.#load(drive, request.id, request.name);
      case 'remote': {
        const { remote, buffer } = request;
        if (buffer === undefined) this.#remotes.delete(remote);
        else this.#remotes.set(remote, new RemoteServer(drive, buffer));
        return undefined;
      }
      case 'flush':
        return drive.disk.node === undefined || drive.disk.readOnly ? undefined : drive.disk.flush();
    }
  }

  /** Steps through the machine's state; throws where the control thread cancels. */
  #run(id: number, steps: Iterable<{ readonly done: number; readonly total: number }>, cancellable: boolean): void {
    for (const { done, total } of steps) {
      this.#host.send({ type: 'progress', id, done, total });
      for (;;) {
        const message = this.#host.receive();
        if (message === undefined) break;
        if (message.ask !== 'cancel') this.#waiting.push(message);
        else if (message.id === id && cancellable) throw new BlockError('invalid', 'it was cancelled');
      }
      if (Atomics.load(this.#machine.control.ending, 0) !== 0) throw new BlockError('io', 'the machine is ending');
    }
  }

  #create(
    drive: Drive,
    { id, name, clockNs, state }: Extract<DriveRequest, { ask: 'snapshotCreate' }>,
  ): ReturnType<typeof createSnapshot> {
    const node = drive.snapshots;
    if (!state) return createSnapshot(node, { name, vmClock: clockNs });
    node.clearVmState();
    let size = 0;
    try {
      const sink = {
        write: (data: Uint8Array): void => {
          node.writeVmState(size, data);
          size += data.length;
        },
      };
      this.#run(id, saveState(this.#machine, sink), true);
      return createSnapshot(node, { name, vmStateSize: size, vmClock: clockNs });
    } catch (error) {
      node.clearVmState();
      throw error;
    }
  }

  #load(drive: Drive, id: number, name: string): void {
    const node = drive.snapshots;
    const { vmStateSize } = findSnapshot(node, name);
    if (vmStateSize === 0) throw new StateError(`the snapshot '${name}' has no state of the machine`);
    try {
      this.#run(id, loadState(this.#machine, new VmStateSource(node, vmStateSize)), false);
    } finally {
      node.clearVmState();
    }
  }
}

function jobAction(drive: Drive, id: string, action: JobAction): void {
  const job = drive.job(id);
  switch (action.do) {
    case 'pause':
    case 'resume':
      job.pause(action.do === 'pause');
      break;
    case 'complete':
      job.complete();
      break;
    case 'cancel':
      job.cancel(action.force);
      break;
    case 'speed':
      job.setSpeed(action.speed);
  }
}

/** The VM state area of an image, read ahead in pieces. */
class VmStateSource implements StateSource {
  readonly #node: Qcow2Node;
  readonly #size: number;
  readonly #buffer = new Uint8Array(PIECE);
  #at = 0;
  #from = 0;
  #end = 0;

  constructor(node: Qcow2Node, size: number) {
    this.#node = node;
    this.#size = size;
  }

  read(data: Uint8Array): void {
    for (let done = 0; done < data.length; ) {
      if (this.#from === this.#end) {
        const left = this.#size - this.#at;
        if (left <= 0) throw new StateError('the saved state is cut off');
        // Large pieces go where they belong at once.
        const direct = Math.min(left, data.length - done);
        if (direct >= PIECE / 2) {
          this.#node.readVmState(this.#at, data.subarray(done, done + direct));
          this.#at += direct;
          done += direct;
          continue;
        }
        this.#end = Math.min(left, PIECE);
        this.#from = 0;
        this.#node.readVmState(this.#at, this.#buffer.subarray(0, this.#end));
        this.#at += this.#end;
      }
      const part = this.#buffer.subarray(this.#from, Math.min(this.#end, this.#from + data.length - done));
      data.set(part, done);
      done += part.length;
      this.#from += part.length;
    }
  }
}
