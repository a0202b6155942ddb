/**
 * Long work on disks in small steps, so that an I/O thread can serve its guest between them. A job is a generator that
 * yields how far it is; a step does at most `STEP` bytes. Everything runs on the thread that owns the nodes, so a step
 * is atomic to the guest.
 */
import { chainStatus } from './chain.ts';
import type { MirrorNode } from './filters.ts';
import type { BlockNode } from './node.ts';
import { isZero } from './node.ts';
import type { Qcow2Node } from './qcow2/node.ts';

export interface JobProgress {
  /** Bytes of the disk looked at, and of all. */
  done: number;
  total: number;
}

export type Job = Generator<JobProgress, void, void>;

const STEP = 1 << 20;

/**
 * block-stream: pulls what an overlay sees in its backing chain into the overlay, then makes it independent. The caller
 * closes the old backing node (returned in `node.backing` until the job ends) when the job is done.
 */
export function* streamJob(node: Qcow2Node): Job {
  const buf = new Uint8Array(Math.max(STEP, node.clusterSize));
  for (let at = 0; at < node.size; ) {
    const run = node.blockStatus(at, Math.min(node.size - at, 1 << 30));
    if (run.kind !== 'unallocated') {
      at += run.length;
      continue;
    }
    const below = chainStatus(node, at, run.length);
    if (below.kind !== 'data') {
      // Zeros below must stay zeros once the backing file is gone; unallocated does that by itself.
      at += below.length;
    } else {
      const n = Math.min(below.length, buf.length - (at % buf.length), node.size - at);
      const part = buf.subarray(0, n);
      node.read(at, part);
      if (!isZero(part)) node.write(at, part);
      at += n;
    }
    yield { done: at, total: node.size };
  }
  node.flush();
  node.setBackingName(null, null);
  const { backing } = node;
  node.backing = null;
  backing?.close();
}

/** drive-mirror with `sync=full`: copies a disk to the target of its mirror node while the guest goes on writing to both. */
export function* mirrorJob(node: MirrorNode, source: BlockNode): Job {
  const buf = new Uint8Array(STEP);
  for (let at = 0; at < source.size; ) {
    const run = chainStatus(source, at, Math.min(source.size - at, 1 << 30));
    const n = Math.min(run.length, run.kind === 'data' ? STEP : 1 << 30, source.size - at);
    if (run.kind === 'data') {
      const part = buf.subarray(0, n);
      source.read(at, part);
      node.target.write(at, part);
    } else node.target.writeZeroes(at, n, true);
    at += n;
    yield { done: at, total: source.size };
  }
  node.target.flush();
}

/**
 * block-commit: copies what `top` itself holds into `base` (opened for writing, at least as large). For the active layer
 * put a `MirrorNode` of top and base in front of the guest first; when the job ends both read the same.
 */
export function* commitJob(top: BlockNode, base: BlockNode): Job {
  if (base.size < top.size) base.resize(Math.ceil(top.size / 512) * 512);
  const buf = new Uint8Array(STEP);
  for (let at = 0; at < top.size; ) {
    const run = top.blockStatus(at, Math.min(top.size - at, 1 << 30));
    const n = run.kind === 'data' ? Math.min(run.length, STEP) : run.length;
    if (run.kind === 'data') {
      const part = buf.subarray(0, n);
      top.read(at, part);
      base.write(at, part);
    } else if (run.kind === 'zero') base.writeZeroes(at, n, true);
    at += n;
    yield { done: at, total: top.size };
  }
  base.flush();
}
