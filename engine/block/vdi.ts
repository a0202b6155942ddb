/** VirtualBox disk images, read-only. Source: the VDI 1.1 header as VirtualBox documents it ("VDICore.h" field order). */
import { BlockMapNode, TablePages } from './block-map.ts';
import { u64le } from './bytes.ts';
import { BlockError, sane } from './errors.ts';
import type { BlockFile } from './file.ts';

const SIGNATURE = 0xbeda107f;
const TYPE_DYNAMIC = 1;
const TYPE_STATIC = 2;
const UNALLOCATED = 0xffffffff;
const DISCARDED = 0xfffffffe;
const MAX_BLOCKS = 0x3fffffff;

export function isVdi(start: Uint8Array): boolean {
  return start.length >= 68 && new DataView(start.buffer, start.byteOffset).getUint32(64, true) === SIGNATURE;
}

class VdiNode extends BlockMapNode {
  readonly format = 'vdi';
  readonly size: number;
  protected readonly blockSize: number;
  private readonly map: TablePages;
  private readonly dataOffset: number;
  private readonly blocks: number;

  constructor(file: BlockFile) {
    super(file);
    const bytes = new Uint8Array(512);
    file.pread(bytes, 0);
    const view = new DataView(bytes.buffer);
    if (!isVdi(bytes)) throw new BlockError('format', `${file.name}: not a VDI image`);
    const version = view.getUint32(68, true);
    if (version !== 0x00010001)
      throw new BlockError('unsupported', `${file.name}: VDI version ${version >>> 16}.${version & 0xffff} is not supported`);
    const type = view.getUint32(76, true);
    if (type !== TYPE_DYNAMIC && type !== TYPE_STATIC)
      throw new BlockError('unsupported', `${file.name}: VDI image type ${type} is not supported`);
    const mapOffset = view.getUint32(340, true);
    this.dataOffset = view.getUint32(344, true);
    const sector = view.getUint32(360, true);
    this.size = u64le(view, 368);
    this.blockSize = view.getUint32(376, true);
    this.blocks = view.getUint32(384, true);
    sane(sector === 512, 'VDI sector size is not 512');
    sane(this.blockSize >= 4096 && this.blockSize <= 64 << 20 && this.blockSize % 512 === 0, 'VDI block size is not valid');
    sane(this.blocks <= MAX_BLOCKS && Number.isSafeInteger(this.size), 'VDI size is too large');
    sane(this.size <= this.blocks * this.blockSize, 'VDI block map is too small for the disk');
    sane(mapOffset >= 512 && mapOffset + this.blocks * 4 <= file.size(), 'VDI block map lies outside the file');
    this.map = new TablePages(file, mapOffset, 4);
    if (view.getUint32(424, true) | view.getUint32(428, true) | view.getUint32(432, true) | view.getUint32(436, true))
      throw new BlockError('unsupported', `${file.name}: VDI images with a parent are not supported`);
  }

  /** Host offset of a block, or -1. */
  protected block(index: number): number {
    const entry = this.map.entry(index, (view, at) => view.getUint32(at, true));
    if (entry === UNALLOCATED || entry === DISCARDED) return -1;
    sane(entry < this.blocks, 'VDI block map entry is not valid');
    return this.dataOffset + entry * this.blockSize;
  }
}

export function openVdi(file: BlockFile): VdiNode {
  return new VdiNode(file);
}
