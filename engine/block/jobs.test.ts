import assert from 'node:assert/strict';
import { it } from 'node:test';
import { nodeBlockHost as host } from '../host/block-file.ts';
import { MemoryFile } from './file.ts';
import { MirrorNode, ReadOnlyFilter, WriteThroughNode } from './filters.ts';
import { commitJob, type Job, mirrorJob, streamJob } from './jobs.ts';
import type { BlockNode } from './node.ts';
import { createQcow2 } from './qcow2/create.ts';
import { openQcow2 } from './qcow2/open.ts';
import { RawNode } from './raw.ts';

const SIZE = 5 << 20;

function image(backing: BlockNode | null) {
  const file = new MemoryFile('image');
  createQcow2(file, host, { size: SIZE, backingFile: backing ? 'base' : null, backingFormat: backing ? 'raw' : null });
  return openQcow2(file, host, {
    write: true,
    openBacking: () => backing,
    openDataFile: () => {
      throw new Error('none');
    },
  });
}

function filled(seed: number): RawNode {
  const bytes = new Uint8Array(SIZE);
  for (let i = 0; i < SIZE; i += 300_000) bytes.fill(seed + (i % 200), i, i + 100_000);
  return new RawNode(new MemoryFile('raw', bytes));
}

function content(node: BlockNode): Uint8Array {
  const buf = new Uint8Array(SIZE);
  node.read(0, buf);
  return buf;
}

/** Runs a job with a guest write between its steps. */
function run(job: Job, between: (step: number) => void): void {
  let step = 0;
  let last = 0;
  for (const { done, total } of job) {
    assert.ok(done >= last && done <= total);
    last = done;
    between(step++);
  }
  assert.ok(step > 2);
}

it('stream makes an overlay independent while the guest writes', () => {
  const node = image(filled(1));
  node.write(1000, new Uint8Array(200_000).fill(0xaa));
  node.writeZeroes(3 << 20, 100_000);
  const model = content(node);
  run(streamJob(node), (step) => {
    node.write(step * 400_000, new Uint8Array(3000).fill(step));
    model.fill(step, step * 400_000, step * 400_000 + 3000);
  });
  assert.equal(node.backing, null);
  assert.equal(node.meta.header.backingFile, null);
  assert.deepEqual(content(node), model);
});

it('mirror ends with two equal disks', () => {
  const source = image(filled(2));
  const target = image(null);
  target.write(0, new Uint8Array(SIZE).fill(0xee));
  const guest = new MirrorNode(source, target);
  run(mirrorJob(guest, source), (step) => {
    guest.write(step * 300_007, new Uint8Array(5000).fill(step + 1));
    guest.writeZeroes(step * 200_003, 4000);
    guest.discard((4 << 20) - step * 65536, 65536);
  });
  assert.deepEqual(content(target), content(source));
});

it('an active commit ends with base and top equal', () => {
  const base = filled(3);
  const top = image(base);
  for (let i = 0; i < 20; i++) top.write(i * 250_000, new Uint8Array(70_000).fill(i));
  const guest = new MirrorNode(top, base);
  run(commitJob(top, base), (step) => guest.write(step * 123_456, new Uint8Array(9000).fill(step)));
  assert.deepEqual(content(base), content(top));
});

it('write-through flushes every write, read-only refuses every one', () => {
  let flushes = 0;
  class Counting extends MemoryFile {
    override flush(): void {
      flushes++;
    }
  }
  const node = new WriteThroughNode(new RawNode(new Counting('c', new Uint8Array(4096))));
  node.write(0, new Uint8Array(1));
  node.discard(0, 512);
  node.writeZeroes(0, 512);
  assert.equal(flushes, 3);
  assert.throws(() => new ReadOnlyFilter(node).write(), /read-only/);
});
