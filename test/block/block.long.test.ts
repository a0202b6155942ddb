/**
 * The long runs: skipped unless VIVARIUM_BLOCK_LONG says how long (10 gives the counts of the project's bars).
 *   VIVARIUM_BLOCK_LONG=10 node --test test/block/block.long.test.ts
 */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { openImage } from '../../engine/block/open.ts';
import { checkImage } from '../../engine/block/qcow2/check.ts';
import { createQcow2 } from '../../engine/block/qcow2/create.ts';
import type { Qcow2Node } from '../../engine/block/qcow2/node.ts';
import { nodeBlockHost as host } from '../../engine/host/block-file.ts';
import { faultSequence } from './faults.ts';
import { haveQemu, qemuImg, runSequence, scratch } from './harness.ts';
import { foreignSamples, hostileCase, qcow2Samples } from './hostile.ts';
import { powerCuts } from './power-cut.ts';

const factor = Number(process.env.VIVARIUM_BLOCK_LONG ?? 0);
const off = factor > 0 ? false : 'long: set VIVARIUM_BLOCK_LONG';
const start = Number(process.env.VIVARIUM_BLOCK_SEED ?? 1_000_000);

it(`${1000 * factor} random sequences judged by qemu-img`, { skip: off || (!haveQemu && 'no qemu-img') }, () => {
  for (let i = 0; i < 1000 * factor; i++) runSequence(start + i, 50);
});

it(`${200 * factor} traces cut after every write`, { skip: off }, () => {
  for (let i = 0; i < 200 * factor; i++) powerCuts(start + i, 50, 3);
});

it(`${100_000 * factor} hostile images`, { skip: off }, () => {
  const samples = [...qcow2Samples(), ...foreignSamples()];
  for (let i = 0; i < 100_000 * factor; i++) hostileCase(start + i, samples);
});

it(`${2000 * factor} sequences on a failing disk`, { skip: off }, () => {
  for (let i = 0; i < 2000 * factor; i++) faultSequence(start + i, 50);
});

it(`${50 * factor} processes killed at random under load`, { skip: off }, async () => {
  const { dir, remove } = scratch();
  try {
    const path = join(dir, 'killed.qcow2');
    const file = host.openFile(path, { create: true });
    createQcow2(file, host, { size: 64 << 20, clusterSize: 4096 });
    file.close();
    for (let i = 0; i < 50 * factor; i++) {
      const child = spawn(process.execPath, [fileURLToPath(new URL('./load.ts', import.meta.url)), path, String(start + i)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let acknowledged = '';
      child.stdout.on('data', (data: Buffer) => {
        acknowledged += data.toString();
      });
      await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
      await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 150));
      child.kill('SIGKILL');
      await new Promise((resolve) => child.once('close', resolve));
      const node = openImage(host, path, { write: true }) as Qcow2Node;
      const result = checkImage(node);
      assert.equal(result.corruptions, 0, `kill ${i}: ${result.messages[0]}`);
      // Every block that was flushed carries the number it was given, or a later one.
      const wanted = new Map<number, number>();
      for (const line of acknowledged.split('\n').slice(0, -1))
        for (const pair of line.split(' ').filter(Boolean)) {
          const [block, value] = pair.split(':').map(Number);
          wanted.set(block, value);
        }
      const buf = new Uint8Array(512);
      for (const [block, value] of wanted) {
        node.read(block * 512, buf);
        const found = new DataView(buf.buffer).getUint32(0);
        assert.ok(found >= value, `kill ${i}: block ${block} holds ${found}, flushed was ${value}`);
      }
      checkImage(node, 'all');
      node.close();
      if (haveQemu) assert.equal(qemuImg('check', path).status, 0);
    }
  } finally {
    remove();
  }
});
