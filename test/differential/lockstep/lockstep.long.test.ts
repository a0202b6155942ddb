/** Linux boots in lockstep on both tiers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutGuest } from '../../machine/harness.ts';
import { lockstep } from './lockstep.ts';

test('Linux boots and turns off the same way on both tiers', { skip: withoutGuest() }, async () => {
  const { compared, divergence } = await lockstep('console=ttyS0 rdinit=/bin/busybox -- poweroff -f', 5.9e9, 1200);
  assert.equal(divergence, undefined);
  assert.ok(compared > 1300, `${compared} checkpoints`);
});
