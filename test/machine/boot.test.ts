/** The sample guest on two vCPUs: the short test of a whole machine. The others are in the long tests. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm, withoutGuest } from './harness.ts';
import { decodePng, inkOf } from './png.ts';

test('Debian boots, answers, shows its screen, and turns off by its power button', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context, { cpus: 2, append: 'console=tty0 console=ttyS0' });
  await vm.shell();
  context.diagnostic(`a shell after ${((performance.now() - vm.began) / 1000).toFixed(1)} s`);
  assert.equal(await vm.command('nproc'), '2');
  assert.match(await vm.command('uname -a'), /^Linux vivarium 6\.[^\n]* x86_64 GNU\/Linux$/);
  assert.equal(await vm.command('echo $((6 * 7))'), '42');

  assert.deepEqual(await vm.qmp('query-status'), { running: true, singlestep: false, status: 'running' });
  const shot = join(vm.folder, 'screen.png');
  await vm.qmp('screendump', { filename: shot, format: 'png' });
  const image = decodePng(readFileSync(shot));
  assert.equal(image.width, 720);
  assert.equal(image.height, 400);
  assert.ok(inkOf(image) > 2000, `${inkOf(image)} pixels are not background`);

  await vm.qmp('stop');
  vm.skip();
  vm.type('echo while-$((40 + 2))\n');
  await new Promise((done) => setTimeout(done, 500));
  assert.ok(!vm.output.includes('while-42'));
  await vm.qmp('cont');
  await vm.waitFor('while-42', 20);

  await vm.qmp('system_powerdown');
  await vm.event('POWERDOWN', 5);
  assert.equal(await vm.exit(60), 0);
  assert.deepEqual(
    vm.events.filter(({ event }) => event === 'SHUTDOWN').map(({ data }) => data),
    [{ guest: true, reason: 'guest-shutdown' }],
  );
});
