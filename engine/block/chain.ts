import type { BlockNode, BlockRun } from './node.ts';

/** A run of a disk seen through its whole backing chain. */
export interface ChainRun extends BlockRun {
  /** 0 is the top. */
  depth: number;
  node: BlockNode;
}

/** The first run of a range of `top`, and the node of its chain that decides about it. */
export function chainStatus(top: BlockNode, offset: number, length: number): ChainRun {
  let node = top;
  let depth = 0;
  let most = length;
  for (;;) {
    const run = node.blockStatus(offset, most);
    most = run.length;
    if (run.kind !== 'unallocated' || node.backing === null) return { ...run, depth, node };
    if (offset >= node.backing.size) return { kind: 'unallocated', length: most, depth, node };
    depth++;
    node = node.backing;
    most = Math.min(most, node.size - offset);
  }
}
