/**
 * `npm run package`: builds dist/, then packs it with electron-builder into release/, as far as this machine can. What
 * cannot be made here is said in one line each.
 *
 * `--rehearse` packs without Electron's binary, a script in its place: it tries out the configuration, the archive, what
 * lies beside it, the desktop entry and the .deb. The result, in release/rehearsal/, is not for anybody to install.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensurePackages, ensureSystem, fail, node24, root, run } from './setup.mjs';

const rehearse = process.argv.includes('--rehearse');
const passed = process.argv.slice(2).filter((argument) => argument !== '--rehearse');

await ensurePackages();
if ((await run(node24, [join(root, 'scripts', 'build.mjs')])) !== 0) fail('dist/ could not be built: see above.');

const electron = join(root, 'node_modules', 'electron');
const version = JSON.parse(readFileSync(join(electron, 'package.json'), 'utf8')).version;
let dist = join(electron, 'dist');
if (!existsSync(join(electron, 'path.txt')) && !rehearse) await run(node24, [join(electron, 'install.js')], { timeout: 120_000 });
if (!rehearse && !existsSync(join(electron, 'path.txt')))
  fail(
    'Nothing can be packed: Electron\'s binary is not here and could not be fetched. "npm run package -- --rehearse" tries out all the rest.',
  );
if (rehearse) {
  dist = join(root, '.cache', 'electron-rehearsal');
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(join(dist, 'resources'), { recursive: true });
  writeFileSync(
    join(dist, 'electron'),
    "#!/bin/sh\necho 'This is a rehearsal of packing Vivarium: it has no Electron in it.' >&2\nexit 1\n",
  );
  chmodSync(join(dist, 'electron'), 0o755);
  writeFileSync(join(dist, 'version'), version);
}

const environment = { ...process.env };
const targets = ['dir'];
if (process.platform === 'linux') {
  // Given tools, electron-builder does not fetch its own.
  const missing = ensureSystem({ 'p7zip-full': ['/usr/bin/7za', '/usr/bin/7z'], dpkg: '/usr/bin/dpkg-deb' }, 'packing');
  const seven = ['/usr/bin/7za', '/usr/bin/7z'].find((path) => existsSync(path));
  if (seven !== undefined) environment.ELECTRON_BUILDER_7ZIP_PATH ??= seven;
  environment.CUSTOM_FPM_PATH ??= join(root, 'scripts', 'fpm.mjs');
  if (!missing.includes('dpkg')) targets.push('deb');
  if (seven !== undefined) targets.push('tar.gz');
}
const output = rehearse ? 'release/rehearsal' : 'release';
rmSync(join(root, output), { recursive: true, force: true });
const settings = { extends: join(root, 'electron-builder.yml'), electronDist: dist, electronVersion: version };
// A script has no fuses.
if (rehearse) settings.electronFuses = null;
const config = join(root, '.cache', 'electron-builder.json');
mkdirSync(join(root, '.cache'), { recursive: true });
writeFileSync(config, JSON.stringify({ ...settings, directories: { output } }));
const platform = process.platform === 'linux' ? ['--linux', ...targets] : [];
const builder = join(root, 'node_modules', 'electron-builder', 'cli.js');
const status = await run(
  node24,
  [builder, ...(passed.length > 0 ? passed : platform), '--publish', 'never', '--config', config],
  {
    env: environment,
  },
);
if (status !== 0) fail('electron-builder failed: see above.');

for (const name of readdirSync(join(root, output))) {
  const info = statSync(join(root, output, name));
  if (!name.startsWith('builder-'))
    console.log(`${output}/${name}${info.isDirectory() ? '/' : ` (${(info.size / 2 ** 20).toFixed(1)} MiB)`}`);
}
if (process.platform === 'linux' && passed.length === 0)
  console.log('Not made here: AppImage (its runtime has to be fetched), the installers of Windows and macOS (to be made there).');
