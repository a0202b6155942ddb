/**
 * virtio-console, also known as virtio-serial: a console and named ports. virtio 1.2, 5.3.
 *
 * Queues: port 0 receive and transmit, control to and from the driver, then two for each further port. What the device
 * has to tell the driver is kept as a set of bits for each port and sent, in the order of the bits, as the driver gives
 * buffers; so nothing queues up however slow the driver is.
 *
 * A chain that the back end took only in part stays in the ring, with the number of bytes taken in the state; it is
 * taken up again when the back end has room.
 */
import type { CharFrontend, CharSink } from '../../bus/chardev.ts';
import { bytes, struct, u32, u32s, type View } from '../../memory/struct.ts';
import { SERVE_MAX, serveAll, type VirtioDevice, type VirtioTransport } from './device.ts';

export const CONSOLE_PORTS_MAX = 31;

const F_SIZE = 0;
const F_MULTIPORT = 1;
const F_EMERG_WRITE = 2;

/** Control events. virtio 1.2, 5.3.6.2. */
const DEVICE_READY = 0;
const PORT_ADD = 1;
const PORT_READY = 3;
const CONSOLE_PORT = 4;
const RESIZE = 5;
const PORT_OPEN = 6;
const PORT_NAME = 7;

// What the driver is still to be told of a port, in the order of telling.
const TELL_ADD = 1;
const TELL_CONSOLE = 2;
const TELL_NAME = 4;
const TELL_OPEN = 8;
const TELL_RESIZE = 16;
const TELL_ALL = [TELL_ADD, TELL_CONSOLE, TELL_NAME, TELL_OPEN, TELL_RESIZE];

const CONTROL_RECEIVE = 2;
const CONTROL_TRANSMIT = 3;
const QUEUE_SIZE = 128;
/** No driver sends so much at once. */
const CHAIN_MAX = 2 ** 20;
const PIECE = 4096;

export const virtioConsoleState = struct('virtio-console', 1, {
  /** Of the terminal; 0 for 80 by 25. */
  columns: u32,
  rows: u32,
  /** The driver said that it knows about ports. */
  deviceReady: u32,
  portReady: bytes(CONSOLE_PORTS_MAX + 1),
  guestOpen: bytes(CONSOLE_PORTS_MAX + 1),
  /** The outside has the port closed; no reset changes this, and nor those of the columns and rows. */
  hostClosed: bytes(CONSOLE_PORTS_MAX + 1),
  /** `TELL_` bits. */
  tell: bytes(CONSOLE_PORTS_MAX + 1),
  /** Bytes that the back end took of the chain at the head of the transmit queue. */
  sent: u32s(CONSOLE_PORTS_MAX + 1),
});

export interface ConsolePort {
  /** 0 to 30. Port 0 is for a console. */
  readonly number: number;
  /** `console` is QEMU's virtconsole, a terminal of the guest; `serial` is virtserialport, a named channel. */
  readonly kind: 'console' | 'serial';
  /** As the guest finds it below /dev/virtio-ports, e.g. `org.qemu.guest_agent.0`. */
  readonly name?: string;
  readonly sink: CharSink;
  /** The guest opened or closed the port. */
  readonly opened?: (open: boolean) => void;
  /** The guest gave buffers: `room()` may have grown. */
  readonly roomy?: () => void;
}

export class VirtioConsole implements VirtioDevice {
  readonly name = 'virtio-serial';
  readonly type = 3;
  readonly legacyId = 0x1003;
  readonly classCode = 0x078000;
  readonly features: readonly number[];
  readonly queueSizes: readonly number[];
  readonly configSize = 12;
  readonly #s: View<typeof virtioConsoleState.fields>;
  readonly #ports: (ConsolePort | undefined)[];
  #transport!: VirtioTransport;

  /** `maxPorts` is how many ports the driver is told of; at least what `ports` needs. Throws where numbers clash. */
  constructor(state: View<typeof virtioConsoleState.fields>, ports: readonly ConsolePort[], maxPorts = 1) {
    this.#s = state;
    const count = Math.max(maxPorts, ...ports.map((port) => port.number + 1));
    if (count > CONSOLE_PORTS_MAX) throw new RangeError(`virtio-serial: more than ${CONSOLE_PORTS_MAX} ports`);
    this.#ports = new Array(count).fill(undefined);
    for (const port of ports) {
      if (this.#ports[port.number] !== undefined) throw new Error(`virtio-serial: port ${port.number} is taken`);
      if (port.number === 0 && port.kind !== 'console') throw new Error('virtio-serial: port 0 is for a console');
      this.#ports[port.number] = port;
    }
    const multiport = count > 1;
    this.features = [F_SIZE, F_EMERG_WRITE, ...(multiport ? [F_MULTIPORT] : [])];
    this.queueSizes = new Array(multiport ? 2 * (count + 1) : 2).fill(QUEUE_SIZE);
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  reset(): void {
    const s = this.#s;
    s.deviceReady = 0;
    s.portReady.fill(0);
    s.tell.fill(0);
    s.sent.fill(0);
    for (let number = 0; number < this.#ports.length; number++) this.#setGuestOpen(number, false);
  }

  config(): Uint8Array {
    const config = new Uint8Array(12);
    const view = new DataView(config.buffer);
    view.setUint16(0, this.#columns, true);
    view.setUint16(2, this.#rows, true);
    view.setUint32(4, this.#ports.length, true);
    return config;
  }

  /** Emergency write: one character that needs no queue. virtio 1.2, 5.3.4. */
  writeConfig(offset: number, _size: number, value: number): void {
    if (offset === 8) this.#ports[0]?.sink.write(Uint8Array.of(value & 0xff));
  }

  get #columns(): number {
    return this.#s.columns || 80;
  }
  get #rows(): number {
    return this.#s.rows || 25;
  }

  /** The terminal behind the console has this many columns and rows. */
  resize(columns: number, rows: number): void {
    this.#s.columns = columns & 0xffff;
    this.#s.rows = rows & 0xffff;
    this.#transport.configChanged();
    this.#ports.forEach((port, number) => {
      if (port?.kind === 'console' && this.#s.portReady[number] !== 0) this.#s.tell[number] |= TELL_RESIZE;
    });
    this.#flushControl();
  }

  /** Whether the guest has the port open. */
  guestOpen(number: number): boolean {
    return this.#s.guestOpen[number] !== 0;
  }

  /** What the back end of port `number` calls. */
  frontend(number: number): CharFrontend {
    return {
      room: () => this.#room(number),
      receive: (data) => this.#receive(number, data),
      drained: () => this.#transmit(number),
      setOpen: (open) => {
        if (this.#s.hostClosed[number] === (open ? 0 : 1)) return;
        this.#s.hostClosed[number] = open ? 0 : 1;
        if (this.#s.portReady[number] === 0) return;
        this.#s.tell[number] |= TELL_OPEN;
        this.#flushControl();
      },
    };
  }

  notified(index: number): void {
    if (this.#multiport && index === CONTROL_RECEIVE) return this.#flushControl();
    if (this.#multiport && index === CONTROL_TRANSMIT) return this.#control();
    const number = index < 2 ? 0 : (index >> 1) - 1;
    if ((index & 1) !== 0) this.#transmit(number);
    else this.#ports[number]?.roomy?.();
  }

  get #multiport(): boolean {
    return this.#transport.hasFeature(F_MULTIPORT);
  }

  /** First queue of a port: receive; transmit follows. */
  #queueOf(number: number): number {
    return number === 0 ? 0 : 2 * (number + 1);
  }

  /** A console is open whenever its driver runs; a serial port when the guest says so. */
  #listening(number: number): boolean {
    return this.#ports[number]?.kind === 'console' || this.#s.guestOpen[number] !== 0;
  }

  #room(number: number): number {
    const queue = this.#transport.queues[this.#queueOf(number)];
    if (queue === undefined || !this.#listening(number)) return 0;
    const chain = queue.pop();
    if (chain === undefined) {
      queue.wantNotifications(true);
      return 0;
    }
    queue.unpop(chain);
    if (chain.writableBytes === 0) this.#transport.fail('receive buffer that cannot be written');
    return chain.writableBytes;
  }

  #receive(number: number, data: Uint8Array): void {
    const index = this.#queueOf(number);
    const queue = this.#transport.queues[index];
    for (let done = 0; done < data.length; ) {
      const chain = queue?.pop();
      if (chain === undefined) break;
      const count = chain.write(0, data.subarray(done));
      queue.push(chain, count);
      if (count === 0) break;
      done += count;
    }
    this.#transport.signal(index);
  }

  #transmit(number: number): void {
    const s = this.#s;
    const port = this.#ports[number];
    const index = this.#queueOf(number) + 1;
    const queue = this.#transport.queues[index];
    if (queue === undefined) return;
    const buffer = new Uint8Array(PIECE);
    for (let count = 0; count < SERVE_MAX; count++) {
      const chain = queue.pop();
      if (chain === undefined) {
        queue.wantNotifications(true);
        if (queue.waiting() === 0) break;
        continue;
      }
      if (chain.readableBytes > CHAIN_MAX) {
        this.#transport.fail(`${chain.readableBytes} bytes sent at once`);
        break;
      }
      let full = false;
      while (s.sent[number] < chain.readableBytes && !full) {
        const length = chain.read(s.sent[number], buffer.subarray(0, Math.min(PIECE, chain.readableBytes - s.sent[number])));
        const taken = port === undefined ? length : port.sink.write(buffer.subarray(0, length));
        s.sent[number] += taken;
        full = taken < length;
      }
      if (full) {
        queue.unpop(chain);
        break;
      }
      s.sent[number] = 0;
      queue.push(chain, 0);
    }
    this.#transport.signal(index);
  }

  /** Messages of the driver. virtio 1.2, 5.3.6.2. */
  #control(): void {
    serveAll(this.#transport, CONTROL_TRANSMIT, (chain) => {
      const message = new DataView(new ArrayBuffer(8));
      if (chain.read(0, new Uint8Array(message.buffer)) === 8)
        this.#message(message.getUint32(0, true), message.getUint16(4, true), message.getUint16(6, true));
      return 0;
    });
    this.#flushControl();
  }

  #message(number: number, event: number, value: number): void {
    const s = this.#s;
    if (event === DEVICE_READY) {
      if (value !== 1 || s.deviceReady !== 0) return;
      s.deviceReady = 1;
      this.#ports.forEach((port, each) => {
        if (port !== undefined) s.tell[each] |= TELL_ADD;
      });
      return;
    }
    const port = this.#ports[number];
    if (port === undefined) return;
    if (event === PORT_READY && value === 1) {
      s.portReady[number] = 1;
      if (port.kind === 'console') s.tell[number] |= TELL_CONSOLE | TELL_RESIZE;
      if (port.name !== undefined) s.tell[number] |= TELL_NAME;
      if (s.hostClosed[number] === 0) s.tell[number] |= TELL_OPEN;
    } else if (event === PORT_OPEN) this.#setGuestOpen(number, value !== 0);
  }

  #setGuestOpen(number: number, open: boolean): void {
    if ((this.#s.guestOpen[number] !== 0) === open) return;
    this.#s.guestOpen[number] = open ? 1 : 0;
    this.#ports[number]?.opened?.(open);
  }

  /** Tells the driver what it has buffers for. */
  #flushControl(): void {
    if (!this.#multiport) return;
    const s = this.#s;
    const queue = this.#transport.queues[CONTROL_RECEIVE];
    for (let number = 0; number < this.#ports.length; number++) {
      for (const what of TELL_ALL) {
        if ((s.tell[number] & what) === 0) continue;
        const chain = queue.pop();
        if (chain === undefined) {
          queue.wantNotifications(true);
          return this.#transport.signal(CONTROL_RECEIVE);
        }
        s.tell[number] &= ~what;
        queue.push(chain, chain.write(0, this.#tellMessage(number, what)));
      }
    }
    this.#transport.signal(CONTROL_RECEIVE);
  }

  #tellMessage(number: number, what: number): Uint8Array {
    const s = this.#s;
    const name = new TextEncoder().encode(this.#ports[number]?.name ?? '');
    const message = new Uint8Array(what === TELL_NAME ? 8 + name.length + 1 : what === TELL_RESIZE ? 12 : 8);
    const view = new DataView(message.buffer);
    view.setUint32(0, number, true);
    const put = (event: number, value: number): void => {
      view.setUint16(4, event, true);
      view.setUint16(6, value, true);
    };
    if (what === TELL_ADD) put(PORT_ADD, 0);
    else if (what === TELL_CONSOLE) put(CONSOLE_PORT, 1);
    else if (what === TELL_OPEN) put(PORT_OPEN, s.hostClosed[number] === 0 ? 1 : 0);
    else if (what === TELL_RESIZE) {
      put(RESIZE, 0);
      // virtio 1.2, 5.3.6.2 lists columns first; Linux, the only driver that acts on it, reads rows first.
      view.setUint16(8, this.#rows, true);
      view.setUint16(10, this.#columns, true);
    } else {
      put(PORT_NAME, 1);
      message.set(name, 8);
    }
    return message;
  }
}
