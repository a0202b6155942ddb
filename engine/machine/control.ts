/**
 * The machine as its monitors and the app see it: lifecycle, input, screen, registers, statistics. Runs on the control
 * thread of a VM process, beside the display and the character devices.
 */
import type { MachineStats, VcpuStats } from '../contract/stats.ts';
import { keyOfKeysym, keyOfScancode } from '../devices/keycodes.ts';
import { DisplayPump } from '../display/pump.ts';
import { Framebuffer } from '../display/framebuffer.ts';
import { encodePng } from '../display/png.ts';
import { encodePpm } from '../display/ppm.ts';
import { RfbServer } from '../display/server.ts';
import { VgaRenderer } from '../devices/vga-render.ts';
import { nodeCompression } from '../host/deflate.ts';
import { type HostThread, residentBytes, threadCpuNs } from '../host/platform.ts';
import { listenRfb, type RfbListener } from '../host/rfb-listener.ts';
import * as S from '../memory/vcpu-state.ts';
import {
  type CharPort,
  type CpuRegisters,
  type InputEvent,
  type MachineControl,
  type MachineEvent,
  type MachineHooks,
  type MemoryRegion,
  MonitorError,
  type RunState,
  type ShutdownCause,
  type TraceEvent,
  type VcpuInfo,
  type VncInfo,
} from '../monitor/machine-control.ts';
import type { QKeyCode } from '../monitor/keys.ts';
import type { System } from '../x86/system/helpers.ts';
import { buildAcpi } from './acpi/tables.ts';
import { CounterIndex, Request } from './control-words.ts';
import { LOW_RAM_LIMIT } from './layout.ts';
import { BootError, type BootFiles, loadKernel } from './linux-boot.ts';
import { type Machine, PM_BASE, SCI, SERIAL_PORTS } from './machine.ts';
import { assignResources } from '../devices/pci-host.ts';
import { readRegisters } from './registers.ts';
import { makeSystem } from './threads.ts';
import type { VcpuBus } from './vcpu-bus.ts';
import { IOAPIC_DEFAULT_BASE } from '../devices/ioapic.ts';
import type { ByteRing } from '../memory/ring.ts';
import type { Uart16550 } from '../devices/uart16550.ts';

export interface ControllerParts {
  readonly machine: Machine;
  readonly buses: readonly VcpuBus[];
  readonly files: BootFiles;
  readonly font: Uint8Array | undefined;
  readonly hooks: MachineHooks;
}

/** A reader of what a serial port sends. */
export type SerialListener = (data: Uint8Array) => void;

interface SerialLine {
  readonly ring: ByteRing;
  readonly uart: Uart16550 | undefined;
  readonly port: CharPort | undefined;
  readonly listeners: Set<SerialListener>;
  /** What was sent last, for a newcomer. */
  history: Uint8Array;
  /** Input that the UART had no room for yet. */
  waiting: Uint8Array;
}

const HISTORY_BYTES = 256 * 1024;
const INPUT_LIMIT = 64 * 1024;
/** ACPI tables lie in the last 64 KiB of low RAM. */
const TABLE_BYTES = 0x10000;
const RSDP_AT = 0xf5a00;

export class MachineController implements MachineControl {
  readonly name: string | undefined;
  readonly uuid: string;
  readonly accelerator = 'jit' as const;
  readonly exited: Promise<number>;
  readonly rfb: RfbServer | undefined;
  readonly #machine: Machine;
  readonly #systems: readonly System[];
  readonly #parts: ControllerParts;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #threads: HostThread[] = [];
  readonly #serial: SerialLine[] = [];
  readonly #pump: DisplayPump | undefined;
  #status: RunState = 'prelaunch';
  #resolveExited: (status: number) => void = () => {};
  #vnc: RfbListener | undefined;
  #vncPassword = false;
  #ended = false;
  #lastSample = { at: 0, instructions: 0 };
  #buttons = 0;
  #pointer: { x: number; y: number } | undefined;

  constructor(parts: ControllerParts) {
    const { machine, buses } = parts;
    this.#parts = parts;
    this.#machine = machine;
    this.name = machine.config.name === '' ? undefined : machine.config.name;
    this.uuid = machine.config.uuid;
    this.exited = new Promise((resolve) => {
      this.#resolveExited = resolve;
    });
    this.#systems = buses.map((bus) => makeSystem(machine, bus));
    machine.clock.initialize(startTime(machine.config.rtc.base));
    if (machine.vga !== undefined) {
      const framebuffer = new Framebuffer();
      const renderer = new VgaRenderer(machine.vga, machine.vram);
      this.rfb = new RfbServer({
        framebuffer,
        compression: nodeCompression,
        name: machine.config.name || 'Vivarium',
        password: machine.config.sockets.vnc?.password || undefined,
        requirePassword: machine.config.sockets.vnc?.password === '',
        input: {
          key: ({ scancode, keysym }, down) => this.#key(scancode, keysym, down),
          pointer: (x, y, buttons) => this.#movePointer(x, y, buttons),
          clipboard: () => {},
        },
      });
      this.#vncPassword = machine.config.sockets.vnc?.password !== undefined;
      this.#pump = new DisplayPump({ framebuffer, server: this.rfb, refresh: (surface) => this.#refresh(renderer, surface) });
    }
    this.#attachSerial();
    void this.#serve();
  }

  /** Opens the VNC socket; rejects when the address is taken. */
  async listen(): Promise<void> {
    const { vnc } = this.#machine.config.sockets;
    if (vnc === undefined || this.rfb === undefined) return;
    const { address } = vnc;
    try {
      this.#vnc = await listenRfb(
        this.rfb,
        address.type === 'unix' ? { kind: 'unix', path: address.path } : { kind: 'tcp', host: address.host, port: address.port, lastPort: address.port },
      );
    } catch (error) {
      throw new BootError('port-in-use', 'sockets.vnc', error instanceof Error ? error.message : String(error));
    }
  }

  adopt(thread: HostThread): void {
    this.#threads.push(thread);
    thread.onFailed((error) => {
      this.#parts.hooks.warn(`a thread of the machine failed: ${error}`);
      void this.#finish('host-error', false, 1);
    });
  }

  // --- power ------------------------------------------------------------------------------------------------------

  /** Puts everything into the state of power-on and loads what is booted. The vCPUs must not be running. */
  powerOn(): void {
    const machine = this.#machine;
    const { config, layout, memory } = machine;
    machine.shared.lock.hold(() => {
      machine.resetDevices();
      machine.cmos.configure({
        ramBelow4G: Math.min(layout.ramBytes, LOW_RAM_LIMIT),
        ramAbove4G: Math.max(0, layout.ramBytes - LOW_RAM_LIMIT),
        cpus: layout.cpus,
        bootOrder: [2],
      });
      for (const [n, system] of this.#systems.entries()) {
        system.registers.reset(false);
        machine.control.waitsForSipi[n] = n === 0 ? 0 : 1;
        machine.control.inboxCount[n] = 0;
        Atomics.store(system.cpu.i32, S.PENDING >> 2, 0);
      }
      // What a firmware would have done.
      machine.host440.openShadow();
      machine.piix4.enablePm(PM_BASE);
      machine.piix3.steer([10, 10, 11, 11]);
      machine.pic.elcr.write(0, 2, (1 << 10) | (1 << 11) | (1 << SCI));
      const lowRam = Math.min(layout.ramBytes, LOW_RAM_LIMIT);
      const windows = { io: { first: 0xc000, end: 0xfe00 }, memory: { first: Math.max(lowRam, 0xe0000000), end: 0xfebf0000 } };
      const refused = assignResources(machine.pci, windows, [10, 10, 11, 11]);
      for (const name of refused) this.#parts.hooks.warn(`no address space for ${name}`);
      machine.pci.sync();
      if (machine.vga !== undefined && this.#parts.font !== undefined) machine.vga.loadTextMode(this.#parts.font);
      const tablesAt = lowRam - TABLE_BYTES;
      const acpi = buildAcpi({
        apicIds: this.#systems.map((_, n) => n),
        ioapic: { id: layout.cpus, base: IOAPIC_DEFAULT_BASE },
        pm: { base: PM_BASE, sci: SCI, timer32: false, sleepType5: 0 },
        reset: { port: 0xcf9, value: 6 },
        pci: { memory32: windows.memory, routing: 'pirq' },
        serial: config.serial.map((_, n) => SERIAL_PORTS[n]),
        ps2: true,
        vga: machine.vga !== undefined,
      }).place(tablesAt, RSDP_AT);
      for (const { address, bytes } of [acpi.tables, acpi.rsdp]) memory.write(address, bytes);
      machine.pm.enableAcpi();
      const reserved = { start: tablesAt, end: lowRam };
      loadKernel({ memory, system: this.#systems[0], reserved, rsdp: RSDP_AT }, this.#parts.files);
    });
  }

  status(): RunState {
    return this.#status;
  }

  /** Holds all vCPUs; resolves when they stand. */
  async #park(): Promise<void> {
    const { control, layout } = this.#machine;
    Atomics.store(control.running, 0, 0);
    this.#machine.clock.stop();
    for (let n = 0; n < layout.cpus; n++) this.#machine.notifyCpu(n, S.Pending.STOP);
    while (Atomics.load(control.parked, 0) < layout.cpus && !this.#ended) await this.#wait(control.parked, Atomics.load(control.parked, 0));
  }

  async #wait(word: Int32Array, seen: number): Promise<void> {
    // Parked vCPUs ring the control bell, not this word; look again soon.
    void word;
    void seen;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }

  #release(): void {
    const { control } = this.#machine;
    this.#machine.clock.start();
    Atomics.store(control.running, 0, 1);
    Atomics.notify(control.running, 0);
  }

  async stop(): Promise<void> {
    if (this.#status !== 'running') return;
    this.#status = 'paused';
    await this.#park();
    this.#emit({ name: 'STOP' });
  }

  async cont(): Promise<void> {
    if (this.#status === 'running') return;
    if (this.#status === 'shutdown' || this.#status === 'internal-error')
      throw new MonitorError('Resetting the Virtual Machine is required');
    this.#status = 'running';
    this.#release();
    this.#emit({ name: 'RESUME' });
  }

  async systemReset(): Promise<void> {
    await this.#reset(false, 'host-qmp-system-reset');
  }

  async #reset(guest: boolean, reason: ShutdownCause): Promise<void> {
    if (this.#machine.config.lifecycle.onReboot === 'exit') {
      await this.#finish(reason, guest, 0);
      return;
    }
    const wasRunning = this.#status === 'running';
    await this.#park();
    this.powerOn();
    this.#emit({ name: 'RESET', guest, reason });
    if (wasRunning) this.#release();
    else if (this.#status === 'shutdown') this.#status = 'paused';
  }

  async systemPowerdown(): Promise<void> {
    this.#machine.shared.lock.hold(() => this.#machine.pm.powerButton());
    this.#emit({ name: 'POWERDOWN' });
  }

  async quit(cause: ShutdownCause, status = 0): Promise<void> {
    await this.#finish(cause, false, status);
  }

  async #finish(reason: ShutdownCause, guest: boolean, status: number): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#status = 'shutdown';
    const { control, layout } = this.#machine;
    this.#drainAll();
    this.#emit({ name: 'SHUTDOWN', guest, reason });
    Atomics.store(control.ending, 0, 1);
    Atomics.store(control.running, 0, 1);
    Atomics.notify(control.running, 0);
    for (let n = 0; n < layout.cpus; n++) this.#machine.notifyCpu(n, S.Pending.STOP);
    this.#machine.clock.wakeUp();
    this.#pump?.stop();
    this.rfb?.close();
    await this.#vnc?.close();
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
    this.#resolveExited(status);
  }

  /** Answers what vCPUs and devices ask for, and carries serial output away. */
  async #serve(): Promise<void> {
    const { control } = this.#machine;
    while (!this.#ended) {
      const seen = Atomics.load(control.bell, 0);
      const requests = Atomics.exchange(control.requests, 0, 0);
      this.#drainAll();
      if (requests !== 0) await this.#handle(requests);
      const wait = Atomics.waitAsync(control.bell, 0, seen, 1000);
      if (wait.async) await wait.value;
    }
  }

  async #handle(requests: number): Promise<void> {
    const { control, config } = this.#machine;
    if ((requests & Request.DEBUG_EXIT) !== 0) await this.#finish('guest-shutdown', true, control.debugExit);
    else if ((requests & Request.POWEROFF) !== 0) {
      if (config.lifecycle.onPoweroff === 'pause') {
        await this.#park();
        this.#status = 'shutdown';
        this.#emit({ name: 'SHUTDOWN', guest: true, reason: 'guest-shutdown' });
      } else await this.#finish('guest-shutdown', true, 0);
    } else if ((requests & (Request.RESET | Request.TRIPLE_FAULT)) !== 0) await this.#reset(true, 'guest-reset');
  }

  #emit(event: MachineEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  subscribe(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // --- serial ports -----------------------------------------------------------------------------------------------

  #attachSerial(): void {
    const machine = this.#machine;
    const { chardevs } = this.#parts.hooks;
    const add = (ring: ByteRing, uart: Uart16550 | undefined, chardev: string | undefined): void => {
      const n = this.#serial.length;
      const device = chardev === undefined ? undefined : chardevs.get(chardev);
      const port = device?.attach({
        room: () => (uart === undefined ? 4096 : machine.shared.lock.hold(() => uart.room())),
        receive: (data) => {
          if (uart !== undefined) machine.shared.lock.hold(() => uart.receive(data));
        },
        drained: () => this.#drain(this.#serial[n]),
      });
      this.#serial.push({ ring, uart, port, listeners: new Set(), history: new Uint8Array(), waiting: new Uint8Array() });
    };
    for (const [n, serial] of machine.config.serial.entries())
      add(machine.serialRings[n], machine.uarts[n], serial.connect === 'chardev' ? serial.chardev : undefined);
    const consoles = machine.config.devices.filter((device) => device.driver === 'isa-debugcon');
    for (const [n, ring] of machine.debugRings.entries()) add(ring, undefined, consoles[n]?.properties.chardev);
  }

  /** Follows serial port `index`; first gets what was sent before. */
  openSerial(index: number, listener: SerialListener): { write(data: Uint8Array): void; close(): void } | undefined {
    const line = this.#serial[index];
    if (line === undefined || line.uart === undefined) return undefined;
    if (line.history.length > 0) listener(line.history);
    line.listeners.add(listener);
    return {
      write: (data) => {
        if (line.waiting.length + data.length > INPUT_LIMIT) return;
        const joined = new Uint8Array(line.waiting.length + data.length);
        joined.set(line.waiting);
        joined.set(data, line.waiting.length);
        line.waiting = joined;
        this.#feed(line);
      },
      close: () => {
        line.listeners.delete(listener);
      },
    };
  }

  #feed(line: SerialLine): void {
    const { uart } = line;
    if (uart === undefined || line.waiting.length === 0) return;
    this.#machine.shared.lock.hold(() => {
      const count = Math.min(uart.room(), line.waiting.length);
      if (count === 0) return;
      uart.receive(line.waiting.subarray(0, count));
      line.waiting = line.waiting.slice(count);
    });
  }

  #drainAll(): void {
    for (const line of this.#serial) {
      this.#drain(line);
      this.#feed(line);
      if (line.uart !== undefined) line.port?.resume();
    }
  }

  #drain(line: SerialLine): void {
    for (;;) {
      const data = line.ring.peek(16384);
      if (data.length === 0) return;
      const taken = line.port === undefined ? data.length : line.port.write(data);
      if (taken === 0) return;
      const sent = data.subarray(0, taken);
      line.ring.consume(taken);
      for (const listener of line.listeners) listener(sent);
      const joined = new Uint8Array(Math.min(HISTORY_BYTES, line.history.length + taken));
      const kept = line.history.subarray(Math.max(0, line.history.length + taken - HISTORY_BYTES));
      joined.set(kept);
      joined.set(sent.subarray(Math.max(0, taken - HISTORY_BYTES)), kept.length);
      line.history = joined;
      // The UART may hold a byte that found the ring full.
      if (line.uart !== undefined) this.#machine.shared.lock.hold(() => line.uart?.drained());
    }
  }

  // --- input and screen -------------------------------------------------------------------------------------------

  #key(scancode: number | undefined, keysym: number, down: boolean): void {
    const key = (scancode === undefined ? undefined : keyOfScancode(scancode)) ?? keyOfKeysym(keysym);
    if (key === undefined) return;
    this.#machine.shared.lock.hold(() => this.#machine.keyboard.key(key, down));
  }

  #movePointer(x: number, y: number, buttons: number): void {
    const last = this.#pointer ?? { x, y };
    this.#pointer = { x, y };
    const wheel = ((buttons & 8) !== 0 ? -1 : 0) + ((buttons & 16) !== 0 ? 1 : 0);
    const held = (buttons & 1) | ((buttons & 4) >> 1) | ((buttons & 2) << 1);
    if (x === last.x && y === last.y && held === this.#buttons && wheel === 0) return;
    this.#buttons = held;
    this.#machine.shared.lock.hold(() => this.#machine.mouse.move(x - last.x, y - last.y, wheel, held));
  }

  async sendKeys(keys: readonly QKeyCode[], holdMs: number): Promise<void> {
    const { keyboard, shared } = this.#machine;
    for (const key of keys) shared.lock.hold(() => keyboard.key(key as never, true));
    await new Promise((resolve) => setTimeout(resolve, holdMs));
    for (const key of [...keys].reverse()) shared.lock.hold(() => keyboard.key(key as never, false));
  }

  inputEvents(events: readonly InputEvent[]): void {
    const { keyboard, mouse, shared } = this.#machine;
    shared.lock.hold(() => {
      let dx = 0;
      let dy = 0;
      let wheel = 0;
      for (const event of events) {
        if (event.type === 'key') keyboard.key(event.key as never, event.down);
        else if (event.type === 'rel') {
          if (event.axis === 'x') dx += event.value;
          else dy += event.value;
        } else if (event.type === 'btn') {
          const bit = { left: 1, right: 2, middle: 4, side: 8, extra: 16 }[event.button as string] ?? 0;
          if (event.button === 'wheel-up' && event.down) wheel -= 1;
          if (event.button === 'wheel-down' && event.down) wheel += 1;
          this.#buttons = event.down ? this.#buttons | bit : this.#buttons & ~bit;
        }
      }
      mouse.move(dx, dy, wheel, this.#buttons);
    });
  }

  #refresh(renderer: VgaRenderer, surface: Framebuffer): void {
    const machine = this.#machine;
    machine.shared.lock.hold(() => {
      machine.pci.sync();
      renderer.capture();
    });
    const frame = renderer.draw({ dirty: this.#dirtyVram(), time: machine.clock.now() / 1e6 });
    if (surface.width !== frame.width || surface.height !== frame.height) surface.resize(frame.width, frame.height);
    for (const { x, y, width, height } of frame.changed) {
      for (let row = y; row < y + height; row++) {
        const at = row * frame.width + x;
        surface.pixels.set(renderer.pixels.subarray(at, at + width), at);
      }
      surface.markDirty(x, y, width, height);
    }
  }

  /** Takes the dirty marks of video memory: a page written after this is marked again. */
  #dirtyVram(): (offset: number, length: number) => boolean {
    const { memory, layout, allTlbs } = this.#machine;
    const first = memory.pageOf(layout.vram);
    const count = layout.vramBytes / 4096;
    const pages = memory.dirty.slice(first, first + count);
    if (pages.some((mark) => mark !== 0)) {
      memory.dirty.fill(0, first, first + count);
      for (const tlb of allTlbs)
        for (let at = 0; at < tlb.length; at += S.TLB_ENTRY_BYTES / 4)
          if (tlb[at + 6] >= first && tlb[at + 6] < first + count) tlb[at + 2] = -1;
    }
    return (offset, length) => {
      for (let page = offset >> 12; page <= (offset + length - 1) >> 12; page++) if (pages[page] !== 0) return true;
      return false;
    };
  }

  async screendump(format: 'png' | 'ppm'): Promise<Uint8Array> {
    if (this.#pump === undefined) throw new MonitorError('this machine has no display (-vga none)');
    const shot = this.#pump.screenshot();
    return format === 'png' ? encodePng(shot, nodeCompression) : encodePpm(shot);
  }

  setVncPassword(password: string | undefined): void {
    this.#vncPassword = password !== undefined;
    this.rfb?.setPassword(password);
  }

  vncInfo(): VncInfo {
    const { vnc } = this.#machine.config.sockets;
    const address = this.#vnc === undefined ? undefined : vnc?.address;
    const clients = (this.rfb?.clients() ?? []).map((client) => ({ host: client.peer, port: 0, family: 'unknown' as const }));
    return {
      host: address === undefined ? '' : address.type === 'unix' ? address.path : address.host,
      port: this.#vnc?.port ?? 0,
      family: address === undefined ? 'unknown' : address.type === 'unix' ? 'unix' : address.host.includes(':') ? 'ipv6' : 'ipv4',
      auth: this.#vncPassword ? 'vnc' : 'none',
      clients,
    };
  }

  // --- looking inside ---------------------------------------------------------------------------------------------

  vcpus(): readonly VcpuInfo[] {
    const { control } = this.#machine;
    return this.#systems.map(({ cpu }, index) => ({
      index,
      threadId: control.threadIds[index],
      apicId: index,
      halted: cpu.i32[S.HALTED >> 2] !== 0 || Atomics.load(control.waitsForSipi, index) !== 0,
      arch: 'x86_64',
      socketId: 0,
      coreId: index,
      smtId: 0,
    }));
  }

  async registers(index: number): Promise<CpuRegisters> {
    const system = this.#systems[index];
    if (system === undefined) throw new MonitorError(`CPU ${index} does not exist`);
    const running = this.#status === 'running';
    if (running) await this.#park();
    const registers = readRegisters(system, index);
    if (running && this.#status === 'running') this.#release();
    return registers;
  }

  readPhysical(address: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.#machine.memory.read(address, out);
    return out;
  }
  readPort(port: number, size: 1 | 2 | 4): number {
    return this.#machine.shared.lock.hold(() => this.#machine.ports.read(port, size));
  }
  writePort(port: number, size: 1 | 2 | 4, value: number): void {
    this.#machine.shared.lock.hold(() => this.#machine.ports.write(port, size, value));
  }

  memoryTree(): { readonly memory: readonly MemoryRegion[]; readonly ports: readonly MemoryRegion[] } {
    const machine = this.#machine;
    machine.shared.lock.hold(() => machine.pci.sync());
    const io = (list: readonly { base: number; length: number; name: string }[]): MemoryRegion[] =>
      list.map((range) => ({ ...range, kind: 'i/o' }));
    const memory = machine.memory.regions.map(
      ({ base, length, name, readOnly }): MemoryRegion => ({ base, length, name, kind: readOnly ? 'rom' : 'ram' }),
    );
    return { memory: [...memory, ...io(machine.mmio.list())], ports: io(machine.ports.list()) };
  }

  describe(name: string, cpu: number): string | undefined {
    const machine = this.#machine;
    if (name === 'pic') return machine.shared.lock.hold(() => machine.pic.describe());
    if (name === 'jit') {
      const counts = this.#systems[cpu]?.cpu.f64;
      if (counts === undefined) return undefined;
      const at = S.EXIT_COUNTS >> 3;
      const names = ['lookups', 'faults', 'pending', 'halts', 'resyncs', 'decoded runs', 'interrupts', 'flushes', 'invalidations'];
      return names.map((label, n) => `${label}: ${counts[at + n]}`).join('\n');
    }
    return undefined;
  }
  descriptions(): readonly { readonly name: string; readonly help: string }[] {
    return [
      { name: 'pic', help: 'the interrupt controllers 8259' },
      { name: 'jit', help: "a vCPU's translator: why it was left, and how often" },
    ];
  }

  statistics(): MachineStats {
    const machine = this.#machine;
    const { control } = machine;
    let total = 0;
    const vcpus = this.#systems.map(({ cpu }, index): VcpuStats => {
      const instructions = cpu.getNumber(S.INSTRUCTIONS);
      total += instructions;
      const counts = cpu.f64.subarray(S.EXIT_COUNTS >> 3, (S.EXIT_COUNTS >> 3) + 16);
      const waits = Atomics.load(control.waitsForSipi, index) !== 0;
      return {
        index,
        state: this.#status !== 'running' || waits ? 'stopped' : cpu.i32[S.HALTED >> 2] !== 0 ? 'halted' : 'running',
        hostCpuNs: threadCpuNs(control.threadIds[index]),
        instructions,
        exits: {
          pio: counts[CounterIndex.PIO],
          mmio: counts[CounterIndex.MMIO],
          hlt: counts[3],
          interrupt: counts[6],
          exception: counts[1],
          translate: counts[5],
          invalidate: counts[8],
          other: counts[0] + counts[2] + counts[4],
        },
      };
    });
    const now = performance.now();
    const elapsed = now - this.#lastSample.at;
    const mips = elapsed > 0 ? Math.max(0, (total - this.#lastSample.instructions) / elapsed / 1000) : 0;
    this.#lastSample = { at: now, instructions: total };
    const overhead = machine.layout.ramBytes;
    return {
      timestamp: Date.now(),
      machineNs: Math.floor(machine.clock.now()),
      vcpus,
      memory: { totalBytes: overhead, usedBytes: null, residentBytes: Math.min(residentBytes(), overhead) },
      mips,
    };
  }

  traceEvents(_pattern: string): readonly TraceEvent[] {
    return [];
  }
  setTrace(_pattern: string, _enabled: boolean): number {
    return 0;
  }
}

/** What the guest's clock shows at start, in ms since the epoch read as UTC. */
function startTime(base: string): number {
  if (base === 'utc') return Date.now();
  if (base === 'localtime') return Date.now() - new Date().getTimezoneOffset() * 60_000;
  const instant = Date.parse(base.endsWith('Z') ? base : `${base}Z`);
  return Number.isNaN(instant) ? Date.now() : instant;
}
