/**
 * SCSI logical units: what all device types share. SPC-4 (T10/1731-D), SAM-5.
 *
 * A unit carries a command out at once, on an I/O thread, and answers with a status and sense data. It knows nothing of
 * the adapter that it hangs on, so virtio-scsi, AHCI and ATAPI can all use it. State that outlives a command lies in
 * `scsiUnitState`; the disk itself is known to the I/O thread alone.
 */
import { f64, struct, u32, type View } from '../../memory/struct.ts';
import type { Disk, DiskErrorPolicy } from './disk.ts';

export const STATUS_GOOD = 0;
export const STATUS_CHECK_CONDITION = 2;

/** Sense key, additional code and qualifier in one number: 0xKKAAQQ. SPC-4, annex D. */
export const Sense = {
  NONE: 0,
  NO_MEDIUM: 0x023a00,
  NO_MEDIUM_TRAY_OPEN: 0x023a02,
  WRITE_ERROR: 0x030c00,
  READ_ERROR: 0x031100,
  PARAMETER_LIST_LENGTH: 0x051a00,
  INVALID_OPCODE: 0x052000,
  OUT_OF_RANGE: 0x052100,
  INVALID_FIELD: 0x052400,
  NO_SUCH_UNIT: 0x052500,
  INVALID_PARAMETER: 0x052600,
  SAVING_NOT_SUPPORTED: 0x053900,
  REMOVAL_PREVENTED: 0x055302,
  ILLEGAL_TRACK_MODE: 0x056400,
  MEDIUM_CHANGED: 0x062800,
  POWER_ON: 0x062900,
  DEVICE_RESET: 0x062903,
  CAPACITY_CHANGED: 0x062a09,
  EJECT_REQUESTED: 0x065a01,
  WRITE_PROTECTED: 0x072700,
  MISCOMPARE: 0x0e1d00,
} as const;

/** Fixed-format sense data. SPC-4, 4.5.3. */
export function senseData(code: number): Uint8Array {
  const sense = new Uint8Array(18);
  sense[0] = 0x70;
  sense[2] = code >> 16;
  sense[7] = 10;
  sense[12] = code >> 8;
  sense[13] = code;
  return sense;
}

/** The data buffers of one command, as the adapter has them. Lengths are bytes; copies stop where a buffer ends. */
export interface ScsiData {
  readonly outBytes: number;
  readonly inBytes: number;
  /** Copies data-out from `offset`; returns how many bytes there were. */
  readOut(offset: number, target: Uint8Array): number;
  /** Copies to data-in at `offset`; returns how many bytes fitted. */
  writeIn(offset: number, source: Uint8Array): number;
  /** Gives data-out piece by piece, as views where that can be; `use` may throw. */
  eachOut(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void;
  eachIn(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void;
}

export interface ScsiResult {
  readonly status: number;
  readonly sense?: Uint8Array;
  /** Bytes moved, in either direction. */
  readonly moved: number;
  /** The command asked for more than the adapter's buffers hold. */
  readonly overrun?: boolean;
}

export const good = (moved = 0): ScsiResult => ({ status: STATUS_GOOD, moved });
export const check = (code: number, moved = 0): ScsiResult => ({ status: STATUS_CHECK_CONDITION, sense: senseData(code), moved });

export const scsiUnitState = struct('scsi-unit', 1, {
  /** Bytes of the medium, or of the disk. */
  size: f64,
  /** 1: there is a medium in a removable unit. */
  loaded: u32,
  trayOpen: u32,
  /** 1: the guest prevents removal. */
  locked: u32,
  /** Sense code of a unit attention that waits, or 0. */
  attention: u32,
  /** Media event that GET EVENT STATUS NOTIFICATION reports next. */
  mediaEvent: u32,
  /** 1: writes are not complete until they are stable. */
  writeThrough: u32,
});
export type ScsiUnitState = View<typeof scsiUnitState.fields>;

export interface ScsiUnitOptions {
  /** INQUIRY strings: 8, 16 and 4 characters of ASCII. */
  readonly vendor?: string;
  readonly product?: string;
  readonly revision?: string;
  readonly serial?: string;
  /** A name for page 0x83, unique in the machine. */
  readonly deviceId?: string;
  /** World wide name, an NAA 64-bit identifier. */
  readonly wwn?: bigint;
  readonly errorPolicy?: DiskErrorPolicy;
  /** The disk or medium, on an I/O thread. */
  readonly disk?: () => Disk | undefined;
}

/** Big-endian fields, as SCSI has them. */
export const be16 = (bytes: Uint8Array, at: number): number => (bytes[at] << 8) | bytes[at + 1];
export const be24 = (bytes: Uint8Array, at: number): number => (bytes[at] << 16) | be16(bytes, at + 1);
export const be32 = (bytes: Uint8Array, at: number): number => be16(bytes, at) * 0x10000 + be16(bytes, at + 2);
/** Exact below 2^53; what is larger stays larger. */
export const be64 = (bytes: Uint8Array, at: number): number => be32(bytes, at) * 2 ** 32 + be32(bytes, at + 4);
export function putBe16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}
export function putBe32(bytes: Uint8Array, at: number, value: number): void {
  putBe16(bytes, at, Math.floor(value / 0x10000));
  putBe16(bytes, at + 2, value);
}
export function putBe64(bytes: Uint8Array, at: number, value: number): void {
  putBe32(bytes, at, Math.floor(value / 2 ** 32));
  putBe32(bytes, at + 4, value % 2 ** 32);
}
/** ASCII, cut or filled with blanks. */
export function ascii(text: string, length: number): Uint8Array {
  return Uint8Array.from(text.padEnd(length).slice(0, length), (char) => char.charCodeAt(0) & 0x7f);
}

// Operation codes that every unit knows.
const TEST_UNIT_READY = 0x00;
const REQUEST_SENSE = 0x03;
const INQUIRY = 0x12;
const MODE_SELECT_6 = 0x15;
const MODE_SENSE_6 = 0x1a;
const MODE_SELECT_10 = 0x55;
const MODE_SENSE_10 = 0x5a;
const REPORT_LUNS = 0xa0;
/** Commands that a unit attention does not keep from being carried out, nor do they clear it. SPC-4, 5.14; MMC-6, 4.1.6.1. */
const NOT_STOPPED = new Set([INQUIRY, REPORT_LUNS, REQUEST_SENSE, 0x46, 0x4a]);

/** How a mode page looks: `changeable` has ones where MODE SELECT may write. */
export interface ModePage {
  readonly code: number;
  /** What follows the page's length byte. */
  readonly body: Uint8Array;
  readonly changeable?: Uint8Array;
}

export abstract class ScsiUnit {
  /** Peripheral device type. SPC-4, 6.4.2. */
  abstract readonly deviceType: number;
  abstract readonly removable: boolean;
  readonly state: ScsiUnitState;
  protected readonly options: ScsiUnitOptions;

  constructor(state: ScsiUnitState, options: ScsiUnitOptions) {
    this.state = state;
    this.options = options;
  }

  /** As after power-on. What medium there is, and whether the tray is open, stays. */
  reset(code: number = Sense.POWER_ON): void {
    this.state.attention = code;
    this.state.locked = 0;
    this.state.mediaEvent = 0;
    this.state.writeThrough = 0;
  }

  /** Carries a command out. `cdb` has at least 16 bytes; `luns` are the target's unit numbers, for REPORT LUNS. Never throws. */
  execute(cdb: Uint8Array, data: ScsiData, luns: readonly number[]): ScsiResult {
    const { state } = this;
    if (state.attention !== 0 && !NOT_STOPPED.has(cdb[0])) {
      const code = state.attention;
      state.attention = 0;
      return check(code);
    }
    switch (cdb[0]) {
      case TEST_UNIT_READY: {
        const code = this.notReady();
        return code === 0 ? good() : check(code);
      }
      case REQUEST_SENSE: {
        const code = state.attention !== 0 ? state.attention : this.notReady();
        state.attention = 0;
        return this.reply(data, senseData(code), cdb[4]);
      }
      case INQUIRY:
        return this.#inquiry(cdb, data);
      case MODE_SENSE_6:
        return this.#modeSense(cdb, data, cdb[4], false);
      case MODE_SENSE_10:
        return this.#modeSense(cdb, data, be16(cdb, 7), true);
      case MODE_SELECT_6:
        return this.#modeSelect(cdb, data, cdb[4], 4);
      case MODE_SELECT_10:
        return this.#modeSelect(cdb, data, be16(cdb, 7), 8);
      case REPORT_LUNS:
        return reportLuns(cdb, data, luns);
      default:
        return this.command(cdb, data);
    }
  }

  /** The commands of the device type. */
  protected abstract command(cdb: Uint8Array, data: ScsiData): ScsiResult;
  /** Sense code where there is no medium, else 0. */
  protected abstract notReady(): number;
  protected abstract vitalPages(): Map<number, Uint8Array>;
  protected abstract modePages(): ModePage[];
  /** Device-specific parameter of the mode header. */
  protected abstract modeFlags(): number;
  /** Block descriptor of mode data, or undefined. */
  protected abstract blockDescriptor(): Uint8Array | undefined;
  /** MODE SELECT wrote a page; the body has unchangeable bits as they are. */
  protected abstract modeSelected(code: number, body: Uint8Array): void;
  protected abstract readonly defaultProduct: string;

  /** Sends as much of `bytes` as the allocation length and the buffers hold. */
  protected reply(data: ScsiData, bytes: Uint8Array, allocation: number): ScsiResult {
    return good(data.writeIn(0, bytes.subarray(0, Math.min(allocation, bytes.length))));
  }

  // INQUIRY. SPC-4, 6.4 and 7.8.

  #inquiry(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const allocation = be16(cdb, 3);
    if ((cdb[1] & 1) === 0) {
      if (cdb[2] !== 0) return check(Sense.INVALID_FIELD);
      const { vendor = 'VIVARIUM', product = this.defaultProduct, revision = '1.0' } = this.options;
      const bytes = new Uint8Array(36);
      bytes[0] = this.deviceType;
      bytes[1] = this.removable ? 0x80 : 0;
      bytes[2] = 5; // SPC-3
      bytes[3] = 0x12; // hierarchical LUNs, response format 2
      bytes[4] = bytes.length - 5;
      bytes[7] = 2; // command queuing
      bytes.set(ascii(vendor, 8), 8);
      bytes.set(ascii(product, 16), 16);
      bytes.set(ascii(revision, 4), 32);
      return this.reply(data, bytes, allocation);
    }
    const pages = this.vitalPages();
    pages.set(0x80, ascii(this.options.serial ?? '', Math.min(this.options.serial?.length ?? 0, 36)));
    pages.set(0x83, this.#identification());
    pages.set(0, Uint8Array.from([0, ...pages.keys()].sort((a, b) => a - b)));
    const body = pages.get(cdb[2]);
    if (body === undefined) return check(Sense.INVALID_FIELD);
    const bytes = new Uint8Array(4 + body.length);
    bytes[0] = this.deviceType;
    bytes[1] = cdb[2];
    putBe16(bytes, 2, body.length);
    bytes.set(body, 4);
    return this.reply(data, bytes, allocation);
  }

  /** Page 0x83: a name of our own, and the world wide name where there is one. SPC-4, 7.8.6. */
  #identification(): Uint8Array {
    const { deviceId = this.options.serial ?? '', wwn } = this.options;
    const descriptors: number[] = [];
    if (deviceId !== '') {
      const name = ascii(deviceId, Math.min(deviceId.length, 200));
      descriptors.push(2, 0, 0, name.length, ...name);
    }
    if (wwn !== undefined) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, wwn));
      descriptors.push(1, 3, 0, 8, ...bytes);
    }
    return Uint8Array.from(descriptors);
  }

  // Mode pages. SPC-4, 6.11, 6.9 and 7.5.

  #modeSense(cdb: Uint8Array, data: ScsiData, allocation: number, long: boolean): ScsiResult {
    const wanted = cdb[2] & 0x3f;
    const control = cdb[2] >> 6;
    if (control === 3) return check(Sense.SAVING_NOT_SUPPORTED);
    if (cdb[3] !== 0 && cdb[3] !== 0xff) return check(Sense.INVALID_FIELD);
    const pages = this.modePages().filter(({ code }) => wanted === 0x3f || code === wanted);
    if (pages.length === 0) return check(Sense.INVALID_FIELD);
    const out: number[] = [];
    const descriptor = (cdb[1] & 8) === 0 ? this.blockDescriptor() : undefined;
    if (descriptor !== undefined) out.push(...descriptor);
    for (const { code, body, changeable } of pages) {
      out.push(code, body.length, ...(control === 1 ? (changeable ?? new Uint8Array(body.length)) : body));
    }
    const header = new Uint8Array(long ? 8 : 4);
    const length = header.length + out.length;
    if (long) {
      putBe16(header, 0, length - 2);
      header[3] = this.modeFlags();
      putBe16(header, 6, descriptor?.length ?? 0);
    } else {
      header[0] = length - 1;
      header[2] = this.modeFlags();
      header[3] = descriptor?.length ?? 0;
    }
    return this.reply(data, Uint8Array.from([...header, ...out]), allocation);
  }

  #modeSelect(cdb: Uint8Array, data: ScsiData, length: number, header: number): ScsiResult {
    if ((cdb[1] & 1) !== 0 || (cdb[1] & 0x10) === 0) return check(Sense.INVALID_FIELD);
    if (length === 0) return good();
    const list = new Uint8Array(Math.min(length, data.outBytes));
    data.readOut(0, list);
    if (list.length < header) return check(Sense.PARAMETER_LIST_LENGTH);
    let at = header + (header === 4 ? list[3] : be16(list, 6));
    const accepted: [number, Uint8Array][] = [];
    for (; at < list.length; ) {
      const page = this.modePages().find(({ code }) => code === (list[at] & 0x3f));
      if (page === undefined || (list[at] & 0x40) !== 0) return check(Sense.INVALID_PARAMETER);
      if (list[at + 1] !== page.body.length || at + 2 + page.body.length > list.length) return check(Sense.PARAMETER_LIST_LENGTH);
      const body = list.slice(at + 2, at + 2 + page.body.length);
      for (let i = 0; i < body.length; i++)
        if (((body[i] ^ page.body[i]) & ~(page.changeable?.[i] ?? 0)) !== 0) return check(Sense.INVALID_PARAMETER);
      accepted.push([page.code, body]);
      at += 2 + body.length;
    }
    for (const [code, body] of accepted) this.modeSelected(code, body);
    return good(list.length);
  }
}

/** REPORT LUNS. SPC-4, 6.25. Numbers are in the flat form from 256 on, else in the peripheral form. */
export function reportLuns(cdb: Uint8Array, data: ScsiData, luns: readonly number[]): ScsiResult {
  const allocation = be32(cdb, 6);
  if (allocation < 16 || cdb[2] > 2) return check(Sense.INVALID_FIELD);
  // Select report 1: well-known units only, of which there are none.
  const list = cdb[2] === 1 ? [] : luns;
  const bytes = new Uint8Array(8 + list.length * 8);
  putBe32(bytes, 0, list.length * 8);
  list.forEach((lun, i) => {
    putBe16(bytes, 8 + i * 8, lun < 256 ? lun : 0x4000 | lun);
  });
  return good(data.writeIn(0, bytes.subarray(0, Math.min(allocation, bytes.length))));
}

/** What a target answers for a unit that it does not have. SPC-4, 6.4.2: qualifier 3, type 0x1f. */
export function absentUnit(cdb: Uint8Array, data: ScsiData, luns: readonly number[]): ScsiResult {
  if (cdb[0] === REPORT_LUNS) return reportLuns(cdb, data, luns);
  if (cdb[0] === REQUEST_SENSE) {
    const sense = senseData(Sense.NO_SUCH_UNIT);
    return good(data.writeIn(0, sense.subarray(0, Math.min(cdb[4], sense.length))));
  }
  if (cdb[0] !== INQUIRY) return check(Sense.NO_SUCH_UNIT);
  const bytes = new Uint8Array(36);
  bytes[0] = 0x7f;
  bytes[2] = 5;
  bytes[3] = 2;
  bytes[4] = bytes.length - 5;
  return good(data.writeIn(0, bytes.subarray(0, Math.min(be16(cdb, 3), bytes.length))));
}
