/**
 * The qcow2 header and its extensions. Source: QEMU docs/interop/qcow2.txt, "Header" and "Header extensions".
 * A checked view: nothing outside this file looks at header bytes.
 */
import { setU64, u64 } from '../bytes.ts';
import { BlockError, sane } from '../errors.ts';
import type { BlockFile } from '../file.ts';

export const MAGIC = 0x514649fb;
export const INCOMPAT_DIRTY = 1;
export const INCOMPAT_CORRUPT = 2;
export const INCOMPAT_DATA_FILE = 4;
export const INCOMPAT_COMPRESSION = 8;
export const INCOMPAT_EXTENDED_L2 = 16;
const INCOMPAT_KNOWN = 31;
export const COMPAT_LAZY_REFCOUNTS = 1;
export const AUTOCLEAR_BITMAPS = 1;
export const AUTOCLEAR_RAW_DATA = 2;
const AUTOCLEAR_KNOWN = 3;

export const CRYPT_NONE = 0;
export const CRYPT_AES = 1;
export const CRYPT_LUKS = 2;

const EXT_END = 0;
const EXT_BACKING_FORMAT = 0xe2792aca;
const EXT_FEATURES = 0x6803f857;
const EXT_BITMAPS = 0x23852875;
const EXT_CRYPTO = 0x0537be77;
const EXT_DATA_FILE = 0x44415441;

/** Limits that QEMU has too, so that images cross both ways; they bound our memory on hostile images. */
export const MAX_L1_BYTES = 32 << 20;
export const MAX_REFTABLE_BYTES = 8 << 20;
export const MAX_SNAPSHOTS = 65536;
const MAX_BACKING_NAME = 1023;
/** Offsets are JavaScript numbers; 2^53 bytes is 8 PiB. */
const MAX_SIZE = Number.MAX_SAFE_INTEGER;

export interface BitmapsExtension {
  count: number;
  directorySize: number;
  directoryOffset: number;
}

export interface Header {
  version: 2 | 3;
  clusterBits: number;
  size: number;
  cryptMethod: number;
  l1Size: number;
  l1Offset: number;
  reftableOffset: number;
  reftableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  /** Low words; the high words have no known bits. */
  incompatible: number;
  compatible: number;
  compatibleHigh: number;
  autoclear: number;
  refcountOrder: number;
  headerLength: number;
  compressionType: number;
  backingFile: string | null;
  backingFormat: string | null;
  dataFile: string | null;
  bitmaps: BitmapsExtension | null;
  crypto: { offset: number; length: number } | null;
  /** Header bytes after those we know, and extensions we do not know: written back as they were. */
  extraFields: Uint8Array;
  unknownExtensions: { type: number; data: Uint8Array }[];
  featureNames: boolean;
  /** Autoclear bits set that we do not know: must be cleared before the first write. */
  unknownAutoclear: boolean;
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** True if the bytes start a qcow2 image of a version we might read. */
export function isQcow2(start: Uint8Array): boolean {
  return start.length >= 8 && start[0] === 0x51 && start[1] === 0x46 && start[2] === 0x49 && start[3] === 0xfb && start[7] >= 2;
}

function aligned(value: number, clusterSize: number, what: string): void {
  sane(Number.isSafeInteger(value) && value % clusterSize === 0, `${what} is not at a cluster boundary`);
}

/** Reads and validates the header. Throws `format`, `unsupported` or `corrupt`; changes nothing. */
export function readHeader(file: BlockFile): Header {
  const fileSize = file.size();
  const fixed = new Uint8Array(112);
  file.pread(fixed, 0);
  const view = new DataView(fixed.buffer);
  if (fileSize < 72 || view.getUint32(0) !== MAGIC) throw new BlockError('format', `${file.name}: Image is not in qcow2 format`);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw new BlockError('unsupported', `${file.name}: Unsupported qcow2 version ${version}`);
  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw new BlockError('unsupported', `${file.name}: Unsupported cluster size: 2^${clusterBits}`);
  const clusterSize = 1 << clusterBits;
  const headerLength = version === 3 ? view.getUint32(100) : 72;
  if (version === 3) {
    sane(headerLength >= 104 && headerLength % 8 === 0, 'qcow2 header length is not valid');
    sane(headerLength <= clusterSize, 'qcow2 header exceeds cluster size');
  }
  const v3 = version === 3;
  const incompatible = v3 ? view.getUint32(76) : 0;
  const compressionType = headerLength > 104 ? view.getUint8(104) : 0;
  const cluster = new Uint8Array(clusterSize);
  file.pread(cluster, 0);
  const header: Header = {
    version,
    clusterBits,
    size: u64(view, 24),
    cryptMethod: view.getUint32(32),
    l1Size: view.getUint32(36),
    l1Offset: u64(view, 40),
    reftableOffset: u64(view, 48),
    reftableClusters: view.getUint32(56),
    snapshotCount: view.getUint32(60),
    snapshotsOffset: u64(view, 64),
    incompatible,
    compatible: v3 ? view.getUint32(84) : 0,
    compatibleHigh: v3 ? view.getUint32(80) : 0,
    autoclear: v3 ? view.getUint32(92) & AUTOCLEAR_KNOWN : 0,
    refcountOrder: v3 ? view.getUint32(96) : 4,
    headerLength,
    compressionType,
    backingFile: null,
    backingFormat: null,
    dataFile: null,
    bitmaps: null,
    crypto: null,
    extraFields: cluster.slice(Math.min(112, headerLength), headerLength),
    unknownExtensions: [],
    featureNames: false,
    unknownAutoclear: v3 && (view.getUint32(88) !== 0 || (view.getUint32(92) & ~AUTOCLEAR_KNOWN) !== 0),
  };

  const extensionsEnd = readExtensions(header, cluster, view, file.name);
  if (v3 && (view.getUint32(72) !== 0 || (incompatible & ~INCOMPAT_KNOWN) !== 0)) {
    const bits: string[] = [];
    for (let bit = 0; bit < 64; bit++) {
      const word = bit < 32 ? incompatible & ~INCOMPAT_KNOWN : view.getUint32(72);
      if ((word >>> (bit & 31)) & 1) bits.push(featureName(cluster, headerLength, bit));
    }
    throw new BlockError('unsupported', `${file.name}: Unsupported qcow2 feature(s): ${bits.join(', ')}`);
  }
  if (header.refcountOrder > 6)
    throw new BlockError('unsupported', `${file.name}: Reference count entry width too large; may not exceed 64 bits`);
  if ((incompatible & INCOMPAT_COMPRESSION) !== 0) {
    sane(compressionType !== 0, 'compression type bit is set but the type is zero or missing');
    if (compressionType !== 1) throw new BlockError('unsupported', `${file.name}: Unknown compression type ${compressionType}`);
  } else sane(compressionType === 0, 'compression type is set but its feature bit is not');
  if (incompatible & INCOMPAT_EXTENDED_L2) sane(clusterBits >= 14, 'clusters are too small for extended L2 entries');
  if (header.cryptMethod > 2)
    throw new BlockError('unsupported', `${file.name}: Unsupported encryption method ${header.cryptMethod}`);
  if (header.cryptMethod === CRYPT_LUKS) {
    if (header.crypto === null) throw new BlockError('corrupt', 'LUKS encryption without its header pointer');
    aligned(header.crypto.offset, clusterSize, 'encryption header');
    sane(header.crypto.offset > 0 && header.crypto.length >= 592, 'encryption header pointer is not valid');
    sane(header.crypto.offset + header.crypto.length <= fileSize, 'encryption header lies beyond the end of the file');
  } else sane(header.crypto === null, 'encryption header pointer without LUKS encryption');
  sane(Number.isFinite(header.size) && header.size <= MAX_SIZE, 'virtual size is too large');

  const l2Entries = clusterSize / (incompatible & INCOMPAT_EXTENDED_L2 ? 16 : 8);
  sane(header.l1Size * 8 <= MAX_L1_BYTES, 'Active L1 table too large');
  sane(Math.ceil(header.size / (l2Entries * clusterSize)) <= header.l1Size, 'L1 table is too small');
  if (header.l1Size > 0) {
    aligned(header.l1Offset, clusterSize, 'Active L1 table offset');
    sane(header.l1Offset > 0 && header.l1Offset + header.l1Size * 8 <= fileSize, 'Active L1 table lies outside the file');
  }
  aligned(header.reftableOffset, clusterSize, 'Reference count table offset');
  sane(header.reftableClusters > 0, 'Image does not contain a reference count table');
  sane(header.reftableClusters * clusterSize <= MAX_REFTABLE_BYTES, 'Reference count table too large');
  sane(header.reftableOffset > 0 && header.reftableOffset < fileSize, 'Reference count table lies outside the file');
  sane(header.snapshotCount <= MAX_SNAPSHOTS, 'Snapshot table too large');
  if (header.snapshotCount > 0) {
    aligned(header.snapshotsOffset, clusterSize, 'Snapshot table offset');
    sane(header.snapshotsOffset > 0 && header.snapshotsOffset < fileSize, 'Snapshot table lies outside the file');
  }

  const backingOffset = u64(view, 8);
  if (backingOffset !== 0) {
    const length = view.getUint32(16);
    sane(length <= MAX_BACKING_NAME, 'Backing file name too long');
    sane(backingOffset >= extensionsEnd || version === 2, 'Backing file name overlaps the header');
    sane(backingOffset + length <= clusterSize, 'Backing file name lies outside the first cluster');
    if (length > 0) header.backingFile = decoder.decode(cluster.subarray(backingOffset, backingOffset + length));
  }
  if (incompatible & INCOMPAT_DATA_FILE) {
    sane(!(header.autoclear & AUTOCLEAR_RAW_DATA && header.backingFile), 'raw external data with a backing file');
    sane(header.snapshotCount === 0, 'snapshots with an external data file');
  } else {
    sane((header.autoclear & AUTOCLEAR_RAW_DATA) === 0, 'raw external data bit without an external data file');
  }
  if (header.autoclear & AUTOCLEAR_BITMAPS && header.bitmaps === null) header.autoclear &= ~AUTOCLEAR_BITMAPS;
  return header;
}

function readExtensions(header: Header, cluster: Uint8Array, fixed: DataView, name: string): number {
  const view = new DataView(cluster.buffer);
  const backingOffset = u64(fixed, 8);
  const end = backingOffset > header.headerLength && backingOffset < cluster.length ? backingOffset : cluster.length;
  let at = header.headerLength;
  const seen = new Set<number>();
  while (at + 8 <= end) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    at += 8;
    if (type === EXT_END) break;
    sane(length <= end - at, 'Header extension too large');
    sane(
      !seen.has(type) || ![EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE].includes(type),
      'a header extension appears twice',
    );
    seen.add(type);
    const data = cluster.subarray(at, at + length);
    if (type === EXT_BACKING_FORMAT) header.backingFormat = decoder.decode(data);
    else if (type === EXT_DATA_FILE) header.dataFile = decoder.decode(data);
    else if (type === EXT_FEATURES) header.featureNames = true;
    else if (type === EXT_CRYPTO) {
      sane(length === 16, 'Encryption header extension has a wrong size');
      header.crypto = { offset: u64(view, at), length: u64(view, at + 8) };
    } else if (type === EXT_BITMAPS && header.version === 3) {
      if (fixed.getUint32(92) & AUTOCLEAR_BITMAPS) {
        sane(length === 24 && view.getUint32(at + 4) === 0, 'bitmaps extension is not valid');
        const bitmaps = { count: view.getUint32(at), directorySize: u64(view, at + 8), directoryOffset: u64(view, at + 16) };
        sane(bitmaps.count > 0 && bitmaps.count <= 65535, `${name}: bitmaps extension: bad number of bitmaps`);
        sane(bitmaps.directorySize <= 64 << 20, 'bitmap directory is too large');
        aligned(bitmaps.directoryOffset, cluster.length, 'bitmap directory');
        header.bitmaps = bitmaps;
      }
      // Without its autoclear bit the extension is stale, and its clusters are leaks: it is not written back.
    } else header.unknownExtensions.push({ type, data: data.slice() });
    at += Math.ceil(length / 8) * 8;
  }
  return Math.min(at, end);
}

function featureName(cluster: Uint8Array, headerLength: number, bit: number): string {
  const view = new DataView(cluster.buffer);
  let at = headerLength;
  while (at + 8 <= cluster.length) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === EXT_END || length > cluster.length - at - 8) break;
    if (type === EXT_FEATURES)
      for (let entry = at + 8; entry + 48 <= at + 8 + length; entry += 48)
        if (cluster[entry] === 0 && cluster[entry + 1] === bit)
          return decoder
            .decode(cluster.subarray(entry + 2, entry + 48))
            .replace(/\0.*$/s, '')
            .replace(/[^ -~]/g, '?');
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return `Unknown incompatible feature: bit ${bit}`;
}

const FEATURE_NAMES: [number, number, string][] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

/** The first cluster's content for a header; throws `invalid` if it does not fit. */
export function encodeHeader(header: Header): Uint8Array {
  const clusterSize = 1 << header.clusterBits;
  const out = new Uint8Array(clusterSize);
  const view = new DataView(out.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  setU64(view, 24, header.size);
  view.setUint32(32, header.cryptMethod);
  view.setUint32(36, header.l1Size);
  setU64(view, 40, header.l1Offset);
  setU64(view, 48, header.reftableOffset);
  view.setUint32(56, header.reftableClusters);
  view.setUint32(60, header.snapshotCount);
  setU64(view, 64, header.snapshotCount ? header.snapshotsOffset : 0);
  let at = 72;
  if (header.version === 3) {
    view.setUint32(76, header.incompatible);
    view.setUint32(80, header.compatibleHigh);
    view.setUint32(84, header.compatible);
    view.setUint32(92, header.autoclear);
    view.setUint32(96, header.refcountOrder);
    view.setUint32(100, header.headerLength);
    if (header.headerLength > 104) view.setUint8(104, header.compressionType);
    out.set(header.extraFields, Math.min(112, header.headerLength));
    at = header.headerLength;
  }
  const add = (type: number, data: Uint8Array): void => {
    const padded = Math.ceil(data.length / 8) * 8;
    if (at + 16 + padded > clusterSize) throw new BlockError('invalid', 'the header does not fit into the first cluster');
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    out.set(data, at + 8);
    at += 8 + padded;
  };
  if (header.backingFormat !== null && header.backingFile !== null) add(EXT_BACKING_FORMAT, encoder.encode(header.backingFormat));
  if (header.dataFile !== null) add(EXT_DATA_FILE, encoder.encode(header.dataFile));
  if (header.crypto) {
    const data = new Uint8Array(16);
    setU64(new DataView(data.buffer), 0, header.crypto.offset);
    setU64(new DataView(data.buffer), 8, header.crypto.length);
    add(EXT_CRYPTO, data);
  }
  const nameLength = header.backingFile === null ? 0 : encoder.encode(header.backingFile).length;
  if (header.version === 3 && header.featureNames && at + 8 + FEATURE_NAMES.length * 48 + 64 + nameLength <= clusterSize) {
    const data = new Uint8Array(FEATURE_NAMES.length * 48);
    FEATURE_NAMES.forEach(([type, bit, name], i) => {
      data[i * 48] = type;
      data[i * 48 + 1] = bit;
      data.set(encoder.encode(name), i * 48 + 2);
    });
    add(EXT_FEATURES, data);
  }
  if (header.bitmaps) {
    const data = new Uint8Array(24);
    const extension = new DataView(data.buffer);
    extension.setUint32(0, header.bitmaps.count);
    setU64(extension, 8, header.bitmaps.directorySize);
    setU64(extension, 16, header.bitmaps.directoryOffset);
    add(EXT_BITMAPS, data);
  }
  for (const { type, data } of header.unknownExtensions) add(type, data);
  at += 8;
  if (header.backingFile !== null) {
    const name = encoder.encode(header.backingFile);
    if (name.length > MAX_BACKING_NAME || at + name.length > clusterSize)
      throw new BlockError('invalid', 'the backing file name is too long for the header');
    setU64(view, 8, at);
    view.setUint32(16, name.length);
    out.set(name, at);
  }
  return out;
}
