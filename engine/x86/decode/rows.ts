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
  /** Encoded with a VEX prefix. */
  readonly vex: boolean;
  /** VEX.L and VEX.W that the row is for; undefined: either. `L` of a row that ignores it is 0 in its forms. */
  readonly vexL: 0 | 1 | undefined;
  readonly vexW: 0 | 1 | undefined;
  readonly ignoresL: boolean;
  readonly mnemonic: string;
  /**
   * Destination, then sources. The first source of a VEX row that its legacy twin would take from the destination is
   * not among them: it is `first`, so that one emitter serves both.
   */
  readonly operands: readonly Operand[];
  readonly first: Operand | undefined;
  /** The CPUID feature that the row needs beyond the 80486 and x86-64, by QEMU's name. */
  readonly feature: string | undefined;
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
  /** VEX.L: vectors are 256 bits wide. */
  readonly wide: boolean;
  readonly repeat: Repeat;
  /** Address size, for rows with implicit memory (`string`) and with operands in parts (`bits`). */
  readonly addressSize: 16 | 32 | 64;
  /** Width of the stack pointer, for rows that use the stack. */
  readonly stack: 16 | 32 | 64;
}

const PREFIX: Record<string, number> = { NP: 0, '66': 1, F3: 2, F2: 3 };
const MAPS: Record<string, number> = { '0F': 1, '0F38': 2, '0F3A': 3 };
const MODRM_KINDS = 'EGRMSCDVWUPQN';
/** Attributes that say which feature a row needs start so. */
const FEATURE = '@';
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
  let section: string | undefined;
  for (const line of text.trim().split('\n')) {
    if (line.startsWith(FEATURE)) {
      // A line by itself: the feature of the rows that follow.
      section = line === FEATURE ? undefined : line.slice(1);
      continue;
    }
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
    let feature = section;
    for (const attribute of rest)
      if (attribute.startsWith(FEATURE)) {
        attributes.delete(attribute);
        feature = attribute === FEATURE ? undefined : attribute.slice(1);
      }
    const given = operands;
    let source: Operand | undefined;
    if (vex && (operands[0]?.kind === 'H' || operands[1]?.kind === 'H')) {
      source = operands[1];
      operands = operands.filter((operand) => operand !== source);
    }
    const hasModrm =
      match[2] !== undefined || match[3] !== undefined || given.some((operand) => MODRM_KINDS.includes(operand.kind));
    const rm = given.find((operand) => REGISTER_KINDS.includes(operand.kind) || operand.kind === 'M');
    const memoryOnly = rm === undefined ? false : rm.kind === 'M';
    const common = {
      text: line,
      map,
      prefix,
      digit: match[2] === undefined ? undefined : Number(match[2]),
      modrm: match[3] === undefined ? undefined : Number.parseInt(match[3], 16),
      modrmCount: match[4] === undefined ? 0 : Number(match[4]),
      vex,
      vexL: attributes.has('l0') ? (0 as const) : attributes.has('l1') ? (1 as const) : undefined,
      vexW: attributes.has('w0') ? (0 as const) : attributes.has('w1') ? (1 as const) : undefined,
      ignoresL: attributes.has('lig'),
      mnemonic,
      operands,
      first: source,
      feature,
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
    // No row has both.
    (form.lock || form.wide ? 32 : 0) |
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
  const sizes = row.sized || has('d64') || has('f64') ? (row.vex ? ([32, 64] as const) : widths) : ([32] as const);
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
          const base = { row, size, addressSize, stack, repeat, lock: false, wide: false };
          if (row.vex) {
            for (const wide of row.vexL !== undefined ? [row.vexL === 1] : row.ignoresL ? [false] : [false, true]) {
              if (row.allowsRegister) forms.push({ ...base, memory: false, address: 'A64', wide });
              if (row.hasModrm && row.allowsMemory)
                for (const address of ['A64', 'PRE'] as const) forms.push({ ...base, memory: true, address, wide });
            }
            continue;
          }
          if (row.allowsRegister && !absolute) forms.push({ ...base, memory: false, address: 'A64' });
          if ((row.hasModrm && row.allowsMemory) || absolute) {
            const kinds: readonly AddressKind[] = absolute ? ['PRE'] : has('fast') ? ADDRESS_KINDS : ['A64', 'PRE'];
            for (const address of kinds)
              for (const lock of has('lock') ? [false, true] : [false]) forms.push({ ...base, memory: true, address, lock });
          }
        }
  return forms;
}

/** Bits of an operand with that size letter: of a whole vector where it is one. 0 where the instruction says by itself. */
export function operandBits(letter: string, size: number, wide: boolean): number {
  switch (letter[0]) {
    case 'b':
      // A byte that is extended to the operand size counts as one of that.
      return letter === 'bs' ? size : 8;
    case 'w':
      return 16;
    case 'd':
      return 32;
    case 'q':
      return 64;
    case 'o':
      return 128;
    case 'x':
      return wide ? 256 : 128;
    // Parts of the vector length: half, quarter, eighth.
    case 'h':
      return wide ? 128 : 64;
    case 'j':
      return wide ? 64 : 32;
    case 'k':
      return wide ? 32 : 16;
    case 'y':
      return size === 64 ? 64 : 32;
    case 'v':
    case 'z':
      return size;
    default:
      return 0;
  }
}
