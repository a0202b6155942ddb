/**
 * The dispatcher of one vCPU on the translator: finds or decodes the records for a RIP, enters translated code, and
 * handles why it came back.
 *
 * A record's place tells the instruction's offset in its page; RIP_BASE tells the page. So runs of records belong to
 * physical pages and serve every linear address that the page is mapped at.
 */
import { Exit } from '../../ir/exit.ts';
import * as S from '../../memory/vcpu-state.ts';
import { Mode } from '../../x86/decode/decoder.ts';
import { sseHelpers } from '../../x86/fpu/sse-helpers.ts';
import { type Cpu, FLAG, GuestFault, isCanonical, lowOf } from '../../x86/system/cpu.ts';
import { RUN_ALONE } from '../../x86/system/debug.ts';
import type { System } from '../../x86/system/helpers.ts';
import type { VcpuTlbs } from '../../x86/system/paging.ts';
import { CodeCache } from './code-cache.ts';
import { ExitCause } from './exit-causes.ts';
import { codeHash, Handler } from './handlers.ts';
import { type RegionReply, wholeJob } from './region-compiler.ts';
import { Marks, type RegionJob } from './region-job.ts';
import { MAX_REGIONS, RegionTable } from './region-table.ts';
import type { RegionOptions } from './regions.ts';
import { LONGEST, RUN_RECORDS, RunDecoder } from './run-decoder.ts';
import type { TranslationListener } from './translation-log.ts';

export interface VcpuArena {
  /** Where records go, in the machine memory. */
  readonly records: number;
  readonly recordBytes: number;
}

/** What the vCPU asks of the thread that runs it. */
export interface VcpuHost {
  /** Handles STOP, INIT, SIPI, CALL and the like (bits of Pending); false: leave `run`. */
  service(pending: number): boolean;
  /** Blocks until something is pending. */
  idle(): void;
  /** Has a region made, perhaps by another thread. */
  requestRegion(job: RegionJob): void;
  /** The next region that was made; asked for after each request, and when Pending.REGIONS says that there are some. */
  takeRegion(): RegionReply | undefined;
}

/** The baseline module as a vCPU thread gets it, and how regions are made to go with it. */
export interface LinkedBaseline extends RegionOptions {
  readonly module: WebAssembly.Module;
  readonly handlers: number;
  /** Hot code is translated into regions. */
  readonly regions: boolean;
  /** Of the regions that are kept; undefined: hot code only is asked for. */
  readonly marks?: Int32Array;
  /** Tests: a region that cannot be made is an error. */
  readonly strict?: boolean;
}

export class JitVcpu {
  readonly system: System;
  readonly cpu: Cpu;
  readonly cache: CodeCache;
  readonly #decoder: RunDecoder;
  readonly #host: VcpuHost;
  readonly #data: DataView;
  /** The code table, and the jump cache. */
  readonly #table: Int32Array;
  readonly #jumps: Int32Array;
  /** The counters, by `ExitCause`. */
  readonly #counts: Float64Array;
  #run: (cpu: number, record: number) => number = () => Exit.RESYNC;
  /** Undefined: hot code stays on the baseline. */
  #regions: RegionTable | undefined;
  #strict = false;
  /** `leave` was called: `run` returns. */
  #leaving = false;
  /** Told of what is decoded and translated, for logs. */
  listener: TranslationListener | undefined;

  constructor(system: System, arena: VcpuArena, host: VcpuHost, allTlbs: readonly VcpuTlbs[]) {
    this.system = system;
    const { cpu } = system;
    this.cpu = cpu;
    this.#host = host;
    this.#data = cpu.memory.data;
    this.cache = new CodeCache(cpu.buffer, arena.records, arena.recordBytes, cpu.memory);
    this.#table = new Int32Array(cpu.buffer, cpu.at + S.CODE_TABLE_AT, S.CODE_TABLE_BYTES / 4);
    this.#table.fill(-1);
    this.#counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, S.PMU >> 3);
    this.#jumps = new Int32Array(cpu.buffer, cpu.at + S.JUMPS_AT, (S.JUMPS * S.JUMP_BYTES) / 4);
    this.#decoder = new RunDecoder(system, this.cache, allTlbs, this.#counts);
    this.#decoder.decoded = (run) => this.listener?.decoded(run);
  }

  /** Makes the baseline module's instance. */
  link(baseline: LinkedBaseline, memory: WebAssembly.Memory): void {
    this.#strict = baseline.strict === true;
    const table = new WebAssembly.Table({ element: 'anyfunc', initial: baseline.handlers + MAX_REGIONS });
    const all = {
      ...this.system.helpers,
      ...sseHelpers(this.cpu.buffer, this.cpu.at),
      check_page2: (record: number): number => this.#checkPage2(record),
      step_end: (record: number): number => this.#stepEnd(record),
    };
    const helpers = baseline.counting === true ? this.#noted(all) : all;
    const instance = new WebAssembly.Instance(baseline.module, { e: { memory, table }, h: helpers });
    this.#run = instance.exports.run as (cpu: number, record: number) => number;
    const imports = { memory, table, helpers, jump: instance.exports.jump };
    const marks = baseline.marks === undefined ? undefined : new Marks(baseline.marks);
    this.#regions = baseline.regions ? new RegionTable(this.cache, imports, baseline.handlers, marks) : undefined;
    this.#decoder.asks = baseline.regions && marks !== undefined;
  }

  /** The helpers, each of which says first for which record it is called: `retired` then is exact inside. */
  #noted(helpers: Record<string, (...operands: number[]) => number>): typeof helpers {
    const noted: typeof helpers = {};
    for (const [name, helper] of Object.entries(helpers))
      noted[name] = (record, ...operands) => {
        this.#current = record;
        const result = helper(record, ...operands);
        this.#current = 0;
        return result;
      };
    return noted;
  }
  #current = 0;
  /** Instructions retired up to now, where time is counted in them; from the vCPU's own thread. */
  get retired(): number {
    const before = this.#current === 0 ? 0 : this.system.numberOf(this.#current) - 1;
    return this.cpu.getNumber(S.INSTRUCTIONS) + before;
  }

  /** Has what the hot run at `record` reaches made into a region; the guest goes on meanwhile. */
  #translate(record: number): void {
    const page = this.cache.pageOf(record);
    const started = performance.now();
    const regions = this.#regions;
    if (page === undefined || regions === undefined || regions.isFull) return;
    const { cpu } = this;
    const base = cpu.getNumber(S.RIP_BASE);
    const offset = this.#data.getUint16(record + S.RECORD.offset, true);
    const mode = cpu.i32[S.MODE >> 2];
    const address = base + (cpu.is64 ? 0 : cpu.segmentBase(S.CS));
    const far = this.#data.getInt32(record, true) !== Handler.COUNT;
    const frame = (n: number): number => this.system.paging.fetched(base + n * 4096);
    const job = regions.request(record, { page, entry: offset, mode, far }, address, frame);
    this.#counts[ExitCause.MAKING_US] += (performance.now() - started) * 1000;
    if (job === undefined) return;
    if (!job.kept) this.listener?.translating(job, address);
    this.#host.requestRegion(job);
    this.#takeRegions();
  }

  #takeRegions(): void {
    const counts = this.#counts;
    const regions = this.#regions;
    for (let reply = this.#host.takeRegion(); reply !== undefined; reply = this.#host.takeRegion()) {
      const started = performance.now();
      // The baseline goes on with a run that no region was made of; a defect there must not end the machine. The count shows in `info jit`.
      if (this.#strict && reply.error !== undefined) throw new Error(reply.error);
      const made = regions?.install(reply, this.#decodeRun);
      if (made?.done === true) {
        counts[ExitCause.REGIONS]++;
        if (made.job.far) counts[ExitCause.FAR_REGIONS]++;
        if (made.job.kept && reply.region !== undefined) this.listener?.translating(wholeJob(made.job, reply.region), made.base);
        counts[ExitCause.REGION_BYTES] += reply.region?.size ?? 0;
      } else if (made?.job.kept === false) counts[ExitCause.DECLINED]++;
      counts[ExitCause.LIVE_REGIONS] = regions?.count ?? 0;
      counts[ExitCause.COMPILE_US] += reply.microseconds;
      counts[ExitCause.MAKING_US] += (performance.now() - started) * 1000;
    }
  }

  readonly #decodeRun = (page: number, offset: number, mode: number, address: number): number => {
    // An instruction that goes on in another page may fault.
    if (offset > 4096 - LONGEST || !this.cache.hasRoom(RUN_RECORDS + 4)) return 0;
    const record = this.#decoder.decode(page, this.cpu.memory.hostOf(page) + offset, offset, mode, address);
    this.cache.note(record, page);
    return record;
  };

  /** Runs until the host's `service` says to leave. */
  run(): void {
    const { cpu } = this;
    const state = cpu.i32;
    const counts = this.#counts;
    const { pmu } = this.system;
    this.#leaving = false;
    while (!this.#leaving) {
      if (state[S.PENDING >> 2] !== 0) {
        if (!this.#service()) return;
        // The host loaded a state in which this vCPU is halted.
        if (state[S.HALTED >> 2] !== 0) {
          this.#halt();
          continue;
        }
      }
      const record = this.#known() || this.#lookup();
      if (record === 0) continue;
      if (this.#alone) {
        this.#runAlone(record);
        continue;
      }
      state[S.CODE_HIT >> 2] = 0;
      if (pmu.active) pmu.enter();
      const code = this.#run(cpu.at, record);
      if (state[S.LEFT_AT >> 2] !== 0 || code === Exit.FAULT) this.#count(code);
      if (pmu.active) pmu.sync();
      switch (code) {
        case Exit.HOT: {
          const hot = state[S.STOPPED_AT >> 2];
          cpu.setNumber(S.NEXT_RIP, this.system.ripOf(hot));
          state[S.STOPPED_AT >> 2] = 0;
          this.#translate(hot);
          break;
        }
        case Exit.JUMP:
          counts[ExitCause.JUMP]++;
          break;
        case Exit.FAULT:
          counts[ExitCause.FAULT]++;
          this.#deliverFault();
          continue;
        case Exit.PENDING:
          counts[ExitCause.PENDING]++;
          break;
        case Exit.HALT:
          counts[ExitCause.HALT]++;
          this.#halt();
          break;
        case Exit.RESYNC:
          counts[ExitCause.RESYNC]++;
          cpu.setNumber(S.NEXT_RIP, this.system.ripOf(state[S.STOPPED_AT >> 2]));
          state[S.STOPPED_AT >> 2] = 0;
          break;
      }
    }
  }

  /** Adds what was retired of the run that translated code left in its middle. */
  #count(code: number): void {
    const { cpu } = this;
    // A fault says anyway where it was.
    const left = cpu.i32[(code === Exit.FAULT ? S.STOPPED_AT : S.LEFT_AT) >> 2];
    cpu.i32[S.LEFT_AT >> 2] = 0;
    const record = left & ~1;
    const number = this.system.numberOf(record);
    const before = (left & 1) !== 0 || code === Exit.FAULT || code === Exit.RESYNC;
    const retired = before || this.#data.getInt32(record, true) === Handler.STEP ? number - 1 : number;
    cpu.setNumber(S.INSTRUCTIONS, cpu.getNumber(S.INSTRUCTIONS) + retired);
  }

  /** Makes `run` return at the next opportunity; for the host's service. */
  leave(): void {
    this.#leaving = true;
  }

  // --- events -----------------------------------------------------------------------------------------------------

  #service(): boolean {
    const { cpu } = this;
    const state = cpu.i32;
    // Where it goes on may change here: the branch that left must not be linked to that.
    state[S.STOPPED_AT >> 2] = 0;
    let pending = Atomics.load(state, S.PENDING >> 2);
    // All that this asks for is to come here.
    if ((pending & S.Pending.DEBUG) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.DEBUG);
      this.system.debug.deliverDue();
    }
    if ((pending & S.Pending.FLUSH) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.FLUSH);
      this.system.paging.flush();
    }
    if ((pending & S.Pending.MACHINE_CHECK) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.MACHINE_CHECK);
      this.system.interrupts.exception(18, 0, cpu.getNumber(S.NEXT_RIP));
      state[S.HALTED >> 2] = 0;
    }
    if ((pending & S.Pending.SMI) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.SMI);
      this.system.smm.enter();
    }
    if ((pending & S.Pending.REGIONS) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.REGIONS);
      this.#takeRegions();
    }
    // Left the loop that may have remembered a page: that is all.
    Atomics.and(state, S.PENDING >> 2, ~S.Pending.PROTECT);
    if ((pending & S.Pending.PERFORMANCE) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.PERFORMANCE);
      this.system.pmu.due();
      // That may have asked for an interrupt.
      pending = Atomics.load(state, S.PENDING >> 2);
    }
    const rest = pending & ~OWN;
    if (rest !== 0) {
      if (!this.#host.service(rest)) return false;
      // It may have stood still there, and gone on with another state.
      pending = Atomics.load(state, S.PENDING >> 2);
    }
    if (state[S.SHADOW >> 2] !== 0) {
      if (state[S.SHADOW_RIP >> 2] === state[S.NEXT_RIP >> 2]) {
        // One instruction after STI or MOV SS goes first; the request stays and is seen at its end.
        this.#once = true;
        return true;
      }
      state[S.SHADOW >> 2] = 0;
    }
    if ((pending & S.Pending.NMI) !== 0 && this.system.takeNmi()) {
      this.system.interrupts.interrupt(2, 'external', cpu.getNumber(S.NEXT_RIP));
      state[S.HALTED >> 2] = 0;
    } else if ((pending & S.Pending.INTR) !== 0) {
      Atomics.and(state, S.PENDING >> 2, ~S.Pending.INTR);
      if ((state[S.EFLAGS >> 2] & FLAG.IF) === 0) state[S.INTR_WAIT >> 2] = 1;
      else {
        const vector = cpu.bus.acknowledge();
        if (vector >= 0) {
          this.#counts[ExitCause.INTERRUPT]++;
          this.system.interrupts.interrupt(vector, 'external', cpu.getNumber(S.NEXT_RIP));
          state[S.HALTED >> 2] = 0;
        }
      }
    }
    return true;
  }

  #halt(): void {
    const { cpu } = this;
    const state = cpu.i32;
    state[S.STOPPED_AT >> 2] = 0;
    if (Atomics.exchange(state, S.KICKED >> 2, 0) !== 0) return;
    state[S.HALTED >> 2] = 1;
    // An interrupt that waited for IF may have become deliverable by the STI before.
    this.system.unmask();
    this.system.pmu.halted(true);
    try {
      this.#sleep();
    } finally {
      this.system.pmu.halted(false);
    }
  }

  #sleep(): void {
    const state = this.cpu.i32;
    while (state[S.HALTED >> 2] !== 0 && !this.#leaving) {
      if (Atomics.load(state, S.PENDING >> 2) === 0) this.#host.idle();
      if (Atomics.exchange(state, S.KICKED >> 2, 0) !== 0) state[S.HALTED >> 2] = 0;
      if (state[S.PENDING >> 2] !== 0 && !this.#service()) {
        // Asked to leave while halted: stay halted for when it comes back.
        this.#leaving = true;
        return;
      }
    }
  }

  #deliverFault(): void {
    const { cpu } = this;
    const state = cpu.i32;
    const rip = this.system.ripOf(state[S.STOPPED_AT >> 2]);
    state[S.STOPPED_AT >> 2] = 0;
    const vector = state[S.EXCEPTION >> 2];
    const code = state[S.EXCEPTION_CODE >> 2];
    state[S.EXCEPTION >> 2] = -1;
    if (vector === RUN_ALONE) {
      cpu.setNumber(S.NEXT_RIP, rip);
      this.#once = true;
    } else this.system.interrupts.exception(vector, code, rip);
  }

  /** The next instruction runs alone. */
  #once = false;
  /** What `#lookup` found is one instruction that must run alone. */
  #alone = false;
  /** Linear address of what `#lookup` found. */
  #address = 0;

  /** Runs one instruction with all that debugging asks for before and after it. */
  #runAlone(record: number): void {
    const { cpu } = this;
    const { debug } = this.system;
    const state = cpu.i32;
    this.#once = false;
    if (!debug.begin(this.#address)) return;
    const rip = cpu.getNumber(S.NEXT_RIP);
    let last = record;
    while (this.#data.getInt32(last, true) !== Handler.STEP) last += S.RECORD_BYTES;
    const behind = this.system.ripOf(last);
    state[S.CODE_HIT >> 2] = 0;
    // No entry of the code table has such a key: branches come back here.
    const key = state[(S.CODE_KEY >> 2) + 1];
    state[(S.CODE_KEY >> 2) + 1] = key | ALONE_KEY;
    const stamp = state[S.JUMP_STAMP >> 2];
    state[S.JUMP_STAMP >> 2] = -1;
    const { pmu } = this.system;
    if (pmu.active) pmu.enter();
    const code = this.#run(cpu.at, record);
    if (state[S.LEFT_AT >> 2] !== 0 || code === Exit.FAULT) this.#count(code);
    if (pmu.active) pmu.sync();
    // A change of mode has set others.
    if (state[(S.CODE_KEY >> 2) + 1] === (key | ALONE_KEY)) state[(S.CODE_KEY >> 2) + 1] = key;
    if (state[S.JUMP_STAMP >> 2] === -1) state[S.JUMP_STAMP >> 2] = stamp;
    if (code === Exit.FAULT) {
      debug.abandon();
      this.#deliverFault();
      return;
    }
    if (code === Exit.RESYNC) {
      cpu.setNumber(S.NEXT_RIP, this.system.ripOf(state[S.STOPPED_AT >> 2]));
      state[S.STOPPED_AT >> 2] = 0;
      // It has not run where its own record went; where the end's went, it has.
      if (cpu.getNumber(S.NEXT_RIP) === rip) {
        debug.abandon();
        this.#once = true;
        return;
      }
    }
    state[S.STOPPED_AT >> 2] = 0;
    if (debug.end(cpu.getNumber(S.NEXT_RIP) !== behind)) return;
    if (code === Exit.HALT) this.#halt();
  }

  #stepEnd(record: number): number {
    const { cpu } = this;
    cpu.setNumber(S.NEXT_RIP, this.system.ripOf(record));
    cpu.i32[S.STOPPED_AT >> 2] = 0;
    return Exit.JUMP;
  }

  // --- finding records --------------------------------------------------------------------------------------------

  /** What the jump cache has for NEXT_RIP, with RIP_BASE prepared; 0: it must be looked up. */
  #known(): number {
    const { cpu } = this;
    const state = cpu.i32;
    // A branch may be linked there, or instructions run alone.
    if (state[S.STOPPED_AT >> 2] !== 0 || this.#once || !this.system.debug.isIdle()) return 0;
    const low = state[S.NEXT_RIP >> 2];
    const high = state[(S.NEXT_RIP >> 2) + 1];
    const stamp = state[S.JUMP_STAMP >> 2];
    const at = jumpIndex(low, high, stamp);
    const jumps = this.#jumps;
    if (jumps[at] !== low || jumps[at + 1] !== high || jumps[at + 2] !== stamp) return 0;
    const record = jumps[at + 3];
    if (this.#data.getInt32(record, true) === Handler.RESYNC) return 0;
    this.#alone = false;
    state[S.RIP_BASE >> 2] = low & ~0xfff;
    state[(S.RIP_BASE >> 2) + 1] = high;
    return record;
  }

  /** Finds or makes the records for NEXT_RIP and prepares RIP_BASE; 0: a fault was delivered instead. */
  #lookup(): number {
    const { cpu } = this;
    const state = cpu.i32;
    let mode = state[S.MODE >> 2];
    const ripLow = state[S.NEXT_RIP >> 2];
    const ripHigh = state[(S.NEXT_RIP >> 2) + 1];
    const rip = cpu.getNumber(S.NEXT_RIP);
    const mode64 = (mode & 3) === 2;
    let address: number;
    try {
      if (mode64) {
        if (!isCanonical(ripLow, ripHigh)) throw this.#fault(13, 0);
        address = rip;
      } else {
        if (rip > cpu.segmentLimit(S.CS)) throw this.#fault(13, 0);
        address = (cpu.segmentBase(S.CS) + rip) >>> 0;
      }
      const host = this.system.paging.fetch(address);
      if (host < 0) {
        // Code in a device window: nothing sensible runs there.
        throw this.#fault(13, 0);
      }
      const page = cpu.memory.pageOf(host);
      const offset = lowOf(address) & 0xfff;
      this.#address = address;
      this.#alone = this.#once || this.system.debug.wants(address);
      if (this.#alone) mode |= Mode.STEP;
      let record = this.cache.find(page, offset, mode);
      const from = state[S.STOPPED_AT >> 2];
      if (record === 0) {
        if (!this.cache.hasRoom(RUN_RECORDS + 4) || this.#regions?.isFull === true) {
          this.#dropCode();
          state[S.STOPPED_AT >> 2] = 0;
        }
        record = this.#decoder.decode(page, host, offset, mode, address);
        this.cache.note(record, page);
      }
      if (this.#alone) {
        // Neither linked nor cached, and its page neither: it is entered from here only.
        this.system.paging.forgetFetch(address);
        state[S.STOPPED_AT >> 2] = 0;
        cpu.setNumber(S.RIP_BASE, rip - offset);
        return record;
      }
      // Link a branch within the page: it stays right for as long as the page's records do.
      if (
        from !== 0 &&
        state[S.STOPPED_AT >> 2] === from &&
        cpu.getNumber(S.RIP_BASE) === rip - offset &&
        this.#samePage(from, page)
      )
        this.#data.setInt32(from + S.RECORD.link, record, true);
      state[S.STOPPED_AT >> 2] = 0;
      cpu.setNumber(S.RIP_BASE, rip - offset);
      const table = this.#table;
      const at = codeHash(page, offset) * (S.CODE_ENTRY_BYTES / 4);
      // What was there moves to the other way of the set.
      if (table[at] !== page || table[at + 1] !== ((mode << 12) | offset)) {
        const other = at ^ (S.CODE_ENTRY_BYTES / 4);
        for (let n = 0; n < 3; n++) table[other + n] = table[at + n];
      }
      table[at] = page;
      table[at + 1] = (mode << 12) | offset;
      table[at + 2] = record;
      // What the instruction TLB did not take may be another page soon, and nobody would say so.
      if (state[(S.CODE_KEY >> 2) + 1] >= 0 && this.system.paging.fetched(address) >= 0) {
        const stamp = state[S.JUMP_STAMP >> 2];
        const jump = jumpIndex(ripLow, ripHigh, stamp);
        this.#jumps[jump] = ripLow;
        this.#jumps[jump + 1] = ripHigh;
        this.#jumps[jump + 2] = stamp;
        this.#jumps[jump + 3] = record;
      }
      return record;
    } catch (problem) {
      if (!(problem instanceof GuestFault)) throw problem;
      state[S.STOPPED_AT >> 2] = 0;
      this.system.interrupts.exception(problem.vector, problem.code, rip);
      return 0;
    }
  }

  /** True where the branch record at `from` is live and belongs to a run of `page`. */
  #samePage(from: number, page: number): boolean {
    return this.#data.getInt32(from, true) !== Handler.RESYNC && this.#decoder.branches.get(from) === page;
  }

  readonly #thrown = new GuestFault();
  #fault(vector: number, code: number): GuestFault {
    this.#thrown.vector = vector;
    this.#thrown.code = code;
    return this.#thrown;
  }

  #dropCode(): void {
    this.cache.clear();
    this.#decoder.branches.clear();
    this.#regions?.clear();
    const counts = this.#counts;
    counts[ExitCause.DROPS]++;
    counts[ExitCause.CODE_BYTES] = 0;
    counts[ExitCause.LIVE_REGIONS] = 0;
    counts[ExitCause.REGION_BYTES] = 0;
    this.#table.fill(-1);
    this.system.paging.newStamps();
  }

  /** Drops everything that was translated; outside of translated code only. */
  dropAll(): void {
    this.#dropCode();
    this.cpu.i32[S.STOPPED_AT >> 2] = 0;
  }

  /** Code in a page of the backing was written: by this vCPU, another or a device. */
  invalidate(page: number): void {
    this.#counts[ExitCause.INVALIDATE]++;
    this.cpu.i32[S.CODE_HIT >> 2] = 1;
    this.cache.invalidate(page);
  }

  // --- straddling instructions --------------------------------------------------------------------------------------

  /** Checks that the second page of a straddling instruction is the one it was decoded from. */
  #checkPage2(record: number): number {
    const { cpu } = this;
    const rip = this.system.ripOf(record);
    const linearRip = cpu.is64 ? rip : (cpu.segmentBase(S.CS) + rip) >>> 0;
    const next = cpu.wrap(linearRip - (lowOf(linearRip) & 0xfff) + 4096);
    try {
      const host = this.system.paging.fetch(next);
      if (host >= 0 && cpu.memory.pageOf(host) === this.#data.getInt32(record + S.RECORD.disp, true)) return 0;
    } catch (problem) {
      if (!(problem instanceof GuestFault)) throw problem;
      cpu.i32[S.EXCEPTION >> 2] = problem.vector;
      cpu.i32[S.EXCEPTION_CODE >> 2] = problem.code;
      cpu.i32[S.STOPPED_AT >> 2] = record;
      return Exit.FAULT;
    }
    // Mapped elsewhere now: these records serve no longer. Where there is a COUNT record, the run is found by that.
    this.#data.setInt32(record, Handler.RESYNC, true);
    const { words } = this.cache;
    const before = this.cache.wordOf(record) - S.RECORD_BYTES / 4;
    if (words[before] === Handler.COUNT) words[before] = Handler.RESYNC;
    cpu.i32[S.STOPPED_AT >> 2] = record;
    return Exit.RESYNC;
  }
}

/** Requests that are served here. */
const OWN =
  S.Pending.FLUSH |
  S.Pending.PROTECT |
  S.Pending.REGIONS |
  S.Pending.DEBUG |
  S.Pending.INTR |
  S.Pending.NMI |
  S.Pending.MACHINE_CHECK |
  S.Pending.SMI |
  S.Pending.PERFORMANCE;

/** Word index of a RIP's entry in the jump cache; as `Lowering.jumpEntry` computes it. */
const jumpIndex = (low: number, high: number, stamp: number): number =>
  ((low ^ ((low >>> 12) | (high << 20)) ^ stamp) & (S.JUMPS - 1)) * (S.JUMP_BYTES / 4);

/** Set in the key of the code table while an instruction runs alone: nothing has such a key. */
const ALONE_KEY = 0x80000000 | 0;
