/** SeaBIOS, unmodified, from the reset vector to the point where it finds nothing to boot. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm } from './harness.ts';
import { bootDisk } from './images.ts';
import { decodePng, inkOf } from './png.ts';

const BIOS = '/usr/share/seabios/bios-256k.bin';

test('SeaBIOS: its log, its screen', {
  skip: existsSync(BIOS) ? false : 'the package seabios is not installed',
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-firmware-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const log = join(folder, 'log');
  const vm = startVm(context, {
    kernel: false,
    memory: 128,
    cpus: 2,
    more: ['-bios', BIOS, '-chardev', `file,id=log,path=${log}`, '-device', 'isa-debugcon,iobase=0x402,chardev=log'],
  });
  const said = (): string => (existsSync(log) ? readFileSync(log, 'latin1') : '');
  for (let n = 0; !said().includes('No bootable device'); n++) {
    assert.ok(n < 500 && !vm.ended, `the firmware stopped at:\n${said().slice(-2000)}\n${vm.complaints}`);
    await new Promise((done) => setTimeout(done, 200));
  }
  for (const line of [
    'SeaBIOS (version',
    'qemu/e820: addr 0x0000000000000000 len 0x0000000008000000 [RAM]',
    'table(50434146)',
    'Found 2 cpu(s) max supported 2 cpu(s)',
    'Running option rom at c000:0003',
    'PS2 keyboard initialized',
    'All threads complete',
  ])
    assert.ok(said().includes(line), `${line}\n${said()}`);
  const path = join(vm.folder, 'screen.png');
  await vm.qmp('screendump', { filename: path, format: 'png' });
  const image = decodePng(readFileSync(path));
  assert.deepEqual([image.width, image.height], [720, 400]);
  assert.ok(inkOf(image, 0, 16) > 200, 'the first line names the version');
  await vm.qmp('quit');
  assert.equal(await vm.exit(20), 0);
});

test('SeaBIOS starts a virtio disk', {
  skip: existsSync(BIOS) ? false : 'the package seabios is not installed',
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-firmware-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'disk.img');
  writeFileSync(file, bootDisk());
  const vm = startVm(context, {
    kernel: false,
    memory: 64,
    config: {
      boot: { kind: 'firmware', image: BIOS, order: 'c' },
      devices: [{ driver: 'isa-debug-exit', properties: { iobase: '0xf4', iosize: '4' } }],
      drives: [
        {
          ...{ id: 'a', file, format: 'raw', media: 'disk', interface: 'virtio' },
          ...{ readOnly: false, snapshot: false, cache: 'writeback', discard: 'unmap' },
        },
      ],
    },
  });
  assert.equal(await vm.exit(100), 37, vm.complaints);
  assert.match(vm.output, /the boot sector\nthe second sector\n/);
});
