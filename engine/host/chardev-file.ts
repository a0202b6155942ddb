/** Character devices that are files: `file`, `pipe` (a pair of FIFOs), `null` and `ringbuf`. */
import { close, constants, createReadStream, existsSync, open, type ReadStream, write } from 'node:fs';
import { Socket } from 'node:net';
import { promisify } from 'node:util';
import { ChardevBase } from './chardev-base.ts';
import { ChardevError, type ChardevOptions } from './chardev-types.ts';

type Options<B> = Extract<ChardevOptions, { backend: B }>;

const openFile = promisify(open);
const closeFile = promisify(close);

/** Takes all output and gives no input. */
export class NullChardev extends ChardevBase {
  get filename(): string {
    return 'null';
  }

  async start(): Promise<void> {
    this.opened();
  }

  protected override async transmit(): Promise<void> {}
  protected override async shut(): Promise<void> {}
}

/** Output into a file; input, if any, from another. */
export class FileChardev extends ChardevBase {
  readonly #options: Options<'file'>;
  #fd: number | undefined;
  #reader: ReadStream | undefined;

  constructor(options: Options<'file'>) {
    super(options);
    this.#options = options;
  }

  get filename(): string {
    return 'file';
  }

  async start(): Promise<void> {
    const { path, append, inputPath, id } = this.#options;
    try {
      this.#fd = await openFile(path, append ? 'a' : 'w');
    } catch (cause) {
      throw new ChardevError(`chardev ${id}: cannot write '${path}': ${(cause as Error).message}`);
    }
    this.opened();
    if (inputPath === undefined) return;
    const reader = createReadStream(inputPath);
    this.#reader = reader;
    await new Promise<void>((resolve, reject) => {
      reader.once('open', () => resolve());
      reader.once('error', (error) => reject(new ChardevError(`chardev ${id}: cannot read '${inputPath}': ${error.message}`)));
    });
    reader.on('error', () => reader.destroy());
    reader.on('data', (data) => this.deliver(data as Buffer));
  }

  protected override pauseInput(): void {
    this.#reader?.pause();
  }

  protected override resumeInput(): void {
    this.#reader?.resume();
  }

  protected override transmit(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      const step = (rest: Uint8Array): void => {
        if (this.#fd === undefined) return resolve();
        write(this.#fd, rest, (error, written) => {
          if (error !== null || written >= rest.length) resolve();
          else step(rest.subarray(written));
        });
      };
      step(data);
    });
  }

  protected override async shut(): Promise<void> {
    this.#reader?.destroy();
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await closeFile(fd);
  }
}

/** Two FIFOs, PATH.in (to the guest) and PATH.out; or one, PATH, for both. */
export class PipeChardev extends ChardevBase {
  readonly #path: string;
  #input: Socket | undefined;
  #output: Socket | undefined;

  constructor(options: Options<'pipe'>) {
    super(options);
    this.#path = options.path;
  }

  get filename(): string {
    return `pipe:${this.#path}`;
  }

  async start(): Promise<void> {
    const pair = existsSync(`${this.#path}.in`) && existsSync(`${this.#path}.out`);
    // Opened for both directions, so that neither end waits for a peer or sees an end of file when it goes.
    const stream = async (path: string, readable: boolean, writable: boolean): Promise<Socket> => {
      try {
        const fd = await openFile(path, constants.O_RDWR | constants.O_NONBLOCK);
        const socket = new Socket({ fd, readable, writable });
        socket.on('error', () => socket.destroy());
        return socket;
      } catch (cause) {
        throw new ChardevError(`chardev ${this.id}: cannot open FIFO '${path}': ${(cause as Error).message}`);
      }
    };
    this.#input = await stream(pair ? `${this.#path}.in` : this.#path, true, !pair);
    this.#output = pair ? await stream(`${this.#path}.out`, false, true) : this.#input;
    this.#input.on('data', (data) => this.deliver(data));
    this.opened();
  }

  protected override pauseInput(): void {
    this.#input?.pause();
  }

  protected override resumeInput(): void {
    this.#input?.resume();
  }

  protected override transmit(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      const { closed, destroyed } = this.#output ?? { closed: true, destroyed: true };
      if (closed || destroyed) return resolve();
      this.#output?.write(data, () => resolve());
    });
  }

  protected override async shut(): Promise<void> {
    this.#input?.destroy();
    this.#output?.destroy();
  }
}

/** Keeps the last `size` bytes of output in memory, for `ringbuf-read`; input comes by `ringbuf-write`. */
export class RingChardev extends ChardevBase {
  readonly #ring: Uint8Array;
  #produced = 0;
  #consumed = 0;

  constructor(options: Options<'ringbuf'>) {
    super(options);
    this.#ring = new Uint8Array(options.size);
  }

  get filename(): string {
    return 'ringbuf';
  }

  async start(): Promise<void> {
    this.opened();
  }

  /** Takes up to `length` bytes, the oldest first. */
  read(length: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(length, this.#produced - this.#consumed));
    for (let index = 0; index < bytes.length; index++) bytes[index] = this.#ring[this.#consumed++ % this.#ring.length];
    return bytes;
  }

  /** Gives bytes to the front end. */
  feed(data: Uint8Array): void {
    this.deliver(data);
  }

  protected override async transmit(data: Uint8Array): Promise<void> {
    for (const byte of data) this.#ring[this.#produced++ % this.#ring.length] = byte;
    this.#consumed = Math.max(this.#consumed, this.#produced - this.#ring.length);
  }

  protected override async shut(): Promise<void> {}
}
