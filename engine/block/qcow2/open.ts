import { BlockError, sane } from '../errors.ts';
import type { BlockFile, BlockHost } from '../file.ts';
import { legacyAesCipher, readLuksHeader, type SectorCipher, unlockLuks } from '../luks.ts';
import type { BlockNode } from '../node.ts';
import { BitmapTracker } from './bitmap.ts';
import { checkImage } from './check.ts';
import {
  CRYPT_AES,
  CRYPT_LUKS,
  type Header,
  INCOMPAT_CORRUPT,
  INCOMPAT_DATA_FILE,
  INCOMPAT_DIRTY,
  readHeader,
} from './header.ts';
import { type CacheSizes, Qcow2Meta } from './meta.ts';
import { Qcow2Node } from './node.ts';
import { readSnapshots } from './snapshot.ts';

export interface Qcow2OpenOptions {
  write: boolean;
  /** Opens the backing file named in the header, or returns null for none. */
  openBacking: (header: Header) => BlockNode | null;
  openDataFile: (header: Header) => BlockFile;
  /** The password, if there is one. */
  password?: Uint8Array | null;
  /** Metadata only: no password needed, no guest data can be read. */
  noData?: boolean;
  /** For the checker: open in spite of damage, and repair nothing by itself. */
  check?: boolean;
  cache?: CacheSizes;
  unmap?: boolean;
}

/**
 * Opens an image in a file that is already open; the node closes the file. A dirty image opened for writing is repaired
 * first. Nothing is written to an image that turns out bad while it is opened.
 */
export function openQcow2(file: BlockFile, host: BlockHost, options: Qcow2OpenOptions): Qcow2Node {
  const header = readHeader(file);
  const corrupt = (header.incompatible & INCOMPAT_CORRUPT) !== 0;
  if (corrupt && options.write && !options.check)
    throw new BlockError('corrupt', `${file.name}: Image is corrupt; cannot be opened read/write (repair it with: check -r all)`);
  if (header.cryptMethod === CRYPT_AES && options.write && !options.check)
    throw new BlockError('unsupported', `${file.name}: the old AES encryption is read-only here; convert the image to LUKS`);
  const { list, bytes } = readSnapshots(file, header);
  const meta = new Qcow2Meta(file, header, options.write, options.cache);
  if (options.unmap !== undefined) meta.unmap = options.unmap;
  if (options.write) {
    if (header.snapshotCount) meta.claim(header.snapshotsOffset, bytes, 'the snapshot table');
    for (const snapshot of list)
      if (snapshot.l1Size && meta.overlap === null)
        meta.claim(snapshot.l1Offset, snapshot.l1Size * 8, `the L1 table of snapshot '${snapshot.name}'`);
  }
  const bitmaps = header.bitmaps ? new BitmapTracker(meta) : null;
  if (options.write && !options.check && meta.overlap !== null && !(header.incompatible & INCOMPAT_DIRTY))
    throw new BlockError('corrupt', `${file.name}: ${meta.overlap}; not opened for writing (see: check)`);

  let cipher: SectorCipher | null = null;
  if (!options.noData) {
    if (header.cryptMethod === CRYPT_LUKS) {
      const start = header.crypto!.offset;
      const fde = new Uint8Array(592);
      file.pread(fde, start);
      const luks = readLuksHeader(fde);
      if (!options.password) throw new BlockError('password', `${file.name}: the image is encrypted and needs a password`);
      cipher = unlockLuks(host.crypto, luks, options.password, (offset, length) => {
        sane(offset + length <= header.crypto!.length + (1 << header.clusterBits), 'LUKS key material lies outside its header');
        const part = new Uint8Array(length);
        file.pread(part, start + offset);
        return part;
      });
    } else if (header.cryptMethod === CRYPT_AES) {
      if (!options.password) throw new BlockError('password', `${file.name}: the image is encrypted and needs a password`);
      cipher = legacyAesCipher(host.crypto, options.password);
    }
  }
  const dataFile = header.incompatible & INCOMPAT_DATA_FILE ? options.openDataFile(header) : null;
  let backing: BlockNode | null = null;
  try {
    backing = header.backingFile === null ? null : options.openBacking(header);
    const node = new Qcow2Node(meta, { host, backing, dataFile, cipher, snapshots: list, bitmaps });
    if (header.incompatible & INCOMPAT_DIRTY && options.write && !options.check) {
      const result = checkImage(node, 'all');
      if (result.corruptions > 0)
        throw new BlockError(
          'corrupt',
          `${file.name}: the image was not closed properly and cannot be repaired fully (${result.messages[0]})`,
        );
      meta.settle();
      meta.setDirty(false);
    }
    return node;
  } catch (error) {
    dataFile?.close();
    backing?.close();
    throw error;
  }
}
