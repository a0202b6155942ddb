import { type Compression, ZlibStream } from '../compression.ts';
import type { Picture } from '../framebuffer.ts';
import { ByteWriter } from '../wire/bytes.ts';
import type { PixelTranslator } from '../wire/pixel-format.ts';
import { ENCODING, type Rect } from '../wire/protocol.ts';
import { type RectEncoder, splitBands } from './encoder.ts';
import { Palette } from './palette.ts';

const TILE = 64;
const BAND_PIXELS = 1 << 18;
/** Subencodings 130..255 are run lengths with a palette of that number less 128. */
const RLE_PALETTE_MAX = 127;
const PACKED_PALETTE_MAX = 16;

/** ZRLE, RFC 6143 7.7.6: tiles of 64 by 64 pixels, each in the cheapest of five forms, in one zlib stream. */
export class ZrleEncoder implements RectEncoder {
  readonly encoding = ENCODING.zrle;
  level: number;
  readonly #stream: ZlibStream;
  readonly #plain = new ByteWriter(16384);
  readonly #palette = new Palette();
  /** The colours of the tile at hand. */
  readonly #tile = new Uint32Array(TILE * TILE);

  /** `level`: 0 to 9, as in zlib. */
  constructor(compression: Compression, level: number) {
    this.level = level;
    this.#stream = new ZlibStream(compression);
  }

  split(rect: Rect): Rect[] {
    return splitBands(rect, BAND_PIXELS, TILE);
  }

  encode(out: ByteWriter, picture: Picture, rect: Rect, translator: PixelTranslator): void {
    this.#plain.truncate(0);
    for (let y = rect.y; y < rect.y + rect.height; y += TILE) {
      const height = Math.min(TILE, rect.y + rect.height - y);
      for (let x = rect.x; x < rect.x + rect.width; x += TILE) {
        const width = Math.min(TILE, rect.x + rect.width - x);
        this.#load(picture, x, y, width, height);
        this.#encodeTile(width, height, translator);
      }
    }
    const data = this.#stream.push(this.#plain.target.subarray(0, this.#plain.length), this.level);
    out.u32(data.length).bytes(data);
  }

  #load(picture: Picture, x: number, y: number, width: number, height: number): void {
    let at = 0;
    for (let row = y; row < y + height; row++) {
      const start = row * picture.width + x;
      for (let index = start; index < start + width; index++) this.#tile[at++] = picture.pixels[index] & 0xffffff;
    }
  }

  #encodeTile(width: number, height: number, translator: PixelTranslator): void {
    const tile = this.#tile;
    const pixels = width * height;
    const palette = this.#palette;
    palette.reset(RLE_PALETTE_MAX);
    let fits = true;
    let runBytes = 0;
    let paletteRunBytes = 0;
    const compact = translator.compactBytes;
    for (let at = 0; at < pixels; ) {
      const colour = tile[at];
      let end = at + 1;
      while (end < pixels && tile[end] === colour) end++;
      const lengthBytes = Math.floor((end - at - 1) / 255) + 1;
      runBytes += compact + lengthBytes;
      paletteRunBytes += end - at === 1 ? 1 : 1 + lengthBytes;
      if (fits && palette.add(colour) < 0) fits = false;
      at = end;
    }
    const colours = palette.size;
    if (fits && colours === 1) {
      this.#plain.u8(1);
      this.#writePalette(1, translator);
      return;
    }
    let best = pixels * compact;
    let form = 0;
    if (runBytes < best) {
      best = runBytes;
      form = 128;
    }
    if (fits && colours * compact + paletteRunBytes < best) {
      best = colours * compact + paletteRunBytes;
      form = 128 + colours;
    }
    const bits = colours <= 2 ? 1 : colours <= 4 ? 2 : 4;
    if (fits && colours <= PACKED_PALETTE_MAX && colours * compact + Math.ceil((width * bits) / 8) * height < best)
      form = colours;
    this.#plain.u8(form);
    if (form === 0) this.#writeRaw(pixels, translator);
    else if (form < 128) this.#writePacked(width, height, colours, bits, translator);
    else this.#writeRuns(pixels, form - 128, translator);
  }

  #writePalette(colours: number, translator: PixelTranslator): void {
    let at = this.#plain.reserve(colours * translator.compactBytes);
    const { target } = this.#plain;
    for (let index = 0; index < colours; index++) at = translator.writeCompact(this.#palette.colours[index], target, at);
  }

  #writeRaw(pixels: number, translator: PixelTranslator): void {
    let at = this.#plain.reserve(pixels * translator.compactBytes);
    const { target } = this.#plain;
    for (let index = 0; index < pixels; index++) at = translator.writeCompact(this.#tile[index], target, at);
  }

  /** Palette indexes of 1, 2 or 4 bits, the leftmost in the highest bits; every row starts a new byte. */
  #writePacked(width: number, height: number, colours: number, bits: number, translator: PixelTranslator): void {
    this.#writePalette(colours, translator);
    let at = this.#plain.reserve(Math.ceil((width * bits) / 8) * height);
    const { target } = this.#plain;
    let index = 0;
    for (let row = 0; row < height; row++) {
      let byte = 0;
      let shift = 8;
      for (let column = 0; column < width; column++) {
        shift -= bits;
        byte |= this.#palette.add(this.#tile[index++]) << shift;
        if (shift === 0) {
          target[at++] = byte;
          byte = 0;
          shift = 8;
        }
      }
      if (shift < 8) target[at++] = byte;
    }
  }

  /** Runs of a colour each; with `colours` above 0, of a palette index each. They go on over row ends. */
  #writeRuns(pixels: number, colours: number, translator: PixelTranslator): void {
    if (colours > 0) this.#writePalette(colours, translator);
    const out = this.#plain;
    for (let at = 0; at < pixels; ) {
      const colour = this.#tile[at];
      let end = at + 1;
      while (end < pixels && this.#tile[end] === colour) end++;
      let rest = end - at - 1;
      at = end;
      if (colours > 0) {
        const index = this.#palette.add(colour);
        if (rest === 0) {
          out.u8(index);
          continue;
        }
        out.u8(index | 128);
      } else {
        const to = out.reserve(translator.compactBytes);
        translator.writeCompact(colour, out.target, to);
      }
      for (; rest >= 255; rest -= 255) out.u8(255);
      out.u8(rest);
    }
  }
}
