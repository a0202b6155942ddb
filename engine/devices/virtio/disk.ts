/** What disk controllers need of a disk. Every call blocks; every call may throw when the host fails. */
export interface Disk {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  read(offset: number, buffer: Uint8Array): void;
  write(offset: number, buffer: Uint8Array): void;
  /** All that was written before is on stable storage when it returns. */
  flush(): void;
  /** The range's contents are not needed any more. */
  discard(offset: number, length: number): void;
  /** The range reads as zeros after it; with `unmap` its storage may go. */
  writeZeroes(offset: number, length: number, unmap?: boolean): void;
}

/**
 * What to do when the host failed, asked on the I/O thread: `report` the error to the guest, do as if it had worked
 * (`ignore`), `retry` (after the machine was stopped and continued: the call may wait for that), or `putBack`: the request
 * goes back to where it came from and is carried out anew when the machine goes on. QEMU's `rerror`, `werror`.
 */
export type DiskErrorPolicy = (error: unknown, operation: 'read' | 'write') => 'report' | 'ignore' | 'retry' | 'putBack';

/** Thrown through a request that is to be put back. */
export const PUT_BACK = Symbol('put back');

/** Runs `body` under an error policy; false where the error is to be reported. Throws `PUT_BACK` where the policy says so. */
export function underPolicy(policy: DiskErrorPolicy | undefined, operation: 'read' | 'write', body: () => void): boolean {
  for (;;) {
    try {
      body();
      return true;
    } catch (error) {
      const answer = policy?.(error, operation) ?? 'report';
      if (answer === 'putBack') throw PUT_BACK;
      if (answer !== 'retry') return answer === 'ignore';
    }
  }
}
