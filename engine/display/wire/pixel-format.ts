/** RFC 6143 7.4: how a client wants pixel values laid out. */
export interface PixelFormat {
  readonly bitsPerPixel: 8 | 16 | 32;
  readonly depth: number;
  readonly bigEndian: boolean;
  /** False: 8-bit values are indexes into the colour map that the server sends. */
  readonly trueColour: boolean;
  readonly redMax: number;
  readonly greenMax: number;
  readonly blueMax: number;
  readonly redShift: number;
  readonly greenShift: number;
  readonly blueShift: number;
}

/** Bytes of a pixel format on the wire. */
export const PIXEL_FORMAT_BYTES = 16;

/** What the server offers in ServerInit: 32 bits a pixel, red in bits 16..23, little endian. */
export const NATIVE_FORMAT: PixelFormat = {
  bitsPerPixel: 32,
  depth: 24,
  bigEndian: false,
  trueColour: true,
  redMax: 255,
  greenMax: 255,
  blueMax: 255,
  redShift: 16,
  greenShift: 8,
  blueShift: 0,
};

/** The layout behind the colour map given to clients that ask for one: three bits red, three green, two blue. */
const MAPPED_FORMAT: PixelFormat = {
  bitsPerPixel: 8,
  depth: 8,
  bigEndian: false,
  trueColour: false,
  redMax: 7,
  greenMax: 7,
  blueMax: 3,
  redShift: 5,
  greenShift: 2,
  blueShift: 0,
};

/** Reads the 16 bytes at `offset`; a string says what is wrong with them. The caller has checked the length. */
export function parsePixelFormat(view: DataView, offset: number): PixelFormat | string {
  const bitsPerPixel = view.getUint8(offset);
  const depth = view.getUint8(offset + 1);
  if (bitsPerPixel !== 8 && bitsPerPixel !== 16 && bitsPerPixel !== 32) return `pixel format: ${bitsPerPixel} bits per pixel`;
  if (view.getUint8(offset + 3) === 0) {
    return bitsPerPixel === 8 ? MAPPED_FORMAT : `pixel format: a colour map with ${bitsPerPixel} bits per pixel`;
  }
  const format: PixelFormat = {
    bitsPerPixel,
    depth,
    bigEndian: view.getUint8(offset + 2) !== 0,
    trueColour: true,
    redMax: view.getUint16(offset + 4),
    greenMax: view.getUint16(offset + 6),
    blueMax: view.getUint16(offset + 8),
    redShift: view.getUint8(offset + 10),
    greenShift: view.getUint8(offset + 11),
    blueShift: view.getUint8(offset + 12),
  };
  for (const [max, shift] of [
    [format.redMax, format.redShift],
    [format.greenMax, format.greenShift],
    [format.blueMax, format.blueShift],
  ]) {
    if (max === 0 || (max & (max + 1)) !== 0) return `pixel format: maximum ${max} is not a power of two less one`;
    if (shift + bitLength(max) > bitsPerPixel) return `pixel format: shift ${shift} reaches beyond ${bitsPerPixel} bits`;
  }
  return format;
}

/** The 16 bytes of `format`. */
export function encodePixelFormat(format: PixelFormat): Uint8Array {
  const bytes = new Uint8Array(PIXEL_FORMAT_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, format.bitsPerPixel);
  view.setUint8(1, format.depth);
  view.setUint8(2, format.bigEndian ? 1 : 0);
  view.setUint8(3, format.trueColour ? 1 : 0);
  view.setUint16(4, format.redMax);
  view.setUint16(6, format.greenMax);
  view.setUint16(8, format.blueMax);
  view.setUint8(10, format.redShift);
  view.setUint8(11, format.greenShift);
  view.setUint8(12, format.blueShift);
  return bytes;
}

/** The 256 colours behind a mapped 8-bit format, as 16-bit red, green, blue (RFC 6143 7.6.2). */
export function mappedColours(): Uint16Array {
  const colours = new Uint16Array(256 * 3);
  for (let index = 0; index < 256; index++) {
    colours[index * 3] = Math.round(((index >> 5) * 65535) / 7);
    colours[index * 3 + 1] = Math.round((((index >> 2) & 7) * 65535) / 7);
    colours[index * 3 + 2] = Math.round(((index & 3) * 65535) / 3);
  }
  return colours;
}

/** Turns surface pixels (red in the lowest byte, then green, then blue) into a client's format. */
export class PixelTranslator {
  readonly format: PixelFormat;
  readonly bytesPerPixel: number;
  /** RFC 6143 7.7.5: bytes of a CPIXEL, 3 where the colours of a 32-bit format leave a whole byte free. */
  readonly compactBytes: number;
  /** rfbproto "Tight Encoding": a TPIXEL is red, green, blue, one byte each. */
  readonly tightRgb: boolean;
  readonly #red = new Uint32Array(256);
  readonly #green = new Uint32Array(256);
  readonly #blue = new Uint32Array(256);
  /** Which byte of the 32-bit value a CPIXEL starts at, as a shift. */
  readonly #compactShift: number;

  constructor(format: PixelFormat) {
    this.format = format;
    this.bytesPerPixel = format.bitsPerPixel / 8;
    for (let level = 0; level < 256; level++) {
      this.#red[level] = scale(level, format.redMax, format.redShift);
      this.#green[level] = scale(level, format.greenMax, format.greenShift);
      this.#blue[level] = scale(level, format.blueMax, format.blueShift);
    }
    const used = (this.#red[255] | this.#green[255] | this.#blue[255]) >>> 0;
    const small = format.bitsPerPixel === 32 && format.depth <= 24;
    const low = small && used < 2 ** 24;
    const high = small && !low && (used & 0xff) === 0;
    this.compactBytes = low || high ? 3 : this.bytesPerPixel;
    this.#compactShift = high ? 8 : 0;
    this.tightRgb =
      format.bitsPerPixel === 32 &&
      format.depth === 24 &&
      format.redMax === 255 &&
      format.greenMax === 255 &&
      format.blueMax === 255;
  }

  /** The client's value of a surface pixel, below 2^32. */
  value(pixel: number): number {
    return (this.#red[pixel & 255] | this.#green[(pixel >>> 8) & 255] | this.#blue[(pixel >>> 16) & 255]) >>> 0;
  }

  /** Writes one whole PIXEL at `at`; returns the offset after it. */
  write(pixel: number, out: Uint8Array, at: number): number {
    return put(this.value(pixel), this.bytesPerPixel, this.format.bigEndian, out, at);
  }

  /** Writes one CPIXEL at `at`; returns the offset after it. */
  writeCompact(pixel: number, out: Uint8Array, at: number): number {
    return put(this.value(pixel) >>> this.#compactShift, this.compactBytes, this.format.bigEndian, out, at);
  }

  /** Writes a rectangle as PIXELs, row by row; returns the offset after it. */
  writeRect(
    pixels: Uint32Array,
    stride: number,
    x: number,
    y: number,
    width: number,
    height: number,
    out: Uint8Array,
    at: number,
  ): number {
    for (let row = y; row < y + height; row++) {
      const end = row * stride + x + width;
      for (let index = end - width; index < end; index++) at = this.write(pixels[index], out, at);
    }
    return at;
  }
}

function put(value: number, bytes: number, bigEndian: boolean, out: Uint8Array, at: number): number {
  if (bigEndian) for (let shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out[at++] = value >>> shift;
  else for (let shift = 0; shift < bytes * 8; shift += 8) out[at++] = value >>> shift;
  return at;
}

function scale(level: number, max: number, shift: number): number {
  return (Math.round((level * max) / 255) << shift) >>> 0;
}

function bitLength(value: number): number {
  return 32 - Math.clz32(value);
}
