/**
 * VMware disks, read-only: monolithicSparse, streamOptimized, flat and split forms through their descriptor, and
 * parents. Source: VMware "Virtual Disk Format" 5.0 technical note.
 */
import { u64le } from './bytes.ts';
import { BlockError, sane } from './errors.ts';
import type { BlockFile, BlockHost } from './file.ts';
import { type BlockNode, type BlockRun, checkRange, ReadOnlyNode } from './node.ts';

const SECTOR = 512;
const MAGIC = 0x564d444b;
const FLAG_ZERO_GRAIN = 4;
const FLAG_COMPRESSED = 0x10000;
const FLAG_MARKERS = 0x20000;
const GD_AT_END = -1;
const MAX_DESCRIPTOR = 1 << 20;
const MAX_EXTENTS = 256;

export function isVmdk(start: Uint8Array): boolean {
  if (start.length < 4) return false;
  if (start[0] === 0x4b && start[1] === 0x44 && start[2] === 0x4d && start[3] === 0x56) return true;
  return /^\s*(#.*\n\s*)*#\s*Disk DescriptorFile/.test(new TextDecoder('latin1').decode(start.subarray(0, 512)));
}

/** One piece of the disk: sectors of it, and how to find them. */
interface Extent {
  /** Bytes. */
  size: number;
  read(offset: number, buf: Uint8Array): void;
  status(offset: number, length: number): BlockRun;
  close(): void;
}

class FlatExtent implements Extent {
  readonly size: number;
  private readonly file: BlockFile;
  private readonly base: number;
  constructor(file: BlockFile, base: number, size: number) {
    this.file = file;
    this.base = base;
    this.size = size;
  }
  read(offset: number, buf: Uint8Array): void {
    this.file.pread(buf, this.base + offset);
  }
  status(offset: number, length: number): BlockRun {
    const extent = this.file.extent(this.base + offset, length);
    return { kind: extent.data ? 'data' : 'zero', length: extent.length, hostOffset: this.base + offset };
  }
  close(): void {
    this.file.close();
  }
}

class ZeroExtent implements Extent {
  readonly size: number;
  constructor(size: number) {
    this.size = size;
  }
  read(_offset: number, buf: Uint8Array): void {
    buf.fill(0);
  }
  status(_offset: number, length: number): BlockRun {
    return { kind: 'zero', length };
  }
  close(): void {}
}

class SparseExtent implements Extent {
  readonly size: number;
  readonly descriptor: string;
  private readonly file: BlockFile;
  private readonly host: BlockHost;
  private readonly parent: () => BlockNode | null;
  private readonly grain: number;
  private readonly tableEntries: number;
  private readonly directory: Uint32Array;
  private readonly compressed: boolean;
  private readonly markers: boolean;
  private readonly zeroGrains: boolean;
  private readonly tables = new Map<number, Uint32Array>();
  private unpackedFrom = -1;
  private unpacked = new Uint8Array(0);
  /** Where the extent starts on the disk: for reads of the parent. */
  base = 0;

  constructor(file: BlockFile, host: BlockHost, parent: () => BlockNode | null) {
    this.file = file;
    this.host = host;
    this.parent = parent;
    const length = file.size();
    const bytes = new Uint8Array(SECTOR);
    file.pread(bytes, 0);
    let view = new DataView(bytes.buffer);
    sane(length >= SECTOR && view.getUint32(0, true) === MAGIC, 'VMDK sparse header is not valid');
    const field = (at: number): number => u64le(view, at);
    const directoryField = (): number =>
      view.getUint32(56, true) === 0xffffffff && view.getUint32(60, true) === 0xffffffff ? GD_AT_END : field(56);
    const descriptorAt = field(28) * SECTOR;
    const descriptorSize = Math.min(field(36) * SECTOR, MAX_DESCRIPTOR);
    if (directoryField() === GD_AT_END) {
      // streamOptimized: the footer is a copy of the header, two sectors before the end-of-stream marker's end.
      sane(length >= 3 * SECTOR, 'VMDK footer is missing');
      const footer = new Uint8Array(SECTOR);
      file.pread(footer, Math.floor(length / SECTOR) * SECTOR - 2 * SECTOR);
      view = new DataView(footer.buffer);
      sane(view.getUint32(0, true) === MAGIC && directoryField() !== GD_AT_END, 'VMDK footer is not valid');
    }
    const version = view.getUint32(4, true);
    if (version < 1 || version > 3) throw new BlockError('unsupported', `${file.name}: VMDK version ${version} is not supported`);
    const flags = view.getUint32(8, true);
    const capacity = field(12);
    this.grain = field(20) * SECTOR;
    this.tableEntries = view.getUint32(44, true);
    this.compressed = (flags & FLAG_COMPRESSED) !== 0;
    this.markers = (flags & FLAG_MARKERS) !== 0;
    this.zeroGrains = (flags & FLAG_ZERO_GRAIN) !== 0;
    if (this.compressed && view.getUint16(77, true) !== 1)
      throw new BlockError('unsupported', `${file.name}: VMDK compression algorithm is not known`);
    sane(this.grain >= 4096 && this.grain <= 64 << 20 && (this.grain & (this.grain - 1)) === 0, 'VMDK grain size is not valid');
    sane(this.tableEntries > 0 && this.tableEntries <= 65536, 'VMDK grain table size is not valid');
    sane(Number.isSafeInteger(capacity * SECTOR), 'VMDK capacity is too large');
    this.size = capacity * SECTOR;
    const entries = Math.ceil(this.size / (this.grain * this.tableEntries));
    const directoryAt = directoryField() * SECTOR;
    sane(entries * 4 <= 32 << 20, 'VMDK grain directory is too large');
    sane(directoryAt + entries * 4 <= length, 'VMDK grain directory lies outside the file');
    this.directory = this.words(directoryAt, entries);
    if (descriptorAt > 0 && descriptorSize > 0 && descriptorAt + descriptorSize <= length) {
      const text = new Uint8Array(descriptorSize);
      file.pread(text, descriptorAt);
      this.descriptor = new TextDecoder().decode(text).replace(/\0.*$/s, '');
    } else this.descriptor = '';
  }

  private words(offset: number, count: number): Uint32Array {
    const bytes = new Uint8Array(count * 4);
    this.file.pread(bytes, offset);
    const view = new DataView(bytes.buffer);
    const out = new Uint32Array(count);
    for (let i = 0; i < count; i++) out[i] = view.getUint32(i * 4, true);
    return out;
  }

  /** The grain's sector; 0 unallocated, 1 zeros where the image has such. */
  private lookup(index: number): number {
    const table = this.directory[Math.floor(index / this.tableEntries)];
    if (table === 0) return 0;
    let entries = this.tables.get(table);
    if (!entries) {
      sane(table * SECTOR < this.file.size(), 'VMDK grain table lies outside the file');
      if (this.tables.size >= 64) this.tables.clear();
      entries = this.words(table * SECTOR, this.tableEntries);
      this.tables.set(table, entries);
    }
    return entries[index % this.tableEntries];
  }

  private unpack(sector: number): Uint8Array {
    if (this.unpackedFrom === sector) return this.unpacked;
    const head = new Uint8Array(12);
    const at = sector * SECTOR;
    this.file.pread(head, at);
    const size = new DataView(head.buffer).getUint32(this.markers ? 8 : 0, true);
    const start = at + (this.markers ? 12 : 4);
    sane(size > 0 && size <= this.grain * 2 + 1024 && start + size <= this.file.size(), 'VMDK compressed grain is not valid');
    const packed = new Uint8Array(size);
    this.file.pread(packed, start);
    const plain = this.host.codecs.inflate(packed, this.grain);
    this.unpacked = new Uint8Array(this.grain);
    this.unpacked.set(plain);
    this.unpackedFrom = sector;
    return this.unpacked;
  }

  read(offset: number, buf: Uint8Array): void {
    for (let done = 0; done < buf.length; ) {
      const at = offset + done;
      const inGrain = at % this.grain;
      const part = buf.subarray(done, done + Math.min(buf.length - done, this.grain - inGrain));
      const sector = this.lookup(Math.floor(at / this.grain));
      if (sector === 1 && this.zeroGrains) part.fill(0);
      else if (sector === 0) this.readParent(this.base + at, part);
      else {
        sane(sector * SECTOR < this.file.size(), 'VMDK grain lies outside the file');
        if (this.compressed) part.set(this.unpack(sector).subarray(inGrain, inGrain + part.length));
        else this.file.pread(part, sector * SECTOR + inGrain);
      }
      done += part.length;
    }
  }

  private readParent(offset: number, part: Uint8Array): void {
    const parent = this.parent();
    const inside = parent ? Math.max(0, Math.min(part.length, parent.size - offset)) : 0;
    if (inside > 0) parent!.read(offset, part.subarray(0, inside));
    part.fill(0, inside);
  }

  status(offset: number, length: number): BlockRun {
    const kindOf = (sector: number) => (sector === 1 && this.zeroGrains ? 'zero' : sector === 0 ? 'unallocated' : 'data');
    const inGrain = offset % this.grain;
    let index = Math.floor(offset / this.grain);
    const first = this.lookup(index);
    const kind = kindOf(first);
    let run = this.grain - inGrain;
    let expected = first;
    while (run < length) {
      const next = this.lookup(++index);
      expected += this.grain / SECTOR;
      if (kindOf(next) !== kind || (kind === 'data' && !this.compressed && next !== expected)) break;
      run += this.grain;
    }
    run = Math.min(run, length);
    if (kind !== 'data') return { kind: kind === 'unallocated' && this.parent() === null ? 'zero' : kind, length: run };
    return this.compressed
      ? { kind, length: run, compressed: true }
      : { kind, length: run, hostOffset: first * SECTOR + inGrain };
  }

  close(): void {
    this.file.close();
  }
}

class VmdkNode extends ReadOnlyNode {
  readonly format = 'vmdk';
  readonly size: number;
  readonly filename: string;
  readonly createType: string;
  override readonly backing: BlockNode | null;
  private readonly extents: Extent[];

  constructor(filename: string, createType: string, extents: Extent[], backing: BlockNode | null) {
    super();
    this.filename = filename;
    this.createType = createType;
    this.extents = extents;
    this.backing = backing;
    this.size = extents.reduce((sum, extent) => sum + extent.size, 0);
  }

  private at(offset: number): { extent: Extent; inside: number } {
    for (const extent of this.extents) {
      if (offset < extent.size) return { extent, inside: offset };
      offset -= extent.size;
    }
    throw new BlockError('invalid', 'offset past the end of the disk');
  }

  read(offset: number, buf: Uint8Array): void {
    checkRange(this.size, offset, buf.length);
    for (let done = 0; done < buf.length; ) {
      const { extent, inside } = this.at(offset + done);
      const part = buf.subarray(done, done + Math.min(buf.length - done, extent.size - inside));
      extent.read(inside, part);
      done += part.length;
    }
  }

  blockStatus(offset: number, length: number): BlockRun {
    checkRange(this.size, offset, length);
    if (length === 0) return { kind: 'data', length: 0 };
    const { extent, inside } = this.at(offset);
    return extent.status(inside, Math.min(length, extent.size - inside));
  }

  close(): void {
    for (const extent of this.extents) extent.close();
    this.backing?.close();
  }
}

function field(descriptor: string, name: string): string | null {
  const found = new RegExp(`^\\s*${name}\\s*=\\s*"?([^"\\r\\n]*?)"?\\s*$`, 'm').exec(descriptor);
  return found ? found[1] : null;
}

/** Opens a VMDK; extents beside a descriptor are opened from its folder only. */
export function openVmdk(file: BlockFile, host: BlockHost, openParent: (path: string) => BlockNode): VmdkNode {
  const start = new Uint8Array(4);
  file.pread(start, 0);
  let backing: BlockNode | null = null;
  const parent = () => backing;
  const needsParent = (descriptor: string): void => {
    const cid = field(descriptor, 'parentCID');
    const hint = field(descriptor, 'parentFileNameHint');
    if (cid !== null && cid.toLowerCase() !== 'ffffffff' && hint) backing = openParent(hint);
  };
  if (new DataView(start.buffer).getUint32(0, true) === MAGIC) {
    const extent = new SparseExtent(file, host, parent);
    needsParent(extent.descriptor);
    return new VmdkNode(file.name, field(extent.descriptor, 'createType') ?? 'monolithicSparse', [extent], backing);
  }
  sane(file.size() <= MAX_DESCRIPTOR, 'VMDK descriptor is too large');
  const bytes = new Uint8Array(file.size());
  file.pread(bytes, 0);
  const descriptor = new TextDecoder().decode(bytes);
  if (!isVmdk(bytes)) throw new BlockError('format', `${file.name}: not a VMDK image`);
  const createType = field(descriptor, 'createType');
  sane(createType !== null, 'VMDK descriptor has no createType');
  const known = ['monolithicFlat', 'twoGbMaxExtentFlat', 'vmfs', 'twoGbMaxExtentSparse', 'monolithicSparse', 'streamOptimized'];
  if (!known.includes(createType))
    throw new BlockError('unsupported', `${file.name}: VMDK type '${createType}' is not supported`);
  const extents: Extent[] = [];
  const done = (): never => {
    throw new BlockError('corrupt', `${file.name}: VMDK extent line is not valid`);
  };
  try {
    for (const line of descriptor.split(/\r?\n/)) {
      if (!/^\s*(RW|RDONLY|NOACCESS)\s/.test(line)) continue;
      if (extents.length >= MAX_EXTENTS) throw new BlockError('unsupported', `${file.name}: too many VMDK extents`);
      const match = /^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+(FLAT|SPARSE|ZERO|VMFS|VMFSSPARSE)(?:\s+"([^"]*)"(?:\s+(\d+))?)?/.exec(
        line,
      );
      if (!match) done();
      const [, , sectors, type, name, offset] = match!;
      const size = Number(sectors) * SECTOR;
      sane(Number.isSafeInteger(size), 'VMDK extent is too large');
      if (type === 'ZERO') {
        extents.push(new ZeroExtent(size));
        continue;
      }
      if (!name || /[/\\]/.test(name) || name === '..')
        throw new BlockError('unsupported', `${file.name}: VMDK extents must lie in the folder of the descriptor`);
      const extentFile = host.openFile(host.resolvePath(file.name, name), { write: false });
      try {
        if (extentFile.identity === file.identity)
          throw new BlockError('corrupt', `${file.name}: VMDK descriptor names itself as its extent`);
        if (type === 'SPARSE') {
          const sparse = new SparseExtent(extentFile, host, parent);
          sparse.base = extents.reduce((sum, extent) => sum + extent.size, 0);
          extents.push(sparse);
        } else if (type === 'FLAT' || type === 'VMFS')
          extents.push(new FlatExtent(extentFile, Number(offset ?? 0) * SECTOR, size));
        else throw new BlockError('unsupported', `${file.name}: VMDK extent type '${type}' is not supported`);
      } catch (error) {
        extentFile.close();
        throw error;
      }
    }
    sane(extents.length > 0, 'VMDK descriptor names no extents');
    needsParent(descriptor);
  } catch (error) {
    for (const extent of extents) extent.close();
    throw error;
  }
  file.close();
  return new VmdkNode(file.name, createType, extents, backing);
}
