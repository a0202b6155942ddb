/**
 * Plays a power cut: a trace of what an image's file was told, cut after every entry, with the entries since the last
 * flush lost in random parts (whole writes, or single sectors of them).
 */
import assert from 'node:assert/strict';
import { BlockError } from '../../engine/block/errors.ts';
import { type BlockFile, type BlockHost, MemoryFile } from '../../engine/block/file.ts';
import { checkImage } from '../../engine/block/qcow2/check.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import type { Qcow2Node } from '../../engine/block/qcow2/node.ts';
import { openQcow2 } from '../../engine/block/qcow2/open.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from '../../engine/block/qcow2/snapshot.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';
import { Random } from './harness.ts';

const SECTOR = 512;

type Entry =
  | { kind: 'write'; offset: number; bytes: Uint8Array }
  | { kind: 'zero'; offset: number; length: number }
  | { kind: 'size'; size: number }
  | { kind: 'flush' };

/** A file that remembers what it was told. */
class TracedFile extends MemoryFile {
  trace: Entry[] = [];
  override pwrite(buf: Uint8Array, offset: number): void {
    this.trace.push({ kind: 'write', offset, bytes: buf.slice() });
    super.pwrite(buf, offset);
  }
  override writeZeroes(offset: number, length: number): void {
    this.trace.push({ kind: 'zero', offset, length });
    super.writeZeroes(offset, length);
  }
  override discard(offset: number, length: number): void {
    const inside = Math.min(length, this.size() - offset);
    if (inside <= 0) return;
    this.trace.push({ kind: 'zero', offset, length: inside });
    super.writeZeroes(offset, inside);
  }
  override truncate(size: number): void {
    this.trace.push({ kind: 'size', size });
    super.truncate(size);
  }
  override flush(): void {
    this.trace.push({ kind: 'flush' });
  }
}

function replay(file: MemoryFile, entry: Entry, random: Random | null): void {
  if (entry.kind === 'flush') return;
  if (entry.kind === 'size') {
    if (random === null || random.chance(0.5)) file.truncate(entry.size);
    return;
  }
  const length = entry.kind === 'write' ? entry.bytes.length : entry.length;
  const fate = random === null ? 0 : random.below(3);
  if (fate === 1) return;
  if (fate === 0) {
    if (entry.kind === 'write') file.pwrite(entry.bytes, entry.offset);
    else file.writeZeroes(entry.offset, length);
    return;
  }
  // Torn: some sectors made it.
  for (let at = 0; at < length; ) {
    const n = Math.min(length - at, SECTOR - ((entry.offset + at) % SECTOR));
    if (random!.chance(0.5)) {
      if (entry.kind === 'write') file.pwrite(entry.bytes.subarray(at, at + n), entry.offset + at);
      else file.writeZeroes(entry.offset + at, n);
    }
    at += n;
  }
}

function open(file: BlockFile, blockHost: BlockHost): Qcow2Node {
  return openQcow2(file, blockHost, {
    write: true,
    openBacking: () => null,
    openDataFile: () => {
      throw new Error('no data file here');
    },
    cache: { l2: 4096, refcount: 4096 },
  });
}

interface Checkpoint {
  at: number;
  model: Uint8Array;
}

interface Touch {
  /** Trace position when it began. */
  at: number;
  offset: number;
  length: number;
}

/** Records one random sequence and tries every cut. Returns the number of cuts. */
export function powerCuts(seed: number, steps: number, variants: number): number {
  const random = new Random(seed);
  const version = random.chance(0.2) ? 2 : 3;
  const extendedL2 = version === 3 && random.chance(0.2);
  const clusterSize = extendedL2 ? 16384 : random.pick([512, 1024, 4096]);
  const options = {
    size: 200 * 512 + random.below(400) * 512,
    version: version as 2 | 3,
    extendedL2,
    clusterSize,
    refcountBits: version === 3 ? random.pick([8, 16, 64]) : 16,
    lazyRefcounts: version === 3 && random.chance(0.3),
  };
  const what = `seed ${seed} ${JSON.stringify(options)}`;
  const file = new TracedFile('traced');
  createQcow2(file, host, options);
  const base = file.content();
  file.trace = [];
  const node = open(file, host);
  let model = new Uint8Array(options.size);
  const checkpoints: Checkpoint[] = [{ at: 0, model: model.slice() }];
  const touches: Touch[] = [];
  const log: string[] = [];
  const touch = (offset: number, length: number) => touches.push({ at: file.trace.length, offset, length });
  const checkpoint = () => checkpoints.push({ at: file.trace.length, model: model.slice() });
  const saved = new Map<string, Uint8Array>();
  for (let step = 0; step < steps; step++) {
    const op = random.below(100);
    const offset = random.below(model.length / 512) * 512;
    const length = Math.min(model.length - offset, 512 * (1 + random.below(40)));
    log.push(`${file.trace.length}: op ${op} ${offset} ${length}`);
    if (op < 45) {
      const data = random.bytes(length);
      touch(offset, length);
      node.write(offset, data);
      model.set(data, offset);
    } else if (op < 60) {
      touch(offset, length);
      if (op < 52) node.discard(offset, length);
      else node.writeZeroes(offset, length);
      node.read(offset, model.subarray(offset, offset + length));
    } else if (op < 68) {
      const cluster = offset - (offset % clusterSize);
      const data = random.bytes(Math.min(clusterSize, model.length - cluster));
      touch(cluster, data.length);
      node.writeCompressed(cluster, data);
      model.set(data, cluster);
    } else if (op < 82 || version === 2) {
      node.flush();
      checkpoint();
    } else if (op < 89) {
      const name = `s${step}`;
      try {
        createSnapshot(node, { name });
        saved.set(name, model.slice());
        checkpoint();
      } catch (error) {
        if (!(error instanceof BlockError && error.code === 'invalid')) throw error;
      }
    } else if (op < 93) {
      if (saved.size === 0) continue;
      const name = random.pick([...saved.keys()]);
      touch(0, 2 ** 30);
      try {
        applySnapshot(node, name);
        model = saved.get(name)!.slice();
      } catch (error) {
        if (!(error instanceof BlockError && error.code === 'invalid')) throw error;
      }
      checkpoint();
    } else if (op < 96) {
      if (saved.size === 0) continue;
      const name = random.pick([...saved.keys()]);
      deleteSnapshot(node, name);
      saved.delete(name);
      checkpoint();
    } else {
      const size = 512 * (100 + random.below(500));
      touch(Math.min(size, model.length), 2 ** 30);
      node.resize(size);
      const next = new Uint8Array(size);
      next.set(model.subarray(0, Math.min(size, model.length)));
      model = next;
      node.flush();
      checkpoint();
    }
  }
  node.close();
  const { trace } = file;

  const durable = new MemoryFile('durable', base);
  let flushedTo = 0;
  let cuts = 0;
  for (let cut = 0; cut <= trace.length; cut++) {
    if (cut > 0 && trace[cut - 1].kind === 'flush') {
      for (; flushedTo < cut; flushedTo++) replay(durable, trace[flushedTo], null);
    }
    for (let variant = 0; variant < (flushedTo === cut ? 1 : variants); variant++) {
      cuts++;
      const image = new MemoryFile('cut', durable.content());
      for (let i = flushedTo; i < cut; i++) replay(image, trace[i], random);
      const where = (): string =>
        `${what}, cut after ${cut} of ${trace.length}\n${log
          .filter((line) => Number.parseInt(line, 10) <= cut)
          .slice(-5)
          .join('\n')}`;
      let after: Qcow2Node;
      try {
        after = open(image, host);
      } catch (error) {
        throw new Error(`${where()}: does not open: ${(error as Error).message}`, { cause: error });
      }
      const result = checkImage(after);
      if (result.corruptions !== 0) assert.fail(`${where()}: ${result.messages.find((m) => m.startsWith('ERROR'))}`);
      const last = checkpoints.findLast((c) => c.at <= cut)!;
      // What was touched since is whole sectors.
      const loose = new Uint8Array(last.model.length / SECTOR);
      for (const t of touches)
        if (t.at >= last.at && t.at <= cut)
          loose.fill(1, t.offset / SECTOR, Math.min(last.model.length, t.offset + t.length) / SECTOR);
      const found = Buffer.alloc(Math.min(after.size, last.model.length));
      after.read(0, found);
      for (let at = 0; at < found.length; at += SECTOR)
        if (loose[at / SECTOR] === 0 && found.compare(last.model, at, at + SECTOR, at, at + SECTOR) !== 0)
          assert.fail(`${where()}: flushed sector ${at / SECTOR} is lost`);
      checkImage(after, 'leaks');
      after.close();
      if (variant === 0 && cut % 8 === 0) {
        const again = open(image, host);
        const clean = checkImage(again);
        if (clean.corruptions + clean.leaks !== 0) assert.fail(`${where()}: after repair: ${clean.messages[0]}`);
        again.closeFiles();
      }
    }
  }
  return cuts;
}
