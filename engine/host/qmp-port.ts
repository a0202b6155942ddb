/** QMP on a message port: what the app talks to an engine process with. A message is the text of one or more values. */
import type { QmpServer } from '../monitor/qmp.ts';

/** What MessagePort of worker threads, of Electron's utility processes and `process` of a fork have in common. */
export interface TextPort {
  post(text: string): void;
  onMessage(listener: (message: unknown) => void): void;
  onClose(listener: () => void): void;
  close(): void;
}

/** Opens a session on `port`. Messages that are no text are answered with an error by the session's parser. */
export function attachQmpPort(server: QmpServer, port: TextPort): void {
  const session = server.open({
    send(text) {
      port.post(text);
      return 0;
    },
    resume() {},
    close: () => port.close(),
  });
  port.onMessage((message) => session.feed(typeof message === 'string' ? `${message}\n` : '!\n'));
  port.onClose(() => session.end());
}

interface NodePort {
  postMessage(message: unknown): void;
  on(event: 'message' | 'close', listener: (message: unknown) => void): unknown;
  close(): void;
  start?(): void;
}

/** A MessagePort of worker_threads, or Electron's MessagePortMain (whose messages come as `{ data }`). */
export function textPort(port: NodePort): TextPort {
  return {
    post: (text) => port.postMessage(text),
    onMessage(listener) {
      port.on('message', (message) => {
        const wrapped = typeof message === 'object' && message !== null && 'data' in message;
        listener(wrapped ? (message as { data: unknown }).data : message);
      });
      port.start?.();
    },
    onClose: (listener) => port.on('close', () => listener()),
    close: () => port.close(),
  };
}
