import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { after, describe, it } from 'node:test';
import { MessageChannel } from 'node:worker_threads';
import type { CharClient } from '../monitor/machine-control.ts';
import { QmpServer } from '../monitor/qmp.ts';
import { registerStandardCommands } from '../monitor/qmp-commands.ts';
import { FakeChardev, FakeMachine } from '../monitor/testing.ts';
import { qmpVersion } from '../monitor/version.ts';
import { MuxChardev } from './chardev-mux.ts';
import { ChardevSet } from './chardev-open.ts';
import { SocketChardev } from './chardev-socket.ts';
import { StdioChardev } from './chardev-stdio.ts';
import type { ChardevOptions } from './chardev-types.ts';
import { writeFileParts } from './qmp-files.ts';
import { listenQmp } from './qmp-listener.ts';
import { attachQmpPort, messagePort } from './qmp-port.ts';

const folder = mkdtempSync(join(tmpdir(), 'chardev-'));
after(() => rmSync(folder, { recursive: true }));

class Client implements CharClient {
  input = '';
  drains = 0;
  opens: boolean[] = [];
  focus: boolean[] = [];
  breaks = 0;
  limit = Number.POSITIVE_INFINITY;
  room(): number {
    return Math.min(this.limit, 1 << 16);
  }
  receive(data: Uint8Array): void {
    assert.ok(data.length <= this.room());
    this.limit -= data.length;
    this.input += Buffer.from(data).toString('latin1');
  }
  drained(): void {
    this.drains++;
  }
  setOpen(open: boolean): void {
    this.opens.push(open);
  }
  focused(on: boolean): void {
    this.focus.push(on);
  }
  receiveBreak(): void {
    this.breaks++;
  }
}

const until = async (what: string, condition: () => boolean): Promise<void> => {
  for (let tries = 0; tries < 400; tries++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail(`waited in vain: ${what}`);
};

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function open(options: ChardevOptions, quit = () => {}): Promise<ChardevSet> {
  const set = new ChardevSet();
  await set.start([options], { quit });
  return set;
}

const unix = (name: string, extra: object = {}): ChardevOptions => ({
  id: 's',
  backend: 'socket',
  address: { type: 'unix', path: join(folder, name) },
  server: true,
  wait: false,
  reconnect: 0,
  nodelay: false,
  ...extra,
});

async function dial(path: string): Promise<{ socket: Socket; text: () => string }> {
  let text = '';
  const socket = connect(join(folder, path));
  socket.on('data', (data) => {
    text += data.toString('latin1');
  });
  socket.on('error', () => {});
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return { socket, text: () => text };
}

describe('file', () => {
  it('takes output, appends, gives input and keeps a log', async () => {
    const path = join(folder, 'out.txt');
    const inputPath = join(folder, 'in.txt');
    writeFileSync(path, 'old ');
    writeFileSync(inputPath, 'typed');
    const set = await open({ id: 'f', backend: 'file', path, append: true, inputPath, logfile: join(folder, 'log.txt') });
    const client = new Client();
    const port = set.devices.get('f')?.attach(client);
    assert.equal(port?.write(bytes('new')), 3);
    port?.resume();
    await until('input', () => client.input === 'typed');
    await set.close();
    assert.equal(readFileSync(path, 'utf8'), 'old new');
    assert.equal(readFileSync(join(folder, 'log.txt'), 'utf8'), 'new');
  });

  it('keeps back more than its queue holds, and says when there is room again', async () => {
    const path = join(folder, 'big.txt');
    const set = await open({ id: 'f', backend: 'file', path, append: false });
    const client = new Client();
    const port = set.devices.get('f')?.attach(client);
    const data = new Uint8Array(200_000).fill(65);
    let sent = port?.write(data) ?? 0;
    assert.equal(sent, 65_536);
    assert.equal(port?.write(data.subarray(sent)), 0);
    while (sent < data.length) {
      const before = client.drains;
      await until('room', () => client.drains > before);
      sent += port?.write(data.subarray(sent)) ?? 0;
    }
    await set.close();
    assert.equal(statSync(path).size, 200_000);
  });

  it('says why it cannot be opened', async () => {
    await assert.rejects(
      open({ id: 'f', backend: 'file', path: join(folder, 'no/such'), append: false }),
      /chardev f: cannot write .*no\/such/,
    );
  });
});

describe('sockets', () => {
  it('serve one client after the other', async () => {
    const set = await open(unix('a.sock'));
    const device = set.devices.get('s');
    const client = new Client();
    const port = device?.attach(client);
    assert.equal(port?.open, false);
    assert.equal(port?.write(bytes('lost')), 4, 'output goes nowhere while nobody is there');
    const first = await dial('a.sock');
    await until('open', () => port?.open === true);
    port?.write(bytes('hello'));
    first.socket.write('in');
    await until('both ways', () => first.text() === 'hello' && client.input === 'in');
    const second = await dial('a.sock');
    second.socket.write('second');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(client.input, 'in', 'the second waits');
    first.socket.end();
    await until('second', () => client.input === 'insecond');
    assert.deepEqual(client.opens, [true, false, true]);
    await assert.rejects(open(unix('a.sock')), /in use by another program/);
    second.socket.destroy();
    await set.close();
    assert.throws(() => statSync(join(folder, 'a.sock')));
  });

  it('deliver what came before the end, at the speed of the front end', async () => {
    const set = await open(unix('b.sock'));
    const client = new Client();
    client.limit = 3;
    const port = set.devices.get('s')?.attach(client);
    const { socket } = await dial('b.sock');
    socket.end('0123456789');
    await until('some', () => client.input === '012');
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(client.opens, [true]);
    client.limit = 100;
    port?.resume();
    assert.equal(client.input, '0123456789');
    assert.deepEqual(client.opens, [true, false]);
    await set.close();
  });

  it('replace a socket that a dead process left', async () => {
    const path = join(folder, 'c.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    assert.ok(statSync(path).isSocket());
    const set = await open(unix('c.sock'));
    const { socket } = await dial('c.sock');
    socket.destroy();
    await set.close();
  });

  it('refuse a name that another kind of file has', async () => {
    writeFileSync(join(folder, 'd.sock'), 'precious');
    await assert.rejects(open(unix('d.sock')), /exists and is no socket/);
    assert.equal(readFileSync(join(folder, 'd.sock'), 'utf8'), 'precious');
  });

  it('wait for a client where told to, and speak TCP', async () => {
    const device = new SocketChardev({
      ...(unix('') as Extract<ChardevOptions, { backend: 'socket' }>),
      address: { type: 'tcp', host: '127.0.0.1', port: 0 },
      wait: true,
    });
    let ready = false;
    const starting = device.start().then(() => {
      ready = true;
    });
    await until('port', () => device.port !== 0);
    assert.equal(ready, false);
    assert.match(device.filename, /^disconnected:tcp:127\.0\.0\.1:\d+,server=on$/);
    const socket = connect(device.port, '127.0.0.1');
    await starting;
    await until('open', () => device.open);
    socket.destroy();
    await device.close();
  });

  it('connect as a client, again and again', async () => {
    const path = join(folder, 'e.sock');
    await assert.rejects(open(unix('e.sock', { server: false })), /cannot connect to unix:.*no such file/);
    const peers: Socket[] = [];
    const set = await open(unix('e.sock', { server: false, reconnect: 0.02 }));
    const client = new Client();
    set.devices.get('s')?.attach(client);
    const server = createServer((socket) => peers.push(socket)).listen(path);
    await until('connection', () => peers.length === 1 && client.opens.length === 1);
    peers[0].destroy();
    await until('reconnection', () => peers.length === 2 && client.opens.length === 3);
    await set.close();
    peers[1].destroy();
    server.close();
  });
});

describe('pipe and ring buffer', () => {
  it('passes bytes through a pair of FIFOs', async () => {
    const path = join(folder, 'fifo');
    execFileSync('mkfifo', [`${path}.in`, `${path}.out`]);
    const set = await open({ id: 'p', backend: 'pipe', path });
    const client = new Client();
    const port = set.devices.get('p')?.attach(client);
    writeFileSync(`${path}.in`, 'abc');
    await until('input', () => client.input === 'abc');
    port?.write(bytes('xyz'));
    await set.backend('p')?.flushed();
    assert.equal(execFileSync('head', ['-c', '3', `${path}.out`]).toString(), 'xyz');
    await set.close();
    await assert.rejects(open({ id: 'p', backend: 'pipe', path: join(folder, 'none') }), /cannot open FIFO/);
  });

  it('keeps the newest bytes', async () => {
    const set = await open({ id: 'r', backend: 'ringbuf', size: 8 });
    const client = new Client();
    const port = set.devices.get('r')?.attach(client);
    port?.write(bytes('0123456789'));
    const device = set.backend('r') as unknown as {
      read(length: number): Uint8Array;
      feed(data: Uint8Array): void;
      flushed(): Promise<void>;
    };
    await device.flushed();
    assert.equal(Buffer.from(device.read(3)).toString(), '234');
    assert.equal(Buffer.from(device.read(100)).toString(), '56789');
    device.feed(bytes('in'));
    assert.equal(client.input, 'in');
    await set.close();
  });
});

describe('multiplexer', () => {
  it('gives the input to one front end, by Ctrl-A c to the next', () => {
    const lower = new FakeChardev();
    let quit = 0;
    const mux = new MuxChardev(lower, { quit: () => quit++ });
    const [serial, monitor] = [new Client(), new Client()];
    const serialPort = mux.attach(serial);
    const monitorPort = mux.attach(monitor);
    lower.type('a\x01\x01b');
    assert.equal(serial.input, 'a\x01b');
    lower.type('c\x01cmon\x01');
    lower.type('cd');
    assert.equal(monitor.input, 'mon');
    assert.equal(serial.input, 'a\x01bcd');
    assert.deepEqual(
      [serial.focus, monitor.focus],
      [
        [false, true],
        [true, false],
      ],
    );
    serialPort.write(bytes('S'));
    monitorPort.write(bytes('M'));
    assert.equal(lower.output, 'SM');
    lower.type('\x01b');
    assert.equal(serial.breaks, 1);
    lower.output = '';
    lower.type('\x01h');
    assert.match(lower.output, /C-a x {4}end the machine/);
    lower.type('\x01x');
    assert.equal(quit, 1);
    lower.output = '';
    lower.type('\x01t');
    serialPort.write(bytes('one\ntwo\n'));
    assert.equal(lower.output, '[00:00:00.000] one\n[00:00:00.000] two\n');
  });

  it('holds input for a front end that is full, and still hears its keys', () => {
    const lower = new FakeChardev();
    let quit = 0;
    const mux = new MuxChardev(lower, { quit: () => quit++ });
    const serial = new Client();
    serial.limit = 1;
    const port = mux.attach(serial);
    lower.type('abc\x01x');
    assert.deepEqual([serial.input, quit], ['a', 1]);
    serial.limit = 10;
    port.resume();
    assert.equal(serial.input, 'abc');
  });
});

describe('stdio', () => {
  const make = (signal: boolean) => {
    const input = new PassThrough() as PassThrough & { isTTY: boolean; setRawMode(on: boolean): void };
    const output = new PassThrough() as PassThrough & { isTTY: boolean };
    const raw: boolean[] = [];
    const raised: string[] = [];
    input.isTTY = true;
    output.isTTY = true;
    input.setRawMode = (on) => raw.push(on);
    const streams = { input, output, raise: (name: string) => raised.push(name) };
    return { device: new StdioChardev({ id: 'io', backend: 'stdio', signal }, streams as never), input, output, raw, raised };
  };

  it('makes the terminal raw and puts it back', async () => {
    const { device, input, output, raw, raised } = make(true);
    await device.start();
    await assert.rejects(make(true).device.start(), /cannot use stdio by multiple/);
    const client = new Client();
    const port = device.attach(client);
    input.write('ls\x03x\x1a');
    await until('input', () => client.input === 'lsx');
    assert.deepEqual(raised, ['SIGINT', 'SIGTSTP']);
    port.write(bytes('out'));
    await device.flushed();
    assert.equal(output.read()?.toString(), 'out');
    await device.close();
    assert.deepEqual(raw, [true, false, false]);
  });

  it('gives Ctrl-C to the guest where signals are off', async () => {
    const { device, input, raised } = make(false);
    await device.start();
    const client = new Client();
    device.attach(client);
    input.write('\x03');
    await until('input', () => client.input === '\x03');
    assert.deepEqual(raised, []);
    await device.close();
  });
});

describe('QMP on sockets and files', () => {
  it('serves several clients of a socket that others cannot open', async () => {
    const machine = new FakeMachine();
    const server = new QmpServer(qmpVersion);
    registerStandardCommands(server, { machine, chardevs: new Map(), humanMonitor: async () => '', writeFile: writeFileParts });
    server.follow(machine);
    const path = join(folder, 'qmp.sock');
    const listener = await listenQmp(server, { type: 'unix', path });
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const clients = [await dial('qmp.sock'), await dial('qmp.sock')];
    for (const { socket } of clients) socket.write('{"execute":"qmp_capabilities"}{"execute":"query-uuid"}');
    for (const { text } of clients) await until('answer', () => text().includes('UUID'));
    await machine.stop();
    for (const { text } of clients) await until('event', () => text().includes('"STOP"'));
    await assert.rejects(listenQmp(server, { type: 'unix', path }), /in use/);
    const file = join(folder, 'screen.png');
    clients[0].socket.write(`{"execute":"screendump","id":7,"arguments":{"filename":${JSON.stringify(file)},"format":"png"}}`);
    await until('file', () => clients[0].text().includes('"id":7'));
    assert.equal(readFileSync(file, 'utf8'), 'image png');
    for (const { socket } of clients) socket.destroy();
    await listener.close();
  });

  it('speaks objects over a message port', async () => {
    const machine = new FakeMachine();
    const server = new QmpServer(qmpVersion);
    registerStandardCommands(server, { machine, chardevs: new Map(), humanMonitor: async () => '', writeFile: writeFileParts });
    server.follow(machine);
    const { port1, port2 } = new MessageChannel();
    const messages: Record<string, unknown>[] = [];
    port2.on('message', (message) => messages.push(message));
    attachQmpPort(server, messagePort(port1));
    port2.postMessage({ execute: 'qmp_capabilities', id: 1 });
    port2.postMessage('{"execute":"stop"}');
    port2.postMessage(undefined);
    await until('answers', () => messages.length === 5);
    assert.ok('QMP' in messages[0]);
    assert.deepEqual(messages[1], { return: {}, id: 1 });
    assert.deepEqual([messages[2].event, messages[3].return], ['STOP', {}]);
    assert.ok('error' in messages[4]);
    port2.close();
    await until('close', () => {
      server.emit('X');
      return messages.length === 5;
    });
  });

  it('leaves what was there when a file cannot be written whole', async () => {
    const path = join(folder, 'kept');
    writeFileSync(path, 'old');
    const broken = (function* () {
      yield bytes('half');
      throw new Error('lost');
    })();
    await assert.rejects(writeFileParts(path, broken), /Could not write .*lost/);
    assert.equal(readFileSync(path, 'utf8'), 'old');
    await assert.rejects(writeFileParts(join(folder, 'no/dir'), []), /ENOENT/);
  });
});
