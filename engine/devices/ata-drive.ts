/**
 * A disk or packet device behind an ATA host adapter: what it carries out, without the protocol by which the adapter
 * moves data and tells of the end. The I/O thread's instance has the image.
 */
import {
  ATA_ABRT,
  ATA_IDNF,
  ATA_UNC,
  type AtaCommand,
  type AtaDriveState,
  type AtaIdentity,
  identifyDevice,
  identifyPacketDevice,
  MULTIPLE_MAX,
  resetAtaDrive,
  SECTOR,
  sectorsOf,
  setFeatures,
  setSectors,
  TRIM_BLOCKS_MAX,
  trimRanges,
} from './ata.ts';
import type { ScatterList } from './scatter.ts';
import { type Disk, type DiskErrorPolicy, underPolicy } from './virtio/disk.ts';
import type { ScsiCdrom } from './virtio/scsi-cdrom.ts';
import { type ScsiData, STATUS_GOOD, senseData } from './virtio/scsi-unit.ts';

export interface AtaDriveOptions {
  readonly identity: AtaIdentity;
  /** A packet device: its unit, whose state is its own. */
  readonly cdrom?: ScsiCdrom;
  /** The image, on an I/O thread. */
  readonly disk: () => Disk | undefined;
  readonly errorPolicy?: DiskErrorPolicy;
}

/** The registers that a command finds and leaves, with the 48-bit forms. */
export interface TaskFile {
  features: number;
  count: number;
  lba: number;
  /** The device register's low bits and its LBA bit. */
  device: number;
}

/** The end of a packet command: a sense code other than 0 is a CHECK CONDITION. */
export interface PacketResult {
  readonly sense: number;
  readonly moved: number;
}

const REQUEST_SENSE = 0x03;

export class AtaDrive {
  readonly state: AtaDriveState;
  readonly cdrom: ScsiCdrom | undefined;
  readonly #options: AtaDriveOptions;

  constructor(state: AtaDriveState, options: AtaDriveOptions) {
    this.state = state;
    this.cdrom = options.cdrom;
    this.#options = options;
  }

  reset(): void {
    resetAtaDrive(this.state);
    this.cdrom?.reset();
  }

  setSize(bytes: number): void {
    if (this.cdrom === undefined) setSectors(this.state, bytes);
    else if (bytes > 0) this.cdrom.insert(bytes);
  }

  get sectors(): number {
    return sectorsOf(this.state);
  }
  get readOnly(): boolean {
    return this.#options.identity.readOnly === true;
  }

  /** What the count and device registers hold after a reset: 1 and the address of a packet device. ATA8-ACS 6.3. */
  get signature(): { readonly count: number; readonly lba: number } {
    return { count: 1, lba: this.cdrom === undefined ? 1 : 0xeb1401 };
  }

  identify(): Uint8Array {
    const { identity } = this.#options;
    return this.cdrom === undefined ? identifyDevice(this.state, identity) : identifyPacketDevice(this.state, identity);
  }

  /** Whether the drive has a command at all: packet devices have few others. */
  knows({ what }: AtaCommand): boolean {
    const common = ['set-features', 'nothing', 'power-mode', 'diagnostic', 'flush'];
    if (this.cdrom !== undefined) return ['packet', 'identify-packet', 'device-reset', ...common].includes(what);
    if (what === 'trim') return this.#options.identity.trim;
    return !['packet', 'identify-packet', 'device-reset'].includes(what);
  }

  /** First sector and count of a command, or undefined where they are not on the disk. ATA8-ACS 6.2. */
  range(command: AtaCommand, task: TaskFile): { lba: number; count: number } | undefined {
    const most = command.ext ? 65536 : 256;
    const count = task.count % most === 0 ? most : task.count % most;
    let { lba } = task;
    if (!command.ext && (task.device & 0x40) === 0) {
      // Cylinder in the middle and high bytes, head in the device register, sectors from 1.
      const { heads, sectorsPerTrack } = this.state;
      const sector = lba & 0xff;
      if (sector === 0 || sector > sectorsPerTrack || (task.device & 0xf) >= heads) return undefined;
      lba = (((lba >>> 8) & 0xffff) * heads + (task.device & 0xf)) * sectorsPerTrack + sector - 1;
    } else if (!command.ext) lba = (lba & 0xffffff) + (task.device & 0xf) * 2 ** 24;
    return lba + count <= this.sectors ? { lba, count } : undefined;
  }

  /** A command without data that needs no image: its error, or 0; `task` gets what it answers with. */
  control(command: AtaCommand, task: TaskFile): number {
    const { state } = this;
    switch (command.what) {
      case 'nothing':
      case 'device-reset':
        return 0;
      case 'power-mode':
        task.count = 0xff; // active or idle
        return 0;
      case 'set-features':
        return setFeatures(state, task.features & 0xff, task.count & 0xff) ? 0 : ATA_ABRT;
      case 'set-multiple': {
        const count = task.count & 0xff;
        if (count > MULTIPLE_MAX || (count & (count - 1)) !== 0) return ATA_ABRT;
        state.multiple = count;
        return 0;
      }
      case 'initialize': {
        const sectors = task.count & 0xff;
        if (sectors === 0) return ATA_ABRT;
        state.heads = (task.device & 0xf) + 1;
        state.sectorsPerTrack = sectors;
        return 0;
      }
      case 'native-max': {
        const last = Math.max(0, this.sectors - 1);
        task.lba = command.ext ? last : Math.min(last, 0xfffffff);
        return 0;
      }
      case 'seek':
        return 0;
      case 'verify':
        return this.range(command, task) === undefined ? ATA_IDNF | ATA_ABRT : 0;
      default:
        return ATA_ABRT;
    }
  }

  // On an I/O thread, without the machine lock. Each returns the error register's value, or 0; may throw `PUT_BACK`.

  read(lba: number, count: number, into: ScatterList): number {
    let ok = true;
    into.eachInto(0, count * SECTOR, (data, at) => {
      ok = ok && this.#try('read', (disk) => disk.read(lba * SECTOR + at, data));
    });
    return ok ? 0 : ATA_UNC;
  }

  write(lba: number, count: number, from: ScatterList, fua: boolean): number {
    if (this.readOnly) return ATA_ABRT;
    let ok = true;
    from.each(0, count * SECTOR, (data, at) => {
      ok = ok && this.#try('write', (disk) => disk.write(lba * SECTOR + at, data));
    });
    return ok && this.#settle(fua) ? 0 : ATA_ABRT;
  }

  readBytes(lba: number, target: Uint8Array): number {
    return this.#try('read', (disk) => disk.read(lba * SECTOR, target)) ? 0 : ATA_UNC;
  }

  writeBytes(lba: number, source: Uint8Array, fua: boolean): number {
    if (this.readOnly) return ATA_ABRT;
    return this.#try('write', (disk) => disk.write(lba * SECTOR, source)) && this.#settle(fua) ? 0 : ATA_ABRT;
  }

  flush(): number {
    if (this.readOnly || this.cdrom !== undefined) return 0;
    return this.#try('write', (disk) => disk.flush()) ? 0 : ATA_ABRT;
  }

  /** `list`: what the command's data holds, whole blocks of 512 bytes. */
  trim(list: Uint8Array): number {
    if (this.readOnly || list.length > TRIM_BLOCKS_MAX * 512) return ATA_ABRT;
    const ranges = trimRanges(list);
    if (ranges.some(({ lba, count }) => lba + count > this.sectors)) return ATA_IDNF | ATA_ABRT;
    const ok = ranges.every(({ lba, count }) => this.#try('write', (disk) => disk.discard(lba * SECTOR, count * SECTOR)));
    return ok && this.#settle(false) ? 0 : ATA_ABRT;
  }

  /** Carries a packet out. Sense data stays for REQUEST SENSE, as a device without automatic sense keeps it. */
  packet(cdb: Uint8Array, data: ScsiData): PacketResult {
    const { state, cdrom } = this;
    if (cdrom === undefined) return { sense: 0x052000, moved: 0 };
    if (cdb[0] === REQUEST_SENSE && state.sense !== 0) {
      const bytes = senseData(state.sense);
      state.sense = 0;
      return { sense: 0, moved: data.writeIn(0, bytes.subarray(0, Math.min(cdb[4], bytes.length))) };
    }
    const result = cdrom.execute(cdb, data, [0]);
    if (result.status === STATUS_GOOD) {
      state.sense = 0;
      return { sense: 0, moved: result.moved };
    }
    const sense = result.sense;
    const code = sense === undefined ? 0x052000 : (sense[2] << 16) | (sense[12] << 8) | sense[13];
    state.sense = code;
    return { sense: code, moved: 0 };
  }

  #settle(fua: boolean): boolean {
    return (!fua && this.state.writeThrough === 0) || this.#try('write', (disk) => disk.flush());
  }

  #try(operation: 'read' | 'write', body: (disk: Disk) => void): boolean {
    const disk = this.#options.disk();
    return disk !== undefined && underPolicy(this.#options.errorPolicy, operation, () => body(disk));
  }
}

/** The data of a packet command over guest memory. */
export class ScatterData implements ScsiData {
  readonly outBytes: number;
  readonly inBytes: number;
  readonly #list: ScatterList;
  constructor(list: ScatterList, toDevice: boolean) {
    this.#list = list;
    this.outBytes = toDevice ? list.bytes : 0;
    this.inBytes = toDevice ? 0 : list.bytes;
  }
  readOut(offset: number, target: Uint8Array): number {
    return this.outBytes === 0 ? 0 : this.#list.read(offset, target);
  }
  writeIn(offset: number, source: Uint8Array): number {
    return this.inBytes === 0 ? 0 : this.#list.write(offset, source);
  }
  eachOut(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    this.#list.each(offset, length, use);
  }
  eachIn(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    this.#list.eachInto(offset, length, fill);
  }
}

/** The data of a packet command in a buffer of the adapter. */
export class BufferData implements ScsiData {
  readonly outBytes: number;
  readonly inBytes: number;
  readonly #buffer: Uint8Array;
  constructor(buffer: Uint8Array, toDevice: boolean) {
    this.#buffer = buffer;
    this.outBytes = toDevice ? buffer.length : 0;
    this.inBytes = toDevice ? 0 : buffer.length;
  }
  readOut(offset: number, target: Uint8Array): number {
    const part = this.#buffer.subarray(Math.min(offset, this.outBytes), Math.min(offset + target.length, this.outBytes));
    target.set(part);
    return part.length;
  }
  writeIn(offset: number, source: Uint8Array): number {
    const part = source.subarray(0, Math.max(0, this.inBytes - offset));
    this.#buffer.set(part, Math.min(offset, this.#buffer.length));
    return part.length;
  }
  eachOut(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    use(this.#buffer.subarray(offset, offset + length), 0);
  }
  eachIn(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    fill(this.#buffer.subarray(offset, offset + length), 0);
  }
}
