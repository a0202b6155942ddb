/**
 * SCSI and ATAPI CD and DVD drives with a read-only medium of one data track. MMC-6 (T10/1836-D); the older page 0x2a:
 * MMC-3, 5.5.10.
 *
 * The tray: `insert` and `remove` are what a user does with the medium; START STOP UNIT and the eject button (`eject`)
 * move the tray unless the guest prevents it.
 */
import { underPolicy } from './disk.ts';
import {
  be16,
  be24,
  be32,
  check,
  good,
  type ModePage,
  putBe16,
  putBe32,
  type ScsiData,
  type ScsiResult,
  ScsiUnit,
  type ScsiUnitOptions,
  type ScsiUnitState,
  Sense,
} from './scsi-unit.ts';

const BLOCK = 2048;
/** A medium of more blocks than this is a DVD: 80 minutes of 75 frames a second. */
const CD_BLOCKS_MAX = 80 * 60 * 75;
/** Profiles. MMC-6, 5.3.1. */
const PROFILE_CD = 0x0008;
const PROFILE_DVD = 0x0010;
/** Media events. MMC-6, 6.7.2.5. */
const EVENT_EJECT = 1;
const EVENT_NEW = 2;
const EVENT_REMOVED = 3;
const CLASS_MEDIA = 4;

const LEAD_OUT = 0xaa;
/** Frames of the first two seconds, which no address counts. */
const PREGAP = 150;

export interface ScsiCdromOptions extends ScsiUnitOptions {
  /** How the drive is wired, for the core feature: 1 SCSI, 2 ATAPI. MMC-6, 5.3.2. */
  readonly interface?: 1 | 2;
  /** The tray was opened or closed by the guest. */
  readonly trayMoved?: (open: boolean) => void;
}

export class ScsiCdrom extends ScsiUnit {
  readonly deviceType = 5;
  readonly removable = true;
  protected readonly defaultProduct = 'CD-ROM';
  readonly #interface: number;
  readonly #trayMoved: ((open: boolean) => void) | undefined;

  constructor(state: ScsiUnitState, options: ScsiCdromOptions = {}) {
    super(state, options);
    this.#interface = options.interface ?? 1;
    this.#trayMoved = options.trayMoved;
  }

  // What the user does. The machine lock is held.

  /** A medium of `size` bytes is in the drive, tray closed. */
  insert(size: number): void {
    const { state } = this;
    state.size = size;
    state.loaded = 1;
    state.trayOpen = 0;
    state.attention = Sense.MEDIUM_CHANGED;
    state.mediaEvent = EVENT_NEW;
  }

  /** The medium is gone. */
  remove(): void {
    const { state } = this;
    if (state.loaded === 0) return;
    state.loaded = 0;
    state.size = 0;
    state.mediaEvent = EVENT_REMOVED;
  }

  /** Presses the button; returns whether the tray opened. Where it is prevented the guest is asked. With `force` nothing prevents it. */
  eject(force = false): boolean {
    const { state } = this;
    if (state.locked !== 0 && !force) {
      state.mediaEvent = EVENT_EJECT;
      if (state.attention === 0) state.attention = Sense.EJECT_REQUESTED;
      return false;
    }
    state.locked = 0;
    state.trayOpen = 1;
    if (state.loaded !== 0) state.mediaEvent = EVENT_REMOVED;
    return true;
  }

  get #ready(): boolean {
    return this.state.loaded !== 0 && this.state.trayOpen === 0;
  }
  get #blocks(): number {
    return this.#ready ? Math.floor(this.state.size / BLOCK) : 0;
  }
  get #profile(): number {
    if (!this.#ready) return 0;
    return this.#blocks > CD_BLOCKS_MAX ? PROFILE_DVD : PROFILE_CD;
  }

  protected override notReady(): number {
    if (this.state.trayOpen !== 0) return Sense.NO_MEDIUM_TRAY_OPEN;
    return this.state.loaded === 0 ? Sense.NO_MEDIUM : 0;
  }
  protected override modeFlags(): number {
    return 0;
  }
  protected override blockDescriptor(): undefined {
    return undefined;
  }
  protected override vitalPages(): Map<number, Uint8Array> {
    return new Map();
  }
  protected override modeSelected(): void {}

  protected override modePages(): ModePage[] {
    const capabilities = new Uint8Array(18);
    capabilities[0] = 0x3b; // reads CD-R, CD-RW, method 2, DVD-ROM, DVD-R
    capabilities[2] = 0x70; // mode 2 forms 1 and 2, multi-session
    capabilities[4] = 0x29 | (this.state.locked !== 0 ? 2 : 0); // tray, eject, lock
    putBe16(capabilities, 6, 8467); // kB a second: 48 times
    putBe16(capabilities, 10, 2048); // kB of buffer
    putBe16(capabilities, 12, 8467);
    const recovery = new Uint8Array(10);
    recovery[1] = 5; // retries
    const timeouts = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 30, 0, 30);
    return [
      { code: 0x01, body: recovery },
      { code: 0x1d, body: timeouts },
      { code: 0x2a, body: capabilities },
    ];
  }

  protected override command(cdb: Uint8Array, data: ScsiData): ScsiResult {
    switch (cdb[0]) {
      case 0x1b:
        return this.#startStop(cdb);
      case 0x1e: // PREVENT ALLOW MEDIUM REMOVAL
        this.state.locked = cdb[4] & 1;
        return good();
      case 0x46:
        return this.#configuration(cdb, data);
      case 0x4a:
        return this.#eventStatus(cdb, data);
      case 0xbd: // MECHANISM STATUS. MMC-6, 6.11
        return this.reply(data, Uint8Array.of(0, this.state.trayOpen !== 0 ? 0x10 : 0, 0, 0, 0, 1, 0, 0), be16(cdb, 8));
      case 0xbb: // SET CD SPEED
      case 0x35: // SYNCHRONIZE CACHE: nothing is ever written
        return good();
    }
    const read = READS.has(cdb[0]);
    if (!read && !NEEDS_MEDIUM.has(cdb[0])) return check(Sense.INVALID_OPCODE);
    const bad = this.notReady();
    if (bad !== 0) return check(bad);
    switch (cdb[0]) {
      case 0x28: // READ (10)
        return this.#read(data, be32(cdb, 2), be16(cdb, 7));
      case 0xa8: // READ (12)
        return this.#read(data, be32(cdb, 2), be32(cdb, 6));
      case 0xbe:
        return this.#readCd(cdb, data);
      case 0x2b: // SEEK (10)
        return be32(cdb, 2) < this.#blocks ? good() : check(Sense.OUT_OF_RANGE);
      case 0x2f: // VERIFY (10)
        return be32(cdb, 2) + be16(cdb, 7) <= this.#blocks ? good() : check(Sense.OUT_OF_RANGE);
      case 0x25: {
        const bytes = new Uint8Array(8);
        putBe32(bytes, 0, Math.max(this.#blocks - 1, 0));
        putBe32(bytes, 4, BLOCK);
        return this.reply(data, bytes, 8);
      }
      case 0x42:
        return this.#subChannel(cdb, data);
      case 0x43:
        return this.#toc(cdb, data);
      case 0x51:
        return this.#discInformation(cdb, data);
      case 0x52:
        return this.#trackInformation(cdb, data);
      default:
        return this.#dvdStructure(cdb, data);
    }
  }

  #read(data: ScsiData, lba: number, count: number): ScsiResult {
    if (lba + count > this.#blocks) return check(Sense.OUT_OF_RANGE);
    const wanted = count * BLOCK;
    const length = Math.min(wanted, data.inBytes);
    const disk = this.options.disk?.();
    let ok = disk !== undefined;
    data.eachIn(0, length, (bytes, at) => {
      ok = ok && disk !== undefined && underPolicy(this.options.errorPolicy, 'read', () => disk.read(lba * BLOCK + at, bytes));
    });
    return ok ? { ...good(length), overrun: length < wanted } : check(Sense.READ_ERROR);
  }

  /** READ CD: user data of data sectors, nothing else. MMC-6, 6.18. */
  #readCd(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const type = (cdb[1] >> 2) & 7;
    const count = be24(cdb, 6);
    const fields = cdb[9] & 0xf8;
    if (count === 0 || (fields === 0 && (cdb[10] & 7) === 0)) return good();
    // Any type, mode 1, or mode 2 form 1: what a file of 2048-byte blocks can stand for.
    if (fields !== 0x10 || (cdb[10] & 7) !== 0) return check(Sense.INVALID_FIELD);
    if (type !== 0 && type !== 2 && type !== 4) return check(Sense.ILLEGAL_TRACK_MODE);
    return this.#read(data, be32(cdb, 2), count);
  }

  /** MMC-6, 6.43: LoEj and Start. */
  #startStop(cdb: Uint8Array): ScsiResult {
    const { state } = this;
    if ((cdb[4] & 2) === 0) return good();
    const open = (cdb[4] & 1) === 0;
    if (open === (state.trayOpen !== 0)) return good();
    if (open && state.locked !== 0) return check(Sense.REMOVAL_PREVENTED);
    state.trayOpen = open ? 1 : 0;
    if (state.loaded !== 0) state.mediaEvent = open ? EVENT_REMOVED : EVENT_NEW;
    if (!open && state.loaded !== 0) state.attention = Sense.MEDIUM_CHANGED;
    this.#trayMoved?.(open);
    return good();
  }

  /** GET CONFIGURATION. MMC-6, 6.6 and 5.3. */
  #configuration(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const kind = cdb[1] & 3;
    if (kind === 3) return check(Sense.INVALID_FIELD);
    const first = be16(cdb, 2);
    const profile = this.#profile;
    const listed = [PROFILE_DVD, PROFILE_CD].flatMap((each) => [each >> 8, each & 0xff, each === profile ? 1 : 0, 0]);
    const persistent = 2;
    const current = 1;
    const features: [number, number, number[]][] = [
      [0x0000, persistent | current, listed],
      [0x0001, (2 << 2) | persistent | current, [0, 0, 0, this.#interface, 1, 0, 0, 0]], // core; device busy events are known
      [0x0002, (1 << 2) | persistent | current, [2, 0, 0, 0]], // morphing; operational changes are reported
      [0x0003, persistent | current, [0x29, 0, 0, 0]], // removable: tray, eject, lock
      [0x0010, profile !== 0 ? current : 0, [0, 0, 8, 0, 0, 16, 0, 0]], // random readable: 2048 bytes, blocking 16
      [0x001e, profile === PROFILE_CD ? current : 0, [0, 0, 0, 0]],
      [0x001f, profile === PROFILE_DVD ? current : 0, []],
    ];
    const out = [0, 0, 0, 0, 0, 0, profile >> 8, profile & 0xff];
    for (const [code, flags, body] of features) {
      if (kind === 2 ? code !== first : code < first || (kind === 1 && (flags & current) === 0)) continue;
      out.push(code >> 8, code & 0xff, flags, body.length, ...body);
    }
    const bytes = Uint8Array.from(out);
    putBe32(bytes, 0, bytes.length - 4);
    return this.reply(data, bytes, be16(cdb, 7));
  }

  /** GET EVENT STATUS NOTIFICATION, polled. MMC-6, 6.7. */
  #eventStatus(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const { state } = this;
    if ((cdb[1] & 1) === 0) return check(Sense.INVALID_FIELD);
    const allocation = be16(cdb, 7);
    if ((cdb[4] & (1 << CLASS_MEDIA)) === 0) return this.reply(data, Uint8Array.of(0, 2, 0x80, 1 << CLASS_MEDIA), allocation);
    const status = (state.trayOpen !== 0 ? 1 : 0) | (state.loaded !== 0 && state.trayOpen === 0 ? 2 : 0);
    const bytes = Uint8Array.of(0, 6, CLASS_MEDIA, 1 << CLASS_MEDIA, state.mediaEvent, status, 0, 0);
    // The event is given up when it was really sent.
    if (allocation >= bytes.length) state.mediaEvent = 0;
    return this.reply(data, bytes, allocation);
  }

  /** READ TOC/PMA/ATIP: table of contents, session, raw table. MMC-6, 6.25. */
  #toc(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const allocation = be16(cdb, 7);
    const inTime = (cdb[1] & 2) !== 0;
    // Old drivers put the format in the top bits of the control byte.
    const format = cdb[2] & 0xf || cdb[9] >> 6;
    const track = cdb[6];
    const place = (lba: number): number[] => {
      const at = lba + PREGAP;
      const minutes = Math.min(255, Math.floor(at / 4500));
      if (inTime) return [0, minutes, Math.floor(at / 75) % 60, at % 75];
      return [lba >>> 24, (lba >> 16) & 0xff, (lba >> 8) & 0xff, lba & 0xff];
    };
    const entry = (number: number, lba: number): number[] => [0, 0x14, number, 0, ...place(lba)];
    let body: number[];
    if (format === 0) {
      if (track > 1 && track !== LEAD_OUT) return check(Sense.INVALID_FIELD);
      body = [1, 1, ...(track <= 1 ? entry(1, 0) : []), ...entry(LEAD_OUT, this.#blocks)];
    } else if (format === 1) body = [1, 1, ...entry(1, 0)];
    else if (format === 2) {
      // First track, last track, lead-out, track 1: session, control, track 0, point, running time, place.
      const raw = (point: number, where: number[]): number[] => [1, 0x14, 0, point, 0, 0, 0, ...where];
      const time = (lba: number): number[] => {
        const at = lba + PREGAP;
        return [0, Math.min(255, Math.floor(at / 4500)), Math.floor(at / 75) % 60, at % 75];
      };
      body = [1, 1, ...raw(0xa0, [0, 1, 0, 0]), ...raw(0xa1, [0, 1, 0, 0]), ...raw(0xa2, time(this.#blocks)), ...raw(1, time(0))];
    } else return check(Sense.INVALID_FIELD);
    const bytes = Uint8Array.from([0, 0, ...body]);
    putBe16(bytes, 0, bytes.length - 2);
    return this.reply(data, bytes, allocation);
  }

  /** READ SUB-CHANNEL: no audio plays. MMC-6, 6.24; formats: MMC-3. */
  #subChannel(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const bytes = new Uint8Array((cdb[2] & 0x40) === 0 ? 4 : cdb[3] === 1 ? 16 : 24);
    bytes[1] = 0x15;
    putBe16(bytes, 2, bytes.length - 4);
    if (bytes.length > 4) {
      if (cdb[3] < 1 || cdb[3] > 3) return check(Sense.INVALID_FIELD);
      bytes[4] = cdb[3];
      if (cdb[3] === 1) bytes.set([0x14, 1, 1], 5);
    }
    return this.reply(data, bytes, be16(cdb, 7));
  }

  /** READ DISC INFORMATION: one complete session of one track. MMC-6, 6.21. */
  #discInformation(cdb: Uint8Array, data: ScsiData): ScsiResult {
    if ((cdb[1] & 7) !== 0) return check(Sense.INVALID_FIELD);
    const bytes = new Uint8Array(34);
    putBe16(bytes, 0, 32);
    bytes[2] = 0x0e; // last session and disc are complete
    bytes.set([1, 1, 1, 1, 0x20], 3); // first track, sessions, first and last track of the last; use is unrestricted
    bytes.fill(0xff, 16, 24); // no place to go on writing
    return this.reply(data, bytes, be16(cdb, 7));
  }

  /** READ TRACK INFORMATION. MMC-6, 6.26. */
  #trackInformation(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const kind = cdb[1] & 3;
    const value = be32(cdb, 2);
    const found = kind === 0 ? value < this.#blocks : kind === 1 ? value === 1 : kind === 2 && value === 1;
    if (!found) return check(Sense.INVALID_FIELD);
    const bytes = new Uint8Array(36);
    putBe16(bytes, 0, 34);
    bytes.set([1, 1, 0, 4, 1], 2); // track, session; data track, mode 1
    putBe32(bytes, 24, this.#blocks);
    return this.reply(data, bytes, be16(cdb, 7));
  }

  /** READ DISC STRUCTURE of a DVD-ROM: physical format, copyright, and the list of these. MMC-6, 6.22. */
  #dvdStructure(cdb: Uint8Array, data: ScsiData): ScsiResult {
    const format = cdb[7];
    const allocation = be16(cdb, 8);
    if ((cdb[1] & 0xf) !== 0 || (this.#profile !== PROFILE_DVD && format !== 0xff)) return check(Sense.INVALID_FIELD);
    const send = (body: Uint8Array): ScsiResult => {
      const bytes = new Uint8Array(4 + body.length);
      putBe16(bytes, 0, bytes.length - 2);
      bytes.set(body, 4);
      return this.reply(data, bytes, allocation);
    };
    if (format === 0) {
      if (cdb[6] !== 0) return check(Sense.INVALID_FIELD);
      const body = new Uint8Array(2048);
      body.set([0x01, 0x0f, 0x01, 0x00], 0); // DVD-ROM part 1; 120 mm, no rate given; one embossed layer
      putBe32(body, 4, 0x30000); // first sector of the data area
      putBe32(body, 8, 0x30000 + this.#blocks - 1);
      return send(body);
    }
    if (format === 1) return send(new Uint8Array(4)); // not protected, no regions
    if (format !== 0xff) return check(Sense.INVALID_FIELD);
    const readable = 0x40;
    return send(Uint8Array.of(0, readable, 8, 4, 1, readable, 0, 8, 0xff, readable, 0, 16));
  }
}

const READS = new Set([0x28, 0xa8, 0xbe]);
const NEEDS_MEDIUM = new Set([0x25, 0x2b, 0x2f, 0x42, 0x43, 0x51, 0x52, 0xad]);
