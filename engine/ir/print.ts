/**
 * Readable text of IR: values numbered in the order of their definition, nested bodies indented. For error messages
 * and `-d ir`.
 *
 *     %0: i32 = field a
 *     %1: i32 = get.8 [%0]
 *     if %1 {
 *       raise 13, 0
 *     }
 */
import { stateName } from '../memory/state-names.ts';
import type { Body, Statement, Value } from './builder.ts';

export interface PrintOptions {
  /** What is known of a statement besides; it goes to the end of its line. */
  note?(statement: Statement): string | undefined;
  /** Constants stand where they are used, and not for themselves. */
  readonly inline?: boolean;
}

/** The body's text, one statement a line. Never fails: a value without a definition is shown as `%?`. */
export function printBody(body: Body, options: PrintOptions = {}): string {
  const printer = new Printer(options);
  printer.body(body, '');
  return printer.lines.join('\n');
}

function constantText(bits: bigint): string {
  const magnitude = bits < 0n ? -bits : bits;
  return `${bits < 0n ? '-' : ''}${magnitude < 10n ? magnitude : `0x${magnitude.toString(16)}`}`;
}

class Printer {
  readonly lines: string[] = [];
  readonly #numbers = new Map<Value, number>();
  readonly #options: PrintOptions;

  constructor(options: PrintOptions) {
    this.#options = options;
  }

  body(body: Body, indent: string): void {
    for (const statement of body) this.#statement(statement, indent);
  }

  #name(value: Value | undefined): string {
    if (value === undefined) return '%?';
    if (this.#options.inline === true && value.by.op === 'const') return constantText(value.by.bits);
    const number = this.#numbers.get(value);
    return number === undefined ? `%?(${value.by?.op})` : `%${number}`;
  }

  #names(values: readonly Value[]): string {
    return values.map((value) => this.#name(value)).join(', ');
  }

  #statement(statement: Statement, indent: string): void {
    if (this.#options.inline === true && statement.op === 'const') return;
    const { text, defines } = this.#text(statement);
    let line = text;
    if (defines !== undefined) {
      const number = this.#numbers.size;
      this.#numbers.set(defines, number);
      line = `%${number}: ${defines.type} = ${text}`;
    }
    const note = this.#options.note?.(statement);
    this.lines.push(indent + line + (note === undefined ? '' : ` ; ${note}`));
    const inner = `${indent}  `;
    if (statement.op === 'if') {
      this.body(statement.then, inner);
      if (statement.else.length > 0) {
        this.lines.push(`${indent}} else {`);
        this.body(statement.else, inner);
      }
      this.lines.push(`${indent}}`);
    } else if (statement.op === 'loop') {
      this.body(statement.body, inner);
      this.lines.push(`${indent}} while ${this.#name(statement.again)}`);
    }
  }

  #slot(statement: { slot: Value; offset: number }): string {
    const { by } = statement.slot;
    if (by.op === 'const') {
      const offset = Number(BigInt.asIntN(32, by.bits)) + statement.offset;
      return `[${stateName(offset) ?? `0x${offset.toString(16)}`}]`;
    }
    return statement.offset === 0
      ? `[${this.#name(statement.slot)}]`
      : `[${this.#name(statement.slot)} + 0x${statement.offset.toString(16)}]`;
  }

  #text(statement: Statement): { text: string; defines?: Value } {
    switch (statement.op) {
      case 'pure': {
        const lanes = statement.lanes.length > 0 ? ` {${statement.lanes.join(' ')}}` : '';
        return { text: `${statement.pure.name}${lanes} ${this.#names(statement.args)}`, defines: statement.value };
      }
      case 'const':
        return { text: constantText(statement.bits), defines: statement.value };
      case 'field':
        return { text: `field ${statement.field}`, defines: statement.value };
      case 'get':
        return { text: `get.${statement.bits}${statement.signed ? 's' : ''} ${this.#slot(statement)}`, defines: statement.value };
      case 'put':
        return { text: `put.${statement.bits} ${this.#slot(statement)}, ${this.#names(statement.args)}` };
      case 'load':
        return {
          text: `load.${statement.bits}${statement.signed ? 's' : ''} ${this.#names(statement.args)}`,
          defines: statement.value,
        };
      case 'store':
        return { text: `store.${statement.bits} ${this.#names(statement.args)}` };
      case 'rmw.begin':
        return {
          text: `rmw.begin.${statement.bits}${statement.lock ? ' lock' : ''} ${this.#names(statement.args)}`,
          defines: statement.value,
        };
      case 'rmw.load':
        return { text: `rmw.load.${statement.bits} ${this.#names(statement.args)}`, defines: statement.value };
      case 'rmw.store':
        return { text: `rmw.store.${statement.bits} ${this.#names(statement.args)}` };
      case 'rmw.atomic':
        return { text: `rmw.${statement.kind}.${statement.bits} ${this.#names(statement.args)}`, defines: statement.value };
      case 'rmw.end':
        return { text: `rmw.end.${statement.bits} ${this.#names(statement.args)}` };
      case 'flags':
        return { text: `flags.${statement.kind}.${statement.bits} ${this.#names(statement.args)}` };
      case 'flags.cfof':
      case 'flags.cf':
      case 'flags.put':
        return { text: `${statement.op} ${this.#names(statement.args)}` };
      case 'flags.test':
        return { text: `flags.test ${CONDITIONS[statement.condition] ?? statement.condition}`, defines: statement.value };
      case 'flags.all':
        return { text: 'flags.all', defines: statement.value };
      case 'if':
        return { text: `if ${this.#names(statement.args)} {` };
      case 'loop':
        return { text: 'loop {' };
      case 'var.get':
        return { text: `$${statement.variable.id}`, defines: statement.value };
      case 'var.set':
        return { text: `$${statement.variable.id} = ${this.#names(statement.args)}` };
      case 'call':
        return {
          text: `${statement.leaves ? 'leave' : 'call'} ${statement.name}(${this.#names(statement.args)})`,
          defines: statement.value,
        };
      case 'raise':
        return { text: `raise ${statement.vector}, ${statement.code}` };
      case 'jump':
        return { text: `jump ${this.#names(statement.args)}` };
      case 'branch':
        return { text: `branch.${statement.bits}` };
      case 'next':
        return { text: 'next' };
    }
  }
}

const CONDITIONS = 'O NO B NB Z NZ BE NBE S NS P NP L NL LE NLE'.split(' ');
