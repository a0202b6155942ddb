/** The served app and a Chromium on it, for tests that do what a person does. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { AxeBuilder } from '@axe-core/playwright';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';

export const root = join(import.meta.dirname, '../..');
const executablePath = ['/usr/bin/chromium', '/usr/bin/google-chrome'].find(existsSync);
const flags = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
const startMs = 30_000;

/** Why these tests cannot run here; false where they can. */
export const skip: string | false =
  executablePath === undefined
    ? 'there is no Chromium: apt-get install chromium'
    : existsSync(join(root, 'dist/renderer/index.html'))
      ? false
      : 'the pages are not built: npm test builds them';

/** Pictures of a test run; with VIVARIUM_SCREENSHOTS=docs they go where the documentation has them. */
const pictures = join(root, process.env.VIVARIUM_SCREENSHOTS === 'docs' ? 'docs/screenshots' : 'test/results/screenshots');

export interface AppOptions {
  /** Holds the library and the settings; tests remove it. */
  readonly folder: string;
  /** The program of a VM's process, where it is not the app's own. */
  readonly engineEntry?: string;
}

export class TestApp {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly #server: ChildProcess;
  readonly #browser: Browser;
  /** What the pages complained of. */
  readonly complaints: string[] = [];
  #output: readonly string[];

  private constructor(server: ChildProcess, output: readonly string[], browser: Browser, context: BrowserContext, page: Page) {
    this.#server = server;
    this.#output = output;
    this.#browser = browser;
    this.context = context;
    this.page = page;
    this.watch(page);
  }

  /** Starts the app and opens its page; both end with the test. */
  static async start(test: TestContext, { folder, engineEntry }: AppOptions): Promise<TestApp> {
    const output: string[] = [];
    const server = spawn(
      process.execPath,
      [
        join(root, 'main/shell/serve.ts'),
        '--no-open',
        '--library',
        join(folder, 'library'),
        ...(engineEntry === undefined ? [] : ['--engine-entry', engineEntry]),
      ],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, XDG_CONFIG_HOME: join(folder, 'config'), XDG_DATA_HOME: join(folder, 'data'), HOME: folder },
      },
    );
    // Whatever happens below, nothing of it outlives the test.
    const ended = new Promise<void>((resolve) => void server.once('exit', () => resolve()));
    test.after(async () => {
      server.kill('SIGTERM');
      const late = setTimeout(() => server.kill('SIGKILL'), 10_000);
      await ended;
      clearTimeout(late);
    });
    const address = await new Promise<string>((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`The app gave no address:\n${output.join('')}`)), startMs);
      const read = (data: Buffer): void => {
        output.push(String(data));
        const found = /http:\/\/\S+/.exec(output.join(''));
        if (found === null) return;
        clearTimeout(late);
        resolve(found[0]);
      };
      server.stdout?.on('data', read);
      server.stderr?.on('data', read);
      server.once('exit', (code) => reject(new Error(`The app ended with ${code}:\n${output.join('')}`)));
    });
    const browser = await chromium.launch({ executablePath, args: flags });
    test.after(() => browser.close());
    const context = await browser.newContext({
      viewport: { width: 1180, height: 760 },
      permissions: ['clipboard-read', 'clipboard-write'],
    });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    const app = new TestApp(server, output, browser, context, page);
    await page.goto(address);
    await page.getByRole('button', { name: 'New VM' }).waitFor();
    return app;
  }

  get version(): string {
    return this.#browser.version();
  }

  /** What the app printed. */
  get output(): string {
    return this.#output.join('');
  }

  get pid(): number | undefined {
    return this.#server.pid;
  }

  watch(page: Page): void {
    page.on('pageerror', (error) => this.complaints.push(`${error.stack ?? error}`));
    page.on('console', (message) => {
      if (message.type() === 'error') this.complaints.push(message.text());
    });
  }

  async picture(name: string): Promise<void> {
    mkdirSync(pictures, { recursive: true });
    // What was asked for just before must have been painted; on a busy machine that takes a while.
    await this.page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await this.page.waitForTimeout(400);
    await this.page.screenshot({ path: join(pictures, `${name}.png`) });
  }

  /** No serious or critical violation on what shows now, in light; and in dark, where only colours differ. */
  async checkAccessibility(what: string): Promise<void> {
    for (const colorScheme of ['light', 'dark'] as const) {
      await this.page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      // Colours fade over; axe would measure one on its way.
      await this.page.waitForTimeout(250);
      // Legacy mode: without it every check opens a page more, for frames that there are none of.
      const axe = new AxeBuilder({ page: this.page }).setLegacyMode();
      const { violations } = await (colorScheme === 'light' ? axe : axe.withRules(['color-contrast'])).analyze();
      const grave = violations
        .filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(
          ({ id, nodes }) =>
            `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n      ${failureSummary}`).join('\n    ')}`,
        );
      assert.deepEqual(grave, [], `${what}, ${colorScheme}:\n  ${grave.join('\n  ')}`);
    }
    await this.page.emulateMedia({ colorScheme: 'light' });
  }

  /** Through the wizard to a VM from a kernel; ends where its window shows. */
  async createVm(vm: {
    kernel: string;
    initrd?: string;
    name: string;
    append?: string;
    cpus?: number;
    memoryMiB?: number;
    start?: boolean;
  }) {
    const { page } = this;
    const dialog = page.getByRole('dialog', { name: 'New virtual machine' });
    const next = (): Promise<void> => dialog.getByRole('button', { name: 'Next' }).click();
    await page.getByRole('button', { name: 'New VM' }).click();
    await dialog.getByRole('radio', { name: /^Kernel and initial RAM disk/ }).check();
    await next();
    await dialog.getByLabel('Kernel', { exact: true }).fill(vm.kernel);
    if (vm.initrd !== undefined) await dialog.getByLabel('Initial RAM disk (optional)', { exact: true }).fill(vm.initrd);
    if (vm.append !== undefined) await dialog.getByLabel('Kernel command line').fill(vm.append);
    await next();
    await dialog.getByLabel('Memory (MiB)').fill(String(vm.memoryMiB ?? 256));
    await dialog.getByLabel('CPUs', { exact: true }).fill(String(vm.cpus ?? 2));
    await next();
    await dialog.getByRole('radio', { name: /^No disk/ }).waitFor();
    await next();
    await dialog.getByLabel('Name', { exact: true }).fill(vm.name);
    if (vm.start === false) await dialog.getByLabel('Start it now').uncheck();
    await dialog.getByRole('button', { name: /^Create/ }).click();
    await page.getByRole('heading', { level: 1, name: vm.name }).waitFor();
  }

  tab(name: 'Console' | 'Serial' | 'Details' | 'Graphs' | 'Translator' | 'Snapshots'): Promise<void> {
    return this.page.getByRole('tab', { name }).click();
  }

  async toList(): Promise<void> {
    await this.page.getByRole('link', { name: 'All virtual machines' }).click();
    await this.page.getByRole('grid').or(this.page.getByText('No virtual machines yet')).first().waitFor();
  }

  /** A VM's row in the list. */
  row(name: string) {
    return this.page.getByRole('row').filter({ has: this.page.getByRole('link', { name, exact: true }) });
  }
}

/** Waits until `read` gives something that `good` takes; fails with what was read last. */
export async function until<T>(read: () => Promise<T>, good: (value: T) => boolean, what: string, ms = 30_000): Promise<T> {
  const end = Date.now() + ms;
  for (;;) {
    const value = await read();
    if (good(value)) return value;
    if (Date.now() > end) assert.fail(`${what}: not within ${ms} ms; last: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
