/** New qcow2 images. Source: docs/interop/qcow2.txt. */
import { setU64 } from '../bytes.ts';
import { BlockError } from '../errors.ts';
import type { BlockFile, BlockHost } from '../file.ts';
import { createLuks, type LuksOptions } from '../luks.ts';
import {
  AUTOCLEAR_RAW_DATA,
  COMPAT_LAZY_REFCOUNTS,
  CRYPT_LUKS,
  CRYPT_NONE,
  encodeHeader,
  type Header,
  INCOMPAT_COMPRESSION,
  INCOMPAT_DATA_FILE,
  INCOMPAT_EXTENDED_L2,
  MAX_L1_BYTES,
} from './header.ts';

export interface Qcow2CreateOptions {
  /** Bytes; rounded up to 512. */
  size: number;
  version?: 2 | 3;
  clusterSize?: number;
  extendedL2?: boolean;
  refcountBits?: number;
  lazyRefcounts?: boolean;
  compression?: 'zlib' | 'zstd';
  backingFile?: string | null;
  backingFormat?: string | null;
  /** Name as it goes into the header; the caller makes the file. */
  dataFile?: string | null;
  dataFileRaw?: boolean;
  luks?: (LuksOptions & { password: Uint8Array }) | null;
}

function powerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}

/** Writes an empty image into an empty file. Throws `invalid` on options that do not go together. */
export function createQcow2(file: BlockFile, host: BlockHost, options: Qcow2CreateOptions): void {
  const version = options.version ?? 3;
  const clusterSize = options.clusterSize ?? 65536;
  const refcountBits = options.refcountBits ?? 16;
  const size = Math.ceil(options.size / 512) * 512;
  const invalid = (message: string): never => {
    throw new BlockError('invalid', message);
  };
  if (!Number.isSafeInteger(size) || size < 0) invalid('Image size is not valid');
  if (!powerOfTwo(clusterSize) || clusterSize < 512 || clusterSize > 2 << 20)
    invalid('Cluster size must be a power of two between 512 and 2048k');
  if (!powerOfTwo(refcountBits) || refcountBits < 1 || refcountBits > 64)
    invalid('Refcount width must be a power of two and may not exceed 64 bits');
  if (version < 3) {
    if (refcountBits !== 16)
      invalid('Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)');
    if (options.lazyRefcounts)
      invalid('Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)');
    if (options.extendedL2)
      invalid('Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)');
    if (options.compression === 'zstd')
      invalid('Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)');
    if (options.dataFile)
      invalid('External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)');
  }
  if (options.extendedL2 && clusterSize < 16384)
    invalid('Extended L2 entries are only supported with cluster sizes of at least 16384 bytes');
  if (options.dataFileRaw && !options.dataFile) invalid('data-file-raw requires data-file');
  if (options.dataFileRaw && options.backingFile) invalid('Backing file and data-file-raw cannot be used at the same time');
  if (options.dataFile && options.luks === undefined && options.compression === 'zstd')
    invalid('no compression with an external data file');

  const clusterBits = Math.log2(clusterSize);
  const l2Entries = clusterSize / (options.extendedL2 ? 16 : 8);
  const l1Size = Math.max(1, Math.ceil(size / (l2Entries * clusterSize)));
  if (l1Size * 8 > MAX_L1_BYTES) invalid('The image size is too large (try using a larger cluster size)');
  const l1Clusters = Math.ceil((l1Size * 8) / clusterSize);
  const luks = options.luks ? createLuks(host.crypto, options.luks.password, options.luks, host.now) : null;
  const luksClusters = luks ? Math.ceil(luks.bytes.length / clusterSize) : 0;

  // Header, refcount table, refcount blocks, L1, LUKS: one after the other.
  const blockEntries = (clusterSize * 8) / refcountBits;
  let blocks = 1;
  let tableClusters = 1;
  let used = 0;
  for (let round = 0; round < 64; round++) {
    used = 1 + tableClusters + blocks + l1Clusters + luksClusters;
    const needBlocks = Math.ceil(used / blockEntries);
    const needTable = Math.ceil((needBlocks * 8) / clusterSize);
    if (needBlocks === blocks && needTable === tableClusters) break;
    blocks = Math.max(blocks, needBlocks);
    tableClusters = Math.max(tableClusters, needTable);
  }
  const tableAt = 1;
  const blocksAt = tableAt + tableClusters;
  const l1At = blocksAt + blocks;
  const luksAt = l1At + l1Clusters;
  const header: Header = {
    version,
    clusterBits,
    size,
    cryptMethod: luks ? CRYPT_LUKS : CRYPT_NONE,
    l1Size,
    l1Offset: l1At * clusterSize,
    reftableOffset: tableAt * clusterSize,
    reftableClusters: tableClusters,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible:
      (options.dataFile ? INCOMPAT_DATA_FILE : 0) |
      (options.compression === 'zstd' ? INCOMPAT_COMPRESSION : 0) |
      (options.extendedL2 ? INCOMPAT_EXTENDED_L2 : 0),
    compatible: options.lazyRefcounts ? COMPAT_LAZY_REFCOUNTS : 0,
    compatibleHigh: 0,
    autoclear: options.dataFileRaw ? AUTOCLEAR_RAW_DATA : 0,
    refcountOrder: Math.log2(refcountBits),
    headerLength: version === 3 ? 112 : 72,
    compressionType: options.compression === 'zstd' ? 1 : 0,
    backingFile: options.backingFile ?? null,
    backingFormat: options.backingFormat ?? null,
    dataFile: options.dataFile ?? null,
    bitmaps: null,
    crypto: luks ? { offset: luksAt * clusterSize, length: luks.bytes.length } : null,
    extraFields: new Uint8Array(0),
    unknownExtensions: [],
    featureNames: version === 3,
    unknownAutoclear: false,
  };
  const first = encodeHeader(header);
  const table = new Uint8Array(tableClusters * clusterSize);
  const tableView = new DataView(table.buffer);
  for (let i = 0; i < blocks; i++) setU64(tableView, i * 8, (blocksAt + i) * clusterSize);
  const counted = new Uint8Array(blocks * clusterSize);
  for (let c = 0; c < used; c++) {
    if (refcountBits >= 8) counted[(c + 1) * (refcountBits / 8) - 1] = 1;
    else counted[(c * refcountBits) >> 3] |= 1 << ((c * refcountBits) & 7);
  }
  file.truncate(used * clusterSize);
  file.pwrite(table, tableAt * clusterSize);
  file.pwrite(counted, blocksAt * clusterSize);
  if (luks) file.pwrite(luks.bytes, luksAt * clusterSize);
  file.flush();
  file.pwrite(first, 0);
  file.flush();
}
