/** Turns the text of the opcode tables into rows, and rows into forms: the static variants an emitter is run for. */

export type OperandKind =
  | 'E' // modrm r/m: general register or memory
  | 'G' // modrm reg: general register
  | 'R' // modrm r/m: general register only
  | 'M' // modrm r/m: memory only
  | 'O' // memory at an absolute offset
  | 'I' // immediate
  | 'J' // branch displacement
  | 'A' // far pointer
  | 'Z' // register in the opcode's low bits
  | 'S' // segment register in modrm reg
  | 'C' // control register
  | 'D' // debug register
  | 'X' // [rSI]
  | 'Y' // [rDI]
  | 'V' // modrm reg: vector register
  | 'W' // modrm r/m: vector register or memory
  | 'U' // modrm r/m: vector register only
  | 'P' // modrm reg: MMX register
  | 'Q' // modrm r/m: MMX register or memory
  | 'N' // modrm r/m: MMX register only
  | 'H' // VEX.vvvv: vector register
  | 'B' // VEX.vvvv: general register
  | 'L' // vector register in the top of an immediate
  | 'F'; // fixed: a register or the constant 1

export interface Operand {
  readonly kind: OperandKind;
  /** Size letter; empty for a fixed operand. */
  readonly size: string;
  /** The text of a fixed operand: `AL`, `rAX`, `CL`, `DX`, `1`, a segment. */
  readonly fixed: string;
}

export interface Row {
  readonly index: number;
  readonly text: string;
  /** 0: one byte, 1: 0F, 2: 0F38, 3: 0F3A. */
  readonly map: number;
  readonly opcode: number;
  /** Mandatory prefix class: undefined any, 0 none, 1 66, 2 F3, 3 F2. */
  readonly prefix: number | undefined;
  readonly digit: number | undefined;
  /** Lowest modrm byte that the row is for, and how many follow it. */
  readonly modrm: number | undefined;
  readonly modrmCount: number;
  readonly vex: boolean;
  readonly mnemonic: string;
  readonly operands: readonly Operand[];
  readonly attributes: ReadonlySet<string>;
  /** Condition code of a `cc` row. */
  readonly condition: number;
  readonly hasModrm: boolean;
  /** True where the r/m operand may be a register, may be memory. */
  readonly allowsRegister: boolean;
  readonly allowsMemory: boolean;
  /** The operand size varies (v, z, y). */
  readonly sized: boolean;
}

/** How the address of a memory operand comes about. */
export type AddressKind =
  | 'A64' // 64-bit mode: base + index << scale + disp
  | 'A64S' // the same plus the base of FS or GS
  | 'A32' // 32-bit address in a flat segment outside 64-bit mode
  | 'PRE'; // computed by an EA record before this one
export const ADDRESS_KINDS: readonly AddressKind[] = ['A64', 'A64S', 'A32', 'PRE'];

export type Repeat = 0 | 1 | 2; // none, REP/REPE (F3), REPNE (F2)

/** A row with everything that is static about one use of it. */
export interface Form {
  readonly row: Row;
  /** Operand size in bits: 16, 32 or 64. */
  readonly size: 16 | 32 | 64;
  /** The r/m operand is memory. */
  readonly memory: boolean;
  readonly address: AddressKind;
  readonly lock: boolean;
  readonly repeat: Repeat;
  /** Address size, for rows with implicit memory (`string`) and with bit offsets (`bits`). */
  readonly addressSize: 16 | 32 | 64;
  /** Width of the stack pointer, for rows that use the stack. */
  readonly stack: 16 | 32 | 64;
}

const PREFIX: Record<string, number> = { NP: 0, '66': 1, F3: 2, F2: 3 };
const MAPS: Record<string, number> = { '0F': 1, '0F38': 2, '0F3A': 3 };
const MODRM_KINDS = 'EGRMSCDVWUPQN';
const REGISTER_KINDS = 'ERUWQN';
const MEMORY_KINDS = 'EMWQ';
const FIXED = /^(AL|AH|rAX|eAX|CL|DX|1|ES|CS|SS|DS|FS|GS|XMM0)$/;

function parseOperand(text: string): Operand {
  if (FIXED.test(text)) return { kind: 'F', size: '', fixed: text };
  return { kind: text[0] as OperandKind, size: text.slice(1), fixed: '' };
}

/** Parses table text; rows are numbered from `first`. A `cc` line gives sixteen rows, a Z line eight opcodes of one row. */
export function parseRows(text: string, first = 0, vex = false): Row[] {
  const rows: Row[] = [];
  for (const line of text.trim().split('\n')) {
    const [opcodeText, mnemonic, operandText, ...rest] = line.trim().split(/\s+/);
    const parts = opcodeText.split('.');
    const last = parts.pop() as string;
    let prefix: number | undefined;
    let map = 0;
    for (const part of parts) {
      if (part in MAPS) map = MAPS[part];
      else if (part in PREFIX) prefix = PREFIX[part];
      else throw new Error(`opcode table: ${line}`);
    }
    const match = /^([0-9A-F]{2})(?:\/(\d)|:([0-9A-F]{2})(?:\+(\d))?)?$/.exec(last);
    if (match === null) throw new Error(`opcode table: ${line}`);
    const attributes = new Set(rest);
    let operands: Operand[] = [];
    let sizeOnly = '';
    if (/^[vyz]$/.test(operandText)) sizeOnly = operandText;
    else if (operandText !== '-') operands = operandText.split(',').map(parseOperand);
    for (const letter of ['v', 'y', 'z']) if (attributes.delete(letter)) sizeOnly = letter;
    const hasModrm =
      match[2] !== undefined || match[3] !== undefined || operands.some((operand) => MODRM_KINDS.includes(operand.kind));
    const rm = operands.find((operand) => REGISTER_KINDS.includes(operand.kind) || operand.kind === 'M');
    const memoryOnly = rm === undefined ? false : rm.kind === 'M';
    const common = {
      text: line,
      map,
      prefix,
      digit: match[2] === undefined ? undefined : Number(match[2]),
      modrm: match[3] === undefined ? undefined : Number.parseInt(match[3], 16),
      modrmCount: match[4] === undefined ? 0 : Number(match[4]),
      vex,
      mnemonic,
      operands,
      attributes,
      hasModrm,
      allowsRegister: rm === undefined ? match[3] === undefined || true : !memoryOnly,
      allowsMemory: rm === undefined ? match[3] === undefined : MEMORY_KINDS.includes(rm.kind),
      sized: sizeOnly !== '' || operands.some((operand) => /^[vyz]/.test(operand.size) || operand.fixed === 'rAX'),
    };
    const opcode = Number.parseInt(match[1], 16);
    const count = attributes.has('cc') ? 16 : 1;
    for (let condition = 0; condition < count; condition++)
      rows.push({ ...common, index: first + rows.length, opcode: opcode + condition, condition });
  }
  return rows;
}

/** Bits of a form within its row; dimensions that the row does not have are zero. */
export function formBits(form: Omit<Form, 'row'>): number {
  const sizeBits = (size: number): number => (size === 16 ? 1 : size === 32 ? 2 : 3);
  return (
    sizeBits(form.size) |
    (form.memory ? 4 : 0) |
    (ADDRESS_KINDS.indexOf(form.address) << 3) |
    (form.lock ? 32 : 0) |
    (form.repeat << 6) |
    (sizeBits(form.addressSize) << 8) |
    (sizeBits(form.stack) << 10)
  );
}
export const FORM_BITS = 12;

/** All the forms of a row, for the module that has a handler for each. */
export function formsOf(row: Row): Form[] {
  const forms: Form[] = [];
  const has = (attribute: string): boolean => row.attributes.has(attribute);
  const widths = [16, 32, 64] as const;
  const sizes = row.sized || has('d64') || has('f64') ? widths : ([32] as const);
  const addressSizes = has('string') || has('bits') ? widths : ([32] as const);
  const stacks = has('stack') ? widths : ([32] as const);
  const repeats: readonly Repeat[] = has('string') && !/^(LOOP|JCXZ|XLAT)/.test(row.mnemonic) ? [0, 1, 2] : [0];
  const absolute = row.operands.some((operand) => operand.kind === 'O');
  for (const size of sizes)
    for (const addressSize of addressSizes)
      for (const stack of stacks)
        for (const repeat of repeats) {
          // A 64-bit stack pointer belongs to 64-bit mode, where near pushes are 64 or 16 bits wide.
          if (has('stack') && (has('d64') || has('f64')) && (stack === 64) !== (size === 64) && size !== 16) continue;
          const base = { row, size, addressSize, stack, repeat };
          if (row.allowsRegister && !absolute) forms.push({ ...base, memory: false, address: 'A64', lock: false });
          if ((row.hasModrm && row.allowsMemory) || absolute) {
            const kinds: readonly AddressKind[] = absolute ? ['PRE'] : has('fast') ? ADDRESS_KINDS : ['A64', 'PRE'];
            for (const address of kinds)
              for (const lock of has('lock') ? [false, true] : [false]) forms.push({ ...base, memory: true, address, lock });
          }
        }
  return forms;
}
