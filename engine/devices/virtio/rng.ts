/** virtio-rng: an entropy source, of which a guest may get so much in a period. virtio 1.2, 5.4. */
import type { Clock, Timer } from '../../bus/clock.ts';
import { f64, struct, type View } from '../../memory/struct.ts';
import { serveAll, type VirtioDevice, type VirtioTransport } from './device.ts';

/** Bytes that one request gets at most; a driver takes what it gets and asks again. */
const REQUEST_MAX = 4096;

export const virtioRngState = struct('virtio-rng', 1, {
  /** Bytes that may be given until the period ends. */
  left: f64,
});

/** What a guest gets at most: `bytes` in a period of `periodNs`, which begins with its first request. */
export interface RngLimit {
  readonly state: View<typeof virtioRngState.fields>;
  readonly clock: Clock;
  /** Of the timer, unique in the machine. */
  readonly timer: string;
  readonly bytes: number;
  readonly periodNs: number;
}

export class VirtioRng implements VirtioDevice {
  readonly name = 'virtio-rng';
  readonly type = 4;
  readonly legacyId = 0x1005;
  readonly classCode = 0x00ff00;
  readonly features = [];
  readonly queueSizes = [64];
  readonly configSize = 0;
  readonly #fill: (target: Uint8Array) => void;
  readonly #limit: RngLimit | undefined;
  readonly #timer: Timer | undefined;
  #transport!: VirtioTransport;

  /** `fill` stores random bytes; it gets plain memory of at most 4 KiB. */
  constructor(fill: (target: Uint8Array) => void, limit?: RngLimit) {
    this.#fill = fill;
    this.#limit = limit;
    this.#timer = limit?.clock.timer(limit.timer, () => {
      limit.state.left = limit.bytes;
      if (this.#transport.driverOk) this.notified();
    });
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  reset(): void {
    this.#timer?.disarm();
    if (this.#limit !== undefined) this.#limit.state.left = this.#limit.bytes;
  }

  notified(): void {
    const limit = this.#limit;
    const serve = (most: number, chain: { writableBytes: number; write(at: number, data: Uint8Array): number }): number => {
      const data = new Uint8Array(Math.min(chain.writableBytes, most));
      this.#fill(data);
      return chain.write(0, data);
    };
    if (limit === undefined) return serveAll(this.#transport, 0, (chain) => serve(REQUEST_MAX, chain));
    if (this.#transport.queues[0].waiting() === 0) return;
    if (this.#timer?.deadline === Number.POSITIVE_INFINITY) this.#timer.arm(limit.clock.now() + limit.periodNs);
    serveAll(
      this.#transport,
      0,
      (chain) => {
        const given = serve(Math.min(REQUEST_MAX, limit.state.left), chain);
        limit.state.left -= given;
        return given;
      },
      () => limit.state.left > 0,
    );
  }
}
