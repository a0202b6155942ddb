/**
 * The Electron shell's own code, unchanged, over a stand-in for Electron's API; what that cannot show stands in
 * electron-standin.ts. One app for all, in order, as a person would use it.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Client, createClient, type PreloadBridge, transportOfPage } from '../../main/contract/index.ts';
import { app, BrowserWindow, ipcRenderer, protocol, session, standin } from './electron-standin.ts';
import { appError, doubleEntry, plan } from './fixtures.ts';

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'electron'
      ? { url: new URL('./electron-standin.ts', import.meta.url).href, shortCircuit: true }
      : next(specifier, context),
});

const folder = mkdtempSync(join(tmpdir(), 'vivarium-electron-'));
const messages: ((event: { data: unknown; ports: readonly never[] }) => void)[] = [];
let client: Client;

const until = async (what: () => boolean): Promise<void> => {
  for (let wait = 0; !what(); wait++) {
    assert.ok(wait < 500, 'waited 10 s in vain');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

before(async () => {
  standin.entry = doubleEntry;
  process.env.XDG_CONFIG_HOME = join(folder, 'config');
  process.argv = [
    process.argv[0],
    'app',
    '--library',
    join(folder, 'library'),
    '--cache',
    join(folder, 'cache'),
    '/media/first.iso',
    '/media/notes.txt',
  ];
  await import('../../main/shell/electron.ts');
  await until(() => standin.windows.length > 0 && standin.menu !== undefined);
  const page = { origin: 'app://vivarium' };
  Object.assign(globalThis, {
    location: page,
    postMessage: (data: unknown, target: string, ports: never[]) => {
      assert.equal(target, page.origin);
      for (const listener of messages) listener({ data, ports });
    },
  });
  await import('../../main/shell/preload.ts');
  const vivarium = standin.exposed.get('vivarium') as PreloadBridge;
  client = createClient(
    transportOfPage({
      vivarium,
      location: { protocol: 'app:', host: 'vivarium' },
      addEventListener: (_, listener) => void messages.push(listener as never),
    }),
  );
});

after(() => rmSync(folder, { recursive: true, force: true }));

test('windows are isolated and sandboxed, go nowhere, and get few permissions', async () => {
  const [window] = standin.windows;
  const { contextIsolation, sandbox, nodeIntegration, webSecurity } = window.options.webPreferences;
  assert.deepEqual(
    { contextIsolation, sandbox, nodeIntegration, webSecurity },
    { contextIsolation: true, sandbox: true, nodeIntegration: false, webSecurity: true },
  );
  assert.equal(window.url, 'app://vivarium/index.html');
  assert.deepEqual(window.webContents.openHandler?.({ url: 'https://example.org' }), { action: 'deny' });
  let prevented = false;
  window.webContents.emit('will-navigate', { preventDefault: () => (prevented = true) });
  assert.equal(prevented, true);
  const granted: Record<string, boolean> = {};
  for (const permission of ['camera', 'geolocation', 'fullscreen'])
    session.defaultSession.request?.(null, permission, (answer) => {
      granted[permission] = answer;
    });
  assert.deepEqual(granted, { camera: false, geolocation: false, fullscreen: true });
  assert.deepEqual(Object.keys(standin.exposed.get('vivarium') as object).sort(), ['listen', 'openPort', 'pathOfFile', 'send']);
});

test('pages come from the app scheme, and nothing from beside them', async () => {
  const get = protocol.handlers.get('app') as (request: { url: string }) => Promise<Response>;
  assert.equal((await get({ url: 'app://vivarium/../../package.json' })).status, 404);
  assert.equal((await get({ url: 'app://vivarium/%2e%2e/%2e%2e/package.json' })).status, 404);
  assert.equal((await get({ url: 'app://other/index.html' })).status, 404);
  assert.ok(protocol.schemes.some(({ scheme }) => scheme === 'app'));
});

test('requests cross; a frame that is not ours is refused', async () => {
  const opened: string[] = [];
  client.on('app.openFile', ({ path }) => opened.push(path));
  const info = await client.request('app.info', {});
  assert.deepEqual([info.shell, info.nativeWindows, info.nativeDialogs], ['electron', true, true]);
  await until(() => opened.length > 0);
  assert.deepEqual(opened, ['/media/first.iso'], 'the file on the command line');
  app.emit('second-instance', {}, ['vivarium', 'disk.qcow2'], '/home/me');
  app.emit('open-file', { preventDefault() {} }, '/Volumes/cd.iso');
  assert.deepEqual(opened.slice(1), ['/home/me/disk.qcow2', '/Volumes/cd.iso']);
  await assert.rejects(client.request('vm.get', { id: 'x' }), appError('invalid', 'id'));
  ipcRenderer.url = 'https://example.org/';
  await assert.rejects(ipcRenderer.invoke('vivarium', { id: 1, request: 'vm.list', args: {} }), /Not a page/);
  ipcRenderer.url = 'app://vivarium/index.html';
});

test('a VM in a utility process, its console over a port, its window', async () => {
  const { id } = await client.request('wizard.create', { plan: plan(folder, 'Port'), start: false });
  await assert.rejects(client.openStream(id, 'rfb'), appError('wrong-state'));
  assert.equal((await client.request('vm.start', { id })).state, 'running');
  const stream = await client.openStream(id, 'serial', 1);
  const received: string[] = [];
  stream.onmessage = ({ data }) => received.push(Buffer.from(data).toString());
  await until(() => received.length === 1);
  stream.send(new TextEncoder().encode('uname'));
  await until(() => received.length === 2);
  assert.deepEqual(received, ['serial1 of Port\n', 'echo uname']);

  await client.request('window.open', { id, view: 'console' });
  assert.equal(standin.windows[1].url, `app://vivarium/index.html#/vm/${id}/console`);
  assert.equal(standin.windows[1].options.title, 'Port');
  await client.request('window.open', { id });
  assert.equal(standin.windows.length, 2, 'one window a VM');
  await client.request('window.setFullScreen', { on: true });
  assert.equal(standin.windows[0].fullScreen, true);
  standin.picked = ['/media/x.iso'];
  assert.equal(await client.request('host.pickFile', { title: 'An ISO', extensions: ['iso'] }), '/media/x.iso');
  standin.picked = [];
  assert.equal(await client.request('host.pickFile', { title: 'An ISO' }), null);

  const crashed = new Promise<void>((resolve) => client.on('vm.changed', ({ state }) => state === 'crashed' && resolve()));
  process.kill((await client.request('vm.get', { id })).summary.pid as number, 'SIGKILL');
  await crashed;
  assert.equal((await client.request('vm.start', { id })).state, 'running');
});

test('menu items reach the page', async () => {
  const commands: string[] = [];
  client.on('app.command', ({ command }) => commands.push(command));
  const file = standin.menu?.find(({ label }) => label === '&File')?.submenu as { label?: string; click?: () => void }[];
  file.find(({ label }) => label?.startsWith('&New'))?.click?.();
  assert.deepEqual(commands, ['new-vm']);
});

test('quitting asks while a VM runs, then saves it and lets go of the library', async () => {
  standin.answer = 2;
  app.quit();
  await until(() => standin.questions.length === 1);
  assert.match(standin.questions[0].message, /"Port" is running/);
  const { vms } = await client.request('vm.list', {});
  assert.equal(vms[0].state, 'running', 'cancelled');
  standin.answer = 0;
  app.quit();
  assert.equal(await standin.ended.promise, 0);
  assert.ok(existsSync(join(folder, 'library', 'vms', vms[0].id, 'saved.state')));
  assert.throws(() => readFileSync(join(folder, 'library', 'lock')));
  assert.ok(standin.windows.every((window) => window instanceof BrowserWindow));
  assert.deepEqual(standin.errors, []);
});
