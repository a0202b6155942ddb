/** The emitters of all rows of `decode/tables-sse.ts`, by mnemonic. */
import type { Emitter } from './context.ts';
import { sseInteger } from './sse-integer.ts';
import { sseMoves } from './sse-move.ts';
import { sseShuffles } from './sse-shuffle.ts';

export const sse: Record<string, Emitter> = { ...sseMoves, ...sseInteger, ...sseShuffles };
