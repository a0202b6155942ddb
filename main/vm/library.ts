/**
 * VMs on disk:
 *
 *     LIBRARY/lock                     who has it open (library-lock.ts)
 *     LIBRARY/vms/ID/vm.json           the definition (contract/definition.ts)
 *     LIBRARY/vms/ID/vm.json.corrupt-TIME   a definition that could not be read, and was set aside
 *     LIBRARY/vms/ID/vm.log            what its process said
 *     LIBRARY/vms/ID/history/          statistics (history.ts)
 *     LIBRARY/vms/ID/thumbnail.png     the last picture
 *     LIBRARY/trash/TOKEN/             deleted VMs, as they were, and `deleted.json`
 *
 * Definitions are written so that a crash leaves the old or the new one. Nothing that cannot be read is deleted.
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve } from 'node:path';
import { z } from 'zod';
import {
  AppError,
  type BrokenVm,
  definitionFormat,
  definitionVersion,
  type UndoToken,
  type VmDefinition,
  vmDefinitionSchema,
} from '../contract/index.ts';
import { errorCode, makeFolder, reasonOf, syncFolder, writeFileAtomic } from '../host/files.ts';
import { LibraryLock } from './library-lock.ts';

const trashSchema = z.strictObject({ title: z.string(), vm: z.string(), createdAt: z.number(), expires: z.number() });
const corruptMark = 'vm.json.corrupt-';

/** A definition's text, or the reason why it is none. */
export function parseDefinition(text: string): { definition: VmDefinition } | { reason: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { reason: text.trim() === '' ? 'the file is empty' : `it is not JSON: ${(error as Error).message}` };
  }
  if (typeof value !== 'object' || value === null || (value as { format?: unknown }).format !== definitionFormat)
    return { reason: 'it is not a VM definition' };
  const version = (value as { version?: unknown }).version;
  if (typeof version === 'number' && version > definitionVersion)
    return { reason: `it has version ${version}, made by a newer Vivarium; this one knows version ${definitionVersion}` };
  const parsed = vmDefinitionSchema.safeParse(value);
  if (parsed.success) return { definition: parsed.data };
  const { path, message } = parsed.error.issues[0];
  return { reason: `${path.length === 0 ? 'the definition' : path.join('.')}: ${message}` };
}

export class Library {
  readonly path: string;
  readonly #lock: LibraryLock;
  readonly #definitions = new Map<string, VmDefinition>();
  #broken: BrokenVm[] = [];
  #tokens: UndoToken[] = [];

  private constructor(path: string, lock: LibraryLock) {
    this.path = path;
    this.#lock = lock;
  }

  /** Opens a library, making it where there is none; rejects with `library-in-use` when another app has it. */
  static async open(path: string, socket: string | null = null): Promise<Library> {
    try {
      await makeFolder(join(path, 'vms'));
      await makeFolder(join(path, 'trash'));
    } catch (error) {
      throw new AppError('host', `The library ${path} cannot be made: ${reasonOf(error)}`, { cause: error });
    }
    const library = new Library(path, await LibraryLock.take(path, socket));
    try {
      await library.#load();
    } catch (error) {
      await library.close();
      throw error;
    }
    return library;
  }

  close(): Promise<void> {
    return this.#lock.release();
  }

  folder(id: string): string {
    return join(this.path, 'vms', id);
  }

  list(): VmDefinition[] {
    return [...this.#definitions.values()];
  }

  broken(): BrokenVm[] {
    return this.#broken;
  }

  /** No longer tells of a definition that was set aside; the file stays. */
  dismissBroken(file: string): void {
    this.#broken = this.#broken.filter((entry) => entry.file !== file);
  }

  get(id: string): VmDefinition {
    const definition = this.#definitions.get(id);
    if (definition === undefined) throw new AppError('not-found', 'There is no such VM any more');
    return definition;
  }

  /** The id of the VM with this name or id; rejects with `not-found`. */
  find(nameOrId: string): string {
    const lower = nameOrId.toLowerCase();
    const found =
      this.list().find(({ id, name }) => id === nameOrId || name === nameOrId) ??
      this.list().find(({ name }) => name.toLowerCase() === lower);
    if (found === undefined) throw new AppError('not-found', `There is no VM named "${nameOrId}"`);
    return found.id;
  }

  /** Names are unique, whatever their case. */
  nameTaken(name: string, except?: string): boolean {
    return this.list().some((other) => other.id !== except && other.name.toLowerCase() === name.trim().toLowerCase());
  }

  checkName(name: string, except?: string): void {
    if (this.nameTaken(name, except))
      throw new AppError('name-taken', `There is already a VM named "${name.trim()}". Choose another name.`, { field: 'name' });
  }

  /** `base`, or `base 2`, `base 3` ... whichever is free. */
  freeName(base: string): string {
    const stem = base.slice(0, 70).trim();
    for (let number = 1; ; number++) {
      const name = number === 1 ? stem : `${stem} ${number}`;
      if (!this.nameTaken(name)) return name;
    }
  }

  /** Adds a VM; one that fails leaves nothing behind. `fill` may put files into its folder first. */
  async create(definition: VmDefinition, fill: (folder: string) => Promise<void> = async () => {}): Promise<void> {
    this.checkName(definition.name);
    const folder = this.folder(definition.id);
    try {
      await mkdir(folder, { mode: 0o700 });
      await fill(folder);
      await this.#write(definition);
      await syncFolder(join(this.path, 'vms'));
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      if (error instanceof AppError) throw error;
      throw new AppError('host', `The VM could not be made: ${reasonOf(error)}`, { cause: error });
    }
    this.#definitions.set(definition.id, definition);
  }

  /** Replaces a definition; the whole is checked once more. */
  async update(definition: VmDefinition): Promise<void> {
    this.get(definition.id);
    this.checkName(definition.name, definition.id);
    const parsed = vmDefinitionSchema.safeParse(definition);
    if (!parsed.success) {
      const { path, message } = parsed.error.issues[0];
      throw new AppError('invalid', message, { field: path.join('.') });
    }
    try {
      await this.#write(parsed.data);
    } catch (error) {
      throw new AppError('host', `The VM could not be saved: ${reasonOf(error)}`, { cause: error });
    }
    this.#definitions.set(definition.id, parsed.data);
  }

  /** A copy with another id and name; files in its folder are copied with it, MAC addresses are made anew. */
  async clone(id: string, name: string, newMac: () => string): Promise<VmDefinition> {
    const original = this.get(id);
    const copy: VmDefinition = {
      ...original,
      id: randomUUID(),
      name,
      created: new Date().toISOString(),
      nics: original.nics.map((nic) => ({ ...nic, mac: newMac() })),
    };
    const from = this.folder(id);
    const own = (path: string): string | undefined => {
      const inside = relative(from, resolve(from, path));
      return path === '' || inside.startsWith('..') || isAbsolute(inside) ? undefined : inside;
    };
    const { boot } = original;
    const files = [
      ...original.drives.map(({ file }) => file),
      ...(boot.kind === 'kernel' ? [boot.kernel, boot.initrd ?? ''] : []),
    ];
    await this.create(
      { ...copy, drives: copy.drives.map((drive) => ({ ...drive, file: own(drive.file) ?? drive.file })) },
      async (folder) => {
        for (const file of new Set(files.map(own))) {
          if (file === undefined) continue;
          await mkdir(join(folder, file, '..'), { recursive: true });
          // Copy on write where the file system can, else a plain copy.
          await copyFile(join(from, file), join(folder, file), constants.COPYFILE_FICLONE);
        }
      },
    );
    return copy;
  }

  /** Moves a VM to the trash. */
  async remove(id: string, keepMs: number): Promise<UndoToken> {
    const { name } = this.get(id);
    const createdAt = Date.now();
    const token = `${createdAt}-${id}`;
    const info = { title: `Delete "${name}"`, vm: id, createdAt, expires: createdAt + keepMs };
    try {
      await writeFileAtomic(join(this.folder(id), 'deleted.json'), JSON.stringify(info));
      await rename(this.folder(id), join(this.path, 'trash', token));
    } catch (error) {
      await rm(join(this.folder(id), 'deleted.json'), { force: true });
      throw new AppError('host', `"${name}" could not be deleted: ${reasonOf(error)}`, { cause: error });
    }
    this.#definitions.delete(id);
    const undo = { token, ...info };
    this.#tokens = [...this.#tokens, undo];
    return undo;
  }

  /** Deletions that can be taken back. */
  undoTokens(): UndoToken[] {
    return this.#tokens;
  }

  /** Brings a VM back from the trash; where its name was taken meanwhile it gets another. */
  async restore(token: string): Promise<VmDefinition> {
    const undo = this.#token(token);
    const folder = join(this.path, 'trash', token);
    const text = await readFile(join(folder, 'vm.json'), 'utf8').catch(() => '');
    const parsed = parseDefinition(text);
    if ('reason' in parsed) throw new AppError('bad-file', `The deleted VM cannot be read: ${parsed.reason}`);
    try {
      await rename(folder, this.folder(undo.vm));
      await rm(join(this.folder(undo.vm), 'deleted.json'), { force: true });
    } catch (error) {
      throw new AppError('host', `The VM could not be brought back: ${reasonOf(error)}`, { cause: error });
    }
    this.#tokens = this.#tokens.filter((entry) => entry.token !== token);
    let { definition } = parsed;
    if (this.nameTaken(definition.name)) {
      definition = { ...definition, name: this.freeName(`${definition.name} (restored)`) };
      await this.#write(definition);
    }
    this.#definitions.set(definition.id, definition);
    return definition;
  }

  /** Deletes for good. */
  async purge(token: string): Promise<void> {
    this.#token(token);
    this.#tokens = this.#tokens.filter((entry) => entry.token !== token);
    await rm(join(this.path, 'trash', token), { recursive: true, force: true });
  }

  /** Deletes for good what expired before `now`; tells whether there was anything. */
  async purgeExpired(now = Date.now()): Promise<boolean> {
    const expired = this.#tokens.filter(({ expires }) => expires <= now);
    for (const { token } of expired) await this.purge(token);
    return expired.length > 0;
  }

  #token(token: string): UndoToken {
    const found = this.#tokens.find((entry) => entry.token === token);
    if (found === undefined) throw new AppError('undo-expired', 'This cannot be undone any more');
    return found;
  }

  async #write(definition: VmDefinition): Promise<void> {
    await writeFileAtomic(join(this.folder(definition.id), 'vm.json'), `${JSON.stringify(definition, null, 2)}\n`);
  }

  async #load(): Promise<void> {
    for (const name of (await readdir(join(this.path, 'vms'))).sort()) {
      const folder = join(this.path, 'vms', name);
      if (!(await stat(folder)).isDirectory()) continue;
      await this.#loadVm(folder);
    }
    for (const token of await readdir(join(this.path, 'trash'))) {
      const text = await readFile(join(this.path, 'trash', token, 'deleted.json'), 'utf8').catch(() => '');
      try {
        this.#tokens.push({ token, ...trashSchema.parse(JSON.parse(text)) });
      } catch {
        // Not something this app put there: leave it alone.
      }
    }
    this.#tokens.sort((a, b) => a.createdAt - b.createdAt);
  }

  async #loadVm(folder: string): Promise<void> {
    const file = join(folder, 'vm.json');
    let text: string;
    try {
      text = await readFile(file, 'utf8');
    } catch (error) {
      if (errorCode(error) !== 'ENOENT') {
        this.#broken.push({ folder, file, reason: `The definition cannot be read: ${reasonOf(error)}`, at: Date.now() });
        return;
      }
      // Set aside by an earlier start: it is told again until someone dismisses it or puts a good file in its place.
      const aside = (await readdir(folder)).filter((name) => name.startsWith(corruptMark)).sort();
      const last = aside.at(-1);
      if (last === undefined) return;
      const parsed = parseDefinition(await readFile(join(folder, last), 'utf8').catch(() => ''));
      const reason = 'reason' in parsed ? parsed.reason : 'it was set aside';
      this.#broken.push({ folder, file: join(folder, last), reason, at: Number(last.slice(corruptMark.length)) || Date.now() });
      return;
    }
    const parsed = parseDefinition(text);
    const { definition } = parsed as { definition?: VmDefinition };
    const reason =
      'reason' in parsed
        ? parsed.reason
        : parsed.definition.id !== basename(folder)
          ? `its id is not the name of its folder, ${basename(folder)}`
          : this.nameTaken(parsed.definition.name)
            ? `its name, "${parsed.definition.name}", is that of another VM`
            : undefined;
    if (reason === undefined && definition !== undefined) {
      this.#definitions.set(definition.id, definition);
      return;
    }
    const at = Date.now();
    const aside = join(folder, `${corruptMark}${at}`);
    await rename(file, aside);
    this.#broken.push({ folder, file: aside, reason: reason ?? 'unknown', at });
  }
}
