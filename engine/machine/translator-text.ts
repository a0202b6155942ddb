/** `info jit`: the figures of a vCPU's translator as text. */
import { ExitCause } from '../accel/jit/exit-causes.ts';
import type { TranslatorStats } from '../contract/stats.ts';
import * as S from '../memory/vcpu-state.ts';
import type { Cpu } from '../x86/system/cpu.ts';

const EXITS: readonly (readonly [string, number])[] = [
  ['lookups', ExitCause.JUMP],
  ['faults', ExitCause.FAULT],
  ['pending', ExitCause.PENDING],
  ['halts', ExitCause.HALT],
  ['resyncs', ExitCause.RESYNC],
  ['decoded runs', ExitCause.DECODE],
  ['interrupts', ExitCause.INTERRUPT],
  ['invalidations', ExitCause.INVALIDATE],
];
const mebibytes = (bytes: number): string => `${(bytes / 1048576).toFixed(1)} MiB`;
const milliseconds = (ns: number): string => `${Math.round(ns / 1e6)} ms`;

export function translatorText(cpu: Cpu, stats: TranslatorStats): string {
  const counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, S.PMU >> 3);
  const { code, samples } = stats;
  const total = samples.baseline + samples.regions + samples.other;
  const share = (part: number): string => `${((part / total) * 100).toFixed(1)} %`;
  return [
    `instructions: ${cpu.getNumber(S.INSTRUCTIONS)}`,
    `regions: ${stats.regions} made (${stats.farRegions} far), ${stats.declined} declined, ${code.regions} of ${code.maxRegions} now`,
    `code cache: records ${mebibytes(code.recordBytes)} of ${mebibytes(code.maxRecordBytes)}, modules of regions ${mebibytes(code.moduleBytes)}, dropped ${stats.drops} times`,
    `time: decoding ${milliseconds(stats.decodeNs)}, making regions ${milliseconds(stats.compileNs)}, asleep ${milliseconds(stats.idleNs)}`,
    total === 0
      ? 'samples: none yet, they are taken for three seconds from now'
      : `samples: baseline ${share(samples.baseline)}, regions ${share(samples.regions)}, elsewhere (helpers, asleep) ${share(samples.other)} of ${total}`,
    ...EXITS.map(([label, cause]) => `${label}: ${counts[cause]}`),
  ].join('\n');
}
