/**
 * 16550A serial port.
 * National Semiconductor PC16550D data sheet (TL/C/8652), sections 8.1 to 8.7.
 *
 * Bytes go to the sink as they are written and come in as fast as the guest takes them: the divisor only decides
 * how long the receive FIFO waits before it times out. While the sink is full, bytes stay in the transmit FIFO and
 * THRE stays low. As on a PC's card, OUT2 connects the interrupt. The modem lines CTS, DSR and DCD are always on.
 */
import type { CharFrontend, CharSink } from '../bus/chardev.ts';
import type { Clock, Timer } from '../bus/clock.ts';
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

const FIFO = 16;
const CLOCK_HZ = 1843200;

const IER_RECEIVED = 0x01;
const IER_THR_EMPTY = 0x02;
const IER_LINE_STATUS = 0x04;
const IER_MODEM_STATUS = 0x08;

const IIR_NONE = 0x01;
const IIR_LINE_STATUS = 0x06;
const IIR_RECEIVED = 0x04;
const IIR_TIMEOUT = 0x0c;
const IIR_THR_EMPTY = 0x02;
const IIR_MODEM_STATUS = 0x00;
const IIR_FIFOS = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_CLEAR_RECEIVE = 0x02;
const FCR_CLEAR_TRANSMIT = 0x04;
const TRIGGERS = [1, 4, 8, 14];

const LCR_BREAK = 0x40;
const LCR_DLAB = 0x80;

const MCR_OUT2 = 0x08;
const MCR_LOOP = 0x10;

const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
const LSR_BREAK = 0x10;
const LSR_THR_EMPTY = 0x20;
const LSR_IDLE = 0x40;
const LSR_FIFO_ERROR = 0x80;
/** Errors that belong to the byte at the head of the FIFO. */
const LSR_BYTE_ERRORS = 0x1c;

const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;
const CONNECTED = MSR_CTS | MSR_DSR | MSR_DCD;

export const uart16550State = struct('uart16550', 1, {
  ier: u32,
  /** FCR's enable and trigger bits. */
  fcr: u32,
  lcr: u32,
  mcr: u32,
  scratch: u32,
  divisor: u32,
  /** Modem status, with its four change bits. */
  msr: u32,
  /** Overrun, and the errors of the head byte that were not read yet. */
  errors: u32,
  thrInterrupt: u32,
  timedOut: u32,
  receiveHead: u32,
  receiveCount: u32,
  received: bytes(FIFO),
  /** The line status errors of each byte. */
  flags: bytes(FIFO),
  sendHead: u32,
  sendCount: u32,
  sending: bytes(FIFO),
});

export interface Uart16550Wires {
  /** Unique in the machine, e.g. `uart0`: names the timer. */
  readonly name: string;
  readonly clock: Clock;
  readonly irq: IrqLine;
  readonly sink: CharSink;
  /** The guest made room for input: `room()` is above 0 again. */
  roomMade?(): void;
}

export class Uart16550 implements IoHandler, CharFrontend {
  readonly #s: View<typeof uart16550State.fields>;
  readonly #wires: Uart16550Wires;
  readonly #timer: Timer;
  /** Scratch for the sink; holds nothing between calls. */
  readonly #chunk = new Uint8Array(FIFO);

  constructor(state: View<typeof uart16550State.fields>, wires: Uart16550Wires) {
    this.#s = state;
    this.#wires = wires;
    this.#timer = wires.clock.timer(`${wires.name}.timeout`, () => {
      if (this.#s.receiveCount > 0 && (this.#s.fcr & FCR_ENABLE) !== 0) this.#s.timedOut = 1;
      this.#update();
    });
  }

  /** Master reset. PC16550D, table I. */
  reset(): void {
    const s = this.#s;
    for (const field of ['ier', 'fcr', 'lcr', 'mcr', 'scratch', 'errors', 'thrInterrupt'] as const) s[field] = 0;
    s.divisor = 12;
    s.msr = CONNECTED;
    s.sending.fill(0);
    s.received.fill(0);
    s.flags.fill(0);
    this.#clearReceive();
    s.sendHead = 0;
    s.sendCount = 0;
    this.#update();
  }

  // The outside.

  room(): number {
    const s = this.#s;
    if ((s.mcr & MCR_LOOP) !== 0) return 0;
    return this.#depth - s.receiveCount;
  }

  receive(data: Uint8Array): void {
    // The guest may have closed the loop since the caller asked for the room: then the line leads nowhere.
    if ((this.#s.mcr & MCR_LOOP) !== 0) return;
    for (let i = 0; i < data.length; i++) this.#push(data[i], 0);
    this.#received();
  }

  drained(): void {
    if (this.#s.sendCount === 0) return;
    this.#transmit();
    this.#update();
  }

  /** A break on the line. */
  receiveBreak(): void {
    if ((this.#s.mcr & MCR_LOOP) !== 0) return;
    this.#push(0, LSR_BREAK);
    this.#received();
  }

  /** Whether the guest sends a break. */
  get breaking(): boolean {
    return (this.#s.lcr & LCR_BREAK) !== 0;
  }

  /** Bits a second, as the guest set it; 0 where the divisor is 0. */
  get baud(): number {
    return this.#s.divisor === 0 ? 0 : CLOCK_HZ / (16 * this.#s.divisor);
  }

  // Receiver.

  get #depth(): number {
    return (this.#s.fcr & FCR_ENABLE) !== 0 ? FIFO : 1;
  }

  #push(value: number, flags: number): void {
    const s = this.#s;
    if (s.receiveCount >= this.#depth) {
      s.errors |= LSR_OVERRUN;
      // Without FIFOs the new byte replaces the old one; with them it is lost. PC16550D 8.6.3
      if ((s.fcr & FCR_ENABLE) !== 0) return;
      s.receiveCount = 0;
    }
    const at = (s.receiveHead + s.receiveCount++) % FIFO;
    s.received[at] = value;
    s.flags[at] = flags;
    if (s.receiveCount === 1) s.errors |= flags;
  }

  #received(): void {
    this.#startTimeout();
    this.#update();
  }

  /** The FIFO times out four characters after the last one came or was taken. PC16550D 8.7 */
  #startTimeout(): void {
    const s = this.#s;
    if ((s.fcr & FCR_ENABLE) === 0 || s.receiveCount === 0) {
      s.timedOut = 0;
      this.#timer.disarm();
      return;
    }
    // What is due goes on being due until the FIFO is read.
    if ((s.ier & IER_RECEIVED) === 0) return;
    const bits = 7 + (s.lcr & 3) + ((s.lcr >> 2) & 1) + ((s.lcr >> 3) & 1);
    const seconds = (4 * bits * 16 * Math.max(1, s.divisor)) / CLOCK_HZ;
    this.#timer.arm(this.#wires.clock.now() + Math.ceil(Math.min(seconds, 0.1) * 1e9));
  }

  #clearReceive(): void {
    const s = this.#s;
    s.receiveHead = 0;
    s.receiveCount = 0;
    s.errors &= ~LSR_BYTE_ERRORS;
    s.timedOut = 0;
    this.#timer.disarm();
  }

  #readByte(): number {
    const s = this.#s;
    const value = s.received[s.receiveHead];
    if (s.receiveCount === 0) return value;
    s.receiveHead = (s.receiveHead + 1) % FIFO;
    s.receiveCount--;
    s.timedOut = 0;
    if (s.receiveCount > 0) s.errors |= s.flags[s.receiveHead];
    this.#startTimeout();
    this.#update();
    // A source that refills in the call is back before the guest looks again.
    if ((s.mcr & MCR_LOOP) === 0) this.#wires.roomMade?.();
    return value;
  }

  // Transmitter.

  #send(value: number): void {
    const s = this.#s;
    s.thrInterrupt = 0;
    // The line goes low between two bytes, so that each empty holding register makes an edge.
    this.#update();
    if (s.sendCount < this.#depth) s.sending[(s.sendHead + s.sendCount++) % FIFO] = value;
    this.#transmit();
    this.#update();
  }

  #transmit(): void {
    const s = this.#s;
    if ((s.mcr & MCR_LOOP) !== 0) {
      while (s.sendCount > 0) this.#push(this.#shift(), 0);
      this.#startTimeout();
    } else {
      for (let i = 0; i < s.sendCount; i++) this.#chunk[i] = s.sending[(s.sendHead + i) % FIFO];
      const taken = s.sendCount === 0 ? 0 : this.#wires.sink.write(this.#chunk.subarray(0, s.sendCount));
      for (let i = 0; i < taken && s.sendCount > 0; i++) this.#shift();
    }
    if (s.sendCount === 0) s.thrInterrupt = 1;
  }

  #shift(): number {
    const s = this.#s;
    const value = s.sending[s.sendHead];
    s.sendHead = (s.sendHead + 1) % FIFO;
    s.sendCount--;
    return value;
  }

  // Interrupts.

  /** The cause of highest priority. PC16550D, table IV. */
  #cause(): number {
    const s = this.#s;
    const { ier } = s;
    if ((ier & IER_LINE_STATUS) !== 0 && s.errors !== 0) return IIR_LINE_STATUS;
    if ((ier & IER_RECEIVED) !== 0) {
      const trigger = (s.fcr & FCR_ENABLE) !== 0 ? TRIGGERS[s.fcr >> 6] : 1;
      if (s.receiveCount >= trigger) return IIR_RECEIVED;
      if (s.timedOut !== 0) return IIR_TIMEOUT;
    }
    if ((ier & IER_THR_EMPTY) !== 0 && s.thrInterrupt !== 0) return IIR_THR_EMPTY;
    if ((ier & IER_MODEM_STATUS) !== 0 && (s.msr & 0x0f) !== 0) return IIR_MODEM_STATUS;
    return IIR_NONE;
  }

  #update(): void {
    this.#wires.irq.set((this.#s.mcr & MCR_OUT2) !== 0 && this.#cause() !== IIR_NONE);
  }

  // Registers.

  read(offset: number, _size: AccessSize): number {
    const s = this.#s;
    switch (offset & 7) {
      case 0:
        return (s.lcr & LCR_DLAB) !== 0 ? s.divisor & 0xff : this.#readByte();
      case 1:
        return (s.lcr & LCR_DLAB) !== 0 ? s.divisor >> 8 : s.ier;
      case 2: {
        const cause = this.#cause();
        // Reading it ends this cause, and only when it is the one that is told.
        if (cause === IIR_THR_EMPTY) {
          s.thrInterrupt = 0;
          this.#update();
        }
        return cause | ((s.fcr & FCR_ENABLE) !== 0 ? IIR_FIFOS : 0);
      }
      case 3:
        return s.lcr;
      case 4:
        return s.mcr;
      case 5: {
        const value = this.#lineStatus();
        s.errors = 0;
        // The head byte's errors are told once.
        s.flags[s.receiveHead] = 0;
        this.#update();
        return value;
      }
      case 6: {
        const value = s.msr;
        s.msr &= 0xf0;
        this.#update();
        return value;
      }
      default:
        return s.scratch;
    }
  }

  #lineStatus(): number {
    const s = this.#s;
    let value = s.errors | (s.receiveCount > 0 ? LSR_DATA_READY : 0);
    if (s.sendCount === 0) value |= LSR_THR_EMPTY | LSR_IDLE;
    if ((s.fcr & FCR_ENABLE) !== 0)
      for (let i = 0; i < s.receiveCount; i++) if (s.flags[(s.receiveHead + i) % FIFO] !== 0) value |= LSR_FIFO_ERROR;
    return value;
  }

  write(offset: number, _size: AccessSize, written: number): void {
    const s = this.#s;
    const value = written & 0xff;
    switch (offset & 7) {
      case 0:
        if ((s.lcr & LCR_DLAB) !== 0) s.divisor = (s.divisor & 0xff00) | value;
        else this.#send(value);
        return;
      case 1:
        if ((s.lcr & LCR_DLAB) !== 0) s.divisor = (s.divisor & 0xff) | (value << 8);
        else this.#writeIer(value & 0x0f);
        break;
      case 2:
        this.#writeFcr(value);
        break;
      case 3:
        s.lcr = value;
        break;
      case 4:
        this.#writeMcr(value & 0x1f);
        break;
      case 7:
        s.scratch = value;
        break;
    }
    this.#update();
  }

  #writeIer(value: number): void {
    const s = this.#s;
    const rising = value & ~s.ier;
    s.ier = value;
    // Enabling it while the register is empty asks at once.
    if ((rising & IER_THR_EMPTY) !== 0 && s.sendCount === 0) s.thrInterrupt = 1;
    if ((rising & IER_RECEIVED) !== 0) this.#startTimeout();
  }

  #writeFcr(value: number): void {
    const s = this.#s;
    const toggled = ((s.fcr ^ value) & FCR_ENABLE) !== 0;
    const blocked = this.room() === 0;
    s.fcr = (value & FCR_ENABLE) !== 0 ? value & 0xc1 : 0;
    if (toggled || (value & FCR_CLEAR_RECEIVE) !== 0) this.#clearReceive();
    if ((toggled || (value & FCR_CLEAR_TRANSMIT) !== 0) && s.sendCount > 0) {
      s.sendCount = 0;
      s.thrInterrupt = 1;
    }
    if (blocked && this.room() > 0) this.#wires.roomMade?.();
  }

  #writeMcr(value: number): void {
    const s = this.#s;
    const looped = (s.mcr & MCR_LOOP) !== 0;
    s.mcr = value;
    if ((value & MCR_LOOP) === 0) {
      this.#setModem(CONNECTED);
      if (looped) this.#wires.roomMade?.();
      return;
    }
    // The outputs come back as inputs: RTS as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD. PC16550D 8.6.7
    const inputs = ((value & 2) !== 0 ? MSR_CTS : 0) | ((value & 1) !== 0 ? MSR_DSR : 0) | ((value & 0x0c) << 4);
    this.#setModem(inputs);
  }

  #setModem(inputs: number): void {
    const s = this.#s;
    const old = s.msr & 0xf0;
    const changed = old ^ inputs;
    // Bit 2 tells the end of a ring, the others any change.
    const ringEnded = (old & ~inputs & MSR_RI) >> 4;
    s.msr = inputs | (s.msr & 0x0f) | ((changed & ~MSR_RI) >> 4) | ringEnded;
  }
}
