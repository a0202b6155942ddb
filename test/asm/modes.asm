; From mode to mode (SDM 3A, 9.8 and 9.9), and the system instructions around it.

;; real mode to 32-bit protected mode
; { "mode": 16, "expect": { "regs": { "cs": 8, "rax": "0x12345678", "cpl": 0, "rsp": "0x90000" } } }
    cli
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:there
    bits 32
there:
    mov ax, 16
    mov ds, ax
    mov ss, ax
    mov esp, 0x90000
    mov eax, 0x12345678
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xc
    desc 0, 0xfffff, 0x93, 0xc
gdtr:
    dw 23
    dd gdt

;; between setting PE and the far jump code is still 16 bits wide
; { "mode": 16, "expect": { "regs": { "rax": "0x60000011", "rbx": "0x5678", "cs": 0 } } }
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 0x5678
    END
gdtr:
    dw 0
    dd 0

;; a 32-bit far jump from 16-bit code
; { "mode": 16, "expect": { "regs": { "rip": "0x100001", "cs": 8 } }, "b": { "0x100000": "0xf4" } }
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:0x100000
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xc
gdtr:
    dw 15
    dd gdt

;; protected mode back to real mode
; { "mode": 16, "expect": { "regs": { "cs": "0x70", "rax": "0x60000010", "rbx": "0x77" } }, "b": { "0x12345": "0x77" } }
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:there
there:
    mov ax, 16
    mov ds, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0x70:(back - 0x700)
back:
    mov cx, 0x1234
    mov ds, cx
    mov bl, [5]
    END
gdt:
    dq 0
    desc 0, 0xffff, 0x9b, 0
    desc 0, 0xffff, 0x93, 0
gdtr:
    dw 23
    dd gdt

;; 32-bit mode to long mode, by way of compatibility mode
; { "mode": 32, "expect": { "regs": { "r9": "0x1122334455667788", "cs": 16, "rax": "0x500", "rbx": 8 } },
;   "q": { "0x1000": "0x2007", "0x2000": "0x87" } }
    lgdt [gdtr]
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x1000
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, cr0
    bts eax, 31
    mov cr0, eax
    jmp 8:compatible
compatible:
    mov ebx, cs
    mov eax, 1                   ; compatibility mode: 40 is INC, not a prefix
    db 0x40
    jmp 16:long_mode
    bits 64
long_mode:
    mov r9, 0x1122334455667788
    mov ecx, 0xc0000080
    rdmsr
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xc
    desc 0, 0xfffff, 0x9b, 0xa
gdtr:
    dw 23
    dd gdt

;; paging with LME but without PAE is #GP
; { "mode": 32, "expect": { "exception": "#GP", "at": "fault" } }
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, cr0
    bts eax, 31
fault:
    mov cr0, eax
    END

;; from real mode at once to long mode
; { "mode": 16, "expect": { "regs": { "rsi": "0x8000000000000000", "cs": 8 } },
;   "q": { "0x1000": "0x2007", "0x2000": "0x87" } }
    lgdt [gdtr]
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x1000
    mov cr3, eax
    mov ecx, 0xc0000080
    mov eax, 0x100
    xor edx, edx
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    jmp 8:there
    bits 64
there:
    mov rsi, 0x8000000000000000
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xa
gdtr:
    dw 15
    dd gdt

;; long mode to compatibility mode and back by far return
; { "mode": 64, "expect": { "regs": { "rax": 2, "rbx": "0x100000000", "cs": 8 } } }
    lgdt [gdtr]
    mov eax, 0x10
    mov ss, eax
    mov rbx, 0xffffffff
    push 0x18
    mov eax, compatible
    push rax
    retfq
    bits 32
compatible:
    mov eax, 1
    db 0x40                      ; INC EAX
    jmp 8:there
    bits 64
there:
    inc rbx
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xa
    desc 0, 0xfffff, 0x93, 0xc
    desc 0, 0xfffff, 0x9b, 0xc
gdtr:
    dw 31
    dq gdt

;; a code segment with both L and D is #GP
; { "mode": 64, "expect": { "exception": "#GP 0x8", "at": "fault" } }
    lgdt [gdtr]
    push 8
    push 0
fault:
    retfq
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xe
gdtr:
    dw 15
    dq gdt

;; SGDT and SIDT of 64 bits
; { "mode": 64, "expect": { "w": { "0x200000": "0x1234" }, "q": { "0x200002": "0xffff800012345678" } } }
    lgdt [gdtr]
    sgdt [0x200000]
    END
gdtr:
    dw 0x1234
    dq 0xffff800012345678

;; SYSCALL and SYSRET
; { "mode": 64, "cpl": 0, "deliver": true, "flags": "IF", "expect": { "regs": { "rcx": "user2", "rdx": "user1", "rsi": "0x247", "rdi": "0x46", "cs": 8, "r8": "0x33", "r9": "0x2b", "rbx": 8 } } }
    mov ecx, 0xc0000081          ; STAR: SYSRET base 23, SYSCALL base 8
    xor eax, eax
    mov edx, 0x00230008
    wrmsr
    inc ecx                      ; LSTAR
    mov eax, kernel
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000084          ; FMASK: IF, CF
    mov eax, 0x201
    wrmsr
    xor ebp, ebp
    mov ecx, user
    mov r11d, 0x202
    o64 sysret
user:
    or eax, 0
    cmp eax, eax
    stc
    syscall
user1:
    mov r8d, cs
    mov r9d, ss
    syscall
user2:
    ud2
kernel:
    inc ebp
    cmp ebp, 2
    je last
    mov rsi, r11
    mov ebx, cs
    mov rdx, rcx
    o64 sysret
last:
    mov edi, 0x46
    END

;; SYSCALL masks flags and leaves RFLAGS in R11
; { "mode": 64, "flags": "CF DF IF", "expect": { "regs": { "r11": "0x647", "rcx": "back", "rax": "0x246" } } }
    mov ecx, 0xc0000082
    mov eax, kernel
    xor edx, edx
    wrmsr
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 8
    wrmsr
    mov ecx, 0xc0000084
    mov eax, 0x401
    xor edx, edx
    wrmsr
    stc
    std
    syscall
back:
    nop
kernel:
    pushf
    pop rax
    END

;; SYSCALL without SCE is #UD
; { "mode": 64, "regs": { "efer": "0xd00" }, "expect": { "exception": "#UD" } }
    syscall
    END

;; SYSRET outside level 0 is #GP
; { "mode": 64, "cpl": 3, "expect": { "exception": "#GP" } }
    o64 sysret
    END

;; privileged instructions of the user are #GP
; { "mode": 64, "cpl": 3, "expect": { "exception": "#GP", "at": "fault" } }
    nop
fault:
    mov rax, cr0
    END

;; CLI of the user without IOPL is #GP
; { "mode": 64, "cpl": 3, "flags": "IF", "expect": { "exception": "#GP", "at": "fault" } }
fault:
    cli
    END

;; ports of the user without IOPL, and beyond the TSS's map, are #GP
; { "mode": 64, "cpl": 3, "w": { "0x66": "0xffff" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    in al, 0x80
    END

;; SWAPGS and the bases of FS and GS
; { "mode": 64, "b": { "0x200010": 7, "0x300010": 9 }, "expect": { "regs": { "rax": 7, "rbx": 9, "rdx": 0, "rsi": "0x200000" } } }
    mov ecx, 0xc0000101
    mov eax, 0x200000
    xor edx, edx
    wrmsr
    inc ecx
    mov eax, 0x300000
    wrmsr
    xor eax, eax
    mov al, [gs:0x10]
    swapgs
    mov bl, [gs:0x10]
    mov edi, eax
    rdmsr
    mov esi, eax
    mov eax, edi
    END

;; CPUID: vendor, long mode, CMPXCHG16B, POPCNT, SSE4.2
; { "mode": 64, "expect": { "regs": { "rsi": 3, "rdi": "0x982201", "r9": "0x20000000" } } }
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000008
    setae sil
    mov eax, 1
    cpuid
    mov edi, ecx
    and edi, 0x982201            ; SSE3, SSSE3, CX16, SSE4.1, SSE4.2, POPCNT
    and edx, 0x07808111          ; FPU, TSC, CX8, CMOV, MMX, FXSR, SSE, SSE2
    cmp edx, 0x07808111
    jne no
    or esi, 2
no: mov eax, 0x80000001
    cpuid
    mov r9d, edx
    and r9d, 0x20000000
    END

;; an MSR that does not exist is #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov ecx, 0x12345678
fault:
    rdmsr
    END

;; a non-canonical LSTAR is #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov ecx, 0xc0000082
    mov edx, 0x8000
fault:
    wrmsr
    END

;; code that was written runs as it is now
; { "mode": 64, "expect": { "regs": { "rax": 6 } } }
    mov ebp, 3
again:
patched:
    mov ecx, 1
    add eax, ecx
    inc dword [patched + 1]
    dec ebp
    jnz again
    END

;; an instruction rewritten just ahead
; { "mode": 64, "expect": { "regs": { "rax": 0, "rbx": 1 } } }
    mov word [ahead], 0xc3ff     ; INC EBX
ahead:
    inc eax
    END

;; an instruction across two pages
; { "mode": 64, "org": "0x100ffb", "expect": { "regs": { "rax": "0x1122334455667788" } } }
    mov rax, 0x1122334455667788
    END

;; the second page of an instruction is not there
; { "mode": 64, "org": "0x3ffffe", "q": { "0x3010": 0 }, "expect": { "exception": "#PF 0x10", "at": "fault", "regs": { "cr2": "0x400000" } } }
fault:
    mov eax, 0x11223344

;; the second page's code changes while the first stays
; { "mode": 64, "org": "0x100ff8", "expect": { "regs": { "rax": "0x705", "rbx": 2 } } }
    jmp short start
    nop
    nop
    nop
    nop
run:                             ; 100FFE: MOV EAX, imm32
    mov eax, 5
    inc ebx
    cmp ebx, 2
    je done
    mov byte [run + 2], 7
start:
    jmp run
done:
    END

;; an instruction of more than 15 bytes is #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    times 15 db 0x66
    nop
    END

;; one of 15 bytes is right
; { "mode": 64, "expect": { "regs": { "rax": 1 } } }
    times 13 db 0x2e
    inc eax
    END

;; UD2, and an opcode that does not exist in 64-bit mode
; { "mode": 64, "expect": { "exception": "#UD", "at": "fault" } }
fault:
    db 0x06
    END

;; HLT of the user is #GP
; { "mode": 32, "cpl": 3, "expect": { "exception": "#GP" } }
    hlt

;; ARPL that changes nothing does not write: a segment that is read only will do
; { "mode": 32, "d": { "0x20000": "0xfff3" }, "expect": { "flags": "", "undefined": "CF PF AF SF OF", "d": { "0x20000": "0xfff3" } } }
    lgdt [gdtr]
    mov ax, 0x18
    mov ds, ax
    mov ebx, 2
    xor eax, eax
    arpl [0x20000], bx
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xc
    desc 0, 0xfffff, 0x93, 0xc
    desc 0, 0xfffff, 0x91, 0xc
gdtr:
    dw gdtr - gdt - 1
    dd gdt

;; ARPL that changes the selector is #GP there
; { "mode": 32, "d": { "0x20000": "0xfff0" }, "expect": { "exception": "#GP", "at": "fault" } }
    lgdt [gdtr]
    mov ax, 0x18
    mov ds, ax
    mov ebx, 2
fault:
    arpl [0x20000], bx
    END
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xc
    desc 0, 0xfffff, 0x93, 0xc
    desc 0, 0xfffff, 0x91, 0xc
gdtr:
    dw gdtr - gdt - 1
    dd gdt

;; LGDT of a base that is not canonical
; { "mode": 64, "w": { "0x200000": "0x7f" }, "q": { "0x200002": "0x800000000000" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    lgdt [0x200000]

;; LIDT from an address that is not canonical
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov rax, 0x800000000000
fault:
    lidt [rax]

;; SGDT through the stack segment at an address that is not canonical
; { "mode": 64, "expect": { "exception": "#SS", "at": "fault" } }
    mov rbp, 0x800000000000
fault:
    sgdt [rbp]

;; LLDT of a descriptor whose base is not canonical
; { "mode": 64, "expect": { "exception": "#GP 8", "at": "fault" } }
    lgdt [gdtr]
    mov eax, 8
fault:
    lldt ax
gdt:
    dq 0
    desc 0, 0x27, 0x82, 0
    dq 0x8000
gdtr:
    dw 23
    dq gdt

;; LTR of a descriptor whose base is not canonical leaves it available
; { "mode": 64, "expect": { "exception": "#GP 8", "at": "fault", "b": { "0x200005": "0x89" } } }
    mov rax, 0x0000890000000067
    mov [0x200000], rax
    mov dword [0x200008], 0x00008000
    mov dword [0x20000c], 0
    lgdt [gdtr]
    mov eax, 8
fault:
    ltr ax
gdtr:
    dw 23
    dq 0x200000 - 8

;; x87 and FXSAVE at addresses that are not canonical
; { "mode": 64, "regs": { "cr4": "0x220" }, "expect": { "exception": "#SS", "at": "fault" } }
    mov rbp, 0x800000000000
fault:
    fld qword [rbp]

;; FXSAVE at an address that is not canonical
; { "mode": 64, "regs": { "cr4": "0x220" }, "expect": { "exception": "#GP", "at": "fault" } }
    mov rax, 0x800000000000
fault:
    fxsave [rax]

;; compatibility mode of the user: segments, gates and stacks of the kernel lie in the upper half
; { "mode": 64, "deliver": true, "q": { "0x1ff8": "0x2007" },
;   "expect": { "regs": { "rax": "0x10203040", "rbx": "0xffff", "cs": 8, "cpl": 0, "rsp": "0xffffff80000fffd8" }, "q": { "0xfffd8": "back", "0xfffe0": "0x3b", "0xffff0": "0x60000", "0xffff8": "0x23" } } }
    lgdt [gdtr]
    lidt [idtr]
    mov eax, 0x28
    ltr ax
    mov eax, 0x40
    lldt ax
    mov dword [0x123456], 0x10203040
    push 0x23
    push 0x60000
    push 2
    push 0x3b
    mov eax, user
    push rax
    iretq
    bits 32
user:
    mov eax, 0x23
    mov ds, eax
    mov eax, 7
    mov fs, eax
    mov eax, [fs:0x3456]
    lsl ebx, [selector]
    int 0x30
back:
    nop
    bits 64
handler:
    END
selector:
    dw 7
    align 16
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xa
    desc 0, 0xfffff, 0x93, 0xc
    dq 0
    desc 0, 0xfffff, 0xf3, 0xc
    desc ADDR(tss), 0x67, 0x89, 0
    dq 0xffffff80
    desc 0, 0xfffff, 0xfb, 0xc
    desc ADDR(ldt), 0x7, 0x82, 0
    dq 0xffffff80
gdtr:
    dw gdtr - gdt - 1
    dq 0xffffff8000000000 + ADDR(gdt)
ldt:
    desc 0x120000, 0xffff, 0xf3, 0x4
idtr:
    dw 0x3ff
    dq 0xffffff8000000000 + ADDR(idt)
tss:
    dd 0
    dq 0xffffff8000100000
    times 92 db 0
    align 16
idt:
    times 0x30 * 16 db 0
    gate64 handler, 8, 0xee, 0
    times 0x0f * 16 db 0
