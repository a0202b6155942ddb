/** Moves, broadcasts to and from memory, masked moves and gathers with a VEX prefix (SDM 2 for each). */
import type { Value } from '../../ir/builder.ts';
import { VECTOR_RESULT } from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, Vector } from './context.ts';
import { toHalves } from './fma.ts';
import { halvesOf, readHalves, readVector, writeHalves, zero } from './sse-context.ts';

const low64 = (i: Instruction, x: Value): Value => i.b.op('i64x2.extract_lane', [x], [0]);
const withLane64 = (i: Instruction, x: Value, lane: 0 | 1, value: Value): Value =>
  i.b.op('i64x2.replace_lane', [x, value], [lane]);

/** #GP(0) unless the memory operand is aligned to the vector length. */
function checkAligned(i: Instruction): void {
  const { b } = i;
  b.if(b.and(b.wrap(i.address()), b.i32(i.form.wide ? 31 : 15)), () => b.raise(Vector.GP));
}

/** Stores one or two halves; both pages are looked at first where they straddle a border. */
function store(i: Instruction, values: readonly Value[]): void {
  const { b } = i;
  if (values.length === 2)
    b.if(b.gtU(b.and(b.wrap(i.address()), b.i32(0xfff)), b.i32(4096 - 32)), () => b.leave('probe_store', i.address(), b.i32(32)));
  for (const [half, value] of values.entries()) b.store(128, half === 0 ? i.address() : b.add(i.address(), b.i64(16)), value);
}

/** A move of whole vectors, either way. */
const move =
  (aligned: boolean): Emitter =>
  (i) => {
    if (aligned && i.form.memory) checkAligned(i);
    if (i.isMemory(0)) {
      store(
        i,
        halvesOf(i).map((half) => i.b.getSlot(i.slot(1), 128, false, 'v128', 16 * half)),
      );
      return;
    }
    const { b } = i;
    const values = readHalves(i, 1);
    for (const [half, value] of values.entries()) b.putSlot(i.slot(0), 128, value, 16 * half);
    if (values.length === 1) b.putSlot(i.slot(0), 128, zero(b), 16);
  };

/** VMOVSS and VMOVSD: loads and stores, and the low lane of one register over another. */
const scalar =
  (bits: 32 | 64): Emitter =>
  (i) => {
    const { b } = i;
    if (i.isMemory(0)) {
      b.store(bits, i.address(), b.getSlot(i.slot(1), bits, false, bits === 64 ? 'f64' : 'f32'));
      return;
    }
    let value: Value;
    if (i.isMemory(1)) value = b.load(bits, i.address(), false, 'v128');
    else {
      const lane = b.getSlot(i.slot(1), bits, false, bits === 64 ? 'f64' : 'f32');
      value = b.op(bits === 64 ? 'f64x2.replace_lane' : 'f32x4.replace_lane', [readVector(i, 0), lane], [0]);
    }
    b.putSlot(i.slot(0), 128, value);
    b.putSlot(i.slot(0), 128, zero(b), 16);
  };

/** 64 bits of memory or of a register over one half of the first source. */
const half =
  (lane: 0 | 1, from: 0 | 8): Emitter =>
  (i) => {
    const { b } = i;
    const value = i.isMemory(1) ? b.load(64, i.address()) : b.getSlot(i.slot(1), 64, false, 'i64', from);
    writeHalves(i, [withLane64(i, readVector(i, 0), lane, value)]);
  };
const halfStore =
  (offset: 0 | 8): Emitter =>
  (i) =>
    i.b.store(64, i.address(), i.b.getSlot(i.slot(1), 64, false, 'i64', offset));

const SHAPE = { 8: 'i8x16', 16: 'i16x8', 32: 'i32x4', 64: 'i64x2' } as const;
/** The lowest lane of a register, or memory, in all lanes. */
const broadcast =
  (bits: 8 | 16 | 32 | 64): Emitter =>
  (i) => {
    const { b } = i;
    const lane = i.isMemory(1) ? b.load(bits, i.address()) : b.getSlot(i.slot(1), bits);
    const value = b.op(`${SHAPE[bits]}.splat`, [lane]);
    writeHalves(
      i,
      halvesOf(i).map(() => value),
    );
  };

/** Masked moves: lanes whose mask has its top bit set; the others are not looked at. */
const maskLoad =
  (bits: 32 | 64): Emitter =>
  (i) => {
    const { b } = i;
    const mask = readHalves(i, 0);
    const shape = SHAPE[bits];
    const signs = mask.map((value) => b.op(`${shape}.shr_s`, [value, b.i32(bits - 1)]));
    // Both ways below use it.
    const address = i.address();
    const all = signs.map((value) => b.op(`${shape}.all_true`, [value]));
    const values = halvesOf(i).map(() => b.variable('v128'));
    b.if(
      // Outside 64-bit mode the helper sees to segments.
      b.and(all.length === 1 ? all[0] : b.and(all[0], all[1]), i.isLong()),
      () => {
        for (const [h, value] of readHalves(i, 1).entries()) b.set(values[h], value);
      },
      () => {
        // The helper puts the lanes that are asked for into the result, and zeros elsewhere.
        b.leave('mask_load', address, b.field('c'), b.i32(bits | (i.form.wide ? 0x100 : 0)));
        for (const h of halvesOf(i)) b.set(values[h], b.state(VECTOR_RESULT + 16 * h, 128));
      },
    );
    writeHalves(
      i,
      values.map((value) => b.get(value)),
    );
  };
const maskStore =
  (bits: 32 | 64): Emitter =>
  (i) =>
    i.b.leave('mask_store', i.address(), i.b.field('c'), i.slot(1), i.b.i32(bits | (i.form.wide ? 0x100 : 0)));

/** Gathers: the helper reads base, index and scale from the record, lane by lane. */
const gather =
  (index: 32 | 64, bits: 32 | 64): Emitter =>
  (i) => {
    const { b } = i;
    const slots = [i.slot(0), b.field('c'), b.field('index')];
    const same = (x: Value, y: Value): Value => b.eq(x, y);
    // Two of the three registers the same: #UD (SDM 2, VGATHERDPS).
    const [x, y, z] = slots;
    b.if(b.or(b.or(same(x, y), same(y, z)), same(x, z)), () => b.raise(Vector.UD));
    b.leave('gather', b.i32(index | (bits << 8) | (i.form.wide ? 0x10000 : 0) | (i.form.address === 'PRE' ? 0x20000 : 0)));
  };

export const vexMoves: { readonly vectors: Record<string, Emitter>; readonly others: Record<string, Emitter> } = {
  /** Their results are written for them. */
  vectors: {
    VMOVLPS: half(0, 0),
    VMOVHPS: half(1, 0),
    VMOVLHPS: half(1, 0),
    VMOVHLPS: half(0, 8),
    VMOVDDUP(i) {
      const { b } = i;
      if (!i.form.wide) {
        const lane = i.isMemory(1) ? b.load(64, i.address()) : b.getSlot(i.slot(1), 64);
        writeHalves(i, [b.op('i64x2.splat', [lane])]);
        return;
      }
      writeHalves(
        i,
        readHalves(i, 1).map((x) => b.op('i64x2.splat', [low64(i, x)])),
      );
    },
    VBROADCASTSS: broadcast(32),
    VBROADCASTSD: broadcast(64),
    VPBROADCASTB: broadcast(8),
    VPBROADCASTW: broadcast(16),
    VPBROADCASTD: broadcast(32),
    VPBROADCASTQ: broadcast(64),
    VBROADCAST128(i) {
      const value = readVector(i, 1);
      writeHalves(i, [value, value]);
    },
    VMASKMOVPS: maskLoad(32),
    VMASKMOVPD: maskLoad(64),
    VPMASKMOVD: maskLoad(32),
    VPMASKMOVQ: maskLoad(64),
    VMOVNTDQA(i) {
      checkAligned(i);
      writeHalves(i, readHalves(i, 1));
    },
  },
  others: {
    VMOVUPS: move(false),
    VMOVUPD: move(false),
    VMOVDQU: move(false),
    VLDDQU: move(false),
    VMOVAPS: move(true),
    VMOVAPD: move(true),
    VMOVDQA: move(true),
    VMOVNTPS: move(true),
    VMOVNTPD: move(true),
    VMOVNTDQ: move(true),
    VMOVSS: scalar(32),
    VMOVSD: scalar(64),
    VMOVLPS_STORE: halfStore(0),
    VMOVHPS_STORE: halfStore(8),
    VMOVD(i) {
      const { b } = i;
      if (i.form.row.operands[0].kind === 'E') {
        i.write(0, b.getSlot(i.slot(1), i.bits(0)));
        return;
      }
      b.putSlot(i.slot(0), 128, withLane64(i, zero(b), 0, b.zext(i.read(1))));
      b.putSlot(i.slot(0), 128, zero(b), 16);
    },
    VMOVQ(i) {
      const { b } = i;
      const value = i.isMemory(1) ? b.load(64, i.address()) : b.getSlot(i.slot(1), 64);
      if (i.isMemory(0)) {
        b.store(64, i.address(), value);
        return;
      }
      b.putSlot(i.slot(0), 128, withLane64(i, zero(b), 0, value));
      b.putSlot(i.slot(0), 128, zero(b), 16);
    },
    VEXTRACTF128: extract128,
    VEXTRACTI128: extract128,
    VMASKMOVPS_STORE: maskStore(32),
    VMASKMOVPD_STORE: maskStore(64),
    VPMASKMOVD_STORE: maskStore(32),
    VPMASKMOVQ_STORE: maskStore(64),
    VPGATHERDD: gather(32, 32),
    VPGATHERDQ: gather(32, 64),
    VPGATHERQD: gather(64, 32),
    VPGATHERQQ: gather(64, 64),
    VGATHERDPS: gather(32, 32),
    VGATHERDPD: gather(32, 64),
    VGATHERQPS: gather(64, 32),
    VGATHERQPD: gather(64, 64),
    VCVTPS2PH: toHalves,
  },
};

function extract128(i: Instruction): void {
  const { b } = i;
  const low = b.getSlot(i.slot(1), 128, false, 'v128');
  const high = b.getSlot(i.slot(1), 128, false, 'v128', 16);
  const value = b.op('v128.select', [high, low, b.and(b.field('imm'), b.i32(1))]);
  if (i.isMemory(0)) {
    b.store(128, i.address(), value);
    return;
  }
  b.putSlot(i.slot(0), 128, value);
  b.putSlot(i.slot(0), 128, zero(b), 16);
}
