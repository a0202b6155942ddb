import { BlockError } from './errors.ts';
import { type BlockNode, type BlockRun, isZero } from './node.ts';

/** A node in front of another; changes nothing by itself. The base of filters. */
export class FilterNode implements BlockNode {
  protected readonly inner: BlockNode;
  constructor(inner: BlockNode) {
    this.inner = inner;
  }
  get format(): string {
    return this.inner.format;
  }
  get readOnly(): boolean {
    return this.inner.readOnly;
  }
  get size(): number {
    return this.inner.size;
  }
  get filename(): string {
    return this.inner.filename;
  }
  get backing(): BlockNode | null {
    return this.inner.backing;
  }
  read(offset: number, buf: Uint8Array): void {
    this.inner.read(offset, buf);
  }
  write(offset: number, buf: Uint8Array): void {
    this.inner.write(offset, buf);
  }
  writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.inner.writeZeroes(offset, length, unmap);
  }
  discard(offset: number, length: number): void {
    this.inner.discard(offset, length);
  }
  flush(): void {
    this.inner.flush();
  }
  blockStatus(offset: number, length: number): BlockRun {
    return this.inner.blockStatus(offset, length);
  }
  resize(size: number): void {
    this.inner.resize(size);
  }
  close(): void {
    this.inner.close();
  }
}

/** `cache=writethrough` and `directsync`: a write is durable, with its metadata, when it returns. */
export class WriteThroughNode extends FilterNode {
  override write(offset: number, buf: Uint8Array): void {
    this.inner.write(offset, buf);
    this.inner.flush();
  }
  override writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.inner.writeZeroes(offset, length, unmap);
    this.inner.flush();
  }
  override discard(offset: number, length: number): void {
    this.inner.discard(offset, length);
    this.inner.flush();
  }
}

/** Keeps everything from changing, whatever the image underneath would allow: `readonly=on`. */
export class ReadOnlyFilter extends FilterNode {
  override get readOnly(): boolean {
    return true;
  }
  private refuse(): never {
    throw new BlockError('read-only', `${this.filename}: opened read-only`);
  }
  override write(): void {
    this.refuse();
  }
  override writeZeroes(): void {
    this.refuse();
  }
  override discard(): void {
    this.refuse();
  }
  override resize(): void {
    this.refuse();
  }
  override flush(): void {}
}

/** Zeros that are written become zeros without storage; with `unmap`, storage that was there goes too. QEMU's `detect-zeroes`. */
export class ZeroDetection extends FilterNode {
  private readonly unmap: boolean;
  constructor(inner: BlockNode, unmap: boolean) {
    super(inner);
    this.unmap = unmap;
  }
  override write(offset: number, buf: Uint8Array): void {
    if (buf.length > 0 && isZero(buf)) this.inner.writeZeroes(offset, buf.length, this.unmap);
    else this.inner.write(offset, buf);
  }
}

/**
 * Writes go to a second disk as well, which must be as large: what a mirror or an active commit needs. Where `failed` is
 * given, an error of the second disk goes there, once, and nothing more is written to it; else it is the writer's.
 */
export class MirrorNode extends FilterNode {
  readonly target: BlockNode;
  private readonly failed: ((error: unknown) => void) | undefined;
  private broken = false;
  constructor(inner: BlockNode, target: BlockNode, failed?: (error: unknown) => void) {
    super(inner);
    if (target.size < inner.size) throw new BlockError('invalid', 'the mirror is smaller than the disk');
    this.target = target;
    this.failed = failed;
  }
  private copy(body: () => void): void {
    if (this.broken) return;
    try {
      body();
    } catch (error) {
      if (this.failed === undefined) throw error;
      this.broken = true;
      this.failed(error);
    }
  }
  override write(offset: number, buf: Uint8Array): void {
    this.inner.write(offset, buf);
    this.copy(() => this.target.write(offset, buf));
  }
  override writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.inner.writeZeroes(offset, length, unmap);
    this.copy(() => this.target.writeZeroes(offset, length, unmap));
  }
  override discard(offset: number, length: number): void {
    // What a discard leaves behind is the disk's affair: the mirror gets what can be read now.
    this.inner.discard(offset, length);
    const buf = new Uint8Array(Math.min(length, 1 << 20));
    for (let done = 0; done < length; done += buf.length) {
      const part = buf.subarray(0, Math.min(buf.length, length - done));
      this.inner.read(offset + done, part);
      this.copy(() => this.target.write(offset + done, part));
    }
  }
  override flush(): void {
    this.inner.flush();
    this.copy(() => this.target.flush());
  }
}
