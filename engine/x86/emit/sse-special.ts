/** String compares, AES, carry-less multiplication and SHA: operands to the temporaries, a helper, and the result back. */
import type { Value } from '../../ir/builder.ts';
import { VECTOR, VECTOR_X, VECTOR_Y, VECTOR_Z } from '../../memory/vcpu-state.ts';
import { SseCrypto, type SseCryptoName } from '../fpu/sse-crypto.ts';
import { type Emitter, type Instruction, RAX, RCX, RDX } from './context.ts';
import { immediate, readVector, writeVector, zero } from './sse-context.ts';
import { RESULT } from './sse-float-context.ts';

/** Length of an explicit string: the register's magnitude, no more than 16. */
function explicitLength(i: Instruction, register: number): Value {
  const { b } = i;
  const value = b.sext(b.state(register, i.form.size === 64 ? 64 : 32));
  const magnitude = b.select(b.ltS(value, b.i64(0)), b.neg(value), value);
  return b.wrap(b.select(b.ltU(magnitude, b.i64(16)), magnitude, b.i64(16)));
}

const stringCompare =
  (explicit: boolean, index: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const y = readVector(i, 1, true);
    b.setState(VECTOR_X, 128, readVector(i, 0));
    b.setState(VECTOR_Y, 128, y);
    const lengths = explicit ? [explicitLength(i, RAX), explicitLength(i, RDX)] : [b.i32(-1), b.i32(-1)];
    const result = b.call('sse_string', 'i32', immediate(i), ...lengths);
    if (index) i.writeRegister(RCX, 32, b.and(result, b.i32(0xff)));
    else {
      b.setState(VECTOR, 128, b.state(RESULT, 128));
      if (i.form.row.vex) b.setState(VECTOR + 16, 128, zero(b));
    }
    b.putFlags(b.shrU(result, b.i32(8)));
  };

const crypto =
  (name: SseCryptoName): Emitter =>
  (i) => {
    const { b } = i;
    const y = readVector(i, 1);
    b.setState(VECTOR_X, 128, readVector(i, 0));
    b.setState(VECTOR_Y, 128, y);
    // The implicit operand: helpers see no registers, for a region keeps them in locals.
    if (name === 'SHA256RNDS2') b.setState(VECTOR_Z, 128, b.state(VECTOR, 128));
    b.call('sse_crypto', 'i32', b.i32(SseCrypto[name]), i.form.row.operands.length > 2 ? immediate(i) : b.i32(0));
    writeVector(i, 0, b.state(RESULT, 128));
  };

export const sseSpecial: Record<string, Emitter> = {
  PCMPESTRI: stringCompare(true, true),
  PCMPESTRM: stringCompare(true, false),
  PCMPISTRI: stringCompare(false, true),
  PCMPISTRM: stringCompare(false, false),
  ...Object.fromEntries((Object.keys(SseCrypto) as SseCryptoName[]).map((name) => [name, crypto(name)])),
};
