/**
 * Disks on every controller under Linux's own drivers: ext4 on qcow2, made by mke2fs, is mounted and written; afterwards
 * e2fsck and qemu-img find nothing, and what was written is there. A CD on IDE, on AHCI and on virtio-scsi.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const has = (tool: string, option = '--version'): boolean => spawnSync(tool, [option]).error === undefined;
const MODULES = [
  ...['crc16', 'mbcache', 'jbd2', 'crc32c_generic', 'ext4', 'virtio_blk', 'scsi_common', 'scsi_mod', 'libata', 'ata_piix'],
  ...['libahci', 'ahci', 'virtio_scsi', 'crc-t10dif', 'crct10dif_common', 'crct10dif_generic', 'crc64', 'crc64-rocksoft'],
  ...['t10-pi', 'sd_mod', 'cdrom', 'sr_mod', 'nvme-core', 'nvme'],
];
/** Serial number in the guest, and how the command line puts the disk there. */
const CONTROLLERS: Readonly<Record<string, (drive: string) => readonly string[]>> = {
  blk: (drive) => ['-drive', `${drive},if=virtio`],
  ide: (drive) => ['-drive', `${drive},if=ide,index=0`],
  scsi: (drive) => ['-drive', `${drive},if=none,id=s`, '-device', 'virtio-scsi-pci,id=vs', '-device', 'scsi-hd,drive=s,bus=vs.0'],
  ahci: (drive) => ['-drive', `${drive},if=none,id=h`, '-device', 'ich9-ahci,id=ah', '-device', 'ide-hd,drive=h,bus=ah.2'],
  nvme: (drive) => ['-drive', `${drive},if=none,id=n`, '-device', 'nvme,drive=n,serial=nvme'],
};

test('ext4 on every controller', { skip: withoutGuest() }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-disks-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const [tool, pack] of [
    ['mke2fs', 'e2fsprogs'],
    ['qemu-img', 'qemu-utils'],
  ])
    if (!has(tool, tool === 'mke2fs' ? '-V' : '--version')) return context.skip(`${tool} (package ${pack}) is not installed`);
  const initrd = initrdWith(MODULES, folder);
  if (initrd === undefined) return context.skip('the modules of disk controllers cannot be fetched here');
  const image = (name: string): string => join(folder, `${name}.qcow2`);
  const options: string[] = [];
  for (const [name, place] of Object.entries(CONTROLLERS)) {
    const raw = join(folder, `${name}.raw`);
    execFileSync('mke2fs', ['-q', '-t', 'ext4', raw, '48M'], { stdio: 'pipe' });
    execFileSync('qemu-img', ['convert', '-O', 'qcow2', raw, image(name)]);
    rmSync(raw);
    options.push(...place(`file=${image(name)},format=qcow2,serial=${name},discard=unmap`));
  }
  const cd = join(folder, 'cd.iso');
  const content = Uint8Array.from({ length: 300 * 2048 }, (_, i) => (i * 7 + (i >> 11)) & 0xff);
  writeFileSync(cd, content);
  options.push('-cdrom', cd, '-drive', `file=${cd},if=none,media=cdrom,id=c1`, '-device', 'scsi-cd,drive=c1,bus=vs.0');
  options.push('-drive', `file=${cd},if=none,media=cdrom,id=c2`, '-device', 'ide-cd,drive=c2,bus=ah.0');

  const vm = startVm(context, { cpus: 2, memory: 256, initrd, more: options });
  await vm.shell();
  // What the kernel says goes to its log alone.
  await vm.command('echo 1 > /proc/sys/kernel/printk');
  await vm.command('for i in 1 2 3 4 5 6 7 8; do for m in /more/*.ko; do insmod $m 2>/dev/null; done; done', 300);
  await vm.command('for i in $(seq 120); do [ $(ls /sys/block | grep -cE "^(sd|sr|vd|nvme)") = 8 ] && break; sleep 1; done', 300);
  const disks = (await vm.command('(cd /sys/block && ls -d sd* vd* nvme*)')).split(/\s+/).sort();
  assert.deepEqual(disks, ['nvme0n1', 'sda', 'sdb', 'sdc', 'vda'], await vm.command('dmesg | tail -40'));
  const sum = execFileSync('md5sum', { input: content, encoding: 'utf8' }).split(' ')[0];
  for (const drive of ['sr0', 'sr1', 'sr2'])
    assert.match(await vm.command(`md5sum /dev/${drive}`), new RegExp(sum), await vm.command('dmesg | tail -40'));
  await vm.command('mkdir -p /m; dd if=/dev/urandom of=/data bs=64k count=200 2>/dev/null');
  const data = (await vm.command('md5sum /data')).split(' ')[0];
  for (const disk of disks) {
    const text = await vm.command(
      `mount -t ext4 /dev/${disk} /m && cp /data /m/copy && mkdir /m/many && for i in $(seq 1 200); do echo $i > /m/many/$i; done; sync; umount /m && echo written`,
      600,
    );
    assert.match(text, /written$/, `${disk}: ${text}\n${await vm.command('dmesg | tail -30')}`);
    await vm.command('echo 3 > /proc/sys/vm/drop_caches');
    const read = await vm.command(`mount -t ext4 /dev/${disk} /m && md5sum /m/copy && ls /m/many | wc -l && umount /m`, 600);
    assert.match(read, new RegExp(`${data}[^]*\\n200$`), `${disk}: ${read}`);
  }
  assert.doesNotMatch(await vm.command('dmesg'), /I\/O error|EXT4-fs error|exception Emask|frozen/);
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(60), 0, vm.complaints);
  for (const name of Object.keys(CONTROLLERS)) {
    execFileSync('qemu-img', ['check', '-q', image(name)]);
    const raw = join(folder, `${name}.raw`);
    execFileSync('qemu-img', ['convert', '-O', 'raw', image(name), raw]);
    const { status, stdout } = spawnSync('e2fsck', ['-fn', raw], { encoding: 'utf8' });
    assert.equal(status, 0, `${name}: ${stdout}`);
    rmSync(raw);
  }
});
