/**
 * Damage is counted in tiles of 64 by 16 pixels: 16 rows are a line of a text console, 64 columns are one ZRLE tile.
 */
export const TILE_WIDTH = 64;
export const TILE_HEIGHT = 16;

/** Tiles beside each other in a picture `width` pixels wide. */
export function tileColumns(width: number): number {
  return Math.ceil(width / TILE_WIDTH);
}

/** Tiles above each other in a picture `height` pixels high. */
export function tileRows(height: number): number {
  return Math.ceil(height / TILE_HEIGHT);
}
