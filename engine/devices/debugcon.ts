/**
 * Debug console port, as firmware writes its log to (SeaBIOS and OVMF at 0x402, Bochs at 0xe9). Bochs documentation,
 * "port_e9_hack"; QEMU documentation, `-device isa-debugcon`. Reading gives 0xe9, by which firmware knows it is there.
 *
 * What the sink does not take waits in a ring. Writes must not come while it is full: whoever makes them for the guest
 * waits while `congested`, for a log with holes in it misleads.
 */
import type { CharSink } from '../bus/chardev.ts';
import type { AccessSize, IoHandler } from '../bus/io.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

const RING = 4096;
const PRESENT = 0xe9;

export const debugconState = struct('debugcon', 1, {
  head: u32,
  count: u32,
  ring: bytes(RING),
});

export interface DebugconWires {
  readonly sink: CharSink;
}

export class Debugcon implements IoHandler {
  readonly #s: View<typeof debugconState.fields>;
  readonly #wires: DebugconWires;

  constructor(state: View<typeof debugconState.fields>, wires: DebugconWires) {
    this.#s = state;
    this.#wires = wires;
  }

  /** Keeps what waits: the log of a reset is worth having. */
  reset(): void {}

  read(_offset: number, _size: AccessSize): number {
    return PRESENT;
  }

  write(_offset: number, size: AccessSize, value: number): void {
    const s = this.#s;
    for (let i = 0; i < size && s.count < RING; i++) s.ring[(s.head + s.count++) % RING] = value >>> (8 * i);
    this.drained();
  }

  /** So much waits that the writer should pause and call `drained` until this is false. */
  get congested(): boolean {
    return this.#s.count > RING / 2;
  }

  /** The sink has room again. */
  drained(): void {
    const s = this.#s;
    while (s.count > 0) {
      const length = Math.min(s.count, RING - s.head);
      const taken = Math.min(length, this.#wires.sink.write(s.ring.slice(s.head, s.head + length)));
      if (taken <= 0) return;
      s.head = (s.head + taken) % RING;
      s.count -= taken;
    }
  }
}
