/**
 * Reads the command line of `vivarium run`: QEMU's options, with one or two dashes. Every option is either taken
 * (option-table.ts) or an error that names it; nothing is passed over.
 */
import { cpuFeatures, cpuModels, deviceModels, logItems, machineTypes } from './catalogue.ts';
import { applyGlobals, findDevice } from './devices.ts';
import { addDrive, connectDrives } from './drives.ts';
import { OptionError } from './keyval.ts';
import { addShort, type Draft, type OptionRow, offered, unavailable } from './option-table.ts';
import type { RunOptions } from './run-options.ts';

/** What the command line asks for: a machine, or text to be printed. */
export type ParsedCommandLine =
  | { readonly kind: 'run'; readonly options: RunOptions }
  | { readonly kind: 'print'; readonly text: string };

const rows = new Map<string, OptionRow>(offered.flatMap((row) => row.names.map((name) => [name, row] as const)));

function emptyDraft(): Draft {
  return {
    name: undefined,
    uuid: '00000000-0000-0000-0000-000000000000',
    machine: 'pc',
    machineProperties: {},
    accelerators: [],
    cpu: { model: 'x86-64-v2', features: [] },
    memoryBytes: 128 << 20,
    smp: { cpus: 1, sockets: 1, cores: 1, threads: 1 },
    kernel: undefined,
    initrd: undefined,
    append: undefined,
    bios: undefined,
    firmwareFolders: [],
    boot: { order: undefined, once: undefined, menu: false },
    drives: [],
    flash: [],
    rtc: { base: 'utc', clock: 'host' },
    icount: undefined,
    chardevs: [],
    serials: [],
    debugcon: undefined,
    monitors: [],
    devices: [],
    rngs: [],
    ioThreads: [],
    vga: 'std',
    vnc: undefined,
    vncByDefault: true,
    onReboot: 'reset',
    onShutdown: 'poweroff',
    startPaused: false,
    restore: undefined,
    pidfile: undefined,
    logItems: [],
    logRanges: [],
    logFile: undefined,
    trace: [],
    escape: 1,
    nodefaults: false,
    nographic: false,
    display: undefined,
    serialGiven: false,
    monitorGiven: false,
    debugconGiven: false,
    shared: new Set(),
    globals: [],
    nextId: {},
    nodes: new Map(),
    snapshot: false,
    flashNodes: [],
  };
}

/** Reads the arguments after `run`. Throws an OptionError. */
export function parseRunOptions(args: readonly string[], version: string): ParsedCommandLine {
  const draft = emptyDraft();
  for (let index = 0; index < args.length; index++) {
    const argument = args[index];
    if (!argument.startsWith('-') || argument === '-') {
      // A file by itself is the first disk.
      addDrive(draft, argument, `file=${argument.replaceAll(',', ',,')}`, { index: 0, media: 'disk' });
      continue;
    }
    const name = argument.replace(/^--?/, '');
    if (name === 'help' || name === 'h') return { kind: 'print', text: helpText() };
    if (name === 'version') return { kind: 'print', text: `Vivarium version ${version}\n` };
    const row = rows.get(name);
    if (row === undefined) throw unknownOption(argument, name);
    let value = '';
    if (row.argument !== undefined) {
      if (index + 1 >= args.length) throw new OptionError(`${argument}: requires an argument`);
      value = args[++index];
      const text = helpFor(name, value);
      if (text !== undefined) return { kind: 'print', text };
    }
    row.apply(draft, value);
  }
  return { kind: 'run', options: finish(draft) };
}

function unknownOption(argument: string, name: string): OptionError {
  const missing = unavailable.get(name);
  if (missing === undefined) return new OptionError(`${argument}: invalid option; -help lists those there are`);
  return new OptionError(
    `${argument}: not in this version${missing.what === 'it' ? '' : ` (it does not have: ${missing.what})`}`,
  );
}

/** What QEMU adds when it is not told otherwise, and the checks that need all options. */
function finish(draft: Draft): RunOptions {
  if (draft.nographic) {
    draft.display ??= 'none';
    if (!draft.nodefaults || draft.serialGiven || draft.monitorGiven) nographicDefaults(draft);
  }
  // A first serial port is always there, unless it is said not to be.
  if (draft.serials.length === 0 && !draft.serialGiven && !draft.nodefaults)
    draft.serials.push(addShort(draft, '-serial', 'null', 'serial'));
  if (draft.nodefaults && draft.vga === 'std' && draft.display === undefined && draft.vnc === undefined) draft.vga = 'none';
  if (draft.vncByDefault) {
    if (draft.display === undefined && !draft.nodefaults && draft.vnc === undefined)
      draft.vnc = { address: { type: 'tcp', host: 'localhost', display: 0, to: 99 }, password: false };
    else draft.vncByDefault = false;
  }
  draft.devices = applyGlobals(draft.devices, draft.globals);
  connectDrives(draft);
  checkChardevs(draft);
  checkDevices(draft);
  if (draft.kernel === undefined)
    for (const [option, value] of [
      ['-initrd', draft.initrd],
      ['-append', draft.append],
    ])
      if (value !== undefined) throw new OptionError(`${option} is only allowed with the -kernel option`);
  const model = cpuModels.find(({ name }) => name === draft.cpu.model);
  if (model?.accelerator === 'kvm' && draft.accelerators[0] !== 'kvm')
    throw new OptionError(`-cpu ${draft.cpu.model}: this CPU model needs -accel kvm`);
  const { nodefaults, nographic, display, serialGiven, monitorGiven, debugconGiven, shared, globals, nextId, ...rest } = draft;
  const { nodes, snapshot, flashNodes, ...options } = rest;
  return options;
}

function nographicDefaults(draft: Draft): void {
  if (!draft.serialGiven && !draft.monitorGiven) draft.serials.push(addShort(draft, '-serial', 'mon:stdio', 'serial'));
  else if (!draft.serialGiven) draft.serials.push(addShort(draft, '-serial', 'stdio', 'serial'));
  else if (!draft.monitorGiven) {
    const usesStdio = draft.chardevs.some(({ backend }) => backend === 'stdio');
    const chardev = usesStdio ? undefined : addShort(draft, '-monitor', 'stdio', 'compat_monitor');
    if (chardev !== undefined) draft.monitors.push({ chardev, mode: 'readline', pretty: false });
  }
  draft.serialGiven = true;
  draft.monitorGiven = true;
}

/** Every character device that is named exists, and no more front ends name it than it takes. */
function checkChardevs(draft: Draft): void {
  const users = new Map<string, string[]>();
  const use = (id: string, by: string): void => {
    if (!draft.chardevs.some((chardev) => chardev.id === id)) throw new OptionError(`${by}: chardev '${id}' not found`);
    users.set(id, [...(users.get(id) ?? []), by]);
  };
  const seen = new Set<string>();
  for (const { id } of draft.chardevs) {
    if (seen.has(id)) throw new OptionError(`-chardev: Duplicate ID '${id}' for chardev`);
    seen.add(id);
  }
  if (draft.chardevs.filter(({ backend }) => backend === 'stdio').length > 1)
    throw new OptionError('cannot use stdio by multiple character devices');
  for (const [index, id] of draft.serials.entries()) if (id !== undefined) use(id, `-serial (port ${index + 1})`);
  if (draft.debugcon !== undefined) use(draft.debugcon, '-debugcon');
  for (const { chardev, mode } of draft.monitors) use(chardev, mode === 'control' ? '-qmp' : '-monitor');
  for (const { model, properties } of draft.devices)
    if (typeof properties.chardev === 'string') use(properties.chardev, `-device ${model}`);
  for (const [id, names] of users) {
    const mux = draft.chardevs.find((chardev) => chardev.id === id)?.mux ?? false;
    const limit = mux ? 4 : 1;
    if (names.length > limit)
      throw new OptionError(
        `${names[limit]}: Device '${id}' is in use by ${names[0]}${mux ? ' and others' : '; mux=on lets several share it'}`,
      );
  }
}

function checkDevices(draft: Draft): void {
  const ids = new Set<string>();
  for (const { model, id, properties } of draft.devices) {
    if (id !== undefined && ids.has(id)) throw new OptionError(`-device ${model}: Duplicate device ID '${id}'`);
    if (id !== undefined) ids.add(id);
    if (typeof properties.iothread === 'string' && !draft.ioThreads.includes(properties.iothread))
      throw new OptionError(`-device ${model}: object '${properties.iothread}' not found`);
    if (typeof properties.rng === 'string' && !draft.rngs.includes(properties.rng))
      throw new OptionError(`-device ${model}: object '${properties.rng}' not found`);
    if (findDevice(model)?.bus === 'virtio-serial-bus' && !draft.devices.some((other) => other.model === 'virtio-serial-pci'))
      throw new OptionError(
        `-device ${model}: No 'virtio-serial-bus' bus found for device '${model}'; add -device virtio-serial-pci before it`,
      );
  }
}

function helpFor(name: string, value: string): string | undefined {
  if (name === 'device' && /,(help|\?)$/.test(value)) return devicePropertyHelp(value.replace(/,(help|\?)$/, ''));
  if (value !== 'help' && value !== '?') return undefined;
  switch (name) {
    case 'device':
      return deviceHelp();
    case 'machine':
    case 'M':
      return `Supported machines are:\n${machineTypes.map((type) => `${type.name.padEnd(20)} ${type.description}${type.default ? ' (default)' : ''}\n`).join('')}`;
    case 'cpu':
      return `Available CPUs:\n${cpuModels.map((model) => `x86 ${model.name.padEnd(20)}  ${model.description}\n`).join('')}\nRecognized CPUID flags:\n${wrap(cpuFeatures)}`;
    case 'd':
      return `Log items (comma separated):\n${Object.entries(logItems)
        .map(([item, help]) => `${item.padEnd(15)} ${help}\n`)
        .join('')}trace:PATTERN   the trace events that match\n`;
    case 'accel':
      return 'Accelerators supported:\njit (also tcg)\nkvm\n';
    case 'chardev':
      return 'Available chardev backend types:\n  null\n  stdio\n  file\n  pipe\n  ringbuf\n  socket\n';
    case 'object':
      return 'List of user creatable objects:\n  iothread\n  rng-builtin\n  rng-random\n';
    case 'vga':
      return 'none                 no graphic card\nstd                  standard VGA (default)\n';
  }
  return undefined;
}

function wrap(words: readonly string[]): string {
  const lines: string[] = [];
  let line = ' ';
  for (const word of words) {
    if (line.length + word.length > 75) {
      lines.push(line);
      line = ' ';
    }
    line += ` ${word}`;
  }
  return `${[...lines, line].join('\n')}\n`;
}

function deviceHelp(): string {
  const categories = [...new Set(deviceModels.map(({ category }) => category))];
  return categories
    .map(
      (category) =>
        `${category}:\n${deviceModels
          .filter((model) => model.category === category)
          .map(({ name, bus, description }) => `name "${name}", bus ${bus}, desc "${description}"\n`)
          .join('')}`,
    )
    .join('\n');
}

function devicePropertyHelp(name: string): string {
  const model = findDevice(name);
  if (model === undefined) throw new OptionError(`-device ${name},help: '${name}' is not a valid device model name`);
  const lines = Object.entries(model.properties).map(([key, { type, default: value, help }]) => {
    const shown = typeof value === 'number' && value > 255 ? `0x${value.toString(16)}` : value;
    return `  ${`${key}=<${type}>`.padEnd(24)} - ${help}${value === undefined ? '' : ` (default: ${shown})`}\n`;
  });
  return `${model.name} options:\n${lines.join('')}`;
}

/** The text of `-help`, made from the table. */
export function helpText(): string {
  const groups = [...new Set(offered.map(({ group }) => group))];
  const sections = groups.map((group) => {
    const lines = offered
      .filter((row) => row.group === group)
      .map(({ names, argument, help }) => {
        const left = `-${names.join(', -')}${argument === undefined ? '' : ` ${argument}`}`;
        return left.length < 32 ? `  ${left.padEnd(32)}${help}\n` : `  ${left}\n${' '.repeat(34)}${help}\n`;
      });
    return `${group}:\n${lines.join('')}`;
  });
  return `usage: vivarium run [options]\n\n${sections.join('\n')}\n  -help, -h                       this text\n  -version                        the version\n`;
}
