/**
 * Long work on disks in small steps, so that an I/O thread can serve its guest between them. A job is a generator that
 * yields how far it is; a step does at most `STEP` bytes. Everything runs on the thread that owns the nodes, so a step
 * is atomic to the guest.
 */
import { type ChainRun, chainStatus } from './chain.ts';
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
const FAR = 1 << 30;

/** How deep a node lies in the chain of `top`; the length of the chain where it is not in it. */
function depthOf(top: BlockNode, node: BlockNode | null): number {
  let depth = 0;
  for (let at: BlockNode | null = top; at !== null && at !== node; at = at.backing) depth++;
  return depth;
}

/**
 * block-stream: pulls what an overlay sees in its backing chain into the overlay, down to `base` (or all of it), then
 * makes it independent of what lies between. With a base, the caller opens the chain anew after it, because the node still
 * reads through the old one; without, the old chain is closed.
 */
export function* streamJob(node: Qcow2Node, base?: { node: BlockNode; name: string; format: string }): Job {
  const buf = new Uint8Array(Math.max(STEP, node.clusterSize));
  const limit = depthOf(node, base?.node ?? null);
  for (let at = 0; at < node.size; ) {
    const run = node.blockStatus(at, Math.min(node.size - at, FAR));
    if (run.kind !== 'unallocated') {
      at += run.length;
      continue;
    }
    const below = chainStatus(node, at, run.length);
    if (below.depth >= limit) at += below.length;
    else if (below.kind !== 'data') {
      // Without a base, unallocated reads as zeros by itself; with one, what hides it must go on hiding it.
      if (base !== undefined) node.writeZeroes(at, below.length);
      at += below.length;
    } else {
      const n = Math.min(below.length, buf.length - (at % buf.length), node.size - at);
      const part = buf.subarray(0, n);
      node.read(at, part);
      if (!isZero(part)) node.write(at, part);
      else if (base !== undefined) node.writeZeroes(at, n);
      at += n;
    }
    yield { done: at, total: node.size };
  }
  node.flush();
  node.setBackingName(base?.name ?? null, base?.format ?? null);
  if (base !== undefined) return;
  const { backing } = node;
  node.backing = null;
  backing?.close();
}

/**
 * drive-mirror: copies a disk to the target of its mirror node while the guest goes on writing to both. `top`: only what
 * the topmost image itself holds, because the target has the same backing file.
 */
export function* mirrorJob(node: MirrorNode, source: BlockNode, sync: 'full' | 'top' = 'full'): Job {
  const buf = new Uint8Array(STEP);
  for (let at = 0; at < source.size; ) {
    const far = Math.min(source.size - at, FAR);
    const run = sync === 'full' ? chainStatus(source, at, far) : source.blockStatus(at, far);
    const n = Math.min(run.length, run.kind === 'data' ? STEP : FAR, source.size - at);
    if (run.kind === 'data') {
      const part = buf.subarray(0, n);
      source.read(at, part);
      node.target.write(at, part);
    } else if (sync === 'full' || run.kind === 'zero') node.target.writeZeroes(at, n, true);
    at += n;
    yield { done: at, total: source.size };
  }
  node.target.flush();
}

/**
 * block-commit: copies what the chain from `top` down to above `base` holds into `base` (which is open for writing). For
 * the active layer put a `MirrorNode` of top and base in front of the guest first; when the job ends both read the same.
 */
export function* commitJob(top: BlockNode, base: BlockNode): Job {
  if (base.size < top.size) base.resize(Math.ceil(top.size / 512) * 512);
  const buf = new Uint8Array(STEP);
  const limit = depthOf(top, base);
  for (let at = 0; at < top.size; ) {
    const run: Pick<ChainRun, 'kind' | 'length' | 'depth'> = chainStatus(top, at, Math.min(top.size - at, FAR));
    const above = run.depth < limit && (run.kind !== 'unallocated' || top.backing !== null);
    const n = run.kind === 'data' && above ? Math.min(run.length, STEP) : run.length;
    if (above) {
      if (run.kind === 'data') {
        const part = buf.subarray(0, n);
        top.read(at, part);
        base.write(at, part);
      } else base.writeZeroes(at, n, true);
    }
    at += n;
    yield { done: at, total: top.size };
  }
  base.flush();
}
