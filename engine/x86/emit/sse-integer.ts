/** Vector integer arithmetic, compares, logic and shifts (SDM 1, 9.4, 10.4.4, 11.4.2, 12; SDM 2 for each). */
import type { Builder, Value } from '../../ir/builder.ts';
import type { Emitter, Instruction } from './context.ts';
import { atMost, immediate, isMmxOperand, lanes, readVector, writeVector, zero } from './sse-context.ts';

type Compute = (b: Builder, x: Value, y: Value) => Value;

/** Destination and source in, destination out. */
const binary =
  (compute: Compute): Emitter =>
  (i) => {
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    writeVector(i, 0, compute(i.b, x, y));
  };
/** A binary instruction that is one WebAssembly instruction. */
const plain = (name: string): Emitter => binary((b, x, y) => b.op(name, [x, y]));
/** Source in, destination out. */
const unary =
  (compute: (b: Builder, x: Value) => Value): Emitter =>
  (i) =>
    writeVector(i, 0, compute(i.b, readVector(i, 1)));

/** Bytes of lanes `order` (of 32 in two vectors) of `bytes` each. */
export const pick = (bytes: number, order: readonly number[]): number[] =>
  order.flatMap((lane) => Array.from({ length: bytes }, (_, n) => lane * bytes + n));

/** Low 64 bits of x and of y side by side. */
export const join = (b: Builder, x: Value, y: Value): Value => b.op('i8x16.shuffle', [x, y], pick(8, [0, 2]));

/** Even and odd lanes of x then y; of an MMX pair, in the low half. */
function pairs(i: Instruction, x: Value, y: Value, bytes: number): { even: Value; odd: Value } {
  const { b } = i;
  const [u, v] = isMmxOperand(i, 0) ? [join(b, x, y), zero(b)] : [x, y];
  const half = Array.from({ length: 16 / bytes }, (_, n) => 2 * n);
  return {
    even: b.op('i8x16.shuffle', [u, v], pick(bytes, half)),
    odd: b.op(
      'i8x16.shuffle',
      [u, v],
      pick(
        bytes,
        half.map((n) => n + 1),
      ),
    ),
  };
}

const horizontal =
  (name: string, bytes: number): Emitter =>
  (i) => {
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const { even, odd } = pairs(i, x, y, bytes);
    writeVector(i, 0, i.b.op(name, [even, odd]));
  };

/** Negates, clears or keeps lanes of x by the sign of y. */
const sign = (shape: string): Emitter =>
  binary((b, x, y) => {
    const negative = b.op(`${shape}.lt_s`, [y, zero(b)]);
    const turned = b.op(`${shape}.sub`, [b.xor(x, negative), negative]);
    return b.op('v128.andnot', [turned, b.op(`${shape}.eq`, [y, zero(b)])]);
  });

/** Narrowing of x then y; an MMX pair is put together first. */
const pack =
  (name: string): Emitter =>
  (i) => {
    const { b } = i;
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    if (isMmxOperand(i, 0)) {
      const both = join(b, x, y);
      writeVector(i, 0, b.op(name, [both, both]));
    } else writeVector(i, 0, b.op(name, [x, y]));
  };

/** High halves of the 16-bit products. */
const mulHigh = (suffix: 's' | 'u'): Emitter =>
  binary((b, x, y) =>
    b.op(
      'i8x16.shuffle',
      [b.op(`i32x4.extmul_low_i16x8_${suffix}`, [x, y]), b.op(`i32x4.extmul_high_i16x8_${suffix}`, [x, y])],
      pick(2, [1, 3, 5, 7, 9, 11, 13, 15]),
    ),
  );

/** Products of the even 32-bit lanes. */
const mulEven = (suffix: 's' | 'u'): Emitter =>
  binary((b, x, y) => {
    const even = (v: Value): Value => b.op('i8x16.shuffle', [v, v], pick(4, [0, 2, 0, 2]));
    return b.op(`i64x2.extmul_low_i32x4_${suffix}`, [even(x), even(y)]);
  });

/** Shifts by a count in an immediate or in the low 64 bits of a vector; counts past the width shift everything out. */
const shift =
  (shape: string, verb: 'shl' | 'shr_u' | 'shr_s', width: number): Emitter =>
  (i) => {
    const { b } = i;
    let count: Value;
    if (i.form.row.operands[1].kind === 'I') count = immediate(i);
    else {
      const wide = b.op('i64x2.extract_lane', [readVector(i, 1)], [0]);
      count = b.wrap(b.select(b.ltU(wide, b.i64(width)), wide, b.i64(width)));
    }
    const x = readVector(i, 0);
    if (verb === 'shr_s') {
      writeVector(i, 0, b.op(`${shape}.shr_s`, [x, atMost(b, count, width - 1)]));
      return;
    }
    writeVector(i, 0, b.op('v128.select', [b.op(`${shape}.${verb}`, [x, count]), zero(b), b.ltU(count, b.i32(width))]));
  };

/** Sum of absolute differences of unsigned bytes, in each half. */
const sumOfDifferences: Compute = (b, x, y) => {
  const difference = b.op('i8x16.sub', [b.op('i8x16.max_u', [x, y]), b.op('i8x16.min_u', [x, y])]);
  const words = b.op('i16x8.extadd_pairwise_i8x16_u', [difference]);
  const doubles = b.op('i32x4.extadd_pairwise_i16x8_u', [words]);
  const low = b.op('v128.and', [doubles, lanes(b, 64, [0xffffffffn, 0xffffffffn])]);
  return b.op('i64x2.add', [low, b.op('i64x2.shr_u', [doubles, b.i32(32)])]);
};

/** Unsigned bytes of x times signed bytes of y, neighbours added with saturation. */
const multiplyAddBytes: Compute = (b, x, y) => {
  const c8 = b.i32(8);
  const even = b.op('i16x8.mul', [
    b.op('v128.and', [x, b.op('i16x8.splat', [b.i32(0xff)])]),
    b.op('i16x8.shr_s', [b.op('i16x8.shl', [y, c8]), c8]),
  ]);
  const odd = b.op('i16x8.mul', [b.op('i16x8.shr_u', [x, c8]), b.op('i16x8.shr_s', [y, c8])]);
  return b.op('i16x8.add_sat_s', [even, odd]);
};

/** Rounded high products; unlike WebAssembly's, -1 times -1 wraps. */
const multiplyRound: Compute = (b, x, y) => {
  const least = b.op('i16x8.splat', [b.i32(-0x8000)]);
  const wraps = b.op('v128.and', [b.op('i16x8.eq', [x, least]), b.op('i16x8.eq', [y, least])]);
  return b.op('v128.xor', [b.op('i16x8.q15mulr_sat_s', [x, y]), wraps]);
};

const and = plain('v128.and');
const or = plain('v128.or');
const xor: Emitter = binary((b, x, y) => b.op('v128.xor', [x, y]));
const andNot = binary((b, x, y) => b.op('v128.andnot', [y, x]));

export const sseInteger: Record<string, Emitter> = {
  PADDB: plain('i8x16.add'),
  PADDW: plain('i16x8.add'),
  PADDD: plain('i32x4.add'),
  PADDQ: plain('i64x2.add'),
  PSUBB: plain('i8x16.sub'),
  PSUBW: plain('i16x8.sub'),
  PSUBD: plain('i32x4.sub'),
  PSUBQ: plain('i64x2.sub'),
  PADDSB: plain('i8x16.add_sat_s'),
  PADDSW: plain('i16x8.add_sat_s'),
  PADDUSB: plain('i8x16.add_sat_u'),
  PADDUSW: plain('i16x8.add_sat_u'),
  PSUBSB: plain('i8x16.sub_sat_s'),
  PSUBSW: plain('i16x8.sub_sat_s'),
  PSUBUSB: plain('i8x16.sub_sat_u'),
  PSUBUSW: plain('i16x8.sub_sat_u'),
  PMINUB: plain('i8x16.min_u'),
  PMAXUB: plain('i8x16.max_u'),
  PMINSW: plain('i16x8.min_s'),
  PMAXSW: plain('i16x8.max_s'),
  PMINSB: plain('i8x16.min_s'),
  PMAXSB: plain('i8x16.max_s'),
  PMINUW: plain('i16x8.min_u'),
  PMAXUW: plain('i16x8.max_u'),
  PMINSD: plain('i32x4.min_s'),
  PMAXSD: plain('i32x4.max_s'),
  PMINUD: plain('i32x4.min_u'),
  PMAXUD: plain('i32x4.max_u'),
  PAVGB: plain('i8x16.avgr_u'),
  PAVGW: plain('i16x8.avgr_u'),
  PCMPEQB: plain('i8x16.eq'),
  PCMPEQW: plain('i16x8.eq'),
  PCMPEQD: plain('i32x4.eq'),
  PCMPEQQ: plain('i64x2.eq'),
  PCMPGTB: plain('i8x16.gt_s'),
  PCMPGTW: plain('i16x8.gt_s'),
  PCMPGTD: plain('i32x4.gt_s'),
  PCMPGTQ: plain('i64x2.gt_s'),
  PMULLW: plain('i16x8.mul'),
  PMULLD: plain('i32x4.mul'),
  PMADDWD: plain('i32x4.dot_i16x8_s'),
  PMULHW: mulHigh('s'),
  PMULHUW: mulHigh('u'),
  PMULUDQ: mulEven('u'),
  PMULDQ: mulEven('s'),
  PMULHRSW: binary(multiplyRound),
  PMADDUBSW: binary(multiplyAddBytes),
  PSADBW: binary(sumOfDifferences),
  PABSB: unary((b, x) => b.op('i8x16.abs', [x])),
  PABSW: unary((b, x) => b.op('i16x8.abs', [x])),
  PABSD: unary((b, x) => b.op('i32x4.abs', [x])),
  PSIGNB: sign('i8x16'),
  PSIGNW: sign('i16x8'),
  PSIGND: sign('i32x4'),
  PHADDW: horizontal('i16x8.add', 2),
  PHADDD: horizontal('i32x4.add', 4),
  PHADDSW: horizontal('i16x8.add_sat_s', 2),
  PHSUBW: horizontal('i16x8.sub', 2),
  PHSUBD: horizontal('i32x4.sub', 4),
  PHSUBSW: horizontal('i16x8.sub_sat_s', 2),
  PACKSSWB: pack('i8x16.narrow_i16x8_s'),
  PACKUSWB: pack('i8x16.narrow_i16x8_u'),
  PACKSSDW: pack('i16x8.narrow_i32x4_s'),
  PACKUSDW: pack('i16x8.narrow_i32x4_u'),
  PAND: and,
  ANDPS: and,
  ANDPD: and,
  PANDN: andNot,
  ANDNPS: andNot,
  ANDNPD: andNot,
  POR: or,
  ORPS: or,
  ORPD: or,
  PXOR: xor,
  XORPS: xor,
  XORPD: xor,
  PSLLW: shift('i16x8', 'shl', 16),
  PSLLD: shift('i32x4', 'shl', 32),
  PSLLQ: shift('i64x2', 'shl', 64),
  PSRLW: shift('i16x8', 'shr_u', 16),
  PSRLD: shift('i32x4', 'shr_u', 32),
  PSRLQ: shift('i64x2', 'shr_u', 64),
  PSRAW: shift('i16x8', 'shr_s', 16),
  PSRAD: shift('i32x4', 'shr_s', 32),
  /** ZF: no bit in common; CF: no bit of the source outside the destination; the others are cleared. */
  PTEST(i) {
    const { b } = i;
    const y = readVector(i, 1);
    const x = readVector(i, 0);
    const zf = b.eqz(b.op('v128.any_true', [b.op('v128.and', [x, y])]));
    const cf = b.eqz(b.op('v128.any_true', [b.op('v128.andnot', [y, x])]));
    b.putFlags(b.or(cf, b.shl(zf, b.i32(6))));
  },
  /** The least of eight words and where it is first. */
  PHMINPOSUW(i) {
    const { b } = i;
    const x = readVector(i, 1);
    let least = x;
    for (const distance of [4, 2, 1]) {
      const turned = b.op(
        'i8x16.shuffle',
        [least, least],
        pick(
          2,
          [0, 1, 2, 3, 4, 5, 6, 7].map((n) => (n + distance) & 7),
        ),
      );
      least = b.op('i16x8.min_u', [least, turned]);
    }
    const index = b.op('i32.ctz', [b.op('i16x8.bitmask', [b.op('i16x8.eq', [x, least])])]);
    const result = b.or(b.op('i16x8.extract_lane_u', [least], [0]), b.shl(index, b.i32(16)));
    writeVector(i, 0, b.op('i32x4.replace_lane', [zero(b), result], [0]));
  },
};
