/** The machine's drives, jobs, media and exports as monitors see them. Runs on the control thread. */
import { Drive, type DriveOptions } from '../block/drive.ts';
import type { NbdExport } from '../block/nbd.ts';
import { nodeBlockHost } from '../host/block-file.ts';
import { serveNbd } from '../host/block-nbd.ts';
import { driveOptions, nodeNameOf } from '../host/machine-drive.ts';
import type {
  AddedNode,
  BlockDrive,
  BlockExport,
  BlockImage,
  BlockJob,
  BlockJobRequest,
  BlockLimits,
  JobAction,
} from '../monitor/block-control.ts';
import { MonitorError } from '../monitor/machine-control.ts';
import { driveErrors, IO_NO_SPACE, IO_OK } from './drive-errors.ts';
import { DriveLinks } from './drive-link.ts';
import type { DrivePart } from './drive-list.ts';
import type { FromDrive } from './drive-thread.ts';
import { type Emit, Jobs } from './jobs.ts';
import type { Machine } from './machine.ts';
import { RemoteDisk, remoteBuffer } from './remote-disk.ts';

type NbdServer = Awaited<ReturnType<typeof serveNbd>>;

interface Export extends BlockExport {
  close(): void;
}

export class MachineBlock {
  readonly links: DriveLinks;
  readonly jobTable: Jobs;
  readonly #machine: Machine;
  readonly #emit: Emit;
  readonly #added = new Map<string, { readonly node: AddedNode; readonly drive: Drive }>();
  /** What was put into a drive last, by its index: what `driveOptions` of its configuration said at the start. */
  readonly #media = new Map<number, DriveOptions>();
  readonly #exports = new Map<string, Export>();
  readonly #served = new Map<string, NbdExport>();
  #nbd: NbdServer | undefined;
  #remotes = 0;

  constructor(machine: Machine, emit: Emit) {
    this.#machine = machine;
    this.#emit = emit;
    this.jobTable = new Jobs(emit);
    this.links = new DriveLinks((message) => this.#told(message));
  }

  // --- what comes from I/O threads ------------------------------------------------------------------------------------

  #told(message: Extract<FromDrive, { type: 'job' | 'error' }>): void {
    if (message.type === 'job') {
      this.jobTable.report(message.job);
      return;
    }
    const part = this.parts.find(({ index }) => index === message.drive);
    if (part === undefined) return;
    const { operation, action, noSpace, reason } = message;
    this.#emit('BLOCK_IO_ERROR', {
      'qom-path': part.device,
      device: part.config.id,
      'node-name': nodeNameOf(part.config),
      operation,
      action,
      nospace: noSpace,
      reason,
    });
  }

  /** The machine goes on: what failed is tried again. */
  goesOn(): void {
    for (const part of this.#machine.drives.drives) driveErrors(this.#machine.shared, part).ioStatus = IO_OK;
  }

  // --- finding --------------------------------------------------------------------------------------------------------

  get parts(): readonly DrivePart[] {
    return this.#machine.drives.drives;
  }

  /** A drive by its id, its device or its node name. */
  find(name: string): DrivePart {
    const found =
      this.parts.find(({ config }) => config.id === name) ??
      this.parts.find(({ device }) => device === name || `/machine/peripheral/${device}` === name) ??
      this.parts.find((part) => this.#nodeName(part) === name);
    if (found === undefined) throw new MonitorError(`Cannot find device='${name}' nor node-name='${name}'`, 'DeviceNotFound');
    return found;
  }

  #nodeName(part: DrivePart): string {
    return this.#nodeNames.get(part.index) ?? nodeNameOf(part.config);
  }
  /** Node names of topmost images, where a snapshot or a job changed them. */
  readonly #nodeNames = new Map<number, string>();

  async drives(): Promise<BlockDrive[]> {
    const { shared } = this.#machine;
    return await Promise.all(
      this.parts.map(async (part): Promise<BlockDrive> => {
        const { options, chain, limits } = await this.links.ask(part.index, 'describe', {});
        if (chain.length > 0) this.#nodeNames.set(part.index, chain[0].nodeName);
        const { config, device, slot, state } = part;
        const errors = driveErrors(shared, part);
        return {
          id: config.id,
          device,
          removable: slot !== undefined,
          trayOpen: slot?.trayOpen ?? false,
          locked: slot?.locked ?? false,
          readOnly: options?.readOnly ?? config.readOnly,
          cache: config.cache,
          ioStatus: errors.ioStatus === IO_OK ? 'ok' : errors.ioStatus === IO_NO_SPACE ? 'nospace' : 'failed',
          limits,
          stats: {
            readBytes: state.readBytes,
            writtenBytes: state.writtenBytes,
            readOperations: state.readOperations,
            writeOperations: state.writeOperations,
            flushOperations: state.flushOperations,
            readNs: Math.round(state.readNs),
            writeNs: Math.round(state.writeNs),
            flushNs: Math.round(state.flushNs),
            failedReads: errors.failedReads,
            failedWrites: errors.failedWrites,
          },
          chain,
        };
      }),
    );
  }

  async resize(name: string, size: number): Promise<void> {
    await this.links.ask(this.find(name).index, 'resize', { size });
  }
  async setLimits(name: string, values: BlockLimits): Promise<void> {
    await this.links.ask(this.find(name).index, 'limits', { values });
  }
  async overlay(
    name: string,
    { file, format, mode, nodeName }: { file: string; format: string; mode: 'absolute-paths' | 'existing'; nodeName?: string },
  ): Promise<void> {
    const part = this.find(name);
    await this.links.ask(part.index, 'overlay', { file, format, mode, nodeName });
    if (nodeName !== undefined) this.#nodeNames.set(part.index, nodeName);
    else await this.drives();
  }

  // --- nodes without a drive ------------------------------------------------------------------------------------------

  addNode(node: AddedNode): void {
    const { nodeName } = node;
    if (this.#added.has(nodeName) || this.parts.some((part) => this.#nodeName(part) === nodeName))
      throw new MonitorError(`Duplicate nodes with node-name='${nodeName}'`);
    this.#added.set(nodeName, { node, drive: new Drive(nodeBlockHost, optionsOf(node), { job: () => {}, sleep: () => {} }) });
  }
  #addedNode(name: string): { readonly node: AddedNode; readonly drive: Drive } {
    const added = this.#added.get(name);
    if (added === undefined) throw new MonitorError(`Failed to find node with node-name='${name}'`);
    if ([...this.#exports.values()].some(({ nodeName }) => nodeName === name))
      throw new MonitorError(`Node '${name}' is in use: it is exported`);
    return added;
  }
  hasNode(name: string): boolean {
    return this.#added.has(name);
  }
  /** A drive goes: nothing of it is kept here. */
  forget(part: DrivePart): void {
    for (const { id, nodeName } of [...this.#exports.values()])
      if (nodeName === part.config.id || nodeName === this.#nodeName(part)) this.removeExport(id);
    this.#nodeNames.delete(part.index);
    this.#media.delete(part.index);
  }
  removeNode(name: string): void {
    if (this.parts.some((part) => this.#nodeName(part) === name)) throw new MonitorError(`Node ${name} is in use`);
    const { drive } = this.#addedNode(name);
    drive.close(() => {});
    this.#added.delete(name);
  }
  addedNodes(): BlockImage[] {
    return [...this.#added.values()].flatMap(({ drive }) => drive.describe().chain);
  }
  takeNode(name: string): AddedNode {
    const { node, drive } = this.#addedNode(name);
    drive.close(() => {});
    this.#added.delete(name);
    return node;
  }

  // --- jobs -----------------------------------------------------------------------------------------------------------

  jobs(): readonly BlockJob[] {
    return this.jobTable.list();
  }

  async startJob(name: string, request: BlockJobRequest): Promise<void> {
    const part = this.find(name);
    const { id = part.config.id, speed, autoDismiss, kind } = request;
    const job = this.jobTable.add({ id, type: kind, drive: part.config.id, autoDismiss, speed });
    try {
      await this.links.ask(part.index, 'jobStart', { plan: { ...request, id } });
    } catch (error) {
      this.jobTable.drop(id);
      throw error;
    }
    this.jobTable.begin(job);
  }

  async jobAction(id: string, action: JobAction): Promise<void> {
    if (action.do === 'dismiss') {
      this.jobTable.dismiss(id);
      return;
    }
    const job = this.jobTable.get(id);
    if (job.drive === undefined) {
      if (action.do !== 'cancel') throw new MonitorError(`Job '${id}' cannot accept command verb '${action.do}'`);
      if (job.cancel === undefined) throw new MonitorError(`Job '${id}' cannot be cancelled`);
      job.cancel();
      return;
    }
    if (job.status === 'concluded')
      throw new MonitorError(`Job '${id}' in state 'concluded' cannot accept command verb '${action.do}'`);
    await this.links.ask(this.find(job.drive).index, 'jobAction', { job: id, action });
  }

  // --- media ----------------------------------------------------------------------------------------------------------

  #slot(name: string): { readonly part: DrivePart; readonly slot: NonNullable<DrivePart['slot']> } {
    const part = this.find(name);
    if (part.slot === undefined) throw new MonitorError(`Device '${name}' is not removable`);
    return { part, slot: part.slot };
  }

  #locked<T>(body: () => T): T {
    return this.#machine.shared.lock.hold(body);
  }

  #tray(part: DrivePart, open: boolean): void {
    this.#emit('DEVICE_TRAY_MOVED', { device: part.config.id, id: part.device, 'tray-open': open });
  }

  /** Opens the tray, or throws where the guest prevents it. */
  #open({ part, slot }: { part: DrivePart; slot: NonNullable<DrivePart['slot']> }, force: boolean): void {
    const was = slot.trayOpen;
    if (!this.#locked(() => slot.eject(force)))
      throw new MonitorError(
        `Device '${part.device}' is locked and force was not specified, wait for tray to open and try again`,
      );
    if (!was) this.#tray(part, true);
  }

  async changeMedium(
    name: string,
    medium: {
      readonly file: string;
      readonly format: string | undefined;
      readonly readOnly: 'retain' | 'read-only' | 'read-write';
      readonly force: boolean;
    },
  ): Promise<void> {
    const { part } = this.#slot(name);
    const options = this.#media.get(part.index) ?? driveOptions(part.config);
    await this.#insert(
      name,
      {
        ...options,
        file: nodeBlockHost.absolutePath(medium.file),
        format: medium.format,
        readOnly:
          part.config.media === 'cdrom' || (medium.readOnly === 'retain' ? options.readOnly : medium.readOnly === 'read-only'),
      },
      medium.force,
    );
  }

  async #insert(name: string, options: DriveOptions, force: boolean): Promise<void> {
    const found = this.#slot(name);
    const { part, slot } = found;
    this.#open(found, force);
    const size = async (): Promise<number> => (await this.links.ask(part.index, 'describe', {})).chain[0]?.virtualSize ?? 0;
    try {
      await this.links.ask(part.index, 'medium', { options });
    } catch (error) {
      // What was in there is in there still.
      const bytes = await size();
      if (bytes > 0) {
        this.#locked(() => slot.insert(bytes));
        this.#tray(part, false);
      }
      throw error;
    }
    this.#media.set(part.index, options);
    this.#nodeNames.set(part.index, options.nodeName);
    const bytes = await size();
    this.#locked(() => {
      slot.remove();
      slot.insert(bytes);
    });
    this.#tray(part, false);
  }

  async insertMedium(name: string, node: string): Promise<void> {
    const { part, slot } = this.#slot(name);
    if (!slot.trayOpen && slot.loaded) throw new MonitorError(`Tray of device '${name}' is not open`);
    if ((await this.links.ask(part.index, 'describe', {})).chain.length > 0)
      throw new MonitorError(`There already is a medium in device '${name}'`);
    await this.#insert(name, optionsOf(this.takeNode(node)), false);
  }

  async removeMedium(name: string): Promise<void> {
    const { part, slot } = this.#slot(name);
    if (!slot.trayOpen) throw new MonitorError(`Tray of device '${name}' is not open`);
    await this.links.ask(part.index, 'medium', { options: undefined });
    this.#locked(() => slot.remove());
  }

  async eject(name: string, force: boolean): Promise<void> {
    this.#open(this.#slot(name), force);
    await this.removeMedium(name);
  }

  openTray(name: string, force: boolean): void {
    const { part, slot } = this.#slot(name);
    const was = slot.trayOpen;
    // A guest that prevents it is asked, and that is all there is to do.
    if (this.#locked(() => slot.eject(force)) && !was) this.#tray(part, true);
  }

  async closeTray(name: string): Promise<void> {
    const { part, slot } = this.#slot(name);
    if (!slot.trayOpen) return;
    const bytes = (await this.links.ask(part.index, 'describe', {})).chain[0]?.virtualSize ?? 0;
    this.#locked(() => slot.insert(bytes));
    this.#tray(part, false);
  }

  // --- NBD ------------------------------------------------------------------------------------------------------------

  async startNbd(where: { readonly path: string } | { readonly host: string; readonly port: number }): Promise<void> {
    if (this.#nbd !== undefined) throw new MonitorError('NBD server already running');
    this.#nbd = await serveNbd(this.#served, where);
  }

  async addExport(
    name: string,
    item: { readonly id?: string; readonly name?: string; readonly writable: boolean },
  ): Promise<void> {
    if (this.#nbd === undefined) throw new MonitorError('NBD server not running');
    const { name: exportName = name, id = exportName, writable } = item;
    if (this.#exports.has(id)) throw new MonitorError(`Block export id '${id}' is already in use`);
    if (this.#served.has(exportName)) throw new MonitorError(`NBD server already has export named '${exportName}'`);
    const added = this.#added.get(name);
    let served: NbdExport;
    let close = (): void => {};
    if (added !== undefined) {
      if (writable && added.drive.disk.readOnly) throw new MonitorError(`Node '${name}' is read-only`);
      served = { node: added.drive.image, writable };
    } else {
      const part = this.find(name);
      const { options } = await this.links.ask(part.index, 'describe', {});
      if (options === undefined) throw new MonitorError(`Device '${name}' has no medium`);
      if (writable && options.readOnly) throw new MonitorError(`Cannot export writable: device '${name}' is read-only`);
      const remote = this.#remotes++;
      const buffer = remoteBuffer();
      await this.links.ask(part.index, 'remote', { remote, buffer });
      served = { node: new RemoteDisk(name, buffer, options.readOnly, () => part.io.ring()), writable };
      close = () => void this.links.ask(part.index, 'remote', { remote, buffer: undefined }).catch(() => {});
    }
    this.#served.set(exportName, served);
    this.#exports.set(id, { id, nodeName: name, name: exportName, writable, close });
  }

  removeExport(id: string): void {
    const found = this.#exports.get(id) ?? [...this.#exports.values()].find(({ name }) => name === id);
    if (found === undefined) throw new MonitorError(`Export '${id}' is not found`);
    this.#served.delete(found.name);
    this.#exports.delete(found.id);
    found.close();
    this.#emit('BLOCK_EXPORT_DELETED', { id: found.id });
  }

  exports(): BlockExport[] {
    return [...this.#exports.values()].map(({ close: _, ...item }) => item);
  }

  async stopNbd(): Promise<void> {
    if (this.#nbd === undefined) throw new MonitorError('NBD server not running');
    const server = this.#nbd;
    this.#nbd = undefined;
    for (const { id } of this.exports()) this.removeExport(id);
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  /** The machine ends. */
  async close(): Promise<void> {
    if (this.#nbd !== undefined) await this.stopNbd();
    for (const { drive } of this.#added.values()) drive.close(() => {});
    this.#added.clear();
  }
}

const optionsOf = ({ nodeName, file, format, readOnly, cache, unmap, backing }: AddedNode): DriveOptions => ({
  file: nodeBlockHost.absolutePath(file),
  format,
  readOnly,
  cache,
  unmap,
  nodeName,
  backing,
});
