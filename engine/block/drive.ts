/**
 * A drive in use: an image (with its backing chain) behind a disk that stays the same object for its controller while what
 * is behind it changes: another medium, a snapshot on top, an image committed into its base, a mirror taken over.
 *
 * Every change of the chain is made the same way: all files are closed (which leaves each image whole), what is to be
 * changed is changed, and the chain is opened anew from its top. It happens between two requests, so that the guest sees
 * none of it. Where opening fails, the chain that was there before is opened again, and the change is an error.
 *
 * Long work (`DriveJob`) is done by `work`, a step at a time. Everything runs on the thread that owns the drive.
 */

import { type DriveJob, type JobPlan, startJob } from './drive-jobs.ts';
import { BlockError } from './errors.ts';
import type { BlockFile, BlockHost, OpenFileOptions } from './file.ts';
import { FilterNode, type MirrorNode, ReadOnlyFilter, WriteThroughNode, ZeroDetection } from './filters.ts';
import { Limits, type LimitValues } from './limits.ts';
import type { BlockNode } from './node.ts';
import { type OpenImageOptions, openImage, probeFormat } from './open.ts';
import { createQcow2 } from './qcow2/create.ts';
import { Qcow2Node } from './qcow2/node.ts';
import type { Snapshot } from './qcow2/snapshot.ts';

export interface DriveOptions {
  /** Absolute, or a server. */
  readonly file: string;
  readonly format?: string;
  readonly readOnly: boolean;
  readonly cache: NonNullable<OpenFileOptions['cache']>;
  /** Discards reach the file; else they have no effect. */
  readonly unmap: boolean;
  /** Zeros that the guest writes take no storage (`on`), or give back what there was (`unmap`). */
  readonly detectZeroes?: 'off' | 'on' | 'unmap';
  /** What block commands call the topmost image. */
  readonly nodeName: string;
  /** Use this as the backing file, whatever the image says. */
  readonly backing?: { readonly file: string; readonly format?: string };
  readonly allowDeviceBacking?: boolean;
}

/** One image of a chain, as `query-named-block-nodes` tells it. */
export interface ImageDescription {
  readonly nodeName: string;
  readonly file: string;
  readonly format: string;
  readonly virtualSize: number;
  /** Bytes on the host; undefined where it does not say. */
  readonly actualSize?: number;
  readonly clusterSize?: number;
  readonly encrypted: boolean;
  readonly readOnly: boolean;
  /** What its header names as its backing file. */
  readonly backingFile?: string;
  readonly backingFormat?: string;
  readonly snapshots: readonly SnapshotDescription[];
}

/** An internal snapshot. Times in the units of QAPI's `SnapshotInfo`. */
export interface SnapshotDescription {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly vmClockNs: number;
  /** Bytes of the disk. */
  readonly diskSize: number;
}

export interface DriveDescription {
  /** Undefined: there is no medium. */
  readonly options?: DriveOptions;
  /** Topmost first. */
  readonly chain: readonly ImageDescription[];
  readonly limits: LimitValues;
}

export const describeSnapshot = (snapshot: Snapshot): SnapshotDescription => ({
  id: snapshot.id,
  name: snapshot.name,
  vmStateSize: snapshot.vmStateSize,
  seconds: snapshot.seconds,
  nanoseconds: snapshot.nanoseconds,
  vmClockNs: snapshot.vmClock,
  diskSize: snapshot.diskSize,
});

/** `discard=ignore`: the guest may discard, and nothing comes of it. */
class KeepNode extends FilterNode {
  override discard(): void {}
  override writeZeroes(offset: number, length: number): void {
    this.inner.writeZeroes(offset, length, false);
  }
}

/** What a controller holds. Without a medium it has no bytes, and every request is an error. */
class Front {
  node: BlockNode | undefined;
  readonly limits: Limits;
  constructor(limits: Limits) {
    this.limits = limits;
  }
  get size(): number {
    return this.node?.size ?? 0;
  }
  get readOnly(): boolean {
    return this.node?.readOnly ?? true;
  }
  get #medium(): BlockNode {
    if (this.node === undefined) throw new BlockError('not-found', 'the drive has no medium');
    return this.node;
  }
  read(offset: number, buffer: Uint8Array): void {
    this.limits.take('read', buffer.length);
    this.#medium.read(offset, buffer);
  }
  write(offset: number, buffer: Uint8Array): void {
    this.limits.take('write', buffer.length);
    this.#medium.write(offset, buffer);
  }
  flush(): void {
    this.#medium.flush();
  }
  discard(offset: number, length: number): void {
    this.limits.take('write', 0);
    this.#medium.discard(offset, length);
  }
  writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.limits.take('write', 0);
    this.#medium.writeZeroes(offset, length, unmap);
  }
}

/** What a drive tells whoever owns it. */
export interface DriveHooks {
  /** A job went on, became ready, or ended. */
  job(job: DriveJob): void;
  /** Waits so long; a limit was reached. */
  sleep(milliseconds: number): void;
}

export class Drive {
  readonly host: BlockHost;
  readonly disk: Front;
  readonly hooks: DriveHooks;
  readonly #jobs = new Map<string, DriveJob>();
  readonly #names = new Map<string, string>();
  #options: DriveOptions | undefined;
  #node: BlockNode | undefined;
  /** Jobs put their mirrors between the guest and the image. */
  #mirror: MirrorNode | undefined;
  #unnamed = 0;
  /** Called when the drive is closed for good. */
  readonly #closed: () => void;

  /** Opens the image; `options` undefined: no medium. Throws a `BlockError` that says which file and why. */
  constructor(host: BlockHost, options: DriveOptions | undefined, hooks: DriveHooks, closed: () => void = () => {}) {
    this.host = host;
    this.hooks = hooks;
    this.#closed = closed;
    this.disk = new Front(new Limits((milliseconds) => hooks.sleep(milliseconds)));
    if (options !== undefined) this.#open(options);
  }

  get options(): DriveOptions | undefined {
    return this.#options;
  }

  /** The topmost image; throws where there is no medium. */
  get image(): BlockNode {
    if (this.#node === undefined) throw new BlockError('not-found', 'the drive has no medium');
    return this.#node;
  }

  /** The topmost image as one that can hold snapshots and VM state. */
  get snapshots(): Qcow2Node {
    const { image } = this;
    if (!(image instanceof Qcow2Node))
      throw new BlockError('unsupported', `${image.filename}: images of format ${image.format} cannot hold snapshots`);
    return image;
  }

  // --- the chain --------------------------------------------------------------------------------------------------

  #open(options: DriveOptions, more: OpenImageOptions = {}): void {
    const { file, format, readOnly, cache, unmap, backing, allowDeviceBacking } = options;
    this.#node = openImage(this.host, file, {
      format,
      write: !readOnly,
      cache,
      unmap,
      ...(backing === undefined ? {} : { backing }),
      allowDeviceBacking,
      ...more,
    });
    this.#options = options;
    this.#names.set(this.#node.filename, options.nodeName);
    this.#connect();
  }

  /** Puts what the options ask for between the guest and the image. */
  #connect(): void {
    const { image } = this;
    const options = this.#options as DriveOptions;
    let node: BlockNode = this.#mirror ?? image;
    if (options.readOnly) node = new ReadOnlyFilter(node);
    else {
      if (!options.unmap) node = new KeepNode(node);
      if (options.detectZeroes === 'on' || options.detectZeroes === 'unmap')
        node = new ZeroDetection(node, options.detectZeroes === 'unmap');
      if (options.cache === 'writethrough') node = new WriteThroughNode(node);
    }
    this.disk.node = node;
  }

  #shut(): void {
    this.disk.node = undefined;
    this.#mirror = undefined;
    const node = this.#node;
    this.#node = undefined;
    node?.close();
  }

  /** Closes the chain and opens one from `options`; where that fails, what was there is opened again. */
  reopen(options: DriveOptions, more: OpenImageOptions = {}, change: () => void = () => {}): void {
    const before = this.#options as DriveOptions;
    this.image.flush();
    this.#shut();
    try {
      change();
      this.#open(options, more);
    } catch (error) {
      this.#shut();
      this.#open(before);
      throw error;
    }
  }

  /** Lets a mirror hear what the guest writes, or takes it out again. */
  setMirror(mirror: MirrorNode | undefined): void {
    this.#mirror = mirror;
    this.#connect();
  }

  /** The images of the chain, topmost first. */
  chain(): BlockNode[] {
    const out: BlockNode[] = [];
    for (let node: BlockNode | null = this.#node ?? null; node !== null; node = node.backing) out.push(node);
    return out;
  }

  nameOf(node: BlockNode): string {
    let name = this.#names.get(node.filename);
    if (name === undefined) {
      name = `${this.#options?.nodeName ?? '#block'}-${++this.#unnamed}`;
      this.#names.set(node.filename, name);
    }
    return name;
  }

  /** An image of the chain by node name or by file name. */
  find(name: string): BlockNode {
    const path = this.host.absolutePath(name);
    const found = this.chain().find((node) => this.nameOf(node) === name || node.filename === name || node.filename === path);
    if (found === undefined) throw new BlockError('not-found', `'${name}' is not in the backing chain of the drive`);
    return found;
  }

  /** Why what is written may be lost, in words: a file of the chain is not where it was. */
  lost(): string | undefined {
    for (const node of this.chain()) {
      const reason = fileOf(node)?.lost?.();
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  describe(): DriveDescription {
    return {
      ...(this.#options === undefined || this.#node === undefined ? {} : { options: this.#options }),
      limits: this.disk.limits.values,
      chain: this.chain().map((node) => describeImage(node, this.nameOf(node))),
    };
  }

  // --- commands ---------------------------------------------------------------------------------------------------

  /** A chain must not change under a job. */
  #idle(what: string): void {
    const [job] = this.#jobs.values();
    if (job !== undefined) throw new BlockError('invalid', `the drive is in use by job '${job.id}': ${what} is not possible now`);
  }

  /** Takes the medium out (undefined), or puts another in. */
  setMedium(options: DriveOptions | undefined): void {
    this.#idle('a change of the medium');
    if (options === undefined) {
      if (this.#node !== undefined && !this.disk.readOnly) this.image.flush();
      this.#shut();
      this.#options = undefined;
    } else if (this.#node === undefined) this.#open(options);
    else this.reopen(options);
  }

  resize(size: number): void {
    this.#idle('a resize');
    this.image.resize(size);
  }

  /** Puts an overlay on top: what is written from now on goes there. `existing`: the file is there, with this backing. */
  overlay(file: string, format: string, mode: 'absolute-paths' | 'existing', nodeName: string | undefined): void {
    this.#idle('a snapshot');
    const before = this.#options as DriveOptions;
    const { image, host } = this;
    if (format !== 'qcow2') throw new BlockError('unsupported', `an overlay is of format qcow2, not '${format}'`);
    if (before.readOnly) throw new BlockError('read-only', `${image.filename}: the drive is read-only`);
    const path = host.absolutePath(file);
    if (this.chain().some(({ filename }) => filename === path))
      throw new BlockError('invalid', `'${path}' is an image of the drive already`);
    const { size } = image;
    const backing = { file: image.filename, format: before.format ?? image.format };
    if (mode === 'absolute-paths') {
      const target = host.openFile(path, { write: true, create: true });
      try {
        createQcow2(target, host, { size, backingFile: backing.file, backingFormat: backing.format });
      } finally {
        target.close();
      }
    }
    const name = nodeName ?? `${before.nodeName}-${++this.#unnamed}`;
    this.reopen({ ...before, file: path, format, nodeName: name, backing });
    if (this.image.size < size) {
      const short = `'${path}' is smaller than the drive`;
      this.reopen(before);
      throw new BlockError('invalid', short);
    }
  }

  start(plan: JobPlan): void {
    if (this.#jobs.has(plan.id)) throw new BlockError('invalid', `Job ID '${plan.id}' already in use`);
    this.#idle('another job');
    this.#jobs.set(plan.id, startJob(this, plan));
  }

  job(id: string): DriveJob {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new BlockError('not-found', `Job '${id}' not found`);
    return job;
  }

  /** Does a piece of what is left to do; returns in how many milliseconds there is more: 0 at once, Infinity nothing. */
  work(now: number): number {
    let next = Number.POSITIVE_INFINITY;
    for (const job of [...this.#jobs.values()]) {
      const wait = job.work(now);
      if (job.ended) this.#jobs.delete(job.id);
      else next = Math.min(next, wait);
    }
    return next;
  }

  setLimits(values: LimitValues): void {
    this.disk.limits.set(values);
  }

  /** Flushes and closes; never throws: `complain` is told what could not be written. */
  close(complain: (message: string) => void): void {
    for (const job of this.#jobs.values()) job.abandon();
    this.#jobs.clear();
    try {
      this.#shut();
    } catch (error) {
      complain((error as Error).message);
    }
    this.#closed();
  }
}

/** The file an image lies in, where it lies in one. */
function fileOf(node: BlockNode): BlockFile | undefined {
  return node instanceof Qcow2Node ? node.meta.file : (node as { file?: BlockFile }).file;
}

export function describeImage(node: BlockNode, nodeName: string): ImageDescription {
  const qcow2 = node instanceof Qcow2Node ? node : undefined;
  const header = qcow2?.meta.header;
  const file = fileOf(node);
  return {
    nodeName,
    file: node.filename,
    format: node.format,
    virtualSize: node.size,
    actualSize: file?.allocated?.(),
    clusterSize: qcow2?.clusterSize,
    encrypted: (header?.cryptMethod ?? 0) !== 0 || node.format === 'luks',
    readOnly: node.readOnly,
    backingFile: header?.backingFile ?? undefined,
    backingFormat: header?.backingFormat ?? undefined,
    snapshots: (qcow2?.snapshots ?? []).map(describeSnapshot),
  };
}

/** The format of a file, by its content. */
export function formatOf(host: BlockHost, file: string): string {
  const probe = host.openFile(file, { lock: 'share' });
  try {
    return probeFormat(probe);
  } finally {
    probe.close();
  }
}
