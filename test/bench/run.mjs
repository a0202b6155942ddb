/**
 * `npm run bench -- boot|loops|guest|disk [options]`: brings what the benchmark needs, then runs it on Node 24.
 * Plain JavaScript for Node 20: it starts before anything is installed.
 */
import { join } from 'node:path';
import { ensureGuest, ensurePackages, ensureSystem, fail, node24, root, run } from '../../scripts/setup.mjs';

const [name, ...rest] = process.argv.slice(2);
const benchmarks = ['boot', 'loops', 'guest', 'disk'];
const usage = `usage: npm run bench -- NAME [options]

  boot     time from process start to the shell's ready line and to power-off, beside QEMU TCG
  loops    guest instructions a second in integer loops; a port access; an idle guest
  guest    programs of fixed work in the guest, beside QEMU TCG
  disk     a virtio disk on qcow2 in the guest, beside QEMU TCG

  --rounds N     rounds of boot, guest and disk (default 3)
  --cpus N       vCPUs (default 2)
  --no-peer      this engine alone
  --only A,B     the named programs of guest, or parts of loops (rates, port, idle)
  --save         also writes docs/bench/NAME.json`;

if (!benchmarks.includes(name)) {
  console.log(usage);
  process.exit(name === undefined || name === '--help' || name === '-h' ? 0 : 2);
}
await ensurePackages();
if (!(await ensureGuest())) fail('The benchmarks boot the sample guest, which is not here: see above.');
const packages = {
  ...(name === 'loops' || rest.includes('--no-peer') ? {} : { 'qemu-system-x86': '/usr/bin/qemu-system-x86_64' }),
  ...(name === 'guest' || name === 'disk' ? { gcc: '/usr/bin/gcc', 'libc6-dev': '/usr/include/stdio.h' } : {}),
};
ensureSystem(packages, 'this benchmark');
process.exitCode = await run(node24, [join(root, 'test', 'bench', 'bench.ts'), name, ...rest]);
