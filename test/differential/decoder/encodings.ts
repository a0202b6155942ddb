/**
 * Encodings that cover the opcode space: every map, opcode, mandatory prefix and ModRM byte in every mode, with what
 * else changes how they are read (REX, VEX.W and L, address size). What follows is a fixed pattern.
 */

export type Width = 16 | 32 | 64;
export const WIDTHS: readonly Width[] = [16, 32, 64];

/** Bytes that stand for SIB, displacement and immediates: none is a prefix. */
const TAIL = [0x11, 0x22, 0x33, 0x44, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a];
/** SIB bytes besides the pattern's: no index, no base, scales. */
const SIBS = [0x11, 0x24, 0x25, 0x6d, 0x85, 0xe4, 0xff, 0x9c];
const MAPS: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]];
/** Bytes that are prefixes or escapes, not opcodes of the first map. */
const PREFIXES = new Set([0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);

function legacyPrefixes(width: Width): number[][] {
  const plain = [[], [0x66], [0xf3], [0xf2], [0x67], [0x66, 0x67]];
  if (width !== 64) return plain;
  return [...plain, [0x48], [0x66, 0x48], [0xf3, 0x48], [0xf2, 0x48], [0x47], [0x40]];
}

/** All encodings of a mode, as bytes; the same in every run. */
export function* encodings(width: Width): Generator<number[]> {
  for (const prefixes of legacyPrefixes(width))
    for (const [map, escapes] of MAPS.entries())
      for (let opcode = 0; opcode < 256; opcode++) {
        if (map === 0 && (PREFIXES.has(opcode) || (width === 64 && (opcode & 0xf0) === 0x40))) continue;
        if (map === 0 && (opcode === 0xc4 || opcode === 0xc5)) continue; // VEX, below, and LES, LDS
        if (map === 1 && (opcode === 0x38 || opcode === 0x3a)) continue;
        for (let modrm = 0; modrm < 256; modrm++) yield [...prefixes, ...escapes, opcode, modrm, ...TAIL];
      }
  // SIB bytes, where ModRM has one.
  if (width !== 16)
    for (const opcode of [0x89, 0x8d, 0xff])
      for (const rex of width === 64 ? [0, 0x41, 0x42, 0x44, 0x4f] : [0])
        for (const mod of [0, 0x40, 0x80])
          for (let sib = 0; sib < 256; sib++)
            yield [...(rex === 0 ? [] : [rex]), opcode, mod | (opcode === 0xff ? 0x34 : 0x14), sib, ...TAIL];
  for (const map of [1, 2, 3])
    for (let opcode = 0; opcode < 256; opcode++)
      for (let bits = 0; bits < 16; bits++)
        for (let modrm = 0; modrm < 256; modrm += 1)
          for (const vvvv of [15, 2]) {
            // pp, L and W; registers above 7 now and then.
            const extend = width === 64 && (modrm & 5) === 5 ? 0 : 7;
            const first = (extend << 5) | map;
            const last = ((bits & 8) << 4) | ((width === 64 ? vvvv : vvvv | 8) << 3) | (bits & 7);
            const sib = SIBS[(modrm ^ opcode) & 7];
            yield [0xc4, width === 64 ? first : first | 0xc0, last, opcode, modrm, sib, ...TAIL];
          }
  // LES and LDS.
  if (width !== 64)
    for (const prefixes of legacyPrefixes(width))
      for (const opcode of [0xc4, 0xc5]) for (let modrm = 0; modrm < 0xc0; modrm++) yield [...prefixes, opcode, modrm, ...TAIL];
  for (let opcode = 0; opcode < 256; opcode++)
    for (const last of [0xf8, 0xfd, 0xf6, 0xe7, 0xfc, 0xf9])
      for (let modrm = 0; modrm < 256; modrm += 5) yield [0xc5, last, opcode, modrm, ...TAIL];
}
