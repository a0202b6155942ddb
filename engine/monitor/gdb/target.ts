/** What the gdb stub needs of a machine, and how gdb lays out the registers of one. */

/** A breakpoint or watchpoint by linear address; `length` in bytes, 1 for code. */
export interface GdbBreakpoint {
  readonly kind: 'code' | 'write' | 'read' | 'access';
  readonly address: number;
  readonly length: number;
}

/** Why the machine stands still. `paused`: somebody else stopped it. */
export type GdbStop =
  | { readonly kind: 'step' | 'paused'; readonly cpu: number }
  | { readonly kind: 'breakpoint'; readonly cpu: number; readonly breakpoint: GdbBreakpoint };

/** What a vCPU does when the machine goes on. */
export type GdbAction = 'run' | 'step' | 'hold';

export interface DebugTarget {
  readonly cpus: number;
  /** The CPU has 64-bit mode: registers are shown so. */
  readonly long: boolean;
  readonly running: boolean;
  /** Stops all vCPUs; resolves when they stand. */
  stop(): Promise<void>;
  /** Lets the machine go on, each vCPU with its action; rejects where only a reset leads on. */
  resume(actions: readonly GdbAction[]): Promise<void>;
  /** A register by gdb's name, as an unsigned number of its width; undefined: there is none. */
  readRegister(cpu: number, name: string): bigint | undefined;
  /** False where it cannot be written. */
  writeRegister(cpu: number, name: string, value: bigint): boolean;
  /** Memory by linear address as the vCPU maps it, or by physical address; undefined where none is mapped. */
  read(cpu: number, address: bigint, length: number, physical: boolean): Uint8Array | undefined;
  write(cpu: number, address: bigint, bytes: Uint8Array, physical: boolean): boolean;
  /** All breakpoints, anew; the machine stands. At most `MAX_BREAKPOINTS`. */
  setBreakpoints(list: readonly GdbBreakpoint[]): void;
  onStop(listener: (stop: GdbStop) => void): () => void;
  /** Resolves when the machine has ended, with its status. */
  readonly ended: Promise<number>;
  kill(): void;
}

export const MAX_BREAKPOINTS = 64;

/** A register as gdb is told of it. */
export interface GdbRegister {
  readonly name: string;
  readonly bits: number;
  readonly type: string;
  readonly group?: string;
  readonly feature: string;
}

const GENERAL64 = 'rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const GENERAL32 = 'eax ecx edx ebx esp ebp esi edi'.split(' ');
const SEGMENTS = 'cs ss ds es fs gs'.split(' ');
const FPU_CONTROL = 'fctrl fstat ftag fiseg fioff foseg fooff fop'.split(' ');
const SYSTEM = 'cr0 cr2 cr3 cr4 cr8 efer'.split(' ');

/** The registers in the order of the `g` packet (GDB manual, appendix G.5, i386 features). */
export function gdbRegisters(long: boolean): readonly GdbRegister[] {
  const core = 'org.gnu.gdb.i386.core';
  const word = long ? 64 : 32;
  const pointers = long ? ['rbp', 'rsp'] : ['esp', 'ebp'];
  const list: GdbRegister[] = [];
  const add = (
    feature: string,
    names: readonly string[],
    bits: number,
    type: string | ((name: string) => string),
    group?: string,
  ) => {
    for (const name of names)
      list.push({
        name,
        bits,
        type: typeof type === 'string' ? type : type(name),
        feature,
        ...(group === undefined ? {} : { group }),
      });
  };
  add(core, long ? GENERAL64 : GENERAL32, word, (name) => (pointers.includes(name) ? 'data_ptr' : `int${word}`));
  add(core, [long ? 'rip' : 'eip'], word, 'code_ptr');
  add(core, ['eflags'], 32, 'i386_eflags');
  add(core, SEGMENTS, 32, 'int32');
  add(
    core,
    Array.from({ length: 8 }, (_, n) => `st${n}`),
    80,
    'i387_ext',
  );
  add(core, FPU_CONTROL, 32, 'int', 'float');
  const sse = 'org.gnu.gdb.i386.sse';
  add(
    sse,
    Array.from({ length: long ? 16 : 8 }, (_, n) => `xmm${n}`),
    128,
    'vec128',
  );
  add(sse, ['mxcsr'], 32, 'i386_mxcsr', 'vector');
  if (long) add('org.gnu.gdb.i386.segments', ['fs_base', 'gs_base'], 64, 'int');
  add('org.vivarium.i386.system', long ? ['k_gs_base', ...SYSTEM] : SYSTEM.slice(0, 4), word, 'int', 'system');
  return list;
}

const FLAGS_EFLAGS: readonly [string, number][] = [
  ['CF', 0],
  ['', 1],
  ['PF', 2],
  ['AF', 4],
  ['ZF', 6],
  ['SF', 7],
  ['TF', 8],
  ['IF', 9],
  ['DF', 10],
  ['OF', 11],
  ['NT', 14],
  ['RF', 16],
  ['VM', 17],
  ['AC', 18],
  ['VIF', 19],
  ['VIP', 20],
  ['ID', 21],
];
const FLAGS_MXCSR: readonly [string, number][] = [
  ['IE', 0],
  ['DE', 1],
  ['ZE', 2],
  ['OE', 3],
  ['UE', 4],
  ['PE', 5],
  ['DAZ', 6],
  ['IM', 7],
  ['DM', 8],
  ['ZM', 9],
  ['OM', 10],
  ['UM', 11],
  ['PM', 12],
  ['FZ', 15],
];

const flagType = (id: string, flags: readonly [string, number][]): string =>
  `<flags id="${id}" size="4">${flags.map(([name, bit]) => `<field name="${name}" start="${bit}" end="${bit}"/>`).join('')}</flags>`;
const VEC128 =
  '<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>' +
  '<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/>' +
  '<vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>' +
  '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>' +
  '<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>' +
  '<field name="uint128" type="uint128"/></union>';

/** The target description (GDB manual, appendix G). */
export function targetXml(long: boolean): string {
  const registers = gdbRegisters(long);
  const features = [...new Set(registers.map(({ feature }) => feature))];
  const types: Record<string, string> = {
    'org.gnu.gdb.i386.core': flagType('i386_eflags', FLAGS_EFLAGS),
    'org.gnu.gdb.i386.sse': VEC128 + flagType('i386_mxcsr', FLAGS_MXCSR),
  };
  const body = features.map((feature) => {
    const inside = registers
      .filter((register) => register.feature === feature)
      .map(
        ({ name, bits, type, group }) =>
          `<reg name="${name}" bitsize="${bits}" type="${type}"${group === undefined ? '' : ` group="${group}"`}/>`,
      );
    return `<feature name="${feature}">${types[feature] ?? ''}${inside.join('')}</feature>`;
  });
  return (
    '<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0">' +
    `<architecture>${long ? 'i386:x86-64' : 'i386'}</architecture>${body.join('')}</target>`
  );
}
