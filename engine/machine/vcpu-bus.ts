/** A vCPU's way to the machine around it: ports, MMIO, its local APIC, clocks. Runs on the vCPU's own thread. */
import { MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC_FIRST, MSR_X2APIC_LAST } from '../devices/lapic.ts';
import { Delivery } from '../devices/lapic-bus.ts';
import { f64, struct } from '../memory/struct.ts';
import * as S from '../memory/vcpu-state.ts';
import type { CpuBus } from '../x86/system/cpu.ts';
import { TSC_HZ } from '../x86/system/cpuid.ts';
import { MSR } from '../x86/system/msr-numbers.ts';
import { threadNs } from './clock.ts';
import { CounterIndex, Request } from './control-words.ts';
import type { Machine } from './machine.ts';
import { Trace } from './trace.ts';

/** How long a spinning vCPU leaves its core to others, in ms. */
const NAP_MS = 0.02;
/** How often a vCPU looks whether a debug console has room again, in ms. */
const DRAIN_MS = 0.2;

const hex = (value: number): string => (value >>> 0 === value ? value : value + 2 ** 64).toString(16);

const tscState = struct('tsc', 1, { offset: f64 });

export class VcpuBus implements CpuBus {
  readonly index: number;
  readonly count: number;
  readonly #machine: Machine;
  readonly #tsc: { offset: number };
  readonly #counts: Float64Array;
  readonly #state: Int32Array;
  /** Writes a line of the log; set on the vCPU's own thread. */
  trace: (line: string) => void = () => {};
  readonly #pair = new Uint32Array(2);

  constructor(machine: Machine, index: number) {
    this.#machine = machine;
    this.index = index;
    this.count = machine.layout.cpus;
    this.#tsc = machine.shared.struct(tscState, `tsc${index}`);
    const at = machine.layout.vcpus + index * S.VCPU_BYTES;
    this.#counts = new Float64Array(machine.buffer, at + S.EXIT_COUNTS, 16);
    this.#state = new Int32Array(machine.buffer, at, S.STATE_BYTES / 4);
  }

  readPort(port: number, size: 1 | 2 | 4): number {
    const { machine } = this;
    this.#counts[CounterIndex.PIO]++;
    machine.shared.lock.acquire();
    machine.pci.sync();
    const value = machine.ports.read(port, size);
    machine.shared.lock.release();
    if ((machine.control.trace & Trace.pio_read) !== 0)
      this.trace(`pio_read cpu ${this.index} port 0x${hex(port)} size ${size} value 0x${hex(value)}`);
    return value;
  }
  readPortBlock(port: number, size: 1 | 2 | 4, target: Uint8Array): number {
    const { machine } = this;
    if ((machine.control.trace & Trace.pio_read) !== 0) return 0;
    machine.shared.lock.acquire();
    machine.pci.sync();
    const bytes = machine.ports.readBlock(port, size, target);
    machine.shared.lock.release();
    this.#counts[CounterIndex.PIO] += bytes / size;
    return bytes;
  }
  writePort(port: number, size: 1 | 2 | 4, value: number): void {
    const { machine } = this;
    this.#counts[CounterIndex.PIO]++;
    machine.shared.lock.acquire();
    machine.pci.sync();
    machine.ports.write(port, size, value);
    machine.shared.lock.release();
    if (machine.debugcons.length > 0) this.#letDrain();
    if ((machine.control.trace & Trace.pio_write) !== 0)
      this.trace(`pio_write cpu ${this.index} port 0x${hex(port)} size ${size} value 0x${hex(value)}`);
  }
  readMmio(address: number, size: 1 | 2 | 4): number {
    const { machine } = this;
    this.#counts[CounterIndex.MMIO]++;
    machine.shared.lock.acquire();
    machine.pci.sync();
    const apic = machine.apics.apics[this.index];
    const offset = address - (apic.mmioBase ?? -1e15);
    const value = offset >= 0 && offset < 0x1000 ? apic.read(offset, size) : machine.mmio.read(address, size);
    machine.shared.lock.release();
    if ((machine.control.trace & Trace.mmio_read) !== 0)
      this.trace(`mmio_read cpu ${this.index} addr 0x${hex(address)} size ${size} value 0x${hex(value)}`);
    return value >>> 0;
  }
  writeMmio(address: number, size: 1 | 2 | 4, value: number): void {
    const { machine } = this;
    this.#counts[CounterIndex.MMIO]++;
    machine.shared.lock.acquire();
    machine.pci.sync();
    const apic = machine.apics.apics[this.index];
    const offset = address - (apic.mmioBase ?? -1e15);
    if (offset >= 0 && offset < 0x1000) apic.write(offset, size, value);
    else machine.mmio.write(address, size, value);
    machine.shared.lock.release();
    if ((machine.control.trace & Trace.mmio_write) !== 0)
      this.trace(`mmio_write cpu ${this.index} addr 0x${hex(address)} size ${size} value 0x${hex(value)}`);
  }

  /** A debug console whose reader is behind holds the vCPU up, unless the machine is to stand still. */
  #letDrain(): void {
    const { debugcons, shared } = this.#machine;
    for (const debugcon of debugcons)
      while (debugcon.congested && (Atomics.load(this.#state, S.PENDING >> 2) & S.Pending.STOP) === 0) {
        Atomics.wait(this.#state, S.WAKE >> 2, Atomics.load(this.#state, S.WAKE >> 2), DRAIN_MS);
        shared.lock.hold(() => debugcon.drained());
      }
  }

  get machine(): Machine {
    return this.#machine;
  }

  acknowledge(): number {
    const { machine } = this;
    machine.shared.lock.acquire();
    const apic = machine.apics.apics[this.index];
    let vector: number;
    if (apic.extIntPending()) {
      vector = machine.pic.acknowledge();
      apic.acknowledgeExtInt();
    } else vector = apic.acknowledge();
    if (apic.interruptPending()) Atomics.or(this.#state, S.PENDING >> 2, S.Pending.INTR);
    machine.shared.lock.release();
    return vector;
  }

  performanceInterrupt(): void {
    this.#machine.shared.lock.hold(() => this.#machine.apics.apics[this.index].performance());
  }
  performanceTimer(ns: number): void {
    const { machine } = this;
    const timer = machine.performanceTimers[this.index];
    machine.shared.lock.hold(() => (ns === Infinity ? timer.disarm() : timer.arm(machine.clock.now() + ns)));
  }

  tsc(): number {
    return Math.floor(this.#machine.clock.now() + this.#tsc.offset);
  }
  cycles(): number {
    if (this.#machine.clock.isCounting) return this.tsc();
    return Math.floor(threadNs() * (TSC_HZ / 1e9));
  }
  setTsc(value: number): void {
    const { machine } = this;
    machine.shared.lock.hold(() => {
      this.#tsc.offset = value - machine.clock.now();
      machine.apics.apics[this.index].tscChanged();
    });
  }
  tscToNs(ticks: number): number {
    return ticks - this.#tsc.offset;
  }

  readApicMsr(index: number): { low: number; high: number } | undefined | false {
    if (!isApicMsr(index)) return undefined;
    const { machine } = this;
    return machine.shared.lock.hold(() => {
      const good = machine.apics.apics[this.index].readMsr(index, this.#pair);
      return good ? { low: this.#pair[0] | 0, high: this.#pair[1] | 0 } : false;
    });
  }
  writeApicMsr(index: number, low: number, high: number): boolean | undefined {
    if (!isApicMsr(index)) return undefined;
    const { machine } = this;
    return machine.shared.lock.hold(() => machine.apics.apics[this.index].writeMsr(index, low >>> 0, high >>> 0));
  }
  readTpr(): number {
    const { machine } = this;
    return machine.shared.lock.hold(() => machine.apics.apics[this.index].cr8 << 4);
  }
  writeTpr(value: number): void {
    const { machine } = this;
    machine.shared.lock.hold(() => {
      machine.apics.apics[this.index].cr8 = value >> 4;
    });
  }

  /** The structures of KVM's paravirtual clock: the TSC counts nanoseconds, so the scale is one. */
  kvmClock(msr: number, low: number, high: number): void {
    const { memory, clock } = this.#machine;
    const address = (high >>> 0) * 4294967296 + (low & ~3 & 0xffffffff) + (low < 0 ? 4294967296 : 0);
    if (msr === MSR.KVM_SYSTEM_TIME) {
      if ((low & 1) === 0) return;
      const at = address;
      const version = (memory.read32(at) + 1) | 1;
      memory.write32(at, version >>> 0);
      const tsc = this.tsc();
      memory.write64(at + 8, tsc);
      // The moment of that very reading: vCPUs must not differ by what lies between two.
      memory.write64(at + 16, tsc - Math.floor(this.#tsc.offset));
      memory.write32(at + 24, 0x80000000);
      memory.write8(at + 28, 1);
      memory.write8(at + 29, 1);
      memory.write32(at, (version + 1) >>> 0);
      return;
    }
    const boot = clock.wallTime() - clock.now() / 1e6;
    memory.write32(address, 1);
    memory.write32(address + 4, Math.floor(boot / 1000) >>> 0);
    memory.write32(address + 8, Math.floor((boot % 1000) * 1e6));
    memory.write32(address, 2);
  }

  kick(apicId: number): void {
    const { machine } = this;
    if (apicId >= this.count) return;
    Atomics.store(machine.vcpuStates[apicId], S.KICKED >> 2, 1);
    machine.notifyCpu(apicId, 0);
  }
  sendIpis(low: number, high: number, first: number, icr: number): number {
    const { machine } = this;
    const delivery = (icr >> 8) & 7;
    if (delivery !== Delivery.fixed && delivery !== Delivery.nmi) return 0;
    return machine.shared.lock.hold(() => {
      let sent = 0;
      for (const apic of machine.apics.apics) {
        const n = apic.apicId - first;
        if (n < 0 || n >= 64 || (((n < 32 ? low : high) >>> (n & 31)) & 1) === 0) continue;
        if (apic.accept(icr & 0xff, false, delivery)) sent++;
      }
      return sent;
    });
  }
  setSmm(inside: boolean): void {
    const { machine } = this;
    machine.shared.lock.hold(() => machine.setSmm(inside));
  }
  a20(): boolean {
    return this.#machine.a20Enabled;
  }
  relax(): void {
    if (this.count === 1) return;
    // An interrupt ends the nap; otherwise it is as short as the host can make it.
    const seen = Atomics.load(this.#state, S.WAKE >> 2);
    if (Atomics.load(this.#state, S.PENDING >> 2) === 0) Atomics.wait(this.#state, S.WAKE >> 2, seen, NAP_MS);
  }

  tripleFault(): void {
    this.#machine.request(Request.TRIPLE_FAULT);
  }
  random(): number {
    return this.#machine.random();
  }
  lockBus(): void {
    this.#machine.shared.busLock.acquire();
  }
  unlockBus(): void {
    this.#machine.shared.busLock.release();
  }
}

const isApicMsr = (index: number): boolean =>
  index === MSR_APIC_BASE || index === MSR_TSC_DEADLINE || (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
