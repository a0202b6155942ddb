/** The machines that are compared: this engine, QEMU TCG and v86, each a process with the guest's serial port on its pipes. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpuFeatures } from '../../engine/x86/system/cpuid.ts';
import type { GuestArchitecture } from '../../main/guests/debian.ts';

export const root = join(import.meta.dirname, '../..');
/** Kernel and initial RAM disk of the sample guest. */
export const guestFiles = (architecture: GuestArchitecture): { kernel: string; initrd: string } => {
  const folder = join(root, '.cache', 'guests', `debian-${architecture}`);
  return { kernel: join(folder, 'vmlinuz'), initrd: join(folder, 'initrd.img') };
};
export const { kernel: guestKernel, initrd: guestInitrd } = guestFiles('amd64');

const qemu = '/usr/bin/qemu-system-x86_64';

export interface Peer {
  readonly name: string;
  /** Program and the options that only this one needs. */
  readonly command: readonly string[];
  /** False: the process goes on when the guest has turned its machine off. */
  readonly ends: boolean;
}

export const ours: Peer = {
  name: 'vivarium',
  command: [process.execPath, join(root, 'engine', 'cli', 'main.ts'), 'run', '-cpu', 'max'],
  ends: true,
};

/**
 * What QEMU's `max` has that ours has not: programs choose their code by it. Names are QEMU's, in the spelling of
 * version 7.2.
 */
const aboveOurs = (() => {
  const has = cpuFeatures('max')?.config.features ?? new Set<string>();
  const known =
    'pclmulqdq aes rdrand rdseed adx bmi1 bmi2 abm erms avx avx2 fma f16c xsave xsaveopt xgetbv1 clwb clflushopt sha-ni 3dnow 3dnowext mmxext sse4a movbe pku la57 pcid invpcid';
  return known.split(' ').filter((name) => !has.has(name.replace('sha-ni', 'sha')));
})();

/** QEMU's translator with the CPU features that ours has; undefined where QEMU is not installed. */
export function findPeer(): Peer | undefined {
  if (!existsSync(qemu)) return undefined;
  const cpu = ['max', ...aboveOurs.map((name) => `-${name}`)].join();
  return { name: 'qemu-tcg', command: [qemu, '-accel', 'tcg', '-cpu', cpu], ends: true };
}

/** This engine without what this QEMU cannot do: it is asked for all that programs choose their code by, and says what it has not. */
export function oursLikeQemu(): Peer {
  const has = cpuFeatures('max')?.config.features ?? new Set<string>();
  const chosenBy =
    'aes pclmulqdq avx avx2 fma f16c bmi1 bmi2 abm adx movbe rdrand rdseed sha-ni vaes vpclmulqdq erms rdpid xsavec';
  const wanted = chosenBy.split(' ').filter((name) => has.has(name));
  const cpu = ['max', ...wanted.map((name) => `+${name}`), 'enforce'].join();
  // It ends by itself where a feature is missing, and by this command where none is.
  const words = ['-accel', 'tcg', '-cpu', cpu, '-S', '-display', 'none', '-nodefaults', '-monitor', 'stdio'];
  const { stderr } = spawnSync(qemu, words, { input: 'quit\n', encoding: 'utf8', timeout: 10_000 });
  const missing = [...(stderr ?? '').matchAll(/requested feature: \S+\.([\w-]+) \[bit/g)].map(([, name]) => name);
  return oursWith(['max', ...missing.filter((name) => has.has(name)).map((name) => `-${name}`)].join());
}

/** This engine with what v86 has: its CPUID names no more than SSE3 and these. */
export const oursLikeV86 = (): Peer => oursWith('qemu32,+popcnt,+rdrand,+erms');

const oursWith = (cpu: string): Peer => ({ ...ours, command: [...ours.command.slice(0, -1), cpu] });

/** v86 from its npm package, which `run.mjs` puts here; undefined: it did not. */
export function findV86(): Peer | undefined {
  if (!existsSync(join(v86Folder, 'package.json'))) return undefined;
  return { name: 'v86', command: [process.execPath, join(import.meta.dirname, 'v86.ts'), v86Folder], ends: false };
}
const v86Folder = join(root, '.cache', 'bench', 'v86', 'node_modules', 'v86');

/** First line of `-version`, or why there is none. */
export function versionOf({ name, command }: Peer): string {
  const versionIn = (folder: string): string =>
    (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string }).version;
  if (name === 'vivarium') return versionIn(root);
  if (name === 'v86') return versionIn(v86Folder);
  return execFileSync(command[0], ['-version'], { encoding: 'utf8' }).split('\n')[0].trim();
}

const running = new Set<ChildProcess>();
/** What this engine keeps between runs: empty at first, so that a benchmark begins as on a new machine, and later rounds do not. */
let cache: string | undefined;

/** Ends what is still running. */
export function endAll(): void {
  for (const child of running) child.kill('SIGKILL');
  if (cache !== undefined) rmSync(cache, { recursive: true, force: true });
  cache = undefined;
}

/** A machine with the guest's serial port on its standard streams. */
export class BenchMachine {
  readonly #child: ChildProcess;
  readonly #began = performance.now();
  readonly #waiting = new Set<() => void>();
  #text = '';
  #errors = '';
  #ended: number | undefined;

  constructor({ command }: Peer, options: readonly string[]) {
    const [program, ...first] = command;
    cache ??= mkdtempSync(join(tmpdir(), 'bench-cache-'));
    const env = { ...process.env, XDG_CACHE_HOME: cache };
    this.#child = spawn(program, [...first, ...options], { stdio: ['pipe', 'pipe', 'pipe'], env });
    running.add(this.#child);
    const { stdin, stdout, stderr } = this.#child;
    stdin?.on('error', () => {});
    stdout?.setEncoding('latin1').on('data', (text: string) => {
      this.#text += text;
      this.#tell();
    });
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#errors += text;
    });
    const ended = (): void => {
      running.delete(this.#child);
      this.#ended ??= this.elapsed;
      this.#tell();
    };
    this.#child.on('error', (error) => {
      this.#errors += error.message;
      ended();
    });
    this.#child.on('exit', ended);
  }

  /** Seconds since the process was started. */
  get elapsed(): number {
    return (performance.now() - this.#began) / 1000;
  }
  /** What the guest has written. */
  get text(): string {
    return this.#text;
  }
  get status(): number | null {
    return this.#child.exitCode;
  }

  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Seconds from process start until the guest has written `pattern`; rejects where it ends first or takes too long. */
  async until(pattern: RegExp, limitSeconds: number): Promise<number> {
    await this.#when(() => pattern.test(this.#text), limitSeconds, `the guest did not write ${pattern}`);
    if (!pattern.test(this.#text)) throw new Error(`the machine ended without ${pattern}: ${this.#lastWords()}`);
    return this.elapsed;
  }

  /** Seconds from process start until the process ended by itself. */
  async end(limitSeconds: number): Promise<number> {
    await this.#when(() => this.#ended !== undefined, limitSeconds, 'the machine did not end');
    return this.#ended as number;
  }

  /** Host CPU that the process has used, in seconds (proc(5): utime and stime, in ticks of 10 ms). */
  get cpuSeconds(): number {
    const fields = readFileSync(`/proc/${this.#child.pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }
  /** Resident memory of the process, in MiB. */
  get residentMiB(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'latin1'))?.[1]) / 1024;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #lastWords(): string {
    return (this.#errors.trim() || this.#text.trim()).split('\n').slice(-3).join(' | ');
  }
  #tell(): void {
    for (const look of this.#waiting) look();
  }
  #when(done: () => boolean, limitSeconds: number, problem: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`${problem} in ${limitSeconds} s: ${this.#lastWords()}`));
      }, limitSeconds * 1000);
      const look = (): void => {
        if (!done() && this.#ended === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
  }
}
