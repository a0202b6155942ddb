/** A machine for the tests of monitors: settable state, recorded calls, 4 MiB of memory. */

import type { QKeyCode } from '../bus/keys.ts';
import type { MachineStats } from '../contract/stats.ts';
import type {
  CharClient,
  Chardev,
  CharPort,
  CpuRegisters,
  InputEvent,
  MachineCheckError,
  MachineControl,
  MachineEvent,
  RunState,
  SegmentRegister,
  VcpuInfo,
} from './machine-control.ts';

const segment = (selector: number, base: bigint, limit: number, attributes: number): SegmentRegister => ({
  selector,
  base,
  limit,
  attributes,
});

/** The registers after reset (SDM 3A table 10-1). */
export function resetRegisters(cpu = 0): CpuRegisters {
  const data = segment(0, 0n, 0xffff, 0x9300);
  return {
    cpu,
    gpr: [0n, 0n, 0x60fb1n, ...Array<bigint>(13).fill(0n)],
    rip: 0xfff0n,
    rflags: 2n,
    cpl: 0,
    halted: false,
    smm: false,
    a20: true,
    interruptShadow: false,
    es: data,
    cs: segment(0xf000, 0xffff0000n, 0xffff, 0x9b00),
    ss: data,
    ds: data,
    fs: data,
    gs: data,
    ldt: segment(0, 0n, 0xffff, 0x8200),
    tr: segment(0, 0n, 0xffff, 0x8b00),
    gdt: { base: 0n, limit: 0xffff },
    idt: { base: 0n, limit: 0xffff },
    cr0: 0x60000010n,
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    cr8: 0n,
    dr: [0n, 0n, 0n, 0n, 0xffff0ff0n, 0x400n],
    efer: 0n,
    fpu: { control: 0x37f, status: 0, tag: 0, registers: Array.from({ length: 8 }, () => ({ mantissa: 0n, exponent: 0 })) },
    mxcsr: 0x1f80,
    xmm: Array.from({ length: 16 }, () => [0n, 0n] as const),
  };
}

/** Registers of a 64-bit kernel with its page tables at `cr3`. */
export function longModeRegisters(cr3: bigint): CpuRegisters {
  return {
    ...resetRegisters(),
    gpr: Array.from({ length: 16 }, (_, index) => BigInt(index) * 0x1111_1111_1111_1111n),
    rip: 0xffff_ffff_8100_0000n,
    rflags: 0x246n,
    cs: segment(0x10, 0n, 0xffffffff, 0xaf9b00),
    ss: segment(0x18, 0n, 0xffffffff, 0xcf9300),
    ds: segment(0, 0n, 0, 0),
    tr: segment(0x40, 0xfffffe0000003000n, 0x4087, 0x8b00),
    gdt: { base: 0xfffffe0000001000n, limit: 0x7f },
    idt: { base: 0xfffffe0000000000n, limit: 0xfff },
    cr0: 0x80050033n,
    cr3,
    cr4: 0x3506f0n,
    efer: 0xd01n,
  };
}

export class FakeMachine implements MachineControl {
  name: string | undefined = 'demo';
  uuid = '00000000-0000-0000-0000-000000000000';
  accelerator = 'jit' as const;
  readonly exited: Promise<number>;
  readonly calls: string[] = [];
  readonly memory = new Uint8Array(4 << 20);
  state: RunState = 'running';
  cpus: VcpuInfo[] = [0, 1].map((index) => ({
    index,
    threadId: 100 + index,
    apicId: index,
    halted: index === 1,
    arch: 'x86_64' as const,
    socketId: 0,
    coreId: index,
    smtId: 0,
  }));
  current: CpuRegisters = resetRegisters();
  readonly events: InputEvent[] = [];
  readonly trace = new Map([
    ['uart_write', false],
    ['uart_read', false],
    ['pit_fire', true],
  ]);
  password: string | undefined;
  #finish: (status: number) => void = () => {};
  readonly #listeners = new Set<(event: MachineEvent) => void>();

  constructor() {
    this.exited = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  send(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** The guest ended the machine by itself. */
  finish(status: number): void {
    this.send({ name: 'SHUTDOWN', guest: true, reason: 'guest-shutdown' });
    this.#finish(status);
  }

  status(): RunState {
    return this.state;
  }

  async stop(): Promise<void> {
    this.state = 'paused';
    this.send({ name: 'STOP' });
  }

  async cont(): Promise<void> {
    this.state = 'running';
    this.send({ name: 'RESUME' });
  }

  async systemReset(): Promise<void> {
    this.send({ name: 'RESET', guest: false, reason: 'host-qmp-system-reset' });
  }

  async systemPowerdown(): Promise<void> {
    this.send({ name: 'POWERDOWN' });
  }
  async injectNmi(): Promise<void> {
    this.calls.push('nmi');
  }
  async injectMachineCheck(cpu: number, { bank, status }: MachineCheckError): Promise<void> {
    this.calls.push(`mce ${cpu} ${bank} ${status}`);
  }

  async quit(cause: string, status = 0): Promise<void> {
    this.calls.push(`quit ${cause}`);
    this.send({ name: 'SHUTDOWN', guest: false, reason: 'host-qmp-quit' });
    this.#finish(status);
  }

  vcpus(): readonly VcpuInfo[] {
    return this.cpus;
  }

  async registers(cpu: number): Promise<CpuRegisters> {
    return { ...this.current, cpu };
  }

  readPhysical(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length).fill(0xff);
    if (address < this.memory.length) bytes.set(this.memory.subarray(address, address + length));
    return bytes;
  }

  readPort(port: number): number {
    return port & 0xff;
  }

  writePort(port: number, size: number, value: number): void {
    this.calls.push(`port ${port} ${size} ${value}`);
  }

  memoryTree() {
    return {
      memory: [{ base: 0, length: 0xa0000, kind: 'ram' as const, name: 'pc.ram' }],
      ports: [{ base: 0x3f8, length: 8, kind: 'i/o' as const, name: 'serial' }],
    };
  }

  describe(name: string): string | undefined {
    return name === 'pic' ? 'pic0: irr=00' : undefined;
  }

  descriptions() {
    return [{ name: 'pic', help: 'show the interrupt controllers' }];
  }

  async sendKeys(keys: readonly QKeyCode[], holdMs: number): Promise<void> {
    this.calls.push(`keys ${keys.join('-')} ${holdMs}`);
  }

  inputEvents(events: readonly InputEvent[]): void {
    this.events.push(...events);
  }

  async screendump(format: 'png' | 'ppm'): Promise<Uint8Array> {
    return new TextEncoder().encode(`image ${format}`);
  }

  statistics(): MachineStats {
    return { timestamp: 1, machineNs: 2, vcpus: [], memory: { totalBytes: 4 << 20, usedBytes: null, residentBytes: 0 }, mips: 3 };
  }

  traceEvents(pattern: string) {
    const expression = new RegExp(`^${pattern.replaceAll('*', '.*')}$`);
    return [...this.trace].filter(([name]) => expression.test(name)).map(([name, enabled]) => ({ name, enabled }));
  }

  setTrace(pattern: string, enabled: boolean): number {
    const found = this.traceEvents(pattern);
    for (const { name } of found) this.trace.set(name, enabled);
    return found.length;
  }

  setVncPassword(password: string | undefined): void {
    this.password = password;
  }

  subscribe(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** A character device in memory. */
export class FakeChardev implements Chardev {
  readonly id = 'fake';
  readonly filename = 'fake';
  open = true;
  terminal = false;
  output = '';
  /** How many bytes it takes before it is full. */
  capacity = Number.POSITIVE_INFINITY;
  client: CharClient | undefined;
  #input: number[] = [];

  get attached(): boolean {
    return this.client !== undefined;
  }

  attach(client: CharClient): CharPort {
    this.client = client;
    const device = this;
    return {
      get open() {
        return device.open;
      },
      write: (data) => {
        const taken = Math.min(data.length, this.capacity);
        this.capacity -= taken;
        this.output += new TextDecoder().decode(data.subarray(0, taken));
        return taken;
      },
      resume: () => this.#pump(),
      detach: () => {
        this.client = undefined;
      },
    };
  }

  type(text: string): void {
    this.#input.push(...new TextEncoder().encode(text));
    this.#pump();
  }

  setOpen(open: boolean): void {
    this.open = open;
    this.client?.setOpen?.(open);
  }

  #pump(): void {
    while (this.#input.length > 0) {
      const room = this.client?.room() ?? 0;
      if (room === 0) return;
      this.client?.receive(Uint8Array.from(this.#input.splice(0, room)));
    }
  }
}

/** Lets all promises that can settle do so. */
export const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));
