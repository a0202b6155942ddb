/** What can be done with a VM, once: toolbars, menus, the palette and shortcuts all take it from here. */
import { envelopeOf, type VmState, type VmSummary } from '../../../main/contract/index.ts';
import { t } from '../messages/index.ts';
import type { IconName } from '../ui/icons.ts';
import { app, client } from './app.svelte.ts';
import { ask } from './ask.svelte.ts';
import { router, type VmView, vmAddress } from './route.svelte.ts';

export interface VmAction {
  readonly id: string;
  readonly label: string;
  readonly icon: IconName;
  readonly danger?: boolean;
  /** Only one VM at a time. */
  readonly single?: boolean;
  readonly enabled: (vm: VmSummary) => boolean;
  readonly run: (vm: VmSummary) => Promise<void>;
}

const isOff = ({ state }: VmSummary): boolean => state === 'shutoff' || state === 'crashed';
const isOneOf =
  (...states: VmState[]) =>
  ({ state }: VmSummary): boolean =>
    states.includes(state);

/** Runs work on a VM; what goes wrong is shown beside the VM. */
export async function attempt(vm: VmSummary, work: () => Promise<unknown>): Promise<boolean> {
  app.errors.delete(vm.id);
  app.busy.set(vm.id, (app.busy.get(vm.id) ?? 0) + 1);
  try {
    await work();
    return true;
  } catch (error) {
    const envelope = envelopeOf(error);
    app.errors.set(vm.id, envelope);
    return false;
  } finally {
    const left = (app.busy.get(vm.id) ?? 1) - 1;
    if (left > 0) app.busy.set(vm.id, left);
    else app.busy.delete(vm.id);
  }
}

/** Opens a VM's window: one of its own where the shell has such, else this page shows it. */
export async function openVm(id: string, view?: VmView): Promise<void> {
  if (app.info?.nativeWindows === true) {
    try {
      await client.request('window.open', { id, view });
      return;
    } catch {
      // The page can always show it itself.
    }
  }
  router.go(vmAddress(id, view));
}

async function undoDelete(token: string): Promise<void> {
  try {
    const vm = await client.request('undo.apply', { token });
    app.toast('success', t.undo.restored(vm.name));
  } catch (error) {
    app.toast('error', t.undo.failed, envelopeOf(error).message);
  }
}

export const actions = {
  open: {
    id: 'open',
    label: t.actions.open,
    icon: 'window',
    enabled: () => true,
    run: (vm) => openVm(vm.id),
  },
  start: {
    id: 'start',
    label: t.actions.start,
    icon: 'play',
    enabled: isOff,
    run: async (vm) => void (await attempt(vm, () => client.request('vm.start', { id: vm.id }))),
  },
  pause: {
    id: 'pause',
    label: t.actions.pause,
    icon: 'pause',
    enabled: isOneOf('running', 'shutdown-in-progress'),
    run: async (vm) => void (await attempt(vm, () => client.request('vm.pause', { id: vm.id }))),
  },
  resume: {
    id: 'resume',
    label: t.actions.resume,
    icon: 'play',
    enabled: isOneOf('paused'),
    run: async (vm) => void (await attempt(vm, () => client.request('vm.resume', { id: vm.id }))),
  },
  powerButton: {
    id: 'powerButton',
    label: t.actions.powerButton,
    icon: 'power',
    enabled: isOneOf('running', 'shutdown-in-progress'),
    run: async (vm) => void (await attempt(vm, () => client.request('vm.powerButton', { id: vm.id }))),
  },
  reset: {
    id: 'reset',
    label: t.actions.reset,
    icon: 'reset',
    enabled: isOneOf('running', 'paused', 'shutdown-in-progress'),
    run: async (vm) => {
      const { reset } = app.settings.confirmations;
      if (reset && !(await ask({ title: t.confirm.resetTitle(vm.name), text: t.confirm.reset, action: t.actions.reset }))) return;
      await attempt(vm, () => client.request('vm.reset', { id: vm.id }));
    },
  },
  forceOff: {
    id: 'forceOff',
    label: t.actions.forceOff,
    icon: 'stop',
    danger: true,
    enabled: (vm) => !isOff(vm),
    run: async (vm) => {
      const { forceOff } = app.settings.confirmations;
      if (
        forceOff &&
        !(await ask({
          title: t.confirm.forceOffTitle(vm.name),
          text: t.confirm.forceOff,
          action: t.actions.forceOff,
          danger: true,
        }))
      )
        return;
      await attempt(vm, () => client.request('vm.forceOff', { id: vm.id }));
    },
  },
  save: {
    id: 'save',
    label: t.machine.save,
    icon: 'save',
    enabled: isOneOf('running', 'paused'),
    run: async (vm) => {
      await attempt(vm, () => client.request('vm.save', { id: vm.id }));
    },
  },
  discardSaved: {
    id: 'discardSaved',
    label: t.machine.discard,
    icon: 'trash',
    danger: true,
    enabled: (vm) => isOff(vm) && vm.saved,
    run: async (vm) => {
      const sure = await ask({
        title: t.machine.discardTitle(vm.name),
        text: t.machine.discardText,
        action: t.machine.discardNow,
        danger: true,
      });
      if (sure) await attempt(vm, () => client.request('vm.discardSaved', { id: vm.id }));
    },
  },
  rename: {
    id: 'rename',
    label: t.actions.rename,
    icon: 'edit',
    single: true,
    enabled: () => true,
    run: async (vm) => {
      await ask({
        title: t.confirm.renameTitle(vm.name),
        action: t.actions.renameNow,
        input: { label: t.fields.name, value: vm.name },
        work: async (name) => void (await client.request('vm.rename', { id: vm.id, name })),
      });
    },
  },
  clone: {
    id: 'clone',
    label: t.actions.clone,
    icon: 'copy',
    single: true,
    enabled: isOff,
    run: async (vm) => {
      const value = await client.request('wizard.suggestName', { os: null, hint: vm.name.slice(0, 76) }).catch(() => vm.name);
      await ask({
        title: t.confirm.cloneTitle(vm.name),
        text: t.confirm.clone,
        action: t.actions.cloneNow,
        input: { label: t.confirm.cloneName, value },
        work: async (name) => void (await client.request('vm.clone', { id: vm.id, name })),
      });
    },
  },
  delete: {
    id: 'delete',
    label: t.actions.delete,
    icon: 'trash',
    danger: true,
    enabled: isOff,
    run: async (vm) => {
      const { deleteVm } = app.settings.confirmations;
      if (
        deleteVm &&
        !(await ask({
          title: t.confirm.deleteTitle(vm.name),
          text: t.confirm.delete(app.settings.undoMinutes),
          action: t.actions.deleteNow,
          danger: true,
        }))
      )
        return;
      await attempt(vm, async () => {
        const { token } = await client.request('vm.delete', { id: vm.id });
        app.toast('info', t.undo.deleted(vm.name), '', { label: t.undo.undo, run: () => void undoDelete(token) });
      });
    },
  },
} as const satisfies Record<string, VmAction>;

export const applyUndo = undoDelete;
export { isOff };
