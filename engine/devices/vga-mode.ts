/** What the VGA registers put on the screen, in the words of a renderer. */
import type { VgaState } from './vga.ts';

interface Screen {
  /** Pixels. */
  readonly width: number;
  readonly height: number;
}

export interface BlankMode extends Screen {
  readonly kind: 'blank';
}

export interface TextMode extends Screen {
  readonly kind: 'text';
  readonly columns: number;
  readonly rows: number;
  /** 8 or 9 pixels; the ninth column repeats the eighth for line-drawing characters where `lineGraphics`. */
  readonly cellWidth: number;
  readonly cellHeight: number;
  readonly lineGraphics: boolean;
  /** Units of four bytes: first cell, and from row to row. */
  readonly start: number;
  readonly pitch: number;
  /** Units of the two fonts in plane 2; attribute bit 3 chooses the second where they differ. */
  readonly fonts: readonly [number, number];
  /** Attribute bit 7 blinks instead of brightening the background. */
  readonly blink: boolean;
  /** Unit of the cell under the cursor and its scan lines; undefined where the cursor is off. */
  readonly cursor: { readonly at: number; readonly first: number; readonly last: number } | undefined;
}

/** Modes whose pixels reach the DAC through shift registers. */
export interface PlanarMode extends Screen {
  readonly kind: 'planar16' | 'cga4' | 'colour256';
  /** Bytes of interleaved video memory: first pixel, and from line to line. */
  readonly start: number;
  readonly pitch: number;
  /** Pixels by which the first line is moved to the left. */
  readonly pan: number;
  /** The line from which the picture starts over at address 0 (split screen); Infinity for none. */
  readonly split: number;
  /** How row scan bits replace address bits (CGA and Hercules interleave): CRTC mode control bits 0, 1 and 6. */
  readonly interleave: number;
  /** Scan lines a row of memory is repeated for, for `interleave`. */
  readonly scans: number;
  /** Lines of the picture for each line of memory: 2 where the pixels would be far from square (640x200). */
  readonly repeat: 1 | 2;
  /** Planes that are shown: colour plane enable. */
  readonly planes: number;
}

export interface LinearMode extends Screen {
  readonly kind: 'linear';
  readonly bpp: 8 | 15 | 16 | 24 | 32;
  /** Bytes. */
  readonly start: number;
  readonly stride: number;
}

export type VgaMode = BlankMode | TextMode | PlanarMode | LinearMode;

// Dispi register numbers and bits; vga.ts has the whole list.
const XRES = 1;
const YRES = 2;
const BPP = 3;
const ENABLE = 4;
const VIRTUAL_WIDTH = 6;
const X_OFFSET = 8;
const Y_OFFSET = 9;

/** Largest picture that classic registers can ask for, with room. */
const MAX_CLASSIC = 2048;

/** Smaller pictures are registers that are being programmed, or were never. */
const MIN_WIDTH = 160;
const MIN_HEIGHT = 100;

/** Reads the mode off the registers. */
export function describeMode(s: VgaState, vramBytes: number): VgaMode {
  const mode = rawMode(s, vramBytes);
  if (mode.kind === 'linear' || (mode.width >= MIN_WIDTH && mode.height >= MIN_HEIGHT)) return mode;
  return { kind: 'blank', width: 640, height: 480 };
}

function rawMode(s: VgaState, vramBytes: number): VgaMode {
  const { crtc, dispi } = s;
  const dispiOn = (dispi[ENABLE] & 1) !== 0;
  if (dispiOn && dispi[BPP] > 4) {
    const bpp = dispi[BPP] as LinearMode['bpp'];
    const bytesPerPixel = bpp === 15 ? 2 : bpp / 8;
    const stride = dispi[VIRTUAL_WIDTH] * bytesPerPixel;
    const start = dispi[Y_OFFSET] * stride + dispi[X_OFFSET] * bytesPerPixel;
    const width = dispi[XRES];
    const height = Math.min(dispi[YRES], Math.floor((vramBytes - start - width * bytesPerPixel) / stride) + 1);
    return height > 0 ? { kind: 'linear', bpp, start, stride, width, height } : { kind: 'blank', width: 640, height: 480 };
  }
  const lines = 1 + (crtc[0x12] | ((crtc[7] & 0x02) << 7) | ((crtc[7] & 0x40) << 3));
  const characters = crtc[1] + 1;
  const scanHeight = (crtc[9] & 31) + 1;
  // No address source for the palette, or the screen switched off: nothing is shown.
  const dark = (s.attributeIndex & 0x20) === 0 || (s.sequencer[1] & 0x20) !== 0;
  if ((s.graphics[6] & 1) === 0 && !dispiOn) {
    const cellWidth = (s.sequencer[1] & 1) !== 0 ? 8 : 9;
    const rows = Math.min(128, Math.max(1, Math.floor(lines / scanHeight)));
    const width = characters * cellWidth;
    const height = rows * scanHeight;
    if (dark) return { kind: 'blank', width, height };
    const select = s.sequencer[3];
    const font = (low: number, high: number): number =>
      // The 3-bit font numbers count 16 KiB, then the odd 8 KiB between. Sequencer character map select.
      (((low & 3) << 14) | (high !== 0 ? 1 << 13 : 0)) >>> 0;
    const cursorOn = (crtc[0x0a] & 0x20) === 0 && (crtc[0x0a] & 31) <= (crtc[0x0b] & 31);
    return {
      kind: 'text',
      width,
      height,
      columns: characters,
      rows,
      cellWidth,
      cellHeight: scanHeight,
      lineGraphics: (s.attribute[0x10] & 4) !== 0,
      start: ((crtc[0x0c] << 8) | crtc[0x0d]) + ((crtc[8] >> 5) & 3),
      pitch: crtc[0x13] * 2,
      // Map B (bits 1 to 0 and 4) serves attribute bit 3 clear, map A (bits 3 to 2 and 5) serves it set.
      fonts: [font(select & 3, select & 0x10), font((select >> 2) & 3, select & 0x20)],
      blink: (s.attribute[0x10] & 8) !== 0,
      cursor: cursorOn
        ? { at: (crtc[0x0e] << 8) | crtc[0x0f], first: crtc[0x0a] & 31, last: Math.min(crtc[0x0b] & 31, scanHeight - 1) }
        : undefined,
    };
  }
  const shift = (s.graphics[5] >> 5) & 3;
  const kind = dispiOn || shift === 0 ? 'planar16' : shift === 1 ? 'cga4' : 'colour256';
  const doubled = (crtc[9] & 0x80) !== 0 ? 2 : 1;
  const interleave = crtc[0x17] & 0x43;
  // With row scan bits in the address every scan line of a row differs; otherwise they repeat the row.
  const scans = (interleave & 3) !== 3 ? scanHeight : 1;
  const scansPerLine = doubled * (scans === 1 ? scanHeight : 1);
  const halfWidth = kind === 'colour256' || (s.sequencer[1] & 8) !== 0;
  const width = dispiOn ? dispi[XRES] : Math.min(MAX_CLASSIC, characters * (kind === 'colour256' ? 4 : 8));
  const memoryLines = dispiOn ? dispi[YRES] : Math.min(MAX_CLASSIC, Math.max(1, Math.floor(lines / scansPerLine)));
  const repeat = !dispiOn && width >= memoryLines * 3 ? 2 : 1;
  const height = memoryLines * repeat;
  if (dark) return { kind: 'blank', width, height };
  const compare = crtc[0x18] | ((crtc[7] & 0x10) << 4) | ((crtc[9] & 0x40) << 3);
  const pan = s.attribute[0x13] & 7;
  return {
    kind,
    width,
    height,
    start: dispiOn
      ? (dispi[Y_OFFSET] * dispi[VIRTUAL_WIDTH]) / 2 + (dispi[X_OFFSET] >> 3) * 4
      : ((crtc[0x0c] << 8) | crtc[0x0d]) * 4 + ((crtc[8] >> 5) & 3) * 4,
    pitch: dispiOn ? dispi[VIRTUAL_WIDTH] / 2 : crtc[0x13] * 8,
    pan: dispiOn ? dispi[X_OFFSET] & 7 : kind === 'colour256' && halfWidth ? pan >> 1 : pan,
    split: dispiOn || compare >= lines - 1 ? Infinity : Math.floor((compare + 1) / scansPerLine),
    repeat,
    interleave: dispiOn ? 3 : interleave,
    scans: dispiOn ? 1 : scans,
    planes: s.attribute[0x12] & 15,
  };
}
