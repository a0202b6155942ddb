/**
 * PCI: functions, their configuration space, base address registers, INTx, MSI and MSI-X, and the bus they sit on.
 * PCI Local Bus Specification 3.0, chapter 6.
 *
 * A guest moves BARs by writing configuration registers on one thread, while every thread has address maps of
 * its own. So a write that matters for a map raises a shared generation number, and `PciBus.sync()`, which each
 * thread calls before it dispatches an access, brings that thread's maps up to date where the numbers differ.
 * Where a guest puts one range over another, the one that was there first (devices that are not PCI, then the
 * lower function and BAR) keeps the addresses and the other is not mapped.
 */

import { bytes, struct, u32, u32s, type View } from '../memory/struct.ts';
import { type AccessSize, allOnes, type IoHandler, type IoSpace } from './io.ts';
import type { IrqLine } from './irq.ts';

// Offsets in the configuration header. PCI 3.0, 6.1 and 6.2.
export const PCI_COMMAND = 0x04;
export const PCI_STATUS = 0x06;
const REVISION = 0x08;
const HEADER_TYPE = 0x0e;
const BAR0 = 0x10;
const SUBSYSTEM = 0x2c;
const ROM_BAR = 0x30;
const CAPABILITIES = 0x34;
export const PCI_INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;

const COMMAND_IO = 1;
const COMMAND_MEMORY = 2;
const COMMAND_MASTER = 4;
const COMMAND_NO_INTX = 0x400;
/** I/O, memory, bus master, parity response, SERR, INTx disable. */
const COMMAND_WRITABLE = 0x547;
const STATUS_INTERRUPT = 0x08;
const STATUS_CAPABILITIES = 0x10;
const STATUS_CLEARED_BY_ONE = 0xf900;

const CAPABILITY_MSI = 0x05;
const CAPABILITY_MSIX = 0x11;
const MSIX_ENABLE = 0x8000;
const MSIX_MASK_ALL = 0x4000;

/** The most MSI-X vectors that one function may have. */
export const MSIX_VECTORS_MAX = 128;
const CONFIG_BYTES = 4096;

export const pciFunctionState = struct('pci-function', 1, {
  config: bytes(CONFIG_BYTES),
  /** MSI-X table: address low, address high, data, control of each vector. */
  msixTable: u32s(MSIX_VECTORS_MAX * 4),
  msixPending: u32s(MSIX_VECTORS_MAX / 32),
  /** The level that the device drives its INTx pin with. */
  intx: u32,
});

export const pciBusState = struct('pci-bus', 1, {
  /** Rises whenever a register changes that decides what is mapped where. */
  generation: u32,
  /** CONFIG_ADDRESS of configuration mechanism 1. */
  address: u32,
});

export interface PciBar {
  /** 0 to 5. A 64-bit BAR takes the next index too. */
  readonly index: number;
  readonly kind: 'io' | 'mem32' | 'mem64';
  readonly prefetch?: boolean;
  /** Bytes; a power of two, at least 4 for I/O and 16 for memory. */
  readonly size: number;
  /** Serves accesses. A memory BAR has this or `ram`, or neither where it holds only the MSI-X structures. */
  readonly handler?: IoHandler;
  /** Called on each thread when the BAR moves, with its address or undefined where it is not decoded: guest memory without a handler. */
  readonly ram?: (address: number | undefined) => void;
}

/** A capability in the list that register 0x34 heads. */
export interface PciCapability {
  readonly id: number;
  /** What follows the id and the next pointer. */
  readonly body: Uint8Array;
  /** Writable bits of `body`, byte for byte; all read-only where absent. */
  readonly writable?: Uint8Array;
}

export interface PciFunctionSpec {
  readonly name: string;
  readonly vendor: number;
  readonly device: number;
  readonly revision?: number;
  /** 24 bits: base class, subclass, programming interface. */
  readonly classCode: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  /** Interrupt pin: 1 to 4 for INTA to INTD; 0 or absent for none. */
  readonly pin?: number;
  /** Function 0 of a device that has others. */
  readonly multifunction?: boolean;
  /** Command register bits that are set at reset and stay: PIIX bridges decode always. */
  readonly commandFixed?: number;
  readonly bars?: readonly PciBar[];
  /** Expansion ROM; its size is rounded up to a power of two, at least 2 KiB. */
  readonly rom?: Uint8Array;
  readonly capabilities?: readonly PciCapability[];
  readonly msi?: { readonly vectors: 1 | 2 | 4 | 8 | 16 | 32 };
  readonly msix?: { readonly vectors: number; readonly bar: number; readonly tableOffset: number; readonly pbaOffset: number };
  /** Device-specific registers: value at reset, writable bits. */
  readonly registers?: readonly {
    readonly offset: number;
    readonly bytes: readonly number[];
    readonly writable?: readonly number[];
  }[];
  /** Where device-specific registers of this range change, what is mapped may change. */
  readonly mapping?: { readonly first: number; readonly last: number };
  /** Called before a read of configuration space (refresh registers there through `config`). */
  readonly configRead?: (offset: number, size: AccessSize) => void;
  /** Called after a write to configuration space took effect. */
  readonly configWrite?: (offset: number, size: AccessSize) => void;
  /** More ranges than BARs: called in `PciBus.sync` on each thread with functions that map until the next change. */
  readonly mapExtra?: (map: PciMapper) => void;
}

/** Maps a range until the mapping changes; a clash is quietly without effect. */
export interface PciMapper {
  io(base: number, length: number, handler: IoHandler, name: string): void;
  memory(base: number, length: number, handler: IoHandler, name: string): void;
}

const powerOfTwo = (value: number): number => 2 ** Math.ceil(Math.log2(value));

/** One function in the configuration space. Made with its bus and place: `new PciFunction(state, spec, bus, slot, fn)`. */
export class PciFunction {
  readonly spec: PciFunctionSpec;
  readonly slot: number;
  readonly fn: number;
  readonly #s: View<typeof pciFunctionState.fields>;
  readonly #bus: PciBus;
  readonly #initial = new Uint8Array(CONFIG_BYTES);
  readonly #writable = new Uint8Array(CONFIG_BYTES);
  readonly #clearedByOne = new Uint8Array(CONFIG_BYTES);
  readonly #msiAt: number = 0;
  readonly #msixAt: number = 0;
  readonly #romSize: number = 0;
  /** Configuration offset of the n-th entry of `spec.capabilities`. */
  readonly capabilityOffsets: readonly number[];

  constructor(state: View<typeof pciFunctionState.fields>, spec: PciFunctionSpec, bus: PciBus, slot: number, fn = 0) {
    this.#s = state;
    this.spec = spec;
    this.#bus = bus;
    this.slot = slot;
    this.fn = fn;
    const c = this.#initial;
    const w = this.#writable;
    const put = (at: number, size: number, value: number, mask = 0): void => {
      for (let i = 0; i < size; i++) {
        c[at + i] = value >>> (8 * i);
        w[at + i] = mask >>> (8 * i);
      }
    };
    put(0, 2, spec.vendor);
    put(2, 2, spec.device);
    put(PCI_COMMAND, 2, spec.commandFixed ?? 0, COMMAND_WRITABLE & ~(spec.commandFixed ?? 0));
    this.#clearedByOne[PCI_STATUS + 1] = STATUS_CLEARED_BY_ONE >> 8;
    put(REVISION, 4, ((spec.classCode << 8) | (spec.revision ?? 0)) >>> 0);
    put(0x0c, 2, 0, 0xffff); // cache line size and latency timer: plain storage
    put(HEADER_TYPE, 1, spec.multifunction ? 0x80 : 0);
    put(SUBSYSTEM, 2, spec.subsystemVendor ?? 0);
    put(SUBSYSTEM + 2, 2, spec.subsystem ?? 0);
    put(PCI_INTERRUPT_LINE, 1, 0, spec.pin ? 0xff : 0);
    put(INTERRUPT_PIN, 1, spec.pin ?? 0);
    for (const bar of spec.bars ?? []) {
      const at = BAR0 + bar.index * 4;
      const mask = ~(Math.min(bar.size, 2 ** 32) - 1) >>> 0;
      if (bar.kind === 'io') put(at, 4, 1, mask & ~3);
      else put(at, 4, (bar.kind === 'mem64' ? 4 : 0) | (bar.prefetch ? 8 : 0), bar.size >= 2 ** 32 ? 0 : mask & ~15);
      if (bar.kind === 'mem64') put(at + 4, 4, 0, bar.size > 2 ** 32 ? ~(bar.size / 2 ** 32 - 1) >>> 0 : 0xffffffff);
    }
    if (spec.rom !== undefined) {
      this.#romSize = Math.max(2048, powerOfTwo(spec.rom.length));
      put(ROM_BAR, 4, 0, (~(this.#romSize - 1) | 1) >>> 0);
    }
    // Capabilities, from 0x40 up; fixed device registers live where the spec puts them.
    let at = 0x40;
    for (const { offset, bytes: values } of spec.registers ?? []) at = Math.max(at, offset < 0x100 ? offset + values.length : at);
    at = (at + 3) & ~3;
    let link = CAPABILITIES;
    const add = (capability: PciCapability): number => {
      const here = at;
      if (here + 2 + capability.body.length > 0x100) throw new RangeError(`${spec.name}: capabilities do not fit`);
      c[link] = here;
      c[here] = capability.id;
      c.set(capability.body, here + 2);
      if (capability.writable) w.set(capability.writable, here + 2);
      link = here + 1;
      at = (here + 2 + capability.body.length + 3) & ~3;
      c[PCI_STATUS] |= STATUS_CAPABILITIES;
      return here;
    };
    if (spec.msix !== undefined) {
      const { vectors, bar, tableOffset, pbaOffset } = spec.msix;
      if (vectors > MSIX_VECTORS_MAX) throw new RangeError(`${spec.name}: more than ${MSIX_VECTORS_MAX} MSI-X vectors`);
      const body = new Uint8Array(10);
      const view = new DataView(body.buffer);
      view.setUint16(0, vectors - 1, true);
      view.setUint32(2, tableOffset | bar, true);
      view.setUint32(6, pbaOffset | bar, true);
      const writable = new Uint8Array(10);
      writable[1] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
      this.#msixAt = add({ id: CAPABILITY_MSIX, body, writable });
    }
    if (spec.msi !== undefined) {
      // 64-bit address, no per-vector masking. PCI 3.0, 6.8.1.
      const body = new Uint8Array(12);
      body[0] = (Math.log2(spec.msi.vectors) << 1) | 0x80;
      const writable = new Uint8Array(12).fill(0xff);
      writable.set([0x71, 0], 0);
      writable[2] = 0xfc;
      this.#msiAt = add({ id: CAPABILITY_MSI, body, writable });
    }
    this.capabilityOffsets = (spec.capabilities ?? []).map(add);
    for (const { offset, bytes: values, writable } of spec.registers ?? []) {
      c.set(values, offset);
      if (writable) w.set(writable, offset);
    }
    bus.attach(this);
  }

  /** Raw configuration space, for hooks that own registers in it. */
  get config(): Uint8Array {
    return this.#s.config;
  }
  get busMaster(): boolean {
    return (this.#command & COMMAND_MASTER) !== 0;
  }
  get #command(): number {
    return this.#s.config[PCI_COMMAND] | (this.#s.config[PCI_COMMAND + 1] << 8);
  }

  reset(): void {
    const s = this.#s;
    s.config.set(this.#initial);
    s.msixTable.fill(0);
    for (let vector = 0; vector < MSIX_VECTORS_MAX; vector++) s.msixTable[vector * 4 + 3] = 1;
    s.msixPending.fill(0);
    s.intx = 0;
    this.#bus.changed();
    this.#driveIntx();
  }

  #load(at: number): number {
    const c = this.#s.config;
    return (c[at] | (c[at + 1] << 8) | (c[at + 2] << 16) | (c[at + 3] << 24)) >>> 0;
  }

  readConfig(offset: number, size: AccessSize): number {
    if (offset < 0 || offset + size > CONFIG_BYTES) return allOnes(size);
    this.spec.configRead?.(offset, size);
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = (value << 8) | this.#s.config[offset + i];
    return value >>> 0;
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    if (offset < 0 || offset + size > CONFIG_BYTES) return;
    const c = this.#s.config;
    let changed = false;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const next = ((c[at] & ~this.#writable[at]) | (byte & this.#writable[at])) & ~(byte & this.#clearedByOne[at]);
      if (next === c[at]) continue;
      c[at] = next;
      changed = true;
    }
    const touches = (first: number, last: number): boolean => offset <= last && offset + size > first;
    if (changed) {
      const { mapping } = this.spec;
      if (touches(PCI_COMMAND, PCI_COMMAND + 1)) this.#driveIntx();
      if (
        touches(PCI_COMMAND, PCI_COMMAND) ||
        touches(BAR0, BAR0 + 23) ||
        touches(ROM_BAR, ROM_BAR + 3) ||
        (mapping !== undefined && touches(mapping.first, mapping.last))
      )
        this.#bus.changed();
      if (this.#msixAt !== 0 && touches(this.#msixAt + 2, this.#msixAt + 3)) {
        this.#driveIntx();
        this.#sendPending();
      }
      if (this.#msiAt !== 0 && touches(this.#msiAt + 2, this.#msiAt + 3)) this.#driveIntx();
    }
    this.spec.configWrite?.(offset, size);
  }

  // Base address registers.

  /** Where a BAR is decoded now, or undefined. */
  barAddress(index: number): number | undefined {
    const bar = this.spec.bars?.find((each) => each.index === index);
    if (bar === undefined) return undefined;
    const low = this.#load(BAR0 + index * 4);
    if (bar.kind === 'io') {
      const base = (low & ~3) >>> 0;
      if ((this.#command & COMMAND_IO) === 0 || base === 0 || base + bar.size > 0x10000) return undefined;
      return base;
    }
    if ((this.#command & COMMAND_MEMORY) === 0) return undefined;
    const base = ((low & ~15) >>> 0) + (bar.kind === 'mem64' ? this.#load(BAR0 + index * 4 + 4) * 2 ** 32 : 0);
    // A range that ends with the 32-bit space is a BAR that is being sized, with the boot ROM underneath.
    if (base === 0 || base + bar.size === 2 ** 32 || base + bar.size > 2 ** 52) return undefined;
    return base;
  }

  /** Where the expansion ROM is decoded now, or undefined. */
  romAddress(): number | undefined {
    if (this.#romSize === 0 || (this.#command & COMMAND_MEMORY) === 0) return undefined;
    const value = this.#load(ROM_BAR);
    const base = (value & ~0x7ff) >>> 0;
    if ((value & 1) === 0 || base === 0 || base + this.#romSize >= 2 ** 32) return undefined;
    return base;
  }

  /** The handler of a BAR, with the MSI-X structures in front where they lie in it. */
  barHandler(bar: PciBar): IoHandler | undefined {
    const { msix } = this.spec;
    if (msix === undefined || msix.bar !== bar.index) return bar.handler;
    const tableEnd = msix.tableOffset + msix.vectors * 16;
    const pbaEnd = msix.pbaOffset + Math.ceil(msix.vectors / 64) * 8;
    return {
      read: (offset, size) => {
        if (offset >= msix.tableOffset && offset < tableEnd) return this.#readTable(offset - msix.tableOffset, size);
        if (offset >= msix.pbaOffset && offset < pbaEnd) {
          const at = offset - msix.pbaOffset;
          return (this.#s.msixPending[at >> 2] >>> ((at & 3) * 8)) & allOnes(size);
        }
        return bar.handler?.read(offset, size) ?? 0;
      },
      write: (offset, size, value) => {
        if (offset >= msix.tableOffset && offset < tableEnd) this.#writeTable(offset - msix.tableOffset, size, value);
        else if (offset < msix.pbaOffset || offset >= pbaEnd) bar.handler?.write(offset, size, value);
      },
    };
  }

  /** The expansion ROM as a handler, and its decoded length. */
  romHandler(): { handler: IoHandler; length: number } | undefined {
    const { rom } = this.spec;
    if (rom === undefined) return undefined;
    return {
      length: this.#romSize,
      handler: {
        read: (offset, size) => {
          let value = 0;
          for (let i = size - 1; i >= 0; i--) value = (value << 8) | (rom[offset + i] ?? 0xff);
          return value >>> 0;
        },
        write() {},
      },
    };
  }

  // Interrupts.

  /** Drives the INTx pin. With MSI or MSI-X on, or INTx disabled, nothing reaches the line. */
  setIntx(level: boolean): void {
    const value = level ? 1 : 0;
    if (this.#s.intx === value) return;
    this.#s.intx = value;
    this.#driveIntx();
  }

  /** Whether this function pulls its line now. */
  get intxAsserted(): boolean {
    return this.#s.intx !== 0 && (this.#command & COMMAND_NO_INTX) === 0 && !this.msixEnabled && !this.msiEnabled;
  }

  #driveIntx(): void {
    const c = this.#s.config;
    c[PCI_STATUS] = this.#s.intx !== 0 ? c[PCI_STATUS] | STATUS_INTERRUPT : c[PCI_STATUS] & ~STATUS_INTERRUPT;
    if (this.spec.pin) this.#bus.updateIntx(this.#bus.intxOf(this));
  }

  get msixEnabled(): boolean {
    return this.#msixAt !== 0 && (this.#s.config[this.#msixAt + 3] & (MSIX_ENABLE >> 8)) !== 0;
  }
  get msiEnabled(): boolean {
    return this.#msiAt !== 0 && (this.#s.config[this.#msiAt + 2] & 1) !== 0;
  }

  /** Sends MSI-X vector `vector`, or keeps it pending while it is masked. No effect while MSI-X is off. */
  notifyMsix(vector: number): void {
    const { msix } = this.spec;
    if (msix === undefined || vector >= msix.vectors || vector < 0 || !this.msixEnabled) return;
    if (this.#masked(vector)) {
      this.#s.msixPending[vector >> 5] |= 1 << (vector & 31);
      return;
    }
    this.#sendMsix(vector);
  }

  /** Sends MSI message `index`; no effect while MSI is off. PCI 3.0, 6.8.1.6. */
  notifyMsi(index = 0): void {
    if (!this.msiEnabled) return;
    const control = this.#s.config[this.#msiAt + 2];
    const count = 1 << Math.min((control >> 4) & 7, (control >> 1) & 7);
    const data = this.#load(this.#msiAt + 12) & 0xffff;
    const high = this.#load(this.#msiAt + 8);
    if (high !== 0 || !this.busMaster) return;
    this.#bus.wires.deliverMsi(this.#load(this.#msiAt + 4), (data & ~(count - 1)) | (index & (count - 1)));
  }

  #masked(vector: number): boolean {
    return (this.#s.config[this.#msixAt + 3] & (MSIX_MASK_ALL >> 8)) !== 0 || (this.#s.msixTable[vector * 4 + 3] & 1) !== 0;
  }

  #sendMsix(vector: number): void {
    const table = this.#s.msixTable;
    this.#s.msixPending[vector >> 5] &= ~(1 << (vector & 31));
    if (table[vector * 4 + 1] === 0) this.#bus.wires.deliverMsi(table[vector * 4], table[vector * 4 + 2]);
  }

  #sendPending(): void {
    const { msix } = this.spec;
    if (msix === undefined || !this.msixEnabled) return;
    for (let vector = 0; vector < msix.vectors; vector++) {
      if ((this.#s.msixPending[vector >> 5] & (1 << (vector & 31))) !== 0 && !this.#masked(vector)) this.#sendMsix(vector);
    }
  }

  #readTable(at: number, size: AccessSize): number {
    return (this.#s.msixTable[at >> 2] >>> ((at & 3) * 8)) & allOnes(size);
  }

  #writeTable(at: number, size: AccessSize, value: number): void {
    if (size !== 4 || (at & 3) !== 0) return; // only whole dwords are defined. PCI 3.0, 6.8.2
    const word = at >> 2;
    this.#s.msixTable[word] = (word & 3) === 3 ? value & 1 : value;
    if ((word & 3) === 3) this.#sendPending();
  }
}

export interface PciBusWires {
  readonly ports: IoSpace;
  readonly memory: IoSpace;
  /** The four interrupt lines of the host bridge, PIRQA to PIRQD. The chipset may fill the array after the bus was made. */
  readonly intx: readonly IrqLine[];
  /** Which of them a function's pin (1 to 4) is wired to; slots are staggered over the first four unless this says otherwise. */
  readonly intxLine?: (slot: number, pin: number) => number;
  /** Sends a message-signalled interrupt: `ApicBus.deliverMsi`. */
  deliverMsi(address: number, data: number): void;
  /** On the thread whose access changed a mapping register: other threads must call `sync` before they go on. */
  mappingChanged?(): void;
  /** On each thread before `sync` changes its maps: functions that other threads put in or took away are to be here too, or not any more. */
  arrange?(): void;
  /** On each thread after `sync` changed its maps. */
  synced?(): void;
}

interface Mapped {
  readonly space: IoSpace;
  readonly base: number;
}

/** Bus 0. */
export class PciBus {
  readonly wires: PciBusWires;
  readonly functions: PciFunction[] = [];
  readonly #s: View<typeof pciBusState.fields>;
  readonly #byDevfn = new Map<number, PciFunction>();
  // This thread's own view of what is mapped: a cache of what the configuration registers say.
  #generation = -1;
  #mapped: Mapped[] = [];
  readonly #ramAt = new Map<PciBar, number | undefined>();

  constructor(state: View<typeof pciBusState.fields>, wires: PciBusWires) {
    this.#s = state;
    this.wires = wires;
  }

  attach(pciFunction: PciFunction): void {
    const devfn = pciFunction.slot * 8 + pciFunction.fn;
    if (this.#byDevfn.has(devfn))
      throw new Error(`PCI slot ${pciFunction.slot}.${pciFunction.fn} is taken: ${pciFunction.spec.name} does not fit`);
    this.#byDevfn.set(devfn, pciFunction);
    this.functions.push(pciFunction);
    this.functions.sort((a, b) => a.slot * 8 + a.fn - (b.slot * 8 + b.fn));
  }

  /** Takes a function away, on this thread; its ranges go with the next `sync`. */
  detach(pciFunction: PciFunction): void {
    const at = this.functions.indexOf(pciFunction);
    if (at < 0) return;
    this.functions.splice(at, 1);
    this.#byDevfn.delete(pciFunction.slot * 8 + pciFunction.fn);
    if (pciFunction.spec.pin) this.updateIntx(this.intxOf(pciFunction));
  }

  /** Resets every function and the address register. */
  reset(): void {
    this.#s.address = 0;
    for (const each of this.functions) each.reset();
  }

  function(slot: number, fn = 0): PciFunction | undefined {
    return this.#byDevfn.get(slot * 8 + fn);
  }

  /** The lowest slot of which no function is taken, or -1. */
  freeSlot(from = 3): number {
    for (let slot = from; slot < 32; slot++) {
      if (!this.functions.some((each) => each.slot === slot)) return slot;
    }
    return -1;
  }

  readConfig(bus: number, devfn: number, offset: number, size: AccessSize): number {
    if (bus !== 0) return allOnes(size);
    return this.#byDevfn.get(devfn)?.readConfig(offset, size) ?? allOnes(size);
  }

  writeConfig(bus: number, devfn: number, offset: number, size: AccessSize, value: number): void {
    if (bus === 0) this.#byDevfn.get(devfn)?.writeConfig(offset, size, value);
  }

  /** Ports 0xcf8 to 0xcff: configuration mechanism 1. PCI 3.0, 3.2.2.3.2. `reset` is what port 0xcf9 asks for. */
  mechanism1(resetControl?: IoHandler): IoHandler {
    const s = this.#s;
    const selected = (): boolean => (s.address & 0x80000000) !== 0;
    const offsetOf = (offset: number): number => (s.address & 0xfc) | (offset & 3);
    return {
      read: (offset, size) => {
        if (offset < 4) {
          if (offset === 0 && size === 4) return s.address;
          return offset === 1 && size === 1 ? (resetControl?.read(0, 1) ?? 0xff) : allOnes(size);
        }
        if (!selected() || (offset & 3) + size > 4) return allOnes(size);
        return this.readConfig((s.address >>> 16) & 0xff, (s.address >>> 8) & 0xff, offsetOf(offset), size);
      },
      write: (offset, size, value) => {
        if (offset < 4) {
          if (offset === 0 && size === 4) s.address = value & ~3;
          else if (offset === 1 && size === 1) resetControl?.write(0, 1, value);
          return;
        }
        if (!selected() || (offset & 3) + size > 4) return;
        this.writeConfig((s.address >>> 16) & 0xff, (s.address >>> 8) & 0xff, offsetOf(offset), size, value);
      },
    };
  }

  /** The enhanced configuration window (1 MiB a bus), for chipsets that have one. PCI Express 3.0, 7.2.2. */
  ecam(): IoHandler {
    return {
      read: (offset, size) => this.readConfig(Math.floor(offset / 2 ** 20), (offset >>> 12) & 0xff, offset & 0xfff, size),
      write: (offset, size, value) =>
        this.writeConfig(Math.floor(offset / 2 ** 20), (offset >>> 12) & 0xff, offset & 0xfff, size, value),
    };
  }

  // Interrupt lines.

  /** Which of the lines a function's pin is wired to: slots are staggered from slot 1 on, unless the chipset says otherwise. */
  intxOf(pciFunction: PciFunction): number {
    const { slot, spec } = pciFunction;
    const pin = spec.pin ?? 1;
    return this.wires.intxLine?.(slot, pin) ?? (slot + 3 + pin - 1) & 3;
  }

  /** Recomputes a line: the wired OR of the functions on it. */
  updateIntx(line: number): void {
    const level = this.functions.some((each) => each.spec.pin && this.intxOf(each) === line && each.intxAsserted);
    this.wires.intx[line]?.set(level);
  }

  // Mapping.

  /** A register changed that decides what is mapped. */
  changed(): void {
    this.#s.generation++;
    this.wires.mappingChanged?.();
  }

  /** All registers were replaced, and the generation with them: every thread is to look, whatever it saw last (`before`). */
  replaced(before: number): void {
    this.#s.generation = Math.max(before, this.#s.generation);
    this.changed();
  }

  /** The shared generation: differs from the last one seen where `sync` has something to do. */
  get generation(): number {
    return this.#s.generation;
  }

  /** Brings this thread's maps up to date. Cheap when nothing changed. */
  sync(): void {
    const generation = this.#s.generation;
    if (generation === this.#generation) return;
    this.#generation = generation;
    this.wires.arrange?.();
    for (const { space, base } of this.#mapped) space.unmap(base);
    this.#mapped = [];
    const mapper: PciMapper = {
      io: (base, length, handler, name) => this.#map(this.wires.ports, base, length, handler, name),
      memory: (base, length, handler, name) => this.#map(this.wires.memory, base, length, handler, name),
    };
    for (const each of this.functions) this.#mapFunction(each, mapper);
    this.wires.synced?.();
  }

  #mapFunction(each: PciFunction, mapper: PciMapper): void {
    const { spec } = each;
    for (const bar of spec.bars ?? []) {
      const base = each.barAddress(bar.index);
      if (bar.ram !== undefined) {
        if (this.#ramAt.get(bar) !== base) {
          this.#ramAt.set(bar, base);
          bar.ram(base);
        }
        continue;
      }
      const handler = each.barHandler(bar);
      if (base === undefined || handler === undefined) continue;
      const space = bar.kind === 'io' ? this.wires.ports : this.wires.memory;
      this.#map(space, base, bar.size, handler, `${spec.name}.bar${bar.index}`);
    }
    const romBase = each.romAddress();
    const rom = romBase === undefined ? undefined : each.romHandler();
    if (romBase !== undefined && rom !== undefined)
      this.#map(this.wires.memory, romBase, rom.length, rom.handler, `${spec.name}.rom`);
    spec.mapExtra?.(mapper);
  }

  #map(space: IoSpace, base: number, length: number, handler: IoHandler, name: string): void {
    try {
      space.map(base, length, handler, name);
    } catch {
      return; // the guest put it over something else, which keeps the addresses
    }
    this.#mapped.push({ space, base });
  }
}
