/** A bare machine for tests: one vCPU on flat memory, no devices; runs code that is given as bytes. */
import { PhysicalMemory } from '../../memory/physical.ts';
import * as S from '../../memory/vcpu-state.ts';
import { Cpu, type CpuBus, CR0, CR4, EFER } from '../../x86/system/cpu.ts';
import { Cpuid, cpuFeatures } from '../../x86/system/cpuid.ts';
import { System } from '../../x86/system/helpers.ts';
import { ExitCause } from './exit-causes.ts';
import { buildBaseline, HOT_ENTRIES } from './handlers.ts';
import { RegionCompiler, type RegionReply } from './region-compiler.ts';
import { Marks, type RegionJob } from './region-job.ts';
import { JitVcpu, type LinkedBaseline } from './vcpu.ts';

const RAM = 16 << 20;
const VCPU_AT = 0x10000;
/** After the vCPU's block, whatever its size is. */
const FLAGS_AT = Math.ceil((VCPU_AT + S.VCPU_BYTES) / 0x100000) * 0x100000;
const RECORDS_AT = FLAGS_AT + 0x100000;
const RECORD_BYTES = 8 << 20;
const RAM_AT = RECORDS_AT + RECORD_BYTES;
const PAGES = (RAM_AT + RAM) / 65536;

const compiled = new Map<number, LinkedBaseline>();

/** The baseline of bare machines. */
export function bareBaseline(hotEntries: number): LinkedBaseline {
  let baseline = compiled.get(hotEntries);
  if (baseline === undefined) {
    const built = buildBaseline({ memory64: false, initialPages: PAGES, maximumPages: PAGES, hotEntries });
    const module = new WebAssembly.Module(built.bytes);
    baseline = { ...built, module, memory64: false, regions: true, farEntries: 2 };
    compiled.set(hotEntries, baseline);
  }
  return baseline;
}

export class BareMachine {
  readonly memory: WebAssembly.Memory;
  readonly ram: PhysicalMemory;
  readonly cpu: Cpu;
  readonly system: System;
  readonly vcpu: JitVcpu;
  /** Ports written, in order. */
  readonly out: { port: number; size: number; value: number }[] = [];
  tripleFaulted = false;
  /** System management mode was entered (true) and left. */
  readonly smm: boolean[] = [];
  stopped = false;
  portIn: (port: number, size: number) => number = () => 0xffffffff;
  /** The vector that an interrupt request has. */
  acknowledge: () => number = () => -1;
  a20 = true;
  performanceInterrupt: () => void = () => {};
  /** Regions that were asked for; they are made at once unless `compiles` is false, else when a test puts them here. */
  readonly requests: RegionJob[] = [];
  readonly replies: RegionReply[] = [];
  compiles = true;
  compile: (job: RegionJob) => RegionReply;
  tsc: () => number = () => Math.floor(performance.now() * 1e6);

  /** `both`: code that was entered `hotEntries` times goes to the region tier, as in a machine; `region`: all code does, at once, and what is entered twice becomes a far region. */
  constructor(
    tier: 'baseline' | 'region' | 'both' = 'both',
    hotEntries = tier === 'region' ? 1 : HOT_ENTRIES,
    compiler?: RegionCompiler,
    marks?: Marks,
  ) {
    this.memory = new WebAssembly.Memory({ initial: PAGES, maximum: PAGES, shared: true });
    const buffer = this.memory.buffer;
    this.ram = new PhysicalMemory(
      {
        buffer,
        start: RAM_AT,
        end: RAM_AT + RAM,
        codePages: FLAGS_AT,
        dirtyPages: FLAGS_AT + 0x10000,
        codeGranules: FLAGS_AT + 0x20000,
      },
      RAM,
    );
    this.ram.setRegions([{ base: 0, length: RAM, host: RAM_AT, readOnly: false, name: 'ram' }]);
    const bus: CpuBus = {
      index: 0,
      count: 1,
      readPort: (port, size) => this.portIn(port, size),
      writePort: (port, size, value) => {
        this.out.push({ port, size, value });
        if (port === 0xf4) this.stop();
        if (port === 0xb2) Atomics.or(this.cpu.i32, S.PENDING >> 2, S.Pending.SMI);
      },
      readMmio: () => 0xffffffff,
      writeMmio: () => {},
      acknowledge: () => this.acknowledge(),
      tsc: () => this.tsc(),
      cycles: () => this.tsc(),
      setTsc: () => {},
      readApicMsr: () => undefined,
      writeApicMsr: () => undefined,
      performanceInterrupt: () => this.performanceInterrupt(),
      performanceTimer: () => {},
      readTpr: () => 0,
      writeTpr: () => {},
      kvmClock: () => {},
      kick: () => {},
      a20: () => this.a20,
      sendIpis: () => 0,
      setSmm: (inside) => {
        this.smm.push(inside);
      },
      relax: () => {},
      tripleFault: () => {
        this.tripleFaulted = true;
        this.stop();
      },
      random: () => 4,
      lockBus: () => {},
      unlockBus: () => {},
    };
    this.cpu = new Cpu(bus, this.ram, buffer, VCPU_AT);
    const features = cpuFeatures('max');
    if (features === undefined) throw new Error('no model max');
    this.system = new System(this.cpu, new Cpuid({ ...features.config, cpus: 1 }));
    const baseline = bareBaseline(hotEntries);
    const regions = compiler ?? new RegionCompiler(baseline, new Marks());
    this.compile = (job) => regions.compile(job);
    this.vcpu = new JitVcpu(
      this.system,
      { records: RECORDS_AT, recordBytes: RECORD_BYTES },
      {
        service: () => {
          Atomics.and(this.cpu.i32, S.PENDING >> 2, ~S.Pending.CALL);
          return !this.stopped;
        },
        idle: () => {
          this.stop();
        },
        requestRegion: (job) => {
          this.requests.push(job);
          if (this.compiles) this.replies.push(this.compile(job));
        },
        takeRegion: () => this.replies.shift(),
      },
      [{ state: this.cpu.i32, tlb: this.cpu.tlb }],
    );
    this.ram.codeWritten = (page) => {
      Atomics.store(this.ram.granules, page, 0);
      Atomics.store(this.ram.code, page, 0);
      this.vcpu.invalidate(page);
    };
    this.vcpu.link({ ...baseline, regions: tier !== 'baseline', strict: true, marks: marks?.words }, this.memory);
    this.system.registers.reset(false);
  }

  stop(): void {
    this.stopped = true;
    Atomics.or(this.cpu.i32, S.PENDING >> 2, S.Pending.STOP);
    this.vcpu.leave();
  }

  /** 64-bit mode with the first gigabyte mapped one to one, user and writable; page tables at 0x1000. */
  long(privilege = 0): void {
    const { ram, cpu, system } = this;
    ram.write64(0x1000, 0x2007);
    ram.write64(0x2000, 0x3007);
    for (let n = 0; n < 512; n++) ram.write64(0x3000 + n * 8, n * 0x200000 + 0x87);
    cpu.set32(S.CR4, CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT);
    cpu.set32(S.CR3, 0x1000);
    cpu.set32(S.EFER, EFER.LME | EFER.LMA | EFER.SCE | EFER.NXE);
    cpu.set32(S.CR0, CR0.PE | CR0.PG | CR0.ET | CR0.NE | CR0.WP);
    cpu.set32(S.CPL, privilege);
    system.segments.set(S.CS, 8 | privilege, 0, 0xffffffff, 0xa09b | (privilege << 5));
    for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS])
      system.segments.set(index, 16 | privilege, 0, 0xffffffff, 0xc093 | (privilege << 5));
    system.registers.updateFpuBlock();
    system.paging.flush();
    system.segments.updateMode();
  }

  /** 32-bit flat protected mode without paging. */
  flat32(privilege = 0): void {
    const { cpu, system } = this;
    cpu.set32(S.CR4, CR4.OSFXSR | CR4.OSXMMEXCPT);
    cpu.set32(S.CR0, CR0.PE | CR0.ET | CR0.NE);
    cpu.set32(S.CPL, privilege);
    system.segments.set(S.CS, 8 | privilege, 0, 0xffffffff, 0xc09b | (privilege << 5));
    for (const index of [S.ES, S.SS, S.DS, S.FS, S.GS])
      system.segments.set(index, 16 | privilege, 0, 0xffffffff, 0xc093 | (privilege << 5));
    system.registers.updateFpuBlock();
    system.paging.flush();
    system.segments.updateMode();
  }

  /** Puts code at `address` and runs from there until HLT, an OUT to port 0xf4, or a triple fault. */
  execute(code: Uint8Array, address = 0x100000): void {
    this.ram.write(address, code);
    this.cpu.setNumber(S.NEXT_RIP, address);
    this.stopped = false;
    this.cpu.i32[S.HALTED >> 2] = 0;
    Atomics.and(this.cpu.i32, S.PENDING >> 2, ~S.Pending.STOP);
    this.vcpu.run();
  }

  /** Regions that were put into the vCPU's table. */
  get regions(): number {
    return this.cpu.f64[(S.EXIT_COUNTS >> 3) + ExitCause.REGIONS];
  }
  register(index: number): bigint {
    return this.cpu.u64[(S.GPR >> 3) + index];
  }
  setRegister(index: number, value: bigint): void {
    this.cpu.u64[(S.GPR >> 3) + index] = BigInt.asUintN(64, value);
  }
}
