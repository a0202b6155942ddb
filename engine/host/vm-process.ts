/**
 * Entry point of a VM process of the app: starts the machine that the parent describes, carries the parent's QMP
 * session, and takes the ports and sockets it hands over. The messages are engine/contract/process.ts.
 */
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import type { MachineConfig } from '../contract/machine-config.ts';
import type { ParentMessage, ProcessMessage, StartError } from '../contract/process.ts';
import type { QmpMessage } from '../contract/qmp.ts';
import type { ByteChannel, ByteChannelListener } from '../display/channel.ts';
import type { MachineController } from '../machine/control.ts';
import { startMachine } from '../machine/main.ts';
import { ChardevSet } from './chardev-open.ts';
import { MessagePortChannel, type PortLike } from './message-port-channel.ts';
import { attachQmpPort, messagePort, type QmpPort } from './qmp-port.ts';
import { type ControlService, startControl } from './qmp-service.ts';

/** The parent at the other end: Electron's, or a Node process's. */
interface Parent {
  send(message: ProcessMessage): void;
  listen(onMessage: (message: ParentMessage, carried: unknown) => void, onGone: () => void): void;
}

interface ElectronParentPort {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (event: { data: ParentMessage; ports: unknown[] }) => void): void;
}

function findParent(): Parent {
  const port = (process as unknown as { parentPort?: ElectronParentPort }).parentPort;
  if (port !== undefined && port !== null)
    return {
      send: (message) => port.postMessage(message),
      listen: (onMessage) => port.on('message', ({ data, ports }) => onMessage(data, ports[0])),
    };
  return {
    send: (message) => void process.send?.(message, undefined, undefined, () => {}),
    listen(onMessage, onGone) {
      process.on('message', (message: ParentMessage, handle: unknown) => onMessage(message, handle));
      process.on('disconnect', onGone);
    },
  };
}

const parent = findParent();
const log = (level: 'info' | 'warning' | 'error', text: string): void => parent.send({ type: 'log', level, text });
const sockets = new WebSocketServer({ noServer: true, maxPayload: 1 << 20 });

let machine: MachineController | undefined;
let control: ControlService | undefined;
let listeners: ((message: unknown) => void)[] = [];

/** The parent's own QMP session, over the process channel. */
const parentQmp: QmpPort = {
  post: (message) => parent.send({ type: 'qmp', message: message as QmpMessage }),
  onMessage: (listener) => listeners.push(listener),
  onClose: () => {},
  close: () => {},
};

async function start(config: MachineConfig): Promise<void> {
  const chardevs = new ChardevSet();
  try {
    await chardevs.start(config.chardevs, { quit: () => void machine?.quit('host-signal') });
    machine = await startMachine(config, {
      chardevs: chardevs.devices,
      log: (line) => log('info', line),
      warn: (message) => log('warning', message),
    });
    control = await startControl({
      machine,
      chardevs,
      monitors: config.monitors,
      sockets: config.sockets.qmp,
      gdb: config.sockets.gdb,
    });
  } catch (cause) {
    parent.send({ type: 'failed', error: describe(cause) });
    setTimeout(() => process.exit(1), 50);
    return;
  }
  parent.send({ type: 'started', accelerator: machine.accelerator });
  attachQmpPort(control.server, parentQmp);
  const status = await machine.exited;
  await control.close();
  await chardevs.close();
  // The last messages are on their way to the parent.
  setTimeout(() => process.exit(status), 50);
}

function describe(cause: unknown): StartError {
  if (!(cause instanceof Error)) return { code: 'internal', message: String(cause) };
  const { code, field } = cause as { code?: unknown; field?: unknown };
  return {
    code: typeof code === 'string' ? code : 'internal',
    message: typeof code === 'string' ? cause.message : (cause.stack ?? cause.message),
    ...(typeof field === 'string' ? { field } : {}),
  };
}

// --- streams ---------------------------------------------------------------------------------------------------

/** Bytes over a WebSocket. */
class WebSocketChannel implements ByteChannel {
  readonly peer = 'app';
  readonly #socket: WebSocket;
  constructor(socket: WebSocket) {
    this.#socket = socket;
  }
  get bufferedAmount(): number {
    return this.#socket.bufferedAmount;
  }
  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send(bytes, { binary: true }, () => {
      if (this.#socket.bufferedAmount === 0) this.#listener?.drained();
    });
  }
  close(): void {
    this.#socket.close();
  }
  #listener: ByteChannelListener | undefined;
  listen(listener: ByteChannelListener): void {
    this.#listener = listener;
    this.#socket.on('message', (data: Buffer) => listener.data(new Uint8Array(data.buffer, data.byteOffset, data.length)));
    this.#socket.on('close', () => listener.closed());
    this.#socket.on('error', () => this.#socket.terminate());
  }
}

type PortMessage = Extract<ParentMessage, { type: 'port' }>;

/** Gives a stream to the part of the machine that it is for. */
function connect(message: PortMessage, channel: ByteChannel): void {
  if (machine === undefined) {
    channel.close();
    return;
  }
  if (message.kind === 'rfb') {
    if (machine.rfb === undefined) channel.close();
    else machine.rfb.accept(channel, { trusted: true, viewOnly: message.viewOnly === true });
    return;
  }
  // A slow reader of a serial port loses nothing but its connection: what it missed is in the history it gets anew.
  const limit = 4 << 20;
  const serial = machine.openSerial(message.index ?? 0, (data) => {
    if ((channel.bufferedAmount ?? 0) > limit) channel.close();
    else channel.send(new Uint8Array(data));
  });
  if (serial === undefined) {
    channel.close();
    return;
  }
  channel.listen({ data: (bytes) => serial.write(bytes), closed: () => serial.close(), drained: () => {} });
}

function takePort(message: PortMessage, carried: unknown): void {
  if (message.upgrade === undefined) {
    if (carried === undefined || carried === null) return;
    if (message.kind !== 'qmp') connect(message, new MessagePortChannel(carried as PortLike));
    else if (control !== undefined) attachQmpPort(control.server, messagePort(carried as never));
    return;
  }
  const socket = carried as Socket | undefined;
  if (socket === undefined) return;
  if (control === undefined) {
    socket.destroy();
    return;
  }
  const { server } = control;
  const { method, url, httpVersion, headers, head } = message.upgrade;
  const request = { method, url, httpVersion, headers, socket } as unknown as IncomingMessage;
  sockets.handleUpgrade(request, socket, Buffer.from(head, 'base64'), (client) => {
    if (message.kind !== 'qmp') connect(message, new WebSocketChannel(client));
    else
      attachQmpPort(server, {
        text: true,
        post: (text) => client.send(String(text)),
        onMessage: (listener) => client.on('message', (data: Buffer) => listener(data.toString())),
        onClose: (listener) => client.on('close', listener),
        close: () => client.close(),
      });
  });
}

parent.listen(
  (message, carried) => {
    if (message.type === 'start') void start(message.config);
    else if (message.type === 'qmp') for (const listener of listeners) listener(message.message);
    else takePort(message, carried);
  },
  () => {
    // Without the app nobody can reach this machine any more.
    listeners = [];
    if (machine === undefined) process.exit(0);
    void machine.quit('host-signal');
    setTimeout(() => process.exit(0), 3000).unref();
  },
);
process.on('SIGTERM', () => {
  if (machine === undefined) process.exit(0);
  void machine.quit('host-signal');
});
process.on('uncaughtException', (error) => {
  log('error', error.stack ?? error.message);
  process.exitCode = 1;
  setTimeout(() => process.exit(1), 50);
});
