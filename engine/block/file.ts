import { BlockError } from './errors.ts';

/** A run of a host file that is data or a hole. */
export interface FileExtent {
  data: boolean;
  length: number;
}

/**
 * A host file as the block layer sees it. All calls block; all offsets are bytes below 2^53.
 * Errors are `BlockError`s.
 */
export interface BlockFile {
  /** What to call it in messages: the path. */
  readonly name: string;
  readonly readOnly: boolean;
  /** Two opens of one file have the same identity (device and inode on a POSIX host). */
  readonly identity: string;
  /** The length in bytes; for a host device its capacity. */
  size(): number;
  /** Fills `buf` from `offset`; what lies beyond the end reads as zeros. */
  pread(buf: Uint8Array, offset: number): void;
  /** Writes all of `buf`, growing the file if need be. */
  pwrite(buf: Uint8Array, offset: number): void;
  /** fdatasync: returns when all earlier writes are on stable storage. */
  flush(): void;
  truncate(size: number): void;
  /** Gives the range back to the host where the host can (punches a hole); its content is undefined or zero after. */
  discard(offset: number, length: number): void;
  /** Makes the range read as zeros, without allocating where the host can; never changes bytes outside it. */
  writeZeroes(offset: number, length: number): void;
  /** Reserves space on the host for the range, growing the file; the content reads as zeros where it was new. */
  allocate(offset: number, length: number): void;
  /** Whether `offset` lies in data or a hole, and how long that goes on (at most `length`). */
  extent(offset: number, length: number): FileExtent;
  /** Bytes of host storage in use, or undefined where the host does not say. */
  allocated(): number | undefined;
  /** Why the file cannot be found by its name any more, or not be used by us, in words; undefined: all is well. */
  lost?(): string | undefined;
  close(): void;
}

export interface OpenFileOptions {
  write?: boolean;
  /** `share` lets others write too (what qemu-img calls -U); default is exclusive writing, shared reading. */
  lock?: 'auto' | 'share' | 'off';
  /** Host page cache bypass and flush policy as QEMU's cache modes mean them. */
  cache?: 'none' | 'writethrough' | 'writeback' | 'unsafe' | 'directsync';
  /** Create the file, or empty it if it is there. */
  create?: boolean;
}

/** Compression of one cluster; `inflate` must not produce more than `limit` bytes. */
export interface Codecs {
  /** Raw deflate with a window of at most 4 KiB (what qcow2 wants). */
  deflateRaw(data: Uint8Array): Uint8Array;
  /** Raw deflate, any window; trailing bytes after the stream are ignored. */
  inflateRaw(data: Uint8Array, limit: number): Uint8Array;
  /** zlib stream (RFC 1950). */
  inflate(data: Uint8Array, limit: number): Uint8Array;
  zstdCompress(data: Uint8Array): Uint8Array;
  zstdDecompress(data: Uint8Array, limit: number): Uint8Array;
}

/** The ciphers and hashes that LUKS needs; names as OpenSSL spells them. */
export interface Crypto {
  cipher(name: string, key: Uint8Array, iv: Uint8Array | null, data: Uint8Array): Uint8Array;
  decipher(name: string, key: Uint8Array, iv: Uint8Array | null, data: Uint8Array): Uint8Array;
  hash(name: string, data: Uint8Array): Uint8Array;
  pbkdf2(password: Uint8Array, salt: Uint8Array, iterations: number, length: number, hash: string): Uint8Array;
  random(length: number): Uint8Array;
}

/** The outside of the block layer. */
export interface BlockHost {
  openFile(path: string, options: OpenFileOptions): BlockFile;
  /** A path named inside `base` (a backing file name), made relative to the folder of `base` where it is relative. */
  resolvePath(base: string, path: string): string;
  /** The path from the root; what names a server or is absolute stays as it is. */
  absolutePath(path: string): string;
  exists(path: string): boolean;
  codecs: Codecs;
  crypto: Crypto;
  /** Seconds since the epoch, with a fraction. */
  now(): number;
}

const ZEROES = new Uint8Array(1 << 16);

/** Writes zeros the slow way, in pieces. */
export function writeZeroBytes(file: BlockFile, offset: number, length: number): void {
  while (length > 0) {
    const n = Math.min(length, ZEROES.length);
    file.pwrite(n === ZEROES.length ? ZEROES : ZEROES.subarray(0, n), offset);
    offset += n;
    length -= n;
  }
}

/** A file in memory: for tests, and for `-snapshot`-like throw-away overlays that must not touch the disk. */
export class MemoryFile implements BlockFile {
  readonly name: string;
  readonly identity: string;
  readOnly: boolean;
  private bytes: Uint8Array;
  private length: number;
  private readonly limit: number;
  private static count = 0;

  constructor(name = 'memory', initial?: Uint8Array, limit = 2 ** 31, readOnly = false) {
    this.name = name;
    this.identity = `memory:${MemoryFile.count++}`;
    this.bytes = initial ? new Uint8Array(initial) : new Uint8Array(0);
    this.length = this.bytes.length;
    this.limit = limit;
    this.readOnly = readOnly;
  }

  size(): number {
    return this.length;
  }

  /** A copy of the content. */
  content(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }

  pread(buf: Uint8Array, offset: number): void {
    const n = Math.max(0, Math.min(buf.length, this.length - offset));
    if (n > 0) buf.set(this.bytes.subarray(offset, offset + n));
    if (n < buf.length) buf.fill(0, n);
  }

  pwrite(buf: Uint8Array, offset: number): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.name}: opened read-only`);
    this.grow(offset + buf.length);
    this.bytes.set(buf, offset);
  }

  flush(): void {}

  truncate(size: number): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.name}: opened read-only`);
    if (size < this.length) {
      this.bytes.fill(0, size, this.length);
      this.length = size;
    } else this.grow(size);
  }

  discard(offset: number, length: number): void {
    this.writeZeroes(offset, Math.min(length, this.length - offset));
  }

  writeZeroes(offset: number, length: number): void {
    if (length <= 0) return;
    if (this.readOnly) throw new BlockError('read-only', `${this.name}: opened read-only`);
    this.grow(offset + length);
    this.bytes.fill(0, offset, offset + length);
  }

  allocate(offset: number, length: number): void {
    this.grow(offset + length);
  }

  extent(offset: number, length: number): FileExtent {
    return { data: offset < this.length, length };
  }

  allocated(): number {
    return this.length;
  }

  close(): void {}

  private grow(end: number): void {
    if (end <= this.length) return;
    if (end > this.limit) throw new BlockError('no-space', `${this.name}: no space left`);
    if (end > this.bytes.length) {
      const bigger = new Uint8Array(Math.min(this.limit, Math.max(end, this.bytes.length * 2, 65536)));
      bigger.set(this.bytes.subarray(0, this.length));
      this.bytes = bigger;
    }
    this.length = end;
  }
}
