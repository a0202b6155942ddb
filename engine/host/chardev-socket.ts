/**
 * Character devices over sockets, Unix and TCP, as server or client. A server has one client at a time, as QEMU's
 * have: others wait until it goes. A client tries again after `reconnect` seconds.
 */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net';
import { ChardevBase } from './chardev-base.ts';
import { ChardevError, type ChardevOptions } from './chardev-types.ts';

type Options = Extract<ChardevOptions, { backend: 'socket' }>;

/** Clients that may wait for their turn. */
const maxQueued = 8;

/** The address as text, for messages and `query-chardev`. */
export function describeAddress(address: Options['address']): string {
  if (address.type === 'unix') return `unix:${address.path}`;
  return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

function connectOptions(address: Options['address']): NetConnectOpts {
  if (address.type === 'unix') return { path: address.path };
  return { host: address.host === '' ? 'localhost' : address.host, port: address.port, family: address.family };
}

function reason(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case 'EADDRINUSE':
      return 'the address is in use by another program';
    case 'EACCES':
      return 'permission denied';
    case 'ECONNREFUSED':
      return 'nothing listens there';
    case 'ENOENT':
      return 'no such file or directory';
    case 'ENOTFOUND':
      return 'no such host';
    default:
      return error.message;
  }
}

/** Removes the socket that a dead process left; throws where a living one, or another kind of file, has the name. */
export async function clearStaleSocket(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isSocket()) throw new ChardevError(`'${path}' exists and is no socket`);
  const alive = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
    });
    probe.on('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT'));
  });
  if (alive) throw new ChardevError(`'${path}' is in use by another program`);
  unlinkSync(path);
}

export class SocketChardev extends ChardevBase {
  readonly #options: Options;
  #server: Server | undefined;
  #socket: Socket | undefined;
  #queued: Socket[] = [];
  #retry: NodeJS.Timeout | undefined;
  #closed = false;
  #port: number;

  constructor(options: Options) {
    super(options);
    this.#options = options;
    this.#port = options.address.type === 'tcp' ? options.address.port : 0;
  }

  get filename(): string {
    const { address, server } = this.#options;
    const shown = address.type === 'tcp' ? { ...address, port: this.#port } : address;
    const prefix = this.#socket === undefined && !this.open ? 'disconnected:' : '';
    return `${prefix}${describeAddress(shown)}${server ? ',server=on' : ''}`;
  }

  /** The TCP port that is listened on: the one asked for, or the host's choice where that was 0. */
  get port(): number {
    return this.#port;
  }

  override get terminal(): boolean {
    return true;
  }

  async start(): Promise<void> {
    if (this.#options.server) {
      await this.#listen();
      if (this.#options.wait && !this.open)
        await new Promise<void>((resolve) => this.#server?.once('connection', () => resolve()));
      return;
    }
    try {
      await this.#connect();
    } catch (cause) {
      if (this.#options.reconnect === 0) throw this.#error('cannot connect to', cause);
      this.#later();
    }
  }

  #error(what: string, cause: unknown): ChardevError {
    const text = cause instanceof ChardevError ? cause.message : reason(cause as NodeJS.ErrnoException);
    return new ChardevError(`chardev ${this.id}: ${what} ${describeAddress(this.#options.address)}: ${text}`);
  }

  async #listen(): Promise<void> {
    const { address } = this.#options;
    const server = createServer({ pauseOnConnect: true }, (socket) => this.#arrived(socket));
    try {
      if (address.type === 'unix') await clearStaleSocket(address.path);
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        if (address.type === 'unix') server.listen(address.path, resolve);
        else server.listen({ port: address.port, host: address.host === '' ? undefined : address.host }, resolve);
      });
    } catch (cause) {
      throw this.#error('cannot listen on', cause);
    }
    server.on('error', () => {});
    const bound = server.address();
    if (bound !== null && typeof bound === 'object') this.#port = bound.port;
    this.#server = server;
  }

  #arrived(socket: Socket): void {
    if (this.#socket === undefined && !this.ending) return this.#adopt(socket);
    if (this.#queued.length >= maxQueued) {
      socket.destroy();
      return;
    }
    this.#queued.push(socket);
    const forget = (): void => {
      this.#queued = this.#queued.filter((other) => other !== socket);
    };
    socket.once('error', forget);
    socket.once('close', forget);
  }

  #connect(): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(connectOptions(this.#options.address));
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        this.#adopt(socket);
        resolve();
      });
    });
  }

  #later(): void {
    if (this.#closed || this.#options.server || this.#options.reconnect === 0 || this.#retry !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      if (!this.#closed) this.#connect().catch(() => this.#later());
    }, this.#options.reconnect * 1000);
  }

  #adopt(socket: Socket): void {
    this.#socket = socket;
    if (this.#options.nodelay) socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.on('data', (data) => {
      if (this.#socket === socket) this.deliver(data);
    });
    socket.once('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      this.ended();
    });
    this.opened();
    socket.resume();
  }

  protected override finished(): void {
    if (this.#closed) return;
    const next = this.#queued.shift();
    // Not at once: the front end is still in the call that told it of the end.
    if (next !== undefined) setImmediate(() => (next.destroyed ? this.finished() : this.#adopt(next)));
    else this.#later();
  }

  protected override pauseInput(): void {
    this.#socket?.pause();
  }

  protected override resumeInput(): void {
    this.#socket?.resume();
  }

  protected override transmit(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      const socket = this.#socket;
      if (socket === undefined || socket.destroyed || !socket.writable) return resolve();
      const done = (): void => {
        socket.off('close', done);
        resolve();
      };
      // A socket that is destroyed does not always call back for what it had queued.
      socket.once('close', done);
      socket.write(data, done);
    });
  }

  protected override async shut(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    socket?.destroySoon();
    // A peer that does not read must not keep the process.
    if (socket !== undefined) setTimeout(() => socket.destroy(), 200).unref();
    for (const socket of this.#queued) socket.destroy();
    const server = this.#server;
    this.#server = undefined;
    if (server !== undefined) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  override abandon(): void {
    const { address, server } = this.#options;
    if (this.#server === undefined || !server || address.type !== 'unix') return;
    try {
      unlinkSync(address.path);
    } catch {
      // It is gone already.
    }
  }
}
