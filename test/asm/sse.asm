; SSE: what the moves, comparisons and state instructions do around the arithmetic (SDM 1, 10 to 12).

;; MOVAPS and MOVUPS
; { "mode": 64, "q": { "0x200001": "0x1122334455667788", "0x200009": "0x99aabbccddeeff00" },
;   "expect": { "regs": { "xmm1": "0x99aabbccddeeff001122334455667788" }, "q": { "0x200020": "0x1122334455667788", "0x200028": "0x99aabbccddeeff00" } } }
    movups xmm0, [0x200001]
    movaps xmm1, xmm0
    movaps [0x200020], xmm1
    END

;; MOVAPS that is not aligned is #GP
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    movaps xmm0, [0x200008]
    END

;; so is an arithmetic instruction's operand
; { "mode": 64, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    addps xmm0, [0x200004]
    END

;; but not a scalar's
; { "mode": 64, "d": { "0x200003": "0x40000000" }, "regs": { "xmm0": "0x1111111122222222333333333f800000" },
;   "expect": { "regs": { "xmm0": "0x11111111222222223333333340400000" } } }
    addss xmm0, [0x200003]
    END

;; MOVUPS across pages of which the second is missing
; { "mode": 64, "q": { "0x3010": 0 }, "regs": { "xmm0": -1 }, "expect": { "exception": "#PF 2", "regs": { "cr2": "0x400000" }, "q": { "0x3ffff8": 0 } } }
    movups [0x3ffff8], xmm0
    END

;; loads of scalars clear what is above, moves between registers keep it
; { "mode": 64, "q": { "0x200000": "0x1122334455667788" }, "regs": { "xmm0": -1, "xmm1": -1, "xmm2": -1, "xmm3": -1 },
;   "expect": { "regs": { "xmm0": "0x55667788", "xmm1": "0x1122334455667788", "xmm2": "0xffffffffffffffffffffffff55667788", "xmm3": "0xffffffffffffffff1122334455667788" } } }
    movss xmm0, [0x200000]
    movsd xmm1, [0x200000]
    movss xmm2, xmm0
    movsd xmm3, xmm1
    END

;; MOVD and MOVQ
; { "mode": 64, "regs": { "rax": "0x8877665544332211", "xmm0": -1, "xmm1": -1, "xmm2": -1 },
;   "expect": { "regs": { "xmm0": "0x44332211", "xmm1": "0x8877665544332211", "xmm2": "0x8877665544332211", "rbx": "0x44332211" } } }
    movd xmm0, eax
    movq xmm1, rax
    movq xmm2, xmm1
    movd ebx, xmm2
    END

;; MOVHLPS, MOVLHPS, MOVLPS, MOVHPS
; { "mode": 64, "regs": { "xmm0": "0x22222222222222221111111111111111", "xmm1": "0x44444444444444443333333333333333" }, "q": { "0x200000": "0x5555555555555555" },
;   "expect": { "regs": { "xmm0": "0x33333333333333334444444444444444", "xmm1": "0x55555555555555553333333333333333" }, "q": { "0x200008": "0x3333333333333333" } } }
    movhlps xmm0, xmm1
    movlhps xmm0, xmm1
    movhps xmm1, [0x200000]
    movlps [0x200008], xmm1
    END

;; COMISD: all four answers
; { "mode": 64, "regs": { "xmm0": "0x3ff0000000000000", "xmm1": "0x4000000000000000", "xmm2": "0x7ff8000000000000" },
;   "expect": { "regs": { "rax": "0x01", "rbx": "0x40", "rcx": "0x00", "rdx": "0x45" } } }
%macro compare 3
    comisd %1, %2
    lahf
    movzx %3, ah
    and %3, 0x45
%endmacro
    compare xmm0, xmm0, ebx
    compare xmm1, xmm0, ecx
    ucomisd xmm0, xmm2
    pushf
    pop rdx
    and edx, 0x45
    compare xmm0, xmm1, esi
    mov eax, esi
    END

;; COMISD of a quiet NaN is invalid, UCOMISD is not
; { "mode": 64, "regs": { "xmm2": "0x7ff8000000000000" }, "expect": { "regs": { "rax": 0, "mxcsr": "0x1f81" } } }
    ucomisd xmm0, xmm2
    stmxcsr [0x200000]
    mov eax, [0x200000]
    and eax, 1
    comisd xmm0, xmm2
    END

;; an unmasked exception is #XM and leaves the destination
; { "mode": 64, "regs": { "xmm0": "0x3ff0000000000000", "mxcsr": "0x1d80" }, "expect": { "exception": "#XM", "at": "fault", "regs": { "xmm0": "0x3ff0000000000000", "mxcsr": "0x1d84" } } }
fault:
    divsd xmm0, xmm1
    END

;; and #UD without OSXMMEXCPT
; { "mode": 64, "regs": { "cr4": "0x220", "mxcsr": "0x1d80", "xmm0": "0x3ff0000000000000" }, "expect": { "exception": "#UD" } }
    divsd xmm0, xmm1
    END

;; rounding control of MXCSR
; { "mode": 64, "regs": { "rax": 3, "mxcsr": "0x5f80", "xmm3": "0x400c000000000000" }, "expect": { "regs": { "rbx": 4, "rcx": 3, "xmm0": "0x3f2aaaab" } } }
    mov edx, 2
    cvtsi2ss xmm0, edx
    cvtsi2ss xmm1, eax
    divss xmm0, xmm1
    cvtsd2si ebx, xmm3
    cvttsd2si ecx, xmm3
    END

;; conversions that do not fit give the integer indefinite
; { "mode": 64, "regs": { "xmm0": "0x43e0000000000000" }, "expect": { "regs": { "rax": "0x80000000", "rbx": "0x8000000000000000", "mxcsr": "0x1f81" } } }
    cvttsd2si eax, xmm0
    cvttsd2si rbx, xmm0
    END

;; LDMXCSR with a reserved bit is #GP
; { "mode": 64, "d": { "0x200000": "0x11f80" }, "expect": { "exception": "#GP" } }
    ldmxcsr [0x200000]
    END

;; without OSFXSR it is #UD
; { "mode": 64, "regs": { "cr4": "0x20" }, "expect": { "exception": "#UD", "at": "fault" } }
fault:
    xorps xmm0, xmm0
    END

;; with TS it is #NM
; { "mode": 64, "regs": { "cr0": "0x80010039" }, "expect": { "exception": "#NM", "at": "fault" } }
fault:
    xorps xmm0, xmm0
    END

;; with EM it is #UD, and so is a 128-bit integer instruction
; { "mode": 64, "regs": { "cr0": "0x80010035" }, "expect": { "exception": "#UD" } }
    pxor xmm0, xmm0
    END

;; CLTS takes TS away
; { "mode": 64, "regs": { "cr0": "0x80010039", "xmm0": -1 }, "expect": { "regs": { "xmm0": 0 } } }
    clts
    xorps xmm0, xmm0
    END

;; PSHUFB, PALIGNR, PMOVMSKB
; { "mode": 64, "regs": { "xmm0": "0x0f0e0d0c0b0a09080706050403020100", "xmm1": "0x80ff0001020304050607080900000000" },
;   "expect": { "regs": { "xmm0": "0x00010203040506070809" , "rax": "0xc000", "xmm2": "0x0201000f0e0d0c0b0a09080706050403" } } }
    pmovmskb eax, xmm1
    movdqa xmm2, xmm0
    mov ecx, 0x20100
    movd xmm3, ecx
    palignr xmm3, xmm2, 3
    movdqa xmm2, xmm3
    pshufb xmm0, xmm1
    psrldq xmm0, 4
    END

;; shifts by more than the width
; { "mode": 64, "regs": { "xmm0": "0x80000000ffffffff8000000000000001", "xmm1": 32, "xmm2": "0x100000000" },
;   "expect": { "regs": { "xmm3": 0, "xmm4": "0xffffffffffffffffffffffff00000000", "xmm5": 0 } } }
    movdqa xmm3, xmm0
    pslld xmm3, xmm1
    movdqa xmm4, xmm0
    psrad xmm4, xmm1
    movdqa xmm5, xmm0
    psrlq xmm5, xmm2
    END

;; MOVNTI, MOVNTDQ and fences
; { "mode": 64, "regs": { "rax": "0x1122334455667788", "xmm0": "0x11223344556677889900aabbccddeeff" }, "expect": { "q": { "0x200000": "0x1122334455667788", "0x200010": "0x9900aabbccddeeff", "0x200018": "0x1122334455667788" } } }
    movnti [0x200000], rax
    movntdq [0x200010], xmm0
    sfence
    lfence
    mfence
    END

;; CRC32
; { "mode": 64, "regs": { "rax": "0xffffffff", "rbx": "0x3837363534333231" }, "expect": { "regs": { "rax": "0xe3069283" } } }
    crc32 rax, rbx
    mov cl, 0x39
    crc32 eax, cl
    not eax
    END

;; MASKMOVDQU into a segment of code is a fault, also of nothing
; { "mode": 32, "regs": { "rdi": "0x200000", "xmm0": "0x11223344556677889900aabbccddeeff" }, "expect": { "exception": "#GP", "at": "fault" } }
fault:
    cs maskmovdqu xmm0, xmm1
    END

;; MASKMOVDQU writes only what the mask says
; { "mode": 64, "regs": { "rdi": "0x200000", "xmm0": "0x11223344556677889900aabbccddeeff", "xmm1": "0x80000000000000000000000000000080" }, "expect": { "q": { "0x200000": "0xff", "0x200008": "0x1100000000000000" } } }
    maskmovdqu xmm0, xmm1
    END
