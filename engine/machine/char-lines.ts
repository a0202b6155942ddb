/** Carries what serial ports and virtio ports send to the outside, and input the other way. Runs on the control thread. */
import type { Chardev, CharPort } from '../monitor/machine-control.ts';
import type { CharLine } from './char-line.ts';
import type { Machine } from './machine.ts';

/** A reader of what a serial port sends. */
export type SerialListener = (data: Uint8Array) => void;

interface OpenLine {
  readonly line: CharLine;
  readonly port: CharPort | undefined;
  readonly listeners: Set<SerialListener>;
  /** What was sent last, for a newcomer. */
  history: Uint8Array;
  /** Input that the device had no room for yet. */
  waiting: Uint8Array;
}

const HISTORY_BYTES = 256 * 1024;
const INPUT_LIMIT = 64 * 1024;
const PIECE = 16384;

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const out = new Uint8Array(first.length + second.length);
  out.set(first);
  out.set(second, first.length);
  return out;
}

export class CharLines {
  readonly #machine: Machine;
  readonly #lines: OpenLine[];

  constructor(machine: Machine, chardevs: ReadonlyMap<string, Chardev>) {
    this.#machine = machine;
    const { lock } = machine.shared;
    this.#lines = machine.lines.map((line, n): OpenLine => {
      const { front } = line;
      const device = line.chardev === undefined ? undefined : chardevs.get(line.chardev);
      const port = device?.attach({
        room: () => (front === undefined ? PIECE : this.#frozen ? 0 : machine.room(n)),
        receive: (data) => {
          if (front !== undefined) machine.fromOutside({ kind: 'char', line: n, data: [...data] });
        },
        drained: () => this.#drain(this.#lines[n]),
        setOpen: (open) => {
          if (front?.setOpen !== undefined) lock.hold(() => front.setOpen?.(open));
        },
      });
      if (port !== undefined && front?.setOpen !== undefined) lock.hold(() => front.setOpen?.(port.open));
      return { line, port, listeners: new Set(), history: new Uint8Array(), waiting: new Uint8Array() };
    });
  }

  /** Follows serial port `index`; first gets what was sent before. */
  open(index: number, listener: SerialListener): { write(data: Uint8Array): void; close(): void } | undefined {
    const open = this.#lines.filter(({ line }) => line.serial === true)[index];
    if (open === undefined) return undefined;
    if (open.history.length > 0) listener(open.history);
    open.listeners.add(listener);
    return {
      write: (data) => {
        if (open.waiting.length + data.length > INPUT_LIMIT) return;
        open.waiting = joined(open.waiting, data);
        this.#feed(open);
      },
      close: () => {
        open.listeners.delete(listener);
      },
    };
  }

  /** The machine's state is on its way out or in: nothing may be fed to it. */
  get #frozen(): boolean {
    return Atomics.load(this.#machine.control.frozen, 0) !== 0;
  }

  /** Another state was loaded: its devices are told who is connected now. */
  reconnect(): void {
    for (const { line, port } of this.#lines)
      if (port !== undefined && line.front?.setOpen !== undefined)
        this.#machine.shared.lock.hold(() => line.front?.setOpen?.(port.open));
  }

  /** Does what can be done now on all lines. */
  serve(): void {
    if (this.#frozen) return;
    for (const open of this.#lines) {
      this.#drain(open);
      this.#feed(open);
      if (open.line.front !== undefined) open.port?.resume();
    }
  }

  #feed(open: OpenLine): void {
    const { front } = open.line;
    if (front === undefined || open.waiting.length === 0 || this.#frozen) return;
    this.#machine.shared.lock.hold(() => {
      const line = this.#lines.indexOf(open);
      const count = Math.min(this.#machine.room(line), open.waiting.length);
      if (count === 0) return;
      this.#machine.fromOutside({ kind: 'char', line, data: [...open.waiting.subarray(0, count)] });
      open.waiting = open.waiting.slice(count);
    });
  }

  #drain(open: OpenLine): void {
    const { ring, front } = open.line;
    while (!this.#frozen) {
      const data = ring.peek(PIECE);
      if (data.length === 0) return;
      const taken = open.port === undefined ? data.length : open.port.write(data);
      if (taken === 0) return;
      const sent = data.subarray(0, taken);
      ring.consume(taken);
      for (const listener of open.listeners) listener(sent);
      if (open.line.serial === true) open.history = joined(open.history, sent).slice(-HISTORY_BYTES);
      // The device may hold bytes that found the ring full.
      if (front !== undefined) this.#machine.shared.lock.hold(() => front.drained());
    }
  }
}
