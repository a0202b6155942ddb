/**
 * The IR's pure operations: WebAssembly's own numeric instructions under their own names
 * (WebAssembly Core Specification 2.0, 5.4), so that lowering them is a table look-up and the
 * meaning of each is defined elsewhere than here.
 */

export type Type = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

export interface PureOp {
  readonly name: string;
  /** Opcode bytes; SIMD and saturating ones carry their prefix. */
  readonly code: readonly number[];
  readonly result: Type;
  readonly args: readonly Type[];
  /** Number of immediate bytes after the opcode: a lane index (1) or a shuffle mask (16). */
  readonly immediates: number;
}

const table = new Map<string, PureOp>();

function leb(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  do {
    const byte = rest & 0x7f;
    rest >>>= 7;
    out.push(rest === 0 ? byte : byte | 0x80);
  } while (rest !== 0);
  return out;
}

const letter: Record<string, Type> = { i: 'i32', l: 'i64', f: 'f32', d: 'f64', v: 'v128' };

/** Adds ops from lines of `name opcode signature`; a signature is argument letters, `:`, result letter. */
function define(prefix: number[], lines: string, immediates = 0): void {
  for (const line of lines.trim().split('\n')) {
    const [name, code, signature] = line.trim().split(/\s+/);
    const [args, result] = signature.split(':');
    const number = Number.parseInt(code, 16);
    table.set(name, {
      name,
      code: prefix.length === 0 ? [number] : [...prefix, ...leb(number)],
      result: letter[result],
      args: [...args].map((c) => letter[c]),
      immediates,
    });
  }
}

/** Numbers a run of names from `first`; a dash skips an opcode. */
function run(prefix: number[], first: number, signature: string, names: string, immediates = 0): void {
  let code = first;
  for (const name of names.trim().split(/\s+/)) {
    if (name !== '-') define(prefix, `${name} ${code.toString(16)} ${signature}`, immediates);
    code++;
  }
}

define([], 'i32.eqz 45 i:i\ni64.eqz 50 l:i');
run([], 0x46, 'ii:i', 'i32.eq i32.ne i32.lt_s i32.lt_u i32.gt_s i32.gt_u i32.le_s i32.le_u i32.ge_s i32.ge_u');
run([], 0x51, 'll:i', 'i64.eq i64.ne i64.lt_s i64.lt_u i64.gt_s i64.gt_u i64.le_s i64.le_u i64.ge_s i64.ge_u');
run([], 0x5b, 'ff:i', 'f32.eq f32.ne f32.lt f32.gt f32.le f32.ge');
run([], 0x61, 'dd:i', 'f64.eq f64.ne f64.lt f64.gt f64.le f64.ge');
run([], 0x67, 'i:i', 'i32.clz i32.ctz i32.popcnt');
run(
  [],
  0x6a,
  'ii:i',
  'i32.add i32.sub i32.mul i32.div_s i32.div_u i32.rem_s i32.rem_u i32.and i32.or i32.xor i32.shl i32.shr_s i32.shr_u i32.rotl i32.rotr',
);
run([], 0x79, 'l:l', 'i64.clz i64.ctz i64.popcnt');
run(
  [],
  0x7c,
  'll:l',
  'i64.add i64.sub i64.mul i64.div_s i64.div_u i64.rem_s i64.rem_u i64.and i64.or i64.xor i64.shl i64.shr_s i64.shr_u i64.rotl i64.rotr',
);
run([], 0x8b, 'f:f', 'f32.abs f32.neg f32.ceil f32.floor f32.trunc f32.nearest f32.sqrt');
run([], 0x92, 'ff:f', 'f32.add f32.sub f32.mul f32.div f32.min f32.max f32.copysign');
run([], 0x99, 'd:d', 'f64.abs f64.neg f64.ceil f64.floor f64.trunc f64.nearest f64.sqrt');
run([], 0xa0, 'dd:d', 'f64.add f64.sub f64.mul f64.div f64.min f64.max f64.copysign');
define([], `i32.wrap_i64 a7 l:i
  i64.extend_i32_s ac i:l
  i64.extend_i32_u ad i:l
  f32.convert_i32_s b2 i:f
  f32.convert_i32_u b3 i:f
  f32.convert_i64_s b4 l:f
  f32.demote_f64 b6 d:f
  f64.convert_i32_s b7 i:d
  f64.convert_i32_u b8 i:d
  f64.convert_i64_s b9 l:d
  f64.promote_f32 bb f:d
  i32.reinterpret_f32 bc f:i
  i64.reinterpret_f64 bd d:l
  f32.reinterpret_i32 be i:f
  f64.reinterpret_i64 bf l:d
  i32.extend8_s c0 i:i
  i32.extend16_s c1 i:i
  i64.extend8_s c2 l:l
  i64.extend16_s c3 l:l
  i64.extend32_s c4 l:l`);
define([0xfc], 'i32.trunc_sat_f32_s 0 f:i\ni32.trunc_sat_f64_s 2 d:i\ni64.trunc_sat_f32_s 4 f:l\ni64.trunc_sat_f64_s 6 d:l');

define([], 'i32.select 1b iii:i\ni64.select 1b lli:l\nf32.select 1b ffi:f\nf64.select 1b ddi:d');
table.set('v128.select', {
  name: 'v128.select',
  code: [0x1c, 0x01, 0x7b],
  result: 'v128',
  args: ['v128', 'v128', 'i32'],
  immediates: 0,
});

const SIMD = [0xfd];
run(SIMD, 0x0d, 'vv:v', 'i8x16.shuffle', 16);
run(SIMD, 0x0e, 'vv:v', 'i8x16.swizzle');
define(
  SIMD,
  `i8x16.splat f i:v
  i16x8.splat 10 i:v
  i32x4.splat 11 i:v
  i64x2.splat 12 l:v
  f32x4.splat 13 f:v
  f64x2.splat 14 d:v`,
);
define(
  SIMD,
  `i8x16.extract_lane_s 15 v:i
  i8x16.extract_lane_u 16 v:i
  i8x16.replace_lane 17 vi:v
  i16x8.extract_lane_s 18 v:i
  i16x8.extract_lane_u 19 v:i
  i16x8.replace_lane 1a vi:v
  i32x4.extract_lane 1b v:i
  i32x4.replace_lane 1c vi:v
  i64x2.extract_lane 1d v:l
  i64x2.replace_lane 1e vl:v
  f32x4.extract_lane 1f v:f
  f32x4.replace_lane 20 vf:v
  f64x2.extract_lane 21 v:d
  f64x2.replace_lane 22 vd:v`,
  1,
);
const integerCompare = (shape: string): string =>
  ['eq', 'ne', 'lt_s', 'lt_u', 'gt_s', 'gt_u', 'le_s', 'le_u', 'ge_s', 'ge_u'].map((op) => `${shape}.${op}`).join(' ');
run(SIMD, 0x23, 'vv:v', [integerCompare('i8x16'), integerCompare('i16x8'), integerCompare('i32x4')].join(' '));
run(SIMD, 0x41, 'vv:v', 'f32x4.eq f32x4.ne f32x4.lt f32x4.gt f32x4.le f32x4.ge');
run(SIMD, 0x47, 'vv:v', 'f64x2.eq f64x2.ne f64x2.lt f64x2.gt f64x2.le f64x2.ge');
define(SIMD, 'v128.not 4d v:v');
run(SIMD, 0x4e, 'vv:v', 'v128.and v128.andnot v128.or v128.xor');
define(SIMD, 'v128.bitselect 52 vvv:v\nv128.any_true 53 v:i');
run(SIMD, 0x5e, 'v:v', 'f32x4.demote_f64x2_zero f64x2.promote_low_f32x4 i8x16.abs i8x16.neg i8x16.popcnt');
run(SIMD, 0x63, 'v:i', 'i8x16.all_true i8x16.bitmask');
run(SIMD, 0x65, 'vv:v', 'i8x16.narrow_i16x8_s i8x16.narrow_i16x8_u');
run(SIMD, 0x67, 'v:v', 'f32x4.ceil f32x4.floor f32x4.trunc f32x4.nearest');
run(SIMD, 0x6b, 'vi:v', 'i8x16.shl i8x16.shr_s i8x16.shr_u');
run(SIMD, 0x6e, 'vv:v', 'i8x16.add i8x16.add_sat_s i8x16.add_sat_u i8x16.sub i8x16.sub_sat_s i8x16.sub_sat_u');
run(SIMD, 0x74, 'v:v', 'f64x2.ceil f64x2.floor');
run(SIMD, 0x76, 'vv:v', 'i8x16.min_s i8x16.min_u i8x16.max_s i8x16.max_u - i8x16.avgr_u');
run(
  SIMD,
  0x7a,
  'v:v',
  'f64x2.trunc - i16x8.extadd_pairwise_i8x16_s i16x8.extadd_pairwise_i8x16_u i32x4.extadd_pairwise_i16x8_s i32x4.extadd_pairwise_i16x8_u i16x8.abs i16x8.neg',
);
run(SIMD, 0x82, 'vv:v', 'i16x8.q15mulr_sat_s');
run(SIMD, 0x83, 'v:i', 'i16x8.all_true i16x8.bitmask');
run(SIMD, 0x85, 'vv:v', 'i16x8.narrow_i32x4_s i16x8.narrow_i32x4_u');
run(SIMD, 0x87, 'v:v', 'i16x8.extend_low_i8x16_s i16x8.extend_high_i8x16_s i16x8.extend_low_i8x16_u i16x8.extend_high_i8x16_u');
run(SIMD, 0x8b, 'vi:v', 'i16x8.shl i16x8.shr_s i16x8.shr_u');
run(SIMD, 0x8e, 'vv:v', 'i16x8.add i16x8.add_sat_s i16x8.add_sat_u i16x8.sub i16x8.sub_sat_s i16x8.sub_sat_u');
run(SIMD, 0x94, 'v:v', 'f64x2.nearest');
run(
  SIMD,
  0x95,
  'vv:v',
  'i16x8.mul i16x8.min_s i16x8.min_u i16x8.max_s i16x8.max_u - i16x8.avgr_u i16x8.extmul_low_i8x16_s i16x8.extmul_high_i8x16_s i16x8.extmul_low_i8x16_u i16x8.extmul_high_i8x16_u',
);
run(SIMD, 0xa0, 'v:v', 'i32x4.abs i32x4.neg');
run(SIMD, 0xa3, 'v:i', 'i32x4.all_true i32x4.bitmask');
run(SIMD, 0xa7, 'v:v', 'i32x4.extend_low_i16x8_s i32x4.extend_high_i16x8_s i32x4.extend_low_i16x8_u i32x4.extend_high_i16x8_u');
run(SIMD, 0xab, 'vi:v', 'i32x4.shl i32x4.shr_s i32x4.shr_u');
run(
  SIMD,
  0xae,
  'vv:v',
  'i32x4.add - - i32x4.sub - - - i32x4.mul i32x4.min_s i32x4.min_u i32x4.max_s i32x4.max_u i32x4.dot_i16x8_s - i32x4.extmul_low_i16x8_s i32x4.extmul_high_i16x8_s i32x4.extmul_low_i16x8_u i32x4.extmul_high_i16x8_u',
);
run(SIMD, 0xc0, 'v:v', 'i64x2.abs i64x2.neg');
run(SIMD, 0xc3, 'v:i', 'i64x2.all_true i64x2.bitmask');
run(SIMD, 0xc7, 'v:v', 'i64x2.extend_low_i32x4_s i64x2.extend_high_i32x4_s i64x2.extend_low_i32x4_u i64x2.extend_high_i32x4_u');
run(SIMD, 0xcb, 'vi:v', 'i64x2.shl i64x2.shr_s i64x2.shr_u');
run(
  SIMD,
  0xce,
  'vv:v',
  'i64x2.add - - i64x2.sub - - - i64x2.mul i64x2.eq i64x2.ne i64x2.lt_s i64x2.gt_s i64x2.le_s i64x2.ge_s i64x2.extmul_low_i32x4_s i64x2.extmul_high_i32x4_s i64x2.extmul_low_i32x4_u i64x2.extmul_high_i32x4_u',
);
run(SIMD, 0xe0, 'v:v', 'f32x4.abs f32x4.neg - f32x4.sqrt');
run(SIMD, 0xe4, 'vv:v', 'f32x4.add f32x4.sub f32x4.mul f32x4.div f32x4.min f32x4.max f32x4.pmin f32x4.pmax');
run(SIMD, 0xec, 'v:v', 'f64x2.abs f64x2.neg - f64x2.sqrt');
run(SIMD, 0xf0, 'vv:v', 'f64x2.add f64x2.sub f64x2.mul f64x2.div f64x2.min f64x2.max f64x2.pmin f64x2.pmax');
run(
  SIMD,
  0xf8,
  'v:v',
  'i32x4.trunc_sat_f32x4_s i32x4.trunc_sat_f32x4_u f32x4.convert_i32x4_s f32x4.convert_i32x4_u i32x4.trunc_sat_f64x2_s_zero i32x4.trunc_sat_f64x2_u_zero f64x2.convert_low_i32x4_s f64x2.convert_low_i32x4_u',
);

run(SIMD, 0x105, 'vvv:v', 'f32x4.relaxed_madd f32x4.relaxed_nmadd f64x2.relaxed_madd f64x2.relaxed_nmadd');

/** (x, y, z: f64): x * y + z by `f64x2.relaxed_madd`. */
const MULTIPLY_ADD = Uint8Array.of(
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 8, 1, 0x60, 3, 0x7c, 0x7c, 0x7c, 1, 0x7c, 3, 2, 1, 0, 7, 5, 1, 1, 0x66, 0, 0],
  ...[10, 0x16, 1, 0x14, 0, 0x20, 0, 0xfd, 0x14, 0x20, 1, 0xfd, 0x14, 0x20, 2, 0xfd, 0x14, 0xfd, 0x87, 2, 0xfd, 0x21, 0, 0x0b],
);

/**
 * Whether the `relaxed_madd` operations round once (WebAssembly Relaxed SIMD leaves it open): they do where the host's
 * processor has an instruction for it. The evaluator always rounds once.
 */
export const fusesMultiplyAdd: boolean = (() => {
  if (!WebAssembly.validate(MULTIPLY_ADD)) return false;
  const { f } = new WebAssembly.Instance(new WebAssembly.Module(MULTIPLY_ADD)).exports;
  const small = 2 ** -27;
  return (f as (x: number, y: number, z: number) => number)(1 + small, 1 - small, -1) === -(2 ** -54);
})();

/** The pure operation of that name; an unknown name is a broken invariant of an emitter. */
export function pureOp(name: string): PureOp {
  const op = table.get(name);
  if (op === undefined) throw new Error(`IR: no operation ${name}`);
  return op;
}

export const pureOps: ReadonlyMap<string, PureOp> = table;
