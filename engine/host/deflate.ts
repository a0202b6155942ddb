import { constants, deflateRawSync, deflateSync, inflateSync } from 'node:zlib';
import type { Compression } from '../display/compression.ts';

/** `Compression` with Node's zlib; all calls are synchronous. */
export const nodeCompression: Compression = {
  deflate(data, level) {
    return deflateSync(data, { level });
  },
  deflateBlocks(data, level) {
    return deflateRawSync(data, { level, finishFlush: constants.Z_SYNC_FLUSH });
  },
  inflate(data, limit) {
    try {
      return inflateSync(data, { maxOutputLength: limit, finishFlush: constants.Z_SYNC_FLUSH });
    } catch {
      // Only bad input or too much output gets here; both are the sender's fault.
      return undefined;
    }
  },
};
