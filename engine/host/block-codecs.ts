import * as zlib from 'node:zlib';
import { BlockError } from '../block/errors.ts';
import type { Codecs } from '../block/file.ts';

/** Length of the first zstd frame, so that what follows it in the last sector is not taken for a frame. RFC 8878 3.1.1. */
export function zstdFrameLength(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  if (data.length < 6 || view.getUint32(0, true) !== 0xfd2fb528) return data.length;
  const descriptor = data[4];
  const single = (descriptor >> 5) & 1;
  const contentSize = descriptor >> 6;
  let at = 5 + (single ? 0 : 1) + [0, 1, 2, 4][descriptor & 3] + (contentSize === 0 ? single : 1 << contentSize);
  for (;;) {
    if (at + 3 > data.length) return data.length;
    const header = data[at] | (data[at + 1] << 8) | (data[at + 2] << 16);
    // An RLE block (type 1) holds one byte whatever its size says.
    at += 3 + (((header >> 1) & 3) === 1 ? 1 : header >> 3);
    if (header & 1) break;
  }
  return Math.min(data.length, at + (descriptor & 4 ? 4 : 0));
}

function guard(what: string, run: () => Uint8Array): Uint8Array {
  try {
    return run();
  } catch (error) {
    throw new BlockError('corrupt', `compressed data cannot be read (${what}): ${(error as Error).message}`, error);
  }
}

// The output is one piece of at most `limit` bytes, so one chunk of that size does it.
const chunk = (limit: number) => ({ maxOutputLength: limit, chunkSize: Math.max(64, limit) });

/** Compression by Node's zlib. */
export const codecs: Codecs = {
  deflateRaw: (data) => zlib.deflateRawSync(data, { windowBits: 12, chunkSize: Math.max(64, data.length) }),
  inflateRaw: (data, limit) =>
    guard('deflate', () => zlib.inflateRawSync(data, { ...chunk(limit), finishFlush: zlib.constants.Z_SYNC_FLUSH })),
  inflate: (data, limit) =>
    guard('zlib', () => zlib.inflateSync(data, { ...chunk(limit), finishFlush: zlib.constants.Z_SYNC_FLUSH })),
  zstdCompress: (data) => zlib.zstdCompressSync(data),
  zstdDecompress: (data, limit) =>
    guard('zstd', () => zlib.zstdDecompressSync(data.subarray(0, zstdFrameLength(data)), { maxOutputLength: limit })),
};
