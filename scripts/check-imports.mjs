/**
 * Who may import whom (docs/architecture.md): every import of every source is held against the rules below, and what
 * breaks one is told with its line. Exit status 1 when there is any.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Imports of a source: static, dynamic with a literal, re-exports, and `import(...)` types. */
const importPattern = /(?:\bfrom\s*|\bimport\s*\(\s*|\bimport\s+)(['"])([^'"\n]+)\1/g;

const isTest = (file) => /\.test\.ts$|(^|[/-])(testing|fixtures|harness)(-[a-z]+)?\.ts$/.test(file);
const within = (file, ...folders) => folders.some((folder) => file.startsWith(`${folder}/`));

/** Parts of the engine that see nothing of it but these. */
const engineParts = {
  'engine/devices': ['engine/devices', 'engine/bus', 'engine/memory'],
  'engine/bus': ['engine/bus', 'engine/memory'],
  'engine/memory': ['engine/memory', 'engine/bus'],
  'engine/ir': ['engine/ir', 'engine/memory'],
  'engine/display': ['engine/display', 'engine/bus', 'engine/memory'],
  'engine/block': ['engine/block', 'engine/bus', 'engine/memory'],
  'engine/net': ['engine/net', 'engine/bus', 'engine/memory'],
  'engine/x86': ['engine/x86', 'engine/ir', 'engine/memory'],
};

/** Each: what it is about, which files it holds for, and whether an import (a path in the project, or a package) is against it. */
const rules = [
  {
    about: 'the engine imports nothing of ours outside itself, and nothing of Electron',
    files: (file) => within(file, 'engine'),
    breaks: (target, own) => (own ? !within(target, 'engine') : target === 'electron'),
  },
  {
    about: 'node:* is for engine/host, engine/cli, entry points and tests',
    files: (file) =>
      within(file, 'engine') &&
      !within(file, 'engine/host', 'engine/cli') &&
      !isTest(file) &&
      !/-(worker|thread|process)\.ts$/.test(file),
    breaks: (target, own) => !own && target.startsWith('node:'),
  },
  ...Object.entries(engineParts).map(([part, sees]) => ({
    about: `${part} sees ${sees.slice(1).join(' and ') || 'itself'} only`,
    files: (file) => within(file, part) && !isTest(file),
    breaks: (target, own) => own && within(target, 'engine') && !within(target, ...sees),
  })),
  {
    about: 'main sees of the engine its contract, and nothing of the renderer',
    files: (file) => within(file, 'main'),
    breaks: (target, own) => own && !within(target, 'main', 'engine/contract'),
  },
  {
    about: 'main/contract is for both sides: no Node, nothing else of main',
    files: (file) => within(file, 'main/contract') && !isTest(file),
    breaks: (target, own) => (own ? !within(target, 'main/contract', 'engine/contract') : target !== 'zod'),
  },
  {
    about: 'only main/shell knows Electron',
    files: (file) => within(file, 'main') && !within(file, 'main/shell'),
    breaks: (target, own) => (own ? within(target, 'main/shell') && !within(file, 'main/cli') : target === 'electron'),
  },
  {
    about: 'the renderer sees main/contract and engine/contract, and no Node',
    files: (file) => within(file, 'renderer') && !isTest(file) && !file.endsWith('.config.ts'),
    breaks: (target, own) =>
      own ? !within(target, 'renderer', 'main/contract', 'engine/contract') : target.startsWith('node:') || target === 'electron',
  },
];

let file = '';
let broken = 0;
let checked = 0;

function sources(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return entry.name === 'node_modules' ? [] : sources(path);
    return /\.(ts|svelte)$/.test(entry.name) ? [path] : [];
  });
}

for (file of ['engine', 'main', 'renderer'].flatMap(sources)) {
  checked++;
  // Comments may speak of imports.
  const text = readFileSync(join(root, file), 'utf8').replace(/\/\*[\s\S]*?\*\//g, (comment) => comment.replace(/[^\n]/g, ' '));
  for (const match of text.matchAll(importPattern)) {
    const specifier = match[2];
    const own = specifier.startsWith('.');
    const target = own ? relative(root, join(root, dirname(file), specifier)).replaceAll('\\', '/') : specifier;
    for (const { about, files, breaks } of rules) {
      if (!files(file) || !breaks(target, own)) continue;
      broken++;
      const line = text.slice(0, match.index).split('\n').length;
      console.error(`${file}:${line}: imports ${specifier}: ${about}`);
    }
  }
}

console.log(`${checked} sources, ${broken} imports against the layers`);
process.exitCode = broken === 0 ? 0 : 1;
