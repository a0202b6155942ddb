/** VMs made from OVA and OVF packages and from single disks of other managers: a preview first, then a task. */
import { randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import {
  AppError,
  type CheckedArgs,
  definitionFormat,
  definitionVersion,
  type ImportPreview,
  type Task,
  type VmDefinition,
} from '../contract/index.ts';
import { reasonOf } from '../host/files.ts';
import type { TaskReport, TaskService } from '../tasks/tasks.ts';
import type { Library } from '../vm/library.ts';
import { missing, support } from '../vm/support.ts';
import { newMac, type VmService } from '../vm/vm-service.ts';
import type { ImageTool } from './image-tool.ts';
import { type OvfMachine, parseOvf, readTar, type TarEntry } from './ovf.ts';

const descriptorLimit = 4 << 20;

export interface ImporterParts {
  readonly library: Library;
  readonly vms: VmService;
  readonly tool: ImageTool;
  readonly tasks: TaskService;
}

interface Package {
  readonly machine: OvfMachine;
  /** Where a file of the package is: a file of its own, or a piece of the archive. */
  readonly find: (name: string) => { readonly path: string; readonly entry?: TarEntry } | undefined;
  readonly kind: 'ova' | 'ovf';
}

export class Importer {
  readonly #parts: ImporterParts;

  constructor(parts: ImporterParts) {
    this.#parts = parts;
  }

  async preview(path: string): Promise<ImportPreview> {
    const kind = kindOf(path);
    if (kind === 'disk') return await this.#previewDisk(path);
    const { machine, find } = await readPackage(path, kind);
    const notes = [...machine.notes];
    const disks: ImportPreview['disks'][number][] = [];
    for (const disk of machine.disks) {
      const where = find(disk.file);
      if (where === undefined) throw new AppError('bad-file', `The package names the disk "${disk.file}" and does not have it`);
      const fileSize = where.entry?.size ?? (await stat(where.path)).size;
      disks.push({
        file: disk.file,
        format: extname(disk.file).slice(1) || 'vmdk',
        virtualSize: disk.bytes,
        fileSize,
        bus: busOf(disk.bus),
      });
      if (busOf(disk.bus) !== disk.bus)
        notes.push(`The disk "${disk.file}" was on ${disk.bus} and will be on ${busOf(disk.bus)}.`);
    }
    if (disks.length === 0) notes.push('The package has no disk.');
    if (machine.nics > 0 && !support.network) notes.push(`Its network cards are left out: ${missing.network.toLowerCase()}.`);
    if (machine.firmware === 'uefi') notes.push('It was made for UEFI.');
    return {
      path,
      kind,
      name: this.#parts.library.freeName(
        machine.name
          .replace(/[/\p{Cc}]/gu, ' ')
          .slice(0, 70)
          .trim() || 'Imported VM',
      ),
      description: machine.description.slice(0, 4000),
      os: null,
      osText: machine.osText,
      memoryMiB: machine.memoryMiB,
      cpus: machine.cpus,
      firmware: machine.firmware,
      disks,
      nics: machine.nics,
      notes,
    };
  }

  async #previewDisk(path: string): Promise<ImportPreview> {
    const info = await this.#parts.tool.info(path);
    const { size } = await stat(path);
    const name = basename(path, extname(path));
    return {
      path,
      kind: 'disk',
      name: this.#parts.library.freeName(name.slice(0, 70) || 'Imported VM'),
      description: '',
      os: null,
      osText: '',
      memoryMiB: null,
      cpus: null,
      firmware: 'bios',
      disks: [{ file: basename(path), format: info.format, virtualSize: info['virtual-size'], fileSize: size, bus: 'virtio' }],
      nics: 0,
      notes: [
        `It is copied into the VM’s folder as qcow2; the ${info.format} file stays as it is.`,
        ...(info['backing-filename'] === undefined
          ? []
          : [`It lies on "${basename(info['backing-filename'])}"; both become one image.`]),
        ...(info.snapshots === undefined ? [] : ['Its snapshots are not taken along.']),
      ],
    };
  }

  async run({ path, name, memoryMiB, cpus }: CheckedArgs<'import.run'>): Promise<Task> {
    const { library, vms, tasks } = this.#parts;
    library.checkName(name);
    if (!support.disk) throw new AppError('unsupported', missing.disk);
    const preview = await this.preview(path);
    const { task } = tasks.run(`Import "${name}"`, {}, async (report) => {
      const id = randomUUID();
      const definition = definitionOf(id, { ...preview, memoryMiB, cpus }, name);
      await library.create(definition, (folder) => this.#fill(folder, preview, report));
      vms.adopt(id);
    });
    return task;
  }

  /** Converts the disks into the VM's folder; what fails leaves nothing behind (the folder goes). */
  async #fill(folder: string, preview: ImportPreview, report: TaskReport): Promise<void> {
    const { tool } = this.#parts;
    const found = preview.kind === 'disk' ? undefined : await readPackage(preview.path, preview.kind);
    const temporary = join(folder, '.import');
    await mkdir(temporary, { mode: 0o700 });
    try {
      for (const [n, disk] of preview.disks.entries()) {
        const part = (value: number | null, detail: string): void =>
          report.progress(value === null ? null : (n + value) / preview.disks.length, detail);
        let source = preview.path;
        const where = found?.find(disk.file);
        if (where !== undefined)
          source = await unpack(where, join(temporary, `disk${n}${extname(disk.file)}`), report, (value) =>
            part(value * 0.4, `Unpacking ${disk.file}`),
          );
        const sub: TaskReport = {
          signal: report.signal,
          progress: (value) =>
            part(value === null ? null : where === undefined ? value : 0.4 + value * 0.6, `Converting ${disk.file}`),
        };
        await tool.run(['convert', '-p', '-O', 'qcow2', source, join(folder, `disk${n}.qcow2`)], sub);
        if (where?.entry !== undefined) await rm(source, { force: true });
      }
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  }
}

function kindOf(path: string): ImportPreview['kind'] {
  const extension = extname(path).toLowerCase();
  return extension === '.ova' ? 'ova' : extension === '.ovf' ? 'ovf' : 'disk';
}

/** A bus that this version has. */
const busOf = (bus: string): 'virtio' | 'ide' | 'sata' | 'scsi' =>
  ['virtio', 'ide'].includes(bus) ? (bus as 'virtio' | 'ide') : 'virtio';

async function readPackage(path: string, kind: 'ova' | 'ovf'): Promise<Package> {
  if (kind === 'ovf') {
    const { size } = await stat(path).catch((error: unknown) => {
      throw new AppError('file-missing', `${path}: ${reasonOf(error)}`, { field: 'path' });
    });
    if (size > descriptorLimit) throw new AppError('bad-file', 'The OVF descriptor is too large');
    const machine = parseOvf(await readFile(path, 'utf8'));
    const folder = dirname(path);
    return {
      kind,
      machine,
      // Only what lies beside the descriptor: a name must not lead out of its folder.
      find: (name) => {
        const file = resolve(folder, name);
        return dirname(file) === folder ? { path: file } : undefined;
      },
    };
  }
  const entries = await readTar(path);
  const descriptor = entries.find(({ name }) => name.toLowerCase().endsWith('.ovf'));
  if (descriptor === undefined) throw new AppError('bad-file', 'The archive has no OVF descriptor');
  if (descriptor.size > descriptorLimit) throw new AppError('bad-file', 'The OVF descriptor is too large');
  const file = await open(path, 'r');
  try {
    const text = Buffer.alloc(descriptor.size);
    await file.read(text, 0, text.length, descriptor.offset);
    const machine = parseOvf(text.toString('utf8'));
    return {
      kind,
      machine,
      find: (name) => {
        const entry = entries.find((each) => each.name === name || each.name === `./${name}`);
        return entry === undefined ? undefined : { path, entry };
      },
    };
  } finally {
    await file.close();
  }
}

/** A file of a package as a file of its own. */
async function unpack(
  { path, entry }: { readonly path: string; readonly entry?: TarEntry },
  target: string,
  report: TaskReport,
  progress: (value: number) => void,
): Promise<string> {
  if (entry === undefined) return path;
  let done = 0;
  const source = createReadStream(path, { start: entry.offset, end: entry.offset + entry.size - 1, highWaterMark: 1 << 20 });
  source.on('data', (chunk) => {
    done += chunk.length;
    progress(done / entry.size);
  });
  await pipeline(source, createWriteStream(target, { mode: 0o600 }), { signal: report.signal });
  return target;
}

function definitionOf(id: string, preview: ImportPreview, name: string): VmDefinition {
  return {
    format: definitionFormat,
    version: definitionVersion,
    id,
    name,
    description: preview.description,
    tags: [],
    os: preview.os,
    created: new Date().toISOString(),
    memoryMiB: preview.memoryMiB ?? 1024,
    cpus: { count: preview.cpus ?? 1, model: 'x86-64-v2' },
    machine: 'pc',
    accelerator: 'auto',
    boot: { kind: 'firmware', firmware: preview.firmware, order: ['disk', 'cdrom'], menu: false },
    drives: preview.disks.map((disk, n) => ({
      id: `disk${n}`,
      media: 'disk',
      file: `disk${n}.qcow2`,
      format: 'qcow2',
      bus: busOf(disk.bus),
      readOnly: false,
      cache: 'writeback',
      discard: 'unmap',
    })),
    nics:
      support.network && preview.nics > 0 ? [{ id: 'net0', model: 'virtio', mac: newMac(), network: 'user', forwards: [] }] : [],
    display: { adapter: 'std', memoryMiB: 16 },
    serialPorts: 1,
    rng: true,
    tablet: false,
    balloon: false,
    rtc: 'utc',
    onReboot: 'restart',
    autostart: false,
  };
}
