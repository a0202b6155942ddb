/** Jobs as monitors see them: block jobs of drives and snapshot jobs of the machine, with the events of their lives. */
import type { BlockJob, JobStatus } from '../monitor/block-control.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import type { JobReport } from './drive-thread.ts';

export interface Job {
  readonly id: string;
  readonly type: BlockJob['type'];
  readonly drive: string | undefined;
  readonly autoDismiss: boolean;
  status: JobStatus;
  done: number;
  total: number;
  ready: boolean;
  paused: boolean;
  speed: number;
  error: string | undefined;
  /** Ends it before its time; absent: it cannot be. */
  cancel?: () => void;
}

export type Emit = (event: string, data: Readonly<Record<string, unknown>>) => void;

const BLOCK_JOBS = ['stream', 'commit', 'mirror'];

export class Jobs {
  readonly #jobs = new Map<string, Job>();
  readonly #emit: Emit;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  list(): readonly BlockJob[] {
    return [...this.#jobs.values()].map(({ cancel: _, ...job }) => ({ ...job }));
  }

  get(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new MonitorError(`Job not found`, 'GenericError');
    return job;
  }

  /** Adds a job that is about to begin. */
  add(job: Pick<Job, 'id' | 'type' | 'drive' | 'autoDismiss' | 'speed' | 'cancel'>): Job {
    if (!/^[A-Za-z][\w.-]*$/.test(job.id)) throw new MonitorError(`Invalid job ID '${job.id.slice(0, 80)}'`);
    if (this.#jobs.has(job.id)) throw new MonitorError(`Job ID '${job.id}' already in use`);
    const added: Job = { ...job, status: 'created', done: 0, total: 0, ready: false, paused: false, error: undefined };
    this.#jobs.set(job.id, added);
    return added;
  }

  /** Forgets a job that did not begin. */
  drop(id: string): void {
    this.#jobs.delete(id);
  }

  begin(job: Job): void {
    this.#tell(job);
    this.#become(job, 'running');
  }

  /** Takes over what a drive's thread tells of a job. */
  report(report: JobReport): void {
    const job = this.#jobs.get(report.id);
    if (job === undefined) return;
    job.done = report.done;
    job.total = report.total;
    job.speed = report.speed;
    job.paused = report.paused;
    if (report.ended) {
      this.end(job, report.error, report.cancelled);
      return;
    }
    if (report.ready && !job.ready) {
      job.ready = true;
      this.#become(job, 'ready');
      this.#emit('BLOCK_JOB_READY', this.#block(job));
    } else if (job.paused) this.#become(job, job.ready ? 'standby' : 'paused');
    else this.#become(job, job.ready ? 'ready' : 'running');
  }

  end(job: Job, error: string | undefined, cancelled: boolean): void {
    job.error = error;
    if (error !== undefined || cancelled) this.#become(job, 'aborting');
    else {
      this.#become(job, 'waiting');
      this.#become(job, 'pending');
    }
    if (BLOCK_JOBS.includes(job.type)) {
      if (error !== undefined && !cancelled)
        this.#emit('BLOCK_JOB_ERROR', { device: job.id, operation: 'write', action: 'report' });
      this.#emit(cancelled ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED', {
        ...this.#block(job),
        ...(error === undefined || cancelled ? {} : { error }),
      });
    }
    this.#become(job, 'concluded');
    if (job.autoDismiss) this.#remove(job);
  }

  dismiss(id: string): void {
    const job = this.get(id);
    if (job.status !== 'concluded')
      throw new MonitorError(`Job '${id}' in state '${job.status}' cannot accept command verb 'dismiss'`);
    this.#remove(job);
  }

  #remove(job: Job): void {
    this.#become(job, 'null');
    this.#jobs.delete(job.id);
  }

  #block(job: Job): Record<string, unknown> {
    return { type: job.type, device: job.id, len: job.total, offset: job.done, speed: job.speed };
  }

  #become(job: Job, status: JobStatus): void {
    if (job.status === status) return;
    job.status = status;
    this.#tell(job);
  }

  #tell(job: Job): void {
    this.#emit('JOB_STATUS_CHANGE', { status: job.status, id: job.id });
  }
}
