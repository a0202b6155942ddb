/** Runs one assembly case on one machine and tells what differs from what it expects. */
import type { BareMachine } from '../../engine/accel/jit/testing.ts';
import * as S from '../../engine/memory/vcpu-state.ts';
import { FLAG } from '../../engine/x86/system/cpu.ts';
import { type AsmCase, type Assembled, type CaseState, type MemoryImage, type Numeric, originOf } from './cases.ts';
import { renew } from './machines.ts';

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const SEGMENTS = 'es cs ss ds fs gs ldtr tr'.split(' ');
const SYSTEM: Record<string, number> = {
  cr0: S.CR0,
  cr2: S.CR2,
  cr3: S.CR3,
  cr4: S.CR4,
  efer: S.EFER,
  dr6: S.DR + 32,
  dr7: S.DR + 40,
};
const EXCEPTIONS = 'DE DB NMI BP OF BR UD NM DF - TS NP SS GP PF - MF AC MC XM'.split(' ');
const ARITHMETIC = ['CF', 'PF', 'AF', 'ZF', 'SF', 'OF'] as const;

const big = (value: Numeric): bigint => BigInt(value);
const SIZES = { b: 1, w: 2, d: 4, q: 8 } as const;

function fill(machine: BareMachine, image: MemoryImage): void {
  for (const [letter, size] of Object.entries(SIZES))
    for (const [address, value] of Object.entries(image[letter as keyof typeof SIZES] ?? {})) {
      const bytes = new Uint8Array(size);
      for (let n = 0; n < size; n++) bytes[n] = Number((big(value) >> BigInt(8 * n)) & 0xffn);
      machine.ram.write(Number(address), bytes);
    }
  for (const [address, text] of Object.entries(image.bytes ?? {}))
    machine.ram.write(Number(address), Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

function flagBits(text: string): number {
  let bits = 0;
  for (const name of text.split(' ').filter(Boolean)) {
    const bit = (FLAG as Record<string, number>)[name];
    if (bit === undefined) throw new Error(`no flag ${name}`);
    bits |= bit;
  }
  return bits;
}

function enter(machine: BareMachine, state: CaseState): void {
  const { cpu, system } = machine;
  const sixteen = state.mode === 16 || state.mode === '16p';
  if (state.mode === 64) machine.long(state.cpl);
  else if (state.mode === 32) machine.flat32(state.cpl);
  else if (state.mode === '16p') {
    machine.flat32(state.cpl);
    system.segments.set(S.CS, 8, 0, 0xffff, 0x9b);
    for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS]) system.segments.set(index, 16, 0, 0xffff, 0x93);
    system.segments.updateMode();
  } else {
    for (const index of [S.ES, S.CS, S.SS, S.DS, S.FS, S.GS]) system.segments.setReal(index, 0);
    system.segments.updateMode();
  }
  for (let n = 0; n < 16; n++) machine.setRegister(n, 0n);
  machine.setRegister(4, sixteen ? 0x7000n : 0x80000n);
  fill(machine, state);
  for (const [name, value] of Object.entries(state.regs ?? {})) setRegister(machine, name, big(value));
  cpu.eflags = 2 | flagBits(state.flags ?? '');
  system.registers.updateFpuBlock();
  system.paging.flush();
  system.paging.selectTlb();
}

function setRegister(machine: BareMachine, name: string, value: bigint): void {
  const { cpu } = machine;
  const xmm = /^xmm(\d+)$/.exec(name);
  if (xmm !== null) {
    const at = (S.VECTOR + Number(xmm[1]) * S.VECTOR_STRIDE) >> 3;
    cpu.u64[at] = BigInt.asUintN(64, value);
    cpu.u64[at + 1] = BigInt.asUintN(64, value >> 64n);
  } else if (name in SYSTEM) cpu.u64[SYSTEM[name] >> 3] = BigInt.asUintN(64, value);
  else if (name === 'mxcsr') cpu.i32[S.MXCSR >> 2] = Number(value);
  else if (NAMES.includes(name)) machine.setRegister(NAMES.indexOf(name), value);
  else throw new Error(`no register ${name}`);
}

function register(machine: BareMachine, name: string): bigint {
  const { cpu } = machine;
  const xmm = /^xmm(\d+)$/.exec(name);
  if (xmm !== null) {
    const at = (S.VECTOR + Number(xmm[1]) * S.VECTOR_STRIDE) >> 3;
    return cpu.u64[at] | (cpu.u64[at + 1] << 64n);
  }
  if (name in SYSTEM) return cpu.u64[SYSTEM[name] >> 3];
  if (SEGMENTS.includes(name)) return BigInt(cpu.selector(SEGMENTS.indexOf(name)));
  const narrow = /^e([a-ds][xpi])$/.exec(name);
  if (narrow !== null) return BigInt.asUintN(32, machine.register(NAMES.indexOf(`r${narrow[1]}`)));
  switch (name) {
    case 'mxcsr':
      return BigInt(cpu.i32[S.MXCSR >> 2]);
    case 'cpl':
      return BigInt(cpu.cpl);
    case 'rflags':
      return BigInt(cpu.eflags >>> 0);
    case 'rip':
      return BigInt.asUintN(64, BigInt(cpu.getNumber(S.NEXT_RIP)));
  }
  if (!NAMES.includes(name)) throw new Error(`no register ${name}`);
  return machine.register(NAMES.indexOf(name));
}

/** What is not as the case expects, one text each. */
export function runCase(machine: BareMachine, one: AsmCase, assembled: Assembled): string[] {
  const { state } = one;
  const { expect } = state;
  const differences: string[] = [];
  renew(machine);
  enter(machine, state);

  const { cpu, ram } = machine;
  const { interrupts } = machine.system;
  let exception: { vector: number; code: number; rip: number } | undefined;
  const original = interrupts.exception;
  if (state.deliver !== true)
    interrupts.exception = (vector, code, rip) => {
      exception = { vector, code, rip };
      machine.stop();
    };
  try {
    machine.execute(assembled.code, originOf(state));
  } finally {
    interrupts.exception = original;
  }
  if (machine.tripleFaulted !== (expect.triple ?? false))
    differences.push(machine.tripleFaulted ? 'a triple fault' : 'no triple fault');

  // UD2 is how a user-mode case ends.
  if (exception?.vector === 6 && expect.exception === undefined && state.cpl === 3) {
    const base = state.mode === 64 ? 0 : cpu.segmentBase(S.CS);
    if (ram.read16(base + exception.rip) === 0x0b0f) exception = undefined;
  }
  const got =
    exception === undefined
      ? 'none'
      : `#${EXCEPTIONS[exception.vector] ?? exception.vector}${exception.code === 0 ? '' : ` ${exception.code}`}`;
  const wanted =
    expect.exception
      ?.replace(/ (0x[0-9a-f]+)$/, (_, code) => (Number(code) === 0 ? '' : ` ${Number(code)}`))
      .replace(/ 0$/, '') ?? 'none';
  if (got !== wanted) differences.push(`exception ${got} at ${exception?.rip.toString(16)}, not ${wanted}`);
  else if (expect.at !== undefined) {
    const at = assembled.labels.get(expect.at);
    if (exception?.rip !== at)
      differences.push(`the exception is of 0x${exception?.rip.toString(16)}, not of ${expect.at} (0x${at?.toString(16)})`);
  }

  for (const [name, value] of Object.entries(expect.regs ?? {})) {
    const is = register(machine, name);
    const should =
      typeof value === 'string' && assembled.labels.has(value)
        ? BigInt(assembled.labels.get(value) as number)
        : BigInt.asUintN(name.startsWith('xmm') ? 128 : 64, big(value));
    if (is !== should) differences.push(`${name} is 0x${is.toString(16)}, not 0x${should.toString(16)}`);
  }
  if (expect.flags !== undefined) {
    const defined = ARITHMETIC.reduce((bits, name) => bits | FLAG[name], 0) & ~flagBits(expect.undefined ?? '');
    const is = cpu.eflags & defined;
    const should = flagBits(expect.flags) & defined;
    const names = (bits: number): string => ARITHMETIC.filter((name) => (bits & FLAG[name]) !== 0).join(' ') || 'none';
    if (is !== should) differences.push(`flags are ${names(is)}, not ${names(should)}`);
  }
  for (const [letter, size] of Object.entries(SIZES))
    for (const [address, value] of Object.entries(expect[letter as keyof typeof SIZES] ?? {})) {
      const bytes = new Uint8Array(size);
      ram.read(Number(address), bytes);
      let is = 0n;
      for (let n = size - 1; n >= 0; n--) is = (is << 8n) | BigInt(bytes[n]);
      const should =
        typeof value === 'string' && assembled.labels.has(value)
          ? BigInt(assembled.labels.get(value) as number)
          : BigInt.asUintN(size * 8, big(value));
      if (is !== should) differences.push(`${size} bytes at ${address} are 0x${is.toString(16)}, not 0x${should.toString(16)}`);
    }
  for (const [address, text] of Object.entries(expect.bytes ?? {})) {
    const should = text.replaceAll(' ', '').toLowerCase();
    const bytes = new Uint8Array(should.length / 2);
    ram.read(Number(address), bytes);
    const is = Buffer.from(bytes).toString('hex');
    if (is !== should) differences.push(`bytes at ${address} are ${is}, not ${should}`);
  }
  return differences;
}
