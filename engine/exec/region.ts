/**
 * The region tier's lowering: the blocks of one page that a hot entry reaches become one WebAssembly function.
 *
 * General registers and lazy flags live in locals; they are stored to the state block only where something else may
 * look: on slow paths of memory accesses, around helpers, and where the region is left. Flags are kept as the
 * operation that would make them until somebody wants them. The control-flow graph becomes structured control flow by
 * its dominator tree (Ramsey, "Beyond Relooper", ICFP 2022); an edge that has no place in it leaves the region.
 */
import type { Body, Statement, Value } from '../ir/builder.ts';
import { Builder } from '../ir/builder.ts';
import { Exit } from '../ir/exit.ts';
import { conditionOf, expandFlags, type FlagSource } from '../ir/flags.ts';
import { isPlainTest } from '../ir/tame.ts';
import * as S from '../memory/vcpu-state.ts';
import { blockMask, endsFlow, leavesFlow, offsetOf } from './bodies.ts';
import { CPU, type LoweringTarget, REC } from './code-writer.ts';
import { isAlone, type Node, pageOfOffset, type RegionBlock, type RegionInstruction } from './control-flow.ts';
import { FlagForms, flagsOf, type PendingFlags, wantFlags } from './deferred-flags.ts';
import { W } from './opcodes.ts';
import { type FactBlock, factsAtStarts, leavesUnlessTame, masksOf } from './region-float.ts';
import { FATAL, MemoryLowering, STATELESS } from './region-memory.ts';
import { registerAt } from './region-registers.ts';

/** The flags are what `FlagForms` has deferred, if anything. */
const DEFERRED = Symbol('deferred');
/** Undefined: the flags are in their locals. */
type Flags = PendingFlags | typeof DEFERRED | undefined;

/** Ways out of a region for which flags may be deferred. */
const Way = { CHAIN: 0, LEAVE: 1, FAULT: 2 } as const;

/** Helpers that look at how many instructions were retired: INSTRUCTIONS then is what it is in the baseline. */
const COUNTING: ReadonlySet<string> = new Set(['rdpmc', 'rdmsr', 'wrmsr']);

/** Where a region lies, and what addresses its code needs. Records are told by *places*: numbers that are no addresses. */
export interface RegionPlace {
  /** The place of the record that the run at an offset starts with, or 0. */
  find(offset: number): number;
  /** The global that has the address of the run that a record belongs to, and the record's distance from there. */
  base(place: number): { readonly global: number; readonly distance: number };
  /** The global that has the page of the backing that page `n` from that of the entry is expected to be. */
  frame(page: number): number;
  /** Width of the instruction pointer. */
  readonly bits: 16 | 32 | 64;
}

export class RegionLowering extends MemoryLowering {
  readonly #count: number;
  /** Where the region is left for: the RIP, or the record of an instruction that faults. */
  readonly #exit: number;
  /** Number of the entry to go to. */
  readonly #choice: number;
  #dispatchDepth = 0;
  #facts: ReadonlyMap<Node, ReadonlyMap<number, number>> = new Map();
  readonly #source: RegionPlace;
  /** Where flags are made that were deferred; `#way` says how it goes on. */
  #deferredDepth = 0;
  readonly #way: number;
  readonly #forms = new FlagForms();
  readonly #form: number;
  readonly #operands: readonly number[];
  readonly #want: ReadonlySet<Node>;
  #leaveDepth = 0;
  #chainDepth = 0;
  #pending: Flags;
  #instruction: RegionInstruction | undefined;
  #retired = 0;
  /** Labels that a branch can reach: the node and the depth inside of its block or loop. */
  readonly #labels: { node: Node; depth: number; loop: boolean }[] = [];
  /** The current instruction has called a helper that may have written code. */
  #called = false;
  /** Width of the instruction pointer. */
  readonly #bits: 16 | 32 | 64;

  /** `entries`: offsets of the blocks where the function can be entered; the record that it is entered by has the number in `imm`. `limit`: the entry at which it is hot again, counted in `disp`; 0: none. */
  constructor(
    target: LoweringTarget,
    blocks: readonly RegionBlock[],
    entries: readonly number[],
    source: RegionPlace,
    limit: number,
  ) {
    super(target, blocks, entries, limit === 0);
    this.#source = source;
    this.#bits = source.bits;
    this.#count = this.newLocal('i64');
    this.#exit = this.newLocal('i64');
    this.#choice = this.newLocal('i32');
    this.#way = this.newLocal('i32');
    this.#form = this.newLocal('i32');
    this.#operands = [this.newLocal('i64'), this.newLocal('i64'), this.newLocal('i64')];
    if (this.plain !== undefined) this.#facts = this.#factsOf([...this.flow.nodes.values()]);
    this.#want = wantFlags([...this.flow.nodes.values()], (name) => STATELESS.has(name));
    this.reload();
    // All ways out meet at the end of the function: what must be stored to the state is written once.
    if (limit > 0) this.countEntry(S.RECORD.disp, limit);
    if (this.flow.entries.length > 1) {
      this.loadAt(REC, 'i32', 32, S.RECORD.imm);
      this.set(this.#choice);
    }
    this.open(W.block);
    this.#leaveDepth = this.depth;
    this.open(W.block);
    this.#chainDepth = this.depth;
    this.open(W.block);
    this.#deferredDepth = this.depth;
    this.#tree(this.flow.root);
    this.op(0x00); // every path has left: unreachable
    this.end();
    this.#makeDeferred();
    this.get(this.#way);
    this.i32(Way.LEAVE);
    this.op(W.i32Eq);
    this.brIf(this.depth - this.#leaveDepth);
    this.get(this.#way);
    this.open(W.if);
    this.#storeAll();
    this.storeState(S.STOPPED_AT, 32, () => {
      this.get(this.#exit);
      this.op(W.wrap);
    });
    super.leave(Exit.FAULT);
    this.end();
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
    this.op(W.end);
  }

  // --- registers --------------------------------------------------------------------------------------------------

  /** Stores what the locals hold to the state block. */
  #spill(): void {
    this.#materialize();
    this.storeRegisters();
  }

  #storeAll(): void {
    this.storeRegisters();
    this.storeState(S.INSTRUCTIONS, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
      this.get(this.#count);
      this.op(W.i64Add);
    });
  }

  // --- flags ------------------------------------------------------------------------------------------------------

  /** Puts the flags that are pending into their locals. What is known at compile time stays as it is. */
  #materialize(): void {
    const emit = (pending: PendingFlags): void => {
      if (pending.before !== undefined) emit(pending.before);
      this.lower(expandFlags([{ op: 'flags', kind: pending.kind, bits: pending.bits, args: pending.args }]));
    };
    if (this.#pending === DEFERRED) throw new Error('region: deferred flags are wanted');
    if (this.#pending !== undefined) emit(this.#pending);
  }

  /** Puts into locals what the pending flags come from. */
  #defer(): void {
    const pending = this.#pending;
    if (pending === DEFERRED) return;
    const deferred = pending === undefined ? undefined : this.#forms.of(pending);
    if (pending === undefined || deferred === undefined) {
      this.#materialize();
      this.i32(0);
      this.set(this.#form);
      return;
    }
    if (pending.before !== undefined) {
      this.#pending = pending.before;
      this.#materialize();
      this.#pending = pending;
    }
    for (const [n, value] of deferred.kept.entries()) {
      this.value(value);
      if (value.type === 'i32') this.op(W.extend);
      this.set(this.#operands[n]);
    }
    this.i32(deferred.form.number);
    this.set(this.#form);
  }

  /** Makes the flags that were deferred, whatever form they have. */
  #makeDeferred(): void {
    const { all } = this.#forms;
    if (all.length === 0) return;
    this.open(W.block);
    const done = this.depth;
    for (let n = 0; n <= all.length; n++) this.open(W.block);
    this.get(this.#form);
    this.code.u8(0x0e); // br_table
    this.code.u32(all.length);
    for (let n = 0; n <= all.length; n++) this.code.u32(n);
    this.end();
    this.br(this.depth - done);
    for (const form of all) {
      this.end();
      const operands: Value[] = [];
      const body = flagsOf(form, (b, n, type) => {
        const whole = b.get(b.variable('i64'));
        operands[n] = whole;
        return type === 'i32' ? b.wrap(whole) : whole;
      });
      for (const [n, operand] of operands.entries()) this.defineAs(operand, this.#operands[n]);
      this.lower(body.filter(({ op }) => op !== 'var.get'));
      this.br(this.depth - done);
    }
    this.end();
  }

  protected override statement(statement: Statement): void {
    switch (statement.op) {
      case 'flags': {
        // What the arguments are now must last until the flags are wanted.
        for (const arg of statement.args) this.keep(arg);
        const keeps = statement.kind === 'inc' || statement.kind === 'dec';
        if (keeps && this.#pending === DEFERRED) this.#materialize();
        const before = keeps ? (this.#pending as PendingFlags | undefined) : undefined;
        this.#pending = { kind: statement.kind, bits: statement.bits, args: statement.args, before };
        return;
      }
      case 'flags.test': {
        const pending = this.#pending;
        const b = new Builder();
        let result: Value | undefined;
        if (pending !== undefined && pending !== DEFERRED) {
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
        if (mask !== 0 && (mask & ~this.unblocked) === 0 && statement.else.length === 0) return;
        const unblocked = this.unblocked;
        const pending = this.#pending;
        const before = this.tame.save();
        const close = this.openIf(statement);
        this.statements(statement.then);
        // What goes on elsewhere does not matter here.
        if (leavesFlow(statement.then)) this.#pending = pending;
        const changed = this.#pending !== pending;
        if (changed) this.#settle();
        const then = this.unblocked;
        this.unblocked = unblocked;
        const tame = this.tame.save();
        this.tame.restore(before);
        let after = this.#pending;
        close(() => {
          this.#pending = pending;
          this.statements(statement.else);
          if (changed || this.#pending !== pending) this.#settle();
          after = this.#pending;
        });
        if (leavesUnlessTame(statement.else)) this.tame.restore(tame);
        else if (!leavesFlow(statement.then)) this.tame.meet(tame);
        // Where one side changed the flags both have put them into the locals.
        this.#pending = changed || after !== pending ? undefined : pending;
        this.unblocked &= then;
        if (mask !== 0 && endsFlow(statement.then)) this.unblocked = unblocked | mask;
        return;
      }
      case 'loop': {
        const pending = this.#pending;
        this.tame.clear();
        super.statement(statement);
        this.tame.clear();
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
        this.tame.assign(statement.variable, statement.args[0]);
        return;
      case 'var.get':
        super.statement(statement);
        this.tame.take(statement.variable, statement.value);
        return;
      default:
        super.statement(statement);
    }
  }

  protected override value(value: Value): void {
    if (this.blocked !== undefined && value.by.op === 'get' && offsetOf(value.by) === S.FPU_BLOCK) this.get(this.blocked);
    else if (this.plain !== undefined && value.by.op === 'pure' && isPlainTest(value)) this.get(this.plain);
    else super.value(value);
  }

  protected override unless(condition: Value, no: number, likely: boolean): void {
    if (this.tame.holds(condition)) return;
    super.unless(condition, no, likely);
    this.tame.passed(condition);
  }
  /** A test that no lane is bad looks only at what is not known yet. */
  protected override test(condition: Value): void {
    const { masks, code } = masksOf(condition) ?? { masks: [], code: [] };
    const left = masks.filter((mask) => !this.tame.holds(mask));
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
    this.#address((this.#instruction as RegionInstruction).record);
  }
  /** Pushes the address of a record. */
  #address(place: number, behind = 0): void {
    const { global, distance } = this.#source.base(place);
    this.code.u8(W.globalGet);
    this.code.u32(global);
    if (distance + behind === 0) return;
    this.i32(distance + behind);
    this.op(W.i32Add);
  }

  /** A write into code that was translated, perhaps this: the instruction starts anew, alone. */
  protected override storeFlags(): number {
    return S.SlowStore.ALONE;
  }
  protected override rmwEnd(): void {
    // What is not done in memory itself was left to the baseline.
  }
  /** A device may have moved the memory. */
  protected override afterSlowStore(): void {
    for (const window of this.windows.values()) {
      this.pointer(0);
      this.set(window);
    }
    this.forgetPages(this.from?.outer);
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
    // Whether this instruction is among them is known outside.
    this.#spillCount(this.#retired - (this.#instruction as RegionInstruction).position);
    this.storeState(S.LEFT_AT, 32, () => this.record());
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
    if (name === 'sse_float' && this.plain !== undefined) {
      // 0: MXCSR is plain, whatever it was.
      this.get(this.plain);
      this.value(value);
      this.op(W.i32Eqz, W.i32Or);
      this.set(this.plain);
    }
    if ((STATELESS.has(name) && !leaves) || FATAL.has(name)) return;
    this.unblocked = 0;
    this.tame.clear();
    this.reload();
    this.#pending = undefined;
    this.windows = new Map();
    this.forgetPages(this.from?.outer);
    this.#called = true;
  }

  /** Leaves for a fault of the current instruction: to the common exit, with the flags in their locals. */
  protected override fault(): void {
    // The dispatcher knows the record, and counts up to it.
    this.#addCount(this.#retired - (this.#instruction as RegionInstruction).position);
    this.record();
    this.op(W.extend);
    this.#leaveBy(Way.FAULT, false);
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
  #leaveTo(offset: number, bits: 16 | 32 | 64, usual = false): void {
    this.#addCount(this.#retired);
    // RIP_BASE is the page of the block that is left.
    const page = this.#page;
    const record = pageOfOffset(offset) === page ? this.#source.find(offset) : 0;
    if (record !== 0) {
      this.#address(record);
      this.op(W.extend);
      this.#leaveBy(Way.CHAIN, usual);
      return;
    }
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.i64(BigInt(offset - page * 4096));
    this.op(W.i64Add);
    if (bits !== 64) {
      this.i64(bits === 16 ? 0xffffn : 0xffffffffn);
      this.op(W.i64And);
    }
    this.#leaveBy(Way.LEAVE, usual);
  }

  /** Leaves with what is on the stack as `#exit`. The usual ways make the flags where they are known; others keep the code short. */
  #leaveBy(way: (typeof Way)[keyof typeof Way], usual: boolean): void {
    this.set(this.#exit);
    if (usual && this.#pending !== DEFERRED) {
      this.#materialize();
      this.br(this.depth - (way === Way.CHAIN ? this.#chainDepth : this.#leaveDepth));
      return;
    }
    this.#defer();
    this.i32(way);
    this.set(this.#way);
    this.br(this.depth - this.#deferredDepth);
  }

  /** Goes on at a record of the same page, which lives as long as this region; or leaves for what is pending. */
  #chain(): void {
    const record = this.temporary('i32');
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
    // The end of the run will count what it has before this too.
    this.#addCount(this.#retired - position);
    this.#address(record, S.RECORD_BYTES);
    this.op(W.extend);
    this.#leaveBy(Way.CHAIN, false);
  }

  protected override jump(target: Value): void {
    const rip = this.temporary('i64');
    this.value(target);
    this.set(rip);
    const block = this.from?.block;
    if (block !== undefined && block.branches.length > 0 && this.#instruction?.returns === true)
      this.#returnTo(rip, block.branches);
    this.watchCount();
    this.#addCount(this.#retired);
    this.get(rip);
    this.#leaveBy(Way.LEAVE, true);
  }

  /** A return goes to a call of this region, as a rule. */
  #returnTo(rip: number, sites: readonly number[]): void {
    const distance = this.temporary('i64');
    this.get(rip);
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.op(0x7d); // i64.sub
    this.set(distance);
    for (const site of sites) {
      this.get(distance);
      this.i64(BigInt(site - this.#page * 4096));
      this.op(W.i64Eq);
      this.open(W.if);
      this.#goto(site, 64, true);
      this.end();
    }
  }

  /** The page of the current block, from that of the entry. */
  get #page(): number {
    const block = this.from?.block;
    return block === undefined ? 0 : pageOfOffset(block.offset);
  }

  /** Goes over into another page, if it is mapped as it was when the region was made; else leaves for `offset`. */
  #enterPage(offset: number, bits: 16 | 32 | 64): void {
    const page = pageOfOffset(offset);
    const base = this.temporary('i64');
    const entry = this.temporary('i32');
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.i64(BigInt((page - this.#page) * 4096));
    this.op(W.i64Add);
    this.set(base);
    this.itlbEntry(base, entry);
    this.open(W.block);
    this.open(W.block);
    this.loadAt(entry, 'i64', 64, 0);
    this.get(base);
    this.op(W.i64Ne);
    this.hint(false);
    this.brIf(0);
    this.loadAt(entry, 'i32', 32, 8);
    this.code.u8(W.globalGet);
    this.code.u32(this.#source.frame(page));
    this.op(W.i32Eq);
    this.hint(true);
    this.brIf(1);
    this.end();
    this.#leaveTo(offset, bits);
    this.end();
    this.storeState(S.RIP_BASE, 64, () => this.get(base));
  }

  protected override branch(bits: 16 | 32 | 64): void {
    this.#goto((this.#instruction as RegionInstruction).target as number, bits, true);
  }

  /** Goes to a block of the region, or out of it. `ends`: by a branch that is taken, or from the end of a run. */
  #goto(offset: number, bits: 16 | 32 | 64, ends: boolean): void {
    const watched = ends && this.target.counting === true;
    if (watched) this.watchCount();
    const to = this.flow.nodes.get(offset);
    const pending = this.#pending;
    const retired = this.#retired;
    const from = this.from as Node;
    const unblocked = this.unblocked;
    const windows = this.windows;
    const label = to === undefined ? undefined : this.#labels.findLast((each) => each.node === to);
    const inside = to !== undefined && to.dominator === from && !to.isMerge && to.order > from.order;
    const byRoot = to !== undefined && label === undefined && !inside && to.entry >= 0;
    if (to === undefined || (label === undefined && !inside && !byRoot)) this.#leaveTo(offset, bits, true);
    else {
      if (label?.loop === true || byRoot || watched) {
        // A back edge: something may be asked of this vCPU.
        this.loadAt(CPU, 'i32', 32, S.PENDING);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(offset, bits);
        this.end();
      }
      if (pageOfOffset(offset) !== this.#page) this.#enterPage(offset, bits);
      this.#addCount(this.#retired);
      // A block that is reached from here alone goes on with the flags as they are.
      const carried = inside && !to.isLoop && label === undefined ? pending : undefined;
      if (carried === undefined) {
        if (this.#want.has(to)) this.#materialize();
        else this.#defer();
      }
      if (label !== undefined) this.br(this.depth - label.depth);
      else if (byRoot) {
        this.i32(to.entry);
        this.set(this.#choice);
        this.br(this.depth - this.#dispatchDepth);
      } else this.#tree(to, carried ?? this.#atStart(to));
    }
    this.#pending = pending;
    this.#retired = retired;
    this.from = from;
    this.unblocked = unblocked;
    this.windows = windows;
  }

  #addCount(instructions: number): void {
    if (instructions === 0) return;
    this.get(this.#count);
    this.i64(BigInt(instructions));
    this.op(W.i64Add);
    this.set(this.#count);
  }

  // --- structure --------------------------------------------------------------------------------------------------

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
  #tree(node: Node, flags?: Flags): void {
    const merges = node.children.filter((child) => child.isMerge).sort((a, b) => a.order - b.order);
    const isRoot = node.block === undefined;
    if (node.isLoop && node.outer === node) this.makeMemos(node);
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
      this.#tree(merge, this.#atStart(merge));
    }
    if (node.isLoop || isRoot) {
      if (!isRoot) this.#labels.pop();
      this.end();
      this.op(0x00); // nothing falls out of a loop: unreachable
    }
  }

  /** How the flags are where a block starts that is reached from several places. */
  #atStart(node: Node): Flags {
    return this.#want.has(node) ? undefined : DEFERRED;
  }

  /** Goes to the entry that was chosen. All entries are merges of the root, so they have labels. */
  #choose(): void {
    const depths = this.flow.entries.map((node) => {
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

  #block(node: Node, block: RegionBlock, flags: Flags): void {
    this.from = node;
    this.#pending = flags;
    this.unblocked = 0;
    if (!isAlone(node)) this.windows = new Map();
    this.tame.enter(this.#facts.get(node) ?? new Map());
    this.#retired = 0;
    const first = this.temporaries;
    // Flags that are pending look at values of the instruction that set them.
    let held = first;
    const windows = this.blockWindows;
    this.blockWindows = [];
    for (const instruction of block.instructions) {
      const before = this.#pending;
      this.#instruction = instruction;
      this.#retired++;
      this.#called = false;
      this.tame.begin();
      this.lower(instruction.body);
      if (this.#called && !endsFlow(instruction.body)) {
        const pending: Flags = this.#pending;
        this.loadAt(CPU, 'i32', 32, S.CODE_HIT);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(instruction.next, this.#bits);
        this.end();
        this.#pending = pending;
      }
      if (instruction.check) {
        const pending: Flags = this.#pending;
        this.loadAt(CPU, 'i32', 32, S.PENDING);
        this.hint(false);
        this.open(W.if);
        this.#leaveTo(instruction.next, this.#bits);
        this.end();
        this.#pending = pending;
      }
      const now = this.#pending as Flags;
      if (now === before) this.releaseTemporaries(held);
      else {
        // INC and DEC keep what was pending for the carry.
        const keeps = typeof now === 'object' && now.before !== undefined;
        if (typeof now !== 'object') this.releaseTemporaries(first);
        else if (!keeps) this.releaseTemporaries(first, held);
        held = this.temporaries;
      }
    }
    const last = block.instructions[block.instructions.length - 1];
    if (last === undefined || !endsFlow(last.body)) this.#goto(block.falls, this.#bits, block.ends);
    this.releaseTemporaries(first);
    for (const local of this.blockWindows) this.free(local);
    this.blockWindows = windows;
  }
}
