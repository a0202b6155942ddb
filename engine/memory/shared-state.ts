/**
 * The arena of device state: structs are found by id, and made by whichever thread asks first. A directory at the
 * start of the arena says where each lies.
 *
 * Layout: words [0] next free byte, [1] number of entries; the machine lock and bus lock; then entries of 64 bytes:
 * id (48 bytes of UTF-8, zero padded), address, size, version, scope (1: of the host, not part of the machine's state).
 */
import { MachineLock } from './lock.ts';
import type { StructScope, StructType } from './struct.ts';

const ENTRY_BYTES = 64;
const ID_BYTES = 48;
const MAX_ENTRIES = 1000;
const LOCK_AT = 64;
const BUS_LOCK_AT = 128;
const ENTRIES_AT = 256;
const FIRST_FREE = ENTRIES_AT + MAX_ENTRIES * ENTRY_BYTES;

/** A struct in the arena. */
export interface StateEntry {
  readonly id: string;
  /** In the machine memory. */
  readonly address: number;
  readonly bytes: number;
  readonly version: number;
  readonly scope: StructScope;
}

export class SharedState {
  readonly buffer: ArrayBufferLike;
  readonly lock: MachineLock;
  readonly busLock: MachineLock;
  readonly #base: number;
  readonly #bytes: number;
  readonly #words: Int32Array;
  readonly #u8: Uint8Array;

  /** `owner` is the calling thread's number, above 0 and unique in the process. */
  constructor(buffer: ArrayBufferLike, base: number, bytes: number, owner: number) {
    this.buffer = buffer;
    this.#base = base;
    this.#bytes = bytes;
    this.#words = new Int32Array(buffer, base, bytes / 4);
    this.#u8 = new Uint8Array(buffer, base, bytes);
    this.lock = new MachineLock(this.#words, LOCK_AT / 4, owner);
    this.busLock = new MachineLock(this.#words, BUS_LOCK_AT / 4, owner);
  }

  /** The struct of that id, made of zeros where nobody made it before. */
  struct<T extends StructType>(type: T, id: string = type.name): ReturnType<T['at']> {
    return type.at(this.buffer, this.allocate(id, type.size, type.version, type.scope)) as ReturnType<T['at']>;
  }

  /** `bytes` of memory under an id; the address in the machine memory. */
  allocate(id: string, bytes: number, version = 1, scope: StructScope = 'guest'): number {
    return this.lock.hold(() => {
      const name = new TextEncoder().encode(id);
      if (name.length > ID_BYTES) throw new Error(`state id too long: ${id}`);
      const count = this.#words[1];
      for (let n = 0; n < count; n++) {
        const at = ENTRIES_AT + n * ENTRY_BYTES;
        let same = true;
        for (let i = 0; same && i < ID_BYTES; i++) same = this.#u8[at + i] === (name[i] ?? 0);
        if (!same) continue;
        if (this.#words[(at + 52) / 4] !== bytes) throw new Error(`state ${id} has another size on this thread`);
        return this.#base + this.#words[(at + 48) / 4];
      }
      if (count === MAX_ENTRIES) throw new Error('too many state structs');
      const start = Math.ceil((this.#words[0] || FIRST_FREE) / 64) * 64;
      if (start + bytes > this.#bytes) throw new Error(`no room for state ${id}`);
      const at = ENTRIES_AT + count * ENTRY_BYTES;
      this.#u8.set(name, at);
      this.#words[(at + 48) / 4] = start;
      this.#words[(at + 52) / 4] = bytes;
      this.#words[(at + 56) / 4] = version;
      this.#words[(at + 60) / 4] = scope === 'host' ? 1 : 0;
      this.#words[0] = start + bytes;
      this.#words[1] = count + 1;
      return this.#base + start;
    });
  }

  /** All structs that were made so far, in the order they were made. */
  entries(): StateEntry[] {
    return this.lock.hold(() =>
      Array.from({ length: this.#words[1] }, (_, n): StateEntry => {
        const at = ENTRIES_AT + n * ENTRY_BYTES;
        const end = this.#u8.subarray(at, at + ID_BYTES).indexOf(0);
        const id = new TextDecoder().decode(this.#u8.slice(at, at + (end < 0 ? ID_BYTES : end)));
        return {
          id,
          address: this.#base + this.#words[(at + 48) / 4],
          bytes: this.#words[(at + 52) / 4],
          version: this.#words[(at + 56) / 4],
          scope: this.#words[(at + 60) / 4] === 1 ? 'host' : 'guest',
        };
      }),
    );
  }
}
