import { lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net';
import type { ByteChannel, ByteChannelListener } from '../display/channel.ts';
import type { RfbServer, SharePolicy } from '../display/server.ts';

/** Display 0 of VNC is this TCP port. */
const BASE_PORT = 5900;
const LAST_PORT = 65535;

/** Where and how a `-vnc` option wants the display served. */
export interface VncOption {
  /** Undefined: `-vnc none`. */
  readonly address: { kind: 'tcp'; host: string; port: number; lastPort: number } | { kind: 'unix'; path: string } | undefined;
  /** `password=on`: nobody comes in before a password was set. */
  readonly password: boolean;
  readonly share: SharePolicy;
}

/**
 * Reads the argument of `-vnc` in QEMU's form: `:N`, `host:N`, `[v6]:N`, `unix:path` or `none`, then `,password=on`,
 * `,share=allow-exclusive|force-shared|ignore`, `,to=L` (try displays N to L). As in QEMU, an empty host means all
 * interfaces. Throws an Error that names what it does not understand.
 */
export function parseVncOption(text: string): VncOption {
  // A comma in a path is written twice.
  const [display, ...settings] = text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','));
  let password = false;
  let share: SharePolicy = 'allow-exclusive';
  let to: number | undefined;
  for (const setting of settings) {
    const [key, value = 'on'] = setting.split('=', 2);
    if (key === 'password' && (value === 'on' || value === 'off')) password = value === 'on';
    else if (key === 'share' && (value === 'allow-exclusive' || value === 'force-shared' || value === 'ignore')) share = value;
    else if (key === 'to' && /^\d{1,5}$/.test(value)) to = Number(value);
    else throw new Error(`-vnc ${text}: "${setting}" is not supported`);
  }
  if (display === 'none') return { address: undefined, password, share };
  if (display.startsWith('unix:')) {
    if (display.length === 5) throw new Error(`-vnc ${text}: the path of the socket is missing`);
    return { address: { kind: 'unix', path: display.slice(5) }, password, share };
  }
  const match = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(display);
  if (match === null) throw new Error(`-vnc ${text}: expected :N, host:N, unix:path or none`);
  const port = BASE_PORT + Number(match[3]);
  const lastPort = to === undefined ? port : BASE_PORT + to;
  if (lastPort > LAST_PORT || lastPort < port) throw new Error(`-vnc ${text}: there is no such display`);
  return { address: { kind: 'tcp', host: match[1] ?? match[2], port, lastPort }, password, share };
}

/** A listening socket for VNC clients. */
export interface RfbListener {
  /** As a client would name it: `host:port` or the path. */
  readonly address: string;
  /** The TCP port; undefined for a Unix socket. */
  readonly port: number | undefined;
  /** Stops listening; connections that are open go on. */
  close(): Promise<void>;
}

/**
 * Serves `server` at an address. Port 0 lets the system choose. Rejects with an Error that says what failed (port in
 * use, no such host, no permission).
 */
export async function listenRfb(server: RfbServer, address: NonNullable<VncOption['address']>): Promise<RfbListener> {
  const listener = createServer((socket) => server.accept(new SocketChannel(socket)));
  if (address.kind === 'unix') {
    await removeStaleSocket(address.path);
    await listen(listener, { path: address.path }, address.path);
    return { address: address.path, port: undefined, close: () => close(listener) };
  }
  for (let port = address.port; ; port++) {
    const name = `${address.host.includes(':') ? `[${address.host}]` : address.host || '*'}:${port}`;
    try {
      await listen(listener, { host: address.host || undefined, port }, name);
      const bound = listener.address();
      const chosen = typeof bound === 'object' && bound !== null ? bound.port : port;
      return { address: name.replace(/\d+$/, String(chosen)), port: chosen, close: () => close(listener) };
    } catch (error) {
      if (port >= address.lastPort || !isInUse(error)) throw error;
    }
  }
}

function isInUse(error: unknown): boolean {
  return error instanceof Error && error.cause instanceof Error && 'code' in error.cause && error.cause.code === 'EADDRINUSE';
}

function listen(listener: Server, options: ListenOptions, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException): void => {
      const why = cause.code === 'EADDRINUSE' ? 'it is in use' : cause.message;
      reject(new Error(`cannot listen for VNC at ${name}: ${why}`, { cause }));
    };
    listener.once('error', failed);
    listener.listen(options, () => {
      listener.off('error', failed);
      // Later errors are of single connections that could not be accepted; the listener goes on.
      listener.on('error', () => {});
      resolve();
    });
  });
}

function close(listener: Server): Promise<void> {
  return new Promise((resolve) => listener.close(() => resolve()));
}

/** Removes a socket that a process left behind: one that nobody answers at. */
function removeStaleSocket(path: string): Promise<void> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve();
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED') unlinkSocket(path).then(resolve, () => resolve());
      else resolve();
    });
  });
}

/** A connection to a plain file is refused, too: that is somebody's data, and stays. */
async function unlinkSocket(path: string): Promise<void> {
  if ((await lstat(path)).isSocket()) await unlink(path);
}

/** A byte channel over a socket. */
export class SocketChannel implements ByteChannel {
  readonly peer: string;
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.peer = socket.remoteAddress ?? 'unix socket';
    socket.setNoDelay(true);
    // An error is always followed by 'close'; without a listener it would end the process.
    socket.on('error', () => {});
  }

  get bufferedAmount(): number {
    return this.#socket.writableLength;
  }

  listen(listener: ByteChannelListener): void {
    this.#socket.on('data', (bytes) => listener.data(bytes as Uint8Array));
    this.#socket.on('drain', () => listener.drained());
    this.#socket.on('close', () => listener.closed());
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  close(): void {
    if (this.#socket.destroyed) return;
    this.#socket.end();
    // A client that never reads would keep the last bytes, and the socket, for ever.
    const timer = setTimeout(() => this.#socket.destroy(), 5000);
    timer.unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }
}
