/** Operating systems: what they need, and how their media are told apart (assets/os-catalogue.json). */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { AppError, type Detection, type OsEntry, type Recommendation } from '../contract/index.ts';
import { freeMemoryMiB, totalMemoryMiB } from '../host/capabilities.ts';
import { kernelKind, openToRead } from '../vm/boot-files.ts';
import { descriptorBytes, descriptorOffset, parseVolumeDescriptor } from './iso9660.ts';

const resources = z.strictObject({ memoryMiB: z.int().min(1), cpus: z.int().min(1), diskGiB: z.number().min(0) });
const catalogueSchema = z.strictObject({
  format: z.literal('vivarium-os-catalogue'),
  version: z.literal(1),
  systems: z.array(
    z.strictObject({
      id: z.string(),
      name: z.string(),
      family: z.enum(['linux', 'windows', 'bsd', 'other']),
      endOfLife: z.iso.date().optional(),
      firmware: z.enum(['bios', 'uefi', 'either']),
      tpm: z.boolean(),
      minimum: resources,
      recommended: resources,
      volumeIds: z.array(z.string()),
    }),
  ),
});

/** A medium on a network that has gone must not hold the wizard up. */
const detectTimeout = 5000;

export class Catalogue {
  readonly #systems: readonly { readonly entry: OsEntry; readonly patterns: readonly RegExp[] }[];

  constructor(content: unknown) {
    this.#systems = catalogueSchema.parse(content).systems.map(({ volumeIds, ...entry }) => ({
      entry,
      patterns: volumeIds.map((pattern) => new RegExp(pattern)),
    }));
  }

  static async load(path: string | URL): Promise<Catalogue> {
    return new Catalogue(JSON.parse(await readFile(path, 'utf8')));
  }

  list(): OsEntry[] {
    return this.#systems.map(({ entry }) => entry);
  }

  get(id: string): OsEntry | undefined {
    return this.#systems.find(({ entry }) => entry.id === id)?.entry;
  }

  /** Ids of the systems whose media carry this volume id, in the catalogue's order: the newest first. */
  match(volumeId: string): string[] {
    return this.#systems
      .filter(({ patterns }) => patterns.some((pattern) => pattern.test(volumeId)))
      .map(({ entry }) => entry.id);
  }

  /** Looks at a file, for 5 s at most; rejects with `timeout`, `file-missing` or `file-unreadable`. */
  async detect(path: string, timeoutMs = detectTimeout): Promise<Detection> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () =>
          reject(
            new AppError('timeout', `${path} could not be read within ${timeoutMs / 1000} seconds. Choose the system yourself.`, {
              field: 'path',
            }),
          ),
        timeoutMs,
      );
    });
    const work = this.#detect(path);
    // Whichever is second has nobody waiting for it.
    work.catch(() => {});
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** What to give a VM with this system (null: an unknown one), beside what the host has. */
  recommend(id: string | null): Recommendation {
    const entry = (id === null ? undefined : this.get(id)) ?? this.get('generic');
    if (entry === undefined) throw new AppError('internal', 'The OS catalogue has no entry for systems it does not know');
    const warnings: string[] = [];
    const free = freeMemoryMiB();
    if (entry.endOfLife !== undefined && Date.parse(entry.endOfLife) < Date.now())
      warnings.push(`${entry.name} has had no security updates since ${entry.endOfLife}.`);
    if (entry.minimum.memoryMiB > free)
      warnings.push(`${entry.name} needs ${entry.minimum.memoryMiB} MiB; this computer has ${free} MiB free.`);
    if (entry.tpm) warnings.push(`${entry.name} asks for UEFI with Secure Boot and a TPM, which this version does not have yet.`);
    const most = Math.max(entry.minimum.memoryMiB, Math.floor(totalMemoryMiB() / 2));
    return {
      os: id,
      name: entry.name,
      minimum: entry.minimum,
      recommended: { ...entry.recommended, memoryMiB: Math.min(entry.recommended.memoryMiB, most) },
      hostFreeMiB: free,
      hostCpus: navigator.hardwareConcurrency,
      warnings,
    };
  }

  async #detect(path: string): Promise<Detection> {
    const file = await openToRead(path, 'The file', 'path');
    try {
      const { size } = await file.stat();
      const base: Detection = { os: null, alternatives: [], volumeId: '', publisher: '', kind: 'unknown', sizeBytes: size };
      const { buffer, bytesRead } = await file.read(Buffer.alloc(descriptorBytes), 0, descriptorBytes, descriptorOffset);
      const descriptor = parseVolumeDescriptor(buffer.subarray(0, bytesRead));
      if (descriptor !== undefined) {
        const [os = null, ...alternatives] = this.match(descriptor.volumeId);
        const notes = [
          ...(os === null
            ? [`The medium calls itself "${descriptor.volumeId}", which is not in the catalogue. Choose the system yourself.`]
            : []),
          ...(descriptor.volumeBytes > size
            ? [`The image is cut off: it has ${size} of ${descriptor.volumeBytes} bytes. Copy or download it again.`]
            : []),
        ];
        const { volumeId, publisher } = descriptor;
        return {
          ...base,
          kind: 'iso9660',
          os,
          alternatives,
          volumeId,
          publisher,
          ...(notes.length === 0 ? {} : { note: notes.join(' ') }),
        };
      }
      const magic = (await file.read(Buffer.alloc(4), 0, 4, 0)).buffer;
      if (magic.readUInt32BE(0) === 0x514649fb) return { ...base, kind: 'qcow2' };
      const kernel = await kernelKind(file);
      if (kernel === 'bzimage') return { ...base, kind: 'linux-kernel', os: 'linux-kernel' };
      if (kernel !== undefined) return { ...base, kind: 'elf' };
      return { ...base, note: 'This is no ISO 9660 image, no qcow2 image and no kernel.' };
    } finally {
      await file.close();
    }
  }
}
