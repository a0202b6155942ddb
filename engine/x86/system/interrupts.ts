/**
 * Interrupt and exception delivery (SDM 3A, chapter 6): through the IVT, 32-bit and 16-bit gates, and 64-bit gates;
 * from virtual-8086 mode too. Task gates are in tasks.ts.
 */
import * as S from '../../memory/vcpu-state.ts';
import { ARITHMETIC, type Cpu, FLAG, GuestFault, linear, raise } from './cpu.ts';
import { ATTR, boundsOf, type decode, dpl, isCode, isConforming, isPresent, type Segments } from './segments.ts';
import { switchTask } from './tasks.ts';

const RSP = S.GPR + 32;

export type Source = 'external' | 'exception' | 'software';

/** Vectors that push an error code. */
const HAS_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
const CONTRIBUTORY = new Set([0, 10, 11, 12, 13]);

/** A stack segment: where it begins, the offsets inside, the width of its pointer, the error code of #SS. */
interface Stack {
  readonly base: number;
  readonly low: number;
  readonly high: number;
  readonly mask: number;
  readonly code: number;
}
/** Of 64-bit mode: no segment. */
const FLAT: Stack = { base: 0, low: 0, high: 0, mask: 0, code: 0 };

/** SS as it is. */
function currentStack(cpu: Cpu, mask: number, code: number): Stack {
  const at = S.segment(S.SS) >> 2;
  const { u32 } = cpu;
  return { base: cpu.segmentBase(S.SS), low: u32[at + (S.SEG_LOW >> 2)], high: u32[at + (S.SEG_HIGH >> 2)], mask, code };
}

/** Pushes in order onto a stack that is not SS:rSP yet. */
class Frame {
  readonly cpu: Cpu;
  readonly stack: Stack;
  readonly user: boolean;
  readonly bytes: number;
  pointer: number;

  constructor(cpu: Cpu, stack: Stack, pointer: number, user: boolean, bytes: number) {
    this.cpu = cpu;
    this.stack = stack;
    this.pointer = pointer;
    this.user = user;
    this.bytes = bytes;
  }
  push(value: number): void {
    if (this.bytes === 8) {
      this.pointer -= 8;
      this.cpu.write64(this.pointer, value, this.user);
      return;
    }
    const { base, low, high, mask, code } = this.stack;
    this.pointer = ((this.pointer - this.bytes) & mask) >>> 0;
    if (this.pointer < low || this.pointer + this.bytes - 1 > high) raise(12, code);
    const at = (base + this.pointer) >>> 0;
    if (this.bytes === 4) this.cpu.write32(at, value | 0, this.user);
    else this.cpu.write16(at, value & 0xffff, this.user);
  }
  /** RSP in 64-bit mode: programs may have anything in it, and a number holds 53 bits. */
  pushRsp(): void {
    const { cpu } = this;
    this.push(0);
    cpu.write32(this.pointer, cpu.i32[RSP >> 2], this.user);
    cpu.write32(this.pointer + 4, cpu.i32[(RSP >> 2) + 1], this.user);
  }
}

export class Interrupts {
  readonly #cpu: Cpu;
  readonly #segments: Segments;

  constructor(cpu: Cpu, segments: Segments) {
    this.#cpu = cpu;
    this.#segments = segments;
  }

  /**
   * Delivers an exception with the double-fault rules of SDM 3A 6.15, Interrupt 8. `rip` is the instruction to return to.
   */
  exception(vector: number, code: number, rip: number): void {
    let current = vector;
    let error = code;
    for (let depth = 0; ; depth++) {
      try {
        this.deliver(current, error, 'exception', rip);
        return;
      } catch (problem) {
        if (!(problem instanceof GuestFault)) throw problem;
        if (current === 8) {
          this.#cpu.bus.tripleFault();
          return;
        }
        const second = problem.vector;
        const doubled =
          (CONTRIBUTORY.has(current) && CONTRIBUTORY.has(second)) ||
          (current === 14 && (second === 14 || CONTRIBUTORY.has(second)));
        error = doubled ? 0 : problem.code;
        current = doubled ? 8 : second;
        if (depth > 4) {
          this.#cpu.bus.tripleFault();
          return;
        }
      }
    }
  }

  /** Delivers an interrupt or trap; a fault on the way is raised as GuestFault with the EXT bit as it should be. */
  interrupt(vector: number, source: Source, rip: number): void {
    try {
      this.deliver(vector, 0, source, rip);
    } catch (problem) {
      if (!(problem instanceof GuestFault)) throw problem;
      this.exception(problem.vector, problem.code, rip);
    }
  }

  /** Told of each delivery before it happens: for traces. */
  delivered: (source: Source, vector: number, code: number, rip: number) => void = () => {};

  deliver(vector: number, code: number, source: Source, rip: number): void {
    const cpu = this.#cpu;
    this.delivered(source, vector, code, rip);
    const before = cpu.u64[RSP >> 3];
    // Watchpoints are for what instructions access.
    const { watching } = cpu;
    cpu.watching = false;
    try {
      if (!cpu.isProtected) this.#real(vector, rip);
      else if (cpu.isLongActive) this.#long(vector, code, source, rip);
      else this.#protected(vector, code, source, rip);
    } catch (problem) {
      cpu.u64[RSP >> 3] = before;
      throw problem;
    } finally {
      cpu.watching = watching;
    }
  }

  #real(vector: number, rip: number): void {
    const cpu = this.#cpu;
    const at = vector * 4;
    if (at + 3 > cpu.segmentLimit(S.IDTR)) raise(13, 0);
    const base = cpu.segmentBase(S.IDTR);
    const offset = cpu.read16(base + at, false);
    const selector = cpu.read16(base + at + 2, false);
    const frame = new Frame(cpu, currentStack(cpu, 0xffff, 0), cpu.u32[RSP >> 2] & 0xffff, false, 2);
    frame.push(cpu.eflags);
    frame.push(cpu.selector(S.CS));
    frame.push(rip);
    cpu.u16[RSP >> 1] = frame.pointer;
    cpu.i32[S.EFLAGS >> 2] &= ~(FLAG.IF | FLAG.TF | FLAG.AC | FLAG.RF);
    this.#segments.setReal(S.CS, selector);
    this.#segments.updateMode();
    cpu.setNumber(S.NEXT_RIP, offset);
  }

  /**
   * INT n of a virtual-8086 program that its own table serves (SDM 3B, 21.3.3): `image` is what is pushed for the flags,
   * `masks` what is cleared besides TF.
   */
  inside8086(vector: number, image: number, masks: number, rip: number): void {
    const cpu = this.#cpu;
    const offset = cpu.read16(vector * 4, true);
    const selector = cpu.read16(vector * 4 + 2, true);
    const frame = new Frame(cpu, currentStack(cpu, 0xffff, 0), cpu.u32[RSP >> 2] & 0xffff, true, 2);
    frame.push((image & ~ARITHMETIC) | (cpu.eflags & ARITHMETIC));
    frame.push(cpu.selector(S.CS));
    frame.push(rip);
    cpu.u16[RSP >> 1] = frame.pointer;
    cpu.i32[S.EFLAGS >> 2] &= ~(FLAG.TF | masks);
    this.#segments.setReal(S.CS, selector);
    this.#segments.updateMode();
    cpu.setNumber(S.NEXT_RIP, offset);
  }

  #long(vector: number, code: number, source: Source, rip: number): void {
    const cpu = this.#cpu;
    const ext = source === 'software' ? 0 : 1;
    const gateCode = vector * 8 + 2 + ext;
    if (vector * 16 + 15 > cpu.segmentLimit(S.IDTR)) raise(13, gateCode);
    const at = cpu.segmentBase(S.IDTR) + vector * 16;
    cpu.readPair(at);
    const w0 = cpu.low;
    const w1 = cpu.high;
    const w2 = cpu.read32(at + 8, false);
    const type = (w1 >> 8) & 31;
    if (type !== 14 && type !== 15) raise(13, gateCode);
    const cpl = cpu.cpl;
    if (source === 'software' && ((w1 >> 13) & 3) < cpl) raise(13, gateCode);
    if ((w1 & 0x8000) === 0) raise(11, gateCode);
    const selector = w0 >>> 16;
    const target = linear((w0 & 0xffff) | (w1 & 0xffff0000), w2);
    if ((selector & 0xfffc) === 0) raise(13, ext);
    const descriptor = this.#segments.descriptor(selector);
    const { attr } = descriptor;
    const selectorCode = (selector & 0xfffc) | ext;
    if (!isCode(attr) || dpl(attr) > cpl) raise(13, selectorCode);
    if (!isPresent(attr)) raise(11, selectorCode);
    if ((attr & ATTR.L) === 0 || (attr & ATTR.DB) !== 0) raise(13, selectorCode);
    const newCpl = isConforming(attr) ? cpl : dpl(attr);
    const ist = w1 & 7;
    let pointer: number;
    if (ist !== 0 || newCpl < cpl) {
      const offset = ist !== 0 ? 28 + ist * 8 : 4 + newCpl * 8;
      if (offset + 7 > cpu.segmentLimit(S.TR)) raise(10, (cpu.selector(S.TR) & 0xfffc) | ext);
      pointer = cpu.read64(cpu.segmentBase(S.TR) + offset, false);
    } else pointer = cpu.getNumber(RSP);
    pointer -= ((pointer % 16) + 16) % 16;
    const frame = new Frame(cpu, FLAT, pointer, newCpl === 3, 8);
    const flags = cpu.eflags;
    frame.push(cpu.selector(S.SS));
    frame.pushRsp();
    // RF in the image: set for faults, so that an instruction breakpoint does not hit again.
    frame.push(source === 'exception' && vector !== 1 ? flags | FLAG.RF : flags);
    frame.push(cpu.selector(S.CS));
    frame.push(rip);
    if (source === 'exception' && HAS_CODE.has(vector)) frame.push(code);
    cpu.setNumber(RSP, frame.pointer);
    if (newCpl !== cpl) this.#segments.setNull(S.SS, newCpl);
    let kept = cpu.i32[S.EFLAGS >> 2] & ~(FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM);
    if (type === 14) kept &= ~FLAG.IF;
    cpu.i32[S.EFLAGS >> 2] = kept;
    this.#segments.setCode(selector, descriptor, newCpl);
    cpu.setNumber(S.NEXT_RIP, target);
  }

  #protected(vector: number, code: number, source: Source, rip: number): void {
    const cpu = this.#cpu;
    const ext = source === 'software' ? 0 : 1;
    const gateCode = vector * 8 + 2 + ext;
    const virtual = cpu.isVirtual8086;
    if (vector * 8 + 7 > cpu.segmentLimit(S.IDTR)) raise(13, gateCode);
    const at = cpu.segmentBase(S.IDTR) + vector * 8;
    cpu.readPair(at);
    const w0 = cpu.low;
    const w1 = cpu.high;
    const type = (w1 >> 8) & 31;
    const cpl = cpu.cpl;
    if (![5, 6, 7, 14, 15].includes(type)) raise(13, gateCode);
    if (source === 'software' && ((w1 >> 13) & 3) < cpl) raise(13, gateCode);
    if ((w1 & 0x8000) === 0) raise(11, gateCode);
    const selector = w0 >>> 16;
    if (type === 5) {
      cpu.setNumber(S.NEXT_RIP, rip);
      switchTask(cpu, this.#segments, selector, 'gate', rip, source === 'exception' && HAS_CODE.has(vector) ? code : undefined);
      return;
    }
    const wide = type >= 14;
    const target = wide ? ((w0 & 0xffff) | (w1 & 0xffff0000)) >>> 0 : w0 & 0xffff;
    if ((selector & 0xfffc) === 0) raise(13, ext);
    const descriptor = this.#segments.descriptor(selector);
    const { attr } = descriptor;
    const selectorCode = (selector & 0xfffc) | ext;
    if (!isCode(attr) || dpl(attr) > cpl) raise(13, selectorCode);
    if (!isPresent(attr)) raise(11, selectorCode);
    const newCpl = isConforming(attr) ? cpl : dpl(attr);
    if (virtual && newCpl !== 0) raise(13, selectorCode);
    const bytes = wide ? 4 : 2;
    const flags = cpu.eflags | (source === 'exception' && vector !== 1 ? FLAG.RF : 0);
    let frame: Frame;
    if (newCpl < cpl || virtual) {
      const stack = this.innerStack(newCpl, ext);
      if (target > descriptor.limit) raise(13, ext);
      const { base, limit, attr: data } = stack.descriptor;
      const inner = { base, ...boundsOf(limit, data), mask: (data & ATTR.DB) !== 0 ? -1 : 0xffff };
      frame = new Frame(cpu, { ...inner, code: (stack.selector & 0xfffc) | ext }, stack.pointer, newCpl === 3, bytes);
      if (virtual) for (const index of [S.GS, S.FS, S.DS, S.ES]) frame.push(cpu.selector(index));
      frame.push(cpu.selector(S.SS));
      frame.push(cpu.i32[RSP >> 2]);
      this.#pushReturn(frame, flags, rip, source, vector, code);
      if (virtual) {
        cpu.i32[S.EFLAGS >> 2] &= ~FLAG.VM;
        for (const index of [S.GS, S.FS, S.DS, S.ES]) this.#segments.setNull(index, 0);
      }
      cpu.i32[S.CPL >> 2] = newCpl;
      this.#segments.install(S.SS, (stack.selector & 0xfffc) | newCpl, stack.descriptor);
    } else {
      if (target > descriptor.limit) raise(13, ext);
      const mask = (cpu.segmentAttr(S.SS) & ATTR.DB) !== 0 ? -1 : 0xffff;
      frame = new Frame(cpu, currentStack(cpu, mask, ext), (cpu.i32[RSP >> 2] & mask) >>> 0, cpl === 3, bytes);
      this.#pushReturn(frame, flags, rip, source, vector, code);
    }
    this.setStackPointer(frame.pointer);
    let kept = cpu.i32[S.EFLAGS >> 2] & ~(FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM);
    if ((type & 1) === 0) kept &= ~FLAG.IF;
    cpu.i32[S.EFLAGS >> 2] = kept;
    this.#segments.setCode(selector, descriptor, newCpl);
    cpu.setNumber(S.NEXT_RIP, target);
  }

  #pushReturn(frame: Frame, flags: number, rip: number, source: Source, vector: number, code: number): void {
    const cpu = this.#cpu;
    frame.push(flags);
    frame.push(cpu.selector(S.CS));
    frame.push(rip);
    if (source === 'exception' && HAS_CODE.has(vector)) frame.push(code);
  }

  setStackPointer(pointer: number): void {
    const cpu = this.#cpu;
    if ((cpu.segmentAttr(S.SS) & ATTR.DB) !== 0) cpu.setNumber(RSP, pointer);
    else cpu.u16[RSP >> 1] = pointer;
  }

  /** The stack of an inner privilege level from the TSS, with the checks of SDM 3A 6.12.1. */
  innerStack(level: number, ext: number): { selector: number; pointer: number; descriptor: ReturnType<typeof decode> } {
    const cpu = this.#cpu;
    const wide = (cpu.segmentAttr(S.TR) & 8) !== 0;
    const base = cpu.segmentBase(S.TR);
    const tssCode = (cpu.selector(S.TR) & 0xfffc) | ext;
    const offset = wide ? 4 + level * 8 : 2 + level * 4;
    if (offset + (wide ? 5 : 3) > cpu.segmentLimit(S.TR)) raise(10, tssCode);
    const pointer = wide ? cpu.read32(base + offset, false) >>> 0 : cpu.read16(base + offset, false);
    const selector = cpu.read16(base + offset + (wide ? 4 : 2), false);
    const code = (selector & 0xfffc) | ext;
    if ((selector & 0xfffc) === 0) raise(10, ext);
    const descriptor = this.#segments.descriptor(selector, 10);
    const { attr } = descriptor;
    if ((selector & 3) !== level || dpl(attr) !== level) raise(10, code);
    if ((attr & (ATTR.S | ATTR.CODE | ATTR.RW)) !== (ATTR.S | ATTR.RW)) raise(10, code);
    if (!isPresent(attr)) raise(12, code);
    return { selector, pointer, descriptor };
  }
}
