/** One sample of a machine's counters. The vCPUs count in shared memory; nothing is asked of them. */

import { ExitCause } from '../accel/jit/exit-causes.ts';
import { MAX_REGIONS } from '../accel/jit/region-table.ts';
import type { MachineStats, TranslatorStats, VcpuStats } from '../contract/stats.ts';
import { residentMeter, threadCpuNs } from '../host/platform.ts';
import * as S from '../memory/vcpu-state.ts';
import type { Cpu } from '../x86/system/cpu.ts';
import { CounterIndex } from './control-words.ts';
import type { Machine } from './machine.ts';

const WASM_PAGE = 64 * 1024;
/** How long profiling goes on after it was last asked for. */
const PROFILE_MS = 3000;

export class Sampler {
  readonly #machine: Machine;
  readonly #cpus: readonly Cpu[];
  readonly #resident: () => number;
  #last = { at: 0, instructions: 0 };

  /** `cpus`: views of all vCPUs' states. */
  constructor(machine: Machine, cpus: readonly Cpu[]) {
    const { layout } = machine;
    this.#machine = machine;
    this.#cpus = cpus;
    this.#resident = residentMeter(layout.pages * WASM_PAGE, layout.ram, layout.ramBytes);
  }

  /** `running`: whether the machine as a whole runs. `profile`: samples of where the time goes are wanted too. */
  sample(running: boolean, profile = false): MachineStats {
    if (profile && running) this.profile();
    const { control, clock, layout, drives } = this.#machine;
    let total = 0;
    const vcpus = this.#cpus.map((cpu, index): VcpuStats => {
      const instructions = cpu.getNumber(S.INSTRUCTIONS);
      total += instructions;
      const counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, S.PMU >> 3);
      const waits = Atomics.load(control.waitsForSipi, index) !== 0;
      return {
        index,
        state: !running || waits ? 'stopped' : cpu.i32[S.HALTED >> 2] !== 0 ? 'halted' : 'running',
        hostCpuNs: threadCpuNs(control.threadIds[index]),
        instructions,
        exits: {
          pio: counts[CounterIndex.PIO],
          mmio: counts[CounterIndex.MMIO],
          hlt: counts[ExitCause.HALT],
          interrupt: counts[ExitCause.INTERRUPT],
          exception: counts[ExitCause.FAULT],
          translate: counts[ExitCause.DECODE],
          invalidate: counts[ExitCause.INVALIDATE],
          other: counts[ExitCause.JUMP] + counts[ExitCause.PENDING] + counts[ExitCause.RESYNC],
        },
      };
    });
    const now = performance.now();
    const elapsed = now - this.#last.at;
    const mips = this.#last.at > 0 && elapsed > 0 ? Math.max(0, (total - this.#last.instructions) / elapsed / 1000) : 0;
    this.#last = { at: now, instructions: total };
    return {
      timestamp: Date.now(),
      machineNs: Math.floor(clock.now()),
      vcpus,
      memory: { totalBytes: layout.ramBytes, usedBytes: null, residentBytes: this.#resident() },
      mips,
      translator: this.translator(this.#cpus),
      ...(drives.drives.length === 0
        ? {}
        : {
            drives: drives.drives.map(({ config, state }) => ({
              id: config.id,
              readBytes: state.readBytes,
              writtenBytes: state.writtenBytes,
              readOperations: state.readOperations,
              writeOperations: state.writeOperations,
            })),
          }),
    };
  }

  /** What the translators of some vCPUs have done. */
  translator(cpus: readonly Cpu[]): TranslatorStats {
    const sums = new Float64Array((S.PMU - S.EXIT_COUNTS) >> 3);
    for (const cpu of cpus) for (let n = 0; n < sums.length; n++) sums[n] += cpu.f64[(S.EXIT_COUNTS >> 3) + n];
    // The sleep that goes on now counts up to now.
    const now = performance.timeOrigin + performance.now();
    let idle = sums[ExitCause.IDLE_US];
    for (const cpu of cpus) {
      const since = cpu.f64[(S.EXIT_COUNTS >> 3) + ExitCause.IDLE_SINCE];
      if (since > 0) idle += Math.max(0, now - since) * 1000;
    }
    return {
      regions: sums[ExitCause.REGIONS],
      farRegions: sums[ExitCause.FAR_REGIONS],
      declined: sums[ExitCause.DECLINED],
      decodeNs: sums[ExitCause.MAKING_US] * 1000,
      compileNs: sums[ExitCause.COMPILE_US] * 1000,
      idleNs: idle * 1000,
      drops: sums[ExitCause.DROPS],
      code: {
        regions: sums[ExitCause.LIVE_REGIONS],
        maxRegions: MAX_REGIONS * cpus.length,
        recordBytes: sums[ExitCause.CODE_BYTES],
        maxRecordBytes: this.#machine.layout.recordBytes * cpus.length,
        moduleBytes: sums[ExitCause.REGION_BYTES],
      },
      samples: {
        baseline: sums[ExitCause.SAMPLES_BASELINE],
        regions: sums[ExitCause.SAMPLES_REGIONS],
        other: sums[ExitCause.SAMPLES_OTHER],
      },
    };
  }

  #profileTimer: ReturnType<typeof setTimeout> | undefined;

  /** Has the vCPUs' threads give their samples and go on; ends it when nobody asks any longer. */
  profile(): void {
    const { control, layout } = this.#machine;
    const tell = (turn: number): void => {
      control.profile = turn;
      for (let n = 0; n < layout.cpus; n++) this.#machine.notifyCpu(n, S.Pending.CALL);
    };
    tell((control.profile % 0x7fffffff) + 1);
    clearTimeout(this.#profileTimer);
    this.#profileTimer = setTimeout(() => tell(0), PROFILE_MS);
    this.#profileTimer.unref();
  }
}
