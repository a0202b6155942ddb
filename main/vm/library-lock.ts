/**
 * One app at a time works on a library: whoever opens it holds the file `lock` in it, which names the process and how to
 * reach it. The lock of a process that is gone (or whose id was given to another since) is taken over.
 */
import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { AppError } from '../contract/index.ts';
import { errorCode, reasonOf } from '../host/files.ts';

export interface LockHolder {
  readonly pid: number;
  /** When the process began, as the system counts it; tells a process id that was reused. Null where it is not told. */
  readonly processStart: string | null;
  readonly host: string;
  /** The app's control socket, where it has one. */
  readonly socket: string | null;
  readonly since: string;
}

/** Field 22 of /proc/PID/stat: start time in ticks since boot. */
function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The command's name, in parentheses, may hold anything: count from behind it.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

function alive(holder: LockHolder): boolean {
  // On a shared folder there is no telling: believe the file.
  if (holder.host !== hostname()) return true;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (errorCode(error) === 'ESRCH') return false;
  }
  return holder.processStart === null || processStart(holder.pid) === holder.processStart;
}

/** Who has the library open, or undefined. */
export async function lockHolder(library: string): Promise<LockHolder | undefined> {
  try {
    const holder = JSON.parse(await readFile(join(library, 'lock'), 'utf8')) as LockHolder;
    return typeof holder.pid === 'number' && alive(holder) ? holder : undefined;
  } catch {
    return undefined;
  }
}

export class LibraryLock {
  readonly #path: string;
  readonly #content: string;

  private constructor(path: string, content: string) {
    this.#path = path;
    this.#content = content;
  }

  /** Takes the lock; rejects with `library-in-use` naming the process that holds it. */
  static async take(library: string, socket: string | null): Promise<LibraryLock> {
    const path = join(library, 'lock');
    const holder: LockHolder = {
      pid: process.pid,
      processStart: processStart(process.pid),
      host: hostname(),
      socket,
      since: new Date().toISOString(),
    };
    const content = `${JSON.stringify(holder)}\n`;
    const mine = `${path}.${process.pid}`;
    try {
      await writeFile(mine, content, { mode: 0o600 });
    } catch (error) {
      throw new AppError('host', `The library ${library} cannot be written to: ${reasonOf(error)}`, { cause: error });
    }
    try {
      for (let attempt = 0; attempt < 5; attempt++) {
        // A hard link appears with its content and only where there is none: nobody reads half a lock.
        try {
          await link(mine, path);
          return new LibraryLock(path, content);
        } catch (error) {
          if (errorCode(error) !== 'EEXIST')
            throw new AppError('host', `The library cannot be locked: ${reasonOf(error)}`, { cause: error });
        }
        const other = await lockHolder(library);
        if (other !== undefined)
          throw new AppError(
            'library-in-use',
            `Another Vivarium has the library ${library} open (process ${other.pid}${other.host === hostname() ? '' : ` on ${other.host}`}). ` +
              'Use that one, close it, or choose another library with --library.',
          );
        const stale = await readFile(path, 'utf8').catch(() => '');
        const aside = `${path}.stale-${process.pid}`;
        await rename(path, aside).catch(() => {});
        // Somebody was faster and the lock set aside is theirs: give it back.
        const taken = await readFile(aside, 'utf8').catch(() => stale);
        if (taken !== stale) await link(aside, path).catch(() => {});
        await rm(aside, { force: true });
      }
    } finally {
      await rm(mine, { force: true });
    }
    throw new AppError('library-in-use', `The library ${library} is being opened by others`);
  }

  async release(): Promise<void> {
    const content = await readFile(this.#path, 'utf8').catch(() => '');
    if (content === this.#content) await rm(this.#path, { force: true });
  }
}
