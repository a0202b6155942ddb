/**
 * Single step, the debug registers and breakpoints of a debugger outside (SDM 3B, chapter 17).
 *
 * Translated code knows nothing of breakpoints. Where one may count, the dispatcher runs instructions alone, between
 * `begin` and `end`: while TF or RF is set, on pages that hold an instruction breakpoint, and where an instruction
 * touched watched bytes, which makes it start again alone (`RUN_ALONE`). Watched pages are kept out of the TLB, so
 * that their accesses are seen. So a guest that sets no breakpoint pays nothing.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR4, FLAG, raise } from './cpu.ts';
import { MSR, readMsr64, writeMsr64 } from './msr-numbers.ts';

/** No exception but a request: run this instruction again, alone. */
export const RUN_ALONE = 0x100;

/** DR6: single step, task switch; bits 3:0 are the breakpoints. */
export const DR6 = { BD: 1 << 13, BS: 1 << 14, BT: 1 << 15 } as const;
const DR7_GD = 1 << 13;
/** DEBUGCTL.BTF: TF traps on branches only. */
const BTF = 2;
const DR6_AT = (S.DR + 32) >> 2;
const DR7_AT = (S.DR + 40) >> 2;

/** What a debugger outside of the machine watches; `length` is 1 for code. */
export interface Breakpoint {
  readonly kind: 'code' | 'write' | 'read' | 'access';
  readonly address: number;
  readonly length: number;
}

/** Why this vCPU stopped for the debugger outside. */
export type Stop = { readonly kind: 'step' } | { readonly kind: 'breakpoint'; readonly breakpoint: Breakpoint };

interface Watch {
  readonly first: number;
  readonly last: number;
  readonly reads: boolean;
  readonly writes: boolean;
  /** Its bit in DR6; 0: it is the debugger's. */
  readonly bit: number;
  readonly breakpoint?: Breakpoint;
}

export class Debug {
  readonly #cpu: Cpu;
  readonly #deliver: (rip: number) => void;
  readonly #flush: () => void;
  #code: { address: number; bit: number; breakpoint?: Breakpoint }[] = [];
  #watches: Watch[] = [];
  #ports: { first: number; last: number; bit: number }[] = [];
  #codePages = new Set<number>();
  #watchPages = new Set<number>();
  #foreign: readonly Breakpoint[] = [];
  /** The debugger's breakpoint at this address does not count once: it was shown already. */
  #skip: number | undefined;
  #hit: Stop | undefined;
  #traps = false;
  /** The debugger wants one instruction. */
  stepping = false;
  /** Told when the debugger is to have a look: the machine must stop before the next instruction. False: it does not look. */
  stopped: (why: Stop) => boolean = () => true;
  /** Bits of DR6 for a trap that comes at once: SYSRET that did not run alone has set TF, or a task asks for it. */
  #due = 0;
  /** An instruction runs alone. */
  alone = false;
  /** The string instruction that runs alone has more to do. */
  repeats = false;

  constructor(cpu: Cpu, deliver: (rip: number) => void, flush: () => void) {
    this.#cpu = cpu;
    this.#deliver = deliver;
    this.#flush = flush;
    cpu.breakpointsChanged = () => this.#update();
    cpu.taskTrap = () => this.#trapSoon(DR6.BT);
    cpu.touched = (address, bytes, write) => this.#touched(address, bytes, write);
  }

  /** Breakpoints of the debugger outside: all of them, anew. */
  setForeign(breakpoints: readonly Breakpoint[]): void {
    this.#foreign = breakpoints;
    this.#update();
  }
  /** Takes over DR0 to DR3, DR7, CR4.DE and the debugger's list. */
  #update(): void {
    const cpu = this.#cpu;
    const dr7 = cpu.i32[DR7_AT];
    this.#code = [];
    this.#watches = [];
    this.#ports = [];
    for (let n = 0; n < 4; n++) {
      if (((dr7 >> (n * 2)) & 3) === 0) continue;
      const type = (dr7 >>> (16 + n * 4)) & 3;
      const code = (dr7 >>> (18 + n * 4)) & 3;
      const length = code === 2 ? 8 : code + 1;
      const address = cpu.getNumber(S.DR + n * 8);
      const bit = 1 << n;
      if (type === 0) this.#code.push({ address, bit });
      else {
        // The low bits of the address do not count (SDM 3B, 17.2.5).
        const first = address - (((address % length) + length) % length);
        if (type !== 2) this.#watches.push({ first, last: first + length - 1, reads: type === 3, writes: true, bit });
        else if ((cpu.cr4 & CR4.DE) !== 0) this.#ports.push({ first, last: first + length - 1, bit });
      }
    }
    for (const breakpoint of this.#foreign) {
      const { kind, address, length } = breakpoint;
      if (kind === 'code') this.#code.push({ address, bit: 0, breakpoint });
      else {
        const last = address + Math.max(1, length) - 1;
        this.#watches.push({ first: address, last, reads: kind !== 'write', writes: kind !== 'read', bit: 0, breakpoint });
      }
    }
    this.#codePages = new Set(this.#code.map(({ address }) => Math.floor(address / 4096)));
    this.#watchPages = new Set();
    for (const { first, last } of this.#watches)
      for (let page = Math.floor(first / 4096); page <= Math.floor(last / 4096); page++) this.#watchPages.add(page);
    cpu.watching = this.#watches.length > 0;
    // Watched pages leave the TLB, pages of breakpoints the jump caches.
    this.#flush();
  }

  /** Whether accesses to the page of a linear address must be seen. */
  watches(address: number): boolean {
    return this.#watchPages.has(Math.floor(address / 4096));
  }

  /** True where no instruction must run alone but for a breakpoint at it. */
  isIdle(): boolean {
    const state = this.#cpu.i32;
    return !this.stepping && (state[S.EFLAGS >> 2] & (FLAG.TF | FLAG.RF)) === 0 && state[S.DEBUG_HITS >> 2] === 0;
  }

  /** Whether the instruction at a linear address must run alone. */
  wants(address: number): boolean {
    const cpu = this.#cpu;
    const flags = cpu.i32[S.EFLAGS >> 2];
    if (this.stepping || (flags & FLAG.TF) !== 0 || cpu.i32[S.DEBUG_HITS >> 2] !== 0) return true;
    if (this.#code.length === 0) {
      // Nothing is there for RF to hold back.
      if ((flags & FLAG.RF) !== 0) cpu.i32[S.EFLAGS >> 2] = flags & ~FLAG.RF;
      return false;
    }
    return (flags & FLAG.RF) !== 0 || this.#codePages.has(Math.floor(address / 4096));
  }

  /** SYSCALL and SYSRET trap by the TF that they leave behind, also where nothing was stepped before. */
  leavesTrap(): void {
    const cpu = this.#cpu;
    cpu.trapRule = 'after';
    if (!this.alone && (cpu.i32[S.EFLAGS >> 2] & FLAG.TF) !== 0) this.#trapSoon(DR6.BS);
  }
  #trapSoon(bits: number): void {
    this.#due |= bits;
    Atomics.or(this.#cpu.i32, S.PENDING >> 2, S.Pending.DEBUG);
  }
  /** Delivers what is due before the next instruction. */
  deliverDue(): void {
    const bits = this.#due;
    this.#due = 0;
    if (bits !== 0) this.#raise(bits);
  }
  /** INT1 comes with what waited for the end of MOV SS: one #DB for both. */
  mergeHits(): void {
    const state = this.#cpu.i32;
    const bits = state[S.DEBUG_HITS >> 2];
    state[S.DEBUG_HITS >> 2] = 0;
    if (bits !== 0) state[DR6_AT] = (state[DR6_AT] & ~15) | bits;
  }

  // --- one instruction --------------------------------------------------------------------------------------------

  /** Before the instruction at NEXT_RIP, whose linear address is given. False: a breakpoint there comes first. */
  begin(address: number): boolean {
    const cpu = this.#cpu;
    const state = cpu.i32;
    const flags = state[S.EFLAGS >> 2];
    const shielded = state[S.SHADOW >> 2] === S.Shadow.STACK && state[S.SHADOW_RIP >> 2] === state[S.NEXT_RIP >> 2];
    state[S.SHADOW >> 2] = 0;
    let bits = 0;
    for (const { address: at, bit, breakpoint } of this.#code) {
      if (at !== address) continue;
      if (breakpoint !== undefined) {
        if (this.#skip === cpu.getNumber(S.NEXT_RIP)) continue;
        this.stepping = false;
        // It counts again when this vCPU goes on, unless the debugger has seen it.
        this.#skip = this.stopped({ kind: 'breakpoint', breakpoint }) ? cpu.getNumber(S.NEXT_RIP) : undefined;
        return false;
      }
      bits |= bit;
    }
    this.#skip = undefined;
    if (bits !== 0 && (flags & FLAG.RF) === 0 && !shielded) {
      this.#raise(bits);
      return false;
    }
    // IRET may set it again; a fault puts it into the frame by itself.
    state[S.EFLAGS >> 2] = flags & ~FLAG.RF;
    this.#traps = (flags & FLAG.TF) !== 0;
    cpu.trapRule = 'before';
    this.alone = true;
    this.repeats = false;
    return true;
  }

  /** The instruction did not complete: what it touched does not count. */
  abandon(): void {
    this.alone = false;
    this.#cpu.i32[S.DEBUG_HITS >> 2] = 0;
    this.#hit = undefined;
  }

  /**
   * After it, with NEXT_RIP where it goes on; `branched`: that is not the instruction behind it. True: a trap was
   * delivered.
   */
  end(branched: boolean): boolean {
    const cpu = this.#cpu;
    const state = cpu.i32;
    this.alone = false;
    // SYSCALL and SYSRET go by the flag that they leave behind, INT and its kind trap no more.
    let single =
      cpu.trapRule === 'before' ? this.#traps : cpu.trapRule === 'after' ? (state[S.EFLAGS >> 2] & FLAG.TF) !== 0 : false;
    if (single && !branched && (readMsr64(cpu, MSR.DEBUGCTL).low & BTF) !== 0) single = false;
    // Traps wait for the instruction after MOV SS (SDM 3A, 6.8.3).
    const shielded = state[S.SHADOW >> 2] === S.Shadow.STACK && state[S.SHADOW_RIP >> 2] === state[S.NEXT_RIP >> 2];
    let trapped = false;
    if (!shielded) {
      const bits = state[S.DEBUG_HITS >> 2] | (single ? DR6.BS : 0);
      state[S.DEBUG_HITS >> 2] = 0;
      if (bits !== 0) {
        if (this.repeats) state[S.EFLAGS >> 2] |= FLAG.RF;
        this.#raise(bits);
        trapped = true;
      }
    }
    const hit = this.#hit;
    this.#hit = undefined;
    if (hit !== undefined || this.stepping) {
      this.stepping = false;
      this.#skip = cpu.getNumber(S.NEXT_RIP);
      this.stopped(hit ?? { kind: 'step' });
    }
    return trapped;
  }

  #raise(bits: number): void {
    const cpu = this.#cpu;
    const state = cpu.i32;
    // Bits of conditions that did not hold stay, but for those of the breakpoints (SDM 3B, 17.2.3).
    state[DR6_AT] = (state[DR6_AT] & ~15) | bits;
    state[DR7_AT] &= ~DR7_GD;
    const control = readMsr64(cpu, MSR.DEBUGCTL);
    writeMsr64(cpu, MSR.DEBUGCTL, control.low & ~3, control.high);
    state[S.STOPPED_AT >> 2] = 0;
    this.#deliver(cpu.getNumber(S.NEXT_RIP));
  }

  // --- what it touches --------------------------------------------------------------------------------------------

  /** Notes an access by linear address; throws RUN_ALONE where the instruction must start again. */
  #touched(address: number, bytes: number, write: boolean): void {
    const last = address + bytes - 1;
    for (const watch of this.#watches) {
      if (address > watch.last || last < watch.first || !(write ? watch.writes : watch.reads)) continue;
      if (!this.alone) raise(RUN_ALONE);
      if (watch.breakpoint === undefined) this.#cpu.i32[S.DEBUG_HITS >> 2] |= watch.bit;
      else this.#hit ??= { kind: 'breakpoint', breakpoint: watch.breakpoint };
    }
  }

  /** As `touched`, for ports. */
  port(port: number, bytes: number): void {
    for (const { first, last, bit } of this.#ports) {
      if (port > last || port + bytes - 1 < first) continue;
      if (!this.alone) raise(RUN_ALONE);
      this.#cpu.i32[S.DEBUG_HITS >> 2] |= bit;
    }
  }
}
