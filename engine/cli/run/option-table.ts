/**
 * QEMU's command-line options. `offered` has a row for each that this version takes: its argument, its help, and
 * what it does to the options so far. `unavailable` names the others, so that each gets an answer of its own.
 */

import type { SocketAddress } from '../../host/chardev-types.ts';
import { findMachineType, logItems, machineProperties } from './catalogue.ts';
import { parseChardev, parseChardevShort } from './chardevs.ts';
import { parseCpu, parseDevice, parseGlobal } from './devices.ts';
import { addBlockdev, addDrive, type BlockdevNode } from './drives.ts';
import { Keyval, OptionError } from './keyval.ts';
import type { Accelerator, RunOptions } from './run-options.ts';

/** What is gathered while options are read, beside the result. */
export interface Draft extends RunOptions {
  nodefaults: boolean;
  nographic: boolean;
  display: string | undefined;
  serialGiven: boolean;
  monitorGiven: boolean;
  debugconGiven: boolean;
  /** Chardev ids that `mon:` or `mux=on` shares with the monitor. */
  shared: Set<string>;
  globals: { driver: string; property: string; value: string }[];
  nextId: Record<string, number>;
  /** `-blockdev` nodes by name. */
  nodes: Map<string, BlockdevNode>;
  /** `-snapshot`. */
  snapshot: boolean;
  /** `-machine pflash0=NODE,pflash1=NODE`. */
  flashNodes: (string | undefined)[];
}

export interface OptionRow {
  readonly names: readonly string[];
  /** How help shows the argument; undefined: the option takes none. */
  readonly argument?: string;
  readonly group: string;
  readonly help: string;
  readonly apply: (draft: Draft, value: string) => void;
}

/** A limit for numbers that would otherwise be absurd. */
export const maxVcpus = 64;

function setMemory(draft: Draft, value: string): void {
  const keys = new Keyval(`-m ${value}`, value, 'size');
  const size = keys.size('size', 1 << 20);
  for (const key of ['slots', 'maxmem'])
    if (keys.has(key)) throw keys.error(`'${key}' (memory that is added while the machine runs) is not in this version`);
  keys.finish();
  if (size === undefined) throw keys.error("Parameter 'size' is missing");
  if (size < 1 << 20) throw keys.error('a machine needs 1 MiB of memory at least');
  // QEMU rounds the size up to 8 KiB; pages of 4 KiB are enough here.
  draft.memoryBytes = Math.ceil(size / 4096) * 4096;
}

function setSmp(draft: Draft, value: string): void {
  const keys = new Keyval(`-smp ${value}`, value, 'cpus');
  const count = (key: string): number | undefined => keys.integer(key, 1, 4096);
  const [cpus, maxcpus, sockets, cores, threads, dies, clusters] = [
    'cpus',
    'maxcpus',
    'sockets',
    'cores',
    'threads',
    'dies',
    'clusters',
  ].map(count);
  keys.finish();
  for (const [name, given] of Object.entries({ dies, clusters }))
    if ((given ?? 1) !== 1) throw keys.error(`'${name}' other than 1 is not in this version`);
  const total = cpus ?? maxcpus ?? (sockets ?? 1) * (cores ?? 1) * (threads ?? 1);
  if (maxcpus !== undefined && maxcpus !== total)
    throw keys.error("'maxcpus' other than the number of CPUs is not in this version (it has no CPU hot-plug)");
  // What is not given is filled up: cores first, then sockets, then threads, as QEMU does since 6.2.
  const each = { sockets: sockets ?? 0, cores: cores ?? 0, threads: threads ?? 0 };
  if (each.cores === 0) {
    each.sockets ||= 1;
    each.threads ||= 1;
    each.cores = Math.floor(total / (each.sockets * each.threads));
  } else if (each.sockets === 0) {
    each.threads ||= 1;
    each.sockets = Math.floor(total / (each.cores * each.threads));
  } else each.threads ||= Math.floor(total / (each.cores * each.sockets));
  if (each.sockets * each.cores * each.threads !== total)
    throw keys.error(
      `sockets (${each.sockets}) * cores (${each.cores}) * threads (${each.threads}) is not the number of CPUs (${total})`,
    );
  if (total > maxVcpus) throw keys.error(`this version has at most ${maxVcpus} CPUs`);
  draft.smp = { cpus: total, ...each };
}

function setAccelerator(keys: Keyval, names: string): Accelerator[] {
  return names.split(':').map((name) => {
    if (name === 'tcg' || name === 'jit') return 'jit';
    if (name === 'kvm') return 'kvm';
    throw keys.error(`accelerator '${name}' is not in this version (jit, kvm)`);
  });
}

function setMachine(draft: Draft, option: string, value: string): void {
  const keys = new Keyval(`${option} ${value}`, value, 'type');
  const type = keys.text('type');
  const found = type === undefined ? 'pc' : findMachineType(type);
  if (found === undefined) throw keys.error(`unsupported machine type '${type}'; use -machine help to list those there are`);
  if (found === 'unavailable') throw keys.error(`machine type '${type}' is not in this version; it has pc and q35`);
  draft.machine = found;
  const accelerator = keys.text('accel');
  if (accelerator !== undefined) draft.accelerators = setAccelerator(keys, accelerator);
  draft.flashNodes = [keys.text('pflash0') ?? draft.flashNodes[0], keys.text('pflash1') ?? draft.flashNodes[1]];
  for (const key of keys.rest) {
    if (!Object.hasOwn(machineProperties, key)) throw keys.error(`Property '${key}' is not in this version`);
    const allowed = machineProperties[key];
    const given = keys.flag(key) ? 'on' : 'off';
    if (!allowed.includes(given)) throw keys.error(`'${key}=${given}' is not in this version`);
    draft.machineProperties[key] = given;
  }
}

function setAccelOption(draft: Draft, value: string): void {
  const keys = new Keyval(`-accel ${value}`, value, 'accel');
  const [accelerator] = setAccelerator(keys, keys.required('accel'));
  keys.choice('thread', ['multi']);
  if (accelerator === 'jit') keys.size('tb-size');
  keys.finish();
  // Several -accel options are tried in order.
  draft.accelerators.push(accelerator);
}

function setBoot(draft: Draft, value: string): void {
  const keys = new Keyval(`-boot ${value}`, value, 'order');
  const devices = (key: 'order' | 'once'): string | undefined => {
    const letters = keys.text(key);
    const bad = letters === undefined ? undefined : /[^a-p]/.exec(letters)?.[0];
    if (bad !== undefined) throw keys.error(`Invalid boot device '${bad}'`);
    if (letters !== undefined && new Set(letters).size !== letters.length) throw keys.error(`'${key}' names a boot device twice`);
    return letters;
  };
  const order = devices('order');
  const once = devices('once');
  const menu = keys.flag('menu');
  for (const key of ['splash', 'splash-time', 'reboot-timeout', 'strict'])
    if (keys.has(key) && keys.text(key) !== 'off') throw keys.error(`'${key}' is not in this version`);
  keys.finish();
  draft.boot = { order: order ?? draft.boot.order, once: once ?? draft.boot.once, menu: menu ?? draft.boot.menu };
}

function setRtc(draft: Draft, value: string): void {
  const keys = new Keyval(`-rtc ${value}`, value);
  const base = keys.text('base') ?? draft.rtc.base;
  const clock = keys.choice('clock', ['host', 'vm']) ?? draft.rtc.clock;
  keys.choice('driftfix', ['none']);
  keys.finish();
  if (base !== 'utc' && base !== 'localtime') {
    const valid = /^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?$/.test(base) && !Number.isNaN(Date.parse(base));
    if (!valid)
      throw keys.error("invalid datetime format; valid formats: 'utc', 'localtime', '2006-06-17T16:01:21', '2006-06-17'");
  }
  draft.rtc = { base: base.includes('T') ? `${base}Z` : base, clock };
}

function setIcount(draft: Draft, value: string): void {
  const keys = new Keyval(`-icount ${value}`, value.includes('=') ? value : `shift=${value}`);
  const shift = keys.text('shift') ?? '0';
  if (!/^(\d|10)$/.test(shift)) throw keys.error(`shift is a number from 0 to 10; 'auto' is not in this version`);
  // Time always jumps where the CPU halts: to wait instead would only take longer.
  keys.choice('sleep', ['off']);
  keys.choice('align', ['off']);
  if (keys.has('rrsnapshot')) throw keys.error(`'rrsnapshot' is not in this version`);
  const mode = keys.choice('rr', ['record', 'replay']);
  const file = keys.text('rrfile') ?? 'replay.bin';
  keys.finish();
  draft.icount = { shift: Number(shift), ...(mode === undefined ? {} : { replay: { mode, file } }) };
}

function newId(draft: Draft, prefix: string): string {
  const number = draft.nextId[prefix] ?? 0;
  draft.nextId[prefix] = number + 1;
  return `${prefix}${number}`;
}

/** Takes a short form, adds its back end, and returns the id (undefined for `none`). */
export function addShort(draft: Draft, option: string, value: string, prefix: string): string | undefined {
  const reference = parseChardevShort(option, value, newId(draft, prefix));
  if (reference.kind === 'none') return undefined;
  if (reference.kind === 'id') return reference.id;
  draft.chardevs.push(reference.options);
  if (reference.mux) {
    draft.shared.add(reference.options.id);
    draft.monitors.push({ chardev: reference.options.id, mode: 'readline', pretty: false });
    draft.monitorGiven = true;
  }
  return reference.options.id;
}

function addMonitor(draft: Draft, option: string, value: string, mode: 'readline' | 'control', pretty = false): void {
  if (mode === 'readline') draft.monitorGiven = true;
  if (value === 'none') return;
  const chardev = addShort(draft, option, value, mode === 'control' ? 'compat_monitor_qmp' : 'compat_monitor');
  if (chardev !== undefined) draft.monitors.push({ chardev, mode, pretty });
}

function addMon(draft: Draft, value: string): void {
  const keys = new Keyval(`-mon ${value}`, value, 'chardev');
  const chardev = keys.required('chardev');
  const mode = keys.choice('mode', ['readline', 'control']) ?? 'readline';
  const pretty = keys.flag('pretty') ?? false;
  keys.finish();
  if (mode === 'readline') draft.monitorGiven = true;
  draft.monitors.push({ chardev, mode, pretty });
}

function setVnc(draft: Draft, value: string): void {
  draft.vncByDefault = false;
  const keys = new Keyval(`-vnc ${value}`, value, 'vnc');
  const where = keys.required('vnc');
  for (const key of [
    'websocket',
    'reverse',
    'tls-creds',
    'tls-authz',
    'sasl',
    'sasl-authz',
    'acl',
    'audiodev',
    'password-secret',
  ])
    if (keys.has(key) && keys.text(key) !== 'off') throw keys.error(`'${key}' is not in this version`);
  const to = keys.integer('to', 0, 59_635) ?? 0;
  const password = keys.flag('password') ?? false;
  keys.choice('share', ['allow-exclusive']);
  for (const key of ['lossy', 'non-adaptive', 'lock-key-sync', 'power-control'])
    if (keys.flag(key)) throw keys.error(`'${key}=on' is not in this version`);
  keys.finish();
  if (where === 'none') {
    draft.vnc = undefined;
    draft.display ??= 'none';
    return;
  }
  if (where.startsWith('unix:')) {
    if (where === 'unix:') throw keys.error('a path is needed after unix:');
    draft.vnc = { address: { type: 'unix', path: where.slice(5) }, password };
    return;
  }
  const match = /^(\[[^\]]*\]|[^:]*):(\d+)$/.exec(where);
  if (match === null) throw keys.error('no vnc port specified: HOST:DISPLAY, unix:PATH or none expected');
  const display = Number(match[2]);
  if (display > 59_635) throw keys.error(`display ${display} is beyond the last port`);
  draft.vnc = { address: { type: 'tcp', host: match[1].replace(/^\[|\]$/g, ''), display, to }, password };
}

function setDisplay(draft: Draft, value: string): void {
  if (value === 'none') draft.display = 'none';
  else if (/^vnc=/.test(value)) {
    draft.display = 'vnc';
    setVnc(draft, value.slice(4));
  } else
    throw new OptionError(`-display ${value}: this version has 'none' and 'vnc=HOST:DISPLAY'; the app shows machines in windows`);
}

function addObject(draft: Draft, value: string): void {
  const keys = new Keyval(`-object ${value}`, value, 'qom-type');
  const type = keys.required('qom-type');
  if (type !== 'rng-random' && type !== 'rng-builtin' && type !== 'iothread')
    throw keys.error(`object '${type}' is not in this version (rng-random, rng-builtin, iothread)`);
  const id = keys.required('id');
  if (type === 'rng-random') keys.choice('filename', ['/dev/urandom', '/dev/random']);
  keys.finish();
  if (draft.rngs.includes(id) || draft.ioThreads.includes(id)) throw keys.error(`Duplicate ID '${id}' for object`);
  (type === 'iothread' ? draft.ioThreads : draft.rngs).push(id);
}

function setAction(draft: Draft, value: string): void {
  const keys = new Keyval(`-action ${value}`, value);
  draft.onReboot = keys.choice('reboot', ['reset', 'shutdown']) ?? draft.onReboot;
  draft.onShutdown = keys.choice('shutdown', ['poweroff', 'pause']) ?? draft.onShutdown;
  keys.choice('panic', ['pause']);
  keys.finish();
}

function setLog(draft: Draft, value: string): void {
  for (const item of value.split(',')) {
    if (item.startsWith('trace:')) draft.trace.push(item.slice(6));
    else if (!Object.hasOwn(logItems, item))
      throw new OptionError(
        `-d ${value}: log item '${item}' is not in this version; there are ${Object.keys(logItems).join(', ')} and trace:PATTERN (-d help says what they are)`,
      );
    else if (!draft.logItems.includes(item)) draft.logItems.push(item);
  }
}

/** `-dfilter`: ranges of addresses, `start..end`, `start+length` or `start-length` (the last bytes up to start). */
function setFilter(draft: Draft, value: string): void {
  const limit = 1n << 64n;
  for (const range of value.split(',')) {
    const match = /^(0x[0-9a-f]+|\d+)(\+|-|\.\.)(0x[0-9a-f]+|\d+)$/i.exec(range);
    if (match === null)
      throw new OptionError(`-dfilter ${value}: '${range}' is no range; start..end, start+length or start-length expected`);
    // As in C a leading zero means octal.
    const number = (text: string): bigint => BigInt(/^0[0-7]+$/.test(text) ? `0o${text.slice(1)}` : text);
    const [start, other] = [number(match[1]), number(match[3])];
    const first = match[2] === '-' ? start - other + 1n : start;
    const last = match[2] === '+' ? start + other - 1n : match[2] === '-' ? start : other;
    if (first < 0n || last >= limit || first > last) throw new OptionError(`-dfilter ${value}: '${range}' has no addresses`);
    draft.logRanges.push({ first, last });
  }
}

function setTrace(draft: Draft, value: string): void {
  const keys = new Keyval(`-trace ${value}`, value, 'enable');
  const enable = keys.text('enable');
  const file = keys.text('file');
  if (keys.has('events')) throw keys.error("'events' is not in this version; give -trace once for each pattern");
  keys.finish();
  if (enable !== undefined) draft.trace.push(enable);
  if (file !== undefined) draft.logFile = file;
}

function only(option: string, draft: (value: string) => boolean, otherwise: string) {
  return (_draft: Draft, value: string): void => {
    if (!draft(value)) throw new OptionError(`${option} ${value}: ${otherwise}`);
  };
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const row = (group: string, names: string, argument: string | undefined, help: string, apply: OptionRow['apply']): OptionRow => ({
  names: names.split('|'),
  argument,
  group,
  help,
  apply,
});

const standard = 'Standard options';
const disks = 'Disks';
const boot = 'Boot options';
const display = 'Display options';
const character = 'Character devices';
const debug = 'Debug options';

/** A file name as the value of `file=`, whatever commas it has. */
const fileWord = (value: string): string => `file=${value.replaceAll(',', ',,')}`;

export const offered: readonly OptionRow[] = [
  row(standard, 'machine|M', '[type=]name[,prop=value...]', 'the machine type (-machine help lists them)', (draft, value) =>
    setMachine(draft, '-machine', value),
  ),
  row(standard, 'cpu', 'model[,+feature][,-feature]', 'the CPU (-cpu help lists models and features)', parseCpu),
  row(standard, 'accel', 'name', 'the accelerator: jit (also tcg) or kvm; several are tried in order', setAccelOption),
  row(standard, 'enable-kvm', undefined, 'the same as -accel kvm', (draft) => {
    draft.accelerators = ['kvm'];
  }),
  row(standard, 'smp', '[cpus=]n[,sockets=n][,cores=n][,threads=n]', 'CPUs and how they are arranged', setSmp),
  row(standard, 'm', '[size=]megabytes', 'memory; suffixes M and G', setMemory),
  row(standard, 'name', 'name', 'the name of the machine', (draft, value) => {
    const keys = new Keyval(`-name ${value}`, value, 'guest');
    draft.name = keys.text('guest') ?? draft.name;
    keys.text('process');
    keys.flag('debug-threads');
    keys.finish();
  }),
  row(standard, 'uuid', 'uuid', 'the UUID of the machine', (draft, value) => {
    if (!uuidPattern.test(value)) throw new OptionError(`-uuid ${value}: failed to parse UUID string: wrong format`);
    draft.uuid = value.toLowerCase();
  }),
  row(
    standard,
    'device',
    'model[,prop=value...]',
    'adds a device (-device help lists them, -device MODEL,help its properties)',
    (draft, value) => {
      draft.devices.push(parseDevice(value));
    },
  ),
  row(standard, 'object', 'type,id=id[,prop=value...]', 'makes an object: rng-random, rng-builtin, iothread', addObject),
  row(standard, 'global', 'driver.prop=value', 'sets a property of all devices of a model', (draft, value) => {
    draft.globals.push(parseGlobal(value));
  }),
  row(standard, 'rtc', '[base=utc|localtime|datetime][,clock=host|vm]', 'the clock of the guest', setRtc),
  row(
    standard,
    'icount',
    'shift=N[,sleep=off][,rr=record|replay,rrfile=F]',
    'time is the instruction count: 2^N ns each, one CPU',
    setIcount,
  ),
  row(standard, 'nodefaults', undefined, 'no devices but those named', (draft) => {
    draft.nodefaults = true;
  }),
  row(standard, 'no-user-config', undefined, 'accepted: there are no such files', () => {}),
  row(disks, 'drive', '[file=file][,if=type][,media=disk|cdrom][,...]', 'a disk, CD or firmware flash', (draft, value) =>
    addDrive(draft, '-drive', value),
  ),
  row(
    disks,
    'blockdev',
    '[driver=]driver,node-name=name[,...]',
    'an image for a device to use: file, host_device, nbd, raw, qcow2, luks, vmdk, vdi, vhdx, vpc',
    addBlockdev,
  ),
  ...['hda', 'hdb', 'hdc', 'hdd'].map((name, index) =>
    row(disks, name, 'file', `the same as -drive index=${index},media=disk,file=...`, (draft, value) =>
      addDrive(draft, `-${name}`, fileWord(value), { index, media: 'disk' }),
    ),
  ),
  ...['fda', 'fdb'].map((name, index) =>
    row(disks, name, 'file', `the same as -drive if=floppy,index=${index},file=...`, (draft, value) =>
      addDrive(draft, `-${name}`, fileWord(value), { if: 'floppy', index }),
    ),
  ),
  row(disks, 'cdrom', 'file', 'the same as -drive index=2,media=cdrom,file=...', (draft, value) =>
    addDrive(draft, '-cdrom', fileWord(value), { index: 2, media: 'cdrom' }),
  ),
  row(disks, 'pflash', 'file', 'the same as -drive if=pflash,format=raw,file=...', (draft, value) =>
    addDrive(draft, '-pflash', fileWord(value), { if: 'pflash' }),
  ),
  row(disks, 'snapshot', undefined, 'what the guest writes to its disks goes to temporary files', (draft) => {
    draft.snapshot = true;
  }),
  row(boot, 'kernel', 'file', 'a kernel to start: bzImage, multiboot or PVH ELF', (draft, value) => {
    draft.kernel = value;
  }),
  row(boot, 'initrd', 'file', "the kernel's initial RAM disk", (draft, value) => {
    draft.initrd = value;
  }),
  row(boot, 'append', 'cmdline', "the kernel's command line", (draft, value) => {
    draft.append = value;
  }),
  row(boot, 'bios', 'file', 'the firmware', (draft, value) => {
    draft.bios = value;
  }),
  row(boot, 'L', 'path', 'a folder to look for firmware in', (draft, value) => {
    draft.firmwareFolders.push(value);
  }),
  row(boot, 'boot', '[order=drives][,once=drives][,menu=on|off]', 'what the firmware starts', setBoot),
  row(display, 'display', 'none|vnc=host:n', 'how the screen is shown', setDisplay),
  row(display, 'nographic', undefined, 'no screen; the first serial port and the monitor on this terminal', (draft) => {
    draft.nographic = true;
  }),
  row(display, 'vga', 'std|none', 'the graphics card', (draft, value) => {
    if (value !== 'std' && value !== 'none') throw new OptionError(`-vga ${value}: this version has std and none`);
    draft.vga = value;
  }),
  row(display, 'vnc', 'host:n|unix:path|none[,password=on][,to=n]', 'a VNC server on display n (port 5900 + n)', setVnc),
  row(
    display,
    'k',
    'language',
    'the keyboard layout of VNC clients that send no key codes: en-us',
    only('-k', (value) => value === 'en-us', 'this version has en-us'),
  ),
  row(
    character,
    'chardev',
    'backend,id=id[,...]',
    'a character device: null, stdio, file, pipe, ringbuf, socket',
    (draft, value) => {
      draft.chardevs.push(parseChardev(value));
    },
  ),
  row(
    character,
    'serial',
    'dev',
    'the next serial port: stdio, mon:stdio, file:, pipe:, unix:, tcp:, chardev:, null, none',
    (draft, value) => {
      draft.serialGiven = true;
      if (draft.serials.length >= 4) throw new OptionError(`-serial ${value}: a machine has four serial ports at most`);
      draft.serials.push(addShort(draft, '-serial', value, 'serial'));
    },
  ),
  row(
    character,
    'parallel',
    'none',
    'parallel ports: there are none',
    only('-parallel', (value) => value === 'none', 'parallel ports are not in this version'),
  ),
  row(character, 'monitor', 'dev', 'the human monitor on a character device', (draft, value) =>
    addMonitor(draft, '-monitor', value, 'readline'),
  ),
  row(character, 'qmp', 'dev', 'a QMP monitor on a character device', (draft, value) =>
    addMonitor(draft, '-qmp', value, 'control'),
  ),
  row(character, 'qmp-pretty', 'dev', 'the same with indented answers', (draft, value) =>
    addMonitor(draft, '-qmp-pretty', value, 'control', true),
  ),
  row(character, 'mon', '[chardev=]id[,mode=readline|control]', 'a monitor on a character device by id', addMon),
  row(character, 'debugcon', 'dev', 'the debug port 0xe9 on a character device', (draft, value) => {
    if (draft.debugcon !== undefined) throw new OptionError(`-debugcon ${value}: given twice`);
    draft.debugcon = addShort(draft, '-debugcon', value, 'debugcon');
  }),
  row(character, 'echr', 'code', 'the escape character of multiplexers (1 is Ctrl-A)', (draft, value) => {
    const code = /^(0x[0-9a-f]+|\d+)$/i.test(value) ? Number(value) : 0;
    if (code < 1 || code > 255) throw new OptionError(`-echr ${value}: a character code from 1 to 255 expected`);
    draft.escape = code;
  }),
  row(
    'Network, sound, USB',
    'net',
    'none',
    'no network',
    only('-net', (value) => value === 'none', 'networks are not in this version'),
  ),
  row(
    'Network, sound, USB',
    'nic',
    'none',
    'no network',
    only('-nic', (value) => value === 'none', 'networks are not in this version'),
  ),
  row(
    'Network, sound, USB',
    'audio',
    'none',
    'no sound',
    only('-audio', (value) => /^(driver=)?none$/.test(value), 'sound is not in this version'),
  ),
  row(
    'Network, sound, USB',
    'audiodev',
    'none,id=id',
    'no sound',
    only('-audiodev', (value) => /^(driver=)?none(,id=[\w-]+)?$/.test(value), 'sound is not in this version'),
  ),
  row(debug, 'S', undefined, 'do not start the CPUs; a monitor says cont', (draft) => {
    draft.startPaused = true;
  }),
  row(debug, 'gdb', 'tcp:[host]:port|unix:path|none', 'waits for gdb there (target remote)', (draft, value) => {
    draft.gdb = gdbAddress(value);
  }),
  row(debug, 's', undefined, 'the same as -gdb tcp::1234', (draft) => {
    draft.gdb = gdbAddress('tcp::1234');
  }),
  row(debug, 'no-reboot', undefined, 'end instead of restarting', (draft) => {
    draft.onReboot = 'shutdown';
  }),
  row(debug, 'no-shutdown', undefined, 'stop the machine instead of ending when the guest powers off', (draft) => {
    draft.onShutdown = 'pause';
  }),
  row(debug, 'action', 'reboot=reset|shutdown,shutdown=poweroff|pause', 'what follows what the guest does', setAction),
  row(debug, 'no-hpet', undefined, 'the same as -machine hpet=off', (draft) => {
    draft.machineProperties.hpet = 'off';
  }),
  row(debug, 'loadvm', 'tag', 'goes on from a snapshot that savevm made', (draft, value) => {
    draft.restore = { kind: 'snapshot', name: value };
  }),
  row(
    debug,
    'incoming',
    'file:path|defer',
    'goes on from what "migrate file:path" saved; defer: when migrate-incoming says so',
    (draft, value) => {
      if (value === 'defer') {
        draft.startPaused = true;
        return;
      }
      const match = /^file:(?:\/\/(?=\/))?(.+)$/.exec(value);
      if (match === null)
        throw new OptionError(`-incoming ${value}: the state of a machine comes from a file (file:path), or defer`);
      draft.restore = { kind: 'file', path: match[1] };
    },
  ),
  row(debug, 'pidfile', 'file', 'writes the id of this process to a file', (draft, value) => {
    draft.pidfile = value;
  }),
  row(debug, 'd', 'item1,...', 'logs items (-d help lists them)', setLog),
  row(debug, 'dfilter', 'range,...', 'logs of -d that are about code are about that at these addresses only', setFilter),
  row(debug, 'D', 'file', 'the log goes to a file instead of standard error', (draft, value) => {
    draft.logFile = value;
  }),
  row(debug, 'trace|trace-events', '[enable=]pattern[,file=file]', 'traces the events that match', setTrace),
];

/** `-gdb DEVICE`. */
function gdbAddress(value: string): SocketAddress | undefined {
  if (value === 'none') return undefined;
  const unix = /^unix:([^,]+)((,(server|wait)(=on|=off)?|,nowait)*)$/.exec(value);
  if (unix !== null) return { type: 'unix', path: unix[1] };
  const tcp = /^tcp:([^,]*):(\d{1,5})((,(server|wait|nodelay)(=on|=off)?|,nowait)*)$/.exec(value);
  if (tcp === null || Number(tcp[2]) > 65535) throw new OptionError(`-gdb ${value}: tcp:[HOST]:PORT, unix:PATH or none expected`);
  return { type: 'tcp', host: tcp[1].replace(/^\[(.*)\]$/, '$1'), port: Number(tcp[2]) };
}

/** Options of QEMU that this version has not: what is missing, and whether an argument follows (`=`). */
const missing: Readonly<Record<string, string>> = {
  'shared folders, SD cards and iSCSI': 'mtdblock= sd= iscsi= fsdev= virtfs= no-fd-bootchk win2k-hack',
  networks: 'netdev= smb= tftp= bootp= redir=',
  USB: 'usb usbdevice=',
  sound: 'soundhw= audio-help',
  'migration between hosts': 'only-migratable dump-vmstate=',
  'SPICE and windows of its own': 'spice= curses sdl full-screen g= rotate= portrait alt-grab ctrl-grab no-quit no-frame',
  Xen: 'xen-domid= xen-attach xen-domid-restrict',
  'a TPM': 'tpmdev=',
  'NUMA and memory back ends': 'numa= mem-path= mem-prealloc overcommit=',
  'added ACPI and SMBIOS tables': 'acpitable= smbios= no-acpi',
  'plugins and what debugs a translator': 'plugin= singlestep seed= perfmap jitdump enable-sync-profile',
  'option files': 'readconfig= writeconfig= set= compat=',
  'running in the background and as another user': 'daemonize chroot= runas= run-with= sandbox= add-fd= async-teardown',
  this: 'fw_cfg= option-rom= dtb= watchdog= watchdog-action= msg= preconfig semihosting semihosting-config= prom-env= virtioconsole= tb-size= balloon= bt= show-cursor no-kvm no-kvm-irqchip nouserconfig shim= device-class=',
};

export const unavailable: ReadonlyMap<string, { readonly what: string; readonly argument: boolean }> = new Map(
  Object.entries(missing).flatMap(([what, names]) =>
    names
      .split(' ')
      .map((name) => [name.replace('=', ''), { what: what === 'this' ? 'it' : what, argument: name.endsWith('=') }] as const),
  ),
);
