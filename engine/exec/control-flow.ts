/**
 * The control-flow graph of a region: order, dominators, loops and merges, for structured control flow by the dominator
 * tree (Ramsey, "Beyond Relooper", ICFP 2022). An edge back to a block that does not dominate its source has no place
 * there; such a block is entered from the root too.
 */
import type { Body } from '../ir/builder.ts';
import { endsFlow } from './bodies.ts';

/** One guest instruction of a region. */
export interface RegionInstruction {
  /** The place of its record (`RegionPlace`), which helpers are given and where the baseline goes on. */
  readonly record: number;
  /** Its place, and that of the instruction after it: bytes from the start of the page that the region is entered in. */
  readonly offset: number;
  readonly next: number;
  readonly body: Body;
  /** Where a `branch` in it goes, if it has one. */
  readonly target: number | undefined;
  /** Interrupts are looked at after it. */
  readonly check: boolean;
  /** A call: what follows is entered by a return; a near return. */
  readonly call: boolean;
  readonly returns: boolean;
  /** Its number in its run, from 1: what the end of the run takes as retired if it is reached from here. */
  readonly position: number;
}

export interface RegionBlock {
  readonly offset: number;
  readonly instructions: readonly RegionInstruction[];
  /** Offsets that its branches go to (those that a return may go to), and the offset after it. */
  branches: readonly number[];
  readonly falls: number;
  /** It ends where its run does, so that the baseline goes on by a FALL record. */
  readonly ends: boolean;
}

/** Number of the page that an offset lies in, from that where the region is entered. */
export const pageOfOffset = (offset: number): number => offset >> 12;

/** A block in the graph. */
export interface Node {
  /** Undefined: the root, from which entries are chosen. */
  readonly block: RegionBlock | undefined;
  /** Its number where it can be entered from the root, else -1. */
  entry: number;
  /** Its place in reverse postorder. */
  order: number;
  predecessors: Node[];
  successors: Node[];
  dominator: Node | undefined;
  children: Node[];
  isLoop: boolean;
  isMerge: boolean;
  /** Headers of the innermost and of the outermost loop that it lies in. */
  inner: Node | undefined;
  outer: Node | undefined;
}

export class ControlFlow {
  /** By offset. */
  readonly nodes = new Map<number, Node>();
  readonly root: Node = makeNode(undefined);
  /** Blocks that the root chooses from, by their number. */
  readonly entries: Node[] = [];

  /** `entries`: offsets of the blocks where the function can be entered. */
  constructor(blocks: readonly RegionBlock[], entries: readonly number[]) {
    for (const block of blocks) this.nodes.set(block.offset, makeNode(block));
    for (const offset of entries) this.#enter(this.nodes.get(offset) as Node);
    for (let odd = this.#order(); odd !== undefined; odd = this.#order()) this.#enter(odd);
  }

  #enter(node: Node): void {
    node.entry = this.entries.length;
    this.entries.push(node);
  }

  /** Where a block goes, an edge each time: one that is reached twice from one place is a merge too, and lowered once. */
  #successors({ block }: Node): readonly Node[] {
    if (block === undefined) return this.entries;
    const { branches, falls, instructions } = block;
    const last = instructions[instructions.length - 1];
    const offsets = last !== undefined && endsFlow(last.body) ? branches : [...branches, falls];
    return offsets.flatMap((offset) => this.nodes.get(offset) ?? []);
  }

  /** Orders the nodes and finds dominators, loops and merges. Gives a block that must become an entry, if there is one. */
  #order(): Node | undefined {
    const { root } = this;
    for (const node of [root, ...this.nodes.values()]) {
      node.order = -1;
      node.predecessors = [];
      node.successors = [];
      node.dominator = undefined;
      node.children = [];
      node.isLoop = false;
      node.isMerge = false;
      node.inner = undefined;
      node.outer = undefined;
    }
    const post: Node[] = [];
    const seen = new Set<Node>();
    const visit = (node: Node): void => {
      seen.add(node);
      for (const to of this.#successors(node)) {
        node.successors.push(to);
        to.predecessors.push(node);
        if (!seen.has(to)) visit(to);
      }
      post.push(node);
    };
    visit(root);
    const order = post.reverse();
    for (const [n, node] of order.entries()) node.order = n;
    findDominators(root, order);
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
    for (const node of order) if (node.isLoop) markLoop(node);
    return undefined;
  }
}

/** Notes the loop of a header in its blocks. Outer loops come before those in them. */
function markLoop(header: Node): void {
  const inside = new Set([header]);
  const queue = header.predecessors.filter((each) => each.order >= header.order);
  for (let node = queue.pop(); node !== undefined; node = queue.pop()) {
    if (inside.has(node)) continue;
    inside.add(node);
    queue.push(...node.predecessors);
  }
  for (const node of inside) {
    node.outer ??= header;
    node.inner = header;
  }
}

/** True where a block is reached from its dominator alone: what holds at the end of that holds at its start. */
export const isAlone = ({ isLoop, isMerge, dominator }: Node): boolean => !isLoop && !isMerge && dominator?.block !== undefined;

function makeNode(block: RegionBlock | undefined): Node {
  return {
    block,
    entry: -1,
    order: -1,
    predecessors: [],
    successors: [],
    dominator: undefined,
    children: [],
    isLoop: false,
    isMerge: false,
    inner: undefined,
    outer: undefined,
  };
}

/** Cooper, Harvey, Kennedy, "A Simple, Fast Dominance Algorithm" (2001). */
function findDominators(root: Node, order: readonly Node[]): void {
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
}

function dominates(a: Node, b: Node): boolean {
  let x = b;
  while (x.order > a.order) x = x.dominator as Node;
  return x === a;
}
