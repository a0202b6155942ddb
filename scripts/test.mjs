/**
 * `npm test`: sets up what is missing, then checks layers, lint, types and all tests but the long ones
 * (`*.long.test.ts`, which `npm run test:long` runs). Ends with a line `N passed, N failed` and the matching status.
 * A folder or file as argument narrows the tests: `npm test -- engine/net`.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { ensureGuest, ensurePackages, ensureRenderer, ensureSystem, node24, root, run, tool } from './setup.mjs';

const args = process.argv.slice(2);
const long = args.includes('--long');
const only = args.filter((argument) => !argument.startsWith('--'));

let passed = 0;
let failed = 0;

async function check(name, command, parameters) {
  const began = Date.now();
  const status = await run(command, parameters);
  if (status === 0) passed++;
  else failed++;
  console.log(`${status === 0 ? 'ok      ' : 'FAILED  '} ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
}

function testFiles() {
  const found = [];
  const look = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) {
        if (entry.name !== 'node_modules' && !entry.name.startsWith('.')) look(path);
      } else if (entry.name.endsWith('.test.ts') && entry.name.endsWith('.long.test.ts') === long) found.push(path);
    }
  };
  for (const folder of ['engine', 'main', 'renderer', 'test']) if (existsSync(join(root, folder))) look(join(root, folder));
  const chosen = only.map((path) => resolve(path));
  return found
    .filter((path) => chosen.length === 0 || chosen.some((prefix) => path === prefix || path.startsWith(`${prefix}/`)))
    .sort();
}

await ensurePackages();
ensureSystem(
  {
    chromium: ['/usr/bin/chromium', '/usr/bin/google-chrome'],
    'qemu-utils': '/usr/bin/qemu-img',
    gcc: '/usr/bin/gcc',
    'libc6-dev': '/usr/include/stdio.h',
    seabios: '/usr/share/seabios/bios-256k.bin',
    nasm: '/usr/bin/nasm',
  },
  'some tests',
);
for (const architecture of ['amd64', 'i386'])
  if (!(await ensureGuest(architecture))) console.log(`Missing for tests of whole machines: the ${architecture} guest.`);
if (!existsSync(join(root, 'renderer', 'index.html'))) console.log('There are no pages yet.');
else if (!(await ensureRenderer())) {
  failed++;
  console.log('FAILED   the pages could not be built');
}

if (!long && only.length === 0) {
  await check('layers', node24, [join(root, 'scripts', 'check-imports.mjs')]);
  await check('lint and format', tool('biome'), ['check', '--max-diagnostics=30', '.']);
  for (const layer of [
    'engine',
    'main',
    'renderer',
    'test',
    ...readdirSync(join(root, 'test')).map((name) => join('test', name)),
  ]) {
    const config = join(root, layer, 'tsconfig.json');
    // A layer's own checker, where types alone do not reach its sources.
    if (existsSync(config) && layer !== 'renderer') await check(`types of ${layer}`, tool('tsc'), ['-p', config]);
  }
  if (existsSync(join(root, 'renderer', 'tsconfig.json')))
    await check('types of renderer', tool('svelte-check'), [
      '--workspace',
      'renderer',
      '--tsconfig',
      'tsconfig.json',
      '--output',
      'human',
      '--threshold',
      'error',
    ]);
}

const files = testFiles();
if (files.length > 0) {
  const began = Date.now();
  const results = join(root, 'test', 'results');
  mkdirSync(results, { recursive: true });
  const countsFile = join(results, 'counts.json');
  rmSync(countsFile, { force: true });
  const options = [
    '--test',
    '--test-reporter',
    join(root, 'scripts', 'test-reporter.mjs'),
    `--test-timeout=${long ? 3_600_000 : 180_000}`,
  ];
  const status = await run(node24, [...options, ...files.map((path) => relative(root, path))], {
    env: { ...process.env, VIVARIUM_TEST_COUNTS: countsFile },
  });
  if (statSync(countsFile, { throwIfNoEntry: false }) === undefined) failed++;
  else {
    const counts = JSON.parse(readFileSync(countsFile, 'utf8'));
    passed += counts.passed;
    failed += counts.failed;
    if (status !== 0 && counts.failed === 0) failed++;
    console.log(`${files.length} files, ${counts.skipped} tests skipped, ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
} else console.log('No test matches.');

console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
