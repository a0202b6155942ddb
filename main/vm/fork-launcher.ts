/** VM processes as forked Node processes: the serve shell's, and everything's that runs without Electron. */
import { type ChildProcess, fork } from 'node:child_process';
import type { Socket } from 'node:net';
import type { ProcessMessage } from '../../engine/contract/index.ts';
import type { Launcher, PortMessage, VmProcess, VmProcessEvents } from './launcher.ts';

export interface ForkOptions {
  /** The program: `engine/host/vm-process.ts` of a checkout, or its built form. */
  readonly entry: string;
  /** The Node to run it with; this process's own unless given. */
  readonly execPath?: string;
  readonly execArgv?: readonly string[];
}

export class ForkLauncher implements Launcher {
  readonly #options: ForkOptions;

  constructor(options: ForkOptions) {
    this.#options = options;
  }

  launch(title: string, events: VmProcessEvents): VmProcess {
    const { entry, execPath = process.execPath, execArgv = [] } = this.#options;
    const child = fork(entry, [title], {
      execPath,
      execArgv: [...execArgv],
      serialization: 'json',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // Ctrl-C in the terminal of the app is for the app, which then ends its VMs in order.
      detached: process.platform !== 'win32',
    });
    child.on('message', (message) => events.message(message as ProcessMessage));
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => events.output(text));
    let ended = false;
    const exit = (code: number | null, signal: string | null): void => {
      if (ended) return;
      ended = true;
      events.exit(code, signal);
    };
    // 'close' comes after the last of its output; 'error' alone when it could not be started at all.
    child.on('close', exit);
    child.on('error', (error) => {
      events.output(`${error.message}\n`);
      if (child.pid === undefined) exit(null, null);
    });
    return new ForkedProcess(child);
  }
}

class ForkedProcess implements VmProcess {
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  send(message: Parameters<VmProcess['send']>[0]): void {
    // A process that has just ended cannot be told; its exit is on its way.
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  handSocket(message: PortMessage, socket: Socket): void {
    if (!this.#child.connected) {
      socket.destroy();
      return;
    }
    this.#child.send(message, socket, { keepOpen: false }, (error) => {
      if (error !== null && error !== undefined) socket.destroy();
    });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}
