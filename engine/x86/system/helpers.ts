/**
 * The long helpers by the names that emitters call them: `(record, ...operands) => number`. What leaves translated
 * code gives an `Exit`; a `GuestFault` thrown inside becomes Exit.FAULT at the instruction of the record.
 */
import { Exit } from '../../ir/exit.ts';
import * as S from '../../memory/vcpu-state.ts';
import { avxHelpers } from '../fpu/avx-memory.ts';
import { type Area, Xsave } from '../fpu/xsave.ts';
import { type Cpu, CR0, CR4, EFER, FLAG, GuestFault, isCanonical, linear, lowOf, raise } from './cpu.ts';
import type { Cpuid } from './cpuid.ts';
import { crc32c } from './crc32c.ts';
import { Debug } from './debug.ts';
import { decimalAdjust, divide128 } from './decimal.ts';
import { FpuUnit } from './fpu-unit.ts';
import { Interrupts } from './interrupts.ts';
import { MSR, readMsr64 } from './msr-numbers.ts';
import { Paging } from './paging.ts';
import { Pmu } from './pmu.ts';
import { Registers } from './registers.ts';
import { ATTR, dpl, isCode, isConforming, isPresent, Segments } from './segments.ts';
import { SystemManagement } from './smm.ts';
import { Strings } from './strings.ts';
import { Transfers } from './transfers.ts';
import { VirtualInterrupts } from './virtual-interrupts.ts';

/** PAUSEs after which the host's core is offered to others; a power of two. */
const RELAX_AFTER = 4096;
/** KVM's hypercalls and their errors. */
const HYPERCALL = { KICK_CPU: 5, SEND_IPI: 10, EPERM: 1, ENOSYS: 1000 } as const;

export type Helper = (record: number, ...operands: number[]) => number;

const RAX = S.GPR;
const RBX = S.GPR + 24;
const RCX = S.GPR + 8;
const RDX = S.GPR + 16;
const RSP = S.GPR + 32;

export class System {
  readonly cpu: Cpu;
  readonly paging: Paging;
  readonly segments: Segments;
  readonly interrupts: Interrupts;
  readonly pmu: Pmu;
  readonly registers: Registers;
  readonly debug: Debug;
  readonly transfers: Transfers;
  readonly virtual: VirtualInterrupts;
  readonly smm: SystemManagement;
  readonly strings: Strings;
  readonly cpuid: Cpuid;
  readonly fpu: FpuUnit;
  readonly xsave: Xsave;
  readonly helpers: Readonly<Record<string, Helper>>;
  readonly #data: DataView;

  constructor(cpu: Cpu, cpuid: Cpuid) {
    this.cpu = cpu;
    this.cpuid = cpuid;
    this.paging = new Paging(cpu);
    this.segments = new Segments(cpu);
    this.interrupts = new Interrupts(cpu, this.segments);
    this.pmu = new Pmu(cpu, cpuid);
    this.registers = new Registers(cpu, this.paging, this.segments, cpuid, this.pmu);
    this.virtual = new VirtualInterrupts(cpu);
    this.smm = new SystemManagement(cpu, this.paging, this.segments, this.registers);
    this.transfers = new Transfers(cpu, this.segments, this.interrupts, this.virtual);
    this.debug = new Debug(
      cpu,
      (rip) => this.interrupts.exception(1, 0, rip),
      () => this.paging.flush(),
    );
    this.paging.watches = (address) => this.debug.watches(address);
    this.strings = new Strings(cpu, this.debug, { check: (port, bytes) => this.checkPort(port, bytes) });
    this.fpu = new FpuUnit(cpu);
    this.xsave = new Xsave(cpu, this.fpu.state, (feature) => cpuid.has(feature));
    this.#data = new DataView(cpu.buffer);
    cpu.modeChanged = () => this.paging.selectTlb();
    this.helpers = this.#make();
  }

  // --- records ----------------------------------------------------------------------------------------------------

  /** RIP of a record's instruction. */
  ripOf(record: number): number {
    return this.#keep(this.cpu.getNumber(S.RIP_BASE) + this.#data.getUint16(record + S.RECORD.offset, true));
  }
  /** A record's instruction's number in its run, from 1. */
  numberOf(record: number): number {
    const direct = this.#data.getUint16(record + S.RECORD.a, true) === S.DIRECT;
    return this.#data.getInt32(record + (direct ? S.RECORD.disp : S.RECORD.link), true);
  }
  /** RIP after it. */
  nextOf(record: number): number {
    return this.#keep(
      this.cpu.getNumber(S.RIP_BASE) +
        this.#data.getUint16(record + S.RECORD.offset, true) +
        this.#data.getUint8(record + S.RECORD.length),
    );
  }
  #keep(rip: number): number {
    return this.cpu.is64 ? rip : rip >>> 0;
  }
  #segmentSlot(record: number): number {
    return this.#data.getUint16(record + S.RECORD.segment, true);
  }

  // --- shared checks ----------------------------------------------------------------------------------------------

  checkPort(port: number, bytes: number): void {
    const cpu = this.cpu;
    this.debug.port(port, bytes);
    if (!cpu.isProtected) return;
    if (!cpu.isVirtual8086 && cpu.cpl <= ((cpu.i32[S.EFLAGS >> 2] >> 12) & 3)) return;
    const attr = cpu.segmentAttr(S.TR);
    const limit = cpu.segmentLimit(S.TR);
    if (!isPresent(attr) || (attr & 8) === 0 || limit < 103) raise(13, 0);
    const base = cpu.segmentBase(S.TR);
    const map = cpu.read16(base + 102, false) + (port >> 3);
    if (map + 1 > limit) raise(13, 0);
    const bits = cpu.read16(base + map, false) >> (port & 7);
    if ((bits & ((1 << bytes) - 1)) !== 0) raise(13, 0);
  }

  /**
   * Takes an NMI that was requested, unless one is being served. Of those that came meanwhile one waits for IRET, no
   * more; of two that came before the first was taken none is lost.
   */
  takeNmi(): boolean {
    const { i32 } = this.cpu;
    Atomics.and(i32, S.PENDING >> 2, ~S.Pending.NMI);
    const state = i32[S.NMI >> 2];
    const count = Atomics.exchange(i32, S.NMI_REQUESTS >> 2, 0) + ((state & S.Nmi.WAITS) !== 0 ? 1 : 0);
    const blocked = (state & S.Nmi.BLOCKED) !== 0;
    if (count === 0) return false;
    i32[S.NMI >> 2] = S.Nmi.BLOCKED | (blocked || count > 1 ? S.Nmi.WAITS : 0);
    return !blocked;
  }
  /** IRET, also one that faults, lets NMIs in again (SDM 3A, 6.7.1). */
  #unblockNmi(): void {
    const { i32 } = this.cpu;
    const state = i32[S.NMI >> 2];
    if (state === 0) return;
    i32[S.NMI >> 2] = state & S.Nmi.WAITS;
    if ((state & S.Nmi.WAITS) !== 0) Atomics.or(i32, S.PENDING >> 2, S.Pending.NMI);
  }

  /** After IF may have become set: a waiting interrupt becomes a request again. */
  unmask(): void {
    const cpu = this.cpu;
    if (cpu.i32[S.INTR_WAIT >> 2] !== 0 && (cpu.i32[S.EFLAGS >> 2] & FLAG.IF) !== 0) {
      cpu.i32[S.INTR_WAIT >> 2] = 0;
      Atomics.or(cpu.i32, S.PENDING >> 2, S.Pending.INTR);
    }
  }

  #jumped(): number {
    this.cpu.i32[S.STOPPED_AT >> 2] = 0;
    this.unmask();
    return Exit.JUMP;
  }

  #requireProtected(): void {
    if (!this.cpu.isProtected || this.cpu.isVirtual8086) raise(6);
  }
  #requireCpl0(): void {
    if (this.cpu.cpl !== 0) raise(13, 0);
  }
  #umip(): void {
    if ((this.cpu.cr4 & CR4.UMIP) !== 0 && this.cpu.cpl !== 0) raise(13, 0);
  }

  /** A descriptor for LAR, LSL, VERR and VERW; undefined where it may not be seen. */
  #visible(selector: number, systemTypes: number): { attr: number; limit: number } | undefined {
    const cpu = this.cpu;
    if ((selector & 0xfffc) === 0) return undefined;
    let descriptor: { attr: number; limit: number };
    try {
      descriptor = this.segments.descriptor(selector);
    } catch (problem) {
      if (problem instanceof GuestFault && problem.vector === 13) return undefined;
      throw problem;
    }
    const { attr } = descriptor;
    if ((attr & ATTR.S) === 0 && ((systemTypes >> (attr & 15)) & 1) === 0) return undefined;
    if (!(isCode(attr) && isConforming(attr)) && (cpu.cpl > dpl(attr) || (selector & 3) > dpl(attr))) return undefined;
    return descriptor;
  }
  #setZero(on: boolean): void {
    const cpu = this.cpu;
    cpu.setArithmetic(on ? cpu.eflags | FLAG.ZF : cpu.eflags & ~FLAG.ZF);
  }

  /** The linear address of an operand; #GP(0), or #SS(0) through the stack segment, where it is not canonical. */
  #operandAt(record: number, low: number, high: number): number {
    if (this.cpu.is64 && !isCanonical(low, high)) raise(this.#segmentSlot(record) === S.segment(S.SS) ? 12 : 13, 0);
    return linear(low, high);
  }
  #tableStore(record: number, index: number, low: number, high: number): void {
    const cpu = this.cpu;
    this.#umip();
    const user = cpu.cpl === 3;
    const address = this.#operandAt(record, low, high);
    cpu.write16(address, cpu.segmentLimit(index) & 0xffff, user);
    if (cpu.is64) cpu.write64(cpu.wrap(address + 2), cpu.segmentBase(index), user);
    else cpu.write32(cpu.wrap(address + 2), cpu.i32[S.segment(index) >> 2], user);
  }
  #tableLoad(record: number, index: number, low: number, high: number, size: number): void {
    const cpu = this.cpu;
    this.#requireCpl0();
    const address = this.#operandAt(record, low, high);
    const limit = cpu.read16(address, false);
    let base: number;
    if (cpu.is64) {
      const [lower, upper] = [cpu.read32(address + 2, false), cpu.read32(address + 6, false)];
      if (!isCanonical(lower, upper)) raise(13, 0);
      base = linear(lower, upper);
    } else {
      base = cpu.read32(cpu.wrap(address + 2), false) >>> 0;
      if (size === 16) base &= 0xffffff;
    }
    this.segments.set(index, 0, base, limit, 0);
  }

  /** An access has faulted: a non-canonical address through the stack segment is #SS. Gives 0. */
  #noAddress(record: number): number {
    const { cpu } = this;
    if (cpu.i32[S.EXCEPTION >> 2] !== 13) return 0;
    // PUSH, POP and CALL of memory use two addresses: the one at the stack pointer or just below is the stack's.
    const slot = this.#segmentSlot(record);
    const below = (cpu.i32[RSP >> 2] - cpu.i32[S.SLOW_POINTER >> 2]) | 0;
    const atStack = below === 8 || below === 2 || below === 0;
    if (slot === S.segment(S.SS) || (slot !== S.ZERO && atStack)) cpu.i32[S.EXCEPTION >> 2] = 12;
    return 0;
  }

  // --- the table --------------------------------------------------------------------------------------------------

  #make(): Record<string, Helper> {
    const { cpu, paging, segments, registers, transfers, interrupts, virtual, pmu } = this;
    /** A helper that may fault and otherwise lets translated code go on. */
    const on =
      (body: (record: number, ...operands: number[]) => void): Helper =>
      (record, ...operands) => {
        try {
          body(record, ...operands);
          return 0;
        } catch (problem) {
          return this.#fault(problem, record);
        }
      };
    /** One that goes on at NEXT_RIP. */
    const away =
      (body: (record: number, ...operands: number[]) => void): Helper =>
      (record, ...operands) => {
        try {
          body(record, ...operands);
          return this.#jumped();
        } catch (problem) {
          return this.#fault(problem, record);
        }
      };
    /** One after which decoding may differ: goes on at the next instruction by way of the dispatcher. */
    const sync = (body: (record: number, ...operands: number[]) => void): Helper =>
      away((record, ...operands) => {
        const next = this.nextOf(record);
        body(record, ...operands);
        cpu.setNumber(S.NEXT_RIP, next);
      });
    const privileged =
      (body: (record: number, ...operands: number[]) => void) =>
      (record: number, ...operands: number[]): void => {
        this.#requireCpl0();
        body(record, ...operands);
      };
    const area = (record: number, low: number, high: number): Area => ({
      low,
      high,
      stack: this.#segmentSlot(record) === S.segment(S.SS),
    });
    const software = (vector: number): Helper =>
      away((record) => {
        interrupts.deliver(vector, 0, 'software', this.nextOf(record));
        cpu.trapRule = 'none';
      });

    return {
      // Memory.
      slow_load: (record, bytes) => paging.slowLoad(bytes) || this.#noAddress(record),
      slow_store: (record, flags) => paging.slowStore(flags) || this.#noAddress(record),
      slow_store_end: () => {
        paging.slowStoreEnd();
        return 0;
      },
      slow_rmw: (record, flags) => paging.slowRmw(flags) || this.#noAddress(record),
      slow_rmw_end: () => {
        paging.slowRmwEnd();
        return 0;
      },
      segment_fault: on((_record, slot) => raise(slot === S.segment(S.SS) ? 12 : 13, 0)),
      probe_stack: on((_record, bytes, width) => {
        const rsp = cpu.getNumber(S.GPR + 32);
        const user = cpu.cpl === 3;
        if (width === 64) return;
        const mask = width === 32 ? 0xffffffff : 0xffff;
        // Eight pushes in their order.
        for (let n = 1; n <= 8; n++) {
          const offset = ((rsp - n * bytes) & mask) >>> 0;
          const at = cpu.stackAddress(offset, bytes);
          cpu.translate(at, true, user);
          if ((at & 0xfff) + bytes > 4096) cpu.translate((at - (at & 0xfff) + 4096) >>> 0, true, user);
        }
      }),
      // Segments and far transfers.
      load_segment: on((record, slot, selector) => {
        segments.load((slot - S.SEGMENTS) / S.SEGMENT_SIZE, selector & 0xffff);
        if (slot === S.segment(S.SS)) {
          cpu.i32[S.SHADOW >> 2] = S.Shadow.STACK;
          cpu.i32[S.SHADOW_RIP >> 2] = lowOf(this.nextOf(record));
        }
      }),
      call_far: away((record, offset, selector, size) =>
        transfers.far(selector & 0xffff, size === 16 ? offset & 0xffff : offset >>> 0, size, true, this.nextOf(record)),
      ),
      jmp_far: away((record, offset, selector, size) =>
        transfers.far(selector & 0xffff, size === 16 ? offset & 0xffff : offset >>> 0, size, false, this.nextOf(record)),
      ),
      call_far_m: away((record, low, high, selector, size) =>
        transfers.far(selector & 0xffff, size === 64 ? linear(low, high) : low >>> 0, size, true, this.nextOf(record)),
      ),
      jmp_far_m: away((record, low, high, selector, size) =>
        transfers.far(selector & 0xffff, size === 64 ? linear(low, high) : low >>> 0, size, false, this.nextOf(record)),
      ),
      ret_far: away((_record, extra, size) => transfers.farReturn(size, extra)),
      iret: away((record, size) => {
        cpu.setNumber(S.NEXT_RIP, this.nextOf(record));
        this.#unblockNmi();
        transfers.iret(size);
      }),
      int: away((record, vector) => {
        if (!cpu.isVirtual8086 || virtual.redirect(vector & 0xff))
          interrupts.deliver(vector & 0xff, 0, 'software', this.nextOf(record));
        else interrupts.inside8086(vector & 0xff, virtual.image(), virtual.masks(), this.nextOf(record));
        cpu.trapRule = 'none';
      }),
      int3: software(3),
      into: software(4),
      int1: away((record) => {
        this.debug.mergeHits();
        interrupts.deliver(1, 0, 'exception', this.nextOf(record));
        cpu.trapRule = 'none';
      }),
      syscall: away((record) => {
        transfers.syscall(this.nextOf(record));
        this.debug.leavesTrap();
      }),
      sysret: away((_record, size) => {
        this.#requireProtected();
        this.#requireCpl0();
        transfers.sysret(size);
        this.debug.leavesTrap();
      }),
      sysenter: away(() => transfers.sysenter()),
      sysexit: away((_record, size) => {
        this.#requireProtected();
        this.#requireCpl0();
        transfers.sysexit(size);
      }),
      enter: on((_record, allocate, level, size) => transfers.enter(allocate, level, size)),
      hlt: (record) => {
        try {
          this.#requireCpl0();
          cpu.setNumber(S.NEXT_RIP, this.nextOf(record));
          return Exit.HALT;
        } catch (problem) {
          return this.#fault(problem, record);
        }
      },
      // Flags.
      pushf_virtual: on((_record, bits) => {
        virtual.check(bits);
        cpu.i32[S.TEMP >> 2] = virtual.image();
      }),
      popf_virtual: on((_record, image, bits) => virtual.checkImage(image, bits)),
      popf: (_record, image, bits) => {
        transfers.popf(image, bits);
        this.unmask();
        if ((cpu.i32[S.EFLAGS >> 2] & FLAG.TF) !== 0) Atomics.or(cpu.i32, S.PENDING >> 2, S.Pending.DEBUG);
        return 0;
      },
      cli: on(() => virtual.setFlag(false)),
      sti: on(() => virtual.setFlag(true)),
      unmask_interrupts: () => {
        this.unmask();
        return 0;
      },
      set_ac: on((_record, set) => {
        if (cpu.cpl !== 0 || !this.cpuid.has('smap')) raise(6);
        if (set !== 0) cpu.i32[S.EFLAGS >> 2] |= FLAG.AC;
        else cpu.i32[S.EFLAGS >> 2] &= ~FLAG.AC;
        paging.selectTlb();
      }),
      // Arithmetic.
      daa: (_record, flags, ax) => decimalAdjust('daa', flags, ax, 0),
      das: (_record, flags, ax) => decimalAdjust('das', flags, ax, 0),
      aaa: (_record, flags, ax) => decimalAdjust('aaa', flags, ax, 0),
      aas: (_record, flags, ax) => decimalAdjust('aas', flags, ax, 0),
      aam: (_record, flags, ax, imm) => decimalAdjust('aam', flags, ax, imm & 0xff),
      aad: (_record, flags, ax, imm) => decimalAdjust('aad', flags, ax, imm & 0xff),
      div128: on((_record, low, high) => divide128(cpu, low, high, false)),
      idiv128: on((_record, low, high) => divide128(cpu, low, high, true)),
      crc32c: (_record, crc, data, bits) => crc32c(crc, data, bits),
      cmpxchg16b: on((record, low, high) => {
        if (!isCanonical(low, high)) raise(this.#segmentSlot(record) === S.segment(S.SS) ? 12 : 13, 0);
        this.#cmpxchg16b(linear(low, high));
      }),
      // Strings.
      string: (record, what) => {
        try {
          if (this.strings.run(what, this.#segmentSlot(record))) return 0;
          cpu.setNumber(S.NEXT_RIP, this.ripOf(record));
          this.debug.repeats = true;
          return this.#jumped();
        } catch (problem) {
          return this.#fault(problem, record);
        }
      },
      xlat: on((record, width) => this.strings.xlat(width, this.#segmentSlot(record))),
      // Ports.
      in: on((_record, port, bytes) => {
        this.checkPort(port, bytes);
        cpu.u32[S.TEMP >> 2] = cpu.bus.readPort(port, bytes as 1 | 2 | 4);
      }),
      out: on((_record, port, bytes, value) => {
        this.checkPort(port, bytes);
        cpu.bus.writePort(port, bytes as 1 | 2 | 4, (bytes === 4 ? value : bytes === 2 ? value & 0xffff : value & 0xff) >>> 0);
      }),
      // System registers.
      sldt: on(() => {
        this.#requireProtected();
        this.#umip();
        cpu.i32[S.TEMP >> 2] = cpu.selector(S.LDTR);
      }),
      str: on(() => {
        this.#requireProtected();
        this.#umip();
        cpu.i32[S.TEMP >> 2] = cpu.selector(S.TR);
      }),
      lldt: on((_record, given) => {
        this.#requireProtected();
        this.#requireCpl0();
        const selector = given & 0xffff;
        if ((selector & 0xfffc) === 0) {
          segments.set(S.LDTR, selector, 0, 0, 0);
          return;
        }
        if ((selector & 4) !== 0) raise(13, selector & 0xfffc);
        const descriptor = segments.descriptor(selector);
        if ((descriptor.attr & 31) !== 2) raise(13, selector & 0xfffc);
        if (!isPresent(descriptor.attr)) raise(11, selector & 0xfffc);
        segments.set(S.LDTR, selector, segments.systemBase(descriptor, selector), descriptor.limit, descriptor.attr);
      }),
      ltr: on((_record, given) => {
        this.#requireProtected();
        this.#requireCpl0();
        const selector = given & 0xffff;
        if ((selector & 0xfffc) === 0) raise(13, 0);
        if ((selector & 4) !== 0) raise(13, selector & 0xfffc);
        const descriptor = segments.descriptor(selector);
        const type = descriptor.attr & 31;
        if (type !== 9 && !(type === 1 && !cpu.isLongActive)) raise(13, selector & 0xfffc);
        if (!isPresent(descriptor.attr)) raise(11, selector & 0xfffc);
        const base = segments.systemBase(descriptor, selector);
        cpu.writeByte(descriptor.at + 5, (descriptor.attr & 0xff) | 2, false);
        segments.set(S.TR, selector, base, descriptor.limit, descriptor.attr | 2);
      }),
      verr: on((_record, selector) => {
        this.#requireProtected();
        const seen = this.#visible(selector & 0xffff, 0);
        this.#setZero(seen !== undefined && ((seen.attr & ATTR.CODE) === 0 || (seen.attr & ATTR.RW) !== 0));
      }),
      verw: on((_record, selector) => {
        this.#requireProtected();
        const seen = this.#visible(selector & 0xffff, 0);
        this.#setZero(seen !== undefined && (seen.attr & (ATTR.CODE | ATTR.RW)) === ATTR.RW);
      }),
      lar: on((_record, selector) => {
        this.#requireProtected();
        const seen = this.#visible(selector & 0xffff, cpu.isLongActive ? 0x1a04 : 0x1a3e);
        cpu.i32[(S.TEMP >> 2) + 2] = seen === undefined ? 0 : 1;
        if (seen !== undefined) cpu.setNumber(S.TEMP, ((seen.attr & 0xf0ff) << 8) >>> 0);
      }),
      lsl: on((_record, selector) => {
        this.#requireProtected();
        const seen = this.#visible(selector & 0xffff, cpu.isLongActive ? 0x0a04 : 0x0a0e);
        cpu.i32[(S.TEMP >> 2) + 2] = seen === undefined ? 0 : 1;
        if (seen !== undefined) cpu.setNumber(S.TEMP, seen.limit);
      }),
      sgdt: on((record, low, high) => this.#tableStore(record, S.GDTR, low, high)),
      sidt: on((record, low, high) => this.#tableStore(record, S.IDTR, low, high)),
      lgdt: on((record, low, high, size) => this.#tableLoad(record, S.GDTR, low, high, size)),
      lidt: on((record, low, high, size) => this.#tableLoad(record, S.IDTR, low, high, size)),
      check_umip: on(() => this.#umip()),
      check_writable: on((_record, slot) => {
        if (slot !== S.ZERO && (cpu.i32[(slot + S.SEG_ACCESS) >> 2] & 2) === 0) raise(slot === S.segment(S.SS) ? 12 : 13, 0);
      }),
      check_protected: on(() => this.#requireProtected()),
      lmsw: sync(
        privileged((_record, value) => {
          registers.writeCr0((cpu.cr0 & ~14) | (value & 15) | (cpu.cr0 & 1), 0);
        }),
      ),
      invlpg: on((_record, low, high) => {
        this.#requireCpl0();
        paging.flushPage(linear(low, high));
      }),
      read_cr: on(privileged((_record, index) => registers.readCr(index))),
      write_cr: sync(privileged((_record, index, low, high) => registers.writeCr(index, low, high))),
      read_dr: on(privileged((_record, index) => registers.readDr(index))),
      write_dr: sync(privileged((_record, index, low, high) => registers.writeDr(index, low, high))),
      rdmsr: on(
        privileged((record) => {
          pmu.syncAt(this.numberOf(record));
          registers.rdmsr();
        }),
      ),
      wrmsr: on(
        privileged((record) => {
          const number = this.numberOf(record);
          pmu.syncAt(number);
          registers.wrmsr(number);
        }),
      ),
      vmcall: on(() => this.#hypercall()),
      rdpkru: on(() => {
        this.#keysEnabled();
        cpu.setNumber(RAX, cpu.pkru >>> 0);
        cpu.setNumber(RDX, 0);
      }),
      wrpkru: on(() => {
        this.#keysEnabled();
        if (cpu.i32[RDX >> 2] !== 0) raise(13, 0);
        cpu.pkru = cpu.i32[RAX >> 2];
      }),
      swapgs: on(privileged(() => registers.swapgs())),
      write_segment_base: on((_record, index, low, high) => {
        const at = S.segment(index) >> 2;
        const top = high >> 15;
        if (top !== 0 && top !== -1) raise(13, 0);
        cpu.i32[at] = low;
        cpu.i32[at + 1] = high;
      }),
      cpuid: on(() => {
        const result = this.cpuid.query(cpu, cpu.i32[RAX >> 2], cpu.i32[RCX >> 2]);
        cpu.setNumber(RAX, result.eax >>> 0);
        cpu.setNumber(RBX, result.ebx >>> 0);
        cpu.setNumber(RCX, result.ecx >>> 0);
        cpu.setNumber(RDX, result.edx >>> 0);
      }),
      rdtsc: on(() => {
        if ((cpu.cr4 & CR4.TSD) !== 0 && cpu.cpl !== 0) raise(13, 0);
        cpu.setNumber(S.TEMP, cpu.bus.tsc());
      }),
      rdtscp_aux: on(() => {
        if (!this.cpuid.has('rdtscp')) raise(6);
        cpu.setNumber(RCX, readMsr64(cpu, MSR.TSC_AUX).low >>> 0);
      }),
      rdpmc: on((record) => {
        pmu.syncAt(this.numberOf(record));
        const value = pmu.rdpmc(cpu.u32[RCX >> 2]);
        cpu.setNumber(RAX, value % 4294967296);
        cpu.setNumber(RDX, Math.floor(value / 4294967296));
      }),
      rdrand: on(() => this.#random('rdrand')),
      rdseed: on(() => this.#random('rdseed')),
      xgetbv: on(() => this.xsave.xgetbv()),
      xsetbv: on(() => {
        this.xsave.xsetbv();
        registers.updateFpuBlock();
      }),
      xsave: on((record, low, high, size) => this.xsave.save(area(record, low, high), size === 64, false)),
      xsaveopt: on((record, low, high, size) => this.xsave.save(area(record, low, high), size === 64, true)),
      xsavec: on((record, low, high, size) => this.xsave.saveCompacted(area(record, low, high), size === 64)),
      xsaves: on(privileged((record, low, high, size) => this.xsave.saveCompacted(area(record, low, high), size === 64))),
      xrstor: on((record, low, high, size) => this.xsave.restore(area(record, low, high), size === 64, false)),
      xrstors: on(privileged((record, low, high, size) => this.xsave.restore(area(record, low, high), size === 64, true))),
      ...avxHelpers(cpu, on),
      rdpid: on(() => cpu.setNumber(S.TEMP, readMsr64(cpu, MSR.TSC_AUX).low >>> 0)),
      invpcid: on(
        privileged((record, type, typeHigh, low, high) =>
          this.#invpcid(linear(type, typeHigh), this.#operandAt(record, low, high)),
        ),
      ),
      monitor: on(() => raise(6)),
      mwait: on(() => raise(6)),
      rsm: (record) => {
        try {
          const halted = this.smm.leave();
          cpu.i32[S.STOPPED_AT >> 2] = 0;
          return halted ? Exit.HALT : this.#jumped();
        } catch (problem) {
          return this.#fault(problem, record);
        }
      },
      pause: () => {
        // A spinning vCPU lets the one that it waits for run: the host may have fewer cores than vCPUs.
        if ((++this.#pauses & (RELAX_AFTER - 1)) === 0) cpu.bus.relax();
        return 0;
      },
      fence: () => {
        Atomics.add(cpu.i32, S.WAKE >> 2, 0);
        return 0;
      },
      // x87 and SSE state.
      fwait: on(() => this.fpu.wait()),
      emms: on(() => this.fpu.emms()),
      x87_register: on((record, code) => this.fpu.register(code, this.ripOf(record))),
      x87_memory: on((record, code, low, high, size) =>
        this.fpu.memory(code, this.#operandAt(record, low, high), size, this.ripOf(record)),
      ),
      check_sse: on(() => this.#checkSse()),
      ldmxcsr: on((_record, value) => {
        if ((value & 0xffff0000) !== 0) raise(13, 0);
        cpu.i32[S.MXCSR >> 2] = value;
      }),
      fxsave: on((record, low, high, size) =>
        this.#fx(low, () => this.fpu.fxsave(this.#operandAt(record, low, high), size === 64)),
      ),
      fxrstor: on((record, low, high, size) =>
        this.#fx(low, () => this.fpu.fxrstor(this.#operandAt(record, low, high), size === 64)),
      ),
    };
  }

  #fx(low: number, body: () => void): void {
    if ((this.cpu.cr0 & CR0.EM) !== 0 || (this.cpu.cr0 & CR0.TS) !== 0) raise(7);
    if ((low & 15) !== 0) raise(13, 0);
    body();
  }

  /** INVPCID (SDM 2): an address, a PCID, all, all but global pages. */
  #invpcid(type: number, address: number): void {
    const { cpu } = this;
    const low = cpu.read32(address, false);
    const reserved = (low & ~0xfff) | cpu.read32(address + 4, false);
    const target = { low: cpu.read32(address + 8, false), high: cpu.read32(address + 12, false) };
    if (type < 0 || type > 3) raise(13, 0);
    if (type < 2 && reserved !== 0) raise(13, 0);
    if (type < 2 && (low & 0xfff) !== 0 && (cpu.cr4 & CR4.PCIDE) === 0) raise(13, 0);
    if (type === 0 && !isCanonical(target.low, target.high)) raise(13, 0);
    if (type === 0) this.paging.flushPage(linear(target.low, target.high));
    else if (type === 1) this.paging.flushPcid(low & 0xfff);
    else if (type === 2) this.paging.flush();
    else this.paging.flushPcid(undefined);
  }

  /** RDPKRU and WRPKRU: #UD without CR4.PKE, #GP(0) for an ECX other than zero. */
  #keysEnabled(): void {
    if ((this.cpu.cr4 & CR4.PKE) === 0) raise(6);
    if (this.cpu.i32[RCX >> 2] !== 0) raise(13, 0);
  }

  #checkSse(): void {
    const block = this.cpu.i32[S.FPU_BLOCK >> 2];
    if ((block & 1) !== 0) raise(6);
    if ((block & 2) !== 0) raise(7);
  }

  #pauses = 0;

  /** VMCALL and VMMCALL as KVM's guests use them; #UD where there is no hypervisor. */
  #hypercall(): void {
    const { cpu } = this;
    if (!this.cpuid.has('kvm')) raise(6);
    const argument = (register: number): number => cpu.i32[(S.GPR + register * 8) >> 2];
    let answer = -HYPERCALL.ENOSYS;
    if (cpu.cpl !== 0) answer = -HYPERCALL.EPERM;
    else if (argument(0) === HYPERCALL.KICK_CPU) {
      cpu.bus.kick(argument(1) >>> 0);
      answer = 0;
    } else if (argument(0) === HYPERCALL.SEND_IPI) {
      // The two words of the bitmap are as wide as a register.
      const second = cpu.is64 ? cpu.i32[(S.GPR + 24 + 4) >> 2] : argument(1);
      answer = cpu.bus.sendIpis(argument(3), second, argument(2) >>> 0, argument(6));
      if (cpu.is64) answer += cpu.bus.sendIpis(argument(1), cpu.i32[(S.GPR + 8 + 4) >> 2], (argument(2) >>> 0) + 64, argument(6));
    }
    cpu.setNumber(RAX, cpu.is64 ? answer : answer >>> 0);
  }

  #random(feature: string): void {
    const { cpu } = this;
    if (!this.cpuid.has(feature)) raise(6);
    cpu.u32[S.TEMP >> 2] = cpu.bus.random();
    cpu.u32[(S.TEMP >> 2) + 1] = cpu.bus.random();
  }

  #cmpxchg16b(address: number): void {
    const { cpu } = this;
    const user = cpu.cpl === 3;
    cpu.bus.lockBus();
    try {
      const host = cpu.translate(address, true, user);
      if (host < 0) raise(13, 0);
      const { data } = cpu.memory;
      const low = data.getBigUint64(host, true);
      const high = data.getBigUint64(host + 8, true);
      if (low === cpu.u64[RAX >> 3] && high === cpu.u64[RDX >> 3]) {
        data.setBigUint64(host, cpu.u64[RBX >> 3], true);
        data.setBigUint64(host + 8, cpu.u64[RCX >> 3], true);
        cpu.memory.note(host, 16);
        this.#setZero(true);
      } else {
        cpu.u64[RAX >> 3] = low;
        cpu.u64[RDX >> 3] = high;
        this.#setZero(false);
      }
    } finally {
      cpu.bus.unlockBus();
    }
  }

  #fault(problem: unknown, record: number): number {
    if (!(problem instanceof GuestFault)) throw problem;
    const { cpu } = this;
    cpu.i32[S.EXCEPTION >> 2] = problem.vector;
    cpu.i32[S.EXCEPTION_CODE >> 2] = problem.code;
    cpu.i32[S.STOPPED_AT >> 2] = record;
    return Exit.FAULT;
  }

  /** True where EFER.LMA is set: for monitors. */
  get isLong(): boolean {
    return (this.cpu.efer & EFER.LMA) !== 0;
  }
}
