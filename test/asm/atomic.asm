; Exchanges and LOCK (SDM 2, each instruction's page; SDM 3A, 8.1).

;; XCHG with memory
; { "mode": 64, "regs": { "rax": 5 }, "q": { "0x200000": 7 }, "expect": { "regs": { "rax": 7 }, "q": { "0x200000": 5 } } }
    xchg [0x200000], rax
    END

;; XCHG EAX, EAX by 90 is a NOP, by 87 it clears the upper half
; { "mode": 64, "regs": { "rax": -1, "rbx": -1 }, "expect": { "regs": { "rax": "0xffffffffffffffff", "rbx": "0xffffffff" } } }
    db 0x90
    db 0x87, 0xdb
    END

;; XADD of registers
; { "mode": 64, "regs": { "rax": 5, "rbx": "0xfffffffb" }, "expect": { "regs": { "rax": 0, "rbx": 5 }, "flags": "CF ZF AF PF" } }
    xadd eax, ebx
    END

;; LOCK XADD on a page boundary
; { "mode": 64, "regs": { "rbx": 1 }, "d": { "0x200ffe": "0xffffffff" }, "expect": { "regs": { "rbx": "0xffffffff" }, "d": { "0x200ffe": 0, "0x200ffa": 0, "0x201002": 0 }, "flags": "CF ZF AF PF" } }
    lock xadd [0x200ffe], ebx
    END

;; LOCK ADD on a page boundary whose second page is read-only writes nothing
; { "mode": 64, "regs": { "rbx": 1 }, "q": { "0x1ffffc": "0x1111111111111111", "0x3008": "0x200081" },
;   "expect": { "exception": "#PF 3", "regs": { "cr2": "0x200000" }, "q": { "0x1ffffc": "0x1111111111111111" } } }
    lock add [0x1ffffe], ebx
    END

;; LOCK DEC, NEG, NOT, BTS
; { "mode": 64, "d": { "0x200000": 0, "0x200004": 1, "0x200008": 1, "0x20000c": 0 },
;   "expect": { "d": { "0x200000": "0xffffffff", "0x200004": "0xffffffff", "0x200008": "0xfffffffe", "0x20000c": 8 } } }
    lock dec dword [0x200000]
    lock neg dword [0x200004]
    lock not dword [0x200008]
    lock bts dword [0x20000c], 3
    END

;; LOCK of bytes and words
; { "mode": 64, "regs": { "rax": "0xffffffffffffff01" }, "d": { "0x200000": "0xffffffff" }, "expect": { "d": { "0x200000": "0xff00ff00" }, "flags": "CF ZF PF AF" } }
    lock add [0x200000], al
    lock add word [0x200002], 0xff01
    lock inc byte [0x200003]
    lock dec byte [0x200003]
    lock add byte [0x200000], 0xff
    lock add [0x200000], al
    END

;; CMPXCHG equal
; { "mode": 64, "regs": { "rax": "0x11", "rbx": "0x22" }, "d": { "0x200000": "0x11" },
;   "expect": { "regs": { "rax": "0x11" }, "d": { "0x200000": "0x22" }, "flags": "ZF PF" } }
    lock cmpxchg [0x200000], ebx
    END

;; CMPXCHG of a byte looks at AL alone
; { "mode": 64, "regs": { "rax": "0xffffff80", "rbx": "0x22" }, "d": { "0x200000": "0xaaaaaa80" },
;   "expect": { "regs": { "rax": "0xffffff80" }, "d": { "0x200000": "0xaaaaaa22" }, "flags": "ZF PF" } }
    lock cmpxchg [0x200000], bl
    END

;; CMPXCHG unequal loads the accumulator
; { "mode": 64, "regs": { "rax": "0xffffffff00000001", "rbx": "0x22" }, "d": { "0x200000": 3 },
;   "expect": { "regs": { "rax": 3 }, "d": { "0x200000": 3 }, "flags": "CF SF AF" , "undefined": "PF"} }
    cmpxchg [0x200000], ebx
    END

;; CMPXCHG unequal writes too: a read-only page is a fault
; { "mode": 64, "regs": { "rax": 1 }, "q": { "0x3008": "0x200081" }, "expect": { "exception": "#PF 3", "regs": { "rax": 1 } } }
    cmpxchg [0x200000], ebx
    END

;; CMPXCHG8B
; { "mode": 64, "regs": { "rax": 1, "rdx": 2, "rbx": 3, "rcx": 4 }, "q": { "0x200000": "0x200000001" },
;   "expect": { "q": { "0x200000": "0x400000003" }, "flags": "ZF" } }
    lock cmpxchg8b [0x200000]
    END

;; CMPXCHG8B unequal changes ZF alone
; { "mode": 64, "flags": "ZF CF SF", "regs": { "rax": -1, "rdx": -1 }, "q": { "0x200000": "0x200000001" },
;   "expect": { "regs": { "rax": 1, "rdx": 2 }, "flags": "CF SF" } }
    cmpxchg8b [0x200000]
    END

;; CMPXCHG16B
; { "mode": 64, "regs": { "rax": 1, "rdx": 2, "rbx": 3, "rcx": 4 }, "q": { "0x200000": 1, "0x200008": 2 },
;   "expect": { "q": { "0x200000": 3, "0x200008": 4 }, "flags": "ZF" } }
    lock cmpxchg16b [0x200000]
    END

;; CMPXCHG16B without LOCK
; { "mode": 64, "regs": { "rax": 1, "rdx": 2, "rbx": 3, "rcx": 4 }, "q": { "0x200000": 1, "0x200008": 2 },
;   "expect": { "regs": { "rax": 1, "rdx": 2 }, "q": { "0x200000": 3, "0x200008": 4 }, "flags": "ZF" } }
    cmpxchg16b [0x200000]
    END

;; CMPXCHG16B without LOCK, of which the upper half differs, leaves the other flags
; { "mode": 64, "regs": { "rax": 1, "rdx": 2, "rbx": 3, "rcx": 4 }, "q": { "0x200000": 1, "0x200008": 5 },
;   "expect": { "regs": { "rax": 1, "rdx": 5 }, "q": { "0x200000": 1, "0x200008": 5 }, "flags": "CF PF" } }
    xor esi, esi
    stc
    cmpxchg16b [0x200000]
    END

;; CMPXCHG16B without LOCK faults as a write
; { "mode": 64, "regs": { "rax": 1 }, "q": { "0x3010": 0 }, "expect": { "exception": "#PF 2", "at": "fault", "regs": { "cr2": "0x400010" } } }
fault:
    cmpxchg16b [0x400010]
    END

;; CMPXCHG16B without LOCK of a read-only page, with what it does not expect
; { "mode": 64, "regs": { "rax": 1 }, "q": { "0x3010": "0x400081", "0x400010": 7 },
;   "expect": { "exception": "#PF 3", "at": "fault", "regs": { "rax": 1, "cr2": "0x400010" } } }
    mov rsi, cr0
    bts rsi, 16
    mov cr0, rsi
fault:
    cmpxchg16b [0x400010]
    END

;; CMPXCHG16B that is not aligned
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    lock cmpxchg16b [0x200008]
    END

;; LOCK of a register is #UD
; { "mode": 64, "expect": { "exception": "#UD", "at": "fault" } }
fault:
    db 0xf0, 0x01, 0xd8
    END

;; LOCK of CMP is #UD
; { "mode": 64, "expect": { "exception": "#UD" } }
    db 0xf0, 0x39, 0x03
    END
