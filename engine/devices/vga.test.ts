import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FakeClock, fresh, snapshotSuite } from './testing.ts';
import { Dispi, Vga, vgaState } from './vga.ts';
import { buildEdid } from './vga-edid.ts';
import { extractFont8x16 } from './vga-font.ts';
import { VgaRenderer } from './vga-render.ts';

function make(vramBytes = 16 << 20) {
  const clock = new FakeClock();
  const vram = new Uint8Array(new SharedArrayBuffer(vramBytes));
  const vga = new Vga(fresh(vgaState), { clock, vram });
  vga.reset();
  return { vga, vram, clock, renderer: new VgaRenderer(vga, vram) };
}
const rgb = (word: number): string => [word & 255, (word >> 8) & 255, (word >> 16) & 255].join();
function indexed(vga: Vga, port: number, index: number, value: number): void {
  vga.writePort(port, index);
  vga.writePort(port + 1, value);
}

/** A font where every glyph's rows are its code, so tests can see which glyph was drawn. */
const font = Uint8Array.from({ length: 4096 }, (_, i) => i >> 4);

test('text mode: geometry, cells, colours, cursor', () => {
  const { vga, renderer } = make();
  vga.loadTextMode(font);
  const mode = renderer.capture();
  assert.ok(mode.kind === 'text');
  assert.deepEqual(
    [mode.columns, mode.rows, mode.cellWidth, mode.cellHeight, mode.width, mode.height],
    [80, 25, 9, 16, 720, 400],
  );
  assert.deepEqual(mode.cursor, { at: 0, first: 13, last: 14 });
  let frame = renderer.draw({ time: 300 });
  assert.equal(frame.resized, true);
  assert.equal(frame.changed.length, 25);
  // Row 1, column 2: 0x81 in yellow on blue. The window is at 0xb8000: offset 0x18000.
  vga.window.write(0x18000 + 160 + 4, 2, 0x1e81);
  renderer.capture();
  frame = renderer.draw({ time: 300 });
  assert.deepEqual(frame.changed, [{ x: 18, y: 16, width: 9, height: 16 }]);
  const at = 16 * 720 + 18;
  assert.equal(rgb(renderer.pixels[at]), '255,255,85');
  assert.equal(rgb(renderer.pixels[at + 1]), '0,0,170');
  assert.equal(rgb(renderer.pixels[at + 7]), '255,255,85');
  assert.equal(rgb(renderer.pixels[at + 8]), '0,0,170', 'the ninth dot is background');
  vga.window.write(0x18000, 2, 0x07c1);
  renderer.capture();
  renderer.draw({ time: 300 });
  assert.equal(rgb(renderer.pixels[8]), '170,170,170', 'but not for line graphics');
  assert.deepEqual(renderer.draw({ time: 310 }).changed, []);
  assert.deepEqual(renderer.draw({ time: 0 }).changed, [{ x: 0, y: 0, width: 9, height: 16 }], 'the cursor blinks on');
  assert.equal(vga.window.read(0x18000 + 164, 2), 0x1e81);
  assert.equal(vga.window.read(0, 2), 0xffff, 'not decoded at 0xa0000');
});

test('text mode scrolls by the start address, and switches off by the sequencer', () => {
  const { vga, renderer } = make();
  vga.loadTextMode(font);
  vga.window.write(0x18000 + 160, 1, 0xff);
  indexed(vga, 0x3d4, 0x0d, 80);
  renderer.capture();
  renderer.draw({ time: 300 });
  assert.equal(rgb(renderer.pixels[0]), '170,170,170');
  indexed(vga, 0x3c4, 1, 0x20);
  assert.equal(vga.mode().kind, 'blank');
  vga.reset();
  assert.deepEqual(vga.mode(), { kind: 'blank', width: 640, height: 480 });
});

test('write modes, latches and read modes', () => {
  const { vga, vram } = make();
  vga.writePort(0x3c2, 0x63);
  indexed(vga, 0x3c4, 2, 0x0f);
  indexed(vga, 0x3c4, 4, 0x06);
  indexed(vga, 0x3ce, 6, 0x05);
  indexed(vga, 0x3ce, 8, 0xff);
  // Mode 0 with set/reset on planes 0 and 2.
  indexed(vga, 0x3ce, 1, 0x05);
  indexed(vga, 0x3ce, 0, 0x01);
  vga.window.write(10, 1, 0xa5);
  assert.deepEqual([...vram.subarray(40, 44)], [0xff, 0xa5, 0x00, 0xa5]);
  indexed(vga, 0x3ce, 1, 0);
  // Rotation and XOR with the latch, through a bit mask.
  vga.window.read(10, 1);
  indexed(vga, 0x3ce, 3, 0x18 | 4);
  indexed(vga, 0x3ce, 8, 0xf0);
  vga.window.write(10, 1, 0x0f);
  assert.deepEqual([...vram.subarray(40, 44)], [0x0f, 0x55, 0xf0, 0x55]);
  indexed(vga, 0x3ce, 3, 0);
  indexed(vga, 0x3ce, 8, 0xff);
  // Mode 1 copies the latches.
  indexed(vga, 0x3ce, 5, 1);
  vga.window.read(10, 1);
  vga.window.write(20, 1, 0);
  assert.deepEqual([...vram.subarray(80, 84)], [0x0f, 0x55, 0xf0, 0x55]);
  // Mode 2: the value is a colour.
  indexed(vga, 0x3ce, 5, 2);
  vga.window.write(30, 1, 0x0a);
  assert.deepEqual([...vram.subarray(120, 124)], [0, 0xff, 0, 0xff]);
  // Mode 3: the value is a mask, the colour is set/reset.
  indexed(vga, 0x3ce, 5, 3);
  indexed(vga, 0x3ce, 0, 0x04);
  vga.window.read(30, 1);
  vga.window.write(30, 1, 0x0f);
  assert.deepEqual([...vram.subarray(120, 124)], [0, 0xf0, 0x0f, 0xf0]);
  // Read mode 0 by plane, read mode 1 compares.
  indexed(vga, 0x3ce, 5, 0);
  indexed(vga, 0x3ce, 4, 2);
  assert.equal(vga.window.read(30, 1), 0x0f);
  indexed(vga, 0x3ce, 5, 8);
  indexed(vga, 0x3ce, 2, 0x0a);
  indexed(vga, 0x3ce, 7, 0x0f);
  assert.equal(vga.window.read(30, 1), 0xf0);
  // The map mask keeps planes.
  indexed(vga, 0x3ce, 5, 0);
  indexed(vga, 0x3c4, 2, 0x02);
  vga.window.write(30, 1, 0);
  assert.deepEqual([...vram.subarray(120, 124)], [0, 0, 0x0f, 0xf0]);
});

/** Sets mode 13h or 12h by their standard register values. */
function graphicsMode(vga: Vga, which: 0x12 | 0x13): void {
  const is13 = which === 0x13;
  vga.writePort(0x3c2, is13 ? 0x63 : 0xe3);
  [3, 1, 0x0f, 0, is13 ? 0x0e : 6].forEach((value, i) => {
    indexed(vga, 0x3c4, i, value);
  });
  indexed(vga, 0x3d4, 0x11, 0);
  const crtc = is13
    ? [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3,
        0xff,
      ]
    : [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c, 0xdf, 0x28, 0, 0xe7, 0x04, 0xe3,
        0xff,
      ];
  crtc.forEach((value, i) => {
    indexed(vga, 0x3d4, i, value);
  });
  [0, 0, 0, 0, 0, is13 ? 0x40 : 0, 5, 0x0f, 0xff].forEach((value, i) => {
    indexed(vga, 0x3ce, i, value);
  });
  vga.readPort(0x3da);
  for (let i = 0; i < 16; i++) indexed2(vga, i, i);
  [is13 ? 0x41 : 1, 0, 0x0f, 0, 0].forEach((value, i) => {
    indexed2(vga, 16 + i, value);
  });
  vga.writePort(0x3c0, 0x20);
  vga.writePort(0x3c8, 0);
  for (let i = 0; i < 256; i++) for (const part of [i & 63, 63 - (i & 63), 21]) vga.writePort(0x3c9, part);
}
function indexed2(vga: Vga, index: number, value: number): void {
  vga.writePort(0x3c0, index);
  vga.writePort(0x3c0, value);
}

test('mode 13h: chain-4, 320x200 of 256 colours', () => {
  const { vga, renderer } = make();
  graphicsMode(vga, 0x13);
  const mode = renderer.capture();
  assert.ok(mode.kind === 'colour256');
  assert.deepEqual([mode.width, mode.height, mode.pitch], [320, 200, 320]);
  renderer.draw();
  vga.window.write(320 * 7 + 5, 1, 63);
  assert.equal(vga.window.read(320 * 7 + 5, 1), 63);
  assert.deepEqual(renderer.draw().changed, [{ x: 0, y: 7, width: 320, height: 1 }]);
  assert.equal(rgb(renderer.pixels[320 * 7 + 5]), '255,0,85');
});

test('mode 12h: planar 640x480, split screen and panning', () => {
  const { vga, renderer } = make();
  graphicsMode(vga, 0x12);
  let mode = renderer.capture();
  assert.ok(mode.kind === 'planar16');
  assert.deepEqual([mode.width, mode.height, mode.pitch, mode.split], [640, 480, 320, Infinity]);
  indexed(vga, 0x3c4, 2, 0x09);
  vga.window.write(80 * 3 + 1, 1, 0x80);
  renderer.draw();
  assert.equal(rgb(renderer.pixels[640 * 3 + 8]), rgb(0x55 * 65536 + ((54 << 2) | (54 >> 4)) * 256 + ((9 << 2) | (9 >> 4))));
  vga.readPort(0x3da);
  indexed2(vga, 0x13, 3);
  vga.writePort(0x3c0, 0x20);
  indexed(vga, 0x3d4, 0x18, 99);
  indexed(vga, 0x3d4, 7, 0x2e);
  indexed(vga, 0x3d4, 9, 0);
  mode = renderer.capture();
  assert.ok(mode.kind === 'planar16');
  assert.deepEqual([mode.pan, mode.split], [3, 100]);
  renderer.draw();
  const lit = [...renderer.pixels.keys()].filter((at) => renderer.pixels[at] !== renderer.pixels[0]);
  assert.deepEqual(lit, [640 * 3 + 5, 640 * 103 + 8]);
});

test('CGA 320x200: two-bit pixels on interleaved lines', () => {
  const { vga, renderer } = make();
  graphicsMode(vga, 0x12);
  // The registers in which mode 4 differs.
  const crtc = [
    0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff,
  ];
  indexed(vga, 0x3d4, 0x11, 0);
  crtc.forEach((value, i) => {
    indexed(vga, 0x3d4, i, value);
  });
  indexed(vga, 0x3c4, 1, 9);
  indexed(vga, 0x3c4, 2, 3);
  indexed(vga, 0x3c4, 4, 2);
  indexed(vga, 0x3ce, 5, 0x30);
  indexed(vga, 0x3ce, 6, 0x0f);
  const mode = renderer.capture();
  assert.equal(mode.kind, 'cga4');
  assert.deepEqual([mode.width, mode.height], [320, 200]);
  vga.window.write(0x18000, 1, 0b11000001);
  vga.window.write(0x18001, 1, 0b10000000);
  vga.window.write(0x18000 + 0x2000, 1, 0b00010000);
  vga.window.write(0x18000 + 80, 1, 0b01000000);
  renderer.draw();
  const colour = (x: number, y: number): number => (renderer.pixels[y * 320 + x] & 255) >> 2;
  assert.deepEqual(
    [0, 1, 3, 4].map((x) => colour(x, 0)),
    [3, 0, 1, 2],
  );
  assert.equal(colour(1, 1), 1);
  assert.equal(colour(0, 2), 1);
});

test('dispi: identification, geometry, limits, linear rendering at every depth', () => {
  const { vga, vram, renderer } = make();
  assert.equal(vga.readDispi(Dispi.id), 0xb0c5);
  assert.equal(vga.readDispi(Dispi.memory64k), 256);
  vga.dispiPorts.write(0, 2, Dispi.id);
  vga.dispiPorts.write(1, 2, 0xb0c0);
  assert.equal(vga.dispiPorts.read(1, 2), 0xb0c0);
  vga.dispiPorts.write(1, 2, 0x1234);
  assert.equal(vga.dispiPorts.read(2, 2), 0xb0c0);
  const put: Record<number, number[]> = {
    15: [0x1f, 0x7c],
    16: [0x1f, 0xf8],
    24: [0xff, 0x00, 0xff],
    32: [0xff, 0x00, 0xff, 0x00],
  };
  for (const bpp of [15, 16, 24, 32]) {
    const mode = vga.setLinearMode(800, 600, bpp);
    assert.ok(mode.kind === 'linear');
    const bytesPerPixel = Math.ceil(bpp / 8);
    assert.deepEqual([mode.width, mode.height, mode.stride], [800, 600, 800 * bytesPerPixel]);
    vram.set(put[bpp], mode.stride * 2 + bytesPerPixel);
    renderer.capture();
    renderer.draw();
    assert.equal(rgb(renderer.pixels[801 + 800]), '255,0,255', `${bpp} bits`);
    assert.equal(rgb(renderer.pixels[800 * 2]), '0,0,0');
  }
  vga.writeDispi(Dispi.virtualWidth, 1600);
  vga.writeDispi(Dispi.yOffset, 10);
  const mode = vga.mode();
  assert.ok(mode.kind === 'linear');
  assert.deepEqual([mode.stride, mode.start], [6400, 64000]);
  assert.equal(vga.readDispi(Dispi.virtualHeight), Math.floor((16 << 20) / 6400));
  vga.setLinearMode(65535, 65535, 32);
  const huge = vga.mode();
  assert.ok(huge.kind === 'linear');
  assert.ok(huge.start + (huge.height - 1) * huge.stride + huge.width * 4 <= vram.length);
});

test('linear modes draw the lines that are said to be dirty', () => {
  const { vga, renderer } = make();
  const mode = vga.setLinearMode(640, 480, 32);
  assert.ok(mode.kind === 'linear');
  renderer.capture();
  renderer.draw({ dirty: () => false });
  const page = (offset: number, length: number): boolean => offset < 8192 && offset + length > 4096;
  assert.deepEqual(renderer.draw({ dirty: page }).changed, [{ x: 0, y: 1, width: 640, height: 3 }]);
});

test('the register BAR: ports, dispi, byte order, EDID', () => {
  const clock = new FakeClock();
  const edid = buildEdid({ width: 1280, height: 800 });
  const vram = new Uint8Array(new SharedArrayBuffer(1 << 20));
  const vga = new Vga(fresh(vgaState), { clock, vram, edid });
  vga.reset();
  vga.mmio.write(0x502, 2, 640);
  assert.equal(vga.readDispi(Dispi.xres), 640);
  assert.equal(vga.mmio.read(0x500, 2), 0xb0c5);
  vga.mmio.write(0x402, 1, 0x67);
  assert.equal(vga.mmio.read(0x40c, 1), 0x67);
  assert.equal(vga.mmio.read(0x604, 4), 0x1e1e1e1e);
  assert.equal(vga.mmio.read(0, 4), 0xffffff00);
  assert.equal(edid.reduce((sum, byte) => sum + byte, 0) & 255, 0);
  assert.deepEqual([edid[0x38] | ((edid[0x3a] >> 4) << 8), edid[0x3b] | ((edid[0x3d] >> 4) << 8)], [1280, 800]);
});

test('DAC: read back, index order, eight bits', () => {
  const { vga } = make();
  vga.writePort(0x3c8, 5);
  for (const value of [1, 2, 0xff]) vga.writePort(0x3c9, value);
  vga.writePort(0x3c7, 5);
  assert.deepEqual(
    [0, 0, 0].map(() => vga.readPort(0x3c9)),
    [1, 2, 0x3f],
  );
  vga.writeDispi(Dispi.enable, 0x20);
  vga.writePort(0x3c8, 6);
  for (const value of [200, 100, 50]) vga.writePort(0x3c9, value);
  const palette = new Uint32Array(256);
  vga.colours(palette, new Uint32Array(16));
  assert.equal(rgb(palette[6]), '200,100,50');
  assert.equal(rgb(palette[5]), '4,8,252');
});

test('status port: retrace comes and goes with time, and resets the attribute flip-flop', () => {
  const { vga, clock } = make();
  vga.writePort(0x3c0, 0x10);
  vga.readPort(0x3da);
  vga.writePort(0x3c0, 0x11);
  assert.equal(vga.readPort(0x3c0), 0x11);
  let retraces = 0;
  let before = 0;
  for (let i = 0; i < 10_000; i++) {
    clock.advance(10_000);
    const now = vga.readPort(0x3da) & 8;
    if (now !== 0 && before === 0) retraces++;
    before = now;
  }
  assert.equal(retraces, 6);
});

test('CRTC registers 0 to 7 can be locked; colour and mono ports exclude each other', () => {
  const { vga } = make();
  indexed(vga, 0x3d4, 0x11, 0x80);
  indexed(vga, 0x3d4, 1, 0x4f);
  assert.equal(vga.readPort(0x3d5), 0);
  assert.equal(vga.readPort(0x3b4), 0xff);
  vga.writePort(0x3c2, 0);
  assert.equal(vga.readPort(0x3d4), 0xff);
  assert.equal(vga.readPort(0x3b4), 1);
});

test('random registers and accesses: nothing throws, no picture leaves video memory', () => {
  const { vga, renderer } = make(1 << 18);
  let seed = 3;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 60; i++) {
    for (let j = 0; j < 60; j++) {
      vga.writePort(0x3b0 + random(0x30), random(256));
      vga.writeDispi(random(12), random(4) === 0 ? random(65536) : random(1500));
      vga.window.write(random(0x20000), 4, random(2 ** 24));
      vga.window.read(random(0x20000), 2);
      vga.mmio.write(random(4096), 2, random(65536));
      vga.mmio.read(random(4096), 4);
    }
    if (i % 2 === 0) {
      vga.writeDispi(Dispi.enable, 0);
      vga.readPort(0x3da);
      vga.writePort(0x3c0, 0x20);
      indexed(vga, 0x3c4, 1, random(16));
    }
    const mode = renderer.capture();
    assert.ok(mode.width * mode.height <= 1 << 24, JSON.stringify(mode));
    const frame = renderer.draw({ time: i * 100 });
    assert.equal(renderer.pixels.length, frame.width * frame.height);
  }
});

const rom = '/usr/share/seabios/vgabios-stdvga.bin';
test('the font is found in a video BIOS', { skip: existsSync(rom) ? false : 'no seabios package on this machine' }, () => {
  const found = extractFont8x16(readFileSync(rom));
  assert.ok(found);
  assert.deepEqual([...found.subarray(0x41 * 16 + 2, 0x41 * 16 + 8)], [0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe]);
});

test('no font in noise', () => {
  assert.equal(extractFont8x16(new Uint8Array(65536)), undefined);
  assert.equal(extractFont8x16(new Uint8Array(65536).fill(0xff)), undefined);
  assert.equal(extractFont8x16(new Uint8Array(10)), undefined);
});

const sharedVram = new Uint8Array(new SharedArrayBuffer(1 << 20));
snapshotSuite(
  vgaState,
  (state, clock) => new Vga(state, { clock, vram: sharedVram }),
  (vga) => {
    vga.loadTextMode(font);
    indexed(vga, 0x3d4, 0x0f, 77);
    vga.writePort(0x3c8, 9);
    vga.writePort(0x3c9, 33);
    vga.window.read(0x18004, 1);
  },
  (vga) => {
    const palette = new Uint32Array(256);
    vga.colours(palette, new Uint32Array(16));
    vga.writePort(0x3c9, 1);
    return [vga.mode(), [...palette], vga.readPort(0x3c8)];
  },
);
