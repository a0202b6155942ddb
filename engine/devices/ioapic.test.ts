import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IoApic, ioapicState } from './ioapic.ts';
import { fresh, snapshotSuite } from './testing.ts';

function make() {
  const sent: string[] = [];
  const apic = new IoApic(fresh(ioapicState), {
    id: 2,
    deliver: (destination, logical, delivery, vector, level) => {
      sent.push(`${destination}${logical ? 'L' : 'P'} ${delivery} 0x${vector.toString(16)} ${level ? 'level' : 'edge'}`);
      return destination !== 9;
    },
  });
  apic.reset();
  return { apic, sent };
}
function set(apic: IoApic, index: number, value: number): void {
  apic.write(0, 4, index);
  apic.write(0x10, 4, value);
}
function get(apic: IoApic, index: number): number {
  apic.write(0, 4, index);
  return apic.read(0x10, 4);
}

test('identification', () => {
  const { apic } = make();
  assert.equal(get(apic, 1), 0x170020);
  assert.equal(get(apic, 0), 0x02000000);
  set(apic, 0, 0xff000000);
  assert.equal(get(apic, 0), 0x0f000000);
  assert.equal(get(apic, 0x10), 0x10000);
  assert.equal(get(apic, 0x3f), 0);
  assert.equal(get(apic, 0x40), 0);
});

test('edge: each rising edge is a message, an edge while masked is lost', () => {
  const { apic, sent } = make();
  apic.pins[4].set(true);
  set(apic, 0x18, 0x34);
  assert.deepEqual(sent, []);
  apic.pins[4].set(false);
  apic.pins[4].set(true);
  apic.pins[4].set(true);
  assert.deepEqual(sent, ['0P 0 0x34 edge']);
});

test('level: one message until EOI, again where the line is still up; unmasking sees the level', () => {
  const { apic, sent } = make();
  set(apic, 0x2b, 0x03000000);
  apic.pins[13].set(true);
  set(apic, 0x2a, 0x8000 | 0x2000 | 0x800 | 0x100 | 0x61);
  assert.deepEqual(sent, ['3L 1 0x61 level']);
  assert.equal(get(apic, 0x2a) & 0x4000, 0x4000, 'remote IRR');
  assert.equal(get(apic, 0x2a) & 0x2000, 0x2000, 'polarity is kept');
  apic.eoi(0x60);
  assert.equal(sent.length, 1);
  apic.eoi(0x61);
  assert.equal(sent.length, 2);
  apic.pins[13].set(false);
  apic.write(0x40, 4, 0x61);
  assert.equal(sent.length, 2);
  assert.equal(get(apic, 0x2a) & 0x4000, 0);
});

test('switching to edge clears remote IRR', () => {
  const { apic, sent } = make();
  set(apic, 0x20, 0x8061);
  apic.pins[8].set(true);
  set(apic, 0x20, 0x10061);
  set(apic, 0x20, 0x18061);
  set(apic, 0x20, 0x8061);
  assert.equal(sent.length, 2);
});

test('a level that no APIC took leaves no remote IRR, and is offered again', () => {
  const { apic, sent } = make();
  set(apic, 0x21, 0x09000000);
  set(apic, 0x20, 0x8061);
  apic.pins[8].set(true);
  assert.equal(get(apic, 0x20) & 0x4000, 0);
  set(apic, 0x21, 0x01000000);
  apic.pins[8].set(true);
  apic.pins[8].set(true);
  assert.deepEqual(sent, ['9P 0 0x61 level', '1P 0 0x61 level']);
});

snapshotSuite(
  ioapicState,
  (state) => new IoApic(state, { id: 1, deliver: () => true }),
  (apic) => {
    set(apic, 0x2a, 0x8061);
    set(apic, 0x2b, 0x05000000);
    apic.pins[13].set(true);
    apic.write(0, 4, 0x2a);
  },
  (apic) => [apic.read(0, 4), apic.read(0x10, 4), apic.describe()],
);
