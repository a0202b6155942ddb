/** The socket of the gdb stub: one debugger at a time. */
import { createServer, type Socket } from 'node:net';
import { GdbStub, type GdbWires } from '../monitor/gdb/stub.ts';
import { clearStaleSocket, describeAddress } from './chardev-socket.ts';
import { ChardevError, type SocketAddress } from './chardev-types.ts';

export interface GdbListener {
  /** The TCP port; undefined for a Unix socket. */
  readonly port: number | undefined;
  close(): Promise<void>;
}

/** Listens; rejects with a ChardevError that says why it cannot. */
export async function listenGdb(address: SocketAddress, wires: Pick<GdbWires, 'target' | 'monitor'>): Promise<GdbListener> {
  let current: Socket | undefined;
  const listener = createServer((socket) => {
    if (current !== undefined) {
      socket.destroy();
      return;
    }
    current = socket;
    socket.setNoDelay(true);
    const stub = new GdbStub({
      ...wires,
      send(bytes) {
        if (!socket.destroyed) socket.write(bytes);
      },
      close: () => socket.destroySoon(),
    });
    socket.on('data', (data) => stub.feed(data));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      stub.end();
      current = undefined;
    });
  });
  try {
    if (address.type === 'unix') await clearStaleSocket(address.path);
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      if (address.type === 'tcp')
        listener.listen({ host: address.host === '' ? 'localhost' : address.host, port: address.port }, resolve);
      else {
        const mask = process.umask(0o177);
        try {
          listener.listen(address.path, resolve);
        } finally {
          process.umask(mask);
        }
      }
    });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'EADDRINUSE' ? 'the address is in use by another program' : message;
    throw new ChardevError(`-gdb: cannot listen on ${describeAddress(address)}: ${why}`);
  }
  listener.on('error', () => {});
  const bound = listener.address();
  return {
    port: bound !== null && typeof bound === 'object' ? bound.port : undefined,
    close() {
      current?.destroySoon();
      const last = current;
      setTimeout(() => last?.destroy(), 200).unref();
      return new Promise((resolve) => listener.close(() => resolve()));
    },
  };
}
