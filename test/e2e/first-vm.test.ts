/**
 * The main job, whole: the app is started, the wizard makes a VM from Debian's kernel and a BusyBox system, it boots on
 * two vCPUs, `uname -a` typed into its console is answered, two lines move in the graph, its process is killed and the
 * VM started again. With the real engine.
 */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { strokesOf } from '../../renderer/src/vm/us-keyboard.ts';
import { temporaryFolder } from '../app/fixtures.ts';
import { skip as noBrowser, root, TestApp, until } from './harness.ts';

const guest = join(root, '.cache/guests/debian-amd64');
const skip =
  noBrowser ||
  (!existsSync(join(root, 'engine/host/vm-process.ts'))
    ? 'there is no engine yet: engine/host/vm-process.ts'
    : !existsSync(join(guest, 'vmlinuz'))
      ? 'the sample guest is not there: npm test fetches it'
      : false);

/** A booting guest is slow on a machine that does other things too. */
const bootMs = 240_000;

test('from a click to a running guest', { skip, timeout: 600_000 }, async (context) => {
  const folder = temporaryFolder(context);
  const app = await TestApp.start(context, { folder });
  const { page } = app;
  const { release } = JSON.parse(readFileSync(join(guest, 'manifest.json'), 'utf8')) as { release: string };
  await app.picture('list');

  // Step by step, with a picture of each.
  const dialog = page.getByRole('dialog', { name: 'New virtual machine' });
  const next = (): Promise<void> => dialog.getByRole('button', { name: 'Next' }).click();
  await page.getByRole('button', { name: 'New VM' }).click();
  await dialog.getByRole('radio', { name: /^Local install media/, checked: true }).waitFor();
  await app.picture('wizard-1-source');
  await dialog.getByRole('radio', { name: /^Kernel and initial RAM disk/ }).check();
  await next();
  const sample = dialog.getByRole('button', { name: 'Use it' });
  await sample.click();
  await dialog.getByText('Found on the medium').waitFor();
  const kernel = dialog.getByLabel('Kernel', { exact: true });
  const initrd = dialog.getByLabel('Initial RAM disk (optional)', { exact: true });
  assert.equal(await kernel.inputValue(), join(guest, 'vmlinuz'));
  assert.equal(await initrd.inputValue(), join(guest, 'initrd.img'));
  // Copies, as a person's own files would be; pictures then show no path of the machine that made them.
  for (const [field, name] of [
    [kernel, 'vmlinuz'],
    [initrd, 'initrd.img'],
  ] as const) {
    copyFileSync(join(guest, name), join(folder, name));
    await field.fill(join(folder, name));
  }
  await initrd.blur();
  await dialog.getByText('Found on the medium').waitFor();
  await app.picture('wizard-2-medium');
  await next();
  await dialog.getByLabel('Memory (MiB)').fill('512');
  await dialog.getByLabel('CPUs', { exact: true }).fill('2');
  await app.picture('wizard-3-resources');
  await next();
  await dialog.getByRole('radio', { name: /^No disk/ }).waitFor();
  await app.picture('wizard-4-storage');
  await next();
  await dialog.getByLabel('Name', { exact: true }).fill('First guest');
  await app.picture('wizard-5-summary');
  await dialog.getByRole('button', { name: 'Create and start' }).click();

  await page.getByText('Running', { exact: true }).waitFor({ timeout: bootMs });
  const terminal = page.locator('.xterm-rows');
  const serial = async (): Promise<string> =>
    (await terminal.locator('> div').allTextContents()).map((line) => line.replace(/\u00a0/g, ' ').trimEnd()).join('\n');
  await app.tab('Serial');
  await until(serial, (text) => /[#$] *$/m.test(text.trimEnd()), 'a shell on the serial port', bootMs);

  await app.tab('Console');
  const screen = page.locator('.guest canvas');
  await screen.waitFor();
  /** How many pixels of the console are not black, and a sum of them all. */
  const look = () =>
    screen.evaluate((element) => {
      const canvas = element as HTMLCanvasElement;
      const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height);
      let lit = 0;
      let sum = 0;
      for (let at = 0; at < data.length; at += 4) {
        if (data[at] + data[at + 1] + data[at + 2] > 0) lit++;
        sum = (Math.imul(sum, 31) + data[at] + (data[at + 1] << 8) + (data[at + 2] << 16)) | 0;
      }
      return { lit, sum };
    });
  /** Presses real keys, Shift among them: the console sends keys, not characters. */
  const typeKeys = async (text: string): Promise<void> => {
    for (const { code, shift } of strokesOf(text)) await page.keyboard.press(shift ? `Shift+${code}` : `${code}`, { delay: 40 });
  };
  const shell = await until(look, ({ lit }) => lit > 100, 'the console shows something', bootMs);
  await screen.click();
  await typeKeys('uname -a\n');
  await until(look, ({ sum }) => sum !== shell.sum, 'the console shows what is typed');
  // Time for the answer to be in the picture; that it is right is read below.
  await page.waitForTimeout(3000);
  await app.picture('console');
  // What the console's shell says, read as text: the same command, its output sent to the serial port.
  await typeKeys('(uname -a; grep -c ^processor /proc/cpuinfo) > /dev/ttyS0\n');
  await app.tab('Serial');
  const answer = await until(serial, (text) => text.includes(`${release} #1 SMP`), 'uname -a of the console, on the serial port');
  // It comes behind the prompt of the shell that waits on the serial port, and may go round the edge.
  assert.match(answer.replaceAll('\n', ''), /Linux \S+ [\w.-]+ #1 SMP .* x86_64 GNU\/Linux/);
  await until(serial, (text) => /^2\s*$/m.test(text), 'two CPUs');
  // A shell's answer is no echo of what was typed: 42 is worked out.
  await page.keyboard.type('uname -a; echo answer-$((6*7))\n', { delay: 40 });
  const own = await until(serial, (text) => text.includes('answer-42'), 'the serial shell answers');
  assert.ok(own.split(`${release} #1 SMP`).length >= 3, 'both shells have said uname -a');
  await app.picture('serial');
  await app.checkAccessibility('serial of a running guest');

  await app.tab('Graphs');
  await page.getByLabel('Time shown').selectOption('1 minute');
  const cpu = page.getByRole('region', { name: 'Host CPU by vCPU' });
  await until(
    () => cpu.locator('[data-series]').allInnerTexts(),
    (texts) => texts.length === 2 && texts.every((text) => /\d %/.test(text)),
    'two lines in the graph',
  );
  await cpu.getByRole('button', { name: /^Table/ }).click();
  const rows = await until(
    () => cpu.locator('tbody tr').count(),
    (count) => count >= 3,
    'samples come',
  );
  assert.ok(rows >= 3);
  await cpu.getByRole('button', { name: /^Graph/ }).click();
  await page.waitForTimeout(8000);
  await app.picture('graphs');
  await app.tab('Details');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  await app.picture('details');

  await app.toList();
  await app.row('First guest').click();
  await until(
    () => app.row('First guest').locator('img').count(),
    (count) => count === 1,
    'a thumbnail',
  );
  await app.picture('list-running');
  await page.emulateMedia({ colorScheme: 'dark' });
  await app.picture('list-running-dark');
  await page.emulateMedia({ colorScheme: 'light' });
  const pid = Number(
    await page.locator('aside dt', { hasText: 'Process' }).locator('xpath=following-sibling::dd[1]').textContent(),
  );
  process.kill(pid, 'SIGKILL');
  await app.row('First guest').getByText('Crashed').waitFor();
  const inspector = page.getByRole('complementary', { name: 'Selected virtual machine' });
  await inspector.getByLabel('The end of the log').waitFor();
  await app.picture('crashed');
  await inspector.getByRole('button', { name: 'Start again' }).click();
  await app.row('First guest').getByText('Running').waitFor({ timeout: 60_000 });
  await app.row('First guest').dblclick();
  await app.tab('Serial');
  // What the run before wrote may still stand there: only an answer says that this one has booted.
  const ask = async (): Promise<string> => {
    await page.keyboard.type('echo again-$((6*7))\n', { delay: 40 });
    await page.waitForTimeout(2000);
    return serial();
  };
  await until(ask, (text) => text.includes('again-42'), 'a shell again', bootMs);

  // The history of the run before is there still, and the power button ends this one.
  await app.tab('Graphs');
  await until(
    () => page.getByText(/samples, one every/).textContent(),
    (text) => Number.parseInt(text ?? '', 10) > 5,
    'samples of both runs',
  );
  await page.getByRole('button', { name: 'Power button' }).click();
  await page.getByText('Off', { exact: true }).waitFor({ timeout: 120_000 });
  await app.tab('Serial');
  assert.match(await serial(), /\S/, 'what it said stays when it is off');
  assert.deepEqual(app.complaints, []);
});
