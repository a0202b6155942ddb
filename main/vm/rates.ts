/** From two samples of counters to the rates between them. */
import { type ExitCause, exitCauses, type MachineStats } from '../../engine/contract/index.ts';
import type { StatsPoint } from '../contract/index.ts';

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
  };
}
