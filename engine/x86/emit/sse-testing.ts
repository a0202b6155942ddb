/**
 * A machine of one instruction at a time, for tests of the vector instructions: decodes, lowers and runs one form
 * over a state block and 64 KiB of guest memory that is mapped one to one.
 */
import type { LoweringTarget } from '../../exec/code-writer.ts';
import { Lowering, MEMORY_HELPERS } from '../../exec/lower.ts';
import { ModuleBuilder } from '../../exec/wasm.ts';
import { type Body, Builder } from '../../ir/builder.ts';
import { Exit } from '../../ir/exit.ts';
import { expandFlags } from '../../ir/flags.ts';
import type { Type } from '../../ir/ops.ts';
import * as S from '../../memory/vcpu-state.ts';
import { Decoded, Decoder, decodedForm, Mode } from '../decode/decoder.ts';
import { type Form, formBits, type Row } from '../decode/rows.ts';
import { type Emitter, Instruction } from './context.ts';

/** Where things lie in the memory. */
export const STATE_AT = 0x10000;
export const RECORD_AT = 0x2f000;
/** Guest memory: linear address is host address. */
export const GUEST_AT = 0x30000;
export const GUEST_BYTES = 0x10000;

/** The part of the WebAssembly interface that is used here; the engine's types have no DOM. */
const { WebAssembly: Wasm } = globalThis as unknown as {
  WebAssembly: {
    Memory: new (limits: { initial: number; maximum: number; shared: boolean }) => { buffer: SharedArrayBuffer };
    Module: new (bytes: Uint8Array) => object;
    Instance: new (module: object, imports: object) => { exports: Record<string, unknown> };
  };
};

export type Helper = (rec: number, ...args: number[]) => number;

class OneInstruction extends Lowering {
  protected override next(): void {
    this.leave(0);
  }
  finish(): void {
    this.op(0x00, 0x0b);
  }
}

/** Helper calls of a body: parameter types and result by name. */
export function helpersOf(body: Body, into = new Map<string, { params: Type[]; result: Type }>()): typeof into {
  for (const statement of body) {
    if (statement.op === 'if') {
      helpersOf(statement.then, into);
      helpersOf(statement.else, into);
    } else if (statement.op === 'loop') helpersOf(statement.body, into);
    else if (statement.op === 'call') {
      const params: Type[] = ['i32', ...statement.args.flatMap(({ type }): Type[] => (type === 'i64' ? ['i32', 'i32'] : [type]))];
      into.set(statement.name, { params, result: statement.value.type });
    }
  }
  return into;
}

export class SseMachine {
  readonly memory = new Wasm.Memory({ initial: 8, maximum: 8, shared: true });
  readonly bytes = new Uint8Array(this.memory.buffer);
  readonly view = new DataView(this.memory.buffer);
  readonly #decoder: Decoder;
  readonly #emitters: Record<string, Emitter>;
  readonly #helpers: Record<string, Helper>;
  readonly #functions = new Map<string, (cpu: number, rec: number) => number>();

  constructor(rows: readonly Row[], emitters: Record<string, Emitter>, helpers: Record<string, Helper>) {
    this.#decoder = new Decoder(rows);
    this.#emitters = emitters;
    this.#helpers = {
      ...helpers,
      slow_load: () => this.#translate(),
      slow_store: () => this.#translate(),
      slow_store_end: () => 0,
      slow_rmw: () => this.#translate(),
      slow_rmw_end: () => 0,
    };
    // TLB entries match no address: every access takes the slow path.
    this.view.setUint32(STATE_AT + S.TLB, STATE_AT + S.SPACES_AT, true);
    this.bytes.fill(0xff, STATE_AT + S.SPACES_AT, STATE_AT + S.SPACES_AT + S.TLB_BYTES);
    this.view.setUint32(STATE_AT + S.MODE, 2, true);
    this.view.setUint32(STATE_AT + S.MXCSR, 0x1f80, true);
    this.view.setUint32(STATE_AT + S.CR4, 0x600, true);
  }

  /** Adds helpers, which as a rule want the machine's memory. */
  use(helpers: Record<string, Helper>): void {
    Object.assign(this.#helpers, helpers);
  }

  #translate(): number {
    const address = this.view.getInt32(STATE_AT + S.SLOW_POINTER, true);
    if (address >= GUEST_AT && address <= GUEST_AT + GUEST_BYTES - 16) return address;
    this.view.setUint32(STATE_AT + S.EXCEPTION, 14, true);
    return 0;
  }

  #compile(form: Form, constant: boolean): (cpu: number, rec: number) => number {
    const decoder = this.#decoder;
    const fields = constant ? (name: string) => BigInt((decoder as unknown as Record<string, number>)[name] ?? 0) : undefined;
    const builder = new Builder(fields);
    const emitter = this.#emitters[form.row.mnemonic];
    if (emitter === undefined) throw new Error(`no emitter for ${form.row.text}`);
    emitter(new Instruction(builder, form));
    builder.next();
    const body = expandFlags(builder.body);
    const module = new ModuleBuilder();
    module.memory = { module: 'e', name: 'memory', initialPages: 8, maximumPages: 8, memory64: false };
    const indices = new Map<string, number>();
    const imports: Record<string, Helper> = {};
    const add = (name: string, params: Type[], result: Type): void => {
      indices.set(name, module.import('h', name, { params, results: [result] }));
      imports[name] =
        this.#helpers[name] ??
        (() => {
          throw new Error(`helper ${name} is not there`);
        });
    };
    for (const [name, count] of Object.entries(MEMORY_HELPERS))
      add(
        name,
        Array.from({ length: count }, () => 'i32' as const),
        'i32',
      );
    for (const [name, { params, result }] of helpersOf(body)) add(name, params, result);
    const functionType = { params: ['i32', 'i32'], results: ['i32'] } as const;
    const target: LoweringTarget = {
      memory64: false,
      functionType: module.type(functionType),
      helper: (name) => indices.get(name) as number,
    };
    const lowering = new OneInstruction(target);
    lowering.lower(body);
    lowering.finish();
    module.export('run', module.define(functionType, lowering.locals, lowering.code.view()));
    const compiled = new Wasm.Module(module.build());
    const instance = new Wasm.Instance(compiled, { e: { memory: this.memory }, h: imports });
    return instance.exports.run as (cpu: number, rec: number) => number;
  }

  /** Compiles a form without running it; throws when its IR or its code is not valid. */
  check(form: Form): void {
    this.#compile(form, false);
  }

  /** Decodes and runs one instruction. Gives the exception vector, or -1. With `constant` the record's fields are constants. */
  run(code: Uint8Array, constant = false): number {
    const decoder = this.#decoder;
    if (decoder.decode(code, 0, code.length, 2 | Mode.FLAT) !== Decoded.OK) return 6;
    if (decoder.length !== code.length) throw new Error(`decoded ${decoder.length} of ${code.length} bytes`);
    const form = decodedForm(decoder);
    const key = `${form.row.index}/${formBits(form)}${constant ? `/${Buffer.from(code).toString('hex')}` : ''}`;
    let run = this.#functions.get(key);
    if (run === undefined) {
      run = this.#compile(form, constant);
      this.#functions.set(key, run);
    }
    const { view } = this;
    for (const name of ['a', 'b', 'c', 'base', 'index', 'segment'] as const)
      view.setUint16(RECORD_AT + S.RECORD[name], decoder[name], true);
    view.setUint16(RECORD_AT + S.RECORD.offset, 0, true);
    view.setUint8(RECORD_AT + S.RECORD.length, decoder.length);
    view.setUint8(RECORD_AT + S.RECORD.scale, decoder.scale);
    view.setInt32(RECORD_AT + S.RECORD.disp, decoder.disp, true);
    view.setInt32(RECORD_AT + S.RECORD.imm, decoder.imm, true);
    view.setInt32(STATE_AT + S.EXCEPTION, -1, true);
    const exit = run(STATE_AT, RECORD_AT);
    return exit === Exit.FAULT ? view.getInt32(STATE_AT + S.EXCEPTION, true) : -1;
  }
}
