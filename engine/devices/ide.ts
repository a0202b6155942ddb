/**
 * An IDE channel with up to two drives, and its half of a bus master. ATA-7 volume 2 (T13/1532D), host protocols;
 * packet transfers: SFF-8020i and ATA-7 volume 2, 9.8; bus master: "Programming Interface for Bus Master IDE Controller",
 * revision 1.0.
 *
 * Registers are served where the access happens. What needs the image is left for the I/O thread of the drive: the
 * register side sets `work` and BSY and rings; the thread carries it out without the lock (`process`), then takes the lock
 * and goes on with the protocol. PIO data passes through `buffer`, which the thread fills or empties in large pieces, so
 * that most of a command's DRQ blocks need no thread. A reset in between makes what the thread brings back void (`epoch`).
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { IrqLine } from '../bus/irq.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { bytes, f64, struct, u32, u32s, type View } from '../memory/struct.ts';
import {
  ATA_ABRT,
  ATA_BSY,
  ATA_DRDY,
  ATA_DRQ,
  ATA_DSC,
  ATA_ERR,
  ATA_IDNF,
  type AtaCommand,
  ataCommand,
  SECTOR,
  TRIM_BLOCKS_MAX,
} from './ata.ts';
import { type AtaDrive, BufferData, ScatterData, type TaskFile } from './ata-drive.ts';
import { ScatterList } from './scatter.ts';
import type { Locked } from './virtio/device.ts';
import { PUT_BACK } from './virtio/disk.ts';

const BUFFER_BYTES = 65536;
const PACKET_BYTES = 12;
const CD_BLOCK = 2048;

/** Control register. */
const CONTROL_NO_IRQ = 2;
const CONTROL_RESET = 4;
const CONTROL_HIGH = 0x80;
/** Interrupt reason of packet commands, in the count register. */
const REASON_COMMAND = 1;
const REASON_IN = 2;

/** Bus master command and status. */
const BM_START = 1;
const BM_ACTIVE = 1;
const BM_ERROR = 2;
const BM_IRQ = 4;
/** Entries of a table of regions: it may not cross 64 KiB. */
const PRD_MAX = 8192;

/** What the I/O thread is to do. */
const WORK_NONE = 0;
/** Fill the buffer from the disk, or write it there. */
const WORK_FILL = 1;
const WORK_DRAIN = 2;
const WORK_DMA = 3;
const WORK_FLUSH = 4;
const WORK_PACKET = 5;

/** What becomes of the data register. */
const PHASE_IDLE = 0;
const PHASE_IN = 1;
const PHASE_OUT = 2;
/** The twelve bytes of a packet, and its parameters. */
const PHASE_PACKET = 3;
const PHASE_PACKET_OUT = 4;

export const ideChannelState = struct('ide-channel', 1, {
  // Task files of both drives; a write goes to both. `High` holds what the register held before.
  features: u32s(2),
  featuresHigh: u32s(2),
  count: u32s(2),
  countHigh: u32s(2),
  lba: u32s(2),
  lbaHigh: u32s(2),
  status: u32s(2),
  error: u32s(2),
  device: u32,
  control: u32,
  irq: u32,
  /** The command that is being carried out, by which drive. */
  command: u32,
  drive: u32,
  phase: u32,
  work: u32,
  epoch: u32,
  /** Bytes in the buffer, where the next goes, and where the DRQ block ends. */
  length: u32,
  position: u32,
  blockEnd: u32,
  blockBytes: u32,
  /** Where the command is: next sector, sectors left (blocks of a CD for packets). */
  next: f64,
  left: u32,
  /** 1: the command waits for the bus master. */
  wantsDma: u32,
  packet: bytes(16),
  bmCommand: u32,
  bmStatus: u32,
  bmTable: u32,
  buffer: bytes(BUFFER_BYTES),
});

export interface IdeChannelWires {
  readonly memory: GuestMemory;
  readonly irq: IrqLine;
  /** Two places; undefined where no drive is. */
  readonly drives: readonly (AtaDrive | undefined)[];
  /** Wakes the I/O thread of a drive. */
  ring(drive: number): void;
}

export class IdeChannel {
  readonly #s: View<typeof ideChannelState.fields>;
  readonly #wires: IdeChannelWires;

  constructor(state: View<typeof ideChannelState.fields>, wires: IdeChannelWires) {
    this.#s = state;
    this.#wires = wires;
  }

  reset(): void {
    const s = this.#s;
    for (const drive of this.#wires.drives) drive?.reset();
    s.control = 0;
    s.bmCommand = 0;
    s.bmStatus = 0;
    s.bmTable = 0;
    this.#softReset();
  }

  /** Both drives as after a software reset: signatures, no command. */
  #softReset(): void {
    const s = this.#s;
    s.epoch = (s.epoch + 1) >>> 0;
    s.work = WORK_NONE;
    s.phase = PHASE_IDLE;
    s.wantsDma = 0;
    s.device = 0;
    for (let n = 0; n < 2; n++) this.#sign(n);
    this.#setIrq(false);
  }

  #sign(n: number): void {
    const s = this.#s;
    const drive = this.#wires.drives[n];
    s.features[n] = s.featuresHigh[n] = s.countHigh[n] = s.lbaHigh[n] = 0;
    s.error[n] = drive === undefined ? 0 : 1; // diagnostics passed
    s.count[n] = drive?.signature.count ?? 0;
    s.lba[n] = drive?.signature.lba ?? 0;
    s.status[n] = drive === undefined ? 0 : drive.cdrom === undefined ? ATA_DRDY | ATA_DSC : 0;
  }

  get #selected(): number {
    return (this.#s.device >> 4) & 1;
  }

  #setIrq(level: boolean): void {
    const s = this.#s;
    s.irq = level ? 1 : 0;
    if (level) s.bmStatus |= BM_IRQ;
    this.#wires.irq.set(level && (s.control & CONTROL_NO_IRQ) === 0);
  }

  // --- registers --------------------------------------------------------------------------------------------------

  /** The eight command block registers. */
  readonly commandBlock: IoHandler = {
    read: (offset, size) => {
      if (offset === 0) return this.#readData(size);
      const s = this.#s;
      const n = this.#selected;
      if (this.#wires.drives[n] === undefined) return this.#absent(offset);
      const high = (s.control & CONTROL_HIGH) !== 0;
      switch (offset) {
        case 1:
          return s.error[n];
        case 2:
          return (high ? s.countHigh : s.count)[n];
        case 3:
        case 4:
        case 5:
          return ((high ? s.lbaHigh : s.lba)[n] >>> ((offset - 3) * 8)) & 0xff;
        case 6:
          return s.device | 0xa0;
        default:
          this.#setIrq(false);
          return s.status[n];
      }
    },
    write: (offset, size, value) => {
      if (offset === 0) this.#writeData(size, value);
      else this.#writeRegister(offset, value & 0xff);
    },
    readBlock: (offset, size, target) => (offset === 0 ? this.#readDataBlock(size, target) : 0),
  };

  /** Without the selected drive the other answers with zeros; without both the bus floats. */
  #absent(offset: number): number {
    if (this.#wires.drives.every((drive) => drive === undefined)) return offset === 7 ? 0x7f : 0xff;
    return offset === 6 ? this.#s.device | 0xa0 : 0;
  }

  /** Device control and alternate status. */
  readonly controlBlock: IoHandler = {
    read: () => {
      const n = this.#selected;
      return this.#wires.drives[n] === undefined ? this.#absent(7) : this.#s.status[n];
    },
    write: (_offset, _size, value) => {
      const s = this.#s;
      const before = s.control;
      s.control = value & 0xff;
      if ((value & CONTROL_RESET) !== 0) {
        if ((before & CONTROL_RESET) === 0) {
          this.#softReset();
          for (let n = 0; n < 2; n++) if (this.#wires.drives[n] !== undefined) s.status[n] = ATA_BSY;
        }
      } else if ((before & CONTROL_RESET) !== 0) for (let n = 0; n < 2; n++) this.#sign(n);
      this.#wires.irq.set(s.irq !== 0 && (s.control & CONTROL_NO_IRQ) === 0);
    },
  };

  #writeRegister(offset: number, value: number): void {
    const s = this.#s;
    if (offset === 7) {
      this.#command(value);
      return;
    }
    s.control &= ~CONTROL_HIGH;
    // A drive that is at work does not take registers; the device register selects all the same.
    if (offset === 6) {
      s.device = value;
      return;
    }
    for (let n = 0; n < 2; n++) {
      if ((s.status[n] & (ATA_BSY | ATA_DRQ)) !== 0) continue;
      if (offset === 1) {
        s.featuresHigh[n] = s.features[n];
        s.features[n] = value;
      } else if (offset === 2) {
        s.countHigh[n] = s.count[n];
        s.count[n] = value;
      } else {
        const shift = (offset - 3) * 8;
        const mask = 0xff << shift;
        s.lbaHigh[n] = (s.lbaHigh[n] & ~mask) | (s.lba[n] & mask);
        s.lba[n] = (s.lba[n] & ~mask) | (value << shift);
      }
    }
  }

  // --- commands ---------------------------------------------------------------------------------------------------

  #command(code: number): void {
    const s = this.#s;
    const n = this.#selected;
    const drive = this.#wires.drives[n];
    if (drive === undefined) return;
    const command = ataCommand(code);
    const what = command?.what;
    if ((s.status[n] & ATA_BSY) !== 0 || (s.control & CONTROL_RESET) !== 0) {
      if (what !== 'device-reset' || (s.control & CONTROL_RESET) !== 0) return;
    }
    this.#setIrq(false);
    // A command that the host gave up makes way.
    s.epoch = (s.epoch + 1) >>> 0;
    s.work = WORK_NONE;
    s.phase = PHASE_IDLE;
    s.wantsDma = 0;
    s.command = code;
    s.drive = n;
    s.error[n] = 0;
    if (what === 'diagnostic') {
      // Both drives carry it out, and drive 0 answers.
      this.#softReset();
      this.#setIrq(true);
      return;
    }
    if (command === undefined || !drive.knows(command)) {
      // A packet device that is asked for its identity shows that it is one.
      if (drive.cdrom !== undefined && (what === 'identify' || what === 'read')) this.#sign(n);
      this.#fail(ATA_ABRT);
      return;
    }
    if (what === 'device-reset') {
      this.#sign(n);
      return;
    }
    this.#start(drive, command);
  }

  #task(command: AtaCommand): TaskFile {
    const s = this.#s;
    const n = s.drive;
    const lba = command.ext ? (s.lbaHigh[n] & 0xffffff) * 2 ** 24 + (s.lba[n] & 0xffffff) : s.lba[n] & 0xffffff;
    return {
      features: s.features[n],
      count: command.ext ? (s.countHigh[n] << 8) | s.count[n] : s.count[n],
      lba,
      device: s.device & 0x4f,
    };
  }

  #start(drive: AtaDrive, command: AtaCommand): void {
    const s = this.#s;
    const n = s.drive;
    const { what, protocol } = command;
    if (protocol === 'queued-in' || protocol === 'queued-out') return this.#fail(ATA_ABRT);
    switch (what) {
      case 'identify':
      case 'identify-packet': {
        const data = drive.identify();
        s.buffer.set(data);
        s.left = 0;
        s.blockBytes = data.length;
        this.#offer(data.length);
        return;
      }
      case 'read':
      case 'write': {
        const range = drive.range(command, this.#task(command));
        if (range === undefined) return this.#fail(ATA_IDNF | ATA_ABRT);
        if (command.multiple && drive.state.multiple === 0) return this.#fail(ATA_ABRT);
        s.next = range.lba;
        s.left = range.count;
        s.blockBytes = SECTOR * (command.multiple ? drive.state.multiple : 1);
        if (protocol === 'dma-in' || protocol === 'dma-out') return this.#waitForDma();
        if (what === 'read') return this.#later(WORK_FILL);
        s.phase = PHASE_OUT;
        this.#accept();
        s.status[n] = ATA_DRDY | ATA_DSC | ATA_DRQ;
        return;
      }
      case 'trim': {
        if (s.features[n] !== 1) return this.#fail(ATA_ABRT);
        const { count } = this.#task(command);
        if (count === 0 || count > TRIM_BLOCKS_MAX) return this.#fail(ATA_ABRT);
        s.left = count;
        return this.#waitForDma();
      }
      case 'flush':
        return this.#later(WORK_FLUSH);
      case 'packet':
        s.phase = PHASE_PACKET;
        s.position = 0;
        s.length = s.blockEnd = PACKET_BYTES;
        s.count[n] = REASON_COMMAND;
        s.status[n] = ATA_DRDY | ATA_DRQ;
        return;
      default: {
        const task = this.#task(command);
        const error = drive.control(command, task);
        if (error !== 0) return this.#fail(error);
        if (what === 'power-mode') s.count[n] = task.count;
        else if (what === 'native-max') {
          s.lba[n] = task.lba % 2 ** 24;
          if (command.ext) s.lbaHigh[n] = Math.floor(task.lba / 2 ** 24);
          else s.device = (s.device & 0xf0) | Math.floor(task.lba / 2 ** 24);
        }
        this.#complete();
      }
    }
  }

  /** The command is done, without an error. */
  #complete(): void {
    const s = this.#s;
    s.phase = PHASE_IDLE;
    s.status[s.drive] = ATA_DRDY | ATA_DSC;
    this.#setIrq(true);
  }

  #fail(error: number): void {
    const s = this.#s;
    s.phase = PHASE_IDLE;
    s.error[s.drive] = error;
    s.status[s.drive] = ATA_DRDY | ATA_DSC | ATA_ERR;
    this.#setIrq(true);
  }

  #later(work: number): void {
    const s = this.#s;
    s.work = work;
    s.status[s.drive] = ATA_BSY | ATA_DRDY;
    this.#wires.ring(s.drive);
  }

  #waitForDma(): void {
    const s = this.#s;
    s.wantsDma = 1;
    s.status[s.drive] = ATA_BSY | ATA_DRDY;
    this.#runDma();
  }

  #runDma(): void {
    const s = this.#s;
    if (s.wantsDma === 0 || (s.bmCommand & BM_START) === 0) return;
    s.wantsDma = 0;
    s.bmStatus |= BM_ACTIVE;
    this.#later(WORK_DMA);
  }

  // --- PIO data ---------------------------------------------------------------------------------------------------

  /** `length` bytes of the buffer are there for the host to read. */
  #offer(length: number): void {
    const s = this.#s;
    s.phase = PHASE_IN;
    s.position = 0;
    s.length = length;
    this.#nextBlock();
  }

  /** The next DRQ block of what the buffer holds. */
  #nextBlock(): void {
    const s = this.#s;
    const n = s.drive;
    s.blockEnd = Math.min(s.length, s.position + s.blockBytes);
    if (ataCommand(s.command)?.what === 'packet') {
      const bytes = s.blockEnd - s.position;
      s.lba[n] = (s.lba[n] & 0xff) | (bytes << 8);
      s.count[n] = REASON_IN;
    }
    s.status[n] = ATA_DRDY | ATA_DSC | ATA_DRQ;
    this.#setIrq(true);
  }

  #readData(size: AccessSize): number {
    const s = this.#s;
    if (s.phase !== PHASE_IN || this.#selected !== s.drive) return 0;
    let value = 0;
    for (let i = 0; i < size && s.position < s.blockEnd; i++) value |= s.buffer[s.position++] << (8 * i);
    if (s.position < s.blockEnd) return value >>> 0;
    if (s.position < s.length) this.#nextBlock();
    else if (s.left > 0) {
      s.phase = PHASE_IDLE;
      this.#later(ataCommand(s.command)?.what === 'packet' ? WORK_PACKET : WORK_FILL);
    } else if (ataCommand(s.command)?.what === 'packet') this.#packetDone();
    else {
      s.phase = PHASE_IDLE;
      s.status[s.drive] = ATA_DRDY | ATA_DSC;
    }
    return value >>> 0;
  }

  /** As many reads of the data register as the DRQ block has left; the last one goes on with the protocol. */
  #readDataBlock(size: AccessSize, target: Uint8Array): number {
    const s = this.#s;
    if (s.phase !== PHASE_IN || this.#selected !== s.drive) return 0;
    const bytes = Math.floor(Math.min(target.length, s.blockEnd - s.position) / size) * size;
    if (bytes < 2 * size) return 0;
    target.set(s.buffer.subarray(s.position, s.position + bytes - size));
    s.position += bytes - size;
    const last = this.#readData(size);
    for (let i = 0; i < size; i++) target[bytes - size + i] = (last >>> (8 * i)) & 0xff;
    return bytes;
  }

  /** Room in the buffer for what the host writes next. */
  #accept(): void {
    const s = this.#s;
    s.position = 0;
    s.length = Math.min(BUFFER_BYTES, s.left * SECTOR);
    s.blockEnd = Math.min(s.length, s.blockBytes);
  }

  #writeData(size: AccessSize, value: number): void {
    const s = this.#s;
    if (s.phase < PHASE_OUT || this.#selected !== s.drive) return;
    for (let i = 0; i < size && s.position < s.blockEnd; i++) s.buffer[s.position++] = (value >>> (8 * i)) & 0xff;
    if (s.position < s.blockEnd) return;
    switch (s.phase) {
      case PHASE_OUT:
        if (s.position < s.length) {
          s.blockEnd = Math.min(s.length, s.position + s.blockBytes);
          this.#setIrq(true);
        } else this.#later(WORK_DRAIN);
        return;
      case PHASE_PACKET:
        s.packet.fill(0);
        s.packet.set(s.buffer.subarray(0, PACKET_BYTES));
        this.#packet();
        return;
      default:
        this.#later(WORK_PACKET);
    }
  }

  // --- packets ----------------------------------------------------------------------------------------------------

  #packet(): void {
    const s = this.#s;
    const n = s.drive;
    s.left = 0;
    if ((s.features[n] & 1) !== 0) return this.#waitForDma();
    const limit = (s.lba[n] >> 8) & 0xffff;
    s.blockBytes = limit === 0 || limit === 0xffff ? 0xfffe : limit < 2 ? 2 : limit & ~1;
    const out = packetOutBytes(s.packet);
    if (out > 0) {
      s.phase = PHASE_PACKET_OUT;
      s.position = 0;
      s.length = s.blockEnd = Math.min(out, s.blockBytes);
      s.lba[n] = (s.lba[n] & 0xff) | (s.length << 8);
      s.count[n] = 0;
      s.status[n] = ATA_DRDY | ATA_DRQ;
      this.#setIrq(true);
      return;
    }
    s.phase = PHASE_IDLE;
    const read = packetRead(s.packet);
    const size = this.#wires.drives[n]?.cdrom?.state.size ?? 0;
    // What is not on the medium is refused as a whole.
    if (read !== undefined && (read.lba + read.count) * CD_BLOCK <= size) {
      s.next = read.lba;
      s.left = read.count;
    }
    s.length = 0;
    this.#later(WORK_PACKET);
  }

  #packetDone(sense = 0): void {
    const s = this.#s;
    const n = s.drive;
    s.phase = PHASE_IDLE;
    s.left = 0;
    s.count[n] = REASON_COMMAND | REASON_IN;
    s.error[n] = sense === 0 ? 0 : ((sense >> 16) << 4) | ATA_ABRT;
    s.status[n] = ATA_DRDY | (sense === 0 ? 0 : ATA_ERR);
    this.#setIrq(true);
  }

  // --- bus master -------------------------------------------------------------------------------------------------

  /** The eight ports of this channel. */
  readonly busMaster: IoHandler = {
    read: (offset, size) => {
      const s = this.#s;
      if (offset === 0) return s.bmCommand;
      if (offset === 2) return s.bmStatus;
      if (offset >= 4) return (s.bmTable >>> ((offset & 3) * 8)) & (size === 4 ? -1 : size === 2 ? 0xffff : 0xff);
      return 0;
    },
    write: (offset, size, value) => {
      const s = this.#s;
      if (offset === 0) {
        const before = s.bmCommand;
        s.bmCommand = value & 9;
        if ((value & BM_START) === 0) {
          if ((before & BM_START) !== 0) s.bmStatus &= ~BM_ACTIVE;
        } else if ((before & BM_START) === 0) {
          s.bmStatus |= BM_ACTIVE;
          this.#runDma();
        }
        if (size > 2) this.busMaster.write(2, 1, (value >>> 16) & 0xff);
      } else if (offset === 2)
        s.bmStatus = (value & 0x60) | (s.bmStatus & BM_ACTIVE) | (s.bmStatus & ~value & (BM_ERROR | BM_IRQ));
      else if (offset === 4 && size === 4) s.bmTable = value & ~3;
      else if (offset >= 4) {
        const shift = (offset & 3) * 8;
        const mask = (size === 2 ? 0xffff : 0xff) << shift;
        s.bmTable = ((s.bmTable & ~mask) | ((value << shift) & mask)) & ~3;
      }
    },
  };

  /** What the table of regions names, up to `wanted` bytes; `exact`: it ends there. */
  #regions(table: number, wanted: number): { list: ScatterList; exact: boolean } {
    const { memory } = this.#wires;
    const list = new ScatterList(memory);
    for (let n = 0; n < PRD_MAX && list.bytes < wanted; n++) {
      const at = table + n * 8;
      const control = memory.read32(at + 4);
      const length = control & 0xfffe || 65536;
      list.add(memory.read32(at) & ~1, Math.min(length, wanted - list.bytes));
      if ((control & 0x80000000) !== 0) return { list, exact: list.bytes === wanted };
    }
    return { list, exact: false };
  }

  // --- on the I/O thread ------------------------------------------------------------------------------------------

  /** Carries out what drive `n` has to do, if it has something; returns whether there may be more at once. */
  process(n: number, locked: Locked): boolean {
    const s = this.#s;
    const drive = this.#wires.drives[n];
    const job = locked(() => {
      if (drive === undefined || s.work === WORK_NONE || s.drive !== n) return undefined;
      const { work, epoch, command, next, left, bmTable } = s;
      s.work = WORK_NONE;
      return { work, epoch, next, left, bmTable, command: ataCommand(command), packet: s.packet.slice() };
    });
    if (job === undefined || drive === undefined || job.command === undefined) return false;
    const { command, work, next, left } = job;
    /** Goes on with the protocol, unless the command was given up meanwhile. */
    const done = (body: () => void): boolean => {
      locked(() => {
        if (s.epoch === job.epoch) body();
      });
      return true;
    };
    try {
      if (work === WORK_FLUSH) {
        const error = drive.flush();
        return done(() => (error === 0 ? this.#complete() : this.#fail(error)));
      }
      if (work === WORK_DMA) return this.#dma(drive, command, job, done);
      if (work === WORK_PACKET) return this.#packetWork(drive, job.packet, next, left, done);
      const count = Math.min(left, BUFFER_BYTES / SECTOR);
      const data = new Uint8Array(count * SECTOR);
      if (work === WORK_FILL) {
        const error = drive.readBytes(next, data);
        return done(() => {
          if (error !== 0) return this.#fail(error);
          s.buffer.set(data);
          s.next = next + count;
          s.left = left - count;
          this.#offer(data.length);
        });
      }
      data.set(s.buffer.subarray(0, data.length));
      const error = drive.writeBytes(next, data, command.fua === true && left === count);
      return done(() => {
        if (error !== 0) return this.#fail(error);
        s.next = next + count;
        s.left = left - count;
        if (s.left === 0) return this.#complete();
        this.#accept();
        s.status[n] = ATA_DRDY | ATA_DSC | ATA_DRQ;
        this.#setIrq(true);
      });
    } catch (problem) {
      if (problem !== PUT_BACK) throw problem;
      locked(() => {
        if (s.epoch === job.epoch) s.work = work;
      });
      return false;
    }
  }

  #dma(
    drive: AtaDrive,
    command: AtaCommand,
    job: { readonly next: number; readonly left: number; readonly bmTable: number; readonly packet: Uint8Array },
    done: (body: () => void) => boolean,
  ): boolean {
    const s = this.#s;
    const { next, left, packet } = job;
    let error = 0;
    let exact = true;
    let short = false;
    if (command.what === 'packet') {
      const out = packetOutBytes(packet);
      const { list } = this.#regions(job.bmTable, PRD_MAX * 65536);
      const { sense, moved } = drive.packet(packet, new ScatterData(list, out > 0));
      return done(() => {
        if (moved === list.bytes || sense !== 0) s.bmStatus &= ~BM_ACTIVE;
        this.#packetDone(sense);
      });
    }
    const regions = this.#regions(job.bmTable, left * SECTOR);
    exact = regions.exact;
    short = regions.list.bytes < left * SECTOR;
    if (short) error = ATA_ABRT;
    else if (command.what === 'read') error = drive.read(next, left, regions.list);
    else if (command.what === 'write') error = drive.write(next, left, regions.list, command.fua === true);
    else {
      const list = new Uint8Array(left * SECTOR);
      regions.list.read(0, list);
      error = drive.trim(list);
    }
    return done(() => {
      // A table that is longer than the command leaves the bus master active. Programming Interface, 3.1.
      if (exact || short || error !== 0) s.bmStatus &= ~BM_ACTIVE;
      if (short) s.bmStatus |= BM_ERROR;
      if (error === 0) this.#complete();
      else this.#fail(error);
    });
  }

  #packetWork(drive: AtaDrive, packet: Uint8Array, next: number, left: number, done: (body: () => void) => boolean): boolean {
    const s = this.#s;
    const out = packetOutBytes(packet);
    if (out > 0) {
      const { sense } = drive.packet(packet, new BufferData(s.buffer.slice(0, s.length), true));
      return done(() => this.#packetDone(sense));
    }
    const data = new Uint8Array(BUFFER_BYTES);
    // A long read goes through the buffer in pieces, as a READ (12) each.
    const count = Math.min(left, BUFFER_BYTES / CD_BLOCK);
    if (count > 0) packetPiece(packet, next, count);
    const { sense, moved } = drive.packet(packet, new BufferData(data, false));
    return done(() => {
      if (sense !== 0 || moved === 0) return this.#packetDone(sense);
      s.buffer.set(data.subarray(0, moved));
      s.next = next + count;
      s.left = left - count;
      this.#offer(moved);
    });
  }
}

/** Bytes that a packet's command takes from the host: the parameter lists of MODE SELECT. */
function packetOutBytes(packet: Uint8Array): number {
  if (packet[0] === 0x55) return (packet[7] << 8) | packet[8];
  return packet[0] === 0x15 ? packet[4] : 0;
}

/** Place and length of a READ (10) or (12). */
function packetRead(packet: Uint8Array): { lba: number; count: number } | undefined {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  if (packet[0] === 0x28) return { lba: view.getUint32(2), count: view.getUint16(7) };
  if (packet[0] === 0xa8) return { lba: view.getUint32(2), count: view.getUint32(6) };
  return undefined;
}

function packetPiece(packet: Uint8Array, lba: number, count: number): void {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  packet[0] = 0xa8;
  view.setUint32(2, lba);
  view.setUint32(6, count);
}
