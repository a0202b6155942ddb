/** Copies a vCPU's registers out of its state block, for monitors. */
import * as S from '../memory/vcpu-state.ts';
import type { CpuRegisters, SegmentRegister } from '../monitor/machine-control.ts';
import type { System } from '../x86/system/helpers.ts';

/** The vCPU must stand still: its RIP is then NEXT_RIP. */
export function readRegisters(system: System, index: number): CpuRegisters {
  const { cpu } = system;
  const word = (offset: number): bigint => cpu.u64[offset >> 3];
  const segment = (n: number): SegmentRegister => ({
    selector: cpu.selector(n),
    base: word(S.segment(n) + S.SEG_BASE),
    limit: cpu.segmentLimit(n),
    attributes: cpu.segmentAttr(n) << 8,
  });
  const table = (n: number): { base: bigint; limit: number } => ({
    base: word(S.segment(n) + S.SEG_BASE),
    limit: cpu.segmentLimit(n),
  });
  const { state } = system.fpu;
  const fpu = new DataView(cpu.buffer, cpu.at + S.FPU, 128);
  const vector = new DataView(cpu.buffer, cpu.at + S.VECTOR, 16 * S.VECTOR_STRIDE);
  const dr = (n: number): bigint => word(S.DR + n * 8);
  return {
    cpu: index,
    gpr: Array.from({ length: 16 }, (_, n) => word(S.GPR + n * 8)),
    rip: word(S.NEXT_RIP),
    rflags: BigInt(cpu.eflags >>> 0),
    cpl: cpu.cpl,
    halted: cpu.i32[S.HALTED >> 2] !== 0,
    smm: (cpu.i32[S.SMM >> 2] & S.Smm.INSIDE) !== 0,
    a20: cpu.bus.a20(),
    interruptShadow: cpu.i32[S.SHADOW >> 2] !== 0,
    es: segment(S.ES),
    cs: segment(S.CS),
    ss: segment(S.SS),
    ds: segment(S.DS),
    fs: segment(S.FS),
    gs: segment(S.GS),
    ldt: segment(S.LDTR),
    tr: segment(S.TR),
    gdt: table(S.GDTR),
    idt: table(S.IDTR),
    cr0: word(S.CR0),
    cr2: word(S.CR2),
    cr3: word(S.CR3),
    cr4: word(S.CR4),
    cr8: BigInt(cpu.bus.readTpr() >> 4),
    dr: [dr(0), dr(1), dr(2), dr(3), dr(4), dr(5)],
    efer: word(S.EFER),
    fpu: {
      control: state.control,
      status: state.status,
      tag: state.valid,
      registers: Array.from({ length: 8 }, (_, n) => ({
        mantissa: fpu.getBigUint64(n * 16, true),
        exponent: fpu.getUint16(n * 16 + 8, true),
      })),
    },
    mxcsr: cpu.i32[S.MXCSR >> 2],
    xmm: Array.from({ length: 16 }, (_, n) => [
      vector.getBigUint64(n * S.VECTOR_STRIDE, true),
      vector.getBigUint64(n * S.VECTOR_STRIDE + 8, true),
    ]),
  };
}
