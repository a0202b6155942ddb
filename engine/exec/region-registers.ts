/**
 * The registers of a region: general and vector registers, flags and what else instructions ask for often lie in
 * locals.
 */
import type { Body, MemorySize, Size, Statement, Value } from '../ir/builder.ts';
import type { Type } from '../ir/ops.ts';
import { PLAIN, PLAIN_MASK } from '../ir/tame.ts';
import * as S from '../memory/vcpu-state.ts';
import { callsFloat, offsetOf } from './bodies.ts';
import { CPU, type LoweringTarget } from './code-writer.ts';
import type { RegionBlock } from './control-flow.ts';
import { Lowering } from './lower.ts';
import { W } from './opcodes.ts';
import { TameFacts } from './region-float.ts';

/** General registers end here in the state block, vector registers there. */
const GPR_END = S.GPR + 16 * 8;
const VECTOR_END = S.VECTOR + 16 * S.VECTOR_STRIDE;

/**
 * Number of the local for what lies at a state offset: 16 general registers, then the 16-byte pieces of the vector
 * registers; undefined where the state has no local.
 */
export function registerAt(at: number): number | undefined {
  if (at >= 0 && at < GPR_END) return at >> 3;
  if (at >= S.VECTOR && at < VECTOR_END) return 16 + ((at - S.VECTOR) >> 4);
  return undefined;
}

/** Opcodes after 0xfd of lanes: extract (zero- and sign-extended for 8 and 16 bits) and replace, by lane size. */
const LANES: Readonly<Record<number, { readonly get: number; readonly getSigned: number; readonly set: number }>> = {
  8: { get: 0x16, getSigned: 0x15, set: 0x17 },
  16: { get: 0x19, getSigned: 0x18, set: 0x1a },
  32: { get: 0x1b, getSigned: 0x1b, set: 0x1c },
  64: { get: 0x1d, getSigned: 0x1d, set: 0x1e },
};

export class RegisterLowering extends Lowering {
  protected readonly registers: (number | undefined)[] = [];
  protected readonly written = new Set<number>();
  protected readonly flagRes: number;
  protected readonly flagAux: number;
  /** Address of the TLB. */
  protected readonly tlb: number;
  /** Bits of `FPU_BLOCK` that were seen clear in this block. */
  protected unblocked = 0;
  /** Nonzero: MXCSR is as arithmetic is done without looking at flags. Undefined where nothing asks. */
  protected readonly plain: number | undefined;
  /** `FPU_BLOCK`, which only helpers change. Undefined where nothing asks. */
  protected blocked: number | undefined;
  protected readonly tame = new TameFacts();
  /** Locals of vector constants that are used more than once. */
  protected readonly constants = new Map<bigint, number>();

  constructor(target: LoweringTarget, blocks: readonly RegionBlock[]) {
    super(target);
    this.flagRes = this.newLocal('i64');
    this.flagAux = this.newLocal('i32');
    this.tlb = this.newLocal('i32');
    this.plain = blocks.some(({ instructions }) => instructions.some(({ body }) => callsFloat(body)))
      ? this.newLocal('i32')
      : undefined;
    this.scan(blocks);
  }

  /** Gives every register that the region touches a local. */
  protected scan(blocks: readonly RegionBlock[]): void {
    const touch = (slot: Value, offset: number, write: boolean): void => {
      // A slot that is computed lies in the temporaries: only fields name registers, and those are constant here.
      if (slot.by.op !== 'const') return;
      const at = Number(slot.by.bits) + offset;
      if (at === S.FPU_BLOCK) this.blocked ??= this.newLocal('i32');
      const register = registerAt(at);
      if (register === undefined) return;
      this.registers[register] ??= this.newLocal(register < 16 ? 'i64' : 'v128');
      if (write) this.written.add(register);
    };
    const walk = (body: Body): void => {
      for (const statement of body) {
        if (statement.op === 'const' && statement.value.type === 'v128' && statement.bits !== 0n)
          this.constants.set(statement.bits, this.constants.has(statement.bits) ? -1 : -2);
        else if (statement.op === 'get') touch(statement.slot, statement.offset, false);
        else if (statement.op === 'put') touch(statement.slot, statement.offset, true);
        else if (statement.op === 'if') {
          walk(statement.then);
          walk(statement.else);
        } else if (statement.op === 'loop') walk(statement.body);
      }
    };
    for (const block of blocks) for (const instruction of block.instructions) walk(instruction.body);
    // V8 makes a constant anew, with several instructions, wherever it is used; a sum with what was loaded it keeps.
    for (const [bits, uses] of [...this.constants]) {
      this.constants.delete(bits);
      if (uses !== -1) continue;
      this.get(CPU);
      this.toAddress();
      this.op(0xfd, 0x0a); // v128.load64_splat
      this.memarg(0, S.ZERO);
      super.constant('v128', bits);
      this.op(0xfd, 0x51); // v128.xor
      const local = this.newLocal('v128');
      this.set(local);
      this.constants.set(bits, local);
    }
  }

  protected override constant(type: Type, bits: bigint): void {
    const local = type === 'v128' ? this.constants.get(bits) : undefined;
    if (local === undefined) super.constant(type, bits);
    else this.get(local);
  }

  protected storeRegisters(): void {
    for (const register of this.written) {
      this.get(CPU);
      this.toAddress();
      this.get(this.registers[register] as number);
      if (register < 16) this.storeOp('i64', 64, S.GPR + register * 8);
      else this.storeOp('v128', 128, S.VECTOR + (register - 16) * 16);
    }
    this.get(CPU);
    this.toAddress();
    this.get(this.flagRes);
    this.storeOp('i64', 64, S.FLAG_RES);
    this.get(CPU);
    this.toAddress();
    this.get(this.flagAux);
    this.storeOp('i32', 32, S.FLAG_AUX);
  }

  protected reload(): void {
    for (const [register, local] of this.registers.entries()) {
      if (local === undefined) continue;
      if (register < 16) this.loadAt(CPU, 'i64', 64, S.GPR + register * 8);
      else this.loadAt(CPU, 'v128', 128, S.VECTOR + (register - 16) * 16);
      this.set(local);
    }
    this.loadAt(CPU, 'i32', 32, S.TLB);
    this.set(this.tlb);
    this.loadAt(CPU, 'i64', 64, S.FLAG_RES);
    this.set(this.flagRes);
    this.loadAt(CPU, 'i32', 32, S.FLAG_AUX);
    this.set(this.flagAux);
    if (this.blocked !== undefined) {
      this.loadAt(CPU, 'i32', 32, S.FPU_BLOCK);
      this.set(this.blocked);
    }
    if (this.plain === undefined) return;
    this.loadAt(CPU, 'i32', 32, S.MXCSR);
    this.i32(PLAIN_MASK);
    this.op(W.i32And);
    this.i32(PLAIN);
    this.op(W.i32Eq);
    this.set(this.plain);
  }

  protected override getState(statement: Extract<Statement, { op: 'get' }>): void {
    const at = offsetOf(statement);
    const type = statement.value.type;
    if (at === S.FLAG_RES) return this.get(this.flagRes);
    if (at === S.FLAG_AUX) return this.get(this.flagAux);
    const register = registerAt(at);
    const local = register === undefined ? undefined : this.registers[register];
    if (register === undefined || local === undefined) {
      super.getState(statement);
      return;
    }
    const { bits, signed } = statement;
    if (register >= 16) {
      if ((at & 15) === 0) this.tame.read(register, statement.value);
      this.#getLane(local, at & 15, bits, signed, type);
      return;
    }
    this.get(local);
    const shift = (at & 7) * 8;
    if (shift !== 0) {
      this.i64(BigInt(shift));
      this.op(W.i64Shr);
    }
    if (type === 'i64') {
      if (bits === 64) return;
      if (signed) this.op(bits === 8 ? 0xc2 : bits === 16 ? 0xc3 : 0xc4);
      else {
        this.i64((1n << BigInt(bits)) - 1n);
        this.op(W.i64And);
      }
      return;
    }
    this.op(W.wrap);
    if (bits === 32) return;
    if (signed) this.op(bits === 8 ? 0xc0 : 0xc1);
    else {
      this.i32(bits === 8 ? 0xff : 0xffff);
      this.op(W.i32And);
    }
  }

  protected override putState(statement: Extract<Statement, { op: 'put' }>): void {
    const at = offsetOf(statement);
    const [value] = statement.args;
    if (at === S.FLAG_RES) {
      this.value(value);
      this.set(this.flagRes);
      return;
    }
    if (at === S.FLAG_AUX) {
      this.value(value);
      this.set(this.flagAux);
      return;
    }
    const register = registerAt(at);
    const local = register === undefined ? undefined : this.registers[register];
    if (register === undefined || local === undefined) {
      super.putState(statement);
      if (at === S.FPU_BLOCK && this.blocked !== undefined) {
        this.unblocked = 0;
        this.loadAt(CPU, 'i32', 32, S.FPU_BLOCK);
        this.set(this.blocked);
      }
      return;
    }
    const { bits } = statement;
    if (register >= 16) {
      this.#putLane(local, at & 15, bits, value);
      this.tame.write(register, at & 15, bits, value);
      return;
    }
    if (bits === 64) {
      this.value(value);
      this.set(local);
      return;
    }
    const shift = (at & 7) * 8;
    const mask = ((1n << BigInt(bits)) - 1n) << BigInt(shift);
    this.get(local);
    this.i64(BigInt.asIntN(64, ~mask));
    this.op(W.i64And);
    this.value(value);
    if (value.type === 'i32') this.op(W.extend);
    if (shift !== 0) {
      this.i64(BigInt(shift));
      this.op(0x86); // i64.shl
    }
    this.i64(BigInt.asIntN(64, mask));
    this.op(W.i64And, 0x84); // i64.or
    this.set(local);
  }

  /** Pushes `bits` from byte `at` of a vector's local, as `type`. */
  #getLane(local: number, at: number, bits: MemorySize, signed: boolean, type: Type): void {
    if (bits === 128) {
      this.get(local);
      return;
    }
    if (type === 'v128') {
      this.constant('v128', 0n);
      this.#extract(local, at, bits, false);
      this.op(0xfd, bits === 64 ? LANES[64].set : LANES[32].set, 0);
      return;
    }
    if (type === 'f64' || type === 'f32') {
      this.get(local);
      this.op(0xfd, type === 'f64' ? 0x21 : 0x1f, at / (bits / 8)); // f64x2.extract_lane, f32x4.extract_lane
      return;
    }
    this.#extract(local, at, bits, signed);
    if (type === 'i64' && bits !== 64) this.op(signed ? 0xac : W.extend);
  }

  #extract(local: number, at: number, bits: Size, signed: boolean): void {
    this.get(local);
    this.op(0xfd, signed ? LANES[bits].getSigned : LANES[bits].get, at / (bits / 8));
  }

  #putLane(local: number, at: number, bits: MemorySize, value: Value): void {
    if (bits === 128) this.value(value);
    else {
      this.get(local);
      this.value(value);
      if (value.type === 'v128') this.op(0xfd, LANES[bits].get, 0);
      else if (value.type === 'i64' && bits !== 64) this.op(W.wrap);
      const float = value.type === 'f64' ? 0x22 : value.type === 'f32' ? 0x20 : undefined;
      this.op(0xfd, float ?? LANES[bits].set, at / (bits / 8));
    }
    this.set(local);
  }

  protected override tlbBase(): void {
    this.get(this.tlb);
  }
}
