import assert from 'node:assert/strict';
import { it } from 'node:test';
import { foreignSamples, hostileCase, loops, qcow2Samples } from './hostile.ts';

it('damaged qcow2 images: typed errors, no hang, no write at a failed open', () => {
  const samples = qcow2Samples();
  let opened = 0;
  for (let seed = 1; seed <= 800; seed++) if (hostileCase(seed, samples)) opened++;
  assert.ok(opened > 100 && opened < 700, `${opened} opened: the damage is too light or too heavy`);
});

it('damaged vmdk, vdi, vhdx and vpc images', (t) => {
  const samples = foreignSamples();
  if (samples.length === 0) {
    process.stderr.write('SKIPPED: no qemu-img to make vmdk, vdi, vhdx and vpc samples with\n');
    t.skip('no qemu-img');
    return;
  }
  let opened = 0;
  for (let seed = 1; seed <= 800; seed++) if (hostileCase(seed, samples)) opened++;
  assert.ok(opened > 100, `${opened} opened`);
});

it('backing chains that loop or name a device end in an error', () => loops());
