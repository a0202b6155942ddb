/**
 * virtio over PCI: modern and transitional. virtio 1.2, 4.1; the legacy interface 4.1.4.10.
 *
 * BAR 0 (transitional only): legacy registers, I/O. BAR 1: MSI-X. BAR 4: the modern structures, a page each:
 * common configuration, ISR status, device configuration, notifications (four bytes a queue).
 *
 * A reset is immediate: registers go back and chains that I/O threads still work on become void. Since such a thread
 * may still store into buffers of the driver, a modern driver, which reads the status until it is 0, sees the old
 * status until the last of them is done. A legacy driver does not wait, and gets no such promise. virtio 1.2, 4.1.4.3.1.
 */
import type { AccessSize, IoHandler } from '../../bus/io.ts';
import { type PciBar, type PciBus, type PciCapability, PciFunction, type pciFunctionState } from '../../bus/pci.ts';
import type { GuestMemory } from '../../memory/guest-memory.ts';
import type { View } from '../../memory/struct.ts';
import type { VirtioDevice, VirtioTransport } from './device.ts';
import { VirtQueue } from './queue.ts';
import {
  F_ANY_LAYOUT,
  F_EVENT_IDX,
  F_IN_ORDER,
  F_INDIRECT_DESC,
  F_RING_PACKED,
  F_RING_RESET,
  F_VERSION_1,
  featureWords,
  hasBit,
  NO_VECTOR,
  STATUS_DRIVER_OK,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
  VIRTIO_QUEUES_MAX,
  type VirtioState,
} from './state.ts';

const VENDOR = 0x1af4;
const MODERN_ID = 0x1040;
const CAPABILITY_VENDOR = 9;
const CFG_COMMON = 1;
const CFG_NOTIFY = 2;
const CFG_ISR = 3;
const CFG_DEVICE = 4;
const CFG_PCI = 5;

const LEGACY_BAR = 0;
const MSIX_BAR = 1;
const MODERN_BAR = 4;
const PAGE = 0x1000;
const COMMON_AT = 0;
const ISR_AT = PAGE;
const DEVICE_AT = 2 * PAGE;
const NOTIFY_AT = 3 * PAGE;
const MODERN_BYTES = 4 * PAGE;
const COMMON_BYTES = 60;
const NOTIFY_STEP = 4;

// Common configuration. virtio 1.2, 4.1.4.3.
const DEVICE_FEATURE_SELECT = 0;
const DEVICE_FEATURE = 4;
const DRIVER_FEATURE_SELECT = 8;
const DRIVER_FEATURE = 12;
const CONFIG_VECTOR = 16;
const NUM_QUEUES = 18;
const DEVICE_STATUS = 20;
const QUEUE_SELECT = 22;
const QUEUE_SIZE = 24;
const QUEUE_VECTOR = 26;
const QUEUE_ENABLE = 28;
const QUEUE_NOTIFY_OFF = 30;
const QUEUE_DESC = 32;
const QUEUE_DRIVER = 40;
const QUEUE_DEVICE = 48;
const QUEUE_NOTIFY_DATA = 56;
const QUEUE_RESET = 58;

// Legacy registers. virtio 1.2, 4.1.4.10.
const LEGACY_DEVICE_FEATURES = 0;
const LEGACY_DRIVER_FEATURES = 4;
const LEGACY_QUEUE_ADDRESS = 8;
const LEGACY_QUEUE_SIZE = 12;
const LEGACY_QUEUE_SELECT = 14;
const LEGACY_QUEUE_NOTIFY = 16;
const LEGACY_STATUS = 18;
const LEGACY_ISR = 19;
const LEGACY_CONFIG_VECTOR = 20;
const LEGACY_QUEUE_VECTOR = 22;
const LEGACY_PAGE = 4096;

const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

export interface VirtioPciOptions {
  readonly bus: PciBus;
  readonly slot: number;
  readonly fn?: number;
  /** Function 0 of a slot that has others. */
  readonly multifunction?: boolean;
  readonly memory: GuestMemory;
  /** `disable-legacy`: no transitional interface. A device type without a legacy id never has one. */
  readonly disableLegacy?: boolean;
  /** `disable-modern`: only the legacy interface. */
  readonly disableModern?: boolean;
  /** MSI-X vectors; 0 for INTx only. One for each queue and one more unless said otherwise. */
  readonly vectors?: number;
  /** `packed`, `event_idx`, `indirect_desc`, `in_order`, as QEMU's `-device` has them. */
  readonly packed?: boolean;
  readonly eventIdx?: boolean;
  readonly indirect?: boolean;
  readonly inOrder?: boolean;
  /** Told once for each thing a driver did wrong. */
  readonly trace?: (message: string) => void;
}

export class VirtioPci implements VirtioTransport {
  readonly device: VirtioDevice;
  readonly memory: GuestMemory;
  readonly queues: readonly VirtQueue[];
  readonly function: PciFunction;
  readonly #s: VirtioState;
  readonly #offered: readonly [number, number];
  readonly #legacyOffered: number;
  readonly #vectors: number;
  readonly #modern: boolean;
  readonly #modernHandler: IoHandler;
  readonly #pciAccess: number = 0;
  readonly #trace: (message: string) => void;

  constructor(
    state: VirtioState,
    pciState: View<typeof pciFunctionState.fields>,
    device: VirtioDevice,
    options: VirtioPciOptions,
  ) {
    const legacy = !options.disableLegacy && device.legacyId !== undefined;
    const modern = !options.disableModern;
    if (!legacy && !modern) throw new Error(`${device.name}: neither a legacy nor a modern interface`);
    const count = device.queueSizes.length;
    if (count > VIRTIO_QUEUES_MAX) throw new RangeError(`${device.name}: more than ${VIRTIO_QUEUES_MAX} queues`);
    this.#s = state;
    this.device = device;
    this.memory = options.memory;
    this.#modern = modern;
    this.#trace = options.trace ?? (() => {});
    const common = [F_INDIRECT_DESC, F_EVENT_IDX].filter((bit) =>
      bit === F_EVENT_IDX ? options.eventIdx !== false : options.indirect !== false,
    );
    this.#legacyOffered = featureWords([...device.features.filter((bit) => bit < 32), ...common, F_ANY_LAYOUT])[0];
    const offered = [...device.features, ...common, F_VERSION_1, F_RING_RESET];
    if (options.packed) offered.push(F_RING_PACKED);
    if (options.inOrder) offered.push(F_IN_ORDER);
    this.#offered = featureWords(modern ? offered : []);
    this.queues = device.queueSizes.map(
      (size, index) => new VirtQueue(state, index, size, options.memory, (why) => this.fail(why)),
    );
    this.#vectors = Math.min(options.vectors ?? count + 1, 128);
    this.#modernHandler = {
      read: (offset, size) => this.#readModern(offset, size),
      write: (offset, size, value) => this.#writeModern(offset, size, value),
    };

    const bars: PciBar[] = [];
    if (legacy) {
      const size = Math.max(64, 2 ** Math.ceil(Math.log2(24 + device.configSize)));
      const handler: IoHandler = {
        read: (offset, width) => this.#readLegacy(offset, width),
        write: (offset, width, value) => this.#writeLegacy(offset, width, value),
      };
      bars.push({ index: LEGACY_BAR, kind: 'io', size, handler });
    }
    if (this.#vectors > 0) bars.push({ index: MSIX_BAR, kind: 'mem32', size: PAGE });
    const capabilities: PciCapability[] = [];
    if (modern) {
      bars.push({ index: MODERN_BAR, kind: 'mem64', prefetch: true, size: MODERN_BYTES, handler: this.#modernHandler });
      capabilities.push(
        capability(CFG_COMMON, COMMON_AT, PAGE),
        capability(CFG_ISR, ISR_AT, PAGE),
        capability(CFG_DEVICE, DEVICE_AT, PAGE),
        capability(CFG_NOTIFY, NOTIFY_AT, PAGE, NOTIFY_STEP),
        pciAccessCapability(),
      );
    }
    this.function = new PciFunction(
      pciState,
      {
        name: device.name,
        vendor: VENDOR,
        device: legacy ? (device.legacyId as number) : MODERN_ID + device.type,
        // virtio 1.2, 4.1.2.1 and 4.1.2.3: a transitional device has revision 0 and its type as subsystem.
        revision: legacy ? 0 : 1,
        classCode: device.classCode,
        subsystemVendor: VENDOR,
        subsystem: legacy ? device.type : 0x1100,
        pin: 1,
        multifunction: options.multifunction,
        bars,
        capabilities,
        msix: this.#vectors > 0 ? { vectors: this.#vectors, bar: MSIX_BAR, tableOffset: 0, pbaOffset: 0x800 } : undefined,
        configRead: (offset, size) => this.#configRead(offset, size),
        configWrite: (offset, size) => this.#configWrite(offset, size),
      },
      options.bus,
      options.slot,
      options.fn ?? 0,
    );
    if (modern) this.#pciAccess = this.function.capabilityOffsets[4];
    device.attach(this);
  }

  /** Power-on state of the PCI function, the transport and the device. */
  reset(): void {
    this.function.reset();
    this.#resetDevice(false);
    this.#s.statusBefore = 0;
  }

  #resetDevice(waits: boolean): void {
    const s = this.#s;
    s.statusBefore = s.status !== 0 ? s.status : s.statusBefore;
    s.resetWaits = waits ? 1 : 0;
    s.status = 0;
    s.epoch++;
    s.deviceFeatureSelect = 0;
    s.driverFeatureSelect = 0;
    s.driverFeatures.fill(0);
    s.queueSelect = 0;
    s.isr = 0;
    s.configVector = NO_VECTOR;
    s.queueVector.fill(NO_VECTOR);
    for (const queue of this.queues) queue.reset();
    this.function.setIntx(false);
    this.device.reset();
  }

  // What the device calls.

  hasFeature(bit: number): boolean {
    return hasBit(this.#s.driverFeatures, bit);
  }
  get driverOk(): boolean {
    return (this.#s.status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET)) === STATUS_DRIVER_OK;
  }
  signal(index: number): void {
    if (this.queues[index].takeSignal()) this.#interrupt(ISR_QUEUE, this.#s.queueVector[index]);
  }
  configChanged(): void {
    this.#s.configGeneration = (this.#s.configGeneration + 1) & 0xff;
    if ((this.#s.status & STATUS_DRIVER_OK) !== 0) this.#interrupt(ISR_CONFIG, this.#s.configVector);
  }
  fail(reason: string): void {
    const s = this.#s;
    if ((s.status & STATUS_NEEDS_RESET) !== 0) return;
    this.#trace(`${this.device.name}: ${reason}`);
    s.status |= STATUS_NEEDS_RESET;
    if ((s.status & STATUS_DRIVER_OK) !== 0) this.#interrupt(ISR_CONFIG, s.configVector);
  }
  began(): void {
    this.#s.inFlight++;
  }
  ended(): void {
    if (this.#s.inFlight > 0) this.#s.inFlight--;
  }

  /** virtio 1.2, 4.1.4.5.1 and 4.1.5.1.2: with MSI-X the vector alone, else the ISR bit and the pin. */
  #interrupt(bit: number, vector: number): void {
    if (this.function.msixEnabled) {
      if (bit === ISR_CONFIG) this.#s.isr |= bit;
      if (vector !== NO_VECTOR) this.function.notifyMsix(vector);
      return;
    }
    this.#s.isr |= bit;
    this.function.setIntx(true);
  }

  #takeIsr(): number {
    const value = this.#s.isr;
    this.#s.isr = 0;
    this.function.setIntx(false);
    return value;
  }

  // Registers that both interfaces have.

  #queue(): VirtQueue | undefined {
    return this.queues[this.#s.queueSelect];
  }

  #readStatus(): number {
    const s = this.#s;
    if (s.status === 0 && s.resetWaits !== 0 && s.inFlight !== 0) return s.statusBefore;
    return s.status;
  }

  #writeStatus(value: number, legacy: boolean): void {
    const s = this.#s;
    if (value === 0) return this.#resetDevice(!legacy);
    const before = s.status;
    // Bits are only ever added, and NEEDS_RESET is the device's. virtio 1.2, 2.1.1.
    let next = before | (value & 0xff & ~STATUS_NEEDS_RESET);
    if (!legacy && (next & STATUS_FEATURES_OK) !== 0 && (before & STATUS_FEATURES_OK) === 0 && !this.#acceptable())
      next &= ~STATUS_FEATURES_OK;
    // A modern driver whose features were refused cannot start.
    if (!legacy && (next & STATUS_FEATURES_OK) === 0) next &= ~STATUS_DRIVER_OK;
    s.status = next;
    if ((next & STATUS_DRIVER_OK) !== 0 && (before & STATUS_DRIVER_OK) === 0) {
      if ((next & STATUS_NEEDS_RESET) !== 0) this.#interrupt(ISR_CONFIG, s.configVector);
      else this.device.started?.();
    }
  }

  #acceptable(): boolean {
    const chosen = this.#s.driverFeatures;
    return (chosen[0] & ~this.#offered[0]) === 0 && (chosen[1] & ~this.#offered[1]) === 0 && hasBit(chosen, F_VERSION_1);
  }

  #vector(value: number): number {
    return value < this.#vectors ? value : NO_VECTOR;
  }

  #notify(index: number): void {
    if (this.queues[index]?.ready) this.device.notified(index);
  }

  #readDeviceConfig(offset: number, size: number): number {
    const config = this.device.config?.();
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = (value << 8) | (config?.[offset + i] ?? 0);
    return value >>> 0;
  }

  #writeDeviceConfig(offset: number, size: number, value: number): void {
    if (offset + size <= this.device.configSize) this.device.writeConfig?.(offset, size, value);
  }

  // The modern interface.

  #readModern(offset: number, size: AccessSize): number {
    if (offset < ISR_AT) return this.#readCommon(offset, size);
    if (offset < DEVICE_AT) return offset === ISR_AT ? this.#takeIsr() : 0;
    if (offset < NOTIFY_AT) return this.#readDeviceConfig(offset - DEVICE_AT, size);
    return 0;
  }

  #writeModern(offset: number, size: AccessSize, value: number): void {
    if (offset < ISR_AT) this.#writeCommon(offset, size, value);
    else if (offset >= NOTIFY_AT) this.#notify((offset - NOTIFY_AT) >> 2);
    else if (offset >= DEVICE_AT) this.#writeDeviceConfig(offset - DEVICE_AT, size, value);
  }

  /** Every field can be seen as 16-bit words; accesses of other widths are put together from them. */
  #readCommon(offset: number, size: AccessSize): number {
    if ((offset & (size - 1)) !== 0 || offset + size > COMMON_BYTES) return 0;
    if (size === 4) return (this.#commonWord(offset) | (this.#commonWord(offset + 2) << 16)) >>> 0;
    if (size === 2) return this.#commonWord(offset);
    return (this.#commonWord(offset & ~1) >>> ((offset & 1) * 8)) & 0xff;
  }

  #commonWord(offset: number): number {
    const s = this.#s;
    const half = (words: ArrayLike<number>, index: number): number => ((words[index] ?? 0) >>> ((offset & 2) * 8)) & 0xffff;
    const queue = this.#queue();
    const selected = s.queueSelect;
    switch (offset) {
      case DEVICE_FEATURE_SELECT:
      case DEVICE_FEATURE_SELECT + 2:
        return half([s.deviceFeatureSelect], 0);
      case DEVICE_FEATURE:
      case DEVICE_FEATURE + 2:
        return half(this.#offered, s.deviceFeatureSelect);
      case DRIVER_FEATURE_SELECT:
      case DRIVER_FEATURE_SELECT + 2:
        return half([s.driverFeatureSelect], 0);
      case DRIVER_FEATURE:
      case DRIVER_FEATURE + 2:
        return half(s.driverFeatures, s.driverFeatureSelect);
      case CONFIG_VECTOR:
        return s.configVector;
      case NUM_QUEUES:
        return this.queues.length;
      case DEVICE_STATUS:
        return this.#readStatus() | (s.configGeneration << 8);
      case QUEUE_SELECT:
        return selected;
      case QUEUE_NOTIFY_DATA:
        return 0;
    }
    if (queue === undefined) return offset === QUEUE_VECTOR ? NO_VECTOR : 0;
    if (offset >= QUEUE_DESC && offset < QUEUE_NOTIFY_DATA) {
      const words = offset < QUEUE_DRIVER ? s.queueDesc : offset < QUEUE_DEVICE ? s.queueDriver : s.queueDevice;
      return half(words, selected * 2 + ((offset >> 2) & 1));
    }
    switch (offset) {
      case QUEUE_SIZE:
        return queue.size;
      case QUEUE_VECTOR:
        return s.queueVector[selected];
      case QUEUE_ENABLE:
        return s.queueEnabled[selected];
      case QUEUE_NOTIFY_OFF:
        return selected;
      default: // QUEUE_RESET: done when no thread works on what came from the queue. virtio 1.2, 4.1.4.3.1
        return s.queueResets[selected] !== 0 && s.inFlight !== 0 ? 1 : 0;
    }
  }

  #writeCommon(offset: number, size: AccessSize, value: number): void {
    if ((offset & (size - 1)) !== 0) return;
    const s = this.#s;
    if (size === 1) {
      if (offset === DEVICE_STATUS) this.#writeStatus(value, false);
      return;
    }
    if (size === 4) {
      switch (offset) {
        case DEVICE_FEATURE_SELECT:
          s.deviceFeatureSelect = value;
          return;
        case DRIVER_FEATURE_SELECT:
          s.driverFeatureSelect = value;
          return;
        case DRIVER_FEATURE:
          if (s.driverFeatureSelect < 2 && (s.status & STATUS_FEATURES_OK) === 0) s.driverFeatures[s.driverFeatureSelect] = value;
          return;
        case DEVICE_FEATURE:
          return;
      }
      const queue = this.#queue();
      if (offset >= QUEUE_DESC && offset < QUEUE_NOTIFY_DATA) {
        if (queue === undefined || s.queueEnabled[queue.index] !== 0) return;
        const words = offset < QUEUE_DRIVER ? s.queueDesc : offset < QUEUE_DEVICE ? s.queueDriver : s.queueDevice;
        words[queue.index * 2 + ((offset >> 2) & 1)] = value;
        return;
      }
      this.#writeCommonWord(offset, value & 0xffff);
      this.#writeCommonWord(offset + 2, value >>> 16);
      return;
    }
    this.#writeCommonWord(offset, value);
  }

  #writeCommonWord(offset: number, value: number): void {
    const s = this.#s;
    if (offset === CONFIG_VECTOR) s.configVector = this.#vector(value);
    else if (offset === QUEUE_SELECT) s.queueSelect = value;
    else if (offset === DEVICE_STATUS) this.#writeStatus(value & 0xff, false);
    const queue = this.#queue();
    if (queue === undefined) return;
    const i = queue.index;
    switch (offset) {
      case QUEUE_SIZE:
        if (s.queueEnabled[i] === 0) s.queueSize[i] = value;
        return;
      case QUEUE_VECTOR:
        s.queueVector[i] = this.#vector(value);
        return;
      case QUEUE_ENABLE:
        if (value === 1 && s.queueEnabled[i] === 0) queue.enable();
        return;
      case QUEUE_RESET:
        if (value !== 1 || !this.hasFeature(F_RING_RESET)) return;
        queue.reset();
        s.queueResets[i] = 1;
    }
  }

  // The legacy interface: little-endian, as the guest is.

  #readLegacy(offset: number, size: AccessSize): number {
    const s = this.#s;
    const queue = this.#queue();
    const configAt = this.function.msixEnabled ? 24 : 20;
    if (offset >= configAt) return this.#readDeviceConfig(offset - configAt, size);
    switch (offset) {
      case LEGACY_DEVICE_FEATURES:
        return this.#legacyOffered;
      case LEGACY_DRIVER_FEATURES:
        return s.driverFeatures[0];
      case LEGACY_QUEUE_ADDRESS:
        return queue === undefined || s.queueEnabled[queue.index] === 0
          ? 0
          : ((s.queueDesc[queue.index * 2] >>> 12) | (s.queueDesc[queue.index * 2 + 1] << 20)) >>> 0;
      case LEGACY_QUEUE_SIZE:
        return queue?.maxSize ?? 0;
      case LEGACY_QUEUE_SELECT:
        return s.queueSelect;
      case LEGACY_STATUS:
        return this.#readStatus();
      case LEGACY_ISR:
        return this.#takeIsr();
      case LEGACY_CONFIG_VECTOR:
        return s.configVector;
      case LEGACY_QUEUE_VECTOR:
        return queue === undefined ? NO_VECTOR : s.queueVector[queue.index];
      default:
        return 0;
    }
  }

  #writeLegacy(offset: number, size: AccessSize, value: number): void {
    const s = this.#s;
    const queue = this.#queue();
    const configAt = this.function.msixEnabled ? 24 : 20;
    if (offset >= configAt) return this.#writeDeviceConfig(offset - configAt, size, value);
    switch (offset) {
      case LEGACY_DRIVER_FEATURES:
        s.driverFeatures[0] = value & this.#legacyOffered;
        s.driverFeatures[1] = 0;
        return;
      case LEGACY_QUEUE_ADDRESS:
        // Zero gives the queue up.
        if (queue !== undefined) this.#legacyQueue(queue, value);
        return;
      case LEGACY_QUEUE_SELECT:
        s.queueSelect = value & 0xffff;
        return;
      case LEGACY_QUEUE_NOTIFY:
        this.#notify(value & 0xffff);
        return;
      case LEGACY_STATUS:
        this.#writeStatus(value & 0xff, true);
        return;
      case LEGACY_CONFIG_VECTOR:
        s.configVector = this.#vector(value & 0xffff);
        return;
      case LEGACY_QUEUE_VECTOR:
        if (queue !== undefined) s.queueVector[queue.index] = this.#vector(value & 0xffff);
    }
  }

  /** Lays the three areas out from a page number. virtio 1.2, 2.7.2. */
  #legacyQueue(queue: VirtQueue, page: number): void {
    const s = this.#s;
    queue.reset();
    if (page === 0) return;
    const desc = page * LEGACY_PAGE;
    const driver = desc + 16 * queue.maxSize;
    const device = Math.ceil((driver + 6 + 2 * queue.maxSize) / LEGACY_PAGE) * LEGACY_PAGE;
    const store = (words: Uint32Array, address: number): void => {
      words[queue.index * 2] = address % 2 ** 32;
      words[queue.index * 2 + 1] = Math.floor(address / 2 ** 32);
    };
    store(s.queueDesc, desc);
    store(s.queueDriver, driver);
    store(s.queueDevice, device);
    queue.enable();
  }

  // Access to the BARs through configuration space. virtio 1.2, 4.1.4.9.

  #window(offset: number, size: number): { at: number; length: AccessSize; data: Uint8Array } | undefined {
    const cap = this.#pciAccess;
    if (!this.#modern || cap === 0 || offset >= cap + 20 || offset + size <= cap + 16) return undefined;
    const c = this.function.config;
    const word = (from: number): number => (c[from] | (c[from + 1] << 8) | (c[from + 2] << 16) | (c[from + 3] << 24)) >>> 0;
    const at = word(cap + 8);
    const length = word(cap + 12);
    if (c[cap + 4] !== MODERN_BAR || (length !== 1 && length !== 2 && length !== 4)) return undefined;
    if (at % length !== 0 || at + length > MODERN_BYTES) return undefined;
    return { at, length, data: c.subarray(cap + 16, cap + 20) };
  }

  #configRead(offset: number, size: AccessSize): void {
    const window = this.#window(offset, size);
    if (window === undefined) return;
    const value = this.#modernHandler.read(window.at, window.length);
    for (let i = 0; i < window.length; i++) window.data[i] = value >>> (8 * i);
  }

  #configWrite(offset: number, size: AccessSize): void {
    const window = this.#window(offset, size);
    if (window === undefined) return;
    let value = 0;
    for (let i = window.length - 1; i >= 0; i--) value = (value << 8) | window.data[i];
    this.#modernHandler.write(window.at, window.length, value >>> 0);
  }
}

/** The body of a vendor capability: length, type, BAR, id, padding, offset, length, and what `extra` adds. virtio 1.2, 4.1.4. */
function capability(type: number, offset: number, length: number, extra?: number): PciCapability {
  const body = new Uint8Array(extra === undefined ? 14 : 18);
  const view = new DataView(body.buffer);
  body[0] = body.length + 2;
  body[1] = type;
  body[2] = MODERN_BAR;
  view.setUint32(6, offset, true);
  view.setUint32(10, length, true);
  if (extra !== undefined) view.setUint32(14, extra, true);
  return { id: CAPABILITY_VENDOR, body };
}

/** The window: BAR, offset, length and data are the driver's to write. virtio 1.2, 4.1.4.9. */
function pciAccessCapability(): PciCapability {
  const body = new Uint8Array(18);
  body[0] = 20;
  body[1] = CFG_PCI;
  const writable = new Uint8Array(18);
  writable[2] = 0xff;
  writable.fill(0xff, 6, 18);
  return { id: CAPABILITY_VENDOR, body, writable };
}
