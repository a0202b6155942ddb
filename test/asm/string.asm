; String instructions (SDM 1, 7.3.9) and XLAT.

;; REP MOVSB
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x210ffe", "rcx": 5 }, "bytes": { "0x200000": "0102030405" },
;   "expect": { "regs": { "rsi": "0x200005", "rdi": "0x211003", "rcx": 0 }, "bytes": { "0x210ffe": "010203040500" } } }
    rep movsb
    END

;; REP MOVSB to one byte further spreads the first
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x200001", "rcx": 4 }, "bytes": { "0x200000": "aa01020304" },
;   "expect": { "bytes": { "0x200000": "aaaaaaaaaa" } } }
    rep movsb
    END

;; REP MOVSW down
; { "mode": 64, "flags": "DF", "regs": { "rsi": "0x200004", "rdi": "0x210004", "rcx": 3 }, "bytes": { "0x200000": "010203040506" },
;   "expect": { "regs": { "rsi": "0x1ffffe", "rdi": "0x20fffe" }, "bytes": { "0x210000": "010203040506" } } }
    rep movsw
    END

;; REP with a count of zero does nothing, not even a fault
; { "mode": 64, "regs": { "rsi": "0x8000000000000000", "rdi": "0x8000000000000000" }, "expect": { "regs": { "rsi": "0x8000000000000000" } } }
    rep movsq
    END

;; REP STOSD with a 32-bit address clears the upper halves
; { "mode": 64, "regs": { "rdi": "0xffffffff00200000", "rcx": "0xffffffff00000002", "rax": "0x11223344" },
;   "expect": { "regs": { "rdi": "0x200008", "rcx": 0 }, "d": { "0x200000": "0x11223344", "0x200004": "0x11223344", "0x200008": 0 } } }
    a32 rep stosd
    END

;; LODSQ
; { "mode": 64, "regs": { "rsi": "0x200000" }, "q": { "0x200000": "0x1122334455667788" },
;   "expect": { "regs": { "rax": "0x1122334455667788", "rsi": "0x200008" } } }
    lodsq
    END

;; REPE CMPSB stops at the difference
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x210000", "rcx": 10 }, "bytes": { "0x200000": "616263", "0x210000": "616264" },
;   "expect": { "regs": { "rsi": "0x200003", "rdi": "0x210003", "rcx": 7 }, "flags": "CF SF PF AF" } }
    repe cmpsb
    END

;; REPNE SCASB finds the zero
; { "mode": 64, "regs": { "rdi": "0x200000", "rcx": -1 }, "bytes": { "0x200000": "61626300" },
;   "expect": { "regs": { "rdi": "0x200004", "rcx": "0xfffffffffffffffb" }, "flags": "ZF PF" } }
    repne scasb
    END

;; REPE SCASW with a count of zero leaves the flags
; { "mode": 64, "flags": "CF SF", "regs": { "rdi": "0x200000" }, "expect": { "flags": "CF SF" } }
    repe scasw
    END

;; a fault in the middle leaves what is done
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x3ffffe", "rcx": 4, "rax": 0 }, "bytes": { "0x200000": "01020304" }, "q": { "0x3010": 0 },
;   "expect": { "exception": "#PF 2", "at": "fault", "regs": { "rsi": "0x200002", "rdi": "0x400000", "rcx": 2, "cr2": "0x400000" }, "bytes": { "0x3ffffe": "0102" } } }
fault:
    rep movsb
    END

;; real mode: a segment prefix is for the source alone
; { "mode": 16, "regs": { "rsi": 5, "rdi": 6, "rcx": 2 }, "bytes": { "0x20005": "aabb" },
;   "expect": { "bytes": { "0x30006": "aabb" } } }
    mov ax, 0x2000
    mov fs, ax
    mov ax, 0x3000
    mov es, ax
    rep fs movsb
    END

;; real mode: SI wraps within 64 KiB
; { "mode": 16, "regs": { "rsi": "0xaaaaffff", "rdi": "0x100" }, "b": { "0x2ffff": 1, "0x20000": 2 },
;   "expect": { "b": { "0x100": 1, "0x101": 2 }, "regs": { "rsi": "0xaaaa0001", "rcx": 0 } } }
    mov ax, 0x2000
    mov ds, ax
    mov cx, 2
    rep movsb
    END

;; real mode: a word at offset FFFF is #GP
; { "mode": 16, "regs": { "rsi": "0xffff", "rdi": "0x100" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    movsw
    END

;; 32-bit string instruction in real mode
; { "mode": 16, "regs": { "rsi": "0x8000", "rdi": "0x9000", "rcx": 2 }, "q": { "0x8000": "0x1122334455667788" },
;   "expect": { "q": { "0x9000": "0x1122334455667788" }, "regs": { "rcx": 0, "rsi": "0x8008" } } }
    a32 rep movsd
    END

;; XLAT
; { "mode": 64, "regs": { "rbx": "0x1fff80", "rax": "0xff90" }, "b": { "0x200010": "0x77" }, "expect": { "regs": { "rax": "0xff77" } } }
    xlatb
    END

;; INS and OUTS
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x210000", "rdx": "0x80", "rcx": 3 }, "d": { "0x210000": 0 },
;   "expect": { "d": { "0x210000": "0xffffff" }, "regs": { "rdi": "0x210003", "rsi": "0x200004", "rcx": 0 } } }
    rep insb
    mov cl, 2
    rep outsw
    END

;; REP MOVS: the source's second page is missed before the target's address is looked at
; { "mode": 64, "regs": { "rsi": "0xdffff9", "rdi": "0xc474e98700601a11", "rcx": 3 }, "expect": { "exception": "#PF", "at": "fault" } }
    mov qword [0x3000 + 7 * 8], 0
    invlpg [0xe00000]
fault:
    rep movsq
    END

;; CMPS: an operand whose last byte is past the lower half's end is #GP before its first page is looked at
; { "mode": 64, "regs": { "rsi": "0x200000", "rdi": "0x7fffffffffff" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    cmpsq
    END
