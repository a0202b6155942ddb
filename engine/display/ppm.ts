import type { Screenshot } from './pump.ts';

/** A picture in the portable pixmap format P6 (netpbm), 8 bits a colour: what QMP's screendump writes by default. */
export function encodePpm(picture: Screenshot): Uint8Array {
  const header = new TextEncoder().encode(`P6\n${picture.width} ${picture.height}\n255\n`);
  const result = new Uint8Array(header.length + picture.width * picture.height * 3);
  result.set(header);
  let at = header.length;
  for (let from = 0; from < picture.rgba.length; from += 4) {
    result[at++] = picture.rgba[from];
    result[at++] = picture.rgba[from + 1];
    result[at++] = picture.rgba[from + 2];
  }
  return result;
}
