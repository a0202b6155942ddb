/**
 * Every x87 instruction against this machine's own processor: registers, control, status and tag words, memory
 * operand, EFLAGS and AX, over random and edge-case operands, rounding modes, precisions and exception masks.
 *
 * FPU_CASES sets the number of cases for each instruction, FPU_SEED the seed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { instructions, Random } from './cases.ts';
import { buildHarness, RECORD } from './harness.ts';
import { compare, describe, makeCase, runOurs } from './judge.ts';

const CASES = Number(process.env.FPU_CASES ?? 400);
const SEED = Number(process.env.FPU_SEED ?? 1);

const harness = buildHarness();
if (typeof harness === 'string') test('x87 against this processor', { skip: harness }, () => {});
else {
  test('x87 against this processor', async (t) => {
    t.after(() => harness.close());
    const only = process.env.FPU_ONLY;
    const list = instructions().filter(({ name, transcendental }) => !transcendental && (!only || name.startsWith(only)));
    const bad: string[] = [];
    let total = 0;
    let wrong = 0;
    for (const [index, instruction] of list.entries()) {
      const random = new Random(SEED * 1000 + index);
      const input = new Uint8Array(CASES * RECORD);
      for (let n = 0; n < CASES; n++) makeCase(random, instruction, input.subarray(n * RECORD, (n + 1) * RECORD));
      const theirs = harness.run(input);
      const ours = input.slice();
      let mismatches = 0;
      const shown: string[] = [];
      for (let n = 0; n < CASES; n++) {
        const mine = ours.subarray(n * RECORD, (n + 1) * RECORD);
        runOurs(mine, instruction);
        const differences = compare(instruction, mine, theirs.subarray(n * RECORD, (n + 1) * RECORD));
        total++;
        if (differences.length === 0) continue;
        mismatches++;
        if (shown.length < 3)
          shown.push(
            `    ${describe(input.subarray(n * RECORD, (n + 1) * RECORD))}\n${differences.map(({ what, ours: a, theirs: b }) => `      ${what}: ours ${a} processor ${b}`).join('\n')}`,
          );
      }
      wrong += mismatches;
      if (mismatches > 0) bad.push(`  ${instruction.name}: ${mismatches} of ${CASES}\n${shown.join('\n')}`);
    }
    t.diagnostic(`${total} cases over ${list.length} instructions, ${wrong} mismatches`);
    assert.equal(wrong, 0, `\n${bad.join('\n')}`);
  });
}
