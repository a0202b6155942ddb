/**
 * One gdb at the other end of a stream: the remote serial protocol in all-stop mode, a thread for each vCPU (numbered
 * from 1). GDB manual, appendix E. The machine stops when gdb comes, and goes on without breakpoints when it leaves.
 */
import { fromHex, fromLittleHex, littleHex, PACKET_SIZE, PacketReader, packet, toHex } from './packets.ts';
import {
  type DebugTarget,
  type GdbAction,
  type GdbBreakpoint,
  type GdbRegister,
  type GdbStop,
  gdbRegisters,
  MAX_BREAKPOINTS,
  targetXml,
} from './target.ts';

export interface GdbWires {
  readonly target: DebugTarget;
  /** Commands of `monitor` in gdb; gives their output. */
  monitor(line: string): Promise<string>;
  send(bytes: Uint8Array): void;
  close(): void;
}

const SIGINT = 2;
const SIGTRAP = 5;
/** Kinds of Z packets by number. */
const KINDS: readonly GdbBreakpoint['kind'][] = ['code', 'code', 'write', 'read', 'access'];
const WATCH_NAMES: Readonly<Record<string, string>> = { write: 'watch', read: 'rwatch', access: 'awatch' };
const OK = 'OK';
const BAD = 'E22';
const FAULT = 'E14';

export class GdbStub {
  readonly #wires: GdbWires;
  readonly #target: DebugTarget;
  readonly #registers: readonly GdbRegister[];
  readonly #reader = new PacketReader();
  readonly #breakpoints: GdbBreakpoint[] = [];
  readonly #detach: () => void;
  #acknowledge = true;
  #last: Uint8Array | undefined;
  /** gdb waits for a stop reply. */
  #waiting = false;
  #stop: GdbStop = { kind: 'paused', cpu: 0 };
  /** Threads that `g` and `c` are about. */
  #general = 0;
  #resumed = 0;
  #physical = false;
  #queue: Promise<void> = Promise.resolve();
  #ended = false;

  constructor(wires: GdbWires) {
    this.#wires = wires;
    this.#target = wires.target;
    this.#registers = gdbRegisters(wires.target.long);
    this.#detach = this.#target.onStop((stop) => this.#stopped(stop));
    this.#queue = this.#target.stop();
    void this.#target.ended.then((status) => {
      if (this.#ended) return;
      this.#send(`W${(status & 0xff).toString(16).padStart(2, '0')}`);
      this.#wires.close();
    });
  }

  /** Bytes from gdb. Packets are served one after the other. */
  feed(bytes: Uint8Array): void {
    for (const incoming of this.#reader.feed(bytes)) {
      switch (incoming.kind) {
        case 'interrupt':
          this.#queue = this.#queue.then(() => this.#interrupt());
          break;
        case 'nak':
          if (this.#last !== undefined) this.#wires.send(this.#last);
          break;
        case 'bad':
          if (this.#acknowledge) this.#wires.send(Uint8Array.of(0x2d));
          break;
        case 'packet': {
          if (this.#acknowledge) this.#wires.send(Uint8Array.of(0x2b));
          const { data } = incoming;
          this.#queue = this.#queue.then(async () => {
            if (this.#ended) return;
            const answer = await this.#serve(data).catch(() => 'E01');
            if (answer !== undefined) this.#send(answer);
          });
          break;
        }
      }
    }
  }

  /** The stream is gone: breakpoints go, and the machine goes on if gdb had stopped it. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#detach();
    this.#queue = this.#queue.then(async () => {
      await this.#target.stop();
      this.#target.setBreakpoints([]);
      await this.#target.resume(Array.from({ length: this.#target.cpus }, () => 'run'));
    });
    this.#queue.catch(() => {});
  }

  #send(data: string): void {
    this.#last = packet(data);
    this.#wires.send(this.#last);
  }

  async #interrupt(): Promise<void> {
    await this.#target.stop();
    this.#stopped({ kind: 'paused', cpu: this.#stop.cpu });
  }

  #stopped(stop: GdbStop): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#stop = stop;
    this.#general = stop.cpu;
    this.#resumed = stop.cpu;
    this.#send(this.#reply());
  }

  #reply(): string {
    const stop = this.#stop;
    const signal = stop.kind === 'paused' ? SIGINT : SIGTRAP;
    let reason = '';
    if (stop.kind === 'breakpoint') {
      const { kind, address } = stop.breakpoint;
      const at = BigInt.asUintN(this.#target.long ? 64 : 32, BigInt(address)).toString(16);
      reason = kind === 'code' ? '' : `${WATCH_NAMES[kind]}:${at};`;
    }
    return `T${signal.toString(16).padStart(2, '0')}thread:${thread(stop.cpu)};${reason}`;
  }

  /** The vCPU of a thread id: `-1` all, `0` any; undefined where there is none. */
  #cpuOf(id: string): number | 'all' | undefined {
    if (id === '-1') return 'all';
    if (!/^[0-9a-fA-F]+$/.test(id)) return undefined;
    const number = Number.parseInt(id, 16);
    if (number === 0) return this.#general;
    return number <= this.#target.cpus ? number - 1 : undefined;
  }

  async #serve(data: string): Promise<string | undefined> {
    const rest = data.slice(1);
    switch (data[0]) {
      case '?':
        return this.#reply();
      case '!':
        return '';
      case 'g':
        return this.#registers.map((register) => this.#read(register)).join('');
      case 'G':
        return this.#writeAll(rest);
      case 'p': {
        const register = this.#registers[Number.parseInt(rest, 16)];
        return register === undefined ? BAD : this.#read(register);
      }
      case 'P': {
        const [number, value] = rest.split('=');
        const register = this.#registers[Number.parseInt(number, 16)];
        const parsed = value === undefined ? undefined : fromLittleHex(value);
        if (register === undefined || parsed === undefined) return BAD;
        return this.#target.writeRegister(this.#general, register.name, parsed) ? OK : BAD;
      }
      case 'm':
        return this.#readMemory(rest);
      case 'M':
      case 'X':
        return this.#writeMemory(rest, data[0] === 'X');
      case 'H': {
        const cpu = this.#cpuOf(rest.slice(1));
        if (cpu === undefined) return BAD;
        if (cpu !== 'all') {
          if (rest[0] === 'g') this.#general = cpu;
          else this.#resumed = cpu;
        }
        return OK;
      }
      case 'T':
        return typeof this.#cpuOf(rest) === 'number' ? OK : BAD;
      case 'Z':
      case 'z':
        return this.#breakpoint(data[0] === 'Z', rest);
      case 'c':
      case 's':
        return this.#go(data[0], rest);
      case 'C':
      case 'S':
        return this.#go(data[0].toLowerCase(), rest.split(';')[1] ?? '');
      case 'D':
        this.#send(OK);
        this.end();
        this.#wires.close();
        return undefined;
      case 'k':
        this.#target.kill();
        return undefined;
      case 'v':
        return this.#serveV(data);
      case 'q':
      case 'Q':
        return this.#query(data);
      default:
        return '';
    }
  }

  // --- registers and memory ---------------------------------------------------------------------------------------

  #read({ name, bits }: GdbRegister): string {
    const value = this.#target.readRegister(this.#general, name);
    return value === undefined ? 'x'.repeat(bits / 4) : littleHex(value, bits);
  }

  #writeAll(text: string): string {
    let at = 0;
    for (const register of this.#registers) {
      const digits = register.bits / 4;
      const part = text.slice(at, at + digits);
      at += digits;
      if (part.length < digits || part.startsWith('x') || part === this.#read(register)) continue;
      const value = fromLittleHex(part);
      if (value === undefined || !this.#target.writeRegister(this.#general, register.name, value)) return BAD;
    }
    return OK;
  }

  #readMemory(text: string): string {
    const range = parseRange(text);
    if (range === undefined) return BAD;
    const length = Math.min(range.length, (PACKET_SIZE - 16) / 2);
    const bytes = this.#target.read(this.#general, range.address, length, this.#physical);
    return bytes === undefined ? FAULT : toHex(bytes);
  }

  #writeMemory(text: string, binary: boolean): string {
    const colon = text.indexOf(':');
    const range = parseRange(text.slice(0, colon));
    const content = text.slice(colon + 1);
    if (colon < 0 || range === undefined) return BAD;
    const bytes = binary ? Uint8Array.from(content, (each) => each.charCodeAt(0)) : fromHex(content);
    if (bytes === undefined || bytes.length !== range.length) return BAD;
    return bytes.length === 0 || this.#target.write(this.#general, range.address, bytes, this.#physical) ? OK : FAULT;
  }

  // --- going on ---------------------------------------------------------------------------------------------------

  #breakpoint(set: boolean, text: string): string {
    const match = /^([0-4]),([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,8})$/.exec(text);
    if (match === null) return '';
    const kind = KINDS[Number(match[1])];
    const address = signed(BigInt(`0x${match[2]}`), this.#target.long);
    // For code the third number is a kind of instruction, not a length.
    const length = kind === 'code' ? 1 : Number.parseInt(match[3], 16);
    if (address === undefined || length > 4096) return BAD;
    const at = this.#breakpoints.findIndex((each) => each.kind === kind && each.address === address && each.length === length);
    if (set) {
      if (at >= 0) return OK;
      if (this.#breakpoints.length >= MAX_BREAKPOINTS) return BAD;
      this.#breakpoints.push({ kind, address, length });
    } else if (at >= 0) this.#breakpoints.splice(at, 1);
    this.#target.setBreakpoints(this.#breakpoints);
    return OK;
  }

  async #resume(actions: readonly GdbAction[]): Promise<undefined> {
    this.#waiting = true;
    try {
      await this.#target.resume(actions);
    } catch {
      this.#waiting = false;
      this.#send(`E01`);
    }
    return undefined;
  }

  async #go(how: string, address: string): Promise<string | undefined> {
    if (address !== '') {
      const value = /^[0-9a-fA-F]+$/.test(address) ? BigInt(`0x${address}`) : undefined;
      const name = this.#target.long ? 'rip' : 'eip';
      if (value === undefined || !this.#target.writeRegister(this.#resumed, name, value)) return BAD;
    }
    const actions = Array.from(
      { length: this.#target.cpus },
      (_, cpu): GdbAction => (how === 's' && cpu === this.#resumed ? 'step' : 'run'),
    );
    return this.#resume(actions);
  }

  async #serveV(data: string): Promise<string | undefined> {
    if (data === 'vCont?') return 'vCont;c;C;s;S';
    if (data.startsWith('vKill')) {
      this.#target.kill();
      return OK;
    }
    if (!data.startsWith('vCont;')) return '';
    const actions: (GdbAction | undefined)[] = Array.from({ length: this.#target.cpus }, () => undefined);
    // For each thread the leftmost action that names it counts.
    for (const part of data.slice(6).split(';')) {
      const match = /^([csCS])[0-9a-fA-F]*(?::(.+))?$/.exec(part);
      if (match === null) return BAD;
      const action: GdbAction = match[1].toLowerCase() === 's' ? 'step' : 'run';
      const cpu = match[2] === undefined ? 'all' : this.#cpuOf(match[2]);
      if (cpu === undefined) return BAD;
      for (let n = 0; n < actions.length; n++) if (cpu === 'all' || cpu === n) actions[n] ??= action;
    }
    return this.#resume(actions.map((action) => action ?? 'hold'));
  }

  // --- queries ----------------------------------------------------------------------------------------------------

  async #query(data: string): Promise<string> {
    const name = /^[A-Za-z.]+/.exec(data)?.[0] ?? '';
    const rest = data.slice(name.length);
    switch (name) {
      case 'qSupported':
        return `PacketSize=${PACKET_SIZE.toString(16)};qXfer:features:read+;vContSupported+;QStartNoAckMode+`;
      case 'QStartNoAckMode':
        this.#acknowledge = false;
        return OK;
      case 'qXfer': {
        const match = /^:features:read:target\.xml:([0-9a-fA-F]+),([0-9a-fA-F]+)$/.exec(rest);
        if (match === null) return rest.startsWith(':features:read:') ? 'E00' : '';
        const xml = targetXml(this.#target.long);
        const from = Number.parseInt(match[1], 16);
        const length = Math.min(Number.parseInt(match[2], 16), PACKET_SIZE - 16);
        return (from + length < xml.length ? 'm' : 'l') + xml.slice(from, from + length);
      }
      case 'qC':
        return `QC${thread(this.#general)}`;
      case 'qAttached':
        return '1';
      case 'qfThreadInfo':
        return `m${Array.from({ length: this.#target.cpus }, (_, cpu) => thread(cpu)).join(',')}`;
      case 'qsThreadInfo':
        return 'l';
      case 'qThreadExtraInfo': {
        const cpu = this.#cpuOf(rest.slice(1));
        return typeof cpu === 'number' ? toHex(new TextEncoder().encode(`vCPU ${cpu}`)) : BAD;
      }
      case 'qRcmd': {
        const line = fromHex(rest.slice(1));
        if (line === undefined) return BAD;
        const output = await this.#wires.monitor(new TextDecoder().decode(line));
        const bytes = new TextEncoder().encode(output.replaceAll('\r', ''));
        for (let at = 0; at < bytes.length; at += 4096) this.#send(`O${toHex(bytes.subarray(at, at + 4096))}`);
        return OK;
      }
      case 'qqemu.PhyMemMode':
        return this.#physical ? '1' : '0';
      case 'Qqemu.PhyMemMode':
        this.#physical = rest === ':1';
        return OK;
      default:
        return '';
    }
  }
}

const thread = (cpu: number): string => (cpu + 1).toString(16).padStart(2, '0');

/** `address,length`, both hexadecimal. */
function parseRange(text: string): { address: bigint; length: number } | undefined {
  const match = /^([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,8})$/.exec(text);
  return match === null ? undefined : { address: BigInt(`0x${match[1]}`), length: Number.parseInt(match[2], 16) };
}

/** A linear address as the engine has it: canonical ones signed; undefined where it is not canonical. */
function signed(address: bigint, long: boolean): number | undefined {
  if (!long) return Number(address & 0xffffffffn);
  const value = BigInt.asIntN(64, address);
  return value >= -(1n << 47n) && value < 1n << 47n ? Number(value) : undefined;
}
