/** Every form of the MMX, SSE, AES and SHA rows, against the processor that the test runs on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CR4, FLAG_AUX, FLAG_RES, FPU, FPU_BLOCK, GPR, MXCSR, VECTOR, VECTOR_STRIDE } from '../../../engine/memory/vcpu-state.ts';
import { parseRows, type Row } from '../../../engine/x86/decode/rows.ts';
import { CRYPTO, SSE } from '../../../engine/x86/decode/tables-sse.ts';
import { sse } from '../../../engine/x86/emit/sse.ts';
import { SseMachine, STATE_AT } from '../../../engine/x86/emit/sse-testing.ts';
import { fpuStruct } from '../../../engine/x86/fpu/fpu-state.ts';
import { sseHelpers } from '../../../engine/x86/fpu/sse-helpers.ts';
import { encode, fillVector, GUEST, OPERAND, Random, randomMxcsr } from './cases.ts';
import * as H from './host.ts';

const PER_ROW = Number(process.env.SSE_CASES ?? 60);
const SEED = Number(process.env.SSE_SEED ?? 1);
const ONLY = process.env.SSE_ONLY;
const APPROXIMATE = /^R(SQRT|CP)[PS]S$/;
const SIGNAL_OF: Record<number, number> = { 6: 4, 13: 11, 14: 11, 16: 8, 19: 8 };

const { offsets } = fpuStruct;

/** Puts a case's registers and memory into the machine. */
function load(machine: SseMachine, input: DataView): void {
  const { view, bytes } = machine;
  const at = STATE_AT;
  for (let n = 0; n < 16; n++) {
    view.setBigUint64(at + GPR + 8 * n, input.getBigUint64(H.GPRS + 8 * n, true), true);
    for (let m = 0; m < 16; m += 8)
      view.setBigUint64(at + VECTOR + VECTOR_STRIDE * n + m, input.getBigUint64(H.FX_XMM + 16 * n + m, true), true);
  }
  const status = input.getUint16(H.FX_STATUS, true);
  const top = (status >> 11) & 7;
  for (let n = 0; n < 8; n++) {
    const register = FPU + 16 * ((top + n) & 7);
    view.setBigUint64(at + register, input.getBigUint64(H.FX_STACK + 16 * n, true), true);
    view.setUint16(at + register + 8, input.getUint16(H.FX_STACK + 16 * n + 8, true), true);
  }
  view.setUint32(at + FPU + offsets.control, 0x37f, true);
  view.setUint32(at + FPU + offsets.status, status, true);
  view.setUint32(at + FPU + offsets.valid, input.getUint8(H.FX_TAGS), true);
  view.setUint32(at + MXCSR, input.getUint32(H.FX_MXCSR, true), true);
  view.setUint32(at + CR4, 0x600, true);
  view.setUint32(at + FPU_BLOCK, 0, true);
  // All six flags clear: a result that is not zero, even in no respect.
  view.setBigInt64(at + FLAG_RES, 1n, true);
  view.setUint32(at + FLAG_AUX, 0, true);
  bytes.set(new Uint8Array(input.buffer, input.byteOffset + H.MEMORY, H.MEMORY_BYTES), GUEST);
}

const FLAG_NAMES: readonly (readonly [string, number])[] = [
  ['CF', 0],
  ['PF', 2],
  ['AF', 4],
  ['ZF', 6],
  ['SF', 7],
  ['OF', 11],
];

/** The six flags as the lazy words say them (ir/flags). */
function flagsOf(machine: SseMachine): number {
  const result = machine.view.getBigInt64(STATE_AT + FLAG_RES, true);
  const aux = machine.view.getUint32(STATE_AT + FLAG_AUX, true);
  let parity = (Number(result & 0xffn) ^ (aux >>> 8)) & 0xff;
  parity ^= parity >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (
    (aux >>> 31) |
    ((~parity & 1) << 2) |
    (((aux >>> 3) & 1) << 4) |
    ((result === 0n ? 1 : 0) << 6) |
    (((result < 0n ? 1 : 0) ^ (aux & 1)) << 7) |
    ((((aux + 0x40000000) >>> 31) & 1) << 11)
  );
}

/** What differs, or an empty list. */
function compare(machine: SseMachine, row: Row, input: DataView, output: DataView, vector: number): string[] {
  const { view, bytes } = machine;
  const at = STATE_AT;
  const out: string[] = [];
  const signal = output.getUint32(H.SIGNAL, true);
  // The SDM wants SHA's memory operands aligned (exception class 4); AMD's processors take any.
  if (row.mnemonic.startsWith('SHA') && vector === 13 && signal === 0) return [];
  const expected = vector < 0 ? 0 : SIGNAL_OF[vector];
  if (signal !== expected) return [`signal ${signal}, exception ${vector}`];
  const hex = (value: bigint): string => value.toString(16);
  const same = (name: string, ours: bigint, theirs: bigint): void => {
    if (ours !== theirs) out.push(`${name} is ${hex(ours)}, should be ${hex(theirs)}`);
  };
  const mxcsr = signal === 0 ? output.getUint32(H.FX_MXCSR, true) : output.getUint32(H.SIGNAL_MXCSR, true);
  same('mxcsr', BigInt(view.getUint32(at + MXCSR, true)), BigInt(mxcsr));
  // After a fault everything else must be as it was.
  const after = signal === 0 ? output : input;
  for (let n = 0; n < 16; n++) {
    if (n !== 4) same(`r${n}`, view.getBigUint64(at + GPR + 8 * n, true), after.getBigUint64(H.GPRS + 8 * n, true));
    for (let m = 0; m < 16; m += 4) {
      const ours = view.getUint32(at + VECTOR + VECTOR_STRIDE * n + m, true);
      const theirs = after.getUint32(H.FX_XMM + 16 * n + m, true);
      if (ours !== theirs && APPROXIMATE.test(row.mnemonic)) {
        const [x, y] = new Float32Array(new Uint32Array([ours, theirs]).buffer);
        // Both may be off by 1.5 * 2^-12; a tiny result is a zero or not.
        if (Math.abs(x - y) <= 3.01 * 2 ** -12 * Math.abs(y) || Math.abs(x - y) < 2 ** -125) continue;
      }
      same(`xmm${n}[${m}]`, BigInt(ours), BigInt(theirs));
    }
  }
  const top = (after.getUint16(H.FX_STATUS, true) >> 11) & 7;
  same('top', BigInt((view.getUint32(at + FPU + offsets.status, true) >> 11) & 7), BigInt(top));
  same('tags', BigInt(view.getUint32(at + FPU + offsets.valid, true)), BigInt(after.getUint8(H.FX_TAGS)));
  for (let n = 0; n < 8; n++) {
    const register = FPU + 16 * ((top + n) & 7);
    same(`mm${(top + n) & 7}`, view.getBigUint64(at + register, true), after.getBigUint64(H.FX_STACK + 16 * n, true));
    same(
      `mm${(top + n) & 7}.exponent`,
      BigInt(view.getUint16(at + register + 8, true)),
      BigInt(after.getUint16(H.FX_STACK + 16 * n + 8, true)),
    );
  }
  const flags = flagsOf(machine);
  if (signal === 0)
    for (const [name, bit] of FLAG_NAMES)
      same(name, BigInt((flags >> bit) & 1), BigInt((Number(output.getBigUint64(H.FLAGS, true) & 0xffffn) >> bit) & 1));
  for (let n = 0; n < H.MEMORY_BYTES; n++) {
    const theirs = after.getUint8(H.MEMORY + n);
    if (bytes[GUEST + n] !== theirs)
      out.push(`memory ${n} is ${bytes[GUEST + n].toString(16)}, should be ${theirs.toString(16)}`);
  }
  return out;
}

test('vector instructions do what the host CPU does', (t) => {
  const host = H.Host.make((reason) => t.skip(`not compared: ${reason}`));
  if (host === undefined) return;
  t.after(() => host.close());
  const rows = parseRows(SSE);
  rows.push(...parseRows(CRYPTO, rows.length));
  const machine = new SseMachine(rows, sse, {});
  machine.use(sseHelpers(machine.memory.buffer, STATE_AT));
  const random = new Random(SEED * 2654435761);
  const failures: string[] = [];
  let compared = 0;
  for (const row of rows) {
    if (ONLY !== undefined && !new RegExp(ONLY).test(row.mnemonic)) continue;
    const cases = new Uint8Array(PER_ROW * H.CASE_BYTES);
    const codes: Uint8Array[] = [];
    for (let n = 0; n < PER_ROW; n++) {
      const view = new DataView(cases.buffer, n * H.CASE_BYTES, H.CASE_BYTES);
      view.setUint16(H.FX, 0x37f, true);
      view.setUint16(H.FX_STATUS, random.below(8) << 11, true);
      view.setUint8(H.FX_TAGS, random.bits() & 0xff);
      view.setUint32(H.FX_MXCSR, randomMxcsr(random), true);
      for (let m = 0; m < 8; m++) {
        fillVector(view, H.FX_STACK + 16 * m, random);
        view.setUint16(H.FX_STACK + 16 * m + 8, random.bits() & 0xffff, true);
        view.setUint16(H.FX_STACK + 16 * m + 10, 0, true);
        view.setUint32(H.FX_STACK + 16 * m + 12, 0, true);
      }
      for (let m = 0; m < 16; m++) fillVector(view, H.FX_XMM + 16 * m, random);
      // An operand like another one is worth a try.
      for (let m = 0; m < 16; m++) {
        const from = m === 0 ? random.below(16) : m;
        if (random.chance(4))
          cases.copyWithin(
            n * H.CASE_BYTES + H.FX_XMM + 16 * m,
            n * H.CASE_BYTES + H.FX_XMM + 16 * from,
            n * H.CASE_BYTES + H.FX_XMM + 16 * from + 16,
          );
      }
      for (let m = 0; m < 16; m++)
        view.setBigUint64(
          H.GPRS + 8 * m,
          random.chance(3)
            ? (BigInt(random.below(20)) - (random.chance(2) ? 0n : 10n)) & 0xffffffffffffffffn
            : random.bits64() >> BigInt(random.below(64)),
          true,
        );
      view.setBigUint64(H.GPRS + 56, BigInt(OPERAND), true);
      view.setBigUint64(H.FLAGS, 0x202n, true);
      for (let m = 0; m < H.MEMORY_BYTES; m += 16) fillVector(view, H.MEMORY + m, random);
      const code = encode(row, random);
      codes.push(code);
      cases.set(code, n * H.CASE_BYTES + H.CODE);
      view.setUint32(H.CODE_LENGTH, code.length, true);
    }
    const outcomes = host.run(cases);
    let shown = 0;
    for (let n = 0; n < PER_ROW; n++) {
      const input = new DataView(cases.buffer, n * H.CASE_BYTES, H.CASE_BYTES);
      const output = new DataView(outcomes.buffer, outcomes.byteOffset + n * H.CASE_BYTES, H.CASE_BYTES);
      load(machine, input);
      // Some with the fields as constants, as the region tier has them.
      const vector = machine.run(codes[n], n % 32 === 0);
      compared++;
      const differences = compare(machine, row, input, output, vector);
      if (differences.length > 0 && shown++ < 3)
        failures.push(
          `${row.text} [${Buffer.from(codes[n]).toString('hex')}] mxcsr ${input.getUint32(H.FX_MXCSR, true).toString(16)}: ${differences.slice(0, 4).join('; ')}`,
        );
    }
  }
  t.diagnostic(`${compared} cases`);
  assert.deepEqual(failures, []);
});
