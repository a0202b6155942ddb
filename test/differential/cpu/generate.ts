/** Makes random cases from the rows of the decode tables. */
import { rows } from '../../../engine/accel/jit/handlers.ts';
import type { Operand, Row } from '../../../engine/x86/decode/rows.ts';
import {
  AREA_BYTES,
  BASE16,
  BATCH,
  BATCH16,
  type Batch,
  CASE_BYTES,
  CASE_YMM,
  CODE,
  CODE_AT,
  CODE_BYTES,
  codeAddress,
  DATA,
  DATA_BYTES,
  FLAGS,
  FS_BASE,
  GLOBAL,
  GLOBAL_BYTES,
  GS_BASE,
  KIND,
  kindOf,
  LANDING,
  LENGTH,
  LOCAL,
  local,
  MM,
  type Mode,
  MXCSR,
  SLOT_CODE,
  USER_DATA,
  USER32,
  USER64,
  XMM,
} from './layout.ts';
import { Random } from './random.ts';
import { differsByVendor, EXCLUDED, featureOf } from './rules.ts';

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const RSP = 4;
const RBP = 5;
const RSI = 6;
const RDI = 7;
const STACK_USERS = /^(ENTER|LEAVE)$/;
/** Flags that a case starts with: arithmetic and direction. */
const FLAG_CHOICES = 0xcd5;
const MASKED = 0x1f80;
/** What takes a selector from a register or from memory. */
const SELECTORS_IN = /^(MOV_TO_SEG|LAR|LSL|VERR|VERW)$/;
/** Registers that ModRM.rm names with 16-bit addresses; -1: none (SDM 2, table 2-1). */
const ADDRESSES16 = [
  [RBX, RSI],
  [RBX, RDI],
  [RBP, RSI],
  [RBP, RDI],
  [RSI, -1],
  [RDI, -1],
  [RBP, -1],
  [RBX, -1],
] as const;

export interface Selection {
  readonly features: ReadonlySet<string>;
  /** Only rows that this says yes to. */
  readonly only?: (row: Row) => boolean;
  /** Code of 16 bits too. */
  readonly sixteen?: boolean;
}

/** Why a row is left out, or undefined. */
export function exclusionOf(row: Row, features: ReadonlySet<string>): string | undefined {
  const reason = EXCLUDED[row.mnemonic];
  if (reason !== undefined) return reason;
  const feature = featureOf(row);
  if (feature !== undefined && !features.has(feature)) return `the host has no ${feature}`;
  return undefined;
}

export class Generator {
  readonly #random: Random;
  readonly #avx: boolean;
  readonly #sixteen: boolean;
  readonly #rows64: Row[] = [];
  readonly #rows32: Row[] = [];
  #mode: Mode = 64;
  #cases = new Uint8Array(0);
  #words = new Uint32Array(0);
  #memory = new Uint8Array(0);
  #at = 0;
  #code: number[] = [];
  #chosen: Row[] = [];
  /** What cases need to reach their operands, by case: general registers, and above bit 15 vector registers. Variants keep it. */
  #held = new Uint32Array(0);
  /** Memory that was written for a case's sake: not zero where variants keep it. */
  #heldMemory = new Uint8Array(0);
  #n = 0;

  constructor(seed: number, selection: Selection) {
    this.#random = new Random(seed);
    this.#sixteen = selection.sixteen ?? true;
    this.#avx = selection.features.has('avx');
    for (const row of rows) {
      if (exclusionOf(row, selection.features) !== undefined || !(selection.only?.(row) ?? true)) continue;
      for (let copies = row.attributes.has('cc') ? 1 : 4; copies > 0; copies--) {
        if (!row.attributes.has('i64')) this.#rows64.push(row);
        if (!row.attributes.has('o64')) this.#rows32.push(row);
      }
    }
  }

  /** Where a jump finds breakpoints. */
  get #landing(): number {
    return this.#mode === 16 ? LANDING - CODE : LANDING;
  }

  /** The row that case `n` of the last batch was made from. */
  rowOf(n: number): Row {
    return this.#chosen[n];
  }

  /** A batch of at most `most` cases, all in one mode. */
  batch(most = BATCH): Batch {
    const random = this.#random;
    this.#mode = 64;
    if (this.#rows64.length === 0 || (this.#rows32.length > 0 && random.chance(this.#sixteen ? 0.55 : 0.35)))
      this.#mode = this.#sixteen && random.chance(0.6) ? 16 : 32;
    const count = Math.min(most, this.#mode === 16 ? BATCH16 : BATCH);
    const memory = this.#newMemory();
    this.#memory = memory;
    this.#cases = new Uint8Array(count * CASE_BYTES);
    this.#words = new Uint32Array(this.#cases.buffer);
    this.#held = new Uint32Array(count);
    this.#heldMemory = new Uint8Array(AREA_BYTES);
    const list = this.#mode === 64 ? this.#rows64 : this.#rows32;
    for (let n = 0; n < count; n++) {
      this.#n = n;
      this.#at = n * CASE_BYTES;
      for (;;) {
        const row = random.pick(list);
        this.#chosen[n] = row;
        this.#held[n] = 0;
        this.#state();
        this.#implied(row);
        this.#encode(row, n);
        if (this.#code.length <= 15 && differsByVendor(row, Uint8Array.from(this.#code), this.#mode) === undefined) break;
      }
      this.#cases.fill(0xcc, this.#at + CODE_AT, this.#at + CODE_AT + 16);
      this.#cases.set(this.#code, this.#at + CODE_AT);
      this.#words[(this.#at + LENGTH) >> 2] = this.#code.length;
    }
    return { count, mode: this.#mode, memory, cases: this.#cases };
  }

  /** The last batch's code with other registers, flags and memory; what addresses are made of stays. */
  variant(batch: Batch): Batch {
    const memory = this.#newMemory();
    const other = new Uint32Array(memory.buffer);
    const was = new Uint32Array(batch.memory.buffer);
    // Half of it stays, for operands that are compared with memory.
    for (let at = 0; at < was.length; at += 4) if (this.#random.chance(0.5)) other.set(was.subarray(at, at + 4), at);
    for (let at = 0; at < AREA_BYTES; at++) if (this.#heldMemory[at] !== 0) memory[at] = batch.memory[at];
    this.#cases = batch.cases.slice();
    this.#words = new Uint32Array(this.#cases.buffer);
    for (let n = 0; n < batch.count; n++) {
      this.#n = n;
      this.#at = n * CASE_BYTES;
      this.#state();
    }
    return { ...batch, memory, cases: this.#cases };
  }

  #newMemory(): Uint8Array {
    const random = this.#random;
    const memory = new Uint8Array(AREA_BYTES);
    const words = new Uint32Array(memory.buffer);
    for (let at = 0; at < words.length; at += 4) {
      random.vector(words, at);
      if (random.chance(0.2)) {
        words[at] = this.#landing;
        words[at + 1] = 0;
      }
    }
    return memory;
  }

  // --- state --------------------------------------------------------------------------------------------------------

  /** Draws what is not held. */
  #state(): void {
    const random = this.#random;
    const words = this.#words;
    const at = this.#at >> 2;
    const held = this.#held[this.#n];
    for (let n = 0; n < 16; n++) {
      if (((held >>> n) & 1) !== 0) continue;
      random.integer(words, at + 2 * n);
      this.#avoidCode(n);
    }
    words[at + (FLAGS >> 2)] = random.word() & FLAG_CHOICES;
    // With the precision flag set and nothing else is how most arithmetic is done.
    words[at + (MXCSR >> 2)] = random.chance(0.6)
      ? MASKED | (random.chance(0.6) ? 0x20 : 0)
      : random.chance(0.7)
        ? MASKED | (random.word() & 0xe07f)
        : random.word() & 0xffff;
    words[at + (KIND >> 2)] = kindOf(this.#mode);
    // Addresses are made with these.
    for (const base of held === 0 ? [FS_BASE, GS_BASE] : []) {
      const value = random.chance(0.5) ? DATA + random.below(DATA_BYTES) : random.below(1 << 24);
      words[at + (base >> 2)] = this.#mode === 64 ? value : 0;
      words[at + (base >> 2) + 1] = 0;
    }
    for (let n = 0; n < 16; n += 4) random.vector(words, at + (MM >> 2) + n);
    for (let n = 0; n < 64; n += 4) {
      if (((held >>> (16 + (n >> 2))) & 1) !== 0) continue;
      random.vector(words, at + (XMM >> 2) + n);
      if (this.#avx && random.chance(0.8)) random.vector(words, at + (CASE_YMM >> 2) + n);
      else words.fill(0, at + (CASE_YMM >> 2) + n, at + (CASE_YMM >> 2) + n + 4);
    }
  }

  /** What an instruction uses without naming it. */
  #implied(row: Row): void {
    const random = this.#random;
    if (row.attributes.has('stack')) this.#pointer(RSP, 8);
    if (row.mnemonic === 'RET') this.#land(this.#low(RSP) & 0xffff);
    if (STACK_USERS.test(row.mnemonic)) this.#pointer(RBP, 8);
    if (row.attributes.has('string')) {
      this.#pointer(RSI, 1);
      this.#pointer(RDI, 1);
      this.#pointer(RBX, 1);
      if (random.chance(0.9)) this.#set(RCX, random.chance(0.9) ? random.below(24) : random.below(3000));
    }
    if (/^I?DIV$/.test(row.mnemonic) && random.chance(0.6)) this.#set(RDX, random.chance(0.6) ? 0 : random.below(16));
  }

  #set(register: number, low: number, high = 0): void {
    this.#hold(register);
    this.#write(register, low, high);
  }
  #hold(register: number): void {
    this.#held[this.#n] |= 1 << register;
  }
  #write(register: number, low: number, high = 0): void {
    this.#words[(this.#at >> 2) + 2 * register] = low;
    this.#words[(this.#at >> 2) + 2 * register + 1] = high;
    if (this.#mode !== 64) this.#words[(this.#at >> 2) + 2 * register + 1] = 0;
  }
  #low(register: number): number {
    return this.#words[(this.#at >> 2) + 2 * register];
  }
  #high(register: number): number {
    return this.#words[(this.#at >> 2) + 2 * register + 1];
  }
  /** No accidental pointers into other cases' code. */
  #avoidCode(register: number): void {
    const low = this.#low(register);
    if (this.#mode !== 64) this.#write(register, low);
    // Code of 16 bits lies below 32K in its segment.
    if (this.#mode === 16) this.#write(register, low | 0x8000);
    else if (low >= CODE - 64 && low < CODE + CODE_BYTES) this.#write(register, low ^ 0x10000000, this.#high(register));
  }

  /** An address for an operand: mostly within the area, at its edges now and then, seldom anywhere. */
  #target(align: number): number {
    const random = this.#random;
    const kind = random.below(40);
    const base = this.#mode === 16 ? BASE16 : 0;
    let address: number;
    if (kind < 30) address = DATA + 64 + random.below(DATA_BYTES - 128);
    else if (kind < 33) address = DATA + 0x1000 - random.below(20);
    else if (kind < 35) address = DATA + DATA_BYTES - random.below(20);
    else if (kind < 36) address = DATA + AREA_BYTES - random.below(20);
    else if (kind < 37) address = DATA - random.below(20);
    else if (kind < 38) address = DATA + DATA_BYTES + random.below(0xf00);
    else if (kind < 39) address = random.word() >>> 0;
    else address = DATA + random.below(AREA_BYTES);
    if (kind !== 38) address -= base;
    return random.chance(0.85) ? Math.floor(address / align) * align : address;
  }
  #pointer(register: number, align: number): void {
    const random = this.#random;
    if (random.chance(0.02)) return;
    const high = this.#mode !== 64 || !random.chance(0.02) ? 0 : random.word();
    this.#set(register, this.#target(align), high);
    // What 16-bit addresses do not look at.
    if (this.#mode === 16 && random.chance(0.5)) this.#set(register, (this.#low(register) & 0xffff) | (random.word() << 16));
  }

  // --- code ---------------------------------------------------------------------------------------------------------

  #encode(row: Row, n: number): void {
    const random = this.#random;
    const long = this.#mode === 64;
    const has = (attribute: string): boolean => row.attributes.has(attribute);
    const code: number[] = [];
    this.#code = code;

    // Legacy prefixes.
    let operandPrefix = row.prefix === 1;
    if (row.prefix === undefined) operandPrefix = random.chance(row.sized || has('d64') ? 0.25 : 0.03);
    else if (row.prefix >= 2) operandPrefix = random.chance(row.sized ? 0.15 : 0.03);
    const addressPrefix = random.chance(0.07);
    let segment = random.chance(0.08) ? random.pick([0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65]) : 0;
    if (!long && segment >= 0x64 && random.chance(0.7)) segment = 0;
    let memory = row.hasModrm && row.allowsMemory;
    if (memory && row.allowsRegister && row.modrm === undefined) memory = random.chance(0.5);
    if (row.modrm !== undefined) memory = false;
    if (row.vex) {
      this.#encodeVex(row, n, memory, addressPrefix, segment);
      return;
    }
    const lock = random.chance(has('lock') && memory ? 0.25 : 0.005);
    const prefixes: number[] = [];
    if (operandPrefix) prefixes.push(0x66);
    if (addressPrefix) prefixes.push(0x67);
    if (segment !== 0) prefixes.push(segment);
    if (lock) prefixes.push(0xf0);
    if (row.prefix === 2) prefixes.push(0xf3);
    else if (row.prefix === 3) prefixes.push(0xf2);
    else if (
      row.prefix === undefined &&
      row.map < 2 &&
      random.chance(has('string') ? 0.6 : 0.02) &&
      row.opcode !== 0xae &&
      row.opcode !== 0xc7 &&
      row.opcode !== 0x90
    )
      prefixes.push(random.pick([0xf2, 0xf3]));
    for (let k = prefixes.length - 1; k > 0; k--) {
      const other = random.below(k + 1);
      [prefixes[k], prefixes[other]] = [prefixes[other], prefixes[k]];
    }
    code.push(...prefixes);

    let rex = 0;
    if (long) {
      if (random.chance(row.sized || has('d64') ? 0.35 : 0.06)) rex |= 8;
      if (random.chance(0.35)) rex |= random.below(8);
      if (rex !== 0 || random.chance(0.1)) rex |= 0x40;
    }
    const wide = (rex & 8) !== 0;
    const narrow = operandPrefix && row.prefix !== 1;
    const size = long ? (wide || has('f64') ? 64 : narrow ? 16 : has('d64') ? 64 : 32) : narrow === (this.#mode === 32) ? 16 : 32;
    const addressSize = long ? (addressPrefix ? 32 : 64) : addressPrefix === (this.#mode === 32) ? 16 : 32;

    const top = this.#mode === 16 ? this.#low(RSP) & 0xffff : this.#low(RSP);
    if (row.mnemonic === 'POP_SEG') this.#put(top, 2, this.#selector());
    else if (row.mnemonic === 'RET_FAR') this.#putFar(top, size / 8, size / 8);
    else if (row.mnemonic === 'IRET') {
      this.#putFar(top, size / 8, size / 8);
      this.#put(top + size / 4, size / 8, (random.word() & FLAG_CHOICES) | 0x202 | (random.chance(0.1) ? 0x240000 : 0));
      this.#put(top + (3 * size) / 8, size / 8, DATA + random.below(DATA_BYTES));
      this.#put(top + size / 2, size / 8, random.chance(0.6) ? USER_DATA : this.#selector());
    }

    // ModRM, SIB and displacement.
    const tail: number[] = [];
    let target = -1;
    let relativeAt = -1;
    let reg = row.digit ?? random.below(8);
    if (row.modrm !== undefined) tail.push(row.modrm + random.below(row.modrmCount + 1));
    else if (row.hasModrm) {
      const kinds = row.operands;
      if (kinds.some((operand) => operand.kind === 'S')) reg = random.below(8);
      const bit = kinds.find((operand) => 'GVPSCD'.includes(operand.kind));
      const full = reg | (bit !== undefined && (rex & 4) !== 0 ? 8 : 0);
      // Bit offsets reach far from their operand.
      if (/^BT/.test(row.mnemonic) && row.operands[1].kind === 'G' && memory && random.chance(0.95)) {
        const offset = random.below(16000) - 8000;
        this.#set(full, offset, offset >> 31);
      }
      if (!memory) {
        const rm = random.below(8);
        tail.push(0xc0 | (reg << 3) | rm);
        const register = rm | ((rex & 1) << 3);
        if (SELECTORS_IN.test(row.mnemonic)) this.#set(register, this.#selector() | (random.word() << 16), random.word());
        if (row.mnemonic === 'CMPXCHG' && random.chance(0.4)) this.#set(register, this.#low(RAX), this.#high(RAX));
        if (has('end') && /_E$/.test(row.mnemonic) && random.chance(0.6)) this.#set(register, this.#landing);
      } else {
        target = this.#target(alignmentOf(row));
        relativeAt = this.#memoryOperand(tail, reg, rex, target, addressSize, segment, row.mnemonic === 'LEA');
        this.#matchAccumulator(row, target);
        if (row.mnemonic === 'XRSTOR') this.#image(target);
        if (/^(JMP|CALL)_E$/.test(row.mnemonic)) this.#land(target);
        if (SELECTORS_IN.test(row.mnemonic)) this.#put(target, 2, this.#selector());
        else if (row.mnemonic === 'LOAD_FAR') this.#put(target + size / 8, 2, this.#selector());
        else if (/^(JMP|CALL)_FAR_M$/.test(row.mnemonic)) this.#putFar(target, size / 8, 2);
      }
    }
    if (rex !== 0) code.push(rex);
    if (row.map > 0) code.push(0x0f);
    if (row.map === 2) code.push(0x38);
    if (row.map === 3) code.push(0x3a);
    let opcode = row.opcode;
    if (row.operands.some((operand) => operand.kind === 'Z')) opcode += random.below(8);
    code.push(opcode);
    const start = code.length;
    code.push(...tail);
    for (const operand of row.operands) this.#immediate(operand, size, addressSize, n);
    if (relativeAt >= 0) {
      // RIP-relative: known now that the length is.
      const disp = target - (codeAddress(n) + code.length);
      for (let k = 0; k < 4; k++) code[start + relativeAt + k] = (disp >> (8 * k)) & 0xff;
    }
  }

  #encodeVex(row: Row, n: number, memory: boolean, addressPrefix: boolean, segment: number): void {
    const random = this.#random;
    const long = this.#mode === 64;
    const code = this.#code;
    const prefixes: number[] = [];
    if (addressPrefix) prefixes.push(0x67);
    if (segment !== 0) prefixes.push(segment);
    // What must not stand before a VEX prefix.
    if (random.chance(0.01)) prefixes.push(random.pick([0x66, 0xf2, 0xf3, 0xf0]));
    if (long && random.chance(0.005)) prefixes.push(0x40 | random.below(16));
    code.push(...prefixes);
    const w = random.chance(0.005) ? random.below(2) : (row.vexW ?? (random.chance(0.6) ? 0 : 1));
    const l = random.chance(0.005) ? random.below(2) : (row.vexL ?? random.below(2));
    let vvvv = random.chance(0.01) ? random.below(16) : 0;
    if (row.first?.kind === 'H' || row.operands.some(({ kind }) => kind === 'H' || kind === 'B'))
      vvvv = random.below(long || random.chance(0.1) ? 16 : 8);
    let extension = long && random.chance(0.6) ? random.below(8) : 0;
    // Outside 64-bit mode the two-byte prefix with its second bit clear would be LDS.
    const short = (long || vvvv < 8) && row.map === 1 && w === 0 && (extension & 3) === 0 && random.chance(0.7);
    if (short) extension &= 4;
    const rex = extension | (w << 3);
    const addressSize = long ? (addressPrefix ? 32 : 64) : addressPrefix === (this.#mode === 32) ? 16 : 32;

    const tail: number[] = [];
    let target = -1;
    let relativeAt = -1;
    const reg = row.digit ?? random.below(8);
    if (row.hasModrm) {
      if (!memory) tail.push(0xc0 | (reg << 3) | random.below(8));
      else {
        target = this.#target(row.operands.some(({ size }) => size === 'x') ? 16 << l : 1);
        if (row.attributes.has('vsib')) this.#vectorIndex(tail, reg, rex, target, row, segment);
        else relativeAt = this.#memoryOperand(tail, reg, rex, target, addressSize, segment, false);
      }
    }
    const last = (w << 7) | (((~vvvv & 15) | 0) << 3) | (l << 2) | (row.prefix ?? 0);
    if (short) code.push(0xc5, (((~rex >> 2) & 1) << 7) | (last & 0x7f));
    else code.push(0xc4, ((~rex & 7) << 5) | row.map, last);
    code.push(row.opcode);
    const start = code.length;
    code.push(...tail);
    for (const operand of row.operands)
      if (operand.kind === 'L') code.push(random.below(256));
      else this.#immediate(operand, 32, addressSize, n);
    if (relativeAt >= 0) {
      const disp = target - (codeAddress(n) + code.length);
      for (let k = 0; k < 4; k++) code[start + relativeAt + k] = (disp >> (8 * k)) & 0xff;
    }
  }

  /** A memory operand whose index is a vector of small numbers. */
  #vectorIndex(tail: number[], reg: number, rex: number, target: number, row: Row, segment: number): void {
    const random = this.#random;
    const mod = random.below(3);
    const sib = random.below(256);
    tail.push((mod << 6) | (reg << 3) | (random.chance(0.01) ? random.below(8) : 4), sib);
    const index = ((sib >> 3) & 7) | ((rex & 2) << 2);
    this.#hold(16 + index);
    const wide = /GATHERQ/.test(row.mnemonic);
    for (const part of [XMM, CASE_YMM])
      for (let k = 0; k < 4; k++) {
        const at = ((this.#at + part) >> 2) + 4 * index + k;
        const value = random.chance(0.97) ? random.below(400) - 200 : random.word();
        this.#words[at] = wide && (k & 1) === 1 ? this.#words[at - 1] >> 31 : value;
      }
    const base = (sib & 7) | ((rex & 1) << 3);
    const none = (sib & 7) === 5 && mod === 0;
    let goal = target;
    if (segment === 0x64) goal -= this.#words[(this.#at + FS_BASE) >> 2];
    if (segment === 0x65) goal -= this.#words[(this.#at + GS_BASE) >> 2];
    let disp = mod === 1 ? random.below(256) - 128 : random.word();
    if (none) disp = goal;
    else {
      const value = BigInt.asUintN(64, BigInt(goal) - BigInt(mod === 0 ? 0 : disp));
      this.#set(base, Number(value & 0xffffffffn), Number(value >> 32n));
    }
    for (let k = 0; k < (none || mod === 2 ? 4 : mod); k++) tail.push((disp >> (8 * k)) & 0xff);
  }

  /** Pushes modrm, SIB and displacement, and sets registers so that they give `target`. Returns where a RIP-relative displacement lies. */
  #memoryOperand(
    tail: number[],
    reg: number,
    rex: number,
    target: number,
    addressSize: number,
    segment: number,
    free: boolean,
  ): number {
    const random = this.#random;
    let mod = random.below(3);
    const rm = random.below(8);
    tail.push((mod << 6) | (reg << 3) | rm);
    if (addressSize === 16) {
      this.#memoryOperand16(tail, mod, rm, target);
      return -1;
    }
    const long = this.#mode === 64;
    let goal = target;
    if (long && segment === 0x64) goal -= this.#words[(this.#at + FS_BASE) >> 2];
    if (long && segment === 0x65) goal -= this.#words[(this.#at + GS_BASE) >> 2];
    let base = rm | ((rex & 1) << 3);
    let index = -1;
    let scale = 0;
    if (rm === 4) {
      const sib = random.below(256);
      tail.push(sib);
      index = ((sib >> 3) & 7) | ((rex & 2) << 2);
      if (index === 4) index = -1;
      scale = sib >> 6;
      base = (sib & 7) | ((rex & 1) << 3);
      if ((sib & 7) === 5 && mod === 0) base = -1;
    } else if (rm === 5 && mod === 0) {
      if (long) {
        const at = tail.length;
        tail.push(0, 0, 0, 0);
        return at;
      }
      base = -1;
    }
    if (index >= 0) this.#hold(index);
    const wide = free && random.chance(0.7);
    const push = (value: number): void => {
      for (let k = 0; k < 4; k++) tail.push((value >> (8 * k)) & 0xff);
    };
    if (base < 0) {
      // Displacement alone, or with an index.
      if (index >= 0 && !wide) this.#set(index, random.below(256));
      push(wide ? random.word() : goal - (index >= 0 ? this.#low(index) << scale : 0));
      return -1;
    }
    if (base === index) {
      if (mod !== 2) {
        mod = 2;
        tail[0] = (tail[0] & 0x3f) | 0x80;
      }
      if (!wide) this.#set(base, random.below(256));
      push(wide ? random.word() : goal - this.#low(base) * (1 + (1 << scale)));
      return -1;
    }
    let disp = 0;
    if (mod === 1) {
      disp = random.below(256) - 128;
      tail.push(disp & 0xff);
    } else if (mod === 2) {
      disp = random.word();
      push(disp);
    }
    if (wide) return -1;
    if (index >= 0 && random.chance(0.5)) {
      const small = random.below(512) - 256;
      this.#set(index, small, small >> 31);
    }
    let value = BigInt(goal) - BigInt(disp);
    if (index >= 0) value -= ((BigInt(this.#high(index)) << 32n) | BigInt(this.#low(index))) << BigInt(scale);
    value = BigInt.asUintN(64, value);
    // With a 32-bit address the upper half does not matter.
    if (addressSize === 32 && long) value ^= BigInt(random.word() >>> 0) << 32n;
    if (random.chance(0.01)) value ^= 1n << BigInt(random.below(64));
    this.#set(base, Number(value & 0xffffffffn), Number(value >> 32n));
    return -1;
  }

  /** The same with a 16-bit address: its displacement, and registers that give `target`. */
  #memoryOperand16(tail: number[], mod: number, rm: number, target: number): void {
    const random = this.#random;
    const alone = mod === 0 && rm === 6;
    let disp = alone ? target : mod === 0 ? 0 : mod === 1 ? random.below(256) - 128 : random.word();
    // In flat code there is nothing at such addresses: any do.
    if (alone && this.#mode === 32) disp = random.word();
    for (let k = 0; k < (alone ? 2 : mod); k++) tail.push((disp >> (8 * k)) & 0xff);
    if (alone) return;
    const [base, index] = ADDRESSES16[rm];
    let value = target - disp;
    if (index >= 0) {
      value -= this.#low(index);
      this.#hold(index);
    }
    // Only the low halves are added.
    this.#set(base, (value & 0xffff) | (random.chance(0.5) ? random.word() << 16 : 0));
  }

  /** Writes into the operands' pages; `target` is an offset in the data segment. */
  #put(target: number, bytes: number, value: number): void {
    const offset = target + (this.#mode === 16 ? BASE16 : 0) - DATA;
    if (offset < 0 || offset + bytes > AREA_BYTES) return;
    for (let k = 0; k < bytes; k++) this.#memory[offset + k] = k < 4 ? value >> (8 * k) : 0;
    this.#heldMemory.fill(1, offset, offset + bytes);
  }
  /** Puts the address of breakpoints where a jump of 16-bit code takes it from: half of all words are addresses of cases. */
  #land(target: number): void {
    if (this.#mode === 16) this.#put(target, 4, this.#landing);
  }
  /** A far pointer to breakpoints, mostly: an offset of `bytes`, a selector of `wide` bytes. */
  #putFar(target: number, bytes: number, wide: number): void {
    const selector = this.#codeSelector();
    this.#put(target, bytes, landingOf(selector));
    this.#put(target + bytes, wide, selector);
  }
  /** A selector of any kind: of the local table, of Linux's, null, outside of the tables. */
  #selector(): number {
    const random = this.#random;
    if (random.chance(0.7)) return local(random.below(LOCAL.length), random.chance(0.8) ? 3 : random.below(4));
    if (random.chance(0.6)) return Number(random.pick(Object.keys(GLOBAL))) + (random.chance(0.8) ? 3 : random.below(4));
    return random.pick([0, 1, 2, 3, local(LOCAL.length), GLOBAL_BYTES, 0xfffb, 0xffff]);
  }
  #codeSelector(): number {
    const random = this.#random;
    const selector = random.chance(0.4) ? this.#selector() : random.pick([local(0), local(0), local(5), USER32, USER64]);
    // On a 16-bit stack Linux leaves bits of its own in the upper half of RSP, which 64-bit code would use.
    return this.#mode === 16 && (selector & ~3) === (USER64 & ~3) ? local(0) : selector;
  }

  /** Makes compare-and-exchange succeed half of the time. */
  #matchAccumulator(row: Row, target: number): void {
    if (!/^CMPXCHG/.test(row.mnemonic) || this.#random.chance(0.5)) return;
    const offset = target + (this.#mode === 16 ? BASE16 : 0) - DATA;
    if (offset < 0 || offset + 16 > AREA_BYTES) return;
    const view = new DataView(this.#memory.buffer);
    const half = row.mnemonic === 'CMPXCHG8B' && this.#random.chance(0.5) ? 4 : 8;
    this.#set(RAX, view.getUint32(offset, true), view.getUint32(offset + 4, true));
    if (row.mnemonic !== 'CMPXCHG8B') return;
    if (half === 4) this.#set(RDX, view.getUint32(offset + 4, true), this.#high(RDX));
    else this.#set(RDX, view.getUint32(offset + 8, true), view.getUint32(offset + 12, true));
  }

  /** An XSAVE area that XRSTOR takes, mostly. */
  #image(target: number): void {
    const random = this.#random;
    const offset = target + (this.#mode === 16 ? BASE16 : 0) - DATA;
    if (offset < 0 || offset + 832 > AREA_BYTES || random.chance(0.05)) return;
    const view = new DataView(this.#memory.buffer);
    this.#heldMemory.fill(1, offset + 24, offset + 28);
    this.#heldMemory.fill(1, offset + 512, offset + 576);
    this.#memory.fill(0, offset + 512, offset + 576);
    const compacted = random.chance(0.5);
    const format = random.below(8);
    view.setUint32(offset + 512, random.below(8) & (compacted ? format : 7), true);
    if (compacted) {
      view.setUint32(offset + 520, format, true);
      view.setUint32(offset + 524, 0x80000000, true);
    }
    if (random.chance(0.05)) this.#memory[offset + 512 + random.below(64)] = random.word();
    view.setUint32(offset + 24, random.word() & 0xffff, true);
    this.#set(RAX, random.below(16));
  }

  #immediate(operand: Operand, size: number, addressSize: number, n: number): void {
    const random = this.#random;
    const code = this.#code;
    const push = (bytes: number, low: number, high = 0): void => {
      for (let k = 0; k < bytes; k++) code.push(((k < 4 ? low : high) >> (8 * (k & 3))) & 0xff);
    };
    if (operand.kind === 'I') {
      const scratch = new Uint32Array(2);
      random.integer(scratch, 0);
      switch (operand.size) {
        case 'b':
        case 'bs':
          push(1, random.chance(0.5) ? random.word() : scratch[0]);
          break;
        case 'b2':
          push(1, random.chance(0.9) ? random.below(4) : random.word());
          break;
        case 'w':
          push(2, random.chance(0.7) ? random.below(300) : scratch[0]);
          break;
        case 'z':
          push(size === 16 ? 2 : 4, scratch[0]);
          break;
        default:
          push(size / 8, scratch[0], scratch[1]);
      }
    } else if (operand.kind === 'J') {
      const bytes = operand.size === 'b' ? 1 : size === 16 ? 2 : 4;
      const length = code.length + bytes;
      // To the breakpoints behind the code or before it; wide ones anywhere else too.
      let disp = random.chance(0.5) ? random.below(16) : -(length + 1 + random.below(SLOT_CODE - 2));
      if (bytes === 4 && random.chance(0.3)) {
        const far = random.word();
        const to = (codeAddress(n) + length + far) >>> 0;
        if (to < CODE - 64 || to >= CODE + CODE_BYTES) disp = far;
      }
      push(bytes, disp);
    } else if (operand.kind === 'A') {
      const selector = this.#codeSelector();
      push(size / 8, landingOf(selector));
      push(2, selector);
    } else if (operand.kind === 'O') {
      const address = this.#target(1);
      push(addressSize / 8, address, addressSize === 64 && random.chance(0.03) ? random.word() : 0);
    }
  }
}

/** Where code of a selector finds breakpoints. */
const landingOf = (selector: number): number => ((selector & ~3) === local(0, 0) ? LANDING - CODE : LANDING);

/** What a memory operand is mostly aligned to. */
function alignmentOf(row: Row): number {
  if (row.mnemonic === 'CMPXCHG8B') return 16;
  if (/^XSAVE|^XRSTOR/.test(row.mnemonic)) return 64;
  return row.operands.some((operand) => operand.size === 'x') ? 16 : 1;
}
