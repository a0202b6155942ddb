/**
 * AES-NI, PCLMULQDQ and the SHA extensions (SDM 1, 12.13; SDM 2 for each; FIPS 197, FIPS 180-4). Operands lie at VECTOR_X
 * and VECTOR_Y of the vCPU's state (what an instruction takes from XMM0, at VECTOR_Z); the result is put at VECTOR_RESULT.
 */
import { VECTOR_RESULT, VECTOR_X, VECTOR_Y, VECTOR_Z } from '../../memory/vcpu-state.ts';
import type { SseState } from './sse-float.ts';

export const SseCrypto = {
  AESIMC: 0,
  AESENC: 1,
  AESENCLAST: 2,
  AESDEC: 3,
  AESDECLAST: 4,
  AESKEYGENASSIST: 5,
  PCLMULQDQ: 6,
  SHA1NEXTE: 7,
  SHA1MSG1: 8,
  SHA1MSG2: 9,
  SHA256RNDS2: 10,
  SHA256MSG1: 11,
  SHA256MSG2: 12,
  SHA1RNDS4: 13,
} as const;
export type SseCryptoName = keyof typeof SseCrypto;

const X = VECTOR_X / 4;
const Y = VECTOR_Y / 4;
const Z = VECTOR_Z / 4;
const R = VECTOR_RESULT / 4;

// --- AES --------------------------------------------------------------------------------------------------------

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
function times(a: number, b: number): number {
  let product = 0;
  for (let x = a, y = b; y !== 0; y >>= 1) {
    if ((y & 1) !== 0) product ^= x;
    x = (x << 1) ^ ((x & 0x80) !== 0 ? 0x11b : 0);
  }
  return product;
}

const SBOX = new Uint8Array(256);
const INVERSE_SBOX = new Uint8Array(256);
/** A column of MixColumns, and of its inverse, for one byte in the first row. */
const MIX = new Uint32Array(256);
const INVERSE_MIX = new Uint32Array(256);
for (let value = 0; value < 256; value++) {
  let inverse = 0;
  for (let candidate = 1; candidate < 256 && inverse === 0 && value !== 0; candidate++)
    if (times(value, candidate) === 1) inverse = candidate;
  let image = 0x63;
  for (let turn = 0; turn < 5; turn++) image ^= ((inverse << turn) | (inverse >> (8 - turn))) & 0xff;
  SBOX[value] = image;
  INVERSE_SBOX[image] = value;
  MIX[value] = times(value, 2) | (value << 8) | (value << 16) | (times(value, 3) << 24);
  INVERSE_MIX[value] = times(value, 14) | (times(value, 9) << 8) | (times(value, 13) << 16) | (times(value, 11) << 24);
}

const rotl = (x: number, n: number): number => (x << n) | (x >>> (32 - n));
/** Byte `row` of column word `column` (of four). */
const byteAt = (u32: Uint32Array, column: number, row: number): number => (u32[X + (column & 3)] >>> (8 * row)) & 0xff;

const mixColumn = (table: Uint32Array, column: number): number =>
  table[column & 0xff] ^
  rotl(table[(column >>> 8) & 0xff], 8) ^
  rotl(table[(column >>> 16) & 0xff], 16) ^
  rotl(table[column >>> 24], 24);

/** One round: rows shifted by `direction`, substituted, mixed where there is a table, key added. */
function aesRound(u32: Uint32Array, box: Uint8Array, direction: 1 | -1, mix: Uint32Array | undefined): void {
  for (let column = 0; column < 4; column++) {
    let word = 0;
    for (let row = 0; row < 4; row++) word |= box[byteAt(u32, column + direction * row + 4, row)] << (8 * row);
    u32[R + column] = (mix === undefined ? word : mixColumn(mix, word)) ^ u32[Y + column];
  }
}

const substituteWord = (word: number): number =>
  SBOX[word & 0xff] | (SBOX[(word >>> 8) & 0xff] << 8) | (SBOX[(word >>> 16) & 0xff] << 16) | (SBOX[word >>> 24] << 24);

// --- carry-less multiplication ----------------------------------------------------------------------------------

/** Adds the carry-less product of two 32-bit words into the result at word `at`. */
function multiplyWords(u32: Uint32Array, a: number, b: number, at: number): void {
  let low = 0;
  let high = 0;
  for (let n = 0; n < 32; n++) {
    const mask = -((b >>> n) & 1);
    low ^= (a << n) & mask;
    // A shift by 32 counts as none in JavaScript.
    high ^= (n === 0 ? 0 : a >>> (32 - n)) & mask;
  }
  u32[at] ^= low;
  u32[at + 1] ^= high;
}

// --- SHA --------------------------------------------------------------------------------------------------------

const choose = (x: number, y: number, z: number): number => (x & y) ^ (~x & z);
const majority = (x: number, y: number, z: number): number => (x & y) ^ (x & z) ^ (y & z);
const parity = (x: number, y: number, z: number): number => x ^ y ^ z;
const SHA1_CONSTANTS = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];
const SHA1_FUNCTIONS = [choose, parity, majority, parity];
const bigSigma0 = (x: number): number => rotl(x, 30) ^ rotl(x, 19) ^ rotl(x, 10);
const bigSigma1 = (x: number): number => rotl(x, 26) ^ rotl(x, 21) ^ rotl(x, 7);
const sigma0 = (x: number): number => rotl(x, 25) ^ rotl(x, 14) ^ (x >>> 3);
const sigma1 = (x: number): number => rotl(x, 15) ^ rotl(x, 13) ^ (x >>> 10);

function sha1Rounds(u32: Uint32Array, imm: number): void {
  const f = SHA1_FUNCTIONS[imm & 3];
  const k = SHA1_CONSTANTS[imm & 3];
  let [d, c, b, a] = [u32[X], u32[X + 1], u32[X + 2], u32[X + 3]];
  // E is in the first word already.
  let e = 0;
  for (let n = 3; n >= 0; n--) {
    const next = (f(b, c, d) + rotl(a, 5) + u32[Y + n] + e + k) | 0;
    [e, d, c, b, a] = [d, c, rotl(b, 30), a, next];
  }
  [u32[R], u32[R + 1], u32[R + 2], u32[R + 3]] = [d, c, b, a];
}

function sha256Rounds(u32: Uint32Array): void {
  let [h, g, d, c] = [u32[X], u32[X + 1], u32[X + 2], u32[X + 3]];
  let [f, e, b, a] = [u32[Y], u32[Y + 1], u32[Y + 2], u32[Y + 3]];
  for (let n = 0; n < 2; n++) {
    const t = (choose(e, f, g) + bigSigma1(e) + u32[Z + n] + h) | 0;
    const next = (t + majority(a, b, c) + bigSigma0(a)) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (t + d) | 0, c, b, a, next];
  }
  [u32[R], u32[R + 1], u32[R + 2], u32[R + 3]] = [f, e, b, a];
}

/** Runs one of `SseCrypto` on the temporaries; `imm` is the instruction's. */
export function sseCrypto(state: SseState, operation: number, imm: number): number {
  const { u32 } = state;
  const x = (n: number): number => u32[X + n];
  const y = (n: number): number => u32[Y + n];
  switch (operation) {
    case SseCrypto.AESENC:
      aesRound(u32, SBOX, 1, MIX);
      break;
    case SseCrypto.AESENCLAST:
      aesRound(u32, SBOX, 1, undefined);
      break;
    case SseCrypto.AESDEC:
      aesRound(u32, INVERSE_SBOX, -1, INVERSE_MIX);
      break;
    case SseCrypto.AESDECLAST:
      aesRound(u32, INVERSE_SBOX, -1, undefined);
      break;
    case SseCrypto.AESIMC:
      for (let n = 0; n < 4; n++) u32[R + n] = mixColumn(INVERSE_MIX, y(n));
      break;
    case SseCrypto.AESKEYGENASSIST:
      for (const n of [0, 2]) {
        const word = substituteWord(y(n + 1));
        u32[R + n] = word;
        u32[R + n + 1] = rotl(word, 24) ^ (imm & 0xff);
      }
      break;
    case SseCrypto.PCLMULQDQ: {
      const i = (imm & 1) * 2;
      const j = ((imm >> 4) & 1) * 2;
      u32.fill(0, R, R + 4);
      for (let m = 0; m < 2; m++) for (let n = 0; n < 2; n++) multiplyWords(u32, x(i + m), y(j + n), R + m + n);
      break;
    }
    case SseCrypto.SHA1NEXTE:
      for (let n = 0; n < 3; n++) u32[R + n] = y(n);
      u32[R + 3] = y(3) + rotl(x(3), 30);
      break;
    case SseCrypto.SHA1MSG1:
      u32[R + 3] = x(1) ^ x(3);
      u32[R + 2] = x(0) ^ x(2);
      u32[R + 1] = y(3) ^ x(1);
      u32[R] = y(2) ^ x(0);
      break;
    case SseCrypto.SHA1MSG2:
      u32[R + 3] = rotl(x(3) ^ y(2), 1);
      u32[R + 2] = rotl(x(2) ^ y(1), 1);
      u32[R + 1] = rotl(x(1) ^ y(0), 1);
      u32[R] = rotl(x(0) ^ u32[R + 3], 1);
      break;
    case SseCrypto.SHA256RNDS2:
      sha256Rounds(u32);
      break;
    case SseCrypto.SHA256MSG1:
      for (let n = 0; n < 4; n++) u32[R + n] = x(n) + sigma0(n === 3 ? y(0) : x(n + 1));
      break;
    case SseCrypto.SHA256MSG2:
      u32[R] = x(0) + sigma1(y(2));
      u32[R + 1] = x(1) + sigma1(y(3));
      u32[R + 2] = x(2) + sigma1(u32[R]);
      u32[R + 3] = x(3) + sigma1(u32[R + 1]);
      break;
    default:
      sha1Rounds(u32, imm);
  }
  return 0;
}
