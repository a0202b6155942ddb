/**
 * The serve shell: the app on loopback, for a host without a screen or without Electron, and for tests.
 *
 *     node main/shell/serve.ts [--library DIR] [--port N] [--no-open] [--background] [--dev]
 *
 * `--background`: no pages, only the control socket, for the commands; it ends when no VM runs for a while.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { AppError } from '../contract/index.ts';
import { configFolder, defaultLibrary } from '../host/files.ts';
import { Services } from '../services.ts';
import { forkTool } from '../storage/image-tool.ts';
import { ForkLauncher } from '../vm/fork-launcher.ts';
import { controlSocketPath } from './control-socket.ts';
import { startDevelopment } from './development.ts';
import { HttpShell } from './http-shell.ts';
import { appPaths, findFirmware } from './paths.ts';

export interface ServeOptions {
  readonly library: string;
  readonly port: number;
  readonly open: boolean;
  readonly background: boolean;
  readonly dev: boolean;
  /** The VM process's program, where it is not the app's own. */
  readonly engineEntry?: string;
}

/** A background app without a running VM ends after this long, in ms. */
const idleTimeout = 30_000;

export function parseServeOptions(args: readonly string[]): ServeOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      library: { type: 'string' },
      port: { type: 'string' },
      'no-open': { type: 'boolean' },
      background: { type: 'boolean' },
      dev: { type: 'boolean' },
      'engine-entry': { type: 'string' },
    },
  });
  const port = Number(values.port ?? 0);
  if (!Number.isInteger(port) || port < 0 || port > 65535)
    throw new AppError('invalid', `--port ${values.port}: a port is a number from 0 to 65535`);
  return {
    library: values.library ?? process.env.VIVARIUM_LIBRARY ?? defaultLibrary(),
    port,
    open: values['no-open'] !== true,
    background: values.background === true,
    dev: values.dev === true,
    engineEntry: values['engine-entry'],
  };
}

/** Starts the app; resolves when it listens, with the address of its page and what ends it. */
export async function serve(
  options: ServeOptions,
): Promise<{ address: string | undefined; shell: HttpShell; services: Services; close(): Promise<void> }> {
  const paths = appPaths();
  const socket = controlSocketPath(options.library);
  const services = await Services.open({
    libraryPath: options.library,
    configFolder: configFolder(),
    cacheFolder: paths.cache,
    catalogueFile: join(paths.assets, 'os-catalogue.json'),
    version: paths.version,
    shell: 'serve',
    launcher: new ForkLauncher({ entry: options.engineEntry ?? paths.engineEntry }),
    tool: forkTool(paths.engineCli),
    controlSocket: socket,
    firmware: findFirmware(paths.firmware),
    firstVm: !options.background,
  });
  try {
    const development = options.dev ? await startDevelopment(paths.root, services) : undefined;
    const shell = new HttpShell({
      services,
      renderer: paths.renderer,
      middleware: development?.middleware,
      cookie: options.dev ? process.env.VIVARIUM_DEVELOPMENT_COOKIE : undefined,
    });
    await shell.listenControl(socket);
    if (!options.background) {
      const server = await shell.listen(options.port);
      development?.attach(server);
    }
    const close = async (): Promise<void> => {
      shell.close();
      await development?.close();
      await services.close();
    };
    void services.vms.autostart();
    return { address: options.background ? undefined : shell.address(), shell, services, close };
  } catch (error) {
    await services.close();
    throw error;
  }
}

/** Opens an address in the person's browser, where there is a screen to show it. */
function openInBrowser(address: string): void {
  const display = process.platform !== 'linux' || process.env.DISPLAY !== undefined || process.env.WAYLAND_DISPLAY !== undefined;
  if (!display) return;
  const [command, ...args] = { darwin: ['open'], win32: ['cmd', '/c', 'start', ''] }[process.platform as string] ?? ['xdg-open'];
  spawn(command, [...args, address], { stdio: 'ignore', detached: true })
    .on('error', () => {})
    .unref();
}

/** The program: runs until a signal ends it. */
export async function serveMain(args: readonly string[]): Promise<void> {
  const options = parseServeOptions(args);
  const { address, services, close } = await serve(options);
  let closing = false;
  const end = (): void => {
    // A second Ctrl-C does not wait for VMs that hang.
    if (closing) process.exit(1);
    closing = true;
    if (address !== undefined) console.log('\nTurning off the VMs ...');
    void close().finally(() => process.exit(0));
  };
  process.on('SIGINT', end);
  process.on('SIGTERM', end);
  process.on('SIGHUP', end);
  if (options.background) {
    let idleSince = Date.now();
    setInterval(() => {
      if (services.vms.list().some(({ pid }) => pid !== null)) idleSince = Date.now();
      else if (Date.now() - idleSince > idleTimeout) end();
    }, 1000);
  }
  if (address !== undefined) {
    console.log(`Vivarium is at ${address}\n(the address works once; Ctrl-C ends Vivarium and its VMs)`);
    if (options.open) openInBrowser(address);
  } else console.log('ready');
}

const program = process.argv[1] ?? '';
if (/^serve\.[tj]s$/.test(basename(program)) && existsSync(program)) {
  serveMain(process.argv.slice(2)).catch((error: Error) => {
    console.error(`vivarium: ${error.message}`);
    process.exitCode = 1;
    // Whatever was opened before the failure must not keep the program alive.
    setTimeout(() => process.exit(1), 500).unref();
  });
}
