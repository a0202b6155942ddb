import assert from 'node:assert/strict';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { WebSocket } from 'ws';
import { HttpShell } from '../../main/shell/http-shell.ts';
import { appError, openServices, plan, temporaryFolder } from './fixtures.ts';

async function open(context: TestContext) {
  const folder = temporaryFolder(context);
  const renderer = join(folder, 'pages');
  mkdirSync(join(renderer, 'assets'), { recursive: true });
  writeFileSync(join(renderer, 'index.html'), '<title>Vivarium</title>');
  writeFileSync(join(renderer, 'assets', 'a.js'), '1');
  writeFileSync(join(folder, 'secret'), 'secret');
  const { services, ask } = await openServices(context, folder);
  const shell = new HttpShell({ services, renderer });
  context.after(() => shell.close());
  const control = join(folder, 'control.sock');
  await shell.listenControl(control);
  await shell.listen(0);
  return { folder, services, ask, shell, control, address: new URL(shell.address()) };
}

/** A request as it is: `fetch` would follow redirects and choose the Host itself. */
function get(address: URL, path: string, headers: Record<string, string> = {}, options: object = {}) {
  return new Promise<{ status: number; headers: IncomingMessage['headers']; body: string }>((resolve, reject) => {
    const sent = httpRequest(
      { host: address.hostname, port: address.port, path, headers: { Host: address.host, ...headers }, ...options },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text) => {
          body += text;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
      },
    );
    sent.on('error', reject).end();
  });
}

async function enter(address: URL): Promise<string> {
  const { headers } = await get(address, address.pathname + address.search);
  return (headers['set-cookie']?.[0] ?? '').split(';')[0];
}

/** The messages of a WebSocket, one after the other; rejects with the status of a refusal. */
async function connect(
  url: string,
  options: object,
): Promise<{ next(): Promise<string>; send(text: string): void; closed: Promise<number>; close(): void }> {
  const socket = new WebSocket(url, options);
  const messages: string[] = [];
  const takers: ((text: string) => void)[] = [];
  socket.on('message', (data) => {
    const text = data.toString();
    const taker = takers.shift();
    if (taker === undefined) messages.push(text);
    else taker(text);
  });
  const closed = new Promise<number>((resolve) => socket.on('close', resolve));
  await new Promise<void>((resolve, reject) => {
    socket.on('open', resolve);
    socket.on('error', reject);
  });
  return {
    closed,
    next: () => {
      const text = messages.shift();
      return text === undefined ? new Promise((resolve) => takers.push(resolve)) : Promise.resolve(text);
    },
    send: (text) => socket.send(text),
    close: () => socket.close(),
  };
}

test('the token works once, gives a cookie, and without it there is nothing', async (context) => {
  const { address, shell } = await open(context);
  assert.equal((await get(address, '/')).status, 403);
  const entered = await get(address, address.pathname + address.search);
  assert.equal(entered.status, 303);
  assert.equal(entered.headers.location, '/');
  const [cookie, ...attributes] = (entered.headers['set-cookie']?.[0] ?? '').split('; ');
  assert.deepEqual(attributes, ['HttpOnly', 'SameSite=Strict', 'Path=/']);
  assert.equal((await get(address, address.pathname + address.search)).status, 403, 'a second time');
  assert.equal((await get(address, '/?token=guess', { Cookie: cookie })).status, 403);
  const page = await get(address, '/', { Cookie: cookie });
  assert.equal(page.body, '<title>Vivarium</title>');
  const policy = String(page.headers['content-security-policy']);
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe-eval/);
  assert.match(policy, /script-src 'self';/);
  assert.equal(
    (await get(address, '/vm/1/console', { Cookie: cookie })).body,
    '<title>Vivarium</title>',
    'addresses of the page',
  );
  assert.equal(
    (await get(address, '/assets/a.js', { Cookie: cookie })).headers['content-type'],
    'text/javascript; charset=utf-8',
  );
  for (const path of ['/../secret', '/%2e%2e/secret', '/..%2fsecret', '/assets/%00', '/nothing.js'])
    assert.notEqual((await get(address, path, { Cookie: cookie })).body, 'secret', path);
  assert.equal(
    (await get(address, '/', { Cookie: cookie, Host: 'evil.example' })).status,
    403,
    'another name that resolves here',
  );
  assert.equal((await get(address, '/', { Cookie: cookie }, { method: 'POST' })).status, 405);
  assert.equal((await get(new URL(shell.address()), '/', { Cookie: 'vivarium_session=x' })).status, 403);
});

test('requests, answers and events over /api; only from a page of ours', async (context) => {
  const { address, folder } = await open(context);
  const cookie = await enter(address);
  const url = `ws://${address.host}/api`;
  await assert.rejects(connect(url, { origin: `http://${address.host}` }), /403/, 'no cookie');
  await assert.rejects(connect(url, { origin: 'http://evil.example', headers: { Cookie: cookie } }), /403/);
  await assert.rejects(connect(url, { headers: { Cookie: cookie } }), /403/, 'no origin');
  const api = await connect(url, { origin: `http://${address.host}`, headers: { Cookie: cookie } });
  api.send(JSON.stringify({ id: 7, request: 'vm.list', args: {} }));
  assert.deepEqual(JSON.parse(await api.next()), { id: 7, result: { vms: [], broken: [] } });
  api.send(JSON.stringify({ id: 8, request: 'wizard.create', args: { plan: plan(folder, 'Web'), start: false } }));
  const event = JSON.parse(await api.next());
  assert.equal(event.event, 'vm.changed');
  assert.equal(event.payload.name, 'Web');
  assert.equal(JSON.parse(await api.next()).result.name, 'Web');
  api.send('{"id": 9, "request": "vm.rename", "args": {"id": "x"}}');
  const { error } = JSON.parse(await api.next());
  assert.deepEqual([error.code, error.field], ['invalid', 'id']);
  api.send('nonsense');
  assert.equal(await api.closed, 1007);
});

test('streams go to the VM process itself, and outlive the server', async (context) => {
  const { address, folder, ask, shell, control } = await open(context);
  const cookie = await enter(address);
  const options = { origin: `http://${address.host}`, headers: { Cookie: cookie } };
  const { id } = await ask('wizard.create', { plan: plan(folder, 'Stream'), start: false });
  const base = `ws://${address.host}/vm/${id}`;
  await assert.rejects(connect(`${base}/rfb/0`, options), /409/, 'it does not run');
  await ask('vm.start', { id });
  await assert.rejects(connect(`${base}/rfb/0`, { ...options, origin: 'http://evil.example' }), /403/);
  await assert.rejects(connect(`${base}/other/0`, options), /404/);
  const rfb = await connect(`${base}/rfb/0`, options);
  assert.equal(await rfb.next(), 'rfb0 of Stream\n');
  const serial = await connect(`${base}/serial/1`, options);
  assert.equal(await serial.next(), 'serial1 of Stream\n');
  serial.send('uname');
  assert.equal(await serial.next(), 'echo uname');
  const local = await connect(`ws+unix://${control}:/vm/${id}/serial/0`, {});
  assert.equal(await local.next(), 'serial0 of Stream\n');
  shell.close();
  rfb.send('still there');
  assert.equal(await rfb.next(), 'echo still there');
  const ended = rfb.closed;
  await ask('vm.forceOff', { id });
  assert.equal(await ended, 1006);
});

test('the control socket: for this user alone, gives requests and new addresses, no pages', async (context) => {
  const { control, address } = await open(context);
  assert.equal(statSync(control).mode & 0o777, 0o600);
  const api = await connect(`ws+unix://${control}:/api`, {});
  api.send(JSON.stringify({ id: 1, request: 'app.info', args: {} }));
  assert.equal(JSON.parse(await api.next()).result.name, 'Vivarium');
  assert.equal((await get(address, '/', {}, { socketPath: control })).status, 404);
  const fresh = new URL((await get(address, '/address', {}, { socketPath: control, method: 'POST' })).body);
  assert.match(await enter(fresh), /^vivarium_session=/);
});

test('a port in use is told by its number', async (context) => {
  const { shell } = await open(context);
  const taken = createServer().listen(0, '127.0.0.1');
  context.after(() => taken.close());
  await new Promise((resolve) => taken.once('listening', resolve));
  const { port } = taken.address() as { port: number };
  await assert.rejects(
    shell.listen(port),
    (error: Error) => appError('port-in-use')(error) && error.message.includes(String(port)),
  );
});
