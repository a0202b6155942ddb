/** Volumes: the images of the pools, who uses them, and what can be done with them while no machine runs on them. */
import { constants } from 'node:fs';
import { copyFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, extname, isAbsolute, join, resolve } from 'node:path';
import { AppError, type CheckedArgs, type Task, type Volume, type VolumeUser } from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';
import { reasonOf } from '../host/files.ts';
import type { TaskService } from '../tasks/tasks.ts';
import type { Library } from '../vm/library.ts';
import type { VmService } from '../vm/vm-service.ts';
import type { ImageInfo, ImageTool } from './image-tool.ts';
import type { Pools } from './pools.ts';

const imageExtensions = ['.qcow2', '.img', '.raw', '.vmdk', '.vdi', '.vhdx', '.vhd', '.vpc'];
const mediaExtensions = ['.iso'];
const listLimit = 2000;

export interface VolumeParts {
  readonly pools: Pools;
  readonly library: Library;
  readonly vms: VmService;
  readonly tool: ImageTool;
  readonly tasks: TaskService;
  readonly bus: EventBus;
}

/** What was found out about a file, valid while it has not changed. */
interface Known {
  readonly stamp: string;
  readonly info: ImageInfo | string;
}

export class Volumes {
  readonly #parts: VolumeParts;
  readonly #known = new Map<string, Known>();

  constructor(parts: VolumeParts) {
    this.#parts = parts;
  }

  /** All images and media of a pool, by name. */
  async list(pool: string): Promise<Volume[]> {
    const { pools, library } = this.#parts;
    if (!pools.isMachines(pool)) return await this.#inFolders([pools.path(pool)]);
    return await this.#inFolders(library.list().map(({ id }) => library.folder(id)));
  }

  async inspect(path: string): Promise<Volume> {
    const volumes = await this.#inFolders([dirname(path)]);
    return volumes.find((each) => each.path === path) ?? (await this.#describe(path, await this.#users(), []));
  }

  async create({ pool, name, format, size }: CheckedArgs<'storage.create'>): Promise<Volume> {
    const extension = format === 'qcow2' ? '.qcow2' : '.img';
    const path = join(this.#parts.pools.path(pool), name.endsWith(extension) ? name : `${name}${extension}`);
    await this.createImage(path, format, size);
    this.#changed();
    return await this.inspect(path);
  }

  /** Makes an image; never over a file that is there. */
  async createImage(path: string, format: string, size: number): Promise<void> {
    await this.#free(path);
    await this.#parts.tool.run(['create', '-q', '-f', format, path, String(size)]).catch(async (error: unknown) => {
      await rm(path, { force: true });
      throw error;
    });
  }

  async grow({ path, size }: CheckedArgs<'storage.grow'>): Promise<Volume> {
    const volume = await this.inspect(path);
    this.#mustRest(volume, 'grown');
    if (volume.format === 'iso') throw new AppError('invalid', 'A CD image cannot grow');
    if (size <= volume.virtualSize)
      throw new AppError('invalid', 'The new size must be larger than the present one; a smaller disk would lose data', {
        field: 'size',
      });
    if (volume.dependents.length > 0)
      throw new AppError(
        'wrong-state',
        `${names(volume.dependents)} lie${volume.dependents.length === 1 ? 's' : ''} on this disk and would not grow with it`,
      );
    await this.#parts.tool.run(['resize', '-f', volume.format, path, String(size)]);
    this.#changed();
    return await this.inspect(path);
  }

  async compact(path: string): Promise<Task> {
    const volume = await this.inspect(path);
    this.#mustRest(volume, 'compacted');
    if (volume.snapshots > 0)
      throw new AppError('wrong-state', 'Its snapshots would be lost. Delete them first, or leave it as it is.');
    if (volume.dependents.length > 0)
      throw new AppError(
        'wrong-state',
        `${names(volume.dependents)} lie${volume.dependents.length === 1 ? 's' : ''} on this disk: it must stay as it is`,
      );
    if (!['qcow2', 'raw'].includes(volume.format))
      throw new AppError('invalid', `Images of format ${volume.format} are read only here`);
    const temporary = `${path}.compact`;
    return this.#task(`Compact ${volume.name}`, async (report) => {
      const backing =
        volume.backing === null ? [] : ['-B', volume.backing, '-F', (await this.#parts.tool.info(volume.backing)).format];
      try {
        await this.#parts.tool.run(
          ['convert', '-p', '-f', volume.format, '-O', volume.format, ...backing, path, temporary],
          report,
        );
        await rename(temporary, path);
      } finally {
        await rm(temporary, { force: true });
      }
    });
  }

  async clone({ path, name }: CheckedArgs<'storage.clone'>): Promise<Task> {
    const volume = await this.inspect(path);
    if (volume.usedBy.some(({ running }) => running))
      throw new AppError('wrong-state', 'A running VM writes to it: shut it down first');
    const plain = volume.format === 'iso' || (volume.backing === null && volume.format !== 'raw');
    const extension = extname(path);
    const target = join(dirname(path), name.endsWith(extension) ? name : `${name}${extension}`);
    await this.#free(target);
    return this.#task(`Clone ${volume.name}`, async (report) => {
      const temporary = `${target}.partial`;
      try {
        // Copied as it is, with its snapshots, at once where the file system shares blocks; else all of its chain in one.
        if (plain) await copyFile(path, temporary, constants.COPYFILE_FICLONE);
        else await this.#parts.tool.run(['convert', '-p', '-f', volume.format, '-O', volume.format, path, temporary], report);
        report.signal.throwIfAborted();
        await rename(temporary, target);
      } finally {
        await rm(temporary, { force: true });
      }
    });
  }

  async delete({ path, force = false }: CheckedArgs<'storage.delete'>): Promise<void> {
    const volume = await this.inspect(path);
    const running = volume.usedBy.filter((each) => each.running || each.saved);
    if (running.length > 0)
      throw new AppError(
        'wrong-state',
        `${running.map((each) => `"${each.name}"`).join(', ')} ${running.some((each) => each.running) ? 'runs' : 'was saved'} with it`,
      );
    if (volume.dependents.length > 0)
      throw new AppError(
        'wrong-state',
        `${names(volume.dependents)} lie${volume.dependents.length === 1 ? 's' : ''} on it and would be lost. Delete what depends on it first.`,
      );
    if (volume.usedBy.length > 0 && !force)
      throw new AppError(
        'wrong-state',
        `${volume.usedBy.map((each) => `"${each.name}"`).join(', ')} could not be started any more`,
      );
    await rm(path).catch((error: unknown) => {
      throw new AppError('host', `${volume.name} could not be deleted: ${reasonOf(error)}`);
    });
    this.#changed();
  }

  // --- finding out --------------------------------------------------------------------------------------------------

  async #inFolders(folders: readonly string[]): Promise<Volume[]> {
    const entries = (await Promise.all(folders.map((folder) => this.#files(folder)))).flat();
    const users = await this.#users();
    const backings = await this.#backings();
    const volumes = await Promise.all(
      entries.map((path) =>
        this.#describe(
          path,
          users,
          backings.filter(({ backing }) => backing === path).map((each) => each.path),
        ),
      ),
    );
    return volumes.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  }

  async #files(folder: string): Promise<string[]> {
    try {
      return (await readdir(folder, { withFileTypes: true }))
        .filter(
          (each) => !each.isDirectory() && [...imageExtensions, ...mediaExtensions].includes(extname(each.name).toLowerCase()),
        )
        .map((each) => join(folder, each.name))
        .slice(0, listLimit);
    } catch (error) {
      throw new AppError('file-unreadable', `${folder}: ${reasonOf(error)}`);
    }
  }

  async #describe(
    path: string,
    users: ReadonlyMap<string, readonly VolumeUser[]>,
    dependents: readonly string[],
  ): Promise<Volume> {
    const base = {
      path,
      name: basename(path),
      usedBy: users.get(path) ?? [],
      dependents,
      backing: null,
      snapshots: 0,
      format: '',
      virtualSize: 0,
      actualSize: 0,
      modified: 0,
    };
    try {
      const found = await stat(path);
      const on = { ...base, modified: found.mtimeMs, actualSize: found.blocks * 512 };
      if (mediaExtensions.includes(extname(path).toLowerCase()))
        return { ...on, format: 'iso', virtualSize: found.size, problem: null };
      const info = await this.#info(path);
      if (typeof info === 'string') return { ...on, problem: info };
      const backing = info['full-backing-filename'] ?? info['backing-filename'];
      return {
        ...on,
        format: info.format,
        virtualSize: info['virtual-size'],
        backing: backing === undefined ? null : resolve(dirname(path), backing),
        snapshots: info.snapshots?.length ?? 0,
        problem: null,
      };
    } catch (error) {
      return { ...base, problem: reasonOf(error) };
    }
  }

  /** What the tool says of a file, remembered until the file changes. A string: why it cannot be read. */
  async #info(path: string): Promise<ImageInfo | string> {
    const { mtimeMs, size, ino } = await stat(path);
    const stamp = `${mtimeMs}:${size}:${ino}`;
    const known = this.#known.get(path);
    if (known?.stamp === stamp) return known.info;
    const info = await this.#parts.tool.info(path).catch((error: Error) => error.message);
    this.#known.set(path, { stamp, info });
    if (this.#known.size > 4 * listLimit) this.#known.delete(this.#known.keys().next().value as string);
    return info;
  }

  /** Files of VMs' drives, with those they lie on, and who has them. */
  async #users(): Promise<Map<string, VolumeUser[]>> {
    const { library, vms } = this.#parts;
    const users = new Map<string, VolumeUser[]>();
    for (const definition of library.list()) {
      const { state, saved } = vms.summary(definition.id);
      const user = { vm: definition.id, name: definition.name, running: state !== 'shutoff' && state !== 'crashed', saved };
      for (const { file } of definition.drives) {
        if (file === '') continue;
        let path: string | null = isAbsolute(file) ? file : join(library.folder(definition.id), file);
        for (let depth = 0; path !== null && depth < 64; depth++) {
          const there: VolumeUser[] = users.get(path) ?? [];
          if (!there.some(({ vm }) => vm === user.vm)) users.set(path, [...there, user]);
          path = await this.#backingOf(path);
        }
      }
    }
    return users;
  }

  async #backingOf(path: string): Promise<string | null> {
    if (mediaExtensions.includes(extname(path).toLowerCase())) return null;
    const info = await this.#info(path).catch(() => '');
    if (typeof info === 'string') return null;
    const backing = info['full-backing-filename'] ?? info['backing-filename'];
    return backing === undefined ? null : resolve(dirname(path), backing);
  }

  /** Which images lie on which: of all pools, and of the VMs' own folders. */
  async #backings(): Promise<{ path: string; backing: string }[]> {
    const { pools, library } = this.#parts;
    const folders = new Set([...pools.folders, ...library.list().map(({ id }) => library.folder(id))]);
    const found: { path: string; backing: string }[] = [];
    for (const folder of folders) {
      const names = await readdir(folder).catch(() => [] as string[]);
      for (const name of names.filter((each) => imageExtensions.includes(extname(each).toLowerCase())).slice(0, listLimit)) {
        const path = join(folder, name);
        const backing = await this.#backingOf(path);
        if (backing !== null) found.push({ path, backing });
      }
    }
    return found;
  }

  // --- helpers ------------------------------------------------------------------------------------------------------

  #mustRest({ usedBy }: Volume, what: string): void {
    const running = usedBy.find((each) => each.running || each.saved);
    if (running !== undefined)
      throw new AppError(
        'wrong-state',
        `"${running.name}" ${running.running ? 'runs' : 'was saved'} with it: it can be ${what} ${running.running ? 'when the VM is off' : 'when the VM was started and shut down'}`,
      );
  }

  async #free(path: string): Promise<void> {
    const there = await stat(path).catch(() => undefined);
    if (there !== undefined)
      throw new AppError('name-taken', `There is already a file named "${basename(path)}"`, { field: 'name' });
  }

  #changed(): void {
    this.#parts.bus.emit('storage.changed', {});
  }

  #task(title: string, work: Parameters<TaskService['run']>[2]): Task {
    const { task, done } = this.#parts.tasks.run(title, {}, work);
    void done.catch(() => {}).finally(() => this.#changed());
    return task;
  }
}

const names = (paths: readonly string[]): string => paths.map((path) => `"${basename(path)}"`).join(', ');
