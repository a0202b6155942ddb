/**
 * Errors as they cross from the services to a window or a command: `code` is stable and meant for programs, `message`
 * for people (what happened, what to do), `field` names the input to blame as a path such as `boot.kernel`.
 */
export interface ErrorEnvelope {
  readonly code: ErrorCode;
  readonly message: string;
  readonly field?: string;
}

export type ErrorCode =
  /** The arguments are not valid; `field` says where. */
  | 'invalid'
  | 'name-taken'
  | 'not-found'
  /** The VM's state does not allow it: it runs, or it does not. */
  | 'wrong-state'
  | 'no-memory'
  | 'file-missing'
  | 'file-unreadable'
  /** The file is not what it was taken for. */
  | 'bad-file'
  /** Another app has this library open; the message names its process. */
  | 'library-in-use'
  | 'port-in-use'
  /** The VM's process could not be started, or ended at once. */
  | 'start-failed'
  | 'engine'
  | 'timeout'
  | 'cancelled'
  /** Not possible in this shell or on this host. */
  | 'unsupported'
  /** The token has expired, or what it would bring back has gone. */
  | 'undo-expired'
  | 'host'
  | 'internal';

/** An error with an envelope; what services throw and what `Client.request` rejects with. */
export class AppError extends Error {
  override readonly name = 'AppError';
  readonly code: ErrorCode;
  readonly field: string | undefined;

  constructor(code: ErrorCode, message: string, options: { field?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.field = options.field;
  }

  toEnvelope(): ErrorEnvelope {
    return { code: this.code, message: this.message, ...(this.field === undefined ? {} : { field: this.field }) };
  }

  static from(envelope: ErrorEnvelope): AppError {
    return new AppError(envelope.code, envelope.message, { field: envelope.field });
  }
}

/** The envelope of any error; what is not an AppError is `internal`. */
export function envelopeOf(error: unknown): ErrorEnvelope {
  if (error instanceof AppError) return error.toEnvelope();
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) };
}
