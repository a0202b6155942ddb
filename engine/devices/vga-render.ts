/**
 * Turns what the VGA shows into pixels, for the display thread.
 *
 * `capture` reads registers and colours (with the machine lock held); `draw` then reads video memory without it
 * and returns the rectangles that changed. For text, planar and 256-colour modes it compares video memory with a
 * copy of what it drew last; for linear modes the machine can say which bytes are dirty, or it compares too.
 *
 * Pixels are bytes R, G, B, 255.
 */
import type { Vga } from './vga.ts';
import type { LinearMode, PlanarMode, TextMode, VgaMode } from './vga-mode.ts';

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

export interface Frame {
  readonly width: number;
  readonly height: number;
  /** The size changed: `pixels` is a new array. */
  readonly resized: boolean;
  readonly changed: readonly Rect[];
}

export interface DrawOptions {
  /** Whether any byte of this range of video memory may have been written since the last call. Absent: compares. */
  readonly dirty?: (offset: number, length: number) => boolean;
  /** Milliseconds of any clock: what blinks follows it. Cursor 1.9 Hz, characters half of that. */
  readonly time?: number;
}

const BLACK = 0xff000000;
const CURSOR_MS = 267;
const CHARACTER_MS = 533;

/** The converter of one screen; belongs to one thread. */
export class VgaRenderer {
  readonly #vga: Vga;
  readonly #vram: Uint8Array;
  readonly #units: Uint32Array;
  /** Width times height words. */
  pixels = new Uint32Array(0);
  #width = 0;
  #height = 0;
  #mode: VgaMode = { kind: 'blank', width: 640, height: 400 };
  readonly #palette = new Uint32Array(256);
  readonly #ega = new Uint32Array(16);
  /** What the last drawing depended on besides video memory. */
  #key = '';
  #drawnKey = '';
  /** The cells (text) or bytes (graphics) drawn last. */
  #shadow = new Uint8Array(0);
  #cells = new Uint32Array(0);
  #glyphs = new Uint8Array(0);

  constructor(vga: Vga, vram: Uint8Array) {
    this.#vga = vga;
    this.#vram = vram;
    this.#units = new Uint32Array(vram.buffer, vram.byteOffset, vram.length >> 2);
  }

  get mode(): VgaMode {
    return this.#mode;
  }

  /** Takes the mode and the colours. Call with the machine lock held. */
  capture(): VgaMode {
    this.#mode = this.#vga.mode();
    this.#vga.colours(this.#palette, this.#ega);
    let hash = 0;
    for (const word of this.#palette) hash = (Math.imul(hash, 31) + word) | 0;
    for (const word of this.#ega) hash = (Math.imul(hash, 31) + word) | 0;
    const mode = this.#mode;
    // The cursor moves without a redraw of the rest.
    this.#key = JSON.stringify(mode.kind === 'text' ? { ...mode, cursor: undefined, hash } : { ...mode, hash });
    return mode;
  }

  /** Forgets what was drawn: the next frame is complete. */
  invalidate(): void {
    this.#drawnKey = '';
  }

  /** Draws what changed since the last call into `pixels`. */
  draw(options: DrawOptions = {}): Frame {
    const mode = this.#mode;
    const resized = mode.width !== this.#width || mode.height !== this.#height;
    if (resized) {
      this.#width = mode.width;
      this.#height = mode.height;
      this.pixels = new Uint32Array(mode.width * mode.height).fill(BLACK);
    }
    const all = resized || this.#key !== this.#drawnKey;
    this.#drawnKey = this.#key;
    const changed: Rect[] = [];
    switch (mode.kind) {
      case 'blank':
        if (all) {
          this.pixels.fill(BLACK);
          changed.push({ x: 0, y: 0, width: mode.width, height: mode.height });
        }
        break;
      case 'text':
        this.#drawText(mode, all, options.time ?? 0, changed);
        break;
      case 'linear':
        this.#drawLinear(mode, all, options.dirty, changed);
        break;
      default:
        this.#drawPlanar(mode, all, changed);
    }
    return { width: mode.width, height: mode.height, resized, changed };
  }

  // Text.

  #drawText(mode: TextMode, all: boolean, time: number, changed: Rect[]): void {
    const { columns, rows, cellWidth, cellHeight } = mode;
    const redraw = this.#loadGlyphs(mode) || all || this.#cells.length !== columns * rows;
    if (this.#cells.length !== columns * rows) this.#cells = new Uint32Array(columns * rows);
    const cursorShown = Math.floor(time / CURSOR_MS) % 2 === 0;
    const blinkShown = Math.floor(time / CHARACTER_MS) % 2 === 0;
    const unitMask = this.#units.length - 1;
    for (let row = 0; row < rows; row++) {
      let first = -1;
      let last = -1;
      for (let column = 0; column < columns; column++) {
        const unit = mode.start + row * mode.pitch + column;
        let cell = this.#units[unit & unitMask] & 0xffff;
        // Bits above the attribute say what else decides the cell's looks.
        if (mode.blink && (cell & 0x8000) !== 0 && !blinkShown) cell |= 0x10000;
        const { cursor } = mode;
        if (cursor !== undefined && cursor.at === unit && cursorShown)
          cell |= 0x20000 | (cursor.first << 18) | (cursor.last << 23);
        const index = row * columns + column;
        if (!redraw && this.#cells[index] === cell) continue;
        this.#cells[index] = cell;
        this.#drawCell(mode, cell, column * cellWidth, row * cellHeight);
        if (first < 0) first = column;
        last = column;
      }
      if (first >= 0)
        changed.push({ x: first * cellWidth, y: row * cellHeight, width: (last - first + 1) * cellWidth, height: cellHeight });
    }
  }

  #drawCell(mode: TextMode, cell: number, x: number, y: number): void {
    const character = cell & 0xff;
    const attribute = (cell >> 8) & 0xff;
    const hidden = (cell & 0x10000) !== 0;
    const background = this.#ega[mode.blink ? (attribute >> 4) & 7 : attribute >> 4];
    const foreground = hidden ? background : this.#ega[attribute & 15];
    const glyph = ((attribute & 8) !== 0 ? 8192 : 0) + character * 32;
    const cursor = (cell & 0x20000) !== 0;
    const cursorFirst = (cell >> 18) & 31;
    const cursorLast = (cell >>> 23) & 31;
    const nine = mode.cellWidth === 9;
    const repeat = nine && mode.lineGraphics && character >= 0xc0 && character <= 0xdf;
    const { pixels } = this;
    for (let line = 0; line < mode.cellHeight; line++) {
      const inCursor = cursor && line >= cursorFirst && line <= cursorLast;
      const bits = inCursor ? 0xff : this.#glyphs[glyph + line];
      const ink = inCursor ? this.#ega[attribute & 15] : foreground;
      let at = (y + line) * this.#width + x;
      for (let bit = 0x80; bit !== 0; bit >>= 1) pixels[at++] = (bits & bit) !== 0 ? ink : background;
      if (nine) pixels[at] = inCursor || (repeat && (bits & 1) !== 0) ? ink : background;
    }
  }

  /** Copies the two fonts out of plane 2; true where they differ from the last ones. */
  #loadGlyphs(mode: TextMode): boolean {
    const size = 2 * 8192;
    let different = this.#glyphs.length !== size;
    if (different) this.#glyphs = new Uint8Array(size);
    const mask = this.#vram.length - 1;
    for (let font = 0; font < 2; font++) {
      for (let i = 0; i < 8192; i++) {
        const byte = this.#vram[((mode.fonts[font] + i) * 4 + 2) & mask];
        const at = font * 8192 + i;
        if (this.#glyphs[at] === byte) continue;
        this.#glyphs[at] = byte;
        different = true;
      }
    }
    return different;
  }

  // Graphics.

  /** Collects changed lines into rectangles of whole lines. */
  static #addLine(changed: Rect[], y: number, width: number): void {
    const last = changed.at(-1);
    if (last !== undefined && last.y + last.height === y) changed[changed.length - 1] = { ...last, height: last.height + 1 };
    else changed.push({ x: 0, y, width, height: 1 });
  }

  /** Whether `length` bytes at `offset` differ from the shadow at `shadowAt`; makes them equal. */
  #differs(offset: number, length: number, shadowAt: number): boolean {
    const vram = this.#vram;
    const shadow = this.#shadow;
    let i = 0;
    while (i < length && vram[offset + i] === shadow[shadowAt + i]) i++;
    if (i === length) return false;
    shadow.set(vram.subarray(offset + i, offset + length), shadowAt + i);
    return true;
  }

  #drawLinear(mode: LinearMode, all: boolean, dirty: DrawOptions['dirty'], changed: Rect[]): void {
    const { width, height, bpp, stride, start } = mode;
    const bytesPerPixel = bpp === 15 ? 2 : bpp / 8;
    const lineBytes = width * bytesPerPixel;
    // A shadow is only kept where nobody says what is dirty.
    const compare = dirty === undefined;
    const shadowBytes = compare ? lineBytes * height : 0;
    if (this.#shadow.length !== shadowBytes) {
      this.#shadow = new Uint8Array(shadowBytes);
      all = true;
    }
    for (let y = 0; y < height; y++) {
      const offset = start + y * stride;
      const differs = compare ? this.#differs(offset, lineBytes, y * lineBytes) : dirty(offset, lineBytes);
      if (!differs && !all) continue;
      this.#linearLine(bpp, offset, y * width, width);
      VgaRenderer.#addLine(changed, y, width);
    }
  }

  #linearLine(bpp: LinearMode['bpp'], offset: number, to: number, width: number): void {
    const vram = this.#vram;
    const { pixels } = this;
    switch (bpp) {
      case 8:
        for (let x = 0; x < width; x++) pixels[to + x] = this.#palette[vram[offset + x]];
        return;
      case 15:
        for (let x = 0; x < width; x++) {
          const value = vram[offset + x * 2] | (vram[offset + x * 2 + 1] << 8);
          const red = (value >> 10) & 31;
          const green = (value >> 5) & 31;
          const blue = value & 31;
          pixels[to + x] =
            BLACK | (red << 3) | (red >> 2) | (((green << 3) | (green >> 2)) << 8) | (((blue << 3) | (blue >> 2)) << 16);
        }
        return;
      case 16:
        for (let x = 0; x < width; x++) {
          const value = vram[offset + x * 2] | (vram[offset + x * 2 + 1] << 8);
          const red = value >> 11;
          const green = (value >> 5) & 63;
          const blue = value & 31;
          pixels[to + x] =
            BLACK | (red << 3) | (red >> 2) | (((green << 2) | (green >> 4)) << 8) | (((blue << 3) | (blue >> 2)) << 16);
        }
        return;
      case 24:
        for (let x = 0, at = offset; x < width; x++, at += 3)
          pixels[to + x] = BLACK | vram[at + 2] | (vram[at + 1] << 8) | (vram[at] << 16);
        return;
      default: {
        if ((offset & 3) !== 0) {
          for (let x = 0, at = offset; x < width; x++, at += 4)
            pixels[to + x] = BLACK | vram[at + 2] | (vram[at + 1] << 8) | (vram[at] << 16);
          return;
        }
        const units = this.#units;
        for (let x = 0, at = offset >> 2; x < width; x++, at++) {
          const value = units[at];
          pixels[to + x] = BLACK | ((value >>> 16) & 0xff) | (value & 0xff00) | ((value & 0xff) << 16);
        }
      }
    }
  }

  #drawPlanar(mode: PlanarMode, all: boolean, changed: Rect[]): void {
    const { width, kind, repeat } = mode;
    const lines = mode.height / repeat;
    const mask = this.#vram.length - 1;
    // Bytes of interleaved memory that a line shows; panning brings in the next eight.
    const lineBytes = (kind === 'colour256' ? width : width / 2) + (mode.pan !== 0 ? 8 : 0);
    if (this.#shadow.length !== lineBytes * lines) {
      this.#shadow = new Uint8Array(lineBytes * lines);
      all = true;
    }
    for (let y = 0; y < lines; y++) {
      const split = y >= mode.split;
      const line = split ? y - mode.split : y;
      const row = Math.floor(line / mode.scans);
      const scan = line % mode.scans;
      let offset = (split ? 0 : mode.start) + row * mode.pitch;
      // Mode control bits 0 and 1 clear: row scan bits 0 and 1 take the place of address bits 13 and 14,
      // which in this layout is one place further for byte addresses (bit 6 set), two for words.
      if ((mode.interleave & 1) === 0) {
        const bit = 1 << ((mode.interleave & 0x40) !== 0 ? 15 : 14);
        offset = (offset & ~bit) | ((scan & 1) !== 0 ? bit : 0);
      }
      if ((mode.interleave & 2) === 0) offset = (offset & ~0x10000) | ((scan & 2) !== 0 ? 0x10000 : 0);
      offset &= mask & ~3;
      if (offset + lineBytes > this.#vram.length) offset = 0;
      if (!this.#differs(offset, lineBytes, y * lineBytes) && !all) continue;
      const to = y * repeat * width;
      this.#planarLine(mode, offset, to, width, split);
      VgaRenderer.#addLine(changed, y * repeat, width);
      if (repeat === 1) continue;
      this.pixels.copyWithin(to + width, to, to + width);
      VgaRenderer.#addLine(changed, y * repeat + 1, width);
    }
  }

  #planarLine(mode: PlanarMode, offset: number, to: number, width: number, split: boolean): void {
    const vram = this.#vram;
    const { pixels } = this;
    const pan = split ? 0 : mode.pan;
    if (mode.kind === 'colour256') {
      for (let x = 0; x < width; x++) pixels[to + x] = this.#palette[vram[offset + x + pan]];
      return;
    }
    const ega = this.#ega;
    const { planes } = mode;
    if (mode.kind === 'cga4') {
      // Planes 0 and 1 hold even and odd bytes of four two-bit pixels; planes 2 and 3 add two more bits.
      for (let x = 0; x < width; x++) {
        const pixel = x + pan;
        const at = offset + (pixel >> 3) * 4 + ((pixel >> 2) & 1);
        const down = (3 - (pixel & 3)) * 2;
        const colour = ((vram[at] >> down) & 3) | (((vram[at + 2] >> down) & 3) << 2);
        pixels[to + x] = ega[colour & planes];
      }
      return;
    }
    for (let x = 0; x < width; x++) {
      const pixel = x + pan;
      const at = offset + (pixel >> 3) * 4;
      const down = 7 - (pixel & 7);
      const colour =
        ((vram[at] >> down) & 1) |
        (((vram[at + 1] >> down) & 1) << 1) |
        (((vram[at + 2] >> down) & 1) << 2) |
        (((vram[at + 3] >> down) & 1) << 3);
      pixels[to + x] = ega[colour & planes];
    }
  }
}
