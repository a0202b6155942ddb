/**
 * The region tier's lowering: the blocks of one page that a hot entry reaches become one WebAssembly function.
 *
 * General registers and lazy flags live in locals; they are stored to the state block only where something else may
 * look: on slow paths of memory accesses, around helpers, and where the region is left. Flags are kept as the
 * operation that would make them until somebody wants them. The control-flow graph becomes structured control flow by
 * its dominator tree (Ramsey, "Beyond Relooper", ICFP 2022); an edge that has no place in it leaves the region.
 */
import type { Body, FlagKind, MemorySize, Size, Statement, Value } from '../ir/builder.ts';
import { Builder } from '../ir/builder.ts';
import { Exit } from '../ir/exit.ts';
import { conditionOf, expandFlags, type FlagSource } from '../ir/flags.ts';
import type { Type } from '../ir/ops.ts';
import { isPlainTest } from '../ir/tame.ts';
import * as S from '../memory/vcpu-state.ts';
import { CPU, Lowering, type LoweringTarget, REC, W } from './lower.ts';
import { type FactBlock, factsAtStarts, leavesFlow, leavesUnlessTame, masksOf, TameFacts } from './region-float.ts';

/** One guest instruction of a region. */
export interface RegionInstruction {
  /** Its record, which helpers are given and where the baseline goes on. */
  readonly record: number;
  /** Offset in the page, and of the instruction after it. */
  readonly offset: number;
  readonly next: number;
  readonly body: Body;
  /** Where a `branch` in it goes, as an offset from the page's start; may lie outside of the page. */
  readonly target: number;
  /** Interrupts are looked at after it. */
  readonly check: boolean;
  /** A call: what follows is entered by a return. */
  readonly call: boolean;
  /** Its number in its run, from 1: what the end of the run takes as retired if it is reached from here. */
  readonly position: number;
}

export interface RegionBlock {
  readonly offset: number;
  readonly instructions: readonly RegionInstruction[];
  /** Offsets that its branches go to, and the offset after it. */
  readonly branches: readonly number[];
  readonly falls: number;
  /** It ends where its run does, so that the baseline goes on by a FALL record. */
  readonly ends: boolean;
}

interface Node {
  /** Undefined: the root, from which entries are chosen. */
  readonly block: RegionBlock | undefined;
  /** Its number where it can be entered from the root, else -1. */
  entry: number;
  order: number;
  predecessors: Node[];
  successors: Node[];
  dominator: Node | undefined;
  children: Node[];
  isLoop: boolean;
  isMerge: boolean;
}

type PendingFlags = { kind: FlagKind; bits: Size; args: readonly Value[]; before: PendingFlags | undefined };

/** General registers end here in the state block, vector registers there. */
const GPR_END = S.GPR + 16 * 8;
const VECTOR_END = S.VECTOR + 16 * S.VECTOR_STRIDE;

/**
 * Number of the local for what lies at a state offset: 16 general registers, then the 16-byte pieces of the vector
 * registers; undefined where the state has no local.
 */
function registerAt(at: number): number | undefined {
  if (at >= 0 && at < GPR_END) return at >> 3;
  if (at >= S.VECTOR && at < VECTOR_END) return 16 + ((at - S.VECTOR) >> 4);
  return undefined;
}
/** All exceptions masked, rounding to nearest, the precision flag set. */
const PLAIN_MASK = 0x7fa0;
const PLAIN = 0x1fa0;
/** Helpers that look at how many instructions were retired: INSTRUCTIONS then is what it is in the baseline. */
const COUNTING: ReadonlySet<string> = new Set(['rdpmc', 'rdmsr', 'wrmsr']);

/** Helpers that look at no register and change none: nothing is stored before them or loaded after. */
const STATELESS = new Set(['sse_float', 'sse_crypto', 'sse_string']);

/** Opcodes after 0xfd of lanes: extract (zero- and sign-extended for 8 and 16 bits) and replace, by lane size. */
const LANES: Readonly<Record<number, { readonly get: number; readonly getSigned: number; readonly set: number }>> = {
  8: { get: 0x16, getSigned: 0x15, set: 0x17 },
  16: { get: 0x19, getSigned: 0x18, set: 0x1a },
  32: { get: 0x1b, getSigned: 0x1b, set: 0x1c },
  64: { get: 0x1d, getSigned: 0x1d, set: 0x1e },
};

export class RegionLowering extends Lowering {
  readonly #nodes = new Map<number, Node>();
  readonly #registers: (number | undefined)[] = [];
  readonly #written = new Set<number>();
  readonly #flagRes: number;
  readonly #flagAux: number;
  readonly #count: number;
  readonly #smc: number;
  /** Where the region is left for: the RIP, or the record of an instruction that faults. */
  readonly #exit: number;
  /** Number of the entry to go to. */
  readonly #choice: number;
  /** Address of the TLB. */
  readonly #tlb: number;
  /** Bits of `FPU_BLOCK` that were seen clear in this block. */
  #unblocked = 0;
  #dispatchDepth = 0;
  /** Nonzero: MXCSR is as arithmetic is done without looking at flags. Undefined where nothing asks. */
  readonly #plain: number | undefined;
  /** `FPU_BLOCK`, which only helpers change. Undefined where nothing asks. */
  #blocked: number | undefined;
  readonly #tame = new TameFacts();
  #facts: ReadonlyMap<Node, ReadonlyMap<number, number>> = new Map();
  /** Locals of vector constants that are used more than once. */
  readonly #constants = new Map<bigint, number>();
  readonly #find: (offset: number) => number;
  /** Blocks that the root chooses from. */
  #entries: Node[] = [];
  #faultDepth = 0;
  #leaveDepth = 0;
  #chainDepth = 0;
  #pending: PendingFlags | undefined;
  #instruction: RegionInstruction | undefined;
  #retired = 0;
  /** Labels that a branch can reach: the node and the depth inside of its block or loop. */
  readonly #labels: { node: Node; depth: number; loop: boolean }[] = [];
  #from: Node | undefined;
  #stored = false;
  /** Width of the instruction pointer. */
  readonly #bits: 16 | 32 | 64;

  /** `entries`: offsets of the blocks where the function can be entered; the record that it is entered by has the number in `imm`. `find`: the record of a run by its offset, or 0. */
  constructor(
    target: LoweringTarget,
    blocks: readonly RegionBlock[],
    entries: readonly number[],
    bits: 16 | 32 | 64,
    find: (offset: number) => number,
  ) {
    super(target);
    this.#find = find;
    this.#bits = bits;
    this.#count = this.newLocal('i64');
    this.#flagRes = this.newLocal('i64');
    this.#flagAux = this.newLocal('i32');
    this.#smc = this.newLocal('i32');
    this.#exit = this.newLocal('i64');
    this.#choice = this.newLocal('i32');
    this.#tlb = this.newLocal('i32');
    this.#plain = blocks.some(({ instructions }) => instructions.some(({ body }) => callsFloat(body)))
      ? this.newLocal('i32')
      : undefined;
    this.#scan(blocks);
    const root = this.#graph(blocks, entries);
    if (this.#plain !== undefined) this.#facts = this.#factsOf([...this.#nodes.values()]);
    this.#reload();
    // All ways out meet at the end of the function: what must be stored to the state is written once.
    this.open(W.block);
    this.#faultDepth = this.depth;
    if (this.#entries.length > 1) {
      this.loadAt(REC, 'i32', 32, S.RECORD.imm);
      this.set(this.#choice);
    }
    this.open(W.block);
    this.#leaveDepth = this.depth;
    this.open(W.block);
    this.#chainDepth = this.depth;
    this.#tree(root);
    this.op(0x00); // every path has left: unreachable
    this.end();
    this.#storeAll();
    this.#chain();
    this.end();
    this.#storeAll();
    this.storeState(S.STOPPED_AT, 32, () => this.i32(0));
    this.jumpCached(this.#exit);
    this.get(CPU);
    this.get(this.#exit);
    this.code.u8(W.returnCall);
    this.code.u32(this.target.helper('$jump'));
    this.end();
    this.#storeAll();
    this.storeState(S.STOPPED_AT, 32, () => {
      this.get(this.#exit);
      this.op(W.wrap);
    });
    super.leave(Exit.FAULT);
    this.op(W.end);
  }

  // --- registers --------------------------------------------------------------------------------------------------

  /** Gives every register that the region touches a local. */
  #scan(blocks: readonly RegionBlock[]): void {
    const touch = (slot: Value, offset: number, write: boolean): void => {
      // A slot that is computed lies in the temporaries: only fields name registers, and those are constant here.
      if (slot.by.op !== 'const') return;
      const at = Number(slot.by.bits) + offset;
      if (at === S.FPU_BLOCK) this.#blocked ??= this.newLocal('i32');
      const register = registerAt(at);
      if (register === undefined) return;
      this.#registers[register] ??= this.newLocal(register < 16 ? 'i64' : 'v128');
      if (write) this.#written.add(register);
    };
    const walk = (body: Body): void => {
      for (const statement of body) {
        if (statement.op === 'const' && statement.value.type === 'v128' && statement.bits !== 0n)
          this.#constants.set(statement.bits, this.#constants.has(statement.bits) ? -1 : -2);
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
    for (const [bits, uses] of [...this.#constants]) {
      this.#constants.delete(bits);
      if (uses !== -1) continue;
      this.get(CPU);
      this.toAddress();
      this.op(0xfd, 0x0a); // v128.load64_splat
      this.memarg(0, S.ZERO);
      super.constant('v128', bits);
      this.op(0xfd, 0x51); // v128.xor
      const local = this.newLocal('v128');
      this.set(local);
      this.#constants.set(bits, local);
    }
  }

  protected override constant(type: Type, bits: bigint): void {
    const local = type === 'v128' ? this.#constants.get(bits) : undefined;
    if (local === undefined) super.constant(type, bits);
    else this.get(local);
  }

  /** Stores what the locals hold to the state block. */
  #spill(): void {
    this.#materialize();
    this.#storeRegisters();
  }

  #storeAll(): void {
    this.#storeRegisters();
    this.storeState(S.INSTRUCTIONS, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
      this.get(this.#count);
      this.op(W.i64Add);
    });
  }

  #storeRegisters(): void {
    for (const register of this.#written) {
      this.get(CPU);
      this.toAddress();
      this.get(this.#registers[register] as number);
      if (register < 16) this.storeOp('i64', 64, S.GPR + register * 8);
      else this.storeOp('v128', 128, S.VECTOR + (register - 16) * 16);
    }
    this.get(CPU);
    this.toAddress();
    this.get(this.#flagRes);
    this.storeOp('i64', 64, S.FLAG_RES);
    this.get(CPU);
    this.toAddress();
    this.get(this.#flagAux);
    this.storeOp('i32', 32, S.FLAG_AUX);
  }

  #reload(): void {
    for (const [register, local] of this.#registers.entries()) {
      if (local === undefined) continue;
      if (register < 16) this.loadAt(CPU, 'i64', 64, S.GPR + register * 8);
      else this.loadAt(CPU, 'v128', 128, S.VECTOR + (register - 16) * 16);
      this.set(local);
    }
    this.loadAt(CPU, 'i32', 32, S.TLB);
    this.set(this.#tlb);
    this.loadAt(CPU, 'i64', 64, S.FLAG_RES);
    this.set(this.#flagRes);
    this.loadAt(CPU, 'i32', 32, S.FLAG_AUX);
    this.set(this.#flagAux);
    if (this.#blocked !== undefined) {
      this.loadAt(CPU, 'i32', 32, S.FPU_BLOCK);
      this.set(this.#blocked);
    }
    if (this.#plain === undefined) return;
    this.loadAt(CPU, 'i32', 32, S.MXCSR);
    this.i32(PLAIN_MASK);
    this.op(W.i32And);
    this.i32(PLAIN);
    this.op(W.i32Eq);
    this.set(this.#plain);
  }

  protected override getState(statement: Extract<Statement, { op: 'get' }>): void {
    const at = offsetOf(statement);
    const type = statement.value.type;
    if (at === S.FLAG_RES) return this.get(this.#flagRes);
    if (at === S.FLAG_AUX) return this.get(this.#flagAux);
    const register = registerAt(at);
    const local = register === undefined ? undefined : this.#registers[register];
    if (register === undefined || local === undefined) {
      super.getState(statement);
      return;
    }
    const { bits, signed } = statement;
    if (register >= 16) {
      if ((at & 15) === 0) this.#tame.read(register, statement.value);
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
      this.set(this.#flagRes);
      return;
    }
    if (at === S.FLAG_AUX) {
      this.value(value);
      this.set(this.#flagAux);
      return;
    }
    const register = registerAt(at);
    const local = register === undefined ? undefined : this.#registers[register];
    if (register === undefined || local === undefined) {
      super.putState(statement);
      if (at === S.FPU_BLOCK && this.#blocked !== undefined) {
        this.#unblocked = 0;
        this.loadAt(CPU, 'i32', 32, S.FPU_BLOCK);
        this.set(this.#blocked);
      }
      return;
    }
    const { bits } = statement;
    if (register >= 16) {
      this.#putLane(local, at & 15, bits, value);
      this.#tame.write(register, at & 15, bits, value);
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
    this.get(this.#tlb);
  }

  // --- flags ------------------------------------------------------------------------------------------------------

  /** Puts the flags that are pending into their locals. What is known at compile time stays as it is. */
  #materialize(): void {
    const emit = (pending: PendingFlags): void => {
      if (pending.before !== undefined) emit(pending.before);
      this.lower(expandFlags([{ op: 'flags', kind: pending.kind, bits: pending.bits, args: pending.args }]));
    };
    if (this.#pending !== undefined) emit(this.#pending);
  }

  protected override statement(statement: Statement): void {
    switch (statement.op) {
      case 'flags': {
        // What the arguments are now must last until the flags are wanted.
        for (const arg of statement.args) this.keep(arg);
        const before = statement.kind === 'inc' || statement.kind === 'dec' ? this.#pending : undefined;
        this.#pending = { kind: statement.kind, bits: statement.bits, args: statement.args, before };
        return;
      }
      case 'flags.test': {
        const pending = this.#pending;
        const b = new Builder();
        let result: Value | undefined;
        if (pending !== undefined) {
          const source: FlagSource = { kind: pending.kind, bits: pending.bits, args: pending.args };
          result = conditionOf(b, statement.condition, source);
        }
        if (result === undefined) {
          this.#materialize();
          this.#pending = undefined;
          this.lower(expandFlags([statement]));
          return;
        }
        this.lower(b.body);
        this.value(result);
        this.define(statement.value);
        return;
      }
      case 'flags.all':
      case 'flags.cf':
      case 'flags.cfof':
      case 'flags.put':
        if (statement.op !== 'flags.put') this.#materialize();
        this.#pending = undefined;
        this.lower(expandFlags([statement]));
        return;
      case 'if': {
        // What was found to be allowed stays so until a helper may have changed it.
        const mask = blockMask(statement.args[0]);
        if (mask !== 0 && (mask & ~this.#unblocked) === 0 && statement.else.length === 0) return;
        const unblocked = this.#unblocked;
        const pending = this.#pending;
        const before = this.#tame.save();
        const close = this.openIf(statement);
        this.statements(statement.then);
        // What goes on elsewhere does not matter here.
        if (leavesFlow(statement.then)) this.#pending = pending;
        const changed = this.#pending !== pending;
        if (changed) this.#settle();
        const then = this.#unblocked;
        this.#unblocked = unblocked;
        const tame = this.#tame.save();
        this.#tame.restore(before);
        let after = this.#pending;
        close(() => {
          this.#pending = pending;
          this.statements(statement.else);
          if (changed || this.#pending !== pending) this.#settle();
          after = this.#pending;
        });
        if (leavesUnlessTame(statement.else)) this.#tame.restore(tame);
        else if (!leavesFlow(statement.then)) this.#tame.meet(tame);
        // Where one side changed the flags both have put them into the locals.
        this.#pending = changed || after !== pending ? undefined : pending;
        this.#unblocked &= then;
        if (mask !== 0 && endsFlow(statement.then)) this.#unblocked = unblocked | mask;
        return;
      }
      case 'loop': {
        const pending = this.#pending;
        this.#tame.clear();
        super.statement(statement);
        this.#tame.clear();
        if (this.#pending !== pending) throw new Error('region: flags set in a loop');
        return;
      }
      case 'pure':
        if (blockMask(statement.value) !== 0 || isPlainTest(statement.value)) return;
        super.statement(statement);
        return;
      case 'get':
        // Read where it is wanted: the check that it is for may be left out.
        if (offsetOf(statement) === S.FPU_BLOCK || isPlainTest(statement.value)) return;
        super.statement(statement);
        return;
      case 'var.set':
        super.statement(statement);
        this.#tame.assign(statement.variable, statement.args[0]);
        return;
      case 'var.get':
        super.statement(statement);
        this.#tame.take(statement.variable, statement.value);
        return;
      default:
        super.statement(statement);
    }
  }

  protected override value(value: Value): void {
    if (this.#blocked !== undefined && value.by.op === 'get' && offsetOf(value.by) === S.FPU_BLOCK) this.get(this.#blocked);
    else if (this.#plain !== undefined && value.by.op === 'pure' && isPlainTest(value)) this.get(this.#plain);
    else super.value(value);
  }

  protected override unless(condition: Value, no: number, likely: boolean): void {
    if (this.#tame.holds(condition)) return;
    super.unless(condition, no, likely);
    this.#tame.passed(condition);
  }
  /** A test that no lane is bad looks only at what is not known yet. */
  protected override test(condition: Value): void {
    const { masks, code } = masksOf(condition) ?? { masks: [], code: [] };
    const left = masks.filter((mask) => !this.#tame.holds(mask));
    if (left.length === masks.length) {
      this.value(condition);
      return;
    }
    if (left.length === 0) {
      this.i32(1);
      return;
    }
    for (const [n, mask] of left.entries()) {
      this.value(mask);
      if (n > 0) this.op(0xfd, 0x50); // v128.or
    }
    this.op(...code, W.i32Eqz);
  }

  #settle(): void {
    this.#materialize();
    this.#pending = undefined;
  }

  // --- slow paths and helpers -------------------------------------------------------------------------------------

  protected override record(): void {
    this.i32((this.#instruction as RegionInstruction).record);
  }

  protected override afterStore(): void {
    // Nonzero: the write hit translated code, perhaps this region's.
    this.get(this.#smc);
    this.op(W.i32Or);
    this.set(this.#smc);
    this.#stored = true;
  }

  /** Where time is the instruction count a device must see all of them. */
  protected override slowly(helper: string): void {
    if (this.target.counting !== true) return super.slowly(helper);
    const before = BigInt(this.#retired - (this.#instruction as RegionInstruction).position);
    const count = (add: boolean): void =>
      this.storeState(S.INSTRUCTIONS, 64, () => {
        this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
        this.get(this.#count);
        this.i64(before);
        this.op(W.i64Add, add ? W.i64Add : 0x7d); // i64.sub
      });
    count(true);
    super.slowly(helper);
    count(false);
  }
  protected override retiredSoFar(): void {
    super.retiredSoFar();
    this.get(this.#count);
    this.op(W.i64Add);
    if (this.#retired === 0) return;
    this.i64(BigInt(this.#retired));
    this.op(W.i64Add);
  }
  protected override leaving(): void {
    const { record, position } = this.#instruction as RegionInstruction;
    // Whether this instruction is among them is known outside.
    this.#spillCount(this.#retired - position);
    this.storeState(S.LEFT_AT, 32, () => this.i32(record));
  }
  protected override beforeCall({ name, leaves }: Extract<Statement, { op: 'call' }>): void {
    if (!STATELESS.has(name) || leaves) this.#spill();
    if (!(COUNTING.has(name) || (this.target.counting === true && (!STATELESS.has(name) || leaves)))) return;
    const before = this.#retired - (this.#instruction as RegionInstruction).position;
    this.#spillCount(before);
    this.i64(BigInt(-before));
    this.set(this.#count);
  }
  protected override afterCall({ name, leaves, value }: Extract<Statement, { op: 'call' }>): void {
    if (name === 'sse_float' && this.#plain !== undefined) {
      // 0: MXCSR is plain, whatever it was.
      this.get(this.#plain);
      this.value(value);
      this.op(W.i32Eqz, W.i32Or);
      this.set(this.#plain);
    }
    if (STATELESS.has(name) && !leaves) return;
    this.#unblocked = 0;
    this.#tame.clear();
    this.#reload();
    this.#pending = undefined;
    this.loadAt(CPU, 'i32', 32, S.CODE_HIT);
    this.afterStore();
  }

  /** Leaves for a fault of the current instruction: to the common exit, with the flags in their locals. */
  protected override fault(): void {
    this.#materialize();
    // The dispatcher knows the record, and counts up to it.
    this.#addCount(this.#retired - (this.#instruction as RegionInstruction).position);
    this.i64(BigInt((this.#instruction as RegionInstruction).record));
    this.set(this.#exit);
    this.br(this.depth - this.#faultDepth);
  }
  protected override raise(vector: number, code: number): void {
    if (vector >= 0) {
      this.storeState(S.EXCEPTION, 32, () => this.i32(vector));
      this.storeState(S.EXCEPTION_CODE, 32, () => this.i32(code));
    }
    this.fault();
  }

  // --- leaving ----------------------------------------------------------------------------------------------------

  /** Adds the instructions so far to the state's count. `more`: those of the current block. */
  #spillCount(more: number): void {
    this.storeState(S.INSTRUCTIONS, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
      this.get(this.#count);
      this.op(W.i64Add);
      if (more !== 0) {
        this.i64(BigInt(more));
        this.op(W.i64Add);
      }
    });
  }

  /** Leaves for the RIP at an offset from the page's start, kept to the width of the mode. */
  #leaveTo(offset: number, bits: 16 | 32 | 64): void {
    this.#materialize();
    this.#addCount(this.#retired);
    const record = offset >= 0 && offset < 4096 ? this.#find(offset) : 0;
    if (record !== 0) {
      this.i64(BigInt(record));
      this.set(this.#exit);
      this.br(this.depth - this.#chainDepth);
      return;
    }
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.i64(BigInt(offset));
    this.op(W.i64Add);
    if (bits !== 64) {
      this.i64(bits === 16 ? 0xffffn : 0xffffffffn);
      this.op(W.i64And);
    }
    this.set(this.#exit);
    this.br(this.depth - this.#leaveDepth);
  }

  /** Goes on at a record of the same page, which lives as long as this region; or leaves for what is pending. */
  #chain(): void {
    const record = this.newLocal('i32');
    this.storeState(S.STOPPED_AT, 32, () => this.i32(0));
    this.get(this.#exit);
    this.op(W.wrap);
    this.set(record);
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.open(W.if);
    this.storeState(S.NEXT_RIP, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
      this.loadAt(record, 'i64', 16, S.RECORD.offset);
      this.op(W.i64Add);
      if (this.#bits !== 64) {
        this.i64(this.#bits === 16 ? 0xffffn : 0xffffffffn);
        this.op(W.i64And);
      }
    });
    super.leave(Exit.PENDING);
    this.end();
    this.get(CPU);
    this.get(record);
    this.loadAt(record, 'i32', 32, S.RECORD.handler);
    this.tailCall();
  }

  /** Goes on with the next record in the baseline. */
  protected override next(): void {
    const { record, position } = this.#instruction as RegionInstruction;
    const pending = this.#pending;
    this.#materialize();
    // The end of the run will count what it has before this too.
    this.#addCount(this.#retired - position);
    this.i64(BigInt(record + S.RECORD_BYTES));
    this.set(this.#exit);
    this.br(this.depth - this.#chainDepth);
    this.#pending = pending;
  }

  protected override jump(target: Value): void {
    this.value(target);
    this.set(this.#exit);
    this.#materialize();
    this.watchCount();
    this.#addCount(this.#retired);
    this.br(this.depth - this.#leaveDepth);
  }

  protected override branch(bits: 16 | 32 | 64): void {
    this.#goto((this.#instruction as RegionInstruction).target, bits, true);
  }

  /** Goes to a block of the region, or out of it. `ends`: by a branch that is taken, or from the end of a run. */
  #goto(offset: number, bits: 16 | 32 | 64, ends: boolean): void {
    const watched = ends && this.target.counting === true;
    if (watched) this.watchCount();
    const to = this.#nodes.get(offset);
    const pending = this.#pending;
    const retired = this.#retired;
    const from = this.#from as Node;
    const unblocked = this.#unblocked;
    const label = to === undefined ? undefined : this.#labels.findLast((each) => each.node === to);
    const inside = to !== undefined && to.dominator === from && !to.isMerge && to.order > from.order;
    const byRoot = to !== undefined && label === undefined && !inside && to.entry >= 0;
    if (to === undefined || (label === undefined && !inside && !byRoot)) this.#leaveTo(offset, bits);
    else {
      if (label?.loop === true || byRoot || watched) {
        // A back edge: something may be asked of this vCPU.
        this.loadAt(CPU, 'i32', 32, S.PENDING);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(offset, bits);
        this.end();
        this.#pending = pending;
      }
      this.#addCount(this.#retired);
      // A block that is reached from here alone goes on with the flags as they are.
      const carried = inside && !to.isLoop && label === undefined ? this.#pending : undefined;
      if (carried === undefined && !overwritesFlags(to.block)) this.#materialize();
      this.#pending = undefined;
      if (label !== undefined) this.br(this.depth - label.depth);
      else if (byRoot) {
        this.i32(to.entry);
        this.set(this.#choice);
        this.br(this.depth - this.#dispatchDepth);
      } else this.#tree(to, carried);
    }
    this.#pending = pending;
    this.#retired = retired;
    this.#from = from;
    this.#unblocked = unblocked;
  }

  #addCount(instructions: number): void {
    if (instructions === 0) return;
    this.get(this.#count);
    this.i64(BigInt(instructions));
    this.op(W.i64Add);
    this.set(this.#count);
  }

  // --- structure --------------------------------------------------------------------------------------------------

  #graph(blocks: readonly RegionBlock[], entries: readonly number[]): Node {
    const make = (block: RegionBlock | undefined): Node => ({
      block,
      entry: -1,
      order: -1,
      predecessors: [],
      successors: [],
      dominator: undefined,
      children: [],
      isLoop: false,
      isMerge: false,
    });
    for (const block of blocks) this.#nodes.set(block.offset, make(block));
    const root = make(undefined);
    const enter = (node: Node): void => {
      node.entry = this.#entries.length;
      this.#entries.push(node);
    };
    for (const offset of entries) enter(this.#nodes.get(offset) as Node);
    // An edge back to a block that does not dominate its source has no place in structured control flow: such a block
    // is chosen by the root too.
    for (let odd: Node | undefined = this.#order(root); odd !== undefined; odd = this.#order(root)) enter(odd);
    return root;
  }

  /** Orders the nodes and finds dominators, loops and merges. Gives a block that must become an entry, if there is one. */
  #order(root: Node): Node | undefined {
    for (const node of [root, ...this.#nodes.values()]) {
      node.order = -1;
      node.predecessors = [];
      node.successors = [];
      node.dominator = undefined;
      node.children = [];
      node.isLoop = false;
      node.isMerge = false;
    }
    const post: Node[] = [];
    const seen = new Set<Node>();
    const visit = (node: Node): void => {
      seen.add(node);
      const reach = (to: Node | undefined): void => {
        if (to === undefined) return;
        // An edge each time: a block that is reached twice from one place is a merge too, and lowered once.
        node.successors.push(to);
        to.predecessors.push(node);
        if (!seen.has(to)) visit(to);
      };
      if (node.block === undefined) for (const to of this.#entries) reach(to);
      else {
        const { branches, falls, instructions } = node.block;
        const last = instructions[instructions.length - 1];
        for (const offset of branches) reach(this.#nodes.get(offset));
        if (last === undefined || !endsFlow(last.body)) reach(this.#nodes.get(falls));
      }
      post.push(node);
    };
    visit(root);
    const order = post.reverse();
    for (const [n, node] of order.entries()) node.order = n;
    // Dominators (Cooper, Harvey, Kennedy 2001).
    root.dominator = root;
    const meet = (a: Node, b: Node): Node => {
      let x = a;
      let y = b;
      while (x !== y) {
        while (x.order > y.order) x = x.dominator as Node;
        while (y.order > x.order) y = y.dominator as Node;
      }
      return x;
    };
    for (let changed = true; changed; ) {
      changed = false;
      for (const node of order) {
        if (node === root) continue;
        let dominator: Node | undefined;
        for (const each of node.predecessors) {
          if (each.dominator === undefined) continue;
          dominator = dominator === undefined ? each : meet(dominator, each);
        }
        if (dominator !== node.dominator) {
          node.dominator = dominator;
          changed = true;
        }
      }
    }
    const dominates = (a: Node, b: Node): boolean => {
      let x = b;
      while (x.order > a.order) x = x.dominator as Node;
      return x === a;
    };
    for (const node of order) {
      let forward = 0;
      for (const each of node.predecessors) {
        if (each.order >= node.order) {
          if (dominates(node, each)) node.isLoop = true;
          else if (node.entry < 0) return node;
        } else forward++;
      }
      // The root's choices need labels.
      node.isMerge = forward > 1 || node.entry >= 0;
      if (node !== root) (node.dominator as Node).children.push(node);
    }
    return undefined;
  }

  /** What is known of floating-point numbers where each block starts. */
  #factsOf(nodes: readonly Node[]): ReadonlyMap<Node, ReadonlyMap<number, number>> {
    const blocks = new Map<Node, { bodies: readonly Body[]; predecessors: readonly FactBlock[]; isEntry: boolean }>();
    for (const node of nodes) {
      const bodies = node.block?.instructions.map(({ body }) => body) ?? [];
      blocks.set(node, { bodies, predecessors: [], isEntry: node.entry >= 0 });
    }
    for (const [node, block] of blocks) block.predecessors = node.predecessors.flatMap((each) => blocks.get(each) ?? []);
    const starts = factsAtStarts([...blocks.values()], registerAt, (name) => STATELESS.has(name));
    return new Map([...blocks].map(([node, block]) => [node, starts.get(block) ?? new Map()]));
  }

  /** Lowers a node and all that it dominates. `flags`: those that are pending where it is entered. */
  #tree(node: Node, flags?: PendingFlags): void {
    const merges = node.children.filter((child) => child.isMerge).sort((a, b) => a.order - b.order);
    const isRoot = node.block === undefined;
    if (node.isLoop || isRoot) {
      this.open(W.loop);
      if (isRoot) this.#dispatchDepth = this.depth;
      else this.#labels.push({ node, depth: this.depth, loop: true });
    }
    // The last merge in order is outermost: its block ends last.
    for (const merge of [...merges].reverse()) {
      this.open(W.block);
      this.#labels.push({ node: merge, depth: this.depth, loop: false });
    }
    if (node.block === undefined) this.#choose();
    else this.#block(node, node.block, flags);
    for (const merge of merges) {
      this.#labels.pop();
      this.end();
      this.#tree(merge);
    }
    if (node.isLoop || isRoot) {
      if (!isRoot) this.#labels.pop();
      this.end();
      this.op(0x00); // nothing falls out of a loop: unreachable
    }
  }

  /** Goes to the entry that was chosen. All entries are merges of the root, so they have labels. */
  #choose(): void {
    const depths = this.#entries.map((node) => {
      const label = this.#labels.findLast((each) => each.node === node);
      if (label === undefined) throw new Error('region: an entry without a label');
      return this.depth - label.depth;
    });
    if (depths.length === 1) {
      this.br(depths[0]);
      return;
    }
    this.get(this.#choice);
    this.code.u8(0x0e); // br_table
    this.code.u32(depths.length - 1);
    for (const depth of depths) this.code.u32(depth);
  }

  #block(node: Node, block: RegionBlock, flags: PendingFlags | undefined): void {
    this.#from = node;
    this.#pending = flags;
    this.#unblocked = 0;
    this.#tame.enter(this.#facts.get(node) ?? new Map());
    this.#retired = 0;
    for (const instruction of block.instructions) {
      this.#instruction = instruction;
      this.#retired++;
      this.#stored = false;
      this.#tame.begin();
      this.lower(instruction.body);
      if (this.#stored && !endsFlow(instruction.body)) {
        const pending: PendingFlags | undefined = this.#pending;
        this.get(this.#smc);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(instruction.next, this.#bits);
        this.end();
        this.#pending = pending;
      }
      if (instruction.check) {
        const pending: PendingFlags | undefined = this.#pending;
        this.loadAt(CPU, 'i32', 32, S.PENDING);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(instruction.next, this.#bits);
        this.end();
        this.#pending = pending;
      }
    }
    const last = block.instructions[block.instructions.length - 1];
    if (last !== undefined && endsFlow(last.body)) return;
    this.#goto(block.falls, this.#bits, block.ends);
  }
}

/** The bits that `and(FPU_BLOCK, bits)` looks at, where a value is that; else 0. */
function blockMask({ by }: Value): number {
  if (by.op !== 'pure' || by.pure.name !== 'i32.and') return 0;
  const [x, y] = by.args;
  return x.by.op === 'get' && offsetOf(x.by) === S.FPU_BLOCK && y.by.op === 'const' ? Number(y.by.bits) : 0;
}

/** True where a body may call the helper for floating-point operations. */
const callsFloat = (body: Body): boolean =>
  body.some(
    (statement) =>
      (statement.op === 'call' && statement.name === 'sse_float') ||
      (statement.op === 'if' && (callsFloat(statement.then) || callsFloat(statement.else))),
  );

/** State offset of a register access; past all of them where it is computed at run time. */
function offsetOf({ slot, offset }: { slot: Value; offset: number }): number {
  return slot.by.op === 'const' ? Number(slot.by.bits) + offset : S.STATE_BYTES;
}

/** True where a block sets all of the flags before it reads one, may fault or leaves: what they were before does not matter. */
function overwritesFlags(block: RegionBlock | undefined): boolean {
  if (block === undefined) return false;
  for (const { body, check } of block.instructions) {
    for (const statement of body) {
      switch (statement.op) {
        case 'flags':
          if (statement.kind === 'inc' || statement.kind === 'dec') return false;
          return true;
        case 'const':
        case 'field':
        case 'pure':
        case 'get':
        case 'put':
        case 'var.get':
        case 'var.set':
          break;
        default:
          return false;
      }
    }
    if (check) return false;
  }
  return false;
}

/** True where a body never goes on with the next instruction. */
export function endsFlow(body: Body): boolean {
  const last = body[body.length - 1];
  return last !== undefined && (last.op === 'branch' || last.op === 'jump' || last.op === 'raise');
}
