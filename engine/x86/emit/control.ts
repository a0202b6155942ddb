/** Control transfer and system instructions. What is long or rare is a helper in x86/system. */
import type { Value } from '../../ir/builder.ts';
import {
  CPL,
  CR0,
  CR4,
  EFLAGS,
  FPU_BLOCK,
  FS,
  GS,
  INTR_WAIT,
  SEG_BASE,
  SHADOW,
  SHADOW_RIP,
  Shadow,
  segment,
  TEMP,
} from '../../memory/vcpu-state.ts';
import { type Emitter, type Instruction, RAX, RCX, Vector } from './context.ts';
import { partOf } from './parts.ts';

/** An instruction that one helper does whole; `operands` are computed in order. */
const whole =
  (name: string, ...operands: ((i: Instruction) => Value)[]): Emitter =>
  (i) =>
    i.b.leave(name, ...operands.map((operand) => operand(i)));

const address = (i: Instruction): Value => i.address();
const imm = (i: Instruction): Value => i.b.field('imm');
const disp = (i: Instruction): Value => i.b.field('disp');
const size = (i: Instruction): Value => i.b.i32(i.form.size);
const slotB = (i: Instruction): Value => i.b.field('b');
const operand =
  (n: number) =>
  (i: Instruction): Value =>
    i.read(n);

/** A helper that leaves 64 bits in the first temporary, written to operand 0. */
const fetches =
  (name: string, ...operands: ((i: Instruction) => Value)[]): Emitter =>
  (i) => {
    const { b } = i;
    b.leave(name, ...operands.map((each) => each(i)));
    const value = b.state(TEMP, 64);
    i.write(0, i.size(0) === 64 ? value : b.wrap(value));
  };

/** The branch target of an indirect jump, kept to the operand size; #GP here, not there, where it is not canonical. */
function target(i: Instruction, value: Value, before: () => void = () => {}): Value {
  const { b } = i;
  if (i.form.size === 16) return b.and(b.zext(value), b.i64(0xffff));
  if (i.form.size === 32) return b.zext(value);
  b.if(b.ne(b.shrS(b.shl(value, b.i64(16)), b.i64(16)), value), () => {
    before();
    b.raise(Vector.GP);
  });
  return value;
}

/** #GP(0) outside privilege level 0, before anything else is looked at. */
const privileged =
  (emitter: Emitter): Emitter =>
  (i) => {
    i.b.if(i.b.state(CPL, 32), () => i.b.raise(Vector.GP));
    emitter(i);
  };
/** As `privileged`, where real and virtual-8086 mode are #UD. */
const protectedOnly =
  (emitter: Emitter): Emitter =>
  (i) => {
    i.b.leave('check_protected');
    privileged(emitter)(i);
  };

/** LOOPcc and JCXZ: the counter's width is the address size. */
function loop(condition: number | undefined): Emitter {
  return (i) => {
    const { b, form } = i;
    const bits = form.addressSize;
    const counter = b.sub(b.state(RCX, bits), b.int(bits, 1));
    i.writeRegister(RCX, bits, counter);
    const more = b.ne(b.unsigned(bits, counter), b.int(bits, 0));
    const taken = condition === undefined ? more : b.and(more, b.test(condition));
    b.if(taken, () => b.branch(form.size));
  };
}

/** Ring 3 may use CLI and STI when IOPL allows. */
function interruptFlag(set: boolean): Emitter {
  return (i) => {
    const { b } = i;
    const flags = b.state(EFLAGS, 32);
    const iopl = b.and(b.shrU(flags, b.i32(12)), b.i32(3));
    b.if(
      b.gtU(b.state(CPL, 32), iopl),
      () => b.leave(set ? 'sti' : 'cli'),
      () => {
        if (!set) b.setState(EFLAGS, 32, b.and(b.state(EFLAGS, 32), b.i32(~0x200)));
        else {
          // Interrupts wait for the next instruction, if they could not come before this one.
          b.if(b.eqz(b.and(b.state(EFLAGS, 32), b.i32(0x200))), () => {
            b.setState(SHADOW, 32, b.i32(Shadow.STI));
            b.setState(SHADOW_RIP, 32, b.wrap(i.nextRip(64)));
          });
          b.setState(EFLAGS, 32, b.or(b.state(EFLAGS, 32), b.i32(0x200)));
        }
      },
    );
    if (set) b.if(b.state(INTR_WAIT, 32), () => b.call('unmask_interrupts', 'i32'));
  };
}

function segmentBase(index: number, write: boolean): Emitter {
  return (i) => {
    const { b } = i;
    b.if(b.eqz(b.and(b.state(CR4, 32), b.i32(1 << 16))), () => b.raise(Vector.UD));
    const bits = i.size(0);
    if (write) b.leave('write_segment_base', b.i32(index), b.zext(i.read(0)));
    else {
      const base = b.state(segment(index) + SEG_BASE, 64);
      i.write(0, bits === 64 ? base : b.wrap(base));
    }
  };
}

const timestamp: Emitter = (i) => {
  const { b } = i;
  b.leave('rdtsc');
  const value = b.state(TEMP, 64);
  i.writeRegister(RAX, 32, b.wrap(value));
  i.writeRegister(RAX + 16, 32, b.wrap(b.shrU(value, b.i64(32))));
};

const stack = (i: Instruction): Value => i.b.i32(i.form.stack);

export const control: Record<string, Emitter> = {
  JMP(i) {
    i.b.branch(i.form.size);
  },
  JMP_E(i) {
    i.b.jump(target(i, i.read(0)));
  },
  JCC(i) {
    const { b, form } = i;
    b.if(b.test(form.row.condition), () => b.branch(form.size));
  },
  CALL(i) {
    const { b, form } = i;
    const rip = i.nextRip(form.size);
    i.push(form.size, form.size === 64 ? rip : b.wrap(rip));
    b.branch(form.size);
  },
  CALL_E(i) {
    const { b, form } = i;
    const given = i.read(0);
    // The stack's own faults come before the target's.
    const to = target(i, given, () => b.rmwBegin(64, b.sub(i.stackPointer(), b.i64(8)), false));
    const rip = i.nextRip(form.size);
    i.push(form.size, form.size === 64 ? rip : b.wrap(rip));
    b.jump(to);
  },
  RET(i) {
    const { b, form } = i;
    const bits = form.size;
    const to = target(i, i.peek(bits));
    const bytes = form.row.operands.length > 0 ? b.add(b.zext(b.field('imm')), b.i64(bits / 8)) : b.i64(bits / 8);
    i.release(bytes);
    b.jump(to);
  },
  LOOP: loop(undefined),
  LOOPE: loop(4),
  LOOPNE: loop(5),
  JCXZ(i) {
    const { b, form } = i;
    const bits = form.addressSize;
    b.if(b.eq(b.state(RCX, bits), b.int(bits, 0)), () => b.branch(form.size));
  },
  CALL_FAR: whole('call_far', imm, disp, size, stack),
  JMP_FAR: whole('jmp_far', imm, disp, size),
  CALL_FAR_M(i) {
    farPointer(i, (offset, selector) => i.b.leave('call_far_m', offset, selector, size(i), stack(i)));
  },
  JMP_FAR_M(i) {
    farPointer(i, (offset, selector) => i.b.leave('jmp_far_m', offset, selector, size(i)));
  },
  RET_FAR: whole('ret_far', imm, size, stack),
  IRET: whole('iret', size, stack),
  INT3: whole('int3'),
  INT1: whole('int1'),
  INT: whole('int', imm),
  INTO(i) {
    i.b.if(i.b.test(0), () => i.b.leave('into'));
  },
  UD(i) {
    i.b.raise(Vector.UD);
  },
  HLT: whole('hlt'),
  CLI: interruptFlag(false),
  STI: interruptFlag(true),
  FWAIT: whole('fwait'),
  EMMS: whole('emms'),
  X87(i) {
    const { b, form } = i;
    if (form.memory) b.leave('x87_memory', b.field('imm'), i.address(), b.i32(form.size));
    else b.leave('x87_register', b.field('imm'));
  },
  IN(i) {
    const { b } = i;
    const bits = Math.min(i.size(0), 32) as 8 | 16 | 32;
    const port = i.form.row.operands[1].kind === 'I' ? b.and(b.field('imm'), b.i32(0xff)) : b.state(RAX + 16, 16);
    b.leave('in', port, b.i32(bits / 8));
    i.writeRegister(RAX, bits, b.state(TEMP, 32));
  },
  OUT(i) {
    const { b } = i;
    const bits = Math.min(i.size(1), 32) as 8 | 16 | 32;
    const port = i.form.row.operands[0].kind === 'I' ? b.and(b.field('imm'), b.i32(0xff)) : b.state(RAX + 16, 16);
    b.leave('out', port, b.i32(bits / 8), b.state(RAX, bits));
  },
  SLDT: fetchesSelector('sldt'),
  STR: fetchesSelector('str'),
  LLDT: protectedOnly(whole('lldt', operand(0))),
  LTR: protectedOnly(whole('ltr', operand(0))),
  VERR: whole('verr', operand(0)),
  VERW: whole('verw', operand(0)),
  SGDT: whole('sgdt', address),
  SIDT: whole('sidt', address),
  LGDT: privileged(whole('lgdt', address, size)),
  LIDT: privileged(whole('lidt', address, size)),
  SMSW(i) {
    const { b } = i;
    b.leave('check_umip');
    const value = b.state(CR0, 64);
    if (i.isMemory(0)) b.store(16, i.address(), b.wrap(value));
    else i.write(0, i.size(0) === 64 ? value : b.wrap(value));
  },
  LMSW: privileged(whole('lmsw', operand(0))),
  INVLPG: whole('invlpg', address),
  XGETBV: whole('xgetbv'),
  XSETBV: whole('xsetbv'),
  VMCALL: whole('vmcall'),
  RDPKRU: whole('rdpkru'),
  WRPKRU: whole('wrpkru'),
  SWAPGS: whole('swapgs'),
  RDTSCP(i) {
    timestamp(i);
    i.b.leave('rdtscp_aux');
  },
  CLAC: whole('set_ac', (i) => i.b.i32(0)),
  STAC: whole('set_ac', (i) => i.b.i32(1)),
  MONITOR: whole('monitor'),
  MWAIT: whole('mwait'),
  LAR(i) {
    descriptorQuery(i, 'lar');
  },
  LSL(i) {
    descriptorQuery(i, 'lsl');
  },
  SYSCALL: whole('syscall'),
  SYSRET: whole('sysret', size),
  SYSENTER: whole('sysenter'),
  SYSEXIT: whole('sysexit', size),
  CLTS: privileged((i) => {
    const { b } = i;
    b.setState(CR0, 32, b.and(b.state(CR0, 32), b.i32(~8)));
    b.setState(FPU_BLOCK, 32, b.and(b.state(FPU_BLOCK, 32), b.i32(~2)));
  }),
  INVD: privileged(() => {}),
  WBINVD: privileged(() => {}),
  MOV_FROM_CR: fetches('read_cr', slotB),
  MOV_TO_CR(i) {
    i.b.leave('write_cr', i.b.field('b'), i.b.zext(i.read(1)));
  },
  MOV_FROM_DR: fetches('read_dr', slotB),
  MOV_TO_DR(i) {
    i.b.leave('write_dr', i.b.field('b'), i.b.zext(i.read(1)));
  },
  WRMSR: whole('wrmsr'),
  RDMSR: whole('rdmsr'),
  RDTSC: timestamp,
  RDPMC: whole('rdpmc'),
  CPUID: whole('cpuid'),
  RSM: whole('rsm'),
  FXSAVE: whole('fxsave', address, size),
  FXRSTOR: whole('fxrstor', address, size),
  XSAVE: whole('xsave', address, size),
  XSAVEOPT: whole('xsaveopt', address, size),
  XSAVEC: whole('xsavec', address, size),
  XSAVES: whole('xsaves', address, size),
  XRSTOR: whole('xrstor', address, size),
  XRSTORS: whole('xrstors', address, size),
  LDMXCSR(i) {
    i.b.leave('check_sse');
    i.b.leave('ldmxcsr', i.b.load(32, i.address()));
  },
  STMXCSR(i) {
    i.b.leave('check_sse');
    i.b.store(32, i.address(), i.b.state(0x2c0, 32));
  },
  RDFSBASE: segmentBase(FS, false),
  RDGSBASE: segmentBase(GS, false),
  WRFSBASE: segmentBase(FS, true),
  WRGSBASE: segmentBase(GS, true),
  RDRAND: random('rdrand'),
  RDSEED: random('rdseed'),
};

function fetchesSelector(name: string): Emitter {
  return (i) => {
    const { b } = i;
    b.leave(name);
    const selector = b.state(TEMP, 32);
    if (i.isMemory(0)) b.store(16, i.address(), selector);
    else i.write(0, i.size(0) === 64 ? b.zext(selector) : selector);
  };
}

/** m16:16, m16:32 or m16:64: offset, then selector. */
function farPointer(i: Instruction, use: (offset: Value, selector: Value) => void): void {
  const { b, form } = i;
  const offset = b.zext(b.load(form.size, partOf(i, undefined, form.size / 8, false)));
  use(offset, b.load(16, partOf(i, b.i64(form.size / 8), 2, false)));
}

/** LAR and LSL: the helper says in the second temporary whether the selector was good; ZF tells. */
function descriptorQuery(i: Instruction, name: string): void {
  const { b } = i;
  b.leave(name, i.read(1));
  const good = b.state(TEMP + 8, 32);
  b.if(good, () => {
    const value = b.state(TEMP, 64);
    i.write(0, i.size(0) === 64 ? value : b.wrap(value));
  });
  b.putFlags(b.or(b.and(b.allFlags(), b.i32(~0x40)), b.shl(good, b.i32(6))));
}

/** RDRAND and RDSEED: CF says that there was a number; the other flags are cleared. */
function random(name: string): Emitter {
  return (i) => {
    const { b } = i;
    b.leave(name);
    const value = b.state(TEMP, 64);
    i.write(0, i.size(0) === 64 ? value : b.wrap(value));
    b.putFlags(b.i32(1));
  };
}
