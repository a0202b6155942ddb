import { BlockError } from './errors.ts';
import type { BlockFile } from './file.ts';
import type { BlockNode, BlockRun } from './node.ts';

/** The base of disks that lie in one file, from an offset on. */
export abstract class FileNode implements BlockNode {
  abstract readonly format: string;
  readonly backing = null;
  readonly file: BlockFile;
  /** Bytes into the file where the disk starts. */
  protected readonly base: number;
  protected length: number;
  private closed = false;

  constructor(file: BlockFile, base: number, length: number) {
    this.file = file;
    this.base = base;
    this.length = length;
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

  abstract read(offset: number, buf: Uint8Array): void;
  abstract write(offset: number, buf: Uint8Array): void;
  abstract writeZeroes(offset: number, length: number, unmap?: boolean): void;
  abstract discard(offset: number, length: number): void;
  abstract blockStatus(offset: number, length: number): BlockRun;

  flush(): void {
    if (!this.readOnly) this.file.flush();
  }

  resize(size: number): void {
    this.writable();
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

  protected writable(): void {
    if (this.readOnly) throw new BlockError('read-only', `${this.filename}: opened read-only`);
  }
}
