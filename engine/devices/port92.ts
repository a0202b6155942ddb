/** System control port A at 0x92: A20 gate and fast reset. Intel 82371SB (PIIX3) data sheet 2.5.4.2. */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import { struct, u32, type View } from '../memory/struct.ts';

const FAST_RESET = 0x01;
const A20 = 0x02;

export const port92State = struct('port92', 1, {
  /** All bits but A20, which the gate itself keeps. */
  value: u32,
});

export interface Port92Wires {
  /** The A20 gate, which the keyboard controller shares. */
  readonly a20: { get(): boolean; set(enabled: boolean): void };
  /** Asks for a system reset. */
  reset(): void;
}

export class Port92 implements IoHandler {
  readonly #s: View<typeof port92State.fields>;
  readonly #wires: Port92Wires;

  constructor(state: View<typeof port92State.fields>, wires: Port92Wires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    this.#s.value = 0;
  }

  read(_offset: number, _size: AccessSize): number {
    return this.#s.value | (this.#wires.a20.get() ? A20 : 0);
  }

  write(_offset: number, _size: AccessSize, value: number): void {
    const s = this.#s;
    // The reset starts when the bit goes from 0 to 1.
    const starts = (value & FAST_RESET) !== 0 && (s.value & FAST_RESET) === 0;
    s.value = value & 0xff & ~A20;
    this.#wires.a20.set((value & A20) !== 0);
    if (starts) this.#wires.reset();
  }
}
