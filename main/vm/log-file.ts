/** A VM's log: lines with a time, in a file that is rotated by size. Writing never fails loudly: a full disk must not end a VM. */
import { appendFileSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';

const maxBytes = 1 << 20;
const keepFiles = 3;
/** A line longer than this is cut: the log is text for people. */
const maxLine = 4000;

export class LogFile {
  readonly path: string;
  #bytes = -1;
  #partial = '';

  constructor(path: string) {
    this.path = path;
  }

  /** Adds one line, or several. */
  write(text: string): void {
    const stamp = new Date().toISOString();
    const lines = text
      .replace(/\n$/, '')
      .split('\n')
      .map((line) => `${stamp} ${line.slice(0, maxLine)}\n`)
      .join('');
    try {
      if (this.#bytes < 0) {
        mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
        this.#bytes = statSync(this.path, { throwIfNoEntry: false })?.size ?? 0;
      }
      if (this.#bytes > maxBytes) this.#rotate();
      appendFileSync(this.path, lines, { mode: 0o600 });
      this.#bytes += Buffer.byteLength(lines);
    } catch {
      this.#bytes = -1;
    }
  }

  /** Adds output of a process, which may be split within lines. */
  writeOutput(text: string): void {
    const all = this.#partial + text;
    const end = all.lastIndexOf('\n');
    if (end >= 0) this.write(all.slice(0, end));
    this.#partial = all.slice(end + 1);
    if (this.#partial.length > maxLine) this.flush();
  }

  /** Writes what is left of output that did not end in a line end. */
  flush(): void {
    if (this.#partial !== '') this.write(this.#partial);
    this.#partial = '';
  }

  /** The last lines, oldest first; of the file before, too, where this one is short. */
  async tail(lines: number): Promise<string[]> {
    const files = [this.path, `${this.path}.1`];
    let result: string[] = [];
    for (const file of files) {
      if (result.length >= lines) break;
      const text = await readFile(file, 'utf8').catch(() => '');
      result = [...text.split('\n').filter((line) => line !== ''), ...result];
    }
    return result.slice(-lines);
  }

  #rotate(): void {
    rmSync(`${this.path}.${keepFiles}`, { force: true });
    for (let index = keepFiles - 1; index >= 1; index--)
      if (statSync(`${this.path}.${index}`, { throwIfNoEntry: false }) !== undefined)
        renameSync(`${this.path}.${index}`, `${this.path}.${index + 1}`);
    renameSync(this.path, `${this.path}.1`);
    this.#bytes = 0;
  }
}
