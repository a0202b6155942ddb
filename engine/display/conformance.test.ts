/** Draws at random, scrolls and resizes, and compares what a client's own decoders make of it with the surface. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeCompression } from '../host/deflate.ts';
import { Framebuffer } from './framebuffer.ts';
import { RfbServer } from './server.ts';
import { MemoryChannel, RecordingSink, seededRandom, TestClient } from './testing.ts';
import { NATIVE_FORMAT, type PixelFormat } from './wire/pixel-format.ts';
import { ENCODING } from './wire/protocol.ts';

const rgb = (bitsPerPixel: 8 | 16 | 32, depth: number, bigEndian: boolean, max: number[], shift: number[]): PixelFormat => ({
  bitsPerPixel,
  depth,
  bigEndian,
  trueColour: true,
  redMax: max[0],
  greenMax: max[1],
  blueMax: max[2],
  redShift: shift[0],
  greenShift: shift[1],
  blueShift: shift[2],
});

const FORMATS: Record<string, PixelFormat> = {
  native: NATIVE_FORMAT,
  noVNC: rgb(32, 24, false, [255, 255, 255], [0, 8, 16]),
  'big endian': rgb(32, 24, true, [255, 255, 255], [16, 8, 0]),
  'high bytes': rgb(32, 24, false, [255, 255, 255], [24, 16, 8]),
  'high bytes, big endian': rgb(32, 24, true, [255, 255, 255], [8, 16, 24]),
  'all 32 bits': rgb(32, 32, false, [1023, 2047, 2047], [22, 11, 0]),
  '565': rgb(16, 16, false, [31, 63, 31], [11, 5, 0]),
  '565 big endian': rgb(16, 16, true, [31, 63, 31], [11, 5, 0]),
  '555': rgb(16, 15, false, [31, 31, 31], [10, 5, 0]),
  '332': rgb(8, 8, false, [7, 7, 3], [0, 3, 6]),
};

/** What a client of `format` must show for a surface pixel. */
function expected(pixel: number, format: PixelFormat): number {
  const part = (shift: number, max: number, to: number): number => Math.round((((pixel >>> shift) & 255) * max) / 255) * 2 ** to;
  return (
    part(0, format.redMax, format.redShift) +
    part(8, format.greenMax, format.greenShift) +
    part(16, format.blueMax, format.blueShift)
  );
}

function assertSame(client: TestClient, surface: Framebuffer, where: string): void {
  assert.equal(client.width, surface.width, where);
  assert.equal(client.height, surface.height, where);
  for (let index = 0; index < client.screen.length; index++) {
    const want = expected(surface.pixels[index], client.format);
    if (client.screen[index] !== want) {
      const at = `${index % surface.width},${Math.floor(index / surface.width)}`;
      assert.fail(`${where}: pixel ${at} is ${client.screen[index].toString(16)}, not ${want.toString(16)}`);
    }
  }
}

/** Changes the surface in one of several ways a screen changes. */
function draw(surface: Framebuffer, random: () => number): void {
  const { width, height, pixels } = surface;
  const x = random() % width;
  const y = random() % height;
  const w = 1 + (random() % (width - x));
  const h = 1 + (random() % (height - y));
  const kind = random() % 7;
  if (kind === 6) {
    // Up or down by text lines, or by any number of rows; the rest is filled with new lines.
    const rows = random() % 2 === 0 ? 16 : 1 + (random() % 20);
    const up = random() % 3 > 0;
    pixels.copyWithin(up ? 0 : rows * width, up ? rows * width : 0, up ? pixels.length : pixels.length - rows * width);
    for (let index = 0; index < rows * width; index++) {
      pixels[up ? pixels.length - 1 - index : index] = random() % 3 === 0 ? 0xaaaaaa : 0;
    }
    if (random() % 2 === 0) pixels[(random() % height) * width + x] ^= 0xffffff;
    surface.markAll();
    return;
  }
  const colours = [1, 2, 3, 9, 100, 0][kind];
  const palette = Array.from({ length: colours }, () => random() & 0xffffff);
  let run = 0;
  let colour = 0;
  for (let row = y; row < y + h; row++) {
    for (let column = x; column < x + w; column++) {
      if (run-- <= 0) {
        run = random() % (kind === 3 ? 700 : 3);
        colour = colours === 0 ? random() & 0xffffff : palette[random() % colours];
      }
      pixels[row * width + column] = colour | (random() << 24);
    }
  }
  surface.markDirty(x, y, w, h);
}

function fillWithText(surface: Framebuffer, random: () => number): void {
  for (let index = 0; index < surface.pixels.length; index++) surface.pixels[index] = random() % 4 === 0 ? 0xaaaaaa : 0;
  surface.markAll();
}

const ENCODERS = { raw: ENCODING.raw, zlib: ENCODING.zlib, zrle: ENCODING.zrle, tight: ENCODING.tight };

for (const [encodingName, encoding] of Object.entries(ENCODERS)) {
  for (const [formatName, format] of Object.entries(FORMATS)) {
    test(`${encodingName} in pixel format ${formatName} shows the surface after random drawing`, () => {
      const random = seededRandom(encoding * 100 + format.redShift + format.bitsPerPixel);
      const surface = new Framebuffer(197, 141);
      const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
      const client = connect(server);
      client.setPixelFormat(format);
      client.setEncodings(encoding, ENCODING.copyRect, ENCODING.desktopSize, random() % 2 === 0 ? ENCODING.lastRect : -1);
      fillWithText(surface, random);
      client.request(false);
      for (let round = 0; round < 25; round++) {
        if (round === 12) {
          surface.resize(64 + (random() % 150), 48 + (random() % 100));
          fillWithText(surface, random);
        }
        for (let count = random() % 3; count >= 0; count--) draw(surface, random);
        server.publish(surface.collect());
        // Some frames pass by a client that is not ready.
        if (random() % 3 === 0) continue;
        client.request(true);
        while (server.publish(surface.collect())) client.request(true);
        assertSame(client, surface, `round ${round}`);
      }
      assert.ok(client.updates.some((update) => update.encodings.includes(encoding)));
    });
  }
}

test('several clients of different formats follow the same screen', () => {
  const random = seededRandom(7);
  const surface = new Framebuffer(160, 100);
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
  const clients = Object.values(ENCODERS).map((encoding, index) => {
    const client = connect(server);
    client.setPixelFormat(Object.values(FORMATS)[index * 2]);
    client.setEncodings(encoding, ENCODING.copyRect);
    return client;
  });
  fillWithText(surface, random);
  for (let round = 0; round < 30; round++) {
    draw(surface, random);
    for (const client of clients) if (random() % 2 === 0) client.request(true);
    server.publish(surface.collect());
  }
  for (const client of clients) {
    do client.request(true);
    while (server.publish(surface.collect()));
    assertSame(client, surface, 'at the end');
  }
});

test('a text screen that scrolls is sent as a copy and a few lines', () => {
  const random = seededRandom(3);
  const surface = new Framebuffer(640, 400);
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
  const client = connect(server);
  client.setEncodings(ENCODING.copyRect, ENCODING.raw);
  fillWithText(surface, random);
  client.request(false);
  server.publish(surface.collect());
  client.updates.length = 0;
  surface.pixels.copyWithin(0, 16 * 640);
  surface.pixels.fill(0, 384 * 640);
  surface.pixels.fill(0xaaaaaa, 398 * 640, 398 * 640 + 8);
  surface.markAll();
  client.request(true);
  server.publish(surface.collect());
  assertSame(client, surface, 'scrolled');
  assert.equal(client.updates[0].encodings[0], ENCODING.copyRect);
  assert.ok(client.updates[0].bytes < 640 * 16 * 4 + 200, `${client.updates[0].bytes} bytes`);
});

test('what did not change is not sent, however often it is drawn', () => {
  const surface = new Framebuffer(320, 200);
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
  const client = connect(server);
  client.request(false);
  server.publish(surface.collect());
  client.request(true);
  surface.markAll();
  assert.equal(server.publish(surface.collect()), false);
  surface.pixels[0] = 0xff000000;
  surface.markAll();
  assert.equal(server.publish(surface.collect()), false, 'the highest byte of a pixel does not count');
  surface.pixels[320 * 199 + 319] = 0xff;
  surface.markAll();
  assert.equal(server.publish(surface.collect()), true);
  assert.equal(client.updates[1].bytes, 4 + 12 + 64 * 8 * 4, 'one tile, cut at the lower edge');
});

test('a request for a part is answered with that part only, and the rest stays due', () => {
  const random = seededRandom(11);
  const surface = new Framebuffer(200, 100);
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
  const client = connect(server);
  client.setEncodings(ENCODING.raw, ENCODING.copyRect);
  fillWithText(surface, random);
  client.request(true, 10, 20, 30, 17);
  server.publish(surface.collect());
  assert.equal(client.screen[19 * 200 + 10], 0);
  for (let y = 20; y < 37; y++)
    for (let x = 10; x < 40; x++) assert.equal(client.screen[y * 200 + x], expected(surface.pixels[y * 200 + x], NATIVE_FORMAT));
  assert.equal(client.updates[0].bytes, 4 + 12 + 30 * 17 * 4);
  client.request(true);
  server.publish(surface.collect());
  assertSame(client, surface, 'the rest');
});

function connect(server: RfbServer): TestClient {
  const client = new TestClient(new MemoryChannel());
  server.accept(client.channel);
  assert.ok(client.ready);
  return client;
}
