/** The regions of one vCPU: those that are being made elsewhere, and those in its table of functions. */
import { pageOfOffset } from '../../exec/control-flow.ts';
import type { CodeCache } from './code-cache.ts';
import { Handler, HOT_ENTRIES } from './handlers.ts';
import type { CompiledRegion, RegionReply } from './region-compiler.ts';
import {
  askForKept,
  COUNT,
  COUNT_BIAS,
  countOn,
  gatherRegion,
  isSameRun,
  type Marks,
  markOf,
  type RegionJob,
  type RegionPlace,
  RUN,
} from './region-job.ts';
import { FAR_ENTRIES } from './regions.ts';

/** Regions at one time; when they are used up, all code is dropped and translation starts anew. */
export const MAX_REGIONS = 16384;

/** Entries left before a far region is asked for, where one is kept. */
const FAR_KEPT_ENTRIES = 2000;

export interface RegionImports {
  readonly memory: WebAssembly.Memory;
  readonly table: WebAssembly.Table;
  readonly helpers: Record<string, unknown>;
  readonly jump: unknown;
}

/** Makes the run at an offset of a page of the backing, which is fetched at a linear address; gives its record, or 0. */
export type DecodeRun = (page: number, offset: number, mode: number, address: number) => number;

/** What became of a region that was asked for. */
export interface InstalledRegion {
  readonly job: RegionJob;
  /** Linear address of the entry's page where it was asked for. */
  readonly base: number;
  readonly done: boolean;
}

interface Asked extends Omit<InstalledRegion, 'done'> {
  /** The page of the backing that a page from the entry's is. */
  readonly frame: (page: number) => number;
  /** Counts of its other runs before, by record. */
  readonly counts: ReadonlyMap<number, number>;
}

export class RegionTable {
  readonly #cache: CodeCache;
  readonly #imports: RegionImports;
  /** The first entry of the table that is for regions, and how many are taken. */
  readonly #first: number;
  #taken = 0;
  readonly #jobs = new Map<number, Asked>();
  #last = 0;
  /** Runs with a region that asked for a far one that is kept, and were given none. */
  readonly #unkept = new Set<number>();
  /** Of the regions that are kept. */
  readonly #marks: Marks | undefined;

  constructor(cache: CodeCache, imports: RegionImports, first: number, marks: Marks | undefined) {
    this.#cache = cache;
    this.#imports = imports;
    this.#first = first;
    this.#marks = marks;
  }

  /** How many there are. */
  get count(): number {
    return this.#taken;
  }
  get isFull(): boolean {
    return this.#taken === MAX_REGIONS;
  }

  /**
   * What to ask for where the run at `record` has become hot: what is kept of it, as far as there may be something, or a region
   * of what it reaches; undefined: nothing yet. `base`: linear address of its page; `frame` gives the page of the backing
   * that page `n` from there is, or -1.
   */
  request(record: number, place: RegionPlace, base: number, frame: Asked['frame']): RegionJob | undefined {
    if (!this.#asks(record)) return this.#gather(place, base, frame);
    const { words } = this.#cache;
    const job = askForKept(words, this.#cache.wordOf(record), ++this.#last, place);
    if (this.#marks?.has(markOf(job, job)) === true) {
      this.#jobs.set(job.id, { job, base, counts: new Map(), frame: (n) => (n === 0 ? place.page : frame(n)) });
      return job;
    }
    // It has counted as far as others have to.
    if (place.far) return this.#gather(place, base, frame);
    this.#countOn(record);
    return undefined;
  }

  #gather(place: RegionPlace, base: number, frame: Asked['frame']): RegionJob {
    const { page, mode } = place;
    const cache = this.#cache;
    const frames = new Map([[0, page]]);
    const frameOf = (n: number): number => {
      let known = frames.get(n);
      if (known === undefined) {
        known = frame(n);
        frames.set(n, known);
      }
      return known;
    };
    const find = (at: number): number => {
      const from = frameOf(pageOfOffset(at));
      return from < 0 ? -1 : cache.wordOf(cache.find(from, at & 0xfff, mode));
    };
    const source = { words: cache.words, find, frame: frameOf };
    const job = gatherRegion(source, ++this.#last, place);
    const pages = pagesOf(job);
    this.#jobs.set(job.id, { job, base, counts: this.#holdBack(job), frame: (n) => pages.get(n) ?? -1 });
    return job;
  }

  /** True where the run at `record`, which is hot now, is to ask for what is kept of it first. */
  #asks(record: number): boolean {
    const { words } = this.#cache;
    const at = this.#cache.wordOf(record);
    if (words[at] === Handler.COUNT) return words[at + COUNT_BIAS] < 0;
    return this.#marks !== undefined && !this.#unkept.has(record);
  }

  /** Nothing is kept of the run at `record`: it is to become hot as others do. */
  #countOn(record: number): void {
    const { words } = this.#cache;
    const at = this.#cache.wordOf(record);
    if (words[at] === Handler.COUNT) countOn(words, at);
    else {
      this.#unkept.add(record);
      words[at + COUNT_BIAS] = 0;
    }
  }

  /** Until the region is there its other runs do not become hot: most of them will not be entered any more. Gives their counts, by record. */
  #holdBack({ runs, mode }: RegionJob): ReadonlyMap<number, number> {
    const cache = this.#cache;
    const { words } = cache;
    const counts = new Map<number, number>();
    for (let run = RUN.words; run < runs.length; run += RUN.words) {
      const address = cache.find(runs[run + RUN.page], runs[run + RUN.offset] & 0xfff, mode);
      const at = cache.wordOf(address);
      if (words[at] !== Handler.COUNT || words[at + COUNT] > HOT_ENTRIES) continue;
      counts.set(address, words[at + COUNT]);
      words[at + COUNT] = HOT_ENTRIES + 1;
    }
    return counts;
  }

  /**
   * Puts a region that was made into the table, if all that it was made from is as it was. Gives its job, and whether it did.
   */
  install({ id, region }: RegionReply, decode: DecodeRun): InstalledRegion | undefined {
    const known = this.#jobs.get(id);
    if (known === undefined) return undefined;
    const { job, base, counts, frame } = known;
    this.#jobs.delete(id);
    for (const [address, count] of counts) {
      const at = this.#cache.wordOf(address);
      if (this.#cache.words[at] === Handler.COUNT) this.#cache.words[at + COUNT] = count;
    }
    const done =
      region !== undefined &&
      !this.isFull &&
      this.#put(job, region, frame, (page, offset, mode) => decode(page, offset & 0xfff, mode, base + offset));
    if (!done && job.kept) {
      const record = this.#cache.find(job.page, job.entry, job.mode);
      if (record !== 0) this.#countOn(record);
    }
    return { job, base, done };
  }

  #put(
    job: RegionJob,
    region: CompiledRegion,
    frame: Asked['frame'],
    decode: (...place: [number, number, number]) => number,
  ): boolean {
    const pages = new Map<number, number>();
    const pageOf = (n: number): number => {
      let page = pages.get(n);
      if (page === undefined) {
        page = frame(n);
        pages.set(n, page);
      }
      return page;
    };
    const addresses = this.#check(job, region, pageOf, decode);
    if (addresses === undefined) return false;
    const { memory, table, jump, helpers } = this.#imports;
    const bases = Object.fromEntries(region.bases.map((offset, n) => [n, addresses.get(offset) as number]));
    const frames = Object.fromEntries(region.frames.map((page, n) => [n, pageOf(page)]));
    const instance = new WebAssembly.Instance(region.module, { e: { memory, table, jump }, h: helpers, f: frames, r: bases });
    const index = this.#first + this.#taken++;
    table.set(index, instance.exports.region);
    this.#enter(job, region, pageOf, index);
    return true;
  }

  /** The addresses of the job's runs by offset; undefined where one that the region needs is gone or another. */
  #check(
    job: RegionJob,
    { code, bases, frames }: CompiledRegion,
    pageOf: Asked['frame'],
    decode: (...place: [number, number, number]) => number,
  ): ReadonlyMap<number, number> | undefined {
    const cache = this.#cache;
    const { mode } = job;
    if (frames.some((frame) => pageOf(frame) < 0)) return undefined;
    const addresses = new Map<number, number>();
    const addressOf = (offset: number): number => {
      const known = addresses.get(offset);
      if (known !== undefined) return known;
      const page = pageOf(pageOfOffset(offset));
      if (page < 0) return 0;
      let address = cache.find(page, offset & 0xfff, mode);
      // What a region that was kept has beyond what was run here yet. The entry comes first, and is there.
      if (address === 0 && addresses.size > 0) address = decode(page, offset, mode);
      addresses.set(offset, address);
      return address;
    };
    for (let run = 0; run < code.runs.length; run += RUN.words) {
      const address = addressOf(code.runs[run + RUN.offset]);
      if (address === 0 || !isSameRun(cache.words, cache.wordOf(address), code, run)) return undefined;
    }
    for (const offset of bases) if (addressOf(offset) === 0) return undefined;
    return addresses;
  }

  /** From now on the records of its entries enter the region. */
  #enter(job: RegionJob, { frames, entries }: CompiledRegion, pageOf: Asked['frame'], index: number): void {
    const cache = this.#cache;
    const { words } = cache;
    const others = new Set(frames.map(pageOf));
    others.delete(job.page);
    const far = job.far || this.#marks?.has(markOf(job, { ...job, far: true })) !== true ? 0 : FAR_ENTRIES - FAR_KEPT_ENTRIES;
    for (const [n, offset] of entries.entries()) {
      const address = cache.find(job.page, offset, job.mode);
      const at = cache.wordOf(address);
      // Where another region starts already it stays.
      if (n > 0 && words[at] !== Handler.COUNT) continue;
      words[at] = index;
      words[at + COUNT] = n;
      if (!job.far) words[at + COUNT_BIAS] = n === 0 ? far : 0;
      // A write into any of its pages ends it.
      for (const other of others) cache.depend(other, address);
    }
  }

  /** Drops all of them. */
  clear(): void {
    for (let n = 0; n < this.#taken; n++) this.#imports.table.set(this.#first + n, null);
    this.#taken = 0;
    this.#jobs.clear();
    this.#unkept.clear();
  }
}

/** Pages of the backing by their number from the entry's. */
function pagesOf({ runs, page }: RegionJob): Map<number, number> {
  const pages = new Map<number, number>([[0, page]]);
  for (let at = 0; at < runs.length; at += RUN.words) pages.set(pageOfOffset(runs[at]), runs[at + RUN.page]);
  return pages;
}
