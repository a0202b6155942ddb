/**
 * Lazy flags. The arithmetic flags live as the last result (`FLAG_RES`, sign-extended to 64 bits) and an
 * auxiliary word (`FLAG_AUX`) from which each flag is a few operations away, whatever made it:
 *
 *     bit 31  CF                        CF = aux >>> 31
 *     bit 30  CF ^ OF                   OF = (aux + 2^30) >>> 31
 *     bits 15:8  XORed into the low byte of the result before PF is taken
 *     bit 3   AF
 *     bit 0   XORed into the sign of the result to give SF
 *
 * An addition's carries out of each bit give bits 31, 30 and 3 at once. `expandFlags` turns the IR's flag
 * statements into loads, stores and arithmetic on these two; what is not needed was removed before.
 */
import { FLAG_AUX, FLAG_RES } from '../memory/vcpu-state.ts';
import { type Body, Builder, type Condition, type FlagKind, type Size, type Statement, type Value } from './builder.ts';

const CARRY = -0x80000000;
const PARTIAL = 0x40000000;

/** Replaces flag statements, in nested bodies too. Values that flag statements defined are re-pointed to the new ones. */
export function expandFlags(body: Body): Body {
  const out: Body = [];
  for (const statement of body) {
    if (statement.op === 'if') out.push({ ...statement, then: expandFlags(statement.then), else: expandFlags(statement.else) });
    else if (statement.op === 'loop') out.push({ ...statement, body: expandFlags(statement.body) });
    else {
      const expansion = expand(statement);
      if (expansion === undefined) out.push(statement);
      else out.push(...expansion);
    }
  }
  return out;
}

function expand(statement: Statement): Body | undefined {
  const b = new Builder();
  switch (statement.op) {
    case 'flags':
      setFlags(b, statement.kind, statement.bits, statement.args);
      return b.body;
    case 'flags.cfof':
      storeCarryOverflow(b, statement.args[0], statement.args[1]);
      return b.body;
    case 'flags.cf':
      storeCarryOverflow(b, statement.args[0], overflow(b, aux(b)));
      return b.body;
    case 'flags.put':
      putImage(b, statement.args[0]);
      return b.body;
    case 'flags.test':
      redefine(statement.value, condition(b, statement.condition));
      return b.body;
    case 'flags.all':
      redefine(statement.value, image(b));
      return b.body;
    default:
      return undefined;
  }
}

/** Makes `value`, which other statements use, stand for what `result` computes. */
function redefine(value: Value, result: Value): void {
  (value as { by: Statement }).by = result.by;
  (result.by as { value: Value }).value = value;
}

const aux = (b: Builder): Value => b.state(FLAG_AUX, 32);
const res = (b: Builder): Value => b.state(FLAG_RES, 64);

function setFlags(b: Builder, kind: FlagKind, bits: Size, args: readonly Value[]): void {
  const store = (result: Value, auxiliary: Value): void => {
    b.setState(FLAG_RES, 64, b.signed(bits, b.zext(result)));
    b.setState(FLAG_AUX, 32, auxiliary);
  };
  switch (kind) {
    case 'add': {
      const [x, y, r] = args;
      return store(r, carries(b, bits, b.or(b.and(x, y), b.and(b.or(x, y), b.not(r)))));
    }
    case 'sub': {
      const [x, y, r] = args;
      return store(r, carries(b, bits, b.or(b.and(b.not(x), y), b.and(b.not(b.xor(x, y)), r))));
    }
    case 'logic':
      return store(args[0], b.i32(0));
    case 'inc':
    case 'dec': {
      const r = args[1];
      const edge = kind === 'inc' ? -(1n << BigInt(bits - 1)) : (1n << BigInt(bits - 1)) - 1n;
      const of = b.eq(b.signed(bits, r), b.int(bits, edge));
      const af = b.eq(b.and(b.wrap(r), b.i32(15)), b.i32(kind === 'inc' ? 0 : 15));
      const old = aux(b);
      const cf = b.and(old, b.i32(CARRY));
      const partial = b.xor(b.and(b.shrU(old, b.i32(1)), b.i32(PARTIAL)), b.shl(of, b.i32(30)));
      return store(r, b.or(b.or(cf, partial), b.shl(af, b.i32(3))));
    }
    case 'compare': {
      const [x, y] = args;
      const cf = b.eqz(b.op('f64.ge', [x, y]));
      const differ = b.or(b.op('f64.lt', [x, y]), b.op('f64.gt', [x, y]));
      const ordered = b.or(differ, b.op('f64.eq', [x, y]));
      const carry = b.or(b.shl(cf, b.i32(31)), b.shl(cf, b.i32(30)));
      b.setState(FLAG_RES, 64, b.zext(differ));
      // The result is 0 or 1, so its own parity is even or odd; the delta corrects it.
      b.setState(FLAG_AUX, 32, b.or(carry, b.shl(b.xor(ordered, differ), b.i32(8))));
      return;
    }
    case 'result': {
      const [r, cf, of] = args;
      return store(r, b.or(b.shl(cf, b.i32(31)), b.shl(b.xor(cf, of), b.i32(30))));
    }
  }
}

/** The auxiliary word from the vector of carries out of each bit. */
function carries(b: Builder, bits: Size, vector: Value): Value {
  const mask = b.i32(CARRY | PARTIAL);
  if (bits === 32) return b.and(vector, b.i32(CARRY | PARTIAL | 8));
  const top = bits === 64 ? b.wrap(b.shrU(vector, b.i64(32))) : b.shl(vector, b.i32(32 - bits));
  return b.or(b.and(top, mask), b.and(b.wrap(vector), b.i32(8)));
}

const overflow = (b: Builder, a: Value): Value => b.shrU(b.add(a, b.i32(PARTIAL)), b.i32(31));

function storeCarryOverflow(b: Builder, cf: Value, of: Value): void {
  const kept = b.and(aux(b), b.i32(PARTIAL - 1));
  b.setState(FLAG_AUX, 32, b.or(kept, b.or(b.shl(cf, b.i32(31)), b.shl(b.xor(cf, of), b.i32(30)))));
}

function putImage(b: Builder, flags: Value): void {
  const bit = (at: number): Value => b.and(b.shrU(flags, b.i32(at)), b.i32(1));
  const cf = bit(0);
  const zf = bit(6);
  const notZero = b.xor(zf, b.i32(1));
  // The result is 0 or 1, so its own parity is even or odd; the delta corrects it.
  const delta = b.xor(b.xor(bit(2), b.i32(1)), notZero);
  const word = b.or(
    b.or(b.shl(cf, b.i32(31)), b.shl(b.xor(cf, bit(11)), b.i32(30))),
    b.or(b.or(b.shl(delta, b.i32(8)), b.shl(bit(4), b.i32(3))), bit(7)),
  );
  b.setState(FLAG_RES, 64, b.zext(notZero));
  b.setState(FLAG_AUX, 32, word);
}

function image(b: Builder): Value {
  const a = aux(b);
  const r = res(b);
  const place = (value: Value, at: number): Value => b.shl(value, b.i32(at));
  return b.or(
    b.or(b.or(b.shrU(a, b.i32(31)), place(parity(b, a, r), 2)), b.or(b.and(place(a, 1), b.i32(0x10)), place(b.eqz(r), 6))),
    b.or(place(sign(b, a, r), 7), place(overflow(b, a), 11)),
  );
}

const parity = (b: Builder, a: Value, r: Value): Value => {
  const low = b.and(b.xor(b.wrap(r), b.shrU(a, b.i32(8))), b.i32(0xff));
  return b.xor(b.and(b.op('i32.popcnt', [low]), b.i32(1)), b.i32(1));
};
const sign = (b: Builder, a: Value, r: Value): Value => b.xor(b.wrap(b.shrU(r, b.i64(63))), b.and(a, b.i32(1)));

/** What made the flags, where that is known at compile time. */
export interface FlagSource {
  readonly kind: FlagKind;
  readonly bits: Size;
  readonly args: readonly Value[];
}

/** A condition straight from the operation that made the flags; undefined where the general way is no worse. */
export function conditionOf(b: Builder, code: Condition, source: FlagSource): Value | undefined {
  const { kind, bits, args } = source;
  const negate = (code & 1) !== 0;
  const finish = (value: Value): Value => (negate ? b.xor(value, b.i32(1)) : value);
  if (kind === 'compare') return orderOf(b, code, args[0], args[1]);
  const zero = (value: Value): Value => b.eqz(bits < 32 ? b.unsigned(bits, value) : value);
  const negative = (value: Value): Value => b.ltS(b.signed(bits, value), b.int(bits, 0));
  const result = kind === 'sub' || kind === 'add' ? args[2] : kind === 'inc' || kind === 'dec' ? args[1] : args[0];
  const group = code >> 1;
  if (group === 2) return negate ? b.xor(zero(result), b.i32(1)) : zero(result);
  if (group === 4) return finish(negative(result));
  if (group === 5) {
    const low = b.and(b.wrap(result), b.i32(0xff));
    return finish(b.xor(b.and(b.op('i32.popcnt', [low]), b.i32(1)), b.i32(1)));
  }
  if (kind === 'logic') {
    if (group === 0 || group === 1) return b.i32(negate ? 1 : 0);
    if (group === 3) return finish(zero(result));
    if (group === 6) return finish(negative(result));
    return finish(b.or(zero(result), negative(result)));
  }
  if (kind === 'sub') {
    const [x, y] = args;
    const type = x.type;
    // Without a borrow into it a subtraction compares; SBB's result differs from x - y.
    if (y.type !== type || !isDifference(source)) return undefined;
    const u = (value: Value): Value => (bits < 32 ? b.unsigned(bits, value) : value);
    const s = (value: Value): Value => b.signed(bits, value);
    if (group === 1) return b.op(`${type}.${negate ? 'ge_u' : 'lt_u'}`, [u(x), u(y)]);
    if (group === 3) return b.op(`${type}.${negate ? 'gt_u' : 'le_u'}`, [u(x), u(y)]);
    if (group === 6) return b.op(`${type}.${negate ? 'ge_s' : 'lt_s'}`, [s(x), s(y)]);
    if (group === 7) return b.op(`${type}.${negate ? 'gt_s' : 'le_s'}`, [s(x), s(y)]);
  }
  return undefined;
}

/** A condition after a comparison of two doubles: ZF, PF and CF are all set where they are unordered. */
function orderOf(b: Builder, code: Condition, x: Value, y: Value): Value {
  const negate = (code & 1) !== 0;
  const is = (verb: string): Value => b.op(`f64.${verb}`, [x, y]);
  switch (code >> 1) {
    case 1:
      return negate ? is('ge') : b.eqz(is('ge'));
    case 2:
    case 7: {
      const differ = b.or(is('lt'), is('gt'));
      return negate ? differ : b.eqz(differ);
    }
    case 3:
      return negate ? is('gt') : b.eqz(is('gt'));
    case 5: {
      const unordered = b.or(b.op('f64.ne', [x, x]), b.op('f64.ne', [y, y]));
      return negate ? b.eqz(unordered) : unordered;
    }
    default:
      return b.i32(negate ? 1 : 0);
  }
}

/** True where the result is the plain difference of the two operands. */
function isDifference({ args: [x, y, r] }: FlagSource): boolean {
  const { by } = r;
  return by.op === 'pure' && by.pure.name.endsWith('.sub') && by.args[0] === x && by.args[1] === y;
}

/** The value (0 or 1) of a condition. */
function condition(b: Builder, code: Condition): Value {
  const negate = (code & 1) !== 0;
  const finish = (value: Value): Value => (negate ? b.xor(value, b.i32(1)) : value);
  switch (code >> 1) {
    case 0:
      return finish(overflow(b, aux(b)));
    case 1:
      return finish(b.shrU(aux(b), b.i32(31)));
    case 2:
      return negate ? b.ne(res(b), b.i64(0)) : b.eqz(res(b));
    case 3:
      return finish(b.or(b.shrU(aux(b), b.i32(31)), b.eqz(res(b))));
    case 4:
      return finish(sign(b, aux(b), res(b)));
    case 5:
      return finish(parity(b, aux(b), res(b)));
    case 6: {
      const a = aux(b);
      return finish(b.xor(sign(b, a, res(b)), overflow(b, a)));
    }
    default: {
      const a = aux(b);
      const r = res(b);
      return finish(b.or(b.eqz(r), b.xor(sign(b, a, r), overflow(b, a))));
    }
  }
}
