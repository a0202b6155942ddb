/**
 * How a VM process is started and spoken to. `fork-launcher.ts` does it with a Node child process,
 * `shell/electron-launcher.ts` with an Electron utility process; services know only this.
 */
import type { Socket } from 'node:net';
import type { ParentMessage, ProcessMessage } from '../../engine/contract/index.ts';

export type PortMessage = Extract<ParentMessage, { type: 'port' }>;

export interface VmProcess {
  readonly pid: number | null;
  send(message: ParentMessage): void;
  /**
   * Gives the process a socket on which a client asked for a WebSocket (`message.upgrade`). From then on the process
   * answers; nothing of the stream passes through here.
   */
  handSocket(message: PortMessage, socket: Socket): void;
  /** Gives the process a message port (Electron's MessagePortMain); absent where there are none. */
  handPort?(message: PortMessage, port: unknown): void;
  /** Ends the process at once. */
  kill(): void;
}

export interface VmProcessEvents {
  message(message: ProcessMessage): void;
  /** Standard output and error of the process. */
  output(text: string): void;
  /** Told once. `code` is null when a signal ended it. */
  exit(code: number | null, signal: string | null): void;
}

export interface Launcher {
  /** Starts a VM process; what fails later is told by `exit`. `title` is what process lists show. */
  launch(title: string, events: VmProcessEvents): VmProcess;
}
