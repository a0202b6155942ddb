/** Cases for one instruction, how our unit runs them, and how two answers compare. */
import { fpuStruct } from '../../../engine/x86/fpu/fpu-state.ts';
import { Outcome, X87 } from '../../../engine/x86/fpu/x87.ts';
import { loadLength } from '../../../engine/x86/fpu/x87-forms.ts';
import { float32, float64, type Instruction, near, operand, type Random, writeRaw } from './cases.ts';
import { AX, CODE, CODE_LENGTH, EFLAGS, IMAGE, MEMORY, RECORD } from './harness.ts';

/** Fills a record with a random start for the instruction. */
export function makeCase(random: Random, instruction: Instruction, record: Uint8Array): void {
  const view = new DataView(record.buffer, record.byteOffset, RECORD);
  // Masks: all set mostly, else random.
  const masks = random.chance(60) ? 0x3f : random.below(64);
  view.setUint32(0, 0xffff0040 | masks | (random.pick([0, 2, 3]) << 8) | (random.below(4) << 10), true);
  // Flags already there must be masked, but now and then, so that they are pending.
  let flags = random.chance(80) ? 0 : random.below(128);
  if (random.chance(95)) flags &= masks | 0x40;
  view.setUint32(4, 0xffff0000 | flags | (random.below(8) << 8) | (random.below(8) << 11) | (random.below(2) << 14), true);
  const top = (view.getUint16(4, true) >> 11) & 7;
  let tags = 0;
  // Enough room for what pushes, enough operands for what pops, but not always.
  const depth = random.chance(90) ? 3 + random.below(5) : random.below(9);
  for (let i = 0; i < 8; i++) if (i >= depth && !random.chance(4)) tags |= 3 << (2 * ((top + i) & 7));
  if (instruction.modrm >= 0xc0 && (instruction.modrm & 7) === 7 && random.chance(80)) tags &= ~(3 << (2 * ((top + 7) & 7)));
  view.setUint32(8, 0xffff0000 | tags, true);
  const first = operand(random);
  writeRaw(view, 28, first);
  for (let i = 1; i < 8; i++) writeRaw(view, 28 + i * 10, random.chance(25) ? near(random, first) : operand(random));
  for (let i = 0; i < 16; i += 4) view.setUint32(MEMORY + i, random.word(), true);
  const at = MEMORY;
  switch (instruction.memory) {
    case 'f32':
      view.setUint32(at, float32(random), true);
      break;
    case 'f64': {
      const [high, low] = float64(random);
      view.setUint32(at, low, true);
      view.setUint32(at + 4, high, true);
      break;
    }
    case 'f80':
      writeRaw(view, at, operand(random));
      break;
    case 'i16':
    case 'i32':
    case 'i64':
      if (random.chance(30)) view.setUint32(at, random.pick([0, 1, 0xffffffff, 0x80000000, 0x8000, 0x7fffffff, 0x7fff]), true);
      if (random.chance(30)) view.setUint32(at + 4, random.pick([0, 1, 0xffffffff, 0x80000000]), true);
      break;
    case 'bcd':
      for (let i = 0; i < 9; i++) record[at + i] = random.chance(20) ? 0 : (random.below(10) << 4) | random.below(10);
      break;
    case 'environment':
    case 'state':
      for (let i = 0; i < 128; i += 4) view.setUint32(at + i, random.word(), true);
      break;
  }
  const code = [...(instruction.narrow ? [0x66] : []), instruction.opcode, instruction.modrm];
  record[CODE_LENGTH] = code.length;
  record.set(code, CODE);
  view.setUint32(EFLAGS, random.word() & 0x8d5, true);
}

export const state = fpuStruct.at(new SharedArrayBuffer(fpuStruct.size), 0);
const x87 = new X87(state);

/** Our state from the record's image: FRSTOR, which never waits for anything here. */
export function loadOurs(record: Uint8Array): void {
  state.status = 0;
  x87.scratch.set(record.subarray(0, IMAGE));
  x87.memory(0xdd, 0x26);
}

/** Our state to the record's image: FNSAVE. */
export function saveOurs(record: Uint8Array): void {
  x87.memory(0xdd, 0x36);
  record.set(x87.scratch.subarray(0, IMAGE));
}

/** Runs a record on our unit, in the harness's manner. */
export function runOurs(record: Uint8Array, { opcode, modrm, narrow }: Instruction): void {
  const view = new DataView(record.buffer, record.byteOffset, RECORD);
  loadOurs(record);
  let eflags = view.getUint32(EFLAGS, true) | 0x202;
  let outcome: number;
  if (modrm >= 0xc0) outcome = x87.register(opcode, modrm, eflags);
  else {
    x87.scratch.fill(0);
    const length = loadLength(opcode, modrm, !narrow);
    x87.scratch.set(record.subarray(MEMORY, MEMORY + length));
    outcome = x87.memory(opcode, modrm, !narrow);
    if (outcome === Outcome.DONE) record.set(x87.scratch.subarray(0, x87.stored), MEMORY);
  }
  if (outcome === Outcome.FLAGS) eflags = (eflags & ~0x8d5) | x87.eflags;
  view.setUint32(EFLAGS, eflags, true);
  if (outcome === Outcome.AX) view.setUint32(AX, x87.ax, true);
  record[CODE_LENGTH] = outcome === Outcome.PENDING ? 1 : 0;
  saveOurs(record);
}

/** Status bits not compared, with the reason. */
function notCompared({ name }: Instruction): number {
  // SDM 2: FCOMI and its kin set C1 to 0, which this unit does; AMD processors leave it alone.
  if (/^FU?COMIP? /.test(name)) return 0x200;
  return 0;
}

export interface Difference {
  readonly what: string;
  readonly ours: string;
  readonly theirs: string;
}

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).reverse().toString('hex');

export function compare(instruction: Instruction, ours: Uint8Array, theirs: Uint8Array): Difference[] {
  const differences: Difference[] = [];
  const put = (what: string, a: Uint8Array, b: Uint8Array): void => {
    if (!Buffer.from(a).equals(Buffer.from(b))) differences.push({ what, ours: hex(a), theirs: hex(b) });
  };
  const word = (bytes: Uint8Array, at: number): number => bytes[at] | (bytes[at + 1] << 8);
  const show = (what: string, a: number, b: number): void => {
    if (a !== b) differences.push({ what, ours: a.toString(16), theirs: b.toString(16) });
  };
  show('fault', ours[CODE_LENGTH], theirs[CODE_LENGTH]);
  show('control', word(ours, 0), word(theirs, 0));
  const codes = ~notCompared(instruction);
  show('status', word(ours, 4) & codes, word(theirs, 4) & codes);
  show('tags', word(ours, 8), word(theirs, 8));
  for (let i = 0; i < 8; i++) put(`ST${i}`, ours.subarray(28 + i * 10, 38 + i * 10), theirs.subarray(28 + i * 10, 38 + i * 10));
  // Instruction and data pointers depend on where the harness lies, and on the operating system's context switches.
  const [from, to] = /ENV|SAVE/.test(instruction.name) ? (instruction.narrow ? [6, 14] : [12, 26]) : [0, 0];
  put('memory', ours.subarray(MEMORY, MEMORY + from), theirs.subarray(MEMORY, MEMORY + from));
  put('memory after', ours.subarray(MEMORY + to, RECORD), theirs.subarray(MEMORY + to, RECORD));
  show('eflags', word(ours, EFLAGS) & 0x8d5, word(theirs, EFLAGS) & 0x8d5);
  if (instruction.name === 'FNSTSW AX') show('ax', word(ours, AX), word(theirs, AX));
  return differences;
}

export function describe(record: Uint8Array): string {
  const word = (at: number): string => (record[at] | (record[at + 1] << 8)).toString(16);
  const registers = [0, 1, 2].map((i) => hex(record.subarray(28 + i * 10, 38 + i * 10)).replace(/^(....)/, '$1:'));
  return `cw=${word(0)} sw=${word(4)} tw=${word(8)} st0=${registers[0]} st1=${registers[1]} st2=${registers[2]} mem=${hex(record.subarray(MEMORY, MEMORY + 10))}`;
}
