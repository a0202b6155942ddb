/** Files written so that a crash leaves either the old content or the new, and folders of the user by the XDG rules. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** Writes a file beside its place, makes it durable, then puts it in place of the old one. */
export async function writeFileAtomic(path: string, content: string | Uint8Array, mode = 0o600): Promise<void> {
  const folder = dirname(path);
  const temporary = join(folder, `.${basename(path)}.${process.pid}.${randomBytes(4).toString('hex')}`);
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

/** Makes the names in a folder durable, where the host can. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** A folder of the user, made when it is missing (mode 0700). */
export async function makeFolder(path: string): Promise<string> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  return path;
}

type Environment = Readonly<Record<string, string | undefined>>;

function userFolder(kind: 'data' | 'config' | 'cache', environment: Environment): string {
  const home = environment.HOME ?? homedir();
  if (process.platform === 'darwin') {
    const base = join(home, 'Library');
    return join(base, kind === 'cache' ? 'Caches' : 'Application Support', 'Vivarium', ...(kind === 'config' ? ['config'] : []));
  }
  if (process.platform === 'win32') {
    const base = (kind === 'config' ? environment.APPDATA : environment.LOCALAPPDATA) ?? join(home, 'AppData', 'Local');
    return join(base, 'Vivarium', kind);
  }
  const xdg = { data: environment.XDG_DATA_HOME, config: environment.XDG_CONFIG_HOME, cache: environment.XDG_CACHE_HOME }[kind];
  const standard = { data: ['.local', 'share'], config: ['.config'], cache: ['.cache'] }[kind];
  // The specification has relative paths ignored.
  return join(xdg?.startsWith('/') ? xdg : join(home, ...standard), 'vivarium');
}

/** Where VMs are kept unless `--library` says otherwise. */
export const defaultLibrary = (environment: Environment = process.env): string => userFolder('data', environment);
export const configFolder = (environment: Environment = process.env): string => userFolder('config', environment);
export const cacheFolder = (environment: Environment = process.env): string => userFolder('cache', environment);

/** The code of a system error (`ENOENT` ...), or undefined. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EACCES: 'you are not allowed to read it',
  EPERM: 'you are not allowed to',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of its path is not a folder',
  ENOSPC: 'the disk is full',
  EDQUOT: 'your quota is used up',
  EROFS: 'the file system is read-only',
  EMFILE: 'too many files are open',
  EIO: 'the disk reports an error',
  ELOOP: 'its symbolic links go in a circle',
  ENAMETOOLONG: 'its name is too long',
  EADDRINUSE: 'it is in use by another program',
};

/** Why an operation on a file failed, in words. */
export function reasonOf(error: unknown): string {
  const code = errorCode(error);
  return (code === undefined ? undefined : reasons[code]) ?? (error instanceof Error ? error.message : String(error));
}
