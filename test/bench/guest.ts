/**
 * Programs of fixed work in the guest, timed by the guest's own clock, beside QEMU TCG. The sample guest's initial RAM
 * disk gets a second archive with a script (`rdinit=/bench`) that runs them one after the other; what each prints is
 * compared between the machines, so that a wrong result is no fast result.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { type CpioMember, cpioArchive } from '../../main/guests/cpio.ts';
import type { BenchOptions } from './bench.ts';
import { bootOptions } from './boot.ts';
import { BenchMachine, findPeer, guestInitrd, ours, type Peer, versionOf } from './machines.ts';
import { geometricMean, hostFacts, median, round, table, writeResult } from './report.ts';

/** Each: a shell command whose output is its result. */
const programs: Readonly<Record<string, string>> = {
  sha256: 'sha256sum < /tmp/data',
  gzip: 'gzip -c < /tmp/data | md5sum',
  bunzip: 'bzip2 -c < /tmp/small | bunzip2 -c | md5sum',
  sort: 'sort -r < /tmp/small | md5sum',
  awk: `awk 'BEGIN { for (i = 0; i < 400000; i++) { s += i * i % 7; a[i % 100] += s } print s, a[42] }'`,
  grep: `grep -c '[13]7[^5]*9$' /tmp/data`,
  fork: 'i=0; while [ $i -lt 400 ]; do busybox true; i=$((i+1)); done; echo $i',
  pipe: 'dd if=/dev/zero bs=64 count=60000 2>/dev/null | dd bs=64 2>/dev/null | md5sum',
  nbody: '/bin/nbody 60000',
  // Long enough that making the code does not count for much.
  nbody_long: '/bin/nbody 300000',
  matmul: '/bin/matmul 12',
  // Two at once: what two vCPUs are worth.
  two: '{ sha256sum < /tmp/data & sha256sum < /tmp/data; wait; }',
};

/** Programs of our own, in `guest-programs/`. They compute with floating-point numbers. */
const sources = ['nbody', 'matmul'] as const;
const isOwn = (name: string): boolean => sources.some((source) => programs[name].startsWith(`/bin/${source} `));

const script = (names: readonly string[]): string => `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp
seq 1 900000 > /tmp/data
seq 1 60000 > /tmp/small
now() { read up idle < /proc/uptime; echo \${up%.*}\${up#*.}; }
${names
  .map(
    (name) => `begun=$(now)
result=$(${programs[name]} 2>&1 | tr '\\n' ' ')
ended=$(now)
echo "BENCH ${name} $(( (ended - begun) * 10 )) $result" > /dev/ttyS0`,
  )
  .join('\n')}
echo 'BENCH-END' > /dev/ttyS0
poweroff -f
`;

interface Timing {
  readonly milliseconds: number;
  readonly result: string;
}

async function runGuest(peer: Peer, cpus: number, initrd: string, names: readonly string[]): Promise<Map<string, Timing>> {
  const machine = new BenchMachine(peer, bootOptions(cpus, 'console=ttyS0 quiet rdinit=/bench', initrd));
  try {
    await machine.until(/BENCH-END/, 1800);
    await machine.end(120);
  } finally {
    machine.kill();
  }
  const timings = new Map<string, Timing>();
  for (const [, name, milliseconds, result] of machine.text.matchAll(/^BENCH (\w+) (\d+) (.*?)\s*$/gm))
    timings.set(name, { milliseconds: Number(milliseconds), result });
  for (const name of names) if (!timings.has(name)) throw new Error(`${peer.name}: no result of ${name}`);
  return timings;
}

/** The sample's initial RAM disk with the script and the programs behind it. */
function buildInitrd(folder: string, names: readonly string[]): string {
  const members: CpioMember[] = [{ path: 'bench', kind: 'file', mode: 0o755, content: script(names) }];
  for (const source of sources) {
    if (!names.some((name) => programs[name].startsWith(`/bin/${source} `))) continue;
    const program = join(folder, source);
    execFileSync('gcc', ['-O2', '-static', '-o', program, join(import.meta.dirname, 'guest-programs', `${source}.c`), '-lm']);
    members.push({ path: `bin/${source}`, kind: 'file', mode: 0o755, content: readFileSync(program) });
  }
  const sample = readFileSync(guestInitrd);
  const path = join(folder, 'initrd.img');
  // Archives follow each other on boundaries of four bytes (Linux, early-userspace/buffer-format).
  writeFileSync(path, Buffer.concat([sample, Buffer.alloc(-sample.length & 3), gzipSync(cpioArchive(members))]));
  return path;
}

export async function benchGuest({ rounds, cpus, peer: withPeer, only, save }: BenchOptions): Promise<void> {
  const unknown = only.filter((name) => !(name in programs));
  if (unknown.length > 0)
    throw new Error(`no such program: ${unknown.join(', ')} (there are: ${Object.keys(programs).join(', ')})`);
  const names = Object.keys(programs).filter(
    (name) => (only.length === 0 || only.includes(name)) && (!isOwn(name) || existsSync('/usr/bin/gcc')),
  );
  const host = hostFacts();
  const peer = withPeer ? findPeer() : undefined;
  if (withPeer && peer === undefined) console.log('QEMU is not here (apt-get install qemu-system-x86): this engine alone.');
  const peers = peer === undefined ? [ours] : [ours, peer];
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  const times = new Map<string, Map<string, number[]>>(peers.map(({ name }) => [name, new Map(names.map((each) => [each, []]))]));
  const results = new Map<string, string>();
  const differing = new Set<string>();
  try {
    const initrd = buildInitrd(folder, names);
    for (let n = 0; n < rounds; n++)
      for (const each of n % 2 === 0 ? peers : peers.toReversed()) {
        const timings = await runGuest(each, cpus, initrd, names);
        console.log(
          `round ${n + 1}  ${each.name.padEnd(9)} ${names.map((name) => `${name} ${timings.get(name)?.milliseconds}`).join(', ')} (ms)`,
        );
        for (const name of names) {
          const { milliseconds, result } = timings.get(name) as Timing;
          times.get(each.name)?.get(name)?.push(milliseconds);
          if ((results.get(name) ?? result) !== result) differing.add(name);
          results.set(name, result);
        }
      }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const medianOf = (who: Peer, name: string): number => median(times.get(who.name)?.get(name) ?? []);
  const rows = names.map((name) => ({
    name,
    ...Object.fromEntries(peers.map((each) => [each.name, medianOf(each, name)])),
    // Above 1: this engine is faster.
    ...(peer === undefined ? {} : { speed: round(medianOf(peer, name) / Math.max(1, medianOf(ours, name))) }),
  })) as readonly ({ name: string; speed?: number } & Record<string, number | string>)[];
  console.log(`\nMedians of ${rounds} in ms, ${cpus} vCPUs`);
  table(
    ['', ...peers.map(({ name }) => name), ...(peer === undefined ? [] : ['speed beside TCG'])],
    rows.map((row) => [row.name, ...peers.map(({ name }) => row[name]), ...(row.speed === undefined ? [] : [row.speed])]),
  );
  const speeds = rows.flatMap(({ name, speed }) => (speed === undefined || isOwn(name) ? [] : [Math.max(0.001, speed)]));
  const mean = speeds.length === 0 ? undefined : round(geometricMean(speeds));
  if (mean !== undefined) console.log(`\nall but floating point, geometric mean: ${mean} times QEMU TCG's speed`);
  if (differing.size > 0) console.log(`DIFFERENT RESULTS: ${[...differing].join(', ')}`);
  writeResult(
    'guest',
    host,
    {
      versions: Object.fromEntries(peers.map((each) => [each.name, versionOf(each)])),
      medians: rows,
      ...(mean === undefined ? {} : { meanSpeed: mean }),
      differing: [...differing],
    },
    save,
  );
  if (differing.size > 0) process.exitCode = 1;
}
