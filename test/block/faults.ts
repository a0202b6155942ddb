/** A disk that fills up and a host that fails, at random; then it is mended, and nothing may be lost. */
import assert from 'node:assert/strict';
import { BlockError } from '../../engine/block/errors.ts';
import { MemoryFile } from '../../engine/block/file.ts';
import { checkImage } from '../../engine/block/qcow2/check.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import { openQcow2 } from '../../engine/block/qcow2/open.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from '../../engine/block/qcow2/snapshot.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';
import { Random } from './harness.ts';

class FaultyFile extends MemoryFile {
  /** Chance that a write fails, before it did anything. */
  rate = 0;
  failed = 0;
  random = new Random(1);
  private fault(): void {
    if (this.rate > 0 && this.random.chance(this.rate)) {
      this.failed++;
      throw new BlockError('no-space', 'no space left (injected)');
    }
  }
  override pwrite(buf: Uint8Array, offset: number): void {
    this.fault();
    super.pwrite(buf, offset);
  }
  override writeZeroes(offset: number, length: number): void {
    this.fault();
    super.writeZeroes(offset, length);
  }
  override truncate(size: number): void {
    this.fault();
    super.truncate(size);
  }
}

/** Runs one sequence with failures; each failed operation is tried again once the fault is mended. Returns the failures. */
export function faultSequence(seed: number, steps: number): number {
  const random = new Random(seed);
  const extendedL2 = random.chance(0.2);
  const options = {
    size: (100 + random.below(500)) * 512,
    extendedL2,
    clusterSize: extendedL2 ? 16384 : random.pick([512, 1024, 4096]),
    refcountBits: random.pick([8, 16, 64]),
    lazyRefcounts: random.chance(0.2),
  };
  const file = new FaultyFile('faulty');
  createQcow2(file, host, options);
  const open = () =>
    openQcow2(file, host, {
      write: true,
      openBacking: () => null,
      openDataFile: () => {
        throw new Error('none');
      },
      cache: random.chance(0.5) ? { l2: 1024, refcount: 1024 } : {},
    });
  file.random = new Random(seed + 1);
  let node = open();
  let model = new Uint8Array(options.size);
  const saved = new Map<string, Uint8Array>();
  const log: string[] = [JSON.stringify(options)];
  /** A switch of the header failed: whether it reached the disk nobody knows, so what it led to is not given back. */
  let switched = false;
  const attempt = (what: string, run: () => void): void => {
    log.push(what);
    file.rate = random.chance(0.5) ? 0.05 : 0;
    try {
      run();
    } catch (error) {
      if (!(error instanceof BlockError && error.code === 'no-space')) throw error;
      log.push('  failed');
      if (/^(resize|snapshot|apply|delete)/.test(what)) switched = true;
      file.rate = 0;
      run();
    } finally {
      file.rate = 0;
    }
  };
  try {
    for (let step = 0; step < steps; step++) {
      const op = random.below(100);
      const offset = random.below(model.length);
      const length = Math.min(model.length - offset, 1 + random.below(20000));
      if (op < 50) {
        const data = random.bytes(length);
        attempt(`write ${offset} ${length}`, () => node.write(offset, data));
        model.set(data, offset);
      } else if (op < 60) {
        attempt(`zero ${offset} ${length}`, () => node.writeZeroes(offset, length));
        model.fill(0, offset, offset + length);
      } else if (op < 66) {
        const cluster = offset - (offset % node.clusterSize);
        const data = random.bytes(Math.min(node.clusterSize, model.length - cluster));
        attempt(`compress ${cluster}`, () => node.writeCompressed(cluster, data));
        model.set(data, cluster);
      } else if (op < 76) attempt('flush', () => node.flush());
      else if (op < 84) {
        const name = `s${step}`;
        const before = node.snapshots.length;
        attempt(`snapshot ${name}`, () => {
          if (node.snapshots.length === before) createSnapshot(node, { name });
        });
        saved.set(name, model.slice());
      } else if (op < 89 && saved.size) {
        const name = random.pick([...saved.keys()]);
        attempt(`apply ${name}`, () => applySnapshot(node, name));
        model = saved.get(name)!.slice();
      } else if (op < 93 && saved.size) {
        const name = random.pick([...saved.keys()]);
        attempt(`delete ${name}`, () => {
          if (node.snapshots.some((s) => s.name === name)) deleteSnapshot(node, name);
        });
        saved.delete(name);
      } else if (op < 96) {
        const size = (100 + random.below(500)) * 512;
        attempt(`resize ${size}`, () => node.resize(size));
        const next = new Uint8Array(size);
        next.set(model.subarray(0, Math.min(size, model.length)));
        model = next;
      } else {
        log.push('reopen');
        node.close();
        node = open();
      }
      const found = new Uint8Array(model.length);
      node.read(0, found);
      assert.equal(Buffer.compare(found, model), 0, 'content differs');
    }
    node.close();
    node = open();
    const result = checkImage(node);
    assert.equal(result.corruptions, 0, result.messages[0]);
    if (!switched) assert.equal(result.leaks, 0, result.messages[0]);
    node.close();
    return file.failed;
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}\n${log[0]}\n${log.slice(-10).join('\n')}`, { cause: error });
  }
}
