/**
 * The baseline tier's handlers: one function for every static form of every instruction, in one module.
 *
 * The table's first entries are the handlers that no row stands for; then come the EA records, then the forms in
 * the order of the tables.
 */

import { CPU, type LoweringTarget, REC } from '../../exec/code-writer.ts';
import { Lowering, MEMORY_HELPERS } from '../../exec/lower.ts';
import { W } from '../../exec/opcodes.ts';
import { type FunctionType, ModuleBuilder } from '../../exec/wasm.ts';
import { type Body, Builder } from '../../ir/builder.ts';
import { Exit } from '../../ir/exit.ts';
import { expandFlags } from '../../ir/flags.ts';
import type { Type } from '../../ir/ops.ts';
import * as S from '../../memory/vcpu-state.ts';
import { FORM_BITS, type Form, formBits, formsOf, parseRows, type Row } from '../../x86/decode/rows.ts';
import { INTEGER, X87 } from '../../x86/decode/tables.ts';
import { CRYPTO, SSE } from '../../x86/decode/tables-sse.ts';
import { AVX, BMI } from '../../x86/decode/tables-vex.ts';
import { arithmetic } from '../../x86/emit/arithmetic.ts';
import { bmi } from '../../x86/emit/bmi.ts';
import { type Emitter, Instruction } from '../../x86/emit/context.ts';
import { control } from '../../x86/emit/control.ts';
import { moves } from '../../x86/emit/move.ts';
import { emitPrelude, PRELUDE_KINDS } from '../../x86/emit/prelude.ts';
import { shifts } from '../../x86/emit/shift.ts';
import { sse } from '../../x86/emit/sse.ts';
import { vex } from '../../x86/emit/vex.ts';

/** Table indices of the handlers that stand for no instruction. */
export const Handler = {
  /** A record whose instruction was overwritten: decode it again. */
  RESYNC: 0,
  /** The run of records ends here: go on at the RIP of this record. */
  FALL: 1,
  /** Look for pending requests, then go on. */
  CHECK: 2,
  /** The instruction that follows has bytes in the next page: is it still the page that was decoded? */
  PAGE2: 3,
  /** An instruction that does not exist: #UD. */
  INVALID: 4,
  /** An instruction longer than 15 bytes: #GP(0). */
  TOO_LONG: 5,
  /** End of a single-stepped instruction. */
  STEP: 6,
  /** Starts every run: counts how often it is entered, and leaves when that is often. */
  COUNT: 7,
  PRELUDE: 8,
} as const;
/** Index of the first form's handler. */
export const FIRST_FORM = Handler.PRELUDE + PRELUDE_KINDS.length;

const emitters: Record<string, Emitter> = { ...arithmetic, ...shifts, ...moves, ...control, ...bmi, ...sse, ...vex };

export const rows: readonly Row[] = (() => {
  const list = parseRows(INTEGER);
  list.push(...parseRows(X87, list.length));
  list.push(...parseRows(SSE, list.length));
  list.push(...parseRows(CRYPTO, list.length));
  list.push(...parseRows(AVX, list.length, true));
  list.push(...parseRows(BMI, list.length, true));
  return list;
})();

export const forms: readonly Form[] = rows.flatMap(formsOf);

/** Handler index by row and form bits; 0 where there is none. */
export const handlerOf: Uint16Array = (() => {
  const map = new Uint16Array(rows.length << FORM_BITS);
  for (const [n, form] of forms.entries()) map[(form.row.index << FORM_BITS) | formBits(form)] = FIRST_FORM + n;
  return map;
})();

export const preludeHandler: Record<string, number> = Object.fromEntries(
  PRELUDE_KINDS.map((kind, n) => [kind, Handler.PRELUDE + n]),
);

export const HANDLER_TYPE: FunctionType = { params: ['i32', 'i32'], results: ['i32'] };

const PAGE_FACTOR = -1640531535;
const OFFSET_FACTOR = -2048144789;
/** Index in the code table for an offset of a page; the neighbour with the lowest bit flipped serves too. As `jumpFunction` computes it. */
export const codeHash = (page: number, offset: number): number =>
  (Math.imul(page, PAGE_FACTOR) + Math.imul(offset, OFFSET_FACTOR)) >>> (32 - Math.log2(S.CODE_ENTRIES));

/** Entries after which a run is worth a region. */
export const HOT_ENTRIES = 4000;
/** Entries after which a run asks for a region that is kept of it, where one may be. */
export const KEPT_ENTRIES = 64;

export const mnemonics: ReadonlySet<string> = new Set(rows.map((row) => row.mnemonic));

/** Emits the IR of a form; `fields` makes the record's contents constants. */
export function emitForm(builder: Builder, form: Form): void {
  const emitter = emitters[form.row.mnemonic];
  if (emitter === undefined) throw new Error(`no emitter for ${form.row.text}`);
  emitter(new Instruction(builder, form));
}

export interface BaselineOptions {
  readonly memory64: boolean;
  readonly initialPages: number;
  readonly maximumPages: number;
  /** Entries after which a run becomes a region; `HOT_ENTRIES` unless given. */
  readonly hotEntries?: number;
  /** Time is the instruction count (`-icount`). */
  readonly counting?: boolean;
}

export interface BaselineModule {
  readonly bytes: Uint8Array;
  /** Table entries that the module fills. */
  readonly handlers: number;
  /** Names of the helpers that must be given as imports `h`. */
  readonly helpers: readonly string[];
  readonly signatures: HelperSignatures;
}

/** Parameters (the record first) and result of each helper. */
export type HelperSignatures = Readonly<Record<string, { readonly params: readonly Type[]; readonly result: Type }>>;

/** Builds the baseline module. Takes some hundred milliseconds: done once a VM process, compiled once, shared by its vCPUs. */
export function buildBaseline(options: BaselineOptions): BaselineModule {
  const bodies: Body[] = [];
  const special = (emit: (b: Builder) => void): void => {
    const b = new Builder();
    emit(b);
    bodies.push(expandFlags(b.body));
  };
  special(() => {}); // RESYNC, FALL, CHECK and COUNT are written by hand below
  special(() => {});
  special(() => {});
  special((b) => {
    b.leave('check_page2');
    b.next();
  });
  special((b) => b.raise(6));
  special((b) => b.raise(13));
  special((b) => b.leave('step_end'));
  special(() => {});
  for (const kind of PRELUDE_KINDS)
    special((b) => {
      emitPrelude(b, kind);
      b.next();
    });
  for (const form of forms)
    special((b) => {
      emitForm(b, form);
      b.next();
    });

  const signatures = new Map<string, { params: Type[]; result: Type }>();
  for (const [name, count] of Object.entries(MEMORY_HELPERS))
    signatures.set(name, { params: Array.from({ length: count }, () => 'i32' as const), result: 'i32' });
  for (const body of bodies) collectHelpers(body, signatures);

  const module = new ModuleBuilder();
  module.name = 'baseline';
  module.memory = {
    module: 'e',
    name: 'memory',
    initialPages: options.initialPages,
    maximumPages: options.maximumPages,
    memory64: options.memory64,
  };
  module.table = { module: 'e', name: 'table', minimum: bodies.length };
  const indices = new Map<string, number>();
  for (const [name, { params, result }] of signatures) indices.set(name, module.import('h', name, { params, results: [result] }));
  const functionType = module.type(HANDLER_TYPE);
  const target: LoweringTarget = {
    memory64: options.memory64,
    functionType,
    counting: options.counting,
    helper(name) {
      const index = indices.get(name);
      if (index === undefined) throw new Error(`no helper ${name}`);
      return index;
    },
  };
  indices.set('$jump', module.nextIndex);
  const jump = new Special(target);
  jump.jumpFunction();
  module.define({ params: ['i32', 'i64'], results: ['i32'] }, jump.locals, jump.code.view(), jump.hints);
  const elements: number[] = [];
  for (const [n, body] of bodies.entries()) {
    const lowering = new Special(target);
    if (n === Handler.RESYNC) lowering.resync();
    else if (n === Handler.FALL) lowering.fall();
    else if (n === Handler.CHECK) lowering.check();
    else if (n === Handler.COUNT) lowering.count(options.hotEntries ?? HOT_ENTRIES);
    else if (n === Handler.PAGE2) lowering.page2(body);
    else lowering.lower(body);
    lowering.finish();
    elements.push(module.define(HANDLER_TYPE, lowering.locals, lowering.code.view(), lowering.hints));
  }
  module.elements = elements;
  // `run` enters translated code at a record.
  const run = new Special(target);
  run.enter();
  module.export('jump', indices.get('$jump') as number);
  module.export('run', module.define(HANDLER_TYPE, run.locals, run.code.view(), run.hints));
  return {
    bytes: module.build(),
    handlers: bodies.length,
    helpers: [...signatures.keys()],
    signatures: Object.fromEntries(signatures),
  };
}

function collectHelpers(body: Body, into: Map<string, { params: Type[]; result: Type }>): void {
  for (const statement of body) {
    if (statement.op === 'if') {
      collectHelpers(statement.then, into);
      collectHelpers(statement.else, into);
    } else if (statement.op === 'loop') collectHelpers(statement.body, into);
    else if (statement.op === 'call') {
      const params: Type[] = ['i32'];
      for (const arg of statement.args) {
        if (arg.type === 'i64') params.push('i32', 'i32');
        else params.push(arg.type);
      }
      const known = into.get(statement.name);
      if (known === undefined) into.set(statement.name, { params, result: statement.value.type });
      else if (known.params.join() !== params.join())
        throw new Error(`helper ${statement.name} is called with (${params.join()}) and (${known.params.join()})`);
    }
  }
}

/** The functions that are no instruction. */
class Special extends Lowering {
  finish(): void {
    this.op(0x00, W.end); // every path has left before: unreachable
  }

  /** (cpu, rec): tail-calls the record's handler. */
  enter(): void {
    this.get(CPU);
    this.get(REC);
    this.loadAt(REC, 'i32', 32, S.RECORD.handler);
    this.tailCall();
    this.op(W.end);
  }

  resync(): void {
    this.storeState(S.STOPPED_AT, 32, () => this.get(REC));
    this.leaveBefore(Exit.RESYNC);
  }

  /** Goes on at this record's RIP. */
  fall(): void {
    this.storeState(S.STOPPED_AT, 32, () => this.i32(0));
    // What was retired since the start of the run.
    this.storeState(S.INSTRUCTIONS, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.INSTRUCTIONS);
      this.loadAt(REC, 'i64', 32, S.RECORD.disp);
      this.op(W.i64Add);
    });
    this.watchCount();
    this.get(CPU);
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.loadAt(REC, 'i64', 16, S.RECORD.offset);
    this.op(W.i64Add);
    this.code.u8(W.returnCall);
    this.code.u32(this.target.helper('$jump'));
  }

  /** Counts in the record's last word. */
  count(hot: number): void {
    this.countEntry(S.RECORD.imm, hot);
    this.next();
  }

  /** Leaves when something is pending, else goes on. */
  check(): void {
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.open(W.if);
    this.storeState(S.NEXT_RIP, 64, () => {
      this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
      this.loadAt(REC, 'i64', 16, S.RECORD.offset);
      this.op(W.i64Add);
    });
    this.leaveBefore(Exit.PENDING);
    this.end();
    this.next();
  }

  /** Goes on where the instruction TLB says that the next page is the one that was decoded; else does what `body` says. */
  page2(body: Body): void {
    const next = this.newLocal('i64');
    const entry = this.newLocal('i32');
    this.open(W.block);
    // There RIPs are no linear addresses.
    this.loadAt(CPU, 'i32', 32, S.CODE_KEY + 4);
    this.i32(0);
    this.op(0x48); // i32.lt_s
    this.hint(false);
    this.brIf(0);
    this.loadAt(CPU, 'i64', 64, S.RIP_BASE);
    this.i64(4096n);
    this.op(W.i64Add);
    this.set(next);
    this.itlbEntry(next, entry);
    this.loadAt(entry, 'i64', 64, 0);
    this.get(next);
    this.op(W.i64Ne);
    this.hint(false);
    this.brIf(0);
    this.loadAt(entry, 'i32', 32, 8);
    this.loadAt(REC, 'i32', 32, S.RECORD.disp);
    this.op(0x47); // i32.ne
    this.hint(false);
    this.brIf(0);
    this.next();
    this.end();
    this.lower(body);
  }

  /**
   * (cpu, rip): goes on at a RIP that may lie anywhere: where the jump cache says, or else the instruction TLB gives the
   * page and the code table the record. Leaves where these have no entry, and where RIPs are no linear addresses.
   */
  jumpFunction(): void {
    const rip = 1;
    const entry = this.newLocal('i32');
    const rec = this.newLocal('i32');
    const key = this.newLocal('i64');
    const page = this.newLocal('i32');
    this.jumpCached(rip);
    this.open(W.block);
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.brIf(0);
    this.itlbEntry(rip, entry);
    this.loadAt(entry, 'i64', 64, 0);
    this.get(rip);
    this.i64(-4096n);
    this.op(W.i64And, W.i64Ne);
    this.brIf(0);
    this.loadAt(entry, 'i32', 32, 8);
    this.set(page);
    this.get(rip);
    this.op(W.wrap);
    this.i32(0xfff);
    this.op(W.i32And);
    this.set(rec); // for now: the offset
    this.get(rec);
    this.op(W.extend);
    this.i64(32n);
    this.op(0x86); // i64.shl
    this.get(page);
    this.op(W.extend, 0x84); // i64.or
    this.loadAt(CPU, 'i64', 64, S.CODE_KEY);
    this.op(0x84);
    this.set(key);
    // codeHash
    this.get(page);
    this.i32(PAGE_FACTOR);
    this.op(0x6c); // i32.mul
    this.get(rec);
    this.i32(OFFSET_FACTOR);
    this.op(0x6c, W.i32Add);
    this.i32(32 - Math.log2(S.CODE_ENTRIES));
    this.op(0x76); // i32.shr_u
    this.i32(Math.log2(S.CODE_ENTRY_BYTES));
    this.op(W.i32Shl);
    this.get(CPU);
    this.op(W.i32Add);
    this.set(entry);
    this.loadAt(entry, 'i64', 64, S.CODE_TABLE_AT);
    this.get(key);
    this.op(W.i64Ne);
    this.open(W.if);
    // The other way of the set.
    this.get(entry);
    this.i32(S.CODE_ENTRY_BYTES);
    this.op(0x73); // i32.xor
    this.tee(entry);
    this.toAddress();
    this.load('i64', 64, false, S.CODE_TABLE_AT);
    this.get(key);
    this.op(W.i64Ne);
    this.brIf(1);
    this.end();
    this.storeState(S.RIP_BASE, 64, () => {
      this.get(rip);
      this.i64(-4096n);
      this.op(W.i64And);
    });
    this.loadAt(entry, 'i32', 32, S.CODE_TABLE_AT + 8);
    this.set(rec);
    // The next time the jump cache knows.
    this.jumpEntry(rip);
    this.set(entry);
    const store = (bits: 32 | 64, offset: number, push: () => void): void => {
      this.get(entry);
      this.toAddress();
      push();
      this.storeOp(bits === 64 ? 'i64' : 'i32', bits, offset);
    };
    store(64, S.JUMPS_AT, () => this.get(rip));
    store(32, S.JUMPS_AT + 8, () => this.loadAt(CPU, 'i32', 32, S.JUMP_STAMP));
    store(32, S.JUMPS_AT + 12, () => this.get(rec));
    this.get(CPU);
    this.get(rec);
    this.loadAt(rec, 'i32', 32, S.RECORD.handler);
    this.tailCall();
    this.end();
    this.storeState(S.NEXT_RIP, 64, () => this.get(rip));
    this.loadAt(CPU, 'i32', 32, S.PENDING);
    this.hint(false);
    this.open(W.if);
    this.leave(Exit.PENDING);
    this.end();
    this.i32(Exit.JUMP);
    this.op(W.end);
  }
}
