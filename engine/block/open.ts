/** Opening images by name: probing, backing chains, passwords. */
import { BlockError } from './errors.ts';
import type { BlockFile, BlockHost, OpenFileOptions } from './file.ts';
import { isLuks } from './luks.ts';
import { LuksNode } from './luks-node.ts';
import type { BlockNode } from './node.ts';
import { type Header, isQcow2 } from './qcow2/header.ts';
import type { CacheSizes } from './qcow2/meta.ts';
import { openQcow2 } from './qcow2/open.ts';
import { RawNode } from './raw.ts';
import { isVdi, openVdi } from './vdi.ts';
import { isVhdx, openVhdx } from './vhdx.ts';
import { isVmdk, openVmdk } from './vmdk.ts';
import { isVpc, openVpc } from './vpc.ts';

export const FORMATS = ['raw', 'qcow2', 'luks', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const;
export type Format = (typeof FORMATS)[number];

export interface OpenImageOptions {
  /** Default: found out from the content. */
  format?: string;
  write?: boolean;
  lock?: OpenFileOptions['lock'];
  cache?: OpenFileOptions['cache'];
  /** The password of an encrypted image, by its file name. */
  password?: (filename: string) => Uint8Array | null;
  /** Leave the backing chain closed: unallocated reads as zeros. */
  noBacking?: boolean;
  /** Use this as the backing file instead of what the image says; null for none. */
  backing?: { file: string; format?: string } | null;
  /** Metadata only: no passwords, no guest data. */
  noData?: boolean;
  /** For the checker. */
  check?: boolean;
  cacheSizes?: CacheSizes;
  /** Let a backing file be a host device or an NBD server. Off, because an image from elsewhere could name any. */
  allowDeviceBacking?: boolean;
  /** What a discard does to the host file; default on. */
  unmap?: boolean;
  /** Backing files by path that are opened for writing too: a commit writes into them. */
  writeBacking?: (path: string) => boolean;
  /** Files already open further up the chain. */
  parents?: string[];
}

const MAX_CHAIN = 1000;
const PROBE_BYTES = 2048;

/** What a file holds, from its first and last bytes. Never throws for content. */
export function probeFormat(file: BlockFile): Format {
  const size = file.size();
  const start = new Uint8Array(Math.min(PROBE_BYTES, size));
  file.pread(start, 0);
  if (isQcow2(start)) return 'qcow2';
  if (isLuks(start)) return 'luks';
  if (isVmdk(start)) return 'vmdk';
  if (isVdi(start)) return 'vdi';
  if (isVhdx(start)) return 'vhdx';
  if (isVpc(start)) return 'vpc';
  return 'raw';
}

interface Name {
  path: string;
  format?: string;
}

/** A plain path from `file:` or `json:` forms. Throws `unsupported` for other protocols. */
export function parseFilename(name: string): Name {
  if (name.startsWith('json:')) {
    let value: unknown;
    try {
      value = JSON.parse(name.slice(5));
    } catch (error) {
      throw new BlockError('invalid', `'${name}' is not valid JSON`, error);
    }
    const object = value as Record<string, unknown>;
    const inner = object?.file as Record<string, unknown> | string | undefined;
    const filename =
      typeof object?.filename === 'string'
        ? object.filename
        : typeof object?.['file.filename'] === 'string'
          ? object['file.filename']
          : typeof inner === 'object' && typeof inner?.filename === 'string'
            ? inner.filename
            : undefined;
    if (typeof filename !== 'string') throw new BlockError('unsupported', `'${name}' names no file`);
    const driver = typeof object.driver === 'string' ? object.driver : undefined;
    return { path: filename, format: driver === 'file' || driver === 'host_device' ? undefined : driver };
  }
  if (name.startsWith('file://')) return { path: decodeURIComponent(name.slice(7)) };
  if (name.startsWith('file:')) return { path: name.slice(5) };
  if (/^nbd(\+unix)?:/.test(name)) return { path: name };
  const protocol = /^([a-zA-Z][a-zA-Z0-9+.-]*):/.exec(name);
  // A single letter is a drive on Windows; a slash before the colon makes it a path.
  if (protocol && protocol[1].length > 1) throw new BlockError('unsupported', `Unknown protocol '${protocol[1]}'`);
  return { path: name };
}

/** Opens an image and its backing chain. The node owns all files. */
export function openImage(host: BlockHost, filename: string, options: OpenImageOptions = {}): BlockNode {
  const name = parseFilename(filename);
  const write = options.write ?? false;
  const file = host.openFile(name.path, { write, lock: options.lock, cache: options.cache });
  try {
    return openInFile(host, file, { ...options, format: options.format ?? name.format });
  } catch (error) {
    file.close();
    throw error;
  }
}

/** The same for a file that is open; the caller closes it if this throws. */
export function openInFile(host: BlockHost, file: BlockFile, options: OpenImageOptions = {}): BlockNode {
  const parents = options.parents ?? [];
  if (parents.includes(file.identity))
    throw new BlockError('corrupt', `${file.name}: the backing chain names itself: it would loop`);
  if (parents.length >= MAX_CHAIN) throw new BlockError('unsupported', `the backing chain is longer than ${MAX_CHAIN} images`);
  const chain = [...parents, file.identity];
  const write = options.write ?? false;
  const format = options.format ?? probeFormat(file);
  const password = () => options.password?.(file.name) ?? null;
  switch (format) {
    case 'raw':
    case 'file':
    case 'host_device':
      return new RawNode(file);
    case 'qcow2': {
      const openBacking = (header: Header): BlockNode | null => {
        if (options.noBacking || options.backing === null) return null;
        const wanted = options.backing ?? { file: header.backingFile!, format: header.backingFormat ?? undefined };
        return openBackingFile(host, file.name, wanted, { ...options, parents: chain });
      };
      const node = openQcow2(file, host, {
        write,
        openBacking,
        openDataFile: (header) => openDataFile(host, file, header, options),
        password: options.noData ? null : password(),
        noData: options.noData,
        check: options.check,
        cache: options.cacheSizes,
        unmap: options.unmap,
      });
      return node;
    }
    case 'luks':
      return new LuksNode(file, host, options.noData ? null : password(), options.noData ?? false);
    case 'vmdk':
    case 'vdi':
    case 'vhdx':
    case 'vpc': {
      if (write)
        throw new BlockError('unsupported', `${file.name}: images of format ${format} can only be read; convert them to qcow2`);
      if (format === 'vdi') return openVdi(file);
      if (format === 'vhdx') return openVhdx(file);
      if (format === 'vpc') return openVpc(file);
      return openVmdk(file, host, (path) => openParent(host, file.name, path, { ...options, parents: chain }));
    }
    default:
      throw new BlockError('unsupported', `Unknown driver '${format}'`);
  }
}

function openParent(host: BlockHost, base: string, path: string, options: OpenImageOptions): BlockNode {
  return openBackingFile(host, base, { file: path, format: 'vmdk' }, options);
}

function openBackingFile(
  host: BlockHost,
  base: string,
  wanted: { file: string; format?: string },
  options: OpenImageOptions,
): BlockNode {
  const name = parseFilename(wanted.file);
  if (/^nbd(\+unix)?:/.test(name.path) && !options.allowDeviceBacking)
    throw new BlockError('unsupported', `'${base}' names the server '${name.path}' as its backing file, which is not allowed`);
  const path = host.resolvePath(base, name.path);
  const write = options.writeBacking?.(path) ?? false;
  let file: BlockFile;
  try {
    file = host.openFile(path, { write, lock: options.lock, cache: options.cache });
  } catch (error) {
    if (error instanceof BlockError) throw new BlockError(error.code, `Could not open backing file: ${error.message}`, error);
    throw error;
  }
  try {
    if (file.identity.startsWith('device:') && !options.allowDeviceBacking)
      throw new BlockError('unsupported', `'${base}' names the host device '${path}' as its backing file, which is not allowed`);
    return openInFile(host, file, {
      ...options,
      write,
      backing: undefined,
      format: wanted.format ?? name.format,
    });
  } catch (error) {
    file.close();
    if (error instanceof BlockError && error.code !== 'password')
      throw new BlockError(error.code, `Could not open backing file of '${base}': ${error.message}`, error);
    throw error;
  }
}

function openDataFile(host: BlockHost, image: BlockFile, header: Header, options: OpenImageOptions): BlockFile {
  if (header.dataFile === null) throw new BlockError('invalid', `${image.name}: 'data-file' is required for this image`);
  // QEMU takes a relative name from the current folder; beside the image is where people expect it.
  const name = parseFilename(header.dataFile).path;
  const beside = host.resolvePath(image.name, name);
  const path = host.exists(beside) ? beside : name;
  const file = host.openFile(path, { write: options.write ?? false, lock: options.lock, cache: options.cache });
  if (file.identity === image.identity || file.identity.startsWith('device:')) {
    file.close();
    throw new BlockError('corrupt', `${image.name}: '${path}' cannot be its data file`);
  }
  return file;
}
