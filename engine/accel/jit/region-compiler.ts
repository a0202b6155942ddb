/**
 * Compiles the regions that vCPUs ask for. What was made for one vCPU serves the others, as long as they have decoded the
 * same instructions in the same places.
 */
import { RECORD_WORDS, type RegionJob, RUN } from './region-job.ts';
import { encodeRegion, type RegionOptions } from './regions.ts';

/** What a vCPU is given for a job. */
export interface RegionReply {
  /** The job's number. */
  readonly id: number;
  /** Undefined: it could not be made into a region. */
  readonly region: CompiledRegion | undefined;
  /** Time that it took; 0 where another vCPU had it made. */
  readonly microseconds: number;
  /** What went wrong, where it is a defect and not the guest's code. */
  readonly error?: string;
}

export interface CompiledRegion {
  readonly module: WebAssembly.Module;
  /** Bytes of the module. */
  readonly size: number;
  /** Offsets of the runs whose addresses the module imports, by number. */
  readonly bases: readonly number[];
  /** Numbers of the job's runs that the code was made from: they must still be what they were. */
  readonly used: readonly number[];
  /** Offsets where it can be entered, the job's first. */
  readonly entries: readonly number[];
}

/** A region, and what it was made from. */
interface Kept {
  readonly module: WebAssembly.Module;
  readonly size: number;
  readonly bases: readonly number[];
  readonly entries: readonly number[];
  /** By offset: page and contents of the runs used. */
  readonly runs: ReadonlyMap<number, { readonly page: number; readonly hash: bigint }>;
}

/** Regions that are kept for other vCPUs at most. */
const MAX_KEPT = 8192;

export class RegionCompiler {
  readonly #options: RegionOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #shares: boolean;

  /** `shares`: there are several vCPUs. */
  constructor(options: RegionOptions, shares: boolean) {
    this.#options = options;
    this.#shares = shares;
  }

  compile(job: RegionJob): RegionReply {
    const { id } = job;
    const key = `${job.page} ${job.entry} ${job.mode} ${job.far}`;
    const kept = this.#kept.get(key);
    const used = kept === undefined ? undefined : usedOf(kept, job);
    if (kept !== undefined && used !== undefined)
      return {
        id,
        region: { module: kept.module, size: kept.size, bases: kept.bases, used, entries: kept.entries },
        microseconds: 0,
      };
    const started = performance.now();
    const microseconds = (): number => (performance.now() - started) * 1000;
    try {
      const encoded = encodeRegion(job, this.#options);
      if (encoded === undefined) return { id, region: undefined, microseconds: microseconds() };
      const { entries } = encoded;
      const offsets = offsetsOf(job);
      const bases = encoded.bases.map((run) => offsets[run] ?? job.others[run - offsets.length]);
      const module = new WebAssembly.Module(encoded.bytes);
      const size = encoded.bytes.length;
      if (this.#shares) this.#keep(key, { module, size, bases, entries, runs: runsOf(job, encoded.used) });
      return { id, region: { module, size, bases, used: encoded.used, entries }, microseconds: microseconds() };
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      return { id, region: undefined, microseconds: microseconds(), error: text };
    }
  }

  #keep(key: string, kept: Kept): void {
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    if (this.#kept.size <= MAX_KEPT) return;
    for (const oldest of this.#kept.keys()) {
      this.#kept.delete(oldest);
      return;
    }
  }
}

/** Offsets of a job's runs. */
function offsetsOf({ runs }: RegionJob): number[] {
  return Array.from({ length: runs.length / RUN.words }, (_, n) => runs[n * RUN.words + RUN.offset]);
}

function runsOf(job: RegionJob, used: readonly number[]): Kept['runs'] {
  return new Map(
    used.map((run) => [
      job.runs[run * RUN.words + RUN.offset],
      { page: job.runs[run * RUN.words + RUN.page], hash: hashOf(job, run) },
    ]),
  );
}

/** The numbers of the job's runs that a region was made from; undefined where the job has others there, or lacks one. */
function usedOf(kept: Kept, job: RegionJob): readonly number[] | undefined {
  const numbers = new Map(offsetsOf(job).map((offset, n) => [offset, n]));
  const others = new Set(job.others);
  for (const base of kept.bases) if (!numbers.has(base) && !others.has(base)) return undefined;
  const used: number[] = [];
  for (const [offset, { page, hash }] of kept.runs) {
    const run = numbers.get(offset);
    if (run === undefined || job.runs[run * RUN.words + RUN.page] !== page || hashOf(job, run) !== hash) return undefined;
    used.push(run);
  }
  return used;
}

/** 64 bits of what a run holds (two sums of Fowler, Noll and Vo's kind, of 32 bits). */
function hashOf({ runs, records }: RegionJob, run: number): bigint {
  const at = run * RUN.words;
  const start = runs[at + RUN.at] * RECORD_WORDS;
  const end = start + runs[at + RUN.records] * RECORD_WORDS;
  let a = 0x811c9dc5 | 0;
  let b = 0x9dc5811c | 0;
  for (let n = start; n < end; n++) {
    a = Math.imul(a ^ records[n], 0x01000193);
    a ^= a >>> 15;
    b = Math.imul(b ^ (records[n] + n - start), 0x85ebca6b);
    b ^= b >>> 13;
  }
  return (BigInt(a >>> 0) << 32n) | BigInt(b >>> 0);
}
