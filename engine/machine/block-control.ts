/** `BlockControl` put together from its two halves: drives and snapshots. */
import { BlockError } from '../block/errors.ts';
import type { BlockControl } from '../monitor/block-control.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import type { MachineBlock } from './block.ts';
import type { MachineHotplug } from './hotplug-control.ts';
import type { MachineSnapshots } from './snapshots.ts';
import { StateError } from './vm-state.ts';

/** What an image or a state refuses is for whoever asked, in its own words. */
async function told<T>(body: () => T | Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (error instanceof BlockError || error instanceof StateError) throw new MonitorError(error.message);
    throw error;
  }
}

export function blockControl(block: MachineBlock, snapshots: MachineSnapshots, hotplug: MachineHotplug): BlockControl {
  return {
    drives: () => told(() => block.drives()),
    resize: (drive, size) => told(() => block.resize(drive, size)),
    setLimits: (drive, limits) => told(() => block.setLimits(drive, limits)),
    overlay: (drive, options) => told(() => block.overlay(drive, options)),
    addNode: (node) => told(() => block.addNode(node)),
    removeNode: (name) => told(() => block.removeNode(name)),
    addDevice: (args) => told(() => hotplug.add(args)),
    removeDevice: (id) => told(() => hotplug.remove(id)),
    addedNodes: () => told(() => block.addedNodes()),
    takeNode: (name) => block.takeNode(name),
    jobs: () => block.jobs(),
    startJob: (drive, job) => told(() => block.startJob(drive, job)),
    jobAction: (id, action) => told(() => block.jobAction(id, action)),
    changeMedium: (drive, medium) => told(() => block.changeMedium(drive, medium)),
    insertMedium: (drive, node) => told(() => block.insertMedium(drive, node)),
    removeMedium: (drive) => told(() => block.removeMedium(drive)),
    eject: (drive, force) => told(() => block.eject(drive, force)),
    openTray: (drive, force) => told(() => block.openTray(drive, force)),
    closeTray: (drive) => told(() => block.closeTray(drive)),
    saveSnapshot: (tag, options = {}) => told(() => snapshots.save(tag, options)),
    loadSnapshot: (tag, options = {}) => told(() => snapshots.load(tag, options)),
    deleteSnapshot: (tag, options = {}) => told(() => snapshots.delete(tag, options)),
    startSnapshotJob: (kind, id, tag, options) => told(() => snapshots.startJob(kind, id, tag, options)),
    saveState: (path) => told(() => snapshots.saveFile(path)),
    cancelSave: () => snapshots.cancelSave(),
    loadState: (path) => told(() => snapshots.loadFile(path)),
    migration: () => snapshots.migration,
    startNbd: (where) => told(() => block.startNbd(where)),
    addExport: (drive, item) => told(() => block.addExport(drive, item)),
    removeExport: (id) => told(() => block.removeExport(id)),
    exports: () => block.exports(),
    stopNbd: () => told(() => block.stopNbd()),
  };
}
