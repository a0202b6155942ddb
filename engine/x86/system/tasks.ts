/** Task switching (SDM 3A, chapter 7) with 16- and 32-bit TSSs. */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, CR0, FLAG, GuestFault, raise } from './cpu.ts';
import { ATTR, dpl, isCode, isConforming, isPresent, type Segments } from './segments.ts';

export type Reason = 'jump' | 'call' | 'gate' | 'iret';

const SEGMENT_ORDER = [S.ES, S.CS, S.SS, S.DS, S.FS, S.GS];

/** A 32-bit TSS's word with the debug trap flag. */
const TRAP_AT = 100;

/** A data segment of the new task: what is wrong with its selector is #TS here (SDM 3A, table 8-1). */
function loadInTask(segments: Segments, index: number, selector: number): void {
  try {
    segments.load(index, selector);
  } catch (problem) {
    if (problem instanceof GuestFault && problem.vector === 13) raise(10, problem.code);
    throw problem;
  }
}

/** Switches to the task of a TSS selector. `rip` is what the old task goes on at; `code` is pushed in the new one. */
export function switchTask(
  cpu: Cpu,
  segments: Segments,
  selector: number,
  reason: Reason,
  rip: number,
  code: number | undefined,
): void {
  const selectorCode = selector & 0xfffc;
  const vector = reason === 'iret' ? 10 : 13;
  if ((selector & 4) !== 0 || selectorCode === 0) raise(vector, selectorCode);
  const descriptor = segments.descriptor(selector, vector);
  const type = descriptor.attr & 31;
  const busy = (type & 2) !== 0;
  if ((type & ~0xa) !== 1) raise(vector, selectorCode);
  if (reason === 'iret' ? !busy : busy) raise(vector, selectorCode);
  if (!isPresent(descriptor.attr)) raise(11, selectorCode);
  const wide = (type & 8) !== 0;
  if (descriptor.limit < (wide ? 0x67 : 0x2b)) raise(10, selectorCode);

  const oldWide = (cpu.segmentAttr(S.TR) & 8) !== 0;
  const oldBase = cpu.segmentBase(S.TR);
  const oldSelector = cpu.selector(S.TR);
  const setBusy = (sel: number, on: boolean): void => {
    const at = cpu.segmentBase(S.GDTR) + (sel & 0xfff8) + 5;
    const byte = cpu.readByte(at, false);
    cpu.writeByte(at, on ? byte | 2 : byte & ~2, false);
  };
  if (reason === 'jump' || reason === 'iret') setBusy(oldSelector, false);
  let flags = cpu.eflags;
  if (reason === 'iret') flags &= ~FLAG.NT;

  // Save the old task.
  for (let n = 0; n < 8; n++) {
    const value = cpu.i32[(S.GPR + n * 8) >> 2];
    if (oldWide) cpu.write32(oldBase + 40 + n * 4, value, false);
    else cpu.write16(oldBase + 18 + n * 2, value, false);
  }
  if (oldWide) {
    cpu.write32(oldBase + 32, rip | 0, false);
    cpu.write32(oldBase + 36, flags, false);
    for (const [n, index] of SEGMENT_ORDER.entries()) cpu.write16(oldBase + 72 + n * 4, cpu.selector(index), false);
  } else {
    cpu.write16(oldBase + 14, rip, false);
    cpu.write16(oldBase + 16, flags, false);
    for (let n = 0; n < 4; n++) cpu.write16(oldBase + 34 + n * 2, cpu.selector(SEGMENT_ORDER[n]), false);
  }

  // Read the new one.
  const base = descriptor.base;
  const registers: number[] = [];
  const selectors: number[] = [];
  let newRip: number;
  let newFlags: number;
  let ldt: number;
  let cr3: number | undefined;
  if (wide) {
    cr3 = cpu.read32(base + 28, false);
    newRip = cpu.read32(base + 32, false) >>> 0;
    newFlags = cpu.read32(base + 36, false);
    for (let n = 0; n < 8; n++) registers.push(cpu.read32(base + 40 + n * 4, false));
    for (let n = 0; n < 6; n++) selectors.push(cpu.read16(base + 72 + n * 4, false));
    ldt = cpu.read16(base + 96, false);
  } else {
    newRip = cpu.read16(base + 14, false);
    newFlags = cpu.read16(base + 16, false);
    for (let n = 0; n < 8; n++) registers.push(cpu.read16(base + 18 + n * 2, false) | 0xffff0000);
    for (let n = 0; n < 4; n++) selectors.push(cpu.read16(base + 34 + n * 2, false));
    selectors.push(0, 0);
    ldt = cpu.read16(base + 42, false);
  }
  if (reason === 'call' || reason === 'gate') {
    cpu.write16(base, oldSelector, false);
    newFlags |= FLAG.NT;
  }
  if (reason !== 'iret') setBusy(selector, true);

  // Commit.
  segments.set(S.TR, selector, base, descriptor.limit, descriptor.attr | 2);
  cpu.set32(S.CR0, cpu.cr0 | CR0.TS);
  if (cr3 !== undefined && cpu.cr0 < 0) {
    cpu.setNumber(S.CR3, cr3 >>> 0);
    cpu.flushAll();
  }
  for (let n = 0; n < 8; n++) cpu.setNumber(S.GPR + n * 8, registers[n] >>> 0);
  cpu.eflags = newFlags;
  cpu.setNumber(S.NEXT_RIP, newRip);
  const virtual = (newFlags & FLAG.VM) !== 0;
  for (const [n, index] of SEGMENT_ORDER.entries()) segments.setNull(index, selectors[n]);

  if ((ldt & 0xfffc) === 0) segments.set(S.LDTR, ldt, 0, 0, 0);
  else {
    if ((ldt & 4) !== 0) raise(10, ldt & 0xfffc);
    const table = segments.descriptor(ldt, 10);
    if ((table.attr & 31) !== 2 || !isPresent(table.attr)) raise(10, ldt & 0xfffc);
    segments.set(S.LDTR, ldt, table.base, table.limit, table.attr);
  }
  if (virtual) {
    cpu.set32(S.CPL, 3);
    for (const [n, index] of SEGMENT_ORDER.entries()) segments.setReal(index, selectors[n]);
  } else {
    const cs = selectors[1];
    const cpl = cs & 3;
    cpu.set32(S.CPL, cpl);
    if ((cs & 0xfffc) === 0) raise(10, 0);
    const csDescriptor = segments.descriptor(cs, 10);
    const csCode = cs & 0xfffc;
    if (!isCode(csDescriptor.attr)) raise(10, csCode);
    if (isConforming(csDescriptor.attr) ? dpl(csDescriptor.attr) > cpl : dpl(csDescriptor.attr) !== cpl) raise(10, csCode);
    if (!isPresent(csDescriptor.attr)) raise(11, csCode);
    segments.setCode(cs, csDescriptor, cpl);
    loadInTask(segments, S.SS, selectors[2]);
    for (const n of [0, 3, 4, 5]) loadInTask(segments, SEGMENT_ORDER[n], selectors[n]);
    if (newRip > csDescriptor.limit) raise(13, 0);
  }
  segments.updateMode();
  // The T bit of a 32-bit TSS: #DB before the first instruction of the task (SDM 3B, 18.3.1.5).
  if (wide && (cpu.read16(base + TRAP_AT, false) & 1) !== 0) cpu.taskTrap();
  if (code !== undefined) {
    const big = (cpu.segmentAttr(S.SS) & ATTR.DB) !== 0;
    const at = S.GPR + 32;
    const bytes = wide ? 4 : 2;
    const pointer = big ? (cpu.u32[at >> 2] - bytes) >>> 0 : (cpu.u32[at >> 2] - bytes) & 0xffff;
    const address = cpu.stackAddress(pointer, bytes, 1);
    if (wide) cpu.write32(address, code, cpu.cpl === 3);
    else cpu.write16(address, code, cpu.cpl === 3);
    if (big) cpu.setNumber(at, pointer);
    else cpu.u16[at >> 1] = pointer;
  }
}
