/**
 * The keys that give the keyboard back: pressed together, with no other, and let go. Only when all are up again is the
 * guest left, or it would believe them held.
 */
export class ReleaseKeys {
  readonly #wanted: () => readonly string[];
  readonly #released: () => void;
  readonly #held = new Set<string>();
  #complete = false;
  #spoilt = false;

  constructor(wanted: () => readonly string[], released: () => void) {
    this.#wanted = wanted;
    this.#released = released;
  }

  down(code: string): void {
    this.#held.add(code);
    const wanted = this.#wanted();
    if (!wanted.includes(code)) this.#spoilt = true;
    if (wanted.every((key) => this.#held.has(key))) this.#complete = true;
  }

  up(code: string): void {
    this.#held.delete(code);
    if (this.#held.size > 0) return;
    const release = this.#complete && !this.#spoilt;
    this.reset();
    // After the console has handled the key itself.
    if (release) setTimeout(this.#released);
  }

  reset(): void {
    this.#held.clear();
    this.#complete = false;
    this.#spoilt = false;
  }

  /** `Ctrl + Alt`. */
  words(): string {
    return this.#wanted()
      .map((code) =>
        code
          .replace(/^Control/, 'Ctrl ')
          .replace(/(Left|Right)$/, '')
          .replace(/^Key|^Digit/, '')
          .trim(),
      )
      .join(' + ');
  }
}
