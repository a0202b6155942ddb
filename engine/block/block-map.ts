import type { BlockFile } from './file.ts';
import { type BlockRun, checkRange, ReadOnlyNode } from './node.ts';

/** Entries of a table that are held at once. */
const PAGE = 8192;

/** A table of numbers in a file, of which a page at a time is held. */
export class TablePages {
  private readonly file: BlockFile;
  private readonly offset: number;
  private readonly entryBytes: number;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private held = -1;

  constructor(file: BlockFile, offset: number, entryBytes: number) {
    this.file = file;
    this.offset = offset;
    this.entryBytes = entryBytes;
    this.bytes = new Uint8Array(PAGE * entryBytes);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Entry `index`, read by `get` from where it lies in the view. */
  entry<T>(index: number, get: (view: DataView, at: number) => T): T {
    const page = Math.floor(index / PAGE);
    if (page !== this.held) {
      this.held = -1;
      this.file.pread(this.bytes, this.offset + page * this.bytes.length);
      this.held = page;
    }
    return get(this.view, (index % PAGE) * this.entryBytes);
  }
}

/** The base of read-only formats that keep a disk in blocks of one size, found by a map. */
export abstract class BlockMapNode extends ReadOnlyNode {
  abstract override readonly size: number;
  protected abstract readonly blockSize: number;
  protected readonly file: BlockFile;

  constructor(file: BlockFile) {
    super();
    this.file = file;
  }

  get filename(): string {
    return this.file.name;
  }

  /** Host offset of a block, or -1 where it reads as zeros. */
  protected abstract block(index: number): number;

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.size, offset, buf.length);
    for (let done = 0; done < buf.length; ) {
      const at = offset + done;
      const inBlock = at % this.blockSize;
      const part = buf.subarray(done, done + Math.min(buf.length - done, this.blockSize - inBlock));
      const host = this.block(Math.floor(at / this.blockSize));
      if (host < 0) part.fill(0);
      else this.file.pread(part, host + inBlock);
      done += part.length;
    }
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.size, offset, length);
    const inBlock = offset % this.blockSize;
    const host = this.block(Math.floor(offset / this.blockSize));
    let run = this.blockSize - inBlock;
    while (run < length) {
      const next = this.block(Math.floor((offset + run) / this.blockSize));
      if (host < 0 ? next >= 0 : next !== host + inBlock + run) break;
      run += this.blockSize;
    }
    run = Math.min(run, length);
    return host < 0 ? { kind: 'zero', length: run } : { kind: 'data', length: run, hostOffset: host + inBlock };
  }

  close(): void {
    this.file.close();
  }
}
