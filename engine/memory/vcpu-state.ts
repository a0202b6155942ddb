/**
 * The state block of one vCPU: everything its next instruction depends on, at fixed byte offsets
 * from the block's start in the machine memory. Translated code addresses it by these offsets,
 * devices and monitors through `VcpuView`.
 *
 * Offsets below 0x1000 fit the 16-bit slots of a decoded record.
 */

/** General registers RAX, RCX, ... R15 in encoding order, 8 bytes each. */
export const GPR = 0x000;
/** Eight bytes that are always zero: the slot of a base or index register that is absent. */
export const ZERO = 0x080;
/** Address that an instruction's page offset is added to, to give its RIP: page base less CS.base. */
export const RIP_BASE = 0x088;
/** Lazy flags: the last result, sign-extended from its operand size; see `ir/flags`. */
export const FLAG_RES = 0x090;
/** Lazy flags: bit 31 CF, bit 30 CF^OF, bits 15:8 parity delta, bit 3 AF, bit 0 sign delta. */
export const FLAG_AUX = 0x098;
/** RFLAGS without the six arithmetic flags; bit 1 is set. */
export const EFLAGS = 0x09c;
/** Requests to this vCPU, set by any thread with atomics: see `Pending`. Non-zero ends translated code at its next branch. */
export const PENDING = 0x0a0;
/** Address of the TLB of the current privilege (supervisor or user). */
export const TLB = 0x0a4;
/** Address of the instruction TLB of the current privilege. */
export const ITLB = 0x0a8;
/** Address of the record at which translated code stopped. */
export const STOPPED_AT = 0x0ac;
/** What a key of the code table has above a page and an offset: MODE << 44. Negative where RIPs are not linear addresses. */
export const CODE_KEY = 0x0b0;
/** What entries of the jump cache must have to hold: a number of the address space, privilege and mode; -1: none does. */
export const JUMP_STAMP = 0x0e0;
/** Instructions retired, 64 bits: those of the runs that were left, at their ends or as LEFT_AT says. */
export const INSTRUCTIONS = 0x0b8;
/**
 * Address of the record in whose run translated code was left, where what was retired of that run is not in INSTRUCTIONS
 * yet; else 0. Bit 0: the record's own instruction was not retired. Faults have STOPPED_AT.
 */
export const LEFT_AT = 0x0e4;
/** Where time is the instruction count: COUNT is requested when INSTRUCTIONS has come here (64 bits). */
export const COUNT_LIMIT = 0x0e8;
/** RIP to go on from, where translated code stops for a jump. */
export const NEXT_RIP = 0x0c0;
/** Linear address of a slow memory access, then the host address that it resolved to (64 bits). */
export const SLOW_POINTER = 0x0c8;
/** Exception that a helper raised: vector, or -1. */
export const EXCEPTION = 0x0d0;
export const EXCEPTION_CODE = 0x0d4;
/** Nonzero while the halted vCPU sleeps on `WAKE`. */
export const HALTED = 0x0d8;
export const WAKE = 0x0dc;
/** Segment registers' hidden parts, `SEGMENT_SIZE` bytes each: ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR. */
export const SEGMENTS = 0x100;
export const SEGMENT_SIZE = 32;
/** Within a segment: 64-bit base, 32-bit limit in bytes, attributes (descriptor bits 8-23 shifted down by 8), selector. */
export const SEG_BASE = 0;
export const SEG_LIMIT = 8;
export const SEG_ATTR = 12;
export const SEG_SELECTOR = 16;
/** Limit check helpers: lowest and highest valid offset (unsigned 32 bits) for the segment, for expand-down ones too. */
export const SEG_LOW = 20;
export const SEG_HIGH = 24;
/** Nonzero where the segment may be read (bit 0) and written (bit 1). */
export const SEG_ACCESS = 28;
/** Control registers CR0, CR2, CR3, CR4, CR8 (TPR >> 4), XCR0: 8 bytes each. */
export const CR0 = 0x240;
export const CR2 = 0x248;
export const CR3 = 0x250;
export const CR4 = 0x258;
export const XCR0 = 0x268;
export const EFER = 0x270;
/** Debug registers DR0-DR3, DR6, DR7: 8 bytes each. */
export const DR = 0x278;
/** Current privilege level. */
export const CPL = 0x2b8;
/** Execution mode bits that select decoding: see `Mode` in x86/decode. */
export const MODE = 0x2bc;
export const MXCSR = 0x2c0;
/** Nonzero: an interrupt is waiting for IF. */
export const INTR_WAIT = 0x2cc;
/** Interrupts are held back for the instruction at SHADOW_RIP: see `Shadow`. What is set for another RIP holds no longer. */
export const SHADOW = 0x2c4;
/** Zero where all of AVX, SSE, MMX and x87 may run; bit 0: SSE is #UD, bit 1: #NM, bit 2: MMX is #UD, bit 3: AVX is #UD. Kept by writes to CR0, CR4 and XCR0. */
export const FPU_BLOCK = 0x2c8;
/** Which of the spaces have entries, a bit each; set before the first entry is made. */
export const SPACES_USED = 0x3c8;
/** Rights of protection keys, two bits each, for user pages. */
export const PKRU = 0x3cc;
/** Set to 1 when code that this vCPU has translated was written; cleared by the dispatcher. */
export const CODE_HIT = 0x2d0;
/** Low half of the RIP that SHADOW is about. */
export const SHADOW_RIP = 0x2d4;
/** Bits for DR6 of the instruction that runs, or ran before MOV SS. */
export const DEBUG_HITS = 0x2d8;
/** NMIs: see `Nmi`. Written by the vCPU alone. */
export const NMI = 0x2dc;
/** NMIs that came; counted up by any thread before it sets Pending.NMI. */
export const NMI_REQUESTS = 0x2e4;
/** Nonzero: the next HLT ends at once (KVM's KICK_CPU came before it). Set by other threads. */
export const KICKED = 0x2e0;
/** System management mode: see `Smm`. Written by the vCPU alone. */
export const SMM = 0x2e8;
/** Scratch for accesses that straddle pages or reach devices: 64 bytes, 64-byte aligned. */
export const SCRATCH = 0x300;
/** What a slow store must do with the scratch after it is filled: first address, size, second page ... */
export const SCRATCH_LA = 0x340;
export const SCRATCH_SIZE = 0x348;
/** Pieces of the scratch: two physical addresses (doubles) and the length of the first. */
export const SCRATCH_PA0 = 0x350;
export const SCRATCH_PA1 = 0x358;
export const SCRATCH_SPLIT = 0x360;
/** Temporaries of multi-step helpers: 8 words of 64 bits. */
export const TEMP = 0x380;
/** Linear address that an EA record computed for the instruction after it. */
export const ADDRESS = 0x3c0;
/** The constant 2^32: index of RIP-relative operands whose displacement from the page's start has no room in 32 bits. */
export const RIP_CARRY = 0x3f8;
/** x87 and MMX state; see x86/fpu. */
export const FPU = 0x400;
/** Vector registers 0-15, 64 bytes each: XMM is the first 16 bytes, YMM the first 32. */
export const VECTOR = 0x600;
export const VECTOR_STRIDE = 64;
/** Operands of the long vector helpers, 32 bytes each: three sources, then the result. */
export const VECTOR_X = 0xa00;
export const VECTOR_Y = 0xa20;
export const VECTOR_Z = 0xa40;
export const VECTOR_RESULT = 0xa60;
/** Machine-check banks, 32 bytes each: control, status, address, miscellaneous; see x86/system/machine-check. */
export const MCA = 0xa80;
/** Model-specific registers kept as values: 64 bits each; see x86/system/msr. */
export const MSRS = 0xe00;
/** Counters of exits by cause, 48 doubles. */
export const EXIT_COUNTS = 0xc00;
/** Performance counters: see x86/system/pmu. */
export const PMU = 0xd80;
export const STATE_BYTES = 0x1000;

/**
 * Address spaces that a vCPU keeps translations of, by PCID; without PCIDs the first is used alone. Each has three
 * TLBs: supervisor, user, and supervisor with EFLAGS.AC set (SMAP lifted), direct-mapped; then two instruction TLBs.
 */
export const SPACES = 8;
export const TLB_COUNT = 3;
export const TLB_ENTRIES = 1024;
export const TLB_ENTRY_BYTES = 32;
/** Entry: page address for reads, for writes (all ones: invalid), then host address less linear address (64 bits), then the page's index in the backing. */
export const TLB_READ = 0;
export const TLB_WRITE = 8;
export const TLB_ADDEND = 16;
export const TLB_PAGE = 24;
/** Behind them the entries that others took the place of last: two pages in use may want the same place. */
export const TLB_VICTIMS = 8;
export const TLB_BYTES = (TLB_ENTRIES + TLB_VICTIMS) * TLB_ENTRY_BYTES;
/** Instruction TLBs: page address (all ones: invalid), page's index in the backing (32 bits). */
export const ITLB_COUNT = 2;
export const ITLB_ENTRIES = 4096;
export const ITLB_ENTRY_BYTES = 16;
export const ITLB_BYTES = ITLB_ENTRIES * ITLB_ENTRY_BYTES;
/** Within a space. */
export const TLB_SUPERVISOR = 0;
export const TLB_USER = TLB_BYTES;
export const TLB_AC = 2 * TLB_BYTES;
export const ITLB_SUPERVISOR = 3 * TLB_BYTES;
export const ITLB_USER = ITLB_SUPERVISOR + ITLB_BYTES;
export const SPACE_BYTES = ITLB_USER + ITLB_BYTES;
/** Where the spaces begin, from the start of the state block. */
export const SPACES_AT = STATE_BYTES;
/** Behind the spaces: the instruction TLB of the supervisor's global pages, which all spaces have in common. */
export const ITLB_GLOBAL = SPACES * SPACE_BYTES;
/** All TLBs of a vCPU. */
export const TLBS_BYTES = ITLB_GLOBAL + ITLB_BYTES;
/**
 * Records by page, offset and mode: key (64 bits: page, offset << 32, mode << 44), record address (32 bits).
 * Two ways a set, found by `codeHash`.
 */
export const CODE_TABLE_AT = SPACES_AT + TLBS_BYTES;
export const CODE_ENTRIES = 131072;
export const CODE_ENTRY_BYTES = 16;
export const CODE_TABLE_BYTES = CODE_ENTRIES * CODE_ENTRY_BYTES;
/**
 * Jump cache: where jumps to a RIP go, in front of the instruction TLB and the code table. RIP (64 bits), stamp, record
 * address; found by the low bits of RIP ^ RIP >> 12 ^ stamp, so that address spaces do not take each other's places.
 */
export const JUMPS_AT = CODE_TABLE_AT + CODE_TABLE_BYTES;
export const JUMPS = 8192;
export const JUMP_BYTES = 16;
/** A TLB without entries, for programs whose alignment is checked: all of their accesses take the slow path. */
export const EMPTY_TLB_AT = JUMPS_AT + JUMPS * JUMP_BYTES;
/**
 * Pages that loops remember, for one access each: the page's address, the offsets in it at which the access may begin (0:
 * none is remembered), what is added to addresses there; 64 bits each.
 */
export const MEMOS_AT = EMPTY_TLB_AT + TLB_BYTES;
export const MEMOS = 64;
export const MEMO_BYTES = 32;
export const MEMO_PAGE = 0;
export const MEMO_ROOM = 8;
export const MEMO_ADDEND = 16;
/** Bytes from one vCPU's block to the next. */
export const VCPU_BYTES = MEMOS_AT + MEMOS * MEMO_BYTES;

/** Bits of `PENDING`. */
export const Pending = {
  INTR: 1,
  NMI: 2,
  INIT: 4,
  SIPI: 8,
  SMI: 16,
  /** Drop all of the TLBs. */
  FLUSH: 32,
  /** Leave translated code, that is all: write permissions were taken out of the TLB, or better code may be there. */
  PROTECT: 64,
  /** Code was written: drop what was translated from the pages listed. */
  INVALIDATE: 128,
  STOP: 256,
  /** A debugger or the monitor wants the vCPU's thread. */
  CALL: 512,
  /** TF was set: leave translated code, the next instruction runs alone. */
  DEBUG: 1024,
  /** A machine check was put into a bank. */
  MACHINE_CHECK: 2048,
  /** A performance counter may have overflowed. */
  PERFORMANCE: 4096,
  /** INSTRUCTIONS has come to COUNT_LIMIT: timers are due. */
  COUNT: 8192,
  /** Regions were made that this vCPU asked for. */
  REGIONS: 16384,
} as const;

/** What slow stores are told above the number of bytes: the operation is locked; what writes code, and a read-modify-write that cannot be done in memory itself, is to be run alone. */
export const SlowStore = { LOCK: 0x100, ALONE: 0x200 } as const;
/** Values of `SHADOW`: after STI, which holds back interrupts; after MOV SS and POP SS, which hold back debug traps too. */
export const Shadow = { STI: 1, STACK: 2 } as const;
/** Bits of `SMM`: in it; an SMI came meanwhile; NMIs were held back when it was entered. */
export const Smm = { INSIDE: 1, WAITS: 2, NMI_BLOCKED: 4 } as const;
/** Bits of `NMI`: none is taken until IRET; one waits for that. */
export const Nmi = { BLOCKED: 1, WAITS: 2 } as const;

export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const LDTR = 6;
export const TR = 7;
export const GDTR = 8;
export const IDTR = 9;

/** Byte offset of segment `index` in the state block. */
export const segment = (index: number): number => SEGMENTS + index * SEGMENT_SIZE;

/** Decoded records: one an instruction, 32 bytes. */
export const RECORD_BYTES = 32;
export const RECORD = {
  /** Index of the handler in the table. */
  handler: 0,
  /** State offsets of up to three register operands, of base and index registers, of the segment. */
  a: 4,
  b: 6,
  c: 8,
  base: 10,
  index: 12,
  segment: 14,
  /** Offset of the instruction in its page. */
  offset: 16,
  length: 18,
  scale: 19,
  /**
   * Direct branches (`a` is `DIRECT`): address of the target's record when it is known to be in the same page, else 0.
   * Others: number of the instruction in its run, from 1, which direct branches have in `disp`; what is no instruction has
   * the number of the one that comes next.
   */
  link: 20,
  /** Displacement, and immediate; together the 64-bit immediate of the forms that have one. */
  disp: 24,
  imm: 28,
  wide: 24,
} as const;
/** In `a` of records of direct branches. */
export const DIRECT = 0xffff;
