/**
 * All services of the app, composed, with the one way in: `dispatch` takes a request of the channel map, checks its
 * arguments, and answers with a result or an error envelope. Knows nothing of Electron or HTTP; a shell gives it a
 * launcher and what only the shell can do.
 */
import { join } from 'node:path';
import { Catalogue } from './catalogue/catalogue.ts';
import { installSources } from './catalogue/sources.ts';
import { Wizard } from './catalogue/wizard.ts';
import {
  type AnswerMessage,
  AppError,
  type CheckedArgs,
  envelopeOf,
  type RequestMessage,
  type RequestName,
  type RequestResult,
  requests,
} from './contract/index.ts';
import { EventBus } from './event-bus.ts';
import { findGuest } from './guests/debian.ts';
import { createFirstVm, GuestService } from './guests/guests.ts';
import { browse } from './host/browse.ts';
import { hostCapabilities } from './host/capabilities.ts';
import { SettingsService } from './settings/settings.ts';
import { ImageTool, type ToolLauncher } from './storage/image-tool.ts';
import { Importer } from './storage/importer.ts';
import { Pools } from './storage/pools.ts';
import { Snapshots } from './storage/snapshots.ts';
import { Volumes } from './storage/volumes.ts';
import { NotificationService } from './tasks/notifications.ts';
import { TaskService } from './tasks/tasks.ts';
import type { Launcher } from './vm/launcher.ts';
import { Library } from './vm/library.ts';
import type { FirmwareFiles } from './vm/machine-config.ts';
import { VmService } from './vm/vm-service.ts';

/** What only a shell with windows of its own can do. */
export interface WindowHost {
  pickFile(options: CheckedArgs<'host.pickFile'>, session: object): Promise<string | null>;
  open(options: CheckedArgs<'window.open'>): void;
  setFullScreen(on: boolean, session: object): void;
}

export interface ServicesOptions {
  readonly libraryPath: string;
  readonly configFolder: string;
  /** Holds `guests/`; of a checkout, its `.cache`. */
  readonly cacheFolder: string;
  readonly catalogueFile: string;
  readonly version: string;
  readonly shell: 'electron' | 'serve';
  readonly launcher: Launcher;
  /** Starts the engine's command line, for work on images. */
  readonly tool: ToolLauncher;
  /** Where the app's control socket will listen; written into the library's lock for commands to find. */
  readonly controlSocket: string | null;
  readonly windows?: WindowHost;
  readonly firmware?: FirmwareFiles;
  /** Make the sample VM when the library is empty and the guest is there. */
  readonly firstVm: boolean;
  readonly sampleMs?: number;
  readonly pictureMs?: number;
}

type Handlers = { [N in RequestName]: (args: CheckedArgs<N>, session: object) => RequestResult<N> | Promise<RequestResult<N>> };

export class Services {
  readonly bus: EventBus;
  readonly vms: VmService;
  readonly library: Library;
  readonly tasks: TaskService;
  readonly notifications: NotificationService;
  readonly #handlers: Handlers;
  #closed: Promise<void> | undefined;

  private constructor(
    bus: EventBus,
    library: Library,
    vms: VmService,
    tasks: TaskService,
    notifications: NotificationService,
    handlers: Handlers,
  ) {
    this.bus = bus;
    this.library = library;
    this.vms = vms;
    this.tasks = tasks;
    this.notifications = notifications;
    this.#handlers = handlers;
  }

  /** Opens the library and everything over it; rejects with `library-in-use` when another app has it. */
  static async open(options: ServicesOptions): Promise<Services> {
    const bus = new EventBus();
    const notifications = new NotificationService(bus);
    const tasks = new TaskService(bus);
    const catalogue = await Catalogue.load(options.catalogueFile);
    const settings = await SettingsService.open(options.configFolder, bus, (message) =>
      notifications.add('warning', 'Settings', message),
    );
    const library = await Library.open(options.libraryPath, options.controlSocket);
    try {
      for (const { folder, reason, file } of library.broken())
        notifications.add('error', 'A VM could not be read', `${folder}: ${reason}. Its definition is kept as ${file}.`);
      if (options.firstVm) {
        const guest = library.list().length === 0 ? await findGuest(options.cacheFolder) : undefined;
        if (guest !== undefined) await createFirstVm(library, guest);
      }
    } catch (error) {
      await library.close();
      throw error;
    }
    const vms = new VmService({
      library,
      launcher: options.launcher,
      bus,
      settings: () => settings.get(),
      firmware: options.firmware,
      sampleMs: options.sampleMs,
      pictureMs: options.pictureMs,
      notify: (level, title, detail, vm) => notifications.add(level, title, detail, vm),
    });
    const guests = new GuestService(options.cacheFolder, tasks);
    const tool = new ImageTool(options.tool);
    const pools = await Pools.open(options.configFolder, library.path);
    const volumes = new Volumes({ pools, library, vms, tool, tasks, bus });
    const snapshots = new Snapshots({ library, vms, tool, tasks, bus });
    const importer = new Importer({ library, vms, tool, tasks });
    const wizard = new Wizard({ library, vms, catalogue, tool });
    const handlers = makeHandlers({
      options,
      bus,
      library,
      vms,
      tasks,
      notifications,
      settings,
      catalogue,
      guests,
      wizard,
      pools,
      volumes,
      snapshots,
      importer,
    });
    const services = new Services(bus, library, vms, tasks, notifications, handlers);
    await vms.purgeExpired();
    return services;
  }

  /** Answers one request; never rejects. `session` is whoever asks: the same object for the same window. */
  async dispatch(message: RequestMessage, session: object): Promise<AnswerMessage> {
    const { id, request, args } = message;
    try {
      if (!Object.hasOwn(requests, request))
        throw new AppError('unsupported', `There is no request "${String(request).slice(0, 60)}"`);
      const name = request as RequestName;
      const parsed = requests[name].args.safeParse(args ?? {});
      if (!parsed.success) {
        const { path, message: text } = parsed.error.issues[0];
        throw new AppError('invalid', text, { field: path.join('.') });
      }
      const handler = this.#handlers[name] as (args: unknown, session: object) => unknown;
      return { id, result: (await handler(parsed.data, session)) ?? null };
    } catch (error) {
      return { id, error: envelopeOf(error) };
    }
  }

  /** The session has gone. */
  forget(session: object): void {
    this.vms.watch(session, undefined);
  }

  /** Saves every VM that runs; tells of those that could not be, in words. */
  async saveAll(): Promise<string[]> {
    const failed: string[] = [];
    for (const { id, name, pid } of this.vms.list()) {
      if (pid === null) continue;
      const { done } = this.tasks.run(`Save "${name}"`, { vm: id }, (report) =>
        this.vms.alone(id, () => this.vms.saveInTurn(id, report)),
      );
      await done.catch((error: Error) => failed.push(`"${name}": ${error.message}`));
    }
    return failed;
  }

  /** Ends every VM, then lets go of the library. */
  close(): Promise<void> {
    this.#closed ??= (async () => {
      this.tasks.close();
      await this.vms.close();
      await this.library.close();
    })();
    return this.#closed;
  }
}

interface Parts {
  readonly options: ServicesOptions;
  readonly bus: EventBus;
  readonly library: Library;
  readonly vms: VmService;
  readonly tasks: TaskService;
  readonly notifications: NotificationService;
  readonly settings: SettingsService;
  readonly catalogue: Catalogue;
  readonly guests: GuestService;
  readonly wizard: Wizard;
  readonly pools: Pools;
  readonly volumes: Volumes;
  readonly snapshots: Snapshots;
  readonly importer: Importer;
}

function makeHandlers({
  options,
  bus,
  library,
  vms,
  tasks,
  notifications,
  settings,
  catalogue,
  guests,
  wizard,
  pools,
  volumes,
  snapshots,
  importer,
}: Parts): Handlers {
  const windows = (): WindowHost => {
    if (options.windows === undefined) throw new AppError('unsupported', 'This shell has no windows of its own');
    return options.windows;
  };
  const places = [
    { name: 'Library', path: library.path },
    { name: 'Sample guests', path: join(options.cacheFolder, 'guests') },
  ];
  return {
    'app.info': () => ({
      name: 'Vivarium',
      version: options.version,
      shell: options.shell,
      libraryPath: library.path,
      nativeDialogs: options.windows !== undefined,
      nativeWindows: options.windows !== undefined,
    }),
    'host.capabilities': () => hostCapabilities(options.shell),
    'host.browse': (args) => browse(args, places),
    'host.pickFile': (args, session) => windows().pickFile(args, session),

    'vm.list': () => ({ vms: vms.list(), broken: library.broken() }),
    'vm.get': ({ id }) => vms.details(id),
    'vm.update': ({ id, changes }) => vms.update(id, changes),
    'vm.rename': ({ id, name }) => vms.rename(id, name),
    'vm.clone': ({ id, name }) => vms.clone(id, name),
    'vm.delete': ({ id }) => vms.delete(id),
    'vm.start': ({ id, paused }) => vms.start(id, { paused }),
    'vm.pause': ({ id }) => vms.pause(id),
    'vm.resume': ({ id }) => vms.resume(id),
    'vm.reset': ({ id }) => vms.reset(id),
    'vm.powerButton': ({ id }) => vms.powerButton(id),
    'vm.forceOff': ({ id }) => vms.forceOff(id),
    'vm.sendKeys': async ({ id, keys }) => {
      await vms.sendKeys(id, keys);
      return null as never;
    },
    'vm.screenshot': ({ id }) => vms.screenshot(id),
    'vm.thumbnail': ({ id }) => vms.thumbnail(id) as Promise<never>,
    'vm.log': ({ id, lines }) => vms.logTail(id, lines),
    'vm.history': ({ id, ...range }) => vms.history(id, range),
    'vm.monitor': ({ id, line, cpu }) => vms.monitor(id, line, cpu),
    'vm.save': ({ id }) =>
      tasks.run(`Save "${library.get(id).name}"`, { vm: id }, (report) => vms.alone(id, () => vms.saveInTurn(id, report))).task,
    'vm.discardSaved': ({ id }) => vms.discardSaved(id),
    'vm.changeMedium': ({ id, drive, file, force }) => vms.changeMedium(id, drive, file, force ?? false),
    'vm.removeDisk': ({ id, drive }) => vms.removeDisk(id, drive),
    'vm.addDisk': async ({ id, size, file, format, bus: on }) => {
      if ((size === undefined) === (file === undefined)) throw new AppError('invalid', 'A size or a file is to be given');
      const make = size === undefined ? file : (path: string) => volumes.createImage(path, format, size);
      const details = await vms.addDisk(id, { format, bus: on }, make as NonNullable<typeof make>);
      bus.emit('storage.changed', {});
      return details;
    },

    'snapshot.tree': ({ id }) => snapshots.tree(id),
    'snapshot.create': (args) => snapshots.create(args),
    'snapshot.revert': (args) => snapshots.revert(args),
    'snapshot.delete': (args) => snapshots.delete(args),

    'storage.pools': () => pools.list(),
    'storage.addPool': async ({ path }) => {
      const pool = await pools.add(path);
      bus.emit('storage.changed', {});
      return pool;
    },
    'storage.removePool': async ({ id }) => {
      await pools.remove(id);
      bus.emit('storage.changed', {});
      return null as never;
    },
    'storage.volumes': ({ pool }) => volumes.list(pool),
    'storage.inspect': ({ path }) => volumes.inspect(path),
    'storage.create': (args) => volumes.create(args),
    'storage.grow': (args) => volumes.grow(args),
    'storage.compact': ({ path }) => volumes.compact(path),
    'storage.clone': (args) => volumes.clone(args),
    'storage.delete': (args) => volumes.delete(args) as Promise<never>,

    'import.preview': ({ path }) => importer.preview(path),
    'import.run': (args) => importer.run(args),

    'vm.watch': ({ ids }, session) => vms.watch(session, ids) as never,
    'vm.profile': ({ id }) => {
      vms.profile(id);
      return null as never;
    },
    'vm.dismissBroken': ({ file }) => {
      library.dismissBroken(file);
      bus.emit('vm.broken', library.broken());
      return null as never;
    },

    'undo.list': () => library.undoTokens(),
    'undo.apply': ({ token }) => vms.undo(token),
    'undo.purge': ({ token }) => vms.purge(token) as Promise<never>,

    'wizard.sources': () => [...installSources],
    'catalogue.list': () => catalogue.list(),
    'catalogue.detect': ({ path }) => catalogue.detect(path),
    'catalogue.recommend': ({ os }) => catalogue.recommend(os),
    'wizard.suggestName': ({ os, hint }) => wizard.suggestName(os, hint),
    'wizard.check': (draft) => wizard.check(draft),
    'wizard.create': async ({ plan, start }) => {
      const summary = await wizard.create(plan);
      return start ? vms.start(summary.id) : summary;
    },

    'guests.sample': () => guests.sample(),
    'guests.fetchSample': () => guests.fetch(),

    'settings.get': () => settings.get(),
    'settings.set': (changes) => settings.set(changes as Parameters<SettingsService['set']>[0]),

    'tasks.list': () => tasks.list(),
    'tasks.cancel': ({ id }) => tasks.cancel(id) as never,
    'tasks.dismiss': ({ id }) => tasks.dismiss(id) as never,

    'notifications.list': () => notifications.list(),
    'notifications.dismiss': ({ id }) => notifications.dismiss(id) as never,

    'window.open': (args) => windows().open(args) as never,
    'window.setFullScreen': ({ on }, session) => windows().setFullScreen(on, session) as never,
  };
}
