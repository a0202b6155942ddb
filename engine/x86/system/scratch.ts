/** Where accesses that cannot be done in memory itself are done: a copy of what lies across pages, beside code, or in a device. */
import * as S from '../../memory/vcpu-state.ts';
import type { Cpu } from './cpu.ts';

const COPY = S.SCRATCH;

export class Scratch {
  readonly #cpu: Cpu;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  /** Puts a host address into SLOW_POINTER; gives it as an i32 that is not 0. */
  answer(host: number): number {
    this.#cpu.setNumber(S.SLOW_POINTER, host);
    return host >= 0x80000000 ? (host >= 4294967296 ? 1 : host | 0) : host;
  }

  /** Address of the scratch; what lies in it is `bytes` of guest memory at one or two places. */
  hold(bytes: number, first: number, second: number, split: number): number {
    const cpu = this.#cpu;
    cpu.i32[S.SCRATCH_SIZE >> 2] = bytes;
    cpu.f64[S.SCRATCH_PA0 >> 3] = first;
    cpu.f64[S.SCRATCH_PA1 >> 3] = second;
    cpu.i32[S.SCRATCH_SPLIT >> 2] = split;
    return cpu.at + COPY;
  }

  /** Copies bytes of one page, or of a device, into the scratch at `into`. */
  copyIn(physical: number, bytes: number, into: number): void {
    const cpu = this.#cpu;
    const host = cpu.memory.host(physical);
    if (host >= 0) {
      cpu.u8.set(cpu.memory.bytes.subarray(host, host + bytes), COPY + into);
      return;
    }
    for (let done = 0; done < bytes; ) {
      const at = physical + done;
      const size = bytes - done >= 4 && at % 4 === 0 ? 4 : bytes - done >= 2 && at % 2 === 0 ? 2 : 1;
      const value = cpu.bus.readMmio(at, size);
      for (let i = 0; i < size; i++) cpu.u8[COPY + into + done + i] = value >>> (8 * i);
      done += size;
    }
  }

  /** Writes bytes of the scratch from `from` to one page or a device. */
  copyOut(physical: number, bytes: number, from: number): void {
    const cpu = this.#cpu;
    const memory = cpu.memory;
    const host = memory.host(physical);
    if (host >= 0) {
      if (memory.isReadOnly(physical)) return;
      memory.bytes.set(cpu.u8.subarray(COPY + from, COPY + from + bytes), host);
      memory.note(host, bytes);
      return;
    }
    for (let done = 0; done < bytes; ) {
      const at = physical + done;
      const size = bytes - done >= 4 && at % 4 === 0 ? 4 : bytes - done >= 2 && at % 2 === 0 ? 2 : 1;
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + cpu.u8[COPY + from + done + i];
      cpu.bus.writeMmio(at, size, value);
      done += size;
    }
  }
}
