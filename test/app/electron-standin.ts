/**
 * A stand-in for Electron's API, for tests of the Electron shell's own code without its binary. Utility processes are
 * forked Node processes (electron-standin-child.ts gives them `process.parentPort`), ports are relayed to them message
 * by message. What it does not show: context isolation, the sandbox, structured clone between real processes, menus on
 * a screen, fuses, the archive, permissions.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { fileURLToPath } from 'node:url';
import { MessageChannel, type MessagePort } from 'node:worker_threads';

type Handler = (event: unknown, message: unknown) => unknown;

/** What a test looks at and sets. */
export const standin = {
  windows: [] as BrowserWindow[],
  /** The program that utility processes run instead of theirs. */
  entry: '',
  errors: [] as string[],
  questions: [] as { message: string; buttons: string[] }[],
  answer: 0,
  picked: [] as string[],
  exposed: new Map<string, unknown>(),
  menu: undefined as { label?: string; submenu?: unknown }[] | undefined,
  ended: Promise.withResolvers<number>(),
  locked: true,
};

export const ipcMain = {
  handlers: new Map<string, Handler>(),
  handle(channel: string, handler: Handler): void {
    this.handlers.set(channel, handler);
  },
};

class App extends EventEmitter {
  readonly isPackaged = false;
  requestSingleInstanceLock = (): boolean => standin.locked;
  whenReady = (): Promise<void> => Promise.resolve();
  exit = (code: number): void => standin.ended.resolve(code);
  quit(): void {
    let prevented = false;
    this.emit('before-quit', { preventDefault: () => (prevented = true) });
    if (!prevented) standin.ended.resolve(0);
  }
}
export const app = new App();

/** Electron's MessagePortMain over Node's MessagePort: events carry `data`. */
export class MessagePortMain extends EventEmitter {
  readonly port: MessagePort;
  constructor(port: MessagePort) {
    super();
    this.port = port;
    port.on('message', (data) => this.emit('message', { data, ports: [] }));
    port.on('close', () => this.emit('close'));
  }
  postMessage = (message: unknown): void => this.port.postMessage(message);
  start = (): void => this.port.start();
  close = (): void => this.port.close();
}

export class MessageChannelMain {
  readonly port1: MessagePortMain;
  readonly port2: MessagePortMain;
  constructor() {
    const { port1, port2 } = new MessageChannel();
    this.port1 = new MessagePortMain(port1);
    this.port2 = new MessagePortMain(port2);
  }
}

class UtilityProcess extends EventEmitter {
  readonly #child: ChildProcess;
  readonly #ports = new Map<number, MessagePortMain>();
  #nextPort = 1;
  readonly stdout;
  readonly stderr;
  constructor(entry: string, args: string[]) {
    super();
    const prepare = fileURLToPath(new URL('./electron-standin-child.ts', import.meta.url));
    this.#child = fork(entry, args, {
      execArgv: ['--import', prepare],
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.stdout = this.#child.stdout;
    this.stderr = this.#child.stderr;
    this.#child.on('message', (message: { data?: unknown; port?: number; closed?: boolean }) => {
      if (message.port === undefined) this.emit('message', message.data);
      else if (message.closed) this.#ports.get(message.port)?.close();
      else this.#ports.get(message.port)?.postMessage(message.data);
    });
    this.#child.on('close', (code) => {
      for (const port of this.#ports.values()) port.close();
      this.emit('exit', code ?? 1);
    });
  }
  get pid(): number | undefined {
    return this.#child.pid;
  }
  postMessage(data: unknown, ports: MessagePortMain[] = []): void {
    const ids = ports.map((port) => {
      const id = this.#nextPort++;
      this.#ports.set(id, port);
      port.on('message', (event) => this.#child.send({ port: id, data: event.data }));
      return id;
    });
    if (this.#child.connected) this.#child.send({ data, ports: ids });
  }
  kill = (): boolean => this.#child.kill();
}

export const utilityProcess = {
  fork: (_entry: string, args: string[]): UtilityProcess => new UtilityProcess(standin.entry, args),
};

class WebContents extends EventEmitter {
  readonly window: BrowserWindow;
  openHandler: ((details: { url: string }) => { action: string }) | undefined;
  constructor(window: BrowserWindow) {
    super();
    this.window = window;
  }
  isDestroyed = (): boolean => this.window.isClosed;
  setIgnoreMenuShortcuts(): void {}
  setWindowOpenHandler(handler: (details: { url: string }) => { action: string }): void {
    this.openHandler = handler;
  }
  reloadIgnoringCache(): void {}
  send(channel: string, ...args: unknown[]): void {
    // The one page of the tests is that of the first window.
    if (this.window === standin.windows[0]) ipcRenderer.emit(channel, { ports: [] }, ...args);
  }
  postMessage(channel: string, message: unknown, ports: MessagePortMain[] = []): void {
    ipcRenderer.emit(channel, { ports: ports.map(({ port }) => port) }, message);
  }
}

export class BrowserWindow extends EventEmitter {
  readonly options: { webPreferences: Record<string, unknown>; title: string };
  readonly webContents: WebContents;
  isClosed = false;
  url = '';
  fullScreen = false;
  static fromWebContents = (page: WebContents): BrowserWindow => page.window;
  constructor(options: BrowserWindow['options']) {
    super();
    this.options = options;
    this.webContents = new WebContents(this);
    standin.windows.push(this);
  }
  async loadURL(url: string): Promise<void> {
    this.url = url;
  }
  isMinimized = (): boolean => false;
  restore(): void {}
  focus(): void {}
  show(): void {}
  setMenuBarVisibility(): void {}
  setFullScreen(on: boolean): void {
    this.fullScreen = on;
  }
  close(): void {
    this.isClosed = true;
    this.emit('closed');
  }
}

/** The page's side. `url` is where the asking frame says it is. */
class IpcRenderer extends EventEmitter {
  url = 'app://vivarium/index.html';
  async invoke(channel: string, message: unknown): Promise<unknown> {
    const handler = ipcMain.handlers.get(channel);
    if (handler === undefined) throw new Error(`No handler registered for '${channel}'`);
    const answer = await handler(
      { sender: standin.windows[0].webContents, senderFrame: { url: this.url } },
      structuredClone(message),
    );
    return structuredClone(answer);
  }
}
export const ipcRenderer = new IpcRenderer();
export const contextBridge = { exposeInMainWorld: (name: string, value: unknown): void => void standin.exposed.set(name, value) };
export const webUtils = { getPathForFile: (file: { path: string }): string => file.path };

export const protocol = {
  schemes: [] as { scheme: string }[],
  handlers: new Map<string, (request: { url: string }) => Promise<Response>>(),
  registerSchemesAsPrivileged(schemes: { scheme: string }[]): void {
    this.schemes = schemes;
  },
  handle(scheme: string, handler: (request: { url: string }) => Promise<Response>): void {
    this.handlers.set(scheme, handler);
  },
};
export const session = {
  defaultSession: {
    request: undefined as ((page: unknown, permission: string, answer: (allowed: boolean) => void) => void) | undefined,
    setPermissionRequestHandler(handler: (page: unknown, permission: string, answer: (allowed: boolean) => void) => void): void {
      this.request = handler;
    },
    setPermissionCheckHandler(): void {},
  },
};
export const dialog = {
  showErrorBox: (title: string, text: string): void => void standin.errors.push(`${title}: ${text}`),
  showMessageBox: async (question: { message: string; buttons: string[] }) => {
    standin.questions.push(question);
    return { response: standin.answer };
  },
  showOpenDialog: async () => ({ canceled: standin.picked.length === 0, filePaths: standin.picked }),
};
export const Menu = {
  buildFromTemplate: (template: NonNullable<typeof standin.menu>) => template,
  setApplicationMenu(menu: typeof standin.menu): void {
    standin.menu = menu;
  },
};
