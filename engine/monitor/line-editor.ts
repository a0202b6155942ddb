/**
 * Line editing for a terminal: the keys of Emacs and the arrow keys, history, completion. It gets bytes, and gives
 * lines and what to write to the terminal. Bounded: lines have at most 4095 characters, the history 64 lines.
 */

const maxLine = 4095;
const maxHistory = 64;

export interface LineEditorOptions {
  readonly prompt: string;
  /** Writes to the terminal. */
  write(text: string): void;
  /** A line was entered. The prompt comes back with `showPrompt`. */
  line(text: string): void;
  /** What can stand at the end of `text` in place of its last word. */
  complete?(text: string): string[];
}

export class LineEditor {
  readonly #options: LineEditorOptions;
  readonly #history: string[] = [];
  /** Where in the history the person looks; its length when in the line that is being typed. */
  #historyAt = 0;
  #saved = '';
  #text = '';
  #cursor = 0;
  /** The escape sequence so far, or empty. */
  #escape = '';
  #active = false;
  readonly #decoder = new TextDecoder();

  constructor(options: LineEditorOptions) {
    this.#options = options;
  }

  get history(): readonly string[] {
    return this.#history;
  }

  /** Writes the prompt and takes input for a line. */
  showPrompt(): void {
    this.#active = true;
    this.#text = '';
    this.#cursor = 0;
    this.#historyAt = this.#history.length;
    this.#options.write(this.#options.prompt);
  }

  /** Writes the prompt and the line as it stands again, after other output. */
  redraw(): void {
    if (!this.#active) return;
    const back = this.#text.length - this.#cursor;
    this.#options.write(`\r${this.#options.prompt}${this.#text}\x1b[K${back > 0 ? `\x1b[${back}D` : ''}`);
  }

  /** Input from the terminal. Returns how many bytes it used: it stops after a line, until `showPrompt`. */
  feed(bytes: Uint8Array): number {
    for (let index = 0; index < bytes.length; index++) {
      if (!this.#active) return index;
      for (const char of this.#decoder.decode(bytes.subarray(index, index + 1), { stream: true })) this.#key(char);
    }
    return bytes.length;
  }

  #key(char: string): void {
    if (this.#escape !== '') return this.#sequence(char);
    switch (char) {
      case '\x1b':
        this.#escape = char;
        return;
      case '\r':
      case '\n':
        return this.#enter();
      case '\t':
        return this.#complete();
      case '\x01':
        return this.#move(0);
      case '\x02':
        return this.#move(this.#cursor - 1);
      case '\x04':
        return this.#replace(this.#cursor, this.#cursor + 1, '');
      case '\x05':
        return this.#move(this.#text.length);
      case '\x06':
        return this.#move(this.#cursor + 1);
      case '\x08':
      case '\x7f':
        return this.#replace(this.#cursor - 1, this.#cursor, '');
      case '\x0b':
        return this.#replace(this.#cursor, this.#text.length, '');
      case '\x0c':
        this.#options.write('\x1b[H\x1b[2J');
        return this.redraw();
      case '\x0e':
        return this.#recall(1);
      case '\x10':
        return this.#recall(-1);
      case '\x15':
        return this.#replace(0, this.#cursor, '');
      case '\x17':
        return this.#replace(this.#text.slice(0, this.#cursor).search(/\S*\s*$/), this.#cursor, '');
    }
    if (char >= ' ' && this.#text.length < maxLine) this.#replace(this.#cursor, this.#cursor, char);
  }

  /** Control sequences: `ESC [` or `ESC O`, parameters, a letter or `~` (ECMA-48 5.4). */
  #sequence(char: string): void {
    this.#escape += char;
    if (this.#escape === '\x1b[' || this.#escape === '\x1bO') return;
    if (/^.\[[0-9;]*$/s.test(this.#escape) && this.#escape.length < 16) return;
    const sequence = this.#escape.slice(1);
    this.#escape = '';
    switch (sequence) {
      case '[A':
      case 'OA':
        return this.#recall(-1);
      case '[B':
      case 'OB':
        return this.#recall(1);
      case '[C':
      case 'OC':
        return this.#move(this.#cursor + 1);
      case '[D':
      case 'OD':
        return this.#move(this.#cursor - 1);
      case '[H':
      case 'OH':
      case '[1~':
      case '[7~':
        return this.#move(0);
      case '[F':
      case 'OF':
      case '[4~':
      case '[8~':
        return this.#move(this.#text.length);
      case '[3~':
        return this.#replace(this.#cursor, this.#cursor + 1, '');
      case 'b':
        return this.#move(this.#text.slice(0, this.#cursor).search(/\S*\s*$/));
      case 'f':
        return this.#move(this.#cursor + (/^\s*\S*/.exec(this.#text.slice(this.#cursor))?.[0].length ?? 0));
    }
  }

  #move(to: number): void {
    if (to < 0 || to > this.#text.length || to === this.#cursor) return;
    const distance = to - this.#cursor;
    this.#cursor = to;
    this.#options.write(`\x1b[${Math.abs(distance)}${distance < 0 ? 'D' : 'C'}`);
  }

  #replace(from: number, to: number, by: string): void {
    if (from < 0 || to > this.#text.length || (from === to && by === '')) return;
    const atEnd = from === this.#text.length && this.#cursor === from;
    this.#text = this.#text.slice(0, from) + by + this.#text.slice(to);
    this.#cursor = from + by.length;
    if (atEnd) this.#options.write(by);
    else this.redraw();
  }

  #recall(step: number): void {
    const at = this.#historyAt + step;
    if (at < 0 || at > this.#history.length) return;
    if (this.#historyAt === this.#history.length) this.#saved = this.#text;
    this.#historyAt = at;
    this.#text = at === this.#history.length ? this.#saved : this.#history[at];
    this.#cursor = this.#text.length;
    this.redraw();
  }

  #enter(): void {
    const line = this.#text;
    this.#active = false;
    this.#options.write('\r\n');
    if (line.trim() !== '' && this.#history.at(-1) !== line) this.#history.push(line);
    if (this.#history.length > maxHistory) this.#history.shift();
    this.#options.line(line);
  }

  #complete(): void {
    const before = this.#text.slice(0, this.#cursor);
    const choices = this.#options.complete?.(before) ?? [];
    if (choices.length === 0) return;
    const word = /\S*$/.exec(before)?.[0] ?? '';
    let common = choices[0];
    for (const choice of choices) while (!choice.startsWith(common)) common = common.slice(0, -1);
    const addition = common.slice(word.length) + (choices.length === 1 ? ' ' : '');
    if (addition !== '') return this.#replace(this.#cursor, this.#cursor, addition);
    this.#options.write(`\r\n${choices.join('  ')}\r\n`);
    this.redraw();
  }
}
