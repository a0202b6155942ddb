/**
 * The display thread's loop: draws the guest's screen into the surface and has the server send what changed.
 *
 * It wakes only while a client waits for an update, at most `rate` times a second. While nothing changes the pauses grow
 * to a fifth of a second; a change, a key or a movement of the pointer ends that. With no client it sleeps; `screenshot`
 * draws when it is asked.
 */
import type { Framebuffer } from './framebuffer.ts';
import type { RfbServer } from './server.ts';

/** A picture: RGBA bytes, alpha 255. */
export interface Screenshot {
  readonly width: number;
  readonly height: number;
  readonly rgba: Uint8Array;
}

export interface DisplayPumpOptions {
  readonly framebuffer: Framebuffer;
  readonly server: RfbServer;
  /** Draws what the guest changed into the surface, resizing it where needed, and marks it dirty. */
  readonly refresh: (framebuffer: Framebuffer) => void;
  /** Updates a second, 1 to 60; 30 unless given. */
  readonly rate?: number;
  /** Milliseconds, from any start. */
  readonly now?: () => number;
  /** Calls back after some milliseconds, until what it returns is called. */
  readonly schedule?: (milliseconds: number, callback: () => void) => () => void;
}

const IDLE_INTERVAL = 200;
const GROWTH = 1.25;
/** Ticks without a change before the pauses grow. */
const QUIET_TICKS = 15;

export class DisplayPump {
  readonly #options: DisplayPumpOptions;
  readonly #now: () => number;
  readonly #schedule: NonNullable<DisplayPumpOptions['schedule']>;
  readonly #shortest: number;
  #interval: number;
  #quiet = 0;
  #lastTick = -Infinity;
  #due = Infinity;
  #cancel: (() => void) | undefined;
  #stopped = false;

  constructor(options: DisplayPumpOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#schedule =
      options.schedule ??
      ((milliseconds, callback) => {
        const timer = setTimeout(callback, milliseconds);
        return () => clearTimeout(timer);
      });
    this.#shortest = 1000 / Math.max(1, Math.min(60, options.rate ?? 30));
    this.#interval = this.#shortest;
    options.server.connectPump(
      () => this.#arm(),
      () => this.wake(),
    );
  }

  /** Something happened that the guest is likely to answer on the screen: look again soon. */
  wake(): void {
    this.#quiet = 0;
    this.#interval = this.#shortest;
    if (this.#cancel !== undefined) this.#arm();
  }

  /** Ends the loop. */
  stop(): void {
    this.#stopped = true;
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** The screen as it is now. */
  screenshot(): Screenshot {
    this.#draw();
    const { width, height, pixels } = this.#options.framebuffer.front;
    const rgba = new Uint8Array(width * height * 4);
    const words = new Uint32Array(rgba.buffer);
    for (let index = 0; index < words.length; index++) words[index] = pixels[index] | 0xff000000;
    return { width, height, rgba };
  }

  /** The screen as it is now, reduced to fit `maxWidth` by `maxHeight`; never enlarged. */
  thumbnail(maxWidth: number, maxHeight: number): Screenshot {
    return reduce(this.screenshot(), maxWidth, maxHeight);
  }

  /** Draws, and tells the clients' damage of it, so that none of it is lost to them. */
  #draw(): boolean {
    const { framebuffer, server, refresh } = this.#options;
    refresh(framebuffer);
    const frame = framebuffer.collect();
    const sent = server.publish(frame);
    return frame !== undefined || sent;
  }

  #arm(): void {
    if (this.#stopped) return;
    const due = Math.max(this.#now(), this.#lastTick + this.#interval);
    if (this.#cancel !== undefined) {
      if (due >= this.#due) return;
      this.#cancel();
    }
    this.#due = due;
    this.#cancel = this.#schedule(Math.max(0, due - this.#now()), () => this.#tick());
  }

  #tick(): void {
    this.#cancel = undefined;
    this.#lastTick = this.#now();
    if (!this.#options.server.waiting) return;
    if (this.#draw()) {
      this.#quiet = 0;
      this.#interval = this.#shortest;
    } else if (++this.#quiet > QUIET_TICKS) {
      this.#interval = Math.min(IDLE_INTERVAL, this.#interval * GROWTH);
    }
    if (this.#options.server.waiting) this.#arm();
  }
}

/** Makes a picture smaller, each new pixel the mean of those it stands for. */
export function reduce(picture: Screenshot, maxWidth: number, maxHeight: number): Screenshot {
  const scale = Math.min(1, maxWidth / picture.width, maxHeight / picture.height);
  const width = Math.max(1, Math.floor(picture.width * scale));
  const height = Math.max(1, Math.floor(picture.height * scale));
  const rgba = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    const top = Math.floor((y * picture.height) / height);
    const bottom = Math.max(top + 1, Math.floor(((y + 1) * picture.height) / height));
    for (let x = 0; x < width; x++) {
      const left = Math.floor((x * picture.width) / width);
      const right = Math.max(left + 1, Math.floor(((x + 1) * picture.width) / width));
      const sums = [0, 0, 0, 0];
      for (let row = top; row < bottom; row++) {
        for (let from = (row * picture.width + left) * 4; from < (row * picture.width + right) * 4; from++) {
          sums[from & 3] += picture.rgba[from];
        }
      }
      const count = (bottom - top) * (right - left);
      for (let part = 0; part < 4; part++) rgba[(y * width + x) * 4 + part] = Math.round(sums[part] / count);
    }
  }
  return { width, height, rgba };
}
