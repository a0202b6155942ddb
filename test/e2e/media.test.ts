/**
 * From an ISO image and from a disk of another machine to a VM that starts from it, through the wizard; and the boot
 * order. With the real engine and SeaBIOS; the media are a boot sector each, which says on the serial port who it is.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../app/fixtures.ts';
import { bootDisk } from '../machine/images.ts';
import { skip as noBrowser, TestApp, until } from './harness.ts';

const skip =
  noBrowser ||
  (['/usr/bin/xorriso', '/usr/bin/qemu-img', '/usr/share/seabios/bios-256k.bin'].every(existsSync)
    ? false
    : 'xorriso, qemu-utils or seabios is not installed');

const bootMs = 120_000;

test('an ISO image and an existing disk become VMs that start from them', { skip, timeout: 600_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const iso = join(folder, 'debian.iso');
  mkdirSync(join(folder, 'cd'));
  writeFileSync(join(folder, 'cd/boot.bin'), bootDisk('started from the CD').subarray(0, 2048));
  execFileSync(
    'xorriso',
    [
      '-as',
      'mkisofs',
      '-quiet',
      '-V',
      'Debian 12.9.0 amd64 n',
      '-b',
      'boot.bin',
      '-no-emul-boot',
      '-boot-load-size',
      '4',
      '-o',
      iso,
      join(folder, 'cd'),
    ],
    { stdio: 'pipe' },
  );
  const raw = join(folder, 'other.img');
  writeFileSync(raw, bootDisk('started from the disk'));
  const disk = join(folder, 'other.qcow2');
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, disk]);

  const app = await TestApp.start(context, { folder });
  const { page } = app;
  const dialog = page.getByRole('dialog', { name: 'New virtual machine' });
  const next = (): Promise<void> => dialog.getByRole('button', { name: 'Next' }).click();
  const terminal = page.locator('.xterm-rows');
  const serial = async (): Promise<string> =>
    (await terminal.locator('> div').allTextContents()).map((line) => line.replace(/\u00a0/g, ' ').trimEnd()).join('\n');
  const says = async (text: string): Promise<void> => {
    await app.tab('Serial');
    await until(serial, (lines) => lines.includes(text), `"${text}" on the serial port`, bootMs);
  };
  const off = async (): Promise<void> => {
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Force off' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Force off' }).click();
    await page.getByText('Off', { exact: true }).waitFor();
  };

  // A person who clicks through: the medium is the only thing to be said.
  await page.getByRole('button', { name: 'New VM' }).click();
  await dialog.getByRole('radio', { name: /^Local install media/, checked: true }).waitFor();
  await next();
  const medium = dialog.getByLabel('ISO image', { exact: true });
  await medium.fill(iso);
  await medium.blur();
  await dialog.getByText('Found on the medium').waitFor();
  await app.checkAccessibility('the wizard with an ISO image');
  await app.picture('wizard-iso');
  await next();
  await dialog.getByLabel('Memory (MiB)').fill('128');
  await next();
  await dialog.getByRole('radio', { name: /^Create a disk image/, checked: true }).waitFor();
  await dialog.getByLabel('Size (GiB)').fill('1');
  await app.picture('wizard-iso-storage');
  await next();
  await dialog.getByLabel('Name', { exact: true }).fill('From a CD');
  await dialog.getByRole('button', { name: 'Create and start' }).click();
  await page.getByText('Running', { exact: true }).waitFor({ timeout: bootMs });
  await says('started from the CD');
  await off();

  // A disk that was made elsewhere.
  await app.toList();
  await page.getByRole('button', { name: 'New VM' }).click();
  await dialog.getByRole('radio', { name: /^Existing disk image/ }).check();
  await next();
  const image = dialog.getByLabel('Disk image', { exact: true });
  await image.fill(disk);
  await image.blur();
  await dialog.getByLabel('Operating system', { exact: true }).click();
  await page.keyboard.type('another');
  await page.getByRole('option', { name: 'Another system, or none of these' }).click();
  await next();
  await dialog.getByLabel('Memory (MiB)').fill('128');
  await next();
  await next();
  await dialog.getByLabel('Name', { exact: true }).fill('From a disk');
  await dialog.getByRole('button', { name: 'Create and start' }).click();
  await page.getByText('Running', { exact: true }).waitFor({ timeout: bootMs });
  await says('started from the disk');
  await says('the second sector');
  await off();

  // It gets a CD drive with the ISO image, and the CD comes first.
  await app.tab('Details');
  await page.getByRole('button', { name: 'Add a device' }).click();
  await page.getByRole('menuitem', { name: 'CD drive' }).click();
  await page.getByRole('heading', { name: 'Drive cd0' }).waitFor();
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('Applied', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Insert…' }).click();
  const chooser = page.getByRole('dialog', { name: 'Medium of cd0' });
  await chooser.getByLabel('ISO image', { exact: true }).fill(iso);
  await chooser.getByRole('button', { name: 'Insert', exact: true }).click();
  await page.getByText(iso, { exact: true }).waitFor();
  const pages = page.getByRole('navigation', { name: 'Pages' });
  await pages.getByRole('button', { name: 'Boot options' }).click();
  await page.getByRole('button', { name: 'CD: earlier' }).click();
  await app.picture('boot-order');
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('Applied', { exact: true }).last().waitFor();
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await page.getByText('Running', { exact: true }).waitFor({ timeout: bootMs });
  await says('started from the CD');

  // The machine runs: it gets a disk at once; this guest has no ACPI, and does not let it go.
  await app.tab('Details');
  await page.getByRole('button', { name: 'Add a device' }).click();
  await page.getByRole('menuitem', { name: 'New disk…' }).click();
  const added = page.getByRole('dialog', { name: 'New disk' });
  await added.getByLabel('Size (GiB)').fill('0.0625');
  await added.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The disk was added to the running machine').waitFor();
  await page.getByRole('heading', { name: 'Drive disk1' }).waitFor();
  await pages.getByRole('button', { name: 'Monitor', exact: true }).click();
  await page.getByLabel('Monitor', { exact: true }).fill('info block');
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  await page
    .getByText(/disk1.*\.qcow2/)
    .first()
    .waitFor();
  await pages.getByRole('button', { name: 'Drive disk1' }).click();
  await app.picture('drive-plugged');
  await page.getByRole('button', { name: 'Take it from the running machine' }).click();
  await page.getByText('The guest has not let the disk go').waitFor();
  assert.deepEqual(app.complaints, []);
});
