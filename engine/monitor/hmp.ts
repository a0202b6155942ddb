/**
 * The human monitor: commands in words, answers as text, with the names and the layout that QEMU's monitor has
 * (QEMU documentation, "QEMU Monitor"). `HumanMonitor.execute` runs one line; monitor-console.ts puts it on a
 * character device. Other parts add commands with `register` and `registerInfo`.
 */
import { ExpressionError, evaluate } from './hmp-expression.ts';
import { registerInfoCommands } from './hmp-info.ts';
import { dumpMemory, dumpStrings, type Format, formatPlain, maxDumpBytes, parseFormat } from './hmp-memory.ts';
import { registerByName } from './hmp-registers.ts';
import { parseKeyList } from './keys.ts';
import type { Chardev, CpuRegisters, MachineControl } from './machine-control.ts';
import { readVirtual, translate } from './page-tables.ts';

/** Disassembles one instruction: its text and its length in bytes. `mode` is the code's width in bits. */
export type Disassemble = (
  bytes: Uint8Array,
  ip: bigint,
  mode: 16 | 32 | 64,
) => { readonly text: string; readonly length: number };

export interface HumanMonitorOptions {
  readonly machine: MachineControl;
  readonly chardevs: ReadonlyMap<string, Chardev>;
  /** What `info version` prints. */
  readonly version: string;
  readonly disassemble?: Disassemble;
  /** Writes a file of the host; rejects with a message that says what failed. */
  writeFile(path: string, parts: Iterable<Uint8Array>): Promise<void>;
}

/** State of one monitor: which vCPU its commands mean. */
export interface HumanContext {
  cpu: number;
}

interface HumanCommand {
  readonly names: readonly string[];
  readonly usage: string;
  readonly help: string;
  /** `text`: what follows the command's name, with its `/FMT` still at the start. Returns what to print. */
  readonly run: (text: string, context: HumanContext) => string | Promise<string>;
}

/** A wrong argument; the message is printed, followed by where to find help. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export const noMore = (text: string, command: string): void => {
  if (text.trim() !== '') throw new UsageError(`${command}: extraneous characters at the end of line`);
};

/** Splits arguments at spaces; double quotes hold spaces, and a backslash in them the next character. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  const pattern = /\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))/gy;
  for (let match = pattern.exec(text); match !== null; match = pattern.exec(text))
    words.push(match[1]?.replace(/\\(.)/g, '$1') ?? match[2]);
  return words;
}

export class HumanMonitor {
  readonly options: HumanMonitorOptions;
  readonly #commands: HumanCommand[] = [];
  readonly #infos: HumanCommand[] = [];

  constructor(options: HumanMonitorOptions) {
    this.options = options;
    this.#registerControl();
    this.#registerMemory();
    registerInfoCommands(this);
  }

  /** Adds a command. `names`: its name and short forms, joined by `|`. */
  register(names: string, usage: string, help: string, run: HumanCommand['run']): void {
    this.#commands.push({ names: names.split('|'), usage, help, run });
  }

  /** Adds a subcommand of `info`. */
  registerInfo(name: string, usage: string, help: string, run: HumanCommand['run']): void {
    this.#infos.push({ names: [name], usage, help, run });
  }

  /** Runs one line; never rejects: errors are text. Lines of the result end with `\n`. */
  async execute(line: string, context: HumanContext): Promise<string> {
    const trimmed = line.trim();
    if (trimmed === '' || trimmed.startsWith('#')) return '';
    const name = /^[^\s/]+/.exec(trimmed)?.[0] ?? trimmed;
    const command = this.#commands.find(({ names }) => names.includes(name));
    if (command === undefined) return `unknown command: '${name.slice(0, 80)}'\n`;
    try {
      return await command.run(trimmed.slice(name.length), context);
    } catch (cause) {
      const message = (cause as Error).message;
      if (cause instanceof UsageError || cause instanceof ExpressionError)
        return `${message}\nTry "help ${command.names[0]}" for more information\n`;
      return `Error: ${message}\n`;
    }
  }

  /** The words that can stand where `text` ends, for completion with the tabulator. */
  complete(text: string): string[] {
    const words = text.trimStart().split(/\s+/);
    if (words.length === 1) return this.#namesOf(this.#commands, words[0]);
    if (words.length === 2 && words[0] === 'info') return this.#namesOf(this.#allInfos(), words[1]);
    if (words.length === 2 && (words[0] === 'help' || words[0] === '?')) return this.#namesOf(this.#commands, words[1]);
    return [];
  }

  #namesOf(commands: readonly HumanCommand[], start: string): string[] {
    return commands
      .flatMap(({ names }) => names)
      .filter((name) => name.startsWith(start))
      .sort();
  }

  #allInfos(): HumanCommand[] {
    const known = new Set(this.#infos.map(({ names }) => names[0]));
    const described = this.options.machine.descriptions().filter(({ name }) => !known.has(name));
    const chips = described.map(({ name, help }) => ({
      names: [name],
      usage: '',
      help,
      run: (text: string, context: HumanContext) => {
        noMore(text, name);
        const description = this.options.machine.describe(name, context.cpu);
        if (description === undefined) return `info ${name}: nothing of that name in this machine\n`;
        return description.endsWith('\n') ? description : `${description}\n`;
      },
    }));
    return [...this.#infos, ...chips].sort((a, b) => (a.names[0] < b.names[0] ? -1 : 1));
  }

  /** Reads an expression at the start of `text`; returns its value and the rest. */
  async expression(text: string, context: HumanContext): Promise<{ value: bigint; rest: string }> {
    const registers = text.includes('$') ? await this.options.machine.registers(context.cpu) : undefined;
    const { value, end } = evaluate(text, 0, (name) => (registers === undefined ? undefined : registerByName(registers, name)));
    return { value, rest: text.slice(end) };
  }

  #helpLines(commands: readonly HumanCommand[], prefix: string): string {
    return commands
      .map(({ names, usage, help }) => `${prefix}${names.join('|')}${usage === '' ? '' : ` ${usage}`} -- ${help}\n`)
      .join('');
  }

  #registerControl(): void {
    const { machine, writeFile } = this.options;
    const simple = (names: string, help: string, run: () => unknown): void =>
      this.register(names, '', help, async (text) => {
        noMore(text, names.split('|')[0]);
        await run();
        return '';
      });
    this.register('help|?', '[cmd]', 'show the help of all commands or of one', (text) => {
      const [name, second] = splitWords(text);
      const sorted = [...this.#commands].sort((a, b) => (a.names[0] < b.names[0] ? -1 : 1));
      if (name === undefined) return this.#helpLines(sorted, '');
      if (name === 'info')
        return this.#helpLines(
          this.#allInfos().filter(({ names }) => second === undefined || names[0] === second),
          'info ',
        );
      const found = sorted.filter(({ names }) => names.includes(name));
      return found.length === 0 ? `unknown command: '${name}'\n` : this.#helpLines(found, '');
    });
    this.register('info', '[subcommand]', 'show information about the machine', (text, context) => {
      const match = /^\s*(\S+)(.*)$/s.exec(text);
      if (match === null) return this.#helpLines(this.#allInfos(), 'info ');
      const info = this.#allInfos().find(({ names }) => names[0] === match[1]);
      return info === undefined ? `unknown command: 'info ${match[1].slice(0, 80)}'\n` : info.run(match[2], context);
    });
    simple('stop|s', 'stop the machine', () => machine.stop());
    simple('cont|c', 'let the machine go on', () => machine.cont());
    simple('system_reset', 'reset the machine', () => machine.systemReset());
    simple('system_powerdown', 'press the power button', () => machine.systemPowerdown());
    simple('nmi', 'inject a non-maskable interrupt on every CPU', () => machine.injectNmi());
    this.register(
      'mce',
      'cpu bank status mcgstatus addr misc',
      'put an error into a machine-check bank of a CPU; one that is uncorrected raises an exception',
      async (text) => {
        const words = splitWords(text);
        if (words.length !== 6) throw new UsageError('mce: six numbers expected');
        const [cpu, bank, status, mcgStatus, address, misc] = words.map((word) => evaluate(word, 0, () => undefined).value);
        if (!machine.vcpus().some(({ index }) => BigInt(index) === cpu)) throw new UsageError('invalid CPU index');
        if (bank < 0n || bank > 9n) throw new UsageError('mce: there are ten banks, from 0 on');
        await machine.injectMachineCheck(Number(cpu), { bank: Number(bank), status, mcgStatus, address, misc });
        return '';
      },
    );
    simple('quit|q', 'end the machine at once', () => machine.quit('host-qmp-quit'));
    this.register('cpu', 'index', 'choose the CPU that other commands mean', (text, context) => {
      const index = Number(text.trim());
      if (text.trim() === '' || !machine.vcpus().some((cpu) => cpu.index === index)) throw new UsageError('invalid CPU index');
      context.cpu = index;
      return '';
    });
    this.register(
      'sendkey',
      'keys [hold_ms]',
      'press keys together, e.g. ctrl-alt-f1 (default hold time: 100 ms)',
      async (text) => {
        const [list, hold = '100', ...more] = splitWords(text);
        if (list === undefined) throw new UsageError('sendkey: string expected');
        noMore(more.join(' '), 'sendkey');
        const keys = parseKeyList(list);
        if ('bad' in keys) return `invalid parameter: ${keys.bad}\n`;
        if (!/^\d{1,5}$/.test(hold)) throw new UsageError('sendkey: hold time in milliseconds expected');
        void machine.sendKeys(keys.keys, Math.min(Number(hold), 60_000));
        return '';
      },
    );
    this.register('screendump', 'filename [-f format]', 'save the screen as an image file (ppm or png)', async (text) => {
      const words = splitWords(text);
      const at = words.indexOf('-f');
      const format = at < 0 ? 'ppm' : words.splice(at, 2)[1];
      if (words.length !== 1) throw new UsageError('screendump: one filename expected');
      if (format !== 'ppm' && format !== 'png') throw new UsageError("screendump: format 'ppm' or 'png' expected");
      await writeFile(words[0], [await machine.screendump(format)]);
      return '';
    });
    this.register('trace-event', 'name on|off', 'turn the trace events that match a pattern on or off', (text) => {
      const [name, state] = splitWords(text);
      if (name === undefined || (state !== 'on' && state !== 'off'))
        throw new UsageError('trace-event: name and on|off expected');
      return machine.setTrace(name, state === 'on') === 0 ? `unknown event "${name}"\n` : '';
    });
  }

  #registerMemory(): void {
    const { machine } = this.options;
    this.register('x', '/fmt addr', "show virtual memory from 'addr'", async (text, context) => {
      const registers = await machine.registers(context.cpu);
      return this.#examine(text, context, registers, (at, length) =>
        readVirtual(registers, machine.readPhysical.bind(machine), at, length),
      );
    });
    this.register('xp', '/fmt addr', "show physical memory from 'addr'", async (text, context) => {
      const registers = await machine.registers(context.cpu);
      return this.#examine(text, context, registers, (at, length) =>
        at + BigInt(length) > 1n << 52n ? undefined : machine.readPhysical(Number(at), length),
      );
    });
    this.register('print|p', '/fmt expr', 'show the value of an expression ($reg for a CPU register)', async (text, context) => {
      const { format, rest } = this.#format(text, { count: 1, format: 'x', size: 4, sized: false });
      const { value, rest: after } = await this.expression(rest.trimStart(), context);
      noMore(after, 'print');
      return `${formatPlain(value, format.format)}\n`;
    });
    this.register('gva2gpa', 'addr', 'show the physical address of a virtual one', async (text, context) => {
      const { value, rest } = await this.expression(text.trimStart(), context);
      noMore(rest, 'gva2gpa');
      const physical = translate(await machine.registers(context.cpu), machine.readPhysical.bind(machine), value);
      return physical === undefined ? 'Unmapped\n' : `gpa: 0x${physical.toString(16)}\n`;
    });
    const { readPort, writePort } = machine;
    const portSize = (format: Format): 1 | 2 | 4 => {
      if (format.size === 8) throw new UsageError('a port is 1, 2 or 4 bytes wide');
      return format.sized ? format.size : 1;
    };
    const letter = { 1: 'b', 2: 'w', 4: 'l' } as const;
    const defaults: Format = { count: 1, format: 'x', size: 1, sized: false };
    if (readPort !== undefined)
      this.register('i', '/fmt addr', 'read an I/O port', async (text, context) => {
        const { format, rest } = this.#format(text, defaults);
        const { value, rest: after } = await this.expression(rest.trimStart(), context);
        noMore(after, 'i');
        const port = Number(value & 0xffffn);
        const size = portSize(format);
        const read = readPort.call(machine, port, size);
        return `port${letter[size]}[0x${port.toString(16).padStart(4, '0')}] = 0x${(read >>> 0).toString(16).padStart(size * 2, '0')}\n`;
      });
    if (writePort !== undefined)
      this.register('o', '/fmt addr value', 'write an I/O port', async (text, context) => {
        const { format, rest } = this.#format(text, defaults);
        const port = await this.expression(rest.trimStart(), context);
        const value = await this.expression(port.rest.trimStart(), context);
        noMore(value.rest, 'o');
        const size = portSize(format);
        writePort.call(machine, Number(port.value & 0xffffn), size, Number(BigInt.asUintN(size * 8, value.value)));
        return '';
      });
  }

  #format(text: string, defaults: Format): { format: Format; rest: string } {
    const parsed = parseFormat(text, defaults);
    if ('error' in parsed) throw new UsageError(parsed.error);
    return parsed;
  }

  async #examine(
    text: string,
    context: HumanContext,
    registers: CpuRegisters,
    read: (address: bigint, length: number) => Uint8Array | undefined,
  ): Promise<string> {
    const { format, rest } = this.#format(text, { count: 1, format: 'x', size: 4, sized: false });
    const { value, rest: after } = await this.expression(rest.trimStart(), context);
    noMore(after, 'x');
    if (format.count * format.size > maxDumpBytes) throw new UsageError(`at most ${maxDumpBytes} bytes can be shown at once`);
    if (format.format === 'i') return this.#disassemble(value, format.count, registers, read);
    if (format.format === 's') return dumpStrings(value, format.count, 16, read);
    return dumpMemory(value, format, 16, read);
  }

  #disassemble(
    address: bigint,
    count: number,
    registers: CpuRegisters,
    read: (address: bigint, length: number) => Uint8Array | undefined,
  ): string {
    const { disassemble } = this.options;
    if (disassemble === undefined) return 'Disassembly is not part of this build\n';
    const { attributes } = registers.cs;
    const mode = (registers.efer & 0x400n) !== 0n && (attributes >> 21) & 1 ? 64 : (attributes >> 22) & 1 ? 32 : 16;
    let output = '';
    let at = address;
    for (let index = 0; index < Math.min(count, 4096); index++) {
      // The longest instruction has 15 bytes (SDM 2A 2.3.11); the page after it may not be mapped.
      const bytes = read(at, 15) ?? read(at, Math.min(15, 4096 - Number(at & 0xfffn)));
      if (bytes === undefined) return `${output}0x${at.toString(16).padStart(8, '0')}:  Cannot access memory\n`;
      const { text, length } = disassemble(bytes, at, mode);
      const used = Math.max(1, Math.min(length, bytes.length));
      const code = Array.from(bytes.subarray(0, used), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
      output += `0x${at.toString(16).padStart(8, '0')}:  ${code.padEnd(23)}  ${text}\n`;
      at = BigInt.asUintN(64, at + BigInt(used));
    }
    return output;
  }
}
