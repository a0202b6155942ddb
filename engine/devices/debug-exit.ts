/**
 * A port that ends the VM, for tests: QEMU documentation, "isa-debug-exit". Writing `v` ends the process with
 * status `(v << 1) | 1`, so a guest can never make it look like success. It has no state.
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';

/** Ports that it takes, and where it lies unless it is told otherwise. */
export const DEBUG_EXIT_PORT = 0x501;
export const DEBUG_EXIT_PORTS = 2;

export interface DebugExitWires {
  /** Ends the VM with this process status; the host keeps its low 8 bits. */
  exit(status: number): void;
}

export class DebugExit implements IoHandler {
  readonly #wires: DebugExitWires;

  constructor(wires: DebugExitWires) {
    this.#wires = wires;
  }

  reset(): void {}

  read(_offset: number, _size: AccessSize): number {
    return 0;
  }

  write(_offset: number, _size: AccessSize, value: number): void {
    this.#wires.exit(((value << 1) | 1) & 0xff);
  }
}
