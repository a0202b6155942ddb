; Stack operations in all sizes, calls, loops (SDM 1, 6 and 7.3).

;; PUSH and POP of 64 and 16 bits
; { "mode": 64, "regs": { "rax": "0x1122334455667788", "rsp": "0x80000" },
;   "expect": { "regs": { "rbx": "0x7788", "rcx": "0x1122334455667788", "rsp": "0x80000", "rdx": "0x7fff6" } } }
    push rax
    push ax
    mov rdx, rsp
    pop bx
    pop rcx
    END

;; PUSH of a sign-extended immediate
; { "mode": 64, "expect": { "q": { "0x7fff8": "0xffffffffffffff80", "0x7fff0": "0xffffffff80000000" } } }
    push byte -128
    push qword -0x80000000
    END

;; PUSH rSP stores the old value, POP rSP loads it
; { "mode": 64, "expect": { "regs": { "rax": "0x80000", "rsp": "0x1234" } } }
    push rsp
    mov rax, [rsp]
    push 0x1234
    pop rsp
    END

;; POP to memory addressed by rSP sees it moved already
; { "mode": 64, "expect": { "q": { "0x80010": "0x77" }, "regs": { "rsp": "0x80000" } } }
    push 0x77
    pop qword [rsp + 0x10]
    END

;; PUSHA and POPA, 16 and 32 bits
; { "mode": 32, "regs": { "rax": 1, "rcx": 2, "rdx": 3, "rbx": 4, "rbp": 5, "rsi": 6, "rdi": 7 },
;   "expect": { "d": { "0x7fffc": 1, "0x7fff8": 2, "0x7fff4": 3, "0x7fff0": 4, "0x7ffec": "0x80000", "0x7ffe8": 5, "0x7ffe4": 6, "0x7ffe0": 7 },
;               "w": { "0x7ffde": 1, "0x7ffd6": "0xffe0" }, "regs": { "rsp": "0x80000", "rax": 1, "rdi": 7, "rbp": 5 } } }
    pushad
    pushaw
    xor eax, eax
    mov edi, eax
    mov ebp, eax
    popaw
    popad
    END

;; PUSHF of 16 bits and POPF
; { "mode": 64, "flags": "CF OF", "expect": { "regs": { "rax": "0x803", "rsp": "0x80000" }, "flags": "ZF" } }
    pushfw
    pop ax
    push word 0x42
    popfw
    END

;; POPF at CPL 3 leaves IF and IOPL
; { "mode": 64, "cpl": 3, "flags": "IF", "expect": { "regs": { "rax": "0x200a03" } } }
    push qword 0x203801
    popf
    pushf
    pop rax
    and eax, ~0x3000
    or eax, 0
    pushf
    END

;; PUSHF shows RF and VM clear
; { "mode": 32, "flags": "AC ID", "expect": { "d": { "0x7fffc": "0x240002" } } }
    pushfd
    END

;; ENTER and LEAVE
; { "mode": 64, "regs": { "rbp": "0x1234" }, "expect": { "regs": { "rbx": "0x7ffe8", "rcx": "0x7fff8", "rsp": "0x80000", "rbp": "0x1234" }, "q": { "0x7fff8": "0x1234" } } }
    enter 16, 0
    mov rbx, rsp
    mov rcx, rbp
    leave
    END

;; ENTER of level 2 copies a frame pointer
; { "mode": 32, "regs": { "rbp": "0x90000" }, "d": { "0x8fffc": "0xabcd" },
;   "expect": { "d": { "0x7fffc": "0x90000", "0x7fff8": "0xabcd", "0x7fff4": "0x7fffc" }, "regs": { "rbp": "0x7fffc", "rsp": "0x7ffe4" } } }
    enter 16, 2
    END

;; CALL and RET with bytes to drop
; { "mode": 64, "expect": { "regs": { "rax": 7, "rsp": "0x80000" }, "q": { "0x7ffe8": "back" } } }
    push 1
    push 7
    call near there
back:
    END
there:
    mov rax, [rsp + 8]
    ret 16

;; CALL through memory and register
; { "mode": 64, "expect": { "regs": { "rbx": 2, "rsp": "0x80000" } } }
    mov qword [0x200000], there
    mov eax, there
    call [0x200000]
    call rax
    END
there:
    inc ebx
    ret

;; a 16-bit CALL in 32-bit code cuts EIP
; { "mode": 32, "org": "0x8000", "expect": { "w": { "0x7fffe": "back" }, "regs": { "rax": 5, "rsp": "0x7fffe" } } }
    call word there
back:
    nop
there:
    mov eax, 5
    END

;; Jcc on every condition of CMP 1, 2
; { "mode": 64, "expect": { "regs": { "rbx": "0x6996" } } }
%macro cond 2
    mov eax, 1
    cmp eax, 2
    j%1 %%yes
    jmp %%done
%%yes:
    or ebx, 1 << %2
%%done:
%endmacro
; 1 - 2: CF, SF, AF, PF set; OF, ZF clear. Holding: NO B NZ BE S P L LE.
    cond o, 0
    cond no, 1
    cond c, 2
    cond nc, 3
    cond z, 5
    cond nz, 4
    cond be, 7
    cond a, 6
    cond s, 8
    cond ns, 9
    cond pe, 11
    cond po, 10
    cond l, 13
    cond ge, 12
    cond le, 14
    cond g, 15
    END

;; LOOP, LOOPNE, JRCXZ
; { "mode": 64, "regs": { "rcx": 5 }, "expect": { "regs": { "rax": 5, "rbx": 1, "rcx": "0xffffffff", "rdx": 0 } } }
again:
    inc eax
    loop again
    jrcxz zero
    inc edx
zero:
    mov rcx, 0x100000000
    jecxz low
    inc edx
low:
more:
    inc ebx
    cmp eax, eax
    a32 loopne more
    END

;; stack with a 16-bit SP wraps and keeps the upper half of ESP
; { "mode": "16p", "regs": { "rsp": "0x12340000", "rax": "0xaabbccdd" },
;   "expect": { "regs": { "rsp": "0x1234fffc", "rbx": "0x1234fffe" }, "w": { "0xfffe": "0xccdd" } } }
    push ax
    mov ebx, esp
    push ax
    END

;; a push below the stack segment's start is #SS
; { "mode": "16p", "regs": { "rsp": 1 }, "expect": { "exception": "#SS", "at": "fault", "regs": { "rsp": 1 } } }
fault:
    push ax
    END

;; a 32-bit push with a 16-bit stack
; { "mode": "16p", "regs": { "rax": "0x11223344" }, "expect": { "d": { "0x6ffc": "0x11223344" }, "regs": { "rsp": "0x6ffc" } } }
    push eax
    END

;; PUSH of a segment register
; { "mode": 32, "d": { "0x7fffc": "0xffffffff" }, "expect": { "w": { "0x7fffc": "0x10" }, "regs": { "rsp": "0x7fffc" } } }
    push ds
    END

;; a non-canonical stack address is #SS
; { "mode": 64, "regs": { "rsp": "0x8000000000000000" }, "expect": { "exception": "#SS", "at": "fault" } }
fault:
    push rax
    END

;; a non-canonical address by way of rBP is #SS
; { "mode": 64, "regs": { "rbp": "0x8000000000000000" }, "expect": { "exception": "#SS" } }
    mov eax, [rbp + 8]
    END

;; a non-canonical address otherwise is #GP
; { "mode": 64, "regs": { "rax": "0x800000000000" }, "expect": { "exception": "#GP" } }
    mov eax, [rax]
    END

;; a jump to a non-canonical address is #GP
; { "mode": 64, "regs": { "rax": "0x800000000000" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    jmp rax
    END
