/** Names of the words of a vCPU's state, for logs. */
import * as S from './vcpu-state.ts';

const GENERAL = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const SEGMENTS = 'es cs ss ds fs gs ldtr tr gdtr idtr'.split(' ');
const PARTS: Readonly<Record<number, string>> = {
  [S.SEG_BASE]: 'base',
  [S.SEG_LIMIT]: 'limit',
  [S.SEG_ATTR]: 'attributes',
  [S.SEG_SELECTOR]: 'selector',
  [S.SEG_LOW]: 'low',
  [S.SEG_HIGH]: 'high',
  [S.SEG_ACCESS]: 'access',
};
const WORDS = new Map<number, string>(
  Object.entries({
    zero: S.ZERO,
    rip_base: S.RIP_BASE,
    flag_res: S.FLAG_RES,
    flag_aux: S.FLAG_AUX,
    eflags: S.EFLAGS,
    pending: S.PENDING,
    next_rip: S.NEXT_RIP,
    stopped_at: S.STOPPED_AT,
    exception: S.EXCEPTION,
    exception_code: S.EXCEPTION_CODE,
    cr0: S.CR0,
    cr2: S.CR2,
    cr3: S.CR3,
    cr4: S.CR4,
    xcr0: S.XCR0,
    efer: S.EFER,
    cpl: S.CPL,
    mode: S.MODE,
    mxcsr: S.MXCSR,
    fpu_block: S.FPU_BLOCK,
    address: S.ADDRESS,
    rip_carry: S.RIP_CARRY,
  }).map(([name, offset]) => [offset, name]),
);

/** The name of the word at a state offset, with a dot and a byte offset where it is a part of a register; undefined: it has none. */
export function stateName(offset: number): string | undefined {
  const within = (name: string, at: number): string => (at === 0 ? name : `${name}.${at}`);
  if (offset < S.GPR + 8 * GENERAL.length) return within(GENERAL[(offset - S.GPR) >> 3], offset & 7);
  if (offset >= S.SEGMENTS && offset < S.SEGMENTS + SEGMENTS.length * S.SEGMENT_SIZE) {
    const part = PARTS[offset % S.SEGMENT_SIZE];
    return part === undefined ? undefined : `${SEGMENTS[Math.floor((offset - S.SEGMENTS) / S.SEGMENT_SIZE)]}.${part}`;
  }
  if (offset >= S.VECTOR && offset < S.VECTOR + 16 * S.VECTOR_STRIDE) {
    const at = offset - S.VECTOR;
    return within(`v${Math.floor(at / S.VECTOR_STRIDE)}`, at % S.VECTOR_STRIDE);
  }
  if (offset >= S.TEMP && offset < S.TEMP + 64) return within('temp', offset - S.TEMP);
  return WORDS.get(offset);
}
