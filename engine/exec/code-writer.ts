/** Writes the code of one WebAssembly function: instructions, locals, blocks, and words of the vCPU's state. */
import type { MemorySize } from '../ir/builder.ts';
import type { Type } from '../ir/ops.ts';
import { LOADS, STORES, W } from './opcodes.ts';
import { type BranchHint, Bytes } from './wasm.ts';

export interface LoweringTarget {
  readonly memory64: boolean;
  /** Function index of a helper by name. */
  helper(name: string): number;
  /** Type index of translated functions. */
  readonly functionType: number;
  /** Time is the instruction count: the ends of runs look at COUNT_LIMIT. */
  readonly counting?: boolean;
}

/** Parameters of translated functions: addresses of the vCPU's state and of the record. */
export const CPU = 0;
export const REC = 1;

export class CodeWriter {
  readonly code: Bytes = new Bytes();
  /** Ways that branches go as a rule; in order. */
  readonly hints: BranchHint[] = [];
  /** Types of the locals after the parameters. */
  readonly locals: Type[] = [];
  protected readonly target: LoweringTarget;
  readonly #firstLocal: number;
  /** Blocks open around the current point. */
  protected depth = 0;

  constructor(target: LoweringTarget, parameters = 2) {
    this.target = target;
    this.#firstLocal = parameters;
  }

  newLocal(type: Type): number {
    this.locals.push(type);
    return this.#firstLocal + this.locals.length - 1;
  }

  /** Temporary locals in use, in the order they were taken, and those that are free. */
  readonly #temporaries: number[] = [];
  readonly #free = new Map<Type, number[]>();

  /** A local until `releaseTemporaries`. Compilers take time for each local at each merge of control flow. */
  protected temporary(type: Type): number {
    const local = this.takeLocal(type);
    this.#temporaries.push(local);
    return local;
  }
  /** Temporary locals in use. */
  protected get temporaries(): number {
    return this.#temporaries.length;
  }
  /** Frees the temporary locals from number `first` to `end`, which nothing looks at any more. */
  protected releaseTemporaries(first: number, end: number = this.#temporaries.length): void {
    for (const local of this.#temporaries.splice(first, end - first)) this.free(local);
  }
  /** Frees a local that was taken by `takeLocal`. */
  protected free(local: number): void {
    const type = this.locals[local - this.#firstLocal];
    const free = this.#free.get(type);
    if (free === undefined) this.#free.set(type, [local]);
    else free.push(local);
  }
  /** A local until it is freed. */
  protected takeLocal(type: Type): number {
    return this.#free.get(type)?.pop() ?? this.newLocal(type);
  }

  protected op(...bytes: readonly number[]): void {
    this.code.raw(bytes);
  }
  protected get(local: number): void {
    this.code.u8(W.get);
    this.code.u32(local);
  }
  protected set(local: number): void {
    this.code.u8(W.set);
    this.code.u32(local);
  }
  protected tee(local: number): void {
    this.code.u8(W.tee);
    this.code.u32(local);
  }
  protected i32(value: number): void {
    this.code.u8(W.i32Const);
    this.code.s32(value);
  }
  protected i64(value: bigint): void {
    this.code.u8(W.i64Const);
    this.code.s64(value);
  }
  protected call(name: string): void {
    this.code.u8(W.call);
    this.code.u32(this.target.helper(name));
  }
  protected open(kind: number, type: number = W.void): void {
    this.op(kind, type);
    this.depth++;
  }
  /** The `if` or `br_if` that is written next goes this way as a rule. */
  protected hint(likely: boolean): void {
    this.hints.push({ at: this.code.length, likely });
  }
  protected end(): void {
    this.op(W.end);
    this.depth--;
  }
  protected br(depth: number): void {
    this.code.u8(W.br);
    this.code.u32(depth);
  }
  protected brIf(depth: number): void {
    this.code.u8(W.brIf);
    this.code.u32(depth);
  }
  /** The i32 on the stack becomes an address of the memory's index type. */
  protected toAddress(): void {
    if (this.target.memory64) this.op(W.extend);
  }
  protected get pointerType(): Type {
    return this.target.memory64 ? 'i64' : 'i32';
  }
  /** Pushes a constant of the memory's index type. */
  protected pointer(value: number): void {
    if (this.target.memory64) this.i64(BigInt(value));
    else this.i32(value);
  }
  protected memarg(alignment: number, offset: number): void {
    this.code.u32(alignment);
    this.code.u32(offset);
  }
  /** Pushes the state (or record) word at a fixed offset from the i32 in `local`. */
  protected loadAt(local: number, type: Type, bits: MemorySize, offset: number, signed = false): void {
    this.get(local);
    this.toAddress();
    this.load(type, bits, signed, offset);
  }
  protected load(type: Type, bits: MemorySize, signed: boolean, offset: number): void {
    const opcode = LOADS[`${type}/${bits}${signed && bits <= 32 ? 's' : ''}`];
    if (opcode === undefined) throw new Error(`no load of ${bits} bits to ${type}`);
    this.op(...opcode);
    this.memarg(0, offset);
  }
  protected storeOp(type: Type, bits: MemorySize, offset: number): void {
    const opcode = STORES[`${type}/${bits}`];
    if (opcode === undefined) throw new Error(`no store of ${bits} bits from ${type}`);
    this.op(...opcode);
    this.memarg(0, offset);
  }
  /** Stores a constant or what `push` pushes at a state offset. */
  protected storeState(offset: number, bits: 32 | 64, push: () => void): void {
    this.get(CPU);
    this.toAddress();
    push();
    this.storeOp(bits === 64 ? 'i64' : 'i32', bits, offset);
  }
  protected leave(code: number): void {
    this.i32(code);
    this.op(W.return);
  }
}
