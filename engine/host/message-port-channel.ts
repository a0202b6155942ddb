import type { ByteChannel, ByteChannelListener } from '../display/channel.ts';

/**
 * What a message port of `worker_threads` and one of Electron's main or utility process have in common. The first
 * gives a listener the message, the second an event with the message as its `data`.
 */
export interface PortLike {
  postMessage(message: unknown): void;
  close(): void;
  start?(): void;
  on(event: 'message', listener: (message: unknown) => void): unknown;
  on(event: 'close', listener: () => void): unknown;
}

/**
 * A byte channel over a message port whose messages are ArrayBuffers (or views of them). A port does not say what it
 * holds back, so `bufferedAmount` is missing and the client's fences alone bound what is under way.
 */
export class MessagePortChannel implements ByteChannel {
  readonly peer: string;
  readonly #port: PortLike;
  #closed = false;
  #listener: ByteChannelListener | undefined;

  /** `peer` names the other end in logs. */
  constructor(port: PortLike, peer = 'app') {
    this.#port = port;
    this.peer = peer;
  }

  listen(listener: ByteChannelListener): void {
    this.#listener = listener;
    this.#port.on('message', (message) => {
      const bytes = bytesOf(message);
      if (bytes === undefined) this.close();
      else if (!this.#closed) listener.data(bytes);
    });
    this.#port.on('close', () => this.#end());
    this.#port.start?.();
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#closed) return;
    const whole = bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice();
    this.#port.postMessage(whole.buffer);
  }

  close(): void {
    if (this.#closed) return;
    this.#port.close();
    this.#end();
  }

  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener?.closed();
  }
}

/** The bytes of a message in either port's form; undefined: it is something else. */
function bytesOf(message: unknown): Uint8Array | undefined {
  if (message instanceof ArrayBuffer) return new Uint8Array(message);
  if (ArrayBuffer.isView(message)) return new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
  if (typeof message === 'object' && message !== null && 'data' in message) {
    const { data } = message;
    if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) return bytesOf(data);
  }
  return undefined;
}
