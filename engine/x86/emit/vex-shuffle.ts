/** Rearrangements that only VEX has: across the halves, by variable controls, and shifts lane by lane (SDM 2 for each). */
import type { Value } from '../../ir/builder.ts';
import type { Emitter, Instruction } from './context.ts';
import { halvesOf, immediate, known, lanes, readHalves, readVector, writeHalves, zero } from './sse-context.ts';
import { pick } from './sse-integer.ts';
import { laneMask } from './sse-shuffle.ts';

const swizzle = (i: Instruction, x: Value, control: Value): Value => i.b.op('i8x16.swizzle', [x, control]);

/** Byte indices from 32-bit lane numbers; numbers of 4 and more give zeros where `bits` above the two are kept. */
function bytesOf(i: Instruction, numbers: Value): Value {
  const { b } = i;
  const each = lanes(b, 32, [0x04040404, 0x04040404, 0x04040404, 0x04040404]);
  const base = lanes(b, 32, [0x03020100, 0x03020100, 0x03020100, 0x03020100]);
  return b.op('i32x4.add', [b.op('i32x4.mul', [numbers, each]), base]);
}
/** Pairs of 32-bit lane numbers from 64-bit lane numbers of 0 and 1 in both words of each lane. */
function pairsOf(i: Instruction, numbers: Value): Value {
  const { b } = i;
  const twice = b.op('i32x4.add', [numbers, numbers]);
  return b.op('i32x4.add', [twice, lanes(b, 32, [0, 1, 0, 1])]);
}
const four = (i: Instruction, value: number): Value => lanes(i.b, 32, [value, value, value, value]);

/** VPERMILPS: within each half, by a vector or by the immediate. */
const permuteSingles: Emitter = (i) => {
  const { b } = i;
  const variable = i.form.row.first !== undefined;
  const controls = variable ? readHalves(i, 1) : undefined;
  const values = variable ? readHalves(i, 0) : readHalves(i, 1);
  writeHalves(
    i,
    values.map((x, half) => {
      let numbers: Value;
      if (controls !== undefined) numbers = controls[half];
      else {
        const spread = b.op('i32x4.mul', [b.op('i32x4.splat', [immediate(i)]), lanes(b, 32, [64, 16, 4, 1])]);
        numbers = b.op('i32x4.shr_u', [spread, b.i32(6)]);
      }
      return swizzle(i, x, bytesOf(i, b.op('v128.and', [numbers, four(i, 3)])));
    }),
  );
};

/** VPERMILPD: bit 1 of each control, or a bit of the immediate for each lane. */
const permuteDoubles: Emitter = (i) => {
  const { b } = i;
  const variable = i.form.row.first !== undefined;
  const controls = variable ? readHalves(i, 1) : undefined;
  const values = variable ? readHalves(i, 0) : readHalves(i, 1);
  const imm = immediate(i);
  writeHalves(
    i,
    values.map((x, half) => {
      const low = b.op('i8x16.shuffle', [x, x], pick(8, [0, 0]));
      const high = b.op('i8x16.shuffle', [x, x], pick(8, [1, 1]));
      const mask =
        controls === undefined
          ? laneMask(i, 'i64x2', half === 0 ? imm : b.shrU(imm, b.i32(2)))
          : b.op('i64x2.shr_s', [b.op('i64x2.shl', [controls[half], b.i32(62)]), b.i32(63)]);
      return b.op('v128.bitselect', [high, low, mask]);
    }),
  );
};

/** Lanes of both halves of x by numbers of 0 to 7. */
function acrossSingles(i: Instruction, x: readonly Value[], numbers: Value): Value {
  const { b } = i;
  const indices = bytesOf(i, b.op('v128.and', [numbers, four(i, 3)]));
  const upper = b.op('i32x4.shr_s', [b.op('i32x4.shl', [numbers, b.i32(29)]), b.i32(31)]);
  return b.op('v128.bitselect', [swizzle(i, x[1], indices), swizzle(i, x[0], indices), upper]);
}

/** VPERMD, VPERMPS: the control is the first source. */
const permuteAcross: Emitter = (i) => {
  const x = readHalves(i, 1);
  writeHalves(
    i,
    readHalves(i, 0).map((numbers) => acrossSingles(i, x, numbers)),
  );
};

/** VPERMQ, VPERMPD: two bits of the immediate for each lane. */
const permuteQuads: Emitter = (i) => {
  const { b } = i;
  const x = readHalves(i, 1);
  const imm = immediate(i);
  const constant = known(imm);
  const results = halvesOf(i).map((half) => {
    if (constant !== undefined) {
      const order = [0, 1].map((lane) => (constant >> (4 * half + 2 * lane)) & 3);
      return b.op('i8x16.shuffle', [x[0], x[1]], pick(8, order));
    }
    const numbers = b.op('v128.and', [
      b.op('i32x4.shr_u', [
        b.op('i32x4.mul', [b.op('i32x4.splat', [b.shrU(imm, b.i32(4 * half))]), lanes(b, 32, [4, 4, 1, 1])]),
        b.i32(2),
      ]),
      four(i, 3),
    ]);
    return acrossSingles(i, x, pairsOf(i, numbers));
  });
  writeHalves(i, results);
};

/** VPERM2F128, VPERM2I128: one of four halves each, or zeros. */
const permuteHalves: Emitter = (i) => {
  const { b } = i;
  const y = readHalves(i, 1);
  const x = readHalves(i, 0);
  const imm = immediate(i);
  writeHalves(
    i,
    ([0, 4] as const).map((shift) => {
      const control = b.shrU(imm, b.i32(shift));
      const bit = (n: number): Value => b.and(control, b.i32(1 << n));
      const first = b.op('v128.select', [x[1], x[0], bit(0)]);
      const second = b.op('v128.select', [y[1], y[0], bit(0)]);
      const chosen = b.op('v128.select', [second, first, bit(1)]);
      return b.op('v128.select', [zero(b), chosen, bit(3)]);
    }),
  );
};

const insertHalf: Emitter = (i) => {
  const { b } = i;
  const y = readVector(i, 1);
  const x = readHalves(i, 0);
  const upper = b.and(immediate(i), b.i32(1));
  writeHalves(i, [b.op('v128.select', [x[0], y, upper]), b.op('v128.select', [y, x[1], upper])]);
};

const blendDoublewords: Emitter = (i) => {
  const { b } = i;
  const y = readHalves(i, 1);
  const x = readHalves(i, 0);
  const imm = immediate(i);
  writeHalves(
    i,
    x.map((value, half) => {
      const mask = laneMask(i, 'i32x4', half === 0 ? imm : b.shrU(imm, b.i32(4)));
      return b.op('v128.bitselect', [y[half], value, mask]);
    }),
  );
};

/** Shifts whose counts are lanes: past the width everything is shifted out. */
const shiftLanes =
  (bits: 32 | 64, verb: 'shl' | 'shr_u' | 'shr_s'): Emitter =>
  (i) => {
    const { b } = i;
    const shape = bits === 32 ? 'i32x4' : 'i64x2';
    const counts = readHalves(i, 1);
    const integer = (value: number): Value => (bits === 32 ? b.i32(value) : b.i64(value));
    writeHalves(
      i,
      readHalves(i, 0).map((x, half) => {
        let result = zero(b);
        for (let lane = 0; lane < 128 / bits; lane++) {
          const value = b.op(`${shape}.extract_lane`, [x], [lane]);
          const count = b.op(`${shape}.extract_lane`, [counts[half]], [lane]);
          const fits = b.ltU(count, integer(bits));
          const moved =
            verb === 'shr_s'
              ? b.shrS(value, b.select(fits, count, integer(bits - 1)))
              : b.select(fits, verb === 'shl' ? b.shl(value, count) : b.shrU(value, count), integer(0));
          result = b.op(`${shape}.replace_lane`, [result, moved], [lane]);
        }
        return result;
      }),
    );
  };

export const vexShuffles: Record<string, Emitter> = {
  VPERMILPS: permuteSingles,
  VPERMILPD: permuteDoubles,
  VPERMD: permuteAcross,
  VPERMPS: permuteAcross,
  VPERMQ: permuteQuads,
  VPERMPD: permuteQuads,
  VPERM2F128: permuteHalves,
  VPERM2I128: permuteHalves,
  VINSERTF128: insertHalf,
  VINSERTI128: insertHalf,
  VPBLENDD: blendDoublewords,
  VPSLLVD: shiftLanes(32, 'shl'),
  VPSLLVQ: shiftLanes(64, 'shl'),
  VPSRLVD: shiftLanes(32, 'shr_u'),
  VPSRLVQ: shiftLanes(64, 'shr_u'),
  VPSRAVD: shiftLanes(32, 'shr_s'),
};
