import { desEncryptBlock } from './des.ts';

/** Bytes of a challenge and of the response to it (RFC 6143 7.2.2). */
export const CHALLENGE_BYTES = 16;

/** Only this many bytes of a VNC password count. */
export const PASSWORD_BYTES = 8;

/**
 * What a client that knows `password` answers to `challenge`: DES in ECB mode, the password as its key, with the bits
 * of every byte mirrored (erratum 4951 of RFC 6143).
 */
export function vncResponse(password: string, challenge: Uint8Array): Uint8Array {
  const key = new Uint8Array(8);
  key.set(new TextEncoder().encode(password).subarray(0, PASSWORD_BYTES));
  const mirrored = key.map(mirror);
  const response = new Uint8Array(CHALLENGE_BYTES);
  for (let at = 0; at < CHALLENGE_BYTES; at += 8) response.set(desEncryptBlock(mirrored, challenge.subarray(at, at + 8)), at);
  return response;
}

/** Compares in a time that does not depend on where the two differ. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let index = 0; index < a.length; index++) difference |= a[index] ^ b[index];
  return difference === 0;
}

function mirror(byte: number): number {
  let result = 0;
  for (let bit = 0; bit < 8; bit++) result |= ((byte >> bit) & 1) << (7 - bit);
  return result;
}

const FREE_FAILURES = 3;
const FIRST_DELAY = 2000;
const LONGEST_DELAY = 60_000;
const FORGET_AFTER = 600_000;
const PEERS = 256;

/** Wrong passwords by peer: after three, each further one shuts the peer out for twice as long, up to a minute. */
export class FailureLog {
  readonly #now: () => number;
  readonly #peers = new Map<string, { failures: number; last: number; until: number }>();

  /** `now` gives milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Milliseconds until `peer` may try again; 0: at once. */
  delay(peer: string): number {
    const entry = this.#peers.get(peer);
    return entry === undefined ? 0 : Math.max(0, entry.until - this.#now());
  }

  failed(peer: string): void {
    const now = this.#now();
    let entry = this.#peers.get(peer);
    if (entry === undefined || now - entry.last > FORGET_AFTER) entry = { failures: 0, last: now, until: 0 };
    entry.failures++;
    entry.last = now;
    if (entry.failures >= FREE_FAILURES) {
      entry.until = now + Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(10, entry.failures - FREE_FAILURES));
    }
    // Put last, so that the first of the map is the one whose failure is the longest ago.
    this.#peers.delete(peer);
    this.#peers.set(peer, entry);
    if (this.#peers.size > PEERS) this.#peers.delete(this.#peers.keys().next().value!);
  }

  succeeded(peer: string): void {
    this.#peers.delete(peer);
  }
}
