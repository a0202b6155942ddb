import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { appError, eventOf, initrdFile, kernelFile, openServices, plan, temporaryFolder } from './fixtures.ts';

test('a VM: made, started, paused, resumed, reset, turned off by its button', async (context) => {
  const folder = temporaryFolder(context);
  const { services, ask } = await openServices(context, folder);
  const made = await ask('wizard.create', { plan: plan(folder, 'One'), start: false });
  assert.equal(made.state, 'shutoff');
  const { id } = made;
  const started = await ask('vm.start', { id });
  assert.equal(started.state, 'running');
  assert.equal(started.accelerator, 'jit');
  assert.ok(started.pid !== null && started.startedAt !== null);
  await assert.rejects(ask('vm.start', { id }), appError('wrong-state'));
  await assert.rejects(ask('vm.resume', { id }), appError('wrong-state'));
  await assert.rejects(ask('vm.delete', { id }), appError('wrong-state'));
  assert.equal((await ask('vm.pause', { id })).state, 'paused');
  assert.equal((await ask('vm.resume', { id })).state, 'running');
  assert.equal((await ask('vm.reset', { id })).state, 'running');
  assert.equal(await ask('vm.monitor', { id, line: 'info registers' }), 'you said: info registers\r\n');
  await assert.rejects(ask('vm.sendKeys', { id, keys: ['a'] }), /no keyboard/);
  assert.match(await ask('vm.screenshot', { id }), /^data:image\/png;base64,iVBOR/);
  const off = eventOf(services, 'vm.changed', ({ state }) => state === 'shutoff');
  assert.equal((await ask('vm.powerButton', { id })).state, 'shutdown-in-progress');
  assert.equal((await off).problem, null);
  const log = (await ask('vm.log', { id })).join('\n');
  assert.match(log, /double of One begins[\s\S]*shutdown: guest-shutdown, by the guest[\s\S]*ended with status 0/);
});

test('started paused; forced off; forced off when it does not listen', async (context) => {
  const folder = temporaryFolder(context);
  const { ask } = await openServices(context, folder);
  const { id } = await ask('wizard.create', { plan: plan(folder, 'Stuck', 'double=stuck'), start: false });
  assert.equal((await ask('vm.start', { id, paused: true })).state, 'paused');
  assert.equal((await ask('vm.forceOff', { id })).state, 'shutoff');
  assert.equal((await ask('vm.get', { id })).summary.problem, null);
});

test('SIGKILL of its process: crashed with the log, and it starts again', async (context) => {
  const folder = temporaryFolder(context);
  const { services, ask } = await openServices(context, folder);
  const { id, pid } = await ask('wizard.create', { plan: plan(folder, 'Victim'), start: true });
  const other = await ask('wizard.create', { plan: plan(folder, 'Bystander'), start: true });
  const crashed = eventOf(services, 'vm.changed', ({ state }) => state === 'crashed');
  process.kill(pid as number, 'SIGKILL');
  const { problem } = await crashed;
  assert.match(problem?.error.message ?? '', /by signal SIGKILL/);
  assert.ok(problem?.logTail.some((line) => line.includes('double of Victim begins')));
  assert.ok((await ask('notifications.list', {})).some(({ title }) => title === '"Victim" has crashed'));
  assert.equal((await ask('vm.get', { id: other.id })).summary.state, 'running');
  const again = await ask('vm.start', { id });
  assert.equal(again.state, 'running');
  assert.equal(again.problem, null);
});

test('starts that fail say why and at which field, and can be tried again', async (context) => {
  const folder = temporaryFolder(context);
  const { ask } = await openServices(context, folder);
  const bad = await ask('wizard.create', { plan: plan(folder, 'Bad', 'double=fail'), start: false });
  await assert.rejects(ask('vm.start', { id: bad.id }), appError('bad-file', 'boot.kernel'));
  const { summary, definition } = await ask('vm.get', { id: bad.id });
  assert.equal(summary.state, 'shutoff');
  assert.equal(summary.problem?.error.message, 'The double does not like this kernel');
  await ask('vm.update', { id: bad.id, changes: { boot: { ...definition.boot, append: '' } as typeof definition.boot } });
  assert.equal((await ask('vm.start', { id: bad.id })).state, 'running');

  const gone = await ask('wizard.create', { plan: plan(folder, 'Gone', 'double=exit'), start: false });
  await assert.rejects(ask('vm.start', { id: gone.id }), appError('start-failed'));
  assert.equal((await ask('vm.get', { id: gone.id })).summary.state, 'shutoff');
});

test('memory, kernel and initrd are checked before anything runs', async (context) => {
  const folder = temporaryFolder(context);
  const { ask } = await openServices(context, folder);
  const fieldsOf = async (draft: Parameters<typeof ask<'wizard.check'>>[1]) =>
    (await ask('wizard.check', draft))
      .filter(({ severity }) => severity === 'error')
      .map(({ field, message }) => `${field}: ${message}`);
  assert.deepEqual(await fieldsOf(plan(folder, 'Good')), []);
  const source = plan(folder, 'x').source as { kind: 'kernel'; kernel: string; initrd: string; append: string };
  const text = join(folder, 'notes.txt');
  writeFileSync(text, 'not a kernel'.repeat(1000));
  assert.match((await fieldsOf({ source: { ...source, kernel: text } }))[0], /^source\.kernel: .*is not a kernel/);
  assert.match((await fieldsOf({ source: { ...source, kernel: kernelFile(folder, 100) } }))[0], /^source\.kernel: .*is cut off/);
  assert.match(
    (await fieldsOf({ source: { ...source, kernel: join(folder, 'absent') } }))[0],
    /^source\.kernel: .*does not exist/,
  );
  assert.match((await fieldsOf({ source: { ...source, kernel: 'vmlinuz' } }))[0], /^source\.kernel: .*whole path/);
  assert.match((await fieldsOf({ source: { ...source, initrd: text } }))[0], /^source\.initrd: .*is not an initial RAM disk/);
  truncateSync(initrdFile(folder), 40);
  assert.match((await fieldsOf({ source }))[0], /^source\.initrd: .*is cut off/);
  assert.match((await fieldsOf({ source: { kind: 'network' } }))[0], /^source\.kind: /);
  assert.match((await fieldsOf({ memoryMiB: 1 << 20 }))[0], /^memoryMiB: .*more than this computer has/);
  assert.match((await fieldsOf({ memoryMiB: 0.5 }))[0], /^memoryMiB: /);
  assert.match((await fieldsOf({ name: ' ' }))[0], /^name: Give the VM a name/);
  initrdFile(folder);
  await assert.rejects(
    ask('wizard.create', { plan: { ...plan(folder, 'Big'), memoryMiB: 1 << 20 }, start: false }),
    appError('invalid', 'memoryMiB'),
  );
  assert.deepEqual((await ask('vm.list', {})).vms, []);
  assert.deepEqual(readdirSync(join(folder, 'library', 'vms')), []);

  const { id } = await ask('wizard.create', { plan: plan(folder, 'Later'), start: false });
  await ask('vm.update', { id, changes: { memoryMiB: 1 << 20 } });
  await assert.rejects(ask('vm.start', { id }), appError('no-memory', 'memoryMiB'));
});

test('names are unique; arguments are checked at the border', async (context) => {
  const folder = temporaryFolder(context);
  const { ask } = await openServices(context, folder);
  const { id } = await ask('wizard.create', { plan: plan(folder, 'Debian'), start: false });
  await assert.rejects(ask('wizard.create', { plan: plan(folder, 'debian'), start: false }), appError('name-taken', 'name'));
  assert.equal(await ask('wizard.suggestName', { os: null, hint: 'Debian' }), 'Debian 2');
  const other = await ask('vm.clone', { id, name: 'Copy' });
  assert.notEqual(other.id, id);
  await assert.rejects(ask('vm.rename', { id: other.id, name: 'DEBIAN' }), appError('name-taken', 'name'));
  assert.equal((await ask('vm.rename', { id, name: 'DEBIAN' })).name, 'DEBIAN', 'its own name in other letters');
  await assert.rejects(ask('vm.rename', { id, name: '../x' }), appError('invalid', 'name'));
  await assert.rejects(ask('vm.get', { id: '../../etc' }), appError('invalid', 'id'));
  await assert.rejects(ask('vm.get', { id: '00000000-0000-4000-8000-000000000000' }), appError('not-found'));
  await assert.rejects(ask('constructor' as never, {} as never), appError('unsupported'));
});

test('delete, undo, delete for good', async (context) => {
  const folder = temporaryFolder(context);
  const { services, ask } = await openServices(context, folder);
  const { id } = await ask('wizard.create', { plan: plan(folder, 'Keep'), start: false });
  const token = await ask('vm.delete', { id });
  assert.deepEqual((await ask('vm.list', {})).vms, []);
  assert.deepEqual(await ask('undo.list', {}), [token]);
  const usurper = await ask('wizard.create', { plan: plan(folder, 'Keep'), start: false });
  const back = await ask('undo.apply', { token: token.token });
  assert.equal(back.id, id);
  assert.equal(back.name, 'Keep (restored)');
  await assert.rejects(ask('undo.apply', { token: token.token }), appError('undo-expired'));
  await ask('vm.delete', { id: usurper.id });
  await services.library.purgeExpired(Date.now() + 365 * 86_400_000);
  assert.deepEqual(await ask('undo.list', {}), []);
  assert.deepEqual(readdirSync(join(folder, 'library', 'trash')), []);
  assert.equal((await ask('vm.start', { id })).state, 'running');
});

test('deletions, definitions and history outlive the app; a second app is told who has the library', async (context) => {
  const folder = temporaryFolder(context);
  const first = await openServices(context, folder);
  const { id } = await first.ask('wizard.create', { plan: plan(folder, 'Stays'), start: true });
  const gone = await first.ask('wizard.create', { plan: plan(folder, 'Goes'), start: false });
  await first.ask('vm.delete', { id: gone.id });
  await assert.rejects(
    openServices(context, folder),
    (error: Error) => appError('library-in-use')(error) && error.message.includes(`process ${process.pid}`),
  );
  await first.ask('vm.watch', { ids: [id] });
  const picture = await eventOf(first.services, 'vm.thumbnail', () => true);
  assert.match(picture.url, /^data:image\/png;base64,/);
  const { point } = await eventOf(first.services, 'vm.stats', ({ point: { cpu } }) => cpu.some((value) => value > 0));
  assert.equal(point.cpu.length, 2);
  assert.ok(point.mips > 0 && (point.exits.pio ?? 0) > 0);
  assert.equal(point.memoryTotal, 64 * 2 ** 20);
  await first.services.close();
  assert.equal(existsSync(join(folder, 'library', 'lock')), false);

  const second = await openServices(context, folder);
  const { vms } = await second.ask('vm.list', {});
  assert.deepEqual(
    vms.map(({ name, state }) => [name, state]),
    [['Stays', 'shutoff']],
  );
  assert.equal((await second.ask('undo.list', {})).length, 1);
  const history = await second.ask('vm.history', { id });
  assert.ok(history.points.length > 0);
  assert.equal(history.points[0].cpu.length, 2);
  assert.match((await second.ask('vm.thumbnail', { id })) ?? '', /^data:image\/png/);
});

test('the lock of an app that is gone is taken over', async (context) => {
  const folder = temporaryFolder(context);
  mkdirSync(join(folder, 'library'), { recursive: true });
  const { hostname } = await import('node:os');
  // This process lives, but it began at another time than the lock says: its id was given again.
  const stale = { pid: process.pid, processStart: '1', host: hostname(), socket: null, since: '' };
  writeFileSync(join(folder, 'library', 'lock'), JSON.stringify(stale));
  const { ask } = await openServices(context, folder);
  assert.deepEqual((await ask('vm.list', {})).vms, []);
  assert.equal(JSON.parse(readFileSync(join(folder, 'library', 'lock'), 'utf8')).pid, process.pid);
});

test('definitions that cannot be read are set aside and told of, again and again', async (context) => {
  const folder = temporaryFolder(context);
  const first = await openServices(context, folder);
  const { id } = await first.ask('wizard.create', { plan: plan(folder, 'Fine'), start: false });
  const fine = JSON.parse(readFileSync(join(folder, 'library', 'vms', id, 'vm.json'), 'utf8'));
  await first.services.close();
  const cases: Record<string, string> = {
    '11111111-1111-4111-8111-111111111111': '{"format": "vivarium-vm", "vers',
    '22222222-2222-4222-8222-222222222222': '',
    '33333333-3333-4333-8333-333333333333': JSON.stringify({
      ...fine,
      id: '33333333-3333-4333-8333-333333333333',
      name: 'x',
      version: 2,
    }),
    '44444444-4444-4444-8444-444444444444': JSON.stringify({
      ...fine,
      id: '44444444-4444-4444-8444-444444444444',
      name: 'y',
      memoryMiB: 'lots',
    }),
    '55555555-5555-4555-8555-555555555555': JSON.stringify(fine),
  };
  for (const [name, text] of Object.entries(cases)) {
    mkdirSync(join(folder, 'library', 'vms', name));
    writeFileSync(join(folder, 'library', 'vms', name, 'vm.json'), text);
  }
  for (const time of [1, 2]) {
    const { services, ask } = await openServices(context, folder);
    const { vms, broken } = await ask('vm.list', {});
    assert.deepEqual(
      vms.map(({ name }) => name),
      ['Fine'],
      `start ${time}`,
    );
    assert.equal(broken.length, 5);
    for (const { folder: at, file } of broken) {
      assert.match(file, /vm\.json\.corrupt-\d+$/);
      assert.equal(readFileSync(file, 'utf8'), cases[at.slice(-36)], 'nothing is lost');
    }
    const reason = (digit: string): string => broken.find(({ folder: at }) => at.endsWith(digit.repeat(12)))?.reason ?? '';
    assert.match(reason('1'), /not JSON/);
    assert.match(reason('2'), /empty/);
    assert.match(reason('3'), /newer Vivarium/);
    assert.match(reason('4'), /memoryMiB/);
    await services.close();
  }
});
