/** Every screen by axe, in light and in dark: no serious and no critical violation. VM processes are the test double. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { doubleEntry, initrdFile, kernelFile, temporaryFolder } from '../app/fixtures.ts';
import { skip, TestApp } from './harness.ts';

test('every screen passes axe in light and dark', { skip, timeout: 240_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const app = await TestApp.start(context, { folder, engineEntry: doubleEntry });
  const { page } = app;
  const dialog = page.getByRole('dialog', { name: 'New virtual machine' });

  await app.checkAccessibility('first screen');
  await page.getByRole('button', { name: 'New VM' }).click();
  await dialog.getByRole('radio').first().waitFor();
  await app.checkAccessibility('wizard, source');
  await dialog.getByRole('radio', { name: /^Kernel/ }).check();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByText('Choose a kernel').waitFor();
  await app.checkAccessibility('wizard, medium with an error');
  await dialog.getByRole('button', { name: 'Browse for: Kernel', exact: true }).click();
  await page.getByRole('dialog', { name: 'Kernel' }).getByRole('listbox').waitFor();
  await app.checkAccessibility('file browser');
  await page.keyboard.press('Escape');
  await dialog.getByLabel('Kernel', { exact: true }).fill(kernelFile(folder));
  await dialog.getByLabel('Operating system').click();
  await app.checkAccessibility('wizard, list of systems');
  await dialog.getByLabel('Kernel command line').click();
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('CPUs', { exact: true }).fill('40');
  await app.checkAccessibility('wizard, resources with a warning');
  await dialog.getByLabel('CPUs', { exact: true }).fill('2');
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByRole('radio', { name: /^No disk/ }).waitFor();
  await app.checkAccessibility('wizard, storage');
  await dialog.getByRole('button', { name: 'Next' }).click();
  await dialog.getByLabel('Name', { exact: true }).waitFor();
  await app.checkAccessibility('wizard, summary');
  await dialog.getByRole('button', { name: 'Cancel' }).click();

  await app.createVm({ kernel: kernelFile(folder), initrd: initrdFile(folder), name: 'Accessible', memoryMiB: 64, start: false });
  await app.checkAccessibility('console, off');
  await app.tab('Serial');
  await app.checkAccessibility('serial, off');
  await app.tab('Details');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  for (const name of [
    'Overview',
    'Operating system',
    'Performance',
    'CPUs',
    'Memory',
    'Boot options',
    'Display',
    'Other devices',
    'Monitor',
  ]) {
    await page.getByRole('navigation', { name: 'Pages' }).getByRole('button', { name, exact: true }).click();
    await app.checkAccessibility(`details, ${name}`);
  }
  await page.getByRole('button', { name: 'Start', exact: true }).click();
  await page.getByText('Running', { exact: true }).waitFor();
  await app.tab('Graphs');
  await page.getByText(/samples, one every/).waitFor();
  await app.checkAccessibility('graphs');
  for (let graph = 0; graph < 4; graph++)
    await page
      .getByRole('button', { name: /^Table/ })
      .first()
      .click();
  await app.checkAccessibility('graphs as tables');
  await app.tab('Translator');
  await page.locator('.shares', { hasText: /Regions\s+60 %.*Helpers and devices/s }).waitFor();
  await app.checkAccessibility('translator');
  await app.tab('Serial');
  await page.locator('.xterm-rows', { hasText: 'serial0' }).waitFor();
  await app.checkAccessibility('serial, connected');
  await app.tab('Console');
  await page.getByRole('button', { name: 'Clipboard', exact: true }).click();
  await app.checkAccessibility('console with the clipboard');
  await page.getByRole('button', { name: 'More actions' }).click();
  await app.checkAccessibility('menu of actions');
  await page.keyboard.press('Escape');
  await app.toList();
  await app.checkAccessibility('list');
  await page.getByRole('button', { name: 'Tasks and messages' }).click();
  await app.checkAccessibility('tasks');
  await page.keyboard.press('Escape');
  await page.keyboard.press('Control+k');
  await page.getByRole('dialog', { name: 'Command palette' }).waitFor();
  await app.checkAccessibility('palette');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Settings' }).click();
  await app.checkAccessibility('settings');
  await page.getByRole('button', { name: 'About Vivarium' }).click();
  await page.getByText(/^Node |, Node /).waitFor();
  await app.checkAccessibility('about');
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Force off' }).click();
  await page.getByRole('dialog', { name: /Force/ }).waitFor();
  await app.checkAccessibility('question');
  assert.equal(await page.locator('dialog[open]').count(), 1);
});
