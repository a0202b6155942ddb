; x87: loads, stores, stack, exceptions, state (SDM 1, 8).

;; load, add, store
; { "mode": 64, "q": { "0x200000": "0x3ff8000000000000" }, "d": { "0x200010": "0x40200000" }, "expect": { "q": { "0x200008": "0x4010000000000000" } } }
    fninit
    fld qword [0x200000]
    fadd dword [0x200010]
    fstp qword [0x200008]
    END

;; an 80-bit store of one third
; { "mode": 64, "expect": { "q": { "0x200000": "0xaaaaaaaaaaaaaaab" }, "w": { "0x200008": "0x3ffd" } } }
    fninit
    mov dword [0x200020], 3
    fld1
    fidiv dword [0x200020]
    fstp tword [0x200000]
    END

;; precision control cuts to double
; { "mode": 64, "w": { "0x200030": "0x027f" }, "expect": { "q": { "0x200000": "0xaaaaaaaaaaaaa800" } } }
    fninit
    fldcw [0x200030]
    mov dword [0x200020], 3
    fld1
    fidiv dword [0x200020]
    fstp tword [0x200000]
    END

;; FNSTSW after a pop of an empty register: IE and SF, C1 clear
; { "mode": 64, "expect": { "regs": { "rax": "0x0841" }, "q": { "0x200000": "0xc000000000000000" }, "w": { "0x200008": "0xffff" } } }
    fninit
    fstp tword [0x200000]
    fnstsw ax
    END

;; FCOMI and FUCOMIP
; { "mode": 64, "expect": { "regs": { "rbx": 1, "rcx": 0, "rdx": "0x3800" } } }
    fninit
    fldz
    fld1
    fcomi st0, st1               ; 1 > 0: nothing set
    setc cl
    fxch
    fucomip st0, st1             ; 0 < 1: CF
    setc bl
    fnstsw ax
    mov edx, eax
    and edx, 0x3800
    END

;; FIST rounds as the control word says, FISTTP cuts
; { "mode": 64, "q": { "0x200000": "0x4004000000000000" }, "w": { "0x200030": "0x0b7f" }, "expect": { "d": { "0x200010": 2, "0x200014": 3, "0x200018": 2 } } }
    fninit
    fld qword [0x200000]
    fist dword [0x200010]
    fldcw [0x200030]
    fist dword [0x200014]
    fisttp dword [0x200018]
    END

;; FILD and FISTP of 64 bits keep all of them
; { "mode": 64, "q": { "0x200000": "0x7ffffffffffffffd" }, "expect": { "q": { "0x200008": "0x7ffffffffffffffd" } } }
    fninit
    fild qword [0x200000]
    fistp qword [0x200008]
    END

;; FBLD and FBSTP
; { "mode": 64, "bytes": { "0x200000": "21436587092143658780" }, "expect": { "bytes": { "0x200010": "21436587092143658780" } } }
    fninit
    fbld [0x200000]
    fbstp [0x200010]
    END

;; an unmasked exception comes at the next waiting instruction
; { "mode": 64, "w": { "0x200030": "0x037b" }, "expect": { "exception": "#MF", "at": "fault", "regs": { "rax": 1 } } }
    fninit
    fldcw [0x200030]
    fld1
    fldz
    fdivp st1, st0
    inc eax
    fnstsw [0x200000]
fault:
    fwait
    END

;; MMX leaves no register empty (FNSTENV looks at what they hold), EMMS empties all
; { "mode": 64, "q": { "0x200000": "0x1122334455667788" }, "expect": { "w": { "0x200108": "0x5556", "0x200148": "0xffff" }, "q": { "0x200008": "0x22446688aaccef10" } } }
    fninit
    movq mm0, [0x200000]
    paddq mm0, mm0
    movq [0x200008], mm0
    fnstenv [0x200100]
    emms
    fnstenv [0x200140]
    END

;; 16-bit FNSTENV has 14 bytes
; { "mode": 16, "q": { "0x500": -1, "0x508": -1 }, "expect": { "bytes": { "0x500": "7f030000ffff", "0x50e": "ffff" } } }
    fninit
    fnstenv [0x500]
    END

;; 32-bit FNSTENV has 28
; { "mode": 32, "q": { "0x200018": -1 }, "expect": { "bytes": { "0x200000": "7f03ffff0000ffffffffffff", "0x20001c": "ffffffff" } } }
    fninit
    fnstenv [0x200000]
    END

;; with EM it is #NM
; { "mode": 64, "regs": { "cr0": "0x80010035" }, "expect": { "exception": "#NM", "at": "fault" } }
fault:
    fld1
    END

;; FWAIT with TS and MP is #NM
; { "mode": 64, "regs": { "cr0": "0x8001003b" }, "expect": { "exception": "#NM", "at": "fault" } }
fault:
    fwait
    END

;; FWAIT with TS alone is not
; { "mode": 64, "regs": { "cr0": "0x80010039" }, "expect": {} }
    fwait
    END

;; FXSAVE and FXRSTOR
; { "mode": 64, "regs": { "xmm0": "0x11223344556677889900aabbccddeeff", "xmm15": 7 }, "expect": { "w": { "0x200000": "0x37f", "0x200002": "0x3800" }, "b": { "0x200004": "0x80" }, "d": { "0x200018": "0x1f80" }, "q": { "0x200020": "0x8000000000000000", "0x2000a0": "0x9900aabbccddeeff", "0x200190": 7 }, "regs": { "xmm0": "0x11223344556677889900aabbccddeeff" } } }
    fninit
    fld1
    fxsave [0x200000]
    pxor xmm0, xmm0
    fninit
    fxrstor [0x200000]
    END

;; FXSAVE that is not aligned is #GP
; { "mode": 64, "expect": { "exception": "#GP" } }
    fxsave [0x200008]
    END
