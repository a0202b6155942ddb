/**
 * The VMs: their definitions from the library, their runs, their summaries. Every change is told by `vm.changed`.
 * Operations on one VM that change its run or its definition come one after another.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rename, rm, stat } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { isAbsolute, join } from 'node:path';
import type { DriveConfig, MachineConfig } from '../../engine/contract/index.ts';
import {
  AppError,
  envelopeOf,
  type Settings,
  type StatsHistory,
  type UndoToken,
  type VmChanges,
  type VmDefinition,
  type VmDetails,
  type VmDrive,
  type VmProblem,
  type VmState,
  type VmSummary,
} from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';
import { freeMemoryMiB, totalMemoryMiB } from '../host/capabilities.ts';
import { reasonOf } from '../host/files.ts';
import type { TaskReport } from '../tasks/tasks.ts';
import { checkInitrd, checkKernel } from './boot-files.ts';
import { History } from './history.ts';
import type { Launcher, PortMessage } from './launcher.ts';
import type { Library } from './library.ts';
import { LogFile } from './log-file.ts';
import { type FirmwareFiles, machineConfig } from './machine-config.ts';
import { Sampler } from './sampler.ts';
import { VmRun } from './vm-run.ts';

/** Memory that a VM takes beside its RAM, and that the host is left with, in MiB. */
const overheadMiB = 128;
const crashLogLines = 30;

export interface VmServiceOptions {
  readonly library: Library;
  readonly launcher: Launcher;
  readonly bus: EventBus;
  readonly settings: () => Settings;
  readonly firmware?: FirmwareFiles;
  /** Milliseconds between samples and between pictures; 1000 and 3000 unless given. */
  readonly sampleMs?: number;
  readonly pictureMs?: number;
  /** For messages that no window waits for. */
  readonly notify: (level: 'info' | 'warning' | 'error', title: string, detail: string, vm: string) => void;
}

interface Entry {
  readonly id: string;
  readonly log: LogFile;
  readonly history: History;
  run: VmRun | undefined;
  sampler: Sampler | undefined;
  problem: VmProblem | null;
  thumbnailVersion: number | null;
  /** The definition the present run began with, as JSON. */
  startedWith: string | undefined;
  /** What its machine was when it was saved lies in its folder. */
  saved: boolean;
  queue: Promise<unknown>;
}

export interface StartOptions {
  readonly paused?: boolean;
  /** Go on from this snapshot's state. */
  readonly snapshot?: string;
}

/** Rejects where a file cannot be a medium. */
async function checkMedium(file: string): Promise<void> {
  if (!isAbsolute(file)) throw new AppError('invalid', 'Give the whole path, from the root', { field: 'file' });
  const found = await stat(file).catch((error: unknown) => {
    throw new AppError('file-missing', `${file}: ${reasonOf(error)}`, { field: 'file' });
  });
  if (found.isDirectory()) throw new AppError('bad-file', `${file} is a folder`, { field: 'file' });
}

/** A MAC address with the prefix that QEMU and libvirt use. */
export function newMac(): string {
  const [a, b, c] = randomBytes(3);
  return `52:54:00:${[a, b, c].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`;
}

/** Who looks at a profile asks again before this has passed. */
const profileMs = 5000;

export class VmService {
  readonly #options: VmServiceOptions;
  readonly #library: Library;
  readonly #entries = new Map<string, Entry>();
  readonly #watched = new Map<object, ReadonlySet<string>>();
  /** Until when it is sampled where the time of a VM's vCPUs goes. */
  readonly #profiled = new Map<string, number>();
  readonly #purgeTimer: NodeJS.Timeout;
  #closing = false;

  constructor(options: VmServiceOptions) {
    this.#options = options;
    this.#library = options.library;
    for (const { id } of this.#library.list()) this.#add(id);
    this.#purgeTimer = setInterval(() => void this.purgeExpired(), 60_000);
    this.#purgeTimer.unref();
  }

  /** Ends every VM and stops all timers. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#purgeTimer);
    await Promise.all(
      [...this.#entries.values()].map(async (entry) => {
        await entry.run?.forceOff();
        await entry.queue.catch(() => {});
        await entry.history.close();
      }),
    );
  }

  list(): VmSummary[] {
    return this.#library.list().map(({ id }) => this.summary(id));
  }

  summary(id: string): VmSummary {
    const definition = this.#library.get(id);
    const entry = this.#entry(id);
    const { run, problem, thumbnailVersion, history } = entry;
    const live = run !== undefined;
    return {
      id,
      name: definition.name,
      state: run?.state ?? (problem !== null && problem.error.code === 'engine' ? 'crashed' : 'shutoff'),
      os: definition.os,
      tags: definition.tags,
      memoryMiB: definition.memoryMiB,
      cpus: definition.cpus.count,
      serialPorts: run?.config.serial.length ?? definition.serialPorts,
      hasDisplay: (run?.config.display.adapter ?? definition.display.adapter) !== 'none',
      startedAt: run?.startedAt ?? null,
      pid: run?.pid ?? null,
      accelerator: run?.accelerator ?? null,
      problem,
      saved: entry.saved,
      stopReason: run?.stopReason ?? null,
      thumbnailVersion,
      sparkline: live
        ? history.recent
            .slice(-40)
            .map(({ cpu }) => Math.round(cpu.reduce((sum, value) => sum + value, 0) / Math.max(1, cpu.length)))
        : [],
    };
  }

  details(id: string): VmDetails {
    const definition = this.#library.get(id);
    const { startedWith, run } = this.#entry(id);
    return {
      summary: this.summary(id),
      definition,
      folder: this.#library.folder(id),
      changedSinceStart: run !== undefined && startedWith !== runtimePart(definition),
    };
  }

  find(nameOrId: string): string {
    return this.#library.find(nameOrId);
  }

  /** Adds a VM that was just written to the library. */
  adopt(id: string): VmSummary {
    this.#add(id);
    this.#changed(id);
    return this.summary(id);
  }

  update(id: string, changes: VmChanges): Promise<VmDetails> {
    return this.#inTurn(id, async () => {
      await this.#library.update({ ...this.#library.get(id), ...changes });
      this.#changed(id);
      return this.details(id);
    });
  }

  async rename(id: string, name: string): Promise<VmSummary> {
    await this.update(id, { name });
    return this.summary(id);
  }

  async clone(id: string, name: string): Promise<VmSummary> {
    const copy = await this.#inTurn(id, () => {
      this.#mustBeOff(id, 'clone');
      return this.#library.clone(id, name, newMac);
    });
    return this.adopt(copy.id);
  }

  delete(id: string): Promise<UndoToken> {
    return this.#inTurn(id, async () => {
      this.#mustBeOff(id, 'delete');
      await this.#entry(id).history.close();
      const token = await this.#library.remove(id, this.#options.settings().undoMinutes * 60_000);
      this.#entries.delete(id);
      this.#options.bus.emit('vm.removed', { id });
      this.#options.bus.emit('undo.changed', this.#library.undoTokens());
      return token;
    });
  }

  async undo(token: string): Promise<VmSummary> {
    const definition = await this.#library.restore(token);
    this.#options.bus.emit('undo.changed', this.#library.undoTokens());
    return this.adopt(definition.id);
  }

  async purge(token: string): Promise<void> {
    await this.#library.purge(token);
    this.#options.bus.emit('undo.changed', this.#library.undoTokens());
  }

  async purgeExpired(): Promise<void> {
    if (await this.#library.purgeExpired()) this.#options.bus.emit('undo.changed', this.#library.undoTokens());
  }

  start(id: string, options: StartOptions = {}): Promise<VmSummary> {
    return this.#inTurn(id, () => this.startInTurn(id, options));
  }

  /** The same for whoever has the VM to itself already (`alone`). */
  async startInTurn(id: string, { paused = false, snapshot }: StartOptions = {}): Promise<VmSummary> {
    const entry = this.#entry(id);
    if (entry.run !== undefined) throw new AppError('wrong-state', `"${this.#library.get(id).name}" is running already`);
    if (this.#closing) throw new AppError('wrong-state', 'Vivarium is closing');
    const definition = this.#library.get(id);
    try {
      await this.checkStartable(definition);
      const restore: MachineConfig['lifecycle']['restore'] =
        snapshot !== undefined
          ? { kind: 'snapshot', name: snapshot }
          : entry.saved
            ? { kind: 'file', path: this.#savedFile(id) }
            : undefined;
      await this.#launch(entry, definition, paused, restore);
      // It fits the disks only once.
      await this.#forgetSaved(entry);
    } catch (error) {
      // Its process is about to end; until then the VM could not be started again.
      await this.#entry(id).run?.gone;
      entry.problem = {
        at: Date.now(),
        error: { ...envelopeOf(error), code: startCode(error) },
        logTail: await entry.log.tail(crashLogLines),
      };
      this.#changed(id);
      throw error;
    }
    return this.summary(id);
  }

  isOff(id: string): boolean {
    return this.#entry(id).run === undefined;
  }

  /** The VM that runs with a file as one of its disks, by name. */
  userOf(path: string): string | undefined {
    for (const { run } of this.#entries.values())
      if (run?.config.drives.some(({ file, readOnly }) => file === path && !readOnly)) return run.config.name;
    return undefined;
  }

  /** Runs `work` when nothing else changes the VM, and keeps others from it meanwhile. */
  alone<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#inTurn(id, work);
  }

  /** Saves the running machine into its folder and ends it. */
  async saveInTurn(id: string, report: TaskReport): Promise<void> {
    const run = this.running(id);
    if (run.state !== 'running' && run.state !== 'paused')
      throw new AppError('wrong-state', `"${this.#library.get(id).name}" cannot be saved now: it is ${stateWords[run.state]}`);
    const picture = await this.#entry(id).sampler?.picture();
    if (picture !== undefined) await this.#newPicture(this.#entry(id), picture);
    await run.saveTo(this.#savedFile(id), report);
    this.#entry(id).saved = true;
    await run.forceOff();
    this.#changed(id);
  }

  /** Forgets what was saved. */
  discardSaved(id: string): Promise<VmSummary> {
    return this.#inTurn(id, async () => {
      this.#mustBeOff(id, 'discard what was saved of');
      await this.#forgetSaved(this.#entry(id));
      return this.summary(id);
    });
  }

  #savedFile(id: string): string {
    return join(this.#library.folder(id), 'saved.state');
  }

  async #forgetSaved(entry: Entry): Promise<void> {
    if (!entry.saved) return;
    await rm(this.#savedFile(entry.id), { force: true });
    entry.saved = false;
    this.#changed(entry.id);
  }

  /** Changes a drive's medium: in the definition, and in the machine where it runs. */
  changeMedium(id: string, drive: string, file: string | null, force: boolean): Promise<VmDetails> {
    return this.#inTurn(id, async () => {
      const definition = this.#library.get(id);
      const found = definition.drives.find((each) => each.id === drive);
      if (found === undefined || found.media === 'disk')
        throw new AppError('invalid', `"${drive}" is no drive with a medium to change`, { field: 'drive' });
      if (file !== null) await checkMedium(file);
      const { run, startedWith } = this.#entry(id);
      // A drive that was added since the start is not in the machine yet.
      if (run?.config.drives.some((each) => each.id === drive)) await run.changeMedium(drive, file, force);
      await this.#library.update({
        ...definition,
        drives: definition.drives.map((each) => (each.id === drive ? { ...each, file: file ?? '' } : each)),
      });
      // What the machine has now is what the definition says: nothing waits for its next start.
      if (run !== undefined && startedWith === runtimePart(definition))
        this.#entry(id).startedWith = runtimePart(this.#library.get(id));
      this.#changed(id);
      return this.details(id);
    });
  }

  /** Adds a drive whose image `make` makes in the VM's folder, or is; the machine gets it at once where it runs. */
  addDisk(
    id: string,
    { format, bus }: { readonly format: VmDrive['format']; readonly bus: VmDrive['bus'] },
    make: string | ((path: string) => Promise<void>),
  ): Promise<VmDetails> {
    return this.#inTurn(id, async () => {
      if (this.#entry(id).saved)
        throw new AppError('wrong-state', 'The VM was saved: start it, or discard what was saved, first');
      const definition = this.#library.get(id);
      const folder = this.#library.folder(id);
      const extension = format === 'qcow2' ? 'qcow2' : 'img';
      let n = 0;
      while (definition.drives.some((each) => each.id === `disk${n}`) || existsSync(join(folder, `disk${n}.${extension}`))) n++;
      const file = typeof make === 'string' ? make : `disk${n}.${extension}`;
      const remove = async (): Promise<void> => {
        if (typeof make !== 'string') await rm(join(folder, file), { force: true });
      };
      const drive: VmDrive = {
        id: `disk${n}`,
        media: 'disk',
        file,
        format,
        bus,
        readOnly: false,
        cache: 'writeback',
        discard: 'unmap',
      };
      try {
        if (typeof make === 'string') await checkMedium(make);
        else await make(join(folder, file));
        await this.#changeDrives(
          id,
          [...definition.drives, drive],
          (run, drives) => run.plugDisk(drives.find((each) => each.id === drive.id) as DriveConfig),
          (run) => run.unplugDisk(drive.id),
        );
      } catch (error) {
        await remove();
        throw error;
      }
      this.#changed(id);
      return this.details(id);
    });
  }

  /** Takes a disk away; a machine that runs is asked to let it go. Its image stays. */
  removeDisk(id: string, drive: string): Promise<VmDetails> {
    return this.#inTurn(id, async () => {
      const { drives } = this.#library.get(id);
      if (!drives.some((each) => each.id === drive && each.media === 'disk'))
        throw new AppError('invalid', `"${drive}" is no disk of this VM`, { field: 'drive' });
      if (this.#entry(id).saved)
        throw new AppError('wrong-state', 'The VM was saved: start it, or discard what was saved, first');
      await this.#changeDrives(
        id,
        drives.filter((each) => each.id !== drive),
        async (run) => {
          if (run.config.drives.some((each) => each.id === drive)) await run.unplugDisk(drive);
        },
      );
      this.#changed(id);
      return this.details(id);
    });
  }

  /** Stores other drives once the machine, where it runs, has taken them over; `back` undoes that. */
  async #changeDrives(
    id: string,
    drives: readonly VmDrive[],
    live: (run: VmRun, drives: MachineConfig['drives']) => Promise<void>,
    back?: (run: VmRun) => Promise<void>,
  ): Promise<void> {
    const entry = this.#entry(id);
    const { run, startedWith } = entry;
    const before = this.#library.get(id);
    const definition = { ...before, drives: [...drives] };
    if (run !== undefined) {
      const options = { folder: this.#library.folder(id), paused: false, firmware: this.#options.firmware ?? {} };
      await live(this.running(id), machineConfig(definition, options).drives);
    }
    try {
      await this.#library.update(definition);
    } catch (error) {
      if (run !== undefined) await back?.(run);
      throw error;
    }
    // What the machine has now is what the definition says: nothing waits for its next start.
    if (run !== undefined && startedWith === runtimePart(before)) entry.startedWith = runtimePart(this.#library.get(id));
  }

  pause(id: string): Promise<VmSummary> {
    return this.#command(id, 'pause', ['running', 'shutdown-in-progress'], (run) => run.pause());
  }

  resume(id: string): Promise<VmSummary> {
    return this.#command(id, 'resume', ['paused'], (run) => run.resume());
  }

  reset(id: string): Promise<VmSummary> {
    return this.#command(id, 'reset', ['running', 'paused', 'shutdown-in-progress'], (run) => run.reset());
  }

  powerButton(id: string): Promise<VmSummary> {
    return this.#command(id, 'shut down', ['running', 'shutdown-in-progress'], (run) => run.powerButton());
  }

  /** Not in turn: it must work while another operation hangs. */
  async forceOff(id: string): Promise<VmSummary> {
    const { run } = this.#entry(id);
    if (run === undefined) throw new AppError('wrong-state', `"${this.#library.get(id).name}" is not running`);
    await run.forceOff();
    return this.summary(id);
  }

  async sendKeys(id: string, keys: readonly string[]): Promise<void> {
    await this.running(id).sendKeys(keys);
  }

  monitor(id: string, line: string, cpu?: number): Promise<string> {
    return this.running(id).monitor(line, cpu);
  }

  /** The present run; rejects with `wrong-state` when there is none. */
  running(id: string): VmRun {
    const { run } = this.#entry(id);
    if (run === undefined || run.state === 'starting')
      throw new AppError('wrong-state', `"${this.#library.get(id).name}" is not running`);
    return run;
  }

  handSocket(id: string, message: PortMessage, socket: Socket): void {
    this.running(id).handSocket(message, socket);
  }

  handPort(id: string, message: PortMessage, port: unknown): void {
    this.running(id).handPort(message, port);
  }

  /** The screen now, as a PNG in a data URL. */
  async screenshot(id: string): Promise<string> {
    this.running(id);
    const { sampler } = this.#entry(id);
    const picture = await sampler?.picture();
    if (picture === undefined) throw new AppError('engine', 'The VM gave no picture of its screen');
    return dataUrl(picture);
  }

  /** The same as bytes. */
  async screenshotBytes(id: string): Promise<Buffer | undefined> {
    return await this.#entry(id).sampler?.picture();
  }

  async thumbnail(id: string): Promise<string | null> {
    this.#library.get(id);
    const picture = await readFile(this.#thumbnailFile(id)).catch(() => undefined);
    return picture === undefined ? null : dataUrl(picture);
  }

  logTail(id: string, lines = 200): Promise<string[]> {
    return this.#entry(id).log.tail(lines);
  }

  async history(id: string, { from, to, points = 600 }: { from?: number; to?: number; points?: number }): Promise<StatsHistory> {
    const end = to ?? Date.now();
    return { id, ...(await this.#entry(id).history.query(from ?? end - 3_600_000, end, points)) };
  }

  /** Which VMs `watcher` shows; undefined: it has gone. */
  watch(watcher: object, ids: readonly string[] | undefined): void {
    if (ids === undefined) this.#watched.delete(watcher);
    else this.#watched.set(watcher, new Set(ids));
  }

  /** Has it sampled, for some seconds, where the time of the vCPUs goes. */
  profile(id: string): void {
    this.#entry(id);
    this.#profiled.set(id, Date.now() + profileMs);
  }

  /** Rejects when the files of a definition, or the host's memory, do not allow a start. */
  async checkStartable(definition: VmDefinition): Promise<void> {
    this.checkMemory(definition.memoryMiB);
    const { boot } = definition;
    await this.#checkDrives(definition);
    if (boot.kind !== 'kernel') return;
    const resolve = (path: string): string => (isAbsolute(path) ? path : join(this.#library.folder(definition.id), path));
    await checkKernel(resolve(boot.kernel), 'boot.kernel');
    if (boot.initrd !== undefined && boot.initrd !== '')
      await checkInitrd(resolve(boot.initrd), 'boot.initrd', AbortSignal.timeout(2000));
  }

  /** Rejects where an image of a drive is not there. */
  async #checkDrives(definition: VmDefinition): Promise<void> {
    for (const [n, { file, media, id }] of definition.drives.entries()) {
      if (file === '') continue;
      const path = isAbsolute(file) ? file : join(this.#library.folder(definition.id), file);
      await stat(path).catch((error: unknown) => {
        const what = media === 'disk' ? `The disk "${id}"` : `The medium of "${id}"`;
        throw new AppError('file-missing', `${what}, ${path}: ${reasonOf(error)}`, { field: `drives.${n}.file` });
      });
    }
  }

  /** Throws `no-memory` when the host has less than a VM of this size takes. */
  checkMemory(memoryMiB: number): void {
    const free = freeMemoryMiB();
    if (memoryMiB + overheadMiB <= free) return;
    const total = totalMemoryMiB();
    throw new AppError(
      'no-memory',
      memoryMiB + overheadMiB > total
        ? `${memoryMiB} MiB are more than this computer has (${total} MiB). Give the VM less memory.`
        : `${memoryMiB} MiB are more than this computer has free now (${free} MiB). Close something, or give the VM less memory.`,
      { field: 'memoryMiB' },
    );
  }

  /** Starts the VMs that are to start with the app; one that cannot is told of, and keeps none of the others. */
  async autostart(): Promise<void> {
    for (const { id, name, autostart } of this.#library.list())
      if (autostart)
        await this.start(id).catch((error: Error) =>
          this.#options.notify('error', `"${name}" could not be started`, error.message, id),
        );
  }

  async #launch(
    entry: Entry,
    definition: VmDefinition,
    paused: boolean,
    restore: MachineConfig['lifecycle']['restore'],
  ): Promise<void> {
    const { id } = entry;
    const config = machineConfig(definition, {
      folder: this.#library.folder(id),
      paused,
      firmware: this.#options.firmware ?? {},
      restore,
    });
    entry.problem = null;
    entry.startedWith = runtimePart(definition);
    const run = new VmRun(this.#options.launcher, config, entry.log, {
      changed: () => this.#changed(id),
      ended: (crash) => void this.#ended(entry, run, crash),
    });
    entry.run = run;
    this.#changed(id);
    await run.started();
    if (entry.run !== run) throw new AppError('start-failed', 'The VM ended as soon as it was started. See its log.');
    entry.sampler = new Sampler({
      run,
      history: entry.history,
      folder: this.#library.folder(id),
      sampleMs: this.#options.sampleMs ?? 1000,
      pictureMs: this.#options.pictureMs ?? 3000,
      wantsPictures: () => config.display.adapter !== 'none' && this.#options.settings().thumbnails && this.#isWatched(id),
      wantsProfile: () => Date.now() < (this.#profiled.get(id) ?? 0),
      point: (point) => this.#options.bus.emit('vm.stats', { id, point }),
      picture: (png) => void this.#newPicture(entry, png),
    });
  }

  async #ended(entry: Entry, run: VmRun, crash: AppError | undefined): Promise<void> {
    if (entry.run !== run) return;
    entry.sampler?.close();
    entry.sampler = undefined;
    entry.run = undefined;
    entry.startedWith = undefined;
    await entry.history.close();
    if (crash !== undefined) {
      entry.problem = { at: Date.now(), error: crash.toEnvelope(), logTail: await entry.log.tail(crashLogLines) };
      if (crash.code === 'engine') this.#options.notify('error', `"${run.config.name}" has crashed`, crash.message, entry.id);
    }
    if (this.#entries.get(entry.id) === entry) this.#changed(entry.id);
  }

  async #newPicture(entry: Entry, png: Buffer): Promise<void> {
    const file = this.#thumbnailFile(entry.id);
    // Not made durable: a picture may be lost, and comes every few seconds.
    await rename(join(this.#library.folder(entry.id), '.screen.png'), file).catch(() => rm(file, { force: true }));
    entry.thumbnailVersion = Date.now();
    this.#options.bus.emit('vm.thumbnail', { id: entry.id, version: entry.thumbnailVersion, url: dataUrl(png) });
  }

  #thumbnailFile(id: string): string {
    return join(this.#library.folder(id), 'thumbnail.png');
  }

  #isWatched(id: string): boolean {
    for (const ids of this.#watched.values()) if (ids.has(id)) return true;
    return false;
  }

  #command(id: string, what: string, states: readonly VmState[], action: (run: VmRun) => Promise<void>): Promise<VmSummary> {
    return this.#inTurn(id, async () => {
      const run = this.running(id);
      if (!states.includes(run.state))
        throw new AppError('wrong-state', `"${this.#library.get(id).name}" cannot ${what} now: it is ${stateWords[run.state]}`);
      await action(run);
      return this.summary(id);
    });
  }

  #mustBeOff(id: string, what: string): void {
    if (this.#entry(id).run !== undefined)
      throw new AppError('wrong-state', `"${this.#library.get(id).name}" is running. Shut it down to ${what} it.`);
  }

  #inTurn<T>(id: string, action: () => Promise<T>): Promise<T> {
    const entry = this.#entry(id);
    const result = entry.queue.catch(() => {}).then(action);
    entry.queue = result.catch(() => {});
    return result;
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new AppError('not-found', 'There is no such VM any more');
    return entry;
  }

  #add(id: string): void {
    const folder = this.#library.folder(id);
    const history = new History(join(folder, 'history'), this.#options.settings().graphs.keepDays);
    const entry: Entry = {
      id,
      log: new LogFile(join(folder, 'vm.log')),
      history,
      run: undefined,
      sampler: undefined,
      problem: null,
      thumbnailVersion: null,
      startedWith: undefined,
      saved: existsSync(this.#savedFile(id)),
      queue: Promise.resolve(),
    };
    this.#entries.set(id, entry);
    void this.thumbnail(id).then(
      (url) => {
        if (url === null || entry.thumbnailVersion !== null) return;
        entry.thumbnailVersion = 1;
        if (this.#entries.get(id) === entry) this.#changed(id);
      },
      () => {},
    );
  }

  #changed(id: string): void {
    if (this.#entries.has(id)) this.#options.bus.emit('vm.changed', this.summary(id));
  }
}

const stateWords: Readonly<Record<VmState, string>> = {
  shutoff: 'off',
  starting: 'starting',
  running: 'running',
  paused: 'paused',
  'shutdown-in-progress': 'shutting down',
  crashed: 'crashed',
};

/** A failed start is no crash, whatever the engine said. */
const startCode = (error: unknown) => {
  const { code } = envelopeOf(error);
  return code === 'engine' ? 'start-failed' : code;
};

const dataUrl = (png: Buffer): string => `data:image/png;base64,${png.toString('base64')}`;

/** What of a definition a run is made of: the rest may change without a restart. */
function runtimePart(definition: VmDefinition): string {
  return JSON.stringify({ ...definition, description: '', tags: [], autostart: false, os: null });
}
