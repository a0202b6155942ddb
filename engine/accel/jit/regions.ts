/** Makes regions: from the runs of one page that a hot entry reaches to a compiled function. */
import { type LoweringTarget, MEMORY_HELPERS } from '../../exec/lower.ts';
import { endsFlow, type RegionBlock, type RegionInstruction, RegionLowering } from '../../exec/region.ts';
import { ModuleBuilder } from '../../exec/wasm.ts';
import { type Body, Builder, type FieldName } from '../../ir/builder.ts';
import * as S from '../../memory/vcpu-state.ts';
import { emitPrelude, PRELUDE_KINDS } from '../../x86/emit/prelude.ts';
import { emitForm, FIRST_FORM, forms, HANDLER_TYPE, Handler, type HelperSignatures } from './handlers.ts';

const MAX_BLOCKS = 48;
const MAX_INSTRUCTIONS = 400;

export interface RegionSource {
  readonly data: DataView;
  /** The run that starts at an offset of the page; 0 where none was made. */
  find(offset: number): number;
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
function readRun(source: RegionSource, first: number, limit: number): Piece {
  const { data } = source;
  const instructions: RegionInstruction[] = [];
  let record = first;
  let body: Body = [];
  let end = data.getUint16(record + S.RECORD.offset, true);
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
    const offset = data.getUint16(record + S.RECORD.offset, true);
    const next = offset + data.getUint8(record + S.RECORD.length);
    const direct = form.row.operands[0]?.kind === 'J';
    const target = direct ? next + data.getInt32(record + S.RECORD.imm, true) : -1;
    const call = form.row.mnemonic.startsWith('CALL');
    const position = instructions.length + 1;
    instructions.push({ record, offset, next, body: [...body, ...builder.body], target, check: false, call, position });
    body = [];
    end = next;
    falls = form.row.attributes.has('end');
    if (falls) break;
  }
  return { instructions, end, falls };
}

/** The blocks of a region, and the offsets at which it can be entered: the hot one first, then where its calls return to. */
export interface Collected {
  /** The record of a run of the page by its offset, or 0. */
  readonly find: (offset: number) => number;
  readonly blocks: RegionBlock[];
  readonly entries: number[];
}

/** Collects blocks from the entry; undefined where there is nothing worth translating. */
export function collectBlocks(source: RegionSource, entry: number): Collected | undefined {
  const entries = [entry];
  const pieces = new Map<number, Piece>();
  const leaders = new Set<number>([entry]);
  const queue = [entry];
  let total = 0;
  while (queue.length > 0 && pieces.size < MAX_BLOCKS && total < MAX_INSTRUCTIONS) {
    const offset = queue.shift() as number;
    if (pieces.has(offset)) continue;
    const run = source.find(offset);
    if (run === 0) continue;
    const piece = readRun(source, run + S.RECORD_BYTES, MAX_INSTRUCTIONS - total);
    if (piece.instructions.length === 0) continue;
    pieces.set(offset, piece);
    leaders.add(offset);
    total += piece.instructions.length;
    for (const { target, next, body, call } of piece.instructions) {
      // What follows a call is entered by a return.
      if (call && next < 4096 && source.find(next) !== 0) {
        if (!leaders.has(next)) queue.push(next);
        if (!entries.includes(next)) entries.push(next);
      }
      if (target < 0 && !body.some((statement) => statement.op === 'branch')) continue;
      if (target >= 0 && target < 4096 && !leaders.has(target) && source.find(target) !== 0) queue.push(target);
      leaders.add(next);
    }
  }
  if (!pieces.has(entry)) return undefined;
  // A target that a run was not found for is no leader; one that was is, also in the middle of other runs.
  const blocks = new Map<number, RegionBlock>();
  const starts = [...pieces.keys()];
  for (const start of starts) {
    const piece = pieces.get(start) as Piece;
    let current: RegionInstruction[] = [];
    let at = start;
    const close = (falls: number, ends = false): void => {
      if (current.length > 0 && !blocks.has(at)) {
        const branches = current.filter(({ body, target }) => target >= 0 && hasBranch(body)).map(({ target }) => target);
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
  return blocks.has(entry)
    ? {
        find: (offset) => source.find(offset),
        blocks: [...blocks.values()],
        entries: entries.filter((offset) => blocks.has(offset)),
      }
    : undefined;
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
  { blocks, entries, find }: Collected,
  bits: 16 | 32 | 64,
  signatures: HelperSignatures,
  memory: { memory64: boolean; pages: number; counting?: boolean },
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
  const lowering = new RegionLowering(target, blocks, entries, bits, find);
  module.export('region', module.define(HANDLER_TYPE, lowering.locals, lowering.code.view(), lowering.hints));
  return module.build();
}
