import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FwCfg, FwCfgKey, fwCfgState } from './fw-cfg.ts';
import { fresh, PlainMemory, snapshotSuite } from './testing.ts';

function make() {
  const memory = new PlainMemory(0x10000);
  const config = new FwCfg(fresh(fwCfgState), { memory });
  config.reset();
  return { memory, config };
}
const select = (config: FwCfg, key: number): void => config.write(0, 2, key);
const readBytes = (config: FwCfg, count: number): Buffer => Buffer.from(Array.from({ length: count }, () => config.read(1, 1)));
/** Runs a DMA command whose descriptor lies at 0x100; returns the control word after it. */
function dma(config: FwCfg, memory: PlainMemory, control: number, length: number, address: number): number {
  const view = new DataView(memory.data.buffer);
  view.setUint32(0x100, control);
  view.setUint32(0x104, length);
  view.setBigUint64(0x108, BigInt(address));
  config.write(4, 4, 0);
  config.write(8, 4, 0x00010000);
  return view.getUint32(0x100);
}

test('signature, features, and the DMA signature, as Linux and SeaBIOS probe', () => {
  const { config } = make();
  select(config, FwCfgKey.SIGNATURE);
  assert.equal(readBytes(config, 4).toString(), 'QEMU');
  assert.equal(config.read(1, 1), 0, 'zeros after the end');
  select(config, FwCfgKey.ID);
  assert.equal(readBytes(config, 4).readUInt32LE(), 3);
  assert.equal(config.read(4, 4), 0x554d4551);
  assert.equal(config.read(8, 4), 0x47464320);
  select(config, 0x7777);
  assert.equal(config.read(1, 4), 0);
});

test('the directory is sorted, big endian; files are read by their key', () => {
  const { config } = make();
  config.addFile('opt/b', 'second');
  config.addFile('etc/a', Uint8Array.of(1, 2, 3));
  config.addFile('opt/b', 'replaced');
  select(config, FwCfgKey.DIRECTORY);
  const directory = readBytes(config, 4 + 128);
  assert.equal(directory.readUInt32BE(0), 2);
  assert.deepEqual([directory.readUInt32BE(4), directory.readUInt16BE(8)], [3, 0x21]);
  assert.equal(directory.toString('latin1', 12, 18), 'etc/a\0');
  assert.deepEqual([directory.readUInt32BE(68), directory.readUInt16BE(72)], [8, 0x20]);
  select(config, 0x20);
  assert.equal(readBytes(config, 8).toString(), 'replaced');
  assert.throws(() => config.addFile('x'.repeat(56), ''), /55/);
});

test('numbers', () => {
  const { config } = make();
  config.addNumber(FwCfgKey.RAM_SIZE, 6 * 2 ** 30, 8);
  config.addNumber(FwCfgKey.CPUS, 4, 2);
  select(config, FwCfgKey.RAM_SIZE);
  assert.equal(readBytes(config, 8).readBigUInt64LE(), 6n << 30n);
  select(config, FwCfgKey.CPUS);
  assert.equal(config.read(1, 2), 4);
});

test('DMA: select and read, skip, go on, zeros beyond the end', () => {
  const { config, memory } = make();
  config.addFile('etc/f', 'abcdefghij');
  memory.data.fill(0xee, 0x200, 0x300);
  assert.equal(dma(config, memory, (0x20 << 16) | 8 | 2, 3, 0x200), 0);
  assert.equal(dma(config, memory, 4, 2, 0), 0);
  assert.equal(dma(config, memory, 2, 10, 0x210), 0);
  assert.equal(Buffer.from(memory.data.subarray(0x200, 0x204)).toString('latin1'), 'abc\xee');
  assert.equal(Buffer.from(memory.data.subarray(0x210, 0x21b)).toString('latin1'), 'fghij\0\0\0\0\0\xee');
});

test('DMA: writing needs a writable item and room', () => {
  const { config, memory } = make();
  const area = new Uint8Array(new SharedArrayBuffer(8));
  const writes: number[][] = [];
  config.addFile('etc/vmgenid_addr', area, (offset, length) => writes.push([offset, length]));
  config.addFile('etc/ro', 'x');
  memory.data.set([1, 2, 3, 4, 5, 6, 7, 8, 9], 0x200);
  assert.equal(dma(config, memory, (0x20 << 16) | 8 | 16, 8, 0x200), 0);
  assert.deepEqual([...area], [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(writes, [[0, 8]]);
  assert.equal(dma(config, memory, (0x20 << 16) | 8 | 16, 9, 0x200), 1);
  assert.equal(dma(config, memory, (0x21 << 16) | 8 | 16, 1, 0x200), 1);
});

test('DMA: addresses and lengths that make no sense do no harm', () => {
  const { config, memory } = make();
  config.addFile('etc/f', 'abc');
  assert.equal(dma(config, memory, (0x20 << 16) | 8 | 2, 0xffffffff, 0xfff0), 0);
  assert.equal(dma(config, memory, (0x20 << 16) | 8 | 2, 16, 2 ** 53), 1);
  config.write(4, 4, 0xffffffff);
  config.write(8, 4, 0xffffffff);
  assert.equal(dma(config, memory, 4, 0xffffffff, 0), 0);
  assert.equal(config.read(1, 1), 0);
});

snapshotSuite(
  fwCfgState,
  (state) => new FwCfg(state, { memory: new PlainMemory(4096) }),
  (config) => {
    select(config, FwCfgKey.SIGNATURE);
    config.read(1, 1);
    config.write(4, 4, 1);
  },
  (config) => readBytes(config, 4).toString('hex'),
);
