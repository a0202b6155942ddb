/** What a vCPU is beside its translated code, for its own thread and for the control thread, which reads it. */
import * as S from '../memory/vcpu-state.ts';
import { Cpu } from '../x86/system/cpu.ts';
import { Cpuid, cpuFeatures } from '../x86/system/cpuid.ts';
import { System } from '../x86/system/helpers.ts';
import type { Machine } from './machine.ts';
import type { VcpuBus } from './vcpu-bus.ts';

/** Makes it over the vCPU's state in shared memory. */
export function makeSystem(machine: Machine, bus: VcpuBus): System {
  const { config, layout } = machine;
  const chosen = cpuFeatures(config.cpus.model, config.cpus.features, config.cpus.vendor);
  if (chosen === undefined) throw new Error(`CPU model '${config.cpus.model}' is not known`);
  const cpu = new Cpu(bus, machine.memory, machine.buffer, layout.vcpus + bus.index * S.VCPU_BYTES);
  return new System(cpu, new Cpuid({ ...chosen.config, cpus: layout.cpus }));
}
