/**
 * `info registers` in the layout that users of QEMU know, and registers by name for expressions (`$rip`).
 */
import type { CpuRegisters, SegmentRegister } from './machine-control.ts';

const hex = (value: number | bigint, digits: number): string => value.toString(16).padStart(digits, '0');

const LMA = 1n << 10n;
const gprNames = ['AX', 'CX', 'DX', 'BX', 'SP', 'BP', 'SI', 'DI'];
/** The order in which the dump shows the eight old registers, as indices of their encoding. */
const dumpOrder = [0, 3, 1, 2, 6, 7, 5, 4];

/** System descriptor types (SDM 3A table 3-2), outside and in IA-32e mode. */
const systemTypes = [
  'Reserved TSS16-avl LDT TSS16-busy CallGate16 TaskGate IntGate16 TrapGate16 Reserved TSS32-avl Reserved TSS32-busy CallGate32 Reserved IntGate32 TrapGate32',
  'Upper8 Reserved LDT Reserved Reserved Reserved Reserved Reserved Reserved TSS64-avl Reserved TSS64-busy CallGate64 Reserved IntGate64 TrapGate64',
].map((names) => names.split(' '));

const flag = (value: number, bit: number, letter: string): string => ((value >> bit) & 1 ? letter : '-');

function segmentKind(attributes: number, long: boolean): string {
  if (((attributes >> 12) & 1) === 0) return systemTypes[long ? 1 : 0][(attributes >> 8) & 15];
  const accessed = flag(attributes, 8, 'A');
  if ((attributes >> 11) & 1) {
    const width = long && (attributes >> 21) & 1 ? '64' : (attributes >> 22) & 1 ? '32' : '16';
    return `CS${width} [${flag(attributes, 10, 'C')}${flag(attributes, 9, 'R')}${accessed}]`;
  }
  const narrow = !long && ((attributes >> 22) & 1) === 0;
  return `${narrow ? 'DS16' : 'DS  '} [${flag(attributes, 10, 'E')}${flag(attributes, 9, 'W')}${accessed}]`;
}

function segmentLine(name: string, segment: SegmentRegister, registers: CpuRegisters, wide: boolean): string {
  const { selector, base, limit, attributes } = segment;
  const line = `${name.padEnd(3)}=${hex(selector, 4)} ${hex(base, wide ? 16 : 8)} ${hex(limit, 8)} ${hex(attributes, 8)}`;
  const protectedMode = (registers.cr0 & 1n) !== 0n && (registers.rflags & 0x20000n) === 0n;
  if (!protectedMode || ((attributes >> 15) & 1) === 0) return line;
  return `${line} DPL=${(attributes >> 13) & 3} ${segmentKind(attributes, (registers.efer & LMA) !== 0n)}`;
}

/** The dump of one vCPU, lines separated by `\n`, one at the end. */
export function formatRegisters(registers: CpuRegisters): string {
  const long = (registers.efer & LMA) !== 0n;
  const code64 = long && ((registers.cs.attributes >> 21) & 1) === 1;
  const digits = code64 ? 16 : 8;
  const value = (number: bigint): string => hex(code64 ? number : BigInt.asUintN(32, number), digits);
  const lines: string[] = [`CPU#${registers.cpu}`];
  const names = dumpOrder.map((index) => ({ name: (code64 ? 'R' : 'E') + gprNames[index], index }));
  if (code64) for (let index = 8; index < 16; index++) names.push({ name: `R${index}`.padEnd(3), index });
  for (let row = 0; row < names.length; row += 4)
    lines.push(
      names
        .slice(row, row + 4)
        .map(({ name, index }) => `${name}=${value(registers.gpr[index])}`)
        .join(' '),
    );
  const flags = Number(registers.rflags & 0xffff_ffffn);
  const letters = ['D', 'O', 'S', 'Z', 'A', 'P', 'C']
    .map((letter, i) => flag(flags, [10, 11, 7, 6, 4, 2, 0][i], letter))
    .join('');
  const bit = (on: boolean): number => (on ? 1 : 0);
  lines.push(
    `${code64 ? 'RIP' : 'EIP'}=${value(registers.rip)} ${code64 ? 'RFL' : 'EFL'}=${hex(flags, 8)} [${letters}] CPL=${registers.cpl}` +
      ` II=${bit(registers.interruptShadow)} A20=${bit(registers.a20)} SMM=${bit(registers.smm)} HLT=${bit(registers.halted)}`,
  );
  const { es, cs, ss, ds, fs, gs, ldt, tr, gdt, idt } = registers;
  for (const [name, segment] of Object.entries({ ES: es, CS: cs, SS: ss, DS: ds, FS: fs, GS: gs, LDT: ldt, TR: tr }))
    lines.push(segmentLine(name, segment, registers, long));
  for (const [name, table] of Object.entries({ GDT: gdt, IDT: idt }))
    lines.push(`${name}=     ${hex(table.base, long ? 16 : 8)} ${hex(table.limit, 8)}`);
  const control = long ? 16 : 8;
  const { cr0, cr2, cr3, cr4, dr } = registers;
  lines.push(`CR0=${hex(cr0, 8)} CR2=${hex(cr2, control)} CR3=${hex(cr3, control)} CR4=${hex(cr4, 8)}`);
  lines.push(`${[0, 1, 2, 3].map((index) => `DR${index}=${hex(dr[index], 16)}`).join(' ')} `);
  lines.push(`DR6=${hex(dr[4], 16)} DR7=${hex(dr[5], 16)}`);
  lines.push(`EFER=${hex(registers.efer, 16)}`);
  floatingPoint(registers, code64, lines);
  return `${lines.join('\n')}\n`;
}

function floatingPoint({ fpu, mxcsr, xmm }: CpuRegisters, code64: boolean, lines: string[]): void {
  const top = (fpu.status >> 11) & 7;
  lines.push(`FCW=${hex(fpu.control, 4)} FSW=${hex(fpu.status, 4)} [ST=${top}] FTW=${hex(fpu.tag, 2)} MXCSR=${hex(mxcsr, 8)}`);
  const pairs = (texts: string[]): void => {
    for (let row = 0; row < texts.length; row += 2) lines.push(texts.slice(row, row + 2).join(' '));
  };
  pairs(fpu.registers.map(({ mantissa, exponent }, index) => `FPR${index}=${hex(mantissa, 16)} ${hex(exponent, 4)}`));
  const shown = xmm.slice(0, code64 ? 16 : 8);
  pairs(shown.map(([low, high], index) => `XMM${String(index).padStart(2, '0')}=${hex(high, 16)} ${hex(low, 16)}`));
}

const byteNames = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];

/** The value of a register by its name in lower or upper case (`rip`, `eax`, `r8d`, `cr3`, `fs_base`); undefined: no such register. */
export function registerByName(registers: CpuRegisters, given: string): bigint | undefined {
  const name = given.toLowerCase();
  const general = /^([re]?)(ax|cx|dx|bx|sp|bp|si|di)$/.exec(name);
  if (general !== null) {
    const value = registers.gpr[gprNames.indexOf(general[2].toUpperCase())];
    return BigInt.asUintN(general[1] === 'r' ? 64 : general[1] === 'e' ? 32 : 16, value);
  }
  const low = byteNames.indexOf(name);
  if (low >= 0) return registers.gpr[low] & 0xffn;
  const high = ['ah', 'ch', 'dh', 'bh'].indexOf(name);
  if (high >= 0) return (registers.gpr[high] >> 8n) & 0xffn;
  const numbered = /^r([89]|1[0-5])([dwb]?)$/.exec(name);
  if (numbered !== null) {
    const width = { '': 64, d: 32, w: 16, b: 8 }[numbered[2]] ?? 64;
    return BigInt.asUintN(width, registers.gpr[Number(numbered[1])]);
  }
  return controlByName(registers, name);
}

function controlByName(registers: CpuRegisters, name: string): bigint | undefined {
  const { es, cs, ss, ds, fs, gs, ldt, tr, gdt, idt, dr } = registers;
  switch (name) {
    case 'rip':
    case 'pc':
      return registers.rip;
    case 'eip':
      return BigInt.asUintN(32, registers.rip);
    case 'ip':
      return BigInt.asUintN(16, registers.rip);
    case 'rflags':
    case 'eflags':
      return registers.rflags;
    case 'cr0':
    case 'cr2':
    case 'cr3':
    case 'cr4':
    case 'cr8':
    case 'efer':
      return registers[name];
    case 'mxcsr':
      return BigInt(registers.mxcsr);
    case 'fctrl':
      return BigInt(registers.fpu.control);
    case 'fstat':
      return BigInt(registers.fpu.status);
  }
  const debug = /^dr([0-367])$/.exec(name);
  if (debug !== null) return dr[[0, 1, 2, 3, 0, 0, 4, 5][Number(debug[1])]];
  const table = /^(gdt|idt)\.(base|limit)$/.exec(name);
  if (table !== null) {
    const { base, limit } = table[1] === 'gdt' ? gdt : idt;
    return table[2] === 'base' ? base : BigInt(limit);
  }
  const segment = /^(es|cs|ss|ds|fs|gs|ldt|tr)([._]base|\.limit)?$/.exec(name);
  if (segment === null) return undefined;
  const register = { es, cs, ss, ds, fs, gs, ldt, tr }[segment[1]] as SegmentRegister;
  return segment[2] === undefined ? BigInt(register.selector) : segment[2] === '.limit' ? BigInt(register.limit) : register.base;
}
