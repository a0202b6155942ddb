import type { Picture } from '../framebuffer.ts';
import type { ByteWriter } from '../wire/bytes.ts';
import type { PixelTranslator } from '../wire/pixel-format.ts';
import type { Rect } from '../wire/protocol.ts';

/** One way to send pixels. It belongs to one client, whose streams it keeps. */
export interface RectEncoder {
  /** Its number in `ENCODING`. */
  readonly encoding: number;
  /** How hard to compress, 0 to 9 as in zlib. */
  level: number;
  /** Cuts a rectangle into the pieces that are sent as one rectangle each. */
  split(rect: Rect): Rect[];
  /** Writes the content of one such piece; its header stands before it already. */
  encode(out: ByteWriter, picture: Picture, rect: Rect, translator: PixelTranslator): void;
}

/** Bytes of the header of a rectangle (RFC 6143 7.6.1). */
export function writeRectHeader(out: ByteWriter, rect: Rect, encoding: number): void {
  out.u16(rect.x).u16(rect.y).u16(rect.width).u16(rect.height).u32(encoding);
}

/** Cuts into bands of whole rows, of at most `pixels` pixels where a band of `step` rows allows, heights multiples of `step`. */
export function splitBands(rect: Rect, pixels: number, step: number): Rect[] {
  const rows = Math.max(step, Math.floor(pixels / rect.width / step) * step);
  if (rows >= rect.height) return [rect];
  const bands: Rect[] = [];
  for (let y = 0; y < rect.height; y += rows) {
    bands.push({ x: rect.x, y: rect.y + y, width: rect.width, height: Math.min(rows, rect.height - y) });
  }
  return bands;
}
