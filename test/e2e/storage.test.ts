/** Storage, snapshots, media, saving and import as a person uses them, with a double of the machine. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { doubleEntry, initrdFile, kernelFile, temporaryFolder } from '../app/fixtures.ts';
import { skip, TestApp, until } from './harness.ts';

test('disks, snapshots, saving and storage, in light and dark', { skip, timeout: 400_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  await app.createVm({ kernel: kernelFile(folder), initrd: initrdFile(folder), name: 'Keeper', memoryMiB: 64, start: false });

  // A disk and a CD drive.
  await app.tab('Details');
  await page.getByRole('button', { name: 'Add a device' }).click();
  await page.getByRole('menuitem', { name: 'New disk…' }).click();
  const dialog = page.getByRole('dialog', { name: 'New disk' });
  await dialog.getByLabel('Size (GiB)').fill('0.0625');
  await dialog.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByRole('heading', { name: 'Drive disk0' }).waitFor();
  await page.getByLabel('Serial number').fill('KEEPER-1');
  await page.getByRole('button', { name: 'Add a device' }).click();
  await page.getByRole('menuitem', { name: 'CD drive' }).click();
  await page.getByRole('heading', { name: 'Drive cd0' }).waitFor();
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('Applied', { exact: true }).waitFor();
  const iso = join(folder, 'tools.iso');
  writeFileSync(iso, Buffer.alloc(65536));
  await page.getByRole('button', { name: 'Insert…' }).click();
  const medium = page.getByRole('dialog', { name: 'Medium of cd0' });
  await medium.getByLabel('ISO image', { exact: true }).fill(join(folder, 'none.iso'));
  await medium.getByRole('button', { name: 'Insert', exact: true }).click();
  await medium.getByText('it does not exist').waitFor();
  await medium.getByLabel('ISO image', { exact: true }).fill(iso);
  await medium.getByRole('button', { name: 'Insert', exact: true }).click();
  await page.getByText(iso, { exact: true }).waitFor();
  await app.checkAccessibility('drive');
  await app.picture('drive');

  // Snapshots: one off, two on; a tree that the keyboard walks.
  await app.tab('Snapshots');
  await page.getByRole('heading', { name: 'No snapshots yet' }).waitFor();
  const take = async (name: string): Promise<void> => {
    await page.getByRole('button', { name: 'Take a snapshot' }).click();
    const form = page.getByRole('dialog', { name: 'Take a snapshot' });
    await form.getByLabel('Name', { exact: true }).fill(name);
    await form.getByRole('button', { name: 'Take it' }).click();
    await page.getByRole('treeitem', { name: new RegExp(`^${name}`) }).waitFor();
  };
  await take('Fresh');
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await take('Before the update');
  await take('After the update');
  const tree = page.getByRole('tree');
  await until(
    () =>
      tree
        .getByRole('treeitem')
        .evaluateAll((items) =>
          items.map((item) => `${item.getAttribute('aria-level')} ${item.textContent?.trim().slice(0, 8)}`),
        ),
    (levels) => levels.join() === '1 Fresh No,2 Before t,3 After th,4 You are ',
    'the tree',
  );
  await tree.getByRole('treeitem', { name: /^Before/ }).click();
  await page.keyboard.press('ArrowUp');
  assert.equal(await tree.locator('[aria-selected=true] strong').innerText(), 'Fresh');
  await page.keyboard.press('End');
  await page.getByRole('img', { name: /screen at “After the update”/ }).waitFor();
  await app.checkAccessibility('snapshots');
  await app.picture('snapshots');
  await page.emulateMedia({ colorScheme: 'dark' });
  await app.picture('snapshots-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  await tree.getByRole('treeitem', { name: /^Before/ }).click();
  await page.getByRole('region', { name: 'Before the update' }).getByRole('button', { name: 'Delete' }).click();
  await page.getByText('Snapshots that came from it stay whole: “After the update”.').waitFor();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click();
  await tree.getByRole('treeitem', { name: /^Before/ }).waitFor({ state: 'detached' });

  // The machine stops because the disk is full, and goes on.
  await app.tab('Details');
  await page.getByRole('button', { name: 'Monitor', exact: true }).click();
  await page.getByLabel('Monitor', { exact: true }).fill('disk full');
  await page.getByRole('button', { name: 'Run', exact: true }).click();
  const stopped = page.getByRole('status').filter({ hasText: 'The machine was stopped' });
  await stopped.getByText(/no room left for the drive/).waitFor();
  await app.picture('stopped');
  await stopped.getByRole('button', { name: 'Go on' }).click();
  await stopped.waitFor({ state: 'detached' });

  // Saved, and restored.
  await page.getByRole('button', { name: 'More actions' }).click();
  await page.getByRole('menuitem', { name: 'Save', exact: true }).click();
  await page.getByText('Saved', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Restore' }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await page
    .getByRole('button', { name: 'Force off' })
    .or(page.getByRole('button', { name: 'More actions' }))
    .first()
    .click();
  await page.getByRole('menuitem', { name: 'Force off' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Force off' }).click();
  await page.getByText('Off', { exact: true }).waitFor();

  // Storage.
  await app.toList();
  await page.keyboard.press('Control+d');
  const storage = page.getByRole('dialog', { name: 'Storage' });
  await storage.getByText('No disk images or media here yet.').waitFor();
  await storage.getByRole('button', { name: 'New disk…' }).click();
  await storage.getByLabel('Name', { exact: true }).fill('data');
  await storage.getByLabel('Size (GiB)').fill('0.25');
  await storage.getByRole('button', { name: 'Create', exact: true }).click();
  await storage.getByRole('row', { name: /data\.qcow2/ }).waitFor();
  const pool = join(folder, 'library', 'storage');
  execFileSync('qemu-img', [
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    join(pool, 'data.qcow2'),
    '-F',
    'qcow2',
    join(pool, 'child.qcow2'),
  ]);
  await storage.getByRole('button', { name: 'New disk…' }).click();
  await storage.getByLabel('Name', { exact: true }).fill('data');
  await storage.getByRole('button', { name: 'Create', exact: true }).click();
  await storage.getByText('There is already a file named').waitFor();
  await storage.getByRole('button', { name: 'Cancel' }).click();
  await storage.getByRole('button', { name: /^Library/ }).click();
  await storage.getByRole('row', { name: /child\.qcow2 lies on data\.qcow2/ }).waitFor();
  await app.checkAccessibility('storage');
  await app.picture('storage');
  await storage.getByRole('button', { name: 'Actions on data.qcow2' }).click();
  await page.getByRole('menuitem', { name: 'Delete…' }).click();
  await page.getByText('These lie on it and would be lost: “child.qcow2”.').waitFor();
  await page
    .getByRole('dialog', { name: /^Delete/ })
    .getByRole('button', { name: 'Cancel' })
    .click();
  await storage.getByRole('button', { name: 'Actions on child.qcow2' }).click();
  await page.getByRole('menuitem', { name: 'Delete…' }).click();
  await page
    .getByRole('dialog', { name: /^Delete/ })
    .getByRole('button', { name: 'Delete for good' })
    .click();
  await storage.getByRole('row', { name: /^child/ }).waitFor({ state: 'detached' });
  await storage.getByRole('button', { name: 'Close' }).click();

  // Import of another manager's disk.
  execFileSync('qemu-img', ['create', '-q', '-f', 'vmdk', join(folder, 'old.vmdk'), '64M']);
  await page.getByRole('button', { name: 'More actions' }).click();
  await page.getByRole('menuitem', { name: 'Import a machine' }).click();
  const imported = page.getByRole('dialog', { name: 'Import a machine' });
  await imported.getByLabel('Package or disk image', { exact: true }).fill(join(folder, 'old.vmdk'));
  await imported.getByLabel('Package or disk image', { exact: true }).blur();
  await imported.getByText('vmdk, 64 MiB').waitFor();
  await app.checkAccessibility('import');
  await app.picture('import');
  await imported.getByRole('button', { name: 'Import', exact: true }).click();
  await page.getByText('old', { exact: true }).first().waitFor();
  // The double has no screen to connect to.
  assert.deepEqual(
    app.complaints.filter((text) => !/^(Failed when connecting|WebSocket connection to)/.test(text)),
    [],
  );
});
