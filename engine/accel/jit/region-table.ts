/** The regions of one vCPU: those that are being made elsewhere, and those in its table of functions. */
import { pageOfOffset } from '../../exec/control-flow.ts';
import * as S from '../../memory/vcpu-state.ts';
import type { CodeCache } from './code-cache.ts';
import { Handler, HOT_ENTRIES } from './handlers.ts';
import type { CompiledRegion, RegionReply } from './region-compiler.ts';
import { gatherRegion, isSameRun, type RegionJob, RUN } from './region-job.ts';

/** Regions at one time; when they are used up, all code is dropped and translation starts anew. */
export const MAX_REGIONS = 16384;

/** The word of a run's first record in which its entries are counted. */
const COUNT = S.RECORD.imm / 4;

export interface RegionImports {
  readonly memory: WebAssembly.Memory;
  readonly table: WebAssembly.Table;
  readonly helpers: Record<string, unknown>;
  readonly jump: unknown;
}

export class RegionTable {
  readonly #cache: CodeCache;
  readonly #imports: RegionImports;
  /** The first entry of the table that is for regions, and how many are taken. */
  readonly #first: number;
  #taken = 0;
  readonly #jobs = new Map<number, { readonly job: RegionJob; readonly counts: ReadonlyMap<number, number> }>();
  #last = 0;

  constructor(cache: CodeCache, imports: RegionImports, first: number) {
    this.#cache = cache;
    this.#imports = imports;
    this.#first = first;
  }

  /** How many there are. */
  get count(): number {
    return this.#taken;
  }
  get isFull(): boolean {
    return this.#taken === MAX_REGIONS;
  }

  /**
   * What the hot run at `offset` of a page reaches, to be made into a region. `frame` gives the page of the backing that
   * page `n` from there is, or -1.
   */
  gather(page: number, offset: number, mode: number, far: boolean, frame: (n: number) => number): RegionJob {
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
    const job = gatherRegion(source, ++this.#last, page, offset, mode, far);
    this.#jobs.set(job.id, { job, counts: this.#holdBack(job) });
    return job;
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

  /** Puts a region that was made into the table, if all that it was made from is as it was. Gives its job if it did. */
  install({ id, region }: RegionReply): RegionJob | undefined {
    const known = this.#jobs.get(id);
    if (known === undefined) return undefined;
    const { job, counts } = known;
    this.#jobs.delete(id);
    for (const [address, count] of counts) {
      const at = this.#cache.wordOf(address);
      if (this.#cache.words[at] === Handler.COUNT) this.#cache.words[at + COUNT] = count;
    }
    if (region === undefined || this.isFull) return undefined;
    const addresses = this.#check(job, region);
    if (addresses === undefined) return undefined;
    const { memory, table, jump, helpers } = this.#imports;
    const bases: Record<string, number> = {};
    for (const [n, offset] of region.bases.entries()) bases[n] = addresses.get(offset) as number;
    const instance = new WebAssembly.Instance(region.module, { e: { memory, table, jump }, h: helpers, r: bases });
    const index = this.#first + this.#taken++;
    table.set(index, instance.exports.region);
    this.#enter(job, region, index);
    return job;
  }

  /** The addresses of the job's runs by offset; undefined where one that the region needs is gone or another. */
  #check(job: RegionJob, { used, bases }: CompiledRegion): ReadonlyMap<number, number> | undefined {
    const cache = this.#cache;
    const { runs, mode } = job;
    const pages = new Map<number, number>([[0, job.page]]);
    for (let at = 0; at < runs.length; at += RUN.words) pages.set(pageOfOffset(runs[at]), runs[at + RUN.page]);
    const addresses = new Map<number, number>();
    const addressOf = (offset: number): number => {
      const known = addresses.get(offset) ?? cache.find(pages.get(pageOfOffset(offset)) ?? -1, offset & 0xfff, mode);
      addresses.set(offset, known);
      return known;
    };
    for (const run of used) {
      const address = addressOf(runs[run * RUN.words + RUN.offset]);
      if (address === 0 || !isSameRun(cache.words, cache.wordOf(address), job, run * RUN.words)) return undefined;
    }
    for (const offset of bases) if (addressOf(offset) === 0) return undefined;
    return addresses;
  }

  /** From now on the records of its entries enter the region. */
  #enter(job: RegionJob, { used, entries }: CompiledRegion, index: number): void {
    const cache = this.#cache;
    const { words } = cache;
    const others = new Set(used.map((run) => job.runs[run * RUN.words + RUN.page]));
    others.delete(job.page);
    for (const [n, offset] of entries.entries()) {
      const address = cache.find(job.page, offset, job.mode);
      const at = cache.wordOf(address);
      // Where another region starts already it stays.
      if (n > 0 && words[at] !== Handler.COUNT) continue;
      words[at] = index;
      words[at + COUNT] = n;
      if (!job.far) words[at + S.RECORD.disp / 4] = 0;
      // A write into any of its pages ends it.
      for (const other of others) cache.depend(other, address);
    }
  }

  /** Drops all of them. */
  clear(): void {
    for (let n = 0; n < this.#taken; n++) this.#imports.table.set(this.#first + n, null);
    this.#taken = 0;
    this.#jobs.clear();
  }
}
