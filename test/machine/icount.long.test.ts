/** With `-icount` a machine runs the same way each time: to the last instruction, and to the last byte of its memory. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startVm, withoutGuest } from './harness.ts';

const MEMORY = 128;

interface End {
  readonly instructions: string;
  readonly memory: string;
  readonly output: string;
}

/** Boots Linux, which ends at once; what the machine is like then. */
async function boot(context: TestContext): Promise<End> {
  const vm = startVm(context, {
    memory: MEMORY,
    append: 'console=ttyS0 rdinit=/bin/busybox -- poweroff -f',
    more: ['-icount', 'shift=1', '-rtc', 'base=2024-02-29T12:00:00', '-no-shutdown', '-nodefaults'],
  });
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
  const first = await boot(context);
  assert.match(first.output, /reboot: Power down/);
  assert.ok(Number(first.instructions) > 1e8, first.instructions);
  assert.deepEqual(await boot(context), first);
});
