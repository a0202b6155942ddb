/**
 * Assembly tests: files of small cases in nasm's syntax, each with its starting state and the state that must come
 * out, as the SDM says it.
 *
 *     ;; name of the case
 *     ; { "mode": 64, "regs": { "rax": "0xff" },
 *     ;   "expect": { "regs": { "rax": 0 }, "flags": "ZF PF" } }
 *         inc al
 *         END
 *
 * What stands before the first case belongs to every case of the file. `END` stops the machine.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A number, as such or as text that BigInt reads. */
export type Numeric = number | string;

/** Values in guest-physical memory by address; `bytes` is hexadecimal digits. */
export interface MemoryImage {
  readonly b?: Readonly<Record<string, Numeric>>;
  readonly w?: Readonly<Record<string, Numeric>>;
  readonly d?: Readonly<Record<string, Numeric>>;
  readonly q?: Readonly<Record<string, Numeric>>;
  readonly bytes?: Readonly<Record<string, string>>;
}

export interface Expectation extends MemoryImage {
  readonly regs?: Readonly<Record<string, Numeric>>;
  /** The arithmetic flags that are set; those not named must be clear. */
  readonly flags?: string;
  /** Arithmetic flags that are undefined. */
  readonly undefined?: string;
  /** `#PF 7`: the exception that ends the case, with its error code. */
  readonly exception?: string;
  /** Label of the instruction that the exception belongs to. */
  readonly at?: string;
  readonly triple?: boolean;
}

export interface CaseState extends MemoryImage {
  /** 16: real mode. "16p": protected mode with 16-bit segments. 32: flat. 64: 1 GiB mapped one to one. */
  readonly mode: 16 | '16p' | 32 | 64;
  readonly cpl?: 0 | 3;
  readonly org?: Numeric;
  readonly regs?: Readonly<Record<string, Numeric>>;
  /** EFLAGS bits set at the start, by name. */
  readonly flags?: string;
  /** Exceptions go to the guest instead of ending the case. */
  readonly deliver?: boolean;
  /** Why this case fails for now; it must then fail. */
  readonly fails?: string;
  readonly expect: Expectation;
}

export interface AsmCase {
  readonly name: string;
  readonly line: number;
  readonly state: CaseState;
  readonly source: string;
}

/** The cases of a file. */
export function parseCases(text: string, file: string): AsmCase[] {
  const chunks: { name: string; line: number; lines: string[] }[] = [];
  const common: string[] = [];
  for (const [n, line] of text.split('\n').entries()) {
    if (line.startsWith(';; ')) chunks.push({ name: line.slice(3).trim(), line: n + 1, lines: [] });
    else (chunks.at(-1)?.lines ?? common).push(line);
  }
  return chunks.map(({ name, line, lines }) => {
    let header = 0;
    while (header < lines.length && lines[header].startsWith('; ')) header++;
    const json = lines
      .slice(0, header)
      .map((text) => text.slice(1))
      .join('\n');
    try {
      return { name, line, state: JSON.parse(json) as CaseState, source: [...common, ...lines.slice(header)].join('\n') };
    } catch (error) {
      throw new Error(`${file}:${line}: ${(error as Error).message}`);
    }
  });
}

export const originOf = (state: CaseState): number =>
  Number(state.org ?? (state.mode === 16 || state.mode === '16p' ? 0x7c00 : 0x100000));

export const nasm = '/usr/bin/nasm';

export interface Assembled {
  readonly code: Uint8Array;
  /** Addresses of labels. */
  readonly labels: ReadonlyMap<string, number>;
}

const PRELUDE = (state: CaseState): string => `
%define ORG ${originOf(state)}
%define USER ${state.cpl === 3 ? 1 : 0}
  bits ${state.mode === '16p' ? 16 : state.mode}
${state.mode === 64 ? '  default abs' : ''}
  org ORG
%define ADDR(label) (ORG + (label) - $$)
%macro END 0
%if USER
  ud2
%else
  hlt
%endif
%endmacro
; desc base, limit, access byte, flags nibble: a segment descriptor
%macro desc 4
  dw (%2) & 0xffff, (%1) & 0xffff
  db ((%1) >> 16) & 0xff, %3, (((%2) >> 16) & 15) | ((%4) << 4), ((%1) >> 24) & 0xff
%endmacro
; gate32 target, selector, type byte
%macro gate32 3
  dw ADDR(%1) & 0xffff, %2
  db 0, %3
  dw (ADDR(%1) >> 16) & 0xffff
%endmacro
; gate64 target, selector, type byte, interrupt stack
%macro gate64 4
  dw ADDR(%1) & 0xffff, %2
  db %4, %3
  dw (ADDR(%1) >> 16) & 0xffff
  dd 0, 0
%endmacro
[map symbols MAPFILE]
`;

/** Assembles a case; throws with nasm's own words where it does not. */
export function assemble(one: AsmCase): Assembled {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-asm-'));
  try {
    const source = join(folder, 'case.asm');
    const output = join(folder, 'case.bin');
    const map = join(folder, 'case.map');
    writeFileSync(source, PRELUDE(one.state).replace('MAPFILE', map) + one.source);
    const result = spawnSync(nasm, ['-f', 'bin', '-O1', '-w-all', '-I', `${import.meta.dirname}/`, '-o', output, source], {
      encoding: 'utf8',
    });
    if (result.status !== 0) throw new Error(`${one.name} (line ${one.line}): ${result.stderr || result.error}`);
    const labels = new Map<string, number>();
    for (const [, virtual, name] of readFileSync(map, 'utf8').matchAll(/^\s*[0-9A-F]+\s+([0-9A-F]+)\s+(\S+)$/gm))
      labels.set(name, Number.parseInt(virtual, 16));
    return { code: readFileSync(output), labels };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
