import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import { Framebuffer } from '../display/framebuffer.ts';
import { RfbServer } from '../display/server.ts';
import { MemoryChannel, RecordingSink, TestClient } from '../display/testing.ts';
import { nodeCompression } from './deflate.ts';
import { MessagePortChannel } from './message-port-channel.ts';
import { listenRfb, parseVncOption } from './rfb-listener.ts';

const makeServer = () => {
  const framebuffer = new Framebuffer(320, 200);
  framebuffer.pixels.fill(0x030201);
  framebuffer.markAll();
  const sink = new RecordingSink();
  return { framebuffer, sink, server: new RfbServer({ framebuffer, compression: nodeCompression, input: sink, name: 'x' }) };
};

/** A test client whose bytes go over a transport of the caller's. */
function clientOver(send: (bytes: Uint8Array) => void): TestClient {
  const channel = new MemoryChannel();
  channel.listen({ data: send, closed: () => {}, drained: () => {} });
  return new TestClient(channel);
}

async function until(condition: () => boolean): Promise<void> {
  for (let wait = 0; wait < 500 && !condition(); wait++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(condition());
}

test('-vnc is read as QEMU writes it', () => {
  const tcp = (host: string, port: number, lastPort = port) => ({ kind: 'tcp', host, port, lastPort });
  const plain = { password: false, share: 'allow-exclusive' };
  assert.deepEqual(parseVncOption(':1'), { address: tcp('', 5901), ...plain });
  assert.deepEqual(parseVncOption('127.0.0.1:0,to=9'), { address: tcp('127.0.0.1', 5900, 5909), ...plain });
  assert.deepEqual(parseVncOption('[::1]:2,password=on'), { address: tcp('::1', 5902), ...plain, password: true });
  assert.deepEqual(parseVncOption('unix:/a,,b/c,share=ignore,password'), {
    address: { kind: 'unix', path: '/a,b/c' },
    password: true,
    share: 'ignore',
  });
  assert.deepEqual(parseVncOption('none'), { address: undefined, ...plain });
  for (const bad of ['', '1', ':x', ':70000', 'unix:', ':1,tls-creds=x', ':1,password=maybe', ':5,to=2']) {
    assert.throws(() => parseVncOption(bad), /^Error: -vnc /, bad);
  }
  assert.throws(() => parseVncOption(':1,sasl=on'), /"sasl=on" is not supported/);
});

async function roundTrip(socket: Socket, parts: ReturnType<typeof makeServer>): Promise<void> {
  const client = clientOver((bytes) => socket.write(bytes));
  socket.on('data', (bytes) => client.receive(bytes));
  await until(() => client.ready);
  client.request(false);
  client.send(4, 1, 0, 0, 0, 0, 0, 0x61);
  await until(() => parts.sink.events.length === 1);
  assert.ok(parts.server.publish(parts.framebuffer.collect()));
  await until(() => client.updates.length === 1);
  assert.ok(client.screen.every((value) => value === 0x010203));
  parts.server.close();
  await once(socket, 'close');
  assert.equal(parts.server.clients().length, 0);
}

test('a client over TCP', async () => {
  const parts = makeServer();
  const listener = await listenRfb(parts.server, { kind: 'tcp', host: '127.0.0.1', port: 0, lastPort: 0 });
  assert.equal(listener.address, `127.0.0.1:${listener.port}`);
  await roundTrip(connect(listener.port!, '127.0.0.1'), parts);
  await listener.close();
});

test('a port in use is an error that says so, or the next one is taken', async () => {
  const { server } = makeServer();
  const first = await listenRfb(server, { kind: 'tcp', host: '127.0.0.1', port: 0, lastPort: 0 });
  const port = first.port!;
  const again = { kind: 'tcp', host: '127.0.0.1', port, lastPort: port } as const;
  await assert.rejects(listenRfb(server, again), { message: `cannot listen for VNC at 127.0.0.1:${port}: it is in use` });
  const next = await listenRfb(server, { ...again, lastPort: port + 5 });
  assert.ok(next.port! > port);
  await assert.rejects(listenRfb(server, { ...again, host: '203.0.113.1' }), /cannot listen for VNC at 203\.0\.113\.1/);
  await first.close();
  await next.close();
});

test('a Unix socket; a stale one is replaced, a live one or a file is not', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vnc-'));
  try {
    const path = join(folder, 'vnc.sock');
    const parts = makeServer();
    const listener = await listenRfb(parts.server, { kind: 'unix', path });
    await assert.rejects(listenRfb(parts.server, { kind: 'unix', path }), /it is in use/);
    await roundTrip(connect(path), parts);
    await listener.close();
    // A socket file without a listener, as a killed process leaves it.
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    assert.ok(existsSync(path));
    await (await listenRfb(parts.server, { kind: 'unix', path })).close();
    await writeFile(join(folder, 'file'), 'kept');
    await assert.rejects(listenRfb(parts.server, { kind: 'unix', path: join(folder, 'file') }), /cannot listen/);
    assert.ok(existsSync(join(folder, 'file')));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a socket that is reset ends its client and nothing else', async () => {
  const parts = makeServer();
  const listener = await listenRfb(parts.server, { kind: 'tcp', host: '127.0.0.1', port: 0, lastPort: 0 });
  const socket = connect(listener.port!, '127.0.0.1');
  const client = clientOver((bytes) => socket.write(bytes));
  socket.on('data', (bytes) => client.receive(bytes));
  await until(() => parts.server.clients().length === 1);
  socket.resetAndDestroy();
  await until(() => parts.server.clients().length === 0);
  await listener.close();
});

test('a client over a message port, of either kind', async () => {
  for (const wrapped of [false, true]) {
    const parts = makeServer();
    const { port1, port2 } = new MessageChannel();
    // Electron's ports give events; nothing else differs.
    const engineEnd = wrapped
      ? {
          postMessage: (message: unknown) => port1.postMessage(message),
          close: () => port1.close(),
          on: (event: string, listener: (message?: unknown) => void) =>
            port1.on(event as 'message', (data: unknown) => listener(event === 'message' ? { data, ports: [] } : undefined)),
        }
      : port1;
    parts.server.accept(new MessagePortChannel(engineEnd), { trusted: true });
    const client = clientOver((bytes) => port2.postMessage(bytes));
    port2.on('message', (message) => {
      assert.ok(message instanceof ArrayBuffer);
      client.receive(new Uint8Array(message));
    });
    await until(() => client.ready);
    client.request(false);
    await until(() => parts.server.waiting);
    parts.server.publish(parts.framebuffer.collect());
    await until(() => client.updates.length === 1);
    assert.ok(client.screen.every((value) => value === 0x010203));
    port2.postMessage('not bytes');
    await until(() => parts.server.clients().length === 0);
  }
});

test('a port that closes ends its client', async () => {
  const parts = makeServer();
  const { port1, port2 } = new MessageChannel();
  parts.server.accept(new MessagePortChannel(port1));
  const client = clientOver((bytes) => port2.postMessage(bytes));
  port2.on('message', (message) => client.receive(new Uint8Array(message)));
  await until(() => parts.server.clients().length === 1);
  port2.close();
  await until(() => parts.server.clients().length === 0);
});
