/** Just enough PNG to look at screenshots: 8 bits a sample, RGB or RGBA, not interlaced (PNG 1.2). */
import { inflateSync } from 'node:zlib';

export interface Image {
  readonly width: number;
  readonly height: number;
  /** Three bytes a pixel. */
  readonly rgb: Uint8Array;
}

export function decodePng(file: Uint8Array): Image {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let width = 0;
  let height = 0;
  let samples = 3;
  const parts: Uint8Array[] = [];
  for (let at = 8; at < file.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...file.subarray(at + 4, at + 8));
    if (type === 'IHDR') {
      width = view.getUint32(at + 8);
      height = view.getUint32(at + 12);
      const color = file[at + 17];
      if (file[at + 16] !== 8 || (color !== 2 && color !== 6)) throw new Error(`PNG of color type ${color}`);
      samples = color === 2 ? 3 : 4;
    } else if (type === 'IDAT') parts.push(file.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const data = inflateSync(Buffer.concat(parts));
  const stride = width * samples;
  const rgb = new Uint8Array(width * height * 3);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = data[y * (stride + 1)];
    const row = Uint8Array.from(data.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let x = 0; x < stride; x++) {
      const left = x >= samples ? row[x - samples] : 0;
      const corner = x >= samples ? above[x - samples] : 0;
      row[x] += predict(filter, left, above[x], corner);
    }
    for (let x = 0; x < width; x++) rgb.set(row.subarray(x * samples, x * samples + 3), (y * width + x) * 3);
    above = row;
  }
  return { width, height, rgb };
}

/** PNG 1.2, 6. */
function predict(filter: number, left: number, up: number, corner: number): number {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  if (filter !== 4) return 0;
  const p = left + up - corner;
  const [a, b, c] = [Math.abs(p - left), Math.abs(p - up), Math.abs(p - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** How many pixels are not black, in rows from `top` to `bottom`. */
export function inkOf({ width, height, rgb }: Image, top = 0, bottom = height): number {
  let count = 0;
  for (let i = top * width * 3; i < bottom * width * 3; i += 3) if (rgb[i] + rgb[i + 1] + rgb[i + 2] > 0) count++;
  return count;
}
