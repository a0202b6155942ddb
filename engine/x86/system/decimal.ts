/** Decimal adjusts and the divisions that want 128 bits (SDM 2). */
import * as S from '../../memory/vcpu-state.ts';
import { type Cpu, FLAG, raise } from './cpu.ts';

const parity = (value: number): number => {
  let p = value & 0xff;
  p ^= p >> 4;
  return ((0x9669 >> (p & 15)) & 1) !== 0 ? FLAG.PF : 0;
};
const szp = (al: number): number => parity(al) | ((al & 0xff) === 0 ? FLAG.ZF : 0) | ((al & 0x80) !== 0 ? FLAG.SF : 0);

/** Does one adjust on AX; gives the new AX in the low half and the arithmetic flags in the high half. */
export function decimalAdjust(kind: string, flags: number, ax: number, imm: number): number {
  let al = ax & 0xff;
  let ah = (ax >> 8) & 0xff;
  let out = 0;
  switch (kind) {
    case 'daa':
    case 'das': {
      const sign = kind === 'daa' ? 1 : -1;
      const old = al;
      const oldCf = flags & 1;
      if ((al & 15) > 9 || (flags & FLAG.AF) !== 0) {
        const moved = al + sign * 6;
        if (moved > 0xff || moved < 0 || oldCf !== 0) out |= FLAG.CF;
        al = moved & 0xff;
        out |= FLAG.AF;
      }
      if (old > 0x99 || oldCf !== 0) {
        al = (al + sign * 0x60) & 0xff;
        out |= FLAG.CF;
      } else if (kind === 'daa') out &= ~FLAG.CF;
      out |= szp(al);
      break;
    }
    case 'aaa':
    case 'aas': {
      const sign = kind === 'aaa' ? 1 : -1;
      if ((al & 15) > 9 || (flags & FLAG.AF) !== 0) {
        const word = (ax + sign * 0x106) & 0xffff;
        const adjusted = kind === 'aaa' ? word : (((ax - 6) & 0xffff) - 0x100) & 0xffff;
        al = adjusted & 0xff;
        ah = (adjusted >> 8) & 0xff;
        out |= FLAG.AF | FLAG.CF;
      }
      al &= 15;
      out |= szp(al);
      break;
    }
    case 'aam':
      ah = Math.floor(al / imm);
      al %= imm;
      out |= szp(al);
      break;
    default:
      al = (al + ah * imm) & 0xff;
      ah = 0;
      out |= szp(al);
  }
  return (al | (ah << 8) | (out << 16)) >>> 0;
}

/** DIV and IDIV of RDX:RAX by a 64-bit divisor that is not zero. */
export function divide128(cpu: Cpu, low: number, high: number, signed: boolean): void {
  const divisorBits = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
  const bits = (cpu.u64[(S.GPR + 16) >> 3] << 64n) | cpu.u64[S.GPR >> 3];
  const dividend = signed ? BigInt.asIntN(128, bits) : bits;
  const divisor = signed ? BigInt.asIntN(64, divisorBits) : divisorBits;
  const quotient = dividend / divisor;
  const fits = signed ? quotient === BigInt.asIntN(64, quotient) : quotient === BigInt.asUintN(64, quotient);
  if (!fits) raise(0);
  cpu.u64[S.GPR >> 3] = BigInt.asUintN(64, quotient);
  cpu.u64[(S.GPR + 16) >> 3] = BigInt.asUintN(64, dividend - quotient * divisor);
}
