/**
 * For tests: a channel in memory and a small RFB client that decodes all the server can send, written from the
 * protocol's description and not from the encoders.
 */
import { constants, inflateSync } from 'node:zlib';
import type { ByteChannel, ByteChannelListener, InputSink } from './channel.ts';
import { encodePixelFormat, NATIVE_FORMAT, type PixelFormat } from './wire/pixel-format.ts';

/** The server's end of a connection in memory; the test is the other end. */
export class MemoryChannel implements ByteChannel {
  readonly peer: string;
  /** What the server is told of unsent bytes. */
  bufferedAmount = 0;
  closed = false;
  listener!: ByteChannelListener;
  onSend: (bytes: Uint8Array) => void = () => {};

  constructor(peer = 'test') {
    this.peer = peer;
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (!this.closed) this.onSend(bytes);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.listener?.closed();
  }

  listen(listener: ByteChannelListener): void {
    this.listener = listener;
  }
}

/** An input sink that writes down what it is told. */
export class RecordingSink implements InputSink {
  readonly events: unknown[][] = [];

  key(code: { scancode?: number; keysym: number }, down: boolean): void {
    this.events.push(['key', code.scancode, code.keysym, down]);
  }

  pointer(x: number, y: number, buttons: number, width: number, height: number): void {
    this.events.push(['pointer', x, y, buttons, width, height]);
  }

  clipboard(text: string): void {
    this.events.push(['clipboard', text]);
  }
}

/** A generator of numbers that is the same in every run; each below 2^32. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let value = Math.imul(state ^ (state >>> 15), state | 1);
    value ^= value + Math.imul(value ^ (value >>> 7), value | 61);
    return (value ^ (value >>> 14)) >>> 0;
  };
}

/** A zlib stream that is read as it comes: everything so far is inflated again, which tests that it is one stream. */
class Inflater {
  #input: Uint8Array = new Uint8Array(0);
  #given = 0;

  push(data: Uint8Array): Uint8Array {
    this.#input = Buffer.concat([this.#input, data]);
    const all = inflateSync(this.#input, { finishFlush: constants.Z_SYNC_FLUSH });
    const fresh = all.subarray(this.#given);
    this.#given = all.length;
    return fresh;
  }
}

/** Parsing code asks for so many bytes with `yield` and is given exactly these. */
type Parser<T = void> = Generator<number, T, Uint8Array>;

export interface DecodedUpdate {
  /** The encodings of its rectangles, in order. */
  encodings: number[];
  bytes: number;
}

export class TestClient {
  readonly channel: MemoryChannel;
  width = 0;
  height = 0;
  name = '';
  /** The screen in the client's own pixel values. */
  screen = new Uint32Array(0);
  updates: DecodedUpdate[] = [];
  /** Everything else that came, by name. */
  events: unknown[][] = [];
  /** Answers to fences are sent at once unless this is off. */
  answerFences = true;
  format: PixelFormat = NATIVE_FORMAT;
  failure = '';

  readonly #version: string;
  readonly #respond: ((challenge: Uint8Array) => Uint8Array) | undefined;
  readonly #shared: boolean;
  readonly #parser: Parser;
  #need = 0;
  #buffer: Uint8Array = new Uint8Array(0);
  #parsing = false;
  #done = false;
  #consumed = 0;
  readonly #zlib = new Inflater();
  readonly #zrle = new Inflater();
  readonly #tight = [0, 1, 2, 3].map(() => new Inflater());

  constructor(
    channel: MemoryChannel,
    options: { version?: string; respond?: (challenge: Uint8Array) => Uint8Array; shared?: boolean } = {},
  ) {
    this.channel = channel;
    this.#version = options.version ?? '003.008';
    this.#respond = options.respond;
    this.#shared = options.shared ?? true;
    this.#parser = this.#run();
    this.#need = this.#parser.next().value as number;
    channel.onSend = (bytes) => this.receive(bytes);
  }

  /** Whether ServerInit has come. */
  get ready(): boolean {
    return this.width > 0;
  }

  /** Sends bytes to the server. */
  send(...bytes: (number | Uint8Array)[]): void {
    this.channel.listener.data(Uint8Array.from(bytes.flatMap((part) => (typeof part === 'number' ? [part] : [...part]))));
  }

  request(incremental: boolean, x = 0, y = 0, width = this.width, height = this.height): void {
    this.send(3, incremental ? 1 : 0, be16(x), be16(y), be16(width), be16(height));
  }

  setEncodings(...encodings: number[]): void {
    this.send(2, 0, be16(encodings.length), ...encodings.map(be32));
  }

  setPixelFormat(format: PixelFormat): void {
    this.format = format;
    this.send(0, 0, 0, 0, encodePixelFormat(format));
  }

  receive(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#buffer.length + bytes.length);
    joined.set(this.#buffer);
    joined.set(bytes, this.#buffer.length);
    this.#buffer = joined;
    // What the parser sends may be answered before it returns: the outer call goes on with that.
    if (this.#parsing) return;
    this.#parsing = true;
    while (this.#buffer.length >= this.#need && !this.#done) {
      const part = this.#buffer.slice(0, this.#need);
      this.#buffer = this.#buffer.subarray(this.#need);
      this.#consumed += this.#need;
      const next = this.#parser.next(part);
      if (next.done) this.#done = true;
      else this.#need = next.value;
    }
    this.#parsing = false;
  }

  *#u8(): Parser<number> {
    return (yield 1)[0];
  }

  *#u16(): Parser<number> {
    const bytes = yield 2;
    return (bytes[0] << 8) | bytes[1];
  }

  *#u32(): Parser<number> {
    const bytes = yield 4;
    return new DataView(bytes.buffer).getUint32(0);
  }

  *#text(): Parser<string> {
    const length = yield* this.#u32();
    return length === 0 ? '' : new TextDecoder().decode(yield length);
  }

  *#run(): Parser {
    const greeting = new TextDecoder().decode(yield 12);
    if (greeting !== 'RFB 003.008\n') throw new Error(`greeting ${greeting}`);
    this.send(new TextEncoder().encode(`RFB ${this.#version}\n`));
    const old = this.#version < '003.007';
    let type: number;
    if (old) {
      type = yield* this.#u32();
    } else {
      const count = yield* this.#u8();
      type = count === 0 ? 0 : (yield count)[0];
    }
    if (type === 0) {
      this.failure = yield* this.#text();
      return;
    }
    if (!old) this.send(type);
    if (type === 2) {
      const challenge = yield 16;
      this.send(this.#respond!(challenge));
    }
    if (type === 2 || this.#version >= '003.008') {
      if ((yield* this.#u32()) !== 0) {
        this.failure = this.#version >= '003.008' ? yield* this.#text() : 'failed';
        return;
      }
    }
    this.send(this.#shared ? 1 : 0);
    const width = yield* this.#u16();
    const height = yield* this.#u16();
    yield 16;
    this.name = yield* this.#text();
    this.#resize(width, height);
    for (;;) yield* this.#message();
  }

  #resize(width: number, height: number): void {
    const screen = new Uint32Array(width * height);
    for (let y = 0; y < Math.min(height, this.height); y++) {
      for (let x = 0; x < Math.min(width, this.width); x++) screen[y * width + x] = this.screen[y * this.width + x];
    }
    this.screen = screen;
    this.width = width;
    this.height = height;
  }

  *#message(): Parser {
    const type = yield* this.#u8();
    switch (type) {
      case 0:
        yield* this.#update();
        return;
      case 1: {
        yield 3;
        const count = yield* this.#u16();
        this.events.push(['colours', yield count * 6]);
        return;
      }
      case 2:
        this.events.push(['bell']);
        return;
      case 3: {
        yield 3;
        const length = (yield* this.#u32()) | 0;
        const body = length === 0 ? new Uint8Array(0) : yield Math.abs(length);
        if (length >= 0) this.events.push(['cutText', Buffer.from(body).toString('latin1')]);
        else this.events.push(['extendedClipboard', new DataView(body.buffer).getUint32(0), body.slice(4)]);
        return;
      }
      case 150:
        this.events.push(['endOfContinuousUpdates']);
        return;
      case 248: {
        yield 3;
        const flags = yield* this.#u32();
        const length = yield* this.#u8();
        const payload = length === 0 ? new Uint8Array(0) : yield length;
        this.events.push(['fence', flags, payload]);
        if (flags >= 0x80000000 && this.answerFences) {
          this.send(248, 0, 0, 0, be32(flags & 0x7fffffff), payload.length, payload);
        }
        return;
      }
      default:
        throw new Error(`message ${type}`);
    }
  }

  *#update(): Parser {
    const start = this.#consumed - 1;
    yield 1;
    const count = yield* this.#u16();
    const encodings: number[] = [];
    for (let index = 0; index < count || count === 0xffff; index++) {
      const x = yield* this.#u16();
      const y = yield* this.#u16();
      const width = yield* this.#u16();
      const height = yield* this.#u16();
      const encoding = (yield* this.#u32()) | 0;
      if (encoding === -224) break;
      encodings.push(encoding);
      yield* this.#rectangle(x, y, width, height, encoding);
    }
    this.updates.push({ encodings, bytes: this.#consumed - start });
  }

  *#rectangle(x: number, y: number, width: number, height: number, encoding: number): Parser {
    if (encoding >= 0 && encoding < 100 && (x + width > this.width || y + height > this.height)) {
      throw new Error(`rectangle ${x},${y} ${width}x${height} outside of ${this.width}x${this.height}`);
    }
    const bytesPerPixel = this.format.bitsPerPixel / 8;
    switch (encoding) {
      case 0:
        this.#put(x, y, width, height, this.#pixels(yield width * height * bytesPerPixel));
        return;
      case 1: {
        const fromX = yield* this.#u16();
        const fromY = yield* this.#u16();
        const part: number[] = [];
        for (let row = 0; row < height; row++) {
          const at = (fromY + row) * this.width + fromX;
          for (const value of this.screen.subarray(at, at + width)) part.push(value);
        }
        this.#put(x, y, width, height, part);
        return;
      }
      case 6: {
        const data = yield yield* this.#u32();
        this.#put(x, y, width, height, this.#pixels(this.#zlib.push(data)));
        return;
      }
      case 7:
        yield* this.#tightRectangle(x, y, width, height);
        return;
      case 16: {
        const data = yield yield* this.#u32();
        this.#zrleRectangle(x, y, width, height, this.#zrle.push(data));
        return;
      }
      case -223:
        this.#resize(width, height);
        this.events.push(['desktopSize', width, height]);
        return;
      case -308: {
        const screens = yield* this.#u8();
        yield 3 + screens * 16;
        this.#resize(width, height);
        this.events.push(['extendedDesktopSize', x, y, width, height]);
        return;
      }
      case -239: {
        const pixels = width * height === 0 ? [] : this.#pixels(yield width * height * bytesPerPixel);
        const mask = width * height === 0 ? new Uint8Array(0) : yield Math.ceil(width / 8) * height;
        this.events.push(['cursor', x, y, width, height, pixels, mask]);
        return;
      }
      case -314:
        this.events.push(['alphaCursor', x, y, width, height, yield* this.#u32(), yield width * height * 4]);
        return;
      case 0x574d5664:
        this.events.push(['vmwareCursor', x, y, width, height, yield 2, yield width * height * 4]);
        return;
      case -258:
        this.events.push(['extendedKeys']);
        return;
      case -261:
        this.events.push(['leds', yield* this.#u8()]);
        return;
      case -307:
        this.events.push(['name', yield* this.#text()]);
        return;
      default:
        throw new Error(`encoding ${encoding}`);
    }
  }

  #put(x: number, y: number, width: number, height: number, pixels: ArrayLike<number>): void {
    if (pixels.length !== width * height) throw new Error(`${pixels.length} pixels for ${width}x${height}`);
    for (let index = 0; index < pixels.length; index++) {
      this.screen[(y + Math.floor(index / width)) * this.width + x + (index % width)] = pixels[index];
    }
  }

  #number(bytes: Uint8Array, at: number, count: number): number {
    let value = 0;
    for (let index = 0; index < count; index++) {
      value = value * 256 + bytes[at + (this.format.bigEndian ? index : count - 1 - index)];
    }
    return value;
  }

  #pixels(bytes: Uint8Array): number[] {
    const size = this.format.bitsPerPixel / 8;
    return Array.from({ length: bytes.length / size }, (_, index) => this.#number(bytes, index * size, size));
  }

  /** How a CPIXEL is read: its bytes, and what to multiply its value with. */
  #compact(): [number, number] {
    const { bitsPerPixel, depth, redMax, redShift, greenMax, greenShift, blueMax, blueShift } = this.format;
    if (bitsPerPixel !== 32 || depth > 24) return [bitsPerPixel / 8, 1];
    const used = [redMax * 2 ** redShift, greenMax * 2 ** greenShift, blueMax * 2 ** blueShift];
    if (used.every((value) => value < 2 ** 24)) return [3, 1];
    if (used.every((value) => value % 256 === 0)) return [3, 256];
    return [4, 1];
  }

  #zrleRectangle(x: number, y: number, width: number, height: number, data: Uint8Array): void {
    const [size, factor] = this.#compact();
    let at = 0;
    const pixel = (): number => {
      at += size;
      return this.#number(data, at - size, size) * factor;
    };
    const runLength = (): number => {
      let length = 1;
      for (;;) {
        const byte = data[at++];
        length += byte;
        if (byte !== 255) return length;
      }
    };
    for (let top = y; top < y + height; top += 64) {
      for (let left = x; left < x + width; left += 64) {
        const w = Math.min(64, x + width - left);
        const h = Math.min(64, y + height - top);
        const form = data[at++];
        const tile: number[] = [];
        const palette: number[] = [];
        const colours = form === 128 ? 0 : form & 127;
        for (let index = 0; index < colours; index++) palette.push(pixel());
        if (form === 0) {
          while (tile.length < w * h) tile.push(pixel());
        } else if (form === 1) {
          while (tile.length < w * h) tile.push(palette[0]);
        } else if (form <= 16) {
          const bits = form === 2 ? 1 : form <= 4 ? 2 : 4;
          for (let row = 0; row < h; row++) {
            let left = 0;
            let byte = 0;
            for (let column = 0; column < w; column++) {
              if (left === 0) {
                byte = data[at++];
                left = 8;
              }
              left -= bits;
              tile.push(palette[(byte >> left) & ((1 << bits) - 1)]);
            }
          }
        } else if (form === 128) {
          while (tile.length < w * h) {
            const value = pixel();
            for (let rest = runLength(); rest > 0; rest--) tile.push(value);
          }
        } else if (form >= 130) {
          while (tile.length < w * h) {
            const index = data[at++];
            for (let rest = index >= 128 ? runLength() : 1; rest > 0; rest--) tile.push(palette[index & 127]);
          }
        } else {
          throw new Error(`ZRLE subencoding ${form}`);
        }
        if (tile.includes(undefined as unknown as number)) throw new Error('ZRLE index outside of its palette');
        this.#put(left, top, w, h, tile);
      }
    }
    if (at !== data.length) throw new Error(`ZRLE: ${data.length - at} bytes too many`);
  }

  #tightPixels(bytes: Uint8Array): number[] {
    const { bitsPerPixel, depth, redMax, greenMax, blueMax, redShift, greenShift, blueShift } = this.format;
    if (bitsPerPixel !== 32 || depth !== 24 || redMax !== 255 || greenMax !== 255 || blueMax !== 255) return this.#pixels(bytes);
    return Array.from(
      { length: bytes.length / 3 },
      (_, index) =>
        ((bytes[index * 3] << redShift) | (bytes[index * 3 + 1] << greenShift) | (bytes[index * 3 + 2] << blueShift)) >>> 0,
    );
  }

  *#tightRectangle(x: number, y: number, width: number, height: number): Parser {
    const { bitsPerPixel, depth, redMax } = this.format;
    const size = bitsPerPixel === 32 && depth === 24 && redMax === 255 ? 3 : bitsPerPixel / 8;
    if (width > 2048) throw new Error('Tight rectangle too wide');
    const control = yield* this.#u8();
    if ((control & 15) !== 0) throw new Error('Tight stream reset was not expected');
    if (control >> 4 === 8) {
      const [value] = this.#tightPixels(yield size);
      this.#put(x, y, width, height, new Array(width * height).fill(value));
      return;
    }
    if (control >> 7 !== 0) throw new Error(`Tight control ${control}`);
    const filter = (control & 0x40) !== 0 ? yield* this.#u8() : 0;
    let palette: number[] = [];
    if (filter === 1) palette = this.#tightPixels(yield ((yield* this.#u8()) + 1) * size);
    else if (filter !== 0) throw new Error(`Tight filter ${filter}`);
    const rowBytes = filter === 0 ? width * size : palette.length === 2 ? Math.ceil(width / 8) : width;
    let data: Uint8Array;
    if (rowBytes * height < 12) {
      data = yield rowBytes * height;
    } else {
      let length = 0;
      for (let shift = 0; shift < 21; shift += 7) {
        const byte = yield* this.#u8();
        length |= (shift === 14 ? byte : byte & 127) << shift;
        if (shift === 14 || byte < 128) break;
      }
      data = this.#tight[(control >> 4) & 3].push(yield length);
    }
    if (data.length !== rowBytes * height) throw new Error(`Tight: ${data.length} bytes for ${rowBytes} times ${height}`);
    if (filter === 0) {
      this.#put(x, y, width, height, this.#tightPixels(data));
      return;
    }
    const pixels: number[] = [];
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const index =
          palette.length === 2 ? (data[row * rowBytes + (column >> 3)] >> (7 - (column & 7))) & 1 : data[row * rowBytes + column];
        pixels.push(palette[index]);
      }
    }
    this.#put(x, y, width, height, pixels);
  }
}

export function be16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

export function be32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}
