/**
 * EA records: they compute the linear address of the instruction that follows into ADDRESS, with the segment
 * checks of SDM 3A 5.3, so that most instructions need a handler for one addressing mode only. `imm` holds
 * whether it is a write (bit 0) and the bytes accessed (the bits above).
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { ADDRESS, SEG_ACCESS, SEG_BASE, SEG_HIGH, SEG_LOW } from '../../memory/vcpu-state.ts';
import type { PreludeKind } from '../decode/decoder.ts';

export const PRELUDE_KINDS: readonly Exclude<PreludeKind, 'NONE'>[] = [
  '64S',
  '32S',
  '16S',
  'L32',
  'MOFFS64',
  'MOFFS',
  'O32',
  'O16',
];

export function emitPrelude(b: Builder, kind: Exclude<PreludeKind, 'NONE'>): void {
  const sum = (): Value =>
    b.add(
      b.add(b.getSlot(b.field('base'), 64), b.shl(b.getSlot(b.field('index'), 64), b.zext(b.field('scale')))),
      b.sext(b.field('disp')),
    );
  const segmentField = (offset: number, bits: 32 | 64): Value =>
    b.getSlot(b.field('segment'), bits, false, bits === 64 ? 'i64' : 'i32', offset);
  const mask32 = b.i64(0xffffffff);
  const checked = (offset: Value, bytes: Value, write: Value): Value => {
    const low = b.zext(segmentField(SEG_LOW, 32));
    const high = b.zext(segmentField(SEG_HIGH, 32));
    const wanted = b.shl(b.i32(1), write);
    const bad = b.or(
      b.or(b.ltU(offset, low), b.gtU(b.add(offset, b.sub(b.zext(bytes), b.i64(1))), high)),
      b.eqz(b.and(segmentField(SEG_ACCESS, 32), wanted)),
    );
    b.if(bad, () => b.leave('segment_fault', b.field('segment')));
    return b.and(b.add(offset, segmentField(SEG_BASE, 64)), mask32);
  };
  const bytes = (): Value => b.shrU(b.field('imm'), b.i32(1));
  const write = (): Value => b.and(b.field('imm'), b.i32(1));
  let address: Value;
  switch (kind) {
    case '64S':
      address = b.add(sum(), segmentField(SEG_BASE, 64));
      break;
    case 'L32':
      address = b.add(b.and(sum(), mask32), segmentField(SEG_BASE, 64));
      break;
    case '32S':
      address = checked(b.and(sum(), mask32), bytes(), write());
      break;
    case '16S':
      address = checked(b.and(sum(), b.i64(0xffff)), bytes(), write());
      break;
    case 'O32':
      address = b.and(sum(), mask32);
      break;
    case 'O16':
      address = b.and(sum(), b.i64(0xffff));
      break;
    case 'MOFFS64':
      address = b.add(b.wide(), segmentField(SEG_BASE, 64));
      break;
    case 'MOFFS':
      // The offset takes the place of both last fields; size and direction lie in the slots that it does not use.
      address = checked(b.and(b.wide(), mask32), b.field('a'), b.field('b'));
      break;
  }
  b.setState(ADDRESS, 64, address);
}
