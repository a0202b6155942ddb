/**
 * Every x87 instruction against this machine's own processor: registers, control, status and tag words, memory
 * operand, EFLAGS and AX, over random and edge-case operands, rounding modes, precisions and exception masks.
 *
 * FPU_CASES sets the number of cases for each instruction, FPU_SEED the seed.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { isControl } from '../../../engine/x86/fpu/x87-forms.ts';
import { instructions, Random } from './cases.ts';
import { buildHarness, RECORD } from './harness.ts';
import { compare, describe, makeCase, runOurs } from './judge.ts';

const CASES = Number(process.env.FPU_CASES ?? 400);
const SEED = Number(process.env.FPU_SEED ?? 1);

const harness = buildHarness();
if (typeof harness === 'string') test('x87 against this processor', { skip: harness }, () => {});
else {
  after(() => harness.close());

  test('which instructions record their pointers and opcode', () => {
    const random = new Random(SEED);
    for (const instruction of instructions()) {
      const { name, opcode, modrm, memory } = instruction;
      if (/FNSAVE|FNINIT|FLDENV|FRSTOR/.test(name)) continue;
      const record = new Uint8Array(RECORD);
      makeCase(random, instruction, record);
      const view = new DataView(record.buffer);
      const start = [0xffff037f, 0xffff2000, 0xffff00ff, 0x11111111, 0x01230033, 0x22222222];
      for (const [index, word] of start.entries()) view.setUint32(index * 4, word, true);
      const control = isControl(opcode, modrm);
      const expected = `ip ${!control} data ${!control && memory !== undefined} opcode ${(control ? 0x123 : ((opcode & 7) << 8) | modrm).toString(16)}`;
      let seen = '';
      // An operating system may lose the pointers in a context switch: that happens seldom, and not thrice.
      for (let attempt = 0; attempt < 3 && seen !== expected; attempt++) {
        const answer = harness.run(record).slice();
        const after = new DataView(answer.buffer);
        const changed = (at: number): boolean => after.getUint32(at, true) !== view.getUint32(at, true);
        seen = `ip ${changed(12)} data ${changed(20)} opcode ${after.getUint16(18, true).toString(16)}`;
      }
      assert.equal(seen, expected, name);
    }
  });

  test('x87 against this processor', (t) => {
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
