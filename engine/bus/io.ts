/**
 * Port and memory-mapped I/O. A device gets offsets from its own base and never knows the base;
 * ranges that overlap in one space are an error when they are mapped.
 */

export type AccessSize = 1 | 2 | 4;

/** What a device offers to the bus. Values are unsigned and `size` bytes wide. Neither call may throw. */
export interface IoHandler {
  read(offset: number, size: AccessSize): number;
  write(offset: number, size: AccessSize, value: number): void;
  /**
   * Several reads of one register at once, as a repeated string instruction makes them: fills the start of `target` with
   * accesses of `size` bytes each; returns how many bytes, 0 where the register wants them one by one.
   */
  readBlock?(offset: number, size: AccessSize, target: Uint8Array): number;
}

interface Range {
  readonly base: number;
  readonly end: number;
  readonly handler: IoHandler;
  readonly name: string;
}

/** Where devices put their ranges: the port space or the memory-mapped space. */
export interface IoSpace {
  /** Maps `length` addresses from `base`; throws when the range overlaps one that is mapped. */
  map(base: number, length: number, handler: IoHandler, name: string): void;
  /** Removes the range that starts at `base`; no effect where there is none. */
  unmap(base: number): void;
}

/** All ones for an access of `size` bytes: what an address that nothing decodes reads as. */
export const allOnes = (size: AccessSize): number => (size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff);

/** An address space of sorted ranges, with the last range that was hit remembered. */
export class IoMap implements IoSpace {
  readonly name: string;
  #ranges: Range[] = [];
  #last: Range | undefined;

  constructor(name: string) {
    this.name = name;
  }

  map(base: number, length: number, handler: IoHandler, name: string): void {
    const range = { base, end: base + length, handler, name };
    const clash = this.#ranges.find((other) => other.base < range.end && base < other.end);
    if (clash)
      throw new Error(`${this.name}: ${name} at 0x${base.toString(16)} overlaps ${clash.name} at 0x${clash.base.toString(16)}`);
    this.#ranges.push(range);
    this.#ranges.sort((a, b) => a.base - b.base);
    this.#last = undefined;
  }

  unmap(base: number): void {
    this.#ranges = this.#ranges.filter((range) => range.base !== base);
    this.#last = undefined;
  }

  /** True where a device decodes `address`. */
  covers(address: number): boolean {
    return this.#find(address) !== undefined;
  }

  read(address: number, size: AccessSize): number {
    const range = this.#find(address);
    if (range === undefined) return allOnes(size);
    return range.handler.read(address - range.base, size) >>> 0;
  }

  /** See `IoHandler.readBlock`. */
  readBlock(address: number, size: AccessSize, target: Uint8Array): number {
    const range = this.#find(address);
    return range?.handler.readBlock?.(address - range.base, size, target) ?? 0;
  }

  write(address: number, size: AccessSize, value: number): void {
    const range = this.#find(address);
    if (range !== undefined) range.handler.write(address - range.base, size, value);
  }

  /** The mapped ranges in order of address, for `info mtree`. */
  list(): readonly { base: number; length: number; name: string }[] {
    return this.#ranges.map(({ base, end, name }) => ({ base, length: end - base, name }));
  }

  #find(address: number): Range | undefined {
    const last = this.#last;
    if (last !== undefined && address >= last.base && address < last.end) return last;
    let low = 0;
    let high = this.#ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = this.#ranges[middle];
      if (address < range.base) high = middle - 1;
      else if (address >= range.end) low = middle + 1;
      else {
        this.#last = range;
        return range;
      }
    }
    return undefined;
  }
}
