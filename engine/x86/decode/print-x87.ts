/** Names of the x87 instructions by escape byte and ModRM; SDM volume 2, appendix A.5 (tables A-7 to A-22). */

const words = (text: string): readonly string[] => text.trim().split(/\s+/);

/** Memory operands, by escape byte less D8h and the digit; with the operand's size in bits after a colon. */
const MEMORY = [
  words('fadd:32 fmul:32 fcom:32 fcomp:32 fsub:32 fsubr:32 fdiv:32 fdivr:32'),
  words('fld:32 - fst:32 fstp:32 fldenv fldcw:16 fnstenv fnstcw:16'),
  words('fiadd:32 fimul:32 ficom:32 ficomp:32 fisub:32 fisubr:32 fidiv:32 fidivr:32'),
  words('fild:32 fisttp:32 fist:32 fistp:32 - fld:80 - fstp:80'),
  words('fadd:64 fmul:64 fcom:64 fcomp:64 fsub:64 fsubr:64 fdiv:64 fdivr:64'),
  words('fld:64 fisttp:64 fst:64 fstp:64 frstor - fnsave fnstsw:16'),
  words('fiadd:16 fimul:16 ficom:16 ficomp:16 fisub:16 fisubr:16 fidiv:16 fidivr:16'),
  words('fild:16 fisttp:16 fist:16 fistp:16 fbld:80 fild:64 fbstp:80 fistp:64'),
];
const SIZES: Readonly<Record<string, string>> = { 16: 'word ', 32: 'dword ', 64: 'qword ', 80: 'tword ' };

/** Register operands: `t` ST(0),ST(i); `i` ST(i),ST(0); `r` ST(i) alone. */
const REGISTERS = [
  words('fadd:t fmul:t fcom:r fcomp:r fsub:t fsubr:t fdiv:t fdivr:t'),
  words('fld:r fxch:r - fstp:r - - - -'),
  words('fcmovb:t fcmove:t fcmovbe:t fcmovu:t - - - -'),
  words('fcmovnb:t fcmovne:t fcmovnbe:t fcmovnu:t - fucomi:t fcomi:t -'),
  words('fadd:i fmul:i fcom:r fcomp:r fsubr:i fsub:i fdivr:i fdiv:i'),
  words('ffree:r fxch:r fst:r fstp:r fucom:r fucomp:r - -'),
  words('faddp:i fmulp:i fcomp:r - fsubrp:i fsubp:i fdivrp:i fdivp:i'),
  words('ffreep:r fxch:r fstp:r fstp:r - fucomip:t fcomip:t -'),
];

/** Those that are one ModRM byte by themselves. */
const SINGLE: Readonly<Record<number, string>> = {
  0xd9d0: 'fnop',
  0xdae9: 'fucompp',
  0xdbe2: 'fnclex',
  0xdbe3: 'fninit',
  0xded9: 'fcompp',
  0xdfe0: 'fnstsw ax',
  ...Object.fromEntries(words('fchs fabs - - ftst fxam').map((name, n) => [0xd9e0 + n, name])),
  ...Object.fromEntries(words('fld1 fldl2t fldl2e fldpi fldlg2 fldln2 fldz').map((name, n) => [0xd9e8 + n, name])),
  ...Object.fromEntries(
    words('f2xm1 fyl2x fptan fpatan fxtract fprem1 fdecstp fincstp fprem fyl2xp1 fsqrt fsincos frndint fscale fsin fcos').map(
      (name, n) => [0xd9f0 + n, name],
    ),
  ),
};

/** The text of an escape `opcode` (D8h to DFh) with its ModRM byte; `memory` makes the address where it has one. */
export function x87Text(opcode: number, modrm: number, memory: () => string): string {
  const digit = (modrm >> 3) & 7;
  if (modrm < 0xc0) {
    const [name, bits] = MEMORY[opcode & 7][digit].split(':');
    return name === '-' ? `esc ${opcode.toString(16)}h/${digit} ${memory()}` : `${name} ${SIZES[bits] ?? ''}${memory()}`;
  }
  const single = SINGLE[(opcode << 8) | modrm];
  if (single !== undefined && single !== '-') return single;
  const [name, operands] = REGISTERS[opcode & 7][digit].split(':');
  const register = `st${modrm & 7}`;
  if (name === '-') return `esc ${opcode.toString(16)}h,${modrm.toString(16)}h`;
  return `${name} ${operands === 't' ? `st0,${register}` : operands === 'i' ? `${register},st0` : register}`;
}
