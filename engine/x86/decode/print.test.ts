/** The text of instructions, as other disassemblers (objdump with `-M intel`, ndisasm) have them but for sizes and case. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rows } from '../../accel/jit/handlers.ts';
import { Decoded, Decoder, Mode } from './decoder.ts';
import { printInstruction } from './print.ts';

const decoder = new Decoder(rows);
function text(hex: string, mode: number): string {
  const bytes = new Uint8Array(32);
  bytes.set(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  assert.equal(decoder.decode(bytes, 0, 32, mode), Decoded.OK, hex);
  return printInstruction(decoder, 0x1000n);
}

const LONG: readonly (readonly [string, string])[] = [
  ['90', 'nop'],
  ['41 91', 'xchg r9d,eax'],
  ['40 8a f4', 'mov sil,spl'],
  ['8a f4', 'mov dh,ah'],
  ['48 8b 05 10 00 00 00', 'mov rax,qword [rip:0x1017]'],
  ['64 48 8b 04 25 28 00 00 00', 'mov rax,qword [fs:0x28]'],
  ['44 89 64 8d f8', 'mov dword [rbp+rcx*4-0x8],r12d'],
  ['48 8d 14 c5 00 00 00 00', 'lea rdx,[rax*8]'],
  ['67 8b 00', 'mov eax,dword [eax]'],
  ['48 b8 08 07 06 05 04 03 02 01', 'mov rax,0x102030405060708'],
  ['48 81 e4 00 f0 ff ff', 'and rsp,0xfffffffffffff000'],
  ['83 f8 ff', 'cmp eax,-0x1'],
  ['0f 84 00 01 00 00', 'je 0x1106'],
  ['eb fe', 'jmp 0x1000'],
  ['ff 24 25 00 20 00 00', 'jmp qword [0x2000]'],
  ['e8 fb ff ff ff', 'call 0x1000'],
  ['8f 44 24 08', 'pop qword [rsp+0x8]'],
  ['0f 9f c0', 'setg al'],
  ['48 0f 4c c3', 'cmovl rax,rbx'],
  ['f3 48 a5', 'rep movs qword [rdi],qword [rsi]'],
  ['f2 ae', 'repne scas al,byte [rdi]'],
  ['f3 a6', 'repe cmps byte [rsi],byte [rdi]'],
  ['f0 48 0f c1 03', 'lock xadd qword [rbx],rax'],
  ['f0 48 0f c7 0f', 'lock cmpxchg16b [rdi]'],
  ['48 98', 'cdqe'],
  ['48 99', 'cqo'],
  ['0f 22 d8', 'mov cr3,rax'],
  ['0f 05', 'syscall'],
  ['f2 0f 58 c1', 'addsd xmm0,xmm1'],
  ['66 0f 6f 07', 'movdqa xmm0,xmmword [rdi]'],
  ['66 48 0f 7e c0', 'movq rax,xmm0'],
  ['0f 70 c1 1b', 'pshufw mm0,mm1,0x1b'],
  ['c5 fd 6f 07', 'vmovdqa ymm0,ymmword [rdi]'],
  ['c4 e2 71 9b c2', 'vfmsub132ss xmm0,xmm1,xmm2'],
  ['c4 e2 e9 90 04 0f', 'vpgatherdq xmm0,[rdi+xmm1],xmm2'],
  ['d9 45 00', 'fld dword [rbp]'],
  ['de c9', 'fmulp st1,st0'],
  ['df e0', 'fnstsw ax'],
];
const LEGACY: readonly (readonly [string, number, string])[] = [
  ['8b 46 fe', 0, 'mov ax,word [bp-0x2]'],
  ['2e 8b 1e 34 12', 0, 'mov bx,word [cs:0x1234]'],
  ['ea 5b e0 00 f0', 0, 'jmp far 0xf000:0xe05b'],
  ['66 68 78 56 34 12', 0, 'push 0x12345678'],
  ['e3 10', 0, 'jcxz 0x1012'],
  ['65 a1 14 00 00 00', Mode.FLAT | 5, 'mov eax,[gs:0x14]'],
  ['26 8b 04 24', 5, 'mov eax,dword [es:esp]'],
  ['c4 18', 5, 'les ebx,[eax]'],
  ['40', 5, 'inc eax'],
];

test('64-bit code', () => {
  for (const [bytes, wanted] of LONG) assert.equal(text(bytes, 2), wanted, bytes);
});
test('16-bit and 32-bit code', () => {
  for (const [bytes, mode, wanted] of LEGACY) assert.equal(text(bytes, mode), wanted, bytes);
});
