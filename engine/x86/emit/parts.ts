/**
 * Operands of which a part lies at a distance from the address that ModRM gives: far pointers, bounds, bit strings. The
 * offset of each part wraps at the address size, and each is checked against its segment by itself (what processors do; a
 * far pointer at offset FFFEH of a segment of 64 KiB has its selector at 0). Rows of such instructions have the attribute
 * `bits`: their forms know the address size, and their records give the bare offset outside of 64-bit mode.
 */
import type { Value } from '../../ir/builder.ts';
import { MODE, SEG_ACCESS, SEG_BASE, SEG_HIGH, SEG_LOW } from '../../memory/vcpu-state.ts';
import type { Instruction } from './context.ts';

/** Linear address of `bytes` that lie `distance` (64 bits) from the operand's address, to be read or written. */
export function partOf(i: Instruction, distance: Value | undefined, bytes: number, write: boolean): Value {
  const { b } = i;
  const moved = (address: Value): Value => (distance === undefined ? address : b.add(address, distance));
  if (i.form.addressSize === 64) return moved(i.address());
  const segment = b.field('segment');
  const base = b.getSlot(segment, 64, false, 'i64', SEG_BASE);
  const isLong = b.eq(b.and(b.state(MODE, 32), b.i32(3)), b.i32(2));
  // In 64-bit mode the record has added the base of FS or GS already.
  const start = b.select(isLong, b.sub(i.address(), base), i.address());
  const offset = b.and(moved(start), b.i64(i.form.addressSize === 32 ? 0xffffffff : 0xffff));
  const bad = b.or(
    b.or(
      b.ltU(offset, b.zext(b.getSlot(segment, 32, false, 'i32', SEG_LOW))),
      b.gtU(b.add(offset, b.i64(bytes - 1)), b.zext(b.getSlot(segment, 32, false, 'i32', SEG_HIGH))),
    ),
    b.eqz(b.and(b.getSlot(segment, 32, false, 'i32', SEG_ACCESS), b.i32(write ? 2 : 1))),
  );
  b.if(b.and(b.eqz(isLong), bad), () => b.leave('segment_fault', segment));
  const linear = b.add(offset, base);
  return b.select(isLong, linear, b.and(linear, b.i64(0xffffffff)));
}
