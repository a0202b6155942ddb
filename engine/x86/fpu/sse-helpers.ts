/** The helpers that translated vector instructions call, by the names they are imported under. */
import { sseCrypto } from './sse-crypto.ts';
import { sseFloat, sseState } from './sse-float.ts';
import { sseString } from './sse-string.ts';

/** For the vCPU whose state block lies at byte `state` of `buffer`. Every helper gets the record's address first. */
export function sseHelpers(buffer: ArrayBufferLike, state: number) {
  const views = sseState(buffer, state);
  return {
    /** (operation, imm): 1 where a SIMD floating-point exception must be raised. */
    sse_float: (_rec: number, operation: number, imm: number): number => sseFloat(views, operation, imm),
    /** (control, length, length): index, and flags shifted by 8. */
    sse_string: (_rec: number, control: number, x: number, y: number): number => sseString(views, control, x, y),
    /** (operation, imm): 0. */
    sse_crypto: (_rec: number, operation: number, imm: number): number => sseCrypto(views, operation, imm),
  };
}
