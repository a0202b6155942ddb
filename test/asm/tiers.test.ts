/**
 * Random instructions in every mode, on the baseline tier and on the reference executor: both must leave the same
 * state. What they share (decoder, emitters, long helpers) is judged elsewhere; this is about lowering, records,
 * address computation, flags and dispatch, in 16-bit modes and odd segments too, where no host can be asked.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rows } from '../../engine/accel/jit/handlers.ts';
import { BareMachine } from '../../engine/accel/jit/testing.ts';
import * as S from '../../engine/memory/vcpu-state.ts';
import { Decoded, Decoder } from '../../engine/x86/decode/decoder.ts';
import { ReferenceMachine, renew } from './machines.ts';

const CASES = Number(process.env.TIER_CASES ?? 2000);
const SEED = Number(process.env.TIER_SEED ?? 1);
const CODE = 0x7c00;
const DATA = 0x8000;
const DATA_BYTES = 0x2000;

/** What depends on time, on what the machine has, or may go round without end. */
const LEFT_OUT =
  /^(J\w+|CALL\w*|RET\w*|LOOP\w*|IRET|INT\w*|SYS\w+|RDTSC|RDTSCP|RDRAND|RDSEED|RDPMC|CPUID|HLT|WRMSR|RDMSR|MOV_TO_CR|MOV_TO_DR|LMSW|LGDT|LIDT|INS|OUTS|IN|OUT|MWAIT|MONITOR|SWAPGS|FXRSTOR|CLTS)$/;

let seed = SEED;
const random = (below: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 4294967296) * below);
};
const MODES = [16, '16p', 'odd', 32, 64] as const;
type ModeName = (typeof MODES)[number];
const DECODING: Record<ModeName, number> = { 16: 0, '16p': 0, odd: 1 | 4, 32: 1 | 4 | 8, 64: 2 };

const decoder = new Decoder(rows);

/** The bytes of one instruction that exists in the mode. */
function instruction(mode: ModeName): { bytes: Uint8Array; text: string; rep: boolean } {
  const bytes = new Uint8Array(16);
  for (;;) {
    for (let n = 0; n < bytes.length; n++) bytes[n] = random(256);
    let at = 0;
    for (const prefix of [0x66, 0x67, 0xf0, 0x2e, 0x36, 0x26, 0x64, 0xf3]) if (random(8) === 0) bytes[at++] = prefix;
    if (mode === 64 && random(2) === 0) bytes[at++] = 0x40 | random(16);
    const row = rows[random(rows.length)];
    if (row.vex || LEFT_OUT.test(row.mnemonic)) continue;
    if (row.map > 0) bytes[at++] = 0x0f;
    if (row.map > 1) bytes[at++] = row.map === 2 ? 0x38 : 0x3a;
    bytes[at++] = row.opcode;
    // Displacements near the data, so that not every access is a fault.
    for (const value of [DATA & 0xff, DATA >> 8, 0, 0]) if (random(2) === 0) bytes[at + 1 + random(4)] = value;
    if (decoder.decode(bytes, 0, 16, DECODING[mode]) !== Decoded.OK) continue;
    if (LEFT_OUT.test(decoder.row.mnemonic)) continue;
    return { bytes: bytes.slice(0, decoder.length), text: decoder.row.text, rep: decoder.repeat !== 0 };
  }
}

interface Start {
  readonly registers: readonly bigint[];
  readonly flags: number;
  readonly data: Uint8Array;
  readonly vectors: readonly bigint[];
  readonly limit: number;
}

function start(rep: boolean): Start {
  const value = (): bigint => {
    switch (random(5)) {
      case 0:
        return BigInt(random(16));
      case 1:
        return BigInt(DATA + random(DATA_BYTES));
      case 2:
        return BigInt.asUintN(64, -BigInt(random(300)));
      default:
        return (BigInt(random(2 ** 32)) << 32n) | BigInt(random(2 ** 32));
    }
  };
  const registers = Array.from({ length: 16 }, value);
  registers[4] = BigInt(DATA + 0x1000 + random(64));
  if (rep) registers[1] = BigInt(random(20));
  return {
    registers,
    flags: 2 | (random(4096) & 0x8d5) | (random(8) === 0 ? 0x400 : 0),
    data: Uint8Array.from({ length: DATA_BYTES }, () => random(256)),
    vectors: Array.from({ length: 32 }, value),
    limit: DATA + random(DATA_BYTES),
  };
}

/** Runs the code, then tells everything that may differ, one text each. */
function outcome(machine: BareMachine, mode: ModeName, code: Uint8Array, from: Start): string[] {
  const { cpu, ram, system } = machine;
  cpu.u8.fill(0, 0, S.EXIT_COUNTS);
  cpu.i32[S.EXCEPTION >> 2] = -1;
  system.registers.reset(false);
  if (mode === 64) machine.long();
  else if (mode === 16) for (const index of [S.ES, S.CS, S.SS, S.DS, S.FS, S.GS]) system.segments.setReal(index, 0);
  else {
    machine.flat32();
    if (mode === '16p') {
      system.segments.set(S.CS, 8, 0, 0xffff, 0x9b);
      for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS]) system.segments.set(index, 16, 0, 0xffff, 0x93);
    } else if (mode === 'odd') {
      system.segments.set(S.DS, 16, 0, from.limit, 0x4093);
      system.segments.set(S.ES, 16, 0, 0xfffff, 0x4091);
      system.segments.set(S.FS, 16, 0, from.limit, 0x4097);
      system.segments.set(S.GS, 16, 0x100, from.limit, 0x409b);
    }
  }
  system.segments.updateMode();
  for (const [n, value] of from.registers.entries()) machine.setRegister(n, value);
  for (const [n, value] of from.vectors.entries()) cpu.u64[(S.VECTOR >> 3) + (n >> 1) * 8 + (n & 1)] = value;
  cpu.eflags = from.flags;
  cpu.i32[S.PENDING >> 2] = 0;
  system.paging.flush();
  system.paging.selectTlb();
  ram.write(DATA, from.data);
  let fault = 'none';
  system.interrupts.exception = (vector, error, rip) => {
    fault = `#${vector}(${error}) at ${rip.toString(16)}`;
    machine.stop();
  };
  system.interrupts.deliver = (vector) => {
    fault = `interrupt ${vector}`;
    machine.stop();
  };
  machine.tripleFaulted = false;
  const page = new Uint8Array(64).fill(0xf4);
  page.set(code);
  machine.execute(page, CODE);
  const told = [`exception ${fault}`, `RIP ${cpu.getNumber(S.NEXT_RIP).toString(16)}`, `RFLAGS ${cpu.eflags.toString(16)}`];
  for (let n = 0; n < 16; n++) told.push(`register ${n} ${machine.register(n).toString(16)}`);
  for (let n = 0; n < 32; n++) told.push(`vector half ${n} ${cpu.u64[(S.VECTOR >> 3) + (n >> 1) * 8 + (n & 1)].toString(16)}`);
  for (let n = 0; n < 6; n++)
    told.push(`segment ${n} ${cpu.selector(n).toString(16)} ${cpu.segmentBase(n)} ${cpu.segmentLimit(n)}`);
  told.push(`x87 ${Buffer.from(cpu.u8.subarray(S.FPU, S.FPU + 0x100)).toString('hex')}`);
  told.push(`MXCSR ${cpu.i32[S.MXCSR >> 2].toString(16)}`, `CR2 ${cpu.u64[S.CR2 >> 3].toString(16)}`);
  const data = new Uint8Array(DATA_BYTES);
  ram.read(DATA, data);
  for (let n = 0; n < DATA_BYTES; n += 32) {
    const row = data.subarray(n, n + 32);
    if (!row.every((byte, i) => byte === from.data[n + i]))
      told.push(`memory ${(DATA + n).toString(16)} ${Buffer.from(row).toString('hex')}`);
  }
  return told;
}

test('baseline and reference agree on random instructions in every mode', () => {
  const baseline = new BareMachine();
  const reference = new ReferenceMachine();
  renew(baseline);
  renew(reference);
  const failures = new Map<string, string>();
  for (let n = 0; n < CASES; n++) {
    const mode = MODES[n % MODES.length];
    const { bytes, text, rep } = instruction(mode);
    const from = start(rep);
    const what = `${mode} ${Buffer.from(bytes).toString('hex')} ${text}`;
    let a: string[];
    let b: string[];
    try {
      a = outcome(baseline, mode, bytes, from);
      b = outcome(reference, mode, bytes, from);
    } catch (error) {
      failures.set(text, `${what}: ${(error as Error).message.split('\n')[0]}`);
      continue;
    }
    const differences = a.filter((line) => !b.includes(line)).map((line) => `baseline ${line}`);
    differences.push(...b.filter((line) => !a.includes(line)).map((line) => `reference ${line}`));
    if (differences.length > 0) failures.set(text, `${what}: ${differences.slice(0, 6).join('; ')}`);
  }
  assert.deepEqual([...failures.values()].slice(0, 20), [], `${failures.size} rows; seed ${SEED}`);
});
