/** Glue between instructions and the x87 unit: operand fetch, #NM and #MF, FXSAVE images (SDM 1, 8 and 10.5). */
import * as S from '../../memory/vcpu-state.ts';
import { type FpuState, fpuStruct, isPending } from '../fpu/fpu-state.ts';
import { Outcome, X87 } from '../fpu/x87.ts';
import { loadLength, storeLength } from '../fpu/x87-forms.ts';
import { type Cpu, CR0, highOf, lowOf, raise } from './cpu.ts';

export class FpuUnit {
  readonly #cpu: Cpu;
  readonly state: FpuState;
  readonly #x87: X87;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
    this.state = fpuStruct.at(cpu.buffer, cpu.at + S.FPU);
    this.#x87 = new X87(this.state);
  }

  /** FWAIT: #NM with MP and TS set, then pending exceptions. */
  wait(): void {
    const { cr0 } = this.#cpu;
    if ((cr0 & (CR0.MP | CR0.TS)) === (CR0.MP | CR0.TS)) raise(7);
    this.#pending();
  }
  #pending(): void {
    if (isPending(this.state) && (this.#cpu.cr0 & CR0.NE) !== 0) raise(16);
  }
  #available(): void {
    if ((this.#cpu.cr0 & (CR0.EM | CR0.TS)) !== 0) raise(7);
  }

  emms(): void {
    if ((this.#cpu.cr0 & CR0.EM) !== 0) raise(6);
    if ((this.#cpu.cr0 & CR0.TS) !== 0) raise(7);
    this.#pending();
    this.state.valid = 0;
  }

  #codeSegment(): number {
    return this.#cpu.is64 ? 0 : this.#cpu.selector(S.CS);
  }

  #outcome(outcome: number): void {
    const cpu = this.#cpu;
    switch (outcome) {
      case Outcome.UNDEFINED:
        raise(6);
        break;
      case Outcome.PENDING:
        this.#pending();
        break;
      case Outcome.FLAGS:
        cpu.setArithmetic(this.#x87.eflags);
        break;
      case Outcome.AX:
        cpu.u16[S.GPR >> 1] = this.#x87.ax;
        break;
    }
  }

  /** A register form; `code` is the escape opcode and the ModRM byte. */
  register(code: number, rip: number): void {
    this.#available();
    const opcode = code >> 8;
    const modrm = code & 0xff;
    if (!this.#x87.pending(opcode, modrm))
      this.#x87.recordPointers(opcode, modrm, { low: lowOf(rip), high: highOf(rip), selector: this.#codeSegment() });
    this.#outcome(this.#x87.register(opcode, modrm, this.#cpu.eflags));
  }

  /** A memory form at a linear address. `size` is the operand size in bits. */
  memory(code: number, address: number, size: number, rip: number): void {
    this.#available();
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    const opcode = code >> 8;
    const modrm = code & 0xff;
    const wide = size !== 16;
    const x87 = this.#x87;
    if (x87.pending(opcode, modrm)) {
      this.#pending();
      return;
    }
    const { scratch } = x87;
    const loads = loadLength(opcode, modrm, wide);
    for (let at = 0; at < loads; at++) scratch[at] = cpu.readByte(cpu.wrap(address + at), user);
    // All that may be stored must be writable before the state changes.
    const stores = storeLength(opcode, modrm, wide);
    if (stores > 0) {
      cpu.translate(address, true, user);
      cpu.translate(cpu.wrap(address + stores - 1), true, user);
    }
    x87.recordPointers(
      opcode,
      modrm,
      { low: lowOf(rip), high: highOf(rip), selector: this.#codeSegment() },
      { low: lowOf(address), high: highOf(address), selector: 0 },
    );
    const real = !cpu.isProtected || cpu.isVirtual8086;
    const outcome = x87.memory(opcode, modrm, wide, real);
    for (let at = 0; at < x87.stored; at++) cpu.writeByte(cpu.wrap(address + at), scratch[at], user);
    this.#outcome(outcome);
  }

  /** XMM registers on their way: as words, and the bytes of 8 and of 16 of them. Hosts are little-endian. */
  readonly #words = new Int32Array(64);
  readonly #vectors = [new Uint8Array(this.#words.buffer, 0, 128), new Uint8Array(this.#words.buffer)];

  fxsave(address: number, wide: boolean): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    const { state } = this;
    // Both pages must take the write before anything is stored.
    cpu.translate(address, true, user);
    cpu.translate(address + 511, true, user);
    const top = (state.status >> 11) & 7;
    cpu.write16(address, state.control, user);
    cpu.write16(address + 2, state.status, user);
    cpu.write16(address + 4, state.valid & 0xff, user);
    cpu.write16(address + 6, state.opcode, user);
    cpu.write32(address + 8, state.ipLow, user);
    cpu.write32(address + 12, wide ? state.ipHigh : state.ipSelector, user);
    cpu.write32(address + 16, state.dpLow, user);
    cpu.write32(address + 20, wide ? state.dpHigh : state.dpSelector, user);
    cpu.write32(address + 24, cpu.i32[S.MXCSR >> 2], user);
    cpu.write32(address + 28, 0xffff, user);
    for (let n = 0; n < 8; n++) {
      const at = (S.FPU + ((top + n) & 7) * 16) >> 2;
      cpu.write32(address + 32 + n * 16, cpu.i32[at], user);
      cpu.write32(address + 36 + n * 16, cpu.i32[at + 1], user);
      cpu.write32(address + 40 + n * 16, cpu.i32[at + 2] & 0xffff, user);
      cpu.write32(address + 44 + n * 16, 0, user);
    }
    const count = cpu.is64 ? 16 : 8;
    const words = this.#words;
    for (let n = 0; n < count; n++) {
      const from = (S.VECTOR + n * S.VECTOR_STRIDE) >> 2;
      for (let word = 0; word < 4; word++) words[n * 4 + word] = cpu.i32[from + word];
    }
    cpu.writeBlock(address + 160, this.#vectors[count / 8 - 1], user);
  }

  fxrstor(address: number, wide: boolean): void {
    const cpu = this.#cpu;
    const user = cpu.cpl === 3;
    const { state } = this;
    cpu.translate(address, false, user);
    cpu.translate(address + 511, false, user);
    const mxcsr = cpu.read32(address + 24, user);
    if ((mxcsr & 0xffff0000) !== 0) raise(13, 0);
    state.control = cpu.read16(address, user) | 0x40;
    state.status = cpu.read16(address + 2, user);
    state.valid = cpu.read16(address + 4, user) & 0xff;
    state.opcode = cpu.read16(address + 6, user) & 0x7ff;
    state.ipLow = cpu.read32(address + 8, user);
    const ip = cpu.read32(address + 12, user);
    state.dpLow = cpu.read32(address + 16, user);
    const dp = cpu.read32(address + 20, user);
    state.ipHigh = wide ? ip : 0;
    state.ipSelector = wide ? 0 : ip & 0xffff;
    state.dpHigh = wide ? dp : 0;
    state.dpSelector = wide ? 0 : dp & 0xffff;
    cpu.i32[S.MXCSR >> 2] = mxcsr;
    const top = (state.status >> 11) & 7;
    for (let n = 0; n < 8; n++) {
      const at = (S.FPU + ((top + n) & 7) * 16) >> 2;
      cpu.i32[at] = cpu.read32(address + 32 + n * 16, user);
      cpu.i32[at + 1] = cpu.read32(address + 36 + n * 16, user);
      cpu.i32[at + 2] = cpu.read32(address + 40 + n * 16, user) & 0xffff;
    }
    const count = cpu.is64 ? 16 : 8;
    cpu.readBlock(address + 160, this.#vectors[count / 8 - 1], user);
    const words = this.#words;
    for (let n = 0; n < count; n++) {
      const to = (S.VECTOR + n * S.VECTOR_STRIDE) >> 2;
      for (let word = 0; word < 4; word++) cpu.i32[to + word] = words[n * 4 + word];
    }
  }
}
