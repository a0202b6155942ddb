/** Helpers for device tests: a clock that the test moves, lines that remember, plain guest memory, the snapshot suite. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock, Timer } from '../bus/clock.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import type { StructType, View } from '../memory/struct.ts';

/** A line that keeps its level and counts its rising edges. */
export class RecordedLine implements IrqLine {
  level = false;
  edges = 0;
  set(level: boolean): void {
    if (level && !this.level) this.edges++;
    this.level = level;
  }
}

/** A clock that moves when the test says so and then runs what is due, in order. */
export class FakeClock implements Clock {
  #now = 0;
  readonly #timers: { name: string; deadline: number; callback: () => void }[] = [];
  wall = Date.UTC(2026, 0, 2, 3, 4, 5);

  now(): number {
    return this.#now;
  }
  wallTime(): number {
    return this.wall + this.#now / 1e6;
  }
  timer(name: string, callback: () => void): Timer {
    const entry = { name, deadline: Infinity, callback };
    this.#timers.push(entry);
    return {
      arm(deadline: number): void {
        entry.deadline = deadline;
      },
      disarm(): void {
        entry.deadline = Infinity;
      },
      get deadline(): number {
        return entry.deadline;
      },
    };
  }
  /** Moves time forward by `ns`, running timers at their deadlines. */
  advance(ns: number): void {
    const end = this.#now + ns;
    for (;;) {
      const due = this.#timers.filter((timer) => timer.deadline <= end).sort((a, b) => a.deadline - b.deadline)[0];
      if (due === undefined) break;
      this.#now = Math.max(this.#now, due.deadline);
      due.deadline = Infinity;
      due.callback();
    }
    this.#now = end;
  }
}

/** Guest memory over a plain buffer that starts at physical address 0. */
export class PlainMemory implements GuestMemory {
  readonly data: Uint8Array;
  readonly #view: DataView;
  constructor(size: number) {
    this.data = new Uint8Array(new SharedArrayBuffer(size));
    this.#view = new DataView(this.data.buffer);
  }
  get ramBytes(): number {
    return this.data.length;
  }
  #in(address: number, length: number): boolean {
    return address >= 0 && address + length <= this.data.length;
  }
  read8(address: number): number {
    return this.#in(address, 1) ? this.data[address] : 0xff;
  }
  read16(address: number): number {
    return this.#in(address, 2) ? this.#view.getUint16(address, true) : 0xffff;
  }
  read32(address: number): number {
    return this.#in(address, 4) ? this.#view.getUint32(address, true) : 0xffffffff;
  }
  read64(address: number): number {
    return this.read32(address) + this.read32(address + 4) * 2 ** 32;
  }
  write8(address: number, value: number): void {
    if (this.#in(address, 1)) this.data[address] = value;
  }
  write16(address: number, value: number): void {
    if (this.#in(address, 2)) this.#view.setUint16(address, value, true);
  }
  write32(address: number, value: number): void {
    if (this.#in(address, 4)) this.#view.setUint32(address, value, true);
  }
  write64(address: number, value: number): void {
    this.write32(address, value % 2 ** 32);
    this.write32(address + 4, Math.floor(value / 2 ** 32));
  }
  read(address: number, target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = this.read8(address + i);
  }
  write(address: number, source: Uint8Array): void {
    for (let i = 0; i < source.length; i++) this.write8(address + i, source[i]);
  }
  view(address: number, length: number): Uint8Array | undefined {
    return this.#in(address, length) ? this.data.subarray(address, address + length) : undefined;
  }
  written(): void {}
}

/** Makes a fresh struct in a buffer of its own, for a test. */
export function fresh<T extends StructType>(type: T): ReturnType<T['at']> {
  return type.at(new SharedArrayBuffer(type.size), 0) as ReturnType<T['at']>;
}

/**
 * The suite that every device passes: after `exercise`, a device made over a copy of the struct's bytes
 * answers the same as the original. `probe` reads all that a guest can see.
 */
export function snapshotSuite<T extends StructType, D>(
  type: T,
  // biome-ignore lint/suspicious/noExplicitAny: the caller's struct type fixes the view
  make: (state: any, clock: FakeClock) => D,
  exercise: (device: D, clock: FakeClock) => void,
  probe: (device: D) => unknown,
): void {
  test(`${type.name}: a copy of its state behaves the same`, () => {
    const size = type.size;
    const buffer = new SharedArrayBuffer(size);
    const clock = new FakeClock();
    const device = make(type.at(buffer, 0) as View<never>, clock);
    (device as { reset?: () => void }).reset?.();
    exercise(device, clock);
    const copy = new SharedArrayBuffer(size);
    new Uint8Array(copy).set(new Uint8Array(buffer));
    const twin = make(type.at(copy, 0) as View<never>, clock);
    assert.deepEqual(probe(twin), probe(device));
  });
}
