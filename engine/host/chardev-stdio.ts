/**
 * The terminal this process was started in, as a character device. On a terminal, input is raw: every key goes to
 * the guest at once. With `signal`, Ctrl-C, Ctrl-\ and Ctrl-Z act on this process instead. The terminal's mode is
 * put back when the process ends or is stopped, and set again when it goes on.
 */
import type { ReadStream, WriteStream } from 'node:tty';
import { ChardevBase } from './chardev-base.ts';
import { ChardevError, type ChardevOptions } from './chardev-types.ts';

type Options = Extract<ChardevOptions, { backend: 'stdio' }>;

/** The streams of a process; a terminal where `setRawMode` is there. */
export interface StdioStreams {
  readonly input: NodeJS.ReadableStream & Partial<Pick<ReadStream, 'isTTY' | 'setRawMode'>>;
  readonly output: NodeJS.WritableStream & Partial<Pick<WriteStream, 'isTTY'>>;
  /** Sends a signal to this process. */
  raise(signal: 'SIGINT' | 'SIGQUIT' | 'SIGTSTP'): void;
}

export const processStreams = (): StdioStreams => ({
  input: process.stdin,
  output: process.stdout,
  raise: (signal) => process.kill(process.pid, signal),
});

const signals: Readonly<Record<number, 'SIGINT' | 'SIGQUIT' | 'SIGTSTP'>> = { 3: 'SIGINT', 28: 'SIGQUIT', 26: 'SIGTSTP' };

let taken = false;

export class StdioChardev extends ChardevBase {
  readonly #signal: boolean;
  readonly #streams: StdioStreams;
  #started = false;
  #broken = false;
  readonly #onData = (data: Buffer | string): void => this.#received(typeof data === 'string' ? Buffer.from(data) : data);
  readonly #onContinue = (): void => this.#setRaw(true);

  constructor(options: Options, streams: StdioStreams = processStreams()) {
    super(options);
    this.#signal = options.signal;
    this.#streams = streams;
  }

  get filename(): string {
    return 'stdio';
  }

  override get terminal(): boolean {
    return this.#streams.input.isTTY === true && this.#streams.output.isTTY === true;
  }

  async start(): Promise<void> {
    if (taken) throw new ChardevError('cannot use stdio by multiple character devices');
    taken = true;
    this.#started = true;
    const { input, output } = this.#streams;
    this.#setRaw(true);
    process.on('SIGCONT', this.#onContinue);
    // A reader of our output that goes away is no reason to end the machine.
    output.on('error', () => {
      this.#broken = true;
    });
    input.on('error', () => {});
    input.on('data', this.#onData);
    this.opened();
  }

  #setRaw(on: boolean): void {
    const { input } = this.#streams;
    if (input.isTTY !== true) return;
    try {
      input.setRawMode?.(on);
    } catch {
      // The terminal has gone; input ends by itself.
    }
  }

  #received(data: Buffer): void {
    if (!this.#signal || this.#streams.input.isTTY !== true) return this.deliver(data);
    let start = 0;
    for (let index = 0; index < data.length; index++) {
      const signal = signals[data[index]];
      if (signal === undefined) continue;
      this.deliver(data.subarray(start, index));
      start = index + 1;
      if (signal === 'SIGTSTP') this.#setRaw(false);
      this.#streams.raise(signal);
    }
    this.deliver(data.subarray(start));
  }

  protected override pauseInput(): void {
    this.#streams.input.pause();
  }

  protected override resumeInput(): void {
    this.#streams.input.resume();
  }

  protected override transmit(data: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (this.#broken) return resolve();
      this.#streams.output.write(data, () => resolve());
    });
  }

  protected override async shut(): Promise<void> {
    this.abandon();
    this.#streams.input.off('data', this.#onData);
    this.#streams.input.pause();
    process.off('SIGCONT', this.#onContinue);
  }

  override abandon(): void {
    if (!this.#started) return;
    this.#started = false;
    taken = false;
    this.#setRaw(false);
  }
}
