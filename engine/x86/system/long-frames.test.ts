/** Frames of 64-bit mode hold 64 bits: what a program has in RSP, and what lies above selectors and flags. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../accel/jit/testing.ts';
import * as S from '../../memory/vcpu-state.ts';

const GDT = 0x4000;
const IDT = 0x5000;
const TSS = 0x6000;
const HANDLER = 0x8000;
const PROGRAM = 0x9000;
const STACK = 0xa000;
const FRAME = 0x61f00;
const CODE0 = 0x08;
const CODE3 = 0x1b;
const DATA3 = 0x23;
const SMALL3 = 0x33;
const CODE32 = 0x3b;
/** No address, and nothing that a double holds. */
const ODD = 0xdeadbeefcafebabfn;

/** In ring 3 of 64-bit mode with all ports; interrupts go to HANDLER in ring 0, on a stack that begins at STACK. */
function start(): { machine: BareMachine; put: (address: number, value: bigint) => void; delivered: number[] } {
  const machine = new BareMachine('baseline');
  const { ram, system, cpu } = machine;
  machine.long(3);
  const put = (address: number, value: bigint): void => {
    ram.write32(address, Number(value & 0xffffffffn));
    ram.write32(address + 4, Number(value >> 32n));
  };
  put(GDT + CODE0, 0x00209b0000000000n);
  put(GDT + (CODE3 & ~7), 0x0020fb0000000000n);
  put(GDT + (DATA3 & ~7), 0x00cff3000000ffffn);
  put(GDT + (SMALL3 & ~7), 0x0000f3000000ffffn);
  put(GDT + (CODE32 & ~7), 0x00cffb000000ffffn);
  system.segments.set(S.GDTR, 0, GDT, 0x3f, 0);
  system.segments.set(S.IDTR, 0, IDT, 0xfff, 0);
  system.segments.set(S.TR, 0x28, TSS, 0x67, 0x8b);
  put(TSS + 4, BigInt(STACK));
  for (let vector = 0; vector < 256; vector++) {
    put(IDT + vector * 16, (0xeen << 40n) | (BigInt(CODE0) << 16n) | BigInt(HANDLER));
    put(IDT + vector * 16 + 8, 0n);
  }
  system.segments.set(S.CS, CODE3, 0, 0xffffffff, 0xa0fb);
  for (const index of [S.SS, S.DS, S.ES]) system.segments.set(index, DATA3, 0, 0xffffffff, 0xc0f3);
  system.segments.updateMode();
  cpu.eflags = 0x3002;
  const delivered: number[] = [];
  system.interrupts.delivered = (_source, vector) => void delivered.push(vector);
  return { machine, put, delivered };
}

/** MOV EAX, ESP with REX.W where `wide`; OUT 0F4h, AL ends the test. */
const end = (wide: boolean): number[] => [...(wide ? [0x48] : []), 0x89, 0xe0, 0xe6, 0xf4];
const IRETQ = [0x48, 0xcf];

test('an interrupt keeps all of RSP, and IRET brings it back', () => {
  const { machine, delivered } = start();
  machine.setRegister(4, ODD);
  machine.ram.write(HANDLER, Uint8Array.from(IRETQ));
  machine.execute(Uint8Array.of(0xcd, 0x40, ...end(true)), PROGRAM);
  assert.deepEqual(delivered, [0x40]);
  assert.equal(machine.register(0), ODD);
});

test('what lies above selectors and flags in a frame does not matter', () => {
  const above = 0xfedcba9876540000n;
  const { machine, put, delivered } = start();
  for (const [n, value] of [BigInt(PROGRAM + 0x20), above | BigInt(CODE3), above | 0x3002n, ODD, above | BigInt(DATA3)].entries())
    put(FRAME + n * 8, value);
  machine.setRegister(4, BigInt(FRAME));
  machine.ram.write(PROGRAM + 0x20, Uint8Array.from(end(true)));
  machine.execute(Uint8Array.from(IRETQ), PROGRAM);
  assert.deepEqual(delivered, []);
  assert.equal(machine.register(0), ODD);
});

test('a return to a 16-bit stack sets 16 bits of ESP', () => {
  const { machine, put, delivered } = start();
  for (const [n, value] of [PROGRAM + 0x20, CODE32, 0x3002, 0x12345678, SMALL3].entries()) put(FRAME + n * 8, BigInt(value));
  machine.setRegister(4, BigInt(FRAME));
  machine.ram.write(PROGRAM + 0x20, Uint8Array.from(end(false)));
  machine.execute(Uint8Array.from(IRETQ), PROGRAM);
  assert.deepEqual(delivered, []);
  assert.equal(machine.register(0) & 0xffffffffn, BigInt((FRAME & ~0xffff) | 0x5678));
});

test('far returns from a stack pointer that is no address are #SS', () => {
  for (const code of [IRETQ, [0x48, 0xcb]]) {
    const { machine, delivered } = start();
    machine.setRegister(4, ODD);
    machine.ram.write(HANDLER, Uint8Array.of(0xf4));
    machine.execute(Uint8Array.from(code), PROGRAM);
    assert.deepEqual(delivered, [12]);
    assert.equal(machine.cpu.selector(S.CS), CODE0);
  }
});
