/**
 * A disk gets full, its file goes away, it may not be written any more: the machine stands, the page says why, and it goes
 * on once that is mended, with nothing lost. With the real engine, a real guest, and images on a small file system of
 * their own, plugged in while the machine runs.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { guest, withoutGuest } from '../machine/harness.ts';
import { initrdWith } from '../machine/modules.ts';
import { skip as noBrowser, TestApp, until } from './harness.ts';

const skip =
  noBrowser ||
  withoutGuest() ||
  (!existsSync('/usr/bin/qemu-img') && 'qemu-utils is not installed') ||
  (process.getuid?.() !== 0 && 'only root can mount a small file system');

const bootMs = 300_000;
const MODULES = ['virtio_blk', 'crc-t10dif', 'crct10dif_common', 'crct10dif_generic'].concat([
  'crc64',
  'crc64-rocksoft',
  't10-pi',
  'nvme-core',
  'nvme',
]);

test('a full disk, a file that is gone, one that may not be written: told, mended, nothing lost', {
  skip,
  timeout: 900_000,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-trouble-'));
  const small = join(folder, 'small');
  mkdirSync(small);
  context.after(() => {
    spawnSync('umount', ['-l', small]);
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  });
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6M', 'tmpfs', small]).status !== 0)
    return context.skip('nothing can be mounted here');
  const initrd = initrdWith(MODULES, folder);
  if (initrd === undefined) return context.skip('the modules cannot be fetched here');
  const [full, gone] = [join(small, 'full.qcow2'), join(folder, 'gone.img')];
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', full, '16M']);
  execFileSync('qemu-img', ['create', '-q', '-f', 'raw', gone, '16M']);

  const app = await TestApp.start(context, { folder });
  const { page } = app;
  const kernel = guest()?.kernel ?? '';
  await app.createVm({ kernel, initrd, name: 'Patient', append: 'console=ttyS0 quiet', cpus: 1, memoryMiB: 192 });
  await page.getByText('Running', { exact: true }).waitFor({ timeout: bootMs });
  const terminal = page.locator('.xterm-rows');
  const serial = async (): Promise<string> =>
    (await terminal.locator('> div').allTextContents()).map((line) => line.replace(/\u00a0/g, ' ').trimEnd()).join('\n');
  const type = async (command: string): Promise<void> => {
    await app.tab('Serial');
    await page.locator('.terminal.guest').click();
    await page.keyboard.type(`clear; ${command}\n`, { delay: 20 });
  };
  /** Types a command; what it says at last is `answer`. */
  const run = async (command: string, answer: string, ms = 60_000): Promise<void> => {
    await type(command);
    await until(serial, (text) => text.includes(answer), command, ms);
  };
  await app.tab('Serial');
  await until(serial, (text) => /# *$/.test(text.trimEnd()), 'a shell', bootMs);

  // Both disks come while it runs.
  const plug = async (file: string, bus: string, name: string): Promise<void> => {
    await app.tab('Details');
    await page.getByRole('button', { name: 'Add a device' }).click();
    await page.getByRole('menuitem', { name: 'Disk image that exists…' }).click();
    const dialog = page.getByRole('dialog', { name: 'Add a disk image' });
    await dialog.getByLabel('Disk image', { exact: true }).fill(file);
    await dialog.getByLabel('Bus', { exact: true }).selectOption(bus);
    await dialog.getByRole('button', { name: 'Add', exact: true }).click();
    await page.getByRole('heading', { name: `Drive ${name}` }).waitFor();
  };
  await plug(full, 'virtio', 'disk0');
  await plug(gone, 'nvme', 'disk1');
  await run(
    'for n in 1 2 3 4 5; do for m in /more/*.ko; do insmod $m; done; done 2>/dev/null; sleep 3; ls /dev/vda /dev/nvme0n1 && echo both-$((6*7))',
    'both-42',
    120_000,
  );

  const stopped = page.getByRole('status').filter({ hasText: 'The machine was stopped' });
  /** Waits until the page says that the machine stands, and why. */
  const stands = (why: RegExp): Promise<string> =>
    until(
      async () => ((await stopped.isVisible()) ? await stopped.innerText() : await serial()),
      (text) => why.test(text),
      `the reason ${why}`,
      120_000,
    );
  const goOn = async (): Promise<void> => {
    await stopped.getByRole('button', { name: 'Go on' }).click();
    await stopped.waitFor({ state: 'detached' });
    await page.getByText('Running', { exact: true }).waitFor();
  };

  // More is written than there is room for. Going on without room stops it again.
  await type(
    'head -c 12000000 /dev/urandom > /tmp/x; dd if=/tmp/x of=/dev/vda bs=64k 2>/dev/null; sync; echo written-$?-$((6*7))',
  );
  await stands(/no room left for the drive "disk0".*No space left/);
  await page.getByText('Paused', { exact: true }).first().waitFor();
  await app.picture('disk-full');
  await stopped.getByRole('button', { name: 'Go on' }).click();
  await stands(/no room left for the drive "disk0"/);
  execFileSync('mount', ['-o', 'remount,size=40M', small]);
  await until(
    async () => {
      if (await stopped.isVisible()) await stopped.getByRole('button', { name: 'Go on' }).click();
      return serial();
    },
    (text) => text.includes('written-0-42'),
    'what waited is written',
    120_000,
  );
  await run(
    'echo 3 > /proc/sys/vm/drop_caches; head -c 12000000 /dev/vda | cmp - /tmp/x && echo same-$((6*7))',
    'same-42',
    120_000,
  );

  // The file is moved away, and put back.
  await run('dd if=/tmp/x of=/dev/nvme0n1 bs=64k count=64 2>/dev/null; sync; echo first-$((6*7))', 'first-42', 120_000);
  renameSync(gone, `${gone}.moved`);
  await stands(/The drive "disk1" has a problem: .*gone/);
  await app.picture('disk-gone');
  renameSync(`${gone}.moved`, gone);
  await goOn();
  await run('dd if=/tmp/x of=/dev/nvme0n1 bs=64k seek=64 skip=64 count=64 2>/dev/null; sync; echo second-$((6*7))', 'second-42');

  // It may not be written any more: immutable, because root may write to whatever has permissions alone.
  if (spawnSync('chattr', ['+i', gone]).status === 0) {
    try {
      await stands(/The drive "disk1" has a problem: .*cannot be used any more/);
    } finally {
      spawnSync('chattr', ['-i', gone]);
    }
    await goOn();
  } else context.diagnostic('files cannot be made immutable here');
  await run('head -c 8388608 /dev/nvme0n1 | cmp - /tmp/x; echo read-$((6*7))', 'read-42');
  await run('md5sum < /tmp/x; echo sum-$((6*7))', 'sum-42');
  const sum = /[0-9a-f]{32}/.exec(await serial())?.[0];
  assert.ok(!(await serial()).includes('differ'));

  // Both go, and the files hold what was written.
  for (const name of ['disk0', 'disk1']) {
    await app.tab('Details');
    await page.getByRole('button', { name: `Drive ${name}` }).click();
    await page.getByRole('heading', { name: `Drive ${name}` }).waitFor();
    await page.getByRole('button', { name: 'Take it from the running machine' }).click();
    await page.getByRole('heading', { name: `Drive ${name}` }).waitFor({ state: 'detached' });
  }
  execFileSync('qemu-img', ['check', '-q', full]);
  const raw = join(folder, 'full.raw');
  execFileSync('qemu-img', ['convert', '-O', 'raw', full, raw]);
  const md5 = (bytes: Uint8Array): string => execFileSync('md5sum', { input: bytes, encoding: 'utf8' }).split(' ')[0];
  const written = readFileSync(raw).subarray(0, 12_000_000);
  assert.equal(md5(written), sum);
  assert.equal(md5(readFileSync(gone).subarray(0, 8_388_608)), md5(written.subarray(0, 8_388_608)));
  assert.deepEqual(app.complaints, []);
});
