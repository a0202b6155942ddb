/** Text for a character device that takes bytes at its own speed: a queue in front of a CharPort. */
import type { CharPort } from './machine-control.ts';

export class CharWriter {
  #queue: Uint8Array[] = [];
  #waiting = 0;
  readonly #encoder = new TextEncoder();
  readonly #port: () => CharPort;

  /** `port` is asked for at each write: the front end may write before `attach` has returned. */
  constructor(port: () => CharPort) {
    this.#port = port;
  }

  /** Bytes that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Queues text; returns how many bytes wait. */
  write(text: string): number {
    const bytes = this.#encoder.encode(text);
    this.#queue.push(bytes);
    this.#waiting += bytes.length;
    this.drain();
    return this.#waiting;
  }

  /** Writes what the device takes; the front end calls it from `drained`. */
  drain(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue[0];
      const taken = this.#port().write(first);
      this.#waiting -= taken;
      if (taken < first.length) {
        this.#queue[0] = first.subarray(taken);
        return;
      }
      this.#queue.shift();
    }
  }

  clear(): void {
    this.#queue = [];
    this.#waiting = 0;
  }
}
