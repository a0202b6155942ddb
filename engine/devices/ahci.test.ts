import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AHCI_PORTS, Ahci, ahciPortState, ahciState } from './ahci.ts';
import { ataDriveState, SECTOR } from './ata.ts';
import { AtaDrive } from './ata-drive.ts';
import { fresh, PlainMemory } from './testing.ts';
import { ScsiCdrom } from './virtio/scsi-cdrom.ts';
import { scsiUnitState } from './virtio/scsi-unit.ts';
import { MemoryDisk, random } from './virtio/testing-disk.ts';

const identity = { model: 'VIVARIUM HARDDISK', serial: 'S1', revision: '1.0', sata: true, trim: true };
const locked = <T>(body: () => T): T => body();
const LIST = 0x1000;
const RECEIVED = 0x2000;
const TABLES = 0x4000;

/** A disk on port 0 and a CD on port 2, both ports started. */
function make() {
  const memory = new PlainMemory(1 << 20);
  const disk = new MemoryDisk(4096 * SECTOR);
  const cd = new MemoryDisk(64 * 2048);
  const drives: (AtaDrive | undefined)[] = new Array(AHCI_PORTS).fill(undefined);
  drives[0] = new AtaDrive(fresh(ataDriveState), { identity, disk: () => disk });
  const cdrom = new ScsiCdrom(fresh(scsiUnitState), { interface: 2, disk: () => cd });
  drives[2] = new AtaDrive(fresh(ataDriveState), { identity, cdrom, disk: () => cd });
  let level = false;
  let messages = 0;
  const rung = new Set<number>();
  const ports = drives.map(() => fresh(ahciPortState));
  const ahci = new Ahci(fresh(ahciState), ports, {
    memory,
    drives,
    ring: (port) => rung.add(port),
    irq: (value) => {
      level = value;
    },
    message: () => messages++,
  });
  ahci.reset();
  drives[0].setSize(disk.size);
  drives[2].setSize(cd.size);
  const port = (n: number, register: number): number => 0x100 + n * 0x80 + register;
  const get = (n: number, register: number): number => ahci.read(port(n, register), 4) >>> 0;
  const set = (n: number, register: number, value: number): void => ahci.write(port(n, register), 4, value);
  ahci.write(4, 4, 0x80000002);
  for (const n of [0, 2]) {
    set(n, 0, LIST);
    set(n, 8, RECEIVED);
    set(n, 0x30, 0xffffffff);
    set(n, 0x18, 0x11);
    set(n, 0x14, 0xffffffff);
    set(n, 0x10, 0xffffffff);
  }
  ahci.write(8, 4, 0xffffffff);
  /** A command in a slot: a register FIS, its memory, an ATAPI packet. */
  const put = (
    slot: number,
    {
      code,
      lba = 0,
      count = 1,
      features = 0,
      device = 0x40,
    }: { code: number; lba?: number; count?: number; features?: number; device?: number },
    regions: readonly (readonly [number, number])[] = [],
    packet?: readonly number[],
  ): void => {
    const table = TABLES + slot * 0x400;
    memory.write32(LIST + slot * 32, 5 | (packet === undefined ? 0 : 0x20) | (regions.length << 16));
    memory.write32(LIST + slot * 32 + 4, 0);
    memory.write32(LIST + slot * 32 + 8, table);
    memory.write32(LIST + slot * 32 + 12, 0);
    const fis = new Uint8Array(20);
    fis.set([0x27, 0x80, code, features & 0xff, lba & 0xff, (lba >> 8) & 0xff, (lba >> 16) & 0xff, device]);
    fis.set([lba >>> 24, 0, 0, features >> 8, count & 0xff, count >> 8], 8);
    memory.write(table, fis);
    if (packet !== undefined)
      memory.write(
        table + 0x40,
        Uint8Array.from({ length: 16 }, (_, i) => packet[i] ?? 0),
      );
    regions.forEach(([address, length], n) => {
      memory.write32(table + 0x80 + n * 16, address);
      memory.write32(table + 0x84 + n * 16, 0);
      memory.write32(table + 0x8c + n * 16, length - 1);
    });
  };
  const serve = (): void => {
    for (const n of rung) while (ahci.process(n, locked));
    rung.clear();
  };
  return { memory, disk, cd, ahci, get, set, put, serve, level: () => level, messages: () => messages, drives };
}

test('ports tell what is on them', () => {
  const { ahci, get } = make();
  assert.equal(ahci.read(0x0c, 4), 0x3f);
  assert.deepEqual([get(0, 0x28), get(1, 0x28), get(2, 0x28)], [0x123, 0, 0x123]);
  assert.deepEqual([get(0, 0x24), get(2, 0x24)], [0x101, 0xeb140101]);
  assert.deepEqual([get(0, 0x20) & 0xff, get(1, 0x20) & 0xff, get(2, 0x20) & 0xff], [0x50, 0x7f, 0]);
});

test('IDENTIFY, DMA reads and writes, an interrupt by level and by message', () => {
  const { memory, disk, get, set, put, serve, level, messages, ahci } = make();
  put(0, { code: 0xec }, [[0x8000, 512]]);
  set(0, 0x38, 1);
  assert.equal(get(0, 0x38), 1);
  serve();
  assert.deepEqual([get(0, 0x38), get(0, 0x20), level(), messages()], [0, 0x50, true, 1]);
  assert.equal(memory.read32(LIST + 4), 512, 'the byte count');
  assert.equal(memory.read16(0x8000 + 152), 0x0106, 'native queueing');
  assert.equal(memory.read8(RECEIVED + 0x20), 0x5f, 'a PIO setup FIS');
  set(0, 0x10, 0xffffffff);
  ahci.write(8, 4, 1);
  assert.equal(level(), false);
  put(3, { code: 0x25, lba: 10, count: 3 }, [
    [0x9001 & ~1, 1000],
    [0xa000, 536],
  ]);
  set(0, 0x38, 8);
  serve();
  assert.deepEqual(memory.data.slice(0x9000, 0x9000 + 1000), disk.data.slice(10 * SECTOR, 10 * SECTOR + 1000));
  assert.deepEqual(memory.data.slice(0xa000, 0xa000 + 536), disk.data.slice(10 * SECTOR + 1000, 13 * SECTOR));
  memory.data.fill(0xab, 0xb000, 0xb400);
  put(4, { code: 0x3d, lba: 20, count: 2 }, [[0xb000, 1024]]);
  set(0, 0x38, 16);
  serve();
  assert.ok(disk.data.slice(20 * SECTOR, 22 * SECTOR).every((byte) => byte === 0xab));
  assert.equal(disk.flushes, 1, 'FUA');
});

test('queued commands: all that are there, each by a Set Device Bits FIS', () => {
  const { memory, disk, get, set, put, serve } = make();
  for (let slot = 0; slot < 32; slot++) put(slot, { code: 0x60, lba: slot * 8, features: 8 }, [[0x10000 + slot * 4096, 4096]]);
  set(0, 0x34, 0xffffffff);
  set(0, 0x38, 0xffffffff);
  assert.equal(get(0, 0x34), 0xffffffff);
  serve();
  assert.deepEqual([get(0, 0x34), get(0, 0x38), get(0, 0x10) & 8], [0, 0, 8]);
  assert.equal(memory.read8(RECEIVED + 0x58), 0xa1);
  assert.deepEqual(memory.data.slice(0x10000, 0x10000 + 32 * 4096), disk.data.slice(0, 32 * 4096));
});

test('errors: beyond the end, too little memory, TRIM; the port goes on after it is started anew', () => {
  const { get, set, put, serve, disk, memory } = make();
  put(0, { code: 0x25, lba: 4095, count: 2 }, [[0x8000, 1024]]);
  put(1, { code: 0x25, lba: 0, count: 1 }, [[0x8000, 512]]);
  set(0, 0x38, 3);
  serve();
  assert.deepEqual([get(0, 0x20) & 0xff, get(0, 0x10) >>> 30, get(0, 0x38)], [0x51, 1, 3]);
  set(0, 0x18, 0x10);
  assert.equal(get(0, 0x38), 0);
  set(0, 0x10, 0xffffffff);
  set(0, 0x18, 0x11);
  set(0, 0x38, 2);
  serve();
  assert.equal(get(0, 0x20), 0x50);
  put(0, { code: 0x25, lba: 0, count: 2 }, [[0x8000, 512]]);
  set(0, 0x38, 1);
  serve();
  assert.equal((get(0, 0x10) >>> 24) & 1, 1, 'overflow');
  set(0, 0x18, 0x10);
  set(0, 0x18, 0x11);
  memory.data.fill(0, 0x8000, 0x8200);
  memory.write32(0x8000, 100);
  memory.write32(0x8004, 5 << 16);
  put(0, { code: 0x06, features: 1, count: 1 }, [[0x8000, 512]]);
  set(0, 0x38, 1);
  serve();
  assert.deepEqual([get(0, 0x20), disk.log], [0x50, [`${100 * SECTOR}+${5 * SECTOR}`]]);
});

test('packets, and a software reset of a port', () => {
  const { memory, cd, get, set, put, serve } = make();
  put(0, { code: 0xa0, features: 1 }, [], [0]);
  set(2, 0x38, 1);
  serve();
  assert.equal(get(2, 0x20), 0x6451, 'unit attention');
  set(2, 0x18, 0x10);
  set(2, 0x18, 0x11);
  put(0, { code: 0xa0, features: 1 }, [[0x8000, 4096]], [0x28, 0, 0, 0, 0, 7, 0, 0, 2]);
  set(2, 0x38, 1);
  serve();
  assert.equal(get(2, 0x20), 0x50);
  assert.deepEqual(memory.data.slice(0x8000, 0x9000), cd.data.slice(7 * 2048, 9 * 2048));
  for (const control of [4, 0]) {
    put(0, { code: 0 });
    memory.write8(TABLES + 1, 0);
    memory.write8(TABLES + 15, control);
    set(2, 0x38, 1);
    serve();
  }
  assert.deepEqual([get(2, 0x24), get(2, 0x38)], [0xeb140101, 0]);
  assert.equal(memory.read8(RECEIVED + 0x40), 0x34);
});

test('random registers and memory never throw and never hang', () => {
  const { ahci, memory, serve, disk } = make();
  const pick = random(3);
  for (let i = 0; i < 3000; i++) {
    if (i % 10 === 0) for (let at = 0; at < 400; at++) memory.write8(LIST + pick(0x4000), pick(256));
    ahci.write(pick(4) === 0 ? pick(64) * 4 : 0x100 + pick(3) * 0x80 + pick(20) * 4, 4, pick(2) === 0 ? pick(2 ** 32) : 0x11);
    ahci.read(pick(1024) * 4, 4);
    serve();
  }
  assert.equal(disk.data.length, 4096 * SECTOR);
});
