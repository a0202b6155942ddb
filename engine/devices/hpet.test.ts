import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Hpet, hpetState } from './hpet.ts';
import { FakeClock, fresh, RecordedLine, snapshotSuite } from './testing.ts';

function make(routes?: number) {
  const clock = new FakeClock();
  const lines = Array.from({ length: 24 }, () => new RecordedLine());
  const irq0 = new RecordedLine();
  const irq8 = new RecordedLine();
  const legacy: boolean[] = [];
  const hpet = new Hpet(fresh(hpetState), { clock, lines, irq0, irq8, routes, legacyChanged: (on) => legacy.push(on) });
  hpet.reset();
  legacy.length = 0;
  const put = (offset: number, value: number): void => hpet.write(offset, 4, value >>> 0);
  const get = (offset: number): number => hpet.read(offset, 4);
  return { clock, lines, irq0, irq8, legacy, hpet, put, get };
}

test('capabilities: three timers, 64 bits, 100 MHz, and a counter that stands', () => {
  const { clock, get, put, hpet } = make();
  assert.equal(get(0), 0x8086a201);
  assert.equal(get(4), 10_000_000);
  clock.advance(1e6);
  assert.equal(get(0xf0), 0);
  put(0x10, 1);
  clock.advance(1e6);
  assert.equal(get(0xf0), 100_000);
  assert.equal(hpet.read(0xf2, 2), 1);
  put(0x10, 0);
  clock.advance(1e6);
  assert.equal(get(0xf0), 100_000);
  put(0xf0, 0xfffffff0);
  put(0xf4, 7);
  put(0x10, 1);
  clock.advance(1000);
  assert.deepEqual([get(0xf4), get(0xf0)], [8, 84]);
  assert.equal(get(0x104), 4);
});

test('periodic with legacy replacement, as Linux hpet_clkevt_set_state_periodic does it', () => {
  const { clock, put, get, irq0, legacy } = make();
  put(0x10, 3);
  assert.deepEqual(legacy, [true]);
  clock.advance(12345);
  put(0x10, 2);
  const delta = 400_000; // 4 ms
  put(0x100, get(0x100) | 0x14c);
  put(0x108, get(0xf0) + delta);
  put(0x108, delta);
  put(0x10, 3);
  clock.advance(1e9 + 1000);
  assert.equal(irq0.edges, 250);
  clock.advance(60e9);
  assert.equal(irq0.edges, 250 + 15000, 'no drift, over the wrap of 32 bits too');
  assert.ok((get(0x108) - get(0xf0)) >>> 0 <= delta);
});

test('one shot, as Linux hpet_clkevt_set_next_event does it', () => {
  const { clock, put, get, irq0 } = make();
  put(0x10, 3);
  put(0x100, 0x104);
  for (let i = 1; i <= 5; i++) {
    put(0x108, get(0xf0) + 100_000);
    clock.advance(0.9e6);
    assert.equal(irq0.edges, i - 1);
    clock.advance(0.2e6);
    assert.equal(irq0.edges, i);
  }
  clock.advance(40e9);
  assert.equal(irq0.edges, 5);
  clock.advance(4e9);
  assert.equal(irq0.edges, 6, 'the counter came round');
});

test('a level interrupt stays until its status is written', () => {
  const { clock, put, get, lines } = make(0x00f00000);
  put(0x10, 1);
  put(0x140, (20 << 9) | 6);
  put(0x148, 1000);
  put(0x14c, 0);
  clock.advance(20_000);
  assert.equal(lines[20].level, true);
  assert.equal(get(0x20), 4);
  put(0x20, 3);
  assert.equal(lines[20].level, true);
  put(0x20, 4);
  assert.equal(lines[20].level, false);
  assert.equal(get(0x20), 0);
});

test('a level interrupt goes with its timer; routes that are not offered lead nowhere', () => {
  const { clock, put, lines } = make();
  put(0x10, 1);
  put(0x120, (2 << 9) | 6);
  put(0x128, 100);
  put(0x12c, 0);
  put(0x140, (5 << 9) | 4);
  put(0x148, 100);
  put(0x14c, 0);
  clock.advance(2000);
  assert.equal(lines[2].level, true);
  assert.equal(lines[5].edges, 0);
  put(0x120, 0);
  assert.equal(lines[2].level, false);
});

test('64 bits: comparator in two halves, period in two halves', () => {
  const { clock, put, get, lines } = make();
  put(0xf0, 0xffffff00);
  put(0x120, (2 << 9) | 0x4c);
  put(0x128, 0x100);
  put(0x12c, 1);
  put(0x128, 1000);
  put(0x12c, 0);
  put(0x10, 1);
  clock.advance(5110);
  assert.equal(lines[2].edges, 0);
  clock.advance(20);
  assert.equal(lines[2].edges, 1);
  assert.deepEqual([get(0x12c), get(0x128)], [1, 0x100 + 1000]);
  clock.advance(1e6);
  assert.ok(lines[2].edges <= 21, 'not more often than every 50 us');
});

test('a comparator without interrupt moves on too', () => {
  const { clock, put, get, lines } = make();
  put(0x120, 0x148);
  put(0x128, 1000);
  put(0x128, 100);
  put(0x10, 1);
  clock.advance(15_005);
  assert.equal(get(0x128), 1600);
  put(0x120, get(0x120) | 4 | (2 << 9));
  assert.equal(lines[2].edges, 0);
});

test('any sequence of writes gives 32-bit values and ends', () => {
  const { clock, put, get } = make(0xffffff);
  let seed = 9;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 4000; i++) {
    const at = random(3) === 0 ? [0x10, 0xf0, 0xf4, 0x20][random(4)] : 0x100 + random(28) * 4;
    put(at, random(2) === 0 ? random(0x10000) : random(2 ** 24) * 257);
    clock.advance(random(300_000));
    const value = get(random(0x100) * 4);
    assert.ok(Number.isInteger(value) && value >= 0 && value <= 0xffffffff);
  }
});

snapshotSuite(
  hpetState,
  (state, clock) => new Hpet(state, { clock, lines: [], irq0: new RecordedLine(), irq8: new RecordedLine() }),
  (hpet, clock) => {
    hpet.write(0x10, 4, 3);
    hpet.write(0x100, 4, 0x14c);
    hpet.write(0x108, 4, 5000);
    clock.advance(12_345);
    hpet.write(0x120, 4, 0x406);
    hpet.write(0x128, 4, 2000);
    hpet.write(0x12c, 4, 0);
    clock.advance(20_000);
  },
  (hpet) => Array.from({ length: 0x160 / 4 }, (_, i) => hpet.read(i * 4, 4)),
);
