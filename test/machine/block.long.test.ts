/** Block commands of QMP on a machine that is at work, judged by its guest and by qemu-img. */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { DriveConfig } from '../../engine/contract/machine-config.ts';
import { startVm, type Vm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const MIB = 1 << 20;
const IDE_MODULES = [
  ...['scsi_common', 'scsi_mod', 'libata', 'ata_piix', 'crc-t10dif', 'crct10dif_common', 'crct10dif_generic'],
  ...['crc64', 'crc64-rocksoft', 't10-pi', 'sd_mod', 'cdrom', 'sr_mod'],
];
const qemuImg = spawnSync('qemu-img', ['--version']).status === 0;
const skip = withoutGuest() || (!qemuImg && 'there is no qemu-img here');

const drive = (id: string, file: string, format: DriveConfig['format'], more: Partial<DriveConfig> = {}): DriveConfig => {
  const common = { media: 'disk', interface: 'virtio', readOnly: false, snapshot: false } as const;
  return { id, file, format, ...common, cache: 'writeback', discard: 'unmap', ...more };
};

/** Waits for an event of a job after the first `from` events. */
async function jobEvent(vm: Vm, name: string, device: string): Promise<void> {
  for (let n = 0; n < 600; n++) {
    if (vm.events.some(({ event, data }) => event === name && data?.device === device)) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail(`no ${name} of ${device}: ${JSON.stringify(vm.events.slice(-8))}`);
}

test('chains, jobs, limits, exports, a full disk and a file that is gone, under a guest', { skip }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-block-'));
  const small = join(folder, 'small');
  context.after(() => {
    spawnSync('umount', ['-l', small]);
    rmSync(folder, { recursive: true, force: true });
  });
  const initrd = initrdWith(['virtio_blk'], folder);
  if (initrd === undefined) return context.skip('the module virtio_blk cannot be fetched here');
  const file = (name: string): string => join(folder, name);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file('a.qcow2'), '32M']);
  execFileSync('qemu-img', ['create', '-q', '-f', 'raw', file('b.raw'), '8M']);
  mkdirSync(small);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6M', 'tmpfs', small]).status === 0;
  const c = join(mounted ? small : folder, 'c.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', c, '16M']);
  const vm = startVm(context, {
    initrd,
    memory: 192,
    config: {
      drives: [
        drive('a', file('a.qcow2'), 'qcow2'),
        drive('b', file('b.raw'), 'raw', { onWriteError: 'stop' }),
        drive('c', c, 'qcow2'),
      ],
    },
  });
  await vm.shell(300);
  await vm.command('insmod /more/virtio_blk.ko; sleep 1');
  const put = (disk: string, text: string, at: number): Promise<string> =>
    vm.command(`printf ${text} | dd of=/dev/vd${disk} bs=4096 seek=${at} conv=sync,notrunc,fsync 2>/dev/null; sync`);
  /** The last line: a command that is longer than the terminal is wide is echoed over several. */
  const last = (text: string): string => text.trim().split('\n').at(-1) ?? '';
  const get = async (disk: string, at: number, length: number): Promise<string> =>
    last(await vm.command(`dd if=/dev/vd${disk} bs=4096 skip=${at} count=1 iflag=direct 2>/dev/null | head -c ${length}`));
  await put('a', 'one', 1);

  const chain = async (): Promise<string[]> => {
    const nodes = (await vm.qmp('query-named-block-nodes')) as { file: string }[];
    return nodes
      .map((node) => node.file.slice(folder.length + 1))
      .filter((name) => !name.startsWith('b') && !name.includes('c.q'));
  };
  await vm.qmp('blockdev-snapshot-sync', { device: 'a', 'snapshot-file': file('a1.qcow2'), 'snapshot-node-name': 'over' });
  await put('a', 'two', 2);
  await assert.rejects(() => vm.qmp('blockdev-snapshot-sync', { device: 'nope', 'snapshot-file': file('x') }), /Cannot find/);
  await assert.rejects(() => vm.qmp('blockdev-snapshot-sync', { device: 'b', 'snapshot-file': file('no/x') }), /No such file/);
  await vm.qmp('blockdev-snapshot-sync', { 'node-name': 'over', 'snapshot-file': file('a2.qcow2') });
  await put('a', 'three', 3);
  assert.deepEqual(await chain(), ['a2.qcow2', 'a1.qcow2', 'a.qcow2']);
  await vm.qmp('block-commit', { device: 'a', 'job-id': 'mid', 'top-node': 'over' });
  await jobEvent(vm, 'BLOCK_JOB_COMPLETED', 'mid');
  assert.deepEqual(await chain(), ['a2.qcow2', 'a.qcow2']);
  await vm.qmp('block-commit', { device: 'a', 'job-id': 'top' });
  await jobEvent(vm, 'BLOCK_JOB_READY', 'top');
  await put('a', 'four', 4);
  await vm.qmp('block-job-complete', { device: 'top' });
  await jobEvent(vm, 'BLOCK_JOB_COMPLETED', 'top');
  assert.deepEqual(await chain(), ['a.qcow2']);
  await vm.qmp('drive-mirror', { device: 'a', 'job-id': 'm', target: file('copy.qcow2'), sync: 'full', format: 'qcow2' });
  await jobEvent(vm, 'BLOCK_JOB_READY', 'm');
  await put('a', 'five', 5);
  await vm.qmp('job-complete', { id: 'm' });
  await jobEvent(vm, 'BLOCK_JOB_COMPLETED', 'm');
  await put('a', 'six', 6);
  for (const [n, text] of ['one', 'two', 'three', 'four', 'five', 'six'].entries())
    assert.equal(await get('a', n + 1, text.length), text);

  await vm.qmp('block_resize', { device: 'a', size: 48 * MIB });
  assert.equal(last(await vm.command('cat /sys/block/vda/size')), String((48 * MIB) / 512));

  await vm.qmp('block_set_io_throttle', { device: 'a', bps: 0, bps_rd: MIB, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 });
  const times = await vm.command('time dd if=/dev/vda of=/dev/null bs=64k count=48 iflag=direct 2>&1');
  assert.ok(Number(/real\s+(?:\d+m)?\s*([\d.]+)/.exec(times)?.[1]) > 2, `3 MiB at 1 MiB/s: ${times}`);
  await vm.qmp('block_set_io_throttle', { device: 'a', bps: 0, bps_rd: 0, bps_wr: 0, iops: 0, iops_rd: 0, iops_wr: 0 });

  const socket = file('nbd.sock');
  await vm.qmp('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
  await vm.qmp('nbd-server-add', { device: 'a', name: 'disk' });
  // Beside the machine, not in its way.
  await away('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', `nbd:unix:${socket}:exportname=disk`, file('exported.raw')]);
  assert.equal(statSync(file('exported.raw')).size, 48 * MIB);
  await vm.qmp('nbd-server-stop');
  const stats = (await vm.qmp('query-blockstats')) as { device: string; stats: Record<string, number> }[];
  assert.ok(
    stats[0].stats.wr_operations > 5 && stats[0].stats.flush_operations > 5 && stats[0].stats.rd_total_time_ns > 0,
    JSON.stringify(stats[0]),
  );
  assert.match(String(await vm.qmp('human-monitor-command', { 'command-line': 'info block' })), /a \(.*copy\.qcow2 \(qcow2\)/);
  await assert.rejects(() => vm.qmp('eject', { device: 'a' }), /not removable/);
  await assert.rejects(() => vm.qmp('device_add', { driver: 'virtio-blk-pci', drive: 'x' }), /can't find value 'x'/);
  await vm.qmp('blockdev-add', { driver: 'qcow2', 'node-name': 'spare', file: { driver: 'file', filename: file('a1.qcow2') } });
  await vm.qmp('blockdev-del', { 'node-name': 'spare' });

  // A file that is moved away stops the machine; put back, it goes on.
  vm.events.length = 0;
  renameSync(file('b.raw'), file('elsewhere'));
  await vm.event('STOP', 20);
  const gone = vm.events.find(({ event }) => event === 'BLOCK_IO_ERROR');
  assert.match(String(gone?.data?.reason), /is gone/);
  assert.equal(((await vm.qmp('query-status')) as { status: string }).status, 'io-error');
  renameSync(file('elsewhere'), file('b.raw'));
  await vm.qmp('cont');
  await put('b', 'back', 1);
  assert.equal(await get('b', 1, 4), 'back');

  // So does one that may not be written any more: immutable, because root may write to whatever has permissions alone.
  if (spawnSync('chattr', ['+i', file('b.raw')]).status === 0) {
    try {
      vm.events.length = 0;
      await vm.event('STOP', 20);
      const refused = vm.events.find(({ event }) => event === 'BLOCK_IO_ERROR');
      assert.match(String(refused?.data?.reason), /cannot be used any more/);
    } finally {
      spawnSync('chattr', ['-i', file('b.raw')]);
    }
    await vm.qmp('cont');
    await put('b', 'again', 2);
    assert.equal(await get('b', 2, 5), 'again');
  }

  // A full disk stops it; with room again the very same requests go through.
  if (mounted) {
    vm.events.length = 0;
    vm.skip();
    vm.type(
      'head -c 12000000 /dev/zero | tr "\\\\0" x > /tmp/x; dd if=/tmp/x of=/dev/vdc bs=64k 2>/dev/null; sync; echo written-$?\n',
    );
    await vm.event('STOP', 60);
    const full = vm.events.find(({ event }) => event === 'BLOCK_IO_ERROR');
    assert.deepEqual([full?.data?.nospace, full?.data?.action, full?.data?.device], [true, 'stop', 'c']);
    const [, , disk] = (await vm.qmp('query-block')) as { 'io-status': string }[];
    assert.equal(disk['io-status'], 'nospace');
    execFileSync('mount', ['-o', 'remount,size=40M', small]);
    await vm.qmp('cont');
    await vm.waitFor('written-0', 120);
    await vm.waitFor('# ', 30);
    const read = last(await vm.command('dd if=/dev/vdc bs=64k count=184 iflag=direct 2>/dev/null | head -c 12000000 | md5sum'));
    assert.equal(read, last(await vm.command('md5sum < /tmp/x')));
  }
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(40), 0, vm.complaints);
  for (const name of [file('copy.qcow2'), file('a.qcow2'), c]) execFileSync('qemu-img', ['check', '-q', name]);
  execFileSync('qemu-img', ['convert', '-O', 'raw', file('copy.qcow2'), file('flat.raw')]);
  execFileSync('cmp', [file('flat.raw'), file('exported.raw')]);
});

test('media change under a guest; a snapshot of a 512 MiB machine with an IDE disk and a CD drive', { skip }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-media-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const initrd = initrdWith(IDE_MODULES, folder);
  if (initrd === undefined) return context.skip('the modules cannot be fetched here');
  const file = (name: string): string => join(folder, name);
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file('h.qcow2'), '32M']);
  for (const name of ['first', 'second']) writeFileSync(file(`${name}.iso`), Buffer.alloc(1 * MIB, `${name} medium `));
  const vm = startVm(context, {
    initrd,
    memory: 512,
    cpus: 2,
    config: {
      drives: [
        drive('h', file('h.qcow2'), 'qcow2', { interface: 'ide' }),
        drive('cd', file('first.iso'), 'raw', { interface: 'ide', media: 'cdrom', readOnly: true }),
      ],
    },
  });
  await vm.shell(300);
  await vm.command(
    `for pass in 1 2 3; do for m in ${IDE_MODULES.join(' ')}; do insmod /more/$m.ko; done; done 2>/dev/null; sleep 4; ls /sys/block/sda`,
    90,
  );
  const last = (text: string): string => text.trim().split('\n').at(-1) ?? '';
  const medium = async (): Promise<string> => last(await vm.command('dd if=/dev/sr0 bs=2048 count=1 2>/dev/null | head -c 12'));
  assert.equal(await medium(), 'first medium');
  await vm.qmp('blockdev-change-medium', { device: 'cd', filename: file('second.iso') });
  await vm.command('sleep 1');
  assert.equal(await medium(), 'second mediu');
  await assert.rejects(() => vm.qmp('blockdev-change-medium', { device: 'cd', filename: file('none.iso') }), /No such file/);
  await vm.command('sleep 1');
  assert.equal(await medium(), 'second mediu');
  await vm.qmp('eject', { device: 'cd', force: true });
  assert.equal(last(await vm.command('dd if=/dev/sr0 bs=2048 count=1 2>&1 | grep -c -i medium')), '1');
  await vm.qmp('blockdev-change-medium', { device: 'cd', filename: file('first.iso') });
  await vm.command('sleep 1');
  assert.equal(await medium(), 'first medium');
  assert.ok(vm.events.filter(({ event }) => event === 'DEVICE_TRAY_MOVED').length >= 6);

  await vm.command('head -c 120000000 /dev/zero | tr "\\\\0" y > /tmp/big; md5sum /tmp/big > /tmp/sum; x=kept', 200);
  await vm.command('printf before | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null');
  const timed = async (line: string): Promise<number> => {
    const began = performance.now();
    assert.equal(await vm.qmp('human-monitor-command', { 'command-line': line }), '');
    return Math.round(performance.now() - began);
  };
  const saved = await timed('savevm s');
  await vm.command('x=lost; rm /tmp/big; printf after | dd of=/dev/sda bs=512 conv=sync,fsync 2>/dev/null');
  const loaded = await timed('loadvm s');
  context.diagnostic(`savevm ${saved} ms, loadvm ${loaded} ms`);
  vm.type('\n');
  await vm.waitFor('# ', 30);
  assert.equal(last(await vm.command('echo $x; md5sum -c /tmp/sum', 90)), '/tmp/big: OK');
  assert.equal(last(await vm.command('dd if=/dev/sda bs=512 count=1 iflag=direct 2>/dev/null | head -c 6')), 'before');
  assert.equal(await medium(), 'first medium');
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(40), 0, vm.complaints);
  execFileSync('qemu-img', ['check', '-q', file('h.qcow2')]);
});

/** Runs a program beside this process's own event loop. */
async function away(program: string, args: string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (data: Buffer) => {
    errors += data;
  });
  const status = await new Promise((done) => child.on('close', done));
  assert.equal(status, 0, errors);
}
