/**
 * The machine as its monitors and the app see it: lifecycle, input, screen, registers, statistics. Runs on the control
 * thread of a VM process, beside the display and the character devices.
 */

import type { QKeyCode } from '../bus/keys.ts';
import type { MachineStats } from '../contract/stats.ts';
import { assignResources } from '../devices/pci-host.ts';
import type { RfbServer } from '../display/server.ts';
import type { HostThread } from '../host/platform.ts';
import * as S from '../memory/vcpu-state.ts';
import type { BlockControl } from '../monitor/block-control.ts';
import {
  type CpuRegisters,
  type InputEvent,
  type MachineCheckError,
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
import type { System } from '../x86/system/helpers.ts';
import { injectMachineCheck } from '../x86/system/machine-check.ts';
import { leaveBios } from './bios-remains.ts';
import { MachineBlock } from './block.ts';
import { blockControl } from './block-control.ts';
import { CharLines, type SerialListener } from './char-lines.ts';
import { Request } from './control-words.ts';
import { MachineDebugger } from './debugger.ts';
import type { IoPart } from './drive-list.ts';
import { acpiTables, bootOrder, pciWindow } from './firmware.ts';
import { MachineHotplug } from './hotplug-control.ts';
import { PM_BASE, SCI } from './layout.ts';
import { type BootFiles, loadKernel } from './linux-boot.ts';
import type { Machine } from './machine.ts';
import { readRegisters } from './registers.ts';
import { Screen } from './screen.ts';
import { MachineSnapshots } from './snapshots.ts';
import { Sampler } from './statistics.ts';
import { listTraces, matchingTraces, traceMask } from './trace.ts';
import { translatorText } from './translator-text.ts';
import type { VcpuBus } from './vcpu-bus.ts';
import { makeSystem } from './vcpu-system.ts';

export interface ControllerParts {
  readonly machine: Machine;
  readonly buses: readonly VcpuBus[];
  /** What is booted directly; undefined: a firmware lies in the ROM. */
  readonly files: BootFiles | undefined;
  readonly font: Uint8Array | undefined;
  readonly hooks: MachineHooks;
  /** Keeps the firmware's variables in their file. */
  readonly keeper?: { serve(): void; close(): void };
}

/** ACPI tables lie in the last 64 KiB of low RAM. */
const TABLE_BYTES = 0x10000;
const RSDP_AT = 0xf5a00;
/** How long images may take to be flushed when the machine ends. */
const FLUSH_MS = 60_000;

export class MachineController implements MachineControl {
  readonly name: string | undefined;
  readonly uuid: string;
  readonly accelerator = 'jit' as const;
  readonly exited: Promise<number>;
  readonly block: BlockControl;
  readonly debugger: MachineDebugger;
  readonly #machine: Machine;
  readonly #systems: readonly System[];
  readonly #parts: ControllerParts;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  readonly #threads: HostThread[] = [];
  readonly #drives: HostThread[] = [];
  readonly #lines: CharLines;
  readonly #screen: Screen;
  readonly #sampler: Sampler;
  readonly #drivesOf: MachineBlock;
  readonly #snapshots: MachineSnapshots;
  readonly #hotplug: MachineHotplug;
  #startIo: ((index: number) => HostThread) | undefined;
  /** The machine was switched on before: a reset follows. */
  #wasOn = false;
  #status: RunState = 'prelaunch';
  /** What the machine is to be when what stopped it for a while is done, where that is not what it was before. */
  #after: RunState | undefined;
  #resolveExited: (status: number) => void = () => {};
  #ended = false;

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
    // What comes in before a saved state is loaded would go to devices that the state replaces.
    if (machine.config.lifecycle.restore !== undefined) Atomics.store(machine.control.frozen, 0, 1);
    this.#screen = new Screen(machine);
    this.#lines = new CharLines(machine, parts.hooks.chardevs);
    this.#sampler = new Sampler(
      machine,
      this.#systems.map(({ cpu }) => cpu),
    );
    this.#drivesOf = new MachineBlock(machine, (event, data) => this.#emit({ name: 'OTHER', event, data }));
    this.#snapshots = new MachineSnapshots(machine, this.#drivesOf, {
      status: () => this.#status,
      whileStopped: (state, body, after) => this.#whileStopped(state, body, after),
      becomeStopped: (state) => {
        this.#after = state;
      },
    });
    this.#hotplug = new MachineHotplug(machine, this.#drivesOf, {
      startIo: (index) => {
        if (this.#startIo === undefined) throw new MonitorError('the machine is being made');
        return this.#startIo(index);
      },
      adopt: (io, thread) => {
        this.adopt(thread, true);
        this.linkDrives(io, thread);
      },
      emit: (event, data) => this.#emit({ name: 'OTHER', event, data }),
    });
    this.block = blockControl(this.#drivesOf, this.#snapshots, this.#hotplug);
    this.debugger = new MachineDebugger(machine, this.#systems, {
      running: () => this.#status === 'running',
      stop: () => this.stop(),
      cont: () => this.cont(),
      kill: () => void this.quit('host-signal'),
      ended: this.exited,
    });
    // Whoever else stops the machine, the debugger is told.
    this.subscribe(({ name }) => {
      if (name === 'STOP' && this.#status !== 'debug') this.debugger.tell();
    });
    void this.#serve();
  }

  /** Devices with threads of their own can be plugged in from now on. */
  canPlug(startIo: (index: number) => HostThread): void {
    this.#startIo = startIo;
  }

  /** Connects the thread that serves the drives of `io`. */
  linkDrives(io: IoPart, thread: HostThread): void {
    this.#drivesOf.links.add(io, thread);
  }

  /** Opens the VNC socket; rejects when the address is taken. */
  async listen(): Promise<void> {
    await this.#screen.listen();
  }

  /** Takes a thread over; `drive`: one that has an image to close at the end. */
  adopt(thread: HostThread, drive: boolean): void {
    const list = drive ? this.#drives : this.#threads;
    list.push(thread);
    void thread.ended.then(() => list.splice(list.indexOf(thread), 1));
    thread.onFailed((error) => {
      this.#parts.hooks.warn(`a thread of the machine failed: ${error}`);
      void this.#finish('host-error', false, 1);
    });
  }

  // --- power ------------------------------------------------------------------------------------------------------

  /** Puts everything into the state of power-on and loads what is booted. The vCPUs must not be running. */
  powerOn(): void {
    const machine = this.#machine;
    const { config, layout } = machine;
    machine.shared.lock.hold(() => {
      machine.resetDevices();
      machine.cmos.configure({
        ramBelow4G: layout.lowRamBytes,
        ramAbove4G: layout.ramBytes - layout.lowRamBytes,
        cpus: layout.cpus,
        bootOrder: bootOrder(config, !this.#wasOn),
        floppies: machine.storage.fdc?.kinds,
      });
      this.#wasOn = true;
      for (const [n, system] of this.#systems.entries()) {
        system.registers.reset(false);
        machine.control.waitsForSipi[n] = n === 0 ? 0 : 1;
        machine.control.inboxCount[n] = 0;
        Atomics.store(system.cpu.i32, S.PENDING >> 2, 0);
      }
      const { files } = this.#parts;
      if (files !== undefined) this.#bootKernel(files);
      // Without SMM a firmware must not wait for it: as if it were set up already.
      else if (!machine.hasSmm) machine.chipset.withoutSmm();
    });
  }

  /** Puts the machine into the state in which a firmware would have left it, and loads the kernel. */
  #bootKernel(files: BootFiles): void {
    const machine = this.#machine;
    const { config, layout, memory } = machine;
    const lines = machine.chipset.prepare(PM_BASE);
    machine.pic.elcr.write(0, 2, (1 << 10) | (1 << 11) | (1 << SCI));
    const lowRam = layout.lowRamBytes;
    const windows = { io: { first: 0xc000, end: 0xfe00 }, memory: pciWindow(config, layout) };
    const refused = assignResources(machine.pci, windows, lines);
    for (const name of refused) this.#parts.hooks.warn(`no address space for ${name}`);
    machine.pci.sync();
    if (machine.vga !== undefined && this.#parts.font !== undefined) machine.vga.loadTextMode(this.#parts.font);
    const tablesAt = lowRam - TABLE_BYTES;
    const acpi = acpiTables(config, layout).place(tablesAt, RSDP_AT);
    for (const { address, bytes } of [acpi.tables, acpi.rsdp]) memory.write(address, bytes);
    machine.pm.enableAcpi();
    const reserved = { start: tablesAt, end: lowRam };
    leaveBios(
      machine,
      this.#systems.map(({ cpu }) => cpu),
    );
    loadKernel({ memory, system: this.#systems[0], reserved, rsdp: RSDP_AT }, files);
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
    // Parked vCPUs ring the control bell, not this word; so look again soon. What disks are at is finished too.
    const { drives } = this.#machine;
    while ((Atomics.load(control.parked, 0) < layout.cpus || drives.busy) && !this.#ended)
      await new Promise((resolve) => setTimeout(resolve, 1));
  }

  #release(): void {
    const { control } = this.#machine;
    this.#machine.clock.start();
    Atomics.store(control.running, 0, 1);
    Atomics.notify(control.running, 0);
    this.#machine.drives.ringAll();
  }

  /** Stops the machine, runs `body`, and lets it go on where it ran; see `SnapshotHost`. */
  async #whileStopped<T>(
    state: 'save-vm' | 'restore-vm',
    body: () => Promise<T>,
    after?: (error: unknown) => RunState,
  ): Promise<T> {
    if (this.#ended) throw new MonitorError('the machine is ending');
    const { control } = this.#machine;
    const before = this.#status;
    if (before === 'save-vm' || before === 'restore-vm') throw new MonitorError('the state of the machine is in use');
    this.#status = state;
    this.#after = undefined;
    await this.#park();
    Atomics.store(control.frozen, 0, 1);
    if (before === 'running') this.#emit({ name: 'STOP' });
    let next: RunState = before === 'shutdown' && state === 'restore-vm' ? 'paused' : before;
    try {
      return await body();
    } catch (error) {
      next = after?.(error) ?? before;
      throw error;
    } finally {
      Atomics.store(control.frozen, 0, 0);
      if (state === 'restore-vm') this.#lines.reconnect();
      this.#lines.serve();
      next = this.#after ?? next;
      if (!this.#ended) {
        this.#status = next;
        if (next === 'running') {
          this.#release();
          this.#emit({ name: 'RESUME' });
        }
      }
    }
  }

  async stop(): Promise<void> {
    if (this.#status === 'save-vm' || this.#status === 'restore-vm') this.#after ??= 'paused';
    if (this.#status !== 'running') return;
    this.#status = 'paused';
    await this.#park();
    this.#emit({ name: 'STOP' });
  }

  async cont(): Promise<void> {
    if (this.#status === 'running') return;
    if (this.#status === 'shutdown' || this.#status === 'internal-error')
      throw new MonitorError('Resetting the Virtual Machine is required');
    if (this.#status === 'save-vm' || this.#status === 'restore-vm')
      throw new MonitorError('The state of the machine is being saved or loaded');
    this.#drivesOf.goesOn();
    Atomics.store(this.#machine.debug.stopped, 0, 0);
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
    await this.#hotplug.reset();
    this.powerOn();
    this.#emit({ name: 'RESET', guest, reason });
    if (wasRunning) this.#release();
    else if (this.#status === 'shutdown') this.#status = 'paused';
  }

  async injectNmi(): Promise<void> {
    const machine = this.#machine;
    for (let n = 0; n < machine.layout.cpus; n++) machine.signal(n, 'nmi', 0);
  }

  async injectMachineCheck(cpu: number, error: MachineCheckError): Promise<void> {
    const halves = (value: bigint): [number, number] => [
      Number(BigInt.asIntN(32, value)),
      Number(BigInt.asIntN(32, value >> 32n)),
    ];
    const { bank, status, mcgStatus, address, misc } = error;
    const machine = this.#machine;
    const parts = { status: halves(status), mcgStatus: halves(mcgStatus), address: halves(address), misc: halves(misc) };
    const came = injectMachineCheck(machine.vcpuStates[cpu], { bank, ...parts });
    if (came === 'shutdown') machine.request(Request.TRIPLE_FAULT);
    else machine.notifyCpu(cpu, 0);
  }

  async systemPowerdown(): Promise<void> {
    this.#machine.fromOutside({ kind: 'power' });
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
    this.#lines.serve();
    this.#emit({ name: 'SHUTDOWN', guest, reason });
    Atomics.store(control.ending, 0, 1);
    Atomics.store(control.running, 0, 1);
    Atomics.notify(control.running, 0);
    for (let n = 0; n < layout.cpus; n++) this.#machine.notifyCpu(n, S.Pending.STOP);
    this.#machine.clock.wakeUp();
    await this.#screen.close();
    await this.#drivesOf.close();
    // Images are flushed and closed before the process goes.
    this.#machine.drives.ringAll();
    const patience = new Promise<void>((resolve) => setTimeout(resolve, FLUSH_MS).unref());
    await Promise.race([Promise.all(this.#drives.map((thread) => thread.ended)), patience]);
    await Promise.all([...this.#threads, ...this.#drives].map((thread) => thread.terminate()));
    this.#parts.keeper?.close();
    this.#resolveExited(status);
  }

  /** Answers what vCPUs and devices ask for, and carries serial output away. */
  async #serve(): Promise<void> {
    const { control } = this.#machine;
    while (!this.#ended) {
      const seen = Atomics.load(control.bell, 0);
      const requests = Atomics.exchange(control.requests, 0, 0);
      this.#lines.serve();
      this.#parts.keeper?.serve();
      this.#hotplug.serve();
      if (requests !== 0) await this.#handle(requests);
      const wait = Atomics.waitAsync(control.bell, 0, seen, 1000);
      if (wait.async) await wait.value;
    }
  }

  async #handle(requests: number): Promise<void> {
    const { control, config } = this.#machine;
    if ((requests & Request.DEBUG) !== 0 && this.#status === 'running') {
      this.#status = 'debug';
      await this.#park();
      this.#emit({ name: 'STOP' });
      this.debugger.tell();
    }
    if ((requests & Request.DEBUG_EXIT) !== 0) await this.#finish('guest-shutdown', true, control.debugExit);
    else if ((requests & Request.POWEROFF) !== 0) {
      if (config.lifecycle.onPoweroff === 'pause') {
        await this.#park();
        this.#status = 'shutdown';
        this.#emit({ name: 'SHUTDOWN', guest: true, reason: 'guest-shutdown' });
      } else await this.#finish('guest-shutdown', true, 0);
    } else if ((requests & (Request.RESET | Request.TRIPLE_FAULT)) !== 0) await this.#reset(true, 'guest-reset');
    else if ((requests & Request.IO_ERROR) !== 0 && this.#status === 'running') {
      this.#status = 'io-error';
      await this.#park();
      this.#emit({ name: 'STOP' });
    }
  }

  #emit(event: MachineEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  subscribe(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // --- streams, input and screen ----------------------------------------------------------------------------------

  /** Follows serial port `index`; first gets what was sent before. */
  openSerial(index: number, listener: SerialListener): { write(data: Uint8Array): void; close(): void } | undefined {
    return this.#lines.open(index, listener);
  }

  get rfb(): RfbServer | undefined {
    return this.#screen.rfb;
  }
  sendKeys(keys: readonly QKeyCode[], holdMs: number): Promise<void> {
    return this.#screen.sendKeys(keys, holdMs);
  }
  inputEvents(events: readonly InputEvent[]): void {
    this.#screen.inputEvents(events);
  }
  async screendump(format: 'png' | 'ppm'): Promise<Uint8Array> {
    return this.#screen.screendump(format);
  }
  setVncPassword(password: string | undefined): void {
    this.#screen.setVncPassword(password);
  }
  vncInfo(): VncInfo {
    return this.#screen.vncInfo();
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
      if (this.#status === 'running') this.#sampler.profile();
      const of = this.#systems[cpu]?.cpu;
      if (of === undefined) return undefined;
      return translatorText(of, this.#sampler.translator([of]));
    }
    return undefined;
  }
  descriptions(): readonly { readonly name: string; readonly help: string }[] {
    return [
      { name: 'pic', help: 'the interrupt controllers 8259' },
      { name: 'jit', help: "a vCPU's translator: regions, code cache, where the time goes, why translated code was left" },
    ];
  }

  statistics(profile = false): MachineStats {
    return this.#sampler.sample(this.#status === 'running', profile);
  }

  traceEvents(pattern: string): readonly TraceEvent[] {
    return listTraces(pattern, this.#machine.control.trace);
  }
  setTrace(pattern: string, enabled: boolean): number {
    const { mask } = traceMask([pattern], []);
    const { control } = this.#machine;
    control.trace = enabled ? control.trace | mask : control.trace & ~mask;
    return matchingTraces(pattern).length;
  }
}

/** What the guest's clock shows at start, in ms since the epoch read as UTC. */
function startTime(base: string): number {
  if (base === 'utc') return Date.now();
  if (base === 'localtime') return Date.now() - new Date().getTimezoneOffset() * 60_000;
  const instant = Date.parse(base.endsWith('Z') ? base : `${base}Z`);
  return Number.isNaN(instant) ? Date.now() : instant;
}
