import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { MXCSR, STATE_BYTES, VECTOR_RESULT, VECTOR_X, VECTOR_Y, VECTOR_Z } from '../../memory/vcpu-state.ts';
import { SseCrypto, sseCrypto } from './sse-crypto.ts';
import { FloatStatus, type SseFloatName, sseFloat, sseOperation, sseState } from './sse-float.ts';
import { F32, F64, FloatContext, type Format } from './sse-round.ts';
import { sseString } from './sse-string.ts';

const state = sseState(new ArrayBuffer(STATE_BYTES), 0);
const X = VECTOR_X / 8;
const OPERAND_Y = (VECTOR_Y - VECTOR_X) / 4;
const RESULT = VECTOR_RESULT / 4;

let seed = 0x2545f491;
const bits32 = (): number => {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return seed >>> 0;
};
const bits64 = (): bigint => (BigInt(bits32()) << 32n) | BigInt(bits32());

/** Numbers about one, some of few bits, and now and then something special. */
function random(f: Format): bigint {
  const special = [0n, 1n, f.infinity, f.infinity | 1n, f.indefinite, f.signBit, f.fractionMask + 1n, f.infinity - 1n];
  if (bits32() % 8 === 0) return special[bits32() % special.length];
  const exponent = BigInt(f.bias - 30 + (bits32() % 60));
  const fraction = bits64() & f.fractionMask & (bits32() % 2 === 0 ? -1n : ~(f.fractionMask >> 10n));
  return (bits32() % 2 === 0 ? f.signBit : 0n) | (exponent << BigInt(f.fraction)) | fraction;
}

test('the quick paths agree with the exact arithmetic in every rounding mode', () => {
  const context = new FloatContext();
  const exact: Partial<Record<SseFloatName, (f: Format, x: bigint, y: bigint) => bigint>> = {
    ADD: (f, x, y) => context.add(f, x, y),
    SUB: (f, x, y) => context.sub(f, x, y),
    MUL: (f, x, y) => context.mul(f, x, y),
    DIV: (f, x, y) => context.div(f, x, y),
    SQRT: (f, _x, y) => context.sqrt(f, y),
  };
  for (const [bits, f] of [
    [32, F32],
    [64, F64],
  ] as const)
    for (const [name, compute] of Object.entries(exact))
      for (let n = 0; n < 3000; n++) {
        const [x, y] = [random(f), random(f)];
        const mxcsr = 0x1f80 | ((n & 3) << 13) | (bits32() % 4 === 0 ? 0x8040 : 0);
        state.u64[X] = x;
        state.u64[VECTOR_Y / 8] = y;
        state.u32[MXCSR / 4] = mxcsr;
        assert.notEqual(sseFloat(state, sseOperation(name as SseFloatName, bits, 1), 0), FloatStatus.RAISED);
        context.load(mxcsr);
        const expected = compute(f, x, y);
        const what = `${name} ${x.toString(16)} ${y.toString(16)} mxcsr ${mxcsr.toString(16)}`;
        assert.equal(state.u64[VECTOR_RESULT / 8].toString(16), expected.toString(16), what);
        assert.equal(state.u32[MXCSR / 4], mxcsr | context.flags, what);
      }
});

test('the exact arithmetic agrees with doubles and singles', () => {
  const context = new FloatContext();
  const number = new Float64Array(1);
  const single = new Float32Array(1);
  const doubleOf = (x: bigint): number => {
    new BigUint64Array(number.buffer)[0] = x;
    return number[0];
  };
  const bitsOf = (x: number): bigint => {
    number[0] = x;
    return Number.isNaN(x) ? F64.indefinite : new BigUint64Array(number.buffer)[0];
  };
  const singleBits = (x: number): bigint => {
    single[0] = x;
    return BigInt(new Uint32Array(single.buffer)[0]);
  };
  for (let n = 0; n < 3000; n++) {
    // All exponents: overflow, denormals.
    const [x, y] = [bits64(), bits64()];
    const [u, v] = [doubleOf(x), doubleOf(y)];
    if (Number.isNaN(u) || Number.isNaN(v)) continue;
    context.load(0x1f80);
    assert.equal(context.add(F64, x, y), bitsOf(u + v));
    assert.equal(context.mul(F64, x, y), bitsOf(u * v));
    assert.equal(context.div(F64, x, y), bitsOf(u / v));
    assert.equal(context.sqrt(F64, x & ~F64.signBit), bitsOf(Math.sqrt(Math.abs(u))));
    const near = (x & 0x800fffffffffffffn) | (BigInt(1023 - 155 + (n % 300)) << 52n);
    assert.equal(context.convert(F64, F32, near), singleBits(doubleOf(near)));
  }
});

test('unmasked exceptions are reported, with the flags found until then', () => {
  const run = (name: SseFloatName, bits: 32 | 64, x: bigint, y: bigint, mxcsr: number): [number, number] => {
    state.u64[X] = x;
    state.u64[VECTOR_Y / 8] = y;
    state.u32[MXCSR / 4] = mxcsr;
    return [sseFloat(state, sseOperation(name, bits, 1), 0), state.u32[MXCSR / 4] & 0x3f];
  };
  const one = 0x3ff0000000000000n;
  assert.deepEqual(run('DIV', 64, one, 0n, 0x1f80 & ~0x200), [1, 4]);
  assert.deepEqual(run('DIV', 64, one, 0n, 0x1f80), [FloatStatus.STRICT, 4]);
  assert.deepEqual(run('DIV', 64, one, 0n, 0x1fa0), [FloatStatus.FINE, 0x24]);
  assert.deepEqual(run('DIV', 64, 0n, 0n, 0x1fa0), [FloatStatus.WILD, 0x21]);
  assert.deepEqual(run('DIV', 64, one, 0x4008000000000000n, 0x1f80 & ~0x1000), [1, 0x20]);
  // A denormal operand, unmasked, hides the underflow that would follow.
  assert.deepEqual(run('MUL', 64, 1n, 0x3fe0000000000000n, 0x1f80 & ~0x100), [1, 2]);
  assert.deepEqual(run('MUL', 64, 1n, 0x3fe0000000000000n, 0x1f80), [FloatStatus.WILD, 0x32]);
  // With DAZ it is a zero.
  assert.deepEqual(run('MUL', 64, 1n, 0x3fe0000000000000n, 0x1fc0), [FloatStatus.WILD, 0]);
  // A flag that is set already raises nothing.
  assert.deepEqual(run('ADD', 64, one, one, (0x1f80 & ~0x1000) | 0x20), [FloatStatus.STRICT, 0x20]);
});

test('AES: the example of FIPS 197, appendix B', () => {
  const words = (at: number, hex: string): void => {
    const bytes = Buffer.from(hex, 'hex');
    for (let n = 0; n < 4; n++) state.u32[VECTOR_X / 4 + at + n] = bytes.readUInt32LE(4 * n);
  };
  const result = (): string => {
    const bytes = Buffer.alloc(16);
    for (let n = 0; n < 4; n++) bytes.writeUInt32LE(state.u32[RESULT + n], 4 * n);
    return bytes.toString('hex');
  };
  // Round 1: the start of the round, and round key 1.
  words(0, '193de3bea0f4e22b9ac68d2ae9f84808');
  words(OPERAND_Y, 'a0fafe1788542cb123a339392a6c7605');
  sseCrypto(state, SseCrypto.AESENC, 0);
  assert.equal(result(), 'a49c7ff2689f352b6b5bea43026a5049');
  words(0, 'eb40f21e592e38848ba113e71bc342d2');
  words(OPERAND_Y, 'd014f9a8c9ee2589e13f0cc8b6630ca6');
  sseCrypto(state, SseCrypto.AESENCLAST, 0);
  assert.equal(result(), '3925841d02dc09fbdc118597196a0b32');
});

test('SHA-256 of a block, by the rounds of the SHA extensions', () => {
  const message = Buffer.alloc(64);
  message.write('abc');
  message[3] = 0x80;
  message.writeUInt32BE(24, 60);
  const primes: number[] = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p !== 0)) primes.push(n);
  const fractionBits = (x: number): number => Math.floor((x - Math.floor(x)) * 4294967296);
  const k = primes.map((p) => fractionBits(Math.cbrt(p)));
  const h = primes.slice(0, 8).map((p) => fractionBits(Math.sqrt(p)));
  const { u32 } = state;
  const t = VECTOR_X / 4;
  const call = (operation: number, x: readonly number[], y: readonly number[]): number[] => {
    u32.set(x, t);
    u32.set(y, t + OPERAND_Y);
    sseCrypto(state, operation, 0);
    return [...u32.subarray(RESULT, RESULT + 4)];
  };
  const w = Array.from({ length: 16 }, (_, n) => message.readUInt32BE(4 * n));
  for (let n = 16; n < 64; n += 4) {
    const partial = call(SseCrypto.SHA256MSG1, w.slice(n - 16, n - 12), w.slice(n - 12, n - 8));
    const sum = partial.map((value, m) => (value + w[n - 7 + m]) >>> 0);
    w.push(...call(SseCrypto.SHA256MSG2, sum, w.slice(n - 4, n)));
  }
  let abef = [h[5], h[4], h[1], h[0]];
  let cdgh = [h[7], h[6], h[3], h[2]];
  const start = [abef, cdgh];
  for (let n = 0; n < 64; n += 2) {
    u32[VECTOR_Z / 4] = (w[n] + k[n]) >>> 0;
    u32[VECTOR_Z / 4 + 1] = (w[n + 1] + k[n + 1]) >>> 0;
    [abef, cdgh] = [call(SseCrypto.SHA256RNDS2, cdgh, abef), abef];
  }
  const sum = (x: readonly number[], y: readonly number[]): number[] => x.map((value, n) => (value + y[n]) >>> 0);
  const [f, e, b, a] = sum(abef, start[0]);
  const [hh, g, d, c] = sum(cdgh, start[1]);
  const digest = Buffer.alloc(32);
  for (const [n, value] of [a, b, c, d, e, f, g, hh].entries()) digest.writeUInt32BE(value, 4 * n);
  assert.equal(digest.toString('hex'), createHash('sha256').update('abc').digest('hex'));
});

test('string compares: strchr, strspn and strstr by PCMPISTRI', () => {
  const put = (at: number, text: string): void => {
    const bytes = Buffer.alloc(16);
    bytes.write(text, 'latin1');
    for (let n = 0; n < 4; n++) state.u32[VECTOR_X / 4 + at + n] = bytes.readUInt32LE(4 * n);
  };
  const index = (needle: string, text: string, control: number): number => {
    put(0, needle);
    put(OPERAND_Y, text);
    return sseString(state, control, -1, -1) & 0xff;
  };
  assert.equal(index('xyz', 'abcdzef', 0x00), 4);
  assert.equal(index('az09', 'abc5DE', 0x14), 4); // first that is in no range
  assert.equal(index('lo', 'hello, lo', 0x0c), 3);
  assert.equal(index('lo', 'hello, lo', 0x4c), 7);
  assert.equal(index('q', 'hello', 0x00), 16);
});
