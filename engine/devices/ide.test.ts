import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ataDriveState, SECTOR } from './ata.ts';
import { AtaDrive } from './ata-drive.ts';
import { IdeChannel, ideChannelState } from './ide.ts';
import { fresh, PlainMemory, RecordedLine, snapshotSuite } from './testing.ts';
import { ScsiCdrom } from './virtio/scsi-cdrom.ts';
import { scsiUnitState } from './virtio/scsi-unit.ts';
import { MemoryDisk } from './virtio/testing-disk.ts';

const identity = { model: 'VIVARIUM HARDDISK', serial: 'S1', revision: '1.0', sata: false, trim: true };
const locked = <T>(body: () => T): T => body();

/** A channel with a disk of 300 sectors, and a CD of 100 blocks. */
function make() {
  const memory = new PlainMemory(1 << 20);
  const irq = new RecordedLine();
  const disk = new MemoryDisk(300 * SECTOR);
  const cd = new MemoryDisk(100 * 2048);
  for (const [n, { data }] of [disk, cd].entries())
    for (let i = 0; i < data.length; i++) data[i] = (i * (n + 3) + (i >> 9)) & 0xff;
  const rung: number[] = [];
  const drives = [
    new AtaDrive(fresh(ataDriveState), { identity, disk: () => disk }),
    new AtaDrive(fresh(ataDriveState), {
      identity,
      cdrom: new ScsiCdrom(fresh(scsiUnitState), { interface: 2, disk: () => cd }),
      disk: () => cd,
    }),
  ];
  const channel = new IdeChannel(fresh(ideChannelState), { memory, irq, drives, ring: (n) => rung.push(n) });
  channel.reset();
  drives[0].setSize(disk.size);
  drives[1].setSize(cd.size);
  const { commandBlock: block, controlBlock, busMaster } = channel;
  const out = (register: number, value: number): void => block.write(register, 1, value);
  /** Lets the I/O threads do what they were rung for. */
  const serve = (): void => {
    for (const n of rung.splice(0)) while (channel.process(n, locked));
  };
  const status = (): number => controlBlock.read(0, 1);
  const command = (code: number, { drive = 0, lba = 0, count = 1, features = 0 } = {}): void => {
    out(6, 0xe0 | (drive << 4) | ((lba >>> 24) & 15));
    out(1, features);
    out(2, count & 0xff);
    for (let i = 0; i < 3; i++) out(3 + i, (lba >>> (8 * i)) & 0xff);
    out(7, code);
    serve();
  };
  const words = (count: number): Uint8Array => {
    const bytes = new Uint8Array(count * 2);
    for (let i = 0; i < count; i++) {
      const value = block.read(0, 2);
      bytes.set([value & 0xff, value >> 8], i * 2);
      serve();
    }
    return bytes;
  };
  const packet = (cdb: readonly number[], limit = 0xfffe, dma = false): void => {
    command(0xa0, { drive: 1, lba: limit << 8, features: dma ? 1 : 0 });
    for (let i = 0; i < 12; i += 2) block.write(0, 2, (cdb[i] ?? 0) | ((cdb[i + 1] ?? 0) << 8));
    serve();
  };
  /** A table of regions at 0x1000. */
  const table = (regions: readonly (readonly [number, number])[]): void => {
    regions.forEach(([address, length], n) => {
      memory.write32(0x1000 + n * 8, address);
      memory.write32(0x1004 + n * 8, (length & 0xffff) | (n === regions.length - 1 ? 0x80000000 : 0));
    });
    busMaster.write(4, 4, 0x1000);
    busMaster.write(2, 1, 6);
  };
  return { memory, irq, disk, cd, drives, channel, block, busMaster, out, serve, status, command, words, packet, table };
}

test('signatures after a reset tell disk and packet device apart; IDENTIFY', () => {
  const { out, block, status, command, words, irq, channel } = make();
  const signature = (): number[] => [2, 3, 4, 5].map((register) => block.read(register, 1));
  out(6, 0xa0);
  assert.deepEqual([...signature(), status()], [1, 1, 0, 0, 0x50]);
  out(6, 0xb0);
  assert.deepEqual([...signature(), status()], [1, 1, 0x14, 0xeb, 0]);
  command(0xec);
  assert.equal(status(), 0x58);
  assert.ok(irq.level);
  assert.equal(block.read(7, 1), 0x58);
  assert.ok(!irq.level, 'reading the status takes the interrupt');
  const identify = new DataView(words(256).buffer);
  assert.equal(identify.getUint32(120, true), 300);
  assert.equal(identify.getUint16(54, false), 0x4956, 'the model, swapped');
  assert.equal(status(), 0x50);
  command(0xec, { drive: 1 });
  assert.equal(status(), 0x51);
  assert.equal(block.read(5, 1), 0xeb, 'a packet device refuses and shows what it is');
  command(0xa1, { drive: 1 });
  assert.equal(words(256)[1], 0x85);
  channel.controlBlock.write(0, 1, 4);
  assert.equal(status(), 0x80);
  channel.controlBlock.write(0, 1, 0);
  assert.equal(status(), 0x50);
});

test('PIO: an interrupt for each DRQ block, single and multiple', () => {
  const { command, words, disk, irq, status, block, serve } = make();
  irq.edges = 0;
  command(0x20, { lba: 7, count: 5 });
  for (let n = 0; n < 5; n++) {
    assert.equal(block.read(7, 1), 0x58);
    assert.deepEqual(words(256), disk.data.slice((7 + n) * SECTOR, (8 + n) * SECTOR));
  }
  assert.equal(irq.edges, 5);
  assert.equal(status(), 0x50);
  command(0xc4, { lba: 0, count: 40 });
  irq.edges = 0;
  assert.deepEqual(words(40 * 256), disk.data.slice(0, 40 * SECTOR));
  command(0x30, { lba: 298, count: 2 });
  for (let i = 0; i < 512; i++) {
    assert.equal(status() & 8, 8);
    block.write(0, 2, i);
    serve();
  }
  assert.equal(status(), 0x50);
  assert.deepEqual([...disk.data.slice(298 * SECTOR + 4, 298 * SECTOR + 8)], [2, 0, 3, 0]);
  command(0x20, { lba: 299, count: 2 });
  assert.deepEqual([status(), block.read(1, 1) & 0x10], [0x51, 0x10], 'beyond the end');
});

test('string reads take a DRQ block at once', () => {
  const { command, block, disk, serve, status, irq } = make();
  command(0x20, { lba: 3, count: 2 });
  irq.edges = 0;
  const target = new Uint8Array(700);
  assert.equal(block.read(0, 4) >>> 0, new DataView(disk.data.buffer, 3 * SECTOR).getUint32(0, true));
  assert.equal(block.readBlock?.(0, 2, target), 508);
  assert.deepEqual(target.slice(0, 508), disk.data.slice(3 * SECTOR + 4, 4 * SECTOR));
  assert.equal(block.readBlock?.(1, 1, target), 0);
  serve();
  assert.equal(block.readBlock?.(0, 4, target), 512);
  assert.deepEqual(target.slice(0, 512), disk.data.slice(4 * SECTOR, 5 * SECTOR));
  assert.equal(status(), 0x50);
  assert.equal(block.readBlock?.(0, 4, target), 0);
});

test('bus master: scattered regions, 48 bits, an interrupt at the end', () => {
  const { memory, disk, command, table, busMaster, status, serve, irq, out } = make();
  table([
    [0x2000, 1000],
    [0x8002, 24],
    [0x9000, 512],
  ]);
  for (const register of [2, 3, 4, 5]) out(register, 0);
  command(0x25, { lba: 4, count: 3 });
  assert.equal(status(), 0xc0, 'waits for the bus master');
  busMaster.write(0, 1, 9);
  serve();
  assert.equal(status(), 0x50);
  assert.ok(irq.level);
  assert.equal(busMaster.read(2, 1) & 7, 4);
  const got = [
    memory.data.slice(0x2000, 0x2000 + 1000),
    memory.data.slice(0x8002, 0x8002 + 24),
    memory.data.slice(0x9000, 0x9200),
  ];
  assert.deepEqual(Buffer.concat(got), Buffer.from(disk.data.slice(4 * SECTOR, 7 * SECTOR)));
  busMaster.write(0, 1, 0);
  table([[0x2000, 512]]);
  busMaster.write(0, 1, 1);
  command(0xca, { lba: 9, count: 2 });
  assert.equal(status() & 1, 1, 'a table that is too short is an error');
  assert.equal(busMaster.read(2, 1) & 2, 2);
  busMaster.write(0, 1, 0);
  memory.data.fill(0x77, 0x3000, 0x3200);
  table([[0x3000, 512]]);
  busMaster.write(0, 1, 1);
  command(0xca, { lba: 9, count: 1 });
  assert.equal(status(), 0x50);
  assert.ok(disk.data.slice(9 * SECTOR, 10 * SECTOR).every((byte) => byte === 0x77));
  command(0xe7);
  assert.equal(disk.flushes, 1);
});

test('packets: attention, sense, data by pieces, by the bus master', () => {
  const { packet, status, block, words, cd, table, busMaster, serve, memory } = make();
  packet([0]);
  assert.deepEqual([status(), block.read(1, 1)], [0x41, 0x64], 'unit attention first');
  packet([3, 0, 0, 0, 18]);
  assert.equal(block.read(2, 1), 2);
  assert.equal((block.read(5, 1) << 8) | block.read(4, 1), 18);
  assert.deepEqual([words(9)[2], status(), block.read(2, 1)], [6, 0x40, 3]);
  packet([0]);
  assert.equal(status(), 0x40);
  packet([0x28, 0, 0, 0, 0, 5, 0, 0, 80], 4096);
  assert.deepEqual(words(80 * 1024), cd.data.slice(5 * 2048, 85 * 2048));
  assert.equal(status(), 0x40);
  packet([0x28, 0, 0, 0, 0, 50, 0, 0, 80]);
  assert.equal(status() & 1, 1, 'not all of that is on the medium');
  table([[0x4000, 4096]]);
  packet([0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 2], 0, true);
  busMaster.write(0, 1, 9);
  serve();
  assert.equal(status(), 0x40);
  assert.deepEqual(memory.data.slice(0x4000, 0x5000), cd.data.slice(9 * 2048, 11 * 2048));
});

test('a command that is given up by a reset leaves nothing behind', () => {
  const { channel, block, status, irq } = make();
  const { controlBlock } = channel;
  block.write(6, 1, 0xe0);
  block.write(2, 1, 1);
  block.write(7, 1, 0x20);
  let inside = false;
  channel.process(0, (body) => {
    const result = body();
    // After the job was taken and before its result comes.
    if (!inside) {
      inside = true;
      controlBlock.write(0, 1, 4);
      controlBlock.write(0, 1, 0);
    }
    return result;
  });
  assert.deepEqual([status(), irq.level], [0x50, false]);
});

test('random register accesses never throw and never hang', () => {
  const { channel, block, busMaster, serve } = make();
  for (let i = 0, seed = 5; i < 40_000; i++) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    const size = ([1, 2, 4] as const)[(seed >>> 28) % 3];
    const at = (seed >>> 8) & 7;
    const value = seed >>> 3;
    if ((seed & 0xf0000) === 0) channel.controlBlock.write(0, 1, value & 0xff);
    else if ((seed & 0x30000) === 0) busMaster.write(at, size, value);
    else block.write(at, at === 0 ? size : 1, value);
    block.read(at, at === 0 ? size : 1);
    serve();
  }
});

snapshotSuite(
  ideChannelState,
  (state) =>
    new IdeChannel(state, {
      memory: new PlainMemory(4096),
      irq: new RecordedLine(),
      drives: [new AtaDrive(fresh(ataDriveState), { identity, disk: () => undefined }), undefined],
      ring: () => {},
    }),
  (channel) => {
    channel.commandBlock.write(2, 1, 5);
    channel.commandBlock.write(7, 1, 0xec);
    channel.commandBlock.read(0, 4);
  },
  (channel) => [2, 3, 4, 5, 6, 7].map((n) => channel.commandBlock.read(n, 1)).concat(channel.commandBlock.read(0, 4)),
);
