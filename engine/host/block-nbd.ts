/** NBD to and from the outside: a blocking socket for the client (Linux, koffi), and a server over node:net. */
import { createRequire } from 'node:module';
import { createServer, type Server, type Socket } from 'node:net';
import { BlockError } from '../block/errors.ts';
import { type ByteStream, type NbdAddress, type NbdExport, NbdFile, NbdSession, parseNbdAddress } from '../block/nbd.ts';

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const MSG_NOSIGNAL = 0x4000;
const EINTR = 4;
/** Seconds after which a silent server is an error instead of a hang. */
const TIMEOUT = 60;

type Call = (...args: unknown[]) => number;
interface Sockets {
  socket: Call;
  connect: Call;
  recv: Call;
  send: Call;
  setsockopt: Call;
  close: Call;
  errno(): number;
}

let sockets: Sockets | null = null;

function load(): Sockets {
  if (sockets) return sockets;
  try {
    if (process.platform !== 'linux') throw new Error('not Linux');
    const koffi = createRequire(import.meta.url)('koffi');
    const libc = koffi.load(null);
    sockets = {
      socket: libc.func('int socket(int, int, int)'),
      connect: libc.func('int connect(int, void *, uint32_t)'),
      recv: libc.func('int64_t recv(int, void *, size_t, int)'),
      send: libc.func('int64_t send(int, void *, size_t, int)'),
      setsockopt: libc.func('int setsockopt(int, int, int, void *, uint32_t)'),
      close: libc.func('int close(int)'),
      errno: () => koffi.errno(),
    };
  } catch (error) {
    throw new BlockError(
      'unsupported',
      `NBD needs blocking sockets, which this host lacks (koffi on Linux): ${(error as Error).message}`,
      error,
    );
  }
  return sockets;
}

function socketAddress(address: NbdAddress): { family: number; bytes: Uint8Array } {
  if (address.unix !== undefined) {
    const path = new TextEncoder().encode(address.unix);
    if (path.length > 107) throw new BlockError('invalid', `the socket path '${address.unix}' is too long`);
    const bytes = new Uint8Array(110);
    new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
    bytes.set(path, 2);
    return { family: AF_UNIX, bytes };
  }
  const host = address.host === 'localhost' ? '127.0.0.1' : address.host!;
  const v4 = /^(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(host);
  if (v4) {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, address.port!);
    for (let i = 0; i < 4; i++) bytes[4 + i] = Number(v4[i + 1]);
    return { family: AF_INET, bytes };
  }
  if (/^[0-9a-f:]+$/i.test(host) && host.includes(':')) {
    const [head, tail] = host.split('::');
    const left = head ? head.split(':') : [];
    const right = tail ? tail.split(':') : [];
    const groups = [...left, ...new Array(Math.max(0, 8 - left.length - right.length)).fill('0'), ...right];
    const bytes = new Uint8Array(28);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, AF_INET6, true);
    view.setUint16(2, address.port!);
    for (const [i, group] of groups.slice(0, 8).entries()) view.setUint16(8 + i * 2, Number.parseInt(group, 16));
    return { family: AF_INET6, bytes };
  }
  throw new BlockError('unsupported', `NBD servers are named by address here, not by host name: '${host}'`);
}

class SocketStream implements ByteStream {
  private readonly fd: number;
  private readonly name: string;
  private readonly calls: Sockets;
  private closed = false;

  constructor(name: string, address: NbdAddress) {
    this.name = name;
    this.calls = load();
    const { family, bytes } = socketAddress(address);
    this.fd = this.calls.socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (this.fd < 0) throw this.error('open a socket');
    const time = new Uint8Array(16);
    new DataView(time.buffer).setBigInt64(0, BigInt(TIMEOUT), true);
    this.calls.setsockopt(this.fd, SOL_SOCKET, SO_RCVTIMEO, time, 16);
    this.calls.setsockopt(this.fd, SOL_SOCKET, SO_SNDTIMEO, time, 16);
    if (family !== AF_UNIX) this.calls.setsockopt(this.fd, IPPROTO_TCP, TCP_NODELAY, new Uint8Array([1, 0, 0, 0]), 4);
    if (this.calls.connect(this.fd, bytes, bytes.length) !== 0) {
      const error = this.error('connect');
      this.close();
      throw error;
    }
  }

  private error(action: string): BlockError {
    return new BlockError('io', `${this.name}: Failed to ${action} (errno ${this.calls.errno()})`);
  }

  receive(buf: Uint8Array): void {
    for (let done = 0; done < buf.length; ) {
      const n = Number(this.calls.recv(this.fd, buf.subarray(done), buf.length - done, 0));
      if (n < 0 && this.calls.errno() === EINTR) continue;
      if (n < 0) throw this.error('receive');
      if (n === 0) throw new BlockError('io', `${this.name}: the NBD server closed the connection`);
      done += n;
    }
  }

  send(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const n = Number(this.calls.send(this.fd, bytes.subarray(done), bytes.length - done, MSG_NOSIGNAL));
      if (n < 0 && this.calls.errno() === EINTR) continue;
      if (n < 0) throw this.error('send');
      done += n;
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.calls.close(this.fd);
  }
}

/** Opens an NBD export by its address. */
export function openNbd(text: string, write: boolean): NbdFile {
  const address = parseNbdAddress(text);
  return new NbdFile(text, new SocketStream(text, address), address.exportName, write);
}

/** Most clients at a time; more are turned away. */
const MAX_CLIENTS = 64;

/**
 * Serves exports until it is closed. Requests run on this thread, one at a time, so the nodes must be this thread's own.
 * `where`: a path for a Unix socket, or an address and port.
 */
export function serveNbd(
  exports: ReadonlyMap<string, NbdExport>,
  where: { path: string } | { host: string; port: number },
): Promise<Server> {
  const clients = new Set<Socket>();
  const server = createServer((socket) => {
    if (clients.size >= MAX_CLIENTS) {
      socket.destroy();
      return;
    }
    clients.add(socket);
    socket.setNoDelay(true);
    const session = new NbdSession(exports, (bytes) => socket.write(bytes));
    // What came in and waits for the client to read its answers: at most one piece, because the socket is paused.
    let waiting: Uint8Array = new Uint8Array(0);
    const serve = (): void => {
      waiting = waiting.subarray(session.feed(waiting));
      if (session.closed) socket.end();
      else if (waiting.length > 0) socket.pause();
      else socket.resume();
    };
    socket.on('drain', serve);
    socket.on('data', (data) => {
      waiting = waiting.length > 0 ? Buffer.concat([waiting, data]) : data;
      serve();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => clients.delete(socket));
  });
  // A server is closed when its last client has gone, so they are made to.
  const close = server.close.bind(server);
  server.close = (done) => {
    for (const client of clients) client.destroy();
    return close(done);
  };
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => resolve(server));
  });
}
