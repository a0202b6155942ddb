/** Starts a whole machine by `vivarium run`, speaks with its first serial port and with QMP. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, type TestContext } from 'node:test';
import type { MachineConfig } from '../../engine/contract/machine-config.ts';
import type { ProcessMessage } from '../../engine/contract/process.ts';

export const root = resolve(import.meta.dirname, '../..');
const running = new Set<ChildProcess>();
after(() => {
  for (const child of running) child.kill('SIGKILL');
});

export type Architecture = 'amd64' | 'i386';

/** Kernel and initial RAM disk of the sample guest; undefined where it was not fetched. */
export function guest(architecture: Architecture = 'amd64'): { kernel: string; initrd: string } | undefined {
  const folder = join(root, '.cache', 'guests', `debian-${architecture}`);
  const files = { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img') };
  return existsSync(files.kernel) && existsSync(files.initrd) ? files : undefined;
}

/** Reason to skip a test of the sample guest, or false. */
export const withoutGuest = (architecture: Architecture = 'amd64'): string | false =>
  guest(architecture) === undefined ? `the ${architecture} guest is not in .cache/guests (npm test fetches it)` : false;

export const PROMPT = '/root # ';
export const READY = 'Vivarium guest ready:';

export interface VmOptions {
  readonly architecture?: Architecture;
  readonly cpus?: number;
  readonly memory?: number;
  /** The kernel's command line. */
  readonly append?: string;
  /** Options beside those for kernel, memory, CPUs, serial port and QMP. */
  readonly more?: readonly string[];
  /** False: nothing is booted but what `more` names. */
  readonly kernel?: boolean;
  /** Starts a VM process of the app instead of `vivarium run`: what its configuration has beyond the options here. */
  readonly config?: Partial<MachineConfig>;
  /** The initial RAM disk, where it is not the sample guest's. */
  readonly initrd?: string;
  /** False: a guest that resets does so. */
  readonly noReboot?: boolean;
}

interface QmpWaiter {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

export class Vm {
  readonly folder: string;
  readonly exited: Promise<number | null>;
  /** All that came from the serial port so far. */
  output = '';
  /** What the process said on standard error. */
  complaints = '';
  readonly events: QmpEvent[] = [];
  /** When the process was started, as `performance.now` has it. */
  readonly began = performance.now();
  readonly #child: ChildProcess;
  readonly #qmpPath: string;
  #qmp: Socket | undefined;
  #waiters: QmpWaiter[] = [];
  #listeners = new Set<() => void>();
  /** Where in the output the next `waitFor` starts to look. */
  #seen = 0;

  constructor(options: VmOptions = {}) {
    const { architecture = 'amd64', cpus = 1, memory = 256, more = [], kernel = true } = options;
    this.folder = mkdtempSync(join(tmpdir(), 'vivarium-machine-'));
    this.#qmpPath = join(this.folder, 'qmp');
    const files = kernel ? guest(architecture) : undefined;
    const append = options.append ?? 'console=ttyS0 quiet';
    const initrd = options.initrd ?? files?.initrd;
    const words = [join(root, 'engine/cli/main.ts'), 'run', '-m', String(memory), '-smp', String(cpus)];
    words.push('-display', 'none', '-serial', 'stdio', '-accel', 'jit', '-qmp', `unix:${this.#qmpPath},server=on,wait=off`);
    if (files !== undefined) words.push('-kernel', files.kernel, '-initrd', initrd ?? '', '-append', append);
    if (options.noReboot !== false) words.push('-no-reboot');
    const program = options.config === undefined ? [...words, ...more] : [join(root, 'engine/host/vm-process.ts')];
    const child = spawn(process.execPath, program, {
      stdio: options.config === undefined ? ['pipe', 'pipe', 'pipe'] : ['pipe', 'pipe', 'pipe', 'ipc'],
    });
    if (options.config !== undefined) {
      const config: MachineConfig = {
        version: 1,
        name: 'test',
        uuid: '00000000-0000-0000-0000-000000000000',
        memoryMiB: memory,
        cpus: { count: cpus, model: 'x86-64-v2' },
        machine: { type: 'pc', accelerator: 'jit' },
        boot: { kind: 'kernel', kernel: files?.kernel ?? '', initrd, append },
        drives: [],
        netdevs: [],
        display: { adapter: 'std', memoryMiB: 16 },
        serial: [{ connect: 'chardev', chardev: 'com1' }],
        rtc: { base: 'utc', clock: 'host' },
        chardevs: [{ id: 'com1', backend: 'stdio', signal: false }],
        monitors: [],
        devices: [],
        sockets: { qmp: [{ type: 'unix', path: this.#qmpPath }] },
        lifecycle: { paused: false, onReboot: options.noReboot === false ? 'reset' : 'exit', onPoweroff: 'exit' },
        debug: { trace: [], items: [] },
        ...options.config,
      };
      child.send({ type: 'start', config });
      child.on('message', (message: ProcessMessage) => {
        if (message.type === 'failed') this.complaints += `${JSON.stringify(message.error)}\n`;
        else if (message.type === 'log') this.complaints += `${message.text}\n`;
      });
    }
    running.add(child);
    this.#child = child;
    child.stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.output += text;
      this.#tell();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.complaints += text;
      this.#tell();
    });
    child.stdin?.on('error', () => {});
    this.exited = new Promise((done) => {
      child.on('close', (status) => {
        running.delete(child);
        this.#qmp?.destroy();
        for (const waiter of this.#waiters.splice(0)) waiter.reject(new Error('the machine ended'));
        done(status);
        this.#tell();
      });
    });
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  get ended(): boolean {
    return !running.has(this.#child);
  }
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Ends the process and removes what it left. */
  async close(): Promise<void> {
    if (!this.ended) this.#child.kill('SIGKILL');
    await this.exited;
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Waits until `look` finds something in what has happened, or says what there was instead. */
  async #until<T>(look: () => T | undefined, what: string, seconds: number): Promise<T> {
    const found = look();
    if (found !== undefined) return found;
    return await new Promise((done, fail) => {
      const end = (action: () => void): void => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
        action();
      };
      const complain = (why: string): Error =>
        new Error(`${what}: ${why}. Serial port:\n${this.output.slice(-1500)}\nstandard error:\n${this.complaints.slice(-1500)}`);
      const timer = setTimeout(() => end(() => fail(complain(`not within ${seconds} s`))), seconds * 1000);
      const listener = (): void => {
        const value = look();
        if (value !== undefined) end(() => done(value));
        else if (this.ended) end(() => fail(complain('the machine ended')));
      };
      this.#listeners.add(listener);
    });
  }

  /** Waits for text on the serial port after what was waited for last; returns what came before it and itself. */
  waitFor(text: string | RegExp, seconds = 150): Promise<string> {
    return this.#until(
      () => {
        const rest = this.output.slice(this.#seen);
        const match = typeof text === 'string' ? rest.indexOf(text) : rest.search(text);
        if (match < 0) return undefined;
        const length = typeof text === 'string' ? text.length : (text.exec(rest)?.[0].length ?? 0);
        this.#seen += match + length;
        return rest.slice(0, match + length);
      },
      `waiting for ${text}`,
      seconds,
    );
  }

  /** Forgets what the serial port said so far. */
  skip(): void {
    this.#seen = this.output.length;
  }

  type(text: string): void {
    this.#child.stdin?.write(text, 'latin1');
  }

  /** Waits for the shell of the sample guest. */
  async shell(seconds = 150): Promise<void> {
    await this.waitFor(READY, seconds);
    await this.waitFor(PROMPT, 30);
    // What the kernel says meanwhile ("hrtimer: interrupt took ...") must not stand in the answers.
    await this.command('echo 1 > /proc/sys/kernel/printk');
  }

  /** Types a command at the prompt and returns what it printed. */
  async command(line: string, seconds = 60): Promise<string> {
    this.skip();
    this.type(`${line}\n`);
    const text = await this.waitFor(PROMPT, seconds);
    // The shell's line editor echoes, and asks the terminal where its cursor is.
    return text.replaceAll('\x1b[6n', '').slice(0, -PROMPT.length).replaceAll('\r', '').split('\n').slice(1).join('\n').trim();
  }

  async #connect(): Promise<Socket> {
    if (this.#qmp !== undefined) return this.#qmp;
    for (let tries = 0; ; tries++) {
      const socket = await new Promise<Socket | undefined>((done) => {
        const attempt = connect(this.#qmpPath, () => done(attempt));
        attempt.on('error', () => done(undefined));
      });
      if (socket !== undefined) {
        this.#qmp = socket;
        this.#listen(socket);
        await this.#ask('qmp_capabilities', {});
        return socket;
      }
      if (tries > 300 || this.ended) throw new Error(`no QMP socket. ${this.complaints}`);
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  #listen(socket: Socket): void {
    let rest = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const message = JSON.parse(line) as Record<string, unknown>;
        if ('event' in message) this.events.push(message as unknown as QmpEvent);
        else if ('error' in message) this.#waiters.shift()?.reject(new Error((message.error as { desc: string }).desc));
        else if ('return' in message) this.#waiters.shift()?.resolve(message.return);
      }
      this.#tell();
    });
  }

  #ask(execute: string, given: object): Promise<unknown> {
    return new Promise((done, fail) => {
      this.#waiters.push({ resolve: done, reject: fail });
      this.#qmp?.write(`${JSON.stringify({ execute, arguments: given })}\n`);
    });
  }

  /** One QMP command's return value. */
  async qmp(execute: string, given: object = {}): Promise<unknown> {
    await this.#connect();
    return await this.#ask(execute, given);
  }

  /** Waits for an event that came after the first `from` of them. */
  async event(name: string, seconds = 60, from = 0): Promise<QmpEvent> {
    await this.#connect().catch(() => {});
    return await this.#until(() => this.events.slice(from).find((event) => event.event === name), `event ${name}`, seconds);
  }

  /** The exit status, or an error after `seconds`. */
  async exit(seconds = 60): Promise<number | null> {
    return await this.#until(() => (this.ended ? { status: this.exited } : undefined), 'the end of the machine', seconds).then(
      ({ status }) => status,
    );
  }
}

/** A machine that ends with the test. */
export function startVm(context: TestContext, options?: VmOptions): Vm {
  const vm = new Vm(options);
  context.after(() => vm.close());
  return vm;
}
