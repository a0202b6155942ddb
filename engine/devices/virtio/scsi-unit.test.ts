import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fresh, snapshotSuite } from '../testing.ts';
import { ScsiCdrom } from './scsi-cdrom.ts';
import { ScsiDisk, type ScsiDiskOptions } from './scsi-disk.ts';
import { absentUnit, be16, be32, be64, type ScsiData, type ScsiUnit, Sense, scsiUnitState } from './scsi-unit.ts';
import { MemoryDisk, random } from './testing-disk.ts';

class ArrayData implements ScsiData {
  readonly out: Uint8Array;
  readonly into: Uint8Array;
  constructor(out: Uint8Array, room: number) {
    this.out = out;
    this.into = new Uint8Array(room).fill(0xee);
  }
  get outBytes(): number {
    return this.out.length;
  }
  get inBytes(): number {
    return this.into.length;
  }
  readOut(offset: number, target: Uint8Array): number {
    const part = this.out.subarray(offset, offset + target.length);
    target.set(part);
    return part.length;
  }
  writeIn(offset: number, source: Uint8Array): number {
    const part = source.subarray(0, Math.max(0, this.into.length - offset));
    this.into.set(part, offset);
    return part.length;
  }
  eachOut(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    for (let at = 0; at < length; at += 700) use(this.out.subarray(offset + at, offset + Math.min(at + 700, length)), at);
  }
  eachIn(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    for (let at = 0; at < length; at += 700) fill(this.into.subarray(offset + at, offset + Math.min(at + 700, length)), at);
  }
}

function run(unit: ScsiUnit, cdb: number[], out: Uint8Array = new Uint8Array(0), room = 0) {
  const bytes = new Uint8Array(32);
  bytes.set(cdb);
  const data = new ArrayData(out, room);
  const result = unit.execute(bytes, data, [0]);
  const sense = result.sense === undefined ? 0 : ((result.sense[2] & 15) << 16) | (result.sense[12] << 8) | result.sense[13];
  return { ...result, code: sense, data: data.into.subarray(0, result.moved) };
}
function disk(options: ScsiDiskOptions = {}, size = 1 << 20) {
  const backing = new MemoryDisk(size);
  const unit = new ScsiDisk(fresh(scsiUnitState), { serial: 'S1', wwn: 0x5000000012345678n, disk: () => backing, ...options });
  unit.reset();
  unit.setSize(size);
  assert.equal(run(unit, [0]).code, Sense.POWER_ON);
  return { unit, backing };
}
const text = (bytes: Uint8Array): string => String.fromCharCode(...bytes);
const be = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** (size - 1 - i)) & 0xff);

test('unit attention: told once, not to INQUIRY, taken by REQUEST SENSE', () => {
  const unit = new ScsiDisk(fresh(scsiUnitState));
  unit.reset();
  assert.equal(run(unit, [0x12, 0, 0, 0, 36], undefined, 36).status, 0);
  const sense = run(unit, [3, 0, 0, 0, 18], undefined, 18);
  assert.equal(sense.data[2], 6);
  assert.equal(sense.data[12], 0x29);
  assert.equal(run(unit, [0]).status, 0);
});

test('INQUIRY and vital product data', () => {
  const { unit } = disk({ minIoSize: 4096, optIoSize: 65536 });
  const standard = run(unit, [0x12, 0, 0, 0, 255], undefined, 255);
  assert.equal(standard.data.length, 36);
  assert.equal(text(standard.data.subarray(8)), 'VIVARIUMHARDDISK        1.0 ');
  assert.equal(run(unit, [0x12, 0, 0, 0, 5], undefined, 255).data.length, 5);
  const page = (code: number): Uint8Array => run(unit, [0x12, 1, code, 0, 255], undefined, 255).data;
  assert.deepEqual([...page(0)], [0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  assert.equal(text(page(0x80).subarray(4)), 'S1');
  assert.deepEqual([...page(0x83).subarray(14)], [0x50, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
  assert.equal(page(0xb0).length, 64);
  assert.equal(be16(page(0xb0), 6), 8);
  assert.equal(be32(page(0xb0), 12), 128);
  assert.equal(be32(page(0xb0), 24), 255);
  assert.equal(be16(page(0xb1), 4), 1);
  assert.equal(page(0xb2)[5], 0xe0);
  assert.equal(run(unit, [0x12, 1, 0x99, 0, 255]).code, Sense.INVALID_FIELD);
  assert.equal(run(unit, [0x12, 0, 0x80, 0, 255]).code, Sense.INVALID_FIELD);
});

test('capacities of small and large disks', () => {
  const { unit } = disk({ physicalBlockSize: 4096 });
  assert.deepEqual([...run(unit, [0x25], undefined, 8).data], [0, 0, 7, 0xff, 0, 0, 2, 0]);
  unit.setSize(2 ** 43);
  assert.equal(run(unit, [0]).code, Sense.CAPACITY_CHANGED);
  assert.equal(be32(run(unit, [0x25], undefined, 8).data, 0), 0xffffffff);
  const long = run(unit, [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], undefined, 32).data;
  assert.equal(be64(long, 0), 2 ** 34 - 1);
  assert.equal(long[13], 3);
  assert.equal(long[14], 0x80);
});

test('reads and writes in all lengths of command', () => {
  const { unit, backing } = disk();
  const payload = Uint8Array.from({ length: 1024 }, (_, i) => i * 3);
  const forms: [number[], number[]][] = [
    [
      [0x0a, 0, 0, 9, 2],
      [0x08, 0, 0, 9, 2],
    ],
    [
      [0x2a, 0, ...be(9, 4), 0, 0, 2],
      [0x28, 0, ...be(9, 4), 0, 0, 2],
    ],
    [
      [0xaa, 0, ...be(9, 4), ...be(2, 4)],
      [0xa8, 0, ...be(9, 4), ...be(2, 4)],
    ],
    [
      [0x8a, 0, ...be(9, 8), ...be(2, 4)],
      [0x88, 0, ...be(9, 8), ...be(2, 4)],
    ],
  ];
  for (const [write, read] of forms) {
    backing.data.fill(0);
    assert.equal(run(unit, write, payload).moved, 1024);
    assert.deepEqual(backing.data.slice(9 * 512, 11 * 512), payload);
    assert.deepEqual(run(unit, read, undefined, 1024).data, payload);
  }
  assert.equal(run(unit, [0x08, 0, 0, 0, 0], undefined, 1 << 18).moved, 256 * 512);
  const short = run(unit, [0x28, 0, 0, 0, 0, 0, 0, 0, 2], undefined, 512);
  assert.equal(short.overrun, true);
  assert.equal(short.moved, 512);
  assert.equal(run(unit, [0x28, 0, ...be(2047, 4), 0, 0, 2], undefined, 1024).code, Sense.OUT_OF_RANGE);
  assert.equal(run(unit, [0x88, 0, ...be(2 ** 63, 8), ...be(1, 4)], undefined, 512).code, Sense.OUT_OF_RANGE);
  assert.equal(run(unit, [0xff]).code, Sense.INVALID_OPCODE);
});

test('FUA, write cache off, flush, host failures, read-only', () => {
  const { unit, backing } = disk();
  const block = new Uint8Array(512);
  run(unit, [0x2a, 0, 0, 0, 0, 0, 0, 0, 1], block);
  assert.equal(backing.flushes, 0);
  run(unit, [0x2a, 8, 0, 0, 0, 0, 0, 0, 1], block);
  assert.equal(backing.flushes, 1);
  const page = run(unit, [0x5a, 8, 8, 0, 0, 0, 0, 0, 255], undefined, 255).data.slice();
  assert.equal(page.length, 8 + 20);
  assert.equal(page[10], 4);
  page[10] = 0;
  assert.equal(run(unit, [0x55, 0x10, 0, 0, 0, 0, 0, 0, 28], page).status, 0);
  assert.equal(run(unit, [0x1a, 8, 8, 0, 255], undefined, 255).data[6], 0);
  run(unit, [0x2a, 0, 0, 0, 0, 0, 0, 0, 1], block);
  assert.equal(backing.flushes, 2);
  page[11] = 0x55;
  assert.equal(run(unit, [0x55, 0x10, 0, 0, 0, 0, 0, 0, 28], page).code, Sense.INVALID_PARAMETER);
  run(unit, [0x35]);
  assert.equal(backing.flushes, 3);
  backing.failures = 1;
  assert.equal(run(unit, [0x28, 0, 0, 0, 0, 0, 0, 0, 1], undefined, 512).code, Sense.READ_ERROR);
  backing.failures = 1;
  assert.equal(run(unit, [0x2a, 0, 0, 0, 0, 0, 0, 0, 1], block).code, Sense.WRITE_ERROR);
  backing.readOnly = true;
  assert.equal(run(unit, [0x2a, 0, 0, 0, 0, 0, 0, 0, 1], block).code, Sense.WRITE_PROTECTED);
  assert.equal(run(unit, [0x1a, 0, 0x3f, 0, 255], undefined, 255).data[2], 0x90);
});

test('UNMAP, WRITE SAME, VERIFY', () => {
  const { unit, backing } = disk();
  const list = Uint8Array.from([
    0,
    38,
    0,
    32,
    0,
    0,
    0,
    0,
    ...be(8, 8),
    ...be(4, 4),
    0,
    0,
    0,
    0,
    ...be(100, 8),
    ...be(1, 4),
    0,
    0,
    0,
    0,
  ]);
  assert.equal(run(unit, [0x42, 0, 0, 0, 0, 0, 0, 0, 40], list).status, 0);
  assert.deepEqual(backing.log.splice(0), ['4096+2048', '51200+512']);
  list[31] = 0xff;
  list[27] = 0xff;
  assert.equal(run(unit, [0x42, 0, 0, 0, 0, 0, 0, 0, 40], list).code, Sense.OUT_OF_RANGE);
  assert.deepEqual(backing.log, []);
  assert.equal(run(unit, [0x93, 8, ...be(3, 8), ...be(5, 4)], new Uint8Array(512)).status, 0);
  assert.equal(run(unit, [0x93, 1, ...be(3, 8), ...be(5, 4)]).status, 0);
  assert.deepEqual(backing.log.splice(0), ['zero 1536+2560 unmap', 'zero 1536+2560']);
  const pattern = Uint8Array.from({ length: 512 }, (_, i) => i + 1);
  assert.equal(run(unit, [0x41, 0, ...be(10, 4), 0, 0, 3], pattern).status, 0);
  for (let i = 10; i < 13; i++) assert.deepEqual(backing.data.slice(i * 512, i * 512 + 512), pattern);
  assert.equal(run(unit, [0x2f, 2, ...be(10, 4), 0, 0, 1], pattern).status, 0);
  assert.equal(run(unit, [0x2f, 2, ...be(13, 4), 0, 0, 1], pattern).code, Sense.MISCOMPARE);
  assert.equal(run(unit, [0x2f, 0, ...be(2048, 4), 0, 0, 1]).code, Sense.OUT_OF_RANGE);
  assert.equal(run(unit, [0x93, 0, ...be(0, 8), ...be(0, 4)], pattern).code, Sense.INVALID_FIELD);
});

function cdrom(size = 20 << 20) {
  const backing = new MemoryDisk(1 << 16);
  const moves: boolean[] = [];
  const unit = new ScsiCdrom(fresh(scsiUnitState), { disk: () => backing, trayMoved: (open) => moves.push(open) });
  unit.reset();
  run(unit, [0]);
  if (size > 0) {
    unit.insert(size);
    assert.equal(run(unit, [0]).code, Sense.MEDIUM_CHANGED);
  }
  return { unit, backing, moves };
}

test('CD: no medium, insertion, reading', () => {
  const { unit, backing } = cdrom(0);
  assert.equal(run(unit, [0]).code, Sense.NO_MEDIUM);
  assert.equal(run(unit, [0x25], undefined, 8).code, Sense.NO_MEDIUM);
  assert.equal(run(unit, [0x12, 0, 0, 0, 36], undefined, 36).data[1], 0x80);
  unit.insert(1 << 16);
  assert.equal(run(unit, [0x28, 0, 0, 0, 0, 1, 0, 0, 1], undefined, 2048).code, Sense.MEDIUM_CHANGED);
  const read = run(unit, [0x28, 0, 0, 0, 0, 1, 0, 0, 2], undefined, 4096);
  assert.deepEqual(read.data, backing.data.slice(2048, 2048 + 4096));
  assert.deepEqual(run(unit, [0xbe, 0, 0, 0, 0, 1, 0, 0, 1, 0x10], undefined, 2048).data, backing.data.slice(2048, 4096));
  assert.equal(run(unit, [0xbe, 0, 0, 0, 0, 1, 0, 0, 1, 0xf8], undefined, 2352).code, Sense.INVALID_FIELD);
  assert.deepEqual([...run(unit, [0x25], undefined, 8).data], [0, 0, 0, 31, 0, 0, 8, 0]);
  assert.equal(run(unit, [0x28, 0, 0, 0, 0, 31, 0, 0, 2], undefined, 4096).code, Sense.OUT_OF_RANGE);
  assert.equal(run(unit, [0x2a, 0, 0, 0, 0, 1, 0, 0, 1], new Uint8Array(2048)).code, Sense.INVALID_OPCODE);
});

test('CD: table of contents in addresses and in time', () => {
  const { unit } = cdrom(2048 * 4500);
  assert.deepEqual(
    [...run(unit, [0x43, 0, 0, 0, 0, 0, 0, 0, 255], undefined, 255).data],
    [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, ...be(4500, 4)],
  );
  assert.deepEqual([...run(unit, [0x43, 2, 0, 0, 0, 0, 0xaa, 0, 255], undefined, 255).data.subarray(8)], [0, 1, 2, 0]);
  assert.equal(run(unit, [0x43, 0, 1, 0, 0, 0, 0, 0, 255], undefined, 255).data.length, 12);
  assert.equal(run(unit, [0x43, 0, 2, 0, 0, 0, 0, 0, 255], undefined, 255).data.length, 4 + 4 * 11);
  assert.equal(run(unit, [0x43, 0, 0, 0, 0, 0, 9, 0, 255], undefined, 255).code, Sense.INVALID_FIELD);
  assert.equal(run(unit, [0x51, 0, 0, 0, 0, 0, 0, 0, 34], undefined, 34).data[2], 0x0e);
  assert.equal(be32(run(unit, [0x52, 1, 0, 0, 0, 1, 0, 0, 36], undefined, 36).data, 24), 4500);
});

test('CD: tray, prevention, events', () => {
  const { unit, moves } = cdrom();
  const event = (): number[] => [...run(unit, [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8], undefined, 8).data.subarray(4, 6)];
  assert.deepEqual(event(), [2, 2]);
  assert.deepEqual(event(), [0, 2]);
  run(unit, [0x1e, 0, 0, 0, 1]);
  assert.equal(run(unit, [0x1b, 0, 0, 0, 2]).code, Sense.REMOVAL_PREVENTED);
  assert.equal(unit.eject(), false);
  assert.deepEqual(event(), [1, 2]);
  assert.equal(run(unit, [0]).code, Sense.EJECT_REQUESTED);
  run(unit, [0x1e, 0, 0, 0, 0]);
  assert.equal(run(unit, [0x1b, 0, 0, 0, 2]).status, 0);
  assert.deepEqual(event(), [3, 1]);
  assert.equal(run(unit, [0]).code, Sense.NO_MEDIUM_TRAY_OPEN);
  run(unit, [0x1b, 0, 0, 0, 3]);
  assert.deepEqual(moves, [true, false]);
  assert.equal(run(unit, [0]).code, Sense.MEDIUM_CHANGED);
  assert.equal(run(unit, [0]).status, 0);
  unit.remove();
  assert.deepEqual(event(), [3, 0]);
  assert.equal(run(unit, [0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8]).code, Sense.INVALID_FIELD);
  assert.deepEqual([...run(unit, [0x4a, 1, 0, 0, 0x40, 0, 0, 0, 8], undefined, 8).data], [0, 2, 0x80, 0x10]);
});

test('CD and DVD: configuration, capabilities, disc structure', () => {
  const cd = cdrom().unit;
  const features = run(cd, [0x46, 0, 0, 0, 0, 0, 0, 1, 0], undefined, 256).data;
  assert.equal(be32(features, 0), features.length - 4);
  assert.equal(be16(features, 6), 8);
  const one = run(cd, [0x46, 2, 0, 3, 0, 0, 0, 1, 0], undefined, 256).data;
  assert.deepEqual([...one.subarray(8)], [0, 3, 3, 4, 0x29, 0, 0, 0]);
  assert.equal(run(cd, [0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4], undefined, 2052).code, Sense.INVALID_FIELD);
  const page = run(cd, [0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 255], undefined, 255).data;
  assert.equal(page[8], 0x2a);
  assert.equal(page.length, 8 + 20);
  const dvd = cdrom(4 * 2 ** 30).unit;
  assert.equal(be16(run(dvd, [0x46, 0, 0, 0, 0, 0, 0, 1, 0], undefined, 256).data, 6), 0x10);
  const structure = run(dvd, [0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4], undefined, 2052).data;
  assert.equal(structure.length, 2052);
  assert.equal(be32(structure, 12), 0x30000 + 2 ** 21 - 1);
});

test('an absent unit: qualifier 3, REPORT LUNS, everything else is refused', () => {
  const ask = (cdb: number[], room: number) => {
    const data = new ArrayData(new Uint8Array(0), room);
    const bytes = new Uint8Array(32);
    bytes.set(cdb);
    return { result: absentUnit(bytes, data, [0, 300]), data: data.into };
  };
  assert.equal(ask([0x12, 0, 0, 0, 36], 36).data[0], 0x7f);
  const luns = ask([0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64], 64);
  assert.equal(be32(luns.data, 0), 16);
  assert.equal(be16(luns.data, 16), 0x412c);
  assert.equal(ask([0], 0).result.status, 2);
});

test('random commands neither throw nor leave the disk', () => {
  const units = [disk().unit, disk({ logicalBlockSize: 4096 }).unit, cdrom(1 << 16).unit];
  const known = [
    0, 3, 8, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2a, 0x2f, 0x35, 0x41, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x55,
    0x5a, 0x88, 0x8a, 0x93, 0x9e, 0xa0, 0xa8, 0xaa, 0xad, 0xbd, 0xbe,
  ];
  const pick = random(7);
  for (let i = 0; i < 6000; i++) {
    const cdb = Array.from({ length: 16 }, () => (pick(2) === 0 ? 0 : pick(256)));
    if (pick(8) !== 0) cdb[0] = known[pick(known.length)];
    const out = Uint8Array.from({ length: pick(3) === 0 ? pick(600) : 0 }, () => pick(256));
    const result = run(units[pick(units.length)], cdb, out, pick(3000));
    assert.ok(result.status === 0 || (result.status === 2 && result.code !== 0));
  }
});

snapshotSuite(
  scsiUnitState,
  (state) => new ScsiCdrom(state),
  (unit) => {
    unit.insert(1 << 20);
    unit.eject();
  },
  (unit) => {
    const data = new ArrayData(new Uint8Array(0), 8);
    const cdb = new Uint8Array(32);
    cdb.set([0x4a, 1, 0, 0, 0x10, 0, 0, 0, 4]);
    unit.execute(cdb, data, [0]);
    return [...data.into, unit.state.size, unit.state.attention];
  },
);
