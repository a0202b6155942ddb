/**
 * What a region is made of, as a vCPU hands it over to whoever makes regions: copies of the runs that a hot entry
 * reaches. Nothing in it depends on the vCPU, so that what one had made serves the others.
 *
 * Gathering only looks at records, for it holds up the guest; what it takes may be more than the region uses.
 */
import { pageOfOffset } from '../../exec/control-flow.ts';
import * as S from '../../memory/vcpu-state.ts';
import { FIRST_FORM, forms, Handler, HOT_ENTRIES, KEPT_ENTRIES } from './handlers.ts';

export const MAX_BLOCKS = 48;
export const MAX_INSTRUCTIONS = 400;
/** A run of another page is followed into where it was entered at least once for so many entries of this one. */
const RARE = 8;

/** Words of a run in `RegionJob.runs`. */
export const RUN = { offset: 0, page: 1, at: 2, records: 3, words: 4 } as const;
/** Words of a record. */
export const RECORD_WORDS = S.RECORD_BYTES / 4;

/** Copies of runs. */
export interface RunCopies {
  /** Runs, `RUN.words` words each: offset from the start of the entry's page, page of the backing, number of the first record in `records`, how many. The entry's is the first. */
  readonly runs: Int32Array;
  /** Their records, one run after the other, behind an empty one. What differs between vCPUs is left out: counts, links, entries of regions. */
  readonly records: Int32Array;
}

/** Where a region is entered, and of which kind it is. */
export interface RegionPlace {
  /** Page of the backing, and offset there, that the region is entered at. */
  readonly page: number;
  readonly entry: number;
  readonly mode: number;
  /** It goes over into other pages. */
  readonly far: boolean;
}

export interface RegionJob extends RunCopies, RegionPlace {
  /** The vCPU's number for it. */
  readonly id: number;
  /** It asks for a region that is kept, and has the run of its entry alone. */
  readonly kept: boolean;
  /** Offsets of runs that are not in it but may be gone on at. */
  readonly others: Int32Array;
}

/** What a vCPU has, as seen from the page that a region is entered in. Offsets are bytes from its start. */
export interface RunSource {
  /** All of its records. */
  readonly words: Int32Array;
  /** The first word of the run at an offset; -1 where none was made, or its page is not known to be mapped. */
  find(offset: number): number;
  /** The page of the backing that page `n` from this one is. */
  frame(page: number): number;
}

const Kind = { INSTRUCTION: 1, DIRECT: 2, CALL: 4, END: 8 } as const;

/** What records are, by handler. */
const kinds: Uint8Array = (() => {
  const table = new Uint8Array(FIRST_FORM + forms.length);
  for (const [n, { row }] of forms.entries()) {
    let kind: number = Kind.INSTRUCTION;
    if (row.operands[0]?.kind === 'J') kind |= Kind.DIRECT;
    if (row.mnemonic.startsWith('CALL')) kind |= Kind.CALL;
    if (row.attributes.has('end')) kind |= Kind.END;
    table[FIRST_FORM + n] = kind;
  }
  return table;
})();

const isEnd = (handler: number): boolean =>
  handler === Handler.FALL ||
  handler === Handler.STEP ||
  handler === Handler.INVALID ||
  handler === Handler.TOO_LONG ||
  handler === Handler.RESYNC;

/** Records of the run that starts at a word, its end included. */
function lengthOf(words: Int32Array, start: number): number {
  for (let at = start + RECORD_WORDS; ; at += RECORD_WORDS) if (isEnd(words[at])) return (at - start) / RECORD_WORDS + 1;
}

/** Copies a run without what is the vCPU's own. */
function copyRun(words: Int32Array, start: number, length: number, into: Int32Array, at: number): void {
  into.set(words.subarray(start, start + length * RECORD_WORDS), at);
  // Its first record counts, or enters a region.
  into[at + S.RECORD.handler / 4] = Handler.COUNT;
  into[at + S.RECORD.disp / 4] = 0;
  into[at + S.RECORD.imm / 4] = 0;
  for (let n = at + RECORD_WORDS; n < at + length * RECORD_WORDS; n += RECORD_WORDS)
    if ((kinds[into[n]] & Kind.DIRECT) !== 0) into[n + S.RECORD.link / 4] = 0;
}

/** True where the run that starts at a word is what was copied. `run`: its first word in `runs`. */
export function isSameRun(words: Int32Array, start: number, { records, runs }: RunCopies, run: number): boolean {
  const from = runs[run + RUN.at] * RECORD_WORDS;
  const length = runs[run + RUN.records];
  for (let n = 1; n < length; n++) {
    const at = start + n * RECORD_WORDS;
    const handler = words[at];
    const link = (kinds[handler] & Kind.DIRECT) !== 0 ? S.RECORD.link / 4 : -1;
    for (let word = 0; word < RECORD_WORDS; word++)
      if (word !== link && words[at + word] !== records[from + n * RECORD_WORDS + word]) return false;
  }
  return true;
}

/** The words of a run's first record in which its entries are counted, and what is to be added to that: less than 0 while it will ask for what is kept. */
export const COUNT = S.RECORD.imm / 4;
export const COUNT_BIAS = S.RECORD.disp / 4;

/** Lets the run that starts at a word become hot in as many entries as if nothing had been kept of it. */
export function countOn(words: Int32Array, at: number): void {
  words[at + COUNT] = KEPT_ENTRIES;
  words[at + COUNT_BIAS] = 0;
}

/** How often a run was entered. */
function heatOf(words: Int32Array, at: number): number {
  if (words[at] === Handler.COUNT) return words[at + COUNT] + words[at + COUNT_BIAS];
  return HOT_ENTRIES + words[at + S.RECORD.disp / 4];
}

/** Gathers what the run at `entry` reaches. */
export function gatherRegion(source: RunSource, id: number, place: RegionPlace): RegionJob {
  const { entry, far } = place;
  const { words } = source;
  const starts = new Map<number, number>();
  const lengths: number[] = [];
  const others = new Set<number>();
  const queue = [entry];
  const heat = heatOf(words, source.find(entry));
  let instructions = 0;
  let records = 1;
  const follow = (offset: number): void => {
    if (starts.has(offset)) return;
    const found = source.find(offset);
    if (found < 0) return;
    others.add(offset);
    if (pageOfOffset(offset) === 0 || (far && heatOf(words, found) * RARE >= heat)) queue.push(offset);
  };
  for (let n = 0; n < queue.length && starts.size < MAX_BLOCKS && instructions < MAX_INSTRUCTIONS; n++) {
    const offset = queue[n];
    if (starts.has(offset)) continue;
    const start = source.find(offset);
    const length = lengthOf(words, start);
    starts.set(offset, start);
    others.delete(offset);
    lengths.push(length);
    records += length;
    const base = offset & ~0xfff;
    for (let at = start + RECORD_WORDS; at < start + length * RECORD_WORDS; at += RECORD_WORDS) {
      const kind = kinds[words[at]];
      if (kind === 0) continue;
      instructions++;
      const place = words[at + S.RECORD.offset / 4];
      const next = base + (place & 0xffff) + ((place >> 16) & 0xff);
      if ((kind & Kind.CALL) !== 0) follow(next);
      if ((kind & Kind.DIRECT) !== 0) follow(next + words[at + S.RECORD.imm / 4]);
      if ((kind & Kind.END) === 0 && pageOfOffset(next) !== pageOfOffset(offset)) follow(next);
    }
  }
  const runs = new Int32Array(starts.size * RUN.words);
  const copies = new Int32Array(records * RECORD_WORDS);
  let run = 0;
  let taken = 1;
  for (const [offset, start] of starts) {
    const length = lengths[run / RUN.words];
    runs[run + RUN.offset] = offset;
    runs[run + RUN.page] = source.frame(pageOfOffset(offset));
    runs[run + RUN.at] = taken;
    runs[run + RUN.records] = length;
    copyRun(words, start, length, copies, taken * RECORD_WORDS);
    taken += length;
    run += RUN.words;
  }
  for (const offset of starts.keys()) others.delete(offset);
  return { id, ...place, kept: false, runs, records: copies, others: Int32Array.from(others) };
}

/** A job that asks for what is kept of the run at a word. */
export function askForKept(words: Int32Array, start: number, id: number, place: RegionPlace): RegionJob {
  const length = lengthOf(words, start);
  const records = new Int32Array((1 + length) * RECORD_WORDS);
  copyRun(words, start, length, records, RECORD_WORDS);
  const runs = Int32Array.of(place.entry, place.page, 1, length);
  return { id, ...place, kept: true, runs, records, others: new Int32Array(0) };
}

/** The copies of some runs of a job, by number, that of the entry first; without pages, for those may be others elsewhere. */
export function copiesOf({ runs, records }: RunCopies, numbers: readonly number[]): RunCopies {
  const sorted = [...numbers].sort((a, b) => a - b);
  const count = sorted.reduce((sum, run) => sum + runs[run * RUN.words + RUN.records], 0);
  const copies = { runs: new Int32Array(sorted.length * RUN.words), records: new Int32Array((1 + count) * RECORD_WORDS) };
  let taken = 1;
  for (const [n, run] of sorted.entries()) {
    const from = run * RUN.words;
    const at = runs[from + RUN.at];
    const length = runs[from + RUN.records];
    copies.runs.set([runs[from + RUN.offset], 0, taken, length], n * RUN.words);
    copies.records.set(records.subarray(at * RECORD_WORDS, (at + length) * RECORD_WORDS), taken * RECORD_WORDS);
    taken += length;
  }
  return copies;
}

/** True where two runs that were copied are the same; `a` and `b` are their first words in `runs`. */
export function areSameRuns(one: RunCopies, a: number, other: RunCopies, b: number): boolean {
  const length = one.runs[a + RUN.records];
  if (other.runs[b + RUN.records] !== length) return false;
  const from = one.runs[a + RUN.at] * RECORD_WORDS;
  const to = other.runs[b + RUN.at] * RECORD_WORDS;
  for (let n = 0; n < length * RECORD_WORDS; n++) if (one.records[from + n] !== other.records[to + n]) return false;
  return true;
}

/** 32 bits of where a region is entered and of the run there: what regions are kept by. */
export function markOf({ runs, records }: RunCopies, { entry, mode, far }: Pick<RegionJob, 'entry' | 'mode' | 'far'>): number {
  let mark = Math.imul(0x811c9dc5 ^ entry, 0x01000193) ^ (mode << 1) ^ Number(far);
  const start = runs[RUN.at] * RECORD_WORDS;
  for (let n = start; n < start + runs[RUN.records] * RECORD_WORDS; n++) {
    mark = Math.imul(mark ^ records[n], 0x01000193);
    mark ^= mark >>> 15;
  }
  return mark;
}

const MARK_BITS = 1 << 19;

/** A set of marks that threads share, in which some are that were not put there: one bit for each of `MARK_BITS` kinds. */
export class Marks {
  readonly words: Int32Array;

  constructor(words: Int32Array = new Int32Array(new SharedArrayBuffer(MARK_BITS / 8))) {
    this.words = words;
  }
  add(mark: number): void {
    Atomics.or(this.words, (mark & (MARK_BITS - 1)) >> 5, 1 << (mark & 31));
  }
  has(mark: number): boolean {
    return ((Atomics.load(this.words, (mark & (MARK_BITS - 1)) >> 5) >> (mark & 31)) & 1) !== 0;
  }
}
