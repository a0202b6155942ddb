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
  readonly thread: HostThread;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly progress: Progress | undefined;
}

interface Link {
  readonly io: IoPart;
  readonly thread: HostThread;
}

export class DriveLinks {
  readonly #threads: Link[] = [];
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
      const at = this.#threads.findIndex((each) => each.thread === thread);
      this.#threads.splice(at, 1);
      for (const [id, waiting] of this.#waiting) {
        if (waiting.thread !== thread) continue;
        this.#waiting.delete(id);
        waiting.reject(new MonitorError('the drive is gone, or the machine has ended'));
      }
    });
  }

  /** The thread that serves the drives of `io`. */
  threadOf(io: IoPart): HostThread | undefined {
    return this.#threads.find((each) => each.io === io)?.thread;
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
    return this.#ask(
      this.#threads.find(({ io }) => io.drives.some(({ index }) => index === drive)),
      drive,
      ask,
      given,
      progress,
      cancel,
    );
  }

  /** Asks a thread of a drive that it has no more, or not yet. */
  askThread(io: IoPart, drive: number, ask: 'attach' | 'detach'): Promise<null> {
    return this.#ask(
      this.#threads.find((each) => each.io === io),
      drive,
      ask,
      {},
    );
  }

  #ask<K extends keyof DriveRequests>(
    target: Link | undefined,
    drive: number,
    ask: K,
    given: DriveRequests[K][0],
    progress?: Progress,
    cancel?: (cancel: () => void) => void,
  ): Promise<DriveRequests[K][1]> {
    if (target === undefined) return Promise.reject(new MonitorError('the drive is not served yet'));
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { thread: target.thread, resolve: resolve as (result: unknown) => void, reject, progress });
      target.thread.post({ ...given, id, drive, ask } as unknown as DriveRequest);
      target.io.ring();
      cancel?.(() => {
        target.thread.post({ id, ask: 'cancel' });
        target.io.ring();
      });
    });
  }
}
