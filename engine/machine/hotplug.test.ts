import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SharedState } from '../memory/shared-state.ts';
import { HotplugTable, type Plug } from './hotplug.ts';

const plug = (id: string): { plug: Plug } => ({
  plug: { device: { driver: 'virtio-rng-pci', id, properties: { addr: '5' } }, drive: undefined, driveIndex: 0, ioIndex: 0 },
});

test('each thread takes over what came and went, whenever it looks', () => {
  const buffer = new SharedArrayBuffer(1 << 20);
  const table = (owner: number): HotplugTable => new HotplugTable(new SharedState(buffer, 0, 1 << 20, owner));
  const control = table(1);
  const vcpu = table(2);
  assert.equal(control.free(), 0);
  control.write(0, plug('a'));
  control.own(0);
  assert.deepEqual(control.changes(), { left: [], gone: [], come: [] });
  assert.deepEqual(
    vcpu.changes().come.map(({ place, plug: { device } }) => [place, device.id]),
    [[0, 'a']],
  );
  assert.deepEqual(vcpu.changes(), { left: [], gone: [], come: [] });
  // One goes and another comes to its place before this thread looks again.
  control.write(0, undefined);
  assert.equal(control.free(), 0);
  control.write(0, plug('b'));
  control.write(1, { gone: 'rng0' });
  assert.equal(control.free(), 2);
  const { left, gone, come } = vcpu.changes();
  assert.deepEqual([left, gone, come.map(({ plug: { device } }) => device.id)], [[0], ['rng0'], ['b']]);
  // A thread that begins now has never seen the first.
  const late = table(3).changes();
  assert.deepEqual([late.left, late.gone, late.come.length], [[], ['rng0'], 1]);
  assert.equal(control.fits({ gone: 'x'.repeat(9000) }), false);
});
