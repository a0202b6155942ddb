/** Compares what the host and the engine made of a case. */

import { rows } from '../../../engine/accel/jit/handlers.ts';
import { Decoded, Decoder, Mode } from '../../../engine/x86/decode/decoder.ts';
import type { Row } from '../../../engine/x86/decode/rows.ts';
import {
  type Batch,
  BYTES,
  CASE_BYTES,
  CODE_AT,
  CR2,
  DONE,
  END,
  ERROR,
  FIRST,
  FLAGS,
  FS_BASE,
  GPR,
  GS_BASE,
  HASH,
  LENGTH,
  MM,
  MXCSR,
  OUTCOME_BYTES,
  OUTCOME_YMM,
  RIP,
  SELECTORS,
  TRAP,
  USER64,
  XMM,
} from './layout.ts';
import {
  clOf,
  codeOf,
  faultDiffers,
  faultsAtTarget,
  ranElsewhere,
  runsAway,
  type Subject,
  undefinedFlags,
  undefinedResult,
} from './rules.ts';

const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'];
/** Arithmetic flags, DF, IOPL, NT, AC, ID. IF, TF and RF belong to the kernel's side of a trap. */
const COMPARED_FLAGS = 0x247cd5;

export interface Difference {
  readonly field: string;
  readonly host: string;
  readonly engine: string;
}

export interface Outcomes {
  readonly bytes: Uint8Array;
  readonly words: Uint32Array;
}
export const outcomesOf = (bytes: Uint8Array): Outcomes => ({
  bytes,
  words: new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4),
});

const decoder = new Decoder(rows);
/** Mode bits of the decoder. */
const DECODED_AS = { 16: 0, 32: 1 | Mode.STACK32 | Mode.FLAT, 64: 2 };

/** The row that the code of case `n` decodes to; undefined where the engine finds none. */
export function subjectOf(batch: Batch, n: number, trap: number): Subject | undefined {
  const at = n * CASE_BYTES + CODE_AT;
  const result = decoder.decode(batch.cases, at, at + 15, DECODED_AS[batch.mode]);
  if (result !== Decoded.OK) return undefined;
  return { row: decoder.row, size: decoder.size, immediate: decoder.imm, cl: clOf(batch.cases, n), trap };
}

/** True where nothing at all differs: the quick path. */
export function identical(host: Outcomes, engine: Outcomes, n: number): boolean {
  const from = (n * OUTCOME_BYTES) >> 2;
  const flags = from + (FLAGS >> 2);
  for (let at = from, end = from + (OUTCOME_BYTES >> 2); at < end; at++)
    if (host.words[at] !== engine.words[at] && (at !== flags || ((host.words[at] ^ engine.words[at]) & COMPARED_FLAGS) !== 0))
      return false;
  return true;
}

/** What differs in case `n`; empty where the two agree in all that is defined. */
export function differences(batch: Batch, host: Outcomes, engine: Outcomes, n: number): Difference[] {
  if (identical(host, engine, n)) return [];
  const list: Difference[] = [];
  const out = n * OUTCOME_BYTES;
  const word = (side: Outcomes, offset: number): number => side.words[(out + offset) >> 2];
  const hex = (value: number): string => (value >>> 0).toString(16);
  const wide = (side: Outcomes, offset: number): string => hex(word(side, offset + 4)) + hex(word(side, offset)).padStart(8, '0');
  const both = (field: string, offset: number, words: number): void => {
    let differs = false;
    for (let k = 0; k < words; k++) if (word(host, offset + 4 * k) !== word(engine, offset + 4 * k)) differs = true;
    if (!differs) return;
    const text = (side: Outcomes): string =>
      Array.from({ length: words }, (_, k) => hex(word(side, offset + 4 * (words - 1 - k))).padStart(8, '0')).join('');
    list.push({ field, host: text(host), engine: text(engine) });
  };
  const trap = word(host, TRAP);
  const subject = subjectOf(batch, n, trap);
  if (subject !== undefined && undefinedResult(subject) !== undefined) return [];
  if (faultDiffers(subject?.row, codeOf(batch.cases, n), trap, word(engine, TRAP), word(engine, CR2 + 4)) !== undefined)
    return [];
  if (faultsAtTarget(batch.mode, trap, word(engine, TRAP), word(engine, RIP))) return [];
  if (runsAway(subject?.row, trap, word(engine, TRAP))) return [];
  if (word(host, RIP + 4) === 0 && ranElsewhere(subject?.row, n, word(host, RIP))) return [];
  // A far call that leaves 64-bit mode: AMD pushes as the mode that it goes to addresses.
  const leaves = batch.mode === 64 && subject?.row.mnemonic === 'CALL_FAR_M';
  if (leaves && batch.cases.subarray(n * CASE_BYTES + GPR + 36, n * CASE_BYTES + GPR + 40).some((byte) => byte !== 0)) return [];
  // AMD has one more bit: misaligned SSE mode.
  if (/^(V?LDMXCSR|XRSTOR)$/.test(subject?.row.mnemonic ?? '') && (word(host, MXCSR) & 0x20000) !== 0) return [];
  both('trap', TRAP, 1);
  if (list.length === 0 && trap !== DONE) {
    // Above 4 GiB the harness has pages of its own, and the kernel hides which of its addresses are mapped (bit 0).
    const mask = trap === 14 && word(host, CR2 + 4) !== 0 ? ~1 : ~0;
    if (((word(host, ERROR) ^ word(engine, ERROR)) & mask) !== 0)
      list.push({ field: 'error', host: hex(word(host, ERROR)), engine: hex(word(engine, ERROR)) });
    // Which of the words that they pop is read first is not told.
    if (!/^(RET_FAR|IRET)$/.test(subject?.row.mnemonic ?? '')) both('cr2', CR2, 2);
  }
  both('rip', RIP, 2);
  const registers = batch.mode === 64 ? 16 : 8;
  // SDM 1, 3.4.1.1: upper halves are not kept when 64-bit mode is left.
  // (Cases that were saved before selectors were compared have none.)
  const cs = word(host, SELECTORS) >>> 16;
  const wholes = batch.mode === 64 && (cs === 0 || (cs & ~3) === (USER64 & ~3));
  const lar = subject?.row.mnemonic === 'LAR';
  for (let k = 0; k < registers; k++) {
    // SDM 2, LAR: bits 19 to 16 are undefined.
    const at = GPR + 8 * k;
    if (lar && ((word(host, at) ^ word(engine, at)) & ~0xf0000) === 0 && word(host, at + 4) === word(engine, at + 4)) continue;
    both(NAMES[k], at, wholes ? 2 : 1);
  }
  const mask = COMPARED_FLAGS & ~(subject === undefined ? 0 : undefinedFlags(subject));
  if (((word(host, FLAGS) ^ word(engine, FLAGS)) & mask) !== 0)
    list.push({ field: 'flags', host: hex(word(host, FLAGS) & mask), engine: hex(word(engine, FLAGS) & mask) });
  const selectors = (side: Outcomes): string =>
    // Linux may make null ones of any privilege zero when it switches tasks.
    Array.from({ length: 6 }, (_, k) => (word(side, SELECTORS + (k & ~1) * 2) >>> (16 * (k & 1))) & 0xffff)
      .map((selector) => hex(selector < 4 ? 0 : selector))
      .join(' ');
  if (cs !== 0 && selectors(host) !== selectors(engine))
    list.push({ field: 'segments', host: selectors(host), engine: selectors(engine) });
  both('mxcsr', MXCSR, 1);
  if (batch.mode === 64)
    for (const [field, offset] of [
      ['fs', FS_BASE],
      ['gs', GS_BASE],
    ] as const)
      if (wide(host, offset) !== wide(engine, offset)) both(field, offset, 2);
  for (let k = 0; k < 8; k++) both(`mm${k}`, MM + 8 * k, 2);
  for (let k = 0; k < registers; k++) both(`xmm${k}`, XMM + 16 * k, 4);
  for (let k = 0; k < registers; k++) both(`upper half of ymm${k}`, OUTCOME_YMM + 16 * k, 4);
  // MXCSR_MASK in the image: AMD has one more bit, so that no hash agrees; engine/x86/fpu/xsave.test.ts looks at the images.
  const image = subject !== undefined && /^XSAVE/.test(subject.row.mnemonic) && trap === DONE;
  // What a far call that faults has pushed is below the stack pointer.
  const pushed = trap !== DONE && /^CALL_FAR/.test(subject?.row.mnemonic ?? '');
  if (
    !image &&
    !pushed &&
    (word(host, HASH) !== word(engine, HASH) ||
      word(host, FIRST) !== word(engine, FIRST) ||
      word(host, END) !== word(engine, END))
  ) {
    const text = (side: Outcomes): string =>
      `${hex(word(side, FIRST))}-${hex(word(side, END))}: ${Buffer.from(side.bytes.subarray(out + BYTES, out + BYTES + 32)).toString('hex')}`;
    list.push({ field: 'memory', host: text(host), engine: text(engine) });
  }
  return list;
}

/** The row of case `n`, for tables; the engine's view of the bytes. */
export function rowOf(batch: Batch, n: number): Row | undefined {
  return subjectOf(batch, n, DONE)?.row;
}

/** The bytes of case `n` as hex. */
export function codeText(batch: Batch, n: number): string {
  const at = n * CASE_BYTES;
  return Buffer.from(batch.cases.subarray(at + CODE_AT, at + CODE_AT + batch.cases[at + LENGTH])).toString('hex');
}
