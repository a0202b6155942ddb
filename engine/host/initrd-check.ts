/** Finds initial RAM disks that are cut off, which a kernel tells in a place where nobody looks, if at all. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress } from 'node:zlib';

/** No more than so much is unpacked to look at it. */
const CHECK_BYTES = 256 * 2 ** 20;
const PIECE = 1 << 20;
const HEADER = 110;

/** What is wrong with it, in words to follow its name; undefined: nothing that can be seen. Formats but gzip, zstd and newc pass. */
export async function initrdProblem(data: Uint8Array): Promise<string | undefined> {
  const magic = data.length < 4 ? 0 : new DataView(data.buffer, data.byteOffset, 4).getUint32(0);
  if (data.length === 0) return 'is empty';
  if (magic >>> 16 === 0x1f8b || magic === 0x28b52ffd) return await streamProblem(data, magic === 0x28b52ffd);
  return cpioProblem(data) ? 'is truncated' : undefined;
}

async function streamProblem(data: Uint8Array, zstd: boolean): Promise<string | undefined> {
  function* pieces(): Generator<Uint8Array> {
    for (let at = 0; at < data.length; at += PIECE) yield data.subarray(at, at + PIECE);
  }
  const enough = new AbortController();
  let bytes = 0;
  try {
    await pipeline(
      Readable.from(pieces()),
      zstd ? createZstdDecompress() : createGunzip(),
      async (source: AsyncIterable<Uint8Array>) => {
        for await (const piece of source) {
          bytes += piece.length;
          if (bytes > CHECK_BYTES) enough.abort();
        }
      },
      { signal: enough.signal },
    );
    return undefined;
  } catch (error) {
    if (enough.signal.aborted) return undefined;
    const { code, message } = error as NodeJS.ErrnoException;
    // The archive was whole, and what follows it (zeros, and another archive) is none that this stream unpacks.
    if (code === 'ERR_STREAM_PREMATURE_CLOSE' || (bytes > 0 && /incorrect header check/.test(message))) return undefined;
    return code === 'Z_BUF_ERROR' || /unexpected end|ended unexpectedly/i.test(message)
      ? 'is truncated'
      : `is damaged: it cannot be unpacked (${message})`;
  }
}

/** Whether a newc archive (cpio(5)) ends before its trailer. What follows a trailer is not looked at. */
function cpioProblem(data: Uint8Array): boolean {
  const text = (from: number, to: number): string => String.fromCharCode(...data.subarray(from, to));
  if (!text(0, 6).startsWith('07070')) return false;
  const pad = (value: number): number => Math.ceil(value / 4) * 4;
  for (let at = 0; ; ) {
    if (at + HEADER > data.length) return true;
    const header = text(at, at + HEADER);
    if (!/^07070[12][0-9a-fA-F]{104}$/.test(header)) return false;
    const size = Number.parseInt(header.slice(54, 62), 16);
    const nameBytes = Number.parseInt(header.slice(94, 102), 16);
    if (nameBytes === 11 && text(at + HEADER, at + HEADER + 10) === 'TRAILER!!!') return false;
    at = pad(pad(at + HEADER + nameBytes) + size);
    if (at > pad(data.length)) return true;
  }
}
