/**
 * Packages of Debian by the host's apt, without privileges and without installing anything: lists, downloads, and what is
 * wanted out of a package.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { AppError } from '../contract/index.ts';

const run = promisify(execFile);

/** Messages of apt are read here: in English. */
export const aptEnvironment = { ...process.env, LC_ALL: 'C' };

/**
 * Options with which apt knows a package (`NAME` or `NAME:ARCHITECTURE`). The host's own lists serve where they have it;
 * else (fresh lists need root, and so does another architecture) apt reads lists into a folder of ours. Rejects with
 * `host` where it is not known then.
 */
export async function aptOptions(cache: string, name: string, onLists: () => void, signal?: AbortSignal): Promise<string[]> {
  if (await isKnown([], name)) return [];
  onLists();
  const folder = join(cache, 'apt');
  for (const part of ['lists/partial', 'cache/archives/partial']) await mkdir(join(folder, part), { recursive: true });
  const settings = [
    `Dir::State::lists=${join(folder, 'lists')}`,
    `Dir::Cache=${join(folder, 'cache')}`,
    'APT::Architectures::=amd64',
    'APT::Architectures::=i386',
    'Acquire::Languages=none',
    // As root, apt would download as a user who may not write here.
    ...(process.getuid?.() === 0 ? ['APT::Sandbox::User=root'] : []),
  ];
  const options = settings.flatMap((setting) => ['-o', setting]);
  // One list of many may be missing on a mirror; what counts is whether the package is known then.
  await run('apt-get', [...options, '-q', 'update'], { signal, env: aptEnvironment, maxBuffer: 1 << 24 }).catch(
    (error: Error) => {
      if (signal?.aborted) throw error;
    },
  );
  if (!(await isKnown(options, name)))
    throw new AppError('host', `apt knows no package ${name}: is this Debian, and are its sources in /etc/apt set up?`);
  return options;
}

async function isKnown(options: readonly string[], name: string): Promise<boolean> {
  const { stdout } = await run('apt-cache', [...options, 'policy', name], { env: aptEnvironment }).catch(() => ({ stdout: '' }));
  return /^\s*Candidate: (?!\(none\))/m.test(stdout);
}

/** Packages and what apt would install with them on an empty system, as NAME:ARCHITECTURE=VERSION. `work`: a folder to write into. */
export async function withDependencies(
  options: readonly string[],
  architecture: string,
  packages: readonly string[],
  work: string,
): Promise<string[]> {
  const status = join(work, 'status');
  await writeFile(status, '');
  const settings = [
    `Dir::State::status=${status}`,
    `APT::Architecture=${architecture}`,
    'APT::Architectures::=',
    `APT::Architectures=${architecture}`,
    'APT::Install-Recommends=false',
    'Debug::NoLocking=true',
  ].flatMap((setting) => ['-o', setting]);
  const { stdout } = await run('apt-get', [...options, ...settings, '-s', 'install', ...packages], {
    env: aptEnvironment,
    maxBuffer: 1 << 24,
  });
  // Inst libc6 (2.36-9 Debian:12.1/stable [amd64])
  const names = [...stdout.matchAll(/^Inst (\S+) .*?\((\S+) [^)]*\[(\w+)\]\)/gm)].map(
    ([, name, version, built]) => `${name}${built === 'all' ? '' : `:${built}`}=${version}`,
  );
  if (names.length < packages.length) throw new AppError('host', `apt does not say what ${packages.join(', ')} need`);
  return names;
}

/** Downloads packages into a folder; resolves with the names of the files there. apt checks them against its signed lists. */
export async function download(
  options: readonly string[],
  packages: readonly string[],
  folder: string,
  signal?: AbortSignal,
): Promise<string[]> {
  await run('apt-get', [...options, '-q', 'download', ...packages], {
    cwd: folder,
    signal,
    env: aptEnvironment,
    maxBuffer: 1 << 24,
  });
  return (await readdir(folder)).filter((name) => name.endsWith('.deb'));
}

/** Takes what matches out of a package: whole, a kernel's package would be 400 MB. */
export async function extract(debFile: string, folder: string, patterns: readonly string[], signal?: AbortSignal): Promise<void> {
  const unpack = spawn('dpkg-deb', ['--fsys-tarfile', debFile], { stdio: ['ignore', 'pipe', 'pipe'], signal });
  const tar = spawn('tar', ['-x', '-C', folder, '--wildcards', '--no-same-owner', ...patterns], {
    stdio: ['pipe', 'ignore', 'ignore'],
    signal,
  });
  unpack.stdout.pipe(tar.stdin);
  // tar may end before the package does.
  tar.stdin.on('error', () => unpack.stdout.resume());
  let message = '';
  unpack.stderr.setEncoding('utf8').on('data', (text: string) => {
    message += text;
  });
  const status = (child: ReturnType<typeof spawn>): Promise<number | null> =>
    new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', resolve);
    });
  // tar's own status is not looked at: a pattern without a match is no error here, what is missing shows later.
  const [unpacked] = await Promise.all([status(unpack), status(tar)]);
  if (unpacked !== 0) throw new AppError('bad-file', `${basename(debFile)} cannot be opened: ${message.trim()}`);
}
