#!/usr/bin/env node
/**
 * What electron-builder asks of fpm to make a .deb, done with dpkg-deb: fpm itself would have to be fetched. Takes the
 * options that electron-builder 26 passes (app-builder-lib, targets/FpmTarget), and refuses those it does not know.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const single = new Set([
  '-s',
  '-t',
  '--architecture',
  '--after-install',
  '--after-remove',
  '--description',
  '--version',
  '--package',
  '--name',
  '--maintainer',
  '--vendor',
  '--url',
  '--category',
  '--deb-priority',
  '--deb-compression',
  '--license',
  '--iteration',
  '--log',
]);
const several = new Set(['-d', '--deb-recommends']);
const flags = new Set(['--force', '--debug']);

const options = {};
const mappings = [];
const args = process.argv.slice(2);
while (args.length > 0) {
  const argument = args.shift();
  if (flags.has(argument)) continue;
  if (single.has(argument)) options[argument] = args.shift();
  else if (several.has(argument)) options[argument] = [...(options[argument] ?? []), args.shift()];
  else if (argument.startsWith('-')) fail(`unknown option ${argument}`);
  else mappings.push(argument);
}
if (options['-t'] !== 'deb') fail(`only .deb packages are made here, not ${options['-t']}`);

function fail(message) {
  console.error(`fpm.mjs: ${message}`);
  process.exit(1);
}

const tree = mkdtempSync(join(tmpdir(), 'vivarium-deb-'));
try {
  chmodSync(tree, 0o755);
  for (const mapping of mappings) {
    const at = mapping.indexOf('=');
    const source = mapping.slice(0, at);
    const target = join(tree, mapping.slice(at + 1));
    if (!existsSync(source)) fail(`${source} does not exist`);
    mkdirSync(source.endsWith('/') ? target : dirname(target), { recursive: true });
    if (source.endsWith('/')) cpSync(source, target, { recursive: true, preserveTimestamps: true, verbatimSymlinks: true });
    else copyFileSync(source, target);
  }
  let bytes = 0;
  for (const name of readdirSync(tree, { recursive: true })) {
    const path = join(tree, name);
    const info = statSync(path, { throwIfNoEntry: false });
    if (info === undefined) continue;
    bytes += info.size;
    // The umask of whoever builds must not shape the package.
    chmodSync(path, info.isDirectory() || info.mode & 0o100 ? 0o755 : 0o644);
  }
  const control = join(tree, 'DEBIAN');
  mkdirSync(control);
  for (const [option, name] of [
    ['--after-install', 'postinst'],
    ['--after-remove', 'postrm'],
  ]) {
    if (options[option] === undefined) continue;
    copyFileSync(options[option], join(control, name));
    chmodSync(join(control, name), 0o755);
  }
  const [synopsis, ...description] = (options['--description'] ?? '').trim().split('\n');
  const iteration = options['--iteration'] === undefined ? '' : `-${options['--iteration']}`;
  const fields = {
    Package: options['--name'],
    Version: `${options['--version']}${iteration}`,
    Architecture: options['--architecture'],
    Maintainer: options['--maintainer'],
    'Installed-Size': Math.ceil(bytes / 1024),
    Depends: (options['-d'] ?? []).join(', ') || undefined,
    Recommends: (options['--deb-recommends'] ?? []).join(', ') || undefined,
    Section: options['--category'] ?? 'utils',
    Priority: options['--deb-priority'] ?? 'optional',
    Homepage: options['--url'],
    Description: [synopsis || options['--name'], ...description.map((line) => ` ${line.trim() || '.'}`)].join('\n'),
  };
  const text = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${value}\n`);
  writeFileSync(join(control, 'control'), text.join(''));
  const compression = options['--deb-compression'] ?? 'xz';
  const { status } = spawnSync('dpkg-deb', ['--root-owner-group', `-Z${compression}`, '--build', tree, options['--package']], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(tree, { recursive: true, force: true });
}
