/** The creation wizard's services: names, checks, and making the VM. */
import { randomUUID } from 'node:crypto';
import { isAbsolute, join } from 'node:path';
import {
  AppError,
  definitionFormat,
  definitionVersion,
  envelopeOf,
  type FieldError,
  type OsEntry,
  planSchema,
  type VmDefinition,
  type VmDrive,
  type VmSummary,
  type WizardDraft,
  type WizardPlan,
} from '../contract/index.ts';
import type { ImageTool } from '../storage/image-tool.ts';
import { checkInitrd, checkKernel, openToRead } from '../vm/boot-files.ts';
import type { Library } from '../vm/library.ts';
import { missing, support } from '../vm/support.ts';
import type { VmService } from '../vm/vm-service.ts';
import type { Catalogue } from './catalogue.ts';
import { installSources } from './sources.ts';

export interface WizardParts {
  readonly library: Library;
  readonly vms: VmService;
  readonly catalogue: Catalogue;
  readonly tool: ImageTool;
}

export class Wizard {
  readonly #library: Library;
  readonly #vms: VmService;
  readonly #catalogue: Catalogue;
  readonly #tool: ImageTool;

  constructor({ library, vms, catalogue, tool }: WizardParts) {
    this.#library = library;
    this.#vms = vms;
    this.#catalogue = catalogue;
    this.#tool = tool;
  }

  suggestName(os: string | null, hint?: string): string {
    return this.#library.freeName(hint?.trim() || (os === null ? undefined : this.#catalogue.get(os)?.name) || 'New VM');
  }

  /** All that is wrong with what was filled in so far. */
  async check(draft: WizardDraft): Promise<FieldError[]> {
    const errors: FieldError[] = [];
    const add = (field: string, message: string, severity: FieldError['severity'] = 'error'): void =>
      void errors.push({ field, message, severity });
    for (const [key, value] of Object.entries(draft)) {
      if (value === undefined) continue;
      const parsed = planSchema.shape[key as keyof WizardPlan].safeParse(value);
      if (!parsed.success) for (const { path, message } of parsed.error.issues) add([key, ...path].join('.'), message);
    }
    const good = <K extends keyof WizardPlan>(key: K): WizardPlan[K] | undefined =>
      draft[key] === undefined || errors.some(({ field }) => field === key || field.startsWith(`${key}.`))
        ? undefined
        : (draft[key] as WizardPlan[K]);
    const attempt = async (action: () => unknown, field?: string): Promise<void> => {
      try {
        await action();
      } catch (error) {
        const envelope = envelopeOf(error);
        add(field ?? envelope.field ?? '', envelope.message);
      }
    };
    const source = good('source');
    if (source !== undefined) {
      const { available, reason = '' } = installSources.find(({ kind }) => kind === source.kind) ?? { available: false };
      if (!available) add('source.kind', reason);
      else if (source.kind === 'kernel') {
        await attempt(() => checkPath(source.kernel, 'source.kernel'));
        if (!errors.some(({ field }) => field === 'source.kernel'))
          await attempt(() => checkKernel(source.kernel, 'source.kernel'));
        const { initrd } = source;
        if (initrd !== undefined && initrd !== '') {
          await attempt(() => checkPath(initrd, 'source.initrd'));
          if (!errors.some(({ field }) => field === 'source.initrd'))
            await attempt(() => checkInitrd(initrd, 'source.initrd', AbortSignal.timeout(2000)));
        }
      } else if (source.kind === 'iso' || source.kind === 'import')
        await attempt(async () => {
          await (await openToRead(source.path, 'The file', 'source.path')).close();
          if (source.kind === 'import') await this.#checkDisk(source.path, 'source.path');
        });
    }
    const storage = good('storage');
    if (storage !== undefined && storage.kind !== 'none' && !support.disk) add('storage.kind', `${missing.disk}.`);
    else if (storage?.kind === 'existing') await attempt(() => this.#checkDisk(storage.path, 'storage.path'));
    const network = good('network');
    if (network !== undefined && network !== 'none' && !support.network) add('network', `${missing.network}.`);
    const name = good('name');
    if (name !== undefined) await attempt(() => this.#library.checkName(name));
    const os = good('os');
    if (typeof os === 'string' && this.#catalogue.get(os) === undefined) add('os', 'This system is not in the catalogue');
    const memoryMiB = good('memoryMiB');
    const entry = typeof os === 'string' ? this.#catalogue.get(os) : undefined;
    if (memoryMiB !== undefined) {
      await attempt(() => this.#vms.checkMemory(memoryMiB));
      if (entry !== undefined && memoryMiB < entry.minimum.memoryMiB)
        add('memoryMiB', `${entry.name} asks for at least ${entry.minimum.memoryMiB} MiB`, 'warning');
    }
    const cpus = good('cpus');
    if (cpus !== undefined && cpus > navigator.hardwareConcurrency)
      add('cpus', `This computer has ${navigator.hardwareConcurrency} CPUs; more in the VM make it slower`, 'warning');
    return errors;
  }

  /** Makes the VM; what is wrong with the plan is told with its field, and nothing is left behind. */
  async create(plan: WizardPlan): Promise<VmSummary> {
    const error = (await this.check(plan)).find(({ severity }) => severity === 'error');
    if (error !== undefined) {
      const taken = error.field === 'name' && this.#library.nameTaken(plan.name);
      throw new AppError(taken ? 'name-taken' : 'invalid', error.message, { field: error.field });
    }
    const { storage, source } = plan;
    const existing = source.kind === 'import' ? source.path : storage.kind === 'existing' ? storage.path : undefined;
    const format = existing === undefined ? 'qcow2' : await this.#formatOf(existing);
    const definition = definitionOf(plan, {
      entry: plan.os === null ? undefined : this.#catalogue.get(plan.os),
      existing,
      format,
    });
    await this.#library.create(definition, async (folder) => {
      if (storage.kind !== 'create' || source.kind === 'import') return;
      const bytes = Math.ceil((storage.sizeGiB * 2 ** 30) / 2 ** 20) * 2 ** 20;
      await this.#tool.run(['create', '-q', '-f', 'qcow2', join(folder, 'disk0.qcow2'), String(bytes)]);
    });
    return this.#vms.adopt(definition.id);
  }

  /** A disk that can be written to where it is. */
  async #checkDisk(path: string, field: string): Promise<void> {
    checkPath(path, field);
    const info = await this.#tool.info(path).catch((error: unknown) => {
      const { code, message } = envelopeOf(error);
      throw new AppError(code, message, { field });
    });
    if (info.format !== 'qcow2' && info.format !== 'raw')
      throw new AppError(
        'bad-file',
        `Images of format ${info.format} can only be read. Import it, which makes a qcow2 copy: choose "Existing disk image" as the source.`,
        { field },
      );
    const user = this.#vms.userOf(path);
    if (user !== undefined)
      throw new AppError('wrong-state', `"${user}" runs with this disk: two machines must not write to it`, { field });
  }

  async #formatOf(path: string): Promise<'raw' | 'qcow2'> {
    return (await this.#tool.info(path)).format === 'qcow2' ? 'qcow2' : 'raw';
  }
}

function checkPath(path: string, field: string): void {
  if (!isAbsolute(path)) throw new AppError('invalid', 'Give the whole path, from the root', { field });
}

/** What a plan does not say itself. */
export interface PlanFacts {
  readonly entry?: OsEntry;
  /** The disk that is there already, and its format. */
  readonly existing?: string;
  readonly format?: 'raw' | 'qcow2';
}

/** The definition that a plan makes; devices as virt-manager adds them without asking, where this version has them. */
export function definitionOf(plan: WizardPlan, { entry, existing, format }: PlanFacts = {}): VmDefinition {
  const { source, storage } = plan;
  // Every Linux and BSD of the catalogue has virtio drivers; what is not known gets the disk that all know.
  const bus: VmDrive['bus'] = entry === undefined || entry.family === 'windows' || entry.family === 'other' ? 'ide' : 'virtio';
  const common = { readOnly: false, cache: 'writeback', discard: 'unmap' } as const;
  const drives: VmDrive[] = [];
  if (existing !== undefined)
    drives.push({ id: 'disk0', media: 'disk', file: existing, format: format ?? 'auto', bus, ...common });
  else if (storage.kind === 'create')
    drives.push({ id: 'disk0', media: 'disk', file: 'disk0.qcow2', format: 'qcow2', bus, ...common });
  if (source.kind === 'iso')
    drives.push({ id: 'cd0', media: 'cdrom', file: source.path, format: 'raw', bus: 'ide', ...common, readOnly: true });
  return {
    format: definitionFormat,
    version: definitionVersion,
    id: randomUUID(),
    name: plan.name,
    description: plan.description ?? '',
    tags: [],
    os: plan.os,
    created: new Date().toISOString(),
    memoryMiB: plan.memoryMiB,
    cpus: { count: plan.cpus, model: 'x86-64-v2' },
    machine: 'pc',
    accelerator: 'auto',
    boot:
      source.kind === 'kernel'
        ? {
            kind: 'kernel',
            kernel: source.kernel,
            ...(source.initrd === undefined || source.initrd === '' ? {} : { initrd: source.initrd }),
            append: source.append,
          }
        : {
            kind: 'firmware',
            firmware: entry?.firmware === 'uefi' ? 'uefi' : 'bios',
            // An empty disk is passed over, so the medium comes first once, and the disk from then on.
            order: ['disk', 'cdrom'],
            menu: false,
          },
    drives,
    nics: [],
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
