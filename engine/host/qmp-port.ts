/**
 * QMP on channels of messages instead of bytes: the message port or process channel between the app and a VM process
 * (engine/contract/process.ts; a message is one QMP object), and WebSockets (a message is text).
 */
import type { QmpServer } from '../monitor/qmp.ts';

/** What message ports, the channel of a forked process and WebSockets have in common. */
export interface QmpPort {
  /** Sends one QMP object, or its text where `text` is set. */
  post(message: unknown): void;
  readonly text?: boolean;
  onMessage(listener: (message: unknown) => void): void;
  onClose(listener: () => void): void;
  close(): void;
}

/** Opens a session on `port`: the greeting is its first message. Objects and texts are both understood. */
export function attachQmpPort(server: QmpServer, port: QmpPort): void {
  const session = server.open({
    send(text) {
      port.post(port.text ? text.trimEnd() : (JSON.parse(text) as unknown));
      return 0;
    },
    resume() {},
    close: () => port.close(),
  });
  port.onMessage((message) => session.feed(`${typeof message === 'string' ? message : (JSON.stringify(message) ?? 'null')}\n`));
  port.onClose(() => session.end());
}

interface NodePort {
  postMessage(message: unknown): void;
  on(event: 'message' | 'close', listener: (message: unknown) => void): unknown;
  close(): void;
  start?(): void;
}

/** A MessagePort of worker_threads, or Electron's MessagePortMain, whose messages come as `{ data }`. */
export function messagePort(port: NodePort): QmpPort {
  return {
    post: (message) => port.postMessage(message),
    onMessage(listener) {
      port.on('message', (message) => {
        const wrapped = typeof message === 'object' && message !== null && 'data' in message && 'ports' in message;
        listener(wrapped ? (message as { data: unknown }).data : message);
      });
      port.start?.();
    },
    onClose: (listener) => port.on('close', () => listener()),
    close: () => port.close(),
  };
}
