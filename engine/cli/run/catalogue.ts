/**
 * What this version offers: machine types, CPU models and features, devices with their properties, log items.
 * The command line accepts what stands here and says of everything else that it is not there.
 */

import { featureName, IMPLEMENTED, MODELS } from '../../x86/system/cpu-models.ts';

export const machineTypes = [
  { name: 'pc', description: 'Standard PC (i440FX + PIIX)', default: true },
  { name: 'q35', description: 'Standard PC (Q35 + ICH9)', default: false },
] as const;

/** Names of QEMU that mean a type of ours, and types that it has and this version has not. */
export function findMachineType(name: string): 'pc' | 'q35' | 'unavailable' | undefined {
  if (name === 'pc' || /^pc-i440fx-\d+\.\d+$/.test(name)) return 'pc';
  if (name === 'q35' || /^pc-q35-\d+\.\d+(\.\d+)?$/.test(name)) return 'q35';
  if (/^(microvm|isapc|none|xenfv.*|xenpv|x-remote)$/.test(name)) return 'unavailable';
  return undefined;
}

/**
 * Machine properties and the values that this machine can have; the first is what it has unless told otherwise.
 * `accel` is handled with the option of that name.
 */
export const machineProperties: Readonly<Record<string, readonly string[]>> = {
  acpi: ['on'],
  graphics: ['on', 'off'],
  hpet: ['on', 'off'],
  i8042: ['on'],
  'kernel-irqchip': ['off'],
  kernel_irqchip: ['off'],
  'mem-merge': ['off', 'on'],
  'dump-guest-core': ['on', 'off'],
  pic: ['on'],
  pit: ['on'],
  smm: ['on', 'off'],
  smbus: ['off'],
  sata: ['on', 'off'],
  suppress_vmdesc: ['on', 'off'],
  usb: ['off'],
  vmport: ['off'],
};

export interface CpuModel {
  readonly name: string;
  readonly description: string;
  /** Works with these accelerators only. */
  readonly accelerator?: 'kvm';
  readonly long: boolean;
}

export const cpuModels: readonly CpuModel[] = [
  ...Object.entries(MODELS).map(([name, { description, features }]) => ({ name, description, long: features.includes('lm') })),
  { name: 'host', description: "the host's CPU (with KVM only)", accelerator: 'kvm', long: true },
];

/** CPUID features that the emulated CPU has and that `-cpu MODEL,+f,-f` can switch. */
export const cpuFeatures: readonly string[] = IMPLEMENTED;

/** A feature's own name, whatever spelling it is given in. */
export const cpuFeatureName: (given: string) => string = featureName;

export type PropertyType = 'text' | 'drive' | 'chardev' | 'bool' | 'uint8' | 'uint16' | 'uint32' | 'object';

export interface DeviceModel {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly bus: 'ISA' | 'PCI' | 'virtio-serial-bus' | 'SCSI' | 'IDE';
  readonly category:
    | 'Controller/Bridge devices'
    | 'Storage devices'
    | 'Input devices'
    | 'Misc devices'
    | 'Display devices'
    | 'Serial devices';
  readonly description: string;
  readonly properties: Readonly<
    Record<string, { readonly type: PropertyType; readonly default?: string | number | boolean; readonly help: string }>
  >;
  /** Properties that must be given. */
  readonly required?: readonly string[];
}

const port = {
  chardev: { type: 'chardev', help: 'the character device behind it' },
  name: { type: 'text', help: 'its name in the guest' },
  nr: { type: 'uint32', help: 'its number on the bus' },
} as const;

const storage = {
  drive: { type: 'drive', help: 'the -drive or -blockdev node behind it' },
  bootindex: { type: 'uint32', help: 'its place among what is started from, 0 first' },
  serial: { type: 'text', help: 'its serial number' },
  rerror: { type: 'text', help: 'what becomes of failed reads: report, ignore or stop' },
  werror: { type: 'text', help: 'what becomes of failed writes: report, ignore, enospc or stop' },
  'share-rw': { type: 'bool', help: 'accepted' },
} as const;
const blocks = {
  logical_block_size: { type: 'uint32', default: 512, help: 'bytes of a logical block' },
  physical_block_size: { type: 'uint32', default: 512, help: 'bytes of a physical block' },
  min_io_size: { type: 'uint32', default: 0, help: 'the smallest request that is good, in bytes' },
  opt_io_size: { type: 'uint32', default: 0, help: 'the best request, in bytes' },
} as const;
const scsi = {
  ...storage,
  'scsi-id': { type: 'uint32', help: 'its target' },
  lun: { type: 'uint32', help: 'its logical unit' },
  channel: { type: 'uint32', help: 'its channel: 0' },
  vendor: { type: 'text', help: 'its vendor, 8 characters' },
  product: { type: 'text', help: 'its product name, 16 characters' },
  ver: { type: 'text', help: 'its revision, 4 characters' },
  device_id: { type: 'text', help: 'its name in page 0x83' },
  wwn: { type: 'text', help: 'its world wide name' },
} as const;
const ide = {
  ...storage,
  unit: { type: 'uint32', help: 'its place on the bus' },
  model: { type: 'text', help: 'its model, 40 characters' },
  ver: { type: 'text', help: 'its firmware revision, 8 characters' },
  wwn: { type: 'text', help: 'its world wide name' },
} as const;

export const deviceModels: readonly DeviceModel[] = [
  {
    name: 'virtio-blk-pci',
    aliases: ['virtio-blk-pci-non-transitional', 'virtio-blk-pci-transitional', 'virtio-blk'],
    bus: 'PCI',
    category: 'Storage devices',
    description: 'a virtio disk',
    properties: {
      ...storage,
      ...blocks,
      discard: { type: 'bool', default: true, help: 'offers discards' },
      'write-zeroes': { type: 'bool', default: true, help: 'offers writing zeros' },
      'num-queues': { type: 'uint16', default: 1, help: 'request queues' },
      'queue-size': { type: 'uint16', default: 256, help: 'entries of a queue' },
      iothread: { type: 'object', help: 'accepted: every disk has a thread of its own' },
    },
    required: ['drive'],
  },
  {
    name: 'virtio-scsi-pci',
    aliases: ['virtio-scsi-pci-non-transitional', 'virtio-scsi-pci-transitional', 'virtio-scsi'],
    bus: 'PCI',
    category: 'Storage devices',
    description: 'a virtio SCSI adapter',
    properties: {
      num_queues: { type: 'uint32', default: 1, help: 'request queues' },
      virtqueue_size: { type: 'uint32', default: 256, help: 'entries of a queue' },
      max_sectors: { type: 'uint32', default: 0xffff, help: 'blocks of 512 bytes in one command' },
      cmd_per_lun: { type: 'uint32', default: 128, help: 'commands of one unit at once' },
      iothread: { type: 'object', help: 'accepted: every adapter has a thread of its own' },
    },
  },
  {
    name: 'scsi-hd',
    bus: 'SCSI',
    category: 'Storage devices',
    description: 'a SCSI disk',
    properties: {
      ...scsi,
      ...blocks,
      removable: { type: 'bool', default: false, help: 'says that its medium can be taken out' },
      rotation_rate: { type: 'uint16', default: 0, help: 'revolutions a minute; 1: none, solid state' },
    },
    required: ['drive'],
  },
  { name: 'scsi-cd', bus: 'SCSI', category: 'Storage devices', description: 'a SCSI CD drive', properties: scsi },
  {
    name: 'ide-hd',
    bus: 'IDE',
    category: 'Storage devices',
    description: 'an IDE or SATA disk',
    properties: { ...ide, rotation_rate: { type: 'uint16', default: 0, help: 'revolutions a minute; 1: none, solid state' } },
    required: ['drive'],
  },
  { name: 'ide-cd', bus: 'IDE', category: 'Storage devices', description: 'an IDE or SATA CD drive', properties: ide },
  {
    name: 'ich9-ahci',
    aliases: ['ahci'],
    bus: 'PCI',
    category: 'Storage devices',
    description: 'an AHCI controller with six ports',
    properties: {},
  },
  {
    name: 'nvme',
    bus: 'PCI',
    category: 'Storage devices',
    description: 'an NVMe controller with one namespace',
    properties: {
      ...storage,
      logical_block_size: blocks.logical_block_size,
      max_ioqpairs: { type: 'uint32', default: 64, help: 'pairs of I/O queues at most' },
    },
    required: ['drive', 'serial'],
  },
  {
    name: 'isa-serial',
    bus: 'ISA',
    category: 'Serial devices',
    description: '16550A serial port',
    properties: {
      chardev: { type: 'chardev', help: 'the character device behind it' },
      index: { type: 'uint32', help: 'COM port 0 to 3' },
      iobase: { type: 'uint32', help: 'its first port' },
      irq: { type: 'uint32', help: 'its interrupt line' },
    },
    required: ['chardev'],
  },
  {
    name: 'isa-debug-exit',
    bus: 'ISA',
    category: 'Misc devices',
    description: 'ends the machine with the status (value << 1) | 1 when the guest writes to it',
    properties: {
      iobase: { type: 'uint32', default: 0x501, help: 'its first port' },
      iosize: { type: 'uint32', default: 2, help: 'how many ports it has' },
    },
  },
  {
    name: 'pc-testdev',
    bus: 'ISA',
    category: 'Misc devices',
    description: 'interrupt lines, a port and memory for tests of processors',
    properties: {},
  },
  {
    name: 'isa-debugcon',
    bus: 'ISA',
    category: 'Misc devices',
    description: 'a port whose bytes go to a character device',
    properties: {
      chardev: { type: 'chardev', help: 'the character device behind it' },
      iobase: { type: 'uint32', default: 0xe9, help: 'its port' },
      readback: { type: 'uint32', default: 0xe9, help: 'what the port reads as' },
    },
    required: ['chardev'],
  },
  {
    name: 'virtio-rng-pci',
    aliases: ['virtio-rng-pci-non-transitional', 'virtio-rng'],
    bus: 'PCI',
    category: 'Misc devices',
    description: 'entropy from the host',
    properties: {
      rng: { type: 'object', help: 'an -object rng-random or rng-builtin' },
      'max-bytes': { type: 'uint32', help: 'at most so many bytes in a period' },
      period: { type: 'uint32', default: 65536, help: 'the period of max-bytes, in milliseconds' },
    },
  },
  {
    name: 'virtio-serial-pci',
    aliases: ['virtio-serial', 'virtio-serial-pci-non-transitional'],
    bus: 'PCI',
    category: 'Input devices',
    description: 'a bus of virtio ports and consoles',
    properties: { max_ports: { type: 'uint32', default: 31, help: 'ports it can have' } },
  },
  {
    name: 'virtconsole',
    bus: 'virtio-serial-bus',
    category: 'Input devices',
    description: 'a virtio console (hvc0 ...)',
    properties: port,
  },
  {
    name: 'virtserialport',
    bus: 'virtio-serial-bus',
    category: 'Input devices',
    description: 'a virtio serial port',
    properties: port,
  },
  {
    name: 'VGA',
    bus: 'PCI',
    category: 'Display devices',
    description: 'VGA with Bochs VBE (also -vga std)',
    properties: { vgamem_mb: { type: 'uint32', default: 16, help: 'its memory in MiB' } },
  },
];

/** Properties that every device of a bus has. */
export const busProperties: Readonly<Record<DeviceModel['bus'], readonly string[]>> = {
  ISA: ['id', 'bus'],
  PCI: ['id', 'bus', 'addr'],
  'virtio-serial-bus': ['id', 'bus'],
  SCSI: ['id', 'bus'],
  IDE: ['id', 'bus'],
};

/** Names of devices that QEMU users know, by kind, for a message that says what is missing. */
export function unavailableKind(name: string): string | undefined {
  const kinds: readonly (readonly [RegExp, string])[] = [
    [/^(usb-storage|usb-uas|usb-bot|sd-card|sdhci)/, 'USB and SD storage'],
    [
      /^(scsi-|ide-|nvme|floppy|isa-fdc|isa-ide|piix|sysbus-|lsi|megasas|mptsas|pvscsi|am53c974|dc390|vhost-user-|vhost-scsi)/,
      'such disk controllers',
    ],
    [/^(virtio-net|e1000|rtl8139|ne2k|pcnet|vmxnet3|usb-net|i8255|igb|tulip)/, 'network cards'],
    [/^(usb-|qemu-xhci|nec-usb|piix.*-usb|ich9-usb|pci-ohci)/, 'USB'],
    [/^(intel-hda|hda-|AC97|ES1370|sb16|adlib|cs4231a|gus|virtio-sound|ich9-intel-hda)/, 'sound'],
    [/^(virtio-gpu|virtio-vga|qxl|cirrus-vga|vmware-svga|bochs-display|ramfb|secondary-vga|ati-vga)/, 'such displays'],
    [/^(virtio-(balloon|keyboard|mouse|tablet|input|9p|vsock|mem|pmem|iommu|crypto)|vhost-)/, 'this virtio device'],
    [
      /^(vfio|pci-bridge|pcie|ioh3420|i82801b11|pxb|tpm-|ipmi-|edu|pci-testdev|pvpanic|vmgenid|i6300esb|ib700|intel-iommu|ivshmem|hpet|vmcoreinfo)/,
      'it',
    ],
  ];
  return kinds.find(([pattern]) => pattern.test(name))?.[1];
}

/** `-d` items and what they log. */
export const logItems: Readonly<Record<string, string>> = {
  in_asm: 'guest instructions of each run as it is decoded',
  ir: 'the intermediate representation of each instruction as it is decoded',
  op_opt: "the intermediate representation of a region's blocks, after the passes",
  wasm: 'the WebAssembly code of each region',
  int: 'interrupts and exceptions in short form',
  cpu_reset: 'resets of a CPU by INIT',
};
