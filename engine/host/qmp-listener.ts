/** QMP on a listening socket for any number of clients at once: the control socket of a VM process. */
import { createServer, type Socket } from 'node:net';
import type { QmpServer } from '../monitor/qmp.ts';
import { clearStaleSocket, describeAddress } from './chardev-socket.ts';
import { ChardevError, type SocketAddress } from './chardev-types.ts';

/** Clients that may be connected at once. */
const maxClients = 32;

export interface QmpListener {
  /** The TCP port; undefined for a Unix socket. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

function serve(server: QmpServer, socket: Socket): void {
  const session = server.open({
    send(text) {
      if (!socket.destroyed) socket.write(text);
      return socket.writableLength;
    },
    resume: () => socket.resume(),
    close: () => socket.destroy(),
  });
  socket.on('data', (data) => {
    session.feed(data);
    if (session.room() === 0) socket.pause();
  });
  socket.on('error', () => socket.destroy());
  socket.on('close', () => session.end());
}

/** Listens; a Unix socket gets mode 0600. Rejects with a ChardevError that says why it cannot. */
export async function listenQmp(server: QmpServer, address: SocketAddress): Promise<QmpListener> {
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    serve(server, socket);
  });
  listener.maxConnections = maxClients;
  try {
    if (address.type === 'unix') await clearStaleSocket(address.path);
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      if (address.type === 'tcp') {
        listener.listen({ host: address.host === '' ? 'localhost' : address.host, port: address.port }, resolve);
        return;
      }
      // The socket must never be open to others, not even for a moment: its file is made inside listen().
      const mask = process.umask(0o177);
      try {
        listener.listen(address.path, resolve);
      } finally {
        process.umask(mask);
      }
    });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'EADDRINUSE' ? 'the address is in use by another program' : message;
    throw new ChardevError(`QMP: cannot listen on ${describeAddress(address)}: ${why}`);
  }
  listener.on('error', () => {});
  const bound = listener.address();
  return {
    port: bound !== null && typeof bound === 'object' ? bound.port : undefined,
    close() {
      for (const socket of sockets) {
        socket.destroySoon();
        setTimeout(() => socket.destroy(), 200).unref();
      }
      return new Promise((resolve) => listener.close(() => resolve()));
    },
  };
}
