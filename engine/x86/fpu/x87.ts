/**
 * The x87 instructions, executed on the state in the vCPU's block. SDM 1, chapter 8; SDM 2, each instruction.
 *
 * One `X87` belongs to one vCPU's thread. The caller decodes; for a register form it calls `register`, for a memory
 * form:
 *
 *   1. `pending(opcode, modrm)`: true means #MF (IRQ 13 where CR0.NE is 0), before anything else;
 *   2. reads `loadLength` bytes into `scratch`;
 *   3. `memory(opcode, modrm, wide, real)`;
 *   4. writes `stored` bytes from `scratch` (0 where an unmasked exception keeps the result back); where that write
 *      faults, `undo()`, and the instruction has not happened.
 *
 * `recordPointers` before either gives the last instruction and data pointers. Exceptions an instruction raises are
 * only flagged here; the next waiting instruction reports them.
 */
import { controlWord, loadEnvironment, loadRegisters, storeEnvironment, storeRegisters } from './environment.ts';
import { Float80 } from './float80.ts';
import {
  BUSY,
  C0,
  C1,
  C2,
  C3,
  CC,
  ES,
  EXCEPTIONS,
  type FpuState,
  IE,
  initialize,
  isPending,
  OE,
  PE,
  SF,
  summarize,
  TOP_MASK,
  TOP_SHIFT,
  UE,
} from './fpu-state.ts';
import { loadConstant } from './load-constants.ts';
import { Transcendental80 } from './transcendental80.ts';
import { bcdIndefinite } from './convert80.ts';
import { isControl, isWaiting, storeLength } from './x87-forms.ts';

/** What an instruction came to. */
export const Outcome = {
  DONE: 0,
  /** #UD: no such instruction. */
  UNDEFINED: 1,
  /** #MF is due: an earlier unmasked exception. Nothing was executed. */
  PENDING: 2,
  /** Done, and CF, PF and ZF of RFLAGS are to become `eflags` (FCOMI); OF, SF and AF become 0. */
  FLAGS: 3,
  /** Done, and AX is to become `ax` (FNSTSW AX). */
  AX: 4,
} as const;

const CF = 1;
const PF = 4;
const ZF = 0x40;

export class X87 {
  /** Operand bytes in, result bytes out. */
  readonly scratch: Uint8Array;
  /** Bytes of `scratch` to be written to memory after `memory`. */
  stored = 0;
  /** CF, PF, ZF after `Outcome.FLAGS`. */
  eflags = 0;
  /** AX after `Outcome.AX`. */
  ax = 0;

  private readonly state: FpuState;
  private readonly words: Int32Array;
  private readonly data: DataView;
  private readonly unit = new Transcendental80();
  private readonly a = new Float80();
  private readonly b = new Float80();
  private readonly r = new Float80();
  private readonly r2 = new Float80();
  private beforeControl = 0;
  private beforeStatus = 0;
  private beforeValid = 0;
  private readonly beforePointers = new Uint32Array(7);

  /** `scratch`: at least 108 bytes; may lie in shared memory. */
  constructor(state: FpuState, scratch: Uint8Array = new Uint8Array(128)) {
    this.state = state;
    this.scratch = scratch;
    this.data = new DataView(scratch.buffer, scratch.byteOffset, scratch.byteLength);
    this.words = new Int32Array(state.registers.buffer, state.registers.byteOffset, 32);
  }

  /** Whether this instruction must report an earlier unmasked exception instead of running. */
  pending(opcode: number, modrm: number): boolean {
    return isPending(this.state) && isWaiting(opcode, modrm);
  }

  /** Notes where a non-control instruction is and what it addresses. Offsets are 64 bits in two words. */
  recordPointers(
    opcode: number,
    modrm: number,
    ip: { low: number; high: number; selector: number },
    dp?: { low: number; high: number; selector: number },
  ): void {
    if (isControl(opcode, modrm)) return;
    const { state } = this;
    state.opcode = ((opcode & 7) << 8) | modrm;
    state.ipLow = ip.low;
    state.ipHigh = ip.high;
    state.ipSelector = ip.selector;
    if (!dp) return;
    state.dpLow = dp.low;
    state.dpHigh = dp.high;
    state.dpSelector = dp.selector;
  }

  // ---- Stack --------------------------------------------------------------------------------------------------

  private physical(i: number): number {
    return ((this.state.status >> TOP_SHIFT) + i) & 7;
  }

  private isEmpty(i: number): boolean {
    return ((this.state.valid >> this.physical(i)) & 1) === 0;
  }

  private get(i: number, into: Float80): Float80 {
    const at = this.physical(i) * 4;
    const { words } = this;
    into.lo = words[at];
    into.hi = words[at + 1];
    const top = words[at + 2];
    into.exp = top & 0x7fff;
    into.sign = (top >> 15) & 1;
    into.small = 0;
    return into;
  }

  private put(i: number, value: Float80): void {
    const n = this.physical(i);
    const { words } = this;
    words[n * 4] = value.lo;
    words[n * 4 + 1] = value.hi;
    words[n * 4 + 2] = (value.sign << 15) | value.exp;
    this.state.valid |= 1 << n;
  }

  private moveTop(by: number): void {
    const { state } = this;
    const { status } = state;
    state.status = (status & ~TOP_MASK) | ((((status >> TOP_SHIFT) + by) & 7) << TOP_SHIFT);
  }

  private pop(): void {
    this.state.valid &= ~(1 << this.physical(0));
    this.moveTop(1);
  }

  private free(i: number): void {
    this.state.status &= ~C1;
    this.state.valid &= ~(1 << this.physical(i));
  }

  private push(value: Float80): void {
    this.moveTop(-1);
    this.put(0, value);
  }

  // ---- Exceptions ---------------------------------------------------------------------------------------------

  /** Adds exception flags to the status word and sets C1; true where one of them is unmasked. */
  private raise(flags: number, c1 = 0): boolean {
    const { state } = this;
    let status = (state.status & ~C1) | flags | (c1 !== 0 ? C1 : 0);
    const unmasked = (flags & ~state.control & EXCEPTIONS) !== 0;
    if (unmasked) status |= ES | BUSY;
    state.status = status;
    return unmasked;
  }

  /** Raises what the last operation of the unit raised. */
  private settle(): void {
    this.raise(this.unit.flags, this.unit.up);
  }

  /** Stack underflow: true where it is unmasked, and the instruction ends. */
  private underflow(): boolean {
    return this.raise(IE | SF);
  }

  private overflow(): boolean {
    return this.raise(IE | SF, 1);
  }

  /**
   * Raises what a store of a float or double raised; true where an unmasked exception keeps it from memory: any but
   * precision. Nothing was rounded then, so PE and C1 are not set.
   */
  private settleStore(): boolean {
    const { unit } = this;
    if ((unit.flags & ~unit.masks & (IE | OE | UE)) === 0) {
      this.settle();
      return false;
    }
    this.raise(unit.flags & ~PE);
    return true;
  }

  // ---- Register forms -----------------------------------------------------------------------------------------

  /**
   * Executes a register form (ModRM >= 0xc0). `eflags` is RFLAGS, for FCMOVcc. Reports PENDING itself.
   */
  register(opcode: number, modrm: number, eflags = 0): number {
    if (this.pending(opcode, modrm)) return Outcome.PENDING;
    const reg = (modrm >> 3) & 7;
    const i = modrm & 7;
    this.unit.begin(this.state.control);
    switch (opcode) {
      case 0xd8:
        if ((reg & 6) === 2) return this.compareRegister(i, reg === 3 ? 1 : 0, false);
        return this.arithmeticRegisters(reg, i, 0, false);
      case 0xd9:
        return this.registerD9(reg, i);
      case 0xda:
        if (reg < 4) return this.conditionalMove(i, (eflags & [CF, ZF, CF | ZF, PF][reg]) !== 0);
        return modrm === 0xe9 ? this.compareRegister(1, 2, true) : Outcome.UNDEFINED;
      case 0xdb:
        if (reg < 4) return this.conditionalMove(i, (eflags & [CF, ZF, CF | ZF, PF][reg]) === 0);
        if (reg === 4) return this.registerDBE0(i);
        return reg === 7 ? Outcome.UNDEFINED : this.compareFlags(i, reg === 5, false);
      case 0xdc:
        // FCOM2 and FCOMP3 are aliases of D8 D0 and D8 D8.
        if ((reg & 6) === 2) return this.compareRegister(i, reg === 3 ? 1 : 0, false);
        return this.arithmeticRegisters(reg, i, i, false);
      case 0xdd:
        return this.registerDD(reg, i);
      case 0xde:
        if (reg === 2) return this.compareRegister(i, 1, false);
        if (reg === 3) return i === 1 ? this.compareRegister(1, 2, false) : Outcome.UNDEFINED;
        return this.arithmeticRegisters(reg, i, i, true);
      default:
        return this.registerDF(modrm, reg, i);
    }
  }

  private registerD9(reg: number, i: number): number {
    switch (reg) {
      case 0:
        return this.loadRegister(i);
      case 1:
        return this.exchange(i);
      case 2:
        if (i !== 0) return Outcome.UNDEFINED;
        return Outcome.DONE;
      case 3:
        // FSTP1 differs from FSTP: an empty ST(0) is popped without a word.
        if (!this.isEmpty(0)) return this.storeRegister(i, true);
        this.state.status &= ~C1;
        this.pop();
        return Outcome.DONE;
      case 4:
        return this.unary(i);
      case 5:
        return this.loadConstantOf(i);
      case 6:
        return this.registerD9F0(i);
      default:
        return this.registerD9F8(i);
    }
  }

  private registerDD(reg: number, i: number): number {
    switch (reg) {
      case 0:
        this.free(i);
        return Outcome.DONE;
      case 1:
        return this.exchange(i);
      case 2:
        return this.storeRegister(i, false);
      case 3:
        return this.storeRegister(i, true);
      case 4:
        return this.compareRegister(i, 0, true);
      case 5:
        return this.compareRegister(i, 1, true);
      default:
        return Outcome.UNDEFINED;
    }
  }

  private registerDF(modrm: number, reg: number, i: number): number {
    switch (reg) {
      case 0:
        // FFREEP
        this.free(i);
        this.pop();
        return Outcome.DONE;
      case 1:
        return this.exchange(i);
      case 2:
      case 3:
        return this.storeRegister(i, true);
      case 4:
        if (modrm !== 0xe0) return Outcome.UNDEFINED;
        this.ax = this.state.status;
        return Outcome.AX;
      case 5:
        return this.compareFlags(i, true, true);
      case 6:
        return this.compareFlags(i, false, true);
      default:
        return Outcome.UNDEFINED;
    }
  }

  /** DB E0 to DB E7: FNCLEX, FNINIT, and the no-ops that were FENI, FDISI and FSETPM. */
  private registerDBE0(i: number): number {
    if (i === 2) {
      this.state.status &= ~(EXCEPTIONS | SF | ES | BUSY);
      return Outcome.DONE;
    }
    if (i === 3) {
      initialize(this.state);
      return Outcome.DONE;
    }
    return i > 4 ? Outcome.UNDEFINED : Outcome.DONE;
  }

  /** Operation `op` (ModRM.reg of D8) on a and b into `out`. */
  private operate(op: number, a: Float80, b: Float80, out: Float80): void {
    const { unit } = this;
    switch (op) {
      case 0:
        unit.add(a, b, out, 0);
        break;
      case 1:
        unit.multiply(a, b, out);
        break;
      case 4:
        unit.add(a, b, out, 1);
        break;
      case 5:
        unit.add(b, a, out, 1);
        break;
      case 6:
        unit.divide(a, b, out);
        break;
      default:
        unit.divide(b, a, out);
    }
  }

  private arithmeticRegisters(op: number, i: number, to: number, pops: boolean): number {
    if (this.isEmpty(0) || this.isEmpty(i)) {
      if (this.underflow()) return Outcome.DONE;
      this.put(to, this.r.indefinite());
    } else {
      this.operate(op, this.get(0, this.a), this.get(i, this.b), this.r);
      this.settle();
      if (this.unit.stopped) return Outcome.DONE;
      this.put(to, this.r);
    }
    if (pops) this.pop();
    return Outcome.DONE;
  }

  /** ST(0) against `this.b`, with `pops` pops. */
  private compareWith(underflow: boolean, pops: number, quiet: boolean): number {
    const { state, unit } = this;
    let codes = C3 | C2 | C0;
    let stopped: boolean;
    if (underflow) stopped = this.underflow();
    else {
      codes = unit.compare(this.get(0, this.a), this.b, quiet);
      this.settle();
      stopped = unit.stopped;
    }
    // Processors set the codes even where an unmasked exception keeps the stack as it is.
    state.status = (state.status & ~(C3 | C2 | C0)) | codes;
    if (stopped) return Outcome.DONE;
    for (let n = 0; n < pops; n++) this.pop();
    return Outcome.DONE;
  }

  private compareRegister(i: number, pops: number, quiet: boolean): number {
    this.get(i, this.b);
    return this.compareWith(this.isEmpty(0) || this.isEmpty(i), pops, quiet);
  }

  /** FCOMI, FUCOMI and their popping forms. */
  private compareFlags(i: number, quiet: boolean, pops: boolean): number {
    const { unit } = this;
    let codes = C3 | C2 | C0;
    let stopped: boolean;
    if (this.isEmpty(0) || this.isEmpty(i)) stopped = this.underflow();
    else {
      codes = unit.compare(this.get(0, this.a), this.get(i, this.b), quiet);
      this.settle();
      stopped = unit.stopped;
    }
    this.eflags = (codes & C0 ? CF : 0) | (codes & C2 ? PF : 0) | (codes & C3 ? ZF : 0);
    if (pops && !stopped) this.pop();
    return Outcome.FLAGS;
  }

  private conditionalMove(i: number, condition: boolean): number {
    if (this.isEmpty(0) || this.isEmpty(i)) {
      if (!this.underflow()) this.put(0, this.r.indefinite());
      return Outcome.DONE;
    }
    if (condition) this.put(0, this.get(i, this.a));
    return Outcome.DONE;
  }

  private loadRegister(i: number): number {
    if (this.isEmpty(i)) {
      if (!this.underflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    if (!this.isEmpty(7)) {
      if (!this.overflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    this.get(i, this.a);
    this.state.status &= ~C1;
    this.push(this.a);
    return Outcome.DONE;
  }

  private storeRegister(i: number, pops: boolean): number {
    if (this.isEmpty(0)) {
      if (this.underflow()) return Outcome.DONE;
      this.put(i, this.r.indefinite());
    } else {
      this.state.status &= ~C1;
      this.put(i, this.get(0, this.a));
    }
    if (pops) this.pop();
    return Outcome.DONE;
  }

  private exchange(i: number): number {
    this.get(0, this.a);
    this.get(i, this.b);
    const empty0 = this.isEmpty(0);
    const emptyI = this.isEmpty(i);
    if (empty0 || emptyI) {
      if (this.underflow()) return Outcome.DONE;
      if (empty0) this.a.indefinite();
      if (emptyI) this.b.indefinite();
    } else this.state.status &= ~C1;
    this.put(0, this.b);
    this.put(i, this.a);
    return Outcome.DONE;
  }

  /** D9 E0 to E7: FCHS, FABS, FTST, FXAM. */
  private unary(i: number): number {
    const { a, state } = this;
    if (i === 5) {
      this.get(0, a);
      const codes = this.isEmpty(0) ? C3 | C0 : this.unit.examine(a);
      state.status = (state.status & ~CC) | codes | (a.sign === 1 ? C1 : 0);
      return Outcome.DONE;
    }
    if (i === 4) {
      this.b.zero(0);
      return this.compareWith(this.isEmpty(0), 0, false);
    }
    if (i > 1) return Outcome.UNDEFINED;
    if (this.isEmpty(0)) {
      if (!this.underflow()) this.put(0, this.r.indefinite());
      return Outcome.DONE;
    }
    this.get(0, a);
    a.sign = i === 0 ? a.sign ^ 1 : 0;
    state.status &= ~C1;
    this.put(0, a);
    return Outcome.DONE;
  }

  private loadConstantOf(i: number): number {
    if (i === 7) return Outcome.UNDEFINED;
    if (!this.isEmpty(7)) {
      if (!this.overflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    loadConstant(i, this.unit.rounding, this.r);
    this.state.status &= ~C1;
    this.push(this.r);
    return Outcome.DONE;
  }

  /** D9 F0 to F7. */
  private registerD9F0(i: number): number {
    const { unit, a, b, r, r2, state } = this;
    if (i >= 6) {
      state.status &= ~C1;
      this.moveTop(i === 6 ? -1 : 1);
      return Outcome.DONE;
    }
    const binary = i === 1 || i === 3 || i === 5;
    const pushes = i === 2 || i === 4;
    if (this.isEmpty(0) || (binary && this.isEmpty(1))) {
      if (i === 5 || i === 2) state.status &= ~C2;
      if (this.underflow()) return Outcome.DONE;
      r.indefinite();
      if (i === 5) this.put(0, r);
      else if (binary) {
        this.put(1, r);
        this.pop();
      } else {
        this.put(0, r);
        if (pushes) this.push(r);
      }
      return Outcome.DONE;
    }
    if (pushes && !this.isEmpty(7)) {
      if (i === 2) state.status &= ~C2;
      if (this.overflow()) return Outcome.DONE;
      this.put(0, r.indefinite());
      this.push(r);
      return Outcome.DONE;
    }
    this.get(0, a);
    if (binary) this.get(1, b);
    switch (i) {
      case 0:
        unit.exp2Minus1(a, r);
        this.settle();
        if (!unit.stopped) this.put(0, r);
        break;
      case 1:
        unit.yLog2(a, b, r);
        this.settleAndPop();
        break;
      case 2: {
        const codes = unit.tangent(a, r);
        state.status &= ~C2;
        this.settle();
        if (codes !== 0) state.status |= C2;
        else if (!unit.stopped) {
          this.put(0, r);
          if ((unit.flags & IE) === 0 && r.exp !== 0x7fff) r.one(0);
          this.push(r);
        }
        break;
      }
      case 3:
        unit.arctangent(b, a, r);
        this.settleAndPop();
        break;
      case 4:
        unit.extract(a, r, r2);
        this.settle();
        if (unit.stopped) break;
        this.put(0, r);
        this.push(r2);
        break;
      default:
        this.remainder(true);
    }
    return Outcome.DONE;
  }

  /** ST(1) becomes the result, and ST(0) is popped. */
  private settleAndPop(): void {
    this.settle();
    if (this.unit.stopped) return;
    this.put(1, this.r);
    this.pop();
  }

  private remainder(nearest: boolean): void {
    const { unit, state } = this;
    const codes = unit.remainder(this.a, this.b, this.r, nearest);
    this.settle();
    // Without a remainder C2 tells that it is complete, and C0 and C3 stay.
    state.status = codes < 0 ? state.status & ~C2 : (state.status & ~CC) | codes;
    if (!unit.stopped) this.put(0, this.r);
  }

  /** D9 F8 to FF: FPREM, FYL2XP1, FSQRT, FSINCOS, FRNDINT, FSCALE, FSIN, FCOS. */
  private registerD9F8(i: number): number {
    const { unit, a, b, r, r2, state } = this;
    const binary = i === 0 || i === 1 || i === 5;
    if (this.isEmpty(0) || (binary && this.isEmpty(1))) {
      if (i === 0 || i === 3 || i >= 6) state.status &= ~C2;
      if (this.underflow()) return Outcome.DONE;
      r.indefinite();
      if (i === 1) {
        this.put(1, r);
        this.pop();
      } else {
        this.put(0, r);
        if (i === 3) this.push(r);
      }
      return Outcome.DONE;
    }
    if (i === 3 && !this.isEmpty(7)) {
      state.status &= ~C2;
      if (this.overflow()) return Outcome.DONE;
      this.put(0, r.indefinite());
      this.push(r);
      return Outcome.DONE;
    }
    this.get(0, a);
    if (binary) this.get(1, b);
    switch (i) {
      case 0:
        this.remainder(false);
        return Outcome.DONE;
      case 1:
        unit.yLog2Plus1(a, b, r);
        this.settleAndPop();
        return Outcome.DONE;
      case 2:
        unit.squareRoot(a, r);
        break;
      case 4:
        unit.roundToInteger(a, r);
        break;
      case 5:
        unit.scale(a, b, r);
        break;
      default: {
        const codes = unit.sineCosine(a, i === 7 ? undefined : r, i === 6 ? undefined : i === 7 ? r : r2);
        state.status &= ~C2;
        this.settle();
        if (codes !== 0) {
          state.status |= C2;
          return Outcome.DONE;
        }
        if (unit.stopped) return Outcome.DONE;
        this.put(0, r);
        if (i === 3) this.push(r2);
        return Outcome.DONE;
      }
    }
    this.settle();
    if (!unit.stopped) this.put(0, r);
    return Outcome.DONE;
  }

  // ---- Memory forms -------------------------------------------------------------------------------------------

  /**
   * Executes a memory form on `scratch`; see the top of the file. `wide`: the operand size is not 16 bits; `real`:
   * real-address or virtual-8086 mode. Both matter to the environment only.
   */
  memory(opcode: number, modrm: number, wide = true, real = false): number {
    this.stored = 0;
    if (this.pending(opcode, modrm)) return Outcome.PENDING;
    const reg = (modrm >> 3) & 7;
    const { unit, data, b, state } = this;
    unit.begin(state.control);
    switch (opcode) {
      case 0xd8:
        unit.fromFloat32(data.getInt32(0, true), b);
        return this.arithmeticMemory(reg);
      case 0xda:
        unit.fromInt32(data.getInt32(0, true), b);
        return this.arithmeticMemory(reg);
      case 0xdc:
        unit.fromFloat64(data.getInt32(4, true), data.getInt32(0, true), b);
        return this.arithmeticMemory(reg);
      case 0xde:
        unit.fromInt32(data.getInt16(0, true), b);
        return this.arithmeticMemory(reg);
    }
    this.save();
    this.stored = storeLength(opcode, modrm, wide);
    switch (((opcode & 7) << 3) | reg) {
      case 0o10: // FLD m32
        unit.fromFloat32(data.getInt32(0, true), b);
        return this.loadFloat();
      case 0o50: // FLD m64
        unit.fromFloat64(data.getInt32(4, true), data.getInt32(0, true), b);
        return this.loadFloat();
      case 0o35: // FLD m80
        b.set((data.getUint8(9) >> 7) & 1, data.getUint16(8, true) & 0x7fff, data.getInt32(4, true), data.getInt32(0, true));
        return this.load();
      case 0o30: // FILD m32
        unit.fromInt32(data.getInt32(0, true), b);
        return this.load();
      case 0o70: // FILD m16
        unit.fromInt32(data.getInt16(0, true), b);
        return this.load();
      case 0o75: // FILD m64
        unit.fromInt64(data.getInt32(4, true), data.getInt32(0, true), b);
        return this.load();
      case 0o74: // FBLD
        unit.fromBcd(this.scratch, 0, b);
        return this.load();
      case 0o12: // FST m32
      case 0o13:
        return this.storeFloat32(reg === 3);
      case 0o52: // FST m64
      case 0o53:
        return this.storeFloat64(reg === 3);
      case 0o37: // FSTP m80
        return this.storeFloat80();
      case 0o31: // FISTTP m32, FIST, FISTP
      case 0o32:
      case 0o33:
        return this.storeInteger(32, reg);
      case 0o71: // FISTTP m16, FIST, FISTP
      case 0o72:
      case 0o73:
        return this.storeInteger(16, reg);
      case 0o51: // FISTTP m64
      case 0o77: // FISTP m64
        return this.storeInteger(64, reg);
      case 0o76:
        return this.storeBcd();
      case 0o14: // FLDENV
        loadEnvironment(state, data, { wide, real });
        return Outcome.DONE;
      case 0o15: // FLDCW
        state.control = controlWord(data.getUint16(0, true));
        summarize(state);
        return Outcome.DONE;
      case 0o16: // FNSTENV; it masks all exceptions
        storeEnvironment(state, data, { wide, real });
        state.control |= EXCEPTIONS;
        summarize(state);
        return Outcome.DONE;
      case 0o17: // FNSTCW
        data.setUint16(0, state.control, true);
        return Outcome.DONE;
      case 0o54: // FRSTOR
        loadEnvironment(state, data, { wide, real });
        loadRegisters(state, this.scratch, wide ? 28 : 14);
        return Outcome.DONE;
      case 0o56: // FNSAVE
        storeEnvironment(state, data, { wide, real });
        storeRegisters(state, this.scratch, wide ? 28 : 14);
        initialize(state);
        return Outcome.DONE;
      case 0o57: // FNSTSW
        data.setUint16(0, state.status, true);
        return Outcome.DONE;
      default:
        return Outcome.UNDEFINED;
    }
  }

  /** Takes back the last memory form, whose store faulted. Registers need no care: no storing form writes them. */
  undo(): void {
    const { state } = this;
    state.control = this.beforeControl;
    state.status = this.beforeStatus;
    state.valid = this.beforeValid;
    const [opcode, ipLow, ipHigh, ipSelector, dpLow, dpHigh, dpSelector] = this.beforePointers;
    Object.assign(state, { opcode, ipLow, ipHigh, ipSelector, dpLow, dpHigh, dpSelector });
  }

  private save(): void {
    const { state, beforePointers } = this;
    this.beforeControl = state.control;
    this.beforeStatus = state.status;
    this.beforeValid = state.valid;
    beforePointers[0] = state.opcode;
    beforePointers[1] = state.ipLow;
    beforePointers[2] = state.ipHigh;
    beforePointers[3] = state.ipSelector;
    beforePointers[4] = state.dpLow;
    beforePointers[5] = state.dpHigh;
    beforePointers[6] = state.dpSelector;
  }

  /** ST(0) and `this.b`. */
  private arithmeticMemory(op: number): number {
    if ((op & 6) === 2) return this.compareWith(this.isEmpty(0), op & 1, false);
    if (this.isEmpty(0)) {
      if (!this.underflow()) this.put(0, this.r.indefinite());
      return Outcome.DONE;
    }
    this.operate(op, this.get(0, this.a), this.b, this.r);
    this.settle();
    if (!this.unit.stopped) this.put(0, this.r);
    return Outcome.DONE;
  }

  /** Pushes `this.b` as it stands. */
  private load(): number {
    if (!this.isEmpty(7)) {
      if (!this.overflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    this.state.status &= ~C1;
    this.push(this.b);
    return Outcome.DONE;
  }

  /** Pushes `this.b`, a converted float or double: SNaNs and denormals are told. */
  private loadFloat(): number {
    const { unit, b } = this;
    if (!this.isEmpty(7)) return this.load();
    if (b.small === 1) unit.denormal();
    else if (b.exp === 0x7fff && (b.hi << 1 !== 0 || b.lo !== 0)) unit.nan(b, b, b);
    this.settle();
    // An unmasked DE is told after the load; an unmasked IE instead of it.
    if ((unit.flags & ~unit.masks & IE) === 0) this.push(b);
    return Outcome.DONE;
  }

  /** An unmasked exception keeps the result from memory. */
  private withhold(): number {
    this.stored = 0;
    return Outcome.DONE;
  }

  private storeFloat32(pops: boolean): number {
    const { unit } = this;
    if (this.isEmpty(0)) {
      if (this.underflow()) return this.withhold();
      unit.low = 0xffc00000 | 0;
    } else {
      unit.toFloat32(this.get(0, this.a), this.r);
      if (this.settleStore()) return this.withhold();
    }
    this.data.setInt32(0, unit.low, true);
    if (pops) this.pop();
    return Outcome.DONE;
  }

  private storeFloat64(pops: boolean): number {
    const { unit } = this;
    if (this.isEmpty(0)) {
      if (this.underflow()) return this.withhold();
      unit.high = 0xfff80000 | 0;
      unit.low = 0;
    } else {
      unit.toFloat64(this.get(0, this.a), this.r);
      if (this.settleStore()) return this.withhold();
    }
    this.data.setInt32(0, unit.low, true);
    this.data.setInt32(4, unit.high, true);
    if (pops) this.pop();
    return Outcome.DONE;
  }

  private storeFloat80(): number {
    const { a, data } = this;
    if (this.isEmpty(0)) {
      if (this.underflow()) return this.withhold();
      a.indefinite();
    } else {
      this.get(0, a);
      this.state.status &= ~C1;
    }
    data.setInt32(0, a.lo, true);
    data.setInt32(4, a.hi, true);
    data.setUint16(8, (a.sign << 15) | a.exp, true);
    this.pop();
    return Outcome.DONE;
  }

  /** FISTTP (reg 1), FIST (2), FISTP (3, and 7 for 64 bits). */
  private storeInteger(bits: 16 | 32 | 64, reg: number): number {
    const { unit, data } = this;
    if (this.isEmpty(0)) {
      if (this.underflow()) return this.withhold();
      unit.low = bits === 64 ? 0 : bits === 32 ? -0x80000000 : -0x8000;
      unit.high = -0x80000000;
    } else {
      unit.toInteger(this.get(0, this.a), bits, reg === 1);
      this.settle();
      if (unit.stopped) return this.withhold();
    }
    if (bits === 16) data.setInt16(0, unit.low, true);
    else data.setInt32(0, unit.low, true);
    if (bits === 64) data.setInt32(4, unit.high, true);
    if (reg !== 2) this.pop();
    return Outcome.DONE;
  }

  private storeBcd(): number {
    const { unit, scratch } = this;
    if (this.isEmpty(0)) {
      if (this.underflow()) return this.withhold();
      bcdIndefinite(scratch, 0);
    } else {
      unit.toBcd(this.get(0, this.a), scratch, 0);
      this.settle();
      if (unit.stopped) return this.withhold();
    }
    this.pop();
    return Outcome.DONE;
  }
}
