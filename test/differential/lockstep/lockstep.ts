/**
 * Two tiers in lockstep: the same machine with `-icount` on each, and the first instruction count after which their vCPUs
 * differ. Time is the count, so both must go the same way; they are compared at checkpoints, ever closer ones where the
 * first difference is.
 */
import type { MachineConfig } from '../../../engine/contract/machine-config.ts';
import { guest, Vm } from '../../machine/harness.ts';

export const TIERS = ['regions', 'baseline'] as const;
export type Tier = (typeof TIERS)[number];

export interface Divergence {
  /** The last count at which they were the same, and the first at which they were not. */
  readonly same: number;
  readonly at: number;
  /** What each had there. */
  readonly lines: readonly [string, string];
}

export interface Result {
  /** Checkpoints that were compared in the first pass. */
  readonly compared: number;
  readonly divergence: Divergence | undefined;
}

interface Window {
  readonly from: number;
  readonly to: number;
  readonly every: number;
}

const countOf = (line: string): number => Number(line.split(' ')[1]);

/** The checkpoints of one tier in a window. */
async function checkpoints(tier: Tier, append: string, window: Window, seconds: number): Promise<string[]> {
  const files = guest();
  if (files === undefined) throw new Error('the guest is not in .cache/guests');
  const config: Partial<MachineConfig> = {
    machine: {
      type: 'pc',
      accelerator: 'jit',
      icount: { shift: 1, checkpoints: window },
      options: tier === 'baseline' ? { tier } : {},
    },
    rtc: { base: '2024-02-29T12:00:00Z', clock: 'vm' },
    boot: { kind: 'kernel', ...files, append },
    display: { adapter: 'none', memoryMiB: 16 },
    lifecycle: { paused: false, onReboot: 'exit', onPoweroff: 'exit' },
  };
  const vm = new Vm({ memory: 128, config });
  const lines = (): string[] => vm.complaints.split('\n').filter((line) => line.startsWith('vcpu_count '));
  const ends = Date.now() + seconds * 1000;
  try {
    for (;;) {
      const list = lines();
      if (vm.ended && list.length === 0) throw new Error(`${tier}: the machine ended at once. ${vm.complaints}`);
      if (vm.ended || countOf(list.at(-1) ?? 'vcpu_count -1') > window.to - window.every) return lines();
      if (Date.now() > ends) throw new Error(`${tier}: not at ${window.to} within ${seconds} s; the last was ${list.at(-1)}`);
      await new Promise((done) => setTimeout(done, 100));
    }
  } finally {
    await vm.close();
  }
}

/** Runs Linux with a command line to `until` instructions on both tiers. A difference that is not there again is told as it was. */
export async function lockstep(append: string, until: number, seconds = 600): Promise<Result> {
  let window: Window = { from: 0, to: until, every: 2 ** 22 };
  let compared = 0;
  let found: Divergence | undefined;
  for (;;) {
    const [first, second] = [
      await checkpoints(TIERS[0], append, window, seconds),
      await checkpoints(TIERS[1], append, window, seconds),
    ];
    if (compared === 0) compared = Math.min(first.length, second.length);
    const n = first.findIndex((line, k) => line !== second[k]);
    if (n < 0 && first.length >= second.length) return { compared, divergence: found };
    const at = n < 0 ? first.length : n;
    const lines: [string, string] = [first[at] ?? 'it has ended', second[at] ?? 'it has ended'];
    const same = at === 0 ? window.from : countOf(first[at - 1]);
    const differs = Math.min(...lines.map(countOf).filter((count) => !Number.isNaN(count)));
    found = { same, at: differs, lines };
    if (window.every === 1 || at === 0) return { compared, divergence: found };
    window = { from: same, to: differs + window.every, every: Math.max(1, Math.floor(window.every / 1024)) };
  }
}
