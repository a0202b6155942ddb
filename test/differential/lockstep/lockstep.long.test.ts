/** Linux boots in lockstep on both tiers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutGuest } from '../../machine/harness.ts';
import { lockstep } from './lockstep.ts';

test('the first three billion instructions of Linux are the same on both tiers', { skip: withoutGuest() }, async () => {
  const { compared, divergence } = await lockstep('console=ttyS0 quiet', 3e9);
  assert.equal(divergence, undefined);
  assert.ok(compared > 700, `${compared} checkpoints`);
});
