/** Reads the text of screenshots: 80 by 25 characters of 16 lines in the font of the VGA BIOS. */
import { existsSync, readFileSync } from 'node:fs';
import { extractFont8x16 } from '../../engine/devices/vga-font.ts';
import type { Image } from './png.ts';

const VGA_BIOS = '/usr/share/seabios/vgabios-stdvga.bin';
const COLUMNS = 80;
const ROWS = 25;

/** Codes by the dots of their glyph. */
function glyphs(): Map<string, number> {
  const font = existsSync(VGA_BIOS) ? extractFont8x16(readFileSync(VGA_BIOS)) : undefined;
  const found = new Map<string, number>();
  if (font !== undefined)
    for (let code = 255; code >= 32; code--) found.set(font.subarray(code * 16, code * 16 + 16).join(), code);
  return found;
}
const known = glyphs();

/** Where text stands on a screen of some size: dots from one character to the next, and lines above the text. */
const PLACES: Readonly<Record<string, { readonly cell: number; readonly top: number }>> = {
  '720x400': { cell: 9, top: 0 },
  // Programs that draw the text of a VGA themselves, in the middle of a screen of dots.
  '640x480': { cell: 8, top: 40 },
};

/** The lines of the screen; what is no character of ASCII is a blank. Undefined: it has no such size. */
export function screenText({ width, height, rgb }: Image): string | undefined {
  const place = PLACES[`${width}x${height}`];
  if (place === undefined) return undefined;
  const lines: string[] = [];
  for (let row = 0; row < ROWS; row++) {
    let line = '';
    for (let column = 0; column < COLUMNS; column++) {
      const color = (x: number, y: number): number => {
        const at = ((place.top + row * 16 + y) * width + column * place.cell + x) * 3;
        return (rgb[at] << 16) | (rgb[at + 1] << 8) | rgb[at + 2];
      };
      // The first line is background for all characters of ASCII but the bar.
      const background = color(0, 0);
      const dots = Array.from({ length: 16 }, (_, y) => {
        let bits = 0;
        for (let x = 0; x < 8; x++) bits = (bits << 1) | (color(x, y) === background ? 0 : 1);
        return bits;
      });
      const code = known.get(dots.join()) ?? 32;
      line += code < 127 ? String.fromCharCode(code) : ' ';
    }
    lines.push(line.trimEnd());
  }
  return lines.join('\n');
}
