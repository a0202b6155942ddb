/**
 * A Debian system with GRUB and systemd starts by SeaBIOS from qcow2 on every disk controller, to a login, works, and powers
 * off; e2fsck and qemu-img find nothing afterwards. VIVARIUM_BUS=ide,nvme chooses some of them.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { debianRoot, PARTITION_AT } from './debian-root.ts';
import { startVm } from './harness.ts';

const BUSES: Readonly<Record<string, (drive: string) => readonly string[]>> = {
  'virtio-blk': (drive) => ['-drive', `${drive},if=virtio`],
  'virtio-scsi': (drive) => ['-drive', `${drive},if=none,id=d`, '-device', 'virtio-scsi-pci', '-device', 'scsi-hd,drive=d'],
  ide: (drive) => ['-drive', `${drive},if=ide`],
  ahci: (drive) => ['-M', 'q35', '-drive', `${drive},if=ide`],
  nvme: (drive) => ['-M', 'q35', '-drive', `${drive},if=none,id=d`, '-device', 'nvme,drive=d,serial=1'],
};
const chosen = process.env.VIVARIUM_BUS?.split(',') ?? Object.keys(BUSES);
/** Seconds that the slowest step may take: the host may be busy with other things. */
const PATIENCE = 1500;

for (const bus of chosen)
  test(`Debian on ${bus}`, { timeout: 4 * PATIENCE * 1000 }, async (context) => {
    const made = debianRoot();
    if ('reason' in made) return context.skip(made.reason);
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-debian-'));
    context.after(() => rmSync(folder, { recursive: true, force: true }));
    const disk = join(folder, 'disk.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', made.image, '-F', 'qcow2', disk]);
    const vm = startVm(context, {
      ...{ kernel: false, memory: 512, cpus: 2 },
      more: BUSES[bus](`file=${disk},format=qcow2,discard=unmap`),
    });
    await vm.waitFor('Debian GNU/Linux 12', PATIENCE);
    await vm.waitFor('login:', PATIENCE);
    vm.type('root\n');
    await vm.waitFor('Password:', 120);
    vm.type('root\n');
    await vm.waitFor('~# ', PATIENCE);
    vm.type('PS1="ready> "; stty -echo\n');
    await vm.waitFor('ready> ', 120);
    await vm.waitFor('ready> ', 120);
    const command = async (line: string): Promise<string> => {
      vm.skip();
      vm.type(`${line}\n`);
      return (await vm.waitFor('ready> ', PATIENCE)).replaceAll('\r', '');
    };
    assert.match(await command('uname -sr'), /Linux 6\.1/);
    await command('mkdir /data; dd if=/dev/urandom of=/data/a bs=1M count=24 2>/dev/null; cp -r /usr/share/doc /data/; sync');
    const sum = /^[0-9a-f]{32}/m.exec(await command('md5sum /data/a'))?.[0];
    await command('echo 3 > /proc/sys/vm/drop_caches');
    assert.equal(/^[0-9a-f]{32}/m.exec(await command('md5sum /data/a'))?.[0], sum);
    assert.doesNotMatch(await command('dmesg --level=err,crit,alert,emerg'), /I\/O error|EXT4-fs|exception Emask/);
    vm.type('systemctl poweroff\n');
    assert.equal(await vm.exit(PATIENCE), 0, vm.complaints);
    execFileSync('qemu-img', ['check', '-q', disk]);
    const raw = join(folder, 'disk.raw');
    execFileSync('qemu-img', ['convert', '-O', 'raw', disk, raw]);
    const { status, stdout } = spawnSync('e2fsck', ['-fn', `${raw}?offset=${PARTITION_AT}`], { encoding: 'utf8' });
    assert.equal(status, 0, stdout);
  });
