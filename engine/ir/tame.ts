/**
 * What translated code may know of floating-point numbers, so that it does not test them twice. Emitters mark their
 * tests here; the region tier leaves a test out where what it would find is known already.
 */
import type { Value } from './builder.ts';

/** Facts about a vector, as bits: of its lowest lane, or of all of its lanes, as doubles or as singles. */
export const Tame = {
  /** Not denormal. */
  NORMAL_D: 1,
  /** Not a NaN. */
  ORDERED_D: 2,
  NORMAL_PD: 4,
  ORDERED_PD: 8,
  NORMAL_S: 16,
  ORDERED_S: 32,
  NORMAL_PS: 64,
  ORDERED_PS: 128,
} as const;
export const TAME_ALL = 255;

/** All that a fact about all lanes says. */
export const implied = (facts: number): number =>
  facts | ((facts & (Tame.NORMAL_PD | Tame.ORDERED_PD | Tame.NORMAL_PS | Tame.ORDERED_PS)) >> 2);

/** A value, and facts about it. */
export interface TameFact {
  readonly of: Value;
  readonly facts: number;
}

const marks = new WeakMap<Value, readonly TameFact[]>();
const modes = new WeakSet<Value>();

/**
 * Says that `test` finds these facts: an i32 that is 1, or a vector that is zero, only where they hold. Gives `test`.
 */
export function marksTame(test: Value, ...facts: readonly TameFact[]): Value {
  marks.set(test, facts);
  return test;
}
export const tameFacts = (test: Value): readonly TameFact[] | undefined => marks.get(test);

/** MXCSR as arithmetic is done without looking at flags: all exceptions masked, rounding to nearest, the precision flag set. */
export const PLAIN_MASK = 0x7fa0;
export const PLAIN = 0x1fa0;

/** Says that `test` is whether MXCSR is as arithmetic is done without looking at flags. */
export function marksPlain(test: Value): Value {
  modes.add(test);
  return test;
}
export const isPlainTest = (test: Value): boolean => modes.has(test);
