/**
 * What is known of floating-point numbers at one place of a region: of its values, its variables and the vector
 * registers (by the number of their local). See `ir/tame`.
 */
import type { Body, Value, Variable } from '../ir/builder.ts';
import { implied, TAME_ALL, Tame, tameFacts } from '../ir/tame.ts';

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
