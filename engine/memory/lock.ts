/**
 * The machine lock: one recursive mutex in shared memory. Every device access, on whichever
 * thread, happens while it is held; critical sections are short (a register access), so it
 * spins a little before it sleeps.
 *
 * Words: [0] state (0 free, 1 held, 2 held and somebody sleeps), [1] owner, [2] depth.
 */
export class MachineLock {
  readonly #words: Int32Array;
  readonly #at: number;
  readonly #owner: number;

  /** `owner` is a small number above 0, unique to the calling thread. */
  constructor(words: Int32Array, wordIndex: number, owner: number) {
    this.#words = words;
    this.#at = wordIndex;
    this.#owner = owner;
  }

  acquire(): void {
    const words = this.#words;
    const at = this.#at;
    if (Atomics.load(words, at + 1) === this.#owner) {
      words[at + 2]++;
      return;
    }
    for (let spins = 0; spins < 200; spins++) {
      if (Atomics.compareExchange(words, at, 0, 1) === 0) {
        Atomics.store(words, at + 1, this.#owner);
        return;
      }
    }
    while (Atomics.exchange(words, at, 2) !== 0) Atomics.wait(words, at, 2);
    Atomics.store(words, at + 1, this.#owner);
  }

  release(): void {
    const words = this.#words;
    const at = this.#at;
    if (words[at + 2] > 0) {
      words[at + 2]--;
      return;
    }
    Atomics.store(words, at + 1, 0);
    if (Atomics.exchange(words, at, 0) === 2) Atomics.notify(words, at, 1);
  }

  /** Runs `body` with the lock held. */
  hold<T>(body: () => T): T {
    this.acquire();
    try {
      return body();
    } finally {
      this.release();
    }
  }
}
