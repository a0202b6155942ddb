/**
 * Cuts a stream of bytes into JSON values as QMP sends them: one after the other, with or without line ends
 * between them, split anywhere. QEMU's dialect lets strings stand in single quotes; so does this.
 *
 * The buffer is bounded. What is too long, too deep or malformed gives an error, and reading goes on at the next
 * line: the clients of QMP send a line a command.
 */

/** One result: a value, or why there is none. */
export type JsonResult = { readonly value: unknown } | { readonly error: string };

const maxDepth = 256;

/** Integers that a double cannot hold come as bigints (`memsave` of a kernel address). */
function revive(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (
    typeof value === 'number' &&
    !Number.isSafeInteger(value) &&
    context?.source !== undefined &&
    /^-?\d+$/.test(context.source)
  )
    return BigInt(context.source);
  return value;
}

/** `JSON.stringify` with bigints as plain integers; `pretty` indents by four. */
export function stringify(value: unknown, pretty = false): string {
  const raw = (JSON as unknown as { rawJSON(text: string): unknown }).rawJSON;
  return JSON.stringify(value, (_key, item) => (typeof item === 'bigint' ? raw(item.toString()) : item), pretty ? 4 : 0);
}

export class JsonStream {
  readonly #limit: number;
  readonly #decoder = new TextDecoder('utf-8', { fatal: false });
  /** The text of the value so far, with single-quoted strings turned into double-quoted ones. */
  #text = '';
  #depth = 0;
  #quote = '';
  #escaped = false;
  /** An error was given; skip to the end of the line. */
  #skipping = false;

  /** `limit`: the longest value in characters. */
  constructor(limit = 1 << 20) {
    this.#limit = limit;
  }

  /** True between values. */
  get idle(): boolean {
    return this.#text === '';
  }

  /** Takes bytes (or text) and returns what is complete now. */
  feed(chunk: Uint8Array | string): JsonResult[] {
    const input = typeof chunk === 'string' ? chunk : this.#decoder.decode(chunk, { stream: true });
    const results: JsonResult[] = [];
    for (const char of input) this.#step(char, results);
    return results;
  }

  #fail(error: string, results: JsonResult[], skip: boolean): void {
    results.push({ error });
    this.#reset();
    this.#skipping = skip;
  }

  #reset(): void {
    this.#text = '';
    this.#depth = 0;
    this.#quote = '';
    this.#escaped = false;
  }

  #step(char: string, results: JsonResult[]): void {
    if (this.#skipping) {
      if (char === '\n') this.#skipping = false;
      return;
    }
    if (this.#text.length >= this.#limit) return this.#fail(`JSON value is longer than ${this.#limit} characters`, results, true);
    if (this.#quote !== '') return this.#inString(char, results);
    if (char === '"' || char === "'") {
      this.#quote = char;
      this.#text += '"';
    } else if (char === '{' || char === '[') {
      if (this.#depth === 0 && this.#text !== '') this.#emit(results);
      if (++this.#depth > maxDepth) return this.#fail('JSON value is nested too deeply', results, true);
      this.#text += char;
    } else if (char === '}' || char === ']') {
      this.#text += char;
      if (this.#depth === 0 || --this.#depth === 0) this.#emit(results);
    } else if (char === ' ' || char === '\t' || char === '\r' || char === '\n') {
      if (this.#depth === 0) this.#emit(results);
      else this.#text += ' ';
    } else if (char < ' ' || char === '\ufffd') {
      this.#fail('JSON parse error, stray character', results, true);
    } else this.#text += char;
  }

  #inString(char: string, results: JsonResult[]): void {
    if (this.#escaped) {
      this.#escaped = false;
      this.#text += char === "'" ? "'" : `\\${char}`;
    } else if (char === '\\') this.#escaped = true;
    else if (char === this.#quote) {
      this.#quote = '';
      this.#text += '"';
      if (this.#depth === 0) this.#emit(results);
    } else if (char === '"') this.#text += '\\"';
    else if (char < ' ') this.#fail('JSON parse error, unterminated string', results, char !== '\n');
    else this.#text += char;
  }

  #emit(results: JsonResult[]): void {
    const text = this.#text;
    this.#reset();
    if (text === '') return;
    try {
      results.push({ value: JSON.parse(text, revive) });
    } catch (cause) {
      results.push({ error: `JSON parse error, ${(cause as Error).message}` });
    }
  }
}
