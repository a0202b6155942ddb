/**
 * What the commands need, installed when it is missing: npm packages, Node 24, packages of the system, the sample guest.
 * Plain JavaScript for Node 20, with nothing but its own modules: it runs before anything is installed.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const bin = join(root, 'node_modules', '.bin');
const windows = process.platform === 'win32';

/** A program of the npm packages. */
export const tool = (name) => join(bin, windows ? `${name}.cmd` : name);
// Tools find Node 24 by its name, whether npm started this or a person.
process.env.PATH = `${bin}${windows ? ';' : ':'}${process.env.PATH ?? ''}`;

// Sources run as they are: Node keeps what it has compiled, for each of a machine's threads loads them anew.
process.env.NODE_COMPILE_CACHE ??= join(root, '.cache', 'code');

/** Node 24, which everything but these scripts runs on. */
export const node24 = windows ? join(root, 'node_modules', 'node', 'bin', 'node.exe') : join(bin, 'node');

/** Runs a command with its output shown; resolves with its exit status. */
export function run(command, args, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit', ...options });
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(127);
    });
    child.on('close', (code) => resolve(code ?? 1));
  });
}

/** True where every package of the lock file is installed in its version: what an install by hand leaves, too. */
function installedAsLocked() {
  try {
    const read = (path) => JSON.parse(readFileSync(join(root, path), 'utf8')).packages;
    const installed = read('node_modules/.package-lock.json');
    return Object.entries(read('package-lock.json')).every(
      ([path, wanted]) =>
        path === '' || wanted.optional || wanted.devOptional || wanted.peer || installed[path]?.version === wanted.version,
    );
  } catch {
    return false;
  }
}

/** npm packages and Node 24. Exits with one line that says what is missing where it cannot. */
export async function ensurePackages() {
  const stamp = join(root, 'node_modules', '.vivarium-setup');
  const hash = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(`${process.platform} ${process.arch}`)
    .digest('hex');
  const stamped = existsSync(stamp) && readFileSync(stamp, 'utf8') === hash;
  if (stamped && existsSync(node24)) return;
  if (!installedAsLocked()) {
    console.log('Installing npm packages ...');
    // Packages run no scripts of theirs here: the one that has to is named below.
    const status = await run('npm', ['ci', '--ignore-scripts', '--no-fund', '--no-audit', '--loglevel=error'], {
      shell: windows,
    });
    if (status !== 0) fail('The npm packages could not be installed: see above. Is the network there?');
  }
  if (!node24Works()) {
    console.log('Installing Node 24 ...');
    await run('npm', ['rebuild', 'node', '--loglevel=error'], { shell: windows });
    if (!node24Works()) fail('Node 24 could not be installed: "npm rebuild node" did not bring node_modules/.bin/node.');
  }
  writeFileSync(stamp, hash);
}

function node24Works() {
  const { stdout } = spawnSync(node24, ['--version'], { encoding: 'utf8' });
  return Number(/^v(\d+)\./.exec(stdout ?? '')?.[1] ?? 0) >= 24;
}

export function fail(message) {
  console.error(`\n${message}`);
  process.exit(1);
}

const onPath = (command) =>
  (process.env.PATH ?? '').split(windows ? ';' : ':').some((folder) => existsSync(join(folder, command)));

/** How to become root without asking for a password; undefined: there is no way. */
function asRoot() {
  if (process.getuid?.() === 0) return [];
  if (onPath('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0) return ['sudo', '-n'];
  return undefined;
}

function apt(args, prefix) {
  const [command, ...rest] = [...prefix, 'apt-get', ...args];
  const { status, stderr } = spawnSync(command, rest, {
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
    maxBuffer: 1 << 26,
  });
  return { ok: status === 0, reason: (stderr ?? '').trim().split('\n').at(-1) ?? '' };
}

/** apt's lists of packages are there; a fresh system has none. */
function ensureLists(prefix) {
  const lists = '/var/lib/apt/lists';
  const filled = existsSync(lists) && readdirSync(lists).some((name) => name.includes('_Packages'));
  if (!filled) {
    console.log('Reading the lists of packages ...');
    apt(['update', '-q'], prefix);
  }
}

/**
 * Packages of the system: `{name: file}`, a package and a file that shows that it is there. Installs what is missing
 * where it may; else says it in one line. Returns the names that are still missing.
 */
export function ensureSystem(packages, why) {
  const missing = () => Object.keys(packages).filter((name) => ![packages[name]].flat().some((file) => existsSync(file)));
  const names = missing();
  if (names.length === 0) return [];
  const prefix = asRoot();
  const command = `apt-get install ${names.join(' ')}`;
  if (process.platform !== 'linux' || !onPath('apt-get')) {
    console.log(`Missing for ${why}: ${names.join(', ')} (install them with your system's package manager)`);
    return names;
  }
  if (prefix === undefined) {
    console.log(`Missing for ${why}: ${names.join(', ')} (run as root: ${command})`);
    return names;
  }
  ensureLists(prefix);
  console.log(`Installing ${names.join(', ')} ...`);
  const install = ['install', '-y', '-q', '--no-install-recommends', ...names];
  let result = apt(install, prefix);
  if (!result.ok) {
    apt(['update', '-q'], prefix);
    result = apt(install, prefix);
  }
  const left = missing();
  if (left.length > 0) console.log(`Missing for ${why}: ${left.join(', ')} (${command} failed: ${result.reason})`);
  return left;
}

/** The sample guest in `.cache/guests`; false, after one line that says why, where it cannot be had. */
export async function ensureGuest(architecture = 'amd64') {
  const prefix = asRoot();
  if (prefix !== undefined && process.platform === 'linux' && onPath('apt-get')) {
    ensureLists(prefix);
  }
  const cli = join(root, 'main', 'guests', 'cli.ts');
  const cache = join(root, '.cache');
  mkdirSync(cache, { recursive: true });
  return (await run(node24, [cli, cache, architecture])) === 0;
}

/** The newest change under these folders, in ms; files of tests do not count. */
function newest(paths) {
  let time = 0;
  const look = (path) => {
    const info = statSync(path, { throwIfNoEntry: false });
    if (info === undefined) return;
    if (!info.isDirectory()) time = Math.max(time, info.mtimeMs);
    else for (const name of readdirSync(path)) if (!/\.test\.ts$|^node_modules$|^\./.test(name)) look(join(path, name));
  };
  for (const path of paths) look(join(root, path));
  return time;
}

/** True where `output` is missing or older than something it is made from. */
export function stale(output, sources) {
  const info = statSync(join(root, output), { throwIfNoEntry: false });
  return info === undefined || info.mtimeMs < newest(sources);
}

export const rendererSources = ['renderer', 'main/contract', 'engine/contract', 'package-lock.json'];

/** The pages in dist/renderer, built when a source is newer; false where they could not be built. */
export async function ensureRenderer() {
  if (!stale('dist/renderer/index.html', rendererSources)) return true;
  console.log('Building the pages ...');
  const status = await run(node24, [
    join(root, 'node_modules', 'vite', 'bin', 'vite.js'),
    'build',
    'renderer',
    '--outDir',
    join(root, 'dist', 'renderer'),
    '--emptyOutDir',
    '--logLevel',
    'warn',
  ]);
  return status === 0;
}

/** The commit that is checked out, or undefined. */
export function commit() {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return undefined;
  }
}
