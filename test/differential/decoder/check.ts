/** Compares the decoder with objdump: length, whether there is such an instruction, and its operands. */
import { rows } from '../../../engine/accel/jit/handlers.ts';
import { Decoded, Decoder, Mode } from '../../../engine/x86/decode/decoder.ts';
import type { Width } from './encodings.ts';
import { operandText, splitOperands } from './format.ts';
import type { Disassembled } from './objdump.ts';
import { knownDifference } from './rules.ts';

export interface Difference {
  readonly width: Width;
  readonly code: string;
  readonly what: string;
}

export interface Tally {
  compared: number;
  /** Both say that there is no such instruction. */
  invalid: number;
  /** Operand lists that were compared. */
  operands: number;
  /** Left out, by reason. */
  readonly excluded: Map<string, number>;
  readonly differences: Difference[];
}
export const newTally = (): Tally => ({ compared: 0, invalid: 0, operands: 0, excluded: new Map(), differences: [] });

const decoder = new Decoder(rows);
const MODES: Readonly<Record<Width, number>> = { 16: 0, 32: 1 | Mode.STACK32 | Mode.FLAT, 64: 2 };

/** Mnemonics of rows whose operands objdump writes in another order or not at all. */
const FREE =
  /^(X87|UD|NOP|IN|OUT|INS|OUTS|MOVS|CMPS|STOS|LODS|SCAS|XLAT|XCHG|XCHG_A|TEST|FENCE|(V?PCMP[EI]STR.)|MASKMOV.*|(CALL|JMP)_FAR.*|LOAD_FAR|(CALL|JMP|POP|PUSH)_E|V?CVTT?[SP][SD]2(SI|PI)|MOVNT.*|BOUND|INVPCID|V?P?MOVMSK(B|P[SD])|BSWAP|LSL|LAR|PINSRW|MOV_TO_SEG|VMOVS[SD]|VBROADCASTS[SD]|VP?GATHERQ(D|PS))$/;

/** Prefixes that objdump names before an instruction. */
const PREFIX_WORDS = /^((data16|data32|addr16|addr32|repn?z|rep|lock|bnd|notrack|xacquire|xrelease|rex\S*|[c-gs]s) +)+/;

export function compare(width: Width, bytes: readonly number[], judged: Disassembled, tally: Tally): void {
  tally.compared++;
  const code = Uint8Array.from(bytes);
  const result = decoder.decode(code, 0, code.length, MODES[width]);
  const bad = judged.text.includes('(bad)') || /^(data16|data32|addr16|addr32|repn?z|lock|rex\S*|[c-gs]s)$/.test(judged.text);
  const ours = result === Decoded.OK ? decoder.row.text : undefined;
  const text = judged.text.replace(/ +#.*$/, '').replace(PREFIX_WORDS, '');
  const hex = (): string => Buffer.from(code.subarray(0, Math.max(judged.length, decoder.length) || 4)).toString('hex');
  const differ = (what: string): void => {
    const reason = knownDifference(width, bytes, result === Decoded.OK ? decoder.row : undefined, text);
    if (reason === undefined) tally.differences.push({ width, code: hex(), what });
    else tally.excluded.set(reason, (tally.excluded.get(reason) ?? 0) + 1);
  };
  if (ours === undefined) {
    if (bad) tally.invalid++;
    else differ(`objdump has ${judged.text}, we have nothing`);
    return;
  }
  if (bad) {
    differ(`we have ${ours}, objdump nothing (${judged.text})`);
    return;
  }
  if (decoder.length !== judged.length) {
    differ(`${ours} has ${decoder.length} bytes, objdump says ${judged.length}: ${judged.text}`);
    return;
  }
  const { row } = decoder;
  if (FREE.test(row.mnemonic)) return;
  const theirs = splitOperands(text.replace(/^\S+ */, ''));
  // The first source of a VEX row comes second.
  const operands = row.first === undefined ? row.operands : [row.operands[0], row.first, ...row.operands.slice(1)];
  const expected = operands.map((operand) => operandText(decoder, operand));
  tally.operands++;
  for (const [n, name] of expected.entries()) {
    const given = theirs[n];
    if (name === undefined || given === undefined || name === given) continue;
    differ(`${ours}: operand ${n} is ${name}, objdump says ${given} (${judged.text})`);
    return;
  }
}
