/**
 * Opcode tables: integer, control and system instructions, one opcode a line.
 *
 *     OPCODE[/digit | :modrm]  MNEMONIC[_VARIANT]  operands  attributes
 *
 * Opcode maps are `xx`, `0F.xx`, `0F38.xx`, `0F3A.xx`; a mandatory prefix stands before (`66.`, `F3.`, `F2.`, and `NP.`
 * for none of them). Operands follow SDM volume 2, appendix A.2: E G I J M O R S C D Z X Y A and V W U P Q N H,
 * with sizes b w d q v y z x; `Ibs` is an 8-bit immediate sign-extended to the operand size, `Zv` the register
 * in the opcode's low bits (such a line stands for eight opcodes), `Ma` an address alone.
 *
 * Attributes: `lock` LOCK is allowed; `fast` worth a handler for each addressing mode; `d64` operand size is 64 in
 * 64-bit mode (16 with 66); `f64` 64 whatever the prefix; `i64` invalid in 64-bit mode; `o64` only there; `stack`
 * uses the stack; `string` uses implicit memory; `bits` parts of it lie at a distance from the address (emit/parts.ts);
 * `end` nothing is decoded after it; `shadow` one more instruction, then interrupts are looked at; `check` interrupts are looked at after it, and what others wrote to code: serializing
 * instructions have it (SDM 3A, 9.3); `cpl0` #GP(0) outside privilege level 0;
 * `cc` stands for sixteen opcodes, one a condition; `@name` the CPUID feature that the row needs.
 */
export const INTEGER = `
00 ADD Eb,Gb lock fast
01 ADD Ev,Gv lock fast
02 ADD Gb,Eb fast
03 ADD Gv,Ev fast
04 ADD AL,Ib
05 ADD rAX,Iz
06 PUSH_SEG ES i64 stack v
07 POP_SEG ES i64 stack end v
08 OR Eb,Gb lock fast
09 OR Ev,Gv lock fast
0A OR Gb,Eb fast
0B OR Gv,Ev fast
0C OR AL,Ib
0D OR rAX,Iz
0E PUSH_SEG CS i64 stack v
10 ADC Eb,Gb lock
11 ADC Ev,Gv lock fast
12 ADC Gb,Eb
13 ADC Gv,Ev fast
14 ADC AL,Ib
15 ADC rAX,Iz
16 PUSH_SEG SS i64 stack v
17 POP_SEG SS i64 stack end v
18 SBB Eb,Gb lock
19 SBB Ev,Gv lock fast
1A SBB Gb,Eb
1B SBB Gv,Ev fast
1C SBB AL,Ib
1D SBB rAX,Iz
1E PUSH_SEG DS i64 stack v
1F POP_SEG DS i64 stack end v
20 AND Eb,Gb lock fast
21 AND Ev,Gv lock fast
22 AND Gb,Eb fast
23 AND Gv,Ev fast
24 AND AL,Ib
25 AND rAX,Iz
27 DAA - i64
28 SUB Eb,Gb lock fast
29 SUB Ev,Gv lock fast
2A SUB Gb,Eb fast
2B SUB Gv,Ev fast
2C SUB AL,Ib
2D SUB rAX,Iz
2F DAS - i64
30 XOR Eb,Gb lock fast
31 XOR Ev,Gv lock fast
32 XOR Gb,Eb fast
33 XOR Gv,Ev fast
34 XOR AL,Ib
35 XOR rAX,Iz
37 AAA - i64
38 CMP Eb,Gb fast
39 CMP Ev,Gv fast
3A CMP Gb,Eb fast
3B CMP Gv,Ev fast
3C CMP AL,Ib
3D CMP rAX,Iz
3F AAS - i64
40 INC Zv i64
48 DEC Zv i64
50 PUSH Zv d64 stack
58 POP Zv d64 stack
60 PUSHA v i64 stack
61 POPA v i64 stack
62 BOUND Gv,Ma i64 bits
63 ARPL Ew,Gw i64
63 MOVSXD Gv,Ed o64 fast
68 PUSH Iz d64 stack
69 IMUL3 Gv,Ev,Iz fast
6A PUSH Ibs d64 stack
6B IMUL3 Gv,Ev,Ibs fast
6C INS Yb,DX string
6D INS Yz,DX string
6E OUTS DX,Xb string
6F OUTS DX,Xz string
70 JCC Jb cc f64
80/0 ADD Eb,Ib lock fast
80/1 OR Eb,Ib lock fast
80/2 ADC Eb,Ib lock
80/3 SBB Eb,Ib lock
80/4 AND Eb,Ib lock fast
80/5 SUB Eb,Ib lock fast
80/6 XOR Eb,Ib lock
80/7 CMP Eb,Ib fast
81/0 ADD Ev,Iz lock fast
81/1 OR Ev,Iz lock fast
81/2 ADC Ev,Iz lock
81/3 SBB Ev,Iz lock
81/4 AND Ev,Iz lock fast
81/5 SUB Ev,Iz lock fast
81/6 XOR Ev,Iz lock
81/7 CMP Ev,Iz fast
82/0 ADD Eb,Ib lock i64
82/1 OR Eb,Ib lock i64
82/2 ADC Eb,Ib lock i64
82/3 SBB Eb,Ib lock i64
82/4 AND Eb,Ib lock i64
82/5 SUB Eb,Ib lock i64
82/6 XOR Eb,Ib lock i64
82/7 CMP Eb,Ib i64
83/0 ADD Ev,Ibs lock fast
83/1 OR Ev,Ibs lock fast
83/2 ADC Ev,Ibs lock
83/3 SBB Ev,Ibs lock
83/4 AND Ev,Ibs lock fast
83/5 SUB Ev,Ibs lock fast
83/6 XOR Ev,Ibs lock
83/7 CMP Ev,Ibs fast
84 TEST Eb,Gb fast
85 TEST Ev,Gv fast
86 XCHG Eb,Gb lock
87 XCHG Ev,Gv lock fast
88 MOV Eb,Gb fast
89 MOV Ev,Gv fast
8A MOV Gb,Eb fast
8B MOV Gv,Ev fast
8C MOV_FROM_SEG Ev,Sw
8D LEA Gv,Ma fast
8E MOV_TO_SEG Sw,Ew end
8F/0 POP_E Ev d64 stack
90 XCHG_A Zv
F3.90 PAUSE -
98 CBW v
99 CWD v
9A CALL_FAR Ap i64 stack end v
9B FWAIT -
9C PUSHF v d64 stack
9D POPF v d64 stack check
9E SAHF -
9F LAHF -
A0 MOV AL,Ob
A1 MOV rAX,Ov
A2 MOV Ob,AL
A3 MOV Ov,rAX
A4 MOVS Yb,Xb string
A5 MOVS Yv,Xv string
A6 CMPS Xb,Yb string
A7 CMPS Xv,Yv string
A8 TEST AL,Ib
A9 TEST rAX,Iz
AA STOS Yb,AL string
AB STOS Yv,rAX string
AC LODS AL,Xb string
AD LODS rAX,Xv string
AE SCAS AL,Yb string
AF SCAS rAX,Yv string
B0 MOV Zb,Ib
B8 MOV Zv,Iv
C0/0 ROL Eb,Ib
C0/1 ROR Eb,Ib
C0/2 RCL Eb,Ib
C0/3 RCR Eb,Ib
C0/4 SHL Eb,Ib
C0/5 SHR Eb,Ib
C0/6 SHL Eb,Ib
C0/7 SAR Eb,Ib
C1/0 ROL Ev,Ib fast
C1/1 ROR Ev,Ib
C1/2 RCL Ev,Ib
C1/3 RCR Ev,Ib
C1/4 SHL Ev,Ib fast
C1/5 SHR Ev,Ib fast
C1/6 SHL Ev,Ib
C1/7 SAR Ev,Ib fast
C2 RET Iw f64 stack end
C3 RET - f64 stack end
C4 LOAD_FAR Gv,Ma i64 end bits
C5 LOAD_FAR Gv,Ma i64 end bits
C6/0 MOV Eb,Ib fast
C7/0 MOV Ev,Iz fast
C8 ENTER Iw,Ib2 d64 stack
C9 LEAVE v d64 stack
CA RET_FAR Iw stack v end
CB RET_FAR - stack v end
CC INT3 - end
CD INT Ib end
CE INTO - i64
CF IRET v stack end
D0/0 ROL Eb,1
D0/1 ROR Eb,1
D0/2 RCL Eb,1
D0/3 RCR Eb,1
D0/4 SHL Eb,1
D0/5 SHR Eb,1
D0/6 SHL Eb,1
D0/7 SAR Eb,1
D1/0 ROL Ev,1
D1/1 ROR Ev,1
D1/2 RCL Ev,1
D1/3 RCR Ev,1
D1/4 SHL Ev,1 fast
D1/5 SHR Ev,1 fast
D1/6 SHL Ev,1
D1/7 SAR Ev,1 fast
D2/0 ROL Eb,CL
D2/1 ROR Eb,CL
D2/2 RCL Eb,CL
D2/3 RCR Eb,CL
D2/4 SHL Eb,CL
D2/5 SHR Eb,CL
D2/6 SHL Eb,CL
D2/7 SAR Eb,CL
D3/0 ROL Ev,CL
D3/1 ROR Ev,CL
D3/2 RCL Ev,CL
D3/3 RCR Ev,CL
D3/4 SHL Ev,CL
D3/5 SHR Ev,CL
D3/6 SHL Ev,CL
D3/7 SAR Ev,CL
D4 AAM Ib i64
D5 AAD Ib i64
D6 SALC - i64
D7 XLAT Xb string
E0 LOOPNE Jb f64 string
E1 LOOPE Jb f64 string
E2 LOOP Jb f64 string
E3 JCXZ Jb f64 string
E4 IN AL,Ib
E5 IN rAX,Ib z
E6 OUT Ib,AL check
E7 OUT Ib,rAX z check
E8 CALL Jz f64 stack end
E9 JMP Jz f64 end
EA JMP_FAR Ap i64 end v
EB JMP Jb f64 end
EC IN AL,DX
ED IN rAX,DX z
EE OUT DX,AL check
EF OUT DX,rAX z check
F1 INT1 - end
F4 HLT - cpl0 end
F5 CMC -
F6/0 TEST Eb,Ib fast
F6/1 TEST Eb,Ib
F6/2 NOT Eb lock
F6/3 NEG Eb lock
F6/4 MUL Eb
F6/5 IMUL1 Eb
F6/6 DIV Eb
F6/7 IDIV Eb
F7/0 TEST Ev,Iz fast
F7/1 TEST Ev,Iz
F7/2 NOT Ev lock
F7/3 NEG Ev lock
F7/4 MUL Ev fast
F7/5 IMUL1 Ev
F7/6 DIV Ev
F7/7 IDIV Ev
F8 CLC -
F9 STC -
FA CLI -
FB STI - shadow
FC CLD -
FD STD -
FE/0 INC Eb lock
FE/1 DEC Eb lock
FF/0 INC Ev lock fast
FF/1 DEC Ev lock fast
FF/2 CALL_E Ev f64 stack end fast
FF/3 CALL_FAR_M Ma stack end v bits
FF/4 JMP_E Ev f64 end fast
FF/5 JMP_FAR_M Ma end v bits
FF/6 PUSH_E Ev d64 stack fast
0F.00/0 SLDT Ev
0F.00/1 STR Ev
0F.00/2 LLDT Ew cpl0 check
0F.00/3 LTR Ew cpl0 check
0F.00/4 VERR Ew
0F.00/5 VERW Ew
0F.01/0 SGDT Ma
0F.01/1 SIDT Ma
0F.01/2 LGDT Ma cpl0 v check
0F.01/3 LIDT Ma cpl0 v check
0F.01/4 SMSW Ev
0F.01/6 LMSW Ew cpl0 check
0F.01/7 INVLPG Ma cpl0 check
NP.0F.01:D0 XGETBV - @xsave
NP.0F.01:D1 XSETBV - cpl0 check @xsave
NP.0F.01:C1 VMCALL -
0F.01:D9 VMCALL -
NP.0F.01:EE RDPKRU - @pku
NP.0F.01:EF WRPKRU - @pku
0F.01:F8 SWAPGS - o64 cpl0
0F.01:F9 RDTSCP - @rdtscp
0F.01:CA CLAC - cpl0 @smap
0F.01:CB STAC - cpl0 @smap
0F.01:C8 MONITOR -
0F.01:C9 MWAIT - check
0F.02 LAR Gv,Ew
0F.03 LSL Gv,Ew
0F.05 SYSCALL - end
0F.06 CLTS - cpl0
0F.07 SYSRET y end cpl0
0F.08 INVD - cpl0 check
0F.09 WBINVD - cpl0 check
0F.0B UD - end
0F.0D NOP Eb
0F.18 NOP Eb
0F.19 NOP Eb
0F.1A NOP Eb
0F.1B NOP Eb
0F.1C NOP Eb
0F.1D NOP Eb
0F.1E NOP Eb
0F.1F NOP Eb
0F.20 MOV_FROM_CR Ry,Cy cpl0 f64
0F.21 MOV_FROM_DR Ry,Dy cpl0 f64
0F.22 MOV_TO_CR Cy,Ry cpl0 f64 check
0F.23 MOV_TO_DR Dy,Ry cpl0 f64 check
0F.30 WRMSR - cpl0 check
0F.31 RDTSC -
0F.32 RDMSR - cpl0
0F.33 RDPMC -
0F.34 SYSENTER - end
0F.35 SYSEXIT y end cpl0
0F.40 CMOV Gv,Ev cc fast
NP.0F.77 EMMS -
0F.80 JCC Jz cc f64
0F.90 SETCC Eb cc
0F.A0 PUSH_SEG FS d64 stack
0F.A1 POP_SEG FS d64 stack end
0F.A2 CPUID - check
0F.A3 BT Ev,Gv bits
0F.A4 SHLD Ev,Gv,Ib
0F.A5 SHLD Ev,Gv,CL
0F.A8 PUSH_SEG GS d64 stack
0F.A9 POP_SEG GS d64 stack end
0F.AA RSM - end
0F.AB BTS Ev,Gv lock bits
0F.AC SHRD Ev,Gv,Ib
0F.AD SHRD Ev,Gv,CL
NP.0F.AE/0 FXSAVE Ma y
NP.0F.AE/1 FXRSTOR Ma y
NP.0F.AE/2 LDMXCSR Md
NP.0F.AE/3 STMXCSR Md
NP.0F.AE/4 XSAVE Ma y @xsave
NP.0F.AE/5 XRSTOR Ma y @xsave
NP.0F.AE/6 XSAVEOPT Ma y @xsaveopt
NP.0F.AE/7 CLFLUSH Ma
66.0F.AE/7 CLFLUSH Ma @clflushopt
66.0F.AE/6 CLFLUSH Ma @clwb
NP.0F.AE:E8+7 FENCE -
NP.0F.AE:F0+7 FENCE -
NP.0F.AE:F8+7 FENCE -
F3.0F.AE/0 RDFSBASE Ry o64 @fsgsbase
F3.0F.AE/1 RDGSBASE Ry o64 @fsgsbase
F3.0F.AE/2 WRFSBASE Ry o64 @fsgsbase
F3.0F.AE/3 WRGSBASE Ry o64 @fsgsbase
0F.AF IMUL2 Gv,Ev fast
0F.B0 CMPXCHG Eb,Gb lock
0F.B1 CMPXCHG Ev,Gv lock fast
0F.B2 LOAD_FAR Gv,Ma end bits
0F.B3 BTR Ev,Gv lock bits
0F.B4 LOAD_FAR Gv,Ma end bits
0F.B5 LOAD_FAR Gv,Ma end bits
0F.B6 MOVZX Gv,Eb fast
0F.B7 MOVZX Gv,Ew fast
F3.0F.B8 POPCNT Gv,Ev @popcnt
0F.B9 UD Gv,Ev end
0F.FF UD Gv,Ev end
0F.BA/4 BT Ev,Ib
0F.BA/5 BTS Ev,Ib lock
0F.BA/6 BTR Ev,Ib lock
0F.BA/7 BTC Ev,Ib lock
0F.BB BTC Ev,Gv lock bits
0F.BC BSF Gv,Ev
F3.0F.BC TZCNT Gv,Ev @bmi1
0F.BD BSR Gv,Ev
F3.0F.BD LZCNT Gv,Ev @abm
0F.BE MOVSX Gv,Eb fast
0F.BF MOVSX Gv,Ew fast
0F.C0 XADD Eb,Gb lock
0F.C1 XADD Ev,Gv lock
NP.0F.C3 MOVNTI My,Gy
0F.C7/1 CMPXCHG8B Ma y lock
0F.C7/6 RDRAND Rv @rdrand
0F.C7/7 RDSEED Rv @rdseed
F3.0F.C7/7 RDPID Ry f64 @rdpid
F3.0F.C7/6 UD Rv end
F2.0F.C7/6 UD Rv end
F2.0F.C7/7 UD Rv end
NP.0F.C7/3 XRSTORS Ma y cpl0 @xsaves
NP.0F.C7/4 XSAVEC Ma y @xsavec
NP.0F.C7/5 XSAVES Ma y cpl0 @xsaves
66.0F38.82 INVPCID Gy,Ma f64 cpl0 @invpcid
0F.C8 BSWAP Zy
0F38.F0 MOVBE Gv,Mv @movbe
0F38.F1 MOVBE Mv,Gv @movbe
F3.0F38.F0 UD Gv,Ev end
F3.0F38.F1 UD Gv,Ev end
F2.0F38.F0 CRC32 Gy,Eb @sse4.2
F2.0F38.F1 CRC32 Gy,Ev @sse4.2
66.0F38.F6 ADCX Gy,Ey @adx
F3.0F38.F6 ADOX Gy,Ey @adx
`;

/** The x87 escapes: every modrm byte of D8-DF is legal to decode; x86/fpu says what it does. */
export const X87 = `
D8 X87 Ea v
D9 X87 Ea v
DA X87 Ea v
DB X87 Ea v
DC X87 Ea v
DD X87 Ea v
DE X87 Ea v
DF X87 Ea v
`;
