/**
 * The Electron shell: the product. One process of the app, one window for the list and one for each VM, and a utility
 * process for each VM that runs. Requests come over one channel, `vivarium`; a page that asks for a port gets one end
 * of a channel whose other end goes to the VM's process, so that no byte of a console passes through here.
 */
import { extname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { app, dialog, type IpcMainInvokeEvent, ipcMain, MessageChannelMain, type WebContents } from 'electron';
import { main as commandMain, isCommand } from '../cli/main.ts';
import { envelopeOf, type PortKind, type RequestMessage } from '../contract/index.ts';
import { configFolder, defaultLibrary } from '../host/files.ts';
import { Services } from '../services.ts';
import { controlSocketPath } from './control-socket.ts';
import { ElectronLauncher, electronTool } from './electron-launcher.ts';
import { setMenu } from './electron-menu.ts';
import { pageOrigin, registerScheme, Windows } from './electron-windows.ts';
import { HttpShell } from './http-shell.ts';
import { appPaths, findFirmware } from './paths.ts';

/** Files that start the wizard (electron-builder.yml names them too). */
const mediaExtensions = new Set(['.iso', '.qcow2', '.img']);

interface PortRequest {
  readonly port: string;
  readonly vm: string;
  readonly kind: PortKind;
  readonly index: number;
}

function argument(args: readonly string[], name: string): string | undefined {
  const at = args.indexOf(name);
  return at < 0 ? undefined : args[at + 1];
}

/** The files among a command line that the wizard takes. */
function mediaOf(args: readonly string[], folder: string): string[] {
  return args
    .filter((text) => !text.startsWith('-') && mediaExtensions.has(extname(text).toLowerCase()))
    .map((path) => resolve(folder, path));
}

class ElectronShell {
  readonly #services: Services;
  readonly #windows: Windows;
  readonly #control: HttpShell;
  /** Pages that are ready for events: they have asked for something. */
  readonly #pages = new Set<WebContents>();
  #files: string[] = [];
  #quitting = false;

  constructor(services: Services, windows: Windows, control: HttpShell) {
    this.#services = services;
    this.#windows = windows;
    this.#control = control;
    services.bus.listen((event, payload) => windows.tell(event, payload as never));
    services.bus.on('vm.removed', ({ id }) => windows.closeVm(id));
    ipcMain.handle('vivarium', (event, message: RequestMessage | PortRequest) => this.#receive(event, message));
    app.on('before-quit', (event) => {
      if (this.#quitting) return;
      event.preventDefault();
      void this.#quit();
    });
    app.on('window-all-closed', () => {
      if (process.platform !== 'darwin') app.quit();
    });
    app.on('activate', () => windows.showMain());
  }

  /** A file was opened with the app: the wizard begins with it, once there is a page. */
  openFile(path: string): void {
    this.#files.push(path);
    const page = this.#windows.showMain().webContents;
    if (this.#pages.has(page)) this.#tellFiles();
  }

  closed(page: WebContents): void {
    this.#pages.delete(page);
    this.#services.forget(page);
  }

  #tellFiles(): void {
    for (const path of this.#files.splice(0)) this.#windows.tellMain('app.openFile', { path });
  }

  async #receive({ sender, senderFrame }: IpcMainInvokeEvent, message: RequestMessage | PortRequest): Promise<unknown> {
    // Only our own pages speak here, whatever a window was made to show.
    if (senderFrame === null || !senderFrame.url.startsWith(`${pageOrigin}/`)) throw new Error('Not a page of Vivarium');
    if (!this.#pages.has(sender)) {
      this.#pages.add(sender);
      if (this.#windows.isMain(sender)) setImmediate(() => this.#tellFiles());
    }
    if ('port' in message) return this.#givePort(sender, message);
    return this.#services.dispatch(message, sender);
  }

  #givePort(page: WebContents, { port: token, vm, kind, index }: PortRequest): void {
    const { port1, port2 } = new MessageChannelMain();
    try {
      if (!['rfb', 'serial', 'qmp'].includes(kind)) throw new TypeError('no such kind of port');
      this.#services.vms.handPort(String(vm), { type: 'port', kind, index: Number(index) }, port2);
      page.postMessage('vivarium:port', { vivariumPort: token }, [port1]);
    } catch (error) {
      for (const port of [port1, port2]) port.close();
      page.postMessage('vivarium:port', { vivariumPort: token, error: envelopeOf(error) });
    }
  }

  async #quit(): Promise<void> {
    const running = this.#services.vms.list().filter(({ pid }) => pid !== null);
    if (running.length > 0) {
      const { response } = await dialog.showMessageBox({
        type: 'question',
        message: running.length === 1 ? `"${running[0].name}" is running.` : `${running.length} VMs are running.`,
        detail:
          'Saved, they go on where they are when they are started again. Turned off, what their systems have not saved is lost.',
        buttons: ['Save and quit', 'Turn off and quit', 'Cancel'],
        defaultId: 0,
        cancelId: 2,
      });
      if (response === 2) return;
      if (response === 0) {
        const failed = await this.#services.saveAll();
        if (failed.length > 0) {
          dialog.showErrorBox('Not all could be saved', failed.join('\n'));
          return;
        }
      }
    }
    this.#quitting = true;
    this.#control.close();
    await this.#services.close();
    app.quit();
  }
}

/** `vivarium COMMAND` of the packed app: no windows, the command's output and status. */
async function runCommand(command: string, args: readonly string[]): Promise<void> {
  await app.whenReady();
  if (isCommand(command)) return app.exit(await commandMain(args, null));
  const engine = (await import(pathToFileURL(appPaths().engineCli).href)) as { main(argv: readonly string[]): Promise<number> };
  app.exit(await engine.main(args));
}

async function main(): Promise<void> {
  const args = process.argv.slice(app.isPackaged ? 1 : 2);
  const command = args.find((text, index) => !text.startsWith('--') && args[index - 1] !== '--library');
  if (isCommand(command) || ['run', 'img', 'version'].includes(command ?? '')) return runCommand(command ?? '', args);
  const waiting = mediaOf(args, process.cwd());
  let shell: ElectronShell | undefined;
  app.on('open-file', (event, path) => {
    event.preventDefault();
    if (shell === undefined) waiting.push(path);
    else shell.openFile(path);
  });
  if (!app.requestSingleInstanceLock()) {
    app.quit();
    return;
  }
  registerScheme();
  await app.whenReady();
  const paths = appPaths();
  const development = args.includes('--dev');
  const libraryPath = argument(args, '--library') ?? process.env.VIVARIUM_LIBRARY ?? defaultLibrary();
  const socket = controlSocketPath(libraryPath);
  try {
    const windows: Windows = new Windows({
      renderer: paths.renderer,
      preload: paths.fromSource ? join(paths.root, 'dist', 'main', 'preload.cjs') : join(paths.root, 'main', 'preload.cjs'),
      icon: join(paths.assets, 'icon.png'),
      development,
      closed: (page) => shell?.closed(page),
      title: (id) => services.library.get(id).name,
    });
    const services: Services = await Services.open({
      libraryPath,
      configFolder: configFolder(),
      cacheFolder: argument(args, '--cache') ?? paths.cache,
      catalogueFile: join(paths.assets, 'os-catalogue.json'),
      version: paths.version,
      shell: 'electron',
      launcher: new ElectronLauncher(paths.engineEntry),
      tool: electronTool(paths.engineCli),
      controlSocket: socket,
      windows,
      firmware: findFirmware(paths.firmware),
      firstVm: true,
    });
    const control = new HttpShell({ services, renderer: paths.renderer });
    await control.listenControl(socket);
    shell = new ElectronShell(services, windows, control);
    setMenu((command) => windows.tellMain('app.command', { command }), development);
    app.on('second-instance', (_, argv, folder) => {
      windows.showMain();
      for (const path of mediaOf(argv.slice(1), folder)) shell?.openFile(path);
    });
    windows.showMain();
    for (const path of waiting) shell.openFile(path);
    void services.vms.autostart();
  } catch (error) {
    dialog.showErrorBox('Vivarium cannot start', (error as Error).message);
    app.exit(1);
  }
}

// Not awaited: Electron is ready only when this module has been loaded.
void main();
