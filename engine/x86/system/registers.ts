/** Control, debug and model-specific registers (SDM 3A 2.5, 3B 18, 4). */
import * as S from '../../memory/vcpu-state.ts';
import { fpuStruct, powerUp } from '../fpu/fpu-state.ts';
import { type Cpu, CR0, CR4, EFER, isCanonical, linear, raise } from './cpu.ts';
import { type Cpuid, PHYSICAL_BITS } from './cpuid.ts';
import { readMachineCheck, resetMachineCheck, writeMachineCheck } from './machine-check.ts';
import { checkMemoryType } from './memory-types.ts';
import { MSR, msrSlot, writeMsr64 } from './msr-numbers.ts';
import type { Paging } from './paging.ts';
import type { Pmu } from './pmu.ts';
import type { Segments } from './segments.ts';

const RAX = S.GPR >> 2;
const RCX = (S.GPR + 8) >> 2;
const RDX = (S.GPR + 16) >> 2;

/**
 * IA32_ARCH_CAPABILITIES (SDM 4, table 2-2): nothing leaks by speculation, for there is none. RDCL_NO, SKIP_L1DFL_VMENTRY,
 * SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO; in the upper
 * half ITS_NO.
 */
const NO_SPECULATION = [0, 1, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27].reduce((bits, bit) => bits | (1 << bit), 0);

/** IA32_MISC_ENABLE (SDM 4, table 2-2): fast strings; no branch trace store, no PEBS. */
const MISC_ENABLE = 1 | (1 << 11) | (1 << 12);
const PERFORMANCE_AVAILABLE = 1 << 7;

export class Registers {
  readonly #cpu: Cpu;
  readonly #paging: Paging;
  readonly #segments: Segments;
  readonly #cpuid: Cpuid;
  readonly #pmu: Pmu;

  constructor(cpu: Cpu, paging: Paging, segments: Segments, cpuid: Cpuid, pmu: Pmu) {
    this.#cpu = cpu;
    this.#paging = paging;
    this.#segments = segments;
    this.#cpuid = cpuid;
    this.#pmu = pmu;
  }

  /** State after power-on or INIT (SDM 3A table 9-1). `init` keeps what INIT keeps. */
  reset(init: boolean): void {
    const cpu = this.#cpu;
    const keptCr0 = cpu.cr0 & (CR0.CD | CR0.NW);
    if ((cpu.i32[S.SMM >> 2] & S.Smm.INSIDE) !== 0) cpu.bus.setSmm(false);
    const keep = new Map<number, bigint>();
    if (init) for (const at of [S.INSTRUCTIONS, S.XCR0]) keep.set(at, cpu.u64[at >> 3]);
    const from = init ? S.MSRS : S.STATE_BYTES;
    const pending = cpu.i32[S.PENDING >> 2];
    const wake = cpu.i32[S.WAKE >> 2];
    const fpu = init ? cpu.u8.slice(S.FPU, S.EXIT_COUNTS) : undefined;
    // INIT leaves the performance counters too.
    const counts = cpu.u8.slice(S.EXIT_COUNTS, init ? S.MSRS : S.PMU);
    cpu.u8.fill(0, 0, from);
    if (fpu !== undefined) cpu.u8.set(fpu, S.FPU);
    cpu.u8.set(counts, S.EXIT_COUNTS);
    cpu.i32[S.PENDING >> 2] = init ? pending : 0;
    cpu.i32[S.WAKE >> 2] = wake;
    for (const [at, value] of keep) cpu.u64[at >> 3] = value;
    cpu.i32[S.EFLAGS >> 2] = 2;
    cpu.setArithmetic(0);
    cpu.set32(S.CR0, init ? CR0.ET | keptCr0 : CR0.ET | CR0.CD | CR0.NW);
    cpu.i32[S.EXCEPTION >> 2] = -1;
    cpu.i32[S.MXCSR >> 2] = 0x1f80;
    cpu.setNumber(S.RIP_CARRY, 2 ** 32);
    cpu.u64[S.XCR0 >> 3] = 1n;
    cpu.i32[(S.DR + 32) >> 2] = 0xffff0ff0 | 0;
    cpu.i32[(S.DR + 40) >> 2] = 0x400;
    cpu.set32(S.GPR + 16, 0x000306c4);
    this.#segments.set(S.CS, 0xf000, 0xffff0000, 0xffff, 0x9b);
    for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS]) this.#segments.set(index, 0, 0, 0xffff, 0x93);
    this.#segments.set(S.GDTR, 0, 0, 0xffff, 0);
    this.#segments.set(S.IDTR, 0, 0, 0xffff, 0);
    this.#segments.set(S.LDTR, 0, 0, 0xffff, 0x82);
    this.#segments.set(S.TR, 0, 0, 0xffff, 0x8b);
    cpu.setNumber(S.NEXT_RIP, 0xfff0);
    if (!init) {
      writeMsr64(cpu, MSR.PAT, 0x00070406, 0x00070406);
      writeMsr64(cpu, MSR.MISC_ENABLE, MISC_ENABLE | (this.#pmu.exists ? PERFORMANCE_AVAILABLE : 0), 0);
      writeMsr64(cpu, MSR.SMBASE, 0x30000, 0);
      resetMachineCheck(cpu);
      this.#pmu.reset();
      powerUp(fpuStruct.at(cpu.buffer, cpu.at + S.FPU));
    }
    cpu.breakpointsChanged();
    this.#paging.flush();
    this.#segments.updateMode();
    this.updateFpuBlock();
  }

  /** SIPI: real mode at vector * 4096. */
  startup(vector: number): void {
    const cpu = this.#cpu;
    this.#segments.set(S.CS, vector << 8, vector << 12, 0xffff, 0x9b);
    cpu.setNumber(S.NEXT_RIP, 0);
    this.#segments.updateMode();
  }

  /** What CR0 and CR4 do to SSE, MMX and x87: see FPU_BLOCK. */
  updateFpuBlock(): void {
    const cpu = this.#cpu;
    let block = 0;
    if ((cpu.cr0 & CR0.EM) !== 0 || (cpu.cr4 & CR4.OSFXSR) === 0) block |= 1;
    if ((cpu.cr0 & CR0.TS) !== 0) block |= 2;
    if ((cpu.cr0 & CR0.EM) !== 0) block |= 4;
    if ((cpu.cr4 & CR4.OSXSAVE) === 0 || (cpu.i32[S.XCR0 >> 2] & 6) !== 6) block |= 8;
    cpu.i32[S.FPU_BLOCK >> 2] = block;
  }

  // --- control registers ------------------------------------------------------------------------------------------

  readCr(index: number): void {
    const cpu = this.#cpu;
    switch (index) {
      case 0:
        cpu.u64[S.TEMP >> 3] = cpu.u64[S.CR0 >> 3] & 0xffffffffn;
        break;
      case 2:
      case 3:
      case 4:
        cpu.u64[S.TEMP >> 3] = cpu.u64[(S.CR0 + (index - 1) * 8) >> 3];
        if (index === 2) cpu.u64[S.TEMP >> 3] = cpu.u64[S.CR2 >> 3];
        break;
      case 8:
        cpu.u64[S.TEMP >> 3] = BigInt(cpu.bus.readTpr() >> 4);
        break;
      default:
        raise(6);
    }
  }

  writeCr(index: number, low: number, high: number): void {
    const cpu = this.#cpu;
    switch (index) {
      case 0:
        this.writeCr0(low, high);
        break;
      case 2:
        cpu.i32[S.CR2 >> 2] = low;
        cpu.i32[(S.CR2 >> 2) + 1] = high;
        break;
      case 3: {
        // With PCIDs bit 63 asks for what is cached to stay.
        const kept = cpu.isLongActive && (cpu.cr4 & CR4.PCIDE) !== 0 ? high & 0x7fffffff : high;
        if (cpu.isLongActive && kept >>> (PHYSICAL_BITS - 32) !== 0) raise(13, 0);
        cpu.i32[S.CR3 >> 2] = low;
        cpu.i32[(S.CR3 >> 2) + 1] = cpu.isLongActive ? kept : 0;
        this.#paging.changeSpace(high < 0 && (cpu.cr4 & CR4.PCIDE) !== 0);
        break;
      }
      case 4:
        this.#writeCr4(low, high);
        break;
      case 8:
        if ((low & ~15) !== 0 || high !== 0) raise(13, 0);
        cpu.bus.writeTpr((low & 15) << 4);
        break;
      default:
        raise(6);
    }
  }

  writeCr0(low: number, high: number): void {
    const cpu = this.#cpu;
    const old = cpu.cr0;
    const pe = (low & CR0.PE) !== 0;
    const pg = low < 0;
    if (!pg && (cpu.cr4 & CR4.PCIDE) !== 0) raise(13, 0);
    if (high !== 0 || (pg && !pe) || ((low & CR0.NW) !== 0 && (low & CR0.CD) === 0)) raise(13, 0);
    if (pg && old >= 0 && (cpu.efer & EFER.LME) !== 0) {
      if ((cpu.cr4 & CR4.PAE) === 0 || (cpu.segmentAttr(S.CS) & 0x2000) !== 0) raise(13, 0);
      cpu.set32(S.EFER, cpu.efer | EFER.LMA);
    } else if (!pg && old < 0 && (cpu.efer & EFER.LMA) !== 0) {
      if (cpu.is64 || (cpu.cr4 & CR4.PCIDE) !== 0) raise(13, 0);
      cpu.set32(S.EFER, cpu.efer & ~EFER.LMA);
    }
    cpu.set32(S.CR0, (low & (CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG)) | CR0.ET);
    if (((old ^ low) & (CR0.PG | CR0.WP | CR0.PE | CR0.AM)) !== 0) this.#paging.flush();
    this.updateFpuBlock();
    if (((old ^ low) & CR0.PE) !== 0) this.#segments.enterOrLeaveProtection();
    else this.#segments.updateMode();
  }

  #writeCr4(low: number, high: number): void {
    const cpu = this.#cpu;
    let allowed =
      CR4.VME | CR4.PVI | CR4.TSD | CR4.DE | CR4.PSE | CR4.PAE | CR4.MCE | CR4.PGE | CR4.PCE | CR4.OSFXSR | CR4.OSXMMEXCPT;
    if (this.#cpuid.has('umip')) allowed |= CR4.UMIP;
    if (this.#cpuid.has('pcid')) allowed |= CR4.PCIDE;
    if (this.#cpuid.has('fsgsbase')) allowed |= CR4.FSGSBASE;
    if (this.#cpuid.has('smep')) allowed |= CR4.SMEP;
    if (this.#cpuid.has('smap')) allowed |= CR4.SMAP;
    if (this.#cpuid.has('xsave')) allowed |= CR4.OSXSAVE;
    if (this.#cpuid.has('pku')) allowed |= CR4.PKE;
    if (this.#cpuid.has('pks')) allowed |= CR4.PKS;
    if (!this.#cpuid.has('vme')) allowed &= ~(CR4.VME | CR4.PVI);
    if (this.#cpuid.has('pcid')) allowed |= CR4.PCIDE;
    if (high !== 0 || (low & ~allowed) !== 0) raise(13, 0);
    if (cpu.isLongActive && (low & CR4.PAE) === 0) raise(13, 0);
    // PCIDs are for IA-32e mode, and begin with PCID 0 (SDM 3A, 4.10.1).
    if ((low & ~cpu.cr4 & CR4.PCIDE) !== 0 && (!cpu.isLongActive || (cpu.i32[S.CR3 >> 2] & 0xfff) !== 0)) raise(13, 0);
    const old = cpu.cr4;
    cpu.i32[S.CR4 >> 2] = low;
    if (((old ^ low) & CR4.DE) !== 0) cpu.breakpointsChanged();
    this.#paging.flush();
    this.updateFpuBlock();
  }

  // --- debug registers --------------------------------------------------------------------------------------------

  #drSlot(index: number): number {
    if (index === 4 || index === 5) {
      if ((this.#cpu.cr4 & CR4.DE) !== 0) raise(6);
      return S.DR + (index === 4 ? 4 : 5) * 8;
    }
    if (index > 7) raise(6);
    return S.DR + (index > 5 ? index - 2 : index) * 8;
  }
  #checkDebug(): void {
    const cpu = this.#cpu;
    const dr7 = S.DR + 40;
    if ((cpu.i32[dr7 >> 2] & 0x2000) !== 0) {
      cpu.i32[dr7 >> 2] &= ~0x2000;
      cpu.i32[(S.DR + 32) >> 2] |= 0x2000;
      raise(1);
    }
  }
  readDr(index: number): void {
    const slot = this.#drSlot(index);
    this.#checkDebug();
    this.#cpu.u64[S.TEMP >> 3] = this.#cpu.u64[slot >> 3];
  }
  writeDr(index: number, low: number, high: number): void {
    const cpu = this.#cpu;
    const slot = this.#drSlot(index);
    this.#checkDebug();
    if (slot >= S.DR + 32) {
      if (high !== 0) raise(13, 0);
      const fixed = slot === S.DR + 32 ? (low & 0xe00f) | (0xffff0ff0 | 0) : (low & 0xffff2fff) | 0x400;
      cpu.i32[slot >> 2] = fixed;
      cpu.i32[(slot >> 2) + 1] = 0;
      if (slot !== S.DR + 32) cpu.breakpointsChanged();
      return;
    }
    cpu.i32[slot >> 2] = low;
    cpu.i32[(slot >> 2) + 1] = high;
    if ((cpu.i32[(S.DR + 40) >> 2] & 0xff) !== 0) cpu.breakpointsChanged();
  }

  // --- model-specific registers -----------------------------------------------------------------------------------

  rdmsr(): void {
    const cpu = this.#cpu;
    const value = this.#read(cpu.u32[RCX]);
    cpu.setNumber(S.GPR, value.low >>> 0);
    cpu.setNumber(S.GPR + 16, value.high >>> 0);
  }

  #read(index: number): { low: number; high: number } {
    const cpu = this.#cpu;
    if (index === MSR.SPEC_CTRL && !this.#cpuid.has('spec-ctrl')) raise(13, 0);
    if (index === MSR.PKRS && !this.#cpuid.has('pks')) raise(13, 0);
    const slot = msrSlot(index);
    if (slot !== undefined) return { low: cpu.i32[slot >> 2], high: cpu.i32[(slot >> 2) + 1] };
    const check = readMachineCheck(cpu, index) ?? this.#pmu.readMsr(index);
    if (check !== undefined) return check;
    const apic = cpu.bus.readApicMsr(index);
    if (apic === false) raise(13, 0);
    if (apic !== undefined) return apic;
    const base = (segment: number): { low: number; high: number } => {
      const at = S.segment(segment) >> 2;
      return { low: cpu.i32[at], high: cpu.i32[at + 1] };
    };
    switch (index) {
      case 0x10: {
        const tsc = cpu.bus.tsc();
        return { low: tsc | 0, high: Math.floor(tsc / 4294967296) };
      }
      case 0xc0000080:
        return { low: cpu.efer, high: 0 };
      case 0x10a: // ARCH_CAPABILITIES
        if (!this.#cpuid.has('arch-capabilities')) raise(13, 0);
        return { low: NO_SPECULATION, high: 1 << 30 };
      case 0xda0: // XSS: no supervisor state
        if (!this.#cpuid.has('xsaves')) raise(13, 0);
        return { low: 0, high: 0 };
      case 0xc0000100:
        return base(S.FS);
      case 0xc0000101:
        return base(S.GS);
      case 0xfe: // MTRRcap: 8 variable ranges, fixed ranges, write combining
        return { low: 0x508, high: 0 };
      case 0x8b: // microcode revision, in the upper half
        return { low: 0, high: 1 };
      case 0x17:
      case 0x2a:
      case 0x3a: // feature control: locked
        return { low: index === 0x3a ? 1 : 0, high: 0 };
      case 0xce: // platform info: ratio 10 of 100 MHz
        return { low: 0x0a00, high: 0 };
      case 0xcd:
        return { low: 3, high: 0 };
      case 0x198: // performance status
        return { low: 0x0a00, high: 0 };
      // AMD: performance counters that count nothing, system and hardware configuration (BKDG for family 10h, 3.12).
      case 0xc0010000:
      case 0xc0010001:
      case 0xc0010002:
      case 0xc0010003:
      case 0xc0010004:
      case 0xc0010005:
      case 0xc0010006:
      case 0xc0010007:
      case 0xc0010010:
      case 0xc0010015:
      case 0xc001001f:
        if (!this.#cpuid.isAmd) raise(13, 0);
        return { low: 0, high: 0 };
      // Last-branch records: none kept.
      case 0x1db:
      case 0x1dc:
      case 0x1dd:
      case 0x1de:
      case 0x140: // MISC_FEATURES_ENABLES
      case 0x611:
      case 0x606:
        return { low: 0, high: 0 };
      default:
        raise(13, 0);
    }
  }

  /** `number`: the instruction's in its run. */
  wrmsr(number: number): void {
    const cpu = this.#cpu;
    this.#write(cpu.u32[RCX], cpu.i32[RAX], cpu.i32[RDX], number);
  }

  #write(index: number, low: number, high: number, number: number): void {
    const cpu = this.#cpu;
    const canonical = (): void => {
      if (!isCanonical(low, high)) raise(13, 0);
    };
    checkMemoryType(index, low, high);
    if (writeMachineCheck(cpu, index, low, high) || this.#pmu.writeMsr(index, low, high, number)) return;
    switch (index) {
      case MSR.LSTAR:
      case MSR.CSTAR:
      case MSR.KERNEL_GS_BASE:
      case MSR.SYSENTER_ESP:
      case MSR.SYSENTER_EIP:
        canonical();
        break;
      case MSR.TSC_ADJUST: {
        const slot = msrSlot(MSR.TSC_ADJUST) as number;
        const old = linear(cpu.i32[slot >> 2], cpu.i32[(slot >> 2) + 1]);
        cpu.bus.setTsc(cpu.bus.tsc() + linear(low, high) - old);
        break;
      }
      case MSR.KVM_SYSTEM_TIME:
      case MSR.KVM_WALL_CLOCK:
        cpu.bus.kvmClock(index, low, high);
        break;
      case MSR.SPEC_CTRL:
        // IBRS, STIBP, SSBD, BHI_DIS_S: kept, without effect.
        if (!this.#cpuid.has('spec-ctrl') || high !== 0 || (low & ~0x407) !== 0) raise(13, 0);
        break;
      case MSR.DEBUGCTL:
        // LBR is taken and records nothing; BTF is what single step looks at.
        if (high !== 0 || (low & ~3) !== 0) raise(13, 0);
        break;
      case MSR.PKRS:
        if (!this.#cpuid.has('pks') || high !== 0) raise(13, 0);
        this.#paging.flush();
        break;
      case MSR.SMBASE:
        raise(13, 0);
    }
    const slot = msrSlot(index);
    if (slot !== undefined) {
      cpu.i32[slot >> 2] = low;
      cpu.i32[(slot >> 2) + 1] = high;
      return;
    }
    const apic = cpu.bus.writeApicMsr(index, low, high);
    if (apic === false) raise(13, 0);
    if (apic === true) return;
    switch (index) {
      case 0x10:
        cpu.bus.setTsc((high >>> 0) * 4294967296 + (low >>> 0));
        return;
      case 0xc0000080: {
        const known =
          (this.#cpuid.has('syscall') ? EFER.SCE : 0) |
          (this.#cpuid.has('lm') ? EFER.LME : 0) |
          (this.#cpuid.has('nx') ? EFER.NXE : 0);
        if (high !== 0 || (low & ~(known | EFER.LMA)) !== 0) raise(13, 0);
        if (cpu.cr0 < 0 && ((cpu.efer ^ low) & EFER.LME) !== 0) raise(13, 0);
        cpu.set32(S.EFER, (low & known) | (cpu.efer & EFER.LMA));
        this.#paging.flush();
        return;
      }
      case 0xc0000100:
      case 0xc0000101: {
        canonical();
        const at = S.segment(index === 0xc0000100 ? S.FS : S.GS) >> 2;
        cpu.i32[at] = low;
        cpu.i32[at + 1] = high;
        return;
      }
      case 0x49: // PRED_CMD: nothing is predicted
        if (!this.#cpuid.has('spec-ctrl') || high !== 0 || (low & ~1) !== 0) raise(13, 0);
        return;
      case 0xda0:
        if (!this.#cpuid.has('xsaves') || low !== 0 || high !== 0) raise(13, 0);
        return;
      case 0xc0010000:
      case 0xc0010001:
      case 0xc0010002:
      case 0xc0010003:
      case 0xc0010004:
      case 0xc0010005:
      case 0xc0010006:
      case 0xc0010007:
      case 0xc0010010:
      case 0xc0010015:
      case 0xc001001f:
        if (!this.#cpuid.isAmd) raise(13, 0);
        return;
      case 0x8b: // microcode: a revision probe writes zero
      case 0x79:
      case 0x140:
        return;
      default:
        raise(13, 0);
    }
  }

  swapgs(): void {
    const cpu = this.#cpu;
    const at = S.segment(S.GS) >> 3;
    const slot = (msrSlot(MSR.KERNEL_GS_BASE) as number) >> 3;
    const base = cpu.u64[at];
    cpu.u64[at] = cpu.u64[slot];
    cpu.u64[slot] = base;
  }
}
