/** One million random cases against the host's CPU; `run.ts` is the same with a choice of seed, count and time. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { campaign, table } from './campaign.ts';
import { Guest } from './guest.ts';
import { Host } from './host.ts';

const host = Host.make();
const skip = typeof host === 'string' ? `no comparison with silicon: ${host}` : false;

test('a million random cases are as the host has them', { skip }, (context) => {
  if (typeof host === 'string') return;
  const report = campaign(host, new Guest(), { seed: Math.floor(Math.random() * 2 ** 31), cases: 1_000_000, keep: 20 });
  context.diagnostic(table(report, host.features));
  assert.deepEqual(
    report.mismatches.map(({ text, code, mode, differences: list }) => ({ text, code, mode, list })),
    [],
    `seed ${report.seed}`,
  );
});
