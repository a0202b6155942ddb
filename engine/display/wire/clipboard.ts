import type { Compression } from '../compression.ts';
import { ByteWriter } from './bytes.ts';
import { CUT_TEXT_LIMIT, encodeLatin1 } from './client-messages.ts';
import { CLIPBOARD, SERVER_MESSAGE } from './protocol.ts';

/** Longest text, in bytes of UTF-8, that is taken from or given to a client. */
export const CLIPBOARD_TEXT_LIMIT = CUT_TEXT_LIMIT;

/** A ServerCutText message (RFC 6143 7.6.4): line ends are single line feeds, characters Latin-1. */
export function plainCutText(text: string): Uint8Array {
  const body = encodeLatin1(text.replaceAll('\r\n', '\n'));
  return new ByteWriter(8 + body.length).u8(SERVER_MESSAGE.cutText).zeros(3).u32(body.length).bytes(body).take();
}

function extended(flags: number, body: Uint8Array): Uint8Array {
  return new ByteWriter(12 + body.length)
    .u8(SERVER_MESSAGE.cutText)
    .zeros(3)
    .u32(-(4 + body.length))
    .u32(flags)
    .bytes(body)
    .take();
}

/** What this end can do: every action, text only, no text so small that it is sent unasked. */
export function clipboardCaps(): Uint8Array {
  const flags = CLIPBOARD.caps | CLIPBOARD.request | CLIPBOARD.peek | CLIPBOARD.notify | CLIPBOARD.provide | CLIPBOARD.text;
  return extended(flags, new Uint8Array(4));
}

/** Asks for the text that the client announced. */
export function clipboardRequest(): Uint8Array {
  return extended(CLIPBOARD.request | CLIPBOARD.text, new Uint8Array(0));
}

/** Announces that this end has a text (or nothing). */
export function clipboardNotify(hasText: boolean): Uint8Array {
  return extended(CLIPBOARD.notify | (hasText ? CLIPBOARD.text : 0), new Uint8Array(0));
}

/** Hands a text over: UTF-8, CR LF line ends, a zero byte at the end, with its size before it, all in one zlib stream. */
export function clipboardProvide(text: string, compression: Compression): Uint8Array {
  const body = new TextEncoder().encode(`${text.replace(/\r?\n/g, '\r\n')}\0`);
  const plain = new ByteWriter(4 + body.length).u32(body.length).bytes(body).take();
  return extended(CLIPBOARD.provide | CLIPBOARD.text, compression.deflate(plain, 6));
}

/** The text of a client's "provide" body, or undefined where there is none or it is broken or too long. */
export function parseProvided(flags: number, body: Uint8Array, compression: Compression): string | undefined {
  if ((flags & CLIPBOARD.text) === 0) return undefined;
  const plain = compression.inflate(body, CLIPBOARD_TEXT_LIMIT + 5);
  if (plain === undefined || plain.length < 4) return undefined;
  // Formats come in the order of their bits, and text is bit 0: its size and data stand first.
  const size = new DataView(plain.buffer, plain.byteOffset).getUint32(0);
  if (size > plain.length - 4) return undefined;
  const text = new TextDecoder().decode(plain.subarray(4, 4 + size));
  const end = text.indexOf('\0');
  return (end < 0 ? text : text.slice(0, end)).replaceAll('\r\n', '\n');
}
