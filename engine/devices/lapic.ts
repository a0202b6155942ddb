/**
 * Local APIC: one for each vCPU, in xAPIC and x2APIC form, with one-shot, periodic and TSC-deadline timer.
 * lapic-bus.ts carries what APICs, IOAPICs and MSIs send.
 *
 * Intel SDM volume 3A, chapter 10 (APIC; 10.12 for x2APIC). Interrupt state is what the struct says; whoever
 * changes it asks `signal` to wake the vCPU, which then takes its vector from the PIC where `extIntPending` says so,
 * else from `acknowledge`, and may forget the signal once `interruptPending` is false. Lowering the priority (TPR,
 * CR8, EOI) signals again by itself.
 *
 * The timer counts the crystal that CPUID 15H names, 25 MHz, so a count with divider 1 is 40 ns of machine time. A faster
 * one would run out between two instructions of a guest whose thread the host's scheduler passes over for a while.
 */
import type { Clock, Timer } from '../bus/clock.ts';
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { f64, struct, u32, u32s, type View } from '../memory/struct.ts';
import { type ApicBus, Delivery } from './lapic-bus.ts';
import {
  ERROR_RECEIVE_VECTOR,
  ERROR_REGISTER,
  ERROR_SEND_VECTOR,
  ICR_ASSERT,
  ICR_LEVEL,
  ICR_LOGICAL,
  ICR_WRITABLE,
  LVT_COUNT,
  LVT_ERROR,
  LVT_LEVEL,
  LVT_LINT0,
  LVT_LINT1,
  LVT_MASKED,
  LVT_PERFORMANCE,
  LVT_REMOTE_IRR,
  LVT_TIMER,
  LVT_WRITABLE,
  REG_APR,
  REG_CURRENT,
  REG_DFR,
  REG_DIVIDE,
  REG_EOI,
  REG_ESR,
  REG_ICR_HIGH,
  REG_ICR_LOW,
  REG_ID,
  REG_INITIAL,
  REG_IRR,
  REG_ISR,
  REG_LDR,
  REG_LVT,
  REG_LVT_LAST,
  REG_PPR,
  REG_SELF_IPI,
  REG_SVR,
  REG_TMR,
  REG_TPR,
  REG_VERSION,
  SVR_ENABLE,
  SVR_NO_EOI_BROADCAST,
  SVR_WRITABLE,
  TIMER_DEADLINE,
  TIMER_MODE,
  TIMER_PERIODIC,
  VERSION,
} from './lapic-registers.ts';

/** Frequency of the clock that the APIC timer divides, in Hz. */
export const APIC_BUS_HZ = 25_000_000;
const TICK_NS = 1e9 / APIC_BUS_HZ;
/** Where the registers lie after reset. */
export const APIC_DEFAULT_BASE = 0xfee00000;
/** Length of the register window in bytes. */
export const APIC_WINDOW = 0x1000;

export const MSR_APIC_BASE = 0x1b;
export const MSR_TSC_DEADLINE = 0x6e0;
export const MSR_X2APIC_FIRST = 0x800;
export const MSR_X2APIC_LAST = 0x8ff;

const BASE_BSP = 1 << 8;
const BASE_EXTD = 1 << 10;
const BASE_ENABLE = 1 << 11;

/** `countStart` of a count that stands at zero until the next initial count. */
const RUN_OUT = -1;
/** The timer thread takes no shorter period than this, so a guest cannot make it spin; ticks between coalesce. */
const SHORTEST_PERIOD_NS = 20_000;

export const lapicState = struct('lapic', 2, {
  baseLow: u32,
  baseHigh: u32,
  id: u32,
  tpr: u32,
  ldr: u32,
  dfr: u32,
  svr: u32,
  esr: u32,
  errors: u32,
  icrLow: u32,
  icrHigh: u32,
  lvt: u32s(LVT_COUNT),
  isr: u32s(8),
  tmr: u32s(8),
  irr: u32s(8),
  initialCount: u32,
  divide: u32,
  deadlineLow: u32,
  deadlineHigh: u32,
  lint0: u32,
  lint1: u32,
  extInt: u32,
  countStart: f64,
});

/** What a vCPU is told about. `sipi` carries the start vector. */
export type ApicSignal = 'intr' | 'nmi' | 'init' | 'sipi' | 'smi';

export interface LapicWires {
  /** Which vCPU this APIC belongs to; also what `signal` is called with. */
  readonly cpuIndex: number;
  /** The APIC id; 255 and above are reachable in x2APIC mode only. */
  readonly apicId: number;
  /** The vCPU that starts at reset. */
  readonly bootstrap: boolean;
  /** False: x2APIC mode cannot be entered (CPUID does not offer it). */
  readonly x2apic?: boolean;
  readonly clock: Clock;
  /** Machine time in ns at which the guest's TSC reads `ticks`. */
  tscToNs(ticks: number): number;
  /** Something is new for the vCPU: sets its pending bits and wakes it. */
  signal(cpuIndex: number, what: ApicSignal, vector?: number): void;
  /** A level-triggered vector was finished; goes to every IOAPIC. */
  broadcastEoi(vector: number): void;
  /** The MMIO window moved or vanished (APIC base MSR): see `mmioBase`. */
  baseChanged?(cpuIndex: number): void;
}

/** The highest vector set in a 256-bit set, or -1. */
function highest(set: Uint32Array): number {
  for (let word = 7; word >= 0; word--) {
    const bits = set[word];
    if (bits !== 0) return word * 32 + 31 - Math.clz32(bits);
  }
  return -1;
}

/** A vCPU's local APIC. Its MMIO registers are this object as an IoHandler (offsets 0 to 0xfff). */
export class LocalApic implements IoHandler {
  readonly #s: View<typeof lapicState.fields>;
  readonly #wires: LapicWires;
  readonly #bus: ApicBus;
  readonly #timer: Timer;
  /** The LINT0 pin: the PIC's INTR output on the bootstrap processor. */
  readonly lint0: IrqLine;
  /** The LINT1 pin: NMI. */
  readonly lint1: IrqLine;

  constructor(state: View<typeof lapicState.fields>, wires: LapicWires, bus: ApicBus) {
    this.#s = state;
    this.#wires = wires;
    this.#bus = bus;
    this.#timer = wires.clock.timer(`lapic${wires.cpuIndex}.timer`, () => this.#timerFired());
    this.lint0 = { set: (level) => this.#setLint(LVT_LINT0, level) };
    this.lint1 = { set: (level) => this.#setLint(LVT_LINT1, level) };
    bus.attach(this);
  }

  /** Power-on and system reset. SDM 3A 10.4.7.1. */
  reset(): void {
    const s = this.#s;
    s.baseLow = (APIC_DEFAULT_BASE | BASE_ENABLE | (this.#wires.bootstrap ? BASE_BSP : 0)) >>> 0;
    s.baseHigh = 0;
    s.id = this.#wires.apicId;
    s.lint0 = 0;
    s.lint1 = 0;
    this.#resetRegisters();
    this.#wires.baseChanged?.(this.#wires.cpuIndex);
  }

  /** What an INIT does to the APIC: as reset, but the APIC base and the pins stay. SDM 3A 10.4.7.3. */
  init(): void {
    this.#resetRegisters();
  }

  #resetRegisters(): void {
    const s = this.#s;
    s.tpr = 0;
    s.ldr = (s.baseLow & BASE_EXTD) !== 0 ? this.#x2Logical() : 0;
    s.dfr = 0xffffffff;
    s.svr = 0xff;
    s.esr = 0;
    s.errors = 0;
    s.icrLow = 0;
    s.icrHigh = 0;
    s.lvt.fill(LVT_MASKED);
    // Virtual wire: PC firmware finds the PIC connected through the bootstrap processor's LINT0. MP spec 1.4, 3.6.2.2.
    if (this.#wires.bootstrap) s.lvt[LVT_LINT0] = Delivery.extInt << 8;
    s.isr.fill(0);
    s.tmr.fill(0);
    s.irr.fill(0);
    s.initialCount = 0;
    s.divide = 0;
    s.deadlineLow = 0;
    s.deadlineHigh = 0;
    s.extInt = 0;
    s.countStart = 0;
    this.#timer.disarm();
  }

  get cpuIndex(): number {
    return this.#wires.cpuIndex;
  }
  get apicId(): number {
    return this.#s.id;
  }
  /** IA32_APIC_BASE.EN. */
  get enabled(): boolean {
    return (this.#s.baseLow & BASE_ENABLE) !== 0;
  }
  get x2apic(): boolean {
    return (this.#s.baseLow & (BASE_ENABLE | BASE_EXTD)) === (BASE_ENABLE | BASE_EXTD);
  }
  /** Physical address of the register window, or undefined while the APIC is disabled or in x2APIC mode. */
  get mmioBase(): number | undefined {
    const s = this.#s;
    if ((s.baseLow & (BASE_ENABLE | BASE_EXTD)) !== BASE_ENABLE) return undefined;
    return s.baseHigh * 2 ** 32 + ((s.baseLow & 0xfffff000) >>> 0);
  }
  get #softwareEnabled(): boolean {
    return this.enabled && (this.#s.svr & SVR_ENABLE) !== 0;
  }

  // Interrupts towards the processor.

  /** The processor priority register. SDM 3A 10.8.3.1. */
  get ppr(): number {
    const s = this.#s;
    const serviced = highest(s.isr);
    return serviced >= 0 && serviced >> 4 >= s.tpr >> 4 ? serviced & 0xf0 : s.tpr;
  }

  /** The vector that would be taken now: the highest requested above the processor's priority, or -1. */
  pendingVector(): number {
    if (!this.#softwareEnabled) return -1;
    const vector = highest(this.#s.irr);
    return vector >= 0 && vector >> 4 > this.ppr >> 4 ? vector : -1;
  }

  /** True where the PIC asks through LINT0 (or an ExtINT message): the vector then comes from the PIC's acknowledge cycle. */
  extIntPending(): boolean {
    const s = this.#s;
    if (s.extInt !== 0) return true;
    return s.lint0 !== 0 && this.acceptsPic();
  }

  /** True where the PIC's output reaches this vCPU: APIC disabled, or LINT0 unmasked in ExtINT mode. */
  acceptsPic(): boolean {
    if (!this.enabled) return true;
    const entry = this.#s.lvt[LVT_LINT0];
    return (entry & LVT_MASKED) === 0 && ((entry >> 8) & 7) === Delivery.extInt;
  }

  /** True where the vCPU, with interrupts enabled, would take one. */
  interruptPending(): boolean {
    return this.extIntPending() || this.pendingVector() >= 0;
  }

  /** The PIC's vector was taken: forgets an ExtINT message. */
  acknowledgeExtInt(): void {
    this.#s.extInt = 0;
  }

  /** Takes the pending vector into service and returns it; -1 where there is none (any more). */
  acknowledge(): number {
    const vector = this.pendingVector();
    if (vector < 0) return -1;
    const s = this.#s;
    s.irr[vector >> 5] &= ~(1 << (vector & 31));
    s.isr[vector >> 5] |= 1 << (vector & 31);
    return vector;
  }

  /** End of the interrupt in service. SDM 3A 10.8.5. */
  eoi(): void {
    const s = this.#s;
    const vector = highest(s.isr);
    if (vector < 0) return;
    const bit = 1 << (vector & 31);
    s.isr[vector >> 5] &= ~bit;
    if ((s.tmr[vector >> 5] & bit) !== 0 && (s.svr & SVR_NO_EOI_BROADCAST) === 0) this.#wires.broadcastEoi(vector);
    this.#signalPending();
  }

  /** CR8: the task priority class, 0 to 15. */
  get cr8(): number {
    return (this.#s.tpr >> 4) & 15;
  }
  set cr8(value: number) {
    this.#setTpr((value & 15) << 4);
  }

  #setTpr(value: number): void {
    this.#s.tpr = value & 0xff;
    this.#signalPending();
  }

  #signalPending(): void {
    if (this.interruptPending()) this.#wires.signal(this.#wires.cpuIndex, 'intr');
  }

  /** A message for this APIC arrives. False where the APIC does not take it: software-disabled, or a bad vector. */
  accept(vector: number, level: boolean, delivery: number): boolean {
    const { cpuIndex, signal } = this.#wires;
    const s = this.#s;
    switch (delivery) {
      case Delivery.fixed:
      case Delivery.lowest: {
        if (!this.#softwareEnabled) return false;
        if (vector < 16) {
          this.#error(ERROR_RECEIVE_VECTOR);
          return false;
        }
        const word = (vector >> 5) & 7;
        const bit = 1 << (vector & 31);
        s.irr[word] |= bit;
        if (level) s.tmr[word] |= bit;
        else s.tmr[word] &= ~bit;
        this.#signalPending();
        return true;
      }
      case Delivery.smi:
        signal(cpuIndex, 'smi');
        return true;
      case Delivery.nmi:
        signal(cpuIndex, 'nmi');
        return true;
      case Delivery.init:
        signal(cpuIndex, 'init');
        return true;
      case Delivery.sipi:
        signal(cpuIndex, 'sipi', vector & 0xff);
        return true;
      case Delivery.extInt:
        s.extInt = 1;
        signal(cpuIndex, 'intr');
        return true;
      default:
        return false;
    }
  }

  /** Raises an entry of the local vector table. */
  #local(index: number): void {
    const entry = this.#s.lvt[index];
    if ((entry & LVT_MASKED) !== 0 || !this.enabled) return;
    const delivery = index === LVT_TIMER || index === LVT_ERROR ? Delivery.fixed : (entry >> 8) & 7;
    if (delivery !== Delivery.extInt) {
      this.accept(entry & 0xff, index !== LVT_TIMER && (entry & LVT_LEVEL) !== 0, delivery);
      return;
    }
    // ExtINT on LINT0 is a level that extIntPending reads off the pin.
    if (index === LVT_LINT0) this.#signalPending();
  }

  /** A performance counter has overflowed. The entry masks itself then. SDM 3A 10.5.1; 3B 20.6.2. */
  performance(): void {
    const { lvt } = this.#s;
    if ((lvt[LVT_PERFORMANCE] & LVT_MASKED) !== 0) return;
    this.#local(LVT_PERFORMANCE);
    lvt[LVT_PERFORMANCE] |= LVT_MASKED;
  }

  #setLint(index: number, level: boolean): void {
    const s = this.#s;
    const before = index === LVT_LINT0 ? s.lint0 : s.lint1;
    if (index === LVT_LINT0) s.lint0 = level ? 1 : 0;
    else s.lint1 = level ? 1 : 0;
    if (!level || before !== 0) return;
    if (!this.enabled) {
      this.#wires.signal(this.#wires.cpuIndex, index === LVT_LINT0 ? 'intr' : 'nmi');
      return;
    }
    this.#local(index);
  }

  #error(bit: number): void {
    const s = this.#s;
    const fresh = (s.errors & bit) === 0;
    s.errors |= bit;
    // A bad vector in the error entry itself must not raise the error again.
    if (fresh && (s.lvt[LVT_ERROR] & 0xff) >= 16) this.#local(LVT_ERROR);
  }

  // Sending and matching.

  #x2Logical(): number {
    const id = this.#wires.apicId;
    return (((id >>> 4) << 16) | (1 << (id & 15))) >>> 0;
  }

  /**
   * Whether a message to `destination` is for this APIC. Eight-bit destinations come from xAPIC senders,
   * IOAPICs and MSIs; `wide` says that the sender wrote 32 bits (x2APIC). SDM 3A 10.6.2.
   */
  matches(destination: number, logical: boolean, wide: boolean): boolean {
    const s = this.#s;
    if (!this.enabled) return false;
    const broadcast = wide ? 0xffffffff : 0xff;
    if (destination === broadcast) return true;
    if (!logical) return destination === s.id;
    if (this.x2apic) return destination >>> 16 === s.ldr >>> 16 && (destination & s.ldr & 0xffff) !== 0;
    const mine = s.ldr >>> 24;
    if (s.dfr >>> 28 === 15) return (mine & destination & 0xff) !== 0;
    if (destination >> 4 !== 15 && mine >> 4 !== destination >> 4) return false;
    return (mine & destination & 15) !== 0;
  }

  /** Whether lowest-priority messages may choose this APIC. */
  get arbitrates(): boolean {
    return this.#softwareEnabled;
  }

  #send(): void {
    const s = this.#s;
    const low = s.icrLow;
    const wide = this.x2apic;
    const destination = wide ? s.icrHigh : s.icrHigh >>> 24;
    const delivery = (low >> 8) & 7;
    const vector = low & 0xff;
    const shorthand = (low >> 18) & 3;
    if (delivery === Delivery.extInt || delivery === 3) return;
    if (delivery <= Delivery.lowest && vector < 16) {
      this.#error(ERROR_SEND_VECTOR);
      return;
    }
    // INIT with level de-asserted only synchronises arbitration ids. SDM 3A 10.6.1.
    if (delivery === Delivery.init && (low & ICR_LEVEL) !== 0 && (low & ICR_ASSERT) === 0) return;
    if (shorthand === 0) this.#bus.deliver(destination, (low & ICR_LOGICAL) !== 0, delivery, vector, false, wide);
    else if (shorthand === 1) {
      // Only fixed may be sent to self. SDM 3A 10.6.1, table 10-3.
      if (delivery === Delivery.fixed) this.accept(vector, false, Delivery.fixed);
    } else this.#bus.broadcast(delivery, vector, shorthand === 3 ? this : undefined);
  }

  // The timer.

  /** Nanoseconds that a count takes. */
  get #countNs(): number {
    const code = (this.#s.divide & 3) | ((this.#s.divide >> 1) & 4);
    return TICK_NS * (code === 7 ? 1 : 2 << code);
  }

  get #timerMode(): number {
    return this.#s.lvt[LVT_TIMER] & TIMER_MODE;
  }

  /** What the counter shows now. */
  #currentCount(): number {
    const s = this.#s;
    if (s.initialCount === 0 || s.countStart === RUN_OUT || (this.#timerMode & TIMER_DEADLINE) !== 0) return 0;
    const gone = Math.max(0, Math.floor((this.#wires.clock.now() - s.countStart) / this.#countNs));
    if (this.#timerMode === TIMER_PERIODIC) return s.initialCount - (gone % s.initialCount);
    return Math.max(0, s.initialCount - gone);
  }

  /** Arms the machine timer for the next expiry that someone would see. */
  #armTimer(): void {
    const s = this.#s;
    const mode = this.#timerMode;
    if (!this.enabled || (s.lvt[LVT_TIMER] & LVT_MASKED) !== 0) {
      // A TSC deadline stays in its register while masked; the expiry itself is lost.
      this.#timer.disarm();
      return;
    }
    if ((mode & TIMER_DEADLINE) !== 0) {
      const ticks = s.deadlineHigh * 2 ** 32 + s.deadlineLow;
      if (ticks === 0 || mode !== TIMER_DEADLINE) this.#timer.disarm();
      else {
        const deadline = this.#wires.tscToNs(ticks);
        if (deadline > this.#wires.clock.now()) this.#timer.arm(deadline);
        else {
          // Past already: the interrupt is there before the next instruction.
          this.#timer.disarm();
          this.#timerFired();
        }
      }
      return;
    }
    if (s.initialCount === 0 || s.countStart === RUN_OUT) {
      this.#timer.disarm();
      return;
    }
    const period = s.initialCount * this.#countNs;
    const now = this.#wires.clock.now();
    if (mode !== TIMER_PERIODIC) {
      if (now >= s.countStart + period) this.#timer.disarm();
      else this.#timer.arm(s.countStart + period);
      return;
    }
    // Expiries are multiples of the period after the start, so a late callback shifts none of them.
    const earliest = period < SHORTEST_PERIOD_NS ? now + SHORTEST_PERIOD_NS - period : now;
    this.#timer.arm(s.countStart + (Math.floor(Math.max(0, earliest - s.countStart) / period) + 1) * period);
  }

  #timerFired(): void {
    const s = this.#s;
    const mode = this.#timerMode;
    if (mode === TIMER_DEADLINE) {
      if (s.deadlineLow === 0 && s.deadlineHigh === 0) return;
      s.deadlineLow = 0;
      s.deadlineHigh = 0;
    } else if (s.initialCount === 0) return;
    this.#local(LVT_TIMER);
    if (mode === TIMER_PERIODIC) this.#armTimer();
  }

  /** The TSC jumped (a write to it or to TSC_ADJUST): the deadline is a new moment. */
  tscChanged(): void {
    if (this.#timerMode === TIMER_DEADLINE) this.#armTimer();
  }

  #writeLvt(index: number, value: number): void {
    const s = this.#s;
    const old = s.lvt[index];
    let next = value & LVT_WRITABLE[index];
    // A one-shot count that has run out stays at zero, also when the mode becomes periodic.
    if (index === LVT_TIMER && (old & TIMER_MODE) === 0 && s.initialCount !== 0 && this.#currentCount() === 0)
      s.countStart = RUN_OUT;
    if (index === LVT_LINT0 || index === LVT_LINT1) next |= old & LVT_REMOTE_IRR;
    if ((s.svr & SVR_ENABLE) === 0) next |= LVT_MASKED;
    s.lvt[index] = next;
    if (index === LVT_TIMER) {
      // Going to or from TSC-deadline mode stops the timer. SDM 3A 10.5.4.1.
      if (((old ^ next) & TIMER_DEADLINE) !== 0) {
        s.initialCount = 0;
        s.deadlineLow = 0;
        s.deadlineHigh = 0;
      }
      this.#armTimer();
    } else if (index === LVT_LINT0) {
      if (s.lint0 !== 0 && (old & LVT_MASKED) !== 0) this.#local(LVT_LINT0);
    }
  }

  // Registers.

  #readRegister(register: number): number {
    const s = this.#s;
    if (register >= REG_ISR && register < REG_ISR + 8) return s.isr[register - REG_ISR];
    if (register >= REG_TMR && register < REG_TMR + 8) return s.tmr[register - REG_TMR];
    if (register >= REG_IRR && register < REG_IRR + 8) return s.irr[register - REG_IRR];
    if (register >= REG_LVT && register <= REG_LVT_LAST) return s.lvt[register - REG_LVT];
    switch (register) {
      case REG_ID:
        return this.x2apic ? s.id : ((s.id & 0xff) << 24) >>> 0;
      case REG_VERSION:
        return VERSION;
      case REG_TPR:
        return s.tpr;
      case REG_APR:
      case REG_PPR:
        return this.ppr;
      case REG_LDR:
        return s.ldr;
      case REG_DFR:
        return s.dfr;
      case REG_SVR:
        return s.svr;
      case REG_ESR:
        return s.esr;
      case REG_ICR_LOW:
        return s.icrLow;
      case REG_ICR_HIGH:
        return s.icrHigh;
      case REG_INITIAL:
        return s.initialCount;
      case REG_CURRENT:
        return this.#currentCount();
      case REG_DIVIDE:
        return s.divide;
      case REG_EOI:
        return 0;
      default:
        this.#error(ERROR_REGISTER);
        return 0;
    }
  }

  #writeRegister(register: number, value: number): void {
    const s = this.#s;
    if (register >= REG_LVT && register <= REG_LVT_LAST) {
      this.#writeLvt(register - REG_LVT, value);
      return;
    }
    switch (register) {
      case REG_ID:
        // Aliases included: as the P6 family and hypervisors have it.
        if (!this.x2apic) s.id = value >>> 24;
        return;
      case REG_VERSION:
      case REG_APR:
      case REG_PPR:
      case REG_CURRENT:
        return;
      case REG_TPR:
        this.#setTpr(value);
        return;
      case REG_EOI:
        this.eoi();
        return;
      case REG_LDR:
        s.ldr = (value & 0xff000000) >>> 0;
        return;
      case REG_DFR:
        s.dfr = (value | 0x0fffffff) >>> 0;
        return;
      case REG_SVR:
        s.svr = value & SVR_WRITABLE;
        if ((value & SVR_ENABLE) === 0) {
          for (let i = 0; i < LVT_COUNT; i++) s.lvt[i] |= LVT_MASKED;
          this.#armTimer();
        } else this.#signalPending();
        return;
      case REG_ESR:
        s.esr = s.errors;
        s.errors = 0;
        return;
      case REG_ICR_LOW:
        s.icrLow = value & ICR_WRITABLE;
        this.#send();
        return;
      case REG_ICR_HIGH:
        s.icrHigh = (value & 0xff000000) >>> 0;
        return;
      case REG_INITIAL:
        // Ignored in TSC-deadline mode. SDM 3A 10.5.4.1.
        if ((this.#timerMode & TIMER_DEADLINE) !== 0) return;
        s.initialCount = value >>> 0;
        s.countStart = this.#wires.clock.now();
        this.#armTimer();
        return;
      case REG_DIVIDE: {
        const count = this.#currentCount();
        s.divide = value & 0xb;
        // The count goes on from where it stands, at the new rate.
        if (s.countStart !== RUN_OUT) s.countStart = this.#wires.clock.now() - (s.initialCount - count) * this.#countNs;
        this.#armTimer();
        return;
      }
      default:
        if (register < REG_ISR || register >= REG_ESR) this.#error(ERROR_REGISTER);
    }
  }

  read(offset: number, size: AccessSize): number {
    if (this.x2apic || (offset & 15) + size > 4) return size === 4 ? 0xffffffff : (1 << (size * 8)) - 1;
    const value = this.#readRegister(offset >> 4) >>> ((offset & 3) * 8);
    return size === 4 ? value >>> 0 : value & ((1 << (size * 8)) - 1);
  }

  /** Registers take aligned 32-bit writes; narrower ones at the register's start act as if zero-extended. SDM 3A 10.4.1. */
  write(offset: number, _size: AccessSize, value: number): void {
    if (this.x2apic || (offset & 15) !== 0) return;
    this.#writeRegister(offset >> 4, value >>> 0);
  }

  /**
   * Reads IA32_APIC_BASE, IA32_TSC_DEADLINE or an x2APIC MSR into `out` (low, high).
   * False means #GP(0) for the instruction. SDM 3A 10.12.1.2.
   */
  readMsr(index: number, out: Uint32Array): boolean {
    const s = this.#s;
    out[1] = 0;
    if (index === MSR_APIC_BASE) {
      out[0] = s.baseLow;
      out[1] = s.baseHigh;
      return true;
    }
    if (index === MSR_TSC_DEADLINE) {
      out[0] = s.deadlineLow;
      out[1] = s.deadlineHigh;
      return true;
    }
    const register = index - MSR_X2APIC_FIRST;
    if (!this.x2apic || register < 0 || register > REG_DIVIDE) return false;
    if (!this.#isX2Register(register) || register === REG_EOI) return false;
    out[0] = this.#readRegister(register);
    if (register === REG_ICR_LOW) out[1] = s.icrHigh;
    return true;
  }

  #isX2Register(register: number): boolean {
    if (register >= REG_ISR && register <= REG_ESR) return true;
    if (register >= REG_LVT && register <= REG_CURRENT) return true;
    switch (register) {
      case REG_ID:
      case REG_VERSION:
      case REG_TPR:
      case REG_PPR:
      case REG_EOI:
      case REG_LDR:
      case REG_SVR:
      case REG_ICR_LOW:
      case REG_DIVIDE:
        return true;
      default:
        return false;
    }
  }

  /** Writes one of those MSRs. False means #GP(0). */
  writeMsr(index: number, low: number, high: number): boolean {
    const s = this.#s;
    low >>>= 0;
    high >>>= 0;
    if (index === MSR_APIC_BASE) return this.#writeBase(low, high);
    if (index === MSR_TSC_DEADLINE) {
      if (this.#timerMode !== TIMER_DEADLINE) return true;
      s.deadlineLow = low;
      s.deadlineHigh = high;
      this.#armTimer();
      return true;
    }
    const register = index - MSR_X2APIC_FIRST;
    if (!this.x2apic || register < 0 || register > REG_SELF_IPI) return false;
    if (register === REG_ICR_LOW) {
      if ((low & ~ICR_WRITABLE) !== 0) return false;
      s.icrHigh = high;
      s.icrLow = low;
      this.#send();
      return true;
    }
    if (high !== 0) return false;
    if (register === REG_SELF_IPI) {
      if (low > 0xff) return false;
      if (low < 16) this.#error(ERROR_SEND_VECTOR);
      else this.accept(low, false, Delivery.fixed);
      return true;
    }
    if (!this.#isX2Register(register)) return false;
    if (register >= REG_LVT && register <= REG_LVT_LAST) {
      if ((low & ~(LVT_WRITABLE[register - REG_LVT] | (1 << 12) | LVT_REMOTE_IRR)) !== 0) return false;
    } else {
      switch (register) {
        case REG_EOI:
        case REG_ESR:
          if (low !== 0) return false;
          break;
        case REG_TPR:
          if (low > 0xff) return false;
          break;
        case REG_SVR:
          if ((low & ~SVR_WRITABLE) !== 0) return false;
          break;
        case REG_DIVIDE:
          if ((low & ~0xb) !== 0) return false;
          break;
        case REG_INITIAL:
          break;
        default:
          return false; // read only
      }
    }
    this.#writeRegister(register, low);
    return true;
  }

  /** Mode changes of IA32_APIC_BASE. SDM 3A 10.12.5, figure 10-27. */
  #writeBase(low: number, high: number): boolean {
    const s = this.#s;
    // Physical addresses have 40 bits.
    if ((low & 0x2ff) !== 0 || high >= 2 ** 8) return false;
    if ((low & BASE_EXTD) !== 0 && this.#wires.x2apic === false) return false;
    const mode = low & (BASE_ENABLE | BASE_EXTD);
    const old = s.baseLow & (BASE_ENABLE | BASE_EXTD);
    if (mode === BASE_EXTD) return false;
    if (mode === (BASE_ENABLE | BASE_EXTD) && old === 0) return false;
    if (mode === BASE_ENABLE && old === (BASE_ENABLE | BASE_EXTD)) return false;
    const moved = s.baseLow >>> 12 !== low >>> 12 || s.baseHigh !== high || mode !== old;
    // The BSP flag is not the guest's to change here.
    s.baseLow = ((low & ~BASE_BSP) | (s.baseLow & BASE_BSP)) >>> 0;
    s.baseHigh = high;
    if (mode === 0 && old !== 0) {
      s.id = this.#wires.apicId;
      this.#resetRegisters();
    }
    if (mode === (BASE_ENABLE | BASE_EXTD) && old === BASE_ENABLE) {
      s.id = this.#wires.apicId;
      s.ldr = this.#x2Logical();
      s.dfr = 0xffffffff;
      s.icrHigh = 0;
    }
    if (moved) this.#wires.baseChanged?.(this.#wires.cpuIndex);
    return true;
  }
}
