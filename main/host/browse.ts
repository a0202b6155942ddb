/** Lists folders of the host, for the shell that has no native file dialog. */
import { readdir, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { AppError, type DirectoryListing } from '../contract/index.ts';
import { reasonOf } from './files.ts';

const maxEntries = 2000;

export interface BrowseOptions {
  readonly path?: string;
  readonly extensions?: readonly string[];
  readonly hidden?: boolean;
}

export async function browse(
  { path, extensions, hidden = false }: BrowseOptions,
  places: DirectoryListing['places'] = [],
): Promise<DirectoryListing> {
  let folder = resolve(path ?? homedir());
  let names: { name: string; isDirectory(): boolean; isSymbolicLink(): boolean }[];
  try {
    // A file's path opens the folder that it is in.
    if ((await stat(folder)).isFile()) folder = dirname(folder);
    names = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw new AppError('file-unreadable', `${folder} cannot be listed: ${reasonOf(error)}`, { field: 'path', cause: error });
  }
  const wanted = names.filter(({ name }) => hidden || !name.startsWith('.'));
  wanted.sort(
    (a, b) => Number(b.isDirectory()) - Number(a.isDirectory()) || a.name.localeCompare(b.name, undefined, { numeric: true }),
  );
  const entries: DirectoryListing['entries'][number][] = [];
  for (const entry of wanted) {
    if (entries.length === maxEntries) break;
    const full = join(folder, entry.name);
    // Links that lead nowhere, and files that vanish meanwhile, are left out.
    const info = await stat(full).catch(() => undefined);
    if (info === undefined || !(info.isDirectory() || info.isFile() || info.isBlockDevice())) continue;
    const directory = info.isDirectory();
    if (
      !directory &&
      extensions !== undefined &&
      !extensions.some((extension) => entry.name.toLowerCase().endsWith(`.${extension}`))
    )
      continue;
    entries.push({ name: entry.name, path: full, directory, size: directory ? 0 : info.size });
  }
  const parent = dirname(folder);
  return {
    path: folder,
    parent: parent === folder ? null : parent,
    entries,
    truncated: wanted.length > maxEntries,
    places: [{ name: 'Home', path: homedir() }, { name: 'Computer', path: resolve('/') }, ...places],
  };
}
