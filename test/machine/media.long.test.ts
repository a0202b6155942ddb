/**
 * CDs that firmware starts: memtest86+ by SeaBIOS (floppy emulation) and by OVMF, iPXE by ISOLINUX. What they show is read
 * off their screens.
 */
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startVm, type VmOptions } from './harness.ts';
import { decodePng } from './png.ts';
import { screenText } from './screen-text.ts';

const MEMTEST = '/usr/lib/memtest86+/memtest86+x64.iso';
const OVMF = '/usr/share/OVMF';
const IPXE = '/usr/lib/ipxe/ipxe.iso';

/** Starts a CD; the function returned reads the text screen. */
function start(context: TestContext, iso: string, options: Pick<VmOptions, 'memory' | 'cpus' | 'more'> = {}) {
  const more = ['-cdrom', iso, '-boot', 'd', ...(options.more ?? [])];
  const vm = startVm(context, { memory: 64, ...options, kernel: false, more });
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

test('memtest86+ finishes a pass by OVMF, on two vCPUs', {
  skip: existsSync(MEMTEST) && existsSync(OVMF) ? false : 'the packages memtest86+ and ovmf are not installed',
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-media-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const variables = join(folder, 'variables.fd');
  copyFileSync(join(OVMF, 'OVMF_VARS_4M.fd'), variables);
  const { vm, until } = start(context, MEMTEST, {
    ...{ memory: 128, cpus: 2 },
    more: [
      ...['-M', 'q35', '-drive', `if=pflash,format=raw,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`],
      ...['-drive', `if=pflash,format=raw,file=${variables}`],
    ],
  });
  await until(/CPU: 2 Cores/, 600);
  // It draws with a font of its own, in which some letters and the zero are not as the BIOS has them: blanks here.
  await until(/Pass: +1 +Errors: *$/m, 3600);
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
