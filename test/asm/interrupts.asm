; Interrupts and exceptions through the IDT (SDM 3A, 6.12 to 6.15).
%include "tables.inc"

; Tables of a 64-bit system: selectors 8 and 10 are the kernel's, 1B and 23 the user's, 28 the TSS. `SETUP` loads them.
; TABLES64 vector, target, type byte, interrupt stack
%macro TABLES64 4-8 0x1f, unwanted, 0x8e, 0
    align 16
gdt:
    dq 0
    desc 0, 0xfffff, 0x9b, 0xa
    desc 0, 0xfffff, 0x93, 0xc
    desc 0, 0xfffff, 0xf3, 0xc
    desc 0, 0xfffff, 0xfb, 0xa
    desc ADDR(tss), 0x67, 0x89, 0
    dq 0
gdtr:
    dw gdtr - gdt - 1
    dq gdt
idtr:
    dw 0x3ff
    dq idt
tss:
    dd 0
    dq 0x70000, 0, 0, 0
    dq 0x71000, 0, 0, 0, 0, 0, 0
    dq 0
    dw 0, 0x68
    align 16
idt:
    times %1 * 16 db 0
    gate64 %2, 8, %3, %4
    times (%5 - %1 - 1) * 16 db 0
    gate64 %6, 8, %7, %8
    times (0x40 - %5 - 1) * 16 db 0
unwanted:
    mov r15, -1
    hlt
%endmacro

; Tables of a 32-bit system: 8 and 10 the kernel's, 1B the user's code, 23 its data, 28 the TSS, 30 a 16-bit code segment.
%macro TABLES32 3
    SEGMENTS32 0x67
    desc 0, 0xffff, 0x9b, 0
    POINTERS32
tss:
    STACK32
    dw 0, 0x68
    align 16
idt:
    times %1 * 8 db 0
    gate32 %2, 8, %3
    times (0x40 - %1 - 1) * 8 db 0
%endmacro

;; long mode: INT aligns the stack and pushes five words
; { "mode": 64, "deliver": true, "flags": "IF CF", "regs": { "rsp": "0x7fff9" },
;   "expect": { "regs": { "rsp": "0x7ffc8", "cs": 8, "rax": "0x2" },
;     "q": { "0x7ffc8": "back", "0x7ffd0": 8, "0x7ffd8": "0x203", "0x7ffe0": "0x7fff9", "0x7ffe8": "0x10" } } }
    SETUP
    stc
    int 0x30
back:
    nop
handler:
    pushf
    pop rax
    and eax, 0x202
    END
    TABLES64 0x30, handler, 0x8e, 0, 0x31, unwanted, 0x8e, 0

;; long mode: a trap gate keeps IF
; { "mode": 64, "deliver": true, "flags": "IF", "expect": { "regs": { "rax": "0x202" } } }
    SETUP
    int 0x30
handler:
    pushf
    pop rax
    END
    TABLES64 0x30, handler, 0x8f, 0, 0x31, unwanted, 0x8e, 0

;; long mode: a fault pushes its error code and RF
; { "mode": 64, "deliver": true, "expect": { "q": { "0x7ffd0": "0x98", "0x7ffd8": "fault", "0x7ffe8": "0x10002" }, "regs": { "rsp": "0x7ffd0" } } }
    SETUP
    mov eax, 0x9b
    push rax
    popf
    push 2
    popf
    mov eax, 0x9b
fault:
    mov ds, ax
    nop
handler:
    END
    TABLES64 13, handler, 0x8e, 0

;; long mode: IRETQ to the user and INT back, by RSP0
; { "mode": 64, "deliver": true,
;   "expect": { "regs": { "rsp": "0x6ffd8", "cs": 8, "ss": 0, "cpl": 0, "rbx": "0x23" }, "q": { "0x6ffd8": "back", "0x6ffe0": "0x23", "0x6ffe8": 2, "0x6fff0": "0x60000", "0x6fff8": "0x1b" } } }
    SETUP
    push 0x1b
    push 0x60000
    push 2
    push 0x23
    mov eax, user
    push rax
    iretq
user:
    mov ebx, cs
    int 0x30
back:
    nop
handler:
    END
    TABLES64 0x30, handler, 0xee, 0, 0x31, unwanted, 0x8e, 0

;; long mode: an interrupt stack
; { "mode": 64, "deliver": true, "expect": { "regs": { "rsp": "0x70fd8" }, "q": { "0x70ff0": "0x80000" } } }
    SETUP
    int 0x30
handler:
    END
    TABLES64 0x30, handler, 0x8e, 1, 0x31, unwanted, 0x8e, 0

;; long mode: the user may not use a gate of DPL 0
; { "mode": 64, "deliver": true, "expect": { "q": { "0x6ffd0": "0x182", "0x6ffd8": "fault" } } }
    SETUP
    push 0x1b
    push 0x60000
    push 2
    push 0x23
    mov eax, fault
    push rax
    iretq
fault:
    int 0x30
    nop
handler:
    END
    TABLES64 13, handler, 0x8e, 0, 0x30, unwanted, 0x8e, 0

;; long mode: #PF of the user, with CR2
; { "mode": 64, "deliver": true, "q": { "0x3010": "0x400083" },
;   "expect": { "q": { "0x6ffd0": 7, "0x6ffd8": "fault" }, "regs": { "cr2": "0x4000f8" } } }
    SETUP
    push 0x1b
    push 0x60000
    push 2
    push 0x23
    mov eax, fault
    push rax
    iretq
fault:
    mov [0x4000f8], eax
handler:
    END
    TABLES64 14, handler, 0x8e, 0

;; long mode: a gate that is not present makes #DF of #GP
; { "mode": 64, "deliver": true, "expect": { "q": { "0x7ffd0": 0, "0x7ffd8": "fault" } } }
    SETUP
    mov eax, 0x9b
fault:
    mov ds, ax
    nop
handler:
    END
    TABLES64 8, handler, 0x8e, 0, 13, unwanted, 0x0e, 0

;; long mode: no gate for #UD is #GP with its number and EXT
; { "mode": 64, "deliver": true, "expect": { "q": { "0x7ffd0": "0x33", "0x7ffd8": "fault" } } }
    SETUP
fault:
    ud2
handler:
    END
    TABLES64 13, handler, 0x8e, 0

;; long mode: without any table it is a triple fault
; { "mode": 64, "deliver": true, "expect": { "triple": true } }
    lidt [idtr]
    ud2
idtr:
    dw 0
    dq 0

;; long mode: IRETQ restores flags and stack at the same level
; { "mode": 64, "deliver": true, "expect": { "regs": { "rsp": "0x12348", "ss": "0x10" }, "flags": "CF ZF" } }
    SETUP
    push 0x10
    push 0x12348
    push 0x43
    push 8
    mov eax, there
    push rax
    iretq
there:
    END
    TABLES64 13, unwanted, 0x8e, 0

;; long mode: IRETQ to a non-canonical address is #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    SETUP
    push 0x10
    push 0x12340
    push 2
    push 8
    mov rax, 0x800000000000
    push rax
fault:
    iretq
    TABLES64 13, unwanted, 0x8e, 0

;; 32 bits: INT at the same level
; { "mode": 32, "deliver": true, "flags": "IF", "expect": { "d": { "0x7fffc": "0x202", "0x7fff8": 8, "0x7fff4": "back" }, "regs": { "rsp": "0x7fff4", "rflags": 2 } } }
    SETUP
    int 0x30
back:
    nop
handler:
    END
    TABLES32 0x30, handler, 0x8e

;; 32 bits: to the user and back, with ESP0 and SS0
; { "mode": 32, "deliver": true, "expect": { "d": { "0x6fffc": "0x23", "0x6fff8": "0x60000", "0x6fff4": "0x10002", "0x6fff0": "0x1b", "0x6ffec": "fault", "0x6ffe8": 0 }, "regs": { "rsp": "0x6ffe8", "ss": "0x10", "cpl": 0 } } }
    SETUP
    push 0x23
    push 0x60000
    push 2
    push 0x1b
    push user
    iretd
user:
    mov ax, 0x23
    mov ds, ax
fault:
    hlt
    nop
handler:
    END
    TABLES32 13, handler, 0x8e

;; 32 bits: returning to the user drops the kernel's data segments
; { "mode": 32, "deliver": true, "expect": { "regs": { "ds": 0, "rax": 0, "rbx": 8 } } }
    SETUP
    mov ax, 0x10
    mov ds, ax
    push 0x23
    push 0x60000
    push 2
    push 0x1b
    push user
    iretd
user:
    mov eax, ds
    hlt
handler:
    mov ebx, cs
    END
    TABLES32 13, handler, 0x8e

;; 32 bits: through a 16-bit gate
; { "mode": 32, "org": "0x9000", "deliver": true, "expect": { "w": { "0x7fffe": 2, "0x7fffc": 8, "0x7fffa": "back" }, "regs": { "rsp": "0x7fffa" } } }
    SETUP
    int 0x30
back:
    nop
handler:
    END
    TABLES32 0x30, handler, 0x86

;; 32 bits: #NP of a gate has the index of its vector
; { "mode": 32, "expect": { "exception": "#NP 0x182", "at": "fault" } }
    SETUP
fault:
    int 0x30
handler:
    END
    TABLES32 0x30, handler, 0x0e

;; 32 bits: a vector beyond the table
; { "mode": 32, "expect": { "exception": "#GP 0x242", "at": "fault" } }
    SETUP
fault:
    int 0x48
handler:
    END
    TABLES32 0x30, handler, 0x8e

;; 32 bits: a call gate to the kernel with two parameters
; { "mode": 32, "deliver": true, "expect": { "d": { "0x6fffc": "0x23", "0x6fff8": "0x5fff8", "0x6fff4": "0x1111", "0x6fff0": "0x2222", "0x6ffec": "0x1b", "0x6ffe8": "back" }, "regs": { "rsp": "0x6ffe8", "cs": 8 } } }
    SETUP
    mov dword [gdt + 0x30], (ADDR(handler) & 0xffff) | (8 << 16)
    mov dword [gdt + 0x34], (ADDR(handler) & 0xffff0000) | 0xec02
    push 0x23
    push 0x60000
    push 2
    push 0x1b
    push user
    iretd
user:
    push 0x1111
    push 0x2222
    call 0x33:0
back:
    nop
handler:
    END
    TABLES32 0x30, handler, 0x8e

;; single step: #DB after the next instruction, with BS in DR6
; { "mode": 64, "deliver": true, "expect": { "regs": { "rax": 1, "rbx": 0, "rcx": "0xffff4ff0" }, "q": { "0x7ffd8": "second" } } }
    SETUP
    xor eax, eax
    push 0x102
    popf
    inc eax
second:
    inc ebx
handler:
    mov rcx, dr6
    END
    TABLES64 1, handler, 0x8e, 0

;; single step: the handler runs at full speed, IRET goes on stepping, the POPF that ends it is stepped too
; { "mode": 64, "deliver": true,
;   "expect": { "regs": { "rax": 3, "rbx": 5, "rdx": "0x4000" } } }
    SETUP
    xor eax, eax
    push 0x102
    popf
    inc eax
    inc eax
    inc eax
    push 2
    popf
    END
handler:
    inc ebx
    mov rdx, dr6
    and edx, 0x4000
    iretq
    TABLES64 1, handler, 0x8e, 0

;; single step: not between MOV SS and what follows
; { "mode": 32, "deliver": true, "expect": { "regs": { "rax": 7 }, "d": { "0x7fff4": "after" } } }
    SETUP
    mov bx, 0x10
    push 0x102
    popfd
    mov ss, bx
    mov eax, 7
after:
    mov eax, 8
handler:
    END
    TABLES32 1, handler, 0x8e

;; INT3 from the user needs a gate of DPL 3
; { "mode": 64, "deliver": true, "expect": { "q": { "0x6ffd8": "back" }, "regs": { "rsp": "0x6ffd8" } } }
    SETUP
    push 0x1b
    push 0x60000
    push 2
    push 0x23
    mov eax, user
    push rax
    iretq
user:
    int3
back:
    nop
handler:
    END
    TABLES64 3, handler, 0xee, 0

;; breakpoints: an instruction breakpoint is a fault before it, with its bit in DR6; RF lets it pass
; { "mode": 64, "deliver": true, "expect": { "regs": { "rax": 1, "rbx": 1, "rcx": "0xffff0ff4", "rdx": "there" } } }
    SETUP
    xor eax, eax
    mov ecx, there
    mov dr2, rcx
    mov ecx, 0x420
    mov dr7, rcx
    nop
there:
    inc eax
    END
handler:
    inc ebx
    mov rcx, dr6
    mov rdx, [rsp]
    or qword [rsp + 16], 0x10000
    iretq
    TABLES64 1, handler, 0x8e, 0

;; breakpoints: a write to watched bytes traps after it, a read does not, nor do bytes beside them
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 1, "rcx": "0xffff0ff1", "rdx": "after" }, "d": { "0x3fff0": "0x12345678" } } }
    SETUP
    mov ecx, 0x3fff0
    mov dr0, rcx
    mov ecx, 0xd0402
    mov dr7, rcx
    mov edi, 0x3fff0
    mov eax, [rdi]
    mov [rdi - 4], eax
    mov [rdi + 4], eax
    mov dword [rdi], 0x12345678
after:
    mov eax, [rdi]
    END
handler:
    inc ebx
    mov rcx, dr6
    mov rdx, [rsp]
    iretq
    TABLES64 1, handler, 0x8e, 0

;; breakpoints: reads and writes; PUSH and string instructions count, each element of them
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 4, "rcx": 0, "r8": "0xffff0ff2" } } }
    SETUP
    mov ecx, 0x3fff0
    mov dr1, rcx
    mov ecx, 0xf00408
    mov dr7, rcx
    mov eax, [0x3fff0]
    mov rax, rsp
    mov rsp, 0x3fff8
    push rbx
    mov rsp, rax
    mov edi, 0x3ffee
    mov ecx, 8
    rep stosw
    END
handler:
    inc ebx
    mov r8, dr6
    iretq
    TABLES64 1, handler, 0x8e, 0

;; breakpoints: one on what MOV SS reads waits for the next instruction, whose single step comes with it
; { "mode": 32, "deliver": true, "expect": { "regs": { "rax": 7, "rcx": "0xffff0ff1" }, "d": { "0x7fff4": "after" } } }
    SETUP
    mov word [0x3fff0], 0x10
    mov ecx, 0x3fff0
    mov dr0, ecx
    mov ecx, 0x70402
    mov dr7, ecx
    mov ss, [0x3fff0]
    mov eax, 7
after:
    mov eax, 8
handler:
    mov ecx, dr6
    END
    TABLES32 1, handler, 0x8e

;; breakpoints: a port, with CR4.DE
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 1, "rcx": "0xffff0ff8", "rdx": "after" } } }
    SETUP
    mov rcx, cr4
    or ecx, 8
    mov cr4, rcx
    mov ecx, 0x80
    mov dr3, rcx
    mov ecx, 0x200004c0
    mov dr7, rcx
    out 0x84, al
    out 0x80, al
after:
    nop
    END
handler:
    inc ebx
    mov rcx, dr6
    mov rdx, [rsp]
    iretq
    TABLES64 1, handler, 0x8e, 0

;; breakpoints: a loop is stopped each time round, however hot
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 100, "rax": 5050 } } }
    SETUP
    mov ecx, there
    mov dr0, rcx
    mov ecx, 0x401
    mov dr7, rcx
    mov ecx, 100
    xor eax, eax
again:
    add eax, ecx
there:
    dec ecx
    jnz again
    END
handler:
    inc ebx
    or qword [rsp + 16], 0x10000
    iretq
    TABLES64 1, handler, 0x8e, 0

;; DR7.GD: MOV DR is a #DB with BD, and GD goes
; { "mode": 64, "deliver": true, "expect": { "regs": { "rcx": "0xffff2ff0", "dr7": "0x400" }, "q": { "0x7ffd8": "fault" } } }
    SETUP
    mov ecx, 0x2400
    mov dr7, rcx
fault:
    mov rax, dr0
    END
handler:
    mov rcx, dr6
    END
    TABLES64 1, handler, 0x8e, 0

;; single step with BTF: only branches trap
; { "mode": 64, "deliver": true, "expect": { "q": { "0x7ffd8": "target" }, "regs": { "rax": 2 } } }
    SETUP
    mov ecx, 0x1d9
    mov eax, 2
    xor edx, edx
    wrmsr
    xor eax, eax
    push 0x102
    popf
    inc eax
    inc eax
    jmp target
    inc eax
target:
    inc eax
handler:
    END
    TABLES64 1, handler, 0x8e, 0

;; single step: INT is not stepped, its handler neither
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 1, "rcx": 1 }, "q": { "0x60000": "second" } } }
    SETUP
    push 0x102
    popf
    int 0x30
    nop
second:
    END
handler:
    inc ebx
    mov rdx, [rsp]
    mov [0x60000], rdx
    and qword [rsp + 16], ~0x100
    iretq
soft:
    inc ecx
    iretq
    TABLES64 1, handler, 0x8e, 0, 0x30, soft, 0x8e, 0

;; single step: SYSRET that sets TF traps at its target, SYSCALL by the mask does not
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 1 }, "q": { "0x60000": "user" } } }
    SETUP
    mov ecx, 0xc0000081
    xor eax, eax
    mov edx, 0x00130008
    wrmsr
    mov ecx, user
    mov r11d, 0x102
    o64 sysret
user:
    nop
    hlt
handler:
    inc ebx
    mov rdx, [rsp]
    mov [0x60000], rdx
    END
    TABLES64 1, handler, 0x8e, 0

;; breakpoints: INT1 after MOV SS brings what MOV SS touched along, in one #DB
; { "mode": 64, "deliver": true, "expect": { "regs": { "rbx": 1, "rcx": "0xffff0ff1" } } }
    SETUP
    mov word [0x3fff0], 0x10
    mov ecx, 0x3fff0
    mov dr0, rcx
    mov ecx, 0xf0402
    mov dr7, rcx
    mov ss, [0x3fff0]
    db 0xf1
    END
handler:
    inc ebx
    mov rcx, dr6
    iretq
    TABLES64 1, handler, 0x8e, 0

;; long mode: a data segment that IRET takes away keeps its base
; { "mode": 64, "deliver": true, "q": { "0x3010": "0x400087", "0x412340": "0x1122334455667788" }, "expect": { "regs": { "rbx": "0x1122334455667788", "gs": 0 } } }
    SETUP
    mov ax, 0x10
    mov gs, ax
    mov ecx, 0xc0000101
    mov eax, 0x400000
    xor edx, edx
    wrmsr
    push 0x1b
    push 0x60000
    push 2
    push 0x23
    mov eax, user
    push rax
    iretq
user:
    mov eax, 0x12340
    mov rbx, [gs:rax]
    hlt
handler:
    END
    TABLES64 13, handler, 0x8e, 0

;; moves to and from debug registers take any mod for a register
; { "mode": 64, "expect": { "regs": { "rbx": "0x1234" } } }
    mov eax, 0x1234
    mov dr0, rax
    db 0x0f, 0x21, 0x03
    END

;; a task whose TSS has the T bit: #DB before its first instruction, with BT in DR6
; { "mode": 32, "deliver": true, "expect": { "regs": { "rbx": 0, "rax": "0xffff8ff0", "rdx": "there" } } }
    SETUP
    mov dword [gdt + 0x30], ((ADDR(other) & 0xffff) << 16) | 0x67
    mov dword [gdt + 0x34], (ADDR(other) >> 16) | 0x8900
    xor ebx, ebx
    jmp 0x30:0
there:
    inc ebx
handler:
    mov eax, dr6
    mov edx, [esp]
    END
    align 4
other:
    times 8 dd 0
    dd there, 2
    times 4 dd 0
    dd 0x60000
    times 3 dd 0
    dd 0x10, 8, 0x10, 0x10, 0x10, 0x10, 0
    dw 1, 0x68
    TABLES32 1, handler, 0x8e

;; a task with a data segment of the kernel's privilege for code of the user: #TS of the selector
; { "mode": 32, "deliver": true, "expect": { "d": { "0x6fffc": "0x23" }, "regs": { "rax": "0x10" } } }
    SETUP
    mov dword [gdt + 0x30], ((ADDR(other) & 0xffff) << 16) | 0x67
    mov dword [gdt + 0x34], (ADDR(other) >> 16) | 0x8900
    jmp 0x30:0
there:
    hlt
handler:
    pop eax
    END
    align 4
other:
    dd 0, 0x70000, 0x10, 0, 0, 0, 0, 0
    dd there, 2
    times 4 dd 0
    dd 0x60000
    times 3 dd 0
    dd 0x23, 0x1b, 0x23, 0x10, 0x23, 0x23, 0
    dw 0, 0x68
    TABLES32 10, handler, 0x8e
