/**
 * Snapshots of VMs: internal snapshots of their qcow2 images, with the machine's state where it ran. Images know neither
 * which snapshot came from which nor how the screen looked; that stands in `snapshots.json` of the VM's folder, with a
 * picture each beside it. What is in the images and not there shows as a root; what is there and not in the images is
 * forgotten.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import {
  AppError,
  type CheckedArgs,
  type SnapshotNode,
  type SnapshotTree,
  type Task,
  type VmDefinition,
} from '../contract/index.ts';
import type { EventBus } from '../event-bus.ts';
import { reasonOf, writeFileAtomic } from '../host/files.ts';
import type { TaskReport, TaskService } from '../tasks/tasks.ts';
import type { Library } from '../vm/library.ts';
import type { VmService } from '../vm/vm-service.ts';
import type { ImageTool } from './image-tool.ts';

const recordSchema = z.object({
  parent: z.string().nullable(),
  description: z.string(),
  created: z.number(),
});
const fileSchema = z.object({ current: z.string().nullable(), snapshots: z.record(z.string(), recordSchema) });
type Records = z.output<typeof fileSchema>;

export interface SnapshotParts {
  readonly library: Library;
  readonly vms: VmService;
  readonly tool: ImageTool;
  readonly tasks: TaskService;
  readonly bus: EventBus;
}

interface Image {
  readonly drive: string;
  readonly path: string;
  readonly format: string;
}

interface Found {
  readonly created: number;
  readonly stateBytes: number;
  readonly guestSeconds: number;
  exclusiveBytes: number | null;
  readonly images: string[];
}

export class Snapshots {
  readonly #parts: SnapshotParts;

  constructor(parts: SnapshotParts) {
    this.#parts = parts;
  }

  async tree(id: string): Promise<SnapshotTree> {
    const { library, vms, tool } = this.#parts;
    const definition = library.get(id);
    const off = vms.isOff(id);
    const images = this.#images(definition);
    const qcow2 = images.filter(({ format }) => format === 'qcow2');
    const found = new Map<string, Found>();
    const chains: SnapshotTree['chains'][number][] = [];
    let problem = problemOf(images);
    for (const { drive, path, format } of images) {
      try {
        const chain = await tool.chain(path);
        chains.push({
          drive,
          files: chain.map(({ filename }) => filename),
          actualSize: chain.reduce((sum, each) => sum + (each['actual-size'] ?? 0), 0),
        });
        if (format !== 'qcow2') continue;
        for (const each of await tool.snapshots(path)) {
          const there = found.get(each.name);
          const exclusive = off ? each['exclusive-size'] : null;
          if (there === undefined)
            found.set(each.name, {
              created: each['date-sec'] * 1000,
              stateBytes: each['vm-state-size'],
              guestSeconds: each['vm-clock-nsec'] / 1e9,
              exclusiveBytes: exclusive,
              images: [drive],
            });
          else {
            there.images.push(drive);
            if (exclusive !== null) there.exclusiveBytes = (there.exclusiveBytes ?? 0) + exclusive;
          }
        }
      } catch (error) {
        problem ??= (error as Error).message;
      }
    }
    const records = await this.#read(id);
    const snapshots = await Promise.all(
      [...found].map(async ([name, each]): Promise<SnapshotNode> => {
        const record = records.snapshots[name];
        const parent = record?.parent ?? null;
        return {
          name,
          parent: parent !== null && found.has(parent) ? parent : null,
          description: record?.description ?? '',
          created: record?.created ?? each.created,
          withState: each.stateBytes > 0,
          stateBytes: each.stateBytes,
          exclusiveBytes: each.exclusiveBytes,
          guestSeconds: Math.round(each.guestSeconds),
          picture: await this.#picture(id, name),
          images: each.images,
          complete: qcow2.every(({ drive }) => each.images.includes(drive)),
        };
      }),
    );
    const current = records.current !== null && found.has(records.current) ? records.current : null;
    return { snapshots: snapshots.sort((a, b) => a.created - b.created), current, problem, chains };
  }

  create({ id, name, description = '' }: CheckedArgs<'snapshot.create'>): Promise<Task> {
    return this.#task(id, `Snapshot "${name}"`, true, async (report) => {
      const { vms, tool } = this.#parts;
      const images = this.#writable(id);
      const before = await this.tree(id);
      if (before.snapshots.some((each) => each.name === name))
        throw new AppError('name-taken', `There is already a snapshot named "${name}"`, { field: 'name' });
      if (vms.isOff(id)) {
        this.#notSaved(id);
        const done: string[] = [];
        try {
          for (const { path } of images) {
            await tool.run(['snapshot', '-c', name, path], report);
            done.push(path);
          }
        } catch (error) {
          for (const path of done) await tool.run(['snapshot', '-d', name, path]).catch(() => {});
          throw error;
        }
      } else {
        const picture = await vms.screenshotBytes(id).catch(() => undefined);
        await vms.running(id).snapshot('save', name, report);
        if (picture !== undefined) await this.#keepPicture(id, name, picture);
      }
      const records = await this.#read(id);
      records.snapshots[name] = { parent: before.current, description, created: Date.now() };
      await this.#write(id, { ...records, current: name });
    });
  }

  revert({ id, name }: CheckedArgs<'snapshot.revert'>): Promise<Task> {
    return this.#task(id, `Go back to "${name}"`, false, async (report) => {
      const { vms, tool, library } = this.#parts;
      const tree = await this.tree(id);
      const snapshot = tree.snapshots.find((each) => each.name === name);
      if (snapshot === undefined) throw new AppError('not-found', `There is no snapshot named "${name}" any more`);
      if (!snapshot.complete)
        throw new AppError(
          'wrong-state',
          `"${name}" is not in all disks of the VM: a disk was added since. Take that disk away first.`,
        );
      this.#notSaved(id);
      if (vms.isOff(id)) {
        if (snapshot.withState) await vms.startInTurn(id, { snapshot: name });
        else for (const { path } of this.#writable(id)) await tool.run(['snapshot', '-a', name, path], report);
      } else if (snapshot.withState) await vms.running(id).snapshot('load', name, report);
      else
        throw new AppError(
          'wrong-state',
          `"${name}" was made while "${library.get(id).name}" was off: shut the VM down to go back to it`,
        );
      await this.#write(id, { ...(await this.#read(id)), current: name });
    });
  }

  delete({ id, name }: CheckedArgs<'snapshot.delete'>): Promise<Task> {
    return this.#task(id, `Delete snapshot "${name}"`, false, async (report) => {
      const { vms, tool } = this.#parts;
      const tree = await this.tree(id);
      const snapshot = tree.snapshots.find((each) => each.name === name);
      if (snapshot === undefined) throw new AppError('not-found', `There is no snapshot named "${name}" any more`);
      if (vms.isOff(id)) {
        for (const { drive, path } of this.#images(this.#parts.library.get(id)))
          if (snapshot.images.includes(drive)) await tool.run(['snapshot', '-d', name, path], report);
      } else await vms.running(id).snapshot('delete', name, report);
      const records = await this.#read(id);
      const parent = records.snapshots[name]?.parent ?? null;
      delete records.snapshots[name];
      for (const each of Object.values(records.snapshots)) if (each.parent === name) each.parent = parent;
      await this.#write(id, { ...records, current: records.current === name ? parent : records.current });
      await rm(this.#pictureFile(id, name), { force: true });
    });
  }

  // --- helpers ------------------------------------------------------------------------------------------------------

  /** The images that a VM writes to. */
  #images(definition: VmDefinition): Image[] {
    const folder = this.#parts.library.folder(definition.id);
    return definition.drives
      .filter(({ media, readOnly, file }) => media === 'disk' && !readOnly && file !== '')
      .map(({ id: drive, file, format }) => {
        const path = isAbsolute(file) ? file : join(folder, file);
        return { drive, path, format: format === 'auto' ? (/\.qcow2$/i.test(file) ? 'qcow2' : 'raw') : format };
      });
  }

  #writable(id: string): Image[] {
    const images = this.#images(this.#parts.library.get(id));
    const problem = problemOf(images);
    if (problem !== null) throw new AppError('unsupported', problem);
    return images;
  }

  #notSaved(id: string): void {
    if (this.#parts.vms.summary(id).saved)
      throw new AppError('wrong-state', 'The VM was saved: start it, or discard what was saved, first');
  }

  #file(id: string): string {
    return join(this.#parts.library.folder(id), 'snapshots.json');
  }

  #pictureFile(id: string, name: string): string {
    const key = createHash('sha256').update(name).digest('hex').slice(0, 24);
    return join(this.#parts.library.folder(id), 'snapshots', `${key}.png`);
  }

  async #picture(id: string, name: string): Promise<string | null> {
    const data = await readFile(this.#pictureFile(id, name)).catch(() => undefined);
    return data === undefined ? null : `data:image/png;base64,${data.toString('base64')}`;
  }

  async #keepPicture(id: string, name: string, png: Buffer): Promise<void> {
    const file = this.#pictureFile(id, name);
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, png);
  }

  async #read(id: string): Promise<Records> {
    try {
      return fileSchema.parse(JSON.parse(await readFile(this.#file(id), 'utf8')));
    } catch {
      // Without it only the lines of the tree are lost: the snapshots are in the images.
      return { current: null, snapshots: {} };
    }
  }

  async #write(id: string, records: Records): Promise<void> {
    await writeFileAtomic(this.#file(id), `${JSON.stringify(records, null, 2)}\n`).catch((error: unknown) => {
      throw new AppError('host', `The list of snapshots could not be saved: ${reasonOf(error)}`);
    });
  }

  async #task(id: string, title: string, cancellable: boolean, work: (report: TaskReport) => Promise<void>): Promise<Task> {
    const { tasks, bus, vms } = this.#parts;
    const name = this.#parts.library.get(id).name;
    const { task, done } = tasks.run(`${title} of "${name}"`, { vm: id, cancellable }, (report) =>
      vms.alone(id, () => work(report)),
    );
    void done
      .catch(() => {})
      .finally(() => {
        bus.emit('snapshot.changed', { id });
        bus.emit('storage.changed', {});
      });
    return task;
  }
}

function problemOf(images: readonly Image[]): string | null {
  if (images.length === 0) return 'Snapshots are kept in the disks of a VM, and this one has none that it writes to.';
  const other = images.find(({ format }) => format !== 'qcow2');
  return other === undefined
    ? null
    : `The disk "${other.drive}" is of format ${other.format}; snapshots need qcow2 disks. Convert it first.`;
}
