/**
 * The guests' programs, from Debian: packages with all that they depend on, by the host's apt, without privileges. Kept
 * in `.cache/bench` as an archive that goes behind the sample guest's initial RAM disk.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { aptOptions, download, extract, withDependencies } from '../../main/guests/apt.ts';
import { type CpioMember, cpioArchive } from '../../main/guests/cpio.ts';
import type { GuestArchitecture } from '../../main/guests/debian.ts';
import { root } from './machines.ts';

/** Raised when the archive is made differently, so that old ones are built anew. */
const buildVersion = 1;

const wanted = ['openssl', '7zip', 'sysbench', 'python3-minimal', 'perl-base', 'lua5.4'];
/** What of the packages goes into the archive: programs, shared libraries (not plug-ins in folders of theirs), Python's modules. */
const kept =
  /^usr\/bin\/(openssl|7zz|sysbench|python3\.\d+|perl|lua5\.4)$|^(usr\/)?lib(64|32)?\/([^/]+-linux-gnu\/)?[^/]+\.so[^/]*$|^usr\/lib\/python3\.\d+\/|\/perl-base\//;

export interface ProgramArchive {
  /** A cpio archive, not compressed. */
  readonly path: string;
  /** NAME_VERSION of each package. */
  readonly packages: readonly string[];
}

/** The programs for this architecture; fetched where they are not in the cache. */
export async function programArchive(architecture: GuestArchitecture): Promise<ProgramArchive> {
  const folder = join(root, '.cache', 'bench');
  const path = join(folder, `programs-${architecture}.cpio`);
  const list = join(folder, `programs-${architecture}.json`);
  if (existsSync(path) && existsSync(list)) {
    const { build, packages } = JSON.parse(readFileSync(list, 'utf8')) as { build: number; packages: string[] };
    if (build === buildVersion) return { path, packages };
  }
  console.log(`Fetching the guest's programs (${architecture}): ${wanted.join(', ')} ...`);
  await mkdir(folder, { recursive: true });
  const work = await mkdtemp(join(folder, '.fetch-'));
  try {
    const options = await aptOptions(join(root, '.cache'), `${wanted[0]}:${architecture}`, () =>
      console.log("Reading Debian's lists of packages ..."),
    );
    const names = await withDependencies(options, architecture, wanted, work);
    const packages = await download(options, names, work);
    const tree = join(work, 'tree');
    await mkdir(tree);
    for (const name of packages) await extract(join(work, name), tree, ['./*']);
    await writeFile(join(work, 'archive'), cpioArchive(membersOf(tree)));
    const versions = packages.map((name) => decodeURIComponent(basename(name, '.deb')));
    await rename(join(work, 'archive'), path);
    await writeFile(list, `${JSON.stringify({ build: buildVersion, packages: versions }, null, 2)}\n`);
    return { path, packages: versions };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function membersOf(tree: string): CpioMember[] {
  const members = new Map<string, CpioMember>();
  const add = (member: CpioMember): void => {
    const folder = dirname(member.path);
    if (folder !== '.' && !members.has(folder)) add({ path: folder, kind: 'folder', mode: 0o755 });
    members.set(member.path, member);
  };
  for (const path of (readdirSync(tree, { recursive: true }) as string[]).sort()) {
    if (!kept.test(path)) continue;
    const info = lstatSync(join(tree, path));
    // Programs name their loader as /lib/... or /lib64/...; packages of a system with a merged /usr have it below that.
    if (/\/ld-linux[^/]*$/.test(path))
      add({ path: path.replace(/^usr\//, ''), kind: 'file', mode: 0o755, content: loader(tree, path) });
    else if (info.isSymbolicLink()) add({ path, kind: 'link', mode: 0o777, content: readlinkSync(join(tree, path)) });
    else if (info.isFile()) add({ path, kind: 'file', mode: info.mode & 0o777, content: readFileSync(join(tree, path)) });
  }
  return [...members.values()];
}

/** A file of the tree, links followed in it. */
function loader(tree: string, path: string): Buffer {
  for (let hops = 0; hops < 8; hops++) {
    const full = join(tree, path);
    if (!lstatSync(full).isSymbolicLink()) return readFileSync(full);
    path = resolve('/', dirname(path), readlinkSync(full)).slice(1);
  }
  throw new Error(`${path}: a link to itself`);
}
