import assert from 'node:assert/strict';
import { test } from 'node:test';
import { I8259, i8259State } from './i8259.ts';
import { fresh, RecordedLine, snapshotSuite } from './testing.ts';

/** The sequence of Linux `init_8259A`, with ICW4 as given. */
function program(pic: I8259, icw4 = 1): void {
  pic.master.write(1, 1, 0xff);
  pic.master.write(0, 1, 0x11);
  pic.master.write(1, 1, 0x30);
  pic.master.write(1, 1, 0x04);
  pic.master.write(1, 1, icw4);
  pic.slave.write(0, 1, 0x11);
  pic.slave.write(1, 1, 0x38);
  pic.slave.write(1, 1, 0x02);
  pic.slave.write(1, 1, icw4);
  pic.master.write(1, 1, 0);
  pic.slave.write(1, 1, 0);
}
function make(icw4 = 1) {
  const intr = new RecordedLine();
  const pic = new I8259(fresh(i8259State), { intr });
  pic.reset();
  program(pic, icw4);
  return { pic, intr };
}
const pulse = (pic: I8259, line: number): void => {
  pic.lines[line].set(true);
  pic.lines[line].set(false);
};

test('edge on the first chip: vector, in service until EOI', () => {
  const { pic, intr } = make();
  pic.lines[1].set(true);
  assert.equal(intr.level, true);
  assert.equal(pic.acknowledge(), 0x31);
  assert.equal(intr.level, false);
  pic.master.write(0, 1, 0x0b);
  assert.equal(pic.master.read(0, 1), 2, 'ISR');
  pic.lines[1].set(true);
  assert.equal(intr.level, false, 'no new edge');
  pulse(pic, 3);
  assert.equal(intr.level, false, 'lower priority waits');
  pic.lines[0].set(true);
  assert.equal(pic.acknowledge(), 0x30, 'higher priority nests');
  pic.master.write(0, 1, 0x60);
  pic.master.write(0, 1, 0x61);
  assert.equal(pic.acknowledge(), 0x33);
});

test('cascade: edges of the second chip, one after another', () => {
  const { pic, intr } = make();
  pulse(pic, 14);
  pulse(pic, 8);
  assert.equal(pic.acknowledge(), 0x38);
  assert.equal(intr.level, false);
  pic.slave.write(0, 1, 0x20);
  pic.master.write(0, 1, 0x20);
  assert.equal(intr.level, true);
  assert.equal(pic.acknowledge(), 0x3e);
  pic.slave.write(0, 1, 0x66);
  pic.master.write(0, 1, 0x62);
  assert.equal(intr.level, false);
});

test('cascade with automatic EOI loses nothing', () => {
  const { pic, intr } = make(3);
  pulse(pic, 12);
  pulse(pic, 10);
  pulse(pic, 15);
  assert.deepEqual([pic.acknowledge(), pic.acknowledge(), pic.acknowledge()], [0x3a, 0x3c, 0x3f]);
  assert.equal(intr.level, false);
});

test('mask, and what was latched under it', () => {
  const { pic, intr } = make();
  pic.master.write(1, 1, 0xff);
  pulse(pic, 4);
  assert.equal(intr.level, false);
  assert.equal(pic.master.read(1, 1), 0xff);
  assert.equal(pic.master.read(0, 1), 0x10, 'IRR');
  pic.master.write(1, 1, 0xef);
  assert.equal(pic.acknowledge(), 0x34);
});

test('level lines ask again after EOI, and a line that fell gives spurious IRQ 7 and 15', () => {
  const { pic, intr } = make();
  pic.elcr.write(0, 1, 0xff);
  pic.elcr.write(1, 1, 0xff);
  assert.equal(pic.elcr.read(0, 1), 0xf8);
  assert.equal(pic.elcr.read(1, 1), 0xde);
  assert.equal(pic.elcr.read(0, 2), 0xdef8);
  pic.lines[5].set(true);
  assert.equal(pic.acknowledge(), 0x35);
  pic.master.write(0, 1, 0x20);
  assert.equal(intr.level, true);
  pic.lines[5].set(false);
  assert.equal(intr.level, false);
  assert.equal(pic.acknowledge(), 0x37);
  pic.master.write(0, 1, 0x0b);
  assert.equal(pic.master.read(0, 1), 0, 'spurious has no bit in service');
  pic.lines[11].set(true);
  assert.equal(pic.acknowledge(), 0x3b);
  pic.slave.write(0, 1, 0x20);
  pic.master.write(0, 1, 0x20);
  assert.equal(intr.level, true);
  pic.slave.write(1, 1, 0xff);
  assert.equal(intr.level, false);
});

test('rotation, set priority, special mask, poll', () => {
  const { pic, intr } = make();
  pic.master.write(0, 1, 0xc0 | 3);
  for (const line of [1, 3, 4]) pulse(pic, line);
  assert.equal(pic.acknowledge(), 0x34);
  pic.master.write(0, 1, 0xa0);
  assert.equal(pic.acknowledge(), 0x31, 'after rotating, 5 6 7 0 1 come before 3');
  pic.master.write(0, 1, 0x20);
  assert.equal(pic.acknowledge(), 0x33);
  pic.master.write(0, 1, 0xc7);
  pulse(pic, 6);
  assert.equal(intr.level, false);
  pic.master.write(0, 1, 0x68);
  pic.master.write(1, 1, 0x08);
  assert.equal(intr.level, true, 'the level in service is masked in special mask mode');
  pic.master.write(0, 1, 0x0c);
  assert.equal(pic.master.read(0, 1), 0x86);
  pic.master.write(0, 1, 0x0c);
  assert.equal(pic.master.read(0, 1), 0);
});

test('ICW1 clears the mask and what was pending', () => {
  const { pic, intr } = make();
  pulse(pic, 9);
  assert.equal(intr.level, true);
  program(pic);
  assert.equal(intr.level, false);
});

snapshotSuite(
  i8259State,
  (state) => new I8259(state, { intr: new RecordedLine() }),
  (pic) => {
    program(pic);
    pic.elcr.write(0, 2, 0x0c20);
    pic.lines[10].set(true);
    pulse(pic, 4);
    pic.acknowledge();
  },
  (pic) => [pic.describe(), pic.pending, pic.acknowledge(), pic.master.read(0, 1), pic.slave.read(1, 1)],
);
