/** CRC-32C, the polynomial of SSE4.2's CRC32 (0x1EDC6F41, reflected). */
const table = new Int32Array(256);
for (let n = 0; n < 256; n++) {
  let crc = n;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) !== 0 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  table[n] = crc;
}

/** Continues `crc` with the low `bits` (8, 16 or 32) of `data`. */
export function crc32c(crc: number, data: number, bits: number): number {
  let value = crc;
  for (let shift = 0; shift < bits; shift += 8) value = table[(value ^ (data >>> shift)) & 0xff] ^ (value >>> 8);
  return value;
}
