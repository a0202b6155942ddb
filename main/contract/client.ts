/**
 * The window's end of the channels, the same over both shells:
 *
 *     const client = createClient(transportOfPage());
 *     const { vms } = await client.request('vm.list', {});
 *     client.on('vm.changed', (summary) => ...);
 *     const rfb = new RFB(element, await client.openStream(id, 'rfb'));
 *
 * Under Electron the preload puts `vivarium: PreloadBridge` on the window; under the serve shell the page speaks
 * WebSocket to where it came from: `/api` for requests and events, `/vm/ID/KIND/INDEX` for streams.
 */
import type { PortKind } from '../../engine/contract/index.ts';
import type {
  AnswerMessage,
  EventMessage,
  EventName,
  Events,
  RequestArgs,
  RequestMessage,
  RequestName,
  RequestResult,
} from './channels.ts';
import { AppError } from './errors.ts';
import { type ByteStream, type PagePort, portStream, socketStream } from './stream.ts';

export type { PortKind } from '../../engine/contract/index.ts';

/** Whether the connection to the services stands. `waiting`: it is being made again. */
export type ConnectionState = 'connecting' | 'open' | 'waiting' | 'refused';

/** What carries messages between a client and the services. */
export interface Transport {
  send(message: RequestMessage): void;
  /** Set by the client. */
  onMessage: (message: AnswerMessage | EventMessage) => void;
  /** Set by the client: told of each change. On anything but `open`, requests under way fail. */
  onState: (state: ConnectionState) => void;
  openStream(vm: string, kind: PortKind, index: number): Promise<ByteStream>;
}

/** What Electron's preload script exposes as `window.vivarium`. Ports come as messages of the window: `{vivariumPort: token}`. */
export interface PreloadBridge {
  send(message: RequestMessage): void;
  listen(listener: (message: AnswerMessage | EventMessage) => void): void;
  /** Asks for a port; it arrives by `window.onmessage` with `data.vivariumPort === token`, or `data.error` an envelope. */
  openPort(token: string, vm: string, kind: PortKind, index: number): void;
  /** The path of a file dropped on the window. */
  pathOfFile(file: unknown): string;
}

export interface Client {
  /** Rejects with an AppError. */
  request<N extends RequestName>(name: N, args: RequestArgs<N>): Promise<RequestResult<N>>;
  /** Calls the listener for each event until the returned function is called. */
  on<N extends EventName>(name: N, listener: (payload: Events[N]) => void): () => void;
  onState(listener: (state: ConnectionState) => void): () => void;
  readonly state: ConnectionState;
  /** A stream to the VM's process; rejects with an AppError when the VM does not run. */
  openStream(vm: string, kind: PortKind, index?: number): Promise<ByteStream>;
}

export function createClient(transport: Transport): Client {
  let nextId = 1;
  let state: ConnectionState = 'connecting';
  const waiting = new Map<number, { resolve: (value: never) => void; reject: (error: AppError) => void }>();
  const listeners = new Map<string, Set<(payload: never) => void>>();
  const stateListeners = new Set<(state: ConnectionState) => void>();

  transport.onMessage = (message) => {
    if ('event' in message) {
      for (const listener of [...(listeners.get(message.event) ?? [])]) listener(message.payload as never);
      return;
    }
    const entry = waiting.get(message.id);
    if (entry === undefined) return;
    waiting.delete(message.id);
    if ('error' in message) entry.reject(AppError.from(message.error));
    else entry.resolve(message.result as never);
  };
  transport.onState = (next) => {
    state = next;
    if (next !== 'open') {
      for (const { reject } of waiting.values()) reject(new AppError('host', 'The connection to Vivarium was lost'));
      waiting.clear();
    }
    for (const listener of [...stateListeners]) listener(next);
  };

  return {
    get state() {
      return state;
    },
    request(name, args) {
      const id = nextId++;
      return new Promise((resolve, reject) => {
        waiting.set(id, { resolve: resolve as never, reject });
        transport.send({ id, request: name, args });
      });
    },
    on(name, listener) {
      const set = listeners.get(name) ?? new Set();
      listeners.set(name, set.add(listener as never));
      return () => set.delete(listener as never);
    },
    onState(listener) {
      stateListeners.add(listener);
      return () => stateListeners.delete(listener);
    },
    openStream: (vm, kind, index = 0) => transport.openStream(vm, kind, index),
  };
}

/** The transport of the page this runs in: the preload's bridge where there is one, else WebSockets to the page's host. */
export function transportOfPage(page: PageLike = globalThis as unknown as PageLike): Transport {
  return page.vivarium === undefined ? socketTransport(page) : bridgeTransport(page, page.vivarium);
}

/** The parts of a window that transports use; the contract is checked without the DOM's types. */
export interface PageLike {
  readonly vivarium?: PreloadBridge;
  readonly location: { readonly protocol: string; readonly host: string };
  addEventListener(type: 'message', listener: (event: { data: unknown; ports: readonly PagePort[] }) => void): void;
}

function bridgeTransport(page: PageLike, bridge: PreloadBridge): Transport {
  const ports = new Map<string, { resolve: (stream: ByteStream) => void; reject: (error: AppError) => void }>();
  let nextToken = 1;
  const transport: Transport = {
    send: (message) => bridge.send(message),
    onMessage: () => {},
    onState: () => {},
    openStream(vm, kind, index) {
      const token = `port-${nextToken++}`;
      return new Promise((resolve, reject) => {
        ports.set(token, { resolve, reject });
        bridge.openPort(token, vm, kind, index);
      });
    },
  };
  bridge.listen((message) => transport.onMessage(message));
  page.addEventListener('message', ({ data, ports: received }) => {
    if (typeof data !== 'object' || data === null || !('vivariumPort' in data)) return;
    const entry = ports.get(String(data.vivariumPort));
    if (entry === undefined) return;
    ports.delete(String(data.vivariumPort));
    if (received.length > 0) entry.resolve(portStream(received[0]));
    else entry.reject(AppError.from((data as unknown as { error: { code: 'engine'; message: string } }).error));
  });
  queueMicrotask(() => transport.onState('open'));
  return transport;
}

/** Milliseconds between two attempts to connect again. */
const retryMs = 1000;

function socketTransport(page: PageLike): Transport {
  const base = `${page.location.protocol === 'https:' ? 'wss' : 'ws'}://${page.location.host}`;
  let queue: string[] = [];
  let socket: WebSocket;
  let everOpen = false;
  const transport: Transport = {
    send(message) {
      const text = JSON.stringify(message);
      if (socket.readyState === WebSocket.OPEN) socket.send(text);
      else queue.push(text);
    },
    onMessage: () => {},
    onState: () => {},
    openStream(vm, kind, index) {
      return new Promise((resolve, reject) => {
        const stream = new WebSocket(`${base}/vm/${vm}/${kind}/${index}`);
        stream.binaryType = 'arraybuffer';
        const ready = socketStream(stream);
        stream.addEventListener('open', () => resolve(ready), { once: true });
        stream.addEventListener('error', () => reject(new AppError('engine', 'The VM gave no connection: it may have ended')), {
          once: true,
        });
      });
    },
  };
  const connect = (): void => {
    socket = new WebSocket(`${base}/api`);
    socket.addEventListener('open', () => {
      everOpen = true;
      transport.onState('open');
      for (const text of queue.splice(0)) socket.send(text);
    });
    socket.addEventListener('message', ({ data }) => transport.onMessage(JSON.parse(String(data))));
    socket.addEventListener('close', () => {
      queue = [];
      transport.onState(everOpen ? 'waiting' : 'refused');
      setTimeout(connect, retryMs);
    });
  };
  connect();
  return transport;
}
