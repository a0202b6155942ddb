/** The control thread's end of what `drive-thread.ts` does: requests to I/O threads, and what comes back from them. */
import type { HostThread } from '../host/platform.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import type { IoPart } from './drive-list.ts';
import type { DriveRequest, DriveRequests, FromDrive } from './drive-thread.ts';

/** A request that an I/O thread could not carry out. */
export class DriveError extends MonitorError {
  /** The `BlockError`'s code, or `internal`. */
  readonly code: string;
  readonly torn: boolean;
  constructor(message: string, code: string, torn: boolean) {
    super(message);
    this.code = code;
    this.torn = torn;
  }
}

export type Progress = (done: number, total: number) => void;

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly progress: Progress | undefined;
}

export class DriveLinks {
  readonly #threads: { readonly io: IoPart; readonly thread: HostThread }[] = [];
  readonly #waiting = new Map<number, Waiting>();
  readonly #told: (message: Extract<FromDrive, { type: 'job' | 'error' }>) => void;
  #next = 1;

  constructor(told: (message: Extract<FromDrive, { type: 'job' | 'error' }>) => void) {
    this.#told = told;
  }

  add(io: IoPart, thread: HostThread): void {
    this.#threads.push({ io, thread });
    thread.onMessage((message) => this.#receive(message));
    void thread.ended.then(() => {
      for (const waiting of this.#waiting.values()) waiting.reject(new MonitorError('the machine has ended'));
      this.#waiting.clear();
    });
  }

  #receive(message: FromDrive): void {
    if (message.type === 'job' || message.type === 'error') {
      this.#told(message);
      return;
    }
    const waiting = this.#waiting.get(message.id);
    if (waiting === undefined) return;
    if (message.type === 'progress') {
      waiting.progress?.(message.done, message.total);
      return;
    }
    this.#waiting.delete(message.id);
    if (message.type === 'answer') waiting.resolve(message.result);
    else waiting.reject(new DriveError(message.message, message.code, message.torn));
  }

  /** Asks the thread of drive `drive`. `cancel` gets a function that cancels the request. */
  ask<K extends keyof DriveRequests>(
    drive: number,
    ask: K,
    given: DriveRequests[K][0],
    progress?: Progress,
    cancel?: (cancel: () => void) => void,
  ): Promise<DriveRequests[K][1]> {
    const target = this.#threads.find(({ io }) => io.drives.some(({ index }) => index === drive));
    if (target === undefined) return Promise.reject(new MonitorError('the drive is not served yet'));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (result: unknown) => void, reject, progress });
      target.thread.post({ ...given, id, drive, ask } as unknown as DriveRequest);
      target.io.ring();
      cancel?.(() => {
        target.thread.post({ id, ask: 'cancel' });
        target.io.ring();
      });
    });
  }
}
