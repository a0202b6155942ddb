/**
 * The reference executor: walks the IR of one instruction, statement by statement, over the same state block and
 * guest memory as translated code. It is there to be right, not fast: values are big integers, every guest access
 * takes the slow path with a page walk, and arithmetic flags are worked out from what SDM 1, 3.4.3.1 says of each
 * rather than from the lazy encoding of `ir/flags`.
 */
import type { Body, FieldName, FlagKind, MemorySize, Statement, Value, Variable } from '../ir/builder.ts';
import { evaluate, fromNumber, toNumber } from '../ir/evaluate.ts';
import { Exit } from '../ir/exit.ts';
import type { Type } from '../ir/ops.ts';
import { printBody } from '../ir/print.ts';
import * as S from '../memory/vcpu-state.ts';

/** What of a vCPU the executor needs. */
export interface ReferenceState {
  /** Byte offset of the state block in the machine memory. */
  readonly at: number;
  readonly buffer: ArrayBufferLike;
  /** EFLAGS with the arithmetic flags filled in. */
  readonly eflags: number;
  /** Sets OF, SF, ZF, AF, PF and CF from an image of EFLAGS. */
  setArithmetic(flags: number): void;
}

/** Guest memory by the linear address in SLOW_POINTER; see `Paging`. A pointer of 0 means that EXCEPTION is set. */
export interface ReferenceMemory {
  slowLoad(bytes: number): number;
  slowStore(flags: number): number;
  slowStoreEnd(): void;
  slowRmw(flags: number): number;
  slowRmwEnd(): void;
}

export type ReferenceHelper = (record: number, ...operands: number[]) => number;

const CF = 1;
const PF = 4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;

const WIDTH: Record<Type, number> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 };

/** Thrown to leave nested bodies with an exit code. */
class Left {
  readonly code: number;
  constructor(code: number) {
    this.code = code;
  }
}

export class ReferenceExecutor {
  readonly #state: ReferenceState;
  readonly #memory: ReferenceMemory;
  readonly #helpers: Readonly<Record<string, ReferenceHelper>>;
  readonly #bytes: Uint8Array;
  readonly #data: DataView;
  #values = new Map<Value, bigint>();
  #variables = new Map<Variable, bigint>();
  #record = 0;

  constructor(state: ReferenceState, memory: ReferenceMemory, helpers: Readonly<Record<string, ReferenceHelper>>) {
    this.#state = state;
    this.#memory = memory;
    this.#helpers = helpers;
    this.#bytes = new Uint8Array(state.buffer);
    this.#data = new DataView(state.buffer);
  }

  /**
   * Runs a body for the record at that address of the machine memory. Gives 0 where the next instruction follows,
   * else why it was left (`Exit`), with NEXT_RIP or EXCEPTION and STOPPED_AT as translated code leaves them.
   */
  run(body: Body, record: number): number {
    this.#values = new Map();
    this.#variables = new Map();
    this.#record = record;
    try {
      this.#body(body);
    } catch (problem) {
      if (problem instanceof Left) return problem.code;
      if (problem instanceof Error) throw new Error(`${problem.message}\n${printBody(body)}`, { cause: problem });
      throw problem;
    }
    throw new Error(`IR: a body does not end\n${printBody(body)}`);
  }

  #body(body: Body): void {
    for (const statement of body) this.#statement(statement);
  }

  // --- pieces -----------------------------------------------------------------------------------------------------

  #value(value: Value): bigint {
    const bits = this.#values.get(value);
    if (bits === undefined) throw new Error(`IR: a value of ${value.by.op} is used before its definition`);
    return bits;
  }
  #number(value: Value): number {
    return Number(this.#value(value));
  }
  #define(value: Value, bits: bigint): void {
    this.#values.set(value, BigInt.asUintN(WIDTH[value.type], bits));
  }

  #read(at: number, bits: MemorySize): bigint {
    if (at < 0 || at + bits / 8 > this.#bytes.length) throw new Error('IR: read outside the machine memory');
    let value = 0n;
    for (let n = bits / 8 - 1; n >= 0; n--) value = (value << 8n) | BigInt(this.#bytes[at + n]);
    return value;
  }
  #write(at: number, bits: MemorySize, value: bigint): void {
    if (at < 0 || at + bits / 8 > this.#bytes.length) throw new Error('IR: write outside the machine memory');
    let rest = value;
    for (let n = 0; n < bits / 8; n++) {
      this.#bytes[at + n] = Number(rest & 0xffn);
      rest >>= 8n;
    }
  }
  #extend(value: bigint, bits: MemorySize, signed: boolean): bigint {
    return signed ? BigInt.asIntN(bits, value) : value;
  }

  #slot(statement: { slot: Value; offset: number; bits: MemorySize }): number {
    const offset = Number(BigInt.asIntN(32, this.#value(statement.slot))) + statement.offset;
    if (offset < 0 || offset + statement.bits / 8 > S.STATE_BYTES) throw new Error(`IR: state offset ${offset}`);
    return this.#state.at + offset;
  }

  #field(field: FieldName): bigint {
    const at = this.#record + S.RECORD[field];
    switch (field) {
      case 'a':
      case 'b':
      case 'c':
      case 'base':
      case 'index':
      case 'segment':
      case 'offset':
        return BigInt(this.#data.getUint16(at, true));
      case 'length':
      case 'scale':
        return BigInt(this.#data.getUint8(at));
      case 'wide':
        return this.#data.getBigInt64(at, true);
      default:
        return BigInt(this.#data.getInt32(at, true));
    }
  }

  #state32(offset: number, value: number): void {
    this.#data.setInt32(this.#state.at + offset, value, true);
  }
  #fault(): never {
    this.#state32(S.STOPPED_AT, this.#record);
    throw new Left(Exit.FAULT);
  }
  #jump(rip: bigint): never {
    this.#data.setBigUint64(this.#state.at + S.NEXT_RIP, BigInt.asUintN(64, rip), true);
    this.#state32(S.STOPPED_AT, 0);
    throw new Left(Exit.JUMP);
  }

  /** The host address that a slow path gave, or leaves with its fault. */
  #pointer(answer: number): number {
    if (answer === 0) this.#fault();
    return Number(this.#data.getBigUint64(this.#state.at + S.SLOW_POINTER, true));
  }
  /** Puts an address to where slow paths look for it. */
  #slowAt(address: Value): void {
    this.#write(this.#state.at + S.SLOW_POINTER, 64, this.#value(address));
  }

  // --- flags ------------------------------------------------------------------------------------------------------

  #setFlags(kind: FlagKind, bits: number, args: readonly bigint[]): void {
    const mask = (1n << BigInt(bits)) - 1n;
    const sign = 1n << BigInt(bits - 1);
    const x = args[0] & mask;
    const y = (args[1] ?? 0n) & mask;
    const z = (args[2] ?? 0n) & mask;
    let result = x;
    let carry = false;
    let overflow = false;
    let adjust = false;
    switch (kind) {
      case 'add': {
        result = z;
        const carryIn = (z - x - y) & mask;
        if (carryIn > 1n) throw new Error('IR: flags of an addition that is none');
        carry = x + y + carryIn > mask;
        const exact = BigInt.asIntN(bits, x) + BigInt.asIntN(bits, y) + carryIn;
        overflow = exact !== BigInt.asIntN(bits, exact);
        adjust = (x & 15n) + (y & 15n) + carryIn > 15n;
        break;
      }
      case 'sub': {
        result = z;
        const borrowIn = (x - y - z) & mask;
        if (borrowIn > 1n) throw new Error('IR: flags of a subtraction that is none');
        carry = x < y + borrowIn;
        const exact = BigInt.asIntN(bits, x) - BigInt.asIntN(bits, y) - borrowIn;
        overflow = exact !== BigInt.asIntN(bits, exact);
        adjust = (x & 15n) < (y & 15n) + borrowIn;
        break;
      }
      case 'inc':
      case 'dec':
        result = y;
        if (((kind === 'inc' ? x + 1n : x - 1n) & mask) !== y) throw new Error(`IR: flags of a ${kind} that is none`);
        carry = (this.#state.eflags & CF) !== 0;
        overflow = kind === 'inc' ? x === sign - 1n : x === sign;
        adjust = (x & 15n) === (kind === 'inc' ? 15n : 0n);
        break;
      case 'logic':
        break;
      case 'result':
        if (args[1] > 1n || args[2] > 1n) throw new Error('IR: CF and OF are 0 or 1');
        carry = args[1] !== 0n;
        overflow = args[2] !== 0n;
        break;
    }
    if (kind === 'compare') {
      const order = new Float64Array(new BigUint64Array([args[0], args[1]]).buffer);
      const unordered = Number.isNaN(order[0]) || Number.isNaN(order[1]);
      this.#state.setArithmetic(unordered ? CF | PF | ZF : order[0] < order[1] ? CF : order[0] === order[1] ? ZF : 0);
      return;
    }
    let parity = 0n;
    for (let n = 0n; n < 8n; n++) parity ^= (result >> n) & 1n;
    this.#state.setArithmetic(
      (carry ? CF : 0) |
        (parity === 0n ? PF : 0) |
        (adjust ? AF : 0) |
        (result === 0n ? ZF : 0) |
        ((result & sign) !== 0n ? SF : 0) |
        (overflow ? OF : 0),
    );
  }

  /** SDM 1, appendix B, table B-1. */
  #condition(code: number): boolean {
    const flags = this.#state.eflags;
    const on = (flag: number): boolean => (flags & flag) !== 0;
    let holds: boolean;
    switch (code >> 1) {
      case 0:
        holds = on(OF);
        break;
      case 1:
        holds = on(CF);
        break;
      case 2:
        holds = on(ZF);
        break;
      case 3:
        holds = on(CF) || on(ZF);
        break;
      case 4:
        holds = on(SF);
        break;
      case 5:
        holds = on(PF);
        break;
      case 6:
        holds = on(SF) !== on(OF);
        break;
      default:
        holds = on(ZF) || on(SF) !== on(OF);
    }
    return holds !== ((code & 1) !== 0);
  }

  // --- statements -------------------------------------------------------------------------------------------------

  #statement(statement: Statement): void {
    switch (statement.op) {
      case 'pure':
        this.#define(
          statement.value,
          evaluate(
            statement.pure,
            statement.args.map((arg) => this.#value(arg)),
            statement.lanes,
          ),
        );
        return;
      case 'const':
        this.#define(statement.value, statement.bits);
        return;
      case 'field':
        this.#define(statement.value, this.#field(statement.field));
        return;
      case 'get':
        this.#define(
          statement.value,
          this.#extend(this.#read(this.#slot(statement), statement.bits), statement.bits, statement.signed),
        );
        return;
      case 'put':
        this.#write(this.#slot(statement), statement.bits, this.#value(statement.args[0]));
        return;
      case 'load': {
        this.#slowAt(statement.args[0]);
        const pointer = this.#pointer(this.#memory.slowLoad(statement.bits / 8));
        this.#define(statement.value, this.#extend(this.#read(pointer, statement.bits), statement.bits, statement.signed));
        return;
      }
      case 'store': {
        this.#slowAt(statement.args[0]);
        const pointer = this.#pointer(this.#memory.slowStore(statement.bits / 8));
        this.#write(pointer, statement.bits, this.#value(statement.args[1]));
        this.#memory.slowStoreEnd();
        return;
      }
      case 'rmw.begin': {
        this.#slowAt(statement.args[0]);
        const flags = (statement.bits / 8) | (statement.lock ? S.SlowStore.LOCK : 0);
        const pointer = this.#pointer(this.#memory.slowRmw(flags));
        this.#define(statement.value, BigInt(pointer));
        return;
      }
      case 'rmw.load':
        this.#define(statement.value, this.#read(this.#number(statement.args[0]), statement.bits));
        return;
      case 'rmw.store':
        this.#write(this.#number(statement.args[0]), statement.bits, this.#value(statement.args[1]));
        return;
      case 'rmw.atomic':
        this.#atomic(statement);
        return;
      case 'rmw.end':
        // A token elsewhere than in the scratch was the place itself.
        if (this.#number(statement.args[0]) === this.#state.at + S.SCRATCH) this.#memory.slowRmwEnd();
        return;
      case 'flags':
        this.#setFlags(
          statement.kind,
          statement.bits,
          statement.args.map((arg) => this.#value(arg)),
        );
        return;
      case 'flags.cfof': {
        const [cf, of] = statement.args.map((arg) => this.#value(arg));
        if (cf > 1n || of > 1n) throw new Error('IR: CF and OF are 0 or 1');
        this.#state.setArithmetic((this.#state.eflags & ~(CF | OF)) | (cf !== 0n ? CF : 0) | (of !== 0n ? OF : 0));
        return;
      }
      case 'flags.cf': {
        const cf = this.#value(statement.args[0]);
        if (cf > 1n) throw new Error('IR: CF is 0 or 1');
        this.#state.setArithmetic((this.#state.eflags & ~CF) | (cf !== 0n ? CF : 0));
        return;
      }
      case 'flags.put':
        this.#state.setArithmetic(this.#number(statement.args[0]));
        return;
      case 'flags.test':
        this.#define(statement.value, this.#condition(statement.condition) ? 1n : 0n);
        return;
      case 'flags.all':
        this.#define(statement.value, BigInt(this.#state.eflags & (CF | PF | AF | ZF | SF | OF)));
        return;
      case 'if':
        this.#body(this.#value(statement.args[0]) !== 0n ? statement.then : statement.else);
        return;
      case 'loop':
        do this.#body(statement.body);
        while (this.#value(statement.again) !== 0n);
        return;
      case 'var.get': {
        const bits = this.#variables.get(statement.variable);
        if (bits === undefined) throw new Error(`IR: variable ${statement.variable.id} has no value`);
        this.#define(statement.value, bits);
        return;
      }
      case 'var.set':
        this.#variables.set(statement.variable, this.#value(statement.args[0]));
        return;
      case 'call':
        this.#call(statement);
        return;
      case 'raise':
        if (statement.vector >= 0) {
          this.#state32(S.EXCEPTION, statement.vector);
          this.#state32(S.EXCEPTION_CODE, statement.code);
        }
        this.#fault();
        break;
      case 'jump':
        this.#jump(this.#value(statement.args[0]));
        break;
      case 'branch': {
        const target =
          this.#read(this.#state.at + S.RIP_BASE, 64) + this.#field('offset') + this.#field('length') + this.#field('imm');
        this.#jump(BigInt.asUintN(statement.bits, target));
        break;
      }
      case 'next':
        throw new Left(0);
    }
  }

  #atomic(statement: Extract<Statement, { op: 'rmw.atomic' }>): void {
    const { bits } = statement;
    const at = this.#number(statement.args[0]);
    const old = this.#read(at, bits);
    const operand = this.#value(statement.args[1]);
    let result: bigint;
    switch (statement.kind) {
      case 'add':
        result = old + operand;
        break;
      case 'sub':
        result = old - operand;
        break;
      case 'and':
        result = old & operand;
        break;
      case 'or':
        result = old | operand;
        break;
      case 'xor':
        result = old ^ operand;
        break;
      case 'xchg':
        result = operand;
        break;
      case 'cmpxchg':
        // The whole of what is expected is compared, as WebAssembly does: high bits that are set make it unequal.
        result = old === operand ? this.#value(statement.args[2]) : old;
        break;
    }
    this.#write(at, bits, BigInt.asUintN(bits, result));
    this.#define(statement.value, old);
  }

  #call(statement: Extract<Statement, { op: 'call' }>): void {
    const helper = this.#helpers[statement.name];
    if (helper === undefined) throw new Error(`IR: no helper ${statement.name}`);
    const operands: number[] = [];
    for (const arg of statement.args) {
      const bits = this.#value(arg);
      switch (arg.type) {
        case 'i32':
          operands.push(Number(BigInt.asIntN(32, bits)));
          break;
        case 'i64':
          operands.push(Number(BigInt.asIntN(32, bits)), Number(BigInt.asIntN(32, bits >> 32n)));
          break;
        case 'f32':
        case 'f64':
          operands.push(toNumber(WIDTH[arg.type], bits));
          break;
        default:
          throw new Error(`IR: a helper cannot take ${arg.type}`);
      }
    }
    const result = helper(this.#record, ...operands);
    const { type } = statement.value;
    if (statement.leaves) {
      if (result !== 0) throw new Left(result);
      this.#define(statement.value, 0n);
    } else this.#define(statement.value, type === 'f32' || type === 'f64' ? fromNumber(WIDTH[type], result) : BigInt(result | 0));
  }
}
