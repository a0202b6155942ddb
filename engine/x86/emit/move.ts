/** Data movement, stack, conversion, flags (SDM 1, 7.3.1, 7.3.8, 7.3.13). */
import type { Builder, Size, Value } from '../../ir/builder.ts';
import { EFLAGS, SEG_SELECTOR, TEMP } from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, RAX, RBP, RCX, RDI, RDX, RSI, Vector } from './context.ts';
import { partOf } from './parts.ts';

function byteSwap(b: Builder, bits: Size, x: Value): Value {
  if (bits === 16) return b.or(b.shl(x, b.i32(8)), b.and(b.shrU(x, b.i32(8)), b.i32(0xff)));
  if (bits === 32) {
    const mask = b.i32(0x00ff00ff);
    return b.or(b.and(b.rotl(x, b.i32(8)), mask), b.rotr(b.and(x, mask), b.i32(8)));
  }
  const m8 = b.i64(0x00ff00ff00ff00ffn);
  const m16 = b.i64(0x0000ffff0000ffffn);
  const bytes = b.or(b.and(b.shrU(x, b.i64(8)), m8), b.shl(b.and(x, m8), b.i64(8)));
  const words = b.or(b.and(b.shrU(bytes, b.i64(16)), m16), b.shl(b.and(bytes, m16), b.i64(16)));
  return b.rotl(words, b.i64(32));
}

/** Whole-string instructions go to one helper: kind, element bytes, repeat, address size. */
const STRING = { MOVS: 0, CMPS: 1, STOS: 2, LODS: 3, SCAS: 4, INS: 5, OUTS: 6 } as const;
const string =
  (kind: keyof typeof STRING, operand: number): Emitter =>
  (i) => {
    const { b, form } = i;
    // INS and OUTS move at most 32 bits.
    const bytes = kind === 'INS' || kind === 'OUTS' ? Math.min(i.size(operand) / 8, 4) : i.size(operand) / 8;
    b.leave('string', b.i32(STRING[kind] | (bytes << 4) | (form.repeat << 8) | (form.addressSize << 12)));
  };

export const moves: Record<string, Emitter> = {
  MOV(i) {
    i.write(0, i.read(1));
  },
  MOVZX(i) {
    const { b } = i;
    const x = i.read(1);
    i.write(0, i.size(0) === 64 ? b.zext(x) : x);
  },
  MOVSX(i) {
    const { b } = i;
    const x = i.readSigned(1);
    i.write(0, i.size(0) === 64 ? b.sext(x) : x);
  },
  MOVSXD(i) {
    const { b } = i;
    const x = i.read(1);
    i.write(0, i.size(0) === 64 ? b.sext(x) : x);
  },
  MOVNTI(i) {
    i.write(0, i.read(1));
  },
  MOVBE(i) {
    i.write(0, byteSwap(i.b, i.size(0), i.read(1)));
  },
  BSWAP(i) {
    i.write(0, byteSwap(i.b, i.size(0), i.read(0)));
  },
  LEA(i) {
    const { b } = i;
    const address = i.address();
    i.write(0, i.size(0) === 64 ? address : b.wrap(address));
  },
  XCHG(i) {
    const { b } = i;
    const bits = i.size();
    const y = i.read(1);
    if (i.isMemory(0)) {
      // With memory it is locked whether or not the prefix is there.
      const token = b.rmwBegin(bits, i.address(), true);
      const old = b.rmwAtomic('xchg', bits, token, y);
      b.rmwEnd(bits, token);
      i.write(1, old);
      return;
    }
    const old = i.read(0);
    i.write(0, y);
    i.write(1, old);
  },
  XCHG_A(i) {
    // 90 is XCHG of the accumulator with itself only without REX.B; then it must not clear the upper half.
    const { b } = i;
    const bits = i.size();
    const slot = i.slot(0);
    b.if(b.ne(slot, b.i32(RAX)), () => {
      const old = b.getSlot(slot, bits);
      i.writeSlot(slot, bits, b.state(RAX, bits));
      i.writeRegister(RAX, bits, old);
    });
  },
  CMOV(i) {
    const { b, form } = i;
    const value = i.read(1);
    const old = i.read(0);
    i.write(0, b.select(b.test(form.row.condition), value, old));
  },
  SETCC(i) {
    i.write(0, i.b.test(i.form.row.condition));
  },
  NOP() {},
  PAUSE(i) {
    i.b.call('pause', 'i32');
  },
  FENCE(i) {
    // A locked operation of our own is the strongest fence that the translated code has.
    i.b.call('fence', 'i32');
  },
  CLFLUSH(i) {
    i.b.load(8, i.address());
  },
  PUSH(i) {
    i.push(i.form.size, stackValue(i, 0));
  },
  PUSH_E(i) {
    i.push(i.form.size, i.read(0));
  },
  POP(i) {
    const { b } = i;
    const bits = i.form.size;
    const value = i.peek(bits);
    i.release(b.i64(bits / 8));
    i.write(0, value);
  },
  POP_E(i) {
    const { b } = i;
    const bits = i.form.size;
    const value = i.peek(bits);
    if (!i.isMemory(0)) {
      i.release(b.i64(bits / 8));
      i.write(0, value);
      return;
    }
    // Where the address is based on rSP the decoder has added what this pops (SDM 2, POP).
    i.write(0, value);
    i.release(b.i64(bits / 8));
  },
  PUSH_SEG(i) {
    const { b } = i;
    const bits = i.form.size;
    const selector = b.getSlot(b.field('b'), 16, false, 'i32', SEG_SELECTOR);
    i.push(bits, bits === 64 ? b.zext(selector) : selector);
  },
  POP_SEG(i) {
    const { b } = i;
    const bits = i.form.size;
    const value = b.unsigned(16, b.wrap(i.peek(bits)));
    b.leave('load_segment', b.field('b'), value);
    i.release(b.i64(bits / 8));
  },
  PUSHA(i) {
    const { b } = i;
    const bits = i.form.size;
    const sp = b.state(RAX + 32, bits);
    // Checked as a whole first, so that a fault leaves nothing half done.
    const values = [RAX, RCX, RDX, RAX + 24].map((register) => b.state(register, bits));
    const rest = [RBP, RSI, RDI].map((register) => b.state(register, bits));
    b.leave('probe_stack', b.i32(bits / 8), b.i32(i.form.stack));
    for (const value of [...values, sp, ...rest]) i.push(bits, value);
  },
  POPA(i) {
    const { b } = i;
    const bits = i.form.size;
    const order = [RDI, RSI, RBP, -1, RAX + 24, RDX, RCX, RAX];
    const values = order.map((register, n) => (register < 0 ? undefined : i.peek(bits, (n * bits) / 8)));
    for (const [n, value] of values.entries()) if (value !== undefined) i.writeRegister(order[n], bits, value);
    i.release(b.i64(bits));
  },
  ENTER(i) {
    const { b, form } = i;
    b.leave('enter', b.field('imm'), b.field('disp'), b.i32(form.size), b.i32(form.stack));
  },
  LEAVE(i) {
    const { b, form } = i;
    const bits = form.size;
    const frame = i.keepStack(b.state(RBP, 64));
    const value = i.peekAt(frame, bits);
    i.setStackPointer(i.keepStack(b.add(frame, b.i64(bits / 8))));
    i.writeRegister(RBP, bits, value);
  },
  PUSHF(i) {
    const { b, form } = i;
    const image = b.variable('i32');
    b.set(image, b.state(EFLAGS, 32));
    inVirtual8086(b, () => {
      b.leave('pushf_virtual', b.i32(form.size));
      b.set(image, b.state(TEMP, 32));
    });
    const flags = b.or(b.and(b.get(image), b.i32(~0x30000)), b.allFlags());
    i.push(form.size, form.size === 64 ? b.zext(flags) : flags);
  },
  POPF(i) {
    const { b, form } = i;
    const bits = form.size;
    const value = i.peek(bits);
    const low = b.wrap(value);
    inVirtual8086(b, () => b.leave('popf_virtual', low, b.i32(bits)));
    i.release(b.i64(bits / 8));
    b.putFlags(low);
    b.call('popf', 'i32', low, b.i32(bits));
  },
  LAHF(i) {
    const { b } = i;
    b.setState(RAX + 1, 8, b.or(b.allFlags(), b.i32(2)));
  },
  SAHF(i) {
    const { b } = i;
    b.putFlags(b.or(b.and(b.allFlags(), b.i32(0x800)), b.state(RAX + 1, 8)));
  },
  CLC(i) {
    i.b.setCarry(i.b.i32(0));
  },
  STC(i) {
    i.b.setCarry(i.b.i32(1));
  },
  CMC(i) {
    i.b.setCarry(i.b.test(3));
  },
  CLD(i) {
    const { b } = i;
    b.setState(EFLAGS, 32, b.and(b.state(EFLAGS, 32), b.i32(~0x400)));
  },
  STD(i) {
    const { b } = i;
    b.setState(EFLAGS, 32, b.or(b.state(EFLAGS, 32), b.i32(0x400)));
  },
  CBW(i) {
    // CBW, CWDE, CDQE
    const { b, form } = i;
    if (form.size === 16) b.setState(RAX, 16, b.signed(8, b.state(RAX, 8)));
    else if (form.size === 32) i.writeRegister(RAX, 32, b.signed(16, b.state(RAX, 16)));
    else b.setState(RAX, 64, b.sext(b.state(RAX, 32)));
  },
  CWD(i) {
    // CWD, CDQ, CQO
    const { b, form } = i;
    if (form.size === 16) b.setState(RDX, 16, b.shrS(b.signed(16, b.state(RAX, 16)), b.i32(15)));
    else if (form.size === 32) i.writeRegister(RDX, 32, b.shrS(b.state(RAX, 32), b.i32(31)));
    else b.setState(RDX, 64, b.shrS(b.state(RAX, 64), b.i64(63)));
  },
  SALC(i) {
    const { b } = i;
    b.setState(RAX, 8, b.neg(b.test(2)));
  },
  XLAT(i) {
    const { b, form } = i;
    b.leave('xlat', b.i32(form.addressSize));
  },
  LOAD_FAR(i) {
    const { b } = i;
    const bits = i.size(0);
    const offset = b.load(bits, partOf(i, undefined, bits / 8, false));
    const selector = b.load(16, partOf(i, b.i64(bits / 8), 2, false));
    b.leave('load_segment', b.field('c'), selector);
    i.write(0, offset);
  },
  BOUND(i) {
    const { b } = i;
    const bits = i.size(0);
    const index = i.readSigned(0);
    const low = b.signed(bits, b.load(bits, partOf(i, undefined, bits / 8, false)));
    const high = b.signed(bits, b.load(bits, partOf(i, b.i64(bits / 8), bits / 8, false)));
    b.if(b.or(b.ltS(index, low), b.ltS(high, index)), () => b.raise(Vector.BR));
  },
  ARPL(i) {
    const { b } = i;
    b.leave('check_protected');
    const source = b.and(i.read(1), b.i32(3));
    const old = i.read(0);
    const lower = b.ltU(b.and(old, b.i32(3)), source);
    // Written only where it changes.
    b.if(lower, () => {
      // Only then does it matter whether the segment may be written.
      if (i.isMemory(0)) b.leave('check_writable', b.field('segment'));
      i.write(0, b.or(b.and(old, b.i32(~3)), source));
    });
    b.putFlags(b.or(b.and(b.allFlags(), b.i32(~0x40)), b.shl(lower, b.i32(6))));
  },
  MOVS: string('MOVS', 0),
  CMPS: string('CMPS', 0),
  STOS: string('STOS', 0),
  LODS: string('LODS', 1),
  SCAS: string('SCAS', 1),
  INS: string('INS', 0),
  OUTS: string('OUTS', 1),
  MOV_FROM_SEG(i) {
    const { b } = i;
    const selector = b.getSlot(b.field('b'), 16, false, 'i32', SEG_SELECTOR);
    // Memory gets 16 bits whatever the operand size.
    if (i.isMemory(0)) b.store(16, i.address(), selector);
    else i.write(0, i.size(0) === 64 ? b.zext(selector) : selector);
  },
  MOV_TO_SEG(i) {
    i.b.leave('load_segment', i.b.field('b'), i.read(1));
  },
};

/** PUSH Zv, Iz and Ibs: an immediate is sign-extended to the operand size. */
function stackValue(i: Instruction, n: number): Value {
  const { b } = i;
  const operand = i.form.row.operands[n];
  if (operand.kind !== 'I') return i.read(n);
  return i.form.size === 64 ? b.sext(b.field('imm')) : b.field('imm');
}

/** What PUSHF and POPF do besides in virtual-8086 mode, where they need IOPL 3 or VME. */
function inVirtual8086(b: Builder, body: () => void): void {
  b.if(b.and(b.state(EFLAGS, 32), b.i32(0x20000)), body);
}
