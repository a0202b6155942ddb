import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fdc, type FloppyMedium, fdcState } from './fdc.ts';
import { I8237, i8237State } from './i8237.ts';
import { fresh, PlainMemory, RecordedLine, snapshotSuite } from './testing.ts';

const SECTOR = 512;
const SIZE = 80 * 2 * 18 * SECTOR;
const locked = <T>(body: () => T): T => body();

class Medium implements FloppyMedium {
  readonly data = new Uint8Array(SIZE);
  readOnly = false;
  broken = false;
  constructor() {
    for (let i = 0; i < SIZE; i++) this.data[i] = (i * 7 + (i >> 9) * 3) & 0xff;
  }
  read(offset: number, data: Uint8Array): boolean {
    data.set(this.data.subarray(offset, offset + data.length));
    return !this.broken;
  }
  write(offset: number, data: Uint8Array): boolean {
    if (!this.broken) this.data.set(data, offset);
    return !this.broken;
  }
}

function make(state = fresh(fdcState), dmaState = fresh(i8237State)) {
  const memory = new PlainMemory(1 << 20);
  const irq = new RecordedLine();
  const dma = new I8237(dmaState, memory);
  const medium = new Medium();
  let rung = false;
  const fdc = new Fdc(state, {
    irq,
    dma,
    drives: [true, false],
    ring: () => {
      rung = true;
    },
  });
  const out = (offset: number, value: number): void => fdc.ports.write(offset, 1, value);
  const serve = (): void => {
    while (rung) {
      rung = false;
      while (fdc.process([medium, undefined], locked));
    }
  };
  const result = (): number[] => {
    const bytes: number[] = [];
    while ((fdc.ports.read(4, 1) & 0xd0) === 0xd0 && bytes.length < 16) bytes.push(fdc.ports.read(5, 1));
    return bytes;
  };
  const command = (...bytes: number[]): number[] => {
    for (const byte of bytes) {
      assert.equal(fdc.ports.read(4, 1) & 0xc0, 0x80);
      out(5, byte);
    }
    serve();
    return result();
  };
  /** Programs channel 2: mode 0x46 moves to memory, 0x4a from it. */
  const program = (mode: number, address: number, count: number): void => {
    dma.first.write(10, 1, 6);
    dma.first.write(11, 1, mode);
    dma.first.write(12, 1, 0);
    dma.first.write(4, 1, address & 0xff);
    dma.first.write(4, 1, (address >> 8) & 0xff);
    dma.pages.write(1, 1, address >> 16);
    dma.first.write(5, 1, (count - 1) & 0xff);
    dma.first.write(5, 1, (count - 1) >> 8);
    dma.first.write(10, 1, 2);
  };
  /** What a driver does first: reset, four interrupts sensed, SPECIFY, 500 kbit/s, motor on. */
  const start = (): void => {
    fdc.reset();
    dma.reset();
    fdc.setFirstMedium(0, SIZE);
    out(2, 0);
    out(2, 0x1c);
    assert.equal(irq.level, true);
    for (let unit = 0; unit < 4; unit++) assert.deepEqual(command(8), [0xc0 | unit, 0]);
    assert.equal(irq.level, false);
    command(3, 0xaf, 0x02);
    fdc.lastPort.write(0, 1, 0);
  };
  const at = (cylinder: number, head: number, sector: number): number => ((cylinder * 2 + head) * 18 + sector - 1) * SECTOR;
  return { fdc, dma, memory, irq, medium, out, command, result, serve, program, start, at };
}

test('a driver finds the chip and its drives', () => {
  const { fdc, command, start } = make();
  start();
  assert.deepEqual(fdc.kinds, [4, 0]);
  assert.deepEqual(command(0x10), [0x90]);
  assert.deepEqual(command(0x18), [0x80], 'no PART ID: a 82077AA');
  assert.deepEqual(command(0x94), [0x10]);
  assert.deepEqual(command(0x14), [0]);
  command(0x13, 0, 0x57, 0);
  assert.deepEqual(command(0x0e), [0, 0, 0, 0, 0xaf, 2, 0, 0, 0x57, 0]);
  // The change signal goes with a step pulse.
  assert.equal(fdc.lastPort.read(0, 1), 0x80);
  command(7, 0);
  assert.deepEqual(command(8), [0x20, 0]);
  assert.equal(fdc.lastPort.read(0, 1), 0);
  assert.deepEqual(command(4, 0), [0x38]);
  command(7, 1);
  assert.deepEqual(command(8), [0x71, 0], 'there is no second drive');
  assert.deepEqual(command(8), [0x80]);
});

test('reads and writes by DMA: to the terminal count, over both sides, across a page', () => {
  const { fdc, dma, memory, irq, medium, command, program, start, at } = make();
  start();
  command(0x0f, 0, 3);
  assert.deepEqual(command(8), [0x20, 3]);
  program(0x46, 0x1fe00, 1024);
  assert.deepEqual(command(0xe6, 0, 3, 0, 18, 2, 18, 0x1b, 0xff), [4 & 0, 0, 0, 3, 1, 2, 2]);
  assert.equal(irq.level, false, 'reading the result lowers the line');
  assert.deepEqual(memory.data.slice(0x1fe00, 0x20000), medium.data.slice(at(3, 0, 18), at(3, 0, 18) + 512));
  // The address stays in its page.
  assert.deepEqual(memory.data.slice(0x10000, 0x10200), medium.data.slice(at(3, 1, 1), at(3, 1, 1) + 512));
  assert.equal(dma.first.read(8, 1) & 4, 4, 'the terminal count was reached');
  memory.data.fill(0xa5, 0x5000, 0x5400);
  program(0x4a, 0x5000, 1024);
  assert.deepEqual(command(0xc5, 4, 3, 1, 5, 2, 18, 0x1b, 0xff), [4, 0, 0, 3, 1, 7, 2]);
  assert.ok(medium.data.slice(at(3, 1, 5), at(3, 1, 7)).every((byte) => byte === 0xa5));
  // More is asked for than the track has.
  program(0x46, 0x5000, 4096);
  assert.deepEqual(command(0x46, 0, 3, 0, 17, 2, 18, 0x1b, 0xff), [0x40, 0x80, 0, 4, 0, 1, 2]);
  assert.equal(fdc.ports.read(4, 1), 0x80);
});

test('what cannot be read or written is told', () => {
  const { fdc, medium, command, program, start } = make();
  start();
  command(7, 0);
  command(8);
  const read = (...bytes: number[]): number[] => {
    program(0x46, 0x5000, 512);
    return command(0x46, ...bytes).slice(0, 3);
  };
  assert.deepEqual(read(0, 5, 0, 1, 2, 18, 0x1b, 0xff), [0x40, 4, 0x10], 'another cylinder');
  assert.deepEqual(read(0, 0, 0, 19, 2, 19, 0x1b, 0xff), [0x40, 4, 0], 'no such sector');
  assert.deepEqual(read(0, 0, 0, 1, 3, 18, 0x1b, 0xff), [0x40, 4, 0], 'another sector size');
  fdc.lastPort.write(0, 1, 2);
  assert.deepEqual(read(0, 0, 0, 1, 2, 18, 0x1b, 0xff), [0x40, 1, 0], 'another data rate');
  fdc.lastPort.write(0, 1, 0);
  medium.readOnly = true;
  program(0x4a, 0x5000, 512);
  assert.deepEqual(command(0x45, 0, 0, 0, 1, 2, 18, 0x1b, 0xff).slice(0, 3), [0x40, 2, 0]);
  assert.equal(command(4, 0)[0] & 0x40, 0x40);
  medium.broken = true;
  assert.deepEqual(read(0, 0, 0, 1, 2, 18, 0x1b, 0xff), [0x40, 0x20, 0], 'the host failed');
  fdc.setMedium(0, 0);
  assert.deepEqual(read(0, 0, 0, 1, 2, 18, 0x1b, 0xff), [0x40, 1, 0], 'no medium');
  assert.deepEqual(command(0x4a, 0).slice(0, 3), [0x40, 1, 0]);
});

test('a track is formatted, compared and verified', () => {
  const { medium, memory, command, program, start, at } = make();
  start();
  command(0x0f, 4, 7);
  assert.deepEqual(command(8), [0x24, 7]);
  for (let n = 0; n < 18; n++) memory.data.set([7, 1, n + 1, 2], 0x6000 + n * 4);
  program(0x4a, 0x6000, 72);
  assert.deepEqual(command(0x4d, 4, 2, 18, 0x54, 0xf6).slice(0, 3), [4, 0, 0]);
  assert.ok(medium.data.slice(at(7, 1, 1), at(8, 0, 1)).every((byte) => byte === 0xf6));
  assert.notEqual(medium.data[at(7, 0, 18)], 0xf6);
  memory.data[0x6000] = 9;
  program(0x4a, 0x6000, 72);
  assert.deepEqual(command(0x4d, 4, 2, 18, 0x54, 0xf6).slice(0, 3), [0x44, 4, 0]);
  memory.data.fill(0xf6, 0x7000, 0x7200);
  program(0x4a, 0x7000, 512);
  assert.deepEqual(command(0x51, 4, 7, 1, 1, 2, 18, 0x1b, 1).slice(0, 3), [4, 0, 8]);
  memory.data[0x7001] = 0x10;
  program(0x4a, 0x7000, 512);
  assert.deepEqual(command(0x51, 4, 7, 1, 1, 2, 18, 0x1b, 1).slice(0, 3), [4, 0, 4]);
  assert.deepEqual(command(0x56, 4, 7, 1, 1, 2, 18, 0x1b, 0xff).slice(0, 3), [4, 0, 0]);
  assert.deepEqual(command(0x4a, 4), [4, 0, 0, 7, 1, 1, 2]);
});

test('without DMA a sector at a time goes through the data port', () => {
  const { fdc, irq, medium, out, command, result, serve, start, at } = make();
  start();
  command(3, 0xaf, 0x03);
  command(7, 0);
  command(8);
  for (const byte of [0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]) out(5, byte);
  serve();
  for (const record of [17, 18]) {
    assert.equal(irq.level, true);
    for (let i = 0; i < 512; i++) {
      assert.equal(fdc.ports.read(4, 1), 0xf0);
      assert.equal(fdc.ports.read(5, 1), medium.data[at(0, 0, record) + i]);
    }
    serve();
  }
  assert.deepEqual(result(), [0x40, 0x80, 0, 1, 0, 1, 2], 'no terminal count: the end of the track');
  for (const byte of [0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff]) out(5, byte);
  for (let i = 0; i < 512; i++) {
    assert.equal(fdc.ports.read(4, 1), 0xb0);
    out(5, i & 0x7f);
  }
  serve();
  assert.deepEqual(result().slice(0, 2), [0x40, 0x80]);
  assert.ok(medium.data.slice(at(0, 0, 18), at(0, 1, 1)).every((byte, i) => byte === (i & 0x7f)));
});

test('a transfer waits for its DMA channel; a reset makes it void', () => {
  const { fdc, dma, memory, command, program, result, serve, out, start } = make();
  start();
  command(7, 0);
  command(8);
  dma.first.write(10, 1, 6);
  assert.deepEqual(command(0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff), []);
  assert.equal(fdc.ports.read(4, 1), 0x10);
  program(0x46, 0x5000, 512);
  serve();
  assert.deepEqual(result().slice(0, 3), [0, 0, 0]);
  dma.first.write(10, 1, 6);
  command(0x46, 0, 0, 0, 2, 2, 18, 0x1b, 0xff);
  memory.data.fill(0, 0x5000, 0x5200);
  out(2, 0);
  out(2, 0x1c);
  program(0x46, 0x5000, 512);
  serve();
  assert.ok(memory.data.slice(0x5000, 0x5200).every((byte) => byte === 0));
  assert.equal(fdc.ports.read(4, 1), 0x80);
});

test('random port accesses never throw, and the chip always comes to rest', () => {
  let seed = 12345;
  const random = (): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return seed >>> 8;
  };
  const { fdc, dma, serve, start, out } = make();
  start();
  for (let n = 0; n < 40_000; n++) {
    const kind = random() % 8;
    if (kind < 4) out(random() % 6, random() & 0xff);
    else if (kind === 4) fdc.ports.read(random() % 6, 1);
    else if (kind === 5) dma.first.write(random() % 16, 1, random() & 0xff);
    else if (kind === 6) fdc.lastPort.write(0, 1, random() & 3);
    else serve();
  }
  out(2, 0);
  out(2, 0x1c);
  assert.equal(fdc.ports.read(4, 1), 0x80);
});

snapshotSuite(
  fdcState,
  (state) => make(state),
  ({ fdc, command, start }) => {
    start();
    command(0x0f, 0, 5);
    fdc.ports.write(5, 1, 0x10);
  },
  ({ fdc }) => [0, 1, 2, 3, 4, 5, 4].map((offset) => fdc.ports.read(offset, 1)),
);
