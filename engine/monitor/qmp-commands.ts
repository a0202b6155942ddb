/**
 * The commands of QMP that every machine has. Names, arguments and returns as QEMU's QAPI documents them
 * (qapi/control, machine, misc, run-state, ui, char, trace).
 */
import { keyNames, keyOfNumber, type QKeyCode } from '../bus/keys.ts';
import { isQKeyCode } from './keys.ts';
import { type Chardev, type InputEvent, type MachineControl, MonitorError } from './machine-control.ts';
import { readVirtual } from './page-tables.ts';
import type { QmpServer } from './qmp.ts';

/** What the standard commands need beside the machine. */
export interface MonitorEnvironment {
  readonly machine: MachineControl;
  readonly chardevs: ReadonlyMap<string, Chardev>;
  /** Runs a line of the human monitor and returns what it prints. */
  humanMonitor(line: string, cpu: number | undefined): Promise<string>;
  /** Writes a file of the host; rejects with a message that says what failed. */
  writeFile(path: string, parts: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void>;
}

const chunkBytes = 1 << 16;
const mouseButtons = ['left', 'middle', 'right', 'wheel-up', 'wheel-down', 'side', 'extra', 'wheel-left', 'wheel-right'] as const;
const keyValue = { union: { number: 'int', qcode: { enum: keyNames } } } as const;
const axis = { enum: ['x', 'y'] } as const;
const move = { struct: { axis, value: 'int' } } as const;
const inputEvent = {
  union: {
    key: { struct: { key: keyValue, down: 'bool' } },
    btn: { struct: { button: { enum: mouseButtons }, down: 'bool' } },
    rel: move,
    abs: move,
  },
} as const;

function keyOf(value: { type: 'number'; data: number } | { type: 'qcode'; data: string }): QKeyCode {
  if (value.type === 'qcode') return isQKeyCode(value.data) ? value.data : 'unmapped';
  const key = keyOfNumber(value.data);
  if (key === undefined) throw new MonitorError(`No key has the number ${value.data}`);
  return key;
}

/** Physical memory in chunks, for pmemsave. */
export function* physicalChunks(machine: MachineControl, address: number, length: number): Iterable<Uint8Array> {
  for (let done = 0; done < length; done += chunkBytes)
    yield machine.readPhysical(address + done, Math.min(chunkBytes, length - done));
}

/** Memory at linear addresses of a vCPU in chunks, for memsave; throws where nothing is mapped. */
export async function* virtualChunks(
  machine: MachineControl,
  cpu: number,
  address: bigint,
  length: number,
): AsyncIterable<Uint8Array> {
  const registers = await machine.registers(cpu);
  for (let done = 0; done < length; ) {
    const at = address + BigInt(done);
    const bytes = readVirtual(
      registers,
      machine.readPhysical.bind(machine),
      at,
      Math.min(4096 - Number(at & 0xfffn), length - done),
    );
    if (bytes === undefined)
      throw new MonitorError(`Invalid addr 0x${at.toString(16).padStart(16, '0')}/size ${length} specified`);
    yield bytes;
    done += bytes.length;
  }
}

function checkCpu(machine: MachineControl, cpu: number): number {
  if (!machine.vcpus().some(({ index }) => index === cpu))
    throw new MonitorError("Parameter 'cpu-index' expects a CPU number", 'GenericError');
  return cpu;
}

/** Bytes that a save command may write: what a number holds exactly. */
function checkSize(size: bigint): number {
  if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new MonitorError("Parameter 'size' is too large");
  return Number(size);
}

export function registerStandardCommands(server: QmpServer, environment: MonitorEnvironment): void {
  registerProtocol(server);
  registerMachine(server, environment);
  registerMemory(server, environment);
  registerInput(server, environment);
  registerQueries(server, environment);
}

function registerProtocol(server: QmpServer): void {
  server.register('qmp_capabilities', { '*enable': { array: { enum: ['oob'] } } }, ({ enable }, session) => {
    if (enable !== undefined && enable.length > 0 && !session.negotiated)
      throw new MonitorError(`Capability '${enable[0]}' is not available`);
    session.negotiate();
  });
  server.register('query-commands', {}, () => server.commandNames.map((name) => ({ name })), {
    array: { struct: { name: 'str' } },
  });
  server.register('query-qmp-schema', {}, () => server.schema(), { array: 'any' });
  server.register('query-version', {}, () => server.version, {
    struct: { qemu: { struct: { major: 'int', minor: 'int', micro: 'int' } }, package: 'str' },
  });
}

function registerMachine(server: QmpServer, { machine, humanMonitor, writeFile }: MonitorEnvironment): void {
  server.register('query-name', {}, () => (machine.name === undefined ? {} : { name: machine.name }), {
    struct: { '*name': 'str' },
  });
  server.register('query-uuid', {}, () => ({ UUID: machine.uuid }), { struct: { UUID: 'str' } });
  server.register(
    'query-status',
    {},
    () => {
      const status = machine.status();
      return { status, singlestep: false, running: status === 'running' };
    },
    { struct: { status: 'str', singlestep: 'bool', running: 'bool' } },
  );
  server.register('stop', {}, () => machine.stop());
  server.register('cont', {}, () => machine.cont());
  server.register('system_reset', {}, () => machine.systemReset());
  server.register('system_powerdown', {}, () => machine.systemPowerdown());
  server.register('inject-nmi', {}, () => machine.injectNmi());
  server.register('quit', {}, () => {
    // The answer goes out before the machine ends and takes the channel with it.
    setTimeout(() => void machine.quit('host-qmp-quit'), 0);
  });
  server.register(
    'human-monitor-command',
    { 'command-line': 'str', '*cpu-index': 'int' },
    (args) => {
      const cpu = args['cpu-index'];
      return humanMonitor(args['command-line'], cpu === undefined ? undefined : checkCpu(machine, cpu));
    },
    'str',
  );
  server.register(
    'screendump',
    { filename: 'str', '*device': 'str', '*head': 'int', '*format': { enum: ['ppm', 'png'] } },
    async ({ filename, device, head, format }) => {
      if (device !== undefined) throw new MonitorError(`Device '${device}' not found`, 'DeviceNotFound');
      if (head !== undefined) throw new MonitorError("'head' must be specified together with 'device'");
      await writeFile(filename, [await machine.screendump(format ?? 'ppm')]);
    },
  );
}

function registerMemory(server: QmpServer, { machine, writeFile }: MonitorEnvironment): void {
  server.register('memsave', { val: 'uint64', size: 'uint64', filename: 'str', '*cpu-index': 'int' }, async (args) => {
    const cpu = checkCpu(machine, args['cpu-index'] ?? 0);
    await writeFile(args.filename, virtualChunks(machine, cpu, args.val, checkSize(args.size)));
  });
  server.register('pmemsave', { val: 'uint64', size: 'uint64', filename: 'str' }, async ({ val, size, filename }) => {
    if (val + size > 1n << 52n) throw new MonitorError("Parameter 'val' is beyond the physical address space");
    await writeFile(filename, physicalChunks(machine, Number(val), checkSize(size)));
  });
}

function registerInput(server: QmpServer, { machine }: MonitorEnvironment): void {
  server.register('send-key', { keys: { array: keyValue }, '*hold-time': 'int' }, (args) => {
    const hold = args['hold-time'] ?? 100;
    if (hold < 0 || hold > 60_000) throw new MonitorError("Parameter 'hold-time' expects 0 to 60000 milliseconds");
    if (args.keys.length > 64) throw new MonitorError("Parameter 'keys' expects at most 64 keys");
    // As QEMU does, the answer does not wait for the keys to be released.
    void machine.sendKeys(args.keys.map(keyOf), hold);
  });
  server.register(
    'input-send-event',
    { '*device': 'str', '*head': 'int', events: { array: inputEvent } },
    ({ device, events }) => {
      if (device !== undefined) throw new MonitorError(`Device '${device}' not found`, 'DeviceNotFound');
      if (events.length > 4096) throw new MonitorError("Parameter 'events' expects at most 4096 events");
      machine.inputEvents(
        events.map((event): InputEvent => {
          switch (event.type) {
            case 'key':
              return { type: 'key', key: keyOf(event.data.key), down: event.data.down };
            case 'btn':
              return { type: 'btn', button: event.data.button, down: event.data.down };
            default:
              return { type: event.type, axis: event.data.axis, value: event.data.value };
          }
        }),
      );
    },
  );
  const password = (args: { protocol: string; password: string }) => {
    if (args.protocol !== 'vnc')
      throw new MonitorError(`Parameter 'protocol' does not accept value '${args.protocol}': there is no SPICE server`);
    if (machine.setVncPassword === undefined) throw new MonitorError('Could not set password: the machine has no VNC server');
    machine.setVncPassword(args.password === '' ? undefined : args.password);
  };
  const members = { protocol: { enum: ['vnc', 'spice'] }, password: 'str', '*connected': 'str', '*display': 'str' } as const;
  server.register('set_password', members, password);
  server.register('change-vnc-password', { password: 'str' }, (args) => password({ protocol: 'vnc', ...args }));
}

function registerQueries(server: QmpServer, { machine, chardevs }: MonitorEnvironment): void {
  server.register('query-kvm', {}, () => ({ enabled: machine.accelerator === 'kvm', present: machine.accelerator === 'kvm' }), {
    struct: { enabled: 'bool', present: 'bool' },
  });
  server.register(
    'query-cpus-fast',
    {},
    () =>
      machine.vcpus().map((cpu) => ({
        'cpu-index': cpu.index,
        'qom-path': `/machine/cpu[${cpu.index}]`,
        'thread-id': cpu.threadId,
        target: cpu.arch,
        halted: cpu.halted,
        props: { 'socket-id': cpu.socketId, 'core-id': cpu.coreId, 'thread-id': cpu.smtId },
      })),
    { array: 'any' },
  );
  server.register(
    'query-chardev',
    {},
    () =>
      [...chardevs.values()].map((device) => ({ label: device.id, filename: device.filename, 'frontend-open': device.attached })),
    { array: { struct: { label: 'str', filename: 'str', 'frontend-open': 'bool' } } },
  );
  server.register(
    'query-vnc',
    {},
    () => {
      const info = machine.vncInfo?.();
      if (info === undefined) return { enabled: false };
      const client = (end: { host: string; port: number; family: string }) => ({
        host: end.host,
        service: String(end.port),
        family: end.family,
        websocket: false,
      });
      const { host, port, family, auth, clients } = info;
      return { enabled: true, host, service: String(port), family, auth, clients: clients.map(client) };
    },
    'any',
  );
  server.register('x-query-stats', { '*profile': 'bool' }, ({ profile }) => machine.statistics(profile === true), 'any');
  const state = { enum: ['unavailable', 'disabled', 'enabled'] } as const;
  server.register(
    'trace-event-get-state',
    { name: 'str', '*vcpu': 'int' },
    ({ name }) => {
      const events = machine.traceEvents(name);
      if (events.length === 0 && !/[*?]/.test(name)) throw new MonitorError(`unknown event "${name}"`);
      return events.map((event) => ({ name: event.name, vcpu: false, state: event.enabled ? 'enabled' : 'disabled' }));
    },
    { array: { struct: { name: 'str', state, vcpu: 'bool' } } },
  );
  server.register(
    'trace-event-set-state',
    { name: 'str', enable: 'bool', '*ignore-unavailable': 'bool', '*vcpu': 'int' },
    (args) => {
      if (machine.setTrace(args.name, args.enable) === 0 && args['ignore-unavailable'] !== true)
        throw new MonitorError(`unknown event "${args.name}"`);
    },
  );
}
