/**
 * The IR and its builder.
 *
 * A body is a list of statements; a statement may define a value. Values are in single-assignment form and
 * visible in the statements that follow in the same body and in bodies nested there. What must merge goes
 * through a `Variable`. Pure operations may be computed anywhere between definition and use; everything else
 * happens in order.
 *
 * Operands come from *fields* of the decoded record. In the baseline tier a field is read from the record at
 * run time; in the region tier the builder is given the record's contents and a field is a constant.
 */
import { type RECORD, ZERO } from '../memory/vcpu-state.ts';
import { type PureOp, pureOp, type Type } from './ops.ts';

export type FieldName = keyof typeof RECORD;
export type Size = 8 | 16 | 32 | 64;
export type MemorySize = Size | 128;

/** A value: the result of one statement. */
export interface Value {
  readonly type: Type;
  readonly by: Statement;
}

export interface Variable {
  readonly type: Type;
  readonly id: number;
}

/** Flag producers; `size` is the operand size in bits. */
export type FlagKind =
  | 'add' // a, b, result (also with carry in)
  | 'sub' // a, b, result (also with borrow in)
  | 'logic' // result: CF, OF, AF cleared
  | 'inc' // a, result: CF kept
  | 'dec' // a, result: CF kept
  | 'result' // result, cf, of (both 0 or 1): AF cleared
  | 'compare'; // two doubles: ZF, PF, CF by their order; the others cleared

/** Condition codes in encoding order: O NO B NB Z NZ BE NBE S NS P NP L NL LE NLE (SDM 1 appendix B). */
export type Condition = number;

export type Statement =
  | {
      readonly op: 'pure';
      readonly pure: PureOp;
      readonly args: readonly Value[];
      readonly lanes: readonly number[];
      value: Value;
    }
  | { readonly op: 'const'; readonly bits: bigint; value: Value }
  /** A field of the record: unsigned 16-bit slots, `disp` and `imm` sign-extended as asked by the type. */
  | { readonly op: 'field'; readonly field: FieldName; value: Value }
  /** Guest register (or any state) read: `slot` is a state offset as i32 value; zero-extends to the type, or sign-extends. */
  | {
      readonly op: 'get';
      readonly slot: Value;
      readonly offset: number;
      readonly bits: MemorySize;
      readonly signed: boolean;
      value: Value;
    }
  | {
      readonly op: 'put';
      readonly slot: Value;
      readonly offset: number;
      readonly bits: MemorySize;
      readonly args: readonly [Value];
    }
  /** Guest memory at a linear address. */
  | { readonly op: 'load'; readonly bits: MemorySize; readonly signed: boolean; readonly args: readonly [Value]; value: Value }
  | { readonly op: 'store'; readonly bits: MemorySize; readonly args: readonly [Value, Value] }
  /** Read-modify-write: the page is checked for writing before the load. */
  | { readonly op: 'rmw.begin'; readonly bits: MemorySize; readonly lock: boolean; readonly args: readonly [Value]; value: Value }
  | { readonly op: 'rmw.load'; readonly bits: MemorySize; readonly args: readonly [Value]; value: Value }
  | { readonly op: 'rmw.store'; readonly bits: MemorySize; readonly args: readonly [Value, Value] }
  | { readonly op: 'rmw.atomic'; readonly kind: AtomicKind; readonly bits: Size; readonly args: readonly Value[]; value: Value }
  | { readonly op: 'rmw.end'; readonly bits: MemorySize; readonly args: readonly [Value] }
  | { readonly op: 'flags'; readonly kind: FlagKind; readonly bits: Size; readonly args: readonly Value[] }
  /** Replaces CF and OF, or CF alone; the other flags keep. */
  | { readonly op: 'flags.cfof'; readonly args: readonly [Value, Value] }
  | { readonly op: 'flags.cf'; readonly args: readonly [Value] }
  /** Sets OF, SF, ZF, AF, PF, CF from an image of EFLAGS. */
  | { readonly op: 'flags.put'; readonly args: readonly [Value] }
  | { readonly op: 'flags.test'; readonly condition: Condition; value: Value }
  /** The six arithmetic flags at their places in EFLAGS. */
  | { readonly op: 'flags.all'; value: Value }
  | { readonly op: 'if'; readonly args: readonly [Value]; readonly then: Body; readonly else: Body }
  /** Runs `body`; goes round again while `again` (defined in body) is not zero. */
  | { readonly op: 'loop'; readonly body: Body; readonly again: Value }
  | { readonly op: 'var.get'; readonly variable: Variable; value: Value }
  | { readonly op: 'var.set'; readonly variable: Variable; readonly args: readonly [Value] }
  /** Calls a long helper. `leaves`: a nonzero result ends translated code at this instruction (fault or a new RIP). */
  | { readonly op: 'call'; readonly name: string; readonly leaves: boolean; readonly args: readonly Value[]; value: Value }
  /** Raises an exception at this instruction; a negative vector: the one that a helper left in the state. */
  | { readonly op: 'raise'; readonly vector: number; readonly code: number }
  /** Ends the instruction: next is a RIP (i64), whatever page it is in. */
  | { readonly op: 'jump'; readonly args: readonly [Value] }
  /** Ends the instruction at the record's direct branch target: `offset + length + imm`, kept to `bits` bits. */
  | { readonly op: 'branch'; readonly bits: 16 | 32 | 64 }
  /** Ends the instruction with the one that follows. */
  | { readonly op: 'next' };

export type AtomicKind = 'add' | 'sub' | 'and' | 'or' | 'xor' | 'xchg' | 'cmpxchg';
export type Body = Statement[];

/** What a helper takes and gives: i32 unless said; the first two arguments (state address, record address) are implied. */
export interface HelperSignature {
  readonly args: readonly Type[];
  readonly result: Type | undefined;
}

/** Where field values come from when they are known. */
export type FieldSource = (field: FieldName) => bigint | undefined;

const typeOf = (bits: MemorySize): Type => (bits === 128 ? 'v128' : bits === 64 ? 'i64' : 'i32');

export class Builder {
  readonly body: Body = [];
  readonly variables: Variable[] = [];
  #open: Body = this.body;
  readonly #fields: FieldSource | undefined;

  constructor(fields?: FieldSource) {
    this.#fields = fields;
  }

  // --- values -----------------------------------------------------------------------------------------------

  #add<S extends Statement>(statement: S, type: Type): Value {
    const value: Value = { type, by: statement };
    (statement as { value?: Value }).value = value;
    this.#open.push(statement);
    return value;
  }

  #constant(type: Type, bits: bigint): Value {
    return this.#add({ op: 'const', bits, value: undefined as never }, type);
  }

  i32(value: number): Value {
    return this.#constant('i32', BigInt(value | 0));
  }
  i64(value: number | bigint): Value {
    return this.#constant('i64', BigInt.asIntN(64, BigInt(value)));
  }
  /** A vector constant, low half and high half. */
  v128(low: bigint, high: bigint): Value {
    return this.#constant('v128', BigInt.asUintN(64, low) | (BigInt.asUintN(64, high) << 64n));
  }
  /** A constant of the type that operands of `bits` have (i32 up to 32 bits, i64). */
  int(bits: Size, value: number | bigint): Value {
    return bits === 64 ? this.i64(value) : this.i32(Number(BigInt.asIntN(32, BigInt(value))));
  }

  /** A pure operation by its WebAssembly name; `lanes` are its immediates. Folds what it easily can. */
  op(name: string, args: readonly Value[], lanes: readonly number[] = []): Value {
    const pure = pureOp(name);
    if (args.length !== pure.args.length || args.some((arg, i) => arg.type !== pure.args[i]))
      throw new Error(`IR: ${name} takes (${pure.args.join(', ')}), was given (${args.map((a) => a.type).join(', ')})`);
    const folded = this.#fold(pure, args);
    if (folded !== undefined) return folded;
    return this.#add({ op: 'pure', pure, args, lanes, value: undefined as never }, pure.result);
  }

  #fold(pure: PureOp, args: readonly Value[]): Value | undefined {
    const constant = (value: Value): bigint | undefined => (value.by.op === 'const' ? value.by.bits : undefined);
    const [x, y] = args;
    if (pure.result === 'v128' || args.length > 2 || args.some((a) => a.type !== 'i32' && a.type !== 'i64')) return undefined;
    const a = constant(x);
    const b = y === undefined ? undefined : constant(y);
    const verb = pure.name.slice(4);
    if (b === 0n && ['add', 'sub', 'or', 'xor', 'shl', 'shr_u', 'shr_s'].includes(verb)) return x;
    if (a === 0n && (verb === 'add' || verb === 'or' || verb === 'xor')) return y;
    if (a === 0n && (verb === 'shl' || verb === 'and')) return x;
    if (a === undefined) return undefined;
    const width = pure.result === 'i64' ? 64 : 32;
    const give = (bits: bigint): Value => this.#constant(pure.result, BigInt.asIntN(width, bits));
    switch (pure.name) {
      case 'i64.extend_i32_s':
        return give(a);
      case 'i64.extend_i32_u':
        return give(BigInt.asUintN(32, a));
      case 'i32.wrap_i64':
        return give(a);
      case 'i32.eqz':
      case 'i64.eqz':
        return give(a === 0n ? 1n : 0n);
    }
    if (b === undefined) return undefined;
    switch (verb) {
      case 'add':
        return give(a + b);
      case 'sub':
        return give(a - b);
      case 'and':
        return give(a & b);
      case 'or':
        return give(a | b);
      case 'xor':
        return give(a ^ b);
      case 'shl':
        return give(a << (b & BigInt(width - 1)));
      case 'shr_u':
        return give(BigInt.asUintN(width, a) >> (b & BigInt(width - 1)));
      default:
        return undefined;
    }
  }

  #binary(verb: string, a: Value, b: Value): Value {
    return this.op(`${a.type}.${verb}`, [a, b]);
  }
  add(a: Value, b: Value): Value {
    return this.#binary('add', a, b);
  }
  sub(a: Value, b: Value): Value {
    return this.#binary('sub', a, b);
  }
  mul(a: Value, b: Value): Value {
    return this.#binary('mul', a, b);
  }
  and(a: Value, b: Value): Value {
    return this.#binary('and', a, b);
  }
  or(a: Value, b: Value): Value {
    return this.#binary('or', a, b);
  }
  xor(a: Value, b: Value): Value {
    return this.#binary('xor', a, b);
  }
  /** Shifts and rotates: the count is taken modulo the width of the type, not of the operand size. */
  shl(a: Value, b: Value): Value {
    return this.#binary('shl', a, b);
  }
  shrU(a: Value, b: Value): Value {
    return this.#binary('shr_u', a, b);
  }
  shrS(a: Value, b: Value): Value {
    return this.#binary('shr_s', a, b);
  }
  rotl(a: Value, b: Value): Value {
    return this.#binary('rotl', a, b);
  }
  rotr(a: Value, b: Value): Value {
    return this.#binary('rotr', a, b);
  }
  eq(a: Value, b: Value): Value {
    return this.#binary('eq', a, b);
  }
  ne(a: Value, b: Value): Value {
    return this.#binary('ne', a, b);
  }
  ltU(a: Value, b: Value): Value {
    return this.#binary('lt_u', a, b);
  }
  ltS(a: Value, b: Value): Value {
    return this.#binary('lt_s', a, b);
  }
  gtU(a: Value, b: Value): Value {
    return this.#binary('gt_u', a, b);
  }
  geU(a: Value, b: Value): Value {
    return this.#binary('ge_u', a, b);
  }
  eqz(a: Value): Value {
    return this.op(`${a.type}.eqz`, [a]);
  }
  not(a: Value): Value {
    return this.xor(a, a.type === 'i64' ? this.i64(-1) : this.i32(-1));
  }
  neg(a: Value): Value {
    return this.sub(a.type === 'i64' ? this.i64(0) : this.i32(0), a);
  }
  /** One of two values. Both are computed. */
  select(condition: Value, yes: Value, no: Value): Value {
    return this.op(`${yes.type}.select`, [yes, no, condition]);
  }
  /** i32 to i64, zero- or sign-extended; i64 to i32. No-ops where the type is already right. */
  zext(a: Value): Value {
    return a.type === 'i64' ? a : this.op('i64.extend_i32_u', [a]);
  }
  sext(a: Value): Value {
    return a.type === 'i64' ? a : this.op('i64.extend_i32_s', [a]);
  }
  wrap(a: Value): Value {
    return a.type === 'i32' ? a : this.op('i32.wrap_i64', [a]);
  }
  /** The low `bits` of a value, sign-extended to its own type. */
  signed(bits: Size, a: Value): Value {
    if (a.type === 'i64') return bits === 64 ? a : this.op(`i64.extend${bits}_s`, [a]);
    return bits >= 32 ? a : this.op(`i32.extend${bits}_s`, [a]);
  }
  /** The low `bits` of a value, zero-extended within its own type. */
  unsigned(bits: Size, a: Value): Value {
    if (a.type === 'i64') return bits === 64 ? a : this.and(a, this.i64((1n << BigInt(bits)) - 1n));
    return bits >= 32 ? a : this.and(a, this.i32(bits === 8 ? 0xff : 0xffff));
  }

  // --- record and state ---------------------------------------------------------------------------------------

  /** A field of the record as i32; `disp` and `imm` are signed. */
  field(field: FieldName): Value {
    const known = this.#fields?.(field);
    if (known !== undefined) return this.#constant('i32', BigInt.asIntN(32, known));
    return this.#add({ op: 'field', field, value: undefined as never }, 'i32');
  }
  /** The 64-bit immediate. */
  wide(): Value {
    const known = this.#fields?.('wide');
    if (known !== undefined) return this.#constant('i64', BigInt.asIntN(64, known));
    return this.#add({ op: 'field', field: 'wide', value: undefined as never }, 'i64');
  }
  /** State at a known offset. */
  state(offset: number, bits: MemorySize, signed = false, type: Type = typeOf(bits)): Value {
    return this.getSlot(this.i32(0), bits, signed, type, offset);
  }
  setState(offset: number, bits: MemorySize, value: Value): void {
    this.putSlot(this.i32(0), bits, value, offset);
  }
  /** State at the offset that `slot` (an i32, as a rule a field) holds, plus `offset`. */
  getSlot(slot: Value, bits: MemorySize, signed = false, type: Type = typeOf(bits), offset = 0): Value {
    // The slot of an absent register always reads as zero.
    if (slot.by.op === 'const' && slot.by.bits === BigInt(ZERO) && offset === 0 && type !== 'v128')
      return this.#constant(type, 0n);
    return this.#add({ op: 'get', slot, offset, bits, signed, value: undefined as never }, type);
  }
  /** Stores the low `bits` of `value`. */
  putSlot(slot: Value, bits: MemorySize, value: Value, offset = 0): void {
    this.#open.push({ op: 'put', slot, offset, bits, args: [value] });
  }

  // --- guest memory -------------------------------------------------------------------------------------------

  load(bits: MemorySize, address: Value, signed = false, type: Type = typeOf(bits)): Value {
    return this.#add({ op: 'load', bits, signed, args: [address], value: undefined as never }, type);
  }
  store(bits: MemorySize, address: Value, value: Value): void {
    this.#open.push({ op: 'store', bits, args: [address, value] });
  }
  /** Checks `address` for writing and gives a token for the `rmw` calls. End every one with `rmwEnd`. */
  rmwBegin(bits: MemorySize, address: Value, lock: boolean): Value {
    return this.#add({ op: 'rmw.begin', bits, lock, args: [address], value: undefined as never }, 'i64');
  }
  rmwLoad(bits: MemorySize, token: Value): Value {
    return this.#add({ op: 'rmw.load', bits, args: [token], value: undefined as never }, typeOf(bits));
  }
  rmwStore(bits: MemorySize, token: Value, value: Value): void {
    this.#open.push({ op: 'rmw.store', bits, args: [token, value] });
  }
  /** Atomic read-modify-write; gives the old value. `cmpxchg` takes expected, then replacement. */
  rmwAtomic(kind: AtomicKind, bits: Size, token: Value, ...operands: Value[]): Value {
    return this.#add({ op: 'rmw.atomic', kind, bits, args: [token, ...operands], value: undefined as never }, typeOf(bits));
  }
  rmwEnd(bits: MemorySize, token: Value): void {
    this.#open.push({ op: 'rmw.end', bits, args: [token] });
  }

  // --- flags --------------------------------------------------------------------------------------------------

  /** Sets the six flags; arguments as `FlagKind` says. Bits of the arguments above `bits` are ignored. */
  flags(kind: FlagKind, bits: Size, ...args: Value[]): void {
    this.#open.push({ op: 'flags', kind, bits, args });
  }
  setCarryOverflow(cf: Value, of: Value): void {
    this.#open.push({ op: 'flags.cfof', args: [cf, of] });
  }
  setCarry(cf: Value): void {
    this.#open.push({ op: 'flags.cf', args: [cf] });
  }
  putFlags(image: Value): void {
    this.#open.push({ op: 'flags.put', args: [image] });
  }
  /** 1 where the condition holds, else 0. */
  test(condition: Condition): Value {
    return this.#add({ op: 'flags.test', condition, value: undefined as never }, 'i32');
  }
  allFlags(): Value {
    return this.#add({ op: 'flags.all', value: undefined as never }, 'i32');
  }

  // --- control ------------------------------------------------------------------------------------------------

  variable(type: Type): Variable {
    const variable = { type, id: this.variables.length };
    this.variables.push(variable);
    return variable;
  }
  get(variable: Variable): Value {
    return this.#add({ op: 'var.get', variable, value: undefined as never }, variable.type);
  }
  set(variable: Variable, value: Value): void {
    if (value.type !== variable.type) throw new Error(`IR: a variable of type ${variable.type} was given ${value.type}`);
    this.#open.push({ op: 'var.set', variable, args: [value] });
  }
  #nested(build: () => void): Body {
    const outer = this.#open;
    const inner: Body = [];
    this.#open = inner;
    build();
    this.#open = outer;
    return inner;
  }
  if(condition: Value, then: () => void, otherwise: () => void = () => {}): void {
    const yes = this.#nested(then);
    const no = this.#nested(otherwise);
    this.#open.push({ op: 'if', args: [condition], then: yes, else: no });
  }
  /** Runs `build`'s statements, again while the i32 it returns is not zero. */
  loop(build: () => Value): void {
    let again: Value | undefined;
    const body = this.#nested(() => {
      again = build();
    });
    this.#open.push({ op: 'loop', body, again: again as Value });
  }
  /** Calls a helper for its effect and result. See `exec/helpers` for the names. */
  call(name: string, result: Type, ...args: Value[]): Value {
    return this.#add({ op: 'call', name, leaves: false, args, value: undefined as never }, result);
  }
  /** Calls a helper that may end translated code at this instruction (its i32 result is not zero: fault, or a new RIP). */
  leave(name: string, ...args: Value[]): void {
    this.#add({ op: 'call', name, leaves: true, args, value: undefined as never }, 'i32');
  }
  raise(vector: number, code = 0): void {
    this.#open.push({ op: 'raise', vector, code });
  }
  jump(rip: Value): void {
    this.#open.push({ op: 'jump', args: [rip] });
  }
  branch(bits: 16 | 32 | 64): void {
    this.#open.push({ op: 'branch', bits });
  }
  next(): void {
    this.#open.push({ op: 'next' });
  }
}
