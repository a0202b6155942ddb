/**
 * Work on images that no machine has open, by the engine's own `img` command in a process of its own: a damaged image,
 * or one as large as the disk, keeps no window waiting and ends nothing but that process.
 */
import { spawn } from 'node:child_process';
import { AppError } from '../contract/index.ts';
import type { TaskReport } from '../tasks/tasks.ts';

export interface ToolProcess {
  /** Standard output and error as they come. */
  onOutput(listener: (text: string) => void): void;
  onError(listener: (text: string) => void): void;
  /** Resolves with the exit status; null where a signal ended it. */
  readonly ended: Promise<number | null>;
  kill(): void;
}

/** Starts the engine's command line with these arguments; another one under Electron. */
export type ToolLauncher = (args: readonly string[]) => ToolProcess;

/** The command line as a process of this Node. */
export const forkTool =
  (program: string): ToolLauncher =>
  (args) => {
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
    return {
      onOutput: (listener) => void child.stdout.setEncoding('utf8').on('data', listener),
      onError: (listener) => void child.stderr.setEncoding('utf8').on('data', listener),
      ended: new Promise((resolve) => {
        child.on('error', () => resolve(null));
        child.on('close', (code) => resolve(code));
      }),
      kill: () => void child.kill('SIGKILL'),
    };
  };

/** An image as `img info --output=json` tells it. */
export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly 'virtual-size': number;
  readonly 'actual-size'?: number;
  readonly 'backing-filename'?: string;
  readonly 'full-backing-filename'?: string;
  readonly snapshots?: readonly { readonly id: string; readonly name: string }[];
}

/** A snapshot as `img snapshot -l --output=json` tells it. */
export interface ImageSnapshot {
  readonly id: string;
  readonly name: string;
  readonly 'vm-state-size': number;
  readonly 'date-sec': number;
  readonly 'vm-clock-nsec': number;
  readonly 'exclusive-size': number;
}

const outputLimit = 16 << 20;

export class ImageTool {
  readonly #launch: ToolLauncher;

  constructor(launch: ToolLauncher) {
    this.#launch = launch;
  }

  /** Runs `img` with these arguments; resolves with what it printed, rejects in its words. `statuses` count as success. */
  async run(args: readonly string[], report?: TaskReport, statuses: readonly number[] = [0]): Promise<string> {
    report?.signal.throwIfAborted();
    const child = this.#launch(['img', ...args]);
    let output = '';
    let errors = '';
    child.onOutput((text) => {
      const found = /\((\d+(?:\.\d+)?)\/100%\)[^(]*$/.exec(text);
      if (found !== null) report?.progress(Number(found[1]) / 100);
      else if (output.length < outputLimit) output += text;
    });
    child.onError((text) => {
      if (errors.length < outputLimit) errors += text;
    });
    const abort = (): void => child.kill();
    report?.signal.addEventListener('abort', abort);
    const status = await child.ended;
    report?.signal.removeEventListener('abort', abort);
    report?.signal.throwIfAborted();
    if (status === null || !statuses.includes(status)) throw problemOf(errors);
    return output;
  }

  async info(path: string): Promise<ImageInfo> {
    return JSON.parse(await this.run(['info', '-U', '--output=json', path])) as ImageInfo;
  }

  /** The image and all it lies on, topmost first. */
  async chain(path: string): Promise<ImageInfo[]> {
    return JSON.parse(await this.run(['info', '-U', '--backing-chain', '--output=json', path])) as ImageInfo[];
  }

  async snapshots(path: string): Promise<ImageSnapshot[]> {
    return JSON.parse(await this.run(['snapshot', '-U', '-l', '--output=json', path])) as ImageSnapshot[];
  }
}

/** The tool's last words as an error. */
function problemOf(errors: string): AppError {
  const lines = errors.trim().split('\n');
  const text = lines
    .filter((line) => !/warning:/.test(line))
    .join(' ')
    .replace(/^vivarium( img)?: /, '');
  if (/No such file/.test(text)) return new AppError('file-missing', text);
  if (/Permission denied/.test(text)) return new AppError('file-unreadable', text);
  if (/Failed to get .* lock|another process/.test(text))
    return new AppError('wrong-state', `${text.replaceAll('\n', ' ')} A machine or another program has the image open.`);
  return new AppError('bad-file', text === '' ? 'The image tool ended without a word' : text);
}
