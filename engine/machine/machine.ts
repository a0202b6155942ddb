/**
 * The parts list of the `pc` machine. Every thread of a VM process makes one: the objects are its own, the state
 * behind them is shared.
 */
import type { Timer } from '../bus/clock.ts';
import { IoMap } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { PciBus, PciFunction, pciBusState, pciFunctionState } from '../bus/pci.ts';
import type { MachineConfig } from '../contract/machine-config.ts';
import { AcpiPm, acpiPmState } from '../devices/acpi-pm.ts';
import { Cmos, cmosState } from '../devices/cmos.ts';
import { DebugExit } from '../devices/debug-exit.ts';
import { Debugcon, debugconState } from '../devices/debugcon.ts';
import { FW_CFG_PORT, FW_CFG_PORTS, FwCfg, fwCfgState } from '../devices/fw-cfg.ts';
import { HPET_DEFAULT_BASE, HPET_WINDOW, Hpet, hpetState } from '../devices/hpet.ts';
import { I8042, i8042State } from '../devices/i8042.ts';
import { DMA_PORTS, I8237, i8237State } from '../devices/i8237.ts';
import { I8254, i8254State } from '../devices/i8254.ts';
import { I8259, i8259State } from '../devices/i8259.ts';
import { ich9Line } from '../devices/ich9.ts';
import { IOAPIC_DEFAULT_BASE, IOAPIC_WINDOW, IoApic, ioapicState } from '../devices/ioapic.ts';
import { type ApicSignal, LocalApic, lapicState } from '../devices/lapic.ts';
import { ApicBus } from '../devices/lapic-bus.ts';
import { PcTestdev, pcTestdevState, TESTDEV_FLUSH, TESTDEV_LATCH, TESTDEV_LINES, TESTDEV_MEMORY } from '../devices/pc-testdev.ts';
import { PAM_RANGES } from '../devices/pci-host.ts';
import { PCI_HOTPLUG_EVENT, PCI_HOTPLUG_PORTS, PciHotplug, pciHotplugState } from '../devices/pci-hotplug.ts';
import { Pflash, pflashDirty, pflashState } from '../devices/pflash.ts';
import { Port92, port92State } from '../devices/port92.ts';
import { Ps2Keyboard, ps2KeyboardState } from '../devices/ps2-keyboard.ts';
import { Ps2Mouse, ps2MouseState } from '../devices/ps2-mouse.ts';
import { Uart16550, uart16550State } from '../devices/uart16550.ts';
import { VGA_WINDOW, Vga, vgaState } from '../devices/vga.ts';
import { buildEdid } from '../devices/vga-edid.ts';
import { PhysicalMemory, type Region } from '../memory/physical.ts';
import { SharedState, type StateEntry } from '../memory/shared-state.ts';
import { struct, u32, type View } from '../memory/struct.ts';
import * as S from '../memory/vcpu-state.ts';
import { cpuFeatures } from '../x86/system/cpuid.ts';
import type { VcpuTlbs } from '../x86/system/paging.ts';
import { type CharLine, charRing, nowhere } from './char-line.ts';
import { type Chipset, isQ35, makeChipset, mapConfigPorts } from './chipset.ts';
import { MachineClock } from './clock.ts';
import { INBOX_ENTRIES, machineState, Request } from './control-words.ts';
import { type DebugState, debugState } from './debugger.ts';
import { DriveList } from './drive-list.ts';
import { addBootOrder, fillFwCfg, hasHpet, type Roms } from './firmware.ts';
import { HotplugTable, type Plug } from './hotplug.ts';
import { HIGH_RAM_BASE, type MachineLayout, PCI_HOTPLUG_PORT, SCI, SERIAL_PORTS } from './layout.ts';
import { type OutsideEvent, OutsideRing, type Recorded } from './outside.ts';
import { type PluggedDevice, PlugList, plugName } from './plugged.ts';
import { gateState, LineGate, SharedLines, sharedLinesState } from './shared-lines.ts';
import { NVME, StorageParts } from './storage-parts.ts';
import { VirtioParts } from './virtio-parts.ts';

const a20State = struct('a20', 1, { enabled: u32 });

/** What the machine needs of the host on each thread. */
export interface MachineHost {
  fillRandom(target: Uint8Array): void;
}

export interface MachineParts {
  readonly config: MachineConfig;
  readonly layout: MachineLayout;
  readonly buffer: ArrayBufferLike;
  /** Number of this thread for locks. */
  readonly owner: number;
  /** Index of the vCPU whose thread this is, or -1. */
  readonly ownCpu: number;
  readonly roms: Roms;
  readonly host: MachineHost;
}

export class Machine {
  readonly config: MachineConfig;
  readonly layout: MachineLayout;
  readonly buffer: ArrayBufferLike;
  readonly shared: SharedState;
  readonly control: View<typeof machineState.fields>;
  readonly debug: DebugState;
  readonly memory: PhysicalMemory;
  readonly clock: MachineClock;
  readonly ports = new IoMap('ports');
  readonly mmio = new IoMap('memory');
  readonly pic: I8259;
  readonly pit: I8254;
  readonly cmos: Cmos;
  readonly dma: I8237;
  readonly ioapic: IoApic;
  /** Of `random` where time is the instruction count; on the vCPU's thread. */
  #seed = 1n;
  readonly apics = new ApicBus();
  /** One a vCPU: its performance counters may overflow. */
  readonly performanceTimers: readonly Timer[];
  readonly pci: PciBus;
  readonly chipset: Chipset;
  readonly pflash: Pflash | undefined;
  /** What the flash of the variables holds. */
  readonly variables: Uint8Array | undefined;
  readonly pm: AcpiPm;
  readonly pciHotplug: PciHotplug;
  readonly hotplug: HotplugTable;
  /** What can be taken away, on this thread. */
  readonly plugs: PlugList;
  readonly keyboard: Ps2Keyboard;
  readonly mouse: Ps2Mouse;
  readonly i8042: I8042;
  readonly vga: Vga | undefined;
  readonly vram: Uint8Array;
  readonly uarts: Uart16550[] = [];
  readonly hpet: Hpet | undefined;
  readonly fwCfg: FwCfg;
  readonly port92: Port92;
  readonly testdev: PcTestdev | undefined;
  readonly debugcons: Debugcon[] = [];
  readonly virtio: VirtioParts;
  readonly storage: StorageParts;
  /** Drives of all controllers, and their I/O threads. */
  readonly drives: DriveList;
  /** Streams to the outside: the serial ports first. */
  readonly lines: CharLine[] = [];
  /** With `-icount`: what comes from outside waits here for the vCPU. */
  readonly #outside: OutsideRing | undefined;
  /** TSC ticks to machine time, by vCPU; set by the vCPU buses. */
  readonly tscToNs: ((ticks: number) => number)[] = [];
  /** On a vCPU's thread: drops what that vCPU translated from a page of the backing. */
  dropOwnCode: ((page: number) => void) | undefined;
  /** Index of the vCPU whose thread this is, or -1. */
  readonly ownCpu: number;
  #vramAt: number | undefined;
  readonly #host: MachineHost;
  readonly #a20: { enabled: number };
  readonly #vcpuStates: Int32Array[] = [];
  readonly #tlbs: VcpuTlbs[] = [];
  readonly #romBytes: number;
  readonly #isa: SharedLines;
  readonly #pins: SharedLines;

  constructor({ config, layout, buffer, owner, ownCpu, roms, host }: MachineParts) {
    this.config = config;
    this.layout = layout;
    this.buffer = buffer;
    this.ownCpu = ownCpu;
    this.#host = host;
    this.#romBytes = roms.firmwareBytes;
    this.shared = new SharedState(buffer, layout.state, layout.stateBytes, owner);
    const { shared } = this;
    this.control = shared.struct(machineState);
    this.debug = shared.struct(debugState);
    this.memory = new PhysicalMemory(
      {
        buffer,
        start: layout.backing,
        end: layout.end,
        codePages: layout.codePages,
        codeGranules: layout.codeGranules,
        dirtyPages: layout.dirtyPages,
      },
      layout.ramBytes,
    );
    this.memory.codeWritten = (page) => this.codeWritten(page);
    this.vram = new Uint8Array(buffer, layout.vram, layout.vramBytes);
    this.clock = new MachineClock(shared);
    this.#a20 = shared.struct(a20State);
    for (let n = 0; n < layout.cpus; n++) {
      const at = layout.vcpus + n * S.VCPU_BYTES;
      const state = new Int32Array(buffer, at, S.STATE_BYTES / 4);
      this.#vcpuStates.push(state);
      this.#tlbs.push({ state, tlb: new Int32Array(buffer, at + S.SPACES_AT, S.TLBS_BYTES / 4) });
    }

    const { clock } = this;
    this.performanceTimers = Array.from({ length: layout.cpus }, (_, n) =>
      clock.timer(`pmu${n}`, () => this.notifyCpu(n, S.Pending.PERFORMANCE)),
    );

    const { icount } = config.machine;
    if (icount !== undefined) {
      clock.count(this.#vcpuStates[0], 2 ** icount.shift);
      this.#outside = new OutsideRing(shared, () => {
        clock.poke();
        this.notifyCpu(0, 0);
      });
    }

    // Interrupt controllers.
    for (let n = 0; n < layout.cpus; n++)
      new LocalApic(
        shared.struct(lapicState, `lapic${n}`),
        {
          cpuIndex: n,
          apicId: n,
          bootstrap: n === 0,
          x2apic: cpuFeatures(config.cpus.model, config.cpus.features, config.cpus.vendor)?.config.features.has('x2apic'),
          clock,
          tscToNs: (ticks) => this.tscToNs[n]?.(ticks) ?? ticks,
          signal: (cpu, what, vector) => this.signal(cpu, what, vector ?? 0),
          broadcastEoi: (vector) => this.ioapic.eoi(vector),
        },
        this.apics,
      );
    this.ioapic = new IoApic(shared.struct(ioapicState), {
      id: layout.cpus,
      deliver: (destination, logical, delivery, vector, level) =>
        this.apics.deliver(destination, logical, delivery, vector, level),
    });
    this.mmio.map(IOAPIC_DEFAULT_BASE, IOAPIC_WINDOW, this.ioapic, 'ioapic');
    this.pic = new I8259(shared.struct(i8259State), { intr: this.apics.apics[0].lint0 });
    this.#pins = new SharedLines(shared.struct(sharedLinesState, 'ioapic-pins'), this.ioapic.pins);
    this.#isa = new SharedLines(
      shared.struct(sharedLinesState, 'isa-irqs'),
      this.pic.lines.map((line, n) => {
        const pin = this.#pins.input(n === 0 ? 2 : n);
        return {
          set(level) {
            line.set(level);
            pin.set(level);
          },
        };
      }),
    );
    this.ports.map(0x20, 2, this.pic.master, 'pic-master');
    this.ports.map(0xa0, 2, this.pic.slave, 'pic-slave');
    this.ports.map(0x4d0, 2, this.pic.elcr, 'elcr');

    this.dma = new I8237(shared.struct(i8237State), this.memory);
    this.ports.map(DMA_PORTS.first.base, DMA_PORTS.first.length, this.dma.first, 'dma1');
    this.ports.map(DMA_PORTS.second.base, DMA_PORTS.second.length, this.dma.second, 'dma2');
    this.ports.map(DMA_PORTS.pages.base, DMA_PORTS.pages.length, this.dma.pages, 'dma-pages');

    // Timers and clock chips.
    const pitLine = new LineGate(shared.struct(gateState, 'gate:pit'), this.irq(0));
    const rtcLine = new LineGate(shared.struct(gateState, 'gate:rtc'), this.irq(8));
    this.pit = new I8254(shared.struct(i8254State), { clock, irq: pitLine });
    this.ports.map(0x40, 4, this.pit, 'pit');
    this.ports.map(0x61, 1, this.pit.port61, 'port61');
    this.cmos = new Cmos(shared.struct(cmosState), { clock, irq: rtcLine });
    this.ports.map(0x70, 2, this.cmos, 'rtc');
    if (hasHpet(config)) {
      this.hpet = new Hpet(shared.struct(hpetState), {
        clock,
        lines: this.ioapic.pins.map((_, n) => this.#pins.input(n)),
        irq0: this.irq(0),
        irq8: this.irq(8),
        legacyChanged: (on) => {
          pitLine.cut(on);
          rtcLine.cut(on);
        },
      });
      this.mmio.map(HPET_DEFAULT_BASE, HPET_WINDOW, this.hpet, 'hpet');
    }
    this.fwCfg = new FwCfg(shared.struct(fwCfgState), { memory: this.memory });
    fillFwCfg(this.fwCfg, config, layout, () => this.chipset.ecam);
    this.ports.map(FW_CFG_PORT, FW_CFG_PORTS, this.fwCfg, 'fw-cfg');

    // PCI: host bridge, ISA bridge, power management.
    const intx: IrqLine[] = [];
    this.pci = new PciBus(shared.struct(pciBusState), {
      ports: this.ports,
      memory: this.mmio,
      intx,
      intxLine: isQ35(config) ? ich9Line : undefined,
      deliverMsi: (address, data) => this.apics.deliverMsi(address, data),
      mappingChanged: () => this.remapAll(),
      arrange: () => this.#arrange(),
      synced: () => this.#remap(),
    });
    const pciState = (name: string): View<typeof pciFunctionState.fields> => shared.struct(pciFunctionState, `pci:${name}`);
    this.pm = new AcpiPm(shared.struct(acpiPmState), {
      clock,
      sci: this.irq(SCI),
      // The DSDT's _S5 says that type 0 turns the machine off; no other state is offered.
      sleep: (type) => {
        if (type === 0) this.request(Request.POWEROFF);
      },
      smi: () => {
        if (this.chipset.smiEnabled) this.signal(Math.max(0, this.ownCpu), 'smi', 0);
      },
    });
    this.chipset = makeChipset(config, {
      ...{ shared, bus: this.pci, pciState, pm: this.pm },
      irqs: Array.from({ length: 16 }, (_, n) => this.irq(n)),
      pins: Array.from({ length: 8 }, (_, n) => this.#pins.input(16 + n)),
      reset: () => this.request(Request.RESET),
    });
    intx.push(...this.chipset.pirqs);
    mapConfigPorts(this.ports, this.pci, this.chipset);
    this.ports.map(0xb2, 2, this.pm.apm, 'apm');
    this.hotplug = new HotplugTable(shared);
    this.pciHotplug = new PciHotplug(shared.struct(pciHotplugState), {
      removable: () => this.plugs.devices.reduce((all, { slot }) => (slot === undefined ? all : all | (1 << slot)), 0),
      ejected: () => this.ringControl(),
      raise: () => this.pm.raiseEvent(PCI_HOTPLUG_EVENT),
    });
    this.ports.map(PCI_HOTPLUG_PORT, PCI_HOTPLUG_PORTS, this.pciHotplug, 'pci-hotplug');

    const { variablesBytes = 0 } = roms;
    if (variablesBytes > 0) {
      this.variables = new Uint8Array(buffer, layout.rom + roms.firmwareBytes, variablesBytes);
      this.pflash = new Pflash(shared.struct(pflashState), {
        contents: this.variables,
        dirty: shared.struct(pflashDirty),
        changed: () => this.ringControl(),
      });
      this.mmio.map(2 ** 32 - roms.firmwareBytes - variablesBytes, variablesBytes, this.pflash, 'pflash');
    }

    // Keyboard and mouse.
    const changed = (): void => this.i8042.update();
    this.keyboard = new Ps2Keyboard(shared.struct(ps2KeyboardState), { changed });
    this.mouse = new Ps2Mouse(shared.struct(ps2MouseState), { changed });
    const a20 = {
      get: () => this.#a20.enabled !== 0,
      set: (enabled: boolean) => {
        if ((this.#a20.enabled !== 0) === enabled) return;
        this.#a20.enabled = enabled ? 1 : 0;
        // Addresses mean something else now: nothing that was translated by them holds.
        this.remapAll();
      },
    };
    const reset = (): void => this.request(Request.RESET);
    this.i8042 = new I8042(shared.struct(i8042State), {
      keyboard: this.keyboard,
      mouse: this.mouse,
      keyboardIrq: this.irq(1),
      mouseIrq: this.irq(12),
      a20,
      reset,
    });
    this.ports.map(0x60, 1, this.i8042.data, 'i8042-data');
    this.ports.map(0x64, 1, this.i8042.command, 'i8042-command');
    this.port92 = new Port92(shared.struct(port92State), { a20, reset });
    this.ports.map(0x92, 1, this.port92, 'port92');

    // Serial ports.
    const rung = (): void => this.ringControl();
    for (const [n, serial] of config.serial.entries()) {
      const ring = charRing(shared, `serial${n}`, rung);
      const { port, irq } = SERIAL_PORTS[n];
      const uart = new Uart16550(shared.struct(uart16550State, `uart${n}`), {
        name: `uart${n}`,
        clock,
        irq: this.irq(irq),
        sink: serial.connect === 'none' ? nowhere : ring,
        roomMade: rung,
      });
      this.uarts.push(uart);
      const chardev = serial.connect === 'chardev' ? serial.chardev : undefined;
      this.lines.push({ name: `serial${n}`, ring, front: uart, chardev, serial: true });
      this.ports.map(port, 8, uart, `serial${n}`);
    }

    // Display.
    if (config.display.adapter === 'std') {
      this.vga = new Vga(shared.struct(vgaState), {
        clock,
        vram: this.vram,
        edid: buildEdid({ width: config.display.width ?? 1024, height: config.display.height ?? 768 }),
      });
      for (const { base, length, handler } of this.vga.ports) this.ports.map(base, length, handler, 'vga');
      this.ports.map(0x1ce, 4, this.vga.dispiPorts, 'vbe');
      this.mmio.map(VGA_WINDOW.base, VGA_WINDOW.length, this.vga.window, 'vga-window');
      new PciFunction(
        pciState('vga'),
        this.vga.pciSpec((address) => {
          this.#vramAt = address;
        }, roms.vgaBios),
        this.pci,
        2,
        0,
      );
    }

    // Debug devices.
    for (const device of config.devices) {
      const number = (name: string, fallback: number): number => Number(device.properties[name] ?? fallback);
      if (device.driver === 'isa-debug-exit')
        this.ports.map(
          number('iobase', 0x501),
          number('iosize', 2),
          new DebugExit({
            exit: (status) => {
              // The first write ends the machine; what the guest does until it stands counts no more.
              if (this.control.debugExit !== 0) return;
              this.control.debugExit = status;
              this.request(Request.DEBUG_EXIT);
            },
          }),
          'isa-debug-exit',
        );
      else if (device.driver === 'pc-testdev') {
        const testdev = new PcTestdev(
          shared.struct(pcTestdevState),
          Array.from({ length: TESTDEV_LINES.count }, (_, n) => (n < 16 ? this.irq(n) : this.#pins.input(n))),
        );
        this.ports.map(TESTDEV_LINES.port, TESTDEV_LINES.count, testdev.lines, 'testdev-lines');
        this.ports.map(TESTDEV_LATCH.port, TESTDEV_LATCH.count, testdev.latch, 'testdev-latch');
        this.ports.map(TESTDEV_FLUSH.port, TESTDEV_FLUSH.count, testdev.flush, 'testdev-flush');
        this.mmio.map(TESTDEV_MEMORY.base, TESTDEV_MEMORY.length, testdev.memory, 'testdev-memory');
        this.testdev = testdev;
      } else if (device.driver === 'isa-debugcon') {
        const name = `debugcon${this.lines.length}`;
        const ring = charRing(shared, name, rung);
        this.lines.push({ name, ring, chardev: device.properties.chardev });
        const debugcon = new Debugcon(shared.struct(debugconState, name), { sink: ring });
        this.debugcons.push(debugcon);
        this.ports.map(number('iobase', 0xe9), 1, debugcon, 'isa-debugcon');
      }
    }

    this.drives = new DriveList(shared);
    const { drives, memory } = this;
    this.plugs = new PlugList({ shared, clock, bus: this.pci, drives });
    this.virtio = new VirtioParts(config, {
      ...{ shared, clock, memory, bus: this.pci, drives, plugs: this.plugs },
      fillRandom: (target) => host.fillRandom(target),
      ringControl: rung,
      trace: () => {},
    });
    this.lines.push(...this.virtio.lines);
    this.storage = new StorageParts(config, {
      ...{ shared, memory, bus: this.pci, ports: this.ports, pciState, drives, plugs: this.plugs },
      irq: (n) => this.irq(n),
      dma: this.dma,
      floppyKinds: (kinds) => this.cmos.setFloppies(kinds),
    });
    const paths = new Map([...this.virtio.bootPaths, ...this.storage.bootPaths]);
    const bootable = this.drives.drives.map((part) => ({ config: part.config, path: paths.get(part) ?? '' }));
    addBootOrder(
      this.fwCfg,
      config,
      bootable.filter(({ path }) => path !== ''),
    );
    this.#remap();
  }

  /** A new input of ISA interrupt `n`: the PIC's input and the IOAPIC's pin (IRQ 0 is on pin 2). */
  irq(n: number): IrqLine {
    return this.#isa.input(n);
  }

  /** Takes over what was plugged in and taken away since this thread looked last; see `HotplugTable`. */
  #arrange(): void {
    const { left, gone, come } = this.hotplug.changes();
    const { plugs } = this;
    const remove = (device: PluggedDevice | undefined): void => {
      if (device !== undefined) plugs.unplug(device);
    };
    for (const place of left) remove(plugs.devices.find((device) => device.place === place));
    for (const id of gone) remove(plugs.devices.find((device) => device.place === undefined && plugName(device) === id));
    for (const { place, plug } of come) this.plug(place, plug);
  }

  /**
   * Makes a device that came by a place of the table, on this thread. Throws a `BootError` for what cannot be put together,
   * with nothing left.
   */
  plug(place: number, plug: Plug): PluggedDevice {
    return plug.device.driver === NVME ? this.storage.plug(place, plug) : this.virtio.plug(place, plug);
  }

  /** The state structs that are part of the machine as it is now. The machine lock is held. */
  guestStructs(): StateEntry[] {
    this.pci.sync();
    return this.shared.entries().filter(({ id, scope }) => scope === 'guest' && !this.plugs.absent.has(id));
  }

  // --- memory map -------------------------------------------------------------------------------------------------

  #remap(): void {
    const { layout } = this;
    const low = layout.lowRamBytes;
    const regions: Region[] = [{ base: 0, length: low, host: layout.ram, readOnly: false, name: 'ram-low' }];
    if (layout.ramBytes > low)
      regions.push({
        base: HIGH_RAM_BASE,
        length: layout.ramBytes - low,
        host: layout.ram + low,
        readOnly: false,
        name: 'ram-high',
      });
    if (this.#romBytes > 0) {
      const shadow = Math.min(this.#romBytes, 128 * 1024);
      regions.push({ base: 0x100000000 - this.#romBytes, length: this.#romBytes, host: layout.rom, readOnly: true, name: 'rom' });
      for (const [n, range] of PAM_RANGES.entries()) {
        const setting = this.chipset.host.pam(n);
        if (setting.read) {
          if (!setting.write) regions.push({ ...range, host: layout.ram + range.base, readOnly: true, name: `pam${n}-ram` });
          continue;
        }
        if (range.base + range.length > 0x100000 - shadow) {
          const host = layout.rom + this.#romBytes - (0x100000 - range.base);
          regions.push({ ...range, host, readOnly: true, name: `pam${n}-rom` });
        }
      }
    }
    // SMRAM: the RAM behind the window of the VGA. Which vCPU sees it is each thread's own affair.
    const { enabled, open } = this.chipset.host.smram;
    const smram = open || (this.#smm && enabled);
    if (this.#vramAt !== undefined && this.vga !== undefined)
      regions.push({ base: this.#vramAt, length: layout.vramBytes, host: layout.vram, readOnly: false, name: 'vram' });
    const hole = this.vga !== undefined && !(this.hasSmm && smram);
    this.memory.setRegions(regions, hole ? { base: VGA_WINDOW.base, length: VGA_WINDOW.length } : undefined);
  }

  /** `-machine smm=on`: SMIs come, and firmware is let set up its handler. */
  get hasSmm(): boolean {
    return this.config.machine.options?.smm === 'on';
  }
  /** Whether the vCPU of this thread is in system management mode. */
  #smm = false;
  setSmm(inside: boolean): void {
    this.#smm = inside;
    this.#remap();
  }

  // --- what threads tell each other -------------------------------------------------------------------------------

  /** Sets request bits of a vCPU and wakes it. */
  notifyCpu(index: number, bits: number): void {
    const state = this.#vcpuStates[index];
    Atomics.or(state, S.PENDING >> 2, bits);
    if (index === this.ownCpu) return;
    Atomics.add(state, S.WAKE >> 2, 1);
    Atomics.notify(state, S.WAKE >> 2);
  }

  signal(index: number, what: ApicSignal, vector: number): void {
    switch (what) {
      case 'intr':
        this.notifyCpu(index, S.Pending.INTR);
        break;
      case 'nmi':
        Atomics.add(this.#vcpuStates[index], S.NMI_REQUESTS >> 2, 1);
        this.notifyCpu(index, S.Pending.NMI);
        break;
      case 'init':
        this.notifyCpu(index, S.Pending.INIT);
        break;
      case 'sipi':
        this.control.sipiVector[index] = vector;
        this.notifyCpu(index, S.Pending.SIPI);
        break;
      case 'smi':
        if (this.hasSmm) this.notifyCpu(index, S.Pending.SMI);
        break;
    }
  }

  /** Memory is mapped differently now: every vCPU's thread is to look, and to forget what it translated. */
  remapAll(): void {
    for (let n = 0; n < this.layout.cpus; n++) this.notifyCpu(n, S.Pending.FLUSH | S.Pending.CALL);
  }

  get a20Enabled(): boolean {
    return this.#a20.enabled !== 0;
  }

  /** State blocks of all vCPUs. */
  get vcpuStates(): readonly Int32Array[] {
    return this.#vcpuStates;
  }

  get allTlbs(): readonly VcpuTlbs[] {
    return this.#tlbs;
  }

  /** Code in a page was written, on this thread: all vCPUs drop what they translated from it. */
  codeWritten(page: number): void {
    Atomics.store(this.memory.granules, page, 0);
    Atomics.store(this.memory.code, page, 0);
    const { control } = this;
    for (let n = 0; n < this.layout.cpus; n++) {
      if (n === this.ownCpu) {
        this.dropOwnCode?.(page);
        continue;
      }
      this.shared.lock.hold(() => {
        const count = control.inboxCount[n];
        // A full inbox means: drop everything.
        if (count < INBOX_ENTRIES) control.inbox[n * INBOX_ENTRIES + count] = page;
        control.inboxCount[n] = Math.min(count + 1, INBOX_ENTRIES + 1);
      });
      this.notifyCpu(n, S.Pending.INVALIDATE);
    }
  }

  /** Pages that vCPU `index` must drop; undefined: all. Empties its inbox. */
  takeInvalidations(index: number): number[] | undefined {
    return this.shared.lock.hold(() => {
      const { inbox, inboxCount } = this.control;
      const count = inboxCount[index];
      inboxCount[index] = 0;
      if (count > INBOX_ENTRIES) return undefined;
      return Array.from(inbox.subarray(index * INBOX_ENTRIES, index * INBOX_ENTRIES + count));
    });
  }

  /** Asks the control thread for something (bits of `Request`); the vCPUs stop until it has answered. */
  request(bits: number): void {
    Atomics.or(this.control.requests, 0, bits);
    Atomics.store(this.control.running, 0, 0);
    for (let n = 0; n < this.layout.cpus; n++) this.notifyCpu(n, S.Pending.STOP);
    this.ringControl();
  }

  ringControl(): void {
    Atomics.add(this.control.bell, 0, 1);
    Atomics.notify(this.control.bell, 0);
  }

  random(): number {
    if (this.clock.isCounting) {
      // Numbers that come again in the next run (a linear congruence, Knuth, TAOCP 2, 3.3.4; its upper half).
      this.#seed = BigInt.asUintN(64, this.#seed * 6364136223846793005n + 1442695040888963407n);
      return Number(this.#seed >> 32n);
    }
    const word = new Uint8Array(4);
    this.#host.fillRandom(word);
    return (word[0] | (word[1] << 8) | (word[2] << 16) | (word[3] << 24)) >>> 0;
  }

  /** Room for input of a line; from the control thread. */
  room(line: number): number {
    const { front } = this.lines[line];
    if (front === undefined || this.isReplaying || this.#outside?.isEmpty === false) return 0;
    return this.shared.lock.hold(() => front.room());
  }
  /** Something comes from outside; from the control thread. */
  fromOutside(event: OutsideEvent): void {
    if (this.#outside === undefined) this.shared.lock.hold(() => this.#arrive(event));
    else if (!this.isReplaying) this.#outside.post(event);
  }
  get isReplaying(): boolean {
    return this.config.machine.icount?.replay?.mode === 'replay';
  }
  /** On the vCPU's thread, with `-icount`: hands over what comes from outside; `record` is told, `recording` has it instead. */
  takeOutside(retired: () => number, record: (recorded: Recorded) => void, recording: readonly Recorded[] | undefined): void {
    const ring = this.#outside;
    if (ring === undefined) return;
    let next = 0;
    this.clock.asks(
      () => {
        if (recording !== undefined) {
          const comes = (): boolean =>
            next < recording.length && recording[next].count <= retired() && recording[next].time <= this.clock.now();
          while (comes()) this.#arrive(recording[next++].event);
          return recording[next];
        }
        if (ring.isEmpty) return undefined;
        for (const event of ring.take()) {
          record({ count: retired(), time: this.clock.now(), event });
          this.#arrive(event);
        }
        // The control thread may have more that found no room.
        this.ringControl();
        return undefined;
      },
      () => !ring.isEmpty,
    );
  }
  /** Hands an event to its device, with the lock held. */
  #arrive(event: OutsideEvent): void {
    switch (event.kind) {
      case 'char': {
        const { front } = this.lines[event.line] ?? {};
        // What a recording has may be another machine's.
        if (front !== undefined) front.receive(Uint8Array.from(event.data.slice(0, front.room())));
        break;
      }
      case 'key':
        this.keyboard.key(event.key as never, event.down);
        break;
      case 'mouse':
        this.mouse.move(event.dx, event.dy, event.wheel, event.buttons);
        break;
      case 'power':
        this.pm.powerButton();
        break;
    }
  }

  /** Power-on and system reset of all devices; under the lock, with all vCPUs parked. */
  resetDevices(): void {
    this.#a20.enabled = 1;
    this.#isa.reset();
    this.#pins.reset();
    this.pic.reset();
    this.dma.reset();
    this.pit.reset();
    this.cmos.reset();
    this.ioapic.reset();
    for (const apic of this.apics.apics) apic.reset();
    this.pci.reset();
    this.chipset.reset();
    this.pflash?.reset();
    this.pm.reset();
    this.pciHotplug.reset();
    this.keyboard.reset();
    this.mouse.reset();
    this.i8042.reset();
    for (const uart of this.uarts) uart.reset();
    this.vga?.reset();
    this.hpet?.reset();
    this.fwCfg.reset();
    this.port92.reset();
    this.testdev?.reset();
    this.virtio.reset();
    this.storage.reset();
    this.pci.sync();
  }
}
