/**
 * Disks that come and go while Debian's kernel runs: a virtio disk, a virtio-scsi adapter, disks on it, NVMe controllers;
 * by ACPI on both machine types. What the guest wrote is in the images once they are gone.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm, type Vm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const MODULES = ['virtio_blk', 'scsi_common', 'scsi_mod', 'virtio_scsi', 'crc-t10dif', 'crct10dif_common'].concat([
  'crct10dif_generic',
  'crc64',
  'crc64-rocksoft',
  't10-pi',
  'sd_mod',
  'nvme-core',
  'nvme',
]);
const MIB = 1 << 20;

/** Waits until a shell test in the guest holds. */
async function until(vm: Vm, condition: string): Promise<void> {
  const said = await vm.command(`for i in $(seq 60); do ${condition} && break; sleep 1; done; ${condition} && echo holds`, 90);
  assert.match(said, /holds$/, `${condition}: ${said}\n${await vm.command('dmesg | tail -20; ls /sys/block')}`);
}

/** Adds a raw image as a node. */
async function node(vm: Vm, name: string, file: string, driver = 'raw'): Promise<void> {
  await vm.qmp('blockdev-add', { driver, 'node-name': name, file: { driver: 'file', filename: file } });
}

async function deleted(vm: Vm, id: string): Promise<void> {
  for (let from = 0; ; from++) {
    const event = await vm.event('DEVICE_DELETED', 60, from);
    if (event.data?.device !== id) continue;
    assert.deepEqual(event.data, { device: id, path: `/machine/peripheral/${id}` });
    return;
  }
}

const md5 = (bytes: Uint8Array): string => execFileSync('md5sum', { input: bytes, encoding: 'utf8' }).split(' ')[0];

for (const machine of ['pc', 'q35'] as const)
  test(`disks come and go on ${machine}`, { skip: withoutGuest(), timeout: 900_000 }, async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-hotplug-'));
    context.after(() => rmSync(folder, { recursive: true, force: true }));
    if (spawnSync('qemu-img', ['--version']).status !== 0) return context.skip('qemu-utils is not installed');
    const initrd = initrdWith(MODULES, folder);
    if (initrd === undefined) return context.skip('the modules cannot be fetched here');
    const image = (name: string, format: string): string => {
      const path = join(folder, `${name}.${format}`);
      execFileSync('qemu-img', ['create', '-q', '-f', format, path, '16M']);
      return path;
    };
    const cold = image('cold', 'raw');
    const [first, unit, again] = [image('first', 'qcow2'), image('unit', 'raw'), image('again', 'raw')];
    const vm = startVm(context, {
      cpus: 2,
      initrd,
      more: ['-machine', machine, '-drive', `file=${cold},format=raw,if=none,id=c`, '-device', 'virtio-blk-pci,drive=c,id=cold'],
    });
    await vm.shell();
    await vm.command('echo 1 > /proc/sys/kernel/printk');
    await vm.command('for i in 1 2 3 4 5; do for m in /more/*.ko; do insmod $m 2>/dev/null; done; done', 300);
    await until(vm, '[ -b /dev/vda ]');

    // A virtio disk comes, is written, and goes.
    const fails = (command: string, given: object, words: RegExp): Promise<void> => assert.rejects(vm.qmp(command, given), words);
    await fails(
      'device_add',
      { driver: 'virtio-blk-pci', id: 'd1', drive: 'n1' },
      /^Error: Property 'virtio-blk-pci.drive' can't find value 'n1'$/,
    );
    await fails('device_add', { driver: 'nothing', id: 'd1' }, /^Error: 'nothing' is not a valid device model name$/);
    await fails('device_add', { driver: 'ide-hd', id: 'd1', drive: 'n1' }, /^Error: Bus 'ide.0' does not support hotplugging$/);
    await fails('device_del', { id: 'd1' }, /^Error: Device 'd1' not found$/);
    await fails('device_add', { driver: 'scsi-hd', drive: 'n1' }, /^Error: No 'SCSI' bus found for device 'scsi-hd'$/);
    await node(vm, 'n1', first, 'qcow2');
    await fails('device_add', { driver: 'virtio-blk-pci', id: 'cold', drive: 'n1' }, /^Error: Duplicate device ID 'cold'$/);
    await fails(
      'device_add',
      { driver: 'virtio-blk-pci', id: 'd1', drive: 'n1', wrong: 1 },
      /^Error: Property 'virtio-blk-pci.wrong' not found$/,
    );
    await vm.qmp('device_add', { driver: 'virtio-blk-pci', id: 'd1', drive: 'n1', serial: 'plugged' });
    await fails('blockdev-del', { 'node-name': 'n1' }, /in use/);
    await until(vm, '[ -b /dev/vdb ]');
    assert.equal(await vm.command('cat /sys/block/vdb/serial /sys/block/vdb/size'), 'plugged32768');
    await vm.command('dd if=/dev/urandom of=/data bs=64k count=64 2>/dev/null');
    const sum = (await vm.command('md5sum /data')).split(' ')[0];
    await vm.command('dd if=/data of=/dev/vdb bs=64k 2>/dev/null; sync; echo 3 > /proc/sys/vm/drop_caches');
    assert.match(await vm.command('dd if=/dev/vdb bs=64k count=64 2>/dev/null | md5sum'), new RegExp(sum));
    const blocks = (await vm.qmp('query-block')) as { qdev: string; inserted?: { 'node-name': string } }[];
    assert.deepEqual(
      blocks.map(({ qdev }) => qdev).filter((name) => name === 'd1'),
      ['d1'],
    );
    assert.ok(
      ((await vm.qmp('x-query-stats')) as { drives?: { id: string; writtenBytes: number }[] }).drives?.some(
        (drive) => drive.writtenBytes >= 4 * MIB,
      ),
    );
    await vm.qmp('device_del', { id: 'd1' });
    await deleted(vm, 'd1');
    await until(vm, '[ ! -e /dev/vdb ]');
    await vm.qmp('blockdev-del', { 'node-name': 'n1' });
    execFileSync('qemu-img', ['check', '-q', first]);
    const raw = join(folder, 'first.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', first, raw]);
    assert.equal(md5(readFileSync(raw).subarray(0, 4 * MIB)), sum);

    // What the machine was started with goes too, and its slot takes another.
    await vm.qmp('device_del', { id: 'cold' });
    await deleted(vm, 'cold');
    await until(vm, '[ ! -e /dev/vda ]');
    await node(vm, 'n2', again);
    await vm.qmp('device_add', { driver: 'virtio-blk-pci', id: 'cold', drive: 'n2' });
    await until(vm, '[ -b /dev/vda ]');
    await vm.command('dd if=/data of=/dev/vda bs=64k 2>/dev/null; sync');

    // An adapter, a disk on it, twice; then both at once.
    await vm.qmp('device_add', { driver: 'virtio-scsi-pci', id: 'bus' });
    await node(vm, 'n3', unit);
    await fails('device_add', { driver: 'scsi-hd', id: 'u', drive: 'n3', bus: 'other.0' }, /^Error: Bus 'other.0' not found$/);
    for (const _ of [1, 2]) {
      await vm.qmp('device_add', { driver: 'scsi-hd', id: 'u', drive: 'n3', bus: 'bus.0' });
      await until(vm, '[ -b /dev/sda ]');
      await vm.command('dd if=/data of=/dev/sda bs=64k 2>/dev/null; sync; echo 3 > /proc/sys/vm/drop_caches');
      assert.match(await vm.command('dd if=/dev/sda bs=64k count=64 2>/dev/null | md5sum'), new RegExp(sum));
      const seen = vm.events.length;
      await vm.qmp('device_del', { id: 'u' });
      await vm.event('DEVICE_DELETED', 30, seen);
      await until(vm, '[ ! -e /dev/sda ]');
    }
    await vm.qmp('device_add', { driver: 'scsi-hd', id: 'u', drive: 'n3', bus: 'bus.0' });
    await until(vm, '[ -b /dev/sda ]');
    await vm.qmp('device_del', { id: 'bus' });
    await deleted(vm, 'bus');
    await until(vm, '[ ! -e /dev/sda ]');
    assert.doesNotMatch(await vm.command('dmesg'), /I\/O error|Call Trace|BUG:|Surprise/);
    vm.type('poweroff -f\n');
    assert.equal(await vm.exit(60), 0, vm.complaints);
    assert.equal(md5(readFileSync(unit).subarray(0, 4 * MIB)), sum);
    assert.equal(md5(readFileSync(again).subarray(0, 4 * MIB)), sum);
  });

for (const machine of ['pc', 'q35'] as const)
  test(`NVMe controllers come and go on ${machine}`, { skip: withoutGuest(), timeout: 600_000 }, async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-hotplug-'));
    context.after(() => rmSync(folder, { recursive: true, force: true }));
    if (spawnSync('qemu-img', ['--version']).status !== 0) return context.skip('qemu-utils is not installed');
    const initrd = initrdWith(MODULES, folder);
    if (initrd === undefined) return context.skip('the modules cannot be fetched here');
    const [cold, first, second] = ['cold.raw', 'first.qcow2', 'second.raw'].map((name) => {
      const path = join(folder, name);
      execFileSync('qemu-img', ['create', '-q', '-f', name.split('.')[1], path, '16M']);
      return path;
    });
    const nvme = ['-drive', `file=${cold},format=raw,if=none,id=c`, '-device', 'nvme,drive=c,id=cold,serial=first'];
    const ide = ['-drive', `file=${second},format=raw,if=none,id=i,readonly=on`, '-device', 'ide-hd,drive=i,id=fixed'];
    const vm = startVm(context, { cpus: 2, initrd, more: ['-machine', machine, ...nvme, ...ide] });
    await vm.shell();
    await vm.command('for i in 1 2 3 4 5; do for m in /more/*.ko; do insmod $m 2>/dev/null; done; done', 300);
    await until(vm, '[ -b /dev/nvme0n1 ]');
    await vm.command('dd if=/dev/urandom of=/data bs=64k count=64 2>/dev/null');
    const sum = (await vm.command('md5sum /data')).split(' ')[0];
    const monitor = (line: string): Promise<unknown> => vm.qmp('human-monitor-command', { 'command-line': line });

    // Two at once, the second by the human monitor; both are written and read.
    await node(vm, 'n1', first, 'qcow2');
    await vm.qmp('device_add', { driver: 'nvme', id: 'd1', drive: 'n1', serial: 'plugged', max_ioqpairs: 4 });
    await until(vm, '[ -b /dev/nvme1n1 ]');
    assert.equal(await vm.command('cat /sys/block/nvme1n1/size; cat /sys/class/nvme/nvme1/serial'), '32768\nplugged');
    await vm.command('dd if=/data of=/dev/nvme1n1 bs=64k 2>/dev/null; sync; echo 3 > /proc/sys/vm/drop_caches');
    assert.match(await vm.command('dd if=/dev/nvme1n1 bs=64k count=64 2>/dev/null | md5sum'), new RegExp(sum));

    // Buses that take nothing while the machine runs say so.
    await assert.rejects(
      vm.qmp('device_add', { driver: 'ide-hd', id: 'd2', drive: 'n1', bus: 'ide.1' }),
      /^Error: Bus 'ide.1' does not support hotplugging$/,
    );
    assert.match(String(await monitor('device_add ide-cd,id=d2')), /^Error: Bus 'ide.0' does not support hotplugging/);
    await assert.rejects(vm.qmp('device_del', { id: 'fixed' }), /^Error: Bus 'ide.[0-9]' does not support hotplugging$/);
    await assert.rejects(vm.qmp('device_add', { driver: 'nvme', id: 'd2', drive: 'n1', serial: 'x' }), /already in use/);

    // It goes while it is written to: the driver gives up what is under way, the controller comes back empty.
    vm.type("exec 3>/dev/nvme0n1; echo op''en; dd if=/dev/zero bs=4k count=4000 >&3 2>/dev/null; exec 3>&-; echo do''ne\n");
    await vm.waitFor('open', 30);
    await vm.qmp('device_del', { id: 'cold' });
    await deleted(vm, 'cold');
    await vm.waitFor(/done\s+\/root # /);
    await until(vm, '[ ! -e /dev/nvme0n1 ]');
    assert.equal(await monitor('device_del d1'), '');
    await deleted(vm, 'd1');
    await until(vm, '[ ! -e /dev/nvme1n1 ]');
    await vm.qmp('blockdev-del', { 'node-name': 'n1' });
    execFileSync('qemu-img', ['check', '-q', first]);
    const raw = join(folder, 'first.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', first, raw]);
    assert.equal(md5(readFileSync(raw).subarray(0, 4 * MIB)), sum);

    // The same image comes back, twice, the slot being free again.
    await node(vm, 'n2', cold);
    for (const id of ['again', 'cold']) {
      assert.equal(await monitor(`device_add nvme,id=${id},drive=n2,serial=s-${id}`), '');
      await until(vm, 'ls /dev/nvme*n1 >/dev/null 2>&1');
      assert.equal(await vm.command('cat /sys/class/nvme/nvme*/serial'), `s-${id}`);
      await vm.command('dd if=/data of=$(ls /dev/nvme*n1) bs=64k conv=fsync 2>/dev/null');
      await vm.qmp('device_del', { id });
      await deleted(vm, id);
      await until(vm, '! ls /dev/nvme*n1 >/dev/null 2>&1');
    }
    assert.equal(md5(readFileSync(cold).subarray(0, 4 * MIB)), sum);
    assert.doesNotMatch(await vm.command('dmesg'), /Call Trace|BUG:|timeout, /);
    vm.type('poweroff -f\n');
    assert.equal(await vm.exit(60), 0, vm.complaints);
  });
