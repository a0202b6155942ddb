/**
 * fw_cfg: how the machine tells its firmware about itself. QEMU documentation, "QEMU Firmware Configuration (fw_cfg)
 * Device": selector at 0x510, data at 0x511, DMA address (big endian) at 0x514.
 *
 * What can be read is configuration, the same on every thread and added before the machine starts; only the selector
 * and the offset are state. A writable item lies in memory that its owner gives, which should be shared.
 */
import { type AccessSize, allOnes, type IoHandler } from '../bus/io.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { f64, struct, u32, type View } from '../memory/struct.ts';

/** Ports from 0x510 on: selector, data, and the DMA address. */
export const FW_CFG_PORT = 0x510;
export const FW_CFG_PORTS = 12;

/** Keys of items that are not files. */
export const FwCfgKey = {
  SIGNATURE: 0x00,
  ID: 0x01,
  UUID: 0x02,
  RAM_SIZE: 0x03,
  NO_GRAPHICS: 0x04,
  CPUS: 0x05,
  MACHINE_ID: 0x06,
  KERNEL_ADDRESS: 0x07,
  KERNEL_SIZE: 0x08,
  KERNEL_COMMAND_LINE: 0x09,
  INITRD_ADDRESS: 0x0a,
  INITRD_SIZE: 0x0b,
  BOOT_DEVICE: 0x0c,
  NUMA: 0x0d,
  BOOT_MENU: 0x0e,
  MAX_CPUS: 0x0f,
  KERNEL_ENTRY: 0x10,
  KERNEL_DATA: 0x11,
  INITRD_DATA: 0x12,
  COMMAND_LINE_ADDRESS: 0x13,
  COMMAND_LINE_SIZE: 0x14,
  COMMAND_LINE_DATA: 0x15,
  SETUP_ADDRESS: 0x16,
  SETUP_SIZE: 0x17,
  SETUP_DATA: 0x18,
  DIRECTORY: 0x19,
  FIRST_FILE: 0x20,
  ACPI_TABLES: 0x8000,
  SMBIOS_ENTRIES: 0x8001,
  IRQ0_OVERRIDE: 0x8002,
  E820_TABLE: 0x8003,
} as const;

const FEATURE_TRADITIONAL = 1;
const FEATURE_DMA = 2;
/** `QEMU CFG`, big endian, where the DMA address is read. */
const DMA_SIGNATURE_HIGH = 0x51454d55;
const DMA_SIGNATURE_LOW = 0x20434647;

const DMA_ERROR = 1;
const DMA_READ = 2;
const DMA_SKIP = 4;
const DMA_SELECT = 8;
const DMA_WRITE = 16;

const NAME_BYTES = 56;
const ENTRY_BYTES = 64;
const LAST_FILE = 0x3fff;
const CHUNK = 65536;

export const fwCfgState = struct('fw-cfg', 1, {
  key: u32,
  /** Next byte of the selected item. */
  offset: f64,
  /** The high half of the DMA address, until the low half starts the transfer. */
  dmaHigh: u32,
});

interface Item {
  readonly bytes: Uint8Array;
  /** Called after the guest wrote; absent where the item can only be read. */
  readonly written?: (offset: number, length: number) => void;
}

export class FwCfg implements IoHandler {
  readonly #s: View<typeof fwCfgState.fields>;
  readonly #memory: GuestMemory;
  readonly #items = new Map<number, Item>();
  readonly #files = new Map<string, number>();
  /** Called before an item is read from its start. */
  readonly #refresh = new Map<number, () => void>();

  constructor(state: View<typeof fwCfgState.fields>, wires: { readonly memory: GuestMemory }) {
    this.#s = state;
    this.#memory = wires.memory;
    this.addItem(FwCfgKey.SIGNATURE, new TextEncoder().encode('QEMU'));
    this.addItem(FwCfgKey.ID, little(FEATURE_TRADITIONAL | FEATURE_DMA, 4));
    this.addItem(FwCfgKey.DIRECTORY, new Uint8Array(4));
  }

  reset(): void {
    this.#s.key = FwCfgKey.SIGNATURE;
    this.#s.offset = 0;
    this.#s.dmaHigh = 0;
  }

  // Configuration.

  /** Adds or replaces the item `key`. Numbers are little endian: see `addNumber`. */
  addItem(key: number, bytes: Uint8Array): void {
    this.#items.set(key, { bytes });
  }

  /** Adds a number of `size` bytes, little endian. */
  addNumber(key: number, value: number, size: 2 | 4 | 8): void {
    this.addItem(key, little(value, size));
  }

  /**
   * Adds a file, or replaces the one of that name; `name` has at most 55 bytes of ASCII. Every thread adds the same
   * files in the same order. With `written` the guest may write over `bytes`, which then should be shared memory.
   */
  addFile(name: string, bytes: Uint8Array | string, written?: (offset: number, length: number) => void): void {
    if (!/^[\x21-\x7e]{1,55}$/.test(name))
      throw new RangeError(`fw_cfg: '${name}' is no file name of at most 55 ASCII characters`);
    const key = this.#files.get(name) ?? FwCfgKey.FIRST_FILE + this.#files.size;
    if (key > LAST_FILE) throw new RangeError('fw_cfg: too many files');
    this.#files.set(name, key);
    this.#items.set(key, { bytes: typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes, written });
    this.addItem(FwCfgKey.DIRECTORY, this.#directory());
  }

  /** What a file holds is to be made up to date by `refresh` before the guest reads it from its start; its size stays. */
  refreshFile(name: string, refresh: () => void): void {
    const key = this.#files.get(name);
    if (key !== undefined) this.#refresh.set(key, refresh);
  }

  /** The content of a file, or undefined. */
  file(name: string): Uint8Array | undefined {
    const key = this.#files.get(name);
    return key === undefined ? undefined : this.#items.get(key)?.bytes;
  }

  /** Names and sizes, for a monitor. */
  list(): readonly { key: number; name: string; bytes: number }[] {
    return [...this.#files].map(([name, key]) => ({ key, name, bytes: this.#items.get(key)?.bytes.length ?? 0 }));
  }

  #directory(): Uint8Array {
    const names = [...this.#files.keys()].sort((a, b) => (a < b ? -1 : 1));
    const out = new Uint8Array(4 + names.length * ENTRY_BYTES);
    const view = new DataView(out.buffer);
    view.setUint32(0, names.length);
    names.forEach((name, i) => {
      const at = 4 + i * ENTRY_BYTES;
      const key = this.#files.get(name) ?? 0;
      view.setUint32(at, this.#items.get(key)?.bytes.length ?? 0);
      view.setUint16(at + 4, key);
      out.set(new TextEncoder().encode(name), at + ENTRY_BYTES - NAME_BYTES);
    });
    return out;
  }

  // Registers.

  read(offset: number, size: AccessSize): number {
    if (offset >= 4) {
      const high = offset < 8;
      if ((offset & 3) + size > 4) return allOnes(size);
      const word = high ? DMA_SIGNATURE_HIGH : DMA_SIGNATURE_LOW;
      return (swap32(word) >>> ((offset & 3) * 8)) & allOnes(size);
    }
    // The selector cannot be read back.
    if (offset !== 1) return 0;
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#next() << (8 * i);
    return value >>> 0;
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (offset === 0 && size >= 2) this.#select(value & 0xffff);
    else if (offset === 4 && size === 4) this.#s.dmaHigh = swap32(value);
    else if (offset === 8 && size === 4) {
      const address = this.#s.dmaHigh * 2 ** 32 + swap32(value);
      this.#s.dmaHigh = 0;
      this.#dma(address);
    }
    // The data port has been read-only since QEMU 2.4: items are written by DMA.
  }

  #select(key: number): void {
    this.#s.key = key;
    this.#s.offset = 0;
  }

  /** Bit 14 of a key asks for writing, which changes nothing any more. */
  get #item(): Item | undefined {
    return this.#items.get(this.#s.key & ~0x4000);
  }

  #next(): number {
    const s = this.#s;
    const bytes = this.#item?.bytes;
    return bytes !== undefined && s.offset < bytes.length ? bytes[s.offset++] : 0;
  }

  /** A transfer described by control, length and address at `at`, all big endian. */
  #dma(at: number): void {
    const memory = this.#memory;
    const s = this.#s;
    const control = swap32(memory.read32(at));
    const length = swap32(memory.read32(at + 4));
    const address = swap32(memory.read32(at + 8)) * 2 ** 32 + swap32(memory.read32(at + 12));
    if ((control & DMA_SELECT) !== 0) this.#select(control >>> 16);
    const item = this.#item;
    let result = 0;
    if (address + length > 2 ** 52) result = DMA_ERROR;
    else if ((control & DMA_READ) !== 0) this.#dmaRead(item, address, length);
    else if ((control & DMA_WRITE) !== 0) result = this.#dmaWrite(item, address, length) ? 0 : DMA_ERROR;
    else if ((control & DMA_SKIP) !== 0 && item !== undefined) s.offset = Math.min(item.bytes.length, s.offset + length);
    memory.write32(at, swap32(result));
  }

  /** What is beyond the item's end reads as zeros; no more of those than the guest has memory. */
  #dmaRead(item: Item | undefined, address: number, length: number): void {
    const s = this.#s;
    const memory = this.#memory;
    const bytes = item?.bytes ?? new Uint8Array(0);
    if (s.offset === 0) this.#refresh.get(s.key)?.();
    const from = Math.min(s.offset, bytes.length);
    const count = Math.min(length, bytes.length - from);
    for (let done = 0; done < count; done += CHUNK)
      memory.write(address + done, bytes.subarray(from + done, from + Math.min(count, done + CHUNK)));
    s.offset = from + count;
    const padding = Math.min(length - count, memory.ramBytes);
    const zeros = new Uint8Array(Math.min(CHUNK, padding));
    for (let done = 0; done < padding; done += CHUNK)
      memory.write(address + count + done, zeros.subarray(0, Math.min(CHUNK, padding - done)));
  }

  #dmaWrite(item: Item | undefined, address: number, length: number): boolean {
    const s = this.#s;
    if (item?.written === undefined || s.offset + length > item.bytes.length) return false;
    const { offset } = s;
    this.#memory.read(address, item.bytes.subarray(offset, offset + length));
    s.offset = offset + length;
    item.written(offset, length);
    return true;
  }
}

const swap32 = (value: number): number =>
  (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;

function little(value: number, size: number): Uint8Array {
  const out = new Uint8Array(size);
  let rest = value;
  for (let i = 0; i < size; i++) {
    out[i] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return out;
}
