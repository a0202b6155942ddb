/**
 * Pools: the folders whose images the app shows. The library's own folder `storage` is always there; others are added by
 * the person and kept in `pools.json` of the configuration.
 */
import { createHash } from 'node:crypto';
import { readFile, stat, statfs } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { AppError, type Pool } from '../contract/index.ts';
import { makeFolder, reasonOf, writeFileAtomic } from '../host/files.ts';

const fileSchema = z.strictObject({ folders: z.array(z.string().min(1).max(4096)).max(200) });

const idOf = (path: string): string => createHash('sha256').update(path).digest('hex').slice(0, 16);

export class Pools {
  readonly #file: string;
  readonly #own: string;
  /** Holds a folder for each VM. */
  readonly #machines: string;
  #folders: string[];

  private constructor(file: string, own: string, machines: string, folders: string[]) {
    this.#file = file;
    this.#own = own;
    this.#machines = machines;
    this.#folders = folders;
  }

  static async open(configFolder: string, libraryPath: string): Promise<Pools> {
    const own = await makeFolder(join(libraryPath, 'storage'));
    const file = join(configFolder, 'pools.json');
    let folders: string[] = [];
    try {
      folders = fileSchema.parse(JSON.parse(await readFile(file, 'utf8'))).folders;
    } catch {
      // Missing or damaged: the person adds the folders again; no image is touched by it.
    }
    return new Pools(file, own, join(libraryPath, 'vms'), folders);
  }

  async list(): Promise<Pool[]> {
    return await Promise.all([this.#own, this.#machines, ...this.#folders].map((path) => this.#describe(path)));
  }

  /** Whether a pool is that of the VMs' own folders. */
  isMachines(id: string): boolean {
    return id === idOf(this.#machines);
  }

  path(id: string): string {
    const found = [this.#own, ...this.#folders].find((path) => idOf(path) === id);
    if (found === undefined) throw new AppError('not-found', 'There is no such pool any more');
    return found;
  }

  /** Folders of all pools. */
  get folders(): readonly string[] {
    return [this.#own, ...this.#folders];
  }

  async add(given: string): Promise<Pool> {
    const path = resolve(given);
    if (this.folders.includes(path)) throw new AppError('invalid', 'This folder is a pool already', { field: 'path' });
    const found = await stat(path).catch((error: unknown) => {
      throw new AppError('file-missing', `${path}: ${reasonOf(error)}`, { field: 'path' });
    });
    if (!found.isDirectory()) throw new AppError('invalid', `${path} is not a folder`, { field: 'path' });
    await this.#write([...this.#folders, path]);
    return await this.#describe(path);
  }

  async remove(id: string): Promise<void> {
    const path = this.path(id);
    if (path === this.#own) throw new AppError('invalid', "The library's own pool stays");
    await this.#write(this.#folders.filter((each) => each !== path));
  }

  async #write(folders: string[]): Promise<void> {
    try {
      await writeFileAtomic(this.#file, `${JSON.stringify({ folders }, null, 2)}\n`);
    } catch (error) {
      throw new AppError('host', `The list of pools could not be saved: ${reasonOf(error)}`, { cause: error });
    }
    this.#folders = folders;
  }

  async #describe(path: string): Promise<Pool> {
    const own = path === this.#own || path === this.#machines;
    const base = {
      id: idOf(path),
      name: path === this.#own ? 'Library' : path === this.#machines ? 'Disks of machines' : basename(path),
      path,
      fixed: own,
      creatable: path !== this.#machines,
    };
    try {
      const { bavail, blocks, bsize } = await statfs(path);
      return { ...base, freeBytes: bavail * bsize, totalBytes: blocks * bsize, problem: null };
    } catch (error) {
      return { ...base, freeBytes: null, totalBytes: null, problem: reasonOf(error) };
    }
  }
}
