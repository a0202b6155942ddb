/** The engine against the host's CPU: random cases, and the saved ones whether or not there is a host to ask. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { campaign, replay, savedCases } from './campaign.ts';
import { differences, outcomesOf } from './compare.ts';
import { Generator } from './generate.ts';
import { Guest } from './guest.ts';
import { Host } from './host.ts';
import { FLAGS, GPR, OUTCOME_BYTES } from './layout.ts';

const CASES = 20_000;
const guest = new Guest();
const host = Host.make();
const skip = typeof host === 'string' ? `no comparison with silicon: ${host}` : false;

test('cases that were wrong once are as the CPU has them', () => {
  const wrong = savedCases().flatMap(({ name, saved }) => replay(guest, saved).map((difference) => ({ name, ...difference })));
  assert.deepEqual(wrong, []);
});

test(`${CASES} random cases are as the host's CPU has them`, { skip }, () => {
  if (typeof host === 'string') return;
  const report = campaign(host, guest, { seed: Math.floor(Math.random() * 2 ** 31), cases: CASES, keep: 5 });
  const wrong = report.mismatches.map(({ text, code, mode, differences: list }) => ({
    text,
    code,
    mode,
    list,
  }));
  assert.deepEqual(wrong, [], `seed ${report.seed}: run.ts --seed ${report.seed} --save shrinks and keeps them`);
  assert.equal(report.total, 0);
  // A case that faults proves little: most must not.
  let faults = 0;
  for (const count of report.chapters.values()) faults += count.faults[0] + count.faults[1];
  assert.ok(faults < report.cases * 0.3, `${faults} faults`);
  assert.ok(report.chapters.size >= 15);
});

test('a difference is seen', { skip }, () => {
  if (typeof host === 'string') return;
  const batch = new Generator(1, { features: host.features, only: (row) => row.mnemonic === 'ADD' }).batch(64);
  const expected = outcomesOf(host.run(batch));
  const actual = outcomesOf(new Uint8Array(expected.bytes));
  assert.deepEqual(differences(batch, expected, actual, 63), []);
  const at = (63 * OUTCOME_BYTES) >> 2;
  actual.words[at + (GPR >> 2)] ^= 1;
  actual.words[at + (FLAGS >> 2)] ^= 1;
  assert.deepEqual(
    differences(batch, expected, actual, 63).map(({ field }) => field),
    ['rax', 'flags'],
  );
});
