/** Random sequences on a qcow2 image beside a flat model, and qemu-img as the judge. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlockError } from '../../engine/block/errors.ts';
import { openImage } from '../../engine/block/open.ts';
import { createQcow2, type Qcow2CreateOptions } from '../../engine/block/qcow2/create.ts';
import type { Qcow2Node } from '../../engine/block/qcow2/node.ts';
import { applySnapshot, createSnapshot, deleteSnapshot } from '../../engine/block/qcow2/snapshot.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';

/** A small generator with a seed, so that a failure can be run again. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = seed >>> 0 || 1;
  }
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(n: number): number {
    return Math.floor(this.next() * n);
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
  chance(p: number): boolean {
    return this.next() < p;
  }
  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    // Half compressible: runs of one byte.
    if (this.chance(0.5)) out.fill(1 + this.below(255));
    else {
      // Four bytes at a time: xorshift, from where the generator is.
      const words = new Uint32Array(Math.ceil(length / 4));
      let x = (this.state ^ 0x9e3779b9) >>> 0 || 1;
      for (let i = 0; i < words.length; i++) {
        x ^= x << 13;
        x ^= x >>> 17;
        x ^= x << 5;
        words[i] = x;
      }
      this.state = (this.state + length) >>> 0;
      out.set(new Uint8Array(words.buffer, 0, length));
    }
    return out;
  }
}

export const haveQemu = spawnSync('qemu-img', ['--version']).status === 0;

export function qemuImg(...args: string[]): { status: number; out: string } {
  const result = spawnSync('qemu-img', args, { encoding: 'utf8' });
  return { status: result.status ?? -1, out: `${result.stdout}${result.stderr}` };
}

/** Both commands must succeed. A shell starts them, because starting a process from this one costs more than they do. */
function qemuJudges(first: readonly string[], second: readonly string[]): void {
  const quoted = (words: readonly string[]): string => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const script = [first, second].map((words) => `qemu-img ${quoted(words)} 2>&1`).join(' && ');
  const { status, stdout } = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  assert.equal(status, 0, `qemu-img ${first[0]}, ${second[0]}: ${stdout}`);
}

export function scratch(): { dir: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), 'vivarium-block-'));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

export const PASSWORD = 'sesame';
export const password = () => new TextEncoder().encode(PASSWORD);

export function randomOptions(random: Random): Qcow2CreateOptions {
  const version = random.chance(0.2) ? 2 : 3;
  const extendedL2 = version === 3 && random.chance(0.25);
  const clusterSize = extendedL2
    ? random.pick([16384, 32768, 65536])
    : random.pick([512, 512, 1024, 4096, 16384, 65536, 65536, 2 << 20]);
  return {
    size: (1 + random.below(clusterSize === 512 ? 2000 : 6000)) * 512,
    version,
    extendedL2,
    clusterSize,
    refcountBits: version === 3 ? random.pick([1, 2, 4, 8, 16, 16, 16, 32, 64]) : 16,
    lazyRefcounts: version === 3 && random.chance(0.15),
    compression: version === 3 && random.chance(0.3) ? 'zstd' : 'zlib',
    luks: version === 3 && random.chance(0.06) ? { password: password(), iterTime: 1 } : null,
  };
}

export function imageOpts(path: string, encrypted: boolean): string[] {
  return encrypted
    ? ['--object', `secret,id=s,data=${PASSWORD}`, '--image-opts', `driver=qcow2,file.filename=${path},encrypt.key-secret=s`]
    : [path];
}

interface Saved {
  name: string;
  content: Uint8Array;
}

/** The first byte that is neither zero nor what it was; -1 for none. */
function madeUp(now: Uint8Array, before: Uint8Array): number {
  if (Buffer.compare(now, before) === 0) return -1;
  for (let i = 0; i < now.length; i++) if (now[i] !== 0 && now[i] !== before[i]) return i;
  return -1;
}

/** Runs one sequence; throws with the seed in the message. */
export function runSequence(seed: number, steps: number, judge = true): void {
  const random = new Random(seed);
  const { dir, remove } = scratch();
  const log: string[] = [];
  try {
    const options = randomOptions(random);
    const path = join(dir, 'image.qcow2');
    let model: Uint8Array = new Uint8Array(options.size);
    if (random.chance(0.3)) {
      const length = (1 + random.below(6000)) * 512;
      const content = random.bytes(length);
      content.fill(0, 0, random.below(length));
      writeFileSync(join(dir, 'base.raw'), content);
      options.backingFile = 'base.raw';
      options.backingFormat = 'raw';
      model.set(content.subarray(0, Math.min(length, model.length)));
    } else if (options.version === 3 && !options.luks && random.chance(0.1)) {
      // Absolute, because QEMU takes a relative name from the current folder.
      options.dataFile = join(dir, 'image.data');
      options.dataFileRaw = random.chance(0.5);
      const data = host.openFile(join(dir, 'image.data'), { create: true });
      data.truncate(options.size);
      data.close();
      options.compression = 'zlib';
    }
    log.push(JSON.stringify({ ...options, luks: !!options.luks }));
    const file = host.openFile(path, { create: true });
    createQcow2(file, host, options);
    file.close();
    // Small caches, so that write-back and eviction happen.
    const cacheSizes = random.chance(0.5) ? { l2: 1024, refcount: 1024 } : {};
    const open = () => openImage(host, path, { write: true, password, cache: 'unsafe', cacheSizes }) as Qcow2Node;
    let node = open();
    const saved: Saved[] = [];
    const range = (): [number, number] => {
      const unit = random.pick([1, 512, 4096, node.clusterSize]);
      const offset = Math.min(model.length - 1, random.below(Math.ceil(model.length / unit)) * unit);
      const length = Math.min(model.length - offset, random.pick([1, 512, 4096, 65536, 300000]) * (1 + random.below(3)));
      return [offset, length];
    };
    let buf = new Uint8Array(0);
    const verify = () => {
      if (buf.length !== model.length) buf = new Uint8Array(model.length);
      node.read(0, buf);
      const at = Buffer.compare(buf, model) === 0 ? -1 : buf.findIndex((byte, i) => byte !== model[i]);
      assert.equal(at, -1, `content differs at ${at}`);
    };
    for (let step = 0; step < steps; step++) {
      const op = random.below(100);
      if (op < 40) {
        const [offset, length] = range();
        const data = random.bytes(length);
        log.push(`write ${offset} ${length}`);
        node.write(offset, data);
        model.set(data, offset);
      } else if (op < 50) {
        const [offset, length] = range();
        log.push(`discard ${offset} ${length}`);
        node.discard(offset, length);
        const now = new Uint8Array(length);
        node.read(offset, now);
        const changed = madeUp(now, model.subarray(offset, offset + length));
        if (changed >= 0) assert.fail(`discard changed byte ${offset + changed}`);
        model.set(now, offset);
      } else if (op < 58) {
        const [offset, length] = range();
        const unmap = random.chance(0.5);
        log.push(`zero ${offset} ${length} ${unmap}`);
        node.writeZeroes(offset, length, unmap);
        model.fill(0, offset, offset + length);
      } else if (op < 68) {
        if (options.luks || options.dataFile) continue;
        const size = node.clusterSize;
        const cluster = random.below(Math.ceil(model.length / size)) * size;
        const data = random.bytes(Math.min(size, model.length - cluster));
        log.push(`compress ${cluster} ${data.length}`);
        node.writeCompressed(cluster, data);
        model.set(data, cluster);
      } else if (op < 75) {
        if (options.dataFile) continue;
        const name = `s${step}`;
        log.push(`snapshot ${name}`);
        const state = random.chance(0.3) ? random.bytes(1 + random.below(200000)) : null;
        try {
          if (state) node.writeVmState(0, state);
          createSnapshot(node, { name, vmStateSize: state?.length });
          saved.push({ name, content: model.slice() });
        } catch (error) {
          if (!(error instanceof BlockError && error.code === 'invalid')) throw error;
          log.push('  (refused)');
        }
      } else if (op < 80) {
        if (saved.length === 0) continue;
        const { name, content } = random.pick(saved);
        if (options.version === 2 && content.length !== model.length) continue;
        log.push(`apply ${name}`);
        try {
          applySnapshot(node, name);
          model = content.slice();
        } catch (error) {
          if (!(error instanceof BlockError && error.code === 'invalid')) throw error;
          log.push('  (refused)');
        }
      } else if (op < 84) {
        if (saved.length === 0) continue;
        const index = random.below(saved.length);
        log.push(`delete ${saved[index].name}`);
        deleteSnapshot(node, saved[index].name);
        saved.splice(index, 1);
      } else if (op < 89) {
        if (options.version === 2 && saved.length > 0) continue;
        const size = (1 + random.below(7000)) * 512;
        log.push(`resize ${size}`);
        node.resize(size);
        const next = new Uint8Array(size);
        next.set(model.subarray(0, Math.min(size, model.length)));
        model = next;
      } else if (op < 92) {
        log.push('flush');
        node.flush();
      } else if (op < 96) {
        log.push('reopen');
        node.close();
        node = open();
      } else {
        log.push('verify');
        verify();
      }
    }
    verify();
    node.close();
    if (judge) {
      writeFileSync(join(dir, 'model.raw'), model);
      const opts = imageOpts(path, !!options.luks);
      const compare = options.luks
        ? ['--object', opts[1], '--image-opts', opts[3], `driver=raw,file.filename=${join(dir, 'model.raw')}`]
        : ['-f', 'raw', '-F', 'qcow2', join(dir, 'model.raw'), path];
      qemuJudges(['check', ...opts], ['compare', ...compare]);
    }
    node = open();
    for (const { name, content } of saved) {
      if (options.version === 2 && content.length !== node.size) continue;
      try {
        applySnapshot(node, name);
      } catch (error) {
        if (!(error instanceof BlockError && error.code === 'invalid')) throw error;
        continue;
      }
      model = content;
      log.push(`final apply ${name}`);
      verify();
    }
    node.close();
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}\n${log.slice(0, 1).join('')}\n${log.slice(-12).join('\n')}`, {
      cause: error,
    });
  } finally {
    remove();
  }
}
