/**
 * PS/2 keyboard: scan code sets 1, 2 and 3 and the host's commands.
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)".
 *
 * Replies go before keystrokes that wait. The queue takes whole keystrokes: where one does not fit it is lost, and
 * the last part of the queue is kept for releases, so that a guest that does not read finds no key stuck.
 * Repeats are those of the person's own keyboard; the typematic rate is acknowledged and has no other effect.
 */

import { type QKeyCode, scancodeOf } from '../bus/keys.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

const ACK = 0xfa;
const RESEND = 0xfe;
const SELF_TEST_PASSED = 0xaa;

const SET_LEDS = 0xed;
const ECHO = 0xee;
const SCANCODE_SET = 0xf0;
const IDENTIFY = 0xf2;
const SET_RATE = 0xf3;
const ENABLE = 0xf4;
const DISABLE = 0xf5;
const SET_DEFAULTS = 0xf6;
const RESET = 0xff;

const QUEUE = 256;
const KEPT_FOR_RELEASES = 96;
const DEFAULT_RATE = 0x2b;
const TYPE_MAKE_ONLY = 1;

const CTRL_KEYS: Partial<Record<QKeyCode, number>> = { ctrl: 1, ctrl_r: 2 };
const ALT_KEYS: Partial<Record<QKeyCode, number>> = { alt: 4, alt_r: 8 };
const CTRL_MASK = 3;
const ALT_MASK = 12;

export const ps2KeyboardState = struct('ps2-keyboard', 1, {
  /** Nonzero: keystrokes are reported. */
  scanning: u32,
  set: u32,
  /** Bits: scroll lock 1, num lock 2, caps lock 4. */
  leds: u32,
  rate: u32,
  /** The command whose argument comes next, or 0. */
  awaiting: u32,
  /** Which of the Ctrl and Alt keys are down. */
  modifiers: u32,
  last: u32,
  replyHead: u32,
  replyCount: u32,
  replies: bytes(8),
  head: u32,
  count: u32,
  queue: bytes(QUEUE),
  /** Set 3: how each key reports, by its code. */
  types: bytes(256),
});

export interface Ps2KeyboardWires {
  /** There may be a byte to take: the controller's `update`. */
  changed(): void;
  /** The guest set the lights. Bits as in `leds`. */
  ledsChanged?(leds: number): void;
}

export class Ps2Keyboard {
  readonly #s: View<typeof ps2KeyboardState.fields>;
  readonly #wires: Ps2KeyboardWires;

  constructor(state: View<typeof ps2KeyboardState.fields>, wires: Ps2KeyboardWires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    const s = this.#s;
    s.leds = 0;
    s.awaiting = 0;
    s.modifiers = 0;
    s.last = 0;
    s.replyHead = 0;
    s.replyCount = 0;
    s.replies.fill(0);
    s.queue.fill(0);
    this.#defaults();
    s.scanning = 1;
  }

  /** Lights, as the guest set them: scroll lock 1, num lock 2, caps lock 4. */
  get leds(): number {
    return this.#s.leds;
  }

  // The host's side.

  /** A key goes down, repeats (down again), or comes up. */
  key(key: QKeyCode, down: boolean): void {
    const s = this.#s;
    const modifier = (CTRL_KEYS[key] ?? 0) | (ALT_KEYS[key] ?? 0);
    s.modifiers = down ? s.modifiers | modifier : s.modifiers & ~modifier;
    if (s.scanning === 0) return;
    const codes = s.set === 3 ? this.#encode3(key, down) : this.#encode12(key, down);
    const room = QUEUE - s.count - (down ? KEPT_FOR_RELEASES : 0);
    if (codes.length === 0 || codes.length > room) return;
    for (const code of codes) s.queue[(s.head + s.count++) % QUEUE] = code;
    this.#wires.changed();
  }

  #encode12(key: QKeyCode, down: boolean): readonly number[] {
    const { set, modifiers } = this.#s;
    switch (key) {
      case 'pause': // has no release, and is another key with Ctrl
        if (!down) return [];
        if ((modifiers & CTRL_MASK) !== 0) return set === 1 ? [0xe0, 0x46, 0xe0, 0xc6] : [0xe0, 0x7e, 0xe0, 0xf0, 0x7e];
        return set === 1 ? [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5] : [0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77];
      case 'print':
      case 'sysrq':
        if ((modifiers & ALT_MASK) !== 0) return stroke(set, 0x54, down);
        if (down) return [...stroke(set, 0xaa, true), ...stroke(set, 0xb7, true)];
        return [...stroke(set, 0xb7, false), ...stroke(set, 0xaa, false)];
      case 'lang1':
      case 'lang2': // Korean keys: the same byte in both sets, and no release
        return down ? [key === 'lang1' ? 0xf2 : 0xf1] : [];
    }
    const code = scancodeOf(key);
    return code === undefined ? [] : stroke(set, code, down);
  }

  #encode3(key: QKeyCode, down: boolean): readonly number[] {
    const code = SET3.get(key === 'sysrq' ? 'print' : key);
    if (code === undefined) return [];
    if (down) return [code];
    return this.#s.types[code] === TYPE_MAKE_ONLY ? [] : [0xf0, code];
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
    } else return 0;
    return s.last;
  }

  /** A byte from the controller: a command or its argument. */
  write(value: number): void {
    const s = this.#s;
    const command = s.awaiting;
    const { last } = s;
    s.awaiting = 0;
    // A command takes back the replies to the one before.
    s.replyCount = 0;
    // An argument's range ends below the commands'; what is above abandons the command that waited for it.
    if (command !== 0 && value < SET_LEDS) this.#argument(command, value);
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
      case SET_LEDS:
      case SCANCODE_SET:
      case SET_RATE:
      case 0xfb:
      case 0xfc:
      case 0xfd:
        s.awaiting = value;
        break;
      case ECHO:
        this.#reply(ECHO);
        return;
      case IDENTIFY:
        this.#reply(ACK, 0xab, 0x83);
        return;
      case ENABLE:
        s.count = 0;
        s.scanning = 1;
        break;
      case DISABLE:
        this.#defaults();
        s.scanning = 0;
        break;
      case SET_DEFAULTS: {
        this.#defaults();
        break;
      }
      case 0xf7:
      case 0xf8:
      case 0xf9:
      case 0xfa:
        s.types.fill(value === 0xf7 || value === 0xf9 ? TYPE_MAKE_ONLY : 0);
        break;
      case RESEND:
        this.#reply(last);
        return;
      case RESET:
        this.#defaults();
        s.scanning = 1;
        s.leds = 0;
        this.#wires.ledsChanged?.(0);
        this.#reply(ACK, SELF_TEST_PASSED);
        return;
      default:
        this.#reply(RESEND);
        return;
    }
    this.#reply(ACK);
  }

  #argument(command: number, value: number): void {
    const s = this.#s;
    switch (command) {
      case SET_LEDS:
        s.leds = value & 7;
        this.#wires.ledsChanged?.(s.leds);
        break;
      case SCANCODE_SET:
        if (value === 0) {
          this.#reply(ACK, s.set);
          return;
        }
        if (value > 3) {
          this.#reply(RESEND);
          return;
        }
        s.set = value;
        s.count = 0;
        break;
      case SET_RATE:
        s.rate = value;
        break;
      default:
        s.types[value] = command === 0xfc ? 0 : TYPE_MAKE_ONLY;
        // More keys may follow.
        s.awaiting = command;
    }
    this.#reply(ACK);
  }

  #defaults(): void {
    const s = this.#s;
    s.set = 2;
    s.rate = DEFAULT_RATE;
    s.head = 0;
    s.count = 0;
    s.types.fill(0);
  }
}

/** The bytes of a keystroke in set 1 or 2; `code` is the key's set 1 code with bit 7 for an E0 prefix. */
function stroke(set: number, code: number, down: boolean): readonly number[] {
  const prefix = (code & 0x80) !== 0 ? [0xe0] : [];
  const base = code & 0x7f;
  if (set === 1) return [...prefix, down ? base : base | 0x80];
  return down ? [...prefix, SET2[base]] : [...prefix, 0xf0, SET2[base]];
}

/** Set 2 code by set 1 code. */
// biome-ignore format: sixteen a line
const SET2 = Uint8Array.of(
  0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
  0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
  0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
  0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
  0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
  0x72, 0x7a, 0x70, 0x71, 0x84, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
  0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f,
  0x13, 0x19, 0x39, 0x51, 0x53, 0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
);

/** Set 3 codes. */
// biome-ignore-start format: a row of the keyboard a line
const SET3 = new Map<QKeyCode, number>(
  Object.entries({
    esc: 0x08,
    f1: 0x07,
    f2: 0x0f,
    f3: 0x17,
    f4: 0x1f,
    f5: 0x27,
    f6: 0x2f,
    f7: 0x37,
    f8: 0x3f,
    f9: 0x47,
    f10: 0x4f,
    f11: 0x56,
    f12: 0x5e,
    print: 0x57,
    scroll_lock: 0x5f,
    pause: 0x62,
    grave_accent: 0x0e,
    '1': 0x16,
    '2': 0x1e,
    '3': 0x26,
    '4': 0x25,
    '5': 0x2e,
    '6': 0x36,
    '7': 0x3d,
    '8': 0x3e,
    '9': 0x46,
    '0': 0x45,
    minus: 0x4e,
    equal: 0x55,
    backspace: 0x66,
    tab: 0x0d,
    q: 0x15,
    w: 0x1d,
    e: 0x24,
    r: 0x2d,
    t: 0x2c,
    y: 0x35,
    u: 0x3c,
    i: 0x43,
    o: 0x44,
    p: 0x4d,
    bracket_left: 0x54,
    bracket_right: 0x5b,
    backslash: 0x5c,
    caps_lock: 0x14,
    a: 0x1c,
    s: 0x1b,
    d: 0x23,
    f: 0x2b,
    g: 0x34,
    h: 0x33,
    j: 0x3b,
    k: 0x42,
    l: 0x4b,
    semicolon: 0x4c,
    apostrophe: 0x52,
    ret: 0x5a,
    shift: 0x12,
    less: 0x13,
    z: 0x1a,
    x: 0x22,
    c: 0x21,
    v: 0x2a,
    b: 0x32,
    n: 0x31,
    m: 0x3a,
    comma: 0x41,
    dot: 0x49,
    slash: 0x4a,
    shift_r: 0x59,
    ctrl: 0x11,
    meta_l: 0x8b,
    alt: 0x19,
    spc: 0x29,
    alt_r: 0x39,
    meta_r: 0x8c,
    menu: 0x8d,
    compose: 0x8d,
    ctrl_r: 0x58,
    insert: 0x67,
    home: 0x6e,
    pgup: 0x6f,
    delete: 0x64,
    end: 0x65,
    pgdn: 0x6d,
    up: 0x63,
    left: 0x61,
    down: 0x60,
    right: 0x6a,
    num_lock: 0x76,
    kp_divide: 0x77,
    kp_multiply: 0x7e,
    asterisk: 0x7e,
    kp_subtract: 0x84,
    kp_add: 0x7c,
    kp_enter: 0x79,
    kp_decimal: 0x71,
    kp_7: 0x6c,
    kp_8: 0x75,
    kp_9: 0x7d,
    kp_4: 0x6b,
    kp_5: 0x73,
    kp_6: 0x74,
    kp_1: 0x69,
    kp_2: 0x72,
    kp_3: 0x7a,
    kp_0: 0x70,
  }) as [QKeyCode, number][],
);
// biome-ignore-end format: a row of the keyboard a line
