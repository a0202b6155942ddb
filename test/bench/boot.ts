/**
 * Wall time of a boot: process start to the shell's ready line, and to the end of the process after `poweroff -f`.
 * The command line is the one of the README; each round runs this engine and QEMU TCG one after the other, and every
 * other round in the opposite order, so that neither always finds the warmer host.
 */
import { readyMarker } from '../../main/guests/initramfs.ts';
import type { BenchOptions } from './bench.ts';
import { BenchMachine, findPeer, guestInitrd, guestKernel, ours, type Peer, versionOf } from './machines.ts';
import { hostFacts, median, round, table, writeResult } from './report.ts';

const bootLimit = 600;
const offLimit = 120;

export const bootOptions = (
  cpus: number,
  append: string,
  { kernel = guestKernel, initrd = guestInitrd, memory = 512 } = {},
): string[] => [
  ...['-m', String(memory), '-smp', String(cpus), '-kernel', kernel, '-initrd', initrd, '-append', append],
  ...['-serial', 'stdio', '-display', 'none', '-no-reboot'],
];

interface Boot {
  readonly readySeconds: number;
  readonly offSeconds: number;
  /** Host CPU used until the ready line. */
  readonly cpuSeconds: number;
  readonly residentMiB: number;
}

async function boot(peer: Peer, cpus: number): Promise<Boot> {
  const machine = new BenchMachine(peer, bootOptions(cpus, 'console=ttyS0 quiet'));
  try {
    const readySeconds = await machine.until(new RegExp(`${readyMarker}.*, ${cpus} CPUs`), bootLimit);
    const { cpuSeconds, residentMiB } = machine;
    // The prompt: what is typed before it would be lost to the shell's start.
    await machine.until(/\n[^\n]* # /, 60);
    machine.type('poweroff -f\n');
    const offSeconds = await machine.end(offLimit);
    if (machine.status !== 0) throw new Error(`${peer.name} ended with status ${machine.status} after poweroff`);
    return { readySeconds, offSeconds, cpuSeconds, residentMiB };
  } finally {
    machine.kill();
  }
}

export async function benchBoot({ rounds, cpus, peer: withPeer, save }: BenchOptions): Promise<void> {
  const host = hostFacts();
  const peer = withPeer ? findPeer() : undefined;
  if (withPeer && peer === undefined) console.log('QEMU is not here (apt-get install qemu-system-x86): this engine alone.');
  const peers = peer === undefined ? [ours] : [ours, peer];
  const boots = new Map<string, Boot[]>(peers.map(({ name }) => [name, []]));
  for (let n = 0; n < rounds; n++)
    for (const each of n % 2 === 0 ? peers : peers.toReversed()) {
      const result = await boot(each, cpus);
      boots.get(each.name)?.push(result);
      console.log(
        `round ${n + 1}  ${each.name.padEnd(9)} ready after ${result.readySeconds.toFixed(2)} s, off after ${result.offSeconds.toFixed(2)} s`,
      );
    }
  const medians = peers.map(({ name }) => {
    const list = boots.get(name) ?? [];
    const of = (key: keyof Boot): number => round(median(list.map((each) => each[key])));
    return {
      name,
      readySeconds: of('readySeconds'),
      offSeconds: of('offSeconds'),
      cpuSeconds: of('cpuSeconds'),
      residentMiB: of('residentMiB'),
    };
  });
  console.log(
    `\nMedians of ${rounds}, ${cpus} vCPUs, 512 MiB; this engine keeps code from round to round, and has none of it in the first`,
  );
  table(
    ['', 'ready s', 'off s', 'CPU s to ready', 'resident MiB'],
    medians.map((each) => [each.name, each.readySeconds, each.offSeconds, each.cpuSeconds, Math.round(each.residentMiB)]),
  );
  const [mine, other] = medians;
  const ratio = other === undefined ? undefined : round(mine.readySeconds / other.readySeconds);
  if (ratio !== undefined) console.log(`\nready: ${ratio} times QEMU TCG's wall time (bar: at most 2)`);
  writeResult(
    'boot',
    host,
    {
      command: ['-cpu', 'max', ...bootOptions(cpus, 'console=ttyS0 quiet', { initrd: 'initrd.img' })].map((word) =>
        word === guestKernel ? 'vmlinuz' : word,
      ),
      versions: Object.fromEntries(peers.map((each) => [each.name, versionOf(each)])),
      rounds: Object.fromEntries(boots),
      medians,
      ...(ratio === undefined ? {} : { readyRatio: ratio }),
    },
    save,
  );
}
