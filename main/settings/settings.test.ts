import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { defaultSettings } from '../contract/index.ts';
import { EventBus } from '../event-bus.ts';
import { SettingsService } from './settings.ts';

test('settings are kept, completed by defaults, and a damaged file is set aside', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-settings-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const bus = new EventBus();
  const told: string[] = [];
  bus.on('settings.changed', ({ theme }) => told.push(theme));
  const warnings: string[] = [];
  const open = () => SettingsService.open(folder, bus, (message) => warnings.push(message));
  const first = await open();
  assert.deepEqual(first.get(), defaultSettings);
  await first.set({ theme: 'dark', console: { scaling: 'never' } });
  assert.deepEqual(told, ['dark']);
  const second = await open();
  assert.equal(second.get().theme, 'dark');
  assert.equal(second.get().console.scaling, 'never');
  assert.equal(second.get().console.shareClipboard, true);
  writeFileSync(join(folder, 'settings.json'), '{"theme": "light"}');
  assert.deepEqual((await open()).get(), { ...defaultSettings, theme: 'light' }, 'of an older app');
  assert.deepEqual(warnings, []);
  for (const text of ['{"theme": "pink"}', '{"theme']) {
    writeFileSync(join(folder, 'settings.json'), text);
    assert.deepEqual((await open()).get(), defaultSettings);
  }
  assert.equal(warnings.length, 2);
  const kept = readdirSync(folder).filter((name) => name.includes('corrupt'));
  assert.ok(kept.some((name) => readFileSync(join(folder, name), 'utf8') === '{"theme'));
});
