/**
 * What can go wrong with an image. The block layer throws only these (and what a host file throws, wrapped as `io`):
 * the I/O thread turns them into a status for the guest or an error policy, tools print `message`.
 */
export type BlockErrorCode =
  | 'invalid' // the caller asked for something that makes no sense (offset past the end, bad option)
  | 'format' // not an image of this format, or its header makes no sense
  | 'corrupt' // an image of this format whose tables contradict themselves
  | 'unsupported' // valid, but a feature we do not have
  | 'read-only' // a write to something opened for reading
  | 'locked' // another process has it open
  | 'not-found' // no such file, snapshot or backing file
  | 'permission' // the host does not let us
  | 'no-space' // the host file system is full
  | 'password' // encrypted, and the password is missing or wrong
  | 'exists'
  | 'io'; // the host's read or write failed

export class BlockError extends Error {
  readonly code: BlockErrorCode;
  constructor(code: BlockErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'BlockError';
    this.code = code;
  }
}

/** Throws a `corrupt` error unless the condition holds. */
export function sane(condition: boolean, message: string): asserts condition {
  if (!condition) throw new BlockError('corrupt', message);
}
