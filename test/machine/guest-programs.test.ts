/**
 * A program that shows what kernel and processor do to programs (signals, ptrace, segments, faults) says the same in the
 * guest as on the host.
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

const FLAGS = [
  ...['-O1', '-mavx2', '-mfsgsbase', '-static', '-fno-pie', '-no-pie', '-fcf-protection=none'],
  ...['-fno-omit-frame-pointer', '-mno-red-zone', '-w'],
];
const program = join(folder, 'behaviours');
const source = join(root, 'test/machine/guest/behaviours.c');

function reason(): string | false {
  const missing = withoutGuest();
  if (missing !== false) return missing;
  if (process.arch !== 'x64') return 'the host is no x86-64';
  const flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(' ') ?? [];
  const lacks = ['avx2', 'fsgsbase'].filter((name) => !flags.includes(name));
  if (lacks.length > 0) return `the host's CPU has no ${lacks.join(', ')}`;
  const built = spawnSync('gcc', [...FLAGS, '-o', program, source], { encoding: 'utf8' });
  return built.status === 0 ? false : `gcc cannot make a static program here: ${built.stderr ?? built.error}`;
}

const skip = reason();

test('signals, ptrace, segments and faults are what the host shows', { skip }, async (context) => {
  const host = spawnSync(program, [], { encoding: 'utf8', timeout: 60_000 });
  assert.equal(host.status, 0, host.stdout + host.stderr);
  const archive = cpioArchive([{ path: 'behaviours', kind: 'file', mode: 0o755, content: readFileSync(program) }]);
  const first = readFileSync(guest()?.initrd ?? '');
  const gap = Buffer.alloc((4 - (first.length % 4)) % 4);
  const initrd = join(folder, 'initrd.img');
  writeFileSync(initrd, Buffer.concat([first, gap, gzipSync(archive)]));
  const vm = startVm(context, { cpus: 2, initrd, more: ['-cpu', 'max'] });
  await vm.shell();
  const said = (await vm.command('/behaviours all; echo "status $?"', 120)).split('\n').map((line) => line.trimEnd());
  assert.equal(said.pop(), 'status 0', said.join('\n'));
  // Hosts are hypervisors' guests at times, and those do not all pass INT1 on.
  const ours = said.filter((line) => !line.startsWith('icebp:'));
  assert.deepEqual(ours, host.stdout.trimEnd().split('\n'));
  assert.deepEqual(
    said.filter((line) => line.startsWith('icebp:')),
    ['icebp: 1, code 1'],
  );
});
