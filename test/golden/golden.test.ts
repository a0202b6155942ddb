/**
 * What the translator makes of the sequences, compared with the files in `expected/`: the instructions, the blocks of
 * the region that begins with the first of them, as IR with what the passes found, and its WebAssembly. A difference is
 * no error by itself: `npm run goldens` writes the files anew, and the change is looked at like any other.
 */
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BareMachine, bareBaseline } from '../../engine/accel/jit/testing.ts';
import { TranslationLog } from '../../engine/accel/jit/translation-log.ts';
import * as S from '../../engine/memory/vcpu-state.ts';
import { CR4 } from '../../engine/x86/system/cpu.ts';
import { type Sequence, sequences } from './sequences.ts';

const folder = join(import.meta.dirname, 'expected');
const write = process.env.GOLDENS === 'write';
const CODE = 0x100000;
const DATA = 0x420000;
/** RAX to RDI: data for what addresses memory. */
const REGISTERS = [5, 3, 2, DATA, 0x380000, 0x381000, 0x400000, 0x410000];
/** Entries after which a run is a region, and a region is a far one. */
const HOT = 2;

function machineFor(bits: 32 | 64): BareMachine {
  const machine = new BareMachine('both', HOT);
  if (bits === 64) machine.long();
  else {
    machine.flat32();
    machine.system.segments.set(S.FS, 24, 0x8000, 0xffffff, 0xc093);
    machine.system.segments.updateMode();
  }
  machine.cpu.set32(S.CR4, machine.cpu.get32(S.CR4) | CR4.OSXSAVE);
  machine.cpu.set32(S.XCR0, 7);
  machine.system.registers.updateFpuBlock();
  return machine;
}

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));

/** The text of a sequence's file. */
function translate({ shows, bits, code, far, beyond, table }: Sequence): string {
  const machine = machineFor(bits);
  let run = '';
  let region = '';
  machine.vcpu.listener = new TranslationLog({
    system: machine.system,
    regions: bareBaseline(HOT),
    name: 'golden',
    wants: () => true,
    write: (text) => {
      const [, head, ...rest] = text.split('\n');
      if (head.startsWith('IN')) run ||= rest.filter((line) => line.startsWith('0x')).join('\n');
      else region = rest.join('\n');
    },
    ranges: [{ first: BigInt(CODE), last: BigInt(CODE) }],
  });
  if (beyond !== undefined) machine.ram.write(CODE + 4096, bytesOf(beyond));
  if (table !== undefined) for (let n = 0; n < 16; n++) machine.ram.write64(DATA + 8 * n, CODE + table);
  // Runs are decoded, become a region, and that a far one, as long as it may.
  for (let times = 0; times < (far === true ? 3 * HOT : HOT); times++) {
    for (const [n, value] of REGISTERS.entries()) machine.setRegister(n, BigInt(value));
    // Writing the code again would drop what was made of it.
    machine.execute(times === 0 ? bytesOf(code) : new Uint8Array(0), CODE);
    assert.ok(!machine.tripleFaulted, 'a triple fault');
  }
  assert.notEqual(region, '', 'no region was made');
  return `${shows}\n\n${[...new Set(run.split('\n'))].join('\n')}\n\n${region}\n`;
}

if (write) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
  for (const each of sequences) writeFileSync(join(folder, `${each.name}.txt`), translate(each));
  console.log(`${sequences.length} files were written`);
}

for (const each of sequences)
  test(each.name, () => {
    const expected = readFileSync(join(folder, `${each.name}.txt`), 'utf8');
    assert.equal(translate(each), expected, 'the translation has changed; npm run goldens writes the files anew');
  });

test('each file is of a sequence', () => {
  const names = readdirSync(folder).map((name) => name.replace(/\.txt$/, ''));
  assert.deepEqual(names.sort(), sequences.map(({ name }) => name).sort());
});
