/**
 * Where things lie in the machine memory. Everything is found from the configuration alone, so that each thread of a
 * VM process computes the same addresses.
 */
import { VCPU_BYTES } from '../memory/vcpu-state.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** Guest-physical address above which RAM goes on at 4 GiB: below lie PCI windows, APICs and firmware. */
export const LOW_RAM_LIMIT = 3 * GIB;
export const HIGH_RAM_BASE = 4 * GIB;
/**
 * RAM below the PCI hole. A q35's firmware puts the enhanced configuration window at 0xb0000000 or above, and expects half
 * of what lies below 4 GiB to be free where RAM would reach that.
 */
export function lowRamBytes(ramBytes: number, q35WithFirmware: boolean): number {
  if (q35WithFirmware) return ramBytes >= 0xb0000000 ? 2 * GIB : ramBytes;
  return Math.min(ramBytes, LOW_RAM_LIMIT);
}

/** I/O base and interrupt of COM1 to COM4. */
export const SERIAL_PORTS: readonly { port: number; irq: number }[] = [
  { port: 0x3f8, irq: 4 },
  { port: 0x2f8, irq: 3 },
  { port: 0x3e8, irq: 4 },
  { port: 0x2e8, irq: 3 },
];
/** Ports of the registers for PCI devices that come and go: those of QEMU's `pc`. */
export const PCI_HOTPLUG_PORT = 0xae00;
/** Where the ACPI ports are without firmware, and the SCI. */
export const PM_BASE = 0x600;
export const SCI = 9;
/** Firmware and option ROMs: up to 16 MiB of backing. */
const ROM_BYTES = 16 * MIB;
const STATE_BYTES = 4 * MIB;

export interface MachineLayout {
  readonly cpus: number;
  readonly ramBytes: number;
  /** RAM below the PCI hole; the rest goes on at `HIGH_RAM_BASE`. */
  readonly lowRamBytes: number;
  readonly vramBytes: number;
  readonly memory64: boolean;
  /** Device structs and rings, see `SharedState`. */
  readonly state: number;
  readonly stateBytes: number;
  readonly vcpus: number;
  readonly codePages: number;
  readonly codeGranules: number;
  readonly dirtyPages: number;
  readonly records: number;
  /** Bytes of decoded records that each vCPU has. */
  readonly recordBytes: number;
  /** Guest-visible memory: ROM, video memory, RAM. */
  readonly backing: number;
  readonly rom: number;
  readonly romBytes: number;
  readonly vram: number;
  readonly ram: number;
  readonly end: number;
  /** 64 KiB pages of the WebAssembly memory. */
  readonly pages: number;
}

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Bytes that a memory32 can hold. */
const MEMORY32_LIMIT = 4 * GIB - 64 * KIB;

export function layoutFor(
  cpus: number,
  ramBytes: number,
  vramBytes: number,
  lowRamBytes = Math.min(ramBytes, LOW_RAM_LIMIT),
): MachineLayout {
  const recordBytes = (cpus <= 4 ? 48 : 16) * MIB;
  const backingBytes = ROM_BYTES + vramBytes + ramBytes;
  const backingPages = align(backingBytes, 4096) / 4096;
  let at = 64 * KIB;
  const take = (bytes: number, alignment = 4096): number => {
    at = align(at, alignment);
    const start = at;
    at += bytes;
    return start;
  };
  const state = take(STATE_BYTES);
  const vcpus = take(cpus * VCPU_BYTES);
  const codePages = take(backingPages);
  const dirtyPages = take(backingPages);
  const codeGranules = take(backingPages * 4);
  const records = take(cpus * recordBytes);
  const backing = take(backingBytes, 2 * MIB);
  const end = align(at, 64 * KIB);
  return {
    cpus,
    ramBytes,
    lowRamBytes,
    vramBytes,
    memory64: end > MEMORY32_LIMIT,
    state,
    stateBytes: STATE_BYTES,
    vcpus,
    codePages,
    codeGranules,
    dirtyPages,
    records,
    recordBytes,
    backing,
    rom: backing,
    romBytes: ROM_BYTES,
    vram: backing + ROM_BYTES,
    ram: backing + ROM_BYTES + vramBytes,
    end,
    pages: end / (64 * KIB),
  };
}
