/** Vector moves (SDM 1, 9.4.1, 10.4.1, 11.4.1; SDM 2 for each). */
import type { Value } from '../../ir/builder.ts';
import { SEG_ACCESS, SEG_BASE, SEG_HIGH, SEG_LOW, TEMP } from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, RDI } from './context.ts';
import { isMmxOperand, mmxWritten, readVector, writeVector } from './sse-context.ts';

const aligned: Emitter = (i) => writeVector(i, 0, readVector(i, 1));
const unaligned: Emitter = (i) => writeVector(i, 0, readVector(i, 1, true), true);

/** Scalar moves between registers, and to memory, leave the rest of the destination; from memory they clear it. */
const scalarLoad: Emitter = (i) => {
  const { b } = i;
  b.putSlot(i.slot(0), 128, b.load(i.bits(1), i.address(), false, 'v128'));
};
const scalar: Emitter = (i) => {
  const { b } = i;
  const bits = i.bits(0);
  // As a number: in a region it is in a vector register and stays there.
  const value = b.getSlot(i.slot(1), bits, false, bits === 64 ? 'f64' : 'f32');
  if (i.isMemory(0)) b.store(bits, i.address(), value);
  else b.putSlot(i.slot(0), bits, value);
};

/** Low or high half of a register to or from 64 bits of memory. */
const half =
  (offset: number): Emitter =>
  (i) => {
    const { b } = i;
    if (i.isMemory(0)) b.store(64, i.address(), b.getSlot(i.slot(1), 64, false, 'f64', offset));
    else b.putSlot(i.slot(0), 64, b.load(64, i.address()), offset);
  };

const shuffled =
  (...pattern: readonly number[]): Emitter =>
  (i) => {
    const x = readVector(i, 1);
    writeVector(i, 0, i.b.op('i8x16.shuffle', [x, x], pattern));
  };

/** Address of a byte mask move: rDI in DS or what replaces it, checked for `bytes` outside 64-bit mode. */
function maskAddress(i: Instruction, bytes: number): Value {
  const { b, form } = i;
  const segment = b.field('segment');
  if (form.addressSize === 64) return b.add(b.state(RDI, 64), b.getSlot(segment, 64, false, 'i64', SEG_BASE));
  const offset = b.zext(b.state(RDI, form.addressSize));
  const linear = b.add(offset, b.getSlot(segment, 64, false, 'i64', SEG_BASE));
  const result = b.variable('i64');
  b.set(result, linear);
  b.if(b.eqz(i.isLong()), () => {
    const low = b.zext(b.getSlot(segment, 32, false, 'i32', SEG_LOW));
    const high = b.zext(b.getSlot(segment, 32, false, 'i32', SEG_HIGH));
    const outside = b.or(b.ltU(offset, low), b.gtU(b.add(offset, b.i64(bytes - 1)), high));
    const mayWrite = b.and(b.getSlot(segment, 32, false, 'i32', SEG_ACCESS), b.i32(2));
    b.if(b.or(outside, b.eqz(mayWrite)), () => b.leave('segment_fault', segment));
    b.set(result, b.and(linear, b.i64(0xffffffff)));
  });
  return b.get(result);
}

/** Stores the bytes whose mask byte has its top bit set, one by one: the others must not be touched. */
const maskMove =
  (bytes: 8 | 16): Emitter =>
  (i) => {
    const { b } = i;
    const data = readVector(i, 0);
    const mask = b.op('i8x16.bitmask', [readVector(i, 1)]);
    const rest = b.variable('i32');
    b.set(rest, bytes === 8 ? b.and(mask, b.i32(0xff)) : mask);
    const start = maskAddress(i, bytes);
    b.setState(TEMP, 128, data);
    b.if(b.get(rest), () =>
      b.loop(() => {
        const bits = b.get(rest);
        const at = b.op('i32.ctz', [bits]);
        const byte = b.getSlot(at, 8, false, 'i32', TEMP);
        b.store(8, b.add(start, b.zext(at)), byte);
        const left = b.and(bits, b.sub(bits, b.i32(1)));
        b.set(rest, left);
        return left;
      }),
    );
  };

export const sseMoves: Record<string, Emitter> = {
  MOVUPS: unaligned,
  MOVUPD: unaligned,
  MOVDQU: unaligned,
  LDDQU: unaligned,
  MOVAPS: aligned,
  MOVAPD: aligned,
  MOVDQA: aligned,
  MOVNTPS: aligned,
  MOVNTPD: aligned,
  MOVNTDQ: aligned,
  MOVNTDQA: aligned,
  MOVNTQ: unaligned,
  MOVSS: scalar,
  MOVSD: scalar,
  MOVSS_LOAD: scalarLoad,
  MOVSD_LOAD: scalarLoad,
  MOVLPS: half(0),
  MOVLPD: half(0),
  MOVHPS: half(8),
  MOVHPD: half(8),
  MOVHLPS(i) {
    const { b } = i;
    b.putSlot(i.slot(0), 64, b.getSlot(i.slot(1), 64, false, 'i64', 8));
  },
  MOVLHPS(i) {
    const { b } = i;
    b.putSlot(i.slot(0), 64, b.getSlot(i.slot(1), 64), 8);
  },
  MOVSLDUP: shuffled(0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11),
  MOVSHDUP: shuffled(4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15),
  MOVDDUP: shuffled(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7),
  MOVD(i) {
    const { b } = i;
    const kind = i.form.row.operands[0].kind;
    if (kind === 'E') {
      // A 32-bit write to a general register clears its upper half.
      i.write(0, b.getSlot(i.slot(1), i.bits(0)));
      return;
    }
    const value = b.zext(i.read(1));
    if (kind === 'P') {
      b.putSlot(i.slot(0), 64, value);
      mmxWritten(i, 0);
    } else b.putSlot(i.slot(0), 128, b.op('i64x2.replace_lane', [b.v128(0n, 0n), value], [0]));
  },
  /** To an XMM register it clears the upper half; to an MMX register or memory it is a move of 64 bits. */
  MOVQ(i) {
    const { b } = i;
    const value = i.isMemory(1) ? b.load(64, i.address()) : b.getSlot(i.slot(1), 64);
    if (i.isMemory(0)) b.store(64, i.address(), value);
    else if (isMmxOperand(i, 0)) {
      b.putSlot(i.slot(0), 64, value);
      mmxWritten(i, 0);
    } else b.putSlot(i.slot(0), 128, b.op('i64x2.replace_lane', [b.v128(0n, 0n), value], [0]));
  },
  MOVQ2DQ(i) {
    const { b } = i;
    b.putSlot(i.slot(0), 128, b.getSlot(i.slot(1), 64, false, 'v128'));
  },
  MOVDQ2Q(i) {
    const { b } = i;
    b.putSlot(i.slot(0), 64, b.getSlot(i.slot(1), 64));
    mmxWritten(i, 0);
  },
  MOVMSKPS(i) {
    i.write(0, i.b.op('i32x4.bitmask', [readVector(i, 1)]));
  },
  MOVMSKPD(i) {
    i.write(0, i.b.op('i64x2.bitmask', [readVector(i, 1)]));
  },
  PMOVMSKB(i) {
    i.write(0, i.b.op('i8x16.bitmask', [readVector(i, 1)]));
  },
  MASKMOVQ: maskMove(8),
  MASKMOVDQU: maskMove(16),
};
