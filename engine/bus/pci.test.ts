import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh, RecordedLine, snapshotSuite } from '../devices/testing.ts';
import { IoMap } from './io.ts';
import { PciBus, type PciBusWires, PciFunction, type PciFunctionSpec, pciBusState, pciFunctionState } from './pci.ts';

function wires(): PciBusWires & { ports: IoMap; memory: IoMap; intx: RecordedLine[]; messages: string[] } {
  const messages: string[] = [];
  return {
    ports: new IoMap('ports'),
    memory: new IoMap('memory'),
    intx: [0, 1, 2, 3].map(() => new RecordedLine()),
    messages,
    deliverMsi: (address, data) => messages.push(`${address.toString(16)}:${data.toString(16)}`),
  };
}
const register = (value: number) => ({ read: () => value, write() {} });
const spec: PciFunctionSpec = {
  name: 'nic',
  vendor: 0x1af4,
  device: 0x1000,
  classCode: 0x020000,
  pin: 1,
  bars: [
    { index: 0, kind: 'io', size: 32, handler: register(0x11) },
    { index: 1, kind: 'mem32', size: 4096 },
    { index: 4, kind: 'mem64', prefetch: true, size: 16384, handler: register(0x44) },
  ],
  msix: { vectors: 3, bar: 1, tableOffset: 0, pbaOffset: 0x800 },
  capabilities: [{ id: 9, body: Uint8Array.of(16, 1, 4, 0) }],
  rom: Uint8Array.of(0x55, 0xaa, 3),
};
function make(theSpec = spec) {
  const w = wires();
  const bus = new PciBus(fresh(pciBusState), w);
  const nic = new PciFunction(fresh(pciFunctionState), theSpec, bus, 3);
  bus.reset();
  const port = bus.mechanism1();
  const config = (offset: number, size: 1 | 2 | 4 = 4): number => {
    port.write(0, 4, 0x80000000 + (3 << 11) + (offset & ~3));
    return port.read(4 + (offset & 3), size);
  };
  const store = (offset: number, value: number, size: 1 | 2 | 4 = 4): void => {
    port.write(0, 4, 0x80000000 + (3 << 11) + (offset & ~3));
    port.write(4 + (offset & 3), size, value);
    bus.sync();
  };
  return { w, bus, nic, config, store, port };
}

test('identification, absent functions, narrow accesses, a closed address register', () => {
  const { config, port } = make();
  assert.equal(config(0), 0x10001af4);
  assert.equal(config(0xa, 2), 0x0200);
  assert.equal(config(0x3d, 1), 1);
  port.write(0, 4, 0x80000000 + (4 << 11));
  assert.equal(port.read(4, 4), 0xffffffff);
  port.write(0, 4, 3 << 11);
  assert.equal(port.read(4, 2), 0xffff);
  port.write(0, 2, 0x1234);
  assert.equal(port.read(0, 4), 3 << 11);
});

test('BARs: size, map, move, unmap; read-only registers stay', () => {
  const { w, config, store } = make();
  store(0, 0);
  assert.equal(config(0), 0x10001af4);
  store(0x10, 0xffffffff);
  assert.equal(config(0x10), 0xffffffe1);
  store(0x20, 0xffffffff);
  assert.equal(config(0x20), 0xffffc00c);
  store(0x24, 0xffffffff);
  assert.equal(config(0x24), 0xffffffff);
  store(0x10, 0xc000);
  store(0x20, 0xe0000000);
  store(0x24, 1);
  assert.equal(w.ports.covers(0xc000), false);
  store(4, 3, 2);
  assert.equal(w.ports.read(0xc01f, 1), 0x11);
  assert.equal(w.ports.covers(0xc020), false);
  assert.equal(w.memory.read(0x1e0000000, 1), 0x44);
  store(0x10, 0xd000);
  assert.equal(w.ports.covers(0xc000), false);
  assert.equal(w.ports.read(0xd000, 1), 0x11);
  store(4, 2, 2);
  assert.equal(w.ports.covers(0xd000), false);
});

test('the ROM BAR shows the ROM padded with ones', () => {
  const { w, config, store } = make();
  store(0x30, 0xffffffff);
  assert.equal(config(0x30), 0xfffff801);
  store(0x30, 0xd0000001);
  store(4, 2, 2);
  assert.equal(w.memory.read(0xd0000000, 4), 0xff03aa55);
});

test('overlaps never throw: what was there first keeps the addresses', () => {
  const { w, store } = make();
  w.ports.map(0x60, 8, register(0x60), 'keyboard');
  store(0x10, 0x60);
  store(4, 3, 2);
  assert.equal(w.ports.read(0x60, 1), 0x60);
  store(0x10, 0xc000);
  assert.equal(w.ports.read(0x60, 1), 0x60);
  assert.equal(w.ports.read(0xc000, 1), 0x11);
});

test('a second thread sees a mapping after its own sync', () => {
  const buffer = new SharedArrayBuffer(pciBusState.size);
  const functionBuffer = new SharedArrayBuffer(pciFunctionState.size);
  const [a, b] = [0, 1].map(() => {
    const w = wires();
    const bus = new PciBus(pciBusState.at(buffer, 0), w);
    const nic = new PciFunction(pciFunctionState.at(functionBuffer, 0), spec, bus, 3);
    return { w, bus, nic };
  });
  a.bus.reset();
  a.bus.sync();
  b.bus.sync();
  a.nic.writeConfig(0x10, 4, 0xc000);
  a.nic.writeConfig(4, 2, 1);
  assert.equal(b.w.ports.covers(0xc000), false);
  b.bus.sync();
  assert.equal(b.w.ports.covers(0xc000), true);
});

test('a RAM BAR is told where it goes', () => {
  const moves: (number | undefined)[] = [];
  const { store } = make({
    ...spec,
    msix: undefined,
    bars: [{ index: 0, kind: 'mem32', prefetch: true, size: 2 ** 24, ram: (at) => moves.push(at) }],
  });
  store(0x10, 0xfd000000);
  store(4, 2, 2);
  store(0x10, 0xffffffff);
  store(0x10, 0xfc000000);
  store(4, 0, 2);
  assert.deepEqual(moves, [0xfd000000, undefined, 0xfc000000, undefined]);
});

test('INTx: swizzled by slot, shared lines are ORed, disabled by command bit and by MSI-X', () => {
  const { w, bus, nic, store, config } = make();
  const other = new PciFunction(fresh(pciFunctionState), { ...spec, name: 'other', pin: 3 }, bus, 5);
  other.reset();
  // Slot 3 pin A: PIRQ (3 - 1 + 0) & 3 = C; slot 5 pin C: (5 - 1 + 2) & 3 = C.
  nic.setIntx(true);
  other.setIntx(true);
  assert.equal(w.intx[2].level, true);
  assert.equal(config(6, 1) & 8, 8);
  nic.setIntx(false);
  assert.equal(w.intx[2].level, true);
  other.setIntx(false);
  assert.equal(w.intx[2].level, false);
  nic.setIntx(true);
  store(4, 0x400, 2);
  assert.equal(w.intx[2].level, false);
  store(4, 0, 2);
  assert.equal(w.intx[2].level, true);
  const msix = config(0x34, 1);
  store(msix + 2, 0x8000, 2);
  assert.equal(w.intx[2].level, false);
});

test('MSI-X: capability, table, masks, pending bits', () => {
  const { w, nic, store, config } = make();
  const at = config(0x34, 1);
  assert.equal(config(at, 1), 0x11);
  assert.equal(config(at + 2, 2), 2);
  assert.equal(config(at + 4), 1);
  assert.equal(config(at + 8), 0x801);
  assert.equal(config(config(at + 1, 1), 1), 9, 'the next capability');
  assert.equal(nic.capabilityOffsets[0], config(at + 1, 1));
  store(0x14, 0xe0000000);
  store(4, 6, 2);
  w.memory.write(0xe0000010, 4, 0xfee01000);
  w.memory.write(0xe0000018, 4, 0x4042);
  nic.notifyMsix(1);
  assert.deepEqual(w.messages, [], 'off');
  store(at + 2, 0x8000, 2);
  nic.notifyMsix(1);
  assert.equal(w.memory.read(0xe0000800, 4), 2, 'masked vectors are pending');
  w.memory.write(0xe000001c, 4, 0);
  assert.deepEqual(w.messages, ['fee01000:4042']);
  assert.equal(w.memory.read(0xe0000800, 4), 0);
  store(at + 2, 0xc000, 2);
  nic.notifyMsix(1);
  assert.equal(w.messages.length, 1);
  store(at + 2, 0x8000, 2);
  assert.equal(w.messages.length, 2);
  nic.notifyMsix(3);
  nic.notifyMsix(-1);
  assert.equal(w.messages.length, 2);
});

test('MSI: enabled messages carry the index in their low bits', () => {
  const { w, nic, store, config } = make({ ...spec, msix: undefined, capabilities: [], msi: { vectors: 4 } });
  const at = config(0x34, 1);
  assert.equal(config(at + 2, 2), 0x84);
  store(at + 4, 0xfee02000);
  store(at + 12, 0x4050, 2);
  store(4, 4, 2);
  nic.notifyMsi(1);
  assert.deepEqual(w.messages, []);
  store(at + 2, 0x21, 2);
  nic.notifyMsi(3);
  assert.deepEqual(w.messages, ['fee02000:4053']);
});

test('the ECAM window reaches the same registers and beyond', () => {
  const { bus } = make();
  const ecam = bus.ecam();
  assert.equal(ecam.read(3 << 15, 4), 0x10001af4);
  assert.equal(ecam.read((3 << 15) + 0x100, 4), 0);
  assert.equal(ecam.read(0x100000, 4), 0xffffffff);
});

test('random configuration writes never throw, and sync always ends', () => {
  const { bus, store } = make();
  let seed = 7;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % n;
  };
  for (let i = 0; i < 5000; i++) store(random(256) & ~3, random(2 ** 24) * 256 + random(256));
  assert.ok(bus.generation > 0);
});

snapshotSuite(
  pciFunctionState,
  (state) => new PciFunction(state, spec, new PciBus(fresh(pciBusState), wires()), 3),
  (nic) => {
    nic.writeConfig(0x10, 4, 0xc000);
    nic.writeConfig(4, 2, 7);
    nic.setIntx(true);
  },
  (nic) => [Array.from({ length: 64 }, (_, i) => nic.readConfig(i * 4, 4)), nic.barAddress(0), nic.intxAsserted],
);
