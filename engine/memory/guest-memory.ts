/**
 * Guest-physical memory as devices see it (DMA): reads and writes by physical address.
 *
 * Reads of an address that no RAM or ROM backs give all ones; writes there are dropped.
 * Neither ever throws: addresses come from guests. Writes tell the vCPUs when they touch
 * a page from which code was translated, and mark pages dirty.
 *
 * Addresses are numbers below 2^52 (a physical address has at most 52 bits).
 */
export interface GuestMemory {
  /** Bytes of RAM that the guest has. */
  readonly ramBytes: number;
  read8(address: number): number;
  read16(address: number): number;
  read32(address: number): number;
  /** A 64-bit little-endian value; exact only below 2^53, which every valid address is. */
  read64(address: number): number;
  write8(address: number, value: number): void;
  write16(address: number, value: number): void;
  write32(address: number, value: number): void;
  write64(address: number, value: number): void;
  /** Copies guest memory at `address` into `target`. */
  read(address: number, target: Uint8Array): void;
  /** Copies `source` to guest memory at `address`. */
  write(address: number, source: Uint8Array): void;
  /**
   * A view of `length` bytes at `address` that can be given to a system call, or undefined where the range is
   * not contiguous RAM. The caller calls `written` after storing into it.
   */
  view(address: number, length: number): Uint8Array | undefined;
  /** Tells the machine that the range was written through a view. */
  written(address: number, length: number): void;
}
