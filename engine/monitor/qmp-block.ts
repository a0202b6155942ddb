/**
 * Commands on drives, media, jobs and exports: names, arguments and returns as QEMU's QAPI documents them
 * (qapi/block-core, block, block-export, job, qdev).
 */
import type { AddedNode, BlockControl, BlockDrive, BlockImage, BlockJob, BlockJobRequest } from './block-control.ts';
import { MonitorError } from './machine-control.ts';
import type { QmpServer } from './qmp.ts';

const snapshotInfo = (item: BlockImage['snapshots'][number]): object => ({
  id: item.id,
  name: item.name,
  'vm-state-size': item.vmStateSize,
  'date-sec': item.seconds,
  'date-nsec': item.nanoseconds,
  'vm-clock-sec': Math.floor(item.vmClockNs / 1e9),
  'vm-clock-nsec': item.vmClockNs % 1e9,
});

/** QAPI `ImageInfo`, with its backing images inside. */
function imageInfo(chain: readonly BlockImage[], at = 0): object {
  const image = chain[at];
  return {
    filename: image.file,
    format: image.format,
    'virtual-size': image.virtualSize,
    ...(image.actualSize === undefined ? {} : { 'actual-size': image.actualSize }),
    ...(image.clusterSize === undefined ? {} : { 'cluster-size': image.clusterSize }),
    'dirty-flag': false,
    ...(image.encrypted ? { encrypted: true } : {}),
    ...(image.backingFile === undefined
      ? {}
      : { 'backing-filename': image.backingFile, 'full-backing-filename': chain[at + 1]?.file ?? image.backingFile }),
    ...(image.backingFormat === undefined ? {} : { 'backing-filename-format': image.backingFormat }),
    ...(image.snapshots.length === 0 ? {} : { snapshots: image.snapshots.map(snapshotInfo) }),
    ...(chain[at + 1] === undefined ? {} : { 'backing-image': imageInfo(chain, at + 1) }),
  };
}

/** QAPI `BlockDeviceInfo` of one image of a chain. */
function deviceInfo(chain: readonly BlockImage[], at: number, drive: BlockDrive | undefined): object {
  const image = chain[at];
  const limits = at === 0 ? drive?.limits : undefined;
  const cache = drive?.cache ?? 'writeback';
  return {
    'node-name': image.nodeName,
    file: image.file,
    drv: image.format,
    ro: image.readOnly,
    encrypted: image.encrypted,
    ...(image.backingFile === undefined ? {} : { backing_file: image.backingFile }),
    backing_file_depth: chain.length - 1 - at,
    cache: {
      writeback: cache !== 'writethrough' && cache !== 'directsync',
      direct: cache === 'none' || cache === 'directsync',
      'no-flush': cache === 'unsafe',
    },
    detect_zeroes: 'off',
    write_threshold: 0,
    bps: limits?.bps ?? 0,
    bps_rd: limits?.bpsRead ?? 0,
    bps_wr: limits?.bpsWrite ?? 0,
    iops: limits?.iops ?? 0,
    iops_rd: limits?.iopsRead ?? 0,
    iops_wr: limits?.iopsWrite ?? 0,
    image: imageInfo(chain, at),
  };
}

const statsOf = ({ stats }: BlockDrive): object => ({
  rd_bytes: stats.readBytes,
  wr_bytes: stats.writtenBytes,
  unmap_bytes: 0,
  rd_operations: stats.readOperations,
  wr_operations: stats.writeOperations,
  flush_operations: stats.flushOperations,
  unmap_operations: 0,
  rd_total_time_ns: stats.readNs,
  wr_total_time_ns: stats.writeNs,
  flush_total_time_ns: stats.flushNs,
  unmap_total_time_ns: 0,
  wr_highest_offset: 0,
  rd_merged: 0,
  wr_merged: 0,
  unmap_merged: 0,
  failed_rd_operations: stats.failedReads,
  failed_wr_operations: stats.failedWrites,
  failed_flush_operations: 0,
  failed_unmap_operations: 0,
  invalid_rd_operations: 0,
  invalid_wr_operations: 0,
  invalid_flush_operations: 0,
  invalid_unmap_operations: 0,
  account_invalid: false,
  account_failed: true,
  timed_stats: [],
});

/** QAPI `BlockJobInfo`. */
const blockJobInfo = (job: BlockJob): object => ({
  type: job.type,
  device: job.id,
  len: job.total,
  offset: job.done,
  busy: job.status === 'running',
  paused: job.paused,
  speed: job.speed,
  'io-status': 'ok',
  ready: job.ready,
  status: job.status,
  'auto-finalize': true,
  'auto-dismiss': job.autoDismiss,
  ...(job.error === undefined ? {} : { error: job.error }),
});

const isBlockJob = (job: BlockJob): boolean => job.drive !== undefined;

/** What a command names its drive by: `device` or `node-name`. */
function named(args: { device?: string; 'node-name'?: string; id?: string }): string {
  const given = [args.device, args['node-name'], args.id].filter((each) => each !== undefined);
  if (given.length !== 1) throw new MonitorError("Need exactly one of 'device' and 'node-name'");
  return given[0];
}

/** Options of a job that we have no other way for. */
function onlyAuto(finalize: boolean | undefined): void {
  if (finalize === false) throw new MonitorError("Parameter 'auto-finalize' must be true: jobs end by themselves here");
}

export function registerBlockCommands(server: QmpServer, block: BlockControl): void {
  registerEvents(server);
  registerQueries(server, block);
  registerChain(server, block);
  registerJobs(server, block);
  registerMedia(server, block);
  registerNodes(server, block);
  registerExports(server, block);
}

function registerEvents(server: QmpServer): void {
  const job = { type: 'str', device: 'str', len: 'int', offset: 'int', speed: 'int' } as const;
  server.registerEvent('BLOCK_IO_ERROR', {
    'qom-path': 'str',
    device: 'str',
    '*node-name': 'str',
    operation: { enum: ['read', 'write'] },
    action: { enum: ['ignore', 'report', 'stop'] },
    '*nospace': 'bool',
    reason: 'str',
  });
  server.registerEvent('BLOCK_JOB_COMPLETED', { ...job, '*error': 'str' });
  server.registerEvent('BLOCK_JOB_CANCELLED', job);
  server.registerEvent('BLOCK_JOB_READY', job);
  server.registerEvent('BLOCK_JOB_ERROR', {
    device: 'str',
    operation: { enum: ['read', 'write'] },
    action: { enum: ['ignore', 'report', 'stop'] },
  });
  server.registerEvent('JOB_STATUS_CHANGE', { id: 'str', status: 'str' });
  server.registerEvent('DEVICE_TRAY_MOVED', { device: 'str', id: 'str', 'tray-open': 'bool' });
  server.registerEvent('DEVICE_DELETED', { '*device': 'str', path: 'str' });
  server.registerEvent('BLOCK_EXPORT_DELETED', { id: 'str' });
}

function registerQueries(server: QmpServer, block: BlockControl): void {
  const list = { array: 'any' } as const;
  server.register(
    'query-block',
    {},
    async () =>
      (await block.drives()).map((drive) => ({
        device: drive.id,
        qdev: drive.device,
        type: 'unknown',
        removable: drive.removable,
        locked: drive.locked,
        ...(drive.removable ? { tray_open: drive.trayOpen } : {}),
        'io-status': drive.ioStatus,
        ...(drive.chain.length === 0 ? {} : { inserted: deviceInfo(drive.chain, 0, drive) }),
      })),
    list,
  );
  server.register(
    'query-named-block-nodes',
    { '*flat': 'bool' },
    async () => [
      ...(await block.drives()).flatMap((drive) => drive.chain.map((_, at) => deviceInfo(drive.chain, at, drive))),
      ...(await block.addedNodes()).map((image) => deviceInfo([image], 0, undefined)),
    ],
    list,
  );
  server.register(
    'query-blockstats',
    { '*query-nodes': 'bool' },
    async () =>
      (await block.drives()).map((drive) => ({
        device: drive.id,
        qdev: drive.device,
        ...(drive.chain.length === 0 ? {} : { 'node-name': drive.chain[0].nodeName }),
        stats: statsOf(drive),
      })),
    list,
  );
}

function registerChain(server: QmpServer, block: BlockControl): void {
  server.register('block_resize', { '*device': 'str', '*node-name': 'str', size: 'int' }, async (args) => {
    if (args.size < 0) throw new MonitorError("Parameter 'size' expects a >0 size");
    await block.resize(named(args), args.size);
  });
  const snapshot = {
    '*device': 'str',
    '*node-name': 'str',
    'snapshot-file': 'str',
    '*snapshot-node-name': 'str',
    '*format': 'str',
    '*mode': { enum: ['existing', 'absolute-paths'] },
  } as const;
  server.register('blockdev-snapshot-sync', snapshot, async (args) => {
    await block.overlay(named(args), {
      file: args['snapshot-file'],
      format: args.format ?? 'qcow2',
      mode: args.mode ?? 'absolute-paths',
      ...(args['snapshot-node-name'] === undefined ? {} : { nodeName: args['snapshot-node-name'] }),
    });
  });
  server.register('blockdev-snapshot', { node: 'str', overlay: 'str' }, async ({ node, overlay }) => {
    const { file, format, nodeName } = block.takeNode(overlay);
    await block.overlay(node, { file, format: format ?? 'qcow2', mode: 'existing', nodeName });
  });
  const int = 'int' as const;
  server.register(
    'block_set_io_throttle',
    {
      '*device': 'str',
      '*id': 'str',
      bps: int,
      bps_rd: int,
      bps_wr: int,
      iops: int,
      iops_rd: int,
      iops_wr: int,
      '*bps_max': int,
      '*bps_rd_max': int,
      '*bps_wr_max': int,
      '*iops_max': int,
      '*iops_rd_max': int,
      '*iops_wr_max': int,
      '*iops_size': int,
      '*group': 'str',
    },
    async (args) => {
      for (const name of Object.keys(args))
        if (name.endsWith('_max') || name === 'iops_size' || name === 'group')
          throw new MonitorError(`Parameter '${name}' is not offered: there are plain limits only`);
      const { bps, bps_rd: bpsRead, bps_wr: bpsWrite, iops, iops_rd: iopsRead, iops_wr: iopsWrite } = args;
      if ((bps > 0 && (bpsRead > 0 || bpsWrite > 0)) || (iops > 0 && (iopsRead > 0 || iopsWrite > 0)))
        throw new MonitorError('bps/iops/max total values and read/write values cannot be used at the same time');
      if ([bps, bpsRead, bpsWrite, iops, iopsRead, iopsWrite].some((value) => value < 0 || value > 1e15))
        throw new MonitorError('bps/iops/max values must be within [0, 1000000000000000]');
      await block.setLimits(named(args), { bps, bpsRead, bpsWrite, iops, iopsRead, iopsWrite });
    },
  );
}

function registerJobs(server: QmpServer, block: BlockControl): void {
  const common = { '*job-id': 'str', '*speed': 'int', '*auto-finalize': 'bool', '*auto-dismiss': 'bool' } as const;
  const onError = { '*on-error': { enum: ['report', 'ignore', 'enospc', 'stop', 'auto'] }, '*filter-node-name': 'str' } as const;
  const start = async (
    drive: string,
    args: { 'job-id'?: string; speed?: number; 'auto-finalize'?: boolean; 'auto-dismiss'?: boolean; 'on-error'?: string },
    job: DistributiveOmit<BlockJobRequest, 'id' | 'speed' | 'autoDismiss'>,
  ): Promise<void> => {
    onlyAuto(args['auto-finalize']);
    if (!['report', 'auto', undefined].includes(args['on-error']))
      throw new MonitorError("Parameter 'on-error' must be 'report': a job that fails ends");
    if ((args.speed ?? 0) < 0) throw new MonitorError("Parameter 'speed' expects a non-negative value");
    await block.startJob(drive, {
      ...job,
      id: args['job-id'],
      speed: args.speed ?? 0,
      autoDismiss: args['auto-dismiss'] ?? true,
    } as BlockJobRequest);
  };
  server.register(
    'block-stream',
    { ...common, ...onError, device: 'str', '*base': 'str', '*base-node': 'str', '*backing-file': 'str' },
    async (args) => {
      const base = args['base-node'] ?? args.base;
      if (args['backing-file'] !== undefined && base === undefined)
        throw new MonitorError('backing file specified, but streaming the entire chain');
      await start(args.device, args, { kind: 'stream', base, backingFile: args['backing-file'] });
    },
  );
  server.register(
    'block-commit',
    {
      ...common,
      ...onError,
      device: 'str',
      '*base': 'str',
      '*base-node': 'str',
      '*top': 'str',
      '*top-node': 'str',
      '*backing-file': 'str',
    },
    async (args) => {
      await start(args.device, args, {
        kind: 'commit',
        top: args['top-node'] ?? args.top,
        base: args['base-node'] ?? args.base,
        backingFile: args['backing-file'],
      });
    },
  );
  const sync = { enum: ['top', 'full', 'none', 'incremental', 'bitmap'] } as const;
  const whole = (value: string): 'top' | 'full' | 'none' => {
    if (value === 'incremental' || value === 'bitmap') throw new MonitorError(`Sync mode '${value}' not supported`);
    return value as 'top' | 'full' | 'none';
  };
  const ignored = {
    '*granularity': 'int',
    '*buf-size': 'int',
    '*unmap': 'bool',
    '*copy-mode': { enum: ['background', 'write-blocking'] },
  } as const;
  server.register(
    'drive-mirror',
    {
      ...common,
      ...ignored,
      device: 'str',
      target: 'str',
      '*format': 'str',
      '*node-name': 'str',
      '*replaces': 'str',
      sync,
      '*mode': { enum: ['existing', 'absolute-paths'] },
      '*on-source-error': { enum: ['report', 'ignore', 'enospc', 'stop', 'auto'] },
      '*on-target-error': { enum: ['report', 'ignore', 'enospc', 'stop', 'auto'] },
    },
    async (args) => {
      if (args.replaces !== undefined) throw new MonitorError("Parameter 'replaces' is not offered");
      await start(
        args.device,
        { ...args, 'on-error': args['on-target-error'] ?? args['on-source-error'] },
        {
          kind: 'mirror',
          target: args.target,
          format: args.format,
          mode: args.mode ?? 'absolute-paths',
          sync: whole(args.sync),
          nodeName: args['node-name'],
        },
      );
    },
  );
  server.register(
    'blockdev-mirror',
    { ...common, ...ignored, device: 'str', target: 'str', sync, '*on-source-error': 'str', '*on-target-error': 'str' },
    async (args) => {
      const mode = whole(args.sync);
      const { file, format, nodeName } = block.takeNode(args.target);
      await start(args.device, args, { kind: 'mirror', target: file, format, mode: 'existing', sync: mode, nodeName });
    },
  );

  server.register('query-block-jobs', {}, () => block.jobs().filter(isBlockJob).map(blockJobInfo), { array: 'any' });
  server.register(
    'query-jobs',
    {},
    () =>
      block.jobs().map((job) => ({
        id: job.id,
        type: job.type,
        status: job.status,
        'current-progress': job.done,
        'total-progress': job.total,
        ...(job.error === undefined ? {} : { error: job.error }),
      })),
    { array: 'any' },
  );
  const blockJob = (device: string): string => {
    const job = block.jobs().find((each) => each.id === device || each.drive === device);
    if (job === undefined) throw new MonitorError(`Block job '${device}' not found`, 'DeviceNotActive');
    return job.id;
  };
  server.register('block-job-cancel', { device: 'str', '*force': 'bool' }, ({ device, force }) =>
    block.jobAction(blockJob(device), { do: 'cancel', force: force ?? false }),
  );
  server.register('block-job-set-speed', { device: 'str', speed: 'int' }, ({ device, speed }) => {
    if (speed < 0) throw new MonitorError("Parameter 'speed' expects a non-negative value");
    return block.jobAction(blockJob(device), { do: 'speed', speed });
  });
  for (const action of ['pause', 'resume', 'complete'] as const) {
    server.register(`block-job-${action}`, { device: 'str' }, ({ device }) => block.jobAction(blockJob(device), { do: action }));
    server.register(`job-${action}`, { id: 'str' }, ({ id }) => block.jobAction(id, { do: action }));
  }
  server.register('job-cancel', { id: 'str' }, ({ id }) => block.jobAction(id, { do: 'cancel', force: true }));
  server.register('job-dismiss', { id: 'str' }, ({ id }) => block.jobAction(id, { do: 'dismiss' }));
  server.register('block-job-dismiss', { id: 'str' }, ({ id }) => block.jobAction(id, { do: 'dismiss' }));
  const finalize = ({ id }: { id: string }): never => {
    throw new MonitorError(`Job '${id}' cannot accept command verb 'finalize': jobs end by themselves here`);
  };
  server.register('job-finalize', { id: 'str' }, finalize);
  server.register('block-job-finalize', { id: 'str' }, finalize);
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

function registerMedia(server: QmpServer, block: BlockControl): void {
  const which = { '*device': 'str', '*id': 'str' } as const;
  server.register('eject', { ...which, '*force': 'bool' }, (args) => block.eject(named(args), args.force ?? false));
  server.register('blockdev-open-tray', { ...which, '*force': 'bool' }, (args) =>
    block.openTray(named(args), args.force ?? false),
  );
  server.register('blockdev-close-tray', which, (args) => block.closeTray(named(args)));
  server.register('blockdev-remove-medium', { id: 'str' }, ({ id }) => block.removeMedium(id));
  server.register('blockdev-insert-medium', { id: 'str', 'node-name': 'str' }, (args) =>
    block.insertMedium(args.id, args['node-name']),
  );
  server.register(
    'blockdev-change-medium',
    {
      ...which,
      filename: 'str',
      '*format': 'str',
      '*force': 'bool',
      '*read-only-mode': { enum: ['retain', 'read-only', 'read-write'] },
    },
    (args) =>
      block.changeMedium(named({ device: args.device, id: args.id }), {
        file: args.filename,
        format: args.format,
        readOnly: args['read-only-mode'] ?? 'retain',
        force: args.force ?? false,
      }),
  );
}

// --- blockdev-add -------------------------------------------------------------------------------------------------

type Options = Record<string, unknown>;
const isObject = (value: unknown): value is Options => typeof value === 'object' && value !== null && !Array.isArray(value);
const PROTOCOLS = ['file', 'host_device'];
const DRIVERS = ['raw', 'qcow2', 'luks', 'vmdk', 'vdi', 'vhdx', 'vpc'];
const KNOWN = [
  'driver',
  'node-name',
  'file',
  'filename',
  'backing',
  'read-only',
  'auto-read-only',
  'discard',
  'cache',
  'aio',
  'locking',
  'detect-zeroes',
  'force-share',
];

/** What `blockdev-add` says; `files` are protocol nodes that were added before. */
function addedNode(
  args: Options,
  files: ReadonlyMap<string, string>,
): AddedNode | { readonly name: string; readonly file: string } {
  const { driver, 'node-name': name } = args;
  if (typeof driver !== 'string') throw new MonitorError("Parameter 'driver' is missing");
  if (typeof name !== 'string' || !/^[A-Za-z][\w.-]{0,30}$/.test(name))
    throw new MonitorError("'node-name' must be specified for the root node");
  for (const key of Object.keys(args)) if (!KNOWN.includes(key)) throw new MonitorError(`Parameter '${key}' is unexpected`);
  if (PROTOCOLS.includes(driver)) return { name, file: text(args, 'filename') };
  if (!DRIVERS.includes(driver)) throw new MonitorError(`Unknown driver '${driver.slice(0, 80)}'`);
  const cache = isObject(args.cache) ? args.cache : {};
  const below = args.backing;
  return {
    nodeName: name,
    file: fileName(args.file, files),
    format: driver,
    readOnly: args['read-only'] === true,
    cache: cache['no-flush'] === true ? 'unsafe' : cache.direct === true ? 'none' : 'writeback',
    unmap: args.discard === 'unmap' || args.discard === 'on',
    ...(isObject(below)
      ? { backing: { file: fileName(below.file, files), format: typeof below.driver === 'string' ? below.driver : undefined } }
      : {}),
  };
}

function text(options: Options, name: string): string {
  const value = options[name];
  if (typeof value !== 'string' || value === '') throw new MonitorError(`Parameter '${name}' is missing`);
  return value;
}

function fileName(value: unknown, files: ReadonlyMap<string, string>): string {
  if (typeof value === 'string') {
    const file = files.get(value);
    if (file === undefined)
      throw new MonitorError(`Cannot find device='${value.slice(0, 80)}' nor node-name='${value.slice(0, 80)}'`);
    return file;
  }
  if (!isObject(value)) throw new MonitorError("Parameter 'file' is missing");
  const driver = value.driver ?? 'file';
  if (driver === 'nbd') {
    const server = isObject(value.server) ? value.server : {};
    const name = typeof value.export === 'string' ? value.export : '';
    if (server.type === 'unix')
      return `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(text(server, 'path'))}`;
    return `nbd://${text(server, 'host')}:${text(server, 'port')}/${encodeURIComponent(name)}`;
  }
  if (!PROTOCOLS.includes(String(driver))) throw new MonitorError(`Unknown driver '${String(driver).slice(0, 80)}'`);
  return text(value, 'filename');
}

function registerNodes(server: QmpServer, block: BlockControl): void {
  const files = new Map<string, string>();
  server.registerOpen('blockdev-add', async (args) => {
    const node = addedNode(args, files);
    if ('name' in node) {
      if (files.has(node.name)) throw new MonitorError(`Duplicate nodes with node-name='${node.name}'`);
      files.set(node.name, node.file);
    } else await block.addNode(node);
  });
  server.register('blockdev-del', { 'node-name': 'str' }, async (args) => {
    if (!files.delete(args['node-name'])) await block.removeNode(args['node-name']);
  });
  server.registerOpen('device_add', (args) => block.addDevice(args));
  server.register('device_del', { id: 'str' }, ({ id }) => block.removeDevice(id));
}

// --- exports ------------------------------------------------------------------------------------------------------

function registerExports(server: QmpServer, block: BlockControl): void {
  const inet = {
    host: 'str',
    port: 'str',
    '*numeric': 'bool',
    '*to': 'int',
    '*ipv4': 'bool',
    '*ipv6': 'bool',
    '*keep-alive': 'bool',
  } as const;
  const address = { union: { inet: { struct: inet }, unix: { struct: { path: 'str' } } } } as const;
  server.register(
    'nbd-server-start',
    { addr: address, '*tls-creds': 'str', '*tls-authz': 'str', '*max-connections': 'int' },
    async (args) => {
      if (args['tls-creds'] !== undefined) throw new MonitorError("Parameter 'tls-creds' is not offered: the server has no TLS");
      const { addr } = args;
      if (addr.type === 'unix') await block.startNbd({ path: addr.data.path });
      else {
        const port = Number(addr.data.port);
        if (!Number.isInteger(port) || port < 0 || port > 65535) throw new MonitorError("Parameter 'port' expects a port number");
        await block.startNbd({ host: addr.data.host, port });
      }
    },
  );
  server.register(
    'nbd-server-add',
    { device: 'str', '*name': 'str', '*description': 'str', '*writable': 'bool', '*bitmap': 'str' },
    async ({ device, name, writable, bitmap }) => {
      if (bitmap !== undefined) throw new MonitorError("Parameter 'bitmap' is not offered");
      await block.addExport(device, { name, writable: writable ?? false });
    },
  );
  server.register('nbd-server-remove', { name: 'str', '*mode': { enum: ['safe', 'hard'] } }, ({ name }) =>
    block.removeExport(name),
  );
  server.register('nbd-server-stop', {}, () => block.stopNbd());
  server.register(
    'block-export-add',
    {
      type: { enum: ['nbd'] },
      id: 'str',
      'node-name': 'str',
      '*writable': 'bool',
      '*writethrough': 'bool',
      '*name': 'str',
      '*description': 'str',
    },
    (args) => block.addExport(args['node-name'], { id: args.id, name: args.name, writable: args.writable ?? false }),
  );
  server.register('block-export-del', { id: 'str', '*mode': { enum: ['safe', 'hard'] } }, ({ id }) => block.removeExport(id));
  server.register(
    'query-block-exports',
    {},
    () => block.exports().map(({ id, nodeName }) => ({ id, type: 'nbd', 'node-name': nodeName, 'shutting-down': false })),
    { array: 'any' },
  );
}
