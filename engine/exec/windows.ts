/**
 * Which memory accesses of a region lie close together: those whose addresses differ by a constant, as fields of one
 * object or slots of a stack frame do, share one TLB check. It is made at the first of them for the span of all; what
 * it found, the host address of the span's start, is the *window*. Where the span crosses a page or the check fails,
 * the window is zero and each access goes its own way.
 *
 * Addresses are followed as sums: what registers hold where a path begins has names, and what is added to them is kept
 * beside. A path is a block with those that are reached from it alone.
 */
import type { Body, Statement, Value } from '../ir/builder.ts';
import * as S from '../memory/vcpu-state.ts';
import { offsetOf } from './bodies.ts';
import { isAlone, type Node, pageOfOffset } from './control-flow.ts';

/** Bytes that a window spans at most: the longer, the likelier it is that a page ends in it. */
const SPAN = 512;

export type Access = Extract<Statement, { op: 'load' | 'store' | 'rmw.begin' }>;

/** Accesses that share a check. */
export interface Window {
  /** First byte and byte after the last, from the sum that they share. */
  low: number;
  high: number;
  accesses: number;
  writes: boolean;
  /** The sum is taken modulo 2^32. */
  readonly wraps: boolean;
}

/** Where an access lies in its window. */
export interface Place {
  readonly window: Window;
  readonly at: number;
}

/** Named terms with their factors, and what is added to them. `wraps`: modulo 2^32. */
interface Sum {
  readonly terms: ReadonlyMap<number, bigint>;
  readonly plus: bigint;
  readonly wraps: boolean;
}

const FULL = 0xffffffffn;

/** State that addresses are made of: general registers, the segments' bases, the page, what a record before has computed. */
const isAddressing = (at: number): boolean =>
  at < S.GPR + 128 || (at >= S.SEGMENTS && at < S.segment(S.IDTR + 1)) || at === S.RIP_BASE || at === S.ADDRESS;

const pageOf = ({ block }: Node): number => (block === undefined ? 0 : pageOfOffset(block.offset));

class Path {
  /** What lies at state offsets, as sums. */
  readonly state: Map<number, Sum>;
  readonly windows: Map<string, Window>;
  constructor(from?: Path) {
    this.state = new Map(from?.state);
    this.windows = new Map(from?.windows);
  }
}

class Finder {
  readonly places = new Map<Access, Place>();
  readonly #isStateless: (name: string) => boolean;
  readonly #everywhere: boolean;
  #names = 0;
  #path = new Path();
  #values = new Map<Value, Sum>();

  constructor(isStateless: (name: string) => boolean, everywhere: boolean) {
    this.#isStateless = isStateless;
    this.#everywhere = everywhere;
  }

  visit(node: Node, path: Path): void {
    this.#path = path;
    for (const { body } of node.block?.instructions ?? []) {
      this.#values = new Map();
      this.#walk(body, this.#everywhere || node.inner !== undefined);
    }
    const end = this.#path;
    for (const child of node.children) {
      const path = isAlone(child) ? new Path(end) : new Path();
      const base = path.state.get(S.RIP_BASE);
      const pages = pageOf(child) - pageOf(node);
      if (base !== undefined) path.state.set(S.RIP_BASE, { ...base, plus: base.plus + BigInt(pages) * 4096n });
      this.visit(child, path);
    }
  }

  #name(): Sum {
    return { terms: new Map([[this.#names++, 1n]]), plus: 0n, wraps: false };
  }

  #of(value: Value): Sum {
    let sum = this.#values.get(value);
    if (sum === undefined) {
      sum = this.#compute(value);
      this.#values.set(value, sum);
    }
    return sum;
  }

  #compute({ by }: Value): Sum {
    if (by.op === 'const') return { terms: new Map(), plus: by.bits, wraps: false };
    if (by.op !== 'pure') return this.#name();
    const [x, y] = by.args;
    switch (by.pure.name) {
      case 'i64.add':
      case 'i64.sub': {
        const a = this.#of(x);
        const b = this.#of(y);
        if (a.wraps || b.wraps) break;
        const sign = by.pure.name === 'i64.add' ? 1n : -1n;
        const terms = new Map(a.terms);
        for (const [name, factor] of b.terms) {
          const now = (terms.get(name) ?? 0n) + sign * factor;
          if (now === 0n) terms.delete(name);
          else terms.set(name, now);
        }
        return { terms, plus: a.plus + sign * b.plus, wraps: false };
      }
      case 'i64.shl': {
        const count = this.#of(y);
        const a = this.#of(x);
        if (count.terms.size > 0 || a.wraps) break;
        const factor = 1n << (count.plus & 63n);
        return { terms: new Map([...a.terms].map(([name, n]) => [name, n * factor])), plus: a.plus * factor, wraps: false };
      }
      case 'i64.and': {
        const mask = this.#of(y);
        if (mask.terms.size > 0 || mask.plus !== FULL) break;
        // What is modulo 2^32 already, plus something, modulo 2^32.
        const a = this.#modulo(x);
        return { ...a, wraps: true };
      }
      default:
    }
    return this.#name();
  }

  /** A sum of which only the value modulo 2^32 matters. */
  #modulo(value: Value): Sum {
    const { by } = value;
    if (by.op === 'pure' && by.pure.name === 'i64.add') {
      const [a, b] = by.args.map((arg) => this.#modulo(arg));
      const terms = new Map(a.terms);
      for (const [name, factor] of b.terms) terms.set(name, (terms.get(name) ?? 0n) + factor);
      return { terms, plus: a.plus + b.plus, wraps: false };
    }
    return { ...this.#of(value), wraps: false };
  }

  #walk(body: Body, always: boolean): void {
    const { state } = this.#path;
    for (const statement of body) {
      switch (statement.op) {
        case 'get': {
          const at = offsetOf(statement);
          if (statement.bits !== 64 || !isAddressing(at)) break;
          let sum = state.get(at);
          if (sum === undefined) {
            sum = this.#name();
            state.set(at, sum);
          }
          this.#values.set(statement.value, sum);
          break;
        }
        case 'put': {
          const at = offsetOf(statement);
          const whole = statement.bits === 64 && always && at % 8 === 0;
          if (isAddressing(at & ~7)) state.set(at & ~7, whole ? this.#of(statement.args[0]) : this.#name());
          break;
        }
        case 'load':
        case 'store':
          if (always) this.#access(statement, statement.args[0]);
          break;
        case 'rmw.begin':
          if (always && !statement.lock) this.#access(statement, statement.args[0]);
          break;
        case 'call':
          if (this.#isStateless(statement.name)) break;
          state.clear();
          this.#path.windows.clear();
          break;
        case 'if':
          this.#walk(statement.then, false);
          this.#walk(statement.else, false);
          break;
        case 'loop':
          this.#walk(statement.body, false);
          break;
        default:
      }
    }
  }

  #access(statement: Access, address: Value): void {
    const { terms, plus, wraps } = this.#of(address);
    if (terms.size === 0) return;
    const bytes = statement.bits / 8;
    const at = Number(BigInt.asIntN(wraps ? 32 : 64, plus));
    if (!Number.isSafeInteger(at)) return;
    const key = `${wraps ? 'w' : ''}${[...terms]
      .sort(([a], [b]) => a - b)
      .map(([name, factor]) => `${name}*${factor}`)
      .join('+')}`;
    const { windows } = this.#path;
    let window = windows.get(key);
    if (window === undefined || Math.max(window.high, at + bytes) - Math.min(window.low, at) > SPAN) {
      window = { low: at, high: at, accesses: 0, writes: false, wraps };
      windows.set(key, window);
    }
    window.low = Math.min(window.low, at);
    window.high = Math.max(window.high, at + bytes);
    window.accesses++;
    if (statement.op !== 'load') window.writes = true;
    this.places.set(statement, { window, at });
  }
}

/**
 * The places of the accesses that share a check with others. `isStateless`: names of helpers after which registers and
 * the way to memory are as before. `everywhere`: outside of loops too; the code becomes longer.
 */
export function findWindows(root: Node, isStateless: (name: string) => boolean, everywhere: boolean): ReadonlyMap<Access, Place> {
  const finder = new Finder(isStateless, everywhere);
  finder.visit(root, new Path());
  for (const [access, { window }] of finder.places) if (window.accesses < 2) finder.places.delete(access);
  return finder.places;
}
