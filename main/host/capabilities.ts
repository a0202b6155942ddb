/** What this computer has: CPUs, memory, KVM. */
import { accessSync, constants, existsSync } from 'node:fs';
import { cpus, freemem, hostname, totalmem } from 'node:os';
import type { HostCapabilities } from '../contract/index.ts';

const MiB = 1 << 20;

/** Memory that can be given away now, in MiB: what the system calls available, within the limits set on this process. */
export function freeMemoryMiB(): number {
  return Math.floor(Math.min(freemem(), process.availableMemory()) / MiB);
}

/** All memory of the host, or the limit set on this process, in MiB. */
export function totalMemoryMiB(): number {
  const limit = process.constrainedMemory();
  return Math.floor((limit > 0 && limit < totalmem() ? limit : totalmem()) / MiB);
}

export function kvmState(device = '/dev/kvm'): HostCapabilities['kvm'] {
  if (process.platform !== 'linux') return { available: false, reason: 'KVM is a part of Linux' };
  if (!existsSync(device))
    return { available: false, reason: `There is no ${device}: the CPU's virtualization is off, or this is itself a VM` };
  try {
    accessSync(device, constants.R_OK | constants.W_OK);
    return { available: true };
  } catch {
    return { available: false, reason: `You may not open ${device}: add yourself to the group kvm` };
  }
}

export function hostCapabilities(shell: HostCapabilities['shell']): HostCapabilities {
  const list = cpus();
  return {
    hostname: hostname(),
    platform: `${process.platform} ${process.arch}`,
    cpuModel: list[0]?.model.trim() ?? 'unknown',
    cpus: list.length,
    memoryMiB: totalMemoryMiB(),
    freeMiB: freeMemoryMiB(),
    kvm: kvmState(),
    shell,
    electronVersion: process.versions.electron ?? null,
    nodeVersion: process.versions.node,
  };
}
