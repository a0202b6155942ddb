/**
 * Compiles the regions that vCPUs ask for, and keeps them: for the other vCPUs of the machine, and, where there is a
 * store, for machines that are started later. A region that is kept serves whoever has decoded the same instructions at the
 * same places of their pages; what it was made from goes with it, so that this can be seen.
 */
import { pageOfOffset } from '../../exec/control-flow.ts';
import { areSameRuns, copiesOf, type Marks, markOf, type RegionJob, RUN, type RunCopies } from './region-job.ts';
import { encodeRegion, type RegionOptions } from './regions.ts';

/** What a vCPU is given for a job. */
export interface RegionReply {
  /** The job's number. */
  readonly id: number;
  /** Undefined: it could not be made into a region, or none was kept. */
  readonly region: CompiledRegion | undefined;
  /** Time that it took; 0 where it was kept. */
  readonly microseconds: number;
  /** What went wrong, where it is a defect and not the guest's code. */
  readonly error?: string;
}

/** What a region was made from, and what it needs. */
export interface RegionDescription {
  /** The runs that must be what they were, that of the entry first. */
  readonly code: RunCopies;
  /** Offsets of the runs whose addresses the module imports, by number. */
  readonly bases: readonly number[];
  /** Pages, from the entry's, whose pages of the backing it imports, by number. */
  readonly frames: readonly number[];
  /** Offsets where it can be entered, the job's first. */
  readonly entries: readonly number[];
  /** Bytes of the module. */
  readonly size: number;
}
export interface CompiledRegion extends RegionDescription {
  readonly module: WebAssembly.Module;
}

/** A region as it is stored: with its module, and the machine code that V8 has made of it. */
export interface StoredRegion extends RegionDescription, Pick<RegionJob, 'entry' | 'mode' | 'far'> {
  readonly bytes: Uint8Array;
  readonly native: Uint8Array;
}

/** Where regions are kept when the machine has ended. */
export interface RegionStore {
  /** The marks of those that it has. */
  readonly marks: Iterable<number>;
  /** Those with a mark, the last that was added first. */
  find(mark: number): readonly StoredRegion[];
  /** False: there is no more room. */
  add(mark: number, region: StoredRegion): boolean;
}

/** A region's module as V8 has it. */
export interface WatchedModule {
  /** Its machine code; undefined while V8 has not optimized it. */
  take(): Uint8Array | undefined;
  /** Has V8 optimize it at once. */
  optimize(): void;
}

/** Machine code of modules. */
export interface NativeCode {
  watch(module: WebAssembly.Module): WatchedModule;
  /** A module with the machine code that was taken from one of the same bytes; without it where this V8 or CPU has no use for it. */
  module(bytes: Uint8Array, native: Uint8Array): WebAssembly.Module;
}

export interface RegionShelf {
  readonly store: RegionStore;
  readonly native: NativeCode;
}

interface Kept extends RegionDescription, Pick<RegionJob, 'entry' | 'mode' | 'far'> {
  module(): WebAssembly.Module;
}

/** Regions that are kept in memory at most, and those that wait for being stored. */
const MAX_KEPT = 8192;
const MAX_WAITING = 2048;

export class RegionCompiler {
  readonly #options: RegionOptions;
  readonly #marks: Marks;
  readonly #shelf: RegionShelf | undefined;
  /** By mark. */
  readonly #kept = new Map<number, Kept[]>();
  #count = 0;
  /** Not stored yet. */
  #waiting: { mark: number; kept: Kept; bytes: Uint8Array; watched: WatchedModule }[] = [];
  /** Something was asked for since `store`. */
  #isBusy = false;

  /** `marks`: where those of the regions that are kept go, for vCPUs to look at. */
  constructor(options: RegionOptions, marks: Marks, shelf?: RegionShelf) {
    this.#options = options;
    this.#marks = marks;
    this.#shelf = shelf;
    for (const mark of shelf?.store.marks ?? []) marks.add(mark);
  }

  compile(job: RegionJob): RegionReply {
    const { id, entry, mode, far } = job;
    this.#isBusy = true;
    const mark = markOf(job, job);
    const started = performance.now();
    const microseconds = (): number => (performance.now() - started) * 1000;
    try {
      for (const kept of this.#candidates(mark)) {
        if (!serves(kept, job)) continue;
        const { code, bases, frames, entries, size } = kept;
        return { id, region: { module: kept.module(), code, bases, frames, entries, size }, microseconds: 0 };
      }
      if (job.kept) return { id, region: undefined, microseconds: 0 };
      const encoded = encodeRegion(job, this.#options);
      if (encoded === undefined) return { id, region: undefined, microseconds: microseconds() };
      const { bytes, frames, entries } = encoded;
      const offsets = offsetsOf(job);
      const bases = encoded.bases.map((run) => offsets[run] ?? job.others[run - offsets.length]);
      const module = new WebAssembly.Module(bytes as BufferSource);
      const description = { code: copiesOf(job, encoded.used), bases, frames, entries, size: bytes.length };
      const kept = { ...description, entry, mode, far, module: () => module };
      this.#keep(mark, kept);
      if (this.#shelf !== undefined) {
        this.#waiting.push({ mark, kept, bytes, watched: this.#shelf.native.watch(module) });
        if (this.#waiting.length > MAX_WAITING) this.#waiting.shift();
      }
      return { id, region: { ...description, module }, microseconds: microseconds() };
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return { id, region: undefined, microseconds: microseconds(), error: text };
    }
  }

  /**
   * Stores what V8 has optimized meanwhile. Where nothing was asked for since the last time, the others are optimized too, for
   * some milliseconds: they are hot, if not enough for V8 yet.
   */
  store(milliseconds: number): void {
    const shelf = this.#shelf;
    if (shelf === undefined) return;
    const until = performance.now() + (this.#isBusy ? 0 : milliseconds);
    this.#isBusy = false;
    this.#waiting = this.#waiting.filter(({ mark, kept, bytes, watched }) => {
      if (performance.now() < until) watched.optimize();
      const native = watched.take();
      if (native === undefined) return true;
      const { entry, mode, far, code, bases, frames, entries, size } = kept;
      shelf.store.add(mark, { entry, mode, far, code, bases, frames, entries, size, bytes, native });
      return false;
    });
  }

  /** What is kept with a mark; at the first time also what is stored. */
  #candidates(mark: number): readonly Kept[] {
    const known = this.#kept.get(mark);
    if (known !== undefined || this.#shelf === undefined || !this.#marks.has(mark)) return known ?? [];
    const { store, native } = this.#shelf;
    for (const stored of store.find(mark).toReversed()) {
      const { bytes, native: code, ...rest } = stored;
      // The module has copies of both.
      let made: WebAssembly.Module | (() => WebAssembly.Module) = () => native.module(bytes, code);
      const module = (): WebAssembly.Module => {
        if (typeof made === 'function') made = made();
        return made;
      };
      this.#keep(mark, { ...rest, module });
    }
    return this.#kept.get(mark) ?? [];
  }

  #keep(mark: number, kept: Kept): void {
    this.#marks.add(mark);
    this.#kept.set(mark, [kept, ...(this.#kept.get(mark) ?? [])]);
    if (++this.#count <= MAX_KEPT) return;
    for (const [oldest, { length }] of this.#kept) {
      this.#kept.delete(oldest);
      this.#count -= length;
      return;
    }
  }
}

/** The job that a region which was kept was made for, as far as can be told. */
export function wholeJob(job: RegionJob, { code, bases }: RegionDescription): RegionJob {
  const offsets = new Set(offsetsOf(code));
  return { ...job, ...code, kept: false, others: Int32Array.from(bases.filter((offset) => !offsets.has(offset))) };
}

/** Offsets of runs. */
function offsetsOf({ runs }: RunCopies): number[] {
  return Array.from({ length: runs.length / RUN.words }, (_, n) => runs[n * RUN.words + RUN.offset]);
}

/**
 * True where a region that is kept can be given for a job: all that it was made from is in it, as far as the job says what
 * there is. Whether that is still so is seen when the region comes.
 */
function serves(kept: Kept, job: RegionJob): boolean {
  if (kept.entry !== job.entry || kept.mode !== job.mode || kept.far !== job.far) return false;
  if (!areSameRuns(kept.code, 0, job, 0)) return false;
  if (job.kept) return true;
  const numbers = new Map(offsetsOf(job).map((offset, n) => [offset, n]));
  const others = new Set(job.others);
  for (const base of kept.bases) if (!numbers.has(base) && !others.has(base)) return false;
  const pages = new Set([...numbers.keys()].map(pageOfOffset));
  for (const frame of kept.frames) if (!pages.has(frame)) return false;
  for (const [n, offset] of offsetsOf(kept.code).entries()) {
    const run = numbers.get(offset);
    if (run === undefined || !areSameRuns(kept.code, n * RUN.words, job, run * RUN.words)) return false;
  }
  return true;
}
