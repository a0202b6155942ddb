import { PIXEL_FORMAT_BYTES, type PixelFormat, parsePixelFormat } from './pixel-format.ts';
import { CLIENT_MESSAGE, type Rect } from './protocol.ts';

/** A message of a client, checked (RFC 6143 7.5; rfbproto "Client to Server Messages"). */
export type ClientMessage =
  | { type: 'setPixelFormat'; format: PixelFormat }
  | { type: 'setEncodings'; encodings: Int32Array }
  | { type: 'updateRequest'; incremental: boolean; region: Rect }
  | { type: 'key'; down: boolean; keysym: number; scancode?: number }
  | { type: 'pointer'; buttons: number; x: number; y: number }
  | { type: 'cutText'; text: string }
  | { type: 'extendedClipboard'; flags: number; body: Uint8Array }
  | { type: 'enableContinuousUpdates'; enable: boolean; region: Rect }
  | { type: 'fence'; flags: number; payload: Uint8Array }
  | { type: 'setDesktopSize'; width: number; height: number; screens: number };

/**
 * - `more`: the message is not whole yet; at least `need` bytes are wanted in all.
 * - `message`: it took `size` bytes.
 * - `skip`: a clipboard text longer than the limit; `size` bytes, most of them still to come, are to be thrown away.
 * - `bad`: the stream cannot be understood from here on.
 */
export type Parsed =
  | { kind: 'more'; need: number }
  | { kind: 'message'; size: number; message: ClientMessage }
  | { kind: 'skip'; size: number }
  | { kind: 'bad'; reason: string };

/** Longest clipboard message that is looked at, in bytes; longer ones are skipped. */
export const CUT_TEXT_LIMIT = 1 << 20;

/** The most bytes that one message needs at once: what a connection has to buffer. */
export const MESSAGE_LIMIT = CUT_TEXT_LIMIT + 8;

/** Screens that a SetDesktopSize may list; noVNC and TigerVNC list one to a few. */
const SCREEN_LIMIT = 255;
const FENCE_PAYLOAD_LIMIT = 64;
const QEMU_EXTENDED_KEY = 0;

/** Reads the message at the start of `bytes`. What it returns does not refer to `bytes`. */
export function parseClientMessage(bytes: Uint8Array): Parsed {
  if (bytes.length === 0) return { kind: 'more', need: 1 };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (bytes[0]) {
    case CLIENT_MESSAGE.setPixelFormat: {
      const size = 4 + PIXEL_FORMAT_BYTES;
      if (bytes.length < size) return { kind: 'more', need: size };
      const format = parsePixelFormat(view, 4);
      if (typeof format === 'string') return { kind: 'bad', reason: format };
      return { kind: 'message', size, message: { type: 'setPixelFormat', format } };
    }
    case CLIENT_MESSAGE.setEncodings: {
      if (bytes.length < 4) return { kind: 'more', need: 4 };
      const count = view.getUint16(2);
      const size = 4 + count * 4;
      if (bytes.length < size) return { kind: 'more', need: size };
      const encodings = new Int32Array(count);
      for (let index = 0; index < count; index++) encodings[index] = view.getInt32(4 + index * 4);
      return { kind: 'message', size, message: { type: 'setEncodings', encodings } };
    }
    case CLIENT_MESSAGE.updateRequest:
      if (bytes.length < 10) return { kind: 'more', need: 10 };
      return {
        kind: 'message',
        size: 10,
        message: { type: 'updateRequest', incremental: bytes[1] !== 0, region: parseRect(view, 2) },
      };
    case CLIENT_MESSAGE.key:
      if (bytes.length < 8) return { kind: 'more', need: 8 };
      return { kind: 'message', size: 8, message: { type: 'key', down: bytes[1] !== 0, keysym: view.getUint32(4) } };
    case CLIENT_MESSAGE.pointer:
      if (bytes.length < 6) return { kind: 'more', need: 6 };
      return {
        kind: 'message',
        size: 6,
        message: { type: 'pointer', buttons: bytes[1], x: view.getUint16(2), y: view.getUint16(4) },
      };
    case CLIENT_MESSAGE.cutText:
      return parseCutText(bytes, view);
    case CLIENT_MESSAGE.enableContinuousUpdates:
      if (bytes.length < 10) return { kind: 'more', need: 10 };
      return {
        kind: 'message',
        size: 10,
        message: { type: 'enableContinuousUpdates', enable: bytes[1] !== 0, region: parseRect(view, 2) },
      };
    case CLIENT_MESSAGE.fence: {
      if (bytes.length < 9) return { kind: 'more', need: 9 };
      const length = bytes[8];
      if (length > FENCE_PAYLOAD_LIMIT) return { kind: 'bad', reason: `fence with ${length} bytes of payload, 64 are allowed` };
      const size = 9 + length;
      if (bytes.length < size) return { kind: 'more', need: size };
      return { kind: 'message', size, message: { type: 'fence', flags: view.getUint32(4), payload: bytes.slice(9, size) } };
    }
    case CLIENT_MESSAGE.setDesktopSize: {
      if (bytes.length < 8) return { kind: 'more', need: 8 };
      const screens = Math.min(bytes[6], SCREEN_LIMIT);
      const size = 8 + screens * 16;
      if (bytes.length < size) return { kind: 'more', need: size };
      return {
        kind: 'message',
        size,
        message: { type: 'setDesktopSize', width: view.getUint16(2), height: view.getUint16(4), screens },
      };
    }
    case CLIENT_MESSAGE.qemu: {
      if (bytes.length < 2) return { kind: 'more', need: 2 };
      if (bytes[1] !== QEMU_EXTENDED_KEY) return { kind: 'bad', reason: `unknown QEMU message ${bytes[1]}` };
      if (bytes.length < 12) return { kind: 'more', need: 12 };
      const keycode = view.getUint32(8);
      return {
        kind: 'message',
        size: 12,
        message: {
          type: 'key',
          down: view.getUint16(2) !== 0,
          keysym: view.getUint32(4),
          scancode: xtScancode(keycode),
        },
      };
    }
    default:
      return { kind: 'bad', reason: `unknown message type ${bytes[0]}` };
  }
}

/**
 * The XT (set 1) key code of a QEMU extended key event: keys with an E0 prefix have bit 7 set. Some clients write
 * the prefix out (0xe0XX). Zero, or anything else that is no key, gives undefined.
 */
function xtScancode(keycode: number): number | undefined {
  if (keycode > 0 && keycode <= 0xff) return keycode;
  if (keycode >>> 8 === 0xe0 && (keycode & 0x7f) !== 0) return (keycode & 0x7f) | 0x80;
  return undefined;
}

/** RFC 6143 7.5.6: Latin-1; a negative length makes it an extended clipboard message (rfbproto). */
function parseCutText(bytes: Uint8Array, view: DataView): Parsed {
  if (bytes.length < 8) return { kind: 'more', need: 8 };
  const signed = view.getInt32(4);
  const length = Math.abs(signed);
  const size = 8 + length;
  if (length > CUT_TEXT_LIMIT) return { kind: 'skip', size };
  if (bytes.length < size) return { kind: 'more', need: size };
  if (signed >= 0) return { kind: 'message', size, message: { type: 'cutText', text: decodeLatin1(bytes.subarray(8, size)) } };
  if (length < 4) return { kind: 'bad', reason: 'extended clipboard message without flags' };
  return {
    kind: 'message',
    size,
    message: { type: 'extendedClipboard', flags: view.getUint32(8), body: bytes.slice(12, size) },
  };
}

function parseRect(view: DataView, at: number): Rect {
  return {
    x: view.getUint16(at),
    y: view.getUint16(at + 2),
    width: view.getUint16(at + 4),
    height: view.getUint16(at + 6),
  };
}

/** Text of ISO 8859-1 bytes (TextDecoder's latin1 is Windows-1252, which differs from it). */
export function decodeLatin1(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return text;
}

/** ISO 8859-1 bytes; characters beyond it become question marks. */
export function encodeLatin1(text: string): Uint8Array {
  const points = Array.from(text, (character) => character.codePointAt(0)!);
  return Uint8Array.from(points, (point) => (point > 255 ? 0x3f : point));
}
