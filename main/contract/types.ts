/** What the services tell: plain JSON values. Times are milliseconds since the Unix epoch, sizes bytes unless named otherwise. */
import type { ExitCause, TranslatorStats } from '../../engine/contract/index.ts';
import type { VmDefinition } from './definition.ts';
import type { ErrorEnvelope } from './errors.ts';

export type { ExitCause } from '../../engine/contract/index.ts';

/** `crashed`: its process ended without the machine having been shut down. */
export type VmState = 'shutoff' | 'starting' | 'running' | 'paused' | 'shutdown-in-progress' | 'crashed';

export interface VmSummary {
  readonly id: string;
  readonly name: string;
  readonly state: VmState;
  readonly os: string | null;
  readonly tags: readonly string[];
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly serialPorts: number;
  readonly hasDisplay: boolean;
  /** When the present run began; null while it is off. */
  readonly startedAt: number | null;
  readonly pid: number | null;
  readonly accelerator: 'jit' | 'kvm' | null;
  /** Why it is `crashed`, or why the last start failed; with the end of its log. */
  readonly problem: VmProblem | null;
  /** Its machine was saved: the next start goes on from there. */
  readonly saved: boolean;
  /** Why the machine stopped by itself (its disk is full ...), in words; null where it did not. */
  readonly stopReason: string | null;
  /** Changes with the picture: fetch it by `vm.thumbnail`. Null: there is none. */
  readonly thumbnailVersion: number | null;
  /** Host CPU use of the last 40 samples, 0 to 100 (of all its vCPUs). */
  readonly sparkline: readonly number[];
}

export interface VmProblem {
  readonly at: number;
  readonly error: ErrorEnvelope;
  /** The last lines of the VM's log. */
  readonly logTail: readonly string[];
}

/** A VM with all that its details pages show. */
export interface VmDetails {
  readonly summary: VmSummary;
  readonly definition: VmDefinition;
  /** The VM's folder. */
  readonly folder: string;
  /** True where the definition was changed since the VM started: what shows is what the next start takes. */
  readonly changedSinceStart: boolean;
}

/** A definition that could not be read; it was set aside, not deleted. */
export interface BrokenVm {
  /** The folder in the library. */
  readonly folder: string;
  /** The file that was set aside. */
  readonly file: string;
  readonly reason: string;
  readonly at: number;
}

/** One sample of a VM as graphs want it: rates, not counters. */
export interface StatsPoint {
  readonly time: number;
  /** Per vCPU: host CPU use in percent of one host CPU. */
  readonly cpu: readonly number[];
  readonly memoryTotal: number;
  readonly memoryUsed: number | null;
  readonly memoryResident: number;
  readonly mips: number;
  /** Exits a second, by cause. */
  readonly exits: Readonly<Partial<Record<ExitCause, number>>>;
  /** Of samples as they come, not of those in the history; missing where nothing is translated. */
  readonly translator?: TranslatorPoint;
}

/** Where the time of the vCPUs goes, in the order it is shown. */
export const timeShares = ['regions', 'baseline', 'making', 'helpers', 'idle'] as const;
export type TimeShare = (typeof timeShares)[number];

export interface TranslatorPoint {
  /** Parts of the vCPUs' time, 1 in sum; null where nobody has asked for them (`vm.profile`), and in the first seconds. */
  readonly shares: Readonly<Record<TimeShare, number>> | null;
  /** Milliseconds a second that making regions takes, and decoding. */
  readonly compile: number;
  readonly decode: number;
  /** Since the start: regions made, far ones of them, runs declined, times that a vCPU dropped its code. */
  readonly regions: number;
  readonly farRegions: number;
  readonly declined: number;
  readonly drops: number;
  readonly code: TranslatorStats['code'];
}

export interface StatsHistory {
  readonly id: string;
  /** Milliseconds between two points; coarser further back. */
  readonly step: number;
  /** In order of time. Where the VM did not run there are no points. */
  readonly points: readonly StatsPoint[];
}

/** A place to install from, or to start from. */
export type InstallSourceKind = 'kernel' | 'iso' | 'import' | 'network' | 'manual';

export interface InstallSource {
  readonly kind: InstallSourceKind;
  readonly title: string;
  readonly description: string;
  readonly available: boolean;
  /** Why it is not available: which devices are missing. */
  readonly reason?: string;
}

export interface Resources {
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly diskGiB: number;
}

/** An operating system of the catalogue. */
export interface OsEntry {
  readonly id: string;
  readonly name: string;
  readonly family: 'linux' | 'windows' | 'bsd' | 'other';
  /** ISO date after which it has no support; hidden behind a box when past. */
  readonly endOfLife?: string;
  readonly firmware: 'bios' | 'uefi' | 'either';
  readonly tpm: boolean;
  readonly minimum: Resources;
  readonly recommended: Resources;
}

export interface Detection {
  /** The entry found, or null. */
  readonly os: string | null;
  /** Other entries with the same medium, newest first: a volume id cannot always tell them apart. */
  readonly alternatives: readonly string[];
  /** What the medium says of itself; empty strings where it is no ISO 9660 image. */
  readonly volumeId: string;
  readonly publisher: string;
  readonly kind: 'iso9660' | 'qcow2' | 'vmdk' | 'vdi' | 'vhdx' | 'vhd' | 'ova' | 'ovf' | 'linux-kernel' | 'elf' | 'unknown';
  readonly sizeBytes: number;
  /** In words, where nothing was found. */
  readonly note?: string;
}

export interface Recommendation {
  readonly os: string | null;
  readonly name: string;
  readonly minimum: Resources;
  readonly recommended: Resources;
  /** What the host has left, to show beside the fields. */
  readonly hostFreeMiB: number;
  readonly hostCpus: number;
  readonly warnings: readonly string[];
}

export interface HostCapabilities {
  readonly hostname: string;
  readonly platform: string;
  readonly cpuModel: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  /** What can be given to a VM now. */
  readonly freeMiB: number;
  readonly kvm: { readonly available: boolean; readonly reason?: string };
  readonly shell: 'electron' | 'serve';
  readonly electronVersion: string | null;
  readonly nodeVersion: string;
}

export interface AppInfo {
  readonly name: string;
  readonly version: string;
  readonly shell: 'electron' | 'serve';
  readonly libraryPath: string;
  /** Native file dialogs (`host.pickFile`); where false, `host.browse` lists folders. */
  readonly nativeDialogs: boolean;
  /** `window.open` makes a window of its own; where false, the page navigates. */
  readonly nativeWindows: boolean;
}

export interface DirectoryListing {
  readonly path: string;
  /** Null at the root. */
  readonly parent: string | null;
  readonly entries: readonly {
    readonly name: string;
    readonly path: string;
    readonly directory: boolean;
    readonly size: number;
  }[];
  /** True where there were more entries than are listed. */
  readonly truncated: boolean;
  /** Places to begin at. */
  readonly places: readonly { readonly name: string; readonly path: string }[];
}

export interface Task {
  readonly id: string;
  readonly title: string;
  readonly state: 'running' | 'done' | 'failed' | 'cancelled';
  /** 0 to 1, or null where there is no telling. */
  readonly progress: number | null;
  /** What it does just now. */
  readonly detail: string;
  readonly cancellable: boolean;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly error: ErrorEnvelope | null;
  /** The VM it is about. */
  readonly vm: string | null;
}

export interface Notification {
  readonly id: string;
  readonly time: number;
  readonly level: 'info' | 'success' | 'warning' | 'error';
  readonly title: string;
  readonly detail: string;
  readonly vm: string | null;
}

/** Something that can be taken back until `expires`. */
export interface UndoToken {
  readonly token: string;
  /** What would be undone: `Delete "Debian"`. */
  readonly title: string;
  readonly vm: string;
  readonly createdAt: number;
  readonly expires: number;
}

/** The guest that comes with the project: Debian's kernel and a BusyBox initramfs. */
export interface SampleGuest {
  readonly state: 'ready' | 'absent' | 'unavailable';
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** `6.1.0-56-amd64`. */
  readonly version: string | null;
  /** Where it is not ready: what to do. */
  readonly hint: string | null;
}

export interface FieldError {
  /** Path in the plan: `name`, `memoryMiB`, `source.kernel`. */
  readonly field: string;
  readonly message: string;
  /** A warning does not keep the VM from being made. */
  readonly severity: 'error' | 'warning';
}
