/** What the guests run: each program a shell command of fixed work whose output is its result. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CpioMember } from '../../main/guests/cpio.ts';

/** `integer`: what the bars are about; `short`: too short to say more than what the making of code costs. */
export type Kind = 'integer' | 'floating point' | 'processes' | 'short';

export interface Program {
  readonly kind: Kind;
  readonly command: string;
  /** A program of ours in C, in `guest-programs/`: 64-bit guests only, for the host's compiler makes no other. */
  readonly source?: string;
}

/** Of the work of the `integer` programs: some 3 to 8 s each on QEMU TCG, so that making code is not all that counts. */
export const programs: Readonly<Record<string, Program>> = {
  openssl: { kind: 'integer', command: 'for i in 1 2 3 4 5 6; do openssl dgst -sha256 < /tmp/mix; done | uniq' },
  gzip: { kind: 'integer', command: 'gzip -c < /tmp/mix | md5sum' },
  '7zip': {
    kind: 'integer',
    command:
      '7zz a -mmt1 -mx1 -mtm- /tmp/code.7z /tmp/code > /tmp/log && md5sum < /tmp/code.7z && 7zz e -so /tmp/code.7z | md5sum',
  },
  sysbench: {
    kind: 'integer',
    command: "sysbench cpu --cpu-max-prime=10000 --events=2000 --time=0 run | grep -E 'Prime|total number'",
  },
  python: { kind: 'integer', command: 'PYTHONHASHSEED=0 /usr/bin/python3.* -B -S /bench.d/work.py 3' },
  lua: { kind: 'integer', command: 'lua5.4 /bench.d/work.lua 10' },
  perl: { kind: 'integer', command: 'PERL_HASH_SEED=0 perl /bench.d/work.pl 5' },
  nbody: { kind: 'floating point', command: '/bench.d/nbody 60000', source: 'nbody' },
  // Long enough that making the code does not count for much.
  nbody_long: { kind: 'floating point', command: '/bench.d/nbody 300000', source: 'nbody' },
  matmul: { kind: 'floating point', command: '/bench.d/matmul 12', source: 'matmul' },
  fork: { kind: 'processes', command: 'i=0; while [ $i -lt 400 ]; do busybox true; i=$((i+1)); done; echo $i' },
  pipe: { kind: 'processes', command: 'dd if=/dev/zero bs=64 count=60000 2>/dev/null | dd bs=64 2>/dev/null | md5sum' },
  pingpong: { kind: 'processes', command: '/bench.d/pingpong 20000', source: 'pingpong' },
  // Two at once: what two vCPUs are worth, beside the one of `sha256`.
  two: { kind: 'processes', command: '{ sha256sum < /tmp/data & sha256sum < /tmp/data; wait; }' },
  sha256: { kind: 'short', command: 'sha256sum < /tmp/data' },
  bunzip: { kind: 'short', command: 'bzip2 -c < /tmp/small | bunzip2 -c | md5sum' },
  sort: { kind: 'short', command: 'sort -r < /tmp/small | md5sum' },
  awk: {
    kind: 'short',
    command: `awk 'BEGIN { for (i = 0; i < 400000; i++) { s += i * i % 7; a[i % 100] += s } print s, a[42] }'`,
  },
  grep: { kind: 'short', command: `grep -c '[13]7[^5]*9$' /tmp/data` },
};

/** The file that the kernel starts (`rdinit=/bench`): runs the programs one after the other, timed by the guest's clock. */
const script = (names: readonly string[]): string => `#!/bin/sh
export PATH=/bin:/usr/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs tmp /tmp
seq 1 900000 > /tmp/data
seq 1 60000 > /tmp/small
cat /usr/lib/*-linux-gnu/libcrypto.so.* > /tmp/code
cat /tmp/code /usr/lib/python3.*/[a-r]*.py /usr/bin/python3.* > /tmp/mix
now() { read up idle < /proc/uptime; echo \${up%.*}\${up#*.}; }
echo "BENCH-CPU $(sed -n 's/^flags.*: //p' /proc/cpuinfo | head -n 1)" > /dev/ttyS0
echo "BENCH-BEGIN $(now) " > /dev/ttyS0
${names
  .map(
    (name) => `begun=$(now)
result=$({ ${programs[name].command}; } 2>&1 | tr '\\n' ' ')
ended=$(now)
echo "BENCH ${name} $(( (ended - begun) * 10 )) $result" > /dev/ttyS0`,
  )
  .join('\n')}
echo "BENCH-END $(now) " > /dev/ttyS0
poweroff -f
`;

/** The script and the programs of ours that `names` need, compiled in `folder` where they are in C. */
export function ownMembers(folder: string, names: readonly string[]): CpioMember[] {
  const source = (file: string): string => join(import.meta.dirname, 'guest-programs', file);
  const compiled = new Set(names.flatMap((name) => programs[name].source ?? []));
  return [
    { path: 'bench', kind: 'file', mode: 0o755, content: script(names) },
    { path: 'bench.d', kind: 'folder', mode: 0o755 },
    ...['work.py', 'work.lua', 'work.pl'].map((name): CpioMember => {
      return { path: `bench.d/${name}`, kind: 'file', mode: 0o644, content: readFileSync(source(name)) };
    }),
    ...[...compiled].map((name): CpioMember => {
      const program = join(folder, name);
      execFileSync('gcc', ['-O2', '-static', '-o', program, source(`${name}.c`), '-lm']);
      return { path: `bench.d/${name}`, kind: 'file', mode: 0o755, content: readFileSync(program) };
    }),
  ];
}
