/** Pools, volumes, snapshots, saved machines and imports, with the real image tool and a double of the machine. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Services } from '../../main/services.ts';
import { parseOvf } from '../../main/storage/ovf.ts';
import { parseXml } from '../../main/storage/xml.ts';
import { appError, eventOf, openServices, plan, temporaryFolder } from './fixtures.ts';

const program = fileURLToPath(new URL('../../engine/cli/main.ts', import.meta.url));
const img = (...args: string[]): string => execFileSync(process.execPath, [program, 'img', ...args], { encoding: 'utf8' });

/** Waits for a task's end; its error, or null. */
async function ended(services: Services, { id }: { id: string }): Promise<string | null> {
  const now = services.tasks.list().find((task) => task.id === id);
  const task =
    now !== undefined && now.state !== 'running'
      ? now
      : await eventOf(services, 'task.changed', (each) => each.id === id && each.state !== 'running');
  return task.error?.message ?? null;
}

async function withDisk(context: TestContext) {
  const folder = temporaryFolder(context);
  const opened = await openServices(context, folder);
  const { ask } = opened;
  const vm = await ask('wizard.create', {
    plan: { ...plan(folder, 'Disky'), storage: { kind: 'create', sizeGiB: 0.0625 } },
    start: false,
  });
  const details = await ask('vm.get', { id: vm.id });
  return { ...opened, folder, id: vm.id, disk: join(details.folder, 'disk0.qcow2'), details };
}

test('pools and volumes: made, grown, compacted, cloned, deleted; what depends on one is shown and kept', async (context) => {
  const { ask, services, folder, id, disk } = await withDisk(context);
  const [own, machines] = await ask('storage.pools', {});
  assert.ok(own.fixed && (own.freeBytes ?? 0) > 0);
  const made = await ask('storage.create', { pool: own.id, name: 'base', format: 'qcow2', size: 64 << 20 });
  assert.equal(made.virtualSize, 64 << 20);
  await assert.rejects(
    ask('storage.create', { pool: own.id, name: 'base', format: 'qcow2', size: 64 << 20 }),
    appError('name-taken', 'name'),
  );
  await assert.rejects(
    ask('storage.create', { pool: own.id, name: '../x', format: 'raw', size: 64 << 20 }),
    appError('invalid', 'name'),
  );
  img('create', '-q', '-f', 'qcow2', '-b', made.path, '-F', 'qcow2', join(own.path, 'overlay.qcow2'));
  const [base, overlay] = await ask('storage.volumes', { pool: own.id });
  assert.deepEqual(base.dependents, [overlay.path]);
  assert.equal(overlay.backing, base.path);
  await assert.rejects(ask('storage.delete', { path: base.path, force: true }), /would be lost/);
  await assert.rejects(ask('storage.grow', { path: base.path, size: 128 << 20 }), /would not grow/);
  assert.equal((await ask('storage.grow', { path: overlay.path, size: 128 << 20 })).virtualSize, 128 << 20);
  await assert.rejects(ask('storage.grow', { path: overlay.path, size: 64 << 20 }), appError('invalid', 'size'));
  assert.equal(await ended(services, await ask('storage.clone', { path: overlay.path, name: 'flat' })), null);
  assert.equal((await ask('storage.inspect', { path: join(own.path, 'flat.qcow2') })).backing, null);
  assert.equal(await ended(services, await ask('storage.compact', { path: join(own.path, 'flat.qcow2') })), null);
  await ask('storage.delete', { path: overlay.path });
  await ask('storage.delete', { path: base.path });
  assert.deepEqual(
    (await ask('storage.volumes', { pool: own.id })).map(({ name }) => name),
    ['flat.qcow2'],
  );

  const more = join(folder, 'more');
  mkdirSync(more);
  writeFileSync(join(more, 'bad.qcow2'), Buffer.from('QFI\xfb and nonsense', 'latin1'));
  const pool = await ask('storage.addPool', { path: more });
  const [bad] = await ask('storage.volumes', { pool: pool.id });
  assert.match(bad.problem ?? '', /./);
  await ask('storage.removePool', { id: pool.id });
  assert.ok(existsSync(join(more, 'bad.qcow2')));
  await assert.rejects(ask('storage.removePool', { id: own.id }), appError('invalid'));

  assert.deepEqual(
    (await ask('storage.volumes', { pool: machines.id })).map(({ name }) => name),
    ['disk0.qcow2'],
  );
  // A VM's own disk says whose it is, and is kept while the VM runs.
  assert.deepEqual(
    (await ask('storage.inspect', { path: disk })).usedBy.map(({ name, running }) => [name, running]),
    [['Disky', false]],
  );
  await ask('vm.start', { id });
  await assert.rejects(ask('storage.delete', { path: disk, force: true }), /"Disky" runs with it/);
  await assert.rejects(ask('storage.compact', { path: disk }), /runs with it/);
});

test('snapshots: a tree with sizes and pictures, off and running; deleted in the middle', async (context) => {
  const { ask, services, id, disk } = await withDisk(context);
  assert.equal(await ended(services, await ask('snapshot.create', { id, name: 'first', description: 'clean' })), null);
  assert.match((await ended(services, await ask('snapshot.create', { id, name: 'first' }))) ?? '', /already/);
  await ask('vm.start', { id });
  assert.equal(await ended(services, await ask('snapshot.create', { id, name: 'second' })), null);
  assert.equal(await ended(services, await ask('snapshot.create', { id, name: 'third' })), null);
  let tree = await ask('snapshot.tree', { id });
  assert.deepEqual(
    tree.snapshots.map(({ name, parent }) => [name, parent]),
    [
      ['first', null],
      ['second', 'first'],
      ['third', 'second'],
    ],
  );
  assert.equal(tree.current, 'third');
  assert.match(tree.snapshots[1].picture ?? '', /^data:image\/png/);
  assert.equal(tree.snapshots[0].description, 'clean');
  // One without the machine's state cannot be gone back to while the machine runs.
  assert.match((await ended(services, await ask('snapshot.revert', { id, name: 'first' }))) ?? '', /shut the VM down/);
  await ask('vm.forceOff', { id });
  assert.equal(await ended(services, await ask('snapshot.delete', { id, name: 'second' })), null);
  tree = await ask('snapshot.tree', { id });
  assert.deepEqual(
    tree.snapshots.map(({ name, parent }) => [name, parent]),
    [
      ['first', null],
      ['third', 'first'],
    ],
  );
  assert.ok((tree.snapshots[0].exclusiveBytes ?? -1) >= 0);
  assert.equal(await ended(services, await ask('snapshot.revert', { id, name: 'first' })), null);
  assert.equal((await ask('snapshot.tree', { id })).current, 'first');
  assert.match(img('snapshot', '-l', disk), /third/);
});

test('a machine is saved, and its next start goes on from there; disks stay as they are meanwhile', async (context) => {
  const { ask, services, id, disk, details } = await withDisk(context);
  await ask('vm.start', { id });
  assert.equal(await ended(services, await ask('vm.save', { id })), null);
  let vm = (await ask('vm.list', {})).vms.find((each) => each.id === id);
  assert.deepEqual([vm?.saved, vm?.state], [true, 'shutoff']);
  await assert.rejects(ask('storage.compact', { path: disk }), /was saved with it/);
  assert.match((await ended(services, await ask('snapshot.create', { id, name: 'no' }))) ?? '', /was saved/);
  await ask('vm.start', { id });
  assert.match((await ask('vm.log', { id })).join('\n'), /goes on from .*saved\.state/);
  vm = (await ask('vm.list', {})).vms.find((each) => each.id === id);
  assert.equal(vm?.saved, false);
  assert.ok(!existsSync(join(details.folder, 'saved.state')));

  // Its disk is full: it stands, with the reason, and goes on.
  await ask('vm.monitor', { id, line: 'disk full' });
  vm = (await ask('vm.list', {})).vms.find((each) => each.id === id);
  assert.equal(vm?.state, 'paused');
  assert.match(vm?.stopReason ?? '', /no room left.*No space left/);
  assert.equal((await ask('vm.resume', { id })).stopReason, null);
});

test('disks and media of a VM: added, changed while it runs, refused in words', async (context) => {
  const { ask, folder, id } = await withDisk(context);
  const more = await ask('vm.addDisk', { id, size: 8 << 20, format: 'qcow2', bus: 'virtio' });
  assert.deepEqual(
    more.definition.drives.map(({ id: name }) => name),
    ['disk0', 'disk1'],
  );
  const cd = {
    id: 'cd0',
    media: 'cdrom',
    file: '',
    format: 'raw',
    bus: 'ide',
    readOnly: true,
    cache: 'writeback',
    discard: 'unmap',
  } as const;
  await ask('vm.update', { id, changes: { drives: [...more.definition.drives, cd] } });
  await ask('vm.start', { id });
  for (const name of ['a.iso', 'locked.iso']) writeFileSync(join(folder, name), 'x'.repeat(4096));
  const changed = await ask('vm.changeMedium', { id, drive: 'cd0', file: join(folder, 'a.iso') });
  assert.equal(changed.definition.drives[2].file, join(folder, 'a.iso'));
  assert.equal(changed.changedSinceStart, false);
  await assert.rejects(ask('vm.changeMedium', { id, drive: 'cd0', file: join(folder, 'locked.iso') }), /tray is locked/);
  await assert.rejects(
    ask('vm.changeMedium', { id, drive: 'cd0', file: join(folder, 'none.iso') }),
    appError('file-missing', 'file'),
  );
  await assert.rejects(ask('vm.changeMedium', { id, drive: 'disk0', file: null }), appError('invalid', 'drive'));
  assert.equal((await ask('vm.changeMedium', { id, drive: 'cd0', file: null })).definition.drives[2].file, '');
  // A running machine takes disks on virtio, and lets them go.
  await assert.rejects(ask('vm.addDisk', { id, size: 8 << 20, format: 'raw', bus: 'ide' }), appError('wrong-state', 'bus'));
  const names = async (): Promise<string[]> => (await ask('vm.get', { id })).definition.drives.map((drive) => drive.id);
  assert.deepEqual(await names(), ['disk0', 'disk1', 'cd0']);
  const plugged = await ask('vm.addDisk', { id, size: 8 << 20, format: 'raw', bus: 'virtio' });
  assert.deepEqual([plugged.definition.drives.at(-1)?.id, plugged.changedSinceStart], ['disk2', false]);
  writeFileSync(join(folder, 'locked.img'), new Uint8Array(4096));
  const busy = { id, file: join(folder, 'locked.img'), format: 'raw', bus: 'virtio' } as const;
  await assert.rejects(ask('vm.addDisk', busy), /Failed to get "write" lock/);
  const none = { id, file: join(folder, 'none.img'), format: 'raw', bus: 'virtio' } as const;
  await assert.rejects(ask('vm.addDisk', none), appError('file-missing', 'file'));
  assert.deepEqual(await names(), ['disk0', 'disk1', 'cd0', 'disk2']);
  await assert.rejects(ask('vm.removeDisk', { id, drive: 'disk0' }), /does not support hotplugging/);
  assert.equal((await ask('vm.removeDisk', { id, drive: 'disk2' })).changedSinceStart, false);
  assert.deepEqual(await names(), ['disk0', 'disk1', 'cd0']);
  await assert.rejects(ask('vm.removeDisk', { id, drive: 'cd0' }), appError('invalid', 'drive'));
});

const descriptor = (disk: string): string => `<?xml version="1.0"?>
<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="x" xmlns:vssd="y">
  <!-- made by hand --><ovf:References><ovf:File ovf:href="${disk}" ovf:id="f1"/></ovf:References>
  <ovf:DiskSection><ovf:Info>d</ovf:Info><ovf:Disk ovf:diskId="d1" ovf:capacity="32" ovf:capacityAllocationUnits="byte * 2^20" ovf:fileRef="f1"/></ovf:DiskSection>
  <ovf:VirtualSystem ovf:id="Appliance"><ovf:Name>Appliance &amp; Co</ovf:Name>
    <ovf:OperatingSystemSection ovf:id="96"><ovf:Description>Debian 12</ovf:Description></ovf:OperatingSystemSection>
    <ovf:VirtualHardwareSection>
      <ovf:Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></ovf:Item>
      <ovf:Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>256</rasd:VirtualQuantity></ovf:Item>
      <ovf:Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>20</rasd:ResourceType></ovf:Item>
      <ovf:Item><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></ovf:Item>
      <ovf:Item><rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceType>10</rasd:ResourceType></ovf:Item>
    </ovf:VirtualHardwareSection>
  </ovf:VirtualSystem>
</ovf:Envelope>`;

test('an OVA is previewed and imported; hostile ones are refused', async (context) => {
  const folder = temporaryFolder(context);
  const { ask, services } = await openServices(context, folder);
  const raw = join(folder, 'disk.raw');
  const bytes = Buffer.alloc(32 << 20);
  bytes.write('on the disk', 5 << 20);
  writeFileSync(raw, bytes);
  execFileSync('qemu-img', [
    'convert',
    '-f',
    'raw',
    '-O',
    'vmdk',
    '-o',
    'subformat=streamOptimized',
    raw,
    join(folder, 'disk.vmdk'),
  ]);
  writeFileSync(join(folder, 'a.ovf'), descriptor('disk.vmdk'));
  execFileSync('tar', ['-cf', join(folder, 'a.ova'), '-C', folder, 'a.ovf', 'disk.vmdk']);
  for (const name of ['a.ova', 'a.ovf']) {
    const path = join(folder, name);
    const preview = await ask('import.preview', { path });
    assert.deepEqual(
      [preview.name.slice(0, 14), preview.memoryMiB, preview.cpus, preview.nics, preview.osText],
      ['Appliance & Co', 256, 2, 1, 'Debian 12'],
    );
    assert.equal(preview.disks[0].virtualSize, 32 << 20);
    assert.match(preview.notes.join(' '), /was on sata|network/);
    assert.equal(await ended(services, await ask('import.run', { path, name: preview.name, memoryMiB: 128, cpus: 1 })), null);
  }
  const { vms } = await ask('vm.list', {});
  const details = await ask('vm.get', { id: vms.find(({ name }) => name === 'Appliance & Co')?.id ?? '' });
  img('convert', '-O', 'raw', join(details.folder, 'disk0.qcow2'), join(folder, 'back.raw'));
  assert.ok(readFileSync(join(folder, 'back.raw')).equals(bytes));
  assert.equal(details.definition.boot.kind, 'firmware');
  // A single disk of another manager.
  assert.equal((await ask('import.preview', { path: join(folder, 'disk.vmdk') })).disks[0].format, 'vmdk');

  writeFileSync(join(folder, 'out.ovf'), descriptor('../../etc/passwd'));
  await assert.rejects(ask('import.preview', { path: join(folder, 'out.ovf') }), appError('bad-file'));
  for (const [name, content] of [
    ['type.ovf', '<!DOCTYPE a [<!ENTITY b "c">]><Envelope/>'],
    ['cut.ovf', descriptor('x').slice(0, 700)],
    ['deep.ovf', '<a>'.repeat(5000)],
    ['cut.ova', readFileSync(join(folder, 'a.ova')).subarray(0, 20_000)],
    ['none.ova', Buffer.alloc(10_240)],
  ] as const) {
    writeFileSync(join(folder, name), content);
    await assert.rejects(ask('import.preview', { path: join(folder, name) }), appError('bad-file'), name);
  }
  assert.equal((await ask('vm.list', {})).vms.length, vms.length);
});

test('OVF and XML that was damaged at random: an error or a machine, never anything else', () => {
  const good = descriptor('d.vmdk');
  let seed = 7;
  const random = (limit: number): number => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return seed % limit;
  };
  for (let n = 0; n < 5000; n++) {
    let text = good;
    for (let edits = 1 + random(4); edits > 0; edits--) {
      const at = random(text.length);
      const how = random(3);
      const piece = good.slice(random(good.length)).slice(0, random(30));
      text = text.slice(0, at) + (how === 0 ? '' : how === 1 ? piece : '<&>"\0'[random(5)]) + text.slice(at + random(20));
    }
    try {
      parseOvf(text);
    } catch (error) {
      assert.ok(appError('bad-file')(error), String(error));
    }
  }
  assert.equal(parseXml('<a b="1 &lt; 2"><![CDATA[<x>]]>&#65;</a>').text, '<x>A');
});
