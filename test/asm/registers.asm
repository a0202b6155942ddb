; Model-specific registers: memory types, machine-check banks (SDM 3A, 12.11 and 12.12; 3B, chapter 16).
%macro WRITE 3
    mov ecx, %1
    mov eax, %2
    mov edx, %3
    wrmsr
%endmacro

;; MTRRs and PAT keep what the guest writes
; { "mode": 64, "expect": { "regs": { "r8": "0x40000006", "r9": "0xc0000800", "r10": "0x06060606", "r11": "0xc06", "r12": "0x00070106", "rbx": "0x508" } } }
    WRITE 0x200, 0x40000006, 1
    WRITE 0x201, 0xc0000800, 0xff
    WRITE 0x250, 0x06060606, 0x06060606
    WRITE 0x2ff, 0xc06, 0
    WRITE 0x277, 0x00070106, 0x00070106
    mov ecx, 0x200
    rdmsr
    mov r8d, eax
    mov ecx, 0x201
    rdmsr
    mov r9d, eax
    mov ecx, 0x250
    rdmsr
    mov r10d, eax
    mov ecx, 0x2ff
    rdmsr
    mov r11d, eax
    mov ecx, 0x277
    rdmsr
    mov r12d, eax
    mov ecx, 0xfe
    rdmsr
    mov ebx, eax
    END

;; a variable MTRR of a reserved type
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x200, 2, 0

;; a variable MTRR beyond the physical addresses
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x201, 0x800, 0x100

;; a variable MTRR's mask has bits that are reserved
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x201, 0x400, 0

;; a fixed MTRR of a reserved type in one byte
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x26f, 0x06060606, 0x06070606

;; the default type: reserved bits
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x2ff, 0x1006, 0

;; PAT of a reserved type
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x277, 0x00070206, 0

;; machine check: ten banks, which take what the SDM lets them
; { "mode": 64, "expect": { "regs": { "rbx": "0x100010a", "r8": "0xffffffff", "r9": 0, "r10": "0x12345678" } } }
    mov ecx, 0x179
    rdmsr
    mov ebx, eax
    WRITE 0x400, 0, 0
    WRITE 0x400, -1, -1
    rdmsr
    mov r8d, edx
    WRITE 0x401, 0, 0
    rdmsr
    mov r9d, eax
    WRITE 0x426, 0x12345678, 0x80000000
    rdmsr
    mov r10d, eax
    END

;; machine check: a bank's status can only be cleared
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x401, 1, 0

;; machine check: a bank's control is all or nothing
; { "mode": 64, "expect": { "exception": "#GP" } }
    WRITE 0x400, 1, 0

;; machine check: there is no bank 10
; { "mode": 64, "expect": { "exception": "#GP" } }
    mov ecx, 0x428
    rdmsr
