/**
 * From IR to WebAssembly. `Lowering` writes the code of one function; what differs between the tiers (where
 * registers live, how an instruction ends) is in the methods that a tier overrides.
 *
 * A pure value that is used once is computed where it is used; any other value gets a local.
 */
import type { Body, MemorySize, Size, Statement, Value, Variable } from '../ir/builder.ts';
import { Exit } from '../ir/exit.ts';
import type { Type } from '../ir/ops.ts';
import * as S from '../memory/vcpu-state.ts';
import { rarely, touchesFlags } from './bodies.ts';
import { CodeWriter, CPU, REC } from './code-writer.ts';
import { ATOMICS, W } from './opcodes.ts';

/**
 * Names of the helpers that memory operations call, and how many arguments (i32) they have: the record, and for those
 * that look for an address in SLOW_POINTER the number of bytes with `SlowStore` flags.
 */
export const MEMORY_HELPERS = {
  slow_load: 2,
  slow_store: 2,
  slow_store_end: 1,
  slow_rmw: 2,
  slow_rmw_end: 1,
} as const;

const log2bytes = (bits: MemorySize): number => Math.log2(bits / 8);

type Access = Extract<Statement, { op: 'load' | 'store' | 'rmw.begin' }>;

const TEST = /\.(eqz|eq|ne|[lg][te](_[su])?|any_true|all_true)$/;
/** Whether a value is 0 or 1. */
function isTest({ type, by }: Value): boolean {
  if (by.op === 'const') return by.bits === 0n || by.bits === 1n;
  if (by.op !== 'pure' || type !== 'i32') return false;
  const { name } = by.pure;
  return name === 'i32.and' || name === 'i32.or' ? by.args.every(isTest) : TEST.test(name);
}

const LANES = new BigUint64Array(2);
const LANE_BYTES = new Uint8Array(LANES.buffer);

export class Lowering extends CodeWriter {
  readonly #uses = new Map<Value, number>();
  readonly #local = new Map<Value, number>();
  readonly #variables = new Map<Variable, number>();

  /** Writes the code of a whole body (flags expanded). The caller adds what ends the function. */
  lower(body: Body): void {
    this.#count(body);
    this.statements(body);
  }

  #count(body: Body): void {
    const use = (value: Value | undefined): void => {
      if (value !== undefined) this.#uses.set(value, (this.#uses.get(value) ?? 0) + 1);
    };
    for (const statement of body) {
      if ('args' in statement) for (const arg of statement.args) use(arg);
      if ('slot' in statement) use(statement.slot);
      if (statement.op === 'if') {
        this.#count(statement.then);
        this.#count(statement.else);
      } else if (statement.op === 'loop') {
        this.#count(statement.body);
        use(statement.again);
      }
    }
  }

  protected statements(body: Body): void {
    for (const statement of body) this.statement(statement);
  }

  // --- values ---------------------------------------------------------------------------------------------------

  /** Pushes a value. */
  protected value(value: Value): void {
    const local = this.#local.get(value);
    if (local !== undefined) {
      this.get(local);
      return;
    }
    const by = value.by;
    if (by.op === 'const') this.constant(value.type, by.bits);
    else if (by.op === 'field') this.field(by);
    else if (by.op === 'pure') this.pure(by);
    else throw new Error(`value of ${by.op} used before its definition`);
  }

  protected pure(statement: Extract<Statement, { op: 'pure' }>): void {
    for (const arg of statement.args) this.value(arg);
    this.op(...statement.pure.code);
    if (statement.pure.immediates > 0) this.op(...statement.lanes);
  }

  protected constant(type: Type, bits: bigint): void {
    switch (type) {
      case 'i32':
        this.i32(Number(BigInt.asIntN(32, bits)));
        break;
      case 'i64':
        this.i64(bits);
        break;
      case 'v128':
        this.op(0xfd, 0x0c);
        // Through a typed array: a shift of a BigInt for each byte costs.
        LANES[0] = BigInt.asUintN(64, bits);
        LANES[1] = BigInt.asUintN(64, bits >> 64n);
        this.code.raw(LANE_BYTES);
        break;
      case 'f32':
      case 'f64': {
        this.op(type === 'f32' ? W.f32Const : W.f64Const);
        for (let i = 0n; i < (type === 'f32' ? 4n : 8n); i++) this.code.u8(Number((bits >> (8n * i)) & 0xffn));
        break;
      }
    }
  }

  /** Makes sure that a value can be pushed again later: it gets a local unless it is cheap. */
  protected keep(value: Value): void {
    if (this.#local.has(value) || value.by.op === 'const') return;
    const local = this.temporary(value.type);
    this.value(value);
    this.set(local);
    this.#local.set(value, local);
  }

  /** A value is what a local holds. */
  protected defineAs(value: Value, local: number): void {
    this.#local.set(value, local);
  }

  /** Pops the value on the stack into a local that stands for `value`; drops it when nothing uses it. */
  protected define(value: Value): void {
    if ((this.#uses.get(value) ?? 0) === 0) {
      this.op(W.drop);
      return;
    }
    const local = this.temporary(value.by.op === 'rmw.begin' ? this.pointerType : value.type);
    this.#local.set(value, local);
    this.set(local);
  }

  // --- statements -----------------------------------------------------------------------------------------------

  protected statement(statement: Statement): void {
    switch (statement.op) {
      case 'const':
        return;
      case 'field':
      case 'pure':
        if ((this.#uses.get(statement.value) ?? 0) > 1) {
          this.value(statement.value);
          this.define(statement.value);
        }
        return;
      case 'get':
        if ((this.#uses.get(statement.value) ?? 0) === 0) return;
        this.getState(statement);
        this.define(statement.value);
        return;
      case 'put':
        this.putState(statement);
        return;
      case 'load':
        this.guestLoad(statement);
        return;
      case 'store':
        this.guestStore(statement);
        return;
      case 'rmw.begin':
        this.rmwBegin(statement);
        return;
      case 'rmw.load':
        this.value(statement.args[0]);
        this.load(statement.value.type, statement.bits, false, 0);
        this.define(statement.value);
        return;
      case 'rmw.store':
        this.value(statement.args[0]);
        this.value(statement.args[1]);
        this.storeOp(statement.args[1].type, statement.bits, 0);
        return;
      case 'rmw.atomic': {
        for (const arg of statement.args) this.value(arg);
        const [w32, w64, w8, w16] = ATOMICS[statement.kind];
        const byBits: Record<Size, number> = { 8: w8, 16: w16, 32: w32, 64: w64 };
        this.op(0xfe, byBits[statement.bits]);
        this.memarg(log2bytes(statement.bits), 0);
        this.define(statement.value);
        return;
      }
      case 'rmw.end':
        this.rmwEnd(statement.args[0]);
        return;
      case 'if': {
        const close = this.openIf(statement);
        this.statements(statement.then);
        close(() => this.statements(statement.else));
        return;
      }
      case 'loop':
        this.open(W.loop);
        this.statements(statement.body);
        this.value(statement.again);
        this.brIf(0);
        this.end();
        return;
      case 'var.get':
        this.get(this.#variable(statement.variable));
        this.define(statement.value);
        return;
      case 'var.set':
        this.value(statement.args[0]);
        this.set(this.#variable(statement.variable));
        return;
      case 'call': {
        this.beforeCall(statement);
        this.record();
        for (const arg of statement.args) this.argument(arg);
        this.call(statement.name);
        if (statement.leaves) {
          const code = this.temporary('i32');
          this.tee(code);
          this.hint(false);
          this.open(W.if);
          this.leaving();
          this.get(code);
          this.op(W.return);
          this.end();
        } else this.define(statement.value);
        this.afterCall(statement);
        return;
      }
      case 'raise':
        this.raise(statement.vector, statement.code);
        return;
      case 'jump':
        this.jump(statement.args[0]);
        return;
      case 'branch':
        this.branch(statement.bits);
        return;
      case 'next':
        this.next();
        return;
      default:
        throw new Error(`flags must be expanded before lowering: ${statement.op}`);
    }
  }

  /**
   * Opens an `if`; gives what closes it, with the code of its other side. A conjunction of tests becomes a branch for each:
   * the processor takes a comparison and a branch as one, and sums of bits as many.
   */
  protected openIf(statement: Extract<Statement, { op: 'if' }>): (otherwise: () => void) => void {
    const [condition] = statement.args;
    const hasElse = statement.else.length > 0 || touchesFlags(statement.then);
    const terms = rarely(statement.then) ? [condition] : this.terms(condition, 'i32.and');
    if (terms.length < 2) {
      this.value(condition);
      this.hintIf(statement);
      this.open(W.if);
      return (otherwise) => {
        if (hasElse) {
          this.op(W.else);
          otherwise();
        }
        this.end();
      };
    }
    if (hasElse) this.open(W.block);
    this.open(W.block);
    const no = this.depth;
    const likely = rarely(statement.else);
    for (const term of terms) this.unless(term, no, likely);
    return (otherwise) => {
      if (hasElse) this.br(1);
      this.end();
      if (!hasElse) return;
      otherwise();
      this.end();
    };
  }

  /** Branches to the block of that depth unless the condition holds. Of several ways that it may hold the first is the usual one. */
  protected unless(condition: Value, no: number, likely: boolean): void {
    const ways = this.terms(condition, 'i32.or');
    if (likely && ways.length > 1) {
      this.open(W.block);
      for (const way of ways.slice(0, -1)) {
        this.test(way);
        this.hint(true);
        this.brIf(0);
      }
      this.unless(ways[ways.length - 1], no, likely);
      this.end();
      return;
    }
    const terms = this.terms(condition, 'i32.and');
    if (terms.length > 1) {
      for (const term of terms) this.unless(term, no, likely);
      return;
    }
    this.test(condition);
    this.op(W.i32Eqz);
    if (likely) this.hint(false);
    this.brIf(this.depth - no);
  }
  /** Pushes a condition of a branch. */
  protected test(condition: Value): void {
    this.value(condition);
  }

  /** The tests that a value is the conjunction (or disjunction) of, as far as each is used here alone. */
  protected terms(value: Value, name: 'i32.and' | 'i32.or'): readonly Value[] {
    const { by } = value;
    if (by.op !== 'pure' || by.pure.name !== name || (this.#uses.get(value) ?? 0) > 1 || !by.args.every(isTest)) return [value];
    return by.args.flatMap((arg) => this.terms(arg, name));
  }

  /** Raising an exception or calling a helper is the rarer way. */
  protected hintIf({ then, else: otherwise }: Extract<Statement, { op: 'if' }>): void {
    const no = rarely(then);
    if (no !== rarely(otherwise)) this.hint(!no);
  }

  /** A helper's argument: 64-bit integers go as two halves, low first. */
  protected argument(value: Value): void {
    this.value(value);
    if (value.type !== 'i64') return;
    const local = this.temporary('i64');
    this.tee(local);
    this.op(W.wrap);
    this.get(local);
    this.i64(32n);
    this.op(W.i64Shr, W.wrap);
  }

  #variable(variable: Variable): number {
    let local = this.#variables.get(variable);
    if (local === undefined) {
      local = this.temporary(variable.type);
      this.#variables.set(variable, local);
    }
    return local;
  }

  // --- guest memory ---------------------------------------------------------------------------------------------

  /**
   * Finds the TLB entry of the linear address in local `la` and leaves the host address on the stack, or branches
   * to the label at `missDepth` (counted from where this is called).
   */
  protected probe(la: number, tag: number, bytes: number, aligned: boolean, missDepth: number): void {
    const entry = this.tlbEntry(la);
    this.pageOf(la, bytes, aligned);
    this.loadAt(entry, 'i64', 64, tag);
    this.op(W.i64Ne);
    this.hint(false);
    this.brIf(missDepth);
    this.get(la);
    if (!this.target.memory64) this.op(W.wrap);
    this.addend(entry);
    this.op(this.target.memory64 ? W.i64Add : W.i32Add);
  }

  /** Pushes what the tag of the TLB entry for some bytes at `la` must be. */
  protected pageOf(la: number, bytes: number, aligned: boolean): void {
    this.get(la);
    if (bytes > 1 && !aligned) {
      this.i64(BigInt(bytes - 1));
      this.op(W.i64Add);
    }
    // With the low bits kept in the comparison, a misaligned locked access misses too.
    this.i64(aligned ? BigInt(-4096 | (bytes - 1)) : -4096n);
    this.op(W.i64And);
  }
  /** Pushes what an entry says is added to linear addresses. */
  protected addend(entry: number): void {
    this.loadAt(entry, this.pointerType, this.target.memory64 ? 64 : 32, S.TLB_ADDEND);
  }
  /** A local with the address of the TLB entry for a linear address. */
  protected tlbEntry(la: number): number {
    const entry = this.temporary('i32');
    this.get(la);
    this.op(W.wrap);
    this.i32(12 - Math.log2(S.TLB_ENTRY_BYTES));
    this.op(0x76); // i32.shr_u
    this.i32((S.TLB_ENTRIES - 1) * S.TLB_ENTRY_BYTES);
    this.op(W.i32And);
    this.tlbBase();
    this.op(W.i32Add);
    this.set(entry);
    return entry;
  }

  /** Puts the address of the instruction TLB's entry for the linear address in local `la` into local `entry`. */
  protected itlbEntry(la: number, entry: number): void {
    this.loadAt(CPU, 'i32', 32, S.ITLB);
    this.get(la);
    this.i64(BigInt(12 - Math.log2(S.ITLB_ENTRY_BYTES)));
    this.op(W.i64Shr, W.wrap);
    this.i32((S.ITLB_ENTRIES - 1) * S.ITLB_ENTRY_BYTES);
    this.op(W.i32And, W.i32Add);
    this.set(entry);
  }

  /** Calls a slow-path helper; leaves the host address on the stack, or leaves translated code on a fault. */
  protected slow(helper: string, la: number, bytes: number): void {
    const pointer = this.temporary('i32');
    this.storeState(S.SLOW_POINTER, 64, () => this.get(la));
    this.record();
    this.i32(bytes);
    this.slowly(helper);
    this.tee(pointer);
    this.op(W.i32Eqz);
    this.hint(false);
    this.open(W.if);
    this.fault();
    this.end();
    if (this.target.memory64) this.loadAt(CPU, 'i64', 64, S.SLOW_POINTER);
    else this.get(pointer);
  }

  /** The local of an address. */
  #address(value: Value): number {
    const known = this.#local.get(value);
    if (known !== undefined) return known;
    const local = this.temporary('i64');
    this.value(value);
    this.set(local);
    return local;
  }

  /**
   * Writes both ways of an access: `access` takes the host address from the stack, where it is left with `offset` to be
   * added; `end` follows it on the slow way.
   */
  #guest(statement: Access, helper: string, flags: number, access: (offset: number) => void, end: () => void): void {
    const la = this.#address(statement.args[0]);
    const bytes = statement.bits / 8;
    const lock = statement.op === 'rmw.begin' && statement.lock;
    this.open(W.block);
    const window = this.window(statement, la);
    if (window !== undefined) {
      this.open(W.block);
      this.get(window.local);
      this.op(this.target.memory64 ? 0x50 : W.i32Eqz); // i64.eqz
      this.hint(false);
      this.brIf(0);
      this.get(window.local);
      access(window.offset);
      this.br(1);
      this.end();
    }
    this.open(W.block);
    const tag = statement.op === 'load' ? S.TLB_READ : S.TLB_WRITE;
    if (window === undefined) this.lookUp(la, tag, bytes, lock, 0);
    else this.probe(la, tag, bytes, lock, 0);
    access(0);
    this.br(1);
    this.end();
    this.slow(helper, la, bytes | flags);
    access(0);
    end();
    this.end();
  }

  protected guestLoad(statement: Extract<Access, { op: 'load' }>): void {
    const { value, bits, signed } = statement;
    const out = this.temporary(value.type);
    const load = (offset: number): void => {
      this.load(value.type, bits, signed, offset);
      this.set(out);
    };
    this.#guest(statement, 'slow_load', 0, load, () => {});
    this.#local.set(value, out);
  }

  protected guestStore(statement: Extract<Access, { op: 'store' }>): void {
    const { bits } = statement;
    const data = statement.args[1];
    // It is pushed in several places.
    this.#address(statement.args[0]);
    this.keep(data);
    const store = (offset: number): void => {
      this.value(data);
      this.storeOp(data.type, bits, offset);
    };
    this.#guest(statement, 'slow_store', this.storeFlags(), store, () => {
      this.record();
      this.slowly('slow_store_end');
      this.op(W.drop);
      this.afterSlowStore();
    });
  }

  protected rmwBegin(statement: Extract<Access, { op: 'rmw.begin' }>): void {
    const out = this.temporary(this.pointerType);
    const take = (offset: number): void => {
      if (offset !== 0) this.pointer(offset);
      if (offset !== 0) this.op(this.target.memory64 ? W.i64Add : W.i32Add);
      this.set(out);
    };
    const flags = this.storeFlags() | (statement.lock ? S.SlowStore.LOCK : 0);
    this.#guest(statement, 'slow_rmw', flags, take, () => {});
    this.#local.set(statement.value, out);
  }

  protected rmwEnd(token: Value): void {
    // A token that points at the scratch was not written through to memory yet.
    this.value(token);
    if (this.target.memory64) this.op(W.wrap);
    this.get(CPU);
    this.i32(S.SCRATCH);
    this.op(W.i32Add, W.i32Eq);
    this.hint(false);
    this.open(W.if);
    this.record();
    this.slowly('slow_rmw_end');
    this.op(W.drop);
    this.afterSlowStore();
    this.end();
  }

  /** Counts an entry in a word of the record; at the entry `hot` it leaves to say so. */
  protected countEntry(field: number, hot: number): void {
    const entered = this.temporary('i32');
    this.loadAt(REC, 'i32', 32, field);
    this.i32(1);
    this.op(W.i32Add);
    this.set(entered);
    this.get(REC);
    this.toAddress();
    this.get(entered);
    this.storeOp('i32', 32, field);
    this.get(entered);
    this.i32(hot);
    this.op(W.i32Eq);
    this.hint(false);
    this.open(W.if);
    this.storeState(S.STOPPED_AT, 32, () => this.get(REC));
    this.leave(Exit.HOT);
    this.end();
  }

  // --- what tiers override --------------------------------------------------------------------------------------

  /** Calls the helper of a memory access that may reach a device. */
  protected slowly(helper: string): void {
    this.call(helper);
  }
  /** Pushes the address of the current instruction's record. */
  protected record(): void {
    this.get(REC);
  }
  protected tlbBase(): void {
    this.loadAt(CPU, 'i32', 32, S.TLB);
  }
  protected field(statement: Extract<Statement, { op: 'field' }>): void {
    const offset = S.RECORD[statement.field];
    switch (statement.field) {
      case 'a':
      case 'b':
      case 'c':
      case 'base':
      case 'index':
      case 'segment':
      case 'offset':
        this.loadAt(REC, 'i32', 16, offset);
        break;
      case 'length':
      case 'scale':
        this.loadAt(REC, 'i32', 8, offset);
        break;
      case 'wide':
        this.loadAt(REC, 'i64', 64, offset);
        break;
      default:
        this.loadAt(REC, 'i32', 32, offset);
    }
  }
  protected getState(statement: Extract<Statement, { op: 'get' }>): void {
    this.#slot(statement.slot);
    this.load(statement.value.type, statement.bits, statement.signed, statement.offset);
  }
  protected putState(statement: Extract<Statement, { op: 'put' }>): void {
    this.#slot(statement.slot);
    const [value] = statement.args;
    this.value(value);
    this.storeOp(value.type, statement.bits, statement.offset);
  }
  #slot(slot: Value): void {
    this.get(CPU);
    if (slot.by.op !== 'const' || slot.by.bits !== 0n) {
      this.value(slot);
      this.op(W.i32Add);
    }
    this.toAddress();
  }
  /** Before a helper's code is returned. */
  protected leaving(): void {
    this.storeState(S.LEFT_AT, 32, () => this.get(REC));
  }
  /** Leaves before the current instruction: what its run retired so far is counted outside. */
  protected leaveBefore(code: number): void {
    this.storeState(S.LEFT_AT, 32, () => {
      this.get(REC);
      this.i32(1);
      this.op(W.i32Or);
    });
    this.leave(code);
  }
  /** Flags of slow stores. The baseline notices by itself that it wrote code: the records behind are RESYNC records then. */
  protected storeFlags(): number {
    return 0;
  }
  /** After a store that may have gone to a device. */
  protected afterSlowStore(): void {}
  /** `probe`, for an access that will look for its page again. */
  protected lookUp(la: number, tag: number, bytes: number, aligned: boolean, missDepth: number): void {
    this.probe(la, tag, bytes, aligned, missDepth);
  }
  /** The window that an access lies in: the local with its host address (0: none) and the offset there; made where it is not. */
  protected window(_access: Access, _la: number): { local: number; offset: number } | undefined {
    return undefined;
  }
  protected beforeCall(_statement: Extract<Statement, { op: 'call' }>): void {}
  protected afterCall(_statement: Extract<Statement, { op: 'call' }>): void {}
  /** Leaves with the exception that a helper stored. */
  protected fault(): void {
    this.storeState(S.STOPPED_AT, 32, () => this.record());
    this.leave(Exit.FAULT);
  }
  protected raise(vector: number, code: number): void {
    if (vector >= 0) {
      this.storeState(S.EXCEPTION, 32, () => this.i32(vector));
      this.storeState(S.EXCEPTION_CODE, 32, () => this.i32(code));
    }
    this.fault();
  }
  protected next(): void {
    const next = this.temporary('i32');
    this.get(CPU);
    this.get(REC);
    this.i32(S.RECORD_BYTES);
    this.op(W.i32Add);
    this.tee(next);
    this.get(next);
    this.toAddress();
    this.load('i32', 32, false, S.RECORD.handler);
    this.tailCall();
  }
  /** Pushes the address that `JUMPS_AT` is added to for the jump cache's entry of a RIP. */
  protected jumpEntry(rip: number): void {
    this.get(rip);
    this.get(rip);
    this.i64(12n);
    this.op(W.i64Shr, 0x85); // i64.xor
    this.op(W.wrap);
    this.loadAt(CPU, 'i32', 32, S.JUMP_STAMP);
    this.op(0x73); // i32.xor
    this.i32(S.JUMPS - 1);
    this.op(W.i32And);
    this.i32(Math.log2(S.JUMP_BYTES));
    this.op(W.i32Shl);
    this.get(CPU);
    this.op(W.i32Add);
  }
  /** Goes on at the RIP in `rip` where the jump cache knows it and nothing is pending. */
  protected jumpCached(rip: number): void {
    const entry = this.temporary('i32');
    const record = this.temporary('i32');
    this.open(W.block);
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.brIf(0);
    this.jumpEntry(rip);
    this.set(entry);
    this.loadAt(entry, 'i64', 64, S.JUMPS_AT);
    this.get(rip);
    this.op(W.i64Ne);
    this.hint(false);
    this.brIf(0);
    this.loadAt(entry, 'i32', 32, S.JUMPS_AT + 8);
    this.loadAt(CPU, 'i32', 32, S.JUMP_STAMP);
    this.op(0x47); // i32.ne
    this.hint(false);
    this.brIf(0);
    this.storeState(S.RIP_BASE, 64, () => {
      this.get(rip);
      this.i64(-4096n);
      this.op(W.i64And);
    });
    this.get(CPU);
    this.loadAt(entry, 'i32', 32, S.JUMPS_AT + 12);
    this.tee(record);
    this.loadAt(record, 'i32', 32, S.RECORD.handler);
    this.tailCall();
    this.end();
  }
  /** Tail-calls the handler whose arguments and table index are on the stack. */
  protected tailCall(): void {
    this.code.u8(W.returnCallIndirect);
    this.code.u32(this.target.functionType);
    this.code.u32(0);
  }
  /** Adds the instructions from the start of the run to this record to the count. */
  #retire(field: number): void {
    this.storeState(S.INSTRUCTIONS, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
      this.loadAt(REC, 'i64', 32, field);
      this.op(W.i64Add);
    });
    this.watchCount();
  }
  /** Pushes how many instructions were retired. */
  protected retiredSoFar(): void {
    this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
  }
  /** At the ends of runs and at taken branches, the same ones in both tiers. */
  protected watchCount(): void {
    if (this.target.counting !== true) return;
    this.retiredSoFar();
    this.loadAt(CPU, 'i64', 64, S.COUNT_LIMIT);
    this.op(0x5a); // i64.ge_u
    this.hint(false);
    this.open(W.if);
    this.get(CPU);
    this.toAddress();
    this.i32(S.Pending.COUNT);
    this.op(0xfe, 0x33); // i32.atomic.rmw.or
    this.memarg(2, S.PENDING);
    this.op(W.drop);
    this.end();
  }
  protected jump(target: Value): void {
    const rip = this.temporary('i64');
    this.value(target);
    this.set(rip);
    this.#retire(S.RECORD.link);
    this.storeState(S.STOPPED_AT, 32, () => this.i32(0));
    this.get(CPU);
    this.get(rip);
    this.code.u8(W.returnCall);
    this.code.u32(this.target.helper('$jump'));
  }
  protected branch(bits: 16 | 32 | 64): void {
    const link = this.temporary('i32');
    const rip = this.temporary('i64');
    this.#retire(S.RECORD.disp);
    this.open(W.block);
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.brIf(0);
    this.loadAt(REC, 'i32', 32, S.RECORD.link);
    this.tee(link);
    this.op(W.i32Eqz);
    this.hint(false);
    this.brIf(0);
    this.get(CPU);
    this.get(link);
    this.get(link);
    this.toAddress();
    this.load('i32', 32, false, S.RECORD.handler);
    this.tailCall();
    this.end();
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.loadAt(REC, 'i64', 16, S.RECORD.offset);
    this.op(W.i64Add);
    this.loadAt(REC, 'i64', 8, S.RECORD.length);
    this.op(W.i64Add);
    this.loadAt(REC, 'i64', 32, S.RECORD.imm, true);
    this.op(W.i64Add);
    if (bits !== 64) {
      this.i64(bits === 16 ? 0xffffn : 0xffffffffn);
      this.op(W.i64And);
    }
    this.set(rip);
    this.storeState(S.STOPPED_AT, 32, () => this.get(REC));
    this.get(CPU);
    this.get(rip);
    this.code.u8(W.returnCall);
    this.code.u32(this.target.helper('$jump'));
  }
}
