import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BareMachine } from '../../accel/jit/testing.ts';
import * as S from '../../memory/vcpu-state.ts';
import { CR4 } from './cpu.ts';
import { injectMachineCheck, readMachineCheck } from './machine-check.ts';

const error = (upper: number) => ({
  bank: 9,
  status: [0x134, upper] as const,
  mcgStatus: [1, 0] as const,
  address: [0x1000, 0] as const,
  misc: [0x8c, 0] as const,
});
const STATUS = 0x400 + 9 * 4 + 1;

function machine(): BareMachine {
  const made = new BareMachine('baseline');
  made.long();
  made.cpu.set32(S.CR4, made.cpu.cr4 | CR4.MCE);
  return made;
}

test('an uncorrected error is #MC at the next boundary, with the bank filled', () => {
  const { cpu, system, vcpu } = machine();
  const seen: number[] = [];
  assert.equal(injectMachineCheck(cpu.i32, error(0x20000000)), 'done');
  system.interrupts.exception = (vector) => {
    seen.push(vector);
    vcpu.leave();
  };
  cpu.setNumber(S.NEXT_RIP, 0x100000);
  vcpu.run();
  assert.deepEqual(seen, [18]);
  assert.deepEqual(readMachineCheck(cpu, STATUS), { low: 0x134, high: 0xa0000000 | 0 });
  assert.deepEqual(readMachineCheck(cpu, STATUS + 1), { low: 0x1000, high: 0 });
  // The guest has not cleared MCG_STATUS.MCIP: another ends it.
  assert.equal(injectMachineCheck(cpu.i32, error(0x20000000)), 'shutdown');
});

test('a corrected error fills its bank alone; a second only leaves its mark', () => {
  const { cpu } = machine();
  assert.equal(injectMachineCheck(cpu.i32, error(0)), 'done');
  assert.equal(injectMachineCheck(cpu.i32, { ...error(0), status: [0x999, 0] }), 'done');
  assert.deepEqual(readMachineCheck(cpu, STATUS), { low: 0x134, high: 0xc0000000 | 0 });
  assert.equal(cpu.i32[S.PENDING >> 2] & S.Pending.MACHINE_CHECK, 0);
});

test('without CR4.MCE an uncorrected error ends the machine', () => {
  const { cpu } = machine();
  cpu.set32(S.CR4, cpu.cr4 & ~CR4.MCE);
  assert.equal(injectMachineCheck(cpu.i32, error(0x20000000)), 'shutdown');
});
