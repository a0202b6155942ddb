/** The app as a person uses it, with the test double for VM processes: what shows, where, and in what words. */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { doubleEntry, initrdFile, kernelFile, temporaryFolder } from '../app/fixtures.ts';
import { skip, TestApp, until } from './harness.ts';

const definitions = (folder: string): string[] => readdirSync(join(folder, 'library/vms'));

test('the wizard says what is wrong at the field, and leaves nothing of what failed', {
  skip,
  timeout: 300_000,
}, async (context) => {
  const folder = temporaryFolder(context);
  const noKernel = join(folder, 'letter.txt');
  writeFileSync(noKernel, 'Dear reader, '.repeat(1000));
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  const before = definitions(folder);
  const dialog = page.getByRole('dialog', { name: 'New virtual machine' });
  const next = (): Promise<void> => dialog.getByRole('button', { name: 'Next' }).click();
  const described = async (label: string): Promise<string> => {
    const ids = (await dialog.getByLabel(label, { exact: true }).getAttribute('aria-describedby')) ?? '';
    const texts = await Promise.all(ids.split(' ').map((id) => page.locator(`[id="${id}"]`).textContent()));
    return texts.join(' ');
  };

  await page.keyboard.press('Control+n');
  const iso = dialog.getByRole('radio', { name: /^Local install media/ });
  await iso.waitFor();
  if (await iso.isDisabled()) await dialog.getByText(/Not available\. .*CD drive/).waitFor();
  await dialog.getByRole('radio', { name: /^Kernel and initial RAM disk/ }).check();
  await next();
  await next();
  const kernel = dialog.getByLabel('Kernel', { exact: true });
  assert.equal(await kernel.getAttribute('aria-invalid'), 'true');
  assert.match(await described('Kernel'), /Choose a kernel/);
  assert.equal(await kernel.evaluate((element) => element === document.activeElement), true, 'the wrong field has the focus');
  await kernel.fill(join(folder, 'missing'));
  await next();
  await dialog
    .getByText(/missing cannot be opened/)
    .first()
    .waitFor();
  await kernel.fill(noKernel);
  await next();
  await dialog.getByText(/is not a kernel/).waitFor();
  await kernel.fill(kernelFile(folder, 100));
  await next();
  await dialog.getByText(/is cut off/).waitFor();
  await kernel.fill(kernelFile(folder));
  await dialog.getByLabel('Initial RAM disk (optional)', { exact: true }).fill(noKernel);
  await next();
  await until(
    () => described('Initial RAM disk (optional)'),
    (text) => text.includes(noKernel),
    'the initrd is refused',
  );
  await dialog.getByLabel('Initial RAM disk (optional)', { exact: true }).fill('');
  await next();
  await dialog.getByLabel('Memory (MiB)').fill('999999');
  await next();
  await until(
    () => described('Memory (MiB)'),
    (text) => /more than this computer has/.test(text),
    'too much memory',
  );
  await dialog.getByLabel('Memory (MiB)').fill('64');
  await dialog.getByLabel('CPUs', { exact: true }).fill('0');
  await next();
  await until(
    () => described('CPUs'),
    (text) => /At least one CPU/.test(text),
    'no CPUs',
  );
  await dialog.getByLabel('CPUs', { exact: true }).fill('1');
  await next();
  await dialog.getByRole('radio', { name: /^No disk/ }).waitFor();
  await next();
  await dialog.getByLabel('Name', { exact: true }).fill('../etc');
  await dialog.getByRole('button', { name: /^Create/ }).click();
  await until(
    () => described('Name'),
    (text) => /slash|begin with/.test(text),
    'a bad name',
  );
  assert.deepEqual(definitions(folder), before);
  await dialog.getByLabel('Name', { exact: true }).fill('First');
  await dialog.getByLabel('Start it now').uncheck();
  await dialog.getByRole('button', { name: 'Create', exact: true }).click();
  await page.getByRole('heading', { level: 1, name: 'First' }).waitFor();
  await app.toList();
  assert.equal(definitions(folder).length, before.length + 1);
  assert.deepEqual(app.complaints, []);
});

test('a VM lives, crashes with its log, is renamed, deleted and brought back', { skip, timeout: 300_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  await app.createVm({ kernel: kernelFile(folder), initrd: initrdFile(folder), name: 'Creature', memoryMiB: 64 });
  await page.getByText('Running', { exact: true }).waitFor();
  await app.tab('Serial');
  await page.locator('.xterm-rows', { hasText: 'serial0 of Creature' }).waitFor();
  await page.keyboard.type('hello');
  await page.locator('.xterm-rows', { hasText: 'echo h' }).waitFor();
  await app.tab('Graphs');
  const cpu = page.getByRole('region', { name: 'Host CPU by vCPU' });
  await until(
    () => cpu.locator('[data-series]').allInnerTexts(),
    (texts) => texts.length === 2 && texts.every((text) => /\d %/.test(text)),
    'a line for each vCPU',
  );

  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('Paused', { exact: true }).first().waitFor();
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await app.toList();
  await app.row('Creature').click();
  const pid = Number(
    await page.locator('aside dt', { hasText: 'Process' }).locator('xpath=following-sibling::dd[1]').textContent(),
  );
  assert.ok(pid > 1);
  process.kill(pid, 'SIGKILL');
  await app.row('Creature').getByText('Crashed').waitFor();
  const inspector = page.getByRole('complementary', { name: 'Selected virtual machine' });
  await inspector.getByText('This VM has crashed').waitFor();
  await inspector
    .getByLabel('The end of the log')
    .getByText(/double of Creature begins/)
    .waitFor();
  await inspector.getByRole('button', { name: 'Start again' }).click();
  await app.row('Creature').getByText('Running').waitFor();
  assert.equal(await inspector.getByText('This VM has crashed').count(), 0);

  await page.getByRole('toolbar').getByRole('button', { name: 'Force off' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Force off' }).click();
  await app.row('Creature').getByText('Off', { exact: true }).waitFor();
  await app.row('Creature').focus();
  await page.keyboard.press('F2');
  const rename = page.getByRole('dialog', { name: /Rename/ });
  await rename.getByLabel('Name').fill('Renamed');
  await page.keyboard.press('Enter');
  await app.row('Renamed').waitFor();
  await app.row('Renamed').focus();
  await page.keyboard.press('Delete');
  await page.getByText('“Renamed” was deleted').waitFor();
  await until(
    () => app.row('Renamed').count(),
    (count) => count === 0,
    'the row is gone',
  );
  await page.getByRole('button', { name: 'Undo' }).click();
  await app.row('Renamed').waitFor();
});

test('changes to a running VM wait for its next start, and say so', { skip, timeout: 300_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  await app.createVm({ kernel: kernelFile(folder), name: 'Editable', memoryMiB: 64 });
  await page.getByText('Running', { exact: true }).waitFor();
  await app.tab('Details');
  const pages = page.getByRole('navigation', { name: 'Pages' });
  await pages.getByRole('button', { name: 'Memory' }).click();
  await page.getByText('from its next start').waitFor();
  await page.getByLabel('Memory (MiB)').fill('1');
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('At least 4 MiB are needed').waitFor();
  await page.getByLabel('Memory (MiB)').fill('96');
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('Settings have changed since the VM was started').waitFor();
  await page.getByLabel('Memory (MiB)').fill('128');
  await page.getByRole('button', { name: 'Revert' }).click();
  assert.equal(await page.getByLabel('Memory (MiB)').inputValue(), '96');
  // The kernel is looked at again at the next start: the error leads to its field.
  await page.getByRole('button', { name: 'More actions' }).click();
  await page.getByRole('menuitem', { name: 'Force off' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Force off' }).click();
  await page.getByText('Off', { exact: true }).waitFor();
  await pages.getByRole('button', { name: 'Boot options' }).click();
  await page.getByLabel('Kernel', { exact: true }).fill('/nowhere/vmlinuz');
  await page.getByRole('button', { name: 'Apply' }).click();
  await page.getByText('Applied').waitFor();
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await page
    .getByText(/nowhere\/vmlinuz cannot be opened/)
    .first()
    .waitFor();
  const [id] = definitions(folder).filter((name) =>
    readFileSync(join(folder, 'library/vms', name, 'vm.json'), 'utf8').includes('Editable'),
  );
  assert.ok(id);
});

test('a corrupt definition is set aside and told of; search, keys and palette find VMs', {
  skip,
  timeout: 300_000,
}, async (context) => {
  const folder = temporaryFolder(context);
  const broken = join(folder, 'library/vms/6f1e7a52-9a0b-4a3c-8f0e-0d6c2f9b7d11');
  mkdirSync(broken, { recursive: true });
  writeFileSync(join(broken, 'vm.json'), '{"format": "vivarium-vm", "version": 1,');
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  await page.getByText('The definition of a VM could not be read').waitFor();
  await page.getByText('Nothing was deleted.').waitFor();
  assert.ok(readdirSync(broken).some((name) => name.startsWith('vm.json.corrupt-')));
  await app.createVm({ kernel: kernelFile(folder), name: 'Alpha', memoryMiB: 64, start: false });
  await app.toList();
  await app.createVm({ kernel: kernelFile(folder), name: 'Beta', memoryMiB: 64, start: false });
  await app.toList();
  await page.keyboard.press('Control+f');
  await page.keyboard.type('bet');
  await until(
    () => app.row('Alpha').count(),
    (count) => count === 0,
    'the search hides what does not match',
  );
  await page.keyboard.press('Escape');
  await app.row('Alpha').click();
  await page.keyboard.press('Shift+ArrowDown');
  await page.getByText('2 selected').first().waitFor();
  await page.keyboard.press('Control+k');
  await page.keyboard.type('beta graphs');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Beta' }).waitFor();
  assert.equal(await page.getByRole('tab', { name: 'Graphs' }).getAttribute('aria-selected'), 'true');
  await page.goBack();
  // A file dropped on the page starts the wizard.
  await page.evaluate(() => {
    const data = new DataTransfer();
    data.items.add(new File(['x'], 'debian.iso'));
    window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
  });
  await page.getByRole('dialog', { name: 'New virtual machine' }).waitFor();
  await page.getByText('does not tell where “debian.iso” is').waitFor();
});
