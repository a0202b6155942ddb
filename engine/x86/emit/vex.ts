/**
 * The emitters of the VEX-encoded vector instructions (`AVX` in `decode/tables-vex.ts`), by mnemonic.
 *
 * Most are their SSE twins run on one or two halves of 128 bits: `V` before the name. Their results are kept in
 * variables until all of them are there, since a fault must leave the destination alone; then the destination is written
 * and what is above it cleared (SDM 1, 14.3).
 */
import type { Value } from '../../ir/builder.ts';
import { MXCSR, VECTOR, VECTOR_STRIDE } from '../../memory/vcpu-state.ts';
import type { Emitter, Instruction } from './context.ts';
import { fused } from './fma.ts';
import { checkAvx, halvesOf, readHalves, zero } from './sse-context.ts';
import { sseConversions } from './sse-convert.ts';
import { sseFloats } from './sse-float.ts';
import { sseInteger } from './sse-integer.ts';
import { sseMoves } from './sse-move.ts';
import { sseShuffles } from './sse-shuffle.ts';
import { sseSpecial } from './sse-special.ts';
import { vexMoves } from './vex-move.ts';
import { vexShuffles } from './vex-shuffle.ts';

/** Runs `emit` on each half by itself, or once where it sees to halves itself, then writes the destination. */
const vector =
  (emit: Emitter, each: boolean): Emitter =>
  (i) => {
    const { b } = i;
    checkAvx(i);
    const results = ([0, 1] as const).map(() => b.variable('v128'));
    i.results = results;
    const { kind, size } = i.form.row.operands[0];
    // A vector of 128 bits is all that there is of a narrower conversion's result.
    const wide = i.form.wide && size !== 'o';
    const slot = kind === 'V' || kind === 'H' || kind === 'U' ? i.slot(0) : undefined;
    const complete = (): void => {
      if (slot === undefined) return;
      b.putSlot(slot, 128, b.get(results[0]));
      b.putSlot(slot, 128, wide ? b.get(results[1]) : zero(b), 16);
    };
    i.complete = complete;
    for (const half of each ? halvesOf(i) : [0 as const]) {
      i.half = half;
      emit(i);
    }
    i.results = undefined;
    complete();
  };

/** An instruction whose destination is no vector register, or that writes it by itself. */
const other =
  (emit: Emitter): Emitter =>
  (i) => {
    checkAvx(i);
    emit(i);
  };

const named = (emitters: Record<string, Emitter>, wrap: (emit: Emitter) => Emitter): Record<string, Emitter> =>
  Object.fromEntries(Object.entries(emitters).map(([name, emit]) => [`V${name}`, wrap(emit)]));

/** Sign bits of the lanes of both halves, the upper half's after the lower's. */
const signBits =
  (shape: 'i8x16' | 'i32x4' | 'i64x2', lanes: number): Emitter =>
  (i) => {
    const { b } = i;
    const [low, high] = readHalves(i, 1).map((value) => b.op(`${shape}.bitmask`, [value]));
    i.write(0, high === undefined ? low : b.or(low, b.shl(high, b.i32(lanes))));
  };

/** ZF: no bit in common; CF: no bit of the source outside of the destination. `width`: of lanes whose top bits alone count. */
const test =
  (width: 32 | 64 | undefined): Emitter =>
  (i) => {
    const { b } = i;
    const y = readHalves(i, 1);
    const x = readHalves(i, 0);
    const any = (op: 'and' | 'andnot'): Value => {
      const found = x.map((u, half) => {
        const common = op === 'and' ? b.op('v128.and', [u, y[half]]) : b.op('v128.andnot', [y[half], u]);
        if (width === undefined) return b.op('v128.any_true', [common]);
        return b.op(width === 32 ? 'i32x4.bitmask' : 'i64x2.bitmask', [common]);
      });
      return b.eqz(found.length === 1 ? found[0] : b.or(found[0], found[1]));
    };
    b.putFlags(b.or(any('andnot'), b.shl(any('and'), b.i32(6))));
  };

/** Clears the upper halves of the vector registers that the mode has, or all of them. */
const clear =
  (all: boolean): Emitter =>
  (i) => {
    const { b } = i;
    checkAvx(i);
    const none = zero(b);
    const registers = (from: number, to: number): void => {
      for (let n = from; n < to; n++) {
        if (all) b.setState(VECTOR + VECTOR_STRIDE * n, 128, none);
        b.setState(VECTOR + VECTOR_STRIDE * n + 16, 128, none);
      }
    };
    registers(0, 8);
    b.if(i.isLong(), () => registers(8, 16));
  };

const once = (emit: Emitter): Emitter => vector(emit, false);
const each = (emit: Emitter): Emitter => vector(emit, true);
const sseOnce = { ...sseFloats, ...sseConversions };
const toGeneral = /^V(CVTT?S[SD]2SI|U?COMIS[SD])$/;

export const vex: Record<string, Emitter> = {
  ...named({ ...sseInteger, ...sseShuffles, ...sseMoves, ...sseSpecial }, each),
  ...Object.fromEntries(
    Object.entries(sseOnce).map(([name, emit]) => [`V${name}`, toGeneral.test(`V${name}`) ? other(emit) : once(emit)]),
  ),
  ...Object.fromEntries(Object.entries(fused).map(([name, emit]) => [name, once(emit)])),
  ...Object.fromEntries(Object.entries(vexShuffles).map(([name, emit]) => [name, once(emit)])),
  ...Object.fromEntries(Object.entries(vexMoves.vectors).map(([name, emit]) => [name, once(emit)])),
  ...Object.fromEntries(Object.entries(vexMoves.others).map(([name, emit]) => [name, other(emit)])),
  ...Object.fromEntries(
    (['PEXTRB', 'PEXTRW', 'PEXTR', 'EXTRACTPS'] as const).map((name) => [`V${name}`, other(sseShuffles[name])]),
  ),
  ...Object.fromEntries(
    (['PCMPESTRI', 'PCMPESTRM', 'PCMPISTRI', 'PCMPISTRM'] as const).map((name) => [`V${name}`, other(sseSpecial[name])]),
  ),
  VMASKMOVDQU: other(sseMoves.MASKMOVDQU),
  VPMOVMSKB: other(signBits('i8x16', 16)),
  VMOVMSKPS: other(signBits('i32x4', 4)),
  VMOVMSKPD: other(signBits('i64x2', 2)),
  VPTEST: other(test(undefined)),
  VTESTPS: other(test(32)),
  VTESTPD: other(test(64)),
  VZEROUPPER: clear(false),
  VZEROALL: clear(true),
  VLDMXCSR: (i: Instruction) => {
    checkAvx(i);
    i.b.leave('ldmxcsr', i.b.load(32, i.address()));
  },
  VSTMXCSR: (i: Instruction) => {
    checkAvx(i);
    i.b.store(32, i.address(), i.b.state(MXCSR, 32));
  },
};
