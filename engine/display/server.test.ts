import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCompression } from '../host/deflate.ts';
import { vncResponse } from './auth.ts';
import { Framebuffer } from './framebuffer.ts';
import { type AcceptOptions, RfbServer, type RfbServerOptions } from './server.ts';
import { be16, be32, MemoryChannel, RecordingSink, TestClient } from './testing.ts';
import { clipboardProvide } from './wire/clipboard.ts';
import { CLIPBOARD, ENCODING } from './wire/protocol.ts';

function setUp(options: Partial<RfbServerOptions> = {}) {
  const surface = new Framebuffer(128, 64);
  const sink = new RecordingSink();
  const log: string[] = [];
  const timers: (() => void)[] = [];
  const time = { now: 0 };
  const server = new RfbServer({
    framebuffer: surface,
    compression: nodeCompression,
    input: sink,
    name: 'Debian ☃',
    log: (text) => log.push(text),
    now: () => time.now,
    schedule: (_, callback) => {
      timers.push(callback);
      return () => {};
    },
    ...options,
  });
  const connect = (client: ConstructorParameters<typeof TestClient>[1] = {}, accept: AcceptOptions = {}, peer = 'test') => {
    const result = new TestClient(new MemoryChannel(peer), client);
    server.accept(result.channel, accept);
    return result;
  };
  const frame = () => server.publish(surface.collect());
  const change = () => {
    surface.pixels[0]++;
    surface.markAll();
  };
  return { surface, sink, log, timers, time, server, connect, frame, change };
}

const password = (text: string) => ({ respond: (challenge: Uint8Array) => vncResponse(text, challenge) });

test('versions 3.3, 3.7, 3.8 and those nobody published get in', () => {
  for (const version of ['003.003', '003.005', '003.007', '003.008', '003.889', '004.001']) {
    for (const secret of [undefined, 'secret']) {
      const { connect } = setUp({ password: secret });
      const client = connect({ version, ...password('secret') });
      assert.ok(client.ready, `${version} ${secret}`);
      assert.equal(client.name, 'Debian ☃');
      assert.deepEqual([client.width, client.height], [128, 64]);
    }
  }
});

test('what is no RFB client is closed without further words', () => {
  const { server, log } = setUp();
  const channel = new MemoryChannel();
  let said = 0;
  channel.onSend = (bytes) => {
    said += bytes.length;
  };
  server.accept(channel);
  channel.listener.data(new TextEncoder().encode('GET / HTTP/1.1\r\n\r\n'));
  assert.ok(channel.closed);
  assert.equal(said, 12);
  assert.match(log.at(-1)!, /not an RFB client/);
});

test('a wrong password is refused with a reason, and after three the peer must wait', () => {
  const { connect, time, server } = setUp({ password: 'secret' });
  for (let attempt = 0; attempt < 3; attempt++) {
    const client = connect(password('wrong'));
    assert.equal(client.failure, 'wrong password');
    assert.ok(client.channel.closed && !client.ready);
  }
  assert.match(connect(password('secret')).failure, /try again in 2 seconds/);
  assert.match(connect({ version: '003.003', ...password('secret') }).failure, /try again/);
  assert.ok(connect(password('secret'), {}, 'another peer').ready);
  time.now += 2001;
  assert.ok(connect(password('secret')).ready);
  server.setPassword('changed');
  assert.ok(!connect(password('secret')).ready);
  assert.ok(connect(password('changed')).ready);
});

test('connections opened side by side give no more guesses', () => {
  const { server } = setUp({ password: 'secret' });
  const waiting = Array.from({ length: 10 }, () => {
    const client = new TestClient(new MemoryChannel(), { respond: () => new Uint8Array(0) });
    let challenge = new Uint8Array(0);
    const receive = client.channel.onSend;
    client.channel.onSend = (bytes) => {
      if (bytes.length === 16) challenge = Uint8Array.from(bytes);
      else receive(bytes);
    };
    server.accept(client.channel);
    return { client, answer: (text: string) => client.send(vncResponse(text, challenge)) };
  });
  for (const { answer } of waiting.slice(0, 9)) answer('wrong');
  waiting[9].answer('secret');
  assert.ok(waiting[9].client.channel.closed, 'the right one comes too late');
});

test('challenges differ, the view-only password only looks, and nobody comes in while none is set', () => {
  const { connect, server, sink } = setUp({ requirePassword: true });
  assert.match(connect(password('')).failure, /no password has been set/);
  assert.ok(connect({}, { trusted: true }).ready, 'the app needs none');
  server.setPassword('secret', 'look');
  const seen = new Set<string>();
  for (let count = 0; count < 4; count++) {
    connect({
      respond: (challenge) => {
        seen.add(challenge.join());
        return vncResponse('secret', challenge);
      },
    });
  }
  assert.equal(seen.size, 4);
  const looking = connect(password('look'));
  looking.send(4, 1, 0, 0, be32(0x61));
  looking.send(5, 1, be16(1), be16(1));
  looking.send(6, 0, 0, 0, be32(1), 0x61);
  looking.send(251, 0, be16(800), be16(600), 1, 0, new Uint8Array(16));
  assert.deepEqual(sink.events, []);
  assert.equal(server.clients().filter((client) => client.viewOnly).length, 1);
});

test('keys, scancodes, the pointer and text reach the sink', () => {
  const { connect, sink } = setUp();
  const client = connect();
  client.send(4, 1, 0, 0, be32(0xff0d));
  client.send(255, 0, be16(1), be32(0xffea), be32(0xb8));
  client.send(255, 0, be16(0), be32(0xffea), be32(0xe038));
  client.send(255, 0, be16(1), be32(0x20), be32(0));
  client.send(5, 5, be16(127), be16(63));
  client.send(5, 0, be16(5000), be16(5000));
  client.send(6, 0, 0, 0, be32(5), new TextEncoder().encode('a\r\nb'), 0xe4);
  assert.deepEqual(sink.events, [
    ['key', undefined, 0xff0d, true],
    ['key', 0xb8, 0xffea, true],
    ['key', 0xb8, 0xffea, false],
    ['key', undefined, 0x20, true],
    ['pointer', 127, 63, 5, 128, 64],
    ['pointer', 127, 63, 0, 128, 64],
    ['clipboard', 'a\nbä'],
  ]);
});

test('bytes may come one by one', () => {
  const { connect, sink } = setUp();
  const client = connect();
  const bytes = [4, 1, 0, 0, ...be32(0x61), 6, 0, 0, 0, ...be32(3), 1, 2, 3, 5, 0, 0, 1, 0, 1];
  for (const byte of bytes) client.send(byte);
  assert.equal(sink.events.length, 3);
});

test('a bad message closes that client only, and says why in the log', () => {
  const bad: [number[], RegExp][] = [
    [[99], /unknown message type 99/],
    [[255, 7], /unknown QEMU message 7/],
    [[248, 0, 0, 0, 0, 0, 0, 0, 65], /65 bytes of payload/],
    [[0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0], /24 bits per pixel/],
    [[0, 0, 0, 0, 16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 12, 5, 0, 0, 0, 0], /shift 12/],
    [[0, 0, 0, 0, 32, 24, 0, 1, 0, 254, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0], /maximum 254/],
    [[0, 0, 0, 0, 16, 16, 0, 0, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0], /a colour map with 16/],
    [[6, 0, 0, 0, 255, 255, 255, 254, 0, 0], /without flags/],
  ];
  for (const [bytes, reason] of bad) {
    const { connect, log, frame } = setUp();
    const other = connect();
    const client = connect();
    client.send(...bytes);
    assert.ok(client.channel.closed, String(reason));
    assert.match(log.at(-1)!, reason);
    other.request(false);
    assert.ok(frame());
  }
});

test('a text too long for the clipboard is passed over without being kept', () => {
  const { connect, sink } = setUp();
  const client = connect();
  for (const length of [3_000_000, -3_000_000]) {
    client.send(6, 0, 0, 0, be32(length));
    const chunk = new Uint8Array(100_000).fill(4);
    for (let sent = 0; sent < 3_000_000; sent += chunk.length) client.send(chunk);
    client.send(4, 1, 0, 0, be32(0x61));
  }
  assert.deepEqual(sink.events, [
    ['key', undefined, 0x61, true],
    ['key', undefined, 0x61, true],
  ]);
});

test('random bytes never throw', () => {
  let state = 1;
  for (let round = 0; round < 300; round++) {
    const { connect, frame } = setUp({ requestResize: () => true });
    const client = connect();
    client.channel.onSend = () => {};
    const bytes = Array.from({ length: 200 }, () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return state >>> 24;
    });
    // Start with a type that exists, and with small numbers after it.
    client.send([0, 2, 3, 4, 5, 6, 150, 248, 251, 255][round % 10], ...bytes.map((byte, at) => (at < 8 ? byte & 3 : byte)));
    frame();
  }
});

test('an exclusive client pushes the others out, but not the app', () => {
  const { connect, server } = setUp();
  const app = connect({}, { trusted: true });
  const first = connect();
  const second = connect({ shared: false });
  assert.ok(!app.channel.closed && first.channel.closed && !second.channel.closed);
  assert.deepEqual(server.clients(), [
    { peer: 'test', shared: true, viewOnly: false, trusted: true },
    { peer: 'test', shared: false, viewOnly: false, trusted: false },
  ]);
  const forced = setUp({ share: 'force-shared' });
  const kept = forced.connect();
  assert.ok(forced.connect({ shared: false }).channel.closed && !kept.channel.closed);
  const ignoring = setUp({ share: 'ignore' });
  const one = ignoring.connect({ shared: false });
  assert.ok(ignoring.connect({ shared: false }).ready && !one.channel.closed);
});

test('clients are limited in number, and connections that never say anything end', () => {
  const { connect, server, timers } = setUp({ maxClients: 2 });
  connect();
  connect();
  assert.equal(connect().failure, 'too many clients');
  assert.ok(connect({}, { trusted: true }).ready);
  const silent = Array.from({ length: 40 }, () => {
    const channel = new MemoryChannel();
    server.accept(channel);
    return channel;
  });
  assert.ok(silent.at(-1)!.closed, 'too many at the door');
  assert.ok(!silent[0].closed);
  for (const timer of timers) timer();
  assert.ok(silent.every((channel) => channel.closed));
  assert.equal(server.clients().length, 3);
});

test('an update answers a request, and there is none without', () => {
  const { connect, frame, change } = setUp();
  const client = connect();
  change();
  assert.equal(frame(), false);
  client.request(true);
  assert.equal(frame(), true, 'the first picture is due even to an incremental request');
  change();
  assert.equal(frame(), false);
  client.request(true);
  client.request(true);
  assert.equal(frame(), true);
  change();
  assert.equal(frame(), false, 'two requests before an update count as one');
  client.request(false, 0, 0, 0, 0);
  client.request(false, 6000, 6000, 100, 100);
  assert.equal(frame(), false, 'a request for nothing gets nothing');
});

test('continuous updates need no requests, and stop at two that are not confirmed', () => {
  const { connect, frame, change, server } = setUp();
  const client = connect();
  client.setEncodings(ENCODING.raw, ENCODING.continuousUpdates, ENCODING.fence);
  assert.deepEqual(
    client.events.map(([name]) => name),
    ['fence', 'endOfContinuousUpdates'],
  );
  client.send(150, 1, be16(0), be16(0), be16(128), be16(64));
  for (let count = 0; count < 5; count++) {
    change();
    assert.equal(frame(), true);
  }
  client.answerFences = false;
  for (const expected of [true, true, false, false]) {
    change();
    assert.equal(frame(), expected);
  }
  assert.equal(server.waiting, false);
  // Only the latest fence was sent with number 7; confirming a number that was never sent does nothing.
  client.send(248, 0, 0, 0, be32(1), 4, be32(1000));
  assert.equal(frame(), false);
  client.send(248, 0, 0, 0, be32(1), 4, be32(7));
  assert.equal(frame(), true, 'what changed meanwhile comes then');
  client.send(150, 0, be16(0), be16(0), be16(128), be16(64));
  assert.equal(client.events.at(-1)![0], 'endOfContinuousUpdates');
  change();
  assert.equal(frame(), false);
});

test('fences of the client come back in order, with the flags that are known', () => {
  const { connect } = setUp();
  const client = connect();
  client.answerFences = false;
  client.send(248, 0, 0, 0, be32(0xffffffff), 3, 7, 8, 9);
  assert.deepEqual(client.events, [['fence', 7, Uint8Array.of(7, 8, 9)]]);
});

test('nothing is sent to a client whose channel is full, and one that never reads is closed', () => {
  const { connect, frame, server } = setUp();
  const client = connect();
  client.channel.bufferedAmount = 300_000;
  client.request(false);
  assert.equal(server.waiting, false);
  assert.equal(frame(), false);
  let demanded = 0;
  server.connectPump(
    () => demanded++,
    () => {},
  );
  client.channel.bufferedAmount = 0;
  client.channel.listener.drained();
  assert.equal(demanded, 1);
  assert.equal(frame(), true);
  client.answerFences = false;
  client.channel.bufferedAmount = 1;
  const fence = [248, 0, 0, 0, ...be32(0x80000000), 64, ...new Uint8Array(64)];
  for (let count = 0; count < 20_000 && !client.channel.closed; count++) client.send(...fence);
  assert.ok(client.channel.closed);
});

test('a new size is told in the way the client knows, and the picture follows', () => {
  for (const encoding of [ENCODING.desktopSize, ENCODING.extendedDesktopSize]) {
    const { connect, frame, surface } = setUp();
    const client = connect();
    client.setEncodings(encoding, ENCODING.raw);
    client.request(false);
    frame();
    if (encoding === ENCODING.extendedDesktopSize) {
      assert.deepEqual(client.events, [['extendedDesktopSize', 0, 0, 128, 64]], 'it is told that it may ask');
      client.request(true);
      frame();
    }
    client.events = [];
    surface.resize(64, 100);
    surface.pixels.fill(0x123456);
    surface.markAll();
    client.request(true);
    frame();
    assert.deepEqual(client.updates.at(-1)!.encodings, [encoding]);
    client.request(true);
    frame();
    assert.deepEqual([client.width, client.height], [64, 100]);
    assert.ok(client.screen.every((value) => value === 0x563412));
  }
});

test('continuous updates of the whole screen go on with the whole new screen', () => {
  const { connect, frame, surface } = setUp();
  const client = connect();
  client.setEncodings(ENCODING.desktopSize, ENCODING.continuousUpdates, ENCODING.fence);
  client.send(150, 1, be16(0), be16(0), be16(128), be16(64));
  surface.resize(300, 200);
  surface.pixels.fill(0xff);
  surface.markAll();
  while (frame());
  assert.equal(client.screen.length, 60_000);
  assert.ok(client.screen.every((value) => value === 0xff0000));
});

test('a client that knows no resizing gets what fits its screen', () => {
  const { connect, frame, surface } = setUp();
  const client = connect();
  for (const [width, height] of [
    [300, 200],
    [50, 300],
    [1, 1],
  ]) {
    surface.resize(width, height);
    surface.pixels.fill(width);
    surface.markAll();
    client.request(true);
    frame();
    client.request(false);
    frame();
  }
  assert.deepEqual([client.width, client.height], [128, 64]);
  assert.deepEqual([client.screen[0], client.screen[1], client.screen[60]], [0x010000, 50 << 16, 0x2c0100]);
});

test('a client may ask for a size, and is told what became of it', () => {
  const asked: number[][] = [];
  const { connect, frame, surface } = setUp({
    requestResize: (width, height) => {
      asked.push([width, height]);
      return width < 1000;
    },
  });
  const client = connect();
  client.setEncodings(ENCODING.extendedDesktopSize);
  client.request(true);
  frame();
  client.events = [];
  const ask = (width: number, height: number, screens = 1) => {
    client.send(251, 0, be16(width), be16(height), screens, 0, new Uint8Array(screens * 16));
    client.request(true);
    frame();
    return client.events.pop();
  };
  assert.deepEqual(ask(800, 600), ['extendedDesktopSize', 1, 4, 128, 64], 'forwarded');
  surface.resize(800, 600);
  client.request(true);
  frame();
  assert.deepEqual(client.events.pop(), ['extendedDesktopSize', 0, 0, 800, 600]);
  assert.deepEqual(ask(2000, 600), ['extendedDesktopSize', 1, 1, 800, 600], 'prohibited');
  assert.deepEqual(ask(0, 600), ['extendedDesktopSize', 1, 3, 800, 600], 'invalid');
  assert.deepEqual(ask(10, 10, 0), ['extendedDesktopSize', 1, 3, 800, 600]);
  assert.deepEqual(asked, [
    [800, 600],
    [2000, 600],
  ]);
});

test('pointer shapes, lights, names and the bell', () => {
  const { connect, frame, server } = setUp();
  const client = connect();
  client.setEncodings(ENCODING.cursor, ENCODING.qemuLedState, ENCODING.desktopName, ENCODING.qemuExtendedKey);
  const masked = connect();
  masked.setEncodings(ENCODING.cursor, ENCODING.vmwareCursor);
  const alpha = connect();
  alpha.setEncodings(ENCODING.cursor, ENCODING.cursorWithAlpha);
  const rgba = Uint8Array.of(255, 0, 0, 255, 0, 255, 0, 127, 1, 2, 3, 128, 9, 9, 9, 0);
  server.setCursor({ width: 2, height: 2, hotX: 1, hotY: 0, rgba });
  server.setLeds(5);
  server.setName('new');
  server.bell();
  for (const one of [client, masked, alpha]) one.request(true);
  frame();
  assert.deepEqual(client.events, [
    ['bell'],
    ['extendedKeys'],
    ['leds', 5],
    ['name', 'new'],
    ['cursor', 1, 0, 2, 2, [0xff0000, 0x00ff00, 0x010203, 0x090909], Uint8Array.of(0x80, 0x80)],
  ]);
  assert.deepEqual(masked.events[1], ['vmwareCursor', 1, 0, 2, 2, Uint8Array.of(1, 0), rgba]);
  const multiplied = Uint8Array.of(255, 0, 0, 255, 0, 127, 0, 127, 1, 1, 2, 128, 0, 0, 0, 0);
  assert.deepEqual(alpha.events[1], ['alphaCursor', 1, 0, 2, 2, 0, multiplied]);
  server.setCursor(undefined);
  client.request(true);
  frame();
  assert.deepEqual(client.events.at(-1), ['cursor', 0, 0, 0, 0, [], new Uint8Array(0)]);
  const late = connect();
  late.setEncodings(ENCODING.qemuLedState);
  late.request(true);
  frame();
  assert.deepEqual(late.events, [['leds', 5]]);
});

test('a client that wants a colour map gets one', () => {
  const { connect, frame, surface } = setUp();
  const client = connect();
  client.setPixelFormat({ ...clientFormat, trueColour: false });
  const colours = client.events[0][1] as Uint8Array;
  assert.equal(colours.length, 256 * 6);
  surface.pixels.fill(0x00ff00ff);
  surface.markAll();
  client.request(false);
  frame();
  const [red, green, blue] = [0, 2, 4].map((part) => colours[client.screen[0] * 6 + part]);
  assert.deepEqual([red, green, blue], [255, 0, 255]);
});

const clientFormat = {
  bitsPerPixel: 8 as const,
  depth: 8,
  bigEndian: false,
  trueColour: true,
  redMax: 7,
  greenMax: 7,
  blueMax: 3,
  redShift: 0,
  greenShift: 3,
  blueShift: 6,
};

test('plain clipboard: Latin-1 both ways, and to the other clients', () => {
  const { connect, server } = setUp();
  const client = connect();
  const other = connect();
  server.setClipboard('ä ☃\n');
  assert.deepEqual(client.events, [['cutText', 'ä ?\n']]);
  client.send(6, 0, 0, 0, be32(2), 0x68, 0x69);
  assert.deepEqual(other.events.at(-1), ['cutText', 'hi']);
  assert.equal(client.events.length, 1, 'not back to where it came from');
});

test('extended clipboard: announced, asked for, handed over, in Unicode', () => {
  const { connect, server, sink } = setUp();
  const client = connect();
  const extended = (flags: number, body: Uint8Array = new Uint8Array(0)) =>
    client.send(6, 0, 0, 0, be32(-(4 + body.length)), be32(flags), body);
  const last = () => client.events.at(-1) as [string, number, Uint8Array];
  extended(CLIPBOARD.request | CLIPBOARD.text);
  client.setEncodings(ENCODING.extendedClipboard);
  assert.deepEqual(last(), ['extendedClipboard', 0x1f000001, new Uint8Array(4)]);
  extended(0x1f000001, new Uint8Array(4));
  assert.equal(client.events.length, 1, 'what the client can do asks for nothing');
  extended(CLIPBOARD.peek);
  assert.deepEqual(last(), ['extendedClipboard', CLIPBOARD.notify, new Uint8Array(0)]);
  server.setClipboard('one\ntwo ☃');
  assert.deepEqual(last(), ['extendedClipboard', CLIPBOARD.notify | CLIPBOARD.text, new Uint8Array(0)]);
  extended(CLIPBOARD.request | CLIPBOARD.text);
  assert.equal(last()[1], CLIPBOARD.provide | CLIPBOARD.text);
  const plain = nodeCompression.inflate(last()[2], 1000)!;
  assert.equal(new TextDecoder().decode(plain.subarray(4)), 'one\r\ntwo ☃\0');
  assert.equal(new DataView(plain.buffer, plain.byteOffset).getUint32(0), plain.length - 4);
  extended(CLIPBOARD.notify | CLIPBOARD.text);
  assert.deepEqual(last(), ['extendedClipboard', CLIPBOARD.request | CLIPBOARD.text, new Uint8Array(0)]);
  client.send(clientBound(clipboardProvide('three\nfour ☃', nodeCompression)));
  assert.deepEqual(sink.events, [['clipboard', 'three\nfour ☃']]);
  // Broken, and a bomb of 64 MiB: nothing comes of either.
  extended(CLIPBOARD.provide | CLIPBOARD.text, Uint8Array.of(1, 2, 3));
  extended(CLIPBOARD.provide | CLIPBOARD.text, nodeCompression.deflate(new Uint8Array(1 << 26), 9));
  assert.equal(sink.events.length, 1);
  assert.ok(!client.channel.closed);
});

/** The same message as one of a client. */
function clientBound(message: Uint8Array): Uint8Array {
  return Uint8Array.of(6, ...message.subarray(1));
}
