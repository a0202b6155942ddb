/** virtio devices under Linux's own drivers: disks with raw and qcow2 images, entropy, a console and a port. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DriveConfig } from '../../engine/contract/machine-config.ts';
import type { MachineStats } from '../../engine/contract/stats.ts';
import { startVm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const MIB = 1 << 20;

function drive(id: string, file: string, format: DriveConfig['format'], more: Partial<DriveConfig> = {}): DriveConfig {
  const common = { media: 'disk', interface: 'virtio', readOnly: false, snapshot: false } as const;
  return { id, file, format, ...common, cache: 'writeback', discard: 'unmap', serial: `serial-${id}`, ...more };
}

test('disks: what the guest writes is in the images when the machine has ended', { skip: withoutGuest() }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-drives-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const initrd = initrdWith(['virtio_blk'], folder);
  if (initrd === undefined) return context.skip('the module virtio_blk cannot be fetched here');
  const [raw, qcow2, fixed, scratch] = ['raw.img', 'disk.qcow2', 'fixed.img', 'scratch.img'].map((name) => join(folder, name));
  const pattern = Uint8Array.from({ length: 8 * MIB }, (_, i) => (i * 31 + (i >> 12)) & 0xff);
  writeFileSync(raw, pattern);
  writeFileSync(fixed, pattern.subarray(0, MIB));
  writeFileSync(scratch, pattern.subarray(0, MIB));
  const qemuImg = spawnSync('qemu-img', ['--version']).status === 0;
  const made = qemuImg
    ? spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', qcow2, '64M'])
    : spawnSync(process.execPath, [
        join(import.meta.dirname, '../../engine/cli/main.ts'),
        'img',
        'create',
        '-f',
        'qcow2',
        qcow2,
        '64M',
      ]);
  assert.equal(made.status, 0, String(made.stderr));

  const vm = startVm(context, {
    cpus: 2,
    initrd,
    config: {
      drives: [
        drive('a', raw, 'raw'),
        drive('b', qcow2, 'qcow2'),
        drive('c', fixed, 'raw', { readOnly: true }),
        drive('d', scratch, 'auto', { snapshot: true }),
      ],
    },
  });
  await vm.shell();
  await vm.command('insmod /more/virtio_blk.ko; sleep 1');
  assert.equal(await vm.command('cat /sys/block/vd[a-d]/size'), '16384\n131072\n2048\n2048');
  assert.equal(await vm.command('cat /sys/block/vd[a-d]/serial'), 'serial-aserial-bserial-cserial-d');
  assert.equal(await vm.command('cat /sys/block/vd[a-d]/ro'), '0\n0\n1\n0');
  const sum = (bytes: Uint8Array): string => execFileSync('md5sum', { input: bytes, encoding: 'utf8' }).split(' ')[0];
  assert.match(await vm.command('md5sum /dev/vda'), new RegExp(sum(pattern)));
  assert.match(await vm.command('md5sum /dev/vdd'), new RegExp(sum(pattern.subarray(0, MIB))));

  await vm.command('dd if=/dev/vda of=/dev/vdb bs=64k seek=100 2>/dev/null; sync');
  await vm.command('printf hello | dd of=/dev/vda bs=1 seek=4096 conv=notrunc 2>/dev/null; sync');
  await vm.command('dd if=/dev/zero of=/dev/vdd bs=64k count=16 2>/dev/null; sync');
  assert.match(await vm.command('dd if=/dev/zero of=/dev/vdc bs=512 count=1'), /read-only|not permitted/i);

  const { drives } = (await vm.qmp('x-query-stats')) as MachineStats;
  assert.deepEqual(
    drives?.map(({ id }) => id),
    ['a', 'b', 'c', 'd'],
  );
  assert.ok((drives?.[0].readBytes ?? 0) >= 8 * MIB && (drives?.[1].writtenBytes ?? 0) >= 8 * MIB);
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(30), 0, vm.complaints);

  const after = readFileSync(raw);
  assert.equal(after.subarray(4096, 4101).toString(), 'hello');
  after.set(pattern.subarray(4096, 4101), 4096);
  assert.ok(after.equals(pattern));
  assert.ok(readFileSync(scratch).equals(pattern.subarray(0, MIB)));
  if (qemuImg) {
    execFileSync('qemu-img', ['check', '-q', qcow2]);
    const copy = join(folder, 'copy.img');
    execFileSync('qemu-img', ['convert', '-O', 'raw', qcow2, copy]);
    const kept = readFileSync(copy).subarray(6400 * 1024, 6400 * 1024 + 8 * MIB);
    assert.ok(kept.subarray(0, 4096).equals(pattern.subarray(0, 4096)) && kept.subarray(MIB).equals(pattern.subarray(MIB)));
  }
});

test('entropy, a console on hvc0, and a named port', { skip: withoutGuest() }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-port-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const [hvc, agent] = ['hvc', 'agent'].map((name) => join(folder, name));
  const socket = (id: string, path: string): string => `socket,id=${id},path=${path},server=on,wait=off`;
  const vm = startVm(context, {
    more: [
      '-device',
      'virtio-rng-pci',
      '-device',
      'virtio-serial-pci',
      '-chardev',
      socket('h', hvc),
      '-chardev',
      socket('g', agent),
    ].concat(['-device', 'virtconsole,chardev=h', '-device', 'virtserialport,chardev=g,name=org.test.0']),
  });
  await vm.shell();
  assert.equal(await vm.command('cat /sys/class/misc/hw_random/rng_current'), 'virtio_rng.0');
  assert.equal(await vm.command('head -c 100000 /dev/hwrng | wc -c'), '100000');

  /** Connects and collects what comes. */
  const open = (
    path: string,
  ): { text: () => string; write(text: string): void; until(text: string): Promise<void>; end(): void } => {
    let text = '';
    const connection = createConnection(path);
    connection.setEncoding('latin1').on('data', (data: string) => {
      text += data;
    });
    return {
      text: () => text,
      write: (data) => void connection.write(data),
      end: () => connection.destroy(),
      until: async (wanted) => {
        for (let n = 0; !text.includes(wanted); n++) {
          if (n > 300) throw new Error(`no '${wanted}' but '${text}'`);
          await new Promise((done) => setTimeout(done, 100));
        }
      },
    };
  };
  const console = open(hvc);
  await vm.command('echo from the guest > /dev/hvc0');
  await console.until('from the guest');
  await vm.command('(read line < /dev/hvc0; echo got $line > /dev/ttyS0) &');
  console.write('typed outside\n');
  await vm.waitFor('got typed outside', 20);
  console.end();
  await vm.command('wait');

  const port = open(agent);
  assert.equal(await vm.command('cat /sys/class/virtio-ports/vport*/name'), 'org.test.0');
  vm.skip();
  vm.type(
    'P=/dev/$(basename $(dirname /sys/class/virtio-ports/*/name)); exec 3<>$P; head -c 200000 /dev/zero | tr "\\\\0" x >&3; echo end >&3; read -r a <&3; echo answer=$a\n',
  );
  await port.until('end');
  assert.equal(port.text().length, 200004);
  port.write('forty-two\n');
  await vm.waitFor('answer=forty-two', 20);
  port.end();
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(30), 0, vm.complaints);
});
