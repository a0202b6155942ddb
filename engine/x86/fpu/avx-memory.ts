/**
 * The long memory instructions of AVX and AVX2: masked moves and gathers, lane by lane (SDM 2, VMASKMOV, VPMASKMOV,
 * VGATHERDPS and its kin), and PDEP and PEXT of BMI2.
 */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, isCanonical, linear, raise } from '../system/cpu.ts';

type Body = (record: number, ...operands: number[]) => void;
type Helper = (record: number, ...operands: number[]) => number;

/** Lane width and VEX.L as `mask_load` and `mask_store` are given them. */
const shapeOf = (spec: number): { bytes: number; lanes: number } => {
  const bytes = (spec & 0xff) / 8;
  return { bytes, lanes: ((spec & 0x100) !== 0 ? 32 : 16) / bytes };
};

/** Helpers by name; `on` makes of a body that may fault one that translated code can call. */
export function avxHelpers(cpu: Cpu, on: (body: Body) => Helper): Record<string, Helper> {
  const data = new DataView(cpu.buffer);
  /** The top bit of a lane of the register at state offset `slot`. */
  const isSet = (slot: number, lane: number, bytes: number): boolean => cpu.i32[(slot + (lane + 1) * bytes - 4) >> 2] < 0;

  /** The linear address of an access; one that is not canonical is #SS in the stack segment, else #GP. */
  const canonical = (record: number, low: number, high: number): number => {
    if (!isCanonical(low, high)) raise(data.getUint16(record + S.RECORD.segment, true) === S.segment(S.SS) ? 12 : 13, 0);
    return linear(low, high);
  };

  /** Checks an offset in the record's segment (SDM 3A, 5.3) and gives its linear address. */
  const inSegment = (record: number, offset: number, bytes: number, write: boolean): number => {
    const slot = data.getUint16(record + S.RECORD.segment, true);
    const at = offset >>> 0;
    const allowed = (cpu.u32[(slot + S.SEG_ACCESS) >> 2] & (write ? 2 : 1)) !== 0;
    if (!allowed || at < cpu.u32[(slot + S.SEG_LOW) >> 2] || at + bytes - 1 > cpu.u32[(slot + S.SEG_HIGH) >> 2])
      raise(slot === S.segment(S.SS) ? 12 : 13, 0);
    return (at + cpu.getNumber(slot + S.SEG_BASE)) >>> 0;
  };

  /** The address of a lane: in 64-bit mode the address given is linear, else an offset in the segment. */
  const maskedLane = (record: number, low: number, high: number, offset: number, bytes: number, write: boolean): number => {
    if (cpu.is64) return canonical(record, low, high) + offset;
    const width = data.getInt32(record + S.RECORD.imm, true);
    return inSegment(record, (low + offset) & (width === 16 ? 0xffff : -1), bytes, write);
  };

  const maskLoad: Body = (record, low, high, mask, spec) => {
    const { bytes, lanes } = shapeOf(spec);
    const user = cpu.cpl === 3;
    cpu.i32.fill(0, S.VECTOR_RESULT >> 2, (S.VECTOR_RESULT >> 2) + 8);
    for (let lane = 0; lane < lanes; lane++) {
      if (!isSet(mask, lane, bytes)) continue;
      const address = maskedLane(record, low, high, lane * bytes, bytes, false);
      for (let at = 0; at < bytes; at += 4)
        cpu.i32[(S.VECTOR_RESULT + lane * bytes + at) >> 2] = cpu.read32(cpu.wrap(address + at), user);
    }
  };

  const maskStore: Body = (record, low, high, mask, source, spec) => {
    const { bytes, lanes } = shapeOf(spec);
    const user = cpu.cpl === 3;
    const addresses: number[] = [];
    // All that is stored must be writable before anything is.
    for (let lane = 0; lane < lanes; lane++) {
      if (!isSet(mask, lane, bytes)) continue;
      addresses[lane] = maskedLane(record, low, high, lane * bytes, bytes, true);
      probe(addresses[lane], bytes, user);
    }
    for (const [lane, address] of addresses.entries()) {
      if (address === undefined) continue;
      for (let at = 0; at < bytes; at += 4) cpu.write32(cpu.wrap(address + at), cpu.i32[(source + lane * bytes + at) >> 2], user);
    }
  };

  const probe = (address: number, bytes: number, user: boolean): void => {
    cpu.translate(address, true, user);
    const left = 4096 - (address & 0xfff);
    if (left < bytes) cpu.translate(cpu.wrap(address + left), true, user);
  };

  /** Linear address of a lane: base + index * scale + displacement within the segment. */
  const laneAddress = (record: number, index: bigint, bytes: number): number => {
    const base = cpu.u64[data.getUint16(record + S.RECORD.base, true) >> 3];
    const scale = BigInt(data.getUint8(record + S.RECORD.scale));
    const displacement = BigInt(data.getInt32(record + S.RECORD.disp, true));
    const slot = data.getUint16(record + S.RECORD.segment, true);
    const width = data.getInt32(record + S.RECORD.imm, true);
    const offset = BigInt.asUintN(width, base + (index << scale) + displacement);
    const segmentBase = slot === S.ZERO ? 0n : cpu.u64[(slot + S.SEG_BASE) >> 3];
    const atStack = slot === S.segment(S.SS);
    if (cpu.is64) {
      const address = BigInt.asIntN(64, offset + (atStack ? 0n : segmentBase));
      if (!isCanonical(Number(BigInt.asIntN(32, address)), Number(address >> 32n))) raise(atStack ? 12 : 13, 0);
      return Number(address);
    }
    return inSegment(record, Number(BigInt.asIntN(32, offset)), bytes, false);
  };

  const gather: Body = (record, spec) => {
    const indexBytes = (spec & 0xff) / 8;
    const bytes = ((spec >> 8) & 0xff) / 8;
    const vector = (spec & 0x10000) !== 0 ? 32 : 16;
    const lanes = vector / Math.max(indexBytes, bytes);
    const target = data.getUint16(record + S.RECORD.b, true);
    const mask = data.getUint16(record + S.RECORD.c, true);
    const indices = data.getUint16(record + S.RECORD.index, true);
    const user = cpu.cpl === 3;
    const fillMask = (lane: number, value: number): void => {
      for (let at = lane * bytes; at < (lane + 1) * bytes; at += 4) cpu.i32[(mask + at) >> 2] = value;
    };
    // A fault leaves the lanes before it done and their masks clear: the instruction goes on from there.
    for (let lane = 0; lane < lanes; lane++) {
      if (!isSet(mask, lane, bytes)) {
        fillMask(lane, 0);
        continue;
      }
      const index = indexBytes === 8 ? cpu.i64[(indices >> 3) + lane] : BigInt(cpu.i32[(indices >> 2) + lane]);
      const address = laneAddress(record, index, bytes);
      const low = cpu.read32(address, user);
      const high = bytes === 8 ? cpu.read32(cpu.wrap(address + 4), user) : 0;
      const to = (target + lane * bytes) >> 2;
      cpu.i32[to] = low;
      if (bytes === 8) cpu.i32[to + 1] = high;
      fillMask(lane, 0);
    }
    cpu.i32.fill(0, (target + lanes * bytes) >> 2, (target + 32) >> 2);
    cpu.i32.fill(0, mask >> 2, (mask + 32) >> 2);
  };

  return {
    mask_load: on(maskLoad),
    mask_store: on(maskStore),
    gather: on(gather),
    probe_store: on((record, low, high, bytes) => probe(canonical(record, low, high), bytes, cpu.cpl === 3)),
    pdep: (_record, low, high, maskLow, maskHigh) => spread(cpu, low, high, maskLow, maskHigh, true),
    pext: (_record, low, high, maskLow, maskHigh) => spread(cpu, low, high, maskLow, maskHigh, false),
  };
}

/** PDEP (`deposit`) and PEXT: the low bits of a value to the places of a mask's ones, and back. The result is put at TEMP. */
function spread(cpu: Cpu, low: number, high: number, maskLow: number, maskHigh: number, deposit: boolean): number {
  const source = [low, high];
  const masks = [maskLow, maskHigh];
  const result = [0, 0];
  let count = 0;
  for (let word = 0; word < 2; word++)
    for (let left = masks[word]; left !== 0; left &= left - 1) {
      const place = 31 - Math.clz32(left & -left);
      if (deposit) result[word] |= ((source[count >> 5] >>> (count & 31)) & 1) << place;
      else result[count >> 5] |= ((source[word] >>> place) & 1) << (count & 31);
      count++;
    }
  cpu.i32[S.TEMP >> 2] = result[0];
  cpu.i32[(S.TEMP >> 2) + 1] = result[1];
  return 0;
}
