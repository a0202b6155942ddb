import { type Scroll, ScrollDetector } from './scroll.ts';
import { TILE_HEIGHT, TILE_WIDTH, tileColumns, tileRows } from './tiles.ts';

/**
 * The guest's screen on the display thread, in two copies. The renderer of the video device draws into `pixels` and
 * marks what it may have touched; `collect` compares the marked tiles with `front`, the picture that clients are sent
 * from, and brings `front` up to date. So a guest that redraws the same picture costs nothing on the wire, and what a
 * client is sent always fits the damage counted for it.
 *
 * A pixel is 32 bits with red in the lowest byte, then green, then blue; the highest byte is ignored.
 */

/** The largest surface: both sides fit the protocol's 16 bits, and two copies take at most 256 MiB. */
export const MAX_SIDE = 8192;
export const MAX_PIXELS = 8192 * 4096;

const COLOUR = 0xffffff;

/** A picture: `width` by `height` pixels without padding between rows. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

/** What changed since the `collect` before. Valid until the next one. */
export interface Frame {
  /** The size differs from the frame before; then every tile counts as changed. */
  readonly resized: boolean;
  /** One byte a tile, row by row; not 0 where the tile changed. */
  readonly changed: Uint8Array;
  readonly changedTiles: number;
  /** Rows that moved up or down as they were, and the tiles that still differ once they have been moved. */
  readonly scroll?: Scroll;
}

export class Framebuffer {
  #width = 0;
  #height = 0;
  #pixels = new Uint32Array(0);
  #front = new Uint32Array(0);
  #dirty = new Uint8Array(0);
  #changed = new Uint8Array(0);
  #anyDirty = false;
  #resized = false;
  readonly #scroll = new ScrollDetector();

  constructor(width = 640, height = 480) {
    this.resize(width, height);
  }

  get width(): number {
    return this.#width;
  }

  get height(): number {
    return this.#height;
  }

  /** What the renderer draws into; replaced by `resize`. */
  get pixels(): Uint32Array {
    return this.#pixels;
  }

  /** The same as bytes: red, green, blue, unused. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#pixels.buffer, this.#pixels.byteOffset, this.#pixels.byteLength);
  }

  /** What the last `collect` saw. */
  get front(): Picture {
    return { width: this.#width, height: this.#height, pixels: this.#front };
  }

  /** Gives the surface another size, black all over; sizes a guest has no business with are clamped. Returns whether it changed. */
  resize(width: number, height: number): boolean {
    width = Math.max(1, Math.min(MAX_SIDE, Math.trunc(width) || 1));
    height = Math.max(1, Math.min(MAX_SIDE, Math.trunc(height) || 1, Math.floor(MAX_PIXELS / width)));
    if (width === this.#width && height === this.#height) return false;
    this.#width = width;
    this.#height = height;
    this.#pixels = new Uint32Array(width * height);
    this.#front = new Uint32Array(width * height);
    const tiles = tileColumns(width) * tileRows(height);
    this.#dirty = new Uint8Array(tiles);
    this.#changed = new Uint8Array(tiles);
    this.#scroll.resize(width, height);
    this.#resized = true;
    this.markAll();
    return true;
  }

  /** Says that pixels of this rectangle may have been drawn over; parts outside the surface are ignored. */
  markDirty(x: number, y: number, width: number, height: number): void {
    const right = Math.min(x + width, this.#width);
    const bottom = Math.min(y + height, this.#height);
    x = Math.max(x, 0);
    y = Math.max(y, 0);
    if (!(right > x && bottom > y)) return;
    const columns = tileColumns(this.#width);
    const firstColumn = Math.floor(x / TILE_WIDTH);
    const endColumn = Math.ceil(right / TILE_WIDTH);
    const endRow = Math.ceil(bottom / TILE_HEIGHT);
    for (let row = Math.floor(y / TILE_HEIGHT); row < endRow; row++) {
      this.#dirty.fill(1, row * columns + firstColumn, row * columns + endColumn);
    }
    this.#anyDirty = true;
  }

  markAll(): void {
    this.#dirty.fill(1);
    this.#anyDirty = true;
  }

  /** Compares the dirty tiles with `front` and updates it; undefined where nothing has changed. */
  collect(): Frame | undefined {
    const resized = this.#resized;
    if (!this.#anyDirty && !resized) return undefined;
    this.#resized = false;
    this.#anyDirty = false;
    const changedTiles = this.#compare(resized);
    this.#dirty.fill(0);
    if (changedTiles === 0) return undefined;
    const scroll = resized ? undefined : this.#scroll.find(this.#pixels, this.#front, this.#changed, changedTiles);
    this.#update();
    return { resized, changed: this.#changed, changedTiles, scroll };
  }

  #compare(resized: boolean): number {
    const { length } = this.#changed;
    if (resized) {
      this.#changed.fill(1);
      return length;
    }
    let count = 0;
    for (let tile = 0; tile < length; tile++) {
      const differs = this.#dirty[tile] !== 0 && this.#tileDiffers(tile);
      this.#changed[tile] = differs ? 1 : 0;
      if (differs) count++;
    }
    return count;
  }

  #tileDiffers(tile: number): boolean {
    const width = this.#width;
    const columns = tileColumns(width);
    const x = (tile % columns) * TILE_WIDTH;
    const y = Math.floor(tile / columns) * TILE_HEIGHT;
    const span = Math.min(TILE_WIDTH, width - x);
    const bottom = Math.min(y + TILE_HEIGHT, this.#height);
    const pixels = this.#pixels;
    const front = this.#front;
    for (let row = y; row < bottom; row++) {
      const end = row * width + x + span;
      for (let index = end - span; index < end; index++) {
        if (((pixels[index] ^ front[index]) & COLOUR) !== 0) return true;
      }
    }
    return false;
  }

  #update(): void {
    const width = this.#width;
    const columns = tileColumns(width);
    const rows = tileRows(this.#height);
    for (let row = 0; row < rows; row++) {
      const bottom = Math.min((row + 1) * TILE_HEIGHT, this.#height);
      for (let column = 0; column < columns; column++) {
        if (this.#changed[row * columns + column] === 0) continue;
        const x = column * TILE_WIDTH;
        let endColumn = column + 1;
        while (endColumn < columns && this.#changed[row * columns + endColumn] !== 0) endColumn++;
        const right = Math.min(endColumn * TILE_WIDTH, width);
        for (let y = row * TILE_HEIGHT; y < bottom; y++) {
          this.#front.set(this.#pixels.subarray(y * width + x, y * width + right), y * width + x);
        }
        column = endColumn;
      }
    }
  }
}
