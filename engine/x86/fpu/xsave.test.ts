import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../accel/jit/testing.ts';
import * as S from '../../memory/vcpu-state.ts';
import { CR4 } from '../system/cpu.ts';

const AREA = 0x200000;
const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;

class Bench {
  readonly machine = new BareMachine('baseline');
  #fault: number | undefined;

  constructor(xcr0 = 7) {
    const { machine } = this;
    machine.long();
    const { cpu, system } = machine;
    cpu.set32(S.CR4, cpu.get32(S.CR4) | CR4.OSXSAVE);
    cpu.set32(S.XCR0, xcr0);
    system.registers.updateFpuBlock();
    system.interrupts.deliver = (vector) => {
      this.#fault ??= vector;
      machine.stop();
    };
  }
  /** Runs one instruction and HLT; the vector of its fault, or undefined. */
  run(hex: string, registers: Readonly<Record<number, bigint>> = {}): number | undefined {
    this.#fault = undefined;
    for (const [n, value] of Object.entries(registers)) this.machine.setRegister(Number(n), value);
    this.machine.vcpu.dropAll();
    this.machine.execute(Uint8Array.from(Buffer.from(`${hex}f4`, 'hex')));
    return this.#fault;
  }
  word(offset: number): number {
    return this.machine.ram.read32(AREA + offset) >>> 0;
  }
  put(offset: number, value: number): void {
    this.machine.ram.write32(AREA + offset, value);
  }
  /** Word `word` of vector register `n`. */
  vector(n: number, word: number, value?: number): number {
    const at = (S.VECTOR + n * S.VECTOR_STRIDE) / 4 + word;
    if (value !== undefined) this.machine.cpu.u32[at] = value;
    return this.machine.cpu.u32[at];
  }
}

const at = { [RBX]: BigInt(AREA), [RAX]: 7n, [RDX]: 0n };
const XSAVE = '480fae23';
const XSAVEOPT = '480fae33';
const XSAVEC = '480fc723';
const XSAVES = '480fc72b';
const XRSTOR = '480fae2b';
const XRSTORS = '480fc71b';
const FAULT = { GP: 13, UD: 6, NM: 7 };

test('XSAVE: the standard format', () => {
  const b = new Bench();
  for (let offset = 0; offset < 1024; offset += 4) b.put(offset, 0xdddddddd);
  b.put(512, 0);
  b.vector(3, 1, 0x31);
  b.vector(3, 5, 0x35);
  assert.equal(b.run(XSAVE, at), undefined);
  assert.equal(b.word(0) & 0xffff, b.machine.system.fpu.state.control);
  assert.equal(b.word(24), 0x1f80);
  assert.equal(b.word(28), 0xffff);
  assert.equal(b.word(160 + 16 * 3 + 4), 0x31);
  assert.equal(b.word(576 + 16 * 3 + 4), 0x35);
  assert.equal(b.word(512) & 6, 6);
  // XCOMP_BV, what is reserved, the bytes for software and what follows stay.
  assert.equal(b.word(520), 0xdddddddd);
  assert.equal(b.word(416), 0xdddddddd);
  assert.equal(b.word(832), 0xdddddddd);
});

test('components that are not asked for stay in memory and in the header', () => {
  const b = new Bench();
  b.put(512, 7);
  b.put(160, 0x77777777);
  b.vector(0, 4, 5);
  assert.equal(b.run(XSAVE, { ...at, [RAX]: 4n }), undefined);
  assert.equal(b.word(160), 0x77777777);
  assert.equal(b.word(576), 5);
  assert.equal(b.word(512), 7);
});

test('XSAVEOPT and XSAVEC leave out what is in its initial state', () => {
  for (const code of [XSAVEOPT, XSAVEC, XSAVES]) {
    const b = new Bench();
    assert.equal(b.run('dbe3'), undefined); // FNINIT
    for (let offset = 0; offset < 832; offset += 4) b.put(offset, offset >= 512 && offset < 576 ? 0 : 0xdddddddd);
    b.vector(9, 0, 1);
    assert.equal(b.run(code, at), undefined);
    assert.equal(b.word(512) & 6, 2, code);
    assert.equal(b.word(160 + 16 * 9), 1);
    assert.equal(b.word(576), 0xdddddddd);
    assert.equal(b.word(524), code === XSAVEOPT ? 0 : 0x80000000);
    assert.equal(b.word(520), code === XSAVEOPT ? 0 : 7);
  }
});

test('XRSTOR loads what is there and initializes what is not, in both formats', () => {
  for (const compacted of [false, true]) {
    const b = new Bench();
    for (let n = 0; n < 16; n++) for (let word = 0; word < 8; word++) b.vector(n, word, 0x1000 + word);
    b.put(512, 4);
    if (compacted) {
      b.put(520, 7);
      b.put(524, 0x80000000);
    }
    b.put(24, 0x1fa0);
    b.put(576 + 16 * 15, 0xabcd);
    assert.equal(b.run(compacted ? XRSTORS : XRSTOR, at), undefined);
    assert.equal(b.vector(15, 4), 0xabcd);
    assert.equal(b.vector(15, 0), 0);
    // MXCSR is of its own in the standard format, and of the SSE component in the compacted one.
    assert.equal(b.machine.cpu.u32[S.MXCSR / 4], compacted ? 0x1f80 : 0x1fa0);
  }
});

test('areas that XRSTOR does not take', () => {
  const cases: readonly (readonly [string, string, (b: Bench) => void, Record<number, bigint>?])[] = [
    ['not aligned', XRSTOR, () => {}, { [RBX]: BigInt(AREA + 32) }],
    ['components that XCR0 has not', XRSTOR, (b) => b.put(512, 8)],
    ['reserved bytes', XRSTOR, (b) => b.put(532, 1)],
    ['XCOMP_BV without its top bit', XRSTOR, (b) => b.put(520, 1)],
    ['more components than its format', XRSTOR, (b) => [b.put(512, 4), b.put(520, 3), b.put(524, 0x80000000)]],
    ['MXCSR', XRSTOR, (b) => b.put(24, 0x10000)],
    ['the standard format', XRSTORS, () => {}],
  ];
  for (const [what, code, prepare, registers] of cases) {
    const b = new Bench();
    b.vector(1, 0, 42);
    prepare(b);
    assert.equal(b.run(code, { ...at, ...registers }), FAULT.GP, what);
    assert.equal(b.vector(1, 0), 42, what);
  }
});

test('XSETBV, XGETBV and what they do to AVX', () => {
  const b = new Bench(1);
  const vpxor = 'c5f1efc2';
  assert.equal(b.run(vpxor), FAULT.UD);
  for (const wrong of [0n, 2n, 5n, 8n, 0xfn]) assert.equal(b.run('0f01d1', { [RAX]: wrong, [RCX]: 0n, [RDX]: 0n }), FAULT.GP);
  assert.equal(b.run('0f01d1', { [RAX]: 7n, [RCX]: 1n, [RDX]: 0n }), FAULT.GP);
  assert.equal(b.run('0f01d1', { [RAX]: 7n, [RCX]: 0n, [RDX]: 1n }), FAULT.GP);
  assert.equal(b.run('0f01d1', { [RAX]: 7n, [RCX]: 0n, [RDX]: 0n }), undefined);
  assert.equal(b.run(vpxor), undefined);
  assert.equal(b.run('0f01d0', { [RCX]: 0n }), undefined);
  assert.equal(b.machine.register(RAX), 7n);
  b.vector(2, 6, 1);
  assert.equal(b.run('0f01d0', { [RCX]: 1n }), undefined);
  assert.equal(b.machine.register(RAX) & 6n, 4n);
  assert.equal(b.run('0f01d0', { [RCX]: 2n }), FAULT.GP);
  b.machine.cpu.set32(S.CR4, b.machine.cpu.get32(S.CR4) & ~CR4.OSXSAVE);
  b.machine.system.registers.updateFpuBlock();
  assert.equal(b.run('0f01d0', { [RCX]: 0n }), FAULT.UD);
  assert.equal(b.run(XSAVE, at), FAULT.UD);
  assert.equal(b.run(vpxor), FAULT.UD);
});

test('INVPCID', () => {
  const b = new Bench();
  const code = '660f388203'; // INVPCID RAX, [RBX]
  for (const type of [0n, 1n, 2n, 3n]) assert.equal(b.run(code, { [RAX]: type, [RBX]: BigInt(AREA) }), undefined);
  assert.equal(b.run(code, { [RAX]: 4n, [RBX]: BigInt(AREA) }), FAULT.GP);
  b.put(0, 5); // PCIDs are not enabled
  assert.equal(b.run(code, { [RAX]: 1n, [RBX]: BigInt(AREA) }), FAULT.GP);
  b.put(0, 0x1000);
  assert.equal(b.run(code, { [RAX]: 0n, [RBX]: BigInt(AREA) }), FAULT.GP);
  assert.equal(b.run(code, { [RAX]: 2n, [RBX]: BigInt(AREA) }), undefined);
});
