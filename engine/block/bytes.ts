/** Numbers of 64 bits in headers and tables. */

/** A 64-bit big-endian number; anything at or above 2^53 becomes Infinity, which every check then refuses. */
export function u64(view: DataView, offset: number): number {
  const hi = view.getUint32(offset);
  if (hi >= 0x200000) return Number.POSITIVE_INFINITY;
  return hi * 0x100000000 + view.getUint32(offset + 4);
}

export function setU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / 0x100000000));
  view.setUint32(offset + 4, value >>> 0);
}

/** A 64-bit little-endian number, to 53 bits of precision. */
export function u64le(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 0x100000000;
}
