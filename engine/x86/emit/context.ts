/**
 * What an emitter sees of the instruction it is run for: operands to read and write by position, whatever they
 * are. Values of 8 and 16 bits are i32, zero-extended when read; what lies above the operand's size in a value
 * that is written does not matter.
 */
import type { AtomicKind, Builder, MemorySize, Size, Value, Variable } from '../../ir/builder.ts';
import {
  ADDRESS,
  GPR,
  MODE,
  RIP_BASE,
  SEG_ACCESS,
  SEG_BASE,
  SEG_HIGH,
  SEG_LOW,
  SS,
  segment,
  VECTOR,
} from '../../memory/vcpu-state.ts';
import { type Form, type Operand, operandBits } from '../decode/rows.ts';

export const RAX = GPR;
export const RCX = GPR + 8;
export const RDX = GPR + 16;
export const RBX = GPR + 24;
export const RSP = GPR + 32;
export const RBP = GPR + 40;
export const RSI = GPR + 48;
export const RDI = GPR + 56;

/** Exception vectors (SDM 3A, 6.3.1). */
export const Vector = {
  DE: 0,
  DB: 1,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  XM: 19,
} as const;

export type Emitter = (i: Instruction) => void;

export class Instruction {
  readonly b: Builder;
  readonly form: Form;
  #address: Value | undefined;
  /** The half of 256-bit vectors that is at work: one emitter does both, one after the other. */
  half: 0 | 1 = 0;
  /** Where the halves of a vector result are kept until all of them are computed; undefined: written at once. */
  results: readonly Variable[] | undefined;
  /** Writes the destination from `results`, where the instruction ends before its emitter does. */
  complete: (() => void) | undefined;

  constructor(builder: Builder, form: Form) {
    this.b = builder;
    this.form = form;
  }

  /** Size in bits of operand `n`; 128 for a whole vector register. */
  bits(n: number): MemorySize {
    return this.#bits(this.form.row.operands[n]);
  }

  /** Size of operand `n`, which is an integer. */
  size(n = 0): Size {
    return this.bits(n) as Size;
  }

  #bits(operand: Operand): MemorySize {
    const { size, wide } = this.form;
    if (operand.size === '') return operand.fixed === 'rAX' || operand.fixed === 'eAX' ? size : operand.fixed === 'DX' ? 16 : 8;
    const bits = operandBits(operand.size, size, wide);
    return bits === 0 ? size : bits === 256 ? 128 : (bits as MemorySize);
  }

  /** True where operand `n` is memory in this form. */
  isMemory(n: number): boolean {
    const { kind } = this.form.row.operands[n];
    return kind === 'M' || kind === 'O' || (this.form.memory && (kind === 'E' || kind === 'W' || kind === 'Q'));
  }

  /** Linear address (i64) of the memory operand; computed once. */
  address(): Value {
    this.#address ??= this.#makeAddress();
    return this.#address;
  }

  #makeAddress(): Value {
    const { b } = this;
    switch (this.form.address) {
      case 'PRE':
        return b.state(ADDRESS, 64);
      case 'A32': {
        const base = b.getSlot(b.field('base'), 32);
        const index = b.shl(b.getSlot(b.field('index'), 32), b.field('scale'));
        return b.zext(b.add(b.add(base, index), b.field('disp')));
      }
      default: {
        const base = b.getSlot(b.field('base'), 64);
        const index = b.shl(b.getSlot(b.field('index'), 64), b.zext(b.field('scale')));
        const offset = b.add(b.add(base, index), b.sext(b.field('disp')));
        return this.form.address === 'A64S' ? b.add(offset, b.getSlot(b.field('segment'), 64, false, 'i64', SEG_BASE)) : offset;
      }
    }
  }

  /** The slot of a register operand as an i32 value. */
  slot(n: number): Value {
    return this.slotOf(this.form.row.operands[n]);
  }
  slotOf(operand: Operand): Value {
    const { b } = this;
    switch (operand.kind) {
      case 'E':
      case 'R':
      case 'Z':
      case 'W':
      case 'U':
      case 'Q':
      case 'N':
        return b.field('a');
      case 'G':
      case 'V':
      case 'P':
      case 'S':
      case 'C':
      case 'D':
        return b.field('b');
      case 'H':
      case 'B':
        return b.field('c');
      case 'L':
        // In the upper half of the immediate.
        return b.add(b.i32(VECTOR), b.shl(b.and(b.shrU(b.field('imm'), b.i32(4)), b.i32(15)), b.i32(6)));
      case 'F':
        switch (operand.fixed) {
          case 'AL':
          case 'rAX':
          case 'eAX':
            return b.i32(RAX);
          case 'CL':
            return b.i32(RCX);
          case 'DX':
            return b.i32(RDX);
          default:
            return b.field('b');
        }
      default:
        throw new Error(`${this.form.row.text}: operand ${operand.kind} is no register`);
    }
  }

  /** Reads operand `n`: registers, memory, immediates (sign-extended to their size). */
  read(n: number): Value {
    const { b } = this;
    const operand = this.form.row.operands[n];
    const bits = this.#bits(operand);
    if (operand.kind === 'I') {
      if (operand.size === 'v' && bits === 64) return b.wide();
      return bits === 64 ? b.sext(b.field('imm')) : b.field('imm');
    }
    if (operand.fixed === '1') return b.i32(1);
    if (this.isMemory(n)) return b.load(bits, this.address());
    return b.getSlot(this.slot(n), bits);
  }

  /** Reads operand `n` sign-extended to its type. */
  readSigned(n: number): Value {
    return this.b.signed(this.size(n), this.read(n));
  }

  /** Writes operand `n`. A 32-bit register write clears the upper half. */
  write(n: number, value: Value): void {
    const { b } = this;
    const bits = this.bits(n);
    if (this.isMemory(n)) b.store(bits, this.address(), value);
    else this.writeSlot(this.slot(n), bits, value);
  }

  writeSlot(slot: Value, bits: MemorySize, value: Value): void {
    const { b } = this;
    if (bits === 32) b.putSlot(slot, 64, b.zext(value));
    else b.putSlot(slot, bits, value);
  }
  /** Writes a general register at a known state offset. */
  writeRegister(offset: number, bits: Size, value: Value): void {
    this.writeSlot(this.b.i32(offset), bits, value);
  }

  /**
   * Reads operand `n`, computes, writes back; memory is checked for writing first. `compute` must be pure. With LOCK,
   * `atomic` names the operation that does the same at once; without one a compare-and-exchange loop is made.
   * Gives the old and the new value.
   */
  modify(
    n: number,
    compute: (old: Value) => Value,
    atomic?: { kind: AtomicKind; operand: Value },
  ): { old: Value; result: Value } {
    const { b } = this;
    const bits = this.size(n);
    if (!this.isMemory(n)) {
      const old = this.read(n);
      const result = compute(old);
      this.write(n, result);
      return { old, result };
    }
    const token = b.rmwBegin(bits, this.address(), this.form.lock);
    if (!this.form.lock) {
      const old = b.rmwLoad(bits, token);
      const result = compute(old);
      b.rmwStore(bits, token, result);
      b.rmwEnd(bits, token);
      return { old, result };
    }
    if (atomic !== undefined) {
      const old = b.rmwAtomic(atomic.kind, bits, token, atomic.operand);
      b.rmwEnd(bits, token);
      return { old, result: compute(old) };
    }
    const type = bits === 64 ? 'i64' : 'i32';
    const oldVariable = b.variable(type);
    const newVariable = b.variable(type);
    b.loop(() => {
      const old = b.rmwLoad(bits, token);
      const result = compute(old);
      b.set(oldVariable, old);
      b.set(newVariable, result);
      return b.ne(b.rmwAtomic('cmpxchg', bits, token, old, result), old);
    });
    b.rmwEnd(bits, token);
    return { old: b.get(oldVariable), result: b.get(newVariable) };
  }

  // --- stack ----------------------------------------------------------------------------------------------------

  /** Linear address of stack offset `offset` (i64, already kept to the stack's width), checked for `bytes`. */
  #stackAddress(offset: Value, bytes: number): Value {
    if (this.form.stack === 64) return offset;
    return this.checkedAddress(segment(SS), offset, bytes, true, Vector.SS);
  }

  /** Segment check (SDM 3A, 5.3) and base: gives the 32-bit linear address as i64, or leaves with the fault. */
  checkedAddress(segmentOffset: number, offset: Value, bytes: number, write: boolean, vector: number): Value {
    const { b } = this;
    const low = b.zext(b.state(segmentOffset + SEG_LOW, 32));
    const high = b.zext(b.state(segmentOffset + SEG_HIGH, 32));
    const access = b.and(b.state(segmentOffset + SEG_ACCESS, 32), b.i32(write ? 2 : 1));
    const bad = b.or(b.or(b.ltU(offset, low), b.gtU(b.add(offset, b.i64(bytes - 1)), high)), b.eqz(access));
    b.if(bad, () => b.raise(vector, 0));
    return b.and(b.add(offset, b.state(segmentOffset + SEG_BASE, 64)), b.i64(0xffffffff));
  }

  /** The stack pointer as i64, kept to the stack's width. */
  stackPointer(): Value {
    const { b, form } = this;
    return form.stack === 64 ? b.state(RSP, 64) : b.zext(b.state(RSP, form.stack));
  }
  setStackPointer(value: Value): void {
    const { b, form } = this;
    if (form.stack === 16) b.setState(RSP, 16, b.wrap(value));
    else b.setState(RSP, 64, this.keepStack(value));
  }
  keepStack(value: Value): Value {
    const { b, form } = this;
    if (form.stack === 64) return value;
    return b.and(value, b.i64(form.stack === 32 ? 0xffffffff : 0xffff));
  }
  /** Pushes the low `bits` of `value`. */
  push(bits: Size, value: Value): void {
    const { b } = this;
    const top = this.keepStack(b.sub(this.stackPointer(), b.i64(bits / 8)));
    b.store(bits, this.#stackAddress(top, bits / 8), value);
    this.setStackPointer(top);
  }
  /** Reads `bits` at the stack pointer plus `skip`, without moving it. */
  peek(bits: Size, skip = 0): Value {
    const { b } = this;
    const at = this.keepStack(b.add(this.stackPointer(), b.i64(skip)));
    return b.load(bits, this.#stackAddress(at, bits / 8));
  }
  /** Reads `bits` at a stack offset that is already kept to the stack's width. */
  peekAt(offset: Value, bits: Size): Value {
    return this.b.load(bits, this.#stackAddress(offset, bits / 8));
  }
  /** Moves the stack pointer up by `bytes`. */
  release(bytes: Value): void {
    this.setStackPointer(this.keepStack(this.b.add(this.stackPointer(), bytes)));
  }
  pop(bits: Size): Value {
    const value = this.peek(bits);
    this.release(this.b.i64(bits / 8));
    return value;
  }

  // --- instruction pointer --------------------------------------------------------------------------------------

  /** RIP of the next instruction, kept to the operand size outside 64-bit mode. */
  nextRip(bits: 16 | 32 | 64): Value {
    const { b } = this;
    const offset = b.zext(b.add(b.field('offset'), b.field('length')));
    const rip = b.add(b.state(RIP_BASE, 64), offset);
    return bits === 64 ? rip : b.and(rip, b.i64(0xffffffff));
  }

  /** True (i32) in 64-bit mode, at run time. */
  isLong(): Value {
    const { b } = this;
    return b.eq(b.and(b.state(MODE, 32), b.i32(3)), b.i32(2));
  }
}
