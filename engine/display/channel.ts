/** A reliable, ordered stream of bytes to one client: a socket, or a message port to the app's window. */
export interface ByteChannel {
  /** Who is at the other end, without what differs from connection to connection (an address without its port). */
  readonly peer: string;
  /** Bytes sent that the other end has not taken yet; undefined where there is no telling. */
  readonly bufferedAmount?: number;
  /** Sends bytes, which the caller gives away. Does nothing once the channel is closed. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /** Sends what is left and ends the connection; may be called twice. */
  close(): void;
  /** Sets who is told of events; called once, before any of them is lost. */
  listen(listener: ByteChannelListener): void;
}

export interface ByteChannelListener {
  /** Bytes came, in any split. They are valid during the call. */
  data(bytes: Uint8Array): void;
  /** The connection ended, by either side; told once. */
  closed(): void;
  /** `bufferedAmount` has gone down to nothing. */
  drained(): void;
}

/** Where what people do goes: the machine's keyboard and pointer, and the guest's clipboard. Coordinates are pixels of the surface. */
export interface InputSink {
  /**
   * A key. `scancode`: its XT (set 1) code, with bit 7 set for keys with an E0 prefix, where the client tells it;
   * `keysym`: its X11 key symbol by the client's keyboard layout.
   */
  key(code: { scancode?: number; keysym: number }, down: boolean): void;
  /** The pointer at (x, y) of a surface of `width` by `height`. Bits of `buttons`: left, middle, right, wheel up, down, left, right. */
  pointer(x: number, y: number, buttons: number, width: number, height: number): void;
  /** A client put this text on the clipboard; line ends are single line feeds. */
  clipboard(text: string): void;
}

/** A pointer shape: RGBA bytes, alpha not multiplied in; the hot spot is where it points. */
export interface CursorShape {
  readonly width: number;
  readonly height: number;
  readonly hotX: number;
  readonly hotY: number;
  readonly rgba: Uint8Array;
}

/** Lights of the keyboard, bits as in rfbproto "QEMU LED State". */
export const LED = { scrollLock: 1, numLock: 2, capsLock: 4 } as const;
