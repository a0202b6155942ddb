/**
 * A multiplexer: several front ends (a serial port and the monitor, as with `mon:stdio`) on one back end. All of
 * them write; one has the input. Keys after the escape character (Ctrl-A) act on the multiplexer itself.
 */
import type { CharClient, Chardev, CharPort } from '../monitor/machine-control.ts';
import { ChardevError } from './chardev-types.ts';

const bufferBytes = 4096;
const maxFrontends = 4;

interface Frontend {
  readonly client: CharClient;
  input: Uint8Array[];
  bytes: number;
}

export interface MuxHooks {
  /** The escape character, 1 (Ctrl-A) unless `-echr` says otherwise. */
  readonly escape?: number;
  /** Ctrl-A x: end the machine. */
  quit(): void;
  /** Milliseconds since the machine started, for timestamps. */
  uptime?(): number;
}

const encoder = new TextEncoder();

export class MuxChardev implements Chardev {
  readonly #lower: Chardev;
  readonly #hooks: MuxHooks;
  readonly #escape: number;
  readonly #port: CharPort;
  #frontends: Frontend[] = [];
  #focus = 0;
  #escaped = false;
  #timestamps = false;
  #lineStart = true;
  #pumping = false;

  constructor(lower: Chardev, hooks: MuxHooks) {
    this.#lower = lower;
    this.#hooks = hooks;
    this.#escape = hooks.escape ?? 1;
    this.#port = lower.attach({
      room: () => {
        const focused = this.#frontends[this.#focus];
        return focused === undefined ? 0 : bufferBytes - focused.bytes;
      },
      receive: (data) => this.#receive(data),
      drained: () => {
        for (const { client } of [...this.#frontends]) client.drained();
      },
      setOpen: (open) => {
        for (const { client } of [...this.#frontends]) client.setOpen?.(open);
      },
      receiveBreak: () => this.#frontends[this.#focus]?.client.receiveBreak?.(),
    });
  }

  get id(): string {
    return this.#lower.id;
  }

  get filename(): string {
    return `mux:${this.#lower.filename}`;
  }

  get open(): boolean {
    return this.#lower.open;
  }

  get terminal(): boolean {
    return this.#lower.terminal;
  }

  get attached(): boolean {
    return this.#frontends.length > 0;
  }

  /** The first front end has the input until Ctrl-A c gives it to the next. */
  attach(client: CharClient): CharPort {
    if (this.#frontends.length >= maxFrontends) throw new ChardevError(`Device '${this.id}' has too many front ends`);
    const frontend: Frontend = { client, input: [], bytes: 0 };
    this.#frontends.push(frontend);
    const lower = this.#lower;
    const focused = (): boolean => this.#frontends[this.#focus] === frontend;
    return {
      get focused() {
        return focused();
      },
      get open() {
        return lower.open;
      },
      write: (data) => this.#write(data),
      resume: () => {
        this.#pump(frontend);
        this.#port.resume();
      },
      detach: () => {
        const index = this.#frontends.indexOf(frontend);
        if (index < 0) return;
        this.#frontends.splice(index, 1);
        if (index < this.#focus || this.#focus >= this.#frontends.length) this.#focus = Math.max(0, this.#focus - 1);
      },
    };
  }

  #write(data: Uint8Array): number {
    if (!this.#timestamps) return this.#port.write(data);
    let taken = 0;
    while (taken < data.length) {
      if (this.#lineStart) this.#port.write(encoder.encode(this.#timestamp()));
      const end = data.indexOf(10, taken);
      const part = data.subarray(taken, end < 0 ? data.length : end + 1);
      const written = this.#port.write(part);
      taken += written;
      if (written < part.length) {
        this.#lineStart = false;
        return taken;
      }
      this.#lineStart = end >= 0;
    }
    return taken;
  }

  #timestamp(): string {
    const time = this.#hooks.uptime?.() ?? 0;
    const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
    const milliseconds = String(Math.floor(time % 1000)).padStart(3, '0');
    return `[${two(time / 3_600_000)}:${two((time / 60_000) % 60)}:${two((time / 1000) % 60)}.${milliseconds}] `;
  }

  #say(text: string): void {
    this.#port.write(encoder.encode(text.replace(/\n/g, '\r\n')));
  }

  #receive(data: Uint8Array): void {
    let plain: number[] = [];
    const pass = (): void => {
      const frontend = this.#frontends[this.#focus];
      if (plain.length > 0 && frontend !== undefined) {
        frontend.input.push(Uint8Array.from(plain));
        frontend.bytes += plain.length;
        this.#pump(frontend);
      }
      plain = [];
    };
    for (const byte of data) {
      if (!this.#escaped) {
        if (byte === this.#escape) this.#escaped = true;
        else plain.push(byte);
        continue;
      }
      this.#escaped = false;
      if (byte === this.#escape) plain.push(byte);
      else {
        pass();
        this.#command(String.fromCharCode(byte));
      }
    }
    pass();
  }

  #command(key: string): void {
    switch (key) {
      case 'x':
        this.#say('\nVivarium: ended by the keyboard\n');
        return this.#hooks.quit();
      case 'c':
        return this.#next();
      case 'b':
        return this.#frontends[this.#focus]?.client.receiveBreak?.();
      case 't':
        this.#timestamps = !this.#timestamps;
        this.#lineStart = true;
        return;
      case 'h':
      case '?':
        return this.#help();
    }
  }

  #help(): void {
    const name = this.#escape < 32 ? `C-${String.fromCharCode(this.#escape + 96)}` : String.fromCharCode(this.#escape);
    this.#say(
      `\n${name} h    this help\n${name} x    end the machine\n${name} c    input to the monitor, and back\n` +
        `${name} b    send a break\n${name} t    timestamps on and off\n${name} ${name}  send ${name}\n`,
    );
  }

  #next(): void {
    if (this.#frontends.length === 0) return;
    this.#frontends[this.#focus].client.focused?.(false);
    this.#focus = (this.#focus + 1) % this.#frontends.length;
    this.#frontends[this.#focus].client.focused?.(true);
    this.#pump(this.#frontends[this.#focus]);
  }

  #pump(frontend: Frontend): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (frontend.input.length > 0) {
      const room = frontend.client.room();
      if (room <= 0) break;
      const first = frontend.input[0];
      const part = first.subarray(0, room);
      if (part.length === first.length) frontend.input.shift();
      else frontend.input[0] = first.subarray(room);
      frontend.bytes -= part.length;
      frontend.client.receive(part);
    }
    this.#pumping = false;
  }
}
