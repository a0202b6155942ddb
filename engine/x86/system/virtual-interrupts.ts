/**
 * The virtual interrupt flag (SDM 3B, 21.3 and 21.4): what CLI, STI, PUSHF, POPF, IRET and INT n do in virtual-8086 mode
 * with IOPL below 3 where CR4.VME is set, and CLI and STI at CPL 3 of protected mode where CR4.PVI is set.
 */
import * as S from '../../memory/vcpu-state.ts';
import { ARITHMETIC, type Cpu, CR4, FLAG, raise } from './cpu.ts';

/** Bytes of the redirection bitmap, which ends where the I/O permission bitmap begins. */
const REDIRECTION_BYTES = 32;
const IO_BASE_AT = 102;

export class VirtualInterrupts {
  readonly #cpu: Cpu;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  get #flags(): number {
    return this.#cpu.i32[S.EFLAGS >> 2];
  }
  /** Virtual-8086 mode may use the true IF. */
  get #privileged(): boolean {
    return ((this.#flags >> 12) & 3) === 3;
  }
  get #vme(): boolean {
    return (this.#cpu.cr4 & CR4.VME) !== 0;
  }

  /** Whether PUSHF, POPF and IRET of `bits` may run in virtual-8086 mode at all; #GP(0) where not. */
  check(bits: number): void {
    if (!this.#privileged && !(this.#vme && bits === 16)) raise(13, 0);
  }

  /** Whether POPF and IRET may load this image in virtual-8086 mode; #GP(0) where not. */
  checkImage(image: number, bits: number): void {
    this.check(bits);
    if (this.#privileged) return;
    const pending = (this.#flags & FLAG.VIP) !== 0 && (image & FLAG.IF) !== 0;
    if (pending || (image & FLAG.TF) !== 0) raise(13, 0);
  }

  /** EFLAGS, without the arithmetic flags, as virtual-8086 programs see them: IF is VIF and IOPL 3. */
  image(): number {
    const flags = this.#flags;
    if (this.#privileged) return flags;
    return (flags & ~FLAG.IF) | FLAG.IOPL | ((flags & FLAG.VIF) !== 0 ? FLAG.IF : 0);
  }

  /** Flags with VIF as a program wants its IF. */
  withFlag(flags: number, on: boolean): number {
    return on ? flags | FLAG.VIF : flags & ~FLAG.VIF;
  }

  /** EFLAGS after IRET in virtual-8086 mode has loaded an image that was checked; `allowed`: bits that IOPL 3 may load. */
  take(image: number, allowed: number): number {
    const mask = this.#privileged ? allowed : allowed & ~FLAG.IF;
    const flags = (image & mask) | (((this.#flags & ~ARITHMETIC) | (this.#cpu.eflags & ARITHMETIC)) & ~mask);
    return this.#privileged ? flags : this.withFlag(flags, (image & FLAG.IF) !== 0);
  }

  /** What INT n inside a virtual-8086 program clears. */
  masks(): number {
    return this.#privileged ? FLAG.IF : FLAG.VIF;
  }

  /** CLI and STI where IOPL does not allow them. */
  setFlag(on: boolean): void {
    const { isVirtual8086, isProtected, cpl, cr4 } = this.#cpu;
    const virtual = isVirtual8086 ? this.#vme : isProtected && cpl === 3 && (cr4 & CR4.PVI) !== 0;
    if (!virtual || (on && (this.#flags & FLAG.VIP) !== 0)) raise(13, 0);
    this.#cpu.i32[S.EFLAGS >> 2] = this.withFlag(this.#flags, on);
  }

  /** Whether INT n in virtual-8086 mode goes to the monitor's IDT; false: to the program's own table. Raises #GP(0) where neither may be. */
  redirect(vector: number): boolean {
    const cpu = this.#cpu;
    if (this.#vme) {
      const limit = cpu.segmentLimit(S.TR);
      if ((cpu.segmentAttr(S.TR) & 8) === 0 || limit < IO_BASE_AT + 1) raise(13, 0);
      const base = cpu.segmentBase(S.TR);
      const at = cpu.read16(base + IO_BASE_AT, false) - REDIRECTION_BYTES + (vector >> 3);
      if (at < 0 || at > limit) raise(13, 0);
      if (((cpu.readByte(base + at, false) >> (vector & 7)) & 1) === 0) return false;
    }
    if (!this.#privileged) raise(13, 0);
    return true;
  }
}
