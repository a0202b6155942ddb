import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I8254, i8254State, PIT_HZ } from './i8254.ts';
import { FakeClock, fresh, RecordedLine, snapshotSuite } from './testing.ts';

const TICK = 1e9 / PIT_HZ;
function make() {
  const clock = new FakeClock();
  const irq = new RecordedLine();
  const pit = new I8254(fresh(i8254State), { clock, irq });
  pit.reset();
  return { clock, irq, pit };
}
const load = (pit: I8254, channel: number, control: number, count: number): void => {
  pit.write(3, 1, (channel << 6) | control);
  pit.write(channel, 1, count & 0xff);
  pit.write(channel, 1, count >> 8);
};
const counter = (pit: I8254, channel: number): number => {
  pit.write(3, 1, channel << 6);
  const low = pit.read(channel, 1);
  return low | (pit.read(channel, 1) << 8);
};

test('channel 0 as Linux sets it for 100 Hz: no drift over a minute', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x34, 11932);
  irq.edges = 0;
  clock.advance(60e9);
  assert.equal(irq.edges, Math.floor((60 * PIT_HZ) / 11932));
  assert.equal(irq.level, true, 'mode 2 rests high');
});

test('mode 3 of the BIOS, 18.2 Hz, is as regular', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x36, 0);
  irq.edges = 0;
  clock.advance(10e9);
  assert.equal(irq.edges, 182);
});

test('one shot of channel 0 (mode 0), and shut down', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x30, 1193);
  assert.equal(irq.level, false);
  clock.advance(900e3);
  assert.equal(irq.level, false);
  clock.advance(200e3);
  assert.equal(irq.level, true);
  assert.equal(irq.edges, 1);
  pit.write(3, 1, 0x30);
  assert.equal(irq.level, false);
  clock.advance(1e9);
  assert.equal(irq.edges, 1);
});

test('mode 4: a strobe after the count, once', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x38, 1000);
  irq.edges = 0;
  clock.advance(5e6);
  assert.equal(irq.edges, 1);
});

test('a host that was late makes up for 20 ms, in steps, and keeps the phase', () => {
  let now = 0;
  let callback = (): void => {};
  let deadline = Infinity;
  const late = {
    now: () => now,
    wallTime: () => 0,
    timer: (_name: string, run: () => void) => {
      callback = run;
      const arm = (at: number): void => {
        deadline = at;
      };
      return { arm, disarm: () => arm(Infinity), deadline: 0 };
    },
  };
  const irq = new RecordedLine();
  const pit = new I8254(fresh(i8254State), { clock: late, irq });
  pit.reset();
  load(pit, 0, 0x34, 1193); // 1 ms
  irq.edges = 0;
  now = 1e9;
  const period = 1193 * TICK;
  for (let i = 0; i < 1000; i++) {
    callback();
    if (deadline > now + period * 0.6) break;
    now = deadline;
  }
  assert.ok(irq.edges >= 20 && irq.edges <= 45, `${irq.edges}`);
  const phase = (deadline / period) % 1;
  assert.ok(phase < 0.001 || phase > 0.999, `${phase}`);
});

test('a period that is too short does not flood', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x34, 2);
  irq.edges = 0;
  clock.advance(10e6);
  assert.ok(irq.edges <= 200, `${irq.edges}`);
});

test('calibration by channel 2 in mode 0, as Linux pit_calibrate_tsc does', () => {
  const { clock, pit } = make();
  pit.port61.write(0, 1, (pit.port61.read(0, 1) & ~2) | 1);
  load(pit, 2, 0x30, 0xe90b); // 50 ms
  assert.equal(pit.port61.read(0, 1) & 0x20, 0);
  clock.advance(49.9e6);
  assert.equal(pit.port61.read(0, 1) & 0x20, 0);
  clock.advance(0.2e6);
  assert.equal(pit.port61.read(0, 1) & 0x23, 0x21);
});

test('the gate stops channel 2, and goes on with it', () => {
  const { clock, pit } = make();
  pit.port61.write(0, 1, 1);
  load(pit, 2, 0x30, 10000);
  clock.advance(Math.ceil(1000 * TICK));
  assert.equal(counter(pit, 2), 9000);
  pit.port61.write(0, 1, 0);
  clock.advance(1e9);
  assert.equal(counter(pit, 2), 9000);
  pit.port61.write(0, 1, 1);
  clock.advance(Math.ceil(500 * TICK));
  assert.equal(counter(pit, 2), 8500);
});

test('refresh toggles every 15 us, and the speaker sounds', () => {
  const { clock, pit } = make();
  let changes = 0;
  let last = pit.port61.read(0, 1) & 0x10;
  for (let i = 0; i < 1000; i++) {
    clock.advance(1000);
    const bit = pit.port61.read(0, 1) & 0x10;
    if (bit !== last) changes++;
    last = bit;
  }
  assert.equal(changes, 66);
  load(pit, 2, 0x36, 1193);
  assert.equal(pit.speakerHz, 0);
  pit.port61.write(0, 1, 3);
  assert.equal(Math.round(pit.speakerHz), 1000);
});

test('latch holds until read; counting goes down; wraps in mode 0', () => {
  const { clock, pit } = make();
  load(pit, 1, 0x34, 1000);
  clock.advance(Math.ceil(10 * TICK));
  pit.write(3, 1, 0x40);
  clock.advance(Math.ceil(10 * TICK));
  pit.write(3, 1, 0x40);
  assert.equal(pit.read(1, 1) | (pit.read(1, 1) << 8), 990);
  assert.equal(counter(pit, 1), 980);
  load(pit, 1, 0x30, 10);
  clock.advance(Math.ceil(12 * TICK));
  assert.equal(counter(pit, 1), 0xfffe);
});

test('read-back: status and count', () => {
  const { clock, pit } = make();
  pit.write(3, 1, 0x34);
  pit.write(3, 1, 0xe2);
  assert.equal(pit.read(0, 1), 0xf4, 'out, null count, access 3, mode 2');
  load(pit, 0, 0x36, 0x2000);
  clock.advance(Math.ceil(0x1800 * TICK));
  pit.write(3, 1, 0xc2);
  assert.equal(pit.read(0, 1), 0x36, 'second half of the square wave');
  assert.equal(pit.read(0, 1) | (pit.read(0, 1) << 8), 0x1000);
});

test('BCD', () => {
  const { clock, pit } = make();
  load(pit, 1, 0x35, 0x1000);
  clock.advance(Math.ceil(1 * TICK));
  assert.equal(counter(pit, 1), 0x0999);
  load(pit, 1, 0x31, 0);
  assert.equal(counter(pit, 1), 0, '10000 reads as 0000');
});

test('a new count in mode 2 starts when the period ends', () => {
  const { clock, irq, pit } = make();
  load(pit, 0, 0x34, 11932); // 10 ms
  irq.edges = 0;
  clock.advance(2e6);
  pit.write(0, 1, 0xa5);
  pit.write(0, 1, 0x04); // 1189, 1 ms
  clock.advance(7.9e6);
  assert.equal(irq.edges, 0);
  clock.advance(0.2e6);
  assert.equal(irq.edges, 1);
  clock.advance(10e6);
  assert.equal(irq.edges, 11);
});

test('mode 1: the gate triggers a pulse, again while it runs', () => {
  const { clock, pit } = make();
  load(pit, 2, 0x32, 1000);
  assert.equal(pit.port61.read(0, 1) & 0x20, 0x20);
  pit.port61.write(0, 1, 1);
  assert.equal(pit.port61.read(0, 1) & 0x20, 0);
  clock.advance(600 * TICK);
  pit.port61.write(0, 1, 0);
  pit.port61.write(0, 1, 1);
  clock.advance(600 * TICK);
  assert.equal(pit.port61.read(0, 1) & 0x20, 0);
  clock.advance(600 * TICK);
  assert.equal(pit.port61.read(0, 1) & 0x20, 0x20);
});

test('any sequence of writes leaves numbers in range', () => {
  const { clock, pit } = make();
  let seed = 7;
  const random = (n: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 20000; i++) {
    if (random(4) === 0) pit.port61.write(0, 1, random(256));
    else pit.write(random(4), 1, random(256));
    clock.advance(random(20000));
    const value = pit.read(random(3), 1);
    assert.ok(value >= 0 && value <= 255 && Number.isInteger(value), `${value}`);
  }
});

snapshotSuite(
  i8254State,
  (state, clock) => new I8254(state, { clock, irq: new RecordedLine() }),
  (pit, clock) => {
    load(pit, 0, 0x34, 11932);
    clock.advance(123456);
    pit.write(0, 1, 5);
    pit.port61.write(0, 1, 3);
    load(pit, 2, 0xb6 & 0x3f, 1000);
    pit.write(3, 1, 0xc2);
  },
  (pit) => [pit.read(0, 1), pit.read(0, 1), pit.read(0, 1), counter(pit, 2), pit.port61.read(0, 1), pit.speakerHz],
);
