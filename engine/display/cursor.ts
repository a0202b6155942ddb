import type { CursorShape } from './channel.ts';
import { writeRectHeader } from './encodings/encoder.ts';
import type { ByteWriter } from './wire/bytes.ts';
import type { PixelTranslator } from './wire/pixel-format.ts';
import { ENCODING } from './wire/protocol.ts';

/** Which cursor pseudo-encodings a client knows, in its words. */
export function cursorEncoding(encodings: ReadonlySet<number>): number | undefined {
  return [ENCODING.cursorWithAlpha, ENCODING.vmwareCursor, ENCODING.cursor].find((encoding) => encodings.has(encoding));
}

/** No pointer at all. */
export const HIDDEN_CURSOR: CursorShape = { width: 0, height: 0, hotX: 0, hotY: 0, rgba: new Uint8Array(0) };

/** Writes the rectangle that sets a client's pointer. */
export function writeCursor(out: ByteWriter, cursor: CursorShape, encoding: number, translator: PixelTranslator): void {
  const { width, height } = cursor;
  writeRectHeader(out, { x: cursor.hotX, y: cursor.hotY, width, height }, encoding);
  if (encoding === ENCODING.cursor) writeMasked(out, cursor, translator);
  else if (encoding === ENCODING.vmwareCursor) out.u8(1).u8(0).bytes(cursor.rgba);
  else writeAlpha(out, cursor);
}

/** RFC 6143 7.8.1: pixels in the client's format, then a bit a pixel that says whether it shows. */
function writeMasked(out: ByteWriter, cursor: CursorShape, translator: PixelTranslator): void {
  const { width, height, rgba } = cursor;
  let at = out.reserve(width * height * translator.bytesPerPixel);
  for (let from = 0; from < width * height * 4; from += 4) {
    at = translator.write(rgba[from] | (rgba[from + 1] << 8) | (rgba[from + 2] << 16), out.target, at);
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x += 8) {
      let byte = 0;
      for (let bit = 0; bit < 8 && x + bit < width; bit++) {
        if (rgba[(y * width + x + bit) * 4 + 3] >= 128) byte |= 0x80 >> bit;
      }
      out.u8(byte);
    }
  }
}

/** rfbproto "Cursor With Alpha": an encoding (Raw), then RGBA bytes with alpha multiplied in. */
function writeAlpha(out: ByteWriter, cursor: CursorShape): void {
  out.u32(ENCODING.raw);
  const at = out.reserve(cursor.width * cursor.height * 4);
  for (let index = 0; index < cursor.width * cursor.height * 4; index += 4) {
    const alpha = cursor.rgba[index + 3];
    for (let part = 0; part < 3; part++) out.target[at + index + part] = Math.round((cursor.rgba[index + part] * alpha) / 255);
    out.target[at + index + 3] = alpha;
  }
}
