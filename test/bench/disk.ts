/**
 * A virtio disk on qcow2 in the sample guest, beside QEMU TCG with the same options: sequential writes and reads, random
 * reads and writes of 4 KiB at depth 32, past the guest's page cache.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { cpioArchive } from '../../main/guests/cpio.ts';
import { initrdWith } from '../machine/modules.ts';
import type { BenchOptions } from './bench.ts';
import { bootOptions } from './boot.ts';
import { BenchMachine, findPeer, ours, type Peer, root, versionOf } from './machines.ts';
import { hostFacts, median, round, table, writeResult } from './report.ts';

const MIB = 256;
const SECONDS = 5;
/** What is measured, and in what. */
const parts = { write: 'MiB/s', read: 'MiB/s', randread: 'operations/s', randwrite: 'operations/s' } as const;
type Part = keyof typeof parts;
const names = Object.keys(parts) as Part[];

const script = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev 2>/dev/null
for round in 1 2 3 4; do for module in /lib/modules/virtio*.ko /more/virtio_blk.ko; do insmod $module 2>/dev/null; done; done
while [ ! -b /dev/vda ]; do sleep 1; done
/bin/disk /dev/vda ${MIB} ${SECONDS} > /dev/ttyS0 2>&1
echo 'BENCH-END' > /dev/ttyS0
poweroff -f
`;

function buildInitrd(folder: string): string {
  const more = initrdWith(['virtio_blk'], folder);
  if (more === undefined) throw new Error('the module virtio_blk of the sample guest cannot be fetched here');
  const program = join(folder, 'disk');
  execFileSync('gcc', ['-O2', '-static', '-o', program, join(import.meta.dirname, 'guest-programs', 'disk.c')]);
  const archive = cpioArchive([
    { path: 'bench', kind: 'file', mode: 0o755, content: script },
    { path: 'bin/disk', kind: 'file', mode: 0o755, content: readFileSync(program) },
  ]);
  const first = readFileSync(more);
  writeFileSync(more, Buffer.concat([first, Buffer.alloc(-first.length & 3), gzipSync(archive)]));
  return more;
}

async function runGuest(peer: Peer, cpus: number, initrd: string, folder: string): Promise<Map<Part, number>> {
  const image = join(folder, 'disk.qcow2');
  rmSync(image, { force: true });
  const engine = join(root, 'engine', 'cli', 'main.ts');
  execFileSync(process.execPath, [engine, 'img', 'create', '-q', '-f', 'qcow2', image, `${MIB}M`], { stdio: 'pipe' });
  const drive = ['-drive', `file=${image},format=qcow2,if=virtio,cache=writeback,discard=unmap`];
  const machine = new BenchMachine(peer, [...bootOptions(cpus, 'console=ttyS0 quiet rdinit=/bench', { initrd }), ...drive]);
  try {
    await machine.until(/BENCH-END/, 1800);
    await machine.end(120);
  } finally {
    machine.kill();
  }
  const found = new Map<Part, number>();
  for (const [, name, value] of machine.text.matchAll(/^BENCH (\w+) ([\d.]+)/gm)) found.set(name as Part, Number(value));
  for (const name of names)
    if (!found.has(name)) throw new Error(`${peer.name}: no result of ${name}: ${machine.text.slice(-300)}`);
  return found;
}

export async function benchDisk({ rounds, cpus, peer: withPeer, save }: BenchOptions): Promise<void> {
  const host = hostFacts();
  const peer = withPeer ? findPeer() : undefined;
  if (withPeer && peer === undefined) console.log('QEMU is not here (apt-get install qemu-system-x86): this engine alone.');
  const peers = peer === undefined ? [ours] : [ours, peer];
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  const values = new Map<string, Map<Part, number[]>>(peers.map(({ name }) => [name, new Map(names.map((each) => [each, []]))]));
  try {
    const initrd = buildInitrd(folder);
    for (let n = 0; n < rounds; n++)
      for (const each of n % 2 === 0 ? peers : peers.toReversed()) {
        const found = await runGuest(each, cpus, initrd, folder);
        console.log(`round ${n + 1}  ${each.name.padEnd(9)} ${names.map((name) => `${name} ${found.get(name)}`).join(', ')}`);
        for (const name of names)
          values
            .get(each.name)
            ?.get(name)
            ?.push(found.get(name) ?? 0);
      }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const medianOf = (who: Peer, name: Part): number => median(values.get(who.name)?.get(name) ?? []);
  const rows = names.map((name) => ({
    name,
    unit: parts[name],
    ...Object.fromEntries(peers.map((each) => [each.name, round(medianOf(each, name), 1)])),
    // Above 1: this engine is faster.
    ...(peer === undefined ? {} : { speed: round(medianOf(ours, name) / Math.max(0.1, medianOf(peer, name))) }),
  })) as readonly ({ name: string; unit: string; speed?: number } & Record<string, number | string>)[];
  console.log(`\nMedians of ${rounds}, ${cpus} vCPUs, ${MIB} MiB of qcow2 on virtio-blk`);
  table(
    ['', 'unit', ...peers.map(({ name }) => name), ...(peer === undefined ? [] : ['speed beside TCG'])],
    rows.map((row) => [
      row.name,
      row.unit,
      ...peers.map(({ name }) => row[name]),
      ...(row.speed === undefined ? [] : [row.speed]),
    ]),
  );
  const versions = Object.fromEntries(peers.map((each) => [each.name, versionOf(each)]));
  writeResult('disk', host, { versions, mebibytes: MIB, medians: rows }, save);
}
