/** Pools, volumes, snapshots and imports: what pages see of them, and the arguments of their requests. Sizes in bytes. */
import { z } from 'zod';

/** A folder that holds disk images and media. */
export interface Pool {
  readonly id: string;
  readonly name: string;
  readonly path: string;
  /** The library's own, which cannot be taken off the list. */
  readonly fixed: boolean;
  /** Volumes can be made in it; not among the disks that VMs have in their own folders. */
  readonly creatable: boolean;
  readonly freeBytes: number | null;
  readonly totalBytes: number | null;
  /** Why the folder cannot be read, in words. */
  readonly problem: string | null;
}

export interface VolumeUser {
  readonly vm: string;
  readonly name: string;
  readonly running: boolean;
  readonly saved: boolean;
}

export interface Volume {
  readonly path: string;
  readonly name: string;
  /** `iso` for media; otherwise as QEMU names formats. */
  readonly format: string;
  readonly virtualSize: number;
  readonly actualSize: number;
  readonly modified: number;
  /** Where the backing file is, or null. */
  readonly backing: string | null;
  readonly snapshots: number;
  /** VMs that have it, by itself or below another image. */
  readonly usedBy: readonly VolumeUser[];
  /** Other volumes that have it as their backing file: without it they are lost. */
  readonly dependents: readonly string[];
  /** Why it cannot be read, in words. */
  readonly problem: string | null;
}

export interface SnapshotNode {
  readonly name: string;
  readonly parent: string | null;
  readonly description: string;
  /** When it was made. */
  readonly created: number;
  /** The machine's memory and devices are in it: it goes on where it was. */
  readonly withState: boolean;
  readonly stateBytes: number;
  /** What nothing but this snapshot uses: a deletion gives it back. Null while the VM runs. */
  readonly exclusiveBytes: number | null;
  /** Seconds that the guest had run. */
  readonly guestSeconds: number;
  /** A picture of the screen then, as a PNG in a data URL. */
  readonly picture: string | null;
  /** Images that have it; it cannot be gone back to where one of the VM's has it not. */
  readonly images: readonly string[];
  readonly complete: boolean;
}

export interface SnapshotTree {
  readonly snapshots: readonly SnapshotNode[];
  /** The snapshot that the VM goes on from: the parent of the next one. */
  readonly current: string | null;
  /** Why there can be none, in words. */
  readonly problem: string | null;
  /** The chain of images that the VM writes to, by drive: topmost first. */
  readonly chains: readonly { readonly drive: string; readonly files: readonly string[]; readonly actualSize: number }[];
}

/** What an OVF package, or a disk of another manager, would become. */
export interface ImportPreview {
  readonly path: string;
  readonly kind: 'ova' | 'ovf' | 'disk';
  readonly name: string;
  readonly description: string;
  readonly os: string | null;
  readonly osText: string;
  readonly memoryMiB: number | null;
  readonly cpus: number | null;
  readonly firmware: 'bios' | 'uefi';
  readonly disks: readonly {
    readonly file: string;
    readonly format: string;
    readonly virtualSize: number;
    readonly fileSize: number;
    readonly bus: string;
  }[];
  readonly nics: number;
  /** What will be different, in words. */
  readonly notes: readonly string[];
}

const name = z
  .string()
  .trim()
  .min(1, 'Give it a name')
  .max(120, 'A name has at most 120 characters')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  .regex(/^[^\u0000-\u001f\u007f/\\]*$/, 'A name has no slash and no control characters')
  .refine((text) => !text.startsWith('.') && !text.startsWith('-'), 'A name does not begin with a dot or a hyphen');

export const volumeNameSchema = name;
export const volumeFormatSchema = z.enum(['qcow2', 'raw']);
export const diskSizeSchema = z
  .int('The size is a whole number of bytes')
  .min(1 << 20, 'At least 1 MiB')
  .max(2 ** 46, 'At most 64 TiB');

/** Snapshot names go to the monitor as they are. */
export const snapshotNameSchema = z
  .string()
  .trim()
  .min(1, 'Give the snapshot a name')
  .max(100, 'A name has at most 100 characters')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  .regex(/^[^\u0000-\u001f\u007f"\\]*$/, 'A name has no quotes, backslashes or control characters')
  .refine((text) => !/^\d+$/.test(text), 'A name is more than a number');
