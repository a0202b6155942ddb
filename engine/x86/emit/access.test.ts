import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rows } from '../../accel/jit/handlers.ts';
import { BareMachine } from '../../accel/jit/testing.ts';
import { Decoded, Decoder, Mode } from '../decode/decoder.ts';
import { memoryAccess } from './access.ts';

const decoder = new Decoder(rows);

function access(hex: string): [number, number] {
  const code = Uint8Array.from(Buffer.from(hex, 'hex'));
  assert.equal(decoder.decode(code, 0, code.length, 1 | Mode.STACK32), Decoded.OK, hex);
  const { bytes, write } = memoryAccess(decoder);
  return [bytes, write];
}

test('what a memory operand spans, and whether it is written', () => {
  assert.deepEqual(access('d900'), [4, 0]); // FLD m32
  assert.deepEqual(access('dd18'), [8, 1]); // FSTP m64
  assert.deepEqual(access('db28'), [10, 0]); // FLD m80
  assert.deepEqual(access('dd30'), [108, 1]); // FNSAVE
  assert.deepEqual(access('66dd30'), [94, 1]);
  assert.deepEqual(access('d928'), [2, 0]); // FLDCW
  assert.deepEqual(access('0fae00'), [512, 1]); // FXSAVE
  assert.deepEqual(access('0fae08'), [512, 0]); // FXRSTOR
  assert.deepEqual(access('0fae28'), [576, 0]); // XRSTOR
  assert.deepEqual(access('0fae10'), [4, 0]); // LDMXCSR
  assert.deepEqual(access('c5fc1000'), [32, 0]); // VMOVUPS ymm
  assert.deepEqual(access('c5f81100'), [16, 1]); // VMOVUPS to memory
  assert.deepEqual(access('c4e27d2000'), [16, 0]); // VPMOVSXBW ymm
  assert.deepEqual(access('3800'), [1, 0]); // CMP
  assert.deepEqual(access('0100'), [4, 1]);
});

for (const tier of ['baseline', 'region'] as const)
  test(`RIP-relative: displacement and place in the page together past 31 bits (${tier})`, () => {
    const machine = new BareMachine(tier);
    machine.long();
    // LEA RAX, [RIP + 0x7ffffff8] near the end of a page; LEA RBX with the least displacement; HLT.
    machine.execute(Uint8Array.from(Buffer.from('488d05f8ffff7f488d1d00000080f4', 'hex')), 0x100fe0);
    assert.equal(machine.register(0), 0x100fe7n + 0x7ffffff8n);
    assert.equal(machine.register(3), BigInt.asUintN(64, 0x100feen - 0x80000000n));
  });
