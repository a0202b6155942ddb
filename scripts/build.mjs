/**
 * `npm run build`: all that the app is made of, in dist/, as it is packed:
 *
 *     dist/package.json    names main/electron.js
 *     dist/main/           electron.js, preload.cjs, serve.js, cli.js: each one file, with its packages in it
 *     dist/renderer/       the pages
 *     dist/engine/         the engine, file for file: its processes and threads are started from files
 *     dist/assets/         icons, OS catalogue
 *     dist/firmware/       SeaBIOS and OVMF, where this machine has them
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { commit, ensurePackages, ensureRenderer, fail, root } from './setup.mjs';

const out = join(root, 'dist');
const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
/** Packages of npm that the engine needs when it runs; koffi only where there is KVM. */
const enginePackages = ['ws', 'koffi'];

async function buildMain(esbuild) {
  const common = {
    bundle: true,
    platform: 'node',
    target: 'node24',
    sourcemap: 'linked',
    logLevel: 'warning',
    legalComments: 'external',
  };
  // Packages in CommonJS ask for Node's modules by `require`, which an ES module does not have.
  const banner = { js: "import { createRequire as $require } from 'node:module'; const require = $require(import.meta.url);" };
  const external = ['electron', 'vite', 'bufferutil', 'utf-8-validate'];
  rmSync(join(out, 'main'), { recursive: true, force: true });
  await Promise.all([
    ...['electron', 'serve'].map((name) =>
      esbuild.build({
        ...common,
        entryPoints: [join(root, 'main', 'shell', `${name}.ts`)],
        outfile: join(out, 'main', `${name}.js`),
        format: 'esm',
        external,
        banner,
      }),
    ),
    esbuild.build({
      ...common,
      entryPoints: [join(root, 'main', 'cli', 'main.ts')],
      outfile: join(out, 'main', 'cli.js'),
      format: 'esm',
      external,
      banner,
    }),
    // A sandboxed preload script is one CommonJS file.
    esbuild.build({
      ...common,
      entryPoints: [join(root, 'main', 'shell', 'preload.ts')],
      outfile: join(out, 'main', 'preload.cjs'),
      format: 'cjs',
      external,
    }),
  ]);
}

/** Sources of the engine become JavaScript one by one; what names a `.ts` file of ours names its `.js` then. */
async function buildEngine(esbuild) {
  rmSync(join(out, 'engine'), { recursive: true, force: true });
  const files = [];
  const look = (folder) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) look(path);
      else if (/\.ts$/.test(entry.name)) {
        if (!/\.(test|d)\.ts$|(^|-)testing(-[a-z]+)?\.ts$/.test(entry.name)) files.push(path);
      } else if (!/\.md$|tsconfig\.json$/.test(entry.name)) {
        mkdirSync(join(out, folder), { recursive: true });
        cpSync(join(root, path), join(out, path));
      }
    }
  };
  look('engine');
  for (const file of files) {
    const source = readFileSync(join(root, file), 'utf8');
    const { code } = await esbuild.transform(source, { loader: 'ts', format: 'esm', target: 'node24', sourcefile: file });
    const target = join(out, file.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, code.replace(/((?:from|import|import\(|new URL\()\s*)(["'])(\.{1,2}\/[^"'\n]+)\.ts\2/g, '$1$2$3.js$2'));
  }
  writeFileSync(
    join(out, 'engine', 'package.json'),
    `${JSON.stringify({ name: 'vivarium-engine', version: own.version, type: 'module', private: true })}\n`,
  );
  for (const name of enginePackages) copyPackage(name);
  return files.length;
}

/** A package of npm with what it needs in turn, beside the engine. */
function copyPackage(name, done = new Set()) {
  const from = join(root, 'node_modules', name);
  if (done.has(name) || !existsSync(from)) return;
  done.add(name);
  cpSync(from, join(out, 'engine', 'node_modules', name), {
    recursive: true,
    // Native code of other systems, sources and documents stay behind.
    filter: (path) => !/[/\\](src|doc|test|vendor|node_modules)$|\.(md|map|d\.ts|c|cc|h)$/.test(path) || path === from,
  });
  const { dependencies = {}, optionalDependencies = {} } = JSON.parse(readFileSync(join(from, 'package.json'), 'utf8'));
  for (const needed of Object.keys({ ...dependencies, ...optionalDependencies })) copyPackage(needed, done);
}

await ensurePackages();
const esbuild = await import('esbuild');
const began = Date.now();
await buildMain(esbuild);
const modules = await buildEngine(esbuild);
rmSync(join(out, 'assets'), { recursive: true, force: true });
cpSync(join(root, 'assets'), join(out, 'assets'), { recursive: true });
// Firmware of the host, with the words of its licences; VMs find the host's own without it.
rmSync(join(out, 'firmware'), { recursive: true, force: true });
mkdirSync(join(out, 'firmware'), { recursive: true });
const firmware = {
  seabios: ['/usr/share/seabios/bios-256k.bin', '/usr/share/seabios/vgabios-stdvga.bin', '/usr/share/doc/seabios/copyright'],
  OVMF: ['/usr/share/OVMF/OVMF_CODE_4M.fd', '/usr/share/OVMF/OVMF_VARS_4M.fd', '/usr/share/doc/ovmf/copyright'],
};
for (const [folder, files] of Object.entries(firmware))
  for (const file of files)
    if (existsSync(file)) cpSync(file, join(out, 'firmware', folder, basename(file)), { dereference: true });
const { name, version, description, license } = own;
// electron-builder makes no .deb without an author and a homepage; there is no homepage yet (RFC 2606: .invalid).
const manifest = {
  name,
  productName: 'Vivarium',
  author: 'The Vivarium authors',
  desktopName: 'vivarium.desktop',
  homepage: 'https://vivarium.invalid/',
  version,
  description,
  license,
  type: 'module',
  main: 'main/electron.js',
  commit: commit(),
};
writeFileSync(join(out, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
const size = Math.round(statSync(join(out, 'main', 'electron.js')).size / 1024);
console.log(`Built dist/: main ${size} KiB, ${modules} modules of the engine, in ${((Date.now() - began) / 1000).toFixed(1)} s`);
if (!(await ensureRenderer())) fail('The pages could not be built: see above.');
process.exit(0);
