/**
 * Programs of fixed work in the guest, timed by the guest's own clock: a 64-bit guest beside QEMU TCG, its 32-bit twin
 * beside v86. What each program prints is compared between the machines, so that a wrong result is no fast result.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpioArchive } from '../../main/guests/cpio.ts';
import type { GuestArchitecture } from '../../main/guests/debian.ts';
import type { BenchOptions } from './bench.ts';
import { bootOptions } from './boot.ts';
import { speedChart } from './chart.ts';
import {
  BenchMachine,
  findPeer,
  findV86,
  guestFiles,
  ours,
  oursLikeQemu,
  oursLikeV86,
  type Peer,
  versionOf,
} from './machines.ts';
import { programArchive } from './packages.ts';
import { type Kind, ownMembers, programs } from './programs.ts';
import { geometricMean, hostFacts, median, round, table, writeResult } from './report.ts';

const MEMORY_MIB = 1024;
const LIMIT_SECONDS = 3600;

interface Comparison {
  readonly benchmark: 'guest' | 'twin';
  readonly architecture: GuestArchitecture;
  readonly cpus: number;
  readonly names: readonly string[];
  readonly us: Peer;
  readonly peer: Peer | undefined;
  /** What the peer is called on the chart. */
  readonly peerTitle: string;
}

interface Timing {
  readonly milliseconds: number;
  readonly result: string;
  /** CPU time of the machine's process, compilers of translated code included: on a busy host the firmer figure. */
  readonly cpuSeconds: number;
}

interface Run {
  readonly timings: ReadonlyMap<string, Timing>;
  /** Guest's time by the host's: a clock that runs off would make every figure wrong. */
  readonly clock: number;
  /** What the guest's kernel says of its CPU. */
  readonly flags: string;
}

async function runGuest(peer: Peer, { cpus, names, architecture }: Comparison, initrd: string): Promise<Run> {
  const { kernel } = guestFiles(architecture);
  // What kernels do against speculation depends on the CPU's maker.
  const options = bootOptions(cpus, 'console=ttyS0 quiet rdinit=/bench mitigations=off', { kernel, initrd, memory: MEMORY_MIB });
  const machine = new BenchMachine(peer, options);
  const cpuSeconds = new Map<string, number>();
  let seconds: number;
  try {
    const begun = await machine.until(/BENCH-BEGIN \d+ /, LIMIT_SECONDS);
    let used = machine.cpuSeconds;
    for (const name of names) {
      await machine.until(new RegExp(`BENCH ${name} [^\n]*\n`), LIMIT_SECONDS);
      cpuSeconds.set(name, round(machine.cpuSeconds - used));
      used = machine.cpuSeconds;
    }
    seconds = (await machine.until(/BENCH-END \d+ /, LIMIT_SECONDS)) - begun;
    if (peer.ends) await machine.end(120);
  } finally {
    machine.kill();
  }
  const timings = new Map<string, Timing>();
  for (const [, name, milliseconds, result] of machine.text.matchAll(/^BENCH (\w+) (\d+) (.*?)\s*$/gm))
    timings.set(name, { milliseconds: Number(milliseconds), result, cpuSeconds: cpuSeconds.get(name) ?? 0 });
  for (const name of names) if (!timings.has(name)) throw new Error(`${peer.name}: no result of ${name}`);
  const at = (what: string): number => Number(new RegExp(`${what} (\\d+)`).exec(machine.text)?.[1]);
  const clock = round((at('BENCH-END') - at('BENCH-BEGIN')) / 100 / seconds);
  return { timings, clock, flags: /^BENCH-CPU (.*?)\s*$/m.exec(machine.text)?.[1] ?? '' };
}

/** The sample's initial RAM disk, Debian's programs and the script behind it. */
function buildInitrd(folder: string, { architecture, names }: Comparison, archive: string): string {
  const path = join(folder, 'initrd.img');
  // Archives follow each other on boundaries of four bytes (Linux, early-userspace/buffer-format).
  const parts = [guestFiles(architecture).initrd, archive].flatMap((file) => {
    const content = readFileSync(file);
    return [content, Buffer.alloc(-content.length & 3)];
  });
  writeFileSync(path, Buffer.concat([...parts, cpioArchive(ownMembers(folder, names))]));
  return path;
}

async function compare(comparison: Comparison, { rounds, save }: BenchOptions): Promise<void> {
  const { benchmark, architecture, cpus, names, us, peer, peerTitle } = comparison;
  const host = hostFacts();
  const peers = peer === undefined ? [us] : [us, peer];
  const archive = await programArchive(architecture);
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  // A signal ends the process without a way through here.
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const runs = new Map<string, Run[]>(peers.map(({ name }) => [name, []]));
  const runsOf = ({ name }: Peer): Run[] => runs.get(name) ?? [];
  const initrd = buildInitrd(folder, comparison, archive.path);
  for (let n = 0; n < rounds; n++)
    for (const each of n % 2 === 0 ? peers : peers.toReversed()) {
      const run = await runGuest(each, comparison, initrd);
      runsOf(each).push(run);
      const figures = names.map((name) => `${name} ${run.timings.get(name)?.milliseconds}`);
      console.log(`round ${n + 1}  ${each.name.padEnd(9)} ${figures.join(', ')} (ms)`);
      if (Math.abs(run.clock - 1) > 0.05)
        console.log(`${each.name}: the guest's clock went ${run.clock} times as fast as the host's`);
    }

  const all = [...runs.values()].flat();
  const resultsOf = (name: string): string[] => [...new Set(all.map(({ timings }) => timings.get(name)?.result ?? ''))];
  const differing = names.filter((name) => resultsOf(name).length > 1);
  type Figure = 'milliseconds' | 'cpuSeconds';
  const medianOf = (who: Peer, name: string, of: Figure = 'milliseconds'): number =>
    median(runsOf(who).map(({ timings }) => timings.get(name)?.[of] ?? 0));
  const byPeer = (name: string, of: Figure) => Object.fromEntries(peers.map((each) => [each.name, medianOf(each, name, of)]));
  // Above 1: this engine is faster.
  const speedOf = (name: string): number | undefined =>
    peer && round(Math.max(10, medianOf(peer, name)) / Math.max(10, medianOf(us, name)));
  const rows = names.map((name) => ({
    name,
    kind: programs[name].kind,
    milliseconds: byPeer(name, 'milliseconds'),
    cpuSeconds: byPeer(name, 'cpuSeconds'),
    ...(peer === undefined ? {} : { speed: speedOf(name) }),
  }));
  console.log(`\nMedians of ${rounds} in ms, ${architecture}, vCPUs: ${cpus}`);
  table(
    [
      '',
      ...peers.map(({ name }) => name),
      ...peers.map(({ name }) => `${name} CPU s`),
      ...(peer ? [`speed beside ${peer.name}`] : []),
    ],
    rows.map(({ name, milliseconds, cpuSeconds, speed }) => {
      return [name, ...Object.values(milliseconds), ...Object.values(cpuSeconds), ...(speed === undefined ? [] : [speed])];
    }),
  );

  const means: Partial<Record<Kind, number>> = {};
  for (const kind of ['integer', 'floating point', 'processes', 'short'] as const) {
    const speeds = rows.flatMap((row) => (row.kind === kind && row.speed !== undefined ? [row.speed] : []));
    if (speeds.length > 0) means[kind] = round(geometricMean(speeds));
  }
  if (peer !== undefined) {
    const list = Object.entries(means).map(([kind, mean]) => `${kind} ${mean}`);
    console.log(`\ngeometric means of the speed beside ${peer.name}: ${list.join(', ')}`);
  }
  const twoCpus = names.includes('two') && names.includes('sha256') && cpus > 1;
  const twice = (who: Peer): number => round((2 * medianOf(who, 'sha256')) / Math.max(10, medianOf(who, 'two')));
  const gains = twoCpus ? Object.fromEntries(peers.map((each) => [each.name, twice(each)])) : undefined;
  if (gains !== undefined) console.log(`two vCPUs beside one (two, sha256): ${JSON.stringify(gains)}`);
  for (const name of differing) console.log(`DIFFERENT RESULTS: ${name}: ${resultsOf(name).join(' | ')}`);

  const lists = peers.map((each) => runsOf(each)[0].flags.split(' '));
  const chart = rows.flatMap(({ name, kind, speed }) => (speed === undefined ? [] : [{ name, group: kind, value: speed }]));
  writeResult(
    benchmark,
    host,
    {
      versions: Object.fromEntries(peers.map((each) => [each.name, versionOf(each)])),
      architecture,
      cpus,
      packages: archive.packages,
      // Programs choose their code by these.
      flagsOfOne: Object.fromEntries(
        peers.map(({ name }, index) => [name, lists[index].filter((flag) => lists.some((list) => !list.includes(flag)))]),
      ),
      clocks: Object.fromEntries(peers.map((each) => [each.name, median(runsOf(each).map(({ clock }) => clock))])),
      medians: rows,
      ...(peer === undefined ? {} : { means }),
      ...(gains === undefined ? {} : { twoVcpus: gains }),
      differing,
    },
    save,
    chart.length === 0 ? undefined : speedChart(`Speed beside ${peerTitle}, Debian ${architecture}, vCPUs: ${cpus}`, chart),
  );
  if (differing.length > 0) process.exitCode = 1;
}

/** Names of programs that `--only` leaves, of those that this guest can run. */
function chosen(only: readonly string[], possible: (name: string) => boolean): string[] {
  const all = Object.keys(programs).filter(possible);
  const unknown = only.filter((name) => !all.includes(name));
  if (unknown.length > 0) throw new Error(`no such program: ${unknown.join(', ')} (there are: ${all.join(', ')})`);
  return all.filter((name) => only.length === 0 || only.includes(name));
}

/** 64-bit programs, beside QEMU TCG. */
export async function benchGuest(options: BenchOptions): Promise<void> {
  const names = chosen(options.only, (name) => programs[name].source === undefined || existsSync('/usr/bin/gcc'));
  const peer = options.peer ? findPeer() : undefined;
  if (options.peer && peer === undefined) console.log('QEMU is not here (apt-get install qemu-system-x86): this engine alone.');
  const us = peer === undefined ? ours : oursLikeQemu();
  const { cpus } = options;
  await compare({ benchmark: 'guest', architecture: 'amd64', cpus, names, us, peer, peerTitle: 'QEMU TCG' }, options);
}

/** 32-bit programs on one vCPU, beside v86. */
export async function benchTwin(options: BenchOptions): Promise<void> {
  const names = chosen(options.only, (name) => programs[name].source === undefined && name !== 'two');
  const peer = options.peer ? findV86() : undefined;
  if (options.peer && peer === undefined) console.log('v86 is not here (npm install v86): this engine alone.');
  await compare({ benchmark: 'twin', architecture: 'i386', cpus: 1, names, us: oursLikeV86(), peer, peerTitle: 'v86' }, options);
}
