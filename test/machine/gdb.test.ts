/** The gdb stub against the real gdb: a small multiboot program, stepped, stopped, watched and changed. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startVm } from './harness.ts';

const programs = ['/usr/bin/gdb', '/usr/bin/nasm'];
const missing = programs.find((program) => !existsSync(program));

/** Counts at 0x8000 in a subroutine, forever. */
const SOURCE = `
  bits 32
  org 0x100000
  dd 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
  dd 0x100000, 0x100000, 0, 0x101000, start
  times 0x40 - ($ - $$) db 0x90
start:
  mov esp, 0x7000
  mov ebx, 0x8000
again:
  call count
  jmp again
  times 0x80 - ($ - $$) db 0x90
count:
  push eax
  inc dword [ebx]
  pop eax
  ret
`;
const COUNT = 0x100080;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

test('gdb steps, stops, watches and changes', {
  skip: missing === undefined ? false : `${missing} is missing`,
}, async (context) => {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-gdb-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const source = join(folder, 'kernel.asm');
  const kernel = join(folder, 'kernel');
  writeFileSync(source, SOURCE);
  const assembled = spawnSync('/usr/bin/nasm', ['-f', 'bin', '-o', kernel, source], { encoding: 'utf8' });
  assert.equal(assembled.status, 0, assembled.stderr);
  const vm = startVm(context, {
    kernel: false,
    cpus: 2,
    memory: 32,
    more: ['-kernel', kernel, '-S', '-gdb', `tcp:localhost:${port}`, '-cpu', 'qemu32'],
  });
  // The monitor answers when the sockets are there.
  await vm.qmp('query-status');
  const script = [
    'set pagination off',
    'set confirm off',
    'set architecture i386',
    `target remote localhost:${port}`,
    'printf "start %x\\n", $pc',
    'stepi',
    'stepi',
    'printf "stepped %x esp %x ebx %x\\n", $pc, $esp, $ebx',
    `break *${COUNT}`,
    'continue',
    'printf "at %x\\n", $pc',
    'continue',
    'printf "again %x count %d\\n", $pc, *(int *)0x8000',
    'delete',
    'watch *(int *)0x8000',
    'continue',
    'printf "watched %x count %d\\n", $pc, *(int *)0x8000',
    'delete',
    'set var *(int *)0x8000 = 100000',
    'set $ebx = 0x8004',
    `hbreak *${COUNT + 4}`,
    'continue',
    'printf "hardware %x counts %d %d\\n", $pc, *(int *)0x8000, *(int *)0x8004',
    'info threads',
    'monitor info status',
    'delete',
    // From now on the instruction is another one: code that was translated already must go.
    `set var *(unsigned short *)${COUNT + 1} = 0x0bff`,
    'printf "running\\n"',
    'continue',
    'printf "interrupted %d\\n", $pc >= 0x100040 && $pc < 0x100090',
    'printf "down %d\\n", *(int *)0x8004 < 0',
    'detach',
    'quit',
  ].join('\n');
  const file = join(folder, 'script');
  writeFileSync(file, script);
  const gdb = spawn('/usr/bin/gdb', ['-nx', '-q', '-batch', '-x', file], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  let interrupted = false;
  gdb.stdout.on('data', (data) => {
    output += data;
    // What Ctrl-C does in its terminal.
    if (interrupted || !output.includes('running')) return;
    interrupted = true;
    setTimeout(() => gdb.kill('SIGINT'), 1500);
  });
  gdb.stderr.on('data', (data) => {
    output += data;
  });
  const timer = setTimeout(() => gdb.kill('SIGKILL'), 120_000);
  await new Promise((resolve) => gdb.on('close', resolve));
  clearTimeout(timer);
  for (const expected of [
    'start 100040',
    'stepped 10004a esp 7000 ebx 8000',
    'at 100080',
    'again 100080 count 1',
    'watched 100083 count 2',
    'hardware 100084 counts 100000 0',
    'Thread 2 (vCPU 1)',
    'VM status: paused',
    'SIGINT',
    'interrupted 1',
    'down 1',
  ])
    assert.ok(output.includes(expected), `no '${expected}' in:\n${output}\n${vm.complaints}`);
  // Without gdb the machine runs.
  assert.deepEqual(((await vm.qmp('query-status')) as { status: string }).status, 'running');
  await vm.qmp('quit');
  assert.equal(await vm.exit(20), 0, vm.complaints);
});
