/** With `-icount` a machine runs the same way each time: to the last instruction, and to the last byte of its memory. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startVm, type Vm, withoutGuest } from './harness.ts';

const MEMORY = 128;

interface End {
  readonly instructions: string;
  readonly memory: string;
  readonly output: string;
}

/** Starts Linux; `run` does something with it until it has turned off. What the machine is like then. */
async function boot(context: TestContext, append: string, icount: string, run: (vm: Vm) => Promise<unknown>): Promise<End> {
  const vm = startVm(context, {
    memory: MEMORY,
    append: `console=ttyS0 ${append}`,
    more: ['-icount', icount, '-rtc', 'base=2024-02-29T12:00:00', '-no-shutdown', '-nodefaults'],
  });
  await run(vm);
  await vm.event('SHUTDOWN', 600);
  const jit = (await vm.qmp('human-monitor-command', { 'command-line': 'info jit' })) as string;
  const file = join(vm.folder, 'memory');
  await vm.qmp('pmemsave', { val: 0, size: MEMORY << 20, filename: file });
  const memory = createHash('sha256').update(readFileSync(file)).digest('hex');
  const { output } = vm;
  await vm.close();
  return { instructions: /instructions: (\d+)/.exec(jit)?.[1] ?? jit, memory, output };
}

test('two boots of Linux are the same', { skip: withoutGuest() }, async (context) => {
  const once = (): Promise<End> => boot(context, 'rdinit=/bin/busybox -- poweroff -f', 'shift=1', async () => {});
  const first = await once();
  assert.match(first.output, /reboot: Power down/);
  assert.ok(Number(first.instructions) > 1e8, first.instructions);
  assert.deepEqual(await once(), first);
});

test('what was typed is typed again at the same instructions', { skip: withoutGuest() }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-recording-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const file = join(folder, 'events');
  const recorded = await boot(context, 'quiet', `shift=1,rr=record,rrfile=${file}`, async (vm) => {
    await vm.shell(400);
    assert.match(await vm.command('ls /; cat /proc/uptime; echo $((6 * 7))', 200), /42/);
    vm.type('poweroff -f\n');
  });
  assert.deepEqual(await boot(context, 'quiet', `shift=1,rr=replay,rrfile=${file}`, async () => {}), recorded);
});
