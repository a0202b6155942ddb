/** VM processes as Electron utility processes. Ports go to them as MessagePortMain, straight from a window. */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { MessageChannelMain, type MessagePortMain, type UtilityProcess, utilityProcess } from 'electron';
import { WebSocketServer } from 'ws';
import type { ProcessMessage } from '../../engine/contract/index.ts';
import type { ToolLauncher } from '../storage/image-tool.ts';
import type { Launcher, PortMessage, VmProcess, VmProcessEvents } from '../vm/launcher.ts';

export class ElectronLauncher implements Launcher {
  readonly #entry: string;

  constructor(entry: string) {
    this.#entry = entry;
  }

  launch(title: string, events: VmProcessEvents): VmProcess {
    const child = utilityProcess.fork(this.#entry, [title], { stdio: 'pipe', serviceName: title });
    child.on('message', (message: ProcessMessage) => events.message(message));
    for (const stream of [child.stdout, child.stderr]) {
      const text = stream as NodeJS.ReadableStream | null;
      text?.setEncoding('utf8');
      text?.on('data', (chunk: string) => events.output(chunk));
    }
    child.once('exit', (code) => events.exit(code, null));
    return new UtilityVmProcess(child);
  }
}

/** The engine's command line as a utility process: the app's own program runs no scripts when it is packed. */
export const electronTool =
  (program: string): ToolLauncher =>
  (args) => {
    const child = utilityProcess.fork(program, [...args], { stdio: 'pipe', serviceName: 'vivarium img' });
    const listen = (stream: unknown, listener: (text: string) => void): void => {
      const readable = stream as NodeJS.ReadableStream | null;
      readable?.setEncoding('utf8');
      readable?.on('data', listener);
    };
    return {
      onOutput: (listener) => listen(child.stdout, listener),
      onError: (listener) => listen(child.stderr, listener),
      ended: new Promise((resolve) => {
        child.once('exit', (code) => resolve(code));
      }),
      kill: () => void child.kill(),
    };
  };

class UtilityVmProcess implements VmProcess {
  readonly #child: UtilityProcess;
  readonly #sockets = new WebSocketServer({ noServer: true });

  constructor(child: UtilityProcess) {
    this.#child = child;
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  send(message: Parameters<VmProcess['send']>[0]): void {
    this.#child.postMessage(message);
  }

  handPort(message: PortMessage, port: unknown): void {
    this.#child.postMessage(message, [port as MessagePortMain]);
  }

  /**
   * A utility process takes ports, not sockets: the stream of a command (`vivarium console`) is carried over a port
   * here. Windows never come this way.
   */
  handSocket({ upgrade, ...message }: PortMessage, socket: Socket): void {
    if (upgrade === undefined) return;
    this.#sockets.handleUpgrade(
      { ...upgrade } as unknown as IncomingMessage,
      socket,
      Buffer.from(upgrade.head, 'base64'),
      (client) => {
        const { port1, port2 } = new MessageChannelMain();
        this.handPort(message, port2);
        client.on('message', (data: Buffer, binary) =>
          port1.postMessage(binary ? Uint8Array.from(data).buffer : JSON.parse(data.toString())),
        );
        port1.on('message', ({ data }) => client.send(data instanceof ArrayBuffer ? Buffer.from(data) : JSON.stringify(data)));
        client.on('close', () => port1.close());
        client.on('error', () => client.terminate());
        port1.on('close', () => client.close());
        port1.start();
      },
    );
  }

  kill(): void {
    const { pid } = this.#child;
    // Electron's own way asks politely; a machine that is killed was asked before.
    if (pid !== undefined && process.platform !== 'win32') process.kill(pid, 'SIGKILL');
    else this.#child.kill();
  }
}
