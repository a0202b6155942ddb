/** Runs random cases on the host and the engine, counts by chapter, and shrinks and saves what differs. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { rows } from '../../../engine/accel/jit/handlers.ts';
import type { Row } from '../../../engine/x86/decode/rows.ts';
import { codeText, type Difference, differences, type Outcomes, outcomesOf, subjectOf } from './compare.ts';
import { exclusionOf, Generator } from './generate.ts';
import type { Guest } from './guest.ts';
import type { Host } from './host.ts';
import {
  AREA_BYTES,
  BATCH,
  type Batch,
  CASE_BYTES,
  CASE_YMM,
  CODE_AT,
  DONE,
  FLAGS,
  FS_BASE,
  GPR,
  GS_BASE,
  kindOf,
  LENGTH,
  MM,
  type Mode,
  MXCSR,
  OUTCOME_BYTES,
  TRAP,
  XMM,
} from './layout.ts';
import { chapterOf } from './rules.ts';

export const FAILURES: string = fileURLToPath(new URL('failures/', import.meta.url));

/** Of one chapter; in each list, of 64-bit, 32-bit and 16-bit code. */
export interface Count {
  readonly cases: [number, number, number];
  readonly faults: [number, number, number];
  readonly mismatches: [number, number, number];
  /** Rows of the tables that at least one case was made from. */
  readonly rows: Set<Row>;
}

export interface Mismatch {
  /** The row of the table, or `invalid` where the engine knows no such instruction. */
  readonly text: string;
  readonly code: string;
  readonly mode: Mode;
  readonly differences: readonly Difference[];
  readonly batch: Batch;
  readonly index: number;
}

export interface Report {
  readonly seed: number;
  readonly cases: number;
  readonly seconds: number;
  readonly chapters: ReadonlyMap<string, Count>;
  readonly mismatches: readonly Mismatch[];
  readonly total: number;
}

export interface Options {
  readonly seed: number;
  readonly cases: number;
  /** Cases for each piece of code, each of other registers and memory; 1 by default. Making a region takes longer than running it. */
  readonly states?: number;
  /** Ends earlier after this long. */
  readonly seconds?: number;
  readonly only?: (row: Row) => boolean;
  /** Mismatches kept in full. */
  readonly keep?: number;
  readonly progress?: (cases: number, mismatches: number) => void;
}

export function campaign(host: Host, guest: Guest, options: Options): Report {
  const generator = new Generator(options.seed, { features: host.features, only: options.only });
  const chapters = new Map<string, Count>();
  const mismatches: Mismatch[] = [];
  const seen = new Set<string>();
  const began = performance.now();
  let cases = 0;
  let total = 0;
  let first: Batch | undefined;
  let state = 0;
  while (cases < options.cases && (performance.now() - began) / 1000 < (options.seconds ?? Number.POSITIVE_INFINITY)) {
    const next = state++ % (options.states ?? 1);
    if (next === 0 || first === undefined) first = generator.batch(Math.min(BATCH, options.cases - cases));
    const batch = next === 0 ? first : generator.variant(first);
    const expected = outcomesOf(host.run(batch));
    const actual = outcomesOf(guest.run(batch));
    const kind = kindOf(batch.mode);
    for (let n = 0; n < batch.count; n++) {
      const row = generator.rowOf(n);
      const chapter = chapterOf(row);
      let count = chapters.get(chapter);
      if (count === undefined) {
        count = { cases: [0, 0, 0], faults: [0, 0, 0], mismatches: [0, 0, 0], rows: new Set() };
        chapters.set(chapter, count);
      }
      count.cases[kind]++;
      count.rows.add(row);
      if (expected.words[(n * OUTCOME_BYTES + TRAP) >> 2] !== DONE) count.faults[kind]++;
      const list = differences(batch, expected, actual, n);
      if (list.length === 0) continue;
      count.mismatches[kind]++;
      total++;
      // One of each kind is enough.
      const text = subjectOf(batch, n, DONE)?.row.text ?? 'invalid';
      const key = `${text} ${list.map((difference) => difference.field).join()}`;
      if (seen.has(key) || mismatches.length >= (options.keep ?? 100)) continue;
      seen.add(key);
      mismatches.push({
        text,
        code: codeText(batch, n),
        mode: batch.mode,
        differences: list,
        batch,
        index: n,
      });
    }
    cases += batch.count;
    options.progress?.(cases, total);
  }
  return { seed: options.seed, cases, seconds: (performance.now() - began) / 1000, chapters, mismatches, total };
}

const WIDTHS = [11, 9, 7, 11, 9, 7, 11, 9, 7, 6, 6];
const NOTHING: Count = { cases: [0, 0, 0], faults: [0, 0, 0], mismatches: [0, 0, 0], rows: new Set() };

/** The table that the long command prints: by chapter and mode; how many rows of the decode tables were run, and are left out. */
export function table(report: Report, features: ReadonlySet<string>): string {
  const lines: string[] = [];
  const left = new Map<string, number>();
  const reasons = new Map<string, Set<string>>();
  const unlucky: string[] = [];
  for (const row of rows) {
    const reason = exclusionOf(row, features);
    const chapter = chapterOf(row);
    if (reason === undefined) {
      if (report.chapters.get(chapter)?.rows.has(row) !== true) unlucky.push(row.text);
      continue;
    }
    left.set(chapter, (left.get(chapter) ?? 0) + 1);
    const names = reasons.get(reason) ?? new Set();
    reasons.set(reason, names.add(row.mnemonic));
  }
  const chapters = [...new Set([...report.chapters.keys(), ...left.keys()])].sort((a, b) =>
    a.localeCompare(b, 'en', { numeric: true }),
  );
  const line = (name: string, cells: readonly (string | number)[]): void => {
    lines.push(name.padEnd(26) + cells.map((cell, n) => String(cell).padStart(WIDTHS[n])).join(''));
  };
  const cellsOf = ({ cases, faults, mismatches, rows: run }: Count, out: number): number[] => [
    ...[0, 1, 2].flatMap((kind) => [cases[kind], faults[kind], mismatches[kind]]),
    ...[run.size, out],
  ];
  const modes = ['cases', 'faults', 'wrong'];
  line('', ['64-bit', '', '', '32-bit', '', '', '16-bit', '', '', 'rows', '']);
  line('SDM volume 1', [...modes, ...modes, ...modes, 'run', 'out']);
  const sum = WIDTHS.map(() => 0);
  for (const chapter of chapters) {
    const cells = cellsOf(report.chapters.get(chapter) ?? NOTHING, left.get(chapter) ?? 0);
    for (const [n, cell] of cells.entries()) sum[n] += cell;
    line(chapter, cells);
  }
  line('all', sum);
  lines.push('', 'Left out:');
  for (const [reason, names] of reasons) lines.push(`  ${[...names].join(' ')}: ${reason}`);
  lines.push('  near branches of 16-bit code beyond its segment: the engine tells the #GP at the target, the host at the branch');
  if (unlucky.length > 0) lines.push('', 'No case was made from:', ...unlucky.map((text) => `  ${text}`));
  lines.push(
    '',
    `${report.cases} cases, ${report.total} mismatches, seed ${report.seed}, ${report.seconds.toFixed(1)} s, ${Math.round(report.cases / report.seconds)} a second`,
  );
  return lines.join('\n');
}

// --- shrinking ------------------------------------------------------------------------------------------------------

/** Fields of a case that shrinking sets to zero (MXCSR: to its default), one after the other. */
const PARTS: readonly { at: number; bytes: number; value?: number }[] = [
  ...Array.from({ length: 16 }, (_, n) => ({ at: XMM + 16 * n, bytes: 16 })),
  ...Array.from({ length: 16 }, (_, n) => ({ at: CASE_YMM + 16 * n, bytes: 16 })),
  ...Array.from({ length: 8 }, (_, n) => ({ at: MM + 8 * n, bytes: 8 })),
  { at: FLAGS, bytes: 4 },
  { at: MXCSR, bytes: 4, value: 0x1f80 },
  { at: FS_BASE, bytes: 8 },
  { at: GS_BASE, bytes: 8 },
  ...Array.from({ length: 16 }, (_, n) => ({ at: GPR + 8 * n, bytes: 8 })),
];

/** Makes a failing case simpler while it goes on failing; gives a batch of that one case. */
export function shrink(host: Host, guest: Guest, mismatch: Mismatch): Batch {
  const { mode, index } = mismatch;
  let memory: Uint8Array = mismatch.batch.memory;
  let best: Uint8Array = mismatch.batch.cases.slice(index * CASE_BYTES, (index + 1) * CASE_BYTES);
  const fails = (cases: Uint8Array[], over: Uint8Array): boolean[] => {
    const bytes = new Uint8Array(cases.length * CASE_BYTES);
    for (const [n, each] of cases.entries()) bytes.set(each, n * CASE_BYTES);
    const batch = { count: cases.length, mode, memory: over, cases: bytes };
    const expected = outcomesOf(host.run(batch));
    const actual = outcomesOf(guest.run(batch));
    return cases.map((_, n) => differences(batch, expected, actual, n).length > 0);
  };
  // The slot matters to some: where the case does not fail in the first one, it stays as it is.
  if (!fails([best], memory)[0]) return { count: 1, mode, memory, cases: best };
  const zero = new Uint8Array(AREA_BYTES);
  if (fails([best], zero)[0]) memory = zero;
  else
    for (let at = 0; at < AREA_BYTES; at += 1024) {
      const candidate = memory.slice().fill(0, at, at + 1024);
      if (fails([best], candidate)[0]) memory = candidate;
    }
  // All parts at once as far as they are independent, then those that are left one at a time.
  const simpler = (from: Uint8Array, part: (typeof PARTS)[number]): Uint8Array => {
    const candidate = from.slice().fill(0, part.at, part.at + part.bytes);
    if (part.value !== undefined) new DataView(candidate.buffer).setUint32(part.at, part.value, true);
    return candidate;
  };
  const alone = fails(
    PARTS.map((part) => simpler(best, part)),
    memory,
  );
  for (const [n, part] of PARTS.entries()) {
    if (!alone[n]) continue;
    const candidate = simpler(best, part);
    if (fails([candidate], memory)[0]) best = candidate;
  }
  return { count: 1, mode, memory, cases: best };
}

// --- saved cases ----------------------------------------------------------------------------------------------------

/** A case with what the host's CPU made of it: replayed without a host. Blocks are hex, with runs of zeros cut off at the end. */
export interface Saved {
  readonly instruction: string;
  readonly code: string;
  readonly mode: Mode;
  readonly input: string;
  /** Initial memory, by offset. */
  readonly memory: Readonly<Record<string, string>>;
  readonly outcome: string;
  /** What was wrong when it was saved. */
  readonly wrong: readonly string[];
}

const pack = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(00)+$/, '');
const unpack = (text: string, bytes: number): Uint8Array => {
  const block = new Uint8Array(bytes);
  block.set(Buffer.from(text, 'hex'));
  return block;
};

export function save(host: Host, batch: Batch, text: string, wrong: readonly Difference[], folder = FAILURES): string {
  const memory: Record<string, string> = {};
  for (let at = 0; at < AREA_BYTES; at += 64) {
    const piece = pack(batch.memory.subarray(at, at + 64));
    if (piece !== '') memory[at] = piece;
  }
  const saved: Saved = {
    instruction: text,
    code: codeText(batch, 0),
    mode: batch.mode,
    input: pack(batch.cases.subarray(0, CASE_BYTES)),
    memory,
    outcome: pack(host.run(batch)),
    wrong: wrong.map(({ field, host: right, engine }) => `${field}: ${right}, not ${engine}`),
  };
  const name = `${(text.split(' ')[1] ?? text).toLowerCase()}-${saved.mode}-${saved.code}.json`;
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${name}`, `${JSON.stringify(saved, undefined, 2)}\n`);
  return name;
}

/** Runs a saved case on the engine; what differs from what the host gave. */
export function replay(guest: Guest, saved: Saved): Difference[] {
  const memory = new Uint8Array(AREA_BYTES);
  for (const [at, piece] of Object.entries(saved.memory)) memory.set(Buffer.from(piece, 'hex'), Number(at));
  const batch: Batch = { count: 1, mode: saved.mode, memory, cases: unpack(saved.input, CASE_BYTES) };
  const expected: Outcomes = outcomesOf(unpack(saved.outcome, OUTCOME_BYTES));
  return differences(batch, expected, outcomesOf(guest.run(batch)), 0);
}

export const savedCases = (): { name: string; saved: Saved }[] =>
  (existsSync(FAILURES) ? readdirSync(FAILURES) : [])
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => ({ name, saved: JSON.parse(readFileSync(`${FAILURES}${name}`, 'utf8')) as Saved }));

/** The registers and code of a one-case batch, to read. */
export function describe(batch: Batch): string {
  const view = new DataView(batch.cases.buffer, batch.cases.byteOffset);
  const registers = Array.from({ length: 16 }, (_, n) => view.getBigUint64(GPR + 8 * n, true).toString(16)).join(' ');
  const length = view.getUint32(LENGTH, true);
  const code = Buffer.from(batch.cases.subarray(CODE_AT, CODE_AT + length)).toString('hex');
  return `${batch.mode}-bit ${code}, registers ${registers}, flags ${view.getUint32(FLAGS, true).toString(16)}`;
}
