/**
 * What one vCPU has decoded: runs of records in its arena, found by the page of the backing they came from, the offset
 * there and the mode they were decoded for. A page whose code was written loses its runs: every record of them becomes
 * a RESYNC record, so that whoever is inside notices at the next instruction.
 */
import * as S from '../../memory/vcpu-state.ts';
import { Handler } from './handlers.ts';

interface CodePage {
  /** Record address by offset and mode. */
  readonly starts: Map<number, number>;
  /** Runs: address and number of records, in pairs. */
  readonly runs: number[];
}

export class CodeCache {
  /** All records. */
  readonly words: Int32Array;
  readonly #base: number;
  readonly #end: number;
  #next: number;
  #pages = new Map<number, CodePage>();
  /** How often the arena was full and everything was dropped. */
  flushes = 0;
  #memory: { code: Uint8Array; granules: Int32Array };

  constructor(buffer: ArrayBufferLike, base: number, bytes: number, memory: { code: Uint8Array; granules: Int32Array }) {
    this.words = new Int32Array(buffer, base, bytes / 4);
    this.#base = base;
    this.#end = base + bytes;
    this.#next = base;
    this.#memory = memory;
  }

  find(page: number, offset: number, mode: number): number {
    const start = this.#pages.get(page)?.starts.get((mode << 12) | offset);
    // A run that straddles pages may have lost its records to a write in the second one.
    if (start === undefined || this.words[(start - this.#base) / 4] === Handler.RESYNC) return 0;
    return start;
  }

  /** Where a record lies in `words`; -1 for none. */
  wordOf(record: number): number {
    return record === 0 ? -1 : (record - this.#base) / 4;
  }

  readonly #pageOfRun = new Map<number, number>();
  /** Notes which page the run at `record` starts in. */
  note(record: number, page: number): void {
    this.#pageOfRun.set(record, page);
  }
  pageOf(record: number): number | undefined {
    return this.#pageOfRun.get(record);
  }

  /** Bytes of records in use. */
  get used(): number {
    return this.#next - this.#base;
  }

  /** Room for a run of at most `count` records; false: the cache must be dropped first. */
  hasRoom(count: number): boolean {
    return this.#next + count * S.RECORD_BYTES <= this.#end;
  }
  /** Where the next run goes. */
  get next(): number {
    return this.#next;
  }

  /** Takes `count` records from `next` as a run of `page`. `granules` are the 128-byte pieces of it that were decoded. */
  add(page: number, offset: number, mode: number, count: number, granules: number, first: boolean): void {
    let entry = this.#pages.get(page);
    if (entry === undefined) {
      entry = { starts: new Map(), runs: [] };
      this.#pages.set(page, entry);
    }
    if (first) entry.starts.set((mode << 12) | offset, this.#next);
    entry.runs.push(this.#next, count);
    Atomics.or(this.#memory.granules, page, granules);
  }
  /** A record that enters code made from a page too: it goes with that page's. */
  depend(page: number, record: number): void {
    this.#pages.get(page)?.runs.push(record, 1);
  }
  commit(count: number): void {
    this.#next += count * S.RECORD_BYTES;
  }

  has(page: number): boolean {
    return this.#pages.has(page);
  }

  /** Drops what came from a page. */
  invalidate(page: number): void {
    const entry = this.#pages.get(page);
    if (entry === undefined) return;
    this.#pages.delete(page);
    for (let n = 0; n < entry.runs.length; n += 2) {
      let at = (entry.runs[n] - this.#base) / 4;
      for (let count = entry.runs[n + 1]; count > 0; count--) {
        this.words[at] = Handler.RESYNC;
        at += S.RECORD_BYTES / 4;
      }
    }
  }

  /** Drops everything. The caller must not be inside translated code. */
  clear(): void {
    this.#pages = new Map();
    this.#pageOfRun.clear();
    this.#next = this.#base;
    this.flushes++;
  }
}
