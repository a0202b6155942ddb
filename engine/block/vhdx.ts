/** Hyper-V VHDX, read-only, without a parent. Source: [MS-VHDX] 2.2 to 2.6. */
import { BlockMapNode, TablePages } from './block-map.ts';
import { u64le } from './bytes.ts';
import { BlockError, sane } from './errors.ts';
import type { BlockFile } from './file.ts';

const HEADER_OFFSETS = [65536, 131072];
const REGION_OFFSETS = [196608, 262144];
const MB = 1 << 20;
const BAT_REGION = '2dc27766-f623-4200-9d64-115e9bfd4a08';
const METADATA_REGION = '8b7ca206-4790-4b9a-b8fe-575f050f886e';
const FILE_PARAMETERS = 'caa16737-fa36-4d43-b3b6-33f0aa44e76b';
const DISK_SIZE = '2fa54224-cd1b-4876-b211-5dbed83bf4b8';
const SECTOR_SIZE = '8141bf1d-a96f-4709-ba47-f233a8faab5f';
const PAYLOAD_FULLY_PRESENT = 6;
const PAYLOAD_PARTIALLY_PRESENT = 7;

let crcTable: Uint32Array | null = null;
/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  if (!crcTable) {
    crcTable = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      let c = i;
      for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
      crcTable[i] = c >>> 0;
    }
  }
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = crcTable[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

export function isVhdx(start: Uint8Array): boolean {
  return new TextDecoder('latin1').decode(start.subarray(0, 8)) === 'vhdxfile';
}

function guid(view: DataView, at: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  const tail = Array.from({ length: 8 }, (_, i) => hex(view.getUint8(at + 8 + i), 2)).join('');
  return `${hex(view.getUint32(at, true), 8)}-${hex(view.getUint16(at + 4, true), 4)}-${hex(view.getUint16(at + 6, true), 4)}-${tail.slice(0, 4)}-${tail.slice(4)}`;
}

function checked(file: BlockFile, offset: number, length: number, signature: string): DataView | null {
  const bytes = new Uint8Array(length);
  file.pread(bytes, offset);
  const view = new DataView(bytes.buffer);
  if (new TextDecoder('latin1').decode(bytes.subarray(0, 4)) !== signature) return null;
  const stored = view.getUint32(4, true);
  view.setUint32(4, 0);
  return crc32c(bytes) === stored ? view : null;
}

class VhdxNode extends BlockMapNode {
  readonly format = 'vhdx';
  readonly size: number;
  protected readonly blockSize: number;
  private readonly chunkRatio: number;
  private readonly table: TablePages;

  constructor(file: BlockFile) {
    super(file);
    const start = new Uint8Array(8);
    file.pread(start, 0);
    if (!isVhdx(start)) throw new BlockError('format', `${file.name}: not a VHDX image`);
    const headers = HEADER_OFFSETS.map((at) => checked(file, at, 4096, 'head')).filter((view) => view !== null);
    sane(headers.length > 0, 'VHDX: no valid header');
    headers.sort((a, b) => u64le(b, 8) - u64le(a, 8));
    const header = headers[0];
    sane(header.getUint16(66, true) === 1, 'VHDX version is not 1');
    for (let i = 0; i < 16; i++)
      if (header.getUint8(48 + i) !== 0)
        throw new BlockError(
          'unsupported',
          `${file.name}: the VHDX log has entries to replay; open it once with the program that wrote it`,
        );
    const region = REGION_OFFSETS.map((at) => checked(file, at, 65536, 'regi')).find((view) => view !== null);
    sane(region !== undefined && region !== null, 'VHDX: no valid region table');
    const count = region.getUint32(8, true);
    sane(count <= 2047, 'VHDX: too many regions');
    let bat: [number, number] | null = null;
    let metadata: [number, number] | null = null;
    for (let i = 0; i < count; i++) {
      const at = 16 + i * 32;
      const entry: [number, number] = [u64le(region, at + 16), region.getUint32(at + 24, true)];
      const id = guid(region, at);
      if (id === BAT_REGION) bat = entry;
      else if (id === METADATA_REGION) metadata = entry;
      else if (region.getUint32(at + 28, true) & 1)
        throw new BlockError('unsupported', `${file.name}: VHDX region ${id} is required and not known`);
    }
    sane(bat !== null && metadata !== null, 'VHDX: a region is missing');
    for (const [offset, length] of [bat, metadata])
      sane(offset >= MB && offset % MB === 0 && offset + length <= file.size(), 'VHDX: a region lies outside the file');
    const table = new Uint8Array(65536);
    file.pread(table, metadata[0]);
    const items = new DataView(table.buffer);
    sane(new TextDecoder('latin1').decode(table.subarray(0, 8)) === 'metadata', 'VHDX: metadata table is not valid');
    const itemCount = items.getUint16(10, true);
    sane(itemCount <= 2047, 'VHDX: too many metadata items');
    const item = (wanted: string, length: number): DataView => {
      for (let i = 0; i < itemCount; i++) {
        const at = 32 + i * 32;
        if (guid(items, at) !== wanted) continue;
        const offset = items.getUint32(at + 16, true);
        sane(offset >= 65536 && offset + length <= metadata![1], 'VHDX: a metadata item lies outside its region');
        const bytes = new Uint8Array(length);
        file.pread(bytes, metadata![0] + offset);
        return new DataView(bytes.buffer);
      }
      throw new BlockError('corrupt', `${file.name}: VHDX metadata item ${wanted} is missing`);
    };
    const parameters = item(FILE_PARAMETERS, 8);
    this.blockSize = parameters.getUint32(0, true);
    if (parameters.getUint32(4, true) & 2)
      throw new BlockError('unsupported', `${file.name}: VHDX images with a parent are not supported`);
    this.size = u64le(item(DISK_SIZE, 8), 0);
    const sector = item(SECTOR_SIZE, 4).getUint32(0, true);
    sane(sector === 512 || sector === 4096, 'VHDX sector size is not valid');
    sane(
      this.blockSize >= MB && this.blockSize <= 256 * MB && (this.blockSize & (this.blockSize - 1)) === 0,
      'VHDX block size is not valid',
    );
    sane(this.size > 0 && this.size <= 64 * 2 ** 40 && this.size % sector === 0, 'VHDX disk size is not valid');
    this.chunkRatio = (2 ** 23 * sector) / this.blockSize;
    const blocks = Math.ceil(this.size / this.blockSize);
    const entries = blocks + Math.floor((blocks - 1) / this.chunkRatio);
    sane(entries * 8 <= bat[1], 'VHDX block table is too small for the disk');
    this.table = new TablePages(file, bat[0], 8);
  }

  /** Host offset of a block, or -1 for zeros. */
  protected block(index: number): number {
    // After every `chunkRatio` payload entries stands one for a sector bitmap.
    const entry = index + Math.floor(index / this.chunkRatio);
    const [state, offset] = this.table.entry(entry, (view, at) => [view.getUint8(at) & 7, Math.floor(u64le(view, at) / MB) * MB]);
    sane(state !== PAYLOAD_PARTIALLY_PRESENT && state !== 4 && state !== 5, 'VHDX block state is not valid');
    if (state !== PAYLOAD_FULLY_PRESENT) return -1;
    sane(offset >= MB && offset < this.file.size(), 'VHDX block lies outside the file');
    return offset;
  }
}

export function openVhdx(file: BlockFile): VhdxNode {
  return new VhdxNode(file);
}
