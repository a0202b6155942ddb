/**
 * Debian's stress-ng checks its own results on four vCPUs: arithmetic, memory, atomic operations, futexes, signals,
 * floating point, vectors; then each of its CPU, memory and vector methods by itself. No stressor may report a failure,
 * and the kernel must have nothing to complain of. VIVARIUM_STRESS_SECONDS is how long all of it takes (600),
 * VIVARIUM_STRESS_ONLY a regular expression over the names of the groups, VIVARIUM_STRESS_TIER=baseline has no regions
 * made, VIVARIUM_STRESS_CPUS is the number of vCPUs. It wants the host for itself: to Linux, a vCPU that the host does
 * not run for twenty seconds is one that hangs.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { guest, startVm } from './harness.ts';
import { stressInitrd } from './stress-guest.ts';

const SECONDS = Number(process.env.VIVARIUM_STRESS_SECONDS ?? 600);
const ONLY = new RegExp(process.env.VIVARIUM_STRESS_ONLY ?? '');
const BASELINE = process.env.VIVARIUM_STRESS_TIER === 'baseline';
const CPUS = Number(process.env.VIVARIUM_STRESS_CPUS ?? 4);

interface Group {
  /** Options that start its stressors. */
  readonly options: string;
  /** An option whose values are gone through one after the other, each by itself, in the group's time. */
  readonly each?: string;
}

const GROUPS: Readonly<Record<string, Group>> = {
  cpu: { options: `--cpu ${CPUS} --cpu-method all` },
  vm: { options: `--vm ${CPUS} --vm-bytes 128m --vm-method all` },
  atomic: { options: `--atomic ${CPUS} --cacheline 1 --lockbus 1` },
  futex: { options: `--futex ${CPUS} --sem 1 --switch 1 --mutex 1` },
  signal: {
    options:
      '--signal 1 --sigabrt 1 --sigchld 1 --sigfd 1 --sigfpe 1 --signest 1 --sigpending 1 --sigpipe 1 --sigq 1 --sigrt 1 --sigsegv 1 --sigsuspend 1 --sigtrap 1 --itimer 1 --timer 1',
  },
  fp: { options: `--fp ${CPUS} --fp-method all --fp-error 1 --funcret 1` },
  vector: { options: '--vecmath 1 --vecfp 1 --vecwide 1 --vecshuf 1 --vecshuf-method all' },
  registers: { options: '--regs 1 --rotate 1 --longjmp 1 --context 1 --funccall 1 --tsc 1 --x86cpuid 1 --rseq 1' },
  data: { options: '--hash 1 --str 1 --wcs 1 --memcpy 1 --matrix 1 --zlib 1 --ipsec-mb 1 --jpeg 1' },
  'cpu methods': { options: '--cpu 1', each: '--cpu-method' },
  'vm methods': { options: '--vm 1 --vm-bytes 4m', each: '--vm-method' },
  'fp methods': { options: '--fp 1', each: '--fp-method' },
  'vector methods': { options: '--vecshuf 1', each: '--vecshuf-method' },
};

/** What the kernel says when something is wrong with the machine below it. */
const COMPLAINTS =
  /BUG:|WARNING:|Oops|general protection|soft lockup|hard LOCKUP|rcu.*(stall|detected)|hung_task|blocked for more than|Call Trace|traps:|segfault at|Unable to handle|bad page|Machine Check|unstable|invalid opcode|double fault|NMI:? (not|received)/i;
/** Programs that end with a signal are told of by Linux; some stressors do that on purpose. */
const MEANT = /traps: stress-ng.* (divide|int3|trap )|segfault at .*stress-ng/;

const folder = mkdtempSync(join(tmpdir(), 'vivarium-stress-'));
test.after(() => rmSync(folder, { recursive: true, force: true }));

test(`stress-ng finds nothing wrong with ${CPUS} vCPUs`, { timeout: Number.POSITIVE_INFINITY }, async (context) => {
  const made = await stressInitrd(folder);
  if ('reason' in made) return context.skip(made.reason);
  const { kernel } = guest() ?? { kernel: '' };
  const append = 'console=ttyS0';
  const vm = startVm(context, {
    cpus: CPUS,
    memory: 1024,
    append,
    config: {
      cpus: { count: CPUS, model: 'max' },
      machine: { type: 'pc', accelerator: 'jit', options: BASELINE ? { tier: 'baseline' } : {} },
      boot: { kind: 'kernel', kernel, initrd: made.initrd, append },
    },
  });
  await vm.shell(600);
  await vm.command('mkdir -p /dev/shm /run; mount -t tmpfs shm /dev/shm; ulimit -c 0');
  const chosen = Object.entries(GROUPS).filter(([name]) => ONLY.test(name));
  const seconds = Math.max(1, Math.round(SECONDS / chosen.length));
  const wrong: string[] = [];
  /** Runs stress-ng; notes what it and the kernel have to complain of. */
  const stress = async (name: string, options: string, time: number): Promise<void> => {
    const words = `stress-ng --verify --metrics-brief --oomable --no-rand-seed --temp-path /tmp -t ${time} ${options}`;
    const printed = await vm.command(`${words}; echo "status $?"`, 600 + 20 * time);
    const kernelSaid = (await vm.command('dmesg -c', 120))
      .split('\n')
      .filter((line) => COMPLAINTS.test(line) && !MEANT.test(line));
    // Status 4: not for this machine, says stress-ng, and why (no such feature, no privilege).
    const failed = !/^status [04]$/m.test(printed) || /stress-ng: (fail|error)|\bfail:/.test(printed);
    context.diagnostic(`${failed || kernelSaid.length > 0 ? 'FAILED' : 'ok'} ${name}`);
    for (const [, line] of printed.matchAll(/metrc: \[\d+\] (\S+(?: +[\d.]+){6,}.*)$/gm)) context.diagnostic(`  ${line.trim()}`);
    if (failed) wrong.push(`${name}:\n${printed}`);
    if (kernelSaid.length > 0) wrong.push(`${name}, the kernel:\n${kernelSaid.join('\n')}`);
  };
  for (const [name, { options, each }] of chosen) {
    if (each === undefined) {
      await stress(name, options, seconds);
      continue;
    }
    const list = await vm.command(`stress-ng ${options} ${each} help 2>&1`);
    const methods = (/must be one of: (.*)/s.exec(list)?.[1] ?? '').split(/\s+/).filter((word) => word !== '' && word !== 'all');
    assert.ok(methods.length > 1, list);
    for (const method of methods)
      await stress(`${name}: ${method}`, `${options} ${each} ${method}`, Math.max(1, Math.round(seconds / methods.length)));
  }
  assert.doesNotMatch(vm.output.replaceAll(/^.*stress-ng.*$/gm, ''), /soft lockup|Kernel panic|Oops:|rcu.*stall/);
  assert.deepEqual(wrong, []);
});
