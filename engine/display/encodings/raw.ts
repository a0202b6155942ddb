import { type Compression, ZlibStream } from '../compression.ts';
import type { Picture } from '../framebuffer.ts';
import { ByteWriter } from '../wire/bytes.ts';
import type { PixelTranslator } from '../wire/pixel-format.ts';
import { ENCODING, type Rect } from '../wire/protocol.ts';
import { type RectEncoder, splitBands } from './encoder.ts';

/** Pixels in one rectangle at most: bounds what is held in memory besides the output. */
const BAND_PIXELS = 1 << 18;

/** Raw encoding, RFC 6143 7.7.1: the pixels, row by row. */
export class RawEncoder implements RectEncoder {
  readonly encoding = ENCODING.raw;
  level = 0;

  split(rect: Rect): Rect[] {
    return splitBands(rect, BAND_PIXELS, 1);
  }

  encode(out: ByteWriter, picture: Picture, rect: Rect, translator: PixelTranslator): void {
    const at = out.reserve(rect.width * rect.height * translator.bytesPerPixel);
    translator.writeRect(picture.pixels, picture.width, rect.x, rect.y, rect.width, rect.height, out.target, at);
  }
}

/** Zlib encoding (rfbproto): the pixels of Raw in one zlib stream, a 32-bit length before each piece. */
export class ZlibEncoder implements RectEncoder {
  readonly encoding = ENCODING.zlib;
  level: number;
  readonly #stream: ZlibStream;
  readonly #scratch = new ByteWriter(4096);
  readonly #raw = new RawEncoder();

  /** `level`: 0 to 9, as in zlib. */
  constructor(compression: Compression, level: number) {
    this.level = level;
    this.#stream = new ZlibStream(compression);
  }

  split(rect: Rect): Rect[] {
    return splitBands(rect, BAND_PIXELS, 1);
  }

  encode(out: ByteWriter, picture: Picture, rect: Rect, translator: PixelTranslator): void {
    this.#scratch.truncate(0);
    this.#raw.encode(this.#scratch, picture, rect, translator);
    const data = this.#stream.push(this.#scratch.target.subarray(0, this.#scratch.length), this.level);
    out.u32(data.length).bytes(data);
  }
}
