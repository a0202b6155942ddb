/** From two samples of counters to the rates between them. */
import { type ExitCause, exitCauses, type MachineStats } from '../../engine/contract/index.ts';
import type { StatsPoint, TranslatorPoint } from '../contract/index.ts';

/** Fewer samples than this say nothing. */
const leastSamples = 10;

/** `previous` undefined: the first sample; its rates are 0. */
export function ratesBetween(previous: MachineStats | undefined, sample: MachineStats): StatsPoint {
  const seconds = previous === undefined ? 0 : (sample.timestamp - previous.timestamp) / 1000;
  // Clocks may be set back, and counters begin anew with a machine: never a negative rate.
  const rate = (now: number, before: number | undefined): number =>
    seconds <= 0 || before === undefined ? 0 : Math.max(0, (now - before) / seconds);
  const before = new Map(previous?.vcpus.map((vcpu) => [vcpu.index, vcpu]));
  const exits: Partial<Record<ExitCause, number>> = {};
  for (const cause of exitCauses) {
    let sum = 0;
    for (const vcpu of sample.vcpus) {
      const old = before.get(vcpu.index);
      if (old !== undefined) sum += rate(vcpu.exits[cause] ?? 0, old.exits[cause] ?? 0);
    }
    if (sum > 0) exits[cause] = sum;
  }
  const instructions = sample.vcpus.reduce((sum, vcpu) => sum + rate(vcpu.instructions, before.get(vcpu.index)?.instructions), 0);
  return {
    time: sample.timestamp,
    cpu: sample.vcpus.map((vcpu) => Math.min(100, rate(vcpu.hostCpuNs, before.get(vcpu.index)?.hostCpuNs) / 1e7)),
    memoryTotal: sample.memory.totalBytes,
    memoryUsed: sample.memory.usedBytes,
    memoryResident: sample.memory.residentBytes,
    mips: instructions / 1e6,
    exits,
    ...translatorBetween(previous, sample, seconds),
  };
}

function translatorBetween(
  previous: MachineStats | undefined,
  { translator: now, vcpus }: MachineStats,
  seconds: number,
): { translator: TranslatorPoint } | undefined {
  if (now === undefined) return undefined;
  const before = previous?.translator;
  const added = (is: number, was: number | undefined): number => (was === undefined ? 0 : Math.max(0, is - was));
  const perSecond = (is: number, was: number | undefined): number => (seconds <= 0 ? 0 : added(is, was) / 1e6 / seconds);
  const { regions, farRegions, declined, drops, code } = now;
  return {
    translator: {
      shares: sharesBetween(previous, now, seconds * 1e9 * vcpus.length),
      compile: perSecond(now.compileNs, before?.compileNs),
      decode: perSecond(now.decodeNs, before?.decodeNs),
      ...{ regions, farRegions, declined, drops, code },
    },
  };
}

/**
 * Samples tell the tiers from the rest; of the rest it was measured how long the vCPUs slept and decoded, and what is left
 * are helpers. `ns`: the time of all vCPUs.
 */
function sharesBetween(
  previous: MachineStats | undefined,
  now: NonNullable<MachineStats['translator']>,
  ns: number,
): TranslatorPoint['shares'] {
  const before = previous?.translator;
  if (before === undefined || ns <= 0) return null;
  const regions = now.samples.regions - before.samples.regions;
  const baseline = now.samples.baseline - before.samples.baseline;
  const other = now.samples.other - before.samples.other;
  const total = regions + baseline + other;
  if (Math.min(regions, baseline, other) < 0 || total < leastSamples) return null;
  let rest = other / total;
  const take = (part: number): number => {
    const taken = Math.min(rest, Math.max(0, part / ns));
    rest -= taken;
    return taken;
  };
  const idle = take(now.idleNs - before.idleNs);
  const making = take(now.decodeNs - before.decodeNs);
  return { regions: regions / total, baseline: baseline / total, making, helpers: rest, idle };
}
