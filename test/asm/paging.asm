; Paging: error codes, accessed and dirty bits, every format (SDM 3A, 4). Physical 3000 holds the page directory of the
; long mode that cases start in: entry n (at 3000 + 8n) maps 2 MiB at n * 2 MiB.

;; a page that is not present: supervisor read
; { "mode": 64, "q": { "0x3010": 0 }, "expect": { "exception": "#PF 0", "at": "fault", "regs": { "cr2": "0x412345" } } }
fault:
    mov al, [0x412345]
    END

;; a page that is not present: user write
; { "mode": 64, "cpl": 3, "q": { "0x3010": 0 }, "expect": { "exception": "#PF 6", "at": "fault" } }
fault:
    mov [0x400000], al
    END

;; a page that is not present: fetch, with NX enabled
; { "mode": 64, "q": { "0x3010": 0 }, "expect": { "exception": "#PF 0x10", "regs": { "cr2": "0x400010" } } }
    mov eax, 0x400010
    jmp rax

;; a supervisor page read by the user
; { "mode": 64, "cpl": 3, "q": { "0x3010": "0x400083" }, "expect": { "exception": "#PF 5" } }
    mov al, [0x400000]
    END

;; a read-only page written by the supervisor with WP
; { "mode": 64, "q": { "0x3010": "0x400081" }, "expect": { "exception": "#PF 3" } }
    mov [0x400000], al
    END

;; and without WP
; { "mode": 64, "regs": { "cr0": "0x80000031", "rax": 5 }, "q": { "0x3010": "0x400081" }, "expect": { "b": { "0x400000": 5 }, "q": { "0x3010": "0x4000e1" } } }
    mov [0x400000], al
    END

;; the user cannot write where WP is clear either
; { "mode": 64, "cpl": 3, "regs": { "cr0": "0x80000031" }, "q": { "0x3010": "0x400085" }, "expect": { "exception": "#PF 7" } }
    mov [0x400000], al
    END

;; permissions are of all levels together
; { "mode": 64, "cpl": 3, "q": { "0x1000": "0x2005" }, "expect": { "exception": "#PF 7" } }
    mov [0x400000], al
    END

;; a page that must not be executed
; { "mode": 64, "q": { "0x3010": "0x8000000000400087" }, "expect": { "exception": "#PF 0x11", "regs": { "cr2": "0x400000", "rbx": 1 } } }
    mov al, [0x400000]
    inc ebx
    mov eax, 0x400000
    jmp rax

;; bit 63 without NXE is reserved
; { "mode": 64, "regs": { "efer": "0x501" }, "q": { "0x3010": "0x8000000000400087" }, "expect": { "exception": "#PF 9" } }
    mov al, [0x400000]
    END

;; a reserved bit in a large page's address
; { "mode": 64, "cpl": 3, "q": { "0x3010": "0x402087" }, "expect": { "exception": "#PF 0xf" } }
    mov [0x400000], al
    END

;; an address beyond the processor's width is reserved
; { "mode": 64, "q": { "0x3010": "0x8000000400087" }, "expect": { "exception": "#PF 9" } }
    mov al, [0x400000]
    END

;; SMEP: the supervisor does not execute the user's pages
; { "mode": 64, "regs": { "cr4": "0x100620" }, "q": { "0x3000": "0x83" }, "expect": { "exception": "#PF 0x11", "regs": { "cr2": "0x400000" } } }
    mov eax, 0x400000
    jmp rax

;; SMAP: nor does it read them
; { "mode": 64, "regs": { "cr4": "0x200620" }, "q": { "0x3000": "0x83" }, "expect": { "exception": "#PF 1" } }
    mov al, [0x400000]
    END

;; SMAP: but with AC it does
; { "mode": 64, "regs": { "cr4": "0x200620" }, "q": { "0x3000": "0x83" }, "b": { "0x400000": 5 }, "expect": { "exception": "#PF 3", "at": "fault", "regs": { "rax": 5 } } }
    stac
    mov al, [0x400000]
    clac
fault:
    mov [0x400000], al
    END

;; SMAP: a reading that the TLB knows from AC faults without it
; { "mode": 64, "regs": { "cr4": "0x200620" }, "q": { "0x3000": "0x83" }, "expect": { "exception": "#PF 1", "at": "fault" } }
    push 0x40002
    popf
    mov al, [0x400000]
    push 2
    popf
fault:
    mov al, [0x400008]
    END

;; a read sets accessed on the way, no dirty bit
; { "mode": 64, "expect": { "q": { "0x1000": "0x2027", "0x2000": "0x3027", "0x3010": "0x4000a7", "0x3018": "0x600087" } } }
    mov al, [0x400000]
    END

;; a write sets dirty, after a read too
; { "mode": 64, "expect": { "q": { "0x3010": "0x4000e7" } } }
    mov al, [0x400000]
    mov [0x400000], al
    END

;; a write that faults sets no dirty bit
; { "mode": 64, "q": { "0x3010": "0x400081" }, "expect": { "exception": "#PF 3", "q": { "0x3010": "0x400081" } } }
    mov [0x400000], al
    END

;; CMP with memory does not set dirty
; { "mode": 64, "expect": { "q": { "0x3010": "0x4000a7" } } }
    cmp [0x400000], al
    END

;; a write across two pages of which the second is missing writes nothing
; { "mode": 64, "regs": { "rax": -1 }, "q": { "0x3018": 0 }, "expect": { "exception": "#PF 2", "regs": { "cr2": "0x600000" }, "q": { "0x5ffff8": 0 } } }
    mov [0x5ffffc], rax
    END

;; a push that faults leaves rSP
; { "mode": 64, "regs": { "rsp": "0x600000" }, "q": { "0x3010": 0 }, "expect": { "exception": "#PF 2", "regs": { "rsp": "0x600000", "cr2": "0x5ffff8" } } }
    push rax
    END

;; INVLPG makes a changed entry seen
; { "mode": 64, "b": { "0x400000": 1, "0x600000": 2 }, "expect": { "regs": { "rax": 1, "rbx": 2 } } }
    mov al, [0x400000]
    mov dword [0x3010], 0x600087
    invlpg [0x400000]
    mov bl, [0x400000]
    END

;; a write to CR3 does it for all pages but global ones
; { "mode": 64, "regs": { "cr4": "0x6a0" }, "b": { "0x400000": 1, "0x600000": 2 }, "expect": { "regs": { "rbx": 2 } } }
    mov al, [0x400000]
    mov dword [0x3010], 0x600087
    mov rcx, cr3
    mov cr3, rcx
    mov bl, [0x400000]
    END

;; 4 KiB pages below a large one
; { "mode": 64, "q": { "0x3010": "0x5007", "0x5000": "0x700007", "0x5008": "0x701005" }, "w": { "0x700ffe": 0, "0x701000": "0x1234" },
;   "expect": { "exception": "#PF 3", "at": "fault", "regs": { "rax": "0x12340000", "cr2": "0x401000" }, "q": { "0x3010": "0x5027", "0x5008": "0x701025" } } }
    mov eax, [0x400ffe]
fault:
    mov [0x400ffe], eax
    END

;; a page of 1 GiB
; { "mode": 64, "q": { "0x2008": "0x87" }, "b": { "0x345678": "0x5a" }, "expect": { "regs": { "rax": "0x5a" }, "q": { "0x2008": "0xa7" } } }
    mov al, [dword 0x40345678]
    END

;; the upper half of the address space
; { "mode": 64, "q": { "0x1ff8": "0x2007" }, "b": { "0x200000": "0x5a" }, "regs": { "rbx": "0xffffff8000200000" }, "expect": { "regs": { "rax": "0x5a" } } }
    mov al, [rbx]
    END

;; 32-bit paging: 4 KiB pages, accessed and dirty
; { "mode": 32, "regs": { "cr3": "0x1000" }, "d": { "0x1000": "0x2007", "0x2400": "0x100007", "0x2200": "0x80007", "0x2004": "0x1007", "0x2008": "0x2007", "0x21fc": "0x7f007", "0x2010": "0x400007" }, "b": { "0x400123": "0x5a" },
;   "expect": { "exception": "#PF 2", "at": "fault", "regs": { "rax": "0x5a", "cr2": "0x5000" }, "d": { "0x1000": "0x2027", "0x2010": "0x400067" } } }
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    xor eax, eax
    mov al, [0x4123]
    mov [0x4124], al
fault:
    mov [0x5000], al
    END

;; 32-bit paging: 4 MiB pages with PSE
; { "mode": 32, "regs": { "cr3": "0x1000", "cr4": "0x610" }, "d": { "0x1000": "0x87", "0x1004": "0x87", "0x1008": "0x2000e7" },
;   "b": { "0x12345": "0x5a" }, "expect": { "exception": "#PF 9", "at": "fault", "regs": { "rax": "0x5a" }, "d": { "0x1004": "0xa7" } } }
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    xor eax, eax
    mov al, [0x412345]
fault:
    mov al, [0x800000]
    END

;; 32-bit paging: no NX, no bit for fetches
; { "mode": 32, "regs": { "cr3": "0x1000", "cr4": "0x610" }, "d": { "0x1000": "0x87" }, "expect": { "exception": "#PF 0", "regs": { "cr2": "0x400000" } } }
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov eax, 0x400000
    jmp eax

;; PAE: 2 MiB pages and NX
; { "mode": 32, "regs": { "cr3": "0x1020", "cr4": "0x620", "efer": "0x800" }, "q": { "0x1020": "0x2001", "0x2000": "0x87", "0x2008": "0x87", "0x2010": "0x8000000000000087" },
;   "b": { "0x12345": "0x5a" }, "expect": { "exception": "#PF 0x11", "regs": { "rbx": "0x5a", "cr2": "0x412345" }, "q": { "0x2008": "0xa7", "0x2010": "0x80000000000000a7" } } }
    mov eax, cr3
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    mov bl, [0x212345]
    mov bl, [0x412345]
    mov eax, 0x412345
    jmp eax

;; PAE: a pointer that is not present
; { "mode": 32, "regs": { "cr3": "0x1020", "cr4": "0x620" }, "q": { "0x1020": "0x2001", "0x2000": "0x87" },
;   "expect": { "exception": "#PF 0", "at": "fault", "regs": { "cr2": "0x40000000" } } }
    mov eax, cr3
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
fault:
    mov bl, [0x40000000]
    END

;; CR0.PG without PE is #GP
; { "mode": 16, "expect": { "exception": "#GP", "at": "fault" } }
    mov eax, 0x80000010
fault:
    mov cr0, eax
    END

;; reserved bits of CR4 are #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov rax, cr4
    bts eax, 31
fault:
    mov cr4, rax
    END

;; PAE may not be cleared in long mode
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov rax, cr4
    btr eax, 5
fault:
    mov cr4, rax
    END

;; LME may not change while paging is on
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
    mov ecx, 0xc0000080
    rdmsr
    btr eax, 8
fault:
    wrmsr
    END

;; INVLPG of one address of a 2 MiB page drops what is known of all of it
; { "mode": 64, "b": { "0x401000": 5, "0x601000": 6 }, "expect": { "regs": { "rax": 5, "rbx": 6 } } }
    movzx eax, byte [0x401000]
    mov qword [0x3010], 0x600087
    invlpg [0x400000]
    movzx ebx, byte [0x401000]
    END

;; PCIDs: a space that was not used yet shows the tables as they are, one that is flushed too
; { "mode": 64, "regs": { "cr4": "0x20620" }, "b": { "0x400000": 5, "0x600000": 6, "0x800000": 7 }, "expect": { "regs": { "rax": 5, "rbx": 6, "rcx": 7 } } }
    mov rdx, cr3
    inc rdx
    mov cr3, rdx
    movzx eax, byte [0x400000]
    mov qword [0x3010], 0x600087
    inc rdx
    mov cr3, rdx
    movzx ebx, byte [0x400000]
    mov qword [0x3010], 0x800087
    dec rdx
    mov cr3, rdx
    movzx ecx, byte [0x400000]
    xor edx, edx
    END

;; INVPCID drops another space's entries, which CR3 with bit 63 would have kept
; { "mode": 64, "regs": { "cr4": "0x20620" }, "b": { "0x400000": 5, "0x600000": 6 }, "expect": { "regs": { "rax": 5, "rbx": 6 } } }
    mov rdx, cr3
    lea rcx, [rdx + 9]
    mov cr3, rcx
    movzx eax, byte [0x400000]
    mov cr3, rdx
    mov qword [0x3010], 0x600087
    mov qword [0x7f00], 9
    mov qword [0x7f08], 0
    mov esi, 1
    invpcid rsi, [0x7f00]
    bts rcx, 63
    mov cr3, rcx
    movzx ebx, byte [0x400000]
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    END

;; PCIDs of one slot do not share it: 1 and 9
; { "mode": 64, "regs": { "cr4": "0x20620" }, "b": { "0x400000": 5, "0x600000": 6 }, "expect": { "regs": { "rax": 5, "rbx": 6 } } }
    mov rdx, cr3
    lea rcx, [rdx + 1]
    mov cr3, rcx
    movzx eax, byte [0x400000]
    mov qword [0x3010], 0x600087
    lea rcx, [rdx + 9]
    bts rcx, 63
    mov cr3, rcx
    movzx ebx, byte [0x400000]
    xor ecx, ecx
    xor edx, edx
    END

;; a walk that ends in a fault leaves the accessed bits of upper entries alone; one that succeeds sets them
; { "mode": 64, "deliver": false, "q": { "0x3010": "0x5003", "0x5000": 0, "0x5008": "0x401003" },
;   "expect": { "exception": "#PF", "at": "fault", "q": { "0x3010": "0x5003", "0x5008": "0x401003" } } }
fault:
    mov eax, [0x400000]
    END

;; the accessed bits of a walk that succeeds
; { "mode": 64, "q": { "0x3010": "0x5003", "0x5008": "0x401003" }, "expect": { "q": { "0x3010": "0x5023", "0x5008": "0x401023" } } }
    mov eax, [0x401000]
    END

;; protection keys: PKRU denies all access to a key's pages, also to the supervisor
; { "mode": 64, "q": { "0x3010": "0x0800000000400087" }, "regs": { "cr4": "0x400020" }, "expect": { "exception": "#PF 0x21", "at": "fault", "regs": { "rbx": "0x5555", "rax": 4 } } }
    mov ebx, 0x5555
    mov [0x400000], bx
    mov eax, 4
    wrpkru
    xor ebx, ebx
    mov ecx, 0
    rdpkru
    mov ebx, 0x5555
fault:
    mov cl, [0x400000]

;; protection keys: PKRU denies writes alone
; { "mode": 64, "cpl": 3, "q": { "0x3010": "0x1800000000400087" }, "regs": { "cr4": "0x400020" }, "expect": { "exception": "#PF 0x27", "at": "fault", "regs": { "rbx": 0 } } }
    mov eax, 0x80
    wrpkru
    mov ebx, [0x400000]
fault:
    mov [0x400000], ebx

;; protection keys: without WP the supervisor may write
; { "mode": 64, "q": { "0x3010": "0x0800000000400087" }, "regs": { "cr0": "0x80000031", "cr4": "0x400020" }, "expect": { "b": { "0x400000": 8 } } }
    mov eax, 8
    wrpkru
    mov [0x400000], al
    END

;; protection keys: code is fetched in spite of them, and a key of another page does not count
; { "mode": 64, "cpl": 3, "q": { "0x3010": "0x0800000000400087" }, "regs": { "cr4": "0x400020" }, "b": { "0x400000": "0xc3" }, "expect": { "regs": { "rbx": 0 } } }
    mov eax, 0x5555557c
    wrpkru
    mov eax, 0x400000
    call rax
    END

;; protection keys: PKRU may be written where its value lies in the way of nothing, and only with ECX zero
; { "mode": 64, "regs": { "cr4": "0x400020" }, "expect": { "exception": "#GP", "at": "fault" } }
    mov ecx, 1
fault:
    wrpkru

;; protection keys: without CR4.PKE there is no RDPKRU
; { "mode": 64, "expect": { "exception": "#UD" } }
    rdpkru

;; protection keys: PKRS is for the supervisor's pages
; { "mode": 64, "q": { "0x3010": "0x0800000000400083" }, "regs": { "cr4": "0x1000020" }, "expect": { "exception": "#PF 0x23", "at": "fault" } }
    mov ecx, 0x6e1
    mov eax, 8
    wrmsr
    mov al, [0x400000]
fault:
    mov [0x400000], al

;; protection keys: XSAVE and XRSTOR carry PKRU, in both formats
; { "mode": 64, "regs": { "cr4": "0x440020" }, "expect": { "d": { "0x200a80": "0x50", "0x300240": "0x50" }, "q": { "0x200200": "0x200", "0x300208": "0x8000000000000200" }, "regs": { "rax": "0x50", "rbx": "0x50", "rsi": 0, "rdi": "0x2688" } } }
    mov ecx, 0
    mov eax, 0x207
    xsetbv
    mov eax, 0x50
    wrpkru
    mov edi, 0x200000
    mov eax, 0x200
    xsave [edi]
    mov esi, 0x300000
    xsavec [esi]
    xor eax, eax
    wrpkru
    mov eax, 0x200
    xrstor [esi]
    rdpkru
    mov ebx, eax
    mov eax, 0x200
    mov dword [edi + 512], 0
    xrstor [edi]
    rdpkru
    mov esi, eax
    mov dword [edi + 512], 0x200
    mov eax, 0x200
    xrstor [edi]
    rdpkru
    mov edi, 0x2688
    END

;; alignment checks: a word of the user
; { "mode": 64, "cpl": 3, "flags": "AC", "regs": { "cr0": "0x80050031" }, "expect": { "exception": "#AC", "at": "fault", "regs": { "rax": 0 } } }
    mov eax, [0x200004]
    mov al, [0x200001]
    movups xmm0, [0x200004]
fault:
    mov ax, [0x200001]

;; alignment checks: each size, reads and writes
; { "mode": 64, "cpl": 3, "flags": "AC", "regs": { "cr0": "0x80050031", "rax": 1 }, "expect": { "exception": "#AC", "at": "fault", "q": { "0x200008": 1 } } }
    mov [0x200008], rax
    add dword [0x20000c], 0
fault:
    lock add [0x20000c], rax

;; alignment checks: strings stop at their element
; { "mode": 64, "cpl": 3, "flags": "AC", "regs": { "cr0": "0x80050031", "rsi": "0x200000", "rdi": "0x300002", "rcx": 4 }, "expect": { "exception": "#AC", "at": "fault", "regs": { "rcx": 4 } } }
fault:
    rep movsd

;; alignment checks: POPF begins and ends them
; { "mode": 64, "cpl": 3, "regs": { "cr0": "0x80050031" }, "expect": { "exception": "#AC", "at": "fault", "regs": { "rbx": 0 } } }
    mov ebx, [0x200001]
    pushf
    or dword [rsp], 0x40000
    popf
    pushf
    and dword [rsp], ~0x40000
    popf
    mov ebx, [0x200001]
    pushf
    or dword [rsp], 0x40000
    popf
fault:
    mov ebx, [0x200001]

;; alignment checks: a page fault comes first, and the supervisor is not checked
; { "mode": 64, "flags": "AC", "q": { "0x3010": 0 }, "regs": { "cr0": "0x80050031" }, "expect": { "exception": "#PF 0", "at": "fault" } }
    mov eax, [0x200001]
fault:
    mov eax, [0x400001]
