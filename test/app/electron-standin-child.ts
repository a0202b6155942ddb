/** Loaded first in a stand-in's utility process: `process.parentPort` as Electron gives it. */
import { EventEmitter } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { MessagePortMain } from './electron-standin.ts';

class ParentPort extends EventEmitter {
  postMessage = (data: unknown): void => void process.send?.({ data });
}

const parentPort = new ParentPort();
Object.assign(process, { parentPort });
const ports = new Map<number, MessagePortMain>();

process.on('message', (message: { data: unknown; ports?: number[]; port?: number }) => {
  if (message.port !== undefined) {
    ports.get(message.port)?.postMessage(message.data);
    return;
  }
  const received = (message.ports ?? []).map((id) => {
    const { port1, port2 } = new MessageChannel();
    const near = new MessagePortMain(port1);
    ports.set(id, near);
    near.on('message', ({ data }) => process.send?.({ port: id, data }));
    near.on('close', () => process.connected && process.send?.({ port: id, closed: true }));
    return new MessagePortMain(port2);
  });
  parentPort.emit('message', { data: message.data, ports: received });
});
process.on('disconnect', () => process.exit(0));
