import { BlockError } from './errors.ts';
import type { BlockFile } from './file.ts';
import { FileNode } from './file-node.ts';
import { type BlockRun, checkRange } from './node.ts';

/** The bytes of a file, or of a window of it, as a disk. Also host devices. */
export class RawNode extends FileNode {
  readonly format = 'raw';
  private readonly window: number | undefined;

  /** @param base bytes into the file where the disk starts. @param window its length; default to the end of the file. */
  constructor(file: BlockFile, base = 0, window?: number) {
    super(file, base, window ?? Math.max(0, file.size() - base));
    this.window = window;
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

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.length, offset, length);
    if (length === 0) return { kind: 'data', length: 0 };
    const extent = this.file.extent(this.base + offset, length);
    return { kind: extent.data ? 'data' : 'zero', length: Math.max(1, extent.length), hostOffset: this.base + offset };
  }

  override resize(size: number): void {
    if (this.window !== undefined) throw new BlockError('unsupported', `${this.filename}: a window of a file has a fixed size`);
    super.resize(size);
  }
}
