; Real-address mode (SDM 3A, 20) and protected mode with 16-bit segments.

;; addresses are segment times 16 plus offset
; { "mode": 16, "expect": { "w": { "0x12355": "0xbeef" } } }
    mov ax, 0x1234
    mov ds, ax
    mov word [0x15], 0xbeef
    END

;; 16-bit addressing: BP goes by SS, sums wrap
; { "mode": 16, "regs": { "rbp": "0xfff0", "rsi": "0x20", "rbx": "0xffff0002" }, "expect": { "w": { "0x20012": 1, "0x10004": 2 } } }
    mov ax, 0x2000
    mov ss, ax
    mov ax, 0x1000
    mov ds, ax
    mov word [bp + si + 2], 1
    mov word [bx + 2], 2
    END

;; stores by CS
; { "mode": 16, "regs": { "rcx": 18 }, "expect": { "w": { "0x900": 18 } } }
    jmp 0x0010:(there - 0x100)
there:
    mov [cs:0x800], cx
    END

;; FFFF:0010 is above 1 MiB
; { "mode": 16, "expect": { "w": { "0x100000": "0x1234" } } }
    mov ax, 0xffff
    mov ds, ax
    mov word [0x10], 0x1234
    END

;; a 32-bit address above 64 KiB is #GP
; { "mode": 16, "regs": { "rbx": "0x10000" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    mov al, [ebx]
    END

;; a word at FFFF is #GP, by SS it is #SS
; { "mode": 16, "regs": { "rbp": "0xffff" }, "expect": { "exception": "#SS", "at": "fault" } }
fault:
    mov ax, [bp]
    END

;; far call and return
; { "mode": 16, "expect": { "regs": { "rax": 9, "cs": 0, "rsp": "0x7000" }, "w": { "0x6ffe": 0, "0x6ffc": "back" } } }
    call 0x0100:(there - 0x1000)
back:
    mov bx, cs
    END
there:
    mov ax, 9
    retf

;; far jump through memory
; { "mode": 16, "w": { "0x500": "0x7c10", "0x502": "0x0000" }, "expect": { "regs": { "rip": "0x7c11" } } }
    jmp far [0x500]
    times 16 - ($ - $$) nop
    END

;; LDS and LES
; { "mode": 16, "d": { "0x500": "0x12345678" }, "expect": { "regs": { "rbx": "0x5678", "ds": "0x1234", "rcx": "0x5678", "es": "0x1234" } } }
    les cx, [0x500]
    lds bx, [0x500]
    END

;; INT through the vector table, IRET back
; { "mode": 16, "flags": "IF CF", "d": { "0x84": "0x00107b00" }, "bytes": { "0x7c00": "", "0x7c20": "" }, "deliver": true,
;   "expect": { "regs": { "rax": "0x42", "rsp": "0x7000", "rbx": "0x7002", "rdx": 2 }, "w": { "0x6ffe": "0x203", "0x6ffc": 0, "0x6ffa": "back" }, "flags": "CF" } }
    jmp start
    times 0x10 db 0x90
start:
    mov word [0x84], handler
    mov word [0x86], 0
    int 0x21
back:
    mov bx, sp
    pushf
    pop cx
    and cx, 0x200
    mov sp, bx
    add bx, 2
    stc
    END
handler:
    mov ax, 0x42
    pushf
    pop dx
    and dx, 0x202
    iret

;; #DE in real mode returns to the instruction
; { "mode": 16, "deliver": true, "expect": { "regs": { "rax": 1 }, "w": { "0x6ffa": "fault" } } }
    mov word [0], handler
    mov word [2], 0
fault:
    div bl
    END
handler:
    mov ax, 1
    END

;; #BP and INTO return after them
; { "mode": 16, "flags": "OF", "deliver": true, "expect": { "regs": { "rax": 3 }, "w": { "0x6ffa": "second" } } }
    mov word [0xc], handler
    mov word [0xe], 0
    mov word [0x10], handler
    mov word [0x12], 0
    int3
    lea eax, [eax + 1]
    into
second:
    END
handler:
    lea eax, [eax + 1]
    iret

;; a vector beyond the limit of the table ends in a triple fault
; { "mode": 16, "deliver": true, "expect": { "triple": true } }
    lidt [table]
    int 0x21
    END
table:
    dw 0x20
    dd 0

;; unreal mode: the limit of a protected segment stays
; { "mode": 16, "regs": { "rbx": "0x300000" }, "b": { "0x300000": "0x5a" }, "expect": { "regs": { "rax": "0x5a", "ds": 0 } } }
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov cx, 8
    mov ds, cx
    and al, 0xfe
    mov cr0, eax
    xor cx, cx
    mov ds, cx
    movzx eax, byte [ebx]
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x93, 0xc
gdtr:
    dw 15
    dd gdt

;; SMSW in real mode, LMSW sets PE
; { "mode": 16, "expect": { "regs": { "rax": "0x10", "rbx": "0x11" } } }
    smsw ax
    mov cx, 1
    lmsw cx
    smsw bx
    END

;; instructions of protected mode are #UD
; { "mode": 16, "expect": { "exception": "#UD", "at": "fault" } }
fault:
    sldt ax
    END

;; the instruction pointer does not wrap: #GP
; { "mode": 16, "org": "0xfffe", "expect": { "exception": "#GP" } }
    mov ax, 0x1234

;; segment limit in protected mode with 16-bit segments
; { "mode": "16p", "b": { "0x201ff": "0x55" }, "expect": { "exception": "#GP", "at": "fault", "regs": { "rbx": "0x55" } } }
    lgdt [gdtr]
    mov ax, 8
    mov ds, ax
    mov bl, [0x1ff]
fault:
    mov bx, [0x1ff]
    END
gdt:
    dq 0
    desc 0x20000, 0x1ff, 0x93, 0
gdtr:
    dw 15
    dd gdt

;; an expand-down segment
; { "mode": "16p", "regs": { "rbx": 0 }, "w": { "0x21000": "0x77" }, "expect": { "exception": "#GP", "at": "fault", "regs": { "rbx": "0x77" } } }
    lgdt [gdtr]
    mov ax, 8
    mov ds, ax
    mov bx, [0x1000]
fault:
    mov bx, [0xffe]
    END
gdt:
    dq 0
    desc 0x20000, 0xfff, 0x97, 0
gdtr:
    dw 15
    dd gdt

;; a write to a read-only data segment
; { "mode": "16p", "w": { "0x500": 7 }, "expect": { "exception": "#GP", "at": "fault", "regs": { "rbx": 7 } } }
    lgdt [gdtr]
    mov ax, 8
    mov ds, ax
    mov bx, [0x500]
fault:
    mov [0x500], bx
    END
gdt:
    dq 0
    desc 0, 0xffff, 0x91, 0
gdtr:
    dw 15
    dd gdt

;; a load by the null selector is allowed, its use is #GP
; { "mode": "16p", "expect": { "exception": "#GP", "at": "fault" } }
    xor ax, ax
    mov es, ax
fault:
    mov al, [es:0]
    END

;; a selector beyond the table is #GP with the selector
; { "mode": 32, "expect": { "exception": "#GP 0x58", "at": "fault" } }
    lgdt [gdtr]
    mov eax, 0x5b
fault:
    mov ds, eax
    END
gdt:
    dq 0
gdtr:
    dw 7
    dd gdt

;; a segment that is not present is #NP, for SS #SS
; { "mode": 32, "deliver": false, "expect": { "exception": "#SS 0x8", "at": "fault" } }
    lgdt [gdtr]
    mov eax, 8
fault:
    mov ss, eax
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x13, 0xc
gdtr:
    dw 15
    dd gdt

;; loading a segment sets its accessed bit
; { "mode": 32, "expect": { "regs": { "rbx": "0x93" } } }
    lgdt [gdtr]
    mov eax, 8
    mov fs, eax
    movzx ebx, byte [gdt + 13]
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x92, 0xc
gdtr:
    dw 15
    dd gdt

;; LAR, LSL, VERR, VERW
; { "mode": 32, "expect": { "regs": { "rbx": "0xc09300", "rcx": "0xffffffff", "rdx": 7, "rsi": "0x1234" } } }
    lgdt [gdtr]
    mov eax, 8
    lar ebx, eax
    lsl ecx, eax
    verr ax
    setz dl
    verw ax
    jnz no
    or dl, 2
no: mov eax, 0x10
    mov esi, 0x1234
    lar esi, eax
    jz bad
    or dl, 4
bad:
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x93, 0xc
    dq 0
gdtr:
    dw 0x17
    dd gdt

;; a far pointer at FFFE has its selector at 0
; { "mode": 16, "regs": { "rbx": "0xfffe" }, "w": { "0x1fffe": "0x1234", "0x10000": "0x5678" },
;   "expect": { "regs": { "rsi": "0x1234", "es": "0x5678" } } }
    mov ax, 0x1000
    mov ds, ax
    les si, [bx]
    END

;; a far pointer at FFFD has a selector across the limit
; { "mode": 16, "regs": { "rbx": "0xfffd" }, "expect": { "exception": "#GP", "at": "fault" } }
    mov ax, 0x1000
    mov ds, ax
fault:
    lds si, [bx]
    END

;; by SS that is #SS
; { "mode": 16, "regs": { "rbp": "0xffff" }, "expect": { "exception": "#SS", "at": "fault" } }
fault:
    jmp far [bp]
    END

;; a far pointer with a 32-bit offset at FFFC has its selector at 0
; { "mode": 16, "regs": { "rbx": "0xfffc" }, "q": { "0x1fffc": "0x5678" }, "w": { "0x10000": "0x4444" },
;   "expect": { "regs": { "rsi": "0x5678", "gs": "0x4444" } } }
    mov ax, 0x1000
    mov ds, ax
    lgs esi, [bx]
    END

;; BOUND looks at both of its words
; { "mode": 16, "regs": { "rbx": "0xfffd" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    bound ax, [bx]
    END

;; BOUND at FFFE has its upper bound at 0
; { "mode": 16, "regs": { "rbx": "0xfffe", "rax": 5 }, "w": { "0x1fffe": "0x3", "0x10000": "0x7" }, "expect": {} }
    mov cx, 0x1000
    mov ds, cx
    bound ax, [bx]
    END

;; a bit offset wraps at 64 KiB
; { "mode": 16, "regs": { "rbx": "0xfffe", "rax": "0x10" }, "w": { "0x10000": "0x0" }, "expect": { "w": { "0x10000": 1 } } }
    mov cx, 0x1000
    mov ds, cx
    bts [bx], ax
    END

;; where a bit offset leads counts for the limit, not where it starts
; { "mode": 16, "regs": { "rbx": "0xffff", "rax": "0x10" }, "w": { "0x10001": "0x0" }, "expect": { "w": { "0x10001": 1 } } }
    mov cx, 0x1000
    mov ds, cx
    bts [bx], ax
    END

;; a bit offset may lead across the limit
; { "mode": 16, "regs": { "rbx": "0xfffd", "rax": "0x10" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    bts [bx], ax
    END
