/**
 * Makes regions: from the runs that a hot entry reaches to a compiled function. They lie in one page at first. Those
 * that are entered often become *far* regions, in 64-bit code: calls and branches are followed into other pages, as long
 * as these are mapped where they were. Offsets are bytes from the start of the page that the region is entered in.
 *
 * A module has no address of a record in it: those of runs are imported as globals, for each vCPU has its own.
 */
import { endsFlow } from '../../exec/bodies.ts';
import type { LoweringTarget } from '../../exec/code-writer.ts';
import { pageOfOffset, type RegionBlock, type RegionInstruction } from '../../exec/control-flow.ts';
import { MEMORY_HELPERS } from '../../exec/lower.ts';
import { RegionLowering, type RegionPlace } from '../../exec/region.ts';
import { ModuleBuilder } from '../../exec/wasm.ts';
import { type Body, Builder, type FieldName } from '../../ir/builder.ts';
import * as S from '../../memory/vcpu-state.ts';
import { emitPrelude, PRELUDE_KINDS } from '../../x86/emit/prelude.ts';
import { emitForm, FIRST_FORM, forms, HANDLER_TYPE, Handler, type HelperSignatures } from './handlers.ts';
import { MAX_BLOCKS, MAX_INSTRUCTIONS, type RegionJob, RUN } from './region-job.ts';

/** Entries after which a region is made anew with what it reaches in other pages: that takes longer to compile. */
export const FAR_ENTRIES = 60_000;
/** The most pages that V8 gives a memory: 4 and 16 GiB. */
const MEMORY32_PAGES = 65536;
const MEMORY64_PAGES = 262_144;
/** Places that a return is compared with at most. */
const MAX_RETURNS = 6;

/** The runs of a job. A *place* of a record is its byte in the copies; those of runs that are not in it come behind. */
export class JobRuns implements RegionPlace {
  readonly data: DataView;
  readonly bits: 16 | 32 | 64;
  readonly far: boolean;
  /** Pages that the code goes over to, from the entry's: the first of its globals have their pages of the backing. */
  readonly frames: number[] = [];
  /** Numbers of the runs that the code has addresses of, in the order of the globals behind. */
  readonly bases: number[] = [];
  readonly #places = new Map<number, number>();
  /** Number and first place of the run that each record belongs to. */
  readonly #runs: { readonly run: number; readonly first: number }[] = [];

  constructor({ runs, records, others, mode, far }: RegionJob) {
    this.data = new DataView(records.buffer, records.byteOffset, records.byteLength);
    const width = mode & 3;
    this.bits = width === 2 ? 64 : width === 1 ? 32 : 16;
    this.far = far;
    for (let at = 0; at < runs.length; at += RUN.words) {
      const offset = runs[at + RUN.offset];
      const first = runs[at + RUN.at] * S.RECORD_BYTES;
      this.#places.set(offset, first);
      for (let n = 0; n < runs[at + RUN.records]; n++) this.#runs[first / S.RECORD_BYTES + n] = { run: at / RUN.words, first };
    }
    for (const [n, offset] of others.entries()) {
      const first = records.byteLength + n * S.RECORD_BYTES;
      this.#places.set(offset, first);
      this.#runs[first / S.RECORD_BYTES] = { run: runs.length / RUN.words + n, first };
    }
  }

  find(offset: number): number {
    return this.#places.get(offset) ?? 0;
  }
  /** True where the run at an offset was handed over. */
  has(offset: number): boolean {
    const place = this.find(offset);
    return place !== 0 && place < this.data.byteLength;
  }
  /** Says which blocks there are, before code is made of them. */
  use(blocks: readonly RegionBlock[]): void {
    const pages = new Set(blocks.map(({ offset }) => pageOfOffset(offset)));
    if (pages.size > 1) this.frames.push(...pages);
  }
  frame(page: number): number {
    return this.frames.indexOf(page);
  }
  runOf(place: number): number {
    return this.#runs[place / S.RECORD_BYTES].run;
  }
  base(place: number): { global: number; distance: number } {
    const { run, first } = this.#runs[place / S.RECORD_BYTES];
    let global = this.bases.indexOf(run);
    if (global < 0) global = this.bases.push(run) - 1;
    return { global: this.frames.length + global, distance: place - first };
  }
}

interface Piece {
  readonly instructions: RegionInstruction[];
  /** Offset after the last instruction. */
  readonly end: number;
  /** The run ends there. */
  readonly falls: boolean;
}

/** A field of a record as the builder wants it. */
function fieldOf(data: DataView, record: number): (field: FieldName) => bigint {
  return (field) => {
    const at = record + S.RECORD[field];
    switch (field) {
      case 'a':
      case 'b':
      case 'c':
      case 'base':
      case 'index':
      case 'segment':
      case 'offset':
        return BigInt(data.getUint16(at, true));
      case 'length':
      case 'scale':
        return BigInt(data.getUint8(at));
      case 'wide':
        return data.getBigInt64(at, true);
      default:
        return BigInt(data.getInt32(at, true));
    }
  };
}

/** The instructions from a record to the end of its run, at most `limit`. */
export function readRun(source: Pick<JobRuns, 'data' | 'bits'>, start: number, first: number, limit: number): Piece {
  const { data } = source;
  const instructions: RegionInstruction[] = [];
  const page = start & ~0xfff;
  let record = first;
  let body: Body = [];
  let end = start;
  let falls = false;
  for (; instructions.length < limit; record += S.RECORD_BYTES) {
    const handler = data.getInt32(record, true);
    if (handler === Handler.CHECK) {
      const last = instructions[instructions.length - 1];
      if (last !== undefined) instructions[instructions.length - 1] = { ...last, check: true };
      continue;
    }
    const builder = new Builder(fieldOf(data, record));
    if (handler >= Handler.PRELUDE && handler < FIRST_FORM) {
      emitPrelude(builder, PRELUDE_KINDS[handler - Handler.PRELUDE]);
      body = builder.body;
      continue;
    }
    const form = forms[handler - FIRST_FORM];
    falls = handler === Handler.FALL;
    if (form === undefined) break;
    const direct = form.row.operands[0]?.kind === 'J';
    // Its target is cut to less than the mode's width: not where the sum leads.
    if (direct && form.size < source.bits) break;
    emitForm(builder, form);
    const offset = page + data.getUint16(record + S.RECORD.offset, true);
    const next = offset + data.getUint8(record + S.RECORD.length);
    const target = direct ? next + data.getInt32(record + S.RECORD.imm, true) : undefined;
    const call = form.row.mnemonic.startsWith('CALL');
    const returns = form.row.mnemonic === 'RET';
    const position = instructions.length + 1;
    const whole = [...body, ...builder.body];
    instructions.push({ record, offset, next, body: whole, target, check: false, call, returns, position });
    body = [];
    end = next;
    falls = form.row.attributes.has('end');
    if (falls) break;
  }
  return { instructions, end, falls };
}

/** The blocks of a region, and the offsets at which it can be entered: the hot one first, then where its calls return to. */
interface Collected {
  readonly blocks: RegionBlock[];
  readonly entries: number[];
}

/** Collects blocks from the entry; undefined where there is nothing worth translating. */
function collectBlocks(source: JobRuns, entry: number): Collected | undefined {
  const pieces = new Map<number, Piece>();
  const leaders = new Set<number>([entry]);
  const queue = [entry];
  let total = 0;
  const follow = (offset: number): void => {
    if (!pieces.has(offset) && source.has(offset)) queue.push(offset);
  };
  while (queue.length > 0 && pieces.size < MAX_BLOCKS && total < MAX_INSTRUCTIONS) {
    const offset = queue.shift() as number;
    if (pieces.has(offset)) continue;
    const piece = readRun(source, offset, source.find(offset) + S.RECORD_BYTES, MAX_INSTRUCTIONS - total);
    if (piece.instructions.length === 0) continue;
    pieces.set(offset, piece);
    leaders.add(offset);
    total += piece.instructions.length;
    for (const { target, next, body, call } of piece.instructions) {
      // What follows a call is entered by a return.
      if (call) follow(next);
      if (target === undefined && !body.some((statement) => statement.op === 'branch')) continue;
      if (target !== undefined && !leaders.has(target)) follow(target);
      leaders.add(next);
    }
    const last = piece.instructions[piece.instructions.length - 1];
    if (pageOfOffset(piece.end) !== pageOfOffset(offset) && !endsFlow(last.body)) follow(piece.end);
  }
  if (!pieces.has(entry)) return undefined;
  const blocks = cutBlocks(pieces);
  if (!blocks.has(entry)) return undefined;
  const returned = source.far ? linkReturns(blocks) : new Set<number>();
  const entries = [entry];
  for (const { instructions } of blocks.values()) {
    const { call, next } = instructions[instructions.length - 1];
    const enters = call && pageOfOffset(next) === 0 && blocks.has(next) && !returned.has(next);
    if (enters && !entries.includes(next)) entries.push(next);
  }
  return { blocks: [...blocks.values()], entries };
}

/** A target that a run was not found for is no leader; one that was is, also in the middle of other runs. */
function cutBlocks(pieces: ReadonlyMap<number, Piece>): Map<number, RegionBlock> {
  const blocks = new Map<number, RegionBlock>();
  for (const [start, piece] of pieces) {
    let current: RegionInstruction[] = [];
    let at = start;
    const close = (falls: number, ends = false): void => {
      if (current.length > 0 && !blocks.has(at)) {
        const branches = current.flatMap(({ body, target }) => (target !== undefined && hasBranch(body) ? [target] : []));
        blocks.set(at, { offset: at, instructions: current, branches, falls, ends });
      }
      current = [];
      at = falls;
    };
    for (const instruction of piece.instructions) {
      if (current.length > 0 && (pieces.has(instruction.offset) || blocks.has(instruction.offset))) {
        close(instruction.offset);
        // From here on the other run has the blocks.
        if (pieces.has(instruction.offset) && instruction.offset !== start) break;
      }
      current.push(instruction);
      if (hasBranch(instruction.body)) {
        close(instruction.next, piece.falls && instruction === piece.instructions.at(-1));
        if (endsFlow(instruction.body)) break;
      }
    }
    if (current.length > 0) close(piece.end, piece.falls);
  }
  return blocks;
}

/** Makes what follows calls the successors of the returns of the functions called; gives those that have one. */
function linkReturns(blocks: ReadonlyMap<number, RegionBlock>): ReadonlySet<number> {
  const sites = new Map<RegionBlock, Set<number>>();
  const returned = new Set<number>();
  const lastOf = ({ instructions }: RegionBlock): RegionInstruction => instructions[instructions.length - 1];
  for (const caller of blocks.values()) {
    const { call, next, target } = lastOf(caller);
    if (!call || target === undefined || !blocks.has(next)) continue;
    // The function: what is reached without going into the calls that it makes.
    const seen = new Set<number>();
    const queue = [target];
    for (let offset = queue.pop(); offset !== undefined; offset = queue.pop()) {
      const block = blocks.get(offset);
      if (block === undefined || seen.has(offset)) continue;
      seen.add(offset);
      const last = lastOf(block);
      if (last.returns) {
        const known = sites.get(block) ?? new Set();
        if (known.size === MAX_RETURNS) continue;
        sites.set(block, known.add(next));
        returned.add(next);
      } else if (last.call) queue.push(last.next);
      else queue.push(...block.branches, ...(endsFlow(last.body) ? [] : [block.falls]));
    }
  }
  for (const [block, offsets] of sites) block.branches = [...offsets];
  return returned;
}

function hasBranch(body: Body): boolean {
  return body.some(
    (statement) =>
      statement.op === 'branch' ||
      statement.op === 'jump' ||
      (statement.op === 'if' && (hasBranch(statement.then) || hasBranch(statement.else))),
  );
}

/** How modules of regions are made. */
export interface RegionOptions {
  readonly signatures: HelperSignatures;
  readonly memory64: boolean;
  /** Time is the instruction count. */
  readonly counting?: boolean;
  /** Entries after which a region becomes a far one; `FAR_ENTRIES` unless given. */
  readonly farEntries?: number;
}

export interface EncodedRegion {
  /** The module: exports `region`; imports `e` (memory, table, jump), `h` (helpers), `f` (by number: pages of the backing), `r` (by number: addresses of runs). */
  readonly bytes: Uint8Array;
  /** Numbers of the runs whose addresses it imports; from the number of the job's runs on they are its `others`. */
  readonly bases: readonly number[];
  /** The pages, from the entry's, whose pages of the backing it imports. */
  readonly frames: readonly number[];
  /** Numbers of the runs that it was made from. */
  readonly used: readonly number[];
  /** Offsets where it can be entered, the job's first. */
  readonly entries: readonly number[];
}

/** The blocks that a job's region is made of; undefined where there is nothing worth translating. */
export function blocksOf(
  job: RegionJob,
): { source: JobRuns; blocks: readonly RegionBlock[]; entries: readonly number[] } | undefined {
  const source = new JobRuns(job);
  const collected = collectBlocks(source, job.entry);
  if (collected === undefined) return undefined;
  source.use(collected.blocks);
  return { source, ...collected };
}

/** Makes a job's region; undefined where there is nothing worth translating. */
export function encodeRegion(job: RegionJob, options: RegionOptions): EncodedRegion | undefined {
  const found = blocksOf(job);
  if (found === undefined) return undefined;
  const { source, blocks, entries } = found;
  const names = new Set<string>(Object.keys(MEMORY_HELPERS));
  const collect = (body: Body): void => {
    for (const statement of body) {
      if (statement.op === 'call') names.add(statement.name);
      else if (statement.op === 'if') {
        collect(statement.then);
        collect(statement.else);
      } else if (statement.op === 'loop') collect(statement.body);
    }
  };
  for (const block of blocks) for (const instruction of block.instructions) collect(instruction.body);
  const module = new ModuleBuilder();
  module.name = 'region';
  const { memory64, counting } = options;
  // Whatever the memory's size: the code serves machines of all sizes.
  const maximumPages = memory64 ? MEMORY64_PAGES : MEMORY32_PAGES;
  module.memory = { module: 'e', name: 'memory', initialPages: 1, maximumPages, memory64 };
  module.table = { module: 'e', name: 'table', minimum: 1 };
  const indices = new Map<string, number>();
  for (const name of names) {
    const { params, result } = options.signatures[name];
    indices.set(name, module.import('h', name, { params, results: [result] }));
  }
  indices.set('$jump', module.import('e', 'jump', { params: ['i32', 'i64'], results: ['i32'] }));
  const target: LoweringTarget = {
    memory64,
    functionType: module.type(HANDLER_TYPE),
    counting,
    helper(name) {
      const index = indices.get(name);
      if (index === undefined) throw new Error(`no helper ${name}`);
      return index;
    },
  };
  const limit = source.far || source.bits !== 64 ? 0 : (options.farEntries ?? FAR_ENTRIES);
  const lowering = new RegionLowering(target, blocks, entries, source, limit);
  for (const n of source.frames.keys()) module.importGlobal('f', String(n), 'i32');
  for (const n of source.bases.keys()) module.importGlobal('r', String(n), 'i32');
  module.export('region', module.define(HANDLER_TYPE, lowering.locals, lowering.code.view(), lowering.hints));
  const used = new Set<number>();
  for (const { instructions } of blocks) for (const { record } of instructions) used.add(source.runOf(record));
  const { bases, frames } = source;
  return { bytes: module.build(), bases, frames, used: [...used], entries };
}
