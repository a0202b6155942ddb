/**
 * A floppy disk controller with two drives. Intel 82077AA data sheet (290166).
 *
 * Registers are served where they are accessed. What needs a medium is a job: the command waits in the state until the
 * instance of the I/O thread has carried it out (`process`), reading and writing the image without the machine lock and
 * moving data by DMA channel 2, or through the data port a sector at a time, with the lock. A number that resets raise
 * (`epoch`) makes void what comes back too late. Heads are always there in an instant; sectors have 512 bytes.
 */
import type { IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import { bytes, f64s, struct, u32, u32s, type View } from '../memory/struct.ts';
import { EMPTY_DRIVE, type FloppyGeometry, floppyGeometry } from './floppy-formats.ts';
import type { DmaKind, I8237 } from './i8237.ts';

/** Ports 0x3f0 to 0x3f5, and 0x3f7; 0x3f6 is the IDE channel's. */
export const FDC_PORTS = { base: 0x3f0, length: 6, last: 0x3f7 } as const;
export const FDC_IRQ = 6;
export const FDC_DMA = 2;
export const FDC_DRIVES = 2;

const SECTOR = 512;
const SECTOR_CODE = 2;
const BUFFER = 1024;

const DOR = 2;
const TDR = 3;
const MSR = 4;
const FIFO = 5;
const DOR_RESET = 0x04;
const DOR_DMA = 0x08;
const DSR_RESET = 0x80;
const MSR_READY = 0x80;
const MSR_OUT = 0x40;
const MSR_NO_DMA = 0x20;
const MSR_BUSY = 0x10;
const DIR_CHANGED = 0x80;

const ST0_ABNORMAL = 0x40;
const ST0_INVALID = 0x80;
const ST0_POLLED = 0xc0;
const ST0_SEEK_END = 0x20;
const ST0_CHECK = 0x10;
const ST1_END = 0x80;
const ST1_NO_DATA = 0x04;
const ST1_NOT_WRITABLE = 0x02;
const ST1_NO_MARK = 0x01;
const ST1_DATA_ERROR = 0x20;
const ST2_WRONG_CYLINDER = 0x10;
const ST2_SCAN_EQUAL = 0x08;
const ST2_SCAN_NOT = 0x04;
const ST2_DELETED_MARK = 0x40;
const ST3_TWO_SIDED = 0x08;
const ST3_TRACK_0 = 0x10;
const ST3_READY = 0x20;
const ST3_PROTECTED = 0x40;

/** What the controller is at. */
const IDLE = 0;
/** Takes a command's bytes. */
const COMMAND = 1;
/** A job waits for the I/O thread, or is with it. */
const WORKING = 2;
/** Bytes of a sector go through the data port: to the guest, from it. */
const GIVING = 3;
const TAKING = 4;
const RESULT = 5;

/** Commands by their low five bits, with their length in bytes. 82077AA, 5.1. */
const READ_TRACK = 0x02;
const SPECIFY = 0x03;
const SENSE_DRIVE = 0x04;
const WRITE = 0x05;
const READ = 0x06;
const RECALIBRATE = 0x07;
const SENSE_INTERRUPT = 0x08;
const WRITE_DELETED = 0x09;
const READ_ID = 0x0a;
const READ_DELETED = 0x0c;
const FORMAT = 0x0d;
const DUMP = 0x0e;
const SEEK = 0x0f;
const VERSION = 0x10;
const SCAN_EQUAL = 0x11;
const PERPENDICULAR = 0x12;
const CONFIGURE = 0x13;
const LOCK = 0x14;
const VERIFY = 0x16;
const SCAN_LOW = 0x19;
const SCAN_HIGH = 0x1d;
const LENGTHS: Readonly<Record<number, number>> = {
  ...{ [READ_TRACK]: 9, [SPECIFY]: 3, [SENSE_DRIVE]: 2, [WRITE]: 9, [READ]: 9, [RECALIBRATE]: 2, [SENSE_INTERRUPT]: 1 },
  ...{ [WRITE_DELETED]: 9, [READ_ID]: 2, [READ_DELETED]: 9, [FORMAT]: 6, [DUMP]: 1, [SEEK]: 3, [VERSION]: 1 },
  ...{ [SCAN_EQUAL]: 9, [PERPENDICULAR]: 2, [CONFIGURE]: 4, [LOCK]: 1, [VERIFY]: 9, [SCAN_LOW]: 9, [SCAN_HIGH]: 9 },
};
const WRITES = [WRITE, WRITE_DELETED, FORMAT];
const SCANS = [SCAN_EQUAL, SCAN_LOW, SCAN_HIGH];
const MULTI_TRACK = 0x80;

const CONFIGURE_IMPLIED_SEEK = 0x40;
const CONFIGURE_DEFAULT = 0x20;

export const fdcState = struct('fdc', 1, {
  dor: u32,
  tdr: u32,
  /** Data rate, as DSR and CCR select it: 500, 300, 250 kbit/s, 1 Mbit/s. */
  rate: u32,
  phase: u32,
  command: bytes(16),
  commandAt: u32,
  commandBytes: u32,
  result: bytes(16),
  resultAt: u32,
  resultBytes: u32,
  interrupt: u32,
  /** Drives whose seek or reset is to be told of by SENSE INTERRUPT, and what with. */
  pending: u32,
  status0: u32s(4),
  specify: u32s(2),
  configure: u32,
  preCompensation: u32,
  perpendicular: u32,
  locked: u32,
  epoch: u32,
  /** 1: the I/O thread has a job to take. */
  job: u32,
  /** The sector that a transfer through the data port is at, and the sectors of a format. */
  sector: u32,
  buffer: bytes(BUFFER),
  bufferAt: u32,
  bufferBytes: u32,
  track: u32s(4),
  /** Bytes of the medium. */
  size: f64s(4),
  loaded: u32s(4),
  trayOpen: u32s(4),
  changed: u32s(4),
  /** The kind of drive, as the CMOS has it; it stays when the medium changes. */
  kind: u32s(4),
});

/** What the I/O thread does for the controller. */
export interface FloppyMedium {
  readonly readOnly: boolean;
  /** Each false where the host failed. */
  read(offset: number, data: Uint8Array): boolean;
  write(offset: number, data: Uint8Array): boolean;
}

export interface FdcWires {
  readonly irq: IrqLine;
  readonly dma: I8237;
  /** Which drives there are. */
  readonly drives: readonly boolean[];
  ring(): void;
}

interface Job {
  readonly command: Uint8Array;
  readonly epoch: number;
  readonly unit: number;
  readonly track: number;
  readonly size: number;
  readonly loaded: boolean;
  readonly rate: number;
  readonly dma: boolean;
  readonly kind: DmaKind;
  /** Bytes that DMA has room for. */
  readonly room: number;
  /** Through the data port: the sector, and what the guest gave. */
  readonly sector: number;
  readonly given: Uint8Array | undefined;
}

/** The state of a transfer after a sector or several. */
interface Ending {
  readonly status0: number;
  readonly status1: number;
  readonly status2: number;
  /** Cylinder, head, record of the result phase. */
  readonly place: readonly [number, number, number];
}

type Locked = <T>(body: () => T) => T;

export class Fdc {
  readonly #s: View<typeof fdcState.fields>;
  readonly #wires: FdcWires;
  readonly ports: IoHandler;
  readonly lastPort: IoHandler;

  constructor(state: View<typeof fdcState.fields>, wires: FdcWires) {
    this.#s = state;
    this.#wires = wires;
    wires.dma.unmasked = () => {
      if (state.job !== 0) wires.ring();
    };
    this.ports = {
      read: (offset) => this.#read(offset),
      write: (offset, _size, value) => this.#write(offset, value & 0xff),
    };
    this.lastPort = {
      read: () => (state.changed[this.#selected] !== 0 && this.#motor ? DIR_CHANGED : 0),
      write: (_offset, _size, value) => {
        state.rate = value & 3;
      },
    };
  }

  reset(): void {
    const s = this.#s;
    s.dor = DOR_RESET | DOR_DMA;
    s.tdr = 0;
    s.rate = 2;
    s.locked = 0;
    s.specify.fill(0);
    s.changed.fill(1);
    this.#reset();
    s.pending = 0;
    this.#lower();
  }

  /** A medium of so many bytes is in a drive; 0: none. With the machine lock held. */
  setMedium(unit: number, size: number): void {
    const s = this.#s;
    s.size[unit] = size;
    s.loaded[unit] = size > 0 ? 1 : 0;
    s.changed[unit] = 1;
  }
  /** The same when the machine is made: the drive is of the kind that takes this medium. */
  setFirstMedium(unit: number, size: number): void {
    this.setMedium(unit, size);
    this.#s.kind[unit] = size > 0 ? floppyGeometry(size).drive : EMPTY_DRIVE;
  }
  /** The kinds of both drives as the CMOS has them; 0: there is none. */
  get kinds(): [number, number] {
    const { drives } = this.#wires;
    return [drives[0] ? this.#s.kind[0] : 0, drives[1] ? this.#s.kind[1] : 0];
  }
  /** The slot of a drive for `MediumSlot`. */
  tray(unit: number): { open: boolean; loaded: boolean } {
    return { open: this.#s.trayOpen[unit] !== 0, loaded: this.#s.loaded[unit] !== 0 };
  }
  setTray(unit: number, open: boolean): void {
    this.#s.trayOpen[unit] = open ? 1 : 0;
    if (open) this.#s.changed[unit] = 1;
  }

  // --- registers ----------------------------------------------------------------------------------------------------------

  get #selected(): number {
    return this.#s.dor & 3;
  }
  get #motor(): boolean {
    return (this.#s.dor & (0x10 << this.#selected)) !== 0 && this.#wires.drives[this.#selected] === true;
  }

  #read(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case 0:
        return (s.interrupt << 7) | (this.#wires.drives[1] ? 0 : 0x40) | (s.track[this.#selected] === 0 ? 0 : 0x10);
      case 1:
        return 0xc0 | ((s.dor & 1) << 5) | ((s.dor >> 4) & 3);
      case DOR:
        return s.dor;
      case TDR:
        return s.tdr;
      case MSR:
        return this.#status();
      case FIFO:
        return this.#take();
      default:
        return 0xff;
    }
  }

  #status(): number {
    const { phase, dor } = this.#s;
    if ((dor & DOR_RESET) === 0) return 0;
    const byPort = phase === GIVING || phase === TAKING ? MSR_NO_DMA : 0;
    const busy = phase === IDLE ? 0 : MSR_BUSY;
    const ready = phase === WORKING ? 0 : MSR_READY;
    return byPort | busy | ready | (phase === GIVING || phase === RESULT ? MSR_OUT : 0);
  }

  #write(offset: number, value: number): void {
    const s = this.#s;
    switch (offset) {
      case DOR: {
        const before = s.dor;
        s.dor = value;
        if ((value & DOR_RESET) === 0) this.#reset();
        else if ((before & DOR_RESET) === 0) this.#released();
        return;
      }
      case TDR:
        s.tdr = value & 3;
        return;
      case MSR:
        s.rate = value & 3;
        if ((value & DSR_RESET) !== 0) {
          this.#reset();
          this.#released();
        }
        return;
      case FIFO:
        if ((s.dor & DOR_RESET) !== 0) this.#give(value);
    }
  }

  #reset(): void {
    const s = this.#s;
    s.epoch++;
    s.job = 0;
    s.phase = IDLE;
    s.commandAt = 0;
    s.resultBytes = 0;
    s.pending = 0;
    if (s.locked === 0) {
      s.configure = CONFIGURE_DEFAULT;
      s.preCompensation = 0;
    }
    s.perpendicular = 0;
    this.#lower();
  }

  /** After a reset the drives are polled: four interrupts are to be sensed. 82077AA, 2.1.2 and 5.2.5. */
  #released(): void {
    const s = this.#s;
    s.pending = 15;
    for (let unit = 0; unit < 4; unit++) s.status0[unit] = ST0_POLLED | unit;
    this.#raise();
  }

  #raise(): void {
    this.#s.interrupt = 1;
    if ((this.#s.dor & DOR_DMA) !== 0) this.#wires.irq.set(true);
  }
  #lower(): void {
    this.#s.interrupt = 0;
    this.#wires.irq.set(false);
  }

  // --- the data port ------------------------------------------------------------------------------------------------------

  #take(): number {
    const s = this.#s;
    if (s.phase === RESULT) {
      this.#lower();
      const value = s.result[s.resultAt++];
      if (s.resultAt >= s.resultBytes) s.phase = IDLE;
      return value;
    }
    if (s.phase !== GIVING) return 0;
    const value = s.buffer[s.bufferAt++];
    if (s.bufferAt >= s.bufferBytes) {
      this.#lower();
      this.#next();
    }
    return value;
  }

  #give(value: number): void {
    const s = this.#s;
    if (s.phase === TAKING) {
      s.buffer[s.bufferAt++] = value;
      if (s.bufferAt < s.bufferBytes) return;
      this.#lower();
      this.#start();
      return;
    }
    if (s.phase !== IDLE && s.phase !== COMMAND) return;
    if (s.phase === IDLE) {
      s.commandAt = 0;
      s.commandBytes = this.#lengthOf(value);
      s.phase = COMMAND;
    }
    s.command[s.commandAt++] = value;
    if (s.commandAt < s.commandBytes) return;
    this.#execute();
  }

  #lengthOf(value: number): number {
    // RELATIVE SEEK is told from SEEK by its top bit.
    if ((value & 0xbf) === (0x80 | SEEK)) return 3;
    return LENGTHS[value & 0x1f] ?? 1;
  }

  #answer(...values: number[]): void {
    const s = this.#s;
    s.result.set(values);
    s.resultAt = 0;
    s.resultBytes = values.length;
    s.phase = RESULT;
  }

  #execute(): void {
    const s = this.#s;
    const { command } = s;
    const unit = command[1] & 3;
    const code = command[0] & 0x1f;
    switch (code) {
      case SPECIFY:
        s.specify.set([command[1], command[2]]);
        s.phase = IDLE;
        return;
      case RECALIBRATE:
        return this.#seek(unit, 0, 0);
      case SEEK:
        if ((command[0] & 0x80) === 0) return this.#seek(unit, command[2], command[1] & 4);
        return this.#seek(unit, s.track[unit] + ((command[0] & 0x40) !== 0 ? command[2] : -command[2]), command[1] & 4);
      case SENSE_INTERRUPT:
        return this.#sense();
      case DUMP:
        return this.#answer(
          ...[s.track[0], s.track[1], 0, 0, s.specify[0], s.specify[1], command[4]],
          ...[(s.locked << 7) | s.perpendicular, s.configure, s.preCompensation],
        );
      case VERSION:
        return this.#answer(0x90);
      case PERPENDICULAR:
        s.perpendicular = command[1] & 0x7f;
        s.phase = IDLE;
        return;
      case CONFIGURE:
        s.configure = command[2];
        s.preCompensation = command[3];
        s.phase = IDLE;
        return;
      case LOCK:
        s.locked = command[0] >> 7;
        return this.#answer(s.locked << 4);
      case SENSE_DRIVE:
      case READ_ID:
        return this.#start();
      default:
        break;
    }
    if (LENGTHS[code] === undefined) return this.#answer(ST0_INVALID);
    if (code !== FORMAT && (s.configure & CONFIGURE_IMPLIED_SEEK) !== 0) s.track[unit] = command[2];
    s.sector = command[4];
    if (this.#byPort && (WRITES.includes(code) || SCANS.includes(code)))
      return this.#takeData(code === FORMAT ? command[3] * 4 : SECTOR);
    this.#start();
  }

  /** SPECIFY's ND bit: data goes through the port. 82077AA, 5.2.6. */
  get #byPort(): boolean {
    return (this.#s.specify[1] & 1) !== 0;
  }

  #takeData(length: number): void {
    const s = this.#s;
    s.bufferAt = 0;
    s.bufferBytes = Math.min(BUFFER, length);
    if (s.bufferBytes === 0) return this.#start();
    s.phase = TAKING;
    this.#raise();
  }

  #start(): void {
    this.#s.phase = WORKING;
    this.#s.job = 1;
    this.#wires.ring();
  }

  #seek(unit: number, track: number, head: number): void {
    const s = this.#s;
    s.phase = IDLE;
    s.track[unit] = Math.min(255, Math.max(0, track));
    // A step pulse with a medium in the drive takes the change signal away.
    if (s.loaded[unit] !== 0 && s.trayOpen[unit] === 0) s.changed[unit] = 0;
    const absent = this.#wires.drives[unit] !== true && s.command[0] === RECALIBRATE;
    s.status0[unit] = ST0_SEEK_END | head | unit | (absent ? ST0_ABNORMAL | ST0_CHECK : 0);
    s.pending |= 1 << unit;
    this.#raise();
  }

  #sense(): void {
    const s = this.#s;
    if (s.pending === 0) return this.#answer(ST0_INVALID);
    const unit = 31 - Math.clz32(s.pending & -s.pending);
    s.pending &= ~(1 << unit);
    this.#lower();
    this.#answer(s.status0[unit], s.track[unit]);
  }

  // --- jobs -----------------------------------------------------------------------------------------------------------------

  /** On the I/O thread, without the lock: carries out what waits. `media` are those of the drives; true where there may be more. */
  process(media: readonly (FloppyMedium | undefined)[], locked: Locked): boolean {
    const job = locked(() => this.#takeJob());
    if (job === undefined) return false;
    this.#carryOut(job, media[job.unit], (body) =>
      locked(() => {
        if (job.epoch === this.#s.epoch) body();
      }),
    );
    return true;
  }

  #takeJob(): Job | undefined {
    const s = this.#s;
    const { dma } = this.#wires;
    if (s.job === 0) return undefined;
    const code = s.command[0] & 0x1f;
    const moves = code !== SENSE_DRIVE && code !== READ_ID && code !== VERIFY;
    const byDma = moves && !this.#byPort;
    // Without an answer of the DMA controller the transfer waits, as the chip's FIFO would.
    if (byDma && !dma.ready(FDC_DMA)) return undefined;
    s.job = 0;
    const unit = s.command[1] & 3;
    const taken = this.#byPort && (WRITES.includes(code) || SCANS.includes(code));
    return {
      ...{ command: s.command.slice(0, 9), epoch: s.epoch, unit, track: s.track[unit], size: s.size[unit], rate: s.rate },
      ...{ loaded: s.loaded[unit] !== 0 && s.trayOpen[unit] === 0 && this.#wires.drives[unit] === true },
      ...{ dma: byDma, kind: byDma ? dma.kind(FDC_DMA) : 'verify', room: byDma ? dma.left(FDC_DMA) : 0 },
      ...{ sector: s.sector, given: taken ? s.buffer.slice(0, s.bufferBytes) : undefined },
    };
  }

  #carryOut(job: Job, medium: FloppyMedium | undefined, now: (body: () => void) => void): void {
    const code = job.command[0] & 0x1f;
    const { unit } = job;
    const head = (job.command[1] >> 2) & 1;
    const present = job.loaded && medium !== undefined;
    if (code === SENSE_DRIVE) {
      const bits = (present && medium.readOnly ? ST3_PROTECTED : 0) | (job.track === 0 ? ST3_TRACK_0 : 0);
      now(() => this.#answer(ST3_READY | ST3_TWO_SIDED | bits | (head << 2) | unit));
      return;
    }
    const fails = (status1: number, status2 = 0): void => {
      const [, , cylinder, side, record] = job.command;
      const place = code === FORMAT || code === READ_ID ? [job.track, head, 1] : [cylinder, side, record];
      now(() => this.#finish(job, { status0: ST0_ABNORMAL, status1, status2, place: place as [number, number, number] }));
    };
    const geometry = floppyGeometry(job.size);
    // Nothing that could be read at this rate comes by: no address mark is found.
    if (!present || geometry.rate !== job.rate) return fails(ST1_NO_MARK);
    if (head >= geometry.heads || job.track >= geometry.cylinders) return fails(ST1_NO_MARK);
    if (code === READ_ID) {
      now(() => this.#finish(job, { status0: 0, status1: 0, status2: 0, place: [job.track, head, 1] }));
      return;
    }
    if (WRITES.includes(code) && medium.readOnly) return fails(ST1_NOT_WRITABLE);
    if (code === FORMAT) return this.#format(job, medium, geometry, now, fails);
    if (job.command[5] !== SECTOR_CODE) return fails(ST1_NO_DATA);
    if (job.command[2] !== job.track) return fails(ST1_NO_DATA, ST2_WRONG_CYLINDER);
    this.#transfer(job, medium, geometry, now);
  }

  /** The place after record `record` of the track: on the other side, or a cylinder further. 82077AA, table 5-6. */
  #after(job: Job, head: number, record: number): { place: [number, number, number]; goesOn: boolean } {
    const cylinder = job.command[2];
    const last = job.command[6];
    if (record < last) return { place: [cylinder, head, record + 1], goesOn: true };
    const multi = (job.command[0] & MULTI_TRACK) !== 0 && (job.command[0] & 0x1f) !== READ_TRACK;
    if (multi && head === 0) return { place: [cylinder, 1, 1], goesOn: true };
    return { place: [cylinder + 1, multi ? 0 : head, 1], goesOn: false };
  }

  /** Reads, writes or compares sectors until the terminal count or the end of the track. */
  #transfer(job: Job, medium: FloppyMedium, geometry: FloppyGeometry, now: (body: () => void) => void): void {
    const { command, dma, unit } = job;
    const code = command[0] & 0x1f;
    const writes = WRITES.includes(code);
    const scans = SCANS.includes(code);
    // The head that the command selects; the one of the address is compared, and is the same in all that make sense.
    let head = (command[1] >> 2) & 1;
    let record = code === READ_TRACK ? 1 : command[4];
    if (!dma && code !== VERIFY) record = job.sector & 0xff;
    if (!dma && code !== VERIFY && (job.sector & 0x100) !== 0) head = 1;
    /** VERIFY counts sectors where EC is set, else goes on to the end of the track. */
    const counted = (command[1] & 0x80) !== 0 ? command[8] : 0;
    let data: Uint8Array = new Uint8Array(0);
    if (dma && (writes || scans)) {
      data = new Uint8Array(Math.min(job.room, geometry.heads * geometry.sectors * SECTOR));
      let gone = true;
      now(() => {
        gone = false;
        this.#fromMemory(job, data);
      });
      if (gone) return;
    } else if (job.given !== undefined) data = job.given;
    const limit = dma
      ? Math.min(job.room, 2 * geometry.sectors * SECTOR)
      : code === VERIFY
        ? 2 * geometry.sectors * SECTOR
        : SECTOR;
    const parts: Uint8Array[] = [];
    let status1 = 0;
    let status2 = 0;
    let done = 0;
    let place: [number, number, number] = [command[2], head, record];
    let ended = false;
    let found = false;
    for (let n = 1; done < limit && !ended; n++) {
      if (record < 1 || record > geometry.sectors || head >= geometry.heads) {
        status1 = ST1_NO_DATA;
        break;
      }
      const offset = ((job.track * geometry.heads + head) * geometry.sectors + record - 1) * SECTOR;
      const length = Math.min(SECTOR, limit - done);
      const inside = offset + SECTOR <= job.size;
      let ok = inside;
      if (writes) {
        const sector = new Uint8Array(SECTOR);
        sector.set(data.subarray(done, done + length));
        ok = inside && medium.write(offset, sector);
      } else {
        const sector = new Uint8Array(SECTOR);
        ok = inside && medium.read(offset, sector);
        if (scans) {
          const match = compare(code, sector.subarray(0, length), data.subarray(done, done + length));
          found = match !== 'no';
          if (found) status2 = match === 'equal' ? ST2_SCAN_EQUAL : 0;
        } else if (code !== VERIFY) parts.push(sector.subarray(0, length));
      }
      if (!ok) {
        status1 = inside ? ST1_DATA_ERROR : ST1_NO_DATA;
        break;
      }
      done += length;
      const after = this.#after(job, head, record);
      place = after.place;
      // No sector has a deleted mark: one who looks for them finds other marks, and reads on.
      if (code === READ_DELETED) status2 |= ST2_DELETED_MARK;
      ended = !after.goesOn || found || n === counted;
      [, head, record] = place;
      if (code === READ_DELETED && (command[0] & 0x20) === 0) break;
    }
    if (scans && !found && status1 === 0) status2 = ST2_SCAN_NOT;
    now(() => {
      let last = code === VERIFY || found;
      if (dma && !writes && !scans) last = this.#toMemory(job, parts);
      else if (dma) last = this.#wires.dma.skip(FDC_DMA, done) || last;
      const ending = { status0: status1 === 0 ? 0 : ST0_ABNORMAL, status1, status2, place };
      if (!dma && code !== VERIFY && status1 === 0 && !found) {
        this.#s.sector = place[2] | (place[1] << 8) | (ended ? 0x200 : 0) | (place[0] << 16);
        if (parts.length > 0) this.#giveData(parts[0]);
        else this.#next();
        return;
      }
      // The track's end without the terminal count.
      if (ended && !last && status1 === 0 && (dma || code !== VERIFY))
        this.#finish(job, { ...ending, status0: ST0_ABNORMAL, status1: ST1_END });
      else this.#finish({ ...job, unit }, ending);
    });
  }

  #fromMemory(job: Job, data: Uint8Array): void {
    // The channel's count moves on with what was written: see the end of the transfer.
    if (job.kind === 'from-memory') this.#wires.dma.peek(FDC_DMA, data);
  }

  #toMemory(job: Job, parts: readonly Uint8Array[]): boolean {
    let last = false;
    for (const part of parts)
      last = job.kind === 'to-memory' ? this.#wires.dma.write(FDC_DMA, part) : this.#wires.dma.skip(FDC_DMA, part.length);
    return last;
  }

  #giveData(data: Uint8Array): void {
    const s = this.#s;
    s.buffer.set(data);
    s.bufferAt = 0;
    s.bufferBytes = data.length;
    s.phase = GIVING;
    this.#raise();
  }

  /** Through the data port: the next sector, or the end of the track. */
  #next(): void {
    const s = this.#s;
    if ((s.sector & 0x200) === 0) {
      const code = s.command[0] & 0x1f;
      if (WRITES.includes(code) || SCANS.includes(code)) this.#takeData(SECTOR);
      else this.#start();
      return;
    }
    const place: [number, number, number] = [(s.sector >> 16) & 0xff, (s.sector >> 8) & 1, s.sector & 0xff];
    this.#result(s.command[1] & 7, { status0: ST0_ABNORMAL, status1: ST1_END, status2: 0, place });
  }

  /** FORMAT TRACK: four bytes a sector say its address; all get the fill byte. 82077AA, 5.1.7. */
  #format(
    job: Job,
    medium: FloppyMedium,
    geometry: FloppyGeometry,
    now: (body: () => void) => void,
    fails: (status1: number) => void,
  ): void {
    const { command, track } = job;
    const head = (command[1] >> 2) & 1;
    const count = command[3];
    let ids = job.given ?? new Uint8Array(0);
    if (job.dma) {
      ids = new Uint8Array(Math.min(count * 4, job.room));
      let gone = true;
      now(() => {
        gone = false;
        this.#fromMemory(job, ids);
      });
      if (gone) return;
    }
    const fill = new Uint8Array(SECTOR).fill(command[5]);
    for (let at = 0; at + 4 <= ids.length; at += 4) {
      const [cylinder, side, record, code] = ids.subarray(at, at + 4);
      // A layout that the image cannot hold.
      if (cylinder !== track || side !== head || record < 1 || record > geometry.sectors || code !== SECTOR_CODE)
        return fails(ST1_NO_DATA);
      const offset = ((track * geometry.heads + head) * geometry.sectors + record - 1) * SECTOR;
      if (offset + SECTOR > job.size || !medium.write(offset, fill)) return fails(ST1_DATA_ERROR);
    }
    now(() => {
      if (job.dma) this.#wires.dma.skip(FDC_DMA, ids.length);
      this.#finish(job, { status0: 0, status1: 0, status2: 0, place: [track, head, 1] });
    });
  }

  #finish(job: Job, ending: Ending): void {
    this.#result(job.command[1] & 7, ending);
  }

  #result(select: number, { status0, status1, status2, place }: Ending): void {
    this.#answer(status0 | select, status1, status2, ...place, SECTOR_CODE);
    this.#raise();
  }
}

/** SCAN compares the medium with the guest's data; 0xff on either side fits everything. 82077AA, 5.1.8. */
function compare(code: number, medium: Uint8Array, data: Uint8Array): 'equal' | 'fits' | 'no' {
  let all = true;
  for (let i = 0; i < data.length; i++) {
    const [a, b] = [medium[i], data[i]];
    if (a === b || a === 0xff || b === 0xff) continue;
    all = false;
    if (code === SCAN_EQUAL || (code === SCAN_LOW ? a > b : a < b)) return 'no';
  }
  return all ? 'equal' : 'fits';
}
