import * as fs from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { BlockError, type BlockErrorCode } from '../block/errors.ts';
import { type BlockFile, type BlockHost, type FileExtent, type OpenFileOptions, writeZeroBytes } from '../block/file.ts';
import { codecs } from './block-codecs.ts';
import { crypto } from './block-crypto.ts';
import { type LinuxFile, linuxFile } from './block-linux.ts';
import { openNbd } from './block-nbd.ts';

const CODES: Record<string, BlockErrorCode> = {
  ENOENT: 'not-found',
  ENOTDIR: 'not-found',
  EACCES: 'permission',
  EPERM: 'permission',
  EROFS: 'read-only',
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EFBIG: 'no-space',
  EISDIR: 'invalid',
};

const WORDS: Record<string, string> = {
  ENOENT: 'No such file or directory',
  ENOTDIR: 'Not a directory',
  EACCES: 'Permission denied',
  EPERM: 'Operation not permitted',
  EROFS: 'Read-only file system',
  ENOSPC: 'No space left on device',
  EISDIR: 'Is a directory',
  EIO: 'Input/output error',
};

/** A host error as a `BlockError`, its message in the host's words. */
export function hostError(name: string, action: string, error: unknown): BlockError {
  if (error instanceof BlockError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? '';
  return new BlockError(CODES[code] ?? 'io', `Could not ${action} '${name}': ${WORDS[code] ?? (error as Error).message}`, error);
}

const SHARED_NOTE =
  'file locks are not available on this host (no koffi, or not Linux): nothing keeps another program from writing to it too';
let noted = false;

/** A file or block device of the host, through blocking calls. */
class NodeFile implements BlockFile {
  readonly name: string;
  readonly readOnly: boolean;
  readonly identity: string;
  private readonly fd: number;
  private readonly native: LinuxFile | null;
  private readonly device: boolean;
  private readonly unsafe: boolean;
  private readonly through: boolean;
  private closed = false;
  private zeroRange = true;
  private punch = true;

  constructor(path: string, options: OpenFileOptions) {
    this.name = path;
    this.readOnly = !(options.write || options.create);
    this.unsafe = options.cache === 'unsafe';
    this.through = options.cache === 'writethrough' || options.cache === 'directsync';
    const C = fs.constants;
    // O_NONBLOCK so that a named FIFO cannot hang us; it means nothing for files and block devices.
    let flags = (this.readOnly ? C.O_RDONLY : C.O_RDWR) | (options.create ? C.O_CREAT : 0) | (C.O_NONBLOCK ?? 0);
    if (this.through) flags |= C.O_DSYNC ?? C.O_SYNC ?? 0;
    try {
      this.fd = fs.openSync(path, flags, 0o644);
    } catch (error) {
      throw hostError(path, options.create ? 'create' : 'open', error);
    }
    try {
      const stat = fs.fstatSync(this.fd, { bigint: true });
      this.device = stat.isBlockDevice();
      if (!stat.isFile() && !this.device) {
        const what = stat.isDirectory() ? 'a directory' : 'neither a regular file nor a block device';
        throw new BlockError('invalid', `Could not open '${path}': it is ${what}`);
      }
      this.identity = this.device ? `device:${stat.rdev}` : `${stat.dev}:${stat.ino}`;
      this.native = linuxFile(this.fd);
      if (options.lock !== 'off') this.lock(options.lock === 'share');
      if (options.create && !this.device) fs.ftruncateSync(this.fd, 0);
    } catch (error) {
      fs.closeSync(this.fd);
      throw hostError(path, 'open', error);
    }
  }

  private lock(share: boolean): void {
    if (!this.native) {
      if (!noted && !this.readOnly) {
        noted = true;
        process.stderr.write(`vivarium: warning: ${this.name}: ${SHARED_NOTE}\n`);
      }
      return;
    }
    const conflict = this.native.lockImage(!this.readOnly, share);
    if (conflict)
      throw new BlockError(
        'locked',
        `Could not open '${this.name}': Failed to get ${conflict} lock\nIs another process using the image [${this.name}]?`,
      );
  }

  size(): number {
    try {
      const size = Number(fs.fstatSync(this.fd, { bigint: true }).size);
      if (!this.device || size > 0) return size;
      return this.deviceSize();
    } catch (error) {
      throw hostError(this.name, 'get the size of', error);
    }
  }

  private deviceSize(): number {
    const end = this.native?.seekEnd();
    if (end !== undefined) return end;
    // Without lseek: the kernel's own word, in sectors of 512 bytes.
    const stat = fs.fstatSync(this.fd, { bigint: true });
    const major = Number((stat.rdev >> 8n) & 0xfffn);
    const minor = Number((stat.rdev & 0xffn) | ((stat.rdev >> 12n) & 0xffffff00n));
    return Number(fs.readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
  }

  pread(buf: Uint8Array, offset: number): void {
    let done = 0;
    try {
      while (done < buf.length) {
        const n = fs.readSync(this.fd, buf, done, Math.min(buf.length - done, 1 << 30), offset + done);
        if (n === 0) break;
        done += n;
      }
    } catch (error) {
      throw hostError(this.name, 'read from', error);
    }
    if (done < buf.length) buf.fill(0, done);
  }

  pwrite(buf: Uint8Array, offset: number): void {
    if (this.readOnly) throw new BlockError('read-only', `Could not write to '${this.name}': opened read-only`);
    let done = 0;
    try {
      while (done < buf.length) {
        const n = fs.writeSync(this.fd, buf, done, Math.min(buf.length - done, 1 << 30), offset + done);
        if (n === 0) throw Object.assign(new Error('nothing was written'), { code: 'EIO' });
        done += n;
      }
    } catch (error) {
      throw hostError(this.name, 'write to', error);
    }
  }

  flush(): void {
    if (this.unsafe || this.readOnly) return;
    try {
      fs.fdatasyncSync(this.fd);
    } catch (error) {
      throw hostError(this.name, 'flush', error);
    }
  }

  truncate(size: number): void {
    if (this.device) {
      if (size > this.size()) throw new BlockError('no-space', `Could not resize '${this.name}': a device cannot grow`);
      return;
    }
    try {
      fs.ftruncateSync(this.fd, size);
    } catch (error) {
      throw hostError(this.name, 'resize', error);
    }
  }

  discard(offset: number, length: number): void {
    if (!this.native || !this.punch || length <= 0) return;
    if (!this.native.punchHole(offset, length)) this.punch = false;
  }

  writeZeroes(offset: number, length: number): void {
    if (length <= 0) return;
    if (this.readOnly) throw new BlockError('read-only', `Could not write to '${this.name}': opened read-only`);
    if (!this.device) {
      const end = this.size();
      if (offset >= end) {
        this.truncate(offset + length);
        return;
      }
      if (offset + length > end) {
        this.truncate(offset + length);
        length = end - offset;
      }
    }
    if (this.native && length >= 4096) {
      if (this.punch && !this.device) {
        if (this.native.punchHole(offset, length)) return;
        this.punch = false;
      }
      if (this.zeroRange) {
        if (this.native.zeroRange(offset, length)) return;
        this.zeroRange = false;
      }
    }
    writeZeroBytes(this, offset, length);
  }

  allocate(offset: number, length: number): void {
    if (length <= 0) return;
    const result = this.native?.preallocate(offset, length);
    if (result === 'no-space') throw new BlockError('no-space', `Could not allocate '${this.name}': No space left on device`);
    if (result === 'ok') return;
    // The slow way: only what is beyond the end is known to be empty.
    const end = this.size();
    if (offset + length > end) writeZeroBytes(this, Math.max(offset, end), offset + length - Math.max(offset, end));
  }

  extent(offset: number, length: number): FileExtent {
    const data = this.native?.nextData(offset);
    if (data === undefined) return { data: true, length };
    if (data > offset) return { data: false, length: Math.min(length, data - offset) };
    const hole = this.native!.nextHole(offset);
    return { data: true, length: hole === undefined ? length : Math.min(length, Math.max(1, hole - offset)) };
  }

  allocated(): number | undefined {
    const blocks = fs.fstatSync(this.fd).blocks;
    return blocks === undefined ? undefined : blocks * 512;
  }

  lost(): string | undefined {
    try {
      const stat = fs.statSync(this.name, { bigint: true });
      const identity = this.device ? `device:${stat.rdev}` : `${stat.dev}:${stat.ino}`;
      if (identity !== this.identity) return `'${this.name}' is another file now: put the one back that was there`;
      fs.accessSync(this.name, fs.constants.R_OK | (this.readOnly ? 0 : fs.constants.W_OK));
      return undefined;
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? '';
      if (code === 'ENOENT' || code === 'ENOTDIR') return `'${this.name}' is gone: it was moved away or deleted`;
      return `'${this.name}' cannot be used any more: ${WORDS[code] ?? (error as Error).message}`;
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    try {
      fs.closeSync(this.fd);
    } catch (error) {
      throw hostError(this.name, 'close', error);
    }
  }
}

const isNbd = (path: string) => /^nbd(\+unix)?:/.test(path);

/** The block layer's outside, on Node. */
export const nodeBlockHost: BlockHost = {
  openFile: (path, options) => (isNbd(path) ? openNbd(path, options.write ?? false) : new NodeFile(path, options)),
  resolvePath: (base, path) => (isAbsolute(path) || /^[a-z]+:/.test(path) ? path : join(dirname(base), path)),
  absolutePath: (path) => (/^[a-z][a-z+]+:/.test(path) ? path : resolve(path)),
  exists: (path) => fs.existsSync(path),
  codecs,
  crypto,
  now: () => Date.now() / 1000,
};
