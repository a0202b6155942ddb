/** FXSAVE, FXRSTOR and the aliasing of MMX registers against this machine's processor. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyMmx, enterMmx, restoreX87, saveX87, wroteMmx } from '../../../engine/x86/fpu/fxsave.ts';
import { instructions, Random } from './cases.ts';
import { buildHarness, CODE, CODE_LENGTH, MEMORY, RECORD } from './harness.ts';
import { compare, describe, loadOurs, makeCase, saveOurs, state } from './judge.ts';

const CASES = 500;
const [nop] = instructions().filter(({ name }) => name === 'FNOP');

interface Probe {
  readonly name: string;
  readonly code: readonly number[];
  /** The same on our state; `memory` is the operand. */
  readonly ours: (memory: Uint8Array) => void;
  /** Makes an operand that the instruction accepts. */
  readonly prepare?: (memory: Uint8Array) => void;
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, 512);
const PROBES: readonly Probe[] = [
  { name: 'FXSAVE', code: [0x0f, 0xae, 0x06], ours: (memory) => saveX87(state, view(memory), false) },
  {
    name: 'FXRSTOR',
    code: [0x0f, 0xae, 0x0e],
    ours: (memory) => restoreX87(state, view(memory), false),
    prepare: (memory) => view(memory).setUint32(24, 0x1f80, true),
  },
  {
    name: 'MOVQ mm3, m64',
    code: [0x0f, 0x6f, 0x1e],
    ours: (memory) => {
      enterMmx(state);
      state.registers.set(memory.subarray(0, 8), 48);
      wroteMmx(state, 3);
    },
  },
  {
    name: 'MOVQ m64, mm3',
    code: [0x0f, 0x7f, 0x1e],
    ours: (memory) => {
      enterMmx(state);
      memory.set(state.registers.subarray(48, 56));
    },
  },
  { name: 'EMMS', code: [0x0f, 0x77], ours: () => emptyMmx(state) },
];

const harness = buildHarness();
if (typeof harness === 'string') test('FXSAVE and MMX against this processor', { skip: harness }, () => {});
else
  test('FXSAVE and MMX against this processor', (t) => {
    t.after(() => harness.close());
    for (const [index, { name, code, ours, prepare }] of PROBES.entries()) {
      const random = new Random(index + 1);
      const input = new Uint8Array(CASES * RECORD);
      for (let n = 0; n < CASES; n++) {
        const record = input.subarray(n * RECORD, (n + 1) * RECORD);
        makeCase(random, nop, record);
        // No pending exceptions: only x87 instructions' own reports are of interest elsewhere.
        record[4] &= record[0] | 0x40;
        const words = new DataView(record.buffer, record.byteOffset + MEMORY, 512);
        for (let i = 0; i < 512; i += 4) words.setUint32(i, random.word(), true);
        prepare?.(record.subarray(MEMORY));
        record[CODE_LENGTH] = code.length;
        record.set(code, CODE);
      }
      const theirs = harness.run(input);
      for (let n = 0; n < CASES; n++) {
        const before = input.subarray(n * RECORD, (n + 1) * RECORD);
        const mine = before.slice();
        loadOurs(mine);
        ours(mine.subarray(MEMORY));
        saveOurs(mine);
        mine[CODE_LENGTH] = 0;
        const other = theirs.slice(n * RECORD, (n + 1) * RECORD);
        if (name === 'FXSAVE') {
          // Pointers (and the opcode with them), MXCSR, XMM registers and what lies between are not the x87's or not defined.
          for (const bytes of [mine, other]) {
            bytes.fill(0, MEMORY + 6, MEMORY + 32);
            bytes.fill(0, MEMORY + 160, MEMORY + 512);
          }
        }
        // FNOP carries no exclusions of its own, and the harness's EFLAGS are as they were.
        const differences = compare(nop, mine, other).filter(({ what }) => what !== 'eflags');
        assert.deepEqual(differences, [], `${name}: ${describe(before)}`);
      }
    }
    t.diagnostic(`${CASES * PROBES.length} cases, 0 mismatches`);
  });
