import { BlockError } from './errors.ts';
import type { BlockFile } from './file.ts';
import { type BlockNode, type BlockRun, checkRange } from './node.ts';

/** The bytes of a file, or of a window of it, as a disk. Also host devices. */
export class RawNode implements BlockNode {
  readonly format = 'raw';
  readonly backing = null;
  readonly file: BlockFile;
  private readonly base: number;
  private readonly window: number | undefined;
  private length: number;
  private closed = false;

  /** @param base bytes into the file where the disk starts. @param window its length; default to the end of the file. */
  constructor(file: BlockFile, base = 0, window?: number) {
    this.file = file;
    this.base = base;
    this.window = window;
    this.length = window ?? Math.max(0, file.size() - base);
  }

  get filename(): string {
    return this.file.name;
  }
  get readOnly(): boolean {
    return this.file.readOnly;
  }
  get size(): number {
    return this.length;
  }

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.length, offset, buf.length);
    this.file.pread(buf, this.base + offset);
  }

  write(offset: number, buf: Uint8Array): void {
    checkRange(this.length, offset, buf.length);
    this.writable();
    this.file.pwrite(buf, this.base + offset);
  }

  writeZeroes(offset: number, length: number, _unmap?: boolean): void {
    checkRange(this.length, offset, length);
    this.writable();
    this.file.writeZeroes(this.base + offset, length);
  }

  discard(offset: number, length: number): void {
    checkRange(this.length, offset, length);
    this.writable();
    this.file.discard(this.base + offset, length);
  }

  flush(): void {
    if (!this.readOnly) this.file.flush();
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.length, offset, length);
    if (length === 0) return { kind: 'data', length: 0 };
    const extent = this.file.extent(this.base + offset, length);
    return { kind: extent.data ? 'data' : 'zero', length: Math.max(1, extent.length), hostOffset: this.base + offset };
  }

  resize(size: number): void {
    this.writable();
    if (this.window !== undefined) throw new BlockError('unsupported', `${this.filename}: a window of a file has a fixed size`);
    this.file.truncate(this.base + size);
    this.length = size;
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    try {
      this.flush();
    } finally {
      this.file.close();
    }
  }

  private writable(): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.filename}: opened read-only`);
  }
}
