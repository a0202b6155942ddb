/**
 * An AHCI host adapter with six ports, each with at most one drive. Serial ATA AHCI 1.3.1; FIS formats: Serial ATA 3.0,
 * 10.3.
 *
 * Registers are served where the access happens. A port's commands are carried out by the I/O thread of its drive
 * (`process`), one after the other, queued ones as well: what a driver may have outstanding at once is then in
 * `PxCI`, and nothing else has to be kept. A port that is stopped or reset meanwhile (`epoch`) makes a result void.
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { struct, u32, type View } from '../memory/struct.ts';
import { ATA_ABRT, ATA_BSY, ATA_DRDY, ATA_DRQ, ATA_DSC, ATA_ERR, ATA_IDNF, ataCommand, SECTOR, TRIM_BLOCKS_MAX } from './ata.ts';
import { type AtaDrive, ScatterData, type TaskFile } from './ata-drive.ts';
import { ScatterList } from './scatter.ts';
import type { Locked } from './virtio/device.ts';
import { PUT_BACK } from './virtio/disk.ts';

export const AHCI_PORTS = 6;
export const AHCI_BAR_BYTES = 4096;
const SLOTS = 32;

/** Generic host control. AHCI 3.1. */
const CAP = 0x00;
const GHC = 0x04;
const IS = 0x08;
const PI = 0x0c;
const VS = 0x10;
const GHC_RESET = 1;
const GHC_IRQ = 2;
const GHC_AHCI = 0x80000000;
/** 64-bit addresses, native queueing, staggered spin-up off, 3 Gb/s, AHCI only, 32 slots. */
const CAP_VALUE = (0x80000000 | 0x40000000 | (2 << 20) | (1 << 18) | ((SLOTS - 1) << 8) | (AHCI_PORTS - 1)) >>> 0;
const VERSION = 0x00010301;

/** Port registers. AHCI 3.3. */
const PORTS_AT = 0x100;
const PORT_BYTES = 0x80;
const PX_CLB = 0x00;
const PX_CLBU = 0x04;
const PX_FB = 0x08;
const PX_FBU = 0x0c;
const PX_IS = 0x10;
const PX_IE = 0x14;
const PX_CMD = 0x18;
const PX_TFD = 0x20;
const PX_SIG = 0x24;
const PX_SSTS = 0x28;
const PX_SCTL = 0x2c;
const PX_SERR = 0x30;
const PX_SACT = 0x34;
const PX_CI = 0x38;

const CMD_ST = 0x0001;
const CMD_SUD = 0x0002;
const CMD_POD = 0x0004;
const CMD_CLO = 0x0008;
const CMD_FRE = 0x0010;
const CMD_FR = 0x4000;
const CMD_CR = 0x8000;
const CMD_WRITABLE = 0x0f000017;

const IS_DHRS = 0x01;
const IS_PSS = 0x02;
const IS_SDBS = 0x08;
const IS_PCS = 0x40;
const IS_OFS = 0x01000000;
const IS_TFES = 0x40000000;

/** A device is there and the link is up, at 3 Gb/s, active. */
const LINK_UP = 0x123;
const SERR_EXCHANGED = 0x04000000;

/** Where FISes go in the receive area. AHCI 4.2.1. */
const RX_PIO_SETUP = 0x20;
const RX_D2H = 0x40;
const RX_SDB = 0x58;

const HEADER_BYTES = 32;
/** A packet command, in the first word of a header. AHCI 4.2.2. */
const COMMAND_ATAPI = 0x20;
const PRDT_AT = 0x80;
const ATAPI_AT = 0x40;
/** Bytes that one command may move: a driver that names more is refused what lies beyond. */
const TRANSFER_MAX = 32 << 20;

export const ahciState = struct('ahci', 1, { control: u32, status: u32 });

export const ahciPortState = struct('ahci-port', 1, {
  clb: u32,
  clbHigh: u32,
  fb: u32,
  fbHigh: u32,
  status: u32,
  enable: u32,
  command: u32,
  tfd: u32,
  sig: u32,
  control: u32,
  error: u32,
  sact: u32,
  ci: u32,
  epoch: u32,
  /** The signature FIS waits for the driver to enable its reception. */
  signPending: u32,
  /** Nonzero between the two FISes of a software reset. */
  inReset: u32,
  /** Slot that the thread works on, plus one. */
  active: u32,
  /** After an error no command is taken until the driver has started the port anew. */
  halted: u32,
});

export interface AhciWires {
  readonly memory: GuestMemory;
  /** Drives by port. */
  readonly drives: readonly (AtaDrive | undefined)[];
  /** Wakes the I/O thread of a port's drive. */
  ring(port: number): void;
  /** The level of the interrupt, and `message` where it rises anew (for MSI). */
  irq(level: boolean): void;
  message(): void;
}

export class Ahci implements IoHandler {
  readonly #s: View<typeof ahciState.fields>;
  readonly #ports: readonly View<typeof ahciPortState.fields>[];
  readonly #wires: AhciWires;

  constructor(state: View<typeof ahciState.fields>, ports: readonly View<typeof ahciPortState.fields>[], wires: AhciWires) {
    this.#s = state;
    this.#ports = ports;
    this.#wires = wires;
  }

  reset(): void {
    for (const drive of this.#wires.drives) drive?.reset();
    this.#hostReset();
  }

  #hostReset(): void {
    this.#s.control = GHC_AHCI;
    this.#s.status = 0;
    for (const [n, p] of this.#ports.entries()) {
      p.clb = p.clbHigh = p.fb = p.fbHigh = 0;
      p.status = p.enable = 0;
      p.command = CMD_SUD | CMD_POD;
      p.control = 0;
      this.#portReset(n);
    }
    this.#update();
  }

  /** The link comes up anew. */
  #portReset(n: number): void {
    const p = this.#ports[n];
    const drive = this.#wires.drives[n];
    p.epoch = (p.epoch + 1) >>> 0;
    p.sact = p.ci = 0;
    p.active = p.inReset = p.halted = 0;
    p.sig = 0xffffffff;
    p.tfd = drive === undefined ? 0x7f : ATA_DRDY | ATA_DSC;
    p.error = 0;
    p.signPending = 0;
    if (drive === undefined) return;
    p.error = SERR_EXCHANGED;
    p.signPending = 1;
    this.#sign(n);
  }

  /** Sends the signature once its reception is enabled. */
  #sign(n: number): void {
    const p = this.#ports[n];
    const drive = this.#wires.drives[n];
    if (drive === undefined || p.signPending === 0) return;
    const { count, lba } = drive.signature;
    p.sig = ((lba << 8) | count) >>> 0;
    p.tfd = 0x100 | (drive.cdrom === undefined ? ATA_DRDY | ATA_DSC : 0);
    if ((p.command & CMD_FRE) === 0) return;
    p.signPending = 0;
    this.#sendD2h(n, { features: 0, count, lba, device: 0 }, false);
  }

  #update(): void {
    const s = this.#s;
    let status = 0;
    for (const [n, p] of this.#ports.entries()) if ((p.status & p.enable) !== 0) status |= 1 << n;
    // IS bits are set by ports and cleared by the driver alone.
    const before = s.status;
    s.status = (s.status | status) >>> 0;
    const level = (s.control & GHC_IRQ) !== 0 && s.status !== 0;
    this.#wires.irq(level);
    if (level && s.status !== before) this.#wires.message();
  }

  // --- registers --------------------------------------------------------------------------------------------------

  read(offset: number, size: AccessSize): number {
    const word = this.#readWord(offset & ~3);
    return (word >>> ((offset & 3) * 8)) & (size === 4 ? -1 : size === 2 ? 0xffff : 0xff);
  }

  #readWord(offset: number): number {
    const s = this.#s;
    if (offset >= PORTS_AT) {
      const p = this.#ports[Math.floor((offset - PORTS_AT) / PORT_BYTES)];
      return p === undefined
        ? 0
        : this.#readPort(p, Math.floor((offset - PORTS_AT) / PORT_BYTES), (offset - PORTS_AT) % PORT_BYTES);
    }
    switch (offset) {
      case CAP:
        return CAP_VALUE;
      case GHC:
        return s.control;
      case IS:
        return s.status;
      case PI:
        return (1 << AHCI_PORTS) - 1;
      case VS:
        return VERSION;
      default:
        return 0;
    }
  }

  #readPort(p: View<typeof ahciPortState.fields>, n: number, register: number): number {
    switch (register) {
      case PX_CLB:
        return p.clb;
      case PX_CLBU:
        return p.clbHigh;
      case PX_FB:
        return p.fb;
      case PX_FBU:
        return p.fbHigh;
      case PX_IS:
        return p.status;
      case PX_IE:
        return p.enable;
      case PX_CMD: {
        let value = p.command;
        if ((value & CMD_ST) !== 0) value |= CMD_CR;
        if ((value & CMD_FRE) !== 0) value |= CMD_FR;
        if (p.active !== 0) value |= ((p.active - 1) & 31) << 8;
        return value;
      }
      case PX_TFD:
        return p.tfd;
      case PX_SIG:
        return p.sig;
      case PX_SSTS:
        return this.#wires.drives[n] === undefined || (p.control & 0xf) === 4 ? 0 : (p.control & 0xf) === 1 ? 1 : LINK_UP;
      case PX_SCTL:
        return p.control;
      case PX_SERR:
        return p.error;
      case PX_SACT:
        return p.sact;
      case PX_CI:
        return p.ci;
      default:
        return 0;
    }
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) return; // registers are whole dwords. AHCI 3
    const s = this.#s;
    if (offset >= PORTS_AT) {
      const n = Math.floor((offset - PORTS_AT) / PORT_BYTES);
      if (n < AHCI_PORTS) this.#writePort(n, (offset - PORTS_AT) % PORT_BYTES, value);
      return;
    }
    if (offset === GHC) {
      if ((value & GHC_RESET) !== 0) this.#hostReset();
      else s.control = (GHC_AHCI | (value & GHC_IRQ)) >>> 0;
    } else if (offset === IS) s.status = (s.status & ~value) >>> 0;
    this.#update();
  }

  #writePort(n: number, register: number, value: number): void {
    const p = this.#ports[n];
    switch (register) {
      case PX_CLB:
        p.clb = value & ~0x3ff;
        break;
      case PX_CLBU:
        p.clbHigh = value;
        break;
      case PX_FB:
        p.fb = value & ~0xff;
        break;
      case PX_FBU:
        p.fbHigh = value;
        break;
      case PX_IS:
        p.status &= ~value;
        break;
      case PX_IE:
        p.enable = value & 0xfdc000ff;
        break;
      case PX_CMD:
        this.#writeCommand(n, value);
        break;
      case PX_SCTL: {
        const before = p.control & 0xf;
        p.control = value & 0xfff;
        // COMRESET begins with 1 and the link comes up when it ends. AHCI 10.4.2.
        if (before === 1 && (value & 0xf) === 0) this.#portReset(n);
        break;
      }
      case PX_SERR:
        p.error &= ~value;
        break;
      case PX_SACT:
        if ((p.command & CMD_ST) !== 0) p.sact |= value;
        break;
      case PX_CI:
        if ((p.command & CMD_ST) !== 0) {
          p.ci |= value;
          this.#wires.ring(n);
        }
        break;
    }
    this.#update();
  }

  #writeCommand(n: number, value: number): void {
    const p = this.#ports[n];
    const before = p.command;
    p.command = ((value & CMD_WRITABLE) | CMD_SUD | CMD_POD) >>> 0;
    if ((value & CMD_CLO) !== 0) p.tfd &= ~(ATA_BSY | ATA_DRQ);
    if ((p.command & CMD_ST) === 0 && (before & CMD_ST) !== 0) {
      // A port that is stopped forgets what it was given. AHCI 3.3.7, 10.3.2.
      p.epoch = (p.epoch + 1) >>> 0;
      p.ci = p.sact = 0;
      p.active = p.halted = 0;
      p.tfd &= ~(ATA_BSY | ATA_DRQ);
    }
    if ((p.command & CMD_FRE) !== 0) this.#sign(n);
  }

  // --- FISes ------------------------------------------------------------------------------------------------------

  #receive(n: number, at: number, bytes: Uint8Array): void {
    const p = this.#ports[n];
    if ((p.command & CMD_FRE) !== 0) this.#wires.memory.write(address(p.fbHigh, p.fb) + at, bytes);
  }

  #d2h(type: number, flags: number, tfd: number, task: TaskFile): Uint8Array {
    const fis = new Uint8Array(20);
    const { lba, count } = task;
    fis.set([type, flags, tfd & 0xff, (tfd >> 8) & 0xff, lba & 0xff, (lba >>> 8) & 0xff, (lba >>> 16) & 0xff, task.device]);
    const high = Math.floor(lba / 2 ** 24);
    fis.set([high & 0xff, (high >>> 8) & 0xff, (high >>> 16) & 0xff, 0, count & 0xff, (count >> 8) & 0xff], 8);
    return fis;
  }

  /** The device's registers after a command. */
  #sendD2h(n: number, task: TaskFile, interrupt: boolean): void {
    const p = this.#ports[n];
    this.#receive(n, RX_D2H, this.#d2h(0x34, interrupt ? 0x40 : 0, p.tfd, task));
    if (interrupt) p.status |= IS_DHRS;
    if ((p.tfd & ATA_ERR) !== 0) p.status |= IS_TFES;
  }

  // --- on the I/O thread ------------------------------------------------------------------------------------------

  /** Carries a command of port `n` out; returns whether there may be more at once. */
  process(n: number, locked: Locked): boolean {
    const p = this.#ports[n];
    const drive = this.#wires.drives[n];
    const { memory } = this.#wires;
    const job = locked(() => {
      if (drive === undefined || p.ci === 0 || p.halted !== 0 || (p.command & CMD_ST) === 0) return undefined;
      const slot = 31 - Math.clz32(p.ci & -p.ci);
      p.active = slot + 1;
      const header = new Uint8Array(HEADER_BYTES);
      memory.read(address(p.clbHigh, p.clb) + slot * HEADER_BYTES, header);
      p.tfd |= ATA_BSY;
      return { slot, epoch: p.epoch, header: new DataView(header.buffer) };
    });
    if (job === undefined || drive === undefined) return false;
    const { slot, header, epoch } = job;
    const flags = header.getUint16(0, true);
    const entries = header.getUint16(2, true);
    const tableAt = address(header.getUint32(12, true), header.getUint32(8, true) & ~0x7f);
    const fis = new Uint8Array(20);
    memory.read(tableAt, fis);
    const end = (body: () => void): boolean => {
      locked(() => {
        if (p.epoch !== epoch) return;
        p.active = 0;
        body();
        this.#update();
      });
      return true;
    };
    if (fis[0] !== 0x27) return end(() => this.#finish(n, slot, ATA_ABRT, emptyTask()));
    if ((fis[1] & 0x80) === 0) return end(() => this.#softReset(n, slot, fis[15]));
    const { list, overflow } = this.#list(tableAt + PRDT_AT, entries);
    let result: Outcome;
    try {
      result = this.#carryOut(drive, fis, list, tableAt, (flags & COMMAND_ATAPI) !== 0);
    } catch (problem) {
      if (problem !== PUT_BACK) throw problem;
      locked(() => {
        if (p.epoch === epoch) p.active = 0;
      });
      return false;
    }
    return end(() => {
      memory.write32(address(p.clbHigh, p.clb) + slot * HEADER_BYTES + 4, result.moved);
      if (overflow || result.short) p.status |= IS_OFS;
      if (result.queued && result.error === 0) this.#finishQueued(n, slot);
      else {
        if (result.pioIn && result.error === 0) this.#sendPioSetup(n, result);
        this.#finish(n, slot, result.error, result.task);
      }
    });
  }

  /** The memory that a command names. AHCI 4.2.3.3. */
  #list(at: number, entries: number): { list: ScatterList; overflow: boolean } {
    const { memory } = this.#wires;
    const list = new ScatterList(memory);
    for (let n = 0; n < entries; n++) {
      const entry = at + n * 16;
      const length = (memory.read32(entry + 12) & 0x3fffff) + 1;
      if (list.bytes + length > TRANSFER_MAX) return { list, overflow: true };
      const high = memory.read32(entry + 4);
      if (high < 2 ** 20) list.add(address(high, memory.read32(entry) & ~1), length);
    }
    return { list, overflow: false };
  }

  #carryOut(drive: AtaDrive, fis: Uint8Array, list: ScatterList, table: number, atapi: boolean): Outcome {
    const command = ataCommand(fis[2]);
    const task: TaskFile = {
      features: fis[3] | (fis[11] << 8),
      count: fis[12] | (fis[13] << 8),
      lba: (fis[4] | (fis[5] << 8) | (fis[6] << 16)) + (fis[8] | (fis[9] << 8) | (fis[10] << 16)) * 2 ** 24,
      device: fis[7],
    };
    const fail = (error: number): Outcome => ({ error, moved: 0, task });
    if (command === undefined || !drive.knows(command)) return fail(ATA_ABRT);
    const { what, protocol } = command;
    const queued = protocol === 'queued-in' || protocol === 'queued-out';
    // Queued commands have their count in the features registers.
    const where: TaskFile = queued ? { ...task, count: task.features } : task;
    if (!command.ext) where.lba %= 2 ** 24;
    switch (what) {
      case 'identify':
      case 'identify-packet':
        return { error: 0, moved: list.write(0, drive.identify()), task, pioIn: true };
      case 'read':
      case 'write': {
        const range = drive.range(command, where);
        if (range === undefined) return { ...fail(ATA_IDNF | ATA_ABRT), queued };
        const bytes = range.count * SECTOR;
        if (list.bytes < bytes) return { ...fail(ATA_ABRT), queued, short: true };
        const fua = command.fua === true || (queued && (task.device & 0x80) !== 0);
        const error = what === 'read' ? drive.read(range.lba, range.count, list) : drive.write(range.lba, range.count, list, fua);
        return { error, moved: error === 0 ? bytes : 0, task, queued, pioIn: protocol === 'pio-in' };
      }
      case 'trim': {
        const blocks = task.count;
        if ((task.features & 1) === 0 || blocks === 0 || blocks > TRIM_BLOCKS_MAX || list.bytes < blocks * SECTOR)
          return fail(ATA_ABRT);
        const data = new Uint8Array(blocks * SECTOR);
        list.read(0, data);
        const error = drive.trim(data);
        return { error, moved: error === 0 ? data.length : 0, task };
      }
      case 'flush':
        return fail(drive.flush());
      case 'packet': {
        if (!atapi) return fail(ATA_ABRT);
        const packet = new Uint8Array(16);
        this.#wires.memory.read(table + ATAPI_AT, packet);
        const out = packet[0] === 0x55 || packet[0] === 0x15;
        const { sense, moved } = drive.packet(packet, new ScatterData(list, out));
        const reason = { ...task, count: 3 };
        if (sense === 0) return { error: 0, moved, task: reason, pioIn: (task.features & 1) === 0 && moved > 0 };
        return { error: ((sense >> 16) << 4) | ATA_ABRT, moved: 0, task: reason };
      }
      case 'diagnostic':
        return { error: 0, moved: 0, task: { ...task, ...drive.signature } };
      default:
        return fail(drive.control(command, where));
    }
  }

  /** A software reset is two FISes of the control kind: SRST set, then clear. AHCI 10.4.1. */
  #softReset(n: number, slot: number, control: number): void {
    const p = this.#ports[n];
    p.ci &= ~(1 << slot);
    p.tfd &= ~ATA_BSY;
    if ((control & 4) !== 0) {
      p.inReset = 1;
      return;
    }
    if (p.inReset === 0) return;
    p.inReset = 0;
    p.signPending = 1;
    this.#sign(n);
  }

  #finish(n: number, slot: number, error: number, task: TaskFile): void {
    const p = this.#ports[n];
    p.tfd = error === 0 ? ATA_DRDY | ATA_DSC : (error << 8) | ATA_DRDY | ATA_DSC | ATA_ERR;
    if (error === 0) p.ci &= ~(1 << slot);
    else p.halted = 1;
    this.#sendD2h(n, task, true);
  }

  /** Set Device Bits: a queued command is done. */
  #finishQueued(n: number, slot: number): void {
    const p = this.#ports[n];
    p.tfd = ATA_DRDY | ATA_DSC;
    p.ci &= ~(1 << slot);
    p.sact &= ~(1 << slot);
    const fis = new Uint8Array(8);
    fis.set([0xa1, 0x40, p.tfd & 0x77, 0]);
    new DataView(fis.buffer).setUint32(4, (1 << slot) >>> 0, true);
    this.#receive(n, RX_SDB, fis);
    p.status |= IS_SDBS;
  }

  #sendPioSetup(n: number, { task, moved }: Outcome): void {
    const p = this.#ports[n];
    const fis = this.#d2h(0x5f, 0x60, ATA_DRDY | ATA_DSC | ATA_DRQ, task);
    fis[15] = ATA_DRDY | ATA_DSC;
    fis[16] = moved & 0xff;
    fis[17] = (moved >> 8) & 0xff;
    this.#receive(n, RX_PIO_SETUP, fis);
    p.status |= IS_PSS;
  }

  /** A drive came or went. */
  plugged(n: number): void {
    this.#portReset(n);
    this.#ports[n].status |= IS_PCS;
    this.#update();
  }
}

/** How a command ended. */
interface Outcome {
  readonly error: number;
  readonly moved: number;
  readonly task: TaskFile;
  readonly queued?: boolean;
  readonly pioIn?: boolean;
  /** The command names less memory than it moves. */
  readonly short?: boolean;
}

/** A physical address of two words. */
const address = (high: number, low: number): number => high * 2 ** 32 + (low >>> 0);

const emptyTask = (): TaskFile => ({ features: 0, count: 0, lba: 0, device: 0 });
