; Shifts, rotates, bit operations, multiplication and division (SDM 2, each instruction's page).

;; SHL by one: CF and OF
; { "mode": 64, "regs": { "rax": "0x40" }, "expect": { "regs": { "rax": "0x80" }, "flags": "OF SF", "undefined": "AF" } }
    shl al, 1
    END

;; SHL: the last bit out is CF
; { "mode": 64, "regs": { "rax": "0x10000001" }, "expect": { "regs": { "rax": "0x10" }, "flags": "CF", "undefined": "AF OF" } }
    shl eax, 4
    END

;; a count of zero changes nothing
; { "mode": 64, "flags": "CF ZF OF", "regs": { "rax": "0xffffffff12345678", "rcx": 64 },
;   "expect": { "regs": { "rax": "0xffffffff12345678" }, "flags": "CF ZF OF" } }
    shl rax, cl
    END

;; a 32-bit shift by 32 leaves the flags and clears the upper half
; { "mode": 64, "flags": "CF", "regs": { "rax": "0xffffffff12345678", "rcx": 32 },
;   "expect": { "regs": { "rax": "0x12345678" }, "flags": "CF" } }
    shr eax, cl
    END

;; byte shift by more than eight: count is masked to five bits only
; { "mode": 64, "regs": { "rax": "0xff", "rcx": 9 }, "expect": { "regs": { "rax": 0 }, "flags": "ZF PF", "undefined": "AF OF CF" } }
    shr al, cl
    END

;; SHR by one: OF is the old sign
; { "mode": 64, "regs": { "rax": "0x8001" }, "expect": { "regs": { "rax": "0x4000" }, "flags": "CF OF PF", "undefined": "AF" } }
    shr ax, 1
    END

;; SAR keeps the sign
; { "mode": 64, "regs": { "rax": "0x8000000000000000" }, "expect": { "regs": { "rax": "0xffffffffffffffff" }, "flags": "SF PF", "undefined": "AF OF" } }
    sar rax, 63
    END

;; SAR of a byte by 31 is all sign
; { "mode": 64, "regs": { "rax": "0x80", "rcx": 31 }, "expect": { "regs": { "rax": "0xff" }, "flags": "CF SF PF", "undefined": "AF OF" } }
    sar al, cl
    END

;; ROL by one: CF and OF, the rest kept
; { "mode": 64, "flags": "ZF SF PF", "regs": { "rax": "0x80000000" }, "expect": { "regs": { "rax": 1 }, "flags": "CF OF ZF SF PF" } }
    rol eax, 1
    END

;; ROL of a byte by eight: same value, CF is bit 0
; { "mode": 64, "regs": { "rax": "0x81" }, "expect": { "regs": { "rax": "0x81" }, "flags": "CF", "undefined": "OF" } }
    rol al, 8
    END

;; ROR
; { "mode": 64, "regs": { "rax": "0x1234" }, "expect": { "regs": { "rax": "0x4123" }, "flags": "", "undefined": "OF" } }
    ror ax, 4
    END

;; RCL through carry, 9 bits
; { "mode": 64, "flags": "CF", "regs": { "rax": "0x80" }, "expect": { "regs": { "rax": 1 }, "flags": "CF OF" } }
    rcl al, 1
    END

;; RCR of 16 bits by 17 is the identity
; { "mode": 64, "flags": "CF", "regs": { "rax": "0x1234", "rcx": 17 }, "expect": { "regs": { "rax": "0x1234" }, "flags": "CF", "undefined": "OF" } }
    rcr ax, cl
    END

;; RCR of 64 bits
; { "mode": 64, "flags": "CF", "regs": { "rax": 2 }, "expect": { "regs": { "rax": "0x4000000000000000" }, "flags": "CF", "undefined": "OF" } }
    rcr rax, 2
    END

;; SHLD and SHRD
; { "mode": 64, "regs": { "rax": "0x12345678", "rbx": "0x9abcdef0", "rdx": "0x12345678" },
;   "expect": { "regs": { "rax": "0x3456789a", "rdx": "0xf0123456" }, "flags": "SF PF", "undefined": "AF OF" } }
    shld eax, ebx, 8
    shrd edx, ebx, 8
    END

;; SHLD by zero
; { "mode": 64, "flags": "CF ZF", "regs": { "rax": 5, "rbx": -1, "rcx": 64 }, "expect": { "regs": { "rax": 5 }, "flags": "CF ZF" } }
    shld rax, rbx, cl
    END

;; shift of memory
; { "mode": 64, "b": { "0x200fff": "0x81", "0x201000": "0x55" }, "expect": { "b": { "0x200fff": 2, "0x201000": "0x55" }, "flags": "CF OF", "undefined": "AF" } }
    shl byte [0x200fff], 1
    END

;; BT with a register index beyond the operand, in memory
; { "mode": 64, "b": { "0x200010": 4, "0x1fffff": "0x80" }, "regs": { "rax": 130, "rbx": -1 },
;   "expect": { "regs": { "rdx": 1, "rsi": 1 }, "b": { "0x200010": 4, "0x1fffff": 0 } } }
    bt [dword 0x200000], eax
    setc dl
    btr [dword 0x200000], rbx
    setc sil
    END

;; BT of a register takes the index modulo its size
; { "mode": 64, "regs": { "rax": "0x10", "rbx": 36 }, "expect": { "regs": { "rax": "0x10" }, "flags": "CF", "undefined": "OF SF AF PF ZF" } }
    bt eax, ebx
    END

;; BTS, BTR, BTC
; { "mode": 64, "regs": { "rax": "0xf0" }, "expect": { "regs": { "rax": "0x161" , "rbx": 0, "rcx": 1, "rdx": 1 } } }
    bts eax, 0
    setc bl
    btr eax, 4
    setc cl
    btr eax, 7
    setc dl
    btc ax, 8
    END

;; BSF and BSR
; { "mode": 64, "regs": { "rax": "0x8000000000000100" }, "expect": { "regs": { "rbx": 8, "rcx": 63 }, "flags": "", "undefined": "CF OF SF AF PF" } }
    bsf rbx, rax
    bsr rcx, rax
    END

;; BSF of zero sets ZF and leaves its destination
; { "mode": 64, "regs": { "rbx": 7 }, "expect": { "regs": { "rbx": 7 }, "flags": "ZF", "undefined": "CF OF SF AF PF" } }
    bsf rbx, rax
    END

;; POPCNT
; { "mode": 64, "flags": "CF SF", "regs": { "rax": "0xffff00000000000f" }, "expect": { "regs": { "rbx": 20, "rcx": 4 }, "flags": "" } }
    popcnt rbx, rax
    popcnt ecx, eax
    END

;; BSWAP
; { "mode": 64, "regs": { "rax": "0x1122334455667788", "rbx": "0xffffffff11223344" }, "expect": { "regs": { "rax": "0x8877665544332211", "rbx": "0x44332211" } } }
    bswap rax
    bswap ebx
    END

;; MUL: CF and OF tell that the upper half is not zero
; { "mode": 64, "regs": { "rax": "0xffffffffffffffff", "rbx": 2 },
;   "expect": { "regs": { "rax": "0xfffffffffffffffe", "rdx": 1 }, "flags": "CF OF", "undefined": "SF ZF AF PF" } }
    mul rbx
    END

;; MUL of bytes goes to AX
; { "mode": 64, "regs": { "rax": "0xff0f", "rbx": 16 }, "expect": { "regs": { "rax": "0xf0" }, "flags": "", "undefined": "SF ZF AF PF" } }
    mul bl
    END

;; IMUL with one operand
; { "mode": 64, "regs": { "rax": "0xffffffff", "rbx": 2 },
;   "expect": { "regs": { "rax": "0xfffffffe", "rdx": "0xffffffff" }, "flags": "", "undefined": "SF ZF AF PF" } }
    imul ebx
    END

;; IMUL of 64 bits, upper half
; { "mode": 64, "regs": { "rax": "0x8000000000000000", "rbx": "0x8000000000000000" },
;   "expect": { "regs": { "rax": 0, "rdx": "0x4000000000000000" }, "flags": "CF OF", "undefined": "SF ZF AF PF" } }
    imul rbx
    END

;; IMUL with three operands overflows
; { "mode": 64, "regs": { "rbx": "0x4000" }, "expect": { "regs": { "rax": 0 }, "flags": "CF OF", "undefined": "SF ZF AF PF" } }
    imul ax, bx, 4
    END

;; DIV of 128 bits by 64
; { "mode": 64, "regs": { "rax": 5, "rdx": 1, "rbx": "0x8000000000000000" }, "expect": { "regs": { "rax": 2, "rdx": 5 } } }
    div rbx
    END

;; DIV of bytes: quotient in AL, remainder in AH
; { "mode": 64, "regs": { "rax": "0x1ff", "rbx": 16 }, "expect": { "regs": { "rax": "0xf1f" } } }
    div bl
    END

;; IDIV truncates toward zero
; { "mode": 64, "regs": { "rax": "0xfffffff9", "rdx": "0xffffffff", "rbx": 2 }, "expect": { "regs": { "rax": "0xfffffffd", "rdx": "0xffffffff" } } }
    idiv ebx
    END

;; DIV by zero
; { "mode": 64, "regs": { "rax": 1, "rdx": 0 }, "expect": { "exception": "#DE", "at": "fault", "regs": { "rax": 1 } } }
fault:
    div ecx
    END

;; DIV: the quotient does not fit
; { "mode": 64, "regs": { "rax": 0, "rdx": 5, "rbx": 5 }, "expect": { "exception": "#DE" } }
    div rbx
    END

;; IDIV: the lowest number by minus one
; { "mode": 64, "regs": { "rax": "0x8000000000000000", "rdx": -1, "rbx": -1 }, "expect": { "exception": "#DE" } }
    idiv rbx
    END

;; IDIV of a byte: 128 does not fit
; { "mode": 64, "regs": { "rax": "0x80", "rbx": 1 }, "expect": { "exception": "#DE" } }
    idiv bl
    END

;; IDIV of a byte: -128 does
; { "mode": 64, "regs": { "rax": "0xff80", "rbx": 1 }, "expect": { "regs": { "rax": "0x80" } } }
    idiv bl
    END
