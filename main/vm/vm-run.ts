/**
 * One run of a VM: from the start of its process to its end. A `VmRun` starts the process, speaks QMP with it, and
 * tells its state:
 *
 *     starting -> running <-> paused            STOP, RESUME
 *                 running  -> shutdown-in-progress   POWERDOWN (back to running when the guest takes no notice)
 *     any      -> shutoff                        the process ended after SHUTDOWN, or was ended from here
 *     any      -> crashed                        the process ended without SHUTDOWN
 *
 * A start that fails (the process says `failed`, or ends before `started`) ends in `shutoff` with the error for whoever
 * started it.
 */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type { DriveConfig, MachineConfig, MachineStats, ProcessMessage, QmpEventMessage } from '../../engine/contract/index.ts';
import { AppError, type ErrorCode, type VmState } from '../contract/index.ts';
import type { TaskReport } from '../tasks/tasks.ts';
import type { Launcher, PortMessage, VmProcess } from './launcher.ts';
import type { LogFile } from './log-file.ts';
import { QmpClient } from './qmp-client.ts';

/** A process that says nothing for this long after its start is given up. */
const startTimeout = 60_000;
/** A guest that goes on for this long after its power button was pressed is running, not shutting down. */
const powerdownTimeout = 60_000;
/** A guest that does not let a device go for this long keeps it. */
const unplugTimeout = 15_000;
/** A machine that does not end for this long after `quit` is killed. */
const quitTimeout = 3000;

export interface RunEvents {
  /** The state, or what is known of the process, has changed. */
  changed(): void;
  /** The run is over; `crash` says why where it crashed. */
  ended(crash: AppError | undefined): void;
}

/** Error codes of the engine that mean the same here. */
const codes: Readonly<Record<string, ErrorCode>> = {
  'bad-kernel': 'bad-file',
  'bad-initrd': 'bad-file',
  'bad-file': 'bad-file',
  'no-memory': 'no-memory',
  'file-missing': 'file-missing',
  'port-in-use': 'port-in-use',
  'bad-config': 'invalid',
  'bad-image': 'bad-file',
  'bad-state': 'bad-file',
};

export class VmRun {
  #config: MachineConfig;
  readonly startedAt = Date.now();
  accelerator: 'jit' | 'kvm' | null = null;
  readonly #log: LogFile;
  readonly #events: RunEvents;
  readonly #process: VmProcess;
  readonly #qmp: QmpClient;
  #state: VmState = 'starting';
  #started = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<void>();
  #sawShutdown = false;
  #ending = false;
  #powerdownTimer: NodeJS.Timeout | undefined;
  #stopReason: string | null = null;
  /** Told of devices that are gone, by their id. */
  readonly #unplugged = new Map<string, () => void>();

  constructor(launcher: Launcher, config: MachineConfig, log: LogFile, events: RunEvents) {
    this.#config = config;
    this.#log = log;
    this.#events = events;
    this.#started.promise.catch(() => {});
    this.#process = launcher.launch(`vivarium: ${config.name}`, {
      message: (message) => this.#receive(message),
      output: (text) => log.writeOutput(text),
      exit: (code, signal) => this.#exited(code, signal),
    });
    this.#qmp = new QmpClient(
      (message) => this.#process.send({ type: 'qmp', message }),
      (event) => this.#event(event),
    );
    log.write(`start: process ${this.#process.pid ?? 'unknown'}, ${config.memoryMiB} MiB, ${config.cpus.count} CPUs`);
    this.#process.send({ type: 'start', config });
  }

  /** What the machine was started with, and what was plugged in and taken away since. */
  get config(): MachineConfig {
    return this.#config;
  }

  get state(): VmState {
    return this.#state;
  }

  /** Why the machine stopped by itself, in words; null where it did not. */
  get stopReason(): string | null {
    return this.#stopReason;
  }

  get pid(): number | null {
    return this.#process.pid;
  }

  /** Resolves when the process has ended. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** Resolves when the guest runs (or stands, where that was asked for); rejects when the start failed. */
  async started(): Promise<void> {
    const timer = setTimeout(
      () => this.#failStart(new AppError('start-failed', 'The VM process did not answer. See its log.')),
      startTimeout,
    );
    try {
      await this.#started.promise;
      await Promise.race([
        this.#qmp.ready,
        this.#gone.promise.then(() => {
          throw new AppError('start-failed', 'The VM ended as soon as it was started. See its log.');
        }),
      ]);
      const { status } = await this.#qmp.execute('query-status', {});
      if (this.#state === 'starting') this.#become(status === 'running' ? 'running' : 'paused');
    } finally {
      clearTimeout(timer);
    }
  }

  async pause(): Promise<void> {
    await this.#qmp.execute('stop', {});
    this.#become('paused');
  }

  async resume(): Promise<void> {
    await this.#qmp.execute('cont', {});
    this.#become('running');
  }

  async reset(): Promise<void> {
    await this.#qmp.execute('system_reset', {});
    // A machine whose button was pressed begins anew.
    if (this.#state === 'shutdown-in-progress') this.#become('running');
  }

  async powerButton(): Promise<void> {
    await this.#qmp.execute('system_powerdown', {});
    if (this.#state === 'running') this.#shuttingDown();
  }

  /** Ends the machine, and resolves when its process has gone. */
  async forceOff(): Promise<void> {
    this.#ending = true;
    const timer = setTimeout(() => this.#process.kill(), quitTimeout);
    this.#qmp.execute('quit', {}, quitTimeout).catch(() => {});
    if (this.#state === 'starting') this.#process.kill();
    await this.#gone.promise;
    clearTimeout(timer);
  }

  async sendKeys(keys: readonly string[]): Promise<void> {
    await this.#qmp.execute('send-key', { keys: keys.map((data) => ({ type: 'qcode', data })) });
  }

  /** Saves, loads or deletes a snapshot with the machine's state, in all disks that the machine writes to. */
  async snapshot(kind: 'save' | 'load' | 'delete', name: string, report: TaskReport): Promise<void> {
    const devices = this.config.drives
      .filter(({ media, readOnly, file }) => media === 'disk' && !readOnly && file !== '')
      .map(({ id }) => id);
    const id = `snapshot-${randomUUID()}`;
    await this.#qmp.command(`snapshot-${kind}`, {
      'job-id': id,
      tag: name,
      devices,
      ...(kind === 'delete' ? {} : { vmstate: devices[0] }),
    });
    const cancel = (): void => void this.#qmp.command('job-cancel', { id }).catch(() => {});
    report.signal.addEventListener('abort', cancel);
    try {
      for (;;) {
        const jobs = (await this.#qmp.command('query-jobs', {})) as {
          id: string;
          status: string;
          error?: string;
          'current-progress': number;
          'total-progress': number;
        }[];
        const job = jobs.find((each) => each.id === id);
        if (job === undefined) throw new AppError('engine', 'The snapshot job has gone');
        if (job['total-progress'] > 0) report.progress(job['current-progress'] / job['total-progress']);
        if (job.status === 'concluded') {
          await this.#qmp.command('job-dismiss', { id });
          if (job.error !== undefined) throw new AppError('engine', job.error);
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
    } finally {
      report.signal.removeEventListener('abort', cancel);
    }
  }

  /** Saves the machine to a file; it stands after it. */
  async saveTo(path: string, report: TaskReport): Promise<void> {
    await this.#qmp.command('migrate', { uri: `file:${path}` });
    const cancel = (): void => void this.#qmp.command('migrate_cancel', {}).catch(() => {});
    report.signal.addEventListener('abort', cancel);
    try {
      for (;;) {
        const info = (await this.#qmp.command('query-migrate', {})) as {
          status?: string;
          'error-desc'?: string;
          ram?: { transferred: number; total: number };
        };
        if (info.ram !== undefined && info.ram.total > 0) report.progress(info.ram.transferred / info.ram.total);
        if (info.status === 'completed') return;
        if (info.status === 'failed' || info.status === 'cancelled')
          throw new AppError('engine', info['error-desc'] ?? 'The machine could not be saved');
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
    } finally {
      report.signal.removeEventListener('abort', cancel);
    }
  }

  /** Puts another medium into a drive (null: takes it out). */
  async changeMedium(drive: string, file: string | null, force: boolean): Promise<void> {
    if (file === null) await this.#qmp.command('eject', { device: drive, force });
    else await this.#qmp.command('blockdev-change-medium', { device: drive, filename: file, force });
  }

  /** Plugs a disk in; its id is the drive's. */
  async plugDisk(drive: DriveConfig): Promise<void> {
    const { id, file, format, readOnly, cache, discard, serial } = drive;
    const adapter = drive.interface === 'scsi' && this.#config.drives.some((each) => each.interface === 'scsi');
    const driver = adapter ? 'scsi-hd' : drive.interface === 'nvme' ? 'nvme' : 'virtio-blk-pci';
    if (drive.interface !== 'virtio' && drive.interface !== 'nvme' && !adapter)
      throw new AppError(
        'wrong-state',
        'The machine runs: it takes a disk on virtio or NVMe, or on SCSI where it was started with a drive on that. Choose one of these, or add the disk when it is off.',
        { field: 'bus' },
      );
    await this.#qmp.command('blockdev-add', {
      driver: format,
      'node-name': id,
      'read-only': readOnly,
      discard: discard === 'unmap' ? 'unmap' : 'ignore',
      cache: { direct: cache === 'none', 'no-flush': cache === 'unsafe' },
      file: { driver: 'file', filename: file },
    });
    try {
      await this.#qmp.command('device_add', {
        ...{ driver, id, drive: id, rerror: 'stop', werror: 'stop' },
        ...(adapter ? { bus: 'scsi.0' } : {}),
        // A controller for NVMe has one.
        ...(serial === undefined || serial === '' ? (driver === 'nvme' ? { serial: id } : {}) : { serial }),
      });
    } catch (error) {
      await this.#qmp.command('blockdev-del', { 'node-name': id }).catch(() => {});
      throw error;
    }
    this.#config = { ...this.#config, drives: [...this.#config.drives, drive] };
  }

  /** Asks the guest to let a disk go; rejects where it does not. */
  async unplugDisk(id: string): Promise<void> {
    const gone = new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), unplugTimeout);
      this.#unplugged.set(id, () => {
        clearTimeout(timer);
        resolve(true);
      });
    });
    try {
      await this.#qmp.command('device_del', { id }).catch((error: Error) => {
        // It was asked before, and may go now.
        if (!/already in the process/.test(error.message)) throw error;
      });
      if (!(await gone))
        throw new AppError(
          'wrong-state',
          'The guest has not let the disk go. It may have no support for that, or not have started yet. Try again, or remove the disk when the machine is off.',
        );
    } finally {
      this.#unplugged.get(id)?.();
      this.#unplugged.delete(id);
    }
    // Where the image was opened as a node of its own, that is left.
    await this.#qmp.command('blockdev-del', { 'node-name': id }).catch(() => {});
    this.#config = { ...this.#config, drives: this.#config.drives.filter((drive) => drive.id !== id) };
  }

  /** `profile`: samples of where the vCPUs' time goes are wanted too. */
  statistics(profile: boolean): Promise<MachineStats> {
    return this.#qmp.execute('x-query-stats', profile ? { profile } : {}, 5000);
  }

  /** Writes the screen to a PNG file. */
  async screendump(filename: string): Promise<void> {
    await this.#qmp.execute('screendump', { filename, format: 'png' });
  }

  monitor(line: string, cpu?: number): Promise<string> {
    return this.#qmp.execute(
      'human-monitor-command',
      { 'command-line': line, ...(cpu === undefined ? {} : { 'cpu-index': cpu }) },
      60_000,
    );
  }

  handSocket(message: PortMessage, socket: Socket): void {
    this.#process.handSocket(message, socket);
  }

  handPort(message: PortMessage, port: unknown): void {
    if (this.#process.handPort === undefined) throw new AppError('unsupported', 'This shell has no message ports');
    this.#process.handPort(message, port);
  }

  #receive(message: ProcessMessage): void {
    switch (message.type) {
      case 'started':
        this.accelerator = message.accelerator;
        this.#started.resolve();
        return;
      case 'failed': {
        const { code, message: text, field } = message.error;
        this.#failStart(new AppError(codes[code] ?? 'start-failed', text, { field }));
        return;
      }
      case 'qmp':
        this.#qmp.receive(message.message);
        return;
      case 'log':
        this.#log.write(`${message.level}: ${message.text}`);
        return;
      default:
    }
  }

  #failStart(error: AppError): void {
    this.#log.write(`error: ${error.message}`);
    this.#ending = true;
    this.#started.reject(error);
    // A process that said it failed exits by itself; one that hangs does not.
    setTimeout(() => this.#process.kill(), 1000).unref();
  }

  #event(event: QmpEventMessage): void {
    if (event.event === 'SHUTDOWN') {
      this.#sawShutdown = true;
      const { guest, reason } = event.data as { guest: boolean; reason: string };
      this.#log.write(`shutdown: ${reason}${guest ? ', by the guest' : ''}`);
    } else if (event.event === 'STOP') {
      // Ending stops the machine too: that is no pause.
      if (!this.#sawShutdown && this.#state !== 'starting') this.#become('paused');
    } else if (event.event === 'RESUME') {
      this.#stopReason = null;
      if (this.#state !== 'starting') this.#become('running');
    } else if (event.event === 'POWERDOWN') {
      if (this.#state === 'running') this.#shuttingDown();
    } else if (event.event === 'BLOCK_IO_ERROR') {
      const { device, operation, action, nospace, reason } = event.data as unknown as {
        device: string;
        operation: string;
        action: string;
        nospace?: boolean;
        reason: string;
      };
      this.#log.write(`drive ${device}: a ${operation} failed (${action}): ${reason}`);
      if (action === 'stop') {
        this.#stopReason = `${nospace === true ? `There is no room left for the drive "${device}"` : `The drive "${device}" has a problem`}: ${reason}`;
        this.#events.changed();
      }
    } else if (event.event === 'DEVICE_DELETED') {
      this.#unplugged.get(String(event.data?.device))?.();
    } else if (['JOB_STATUS_CHANGE', 'MIGRATION'].includes(event.event)) {
      // Whoever started the work asks how far it is.
    } else this.#log.write(`event: ${event.event}${event.data === undefined ? '' : ` ${JSON.stringify(event.data)}`}`);
  }

  #shuttingDown(): void {
    this.#become('shutdown-in-progress');
    this.#powerdownTimer = setTimeout(() => this.#become('running'), powerdownTimeout);
    this.#powerdownTimer.unref();
  }

  #become(state: VmState): void {
    if (this.#state === state || this.#state === 'shutoff' || this.#state === 'crashed') return;
    clearTimeout(this.#powerdownTimer);
    this.#state = state;
    this.#events.changed();
  }

  #exited(code: number | null, signal: string | null): void {
    clearTimeout(this.#powerdownTimer);
    const how = signal === null ? `with status ${code ?? 'unknown'}` : `by signal ${signal}`;
    this.#log.flush();
    this.#log.write(`end: the process ended ${how}`);
    this.#qmp.close();
    const inStart = this.#state === 'starting';
    const crashed = !this.#sawShutdown && !this.#ending;
    this.#started.reject(new AppError('start-failed', `The VM's process ended ${how} before the machine was up. See its log.`));
    this.#state = crashed ? 'crashed' : 'shutoff';
    this.#gone.resolve();
    this.#events.ended(
      crashed
        ? new AppError(
            inStart ? 'start-failed' : 'engine',
            `The VM's process ended ${how} without the machine having been shut down.`,
          )
        : undefined,
    );
  }
}
