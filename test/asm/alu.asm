; Arithmetic and logic: flags at the edges (SDM 1, 3.4.3.1 and the instructions' own pages).

;; ADD: unsigned carry, no signed overflow
; { "mode": 64, "regs": { "rax": "0x11ff", "rbx": 1 },
;   "expect": { "regs": { "rax": "0x1100" }, "flags": "CF PF AF ZF" } }
    add al, bl
    END

;; ADD: signed overflow, no carry
; { "mode": 64, "regs": { "rax": "0xaaaaaaaa7fffffff" },
;   "expect": { "regs": { "rax": "0x80000000" }, "flags": "OF SF PF AF" } }
    add eax, 1
    END

;; ADD: carry and overflow, 64 bits
; { "mode": 64, "regs": { "rax": "0x8000000000000000" },
;   "expect": { "regs": { "rax": 0 }, "flags": "CF OF ZF PF" } }
    add rax, rax
    END

;; ADC: carry goes through all ones
; { "mode": 64, "flags": "CF", "regs": { "rax": "0xffff", "rbx": "0xffff" },
;   "expect": { "regs": { "rax": "0xffff" }, "flags": "CF PF AF SF" } }
    adc ax, bx
    END

;; ADC: with all ones and carry the result is the first operand
; { "mode": 64, "flags": "CF", "regs": { "rax": "0x7f" },
;   "expect": { "regs": { "rax": "0x7f" }, "flags": "CF AF" } }
    adc al, 0xff
    END

;; SUB: borrow
; { "mode": 64, "regs": { "rax": 0 },
;   "expect": { "regs": { "rax": "0xffffffff" }, "flags": "CF SF PF AF" } }
    sub eax, 1
    END

;; SUB: signed overflow
; { "mode": 64, "regs": { "rax": "0x80" },
;   "expect": { "regs": { "rax": "0x7f" }, "flags": "OF AF" } }
    sub al, 1
    END

;; SBB: all ones from all ones with borrow
; { "mode": 64, "flags": "CF", "regs": { "rax": "0x10", "rbx": "0xffffffffffffffff" },
;   "expect": { "regs": { "rax": "0x10" }, "flags": "CF AF" } }
    sbb rax, rbx
    END

;; SBB of a register with itself spreads CF
; { "mode": 64, "flags": "CF", "regs": { "rdx": 5 },
;   "expect": { "regs": { "rdx": "0xffffffff" }, "flags": "CF SF PF AF" } }
    sbb edx, edx
    END

;; CMP leaves its operand
; { "mode": 64, "regs": { "rax": 3 },
;   "expect": { "regs": { "rax": 3 }, "flags": "CF AF SF" } }
    cmp eax, 5
    END

;; INC keeps CF
; { "mode": 64, "flags": "CF", "regs": { "rax": "0xff" },
;   "expect": { "regs": { "rax": 0 }, "flags": "CF ZF PF AF" } }
    inc al
    END

;; INC overflows
; { "mode": 64, "regs": { "rax": "0x7fffffffffffffff" },
;   "expect": { "regs": { "rax": "0x8000000000000000" }, "flags": "OF SF PF AF" } }
    inc rax
    END

;; DEC keeps CF and overflows
; { "mode": 64, "flags": "CF", "regs": { "rax": "0x8000" },
;   "expect": { "regs": { "rax": "0x7fff" }, "flags": "CF OF PF AF" } }
    dec ax
    END

;; NEG of zero clears CF
; { "mode": 64, "flags": "CF", "regs": { "rax": 0 }, "expect": { "regs": { "rax": 0 }, "flags": "ZF PF" } }
    neg eax
    END

;; NEG of the lowest number overflows
; { "mode": 64, "regs": { "rax": "0x80" }, "expect": { "regs": { "rax": "0x80" }, "flags": "CF OF SF" } }
    neg al
    END

;; NOT changes no flag
; { "mode": 64, "flags": "CF OF ZF", "regs": { "rax": "0x00ff" },
;   "expect": { "regs": { "rax": "0xff00" }, "flags": "CF OF ZF" } }
    not ax
    END

;; AND clears CF and OF
; { "mode": 64, "flags": "CF OF", "regs": { "rax": "0xf0f0" },
;   "expect": { "regs": { "rax": "0xf000" }, "flags": "SF PF", "undefined": "AF" } }
    and ax, 0xff0f
    END

;; OR with a sign-extended byte
; { "mode": 64, "regs": { "rax": 1 },
;   "expect": { "regs": { "rax": "0xffffffffffffff81" }, "flags": "SF PF", "undefined": "AF" } }
    or rax, -128
    END

;; XOR of a register with itself
; { "mode": 64, "flags": "CF OF SF", "regs": { "rax": -1 },
;   "expect": { "regs": { "rax": 0 }, "flags": "ZF PF", "undefined": "AF" } }
    xor eax, eax
    END

;; TEST looks at the operand's own sign
; { "mode": 64, "regs": { "rax": "0x8000" }, "expect": { "regs": { "rax": "0x8000" }, "flags": "SF PF", "undefined": "AF" } }
    test ax, ax
    END

;; high byte registers
; { "mode": 64, "regs": { "rax": "0x1234", "rcx": "0xff00" },
;   "expect": { "regs": { "rax": "0x1134" }, "flags": "CF AF PF" } }
    add ah, ch
    END

;; with a REX prefix the number is another register
; { "mode": 64, "regs": { "rax": "0x1234", "rsp": "0x80001" },
;   "expect": { "regs": { "rax": "0x1235" }, "flags": "PF" } }
    db 0x40
    add al, ah
    END

;; a memory operand is read, changed and written
; { "mode": 64, "d": { "0x200000": "0xffffffff" }, "regs": { "rbx": "0x200000" },
;   "expect": { "d": { "0x200000": 0, "0x200004": 0 }, "flags": "CF ZF PF AF" } }
    add dword [rbx], 1
    END

;; MOVSX, MOVZX, MOVSXD
; { "mode": 64, "regs": { "rax": "0x80ff" },
;   "expect": { "regs": { "rbx": "0xffffffffffff80ff", "rcx": "0xff", "rdx": "0xffffffff", "rsi": "0xffffffff80000000" } } }
    movsx rbx, ax
    movzx ecx, al
    movsx edx, al
    mov edi, 0x80000000
    movsxd rsi, edi
    END

;; CBW, CWDE, CDQE, CWD, CDQ, CQO
; { "mode": 64, "regs": { "rax": "0x80" },
;   "expect": { "regs": { "rbx": "0xff80", "rcx": "0xffffff80", "rsi": "0xffffffffffffff80", "rdi": "0xffff", "r8": "0xffffffff", "rdx": "0xffffffffffffffff" } } }
    cbw
    mov bx, ax
    cwde
    mov ecx, eax
    cdqe
    mov rsi, rax
    xor edx, edx
    cwd
    mov rdi, rdx
    cdq
    mov r8, rdx
    cqo
    END

;; LEA wraps to its operand and address sizes
; { "mode": 64, "regs": { "rax": "0xffffffffffffffff", "rbx": 3 },
;   "expect": { "regs": { "rcx": "0x10", "rdx": "0xfffffffffffffffc", "rsi": "0x1d0016" } } }
    lea ecx, [rax + rbx*4 + 5]
    lea rdx, [rax - 3]
    mov esi, 0x1d0000
    lea si, [ebx + ebx*4 + 7]
    END

;; DAA, DAS, AAA, AAS
; { "mode": 32, "regs": { "rax": "0x79" },
;   "expect": { "regs": { "rax": "0x07", "rbx": "0x14", "rcx": "0x0106", "rdx": "0xff09", "rsi": "0x93" } } }
    add al, 0x35                ; 79 + 35 = 114
    daa
    mov ebx, eax
    mov eax, 0x0008
    add al, 0x08                ; 8 + 8 = 16: AL 6, AH 1
    aaa
    mov ecx, eax
    mov eax, 0x0003
    sub al, 4
    aas
    mov edx, eax
    mov eax, 0x35
    sub al, 0x42                ; 35 - 42 = 93 with borrow
    das
    movzx esi, al
    mov eax, 7
    END

;; AAM and AAD
; { "mode": 32, "regs": { "rax": 63 }, "expect": { "regs": { "rbx": "0x0603", "rax": "0x3f" }, "flags": "PF", "undefined": "OF AF CF" } }
    aam
    mov ebx, eax
    aad
    END

;; AAM by zero
; { "mode": 32, "regs": { "rax": 63 }, "expect": { "exception": "#DE", "at": "fault" } }
fault:
    aam 0
    END

;; CMOVcc writes its upper half even when it does not move
; { "mode": 64, "regs": { "rax": "0xffffffff00000001", "rbx": 2 }, "expect": { "regs": { "rax": 1, "rcx": 2 } } }
    xor edx, edx
    cmovnz eax, ebx
    cmovz rcx, rbx
    END

;; SETcc, LAHF, SAHF
; { "mode": 64, "regs": { "rax": "0xd500" }, "expect": { "regs": { "rbx": 1, "rcx": 0, "rdx": 1, "rsi": "0xd7" }, "flags": "SF ZF AF PF CF" } }
    sahf
    setz bl
    seto cl
    sets dl
    lahf
    movzx esi, ah
    END

;; CLC, STC, CMC
; { "mode": 64, "expect": { "regs": { "rax": 1, "rbx": 0 }, "flags": "CF" } }
    stc
    setc al
    cmc
    setc bl
    clc
    cmc
    END
