/** A command's connection to the app that has a library open, over the app's control socket. */
import { spawn } from 'node:child_process';
import { request as httpRequest } from 'node:http';
import { WebSocket } from 'ws';
import {
  type AnswerMessage,
  AppError,
  type EventMessage,
  type PortKind,
  type RequestArgs,
  type RequestName,
  type RequestResult,
} from '../contract/index.ts';
import { lockHolder } from '../vm/library-lock.ts';

/** An app that was started in the background answers within this time, in ms. */
const startTimeout = 15_000;

export class Connection {
  readonly #socketPath: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  readonly #listeners = new Set<(message: EventMessage) => void>();
  #nextId = 1;

  private constructor(socketPath: string, socket: WebSocket) {
    this.#socketPath = socketPath;
    this.#socket = socket;
    socket.on('message', (data) => {
      const message = JSON.parse(String(data)) as AnswerMessage | EventMessage;
      if ('event' in message) {
        for (const listener of [...this.#listeners]) listener(message);
        return;
      }
      const entry = this.#waiting.get(message.id);
      this.#waiting.delete(message.id);
      if ('error' in message) entry?.reject(AppError.from(message.error));
      else entry?.resolve(message.result as never);
    });
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new AppError('host', 'Vivarium has ended'));
      this.#waiting.clear();
    });
    socket.on('error', () => {});
  }

  /** Connects to the app that has this library open; undefined: there is none. */
  static async open(library: string): Promise<Connection | undefined> {
    const holder = await lockHolder(library);
    if (holder === undefined) return undefined;
    if (holder.socket === null)
      throw new AppError('unsupported', `Process ${holder.pid} has the library open and takes no commands`);
    const path = holder.socket;
    // An app that has just taken the lock listens a moment later.
    for (let attempt = 0; ; attempt++) {
      const socket = new WebSocket(`ws+unix://${path}:/api`);
      const error = await new Promise<Error | undefined>((resolve) => {
        socket.once('open', () => resolve(undefined));
        socket.once('error', resolve);
      });
      if (error === undefined) return new Connection(path, socket);
      if (attempt >= 20)
        throw new AppError('host', `Process ${holder.pid} has the library open but does not answer: ${error.message}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Connects, starting an app in the background where there is none. */
  static async openOrStart(library: string, serveEntry: string, options: readonly string[] = []): Promise<Connection> {
    const running = await Connection.open(library);
    if (running !== undefined) return running;
    const child = spawn(process.execPath, [serveEntry, '--background', '--library', library, ...options], {
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new AppError('timeout', 'Vivarium did not start in the background')), startTimeout);
      const done = (action: () => void): void => {
        clearTimeout(timer);
        action();
      };
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        if (text.includes('ready')) done(resolve);
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
      child.once('close', () =>
        done(() => reject(new AppError('host', output.trim().replace(/^vivarium: /, '') || 'Vivarium ended at once'))),
      );
    });
    child.stdout.destroy();
    child.stderr.destroy();
    child.unref();
    const connection = await Connection.open(library);
    if (connection === undefined) throw new AppError('host', 'Vivarium ended at once');
    return connection;
  }

  request<N extends RequestName>(name: N, args: RequestArgs<N>): Promise<RequestResult<N>> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as never, reject });
      this.#socket.send(JSON.stringify({ id, request: name, args }));
    });
  }

  onEvent(listener: (message: EventMessage) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A stream to a VM's process. It is paused: whoever listens to it lets it go on, and misses nothing. */
  async stream(id: string, kind: PortKind, index: number): Promise<WebSocket> {
    const socket = new WebSocket(`ws+unix://${this.#socketPath}:/vm/${id}/${kind}/${index}`);
    await new Promise<void>((resolve, reject) => {
      socket.once('open', () => {
        socket.pause();
        resolve();
      });
      socket.once('error', () => reject(new AppError('engine', 'The VM gives no connection')));
    });
    return socket;
  }

  /** A new address of the app's pages; undefined where it serves none. */
  address(): Promise<string | undefined> {
    return new Promise((resolve, reject) => {
      const sent = httpRequest({ socketPath: this.#socketPath, path: '/address', method: 'POST' }, (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text) => {
          body += text;
        });
        response.on('end', () => resolve(response.statusCode === 200 ? body : undefined));
      });
      sent.on('error', reject).end();
    });
  }

  close(): void {
    this.#socket.close();
  }
}
