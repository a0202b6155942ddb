/** Performance counters: what is counted is what was retired, in both tiers, whatever left the run in its middle. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../accel/jit/testing.ts';
import * as S from '../../memory/vcpu-state.ts';
import { FLAG } from './cpu.ts';

const dword = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >>> 24];
const MOV = (register: number, value: number): number[] => [0xb8 + register, ...dword(value)];
const WRMSR = (msr: number, low: number, high = 0): number[] => [...MOV(1, msr), ...MOV(0, low), ...MOV(2, high), 0x0f, 0x30];
const RDMSR = (msr: number): number[] => [...MOV(1, msr), 0x0f, 0x32];
const RDPMC = (counter: number): number[] => [...MOV(1, counter), 0x0f, 0x33];
const HLT = 0xf4;

/** User and system, enabled, instructions. */
const INSTRUCTIONS = 0x4300c0;
const SELECT = 0x186;
const COUNTER = 0xc1;
const FIXED_CONTROL = 0x38d;
const STATUS = 0x38e;
const CONTROL = 0x38f;
const CLEAR = 0x390;

/** A flat 32-bit machine with an IDT at 0x5000 whose gates lead to 0x100800: ADD dword [ESP], 2 (on #UD's frame); IRET. */
function machine(tier: 'baseline' | 'region'): BareMachine {
  const made = new BareMachine(tier);
  made.flat32();
  const { ram, system } = made;
  for (const vector of [6, 13]) {
    ram.write32(0x5000 + vector * 8, 0x00080800 + vector * 16);
    ram.write32(0x5004 + vector * 8, 0x00108e00);
  }
  ram.write32(0x4008, 0x0000ffff);
  ram.write32(0x400c, 0x00cf9b00);
  system.segments.set(S.GDTR, 0, 0x4000, 0x17, 0);
  system.segments.set(S.IDTR, 0, 0x5000, 0x7ff, 0);
  made.setRegister(4, 0x80000n);
  made.cpu.eflags = FLAG.IF | 2;
  made.tsc = () => 0;
  return made;
}

function run(made: BareMachine, code: readonly number[]): void {
  const page = new Uint8Array(0x900).fill(HLT);
  page.set(code);
  // #UD: skips the two bytes of UD2. #GP: pops the error code, skips two bytes.
  page.set([0x83, 0x04, 0x24, 2, 0xcf], 0x860);
  page.set([0x58, 0x83, 0x04, 0x24, 2, 0xcf], 0x8d0);
  made.execute(page);
}

for (const tier of ['baseline', 'region'] as const) {
  test(`${tier}: instructions between two writes of the global control register`, () => {
    const made = machine(tier);
    const code = [
      ...WRMSR(CONTROL, 0),
      ...WRMSR(SELECT, INSTRUCTIONS),
      ...WRMSR(CONTROL, 1),
      // 3, and 100 times 3
      ...MOV(1, 100),
      0x40,
      0x40,
      ...[0x43, 0x49, 0x75, 0xfc],
      // UD2 is not retired; the handler's two are.
      ...[0x0f, 0x0b],
      // STI; NOP; CPUID; CLI
      ...[0xfb, 0x90, 0x0f, 0xa2, 0xfa],
      // 4 with the one that ends it
      ...WRMSR(CONTROL, 0),
      ...RDMSR(COUNTER),
      HLT,
    ];
    for (let again = 0; again < 3; again++) {
      made.cpu.u32.set([0, 0], (S.PMU + 0) >> 2);
      run(made, code);
      assert.equal(made.register(0), BigInt(3 + 300 + 2 + 4 + 4), `time ${again}`);
      assert.equal(made.register(2), 0n);
    }
  });

  test(`${tier}: RDPMC in a loop`, () => {
    const made = machine(tier);
    const code = [
      ...WRMSR(CONTROL, 0),
      ...WRMSR(SELECT, INSTRUCTIONS),
      ...WRMSR(CONTROL, 1),
      ...MOV(7, 0x80000),
      ...MOV(6, 40),
      // again: RDPMC; STOSD; NOP; DEC ESI; JNE again
      ...[...RDPMC(0), 0xab, 0x90, 0x4e, 0x75, 0xf4],
      ...WRMSR(CONTROL, 0),
      HLT,
    ];
    run(made, code);
    // The two MOVs, then MOV and RDPMC.
    for (let n = 0; n < 40; n++) assert.equal(made.ram.read32(0x80000 + n * 4), 4 + n * 6, `reading ${n}`);
  });
}

test('a fixed counter by privilege, and what overflows', () => {
  const made = machine('baseline');
  let interrupts = 0;
  made.performanceInterrupt = () => interrupts++;
  // Fixed counter 0: ring 3 only at first; then ring 0 with an interrupt.
  run(made, [...WRMSR(FIXED_CONTROL, 2), ...WRMSR(CONTROL, 0, 1), 0x90, 0x90, ...RDPMC(0x40000000), HLT]);
  assert.equal(made.register(0), 0n);
  run(made, [
    ...WRMSR(0x309, 0xfffffffe, 0xffff),
    ...WRMSR(FIXED_CONTROL, 9),
    0x90,
    0x90,
    0x90,
    ...WRMSR(CONTROL, 0),
    ...RDMSR(STATUS),
    HLT,
  ]);
  assert.equal(made.register(0), 0n);
  assert.equal(made.register(2), 1n);
  assert.equal(interrupts, 1);
  run(made, [...WRMSR(CLEAR, 0, 1), ...RDMSR(STATUS), HLT]);
  assert.equal(made.register(2), 0n);
  run(made, [...RDMSR(0x309), HLT]);
  assert.equal(made.register(0), 5n);
});

test('cycles stand while nothing is enabled, and writes that are not allowed are refused', () => {
  const made = machine('baseline');
  let now = 1000;
  made.tsc = () => now;
  run(made, [...WRMSR(SELECT + 1, 0x43003c), ...WRMSR(CONTROL, 2), HLT]);
  now = 1500;
  run(made, [...RDPMC(1), HLT]);
  assert.equal(made.register(0), 500n);
  // The sign of 32 bits; 48 of them.
  run(made, [...WRMSR(CONTROL, 0), ...WRMSR(COUNTER + 2, 0x80000000), ...RDPMC(2), HLT]);
  assert.equal(made.register(0), 0x80000000n);
  assert.equal(made.register(2), 0xffffn);
  let faults = 0;
  made.system.interrupts.delivered = (_source, vector) => {
    faults += vector === 13 ? 1 : 0;
  };
  const writes = [
    WRMSR(STATUS, 0),
    WRMSR(CONTROL, 0x10),
    WRMSR(FIXED_CONTROL, 4),
    WRMSR(SELECT, 1 << 21),
    WRMSR(0x309, 0, 0x10000),
    RDPMC(4),
    RDPMC(0x40000003),
  ];
  for (const [n, write] of writes.entries()) {
    run(made, [...write, HLT]);
    assert.equal(faults, n + 1, write.join());
  }
});
