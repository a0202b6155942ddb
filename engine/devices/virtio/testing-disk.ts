/** A disk in memory for tests: remembers what it was told, fails when asked to, and asserts that nothing goes past its end. */
import assert from 'node:assert/strict';
import type { Disk } from './disk.ts';

export class MemoryDisk implements Disk {
  readonly data: Uint8Array;
  readOnly = false;
  flushes = 0;
  log: string[] = [];
  /** So many calls fail from now on. */
  failures = 0;
  constructor(size: number) {
    this.data = Uint8Array.from({ length: size }, (_, i) => (i >> 9) ^ i);
  }
  get size(): number {
    return this.data.length;
  }
  #check(offset: number, length: number): void {
    assert.ok(offset >= 0 && offset + length <= this.size, `access at ${offset}+${length}`);
    if (this.failures > 0) {
      this.failures--;
      throw new Error('the host failed');
    }
  }
  read(offset: number, buffer: Uint8Array): void {
    this.#check(offset, buffer.length);
    buffer.set(this.data.subarray(offset, offset + buffer.length));
  }
  write(offset: number, buffer: Uint8Array): void {
    this.#check(offset, buffer.length);
    this.data.set(buffer, offset);
  }
  flush(): void {
    this.#check(0, 0);
    this.flushes++;
  }
  discard(offset: number, length: number): void {
    this.#check(offset, length);
    this.log.push(`${offset}+${length}`);
  }
  writeZeroes(offset: number, length: number, unmap?: boolean): void {
    this.#check(offset, length);
    this.data.fill(0, offset, offset + length);
    this.log.push(`zero ${offset}+${length}${unmap ? ' unmap' : ''}`);
  }
}

/** Deterministic numbers below `below`. */
export function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
