/**
 * CPUID (SDM 2, CPUID; AMD APM 3 appendix E for 8000_xxxx). Says what this CPU does, nothing else.
 */
import * as S from '../../memory/vcpu-state.ts';
import { AVX_AREA, areaBytes, compactedBytes, PKRU_AREA, supportedComponents } from '../fpu/xsave.ts';
import type { Cpu } from './cpu.ts';
import { CR4 } from './cpu.ts';
import { chooseCpu, FEATURE_BITS } from './cpu-models.ts';
import { hasPmu, PMU } from './pmu.ts';

export interface CpuidConfig {
  readonly cpus: number;
  /** Features on, by name. */
  readonly features: ReadonlySet<string>;
  /** 12 characters. */
  readonly vendor: string;
  /** 48 characters at most. */
  readonly brand: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** Bits of a physical address. */
export const PHYSICAL_BITS = 40;

export interface CpuidResult {
  eax: number;
  ebx: number;
  ecx: number;
  edx: number;
}

/** TSC ticks a second, and so what CPUID 15H and the hypervisor leaf say. */
export const TSC_HZ = 1_000_000_000;
/** Crystal that the TSC is a multiple of, and that the timer of the local APIC counts. */
const CRYSTAL_HZ = 25_000_000;

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
    for (const [key, table] of Object.entries(FEATURE_BITS)) {
      let bits = 0;
      for (const [name, bit] of Object.entries(table)) if (config.features.has(name)) bits |= 1 << bit;
      this.#bits.set(key, bits);
    }
    this.#topologyBits = Math.ceil(Math.log2(Math.max(1, config.cpus)));
  }

  get isAmd(): boolean {
    return this.#config.vendor === 'AuthenticAMD';
  }

  has(feature: string): boolean {
    return this.#config.features.has(feature);
  }

  /** The leaf as this vCPU shows it. */
  query(cpu: Cpu, leaf: number, subleaf: number): CpuidResult {
    const r: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    const { cpus, family, model, stepping, brand, vendor } = this.#config;
    const bits = (key: string): number => this.#bits.get(key) ?? 0;
    const id = cpu.bus.index;
    let n = leaf >>> 0;
    const maxBasic = 0x15;
    if (n > maxBasic && n < 0x40000000) n = maxBasic;
    switch (n) {
      case 0:
        return { eax: maxBasic, ebx: text(vendor, 0), edx: text(vendor, 4), ecx: text(vendor, 8) };
      case 1: {
        const extendedFamily = family > 15 ? family - 15 : 0;
        r.eax = (extendedFamily << 20) | ((model >> 4) << 16) | (Math.min(family, 15) << 8) | ((model & 15) << 4) | stepping;
        r.ebx = (id << 24) | (Math.max(1, cpus) << 16) | (8 << 8);
        r.ecx = bits('1.ecx');
        if ((cpu.cr4 & CR4.OSXSAVE) !== 0) r.ecx |= 1 << 27;
        r.edx = bits('1.edx');
        // The APIC's bit goes while its base register has it off (SDM 3A, 10.4.3).
        const base = cpu.bus.readApicMsr(0x1b);
        if (base && (base.low & 0x800) === 0) r.edx &= ~(1 << FEATURE_BITS['1.edx'].apic);
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
        if (subleaf === 2) r.edx = bits('7.2.edx');
        else if (subleaf === 0) {
          r.eax = bits('7.2.edx') === 0 ? 0 : 2;
          r.ebx = bits('7.ebx');
          r.ecx = bits('7.ecx');
          if ((cpu.cr4 & CR4.PKE) !== 0) r.ecx |= 1 << 4;
          r.edx = bits('7.edx');
        }
        return r;
      case 0xd: {
        // SDM 2, CPUID; SDM 1, 13.2: x87 and SSE, AVX at 576, PKRU where silicon has it.
        if (!this.has('xsave')) return r;
        const all = supportedComponents((feature) => this.has(feature));
        const enabled = cpu.i32[S.XCR0 >> 2];
        if (subleaf === 0) return { eax: all, ebx: areaBytes(enabled), ecx: areaBytes(all), edx: 0 };
        if (subleaf === 1) {
          r.eax = bits('d1.eax');
          r.ebx = compactedBytes(enabled);
        } else if (subleaf === 2 && this.has('avx')) {
          r.eax = AVX_AREA.bytes;
          r.ebx = AVX_AREA.at;
        } else if (subleaf === 9 && this.has('pku')) {
          r.eax = PKRU_AREA.bytes;
          r.ebx = PKRU_AREA.at;
        }
        return r;
      }
      case 0xa:
        // Architectural performance monitoring (SDM 3B, 20.2).
        if (!hasPmu(this)) return r;
        return {
          eax: PMU.version | (PMU.counters << 8) | (PMU.bits << 16) | (PMU.events << 24),
          ebx: PMU.missing,
          ecx: 0,
          edx: PMU.fixed | (PMU.bits << 5) | (1 << 15),
        };
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
        return { eax: 1, ebx: TSC_HZ / CRYSTAL_HZ, ecx: CRYSTAL_HZ, edx: 0 };
      case 0x40000000:
        if (!this.has('kvm')) return r;
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
        if (!this.has('kvm')) return r;
        return { eax: TSC_HZ / 1000, ebx: CRYSTAL_HZ / 1000, ecx: 0, edx: 0 };
      case 0x80000000:
        // AMD names itself here too.
        if (this.isAmd) return { eax: 0x80000008 | 0, ebx: text(vendor, 0), edx: text(vendor, 4), ecx: text(vendor, 8) };
        r.eax = 0x80000008 | 0;
        return r;
      case 0x80000001:
        r.ecx = bits('e1.ecx');
        r.edx = bits('e1.edx');
        // AMD repeats the lower leaf's bits that it had first.
        if (this.isAmd) r.edx |= bits('1.edx') & 0x0183f3ff;
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
        r.edx = bits('e7.edx');
        return r;
      case 0x80000008:
        r.eax = PHYSICAL_BITS | (48 << 8);
        return r;
      default:
        return r;
    }
  }
}

/** What `Cpuid` is made from, of a model with changes; `refused` and `missing` as `chooseCpu` gives them. */
export function cpuFeatures(
  name: string,
  changes: Readonly<Record<string, boolean>> = {},
  maker?: string,
): { config: Omit<CpuidConfig, 'cpus'>; refused: readonly string[]; missing: readonly string[] } | undefined {
  const chosen = chooseCpu(name, changes);
  if (chosen === undefined) return undefined;
  const { brand, family, model, stepping } = chosen.model;
  const vendor = maker ?? chosen.model.vendor;
  const { features, refused, missing } = chosen;
  return { config: { features, vendor, brand, family, model, stepping }, refused, missing };
}
