/**
 * Random floating-point programs with loops and branches: the region tier, which leaves out tests whose outcome it knows
 * from the instructions before, makes what the baseline makes of one instruction at a time. (That single instructions are
 * right is what `test/differential` shows.)
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as S from '../../memory/vcpu-state.ts';
import { CR4 } from '../../x86/system/cpu.ts';
import { BareMachine } from './testing.ts';

const PROGRAMS = Number(process.env.FLOAT_PROGRAMS ?? 60);
const DATA = 0x400000;
const DATA_BYTES = 0x200;
const STACK = 0x380000;
const CODE = 0x100000;

let seed = Number(process.env.FLOAT_SEED ?? 1);
function below(limit: number): number {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * limit);
}
const pick = <T>(list: readonly T[]): T => list[below(list.length)];

// --- numbers -------------------------------------------------------------------------------------------------------

const words = new Uint32Array(4);
const doubles = new Float64Array(words.buffer);
const singles = new Float32Array(words.buffer);
const random32 = (): number => (below(65536) << 16) | below(65536);

/** Sixteen bytes of doubles or singles: mostly ordinary numbers, and some of each other kind. `wild`: one in how many. */
function vector(wild: number): Uint32Array {
  const double = below(2) === 0;
  for (let lane = 0; lane < (double ? 2 : 4); lane++) {
    const value = pick([0, -0, 1, -2.5, 3, 0.1, 1e10, -7e-5, below(1000) / 8]);
    if (double) doubles[lane] = value;
    else singles[lane] = value;
    if (below(wild) !== 0) continue;
    const high = double ? 2 * lane + 1 : lane;
    // Denormals, the least and the greatest numbers, infinities, both kinds of NaN.
    const field = pick([0, 0, 1, 2, 2045, 2046, 2047, 2047]);
    const sign = below(2) << 31;
    if (double) {
      words[high - 1] = pick([0, 1, random32()]);
      words[high] = sign | (field << 20) | pick([0, 0, 1 << 19, random32() & 0xfffff]);
    } else words[high] = sign | ((field > 2 ? field & 0xff : field) << 23) | pick([0, 1, 1 << 22, random32() & 0x7fffff]);
  }
  return words.slice();
}

// --- code ----------------------------------------------------------------------------------------------------------

const PREFIXES: Readonly<Record<string, number>> = { ps: 0, pd: 0x66, ss: 0xf3, sd: 0xf2 };
type Shape = 'ps' | 'pd' | 'ss' | 'sd';
const SHAPES: readonly Shape[] = ['ps', 'pd', 'ss', 'sd', 'sd', 'sd'];

/** ModRM and what follows: register `reg`, and a register or [RSI + displacement] aligned to 32 bytes. */
function operand(reg: number, memory = below(3) === 0): number[] {
  if (!memory) return [0xc0 | (reg << 3) | below(8)];
  const at = 32 * below(DATA_BYTES / 32);
  return [0x86 | (reg << 3), at & 0xff, at >> 8, 0, 0];
}
const legacy = (shape: Shape, opcode: number, tail: readonly number[]): number[] => [
  ...(PREFIXES[shape] === 0 ? [] : [PREFIXES[shape]]),
  0x0f,
  opcode,
  ...tail,
];
/** Three-byte VEX of map `map` with registers below 8. */
const vex = (map: number, w: number, l: number, pp: number, opcode: number, tail: readonly number[]): number[] => [
  0xc4,
  0xe0 | map,
  (w << 7) | ((~below(8) & 15) << 3) | (l << 2) | pp,
  opcode,
  ...tail,
];
const PP: Readonly<Record<Shape, number>> = { ps: 0, pd: 1, ss: 2, sd: 3 };

const ARITHMETIC = [0x58, 0x59, 0x5c, 0x58, 0x59, 0x5c, 0x5e, 0x51, 0x5d, 0x5f];

function instruction(avx: boolean): number[] {
  const shape = pick(SHAPES);
  const reg = below(8);
  const kind = below(avx ? 24 : 19);
  if (kind < 10) return legacy(shape, pick(ARITHMETIC), operand(reg));
  switch (kind) {
    case 10: // MOVSD, MOVSS, MOVUPS: load or between registers
      return legacy(shape, 0x10, operand(reg));
    case 11: // and store
      return legacy(shape, 0x11, operand(reg, true));
    case 12: // MOVAPS, XORPS, UNPCKLPD
      return legacy(pick(['ps', 'pd']), pick([0x28, 0x57, 0x14]), operand(reg));
    case 13: // CVTSS2SD and the like
      return legacy(shape, 0x5a, operand(reg));
    case 14: // CVTSI2SD XMM, EAX
      return legacy(pick(['ss', 'sd']), 0x2a, [0xc0 | (reg << 3)]);
    case 15: // CMPSD
      return [...legacy(shape, 0xc2, operand(reg)), below(8)];
    case 16: // ADDSUBPD, HADDPD
      return legacy(pick(['sd', 'pd']), pick([0xd0, 0x7c]), operand(reg));
    case 17: // CVTTSD2SI EDX
      return legacy(pick(['ss', 'sd']), 0x2c, operand(2));
    case 18: // SQRTSD and ROUNDSD
      return [0x66, 0x0f, 0x3a, pick([0x08, 0x09, 0x0a, 0x0b]), ...operand(reg), below(16)];
    case 19:
    case 20:
      return vex(
        1,
        0,
        shape[0] === 'p' ? below(2) : 0,
        PP[shape],
        pick(ARITHMETIC.filter((opcode) => opcode !== 0x51)),
        operand(reg),
      );
    default: {
      // The fused ones
      const scalar = below(2);
      const opcode = pick([0x98, 0xa8, 0xb8]) + pick([0, 2, 4, 6]) + scalar;
      return vex(2, below(2), scalar === 1 ? 0 : below(2), 1, opcode, operand(reg));
    }
  }
}

/** MOV ECX, times; 1: instructions, some of them skipped by what a comparison says; DEC ECX; JNZ 1b; HLT. */
function program(avx: boolean): Uint8Array {
  const code = [0xb9, 1 + below(5), 0, 0, 0];
  const start = code.length;
  const count = 3 + below(14);
  for (let n = 0; n < count; n++) {
    const next = instruction(avx);
    // UCOMISD XMM, XMM; PUSHFQ; POP RDX
    if (below(12) === 0) code.push(...legacy('pd', 0x2e, operand(below(8))), 0x9c, 0x5a);
    if (below(5) === 0) {
      // UCOMISD or COMISD, then a jump over the instruction.
      code.push(...legacy(pick(['ps', 'pd']), pick([0x2e, 0x2f]), operand(below(8))));
      // What a signed condition says after it, too.
      code.push(pick([0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x7a, 0x7b, 0x78, 0x7c, 0x7f]), next.length);
    }
    code.push(...next);
  }
  code.push(0xff, 0xc9, 0x0f, 0x85);
  const back = start - (code.length + 4);
  for (let n = 0; n < 4; n++) code.push((back >> (8 * n)) & 0xff);
  return Uint8Array.of(...code, 0xf4);
}

function machine(tier: 'baseline' | 'region'): BareMachine {
  const made = new BareMachine(tier);
  made.long();
  made.cpu.set32(S.CR4, made.cpu.get32(S.CR4) | CR4.OSXSAVE);
  made.cpu.set32(S.XCR0, 7);
  made.system.registers.updateFpuBlock();
  return made;
}

interface Start {
  readonly vectors: readonly Uint32Array[];
  readonly memory: readonly Uint32Array[];
  readonly mxcsr: number;
}

/** Everything that the program may have changed, as text. */
function outcome(on: BareMachine, code: Uint8Array, address: number, { vectors, memory, mxcsr }: Start): string[] {
  const { cpu, ram } = on;
  for (const [n, each] of vectors.entries()) cpu.u32.set(each, (S.VECTOR + (n >> 1) * S.VECTOR_STRIDE + (n & 1) * 16) >> 2);
  for (const [n, each] of memory.entries()) for (let m = 0; m < 4; m++) ram.write32(DATA + n * 16 + m * 4, each[m]);
  cpu.set32(S.MXCSR, mxcsr);
  on.setRegister(0, 12345n);
  on.setRegister(2, 0n);
  on.setRegister(4, BigInt(STACK));
  on.setRegister(6, BigInt(DATA));
  const before = cpu.u64[S.INSTRUCTIONS >> 3];
  on.execute(code, address);
  assert.ok(!on.tripleFaulted);
  const hex = (list: Iterable<number>): string => Array.from(list, (word) => word.toString(16).padStart(8, '0')).join(' ');
  return [
    `mxcsr ${cpu.get32(S.MXCSR).toString(16)}`,
    `instructions ${cpu.u64[S.INSTRUCTIONS >> 3] - before}`,
    `edx ${on.register(2).toString(16)}`,
    ...vectors.map((_, n) => {
      const at = (S.VECTOR + (n >> 1) * S.VECTOR_STRIDE + (n & 1) * 16) >> 2;
      return `vector ${n >> 1}${n & 1 ? ' upper' : ''}: ${hex(cpu.u32.subarray(at, at + 4))}`;
    }),
    ...memory.map((_, n) => `memory ${n * 16}: ${hex([0, 4, 8, 12].map((m) => ram.read32(DATA + n * 16 + m)))}`),
  ];
}

test('programs of floating-point instructions do in regions what they do in the baseline', () => {
  const [baseline, region] = [machine('baseline'), machine('region')];
  for (let n = 0; n < PROGRAMS; n++) {
    const code = program(n % 2 === 1);
    const wild = pick([2, 8, 40, 1000]);
    const start: Start = {
      vectors: Array.from({ length: 16 }, () => vector(wild)),
      memory: Array.from({ length: DATA_BYTES / 16 }, () => vector(wild)),
      // All exceptions masked; mostly with the precision flag set.
      mxcsr: pick([0x1fa0, 0x1fa0, 0x1fa0, 0x1f80, 0x1fa0 | 0x8040, 0x1fa0 | 0x8000, 0x1fa0 | 0x40, 0x1f80 | 0x2000, 0x5fa0]),
    };
    // A page for each: what was translated for another is not in the way.
    const address = CODE + 4096 * (n % 512);
    const expected = outcome(baseline, code, address, start);
    // The second time the blocks are regions from their start.
    for (let again = 0; again < 2; again++)
      assert.deepEqual(outcome(region, code, address, start), expected, `program ${n}: ${Buffer.from(code).toString('hex')}`);
  }
});
