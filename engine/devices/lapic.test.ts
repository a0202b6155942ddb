import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LocalApic, lapicState, MSR_APIC_BASE, MSR_TSC_DEADLINE } from './lapic.ts';
import { ApicBus, Delivery } from './lapic-bus.ts';
import { FakeClock, fresh, snapshotSuite } from './testing.ts';

function machine(count: number) {
  const clock = new FakeClock();
  const bus = new ApicBus();
  const signals: string[] = [];
  const eois: number[] = [];
  const apics = Array.from(
    { length: count },
    (_, i) =>
      new LocalApic(
        fresh(lapicState),
        {
          cpuIndex: i,
          apicId: i,
          bootstrap: i === 0,
          clock,
          tscToNs: (ticks) => ticks / 2,
          signal: (cpu, what, vector) => signals.push(vector === undefined ? `${cpu}:${what}` : `${cpu}:${what}:${vector}`),
          broadcastEoi: (vector) => eois.push(vector),
        },
        bus,
      ),
  );
  for (const apic of apics) {
    apic.reset();
    apic.write(0xf0, 4, 0x1ff);
  }
  signals.length = 0;
  return { clock, bus, signals, eois, apics };
}
const out = new Uint32Array(2);

test('priority: the highest vector above the processor priority is taken, EOI lets the next one in', () => {
  const { apics, signals } = machine(1);
  const [apic] = apics;
  apic.accept(0x31, false, Delivery.fixed);
  apic.accept(0x55, false, Delivery.fixed);
  assert.deepEqual(signals, ['0:intr', '0:intr']);
  assert.equal(apic.acknowledge(), 0x55);
  assert.equal(apic.pendingVector(), -1);
  apic.accept(0x5f, false, Delivery.fixed);
  assert.equal(apic.pendingVector(), -1, 'same class does not nest');
  apic.write(0xb0, 4, 0);
  assert.equal(apic.acknowledge(), 0x5f);
  apic.eoi();
  apic.cr8 = 4;
  assert.equal(apic.acknowledge(), -1);
  apic.cr8 = 2;
  assert.equal(apic.acknowledge(), 0x31);
});

test('a vector below 16 is an error that the ESR shows after a write', () => {
  const { apics } = machine(1);
  const [apic] = apics;
  apic.write(0x370, 4, 0xfe);
  apic.accept(5, false, Delivery.fixed);
  assert.equal(apic.pendingVector(), 0xfe);
  assert.equal(apic.read(0x280, 4), 0);
  apic.write(0x280, 4, 0);
  assert.equal(apic.read(0x280, 4), 0x40);
});

test('level-triggered vectors broadcast their EOI, edge ones do not', () => {
  const { apics, eois } = machine(1);
  const [apic] = apics;
  apic.accept(0x40, true, Delivery.fixed);
  apic.acknowledge();
  apic.eoi();
  apic.accept(0x41, false, Delivery.fixed);
  apic.acknowledge();
  apic.eoi();
  assert.deepEqual(eois, [0x40]);
});

test('one-shot timer: counts down with its divider, fires once', () => {
  const { apics, clock } = machine(1);
  const [apic] = apics;
  apic.write(0x320, 4, 0x40);
  apic.write(0x3e0, 4, 0x3); // divide by 16
  apic.write(0x380, 4, 1000);
  clock.advance(8000 * 40);
  assert.equal(apic.read(0x390, 4), 500);
  clock.advance(8000 * 40 - 1);
  assert.equal(apic.pendingVector(), -1);
  clock.advance(1);
  assert.equal(apic.acknowledge(), 0x40);
  assert.equal(apic.read(0x390, 4), 0);
  apic.eoi();
  clock.advance(1e6);
  assert.equal(apic.pendingVector(), -1);
});

test('periodic timer: expiries are multiples of the period, also after a late look', () => {
  const { apics, clock, signals } = machine(1);
  const [apic] = apics;
  apic.write(0x3e0, 4, 0xb);
  apic.write(0x320, 4, 0x20040);
  apic.write(0x380, 4, 2500);
  clock.advance(1_000_000);
  assert.equal(signals.length, 10);
  clock.advance(99_999);
  assert.equal(signals.length, 10);
  assert.equal(apic.read(0x390, 4), 1);
  clock.advance(1);
  assert.equal(signals.length, 11);
});

test('periodic timer: a period of one count does not spin the clock', () => {
  const { apics, clock, signals } = machine(1);
  const [apic] = apics;
  apic.write(0x3e0, 4, 0xb);
  apic.write(0x320, 4, 0x20040);
  apic.write(0x380, 4, 1);
  clock.advance(1_000_000);
  assert.ok(signals.length <= 51, `${signals.length} expiries`);
  assert.ok(signals.length >= 40);
});

test('TSC deadline: fires at the tick, reads zero after, a past deadline fires at once', () => {
  const { apics, clock } = machine(1);
  const [apic] = apics;
  assert.equal(apic.writeMsr(MSR_TSC_DEADLINE, 5000, 0), true);
  apic.readMsr(MSR_TSC_DEADLINE, out);
  assert.equal(out[0], 0, 'ignored outside deadline mode');
  apic.write(0x320, 4, 0x40040);
  apic.writeMsr(MSR_TSC_DEADLINE, 5000, 0);
  clock.advance(2499);
  assert.equal(apic.pendingVector(), -1);
  clock.advance(1);
  assert.equal(apic.acknowledge(), 0x40);
  apic.readMsr(MSR_TSC_DEADLINE, out);
  assert.equal(out[0], 0);
  apic.eoi();
  apic.writeMsr(MSR_TSC_DEADLINE, 10, 0);
  clock.advance(0);
  assert.equal(apic.acknowledge(), 0x40);
});

test('ICR: INIT, SIPI, shorthands', () => {
  const { apics, signals } = machine(3);
  apics[0].write(0x310, 4, 1 << 24);
  apics[0].write(0x300, 4, 0x4500);
  apics[0].write(0x300, 4, 0x4608);
  apics[0].write(0x300, 4, 0x8500); // de-assert: nothing
  assert.deepEqual(signals, ['1:init', '1:sipi:8']);
  signals.length = 0;
  apics[1].write(0x300, 4, 0xc4000 | (Delivery.nmi << 8)); // all but self
  assert.deepEqual(signals, ['0:nmi', '2:nmi']);
  apics[2].write(0x300, 4, 0x44000 | 0x77); // self
  assert.equal(apics[2].acknowledge(), 0x77);
  assert.equal(apics[0].pendingVector(), -1);
  apics[0].write(0x300, 4, 0x84000 | 0x66); // all
  assert.deepEqual(
    apics.map((apic) => apic.pendingVector()),
    [0x66, 0x66, -1],
  );
});

test('logical destinations: flat, cluster, lowest priority', () => {
  const { apics, bus } = machine(4);
  apics.forEach((apic, i) => {
    apic.write(0xd0, 4, 2 ** (24 + i));
  });
  bus.deliver(0b1010, true, Delivery.fixed, 0x50, false);
  assert.deepEqual(
    apics.map((apic) => apic.acknowledge()),
    [-1, 0x50, -1, 0x50],
  );
  bus.deliver(0b1111, true, Delivery.lowest, 0x51, false);
  assert.equal(apics[0].acknowledge(), 0x51);
  bus.deliver(0b1111, true, Delivery.lowest, 0x52, false);
  assert.equal(apics[2].acknowledge(), 0x52, 'the busy ones are passed over');
  for (const apic of apics) apic.eoi();
  apics.forEach((apic, i) => {
    apic.write(0xe0, 4, 0x0fffffff);
    apic.write(0xd0, 4, ((i >> 1) * 16 + (1 << (i & 1))) * 2 ** 24);
  });
  bus.deliver(0x11, true, Delivery.fixed, 0x60, false);
  bus.deliver(0x02, true, Delivery.fixed, 0x61, false);
  assert.deepEqual(
    apics.map((apic) => apic.acknowledge()),
    [-1, 0x61, 0x60, -1],
  );
});

test('x2APIC: MSRs, their #GP rules, 32-bit destinations', () => {
  const { apics } = machine(20);
  const apic = apics[17];
  assert.equal(apic.readMsr(0x802, out), false, '#GP outside x2APIC mode');
  apic.readMsr(MSR_APIC_BASE, out);
  assert.equal(out[0], 0xfee00800);
  assert.equal(apic.writeMsr(MSR_APIC_BASE, 0xfee00400, 0), false);
  for (const each of apics) assert.equal(each.writeMsr(MSR_APIC_BASE, 0xfee00c00, 0), true);
  assert.equal(apic.writeMsr(MSR_APIC_BASE, 0xfee00800, 0), false, 'x2APIC to xAPIC needs a disable between');
  assert.equal(apic.mmioBase, undefined);
  assert.equal(apic.readMsr(0x802, out), true);
  assert.equal(out[0], 17);
  apic.readMsr(0x80d, out);
  assert.equal(out[0], 0x10002);
  assert.equal(apic.readMsr(0x80e, out), false);
  assert.equal(apic.readMsr(0x831, out), false);
  assert.equal(apic.readMsr(0x80b, out), false);
  assert.equal(apic.writeMsr(0x80b, 1, 0), false);
  assert.equal(apic.writeMsr(0x802, 1, 0), false);
  assert.equal(apic.readMsr(0x8ff, out), false);
  assert.equal(apics[0].writeMsr(0x830, 0x4871, 0x10002), true, 'logical, cluster 1, member 1');
  assert.equal(apic.acknowledge(), 0x71);
  assert.equal(apics[0].writeMsr(0x830, 0x4072, 17), true);
  assert.equal(apic.pendingVector(), -1);
  assert.equal(apic.writeMsr(0x80b, 0, 0), true);
  assert.equal(apic.acknowledge(), 0x72);
  assert.equal(apic.writeMsr(0x83f, 0x99, 0), true);
  assert.equal(apic.acknowledge(), 0x99);
  assert.equal(apic.writeMsr(MSR_APIC_BASE, 0xfee00000, 0), true);
  assert.equal(apic.writeMsr(MSR_APIC_BASE, 0xfee00800, 0), true);
  assert.equal(apic.mmioBase, 0xfee00000);
});

test('virtual wire: the PIC reaches the bootstrap processor through LINT0, masked it does not', () => {
  const { apics, signals } = machine(2);
  // The SVR write in the set-up enabled the APIC, and LINT0 stays as reset left it.
  apics[0].lint0.set(true);
  assert.deepEqual(signals, ['0:intr']);
  assert.equal(apics[0].extIntPending(), true);
  apics[1].lint0.set(true);
  assert.equal(apics[1].extIntPending(), false);
  apics[0].write(0x350, 4, 0x10700);
  assert.equal(apics[0].interruptPending(), false);
  apics[0].write(0x350, 4, 0x700);
  assert.equal(apics[0].interruptPending(), true);
  apics[0].write(0x360, 4, 0x400);
  apics[0].lint1.set(true);
  assert.equal(signals.at(-1), '0:nmi');
});

test('MSI: destination, mode, vector; level de-asserted is nothing', () => {
  const { bus, apics } = machine(2);
  bus.deliverMsi(0xfee01000, 0x4055);
  assert.equal(apics[1].acknowledge(), 0x55);
  bus.deliverMsi(0xfee01000, 0x8066);
  assert.equal(apics[1].pendingVector(), -1);
  bus.deliverMsi(0xfeeff000, 0x77);
  assert.equal(apics[0].acknowledge(), 0x77);
});

test('a disabled APIC takes no fixed interrupts; software disable masks the LVT', () => {
  const { apics } = machine(1);
  const [apic] = apics;
  apic.write(0x320, 4, 0x40);
  apic.write(0xf0, 4, 0xff);
  apic.accept(0x80, false, Delivery.fixed);
  assert.equal(apic.pendingVector(), -1);
  assert.equal(apic.read(0x320, 4) & 0x10000, 0x10000);
  apic.write(0x320, 4, 0x40);
  assert.equal(apic.read(0x320, 4) & 0x10000, 0x10000);
});

test('random register traffic never throws', () => {
  const { apics, clock } = machine(2);
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return seed;
  };
  for (let i = 0; i < 20_000; i++) {
    const apic = apics[random() % 7 === 0 ? 1 : 0];
    const value = random();
    if (i % 3 === 0) apic.write(random() % 0x1000, 4, value);
    else if (i % 3 === 1) apic.writeMsr(0x800 + (random() % 0x100), value, random());
    else apic.read(random() % 0x1000, 4);
    if (i % 500 === 0) {
      apic.writeMsr(MSR_APIC_BASE, 0xfee00000 | ((random() & 3) << 10), 0);
      clock.advance(1000);
    }
  }
  assert.ok(true);
});

snapshotSuite(
  lapicState,
  (state, clock) =>
    new LocalApic(
      state,
      { cpuIndex: 0, apicId: 0, bootstrap: true, clock, tscToNs: (t) => t, signal() {}, broadcastEoi() {} },
      new ApicBus(),
    ),
  (apic, clock) => {
    apic.write(0xf0, 4, 0x1ff);
    apic.write(0x320, 4, 0x20040);
    apic.write(0x380, 4, 1_000_000);
    apic.accept(0x80, true, Delivery.fixed);
    apic.acknowledge();
    apic.accept(0x91, false, Delivery.fixed);
    clock.advance(123_456);
  },
  (apic) => Array.from({ length: 0x40 }, (_, i) => apic.read(i * 16, 4)),
);

test('a one-shot count that ran out stays at zero when the mode becomes periodic', () => {
  const { apics, clock } = machine(1);
  const [apic] = apics;
  apic.write(0x3e0, 4, 0xb);
  apic.write(0x320, 4, 0x40);
  apic.write(0x380, 4, 1000);
  clock.advance(80_000);
  assert.equal(apic.read(0x390, 4), 0);
  apic.write(0x320, 4, 0x40 | (1 << 17));
  clock.advance(20_000);
  assert.equal(apic.read(0x390, 4), 0);
  apic.write(0x380, 4, 1000);
  clock.advance(20_000);
  assert.equal(apic.read(0x390, 4), 500);
});

test('xAPIC ids can be written, also to be the same; disabling the APIC or x2APIC mode brings the first id back', () => {
  const { apics, bus } = machine(2);
  const base = 0xfee00000;
  apics[0].write(0x20, 4, 0x05000000);
  apics[1].write(0x20, 4, 0x05000000);
  assert.equal(bus.deliver(5, false, Delivery.fixed, 0x50, false), true);
  assert.deepEqual([apics[0].acknowledge(), apics[1].acknowledge()], [0x50, 0x50]);
  assert.ok(apics[1].writeMsr(MSR_APIC_BASE, base | 0xc00, 0));
  assert.equal(apics[1].apicId, 1);
  assert.ok(apics[0].writeMsr(MSR_APIC_BASE, base, 0));
  assert.equal(apics[0].apicId, 0);
});

test('EOI broadcasts can be suppressed', () => {
  const { apics, eois } = machine(1);
  const [apic] = apics;
  assert.equal((apic.read(0x30, 4) >>> 24) & 1, 1, 'the version says so');
  apic.write(0xf0, 4, 0x11ff);
  apic.accept(0x40, true, Delivery.fixed);
  apic.acknowledge();
  apic.eoi();
  assert.deepEqual(eois, []);
});
