/**
 * Regions on disk, for machines that are started later: one file for all machines of this user on this version of the
 * translator. A region is found by the instructions that it was made from, so that it serves any guest that runs these.
 *
 * The file only grows, an entry by one write, so that several machines may add to it at once. An entry has its length (32
 * bits), its mark (32 bits), a SHA-256 of the rest, and the region as V8 serializes values; or, where that is eight bytes, the
 * place of an entry that was used again. What is cut off or damaged is as none. A file that has become too long is made anew,
 * with what was added or used last.
 */
import { createHash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readdirSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { deserialize, serialize } from 'node:v8';
import type { RegionStore, StoredRegion } from '../accel/jit/region-compiler.ts';
import { cacheFolder, isOwn, sourcesKey } from './cache-folder.ts';

const HEADER_BYTES = 40;
/** A region is some 30 KB. */
const LONGEST_ENTRY = 4 << 20;
/** Regions with one mark: variants, as not all of their code was known each time. */
const VARIANTS = 3;
/** Files of other versions or options. */
const KEPT_OTHERS = 2;
/** Bytes of a note that an entry was used. */
const USE_BYTES = 8;

interface Place {
  readonly at: number;
  readonly length: number;
  /** How much the file had when it was used last. */
  used: number;
}

/** Path of the file for regions made with some options; undefined where nothing can be kept. Files of other versions go, but for the newest. */
export function regionFile(options: object, folder: string | undefined = cacheFolder()): string | undefined {
  try {
    if (folder === undefined || !isOwn(folder)) return undefined;
    const path = join(folder, `regions-${sourcesKey(options)}.bin`);
    const others = readdirSync(folder)
      .filter((name) => /^regions-[0-9a-f]+\.bin/.test(name))
      .map((name) => join(folder, name))
      .filter((other) => other !== path)
      .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs);
    for (const other of others.slice(KEPT_OTHERS)) rmSync(other, { force: true });
    return path;
  } catch {
    return undefined;
  }
}

function entryOf(mark: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(HEADER_BYTES + body.length, 0);
  header.writeInt32LE(mark, 4);
  createHash('sha256').update(body).digest().copy(header, 8);
  return Buffer.concat([header, body]);
}

export class RegionFile implements RegionStore {
  readonly #path: string;
  readonly #longest: number;
  #descriptor: number;
  #size: number;
  /** Places by mark, the last that was added first. */
  readonly #places = new Map<number, Place[]>();

  /** Throws where the file can be neither read nor made. `longest`: bytes of a file. */
  constructor(path: string, longest: number = 96 << 20) {
    this.#path = path;
    this.#longest = longest;
    this.#descriptor = openSync(path, 'a+', 0o600);
    this.#size = fstatSync(this.#descriptor).size;
    if (this.#readPlaces() !== this.#size || this.#size > longest) this.#shorten();
  }

  get marks(): Iterable<number> {
    return this.#places.keys();
  }

  /** Gives where it ends, or what is damaged begins: nothing behind that can be found. */
  #readPlaces(): number {
    const header = Buffer.alloc(HEADER_BYTES + USE_BYTES);
    const byStart = new Map<number, Place>();
    let at = 0;
    while (at + HEADER_BYTES <= this.#size) {
      if (readSync(this.#descriptor, header, 0, header.length, at) < HEADER_BYTES) break;
      const length = header.readUInt32LE(0);
      if (length < HEADER_BYTES || length > LONGEST_ENTRY || at + length > this.#size) break;
      if (length === HEADER_BYTES + USE_BYTES) {
        const used = byStart.get(header.readDoubleLE(HEADER_BYTES));
        if (used !== undefined) used.used = at;
      } else {
        const place = { at, length, used: at };
        byStart.set(at, place);
        this.#note(header.readInt32LE(4), place);
      }
      at += length;
    }
    return at;
  }

  #note(mark: number, place: Place): void {
    const known = this.#places.get(mark) ?? [];
    this.#places.set(mark, [place, ...known].slice(0, VARIANTS));
  }

  #read({ at, length }: Place): Buffer | undefined {
    const entry = Buffer.alloc(length);
    if (readSync(this.#descriptor, entry, 0, length, at) !== length) return undefined;
    const hash = createHash('sha256').update(entry.subarray(HEADER_BYTES)).digest();
    return hash.equals(entry.subarray(8, HEADER_BYTES)) ? entry : undefined;
  }

  find(mark: number): readonly StoredRegion[] {
    const found: StoredRegion[] = [];
    for (const place of this.#places.get(mark) ?? [])
      try {
        const entry = this.#read(place);
        if (entry === undefined) continue;
        found.push(deserialize(entry.subarray(HEADER_BYTES)) as StoredRegion);
        const use = Buffer.alloc(USE_BYTES);
        use.writeDoubleLE(place.at);
        this.#append(entryOf(mark, use));
      } catch {
        // A file that cannot be read has none.
      }
    return found;
  }

  add(mark: number, region: StoredRegion): boolean {
    const entry = entryOf(mark, serialize(region));
    return entry.length <= LONGEST_ENTRY && this.#append(entry);
  }

  #append(data: Buffer): boolean {
    if (this.#size > this.#longest) return false;
    try {
      if (writeSync(this.#descriptor, data) === data.length) {
        this.#size += data.length;
        return true;
      }
    } catch {
      // A full disk: nothing more is kept.
    }
    this.#size = this.#longest + 1;
    return false;
  }

  /** Makes the file anew with half of what it has: what was used last. */
  #shorten(): void {
    const partial = `${this.#path}.${process.pid}`;
    const places = [...this.#places].flatMap(([mark, places]) => places.map((place) => ({ mark, place })));
    places.sort((a, b) => b.place.used - a.place.used);
    const kept: typeof places = [];
    let size = 0;
    for (const each of places) {
      size += each.place.length;
      if (size > this.#longest / 2) break;
      kept.push(each);
    }
    this.#places.clear();
    const descriptor = openSync(partial, 'w+', 0o600);
    size = 0;
    for (const { mark, place } of kept.reverse()) {
      const entry = this.#read(place);
      if (entry === undefined) continue;
      writeSync(descriptor, entry);
      this.#note(mark, { at: size, length: place.length, used: size });
      size += place.length;
    }
    closeSync(descriptor);
    renameSync(partial, this.#path);
    closeSync(this.#descriptor);
    this.#descriptor = openSync(this.#path, 'a+', 0o600);
    this.#size = size;
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}
