/**
 * Long runs of one kind, from one seed on, in one process: says how far it is, goes on after a failure, and ends with the
 * counts. `node test/block/long.ts hostile 1000000 1`; kinds: hostile, sequences, cuts, faults.
 */
import { faultSequence } from './faults.ts';
import { runSequence } from './harness.ts';
import { foreignSamples, hostileCase, qcow2Samples } from './hostile.ts';
import { powerCuts } from './power-cut.ts';

const [kind, count, start = '1'] = process.argv.slice(2);
let cuts = 0;
const samples = kind === 'hostile' ? [...qcow2Samples(), ...foreignSamples()] : [];
const kinds: Readonly<Record<string, (seed: number) => void>> = {
  hostile: (seed) => void hostileCase(seed, samples),
  sequences: (seed) => runSequence(seed, 50),
  cuts: (seed) => {
    cuts += powerCuts(seed, 50, 3);
  },
  faults: (seed) => void faultSequence(seed, 50),
};
const run = kinds[kind];
if (run === undefined || !(Number(count) > 0))
  throw new Error(`usage: long.ts ${Object.keys(kinds).join('|')} COUNT [FIRST SEED]`);
const began = performance.now();
let told = began;
let failures = 0;
for (let n = 0; n < Number(count); n++) {
  const seed = Number(start) + n;
  try {
    run(seed);
  } catch (error) {
    failures++;
    if (failures <= 20) console.log((error as Error).stack ?? String(error), (error as Error).cause ?? '');
  }
  if (performance.now() - told < 30_000) continue;
  told = performance.now();
  console.log(`${n + 1} of ${count}, ${failures} failed, ${(((n + 1) / (told - began)) * 1000).toFixed(1)} a second`);
}
console.log(
  `${kind}: seeds ${start} to ${Number(start) + Number(count) - 1}, ${failures} failed${cuts > 0 ? `, ${cuts} cuts` : ''}, in ${((performance.now() - began) / 1000).toFixed(0)} s`,
);
if (failures > 0) process.exitCode = 1;
