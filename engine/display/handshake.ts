import { CHALLENGE_BYTES, type FailureLog, sameBytes, vncResponse } from './auth.ts';
import { ByteWriter } from './wire/bytes.ts';
import { decodeLatin1 } from './wire/client-messages.ts';
import { SECURITY } from './wire/protocol.ts';

/** How a server decides who may come in. */
export interface HandshakePolicy {
  /** Undefined: no password is asked for. */
  readonly password?: string;
  /** A second password, whose owner may only look. */
  readonly viewOnlyPassword?: string;
  /** Fills an array with random bytes. */
  readonly random: (target: Uint8Array) => void;
  readonly failures: FailureLog;
  /** Says why nobody may come in now, such as too many clients. */
  readonly refusal: () => string | undefined;
}

export type HandshakeStep =
  /** `need` bytes are wanted in all. */
  | { kind: 'more'; need: number }
  | { kind: 'next'; used: number; send?: Uint8Array<ArrayBuffer> }
  /** Close, after sending `send`. */
  | { kind: 'refused'; send?: Uint8Array<ArrayBuffer>; reason: string }
  | { kind: 'done'; used: number; shared: boolean; viewOnly: boolean };

const VERSION_BYTES = 12;

/** RFC 6143 7.1 to 7.3: version, security and ClientInit, for the versions 3.3, 3.7 and 3.8. */
export class Handshake {
  readonly #policy: HandshakePolicy;
  readonly #peer: string;
  #state: 'version' | 'security' | 'response' | 'init' = 'version';
  #minor = 8;
  #viewOnly = false;
  readonly #challenge = new Uint8Array(CHALLENGE_BYTES);

  /** `peer` is whom failures are counted against. */
  constructor(policy: HandshakePolicy, peer: string) {
    this.#policy = policy;
    this.#peer = peer;
  }

  /** What the server says first. */
  static greeting(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(new TextEncoder().encode('RFB 003.008\n'));
  }

  /** Takes the next step with the bytes that have come. */
  step(bytes: Uint8Array): HandshakeStep {
    switch (this.#state) {
      case 'version':
        return bytes.length < VERSION_BYTES ? { kind: 'more', need: VERSION_BYTES } : this.#version(bytes);
      case 'security':
        return bytes.length < 1 ? { kind: 'more', need: 1 } : this.#security(bytes[0]);
      case 'response':
        return bytes.length < CHALLENGE_BYTES
          ? { kind: 'more', need: CHALLENGE_BYTES }
          : this.#response(bytes.subarray(0, CHALLENGE_BYTES));
      case 'init':
        if (bytes.length < 1) return { kind: 'more', need: 1 };
        return { kind: 'done', used: 1, shared: bytes[0] !== 0, viewOnly: this.#viewOnly };
    }
  }

  get #securityType(): number {
    return this.#policy.password === undefined ? SECURITY.none : SECURITY.vncAuthentication;
  }

  #version(bytes: Uint8Array): HandshakeStep {
    const match = /^RFB (\d{3})\.(\d{3})\n$/.exec(decodeLatin1(bytes.subarray(0, VERSION_BYTES)));
    if (match === null || Number(match[1]) < 3) return { kind: 'refused', reason: 'not an RFB client' };
    // Versions that were never published count as 3.3 below 3.7, and as 3.8 above it (Apple's 3.889, and 4 and 5).
    const minor = Number(match[1]) > 3 ? 8 : Number(match[2]);
    this.#minor = minor >= 8 ? 8 : minor === 7 ? 7 : 3;
    const wait = this.#policy.failures.delay(this.#peer);
    const refusal =
      wait > 0 ? `too many wrong passwords, try again in ${Math.ceil(wait / 1000)} seconds` : this.#policy.refusal();
    if (refusal !== undefined) return this.#refuseType(refusal);
    const type = this.#securityType;
    if (this.#minor >= 7) {
      this.#state = 'security';
      return { kind: 'next', used: VERSION_BYTES, send: new ByteWriter(2).u8(1).u8(type).take() };
    }
    const out = new ByteWriter(20).u32(type);
    if (type === SECURITY.vncAuthentication) out.bytes(this.#newChallenge());
    else this.#state = 'init';
    return { kind: 'next', used: VERSION_BYTES, send: out.take() };
  }

  /** RFC 6143 7.1.2: no security type at all, and why; version 3.3 has a 32-bit type instead of a list. */
  #refuseType(reason: string): HandshakeStep {
    const out = new ByteWriter();
    if (this.#minor >= 7) out.u8(SECURITY.invalid);
    else out.u32(SECURITY.invalid);
    return { kind: 'refused', send: writeReason(out, reason).take(), reason };
  }

  #security(type: number): HandshakeStep {
    if (type !== this.#securityType) return this.#fail(`security type ${type} was not offered`);
    if (type === SECURITY.vncAuthentication) return { kind: 'next', used: 1, send: Uint8Array.from(this.#newChallenge()) };
    this.#state = 'init';
    // Version 3.7 has no SecurityResult after "None".
    return { kind: 'next', used: 1, send: this.#minor >= 8 ? new ByteWriter(4).u32(0).take() : undefined };
  }

  #newChallenge(): Uint8Array {
    this.#state = 'response';
    this.#policy.random(this.#challenge);
    return this.#challenge;
  }

  #response(response: Uint8Array): HandshakeStep {
    const { password, viewOnlyPassword, failures } = this.#policy;
    // Connections that were opened side by side must not give as many guesses.
    const lockedOut = failures.delay(this.#peer) > 0;
    const full = password !== undefined && sameBytes(response, vncResponse(password, this.#challenge));
    const looking = viewOnlyPassword !== undefined && sameBytes(response, vncResponse(viewOnlyPassword, this.#challenge));
    if (lockedOut || !(full || looking)) {
      failures.failed(this.#peer);
      return this.#fail('wrong password');
    }
    failures.succeeded(this.#peer);
    this.#viewOnly = !full;
    this.#state = 'init';
    return { kind: 'next', used: CHALLENGE_BYTES, send: new ByteWriter(4).u32(0).take() };
  }

  /** RFC 6143 7.1.3: a SecurityResult; only version 3.8 has room for the reason. */
  #fail(reason: string): HandshakeStep {
    const out = new ByteWriter().u32(1);
    if (this.#minor >= 8) writeReason(out, reason);
    return { kind: 'refused', send: out.take(), reason };
  }
}

function writeReason(out: ByteWriter, reason: string): ByteWriter {
  const text = new TextEncoder().encode(reason);
  return out.u32(text.length).bytes(text);
}
