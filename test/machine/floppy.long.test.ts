/** Linux's floppy driver: two drives, a read-only medium, one that is changed; what was written is in the images. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const KIB = 1024;

test('floppy disks under Linux', { skip: withoutGuest(), timeout: 900_000 }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-floppy-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const initrd = initrdWith(['floppy'], folder);
  if (initrd === undefined) return context.skip('the module floppy cannot be fetched here');
  const pattern = (size: number, factor: number): Uint8Array =>
    Uint8Array.from({ length: size }, (_, i) => (i * factor + (i >> 9)) & 0xff);
  const image = (name: string, kib: number, factor: number): { path: string; sum: string } => {
    const path = join(folder, name);
    const data = pattern(kib * KIB, factor);
    writeFileSync(path, data);
    return { path, sum: execFileSync('md5sum', { input: data, encoding: 'utf8' }).split(' ')[0] };
  };
  const [first, second, other] = [image('a.img', 1440, 7), image('b.img', 720, 3), image('c.img', 1440, 11)];
  chmodSync(other.path, 0o644);
  const vm = startVm(context, {
    initrd,
    more: ['-fda', first.path, '-drive', `file=${second.path},format=raw,if=floppy,index=1,readonly=on`],
  });
  await vm.shell();
  await vm.command('echo 1 > /proc/sys/kernel/printk; insmod /more/floppy.ko; sleep 2');
  assert.match(await vm.command('dmesg'), /FDC 0 is a (S82078B|82077AA|post-1991 82077)/);
  assert.match(await vm.command('dmesg | grep -i floppy'), /fd0 is 1.44M, fd1 is 1.44M/);
  assert.match(await vm.command('md5sum /dev/fd0', 200), new RegExp(first.sum), await vm.command('dmesg | tail -20'));
  assert.match(await vm.command('md5sum /dev/fd1', 200), new RegExp(second.sum), await vm.command('dmesg | tail -20'));
  assert.match(await vm.command('dd if=/dev/zero of=/dev/fd1 bs=512 count=1'), /read-only|not permitted/i);
  await vm.command(
    'dd if=/dev/urandom of=/data bs=1k count=300 2>/dev/null; dd if=/data of=/dev/fd0 bs=1k seek=17 conv=notrunc 2>/dev/null; sync',
    200,
  );
  const written = (await vm.command('md5sum /data')).split(' ')[0];
  await vm.command('echo 3 > /proc/sys/vm/drop_caches');
  assert.match(await vm.command('dd if=/dev/fd0 bs=1k skip=17 count=300 2>/dev/null | md5sum', 200), new RegExp(written));

  await vm.qmp('blockdev-change-medium', { device: 'floppy0', filename: other.path, format: 'raw' });
  assert.match(await vm.command('md5sum /dev/fd0', 200), new RegExp(other.sum), await vm.command('dmesg | tail -20'));
  await vm.qmp('eject', { device: 'floppy0' });
  assert.match(await vm.command('dd if=/dev/fd0 of=/dev/null bs=512 count=1', 200), /No such device|Input\/output error|error/i);
  await vm.qmp('blockdev-change-medium', { device: 'floppy0', filename: first.path, format: 'raw' });
  assert.match(await vm.command('dd if=/dev/fd0 bs=1k skip=17 count=300 2>/dev/null | md5sum', 200), new RegExp(written));
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(60), 0, vm.complaints);
  const after = readFileSync(first.path);
  const kept = after.subarray(17 * KIB, 317 * KIB);
  assert.equal(execFileSync('md5sum', { input: kept, encoding: 'utf8' }).split(' ')[0], written);
  const before = pattern(1440 * KIB, 7);
  assert.deepEqual(after.subarray(0, 17 * KIB), Buffer.from(before.subarray(0, 17 * KIB)));
  assert.deepEqual(after.subarray(317 * KIB), Buffer.from(before.subarray(317 * KIB)));
});
