import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cmos, cmosState } from './cmos.ts';
import { FakeClock, fresh, RecordedLine, snapshotSuite } from './testing.ts';

function make() {
  const clock = new FakeClock();
  const irq = new RecordedLine();
  const nmi: boolean[] = [];
  const state = fresh(cmosState);
  const rtc = new Cmos(state, { clock, irq, nmiMask: (masked) => nmi.push(masked) });
  rtc.reset();
  return { clock, irq, nmi, rtc, state };
}
const get = (rtc: Cmos, index: number): number => {
  rtc.write(0, 1, index);
  return rtc.read(1, 1);
};
const put = (rtc: Cmos, index: number, value: number): void => {
  rtc.write(0, 1, index);
  rtc.write(1, 1, value);
};
const time = (rtc: Cmos): string =>
  [0x32, 9, 8, 7, 4, 2, 0].map((index) => get(rtc, index).toString(16).padStart(2, '0')).join(' ');

test('time in BCD and 24 hours, day of the week, as the host has it', () => {
  const { clock, rtc } = make();
  assert.equal(time(rtc), '20 26 01 02 03 04 05');
  assert.equal(get(rtc, 6), 6, 'a Friday');
  clock.advance(3600e9 * 21);
  assert.equal(time(rtc), '20 26 01 03 00 04 05');
  assert.equal(get(rtc, 0x37), 0x20, 'the century again');
  assert.equal(get(rtc, 0x0d), 0x80);
});

test('binary and 12 hours', () => {
  const { clock, rtc } = make();
  put(rtc, 0x0b, 0x04);
  assert.equal(get(rtc, 4), 3);
  clock.advance(3600e9 * 9);
  assert.equal(get(rtc, 4), 0x8c, '12 p.m.');
  clock.advance(3600e9 * 12);
  assert.equal(get(rtc, 4), 12, 'midnight');
  put(rtc, 0x0b, 0x06);
  assert.equal(get(rtc, 4), 0);
  assert.equal(get(rtc, 9), 26);
});

test('UIP goes up just before the second changes', () => {
  const { clock, rtc } = make();
  assert.equal(get(rtc, 0x0a), 0x26);
  clock.advance(998e6);
  assert.equal(get(rtc, 0x0a), 0xa6);
  assert.equal(get(rtc, 0), 5);
  clock.advance(2e6);
  assert.equal(get(rtc, 0x0a), 0x26);
  assert.equal(get(rtc, 0), 6);
});

test('setting the clock as Linux mc146818_set_time does', () => {
  const { clock, rtc } = make();
  clock.advance(0.3e9);
  put(rtc, 0x0b, get(rtc, 0x0b) | 0x80);
  put(rtc, 0x0a, 0x70 | 6);
  const values: [number, number][] = [
    [9, 0x99],
    [8, 0x12],
    [7, 0x31],
    [4, 0x23],
    [2, 0x59],
    [0, 0x58],
    [0x32, 0x19],
  ];
  for (const [index, value] of values) put(rtc, index, value);
  clock.advance(10e9);
  assert.equal(time(rtc), '19 99 12 31 23 59 58', 'stands still');
  put(rtc, 0x0b, 0x02);
  put(rtc, 0x0a, 0x26);
  assert.equal(time(rtc), '19 99 12 31 23 59 58');
  clock.advance(0.6e9);
  assert.equal(time(rtc), '19 99 12 31 23 59 59', 'half a second after the divider was let go');
  clock.advance(1e9);
  assert.equal(time(rtc), '20 00 01 01 00 00 00');
  assert.ok(rtc.offsetMs < -8e11);
});

test('a register that is written while the clock runs changes it at once', () => {
  const { clock, rtc } = make();
  clock.advance(0.25e9);
  put(rtc, 4, 0x17);
  assert.equal(time(rtc), '20 26 01 02 17 04 05');
  assert.equal(rtc.offsetMs, 14 * 3600e3);
});

test('SET keeps the fraction of the second', () => {
  const { clock, rtc } = make();
  clock.advance(0.9e9);
  put(rtc, 0x0b, 0x82);
  put(rtc, 0x0b, 0x02);
  assert.equal(rtc.offsetMs, 0);
  clock.advance(0.2e9);
  assert.equal(get(rtc, 0), 6);
});

test('update interrupt: once a second, until C is read', () => {
  const { clock, irq, rtc } = make();
  put(rtc, 0x0b, 0x12);
  clock.advance(2.5e9);
  assert.equal(irq.edges, 1);
  assert.equal(get(rtc, 0x0c), 0xd0, 'periodic flag comes with it');
  assert.equal(irq.level, false);
  assert.equal(get(rtc, 0x0c), 0);
  clock.advance(0.6e9);
  assert.equal(irq.edges, 2);
});

test('flags come without interrupts', () => {
  const { clock, irq, rtc } = make();
  clock.advance(1e9);
  assert.equal(get(rtc, 0x0c), 0x50);
  assert.equal(irq.edges, 0);
});

test('periodic interrupt at 1024 Hz: as often as C is read; none while it is not', () => {
  const { clock, irq, rtc } = make();
  put(rtc, 0x0a, 0x26);
  put(rtc, 0x0b, 0x42);
  clock.advance(1e9);
  assert.equal(irq.edges, 1);
  get(rtc, 0x0c);
  irq.edges = 0;
  for (let i = 0; i < 4096; i++) {
    clock.advance(1e9 / 4096);
    if (irq.level) get(rtc, 0x0c);
  }
  assert.ok(Math.abs(irq.edges - 1024) <= 1, `${irq.edges}`);
});

test('alarm at a time, every minute, and never', () => {
  const { clock, irq, rtc } = make();
  put(rtc, 5, 0x03);
  put(rtc, 3, 0x05);
  put(rtc, 1, 0x00);
  put(rtc, 0x0b, 0x22);
  clock.advance(54e9);
  assert.equal(irq.edges, 0);
  clock.advance(1.01e9);
  assert.equal(irq.edges, 1);
  assert.equal(get(rtc, 0x0c) & 0xa0, 0xa0);
  put(rtc, 5, 0xff);
  put(rtc, 3, 0xff);
  for (let i = 0; i < 3; i++) {
    clock.advance(60e9);
    get(rtc, 0x0c);
  }
  assert.equal(irq.edges, 4);
  put(rtc, 1, 0x77);
  clock.advance(86400e9);
  assert.equal(irq.edges, 4);
});

test('RAM: what firmware reads, kept over a reset', () => {
  const { clock, irq, rtc } = make();
  rtc.configure({ ramBelow4G: 0xc0000000, ramAbove4G: 0x140000000, cpus: 4, bootOrder: [3, 2, 1] });
  const get16 = (at: number): number => get(rtc, at) | (get(rtc, at + 1) << 8);
  assert.equal(get16(0x15), 640);
  assert.equal(get16(0x30), 65535);
  assert.equal(get16(0x34) * 65536 + 2 ** 24, 0xc0000000);
  assert.equal((get16(0x5b) + get(rtc, 0x5d) * 65536) * 65536, 0x140000000);
  assert.equal(get(rtc, 0x5f), 3);
  assert.deepEqual([get(rtc, 0x3d), get(rtc, 0x38)], [0x23, 0x10]);
  put(rtc, 0x0f, 0x0a);
  put(rtc, 0x0b, 0x52);
  clock.advance(2e9);
  assert.equal(irq.level, true);
  rtc.reset();
  assert.equal(irq.level, false);
  assert.equal(get(rtc, 0x0f), 0x0a);
  assert.equal(get(rtc, 0x0b), 0x02);
});

test('NMI mask, 16-bit writes', () => {
  const { nmi, rtc } = make();
  nmi.length = 0;
  rtc.write(0, 1, 0x8f);
  rtc.write(0, 1, 0x8d);
  assert.equal(rtc.nmiMasked, true);
  rtc.write(0, 1, 0x0d);
  assert.deepEqual(nmi, [true, false]);
  rtc.write(0, 2, 0x5a40);
  assert.equal(get(rtc, 0x40), 0x5a);
});

test('any sequence of writes gives bytes', () => {
  const { clock, rtc } = make();
  let seed = 3;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 5000; i++) {
    put(rtc, random(2) === 0 ? random(14) : random(128), random(256));
    clock.advance(random(3e8));
    const value = get(rtc, random(128));
    assert.ok(Number.isInteger(value) && value >= 0 && value <= 255);
  }
  assert.ok(Number.isFinite(rtc.offsetMs));
});

snapshotSuite(
  cmosState,
  (state, clock) => new Cmos(state, { clock, irq: new RecordedLine() }),
  (rtc, clock) => {
    rtc.configure({ ramBelow4G: 2 ** 29, ramAbove4G: 0, cpus: 2, bootOrder: [2] });
    put(rtc, 4, 0x11);
    put(rtc, 0x0b, 0x52);
    clock.advance(1.1e9);
    rtc.write(0, 1, 0x8c);
  },
  (rtc) => [rtc.nmiMasked, Array.from({ length: 128 }, (_, index) => get(rtc, index))],
);
