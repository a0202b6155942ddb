/** A stream between a device of the guest and the control thread: what the device sends goes through a ring. */
import type { CharFrontend, CharSink } from '../bus/chardev.ts';
import { ByteRing } from '../memory/ring.ts';
import type { SharedState } from '../memory/shared-state.ts';

const RING_BYTES = 64 * 1024;

export interface CharLine {
  /** `serial0`, `debugcon0`, `virtio-port0` ... */
  readonly name: string;
  /** What the device writes to. */
  readonly ring: ByteRing;
  /** What takes input; absent where the device takes none. */
  readonly front?: CharFrontend;
  /** The character device at the other end, by id. */
  readonly chardev?: string;
  /** A serial port, to which the app's own streams connect. */
  readonly serial?: boolean;
}

/** The ring of that name; `rung` after each write. */
export function charRing(shared: SharedState, name: string, rung: () => void): ByteRing {
  return new ByteRing(shared.buffer, shared.allocate(`ring:${name}`, ByteRing.bytes(RING_BYTES), 1, 'host'), RING_BYTES, rung);
}

/** Where bytes go that nobody reads. */
export const nowhere: CharSink = { write: (data) => data.length };
