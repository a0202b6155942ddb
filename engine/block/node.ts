import { BlockError } from './errors.ts';

/** What a run of a disk is, as seen from the node that was asked. */
export interface BlockRun {
  /** Bytes, at least 1 unless the request was empty. */
  length: number;
  /**
   * `data`: read it here; `zero`: reads as zeros, decided here; `unallocated`: this node says nothing about it, so it
   * reads from the backing node, or as zeros without one.
   */
  kind: 'data' | 'zero' | 'unallocated';
  /** Where it lies in the host file, if it lies there plain (not compressed, not encrypted). */
  hostOffset?: number;
  compressed?: boolean;
}

/**
 * A disk: what a controller, a converter or an NBD server reads and writes. Offsets and lengths are bytes, any
 * alignment; a range past `size` is an `invalid` error. Everything blocks; everything throws `BlockError`.
 */
export interface BlockNode {
  /** The format's name as QEMU calls it. */
  readonly format: string;
  readonly readOnly: boolean;
  /** Bytes. */
  readonly size: number;
  readonly filename: string;
  /** The node read where this one is unallocated. */
  readonly backing: BlockNode | null;
  read(offset: number, buf: Uint8Array): void;
  write(offset: number, buf: Uint8Array): void;
  /** The range reads as zeros after it; `unmap` lets storage go. */
  writeZeroes(offset: number, length: number, unmap?: boolean): void;
  /** The range is not needed; it may read as what it was, or as zeros. */
  discard(offset: number, length: number): void;
  /** Everything written before is on stable storage when it returns. */
  flush(): void;
  /** The first run of a range. */
  blockStatus(offset: number, length: number): BlockRun;
  /** Changes the size; shrinking loses what is cut off. Formats that cannot throw `unsupported`. */
  resize(size: number): void;
  /** Flushes, marks clean, closes files (and the backing chain). Never throws twice; a second call does nothing. */
  close(): void;
}

/** Throws unless the range lies within a node of this size. */
export function checkRange(size: number, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= size && Number.isSafeInteger(offset + length)))
    throw new BlockError('invalid', `range ${offset}+${length} lies outside the disk of ${size} bytes`);
}

/** True if every byte is zero. Fast on aligned views. */
export function isZero(buf: Uint8Array): boolean {
  const n = buf.length;
  let i = 0;
  if ((buf.byteOffset & 3) === 0) {
    const words = new Uint32Array(buf.buffer, buf.byteOffset, n >> 2);
    for (let w = 0; w < words.length; w++) if (words[w] !== 0) return false;
    i = words.length * 4;
  }
  for (; i < n; i++) if (buf[i] !== 0) return false;
  return true;
}

/** The base of read-only formats: refuses everything that changes. */
export abstract class ReadOnlyNode implements BlockNode {
  abstract readonly format: string;
  abstract readonly size: number;
  abstract readonly filename: string;
  readonly readOnly = true;
  readonly backing: BlockNode | null = null;
  abstract read(offset: number, buf: Uint8Array): void;
  abstract blockStatus(offset: number, length: number): BlockRun;
  abstract close(): void;
  write(_offset: number, _buf: Uint8Array): void {
    this.refuse();
  }
  writeZeroes(_offset: number, _length: number): void {
    this.refuse();
  }
  discard(_offset: number, _length: number): void {
    this.refuse();
  }
  flush(): void {}
  resize(_size: number): void {
    this.refuse();
  }
  private refuse(): never {
    throw new BlockError('read-only', `${this.filename}: images of format ${this.format} are read-only here`);
  }
}
