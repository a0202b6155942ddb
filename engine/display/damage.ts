import type { Frame } from './framebuffer.ts';
import type { Scroll } from './scroll.ts';
import { TILE_HEIGHT, TILE_WIDTH, tileColumns, tileRows } from './tiles.ts';
import type { Rect } from './wire/protocol.ts';

/** Rows to be moved on a client's screen. */
export type Copy = Pick<Scroll, 'top' | 'from' | 'height'>;

/** More scrolls than this in one update are sent as pixels. */
const MAX_COPIES = 8;

/**
 * What one client has still to be sent: copies, in order, and then the tiles that differ after them. It takes in every
 * frame, however long the client lets it wait, in bounded space.
 */
export class ClientDamage {
  #width = 0;
  #height = 0;
  #tiles = new Uint8Array(0);
  #spare = new Uint8Array(0);
  #count = 0;
  #copies: Copy[] = [];

  /** Starts anew with everything damaged. */
  resize(width: number, height: number): void {
    this.#width = width;
    this.#height = height;
    this.#tiles = new Uint8Array(tileColumns(width) * tileRows(height));
    this.#spare = new Uint8Array(this.#tiles.length);
    this.addAll();
  }

  get empty(): boolean {
    return this.#count === 0 && this.#copies.length === 0;
  }

  addAll(): void {
    this.#copies = [];
    this.#tiles.fill(1);
    this.#count = this.#tiles.length;
  }

  /** Marks every tile that `rect` touches. */
  addRect(rect: Rect): void {
    const columns = tileColumns(this.#width);
    const endColumn = Math.min(columns, Math.ceil((rect.x + rect.width) / TILE_WIDTH));
    const endRow = Math.min(tileRows(this.#height), Math.ceil((rect.y + rect.height) / TILE_HEIGHT));
    for (let row = Math.floor(rect.y / TILE_HEIGHT); row < endRow; row++) {
      for (let column = Math.floor(rect.x / TILE_WIDTH); column < endColumn; column++) this.#set(row * columns + column);
    }
  }

  /** Takes in a frame of the same size; `canCopy` says whether the client knows CopyRect. */
  addFrame(frame: Frame, canCopy: boolean): void {
    const { scroll } = frame;
    if (scroll === undefined || !canCopy || this.#copies.length >= MAX_COPIES) {
      this.#union(frame.changed);
      return;
    }
    if (this.#count > 0) this.#moveTiles(scroll);
    this.#copies.push({ top: scroll.top, from: scroll.from, height: scroll.height });
    this.#union(scroll.residual);
  }

  /** The copies to send first; the caller sends them all. */
  takeCopies(): Copy[] {
    const copies = this.#copies;
    this.#copies = [];
    return copies;
  }

  /** Counts the pending copies as pixels to send, for an update that can't carry them. */
  dropCopies(): void {
    for (const copy of this.#copies) this.addRect({ x: 0, y: copy.top, width: this.#width, height: copy.height });
    this.#copies = [];
  }

  /** Whether a tile in `region` is damaged. */
  touches(region: Rect): boolean {
    if (this.#copies.length > 0) return true;
    if (this.#count === 0) return false;
    const columns = tileColumns(this.#width);
    const endColumn = Math.min(columns, Math.ceil((region.x + region.width) / TILE_WIDTH));
    const endRow = Math.min(tileRows(this.#height), Math.ceil((region.y + region.height) / TILE_HEIGHT));
    for (let row = Math.floor(region.y / TILE_HEIGHT); row < endRow; row++) {
      const start = row * columns;
      for (let tile = start + Math.floor(region.x / TILE_WIDTH); tile < start + endColumn; tile++) {
        if (this.#tiles[tile] !== 0) return true;
      }
    }
    return false;
  }

  /**
   * Takes the damage inside `region` (which lies within the surface) out as few rectangles as runs of tiles give.
   * Tiles that the region cuts are given in part and stay damaged.
   */
  takeRects(region: Rect): Rect[] {
    const columns = tileColumns(this.#width);
    const right = region.x + region.width;
    const bottom = region.y + region.height;
    const startColumn = Math.floor(region.x / TILE_WIDTH);
    const endColumn = Math.ceil(right / TILE_WIDTH);
    const endRow = Math.ceil(bottom / TILE_HEIGHT);
    const done: Rect[] = [];
    /** Rectangles that reach down to the row before, by their left edge. */
    let open = new Map<number, Rect>();
    for (let row = Math.floor(region.y / TILE_HEIGHT); row < endRow; row++) {
      const next = new Map<number, Rect>();
      const y = Math.max(region.y, row * TILE_HEIGHT);
      const height = Math.min(bottom, (row + 1) * TILE_HEIGHT) - y;
      for (let column = startColumn; column < endColumn; column++) {
        if (this.#tiles[row * columns + column] === 0) continue;
        let end = column + 1;
        while (end < endColumn && this.#tiles[row * columns + end] !== 0) end++;
        const x = Math.max(region.x, column * TILE_WIDTH);
        const width = Math.min(right, end * TILE_WIDTH) - x;
        for (let tile = column; tile < end; tile++) this.#clearIfWithin(row, tile, region);
        const above = open.get(x);
        if (above !== undefined && above.width === width) {
          above.height += height;
          next.set(x, above);
        } else {
          const rect = { x, y, width, height };
          next.set(x, rect);
          done.push(rect);
        }
        column = end;
      }
      open = next;
    }
    return done;
  }

  #clearIfWithin(row: number, column: number, region: Rect): void {
    const x = column * TILE_WIDTH;
    const y = row * TILE_HEIGHT;
    const within =
      x >= region.x &&
      y >= region.y &&
      Math.min(x + TILE_WIDTH, this.#width) <= region.x + region.width &&
      Math.min(y + TILE_HEIGHT, this.#height) <= region.y + region.height;
    if (!within) return;
    this.#tiles[row * tileColumns(this.#width) + column] = 0;
    this.#count--;
  }

  #set(tile: number): void {
    if (this.#tiles[tile] !== 0) return;
    this.#tiles[tile] = 1;
    this.#count++;
  }

  #union(tiles: Uint8Array): void {
    for (let tile = 0; tile < tiles.length; tile++) if (tiles[tile] !== 0) this.#set(tile);
  }

  /**
   * A client that still shows old pixels in some tile will move them along with the rest: the places they get to are
   * damaged too. Damaged tiles that the band covers wholly are overwritten, and so are no longer damaged themselves.
   */
  #moveTiles(copy: Copy): void {
    const columns = tileColumns(this.#width);
    const rows = tileRows(this.#height);
    const before = this.#spare;
    before.set(this.#tiles);
    const bottom = copy.top + copy.height;
    for (let row = 0; row < rows; row++) {
      const y = row * TILE_HEIGHT;
      if (y < copy.top || Math.min(y + TILE_HEIGHT, this.#height) > bottom) continue;
      for (let tile = row * columns; tile < (row + 1) * columns; tile++) {
        this.#count -= this.#tiles[tile];
        this.#tiles[tile] = 0;
      }
    }
    for (let row = 0; row < rows; row++) {
      const start = Math.max(row * TILE_HEIGHT, copy.from);
      const end = Math.min((row + 1) * TILE_HEIGHT, copy.from + copy.height);
      if (start >= end) continue;
      const firstRow = Math.floor((start - copy.from + copy.top) / TILE_HEIGHT);
      const endRow = Math.ceil((end - copy.from + copy.top) / TILE_HEIGHT);
      for (let column = 0; column < columns; column++) {
        if (before[row * columns + column] === 0) continue;
        for (let target = firstRow; target < endRow; target++) this.#set(target * columns + column);
      }
    }
  }
}
