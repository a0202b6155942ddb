/**
 * What `-d in_asm,ir,op_opt,wasm` writes: runs as they are decoded (the instructions, and their IR with the fields of
 * their records as constants), and regions as they are asked for (the IR of their blocks with what the passes found out,
 * and the module as text).
 */
import { ControlFlow, type RegionBlock } from '../../exec/control-flow.ts';
import { wantFlags } from '../../exec/deferred-flags.ts';
import { FATAL, STATELESS } from '../../exec/region-memory.ts';
import { wasmText } from '../../exec/wasm-text.ts';
import { type Access, findWindows } from '../../exec/windows.ts';
import type { Statement } from '../../ir/builder.ts';
import { printBody } from '../../ir/print.ts';
import * as S from '../../memory/vcpu-state.ts';
import { Decoded, Decoder, Mode } from '../../x86/decode/decoder.ts';
import { printInstruction } from '../../x86/decode/print.ts';
import type { System } from '../../x86/system/helpers.ts';
import { Handler, rows } from './handlers.ts';
import { type RegionJob, RUN } from './region-job.ts';
import { blocksOf, type EncodedRegion, encodeRegion, type RegionOptions, readRun } from './regions.ts';

/** A run that was decoded. */
export interface DecodedRun {
  /** Linear address of its first instruction. */
  readonly address: number;
  /** As of `Mode`. */
  readonly mode: number;
  /** Its records: the first, and where they end. */
  readonly first: number;
  readonly end: number;
  /** Where its bytes lie in the machine memory. */
  readonly host: number;
  /** The bytes of an instruction that goes on in the next page, which then is the run's only one. */
  readonly straddle: Uint8Array;
}

/** What a vCPU tells whoever wants to know; called outside of translated code. */
export interface TranslationListener {
  decoded(run: DecodedRun): void;
  /** A region is going to be made, or one that was kept was taken. `page`: linear address of the page that it is entered in. */
  translating(job: RegionJob, page: number): void;
}

export type TranslationItem = 'in_asm' | 'ir' | 'op_opt' | 'wasm';

/** Linear addresses, both ends included. */
export interface AddressRange {
  readonly first: bigint;
  readonly last: bigint;
}

export interface TranslationLogOptions {
  readonly system: System;
  /** As regions are made: what is shown is made once more for that. */
  readonly regions: RegionOptions;
  /** What stands in the head of each entry, such as the vCPU's number. */
  readonly name: string;
  wants(item: TranslationItem): boolean;
  write(text: string): void;
  /** Only what starts in one of these is written; undefined: all is. */
  readonly ranges?: readonly AddressRange[];
}

const indented = (text: string, by: string): string => text.replace(/^(?=.)/gm, by);
const hex = (value: bigint): string => `0x${value.toString(16).padStart(8, '0')}`;

export class TranslationLog implements TranslationListener {
  readonly #options: TranslationLogOptions;
  /** Made when the first run is written. */
  #decoder: Decoder | undefined;

  constructor(options: TranslationLogOptions) {
    this.#options = options;
  }

  decoded(run: DecodedRun): void {
    const { wants, write, name, ranges } = this.#options;
    const [asm, ir] = [wants('in_asm'), wants('ir')];
    if (!asm && !ir) return;
    const address = BigInt.asUintN(64, BigInt(run.address));
    if (!isIn(ranges, address)) return;
    const lines = this.disassemble(run);
    const text = [`----------------\nIN: ${name}, ${widthOf(run.mode)}-bit`];
    if (asm) text.push(...lines.map(({ text }) => text));
    if (ir) text.push(this.#irOf(run, address, lines));
    write(text.join('\n'));
  }

  translating(job: RegionJob, page: number): void {
    const { wants, write, name, ranges, regions } = this.#options;
    const [blocks, wasm] = [wants('op_opt'), wants('wasm')];
    if (!blocks && !wasm) return;
    const entry = BigInt.asUintN(64, BigInt(page + job.entry));
    if (!isIn(ranges, entry)) return;
    const kind = job.far ? 'far region' : 'region';
    const text: string[] = [];
    let size = 0;
    try {
      const encoded = encodeRegion(job, regions);
      size = encoded?.bytes.length ?? 0;
      if (blocks) text.push(blocksText(job));
      if (wasm && encoded !== undefined) text.push(regionText(job, encoded));
    } catch (error) {
      // What cannot be made is counted where it was asked for; a log ends no machine.
      text.push(`cannot be shown: ${(error as Error).message}`);
    }
    text.unshift(`----------------\nOUT: ${name}, ${kind} ${hex(entry)}, ${size} bytes`);
    write(text.join('\n'));
  }

  /** The instructions of a run: addresses, and lines of address, bytes and text. */
  disassemble(run: DecodedRun): { at: bigint; text: string }[] {
    const { system } = this.#options;
    this.#decoder ??= new Decoder(rows, (feature) => system.cpuid.has(feature));
    const decoder = this.#decoder;
    const memory = system.cpu.memory.bytes;
    const page = run.host - (run.address & 0xfff);
    const lines: { at: bigint; text: string }[] = [];
    let at = run.host;
    for (const count = countInstructions(system.cpu.memory.data, run); lines.length < count; ) {
      let bytes = memory;
      let start = at;
      let result = decoder.decode(bytes, start, page + 4096, run.mode);
      if (result === Decoded.SHORT) {
        bytes = run.straddle;
        start = 0;
        result = decoder.decode(bytes, 0, bytes.length, run.mode);
      }
      const length = Math.max(1, decoder.length);
      const address = BigInt.asUintN(64, BigInt(run.address + (at - run.host)));
      const shown = Array.from(bytes.subarray(start, start + length), (byte) => byte.toString(16).padStart(2, '0')).join(' ');
      const text = result === Decoded.OK ? printInstruction(decoder, address) : '(bad)';
      lines.push({ at: address, text: `${hex(address)}:  ${shown.padEnd(23)}  ${text}` });
      if (result !== Decoded.OK) break;
      at += length;
    }
    return lines;
  }

  #irOf(run: DecodedRun, address: bigint, lines: readonly { at: bigint; text: string }[]): string {
    const { data } = this.#options.system.cpu.memory;
    let first = run.first;
    const special: readonly number[] = [Handler.COUNT, Handler.PAGE2];
    while (first < run.end && special.includes(data.getInt32(first, true))) first += S.RECORD_BYTES;
    const start = Number(address & 0xfffn);
    // With the narrowest pointer no branch ends it: all of them are shown.
    const { instructions } = readRun({ data, bits: 16 }, 0, first, lines.length);
    return instructions
      .map(({ offset, body }) => {
        const at = address + BigInt(offset - start);
        const line = lines.find((line) => line.at === at);
        return `${line?.text ?? hex(at)}\n${indented(printBody(body, { inline: true }), '    ')}`;
      })
      .join('\n');
  }
}

const isIn = (ranges: readonly AddressRange[] | undefined, address: bigint): boolean =>
  ranges === undefined || ranges.some(({ first, last }) => address >= first && address <= last);

const widthOf = (mode: number): number => [16, 32, 64][mode & Mode.CODE];

/** How many instructions a run has: the number that its last record has, less those that stand for none. */
function countInstructions(data: DataView, { first, end }: DecodedRun): number {
  let count = 0;
  for (let record = first; record < end; record += S.RECORD_BYTES) {
    const handler = data.getInt32(record, true);
    const length = data.getUint8(record + S.RECORD.length);
    if (length > 0 || handler === Handler.INVALID || handler === Handler.TOO_LONG) count++;
  }
  return count;
}

const place = (offset: number): string => (offset < 0 ? `-0x${(-offset).toString(16)}` : `+0x${offset.toString(16)}`);

/** The blocks of a region: where each goes, and its IR with the windows that accesses share. Offsets are from the page's start. */
export function blocksText(job: RegionJob): string {
  const found = blocksOf(job);
  if (found === undefined) return 'nothing to translate';
  const { source, blocks, entries } = found;
  const flow = new ControlFlow(blocks, entries);
  const harmless = (name: string): boolean => STATELESS.has(name) || FATAL.has(name);
  const places = findWindows(flow.root, harmless, source.far || source.bits !== 64);
  const numbers = new Map([...new Set([...places.values()].map(({ window }) => window))].map((window, n) => [window, n]));
  const wanted = wantFlags([...flow.nodes.values()], (name) => STATELESS.has(name));
  const windows = [...numbers].map(
    ([window, n]) => `window ${n}: ${window.low} to ${window.high}${window.writes ? ', written' : ''}`,
  );
  const texts = [...blocks]
    .sort((a, b) => a.offset - b.offset)
    .map((block) => {
      const node = flow.nodes.get(block.offset);
      const is = [
        ...(entries.includes(block.offset) ? [`entry ${entries.indexOf(block.offset)}`] : []),
        ...(node?.isLoop ? ['loop'] : []),
        ...(node !== undefined && wanted.has(node) ? ['flags wanted'] : []),
      ];
      const head = `block ${place(block.offset)}${is.length === 0 ? '' : ` (${is.join(', ')})`} -> ${successors(block)}`;
      const body = block.instructions.map((instruction) => {
        const note = (statement: Statement): string | undefined => {
          const found = places.get(statement as Access);
          return found === undefined ? undefined : `window ${numbers.get(found.window)} at ${found.at}`;
        };
        const text = printBody(instruction.body, { inline: true, note });
        return `  ${place(instruction.offset)}\n${indented(text, '    ')}`;
      });
      return [head, ...body].join('\n');
    });
  return [...windows, ...texts].join('\n');
}

function successors({ branches, falls, instructions }: RegionBlock): string {
  const last = instructions[instructions.length - 1]?.body.at(-1)?.op;
  const onward = last === 'branch' || last === 'jump' || last === 'raise' ? [] : [falls];
  return [...new Set([...branches, ...onward])].map(place).join(', ') || 'elsewhere';
}

/** The text of a region's module; the globals that have addresses of runs are named by the runs' offsets. */
export function regionText({ runs, others }: RegionJob, { bytes, bases, frames }: EncodedRegion): string {
  const count = runs.length / RUN.words;
  return wasmText(bytes, {
    global: (index) => {
      if (index < frames.length) return `(frame ${frames[index]})`;
      const run = bases[index - frames.length];
      return run === undefined
        ? undefined
        : `(run ${place(run < count ? runs[run * RUN.words + RUN.offset] : others[run - count])})`;
    },
  });
}
