/** The creation wizard's services: names, checks, and making the VM. */
import { randomUUID } from 'node:crypto';
import { isAbsolute } from 'node:path';
import {
  AppError,
  definitionFormat,
  definitionVersion,
  envelopeOf,
  type FieldError,
  planSchema,
  type VmDefinition,
  type VmSummary,
  type WizardDraft,
  type WizardPlan,
} from '../contract/index.ts';
import { checkInitrd, checkKernel, openToRead } from '../vm/boot-files.ts';
import type { Library } from '../vm/library.ts';
import { missing, support } from '../vm/support.ts';
import type { VmService } from '../vm/vm-service.ts';
import type { Catalogue } from './catalogue.ts';
import { installSources } from './sources.ts';

export class Wizard {
  readonly #library: Library;
  readonly #vms: VmService;
  readonly #catalogue: Catalogue;

  constructor(library: Library, vms: VmService, catalogue: Catalogue) {
    this.#library = library;
    this.#vms = vms;
    this.#catalogue = catalogue;
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
        await attempt(async () => (await openToRead(source.path, 'The file', 'source.path')).close());
    }
    const storage = good('storage');
    if (storage !== undefined && storage.kind !== 'none' && !support.disk) add('storage.kind', `${missing.disk}.`);
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
    const definition = definitionOf(plan);
    await this.#library.create(definition);
    return this.#vms.adopt(definition.id);
  }
}

function checkPath(path: string, field: string): void {
  if (!isAbsolute(path)) throw new AppError('invalid', 'Give the whole path, from the root', { field });
}

/** The definition that a plan makes; devices as virt-manager adds them without asking, where this version has them. */
export function definitionOf(plan: WizardPlan): VmDefinition {
  const { source } = plan;
  if (source.kind !== 'kernel')
    throw new AppError('unsupported', 'This version starts VMs from a kernel only', { field: 'source.kind' });
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
    boot: {
      kind: 'kernel',
      kernel: source.kernel,
      ...(source.initrd === undefined || source.initrd === '' ? {} : { initrd: source.initrd }),
      append: source.append,
    },
    drives: [],
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
