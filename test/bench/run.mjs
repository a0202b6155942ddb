/**
 * `npm run bench -- NAME|all [options]`: brings what the benchmark needs, then runs it on Node 24.
 * Plain JavaScript for Node 20: it starts before anything is installed.
 */
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureGuest, ensurePackages, ensureSystem, fail, node24, root, run } from '../../scripts/setup.mjs';

/** The peer of the 32-bit guest: no package of this project's, brought into the cache. */
const v86Version = '0.5.462';

const [name, ...rest] = process.argv.slice(2);
const benchmarks = ['boot', 'loops', 'guest', 'twin', 'disk'];
const usage = `usage: npm run bench -- NAME [options]

  boot     time from process start to the shell's ready line and to power-off, beside QEMU TCG
  loops    guest instructions a second in integer loops; a port access; an idle guest
  guest    programs of fixed work in a 64-bit guest, beside QEMU TCG
  twin     the same programs in a 32-bit guest with one vCPU, beside v86
  disk     a virtio disk on qcow2 in the guest, beside QEMU TCG
  all      all of these, one after the other

  --rounds N     rounds of boot, guest, twin and disk (default 3)
  --cpus N       vCPUs (default 2)
  --no-peer      this engine alone
  --only A,B     the named programs of guest or twin, or parts of loops (rates, port, idle)
  --save         also writes docs/bench/NAME.json, and the charts of guest and twin`;

if (name !== 'all' && !benchmarks.includes(name)) {
  console.log(usage);
  process.exit(name === undefined || name === '--help' || name === '-h' ? 0 : 2);
}
await ensurePackages();
const names = name === 'all' ? benchmarks : [name];
const alone = rest.includes('--no-peer');
const needs = (...of) => names.some((each) => of.includes(each));
for (const architecture of [...(needs('boot', 'loops', 'guest', 'disk') ? ['amd64'] : []), ...(needs('twin') ? ['i386'] : [])])
  if (!(await ensureGuest(architecture))) fail('The benchmarks boot the sample guest, which is not here: see above.');
ensureSystem(
  {
    ...(!alone && needs('boot', 'guest', 'disk') ? { 'qemu-system-x86': '/usr/bin/qemu-system-x86_64' } : {}),
    ...(!alone && needs('twin') ? { seabios: '/usr/share/seabios/bios.bin' } : {}),
    ...(needs('guest', 'disk') ? { gcc: '/usr/bin/gcc', 'libc6-dev': '/usr/include/stdio.h' } : {}),
  },
  'this benchmark',
);
if (!alone && needs('twin')) await ensureV86();
let status = 0;
for (const each of names) {
  if (name === 'all') console.log(`\n== ${each}`);
  status = (await run(node24, [join(root, 'test', 'bench', 'bench.ts'), each, ...rest])) || status;
}
process.exitCode = status;

/** v86 in `.cache/bench/v86`; where it cannot be had npm has said why, and the benchmark goes without. */
async function ensureV86() {
  const folder = join(root, '.cache', 'bench', 'v86');
  const manifest = join(folder, 'node_modules', 'v86', 'package.json');
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version.split('+')[0] === v86Version) return;
  console.log(`Fetching v86 ${v86Version} ...`);
  mkdirSync(folder, { recursive: true });
  const options = ['--prefix', folder, '--ignore-scripts', '--no-save', '--no-fund', '--no-audit', '--loglevel=error'];
  await run('npm', ['install', ...options, `v86@${v86Version}`], { cwd: folder });
}
