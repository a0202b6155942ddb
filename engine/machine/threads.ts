/** What all worker threads of a VM process have: what they are given, and a machine of their own over the shared memory. */

import type { LinkedBaseline } from '../accel/jit/vcpu.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import type { Roms } from './firmware.ts';
import type { MachineLayout } from './layout.ts';
import { Machine, type MachineHost, type MachineParts } from './machine.ts';
import { VcpuBus } from './vcpu-bus.ts';

export interface ThreadData {
  readonly role: 'clock' | 'vcpu' | 'io' | 'translator';
  /** Index of the vCPU or the I/O thread. */
  readonly index: number;
  readonly config: MachineConfig;
  readonly layout: MachineLayout;
  readonly roms: Roms;
  readonly memory: WebAssembly.Memory;
  readonly baseline: LinkedBaseline | undefined;
}

/** Lock owner numbers: the control thread is 1. */
export const CLOCK_OWNER = 2;
export const FIRST_VCPU_OWNER = 16;
export const FIRST_IO_OWNER = 128;

/** Makes a machine with the buses of all its vCPUs, on any thread. */
export function makeMachine(parts: MachineParts): { machine: Machine; buses: VcpuBus[] } {
  const machine = new Machine(parts);
  const buses = Array.from({ length: parts.layout.cpus }, (_, n) => {
    const bus = new VcpuBus(machine, n);
    machine.tscToNs[n] = (ticks) => bus.tscToNs(ticks);
    return bus;
  });
  return { machine, buses };
}

/** What the machine of a thread is made of. `owner`: its number for locks; `ownCpu`: the vCPU that runs on it, or -1. */
export const partsOf = (data: ThreadData, owner: number, ownCpu: number, host: MachineHost): MachineParts => {
  const { config, layout, roms } = data;
  return { config, layout, roms, buffer: data.memory.buffer, owner, ownCpu, host };
};
