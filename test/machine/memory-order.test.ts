/** What CPUs see of each other's memory accesses: litmus tests, code that another CPU changes, locked operations. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { root, startVm } from './harness.ts';

const FLAGS = [
  ...['-m32', '-O2', '-ffreestanding', '-nostdlib', '-static', '-fno-pic', '-no-pie', '-mno-sse', '-mgeneral-regs-only'],
  ...['-fno-stack-protector', '-fno-asynchronous-unwind-tables', '-fcf-protection=none'],
  ...['-Wl,-Ttext=0x101000', '-Wl,--section-start=.boot=0x100000', '-Wl,--build-id=none'],
];
const CPUS = 4;

const folder = mkdtempSync(join(tmpdir(), 'vivarium-memory-order-'));
const image = join(folder, 'kernel.elf');
const source = join(root, 'test/machine/guest/memory-order.c');
const built = spawnSync('gcc', [...FLAGS, `-DEXPECTED=${CPUS}`, '-o', image, source], { encoding: 'utf8' });
const skip = built.status === 0 ? false : `gcc cannot make 32-bit code here: ${built.stderr ?? built.error}`;
test.after(() => rmSync(folder, { recursive: true, force: true }));

test(`the order of loads and stores between ${CPUS} vCPUs is x86's`, { skip }, async (context) => {
  const more = ['-kernel', image, '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x4'];
  const vm = startVm(context, { cpus: CPUS, memory: 64, kernel: false, more });
  assert.equal(await vm.exit(150), 1, vm.output + vm.complaints);
  const lines = vm.output.replaceAll('\r', '').split('\n');
  assert.equal(lines[0], `cpus ${CPUS}`);
  const tried = new Map<string, [number, number]>();
  for (const line of lines) {
    const found = /^(\S+) tried (\d+) (?:relaxed|wrong) (\d+)$/.exec(line);
    if (found !== null) tried.set(found[1], [Number(found[2]), Number(found[3])]);
  }
  context.diagnostic([...tried].map(([name, [all, odd]]) => `${name} ${odd}/${all}`).join(', '));
  // A store may wait while a later load goes ahead: SB may come out so. No other test may.
  const names = ['SB+mfence', 'SB+lock', 'SB+xchg', 'MP', 'LB', 'CoRR', 'R+mfence', 'WRC', 'IRIW', 'cross-modified'];
  for (const name of ['SB', ...names]) assert.ok((tried.get(name)?.[0] ?? 0) >= 3000, `${name} was not tried: ${vm.output}`);
  for (const name of names) assert.equal(tried.get(name)?.[1], 0, name);
  for (const line of [
    'patched under way wrong 0',
    ...['aligned', 'not aligned', 'across lines', 'across pages'].map((what) => `locked ${what} good`),
    'done',
  ])
    assert.ok(lines.includes(line), `${line}: ${vm.output}`);
});
