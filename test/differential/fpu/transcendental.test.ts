/**
 * Transcendental instructions: special operands, stack faults, flags and masks against this machine's processor, bit for
 * bit; values against libquadmath (113 bits, with the 66-bit pi), within one unit in the last place. The processor's own
 * distance is reported beside ours.
 *
 * FPU_CASES sets the number of cases for each instruction, FPU_SEED the seed.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { instructions, operand, Random, type Raw, writeRaw } from './cases.ts';
import { buildHarness, MEMORY, RECORD } from './harness.ts';
import { describe, makeCase, runOurs } from './judge.ts';

const CASES = Number(process.env.FPU_CASES ?? 1000);
const SEED = Number(process.env.FPU_SEED ?? 1);

/** Number of `reference` in the harness. */
const FUNCTION: Record<string, number> = { F2XM1: 0, FYL2X: 1, FYL2XP1: 2, FPATAN: 3, FSIN: 4, FCOS: 5, FPTAN: 6 };

/** A number with an exponent from `low` to `high`, either sign unless `positive`. */
function tame(random: Random, low: number, high: number, positive = false): Raw {
  const exp = 0x3fff + low + random.below(high - low + 1);
  const sign = positive ? 0 : random.below(2) << 15;
  return [exp | sign, (random.word() | 0x80000000) >>> 0, random.chance(30) ? 0 : random.word()];
}

/** An operand for ST(0) inside the function's documented domain. */
function argument(random: Random, name: string): Raw {
  switch (name) {
    case 'F2XM1':
      return random.chance(70) ? tame(random, -6, -1) : tame(random, -80, -1);
    case 'FYL2X':
      return random.chance(40)
        ? tame(random, -1, 0, true)
        : random.chance(60)
          ? tame(random, -300, 300, true)
          : tame(random, -0x3ffe, 0x3fff, true);
    case 'FYL2XP1':
      return random.chance(70) ? tame(random, -8, -3) : tame(random, -90, -3);
    case 'FPATAN':
      return random.chance(70) ? tame(random, -8, 8) : random.chance(70) ? tame(random, -300, 300) : operand(random);
    default:
      return random.chance(50) ? tame(random, -8, 4) : random.chance(50) ? tame(random, -70, 62) : tame(random, 55, 62);
  }
}

interface Value {
  readonly sign: number;
  readonly exp: number;
  readonly significand: bigint;
}

function read80(bytes: Uint8Array, at: number): Value {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 10);
  const top = view.getUint16(8, true);
  return { sign: top >> 15, exp: top & 0x7fff, significand: view.getBigUint64(0, true) };
}

/** Distance of an extended value from a binary128 one, in units of the extended value's last place. */
function ulps(value: Value, quad: Uint8Array): number {
  const view = new DataView(quad.buffer, quad.byteOffset, 16);
  const high = view.getBigUint64(8, true);
  const sign = Number(high >> 63n);
  const exp = Number((high >> 48n) & 0x7fffn);
  let fraction = ((high & 0xffffffffffffn) << 64n) | view.getBigUint64(0, true);
  if (exp !== 0) fraction |= 1n << 112n;
  // Both in units of 2^-(112) at their exponents; bring to the finer.
  const a = value.significand << 49n;
  const ea = Math.max(value.exp, 1);
  const eb = Math.max(exp, 1);
  const base = Math.min(ea, eb);
  if (Math.max(ea, eb) - base > 200) return Infinity;
  let difference = (value.sign ? -a : a) * 2n ** BigInt(ea - base) - (sign ? -fraction : fraction) * 2n ** BigInt(eb - base);
  if (difference < 0n) difference = -difference;
  return Number(difference) / 2 ** 49 / 2 ** (ea - base);
}

const finite = ({ exp }: Value): boolean => exp !== 0x7fff;
const word = (bytes: Uint8Array, at: number): number => bytes[at] | (bytes[at + 1] << 8);

const harness = buildHarness();
if (typeof harness === 'string') test('transcendentals against this processor', { skip: harness }, () => {});
else {
  after(() => harness.close());
  const list = instructions().filter(({ transcendental }) => transcendental);

  test('special operands, flags and the stack as this processor has them', (t) => {
    const bad: string[] = [];
    for (const [index, instruction] of list.entries()) {
      const random = new Random(SEED * 100 + index);
      const input = new Uint8Array(CASES * RECORD);
      for (let n = 0; n < CASES; n++) makeCase(random, instruction, input.subarray(n * RECORD, (n + 1) * RECORD));
      const theirs = harness.run(input);
      let mismatches = 0;
      for (let n = 0; n < CASES; n++) {
        const before = input.subarray(n * RECORD, (n + 1) * RECORD);
        const mine = before.slice();
        runOurs(mine, instruction);
        const other = theirs.subarray(n * RECORD, (n + 1) * RECORD);
        const differences = differ(mine, other);
        if (differences.length === 0) continue;
        mismatches++;
        if (mismatches <= 4) bad.push(`${instruction.name}: ${describe(before)}\n    ${differences.join('\n    ')}`);
      }
      if (mismatches > 0) bad.push(`${instruction.name}: ${mismatches} of ${CASES}`);
    }
    t.diagnostic(`${CASES * list.length} cases over ${list.length} instructions`);
    assert.equal(bad.length, 0, bad.join('\n'));
  });

  test('values within one unit in the last place', (t) => {
    for (const instruction of list.filter(({ name }) => name in FUNCTION)) {
      const { name } = instruction;
      const random = new Random(SEED * 77 + instruction.modrm);
      const input = new Uint8Array(CASES * RECORD);
      const questions = new Uint8Array(CASES * 32);
      for (let n = 0; n < CASES; n++) {
        const record = input.subarray(n * RECORD, (n + 1) * RECORD);
        makeCase(random, instruction, record);
        const view = new DataView(record.buffer, record.byteOffset, RECORD);
        view.setUint32(0, 0xffff037f | (random.below(4) << 10), true);
        view.setUint32(4, 0xffff2000, true);
        view.setUint32(8, 0xffff00ff, true);
        writeRaw(view, 28, argument(random, name));
        writeRaw(view, 38, name === 'FPATAN' ? argument(random, name) : tame(random, -20, 20));
        questions[n * 32] = FUNCTION[name];
        questions.set(record.subarray(28, 48).subarray(0, 10), n * 32 + 4);
        questions.set(record.subarray(38, 48), n * 32 + 16);
        // Compilers' run-time libraries do not read pseudo-denormals: their exponent counts as 1.
        for (const at of [n * 32 + 4, n * 32 + 16])
          if (questions[at + 7] > 127 && (word(questions, at + 8) & 0x7fff) === 0) questions[at + 8] = 1;
      }
      const theirs = harness.run(input);
      const truth = harness.reference(questions);
      let ours = 0;
      let processor = 0;
      let same = 0;
      // FPTAN has pushed 1.0 over its result.
      const at = name === 'FPTAN' ? 38 : 28;
      for (let n = 0; n < CASES; n++) {
        const before = input.subarray(n * RECORD, (n + 1) * RECORD);
        const mine = before.slice();
        runOurs(mine, instruction);
        const quad = truth.subarray(n * 16, n * 16 + 16);
        const value = read80(mine, at);
        const other = read80(theirs, n * RECORD + at);
        if (!finite(value) || !finite(other)) continue;
        const distance = ulps(value, quad);
        const limit = (word(before, 0) & 0xc00) === 0 ? 0.5000001 : 1.0000001;
        assert.ok(
          distance <= limit,
          `${name} is off by ${distance} ulp: ${describe(before)} result ${value.exp.toString(16)}:${value.significand.toString(16)}`,
        );
        ours = Math.max(ours, distance);
        processor = Math.max(processor, ulps(other, quad));
        if (value.significand === other.significand && value.exp === other.exp && value.sign === other.sign) same++;
      }
      t.diagnostic(
        `${name}: ours at most ${ours.toFixed(4)} ulp, processor ${processor.toFixed(4)}; ${((same / CASES) * 100).toFixed(1)} % equal`,
      );
    }
  });
}

/** Differences other than in the last place of a finite result. */
function differ(ours: Uint8Array, theirs: Uint8Array): string[] {
  const differences: string[] = [];
  const show = (what: string, a: number, b: number): void => {
    if (a !== b) differences.push(`${what}: ours ${a.toString(16)} processor ${b.toString(16)}`);
  };
  show('fault', ours[112], theirs[112]);
  show('control', word(ours, 0), word(theirs, 0));
  // C1 tells the direction of rounding, which differs with the last place.
  show('status', word(ours, 4) & ~0x200, word(theirs, 4) & ~0x200);
  show('tags', word(ours, 8), word(theirs, 8));
  for (let i = 0; i < 8; i++) {
    const a = read80(ours, 28 + i * 10);
    const b = read80(theirs, 28 + i * 10);
    if (a.sign === b.sign && a.exp === b.exp && a.significand === b.significand) continue;
    const gap = a.sign === b.sign && finite(a) && finite(b) ? Math.abs(Number(position(a) - position(b))) : Infinity;
    if (gap > 2) differences.push(`ST${i}: ours ${show80(a)} processor ${show80(b)}`);
  }
  if (Buffer.from(ours.subarray(MEMORY)).compare(Buffer.from(theirs.subarray(MEMORY))) !== 0) differences.push('memory');
  return differences;
}

const position = ({ exp, significand }: Value): bigint =>
  (BigInt(Math.max(exp, 1)) << 63n) + (significand & 0x7fffffffffffffffn) - (exp === 0 ? 1n << 63n : 0n);
const show80 = ({ sign, exp, significand }: Value): string =>
  `${sign ? '-' : '+'}${exp.toString(16)}:${significand.toString(16)}`;
