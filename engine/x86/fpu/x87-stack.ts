/** What all x87 instructions share: the register stack, exception flags and scratch values. SDM 1, 8.1. */
import { Float80 } from './float80.ts';
import { BUSY, C1, ES, EXCEPTIONS, type FpuState, fpuStruct, IE, OE, PE, SF, TOP_MASK, TOP_SHIFT, UE } from './fpu-state.ts';
import { Transcendental80 } from './transcendental80.ts';
import { isControl, isWaiting } from './x87-forms.ts';

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

// Words of the state after the registers: `fpuFields` keeps them together wherever it is embedded.
const { offsets } = fpuStruct;
const CONTROL = (offsets.control - offsets.registers) / 4;
const STATUS = (offsets.status - offsets.registers) / 4;
const VALID = (offsets.valid - offsets.registers) / 4;

export class X87Stack {
  /** Operand bytes in, result bytes out. */
  readonly scratch: Uint8Array;
  /** Bytes of `scratch` to be written to memory after `memory`. */
  stored = 0;
  /** CF, PF, ZF after `Outcome.FLAGS`. */
  eflags = 0;
  /** AX after `Outcome.AX`. */
  ax = 0;

  protected readonly state: FpuState;
  protected readonly words: Int32Array;
  protected readonly data: DataView;
  protected readonly unit = new Transcendental80();
  protected readonly a = new Float80();
  protected readonly b = new Float80();
  protected readonly r = new Float80();
  protected readonly r2 = new Float80();

  /** `scratch`: at least 108 bytes; may lie in shared memory. */
  constructor(state: FpuState, scratch: Uint8Array = new Uint8Array(128)) {
    this.state = state;
    this.scratch = scratch;
    this.data = new DataView(scratch.buffer, scratch.byteOffset, scratch.byteLength);
    this.words = new Int32Array(state.registers.buffer, state.registers.byteOffset, VALID + 1);
  }

  /** Whether this instruction must report an earlier unmasked exception instead of running. */
  pending(opcode: number, modrm: number): boolean {
    return (this.status & ES) !== 0 && isWaiting(opcode, modrm);
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

  // The three words that every instruction uses, past the registers; the view's accessors are slower.

  protected get control(): number {
    return this.words[CONTROL];
  }

  protected set control(value: number) {
    this.words[CONTROL] = value;
  }

  protected get status(): number {
    return this.words[STATUS];
  }

  protected set status(value: number) {
    this.words[STATUS] = value;
  }

  protected get valid(): number {
    return this.words[VALID];
  }

  protected set valid(value: number) {
    this.words[VALID] = value;
  }

  // ---- Stack --------------------------------------------------------------------------------------------------

  protected physical(i: number): number {
    return ((this.status >> TOP_SHIFT) + i) & 7;
  }

  protected isEmpty(i: number): boolean {
    return ((this.valid >> this.physical(i)) & 1) === 0;
  }

  protected get(i: number, into: Float80): Float80 {
    return this.getPhysical(this.physical(i), into);
  }

  protected getPhysical(n: number, into: Float80): Float80 {
    const at = n * 4;
    const { words } = this;
    into.lo = words[at];
    into.hi = words[at + 1];
    const top = words[at + 2];
    into.exp = top & 0x7fff;
    into.sign = (top >> 15) & 1;
    into.small = 0;
    return into;
  }

  protected put(i: number, value: Float80): void {
    const n = this.physical(i);
    this.putPhysical(n, value);
    this.valid |= 1 << n;
  }

  /** Writes a register that is not empty. */
  protected putPhysical(n: number, value: Float80): void {
    const { words } = this;
    words[n * 4] = value.lo;
    words[n * 4 + 1] = value.hi;
    words[n * 4 + 2] = (value.sign << 15) | value.exp;
  }

  protected moveTop(by: number): void {
    const { status } = this;
    this.status = (status & ~TOP_MASK) | ((((status >> TOP_SHIFT) + by) & 7) << TOP_SHIFT);
  }

  protected pop(): void {
    this.valid &= ~(1 << this.physical(0));
    this.moveTop(1);
  }

  protected free(i: number): void {
    this.status &= ~C1;
    this.valid &= ~(1 << this.physical(i));
  }

  protected push(value: Float80): void {
    this.moveTop(-1);
    this.put(0, value);
  }

  // ---- Exceptions ---------------------------------------------------------------------------------------------

  /** Adds exception flags to the status word and sets C1; true where one of them is unmasked. */
  protected raise(flags: number, c1 = 0): boolean {
    let status = (this.status & ~C1) | flags | (c1 !== 0 ? C1 : 0);
    const unmasked = (flags & ~this.control & EXCEPTIONS) !== 0;
    if (unmasked) status |= ES | BUSY;
    this.status = status;
    return unmasked;
  }

  /** Raises what the last operation of the unit raised. */
  protected settle(): void {
    this.raise(this.unit.flags, this.unit.up);
  }

  /** Stack underflow: true where it is unmasked, and the instruction ends. */
  protected underflow(): boolean {
    return this.raise(IE | SF);
  }

  protected overflow(): boolean {
    return this.raise(IE | SF, 1);
  }

  /**
   * Raises what a store of a float or double raised; true where an unmasked exception keeps it from memory: any but
   * precision. Nothing was rounded then, so PE and C1 are not set.
   */
  protected settleStore(): boolean {
    const { unit } = this;
    if ((unit.flags & ~unit.masks & (IE | OE | UE)) === 0) {
      this.settle();
      return false;
    }
    this.raise(unit.flags & ~PE);
    return true;
  }
}
