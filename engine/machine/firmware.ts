/** What the machine tells a firmware: ACPI tables, SMBIOS, the memory map, the order of boot devices; by fw_cfg. */
import type { DriveConfig, MachineConfig } from '../contract/machine-config.ts';
import { ACPI_GPE_OFFSET, ACPI_GPE_PORTS } from '../devices/acpi-pm.ts';
import { FW_CFG_PORT, type FwCfg, FwCfgKey } from '../devices/fw-cfg.ts';
import { HPET_DEFAULT_BASE } from '../devices/hpet.ts';
import { IOAPIC_DEFAULT_BASE } from '../devices/ioapic.ts';
import { PCI_HOTPLUG_EVENT } from '../devices/pci-hotplug.ts';
import { type AcpiTables, buildAcpi } from './acpi/tables.ts';
import { DIRECT_ECAM, isQ35 } from './chipset.ts';
import { HIGH_RAM_BASE, type MachineLayout, PCI_HOTPLUG_PORT, PM_BASE, SCI, SERIAL_PORTS } from './layout.ts';
import { buildSmbios } from './smbios.ts';

/** Images that lie outside the guest's memory, the same on every thread. */
export interface Roms {
  /** Bytes of firmware at the start of the ROM area. */
  readonly firmwareBytes: number;
  /** Bytes of UEFI variables behind it; they are seen below it. */
  readonly variablesBytes?: number;
  /** The VGA's option ROM. */
  readonly vgaBios?: Uint8Array;
}

export interface Window {
  readonly first: number;
  readonly end: number;
}

/** Where BARs below 4 GiB go: our own choice, or the firmware's, which looks at how much RAM there is. */
export function pciWindow(config: MachineConfig, layout: MachineLayout): Window {
  const low = layout.lowRamBytes;
  if (config.boot.kind === 'kernel') return { first: Math.max(low, 0xe0000000), end: 0xfebf0000 };
  return { first: low <= 0x80000000 ? 0x80000000 : 0xc0000000, end: 0xfec00000 };
}

/** Where SeaBIOS puts a q35's configuration window, and how large it is. */
const SEABIOS_ECAM = 0xb0000000;
const ECAM_BYTES = 256 * 2 ** 20;

export const hasHpet = (config: MachineConfig): boolean => config.machine.options?.hpet !== 'off';

type Pci = Parameters<typeof buildAcpi>[0]['pci'];

/** What the tables say of the bus. A q35's windows lie on both sides of its configuration window, wherever that is. */
function pciTables(config: MachineConfig, layout: MachineLayout, ecamBase: number): Pci {
  const memory32 = pciWindow(config, layout);
  const highEnd = HIGH_RAM_BASE + Math.ceil((layout.ramBytes - layout.lowRamBytes) / 2 ** 30) * 2 ** 30;
  const uefi = config.boot.kind === 'firmware' && config.boot.variables !== undefined;
  // UEFI puts large BARs above RAM; other firmware does not, and old systems do not like to hear of such windows.
  const memory64 = uefi ? { first: highEnd, end: 2 ** 40 } : undefined;
  if (!isQ35(config)) return { memory32, memory64, routing: 'pirq' };
  const end = ecamBase + ECAM_BYTES;
  const first = Math.min(
    config.boot.kind === 'firmware' ? Math.ceil(layout.lowRamBytes / 2 ** 20) * 2 ** 20 : ecamBase,
    ecamBase,
  );
  const below = config.boot.kind === 'firmware' && first < ecamBase;
  return {
    memory32: below ? { first, end: ecamBase } : { first: Math.max(memory32.first, end), end: memory32.end },
    more32: below ? { first: end, end: 0xfec00000 } : undefined,
    memory64,
    routing: 'ich9',
    ecam: { base: ecamBase, buses: ECAM_BYTES / 2 ** 20 },
  };
}

/** Slots of bus 0 that devices may come into and go from: those that the chipset and the display leave. */
export const hotplugSlots = (config: MachineConfig): number[] => Array.from({ length: isQ35(config) ? 28 : 29 }, (_, n) => n + 3);

/** `ecamBase`: where a q35 has its configuration window; SeaBIOS's choice unless given. */
export function acpiTables(config: MachineConfig, layout: MachineLayout, ecamBase?: number): AcpiTables {
  const ecam = ecamBase ?? (config.boot.kind === 'kernel' ? DIRECT_ECAM : SEABIOS_ECAM);
  return buildAcpi({
    apicIds: Array.from({ length: layout.cpus }, (_, n) => n),
    ioapic: { id: layout.cpus, base: IOAPIC_DEFAULT_BASE },
    pm: {
      ...{ base: PM_BASE, sci: SCI, timer32: false, sleepType5: 0 },
      gpe0: { port: PM_BASE + ACPI_GPE_OFFSET, length: ACPI_GPE_PORTS },
    },
    reset: { port: 0xcf9, value: 6 },
    pci: pciTables(config, layout, ecam),
    hotplug: { port: PCI_HOTPLUG_PORT, event: PCI_HOTPLUG_EVENT, slots: hotplugSlots(config) },
    hpet: hasHpet(config) ? HPET_DEFAULT_BASE : undefined,
    fwCfg: FW_CFG_PORT,
    serial: config.serial.map((_, n) => SERIAL_PORTS[n]),
    ps2: true,
    floppy: config.drives.some((drive) => drive.interface === 'floppy'),
    vga: config.display.adapter !== 'none',
  });
}

/** RAM ranges of the physical memory, in order. */
export function ramRanges(layout: MachineLayout): { base: number; length: number }[] {
  const low = layout.lowRamBytes;
  const high = layout.ramBytes - low;
  return [{ base: 0, length: low }, ...(high > 0 ? [{ base: HIGH_RAM_BASE, length: high }] : [])];
}

/** The memory map's RAM as `etc/e820` holds it: base, length (64 bits each) and type 1. */
function e820(layout: MachineLayout): Uint8Array {
  const ranges = ramRanges(layout);
  const out = new Uint8Array(ranges.length * 20);
  const view = new DataView(out.buffer);
  ranges.forEach(({ base, length }, n) => {
    view.setBigUint64(n * 20, BigInt(base), true);
    view.setBigUint64(n * 20 + 8, BigInt(length), true);
    view.setUint32(n * 20 + 16, 1, true);
  });
  return out;
}

const TABLES_FILE = 'etc/acpi/tables';

const uuidBytes = (text: string): Uint8Array =>
  Uint8Array.from(text.replaceAll('-', '').match(/../g)?.slice(0, 16) ?? [], (pair) => Number.parseInt(pair, 16));

/** Adds the items that every machine has, and the files that a firmware reads. `ecam` says where the configuration window is now. */
export function fillFwCfg(
  fwCfg: FwCfg,
  config: MachineConfig,
  layout: MachineLayout,
  ecam: () => { readonly base: number } | undefined,
): void {
  const uuid = uuidBytes(config.uuid);
  fwCfg.addItem(FwCfgKey.UUID, uuid.length === 16 ? uuid : new Uint8Array(16));
  fwCfg.addNumber(FwCfgKey.RAM_SIZE, layout.lowRamBytes, 8);
  fwCfg.addNumber(FwCfgKey.NO_GRAPHICS, config.display.adapter === 'none' ? 1 : 0, 2);
  fwCfg.addNumber(FwCfgKey.CPUS, layout.cpus, 2);
  fwCfg.addNumber(FwCfgKey.MAX_CPUS, layout.cpus, 2);
  fwCfg.addNumber(FwCfgKey.IRQ0_OVERRIDE, 1, 4);
  fwCfg.addFile('etc/e820', e820(layout));
  if (config.boot.kind !== 'firmware') return;
  fwCfg.addNumber(FwCfgKey.BOOT_MENU, config.boot.menu === true ? 1 : 0, 2);
  for (const { name, data } of acpiTables(config, layout).files) {
    fwCfg.addFile(name, data);
    if (name !== TABLES_FILE || !isQ35(config)) continue;
    // The firmware has chosen the place of the window by the time that it reads the tables.
    fwCfg.refreshFile(name, () => {
      const base = ecam()?.base;
      if (base === undefined || base % ECAM_BYTES !== 0 || base >= 0xfec00000 - ECAM_BYTES) return;
      const made = acpiTables(config, layout, base).files.find((file) => file.name === name)?.data;
      if (made?.length === data.length) data.set(made);
    });
  }
  const smbios = buildSmbios({
    cpus: layout.cpus,
    ramBytes: layout.ramBytes,
    ramRanges: ramRanges(layout),
    uuid: uuid.length === 16 ? uuid : undefined,
  });
  fwCfg.addFile('etc/smbios/smbios-tables', smbios.tables);
  fwCfg.addFile('etc/smbios/smbios-anchor', smbios.anchor21(0));
}

/**
 * `bootorder`: Open Firmware paths of what is started from, one a line. Drives that have a place (`bootIndex`) by that;
 * else, for firmware that does not read the CMOS, as `boot.order` says. `drives` are in the machine's order.
 */
export function addBootOrder(
  fwCfg: FwCfg,
  config: MachineConfig,
  drives: readonly { readonly config: DriveConfig; readonly path: string }[],
): void {
  const { boot } = config;
  if (boot.kind !== 'firmware') return;
  let listed = drives
    .filter(({ config: { bootIndex } }) => bootIndex !== undefined)
    .sort((a, b) => (a.config.bootIndex ?? 0) - (b.config.bootIndex ?? 0));
  if (listed.length === 0 && boot.order !== undefined && boot.once === undefined) {
    const media: Readonly<Record<string, DriveConfig['media']>> = { a: 'floppy', c: 'disk', d: 'cdrom' };
    listed = [...boot.order].flatMap((letter) => drives.filter((drive) => drive.config.media === media[letter]));
  }
  if (listed.length > 0) fwCfg.addFile('bootorder', `${listed.map(({ path }) => path).join('\n')}\0`);
}

/** What the CMOS says of `-boot order=`: 1 floppy, 2 disk, 3 CD, 4 network. `first`: the machine was just made. */
export function bootOrder(config: MachineConfig, first: boolean): number[] {
  const { boot } = config;
  if (boot.kind !== 'firmware') return [2];
  const order = (first ? boot.once : undefined) ?? boot.order ?? 'cad';
  const codes: Readonly<Record<string, number>> = { a: 1, c: 2, d: 3, n: 4 };
  return [...order].flatMap((letter) => codes[letter] ?? []).slice(0, 3);
}
