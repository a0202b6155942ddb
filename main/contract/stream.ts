/**
 * A stream of bytes to a VM process, the same over a WebSocket and over a message port. It has the members of a
 * WebSocket that noVNC's RFB asks of a channel, so `new RFB(element, stream)` takes it as it is. Bytes that come before
 * `onmessage` is set are kept and delivered then.
 */
export class ByteStream {
  readonly protocol = '';
  binaryType = 'arraybuffer';
  /** As in WebSocket: 1 open, 3 closed. */
  readyState = 1;
  onopen: ((event: unknown) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly #carrier: StreamCarrier;
  #onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  #onclose: ((event: CloseInfo) => void) | null = null;
  #early: ArrayBuffer[] = [];
  #ended: CloseInfo | undefined;

  constructor(carrier: StreamCarrier) {
    this.#carrier = carrier;
    carrier.listen(
      (data) => {
        if (this.#onmessage === null) this.#early.push(data);
        else this.#onmessage({ data });
      },
      (reason) => {
        if (this.#ended !== undefined) return;
        this.readyState = 3;
        this.#ended = { type: 'close', code: reason === '' ? 1000 : 1006, reason, wasClean: reason === '' };
        this.#onclose?.(this.#ended);
      },
    );
  }

  get onmessage() {
    return this.#onmessage;
  }

  set onmessage(listener) {
    this.#onmessage = listener;
    if (listener === null) return;
    for (const data of this.#early.splice(0)) listener({ data });
  }

  get onclose() {
    return this.#onclose;
  }

  set onclose(listener) {
    this.#onclose = listener;
    if (listener === null || this.#ended === undefined) return;
    const ended = this.#ended;
    queueMicrotask(() => listener(ended));
  }

  send(data: ArrayBuffer | Uint8Array): void {
    if (this.readyState !== 1) return;
    // A copy of exactly these bytes: the carrier may keep them, and the caller's buffer may be larger.
    const bytes = data instanceof ArrayBuffer ? new Uint8Array(data) : data;
    this.#carrier.send(bytes.slice());
  }

  close(): void {
    this.#carrier.close();
  }
}

export interface CloseInfo {
  readonly type: 'close';
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;
}

/** What carries a stream's bytes. */
export interface StreamCarrier {
  listen(data: (bytes: ArrayBuffer) => void, closed: (reason: string) => void): void;
  send(bytes: Uint8Array<ArrayBuffer>): void;
  close(): void;
}

/** A window's MessagePort, as far as it is used here. */
export interface PagePort {
  onmessage: ((event: never) => void) | null;
  postMessage(message: unknown): void;
  close(): void;
  addEventListener(type: 'close', listener: () => void): void;
}

export function portStream(port: PagePort): ByteStream {
  let closed: (reason: string) => void = () => {};
  return new ByteStream({
    listen(data, onClosed) {
      closed = onClosed;
      port.addEventListener('close', () => onClosed('The VM has ended the connection'));
      port.onmessage = ((event: { data: ArrayBuffer | Uint8Array<ArrayBuffer> }) =>
        data(event.data instanceof ArrayBuffer ? event.data : event.data.slice().buffer)) as never;
    },
    send: (bytes) => port.postMessage(bytes.buffer),
    close() {
      port.close();
      closed('');
    },
  });
}

/** A stream over a WebSocket that is open. */
export function socketStream(socket: WebSocket): ByteStream {
  return new ByteStream({
    listen(data, closed) {
      socket.addEventListener('message', (event) => data(event.data as ArrayBuffer));
      socket.addEventListener('close', ({ code, reason }) =>
        closed(code === 1000 ? '' : reason || 'The VM has ended the connection'),
      );
    },
    send: (bytes) => socket.send(bytes),
    close: () => socket.close(),
  });
}
