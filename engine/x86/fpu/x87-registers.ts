/** The x87 register forms (ModRM >= 0xc0), undocumented aliases among them. SDM 2, appendix A, tables. */
import type { Float80 } from './float80.ts';
import { BUSY, C0, C1, C2, C3, CC, ES, EXCEPTIONS, IE, initialize, SF } from './fpu-state.ts';
import { loadConstant } from './load-constants.ts';
import { Outcome, X87Stack } from './x87-stack.ts';

const CF = 1;
const PF = 4;
const ZF = 0x40;
const CONDITIONS = [CF, ZF, CF | ZF, PF];

export class X87Registers extends X87Stack {
  /**
   * Executes a register form (ModRM >= 0xc0). `eflags` is RFLAGS, for FCMOVcc. Reports PENDING itself.
   */
  register(opcode: number, modrm: number, eflags = 0): number {
    if (this.pending(opcode, modrm)) return Outcome.PENDING;
    const reg = (modrm >> 3) & 7;
    const i = modrm & 7;
    this.unit.begin(this.control);
    switch (opcode) {
      case 0xd8:
        if ((reg & 6) === 2) return this.compareRegister(i, reg === 3 ? 1 : 0, false);
        return this.arithmeticRegisters(reg, i, 0, false);
      case 0xd9:
        return this.registerD9(reg, i);
      case 0xda:
        if (reg < 4) return this.conditionalMove(i, (eflags & CONDITIONS[reg]) !== 0);
        return modrm === 0xe9 ? this.compareRegister(1, 2, true) : Outcome.UNDEFINED;
      case 0xdb:
        if (reg < 4) return this.conditionalMove(i, (eflags & CONDITIONS[reg]) === 0);
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

  protected registerD9(reg: number, i: number): number {
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
        this.status &= ~C1;
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

  protected registerDD(reg: number, i: number): number {
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

  protected registerDF(modrm: number, reg: number, i: number): number {
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
        this.ax = this.status;
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
  protected registerDBE0(i: number): number {
    if (i === 2) {
      this.status &= ~(EXCEPTIONS | SF | ES | BUSY);
      return Outcome.DONE;
    }
    if (i === 3) {
      initialize(this.state);
      return Outcome.DONE;
    }
    return i > 4 ? Outcome.UNDEFINED : Outcome.DONE;
  }

  /** Operation `op` (ModRM.reg of D8) on a and b into `out`. */
  protected operate(op: number, a: Float80, b: Float80, out: Float80): void {
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

  protected arithmeticRegisters(op: number, i: number, to: number, pops: boolean): number {
    const top = this.physical(0);
    const other = (top + i) & 7;
    if (((this.valid >> top) & (this.valid >> other) & 1) === 0) {
      if (this.underflow()) return Outcome.DONE;
      this.put(to, this.r.indefinite());
    } else {
      this.operate(op, this.getPhysical(top, this.a), this.getPhysical(other, this.b), this.r);
      this.settle();
      if (this.unit.stopped) return Outcome.DONE;
      this.putPhysical((top + to) & 7, this.r);
    }
    if (pops) this.pop();
    return Outcome.DONE;
  }

  /** ST(0) against `this.b`, with `pops` pops. */
  protected compareWith(underflow: boolean, pops: number, quiet: boolean): number {
    const { unit } = this;
    let codes = C3 | C2 | C0;
    let stopped: boolean;
    if (underflow) stopped = this.underflow();
    else {
      codes = unit.compare(this.get(0, this.a), this.b, quiet);
      this.settle();
      stopped = unit.stopped;
    }
    // Processors set the codes even where an unmasked exception keeps the stack as it is.
    this.status = (this.status & ~(C3 | C2 | C0)) | codes;
    if (stopped) return Outcome.DONE;
    for (let n = 0; n < pops; n++) this.pop();
    return Outcome.DONE;
  }

  protected compareRegister(i: number, pops: number, quiet: boolean): number {
    this.get(i, this.b);
    return this.compareWith(this.isEmpty(0) || this.isEmpty(i), pops, quiet);
  }

  /** FCOMI, FUCOMI and their popping forms. */
  protected compareFlags(i: number, quiet: boolean, pops: boolean): number {
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

  protected conditionalMove(i: number, condition: boolean): number {
    if (this.isEmpty(0) || this.isEmpty(i)) {
      if (!this.underflow()) this.put(0, this.r.indefinite());
      return Outcome.DONE;
    }
    if (condition) this.put(0, this.get(i, this.a));
    return Outcome.DONE;
  }

  protected loadRegister(i: number): number {
    if (this.isEmpty(i)) {
      if (!this.underflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    if (!this.isEmpty(7)) {
      if (!this.overflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    this.get(i, this.a);
    this.status &= ~C1;
    this.push(this.a);
    return Outcome.DONE;
  }

  protected storeRegister(i: number, pops: boolean): number {
    if (this.isEmpty(0)) {
      if (this.underflow()) return Outcome.DONE;
      this.put(i, this.r.indefinite());
    } else {
      this.status &= ~C1;
      this.put(i, this.get(0, this.a));
    }
    if (pops) this.pop();
    return Outcome.DONE;
  }

  protected exchange(i: number): number {
    this.get(0, this.a);
    this.get(i, this.b);
    const empty0 = this.isEmpty(0);
    const emptyI = this.isEmpty(i);
    if (empty0 || emptyI) {
      if (this.underflow()) return Outcome.DONE;
      if (empty0) this.a.indefinite();
      if (emptyI) this.b.indefinite();
    } else this.status &= ~C1;
    this.put(0, this.b);
    this.put(i, this.a);
    return Outcome.DONE;
  }

  /** D9 E0 to E7: FCHS, FABS, FTST, FXAM. */
  protected unary(i: number): number {
    const { a } = this;
    if (i === 5) {
      this.get(0, a);
      const codes = this.isEmpty(0) ? C3 | C0 : this.unit.examine(a);
      this.status = (this.status & ~CC) | codes | (a.sign === 1 ? C1 : 0);
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
    this.status &= ~C1;
    this.put(0, a);
    return Outcome.DONE;
  }

  protected loadConstantOf(i: number): number {
    if (i === 7) return Outcome.UNDEFINED;
    if (!this.isEmpty(7)) {
      if (!this.overflow()) this.push(this.r.indefinite());
      return Outcome.DONE;
    }
    loadConstant(i, this.unit.rounding, this.r);
    this.status &= ~C1;
    this.push(this.r);
    return Outcome.DONE;
  }

  /** D9 F0 to F7. */
  protected registerD9F0(i: number): number {
    const { unit, a, b, r, r2 } = this;
    if (i >= 6) {
      this.status &= ~C1;
      this.moveTop(i === 6 ? -1 : 1);
      return Outcome.DONE;
    }
    const binary = i === 1 || i === 3 || i === 5;
    const pushes = i === 2 || i === 4;
    if (this.isEmpty(0) || (binary && this.isEmpty(1))) {
      if (i === 5 || i === 2) this.status &= ~C2;
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
      if (i === 2) this.status &= ~C2;
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
        this.status &= ~C2;
        this.settle();
        if (codes !== 0) this.status |= C2;
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
  protected settleAndPop(): void {
    this.settle();
    if (this.unit.stopped) return;
    this.put(1, this.r);
    this.pop();
  }

  protected remainder(nearest: boolean): void {
    const { unit } = this;
    const codes = unit.remainder(this.a, this.b, this.r, nearest);
    this.settle();
    // Without a remainder C2 tells that it is complete, and C0 and C3 stay.
    this.status = codes < 0 ? this.status & ~C2 : (this.status & ~CC) | codes;
    if (!unit.stopped) this.put(0, this.r);
  }

  /** D9 F8 to FF: FPREM, FYL2XP1, FSQRT, FSINCOS, FRNDINT, FSCALE, FSIN, FCOS. */
  protected registerD9F8(i: number): number {
    const { unit, a, b, r, r2 } = this;
    const binary = i === 0 || i === 1 || i === 5;
    if (this.isEmpty(0) || (binary && this.isEmpty(1))) {
      if (i === 0 || i === 3 || i >= 6) this.status &= ~C2;
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
      this.status &= ~C2;
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
        this.status &= ~C2;
        this.settle();
        if (codes !== 0) {
          this.status |= C2;
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
}
