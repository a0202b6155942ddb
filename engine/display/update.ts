import type { CursorShape } from './channel.ts';
import { writeCursor } from './cursor.ts';
import type { Copy } from './damage.ts';
import { type RectEncoder, writeRectHeader } from './encodings/encoder.ts';
import type { Picture } from './framebuffer.ts';
import type { ByteWriter } from './wire/bytes.ts';
import type { PixelTranslator } from './wire/pixel-format.ts';
import { ENCODING, type Rect, SERVER_MESSAGE } from './wire/protocol.ts';

const NOWHERE: Rect = { x: 0, y: 0, width: 0, height: 0 };
/** Bytes go out whenever so many have come together. */
const CHUNK = 128 * 1024;
const COUNT_AT = 2;

/** Writes one FramebufferUpdate (RFC 6143 7.6.1), rectangle by rectangle. */
export class UpdateWriter {
  readonly #out: ByteWriter;
  readonly #send: (bytes: Uint8Array<ArrayBuffer>) => void;
  #rectangles = 0;
  /** The head of the message, with the number of rectangles, is on its way. */
  #counted = false;

  constructor(out: ByteWriter, send: (bytes: Uint8Array<ArrayBuffer>) => void) {
    this.#out = out;
    this.#send = send;
    out.truncate(0);
    out.u8(SERVER_MESSAGE.update).u8(0).u16(0);
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

  /** The picture's content in `rects`; called last, as it settles the number of rectangles and sends as it goes. */
  pixels(encoder: RectEncoder, picture: Picture, rects: readonly Rect[], translator: PixelTranslator): void {
    const pieces = rects.flatMap((rect) => encoder.split(rect));
    // The largest surface has 32768 tiles, so the number always fits and LastRect is not needed.
    this.#out.setU16(COUNT_AT, this.#rectangles + pieces.length);
    for (const piece of pieces) {
      encoder.encode(this.#begin(piece, encoder.encoding), picture, piece, translator);
      if (this.#out.length >= CHUNK) {
        this.#send(this.#out.take());
        this.#counted = true;
      }
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
    if (!this.#counted) this.#out.setU16(COUNT_AT, this.#rectangles);
    if (this.#out.length > 0) this.#send(this.#out.take());
    return true;
  }
}
