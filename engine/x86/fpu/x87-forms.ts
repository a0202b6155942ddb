/**
 * What each x87 memory form transfers, and which instructions wait for pending exceptions or leave the last
 * instruction pointer alone. SDM 2, appendix A, tables.
 */

/** Lengths that depend on the operand size: environment and whole state. */
const ENVIRONMENT = -1;
const STATE = -2;

// Rows D8 to DF, columns ModRM.reg: bytes read, or 0.
const READS = [
  [4, 4, 4, 4, 4, 4, 4, 4],
  [4, 0, 0, 0, ENVIRONMENT, 2, 0, 0],
  [4, 4, 4, 4, 4, 4, 4, 4],
  [4, 0, 0, 0, 0, 10, 0, 0],
  [8, 8, 8, 8, 8, 8, 8, 8],
  [8, 0, 0, 0, STATE, 0, 0, 0],
  [2, 2, 2, 2, 2, 2, 2, 2],
  [2, 0, 0, 0, 10, 8, 0, 0],
];

// Bytes written, or 0. Forms in neither table are undefined opcodes.
const WRITES = [
  [0, 0, 0, 0, 0, 0, 0, 0],
  [0, 0, 4, 4, 0, 0, ENVIRONMENT, 2],
  [0, 0, 0, 0, 0, 0, 0, 0],
  [0, 4, 4, 4, 0, 0, 0, 10],
  [0, 0, 0, 0, 0, 0, 0, 0],
  [0, 8, 8, 8, 0, 0, STATE, 2],
  [0, 0, 0, 0, 0, 0, 0, 0],
  [0, 2, 2, 2, 0, 0, 10, 8],
];

const length = (entry: number, wide: boolean): number => {
  if (entry >= 0) return entry;
  return (entry === STATE ? 80 : 0) + (wide ? 28 : 14);
};

/** Bytes that memory form `opcode` (0xd8 to 0xdf) `modrm` reads. `wide`: operand size is not 16 bits. */
export function loadLength(opcode: number, modrm: number, wide: boolean): number {
  return length(READS[opcode & 7][(modrm >> 3) & 7], wide);
}

/** Bytes that a memory form writes when no unmasked exception keeps it from it. */
export function storeLength(opcode: number, modrm: number, wide: boolean): number {
  return length(WRITES[opcode & 7][(modrm >> 3) & 7], wide);
}

/** Whether the instruction reports pending unmasked exceptions before it runs: all but the FN forms. SDM 1, 8.3.12. */
export function isWaiting(opcode: number, modrm: number): boolean {
  const reg = (modrm >> 3) & 7;
  if (modrm >= 0xc0) {
    // FNINIT, FNCLEX and the old FENI, FDISI, FSETPM; FNSTSW AX.
    if (opcode === 0xdb) return reg !== 4;
    return !(opcode === 0xdf && modrm === 0xe0);
  }
  // FNSTENV and FNSTCW; FNSAVE and FNSTSW.
  return !((opcode === 0xd9 || opcode === 0xdd) && reg >= 6);
}

/** Control instructions, which leave the last instruction and data pointers and the opcode as they are. SDM 1, 8.1.8. */
export function isControl(opcode: number, modrm: number): boolean {
  const reg = (modrm >> 3) & 7;
  if (modrm >= 0xc0) return (opcode === 0xdb && reg === 4) || (opcode === 0xdf && modrm === 0xe0);
  if (opcode === 0xd9) return reg >= 4;
  return opcode === 0xdd && (reg === 4 || reg >= 6);
}
