/**
 * The decoder: bytes to one decoded instruction. SDM volume 2, chapter 2 and appendix A.
 *
 * It is driven by the rows of the tables. The result lies in the fields of the `Decoder` object until the next
 * call, so that decoding allocates nothing.
 */

import { CS, DS, ES, FPU, FS, GPR, GS, RIP_BASE, SS, segment, VECTOR, VECTOR_STRIDE, ZERO } from '../../memory/vcpu-state.ts';
import { type AddressKind, type Form, formBits, type Operand, type Repeat, type Row } from './rows.ts';

/** Mode bits that decoding depends on. */
export const Mode = {
  /** Code segment: two bits, 0: 16-bit, 1: 32-bit, 2: 64-bit. */
  CODE: 3,
  /** Stack pointer is 32 bits wide (outside 64-bit mode). */
  STACK32: 4,
  /** ES, CS, SS and DS are flat: base 0, limit 4 GiB, usual types. */
  FLAT: 8,
  /** One instruction a run: single step or breakpoints. */
  STEP: 16,
  /** Real or virtual-8086 mode: no VEX prefixes. */
  REAL: 32,
} as const;

export const Decoded = {
  OK: 0,
  /** #UD */
  INVALID: 1,
  /** More bytes are wanted than were given. */
  SHORT: 2,
  /** Longer than 15 bytes: #GP(0). */
  TOO_LONG: 3,
} as const;

/** How an EA record computes its address. */
export type PreludeKind = 'NONE' | '64S' | '32S' | '16S' | 'L32' | 'MOFFS64' | 'MOFFS' | 'O32' | 'O16';

const CONTROL_REGISTERS = new Set([0, 2, 3, 4, 8]);

const MODRM_EXACT = -3;
const UNKNOWN = -1;
const NONE = -2;

export class Decoder {
  readonly #rows: readonly Row[];
  /** CMPXCHG16B is there; it has the row of CMPXCHG8B. */
  readonly #hasCx16: boolean;
  /** Rows by map and opcode, most specific first. */
  readonly #candidates: (readonly Row[])[] = [];
  readonly #choice: Int16Array;
  /** The same for rows with a VEX prefix; chosen rows by place as `#chooseVex` numbers them. */
  readonly #vexCandidates: (readonly Row[])[] = [];
  readonly #vexChoice: Int16Array;
  readonly #needsModrm: Uint8Array;

  // --- the decoded instruction ---------------------------------------------------------------------------------
  row: Row;
  size: 16 | 32 | 64 = 32;
  memory = false;
  address: AddressKind = 'A64';
  lock = false;
  wide = false;
  repeat: Repeat = 0;
  addressSize: 16 | 32 | 64 = 32;
  stack: 16 | 32 | 64 = 32;
  prelude: PreludeKind = 'NONE';
  a = 0;
  b = 0;
  c = 0;
  base = ZERO;
  index = ZERO;
  segment = ZERO;
  scale = 0;
  disp = 0;
  imm = 0;
  /** Set where the record's last eight bytes are one immediate. */
  isWide = false;
  wideLow = 0;
  wideHigh = 0;
  length = 0;
  modrm = 0;

  /** `has` tells which features the CPU has: rows that need another do not exist then. All of them do unless it is given. */
  constructor(rows: readonly Row[], has: (feature: string) => boolean = () => true) {
    this.#rows = rows;
    this.#hasCx16 = has('cx16');
    this.row = rows[0];
    const lists: Row[][] = Array.from({ length: 4 * 256 }, () => []);
    const vexLists: Row[][] = Array.from({ length: 4 * 256 }, () => []);
    for (const row of rows) {
      if (row.feature !== undefined && !has(row.feature)) continue;
      if (row.vex) {
        vexLists[row.map * 256 + row.opcode].push(row);
        continue;
      }
      const span = row.operands.some((operand) => operand.kind === 'Z') ? 8 : 1;
      for (let i = 0; i < span; i++) lists[row.map * 256 + row.opcode + i].push(row);
    }
    const rank = (row: Row): number => (row.prefix === undefined ? 0 : 4) + (row.modrm === undefined ? 0 : 2);
    this.#needsModrm = new Uint8Array(4 * 256);
    for (const [at, list] of lists.entries()) {
      list.sort((x, y) => rank(y) - rank(x));
      this.#candidates.push(list);
      if (list.some((row) => row.hasModrm)) this.#needsModrm[at] = 1;
    }
    this.#choice = new Int16Array(4 * 256 * 4 * 16 * 2).fill(UNKNOWN);
    this.#vexCandidates = vexLists;
    this.#vexChoice = new Int16Array(4 * 256 * 4 * 16 * 4).fill(UNKNOWN);
  }

  /** The form of the decoded instruction, as `formBits` numbers it. */
  get formBits(): number {
    const row = this.row;
    const has = (attribute: string): boolean => row.attributes.has(attribute);
    return formBits({
      size: row.sized || has('d64') || has('f64') ? this.size : 32,
      memory: this.memory,
      address: this.memory ? this.address : 'A64',
      lock: this.memory && this.lock,
      wide: this.wide,
      repeat: has('string') && !/^(LOOP|JCXZ|XLAT)/.test(row.mnemonic) ? this.repeat : 0,
      addressSize: has('string') || has('bits') ? this.addressSize : 32,
      stack: has('stack') ? this.stack : 32,
    });
  }

  #choose(map: number, opcode: number, prefix: number, modrm: number, mode64: boolean): Row | undefined {
    const slot =
      ((((map << 8) | opcode) * 4 + prefix) * 16 + ((modrm >> 3) & 7) + (modrm >= 0xc0 ? 8 : 0)) * 2 + (mode64 ? 1 : 0);
    const known = this.#choice[slot];
    if (known >= 0) return this.#rows[known];
    if (known === NONE) return undefined;
    const register = modrm >= 0xc0;
    let exact = false;
    let found: Row | undefined;
    for (const row of this.#candidates[map * 256 + opcode]) {
      if (row.prefix !== undefined && row.prefix !== prefix) continue;
      if (row.attributes.has(mode64 ? 'i64' : 'o64')) continue;
      if (row.modrm !== undefined) {
        if (register && ((row.modrm ^ modrm) & 0x38) === 0) exact = true;
        if (modrm < row.modrm || modrm > row.modrm + row.modrmCount) continue;
      }
      if (row.digit !== undefined && row.digit !== ((modrm >> 3) & 7)) continue;
      if (row.hasModrm && !(register ? row.allowsRegister : row.allowsMemory)) continue;
      found = row;
      break;
    }
    this.#choice[slot] = exact ? MODRM_EXACT : found === undefined ? NONE : found.index;
    return found;
  }

  /** The row of a VEX encoding. W counts in 64-bit mode only, where a row does not ask for one of its own. */
  #chooseVex(map: number, opcode: number, prefix: number, modrm: number, w: number, l: number): Row | undefined {
    const slot = ((((map << 8) | opcode) * 4 + prefix) * 16 + ((modrm >> 3) & 7) + (modrm >= 0xc0 ? 8 : 0)) * 4 + w * 2 + l;
    const known = this.#vexChoice[slot];
    if (known !== UNKNOWN) return known === NONE ? undefined : this.#rows[known];
    const found = this.#vexCandidates[map * 256 + opcode].find(
      (row) =>
        row.prefix === prefix &&
        (row.vexW === undefined || row.vexW === w) &&
        (row.vexL === undefined || row.vexL === l) &&
        (row.digit === undefined || row.digit === ((modrm >> 3) & 7)) &&
        (!row.hasModrm || (modrm >= 0xc0 ? row.allowsRegister : row.allowsMemory)),
    );
    this.#vexChoice[slot] = found === undefined ? NONE : found.index;
    return found;
  }

  /**
   * Decodes the instruction at `start` of `code`, of which bytes up to `end` may be read. `mode` is of `Mode`.
   * Gives a `Decoded` value; on anything but OK only `length` (bytes looked at) means something.
   */
  decode(code: Uint8Array, start: number, end: number, mode: number): number {
    const width = mode & Mode.CODE;
    const mode64 = width === 2;
    let at = start;
    const limit = Math.min(end, start + 15);
    const short = (): number => (limit - start === 15 ? Decoded.TOO_LONG : Decoded.SHORT);
    let operandPrefix = false;
    let addressPrefix = false;
    let repeat = 0;
    let rex = 0;
    let override = -1;
    this.lock = false;
    let byte = 0;
    for (;;) {
      if (at >= limit) return short();
      byte = code[at++];
      let isRex = false;
      if (byte === 0x66) operandPrefix = true;
      else if (byte === 0x67) addressPrefix = true;
      else if (byte === 0xf3) repeat = 2;
      else if (byte === 0xf2) repeat = 3;
      else if (byte === 0xf0) this.lock = true;
      else if (byte === 0x2e) override = CS;
      else if (byte === 0x36) override = SS;
      else if (byte === 0x3e) override = DS;
      else if (byte === 0x26) override = ES;
      else if (byte === 0x64) override = FS;
      else if (byte === 0x65) override = GS;
      else if (mode64 && (byte & 0xf0) === 0x40) {
        rex = byte;
        isRex = true;
      } else break;
      if (!isRex) rex = 0;
    }
    let map = 0;
    this.wide = false;
    let vex = false;
    let vvvv = 0;
    let vexPrefix = 0;
    if ((byte === 0xc4 || byte === 0xc5) && (mode & Mode.REAL) === 0) {
      // Outside 64-bit mode it is LES or LDS unless what follows would be a ModRM byte of a register.
      if (at >= limit) return short();
      vex = mode64 || code[at] >= 0xc0;
    }
    if (vex) {
      // SDM 2, 2.3. REX, operand-size, repeat and LOCK prefixes before it are #UD.
      const bad = rex !== 0 || operandPrefix || repeat !== 0 || this.lock;
      const first = code[at++];
      let last = first;
      map = 1;
      if (byte === 0xc4) {
        if (at >= limit) return short();
        last = code[at++];
        map = first & 31;
        rex = ((~first >> 5) & 7) | ((last >> 4) & 8);
      } else rex = (~first >> 5) & 4;
      if (!mode64) rex &= 8;
      vvvv = (~last >> 3) & 15;
      this.wide = (last & 4) !== 0;
      vexPrefix = last & 3;
      if (at >= limit) return short();
      byte = code[at++];
      if (bad || map === 0 || map > 3) {
        this.length = at - start;
        return Decoded.INVALID;
      }
    } else if (byte === 0x0f) {
      if (at >= limit) return short();
      byte = code[at++];
      map = 1;
      if (byte === 0x38 || byte === 0x3a) {
        map = byte === 0x38 ? 2 : 3;
        if (at >= limit) return short();
        byte = code[at++];
      }
    }
    const prefix = repeat !== 0 ? repeat : operandPrefix ? 1 : 0;
    let modrm = 0;
    const looksModrm = vex ? map !== 1 || byte !== 0x77 : this.#needsModrm[(map << 8) | byte] !== 0;
    if (looksModrm) {
      if (at >= limit) return short();
      modrm = code[at++];
    }
    // F3 90 is PAUSE, but with REX.B it exchanges R8 and the accumulator.
    const exchange = map === 0 && byte === 0x90 && (rex & 1) !== 0;
    const controlMove = map === 1 && !vex && (byte & 0xfc) === 0x20;
    const row = vex
      ? this.#chooseVex(map, byte, vexPrefix, modrm, (rex >> 3) & 1, this.wide ? 1 : 0)
      : this.#choose(map, byte, exchange ? 0 : prefix, controlMove ? modrm | 0xc0 : modrm, mode64);
    if (row === undefined || (vex && ((vvvv !== 0 && !usesVvvv(row)) || (!mode64 && row.attributes.has('o64'))))) {
      this.length = at - start;
      return Decoded.INVALID;
    }
    if (looksModrm && !row.hasModrm) at--;
    this.row = row;
    this.modrm = modrm;
    if (row.ignoresL) this.wide = false;
    if (!mode64) rex &= 7;
    const has = (attribute: string): boolean => row.attributes.has(attribute);

    // Sizes (SDM 1, 3.6). MOV to and from control registers always treats r/m as a register.
    const w = (rex & 8) !== 0;
    const switched = operandPrefix && row.prefix !== 1;
    if (vex) this.size = w ? 64 : 32;
    else if (mode64) this.size = w || has('f64') ? 64 : switched ? 16 : has('d64') ? 64 : 32;
    else this.size = (width === 0) !== switched ? 16 : 32;
    this.addressSize = mode64 ? (addressPrefix ? 32 : 64) : (width === 0) !== addressPrefix ? 16 : 32;
    this.stack = mode64 ? 64 : (mode & Mode.STACK32) !== 0 ? 32 : 16;
    this.repeat = repeat === 2 ? 1 : repeat === 3 ? 2 : 0;
    this.prelude = 'NONE';
    this.address = 'A64';
    this.base = ZERO;
    this.index = ZERO;
    this.scale = 0;
    this.disp = 0;
    this.imm = 0;
    this.isWide = false;
    this.a = ZERO;
    this.b = ZERO;
    this.c = ZERO;
    this.segment = ZERO;
    const isMemory = row.hasModrm && modrm < 0xc0 && !controlMove;
    this.memory = isMemory;
    const isMissing = !this.#hasCx16 && row.mnemonic === 'CMPXCHG8B' && this.size === 64;
    if (isMissing || (this.lock && !(isMemory && has('lock')))) {
      // LOCK MOV CR0 is AMD's alternative CR8; no other exception.
      this.length = at - start;
      return Decoded.INVALID;
    }

    // Memory operand (SDM 2, 2.1.5).
    let defaultSegment = DS;
    if (isMemory) {
      const mod = modrm >> 6;
      const rm = modrm & 7;
      if (this.addressSize === 16) {
        const BASES = [3, 3, 5, 5, 6, 7, 5, 3];
        const INDEXES = [6, 7, 6, 7];
        if (mod === 0 && rm === 6) {
          if (at + 2 > limit) return short();
          this.disp = (code[at] | (code[at + 1] << 8)) & 0xffff;
          at += 2;
        } else {
          this.base = GPR + 8 * BASES[rm];
          if (rm < 4) this.index = GPR + 8 * INDEXES[rm];
          if (rm === 2 || rm === 3 || rm === 6) defaultSegment = SS;
          if (mod === 1) {
            if (at >= limit) return short();
            this.disp = (code[at++] << 24) >> 24;
          } else if (mod === 2) {
            if (at + 2 > limit) return short();
            this.disp = ((code[at] | (code[at + 1] << 8)) << 16) >> 16;
            at += 2;
          }
        }
      } else {
        let dispBytes = mod === 1 ? 1 : mod === 2 ? 4 : 0;
        let relative = false;
        if (rm === 4) {
          if (at >= limit) return short();
          const sib = code[at++];
          const index = ((sib >> 3) & 7) | ((rex & 2) << 2);
          const base = (sib & 7) | ((rex & 1) << 3);
          if (index !== 4) {
            this.index = GPR + 8 * index;
            this.scale = sib >> 6;
          }
          if ((base & 7) === 5 && mod === 0) dispBytes = 4;
          else {
            this.base = GPR + 8 * base;
            if (base === 4 || base === 5) defaultSegment = SS;
          }
        } else if (rm === 5 && mod === 0) {
          dispBytes = 4;
          relative = mode64;
        } else {
          const base = rm | ((rex & 1) << 3);
          this.base = GPR + 8 * base;
          if (base === 5) defaultSegment = SS;
        }
        if (has('vsib')) {
          // The index is a vector register (SDM 2, 2.3.12); without a SIB byte there is none.
          if (rm !== 4) {
            this.length = at - start;
            return Decoded.INVALID;
          }
          const sib = code[at - 1];
          this.index = VECTOR + VECTOR_STRIDE * (((sib >> 3) & 7) | ((rex & 2) << 2));
          this.scale = sib >> 6;
        }
        if (at + dispBytes > limit) return short();
        if (dispBytes === 1) this.disp = (code[at] << 24) >> 24;
        else if (dispBytes === 4) this.disp = code[at] | (code[at + 1] << 8) | (code[at + 2] << 16) | (code[at + 3] << 24);
        at += dispBytes;
        if (relative) this.base = RIP_BASE;
      }
    }

    if (vex) {
      if (has('vsib') && this.addressSize === 16) {
        this.length = at - start;
        return Decoded.INVALID;
      }
      // Outside 64-bit mode its top bit names no register.
      if (!mode64) vvvv &= 7;
      this.c = VECTOR + VECTOR_STRIDE * vvvv;
      // A first source that is no vvvv is a register in r/m.
      if (row.first?.kind === 'U') this.a = VECTOR + VECTOR_STRIDE * ((modrm & 7) | ((rex & 1) << 3));
    }

    // Operands.
    let secondImmediate = false;
    for (const operand of row.operands) {
      const kind = operand.kind;
      switch (kind) {
        case 'E':
        case 'R':
          if (!isMemory) this.a = this.#general(operand, (modrm & 7) | ((rex & 1) << 3), rex);
          break;
        case 'G':
          this.b = this.#general(operand, ((modrm >> 3) & 7) | ((rex & 4) << 1), rex);
          break;
        case 'Z':
          this.a = this.#general(operand, (byte & 7) | ((rex & 1) << 3), rex);
          break;
        case 'V':
          this.b = VECTOR + VECTOR_STRIDE * (((modrm >> 3) & 7) | ((rex & 4) << 1));
          break;
        case 'W':
        case 'U':
          if (!isMemory) this.a = VECTOR + VECTOR_STRIDE * ((modrm & 7) | ((rex & 1) << 3));
          break;
        case 'P':
          this.b = FPU + 16 * ((modrm >> 3) & 7);
          break;
        case 'Q':
        case 'N':
          if (!isMemory) this.a = FPU + 16 * (modrm & 7);
          break;
        case 'S': {
          const register = (modrm >> 3) & 7;
          if (register > GS || (row.mnemonic === 'MOV_TO_SEG' && register === CS)) {
            this.length = at - start;
            return Decoded.INVALID;
          }
          this.b = segment(register);
          break;
        }
        case 'C':
        case 'D':
          this.b = ((modrm >> 3) & 7) | ((rex & 4) << 1) | (this.lock && kind === 'C' ? 8 : 0);
          // A register that does not exist is #UD before privilege is looked at.
          if (kind === 'C' ? !CONTROL_REGISTERS.has(this.b) : this.b > 7) {
            this.length = at - start;
            return Decoded.INVALID;
          }
          break;
        case 'I':
        case 'J': {
          const bytes = this.#immediateBytes(operand);
          if (at + bytes > limit) return short();
          let value = 0;
          if (bytes === 1) value = (code[at] << 24) >> 24;
          else if (bytes === 2) value = ((code[at] | (code[at + 1] << 8)) << 16) >> 16;
          else value = code[at] | (code[at + 1] << 8) | (code[at + 2] << 16) | (code[at + 3] << 24);
          // Unsigned where the operand is a byte or word by itself.
          if (kind === 'I' && operand.size === 'w') value &= 0xffff;
          if (bytes === 8) {
            this.isWide = true;
            this.wideLow = value;
            this.wideHigh = code[at + 4] | (code[at + 5] << 8) | (code[at + 6] << 16) | (code[at + 7] << 24);
          }
          at += bytes;
          if (secondImmediate) this.disp = value & 0xff;
          else this.imm = value;
          secondImmediate = true;
          break;
        }
        case 'A': {
          const bytes = this.size === 16 ? 2 : 4;
          if (at + bytes + 2 > limit) return short();
          this.imm = code[at] | (code[at + 1] << 8);
          if (bytes === 4) this.imm |= (code[at + 2] << 16) | (code[at + 3] << 24);
          this.disp = code[at + bytes] | (code[at + bytes + 1] << 8);
          at += bytes + 2;
          break;
        }
        case 'O': {
          const bytes = this.addressSize / 8;
          if (at + bytes > limit) return short();
          this.memory = true;
          this.wideLow = code[at] | (code[at + 1] << 8);
          this.wideHigh = 0;
          if (bytes >= 4) this.wideLow |= (code[at + 2] << 16) | (code[at + 3] << 24);
          if (bytes === 8) this.wideHigh = code[at + 4] | (code[at + 5] << 8) | (code[at + 6] << 16) | (code[at + 7] << 24);
          at += bytes;
          break;
        }
        case 'B':
          this.c = GPR + 8 * vvvv;
          break;
        case 'L':
          if (at >= limit) return short();
          this.imm = code[at++] & (mode64 ? 0xff : 0x7f);
          break;
        case 'F':
          if (/^[ECSDFG]S$/.test(operand.fixed)) this.b = segment(['ES', 'CS', 'SS', 'DS', 'FS', 'GS'].indexOf(operand.fixed));
          break;
        default:
          break;
      }
    }
    this.length = at - start;
    if (row.mnemonic === 'LOAD_FAR') this.c = segment({ 196: ES, 197: DS, 178: SS, 180: FS, 181: GS }[byte] as number);
    if (row.mnemonic === 'X87') this.imm = (byte << 8) | modrm;

    // Segment and address kind.
    const chosen = override >= 0 ? override : has('string') ? DS : defaultSegment;
    const based = chosen === FS || chosen === GS;
    if (!mode64) this.segment = segment(chosen);
    else if (has('stack') && !isMemory) this.segment = segment(SS);
    else if (based) this.segment = segment(chosen);
    // In 64-bit mode SS has no base; it tells that a non-canonical address is #SS, not #GP.
    else if (isMemory && this.addressSize === 64 && defaultSegment === SS) this.segment = segment(SS);
    // And DS says that a memory operand is not the only access: the stack's own are told by their address.
    // (A 32-bit address is always canonical: there only the stack's can be wrong.)
    else this.segment = has('stack') ? segment(this.addressSize === 64 ? DS : SS) : ZERO;
    if (this.memory && !isMemory) {
      this.address = 'PRE';
      this.prelude = mode64 ? 'MOFFS64' : 'MOFFS';
    } else if (isMemory && row.mnemonic !== 'UD' && row.mnemonic !== 'NOP') {
      // RIP counts from the end of the instruction; POP to memory sees rSP after the pop.
      // The sum may need 33 bits; see `placeDisplacement`.
      if (this.base === RIP_BASE) this.disp += this.length;
      if (row.mnemonic === 'POP_E' && this.base === GPR + 32) this.disp += this.size / 8;
      const onlyOffset = row.mnemonic === 'LEA';
      if (has('vsib') || (has('masked') && !mode64)) {
        // The helper adds what makes an address and looks at the segment lane by lane; it is told the width of addresses.
        this.imm = this.addressSize;
        if (!mode64) this.segment = segment(chosen);
      } else if (mode64 && this.addressSize === 64) {
        if (!based || onlyOffset) this.address = 'A64';
        else if (has('fast')) this.address = 'A64S';
        else {
          this.address = 'PRE';
          this.prelude = '64S';
        }
      } else if (
        !mode64 &&
        this.addressSize === 32 &&
        has('fast') &&
        (onlyOffset || ((mode & Mode.FLAT) !== 0 && chosen < FS && chosen !== CS))
      )
        this.address = 'A32';
      else {
        this.address = 'PRE';
        if (onlyOffset || (mode64 ? !based : has('bits'))) this.prelude = this.addressSize === 16 ? 'O16' : 'O32';
        else this.prelude = mode64 ? 'L32' : this.addressSize === 16 ? '16S' : '32S';
      }
    }
    return Decoded.OK;
  }

  #general(operand: Operand, register: number, rex: number): number {
    if (operand.size === 'b' && rex === 0 && register >= 4 && register < 8) return GPR + 8 * (register - 4) + 1;
    return GPR + 8 * register;
  }

  #immediateBytes(operand: Operand): number {
    switch (operand.size) {
      case 'b':
      case 'bs':
      case 'b2':
        return 1;
      case 'w':
        return 2;
      case 'z':
        return this.size === 16 ? 2 : 4;
      default:
        return this.size === 16 ? 2 : this.size === 32 ? 4 : 8;
    }
  }
}

/** True where a VEX row has an operand in VEX.vvvv; elsewhere it must be all ones. */
const usesVvvv = (row: Row): boolean =>
  row.first?.kind === 'H' || row.operands.some((operand) => operand.kind === 'H' || operand.kind === 'B');

/** The form object of what a decoder holds, for tests and for the region tier. */
export function decodedForm(decoder: Decoder): Form {
  const { row, size, memory, address, lock, wide, repeat, addressSize, stack } = decoder;
  return { row, size, memory, address, lock, wide, repeat, addressSize, stack };
}
