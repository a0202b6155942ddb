import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FPU_BLOCK, MXCSR, VECTOR, VECTOR_STRIDE } from '../../memory/vcpu-state.ts';
import { Decoded, Decoder, Mode } from '../decode/decoder.ts';
import { formsOf, parseRows } from '../decode/rows.ts';
import { INTEGER } from '../decode/tables.ts';
import { AVX, BMI } from '../decode/tables-vex.ts';
import { avxHelpers } from '../fpu/avx-memory.ts';
import { sseHelpers } from '../fpu/sse-helpers.ts';
import { F32, F64, FloatContext, type Format } from '../fpu/sse-round.ts';
import type { Cpu } from '../system/cpu.ts';
import { bmi } from './bmi.ts';
import { GUEST_AT, SseMachine, STATE_AT } from './sse-testing.ts';
import { vex } from './vex.ts';

const rows = parseRows(AVX, 0, true);
const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const at = (register: number): number => STATE_AT + VECTOR + VECTOR_STRIDE * register;

function machine(): SseMachine {
  const made = new SseMachine(rows, vex, {});
  // What these tests run needs no memory helper.
  const none = avxHelpers({ buffer: made.memory.buffer } as unknown as Cpu, (body) => (record, ...operands) => {
    body(record, ...operands);
    return 0;
  });
  made.use({ ...none, ...sseHelpers(made.memory.buffer, STATE_AT) });
  return made;
}

test('every form of every row makes valid IR and valid code', () => {
  const general = parseRows(BMI, 0, true);
  const failures: string[] = [];
  let count = 0;
  for (const [list, emitters] of [
    [rows, vex],
    [general, bmi],
  ] as const) {
    const made = new SseMachine(list, emitters, {});
    for (const row of list)
      for (const form of formsOf(row)) {
        try {
          made.check(form);
          count++;
        } catch (error) {
          failures.push(`${row.text} ${form.memory ? form.address : 'register'}: ${(error as Error).message}`);
        }
      }
  }
  assert.deepEqual(failures, []);
  assert.ok(count > 1500, `${count} forms`);
});

test('AVX that the system has not enabled is #UD, CR0.TS #NM; other bits do not matter', () => {
  const m = machine();
  const block = (value: number): void => m.view.setUint32(STATE_AT + FPU_BLOCK, value, true);
  for (const code of ['c5f1efc2', 'c5f877', 'c5fc28c1', 'c4e27998c1']) {
    block(8);
    assert.equal(m.run(bytes(code)), 6, code);
    block(2);
    assert.equal(m.run(bytes(code)), 7, code);
    block(10);
    assert.equal(m.run(bytes(code)), 6, code);
    block(5);
    assert.equal(m.run(bytes(code)), -1, code);
  }
});

test('what is above the result becomes zero', () => {
  const m = machine();
  for (const [code, wide] of [
    ['c5f1fcc2', false], // VPADDB XMM0, XMM1, XMM2
    ['c5f5fcc2', true],
    ['c5f258c2', false], // VADDSS
    ['c4e17b10c1', false], // VMOVSD XMM0, XMM0, XMM1
    ['c5f96ec1', false], // VMOVD XMM0, ECX
  ] as const) {
    m.bytes.fill(0x11, at(0), at(3));
    assert.equal(m.run(bytes(code)), -1, code);
    const upper = m.bytes.subarray(at(0) + 16, at(0) + 32);
    assert.equal(
      upper.every((byte) => byte === (wide ? 0x22 : 0)),
      true,
      code,
    );
  }
});

test('only the aligned moves ask for alignment', () => {
  const m = machine();
  const absolute = (opcode: string, address: number): Uint8Array => {
    const tail = Buffer.alloc(4);
    tail.writeUInt32LE(address);
    return bytes(`${opcode}0425${tail.toString('hex')}`);
  };
  assert.equal(m.run(absolute('c5fc28', GUEST_AT + 16)), 13); // VMOVAPS YMM
  assert.equal(m.run(absolute('c5f828', GUEST_AT + 16)), -1); // XMM
  assert.equal(m.run(absolute('c5fc10', GUEST_AT + 1)), -1); // VMOVUPS
  assert.equal(m.run(absolute('c5f558', GUEST_AT + 1)), -1); // VADDPD
  assert.equal(m.run(absolute('c5fde7', GUEST_AT + 8)), 13); // VMOVNTDQ
});

let seed = 0x1234567;
const word = (): number => {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return seed >>> 0;
};

/** Numbers whose sums cancel often: few exponents, few bits. */
function number(f: Format): bigint {
  const wide = BigInt(word()) | (BigInt(word()) << 32n);
  const exponent = BigInt(f.bias - 3 + (word() % 6));
  const kept = word() % 3 === 0 ? -1n << BigInt(f.fraction - (word() % 12)) : -1n;
  return (word() % 2 === 0 ? f.signBit : 0n) | (exponent << BigInt(f.fraction)) | (wide & f.fractionMask & kept);
}

for (const [name, code, f, count] of [
  ['VFMADD213PD', 'c4e2f5a8c2', F64, 4],
  ['VFMADD213PS', 'c4e275a8c2', F32, 8],
  ['VFMADD213SD', 'c4e2f1a9c2', F64, 1],
  ['VFMADD213SS', 'c4e271a9c2', F32, 1],
] as const)
  for (const constant of [false, true])
    test(`${name} rounds once, ${constant ? 'as in regions' : 'as in the baseline'}`, () => {
      const m = machine();
      const context = new FloatContext();
      const size = f === F64 ? 8 : 4;
      const put = (register: number, lane: number, value: bigint): void => {
        if (size === 8) m.view.setBigUint64(at(register) + 8 * lane, value, true);
        else m.view.setUint32(at(register) + 4 * lane, Number(value), true);
      };
      for (let turn = 0; turn < 3000; turn++) {
        const lanes = Array.from({ length: count }, (_, lane) => {
          const [x, y] = [number(f), number(f)];
          // Now and then the addend is what the product rounds to, so that only its error is left.
          context.load(0x1fa0);
          const z = word() % 3 === 0 ? context.mul(f, x, y) ^ f.signBit : number(f);
          for (const [register, value] of [x, y, z].entries()) put(register, lane, value);
          return context.fused(f, y, x, z, false, false);
        });
        m.view.setUint32(STATE_AT + MXCSR, 0x1fa0, true);
        assert.equal(m.run(bytes(code), constant), -1);
        for (const [lane, expected] of lanes.entries()) {
          const got = size === 8 ? m.view.getBigUint64(at(0) + 8 * lane, true) : BigInt(m.view.getUint32(at(0) + 4 * lane, true));
          assert.equal(got.toString(16), expected.toString(16));
        }
      }
    });

test('without a feature its instructions are #UD, or those that they were before', () => {
  const all = parseRows(INTEGER);
  all.push(...parseRows(AVX, all.length, true));
  all.push(...parseRows(BMI, all.length, true));
  const decode = (decoder: Decoder, hex: string, mode: number): string => {
    const code = bytes(hex);
    return decoder.decode(code, 0, code.length, mode) === Decoded.OK ? decoder.row.mnemonic : '-';
  };
  const full = new Decoder(all);
  const without = new Decoder(all, (feature) => !['avx2', 'bmi1', 'movbe'].includes(feature));
  for (const [hex, has, hasNot] of [
    ['c5f5fcc2', 'VPADDB', '-'],
    ['c5f1fcc2', 'VPADDB', 'VPADDB'],
    ['c4e27d18c1', 'VBROADCASTSS', '-'],
    ['c4e27d1800', 'VBROADCASTSS', 'VBROADCASTSS'],
    ['f30fbcc1', 'TZCNT', 'BSF'],
    ['c4e270f2c2', 'ANDN', '-'],
    ['0f38f000', 'MOVBE', '-'],
  ]) {
    assert.equal(decode(full, hex, 2), has);
    assert.equal(decode(without, hex, 2), hasNot);
  }
  // Real mode knows no VEX; elsewhere a ModRM byte of memory makes it LDS or LES.
  assert.equal(decode(full, 'c5f1fcc2', 0), 'VPADDB');
  assert.equal(decode(full, 'c5f1fcc2', Mode.REAL), '-');
  assert.equal(decode(full, 'c50600000000', 1), 'LOAD_FAR');
});
