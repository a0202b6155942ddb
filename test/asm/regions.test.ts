/**
 * Random programs of many blocks, on the baseline tier and as regions: loops, branches forward and back over the end of
 * a page, calls, indirect jumps, accesses that cross pages, a fault at the end. Both must leave the same state. This is
 * about what lies between instructions: flags that nobody wants, entries, ways out, the jump cache.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../engine/accel/jit/testing.ts';
import { renew } from './machines.ts';

const PROGRAMS = Number(process.env.REGION_PROGRAMS ?? 60);
const SEED = Number(process.env.REGION_SEED ?? 1);
const CODE = 0x110e00;
const DATA = 0x8000;
const DATA_BYTES = 0x2000;
const STACK = 0xc000;
/** The table of the first two megabytes, and where they are: the pages from 0x8000 to 0xffff the other way round. */
const TABLE = 0x10000;
const placeOf = (address: number): number => (address >= 0x8000 && address < 0x10000 ? address ^ 0x7000 : address);
/** Blocks that are entered from behind count RCX down, so that each program ends. */
const FUEL = 600;

let seed = SEED;
const random = (below: number): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 4294967296) * below);
};
const pick = <T>(list: readonly T[]): T => list[random(list.length)];

/** Registers that programs compute with: not RCX, RSP, R10 (an address that faults), R11 (the data). */
const FREE = [0, 2, 3, 5, 6, 7, 8, 9, 12, 13, 14, 15];
const DATA_REGISTER = 11;
const WILD_REGISTER = 10;

class Program {
  readonly bytes: number[] = [];
  readonly #labels = new Map<number, number>();
  readonly #fixups: { at: number; label: number }[] = [];

  put(...bytes: readonly number[]): void {
    this.bytes.push(...bytes);
  }
  label(label: number): void {
    this.#labels.set(label, this.bytes.length);
  }
  /** An instruction that ends in the 32-bit distance to a label. */
  to(label: number, ...opcode: readonly number[]): void {
    this.put(...opcode);
    this.#fixups.push({ at: this.bytes.length, label });
    this.put(0, 0, 0, 0);
  }
  finish(): Uint8Array {
    const code = Uint8Array.from(this.bytes);
    const view = new DataView(code.buffer);
    for (const { at, label } of this.#fixups) view.setInt32(at, (this.#labels.get(label) as number) - at - 4, true);
    return code;
  }
}

const rex = (wide: boolean, reg: number, rm: number): number => 0x40 | (wide ? 8 : 0) | (reg > 7 ? 4 : 0) | (rm > 7 ? 1 : 0);
const both = (reg: number, rm: number): number => 0xc0 | ((reg & 7) << 3) | (rm & 7);

/** One instruction without a branch. */
function straight(p: Program): void {
  const reg = pick(FREE);
  const rm = pick(FREE);
  const wide = random(2) === 0;
  const data = (opcode: readonly number[], register: number): void => {
    // Mostly near each other, some of those across the end of a page: such accesses share a look at the TLB.
    const at = pick([random(DATA_BYTES - 16), 0x100 + random(96), 0xfd0 + random(96)]);
    p.put(
      rex(wide, register, DATA_REGISTER),
      ...opcode,
      0x80 | ((register & 7) << 3) | (DATA_REGISTER & 7),
      at & 0xff,
      at >> 8,
      0,
      0,
    );
  };
  switch (random(16)) {
    case 0:
    case 1:
    case 2:
      // ADD, OR, ADC, SBB, AND, SUB, XOR, CMP
      p.put(rex(wide, reg, rm), (random(8) << 3) | 3, both(reg, rm));
      break;
    case 3:
      data([(random(8) << 3) | 3], reg);
      break;
    case 4:
      // To memory: ADD ... XOR
      data([(random(7) << 3) | 1], reg);
      break;
    case 5:
      data([random(2) === 0 ? 0x89 : 0x8b], reg);
      break;
    case 6:
      // INC, DEC
      p.put(rex(wide, 0, rm), 0xff, both(random(2), rm));
      break;
    case 7:
      // NOT, NEG
      p.put(rex(wide, 0, rm), 0xf7, both(2 + random(2), rm));
      break;
    case 8:
      // ROL, ROR, RCL, RCR, SHL, SHR, SAR by a count that may be none
      p.put(rex(wide, 0, rm), 0xc1, both(pick([0, 1, 2, 3, 4, 5, 7]), rm), pick([0, 1, 2, 7, 31, 33]));
      break;
    case 9:
      p.put(rex(wide, reg, rm), 0x85, both(reg, rm));
      break;
    case 10:
      p.put(rex(false, 0, rm), 0x0f, 0x90 | random(16), both(0, rm));
      break;
    case 11:
      p.put(rex(wide, reg, rm), 0x0f, 0x40 | random(16), both(reg, rm));
      break;
    case 12:
      // PUSH, POP
      p.put(rex(false, 0, reg), 0x50 | (reg & 7), rex(false, 0, rm), 0x58 | (rm & 7));
      break;
    case 13:
      // MOV from [RIP + distance]: code of this or of the next page
      p.put(rex(wide, reg, 0), 0x8b, 0x05 | ((reg & 7) << 3), random(128), random(2), 0, 0);
      break;
    case 14:
      // MOV from or to [RSP - distance]
      p.put(rex(wide, reg, 0), pick([0x89, 0x8b]), 0x44 | ((reg & 7) << 3), 0x24, 0x80 + random(112));
      break;
    default:
      // PUSHF, POP
      p.put(0x9c, rex(false, 0, rm), 0x58 | (rm & 7));
  }
}

function program(): Uint8Array {
  const p = new Program();
  const count = 4 + random(10);
  const END = count;
  const SUBROUTINES = 100;
  for (let n = 0; n < count; n++) {
    p.label(n);
    if (random(6) === 0) for (let i = random(200); i > 0; i--) p.put(0x90);
    // LEA RCX, [RCX-1]; JRCXZ to the end: neither touches the flags.
    p.put(0x48, 0x8d, 0x49, 0xff, 0xe3, 0x02, 0xeb, 0x05);
    p.to(END, 0xe9);
    for (let i = random(6); i > 0; i--) straight(p);
    switch (random(8)) {
      case 0:
        p.to(SUBROUTINES + random(2), 0xe8);
        break;
      case 1:
        // LEA RAX, [RIP + label]; JMP or CALL RAX
        if (random(2) === 0) {
          p.to(pick([n + 1, random(count + 1)]), 0x48, 0x8d, 0x05);
          p.put(0xff, 0xe0);
        } else {
          p.to(SUBROUTINES + random(2), 0x48, 0x8d, 0x05);
          p.put(0xff, 0xd0);
        }
        break;
      case 2:
        p.to(random(count + 1), 0xe9);
        break;
      case 3:
        break;
      default:
        p.to(random(count + 1), 0x0f, 0x80 | random(16));
    }
  }
  p.label(END);
  for (let i = random(4); i > 0; i--) straight(p);
  // MOV RAX, [R10]: the flags that the fault saves are looked at.
  if (random(2) === 0) p.put(0x49, 0x8b, 0x02);
  p.put(0xf4);
  // On a page of their own.
  while ((CODE + p.bytes.length) % 4096 !== 0x20) p.put(0xcc);
  for (let n = 0; n < 2; n++) {
    p.label(SUBROUTINES + n);
    for (let i = 1 + random(4); i > 0; i--) straight(p);
    p.put(0xc3);
  }
  return p.finish();
}

function outcome(machine: BareMachine, code: Uint8Array, registers: readonly bigint[], data: Uint8Array): string[] {
  const { cpu, ram, system } = machine;
  renew(machine);
  machine.long();
  // Pages that follow each other lie apart in memory, as a rule.
  for (let n = 0; n < 512; n++) ram.write64(TABLE + n * 8, (placeOf(n * 4096) & ~0xfff) | 7);
  ram.write64(0x3000, TABLE | 7);
  system.paging.flush();
  for (const [n, value] of registers.entries()) machine.setRegister(n, value);
  machine.setRegister(1, BigInt(FUEL));
  machine.setRegister(4, BigInt(STACK));
  machine.setRegister(WILD_REGISTER, 1n << 60n);
  machine.setRegister(DATA_REGISTER, BigInt(DATA));
  cpu.eflags = 2;
  for (let at = 0; at < DATA_BYTES; at += 4096) ram.write(placeOf(DATA + at), data.subarray(at, at + 4096));
  let fault = 'none';
  system.interrupts.exception = (vector, error, rip) => {
    fault = `#${vector}(${error}) at ${rip.toString(16)}`;
    machine.stop();
  };
  machine.execute(code, CODE);
  const told = [`exception ${fault}`, `RFLAGS ${cpu.eflags.toString(16)}`];
  for (let n = 0; n < 16; n++) told.push(`register ${n} ${machine.register(n).toString(16)}`);
  const left = new Uint8Array(DATA_BYTES);
  for (let at = 0; at < DATA_BYTES; at += 4096) ram.read(placeOf(DATA + at), left.subarray(at, at + 4096));
  told.push(`memory ${Buffer.from(left).toString('hex')}`);
  return told;
}

test('random programs end in the same state on the baseline tier and as regions', () => {
  const baseline = new BareMachine('baseline');
  const others = [new BareMachine('region'), new BareMachine('both', 8), new BareMachine('both', 40)];
  for (let n = 0; n < PROGRAMS; n++) {
    const from = seed;
    const code = program();
    const registers = Array.from({ length: 16 }, () => (BigInt(random(2 ** 32)) << 32n) | BigInt(random(2 ** 32)));
    const data = Uint8Array.from({ length: DATA_BYTES }, () => random(256));
    const expected = outcome(baseline, code, registers, data);
    for (const [which, machine] of others.entries()) {
      const got = outcome(machine, code, registers, data);
      const wrong = got.flatMap((line, at) =>
        line === expected[at] ? [] : [`${line} instead of ${expected[at]}`.slice(0, 200)],
      );
      assert.deepEqual(wrong, [], `program ${n} (seed ${from}) on machine ${which}: ${Buffer.from(code).toString('hex')}`);
    }
  }
});
