import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IoMap } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { PciBus, PciFunction, pciBusState, pciFunctionState } from '../bus/pci.ts';
import { assignResources, I440fx, PAM_RANGES, Piix3, Piix4Pm, piix3State } from './pci-host.ts';
import { fresh, RecordedLine, snapshotSuite } from './testing.ts';

function make() {
  const intx: IrqLine[] = [];
  const ports = new IoMap('ports');
  const memory = new IoMap('memory');
  const bus = new PciBus(fresh(pciBusState), { ports, memory, intx, deliverMsi() {} });
  const irqs = Array.from({ length: 16 }, () => new RecordedLine());
  const resets: number[] = [];
  const host = new I440fx(fresh(pciFunctionState), bus);
  const piix3 = new Piix3(fresh(piix3State), fresh(pciFunctionState), bus, { irqs, reset: () => resets.push(1) });
  const pm = new Piix4Pm(fresh(pciFunctionState), bus, { pm: { read: (offset) => 0x50 + offset, write() {} } });
  intx.push(...piix3.pirqs);
  const nic = new PciFunction(
    fresh(pciFunctionState),
    {
      name: 'nic',
      vendor: 0x8086,
      device: 0x100e,
      classCode: 0x020000,
      pin: 1,
      bars: [
        { index: 0, kind: 'mem32', size: 0x20000, handler: { read: () => 1, write() {} } },
        { index: 1, kind: 'io', size: 64, handler: { read: () => 2, write() {} } },
        { index: 2, kind: 'mem64', size: 2 ** 30, prefetch: true, handler: { read: () => 3, write() {} } },
      ],
    },
    bus,
    3,
  );
  bus.reset();
  piix3.reset();
  return { bus, ports, memory, irqs, resets, host, piix3, pm, nic };
}

test('the chipset has the ids that systems look for', () => {
  const { bus } = make();
  assert.equal(bus.readConfig(0, 0, 0, 4), 0x12378086);
  assert.equal(bus.readConfig(0, 8, 0, 4), 0x70008086);
  assert.equal(bus.readConfig(0, 8, 0xe, 1), 0x80);
  assert.equal(bus.readConfig(0, 11, 0, 4), 0x71138086);
  assert.equal(bus.freeSlot(), 4);
});

test('PAM: each nibble steers its range', () => {
  const { host } = make();
  assert.deepEqual(host.pam(12), { read: false, write: false });
  host.pci.writeConfig(0x59, 1, 0x30);
  assert.deepEqual(host.pam(12), { read: true, write: true });
  host.pci.writeConfig(0x5d, 1, 0x12);
  const d0 = PAM_RANGES.findIndex((range) => range.base === 0xd8000);
  assert.deepEqual(host.pam(d0), { read: false, write: true });
  assert.deepEqual(host.pam(d0 + 1), { read: true, write: false });
  host.openShadow();
  assert.ok(PAM_RANGES.every((_, i) => host.pam(i).read && host.pam(i).write));
});

test('SMRAM opens, and the lock closes it for good', () => {
  const { host } = make();
  assert.deepEqual(host.smram, { open: false, locked: false, enabled: false });
  host.pci.writeConfig(0x72, 1, 0x4a);
  assert.equal(host.smram.open, true);
  host.pci.writeConfig(0x72, 1, 0x1a);
  assert.deepEqual(host.smram, { open: false, locked: true, enabled: true });
  host.pci.writeConfig(0x72, 1, 0x4a);
  assert.deepEqual(host.smram, { open: false, locked: true, enabled: true });
});

test('PIRQ routing: levels follow their register to another interrupt', () => {
  const { piix3, nic, irqs } = make();
  nic.setIntx(true);
  assert.ok(irqs.every((irq) => !irq.level));
  piix3.pci.writeConfig(0x62, 1, 11);
  assert.equal(irqs[11].level, true);
  piix3.pci.writeConfig(0x62, 1, 10);
  assert.equal(irqs[11].level, false);
  assert.equal(irqs[10].level, true);
  piix3.pci.writeConfig(0x62, 1, 8);
  assert.equal(irqs[8].level, false, 'IRQ 8 is not for PCI');
  piix3.pci.writeConfig(0x62, 1, 10);
  nic.setIntx(false);
  assert.equal(irqs[10].level, false);
  piix3.steer([10, 10, 11, 11]);
  nic.setIntx(true);
  assert.equal(irqs[11].level, true);
});

test('port 0xcf9 resets on a rising bit 2', () => {
  const { bus, piix3, resets } = make();
  const port = bus.mechanism1(piix3.resetControl);
  port.write(1, 1, 2);
  assert.equal(resets.length, 0);
  assert.equal(port.read(1, 1), 2);
  port.write(1, 1, 6);
  assert.equal(resets.length, 1);
});

test('the power management ports appear where PMBASE says', () => {
  const { bus, pm, ports } = make();
  bus.sync();
  assert.equal(ports.covers(0x600), false);
  pm.enablePm(0x600);
  bus.sync();
  assert.equal(ports.read(0x608, 1), 0x58);
  assert.equal(pm.pci.readConfig(0x40, 4), 0x601);
});

test('without firmware: addresses, decoding and interrupt lines are assigned', () => {
  const { bus, ports, memory, nic, pm } = make();
  pm.enablePm(0x600);
  const failed = assignResources(
    bus,
    {
      io: { first: 0xc000, end: 0xd000 },
      memory: { first: 0xe0000000, end: 0xfe000000 },
      memory64: { first: 2 ** 39, end: 2 ** 40 },
    },
    [10, 10, 11, 11],
  );
  assert.deepEqual(failed, []);
  bus.sync();
  assert.equal(memory.read(0xe0000000, 1), 1);
  assert.equal(ports.read(0xc000, 1), 2);
  assert.equal(memory.read(2 ** 39, 1), 3);
  assert.equal(nic.readConfig(0x3c, 1), 11);
  assert.equal(pm.pci.readConfig(0x3c, 1), 9);
  assert.deepEqual(
    assignResources(
      bus,
      { io: { first: 0xc000, end: 0xd000 }, memory: { first: 0xe0000000, end: 0xe0001000 } },
      [10, 10, 11, 11],
    ),
    ['nic'],
  );
});

snapshotSuite(
  piix3State,
  (state) => {
    const bus = new PciBus(fresh(pciBusState), {
      ports: new IoMap('ports'),
      memory: new IoMap('memory'),
      intx: [],
      deliverMsi() {},
    });
    return new Piix3(state, fresh(pciFunctionState), bus, { irqs: [], reset() {} });
  },
  (piix3) => piix3.resetControl.write(0, 1, 2),
  (piix3) => piix3.resetControl.read(0, 1),
);
