/**
 * Guest memory that lies in pieces: what a request's descriptors, a bus master's table or an NVMe command's pages name,
 * as one run of bytes.
 */
import type { GuestMemory } from '../memory/guest-memory.ts';

/** A contiguous run of guest-physical addresses. */
export interface Segment {
  readonly address: number;
  readonly length: number;
}

export class ScatterList {
  readonly segments: Segment[] = [];
  bytes = 0;
  readonly #memory: GuestMemory;

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Appends a run; one that follows the last without a gap makes that longer. */
  add(address: number, length: number): void {
    join(this.segments, address, length);
    this.bytes += length;
  }

  /** Copies from `offset` on; returns how many bytes there were. */
  read(offset: number, target: Uint8Array): number {
    let done = 0;
    for (const { address, length } of part(this.segments, offset, target.length)) {
      this.#memory.read(address, target.subarray(done, done + length));
      done += length;
    }
    return done;
  }

  /** Copies to `offset` and on; returns how many bytes fitted. */
  write(offset: number, source: Uint8Array): number {
    let done = 0;
    for (const { address, length } of part(this.segments, offset, source.length)) {
      this.#memory.write(address, source.subarray(done, done + length));
      done += length;
    }
    return done;
  }

  /**
   * Calls `use` with `length` bytes from `offset`, in pieces of at most `PIECE_MAX` bytes. A piece that is contiguous in
   * guest memory is a view of it, others are copied together: a call of a back end costs more than a copy. `use` may throw
   * what its back end throws.
   */
  each(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    eachGroup(this.segments, offset, length, (group, bytes, at) => {
      const view = group.length === 1 ? this.#memory.view(group[0].address, bytes) : undefined;
      if (view !== undefined) return use(view, at);
      withStaging(bytes, (data) => {
        let done = 0;
        for (const segment of group) {
          this.#memory.read(segment.address, data.subarray(done, done + segment.length));
          done += segment.length;
        }
        use(data, at);
      });
    });
  }

  /** The same to store into: `fill` gets each piece. */
  eachInto(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    eachGroup(this.segments, offset, length, (group, bytes, at) => {
      const view = group.length === 1 ? this.#memory.view(group[0].address, bytes) : undefined;
      if (view !== undefined) {
        fill(view, at);
        return this.#memory.written(group[0].address, bytes);
      }
      withStaging(bytes, (data) => {
        data.fill(0); // what a back end leaves out must not be another request's data
        fill(data, at);
        let done = 0;
        for (const segment of group) {
          this.#memory.write(segment.address, data.subarray(done, done + segment.length));
          done += segment.length;
        }
      });
    });
  }
}

/** Adds a segment to a list; one that follows the last without a gap makes that longer. */
function join(segments: Segment[], address: number, length: number): void {
  const last = segments.at(-1);
  if (length === 0) return;
  if (last !== undefined && last.address + last.length === address)
    segments[segments.length - 1] = { address: last.address, length: last.length + length };
  else segments.push({ address, length });
}

/** Bytes that one call of a back end gets at most, so that no request holds a copy of more. */
export const PIECE_MAX = 2 ** 20;

// A buffer of this thread that calls take turns with; a call within a call makes its own.
let spare: Uint8Array | undefined;
function withStaging(length: number, body: (data: Uint8Array) => void): void {
  const buffer = spare ?? new Uint8Array(PIECE_MAX);
  spare = undefined;
  try {
    body(buffer.subarray(0, length));
  } finally {
    spare = buffer;
  }
}

/** Cuts `length` bytes from `offset` into groups of segments of at most `PIECE_MAX` bytes; large segments stand alone. */
function eachGroup(
  segments: readonly Segment[],
  offset: number,
  length: number,
  body: (group: readonly Segment[], bytes: number, at: number) => void,
): void {
  let group: Segment[] = [];
  let bytes = 0;
  let at = 0;
  const flush = (): void => {
    if (bytes > 0) body(group, bytes, at);
    at += bytes;
    group = [];
    bytes = 0;
  };
  for (const segment of part(segments, offset, length)) {
    for (let done = 0; done < segment.length; ) {
      const count = Math.min(PIECE_MAX, segment.length - done);
      if (bytes + count > PIECE_MAX || count >= STAND_ALONE) flush();
      group.push({ address: segment.address + done, length: count });
      bytes += count;
      done += count;
      if (count >= STAND_ALONE) flush();
    }
  }
  flush();
}
/** From here on a copy costs more than a call. */
const STAND_ALONE = 2 ** 16;

/** The segments of `length` bytes from `offset`, cut to what there is. */
export function part(segments: readonly Segment[], offset: number, length: number): Segment[] {
  const found: Segment[] = [];
  let skip = offset;
  let left = length;
  for (const segment of segments) {
    if (left <= 0) break;
    if (skip >= segment.length) {
      skip -= segment.length;
      continue;
    }
    const count = Math.min(left, segment.length - skip);
    found.push({ address: segment.address + skip, length: count });
    skip = 0;
    left -= count;
  }
  return found;
}
