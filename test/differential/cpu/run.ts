/**
 * The long run: `run.ts [--cases N] [--seed N] [--seconds S] [--only REGEXP] [--tier baseline|region|both]
 * [--states N] [--save]`. Prints what differs, then the table by chapter. Failures are shrunk and, with --save, kept under
 * failures/ for the normal test to replay. `--states 32` runs each piece of code with so many sets of registers and
 * memory: the region tier does ten times as many cases so.
 */
import { parseArgs } from 'node:util';
import { campaign, describe, save, shrink, table } from './campaign.ts';
import { type Difference, differences, outcomesOf } from './compare.ts';
import { Guest } from './guest.ts';
import { Host } from './host.ts';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '1000000' },
    tier: { type: 'string', default: 'both' },
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    seconds: { type: 'string' },
    only: { type: 'string' },
    states: { type: 'string', default: '1' },
    save: { type: 'boolean', default: false },
  },
});
const host = Host.make();
if (typeof host === 'string') {
  console.log(`Skipped: ${host}.`);
} else {
  const guest = new Guest(values.tier as 'baseline' | 'region' | 'both');
  const only = values.only === undefined ? undefined : new RegExp(values.only);
  let told = Date.now();
  const report = campaign(host, guest, {
    seed: Number(values.seed),
    cases: Number(values.cases),
    states: Number(values.states),
    seconds: values.seconds === undefined ? undefined : Number(values.seconds),
    only: only === undefined ? undefined : (row) => only.test(row.text),
    progress: (cases, mismatches) => {
      if (Date.now() - told < 10_000) return;
      told = Date.now();
      console.error(`${cases} cases, ${mismatches} mismatches`);
    },
  });
  for (const mismatch of report.mismatches) {
    const tell = (list: readonly Difference[]): void => {
      for (const { field, host: right, engine } of list) console.log(`  ${field}: host ${right}, engine ${engine}`);
    };
    console.log(`${mismatch.text} (${mismatch.mode}: ${mismatch.code})`);
    tell(mismatch.differences);
    try {
      const small = shrink(host, guest, mismatch);
      const left = differences(small, outcomesOf(host.run(small)), outcomesOf(guest.run(small)), 0);
      const list = left.length > 0 ? left : mismatch.differences;
      console.log(`  shrunk: ${describe(small)}`);
      tell(list);
      if (values.save) console.log(`  saved as ${save(host, small, mismatch.text, list)}`);
    } catch (error) {
      // What is left out may make an endless loop of the case, which the host is stopped in.
      console.log(`  not shrunk: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  console.log(table(report, host.features));
  process.exitCode = report.total === 0 ? 0 : 1;
}
