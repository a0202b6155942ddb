/** `-drive`, `-blockdev` and their short forms, as QEMU means them: what backs a drive, and where it is put. */
import type { DriveConfig, DriveErrorAction, DriveLimits } from '../../contract/machine-config.ts';
import { Keyval, OptionError } from './keyval.ts';
import type { DeviceOptions } from './run-options.ts';

/** A drive of the command line; `option` is how messages name it. */
export type DriveOptions = DriveConfig & { readonly option: string };

/** Firmware flash of `-drive if=pflash`. */
export interface FlashOptions {
  readonly file: string;
  readonly readOnly: boolean;
  readonly snapshot: boolean;
}

/** What `-drive` and `-blockdev` gather. */
export interface DriveDraft {
  drives: DriveOptions[];
  /** By unit: 0 the code, 1 the variables. */
  flash: (FlashOptions | undefined)[];
  /** `-blockdev` nodes by name. */
  nodes: Map<string, BlockdevNode>;
}

export interface BlockdevNode {
  readonly option: string;
  readonly driver: string;
  readonly name: string;
  /** The node or file below. */
  readonly file: string | BlockdevNode | undefined;
  /** A protocol's path or address. */
  readonly filename: string | undefined;
  readonly readOnly: boolean | undefined;
  readonly cache: DriveConfig['cache'];
  readonly discard: DriveConfig['discard'];
  readonly detectZeroes: DriveConfig['detectZeroes'];
}

const interfaces = ['ide', 'virtio', 'scsi', 'floppy', 'pflash', 'sata', 'none'] as const;
const formats = ['raw', 'qcow2', 'luks', 'vmdk', 'vdi', 'vhdx', 'vpc'] as const;
/** Drives on one bus, for `bus=` and `unit=`. */
const unitsPerBus = { ide: 2, scsi: 7, floppy: 2, virtio: 1, sata: 1, pflash: 0, none: 1 } as const;

function cacheMode(keys: Keyval): DriveConfig['cache'] {
  const mode = keys.choice('cache', ['none', 'writethrough', 'writeback', 'unsafe', 'directsync', 'off']);
  const writeback = keys.flag('cache.writeback');
  const direct = keys.flag('cache.direct');
  const noFlush = keys.flag('cache.no-flush');
  if (mode === 'directsync' || (direct === true && writeback === false))
    throw keys.error("cache 'directsync' is not in this version (none, writethrough, writeback, unsafe)");
  if (noFlush === true) return 'unsafe';
  if (writeback === false) return 'writethrough';
  if (direct === true) return 'none';
  return mode === 'off' ? 'none' : (mode ?? 'writeback');
}

function discardMode(keys: Keyval): DriveConfig['discard'] {
  const value = keys.choice('discard', ['unmap', 'on', 'ignore', 'off']) ?? 'ignore';
  return value === 'unmap' || value === 'on' ? 'unmap' : 'ignore';
}

function zeroDetection(keys: Keyval, discard: DriveConfig['discard']): DriveConfig['detectZeroes'] {
  const value = keys.choice('detect-zeroes', ['off', 'on', 'unmap']);
  if (value === 'unmap' && discard !== 'unmap')
    throw keys.error('setting detect-zeroes to unmap is not allowed without setting discard operation to unmap');
  return value;
}

const limitKeys: readonly (readonly [keyof DriveLimits, string, string])[] = [
  ['bps', 'bps', 'throttling.bps-total'],
  ['bpsRead', 'bps_rd', 'throttling.bps-read'],
  ['bpsWrite', 'bps_wr', 'throttling.bps-write'],
  ['iops', 'iops', 'throttling.iops-total'],
  ['iopsRead', 'iops_rd', 'throttling.iops-read'],
  ['iopsWrite', 'iops_wr', 'throttling.iops-write'],
];

function limits(keys: Keyval): DriveLimits | undefined {
  const out: Record<string, number> = {};
  for (const [name, short, long] of limitKeys) {
    const value = keys.integer(short, 0, Number.MAX_SAFE_INTEGER) ?? keys.integer(long, 0, Number.MAX_SAFE_INTEGER);
    if (value !== undefined && value !== 0) out[name] = value;
  }
  for (const kind of ['bps', 'iops'])
    if (out[kind] !== undefined && (out[`${kind}Read`] !== undefined || out[`${kind}Write`] !== undefined))
      throw keys.error(`${kind} and ${kind}_rd/${kind}_wr cannot be used at the same time`);
  return Object.keys(out).length === 0 ? undefined : out;
}

/** A path as `-drive file=` has it; protocols that there are not are refused. */
function filename(keys: Keyval, text: string): string {
  if (text.startsWith('json:'))
    throw keys.error("'json:' file names are not in this version here; -blockdev says the same in keys");
  const path = text.startsWith('file:') ? text.slice(text.startsWith('file://') ? 7 : 5) : text;
  const protocol = /^([a-zA-Z][a-zA-Z0-9+.-]+):/.exec(path)?.[1];
  if (protocol !== undefined && !/^nbd(\+unix)?$/.test(protocol)) throw keys.error(`Unknown protocol '${protocol}'`);
  return path;
}

/** Keys of `file.` that say what is so anyway. */
function fileKeys(keys: Keyval): void {
  for (const key of ['file.locking']) keys.choice(key, ['auto', 'on', 'off']);
  keys.choice('file.driver', ['file', 'host_device']);
  keys.choice('aio', ['threads', 'native', 'io_uring']);
  keys.choice('file.aio', ['threads', 'native', 'io_uring']);
}

interface Place {
  readonly type: (typeof interfaces)[number];
  readonly index: number | undefined;
}

function place(keys: Keyval, fallback: (typeof interfaces)[number]): Place {
  const type = keys.choice('if', interfaces) ?? fallback;
  const index = keys.integer('index', 0, 255);
  const bus = keys.integer('bus', 0, 255);
  const unit = keys.integer('unit', 0, 255);
  if (index !== undefined && (bus !== undefined || unit !== undefined))
    throw keys.error('index cannot be used with bus and unit');
  if (index !== undefined) return { type, index };
  if (bus === undefined && unit === undefined) return { type, index: undefined };
  const units = unitsPerBus[type];
  if (units > 0 && (unit ?? 0) >= units) throw keys.error(`unit ${unit} too big (max is ${units - 1})`);
  return { type, index: (bus ?? 0) * Math.max(1, units) + (unit ?? 0) };
}

/** Reads `-drive file=...` into the draft. `defaults`: what `-hda`, `-cdrom` and the like say. */
export function addDrive(
  draft: DriveDraft,
  option: string,
  value: string,
  defaults: { readonly if?: (typeof interfaces)[number]; readonly media?: 'disk' | 'cdrom'; readonly index?: number } = {},
): void {
  const keys = new Keyval(`${option} ${value}`, value);
  const { type, index = defaults.index } = place(keys, defaults.if ?? 'ide');
  const id = keys.text('id');
  const media = keys.choice('media', ['disk', 'cdrom']) ?? defaults.media ?? 'disk';
  const named = keys.text('file') ?? keys.text('file.filename');
  const file = named === undefined ? '' : filename(keys, named);
  const format = keys.choice('format', formats) ?? keys.choice('driver', formats) ?? 'auto';
  const readOnly = keys.flag('readonly') ?? keys.flag('read-only') ?? false;
  const snapshot = keys.flag('snapshot') ?? false;
  keys.flag('auto-read-only');
  if (keys.flag('copy-on-read') === true) throw keys.error("'copy-on-read=on' is not in this version");
  keys.flag('force-share');
  const cache = cacheMode(keys);
  const discard = discardMode(keys);
  const detectZeroes = zeroDetection(keys, discard);
  const onReadError = keys.choice('rerror', ['report', 'ignore', 'stop', 'enospc']);
  if (onReadError === 'enospc') throw keys.error("rerror 'enospc' is for writing: use werror=enospc");
  const onWriteError: DriveErrorAction | undefined = keys.choice('werror', ['report', 'ignore', 'stop', 'enospc']);
  const values = limits(keys);
  const serial = keys.text('serial');
  const nodeName = keys.text('node-name');
  if (keys.has('throttling.group') || keys.has('group')) throw keys.error('throttle groups are not in this version');
  if (keys.has('backing') || keys.rest.some((key) => key.startsWith('backing.')))
    throw keys.error("'backing' is not in this version: the image names its backing file");
  fileKeys(keys);
  keys.finish();
  if (type === 'pflash') {
    if (file === '') throw keys.error("Parameter 'file' is missing");
    if (format !== 'raw' && format !== 'auto') throw keys.error(`flash is kept in raw images, not in ${format} ones`);
    const unit = index ?? (draft.flash[0] === undefined ? 0 : 1);
    if (unit > 1) throw keys.error(`this version has two flash chips: unit ${unit} is not there`);
    if (draft.flash[unit] !== undefined) throw keys.error(`drive with bus=0, unit=${unit} (index=${unit}) exists`);
    draft.flash[unit] = { file, readOnly, snapshot };
    return;
  }
  const cdrom = media === 'cdrom';
  const floppy = type === 'floppy';
  if (floppy && cdrom) throw keys.error("'media=cdrom' is not for floppy drives");
  if (file === '' && !cdrom && !floppy && type !== 'none') throw keys.error("Parameter 'file' is missing");
  draft.drives.push({
    option: `${option} ${value}`,
    id: id ?? '',
    file,
    format,
    media: floppy ? 'floppy' : media,
    interface: type,
    index,
    readOnly: readOnly || cdrom,
    snapshot: snapshot && !cdrom,
    cache,
    discard,
    detectZeroes,
    serial,
    nodeName,
    onReadError,
    onWriteError,
    limits: values,
  });
}

/** Gives drives their indexes and ids, and finds what is there twice. */
export function settleDrives(draft: DriveDraft, all: { readonly snapshot: boolean; readonly ideUnits: 1 | 2 }): void {
  const taken = new Set<string>();
  const settled = draft.drives.map((drive) => ({ ...drive, snapshot: drive.snapshot || (all.snapshot && !drive.readOnly) }));
  // Those that say where they want to be go first.
  for (const drive of settled) {
    if (drive.index === undefined || drive.interface === 'none') continue;
    const key = `${drive.interface}:${drive.index}`;
    const units = drive.interface === 'ide' ? all.ideUnits : 1;
    const where = `bus=${Math.floor(drive.index / units)}, unit=${drive.index % units} (index=${drive.index})`;
    if (taken.has(key)) throw new OptionError(`${drive.option}: drive with ${where} exists`);
    const limit = drive.interface === 'ide' ? (all.ideUnits === 2 ? 4 : 6) : drive.interface === 'floppy' ? 2 : 256;
    if (drive.index >= limit)
      throw new OptionError(`${drive.option}: Too many ${drive.interface.toUpperCase()} buses defined (${where})`);
    taken.add(key);
  }
  const ids = new Set<string>();
  let unplaced = 0;
  draft.drives = settled.map((drive) => {
    let { index, id } = drive;
    if (index === undefined && drive.interface !== 'none') {
      index = 0;
      while (taken.has(`${drive.interface}:${index}`)) index++;
      taken.add(`${drive.interface}:${index}`);
      if (drive.interface === 'ide' && index >= (all.ideUnits === 2 ? 4 : 6))
        throw new OptionError(`${drive.option}: this machine has no IDE place left; if=virtio has room`);
      if (drive.interface === 'floppy' && index >= 2)
        throw new OptionError(`${drive.option}: a machine has two floppy drives at most`);
    }
    if (id === '') id = defaultId(drive, index ?? unplaced++, all.ideUnits);
    if (ids.has(id)) throw new OptionError(`${drive.option}: Duplicate ID '${id}' for drive`);
    ids.add(id);
    return { ...drive, index: drive.interface === 'none' ? undefined : index, id };
  });
}

/** As QEMU names drives: `ide1-cd0`, `virtio0`. */
function defaultId({ interface: type, media }: DriveOptions, index: number, ideUnits: number): string {
  const kind = media === 'cdrom' ? '-cd' : '-hd';
  if (type === 'ide') return `ide${Math.floor(index / ideUnits)}${kind}${index % ideUnits}`;
  if (type === 'scsi') return `scsi0${kind}${index}`;
  if (type === 'sata') return `sata${index}${kind}0`;
  return `${type}${index}`;
}

// -blockdev --------------------------------------------------------------------------------------------------------

const protocols = ['file', 'host_device', 'host_cdrom', 'nbd'];

/** JSON objects as dotted keys. */
function flatten(option: string, value: unknown, prefix = ''): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new OptionError(`${option}: a JSON object expected`);
  return Object.entries(value).flatMap(([key, item]): string[] => {
    const path = `${prefix}${key}`;
    if (item === null) return [`${path}=`];
    if (typeof item === 'object') return flatten(option, item, `${path}.`);
    const text = item === true ? 'on' : item === false ? 'off' : String(item);
    return [`${path}=${text.replaceAll(',', ',,')}`];
  });
}

/** Reads `-blockdev driver=...,node-name=...` into the draft. */
export function addBlockdev(draft: DriveDraft, value: string): void {
  const option = `-blockdev ${value}`;
  let text = value;
  if (value.startsWith('{')) {
    let parsed: unknown;
    try {
      parsed = JSON.parse(value);
    } catch (cause) {
      throw new OptionError(`${option}: ${(cause as Error).message}`);
    }
    text = flatten(option, parsed).join(',');
  }
  const keys = new Keyval(option, text, 'driver');
  const node = takeNode(draft, keys, option, '');
  keys.finish();
  if (node.name === '') throw keys.error("'node-name' must be specified for the root node");
}

function takeNode(draft: DriveDraft, keys: Keyval, option: string, prefix: string): BlockdevNode {
  const text = (key: string): string | undefined => keys.text(prefix + key);
  const driver = keys.required(`${prefix}driver`);
  const isProtocol = protocols.includes(driver);
  if (!isProtocol && !formats.some((format) => format === driver))
    throw keys.error(`driver '${driver}' is not in this version (${[...formats, ...protocols].join(', ')})`);
  const name = text('node-name') ?? '';
  if (name !== '' && draft.nodes.has(name)) throw keys.error(`Duplicate nodes with node-name='${name}'`);
  const readOnly = keys.flag(`${prefix}read-only`);
  keys.flag(`${prefix}auto-read-only`);
  keys.flag(`${prefix}force-share`);
  const direct = keys.flag(`${prefix}cache.direct`) ?? false;
  const noFlush = keys.flag(`${prefix}cache.no-flush`) ?? false;
  const discardKey = keys.choice(`${prefix}discard`, ['unmap', 'on', 'ignore', 'off']) ?? 'ignore';
  const discard = discardKey === 'unmap' || discardKey === 'on' ? 'unmap' : 'ignore';
  const detectZeroes = keys.choice(`${prefix}detect-zeroes`, ['off', 'on', 'unmap']);
  let file: BlockdevNode['file'];
  let filenameOf: string | undefined;
  if (driver === 'nbd') filenameOf = nbdAddress(keys, prefix);
  else if (isProtocol) {
    filenameOf = keys.required(`${prefix}filename`);
    keys.choice(`${prefix}locking`, ['auto', 'on', 'off']);
    keys.choice(`${prefix}aio`, ['threads', 'native', 'io_uring']);
  } else if (keys.has(`${prefix}file`)) file = text('file');
  else if (keys.has(`${prefix}file.driver`)) file = takeNode(draft, keys, option, `${prefix}file.`);
  else throw keys.error(`Parameter '${prefix}file' is missing`);
  const node: BlockdevNode = {
    option,
    driver,
    name,
    file,
    filename: filenameOf,
    readOnly,
    cache: noFlush ? 'unsafe' : direct ? 'none' : 'writeback',
    discard,
    detectZeroes,
  };
  if (name !== '') draft.nodes.set(name, node);
  return node;
}

function nbdAddress(keys: Keyval, prefix: string): string {
  const type = keys.choice(`${prefix}server.type`, ['inet', 'unix']) ?? 'inet';
  const name = keys.text(`${prefix}export`) ?? '';
  if (type === 'unix') {
    const path = keys.required(`${prefix}server.path`);
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${encodeURIComponent(path)}`;
  }
  const host = keys.required(`${prefix}server.host`);
  const port = keys.required(`${prefix}server.port`);
  return `nbd://${host.includes(':') ? `[${host}]` : host}:${port}/${encodeURIComponent(name)}`;
}

/** The drive that a node and what is below it make up; `id` is the node's name. */
export function driveOfNode(draft: DriveDraft, node: BlockdevNode): DriveOptions {
  let top = node;
  let format = 'raw';
  let found = false;
  let cache = node.cache;
  const seen = new Set<BlockdevNode>();
  for (;;) {
    if (seen.has(top)) throw new OptionError(`${node.option}: the nodes below '${node.name}' name each other`);
    seen.add(top);
    if (top.filename !== undefined) break;
    if (top.driver !== 'raw') {
      if (found) throw new OptionError(`${node.option}: a ${format} image inside a ${top.driver} image is not in this version`);
      found = true;
      format = top.driver;
    }
    const below: string | BlockdevNode | undefined = top.file;
    const next = typeof below === 'string' ? draft.nodes.get(below) : below;
    if (next === undefined) throw new OptionError(`${top.option}: Cannot find device='' nor node-name='${below}'`);
    top = next;
    if (top.cache !== 'writeback') cache = top.cache;
  }
  return {
    option: node.option,
    id: node.name,
    file: top.filename,
    format: format as DriveConfig['format'],
    media: 'disk',
    interface: 'none',
    readOnly: node.readOnly ?? top.readOnly ?? false,
    snapshot: false,
    cache,
    discard: node.discard,
    detectZeroes: node.detectZeroes,
    nodeName: node.name,
  };
}

// Drives and the devices that use them ------------------------------------------------------------------------------

/** What `connectDrives` needs of the options so far. */
export interface StorageDraft extends DriveDraft {
  readonly machine: 'pc' | 'q35';
  readonly snapshot: boolean;
  readonly flashNodes: readonly (string | undefined)[];
  devices: DeviceOptions[];
}

const cdModels = ['ide-cd', 'scsi-cd'];
const errorActions = { rerror: ['report', 'ignore', 'stop'], werror: ['report', 'ignore', 'enospc', 'stop'] } as const;

/** Settles all drives, and gives each device that has one its own. Throws an OptionError. */
export function connectDrives(draft: StorageDraft): void {
  for (const [unit, name] of draft.flashNodes.entries()) {
    const node = name === undefined ? undefined : draft.nodes.get(name);
    if (name === undefined) continue;
    if (node === undefined)
      throw new OptionError(`-machine pflash${unit}=${name}: Cannot find device='' nor node-name='${name}'`);
    const { file, readOnly } = driveOfNode(draft, node);
    draft.flash[unit] = { file, readOnly, snapshot: false };
  }
  draft.flash = draft.flash.map((flash) => flash && { ...flash, snapshot: flash.snapshot || draft.snapshot });
  settleDrives(draft, { snapshot: draft.snapshot, ideUnits: draft.machine === 'q35' ? 1 : 2 });
  const users = new Map<string, string>();
  const automatic = new Set(draft.drives.filter((drive) => drive.interface !== 'none').map(({ id }) => id));
  let empty = 0;
  draft.devices = draft.devices.map((device) => {
    const { model, properties, id } = device;
    const isCd = cdModels.includes(model);
    const name = `-device ${model}${id === undefined ? '' : `,id=${id}`}`;
    let wanted = properties.drive;
    if (wanted === undefined) {
      if (!isCd) return device;
      // A drive without a medium.
      wanted = id ?? `empty${empty++}`;
      while (draft.drives.some((drive) => drive.id === wanted)) wanted = `empty${empty++}`;
      draft.drives.push({
        ...{ option: name, id: String(wanted), file: '', format: 'auto', media: 'cdrom', interface: 'none' },
        ...{ readOnly: true, snapshot: false, cache: 'writeback', discard: 'ignore' },
      });
    }
    const drive = String(wanted);
    const option = `${name},drive=${drive}`;
    let found = draft.drives.find((each) => each.id === drive);
    if (found === undefined) {
      const node = draft.nodes.get(drive);
      if (node === undefined) throw new OptionError(`${option}: Property '${model}.drive' can't find value '${drive}'`);
      found = { ...driveOfNode(draft, node), snapshot: draft.snapshot };
      draft.drives.push(found);
    }
    if (automatic.has(drive))
      throw new OptionError(
        `${option}: Drive '${drive}' is already in use because it has been automatically connected to another device (did you need 'if=none' in the drive options?)`,
      );
    if (users.has(drive)) throw new OptionError(`${option}: Drive '${drive}' is already in use by another block device`);
    users.set(drive, option);
    if (found.file === '' && !isCd) throw new OptionError(`${option}: Device needs media, but drive is empty`);
    const changed = withProperties(found, properties, option, isCd);
    draft.drives = draft.drives.map((each) => (each === found ? changed : each));
    return { ...device, properties: { ...properties, drive } };
  });
}

/** A drive with what its device's properties say of it. Throws an OptionError. */
export function withProperties(
  drive: DriveOptions,
  properties: DeviceOptions['properties'],
  option: string,
  isCd: boolean,
): DriveOptions {
  const action = <const K extends keyof typeof errorActions>(key: K): (typeof errorActions)[K][number] | undefined => {
    const value = properties[key];
    if (value === undefined || value === 'auto') return undefined;
    const allowed: readonly string[] = errorActions[key];
    if (!allowed.includes(String(value))) throw new OptionError(`${option}: ${key} '${value}': ${allowed.join(', ')} expected`);
    return value as (typeof errorActions)[K][number];
  };
  const logical = Number(properties.logical_block_size ?? 512);
  const physical = Number(properties.physical_block_size ?? logical);
  for (const [key, size] of [
    ['logical_block_size', logical],
    ['physical_block_size', physical],
  ] as const)
    if (size < 512 || size > 65536 || (size & (size - 1)) !== 0)
      throw new OptionError(`${option}: Property '${key}' is no power of two from 512 to 65536`);
  if (physical < logical) throw new OptionError(`${option}: logical_block_size > physical_block_size not supported`);
  const { bootindex, serial } = properties;
  return {
    ...drive,
    media: isCd ? 'cdrom' : 'disk',
    readOnly: drive.readOnly || isCd,
    snapshot: drive.snapshot && !isCd && !drive.readOnly,
    ...(bootindex === undefined ? {} : { bootIndex: Number(bootindex) }),
    ...(serial === undefined ? {} : { serial: String(serial) }),
    onReadError: action('rerror') ?? drive.onReadError,
    onWriteError: action('werror') ?? drive.onWriteError,
  };
}
