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
 * `recordPointers`, called when an instruction is done, keeps the last instruction and data pointers. A memory form
 * whose `loadLength` and `storeLength` are both 0 is undefined, as `memory` tells too. Exceptions an instruction raises
 * are only flagged here; the next waiting instruction reports them.
 */
import { bcdIndefinite } from './convert80.ts';
import { controlWord, loadEnvironment, loadRegisters, storeEnvironment, storeRegisters } from './environment.ts';
import { C1, EXCEPTIONS, IE, initialize, summarize } from './fpu-state.ts';
import { storeLength } from './x87-forms.ts';
import { X87Registers } from './x87-registers.ts';
import { Outcome } from './x87-stack.ts';

export { Outcome };

/** The x87 unit of one vCPU: register forms by `register`, memory forms by `memory`. */
export class X87 extends X87Registers {
  private beforeControl = 0;
  private beforeStatus = 0;
  private beforeValid = 0;
  private readonly beforePointers = new Uint32Array(7);

  /**
   * Executes a memory form on `scratch`; see the top of the file. `wide`: the operand size is not 16 bits; `real`:
   * real-address or virtual-8086 mode. Both matter to the environment only.
   */
  memory(opcode: number, modrm: number, wide = true, real = false): number {
    this.stored = 0;
    if (this.pending(opcode, modrm)) return Outcome.PENDING;
    const reg = (modrm >> 3) & 7;
    const { unit, data, b, state } = this;
    unit.begin(this.control);
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
        this.control = controlWord(data.getUint16(0, true));
        summarize(state);
        return Outcome.DONE;
      case 0o16: // FNSTENV; it masks all exceptions
        storeEnvironment(state, data, { wide, real });
        this.control |= EXCEPTIONS;
        summarize(state);
        return Outcome.DONE;
      case 0o17: // FNSTCW
        data.setUint16(0, this.control, true);
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
        data.setUint16(0, this.status, true);
        return Outcome.DONE;
      default:
        return Outcome.UNDEFINED;
    }
  }

  /** Takes back the last memory form, whose store faulted. Registers need no care: no storing form writes them. */
  undo(): void {
    const { state } = this;
    this.control = this.beforeControl;
    this.status = this.beforeStatus;
    this.valid = this.beforeValid;
    const [opcode, ipLow, ipHigh, ipSelector, dpLow, dpHigh, dpSelector] = this.beforePointers;
    Object.assign(state, { opcode, ipLow, ipHigh, ipSelector, dpLow, dpHigh, dpSelector });
  }

  private save(): void {
    const { state, beforePointers } = this;
    this.beforeControl = this.control;
    this.beforeStatus = this.status;
    this.beforeValid = this.valid;
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
    this.status &= ~C1;
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
      this.status &= ~C1;
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
