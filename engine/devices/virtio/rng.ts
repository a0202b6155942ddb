/** virtio-rng: an entropy source. virtio 1.2, 5.4. */
import { serveAll, type VirtioDevice, type VirtioTransport } from './device.ts';

/** Bytes that one request gets at most; a driver takes what it gets and asks again. */
const REQUEST_MAX = 4096;

export class VirtioRng implements VirtioDevice {
  readonly name = 'virtio-rng';
  readonly type = 4;
  readonly legacyId = 0x1005;
  readonly classCode = 0x00ff00;
  readonly features = [];
  readonly queueSizes = [64];
  readonly configSize = 0;
  readonly #fill: (target: Uint8Array) => void;
  #transport!: VirtioTransport;

  /** `fill` stores random bytes; it gets plain memory of at most 4 KiB. */
  constructor(fill: (target: Uint8Array) => void) {
    this.#fill = fill;
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }
  reset(): void {}
  notified(): void {
    serveAll(this.#transport, 0, (chain) => {
      const data = new Uint8Array(Math.min(chain.writableBytes, REQUEST_MAX));
      this.#fill(data);
      return chain.write(0, data);
    });
  }
}
