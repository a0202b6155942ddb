/**
 * What all character device back ends share: two bounded queues between a front end that takes bytes when it has
 * room and a host stream that does too.
 *
 * Output: `write` takes what fits the queue; the front end's `drained` comes when there is room again. While nobody
 * is at the other end, output is thrown away, as a serial line does. Input: what the front end has no room for
 * waits; when too much waits, the host stream is paused. The end of a connection is told after its last input.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { CharClient, Chardev, CharPort } from '../monitor/machine-control.ts';
import { type ChardevCommon, ChardevError } from './chardev-types.ts';

const queueBytes = 1 << 16;

export abstract class ChardevBase implements Chardev {
  readonly id: string;
  readonly #logFd: number | undefined;
  #client: CharClient | undefined;
  #open = false;
  #input: Uint8Array[] = [];
  #inputBytes = 0;
  #inputPaused = false;
  #pumping = false;
  #ending = false;
  #output: Uint8Array[] = [];
  #outputBytes = 0;
  #sending = false;
  #scheduled = false;
  #blocked = false;
  #idle: (() => void)[] = [];

  constructor({ id, logfile, logappend }: ChardevCommon) {
    this.id = id;
    if (logfile === undefined) return;
    try {
      this.#logFd = openSync(logfile, logappend ? 'a' : 'w');
    } catch (cause) {
      throw new ChardevError(`chardev ${id}: cannot open log file: ${(cause as Error).message}`);
    }
  }

  abstract get filename(): string;

  get terminal(): boolean {
    return false;
  }

  get open(): boolean {
    return this.#open;
  }

  get attached(): boolean {
    return this.#client !== undefined;
  }

  /** Resolves when the device is ready for the machine to start; rejects with a ChardevError. */
  abstract start(): Promise<void>;

  /** Ends the device: what is queued goes out (for at most a second), then its files and sockets are closed. */
  async close(): Promise<void> {
    await Promise.race([this.flushed(), new Promise((resolve) => setTimeout(resolve, 1000).unref())]);
    await this.shut();
    if (this.#logFd !== undefined) closeSync(this.#logFd);
  }

  /** What must be undone even when the process exits at once; synchronous. */
  abandon(): void {}

  /** Sends bytes to the host; resolves when more can be sent. Never rejects: bytes to a closed stream are lost. */
  protected abstract transmit(data: Uint8Array): Promise<void>;
  protected abstract shut(): Promise<void>;
  protected pauseInput(): void {}
  protected resumeInput(): void {}

  attach(client: CharClient): CharPort {
    if (this.#client !== undefined) throw new ChardevError(`Device '${this.id}' is in use`);
    this.#client = client;
    const device = this;
    return {
      get open() {
        return device.open;
      },
      write: (data) => (this.#client === client ? this.#write(data) : data.length),
      resume: () => this.#pump(),
      detach: () => {
        if (this.#client === client) this.#client = undefined;
      },
    };
  }

  /** Resolves when all output has gone to the host. */
  flushed(): Promise<void> {
    if (this.#outputBytes === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** The other end has come. */
  protected opened(): void {
    if (this.#open) return;
    this.#open = true;
    this.#client?.setOpen?.(true);
  }

  /** The other end has gone; the front end hears of it when it has had all input. */
  protected ended(): void {
    if (!this.#open) return;
    this.#ending = true;
    this.#pump();
    if (this.#client === undefined) this.#finish();
  }

  /** Whether the front end still has input of a connection that has ended. */
  protected get ending(): boolean {
    return this.#ending;
  }

  /** Called when the front end has been told that the connection ended. */
  protected finished(): void {}

  /** Input from the host. */
  protected deliver(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#input.push(data);
    this.#inputBytes += data.length;
    this.#pump();
    if (this.#inputBytes >= queueBytes && !this.#inputPaused) {
      this.#inputPaused = true;
      this.pauseInput();
    }
  }

  protected deliverBreak(): void {
    this.#client?.receiveBreak?.();
  }

  #finish(): void {
    this.#ending = false;
    this.#open = false;
    this.#input = [];
    this.#inputBytes = 0;
    this.#output = [];
    this.#settle(0);
    this.#client?.setOpen?.(false);
    this.finished();
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#input.length > 0 && this.#client !== undefined) {
      const room = this.#client.room();
      if (room <= 0) break;
      const first = this.#input[0];
      const part = first.subarray(0, room);
      if (part.length === first.length) this.#input.shift();
      else this.#input[0] = first.subarray(room);
      this.#inputBytes -= part.length;
      this.#client.receive(part);
    }
    this.#pumping = false;
    if (this.#inputPaused && this.#inputBytes < queueBytes / 2) {
      this.#inputPaused = false;
      this.resumeInput();
    }
    if (this.#ending && this.#input.length === 0) this.#finish();
  }

  #write(data: Uint8Array): number {
    const taken = this.#open ? Math.min(data.length, queueBytes - this.#outputBytes) : data.length;
    if (taken < data.length) this.#blocked = true;
    if (taken === 0) return 0;
    // A copy that is not shared memory: the guest may change its bytes while they wait.
    const copy = new Uint8Array(taken);
    copy.set(data.subarray(0, taken));
    if (this.#logFd !== undefined) this.#log(copy);
    if (!this.#open) return taken;
    this.#output.push(copy);
    this.#outputBytes += taken;
    if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        void this.#send();
      });
    }
    return taken;
  }

  #log(data: Uint8Array): void {
    try {
      writeSync(this.#logFd as number, data);
    } catch {
      // A full disk must not end the machine; the log is a copy.
    }
  }

  async #send(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    while (this.#output.length > 0) {
      const data = this.#output.length === 1 ? this.#output[0] : Buffer.concat(this.#output);
      this.#output = [];
      await this.transmit(data);
      this.#settle(Math.max(0, this.#outputBytes - data.length));
    }
    this.#sending = false;
  }

  #settle(outputBytes: number): void {
    this.#outputBytes = outputBytes;
    if (this.#blocked && outputBytes < queueBytes / 2) {
      this.#blocked = false;
      this.#client?.drained();
    }
    if (outputBytes > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
