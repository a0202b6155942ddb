/** One sample of a machine's counters. The vCPUs count in shared memory; nothing is asked of them. */
import { ExitCause } from '../accel/jit/vcpu.ts';
import type { MachineStats, VcpuStats } from '../contract/stats.ts';
import { residentMeter, threadCpuNs } from '../host/platform.ts';
import * as S from '../memory/vcpu-state.ts';
import type { Cpu } from '../x86/system/cpu.ts';
import { CounterIndex } from './control-words.ts';
import type { Machine } from './machine.ts';

const WASM_PAGE = 64 * 1024;
const COUNTS = 16;

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

  /** `running`: whether the machine as a whole runs. */
  sample(running: boolean): MachineStats {
    const { control, clock, layout, drives } = this.#machine;
    let total = 0;
    const vcpus = this.#cpus.map((cpu, index): VcpuStats => {
      const instructions = cpu.getNumber(S.INSTRUCTIONS);
      total += instructions;
      const counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, (S.EXIT_COUNTS >> 3) + COUNTS);
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
          tlb: counts[ExitCause.FLUSH],
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
}
