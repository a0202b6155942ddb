/** What system transfers push stays within the limits of its stack segment: #SS, with the selector of an inner stack. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../accel/jit/testing.ts';
import * as S from '../../memory/vcpu-state.ts';

const GDT = 0x4000;
const IDT = 0x5000;
const TSS = 0x6000;
/** Selectors: code and data of ring 0, of ring 3, the TSS, a stack of ring 0 that expands down to 0x8000. */
const CODE0 = 0x08;
const DATA0 = 0x10;
const CODE3 = 0x1b;
const DATA3 = 0x23;
const TASK = 0x28;
const SMALL = 0x30;
const GATE = 0x38;
const INSIDE = 0x9000;

/** A machine with these tables; tells of every delivery: vector and error code. Inner stacks begin at `stack`. */
function machine(stack: { selector: number; pointer: number }): { machine: BareMachine; delivered: string[] } {
  const made = new BareMachine('baseline');
  const { ram, system, cpu } = made;
  made.flat32(0);
  const descriptor = (selector: number, base: number, limit: number, attr: number): void => {
    ram.write32(GDT + (selector & ~7), ((base & 0xffff) << 16) | (limit & 0xffff));
    ram.write32(GDT + (selector & ~7) + 4, (base & 0xff000000) | ((base >>> 16) & 0xff) | (attr << 8) | (limit & 0xf0000));
  };
  descriptor(CODE0, 0, 0xfffff, 0xc09b);
  descriptor(DATA0, 0, 0xfffff, 0xc093);
  descriptor(CODE3, 0, 0xfffff, 0xc0fb);
  descriptor(DATA3, 0, 0xfffff, 0xc0f3);
  descriptor(TASK, TSS, 0x67, 0x008b);
  descriptor(SMALL, 0, 0x7fff, 0x4097);
  // A call gate of 32 bits to ring 0.
  ram.write32(GDT + GATE, (CODE0 << 16) | 0x3000);
  ram.write32(GDT + GATE + 4, 0xec00);
  system.segments.set(S.GDTR, 0, GDT, 0x3f, 0);
  system.segments.set(S.IDTR, 0, IDT, 0x7ff, 0);
  system.segments.set(S.TR, TASK, TSS, 0x67, 0x8b);
  ram.write32(TSS + 4, stack.pointer);
  ram.write32(TSS + 8, stack.selector);
  // All vectors lead to a HLT, in ring 0.
  for (let vector = 0; vector < 256; vector++) {
    ram.write32(IDT + vector * 8, (CODE0 << 16) | 0x3000);
    ram.write32(IDT + vector * 8 + 4, 0xee00);
  }
  ram.write(0x3000, Uint8Array.of(0xf4));
  const delivered: string[] = [];
  system.interrupts.delivered = (_source, vector, code) => void delivered.push(`${vector}:${code.toString(16)}`);
  cpu.setNumber(S.GPR + 32, INSIDE);
  return { machine: made, delivered };
}

/** In ring 0 on the small stack, with `pointer`. */
function inner(pointer: number): ReturnType<typeof machine> {
  const made = machine({ selector: DATA0, pointer: INSIDE });
  made.machine.system.segments.set(S.SS, SMALL, 0, 0x7fff, 0x4097);
  made.machine.system.segments.updateMode();
  made.machine.cpu.setNumber(S.GPR + 32, pointer);
  return made;
}

/** In ring 3 on a flat stack. */
function outer(stack: { selector: number; pointer: number }): ReturnType<typeof machine> {
  const made = machine(stack);
  const { system, cpu } = made.machine;
  cpu.set32(S.CPL, 3);
  system.segments.set(S.CS, CODE3, 0, 0xffffffff, 0xc0fb);
  for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS]) system.segments.set(index, DATA3, 0, 0xffffffff, 0xc0f3);
  system.paging.flush();
  system.segments.updateMode();
  return made;
}

const INT40 = Uint8Array.of(0xcd, 0x40);
const FAR_CALL = Uint8Array.of(0x9a, 0, 0, 0, 0, GATE, 0);

test('an interrupt fits onto the stack, or is #SS, and then a double fault', () => {
  const fits = inner(0x800c);
  fits.machine.execute(INT40);
  assert.deepEqual(fits.delivered, ['64:0']);
  assert.equal(fits.machine.register(4), 0x8000n);

  const full = inner(0x800a);
  full.machine.execute(INT40);
  assert.deepEqual(full.delivered, ['64:0', '12:0', '8:0']);
  assert.ok(full.machine.tripleFaulted);
  assert.equal(full.machine.register(4), 0x800an);
});

test('an inner stack without room is #SS with its selector', () => {
  const fits = outer({ selector: SMALL, pointer: 0x8014 });
  fits.machine.execute(INT40);
  assert.deepEqual(fits.delivered, ['64:0']);
  assert.equal(fits.machine.register(4), 0x8000n);

  const full = outer({ selector: SMALL, pointer: 0x8010 });
  full.machine.execute(INT40);
  assert.deepEqual(full.delivered, ['64:0', `12:${SMALL.toString(16)}`, '8:0']);
  assert.ok(full.machine.tripleFaulted);
});

test('a call gate into a stack without room is #SS with its selector', () => {
  const fits = outer({ selector: SMALL, pointer: 0x8010 });
  fits.machine.execute(FAR_CALL);
  assert.deepEqual(fits.delivered, []);
  assert.equal(fits.machine.register(4), 0x8000n);

  const full = outer({ selector: SMALL, pointer: 0x800c });
  full.machine.execute(FAR_CALL);
  assert.equal(full.delivered[0], `12:${SMALL.toString(16)}`);
});

test('what instructions push and pop by helpers stays above the limit of a stack that expands down', () => {
  for (const [name, code, pointer] of [
    ['PUSHA', [0x60], 0x801c],
    ['far CALL', [0x9a, 0, 0x30, 0, 0, CODE0, 0], 0x8004],
    ['far RET', [0xcb], 0x7ffc],
    ['IRET', [0xcf], 0x7ffc],
    ['ENTER', [0xc8, 0x10, 0, 0], 0x8010],
  ] as const) {
    const { machine: made, delivered } = inner(pointer);
    made.execute(Uint8Array.from(code));
    assert.equal(delivered[0], '12:0', name);
  }
});
