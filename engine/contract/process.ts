/**
 * Messages between the app and a VM process (`engine/host/vm-process.ts`). The process is an Electron utility process
 * (`process.parentPort`) or a forked Node process (`process.send`, serialization `json`); messages are the same JSON in
 * both. Only a `port` message carries something beside JSON:
 *
 * - Electron: one MessagePort (`event.ports[0]`). Kind `qmp`: each message is one QMP object; kinds `rfb` and `serial`:
 *   each message is an ArrayBuffer, split anywhere.
 * - Node: a socket handle (the second argument of the 'message' listener) on which a browser has asked for a WebSocket.
 *   The request came with `upgrade`; the process answers it (with `ws`: `new WebSocketServer({noServer: true})
 *   .handleUpgrade(request, socket, head, ...)`) and from then on speaks with the browser directly: no byte of a frame
 *   passes through the app. `qmp` is text messages, `rfb` and `serial` binary ones.
 *
 * Order of things: the parent sends `start`; the process answers `started` or `failed` (and then exits). After
 * `started` the parent's own QMP session is open: the process sends its greeting as the first `qmp` message. A `port`
 * message may come at any time after `started`. When the machine ends, the process sends the QMP event SHUTDOWN and
 * exits; an exit without it is a crash. When the parent goes away (`disconnect`), the process ends the machine.
 */
import type { MachineConfig } from './machine-config.ts';
import type { QmpMessage, QmpRequest } from './qmp.ts';

export type PortKind = 'qmp' | 'rfb' | 'serial';

/** A WebSocket request whose socket comes with the message: what Node's HTTP server read of it. */
export interface UpgradeRequest {
  readonly method: string;
  readonly url: string;
  readonly httpVersion: string;
  /** Header names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes that came after the request's head, in base64; mostly empty. */
  readonly head: string;
}

export type ParentMessage =
  | { readonly type: 'start'; readonly config: MachineConfig }
  | { readonly type: 'qmp'; readonly message: QmpRequest }
  | {
      readonly type: 'port';
      readonly kind: PortKind;
      /** Which serial port; 0 is COM1. */
      readonly index?: number;
      /** `rfb`: nothing from this client reaches the guest. */
      readonly viewOnly?: boolean;
      /** Present where a socket was handed over. */
      readonly upgrade?: UpgradeRequest;
    };

/** Why a machine could not be started, in words for the person who started it. */
export interface StartError {
  /** Stable: `bad-kernel`, `bad-initrd`, `no-memory`, `file-missing`, `port-in-use`, `bad-config`, `internal` ... */
  readonly code: string;
  readonly message: string;
  /** The member of the configuration that is to blame, as a path: `boot.kernel`, `memoryMiB`. */
  readonly field?: string;
}

export type ProcessMessage =
  | { readonly type: 'started'; readonly accelerator: 'jit' | 'kvm' }
  | { readonly type: 'failed'; readonly error: StartError }
  | { readonly type: 'qmp'; readonly message: QmpMessage }
  /** A line for the VM's log. What the process writes to standard output and error goes there too. */
  | { readonly type: 'log'; readonly level: 'info' | 'warning' | 'error'; readonly text: string };
