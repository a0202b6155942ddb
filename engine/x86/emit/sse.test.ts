import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CR4, FPU, FPU_BLOCK, MXCSR, VECTOR } from '../../memory/vcpu-state.ts';
import { formsOf, parseRows } from '../decode/rows.ts';
import { CRYPTO, SSE } from '../decode/tables-sse.ts';
import { fpuStruct } from '../fpu/fpu-state.ts';
import { sseHelpers } from '../fpu/sse-helpers.ts';
import { sse } from './sse.ts';
import { GUEST_AT, SseMachine, STATE_AT } from './sse-testing.ts';

const rows = parseRows(SSE);
rows.push(...parseRows(CRYPTO, rows.length));

test('every form of every row makes valid IR and valid code', () => {
  const machine = new SseMachine(rows, sse, {});
  const failures: string[] = [];
  let count = 0;
  for (const row of rows)
    for (const form of formsOf(row)) {
      try {
        machine.check(form);
        count++;
      } catch (error) {
        failures.push(`${row.text} ${form.memory ? form.address : 'register'}: ${(error as Error).message}`);
      }
    }
  assert.deepEqual(failures, []);
  assert.ok(count > 800, `${count} forms`);
});

function machine(): SseMachine {
  const made = new SseMachine(rows, sse, {});
  made.use(sseHelpers(made.memory.buffer, STATE_AT));
  made.view.setUint32(STATE_AT + CR4, 0x600, true);
  return made;
}
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
/** MOV-like forms with an absolute address: modrm 04 25. */
const absolute = (opcode: string, address: number): Uint8Array => {
  const at = Buffer.alloc(4);
  at.writeUInt32LE(address);
  return bytes(`${opcode}0425${at.toString('hex')}`);
};

test('what CR0 and CR4 forbid', () => {
  const m = machine();
  const block = (value: number): void => m.view.setUint32(STATE_AT + FPU_BLOCK, value, true);
  const pxor = bytes('66 0f ef c1');
  const pxorMmx = bytes('0f ef c1');
  block(1);
  assert.equal(m.run(pxor), 6);
  assert.equal(m.run(pxorMmx), -1);
  block(4);
  assert.equal(m.run(pxor), -1);
  assert.equal(m.run(pxorMmx), 6);
  block(2);
  assert.equal(m.run(pxor), 7);
  assert.equal(m.run(pxorMmx), 7);
  // #UD goes before #NM.
  block(3);
  assert.equal(m.run(pxor), 6);
});

test('alignment is checked before the access, and only where it matters', () => {
  const m = machine();
  assert.equal(m.run(absolute('0f28', GUEST_AT + 8)), 13); // MOVAPS
  assert.equal(m.run(absolute('0f28', 8)), 13);
  assert.equal(m.run(absolute('0f28', 16)), 14);
  assert.equal(m.run(absolute('0f10', GUEST_AT + 8)), -1); // MOVUPS
  assert.equal(m.run(absolute('660fef', GUEST_AT + 8)), 13); // PXOR
  assert.equal(m.run(absolute('f20f58', GUEST_AT + 8)), -1); // ADDSD
});

test('a fault leaves x87 state and registers as they were', () => {
  const m = machine();
  const { status, valid } = fpuStruct.offsets;
  m.view.setUint32(STATE_AT + FPU + status, 3 << 11, true);
  m.view.setUint32(STATE_AT + FPU + valid, 5, true);
  m.view.setBigUint64(STATE_AT + FPU, 0x1234n, true);
  assert.equal(m.run(absolute('0ffc', 0x100)), 14); // PADDB MM0
  assert.equal(m.view.getUint32(STATE_AT + FPU + status, true), 3 << 11);
  assert.equal(m.view.getUint32(STATE_AT + FPU + valid, true), 5);
  assert.equal(m.view.getBigUint64(STATE_AT + FPU, true), 0x1234n);
  assert.equal(m.run(bytes('0f fc c0')), -1);
  assert.equal(m.view.getUint32(STATE_AT + FPU + status, true), 0);
  assert.equal(m.view.getUint32(STATE_AT + FPU + valid, true), 0xff);
  assert.equal(m.view.getBigUint64(STATE_AT + FPU, true), 0x2468n);
});

test('an unmasked SIMD exception is #XM, or #UD without CR4.OSXMMEXCPT', () => {
  const m = machine();
  const divsd = bytes('f2 0f 5e c1');
  m.view.setFloat64(STATE_AT + VECTOR, 1, true);
  m.view.setFloat64(STATE_AT + VECTOR + 64, 0, true);
  m.view.setUint32(STATE_AT + MXCSR, 0x1f80 & ~0x200, true);
  assert.equal(m.run(divsd), 19);
  assert.equal(m.view.getFloat64(STATE_AT + VECTOR, true), 1);
  assert.equal(m.view.getUint32(STATE_AT + MXCSR, true), (0x1f80 & ~0x200) | 4);
  m.view.setUint32(STATE_AT + CR4, 0x200, true);
  assert.equal(m.run(divsd), 6);
});
