/** Questions about the bodies of instructions that the lowering asks. */
import type { Body, Value } from '../ir/builder.ts';
import * as S from '../memory/vcpu-state.ts';

/** Whether a body raises an exception or calls a helper, which is the rarer way. */
export const rarely = (body: Body): boolean => body.some(({ op }) => op === 'raise' || op === 'call');

/** Whether a body may do something to the flags that are put off, which a helper or a test of them puts into their place. */
export const touchesFlags = (body: Body): boolean =>
  body.some(
    (statement) =>
      statement.op.startsWith('flags') ||
      statement.op === 'call' ||
      statement.op === 'loop' ||
      (statement.op === 'if' && (touchesFlags(statement.then) || touchesFlags(statement.else))),
  );

/** The bits that `and(FPU_BLOCK, bits)` looks at, where a value is that; else 0. */
export function blockMask({ by }: Value): number {
  if (by.op !== 'pure' || by.pure.name !== 'i32.and') return 0;
  const [x, y] = by.args;
  return x.by.op === 'get' && offsetOf(x.by) === S.FPU_BLOCK && y.by.op === 'const' ? Number(y.by.bits) : 0;
}

/** True where a body may call the helper for floating-point operations. */
export const callsFloat = (body: Body): boolean =>
  body.some(
    (statement) =>
      (statement.op === 'call' && statement.name === 'sse_float') ||
      (statement.op === 'if' && (callsFloat(statement.then) || callsFloat(statement.else))),
  );

/** State offset of a register access; past all of them where it is computed at run time. */
export function offsetOf({ slot, offset }: { slot: Value; offset: number }): number {
  return slot.by.op === 'const' ? Number(slot.by.bits) + offset : S.STATE_BYTES;
}

/** True where a body never goes on with the next instruction. */
export function endsFlow(body: Body): boolean {
  const last = body[body.length - 1];
  return last !== undefined && (last.op === 'branch' || last.op === 'jump' || last.op === 'raise');
}

/** True where what follows a body, in the same instruction or behind it, is not reached from its end. */
export function leavesFlow(body: Body): boolean {
  return endsFlow(body) || body[body.length - 1]?.op === 'next';
}
