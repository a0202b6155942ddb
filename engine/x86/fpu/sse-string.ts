/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM 2, 4.1). */
import { VECTOR_RESULT, VECTOR_X, VECTOR_Y } from '../../memory/vcpu-state.ts';
import type { SseState } from './sse-float.ts';

const CF = 0x001;
const ZF = 0x040;
const SF = 0x080;
const OF = 0x800;

const X = new Int32Array(16);
const Y = new Int32Array(16);

/** Unpacks the elements of the operand at state word `at` and gives its length: `explicit`, or up to the first zero where that is negative. */
function elements(state: SseState, at: number, control: number, explicit: number, into: Int32Array): number {
  const { u32 } = state;
  const words = (control & 1) !== 0;
  const count = words ? 8 : 16;
  let length = explicit < 0 ? count : Math.min(explicit, count);
  for (let n = 0; n < count; n++) {
    const raw = words ? u32[at + (n >> 1)] >>> (16 * (n & 1)) : u32[at + (n >> 2)] >>> (8 * (n & 3));
    const value = words ? raw & 0xffff : raw & 0xff;
    if (explicit < 0 && value === 0 && n < length) length = n;
    into[n] = (control & 2) === 0 ? value : words ? (value << 16) >> 16 : (value << 24) >> 24;
  }
  return length;
}

/**
 * Compares the string at VECTOR_X (first operand) with that at VECTOR_Y. Lengths are in elements, negative for strings
 * that end at a zero. Gives the index that the I forms want in bits 7:0, and EFLAGS shifted left by 8; the mask that
 * the M forms want is put at VECTOR_RESULT.
 */
export function sseString(state: SseState, control: number, xLength: number, yLength: number): number {
  const { u32 } = state;
  const count = (control & 1) !== 0 ? 8 : 16;
  const xs = elements(state, VECTOR_X / 4, control, xLength, X);
  const ys = elements(state, VECTOR_Y / 4, control, yLength, Y);
  let result = 0;
  for (let j = 0; j < count; j++) {
    let hit = false;
    switch ((control >> 2) & 3) {
      case 0: // equal any
        for (let i = 0; i < xs && j < ys && !hit; i++) hit = X[i] === Y[j];
        break;
      case 1: // ranges: pairs of bounds
        for (let i = 0; i + 1 < xs && j < ys && !hit; i += 2) hit = Y[j] >= X[i] && Y[j] <= X[i + 1];
        break;
      case 2: // equal each
        hit = j < xs && j < ys ? X[j] === Y[j] : j >= xs && j >= ys;
        break;
      default: // equal ordered: does the first string begin here?
        hit = true;
        for (let i = 0; i < xs && i + j < count && hit; i++) hit = i + j < ys && X[i] === Y[i + j];
    }
    if (hit) result |= 1 << j;
  }
  const all = (1 << count) - 1;
  if ((control & 0x30) === 0x10) result ^= all;
  else if ((control & 0x30) === 0x30) result ^= (1 << ys) - 1;

  const flags = (result !== 0 ? CF : 0) | (ys < count ? ZF : 0) | (xs < count ? SF : 0) | ((result & 1) !== 0 ? OF : 0);
  const at = VECTOR_RESULT / 4;
  u32.fill(0, at, at + 4);
  if ((control & 0x40) === 0) u32[at] = result;
  else if (count === 16) for (let n = 0; n < 16; n++) u32[at + (n >> 2)] |= (result >> n) & 1 ? 0xff << (8 * (n & 3)) : 0;
  else for (let n = 0; n < 8; n++) u32[at + (n >> 1)] |= (result >> n) & 1 ? 0xffff << (16 * (n & 1)) : 0;
  let index = count;
  if (result !== 0) index = (control & 0x40) !== 0 ? 31 - Math.clz32(result) : 31 - Math.clz32(result & -result);
  return index | (flags << 8);
}
