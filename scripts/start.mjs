/**
 * `npm start`: sets up what is missing, then starts the app: in Electron where its binary is here or can be had, else on
 * loopback, for a browser. Arguments go to the app (`npm start -- --library DIR`); `--serve` asks for the browser.
 */

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureGuest, ensurePackages, ensureRenderer, ensureSystem, fail, node24, root, run, stale } from './setup.mjs';

/** After an attempt that failed, the next is made no sooner than this, in ms. */
const retryAfter = 7 * 86_400_000;
/** The download of the binary may take this long, in ms. */
const downloadTimeout = 120_000;
/** Without an answer for this long there is no network for it, in ms. */
const silenceTimeout = 15_000;

const electronFolder = join(root, 'node_modules', 'electron');

function electronBinary() {
  const pathFile = join(electronFolder, 'path.txt');
  if (!existsSync(pathFile)) return undefined;
  const path = join(electronFolder, 'dist', readFileSync(pathFile, 'utf8').trim());
  return existsSync(path) ? path : undefined;
}

/** Fetches Electron's binary with Electron's own script, once; a failure is remembered. */
async function fetchElectron() {
  const note = join(root, '.cache', 'electron-unavailable');
  const info = statSync(note, { throwIfNoEntry: false });
  if (info !== undefined && Date.now() - info.mtimeMs < retryAfter) return undefined;
  console.log('Fetching Electron ...');
  const began = Date.now();
  await new Promise((resolve) => {
    const child = spawn(node24, [join(electronFolder, 'install.js')], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let heard = Date.now();
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', () => {
        heard = Date.now();
      });
    const timer = setInterval(() => {
      if (Date.now() - heard > silenceTimeout || Date.now() - began > downloadTimeout) child.kill('SIGKILL');
    }, 500);
    child.on('error', resolve);
    child.on('close', () => {
      clearInterval(timer);
      resolve();
    });
  });
  const binary = electronBinary();
  if (binary === undefined) {
    mkdirSync(join(root, '.cache'), { recursive: true });
    writeFileSync(note, `${new Date().toISOString()}\n`);
  }
  return binary;
}

/** Electron starts here: a binary may lack libraries, and a host may have no screen. */
function whyNotElectron(binary) {
  if (process.platform === 'linux' && process.env.DISPLAY === undefined && process.env.WAYLAND_DISPLAY === undefined)
    return 'there is no screen';
  const { status, stderr, error } = spawnSync(binary, ['--version'], { encoding: 'utf8', timeout: 20_000 });
  return status === 0 ? undefined : `it does not start: ${(stderr ?? String(error)).trim().split('\n')[0]}`;
}

const args = process.argv.slice(2);
const wantsServe = args.includes('--serve');
const rest = args.filter((argument) => argument !== '--serve');

await ensurePackages();
ensureSystem({ seabios: '/usr/share/seabios/bios-256k.bin' }, 'VMs that start by firmware');
if (!(await ensureGuest())) console.log('Without the sample guest the app begins without a VM.');
if (!(await ensureRenderer())) fail('The pages could not be built: see above.');

let reason = 'it was asked for';
let binary;
if (!wantsServe) {
  binary = electronBinary() ?? (await fetchElectron());
  reason = binary === undefined ? "Electron's binary is not here and could not be fetched" : whyNotElectron(binary);
}
if (binary !== undefined && reason === undefined) {
  if (stale('dist/main/electron.js', ['main', 'engine', 'assets'])) await run(node24, [join(root, 'scripts', 'build.mjs')]);
  const sandbox = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
  process.exitCode = await run(binary, [...sandbox, join(root, 'dist'), '--cache', join(root, '.cache'), ...rest]);
} else {
  console.log(`Vivarium runs in the browser: ${reason}.`);
  // Ctrl-C is for the app, which ends its VMs before it goes.
  process.on('SIGINT', () => {});
  process.exitCode = await run(node24, [join(root, 'main', 'shell', 'serve.ts'), ...rest]);
}
