/**
 * What this version offers: machine types, CPU models and features, devices with their properties, log items.
 * The command line accepts what stands here and says of everything else that it is not there.
 */

export const machineTypes = [{ name: 'pc', description: 'Standard PC (i440FX + PIIX)', default: true }] as const;

/** Names of QEMU that mean a type of ours, and types that it has and this version has not. */
export function findMachineType(name: string): 'pc' | 'unavailable' | undefined {
  if (name === 'pc' || /^pc-i440fx-\d+\.\d+$/.test(name)) return 'pc';
  if (/^(q35|pc-q35-\d+\.\d+(\.\d+)?|microvm|isapc|none|xenfv.*|xenpv|x-remote)$/.test(name)) return 'unavailable';
  return undefined;
}

/**
 * Machine properties and the values that this machine can have; the first is what it has unless told otherwise.
 * `accel` is handled with the option of that name.
 */
export const machineProperties: Readonly<Record<string, readonly string[]>> = {
  acpi: ['on'],
  graphics: ['on', 'off'],
  hpet: ['off'],
  i8042: ['on'],
  'kernel-irqchip': ['off'],
  kernel_irqchip: ['off'],
  'mem-merge': ['off', 'on'],
  'dump-guest-core': ['on', 'off'],
  pic: ['on'],
  pit: ['on'],
  smm: ['off'],
  smbus: ['off'],
  sata: ['off'],
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
  { name: 'x86-64-v2', description: 'the second level of the x86-64 ABI (the default)', long: true },
  { name: 'max', description: 'all that this version has', long: true },
  { name: 'qemu64', description: 'a 64-bit CPU with SSE3 and CX16, as QEMU names it', long: true },
  { name: 'qemu32', description: 'a 32-bit CPU with SSE3, as QEMU names it', long: false },
  { name: 'host', description: "the host's CPU (with KVM only)", accelerator: 'kvm', long: true },
];

/** CPUID features that the emulated CPU has and that `-cpu MODEL,+f,-f` can switch. */
export const cpuFeatures: readonly string[] = (
  'fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ' +
  'pni ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline hypervisor fsgsbase smep smap ' +
  'syscall nx pdpe1gb rdtscp lm lahf_lm kvm kvmclock invtsc'
).split(' ');

/** Other spellings of features. */
export const featureAliases: Readonly<Record<string, string>> = {
  sse3: 'pni',
  'sse4-1': 'sse4.1',
  sse4_1: 'sse4.1',
  'sse4-2': 'sse4.2',
  sse4_2: 'sse4.2',
  tsc_deadline: 'tsc-deadline',
  i64: 'lm',
  xd: 'nx',
  'lahf-lm': 'lahf_lm',
  'kvm-clock': 'kvmclock',
};

export type PropertyType = 'text' | 'chardev' | 'bool' | 'uint8' | 'uint16' | 'uint32' | 'object';

export interface DeviceModel {
  readonly name: string;
  readonly aliases?: readonly string[];
  readonly bus: 'ISA' | 'PCI' | 'virtio-serial-bus';
  readonly category: 'Input devices' | 'Misc devices' | 'Display devices' | 'Serial devices';
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

export const deviceModels: readonly DeviceModel[] = [
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
      'max-bytes': { type: 'uint32', help: 'at most so many bytes a period' },
      period: { type: 'uint32', help: 'the period in milliseconds' },
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
};

/** Names of devices that QEMU users know, by kind, for a message that says what is missing. */
export function unavailableKind(name: string): string | undefined {
  const kinds: readonly (readonly [RegExp, string])[] = [
    [/^(virtio-blk|virtio-scsi|ide-|scsi-|nvme|usb-storage|ahci|lsi|megasas|floppy|isa-fdc|sd-card|vhost-user-blk)/, 'disks'],
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
  in_asm: 'guest instructions as they are first decoded',
  int: 'interrupts and exceptions in short form',
  cpu_reset: 'resets of a CPU by INIT',
};
