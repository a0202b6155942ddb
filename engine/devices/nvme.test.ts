import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NVME_MDTS, Nvme, nvmeState } from './nvme.ts';
import { fresh, PlainMemory, snapshotSuite } from './testing.ts';
import { MemoryDisk, random } from './virtio/testing-disk.ts';

const locked = <T>(body: () => T): T => body();
const identity = {
  ...{ serial: 'S1', model: 'Vivarium NVMe Ctrl', revision: '1.0', eui64: new Uint8Array(8), mdts: NVME_MDTS },
  ...{ readOnly: false, discard: true },
};
const ADMIN_SQ = 0x1000;
const ADMIN_CQ = 0x2000;
const SQ = 0x3000;
const CQ = 0x4000;

function make() {
  const memory = new PlainMemory(4 << 20);
  const disk = new MemoryDisk(8192 * 512);
  const sent: number[] = [];
  const nvme = new Nvme(
    fresh(nvmeState),
    { identity, queues: 5, blockSize: 512, readOnly: false, disk: () => disk },
    { memory, ring: () => {}, irq: () => {}, message: (vector) => sent.push(vector), messages: () => true },
  );
  nvme.reset();
  nvme.setSize(disk.size);
  nvme.write(0x24, 4, (15 << 16) | 15);
  nvme.write(0x28, 4, ADMIN_SQ);
  nvme.write(0x30, 4, ADMIN_CQ);
  nvme.write(0x14, 4, (4 << 20) | (6 << 16) | 1);
  assert.equal(nvme.read(0x1c, 4), 1);
  const tails = [0, 0];
  const heads = [0, 0];
  const places = [
    [ADMIN_SQ, ADMIN_CQ, 16],
    [SQ, CQ, 8],
  ];
  const serve = (): void => {
    while (nvme.process(8, locked));
  };
  interface Entry {
    readonly opcode: number;
    readonly words?: Readonly<Record<number, number>>;
    readonly prp?: readonly [number, number];
    readonly namespace?: number;
  }
  const submit = (queue: number, { opcode, words = {}, prp = [0, 0], namespace = 1 }: Entry): number => {
    const at = places[queue][0] + tails[queue] * 64;
    memory.data.fill(0, at, at + 64);
    const id = 0x100 + tails[queue];
    memory.write32(at, opcode | (id << 16));
    memory.write32(at + 4, namespace);
    memory.write32(at + 24, prp[0]);
    memory.write32(at + 32, prp[1]);
    for (const [word, value] of Object.entries(words)) memory.write32(at + Number(word) * 4, value);
    tails[queue] = (tails[queue] + 1) % places[queue][2];
    nvme.write(0x1000 + queue * 8, 4, tails[queue]);
    return id;
  };
  /** Submits, and takes the completion: its status and result. */
  const run = (queue: number, entry: Entry): readonly [status: number, result: number] => {
    const id = submit(queue, entry);
    serve();
    const at = places[queue][1] + heads[queue] * 16;
    assert.equal(memory.read16(at + 12), id);
    const status = memory.read16(at + 14) >> 1;
    heads[queue] = (heads[queue] + 1) % places[queue][2];
    nvme.write(0x1000 + queue * 8 + 4, 4, heads[queue]);
    return [status & 0x7ff, memory.read32(at)];
  };
  const open = (): void => {
    assert.deepEqual(run(0, { opcode: 5, words: { 10: (7 << 16) | 1, 11: (1 << 16) | 3 }, prp: [CQ, 0] })[0], 0);
    assert.deepEqual(run(0, { opcode: 1, words: { 10: (7 << 16) | 1, 11: (1 << 16) | 1 }, prp: [SQ, 0] })[0], 0);
  };
  return { memory, disk, nvme, sent, run, submit, serve, open };
}

test('identify, features, queues; what is wrong gets its status', () => {
  const { memory, run, open } = make();
  assert.deepEqual(run(0, { opcode: 6, words: { 10: 1 }, prp: [0x8000, 0] })[0], 0);
  assert.equal(new TextDecoder().decode(memory.data.slice(0x8018, 0x802a)), 'Vivarium NVMe Ctrl');
  assert.equal(run(0, { opcode: 6, words: { 10: 0 }, prp: [0x8000, 0] })[0], 0);
  assert.deepEqual([memory.read64(0x8000), memory.read8(0x8000 + 130)], [8192, 9]);
  assert.deepEqual(run(0, { opcode: 9, words: { 10: 7, 11: 0x00ff00ff } }), [0, 0x30003]);
  assert.equal(run(0, { opcode: 1, words: { 10: (7 << 16) | 1, 11: (1 << 16) | 1 }, prp: [SQ, 0] })[0], 0x100, 'no such CQ');
  open();
  assert.equal(run(0, { opcode: 5, words: { 10: (7 << 16) | 1, 11: 3 }, prp: [CQ, 0] })[0], 0x101);
  assert.equal(run(0, { opcode: 4, words: { 10: 1 } })[0], 0x10c, 'a queue that is used');
  assert.equal(run(0, { opcode: 0x77 })[0], 1);
});

test('reads and writes by one page, two, and a list; flush, zeroes, deallocation', () => {
  const { memory, disk, run, open, sent } = make();
  open();
  sent.length = 0;
  const read = (lba: number, blocks: number, prp: readonly [number, number]): number =>
    run(1, { opcode: 2, words: { 10: lba, 12: blocks - 1 }, prp })[0];
  assert.equal(read(3, 1, [0x10100, 0]), 0);
  assert.deepEqual(memory.data.slice(0x10100, 0x10300), disk.data.slice(3 * 512, 4 * 512));
  assert.equal(read(8, 8, [0x10800, 0x20000]), 0);
  assert.deepEqual(memory.data.slice(0x10800, 0x11000), disk.data.slice(8 * 512, 12 * 512));
  assert.deepEqual(memory.data.slice(0x20000, 0x20800), disk.data.slice(12 * 512, 16 * 512));
  // A list that goes on in a second page: it starts with two entries left in the first.
  const pages = Array.from({ length: 20 }, (_, n) => 0x40000 + ((n * 7) % 20) * 4096);
  memory.write64(0x30ff0, pages[1]);
  memory.write64(0x30ff8, 0x32000);
  pages.slice(2).forEach((page, n) => {
    memory.write64(0x32000 + n * 8, page);
  });
  assert.equal(read(100, 160, [pages[0], 0x30ff0]), 0);
  pages.forEach((page, n) => {
    assert.deepEqual(memory.data.slice(page, page + 4096), disk.data.slice(100 * 512 + n * 4096, 100 * 512 + (n + 1) * 4096));
  });
  memory.data.fill(0x5c, 0x10000, 0x11000);
  assert.equal(run(1, { opcode: 1, words: { 10: 50, 12: 7 | 0x40000000 }, prp: [0x10000, 0] })[0], 0);
  assert.ok(disk.data.slice(50 * 512, 58 * 512).every((byte) => byte === 0x5c));
  assert.equal(disk.flushes, 1, 'FUA');
  assert.equal(run(1, { opcode: 0 })[0], 0);
  assert.equal(run(1, { opcode: 8, words: { 10: 50, 12: 1 | (2 << 24) } })[0], 0);
  assert.equal(disk.log[0], `zero ${50 * 512}+1024 unmap`);
  memory.write32(0x10004, 9);
  memory.write64(0x10008, 4000);
  assert.equal(run(1, { opcode: 9, words: { 10: 0, 11: 4 }, prp: [0x10000, 0] })[0], 0);
  assert.equal(disk.log[1], `${4000 * 512}+${9 * 512}`);
  assert.equal(read(8191, 2, [0x10000, 0]), 0x80);
  assert.equal(read(0, 8, [0x10001, 0]), 0x13);
  assert.equal(run(1, { opcode: 2, namespace: 2, prp: [0x10000, 0] })[0], 0x0b);
  disk.failures = 1;
  assert.equal(read(0, 1, [0x10000, 0]), 0x281);
  assert.ok(sent.length >= 10 && sent.every((vector) => vector === 1));
});

test('a full completion queue holds commands back until there is room', () => {
  const { memory, nvme, submit, serve, open } = make();
  open();
  nvme.write(0x1000 + 12, 4, 0);
  for (let n = 0; n < 7; n++) submit(1, { opcode: 0 });
  serve();
  submit(1, { opcode: 0 });
  serve();
  const posted = (): number =>
    Array.from({ length: 8 }, (_, n) => memory.read16(CQ + n * 16 + 14) & 1).reduce((a, b) => a + b, 0);
  assert.equal(posted(), 7);
  nvme.write(0x1000 + 12, 4, 3);
  serve();
  assert.equal(posted(), 8);
});

test('a controller that is disabled forgets its queues; random accesses never throw', () => {
  const { nvme, memory, open, serve, disk } = make();
  open();
  nvme.write(0x14, 4, 0);
  assert.equal(nvme.read(0x1c, 4), 0);
  const pick = random(9);
  for (let i = 0; i < 4000; i++) {
    if (i % 16 === 0) for (let at = 0; at < 300; at++) memory.write8(0x1000 + pick(0x4000), pick(256));
    const value = pick(3) === 0 ? pick(2 ** 32) : pick(64);
    nvme.write(pick(3) === 0 ? pick(16) * 4 : 0x1000 + pick(12) * 4, 4, value);
    if (i % 50 === 0) nvme.write(0x14, 4, (4 << 20) | (6 << 16) | 1);
    nvme.read(pick(4096) * 4, 4);
    for (let n = 0; n < 4 && nvme.process(8, locked); n++);
  }
  serve();
  assert.equal(disk.size, 8192 * 512);
});

snapshotSuite(
  nvmeState,
  (state) =>
    new Nvme(
      state,
      { identity, queues: 3, blockSize: 512, readOnly: false, disk: () => undefined },
      { memory: new PlainMemory(4096), ring() {}, irq() {}, message() {}, messages: () => false },
    ),
  (nvme) => {
    nvme.write(0x24, 4, 0x000f000f);
    nvme.write(0x14, 4, (4 << 20) | (6 << 16) | 1);
    nvme.write(0x0c, 4, 5);
  },
  (nvme) => [0, 4, 8, 0xc, 0x14, 0x1c, 0x24, 0x28].map((at) => nvme.read(at, 4)),
);
