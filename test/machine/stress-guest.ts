/**
 * Debian's stress-ng with the libraries that it is linked with, as a second archive behind the sample guest's initial RAM
 * disk. The packages are fetched by apt once, into .cache/guests; nothing is installed on the host.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { aptOptions, download, extract, withDependencies } from '../../main/guests/apt.ts';
import { type CpioMember, cpioArchive } from '../../main/guests/cpio.ts';
import { guest, root } from './harness.ts';

const cache = join(root, '.cache', 'guests');
const kept = join(cache, 'stress-ng');
const PROGRAM = 'usr/bin/stress-ng';
/** Where Debian has libraries; /lib is a link to /usr/lib there, but not in all packages. */
const FOLDERS = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu', 'lib64', 'usr/lib64'];
/** The opened packages, or why there are none. */
async function packages(): Promise<{ readonly tree: string } | { readonly reason: string }> {
  if (existsSync(kept)) return { tree: kept };
  for (const tool of ['apt-get', 'apt-cache', 'dpkg-deb', 'readelf'])
    if (spawnSync(tool, ['--version']).error !== undefined) return { reason: `${tool} is not here` };
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, '.stress-ng-'));
  try {
    const options = await aptOptions(join(root, '.cache'), 'stress-ng:amd64', () => {});
    const names = await download(options, await withDependencies(options, 'amd64', ['stress-ng'], work), work);
    const tree = join(work, 'tree');
    mkdirSync(tree);
    for (const name of names) await extract(join(work, name), tree, ['./*']);
    renameSync(tree, kept);
    return { tree: kept };
  } catch (error) {
    return { reason: `Debian's package stress-ng cannot be fetched here: ${(error as Error).message.split('\n')[0]}` };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Names of the libraries that a program or library is linked with, and of its loader. */
function needed(file: string): string[] {
  const text = execFileSync('readelf', ['-W', '-d', '-l', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return [...text.matchAll(/\(NEEDED\).*\[(.*)\]|interpreter: .*\/(.*)\]/g)].map(([, library, loader]) => library ?? loader);
}

/** Writes the initial RAM disk into `target`; gives its path, or the reason why there is none. */
export async function stressInitrd(target: string): Promise<{ readonly initrd: string } | { readonly reason: string }> {
  const files = guest();
  if (files === undefined) return { reason: 'the amd64 guest is not in .cache/guests (npm test fetches it)' };
  const found = await packages();
  if ('reason' in found) return found;
  const { tree } = found;
  const libraries = new Map<string, string>();
  const add = (file: string): void => {
    for (const name of needed(file)) {
      if (libraries.has(name)) continue;
      const path = FOLDERS.map((folder) => join(tree, folder, name)).find((each) => existsSync(each));
      if (path === undefined) throw new Error(`no package that stress-ng depends on has ${name}`);
      libraries.set(name, path);
      add(path);
    }
  };
  add(join(tree, PROGRAM));
  const folder = (path: string): CpioMember => ({ path, kind: 'folder', mode: 0o755 });
  const file = (path: string, from: string): CpioMember => ({
    path,
    kind: 'file',
    mode: 0o755,
    content: readFileSync(realpathSync(from)),
  });
  const members: CpioMember[] = [folder('lib64'), folder('lib/x86_64-linux-gnu'), file('bin/stress-ng', join(tree, PROGRAM))];
  for (const [name, from] of libraries)
    members.push(file(name.startsWith('ld-') ? `lib64/${name}` : `lib/x86_64-linux-gnu/${name}`, from));
  const first = readFileSync(files.initrd);
  const gap = Buffer.alloc((4 - (first.length % 4)) % 4);
  const initrd = join(target, 'initrd-stress.img');
  // Not compressed: the guest would take longer over that than the host over reading it.
  writeFileSync(initrd, Buffer.concat([first, gap, cpioArchive(members)]));
  return { initrd };
}
