/**
 * What the comparison leaves out, and why: instructions that are not run, results and flags that the SDM leaves
 * undefined; and which instructions need a feature of the host.
 */
import type { Row } from '../../../engine/x86/decode/rows.ts';
import { CASE_BYTES, CODE, CODE_AT, CODE_BYTES, codeAddress, GPR, LANDING, LENGTH, type Mode } from './layout.ts';

/** Instructions that are not run at all. */
export const EXCLUDED: Readonly<Record<string, string>> = {
  X87: 'x87 has a differential test of its own, test/differential/fpu',
  FXSAVE: 'tested with the x87 state, test/differential/fpu',
  FXRSTOR: 'tested with the x87 state, test/differential/fpu',
  INT1: 'hypervisors report the address of its trap differently',
  CPUID: 'tells the model, which is not the host',
  RDTSC: 'a clock',
  RDTSCP: 'a clock',
  RDPMC: "a counter, and the host kernel's choice (CR4.PCE)",
  RDRAND: 'random',
  RDSEED: 'random',
  VMCALL: "the host's hypervisor answers it, or #UD",
  RDPID: "the host kernel's choice (IA32_TSC_AUX)",
  XSETBV: "the host kernel's choice (CR4.OSXSAVE)",
  XGETBV: "the host kernel's choice of features (XCR0)",
  SYSCALL: 'would call the host kernel',
  SYSENTER: 'would call the host kernel',
  INT: "the host kernel's IDT decides; vector 80 hex would call it",
  SGDT: 'the host kernel imitates it under UMIP',
  SIDT: 'the host kernel imitates it under UMIP',
  SMSW: 'the host kernel imitates it under UMIP',
  SLDT: 'the host kernel imitates it under UMIP',
  STR: 'the host kernel imitates it under UMIP',
  SYSEXIT: 'not there in long mode on AMD, #GP on Intel',
  SYSRET: 'outside 64-bit mode #UD on AMD and Intel in different order',
  RCPPS: "an approximation from each vendor's own table; its error is bounded in test/differential/sse",
  RCPSS: "an approximation from each vendor's own table; its error is bounded in test/differential/sse",
  VRCPPS: "an approximation from each vendor's own table",
  VRCPSS: "an approximation from each vendor's own table",
  VRSQRTPS: "an approximation from each vendor's own table",
  VRSQRTSS: "an approximation from each vendor's own table",
  RSQRTPS: "an approximation from each vendor's own table; its error is bounded in test/differential/sse",
  RSQRTSS: "an approximation from each vendor's own table; its error is bounded in test/differential/sse",
};

const CF = 1;
const PF = 4;
const AF = 0x10;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
const ALL = CF | PF | AF | ZF | SF | OF;

/** Flags that an instruction leaves undefined whatever its operands are (SDM 1, table A-2). */
const UNDEFINED_FLAGS: Readonly<Record<string, number>> = {
  AND: AF,
  OR: AF,
  XOR: AF,
  TEST: AF,
  MUL: SF | ZF | AF | PF,
  IMUL1: SF | ZF | AF | PF,
  IMUL2: SF | ZF | AF | PF,
  IMUL3: SF | ZF | AF | PF,
  DIV: ALL,
  IDIV: ALL,
  BSF: ALL & ~ZF,
  BSR: ALL & ~ZF,
  TZCNT: OF | SF | AF | PF,
  LZCNT: OF | SF | AF | PF,
  ANDN: AF | PF,
  BLSR: AF | PF,
  BLSMSK: AF | PF,
  BLSI: AF | PF,
  BEXTR: SF | AF | PF,
  BZHI: AF | PF,
  BT: OF | SF | AF | PF,
  BTS: OF | SF | AF | PF,
  BTR: OF | SF | AF | PF,
  BTC: OF | SF | AF | PF,
  AAA: OF | SF | ZF | PF,
  AAS: OF | SF | ZF | PF,
  DAA: OF,
  DAS: OF,
  AAM: OF | AF | CF,
  AAD: OF | AF | CF,
};

/** A decoded case, as the rules look at it. */
export interface Subject {
  readonly row: Row;
  /** Operand size. */
  readonly size: number;
  /** Immediate as the decoder gives it. */
  readonly immediate: number;
  /** CL before the instruction. */
  readonly cl: number;
  readonly trap: number;
}

/** The flags not to compare. */
export function undefinedFlags(subject: Subject): number {
  const { row, trap } = subject;
  // A fault leaves all flags as they were.
  if (trap === 0 || trap === 6 || trap === 13 || trap === 14 || trap === 12 || trap === 17) return 0;
  const always = UNDEFINED_FLAGS[row.mnemonic];
  if (always !== undefined) return always;
  const count = shiftCount(subject);
  if (count === undefined || count === 0) return 0;
  const bits = operandBits(subject);
  switch (row.mnemonic) {
    case 'ROL':
    case 'ROR':
    case 'RCL':
    case 'RCR':
      // SDM 2, RCL: OF is defined for counts of 1 only.
      return count === 1 ? 0 : OF;
    case 'SHL':
    case 'SHR':
      // SDM 2, SAL: CF is undefined where everything was shifted out of an 8- or 16-bit operand.
      return AF | (count === 1 ? 0 : OF) | (count >= bits ? CF : 0);
    case 'SAR':
      return AF | (count === 1 ? 0 : OF);
    default:
      return AF | (count === 1 ? 0 : OF);
  }
}

const SHIFTS = new Set(['ROL', 'ROR', 'RCL', 'RCR', 'SHL', 'SHR', 'SAR', 'SHLD', 'SHRD']);

function operandBits(subject: Subject): number {
  const letter = subject.row.operands[0].size;
  return letter === 'b' ? 8 : subject.size;
}

function shiftCount(subject: Subject): number | undefined {
  const { row, size, immediate, cl } = subject;
  if (!SHIFTS.has(row.mnemonic)) return undefined;
  const last = row.operands[row.operands.length - 1];
  const raw = last.kind === 'I' ? immediate & 0xff : last.fixed === 'CL' ? cl : 1;
  return raw & (size === 64 && operandBits(subject) === 64 ? 63 : 31);
}

/** Cases whose whole result is undefined, by reason; undefined where it is not. */
export function undefinedResult(subject: Subject): string | undefined {
  const { row, size } = subject;
  if ((row.mnemonic === 'SHLD' || row.mnemonic === 'SHRD') && (shiftCount(subject) ?? 0) > size)
    return 'SHLD and SHRD by more than the operand size (SDM 2, SHLD)';
  if (/^V?MASKMOV(Q|DQU)$/.test(row.mnemonic) && subject.trap !== 3)
    return 'MASKMOVQ and MASKMOVDQU: which bytes that are not stored may fault (SDM 2, MASKMOVDQU)';
  if (row.mnemonic === 'POPA' && subject.trap !== 3) return 'POPA that faults: AMD leaves the registers popped so far';
  if (row.mnemonic === 'PUSHA' && subject.trap !== 3) return 'PUSHA that faults: AMD leaves in memory what was pushed so far';
  if (row.mnemonic === 'BSWAP' && size === 16) return 'BSWAP of a 16-bit register (SDM 2, BSWAP)';
  return undefined;
}

/** Prefixes that make the encoding another instruction, or one that vendors treat differently. */
export function differsByVendor(row: Row, code: Uint8Array, mode: Mode): string | undefined {
  let operand = false;
  let repeat = false;
  let lock = false;
  let wide = false;
  for (const byte of code) {
    if (byte === 0x66) operand = true;
    else if (byte === 0xf3 || byte === 0xf2) repeat = true;
    else if (byte === 0xf0) lock = true;
    else if (mode === 64 && (byte & 0xf8) === 0x48) wide = true;
    else if (![0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x67].includes(byte) && (mode !== 64 || (byte & 0xf0) !== 0x40)) break;
  }
  if (operand && mode === 64 && row.attributes.has('f64') && row.mnemonic !== 'MOV_FROM_CR')
    return 'near branches with an operand-size prefix in 64-bit mode: AMD heeds it, Intel does not (SDM 2, Jcc)';
  if (mode === 64 && wide && /^(LOAD_FAR|CALL_FAR_M|JMP_FAR_M)$/.test(row.mnemonic))
    return 'far pointers with offsets of 64 bits: Intel has them, AMD takes 32 (AMD APM 3, JMP far)';
  if ((row.mnemonic === 'BSF' || row.mnemonic === 'BSR') && repeat)
    return 'F3 makes BSF and BSR TZCNT and LZCNT where BMI is there';
  if (/^LOOPN?E$/.test(row.mnemonic) && repeat) return 'LOOPE and LOOPNE with a repeat prefix: reserved (SDM 2, 2.1.1)';
  if (
    row.map === 1 &&
    row.opcode === 0x0d &&
    code[code.length - 1] >= 0xc0 &&
    (code.length < 3 || code[code.length - 2] === 0x0d)
  )
    return '0F 0D with a register is #UD on AMD, a NOP on Intel';
  if (row.mnemonic === 'ARPL' && mode !== 64 && code.indexOf(0x2e) < code.indexOf(row.opcode) && code.includes(0x2e))
    return 'ARPL through a code segment: AMD reads before it looks whether it may write';
  if (lock && /^VER[RW]$/.test(row.mnemonic)) return 'LOCK VERR and LOCK VERW are #UD (SDM 2), AMD takes no notice of LOCK';
  if (lock && /^MOV_(TO|FROM)_CR$/.test(row.mnemonic)) return 'LOCK MOV CR0 is CR8 on AMD';
  return undefined;
}

/** Features that /proc/cpuinfo names otherwise than QEMU. */
const CPUINFO: Readonly<Record<string, string>> = { sse3: 'pni', 'sse4.1': 'sse4_1', 'sse4.2': 'sse4_2', 'sha-ni': 'sha_ni' };
/** The feature (a name of /proc/cpuinfo) that an instruction needs beyond x86-64 itself. */
export const featureOf = ({ feature }: Row): string | undefined =>
  feature === undefined ? undefined : (CPUINFO[feature] ?? feature);

const CHAPTERS: readonly (readonly [string, RegExp])[] = [
  ['5.2 x87', /^(X87|FWAIT)$/],
  [
    '5.1.1 data transfer',
    /^(MOV|CMOV|XCHG|XCHG_A|BSWAP|XADD|CMPXCHG|CMPXCHG8B|PUSH|PUSH_E|POP|POP_E|PUSHA|POPA|CWD|CBW|MOVSXD?|MOVZX|MOVNTI)$/,
  ],
  ['5.1.2 binary arithmetic', /^(ADCX|ADOX|ADD|ADC|SUB|SBB|IMUL[123]|MUL|I?DIV|INC|DEC|NEG|CMP)$/],
  ['5.1.3 decimal arithmetic', /^(DAA|DAS|AAA|AAS|AAM|AAD|SALC)$/],
  ['5.1.4 logical', /^(AND|OR|XOR|NOT)$/],
  ['5.1.5 shift and rotate', /^(SAR|SHR|SHL|SHRD|SHLD|ROR|ROL|RCR|RCL)$/],
  ['5.1.6 bit and byte', /^(BT[SRC]?|BSF|BSR|SETCC|TEST|CRC32|POPCNT|LZCNT|TZCNT)$/],
  [
    '5.1.7 control transfer',
    /^(JMP|JMP_E|JMP_FAR|JMP_FAR_M|JCC|JCXZ|LOOP|LOOPE|LOOPNE|CALL|CALL_E|CALL_FAR|CALL_FAR_M|RET|RET_FAR|IRET|INT|INT1|INT3|INTO|BOUND|ENTER|LEAVE|UD)$/,
  ],
  ['5.1.16 BMI1 and BMI2', /^(ANDN|BLSR|BLSMSK|BLSI|BEXTR|BZHI|PEXT|PDEP|MULX|SHLX|SARX|SHRX|RORX)$/],
  ['5.1.8 string', /^(MOVS|CMPS|SCAS|LODS|STOS)$/],
  ['5.1.9 input and output', /^(IN|OUT|INS|OUTS)$/],
  ['5.1.11 flag control', /^(STC|CLC|CMC|CLD|STD|LAHF|SAHF|PUSHF|POPF|STI|CLI)$/],
  ['5.1.12 segment register', /^(LOAD_FAR|PUSH_SEG|POP_SEG|MOV_TO_SEG|MOV_FROM_SEG|(RD|WR)[FG]SBASE)$/],
  ['5.1.13 miscellaneous', /^(LEA|NOP|XLAT|CPUID|MOVBE|CLFLUSH|PAUSE|FENCE|RDRAND|RDSEED)$/],
];

/** The section of SDM volume 1, chapter 5 that an instruction stands in. */
export function chapterOf(row: Row): string {
  const vector = row.operands.some((operand) => 'HVWUPQN'.includes(operand.kind));
  if (!vector && row.mnemonic !== 'EMMS' && !/MXCSR|^FX/.test(row.mnemonic))
    return CHAPTERS.find(([, names]) => names.test(row.mnemonic))?.[0] ?? '5.20 system';
  switch (featureOf(row)) {
    case 'sse4_2':
      return '5.11 SSE4.2';
    case 'sse4_1':
      return '5.10 SSE4.1';
    case 'ssse3':
      return '5.8 SSSE3';
    case 'pni':
      return '5.7 SSE3';
    case 'aes':
      return '5.12 AES';
    case 'pclmulqdq':
      return '5.12 PCLMULQDQ';
    case 'sha_ni':
      return '5.18 SHA';
    case 'avx':
      return '5.13 AVX';
    case 'f16c':
      return '5.14 F16C';
    case 'fma':
      return '5.15 FMA';
    case 'avx2':
      return '5.16 AVX2';
    case 'vaes':
      return '5.12 AES';
    case 'vpclmulqdq':
      return '5.12 PCLMULQDQ';
    default:
      if (row.mnemonic === 'EMMS') return '5.4 MMX';
      if (row.operands.some((operand) => 'PQN'.includes(operand.kind))) return '5.4 MMX';
      return row.prefix === 1 || row.prefix === 3 || /DQ|PD/.test(row.mnemonic) ? '5.6 SSE2' : '5.5 SSE';
  }
}

/** Differences of fault that are a matter of the host: where both fault, but not the same. `cr2High` is the engine's. */
export function faultDiffers(
  row: Row | undefined,
  code: Uint8Array,
  host: number,
  engine: number,
  cr2High: number,
): string | undefined {
  if (host === 13 && engine === 14 && cr2High >= 0xffff8000 && (code.includes(0x64) || code.includes(0x65)))
    return 'AMD looks whether the offset is canonical before it adds the base of FS or GS, Intel after';
  if (/^VP?MASKMOV/.test(row?.mnemonic ?? '') && (host === 12 || host === 13) && engine === 3)
    return 'masked moves of nothing at an address that is not canonical: a fault on AMD, none by SDM 2, VMASKMOV';
  if (/^(FX|X)(SAVE|RSTOR)/.test(row?.mnemonic ?? '') && host === 14 && (engine === 13 || engine === 12))
    return 'images that wrap past 4 GiB: AMD goes on at zero, which SDM 3A, 5.3 leaves open';
  if (row?.mnemonic === 'CMPXCHG' && host === 13 && engine === 14 && cr2High === 0)
    return 'CMPXCHG on an operand that wraps past 4 GiB: #GP on AMD, where MOV has #PF; SDM 3A, 5.3 leaves it open';
  const vex = code.indexOf(0xc4);
  if (row === undefined && vex >= 0 && (code[vex + 1] & 31) === 3 && code[vex + 2] < 0x80 && code[vex + 3] < 2)
    return 'VPERMQ and VPERMPD with VEX.W clear: #UD by SDM 2, AMD takes no notice of it';
  if (row?.feature === 'sha-ni' && engine === 13)
    return 'SHA with memory that is not aligned: #GP on Intel (SDM 2, type 4), allowed on AMD';
  const aligned = /^(FX|X)(SAVE|RSTOR)/.test(row?.mnemonic ?? '') || row?.operands.some(({ size }) => size === 'x');
  if (host === 13 && engine === 12 && (row?.attributes.has('cpl0') || aligned))
    return 'privileged or misaligned, and beyond the limit of the stack segment: both fault, in an order that SDM 3A, 6.9 leaves open';
  if (/^(RET_FAR|IRET|CALL_FAR|CALL_FAR_M)$/.test(row?.mnemonic ?? '') && (host === 14 || host === 12) && engine >= 11)
    return 'far calls and returns with a fault of the stack and one of the target: AMD has the whole frame first (SDM 3A, 6.9)';
  if (row?.mnemonic === 'POP_E' && (host === 14 || host === 12) && engine === 13)
    return 'POP to memory with a fault of the stack and one of the destination: their order is not told (SDM 3A, 6.9)';
  return undefined;
}

/** A near branch beyond the limit of the code segment: #GP is told there, not at the branch, and after what CALL pushes. */
export const faultsAtTarget = (mode: Mode, host: number, engine: number, engineRip: number): boolean =>
  mode === 16 && host === 13 && engine === 13 && engineRip > 0xffff;

/** What the host is said to have trapped with where it ran on until its alarm. */
const ALARM = 255;
/**
 * A far transfer to what lies in memory by chance may come into the host's own program, which the engine's memory has not:
 * the one runs on until its alarm, the other faults on the fetch, or on what it comes to instead.
 */
export const runsAway = (row: Row | undefined, host: number, engine: number): boolean =>
  host === ALARM && engine >= 12 && engine <= 14 && /^(CALL_FAR|JMP_FAR|RET_FAR|IRET)/.test(row?.mnemonic ?? '');

/**
 * A far transfer that came to another case's code, or into the middle of it, has run that too, and that may be anything:
 * DAA with its undefined OF, BSWAP of 16 bits. `rip`: where the host stopped.
 */
export const ranElsewhere = (row: Row | undefined, n: number, rip: number): boolean => {
  if (!/^(CALL_FAR|JMP_FAR|RET_FAR|IRET)/.test(row?.mnemonic ?? '')) return false;
  // In the first segment of the local table the code begins at 0.
  const at = rip < CODE_BYTES ? rip + CODE : rip;
  return at >= CODE && at < CODE + CODE_BYTES && at !== codeAddress(n) && at !== LANDING + 1;
};

/** CL and code of case `n` of a batch's cases. */
export const clOf = (cases: Uint8Array, n: number): number => cases[n * CASE_BYTES + GPR + 8];
export const codeOf = (cases: Uint8Array, n: number): Uint8Array => {
  const at = n * CASE_BYTES;
  return cases.subarray(at + CODE_AT, at + CODE_AT + cases[at + LENGTH]);
};
