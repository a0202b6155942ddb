/** SCSI disks: the block commands. SBC-3 (T10/BSR INCITS 514), chapters 5 and 6. */
import { type Disk, underPolicy } from './disk.ts';
import {
  be16,
  be24,
  be32,
  be64,
  check,
  good,
  type ModePage,
  putBe16,
  putBe32,
  putBe64,
  type ScsiData,
  type ScsiResult,
  ScsiUnit,
  type ScsiUnitOptions,
  type ScsiUnitState,
  Sense,
} from './scsi-unit.ts';

/** The most blocks that one UNMAP or WRITE SAME may name. */
const RANGE_BLOCKS_MAX = 0x3fffff;
const UNMAP_RANGES_MAX = 255;
const PATTERN_BYTES = 2 ** 20;

const PAGE_RECOVERY = 0x01;
const PAGE_CACHING = 0x08;
const PAGE_CONTROL = 0x0a;
const CACHING_WRITE = 0x04;
const FUA = 0x08;

export interface ScsiDiskOptions extends ScsiUnitOptions {
  readonly readOnly?: boolean;
  readonly removable?: boolean;
  /** Bytes, powers of two from 512. */
  readonly logicalBlockSize?: number;
  readonly physicalBlockSize?: number;
  /** Bytes; 0 or absent for unknown. */
  readonly minIoSize?: number;
  readonly optIoSize?: number;
  /** Offer UNMAP; true unless said otherwise. */
  readonly discard?: boolean;
  /** Revolutions a minute; 1 for none, as solid-state disks say, which is what it is unless said otherwise. */
  readonly rotationRate?: number;
}

export class ScsiDisk extends ScsiUnit {
  readonly deviceType = 0;
  readonly removable: boolean;
  protected readonly defaultProduct = 'HARDDISK';
  readonly #options: ScsiDiskOptions;
  readonly #block: number;

  constructor(state: ScsiUnitState, options: ScsiDiskOptions = {}) {
    super(state, options);
    this.#options = options;
    this.removable = options.removable === true;
    this.#block = options.logicalBlockSize ?? 512;
  }

  /** Tells the guest the size in bytes: when the machine is made, and when the disk is resized. */
  setSize(size: number): void {
    if (this.state.size === size) return;
    if (this.state.size !== 0) this.state.attention = Sense.CAPACITY_CHANGED;
    this.state.size = size;
  }

  get #blocks(): number {
    return Math.floor(this.state.size / this.#block);
  }

  protected override notReady(): number {
    return 0;
  }
  protected override modeFlags(): number {
    return (this.#readOnly ? 0x80 : 0) | 0x10; // DPO and FUA are understood
  }
  get #readOnly(): boolean {
    return this.#options.readOnly === true || this.options.disk?.()?.readOnly === true;
  }

  protected override blockDescriptor(): Uint8Array {
    const bytes = new Uint8Array(8);
    // Density 0, then 24 bits of blocks; all ones where they do not fit. SBC-3, 6.4.2.1.
    putBe32(bytes, 0, Math.min(this.#blocks, 0xffffff));
    putBe32(bytes, 4, this.#block);
    return bytes;
  }

  protected override modePages(): ModePage[] {
    const caching = new Uint8Array(18);
    caching[0] = this.state.writeThrough === 0 ? CACHING_WRITE : 0;
    const changeable = new Uint8Array(18);
    changeable[0] = CACHING_WRITE;
    const recovery = new Uint8Array(10);
    recovery[0] = 0x80; // writes are reallocated by themselves
    return [
      { code: PAGE_RECOVERY, body: recovery },
      { code: PAGE_CACHING, body: caching, changeable },
      { code: PAGE_CONTROL, body: Uint8Array.of(0, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0) },
    ];
  }
  protected override modeSelected(code: number, body: Uint8Array): void {
    if (code === PAGE_CACHING) this.state.writeThrough = (body[0] & CACHING_WRITE) === 0 ? 1 : 0;
  }

  /** SBC-3, 6.5: block limits, characteristics, provisioning. */
  protected override vitalPages(): Map<number, Uint8Array> {
    const { minIoSize = 0, optIoSize = 0, rotationRate = 1 } = this.#options;
    const limits = new Uint8Array(60);
    limits[0] = 1; // WRITE SAME of zero blocks is refused
    putBe16(limits, 2, Math.floor(minIoSize / this.#block));
    putBe32(limits, 8, Math.floor(optIoSize / this.#block));
    if (this.#discard) {
      putBe32(limits, 16, RANGE_BLOCKS_MAX);
      putBe32(limits, 20, UNMAP_RANGES_MAX);
      putBe32(limits, 24, Math.max(1, (this.#options.physicalBlockSize ?? this.#block) / this.#block));
    }
    putBe64(limits, 32, RANGE_BLOCKS_MAX);
    const characteristics = new Uint8Array(60);
    putBe16(characteristics, 0, rotationRate);
    const pages = new Map([
      [0xb0, limits],
      [0xb1, characteristics],
    ]);
    // UNMAP, WRITE SAME (16) and (10) can unmap; thin.
    if (this.#discard) pages.set(0xb2, Uint8Array.of(0, 0xe0, 2, 0));
    return pages;
  }
  get #discard(): boolean {
    return this.#options.discard !== false;
  }

  protected override command(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const op = cdb[0];
    switch (op) {
      case 0x08: // READ (6)
        return this.#read(data, be24(cdb, 1) & 0x1fffff, cdb[4] || 256);
      case 0x0a: // WRITE (6)
        return this.#write(data, be24(cdb, 1) & 0x1fffff, cdb[4] || 256, false);
      case 0x28: // READ (10), (12), (16)
      case 0xa8:
      case 0x88: {
        const { lba, count } = place(cdb);
        return (cdb[1] & 0xe0) !== 0 ? check(Sense.INVALID_FIELD) : this.#read(data, lba, count);
      }
      case 0x2a: // WRITE (10), (12), (16)
      case 0xaa:
      case 0x8a:
      case 0x2e: // WRITE AND VERIFY (10), (12), (16)
      case 0xae:
      case 0x8e: {
        const { lba, count } = place(cdb);
        const verify = (op & 0x1f) === 0x0e;
        if ((cdb[1] & 0xe0) !== 0) return check(Sense.INVALID_FIELD);
        return this.#write(data, lba, count, verify || (cdb[1] & FUA) !== 0);
      }
      case 0x2f: // VERIFY (10), (12), (16)
      case 0xaf:
      case 0x8f:
        return this.#verify(cdb, data);
      case 0x41: // WRITE SAME (10), (16)
      case 0x93:
        return this.#writeSame(cdb, data);
      case 0x42:
        return this.#unmap(cdb, data);
      case 0x35: // SYNCHRONIZE CACHE (10), (16)
      case 0x91: {
        const { lba, count } = place(cdb);
        if (lba + count > this.#blocks) return check(Sense.OUT_OF_RANGE);
        return this.#readOnly || this.#try('write', (disk) => disk.flush()) ? good() : check(Sense.WRITE_ERROR);
      }
      case 0x25: // READ CAPACITY (10)
        return this.#capacity10(data);
      case 0x9e: // SERVICE ACTION IN (16)
        return (cdb[1] & 0x1f) === 0x10 ? this.#capacity16(data, be32(cdb, 10)) : check(Sense.INVALID_FIELD);
      case 0x2b: // SEEK (10)
        return be32(cdb, 2) < this.#blocks ? good() : check(Sense.OUT_OF_RANGE);
      case 0x1b: // START STOP UNIT: nothing spins
        return good();
      case 0x1e: // PREVENT ALLOW MEDIUM REMOVAL
        this.state.locked = cdb[4] & 1;
        return good();
      case 0x1d: // SEND DIAGNOSTIC: the self-test passes
        return (cdb[1] & 4) !== 0 || be16(cdb, 3) === 0 ? good() : check(Sense.INVALID_FIELD);
      case 0x16: // RESERVE and RELEASE: there is only one initiator
      case 0x17:
      case 0x56:
      case 0x57:
        return good();
      default:
        return check(Sense.INVALID_OPCODE);
    }
  }

  #capacity10(data: ScsiData): ScsiResult {
    const bytes = new Uint8Array(8);
    putBe32(bytes, 0, Math.min(Math.max(this.#blocks - 1, 0), 0xffffffff));
    putBe32(bytes, 4, this.#block);
    return this.reply(data, bytes, 8);
  }

  #capacity16(data: ScsiData, allocation: number): ScsiResult {
    const bytes = new Uint8Array(32);
    putBe64(bytes, 0, Math.max(this.#blocks - 1, 0));
    putBe32(bytes, 8, this.#block);
    bytes[13] = Math.log2((this.#options.physicalBlockSize ?? this.#block) / this.#block);
    bytes[14] = this.#discard ? 0x80 : 0;
    return this.reply(data, bytes, allocation);
  }

  /** Why the range cannot be used, or 0. */
  #bad(lba: number, count: number): number {
    return Number.isSafeInteger(lba + count) && lba + count <= this.#blocks ? 0 : Sense.OUT_OF_RANGE;
  }

  #read(data: ScsiData, lba: number, count: number): ScsiResult {
    const bad = this.#bad(lba, count);
    if (bad !== 0) return check(bad);
    const wanted = count * this.#block;
    const length = Math.min(wanted, data.inBytes);
    let ok = true;
    data.eachIn(0, length, (bytes, at) => {
      ok = ok && this.#try('read', (disk) => disk.read(lba * this.#block + at, bytes));
    });
    return ok ? { ...good(length), overrun: length < wanted } : check(Sense.READ_ERROR);
  }

  #write(data: ScsiData, lba: number, count: number, stable: boolean): ScsiResult {
    const bad = this.#bad(lba, count);
    if (bad !== 0) return check(bad);
    if (this.#readOnly) return check(Sense.WRITE_PROTECTED);
    const wanted = count * this.#block;
    const length = Math.min(wanted, data.outBytes);
    let ok = true;
    data.eachOut(0, length, (bytes, at) => {
      ok = ok && this.#try('write', (disk) => disk.write(lba * this.#block + at, bytes));
    });
    return ok && this.#settle(stable) ? { ...good(length), overrun: length < wanted } : check(Sense.WRITE_ERROR);
  }

  /** SBC-3, 5.31: BYTCHK 0 looks at the medium alone, 1 compares it with the data. */
  #verify(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const { lba, count } = place(cdb);
    const compare = (cdb[1] >> 1) & 3;
    const bad = this.#bad(lba, count);
    if (bad !== 0) return check(bad);
    if (compare === 0) return good();
    if (compare !== 1) return check(Sense.INVALID_FIELD);
    let code: number = Sense.NONE;
    const length = Math.min(count * this.#block, data.outBytes);
    data.eachOut(0, length, (bytes, at) => {
      if (code !== Sense.NONE) return;
      const stored = new Uint8Array(bytes.length);
      if (!this.#try('read', (disk) => disk.read(lba * this.#block + at, stored))) code = Sense.READ_ERROR;
      else if (!stored.every((byte, i) => byte === bytes[i])) code = Sense.MISCOMPARE;
    });
    return code === Sense.NONE ? good(length) : check(code);
  }

  /** SBC-3, 5.43 and 5.45. */
  #writeSame(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const { lba, count } = place(cdb);
    const unmap = (cdb[1] & 8) !== 0;
    const noData = cdb[0] === 0x93 && (cdb[1] & 1) !== 0;
    if ((cdb[1] & 0xe6) !== 0 || (unmap && !this.#discard)) return check(Sense.INVALID_FIELD);
    if (count === 0 || count > RANGE_BLOCKS_MAX) return check(Sense.INVALID_FIELD);
    const bad = this.#bad(lba, count);
    if (bad !== 0) return check(bad);
    if (this.#readOnly) return check(Sense.WRITE_PROTECTED);
    const block = new Uint8Array(this.#block);
    if (!noData && data.readOut(0, block) < block.length) return check(Sense.INVALID_FIELD);
    const offset = lba * this.#block;
    const bytes = count * this.#block;
    const ok = block.every((byte) => byte === 0)
      ? this.#try('write', (disk) => disk.writeZeroes(offset, bytes, unmap))
      : this.#fill(offset, bytes, block);
    return ok && this.#settle(false) ? good(noData ? 0 : block.length) : check(Sense.WRITE_ERROR);
  }

  #fill(offset: number, bytes: number, block: Uint8Array): boolean {
    const pattern = new Uint8Array(Math.min(PATTERN_BYTES, bytes));
    for (let at = 0; at < pattern.length; at += block.length) pattern.set(block, at);
    for (let done = 0; done < bytes; done += pattern.length) {
      const part = pattern.subarray(0, Math.min(pattern.length, bytes - done));
      if (!this.#try('write', (disk) => disk.write(offset + done, part))) return false;
    }
    return true;
  }

  /** SBC-3, 5.28: each range is checked before any takes effect. */
  #unmap(cdb: Uint8Array, data: ScsiData): ScsiResult {
    if (!this.#discard) return check(Sense.INVALID_OPCODE);
    if ((cdb[1] & 1) !== 0) return check(Sense.INVALID_FIELD);
    const length = be16(cdb, 7);
    if (length === 0) return good();
    if (length < 8) return check(Sense.PARAMETER_LIST_LENGTH);
    const list = new Uint8Array(Math.min(length, data.outBytes));
    data.readOut(0, list);
    if (list.length < 8) return check(Sense.PARAMETER_LIST_LENGTH);
    if (this.#readOnly) return check(Sense.WRITE_PROTECTED);
    const end = Math.min(list.length, 8 + be16(list, 2));
    const ranges: [number, number][] = [];
    for (let at = 8; at + 16 <= end; at += 16) {
      const lba = be64(list, at);
      const count = be32(list, at + 8);
      if (this.#bad(lba, count) !== 0) return check(Sense.OUT_OF_RANGE);
      if (count > RANGE_BLOCKS_MAX || ranges.length === UNMAP_RANGES_MAX) return check(Sense.INVALID_PARAMETER);
      if (count > 0) ranges.push([lba, count]);
    }
    const ok = ranges.every(([lba, count]) => this.#try('write', (disk) => disk.discard(lba * this.#block, count * this.#block)));
    return ok && this.#settle(false) ? good(list.length) : check(Sense.WRITE_ERROR);
  }

  #settle(stable: boolean): boolean {
    return (!stable && this.state.writeThrough === 0) || this.#try('write', (disk) => disk.flush());
  }

  #try(operation: 'read' | 'write', body: (disk: Disk) => void): boolean {
    const disk = this.options.disk?.();
    return disk !== undefined && underPolicy(this.options.errorPolicy, operation, () => body(disk));
  }
}

/** Logical block address and block count of a CDB of 10, 12 or 16 bytes; the group code tells which. SPC-4, 4.2.2. */
export function place(cdb: Uint8Array): { lba: number; count: number } {
  const group = cdb[0] >> 5;
  if (group === 4) return { lba: be64(cdb, 2), count: be32(cdb, 10) };
  if (group === 5) return { lba: be32(cdb, 2), count: be32(cdb, 6) };
  return { lba: be32(cdb, 2), count: be16(cdb, 7) };
}
