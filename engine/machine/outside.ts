/**
 * What comes to the guest from outside: serial input, keys, the mouse, the power button. Elsewhere it goes to the devices at
 * once. With `-icount` it waits in a ring for the vCPU's thread, which hands it over between two instructions; a recording
 * has the instruction count and the time of each, so that it can come at the same places again.
 */
import { ByteRing } from '../memory/ring.ts';
import type { SharedState } from '../memory/shared-state.ts';

const RING_BYTES = 64 * 1024;
const FIRST_LINE = '{"format":"vivarium-recording","version":1}';

export type OutsideEvent =
  | { readonly kind: 'char'; readonly line: number; readonly data: readonly number[] }
  | { readonly kind: 'key'; readonly key: string; readonly down: boolean }
  | { readonly kind: 'mouse'; readonly dx: number; readonly dy: number; readonly wheel: number; readonly buttons: number }
  | { readonly kind: 'power' };

/** An event, and when it came: instructions retired, machine time in ns. */
export interface Recorded {
  readonly count: number;
  readonly time: number;
  readonly event: OutsideEvent;
}

/** Events as lines of a file. */
export const recordingStart = (): string => `${FIRST_LINE}\n`;
export const recordingLine = (recorded: Recorded): string => `${JSON.stringify(recorded)}\n`;

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isSafeInteger(value);
const isEvent = (event: Readonly<Record<string, unknown>> | undefined): boolean => {
  switch (event?.kind) {
    case 'char':
      return isNumber(event.line) && Array.isArray(event.data) && event.data.every((byte) => isNumber(byte) && byte >>> 8 === 0);
    case 'key':
      return typeof event.key === 'string' && typeof event.down === 'boolean';
    case 'mouse':
      return [event.dx, event.dy, event.wheel, event.buttons].every(isNumber);
    default:
      return event?.kind === 'power';
  }
};

/** The events of a recording; throws an Error that says what is wrong with it. */
export function parseRecording(text: string): Recorded[] {
  const [first, ...lines] = text.split('\n');
  if (first !== FIRST_LINE) throw new Error('is no recording of outside events');
  const list: Recorded[] = [];
  for (const [n, line] of lines.entries()) {
    if (line === '') continue;
    let value: Partial<Recorded> | undefined;
    try {
      value = JSON.parse(line) as Partial<Recorded>;
    } catch {
      value = undefined;
    }
    const good = isNumber(value?.count) && value.count >= 0 && Number.isFinite(value.time) && isEvent(value.event as never);
    if (!good) throw new Error(`line ${n + 2} is no event`);
    list.push(value as Recorded);
  }
  return list;
}

/** The ring between the control thread and the vCPU's. */
export class OutsideRing {
  readonly #ring: ByteRing;

  constructor(shared: SharedState, rung: () => void) {
    const at = shared.allocate('ring:outside', ByteRing.bytes(RING_BYTES), 1, 'host');
    this.#ring = new ByteRing(shared.buffer, at, RING_BYTES, rung);
  }

  get isEmpty(): boolean {
    return this.#ring.used === 0;
  }

  /** False: it is full, and the event is lost. */
  post(event: OutsideEvent): boolean {
    const bytes = new TextEncoder().encode(`${JSON.stringify(event)}\n`);
    if (this.#ring.used + bytes.length > RING_BYTES) return false;
    this.#ring.write(bytes);
    return true;
  }

  take(): OutsideEvent[] {
    const bytes = this.#ring.peek(RING_BYTES);
    const end = bytes.lastIndexOf(10) + 1;
    this.#ring.consume(end);
    const lines = new TextDecoder().decode(bytes.subarray(0, end)).split('\n');
    return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as OutsideEvent);
  }
}
