/**
 * Looks at the files a VM starts from before its process is made, so that the person hears at the field what is wrong:
 * a file that is no kernel, a kernel or an initial RAM disk that is cut off.
 */
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { AppError } from '../contract/index.ts';
import { errorCode, reasonOf } from '../host/files.ts';

export type KernelKind = 'bzimage' | 'elf' | 'multiboot';

/** Opens a file to read; rejects with `file-missing` or `file-unreadable` and the field to blame. */
export async function openToRead(path: string, what: string, field: string): Promise<FileHandle> {
  try {
    const file = await open(path, 'r');
    const info = await file.stat();
    if (info.isFile() || info.isBlockDevice()) return file;
    await file.close();
    throw new AppError('file-unreadable', `${what} ${path} is not a file`, { field });
  } catch (error) {
    if (error instanceof AppError) throw error;
    const code = errorCode(error) === 'ENOENT' ? 'file-missing' : 'file-unreadable';
    throw new AppError(code, `${what} ${path} cannot be opened: ${reasonOf(error)}`, { field, cause: error });
  }
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}

/** What kind of kernel an open file begins like; undefined: none. */
export async function kernelKind(file: FileHandle): Promise<KernelKind | undefined> {
  const head = await readAt(file, 0, 8192);
  // Linux/x86 boot protocol: 0xaa55 at 0x1fe, "HdrS" at 0x202.
  if (head.length >= 0x250 && head.readUInt16LE(0x1fe) === 0xaa55 && head.toString('latin1', 0x202, 0x206) === 'HdrS')
    return 'bzimage';
  // Multiboot 0.6.96, 3.1: the magic lies on 4 bytes within the first 8192.
  for (let at = 0; at + 12 <= head.length; at += 4)
    if (
      head.readUInt32LE(at) === 0x1badb002 &&
      ((head.readUInt32LE(at) + head.readUInt32LE(at + 4) + head.readUInt32LE(at + 8)) & 0xffffffff) === 0
    )
      return 'multiboot';
  if (head.length >= 52 && head.readUInt32BE(0) === 0x7f454c46) return 'elf';
  return undefined;
}

/** Rejects unless the file is a kernel, and a whole one. */
export async function checkKernel(path: string, field: string): Promise<KernelKind> {
  const file = await openToRead(path, 'The kernel', field);
  try {
    const kind = await kernelKind(file);
    if (kind === undefined)
      throw new AppError('bad-file', `${path} is not a kernel: it is neither a Linux bzImage nor a multiboot or ELF kernel`, {
        field,
      });
    if (kind === 'bzimage') {
      const head = await readAt(file, 0, 0x250);
      const { size } = await file.stat();
      // Boot protocol: setup_sects (0 means 4) at 0x1f1, syssize in 16-byte units at 0x1f4.
      const needed = ((head[0x1f1] || 4) + 1) * 512 + head.readUInt32LE(0x1f4) * 16;
      if (size < needed)
        throw new AppError(
          'bad-file',
          `The kernel ${path} is cut off: it has ${size} of at least ${needed} bytes. Copy it again.`,
          { field },
        );
    }
    return kind;
  } finally {
    await file.close();
  }
}

/** Bytes of decompressed data that the check of an initial RAM disk reads at most; beyond, it is taken as good. */
const checkBytes = 1 << 30;

/** Other compressions the kernel knows; only their beginning is looked at. */
const magics: readonly (readonly [string, string])[] = [
  ['xz', 'fd377a585a00'],
  ['bzip2', '425a68'],
  ['lzma', '5d0000'],
  ['lzop', '894c5a4f'],
  ['lz4', '02214c18'],
];

/** Rejects unless the file is an initial RAM disk, and a whole one. Stops looking when the signal aborts. */
export async function checkInitrd(path: string, field: string, signal?: AbortSignal): Promise<void> {
  const file = await openToRead(path, 'The initial RAM disk', field);
  try {
    const head = await readAt(file, 0, 8);
    const { size } = await file.stat();
    const hex = head.toString('hex');
    if (size === 0) throw new AppError('bad-file', `The initial RAM disk ${path} is empty`, { field });
    if (hex.startsWith('1f8b')) await checkStream(path, field, 'gzip', signal);
    else if (hex.startsWith('28b52ffd')) await checkStream(path, field, 'zstd', signal);
    else if (head.toString('latin1').startsWith('07070')) await checkCpio(file, path, size, field);
    else if (!magics.some(([, magic]) => hex.startsWith(magic)))
      throw new AppError(
        'bad-file',
        `${path} is not an initial RAM disk: it is no cpio archive, and not compressed in a way that Linux knows`,
        { field },
      );
  } finally {
    await file.close();
  }
}

async function checkStream(path: string, field: string, format: 'gzip' | 'zstd', signal?: AbortSignal): Promise<void> {
  let bytes = 0;
  const abort = new AbortController();
  signal?.addEventListener('abort', () => abort.abort(), { once: true });
  try {
    await pipeline(
      createReadStream(path),
      format === 'gzip' ? createGunzip() : createZstdDecompress(),
      async (source: AsyncIterable<Buffer>) => {
        for await (const chunk of source) {
          bytes += chunk.length;
          if (bytes > checkBytes) abort.abort();
        }
      },
      { signal: abort.signal },
    );
  } catch (error) {
    if (abort.signal.aborted) return;
    // The archive was whole, and what follows it (zeros, and another archive) is none that this stream unpacks.
    const another = bytes > 0 && /incorrect header check/.test(String(error));
    if (another || errorCode(error) === 'ERR_STREAM_PREMATURE_CLOSE') return;
    const cut = errorCode(error) === 'Z_BUF_ERROR' || /unexpected end|ended unexpectedly/i.test(String(error));
    throw new AppError(
      'bad-file',
      cut
        ? `The initial RAM disk ${path} is cut off. Copy it again, or build it anew.`
        : `The initial RAM disk ${path} is damaged: ${reasonOf(error)}`,
      { field, cause: error },
    );
  }
}

/** Walks the members of a newc archive (cpio(5)): each header tells where the next one is. */
async function checkCpio(file: FileHandle, path: string, size: number, field: string): Promise<void> {
  const pad = (value: number): number => (value + 3) & ~3;
  let at = 0;
  for (let members = 0; members < 1_000_000; members++) {
    const header = await readAt(file, at, 110 + 16);
    const text = header.toString('latin1');
    if (header.length < 110)
      throw new AppError('bad-file', `The initial RAM disk ${path} is cut off. Copy it again, or build it anew.`, { field });
    // Zeros, or another archive (compressed, perhaps), may follow the trailer; only newc is followed here.
    if (!/^07070[12][0-9a-fA-F]{104}/.test(text)) return;
    if (text.startsWith('TRAILER!!!', 110)) return;
    const fileSize = Number.parseInt(text.slice(54, 62), 16);
    const nameSize = Number.parseInt(text.slice(94, 102), 16);
    at = pad(at + 110 + nameSize) + fileSize;
    if (at > size)
      throw new AppError('bad-file', `The initial RAM disk ${path} is cut off. Copy it again, or build it anew.`, { field });
    at = pad(at);
  }
}
