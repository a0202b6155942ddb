/**
 * The first steps under a real Electron: the window opens, the list shows, the sample VM starts. Skipped aloud where
 * Electron's binary is not there (npm brings it only with access to its own download).
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { _electron } from 'playwright-core';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Electron's program, or why there is none. */
function electronBinary(): { path: string } | { missing: string } {
  const pathFile = join(root, 'node_modules', 'electron', 'path.txt');
  if (!existsSync(pathFile)) return { missing: "Electron's binary is not installed (node_modules/electron/path.txt)" };
  const path = join(root, 'node_modules', 'electron', 'dist', readFileSync(pathFile, 'utf8').trim());
  if (!existsSync(path)) return { missing: `${path} does not exist` };
  if (process.platform === 'linux' && process.env.DISPLAY === undefined && process.env.WAYLAND_DISPLAY === undefined)
    return { missing: 'there is no screen (DISPLAY is not set)' };
  return { path };
}

const binary = electronBinary();

test('under Electron: the window opens and shows the library', {
  skip: 'missing' in binary ? binary.missing : false,
}, async () => {
  assert.ok('path' in binary);
  const built = spawnSync(process.execPath, [join(root, 'scripts', 'build.mjs')], { cwd: root, encoding: 'utf8' });
  assert.equal(built.status, 0, built.stderr);
  const library = mkdtempSync(join(tmpdir(), 'vivarium-electron-'));
  const app = await _electron.launch({
    executablePath: binary.path,
    args: [root, '--no-sandbox'],
    env: { ...process.env, VIVARIUM_LIBRARY: library } as Record<string, string>,
  });
  try {
    const page = await app.firstWindow();
    await page.getByRole('button', { name: 'New VM' }).waitFor({ timeout: 30_000 });
    assert.equal(await page.title(), 'Vivarium');
  } finally {
    await app.close();
    rmSync(library, { recursive: true, force: true });
  }
});
