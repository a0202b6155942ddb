/**
 * What monitors need of a machine's drives, snapshots and saved state; `engine/machine` implements it. A drive is named by
 * its id (`-drive id=`), by the device that the guest sees (`-device id=`) or by the node name of its topmost image. Calls
 * reject with a `MonitorError` that says what cannot be done.
 */

/** An internal snapshot of an image. */
export interface BlockSnapshot {
  readonly id: string;
  readonly name: string;
  /** Bytes of the machine's state that goes with it; 0: none. */
  readonly vmStateSize: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly vmClockNs: number;
  readonly diskSize: number;
}

/** An image of a drive's chain. Sizes in bytes. */
export interface BlockImage {
  readonly nodeName: string;
  readonly file: string;
  readonly format: string;
  readonly virtualSize: number;
  readonly actualSize?: number;
  readonly clusterSize?: number;
  readonly encrypted: boolean;
  readonly readOnly: boolean;
  readonly backingFile?: string;
  readonly backingFormat?: string;
  readonly snapshots: readonly BlockSnapshot[];
}

/** Bytes and operations a second; 0 or absent: no limit. */
export interface BlockLimits {
  readonly bps?: number;
  readonly bpsRead?: number;
  readonly bpsWrite?: number;
  readonly iops?: number;
  readonly iopsRead?: number;
  readonly iopsWrite?: number;
}

export interface BlockStats {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly readOperations: number;
  readonly writeOperations: number;
  readonly flushOperations: number;
  readonly readNs: number;
  readonly writeNs: number;
  readonly flushNs: number;
  readonly failedReads: number;
  readonly failedWrites: number;
}

export interface BlockDrive {
  readonly id: string;
  /** The device that the guest sees. */
  readonly device: string;
  readonly removable: boolean;
  readonly trayOpen: boolean;
  /** The guest prevents that the medium is taken out. */
  readonly locked: boolean;
  readonly readOnly: boolean;
  readonly cache: 'writeback' | 'writethrough' | 'none' | 'unsafe' | 'directsync';
  readonly ioStatus: 'ok' | 'failed' | 'nospace';
  readonly limits: BlockLimits;
  readonly stats: BlockStats;
  /** Topmost first; empty: no medium. */
  readonly chain: readonly BlockImage[];
}

export type JobStatus =
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

export interface BlockJob {
  readonly id: string;
  readonly type: 'stream' | 'commit' | 'mirror' | 'snapshot-save' | 'snapshot-load' | 'snapshot-delete';
  /** The drive, for the three kinds that belong to one. */
  readonly drive: string | undefined;
  readonly status: JobStatus;
  readonly done: number;
  readonly total: number;
  readonly ready: boolean;
  readonly paused: boolean;
  readonly speed: number;
  readonly autoDismiss: boolean;
  readonly error: string | undefined;
}

export type BlockJobRequest = { readonly id: string | undefined; readonly speed: number; readonly autoDismiss: boolean } & (
  | { readonly kind: 'stream'; readonly base?: string; readonly backingFile?: string }
  | { readonly kind: 'commit'; readonly top?: string; readonly base?: string; readonly backingFile?: string }
  | {
      readonly kind: 'mirror';
      readonly target: string;
      readonly format?: string;
      readonly mode: 'absolute-paths' | 'existing';
      readonly sync: 'full' | 'top' | 'none';
      readonly nodeName?: string;
    }
);

export type JobAction =
  | { readonly do: 'dismiss' }
  | { readonly do: 'pause' | 'resume' | 'complete' }
  | { readonly do: 'cancel'; readonly force: boolean }
  | { readonly do: 'speed'; readonly speed: number };

/** An image that was opened by `blockdev-add` and that nothing uses yet. */
export interface AddedNode {
  readonly nodeName: string;
  readonly file: string;
  readonly format: string | undefined;
  readonly readOnly: boolean;
  readonly cache: BlockDrive['cache'];
  readonly unmap: boolean;
  readonly backing?: { readonly file: string; readonly format?: string };
}

export interface BlockExport {
  readonly id: string;
  readonly nodeName: string;
  readonly name: string;
  readonly writable: boolean;
}

export interface MigrationInfo {
  readonly status: 'none' | 'active' | 'completed' | 'failed' | 'cancelled';
  readonly done: number;
  readonly total: number;
  readonly milliseconds: number;
  readonly error?: string;
}

export interface BlockControl {
  /** Plugs a device in: the arguments of `device_add`. */
  addDevice(args: Readonly<Record<string, unknown>>): Promise<void>;
  /** Asks a device to go; the event DEVICE_DELETED says when it is gone. */
  removeDevice(id: string): Promise<void>;
  drives(): Promise<readonly BlockDrive[]>;
  resize(drive: string, size: number): Promise<void>;
  setLimits(drive: string, limits: BlockLimits): Promise<void>;
  /** Puts an overlay on top of the drive's image. */
  overlay(
    drive: string,
    options: {
      readonly file: string;
      readonly format: string;
      readonly mode: 'absolute-paths' | 'existing';
      readonly nodeName?: string;
    },
  ): Promise<void>;

  /** `blockdev-add`, and what becomes of such a node. */
  addNode(node: AddedNode): Promise<void>;
  removeNode(name: string): Promise<void>;
  addedNodes(): Promise<readonly BlockImage[]>;
  /** Takes a node for something that opens it itself; afterwards it is not there any more. */
  takeNode(name: string): AddedNode;

  jobs(): readonly BlockJob[];
  startJob(drive: string, job: BlockJobRequest): Promise<void>;
  jobAction(id: string, action: JobAction): Promise<void>;

  changeMedium(
    drive: string,
    medium: {
      readonly file: string;
      readonly format: string | undefined;
      readonly readOnly: 'retain' | 'read-only' | 'read-write';
      readonly force: boolean;
    },
  ): Promise<void>;
  insertMedium(drive: string, node: string): Promise<void>;
  removeMedium(drive: string): Promise<void>;
  eject(drive: string, force: boolean): Promise<void>;
  openTray(drive: string, force: boolean): Promise<void>;
  closeTray(drive: string): Promise<void>;

  /** A snapshot of the machine: its state in the image of `vmState` (the first that can hold it), all of `drives` with it. */
  saveSnapshot(tag: string, options?: SnapshotOptions): Promise<void>;
  loadSnapshot(tag: string, options?: SnapshotOptions): Promise<void>;
  deleteSnapshot(tag: string, options?: SnapshotOptions): Promise<void>;
  /** The same as jobs; reject only for what is wrong at once. */
  startSnapshotJob(kind: 'save' | 'load' | 'delete', id: string, tag: string, options: SnapshotOptions): Promise<void>;

  /** Saves the machine's state to a file; the machine stands after it. */
  saveState(path: string): Promise<void>;
  cancelSave(): void;
  /** Loads what was saved; the machine must not have run yet. */
  loadState(path: string): Promise<void>;
  migration(): MigrationInfo;

  startNbd(where: { readonly path: string } | { readonly host: string; readonly port: number }): Promise<void>;
  addExport(drive: string, item: { readonly id?: string; readonly name?: string; readonly writable: boolean }): Promise<void>;
  removeExport(id: string): Promise<void>;
  exports(): readonly BlockExport[];
  stopNbd(): Promise<void>;
}

export interface SnapshotOptions {
  /** Replace a snapshot of that name. */
  readonly replace?: boolean;
  /** The drive whose image the machine's state goes into. */
  readonly vmState?: string;
  /** The drives that take part; all that can be written to unless given. */
  readonly drives?: readonly string[];
}
