/**
 * Performance counters: architectural performance monitoring, version 2 (SDM 3B, 20.2). Four general counters and three
 * fixed ones of 48 bits; they count instructions retired, cycles and reference cycles, all other events stand still. A
 * cycle is a tick at the TSC's rate while the vCPU is not halted and has a core of the host.
 *
 * Nothing is counted while a program runs: translated code keeps INSTRUCTIONS, and whoever looks at a counter, or changes
 * what they count, takes the difference since the last time (`sync`). An overflow is noticed then too; a timer comes back
 * when one may be due. So counts are exact, and interrupts come a little late.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, CR4, raise } from './cpu.ts';
import type { Cpuid } from './cpuid.ts';

/** What CPUID's leaf 0AH says. `missing`: events 3 to 6, which are about caches and branches. */
export const PMU = { version: 2, counters: 4, fixed: 3, bits: 48, events: 7, missing: 0x78 } as const;
export const hasPmu = (cpuid: Cpuid): boolean => cpuid.has('pmu') && !cpuid.isAmd;

const ALL = PMU.counters + PMU.fixed;
const SPAN = 2 ** PMU.bits;
const Source = { NONE: 0, INSTRUCTIONS: 1, CYCLES: 2 } as const;

const REGISTER = {
  COUNTER: 0xc1,
  SELECT: 0x186,
  FIXED: 0x309,
  FIXED_CONTROL: 0x38d,
  STATUS: 0x38e,
  CONTROL: 0x38f,
  CLEAR: 0x390,
} as const;

/** IA32_PERFEVTSELx. */
const SELECT = {
  EVENT: 0xffff,
  EDGE: 1 << 18,
  INTERRUPT: 1 << 20,
  ENABLE: 1 << 22,
  MASK: 0xff << 24,
  RESERVED: 1 << 21,
} as const;
/** A counter's four bits of IA32_FIXED_CTR_CTRL; bit 2 would be other threads of its core. */
const FIXED = { INTERRUPT: 8, RESERVED: 4 } as const;
const FIXED_RESERVED = ~0xbbb;
/** Bits of a counter in the registers of all: the general ones from 0 in the lower half, the fixed ones from 0 in the upper. */
const GENERAL_BITS = (1 << PMU.counters) - 1;
const FIXED_BITS = (1 << PMU.fixed) - 1;
/** IA32_PERF_GLOBAL_OVF_CTRL clears besides: uncore, buffer overflow and state changed, which never are. */
const CLEAR_OTHERS = 0xe0000000 | 0;

/** Shortest time to an overflow that a timer is set for, and longest; in ns. */
const SHORTEST_NS = 20_000;
const LONGEST_NS = 1e9;

export class Pmu {
  readonly #cpu: Cpu;
  readonly exists: boolean;
  /** Something counts: `enter` and `sync` around translated code are wanted. */
  active = false;
  /** Counters, then in words: event selects, fixed control, global control and global status (bit by counter). */
  readonly #counters: Float64Array;
  readonly #selects: Int32Array;
  readonly #words: Int32Array;
  /** By counter: what it counts, in which rings (bit 0: ring 0, bit 1: others). */
  readonly #sources = new Uint8Array(ALL);
  readonly #rings = new Uint8Array(ALL);
  #counting: readonly number[] = [];
  #ring = 1;
  #halted = false;
  #lastInstructions = 0;
  #lastCycles = 0;

  constructor(cpu: Cpu, cpuid: Cpuid) {
    this.#cpu = cpu;
    this.exists = hasPmu(cpuid);
    const at = cpu.at + S.PMU;
    this.#counters = new Float64Array(cpu.buffer, at, ALL);
    this.#selects = new Int32Array(cpu.buffer, at + ALL * 8, PMU.counters);
    this.#words = new Int32Array(cpu.buffer, at + ALL * 8 + PMU.counters * 4, 3);
  }

  get #fixedControl(): number {
    return this.#words[0];
  }
  get #control(): number {
    return this.#words[1];
  }
  get #status(): number {
    return this.#words[2];
  }

  /** After power-on: nothing is counted, all general counters may. */
  reset(): void {
    this.#words[1] = this.exists ? GENERAL_BITS : 0;
    this.#configure();
  }

  // --- counting ---------------------------------------------------------------------------------------------------

  /** What comes runs at the privilege that the vCPU has now. */
  enter(): void {
    this.#ring = this.#cpu.cpl === 0 ? 1 : 2;
  }
  /** Counts up to now; outside of translated code. */
  sync(): void {
    this.syncAt(0);
  }
  /** Counts up to the `number`-th instruction of the run that is in progress, this one included. */
  syncAt(number: number): void {
    if (!this.active) return;
    const cpu = this.#cpu;
    const instructions = cpu.getNumber(S.INSTRUCTIONS) + number;
    const cycles = this.#cycles();
    const retired = Math.max(0, instructions - this.#lastInstructions);
    const ticks = this.#halted ? 0 : Math.max(0, cycles - this.#lastCycles);
    this.#lastInstructions = instructions;
    this.#lastCycles = cycles;
    const counters = this.#counters;
    for (const n of this.#counting) {
      if ((this.#rings[n] & this.#ring) === 0) continue;
      const value = counters[n] + (this.#sources[n] === Source.INSTRUCTIONS ? retired : ticks);
      counters[n] = value % SPAN;
      if (value >= SPAN) this.#overflow(n);
    }
  }

  #overflow(n: number): void {
    this.#words[2] |= 1 << n;
    if (this.#interrupts(n)) this.#cpu.bus.performanceInterrupt();
  }
  #interrupts(n: number): boolean {
    if (n < PMU.counters) return (this.#selects[n] & SELECT.INTERRUPT) !== 0;
    return ((this.#fixedControl >>> ((n - PMU.counters) * 4)) & FIXED.INTERRUPT) !== 0;
  }

  /** PERFORMANCE was requested. */
  due(): void {
    this.sync();
    this.#arm();
  }
  /** The vCPU stands still, or goes on. */
  halted(on: boolean): void {
    if (on) this.sync();
    this.#halted = on;
    if (this.active && !on) this.#configure();
  }
  /** The vCPU goes on with a state that may be another one. */
  restored(): void {
    this.#halted = false;
    if (this.exists) this.#configure();
  }

  /** Sets the timer for the counter whose overflow may be next. */
  #arm(): void {
    let ns = Infinity;
    if (!this.#halted)
      for (const n of this.#counting) {
        // At two instructions a tick, which few programs do. Who waits for no interrupt sees it when it looks.
        const rate = this.#sources[n] === Source.INSTRUCTIONS ? 2 : 1;
        if (this.#interrupts(n)) ns = Math.min(ns, Math.max(SHORTEST_NS, (SPAN - this.#counters[n]) / rate));
      }
    if (ns === Infinity && !this.#armed) return;
    this.#armed = ns !== Infinity;
    this.#cpu.bus.performanceTimer(ns === Infinity ? ns : Math.min(LONGEST_NS, ns));
  }
  #armed = false;

  /** Finds out what counts now. What was counted so far is in the counters already. */
  #configure(): void {
    const counting: number[] = [];
    for (let n = 0; n < ALL; n++) {
      let source: number = Source.NONE;
      let rings = 0;
      if (n < PMU.counters) {
        const select = this.#selects[n];
        rings = ((select >>> 17) & 1) | ((select >>> 15) & 2);
        if ((select & SELECT.ENABLE) !== 0 && (select & (SELECT.EDGE | SELECT.MASK)) === 0)
          source = sourceOf(select & SELECT.EVENT);
      } else {
        rings = (this.#fixedControl >>> ((n - PMU.counters) * 4)) & 3;
        source = n === PMU.counters ? Source.INSTRUCTIONS : Source.CYCLES;
      }
      this.#sources[n] = source;
      this.#rings[n] = rings;
      if (source !== Source.NONE && rings !== 0 && ((this.#control >>> n) & 1) !== 0) counting.push(n);
    }
    this.#counting = counting;
    const active = counting.length > 0;
    if (active) this.#begin();
    this.active = active;
    this.#arm();
  }
  #begin(): void {
    this.enter();
    this.#lastInstructions = this.#cpu.getNumber(S.INSTRUCTIONS) + this.#number;
    this.#lastCycles = this.#cycles();
  }
  /** Asking the host takes longer than most things that a counter is read for: only where it is wanted. */
  #cycles(): number {
    return this.#counting.some((n) => this.#sources[n] === Source.CYCLES) ? this.#cpu.bus.cycles() : this.#lastCycles;
  }
  /** Number of the instruction that changes what is counted. */
  #number = 0;

  // --- registers --------------------------------------------------------------------------------------------------

  /** RDPMC of ECX. */
  rdpmc(index: number): number {
    const cpu = this.#cpu;
    if (cpu.cpl !== 0 && (cpu.cr4 & CR4.PCE) === 0 && (cpu.cr0 & CR0.PE) !== 0) raise(13, 0);
    const fixed = index >= 0x40000000;
    const n = fixed ? index - 0x40000000 : index;
    if (!this.exists || n >= (fixed ? PMU.fixed : PMU.counters)) raise(13, 0);
    return this.#counters[fixed ? PMU.counters + n : n];
  }

  /** RDMSR of these registers; undefined: another's. */
  readMsr(msr: number): { low: number; high: number } | undefined {
    if (!this.exists) return undefined;
    const counter = counterOf(msr);
    if (counter >= 0) {
      const value = this.#counters[counter];
      return { low: value | 0, high: Math.floor(value / 4294967296) };
    }
    if (msr >= REGISTER.SELECT && msr < REGISTER.SELECT + PMU.counters)
      return { low: this.#selects[msr - REGISTER.SELECT], high: 0 };
    switch (msr) {
      case REGISTER.FIXED_CONTROL:
        return { low: this.#fixedControl, high: 0 };
      case REGISTER.STATUS:
        return halves(this.#status);
      case REGISTER.CONTROL:
        return halves(this.#control);
      case REGISTER.CLEAR:
        return { low: 0, high: 0 };
      default:
        return undefined;
    }
  }

  /** WRMSR of these registers by the `number`-th instruction of its run; false: another's. What they counted so far is counted. */
  writeMsr(msr: number, low: number, high: number, number: number): boolean {
    if (!this.exists) return false;
    const counter = counterOf(msr);
    if (counter >= PMU.counters) {
      if (high >>> 16 !== 0) raise(13, 0);
      this.#counters[counter] = high * 4294967296 + (low >>> 0);
    } else if (counter >= 0) {
      // General counters take 32 bits with their sign.
      this.#counters[counter] = low < 0 ? SPAN + low : low;
    } else if (msr >= REGISTER.SELECT && msr < REGISTER.SELECT + PMU.counters) {
      if (high !== 0 || (low & SELECT.RESERVED) !== 0) raise(13, 0);
      this.#selects[msr - REGISTER.SELECT] = low;
    } else
      switch (msr) {
        case REGISTER.FIXED_CONTROL:
          if (high !== 0 || (low & FIXED_RESERVED) !== 0) raise(13, 0);
          this.#words[0] = low;
          break;
        case REGISTER.CONTROL:
          if ((low & ~GENERAL_BITS) !== 0 || (high & ~FIXED_BITS) !== 0) raise(13, 0);
          this.#words[1] = low | (high << PMU.counters);
          break;
        case REGISTER.CLEAR:
          if ((low & ~GENERAL_BITS) !== 0 || (high & ~(FIXED_BITS | CLEAR_OTHERS)) !== 0) raise(13, 0);
          this.#words[2] &= ~(low | ((high & FIXED_BITS) << PMU.counters));
          return true;
        case REGISTER.STATUS:
          return raise(13, 0);
        default:
          return false;
      }
    this.#number = number;
    this.#configure();
    this.#number = 0;
    return true;
  }
}

/** The counter that an MSR is, or -1. */
const counterOf = (msr: number): number => {
  if (msr >= REGISTER.COUNTER && msr < REGISTER.COUNTER + PMU.counters) return msr - REGISTER.COUNTER;
  if (msr >= REGISTER.FIXED && msr < REGISTER.FIXED + PMU.fixed) return PMU.counters + msr - REGISTER.FIXED;
  return -1;
};

/** Event and unit mask (SDM 3B, table 20-1). */
function sourceOf(event: number): number {
  if (event === 0xc0) return Source.INSTRUCTIONS;
  return event === 0x3c || event === 0x13c ? Source.CYCLES : Source.NONE;
}

const halves = (bits: number): { low: number; high: number } => ({ low: bits & GENERAL_BITS, high: bits >>> PMU.counters });
