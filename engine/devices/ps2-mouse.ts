/**
 * PS/2 mouse with the wheel and five buttons of the IntelliMouse Explorer.
 * IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft, "PS/2 IntelliMouse" (the sample-rate knocks
 * 200, 100, 80 and 200, 200, 80, and four-byte packets).
 *
 * Movement adds up while the guest is slow; changes of the buttons each get a packet of their own as long as the
 * queue has room.
 */
import { bytes, i32, struct, u32, type View } from '../memory/struct.ts';

const ACK = 0xfa;
const RESEND = 0xfe;
const SELF_TEST_PASSED = 0xaa;

const QUEUE = 128;
/** Bytes that may wait before movement is held back. */
const MOVEMENT_LIMIT = 16;
/** Movement that is kept while no packet can be sent, in counts. */
const MOVEMENT_MAX = 4096;

/** Bits of `buttons`. */
export const MOUSE_LEFT = 1;
export const MOUSE_RIGHT = 2;
export const MOUSE_MIDDLE = 4;
export const MOUSE_SIDE = 8;
export const MOUSE_EXTRA = 16;

const ID_PLAIN = 0;
const ID_WHEEL = 3;
const ID_FIVE_BUTTONS = 4;

export const ps2MouseState = struct('ps2-mouse', 1, {
  reporting: u32,
  /** Nonzero: packets only when asked (remote mode). */
  remote: u32,
  /** Nonzero: every byte is sent back. */
  wrap: u32,
  scaling: u32,
  resolution: u32,
  rate: u32,
  /** The last two rates set: how a driver asks for the wheel. */
  knock: u32,
  id: u32,
  awaiting: u32,
  buttons: u32,
  /** Buttons as the last packet told them. */
  told: u32,
  dx: i32,
  dy: i32,
  dz: i32,
  last: u32,
  replyHead: u32,
  replyCount: u32,
  replies: bytes(8),
  head: u32,
  count: u32,
  queue: bytes(QUEUE),
});

export interface Ps2MouseWires {
  /** There may be a byte to take: the controller's `update`. */
  changed(): void;
}

export class Ps2Mouse {
  readonly #s: View<typeof ps2MouseState.fields>;
  readonly #wires: Ps2MouseWires;

  constructor(state: View<typeof ps2MouseState.fields>, wires: Ps2MouseWires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    const s = this.#s;
    this.#defaults();
    s.wrap = 0;
    s.buttons = 0;
    s.told = 0;
    s.awaiting = 0;
    s.last = 0;
    s.replyHead = 0;
    s.replyCount = 0;
    s.replies.fill(0);
    s.queue.fill(0);
  }

  /** True while the guest's driver listens to movements. */
  get active(): boolean {
    return this.#s.reporting !== 0;
  }

  // The host's side.

  /** The mouse moved by `dx` to the right and `dy` down, the wheel by `dz` towards the person; `buttons` are down. */
  move(dx: number, dy: number, dz: number, buttons: number): void {
    const s = this.#s;
    s.buttons = buttons & 0x1f;
    if (s.reporting === 0 && s.remote === 0) return;
    s.dx = clamp(s.dx + Math.trunc(dx), MOVEMENT_MAX);
    s.dy = clamp(s.dy - Math.trunc(dy), MOVEMENT_MAX);
    s.dz = clamp(s.dz + Math.trunc(dz), 127);
    if (s.remote !== 0 || s.reporting === 0) return;
    this.#fill();
    this.#wires.changed();
  }

  /** Makes packets of what has happened, as far as there is room. */
  #fill(): void {
    const s = this.#s;
    for (;;) {
      const clicked = s.buttons !== s.told;
      const moved = s.dx !== 0 || s.dy !== 0 || (s.dz !== 0 && s.id !== ID_PLAIN);
      if (!clicked && !moved) return;
      if (s.count + 4 > (clicked ? QUEUE : MOVEMENT_LIMIT)) return;
      const bytesOf = this.#packet(s.scaling !== 0);
      for (const value of bytesOf) s.queue[(s.head + s.count++) % QUEUE] = value;
    }
  }

  /** Takes one packet's worth of movement. */
  #packet(scaled: boolean): readonly number[] {
    const s = this.#s;
    // Not beyond 127: a driver that takes the sign from the byte alone is right too.
    const x = clamp(s.dx, 127);
    const y = clamp(s.dy, 127);
    s.dx -= x;
    s.dy -= y;
    s.told = s.buttons;
    const [px, py] = scaled ? [scale2(x), scale2(y)] : [x, y];
    const first = (s.buttons & 7) | 8 | (px < 0 ? 0x10 : 0) | (py < 0 ? 0x20 : 0);
    const packet = [first, px & 0xff, py & 0xff];
    if (s.id === ID_PLAIN) s.dz = 0;
    else {
      const z = clamp(s.dz, 7);
      s.dz -= z;
      packet.push(s.id === ID_WHEEL ? z & 0xff : (z & 15) | ((s.buttons & (MOUSE_SIDE | MOUSE_EXTRA)) << 1));
    }
    return packet;
  }

  // The controller's side.

  /** A byte waits for the controller. */
  get available(): boolean {
    return this.#s.replyCount > 0 || this.#s.count > 0;
  }

  /** Takes the next byte; 0 where none waits. */
  take(): number {
    const s = this.#s;
    if (s.replyCount > 0) {
      s.last = s.replies[s.replyHead++ & 7];
      s.replyCount--;
    } else if (s.count > 0) {
      s.last = s.queue[s.head % QUEUE];
      s.head = (s.head + 1) % QUEUE;
      s.count--;
      if (s.count === 0 && s.reporting !== 0 && s.remote === 0) this.#fill();
    } else return 0;
    return s.last;
  }

  /** A byte from the controller. */
  write(value: number): void {
    const s = this.#s;
    const { last } = s;
    // A command ends the packet that was being sent and takes back replies.
    s.replyCount = 0;
    s.count = 0;
    if (s.wrap !== 0 && value !== 0xff && value !== 0xec) this.#reply(value);
    else if (s.awaiting !== 0) this.#argument(value);
    else this.#command(value, last);
    this.#wires.changed();
  }

  #reply(...values: readonly number[]): void {
    const s = this.#s;
    for (const value of values) s.replies[(s.replyHead + s.replyCount++) & 7] = value;
  }

  #command(value: number, last: number): void {
    const s = this.#s;
    switch (value) {
      case 0xe6:
      case 0xe7:
        s.scaling = value & 1;
        break;
      case 0xe8: // set resolution
      case 0xf3: // set sample rate
        s.awaiting = value;
        break;
      case 0xe9: {
        const buttons = ((s.buttons & MOUSE_LEFT) << 2) | ((s.buttons & MOUSE_MIDDLE) >> 1) | ((s.buttons & MOUSE_RIGHT) >> 1);
        const modes = (s.remote !== 0 ? 0x40 : 0) | (s.reporting !== 0 ? 0x20 : 0) | (s.scaling !== 0 ? 0x10 : 0);
        this.#reply(ACK, modes | buttons, s.resolution, s.rate);
        return;
      }
      case 0xea: // stream mode
        s.remote = 0;
        break;
      case 0xeb: // read data
        this.#reply(ACK, ...this.#packet(false));
        return;
      case 0xec: // end wrap mode
        s.wrap = 0;
        break;
      case 0xee:
        s.wrap = 1;
        break;
      case 0xf0: // remote mode
        s.remote = 1;
        break;
      case 0xf2:
        this.#reply(ACK, s.id);
        return;
      case 0xf4:
        s.reporting = 1;
        break;
      case 0xf5:
        s.reporting = 0;
        break;
      case 0xf6: {
        const { id } = s;
        this.#defaults();
        s.id = id;
        break;
      }
      case 0xfe:
        this.#reply(last);
        return;
      case 0xff:
        this.#defaults();
        s.wrap = 0;
        this.#reply(ACK, SELF_TEST_PASSED, ID_PLAIN);
        return;
      default:
        this.#reply(RESEND);
        return;
    }
    this.#reply(ACK);
  }

  #argument(value: number): void {
    const s = this.#s;
    if (s.awaiting === 0xe8) s.resolution = value & 3;
    else {
      s.rate = value;
      const knock = ((s.knock << 8) | value) & 0xffffff;
      s.knock = knock;
      if (knock === 0xc86450) s.id = ID_WHEEL;
      else if (knock === 0xc8c850) s.id = ID_FIVE_BUTTONS;
    }
    s.awaiting = 0;
    this.#reply(ACK);
  }

  #defaults(): void {
    const s = this.#s;
    s.reporting = 0;
    s.remote = 0;
    s.scaling = 0;
    s.resolution = 2;
    s.rate = 100;
    s.knock = 0;
    s.id = ID_PLAIN;
    s.dx = 0;
    s.dy = 0;
    s.dz = 0;
    s.head = 0;
    s.count = 0;
  }
}

const clamp = (value: number, limit: number): number => Math.max(-limit, Math.min(limit, value));

/** Scaling 2:1 for small movements. PS/2 reference, "Mouse", table of scaling. */
function scale2(value: number): number {
  const size = Math.abs(value);
  const scaled = size > 5 ? Math.min(127, 2 * size) : [0, 1, 1, 3, 6, 9][size];
  return value < 0 ? -scaled : scaled;
}
