/** Binary and decimal arithmetic, logic (SDM 1, 7.3.2 to 7.3.4; SDM 2 for each). */
import type { Builder, Size, Value } from '../../ir/builder.ts';
import { type Emitter, type Instruction, RAX, RDX, Vector } from './context.ts';

const carry = (i: Instruction, bits: Size): Value => {
  const cf = i.b.test(2);
  return bits === 64 ? i.b.zext(cf) : cf;
};

/** The high 64 bits of an unsigned 64 by 64 product. */
export function mulHighU(b: Builder, x: Value, y: Value): Value {
  const mask = b.i64(0xffffffff);
  const c32 = b.i64(32);
  const [x0, x1, y0, y1] = [b.and(x, mask), b.shrU(x, c32), b.and(y, mask), b.shrU(y, c32)];
  const low = b.shrU(b.mul(x0, y0), c32);
  const middle = b.add(b.mul(x1, y0), low);
  const middle2 = b.add(b.mul(x0, y1), b.and(middle, mask));
  return b.add(b.add(b.mul(x1, y1), b.shrU(middle, c32)), b.shrU(middle2, c32));
}

/** The high 64 bits of a signed product. */
export function mulHighS(b: Builder, x: Value, y: Value): Value {
  const c63 = b.i64(63);
  const high = mulHighU(b, x, y);
  return b.sub(b.sub(high, b.and(b.shrS(x, c63), y)), b.and(b.shrS(y, c63), x));
}

function imul(i: Instruction, target: number, x: Value, y: Value): void {
  const { b } = i;
  const bits = i.size(target);
  if (bits === 64) {
    const low = b.mul(x, y);
    const overflow = b.ne(mulHighS(b, x, y), b.shrS(low, b.i64(63)));
    i.write(target, low);
    b.flags('result', 64, low, overflow, overflow);
    return;
  }
  const wide = b.mul(b.sext(b.signed(bits, x)), b.sext(b.signed(bits, y)));
  const overflow = b.ne(wide, b.signed(bits, wide));
  const low = b.wrap(wide);
  i.write(target, low);
  b.flags('result', bits, low, overflow, overflow);
}

/** MUL and IMUL of the accumulator. */
function multiply(signed: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const x = b.state(RAX, bits);
    const y = i.read(0);
    if (bits === 64) {
      const low = b.mul(x, y);
      const high = signed ? mulHighS(b, x, y) : mulHighU(b, x, y);
      const overflow = signed ? b.ne(high, b.shrS(low, b.i64(63))) : b.ne(high, b.i64(0));
      b.setState(RAX, 64, low);
      b.setState(RDX, 64, high);
      b.flags('result', 64, low, overflow, overflow);
      return;
    }
    const widen = (value: Value): Value => (signed ? b.sext(b.signed(bits, value)) : b.zext(value));
    const product = b.mul(widen(x), widen(y));
    const overflow = signed ? b.ne(product, b.signed(bits, product)) : b.ne(b.shrU(product, b.i64(bits)), b.i64(0));
    if (bits === 8) b.setState(RAX, 16, b.wrap(product));
    else {
      i.writeRegister(RAX, bits, b.wrap(product));
      i.writeRegister(RDX, bits, b.wrap(b.shrU(product, b.i64(bits))));
    }
    b.flags('result', bits, b.wrap(product), overflow, overflow);
  };
}

function divide(signed: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const bits = i.size();
    const divisor = i.read(0);
    b.if(b.eqz(divisor), () => b.raise(Vector.DE));
    if (bits === 64) {
      const low = b.state(RAX, 64);
      const high = b.state(RDX, 64);
      const narrow = signed ? b.and(b.eq(high, b.shrS(low, b.i64(63))), b.ne(divisor, b.i64(-1))) : b.eqz(high);
      b.if(
        narrow,
        () => {
          const quotient = b.op(signed ? 'i64.div_s' : 'i64.div_u', [low, divisor]);
          b.setState(RDX, 64, b.sub(low, b.mul(quotient, divisor)));
          b.setState(RAX, 64, quotient);
        },
        () => b.leave(signed ? 'idiv128' : 'div128', divisor),
      );
      return;
    }
    const wide = (value: Value): Value => (signed ? b.sext(b.signed(bits, value)) : b.zext(value));
    let dividend: Value;
    if (bits === 8) dividend = signed ? b.sext(b.signed(16, b.state(RAX, 16))) : b.zext(b.state(RAX, 16));
    else {
      const joined = b.or(b.zext(b.state(RAX, bits)), b.shl(b.zext(b.state(RDX, bits)), b.i64(bits)));
      dividend = bits === 16 && signed ? b.signed(32, joined) : joined;
    }
    const d = wide(divisor);
    if (signed) b.if(b.and(b.eq(dividend, b.i64(-(1n << 63n))), b.eq(d, b.i64(-1))), () => b.raise(Vector.DE));
    const quotient = b.op(signed ? 'i64.div_s' : 'i64.div_u', [dividend, d]);
    const fits = signed ? b.eq(quotient, b.signed(bits, quotient)) : b.eqz(b.shrU(quotient, b.i64(bits)));
    b.if(b.eqz(fits), () => b.raise(Vector.DE));
    const remainder = b.sub(dividend, b.mul(quotient, d));
    if (bits === 8) {
      b.setState(RAX, 16, b.or(b.and(b.wrap(quotient), b.i32(0xff)), b.shl(b.wrap(remainder), b.i32(8))));
    } else {
      i.writeRegister(RAX, bits, b.wrap(quotient));
      i.writeRegister(RDX, bits, b.wrap(remainder));
    }
  };
}

/** XOR or SUB of a register with itself, and the like, need no special case: the passes see to it. */
const binary =
  (kind: 'add' | 'sub' | 'logic', verb: 'add' | 'sub' | 'and' | 'or' | 'xor'): Emitter =>
  (i) => {
    const { b } = i;
    const y = i.read(1);
    const { old, result } = i.modify(0, (x) => b[verb](x, y), { kind: verb, operand: y });
    if (kind === 'logic') b.flags('logic', i.size(), result);
    else b.flags(kind, i.size(), old, y, result);
  };

/** CMPXCHG16B. Without LOCK nobody but this vCPU is kept out, and nothing of the host's is needed for that. */
function compareAndExchange16(i: Instruction): void {
  const { b } = i;
  const address = i.address();
  b.if(b.ne(b.and(b.wrap(address), b.i32(15)), b.i32(0)), () => b.raise(Vector.GP));
  if (i.form.lock) {
    b.leave('cmpxchg16b', address);
    return;
  }
  // It is written to in any case: where that faults, this does.
  const token = b.rmwBegin(64, address, false);
  const low = b.rmwLoad(64, token);
  b.rmwStore(64, token, low);
  b.rmwEnd(64, token);
  const above = b.add(address, b.i64(8));
  const high = b.load(64, above);
  const equal = b.and(b.eq(low, b.state(RAX, 64)), b.eq(high, b.state(RDX, 64)));
  b.putFlags(b.or(b.and(b.allFlags(), b.i32(~0x40)), b.shl(equal, b.i32(6))));
  b.if(
    equal,
    () => {
      b.store(64, address, b.state(RAX + 24, 64));
      b.store(64, above, b.state(RAX + 8, 64));
    },
    () => {
      i.writeRegister(RAX, 64, low);
      i.writeRegister(RDX, 64, high);
    },
  );
}

export const arithmetic: Record<string, Emitter> = {
  ADD: binary('add', 'add'),
  SUB: binary('sub', 'sub'),
  AND: binary('logic', 'and'),
  OR: binary('logic', 'or'),
  XOR: binary('logic', 'xor'),
  ADC(i) {
    const { b } = i;
    const y = i.read(1);
    const cf = carry(i, i.size());
    const { old, result } = i.modify(0, (x) => b.add(b.add(x, y), cf));
    b.flags('add', i.size(), old, y, result);
  },
  SBB(i) {
    const { b } = i;
    const y = i.read(1);
    const cf = carry(i, i.size());
    const { old, result } = i.modify(0, (x) => b.sub(b.sub(x, y), cf));
    b.flags('sub', i.size(), old, y, result);
  },
  CMP(i) {
    const { b } = i;
    const x = i.read(0);
    const y = i.read(1);
    b.flags('sub', i.size(), x, y, b.sub(x, y));
  },
  TEST(i) {
    const { b } = i;
    b.flags('logic', i.size(), b.and(i.read(0), i.read(1)));
  },
  INC(i) {
    const { b } = i;
    const one = b.int(i.size(), 1);
    const { old, result } = i.modify(0, (x) => b.add(x, one), { kind: 'add', operand: one });
    b.flags('inc', i.size(), old, result);
  },
  DEC(i) {
    const { b } = i;
    const one = b.int(i.size(), 1);
    const { old, result } = i.modify(0, (x) => b.sub(x, one), { kind: 'sub', operand: one });
    b.flags('dec', i.size(), old, result);
  },
  NOT(i) {
    const { b } = i;
    i.modify(0, (x) => b.not(x), { kind: 'xor', operand: b.int(i.size(), -1) });
  },
  NEG(i) {
    const { b } = i;
    const { old, result } = i.modify(0, (x) => b.neg(x));
    b.flags('sub', i.size(), b.int(i.size(), 0), old, result);
  },
  XADD(i) {
    const { b } = i;
    const y = i.read(1);
    // The source takes the old value first: with equal registers the sum is what remains (SDM 2, XADD).
    if (i.isMemory(0)) {
      const { old, result } = i.modify(0, (x) => b.add(x, y), { kind: 'add', operand: y });
      i.write(1, old);
      b.flags('add', i.size(), old, y, result);
    } else {
      const old = i.read(0);
      const result = b.add(old, y);
      i.write(1, old);
      i.write(0, result);
      b.flags('add', i.size(), old, y, result);
    }
  },
  CMPXCHG(i) {
    const { b } = i;
    const bits = i.size();
    const accumulator = b.state(RAX, bits);
    const y = i.read(1);
    if (i.isMemory(0)) {
      const token = b.rmwBegin(bits, i.address(), i.form.lock);
      const old = i.form.lock ? b.rmwAtomic('cmpxchg', bits, token, accumulator, y) : b.rmwLoad(bits, token);
      if (!i.form.lock) b.rmwStore(bits, token, b.select(b.eq(old, accumulator), y, old));
      b.rmwEnd(bits, token);
      b.flags('sub', bits, accumulator, old, b.sub(accumulator, old));
      b.if(b.ne(old, accumulator), () => i.writeRegister(RAX, bits, old));
      return;
    }
    const old = i.read(0);
    b.flags('sub', bits, accumulator, old, b.sub(accumulator, old));
    b.if(
      b.eq(old, accumulator),
      () => i.write(0, y),
      () => i.writeRegister(RAX, bits, old),
    );
  },
  CMPXCHG8B(i) {
    const { b } = i;
    if (i.form.size === 64) {
      compareAndExchange16(i);
      return;
    }
    const join = (low: number, high: number): Value =>
      b.or(b.zext(b.state(low, 32)), b.shl(b.zext(b.state(high, 32)), b.i64(32)));
    const expected = join(RAX, RDX);
    const replacement = join(RAX + 24, RAX + 8);
    const token = b.rmwBegin(64, i.address(), i.form.lock);
    const old = i.form.lock ? b.rmwAtomic('cmpxchg', 64, token, expected, replacement) : b.rmwLoad(64, token);
    if (!i.form.lock) b.rmwStore(64, token, b.select(b.eq(old, expected), replacement, old));
    b.rmwEnd(64, token);
    const equal = b.eq(old, expected);
    b.putFlags(b.or(b.and(b.allFlags(), b.i32(~0x40)), b.shl(equal, b.i32(6))));
    b.if(b.eqz(equal), () => {
      i.writeRegister(RAX, 32, b.wrap(old));
      i.writeRegister(RDX, 32, b.wrap(b.shrU(old, b.i64(32))));
    });
  },
  MUL: multiply(false),
  IMUL1: multiply(true),
  IMUL2(i) {
    imul(i, 0, i.read(0), i.read(1));
  },
  IMUL3(i) {
    imul(i, 0, i.read(1), i.read(2));
  },
  DIV: divide(false),
  IDIV: divide(true),
  ADCX(i) {
    addWithFlag(i, 2);
  },
  ADOX(i) {
    addWithFlag(i, 0);
  },
  DAA: decimal('daa'),
  DAS: decimal('das'),
  AAA: decimal('aaa'),
  AAS: decimal('aas'),
  AAM(i) {
    i.b.if(i.b.eqz(i.b.and(i.b.field('imm'), i.b.i32(0xff))), () => i.b.raise(Vector.DE));
    decimal('aam')(i);
  },
  AAD: decimal('aad'),
  CRC32(i) {
    const { b } = i;
    const bits = i.size(1);
    const source = i.read(1);
    i.write(0, bitwiseCrc(b, b.wrap(i.read(0)), source, bits, i.size(0) === 64));
  },
};

/** ADCX and ADOX: addition with and to one flag alone (condition 2 is CF, 0 is OF). */
function addWithFlag(i: Instruction, condition: number): void {
  const { b } = i;
  const bits = i.size();
  const x = i.read(0);
  const y = i.read(1);
  const flag = b.test(condition);
  const result = b.add(b.add(x, y), bits === 64 ? b.zext(flag) : flag);
  const vector = b.or(b.and(x, y), b.and(b.or(x, y), b.not(result)));
  const out = b.wrap(b.shrU(vector, bits === 64 ? b.i64(63) : b.i32(31)));
  i.write(0, result);
  if (condition === 2) b.setCarry(out);
  else b.setCarryOverflow(b.test(2), out);
}

/** Decimal adjusts are rare: one helper does them on AX and the flags. */
function decimal(name: string): Emitter {
  return (i) => {
    const { b } = i;
    const flags = b.call(name, 'i32', b.allFlags(), b.state(RAX, 16), b.field('imm'));
    b.setState(RAX, 16, b.and(flags, b.i32(0xffff)));
    b.putFlags(b.shrU(flags, b.i32(16)));
  };
}

/** CRC-32C (polynomial 0x11EDC6F41, reflected), a byte at a time by a helper table. */
function bitwiseCrc(b: Builder, crc: Value, source: Value, bits: Size, wide: boolean): Value {
  const low = b.call('crc32c', 'i32', crc, b.wrap(source), b.i32(bits === 64 ? 32 : bits));
  const result = bits === 64 ? b.call('crc32c', 'i32', low, b.wrap(b.shrU(source, b.i64(32))), b.i32(32)) : low;
  return wide ? b.zext(result) : result;
}
