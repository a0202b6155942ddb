import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AcpiPm, acpiPmState, PM_TIMER_HZ } from './acpi-pm.ts';
import { FakeClock, fresh, RecordedLine, snapshotSuite } from './testing.ts';

function make(timerBits: 24 | 32 = 24) {
  const clock = new FakeClock();
  const sci = new RecordedLine();
  const seen: string[] = [];
  const pm = new AcpiPm(fresh(acpiPmState), {
    clock,
    sci,
    timerBits,
    sleep: (type) => seen.push(`sleep ${type}`),
    smi: (command) => seen.push(`smi ${command}`),
    reset: (hard) => seen.push(hard ? 'reset' : 'init'),
  });
  pm.reset();
  return { clock, sci, pm, seen };
}

test('ACPI mode by the SMI command port, as the FADT tells Linux', () => {
  const { pm, seen } = make();
  assert.equal(pm.block.read(4, 2) & 1, 0);
  pm.apm.write(0, 1, 0xf1);
  assert.equal(pm.block.read(4, 2) & 1, 1);
  assert.equal(pm.acpiEnabled, true);
  pm.apm.write(0, 1, 0xf0);
  assert.equal(pm.block.read(4, 2) & 1, 0);
  pm.apm.write(1, 1, 0x55);
  pm.apm.write(0, 1, 0x07);
  assert.deepEqual([pm.apm.read(0, 1), pm.apm.read(1, 1)], [7, 0x55]);
  assert.deepEqual(seen, ['smi 7']);
});

test('power button: status, SCI while it is enabled and not cleared', () => {
  const { pm, sci } = make();
  pm.enableAcpi();
  pm.powerButton();
  assert.equal(sci.level, false);
  pm.block.write(2, 2, 0x0100);
  assert.equal(sci.level, true);
  assert.equal(pm.block.read(0, 2), 0x0100);
  pm.block.write(0, 2, 0x0200);
  assert.equal(sci.level, true);
  pm.block.write(0, 2, 0x0100);
  assert.equal(sci.level, false);
  pm.powerButton();
  pm.block.write(4, 2, 0);
  assert.equal(sci.level, false, 'not in ACPI mode');
});

test('byte accesses reach both halves', () => {
  const { pm, sci } = make();
  pm.enableAcpi();
  pm.powerButton();
  pm.block.write(3, 1, 0x01);
  assert.equal(sci.level, true);
  assert.equal(pm.block.read(1, 1), 1);
  pm.block.write(1, 1, 0x01);
  assert.equal(sci.level, false);
  assert.equal(pm.block.read(0, 4), 0x01000000);
});

test('sleep: SLP_TYP with SLP_EN, written together or after', () => {
  const { pm, seen } = make();
  pm.block.write(4, 2, 0x1401);
  assert.deepEqual(seen, []);
  pm.block.write(4, 2, 0x3401);
  assert.deepEqual(seen, ['sleep 5']);
  assert.equal(pm.block.read(4, 2), 0x1401, 'SLP_EN reads 0');
  pm.block.write(5, 1, 0x20);
  assert.deepEqual(seen, ['sleep 5', 'sleep 0']);
  pm.woken();
  assert.equal(pm.block.read(0, 2), 0x8100);
});

test('the timer: 3.58 MHz, 24 bits, wraps', () => {
  const { clock, pm } = make();
  clock.advance(1e9);
  assert.equal(pm.block.read(8, 4), PM_TIMER_HZ);
  clock.advance(4e9);
  assert.equal(pm.block.read(8, 4), (5 * PM_TIMER_HZ) % 2 ** 24);
  assert.equal(pm.block.read(8, 2), pm.block.read(8, 4) & 0xffff);
  const wide = make(32);
  wide.clock.advance(5e9);
  assert.equal(wide.pm.block.read(8, 4), 5 * PM_TIMER_HZ);
});

test('overflow: the status without an interrupt, and the interrupt', () => {
  const { clock, pm, sci } = make();
  clock.advance(2.4e9);
  assert.equal(pm.block.read(0, 2), 1);
  pm.block.write(0, 2, 1);
  assert.equal(pm.block.read(0, 2), 0);
  pm.enableAcpi();
  pm.block.write(2, 2, 1);
  clock.advance(2.2e9);
  assert.equal(sci.level, false);
  clock.advance(0.2e9);
  assert.equal(sci.level, true);
  pm.block.write(0, 2, 1);
  assert.equal(sci.level, false);
  clock.advance(2.4e9);
  assert.equal(sci.edges, 2);
});

test('general-purpose events, in both places', () => {
  const { pm, sci } = make();
  pm.enableAcpi();
  pm.raiseEvent(2);
  pm.gpe.write(2, 1, 4);
  assert.equal(sci.level, true);
  assert.equal(pm.block.read(0x0c, 4), 0x00040004);
  pm.gpe.write(0, 1, 4);
  assert.equal(sci.level, false);
});

test('reset port', () => {
  const { pm, seen } = make();
  pm.resetPort.write(0, 1, 0x02);
  pm.resetPort.write(0, 1, 0x06);
  pm.resetPort.write(0, 1, 0x04);
  assert.deepEqual(seen, ['reset', 'init']);
});

test('registers without effect are kept; nothing outside is touched', () => {
  const { pm } = make();
  pm.block.write(0x10, 4, 0xdeadbeef);
  pm.block.write(0x2c, 1, 0x80);
  assert.equal(pm.block.read(0x10, 4), 0xdeadbeef);
  assert.equal(pm.block.read(0x2c, 4), 0x80);
  assert.equal(pm.block.read(0x0f, 4), 0xffffffff);
  assert.equal(pm.block.read(0x3e, 4), 0xffffffff);
});

snapshotSuite(
  acpiPmState,
  (state, clock) => new AcpiPm(state, { clock, sci: new RecordedLine(), sleep() {} }),
  (pm, clock) => {
    pm.enableAcpi();
    clock.advance(2.4e9);
    pm.block.write(0, 4, 0x01010001);
    pm.powerButton();
    pm.raiseEvent(3);
    pm.apm.write(1, 1, 9);
    pm.block.write(0x20, 4, 7);
  },
  (pm) => [Array.from({ length: 16 }, (_, i) => pm.block.read(i * 4, 4)), pm.apm.read(1, 1), pm.gpe.read(0, 4)],
);
