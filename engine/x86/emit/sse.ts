/** The emitters of all rows of `decode/tables-sse.ts`, by mnemonic. Their helpers are in `fpu/sse-helpers`. */
import type { Emitter } from './context.ts';
import { vectors } from './sse-context.ts';
import { sseConversions } from './sse-convert.ts';
import { sseFloats } from './sse-float.ts';
import { sseInteger } from './sse-integer.ts';
import { sseMoves } from './sse-move.ts';
import { sseShuffles } from './sse-shuffle.ts';
import { sseSpecial } from './sse-special.ts';

export const sse: Record<string, Emitter> = vectors({
  ...sseMoves,
  ...sseInteger,
  ...sseShuffles,
  ...sseFloats,
  ...sseConversions,
  ...sseSpecial,
});
