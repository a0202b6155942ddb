/** Keeps what a firmware writes to its flash in a file, on the control thread. */
import { pflashDirty } from '../devices/pflash.ts';
import type { KeptFile } from '../host/platform.ts';
import type { Machine } from './machine.ts';

export class VariablesKeeper {
  readonly #machine: Machine;
  readonly #file: KeptFile;
  readonly #warn: (message: string) => void;
  #loads: number;
  #complained = false;

  constructor(machine: Machine, file: KeptFile, warn: (message: string) => void) {
    this.#machine = machine;
    this.#file = file;
    this.#warn = warn;
    this.#loads = Atomics.load(machine.control.loads, 0);
  }

  /** Writes what was changed since the last call. */
  serve(): void {
    const { shared, control, variables } = this.#machine;
    if (variables === undefined) return;
    const loads = Atomics.load(control.loads, 0);
    const dirty = shared.struct(pflashDirty);
    if (dirty.end === 0 && loads === this.#loads) return;
    const change = shared.lock.hold(() => {
      // A saved state that was loaded brought variables of its own.
      const first = loads === this.#loads ? dirty.first : 0;
      const end = loads === this.#loads ? dirty.end : variables.length;
      dirty.first = dirty.end = 0;
      return { first, data: variables.slice(first, end) };
    });
    this.#loads = loads;
    const problem = this.#file.write(change.first, change.data);
    if (problem === undefined) {
      this.#complained = false;
      return;
    }
    // What could not be kept is tried again with the next change, and at the end.
    shared.lock.hold(() => {
      dirty.first = dirty.end === 0 ? change.first : Math.min(dirty.first, change.first);
      dirty.end = Math.max(dirty.end, change.first + change.data.length);
    });
    if (!this.#complained) this.#warn(`the firmware's variables are not kept: ${problem}`);
    this.#complained = true;
  }

  /** The last changes, and the file is closed. */
  close(): void {
    this.serve();
    this.#file.close();
  }
}
