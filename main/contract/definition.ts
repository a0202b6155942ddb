/**
 * The definition of a VM, the content of its `vm.json`. Format name `vivarium-vm`, version 1; docs/vm-format.md tells it
 * in prose. A version above the one known here is refused, never guessed at; members that are not known are refused too,
 * so that nothing a newer app wrote is lost by an older one that writes the file again.
 *
 * Paths are absolute, or relative to the VM's folder.
 */
import { z } from 'zod';

// The page's content security policy allows no code from strings; zod would try it.
z.config({ jitless: true });

export const definitionFormat = 'vivarium-vm';
export const definitionVersion = 1;

export const vmIdSchema = z.uuid({ message: 'Not the id of a VM' });

/** A VM's name: what a person reads, and what `vivarium start NAME` takes. */
export const vmNameSchema = z
  .string()
  .trim()
  .min(1, 'Give the VM a name')
  .max(80, 'A name has at most 80 characters')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  .regex(/^[^\u0000-\u001f\u007f/]*$/, 'A name has no slash and no control characters')
  .refine((name) => !name.startsWith('-') && !name.startsWith('.'), 'A name does not begin with a hyphen or a dot');

const path = (what: string) => z.string().min(1, `Choose ${what}`).max(4096, 'The path is too long');
const identifier = z.string().regex(/^[a-z][a-z0-9-]{0,31}$/, 'An id is a letter, then letters, digits and hyphens');

export const memorySchema = z
  .int('Memory is a whole number of MiB')
  .min(4, 'At least 4 MiB are needed')
  .max(1 << 20, 'At most 1 TiB can be given');

export const cpusSchema = z
  .strictObject({
    count: z.int('The number of CPUs is whole').min(1, 'At least one CPU is needed').max(64, 'At most 64 CPUs can be given'),
    /** Topology: sockets * cores * threads is `count`; absent: one socket of `count` cores. */
    topology: z.strictObject({ sockets: z.int().min(1), cores: z.int().min(1), threads: z.int().min(1) }).optional(),
    model: z.string().regex(/^[\w.-]{1,40}$/, 'Not the name of a CPU model'),
  })
  .refine(({ count, topology }) => topology === undefined || topology.sockets * topology.cores * topology.threads === count, {
    message: 'Sockets times cores times threads must be the number of CPUs',
    path: ['topology'],
  });

export const bootSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('kernel'),
    kernel: path('a kernel'),
    initrd: z.string().max(4096).optional(),
    append: z.string().max(2047, 'A kernel command line has at most 2047 characters'),
  }),
  z.strictObject({
    kind: z.literal('firmware'),
    firmware: z.enum(['bios', 'uefi']),
    order: z.array(z.enum(['disk', 'cdrom', 'network', 'floppy'])).max(4),
    menu: z.boolean(),
  }),
]);

export const driveSchema = z.strictObject({
  id: identifier,
  media: z.enum(['disk', 'cdrom', 'floppy']),
  /** Empty for a CD or floppy drive without a medium. */
  file: z.string().max(4096),
  format: z.enum(['raw', 'qcow2', 'auto']),
  bus: z.enum(['virtio', 'ide', 'sata', 'scsi', 'nvme', 'floppy']),
  readOnly: z.boolean(),
  cache: z.enum(['writeback', 'writethrough', 'none', 'unsafe']),
  discard: z.enum(['unmap', 'ignore']),
  /** What the guest sees as the disk's serial number. */
  serial: z
    .string()
    .max(20, 'A serial number has at most 20 characters')
    .regex(/^[\x20-\x7e]*$/, 'A serial number has plain letters and digits')
    .optional(),
});

export const nicSchema = z.strictObject({
  id: identifier,
  model: z.enum(['virtio', 'e1000', 'rtl8139']),
  mac: z.string().regex(/^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, 'A MAC address is six pairs of hex digits, the first pair even'),
  network: z.string().min(1).max(64),
  forwards: z.array(
    z.strictObject({
      protocol: z.enum(['tcp', 'udp']),
      hostAddress: z.string().max(64),
      hostPort: z.int().min(1).max(65535),
      guestPort: z.int().min(1).max(65535),
    }),
  ),
});

export const vmDefinitionSchema = z.strictObject({
  format: z.literal(definitionFormat),
  version: z.literal(definitionVersion),
  /** The id of the VM, its folder's name and its UUID in SMBIOS. */
  id: vmIdSchema,
  name: vmNameSchema,
  description: z.string().max(4000, 'A description has at most 4000 characters'),
  tags: z.array(z.string().trim().min(1).max(40)).max(32),
  /** An id of the OS catalogue, or null. */
  os: z.string().max(64).nullable(),
  /** ISO 8601. */
  created: z.iso.datetime(),
  memoryMiB: memorySchema,
  cpus: cpusSchema,
  machine: z.enum(['pc', 'q35', 'microvm']),
  accelerator: z.enum(['auto', 'jit', 'kvm']),
  boot: bootSchema,
  drives: z.array(driveSchema).max(64),
  nics: z.array(nicSchema).max(16),
  display: z.strictObject({
    adapter: z.enum(['std', 'none']),
    memoryMiB: z.union([z.literal(1), z.literal(2), z.literal(4), z.literal(8), z.literal(16), z.literal(32), z.literal(64)]),
  }),
  /** How many serial ports the app connects. */
  serialPorts: z.int().min(0).max(4),
  rng: z.boolean(),
  tablet: z.boolean(),
  balloon: z.boolean(),
  rtc: z.enum(['utc', 'localtime']),
  /** What a guest's reboot does; `destroy` ends the VM, as installers want it. */
  onReboot: z.enum(['restart', 'destroy']),
  /** Start with the app. */
  autostart: z.boolean(),
});

export type VmDefinition = z.output<typeof vmDefinitionSchema>;
export type VmDrive = z.output<typeof driveSchema>;
export type VmNic = z.output<typeof nicSchema>;
export type VmBoot = z.output<typeof bootSchema>;

/** What may be changed of a definition; members that are absent stay. A running VM takes name, description, tags and autostart at once, the rest at its next start. */
export const vmChangesSchema = vmDefinitionSchema.omit({ format: true, version: true, id: true, created: true }).partial();
export type VmChanges = z.output<typeof vmChangesSchema>;
