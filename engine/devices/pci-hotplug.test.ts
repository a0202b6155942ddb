import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedState } from '../memory/shared-state.ts';
import { PciHotplug, pciHotplugState } from './pci-hotplug.ts';

function make(removable = 0) {
  const said: string[] = [];
  const shared = new SharedState(new SharedArrayBuffer(1 << 18), 0, 1 << 18, 1);
  const chip = new PciHotplug(shared.struct(pciHotplugState), {
    removable: () => removable,
    ejected: () => said.push('ejected'),
    raise: () => said.push('event'),
  });
  return { chip, said };
}

test('news of slots is read once; a request stays until the slot is empty', () => {
  const { chip, said } = make();
  chip.plugged(3);
  chip.plugged(31);
  assert.deepEqual(said, ['event', 'event']);
  assert.equal(chip.read(0, 4), 0x80000008);
  assert.equal(chip.read(0, 4), 0);
  chip.request(31);
  assert.equal(chip.read(4, 4), 0x80000000);
  assert.equal(chip.read(4, 4), 0x80000000);
  assert.equal(chip.leaving(31), true);
  chip.gone(31);
  assert.equal(chip.read(4, 4), 0);
  assert.equal(chip.leaving(31), false);
});

test('a guest ejects what can go, and nothing else', () => {
  const { chip, said } = make(0x80000010);
  assert.equal(chip.read(12, 4), 0x80000010);
  chip.write(8, 4, 0x20);
  assert.deepEqual([chip.takeEjected(), said.length], [0, 0]);
  chip.write(8, 4, 0x80000030);
  assert.deepEqual(said, ['ejected']);
  assert.equal(chip.takeEjected(), 0x80000010);
  assert.equal(chip.takeEjected(), 0);
  chip.write(0, 4, 0xffffffff);
  assert.equal(chip.read(0, 4), 0);
  assert.deepEqual([chip.read(0, 1), chip.read(2, 4), chip.read(16, 4)], [0xff, 0xffffffff, 0]);
});
