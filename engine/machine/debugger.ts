/**
 * The machine as a debugger outside sees it: registers, memory, breakpoints, stepping. Runs on the control thread; what
 * vCPU threads must know lies in a struct that they read when they go on (`takeDebug` in threads.ts).
 */
import { f64s, i32s, struct, u32, u32s, type View } from '../memory/struct.ts';
import * as S from '../memory/vcpu-state.ts';
import { type DebugTarget, type GdbAction, type GdbBreakpoint, type GdbStop, MAX_BREAKPOINTS } from '../monitor/gdb/target.ts';
import { readVirtual, translate } from '../monitor/page-tables.ts';
import type { Breakpoint, Stop } from '../x86/system/debug.ts';
import type { System } from '../x86/system/helpers.ts';
import { MSR, readMsr64 } from '../x86/system/msr-numbers.ts';
import { MAX_CPUS, Request } from './control-words.ts';
import type { Machine } from './machine.ts';
import { readRegisters } from './registers.ts';

const KINDS: readonly GdbBreakpoint['kind'][] = ['code', 'write', 'read', 'access'];
const STEPPED = -1;

export const debugState = struct(
  'debug',
  1,
  {
    /** Rises with each change of the list. */
    generation: u32,
    count: u32,
    kinds: u32s(MAX_BREAKPOINTS),
    addresses: f64s(MAX_BREAKPOINTS),
    lengths: u32s(MAX_BREAKPOINTS),
    /** Per vCPU: nonzero while it stays parked though the machine runs; waited on. */
    held: i32s(MAX_CPUS),
    /** Per vCPU: 1: one instruction. Taken when it goes on. */
    step: i32s(MAX_CPUS),
    /** One more than the vCPU that stopped the machine; 0: none did. */
    stopped: i32s(1),
    /** Its breakpoint by index, or STEPPED. */
    reason: i32s(1),
  },
  'host',
);

export type DebugState = View<typeof debugState.fields>;

/** On a vCPU's thread, which goes on: takes over the list where it changed, and whether to step. Gives the list's generation. */
export function takeDebug(state: DebugState, index: number, system: System, seen: number): number {
  if (state.generation !== seen)
    system.debug.setForeign(
      Array.from(
        { length: state.count },
        (_, n): Breakpoint => ({
          kind: KINDS[state.kinds[n]],
          address: state.addresses[n],
          length: state.lengths[n],
        }),
      ),
    );
  if (Atomics.exchange(state.step, index, 0) !== 0) system.debug.stepping = true;
  return state.generation;
}

/** On a vCPU's thread: stops the machine for the debugger. False: another vCPU was first, this stop is not seen. */
export function stopForDebugger(machine: Machine, state: DebugState, index: number, why: Stop): boolean {
  if (Atomics.compareExchange(state.stopped, 0, 0, index + 1) !== 0) return false;
  state.reason[0] =
    why.kind === 'step'
      ? STEPPED
      : Array.from(state.addresses.subarray(0, state.count)).findIndex(
          (address, n) => address === why.breakpoint.address && KINDS[state.kinds[n]] === why.breakpoint.kind,
        );
  machine.request(Request.DEBUG);
  return true;
}

export interface DebuggerHost {
  running(): boolean;
  stop(): Promise<void>;
  cont(): Promise<void>;
  kill(): void;
  readonly ended: Promise<number>;
}

export class MachineDebugger implements DebugTarget {
  readonly #machine: Machine;
  readonly #systems: readonly System[];
  readonly #host: DebuggerHost;
  readonly #state: DebugState;
  readonly #listeners = new Set<(stop: GdbStop) => void>();
  #list: readonly GdbBreakpoint[] = [];

  constructor(machine: Machine, systems: readonly System[], host: DebuggerHost) {
    this.#machine = machine;
    this.#systems = systems;
    this.#host = host;
    this.#state = machine.debug;
  }

  get cpus(): number {
    return this.#systems.length;
  }
  get long(): boolean {
    return this.#systems[0].cpuid.has('lm');
  }
  get running(): boolean {
    return this.#host.running();
  }
  get ended(): Promise<number> {
    return this.#host.ended;
  }
  stop(): Promise<void> {
    return this.#host.stop();
  }
  kill(): void {
    this.#host.kill();
  }

  async resume(actions: readonly GdbAction[]): Promise<void> {
    const state = this.#state;
    Atomics.store(state.stopped, 0, 0);
    for (const [n, action] of actions.entries()) {
      Atomics.store(state.step, n, action === 'step' ? 1 : 0);
      Atomics.store(state.held, n, action === 'hold' ? 1 : 0);
      Atomics.notify(state.held, n);
    }
    await this.#host.cont();
  }

  setBreakpoints(list: readonly GdbBreakpoint[]): void {
    this.#list = list.slice(0, MAX_BREAKPOINTS);
    const state = this.#state;
    state.count = this.#list.length;
    for (const [n, { kind, address, length }] of this.#list.entries()) {
      state.kinds[n] = KINDS.indexOf(kind);
      state.addresses[n] = address;
      state.lengths[n] = length;
    }
    state.generation++;
  }

  onStop(listener: (stop: GdbStop) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The machine stands: by a vCPU that met what the debugger waits for, or by somebody else. */
  tell(): void {
    const state = this.#state;
    const cpu = Atomics.load(state.stopped, 0) - 1;
    const breakpoint = cpu >= 0 ? this.#list[state.reason[0]] : undefined;
    const stop: GdbStop =
      cpu < 0
        ? { kind: 'paused', cpu: 0 }
        : breakpoint === undefined
          ? { kind: 'step', cpu }
          : { kind: 'breakpoint', cpu, breakpoint };
    for (const listener of [...this.#listeners]) listener(stop);
  }

  // --- registers --------------------------------------------------------------------------------------------------

  readRegister(index: number, name: string): bigint | undefined {
    const system = this.#systems[index];
    const { cpu } = system;
    const at = offsetOf(name);
    if (at !== undefined) return name.startsWith('e') ? cpu.u64[at >> 3] & 0xffffffffn : cpu.u64[at >> 3];
    const segment = SEGMENTS.indexOf(name);
    if (segment >= 0) return BigInt(cpu.selector(segment));
    const { state } = system.fpu;
    const st = /^st([0-7])$/.exec(name);
    if (st !== null) {
      const slot = this.#stackSlot(system, Number(st[1]));
      return cpu.u64[slot >> 3] | (BigInt(cpu.u16[(slot + 8) >> 1]) << 64n);
    }
    const xmm = /^xmm(\d+)$/.exec(name);
    if (xmm !== null) {
      const slot = (S.VECTOR + Number(xmm[1]) * S.VECTOR_STRIDE) >> 3;
      return cpu.u64[slot] | (cpu.u64[slot + 1] << 64n);
    }
    switch (name) {
      case 'eflags':
        return BigInt(cpu.eflags >>> 0);
      case 'mxcsr':
        return BigInt(cpu.u32[S.MXCSR >> 2]);
      case 'fctrl':
        return BigInt(state.control);
      case 'fstat':
        return BigInt(state.status);
      case 'ftag':
        return BigInt(tagWord(state.valid));
      case 'fiseg':
        return BigInt(state.ipSelector);
      case 'fioff':
        return BigInt(state.ipLow);
      case 'foseg':
        return BigInt(state.dpSelector);
      case 'fooff':
        return BigInt(state.dpLow);
      case 'fop':
        return BigInt(state.opcode);
      case 'fs_base':
        return cpu.u64[S.segment(S.FS) >> 3];
      case 'gs_base':
        return cpu.u64[S.segment(S.GS) >> 3];
      case 'k_gs_base': {
        const { low, high } = readMsr64(cpu, MSR.KERNEL_GS_BASE);
        return BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
      }
      case 'cr0':
        return cpu.u64[S.CR0 >> 3] & 0xffffffffn;
      case 'cr2':
        return cpu.u64[S.CR2 >> 3];
      case 'cr3':
        return cpu.u64[S.CR3 >> 3];
      case 'cr4':
        return cpu.u64[S.CR4 >> 3] & 0xffffffffn;
      case 'cr8':
        return BigInt(cpu.bus.readTpr() >> 4);
      case 'efer':
        return BigInt(cpu.efer >>> 0);
      default:
        return undefined;
    }
  }

  #stackSlot(system: System, n: number): number {
    const top = (system.fpu.state.status >> 11) & 7;
    return S.FPU + ((top + n) & 7) * 16;
  }

  writeRegister(index: number, name: string, value: bigint): boolean {
    const system = this.#systems[index];
    const { cpu } = system;
    const at = offsetOf(name);
    if (at !== undefined) {
      cpu.u64[at >> 3] = BigInt.asUintN(name.startsWith('e') ? 32 : 64, value);
      // Somebody who moves it wants it to run.
      if (at === S.NEXT_RIP) cpu.i32[S.HALTED >> 2] = 0;
      return true;
    }
    const st = /^st([0-7])$/.exec(name);
    if (st !== null) {
      const slot = this.#stackSlot(system, Number(st[1]));
      cpu.u64[slot >> 3] = BigInt.asUintN(64, value);
      cpu.u16[(slot + 8) >> 1] = Number(BigInt.asUintN(16, value >> 64n));
      return true;
    }
    const xmm = /^xmm(\d+)$/.exec(name);
    if (xmm !== null) {
      const slot = (S.VECTOR + Number(xmm[1]) * S.VECTOR_STRIDE) >> 3;
      cpu.u64[slot] = BigInt.asUintN(64, value);
      cpu.u64[slot + 1] = BigInt.asUintN(64, value >> 64n);
      return true;
    }
    switch (name) {
      case 'eflags':
        // Virtual-8086 mode is not entered this way.
        cpu.eflags = (Number(BigInt.asIntN(32, value)) & ~0x20000) | (cpu.i32[S.EFLAGS >> 2] & 0x20000);
        if (cpu.i32[S.INTR_WAIT >> 2] !== 0) Atomics.or(cpu.i32, S.PENDING >> 2, S.Pending.INTR);
        return true;
      case 'mxcsr':
        if ((value & ~0xffffn) !== 0n) return false;
        cpu.i32[S.MXCSR >> 2] = Number(value);
        return true;
      case 'fctrl':
        system.fpu.state.control = Number(value & 0xffffn);
        return true;
      case 'fs_base':
      case 'gs_base':
        cpu.u64[S.segment(name === 'fs_base' ? S.FS : S.GS) >> 3] = BigInt.asUintN(64, value);
        return true;
      default:
        // Segments, control registers and the rest: what they are already can be written.
        return this.readRegister(index, name) === value;
    }
  }

  // --- memory -----------------------------------------------------------------------------------------------------

  readonly #physicalReader = (address: number, length: number): Uint8Array => {
    const out = new Uint8Array(length);
    this.#machine.memory.read(address, out);
    return out;
  };

  read(index: number, address: bigint, length: number, physical: boolean): Uint8Array | undefined {
    if (physical) return address + BigInt(length) > 1n << 40n ? undefined : this.#physicalReader(Number(address), length);
    const registers = readRegisters(this.#systems[index], index);
    return readVirtual(registers, this.#physicalReader, this.#linear(address), length);
  }

  write(index: number, address: bigint, bytes: Uint8Array, physical: boolean): boolean {
    const registers = readRegisters(this.#systems[index], index);
    const pieces: [number, Uint8Array][] = [];
    for (let done = 0; done < bytes.length; ) {
      const linear = address + BigInt(done);
      const at = physical ? linear : translate(registers, this.#physicalReader, this.#linear(linear));
      if (at === undefined || at >= 1n << 40n) return false;
      const count = Math.min(bytes.length - done, 4096 - Number(at & 0xfffn));
      pieces.push([Number(at), bytes.subarray(done, done + count)]);
      done += count;
    }
    for (const [at, piece] of pieces) this.#machine.memory.write(at, piece);
    return true;
  }

  /** Outside of 64-bit mode addresses have 32 bits, whatever gdb thinks. */
  #linear(address: bigint): bigint {
    return BigInt.asUintN(this.long ? 64 : 32, address);
  }
}

const SEGMENTS = 'es cs ss ds fs gs'.split(' ');
const GENERAL = 'ax cx dx bx sp bp si di'.split(' ');

/** State offset of a general register or the instruction pointer. */
function offsetOf(name: string): number | undefined {
  if (name === 'rip' || name === 'eip') return S.NEXT_RIP;
  const numbered = /^r(8|9|1[0-5])$/.exec(name);
  if (numbered !== null) return S.GPR + Number(numbered[1]) * 8;
  const index = /^[re]/.test(name) ? GENERAL.indexOf(name.slice(1)) : -1;
  return index < 0 ? undefined : S.GPR + index * 8;
}

/** The full tag word from the abridged one: 3 is empty; what the others are the values tell. */
function tagWord(valid: number): number {
  let word = 0;
  for (let n = 0; n < 8; n++) if (((valid >> n) & 1) === 0) word |= 3 << (2 * n);
  return word;
}
