import { type Compression, ZlibStream } from '../compression.ts';
import type { Picture } from '../framebuffer.ts';
import { ByteWriter } from '../wire/bytes.ts';
import type { PixelTranslator } from '../wire/pixel-format.ts';
import { ENCODING, type Rect } from '../wire/protocol.ts';
import { type RectEncoder, splitBands } from './encoder.ts';
import { Palette } from './palette.ts';

/** rfbproto "Tight Encoding": a rectangle is at most this wide. */
const MAX_WIDTH = 2048;
const PIECE_PIXELS = 65536;
/** Data shorter than this is sent as it is. */
const MIN_TO_COMPRESS = 12;
const FILL = 0x80;
const FILTER_FOLLOWS = 0x40;
const PALETTE_FILTER = 1;
/** Content of a kind compresses best among its like: a stream each. */
const STREAM = { full: 0, mono: 1, indexed: 2 } as const;

/** Tight encoding without JPEG (rfbproto): a single colour, two colours as bits, up to 256 as bytes, or the pixels. */
export class TightEncoder implements RectEncoder {
  readonly encoding = ENCODING.tight;
  level: number;
  readonly #streams: ZlibStream[];
  readonly #palette = new Palette();
  readonly #plain = new ByteWriter(16384);
  #indexes = new Uint8Array(4096);

  /** `level`: 0 to 9, as in zlib. */
  constructor(compression: Compression, level: number) {
    this.level = level;
    this.#streams = Object.values(STREAM).map(() => new ZlibStream(compression));
  }

  split(rect: Rect): Rect[] {
    const pieces: Rect[] = [];
    for (let x = 0; x < rect.width; x += MAX_WIDTH) {
      const width = Math.min(MAX_WIDTH, rect.width - x);
      pieces.push(...splitBands({ ...rect, x: rect.x + x, width }, PIECE_PIXELS, 16));
    }
    return pieces;
  }

  encode(out: ByteWriter, picture: Picture, rect: Rect, translator: PixelTranslator): void {
    const colours = this.#countColours(picture, rect, translator);
    const plain = this.#plain;
    plain.truncate(0);
    if (colours === 1) {
      out.u8(FILL);
      this.#writePixels(out, this.#palette.colours, 1, translator);
      return;
    }
    if (colours === 0) {
      out.u8(STREAM.full << 4);
      for (let row = rect.y; row < rect.y + rect.height; row++) {
        const start = row * picture.width + rect.x;
        this.#writePixels(plain, picture.pixels.subarray(start, start + rect.width), rect.width, translator);
      }
      this.#writeData(out, STREAM.full);
      return;
    }
    const stream = colours === 2 ? STREAM.mono : STREAM.indexed;
    out
      .u8((stream << 4) | FILTER_FOLLOWS)
      .u8(PALETTE_FILTER)
      .u8(colours - 1);
    this.#writePixels(out, this.#palette.colours, colours, translator);
    if (colours === 2) this.#packBits(rect);
    else plain.bytes(this.#indexes.subarray(0, rect.width * rect.height));
    this.#writeData(out, stream);
  }

  /** How many colours there are, with the index of each pixel in `#indexes`; 0 where a palette would not pay. */
  #countColours(picture: Picture, rect: Rect, translator: PixelTranslator): number {
    const pixels = rect.width * rect.height;
    if (this.#indexes.length < pixels) this.#indexes = new Uint8Array(pixels);
    const palette = this.#palette;
    // One byte a pixel saves nothing for an 8-bit client; two colours do.
    palette.reset(translator.bytesPerPixel === 1 ? 2 : Math.max(2, Math.min(256, pixels >> 2)));
    let at = 0;
    let last = -1;
    let lastIndex = 0;
    for (let row = rect.y; row < rect.y + rect.height; row++) {
      const start = row * picture.width + rect.x;
      for (let index = start; index < start + rect.width; index++) {
        const colour = picture.pixels[index] & 0xffffff;
        if (colour !== last) {
          last = colour;
          lastIndex = palette.add(colour);
          if (lastIndex < 0) return 0;
        }
        this.#indexes[at++] = lastIndex;
      }
    }
    return palette.size;
  }

  #packBits(rect: Rect): void {
    let index = 0;
    let at = this.#plain.reserve(Math.ceil(rect.width / 8) * rect.height);
    const { target } = this.#plain;
    for (let row = 0; row < rect.height; row++) {
      for (let column = 0; column < rect.width; column += 8) {
        let byte = 0;
        const bits = Math.min(8, rect.width - column);
        for (let bit = 0; bit < bits; bit++) byte |= this.#indexes[index++] << (7 - bit);
        target[at++] = byte;
      }
    }
  }

  /** TPIXELs: red, green, blue in a full-colour 32-bit format, PIXELs in any other. */
  #writePixels(out: ByteWriter, colours: Uint32Array, count: number, translator: PixelTranslator): void {
    let at = out.reserve(count * (translator.tightRgb ? 3 : translator.bytesPerPixel));
    const { target } = out;
    for (let index = 0; index < count; index++) {
      const colour = colours[index];
      if (translator.tightRgb) {
        target[at++] = colour;
        target[at++] = colour >>> 8;
        target[at++] = colour >>> 16;
      } else {
        at = translator.write(colour, target, at);
      }
    }
  }

  #writeData(out: ByteWriter, stream: number): void {
    const data = this.#plain.target.subarray(0, this.#plain.length);
    if (data.length < MIN_TO_COMPRESS) {
      out.bytes(data);
      return;
    }
    const packed = this.#streams[stream].push(data, this.level);
    writeCompactLength(out, packed.length);
    out.bytes(packed);
  }
}

/** One to three bytes, seven bits each, the lowest first; the highest bit of a byte says that another follows. */
function writeCompactLength(out: ByteWriter, length: number): void {
  if (length < 0x80) out.u8(length);
  else if (length < 0x4000) out.u8((length & 0x7f) | 0x80).u8(length >>> 7);
  else
    out
      .u8((length & 0x7f) | 0x80)
      .u8(((length >>> 7) & 0x7f) | 0x80)
      .u8(length >>> 14);
}
