/** The user's folder for what a machine can make again, but need not. */
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folders of the engine that translated code comes from. */
const SOURCES = ['accel/jit', 'exec', 'ir', 'memory', 'x86/decode', 'x86/emit', 'x86/fpu', 'x86/system'];

/** Where caches go by the custom of the system; undefined where there is no home. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const home = homedir();
  if (process.platform === 'win32') return join(environment.LOCALAPPDATA ?? join(home, 'AppData', 'Local'), 'Vivarium', 'Cache');
  if (process.platform === 'darwin') return join(home, 'Library', 'Caches', 'Vivarium');
  const base = environment.XDG_CACHE_HOME;
  if (base?.startsWith('/')) return join(base, 'vivarium');
  return home.startsWith('/') ? join(home, '.cache', 'vivarium') : undefined;
}

/** Makes the folder; false unless it is a folder that only this user can write to. */
export function isOwn(folder: string): boolean {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const status = statSync(folder);
  if (!status.isDirectory()) return false;
  return process.getuid === undefined || (status.uid === process.getuid() && (status.mode & 0o022) === 0);
}

/** A name for what this translator makes with some options: another for each of its versions, and of Node's. */
export function sourcesKey(options: object): string {
  const hash = createHash('sha256');
  hash.update(`${process.version} ${process.arch} ${JSON.stringify(options)}\n`);
  for (const folder of SOURCES) {
    const path = fileURLToPath(new URL(`../${folder}/`, import.meta.url));
    for (const name of readdirSync(path).sort()) {
      if (!/\.[jt]s$/.test(name) || /\.test\.[jt]s$/.test(name)) continue;
      hash.update(`${folder}/${name}\n`);
      hash.update(readFileSync(join(path, name)));
    }
  }
  return hash.digest('hex').slice(0, 32);
}
