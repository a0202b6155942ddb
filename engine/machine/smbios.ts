/**
 * SMBIOS tables: who made the machine, its processors and its memory. DMTF DSP0134, version 2.8 for the layout
 * of the structures, with the 2.1 entry point (5.2.1) or the 64-bit entry point of 3.0 (5.2.2).
 */

export interface SmbiosConfig {
  readonly cpus: number;
  /** As the CPU says: CPUID leaf 1's EAX and EDX. */
  readonly cpuSignature?: number;
  readonly cpuFeatures?: number;
  /** Version string of the processors. */
  readonly cpuName?: string;
  readonly ramBytes: number;
  /** Where RAM lies in physical memory, in order. */
  readonly ramRanges: readonly { readonly base: number; readonly length: number }[];
  /** 16 bytes: the VM's UUID in text order. */
  readonly uuid?: Uint8Array;
  readonly manufacturer?: string;
  readonly product?: string;
  readonly version?: string;
  readonly serial?: string;
  readonly biosVendor?: string;
  readonly biosVersion?: string;
  /** mm/dd/yyyy. */
  readonly biosDate?: string;
}

export interface Smbios {
  /** The structures, without an entry point: fw_cfg's `etc/smbios/smbios-tables`. */
  readonly tables: Uint8Array;
  /** Structure count. */
  readonly count: number;
  /** The 31-byte entry point of version 2.8 for tables at `address`: fw_cfg's `etc/smbios/smbios-anchor` with address 0. */
  anchor21(address: number): Uint8Array;
  /** The 24-byte entry point of version 3.0. */
  anchor30(address: number): Uint8Array;
}

/** Largest capacity of one memory module here: what fits the 15-bit count of MiB is the rule of old readers. */
const MODULE_BYTES = 16 * 2 ** 30;
const KIB = 1024;
const MIB = 1024 * KIB;

const little = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);

/** One structure: formatted part, then the strings it numbers. DSP0134 6.1. */
class Structure {
  readonly bytes: number[];
  readonly #strings: string[] = [];

  constructor(type: number, handle: number) {
    this.bytes = [type, 0, ...little(handle, 2)];
  }
  u8(...values: number[]): this {
    this.bytes.push(...values.map((value) => value & 0xff));
    return this;
  }
  u16(value: number): this {
    this.bytes.push(...little(value, 2));
    return this;
  }
  u32(value: number): this {
    this.bytes.push(...little(value, 4));
    return this;
  }
  u64(value: number): this {
    this.bytes.push(...little(value, 8));
    return this;
  }
  /** The number of a string; 0 where there is none. Only printable ASCII, at most 64 characters. */
  text(value: string | undefined): this {
    const clean = (value ?? '').replace(/[^\x20-\x7e]/g, '?').slice(0, 64);
    if (clean === '') return this.u8(0);
    this.#strings.push(clean);
    return this.u8(this.#strings.length);
  }
  finish(): number[] {
    this.bytes[1] = this.bytes.length;
    const strings = this.#strings.flatMap((value) => [...[...value].map((c) => c.charCodeAt(0)), 0]);
    return [...this.bytes, ...(strings.length === 0 ? [0] : strings), 0];
  }
}

/** A UUID's first three fields are little-endian since SMBIOS 2.6. DSP0134 7.2.1. */
function wireUuid(uuid: Uint8Array): number[] {
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return order.map((i) => uuid[i] ?? 0);
}

export function buildSmbios(config: SmbiosConfig): Smbios {
  const all: number[][] = [];
  const add = (structure: Structure): void => {
    all.push(structure.finish());
  };
  const maker = config.manufacturer ?? 'Vivarium';
  const product = config.product ?? 'Vivarium PC';

  // 7.1 BIOS information: segment 0xe800, 64 KiB; PCI, bootable CD, ACPI, targeted content, virtual machine.
  add(
    new Structure(0, 0)
      .text(config.biosVendor ?? maker)
      .text(config.biosVersion ?? config.version ?? '1')
      .u16(0xe800)
      .text(config.biosDate ?? '01/01/2026')
      .u8(0)
      .u32(0x80 | (1 << 15))
      .u32(0)
      .u8(1, 0x14, 0, 0, 0xff, 0xff),
  );
  // 7.2 System information; woken by the power switch.
  const system = new Structure(1, 0x100).text(maker).text(product).text(config.version).text(config.serial);
  for (const byte of config.uuid === undefined ? new Array<number>(16).fill(0) : wireUuid(config.uuid)) system.u8(byte);
  add(system.u8(6).text(undefined).text(undefined));
  // 7.4 Chassis: "other", states safe.
  add(
    new Structure(3, 0x300)
      .text(maker)
      .u8(1)
      .text(config.version)
      .text(undefined)
      .text(undefined)
      .u8(3, 3, 3, 2)
      .u32(0)
      .u8(0, 0, 0, 0)
      .text(undefined),
  );
  // 7.5 Processor: one socket for each vCPU, enabled.
  for (let cpu = 0; cpu < config.cpus; cpu++) {
    add(
      new Structure(4, 0x400 + cpu)
        .text(`CPU ${cpu}`)
        .u8(3, 1)
        .text(maker)
        .u32(config.cpuSignature ?? 0)
        .u32(config.cpuFeatures ?? 0)
        .text(config.cpuName ?? product)
        .u8(0)
        .u16(0)
        .u16(0)
        .u16(0)
        .u8(0x41, 1)
        .u16(0xffff)
        .u16(0xffff)
        .u16(0xffff)
        .text(undefined)
        .text(undefined)
        .text(undefined)
        .u8(1, 1, 1)
        .u16(4)
        .u16(1),
    );
  }
  // 7.17 Physical memory array, 7.18 its devices.
  const modules = Math.max(1, Math.ceil(config.ramBytes / MODULE_BYTES));
  const array = new Structure(16, 0x1000).u8(1, 3, 3);
  const kib = Math.ceil(config.ramBytes / KIB);
  array
    .u32(kib < 2 ** 31 ? kib : 0x80000000)
    .u16(0xfffe)
    .u16(modules);
  add(array.u64(kib < 2 ** 31 ? 0 : config.ramBytes));
  for (let i = 0; i < modules; i++) {
    const size = Math.min(MODULE_BYTES, config.ramBytes - i * MODULE_BYTES);
    const mib = Math.floor(size / MIB);
    add(
      new Structure(17, 0x1100 + i)
        .u16(0x1000)
        .u16(0xfffe)
        .u16(0xffff)
        .u16(0xffff)
        .u16(Math.min(mib, 0x7fff))
        .u8(9, 0)
        .text(`DIMM ${i}`)
        .text(undefined)
        .u8(7)
        .u16(2)
        .u16(0)
        .text(maker)
        .text(undefined)
        .text(undefined)
        .text(undefined)
        .u8(0)
        .u32(mib < 0x7fff ? 0 : mib)
        .u16(0)
        .u16(0)
        .u16(0)
        .u16(0),
    );
  }
  // 7.20 Where the array is mapped: in KiB, or in bytes from 2.7 on where that does not fit.
  config.ramRanges.forEach((range, i) => {
    const first = Math.floor(range.base / KIB);
    const last = Math.floor((range.base + range.length - 1) / KIB);
    const wide = last >= 0xffffffff;
    add(
      new Structure(19, 0x1300 + i)
        .u32(wide ? 0xffffffff : first)
        .u32(wide ? 0xffffffff : last)
        .u16(0x1000)
        .u8(modules)
        .u64(wide ? range.base : 0)
        .u64(wide ? range.base + range.length - 1 : 0),
    );
  });
  // 7.33 Boot information: no errors. 7.45 end of table.
  add(new Structure(32, 0x2000).u8(0, 0, 0, 0, 0, 0, 0));
  add(new Structure(127, 0x7f00));

  const tables = Uint8Array.from(all.flat());
  const longest = Math.max(...all.map((structure) => structure.length));
  const ascii = (text: string): number[] => [...text].map((c) => c.charCodeAt(0));
  const balance = (data: Uint8Array, at: number, from: number): void => {
    data[at] = -data.subarray(from).reduce((sum, byte) => sum + byte, 0);
  };
  return {
    tables,
    count: all.length,
    anchor21(address) {
      const anchor = Uint8Array.from([
        ...ascii('_SM_'),
        0,
        31,
        2,
        8,
        ...little(longest, 2),
        0,
        ...[0, 0, 0, 0, 0],
        ...ascii('_DMI_'),
        0,
        ...little(tables.length, 2),
        ...little(address, 4),
        ...little(all.length, 2),
        0x28,
      ]);
      balance(anchor, 21, 16);
      balance(anchor, 4, 0);
      return anchor;
    },
    anchor30(address) {
      const anchor = Uint8Array.from([
        ...ascii('_SM3_'),
        0,
        24,
        3,
        0,
        0,
        1,
        0,
        ...little(tables.length, 4),
        ...little(address, 8),
      ]);
      balance(anchor, 5, 0);
      return anchor;
    },
  };
}
