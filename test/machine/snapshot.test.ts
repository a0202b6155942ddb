/** A machine saved to a file and restored by another process, with a guest of a few instructions. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MachineConfig } from '../../engine/contract/machine-config.ts';
import { startVm } from './harness.ts';
import { echoImage } from './images.ts';

test('what is typed before a saved machine is restored reaches the guest', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-restore-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const [kernel, file] = ['kernel', 'state'].map((name) => join(folder, name));
  writeFileSync(kernel, echoImage());
  const boot: MachineConfig['boot'] = { kind: 'kernel', kernel, append: '' };
  const first = startVm(context, { memory: 16, config: { boot } });
  await first.waitFor('ready\n', 60);
  first.type('one');
  await first.waitFor('one', 20);
  await first.qmp('migrate', { uri: `file:${file}` });
  await first.event('STOP', 20);
  for (let n = 0; !existsSync(file); n++) {
    assert.ok(n < 600, JSON.stringify(await first.qmp('query-migrate')));
    await new Promise((done) => setTimeout(done, 20));
  }
  await first.close();

  const lifecycle: MachineConfig['lifecycle'] = {
    paused: false,
    onReboot: 'exit',
    onPoweroff: 'exit',
    restore: { kind: 'file', path: file },
  };
  const second = startVm(context, { memory: 16, config: { boot, lifecycle } });
  second.type('two');
  await second.waitFor('two', 60);
  assert.doesNotMatch(second.output, /ready/);
});
