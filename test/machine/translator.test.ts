/** What a machine tells of its translator: figures and samples by QMP and `info jit`, and the log of `-d`. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { MachineStats, TranslatorStats } from '../../engine/contract/stats.ts';
import { Vm, withoutGuest } from './harness.ts';

const skip = withoutGuest();
const sleep = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

test('figures of the translator', { skip }, async (t) => {
  const vm = new Vm();
  t.after(() => vm.close());
  await vm.shell();
  const sample = async (): Promise<MachineStats & { translator: TranslatorStats }> => {
    const stats = (await vm.qmp('x-query-stats', { profile: true })) as MachineStats;
    assert.ok(stats.translator !== undefined);
    return { ...stats, translator: stats.translator };
  };
  /** What was added while so many samples of places came. */
  const during = async (wanted: number) => {
    const before = await sample();
    const of = (last: TranslatorStats) => {
      const added = (one: (stats: TranslatorStats) => number): number => one(last) - one(before.translator);
      return {
        idleNs: added(({ idleNs }) => idleNs),
        baseline: added(({ samples }) => samples.baseline),
        regions: added(({ samples }) => samples.regions),
        other: added(({ samples }) => samples.other),
        last,
      };
    };
    for (let n = 0; n < 120; n++) {
      await sleep(500);
      const now = of((await sample()).translator);
      if (now.baseline + now.regions + now.other >= wanted) return now;
    }
    throw new Error('no samples came');
  };

  const idle = await during(60);
  assert.ok(idle.idleNs > 0 && idle.other > 0, JSON.stringify(idle));
  const { last } = idle;
  assert.ok(last.regions > 0 && last.farRegions <= last.regions, JSON.stringify(last));
  assert.ok(last.decodeNs > 0 && last.compileNs > 0);
  assert.ok(last.code.regions > 0 && last.code.regions <= last.code.maxRegions && last.code.moduleBytes > 0);
  assert.ok(last.code.recordBytes > 0 && last.code.recordBytes <= last.code.maxRecordBytes);

  vm.type('i=0; while true; do i=$((i + 1)); done\n');
  // At first the loop is run by the baseline.
  let busy = await during(200);
  for (let n = 0; n < 10 && busy.regions <= busy.baseline; n++) busy = await during(200);
  vm.type('\x03');
  assert.ok(busy.regions > busy.baseline, JSON.stringify(busy));

  const text = (await vm.qmp('human-monitor-command', { 'command-line': 'info jit' })) as string;
  assert.match(text, /^regions: \d+ made \(\d+ far\), \d+ declined, \d+ of \d+ now$/m);
  assert.match(text, /^code cache: records [\d.]+ MiB of [\d.]+ MiB, modules of regions [\d.]+ MiB, dropped \d+ times$/m);
  assert.match(text, /^time: decoding \d+ ms, making regions \d+ ms, asleep \d+ ms$/m);
  assert.match(text, /^samples: baseline [\d.]+ %, regions [\d.]+ %, elsewhere \(helpers, asleep\) [\d.]+ % of \d+$/m);
});

test('the log of what is translated', {
  skip: existsSync('/usr/share/seabios/bios-256k.bin') ? false : 'seabios is missing',
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-log-'));
  const log = join(folder, 'log');
  const vm = new Vm({
    kernel: false,
    memory: 32,
    more: ['-d', 'in_asm,ir,op_opt,wasm', '-dfilter', '0xe0000..0xfffff', '-D', log],
  });
  t.after(async () => {
    await vm.close();
    rmSync(folder, { recursive: true });
  });
  let text = '';
  for (let n = 0; n < 300 && !/^OUT/m.test(text); n++) {
    await sleep(200);
    text = existsSync(log) ? readFileSync(log, 'utf8') : '';
  }
  assert.match(text, /^IN: cpu 0, 16-bit\n0x000f/m);
  assert.match(text, /^0x000f\w{4}: {2}[0-9a-f ]+ {2}cli$/m);
  assert.match(text, /^ {4}%0: i32 = get/m);
  assert.match(text, /^OUT: cpu 0, region 0x000[ef]\w{4}, \d+ bytes$/m);
  assert.match(text, /^block \+0x/m);
  assert.match(text, /^\(func \d+/m);
  assert.doesNotMatch(text, /^0x(?!000[ef])\w+: /m);
});

test('a vCPU that the guest does not start sleeps, whatever the others translate', { skip }, async (t) => {
  const vm = new Vm({ cpus: 2, append: 'console=ttyS0 maxcpus=1' });
  t.after(() => vm.close());
  await vm.shell();
  const { vcpus } = (await vm.qmp('x-query-stats')) as MachineStats;
  // Its thread has loaded its sources, and no more.
  assert.ok(vcpus[1].hostCpuNs * 3 < vcpus[0].hostCpuNs, `${vcpus[1].hostCpuNs} and ${vcpus[0].hostCpuNs} ns`);
});
