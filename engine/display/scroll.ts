/**
 * Finds out that a picture scrolled: that a band of whole rows stands elsewhere as it was. A text console that scrolls
 * changes nearly all of the screen, but a CopyRect and the new line describe it.
 *
 * How: a hash a row. Rows that are unique in the old picture and are found again in the new one vote for a distance; the
 * distance with the most votes is tried with the rows' pixels, so that a hash collision can cost time but never show a
 * wrong picture. Rows inside the band that do not match (a cursor that blinked, a clock) are allowed in small number
 * and are sent as pixels.
 */
import { TILE_HEIGHT, TILE_WIDTH, tileColumns, tileRows } from './tiles.ts';

export interface Scroll {
  /** First row of the band at its new place. */
  readonly top: number;
  /** First row of the band at its old place. */
  readonly from: number;
  /** Rows in the band; it is as wide as the picture. */
  readonly height: number;
  /** One byte a tile: what differs from the new picture once the band has been moved. */
  readonly residual: Uint8Array;
}

/** Fewer changed rows than this are not worth looking at. */
const MIN_ROWS = 32;
/** The band must save this many rows. */
const MIN_GAIN = 16;
const COLOUR = 0xffffff;

export class ScrollDetector {
  #width = 0;
  #height = 0;
  #newHash = new Int32Array(0);
  #oldHash = new Int32Array(0);
  #residual = new Uint8Array(0);

  resize(width: number, height: number): void {
    this.#width = width;
    this.#height = height;
    this.#newHash = new Int32Array(height);
    this.#oldHash = new Int32Array(height);
    this.#residual = new Uint8Array(tileColumns(width) * tileRows(height));
  }

  /** Looks for a scroll from `before` to `now`; `changed` has one byte a tile. Rows of unchanged tiles are equal in both. */
  find(now: Uint32Array, before: Uint32Array, changed: Uint8Array, changedTiles: number): Scroll | undefined {
    const columns = tileColumns(this.#width);
    if (changedTiles * TILE_HEIGHT < MIN_ROWS) return undefined;
    const first = Math.floor(changed.indexOf(1) / columns) * TILE_HEIGHT;
    const last = Math.min(this.#height, (Math.floor(changed.lastIndexOf(1) / columns) + 1) * TILE_HEIGHT);
    if (last - first < MIN_ROWS) return undefined;
    for (let row = first; row < last; row++) {
      this.#oldHash[row] = this.#hash(before, row);
      this.#newHash[row] = this.#hash(now, row);
    }
    const distance = this.#vote(first, last);
    if (distance === 0) return undefined;
    const band = this.#band(first, last, distance);
    if (band === undefined) return undefined;
    return this.#verify(now, before, changed, band.top, band.bottom, distance);
  }

  #hash(pixels: Uint32Array, row: number): number {
    const end = (row + 1) * this.#width;
    let hash = 0x811c9dc5 | 0;
    for (let index = end - this.#width; index < end; index++) {
      hash = Math.imul(hash ^ (pixels[index] & COLOUR), 0x01000193);
      hash ^= hash >>> 15;
    }
    return hash;
  }

  /** How far down its old place lies for most of the rows that changed; 0 where there is no telling. */
  #vote(first: number, last: number): number {
    /** Where in the old picture a row of this hash stands; -1: in several places. */
    const places = new Map<number, number>();
    for (let row = first; row < last; row++) {
      const hash = this.#oldHash[row];
      places.set(hash, places.has(hash) ? -1 : row);
    }
    const votes = new Map<number, number>();
    let best = 0;
    let bestVotes = 0;
    for (let row = first; row < last; row++) {
      if (this.#newHash[row] === this.#oldHash[row]) continue;
      const place = places.get(this.#newHash[row]);
      if (place === undefined || place < 0) continue;
      const count = (votes.get(place - row) ?? 0) + 1;
      votes.set(place - row, count);
      if (count > bestVotes) {
        bestVotes = count;
        best = place - row;
      }
    }
    return best;
  }

  /** The rows between the first and the last that moved by `distance`, without ends that match only by being blank. */
  #band(first: number, last: number, distance: number): { top: number; bottom: number } | undefined {
    const start = Math.max(first, first - distance);
    const end = Math.min(last, last - distance);
    let top = -1;
    let bottom = -1;
    let gain = 0;
    let loss = 0;
    for (let row = start; row < end; row++) {
      const matches = this.#newHash[row] === this.#oldHash[row + distance];
      const stayed = this.#newHash[row] === this.#oldHash[row];
      if (matches && !stayed) {
        if (top < 0) top = row;
        bottom = row + 1;
        gain++;
      } else if (!matches && top >= 0) {
        loss++;
      }
    }
    if (gain < MIN_GAIN || loss * 4 > gain) return undefined;
    return { top, bottom };
  }

  #verify(
    now: Uint32Array,
    before: Uint32Array,
    changed: Uint8Array,
    top: number,
    bottom: number,
    distance: number,
  ): Scroll | undefined {
    const width = this.#width;
    const columns = tileColumns(width);
    const residual = this.#residual;
    residual.fill(0);
    let left = 0;
    for (let tile = 0; tile < changed.length; tile++) {
      const column = tile % columns;
      const y = ((tile - column) / columns) * TILE_HEIGHT;
      const end = Math.min(y + TILE_HEIGHT, this.#height);
      // Outside the band an unchanged tile needs no look; inside it the move may have overwritten it.
      if (changed[tile] === 0 && (end <= top || y >= bottom)) continue;
      const x = column * TILE_WIDTH;
      const span = Math.min(TILE_WIDTH, width - x);
      let differs = false;
      for (let row = y; row < end && !differs; row++) {
        let source = (row >= top && row < bottom ? row + distance : row) * width + x;
        let target = row * width + x;
        for (const stop = target + span; target < stop; target++, source++) {
          if (((now[target] ^ before[source]) & COLOUR) !== 0) {
            differs = true;
            break;
          }
        }
      }
      if (differs) {
        residual[tile] = 1;
        left++;
      }
    }
    let plain = 0;
    for (const value of changed) plain += value;
    // Moving has to leave clearly less to send than not moving.
    if (left * 4 > plain * 3) return undefined;
    return { top, from: top + distance, height: bottom - top, residual };
  }
}
