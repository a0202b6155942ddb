/**
 * One client of the RFB server, from its first byte to its last.
 *
 * Flow control. An update goes out only when the client asked for one (a request, or continuous updates), at most two
 * continuous updates are under way that it has not confirmed (by fences), and the channel holds little that is unsent.
 * What changes meanwhile is kept as damage, which is bounded, and never as queued pixels. Small answers are sent at
 * once; a client that asks for them and never reads is closed.
 */
import type { ByteChannel } from './channel.ts';
import { cursorEncoding, HIDDEN_CURSOR } from './cursor.ts';
import { ClientDamage } from './damage.ts';
import type { RectEncoder } from './encodings/encoder.ts';
import { RawEncoder, ZlibEncoder } from './encodings/raw.ts';
import { TightEncoder } from './encodings/tight.ts';
import { ZrleEncoder } from './encodings/zrle.ts';
import type { Frame } from './framebuffer.ts';
import { Handshake, type HandshakePolicy } from './handshake.ts';
import type { ClientHost } from './server.ts';
import { UpdateWriter } from './update.ts';
import { ByteQueue, ByteWriter } from './wire/bytes.ts';
import { type ClientMessage, MESSAGE_LIMIT, parseClientMessage } from './wire/client-messages.ts';
import {
  clipboardCaps,
  clipboardNotify,
  clipboardProvide,
  clipboardRequest,
  parseProvided,
  plainCutText,
} from './wire/clipboard.ts';
import { encodePixelFormat, mappedColours, NATIVE_FORMAT, type PixelFormat, PixelTranslator } from './wire/pixel-format.ts';
import { CLIPBOARD, ENCODING, FENCE, RESIZE_REASON, RESIZE_STATUS, type Rect, SERVER_MESSAGE } from './wire/protocol.ts';

/** Continuous updates that may be unconfirmed. */
const MAX_IN_FLIGHT = 2;
/** No update starts while more bytes than this are unsent. */
const BUFFERED_LIMIT = 256 * 1024;
/** Answers that may wait behind an unread update. */
const ANSWERS_LIMIT = 1 << 20;
/** Compression unless the client asks for a level: speed counts on a local machine. */
const DEFAULT_LEVEL = 1;
/** The highest level obeyed: those above cost many times the time for a few per cent. */
const HIGHEST_LEVEL = 6;

export class RfbClient {
  readonly channel: ByteChannel;
  readonly #host: ClientHost;
  readonly #input = new ByteQueue(MESSAGE_LIMIT);
  /** Bytes of a message too long to keep that are still to come. */
  #skip = 0;
  #handshake: Handshake | undefined;
  #closed = false;
  #shared = false;
  #viewOnly: boolean;

  /** The size the client believes the screen has. */
  #width = 0;
  #height = 0;
  readonly #damage = new ClientDamage();
  #damageWidth = 0;
  #damageHeight = 0;

  #encodings: ReadonlySet<number> = new Set();
  #encoder: RectEncoder = new RawEncoder();
  /** Encoders stay for the whole connection, as their streams must. */
  readonly #encoders = new Map<number, RectEncoder>([[ENCODING.raw, this.#encoder]]);
  #translator = new PixelTranslator(NATIVE_FORMAT);
  readonly #out = new ByteWriter(4096);

  #request: Rect | undefined;
  #continuous: Rect | undefined;
  #fencesSent = 0;
  #fencesAnswered = 0;
  #unreadAnswers = 0;

  /** Things to be said in the next update. */
  #sendCursor = false;
  #sendLeds = false;
  #sendName = false;
  #sendKeysKnown = false;
  #sizeNews: { reason: number; status: number } | undefined;

  /** `viewOnly`: nothing it does reaches the guest. */
  constructor(channel: ByteChannel, host: ClientHost, policy: HandshakePolicy, viewOnly: boolean) {
    this.channel = channel;
    this.#host = host;
    this.#viewOnly = viewOnly;
    this.#handshake = new Handshake(policy, channel.peer);
  }

  /** Begins to talk; call it once somebody listens to the channel. */
  start(): void {
    this.channel.send(Handshake.greeting());
  }

  /** The handshake is over and the connection open. */
  get running(): boolean {
    return this.#handshake === undefined && !this.#closed;
  }

  get shared(): boolean {
    return this.#shared;
  }

  get viewOnly(): boolean {
    return this.#viewOnly;
  }

  /** Whether it waits for an update and could be sent one. */
  get waiting(): boolean {
    return this.running && (this.#request !== undefined || this.#continuous !== undefined) && this.#mayUpdate();
  }

  /** Ends the connection; `reason` is for the log. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.channel.close();
    this.#host.left(this, reason);
  }

  /** Takes bytes from the channel. */
  data(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.length && !this.#closed) {
      if (this.#skip > 0) {
        const count = Math.min(this.#skip, bytes.length - at);
        this.#skip -= count;
        at += count;
        continue;
      }
      at += this.#input.push(bytes, at);
      this.#consume();
    }
  }

  /** Takes in what changed on the screen. */
  frame(frame: Frame): void {
    if (!this.running) return;
    if (frame.resized) this.#resetDamage();
    else this.#damage.addFrame(frame, this.#encodings.has(ENCODING.copyRect));
  }

  #resetDamage(): void {
    const { width, height } = this.#host.framebuffer;
    this.#damageWidth = width;
    this.#damageHeight = height;
    this.#damage.resize(width, height);
  }

  cursorChanged(): void {
    this.#sendCursor = cursorEncoding(this.#encodings) !== undefined;
  }

  ledsChanged(): void {
    this.#sendLeds = this.#encodings.has(ENCODING.qemuLedState);
  }

  nameChanged(): void {
    this.#sendName = this.#encodings.has(ENCODING.desktopName);
  }

  /** The clipboard, the guest's or another client's, has a new text. */
  clipboardChanged(text: string): void {
    if (!this.running) return;
    if (this.#encodings.has(ENCODING.extendedClipboard)) this.#answer(clipboardNotify(true));
    else this.#answer(plainCutText(text));
  }

  bell(): void {
    if (this.running) this.#answer(Uint8Array.of(SERVER_MESSAGE.bell));
  }

  #consume(): void {
    while (!this.#closed && this.#skip === 0 && this.#input.length > 0) {
      const used = this.#handshake === undefined ? this.#consumeMessage() : this.#consumeHandshake(this.#handshake);
      if (used === 0) return;
    }
  }

  /** Returns how many bytes it used, 0 where more are needed. */
  #consumeHandshake(handshake: Handshake): number {
    const step = handshake.step(this.#input.view());
    switch (step.kind) {
      case 'more':
        return 0;
      case 'refused':
        if (step.send !== undefined) this.channel.send(step.send);
        this.close(step.reason);
        return 0;
      case 'next':
        this.#input.drop(step.used);
        if (step.send !== undefined) this.channel.send(step.send);
        return step.used;
      case 'done': {
        this.#input.drop(step.used);
        this.#handshake = undefined;
        this.#shared = step.shared;
        this.#viewOnly ||= step.viewOnly;
        const refusal = this.#host.joined(this);
        if (refusal === undefined) this.#initialise();
        else this.close(refusal);
        return step.used;
      }
    }
  }

  /** RFC 6143 7.3.2: ServerInit. */
  #initialise(): void {
    const { framebuffer } = this.#host;
    this.#width = framebuffer.width;
    this.#height = framebuffer.height;
    this.#resetDamage();
    const name = new TextEncoder().encode(this.#host.name);
    this.#answer(
      new ByteWriter(24 + name.length)
        .u16(this.#width)
        .u16(this.#height)
        .bytes(encodePixelFormat(NATIVE_FORMAT))
        .u32(name.length)
        .bytes(name)
        .take(),
    );
  }

  #consumeMessage(): number {
    const parsed = parseClientMessage(this.#input.view());
    switch (parsed.kind) {
      case 'more':
        return 0;
      case 'bad':
        this.close(`bad message: ${parsed.reason}`);
        return 0;
      case 'skip':
        this.#skip = Math.max(0, parsed.size - this.#input.length);
        this.#input.drop(parsed.size);
        return parsed.size;
      case 'message':
        this.#input.drop(parsed.size);
        this.#handle(parsed.message);
        return parsed.size;
    }
  }

  #handle(message: ClientMessage): void {
    switch (message.type) {
      case 'setPixelFormat':
        this.#setPixelFormat(message.format);
        return;
      case 'setEncodings':
        this.#setEncodings(message.encodings);
        return;
      case 'updateRequest': {
        const region = this.#clip(message.region);
        if (!message.incremental) this.#damage.addRect(region);
        this.#request = region.width > 0 && region.height > 0 ? region : undefined;
        if (this.#request !== undefined) this.#host.demand();
        return;
      }
      case 'enableContinuousUpdates':
        if (message.enable) {
          this.#continuous = this.#clip(message.region);
          this.#host.demand();
        } else {
          this.#continuous = undefined;
          this.#answer(Uint8Array.of(SERVER_MESSAGE.endOfContinuousUpdates));
        }
        return;
      case 'fence':
        this.#fence(message.flags, message.payload);
        return;
      case 'key':
        if (!this.#viewOnly) this.#host.key({ scancode: message.scancode, keysym: message.keysym }, message.down);
        return;
      case 'pointer':
        if (!this.#viewOnly) {
          const x = Math.min(message.x, this.#width - 1);
          const y = Math.min(message.y, this.#height - 1);
          this.#host.pointer(x, y, message.buttons, this.#width, this.#height);
        }
        return;
      case 'cutText':
        if (!this.#viewOnly) this.#host.clipboardFromClient(message.text.replaceAll('\r\n', '\n'), this);
        return;
      case 'extendedClipboard':
        this.#extendedClipboard(message.flags, message.body);
        return;
      case 'setDesktopSize':
        this.#setDesktopSize(message.width, message.height, message.screens);
        return;
    }
  }

  #setPixelFormat(format: PixelFormat): void {
    this.#translator = new PixelTranslator(format);
    this.#sendCursor ||= cursorEncoding(this.#encodings) === ENCODING.cursor && this.#host.cursor !== undefined;
    if (format.trueColour) return;
    const out = new ByteWriter(6 + 1536).u8(SERVER_MESSAGE.setColourMapEntries).u8(0).u16(0).u16(256);
    for (const value of mappedColours()) out.u16(value);
    this.#answer(out.take());
  }

  #setEncodings(list: Int32Array): void {
    const before = this.#encodings;
    const now: ReadonlySet<number> = new Set(list);
    this.#encodings = now;
    const isNew = (encoding: number): boolean => now.has(encoding) && !before.has(encoding);
    this.#chooseEncoder(list);
    // Scrolls that wait would be sent in an encoding the client has just given up.
    if (!now.has(ENCODING.copyRect)) this.#damage.dropCopies();
    if (isNew(ENCODING.qemuExtendedKey)) this.#sendKeysKnown = true;
    if (isNew(ENCODING.qemuLedState)) this.#sendLeds = this.#host.leds !== undefined;
    if (cursorEncoding(now) !== cursorEncoding(before)) this.#sendCursor = this.#host.cursor !== undefined;
    if (isNew(ENCODING.extendedDesktopSize)) this.#sizeNews = { reason: RESIZE_REASON.server, status: RESIZE_STATUS.done };
    if (isNew(ENCODING.fence)) {
      this.#answer(new ByteWriter(9).u8(SERVER_MESSAGE.fence).zeros(3).u32(FENCE.request).u8(0).take());
    }
    if (isNew(ENCODING.continuousUpdates)) this.#answer(Uint8Array.of(SERVER_MESSAGE.endOfContinuousUpdates));
    if (isNew(ENCODING.extendedClipboard)) this.#answer(clipboardCaps());
  }

  /** The first in the client's order that is known here; Raw every client must take. */
  #chooseEncoder(list: Int32Array): void {
    let level = DEFAULT_LEVEL;
    let chosen: number = ENCODING.raw;
    for (const encoding of [...list].reverse()) {
      if (encoding === ENCODING.raw || encoding === ENCODING.zlib || encoding === ENCODING.zrle || encoding === ENCODING.tight) {
        chosen = encoding;
      } else if (encoding >= ENCODING.compressLevel0 && encoding <= ENCODING.compressLevel9) {
        level = Math.min(HIGHEST_LEVEL, encoding - ENCODING.compressLevel0);
      }
    }
    let encoder = this.#encoders.get(chosen);
    if (encoder === undefined) {
      const { compression } = this.#host;
      if (chosen === ENCODING.tight) encoder = new TightEncoder(compression, level);
      else if (chosen === ENCODING.zrle) encoder = new ZrleEncoder(compression, level);
      else encoder = new ZlibEncoder(compression, level);
      this.#encoders.set(chosen, encoder);
    }
    encoder.level = level;
    this.#encoder = encoder;
  }

  /** rfbproto "Fence": messages are handled in order and at once, so every kind of barrier holds already. */
  #fence(flags: number, payload: Uint8Array): void {
    if ((flags & FENCE.request) !== 0) {
      const kept = flags & (FENCE.blockBefore | FENCE.blockAfter | FENCE.syncNext);
      this.#answer(
        new ByteWriter(9 + payload.length).u8(SERVER_MESSAGE.fence).zeros(3).u32(kept).u8(payload.length).bytes(payload).take(),
      );
      return;
    }
    if (payload.length !== 4) return;
    const number = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
    if (number <= this.#fencesAnswered || number > this.#fencesSent) return;
    this.#fencesAnswered = number;
    this.#host.demand();
  }

  #extendedClipboard(flags: number, body: Uint8Array): void {
    if (!this.#encodings.has(ENCODING.extendedClipboard)) return;
    // What the client can do: its action bits mean no action. Text is all there is here, and every client has it.
    if ((flags & CLIPBOARD.caps) !== 0) return;
    const text = this.#host.clipboard;
    if ((flags & CLIPBOARD.request) !== 0) {
      if (text !== undefined && (flags & CLIPBOARD.text) !== 0) this.#answer(clipboardProvide(text, this.#host.compression));
    } else if ((flags & CLIPBOARD.peek) !== 0) {
      this.#answer(clipboardNotify(text !== undefined));
    } else if ((flags & CLIPBOARD.notify) !== 0) {
      if ((flags & CLIPBOARD.text) !== 0 && !this.#viewOnly) this.#answer(clipboardRequest());
    } else if ((flags & CLIPBOARD.provide) !== 0 && !this.#viewOnly) {
      const provided = parseProvided(flags, body, this.#host.compression);
      if (provided !== undefined) this.#host.clipboardFromClient(provided, this);
    }
  }

  #setDesktopSize(width: number, height: number, screens: number): void {
    let status: number = RESIZE_STATUS.invalidLayout;
    if (width > 0 && height > 0 && screens > 0) {
      const accepted = !this.#viewOnly && this.#host.resizeFromClient(width, height);
      status = accepted ? RESIZE_STATUS.forwarded : RESIZE_STATUS.prohibited;
    }
    if (!this.#encodings.has(ENCODING.extendedDesktopSize)) return;
    this.#sizeNews = { reason: RESIZE_REASON.thisClient, status };
    this.#host.demand();
  }

  /** The part of `region` that lies on the client's screen and on the surface. */
  #clip(region: Rect): Rect {
    const x = Math.min(region.x, this.#width, this.#damageWidth);
    const y = Math.min(region.y, this.#height, this.#damageHeight);
    const right = Math.min(region.x + region.width, this.#width, this.#damageWidth);
    const bottom = Math.min(region.y + region.height, this.#height, this.#damageHeight);
    return { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
  }

  #mayUpdate(): boolean {
    if ((this.channel.bufferedAmount ?? 0) > BUFFERED_LIMIT) return false;
    return this.#fencesSent - this.#fencesAnswered < MAX_IN_FLIGHT;
  }

  /** Sends an update where one is wanted, allowed, and there is something to say; returns whether it did. */
  update(): boolean {
    const { framebuffer } = this.#host;
    if (!this.waiting || this.#damageWidth !== framebuffer.width || this.#damageHeight !== framebuffer.height) return false;
    const writer = new UpdateWriter(this.#out, (bytes) => this.channel.send(bytes));
    if (!this.#writeSize(writer)) {
      this.#writeNews(writer);
      this.#writePixels(writer);
    }
    if (!writer.finish()) return false;
    this.#request = undefined;
    if (this.#continuous !== undefined && this.#encodings.has(ENCODING.fence)) {
      this.#fencesSent++;
      const out = new ByteWriter(13).u8(SERVER_MESSAGE.fence).zeros(3);
      this.channel.send(
        out
          .u32(FENCE.request | FENCE.blockBefore)
          .u8(4)
          .u32(this.#fencesSent)
          .take(),
      );
    }
    return true;
  }

  /** A change of size goes in an update of its own (RFC 6143 7.8.2); returns whether it wrote one. */
  #writeSize(writer: UpdateWriter): boolean {
    const { width, height } = this.#host.framebuffer;
    const changed = width !== this.#width || height !== this.#height;
    if (this.#encodings.has(ENCODING.extendedDesktopSize)) {
      if (!changed && this.#sizeNews === undefined) return false;
      const { reason, status } = this.#sizeNews ?? { reason: RESIZE_REASON.server, status: RESIZE_STATUS.done };
      // A refusal or "forwarded" carries the size the client has; the new one follows by itself.
      const told = status === RESIZE_STATUS.done;
      this.#sizeNews = undefined;
      writer.extendedDesktopSize(told ? width : this.#width, told ? height : this.#height, reason, status);
      if (!told) return true;
    } else if (changed && this.#encodings.has(ENCODING.desktopSize)) {
      writer.desktopSize(width, height);
    } else {
      return false;
    }
    // Who followed the whole screen goes on doing so.
    if (this.#continuous !== undefined && this.#coversAll(this.#continuous)) this.#continuous = { x: 0, y: 0, width, height };
    this.#width = width;
    this.#height = height;
    if (this.#continuous !== undefined) this.#continuous = this.#clip(this.#continuous);
    return true;
  }

  #writeNews(writer: UpdateWriter): void {
    const host = this.#host;
    if (this.#sendKeysKnown) writer.extendedKeysKnown();
    if (this.#sendLeds && host.leds !== undefined) writer.leds(host.leds);
    if (this.#sendName) writer.name(host.name);
    const encoding = cursorEncoding(this.#encodings);
    if (this.#sendCursor && encoding !== undefined) {
      writer.cursor(host.cursor ?? HIDDEN_CURSOR, encoding, this.#translator);
    }
    this.#sendKeysKnown = false;
    this.#sendLeds = false;
    this.#sendName = false;
    this.#sendCursor = false;
  }

  #writePixels(writer: UpdateWriter): void {
    const region = this.#clip(this.#wanted());
    if (region.width === 0 || region.height === 0 || !this.#damage.touches(region)) return;
    const picture = this.#host.framebuffer.front;
    if (this.#coversAll(region) && this.#width === picture.width && this.#height === picture.height) {
      for (const copy of this.#damage.takeCopies()) writer.copy(copy, picture.width);
    } else {
      this.#damage.dropCopies();
    }
    writer.pixels(this.#encoder, picture, this.#damage.takeRects(region), this.#translator);
  }

  /** The smallest rectangle around what is asked for in either way. */
  #wanted(): Rect {
    const a = this.#request ?? this.#continuous!;
    const b = this.#continuous ?? a;
    const x = Math.min(a.x, b.x);
    const y = Math.min(a.y, b.y);
    return { x, y, width: Math.max(a.x + a.width, b.x + b.width) - x, height: Math.max(a.y + a.height, b.y + b.height) - y };
  }

  #coversAll(region: Rect): boolean {
    return region.x === 0 && region.y === 0 && region.width >= this.#width && region.height >= this.#height;
  }

  /** Sends a small message now. */
  #answer(bytes: Uint8Array): void {
    if (this.#closed) return;
    if ((this.channel.bufferedAmount ?? 0) === 0) this.#unreadAnswers = 0;
    else this.#unreadAnswers += bytes.length;
    if (this.#unreadAnswers > ANSWERS_LIMIT) {
      this.close('it does not read what it asks for');
      return;
    }
    this.channel.send(bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : new Uint8Array(bytes));
  }
}
