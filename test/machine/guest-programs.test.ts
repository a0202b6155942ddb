/**
 * Programs that show what kernel and processor do to programs (signals, ptrace, segments, faults, system calls) say the
 * same in the guest as on the host.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { cpioArchive } from '../../main/guests/cpio.ts';
import { guest, root, startVm, withoutGuest } from './harness.ts';

const folder = mkdtempSync(join(tmpdir(), 'vivarium-programs-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

const PROGRAMS = {
  behaviours: [
    ...['-O1', '-mavx2', '-mfsgsbase', '-static', '-fno-pie', '-no-pie', '-fcf-protection=none'],
    ...['-fno-omit-frame-pointer', '-mno-red-zone', '-w'],
  ],
  behaviours32: [
    ...['-m32', '-O1', '-msse', '-fno-pic', '-no-pie', '-static', '-nostdlib', '-ffreestanding', '-fno-stack-protector'],
    ...['-fcf-protection=none', '-fno-omit-frame-pointer', '-w'],
  ],
};
const names = Object.keys(PROGRAMS) as (keyof typeof PROGRAMS)[];
/** Programs that are not compared with the host: its processor may have none of what they look at, or not give it away. */
const OWN = { counters: ['-O1', '-static', '-w'] };
const built = (name: string): string => join(folder, name);

function reason(): string | false {
  const missing = withoutGuest();
  if (missing !== false) return missing;
  if (process.arch !== 'x64') return 'the host is no x86-64';
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(' ') ?? [];
  const lacks = ['avx2', 'fsgsbase'].filter((name) => !flags.includes(name));
  if (lacks.length > 0) return `the host's CPU has no ${lacks.join(', ')}`;
  for (const [name, options] of Object.entries({ ...PROGRAMS, ...OWN })) {
    const source = join(root, `test/machine/guest/${name}.c`);
    const made = spawnSync('gcc', [...options, '-o', built(name), source], { encoding: 'utf8' });
    if (made.status !== 0) return `gcc cannot make ${name} here: ${made.stderr ?? made.error}`;
  }
  return false;
}

const skip = reason();

/** The guest's initrd with programs in its root. */
function initrdWith(programs: readonly string[]): string {
  const archive = cpioArchive(programs.map((path) => ({ path, kind: 'file', mode: 0o755, content: readFileSync(built(path)) })));
  const first = readFileSync(guest()?.initrd ?? '');
  const gap = Buffer.alloc((4 - (first.length % 4)) % 4);
  const initrd = join(folder, `initrd-${programs[0]}.img`);
  writeFileSync(initrd, Buffer.concat([first, gap, gzipSync(archive)]));
  return initrd;
}

test('performance counters give Linux exact counts and interrupts', { skip }, async (context) => {
  const vm = startVm(context, { cpus: 1, initrd: initrdWith(['counters']), more: ['-cpu', 'max'] });
  await vm.shell();
  const printed = await vm.command('/counters', 120);
  assert.deepEqual(
    printed.split('\n').map((line) => line.trimEnd()),
    [
      'instructions of 10 million rounds: exact',
      'the same again: yes',
      "the kernel's part of 1000 calls: some",
      'cycles: counted, reference: counted',
      'overflows: signalled',
      'end',
    ],
  );
});

test('signals, ptrace, segments, faults and 32-bit programs are what the host shows', { skip }, async (context) => {
  const initrd = initrdWith(names);
  const vm = startVm(context, { cpus: 2, initrd, more: ['-cpu', 'max'] });
  await vm.shell();
  for (const name of names) {
    const host = spawnSync(built(name), [], { encoding: 'utf8', timeout: 60_000 });
    assert.equal(host.status, 0, host.stdout + host.stderr);
    const printed = await vm.command(`/${name} all; echo "status $?"`, 120);
    const said = printed.split('\n').map((line) => line.trimEnd());
    assert.equal(said.pop(), 'status 0', said.join('\n'));
    // Hosts are hypervisors' guests at times, and those do not all pass INT1 on.
    const ours = said.filter((line) => !line.startsWith('icebp:'));
    assert.deepEqual(ours, host.stdout.trimEnd().split('\n'), name);
    if (name === 'behaviours')
      assert.deepEqual(
        said.filter((line) => line.startsWith('icebp:')),
        ['icebp: 1, code 1'],
      );
  }
});
