/**
 * Debian's installer, kernel and initial RAM disk of its package: the textual one is driven by keys through its first
 * screens, the graphical one shows its first page and follows the keyboard.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { root, startVm, type Vm } from './harness.ts';
import { decodePng, type Image } from './png.ts';
import { screenText } from './screen-text.ts';

const PACKAGE = 'debian-installer-12-netboot-amd64';
const CACHE = join(root, '.cache', 'guests');
/** Seconds that the slowest step may take: the host may be busy with other things. */
const PATIENCE = 900;

/** Kernel and initial RAM disk of the installer, fetched once; undefined where that cannot be. */
function installer(kind: 'text' | 'gtk'): readonly string[] | undefined {
  const kept = join(CACHE, PACKAGE);
  if (!existsSync(kept)) {
    mkdirSync(CACHE, { recursive: true });
    const work = mkdtempSync(join(CACHE, '.installer-'));
    try {
      execFileSync('apt-get', ['-q', '-o', 'APT::Sandbox::User=root', 'download', PACKAGE], { cwd: work, stdio: 'ignore' });
      const deb = readdirSync(work).find((each) => each.endsWith('.deb')) ?? '';
      execFileSync('dpkg-deb', ['-x', deb, 'files'], { cwd: work });
      renameSync(join(work, 'files/usr/lib/debian-installer/images/12/amd64'), kept);
    } catch {
      return undefined;
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  const folder = join(kept, kind, 'debian-installer', 'amd64');
  return ['-kernel', join(folder, 'linux'), '-initrd', join(folder, 'initrd.gz')];
}

class Screen {
  readonly #vm: Vm;

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  async picture(): Promise<Image> {
    const filename = join(this.#vm.folder, 'screen.png');
    await this.#vm.qmp('screendump', { filename, format: 'png' });
    return decodePng(readFileSync(filename));
  }

  /** Waits until `look` finds something on the screen. */
  async until<T>(look: (image: Image) => T | undefined, what: string): Promise<T> {
    for (const end = Date.now() + PATIENCE * 1000; ; ) {
      const image = await this.picture();
      const found = look(image);
      if (found !== undefined) return found;
      assert.ok(Date.now() < end && !this.#vm.ended, `no ${what}:\n${screenText(image) ?? ''}\n${this.#vm.complaints}`);
      await new Promise((done) => setTimeout(done, 500));
    }
  }

  /** Waits for text, in text mode. */
  async text(wanted: RegExp): Promise<void> {
    await this.until((image) => (wanted.test(screenText(image) ?? '') ? true : undefined), String(wanted));
  }

  async press(key: string): Promise<void> {
    await this.#vm.qmp('send-key', { keys: [{ type: 'qcode', data: key }] });
  }
}

function start(context: TestContext, kind: 'text' | 'gtk', append: string): Screen | undefined {
  const files = installer(kind);
  if (files === undefined) {
    context.skip(`the package ${PACKAGE} cannot be fetched here`);
    return undefined;
  }
  return new Screen(startVm(context, { kernel: false, memory: 1024, cpus: 2, more: [...files, '-append', append] }));
}

test("the first screens of Debian's textual installer, by keys", { timeout: 4 * PATIENCE * 1000 }, async (context) => {
  const screen = start(context, 'text', 'fb=false nomodeset --- quiet');
  if (screen === undefined) return;
  await screen.text(/Select a language.*English +- +English/s);
  await screen.press('ret');
  await screen.text(/Select your location.*United States/s);
  await screen.press('up');
  await screen.press('ret');
  await screen.text(/Configure the keyboard.*Keymap to use/s);
  await screen.press('ret');
  // There is no network card in this machine.
  await screen.text(/No Ethernet card was detected/);
});

/** Colour of what is chosen in the list. */
const CHOSEN = [0x29, 0x86, 0x7e];

/** First and last line of the bar that marks the language that is chosen; undefined where there is none. */
function chosenBar({ width, height, rgb }: Image): { top: number; bottom: number } | undefined {
  if (width !== 1024 || height !== 768) return undefined;
  const isChosen = (y: number): boolean => CHOSEN.every((part, n) => Math.abs(rgb[(y * width + 400) * 3 + n] - part) < 8);
  const lines = Array.from({ length: height }, (_, y) => y).filter((y) => y > 170 && isChosen(y));
  return lines.length < 15 ? undefined : { top: lines[0], bottom: lines[lines.length - 1] };
}

/** Waits until the bar has not moved for some seconds, and is not at `before`. */
async function settledBar(screen: Screen, before?: number): Promise<{ top: number; bottom: number }> {
  let last = -1;
  let seen = 0;
  return await screen.until((image) => {
    const bar = chosenBar(image);
    seen = bar !== undefined && bar.top === last ? seen + 1 : 0;
    last = bar?.top ?? -1;
    return seen >= 8 && last !== before ? bar : undefined;
  }, 'list of languages');
}

test("the first page of Debian's graphical installer", { timeout: 4 * PATIENCE * 1000 }, async (context) => {
  const screen = start(context, 'gtk', 'vga=788 --- quiet');
  if (screen === undefined) return;
  const english = await settledBar(screen);
  assert.ok(english.bottom - english.top < 40, 'one line is chosen');
  await screen.press('down');
  const below = await settledBar(screen, english.top);
  assert.ok(below.top > english.bottom - 2 && below.top < english.bottom + 12, `${below.top} is below ${english.bottom}`);
});
