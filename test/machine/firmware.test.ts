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

for (const machine of ['pc', 'q35'])
  test(`SeaBIOS with system management mode on ${machine}`, {
    skip: existsSync(BIOS) ? false : 'the package seabios is not installed',
  }, async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-firmware-'));
    context.after(() => rmSync(folder, { recursive: true, force: true }));
    const log = join(folder, 'log');
    const options = ['-machine', `${machine},smm=on`, '-bios', BIOS, '-chardev', `file,id=log,path=${log}`];
    const more = [...options, '-device', 'isa-debugcon,iobase=0x402,chardev=log'];
    const vm = startVm(context, { kernel: false, memory: 64, cpus: 2, more });
    const said = (): string => (existsSync(log) ? readFileSync(log, 'latin1') : '');
    for (let n = 0; !said().includes('No bootable device'); n++) {
      assert.ok(n < 500 && !vm.ended, `the firmware stopped at:\n${said().slice(-2000)}\n${vm.complaints}`);
      await new Promise((done) => setTimeout(done, 200));
    }
    // It has waited for its handler's answer before: without SMIs it would not come here.
    await vm.qmp('quit');
    assert.equal(await vm.exit(20), 0);
  });

for (const on of ['virtio', 'nvme'] as const)
  test(`SeaBIOS starts a disk on ${on}, as the app has it`, {
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
            ...{ id: 'a', file, format: 'raw', media: 'disk', interface: on },
            ...{ readOnly: false, snapshot: false, cache: 'writeback', discard: 'unmap' },
          },
        ],
      },
    });
    assert.equal(await vm.exit(100), 37, vm.complaints);
    assert.match(vm.output, /the boot sector\nthe second sector\n/);
  });

const CONTROLLERS: Readonly<Record<string, (drive: string) => readonly string[]>> = {
  ide: (drive) => ['-drive', drive],
  ahci: (drive) => ['-M', 'q35', '-drive', drive],
  scsi: (drive) => ['-drive', `${drive},if=scsi`],
  floppy: (drive) => ['-drive', `${drive},if=floppy`, '-boot', 'a'],
  nvme: (drive) => ['-drive', `${drive},if=none,id=d`, '-device', 'nvme,drive=d,serial=1,bootindex=0'],
};

for (const [name, place] of Object.entries(CONTROLLERS))
  test(`SeaBIOS starts a disk: ${name}`, {
    skip: existsSync(BIOS) ? false : 'the package seabios is not installed',
  }, async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'vivarium-firmware-'));
    context.after(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'disk.img');
    writeFileSync(file, name === 'floppy' ? bootDisk().subarray(0, 1440 * 1024) : bootDisk());
    const more = [...place(`file=${file},format=raw`), '-device', 'isa-debug-exit,iobase=0xf4,iosize=4'];
    const vm = startVm(context, { kernel: false, memory: 64, more });
    assert.equal(await vm.exit(200), 37, vm.complaints);
    assert.match(vm.output, /the boot sector\nthe second sector\n/);
  });

const OVMF = '/usr/share/OVMF';

test('OVMF: its shell on q35, and variables that are kept', {
  skip: existsSync(`${OVMF}/OVMF_CODE_4M.fd`) ? false : 'the package ovmf is not installed',
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-firmware-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const variables = join(folder, 'vars.fd');
  const fresh = readFileSync(`${OVMF}/OVMF_VARS_4M.fd`);
  writeFileSync(variables, fresh);
  const vm = startVm(context, {
    ...{ kernel: false, memory: 256 },
    more: [
      ...['-M', 'q35', '-drive', `if=pflash,format=raw,readonly=on,file=${OVMF}/OVMF_CODE_4M.fd`],
      ...['-drive', `if=pflash,format=raw,file=${variables}`],
    ],
  });
  await vm.waitFor('UEFI Interactive Shell', 300);
  await vm.waitFor('Shell>', 120);
  vm.type('reset -s\r');
  assert.equal(await vm.exit(120), 0, vm.complaints);
  const kept = readFileSync(variables);
  assert.equal(kept.length, fresh.length);
  assert.ok(!kept.equals(fresh), 'the boot options are in the file');
});
