/** Shifts, rotates and bit operations (SDM 1, 7.3.5 and 7.3.6). */
import type { Builder, Size, Value } from '../../ir/builder.ts';
import type { Emitter, Instruction } from './context.ts';
import { partOf } from './parts.ts';

/** The count operand, masked to 5 or 6 bits, as i32. */
function count(i: Instruction, n = 1): Value {
  const { b } = i;
  return b.and(i.read(n), b.i32(i.size(0) === 64 ? 63 : 31));
}

interface Shifted {
  result: Value;
  cf: Value;
  of: Value;
}

/** Does a shift whose flags change only for a count that is not zero. Values are computed without a branch. */
function shift(i: Instruction, compute: (x: Value, c: Value) => Shifted, all: boolean): void {
  const { b } = i;
  const bits = i.size();
  const c = count(i);
  let shifted: Shifted | undefined;
  i.modify(0, (x) => {
    shifted = compute(x, c);
    return shifted.result;
  });
  const { result, cf, of } = shifted as Shifted;
  b.if(c, () => {
    if (all) b.flags('result', bits, result, cf, of);
    else b.setCarryOverflow(cf, of);
  });
}

const one = (b: Builder, value: Value): Value => b.and(b.wrap(value), b.i32(1));
/** Bit `size - 1` of a value, as i32. */
const top = (b: Builder, bits: Size, value: Value): Value =>
  bits === 64 ? b.wrap(b.shrU(value, b.i64(63))) : b.and(b.shrU(value, b.i32(bits - 1)), b.i32(1));
const like = (b: Builder, bits: Size, c: Value): Value => (bits === 64 ? b.zext(c) : c);

function shl(b: Builder, bits: Size, x: Value, c: Value): Shifted {
  if (bits === 64) {
    const result = b.shl(x, b.zext(c));
    const cf = one(b, b.shrU(x, b.zext(b.sub(b.i32(64), c))));
    return { result, cf, of: b.xor(top(b, 64, result), cf) };
  }
  const wide = b.shl(b.zext(x), b.zext(c));
  const result = b.wrap(wide);
  const cf = one(b, b.shrU(wide, b.i64(bits)));
  return { result, cf, of: b.xor(top(b, bits, result), cf) };
}

function shr(b: Builder, bits: Size, x: Value, c: Value): Shifted {
  const cf = one(b, b.shrU(x, like(b, bits, b.sub(c, b.i32(1)))));
  return { result: b.shrU(x, like(b, bits, c)), cf, of: top(b, bits, x) };
}

function sar(b: Builder, bits: Size, x: Value, c: Value): Shifted {
  const sx = b.signed(bits, x);
  const cf = one(b, b.shrS(sx, like(b, bits, b.sub(c, b.i32(1)))));
  return { result: b.shrS(sx, like(b, bits, c)), cf, of: b.i32(0) };
}

function rotateLeft(b: Builder, bits: Size, x: Value, c: Value): Shifted {
  let result: Value;
  if (bits >= 32) result = b.rotl(x, like(b, bits, c));
  else {
    const k = b.and(c, b.i32(bits - 1));
    result = b.unsigned(bits, b.or(b.shl(x, k), b.shrU(x, b.sub(b.i32(bits), k))));
  }
  const cf = one(b, result);
  return { result, cf, of: b.xor(top(b, bits, result), cf) };
}

function rotateRight(b: Builder, bits: Size, x: Value, c: Value): Shifted {
  let result: Value;
  if (bits >= 32) result = b.rotr(x, like(b, bits, c));
  else {
    const k = b.and(c, b.i32(bits - 1));
    result = b.unsigned(bits, b.or(b.shrU(x, k), b.shl(x, b.sub(b.i32(bits), k))));
  }
  const cf = top(b, bits, result);
  return { result, cf, of: b.xor(cf, one(b, bits === 64 ? b.shrU(result, b.i64(62)) : b.shrU(result, b.i32(bits - 2)))) };
}

/** RCL and RCR: a rotation of size + 1 bits, CF on top. */
function throughCarry(left: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const c = count(i);
    const carry = b.zext(b.test(2));
    if (bits === 64) {
      let cf: Value | undefined;
      let of: Value | undefined;
      i.modify(0, (x) => {
        const k = b.zext(c);
        const k1 = b.sub(b.i64(64), k);
        // Shifts by 65 - k are done as two, so that k = 1 gives zero.
        const result = left
          ? b.or(b.or(b.shl(x, k), b.shrU(b.shl(carry, k), b.i64(1))), b.shrU(b.shrU(x, k1), b.i64(1)))
          : b.or(b.or(b.shrU(x, k), b.shl(carry, k1)), b.shl(b.shl(x, k1), b.i64(1)));
        // shl(carry, k) for left: the carry lands at bit k - 1; k is at least 1 here.
        cf = one(b, b.shrU(x, left ? k1 : b.sub(k, b.i64(1))));
        of = left ? b.xor(top(b, 64, result), cf) : b.xor(top(b, 64, result), one(b, b.shrU(result, b.i64(62))));
        return b.select(c, result, x);
      });
      b.if(c, () => b.setCarryOverflow(cf as Value, of as Value));
      return;
    }
    const width = bits + 1;
    const k = bits === 32 ? c : b.op('i32.rem_u', [c, b.i32(width)]);
    let cf: Value | undefined;
    let of: Value | undefined;
    i.modify(0, (x) => {
      const v = b.or(b.zext(x), b.shl(carry, b.i64(bits)));
      const wideK = b.zext(k);
      const rest = b.zext(b.sub(b.i32(width), k));
      const turned = left ? b.or(b.shl(v, wideK), b.shrU(v, rest)) : b.or(b.shrU(v, wideK), b.shl(v, rest));
      const result = b.wrap(turned);
      cf = one(b, b.shrU(turned, b.i64(bits)));
      of = left ? b.xor(top(b, bits, result), cf) : b.xor(top(b, bits, result), b.and(b.shrU(result, b.i32(bits - 2)), b.i32(1)));
      return result;
    });
    b.if(c, () => b.setCarryOverflow(cf as Value, of as Value));
  };
}

/** SHLD and SHRD. With a 16-bit operand a count above 16 is undefined; here it shifts on into the source. */
function double(left: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const c = count(i, 2);
    const y = i.read(1);
    let shifted: Shifted | undefined;
    i.modify(0, (x) => {
      shifted = left ? doubleLeft(b, bits, x, y, c) : doubleRight(b, bits, x, y, c);
      return b.select(c, shifted.result, x);
    });
    const { result, cf, of } = shifted as Shifted;
    b.if(c, () => b.flags('result', bits, result, cf, of));
  };
}

function doubleLeft(b: Builder, bits: Size, x: Value, y: Value, c: Value): Shifted {
  let result: Value;
  let cf: Value;
  if (bits === 64) {
    const k = b.zext(c);
    const rest = b.sub(b.i64(64), k);
    result = b.or(b.shl(x, k), b.shrU(y, rest));
    cf = one(b, b.shrU(x, rest));
  } else if (bits === 32) {
    const joined = b.or(b.shl(b.zext(x), b.i64(32)), b.zext(y));
    result = b.wrap(b.shrU(b.shl(joined, b.zext(c)), b.i64(32)));
    cf = one(b, b.shrU(x, b.sub(b.i32(32), c)));
  } else {
    // x : y : x, so that counts of 17 to 31 go on as hardware's do.
    const joined = b.or(b.or(b.shl(b.zext(x), b.i64(32)), b.shl(b.zext(y), b.i64(16))), b.zext(x));
    const moved = b.shl(joined, b.zext(c));
    result = b.unsigned(16, b.wrap(b.shrU(moved, b.i64(32))));
    cf = one(b, b.shrU(moved, b.i64(48)));
  }
  return { result, cf, of: b.xor(top(b, bits, result), top(b, bits, x)) };
}

function doubleRight(b: Builder, bits: Size, x: Value, y: Value, c: Value): Shifted {
  let result: Value;
  let cf: Value;
  if (bits === 64) {
    const k = b.zext(c);
    result = b.or(b.shrU(x, k), b.shl(y, b.sub(b.i64(64), k)));
    cf = one(b, b.shrU(x, b.sub(k, b.i64(1))));
  } else {
    const joined =
      bits === 32
        ? b.or(b.shl(b.zext(y), b.i64(32)), b.zext(x))
        : b.or(b.or(b.shl(b.zext(x), b.i64(32)), b.shl(b.zext(y), b.i64(16))), b.zext(x));
    result = b.wrap(b.shrU(joined, b.zext(c)));
    if (bits === 16) result = b.unsigned(16, result);
    cf = one(b, b.shrU(joined, b.zext(b.sub(c, b.i32(1)))));
  }
  return { result, cf, of: b.xor(top(b, bits, result), top(b, bits, x)) };
}

/** BT, BTS, BTR, BTC. A register bit offset reaches beyond the operand in memory. */
function bitTest(verb: 'or' | 'xor' | 'and' | undefined): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const given = i.read(1);
    const offset = bits === 64 ? b.zext(given) : given;
    const mask = b.int(bits, bits - 1);
    const bit = b.and(offset, mask);
    const single = b.shl(b.int(bits, 1), bit);
    const operand = verb === 'and' ? b.not(single) : single;
    const compute = (x: Value): Value => (verb === undefined ? x : b[verb](x, operand));
    const report = (old: Value): void => b.setCarry(one(b, b.shrU(old, bit)));
    if (!i.isMemory(0) || i.form.row.operands[1].kind === 'I') {
      if (verb === undefined) report(i.read(0));
      else report(i.modify(0, compute, { kind: verb, operand }).old);
      return;
    }
    const words = b.shrS(b.sext(b.signed(bits, offset)), b.i64(Math.log2(bits)));
    const distance = b.mul(words, b.i64(bits / 8));
    const address = partOf(i, distance, bits / 8, verb !== undefined);
    if (verb === undefined) {
      report(b.load(bits, address));
      return;
    }
    const token = b.rmwBegin(bits, address, i.form.lock);
    if (i.form.lock) {
      const old = b.rmwAtomic(verb, bits, token, operand);
      b.rmwEnd(bits, token);
      report(old);
    } else {
      const old = b.rmwLoad(bits, token);
      b.rmwStore(bits, token, compute(old));
      b.rmwEnd(bits, token);
      report(old);
    }
  };
}

/** BSF and BSR: the destination keeps its value for a zero source (as hardware does). */
function bitScan(forward: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const x = i.read(1);
    const type = bits === 64 ? 'i64' : 'i32';
    b.flags('logic', bits, x);
    b.if(b.ne(x, b.int(bits, 0)), () => {
      const found = forward ? b.op(`${type}.ctz`, [x]) : b.sub(b.int(bits, bits === 64 ? 63 : 31), b.op(`${type}.clz`, [x]));
      i.write(0, found);
    });
  };
}

export const shifts: Record<string, Emitter> = {
  SHL: (i) => shift(i, (x, c) => shl(i.b, i.size(), x, c), true),
  SHR: (i) => shift(i, (x, c) => shr(i.b, i.size(), x, c), true),
  SAR: (i) => shift(i, (x, c) => sar(i.b, i.size(), x, c), true),
  ROL: (i) => shift(i, (x, c) => rotateLeft(i.b, i.size(), x, c), false),
  ROR: (i) => shift(i, (x, c) => rotateRight(i.b, i.size(), x, c), false),
  RCL: throughCarry(true),
  RCR: throughCarry(false),
  SHLD: double(true),
  SHRD: double(false),
  BT: bitTest(undefined),
  BTS: bitTest('or'),
  BTR: bitTest('and'),
  BTC: bitTest('xor'),
  BSF: bitScan(true),
  BSR: bitScan(false),
  POPCNT(i) {
    const { b } = i;
    const bits = i.size();
    const x = i.read(1);
    i.write(0, b.op(bits === 64 ? 'i64.popcnt' : 'i32.popcnt', [x]));
    b.flags('logic', bits, x);
    // Only ZF survives: SF, PF and the rest are cleared.
    b.putFlags(b.and(b.allFlags(), b.i32(0x40)));
  },
};
