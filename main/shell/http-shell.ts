/**
 * The services over HTTP and WebSocket, on loopback for browsers and on a Unix socket for commands.
 *
 * Browsers: the address that is printed holds a token that works once; whoever comes with it gets a cookie (HttpOnly,
 * SameSite=Strict), and the token is gone. Every request must name this server as its Host (a page elsewhere that
 * resolves to 127.0.0.1 does not), and every WebSocket must come from a page of ours (Origin). Nothing else is served.
 * On the Unix socket the file's permissions are the key, and it serves no pages.
 *
 *     GET  /?token=T            gives the cookie, leads to /
 *     GET  /...                 the built pages
 *     WS   /api                 requests, answers and events (contract/channels.ts)
 *     WS   /vm/ID/KIND/INDEX    a stream to the VM's process: the socket is handed over, the process answers
 *     POST /address             (Unix socket) a new address with a new token
 *
 * A stream's socket leaves this process with the request that came on it: `handSocket` sends its handle to the VM's
 * process, which completes the WebSocket handshake and owns the connection. No byte of a frame is copied here.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, rm, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { extname, join, normalize, sep } from 'node:path';
import type { Duplex } from 'node:stream';
import { type WebSocket, WebSocketServer } from 'ws';
import type { PortKind } from '../../engine/contract/index.ts';
import { AppError, type RequestMessage } from '../contract/index.ts';
import type { Services } from '../services.ts';

const cookieName = 'vivarium_session';
/** A request is small; what is longer is none of ours. */
const maxMessage = 1 << 20;
/** Events wait for a page that does not read, up to this many bytes; then it is cut off, and connects again. */
const maxWaiting = 32 << 20;

const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.woff2': 'font/woff2',
  '.wasm': 'application/wasm',
  '.map': 'application/json',
  '.ico': 'image/x-icon',
};

export interface HttpShellOptions {
  readonly services: Services;
  /** The folder of the built pages. */
  readonly renderer: string;
  /** In development: the cookie, kept over restarts so that pages that are open go on; a new one for each visitor unless given. */
  readonly cookie?: string;
  /** In development: handles what pages ask for, instead of the built ones. */
  readonly middleware?: (request: IncomingMessage, response: ServerResponse, next: () => void) => void;
}

const equal = (a: string, b: string): boolean => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
const secret = (): string => randomBytes(24).toString('base64url');

export class HttpShell {
  readonly #options: HttpShellOptions;
  readonly #servers: Server[] = [];
  readonly #sockets = new WebSocketServer({ noServer: true, maxPayload: maxMessage });
  readonly #tokens = new Set<string>();
  readonly #cookies = new Set<string>();
  #port = 0;

  constructor(options: HttpShellOptions) {
    this.#options = options;
    if (options.cookie !== undefined) this.#cookies.add(options.cookie);
  }

  /** Listens on 127.0.0.1; port 0 takes any. Rejects with `port-in-use`. */
  async listen(port: number): Promise<Server> {
    const server = this.#server(false);
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) =>
        reject(
          error.code === 'EADDRINUSE'
            ? new AppError('port-in-use', `Port ${port} is in use by another program. Choose another with --port.`, {
                cause: error,
              })
            : new AppError('host', `Port ${port} cannot be used: ${error.message}`, { cause: error }),
        ),
      );
      server.listen(port, '127.0.0.1', resolve);
    });
    this.#port = (server.address() as AddressInfo).port;
    return server;
  }

  /** Listens on a Unix socket that only this user may use. */
  async listenControl(path: string): Promise<void> {
    const server = this.#server(true);
    // The library's lock is held, so a socket of this name is that of an app that is gone.
    await rm(path, { force: true });
    const mask = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, resolve);
      });
    } finally {
      process.umask(mask);
    }
    if (process.platform !== 'win32') await chmod(path, 0o600);
  }

  /** An address with a token that works once. */
  address(): string {
    const token = secret();
    this.#tokens.add(token);
    return `http://127.0.0.1:${this.#port}/?token=${token}`;
  }

  close(): void {
    for (const client of this.#sockets.clients) client.terminate();
    for (const server of this.#servers) {
      server.close();
      server.closeAllConnections();
    }
  }

  #server(control: boolean): Server {
    const server = createServer((request, response) => {
      this.#serve(request, response, control).catch(() => response.destroy());
    });
    server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => socket.destroy());
      if (this.#options.middleware !== undefined && request.headers['sec-websocket-protocol']?.startsWith('vite')) return;
      this.#upgrade(request, socket, head, control);
    });
    this.#servers.push(server);
    return server;
  }

  async #serve(request: IncomingMessage, response: ServerResponse, control: boolean): Promise<void> {
    const refuse = (status: number, text: string): void => {
      response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store' }).end(`${text}\n`);
    };
    if (control) {
      if (request.method === 'POST' && request.url === '/address' && this.#port !== 0) return void response.end(this.address());
      return refuse(404, 'Not here');
    }
    if (!this.#hostIsOurs(request.headers.host)) return refuse(403, 'This server answers to 127.0.0.1 and localhost only.');
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(405, 'Only pages are served here.');
    const url = new URL(request.url ?? '/', 'http://localhost');
    const token = url.searchParams.get('token');
    if (token !== null) return this.#redeem(token, response, refuse);
    if (!this.#hasCookie(request))
      return refuse(403, 'Open the address that Vivarium printed; "vivarium serve" prints a new one.');
    for (const [name, value] of Object.entries(this.#headers(request.headers.host ?? ''))) response.setHeader(name, value);
    if (this.#options.middleware !== undefined)
      return this.#options.middleware(request, response, () => refuse(404, 'Not found'));
    await this.#sendFile(url.pathname, request, response, refuse);
  }

  #redeem(token: string, response: ServerResponse, refuse: (status: number, text: string) => void): void {
    const found = [...this.#tokens].find((known) => equal(known, token));
    if (found === undefined) return refuse(403, 'This address was used before. "vivarium serve" prints a new one.');
    this.#tokens.delete(found);
    const cookie = this.#options.cookie ?? secret();
    this.#cookies.add(cookie);
    response
      .writeHead(303, {
        Location: '/',
        'Set-Cookie': `${cookieName}=${cookie}; HttpOnly; SameSite=Strict; Path=/`,
        'Cache-Control': 'no-store',
      })
      .end();
  }

  #headers(host: string): Record<string, string> {
    return {
      'Content-Security-Policy': [
        "default-src 'none'",
        "script-src 'self'",
        // xterm.js and noVNC set styles on elements.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        `connect-src 'self' ws://${host}`,
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
      ].join('; '),
      'X-Content-Type-Options': 'nosniff',
      'Referrer-Policy': 'no-referrer',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Cross-Origin-Resource-Policy': 'same-origin',
    };
  }

  async #sendFile(
    pathname: string,
    request: IncomingMessage,
    response: ServerResponse,
    refuse: (status: number, text: string) => void,
  ): Promise<void> {
    const root = this.#options.renderer;
    let relative: string;
    try {
      relative = normalize(decodeURIComponent(pathname));
    } catch {
      return refuse(400, 'Not an address');
    }
    let file = join(root, relative);
    if (relative.includes('\0') || !(file === root || file.startsWith(root + sep) || file === root + sep))
      return refuse(404, 'Not found');
    let info = await stat(file).catch(() => undefined);
    // Addresses without a file are the page's own.
    if (info?.isFile() !== true && extname(relative) === '') {
      file = join(root, 'index.html');
      info = await stat(file).catch(() => undefined);
      if (info === undefined) return refuse(503, 'The pages are not built. Run "npm start", or "npm run build".');
    }
    if (info?.isFile() !== true) return refuse(404, 'Not found');
    response.writeHead(200, {
      'Content-Type': contentTypes[extname(file)] ?? 'application/octet-stream',
      'Content-Length': info.size,
      // Built files carry a hash of their content in their name.
      'Cache-Control': relative.startsWith(`${sep}assets${sep}`) ? 'private, max-age=31536000, immutable' : 'no-cache',
    });
    if (request.method === 'HEAD') return void response.end();
    createReadStream(file)
      .on('error', () => response.destroy())
      .pipe(response);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, control: boolean): void {
    const refuse = (status: string, text: string): void => {
      socket.end(
        `HTTP/1.1 ${status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
      );
    };
    if (!control) {
      const { origin, host } = request.headers;
      if (!this.#hostIsOurs(host) || origin !== `http://${host}`)
        return refuse('403 Forbidden', 'Not from a page of this server.');
      if (!this.#hasCookie(request)) return refuse('403 Forbidden', 'Open the address that Vivarium printed.');
    }
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    if (pathname === '/api') {
      this.#sockets.handleUpgrade(request, socket, head, (client) => this.#session(client));
      return;
    }
    const match = /^\/vm\/([0-9a-f-]{36})\/(rfb|serial|qmp)\/(\d)$/.exec(pathname);
    if (match === null) return refuse('404 Not Found', 'Not here');
    const [, id, kind, index] = match as unknown as [string, string, PortKind, string];
    const headers: Record<string, string> = {};
    // The process needs what the WebSocket handshake needs; a cookie is not among it.
    for (const [name, value] of Object.entries(request.headers))
      if (typeof value === 'string' && name !== 'cookie') headers[name] = value;
    const upgrade = {
      method: request.method ?? 'GET',
      url: pathname,
      httpVersion: request.httpVersion,
      headers,
      head: head.toString('base64'),
    };
    const viewOnly = searchParams.has('view-only');
    try {
      this.#options.services.vms.handSocket(
        id,
        { type: 'port', kind, index: Number(index), viewOnly, upgrade },
        socket as Socket,
      );
    } catch (error) {
      refuse('409 Conflict', (error as Error).message);
    }
  }

  /** One page or command that speaks over `/api`. */
  #session(client: WebSocket): void {
    const { services } = this.#options;
    const session = {};
    const send = (message: unknown): void => {
      if (client.bufferedAmount > maxWaiting) client.terminate();
      else if (client.readyState === client.OPEN) client.send(JSON.stringify(message));
    };
    const stop = services.bus.listen((event, payload) => send({ event, payload }));
    client.on('message', (data) => {
      let message: RequestMessage;
      try {
        message = JSON.parse(String(data));
        if (typeof message.id !== 'number' || typeof message.request !== 'string') throw new TypeError('not a request');
      } catch {
        client.close(1007, 'Not a request');
        return;
      }
      void services.dispatch(message, session).then(send);
    });
    client.on('error', () => client.terminate());
    client.on('close', () => {
      stop();
      services.forget(session);
    });
  }

  #hostIsOurs(host: string | undefined): boolean {
    return host === `127.0.0.1:${this.#port}` || host === `localhost:${this.#port}`;
  }

  #hasCookie(request: IncomingMessage): boolean {
    const values = (request.headers.cookie ?? '')
      .split(/;\s*/)
      .flatMap((pair) => (pair.startsWith(`${cookieName}=`) ? [pair.slice(cookieName.length + 1)] : []));
    return values.some((value) => [...this.#cookies].some((known) => equal(known, value)));
  }
}
