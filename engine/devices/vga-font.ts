/**
 * Finds the 8x16 text font in a video BIOS image. Without a video BIOS nobody loads a font into plane 2,
 * so a machine started without firmware borrows the one of the image that the user's system has.
 */

const GLYPH_BYTES = 16;
export const FONT_BYTES = 256 * GLYPH_BYTES;

/** Whether the 16 rows at `at` look like this: rows above and below `first` to `last` empty, those between not. */
function filled(rom: Uint8Array, at: number, first: number, last: number): boolean {
  for (let row = 0; row < GLYPH_BYTES; row++) {
    if ((rom[at + row] !== 0) !== (row >= first && row <= last)) return false;
  }
  return true;
}

const constant = (rom: Uint8Array, at: number, value: number, rows = GLYPH_BYTES): boolean =>
  rom.subarray(at, at + rows).every((byte) => byte === value);

/**
 * The font's 256 glyphs of 16 bytes, top row first, leftmost pixel in bit 7; undefined where there is none.
 *
 * Code page 437 has glyphs whose bitmaps follow from what they are: space and 0xff are empty, 0xdb is full,
 * 0xdc and 0xdf are its halves, 0xdd and 0xde the left and right half, 0xb3 is one vertical bar throughout.
 */
export function extractFont8x16(vgabiosRom: Uint8Array): Uint8Array | undefined {
  const rom = vgabiosRom;
  for (let base = 0; base + FONT_BYTES <= rom.length; base++) {
    const glyph = (code: number): number => base + code * GLYPH_BYTES;
    // The full block is the rarest, so it is looked at first.
    if (rom[glyph(0xdb)] !== 0xff || !constant(rom, glyph(0xdb), 0xff)) continue;
    if (!constant(rom, glyph(0), 0) || !constant(rom, glyph(0x20), 0) || !constant(rom, glyph(0xff), 0)) continue;
    if (!constant(rom, glyph(0xdd), 0xf0) || !constant(rom, glyph(0xde), 0x0f)) continue;
    const bar = rom[glyph(0xb3)];
    if (bar === 0 || !constant(rom, glyph(0xb3), bar)) continue;
    const half = rom.subarray(glyph(0xdc), glyph(0xdc) + GLYPH_BYTES).filter((row) => row === 0xff).length;
    if (half < 7 || half > 9 || rom[glyph(0xdc)] !== 0 || rom[glyph(0xdf)] !== 0xff) continue;
    // Capital letters stand on one base line.
    if (!filled(rom, glyph(0x45), 2, 11) || !filled(rom, glyph(0x48), 2, 11)) continue;
    return rom.slice(base, base + FONT_BYTES);
  }
  return undefined;
}
