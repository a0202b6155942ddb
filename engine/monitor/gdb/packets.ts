/** Framing of gdb's remote protocol (GDB manual, appendix E.1): `$data#checksum`, acknowledgements, the interrupt byte. */

/** Longest packet that is taken; `qSupported` says so. */
export const PACKET_SIZE = 0x4000;

export type Incoming =
  | { readonly kind: 'packet'; readonly data: string }
  | { readonly kind: 'interrupt' | 'ack' | 'nak' | 'bad' };

const DOLLAR = 0x24;
const HASH = 0x23;
const ESCAPE = 0x7d;
const INTERRUPT = 3;

/** Takes bytes as they come and gives packets; data are one character a byte. */
export class PacketReader {
  #state: 'idle' | 'data' | 'sum1' | 'sum2' = 'idle';
  #data: number[] = [];
  #sum = 0;
  #given = 0;
  #escaped = false;

  feed(bytes: Uint8Array): Incoming[] {
    const out: Incoming[] = [];
    for (const byte of bytes) {
      if (this.#state === 'idle') {
        if (byte === DOLLAR) {
          this.#state = 'data';
          this.#data = [];
          this.#sum = 0;
          this.#escaped = false;
        } else if (byte === INTERRUPT) out.push({ kind: 'interrupt' });
        else if (byte === 0x2b) out.push({ kind: 'ack' });
        else if (byte === 0x2d) out.push({ kind: 'nak' });
      } else if (this.#state === 'data') {
        if (byte === HASH) {
          this.#state = 'sum1';
          continue;
        }
        if (byte === DOLLAR) {
          this.#data = [];
          this.#sum = 0;
          continue;
        }
        this.#sum = (this.#sum + byte) & 0xff;
        if (this.#data.length > PACKET_SIZE) continue;
        if (this.#escaped) this.#data.push(byte ^ 0x20);
        else if (byte !== ESCAPE) this.#data.push(byte);
        this.#escaped = !this.#escaped && byte === ESCAPE;
      } else {
        const digit = Number.parseInt(String.fromCharCode(byte), 16);
        if (this.#state === 'sum1') {
          this.#given = digit;
          this.#state = 'sum2';
          continue;
        }
        this.#state = 'idle';
        if (this.#given * 16 + digit === this.#sum && this.#data.length <= PACKET_SIZE)
          out.push({ kind: 'packet', data: this.#data.map((each) => String.fromCharCode(each)).join('') });
        else out.push({ kind: 'bad' });
      }
    }
    return out;
  }
}

/** A packet with these data (one character a byte), escaped and summed. */
export function packet(data: string): Uint8Array {
  const bytes: number[] = [DOLLAR];
  let sum = 0;
  const put = (byte: number): void => {
    bytes.push(byte);
    sum = (sum + byte) & 0xff;
  };
  for (let n = 0; n < data.length; n++) {
    const byte = data.charCodeAt(n) & 0xff;
    if (byte === DOLLAR || byte === HASH || byte === ESCAPE || byte === 0x2a) {
      put(ESCAPE);
      put(byte ^ 0x20);
    } else put(byte);
  }
  const tail = `#${sum.toString(16).padStart(2, '0')}`;
  bytes.push(...[...tail].map((each) => each.charCodeAt(0)));
  return Uint8Array.from(bytes);
}

/** Bytes as pairs of hexadecimal digits. */
export const toHex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
/** The other way; undefined where it is no hexadecimal text. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return undefined;
  return Uint8Array.from({ length: text.length / 2 }, (_, n) => Number.parseInt(text.slice(2 * n, 2 * n + 2), 16));
}
/** A number of `bits` in the target's byte order. */
export function littleHex(value: bigint, bits: number): string {
  const bytes = new Uint8Array(Math.ceil(bits / 8));
  for (let n = 0; n < bytes.length; n++) bytes[n] = Number((value >> BigInt(8 * n)) & 0xffn);
  return toHex(bytes);
}
export function fromLittleHex(text: string): bigint | undefined {
  const bytes = fromHex(text);
  if (bytes === undefined) return undefined;
  let value = 0n;
  for (let n = bytes.length - 1; n >= 0; n--) value = (value << 8n) | BigInt(bytes[n]);
  return value;
}
