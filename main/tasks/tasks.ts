/** Work that takes a while: told with its progress, cancelled by an AbortSignal. */
import { randomUUID } from 'node:crypto';
import { AppError, envelopeOf, type Task } from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';

/** What running work tells. */
export interface TaskReport {
  /** Aborted when the person cancels. */
  readonly signal: AbortSignal;
  /** 0 to 1, or null where there is no telling; `detail` is what it does just now. */
  progress(value: number | null, detail?: string): void;
}

/** Ended tasks that are kept to be seen. */
const keepEnded = 50;
/** Progress is told at most this often, in ms. */
const tellEvery = 100;

export class TaskService {
  readonly #bus: EventBus;
  readonly #tasks = new Map<string, { task: Task; abort: AbortController; toldAt: number }>();

  constructor(bus: EventBus) {
    this.#bus = bus;
  }

  list(): Task[] {
    return [...this.#tasks.values()].map(({ task }) => task);
  }

  /** Starts work. The task says how it ended; `done` says it too, for whoever waits. */
  run<T>(
    title: string,
    options: { vm?: string; cancellable?: boolean },
    work: (report: TaskReport) => Promise<T>,
  ): { readonly task: Task; readonly done: Promise<T> } {
    const id = randomUUID();
    const abort = new AbortController();
    const task: Task = {
      id,
      title,
      state: 'running',
      progress: null,
      detail: '',
      cancellable: options.cancellable ?? true,
      startedAt: Date.now(),
      endedAt: null,
      error: null,
      vm: options.vm ?? null,
    };
    this.#tasks.set(id, { task, abort, toldAt: 0 });
    this.#change(id, {});
    const done = (async () => {
      try {
        const result = await work({
          signal: abort.signal,
          progress: (value, detail) => this.#progress(id, value, detail),
        });
        this.#change(id, { state: 'done', progress: 1, endedAt: Date.now(), cancellable: false });
        return result;
      } catch (error) {
        const cancelled = abort.signal.aborted;
        this.#change(id, {
          state: cancelled ? 'cancelled' : 'failed',
          endedAt: Date.now(),
          cancellable: false,
          error: cancelled ? null : envelopeOf(error),
        });
        throw cancelled ? new AppError('cancelled', `${title}: cancelled`) : error;
      } finally {
        this.#trim();
      }
    })();
    // Whoever only looks at the task must not end the app by not looking at `done`.
    done.catch(() => {});
    return { task, done };
  }

  cancel(id: string): void {
    const entry = this.#tasks.get(id);
    if (entry === undefined) throw new AppError('not-found', 'The task is gone');
    if (!entry.task.cancellable) throw new AppError('wrong-state', `"${entry.task.title}" cannot be cancelled any more`);
    entry.abort.abort();
  }

  dismiss(id: string): void {
    const entry = this.#tasks.get(id);
    if (entry === undefined) return;
    if (entry.task.state === 'running') throw new AppError('wrong-state', 'The task is still running');
    this.#tasks.delete(id);
    this.#bus.emit('task.removed', { id });
  }

  /** Cancels all that runs. */
  close(): void {
    for (const { abort } of this.#tasks.values()) abort.abort();
  }

  #progress(id: string, value: number | null, detail?: string): void {
    const entry = this.#tasks.get(id);
    if (entry === undefined || entry.task.state !== 'running') return;
    const progress = value === null ? null : Math.min(1, Math.max(0, value));
    entry.task = { ...entry.task, progress, detail: detail ?? entry.task.detail };
    if (Date.now() - entry.toldAt < tellEvery) return;
    entry.toldAt = Date.now();
    this.#bus.emit('task.changed', entry.task);
  }

  #change(id: string, changes: Partial<Task>): void {
    const entry = this.#tasks.get(id);
    if (entry === undefined) return;
    entry.task = { ...entry.task, ...changes };
    this.#bus.emit('task.changed', entry.task);
  }

  #trim(): void {
    const ended = [...this.#tasks.values()].filter(({ task }) => task.state !== 'running');
    for (const { task } of ended.slice(0, Math.max(0, ended.length - keepEnded))) this.dismiss(task.id);
  }
}
