/** All that the page knows of the services: loaded when the connection opens, then kept up by events. */
import { SvelteMap } from 'svelte/reactivity';
import {
  type AppInfo,
  type BrokenVm,
  type ConnectionState,
  createClient,
  defaultSettings,
  type ErrorEnvelope,
  envelopeOf,
  type HostCapabilities,
  type Notification,
  type OsEntry,
  type Settings,
  type SettingsChanges,
  type StatsPoint,
  type Task,
  transportOfPage,
  type UndoToken,
  type VmSummary,
} from '../../../main/contract/index.ts';
import { t } from '../messages/index.ts';
import { router } from './route.svelte.ts';

/** A short message in the corner, with at most one thing to do about it. */
export interface Toast {
  readonly id: number;
  readonly level: 'info' | 'success' | 'warning' | 'error';
  readonly title: string;
  readonly detail: string;
  readonly action?: { readonly label: string; readonly run: () => void };
}

const sparklineLength = 40;
const toastMs = 6000;
/** A toast that can be acted on stays longer. */
const actionToastMs = 15_000;

export const client = createClient(transportOfPage());

class AppState {
  connection = $state<ConnectionState>(client.state);
  loaded = $state(false);
  loadError = $state.raw<ErrorEnvelope | null>(null);
  info = $state.raw<AppInfo | null>(null);
  host = $state.raw<HostCapabilities | null>(null);
  settings = $state.raw<Settings>(defaultSettings);
  broken = $state.raw<readonly BrokenVm[]>([]);
  systems = $state.raw<readonly OsEntry[]>([]);
  notifications = $state.raw<readonly Notification[]>([]);
  undo = $state.raw<readonly UndoToken[]>([]);
  toasts = $state.raw<readonly Toast[]>([]);
  readonly vms = new SvelteMap<string, VmSummary>();
  readonly tasks = new SvelteMap<string, Task>();
  readonly thumbnails = new SvelteMap<string, string>();
  readonly sparklines = new SvelteMap<string, readonly number[]>();
  /** What went wrong with the last action on a VM; stands beside the VM until put away or done over. */
  readonly errors = new SvelteMap<string, ErrorEnvelope>();
  /** VMs with an action under way. */
  readonly busy = new SvelteMap<string, number>();
  /** Dialogs of the main window. */
  dialog = $state<'none' | 'wizard' | 'settings' | 'palette' | 'about' | 'storage' | 'import'>('none');
  /** The file the wizard is to begin with. */
  wizardFile = $state<string | null>(null);
  readonly #statsListeners = new Set<(id: string, point: StatsPoint) => void>();
  #nextToast = 1;

  constructor() {
    client.onState((state) => {
      this.connection = state;
      if (state === 'open') void this.load();
    });
    client.on('vm.changed', (vm) => this.#setVm(vm));
    client.on('vm.removed', ({ id }) => {
      this.vms.delete(id);
      this.thumbnails.delete(id);
      this.sparklines.delete(id);
      this.errors.delete(id);
    });
    client.on('vm.stats', ({ id, point }) => {
      const mean = point.cpu.reduce((sum, value) => sum + value, 0) / Math.max(1, point.cpu.length);
      this.sparklines.set(id, [...(this.sparklines.get(id) ?? []), Math.min(100, Math.round(mean))].slice(-sparklineLength));
      for (const listener of this.#statsListeners) listener(id, point);
    });
    client.on('vm.thumbnail', ({ id, url }) => void this.thumbnails.set(id, url));
    client.on('vm.broken', (broken) => {
      this.broken = broken;
    });
    client.on('task.changed', (task) => this.#setTask(task));
    client.on('task.removed', ({ id }) => this.tasks.delete(id));
    client.on('notification.added', (notification) => {
      this.notifications = [...this.notifications, notification];
      // What stands where the person looks need not be said in the corner too.
      const { route } = router;
      const shown = notification.vm !== null && (route.screen === 'list' || route.id === notification.vm);
      if (!shown) this.toast(notification.level, notification.title, notification.detail);
    });
    client.on('notification.removed', ({ id }) => {
      this.notifications = this.notifications.filter((notification) => notification.id !== id);
    });
    client.on('undo.changed', (tokens) => {
      this.undo = tokens;
    });
    client.on('settings.changed', (settings) => this.#setSettings(settings));
    client.on('app.openFile', ({ path }) => this.startWizard(path));
    client.on('app.command', ({ command }) => this.command(command));
    client.on('app.engineChanged', ({ files }) => this.toast('info', t.app.engineChanged, files.slice(0, 3).join(', ')));
  }

  async load(): Promise<void> {
    try {
      const [info, host, settings, list, tasks, notifications, undo, systems] = await Promise.all([
        client.request('app.info', {}),
        client.request('host.capabilities', {}),
        client.request('settings.get', {}),
        client.request('vm.list', {}),
        client.request('tasks.list', {}),
        client.request('notifications.list', {}),
        client.request('undo.list', {}),
        client.request('catalogue.list', {}),
      ]);
      this.info = info;
      this.host = host;
      this.#setSettings(settings);
      const ids = new Set(list.vms.map(({ id }) => id));
      for (const id of [...this.vms.keys()]) if (!ids.has(id)) this.vms.delete(id);
      for (const vm of list.vms) this.#setVm(vm);
      this.broken = list.broken;
      this.tasks.clear();
      for (const task of tasks) this.tasks.set(task.id, task);
      this.notifications = notifications;
      this.undo = undo;
      this.systems = systems;
      this.loadError = null;
      this.loaded = true;
    } catch (error) {
      this.loadError = envelopeOf(error);
    }
  }

  /** Tells of every sample until the returned function is called. */
  onStats(listener: (id: string, point: StatsPoint) => void): () => void {
    this.#statsListeners.add(listener);
    return () => this.#statsListeners.delete(listener);
  }

  systemName(os: string | null): string {
    return this.systems.find(({ id }) => id === os)?.name ?? os ?? t.vm.unknownSystem;
  }

  toast(level: Toast['level'], title: string, detail = '', action?: Toast['action']): number {
    const id = this.#nextToast++;
    this.toasts = [...this.toasts, { id, level, title, detail, action }].slice(-4);
    setTimeout(() => this.dropToast(id), action === undefined ? toastMs : actionToastMs);
    return id;
  }

  dropToast(id: number): void {
    this.toasts = this.toasts.filter((toast) => toast.id !== id);
  }

  /** Shows what a package or another manager's disk would become. */
  startImport(file: string | null = null): void {
    this.wizardFile = file;
    this.dialog = 'import';
  }

  startWizard(file: string | null = null): void {
    if (file !== null && /\.(ova|ovf|vmdk|vdi|vhdx?)$/i.test(file)) {
      this.startImport(file);
      return;
    }
    this.wizardFile = file;
    this.dialog = 'wizard';
  }

  command(command: string): void {
    if (command === 'new-vm') this.startWizard();
    else if (command === 'preferences') this.dialog = 'settings';
    else if (command === 'palette' || command === 'about' || command === 'storage') this.dialog = command;
  }

  async changeSettings(changes: SettingsChanges): Promise<void> {
    try {
      this.#setSettings(await client.request('settings.set', changes));
    } catch (error) {
      this.toast('error', t.settings.notSaved, envelopeOf(error).message);
    }
  }

  #setVm(vm: VmSummary): void {
    const before = this.vms.get(vm.id);
    this.vms.set(vm.id, vm);
    if (vm.state === 'shutoff' || vm.state === 'crashed') this.sparklines.delete(vm.id);
    else if (!this.sparklines.has(vm.id)) this.sparklines.set(vm.id, vm.sparkline);
    if (vm.state === 'running' && before?.state !== 'running') this.errors.delete(vm.id);
    if (vm.thumbnailVersion !== null && !this.thumbnails.has(vm.id))
      void client.request('vm.thumbnail', { id: vm.id }).then(
        (url) => {
          if (url !== null && !this.thumbnails.has(vm.id)) this.thumbnails.set(vm.id, url);
        },
        () => {},
      );
  }

  #setTask(task: Task): void {
    const before = this.tasks.get(task.id);
    this.tasks.set(task.id, task);
    if (task.state === 'failed' && before?.state !== 'failed')
      this.toast('error', t.tasks.failed(task.title), task.error?.message ?? '');
  }

  #setSettings(settings: Settings): void {
    this.settings = settings;
    if (settings.theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = settings.theme;
  }
}

export const app = new AppState();
