/** Deflate (RFC 1951) and zlib (RFC 1950) as the display needs them; `engine/host/deflate.ts` implements it with Node. */
export interface Compression {
  /** A whole zlib stream. `level` is 0 (store) to 9 (smallest). */
  deflate(data: Uint8Array, level: number): Uint8Array;
  /**
   * Deflate blocks without a final one, ended by an empty stored block (Z_SYNC_FLUSH), hence on a byte boundary. They
   * refer to nothing before them.
   */
  deflateBlocks(data: Uint8Array, level: number): Uint8Array;
  /** The content of a zlib stream, whose end may be missing; undefined where it is broken or larger than `limit` bytes. */
  inflate(data: Uint8Array, limit: number): Uint8Array | undefined;
}

/** CMF and FLG of RFC 1950 2.2: deflate, a window of 32 KiB, no preset dictionary. */
const ZLIB_HEADER = [0x78, 0x01];

/**
 * A zlib stream that never ends and is flushed after every piece, as the Zlib, ZRLE and Tight encodings want it: one
 * a client and purpose.
 *
 * There is no compressor behind it that lives on from piece to piece (Node has none that works synchronously). It is
 * not needed: a deflate stream is a sequence of blocks, a sync flush ends on a byte boundary, and blocks need not refer
 * to earlier ones. So a header followed by pieces that were compressed each for itself is a correct stream. The
 * checksum stands at its end and is never sent.
 */
export class ZlibStream {
  readonly #compression: Compression;
  #started = false;

  constructor(compression: Compression) {
    this.#compression = compression;
  }

  /** The bytes that carry `data` on. */
  push(data: Uint8Array, level: number): Uint8Array {
    const blocks = this.#compression.deflateBlocks(data, level);
    if (this.#started) return blocks;
    this.#started = true;
    const result = new Uint8Array(ZLIB_HEADER.length + blocks.length);
    result.set(ZLIB_HEADER);
    result.set(blocks, ZLIB_HEADER.length);
    return result;
  }
}
