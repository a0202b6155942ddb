/**
 * A QMP client over any channel of messages. Answers come in the order of the commands, but each command carries an id
 * all the same; commands under way fail when the channel closes, or after a time limit.
 */
import type { QmpCommands, QmpEventMessage, QmpMessage, QmpRequest } from '../../engine/contract/index.ts';
import { AppError } from '../contract/index.ts';

/** A machine that does not answer for this long is stuck, in ms. */
const defaultTimeout = 20_000;

interface Waiting {
  readonly command: string;
  readonly resolve: (value: never) => void;
  readonly reject: (error: AppError) => void;
  readonly timer: NodeJS.Timeout;
}

export class QmpClient {
  readonly #send: (message: QmpRequest) => void;
  readonly #onEvent: (event: QmpEventMessage) => void;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #closed = false;
  #greeted: (() => void) | undefined;
  /** Resolves when the greeting came and capabilities are negotiated. */
  readonly ready: Promise<void>;

  constructor(send: (message: QmpRequest) => void, onEvent: (event: QmpEventMessage) => void) {
    this.#send = send;
    this.#onEvent = onEvent;
    this.ready = new Promise<void>((resolve) => {
      this.#greeted = resolve;
    }).then(async () => {
      await this.execute('qmp_capabilities', {});
    });
    // Whoever does not wait for it hears of a failure by the process's exit.
    this.ready.catch(() => {});
  }

  /** Runs a command; rejects with code `engine` when the machine refuses, `timeout` when it does not answer. */
  execute<N extends keyof QmpCommands>(
    command: N,
    args: QmpCommands[N][0],
    timeoutMs = defaultTimeout,
  ): Promise<QmpCommands[N][1]> {
    if (this.#closed) return Promise.reject(new AppError('engine', 'The VM is not running'));
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new AppError('timeout', `The VM did not answer to "${command}" within ${timeoutMs / 1000} seconds`));
      }, timeoutMs);
      this.#waiting.set(id, { command, resolve: resolve as never, reject, timer });
      this.#send({ execute: command, arguments: args as Record<string, unknown>, id });
    });
  }

  /** The same for a command that `QmpCommands` does not know. */
  command(command: string, args: Readonly<Record<string, unknown>>, timeoutMs = defaultTimeout): Promise<unknown> {
    return this.execute(command as keyof QmpCommands, args as never, timeoutMs);
  }

  /** A message from the machine. */
  receive(message: QmpMessage): void {
    if ('QMP' in message) {
      this.#greeted?.();
      this.#greeted = undefined;
      return;
    }
    if ('event' in message) {
      this.#onEvent(message);
      return;
    }
    const entry = this.#waiting.get(message.id as number);
    if (entry === undefined) return;
    this.#waiting.delete(message.id as number);
    clearTimeout(entry.timer);
    if ('error' in message) entry.reject(new AppError('engine', message.error.desc));
    else entry.resolve(message.return as never);
  }

  /** The channel has gone. */
  close(): void {
    this.#closed = true;
    for (const { reject, timer, command } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new AppError('engine', `The VM ended before it answered to "${command}"`));
    }
    this.#waiting.clear();
  }
}
