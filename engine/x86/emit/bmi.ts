/** BMI1, BMI2, LZCNT, TZCNT, RDPID, INVPCID (SDM 1, 5.1.16; SDM 2 for each). */
import type { Size, Value } from '../../ir/builder.ts';
import { TEMP } from '../../memory/vcpu-state.ts';
import { mulHighU } from './arithmetic.ts';
import { type Emitter, type Instruction, RDX } from './context.ts';

/** Sets all six flags: SF and ZF from the result, CF as given, OF and AF clear; PF is undefined and follows the result. */
function flags(i: Instruction, bits: Size, result: Value, cf: Value): void {
  i.b.flags('result', bits, result, cf, i.b.i32(0));
}

/** A shift by a register without flags; the count is masked to the width. */
const shiftBy =
  (verb: 'shl' | 'shrU' | 'shrS'): Emitter =>
  (i) => {
    const x = i.read(1);
    i.write(0, i.b[verb](x, i.read(2)));
  };

/** BLSR, BLSMSK, BLSI: `compute` of the source and the source less one (or its negation). */
const lowest =
  (compute: (i: Instruction, x: Value) => Value, carry: (i: Instruction, x: Value) => Value): Emitter =>
  (i) => {
    const x = i.read(1);
    const result = compute(i, x);
    const cf = carry(i, x);
    i.write(0, result);
    flags(i, i.size(0), result, cf);
  };
const isZero = (i: Instruction, x: Value): Value => i.b.eqz(x);
const isNotZero = (i: Instruction, x: Value): Value => i.b.eqz(i.b.eqz(x));
const less = (i: Instruction, x: Value): Value => i.b.sub(x, i.b.int(i.size(0), 1));

const counted =
  (name: 'pdep' | 'pext'): Emitter =>
  (i) => {
    const { b } = i;
    const mask = i.read(2);
    b.call(name, 'i32', b.zext(i.read(1)), b.zext(mask));
    i.write(0, b.state(TEMP, i.size(0) === 64 ? 64 : 32));
  };

/** LZCNT and TZCNT: the width for a source of zero. CF: it was zero; ZF: the result is. */
const zeros =
  (leading: boolean): Emitter =>
  (i) => {
    const { b } = i;
    const bits = i.size(0);
    const x = i.read(1);
    const type = bits === 64 ? 'i64' : 'i32';
    let result: Value;
    if (leading) {
      result = b.op(`${type}.clz`, [x]);
      if (bits === 16) result = b.sub(result, b.i32(16));
    } else result = b.op(`${type}.ctz`, [bits === 16 ? b.or(x, b.i32(0x10000)) : x]);
    const none = b.eqz(x);
    i.write(0, result);
    flags(i, bits, result, none);
  };

export const bmi: Record<string, Emitter> = {
  TZCNT: zeros(false),
  LZCNT: zeros(true),
  ANDN(i) {
    const { b } = i;
    const y = i.read(2);
    const result = b.and(b.not(i.read(1)), y);
    i.write(0, result);
    flags(i, i.size(0), result, b.i32(0));
  },
  BLSR: lowest((i, x) => i.b.and(x, less(i, x)), isZero),
  BLSMSK: lowest((i, x) => i.b.xor(x, less(i, x)), isZero),
  BLSI: lowest((i, x) => i.b.and(x, i.b.neg(x)), isNotZero),
  /** Bits 7:0 of the control are the start, 15:8 the length. */
  BEXTR(i) {
    const { b } = i;
    const bits = i.size(0);
    const x = i.read(1);
    const control = b.wrap(i.read(2));
    const start = b.and(control, b.i32(0xff));
    const length = b.and(b.shrU(control, b.i32(8)), b.i32(0xff));
    const none = b.int(bits, 0);
    const like = (value: Value): Value => (bits === 64 ? b.zext(value) : value);
    const moved = b.select(b.ltU(start, b.i32(bits)), b.shrU(x, like(start)), none);
    const mask = b.sub(b.shl(b.int(bits, 1), like(length)), b.int(bits, 1));
    const result = b.select(b.ltU(length, b.i32(bits)), b.and(moved, mask), moved);
    i.write(0, result);
    flags(i, bits, result, b.i32(0));
  },
  BZHI(i) {
    const { b } = i;
    const bits = i.size(0);
    const x = i.read(1);
    const index = b.and(b.wrap(i.read(2)), b.i32(0xff));
    const like = (value: Value): Value => (bits === 64 ? b.zext(value) : value);
    const mask = b.sub(b.shl(b.int(bits, 1), like(index)), b.int(bits, 1));
    const fits = b.ltU(index, b.i32(bits));
    const result = b.select(fits, b.and(x, mask), x);
    i.write(0, result);
    flags(i, bits, result, b.eqz(fits));
  },
  PDEP: counted('pdep'),
  PEXT: counted('pext'),
  SHLX: shiftBy('shl'),
  SHRX: shiftBy('shrU'),
  SARX: shiftBy('shrS'),
  RORX(i) {
    const x = i.read(1);
    const count = i.b.field('imm');
    i.write(0, i.b.rotr(x, i.size(0) === 64 ? i.b.zext(count) : count));
  },
  /** rDX times the source: the low half to VEX.vvvv, the high half to the destination, which wins where they are one. */
  MULX(i) {
    const { b } = i;
    const bits = i.size(0) as 32 | 64;
    const y = i.read(2);
    const x = b.state(RDX, bits);
    if (bits === 64) {
      const high = mulHighU(b, x, y);
      i.write(1, b.mul(x, y));
      i.write(0, high);
      return;
    }
    const product = b.mul(b.zext(x), b.zext(y));
    i.write(1, b.wrap(product));
    i.write(0, b.wrap(b.shrU(product, b.i64(32))));
  },
  RDPID(i) {
    const { b } = i;
    b.leave('rdpid');
    const value = b.state(TEMP, 32);
    i.write(0, i.size(0) === 64 ? b.zext(value) : value);
  },
  INVPCID(i) {
    const { b } = i;
    b.leave('invpcid', b.zext(i.read(0)), i.address());
  },
};
