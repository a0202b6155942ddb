/**
 * QEMU's `pc-testdev`: what tests of processors and hypervisors use to raise interrupts and to have a port and memory of
 * their own. Ports 0x2000 to 0x2017 set ISA and IOAPIC lines, 0xe0 holds what was written, 0xe4 and 0xe8 are taken and do
 * nothing (they unmap pages of a hypervisor, which is not there). At 0xff000000 lie 64 KiB of bytes.
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, struct, u32, type View } from '../memory/struct.ts';

export const TESTDEV_LINES = { port: 0x2000, count: 24 } as const;
export const TESTDEV_LATCH = { port: 0xe0, count: 4 } as const;
export const TESTDEV_FLUSH = { port: 0xe4, count: 8 } as const;
export const TESTDEV_MEMORY = { base: 0xff000000, length: 0x10000 } as const;

export const pcTestdevState = struct('pc-testdev', 1, { latch: u32, bytes: bytes(TESTDEV_MEMORY.length) });

export class PcTestdev {
  readonly #s: View<typeof pcTestdevState.fields>;
  readonly lines: IoHandler;
  readonly latch: IoHandler;
  readonly flush: IoHandler = { read: () => 0, write: () => {} };
  readonly memory: IoHandler;

  constructor(state: View<typeof pcTestdevState.fields>, lines: readonly IrqLine[]) {
    this.#s = state;
    const s = state;
    this.lines = {
      read: () => 0,
      write: (offset, _size, value) => lines[offset]?.set(value !== 0),
    };
    const mask = (size: AccessSize): number => (size === 4 ? 0xffffffff : 2 ** (8 * size) - 1);
    this.latch = {
      read: (offset, size) => ((s.latch >>> (8 * offset)) & mask(size)) >>> 0,
      write: (offset, size, value) => {
        const bits = (mask(size) << (8 * offset)) >>> 0;
        s.latch = ((s.latch & ~bits) | ((value << (8 * offset)) & bits)) >>> 0;
      },
    };
    this.memory = {
      read: (offset, size) => {
        let value = 0;
        for (let n = size - 1; n >= 0; n--) value = value * 256 + (s.bytes[offset + n] ?? 0xff);
        return value;
      },
      write: (offset, size, value) => {
        for (let n = 0; n < size && offset + n < TESTDEV_MEMORY.length; n++) s.bytes[offset + n] = value >>> (8 * n);
      },
    };
  }

  reset(): void {
    this.#s.latch = 0;
    this.#s.bytes.fill(0);
  }
}
