/** Interrupt lines that several devices share: the level of a line is the OR of what its devices drive. */
import type { IrqLine } from '../bus/irq.ts';
import { struct, u32s, type View } from '../memory/struct.ts';

const MAX_LINES = 24;

export const sharedLinesState = struct('lines', 1, {
  /** One bit for each device that holds the line. */
  inputs: u32s(MAX_LINES),
});

/** Every thread makes the same inputs in the same order, so that a bit means the same device on all of them. */
export class SharedLines {
  readonly #s: View<typeof sharedLinesState.fields>;
  readonly #targets: readonly IrqLine[];
  readonly #counts: number[];

  /** At most 24 lines, with at most 32 inputs each. */
  constructor(state: View<typeof sharedLinesState.fields>, targets: readonly IrqLine[]) {
    this.#s = state;
    this.#targets = targets;
    this.#counts = targets.map(() => 0);
  }

  /** One more input of line `n`. */
  input(n: number): IrqLine {
    const { inputs } = this.#s;
    const target = this.#targets[n];
    if (this.#counts[n] === 32) throw new RangeError(`interrupt line ${n} has too many devices`);
    const bit = (1 << this.#counts[n]++) >>> 0;
    return {
      set(level) {
        inputs[n] = level ? inputs[n] | bit : inputs[n] & ~bit;
        target.set(inputs[n] !== 0);
      },
    };
  }

  reset(): void {
    this.#s.inputs.fill(0);
  }
}

export const gateState = struct('line-gate', 1, {
  /** Bit 0: what the device drives; bit 1: the line is cut. */
  bits: u32s(1),
});

/** A line that can be cut, as HPET's legacy replacement cuts those of the PIT and the RTC. */
export class LineGate implements IrqLine {
  readonly #bits: Uint32Array;
  readonly #line: IrqLine;

  constructor(state: View<typeof gateState.fields>, line: IrqLine) {
    this.#bits = state.bits;
    this.#line = line;
  }

  set(level: boolean): void {
    this.#bits[0] = (this.#bits[0] & 2) | (level ? 1 : 0);
    if ((this.#bits[0] & 2) === 0) this.#line.set(level);
  }

  cut(on: boolean): void {
    this.#bits[0] = (this.#bits[0] & 1) | (on ? 2 : 0);
    this.#line.set(!on && (this.#bits[0] & 1) !== 0);
  }
}
