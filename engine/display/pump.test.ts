import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inflateSync } from 'node:zlib';
import { nodeCompression } from '../host/deflate.ts';
import { Framebuffer, MAX_PIXELS, MAX_SIDE } from './framebuffer.ts';
import { encodePng } from './png.ts';
import { encodePpm } from './ppm.ts';
import { DisplayPump, reduce } from './pump.ts';
import { RfbServer } from './server.ts';
import { MemoryChannel, RecordingSink, seededRandom, TestClient } from './testing.ts';

/** A pump on a clock that the test turns. */
function setUp(rate?: number) {
  const surface = new Framebuffer(64, 16);
  const server = new RfbServer({ framebuffer: surface, compression: nodeCompression, input: new RecordingSink(), name: 'x' });
  let now = 0;
  let timers: { at: number; callback: () => void }[] = [];
  const refreshes: number[] = [];
  let change = false;
  const pump = new DisplayPump({
    framebuffer: surface,
    server,
    rate,
    now: () => now,
    schedule: (milliseconds, callback) => {
      const timer = { at: now + milliseconds, callback };
      timers.push(timer);
      return () => {
        timers = timers.filter((other) => other !== timer);
      };
    },
    refresh: (target) => {
      refreshes.push(now);
      if (change) target.pixels[0]++;
      target.markAll();
    },
  });
  const run = (milliseconds: number) => {
    const end = now + milliseconds;
    for (;;) {
      const next = timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      timers = timers.filter((timer) => timer !== next);
      now = next.at;
      next.callback();
    }
    now = end;
  };
  const connect = () => {
    const client = new TestClient(new MemoryChannel());
    server.accept(client.channel);
    return client;
  };
  return {
    surface,
    server,
    pump,
    refreshes,
    run,
    connect,
    pending: () => timers.length,
    setChange: (value: boolean) => {
      change = value;
    },
  };
}

test('without a client that waits there are no wake-ups', () => {
  const { connect, run, refreshes, pending, setChange } = setUp();
  setChange(true);
  run(10_000);
  assert.equal(refreshes.length, 0);
  const client = connect();
  run(10_000);
  assert.equal(refreshes.length, 0, 'it has not asked yet');
  client.request(false);
  run(10_000);
  assert.equal(refreshes.length, 1, 'and asked once');
  client.request(true);
  client.channel.close();
  run(10_000);
  assert.equal(pending(), 0);
});

test('updates come at the rate, and ask for them as often as one may', () => {
  for (const [rate, expected] of [
    [undefined, 30],
    [60, 60],
    [1000, 60],
  ]) {
    const { connect, run, refreshes, setChange } = setUp(rate);
    setChange(true);
    const client = connect();
    for (let millisecond = 0; millisecond < 1000; millisecond++) {
      client.request(true);
      run(1);
    }
    assert.ok(Math.abs(refreshes.length - expected!) <= 1, `${refreshes.length} of ${expected}`);
    assert.equal(client.updates.length, refreshes.length);
  }
});

test('while nothing changes the pauses grow, and a key ends that', () => {
  const { connect, run, refreshes, setChange, pump } = setUp();
  const client = connect();
  client.request(false);
  run(100);
  client.request(true);
  run(5000);
  refreshes.length = 0;
  run(10_000);
  assert.equal(refreshes.length, 50, 'five a second');
  setChange(true);
  client.send(4, 1, 0, 0, 0, 0, 0, 0x61);
  const before = client.updates.length;
  run(35);
  assert.equal(client.updates.length, before + 1);
  client.request(true);
  pump.stop();
  run(1000);
  assert.equal(client.updates.length, before + 1);
});

test('a screenshot is fresh, and loses nothing for clients', () => {
  const { connect, pump, run, surface, setChange, refreshes } = setUp();
  const client = connect();
  client.request(false);
  run(100);
  setChange(true);
  const shot = pump.screenshot();
  assert.deepEqual([shot.width, shot.height, shot.rgba[0], shot.rgba[3], refreshes.length], [64, 16, 1, 255, 2]);
  setChange(false);
  client.request(true);
  run(100);
  assert.equal(client.screen[0], 0x010000);
  surface.resize(640, 400);
  const small = pump.thumbnail(160, 160);
  assert.deepEqual([small.width, small.height], [160, 100]);
  assert.deepEqual([pump.thumbnail(9999, 9999).width, pump.thumbnail(0, 0).height], [640, 1]);
});

test('reducing takes means', () => {
  const picture = { width: 4, height: 2, rgba: Uint8Array.from({ length: 32 }, (_, at) => ((at & 3) === 3 ? 255 : at * 4)) };
  const { rgba, width } = reduce(picture, 2, 2);
  assert.equal(width, 2);
  assert.deepEqual([...rgba.subarray(0, 4)], [40, 44, 48, 255]);
});

test('PNG and PPM hold the picture', () => {
  const random = seededRandom(5);
  for (const [width, height] of [
    [1, 1],
    [3, 5],
    [100, 40],
  ]) {
    const rgba = Uint8Array.from({ length: width * height * 4 }, (_, at) =>
      (at & 3) === 3 ? 255 : at < width * height * 2 ? at : random(),
    );
    const picture = { width, height, rgba };
    const rgb = rgba.filter((_, at) => (at & 3) !== 3);
    assert.deepEqual(decodePng(encodePng(picture, nodeCompression)), { width, height, rgb });
    const ppm = encodePpm(picture);
    const header = `P6\n${width} ${height}\n255\n`;
    assert.equal(Buffer.from(ppm.subarray(0, header.length)).toString(), header);
    assert.deepEqual(ppm.subarray(header.length), rgb);
  }
});

test('the surface clamps sizes, and rectangles outside of it', () => {
  const surface = new Framebuffer();
  assert.equal(surface.resize(1e9, 1e9), true);
  assert.deepEqual([surface.width, surface.height], [MAX_SIDE, MAX_PIXELS / MAX_SIDE]);
  surface.resize(-5, Number.NaN);
  assert.deepEqual([surface.width, surface.height, surface.pixels.length], [1, 1, 1]);
  surface.resize(100, 100);
  surface.collect();
  for (const [x, y, width, height] of [
    [-10, -10, 5, 5],
    [100, 0, 10, 10],
    [0, 0, 0, 5],
    [50, 50, -10, 10],
    [Number.NaN, 0, 10, 10],
    [0, 1e12, 10, 10],
  ]) {
    surface.markDirty(x, y, width, height);
  }
  surface.pixels.fill(1);
  assert.equal(surface.collect(), undefined, 'nothing was marked');
  surface.markDirty(-1e9, 99, 2e9, 1e9);
  assert.equal(surface.collect()!.changedTiles, 2);
  assert.equal(surface.bytes.length, 40_000);
});

/** Reads the PNGs that the encoder may write: RGB, 8 bits, filters none, sub and up. */
function decodePng(png: Uint8Array): { width: number; height: number; rgb: Uint8Array } {
  const view = new DataView(png.buffer, png.byteOffset);
  let data: Uint8Array = new Uint8Array(0);
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    const type = Buffer.from(png.subarray(at + 4, at + 8)).toString();
    if (type === 'IDAT') data = inflateSync(png.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const width = view.getUint32(16);
  const height = view.getUint32(20);
  const rgb = new Uint8Array(width * height * 3);
  for (let y = 0, at = 0; y < height; y++) {
    const filter = data[at++];
    for (let x = 0; x < width * 3; x++, at++) {
      const index = y * width * 3 + x;
      const left = x < 3 ? 0 : rgb[index - 3];
      const above = y === 0 ? 0 : rgb[index - width * 3];
      rgb[index] = data[at] + [0, left, above][filter];
    }
  }
  return { width, height, rgb };
}
