/**
 * What is known of floating-point numbers at one place of a region: of its values, its variables and the vector
 * registers (by the number of their local). See `ir/tame`.
 */
import type { Body, Value, Variable } from '../ir/builder.ts';
import { implied, TAME_ALL, Tame, tameFacts } from '../ir/tame.ts';
import { leavesFlow } from './bodies.ts';

const LOW_D = Tame.NORMAL_D | Tame.ORDERED_D;
const LOW_S = Tame.NORMAL_S | Tame.ORDERED_S;

export interface SavedFacts {
  readonly values: ReadonlyMap<Value, number>;
  readonly registers: ReadonlyMap<number, number>;
  readonly variables: ReadonlyMap<Variable, number>;
}

function both<K>(to: Map<K, number>, other: ReadonlyMap<K, number>): void {
  for (const [key, facts] of to) to.set(key, facts & (other.get(key) ?? 0));
}

export class TameFacts {
  /** Of values of the current instruction. */
  #values = new Map<Value, number>();
  #registers = new Map<number, number>();
  #variables = new Map<Variable, number>();
  /** The register that a value was read from, while it holds that value. */
  readonly #readFrom = new Map<Value, number>();

  /** Forgets everything, as at the start of a block. */
  clear(): void {
    this.#registers = new Map();
    this.begin();
  }
  /** An instruction begins: what is known of registers stays. */
  begin(): void {
    this.#values = new Map();
    this.#variables = new Map();
    this.#readFrom.clear();
  }

  save(): SavedFacts {
    return { values: new Map(this.#values), registers: new Map(this.#registers), variables: new Map(this.#variables) };
  }
  restore({ values, registers, variables }: SavedFacts): void {
    this.#values = new Map(values);
    this.#registers = new Map(registers);
    this.#variables = new Map(variables);
  }
  /** Keeps only what holds in the other state too. */
  meet({ values, registers, variables }: SavedFacts): void {
    both(this.#values, values);
    both(this.#registers, registers);
    both(this.#variables, variables);
  }

  of(value: Value): number {
    const { by } = value;
    const register = this.#readFrom.get(value);
    const known = (this.#values.get(value) ?? 0) | (register === undefined ? 0 : (this.#registers.get(register) ?? 0));
    if (by.op === 'const') return value.type === 'v128' && by.bits === 0n ? TAME_ALL : known;
    if (by.op !== 'pure') return known;
    const lowest = by.lanes[0] === 0;
    switch (by.pure.name) {
      case 'f64x2.extract_lane':
        return known | (lowest ? this.of(by.args[0]) & LOW_D : 0);
      case 'f32x4.extract_lane':
        return known | (lowest ? this.of(by.args[0]) & LOW_S : 0);
      case 'f64x2.replace_lane':
        return known | (lowest ? this.of(by.args[1]) & LOW_D : 0);
      case 'f32x4.replace_lane':
        return known | (lowest ? this.of(by.args[1]) & LOW_S : 0);
      case 'f64.convert_i32_s':
      case 'f64.convert_i64_s':
        return LOW_D;
      case 'f32.convert_i32_s':
      case 'f32.convert_i64_s':
        return LOW_S;
      case 'v128.xor':
        return by.args[0] === by.args[1] ? TAME_ALL : known;
      default:
        return known;
    }
  }

  /** The test need not be made. */
  holds(test: Value): boolean {
    return tameFacts(test)?.every(({ of, facts }) => (facts & ~implied(this.of(of))) === 0) ?? false;
  }

  /** The test was made, and held. */
  passed(test: Value): void {
    for (const { of, facts } of tameFacts(test) ?? []) this.#learn(of, implied(facts));
  }

  #learn(value: Value, facts: number): void {
    this.#values.set(value, (this.#values.get(value) ?? 0) | facts);
    const register = this.#readFrom.get(value);
    if (register !== undefined) this.#registers.set(register, (this.#registers.get(register) ?? 0) | facts);
    const { by } = value;
    if (by.op === 'pure' && by.pure.name.endsWith('.extract_lane') && by.lanes[0] === 0) this.#learn(by.args[0], facts);
  }

  /** `value` was read from a register as a whole, or its lowest lane. */
  read(register: number, value: Value): void {
    const facts = this.#registers.get(register);
    if (facts !== undefined && facts !== 0) this.#values.set(value, facts);
    this.#readFrom.set(value, register);
  }

  /** A register was written: as a whole, its lowest lane of 32 or 64 bits, or another part of it. */
  write(register: number, at: number, bits: number, value: Value): void {
    for (const [read, from] of this.#readFrom) if (from === register) this.#readFrom.delete(read);
    const facts = this.of(value);
    if (bits === 128) {
      this.#registers.set(register, facts);
      return;
    }
    const low = (this.#registers.get(register) ?? 0) & (LOW_D | LOW_S);
    if (at === 0) this.#registers.set(register, facts & (bits === 64 ? LOW_D | LOW_S : bits === 32 ? LOW_S : 0));
    else this.#registers.set(register, at >= 8 ? low : 0);
  }

  assign(variable: Variable, value: Value): void {
    this.#variables.set(variable, this.of(value));
  }
  take(variable: Variable, value: Value): void {
    const facts = this.#variables.get(variable);
    if (facts !== undefined && facts !== 0) this.#values.set(value, facts);
  }

  /** At the start of a block: what is known of registers. */
  enter(registers: ReadonlyMap<number, number>): void {
    this.#registers = new Map(registers);
    this.begin();
  }
  get registers(): ReadonlyMap<number, number> {
    return this.#registers;
  }
}

/** A block, for the question what is known where it starts. */
export interface FactBlock {
  readonly bodies: readonly Body[];
  readonly predecessors: readonly FactBlock[];
  /** It is entered from elsewhere too. */
  readonly isEntry: boolean;
}

/** What a block does: facts at its end whatever was before, and whether those about a register go through it. */
class Transfer {
  readonly #tame = new TameFacts();
  readonly #written = new Set<number>();
  #clears = false;
  readonly #registerAt: (at: number) => number | undefined;
  readonly #isStateless: (name: string) => boolean;

  constructor(bodies: readonly Body[], registerAt: (at: number) => number | undefined, isStateless: (name: string) => boolean) {
    this.#registerAt = registerAt;
    this.#isStateless = isStateless;
    for (const body of bodies) {
      this.#tame.begin();
      this.#walk(body);
    }
  }

  /** Facts at the end where `before` are those at the start. */
  after(before: ReadonlyMap<number, number>): Map<number, number> {
    const facts = new Map(this.#tame.registers);
    if (!this.#clears)
      for (const [register, known] of before)
        if (!this.#written.has(register)) facts.set(register, known | (facts.get(register) ?? 0));
    return facts;
  }

  #at({ slot, offset }: { slot: Value; offset: number }): { register: number; at: number } | undefined {
    if (slot.by.op !== 'const') return undefined;
    const at = Number(slot.by.bits) + offset;
    const register = this.#registerAt(at);
    return register === undefined || register < 16 ? undefined : { register, at: at & 15 };
  }
  #clear(): void {
    this.#tame.clear();
    this.#clears = true;
  }

  /** As `RegionLowering` keeps its facts while it writes code. */
  #walk(body: Body): void {
    for (const statement of body)
      switch (statement.op) {
        case 'get': {
          const place = this.#at(statement);
          if (place?.at === 0) this.#tame.read(place.register, statement.value);
          break;
        }
        case 'put': {
          const place = this.#at(statement);
          if (place === undefined) break;
          this.#tame.write(place.register, place.at, statement.bits, statement.args[0]);
          this.#written.add(place.register);
          break;
        }
        case 'var.set':
          this.#tame.assign(statement.variable, statement.args[0]);
          break;
        case 'var.get':
          this.#tame.take(statement.variable, statement.value);
          break;
        case 'call':
          if (statement.leaves || !this.#isStateless(statement.name)) this.#clear();
          break;
        case 'loop':
          this.#clear();
          this.#walk(statement.body);
          this.#clear();
          break;
        case 'if': {
          const before = this.#tame.save();
          this.#pass(statement.args[0]);
          this.#walk(statement.then);
          const then = this.#tame.save();
          this.#tame.restore(before);
          this.#walk(statement.else);
          if (leavesUnlessTame(statement.else)) this.#tame.restore(then);
          else if (!leavesFlow(statement.then)) this.#tame.meet(then);
          break;
        }
        default:
      }
  }
  #pass(condition: Value): void {
    this.#tame.passed(condition);
    if (condition.by.op === 'pure' && condition.by.pure.name === 'i32.and')
      for (const term of condition.by.args) this.#pass(term);
  }
}

/** What is known of registers where each block starts. */
export function factsAtStarts(
  blocks: readonly FactBlock[],
  registerAt: (at: number) => number | undefined,
  isStateless: (name: string) => boolean,
): Map<FactBlock, ReadonlyMap<number, number>> {
  const transfers = new Map(blocks.map((block) => [block, new Transfer(block.bodies, registerAt, isStateless)]));
  const none: ReadonlyMap<number, number> = new Map();
  const starts = new Map<FactBlock, ReadonlyMap<number, number>>();
  for (const block of blocks) if (block.isEntry) starts.set(block, none);
  // Blocks without an entry here were not reached yet: all is known of them.
  for (let changed = true; changed; ) {
    changed = false;
    for (const block of blocks) {
      if (block.isEntry) continue;
      let facts: Map<number, number> | undefined;
      for (const each of block.predecessors) {
        const start = starts.get(each);
        const transfer = transfers.get(each);
        if (start === undefined || transfer === undefined) continue;
        const after = transfer.after(start);
        if (facts === undefined) facts = after;
        else both(facts, after);
      }
      if (facts === undefined || same(facts, starts.get(block))) continue;
      starts.set(block, facts);
      changed = true;
    }
  }
  return starts;
}

/** Whether two maps say the same; no fact is as none. */
function same(facts: ReadonlyMap<number, number>, other: ReadonlyMap<number, number> | undefined): boolean {
  if (other === undefined) return false;
  for (const [register, known] of facts) if (known !== (other.get(register) ?? 0)) return false;
  for (const [register, known] of other) if (known !== (facts.get(register) ?? 0)) return false;
  return true;
}

/** The masks whose lanes' signs a test looks at, where it is one that none is set: `eqz(bitmask(a | b | ...))`. */
export function masksOf(test: Value): { masks: readonly Value[]; code: readonly number[] } | undefined {
  const { by } = test;
  if (by.op !== 'pure' || by.pure.name !== 'i32.eqz') return undefined;
  const [bitmask] = by.args;
  if (bitmask.by.op !== 'pure' || !bitmask.by.pure.name.endsWith('.bitmask')) return undefined;
  const parts = (mask: Value): Value[] =>
    mask.by.op === 'pure' && mask.by.pure.name === 'v128.or' ? mask.by.args.flatMap(parts) : [mask];
  return { masks: parts(bitmask.by.args[0]), code: bitmask.by.pure.code };
}

/** Whether the slow side of a floating-point instruction leaves the region unless all that it saw and made is tame. */
export function leavesUnlessTame(body: Body): boolean {
  const last = body[body.length - 1];
  return (
    last?.op === 'if' &&
    last.then[last.then.length - 1]?.op === 'next' &&
    body.some((statement) => statement.op === 'call' && statement.name === 'sse_float')
  );
}
