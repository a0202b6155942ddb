/** Numbers and bits of the local APIC's registers (SDM volume 3A, 10.4 to 10.12). */

// Register numbers: MMIO offset / 16, and MSR index - 0x800.
export const REG_ID = 0x02;
export const REG_VERSION = 0x03;
export const REG_TPR = 0x08;
export const REG_APR = 0x09;
export const REG_PPR = 0x0a;
export const REG_EOI = 0x0b;
export const REG_LDR = 0x0d;
export const REG_DFR = 0x0e;
export const REG_SVR = 0x0f;
export const REG_ISR = 0x10;
export const REG_TMR = 0x18;
export const REG_IRR = 0x20;
export const REG_ESR = 0x28;
export const REG_ICR_LOW = 0x30;
export const REG_ICR_HIGH = 0x31;
export const REG_LVT = 0x32;
export const REG_LVT_LAST = 0x37;
export const REG_INITIAL = 0x38;
export const REG_CURRENT = 0x39;
export const REG_DIVIDE = 0x3e;
export const REG_SELF_IPI = 0x3f;

// Entries of the local vector table, in register order.
export const LVT_TIMER = 0;
export const LVT_PERFORMANCE = 2;
export const LVT_LINT0 = 3;
export const LVT_LINT1 = 4;
export const LVT_ERROR = 5;
export const LVT_COUNT = 6;
export const LVT_MASKED = 1 << 16;
export const LVT_LEVEL = 1 << 15;
export const LVT_REMOTE_IRR = 1 << 14;
/** Writable bits of timer, thermal, performance, LINT0, LINT1, error. */
export const LVT_WRITABLE = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
export const TIMER_MODE = 3 << 17;
export const TIMER_PERIODIC = 1 << 17;
export const TIMER_DEADLINE = 2 << 17;

/** Bit 24: EOI broadcasts can be suppressed. */
export const VERSION = 0x14 | ((LVT_COUNT - 1) << 16) | (1 << 24);
export const SVR_ENABLE = 1 << 8;
export const SVR_NO_EOI_BROADCAST = 1 << 12;
export const SVR_WRITABLE = 0x11ff;

export const ERROR_SEND_VECTOR = 1 << 5;
export const ERROR_RECEIVE_VECTOR = 1 << 6;
export const ERROR_REGISTER = 1 << 7;

export const ICR_LOGICAL = 1 << 11;
export const ICR_ASSERT = 1 << 14;
export const ICR_LEVEL = 1 << 15;
export const ICR_WRITABLE = 0xccfff;
