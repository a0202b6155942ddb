/**
 * The app's commands, in virsh's words. A command speaks to the app that has the library open; where none has, those
 * that only look read the library themselves, and those that run a VM start the app in the background.
 */
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { AppError, type RequestName, type VmDefinition, type VmState, type VmSummary } from '../contract/index.ts';
import { defaultLibrary } from '../host/files.ts';
import { serveMain } from '../shell/serve.ts';
import { Library } from '../vm/library.ts';
import { Connection } from './connection.ts';
import { attachTerminal } from './console.ts';
import { list, table } from './table.ts';

/** States in virsh's words. */
const stateNames: Readonly<Record<VmState, string>> = {
  shutoff: 'shut off',
  starting: 'starting',
  running: 'running',
  paused: 'paused',
  'shutdown-in-progress': 'in shutdown',
  crashed: 'crashed',
};

interface Context {
  readonly library: string;
  readonly args: readonly string[];
  readonly serveEntry: string | null;
  readonly serveOptions: readonly string[];
  print(text: string): void;
}

interface Command {
  readonly usage: string;
  readonly help: string;
  /** How many arguments it takes at least. */
  readonly needs: number;
  /** It only looks: without an app it reads the library itself. */
  readonly looks?: (context: Context, library: Library) => void;
  readonly run: (context: Context, connection: Connection) => Promise<void>;
}

const flag = ({ args }: Context, name: string): boolean => args.includes(name);
const plain = ({ args }: Context): string[] => args.filter((argument) => !argument.startsWith('--'));

async function find(connection: Connection, nameOrId: string): Promise<VmSummary> {
  const { vms } = await connection.request('vm.list', {});
  const found =
    vms.find(({ id, name }) => id === nameOrId || name === nameOrId) ??
    vms.find(({ name }) => name.toLowerCase() === nameOrId.toLowerCase());
  if (found === undefined) throw new AppError('not-found', `There is no VM named "${nameOrId}"`);
  return found;
}

/** A command that asks one thing of one VM and says what was done. */
function action(name: string, request: Extract<RequestName, `vm.${string}`>, help: string, done: string): Command {
  return {
    usage: `${name} NAME`,
    help,
    needs: 1,
    run: async (context, connection) => {
      const vm = await find(connection, plain(context)[0]);
      await connection.request(request as 'vm.pause', { id: vm.id });
      context.print(`Domain '${vm.name}' ${done}`);
    },
  };
}

function printList(context: Context, vms: readonly { id: string; name: string; state: VmState }[]): void {
  const all = flag(context, '--all');
  const inactive = flag(context, '--inactive');
  const shown = vms.filter(({ state }) => {
    const off = state === 'shutoff' || state === 'crashed';
    return all || (inactive ? off : !off);
  });
  if (flag(context, '--name')) return context.print(shown.map(({ name }) => name).join('\n'));
  if (flag(context, '--uuid')) return context.print(shown.map(({ id }) => id).join('\n'));
  context.print(
    table(
      ['Id', 'Name', 'State'],
      shown.map(({ id, name, state }) => [id.slice(0, 8), name, stateNames[state]]),
    ),
  );
}

function printInfo(
  context: Context,
  { id, name, memoryMiB, cpus, autostart, os }: VmDefinition,
  state: VmState,
  pid: number | null,
): void {
  context.print(
    list([
      ['Name', name],
      ['UUID', id],
      ['OS', os ?? 'unknown'],
      ['State', stateNames[state]],
      ['CPU(s)', String(cpus.count)],
      ['Max memory', `${memoryMiB * 1024} KiB`],
      ['Autostart', autostart ? 'enable' : 'disable'],
      ...(pid === null ? [] : ([['Process', String(pid)]] as const)),
    ]),
  );
}

const commands: Readonly<Record<string, Command>> = {
  list: {
    usage: 'list [--all|--inactive] [--name|--uuid]',
    help: 'the VMs that run, or all',
    needs: 0,
    looks: (context, library) =>
      printList(
        context,
        library.list().map(({ id, name }) => ({ id, name, state: 'shutoff' })),
      ),
    run: async (context, connection) => printList(context, (await connection.request('vm.list', {})).vms),
  },
  dominfo: {
    usage: 'dominfo NAME',
    help: 'what a VM is made of',
    needs: 1,
    looks: (context, library) => printInfo(context, library.get(library.find(plain(context)[0])), 'shutoff', null),
    run: async (context, connection) => {
      const { id } = await find(connection, plain(context)[0]);
      const { definition, summary } = await connection.request('vm.get', { id });
      printInfo(context, definition, summary.state, summary.pid);
    },
  },
  domstate: {
    usage: 'domstate NAME',
    help: "a VM's state",
    needs: 1,
    looks: (context, library) => {
      library.find(plain(context)[0]);
      context.print(stateNames.shutoff);
    },
    run: async (context, connection) => context.print(stateNames[(await find(connection, plain(context)[0])).state]),
  },
  domuuid: {
    usage: 'domuuid NAME',
    help: "a VM's id",
    needs: 1,
    looks: (context, library) => context.print(library.find(plain(context)[0])),
    run: async (context, connection) => context.print((await find(connection, plain(context)[0])).id),
  },
  dumpjson: {
    usage: 'dumpjson NAME',
    help: "a VM's definition",
    needs: 1,
    looks: (context, library) => context.print(JSON.stringify(library.get(library.find(plain(context)[0])), null, 2)),
    run: async (context, connection) => {
      const { id } = await find(connection, plain(context)[0]);
      context.print(JSON.stringify((await connection.request('vm.get', { id })).definition, null, 2));
    },
  },
  start: {
    usage: 'start NAME [--paused] [--console]',
    help: 'start a VM',
    needs: 1,
    run: async (context, connection) => {
      const vm = await find(connection, plain(context)[0]);
      await connection.request('vm.start', { id: vm.id, paused: flag(context, '--paused') });
      context.print(`Domain '${vm.name}' started`);
      if (flag(context, '--console')) await commands.console.run(context, connection);
    },
  },
  shutdown: action('shutdown', 'vm.powerButton', "press a VM's power button", 'is being shutdown'),
  destroy: action('destroy', 'vm.forceOff', 'turn a VM off at once', 'destroyed'),
  reset: action('reset', 'vm.reset', 'reset a VM', 'was reset'),
  suspend: action('suspend', 'vm.pause', 'pause a VM', 'suspended'),
  resume: action('resume', 'vm.resume', 'let a paused VM go on', 'resumed'),
  undefine: {
    usage: 'undefine NAME',
    help: 'delete a VM; "vivarium undelete" brings it back',
    needs: 1,
    run: async (context, connection) => {
      const vm = await find(connection, plain(context)[0]);
      const { expires } = await connection.request('vm.delete', { id: vm.id });
      context.print(
        `Domain '${vm.name}' has been undefined; "vivarium undelete" brings it back until ${new Date(expires).toLocaleString()}`,
      );
    },
  },
  undelete: {
    usage: 'undelete [NAME]',
    help: 'bring back the VM that was deleted last, or the one named',
    needs: 0,
    run: async (context, connection) => {
      const tokens = await connection.request('undo.list', {});
      const [name] = plain(context);
      const found = tokens.findLast(({ title }) => name === undefined || title === `Delete "${name}"`);
      if (found === undefined) throw new AppError('undo-expired', 'There is nothing to bring back');
      context.print(`Domain '${(await connection.request('undo.apply', { token: found.token })).name}' is back`);
    },
  },
  domrename: {
    usage: 'domrename NAME NEW',
    help: 'give a VM another name',
    needs: 2,
    run: async (context, connection) => {
      const [name, next] = plain(context);
      const { id } = await find(connection, name);
      await connection.request('vm.rename', { id, name: next });
      context.print('Domain successfully renamed');
    },
  },
  autostart: {
    usage: 'autostart NAME [--disable]',
    help: 'start a VM with the app, or no longer',
    needs: 1,
    run: async (context, connection) => {
      const vm = await find(connection, plain(context)[0]);
      const autostart = !flag(context, '--disable');
      await connection.request('vm.update', { id: vm.id, changes: { autostart } });
      context.print(`Domain '${vm.name}' ${autostart ? '' : 'un'}marked as autostarted`);
    },
  },
  console: {
    usage: 'console NAME [PORT]',
    help: "a VM's serial port in this terminal; Ctrl-] leaves it",
    needs: 1,
    run: async (context, connection) => {
      const [name, port = '0'] = plain(context);
      const vm = await find(connection, name);
      const stream = await connection.stream(vm.id, 'serial', Number(port));
      if (process.stdin.isTTY) console.error(`Connected to domain '${vm.name}'\nEscape character is ^] (Ctrl + ])`);
      await attachTerminal(stream, process.stdin, process.stdout);
    },
  },
  screenshot: {
    usage: 'screenshot NAME FILE.png',
    help: "a picture of a VM's screen",
    needs: 2,
    run: async (context, connection) => {
      const [name, file] = plain(context);
      const { id } = await find(connection, name);
      const url = await connection.request('vm.screenshot', { id });
      await writeFile(file, Buffer.from(url.slice(url.indexOf(',') + 1), 'base64'));
      context.print(`Screenshot saved to ${file}, with type of image/png`);
    },
  },
  'send-key': {
    usage: 'send-key NAME KEY ...',
    help: 'press keys together, by QEMU names: ctrl alt delete',
    needs: 2,
    run: async (context, connection) => {
      const [name, ...keys] = plain(context);
      const { id } = await find(connection, name);
      await connection.request('vm.sendKeys', { id, keys });
    },
  },
  'qemu-monitor-command': {
    usage: 'qemu-monitor-command NAME --hmp LINE',
    help: 'a line of the human monitor, such as "info registers"',
    needs: 2,
    run: async (context, connection) => {
      const [name, ...line] = plain(context);
      const { id } = await find(connection, name);
      context.print((await connection.request('vm.monitor', { id, line: line.join(' ') })).replace(/\r?\n$/, ''));
    },
  },
  log: {
    usage: 'log NAME',
    help: "the end of a VM's log",
    needs: 1,
    run: async (context, connection) => {
      const { id } = await find(connection, plain(context)[0]);
      context.print((await connection.request('vm.log', { id })).join('\n'));
    },
  },
  nodeinfo: {
    usage: 'nodeinfo',
    help: 'what this computer has',
    needs: 0,
    run: async (context, connection) => {
      const host = await connection.request('host.capabilities', {});
      context.print(
        list([
          ['CPU model', host.cpuModel],
          ['CPU(s)', String(host.cpus)],
          ['Memory size', `${host.memoryMiB * 1024} KiB`],
          ['Memory free', `${host.freeMiB * 1024} KiB`],
          ['KVM', host.kvm.available ? 'available' : (host.kvm.reason ?? 'not available')],
        ]),
      );
    },
  },
};

function usage(): string {
  const own: [string, string][] = [
    ['run OPTIONS', 'a VM in this terminal, with the options of QEMU'],
    ['img COMMAND', 'disk images'],
    ['serve [--port N] [--no-open]', 'the app, in a browser'],
  ];
  const rows = [...own, ...Object.values(commands).map(({ usage: text, help }): [string, string] => [text, help])];
  const width = Math.max(...rows.map(([text]) => text.length)) + 2;
  return `Usage: vivarium [--library DIR] COMMAND\n\n${rows.map(([text, help]) => `  ${text.padEnd(width)}${help}`).join('\n')}`;
}

/** Whether a word is a command of the app (`serve` is not for Electron: it is the app itself). */
export const isCommand = (word: string | undefined): boolean =>
  word === 'help' || (word !== undefined && Object.hasOwn(commands, word));

/** Runs a command line; resolves with the exit status. `serveEntry` null: there is no way to start an app in the background. */
export async function main(
  argv: readonly string[],
  serveEntry: string | null,
  print: (text: string) => void = console.log,
): Promise<number> {
  const args = [...argv];
  let library = process.env.VIVARIUM_LIBRARY ?? defaultLibrary();
  const serveOptions: string[] = [];
  const take = (name: string): string | undefined => {
    const at = args.indexOf(name);
    if (at < 0) return undefined;
    const [, value] = args.splice(at, 2);
    if (value === undefined) throw new AppError('invalid', `${name} needs a value`);
    return value;
  };
  try {
    library = take('--library') ?? library;
    const [name, ...rest] = args;
    if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
      print(usage());
      return name === undefined ? 1 : 0;
    }
    if (name === 'serve') {
      const running = await Connection.open(library);
      const address = await running?.address();
      running?.close();
      if (address !== undefined) {
        print(`Vivarium is at ${address}\n(it was running already; the address works once)`);
        return 0;
      }
      await serveMain(['--library', library, ...rest]);
      return await new Promise<number>(() => {});
    }
    const entry = take('--engine-entry');
    if (entry !== undefined) serveOptions.push('--engine-entry', entry);
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
    if (command === undefined) throw new AppError('invalid', `There is no command "${name}"; "vivarium help" lists them`);
    const context: Context = { library, args: args.slice(1), serveEntry, serveOptions, print };
    if (plain(context).length < command.needs) throw new AppError('invalid', `Usage: vivarium ${command.usage}`);
    await execute(command, context);
    return 0;
  } catch (error) {
    console.error(`error: ${(error as Error).message}`);
    return 1;
  }
}

async function execute(command: Command, context: Context): Promise<void> {
  const running = await Connection.open(context.library);
  if (running === undefined && command.looks !== undefined) {
    const library = await Library.open(context.library);
    try {
      return command.looks(context, library);
    } finally {
      await library.close();
    }
  }
  if (running === undefined && context.serveEntry === null)
    throw new AppError('wrong-state', 'Vivarium is not running. Start it first.');
  const connection = running ?? (await Connection.openOrStart(context.library, String(context.serveEntry), context.serveOptions));
  try {
    await command.run(context, connection);
  } finally {
    connection.close();
  }
}

const program = process.argv[1] ?? '';
if (/^(main|cli)\.[tj]s$/.test(basename(program)) && process.env.NODE_TEST_CONTEXT === undefined) {
  const serveEntry = program.endsWith('.ts')
    ? new URL('../shell/serve.ts', import.meta.url).pathname
    : new URL('./serve.js', import.meta.url).pathname;
  process.exitCode = await main(process.argv.slice(2), serveEntry);
}
