/**
 * OVF descriptors (DMTF DSP0243 1.x) as far as a PC is described by them, and the tar archives (OVA) they come in.
 * Everything in them is somebody's: names are used as they stand only to be looked for inside the package.
 */
import { open } from 'node:fs/promises';
import { AppError } from '../contract/index.ts';
import { reasonOf } from '../host/files.ts';
import { childText, findAll, parseXml, XmlError } from './xml.ts';

export interface OvfDisk {
  /** The file's name in the package. */
  readonly file: string;
  readonly bytes: number;
  readonly bus: 'virtio' | 'ide' | 'sata' | 'scsi';
}

export interface OvfMachine {
  readonly name: string;
  readonly description: string;
  readonly osText: string;
  readonly memoryMiB: number | null;
  readonly cpus: number | null;
  readonly firmware: 'bios' | 'uefi';
  readonly disks: readonly OvfDisk[];
  readonly nics: number;
  readonly notes: readonly string[];
}

/** CIM resource types (DSP1004, `ResourceType`). */
const Resource = { CPU: 3, MEMORY: 4, IDE: 5, SCSI: 6, NIC: 10, DISK: 17, SATA: 20 } as const;

/** `byte * 2^20`, `MegaBytes`: the factor of a programmatic unit (DSP0004 annex C). */
function factorOf(unit: string): number {
  const power = /^byte\s*\*\s*2\^(\d+)$/.exec(unit.trim());
  if (power !== null) return 2 ** Math.min(60, Number(power[1]));
  return { byte: 1, kilobytes: 1024, megabytes: 2 ** 20, gigabytes: 2 ** 30 }[unit.trim().toLowerCase()] ?? 1;
}

const whole = (text: string): number | null => (/^\d{1,15}$/.test(text) ? Number(text) : null);

/** Reads a descriptor; rejects with `bad-file`. */
export function parseOvf(text: string): OvfMachine {
  let root: ReturnType<typeof parseXml>;
  try {
    root = parseXml(text);
  } catch (error) {
    if (!(error instanceof XmlError)) throw error;
    throw new AppError('bad-file', `The OVF descriptor cannot be read: ${error.message}`);
  }
  if (root.name !== 'Envelope') throw new AppError('bad-file', 'This is no OVF descriptor');
  const systems = findAll(root, 'VirtualSystem');
  if (systems.length === 0) throw new AppError('bad-file', 'The OVF descriptor describes no machine');
  const [system] = systems;
  const notes: string[] = [];
  if (systems.length > 1) notes.push(`The package has ${systems.length} machines; the first is taken.`);
  const files = new Map(findAll(root, 'File').map(({ attributes }) => [attributes.id ?? '', attributes.href ?? '']));
  const disks = new Map(findAll(root, 'Disk').map(({ attributes }) => [attributes.diskId ?? '', attributes]));
  const items = [...findAll(system, 'Item'), ...findAll(system, 'StorageItem'), ...findAll(system, 'EthernetPortItem')];
  const typeOf = (item: (typeof items)[number]): number =>
    item.name === 'StorageItem' && childText(item, 'ResourceType') === ''
      ? Resource.DISK
      : Number(childText(item, 'ResourceType'));
  const controllers = new Map(items.map((item) => [childText(item, 'InstanceID'), typeOf(item)]));
  let memoryMiB: number | null = null;
  let cpus: number | null = null;
  let nics = 0;
  const found: OvfDisk[] = [];
  for (const item of items) {
    const quantity = whole(childText(item, 'VirtualQuantity'));
    switch (typeOf(item)) {
      case Resource.CPU:
        cpus = quantity ?? cpus;
        break;
      case Resource.MEMORY:
        if (quantity !== null)
          memoryMiB = Math.max(4, Math.round((quantity * factorOf(childText(item, 'AllocationUnits') || 'MegaBytes')) / 2 ** 20));
        break;
      case Resource.NIC:
        nics++;
        break;
      case Resource.DISK: {
        const [, kind, id] = /^(?:ovf:)?\/(disk|file)\/(.+)$/.exec(childText(item, 'HostResource')) ?? [];
        const disk = kind === 'disk' ? disks.get(id) : undefined;
        const file = files.get(kind === 'file' ? id : (disk?.fileRef ?? ''));
        const capacity = whole(disk?.capacity ?? '') ?? 0;
        if (disk?.parentRef !== undefined) notes.push(`The disk ${id} lies on another; only what stands alone can be taken.`);
        if (file === undefined || file === '') {
          notes.push('A disk of the machine is empty or not in the package; it is left out.');
          break;
        }
        const controller = controllers.get(childText(item, 'Parent'));
        const bus =
          controller === Resource.IDE
            ? 'ide'
            : controller === Resource.SATA
              ? 'sata'
              : controller === Resource.SCSI
                ? 'scsi'
                : 'virtio';
        found.push({ file, bytes: capacity * factorOf(disk?.capacityAllocationUnits ?? 'byte'), bus });
        break;
      }
      default:
    }
  }
  const firmware = findAll(system, 'Config').some(
    ({ attributes }) => attributes.key === 'firmware' && attributes.value === 'efi',
  );
  const os = findAll(system, 'OperatingSystemSection')[0];
  return {
    name: childText(system, 'Name') || system.attributes.id || 'Imported VM',
    description: findAll(system, 'Annotation')[0]?.text.trim() ?? '',
    osText: os === undefined ? '' : childText(os, 'Description') || os.attributes.osType || '',
    memoryMiB,
    cpus,
    firmware: firmware ? 'uefi' : 'bios',
    disks: found,
    nics,
    notes,
  };
}

/** A file in a tar archive. */
export interface TarEntry {
  readonly name: string;
  /** In the archive. */
  readonly offset: number;
  readonly size: number;
}

const tarEntries = 10_000;

/** The plain files of a tar archive (POSIX.1-1988 ustar and GNU); rejects with `bad-file`. */
export async function readTar(path: string): Promise<TarEntry[]> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw new AppError('file-missing', `${path}: ${reasonOf(error)}`);
  });
  try {
    const { size: total } = await file.stat();
    const header = Buffer.alloc(512);
    const entries: TarEntry[] = [];
    let longName: string | undefined;
    for (let at = 0, count = 0; at + 512 <= total && count < tarEntries; count++) {
      await file.read(header, 0, 512, at);
      if (header.every((byte) => byte === 0)) break;
      let sum = 8 * 32;
      for (const [n, byte] of header.entries()) if (n < 148 || n >= 156) sum += byte;
      const octal = (from: number, length: number): number => {
        // GNU: the high bit says that the rest is binary.
        if ((header[from] & 0x80) !== 0) return Number(header.readBigUInt64BE(from + length - 8));
        return Number.parseInt(
          header
            .toString('latin1', from, from + length)
            .replace(/\0.*/s, '')
            .trim() || '0',
          8,
        );
      };
      if (octal(148, 8) !== sum) throw new AppError('bad-file', `${path} is no tar archive, or it is damaged`);
      const size = octal(124, 12);
      if (!Number.isSafeInteger(size) || size < 0 || at + 512 + size > total)
        throw new AppError('bad-file', `${path} is cut off`);
      const kind = header.toString('latin1', 156, 157);
      const text = (from: number, length: number): string => header.toString('utf8', from, from + length).replace(/\0.*/s, '');
      const prefix = text(257, 5) === 'ustar' ? text(345, 155) : '';
      const name = longName ?? (prefix === '' ? text(0, 100) : `${prefix}/${text(0, 100)}`);
      longName = undefined;
      if (kind === 'L' && size < 65536) {
        const data = Buffer.alloc(size);
        await file.read(data, 0, size, at + 512);
        longName = data.toString('utf8').replace(/\0.*/s, '');
      } else if (kind === '0' || kind === '\0') entries.push({ name, offset: at + 512, size });
      at += 512 + Math.ceil(size / 512) * 512;
    }
    return entries;
  } finally {
    await file.close();
  }
}
