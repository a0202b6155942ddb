/**
 * Jobs on a drive: `stream`, `commit` and `mirror` as QEMU's block jobs mean them. A commit of the active image and a
 * mirror become ready when both sides are equal, and stay so until they are completed (the drive goes on with the target)
 * or cancelled (it stays where it is).
 */
import type { Drive, DriveOptions } from './drive.ts';
import { BlockError } from './errors.ts';
import { MirrorNode } from './filters.ts';
import { commitJob, type Job, mirrorJob, streamJob } from './jobs.ts';
import type { BlockNode } from './node.ts';
import { openImage } from './open.ts';
import { createQcow2 } from './qcow2/create.ts';
import { Qcow2Node } from './qcow2/node.ts';

export type JobPlan = { readonly id: string; readonly speed: number } & (
  | { readonly kind: 'stream'; readonly base?: string; readonly backingFile?: string }
  | { readonly kind: 'commit'; readonly top?: string; readonly base?: string; readonly backingFile?: string }
  | {
      readonly kind: 'mirror';
      readonly target: string;
      readonly format?: string;
      readonly mode: 'absolute-paths' | 'existing';
      readonly sync: 'full' | 'top' | 'none';
      readonly nodeName?: string;
    }
);

/** A job as its owner sees it. */
export interface DriveJob {
  readonly id: string;
  readonly kind: JobPlan['kind'];
  readonly done: number;
  readonly total: number;
  readonly ready: boolean;
  readonly paused: boolean;
  readonly ended: boolean;
  readonly cancelled: boolean;
  readonly speed: number;
  readonly error: string | undefined;
  /** One step; see `Drive.work`. */
  work(now: number): number;
  /** Bytes a second; 0: as fast as can be. */
  setSpeed(speed: number): void;
  pause(on: boolean): void;
  /** Ends it. `force`: at once, even where it is ready and could end well. */
  cancel(force: boolean): void;
  /** Ends a job that is ready by going on with its target. */
  complete(): void;
  /** The drive is being closed. */
  abandon(): void;
}

interface JobSteps {
  readonly job: Job;
  /** True: becomes ready, and waits. */
  readonly waits: boolean;
  /** What is done at the end of one that does not wait, or on completion. */
  finish(): void;
  /** Puts things back after it was cancelled or failed, or ended without completion. */
  undo(): void;
}

/** Milliseconds between two reports of progress. */
const REPORT = 200;

class RunningJob implements DriveJob {
  readonly id: string;
  readonly kind: JobPlan['kind'];
  done = 0;
  total = 0;
  ready = false;
  paused = false;
  ended = false;
  cancelled = false;
  speed: number;
  error: string | undefined;
  readonly #steps: JobSteps;
  readonly #told: (job: DriveJob) => void;
  #reported = 0;
  #notBefore = 0;
  #failed: unknown;

  constructor(
    plan: JobPlan,
    total: number,
    told: (job: DriveJob) => void,
    steps: (failed: (error: unknown) => void) => JobSteps,
  ) {
    this.id = plan.id;
    this.kind = plan.kind;
    this.speed = plan.speed;
    this.total = total;
    this.#told = told;
    this.#steps = steps((error) => {
      this.#failed = error;
    });
  }

  work(now: number): number {
    if (this.ended) return Number.POSITIVE_INFINITY;
    if (this.#failed !== undefined) {
      this.#end(this.#failed);
      return Number.POSITIVE_INFINITY;
    }
    if (this.paused || this.ready) return Number.POSITIVE_INFINITY;
    if (now < this.#notBefore) return this.#notBefore - now;
    try {
      const { value, done } = this.#steps.job.next();
      if (done === true) {
        this.done = this.total;
        if (this.#steps.waits) {
          this.ready = true;
          this.#told(this);
        } else {
          this.#steps.finish();
          this.#end(undefined);
        }
        return Number.POSITIVE_INFINITY;
      }
      const bytes = value.done - this.done;
      this.done = value.done;
      this.total = value.total;
      if (this.speed > 0) this.#notBefore = Math.max(this.#notBefore, now - 100) + (bytes / this.speed) * 1000;
    } catch (error) {
      this.#end(error);
      return Number.POSITIVE_INFINITY;
    }
    if (now - this.#reported > REPORT) {
      this.#reported = now;
      this.#told(this);
    }
    return Math.max(0, this.#notBefore - now);
  }

  #end(error: unknown): void {
    if (error !== undefined || this.cancelled)
      try {
        this.#steps.undo();
      } catch (second) {
        error ??= second;
      }
    this.error = error === undefined ? undefined : (error as Error).message;
    this.ended = true;
    this.#told(this);
  }

  setSpeed(speed: number): void {
    this.speed = speed;
    this.#notBefore = 0;
  }
  pause(on: boolean): void {
    this.paused = on;
    this.#told(this);
  }
  cancel(force: boolean): void {
    // A mirror that is ready ends well without taking over: what it copied is whole.
    this.cancelled = force || !this.ready;
    if (this.cancelled) this.#end(undefined);
    else {
      try {
        this.#steps.undo();
        this.#end(undefined);
      } catch (error) {
        this.#end(error);
      }
    }
  }
  complete(): void {
    if (!this.ready) throw new BlockError('invalid', `The active block job '${this.id}' cannot be completed`);
    try {
      this.#steps.finish();
    } catch (error) {
      this.#end(error);
      throw error;
    }
    this.#end(undefined);
  }
  abandon(): void {
    this.cancelled = true;
    this.#end(undefined);
  }
}

export function startJob(drive: Drive, plan: JobPlan): DriveJob {
  const told = (job: DriveJob): void => drive.hooks.job(job);
  const make = { stream, commit, mirror }[plan.kind] as (
    drive: Drive,
    plan: JobPlan,
    failed: (error: unknown) => void,
  ) => JobSteps;
  return new RunningJob(plan, drive.image.size, told, (failed) => make(drive, plan, failed));
}

function writable(drive: Drive): DriveOptions {
  const options = drive.options as DriveOptions;
  if (options.readOnly) throw new BlockError('read-only', `${options.file}: the drive is read-only`);
  return options;
}

// --- stream -------------------------------------------------------------------------------------------------------

function stream(drive: Drive, plan: Extract<JobPlan, { kind: 'stream' }>): JobSteps {
  const options = writable(drive);
  const top = drive.snapshots;
  const base = plan.base === undefined ? undefined : drive.find(plan.base);
  if (base === top) throw new BlockError('invalid', 'the base of a stream is a backing file of the drive');
  const kept = base === undefined ? undefined : { node: base, name: plan.backingFile ?? base.filename, format: base.format };
  const { backing: _backing, ...rest } = options;
  return {
    job: streamJob(top, kept),
    waits: false,
    finish: () => drive.reopen(rest),
    undo: () => {},
  };
}

// --- commit -------------------------------------------------------------------------------------------------------

function commit(drive: Drive, plan: Extract<JobPlan, { kind: 'commit' }>, failed: (error: unknown) => void): JobSteps {
  const options = writable(drive);
  const files = drive.chain().map(({ filename }) => filename);
  const index = (name: string | undefined, fallback: number): number =>
    name === undefined ? fallback : files.indexOf(drive.find(name).filename);
  const topAt = index(plan.top, 0);
  const baseAt = index(plan.base, files.length - 1);
  if (baseAt <= topAt) throw new BlockError('invalid', 'the base of a commit lies below its top');
  const names = drive.chain().map((node) => drive.nameOf(node));
  const above = topAt === 0 ? undefined : files[topAt - 1];
  drive.reopen(options, { writeBacking: (path) => path === files[baseAt] || path === above });
  const chain = drive.chain();
  const top = chain[topAt];
  const base = chain[baseAt];
  const { backing: _backing, ...rest } = options;
  if (above !== undefined) {
    const overlay = chain[topAt - 1];
    return {
      job: commitJob(top, base),
      waits: false,
      finish: () => {
        if (!(overlay instanceof Qcow2Node))
          throw new BlockError('unsupported', `${overlay.filename}: its backing file cannot be changed`);
        overlay.setBackingName(plan.backingFile ?? base.filename, base.format);
        drive.reopen(topAt === 1 ? rest : options);
      },
      undo: () => drive.reopen(options),
    };
  }
  if (base.size < top.size) base.resize(Math.ceil(top.size / 512) * 512);
  const mirror = new MirrorNode(top, base, failed);
  drive.setMirror(mirror);
  return {
    job: commitJob(top, base),
    waits: true,
    finish: () => drive.reopen({ ...rest, file: files[baseAt], format: base.format, nodeName: names[baseAt] }),
    undo: () => drive.reopen(options),
  };
}

// --- mirror -------------------------------------------------------------------------------------------------------

function mirror(drive: Drive, plan: Extract<JobPlan, { kind: 'mirror' }>, failed: (error: unknown) => void): JobSteps {
  const { host } = drive;
  const options = drive.options as DriveOptions;
  const source = drive.image;
  const file = host.absolutePath(plan.target);
  if (drive.chain().some(({ filename }) => filename === file))
    throw new BlockError('invalid', `'${file}' is an image of the drive already`);
  const format = plan.format ?? (plan.mode === 'existing' ? undefined : source.format === 'qcow2' ? 'qcow2' : 'raw');
  const backing = plan.sync === 'full' ? null : plan.sync === 'top' ? source.backing : source;
  if (plan.mode === 'absolute-paths') create(drive, file, format ?? 'raw', backing);
  const target = openImage(host, file, {
    format,
    write: true,
    cache: options.cache,
    unmap: true,
    ...(plan.sync === 'full' ? {} : { lock: 'share' as const }),
  });
  let node: MirrorNode;
  try {
    node = new MirrorNode(source, target, failed);
  } catch (error) {
    target.close();
    throw error;
  }
  drive.setMirror(node);
  const leave = (): void => {
    drive.setMirror(undefined);
    target.close();
  };
  return {
    job: plan.sync === 'none' ? nothing(source) : mirrorJob(node, source, plan.sync),
    waits: true,
    finish: () => {
      target.flush();
      leave();
      drive.reopen({ ...options, backing: undefined, file, format: target.format, nodeName: plan.nodeName ?? options.nodeName });
    },
    undo: leave,
  };
}

function create(drive: Drive, path: string, format: string, backing: BlockNode | null): void {
  const { host, image } = drive;
  if (format !== 'qcow2' && format !== 'raw')
    throw new BlockError('unsupported', `a mirror is made as qcow2 or raw, not as '${format}'`);
  if (format === 'raw' && backing !== null) throw new BlockError('invalid', 'a raw image has no backing file: use sync=full');
  const file = host.openFile(path, { write: true, create: true });
  try {
    if (format === 'raw') file.truncate(image.size);
    else
      createQcow2(file, host, {
        size: image.size,
        backingFile: backing?.filename ?? null,
        backingFormat: backing?.format ?? null,
      });
  } finally {
    file.close();
  }
}

/** sync=none: only what is written from now on. */
function* nothing(source: BlockNode): Job {
  yield { done: source.size, total: source.size };
}
