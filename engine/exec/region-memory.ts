/** The memory accesses of a region: windows that neighbours share, and pages that loops remember. */
import * as S from '../memory/vcpu-state.ts';
import { CPU, type LoweringTarget } from './code-writer.ts';
import { ControlFlow, type Node, type RegionBlock } from './control-flow.ts';
import { W } from './opcodes.ts';
import { RegisterLowering } from './region-registers.ts';
import { type Access, findWindows, type Place, type Window } from './windows.ts';

/** Accesses of a loop that remember the page that they were in the last time. */
const MEMOS = 6;

/** Helpers that look at no register and change none: nothing is stored before them or loaded after. */
export const STATELESS = new Set(['sse_float', 'sse_crypto', 'sse_string']);

/** Helpers that always leave: what they do does not matter to what follows. */
export const FATAL = new Set(['segment_fault']);

export class MemoryLowering extends RegisterLowering {
  protected readonly flow: ControlFlow;
  /** The block that is being lowered. */
  protected from: Node | undefined;
  /** State offsets of memos that are left, by the header of the innermost loop; of all, by that of the outermost. */
  protected readonly memos = new Map<Node, number[]>();
  protected readonly memosOf = new Map<Node, readonly number[]>();
  protected readonly places: ReadonlyMap<Access, Place>;
  /** Locals of the windows that were made on the way here: host addresses, or 0. */
  protected windows = new Map<Window, number>();
  /** Those that were made in the current block. */
  protected blockWindows: number[] = [];

  /** `everywhere`: accesses share windows outside of loops too. */
  constructor(target: LoweringTarget, blocks: readonly RegionBlock[], entries: readonly number[], everywhere: boolean) {
    super(target, blocks);
    this.flow = new ControlFlow(blocks, entries);
    this.places = findWindows(this.flow.root, (name) => STATELESS.has(name) || FATAL.has(name), everywhere);
  }

  protected override window(access: Access, la: number): { local: number; offset: number } | undefined {
    const place = this.places.get(access);
    if (place === undefined) return undefined;
    const { window, at } = place;
    let local = this.windows.get(window);
    if (local === undefined) {
      local = this.takeLocal(this.pointerType);
      this.blockWindows.push(local);
      this.windows = new Map(this.windows).set(window, local);
      this.#openWindow(window, la, at, local);
    }
    return { local, offset: at - window.low };
  }

  /** In a loop the page that an access was in the last time is looked at first. */
  protected override lookUp(la: number, tag: number, bytes: number, aligned: boolean, missDepth: number): void {
    const memo = aligned ? undefined : this.#takeMemo();
    if (memo === undefined) {
      this.probe(la, tag, bytes, aligned, missDepth);
      return;
    }
    this.open(W.block);
    this.get(la);
    this.loadAt(CPU, 'i64', 64, memo + S.MEMO_PAGE);
    this.op(0x7d); // i64.sub
    this.loadAt(CPU, 'i64', 64, memo + S.MEMO_ROOM);
    this.op(0x54); // i64.lt_u
    this.hint(true);
    this.brIf(0);
    const entry = this.tlbEntry(la);
    const page = this.temporary('i64');
    this.pageOf(la, bytes, false);
    this.set(page);
    this.get(page);
    this.loadAt(entry, 'i64', 64, tag);
    this.op(W.i64Ne);
    this.hint(false);
    this.brIf(missDepth + 1);
    this.storeState(memo + S.MEMO_PAGE, 64, () => this.get(page));
    this.storeState(memo + S.MEMO_ROOM, 64, () => this.i64(BigInt(4097 - bytes)));
    this.storeState(memo + S.MEMO_ADDEND, 64, () => this.loadAt(entry, 'i64', 64, S.TLB_ADDEND));
    this.end();
    this.get(la);
    if (!this.target.memory64) this.op(W.wrap);
    this.loadAt(CPU, this.pointerType, this.target.memory64 ? 64 : 32, memo + S.MEMO_ADDEND);
    this.op(this.target.memory64 ? W.i64Add : W.i32Add);
  }

  /** State offset of a memo for an access of the current block, where it lies in a loop that has one left. */
  #takeMemo(): number | undefined {
    const header = this.from?.inner;
    return header === undefined ? undefined : this.memos.get(header)?.pop();
  }

  /** Before the outermost loop: room for what the loops in it remember. */
  protected makeMemos(outer: Node): void {
    const taken: number[] = [];
    for (const header of this.flow.nodes.values()) {
      if (header.outer !== outer || !header.isLoop) continue;
      const count = Math.min(MEMOS, S.MEMOS - taken.length);
      const memos = Array.from({ length: count }, (_, n) => S.MEMOS_AT + (taken.length + n) * S.MEMO_BYTES);
      this.memos.set(header, [...memos]);
      taken.push(...memos);
    }
    this.memosOf.set(outer, taken);
    this.forgetPages(outer);
  }

  protected forgetPages(outer: Node | undefined): void {
    if (outer === undefined) return;
    for (const memo of this.memosOf.get(outer) ?? []) this.storeState(memo + S.MEMO_ROOM, 64, () => this.i64(0n));
  }

  /** Looks for the whole of a window in the TLB; `la` is the address at its place `at`. */
  #openWindow(window: Window, la: number, at: number, local: number): void {
    let start = la;
    if (at !== window.low) {
      start = this.temporary('i64');
      this.get(la);
      this.i64(BigInt(window.low - at));
      this.op(W.i64Add);
      if (window.wraps) {
        this.i64(0xffffffffn);
        this.op(W.i64And);
      }
      this.set(start);
    }
    this.open(W.block);
    this.pointer(0);
    this.set(local);
    this.lookUp(start, window.writes ? S.TLB_WRITE : S.TLB_READ, window.high - window.low, false, 0);
    this.set(local);
    this.end();
  }
}
