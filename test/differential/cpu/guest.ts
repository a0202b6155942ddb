/** Runs batches on the engine, in user mode over the same addresses as `harness.c`. */
import { BareMachine } from '../../../engine/accel/jit/testing.ts';
import * as S from '../../../engine/memory/vcpu-state.ts';
import { CR0, CR4 } from '../../../engine/x86/system/cpu.ts';
import {
  AREA_BYTES,
  type Batch,
  BYTES,
  CASE_BYTES,
  CASE_YMM,
  CODE,
  CODE_AT,
  CODE_BYTES,
  CR2,
  codeAddress,
  DATA,
  DATA_BYTES,
  END,
  ERROR,
  FIRST,
  FLAGS,
  FS_BASE,
  GLOBAL,
  GLOBAL_BYTES,
  GPR,
  GS_BASE,
  HASH,
  HUNG,
  LENGTH,
  LOCAL,
  local,
  MM,
  type Mode,
  MXCSR,
  OUTCOME_BYTES,
  OUTCOME_YMM,
  RIP,
  SELECTORS,
  TRAP,
  USER_DATA,
  USER32,
  USER64,
  XMM,
} from './layout.ts';

const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;
/** Page tables: PML4, PDPT, page directory, one table for code and one for data. */
const TABLES = 0x1000;
/** Tables of descriptors lie where user code reaches nothing, in the upper half. */
const DESCRIPTORS = 0x7000;
const DESCRIPTORS_HIGH = 0xffff8000;
const LOCAL_TABLE = 0x100;
/** Segment registers in the order of outcomes. */
const ORDER = [S.ES, S.CS, S.SS, S.DS, S.FS, S.GS];
/** Selectors that cases begin with, in that order. */
const INITIAL: Readonly<Record<Mode, readonly number[]>> = {
  64: [USER_DATA, USER64, USER_DATA, USER_DATA, 0, 0],
  32: [USER_DATA, USER32, USER_DATA, USER_DATA, 0, 0],
  16: [local(2), local(0), local(3), local(1), 0, 0],
};
const VECTOR_WORDS = S.VECTOR >> 2;
const VECTOR_STRIDE_WORDS = S.VECTOR_STRIDE >> 2;
const FPU_WORDS = S.FPU >> 2;
const DISPATCHES = 200_000;

export class Guest {
  readonly machine: BareMachine;
  readonly #code = new Uint8Array(CODE_BYTES);
  readonly #data: Uint8Array;
  #vector = 0;
  #error = 0;
  #rip = 0;
  #ended = false;

  constructor(tier: 'baseline' | 'region' | 'both' = 'both') {
    this.machine = new BareMachine(tier);
    const { machine } = this;
    const { ram, cpu, system } = machine;
    machine.long(3);
    const table = (at: number, index: number, low: number, high = 0): void => {
      ram.write32(at + index * 8, low);
      ram.write32(at + index * 8 + 4, high);
    };
    for (let at = TABLES; at < TABLES + 0xa000; at += 4) ram.write32(at, 0);
    table(0x1000, 0, 0x2000 | PRESENT | WRITABLE | USER);
    table(0x2000, 0, 0x3000 | PRESENT | WRITABLE | USER);
    table(0x3000, CODE >> 21, 0x4000 | PRESENT | WRITABLE | USER);
    table(0x3000, DATA >> 21, 0x5000 | PRESENT | WRITABLE | USER);
    const page = (at: number, address: number, writable: boolean, execute: boolean): void =>
      table(at, (address >> 12) & 511, address | PRESENT | USER | (writable ? WRITABLE : 0), execute ? 0 : 0x80000000);
    for (let at = CODE; at < CODE + CODE_BYTES; at += 4096) page(0x4000, at, true, true);
    for (let at = DATA; at < DATA + AREA_BYTES; at += 4096) page(0x5000, at, at < DATA + DATA_BYTES, false);
    table(0x1000, 256, 0x8000 | PRESENT | WRITABLE);
    table(0x8000, 0, 0x9000 | PRESENT | WRITABLE);
    table(0x9000, 0, 0xa000 | PRESENT | WRITABLE);
    table(0xa000, 0, DESCRIPTORS | PRESENT | WRITABLE);
    const describe = (at: number, base: number, limit: number, attr: number): void => {
      const units = (attr & 0x8000) !== 0 ? limit >>> 12 : limit;
      const low = ((base & 0xffff) << 16) | (units & 0xffff);
      table(DESCRIPTORS, at >> 3, low, (base & 0xff000000) | ((base >>> 16) & 0xff) | (attr << 8) | (units & 0xf0000));
    };
    for (const [selector, attr] of Object.entries(GLOBAL)) describe(Number(selector), 0, 0xffffffff, attr);
    for (const [n, { base, limit, attr }] of LOCAL.entries()) describe(LOCAL_TABLE + n * 8, base, limit, attr);
    const high = DESCRIPTORS_HIGH * 4294967296 - 2 ** 64;
    system.segments.set(S.GDTR, 0, high, GLOBAL_BYTES - 1, 0);
    system.segments.set(S.LDTR, 0x50, high + LOCAL_TABLE, LOCAL.length * 8 - 1, 0x82);
    cpu.set32(S.CR0, cpu.get32(S.CR0) | CR0.MP | CR0.AM);
    cpu.set32(S.CR4, cpu.get32(S.CR4) | CR4.FSGSBASE | CR4.UMIP | CR4.OSXSAVE);
    cpu.set32(S.XCR0, 7);
    // Every exception ends a case; how it would be delivered to a kernel is another test's matter.
    system.interrupts.deliver = (vector, code, source, rip) => {
      if (this.#ended) return;
      // Where a case went far and came to an INT: Linux lets user code have few vectors, and this is what others are.
      const refused = source === 'software' && vector !== 3 && vector !== 4;
      this.#vector = refused ? 13 : vector;
      this.#error = refused ? (vector << 3) | 2 : code;
      this.#rip = refused ? rip - 2 : rip;
      this.#ended = true;
      machine.stop();
    };
    // No I/O permission map.
    system.segments.set(S.TR, 0x40, 0, 0x40, 0x8b);
    const host = ram.host(DATA);
    this.#data = ram.bytes.subarray(host, host + AREA_BYTES);
    system.registers.updateFpuBlock();
    system.paging.flush();
  }

  run(batch: Batch): Uint8Array {
    const { machine } = this;
    const { cpu, system, ram, vcpu } = machine;
    const { count, cases, memory, mode } = batch;
    const outcomes = new Uint8Array(count * OUTCOME_BYTES);
    const in32 = new Uint32Array(cases.buffer, cases.byteOffset, cases.length / 4);
    const out32 = new Uint32Array(outcomes.buffer);
    const out16 = new Uint16Array(outcomes.buffer);
    const out64 = new BigUint64Array(outcomes.buffer);
    const code = this.#code.fill(0xcc);
    for (let n = 0; n < count; n++) {
      const length = in32[(n * CASE_BYTES + LENGTH) >> 2];
      const from = n * CASE_BYTES + CODE_AT;
      code.set(cases.subarray(from, from + length), codeAddress(n) - CODE);
    }
    // The same code again keeps what was made of it.
    if (Buffer.compare(ram.bytes.subarray(ram.host(CODE), ram.host(CODE) + CODE_BYTES), code) !== 0) {
      ram.write(CODE, code);
      vcpu.dropAll();
    }
    this.#data.set(memory);
    this.#loadSegments(mode);
    const state = cpu.u8;
    const words = cpu.u32;
    const original = Buffer.from(memory.buffer, memory.byteOffset, DATA_BYTES);
    const now = this.#data.subarray(0, DATA_BYTES);
    const fs = S.segment(S.FS) >> 2;
    const gs = S.segment(S.GS) >> 2;
    const status = S.FPU + 128;
    for (let n = 0; n < count; n++) {
      const at = n * CASE_BYTES;
      const at32 = at >> 2;
      if (ORDER.some((index, k) => cpu.selector(index) !== INITIAL[mode][k])) this.#loadSegments(mode);
      state.set(cases.subarray(at + GPR, at + GPR + 128), S.GPR);
      for (let k = 0; k < 64; k++) {
        const register = VECTOR_WORDS + (k >> 2) * VECTOR_STRIDE_WORDS + (k & 3);
        words[register] = in32[at32 + (XMM >> 2) + k];
        words[register + 4] = in32[at32 + (CASE_YMM >> 2) + k];
      }
      for (let k = 0; k < 16; k++) words[FPU_WORDS + (k >> 1) * 4 + (k & 1)] = in32[at32 + (MM >> 2) + k];
      cpu.u32[status >> 2] = 0x37f;
      cpu.u32[(status >> 2) + 1] = 0;
      cpu.u32[(status >> 2) + 2] = 0xff;
      cpu.eflags = in32[at32 + (FLAGS >> 2)] | 0x202;
      // A POPF of the case before may have asked for alignment checks.
      system.paging.selectTlb();
      cpu.u32[S.MXCSR >> 2] = in32[at32 + (MXCSR >> 2)];
      if (mode === 64) {
        cpu.u32[fs] = in32[at32 + (FS_BASE >> 2)];
        cpu.u32[fs + 1] = in32[at32 + (FS_BASE >> 2) + 1];
        cpu.u32[gs] = in32[at32 + (GS_BASE >> 2)];
        cpu.u32[gs + 1] = in32[at32 + (GS_BASE >> 2) + 1];
      }
      cpu.u32[S.CR2 >> 2] = 0;
      cpu.u32[(S.CR2 >> 2) + 1] = 0;
      this.#one(codeAddress(n) - (mode === 16 ? CODE : 0));

      const out = n * OUTCOME_BYTES;
      const o32 = out >> 2;
      outcomes.set(state.subarray(S.GPR, S.GPR + 128), out + GPR);
      for (let k = 0; k < 64; k++) {
        const register = VECTOR_WORDS + (k >> 2) * VECTOR_STRIDE_WORDS + (k & 3);
        out32[o32 + (XMM >> 2) + k] = words[register];
        out32[o32 + (OUTCOME_YMM >> 2) + k] = words[register + 4];
      }
      // Registers of the host's frame are numbered from the top of the stack.
      const top = (cpu.u32[(status >> 2) + 1] >> 11) & 7;
      for (let k = 0; k < 16; k++) out32[o32 + (MM >> 2) + k] = words[FPU_WORDS + (((k >> 1) + top) & 7) * 4 + (k & 1)];
      out32[o32 + (FLAGS >> 2)] = cpu.eflags;
      out32[o32 + (MXCSR >> 2)] = cpu.u32[S.MXCSR >> 2];
      out32[o32 + (TRAP >> 2)] = this.#ended ? this.#vector : HUNG;
      out32[o32 + (ERROR >> 2)] = this.#error;
      out32[o32 + (FS_BASE >> 2)] = cpu.u32[fs];
      out32[o32 + (FS_BASE >> 2) + 1] = cpu.u32[fs + 1];
      out32[o32 + (GS_BASE >> 2)] = cpu.u32[gs];
      out32[o32 + (GS_BASE >> 2) + 1] = cpu.u32[gs + 1];
      for (const [k, index] of ORDER.entries()) out16[((out + SELECTORS) >> 1) + k] = cpu.selector(index);
      out64[(out + RIP) >> 3] = BigInt.asUintN(64, BigInt(this.#rip));
      if (this.#vector === 14) {
        out32[o32 + (CR2 >> 2)] = cpu.u32[S.CR2 >> 2];
        out32[o32 + (CR2 >> 2) + 1] = cpu.u32[(S.CR2 >> 2) + 1];
      }
      if (Buffer.compare(now, original) !== 0) this.#changes(now, original, outcomes, out32, out);
    }
    return outcomes;
  }

  #loadSegments(mode: Mode): void {
    const { segments } = this.machine.system;
    const [, cs, , ds] = INITIAL[mode];
    for (const [k, index] of ORDER.entries()) {
      const selector = INITIAL[mode][k];
      const described = LOCAL[selector >> 3];
      if (selector === 0) segments.set(index, 0, 0, 0, 0);
      else if (mode === 16) segments.set(index, selector, described.base, described.limit, described.attr);
      else segments.set(index, selector, 0, 0xffffffff, GLOBAL[(index === S.CS ? cs : ds) & ~3]);
    }
    segments.updateMode();
  }

  #one(address: number): void {
    const { machine } = this;
    const { cpu, vcpu } = machine;
    this.#ended = false;
    this.#vector = HUNG;
    this.#error = 0;
    this.#rip = 0;
    machine.stopped = false;
    cpu.setNumber(S.NEXT_RIP, address);
    cpu.i32[S.STOPPED_AT >> 2] = 0;
    cpu.i32[S.HALTED >> 2] = 0;
    cpu.i32[S.PENDING >> 2] = 0;
    for (let turn = 0; turn < DISPATCHES && !this.#ended; turn++) vcpu.run();
  }

  #changes(now: Uint8Array, original: Uint8Array, outcomes: Uint8Array, out32: Uint32Array, out: number): void {
    let first = 0;
    while (now[first] === original[first]) first++;
    let end = DATA_BYTES;
    while (now[end - 1] === original[end - 1]) end--;
    first &= ~7;
    end = (end + 7) & ~7;
    let hash = 0;
    for (let at = first; at < end; at++) hash = (Math.imul(hash, 31) + now[at]) | 0;
    out32[(out + FIRST) >> 2] = first;
    out32[(out + END) >> 2] = end;
    out32[(out + HASH) >> 2] = hash;
    outcomes.set(now.subarray(first, Math.min(first + 64, end)), out + BYTES);
    now.set(original.subarray(first, end), first);
  }
}
