/** A decoded instruction as text, in the syntax of Intel's manuals: `mov eax,[rbx+rcx*4+8]`. For logs. */
import { FPU, GPR, RIP_BASE, SEGMENT_SIZE, SEGMENTS, VECTOR, VECTOR_STRIDE, ZERO } from '../../memory/vcpu-state.ts';
import type { Decoder } from './decoder.ts';
import { x87Text } from './print-x87.ts';
import { type Operand, operandBits } from './rows.ts';

const LEGACY = 'ax cx dx bx sp bp si di'.split(' ');
const HIGH = 'ah ch dh bh'.split(' ');
const LOW = 'al cl dl bl spl bpl sil dil'.split(' ');
const SEGMENT_NAMES = 'es cs ss ds fs gs'.split(' ');
const CONDITIONS = 'o no b ae e ne be a s ns p np l ge le g'.split(' ');
const SIZES: Readonly<Record<number, string>> = {
  8: 'byte ',
  16: 'word ',
  32: 'dword ',
  64: 'qword ',
  128: 'xmmword ',
  256: 'ymmword ',
};

/** Rows whose mnemonic is not the manual's. */
const NAMES: Readonly<Record<string, string>> = {
  IMUL1: 'imul',
  IMUL2: 'imul',
  IMUL3: 'imul',
  CALL_FAR: 'call far',
  CALL_FAR_M: 'call far',
  JMP_FAR: 'jmp far',
  JMP_FAR_M: 'jmp far',
  RET_FAR: 'retf',
  CALL_E: 'call',
  JMP_E: 'jmp',
  PUSH_E: 'push',
  POP_E: 'pop',
  UD: 'ud2',
};
const SIZED: Readonly<Record<string, readonly [string, string, string]>> = {
  CBW: ['cbw', 'cwde', 'cdqe'],
  CWD: ['cwd', 'cdq', 'cqo'],
  JCXZ: ['jcxz', 'jecxz', 'jrcxz'],
};
const REPEATS = ['', 'rep ', 'repne '];
const UNTIL: ReadonlySet<string> = new Set(['CMPS', 'SCAS']);
const NO_STRING = /^(LOOP|JCXZ|XLAT|.*MASKMOV)/;

/** The general register at a state offset, `bits` wide. */
function general(slot: number, bits: number): string {
  const number = (slot - GPR) >> 3;
  if (((slot - GPR) & 7) === 1) return HIGH[number] ?? '?';
  if (number >= 8) return `r${number}${bits === 64 ? '' : bits === 32 ? 'd' : bits === 16 ? 'w' : 'b'}`;
  if (bits === 8) return LOW[number];
  return `${bits === 64 ? 'r' : bits === 32 ? 'e' : ''}${LEGACY[number]}`;
}
const vector = (slot: number, bits: number): string => `${bits === 256 ? 'y' : 'x'}mm${(slot - VECTOR) / VECTOR_STRIDE}`;
const hex = (value: number | bigint): string => (value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`);
const signed = (value: number): string => (value < 0 ? `-0x${(-value).toString(16)}` : `+0x${value.toString(16)}`);

/** The segment register whose hidden part is at a state offset. */
const segmentAt = (slot: number): string => SEGMENT_NAMES[(slot - SEGMENTS) / SEGMENT_SIZE] ?? '?';

/**
 * The text of the instruction that the decoder holds, which starts at `address` (64 bits). `placeDisplacement` must not
 * have been called for it. What the tables do not tell is left out: the size of x87's and some systems' memory operands.
 */
export function printInstruction(decoder: Decoder, address: bigint): string {
  const { row, size, lock, repeat } = decoder;
  const { mnemonic } = row;
  const operands = [...row.operands];
  if (row.first !== undefined) operands.splice(1, 0, row.first);
  if (mnemonic === 'X87') return x87Text(decoder.imm >> 8, decoder.modrm, () => memory(decoder, 0, address));
  let texts = operands.map((operand) => operandText(decoder, operand, address));
  const string = row.attributes.has('string') && !NO_STRING.test(mnemonic);
  let name = NAMES[mnemonic] ?? mnemonic.replace(/_.*$/, '').toLowerCase();
  if (row.attributes.has('cc')) name = `${mnemonic === 'JCC' ? 'j' : name.replace(/cc$/, '')}${CONDITIONS[row.condition]}`;
  else if (mnemonic in SIZED) {
    const bits = mnemonic === 'JCXZ' ? decoder.addressSize : size;
    name = SIZED[mnemonic][bits === 16 ? 0 : bits === 32 ? 1 : 2];
  } else if (mnemonic === 'XCHG_A') texts = texts[0] === general(GPR, size) ? [] : [texts[0], general(GPR, size)];
  else if (mnemonic === 'CMPXCHG8B' && size === 64) name = 'cmpxchg16b';
  else if (mnemonic === 'LOAD_FAR') name = `l${segmentAt(decoder.c)}`;
  else if (mnemonic === 'FENCE') name = ['lfence', 'mfence', 'sfence'][((decoder.modrm >> 3) & 7) - 5] ?? 'fence';
  else if (/^(P(EXTR|INSR)|VP(EXTR|INSR))$/.test(mnemonic)) name += size === 64 ? 'q' : 'd';
  else if (/^V?MOVD$/.test(mnemonic) && size === 64) name = name.replace('movd', 'movq');
  if (mnemonic === 'XCHG_A' && texts.length === 0) name = 'nop';
  // IN and OUT, and string instructions, name their registers; the size is in their operands.
  const prefix = string && repeat !== 0 ? (repeat === 1 && UNTIL.has(mnemonic) ? 'repe ' : REPEATS[repeat]) : lock ? 'lock ' : '';
  return `${prefix}${name}${texts.length === 0 ? '' : ` ${texts.join(',')}`}`;
}

function operandText(decoder: Decoder, { kind, size: letter, fixed }: Operand, address: bigint): string {
  const { size, wide } = decoder;
  const bits = operandBits(letter, size, wide);
  switch (kind) {
    case 'E':
      // A byte or word that is put into a register is read as one; the register may be named whole.
      return decoder.memory ? memory(decoder, bits, address) : general(decoder.a, bits || size);
    case 'R':
    case 'Z':
      return general(decoder.a, bits || size);
    case 'G':
      return general(decoder.b, bits || size);
    case 'B':
      return general(decoder.c, bits || size);
    case 'M':
      return memory(decoder, bits, address);
    case 'O':
      return `[${segmentPrefix(decoder)}${hex(BigInt.asUintN(64, (BigInt(decoder.wideHigh) << 32n) | BigInt(decoder.wideLow >>> 0)))}]`;
    case 'I':
      if (letter === 'b2') return hex(decoder.disp);
      if (decoder.isWide)
        return hex(BigInt.asUintN(64, (BigInt(decoder.wideHigh) << 32n) | BigInt.asUintN(32, BigInt(decoder.wideLow))));
      return letter === 'b'
        ? hex(decoder.imm & 0xff)
        : letter === 'bs'
          ? hex(decoder.imm)
          : hex(unsigned(decoder.imm, bits || size));
    case 'J': {
      const target = address + BigInt(decoder.length) + BigInt(decoder.imm);
      return hex(BigInt.asUintN(size, target));
    }
    case 'A':
      return `${hex(decoder.disp)}:${hex(decoder.imm >>> 0)}`;
    case 'S':
      return segmentAt(decoder.b);
    case 'C':
      return `cr${decoder.b}`;
    case 'D':
      return `dr${decoder.b}`;
    case 'X': {
      const name = segmentAt(decoder.segment);
      const register = general(GPR + (decoder.row.mnemonic === 'XLAT' ? 3 : 6) * 8, decoder.addressSize);
      return `${SIZES[bits || size]}[${name === '?' ? '' : `${name}:`}${register}]`;
    }
    case 'Y': {
      const register = general(GPR + 7 * 8, decoder.addressSize);
      return `${SIZES[bits || size]}[${decoder.addressSize === 64 ? '' : 'es:'}${register}]`;
    }
    case 'V':
      return vector(decoder.b, bits);
    case 'W':
      return decoder.memory ? memory(decoder, bits, address) : vector(decoder.a, bits);
    case 'U':
      return vector(decoder.a, bits);
    case 'H':
      return vector(decoder.c, bits);
    case 'L':
      return `${wide ? 'y' : 'x'}mm${(decoder.imm & 0xff) >> 4}`;
    case 'P':
      return `mm${(decoder.b - FPU) >> 4}`;
    case 'Q':
      return decoder.memory ? memory(decoder, bits, address) : `mm${(decoder.a - FPU) >> 4}`;
    case 'N':
      return `mm${(decoder.a - FPU) >> 4}`;
    case 'F':
      return fixed === 'rAX' || fixed === 'eAX' ? general(GPR, fixed === 'eAX' ? 32 : size) : fixed.toLowerCase();
  }
}

/** An immediate as the operand size shows it; in 64 bits it is extended by its sign. */
const unsigned = (value: number, bits: number): number | bigint =>
  bits === 64 ? BigInt.asUintN(64, BigInt(value)) : bits === 32 ? value >>> 0 : value & 0xffff;

function memory(decoder: Decoder, bits: number, address: bigint): string {
  const { addressSize, base, index, scale, row, length } = decoder;
  let { disp } = decoder;
  // The decoder has counted these in.
  if (row.mnemonic === 'POP_E' && base === GPR + 32) disp -= decoder.size / 8;
  const parts: string[] = [];
  if (base === RIP_BASE) {
    // `disp` counts from the instruction's start already, unless nothing is made of the address.
    const from = row.mnemonic === 'NOP' || row.mnemonic === 'UD' ? BigInt(length) : 0n;
    parts.push(`rip:${hex(BigInt.asUintN(64, address + from + BigInt(disp)))}`);
    disp = 0;
  } else if (base !== ZERO) parts.push(general(base, addressSize));
  if (index !== ZERO) {
    const name = index >= VECTOR ? vector(index, 128) : general(index, addressSize);
    parts.push(scale === 0 ? name : `${name}*${1 << scale}`);
  }
  const sum = parts.join('+');
  const displacement = sum === '' ? hex(disp >>> 0) : disp === 0 ? '' : signed(disp);
  return `${SIZES[bits] ?? ''}[${segmentPrefix(decoder)}${sum}${displacement}]`;
}

/** The segment of a memory operand where it is worth telling: not what is there anyway, nor what has no base. */
function segmentPrefix(decoder: Decoder): string {
  const name = decoder.segment === ZERO ? '' : segmentAt(decoder.segment);
  if (name === 'fs' || name === 'gs') return `${name}:`;
  return decoder.addressSize !== 64 && name !== '' && name !== '?' && name !== usual(decoder) ? `${name}:` : '';
}

/** The segment that an address has by itself outside of 64-bit mode. */
function usual({ base }: Decoder): string {
  return base === GPR + 32 || base === GPR + 40 ? 'ss' : 'ds';
}
