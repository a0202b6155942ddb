/**
 * Expressions of the human monitor: numbers (decimal, 0x, 0 octal), 'c' characters, `$register`, parentheses,
 * unary + - ~, and + - | & ^ * / %. As in QEMU's monitor the bit operators bind tighter than + and -, and * / %
 * tightest of all. Values are 64 bits wide and unsigned.
 */

/** An expression that cannot be read; the message is for the person. */
export class ExpressionError extends Error {
  override readonly name = 'ExpressionError';
}

const maxDepth = 64;

class Parser {
  readonly #text: string;
  readonly #register: (name: string) => bigint | undefined;
  position: number;
  #depth = 0;

  constructor(text: string, position: number, register: (name: string) => bigint | undefined) {
    this.#text = text;
    this.position = position;
    this.#register = register;
  }

  skipSpaces(): void {
    while (this.#text[this.position] === ' ' || this.#text[this.position] === '\t') this.position++;
  }

  sum(): bigint {
    if (++this.#depth > maxDepth) throw new ExpressionError('expression is nested too deeply');
    let value = this.#logic();
    for (;;) {
      const operator = this.#take('+-');
      if (operator === undefined) break;
      const right = this.#logic();
      value = BigInt.asUintN(64, operator === '+' ? value + right : value - right);
    }
    this.#depth--;
    return value;
  }

  #take(operators: string): string | undefined {
    this.skipSpaces();
    const char = this.#text[this.position];
    if (char === undefined || !operators.includes(char)) return undefined;
    this.position++;
    return char;
  }

  #logic(): bigint {
    let value = this.#product();
    for (;;) {
      const operator = this.#take('&|^');
      if (operator === undefined) return value;
      const right = this.#product();
      value = operator === '&' ? value & right : operator === '|' ? value | right : value ^ right;
    }
  }

  #product(): bigint {
    let value = this.#unary();
    for (;;) {
      const operator = this.#take('*/%');
      if (operator === undefined) return value;
      const right = this.#unary();
      if (operator === '*') value = BigInt.asUintN(64, value * right);
      else if (right === 0n) throw new ExpressionError('division by zero');
      else value = operator === '/' ? value / right : value % right;
    }
  }

  #unary(): bigint {
    let negate = false;
    for (let sign = this.#take('+-~'); sign !== undefined; sign = this.#take('+-~')) {
      if (sign === '~') {
        if (++this.#depth > maxDepth) throw new ExpressionError('expression is nested too deeply');
        const value = ~this.#unary();
        this.#depth--;
        return BigInt.asUintN(64, negate ? -value : value);
      }
      if (sign === '-') negate = !negate;
    }
    const value = this.#primary();
    return BigInt.asUintN(64, negate ? -value : value);
  }

  #primary(): bigint {
    this.skipSpaces();
    const rest = this.#text.slice(this.position);
    if (rest === '') throw new ExpressionError('unexpected end of expression');
    if (rest[0] === '(') {
      this.position++;
      const value = this.sum();
      if (this.#take(')') === undefined) throw new ExpressionError("')' expected");
      return value;
    }
    const character = /^'([\x20-\x7e])'/.exec(rest);
    if (character !== null) {
      this.position += 3;
      return BigInt(character[1].charCodeAt(0));
    }
    if (rest[0] === "'") throw new ExpressionError('character constant expected');
    if (rest[0] === '$') return this.#named(rest);
    const number = /^(0x[0-9a-f]+|0[0-7]*(?![0-9])|[1-9][0-9]*)/i.exec(rest);
    if (number === null) throw new ExpressionError('invalid char in expression');
    this.position += number[0].length;
    const digits = number[0];
    const value = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
    if (value >= 1n << 64n) throw new ExpressionError('number too large');
    return value;
  }

  #named(rest: string): bigint {
    const name = /^\$([\w.]+)/.exec(rest);
    if (name === null) throw new ExpressionError('register name expected');
    const value = this.#register(name[1]);
    if (value === undefined) throw new ExpressionError('unknown register');
    this.position += name[0].length;
    return value;
  }
}

/** Reads the expression that begins at `start`; returns its value and where it ended. */
export function evaluate(
  text: string,
  start: number,
  register: (name: string) => bigint | undefined,
): { readonly value: bigint; readonly end: number } {
  const parser = new Parser(text, start, register);
  const value = parser.sum();
  parser.skipSpaces();
  return { value, end: parser.position };
}
