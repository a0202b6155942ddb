/**
 * Everything a window or a command can ask of the services, and everything they tell: one typed map, with a schema for
 * the arguments of each request. Both shells serve this map; arguments are checked on the side of the services, and can
 * be checked by whoever asks with the same schemas.
 *
 * On the wire a request is `{id, request, args}`, its answer `{id, result}` or `{id, error: ErrorEnvelope}`, an event
 * `{event, payload}`.
 */
import { z } from 'zod';
import { vmChangesSchema, vmIdSchema, vmNameSchema } from './definition.ts';
import type { ErrorEnvelope } from './errors.ts';
import { type Settings, settingsChangesSchema } from './settings.ts';
import {
  diskSizeSchema,
  type ImportPreview,
  type Pool,
  type SnapshotTree,
  snapshotNameSchema,
  type Volume,
  volumeFormatSchema,
  volumeNameSchema,
} from './storage.ts';
import type {
  AppInfo,
  BrokenVm,
  Detection,
  DirectoryListing,
  FieldError,
  HostCapabilities,
  InstallSource,
  Notification,
  OsEntry,
  Recommendation,
  SampleGuest,
  StatsHistory,
  StatsPoint,
  Task,
  UndoToken,
  VmDetails,
  VmSummary,
} from './types.ts';
import { planDraftSchema, planSchema } from './wizard.ts';

interface Request<S extends z.ZodType, R> {
  readonly args: S;
  /** Only a type: what the request resolves to. */
  readonly result?: R;
}

const request =
  <R>() =>
  <S extends z.ZodType>(args: S): Request<S, R> => ({ args });

const none = z.strictObject({});
const vm = z.strictObject({ id: vmIdSchema });
const path = z.string().min(1).max(4096);

export const requests = {
  'app.info': request<AppInfo>()(none),
  'host.capabilities': request<HostCapabilities>()(none),
  /** Lists a folder of the host (the home folder unless given); `extensions` such as `iso` keep only such files and folders. */
  'host.browse': request<DirectoryListing>()(
    z.strictObject({
      path: path.optional(),
      extensions: z.array(z.string().max(16)).max(16).optional(),
      hidden: z.boolean().optional(),
    }),
  ),
  /** A native dialog; null when it was dismissed. Error `unsupported` where there are none. */
  'host.pickFile': request<string | null>()(
    z.strictObject({
      title: z.string().max(200),
      extensions: z.array(z.string().max(16)).max(16).optional(),
      folder: z.boolean().optional(),
    }),
  ),

  'vm.list': request<{ vms: VmSummary[]; broken: BrokenVm[] }>()(none),
  'vm.get': request<VmDetails>()(vm),
  'vm.update': request<VmDetails>()(z.strictObject({ id: vmIdSchema, changes: vmChangesSchema })),
  'vm.rename': request<VmSummary>()(z.strictObject({ id: vmIdSchema, name: vmNameSchema })),
  'vm.clone': request<VmSummary>()(z.strictObject({ id: vmIdSchema, name: vmNameSchema })),
  /** Moves the VM to the trash; it comes back by `undo.apply` until the token expires. The VM must be off. */
  'vm.delete': request<UndoToken>()(vm),
  /** Resolves when the guest runs; errors `no-memory`, `file-missing`, `bad-file`, `start-failed` with the `field` to blame. */
  'vm.start': request<VmSummary>()(z.strictObject({ id: vmIdSchema, paused: z.boolean().optional() })),
  'vm.pause': request<VmSummary>()(vm),
  'vm.resume': request<VmSummary>()(vm),
  'vm.reset': request<VmSummary>()(vm),
  /** Presses the ACPI power button; resolves when it is pressed, the guest takes its time. */
  'vm.powerButton': request<VmSummary>()(vm),
  'vm.forceOff': request<VmSummary>()(vm),
  /** Presses keys together, by QKeyCode name: `['ctrl', 'alt', 'delete']`. */
  'vm.sendKeys': request<null>()(z.strictObject({ id: vmIdSchema, keys: z.array(z.string().max(40)).min(1).max(16) })),
  /** The screen now, as a PNG in a data URL. */
  'vm.screenshot': request<string>()(vm),
  /** The last picture of the VM as a PNG in a data URL; null: there is none. */
  'vm.thumbnail': request<string | null>()(vm),
  /** The last `lines` lines of the VM's log, 200 unless given. */
  'vm.log': request<string[]>()(z.strictObject({ id: vmIdSchema, lines: z.int().min(1).max(5000).optional() })),
  /** Points from `from` (default: an hour ago) to `to` (default: now), at most `points` (default 600) of them. */
  'vm.history': request<StatsHistory>()(
    z.strictObject({
      id: vmIdSchema,
      from: z.number().optional(),
      to: z.number().optional(),
      points: z.int().min(2).max(5000).optional(),
    }),
  ),
  /** A line of the human monitor, such as `info registers`; its output. */
  'vm.monitor': request<string>()(
    z.strictObject({ id: vmIdSchema, line: z.string().max(1000), cpu: z.int().min(0).max(63).optional() }),
  ),
  /** Saves the running machine and ends it; its next start goes on from there. As a task. */
  'vm.save': request<Task>()(vm),
  /** Forgets what was saved: the next start is a cold one. */
  'vm.discardSaved': request<VmSummary>()(vm),
  /** Puts a file into a CD or floppy drive, or (null) takes out what is there; a running VM's drive at once. */
  'vm.changeMedium': request<VmDetails>()(
    z.strictObject({ id: vmIdSchema, drive: z.string().max(40), file: path.nullable(), force: z.boolean().optional() }),
  ),
  /**
   * Adds a drive: a new disk image of `size` in the VM's folder, or the image `file` that is there. A VM that runs gets it
   * at once, on virtio, NVMe or an adapter for SCSI that it has.
   */
  'vm.addDisk': request<VmDetails>()(
    z.strictObject({
      id: vmIdSchema,
      size: diskSizeSchema.optional(),
      file: path.optional(),
      format: volumeFormatSchema,
      bus: z.enum(['virtio', 'ide', 'sata', 'scsi', 'nvme']),
    }),
  ),
  /** Takes a disk from a VM; one that runs is asked to let it go first. Its image stays. */
  'vm.removeDisk': request<VmDetails>()(z.strictObject({ id: vmIdSchema, drive: z.string().max(40) })),

  'snapshot.tree': request<SnapshotTree>()(vm),
  /** With the machine's state where it runs. */
  'snapshot.create': request<Task>()(
    z.strictObject({ id: vmIdSchema, name: snapshotNameSchema, description: z.string().max(1000).optional() }),
  ),
  /** Goes back to a snapshot: what was not kept in another one is lost. Starts the VM where the snapshot has its state. */
  'snapshot.revert': request<Task>()(z.strictObject({ id: vmIdSchema, name: snapshotNameSchema })),
  /** Snapshots made after it stay: each is whole by itself. */
  'snapshot.delete': request<Task>()(z.strictObject({ id: vmIdSchema, name: snapshotNameSchema })),

  'storage.pools': request<Pool[]>()(none),
  'storage.addPool': request<Pool>()(z.strictObject({ path })),
  /** Takes a pool off the list; its files stay. */
  'storage.removePool': request<null>()(z.strictObject({ id: z.string().max(40) })),
  'storage.volumes': request<Volume[]>()(z.strictObject({ pool: z.string().max(40) })),
  'storage.inspect': request<Volume>()(z.strictObject({ path })),
  'storage.create': request<Volume>()(
    z.strictObject({ pool: z.string().max(40), name: volumeNameSchema, format: volumeFormatSchema, size: diskSizeSchema }),
  ),
  'storage.grow': request<Volume>()(z.strictObject({ path, size: diskSizeSchema })),
  /** Gives back what the guest has freed, as a task. */
  'storage.compact': request<Task>()(z.strictObject({ path })),
  'storage.clone': request<Task>()(z.strictObject({ path, name: volumeNameSchema })),
  /** For good. Refused where another volume needs it or a VM runs with it; `force`: although VMs that are off have it. */
  'storage.delete': request<null>()(z.strictObject({ path, force: z.boolean().optional() })),

  'import.preview': request<ImportPreview>()(z.strictObject({ path })),
  /** Makes a VM of an OVA or OVF package, or of a disk of another manager, as a task. */
  'import.run': request<Task>()(
    z.strictObject({
      path,
      name: vmNameSchema,
      memoryMiB: z
        .int()
        .min(4)
        .max(1 << 20),
      cpus: z.int().min(1).max(64),
    }),
  ),

  /** Which VMs the asking window shows: only they get thumbnails. */
  'vm.watch': request<null>()(z.strictObject({ ids: z.array(vmIdSchema).max(1000) })),
  /** Has it sampled, for five seconds, where the time of the vCPUs goes: see `TranslatorPoint`. */
  'vm.profile': request<null>()(z.strictObject({ id: vmIdSchema })),
  /** Forgets a definition that was set aside, leaving the file where it is. */
  'vm.dismissBroken': request<null>()(z.strictObject({ file: path })),

  'undo.list': request<UndoToken[]>()(none),
  'undo.apply': request<VmSummary>()(z.strictObject({ token: z.string().max(100) })),
  /** Deletes for good now what the token would bring back. */
  'undo.purge': request<null>()(z.strictObject({ token: z.string().max(100) })),

  'wizard.sources': request<InstallSource[]>()(none),
  'catalogue.list': request<OsEntry[]>()(none),
  /** Looks at a file of the host, for 5 s at most. */
  'catalogue.detect': request<Detection>()(z.strictObject({ path })),
  'catalogue.recommend': request<Recommendation>()(z.strictObject({ os: z.string().max(64).nullable() })),
  /** A name that is free, made from the OS or the source. */
  'wizard.suggestName': request<string>()(
    z.strictObject({ os: z.string().max(64).nullable(), hint: z.string().max(80).optional() }),
  ),
  /** All that is wrong with what was filled in so far; members still missing are no error. */
  'wizard.check': request<FieldError[]>()(planDraftSchema),
  /** Makes the VM and, when asked, starts it; a creation that fails leaves nothing behind. */
  'wizard.create': request<VmSummary>()(z.strictObject({ plan: planSchema, start: z.boolean() })),

  'guests.sample': request<SampleGuest>()(none),
  /** Fetches and builds the sample guest as a task. */
  'guests.fetchSample': request<Task>()(none),

  'settings.get': request<Settings>()(none),
  'settings.set': request<Settings>()(settingsChangesSchema),

  'tasks.list': request<Task[]>()(none),
  'tasks.cancel': request<null>()(z.strictObject({ id: z.string().max(100) })),
  /** Forgets a task that has ended. */
  'tasks.dismiss': request<null>()(z.strictObject({ id: z.string().max(100) })),

  'notifications.list': request<Notification[]>()(none),
  'notifications.dismiss': request<null>()(z.strictObject({ id: z.string().max(100) })),

  /** Opens a window on a VM (Electron); error `unsupported` where pages open their own. */
  'window.open': request<null>()(
    z.strictObject({
      id: vmIdSchema,
      view: z.enum(['console', 'details', 'serial', 'graphs', 'translator', 'snapshots']).optional(),
    }),
  ),
  'window.setFullScreen': request<null>()(z.strictObject({ on: z.boolean() })),
} as const;

export type RequestName = keyof typeof requests;
export type RequestArgs<N extends RequestName> = z.input<(typeof requests)[N]['args']>;
/** Arguments after they were checked. */
export type CheckedArgs<N extends RequestName> = z.output<(typeof requests)[N]['args']>;
export type RequestResult<N extends RequestName> = NonNullable<
  (typeof requests)[N] extends Request<z.ZodType, infer R> ? { value: R } : never
>['value'];

export interface Events {
  /** A VM is new, or anything in its summary changed. */
  'vm.changed': VmSummary;
  'vm.removed': { readonly id: string };
  /** One sample a second of every VM that runs. */
  'vm.stats': { readonly id: string; readonly point: StatsPoint };
  /** A new picture; a PNG in a data URL. */
  'vm.thumbnail': { readonly id: string; readonly version: number; readonly url: string };
  'vm.broken': BrokenVm[];
  /** Pools, volumes or who uses them changed: ask anew. */
  'storage.changed': Record<never, never>;
  /** A VM's snapshots changed. */
  'snapshot.changed': { readonly id: string };
  'task.changed': Task;
  'task.removed': { readonly id: string };
  'notification.added': Notification;
  'notification.removed': { readonly id: string };
  'undo.changed': UndoToken[];
  'settings.changed': Settings;
  /** A file was opened with the app (`.iso`, `.qcow2`): start the wizard with it. */
  'app.openFile': { readonly path: string };
  /** A menu item that the page carries out: `new-vm`, `preferences`, `palette`, `about` ... */
  'app.command': { readonly command: string };
  /** In development: the engine's sources changed; VMs that were running restart. */
  'app.engineChanged': { readonly files: readonly string[] };
}

export type EventName = keyof Events;

export interface RequestMessage {
  readonly id: number;
  readonly request: string;
  readonly args: unknown;
}

export type AnswerMessage =
  | { readonly id: number; readonly result: unknown }
  | { readonly id: number; readonly error: ErrorEnvelope };

export interface EventMessage<N extends EventName = EventName> {
  readonly event: N;
  readonly payload: Events[N];
}
