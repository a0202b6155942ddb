/**
 * The app's windows: one list, one for each VM that was opened. Pages come from `app://vivarium/`, a scheme of ours (a
 * page from a file is no secure context), run sandboxed and isolated, go nowhere else, and open nothing.
 */
import { existsSync, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize, sep } from 'node:path';
import { BrowserWindow, dialog, protocol, session, type WebContents } from 'electron';
import { AppError, type CheckedArgs, type EventName, type Events } from '../contract/index.ts';
import type { WindowHost } from '../services.ts';

export const pageOrigin = 'app://vivarium';
const contentTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.json': 'application/json',
  '.woff2': 'font/woff2',
};

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data: blob:",
  "font-src 'self' data:",
  "worker-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

/** What a page may ask of the browser around it. */
const allowed = new Set(['clipboard-read', 'clipboard-sanitized-write', 'fullscreen', 'pointerLock', 'keyboardLock']);

/** Before the app is ready: makes the scheme a secure context. */
export function registerScheme(): void {
  protocol.registerSchemesAsPrivileged([
    { scheme: 'app', privileges: { standard: true, secure: true, supportFetchAPI: true, stream: true } },
  ]);
}

/** A file of the pages, as a response. */
export async function pageResponse(renderer: string, address: string): Promise<Response> {
  const { host, pathname } = new URL(address);
  const refuse = (status: number): Response => new Response('Not found', { status });
  if (`app://${host}` !== pageOrigin) return refuse(404);
  let relative: string;
  try {
    relative = normalize(decodeURIComponent(pathname));
  } catch {
    return refuse(400);
  }
  if (relative === sep) relative = join(sep, 'index.html');
  const file = join(renderer, relative);
  if (!file.startsWith(renderer + sep) || relative.includes('\0')) return refuse(404);
  const content = await readFile(file).catch(() => undefined);
  if (content === undefined) return refuse(404);
  return new Response(new Uint8Array(content), {
    headers: {
      'Content-Type': contentTypes[extname(file)] ?? 'application/octet-stream',
      'Content-Security-Policy': policy,
      'X-Content-Type-Options': 'nosniff',
    },
  });
}

export interface WindowsOptions {
  readonly renderer: string;
  readonly preload: string;
  readonly icon: string;
  /** Pages reload when the built ones change. */
  readonly development: boolean;
  /** A window's page has gone. */
  readonly closed: (page: WebContents) => void;
  /** The name of a VM, for its window's title. */
  readonly title: (id: string) => string;
}

export class Windows implements WindowHost {
  readonly #options: WindowsOptions;
  readonly #vms = new Map<string, BrowserWindow>();
  #main: BrowserWindow | undefined;

  constructor(options: WindowsOptions) {
    this.#options = options;
    protocol.handle('app', ({ url }) => pageResponse(options.renderer, url));
    session.defaultSession.setPermissionRequestHandler((_, permission, answer) => answer(allowed.has(permission)));
    session.defaultSession.setPermissionCheckHandler((_, permission) => allowed.has(permission));
    if (options.development && existsSync(options.renderer)) {
      let timer: NodeJS.Timeout | undefined;
      watch(options.renderer, { recursive: true }, () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          for (const window of this.#all()) window.webContents.reloadIgnoringCache();
        }, 300);
      });
    }
  }

  /** The list of VMs, made or brought to the front. */
  showMain(): BrowserWindow {
    this.#main ??= this.#make('Vivarium', '', { width: 1100, height: 720 }, () => {
      this.#main = undefined;
    });
    front(this.#main);
    return this.#main;
  }

  open({ id, view = 'console' }: CheckedArgs<'window.open'>): void {
    let window = this.#vms.get(id);
    if (window === undefined) {
      window = this.#make(this.#options.title(id), `#/vm/${id}/${view}`, { width: 1060, height: 840 }, () =>
        this.#vms.delete(id),
      );
      // Keys belong to the guest: a menu's shortcuts must not take them.
      window.setMenuBarVisibility(false);
      window.webContents.setIgnoreMenuShortcuts(true);
      this.#vms.set(id, window);
    }
    front(window);
  }

  closeVm(id: string): void {
    this.#vms.get(id)?.close();
  }

  async pickFile({ title, extensions, folder }: CheckedArgs<'host.pickFile'>, page: object): Promise<string | null> {
    const window = BrowserWindow.fromWebContents(page as WebContents);
    const options = {
      title,
      properties: [folder === true ? ('openDirectory' as const) : ('openFile' as const)],
      filters:
        extensions === undefined
          ? []
          : [
              { name: title, extensions },
              { name: 'All files', extensions: ['*'] },
            ],
    };
    const { canceled, filePaths } =
      window === null ? await dialog.showOpenDialog(options) : await dialog.showOpenDialog(window, options);
    return canceled ? null : (filePaths[0] ?? null);
  }

  setFullScreen(on: boolean, page: object): void {
    const window = BrowserWindow.fromWebContents(page as WebContents);
    if (window === null) throw new AppError('wrong-state', 'The window has gone');
    window.setFullScreen(on);
  }

  /** Tells an event to every page. */
  tell<N extends EventName>(event: N, payload: Events[N]): void {
    for (const { webContents } of this.#all())
      if (!webContents.isDestroyed()) webContents.send('vivarium:event', { event, payload });
  }

  /** Tells an event to the list's page alone, which is made when it is not there. */
  tellMain<N extends EventName>(event: N, payload: Events[N]): void {
    this.showMain().webContents.send('vivarium:event', { event, payload });
  }

  isMain(page: WebContents): boolean {
    return this.#main?.webContents === page;
  }

  #all(): BrowserWindow[] {
    return [...(this.#main === undefined ? [] : [this.#main]), ...this.#vms.values()];
  }

  #make(title: string, hash: string, size: { width: number; height: number }, closed: () => void): BrowserWindow {
    const { preload, icon } = this.#options;
    const window = new BrowserWindow({
      title,
      icon,
      ...size,
      minWidth: 480,
      minHeight: 360,
      show: false,
      webPreferences: {
        preload,
        contextIsolation: true,
        sandbox: true,
        nodeIntegration: false,
        webSecurity: true,
        spellcheck: false,
      },
    });
    const { webContents } = window;
    window.once('ready-to-show', () => window.show());
    window.on('closed', () => {
      this.#options.closed(webContents);
      closed();
    });
    webContents.on('will-navigate', (event) => event.preventDefault());
    webContents.on('will-attach-webview', (event) => event.preventDefault());
    webContents.setWindowOpenHandler(({ url }) => {
      // A VM in a window of its own; nothing else opens.
      const match = /^app:\/\/vivarium\/(?:index\.html)?#\/vm\/([0-9a-f-]{36})(?:\/(console|details|serial|graphs))?$/.exec(url);
      if (match !== null) this.open({ id: match[1], view: match[2] as 'console' | undefined });
      return { action: 'deny' };
    });
    void window.loadURL(`${pageOrigin}/index.html${hash}`);
    return window;
  }
}

function front(window: BrowserWindow): void {
  if (window.isMinimized()) window.restore();
  window.focus();
}
