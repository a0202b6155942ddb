/**
 * Makes regions: from the runs that a hot entry reaches to a compiled function. They lie in one page at first. Those
 * that are entered often become *far* regions, in 64-bit code: calls and branches are followed into other pages, as long
 * as these are mapped where they were. Offsets are bytes from the start of the page that the region is entered in.
 */
import { endsFlow } from '../../exec/bodies.ts';
import type { LoweringTarget } from '../../exec/code-writer.ts';
import { pageOfOffset, type RegionBlock, type RegionInstruction } from '../../exec/control-flow.ts';
import { MEMORY_HELPERS } from '../../exec/lower.ts';
import { RegionLowering } from '../../exec/region.ts';
import { ModuleBuilder } from '../../exec/wasm.ts';
import { type Body, Builder, type FieldName } from '../../ir/builder.ts';
import * as S from '../../memory/vcpu-state.ts';
import { emitPrelude, PRELUDE_KINDS } from '../../x86/emit/prelude.ts';
import { emitForm, FIRST_FORM, forms, HANDLER_TYPE, Handler, type HelperSignatures, HOT_ENTRIES } from './handlers.ts';

const MAX_BLOCKS = 48;
const MAX_INSTRUCTIONS = 400;
/** Entries after which a region is made anew with what it reaches in other pages: that takes longer to compile. */
const FAR_ENTRIES = 250_000;
/** Places that a return is compared with at most. */
const MAX_RETURNS = 6;
/** A run of another page is followed into where it was entered at least once for so many entries of this one. */
const RARE = 8;

export interface RegionSource {
  readonly data: DataView;
  /** The run that starts at an offset; 0 where none was made, or its page is not known to be mapped. */
  find(offset: number): number;
  /** The page of the backing that page `n` from this one is. */
  frame(page: number): number;
  /** Other pages may be looked at. */
  readonly far: boolean;
  /** Width of the instruction pointer in the page's mode. */
  readonly bits: 16 | 32 | 64;
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
export function readRun(source: Pick<RegionSource, 'data'>, start: number, first: number, limit: number): Piece {
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
    emitForm(builder, form);
    const offset = page + data.getUint16(record + S.RECORD.offset, true);
    const next = offset + data.getUint8(record + S.RECORD.length);
    const direct = form.row.operands[0]?.kind === 'J';
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
export interface Collected {
  readonly source: RegionSource;
  readonly blocks: RegionBlock[];
  readonly entries: number[];
}

/** Collects blocks from the entry; undefined where there is nothing worth translating. */
export function collectBlocks(source: RegionSource, entry: number): Collected | undefined {
  const pieces = new Map<number, Piece>();
  const leaders = new Set<number>([entry]);
  const queue = [entry];
  const heat = heatOf(source, entry);
  let total = 0;
  const follow = (offset: number): void => {
    if (pieces.has(offset) || source.find(offset) === 0) return;
    if (pageOfOffset(offset) !== 0 && (!source.far || heatOf(source, offset) * RARE < heat)) return;
    queue.push(offset);
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
  return { source, blocks: [...blocks.values()], entries };
}

/** How often a run was entered. */
function heatOf({ data, find }: RegionSource, offset: number): number {
  const record = find(offset);
  if (data.getInt32(record, true) === Handler.COUNT) return data.getInt32(record + S.RECORD.imm, true);
  return HOT_ENTRIES + data.getInt32(record + S.RECORD.disp, true);
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

export interface RegionImports {
  readonly memory: WebAssembly.Memory;
  readonly table: WebAssembly.Table;
  readonly helpers: Record<string, unknown>;
  readonly jump: unknown;
}

/** Compiles the blocks; gives the module's bytes. */
export function encodeRegion(
  { source, blocks, entries }: Collected,
  signatures: HelperSignatures,
  memory: { memory64: boolean; pages: number; counting?: boolean; farEntries?: number },
): Uint8Array {
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
  module.memory = {
    module: 'e',
    name: 'memory',
    initialPages: memory.pages,
    maximumPages: memory.pages,
    memory64: memory.memory64,
  };
  module.table = { module: 'e', name: 'table', minimum: 1 };
  const indices = new Map<string, number>();
  for (const name of names) {
    const { params, result } = signatures[name];
    indices.set(name, module.import('h', name, { params, results: [result] }));
  }
  indices.set('$jump', module.import('e', 'jump', { params: ['i32', 'i64'], results: ['i32'] }));
  const target: LoweringTarget = {
    memory64: memory.memory64,
    functionType: module.type(HANDLER_TYPE),
    counting: memory.counting,
    helper(name) {
      const index = indices.get(name);
      if (index === undefined) throw new Error(`no helper ${name}`);
      return index;
    },
  };
  const lowering = new RegionLowering(
    target,
    blocks,
    entries,
    source,
    source.far || source.bits !== 64 ? 0 : (memory.farEntries ?? FAR_ENTRIES),
  );
  module.export('region', module.define(HANDLER_TYPE, lowering.locals, lowering.code.view(), lowering.hints));
  return module.build();
}
