/** Microsoft VHD ("vpc"), fixed and dynamic, read-only. Source: "Virtual Hard Disk Image Format Specification" 1.0. */
import { TablePages } from './block-map.ts';
import { u64 } from './bytes.ts';
import { BlockError, sane } from './errors.ts';
import type { BlockFile } from './file.ts';
import { type BlockRun, checkRange, ReadOnlyNode } from './node.ts';

const FOOTER = 512;
const TYPE_FIXED = 2;
const TYPE_DYNAMIC = 3;
const UNALLOCATED = 0xffffffff;
const SECTOR = 512;

function hasCookie(bytes: Uint8Array, cookie: string): boolean {
  for (let i = 0; i < cookie.length; i++) if (bytes[i] !== cookie.charCodeAt(i)) return false;
  return bytes.length >= cookie.length;
}

/** Dynamic images start with a copy of the footer. A fixed one only ends with it and must be named by format. */
export function isVpc(start: Uint8Array): boolean {
  return hasCookie(start, 'conectix');
}

function checksumHolds(bytes: Uint8Array, at: number): boolean {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) if (i < at || i >= at + 4) sum += bytes[i];
  return ~sum >>> 0 === new DataView(bytes.buffer, bytes.byteOffset).getUint32(at);
}

class VpcNode extends ReadOnlyNode {
  readonly format = 'vpc';
  readonly size: number;
  private readonly file: BlockFile;
  private readonly fixed: boolean;
  private readonly table: TablePages | undefined;
  private readonly blockSize: number = 1 << 21;
  private bitmapOf = -1;
  private bitmap = new Uint8Array(0);

  constructor(file: BlockFile) {
    super();
    this.file = file;
    const length = file.size();
    let footer = new Uint8Array(FOOTER);
    file.pread(footer, 0);
    if (!hasCookie(footer, 'conectix')) {
      footer = new Uint8Array(FOOTER);
      file.pread(footer, Math.max(0, length - FOOTER));
      if (length < FOOTER || !hasCookie(footer, 'conectix')) throw new BlockError('format', `${file.name}: not a VHD image`);
    }
    sane(checksumHolds(footer, 64), 'VHD footer checksum is wrong');
    const view = new DataView(footer.buffer);
    const type = view.getUint32(60);
    const currentSize = u64(view, 48);
    const cylinders = view.getUint16(56);
    const geometry = cylinders * footer[58] * footer[59] * SECTOR;
    // Virtual PC and old writers mean the geometry; those that mean the size say so in the creator field, and
    // the largest geometry cannot say a size at all.
    const creator = new TextDecoder().decode(footer.subarray(28, 32));
    const bySize = ['qem2', 'win ', 'd2v ', 'tap\0', 'CTXS', 'wa\0\0'].includes(creator);
    this.size = bySize || geometry === 65535 * 16 * 255 * SECTOR ? currentSize : geometry;
    this.fixed = type === TYPE_FIXED;
    if (type === TYPE_FIXED) {
      sane(this.size <= length, 'VHD disk is larger than its file');
      return;
    }
    if (type !== TYPE_DYNAMIC)
      throw new BlockError('unsupported', `${file.name}: VHD type ${type} (differencing) is not supported`);
    const dataOffset = u64(view, 16);
    sane(dataOffset + 1024 <= length, 'VHD dynamic header lies outside the file');
    const bytes = new Uint8Array(1024);
    file.pread(bytes, dataOffset);
    sane(hasCookie(bytes, 'cxsparse') && checksumHolds(bytes, 36), 'VHD dynamic header is not valid');
    const header = new DataView(bytes.buffer);
    const mapOffset = u64(header, 16);
    const entries = header.getUint32(28);
    this.blockSize = header.getUint32(32);
    sane(
      this.blockSize >= SECTOR && this.blockSize <= 256 << 20 && (this.blockSize & (this.blockSize - 1)) === 0,
      'VHD block size is not valid',
    );
    sane(entries * this.blockSize >= this.size, 'VHD block table is too small for the disk');
    sane(mapOffset + entries * 4 <= length, 'VHD block table lies outside the file');
    this.table = new TablePages(file, mapOffset, 4);
  }

  get filename(): string {
    return this.file.name;
  }

  private get bitmapSize(): number {
    return Math.ceil(this.blockSize / SECTOR / 8 / SECTOR) * SECTOR;
  }

  /** Host offset of a block's bitmap, or -1. */
  private block(index: number): number {
    const entry = this.table?.entry(index, (view, at) => view.getUint32(at)) ?? UNALLOCATED;
    return entry === UNALLOCATED ? -1 : entry * SECTOR;
  }

  /** Where a sector lies (-1: zeros), and how many bytes from it on are alike. */
  private locate(offset: number, length: number): { host: number; length: number } {
    if (this.fixed) return { host: offset, length };
    const inBlock = offset % this.blockSize;
    const block = this.block(Math.floor(offset / this.blockSize));
    const most = Math.min(length, this.blockSize - inBlock);
    if (block < 0) return { host: -1, length: most };
    if (this.bitmapOf !== block) {
      this.bitmap = new Uint8Array(this.bitmapSize);
      this.file.pread(this.bitmap, block);
      this.bitmapOf = block;
    }
    const set = (sector: number) => (this.bitmap[sector >> 3] >> (7 - (sector & 7))) & 1;
    let sector = Math.floor(inBlock / SECTOR);
    const first = set(sector);
    let run = SECTOR - (inBlock % SECTOR);
    while (run < most && set(++sector) === first) run += SECTOR;
    return { host: first ? block + this.bitmapSize + inBlock : -1, length: Math.min(run, most) };
  }

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.size, offset, buf.length);
    for (let done = 0; done < buf.length; ) {
      const { host, length } = this.locate(offset + done, buf.length - done);
      const part = buf.subarray(done, done + length);
      if (host < 0) part.fill(0);
      else this.file.pread(part, host);
      done += length;
    }
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.size, offset, length);
    if (length === 0) return { kind: 'data', length: 0 };
    const run = this.locate(offset, length);
    return run.host < 0 ? { kind: 'zero', length: run.length } : { kind: 'data', length: run.length, hostOffset: run.host };
  }

  close(): void {
    this.file.close();
  }
}

export function openVpc(file: BlockFile): VpcNode {
  return new VpcNode(file);
}
