/**
 * The baseline module's bytes on disk, so that a VM starts without building them again.
 *
 * A file is found by a hash of the sources that make the module, of the options and of Node's version, so that it is
 * never older than the code that reads it. Its own hash stands at its end: a file that was cut off or changed is as
 * none. The folder is the user's alone; where that cannot be had there is no cache, and nothing else changes.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BaselineModule, BaselineOptions } from '../accel/jit/handlers.ts';
import { cacheFolder, isOwn, sourcesKey } from './cache-folder.ts';

/** Files kept: options differ in the size of memory. */
const KEPT = 6;
const HASH_BYTES = 32;

const digest = (data: Uint8Array): Buffer => createHash('sha256').update(data).digest();

/** File: length of the description (32 bits), the description as JSON, the module, a SHA-256 of all that. */
function encode(module: BaselineModule): Buffer {
  const { bytes, ...rest } = module;
  const description = Buffer.from(JSON.stringify(rest));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(description.length);
  const data = Buffer.concat([length, description, bytes]);
  return Buffer.concat([data, digest(data)]);
}
function decode(file: Buffer): BaselineModule | undefined {
  if (file.length < 4 + HASH_BYTES) return undefined;
  const data = file.subarray(0, file.length - HASH_BYTES);
  if (!digest(data).equals(file.subarray(data.length))) return undefined;
  const end = 4 + data.readUInt32LE(0);
  const rest = JSON.parse(data.toString('utf8', 4, end)) as Omit<BaselineModule, 'bytes'>;
  return { ...rest, bytes: new Uint8Array(data.subarray(end)) };
}

/** Throws away what was not used for longest. */
function prune(folder: string): void {
  const files = readdirSync(folder)
    .filter((name) => /^baseline-[0-9a-f]+\.bin/.test(name))
    .map((name) => ({ path: join(folder, name), used: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => b.used - a.used);
  for (const { path } of files.slice(KEPT)) rmSync(path, { force: true });
}

/** The module from the cache, or built and put there. `folder` is the user's cache unless it is given. */
export function cachedBaseline(
  options: BaselineOptions,
  build: (options: BaselineOptions) => BaselineModule,
  folder: string | undefined = cacheFolder(),
): BaselineModule {
  let path: string | undefined;
  try {
    if (folder !== undefined && isOwn(folder)) {
      path = join(folder, `baseline-${sourcesKey(options)}.bin`);
      if (existsSync(path)) {
        const found = decode(readFileSync(path));
        if (found !== undefined) {
          const now = new Date();
          utimesSync(path, now, now);
          return found;
        }
      }
    }
  } catch {
    // A cache that cannot be read is none.
    path = undefined;
  }
  const built = build(options);
  if (path !== undefined && folder !== undefined)
    try {
      const partial = `${path}.${process.pid}`;
      writeFileSync(partial, encode(built), { mode: 0o600 });
      renameSync(partial, path);
      prune(folder);
    } catch {
      // Nor need it be written: a full disk must not keep a VM from starting.
    }
  return built;
}
