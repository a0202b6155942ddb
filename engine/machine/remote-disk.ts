/**
 * A drive's disk for another thread (an NBD server on the control thread): one request at a time through shared memory;
 * whoever asks waits until the I/O thread has done it between two requests of the guest.
 *
 * Words: [0] state (0 idle, 1 asked, 2 done), [1] operation, [2] length, [3] error (0 none), [4], [5] offset: low, high;
 * [6], [7] size. The data follows.
 */
import type { Drive } from '../block/drive.ts';
import { BlockError } from '../block/errors.ts';
import type { BlockNode, BlockRun } from '../block/node.ts';

const HEADER = 64;
const PIECE = 1 << 20;
const PATIENCE_MS = 30_000;
const Operation = { READ: 1, WRITE: 2, ZEROES: 3, UNMAP: 4, DISCARD: 5, FLUSH: 6, STATUS: 7 } as const;
const codes = ['', 'io', 'no-space', 'read-only', 'invalid'] as const;
const HIGH = 2 ** 32;

export const remoteBuffer = (): SharedArrayBuffer => new SharedArrayBuffer(HEADER + PIECE);

/** The asking end. */
export class RemoteDisk implements BlockNode {
  readonly format = 'raw';
  readonly backing = null;
  readonly filename: string;
  readonly readOnly: boolean;
  readonly #words: Int32Array;
  readonly #data: Uint8Array;
  readonly #ring: () => void;

  constructor(name: string, buffer: SharedArrayBuffer, readOnly: boolean, ring: () => void) {
    this.filename = name;
    this.readOnly = readOnly;
    this.#words = new Int32Array(buffer, 0, HEADER / 4);
    this.#data = new Uint8Array(buffer, HEADER, PIECE);
    this.#ring = ring;
  }

  get size(): number {
    return (this.#words[6] >>> 0) + (this.#words[7] >>> 0) * HIGH;
  }

  #ask(operation: number, offset: number, length: number): void {
    const words = this.#words;
    words[1] = operation;
    words[2] = length;
    words[4] = (offset % HIGH) | 0;
    words[5] = Math.floor(offset / HIGH);
    Atomics.store(words, 0, 1);
    this.#ring();
    if (Atomics.wait(words, 0, 1, PATIENCE_MS) === 'timed-out') throw new BlockError('io', `${this.filename}: no answer`);
    Atomics.store(words, 0, 0);
    const code = codes[words[3]] ?? 'io';
    if (code !== '') throw new BlockError(code, `${this.filename}: the request failed`);
  }

  read(offset: number, buf: Uint8Array): void {
    for (let done = 0; done < buf.length; done += PIECE) {
      const part = buf.subarray(done, done + PIECE);
      this.#ask(Operation.READ, offset + done, part.length);
      part.set(this.#data.subarray(0, part.length));
    }
  }
  write(offset: number, buf: Uint8Array): void {
    for (let done = 0; done < buf.length; done += PIECE) {
      const part = buf.subarray(done, done + PIECE);
      this.#data.set(part);
      this.#ask(Operation.WRITE, offset + done, part.length);
    }
  }
  /** Ranges are longer than a word can say. */
  #pieces(operation: number, offset: number, length: number): void {
    for (let done = 0; done < length; done += 1 << 30) this.#ask(operation, offset + done, Math.min(length - done, 1 << 30));
  }
  writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.#pieces(unmap === true ? Operation.UNMAP : Operation.ZEROES, offset, length);
  }
  discard(offset: number, length: number): void {
    this.#pieces(Operation.DISCARD, offset, length);
  }
  flush(): void {
    this.#ask(Operation.FLUSH, 0, 0);
  }
  blockStatus(_offset: number, length: number): BlockRun {
    return { kind: 'data', length };
  }
  resize(): void {
    throw new BlockError('unsupported', `${this.filename}: cannot be resized from here`);
  }
  close(): void {}
}

/** The serving end, on the I/O thread. */
export class RemoteServer {
  readonly #drive: Drive;
  readonly #words: Int32Array;
  readonly #data: Uint8Array;

  constructor(drive: Drive, buffer: SharedArrayBuffer) {
    this.#drive = drive;
    this.#words = new Int32Array(buffer, 0, HEADER / 4);
    this.#data = new Uint8Array(buffer, HEADER, PIECE);
    this.#tellSize();
  }

  #tellSize(): void {
    const { size } = this.#drive.disk;
    this.#words[6] = (size % HIGH) | 0;
    this.#words[7] = Math.floor(size / HIGH);
  }

  /** Carries out what was asked for, if anything was. */
  serve(): void {
    const words = this.#words;
    this.#tellSize();
    if (Atomics.load(words, 0) !== 1) return;
    const offset = (words[4] >>> 0) + words[5] * HIGH;
    const length = words[2];
    try {
      this.#carryOut(words[1], offset, length);
      words[3] = 0;
    } catch (error) {
      const at = codes.indexOf((error as BlockError).code as (typeof codes)[number]);
      words[3] = at > 0 ? at : 1;
    }
    Atomics.store(words, 0, 2);
    Atomics.notify(words, 0);
  }

  #carryOut(operation: number, offset: number, length: number): void {
    const { disk } = this.#drive;
    switch (operation) {
      case Operation.READ:
        return disk.read(offset, this.#data.subarray(0, length));
      case Operation.WRITE:
        return disk.write(offset, this.#data.subarray(0, length));
      case Operation.ZEROES:
      case Operation.UNMAP:
        return disk.writeZeroes(offset, length, operation === Operation.UNMAP);
      case Operation.DISCARD:
        return disk.discard(offset, length);
      default:
        return disk.flush();
    }
  }
}
