/** The sample guest from power-on to power-off, in all the ways that a machine is made and handled. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MachineStats } from '../../engine/contract/stats.ts';
import { startVm, type Vm, withoutGuest } from './harness.ts';
import { decodePng, type Image, inkOf } from './png.ts';

const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

async function screen(vm: Vm): Promise<Image> {
  const path = join(vm.folder, 'screen.png');
  await vm.qmp('screendump', { filename: path, format: 'png' });
  return decodePng(readFileSync(path));
}

for (const cpus of [1, 2, 4])
  test(`${cpus} CPUs: a shell that answers, and the command that turns the machine off`, {
    skip: withoutGuest(),
  }, async (context) => {
    const vm = startVm(context, { cpus });
    await vm.shell();
    context.diagnostic(`a shell after ${((performance.now() - vm.began) / 1000).toFixed(1)} s`);
    assert.equal(await vm.command('nproc'), String(cpus));
    assert.equal(await vm.command('grep -c ^processor /proc/cpuinfo'), String(cpus));
    // Every CPU computes, at the same time.
    const loops = 'for c in $(seq $(nproc)); do (i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done $i) & done; wait';
    const text = await vm.command(loops, 120);
    assert.equal(text.match(/done 20000/g)?.length, cpus);
    const list = (await vm.qmp('query-cpus-fast')) as { 'thread-id': number }[];
    assert.equal(new Set(list.map((cpu) => cpu['thread-id'])).size, cpus);
    vm.type('poweroff -f\n');
    assert.equal(await vm.exit(30), 0, vm.complaints);
  });

test('reset by the monitor and by the guest boots again', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context, { cpus: 2, noReboot: false });
  await vm.shell();
  await vm.command('touch /tmp/here');
  await vm.qmp('system_reset');
  const { data } = await vm.event('RESET', 10);
  assert.deepEqual(data, { guest: false, reason: 'host-qmp-system-reset' });
  await vm.shell();
  assert.match(await vm.command('ls /tmp/here'), /No such file/);
  assert.equal(await vm.command('nproc'), '2');
  const seen = vm.events.length;
  vm.skip();
  vm.type('reboot -f\n');
  assert.deepEqual((await vm.event('RESET', 30, seen)).data, { guest: true, reason: 'guest-reset' });
  await vm.shell();
  await vm.qmp('quit');
  assert.equal(await vm.exit(20), 0);
});

test('-no-reboot: a guest that resets ends the machine with status 0', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context);
  await vm.shell();
  vm.type('reboot -f\n');
  assert.equal(await vm.exit(30), 0, vm.complaints);
});

test('screen and keyboard: text typed on tty1 is answered there', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context, { cpus: 2, append: 'console=ttyS0 console=tty0 quiet' });
  await vm.shell();
  await pause(2000);
  const before = await screen(vm);
  assert.deepEqual([before.width, before.height], [720, 400]);
  assert.ok(inkOf(before) > 1000);
  const names: Readonly<Record<string, string>> = { ' ': 'spc', '/': 'slash', '-': 'minus', '.': 'dot', '\n': 'ret' };
  const send = async (text: string): Promise<void> => {
    for (const letter of text) {
      const shift = letter === '>';
      const key = shift ? 'dot' : (names[letter] ?? letter);
      const keys = [...(shift ? ['shift'] : []), key].map((data) => ({ type: 'qcode', data }));
      await vm.qmp('send-key', { keys, 'hold-time': 60 });
    }
  };
  await send('echo typed here > /dev/ttys0\n'.replace('ttys0', 'tty'));
  await pause(5000);
  const after = await screen(vm);
  assert.ok(inkOf(after) > inkOf(before) + 200, 'the command and its answer are on the screen');
  await send('uname > /tmp/typed\n');
  await vm.command('until [ -s /tmp/typed ]; do sleep 1; done', 30);
  assert.equal(await vm.command('cat /tmp/typed'), 'Linux');
  // What the guest writes at the top of an empty screen, and nothing else.
  await vm.command('printf "\\033[2J\\033[H\\033[?25lXXXX" > /dev/tty1');
  await pause(500);
  const plain = await screen(vm);
  assert.ok(inkOf(plain, 0, 16) > 50 && inkOf(plain, 16) === 0, `${inkOf(plain, 0, 16)} above, ${inkOf(plain, 16)} below`);
  await vm.qmp('quit');
  assert.equal(await vm.exit(20), 0);
});

test('stop and cont: no time passes for the guest; statistics', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context, { cpus: 2 });
  await vm.shell();
  const first = (await vm.qmp('x-query-stats')) as MachineStats;
  assert.equal(first.memory.totalBytes, 256 * 1048576);
  assert.ok(
    first.memory.residentBytes > 32 * 1048576 && first.memory.residentBytes < 200 * 1048576,
    `${first.memory.residentBytes}`,
  );
  for (const cpu of first.vcpus) {
    assert.ok(cpu.hostCpuNs > 1e8, `vCPU ${cpu.index}: ${cpu.hostCpuNs} ns`);
    assert.ok(cpu.instructions > 1e6 && (cpu.exits.interrupt ?? 0) > 0 && (cpu.exits.hlt ?? 0) > 0);
  }
  assert.ok((first.vcpus[0].exits.pio ?? 0) > 1000);
  const uptime = async (): Promise<number> => Number((await vm.command('cut -d" " -f1 /proc/uptime')).trim());
  const before = await uptime();
  await vm.qmp('stop');
  const stopped = (await vm.qmp('x-query-stats')) as MachineStats;
  await pause(4000);
  const still = (await vm.qmp('x-query-stats')) as MachineStats;
  assert.equal(still.machineNs, stopped.machineNs);
  assert.deepEqual(
    still.vcpus.map(({ instructions }) => instructions),
    stopped.vcpus.map(({ instructions }) => instructions),
  );
  assert.deepEqual(
    still.vcpus.map(({ state }) => state),
    ['stopped', 'stopped'],
  );
  await vm.qmp('cont');
  const passed = (await uptime()) - before;
  assert.ok(passed < 3.5, `${passed} s passed`);
  // Memory that the guest takes becomes resident.
  await vm.command('dd if=/dev/zero of=/tmp/large bs=1M count=64 2>/dev/null');
  await pause(1000);
  const { memory } = (await vm.qmp('x-query-stats')) as MachineStats;
  assert.ok(memory.residentBytes > first.memory.residentBytes + 40 * 1048576, `${memory.residentBytes}`);
  await vm.qmp('quit');
  assert.equal(await vm.exit(20), 0);
});

test('4 GiB of memory', { skip: withoutGuest() }, async (context) => {
  const vm = startVm(context, { cpus: 2, memory: 4096 });
  await vm.shell(300);
  context.diagnostic(`a shell after ${((performance.now() - vm.began) / 1000).toFixed(1)} s`);
  const total = Number(/MemTotal:\s+(\d+)/.exec(await vm.command('cat /proc/meminfo'))?.[1]);
  assert.ok(total > 3_900_000 && total < 4_194_304, `${total} kB`);
  const { memory } = (await vm.qmp('x-query-stats')) as MachineStats;
  assert.ok(memory.residentBytes < 2 ** 30, `${memory.residentBytes}`);
  await vm.qmp('system_powerdown');
  assert.equal(await vm.exit(60), 0, vm.complaints);
});

test("Debian's kernel for i386", { skip: withoutGuest('i386') }, async (context) => {
  const vm = startVm(context, { architecture: 'i386', cpus: 2 });
  await vm.shell(300);
  assert.match(await vm.command('uname -m'), /^i[56]86$/);
  assert.equal(await vm.command('nproc'), '2');
  assert.equal(await vm.command('echo $((123456789 * 1000))'), '123456789000');
  await vm.qmp('system_powerdown');
  assert.equal(await vm.exit(60), 0, vm.complaints);
});
