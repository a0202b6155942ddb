/** The operands of a decoded instruction as objdump writes them in Intel's syntax, as far as a row tells them. */
import * as S from '../../../engine/memory/vcpu-state.ts';
import type { Decoder } from '../../../engine/x86/decode/decoder.ts';
import type { Operand } from '../../../engine/x86/decode/rows.ts';

const NAMES = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];

function general(slot: number, bits: number): string {
  const register = (slot - S.GPR) >> 3;
  if (((slot - S.GPR) & 7) === 1) return `${'acdb'[register]}h`;
  if (register >= 8) return `r${register}${bits === 64 ? '' : bits === 32 ? 'd' : bits === 16 ? 'w' : 'b'}`;
  if (bits === 8) return register < 4 ? `${'acdb'[register]}l` : `${NAMES[register]}l`;
  return `${bits === 64 ? 'r' : bits === 32 ? 'e' : ''}${NAMES[register]}`;
}
const vector = (slot: number, wide: boolean): string => `${wide ? 'y' : 'x'}mm${(slot - S.VECTOR) / S.VECTOR_STRIDE}`;
const signedHex = (value: number): string => (value < 0 ? `-0x${(-value).toString(16)}` : `+0x${value.toString(16)}`);

/** Base, index, scale and displacement in brackets; zero displacements are left out. */
function memory(decoder: Decoder): string {
  const { addressSize, base, index, scale } = decoder;
  let text = '';
  let { disp } = decoder;
  if (base === S.RIP_BASE) {
    text = addressSize === 64 ? 'rip' : 'eip';
    disp = (disp - decoder.length) | 0;
  } else if (base !== S.ZERO) text = general(base, addressSize);
  if (index !== S.ZERO) {
    const name = index >= S.VECTOR ? `mm${(index - S.VECTOR) / S.VECTOR_STRIDE}` : general(index, addressSize);
    text += `${text === '' ? '' : '+'}${name}${addressSize === 16 ? '' : `*${1 << scale}`}`;
  }
  if (text === '') {
    const mask = addressSize === 64 ? disp : addressSize === 32 ? disp >>> 0 : disp & 0xffff;
    return `0x${(addressSize === 64 ? BigInt.asUintN(64, BigInt(mask)) : mask).toString(16)}`;
  }
  return disp === 0 ? text : text + signedHex(disp);
}

/** What operand `operand` of the decoder's instruction is called; undefined where it is not compared. */
export function operandText(decoder: Decoder, operand: Operand): string | undefined {
  const { size, wide } = decoder;
  const letter = operand.size;
  const bits =
    letter === 'b'
      ? 8
      : letter === 'w'
        ? 16
        : letter === 'd'
          ? 32
          : letter === 'q'
            ? 64
            : letter === 'y'
              ? Math.max(32, size)
              : size;
  const isYmm = wide && letter === 'x';
  switch (operand.kind) {
    case 'E':
      return decoder.memory ? `[${memory(decoder)}]` : general(decoder.a, bits);
    case 'R':
    case 'Z':
      return general(decoder.a, bits);
    case 'M':
      return `[${memory(decoder)}]`;
    case 'G':
      return general(decoder.b, bits);
    case 'B':
      return general(decoder.c, bits);
    case 'V':
      return vector(decoder.b, isYmm);
    case 'W':
      return decoder.memory ? `[${memory(decoder)}]` : vector(decoder.a, isYmm);
    case 'U':
      return vector(decoder.a, isYmm);
    case 'H':
      return vector(decoder.c, isYmm);
    case 'P':
      return `mm${(decoder.b - S.FPU) / 16}`;
    case 'Q':
      return decoder.memory ? `[${memory(decoder)}]` : `mm${(decoder.a - S.FPU) / 16}`;
    case 'N':
      return `mm${(decoder.a - S.FPU) / 16}`;
    default:
      return undefined;
  }
}

/** An operand of objdump's text in the same form: without sizes, segments and zero scales. */
export function normalize(text: string): string {
  const bracket = /\[(.*)\]/.exec(text);
  if (bracket === null) {
    const absolute = /^(?:[A-Z]+ PTR )?[c-gs]s:(0x[0-9a-f]+)$/.exec(text);
    return absolute === null ? text : `[${absolute[1]}]`;
  }
  return `[${bracket[1]
    .replace(/\+[re]iz\*\d/, '')
    .replace(/^[re]iz\*\d\+?/, '')
    .replace(/[xy](mm\d+)/, '$1')
    .replace(/([+-])0x0$/, '')}]`;
}

/** Splits operands at commas outside of brackets. */
export function splitOperands(text: string): string[] {
  return text === '' ? [] : text.split(/,(?![^[]*\])/).map((part) => normalize(part.trim()));
}
