/**
 * virtio-blk. virtio 1.2, 5.2.
 *
 * The vCPU threads' instances serve the configuration space and ring the doorbell. The instance of an I/O thread has the
 * disk and is asked to `process` a queue; queues may be spread over several such threads.
 */
import { f64, struct, u32, type View } from '../../memory/struct.ts';
import type { Chain } from './chain.ts';
import { type Doorbell, type Locked, serveOffThread, type VirtioDevice, type VirtioTransport } from './device.ts';
import { type Disk, type DiskErrorPolicy, underPolicy } from './disk.ts';

/** Feature bits. virtio 1.2, 5.2.3. */
const F_SEG_MAX = 2;
const F_GEOMETRY = 4;
const F_RO = 5;
const F_BLK_SIZE = 6;
const F_FLUSH = 9;
const F_TOPOLOGY = 10;
const F_CONFIG_WCE = 11;
const F_MQ = 12;
const F_DISCARD = 13;
const F_WRITE_ZEROES = 14;

/** Request types and status. virtio 1.2, 5.2.6. */
const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const T_DISCARD = 11;
const T_WRITE_ZEROES = 13;
const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPP = 2;

const SECTOR = 512;
const HEADER_BYTES = 16;
const ID_BYTES = 20;
const CONFIG_BYTES = 60;
const CONFIG_WRITEBACK = 32;
/** Limits that the configuration space names. */
const RANGE_SECTORS_MAX = 0x3fffff;
const RANGES_MAX = 32;
const RANGE_BYTES = 16;
const RANGE_UNMAP = 1;

export const virtioBlkState = struct('virtio-blk', 1, {
  /** Size of the disk in bytes, as the guest is told. */
  size: f64,
  /** 1: the driver switched the write cache off. */
  writeThrough: u32,
});

export interface VirtioBlkOptions {
  /** At most 20 bytes of ASCII. */
  readonly serial?: string;
  readonly readOnly?: boolean;
  /** Request queues, one unless said otherwise. */
  readonly queues?: number;
  readonly queueSize?: number;
  /** Bytes, powers of two from 512. */
  readonly logicalBlockSize?: number;
  readonly physicalBlockSize?: number;
  /** Bytes; 0 or absent for unknown. */
  readonly minIoSize?: number;
  readonly optIoSize?: number;
  /** Offer DISCARD and WRITE_ZEROES; true unless said otherwise. */
  readonly discard?: boolean;
  readonly writeZeroes?: boolean;
  readonly errorPolicy?: DiskErrorPolicy;
}

export class VirtioBlk implements VirtioDevice {
  readonly name = 'virtio-blk';
  readonly type = 2;
  readonly legacyId = 0x1001;
  readonly classCode = 0x010000;
  readonly features: readonly number[];
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_BYTES;
  readonly #s: View<typeof virtioBlkState.fields>;
  readonly #options: VirtioBlkOptions;
  readonly #doorbell: Doorbell;
  #transport!: VirtioTransport;

  constructor(state: View<typeof virtioBlkState.fields>, options: VirtioBlkOptions, doorbell: Doorbell) {
    const { queues = 1, queueSize = 256, readOnly = false, discard = true, writeZeroes = true } = options;
    this.#s = state;
    this.#options = options;
    this.#doorbell = doorbell;
    const features = [F_SEG_MAX, F_GEOMETRY, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY, F_CONFIG_WCE];
    if (readOnly) features.push(F_RO);
    if (queues > 1) features.push(F_MQ);
    if (discard && !readOnly) features.push(F_DISCARD);
    if (writeZeroes && !readOnly) features.push(F_WRITE_ZEROES);
    this.features = features;
    this.queueSizes = new Array(queues).fill(queueSize);
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }
  reset(): void {
    this.#s.writeThrough = 0;
  }

  /** Tells the guest how large the disk is: once when the machine is made, and whenever it is resized. */
  setSize(size: number): void {
    if (this.#s.size === size) return;
    this.#s.size = size;
    this.#transport.configChanged();
  }

  /** virtio 1.2, 5.2.4. */
  config(): Uint8Array {
    const { logicalBlockSize = SECTOR, physicalBlockSize = logicalBlockSize, minIoSize = 0, optIoSize = 0 } = this.#options;
    const bytes = new Uint8Array(CONFIG_BYTES);
    const view = new DataView(bytes.buffer);
    const sectors = Math.floor(this.#s.size / SECTOR);
    view.setUint32(0, sectors % 2 ** 32, true);
    view.setUint32(4, Math.floor(sectors / 2 ** 32), true);
    view.setUint32(12, Math.max(1, Math.min(this.queueSizes[0], 1024) - 2), true);
    // The translation that firmware uses for large disks: 255 heads, 63 sectors; small ones 16 heads.
    const heads = sectors > 1024 * 16 * 63 ? 255 : 16;
    view.setUint16(16, Math.min(65535, Math.floor(sectors / (heads * 63))), true);
    bytes[18] = heads;
    bytes[19] = 63;
    view.setUint32(20, logicalBlockSize, true);
    bytes[24] = Math.log2(physicalBlockSize / logicalBlockSize);
    view.setUint16(26, Math.floor(minIoSize / logicalBlockSize), true);
    view.setUint32(28, Math.floor(optIoSize / logicalBlockSize), true);
    bytes[CONFIG_WRITEBACK] = this.#s.writeThrough === 0 ? 1 : 0;
    view.setUint16(34, this.queueSizes.length, true);
    view.setUint32(36, RANGE_SECTORS_MAX, true);
    view.setUint32(40, RANGES_MAX, true);
    view.setUint32(44, logicalBlockSize / SECTOR, true);
    view.setUint32(48, RANGE_SECTORS_MAX, true);
    view.setUint32(52, RANGES_MAX, true);
    bytes[56] = 1;
    return bytes;
  }

  writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG_WRITEBACK && this.#transport.hasFeature(F_CONFIG_WCE)) this.#s.writeThrough = (value & 1) === 0 ? 1 : 0;
  }

  notified(index: number): void {
    this.#doorbell.ring(index);
  }

  /**
   * Serves queue `index` on an I/O thread, without the machine lock: at most `budget` requests. Returns whether there may
   * be more at once; where not, the doorbell rings when there is.
   */
  process(index: number, budget: number, disk: Disk, locked: Locked): boolean {
    return serveOffThread(this.#transport, locked, index, budget, (chain) => this.#request(chain, disk, locked));
  }

  /** Carries a request out; returns the bytes written to the driver's buffers. */
  #request(chain: Chain, disk: Disk, locked: Locked): number {
    const header = new Uint8Array(HEADER_BYTES);
    if (chain.writableBytes < 1 || chain.read(0, header) < HEADER_BYTES) {
      locked(() => this.#transport.fail('request without header or status byte'));
      return 0;
    }
    const view = new DataView(header.buffer);
    const sector = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    const { status, written } = this.#carryOut(chain, disk, view.getUint32(0, true), sector);
    chain.write(chain.writableBytes - 1, Uint8Array.of(status));
    return status === S_OK ? written + 1 : chain.writableBytes;
  }

  #carryOut(chain: Chain, disk: Disk, type: number, sector: number): { status: number; written: number } {
    const room = chain.writableBytes - 1;
    const answer = (ok: boolean, written = 0): { status: number; written: number } => ({ status: ok ? S_OK : S_IOERR, written });
    switch (type) {
      case T_IN: {
        if (!this.#within(disk, sector, room)) return answer(false);
        const base = sector * SECTOR;
        let ok = true;
        chain.eachWritable(0, room, (data, at) => {
          ok = ok && this.#try('read', () => disk.read(base + at, data));
        });
        return answer(ok, room);
      }
      case T_OUT: {
        const length = chain.readableBytes - HEADER_BYTES;
        if (this.#readOnly(disk) || !this.#within(disk, sector, length)) return answer(false);
        const base = sector * SECTOR;
        let ok = true;
        chain.eachReadable(HEADER_BYTES, length, (data, at) => {
          ok = ok && this.#try('write', () => disk.write(base + at, data));
        });
        return answer(ok && this.#settle(disk));
      }
      case T_FLUSH:
        return answer(this.#readOnly(disk) || this.#try('write', () => disk.flush()));
      case T_GET_ID: {
        const id = new Uint8Array(ID_BYTES);
        id.set(new TextEncoder().encode(this.#options.serial ?? '').subarray(0, ID_BYTES));
        return answer(true, chain.write(0, id.subarray(0, Math.min(ID_BYTES, room))));
      }
      case T_DISCARD:
      case T_WRITE_ZEROES:
        return this.#ranges(chain, disk, type);
      default:
        return { status: S_UNSUPP, written: 0 };
    }
  }

  /** virtio 1.2, 5.2.6.1 and 5.2.6.2: each range is checked before any takes effect. */
  #ranges(chain: Chain, disk: Disk, type: number): { status: number; written: number } {
    const feature = type === T_DISCARD ? F_DISCARD : F_WRITE_ZEROES;
    if (!this.features.includes(feature)) return { status: S_UNSUPP, written: 0 };
    const length = chain.readableBytes - HEADER_BYTES;
    const bad = { status: S_IOERR, written: 0 };
    if (length <= 0 || length % RANGE_BYTES !== 0 || length > RANGES_MAX * RANGE_BYTES || this.#readOnly(disk)) return bad;
    const view = new DataView(chain.readBytes(HEADER_BYTES, length).buffer);
    const ranges: { offset: number; bytes: number; unmap: boolean }[] = [];
    for (let at = 0; at < length; at += RANGE_BYTES) {
      const sector = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      const count = view.getUint32(at + 8, true);
      const flags = view.getUint32(at + 12, true);
      if ((flags & ~(type === T_DISCARD ? 0 : RANGE_UNMAP)) !== 0) return { status: S_UNSUPP, written: 0 };
      if (count > RANGE_SECTORS_MAX || !this.#within(disk, sector, count * SECTOR)) return bad;
      ranges.push({ offset: sector * SECTOR, bytes: count * SECTOR, unmap: (flags & RANGE_UNMAP) !== 0 });
    }
    const ok = ranges.every(({ offset, bytes, unmap }) =>
      this.#try('write', () => (type === T_DISCARD ? disk.discard(offset, bytes) : disk.writeZeroes(offset, bytes, unmap))),
    );
    return ok && this.#settle(disk) ? { status: S_OK, written: 0 } : bad;
  }

  #readOnly(disk: Disk): boolean {
    return disk.readOnly || this.#options.readOnly === true;
  }

  /** Whole blocks inside the disk, as it is and as the guest was told. */
  #within(disk: Disk, sector: number, length: number): boolean {
    const block = this.#options.logicalBlockSize ?? SECTOR;
    const offset = sector * SECTOR;
    if (length < 0 || length % block !== 0 || offset % block !== 0) return false;
    return (
      Number.isSafeInteger(offset + length) && offset + length <= Math.min(disk.size, Math.floor(this.#s.size / SECTOR) * SECTOR)
    );
  }

  /** Without a write cache a write is complete when it is stable. virtio 1.2, 5.2.5 and 5.2.6.2. */
  #settle(disk: Disk): boolean {
    const writeBack = this.#transport.hasFeature(F_FLUSH) && this.#s.writeThrough === 0;
    return writeBack || this.#try('write', () => disk.flush());
  }

  #try(operation: 'read' | 'write', body: () => void): boolean {
    return underPolicy(this.#options.errorPolicy, operation, body);
  }
}
