import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from './fixtures.ts';
import { isoCase, ovfCase, tarCase } from './hostile.ts';

test('volume descriptors, OVF and OVA that were damaged at random: an answer or a typed error', async (context) => {
  const path = join(temporaryFolder(context), 'a.ova');
  for (let seed = 1; seed <= 3000; seed++) isoCase(seed);
  for (let seed = 1; seed <= 1000; seed++) ovfCase(seed);
  for (let seed = 1; seed <= 200; seed++) await tarCase(seed, path);
});
