/**
 * Checks that a body of IR keeps the rules of `builder.ts`: types of operands, definition before use and scope,
 * variables assigned on every path before they are read, read-modify-writes that are begun and ended in one body,
 * and nothing after a statement that ends the instruction.
 */
import { RECORD, STATE_BYTES } from '../memory/vcpu-state.ts';
import type { Body, FlagKind, MemorySize, Statement, Value, Variable } from './builder.ts';
import type { Type } from './ops.ts';
import { printBody } from './print.ts';

/** A body that breaks a rule: `message` says which and where, `problems` has one line each. */
export class VerifyError extends Error {
  readonly problems: readonly string[];
  constructor(problems: readonly string[], body: Body) {
    super(`IR: ${problems.join('; ')}\n${printBody(body)}`);
    this.name = 'VerifyError';
    this.problems = problems;
  }
}

/** Throws a `VerifyError` where `body` breaks a rule. `complete`: every path must end the instruction. */
export function verify(body: Body, options: { readonly complete?: boolean } = {}): void {
  const problems = check(body, options);
  if (problems.length > 0) throw new VerifyError(problems, body);
}

/** The rules that `body` breaks, one text each; none where it is right. */
export function check(body: Body, options: { readonly complete?: boolean } = {}): readonly string[] {
  const verifier = new Verifier();
  const after = verifier.body(body, new Set(), new Set());
  if (options.complete === true && after !== undefined) verifier.problem('a path does not end the instruction');
  return verifier.problems;
}

/** True where no path through the body reaches its end. */
export function ends(body: Body): boolean {
  const last = body.at(-1);
  if (last === undefined) return false;
  return ENDINGS.has(last.op) || (last.op === 'if' && ends(last.then) && ends(last.else));
}

const ENDINGS: ReadonlySet<Statement['op']> = new Set(['raise', 'jump', 'branch', 'next']);

/** Pairs of type and width that state and memory are read with, and written with. */
const READS = new Set('i32/8 i32/16 i32/32 i64/8 i64/16 i64/32 i64/64 f32/32 f64/64 v128/32 v128/64 v128/128'.split(' '));
const WRITES = new Set('i32/8 i32/16 i32/32 i64/8 i64/16 i64/32 i64/64 f32/32 f64/64 v128/128'.split(' '));

const typeOf = (bits: MemorySize): Type => (bits === 128 ? 'v128' : bits === 64 ? 'i64' : 'i32');

/** Operands of each flag producer: `v` of the operand size, `b` an i32 of 0 or 1, `d` a double. */
const FLAG_OPERANDS: Record<FlagKind, string> = {
  add: 'vvv',
  sub: 'vvv',
  logic: 'v',
  inc: 'vv',
  dec: 'vv',
  result: 'vbb',
  compare: 'dd',
};
const FLAG_TYPES: Record<string, Type> = { b: 'i32', d: 'f64' };

const LANES: Record<string, number> = { i8x16: 16, i16x8: 8, i32x4: 4, i64x2: 2, f32x4: 4, f64x2: 2 };

class Verifier {
  readonly problems: string[] = [];
  /** Every value that was defined anywhere: one is defined once. */
  readonly #defined = new Set<Value>();
  #at = '';

  problem(text: string): void {
    this.problems.push(this.#at === '' ? text : `${this.#at}: ${text}`);
  }

  /**
   * Checks a body, given the values in scope and the variables assigned before it. Gives the variables assigned
   * after it, or undefined where no path reaches its end. `inner` collects what is in scope at the end.
   */
  body(
    body: Body,
    scope: ReadonlySet<Value>,
    assigned: ReadonlySet<Variable>,
    inner: Set<Value> = new Set(scope),
  ): Set<Variable> | undefined {
    let now: Set<Variable> | undefined = new Set(assigned);
    const open = new Set<Value>();
    for (const [n, statement] of body.entries()) {
      this.#at = `statement ${n} (${statement.op})`;
      if (now === undefined) {
        this.problem('comes after the end of the instruction');
        break;
      }
      now = this.#statement(statement, inner, now, open);
    }
    this.#at = '';
    if (now !== undefined) for (const _ of open) this.problem('a read-modify-write is not ended');
    return now;
  }

  #use(value: Value | undefined, scope: ReadonlySet<Value>, type: Type | undefined, what: string): void {
    if (value === undefined) {
      this.problem(`${what} is missing`);
      return;
    }
    if (!scope.has(value))
      this.problem(`${what} (of ${value.by.op}) is ${this.#defined.has(value) ? 'out of scope' : 'used before its definition'}`);
    if (type !== undefined && value.type !== type) this.problem(`${what} is ${value.type}, not ${type}`);
  }

  #define(statement: Statement & { value: Value }, scope: Set<Value>, type?: Type): void {
    const { value } = statement;
    if (value === undefined || value.by !== statement) {
      this.problem('its value belongs to another statement');
      return;
    }
    if (this.#defined.has(value)) this.problem('its value is defined twice');
    if (type !== undefined && value.type !== type) this.problem(`gives ${value.type}, not ${type}`);
    this.#defined.add(value);
    scope.add(value);
  }

  #count(args: readonly Value[], count: number): boolean {
    if (args.length === count) return true;
    this.problem(`has ${args.length} operands, not ${count}`);
    return false;
  }

  #access(pairs: ReadonlySet<string>, type: Type, bits: MemorySize): void {
    if (!pairs.has(`${type}/${bits}`)) this.problem(`no access of ${bits} bits with ${type}`);
  }

  #slot(statement: { slot: Value; offset: number; bits: MemorySize }, scope: ReadonlySet<Value>): void {
    this.#use(statement.slot, scope, 'i32', 'slot');
    const { by } = statement.slot;
    const base = by.op === 'const' ? Number(BigInt.asIntN(32, by.bits)) : 0;
    const first = base + statement.offset;
    if (!Number.isInteger(statement.offset) || first < 0 || first + statement.bits / 8 > STATE_BYTES)
      this.problem(`state offset ${first} lies outside the state block`);
  }

  #token(statement: Extract<Statement, { op: 'rmw.load' | 'rmw.store' | 'rmw.atomic' | 'rmw.end' }>): void {
    const by = statement.args[0]?.by;
    if (by?.op !== 'rmw.begin') this.problem('its token is not of rmw.begin');
    else {
      if (by.bits !== statement.bits) this.problem(`has ${statement.bits} bits where rmw.begin has ${by.bits}`);
      if (statement.op === 'rmw.atomic' && !by.lock) this.problem('is atomic, but rmw.begin does not lock');
    }
  }

  #statement(statement: Statement, scope: Set<Value>, assigned: Set<Variable>, open: Set<Value>): Set<Variable> | undefined {
    if (!statement.op.startsWith('rmw.') && 'args' in statement)
      for (const arg of statement.args) if (arg?.by?.op === 'rmw.begin') this.problem('uses the token of a read-modify-write');
    switch (statement.op) {
      case 'pure': {
        const { pure, args, lanes } = statement;
        if (this.#count(args, pure.args.length))
          for (const [n, arg] of args.entries()) this.#use(arg, scope, pure.args[n], `operand ${n}`);
        if (lanes.length !== pure.immediates) this.problem(`${pure.name} has ${lanes.length} immediates, not ${pure.immediates}`);
        const limit = pure.immediates === 16 ? 32 : (LANES[pure.name.split('.')[0]] ?? 0);
        for (const lane of lanes)
          if (!Number.isInteger(lane) || lane < 0 || lane >= limit) this.problem(`lane ${lane} of ${pure.name}`);
        this.#define(statement, scope, pure.result);
        break;
      }
      case 'const':
        if (typeof statement.bits !== 'bigint') this.problem('is no constant');
        this.#define(statement, scope);
        break;
      case 'field':
        if (!(statement.field in RECORD)) this.problem(`the record has no field ${statement.field}`);
        this.#define(statement, scope, statement.field === 'wide' ? 'i64' : 'i32');
        break;
      case 'get':
        this.#slot(statement, scope);
        this.#access(READS, statement.value.type, statement.bits);
        this.#define(statement, scope);
        break;
      case 'put':
        this.#slot(statement, scope);
        this.#use(statement.args[0], scope, undefined, 'value');
        this.#access(WRITES, statement.args[0].type, statement.bits);
        break;
      case 'load':
        this.#use(statement.args[0], scope, 'i64', 'address');
        this.#access(READS, statement.value.type, statement.bits);
        this.#define(statement, scope);
        break;
      case 'store':
        this.#use(statement.args[0], scope, 'i64', 'address');
        this.#use(statement.args[1], scope, undefined, 'value');
        this.#access(WRITES, statement.args[1].type, statement.bits);
        break;
      case 'rmw.begin':
        this.#use(statement.args[0], scope, 'i64', 'address');
        this.#define(statement, scope, 'i64');
        open.add(statement.value);
        break;
      case 'rmw.load':
        this.#use(statement.args[0], scope, 'i64', 'token');
        this.#token(statement);
        this.#access(READS, statement.value.type, statement.bits);
        this.#define(statement, scope);
        break;
      case 'rmw.store':
        this.#use(statement.args[0], scope, 'i64', 'token');
        this.#token(statement);
        this.#use(statement.args[1], scope, undefined, 'value');
        this.#access(WRITES, statement.args[1].type, statement.bits);
        break;
      case 'rmw.atomic':
        this.#use(statement.args[0], scope, 'i64', 'token');
        this.#token(statement);
        if (this.#count(statement.args, statement.kind === 'cmpxchg' ? 3 : 2))
          for (const [n, arg] of statement.args.entries())
            if (n > 0) this.#use(arg, scope, typeOf(statement.bits), `operand ${n}`);
        this.#define(statement, scope, typeOf(statement.bits));
        break;
      case 'rmw.end':
        this.#use(statement.args[0], scope, 'i64', 'token');
        this.#token(statement);
        if (!open.delete(statement.args[0])) this.problem('ends a read-modify-write that is not open in this body');
        break;
      case 'flags': {
        const operands = FLAG_OPERANDS[statement.kind];
        if (this.#count(statement.args, operands.length))
          for (const [n, arg] of statement.args.entries())
            this.#use(arg, scope, FLAG_TYPES[operands[n]] ?? typeOf(statement.bits), `operand ${n}`);
        break;
      }
      case 'flags.cfof':
        if (this.#count(statement.args, 2))
          for (const [n, arg] of statement.args.entries()) this.#use(arg, scope, 'i32', `operand ${n}`);
        break;
      case 'flags.cf':
      case 'flags.put':
        if (this.#count(statement.args, 1)) this.#use(statement.args[0], scope, 'i32', 'operand');
        break;
      case 'flags.test':
        if (!Number.isInteger(statement.condition) || statement.condition < 0 || statement.condition > 15)
          this.problem(`condition ${statement.condition}`);
        this.#define(statement, scope, 'i32');
        break;
      case 'flags.all':
        this.#define(statement, scope, 'i32');
        break;
      case 'if': {
        const here = this.#at;
        this.#use(statement.args[0], scope, 'i32', 'condition');
        const yes = this.body(statement.then, scope, assigned);
        const no = this.body(statement.else, scope, assigned);
        this.#at = here;
        if (yes === undefined) return no;
        if (no === undefined) return yes;
        return new Set([...yes].filter((variable) => no.has(variable)));
      }
      case 'loop': {
        const here = this.#at;
        const inner = new Set(scope);
        const after = this.body(statement.body, scope, assigned, inner);
        this.#at = here;
        if (after === undefined) this.problem('its body never comes to its end');
        else this.#use(statement.again, inner, 'i32', 'condition');
        return after;
      }
      case 'var.get':
        if (!assigned.has(statement.variable))
          this.problem(`variable ${statement.variable.id} is read where it may have no value`);
        this.#define(statement, scope, statement.variable.type);
        break;
      case 'var.set':
        this.#use(statement.args[0], scope, statement.variable.type, 'value');
        assigned.add(statement.variable);
        break;
      case 'call':
        if (statement.name === '') this.problem('has no name');
        for (const [n, arg] of statement.args.entries()) {
          this.#use(arg, scope, undefined, `operand ${n}`);
          if (arg.type === 'v128') this.problem(`operand ${n} is v128, which helpers cannot take`);
        }
        if (statement.value.type === 'v128' || statement.value.type === 'i64')
          this.problem(`gives ${statement.value.type}, which helpers cannot`);
        this.#define(statement, scope, statement.leaves ? 'i32' : undefined);
        break;
      case 'raise':
        if (!Number.isInteger(statement.vector) || statement.vector < -1 || statement.vector > 31)
          this.problem(`vector ${statement.vector}`);
        return undefined;
      case 'jump':
        this.#use(statement.args[0], scope, 'i64', 'target');
        return undefined;
      case 'branch':
        if (![16, 32, 64].includes(statement.bits)) this.problem(`${statement.bits} bits`);
        return undefined;
      case 'next':
        return undefined;
    }
    return assigned;
  }
}
