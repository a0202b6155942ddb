import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as aml from './aml.ts';
import type { AcpiConfig } from './config.ts';
import { buildAcpi } from './tables.ts';

const config: AcpiConfig = {
  apicIds: [0, 1, 2, 300],
  ioapic: { id: 4, base: 0xfec00000 },
  pm: { base: 0x600, sci: 9, sleepType5: 5 },
  reset: { port: 0xcf9, value: 6 },
  pci: {
    memory32: { first: 0xe0000000, end: 0xfec00000 },
    memory64: { first: 2 ** 39, end: 2 ** 40 },
    routing: 'pirq',
    ecam: { base: 0xb0000000, buses: 256 },
  },
  hotplug: { port: 0xae00, event: 1, slots: [3, 4, 31] },
  hpet: 0xfed00000,
  fwCfg: 0x510,
  serial: [{ port: 0x3f8, irq: 4 }],
  ps2: true,
  waet: true,
};
const sum = (data: Uint8Array): number => data.reduce((total, byte) => total + byte, 0) & 0xff;
const text = (data: Uint8Array): string => String.fromCharCode(...data);

/** Follows the pointers from the RSDP in a flat memory, as an operating system does. */
function walk(memory: Uint8Array, rsdpAt: number): Map<string, Uint8Array> {
  const view = new DataView(memory.buffer, memory.byteOffset, memory.length);
  const rsdp = memory.subarray(rsdpAt, rsdpAt + 36);
  assert.equal(text(rsdp.subarray(0, 8)), 'RSD PTR ');
  assert.equal(sum(rsdp.subarray(0, 20)), 0);
  assert.equal(sum(rsdp), 0);
  const found = new Map<string, Uint8Array>();
  const table = (at: number): Uint8Array => {
    const data = memory.subarray(at, at + view.getUint32(at + 4, true));
    if (text(data.subarray(0, 4)) !== 'FACS') assert.equal(sum(data), 0, text(data.subarray(0, 4)));
    else assert.equal(at % 64, 0);
    found.set(text(data.subarray(0, 4)), data);
    return data;
  };
  const rsdtAt = view.getUint32(rsdpAt + 16, true);
  const rsdt = table(rsdtAt);
  const xsdtAt = Number(view.getBigUint64(rsdpAt + 24, true));
  const xsdt = table(xsdtAt);
  const from32 = Array.from({ length: (rsdt.length - 36) / 4 }, (_, i) => view.getUint32(rsdtAt + 36 + i * 4, true));
  const from64 = Array.from({ length: (xsdt.length - 36) / 8 }, (_, i) => Number(view.getBigUint64(xsdtAt + 36 + i * 8, true)));
  assert.deepEqual(from32, from64);
  for (const at of from32) table(at);
  const fadtAt = from32[0];
  assert.equal(view.getUint32(fadtAt + 36, true), Number(view.getBigUint64(fadtAt + 132, true)));
  assert.equal(view.getUint32(fadtAt + 40, true), Number(view.getBigUint64(fadtAt + 140, true)));
  table(view.getUint32(fadtAt + 36, true));
  table(view.getUint32(fadtAt + 40, true));
  return found;
}

test('placed tables: pointers and checksums hold, all tables are there', () => {
  const acpi = buildAcpi(config);
  const memory = new Uint8Array(0x40000);
  const { rsdp, tables } = acpi.place(0x20000, 0x1000);
  memory.set(rsdp.bytes, rsdp.address);
  memory.set(tables.bytes, tables.address);
  const found = walk(memory, 0x1000);
  assert.deepEqual([...found.keys()].sort(), ['APIC', 'DSDT', 'FACP', 'FACS', 'HPET', 'MCFG', 'RSDT', 'WAET', 'XSDT']);
  const fadt = found.get('FACP');
  assert.ok(fadt);
  assert.equal(fadt.length, 244);
  const view = new DataView(fadt.buffer, fadt.byteOffset, fadt.length);
  assert.equal(view.getUint16(46, true), 9);
  assert.equal(view.getUint32(56, true), 0x600);
  assert.equal(view.getUint32(64, true), 0x604);
  assert.equal(view.getUint32(76, true), 0x608);
  assert.equal(view.getUint32(112, true) & (1 << 4), 0, 'the power button is fixed hardware');
  assert.equal(view.getUint32(120, true), 0xcf9);
  assert.equal(fadt[128], 6);
});

test('the MADT lists processors, IOAPIC, overrides and NMIs, each entry within the table', () => {
  const { tables } = buildAcpi(config).place(0, 0x1000);
  const at = text(tables.bytes).indexOf('APIC', 64);
  const view = new DataView(tables.bytes.buffer);
  const end = at + view.getUint32(at + 4, true);
  const entries: number[][] = [];
  for (let p = at + 44; p < end; p += tables.bytes[p + 1]) entries.push([...tables.bytes.subarray(p, p + tables.bytes[p + 1])]);
  assert.deepEqual(
    entries.map((entry) => entry[0]),
    [0, 0, 0, 9, 1, 2, 2, 2, 2, 2, 4, 10],
  );
  assert.deepEqual(entries[1], [0, 8, 1, 1, 1, 0, 0, 0]);
  assert.deepEqual(entries[5], [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
  assert.deepEqual(entries[7], [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0], 'the SCI is level-triggered');
});

/** What a firmware does with the loader's commands, over a flat memory. */
function load(files: ReturnType<typeof buildAcpi>['files'], places: Record<string, number>, memory: Uint8Array): void {
  const script = files.find((file) => file.name === 'etc/table-loader')?.data;
  assert.ok(script);
  assert.equal(script.length % 128, 0);
  const bytes = new DataView(memory.buffer);
  for (let at = 0; at < script.length; at += 128) {
    const view: DataView = new DataView(script.buffer, script.byteOffset + at, 128);
    const name = (from: number): string => text(script.subarray(at + from, at + from + 56)).replace(/\0.*$/s, '');
    const base = places[name(4)];
    switch (view.getUint32(0, true)) {
      case 1:
        assert.equal(base % view.getUint32(60, true), 0);
        memory.set(files.find((file) => file.name === name(4))?.data ?? [], base);
        break;
      case 2: {
        const field = base + view.getUint32(116, true);
        if (view.getUint8(120) === 8) bytes.setBigUint64(field, bytes.getBigUint64(field, true) + BigInt(places[name(60)]), true);
        else bytes.setUint32(field, bytes.getUint32(field, true) + places[name(60)], true);
        break;
      }
      case 3: {
        const start = base + view.getUint32(64, true);
        const field = base + view.getUint32(60, true);
        memory[field] -= sum(memory.subarray(start, start + view.getUint32(68, true)));
        break;
      }
      default:
        assert.fail('unknown command');
    }
  }
}

test('the table loader leads to the same tables as direct placement', () => {
  const acpi = buildAcpi(config);
  const memory = new Uint8Array(0x40000);
  load(acpi.files, { 'etc/acpi/rsdp': 0x1000, 'etc/acpi/tables': 0x20000 }, memory);
  walk(memory, 0x1000);
  const direct = acpi.place(0x20000, 0x1000);
  assert.deepEqual(memory.slice(0x20000, 0x20000 + acpi.size), direct.tables.bytes);
  assert.deepEqual(memory.slice(0x1000, 0x1000 + acpi.rsdpSize), direct.rsdp.bytes);
});

test('a small machine leaves out what it does not have', () => {
  const acpi = buildAcpi({
    apicIds: [0],
    ioapic: config.ioapic,
    pm: config.pm,
    pci: { memory32: config.pci.memory32, routing: 'gsi' },
    serial: [],
    ps2: false,
  });
  const memory = new Uint8Array(0x40000);
  const { rsdp, tables } = acpi.place(0x20000, 0x1000);
  memory.set(rsdp.bytes, rsdp.address);
  memory.set(tables.bytes, tables.address);
  const found = walk(memory, 0x1000);
  assert.deepEqual([...found.keys()].sort(), ['APIC', 'DSDT', 'FACP', 'FACS', 'RSDT', 'XSDT']);
  assert.ok(text(found.get('DSDT') ?? new Uint8Array()).includes('PRTA'));
});

test('AML: constants, names, package lengths, ids', () => {
  assert.deepEqual(aml.integer(0), [0]);
  assert.deepEqual(aml.integer(1), [1]);
  assert.deepEqual(aml.integer(200), [0x0a, 200]);
  assert.deepEqual(aml.integer(0x1234), [0x0b, 0x34, 0x12]);
  assert.deepEqual(aml.integer(0xfec00000), [0x0c, 0, 0, 0xc0, 0xfe]);
  assert.deepEqual(aml.integer(2 ** 40), [0x0e, 0, 0, 0, 0, 0, 1, 0, 0]);
  assert.equal(text(Uint8Array.from(aml.path('\\_SB'))), '\\_SB_');
  assert.deepEqual(aml.path('^A.B'), [0x5e, 0x2e, 0x41, 0x5f, 0x5f, 0x5f, 0x42, 0x5f, 0x5f, 0x5f]);
  assert.deepEqual(aml.path('A.B.C').slice(0, 2), [0x2f, 3]);
  assert.throws(() => aml.path('lower'));
  assert.deepEqual(aml.eisaId('PNP0A03'), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
  // Lengths count themselves: 62 bytes of body fit one length byte, 63 need two.
  assert.deepEqual(aml.otherwise(new Array(62).fill(0xa3)).slice(0, 2), [0xa1, 63]);
  assert.deepEqual(aml.otherwise(new Array(63).fill(0xa3)).slice(0, 3), [0xa1, 0x41, 4]);
  assert.deepEqual(aml.otherwise(new Array(5000).fill(0xa3)).slice(0, 4), [
    0xa1,
    0x80 | (5003 & 15),
    (5003 >> 4) & 0xff,
    5003 >> 12,
  ]);
});
