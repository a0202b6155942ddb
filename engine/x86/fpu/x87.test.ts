import assert from 'node:assert/strict';
import { test } from 'node:test';
import { struct, u32 } from '../../memory/struct.ts';
import { BUSY, C1, ES, fpuFields, fpuStruct, IE, initialize, PE, powerUp, SF, UE, ZE } from './fpu-state.ts';
import { restoreX87, saveX87 } from './fxsave.ts';
import { Outcome, X87 } from './x87.ts';
import { isControl, isWaiting, loadLength, storeLength } from './x87-forms.ts';

function make(): { state: ReturnType<typeof fpuStruct.at>; x87: X87; data: DataView } {
  const state = fpuStruct.at(new SharedArrayBuffer(fpuStruct.size), 0);
  initialize(state);
  const x87 = new X87(state);
  return { state, x87, data: new DataView(x87.scratch.buffer) };
}

type Unit = ReturnType<typeof make>;

function load({ x87, data }: Unit, value: number): void {
  data.setFloat64(0, value, true);
  x87.memory(0xdd, 0x00);
}

/** FSTP m64. */
function pop({ x87, data }: Unit): number {
  assert.equal(x87.memory(0xdd, 0x18), Outcome.DONE);
  assert.equal(x87.stored, 8);
  return data.getFloat64(0, true);
}

test('arithmetic in all operand orders', () => {
  const unit = make();
  const cases: [opcode: number, modrm: number, result: number][] = [
    [0xd8, 0xc1, 12 + 5],
    [0xd8, 0xc9, 12 * 5],
    [0xd8, 0xe1, 12 - 5],
    [0xd8, 0xe9, 5 - 12],
    [0xd8, 0xf1, 12 / 5],
    [0xd8, 0xf9, 5 / 12],
    [0xde, 0xe1, 12 - 5],
    [0xde, 0xe9, 5 - 12],
    [0xde, 0xf1, 12 / 5],
    [0xde, 0xf9, 5 / 12],
  ];
  for (const [opcode, modrm, result] of cases) {
    unit.x87.register(0xdb, 0xe3);
    load(unit, 5);
    load(unit, 12);
    assert.equal(unit.x87.register(opcode, modrm), Outcome.DONE);
    assert.equal(pop(unit), result, `${opcode.toString(16)} ${modrm.toString(16)}`);
    assert.equal(unit.state.valid === 0, opcode === 0xde);
  }
});

test('doubles agree with the host at 53 bits', () => {
  const unit = make();
  const { state, x87 } = unit;
  state.control = 0x027f;
  let seed = 7;
  const random = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed / 4294967296 - 0.5) * 2 ** ((seed >>> 8) % 40);
  };
  for (let n = 0; n < 2000; n++) {
    const [a, b] = [random(), random()];
    for (const [modrm, result] of [
      [0xc1, a + b],
      [0xc9, a * b],
      [0xe1, a - b],
      [0xf1, a / b],
    ]) {
      load(unit, b);
      load(unit, a);
      x87.register(0xd8, modrm);
      assert.equal(pop(unit), result);
      x87.register(0xdd, 0xd8);
    }
    load(unit, Math.abs(a));
    x87.register(0xd9, 0xfa);
    assert.equal(pop(unit), Math.sqrt(Math.abs(a)));
  }
});

test('an unmasked exception is reported by the next waiting instruction', () => {
  const unit = make();
  const { state, x87 } = unit;
  state.control = 0x037b;
  load(unit, 1);
  x87.register(0xd9, 0xee);
  assert.equal(x87.register(0xde, 0xf9), Outcome.DONE);
  assert.equal(state.status & (ZE | ES | BUSY), ZE | ES | BUSY);
  assert.equal(state.valid, 0xc0, 'operands stay');
  assert.equal(x87.register(0xd9, 0xd0), Outcome.PENDING);
  assert.equal(x87.memory(0xdd, 0x00), Outcome.PENDING);
  assert.equal(x87.register(0xdf, 0xe0), Outcome.AX);
  assert.equal(x87.ax & ZE, ZE);
  assert.equal(x87.register(0xdb, 0xe2), Outcome.DONE);
  assert.equal(x87.register(0xd9, 0xd0), Outcome.DONE);
});

test('masking or unmasking by FLDCW changes what is pending', () => {
  const { state, x87, data } = make();
  x87.register(0xd9, 0xe0);
  assert.equal(state.status & (IE | SF | ES), IE | SF);
  data.setUint16(0, 0x037e, true);
  x87.memory(0xd9, 0x28);
  assert.equal(state.status & ES, ES);
  assert.equal(x87.register(0xd9, 0xd0), Outcome.PENDING);
});

test('a store that faults can be taken back', () => {
  const unit = make();
  const { state, x87 } = unit;
  load(unit, 1 / 3);
  const before = { valid: state.valid, status: state.status, control: state.control };
  x87.memory(0xd9, 0x18);
  assert.notEqual(state.status, before.status);
  x87.undo();
  assert.deepEqual({ valid: state.valid, status: state.status, control: state.control }, before);
  assert.equal(pop(unit), 1 / 3);
  load(unit, 2);
  state.ipLow = 0x1234;
  x87.memory(0xdd, 0x30);
  assert.equal(state.valid, 0);
  x87.undo();
  assert.equal(state.ipLow, 0x1234);
  assert.equal(pop(unit), 2);
});

test('unmasked underflow keeps a store back', () => {
  const unit = make();
  const { state, x87 } = unit;
  state.control = 0x036f;
  load(unit, 1e-300);
  x87.memory(0xd9, 0x18);
  assert.equal(x87.stored, 0);
  assert.equal(state.status & (UE | PE | ES), UE | ES);
  assert.notEqual(state.valid, 0);
});

test('stack overflow sets C1, underflow clears it', () => {
  const unit = make();
  const { state, x87 } = unit;
  for (let n = 0; n < 9; n++) x87.register(0xd9, 0xe8);
  assert.equal(state.status & (IE | SF | C1), IE | SF | C1);
  x87.register(0xdb, 0xe3);
  x87.register(0xd9, 0xe0);
  assert.equal(state.status & (IE | SF | C1), IE | SF);
});

test('FCMOV takes and FCOMI gives RFLAGS', () => {
  const unit = make();
  const { x87 } = unit;
  load(unit, 3);
  load(unit, 4);
  assert.equal(x87.register(0xdb, 0xf1), Outcome.FLAGS);
  assert.equal(x87.eflags, 0);
  load(unit, Number.NaN);
  assert.equal(x87.register(0xdb, 0xe9), Outcome.FLAGS);
  assert.equal(x87.eflags, 0x45);
  x87.register(0xda, 0xc1, 0);
  assert.ok(Number.isNaN(pop(unit)));
  x87.register(0xda, 0xc1, 1);
  assert.equal(pop(unit), 3);
});

test('the environment in its four formats', () => {
  const { state, x87, data } = make();
  const pointers = { ipLow: 0x12345, ipSelector: 0x1000, dpLow: 0x6789a, dpSelector: 0x2000, opcode: 0x5c1 };
  for (const wide of [false, true])
    for (const real of [false, true]) {
      initialize(state);
      Object.assign(state, pointers);
      x87.scratch.fill(0);
      x87.memory(0xd9, 0x30, wide, real);
      assert.equal(x87.stored, wide ? 28 : 14);
      assert.equal(data.getUint16(0, true), 0x037f);
      const step = wide ? 4 : 2;
      assert.equal(data.getUint16(2 * step, true), 0xffff);
      if (real) {
        // Linear addresses 0x22345 and 0x8789a.
        assert.equal(data.getUint16(3 * step, true), 0x2345);
        assert.equal(data.getUint16(4 * step, true), 0x2000 | 0x5c1);
        assert.equal(data.getUint16(5 * step, true), 0x789a);
        assert.equal(data.getUint16(6 * step, true), 0x8000);
      } else {
        assert.equal(data.getUint16(3 * step, true), 0x2345);
        assert.equal(data.getUint16(4 * step, true), 0x1000);
        assert.equal(data.getUint16(6 * step, true), 0x2000);
        if (wide) assert.equal(data.getUint32(20, true), 0x6789a);
      }
      const image = x87.scratch.slice();
      x87.memory(0xd9, 0x20, wide, real);
      x87.memory(0xd9, 0x30, wide, real);
      assert.deepEqual(x87.scratch, image, `wide ${wide}, real ${real}`);
    }
});

test('last instruction and data pointers', () => {
  const { state, x87 } = make();
  const ip = { low: 0x1000, high: 0x7fff, selector: 0x33 };
  const dp = { low: 0x2000, high: 1, selector: 0x2b };
  x87.recordPointers(0xdd, 0x06, ip, dp);
  assert.deepEqual(
    [state.opcode, state.ipLow, state.ipHigh, state.dpLow, state.dpSelector],
    [0x506, 0x1000, 0x7fff, 0x2000, 0x2b],
  );
  x87.recordPointers(0xd9, 0x2e, { low: 1, high: 1, selector: 1 }, dp);
  assert.equal(state.ipLow, 0x1000, 'FLDCW is a control instruction');
  const image = new DataView(new ArrayBuffer(512));
  saveX87(state, image, true);
  initialize(state);
  restoreX87(state, image, true);
  assert.deepEqual([state.ipHigh, state.dpHigh, state.opcode], [0x7fff, 1, 0x506]);
});

test('power-up differs from FNINIT', () => {
  const { state } = make();
  powerUp(state);
  assert.deepEqual([state.control, state.valid], [0x40, 0xff]);
});

test('the fields serve inside another struct', () => {
  const block = struct('block', 1, { before: u32, other: u32, ...fpuFields });
  const state = block.at(new SharedArrayBuffer(block.size), 0);
  initialize(state);
  const x87 = new X87(state);
  x87.register(0xd9, 0xe8);
  assert.equal(state.valid, 0x80);
  assert.equal(state.status, 0x3800);
});

test('every encoding with any state ends, and transfers only what the tables say', () => {
  const { state, x87 } = make();
  let seed = 1;
  const byte = (): number => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed >>> 24;
  };
  for (let round = 0; round < 6; round++)
    for (let opcode = 0xd8; opcode <= 0xdf; opcode++)
      for (let modrm = 0; modrm < 256; modrm++) {
        for (let i = 0; i < 128; i++) state.registers[i] = byte();
        if (round & 1) for (let i = 9; i < 128; i += 16) state.registers[i] = 0x3f;
        for (let i = 0; i < 108; i++) x87.scratch[i] = byte();
        state.control = (byte() << 8) | byte();
        state.status = (byte() << 8) & 0xff00 & ~BUSY;
        state.valid = byte();
        const before = x87.scratch.slice();
        const outcome = modrm >= 0xc0 ? x87.register(opcode, modrm, byte()) : x87.memory(opcode, modrm, true);
        assert.ok(outcome >= 0 && outcome <= 4);
        if (modrm >= 0xc0) continue;
        const write = storeLength(opcode, modrm, true);
        assert.ok(x87.stored === 0 || x87.stored === write);
        assert.deepEqual(x87.scratch.subarray(write), before.subarray(write));
        const known = write + loadLength(opcode, modrm, true) > 0;
        assert.equal(outcome === Outcome.UNDEFINED, !known);
      }
});

test('waiting and control instructions', () => {
  assert.equal(isWaiting(0xdb, 0xe3), false);
  assert.equal(isWaiting(0xdb, 0xe8), true);
  assert.equal(isWaiting(0xd9, 0x38), false);
  assert.equal(isWaiting(0xd9, 0x28), true);
  assert.equal(isWaiting(0xdf, 0xe0), false);
  assert.equal(isControl(0xd9, 0x28), true);
  assert.equal(isControl(0xd9, 0x00), false);
  assert.equal(isControl(0xdd, 0x30), true);
});
