/** Far transfers, IRET, fast system calls (SDM 2 for each; SDM 3A 5.8). Each sets NEXT_RIP and gives `true` when it has moved on. */
import * as S from '../../memory/vcpu-state.ts';
import { ARITHMETIC, type Cpu, EFER, FLAG, highOf, isCanonical, lowOf, raise } from './cpu.ts';
import type { Interrupts } from './interrupts.ts';
import { MSR, readMsr64 } from './msr-numbers.ts';
import { ATTR, boundsOf, type Descriptor, dpl, isCode, isConforming, isPresent, type Segments } from './segments.ts';
import { switchTask } from './tasks.ts';
import type { VirtualInterrupts } from './virtual-interrupts.ts';

const RSP = S.GPR + 32;
const RCX = S.GPR + 8;
const R11 = S.GPR + 88;

const DATA: readonly number[] = [S.ES, S.DS, S.FS, S.GS];

export class Transfers {
  readonly #cpu: Cpu;
  readonly #segments: Segments;
  readonly #interrupts: Interrupts;
  readonly #virtual: VirtualInterrupts;

  constructor(cpu: Cpu, segments: Segments, interrupts: Interrupts, virtual: VirtualInterrupts) {
    this.#cpu = cpu;
    this.#segments = segments;
    this.#interrupts = interrupts;
    this.#virtual = virtual;
  }

  // --- stack of the current privilege -----------------------------------------------------------------------------

  #stackMask(): number {
    const cpu = this.#cpu;
    return (cpu.segmentAttr(S.SS) & ATTR.DB) !== 0 ? -1 : 0xffff;
  }
  /** Reads `bytes` at the stack pointer plus `skip`. */
  #peek(skip: number, bytes: number): number {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    let at: number;
    if (cpu.is64) at = this.#canonical(cpu.getNumber(RSP) + skip, bytes);
    else {
      const offset = ((cpu.i32[RSP >> 2] + skip) & this.#stackMask()) >>> 0;
      at = cpu.stackAddress(offset, bytes);
    }
    if (bytes === 8) return cpu.read64(at, user);
    return bytes === 4 ? cpu.read32(at, user) >>> 0 : cpu.read16(at, user);
  }
  /** The low 32 bits of what `#peek` reads: a selector or flags, whatever lies above them; numbers do not hold all 64 bits. */
  #peekLow(skip: number, bytes: number): number {
    const low = this.#peek(skip, Math.min(bytes, 4)) | 0;
    if (bytes === 8) this.#peek(skip + 4, 4);
    return low;
  }
  /** #SS(0) where any of the `bytes` at a stack address is not canonical. */
  #canonical(address: number, bytes: number): number {
    if (address > 0x800000000000 - bytes || address < -0x800000000000) raise(12, 0);
    return address;
  }
  #push(value: number, bytes: number): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    if (cpu.is64) {
      const at = this.#canonical(cpu.getNumber(RSP) - bytes, bytes);
      if (bytes === 8) cpu.write64(at, value, user);
      else if (bytes === 4) cpu.write32(at, value | 0, user);
      else cpu.write16(at, value, user);
      cpu.setNumber(RSP, at);
      return;
    }
    const mask = this.#stackMask();
    const offset = ((cpu.i32[RSP >> 2] - bytes) & mask) >>> 0;
    const at = cpu.stackAddress(offset, bytes);
    if (bytes === 4) cpu.write32(at, value | 0, user);
    else cpu.write16(at, value & 0xffff, user);
    if (mask === -1) cpu.setNumber(RSP, offset);
    else cpu.u16[RSP >> 1] = offset;
  }
  #release(bytes: number): void {
    const cpu = this.#cpu;
    if (cpu.is64) cpu.setNumber(RSP, cpu.getNumber(RSP) + bytes);
    else if (this.#stackMask() === -1) cpu.setNumber(RSP, (cpu.u32[RSP >> 2] + bytes) >>> 0);
    else cpu.u16[RSP >> 1] = cpu.u16[RSP >> 1] + bytes;
  }

  // --- far jumps and calls ----------------------------------------------------------------------------------------

  /** JMP and CALL to selector:offset. `size` is the operand size; `next` is the RIP after the instruction. */
  far(selector: number, offset: number, size: number, call: boolean, next: number): void {
    const cpu = this.#cpu;
    const bytes = size / 8;
    if (!cpu.isProtected || cpu.isVirtual8086) {
      const target = size === 16 ? offset & 0xffff : offset;
      if (target > 0xffff && cpu.segmentLimit(S.CS) <= 0xffff) raise(13, 0);
      if (call) {
        const before = cpu.u64[RSP >> 3];
        try {
          this.#push(cpu.selector(S.CS), bytes);
          this.#push(next, bytes);
        } catch (problem) {
          cpu.u64[RSP >> 3] = before;
          throw problem;
        }
      }
      this.#segments.setReal(S.CS, selector);
      this.#segments.updateMode();
      cpu.setNumber(S.NEXT_RIP, target);
      return;
    }
    if ((selector & 0xfffc) === 0) raise(13, 0);
    const descriptor = this.#segments.descriptor(selector);
    const { attr } = descriptor;
    const code = selector & 0xfffc;
    if (isCode(attr)) {
      this.#checkDirect(descriptor, selector);
      this.#checkLong(attr, code);
      const long = cpu.isLongActive && (attr & ATTR.L) !== 0;
      if (!long && offset > descriptor.limit) raise(13, 0);
      if (long && !isCanonical(lowOf(offset), highOf(offset))) raise(13, 0);
      if (call) this.#pushReturn(bytes, next);
      this.#segments.setCode(selector, descriptor, cpu.cpl);
      cpu.setNumber(S.NEXT_RIP, offset);
      return;
    }
    if ((attr & ATTR.S) !== 0) raise(13, code);
    const type = attr & 15;
    const cpl = cpu.cpl;
    if (dpl(attr) < cpl || dpl(attr) < (selector & 3)) raise(13, code);
    if (!isPresent(attr)) raise(11, code);
    if (cpu.isLongActive) {
      if (type !== 12) raise(13, code);
      this.#gate(descriptor, call, next, 8);
    } else if (type === 4 || type === 12) this.#gate(descriptor, call, next, type === 12 ? 4 : 2);
    else if (type === 5) switchTask(cpu, this.#segments, descriptor.low >>> 16, call ? 'call' : 'jump', next, undefined);
    else if (type === 1 || type === 9) switchTask(cpu, this.#segments, selector, call ? 'call' : 'jump', next, undefined);
    else raise(13, code);
  }

  #pushReturn(bytes: number, next: number): void {
    const cpu = this.#cpu;
    const before = cpu.u64[RSP >> 3];
    try {
      this.#push(cpu.selector(S.CS), bytes);
      this.#push(next, bytes);
    } catch (problem) {
      cpu.u64[RSP >> 3] = before;
      throw problem;
    }
  }

  #checkDirect(descriptor: Descriptor, selector: number): void {
    const { attr } = descriptor;
    const cpl = this.#cpu.cpl;
    const code = selector & 0xfffc;
    if (isConforming(attr)) {
      if (dpl(attr) > cpl) raise(13, code);
    } else if ((selector & 3) > cpl || dpl(attr) !== cpl) raise(13, code);
    if (!isPresent(attr)) raise(11, code);
  }

  #checkLong(attr: number, code: number): void {
    if (this.#cpu.isLongActive && (attr & ATTR.L) !== 0 && (attr & ATTR.DB) !== 0) raise(13, code);
  }

  /** Through a call gate; `bytes` is 2, 4 or 8 by the gate. */
  #gate(gate: Descriptor, call: boolean, next: number, bytes: number): void {
    const cpu = this.#cpu;
    const selector = gate.low >>> 16;
    if ((selector & 0xfffc) === 0) raise(13, 0);
    let offset = (gate.low & 0xffff) | (bytes === 2 ? 0 : gate.high & 0xffff0000);
    offset >>>= 0;
    if (bytes === 8) {
      const upper = cpu.read32(gate.at + 8, false);
      if ((cpu.read32(gate.at + 12, false) & 0x1f00) !== 0) raise(13, selector & 0xfffc);
      offset += upper * 4294967296;
      if (!isCanonical(lowOf(offset), highOf(offset))) raise(13, 0);
    }
    const descriptor = this.#segments.descriptor(selector);
    const { attr } = descriptor;
    const code = selector & 0xfffc;
    const cpl = cpu.cpl;
    if (!isCode(attr) || dpl(attr) > cpl) raise(13, code);
    if (bytes === 8 && ((attr & ATTR.L) === 0 || (attr & ATTR.DB) !== 0)) raise(13, code);
    if (!isPresent(attr)) raise(11, code);
    if (!call && !isConforming(attr) && dpl(attr) !== cpl) raise(13, code);
    if (call && !isConforming(attr) && dpl(attr) < cpl) {
      const level = dpl(attr);
      const oldSs = cpu.selector(S.SS);
      const oldRsp = cpu.getNumber(RSP);
      const oldCs = cpu.selector(S.CS);
      if (bytes === 8) {
        const tssOffset = 4 + level * 8;
        if (tssOffset + 7 > cpu.segmentLimit(S.TR)) raise(10, cpu.selector(S.TR) & 0xfffc);
        let pointer = cpu.read64(cpu.segmentBase(S.TR) + tssOffset, false);
        for (const value of [oldSs, oldRsp, oldCs, next]) {
          pointer -= 8;
          cpu.write64(pointer, value, level === 3);
        }
        // Exact, whatever the program had in it.
        cpu.write32(pointer + 16, cpu.i32[RSP >> 2], level === 3);
        cpu.write32(pointer + 20, cpu.i32[(RSP >> 2) + 1], level === 3);
        cpu.i32[S.CPL >> 2] = level;
        this.#segments.setNull(S.SS, level);
        cpu.setNumber(RSP, pointer);
      } else {
        const stack = this.#interrupts.innerStack(level, 0);
        const count = gate.high & 31;
        const parameters: number[] = [];
        for (let n = 0; n < count; n++) parameters.push(this.#peek(n * bytes, bytes));
        const mask = (stack.descriptor.attr & ATTR.DB) !== 0 ? -1 : 0xffff;
        const { low, high } = boundsOf(stack.descriptor.limit, stack.descriptor.attr);
        let pointer = stack.pointer;
        const push = (value: number): void => {
          pointer = ((pointer - bytes) & mask) >>> 0;
          if (pointer < low || pointer + bytes - 1 > high) raise(12, stack.selector & 0xfffc);
          const at = (stack.descriptor.base + pointer) >>> 0;
          if (bytes === 4) cpu.write32(at, value | 0, level === 3);
          else cpu.write16(at, value, level === 3);
        };
        push(oldSs);
        push(oldRsp);
        for (const value of parameters.reverse()) push(value);
        push(oldCs);
        push(next);
        cpu.i32[S.CPL >> 2] = level;
        this.#segments.install(S.SS, (stack.selector & 0xfffc) | level, stack.descriptor);
        this.#interrupts.setStackPointer(pointer);
      }
      this.#segments.setCode(selector, descriptor, level);
    } else {
      if (bytes !== 8 && offset > descriptor.limit) raise(13, 0);
      if (call) this.#pushReturn(bytes, next);
      this.#segments.setCode(selector, descriptor, cpl);
    }
    cpu.setNumber(S.NEXT_RIP, offset);
  }

  // --- returns ----------------------------------------------------------------------------------------------------

  /** RETF with `extra` bytes of parameters. */
  farReturn(size: number, extra: number): void {
    const cpu = this.#cpu;
    const bytes = size / 8;
    const rip = this.#peek(0, bytes);
    const selector = this.#peekLow(bytes, bytes) & 0xffff;
    if (!cpu.isProtected || cpu.isVirtual8086) {
      this.#release(2 * bytes + extra);
      this.#segments.setReal(S.CS, selector);
      this.#segments.updateMode();
      cpu.setNumber(S.NEXT_RIP, rip);
      return;
    }
    const rpl = selector & 3;
    const cpl = cpu.cpl;
    const descriptor = this.#returnCode(selector);
    this.#checkTarget(rip, descriptor);
    if (rpl === cpl) {
      this.#release(2 * bytes + extra);
      this.#segments.setCode(selector, descriptor, cpl);
    } else {
      const rsp = this.#peekLow(2 * bytes + extra, bytes);
      const upper = bytes === 8 ? this.#peekLow(2 * bytes + extra + 4, 4) : 0;
      const ss = this.#peekLow(3 * bytes + extra, bytes) & 0xffff;
      this.#outerStack(ss, selector, descriptor);
      this.#setReturnedStack(rsp, upper);
      this.#release(extra);
      this.#dropInner();
    }
    cpu.setNumber(S.NEXT_RIP, rip);
  }

  #returnCode(selector: number): Descriptor {
    const cpu = this.#cpu;
    if ((selector & 0xfffc) === 0) raise(13, 0);
    const descriptor = this.#segments.descriptor(selector);
    const { attr } = descriptor;
    const code = selector & 0xfffc;
    const rpl = selector & 3;
    if (!isCode(attr) || rpl < cpu.cpl) raise(13, code);
    if (isConforming(attr) ? dpl(attr) > rpl : dpl(attr) !== rpl) raise(13, code);
    this.#checkLong(attr, code);
    if (!isPresent(attr)) raise(11, code);
    return descriptor;
  }

  #checkTarget(rip: number, descriptor: Descriptor): void {
    if (this.#cpu.isLongActive && (descriptor.attr & ATTR.L) !== 0) {
      if (!isCanonical(lowOf(rip), highOf(rip))) raise(13, 0);
    } else if (rip < 0 || rip > descriptor.limit) raise(13, 0);
  }

  /** Checks SS for a return to the privilege of a code selector, then loads both. */
  #outerStack(ss: number, selector: number, code: Descriptor): void {
    const cpu = this.#cpu;
    const rpl = selector & 3;
    const long = cpu.isLongActive && (code.attr & ATTR.L) !== 0;
    if ((ss & 0xfffc) === 0) {
      if (!long || rpl === 3 || (ss & 3) !== rpl) raise(13, 0);
      this.#segments.setCode(selector, code, rpl);
      this.#segments.setNull(S.SS, ss);
      return;
    }
    const descriptor = this.#segments.descriptor(ss);
    const { attr } = descriptor;
    const errorCode = ss & 0xfffc;
    if ((ss & 3) !== rpl || dpl(attr) !== rpl) raise(13, errorCode);
    if ((attr & (ATTR.S | ATTR.CODE | ATTR.RW)) !== (ATTR.S | ATTR.RW)) raise(13, errorCode);
    if (!isPresent(attr)) raise(12, errorCode);
    this.#segments.setCode(selector, code, rpl, false);
    this.#segments.install(S.SS, ss, descriptor);
    this.#segments.updateMode();
  }

  #setReturnedStack(rsp: number, upper: number): void {
    const cpu = this.#cpu;
    // A 16-bit stack takes 16 bits, also from a 64-bit frame (what Linux has its "espfix" for).
    if (cpu.is64) {
      cpu.i32[RSP >> 2] = rsp;
      cpu.i32[(RSP >> 2) + 1] = upper;
    } else if ((cpu.segmentAttr(S.SS) & ATTR.DB) !== 0) cpu.setNumber(RSP, rsp >>> 0);
    else cpu.u16[RSP >> 1] = rsp;
  }

  /** Nulls data segments that the outer level may not have (SDM 2, RET). */
  #dropInner(): void {
    const cpu = this.#cpu;
    let dropped = false;
    for (const index of DATA) {
      const attr = cpu.segmentAttr(index);
      if ((cpu.selector(index) & 0xfffc) === 0) continue;
      if (dpl(attr) >= cpu.cpl || (isCode(attr) && isConforming(attr))) continue;
      this.#segments.drop(index);
      dropped = true;
    }
    if (dropped) this.#segments.updateMode();
  }

  iret(size: number): void {
    const cpu = this.#cpu;
    const bytes = size / 8;
    const eflags = cpu.i32[S.EFLAGS >> 2];
    if (cpu.isProtected && !cpu.isVirtual8086 && (eflags & FLAG.NT) !== 0) {
      if (cpu.isLongActive) raise(13, 0);
      const link = cpu.read16(cpu.segmentBase(S.TR), false);
      switchTask(cpu, this.#segments, link, 'iret', cpu.getNumber(S.NEXT_RIP), undefined);
      return;
    }
    if (cpu.isVirtual8086) this.#virtual.check(size);
    const rip = this.#peek(0, bytes);
    const selector = this.#peekLow(bytes, bytes) & 0xffff;
    const image = this.#peekLow(2 * bytes, bytes);
    if (!cpu.isProtected || cpu.isVirtual8086) {
      if (cpu.isVirtual8086) this.#virtual.checkImage(image, size);
      this.#release(3 * bytes);
      const mask = size === 16 ? 0x7fd5 : 0x257fd5;
      const allowed = cpu.isVirtual8086 ? mask & ~FLAG.IOPL : mask;
      const keep = cpu.eflags;
      const virtual = cpu.isVirtual8086 ? this.#virtual.take(image, allowed) : undefined;
      cpu.eflags = virtual ?? (image & allowed) | (keep & ~allowed);
      this.#segments.setReal(S.CS, selector);
      this.#segments.updateMode();
      cpu.setNumber(S.NEXT_RIP, rip);
      return;
    }
    const cpl = cpu.cpl;
    if (!cpu.isLongActive && (image & FLAG.VM) !== 0 && cpl === 0 && size === 32) {
      const rsp = this.#peek(12, 4);
      const values = [16, 20, 24, 28, 32].map((skip) => this.#peek(skip, 4) & 0xffff);
      cpu.eflags = image;
      cpu.i32[S.CPL >> 2] = 3;
      this.#segments.setReal(S.CS, selector);
      for (const [n, index] of [S.SS, S.ES, S.DS, S.FS, S.GS].entries()) this.#segments.setReal(index, values[n]);
      cpu.setNumber(RSP, rsp);
      this.#segments.updateMode();
      cpu.setNumber(S.NEXT_RIP, rip & 0xffff);
      return;
    }
    const rpl = selector & 3;
    const descriptor = this.#returnCode(selector);
    this.#checkTarget(rip, descriptor);
    let mask = ARITHMETIC | FLAG.TF | FLAG.DF | FLAG.NT;
    if (size !== 16) mask |= FLAG.RF | FLAG.AC | FLAG.ID;
    if (cpl <= ((eflags >> 12) & 3)) mask |= FLAG.IF;
    if (cpl === 0) {
      mask |= FLAG.IOPL;
      if (size !== 16) mask |= FLAG.VIF | FLAG.VIP;
    }
    const flags = (image & mask) | (cpu.eflags & ~mask);
    if (rpl === cpl && !cpu.is64) {
      this.#release(3 * bytes);
      cpu.eflags = flags;
      this.#segments.setCode(selector, descriptor, cpl);
    } else {
      const rsp = this.#peekLow(3 * bytes, bytes);
      const upper = bytes === 8 ? this.#peekLow(3 * bytes + 4, 4) : 0;
      const ss = this.#peekLow(4 * bytes, bytes) & 0xffff;
      this.#outerStack(ss, selector, descriptor);
      this.#setReturnedStack(rsp, upper);
      cpu.eflags = flags;
      if (rpl !== cpl) this.#dropInner();
      // EFLAGS.AC chooses the TLB.
      cpu.modeChanged();
    }
    cpu.setNumber(S.NEXT_RIP, rip);
  }

  // --- fast system calls ------------------------------------------------------------------------------------------

  #flatCode(selector: number, cpl: number, long: boolean): void {
    const attr = 0x8000 | (long ? ATTR.L : ATTR.DB) | 0x9b | (cpl << 5);
    this.#cpu.i32[S.CPL >> 2] = cpl;
    this.#segments.set(S.CS, selector, 0, 0xffffffff, attr);
  }
  #flatStack(selector: number, cpl: number): void {
    this.#segments.set(S.SS, selector, 0, 0xffffffff, 0xc093 | (cpl << 5));
  }

  syscall(next: number): void {
    const cpu = this.#cpu;
    if ((cpu.efer & EFER.SCE) === 0) raise(6);
    const starLow = readMsr64(cpu, MSR.STAR).low;
    const starHigh = readMsr64(cpu, MSR.STAR).high;
    const selector = starHigh & 0xfffc;
    if (cpu.isLongActive) {
      cpu.setNumber(RCX, next);
      cpu.setNumber(R11, cpu.eflags & ~FLAG.RF);
      const target = readMsr64(cpu, cpu.is64 ? MSR.LSTAR : MSR.CSTAR);
      cpu.eflags = cpu.eflags & ~(readMsr64(cpu, MSR.FMASK).low | FLAG.RF);
      this.#flatCode(selector, 0, true);
      this.#flatStack(selector + 8, 0);
      cpu.i32[S.NEXT_RIP >> 2] = target.low;
      cpu.i32[(S.NEXT_RIP >> 2) + 1] = target.high;
    } else {
      cpu.setNumber(RCX, next >>> 0);
      cpu.eflags = cpu.eflags & ~(FLAG.IF | FLAG.RF | FLAG.VM);
      this.#flatCode(selector, 0, false);
      this.#flatStack(selector + 8, 0);
      cpu.setNumber(S.NEXT_RIP, starLow >>> 0);
    }
    this.#segments.updateMode();
  }

  sysret(size: number): void {
    const cpu = this.#cpu;
    if ((cpu.efer & EFER.SCE) === 0) raise(6);
    const star = readMsr64(cpu, MSR.STAR).high >>> 16;
    let rip = cpu.getNumber(RCX);
    if (cpu.isLongActive && size === 64) {
      if (!isCanonical(cpu.i32[RCX >> 2], cpu.i32[(RCX >> 2) + 1])) raise(13, 0);
      this.#flatCode((star + 16) | 3, 3, true);
    } else {
      rip = cpu.u32[RCX >> 2];
      this.#flatCode(star | 3, 3, false);
    }
    this.#flatStack((star + 8) | 3, 3);
    if (cpu.isLongActive) cpu.eflags = (cpu.i32[R11 >> 2] & 0x3c7fd7) | 2;
    else cpu.eflags = cpu.eflags | FLAG.IF;
    this.#segments.updateMode();
    cpu.setNumber(S.NEXT_RIP, rip);
  }

  sysenter(): void {
    const cpu = this.#cpu;
    const selector = readMsr64(cpu, MSR.SYSENTER_CS).low & 0xfffc;
    if (!cpu.isProtected || selector === 0) raise(13, 0);
    const rsp = readMsr64(cpu, MSR.SYSENTER_ESP);
    const rip = readMsr64(cpu, MSR.SYSENTER_EIP);
    cpu.eflags = cpu.eflags & ~(FLAG.VM | FLAG.IF | FLAG.RF);
    const long = cpu.isLongActive;
    this.#flatCode(selector, 0, long);
    this.#flatStack(selector + 8, 0);
    cpu.i32[RSP >> 2] = rsp.low;
    cpu.i32[(RSP >> 2) + 1] = long ? rsp.high : 0;
    cpu.i32[S.NEXT_RIP >> 2] = rip.low;
    cpu.i32[(S.NEXT_RIP >> 2) + 1] = long ? rip.high : 0;
    this.#segments.updateMode();
  }

  sysexit(size: number): void {
    const cpu = this.#cpu;
    const selector = readMsr64(cpu, MSR.SYSENTER_CS).low & 0xfffc;
    if (selector === 0) raise(13, 0);
    const long = size === 64;
    const rdx = S.GPR + 16;
    const rip = long ? cpu.getNumber(rdx) : cpu.u32[rdx >> 2];
    const rsp = long ? cpu.getNumber(RCX) : cpu.u32[RCX >> 2];
    this.#flatCode((selector + (long ? 32 : 16)) | 3, 3, long);
    this.#flatStack((selector + (long ? 40 : 24)) | 3, 3);
    cpu.setNumber(RSP, rsp);
    this.#segments.updateMode();
    cpu.setNumber(S.NEXT_RIP, rip);
  }

  /** Pushes 64 bits that need not be an address, in 64-bit mode. */
  #pushPair(low: number, high: number): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    const at = this.#canonical(cpu.getNumber(RSP) - 8, 8);
    cpu.translate(at, true, user);
    if ((at & 0xfff) > 0xff8) cpu.translate(at - (at & 0xfff) + 4096, true, user);
    cpu.write32(at, low, user);
    cpu.write32(at + 4, high, user);
    cpu.setNumber(RSP, at);
  }

  /** ENTER (SDM 2): `level` is taken modulo 32. */
  enter(allocate: number, level: number, size: number): void {
    const cpu = this.#cpu;
    const bytes = size / 8;
    const RBP = S.GPR + 40;
    const before = cpu.u64[RSP >> 3];
    const oldBase = cpu.getNumber(RBP);
    try {
      if (bytes === 8) this.#pushPair(cpu.i32[RBP >> 2], cpu.i32[(RBP >> 2) + 1]);
      else this.#push(cpu.u32[RBP >> 2], bytes);
      const frame = cpu.getNumber(RSP);
      const nesting = level & 31;
      const user = cpu.cpl === 3;
      let pointer = oldBase;
      for (let n = 1; n < nesting; n++) {
        pointer -= bytes;
        const offset = (pointer & this.#stackMask()) >>> 0;
        const at = cpu.is64 ? this.#canonical(pointer, bytes) : cpu.stackAddress(offset, bytes);
        if (bytes === 8) {
          const low = cpu.read32(at, user);
          this.#pushPair(low, cpu.read32(at + 4, user));
        } else this.#push(bytes === 4 ? cpu.read32(at, user) >>> 0 : cpu.read16(at, user), bytes);
      }
      if (nesting > 0) this.#push(size === 64 ? frame : frame >>> 0, bytes);
      this.#release(-allocate);
      // The last write must be possible: touch the new top.
      const top = cpu.is64
        ? this.#canonical(cpu.getNumber(RSP), bytes)
        : cpu.stackAddress((cpu.i32[RSP >> 2] & this.#stackMask()) >>> 0, bytes);
      cpu.translate(cpu.wrap(top), true, user);
      if ((top & 0xfff) > 0x1000 - bytes) cpu.translate(cpu.wrap(top - (top & 0xfff) + 0x1000), true, user);
      if (size === 16) cpu.u16[RBP >> 1] = frame;
      else cpu.setNumber(RBP, size === 32 ? frame >>> 0 : frame);
    } catch (problem) {
      cpu.u64[RSP >> 3] = before;
      throw problem;
    }
  }

  /** POPF; in virtual-8086 mode after `VirtualInterrupts.checkImage`. */
  popf(image: number, bits: number): void {
    const cpu = this.#cpu;
    const cpl = cpu.cpl;
    const old = cpu.i32[S.EFLAGS >> 2];
    let mask = FLAG.TF | FLAG.DF | FLAG.NT;
    if (bits !== 16) mask |= FLAG.AC | FLAG.ID;
    const iopl = (old >> 12) & 3;
    if (!cpu.isProtected || cpl === 0) mask |= FLAG.IF | FLAG.IOPL;
    else if (cpl <= iopl) mask |= FLAG.IF;
    let flags = (old & ~mask) | (image & mask);
    if (cpu.isVirtual8086 && iopl < 3) flags = this.#virtual.withFlag(flags, (image & FLAG.IF) !== 0);
    flags &= ~FLAG.RF;
    cpu.i32[S.EFLAGS >> 2] = flags;
    if (((old ^ flags) & FLAG.AC) !== 0) this.#segments.updateMode();
  }
}
