/** Operands and instructions for the x87 differential test. */

/** A small generator with a seed, so that a failure can be run again. */
export class Random {
  private state: number;
  constructor(seed: number) {
    this.state = seed >>> 0;
  }
  word(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  below(n: number): number {
    return this.word() % n;
  }
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

/** Sign and exponent, high and low word of the significand. */
export type Raw = readonly [number, number, number];

const EDGES: readonly Raw[] = [
  [0, 0, 0], // zero
  [0, 0, 1], // smallest denormal
  [0, 0x7fffffff, 0xffffffff], // largest denormal
  [0, 0x00012345, 0x6789abcd],
  [0, 0x80000000, 0], // pseudo-denormals
  [0, 0xffffffff, 0xffffffff],
  [1, 0x80000000, 0], // smallest normal
  [1, 0x80000000, 1],
  [1, 0x7fffffff, 0xffffffff], // unnormals
  [0x3fff, 0x40000000, 0],
  [0x4000, 0, 0],
  [0x7ffe, 0x00000001, 0],
  [0x7ffe, 0xffffffff, 0xffffffff], // largest
  [0x7ffe, 0xffffffff, 0xfffff800],
  [0x7ffe, 0xffffff00, 0],
  [0x7ffe, 0x80000000, 0],
  [0x7fff, 0x80000000, 0], // infinity
  [0x7fff, 0, 0], // pseudo-infinity
  [0x7fff, 0x40000000, 0], // pseudo-NaNs
  [0x7fff, 0x00000001, 0x2345],
  [0x7fff, 0x80000000, 1], // SNaNs
  [0x7fff, 0xbfffffff, 0xffffffff],
  [0x7fff, 0x80001234, 0x56789abc],
  [0x7fff, 0xc0000000, 0], // QNaNs
  [0x7fff, 0xc0000000, 1],
  [0x7fff, 0xffffffff, 0xffffffff],
  [0x7fff, 0xc0001234, 0x56789abc],
  [0x3fff, 0x80000000, 0], // one, and its neighbours
  [0x3fff, 0x80000000, 1],
  [0x3ffe, 0xffffffff, 0xffffffff],
  [0x3fff, 0xc0000000, 0], // 1.5
  [0x3ffe, 0x80000000, 0], // 0.5
  [0x3ffe, 0x80000000, 1],
  [0x3ffd, 0xffffffff, 0xffffffff],
  [0x4000, 0xa0000000, 0], // 2.5
  [0x4000, 0xc90fdaa2, 0x2168c235], // pi
  [0x3fff, 0xc90fdaa2, 0x2168c235],
  [0x400d, 0xfffe0000, 0], // 32767
  [0x400d, 0xffff0000, 0], // 32767.5
  [0x400e, 0x80000000, 0], // 32768
  [0x400e, 0x80008000, 0],
  [0x401d, 0xfffffffe, 0], // 2^31 - 1
  [0x401d, 0xffffffff, 0],
  [0x401e, 0x80000000, 0], // 2^31
  [0x401e, 0x80000000, 0x80000000],
  [0x403d, 0xffffffff, 0xfffffffe], // 2^63 - 1
  [0x403d, 0xffffffff, 0xffffffff],
  [0x403e, 0x80000000, 0], // 2^63
  [0x403e, 0xffffffff, 0xffffffff],
  [0x403f, 0x80000000, 0], // 2^64
  [0x403a, 0xde0b6b3a, 0x763fffff], // 10^18 - 1 and about
  [0x403a, 0xde0b6b3a, 0x76400000],
  [0x403a, 0xde0b6b3a, 0x763ffff8],
  [0x407e, 0xffffff00, 0], // largest float, and the halves above it
  [0x407e, 0xffffff80, 0],
  [0x407e, 0xffffff7f, 0xffffffff],
  [0x3f81, 0x80000000, 0], // smallest normal float
  [0x3f80, 0xffffffff, 0xffffffff],
  [0x3f6a, 0x80000000, 0], // smallest denormal float
  [0x3f69, 0x80000000, 0],
  [0x43fe, 0xffffffff, 0xfffff800], // largest double
  [0x43fe, 0xffffffff, 0xfffffc00],
  [0x3c01, 0x80000000, 0], // smallest normal double
  [0x3c00, 0xffffffff, 0xffffffff],
  [0x3bcd, 0x80000000, 0], // smallest denormal double
  [0x3bcc, 0x80000000, 1],
  [0x401d, 0x80000000, 0x80000000],
];

/** A significand with structure: few bits, runs at rounding boundaries, or none. */
function significand(random: Random): [number, number] {
  let high = random.word();
  let low = random.word();
  switch (random.below(8)) {
    case 0:
      low = 0;
      high &= 0xffffff00;
      break;
    case 1:
      low = random.pick([0, 1, 0x400, 0x800, 0xfffff800, 0xffffffff, 0x80000000, 0x7ff, 0xbff]);
      break;
    case 2:
      high = random.pick([0, 0xffffff80, 0xffffffff, 0x80000080, 0xffffff00]);
      low = random.pick([0, 1, 0xffffffff, 0x80000000]);
      break;
    case 3:
      low &= 0xfffff800;
      break;
  }
  return [high, low];
}

/** A random operand, seldom a tame one. */
export function operand(random: Random): Raw {
  const sign = random.below(2) << 15;
  if (random.chance(30)) {
    const [top, high, low] = random.pick(EDGES);
    return [top | sign, high, low];
  }
  const [high, low] = significand(random);
  let exp: number;
  switch (random.below(8)) {
    case 0:
      exp = random.below(0x8000);
      break;
    case 1:
      exp = random.below(70);
      break;
    case 2:
      exp = 0x7fff - random.below(70);
      break;
    case 3:
      exp = 0x3fff + random.below(70);
      break;
    case 4:
      exp = random.pick([0x3f81, 0x3c01, 0x407e, 0x43fe]) + random.below(70) - 60;
      break;
    default:
      exp = 0x3fff + random.below(16) - 8;
  }
  return [exp | sign, random.chance(96) ? (high | 0x80000000) >>> 0 : high, low];
}

/** An operand near another: same exponent or close, some bits shared; for cancellation. */
export function near(random: Random, [top, high, low]: Raw): Raw {
  const exp = Math.min(Math.max((top & 0x7fff) + random.below(5) - 2, 0), 0x7fff);
  return [(random.below(2) << 15) | exp, high, random.chance(50) ? low : (low ^ (1 << random.below(32))) >>> 0];
}

export function writeRaw(to: DataView, at: number, [top, high, low]: Raw): void {
  to.setUint32(at, low, true);
  to.setUint32(at + 4, high, true);
  to.setUint16(at + 8, top, true);
}

/** A float's bits: edges, or random. */
export function float32(random: Random): number {
  return random.chance(40)
    ? (random.pick([
        0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff, 0x3f800000,
      ]) |
        (random.below(2) << 31)) >>>
        0
    : random.chance(10)
      ? random.word() & 0x807fffff
      : random.word();
}

/** A double's bits, high and low. */
export function float64(random: Random): [number, number] {
  if (random.chance(40)) {
    const high = random.pick([0, 0x80000, 0x100000, 0x7fefffff, 0x7ff00000, 0x7ff7ffff, 0x7ff80000, 0x7fffffff, 0x3ff00000]);
    return [(high | (random.below(2) << 31)) >>> 0, random.pick([0, 1, 0xffffffff, random.word()])];
  }
  return [random.chance(10) ? random.word() & 0x800fffff : random.word(), random.word()];
}

/** How an instruction's memory operand is made. */
export type MemoryKind = 'f32' | 'f64' | 'f80' | 'i16' | 'i32' | 'i64' | 'bcd' | 'environment' | 'state' | 'word' | 'any';

export interface Instruction {
  readonly name: string;
  readonly opcode: number;
  readonly modrm: number;
  readonly memory?: MemoryKind;
  /** Operand size prefix: 16-bit environment formats. */
  readonly narrow?: boolean;
  /** Compared by value and not by bits. */
  readonly transcendental?: boolean;
}

const D8 = ['FADD', 'FMUL', 'FCOM', 'FCOMP', 'FSUB', 'FSUBR', 'FDIV', 'FDIVR'];
const kinds: Record<number, MemoryKind> = { 0xd8: 'f32', 0xda: 'i32', 0xdc: 'f64', 0xde: 'i16' };
const OTHER_MEMORY: Record<number, readonly (readonly [string, MemoryKind] | undefined)[]> = {
  0xd9: [
    ['FLD m32', 'f32'],
    undefined,
    ['FST m32', 'any'],
    ['FSTP m32', 'any'],
    ['FLDENV', 'environment'],
    ['FLDCW', 'word'],
    ['FNSTENV', 'any'],
    ['FNSTCW', 'any'],
  ],
  0xdb: [
    ['FILD m32', 'i32'],
    ['FISTTP m32', 'any'],
    ['FIST m32', 'any'],
    ['FISTP m32', 'any'],
    undefined,
    ['FLD m80', 'f80'],
    undefined,
    ['FSTP m80', 'any'],
  ],
  0xdd: [
    ['FLD m64', 'f64'],
    ['FISTTP m64', 'any'],
    ['FST m64', 'any'],
    ['FSTP m64', 'any'],
    ['FRSTOR', 'state'],
    undefined,
    ['FNSAVE', 'any'],
    ['FNSTSW', 'any'],
  ],
  0xdf: [
    ['FILD m16', 'i16'],
    ['FISTTP m16', 'any'],
    ['FIST m16', 'any'],
    ['FISTP m16', 'any'],
    ['FBLD', 'bcd'],
    ['FILD m64', 'i64'],
    ['FBSTP', 'any'],
    ['FISTP m64', 'any'],
  ],
};
const TRANSCENDENTAL: Record<number, string> = {
  0xf0: 'F2XM1',
  0xf1: 'FYL2X',
  0xf2: 'FPTAN',
  0xf3: 'FPATAN',
  0xf9: 'FYL2XP1',
  0xfb: 'FSINCOS',
  0xfe: 'FSIN',
  0xff: 'FCOS',
};
const D9: Record<number, string> = {
  0xd0: 'FNOP',
  0xe0: 'FCHS',
  0xe1: 'FABS',
  0xe4: 'FTST',
  0xe5: 'FXAM',
  0xe8: 'FLD1',
  0xe9: 'FLDL2T',
  0xea: 'FLDL2E',
  0xeb: 'FLDPI',
  0xec: 'FLDLG2',
  0xed: 'FLDLN2',
  0xee: 'FLDZ',
  0xf4: 'FXTRACT',
  0xf5: 'FPREM1',
  0xf6: 'FDECSTP',
  0xf7: 'FINCSTP',
  0xf8: 'FPREM',
  0xfa: 'FSQRT',
  0xfc: 'FRNDINT',
  0xfd: 'FSCALE',
};
const ROWS: Record<number, readonly (string | undefined)[]> = {
  0xd8: D8,
  0xd9: ['FLD', 'FXCH', undefined, 'FSTP1', undefined, undefined, undefined, undefined],
  0xda: ['FCMOVB', 'FCMOVE', 'FCMOVBE', 'FCMOVU', undefined, undefined, undefined, undefined],
  0xdb: ['FCMOVNB', 'FCMOVNE', 'FCMOVNBE', 'FCMOVNU', undefined, 'FUCOMI', 'FCOMI', undefined],
  0xdc: ['FADD to', 'FMUL to', 'FCOM2', 'FCOMP3', 'FSUBR to', 'FSUB to', 'FDIVR to', 'FDIV to'],
  0xdd: ['FFREE', 'FXCH4', 'FST', 'FSTP', 'FUCOM', 'FUCOMP', undefined, undefined],
  0xde: ['FADDP', 'FMULP', 'FCOMP5', undefined, 'FSUBRP', 'FSUBP', 'FDIVRP', 'FDIVP'],
  0xdf: ['FFREEP', 'FXCH7', 'FSTP8', 'FSTP9', undefined, 'FUCOMIP', 'FCOMIP', undefined],
};

/** Every x87 instruction. Register forms come with ST(i) for i = 0, 1, 2 and 7. */
export function instructions(): Instruction[] {
  const list: Instruction[] = [];
  for (const opcode of [0xd8, 0xda, 0xdc, 0xde])
    D8.forEach((name, reg) => {
      list.push({ name: `${name} ${kinds[opcode]}`, opcode, modrm: (reg << 3) | 6, memory: kinds[opcode] });
    });
  for (const [key, forms] of Object.entries(OTHER_MEMORY))
    forms.forEach((form, reg) => {
      if (!form) return;
      const [name, memory] = form;
      list.push({ name, opcode: Number(key), modrm: (reg << 3) | 6, memory });
      if (/ENV|RSTOR|SAVE/.test(name))
        list.push({ name: `${name} 16`, opcode: Number(key), modrm: (reg << 3) | 6, memory, narrow: true });
    });
  for (const [key, row] of Object.entries(ROWS))
    row.forEach((name, reg) => {
      if (name)
        for (const i of [0, 1, 2, 7]) list.push({ name: `${name} ${i}`, opcode: Number(key), modrm: 0xc0 | (reg << 3) | i });
    });
  for (const [modrm, name] of Object.entries(D9)) list.push({ name, opcode: 0xd9, modrm: Number(modrm) });
  for (const [modrm, name] of Object.entries(TRANSCENDENTAL))
    list.push({ name, opcode: 0xd9, modrm: Number(modrm), transcendental: true });
  list.push({ name: 'FUCOMPP', opcode: 0xda, modrm: 0xe9 }, { name: 'FCOMPP', opcode: 0xde, modrm: 0xd9 });
  for (const [i, name] of ['FNENI', 'FNDISI', 'FNCLEX', 'FNINIT', 'FNSETPM'].entries())
    list.push({ name, opcode: 0xdb, modrm: 0xe0 | i });
  list.push({ name: 'FNSTSW AX', opcode: 0xdf, modrm: 0xe0 });
  return list;
}
