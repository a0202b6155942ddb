/** Snapshots of whole machines and their state in files: under Linux, with several vCPUs, judged by what goes on after it. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { DriveConfig, MachineConfig } from '../../engine/contract/machine-config.ts';
import { startVm, type Vm, withoutGuest } from './harness.ts';
import { initrdWith } from './modules.ts';

const qemuImg = spawnSync('qemu-img', ['--version']).status === 0;
const skip = withoutGuest() || (!qemuImg && 'there is no qemu-img here');

function setUp(context: TestContext): { folder: string; initrd: string | undefined; image: string } {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-snapshot-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const image = join(folder, 'disk.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
  return { folder, initrd: initrdWith(['virtio_blk'], folder), image };
}

const disk = (file: string): DriveConfig => ({
  id: 'disk',
  file,
  format: 'qcow2',
  media: 'disk',
  interface: 'virtio',
  readOnly: false,
  snapshot: false,
  cache: 'writeback',
  discard: 'unmap',
});

/**
 * A counter that runs on each vCPU, with a sum over what it went through: a wrong step would show. One that is ended
 * writes where it is first: the shell runs the trap between two commands, never while the file is empty, and a step is one
 * command. (`$$` would be the shell that started both.)
 */
const COUNT =
  "count() { n=0; s=0; trap 'echo $n $s > /tmp/c'$1'; exit' TERM; while :; do : $((s=(s*31+(n+=1))%1000003)); echo $n $s > /tmp/c$1; done; }; " +
  'for i in 0 1; do (read pid rest < /proc/self/stat; taskset -p $((1<<i)) $pid >/dev/null || echo no taskset; count $i) & done';
/** Whether the counters say what they must. */
const CHECK =
  'for i in 0 1; do read n s < /tmp/c$i; m=0; t=0; while [ $m -lt $n ]; do m=$((m+1)); t=$(((t*31+m)%1000003)); done; [ $t = $s ] && echo good $n || echo BAD $n $s $t; done';
const END = 'kill %1 %2; wait';

/** How far a counter is; while it writes, its file is empty for a moment. */
const LOOK = 'c=; until [ -n "$c" ]; do read c d < /tmp/c0; done; echo $c';

/** Waits for the only job to end; its error. */
async function concluded(vm: Vm): Promise<string | undefined> {
  for (let n = 0; n < 600; n++) {
    const jobs = (await vm.qmp('query-jobs')) as { status: string; error?: string }[];
    if (jobs[0].status === 'concluded') return jobs[0].error;
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.fail('the job does not end');
}

async function finish(vm: Vm): Promise<void> {
  vm.type('poweroff -f\n');
  assert.equal(await vm.exit(40), 0, vm.complaints);
}

test('a snapshot with two vCPUs at work: saved, changed, loaded twice, goes on exactly', { skip }, async (context) => {
  const { initrd, image } = setUp(context);
  if (initrd === undefined) return context.skip('the module virtio_blk cannot be fetched here');
  const vm = startVm(context, { cpus: 2, memory: 256, initrd, config: { drives: [disk(image)] } });
  await vm.shell();
  await vm.command('insmod /more/virtio_blk.ko; sleep 1');
  await vm.command('printf before | dd of=/dev/vda bs=512 count=1 conv=sync,notrunc 2>/dev/null; sync');
  await vm.command(COUNT);
  await vm.command('sleep 1; x=kept');

  await vm.qmp('human-monitor-command', { 'command-line': 'savevm one' });
  assert.match(String(await vm.qmp('human-monitor-command', { 'command-line': 'info snapshots' })), /one/);
  // It went on by itself.
  await vm.command('x=lost; printf after | dd of=/dev/vda bs=512 count=1 conv=sync,notrunc 2>/dev/null; sync');
  await vm.command(`${END}; rm -f /tmp/c*; mkdir /tmp/new`);

  for (let round = 0; round < 2; round++) {
    const answer = String(await vm.qmp('human-monitor-command', { 'command-line': 'loadvm one' }));
    assert.equal(answer, '');
    assert.deepEqual(await vm.qmp('query-status'), { status: 'running', singlestep: false, running: true });
    vm.type('\n');
    await vm.waitFor('# ', 30);
    assert.equal(await vm.command('echo $x; ls -d /tmp/new 2>/dev/null'), 'kept');
    assert.match(await vm.command('dd if=/dev/vda bs=512 count=1 iflag=direct 2>/dev/null | head -c 6'), /^before/);
    const first = await vm.command(LOOK);
    await vm.command('sleep 1');
    assert.ok(Number(await vm.command(LOOK)) > Number(first), 'the counters go on');
  }
  await vm.command(END);
  const checked = await vm.command(CHECK, 120);
  assert.match(checked, /good \d+\ngood \d+$/);

  // As a job, by name, beside one that exists.
  await vm.qmp('snapshot-save', { 'job-id': 'j0', tag: 'one', vmstate: '#block-disk', devices: ['disk'] });
  assert.match(String(await concluded(vm)), /already exists/);
  await vm.qmp('job-dismiss', { id: 'j0' });
  await vm.qmp('snapshot-save', { 'job-id': 'j1', tag: 'two', vmstate: '#block-disk', devices: ['disk'] });
  assert.equal(await concluded(vm), undefined);
  await vm.qmp('job-dismiss', { id: 'j1' });
  assert.equal(await vm.qmp('human-monitor-command', { 'command-line': 'delvm one' }), '');
  await vm.qmp('snapshot-load', { 'job-id': 'j2', tag: 'x', vmstate: 'none', devices: [] });
  assert.match(String(await concluded(vm)), /Cannot find device='none'/);
  await vm.qmp('job-dismiss', { id: 'j2' });
  await finish(vm);
  execFileSync('qemu-img', ['check', '-q', image]);
  const listed = execFileSync('qemu-img', ['snapshot', '-l', image], { encoding: 'utf8' });
  assert.match(listed, /two\s+\d/);
  assert.doesNotMatch(listed, /one/);

  // Another process starts from it.
  const lifecycle: MachineConfig['lifecycle'] = {
    paused: false,
    onReboot: 'exit',
    onPoweroff: 'exit',
    restore: { kind: 'snapshot', name: 'two' },
  };
  const second = startVm(context, { cpus: 2, memory: 256, initrd, config: { drives: [disk(image)], lifecycle } });
  second.type('\n');
  await second.waitFor('# ', 60);
  assert.equal(await second.command('echo $x'), 'kept');
  await finish(second);
});

test('saved to a file and restored by another process; a state of another machine is refused', {
  skip: withoutGuest(),
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-save-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'state');
  const vm = startVm(context, { cpus: 2, memory: 512, config: {} });
  await vm.shell();
  await vm.command('x=kept; head -c 60000000 /dev/zero | tr "\\\\0" x > /tmp/big; md5sum /tmp/big > /tmp/sum', 120);
  await vm.qmp('query-status');
  const began = performance.now();
  await vm.qmp('migrate', { uri: `file:${file}` });
  await vm.event('STOP', 20);
  for (let n = 0; !existsSync(file); n++) {
    assert.ok(n < 600, JSON.stringify(await vm.qmp('query-migrate')));
    await new Promise((done) => setTimeout(done, 20));
  }
  context.diagnostic(
    `saved ${(statSync(file).size / 1048576).toFixed(0)} MiB of a 512 MiB guest in ${(performance.now() - began).toFixed(0)} ms`,
  );
  assert.equal(((await vm.qmp('query-status')) as { status: string }).status, 'postmigrate');
  await vm.qmp('quit');
  await vm.exit(20);

  const lifecycle: MachineConfig['lifecycle'] = {
    paused: false,
    onReboot: 'exit',
    onPoweroff: 'exit',
    restore: { kind: 'file', path: file },
  };
  const other = startVm(context, { cpus: 1, memory: 512, config: { lifecycle } });
  await other.exit(60);
  assert.match(other.complaints, /another machine: it has CPUs: 2, this one 1/);
  const second = startVm(context, { cpus: 2, memory: 512, config: { lifecycle: { ...lifecycle, paused: true } } });
  assert.equal(((await second.qmp('query-migrate')) as { status: string }).status, 'completed');
  context.diagnostic(`restored in ${((await second.qmp('query-migrate')) as { 'total-time': number })['total-time']} ms`);
  await second.qmp('cont');
  second.type('\n');
  await second.waitFor('# ', 60);
  assert.equal(await second.command('echo $x; md5sum -c /tmp/sum', 60), 'kept\n/tmp/big: OK');
  assert.match(await second.command('cat /proc/cpuinfo | grep -c processor'), /^2$/);
  await finish(second);
});
