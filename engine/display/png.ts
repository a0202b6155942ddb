import type { Compression } from './compression.ts';
import type { Screenshot } from './pump.ts';

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const BIT_DEPTH = 8;
const COLOUR_TYPE_RGB = 2;
const FILTER_NONE = 0;
const FILTER_SUB = 1;
const FILTER_UP = 2;

/** A picture as PNG (ISO/IEC 15948), 8 bits of red, green and blue, no alpha. */
export function encodePng(picture: Screenshot, compression: Compression): Uint8Array {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, picture.width);
  view.setUint32(4, picture.height);
  header[8] = BIT_DEPTH;
  header[9] = COLOUR_TYPE_RGB;
  const chunks = [
    Uint8Array.from(SIGNATURE),
    chunk('IHDR', header),
    chunk('IDAT', compression.deflate(filterRows(picture), 6)),
    chunk('IEND', new Uint8Array(0)),
  ];
  const result = new Uint8Array(chunks.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of chunks) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

/** ISO/IEC 15948 9: each row behind the filter that leaves the smallest sum of differences (of none, sub and up). */
function filterRows(picture: Screenshot): Uint8Array {
  const { width, height, rgba } = picture;
  const span = width * 3;
  const result = new Uint8Array((span + 1) * height);
  let row = new Uint8Array(span);
  let above = new Uint8Array(span);
  const candidates = [new Uint8Array(span), new Uint8Array(span)];
  for (let y = 0; y < height; y++) {
    for (let x = 0, from = y * width * 4, to = 0; x < width; x++, from += 4, to += 3) {
      row[to] = rgba[from];
      row[to + 1] = rgba[from + 1];
      row[to + 2] = rgba[from + 2];
    }
    const costs = [0, 0, 0];
    for (let index = 0; index < span; index++) {
      const sub = (row[index] - (index < 3 ? 0 : row[index - 3])) & 255;
      const up = (row[index] - above[index]) & 255;
      candidates[0][index] = sub;
      candidates[1][index] = up;
      costs[FILTER_NONE] += Math.min(row[index], 256 - row[index]);
      costs[FILTER_SUB] += Math.min(sub, 256 - sub);
      costs[FILTER_UP] += Math.min(up, 256 - up);
    }
    const filter =
      costs[FILTER_UP] <= Math.min(...costs) ? FILTER_UP : costs[FILTER_SUB] <= costs[FILTER_NONE] ? FILTER_SUB : FILTER_NONE;
    result[y * (span + 1)] = filter;
    result.set(filter === FILTER_NONE ? row : candidates[filter - 1], y * (span + 1) + 1);
    [row, above] = [above, row];
  }
  return result;
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const result = new Uint8Array(12 + data.length);
  const view = new DataView(result.buffer);
  view.setUint32(0, data.length);
  result.set(new TextEncoder().encode(type), 4);
  result.set(data, 8);
  view.setUint32(8 + data.length, crc32(result.subarray(4, 8 + data.length)));
  return result;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) !== 0 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** ISO/IEC 15948 annex D. */
function crc32(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
