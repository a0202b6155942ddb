/**
 * Snapshots of the whole machine in its images, and its state in a file. The machine stands while one is made or loaded:
 * vCPUs parked, disks idle, nothing fed to its devices from outside.
 */
import { readStateFile, writeStateFile } from '../host/state-file.ts';
import type { BlockDrive, MigrationInfo, SnapshotOptions } from '../monitor/block-control.ts';
import { MonitorError, type RunState } from '../monitor/machine-control.ts';
import type { MachineBlock } from './block.ts';
import { driveErrors, IO_OK } from './drive-errors.ts';
import { DriveError, type Progress } from './drive-link.ts';
import type { DrivePart } from './drive-list.ts';
import type { Job } from './jobs.ts';
import type { Machine } from './machine.ts';
import { loadState, type StateProgress, saveState } from './vm-state.ts';

/** The machine as a whole, as snapshots need it. */
export interface SnapshotHost {
  status(): RunState;
  /**
   * Stops the machine, sets `state` for as long as `body` runs, and lets it go on where it ran. `after` says what it is
   * when `body` has failed: as before unless it is given.
   */
  whileStopped<T>(state: 'save-vm' | 'restore-vm', body: () => Promise<T>, after?: (error: unknown) => RunState): Promise<T>;
  /** The machine stands for good, until `cont`. */
  becomeStopped(state: RunState): void;
}

interface Chosen {
  readonly part: DrivePart;
  readonly drive: BlockDrive;
}

const CANCELLED = 'it was cancelled';

export class MachineSnapshots {
  readonly #machine: Machine;
  readonly #block: MachineBlock;
  readonly #host: SnapshotHost;
  #migration: MigrationInfo = { status: 'none', done: 0, total: 0, milliseconds: 0 };
  #cancelSave: (() => void) | undefined;
  #busy = false;

  constructor(machine: Machine, block: MachineBlock, host: SnapshotHost) {
    this.#machine = machine;
    this.#block = block;
    this.#host = host;
  }

  /** One at a time. */
  async #alone<T>(body: () => Promise<T>): Promise<T> {
    if (this.#busy) throw new MonitorError('Another snapshot or saving of the machine is under way');
    this.#busy = true;
    try {
      return await body();
    } finally {
      this.#busy = false;
    }
  }

  /** The drives that take part, the one that holds the machine's state first. */
  async #choose({ vmState, drives }: SnapshotOptions): Promise<Chosen[]> {
    const all = await this.#block.drives();
    const pair = (part: DrivePart): Chosen => ({ part, drive: all.find(({ id }) => id === part.config.id) as BlockDrive });
    const named = (name: string): Chosen => pair(this.#block.find(name));
    const chosen =
      drives === undefined
        ? this.#block.parts.map(pair).filter(({ drive }) => drive.chain.length > 0 && !drive.chain[0].readOnly && !drive.readOnly)
        : drives.map(named);
    for (const { drive } of chosen)
      if (drive.chain[0]?.format !== 'qcow2' || drive.chain[0].readOnly)
        throw new MonitorError(`Device '${drive.id}' is writable but does not support snapshots`);
    const first = vmState === undefined ? chosen[0] : named(vmState);
    if (first === undefined) throw new MonitorError('No block device can accept snapshots');
    if (first.drive.chain[0]?.format !== 'qcow2')
      throw new MonitorError(`vmstate block device '${vmState}' does not support snapshots`);
    return [first, ...chosen.filter(({ part }) => part !== first.part)];
  }

  #has({ drive }: Chosen, tag: string): boolean {
    return drive.chain[0].snapshots.some(({ name, id }) => name === tag || id === tag);
  }

  async save(tag: string, options: SnapshotOptions, progress?: Progress, cancel?: (cancel: () => void) => void): Promise<void> {
    await this.#alone(async () => {
      if (tag === '') throw new MonitorError('A snapshot has a name');
      const chosen = await this.#choose(options);
      const there = chosen.filter((each) => this.#has(each, tag));
      if (there.length > 0 && options.replace !== true)
        throw new MonitorError(`Snapshot '${tag}' already exists in one or more devices`);
      for (const part of this.#block.parts)
        if (!part.putsBack && driveErrors(this.#machine.shared, part).ioStatus !== IO_OK)
          throw new MonitorError(`A request to drive '${part.config.id}' waits for an error of the host to be mended`);
      const { links } = this.#block;
      await this.#host.whileStopped('save-vm', async () => {
        for (const part of this.#block.parts) await links.ask(part.index, 'flush', {});
        for (const { part } of there) await links.ask(part.index, 'snapshotDelete', { name: tag });
        const clockNs = Math.floor(this.#machine.clock.now());
        const done: DrivePart[] = [];
        try {
          for (const [n, { part }] of chosen.entries()) {
            const state = n === 0;
            await links.ask(
              part.index,
              'snapshotCreate',
              { name: tag, clockNs, state },
              state ? progress : undefined,
              state ? cancel : undefined,
            );
            done.push(part);
          }
        } catch (error) {
          for (const part of done) await links.ask(part.index, 'snapshotDelete', { name: tag }).catch(() => {});
          throw error;
        }
      });
    });
  }

  async load(tag: string, options: SnapshotOptions, progress?: Progress): Promise<void> {
    await this.#alone(async () => {
      const chosen = await this.#choose(options);
      for (const each of chosen)
        if (!this.#has(each, tag)) throw new MonitorError(`Snapshot '${tag}' does not exist in device '${each.drive.id}'`);
      const size = chosen[0].drive.chain[0].snapshots.find(({ name, id }) => name === tag || id === tag)?.vmStateSize ?? 0;
      if (size === 0)
        throw new MonitorError(
          `Snapshot '${tag}' of device '${chosen[0].drive.id}' has no state of the machine: revert to it offline with 'vivarium img snapshot -a'`,
        );
      const { links } = this.#block;
      await this.#host.whileStopped(
        'restore-vm',
        async () => {
          for (const { part } of chosen) await links.ask(part.index, 'snapshotApply', { name: tag });
          await links.ask(chosen[0].part.index, 'stateLoad', { name: tag }, progress);
        },
        (error) => (error instanceof DriveError && error.torn ? 'internal-error' : 'paused'),
      );
      this.#block.goesOn();
    });
  }

  async delete(tag: string, options: SnapshotOptions): Promise<void> {
    await this.#alone(async () => {
      const chosen = (await this.#choose(options)).filter((each) => this.#has(each, tag));
      if (chosen.length === 0) throw new MonitorError(`Snapshot '${tag}' does not exist`);
      for (const { part } of chosen) await this.#block.links.ask(part.index, 'snapshotDelete', { name: tag });
    });
  }

  /** The same in the background, as a job that is dismissed by whoever started it. */
  startJob(kind: 'save' | 'load' | 'delete', id: string, tag: string, options: SnapshotOptions): void {
    const table = this.#block.jobTable;
    let cancel: (() => void) | undefined;
    const job: Job = table.add({
      id,
      type: `snapshot-${kind}`,
      drive: undefined,
      autoDismiss: false,
      speed: 0,
      ...(kind === 'save' ? { cancel: () => cancel?.() } : {}),
    });
    const progress: Progress = (done, total) => {
      job.done = done;
      job.total = total;
    };
    table.begin(job);
    const take = (given: () => void): void => {
      cancel = given;
    };
    const run =
      kind === 'save'
        ? this.save(tag, options, progress, take)
        : kind === 'load'
          ? this.load(tag, options, progress)
          : this.delete(tag, options);
    run.then(
      () => table.end(job, undefined, false),
      (error: Error) => table.end(job, error.message, error.message === CANCELLED),
    );
  }

  // --- a file of its own ----------------------------------------------------------------------------------------------

  get migration(): MigrationInfo {
    return this.#migration;
  }

  cancelSave(): void {
    this.#cancelSave?.();
  }

  /** Goes through `steps`, letting others on this thread go on in between. */
  async #walk(steps: Iterable<StateProgress>): Promise<void> {
    let cancelled = false;
    this.#cancelSave = () => {
      cancelled = true;
    };
    const { control } = this.#machine;
    const started = performance.now();
    try {
      for (const { done, total } of steps) {
        this.#migration = { status: 'active', done, total, milliseconds: Math.round(performance.now() - started) };
        await new Promise((resolve) => setImmediate(resolve));
        if (cancelled) throw new MonitorError(CANCELLED);
        if (Atomics.load(control.ending, 0) !== 0) throw new MonitorError('the machine is ending');
      }
      this.#migration = { ...this.#migration, status: 'completed', milliseconds: Math.round(performance.now() - started) };
    } catch (error) {
      const { message } = error as Error;
      this.#migration = { ...this.#migration, status: cancelled ? 'cancelled' : 'failed', error: message };
      throw error;
    } finally {
      this.#cancelSave = undefined;
    }
  }

  /** The machine stands after it, as `postmigrate`: what it writes from now on would not fit what was saved. */
  async saveFile(path: string): Promise<void> {
    await this.#alone(async () => {
      for (const part of this.#block.parts)
        if (!part.putsBack && driveErrors(this.#machine.shared, part).ioStatus !== IO_OK)
          throw new MonitorError(`A request to drive '${part.config.id}' waits for an error of the host to be mended`);
      const file = writeStateFile(path);
      try {
        await this.#host.whileStopped('save-vm', async () => {
          for (const part of this.#block.parts) await this.#block.links.ask(part.index, 'flush', {});
          await this.#walk(saveState(this.#machine, file));
          file.finish();
          this.#host.becomeStopped('postmigrate');
        });
      } catch (error) {
        file.abandon();
        throw error;
      }
    });
  }

  async loadFile(path: string): Promise<void> {
    await this.#alone(async () => {
      const file = readStateFile(path);
      try {
        await this.#host.whileStopped(
          'restore-vm',
          () => this.#walk(loadState(this.#machine, file)),
          (error) => ((error as { torn?: boolean }).torn === true ? 'internal-error' : 'paused'),
        );
      } finally {
        file.close();
      }
    });
  }
}
