; System management mode (SDM 3C, chapter 32): the port 0xb2 of these machines raises an SMI. Handlers lie at SMBASE + 0x8000.

;; RSM outside is #UD
; { "mode": 64, "expect": { "exception": "#UD" } }
    rsm

;; from 64-bit mode and back: registers, flags, segments, control registers
; { "mode": 64, "flags": "IF CF", "regs": { "rbx": "0x1122334455667788", "r15": "0x8877665544332211" },
;   "expect": { "regs": { "rbx": "0x1122334455667788", "r15": "0x8877665544332211", "cr0": "0x80010031", "cr3": "0x1000", "efer": "0xd01", "rsi": "0x5aa5", "cs": 8, "cpl": 0, "rsp": "0x80000", "rflags": "0x203" },
;     "d": { "0x3fefc": "0x20064", "0x3ff00": "0x30000", "0x500": "0x10030", "0x504": "0x2" }, "q": { "0x3ff78": "back", "0x3ffb8": 0, "0x3ff80": "0x8877665544332211" } } }
    mov ecx, handler_end - handler
    mov esi, handler
    mov edi, 0x38000
    rep movsb
    stc
    out 0xb2, al
back:
    mov esi, [0x508]
    END
    bits 16
handler:
    mov eax, cr0
    mov [0x500], eax
    pushfd
    pop dword [0x504]
    mov eax, cs
    mov dword [0x508], 0x5aa5
    mov ebx, 0
    cmp ebx, 1
    rsm
handler_end:

;; SMBASE moves, and the next SMI goes there
; { "mode": 32, "expect": { "regs": { "rax": "0x100" }, "d": { "0x600": 1, "0x604": "0xa000", "0x608": "0xa0000" } } }
    mov ecx, first_end - first
    mov esi, first
    mov edi, 0x38000
    rep movsb
    mov ecx, second_end - second
    mov esi, second
    mov edi, 0xa8000
    rep movsb
    out 0xb2, al
    mov eax, 0x100
    out 0xb2, al
    END
    bits 16
first:
    mov dword [cs:0xff00], 0xa0000
    mov dword [0x600], 1
    rsm
first_end:
second:
    mov eax, cs
    mov [0x604], eax
    mov eax, [cs:0xff00]
    mov [0x608], eax
    rsm
second_end:

;; an SMI inside waits for RSM
; { "mode": 32, "expect": { "d": { "0x600": 2 } } }
    mov ecx, handler_end - handler
    mov esi, handler
    mov edi, 0x38000
    rep movsb
    mov dword [0x600], 0
    out 0xb2, al
    nop
    END
    bits 16
handler:
    inc dword [0x600]
    cmp dword [0x600], 2
    je done
    out 0xb2, al
    nop
    nop
    cmp dword [0x600], 1
    jne bad
done:
    rsm
bad:
    mov dword [0x600], 0x100
    rsm
handler_end:

;; in a program of virtual-8086 mode with the port open: the mode is there again
; { "mode": 32, "org": "0x9000", "expect": { "exception": "#GP", "at": "done", "regs": { "rflags": "0x23002", "cpl": 3, "cs": 0 } } }
    mov ecx, 2
    mov esi, handler
    mov edi, 0x38000
    rep movsb
    push 0
    push 0
    push 0
    push 0
    push 0
    push 0x7000
    push 0x23002
    push 0
    push program
    iretd
    bits 16
program:
    out 0xb2, al
done:
    hlt
handler:
    rsm
