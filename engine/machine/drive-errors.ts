/**
 * What becomes of a guest's request when the host fails: reported to the guest, ignored, or the machine is stopped and the
 * request carried out anew when it goes on (`rerror`, `werror`). Asked on the drive's I/O thread.
 */
import type { DiskErrorPolicy } from '../devices/virtio/disk.ts';
import type { SharedState } from '../memory/shared-state.ts';
import { f64, struct, u32, type View } from '../memory/struct.ts';
import type { DrivePart } from './drive-list.ts';

/** A failed request, as it is told to monitors. */
export interface DiskFailure {
  readonly operation: 'read' | 'write';
  readonly action: 'report' | 'ignore' | 'stop';
  readonly noSpace: boolean;
  readonly reason: string;
}

/** Values of `ioStatus`. */
export const IO_OK = 0;
export const IO_NO_SPACE = 1;
export const IO_FAILED = 2;

export const driveErrorState = struct(
  'drive-errors',
  1,
  {
    failedReads: f64,
    failedWrites: f64,
    /** Why the machine was stopped by this drive; `IO_OK` since it went on. */
    ioStatus: u32,
  },
  'host',
);

/** The errors of a drive, on any thread. */
export const driveErrors = (shared: SharedState, drive: DrivePart): View<typeof driveErrorState.fields> =>
  shared.struct(driveErrorState, `drive-errors${drive.index}`);

export interface DriveErrorParts {
  readonly shared: SharedState;
  readonly drive: DrivePart;
  /** Stops the machine: `Request.IO_ERROR`. */
  readonly stop: () => void;
  readonly told: (failure: DiskFailure) => void;
  /**
   * For controllers that cannot put a request back: waits until the machine goes on; false where it ends instead. Absent:
   * requests are put back.
   */
  readonly wait?: () => boolean;
}

/** Failures that do not stop the machine are told at most this often, in ms. */
const TELL_MS = 1000;

export class DriveErrors {
  readonly #parts: DriveErrorParts;
  readonly #s: View<typeof driveErrorState.fields>;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor(parts: DriveErrorParts) {
    this.#parts = parts;
    this.#s = driveErrors(parts.shared, parts.drive);
  }

  readonly policy: DiskErrorPolicy = (error, operation) => {
    const { drive, wait } = this.#parts;
    const { onReadError = 'report', onWriteError = 'enospc' } = drive.config;
    const noSpace = (error as { code?: string }).code === 'no-space';
    const setting = operation === 'read' ? onReadError : onWriteError;
    const action = setting === 'enospc' ? (noSpace ? 'stop' : 'report') : setting;
    if (operation === 'read') this.#s.failedReads++;
    else this.#s.failedWrites++;
    this.#tell({ operation, action, noSpace, reason: (error as Error).message ?? String(error) });
    if (action !== 'stop') return action;
    if (wait === undefined) return 'putBack';
    return wait() ? 'retry' : 'report';
  };

  /** The image is not what it was any more (its file is gone): stops the machine before anything is lost. */
  lost(reason: string): void {
    this.#tell({ operation: 'write', action: 'stop', noSpace: false, reason });
  }

  #tell(failure: DiskFailure): void {
    // A guest may ask for what fails as often as it likes; who listens is told once in a while.
    const now = performance.now();
    if (failure.action === 'stop' || now - this.#toldAt >= TELL_MS) {
      this.#toldAt = now;
      this.#parts.told(failure);
    }
    if (failure.action !== 'stop') return;
    this.#s.ioStatus = failure.noSpace ? IO_NO_SPACE : IO_FAILED;
    this.#parts.stop();
  }
}
