; Virtual-8086 mode and the virtual interrupt flag (SDM 3B, chapter 21).
%include "tables.inc"

; ENTER86 eflags, cr4: to `program` in virtual-8086 mode, with segments 0 and the stack at 0x7000.
%macro ENTER86 2
    SETUP
    mov eax, %2
    mov cr4, eax
    mov word [0x31 * 4], ADDR(handler86)
    mov word [0x31 * 4 + 2], 0
    push 0
    push 0
    push 0
    push 0
    push 0
    push 0x7000
    push %1 | 0x20002
    push 0
    push ADDR(program)
    iretd
    bits 16
%endmacro
; TABLES redirect: the byte of the redirection bitmap for vectors 30 to 37; the IDT has 30 to 32 at `monitor`.
%macro TABLES 1
    bits 32
    SEGMENTS32 tss_end - tss - 1
    POINTERS32
tss:
    STACK32
    dw 0, tss_io - tss
    times 6 db 0
    db %1
    times 25 db 0
tss_io:
    db 0xff
tss_end:
    align 16
idt:
    times 0x30 * 8 db 0
    times 3 dw ADDR(monitor) & 0xffff, 8, 0xee00, (ADDR(monitor) >> 16) & 0xffff
    times 0x0d * 8 db 0
%endmacro

;; without VME, CLI needs IOPL 3
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0, 0
program:
fault:
    cli
handler86:
monitor:
    TABLES 0

;; without VME, PUSHF needs IOPL 3
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0x2000, 0
program:
fault:
    pushf
handler86:
monitor:
    TABLES 0

;; IOPL 3: the true flag
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "done", "regs": { "rax": "0x3046", "rflags": "0x23246" } } }
    ENTER86 0x3200, 1
program:
    xor eax, eax
    cli
    pushf
    pop ax
    sti
done:
    hlt
handler86:
monitor:
    TABLES 0

;; VME: STI, CLI and PUSHF use VIF, and IOPL looks like 3
; { "mode": 32, "org": "0x9000",
;   "expect": { "exception": "#GP", "at": "done", "regs": { "rbx": "0x3046", "rax": "0x3246", "rcx": "0x3046", "rdx": 1, "rflags": "0x20202" } } }
    ENTER86 0x200, 1
program:
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    pushf
    pop bx
    sti
    pushf
    pop ax
    cli
    pushf
    pop cx
    or dl, 1
    xor edx, edx
    inc dx
    and dx, dx
done:
    hlt
handler86:
monitor:
    TABLES 0

;; VME: STI sets VIF and leaves IF
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "done", "regs": { "rflags": "0xa0002" } } }
    ENTER86 0, 1
program:
    sti
done:
    hlt
handler86:
monitor:
    TABLES 0

;; VME: STI while an interrupt is pending
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0x100000, 1
program:
    cli
fault:
    sti
handler86:
monitor:
    TABLES 0

;; VME: POPF loads VIF, and neither IF nor IOPL
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "done", "flags": "CF", "regs": { "rflags": "0xa1003", "rsp": "0x7000" } } }
    ENTER86 0x1000, 1
program:
    push 0x3203
    popf
done:
    hlt
handler86:
monitor:
    TABLES 0

;; VME: POPF of TF is the monitor's
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault", "regs": { "rsp": "0x6ffe" } } }
    ENTER86 0, 1
program:
    push 0x100
fault:
    popf
handler86:
monitor:
    TABLES 0

;; VME: POPF of IF while an interrupt is pending
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0x100000, 1
program:
    push 2
    popf
    push 0x202
fault:
    popf
handler86:
monitor:
    TABLES 0

;; VME: POPFD is the monitor's
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0, 1
program:
    push dword 2
fault:
    popfd
handler86:
monitor:
    TABLES 0

;; VME: INT goes to the program's own table where the bitmap says so, and IRET comes back
; { "mode": 32, "org": "0x9000",
;   "expect": { "exception": "#GP", "at": "done", "w": { "0x6ffe": "0x3247", "0x6ffc": 0, "0x6ffa": "back" },
;     "regs": { "rflags": "0xa0047", "rax": "0x3002", "rsp": "0x7000" } } }
    ENTER86 0x80000, 1
program:
    xor eax, eax
    stc
    int 0x31
back:
done:
    hlt
handler86:
    inc ax
    dec ax
    clc
    pushf
    pop ax
    and ax, 0x3202
    iret
monitor:
    TABLES 0xfd

;; VME with IOPL 3: INT to the program's own table clears the true IF
; { "mode": 32, "org": "0x9000",
;   "expect": { "exception": "#GP", "at": "done", "w": { "0x6ffe": "0x3202" }, "regs": { "rflags": "0x23002", "rsp": "0x6ffa" } } }
    ENTER86 0x3200, 1
program:
    int 0x31
handler86:
done:
    hlt
monitor:
    TABLES 0xfd

;; VME with IOPL 0: INT to the monitor is #GP
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "fault" } }
    ENTER86 0, 1
program:
fault:
    int 0x31
handler86:
monitor:
    TABLES 0x02

;; VME with IOPL 3: INT to the monitor goes through the IDT
; { "mode": 32, "org": "0x9000", "deliver": true,
;   "expect": { "d": { "0x6ffec": 0, "0x6ffe8": "0x7000", "0x6ffe4": "0x23202", "0x6ffe0": 0, "0x6ffdc": "back" }, "regs": { "rsp": "0x6ffd8", "cs": 8, "cpl": 0 } } }
    ENTER86 0x3200, 1
program:
    int 0x31
back:
    hlt
handler86:
    bits 32
monitor:
    push eax
    END
    TABLES 0x02

;; INT3 does not ask for IOPL
; { "mode": 32, "org": "0x9000", "deliver": true, "expect": { "d": { "0x6ffe4": "0x20002" }, "regs": { "rsp": "0x6ffdc", "cs": 8 } } }
    mov word [idt + 3 * 8], ADDR(monitor)
    mov dword [idt + 3 * 8 + 2], 0xee000008
    ENTER86 0, 0
program:
    int3
handler86:
    bits 32
monitor:
    END
    TABLES 0

;; PVI: CLI and STI of the user use VIF
; { "mode": 32, "cpl": 3, "flags": "IF VIF", "regs": { "cr4": 2 }, "expect": { "regs": { "rax": "0x202", "rbx": "0x80202" } } }
    cli
    pushf
    pop eax
    sti
    pushf
    pop ebx
    END

;; PVI: STI while an interrupt is pending
; { "mode": 32, "cpl": 3, "flags": "IF VIP", "regs": { "cr4": 2 }, "expect": { "exception": "#GP", "at": "fault" } }
    cli
fault:
    sti

;; PVI: in 64-bit code too
; { "mode": 64, "cpl": 3, "flags": "IF VIF", "regs": { "cr4": "0x22" }, "expect": { "regs": { "rax": "0x202" } } }
    cli
    pushf
    pop rax
    END
