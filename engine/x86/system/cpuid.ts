/**
 * CPUID (SDM 2, CPUID; AMD APM 3 appendix E for 8000_xxxx). Says what this CPU does, nothing else.
 */
import * as S from '../../memory/vcpu-state.ts';
import { areaBytes } from '../fpu/xsave.ts';
import type { Cpu } from './cpu.ts';
import { CR4 } from './cpu.ts';

/** Feature bits by leaf and register, with the names QEMU uses. */
const LEAF1_EDX: Record<string, number> = {
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
};
const LEAF1_ECX: Record<string, number> = {
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
};
const LEAF7_EBX: Record<string, number> = {
  fsgsbase: 0,
  'tsc-adjust': 1,
  bmi1: 3,
  avx2: 5,
  smep: 7,
  bmi2: 8,
  erms: 9,
  invpcid: 10,
  rdseed: 18,
  adx: 19,
  smap: 20,
  clflushopt: 23,
  clwb: 24,
  sha: 29,
};
const LEAF7_ECX: Record<string, number> = { umip: 2, vaes: 9, vpclmulqdq: 10, rdpid: 22 };
const LEAFD1_EAX: Record<string, number> = { xsaveopt: 0, xsavec: 1, xgetbv1: 2, xsaves: 3 };
const EXT1_EDX: Record<string, number> = { syscall: 11, nx: 20, pdpe1gb: 26, rdtscp: 27, lm: 29 };
const EXT1_ECX: Record<string, number> = { lahf_lm: 0, abm: 5, '3dnowprefetch': 8 };
const KVM_EAX: Record<string, number> = { kvmclock: 3, 'kvmclock-stable-bit': 24 };

const TABLES: readonly [string, Record<string, number>][] = [
  ['1.edx', LEAF1_EDX],
  ['1.ecx', LEAF1_ECX],
  ['7.ebx', LEAF7_EBX],
  ['7.ecx', LEAF7_ECX],
  ['d1.eax', LEAFD1_EAX],
  ['e1.edx', EXT1_EDX],
  ['e1.ecx', EXT1_ECX],
  ['kvm.eax', KVM_EAX],
];

/** What the engine implements: the feature set of the model `max`. */
export const IMPLEMENTED: readonly string[] = (
  'fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht ' +
  'sse3 pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave avx f16c rdrand hypervisor ' +
  'fsgsbase tsc-adjust bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha umip vaes vpclmulqdq rdpid ' +
  'xsaveopt xsavec xgetbv1 xsaves syscall nx pdpe1gb rdtscp lm lahf_lm abm 3dnowprefetch kvmclock kvmclock-stable-bit'
).split(' ');

/** Every feature name that can be asked for. */
export const FEATURES: readonly string[] = TABLES.flatMap(([, table]) => Object.keys(table));

export interface CpuidConfig {
  readonly cpus: number;
  /** Features on, by name. */
  readonly features: ReadonlySet<string>;
  /** 48 characters at most. */
  readonly brand: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

export interface CpuidResult {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** TSC ticks a second, and so what CPUID 15H and the hypervisor leaf say. */
export const TSC_HZ = 1_000_000_000;

const text = (value: string, at: number): number => {
  let word = 0;
  for (let i = 3; i >= 0; i--) word = (word << 8) | (value.charCodeAt(at + i) || 0);
  return word;
};

export class Cpuid {
  readonly #config: CpuidConfig;
  readonly #bits = new Map<string, number>();
  readonly #topologyBits: number;

  constructor(config: CpuidConfig) {
    this.#config = config;
    for (const [key, table] of TABLES) {
      let bits = 0;
      for (const [name, bit] of Object.entries(table)) if (config.features.has(name)) bits |= 1 << bit;
      this.#bits.set(key, bits);
    }
    this.#topologyBits = Math.ceil(Math.log2(Math.max(1, config.cpus)));
  }

  has(feature: string): boolean {
    return this.#config.features.has(feature);
  }

  /** The leaf as this vCPU shows it. */
  query(cpu: Cpu, leaf: number, subleaf: number): CpuidResult {
    const r: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    const { cpus, family, model, stepping, brand } = this.#config;
    const bits = (key: string): number => this.#bits.get(key) ?? 0;
    const id = cpu.bus.index;
    let n = leaf >>> 0;
    const maxBasic = 0x15;
    if (n > maxBasic && n < 0x40000000) n = maxBasic;
    switch (n) {
      case 0:
        return { eax: maxBasic, ebx: text('GenuineIntel', 0), edx: text('GenuineIntel', 4), ecx: text('GenuineIntel', 8) };
      case 1: {
        const extendedFamily = family > 15 ? family - 15 : 0;
        r.eax = (extendedFamily << 20) | ((model >> 4) << 16) | (Math.min(family, 15) << 8) | ((model & 15) << 4) | stepping;
        r.ebx = (id << 24) | (Math.max(1, cpus) << 16) | (8 << 8);
        r.ecx = bits('1.ecx');
        if ((cpu.cr4 & CR4.OSXSAVE) !== 0) r.ecx |= 1 << 27;
        r.edx = bits('1.edx');
        if (cpus === 1) r.edx &= ~(1 << 28);
        return r;
      }
      case 2:
        return { eax: 0x00feff01, ebx: 0, ecx: 0, edx: 0 };
      case 4: {
        // Caches: 32 KiB data and code, 256 KiB second level, 8 MiB third.
        const caches: [number, number, number, number, number][] = [
          [1, 1, 64, 8, 64],
          [2, 1, 64, 8, 64],
          [3, 2, 64, 8, 512],
          [3, 3, 64, 16, 8192],
        ];
        const cache = caches[subleaf];
        if (cache === undefined) return r;
        const [type, level, line, ways, sets] = cache;
        const sharing = level === 3 ? cpus - 1 : 0;
        r.eax = type | (level << 5) | (1 << 8) | (sharing << 14) | ((Math.min(cpus, 64) - 1) << 26);
        r.ebx = (line - 1) | ((ways - 1) << 22);
        r.ecx = sets - 1;
        return r;
      }
      case 6:
        r.eax = 4; // the APIC timer always runs
        return r;
      case 7:
        if (subleaf === 0) {
          r.ebx = bits('7.ebx');
          r.ecx = bits('7.ecx');
        }
        return r;
      case 0xd: {
        // SDM 2, CPUID; SDM 1, 13.2: x87 and SSE, and AVX at 576.
        if (!this.has('xsave')) return r;
        const all = this.has('avx') ? 7 : 3;
        const enabled = areaBytes(cpu.i32[S.XCR0 >> 2]);
        if (subleaf === 0) return { eax: all, ebx: enabled, ecx: areaBytes(all), edx: 0 };
        if (subleaf === 1) {
          r.eax = bits('d1.eax');
          r.ebx = enabled;
        } else if (subleaf === 2 && this.has('avx')) {
          r.eax = 256;
          r.ebx = 576;
        }
        return r;
      }
      case 0xb:
        r.ecx = subleaf & 0xff;
        r.edx = id;
        if (subleaf === 0) {
          r.ebx = 1;
          r.ecx |= 1 << 8;
        } else if (subleaf === 1) {
          r.eax = this.#topologyBits;
          r.ebx = cpus;
          r.ecx |= 2 << 8;
        }
        return r;
      case 0x15:
        // Crystal of 1 GHz, TSC at the same rate.
        return { eax: 1, ebx: 1, ecx: TSC_HZ, edx: 0 };
      case 0x40000000:
        return {
          eax: 0x40000010,
          ebx: text('KVMKVMKVM\0\0\0', 0),
          ecx: text('KVMKVMKVM\0\0\0', 4),
          edx: text('KVMKVMKVM\0\0\0', 8),
        };
      case 0x40000001:
        r.eax = bits('kvm.eax');
        return r;
      case 0x40000010:
        return { eax: TSC_HZ / 1000, ebx: TSC_HZ / 1000, ecx: 0, edx: 0 };
      case 0x80000000:
        r.eax = 0x80000008 | 0;
        return r;
      case 0x80000001:
        r.ecx = bits('e1.ecx');
        r.edx = bits('e1.edx');
        // SYSCALL shows only in 64-bit mode on Intel; AMD's compatibility-mode SYSCALL is offered too, so it stays.
        return r;
      case 0x80000002:
      case 0x80000003:
      case 0x80000004: {
        const at = (n - 0x80000002) * 16;
        return { eax: text(brand, at), ebx: text(brand, at + 4), ecx: text(brand, at + 8), edx: text(brand, at + 12) };
      }
      case 0x80000006:
        r.ecx = 64 | (6 << 12) | (256 << 16);
        return r;
      case 0x80000007:
        r.edx = 1 << 8; // invariant TSC
        return r;
      case 0x80000008:
        r.eax = 40 | (48 << 8);
        return r;
      default:
        return r;
    }
  }
}

/** The models by QEMU's names: features and signature. `x86-64-v2` is the default. */
const V1 =
  'fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx lm hypervisor'.split(
    ' ',
  );
const V2 = [...V1, ...'sse3 ssse3 cx16 sse4.1 sse4.2 popcnt lahf_lm'.split(' ')];
const PLATFORM = 'x2apic tsc-deadline tsc-adjust kvmclock kvmclock-stable-bit rdtscp pdpe1gb'.split(' ');

export const MODELS: Readonly<
  Record<string, { features: readonly string[]; brand: string; family: number; model: number; stepping: number }>
> = {
  qemu64: {
    features: [...V1, 'sse3', 'cx16', 'x2apic', 'kvmclock', 'lahf_lm'],
    brand: 'Vivarium virtual CPU (qemu64)',
    family: 15,
    model: 107,
    stepping: 1,
  },
  kvm64: {
    features: [...V1, 'sse3', 'cx16', 'kvmclock'],
    brand: 'Vivarium virtual CPU (kvm64)',
    family: 15,
    model: 6,
    stepping: 1,
  },
  qemu32: {
    features: V1.filter((name) => name !== 'lm' && name !== 'syscall'),
    brand: 'Vivarium virtual CPU (qemu32)',
    family: 6,
    model: 6,
    stepping: 3,
  },
  Nehalem: { features: [...V2, ...PLATFORM], brand: 'Vivarium virtual CPU (Nehalem)', family: 6, model: 26, stepping: 3 },
  Westmere: { features: [...V2, ...PLATFORM], brand: 'Vivarium virtual CPU (Westmere)', family: 6, model: 44, stepping: 1 },
  'x86-64-v2': { features: [...V2, ...PLATFORM], brand: 'Vivarium virtual CPU (x86-64-v2)', family: 6, model: 44, stepping: 1 },
  max: { features: IMPLEMENTED, brand: 'Vivarium virtual CPU (max)', family: 6, model: 60, stepping: 4 },
};

/** Features of a model with `+`/`-` changes; names that are unknown or not implemented are given back in `refused`. */
export function cpuFeatures(
  model: string,
  changes: Readonly<Record<string, boolean>> = {},
): { config: Omit<CpuidConfig, 'cpus'>; refused: string[] } | undefined {
  const chosen = MODELS[model];
  if (chosen === undefined) return undefined;
  const features = new Set(chosen.features.filter((name) => IMPLEMENTED.includes(name)));
  const refused: string[] = [];
  for (const [given, on] of Object.entries(changes)) {
    const name = given.replace(/^sse4_([12])$/, 'sse4.$1').replace(/^pni$/, 'sse3');
    if (!FEATURES.includes(name) || (on && !IMPLEMENTED.includes(name))) refused.push(given);
    else if (on) features.add(name);
    else features.delete(name);
  }
  const { brand, family, model: modelNumber, stepping } = chosen;
  return { config: { features, brand, family, model: modelNumber, stepping }, refused };
}
