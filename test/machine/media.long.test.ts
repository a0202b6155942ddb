/** CDs that SeaBIOS starts: memtest86+ by floppy emulation, iPXE by ISOLINUX. What they show is read off their screens. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startVm } from './harness.ts';
import { decodePng } from './png.ts';
import { screenText } from './screen-text.ts';

const MEMTEST = '/usr/lib/memtest86+/memtest86+x64.iso';
const IPXE = '/usr/lib/ipxe/ipxe.iso';

/** Starts a CD; the function returned reads the text screen. */
function start(context: TestContext, iso: string, more: readonly string[] = []) {
  const vm = startVm(context, { kernel: false, memory: 64, more: ['-cdrom', iso, '-boot', 'd', ...more] });
  const picture = join(vm.folder, 'screen.png');
  const screen = async (): Promise<string> => {
    await vm.qmp('screendump', { filename: picture, format: 'png' });
    return screenText(decodePng(readFileSync(picture))) ?? '';
  };
  const until = async (wanted: RegExp, seconds: number, keys: readonly string[] = []): Promise<void> => {
    for (let n = 0; ; n++) {
      const text = await screen();
      if (wanted.test(text)) return;
      assert.ok(n < seconds && !vm.ended, `no ${wanted}:\n${text}\n${vm.complaints}`);
      if (keys.length > 0) await vm.qmp('send-key', { keys: keys.map((data) => ({ type: 'qcode', data })) });
      await new Promise((done) => setTimeout(done, 1000));
    }
  };
  return { vm, until };
}

test('memtest86+ finishes a pass', {
  skip: existsSync(MEMTEST) ? false : 'the package memtest86+ is not installed',
}, async (context) => {
  const { vm, until } = start(context, MEMTEST);
  await until(/Memtest86\+/, 300);
  await until(/Pass: +1 +Errors: 0/, 1800);
  await vm.qmp('quit');
});

test('ISOLINUX starts iPXE, which reaches its prompt', {
  skip: existsSync(IPXE) ? false : 'the package ipxe is not installed',
}, async (context) => {
  const { vm, until } = start(context, IPXE);
  await until(/iPXE initialising devices\.\.\.ok/, 600);
  await until(/iPXE>/, 300, ['ctrl', 'b']);
  await vm.qmp('quit');
});
