/**
 * CPU models and features by QEMU's names (its documentation, "CPU models", and `-cpu help`), and what of them this CPU
 * has. The command line takes its lists from here.
 */

/** A feature's bit, by leaf and register. `e1` stands for 8000_0001, `e7` for 8000_0007. */
export type FeatureWord =
  | '1.edx'
  | '1.ecx'
  | '7.ebx'
  | '7.ecx'
  | '7.edx'
  | '7.2.edx'
  | 'd1.eax'
  | 'e1.edx'
  | 'e1.ecx'
  | 'e7.edx'
  | 'kvm.eax';

export const FEATURE_BITS: Readonly<Record<FeatureWord, Readonly<Record<string, number>>>> = {
  '1.edx': {
    fpu: 0,
    vme: 1,
    de: 2,
    pse: 3,
    tsc: 4,
    msr: 5,
    pae: 6,
    mce: 7,
    cx8: 8,
    apic: 9,
    sep: 11,
    mtrr: 12,
    pge: 13,
    mca: 14,
    cmov: 15,
    pat: 16,
    pse36: 17,
    clflush: 19,
    mmx: 23,
    fxsr: 24,
    sse: 25,
    sse2: 26,
    ht: 28,
  },
  '1.ecx': {
    sse3: 0,
    pclmulqdq: 1,
    ssse3: 9,
    fma: 12,
    cx16: 13,
    pcid: 17,
    'sse4.1': 19,
    'sse4.2': 20,
    x2apic: 21,
    movbe: 22,
    popcnt: 23,
    'tsc-deadline': 24,
    aes: 25,
    xsave: 26,
    avx: 28,
    f16c: 29,
    rdrand: 30,
    hypervisor: 31,
  },
  '7.ebx': {
    fsgsbase: 0,
    'tsc-adjust': 1,
    bmi1: 3,
    hle: 4,
    avx2: 5,
    smep: 7,
    bmi2: 8,
    erms: 9,
    invpcid: 10,
    rtm: 11,
    rdseed: 18,
    adx: 19,
    smap: 20,
    clflushopt: 23,
    clwb: 24,
    'sha-ni': 29,
  },
  '7.ecx': { umip: 2, pku: 3, vaes: 9, vpclmulqdq: 10, rdpid: 22, pks: 31 },
  '7.edx': { 'spec-ctrl': 26, stibp: 27, 'arch-capabilities': 29, ssbd: 31 },
  '7.2.edx': { 'bhi-ctrl': 4 },
  'd1.eax': { xsaveopt: 0, xsavec: 1, xgetbv1: 2, xsaves: 3 },
  'e1.edx': { syscall: 11, nx: 20, pdpe1gb: 26, rdtscp: 27, lm: 29 },
  'e1.ecx': { lahf_lm: 0, abm: 5, '3dnowprefetch': 8 },
  'e7.edx': { invtsc: 8 },
  'kvm.eax': { kvmclock: 3, 'kvm-pv-unhalt': 7, 'kvm-pv-ipi': 11, 'kvmclock-stable-bit': 24 },
};

/** Other spellings. */
const ALIASES: Readonly<Record<string, string>> = {
  pni: 'sse3',
  sse4_1: 'sse4.1',
  'sse4-1': 'sse4.1',
  sse4_2: 'sse4.2',
  'sse4-2': 'sse4.2',
  pclmuldq: 'pclmulqdq',
  tsc_deadline: 'tsc-deadline',
  tsc_adjust: 'tsc-adjust',
  lzcnt: 'abm',
  sha: 'sha-ni',
  sha_ni: 'sha-ni',
  i64: 'lm',
  xd: 'nx',
  'lahf-lm': 'lahf_lm',
  'kvm-clock': 'kvmclock',
};
export const featureName = (given: string): string => ALIASES[given] ?? given;

const words = (text: string): string[] => text.trim().split(/\s+/);

const X86_64 = words(
  `fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx lm
   hypervisor`,
);
const V2 = [...X86_64, ...words('sse3 ssse3 cx16 sse4.1 sse4.2 popcnt lahf_lm')];
/**
 * What every model has here, whatever its silicon had: clocks and interrupts of a virtual machine, and word that this
 * CPU does not speculate, so that kernels leave out what they do against it (page-table isolation above all; with
 * `spec-ctrl` and `bhi-ctrl` they set a bit once where they would take detours at every indirect call).
 */
const PLATFORM = words(
  'x2apic tsc-deadline tsc-adjust invtsc arch-capabilities spec-ctrl stibp ssbd bhi-ctrl kvm kvmclock kvmclock-stable-bit kvm-pv-unhalt kvm-pv-ipi',
);

/** What the engine implements: the feature set of the model `max`. `kvm` is the hypervisor's own leaves, `pmu` leaf 0AH. */
export const IMPLEMENTED: readonly string[] = [
  ...V2,
  ...PLATFORM,
  ...words(
    `pclmulqdq fma pcid movbe aes xsave avx f16c rdrand fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap
     clflushopt clwb sha-ni umip pku pks vaes vpclmulqdq rdpid xsaveopt xsavec xgetbv1 xsaves pdpe1gb rdtscp abm 3dnowprefetch pmu`,
  ),
];

/** Every feature name that can be asked for. */
export const FEATURES: readonly string[] = [...Object.values(FEATURE_BITS).flatMap((table) => Object.keys(table)), 'kvm', 'pmu'];

/** Features that are nothing without another. */
const NEEDS: Readonly<Record<string, string>> = {
  avx: 'xsave',
  xsaveopt: 'xsave',
  xsavec: 'xsave',
  xgetbv1: 'xsave',
  xsaves: 'xsavec',
  avx2: 'avx',
  fma: 'avx',
  f16c: 'avx',
  vaes: 'avx2',
  vpclmulqdq: 'avx2',
  sse2: 'sse',
  sse3: 'sse2',
  ssse3: 'sse3',
  'sse4.1': 'ssse3',
  'sse4.2': 'sse4.1',
  kvmclock: 'kvm',
  'kvmclock-stable-bit': 'kvmclock',
  'kvm-pv-unhalt': 'kvm',
  'kvm-pv-ipi': 'kvm',
};

export interface CpuModel {
  readonly features: readonly string[];
  readonly description: string;
  readonly brand: string;
  /** What CPUID names as the maker: 12 characters. */
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

const SANDY_BRIDGE = [...V2, ...words('aes avx pclmulqdq rdtscp xsave xsaveopt')];
const IVY_BRIDGE = [...SANDY_BRIDGE, ...words('erms f16c fsgsbase rdrand smep')];
const HASWELL = [...IVY_BRIDGE, ...words('abm avx2 bmi1 bmi2 fma invpcid movbe pcid')];
const BROADWELL = [...HASWELL, ...words('3dnowprefetch adx rdseed smap')];
const SKYLAKE = [...BROADWELL, ...words('clflushopt xgetbv1 xsavec')];

function model(name: string, description: string, signature: readonly [number, number, number], features: readonly string[]) {
  const [family, number, stepping] = signature;
  const brand = `Vivarium virtual CPU (${name})`;
  const vendor = 'GenuineIntel';
  return { features: [...features, ...PLATFORM], description, brand, vendor, family, model: number, stepping };
}
const intel = (name: string, year: number, signature: readonly [number, number, number], features: readonly string[]) =>
  model(name, `Intel, ${year}`, signature, features);

const amd = (
  name: string,
  year: number,
  signature: readonly [number, number, number],
  features: readonly string[],
): CpuModel => ({
  ...model(name, `AMD, ${year}`, signature, features),
  vendor: 'AuthenticAMD',
});

/** The models by QEMU's names. `x86-64-v2` is the default. */
export const MODELS: Readonly<Record<string, CpuModel>> = {
  'x86-64-v2': model(
    'x86-64-v2',
    'the second level of the x86-64 ABI (the default)',
    [6, 44, 1],
    [...V2, 'rdtscp', 'pdpe1gb', 'pcid', 'invpcid'],
  ),
  'x86-64-v3': model(
    'x86-64-v3',
    'the third level of the x86-64 ABI: AVX2, BMI, FMA',
    [6, 60, 1],
    [...V2, ...words('abm avx avx2 bmi1 bmi2 f16c fma movbe xsave xsaveopt rdtscp pdpe1gb')],
  ),
  max: model('max', 'all that this version has', [6, 60, 4], IMPLEMENTED),
  qemu64: model(
    'qemu64',
    'a 64-bit CPU with SSE3 and CX16, as QEMU names it',
    [15, 107, 1],
    [...X86_64, ...words('sse3 cx16 lahf_lm')],
  ),
  qemu32: model(
    'qemu32',
    'a 32-bit CPU with SSE3, as QEMU names it',
    [6, 6, 3],
    [...X86_64.filter((name) => !/^(lm|syscall|nx)$/.test(name)), 'sse3'],
  ),
  kvm64: model('kvm64', 'what any 64-bit host has', [15, 6, 1], [...X86_64, ...words('sse3 cx16')]),
  kvm32: model(
    'kvm32',
    'what any host has, without 64-bit mode',
    [15, 6, 1],
    [...X86_64.filter((name) => !/^(lm|syscall|nx)$/.test(name)), 'sse3'],
  ),
  core2duo: intel('core2duo', 2006, [6, 15, 11], [...X86_64, ...words('sse3 ssse3 cx16 lahf_lm')]),
  Conroe: intel('Conroe', 2006, [6, 15, 3], [...X86_64, ...words('sse3 ssse3 lahf_lm')]),
  Penryn: intel('Penryn', 2007, [6, 23, 3], [...X86_64, ...words('sse3 ssse3 sse4.1 cx16 lahf_lm')]),
  Nehalem: intel('Nehalem', 2008, [6, 26, 3], V2),
  Westmere: intel('Westmere', 2010, [6, 44, 1], [...V2, ...words('aes pclmulqdq')]),
  SandyBridge: intel('SandyBridge', 2011, [6, 42, 1], SANDY_BRIDGE),
  IvyBridge: intel('IvyBridge', 2012, [6, 58, 9], IVY_BRIDGE),
  Haswell: intel('Haswell', 2013, [6, 60, 4], [...HASWELL, ...words('hle rtm')]),
  'Haswell-noTSX': intel('Haswell-noTSX', 2013, [6, 60, 1], HASWELL),
  Broadwell: intel('Broadwell', 2014, [6, 61, 2], [...BROADWELL, ...words('hle rtm')]),
  'Broadwell-noTSX': intel('Broadwell-noTSX', 2014, [6, 61, 2], BROADWELL),
  'Skylake-Client': intel('Skylake-Client', 2015, [6, 94, 3], [...SKYLAKE, ...words('hle rtm')]),
  Opteron_G1: amd('Opteron_G1', 2003, [15, 6, 1], [...X86_64, 'sse3']),
  Opteron_G2: amd('Opteron_G2', 2006, [15, 6, 1], [...X86_64, ...words('sse3 cx16 lahf_lm')]),
  Opteron_G3: amd('Opteron_G3', 2009, [16, 2, 3], [...X86_64, ...words('sse3 cx16 lahf_lm popcnt abm rdtscp')]),
  EPYC: amd(
    'EPYC',
    2017,
    [23, 1, 2],
    [
      ...V2,
      ...words(`pclmulqdq fma movbe aes xsave avx f16c rdrand fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni
        xsaveopt xsavec xgetbv1 pdpe1gb rdtscp abm 3dnowprefetch`),
    ],
  ),
  'Skylake-Client-noTSX-IBRS': intel('Skylake-Client-noTSX-IBRS', 2015, [6, 94, 3], SKYLAKE),
};

export interface ChosenCpu {
  readonly features: ReadonlySet<string>;
  readonly model: CpuModel;
  /** Names that were asked for and are unknown or not implemented. */
  readonly refused: readonly string[];
  /** Features that the model's silicon has and this CPU has not. */
  readonly missing: readonly string[];
}

/** A model with `+`/`-` changes; undefined where there is no such model. What needs a feature that is off is off too. */
export function chooseCpu(name: string, changes: Readonly<Record<string, boolean>> = {}): ChosenCpu | undefined {
  const chosen = Object.hasOwn(MODELS, name) ? MODELS[name] : undefined;
  if (chosen === undefined) return undefined;
  const features = new Set(chosen.features.filter((feature) => IMPLEMENTED.includes(feature)));
  const missing = chosen.features.filter((feature) => !IMPLEMENTED.includes(feature));
  const refused: string[] = [];
  for (const [given, on] of Object.entries(changes)) {
    const feature = featureName(given);
    if (!FEATURES.includes(feature) ? on : on && !IMPLEMENTED.includes(feature)) refused.push(given);
    else if (on) features.add(feature);
    else features.delete(feature);
  }
  for (let before = -1; before !== features.size; ) {
    before = features.size;
    for (const feature of features) if (feature in NEEDS && !features.has(NEEDS[feature])) features.delete(feature);
  }
  return { features, model: chosen, refused, missing };
}
