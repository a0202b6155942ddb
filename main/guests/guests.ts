/** The sample guest as a service, and the first VM of an empty library. */
import { randomUUID } from 'node:crypto';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { definitionOf } from '../catalogue/wizard.ts';
import { AppError, type SampleGuest, type Task, type VmDefinition } from '../contract/index.ts';
import type { TaskService } from '../tasks/tasks.ts';
import type { Library } from '../vm/library.ts';
import { fetchGuest, findGuest, type GuestFiles, whyNotFetchable } from './debian.ts';

/** The kernel's messages go to both; what is typed on the screen is `/dev/console`. */
export const sampleAppend = 'console=ttyS0 console=tty0 quiet';
export const firstVmName = 'Debian kernel + BusyBox';

export class GuestService {
  readonly #cache: string;
  readonly #tasks: TaskService;

  constructor(cache: string, tasks: TaskService) {
    this.#cache = cache;
    this.#tasks = tasks;
  }

  async sample(): Promise<SampleGuest> {
    const guest = await findGuest(this.#cache);
    if (guest !== undefined)
      return { state: 'ready', kernel: guest.kernel, initrd: guest.initrd, version: guest.release, hint: null };
    const reason = await whyNotFetchable();
    return {
      state: reason === undefined ? 'absent' : 'unavailable',
      kernel: null,
      initrd: null,
      version: null,
      hint: reason ?? 'It can be fetched from Debian: some 70 MB, once.',
    };
  }

  fetch(): Task {
    return this.#tasks.run('Fetch the sample guest', {}, ({ signal, progress }) => fetchGuest(this.#cache, progress, { signal }))
      .task;
  }
}

/** Makes the first VM of a library that has none, from copies of the guest's files; null where there was no need. */
export async function createFirstVm(library: Library, guest: GuestFiles): Promise<VmDefinition | null> {
  if (library.list().length > 0 || library.broken().length > 0 || library.undoTokens().length > 0) return null;
  const plan = {
    source: { kind: 'kernel', kernel: 'vmlinuz', initrd: 'initrd.img', append: sampleAppend },
    os: 'linux-kernel',
    memoryMiB: 512,
    cpus: 2,
    storage: { kind: 'none' },
    name: firstVmName,
    description: `Debian's kernel ${guest.release} with a BusyBox initial RAM disk: a Linux that runs from memory.`,
    network: 'none',
  } as const;
  const definition = { ...definitionOf(plan), id: randomUUID() };
  try {
    await library.create(definition, async (folder) => {
      await copyFile(guest.kernel, join(folder, 'vmlinuz'));
      await copyFile(guest.initrd, join(folder, 'initrd.img'));
    });
  } catch (error) {
    throw new AppError('host', `The first VM could not be made: ${(error as Error).message}`, { cause: error });
  }
  return definition;
}
