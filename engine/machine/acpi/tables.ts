/**
 * Puts the ACPI tables together, with their pointers still relative, and places them: at addresses that the caller
 * chooses, for a machine without firmware, or as the files and commands by which SeaBIOS and OVMF place them
 * (QEMU's table loader interface, docs/specs and the firmware's own descriptions).
 *
 * ACPI 6.4, 5.2. The FADT has the layout of revision 3 (ACPI 2.0), which old and new systems read.
 */
import type { AcpiConfig } from './config.ts';
import { dsdtBody } from './dsdt.ts';

const OEM = 'VIVRIU';
const OEM_TABLE = 'VIVARIUM';
const CREATOR = 'VIVM';
const HEADER_BYTES = 36;
const TABLES_FILE = 'etc/acpi/tables';
const RSDP_FILE = 'etc/acpi/rsdp';
const LOADER_FILE = 'etc/table-loader';

/** A field that holds the address of something in the tables blob: the value there is an offset so far. */
interface Pointer {
  readonly file: 'tables' | 'rsdp';
  readonly at: number;
  readonly size: 4 | 8;
}

interface Checksum {
  readonly file: 'tables' | 'rsdp';
  readonly at: number;
  readonly start: number;
  readonly length: number;
}

export interface Placement {
  readonly address: number;
  readonly bytes: Uint8Array;
}

export interface AcpiTables {
  /** Bytes that the tables take; they want an alignment of 64. */
  readonly size: number;
  /** Bytes that the root pointer takes; it lies on a 16-byte boundary from 0xe0000 to 0xfffff (ACPI 6.4, 5.2.5.1). */
  readonly rsdpSize: number;
  /** Ready tables for these addresses (below 4 GiB). */
  place(tablesAt: number, rsdpAt: number): { readonly rsdp: Placement; readonly tables: Placement };
  /** fw_cfg files for a firmware that places them itself. */
  readonly files: readonly { readonly name: string; readonly data: Uint8Array }[];
}

/** A growing table with typed appends. */
class Writer {
  readonly out: number[] = [];
  u8(...values: number[]): this {
    for (const value of values) this.out.push(value & 0xff);
    return this;
  }
  u16(value: number): this {
    return this.u8(value, value >> 8);
  }
  u32(value: number): this {
    return this.u8(value, value >>> 8, value >>> 16, value >>> 24);
  }
  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
  }
  text(value: string, length: number): this {
    for (let i = 0; i < length; i++) this.out.push(i < value.length ? value.charCodeAt(i) : 0x20);
    return this;
  }
  zeros(count: number): this {
    for (let i = 0; i < count; i++) this.out.push(0);
    return this;
  }
  /** A Generic Address Structure in the I/O space. ACPI 6.4, 5.2.3.2. */
  port(address: number, bits: number, accessBits = bits): this {
    return address === 0 ? this.zeros(12) : this.u8(1, bits, 0, accessBits === 8 ? 1 : accessBits === 16 ? 2 : 3).u64(address);
  }
}

function madt(config: AcpiConfig): Uint8Array {
  const w = new Writer();
  w.u32(0xfee00000).u32(1); // local APIC address; PC-AT compatible: there are two 8259
  config.apicIds.forEach((apicId, i) => {
    if (apicId < 255 && i < 255) w.u8(0, 8, i, apicId).u32(1);
    else w.u8(9, 16, 0, 0).u32(apicId).u32(1).u32(i);
  });
  w.u8(1, 12, config.ioapic.id, 0).u32(config.ioapic.base).u32(0);
  const override = (source: number, target: number, flags: number): void => {
    w.u8(2, 10, 0, source).u32(target).u16(flags);
  };
  // The timer is on pin 2. What PCI uses, and the SCI, are level-triggered and active high.
  override(0, 2, 0);
  const level = new Set([config.pm.sci, 5, 10, 11]);
  for (const irq of [...level].sort((a, b) => a - b)) override(irq, irq, 0x0d);
  w.u8(4, 6, 0xff).u16(0).u8(1); // NMI on LINT1 of all processors
  if (config.apicIds.some((apicId) => apicId >= 255)) w.u8(0x0a, 12).u16(0).u32(0xffffffff).u8(1, 0, 0, 0);
  return Uint8Array.from(w.out);
}

/** The FADT's body; FIRMWARE_CTRL, DSDT and their 64-bit forms hold offsets. ACPI 6.4, 5.2.9. */
function fadt(config: AcpiConfig, facsAt: number, dsdtAt: number): Uint8Array {
  const { pm } = config;
  const gpe = pm.gpe0;
  const w = new Writer();
  w.u32(facsAt).u32(dsdtAt);
  w.u8(0, 1); // desktop profile follows the reserved byte
  w.u16(pm.sci)
    .u32(pm.smi?.port ?? 0)
    .u8(pm.smi?.enable ?? 0, pm.smi?.disable ?? 0, 0, 0);
  w.u32(pm.base).u32(0); // PM1a and PM1b event
  w.u32(pm.base + 4).u32(0); // PM1a and PM1b control
  w.u32(0); // PM2 control
  w.u32(pm.base + 8);
  w.u32(gpe?.port ?? 0).u32(0);
  w.u8(4, 2, 0, 4, gpe?.length ?? 0, 0, 0, 0);
  w.u16(0xfff).u16(0xfff); // no C2, no C3
  w.u16(0).u16(0).u8(0, 0); // flush size and stride, duty
  w.u8(0, 0, 0x32); // no alarm day and month; the RTC's century register
  // Legacy devices are there, an 8042 where PS/2 is, and a flag where VGA is not.
  w.u16(1 | (config.ps2 ? 2 : 0) | (config.vga === false ? 4 : 0)).u8(0);
  // WBINVD works, C1 works, no sleep button, RTC wake is not in the fixed registers, platform clock.
  let flags = 1 | (1 << 2) | (1 << 5) | (1 << 6) | (1 << 15);
  if (pm.timer32) flags |= 1 << 8;
  if (config.reset) flags |= 1 << 10;
  // More than eight processors, or wide ids, cannot be reached by flat logical destinations.
  if (config.apicIds.length > 8 || config.apicIds.some((id) => id >= 8)) flags |= 1 << 19;
  w.u32(flags);
  w.port(config.reset?.port ?? 0, 8).u8(config.reset?.value ?? 0, 0, 0, 0);
  w.u64(facsAt).u64(dsdtAt);
  w.port(pm.base, 32, 16)
    .port(0, 0)
    .port(pm.base + 4, 16)
    .port(0, 0)
    .port(0, 0)
    .port(pm.base + 8, 32);
  w.port(gpe?.port ?? 0, (gpe?.length ?? 0) * 8, 8).port(0, 0);
  return Uint8Array.from(w.out);
}

/** Builds the tables of a machine. */
export function buildAcpi(config: AcpiConfig): AcpiTables {
  let blob: number[] = [];
  const pointers: Pointer[] = [];
  const checksums: Checksum[] = [];
  const listed: number[] = [];

  /** Appends a table with its header; `relative` are fields that hold offsets, counted from the table's start. */
  const add = (
    signature: string,
    revision: number,
    body: Uint8Array,
    relative: readonly (readonly [number, 4 | 8])[] = [],
  ): number => {
    while (blob.length % 16 !== 0) blob.push(0);
    const at = blob.length;
    const length = HEADER_BYTES + body.length;
    const header = new Writer().text(signature, 4).u32(length).u8(revision, 0).text(OEM, 6).text(OEM_TABLE, 8).u32(1);
    header.text(CREATOR, 4).u32(1);
    blob = blob.concat(header.out, [...body]);
    for (const [offset, size] of relative) pointers.push({ file: 'tables', at: at + offset, size });
    checksums.push({ file: 'tables', at: at + 9, start: at, length });
    return at;
  };

  // The FACS first: it wants 64 bytes of alignment, has no checksum and is in no list. ACPI 6.4, 5.2.10.
  const facsAt = 0;
  blob = new Writer().text('FACS', 4).u32(64).zeros(24).u8(1).zeros(31).out;
  const dsdtAt = add('DSDT', 2, dsdtBody(config));
  const fadtAt = add('FACP', 3, fadt(config, facsAt, dsdtAt), [
    [36, 4],
    [40, 4],
    [132, 8],
    [140, 8],
  ]);
  listed.push(fadtAt, add('APIC', 3, madt(config)));
  if (config.hpet !== undefined) {
    // An Intel block of three 64-bit timers that can replace the legacy ones. IA-PC HPET 1.0a, 3.2.4.
    const body = new Writer().u32(0x8086a201).u8(0, 0, 0, 0).u64(config.hpet).u8(0).u16(0).u8(0);
    listed.push(add('HPET', 1, Uint8Array.from(body.out)));
  }
  if (config.pci.ecam !== undefined) {
    const { base, buses } = config.pci.ecam;
    const body = new Writer()
      .zeros(8)
      .u64(base)
      .u16(0)
      .u8(0, buses - 1)
      .u32(0);
    listed.push(add('MCFG', 1, Uint8Array.from(body.out)));
  }
  if (config.waet) listed.push(add('WAET', 1, Uint8Array.from(new Writer().u32(2).out)));
  const list = (size: 4 | 8): [Uint8Array, [number, 4 | 8][]] => {
    const w = new Writer();
    for (const at of listed) {
      if (size === 4) w.u32(at);
      else w.u64(at);
    }
    return [Uint8Array.from(w.out), listed.map((_, i) => [HEADER_BYTES + i * size, size])];
  };
  const rsdtAt = add('RSDT', 1, ...list(4));
  const xsdtAt = add('XSDT', 1, ...list(8));

  const rsdp = new Writer().text('RSD PTR ', 8).u8(0).text(OEM, 6).u8(2).u32(rsdtAt).u32(36).u64(xsdtAt).u8(0, 0, 0, 0).out;
  pointers.push({ file: 'rsdp', at: 16, size: 4 }, { file: 'rsdp', at: 24, size: 8 });
  checksums.push({ file: 'rsdp', at: 8, start: 0, length: 20 }, { file: 'rsdp', at: 32, start: 0, length: 36 });

  const tablesBytes = Uint8Array.from(blob);
  const rsdpBytes = Uint8Array.from(rsdp);
  return {
    size: tablesBytes.length,
    rsdpSize: rsdpBytes.length,
    place(tablesAt, rsdpAt) {
      const files = { tables: tablesBytes.slice(), rsdp: rsdpBytes.slice() };
      for (const { file, at } of pointers) {
        // A 64-bit pointer's high half stays zero: the tables are below 4 GiB.
        const view = new DataView(files[file].buffer);
        view.setUint32(at, view.getUint32(at, true) + tablesAt, true);
      }
      for (const { file, at, start, length } of checksums) {
        const sum = files[file].subarray(start, start + length).reduce((total, byte) => total + byte, 0);
        files[file][at] = (files[file][at] - sum) & 0xff;
      }
      return { rsdp: { address: rsdpAt, bytes: files.rsdp }, tables: { address: tablesAt, bytes: files.tables } };
    },
    files: [
      { name: TABLES_FILE, data: tablesBytes },
      { name: RSDP_FILE, data: rsdpBytes },
      { name: LOADER_FILE, data: loaderCommands(pointers, checksums) },
    ],
  };
}

// Commands of the table loader: 128 bytes each, the rest of each zero.
const ALLOCATE = 1;
const ADD_POINTER = 2;
const ADD_CHECKSUM = 3;
const ZONE_HIGH = 1;
const ZONE_FSEG = 2;
const COMMAND_BYTES = 128;
const NAME_BYTES = 56;

function loaderCommands(pointers: readonly Pointer[], checksums: readonly Checksum[]): Uint8Array {
  const names = { tables: TABLES_FILE, rsdp: RSDP_FILE };
  const out: number[] = [];
  const command = (fill: (w: Writer) => void): void => {
    const w = new Writer();
    fill(w);
    w.zeros(COMMAND_BYTES - w.out.length);
    out.push(...w.out);
  };
  const file = (w: Writer, name: string): Writer => {
    for (let i = 0; i < NAME_BYTES; i++) w.u8(i < name.length ? name.charCodeAt(i) : 0);
    return w;
  };
  command((w) => file(w.u32(ALLOCATE), RSDP_FILE).u32(16).u8(ZONE_FSEG));
  command((w) => file(w.u32(ALLOCATE), TABLES_FILE).u32(64).u8(ZONE_HIGH));
  for (const pointer of pointers)
    command((w) =>
      file(file(w.u32(ADD_POINTER), names[pointer.file]), TABLES_FILE)
        .u32(pointer.at)
        .u8(pointer.size),
    );
  for (const sum of checksums)
    command((w) => file(w.u32(ADD_CHECKSUM), names[sum.file]).u32(sum.at).u32(sum.start).u32(sum.length));
  return Uint8Array.from(out);
}
