/**
 * The RFB server: any number of clients over byte channels, one surface, one sink for input. It sends only from
 * `publish`, which the display thread's pump calls; everything else just notes what is to be said.
 */
import { FailureLog } from './auth.ts';
import type { ByteChannel, CursorShape, InputSink } from './channel.ts';
import { RfbClient } from './client.ts';
import type { Compression } from './compression.ts';
import type { Frame, Framebuffer } from './framebuffer.ts';
import type { HandshakePolicy } from './handshake.ts';
import { CLIPBOARD_TEXT_LIMIT } from './wire/clipboard.ts';

/**
 * What becomes of a client that asks to be alone (RFC 6143 7.3.1). `allow-exclusive`: the others are closed;
 * `force-shared`: it is refused; `ignore`: it is let in like any other.
 */
export type SharePolicy = 'allow-exclusive' | 'force-shared' | 'ignore';

export interface RfbServerOptions {
  readonly framebuffer: Framebuffer;
  readonly compression: Compression;
  readonly input: InputSink;
  /** The desktop's name: the VM's. */
  readonly name: string;
  /** At most 8 bytes count. Undefined: none is asked for. */
  readonly password?: string;
  readonly viewOnlyPassword?: string;
  /** Nobody may come in before `setPassword` was given one. */
  readonly requirePassword?: boolean;
  readonly share?: SharePolicy;
  /** Clients at the same time, 32 unless given; those of the app count but are always let in. */
  readonly maxClients?: number;
  /** A client wants the screen to have this size. True: the guest was told, and may follow. */
  readonly requestResize?: (width: number, height: number) => boolean;
  /** Told of comings and goings, in words. */
  readonly log?: (text: string) => void;
  /** Told when the list that `clients` gives has changed. */
  readonly clientsChanged?: () => void;
  /** Fills an array with random bytes; the platform's own generator unless given. */
  readonly random?: (target: Uint8Array) => void;
  /** Milliseconds, from any start. */
  readonly now?: () => number;
  /** Calls back after some milliseconds, until what it returns is called. */
  readonly schedule?: (milliseconds: number, callback: () => void) => () => void;
}

export interface AcceptOptions {
  /** The app's own window: no password, and exclusive clients do not push it out. */
  readonly trusted?: boolean;
  /** Nothing it does reaches the guest. */
  readonly viewOnly?: boolean;
}

export interface ClientInfo {
  readonly peer: string;
  readonly shared: boolean;
  readonly viewOnly: boolean;
  readonly trusted: boolean;
}

/** What a client sees of its server. */
export interface ClientHost extends Pick<InputSink, 'key' | 'pointer'> {
  readonly framebuffer: Framebuffer;
  readonly compression: Compression;
  readonly name: string;
  readonly cursor: CursorShape | undefined;
  readonly leds: number | undefined;
  readonly clipboard: string | undefined;
  /** An update is wanted. */
  demand(): void;
  clipboardFromClient(text: string, client: RfbClient): void;
  resizeFromClient(width: number, height: number): boolean;
  /** The client is through the handshake; a string refuses it. */
  joined(client: RfbClient): string | undefined;
  left(client: RfbClient, reason: string): void;
}

const MAX_CLIENTS = 32;
/** Connections may be no more than so many above the clients allowed, while they shake hands. */
const MAX_HANDSHAKES = 32;
const HANDSHAKE_MILLISECONDS = 60_000;
/** Larger pointer shapes than any guest has are dropped. */
const MAX_CURSOR_SIDE = 512;

export class RfbServer {
  readonly #options: RfbServerOptions;
  readonly #clients = new Map<RfbClient, AcceptOptions>();
  readonly #failures: FailureLog;
  readonly #schedule: NonNullable<RfbServerOptions['schedule']>;
  readonly #random: (target: Uint8Array) => void;
  readonly #host: ClientHost;
  #password: string | undefined;
  #viewOnlyPassword: string | undefined;
  #name: string;
  #cursor: CursorShape | undefined;
  #leds: number | undefined;
  #clipboard: string | undefined;
  #onDemand: () => void = () => {};
  #onInput: () => void = () => {};

  constructor(options: RfbServerOptions) {
    this.#options = options;
    this.#name = options.name;
    this.#password = options.password;
    this.#viewOnlyPassword = options.viewOnlyPassword;
    this.#failures = new FailureLog(options.now ?? (() => performance.now()));
    this.#schedule = options.schedule ?? scheduleTimeout;
    this.#random = options.random ?? ((target) => void crypto.getRandomValues(target as Uint8Array<ArrayBuffer>));
    this.#host = this.#makeHost();
  }

  /** Sets who is told that a client waits for an update, and that somebody typed or moved. */
  connectPump(onDemand: () => void, onInput: () => void): void {
    this.#onDemand = onDemand;
    this.#onInput = onInput;
  }

  /** Serves a client over `channel` from now on. */
  accept(channel: ByteChannel, options: AcceptOptions = {}): void {
    const limit = (this.#options.maxClients ?? MAX_CLIENTS) + MAX_HANDSHAKES;
    if (!options.trusted && this.#clients.size >= limit) {
      this.#options.log?.(`vnc: ${channel.peer} refused: too many connections`);
      channel.close();
      return;
    }
    const client = new RfbClient(channel, this.#host, this.#policy(options), options.viewOnly ?? false);
    this.#clients.set(client, options);
    const cancel = this.#schedule(HANDSHAKE_MILLISECONDS, () => {
      if (!client.running) client.close('no handshake within a minute');
    });
    channel.listen({
      data: (bytes) => client.data(bytes),
      closed: () => {
        cancel();
        client.close('the connection ended');
      },
      drained: () => {
        if (client.waiting) this.#onDemand();
      },
    });
    client.start();
  }

  /** The clients that are through the handshake. */
  clients(): ClientInfo[] {
    return [...this.#clients]
      .filter(([client]) => client.running)
      .map(([client, { trusted = false }]) => ({
        peer: client.channel.peer,
        shared: client.shared,
        viewOnly: client.viewOnly,
        trusted,
      }));
  }

  /** Whether a client waits for an update that it could be sent. */
  get waiting(): boolean {
    for (const client of this.#clients.keys()) if (client.waiting) return true;
    return false;
  }

  /** Hands out what `collect` of the surface gave, and sends updates; returns whether anything was sent. */
  publish(frame: Frame | undefined): boolean {
    let sent = false;
    for (const client of [...this.#clients.keys()]) {
      if (frame !== undefined) client.frame(frame);
      if (client.update()) sent = true;
    }
    return sent;
  }

  /** Applies to those who come from now on. Undefined: no password. */
  setPassword(password: string | undefined, viewOnlyPassword?: string): void {
    this.#password = password;
    this.#viewOnlyPassword = viewOnlyPassword;
  }

  setName(name: string): void {
    this.#name = name;
    for (const client of this.#clients.keys()) client.nameChanged();
    this.#onDemand();
  }

  /** The guest's pointer shape; undefined: it shows none. A malformed one counts as none. */
  setCursor(cursor: CursorShape | undefined): void {
    const valid =
      cursor !== undefined &&
      cursor.width <= MAX_CURSOR_SIDE &&
      cursor.height <= MAX_CURSOR_SIDE &&
      cursor.rgba.length === cursor.width * cursor.height * 4;
    this.#cursor = valid ? cursor : undefined;
    for (const client of this.#clients.keys()) client.cursorChanged();
    this.#onDemand();
  }

  /** The lights of the guest's keyboard: bits of `LED`. */
  setLeds(leds: number): void {
    if (leds === this.#leds) return;
    this.#leds = leds;
    for (const client of this.#clients.keys()) client.ledsChanged();
    this.#onDemand();
  }

  /** The guest has this text on its clipboard; longer ones than a mebibyte are not passed on. */
  setClipboard(text: string): void {
    if (text.length > CLIPBOARD_TEXT_LIMIT) return;
    this.#clipboard = text;
    for (const client of this.#clients.keys()) client.clipboardChanged(text);
  }

  bell(): void {
    for (const client of this.#clients.keys()) client.bell();
  }

  /** Ends all connections. */
  close(reason = 'the machine is gone'): void {
    for (const client of [...this.#clients.keys()]) client.close(reason);
  }

  #running(): number {
    let count = 0;
    for (const client of this.#clients.keys()) if (client.running) count++;
    return count;
  }

  #refusal(): string | undefined {
    if (this.#options.requirePassword && this.#password === undefined) return 'no password has been set yet';
    return this.#running() >= (this.#options.maxClients ?? MAX_CLIENTS) ? 'too many clients' : undefined;
  }

  #policy({ trusted }: AcceptOptions): HandshakePolicy {
    return {
      password: trusted ? undefined : this.#password,
      viewOnlyPassword: trusted ? undefined : this.#viewOnlyPassword,
      random: this.#random,
      failures: this.#failures,
      refusal: () => (trusted ? undefined : this.#refusal()),
    };
  }

  #joined(client: RfbClient): string | undefined {
    const share = this.#options.share ?? 'allow-exclusive';
    if (!client.shared && share === 'force-shared') return 'it asks to be alone, which is not allowed';
    if (!client.shared && share === 'allow-exclusive') {
      for (const [other, { trusted }] of [...this.#clients]) {
        if (other !== client && other.running && !trusted) other.close('another client asked to be alone');
      }
    }
    this.#options.log?.(`vnc: ${client.channel.peer} connected`);
    this.#options.clientsChanged?.();
    return undefined;
  }

  #makeHost(): ClientHost {
    const server = this;
    const { input, framebuffer, compression } = this.#options;
    return {
      framebuffer,
      compression,
      get name() {
        return server.#name;
      },
      get cursor() {
        return server.#cursor;
      },
      get leds() {
        return server.#leds;
      },
      get clipboard() {
        return server.#clipboard;
      },
      demand: () => this.#onDemand(),
      key: (code, down) => {
        this.#onInput();
        input.key(code, down);
      },
      pointer: (x, y, buttons, width, height) => {
        this.#onInput();
        input.pointer(x, y, buttons, width, height);
      },
      clipboardFromClient: (text, from) => {
        this.#clipboard = text;
        input.clipboard(text);
        for (const client of this.#clients.keys()) if (client !== from) client.clipboardChanged(text);
      },
      resizeFromClient: (width, height) => this.#options.requestResize?.(width, height) ?? false,
      joined: (client) => this.#joined(client),
      left: (client, reason) => {
        if (!this.#clients.delete(client)) return;
        this.#options.log?.(`vnc: ${client.channel.peer} closed: ${reason}`);
        this.#options.clientsChanged?.();
      },
    };
  }
}

function scheduleTimeout(milliseconds: number, callback: () => void): () => void {
  const timer = setTimeout(callback, milliseconds);
  timer.unref?.();
  return () => clearTimeout(timer);
}
