import assert from 'node:assert/strict';
import { it } from 'node:test';
import { faultSequence } from './faults.ts';

it('a disk that fills up loses nothing once it is mended', () => {
  let failures = 0;
  for (let seed = 1; seed <= 150; seed++) failures += faultSequence(seed, 40);
  assert.ok(failures > 100, `only ${failures} failures`);
});
