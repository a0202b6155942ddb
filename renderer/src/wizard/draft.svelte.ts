/** What the wizard was told so far, what is wrong with it, and the requests it makes. */
import {
  type Detection,
  envelopeOf,
  type FieldError,
  type InstallSource,
  type InstallSourceKind,
  planSchema,
  type Recommendation,
  type SampleGuest,
  type VmSummary,
  type WizardDraft,
  type WizardPlan,
} from '../../../main/contract/index.ts';
import { t } from '../messages/index.ts';
import { client } from '../state/app.svelte.ts';

export const steps = ['source', 'medium', 'resources', 'storage', 'summary'] as const;
export type StepName = (typeof steps)[number];

/** Detection looks for 5 s at most; the page does not wait longer than this for the answer. */
const detectMs = 6000;

/** The members of the plan that each step fills in. */
const members: Record<StepName, readonly (keyof WizardPlan)[]> = {
  source: [],
  medium: ['source', 'os'],
  resources: ['memoryMiB', 'cpus'],
  storage: ['storage'],
  summary: ['name', 'description', 'network'],
};

export class WizardDraftState {
  /** Most people come with an ISO image; `load` takes the first way that there is where this is not. */
  kind = $state<InstallSourceKind>('iso');
  kernel = $state('');
  initrd = $state('');
  append = $state('console=ttyS0 console=tty0');
  /** The ISO image or the disk image. */
  path = $state('');
  url = $state('');
  os = $state<string | null>(null);
  /** False until the person, or detection, has said which system it is. */
  osChosen = $state(false);
  detectAutomatically = $state(true);
  memoryMiB = $state<number | null>(1024);
  cpus = $state<number | null>(1);
  storage = $state<'none' | 'create' | 'existing'>('none');
  sizeGiB = $state<number | null>(20);
  diskPath = $state('');
  name = $state('');
  description = $state('');
  network = $state<'none' | 'user'>('none');
  start = $state(true);
  customise = $state(false);

  sources = $state.raw<readonly InstallSource[]>([]);
  sample = $state.raw<SampleGuest | null>(null);
  detection = $state.raw<Detection | null>(null);
  detecting = $state(false);
  detectionNote = $state('');
  recommendation = $state.raw<Recommendation | null>(null);
  errors = $state.raw<readonly FieldError[]>([]);
  failure = $state('');
  busy = $state(false);
  #resourcesTouched = false;
  #nameTouched = false;
  #storageSeen = false;
  #detected = '';
  #detectionRun = 0;

  async load(): Promise<void> {
    try {
      const [sources, sample] = await Promise.all([client.request('wizard.sources', {}), client.request('guests.sample', {})]);
      this.sources = sources;
      this.sample = sample;
      if (this.source(this.kind)?.available === false) this.kind = sources.find(({ available }) => available)?.kind ?? this.kind;
    } catch (error) {
      this.failure = envelopeOf(error).message;
    }
  }

  source(kind: InstallSourceKind): InstallSource | undefined {
    return this.sources.find((source) => source.kind === kind);
  }

  /** Why there can be no disk; empty where there can. */
  get noDisk(): string {
    const source = this.source('import');
    return source === undefined || source.available ? '' : (source.reason ?? '');
  }

  get noNetwork(): string {
    const source = this.source('network');
    return source === undefined || source.available ? '' : (source.reason ?? '');
  }

  useSample(): void {
    if (this.sample?.state !== 'ready') return;
    this.kernel = this.sample.kernel ?? '';
    this.initrd = this.sample.initrd ?? '';
    this.clearErrors('source');
    void this.detect(this.kernel);
  }

  touchResources(): void {
    this.#resourcesTouched = true;
  }

  touchName(): void {
    this.#nameTouched = true;
  }

  plan(): WizardDraft {
    const source =
      this.kind === 'kernel'
        ? {
            kind: this.kind,
            kernel: this.kernel,
            ...(this.initrd.trim() === '' ? {} : { initrd: this.initrd.trim() }),
            append: this.append,
          }
        : this.kind === 'network'
          ? { kind: this.kind, ...(this.url.trim() === '' ? {} : { url: this.url.trim() }) }
          : this.kind === 'manual'
            ? { kind: this.kind }
            : { kind: this.kind, path: this.path };
    const storage =
      this.kind === 'import'
        ? { kind: 'none' as const }
        : this.storage === 'create'
          ? { kind: this.storage, sizeGiB: this.sizeGiB }
          : this.storage === 'existing'
            ? { kind: this.storage, path: this.diskPath }
            : { kind: this.storage };
    return {
      source,
      os: this.os,
      // An empty number field is null, which the schema would call "not a number": NaN says the same of any input.
      memoryMiB: this.memoryMiB ?? 0,
      cpus: this.cpus ?? 0,
      storage,
      name: this.name,
      ...(this.description.trim() === '' ? {} : { description: this.description }),
      network: this.network,
    };
  }

  error(field: string, severity: FieldError['severity'] = 'error'): string {
    return this.errors.find((error) => error.field === field && error.severity === severity)?.message ?? '';
  }

  clearErrors(prefix: string): void {
    this.errors = this.errors.filter(({ field }) => field !== prefix && !field.startsWith(`${prefix}.`));
    this.failure = '';
  }

  /** The first step that has an error of its own. */
  stepWithError(): StepName | undefined {
    return steps.find((step) => this.#errorsOf(step).length > 0);
  }

  /** True when nothing of a step is wrong. Asks the services too: files are read, names and memory looked up. */
  async check(step: StepName): Promise<boolean> {
    this.failure = '';
    if (step === 'source') {
      const source = this.source(this.kind);
      if (source?.available === false) this.failure = source.reason ?? '';
      return this.failure === '';
    }
    const plan = this.plan();
    const draft: WizardDraft = {};
    const found: FieldError[] = [];
    for (const member of members[step]) {
      if (!(member in plan)) continue;
      draft[member] = plan[member];
      const parsed = planSchema.shape[member].safeParse(plan[member]);
      if (!parsed.success)
        for (const { path, message } of parsed.error.issues)
          found.push({ field: [member, ...path].join('.'), message, severity: 'error' });
    }
    if (step === 'medium' && (this.kind === 'iso' || this.kind === 'import') && !this.osChosen)
      found.push({ field: 'os', message: t.wizard.chooseSystem, severity: 'error' });
    // The recommendations for a system depend on it: what is asked of memory is checked against it.
    if (step === 'resources') draft.os = this.os;
    if (found.length === 0) {
      this.busy = true;
      try {
        found.push(...(await client.request('wizard.check', draft)));
      } catch (error) {
        this.failure = envelopeOf(error).message;
      } finally {
        this.busy = false;
      }
    }
    this.errors = [...this.errors.filter((error) => !this.#belongs(error, step)), ...found];
    return this.failure === '' && this.#errorsOf(step).length === 0;
  }

  async detect(path: string): Promise<void> {
    if (!this.detectAutomatically || path.trim() === '' || path === this.#detected) return;
    this.#detected = path;
    const run = ++this.#detectionRun;
    this.detecting = true;
    this.detection = null;
    this.detectionNote = '';
    try {
      const late = new Promise<null>((resolve) => setTimeout(() => resolve(null), detectMs));
      const detection = await Promise.race([client.request('catalogue.detect', { path: path.trim() }), late]);
      if (run !== this.#detectionRun) return;
      if (detection === null) this.detectionNote = t.wizard.detectLate;
      else {
        this.detection = detection;
        if (detection.os !== null) this.chooseSystem(detection.os);
        else this.detectionNote = detection.note ?? t.wizard.detectNothing;
      }
    } catch (error) {
      if (run === this.#detectionRun) this.detectionNote = envelopeOf(error).message;
    } finally {
      if (run === this.#detectionRun) this.detecting = false;
    }
  }

  chooseSystem(os: string | null): void {
    this.os = os;
    this.osChosen = true;
    this.clearErrors('os');
  }

  /** Called on the way to a step: what it shows is fetched. */
  async prepare(step: StepName): Promise<void> {
    try {
      if (step === 'resources') {
        this.recommendation = await client.request('catalogue.recommend', { os: this.os });
        if (!this.#resourcesTouched) {
          const { recommended, hostFreeMiB } = this.recommendation;
          this.memoryMiB = Math.min(recommended.memoryMiB, Math.max(this.recommendation.minimum.memoryMiB, hostFreeMiB - 256));
          this.cpus = recommended.cpus;
          this.sizeGiB = recommended.diskGiB || 20;
        }
      } else if (step === 'storage') {
        if (this.noDisk !== '' || this.kind === 'import') this.storage = 'none';
        // An installer wants a disk; a kernel with its RAM disk does not.
        else if (!this.#storageSeen) this.storage = this.kind === 'kernel' ? 'none' : 'create';
        this.#storageSeen = true;
      } else if (step === 'summary' && !this.#nameTouched) {
        this.name = await client.request('wizard.suggestName', {
          os: this.os,
          // A kernel by itself says no more than that it is Linux.
          ...(this.kind === 'kernel' && (this.os === null || this.os === this.detection?.os) ? { hint: t.wizard.linuxVm } : {}),
        });
      }
    } catch (error) {
      this.failure = envelopeOf(error).message;
    }
  }

  /** Makes the VM; null where it could not be made: `errors` and `failure` say why, and nothing is left behind. */
  async create(): Promise<VmSummary | null> {
    this.busy = true;
    this.failure = '';
    try {
      const plan = planSchema.parse(this.plan());
      return await client.request('wizard.create', { plan, start: this.start && !this.customise });
    } catch (error) {
      const { message, field } = envelopeOf(error);
      if (field !== undefined && steps.some((step) => members[step].some((member) => field.split('.')[0] === member)))
        this.errors = [...this.errors, { field, message, severity: 'error' }];
      else this.failure = message;
      return null;
    } finally {
      this.busy = false;
    }
  }

  #belongs({ field }: FieldError, step: StepName): boolean {
    return (members[step] as readonly string[]).includes(field.split('.')[0]);
  }

  #errorsOf(step: StepName): FieldError[] {
    return this.errors.filter((error) => error.severity === 'error' && this.#belongs(error, step));
  }
}
