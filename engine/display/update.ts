import type { CursorShape } from './channel.ts';
import { writeCursor } from './cursor.ts';
import type { Copy } from './damage.ts';
import { type RectEncoder, writeRectHeader } from './encodings/encoder.ts';
import type { Picture } from './framebuffer.ts';
import { ByteWriter } from './wire/bytes.ts';
import type { PixelTranslator } from './wire/pixel-format.ts';
import { ENCODING, type Rect, SERVER_MESSAGE } from './wire/protocol.ts';

const NOWHERE: Rect = { x: 0, y: 0, width: 0, height: 0 };
/** With LastRect, bytes go out whenever so many have come together. */
const CHUNK = 128 * 1024;
const COUNT_AT = 2;
const COUNT_UNKNOWN = 0xffff;

/** Writes one FramebufferUpdate (RFC 6143 7.6.1), rectangle by rectangle. */
export class UpdateWriter {
  readonly #out: ByteWriter;
  readonly #send: (bytes: Uint8Array<ArrayBuffer>) => void;
  readonly #streamed: boolean;
  #rectangles = 0;

  /** `streamed`: the client knows LastRect, so that the number of rectangles need not be known at the start. */
  constructor(out: ByteWriter, streamed: boolean, send: (bytes: Uint8Array<ArrayBuffer>) => void) {
    this.#out = out;
    this.#streamed = streamed;
    this.#send = send;
    out.truncate(0);
    out.u8(SERVER_MESSAGE.update).u8(0).u16(COUNT_UNKNOWN);
  }

  get rectangles(): number {
    return this.#rectangles;
  }

  /** Starts a rectangle; the caller writes its content. */
  #begin(rect: Rect, encoding: number): ByteWriter {
    this.#rectangles++;
    writeRectHeader(this.#out, rect, encoding);
    return this.#out;
  }

  copy(copy: Copy, width: number): void {
    this.#begin({ x: 0, y: copy.top, width, height: copy.height }, ENCODING.copyRect).u16(0).u16(copy.from);
  }

  pixels(encoder: RectEncoder, picture: Picture, rect: Rect, translator: PixelTranslator): void {
    for (const piece of encoder.split(rect)) {
      encoder.encode(this.#begin(piece, encoder.encoding), picture, piece, translator);
      if (this.#streamed && this.#out.length >= CHUNK) this.#send(this.#out.take());
    }
  }

  desktopSize(width: number, height: number): void {
    this.#begin({ x: 0, y: 0, width, height }, ENCODING.desktopSize);
  }

  /** rfbproto "ExtendedDesktopSize": one screen that fills the surface. */
  extendedDesktopSize(width: number, height: number, reason: number, status: number): void {
    this.#begin({ x: reason, y: status, width, height }, ENCODING.extendedDesktopSize)
      .u8(1)
      .zeros(3)
      .u32(0)
      .u16(0)
      .u16(0)
      .u16(width)
      .u16(height)
      .u32(0);
  }

  cursor(cursor: CursorShape, encoding: number, translator: PixelTranslator): void {
    this.#rectangles++;
    writeCursor(this.#out, cursor, encoding, translator);
  }

  extendedKeysKnown(): void {
    this.#begin(NOWHERE, ENCODING.qemuExtendedKey);
  }

  leds(state: number): void {
    this.#begin(NOWHERE, ENCODING.qemuLedState).u8(state);
  }

  name(name: string): void {
    const text = new TextEncoder().encode(name);
    this.#begin(NOWHERE, ENCODING.desktopName).u32(text.length).bytes(text);
  }

  /** Sends it, if there is anything in it; returns whether there was. */
  finish(): boolean {
    if (this.#rectangles === 0) return false;
    if (this.#streamed) writeRectHeader(this.#out, NOWHERE, ENCODING.lastRect);
    else this.#out.setU16(COUNT_AT, this.#rectangles);
    this.#send(this.#out.take());
    return true;
  }
}
