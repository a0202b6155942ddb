/**
 * The QMP server: JSON commands in, returns and events out (QEMU documentation, "QEMU Machine Protocol
 * Specification"). A `QmpServer` holds the commands and the events of one machine; a `QmpSession` is one client
 * over any channel of bytes.
 *
 * A session begins in negotiation: only `qmp_capabilities` is taken. After it, commands run one at a time and in
 * order, and events are sent as they come. Out-of-band execution is not offered. A client that does not read
 * what it is sent is cut off when too much waits; one that sends faster than commands run is held (`room`).
 *
 * Other parts of the engine add their commands with `register` and send their events with `emit`.
 */
import { JsonStream, stringify } from './json-stream.ts';
import { type MachineControl, type MachineEvent, MonitorError } from './machine-control.ts';
import { checkMembers, type QapiArguments, type QapiMembers, type QapiType, SchemaWriter } from './qmp-schema.ts';

/** What runs a command. A MonitorError becomes the client's error as it is; any other error, a GenericError with its message. */
export type QmpHandler<M extends QapiMembers> = (args: QapiArguments<M>, session: QmpSession) => unknown;

interface Command {
  readonly name: string;
  readonly members: QapiMembers;
  readonly returns: QapiType;
  readonly handler: (args: Record<string, unknown>, session: QmpSession) => unknown;
  /** Arguments are the handler's own affair. */
  readonly open?: boolean;
}

/** The version in the greeting, as QAPI's `VersionInfo` has it. */
export interface QmpVersion {
  readonly qemu: { readonly major: number; readonly minor: number; readonly micro: number };
  readonly package: string;
}

/** The other side of a session. */
export interface QmpChannel {
  /** Sends text; the channel queues it. Returns how many bytes wait to be sent. */
  send(text: string): number;
  /** The session takes input again. */
  resume(): void;
  close(): void;
}

/** At most this much may wait for a client that does not read. */
const maxWaiting = 16 << 20;
/** Commands that may wait in a session before its input is held. */
const maxBacklog = 16;

const shutdownMembers = { guest: 'bool', reason: 'str' } as const;

export class QmpServer {
  readonly version: QmpVersion;
  readonly #commands = new Map<string, Command>();
  readonly #events = new Map<string, QapiMembers>();
  readonly #sessions = new Set<QmpSession>();
  readonly #now: () => number;

  /** `now`: milliseconds since the Unix epoch, for the timestamps of events. */
  constructor(version: QmpVersion, now: () => number = Date.now) {
    this.version = version;
    this.#now = now;
    for (const name of ['STOP', 'RESUME', 'POWERDOWN']) this.registerEvent(name, {});
    for (const name of ['SHUTDOWN', 'RESET']) this.registerEvent(name, shutdownMembers);
    this.registerEvent('GUEST_PANICKED', { action: 'str' });
  }

  /** Adds a command; throws when the name is taken. Handlers may return promises. */
  register<const M extends QapiMembers>(
    name: string,
    members: M,
    handler: QmpHandler<M>,
    returns: QapiType = { struct: {} },
  ): void {
    if (this.#commands.has(name)) throw new Error(`QMP command ${name} is registered twice`);
    this.#commands.set(name, { name, members, returns, handler: handler as Command['handler'] });
  }

  /** Adds a command whose arguments depend on each other in ways that a schema does not say: its handler checks them. */
  registerOpen(name: string, handler: (args: Record<string, unknown>, session: QmpSession) => unknown): void {
    this.register(name, {}, () => {});
    this.#commands.set(name, { name, members: {}, returns: { struct: {} }, handler, open: true });
  }

  /** Makes an event known to `query-qmp-schema`. */
  registerEvent(name: string, members: QapiMembers): void {
    this.#events.set(name, members);
  }

  get commandNames(): string[] {
    return [...this.#commands.keys()];
  }

  /** Sends an event to every session that has negotiated. */
  emit(event: string, data?: Readonly<Record<string, unknown>>): void {
    const milliseconds = this.#now();
    const seconds = Math.floor(milliseconds / 1000);
    const timestamp = { seconds, microseconds: Math.round((milliseconds - seconds * 1000) * 1000) };
    const message = data === undefined ? { timestamp, event } : { timestamp, event, data };
    for (const session of [...this.#sessions]) session.deliver(message);
  }

  /** Sends the machine's events to the sessions, until the returned function is called. */
  follow(machine: MachineControl): () => void {
    return machine.subscribe((event) => this.#translate(event));
  }

  #translate(event: MachineEvent): void {
    switch (event.name) {
      case 'SHUTDOWN':
      case 'RESET':
        return this.emit(event.name, { guest: event.guest, reason: event.reason });
      case 'GUEST_PANICKED':
        return this.emit(event.name, { action: event.action });
      case 'OTHER':
        return this.emit(event.event, event.data);
      default:
        return this.emit(event.name);
    }
  }

  /** Starts a session: sends the greeting. `pretty`: answers are indented. */
  open(channel: QmpChannel, pretty = false): QmpSession {
    const session = new QmpSession(this, channel, pretty, () => this.#sessions.delete(session));
    this.#sessions.add(session);
    session.reply({ QMP: { version: this.version, capabilities: [] } });
    return session;
  }

  /** The answer of `query-qmp-schema`: every command and event that is registered. */
  schema(): unknown[] {
    const writer = new SchemaWriter();
    for (const { name, members, returns } of this.#commands.values()) writer.command(name, members, returns);
    for (const [name, members] of this.#events) writer.event(name, members);
    return writer.entries;
  }

  /** Runs one command with arguments that were not checked yet. */
  async execute(name: string, args: Record<string, unknown>, session: QmpSession): Promise<unknown> {
    const command = this.#commands.get(name);
    if (command === undefined) throw new MonitorError(`The command ${name.slice(0, 80)} has not been found`, 'CommandNotFound');
    const checked = command.open === true ? args : checkMembers(command.members, args);
    return (await command.handler(checked, session)) ?? {};
  }
}

export class QmpSession {
  readonly #server: QmpServer;
  readonly #channel: QmpChannel;
  readonly #pretty: boolean;
  readonly #forget: () => void;
  readonly #stream = new JsonStream();
  readonly #queue: unknown[] = [];
  #running = false;
  #negotiated = false;
  #ended = false;

  constructor(server: QmpServer, channel: QmpChannel, pretty: boolean, forget: () => void) {
    this.#server = server;
    this.#pretty = pretty;
    this.#channel = channel;
    this.#forget = forget;
  }

  get negotiated(): boolean {
    return this.#negotiated;
  }

  /** How many bytes of input the session takes now; 0 while commands wait. */
  room(): number {
    return this.#queue.length >= maxBacklog || this.#ended ? 0 : 4096;
  }

  /** Input from the client, split anywhere. */
  feed(chunk: Uint8Array | string): void {
    if (this.#ended) return;
    for (const result of this.#stream.feed(chunk)) this.#queue.push(result);
    void this.#run();
  }

  /** The client has gone: commands that wait are dropped. */
  end(): void {
    this.#ended = true;
    this.#queue.length = 0;
    this.#forget();
  }

  /** Sends an answer or the greeting. */
  reply(message: object): void {
    this.#send(stringify(message, this.#pretty));
  }

  /** Sends an event, once the client has negotiated. */
  deliver(message: object): void {
    if (this.#negotiated) this.reply(message);
  }

  /** Ends negotiation; throws when it has ended before. */
  negotiate(): void {
    if (this.#negotiated)
      throw new MonitorError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound');
    this.#negotiated = true;
  }

  #send(text: string): void {
    if (this.#ended) return;
    if (this.#channel.send(`${text}\r\n`) > maxWaiting) {
      this.end();
      this.#channel.close();
    }
  }

  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    while (this.#queue.length > 0 && !this.#ended) {
      const held = this.room() === 0;
      const answer = await this.#answer(this.#queue.shift() as { value: unknown } | { error: string });
      this.reply(answer);
      if (held && this.room() > 0) this.#channel.resume();
    }
    this.#running = false;
  }

  async #answer(input: { value: unknown } | { error: string }): Promise<object> {
    let id: unknown;
    const withId = (message: object): object => (id === undefined ? message : { ...message, id });
    try {
      if ('error' in input) throw new MonitorError(input.error);
      const request = input.value;
      if (typeof request !== 'object' || request === null || Array.isArray(request))
        throw new MonitorError('QMP input must be a JSON object');
      id = (request as { id?: unknown }).id;
      const { name, args } = this.#request(request as Record<string, unknown>);
      if (!this.#negotiated && name !== 'qmp_capabilities')
        throw new MonitorError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound');
      return withId({ return: await this.#server.execute(name, args, this) });
    } catch (cause) {
      const error = cause as Error;
      return withId({ error: { class: error instanceof MonitorError ? error.errorClass : 'GenericError', desc: error.message } });
    }
  }

  #request(request: Record<string, unknown>): { name: string; args: Record<string, unknown> } {
    for (const key of Object.keys(request))
      if (key !== 'execute' && key !== 'arguments' && key !== 'id')
        throw new MonitorError(
          key === 'exec-oob' ? 'Out-of-band execution is not enabled' : `QMP input member '${key.slice(0, 80)}' is unexpected`,
        );
    if (request.execute === undefined) throw new MonitorError("QMP input lacks member 'execute'");
    if (typeof request.execute !== 'string') throw new MonitorError("QMP input member 'execute' must be a string");
    const args = request.arguments ?? {};
    if (typeof args !== 'object' || Array.isArray(args)) throw new MonitorError("QMP input member 'arguments' must be an object");
    return { name: request.execute, args: args as Record<string, unknown> };
  }
}
