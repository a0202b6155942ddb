/** GNU objdump as the judge: disassembles encodings that lie in slots of 32 bytes, with NOPs between them. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Width } from './encodings.ts';

export const SLOT = 32;
const NOP = 0x90;
const MACHINES: Readonly<Record<Width, string>> = { 16: 'i8086', 32: 'i386', 64: 'i386:x86-64' };

export interface Disassembled {
  readonly length: number;
  /** Mnemonic and operands in Intel's syntax; `(bad)` where there is no such instruction. */
  readonly text: string;
}

/** objdump's version, or undefined where there is none. */
export function objdumpVersion(): string | undefined {
  const { stdout, error } = spawnSync('objdump', ['--version'], { encoding: 'utf8' });
  return error === undefined ? stdout.split('\n')[0] : undefined;
}

/** Disassembles each of `list` by itself. */
export function disassemble(width: Width, list: readonly (readonly number[])[]): Disassembled[] {
  const folder = mkdtempSync(join(tmpdir(), 'vivarium-decoder-'));
  try {
    const image = new Uint8Array(list.length * SLOT).fill(NOP);
    for (const [n, bytes] of list.entries()) image.set(bytes, n * SLOT);
    const file = join(folder, 'code.bin');
    writeFileSync(file, image);
    const { stdout, status, stderr } = spawnSync(
      'objdump',
      ['-D', '-z', '-b', 'binary', '-m', MACHINES[width], '-M', 'intel', '--no-show-raw-insn', file],
      { encoding: 'utf8', maxBuffer: 2 ** 30, env: { ...process.env, LC_ALL: 'C' } },
    );
    if (status !== 0) throw new Error(`objdump: ${stderr}`);
    return read(stdout, list.length);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function read(text: string, count: number): Disassembled[] {
  const found: Disassembled[] = Array.from({ length: count }, () => ({ length: 0, text: 'missing' }));
  let pending: { slot: number; text: string } | undefined;
  for (const line of text.split('\n')) {
    const match = /^ *([0-9a-f]+):\t(.*)$/.exec(line);
    if (match === null) continue;
    const at = Number.parseInt(match[1], 16);
    if (pending !== undefined) {
      found[pending.slot] = { length: at - pending.slot * SLOT, text: pending.text };
      pending = undefined;
    }
    if (at % SLOT === 0) pending = { slot: at / SLOT, text: match[2].trim() };
  }
  return found;
}
