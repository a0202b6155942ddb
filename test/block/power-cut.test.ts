import assert from 'node:assert/strict';
import { it } from 'node:test';
import { powerCuts } from './power-cut.ts';

it('an image survives a power cut after any write, with any unflushed writes lost', () => {
  let cuts = 0;
  for (let seed = 1; seed <= 8; seed++) cuts += powerCuts(seed, 30, 2);
  assert.ok(cuts > 1000, `only ${cuts} cuts`);
});
