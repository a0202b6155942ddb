/**
 * An NVMe controller with one namespace of 512-byte or larger blocks. NVM Express base specification 1.3 (chapter and
 * section numbers are of that version).
 *
 * Registers and doorbells are served where the access happens; commands, those of the admin queue too, are carried out
 * one by one by the I/O thread (`process`), which takes the machine lock to fetch an entry and to post its completion.
 * A controller that is disabled meanwhile (`epoch`) makes a result void.
 */
import type { AccessSize, IoHandler } from '../bus/io.ts';
import type { GuestMemory } from '../memory/guest-memory.ts';
import { struct, u32, u32s, type View } from '../memory/struct.ts';
import { identifyController, identifyNamespace, type NvmeIdentity, namespaceDescriptors, smartLog } from './nvme-data.ts';
import { ScatterList } from './scatter.ts';
import type { Locked } from './virtio/device.ts';
import { type Disk, type DiskErrorPolicy, PUT_BACK, underPolicy } from './virtio/disk.ts';

/** Queue pairs with the admin pair. */
export const NVME_QUEUES_MAX = 65;
export const NVME_BAR_BYTES = 16384;
export const NVME_MSIX_TABLE_AT = 0x2000;
export const NVME_MSIX_PBA_AT = 0x3000;
const DOORBELLS_AT = 0x1000;

/** Registers. NVMe 3.1. */
const CAP_LOW = 0x00;
const CAP_HIGH = 0x04;
const VS = 0x08;
const INTMS = 0x0c;
const INTMC = 0x10;
const CC = 0x14;
const CSTS = 0x1c;
const AQA = 0x24;
const ASQ = 0x28;
const ACQ = 0x30;

/** Entries of a queue at most, contiguous queues, timeout of 7.5 s; NVM command set, pages of 4 KiB. */
const ENTRIES_MAX = 2048;
const CAP_LOW_VALUE = (15 << 24) | (1 << 16) | (ENTRIES_MAX - 1);
const CAP_HIGH_VALUE = 1 << 5;
const VERSION = 0x00010300;
const CC_ENABLE = 1;
const CC_SHUTDOWN = 0xc000;
const CSTS_READY = 1;
const CSTS_FAILED = 2;
const CSTS_SHUTDOWN_DONE = 8;

const PAGE = 4096;
const SQ_BYTES = 64;
const CQ_BYTES = 16;
/** Asynchronous event requests that may wait at once. */
const EVENTS_MAX = 4;
/** Bytes that one command moves at most: 2^MDTS pages. */
export const NVME_MDTS = 7;
const TRANSFER_MAX = PAGE << NVME_MDTS;
const DSM_RANGES_MAX = 256;

/** Status: type in the high byte, code in the low one. NVMe 4.6.1. */
const OK = 0;
const INVALID_OPCODE = 0x001;
const INVALID_FIELD = 0x002;
const INTERNAL_ERROR = 0x006;
const INVALID_NAMESPACE = 0x00b;
const BAD_PRP = 0x013;
const LBA_OUT_OF_RANGE = 0x080;
const BAD_CQ = 0x100;
const BAD_QID = 0x101;
const BAD_QSIZE = 0x102;
const TOO_MANY_EVENTS = 0x105;
const BAD_VECTOR = 0x108;
const BAD_LOG = 0x109;
const BAD_DELETION = 0x10c;
const WRITE_FAULT = 0x280;
const READ_ERROR = 0x281;
const ACCESS_DENIED = 0x182; // attempted write to a read-only range
/** No answer now: the request stays. */
const NO_ANSWER = -1;

export const nvmeState = struct('nvme', 1, {
  cc: u32,
  csts: u32,
  masked: u32,
  adminSizes: u32,
  adminSq: u32s(2),
  adminCq: u32s(2),
  epoch: u32,
  /** Bytes of the disk, in two words. */
  sizeLow: u32,
  sizeHigh: u32,
  writeThrough: u32,
  eventConfig: u32,
  events: u32,
  eventIds: u32s(EVENTS_MAX),
  /** Submission queues: entries (0: none), address, head, tail, completion queue. */
  sqSize: u32s(NVME_QUEUES_MAX),
  sqLow: u32s(NVME_QUEUES_MAX),
  sqHigh: u32s(NVME_QUEUES_MAX),
  sqHead: u32s(NVME_QUEUES_MAX),
  sqTail: u32s(NVME_QUEUES_MAX),
  sqCq: u32s(NVME_QUEUES_MAX),
  /** Completion queues; `cqFlags`: 1 phase, 2 interrupts. */
  cqSize: u32s(NVME_QUEUES_MAX),
  cqLow: u32s(NVME_QUEUES_MAX),
  cqHigh: u32s(NVME_QUEUES_MAX),
  cqHead: u32s(NVME_QUEUES_MAX),
  cqTail: u32s(NVME_QUEUES_MAX),
  cqFlags: u32s(NVME_QUEUES_MAX),
  cqVector: u32s(NVME_QUEUES_MAX),
});

export interface NvmeOptions {
  readonly identity: NvmeIdentity;
  /** Pairs with the admin pair. */
  readonly queues: number;
  /** Bytes; a power of two from 512. */
  readonly blockSize: number;
  readonly readOnly: boolean;
  readonly disk: () => Disk | undefined;
  readonly errorPolicy?: DiskErrorPolicy;
}

export interface NvmeWires {
  readonly memory: GuestMemory;
  /** Wakes the I/O thread. */
  ring(): void;
  /** Level of the pin, where MSI-X is off. */
  irq(level: boolean): void;
  message(vector: number): void;
  readonly messages: () => boolean;
}

interface Submission {
  readonly queue: number;
  readonly view: DataView;
  readonly epoch: number;
}

interface Answer {
  readonly status: number;
  readonly result?: number;
}

export class Nvme implements IoHandler {
  readonly #s: View<typeof nvmeState.fields>;
  readonly #options: NvmeOptions;
  readonly #wires: NvmeWires;

  constructor(state: View<typeof nvmeState.fields>, options: NvmeOptions, wires: NvmeWires) {
    this.#s = state;
    this.#options = options;
    this.#wires = wires;
  }

  reset(): void {
    const s = this.#s;
    s.cc = 0;
    s.adminSizes = 0;
    s.adminSq.fill(0);
    s.adminCq.fill(0);
    this.#disable();
  }

  setSize(bytes: number): void {
    this.#s.sizeLow = bytes % 2 ** 32;
    this.#s.sizeHigh = Math.floor(bytes / 2 ** 32);
  }

  get #blocks(): number {
    const s = this.#s;
    return Math.floor((s.sizeHigh * 2 ** 32 + s.sizeLow) / this.#options.blockSize);
  }

  /** A controller reset: no queues. NVMe 7.3.2. */
  #disable(): void {
    const s = this.#s;
    s.epoch = (s.epoch + 1) >>> 0;
    s.csts = 0;
    s.masked = 0;
    s.events = 0;
    s.eventConfig = 0;
    s.writeThrough = 0;
    s.sqSize.fill(0);
    s.cqSize.fill(0);
    this.#wires.irq(false);
  }

  #enable(): void {
    const s = this.#s;
    const sqEntries = (s.adminSizes & 0xfff) + 1;
    const cqEntries = ((s.adminSizes >>> 16) & 0xfff) + 1;
    // Pages of 4 KiB, the NVM command set, entries of 64 and 16 bytes.
    if ((s.cc & 0x7f0) !== 0 || sqEntries < 2 || cqEntries < 2) {
      s.csts = CSTS_FAILED;
      return;
    }
    this.#openSq(0, sqEntries, s.adminSq[0], s.adminSq[1], 0);
    this.#openCq(0, cqEntries, s.adminCq[0], s.adminCq[1], 0, true);
    s.csts = CSTS_READY;
  }

  #openSq(n: number, entries: number, low: number, high: number, cq: number): void {
    const s = this.#s;
    s.sqSize[n] = entries;
    s.sqLow[n] = low & ~0xfff;
    s.sqHigh[n] = high;
    s.sqHead[n] = s.sqTail[n] = 0;
    s.sqCq[n] = cq;
  }
  #openCq(n: number, entries: number, low: number, high: number, vector: number, interrupts: boolean): void {
    const s = this.#s;
    s.cqSize[n] = entries;
    s.cqLow[n] = low & ~0xfff;
    s.cqHigh[n] = high;
    s.cqHead[n] = s.cqTail[n] = 0;
    s.cqFlags[n] = interrupts ? 2 : 0;
    s.cqVector[n] = vector;
  }

  // --- registers --------------------------------------------------------------------------------------------------

  read(offset: number, size: AccessSize): number {
    const word = this.#readWord(offset & ~3);
    return (word >>> ((offset & 3) * 8)) & (size === 4 ? -1 : size === 2 ? 0xffff : 0xff);
  }

  #readWord(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case CAP_LOW:
        return CAP_LOW_VALUE;
      case CAP_HIGH:
        return CAP_HIGH_VALUE;
      case VS:
        return VERSION;
      case INTMS:
      case INTMC:
        return s.masked;
      case CC:
        return s.cc;
      case CSTS:
        return s.csts;
      case AQA:
        return s.adminSizes;
      case ASQ:
      case ASQ + 4:
        return s.adminSq[(offset - ASQ) >> 2];
      case ACQ:
      case ACQ + 4:
        return s.adminCq[(offset - ACQ) >> 2];
      default:
        return 0;
    }
  }

  write(offset: number, size: AccessSize, value: number): void {
    if (size !== 4 || (offset & 3) !== 0) return;
    const s = this.#s;
    if (offset >= DOORBELLS_AT) {
      this.#doorbell((offset - DOORBELLS_AT) >> 2, value);
      return;
    }
    switch (offset) {
      case INTMS:
        s.masked |= value;
        this.#updatePin();
        break;
      case INTMC:
        s.masked &= ~value;
        this.#updatePin();
        break;
      case CC: {
        const before = s.cc;
        s.cc = value;
        if ((value & CC_ENABLE) === 0 && (before & CC_ENABLE) !== 0) this.#disable();
        if ((value & CC_ENABLE) !== 0 && (before & CC_ENABLE) === 0) this.#enable();
        // Whoever shuts down has flushed, or takes what a power cut leaves; nothing is held back here.
        if ((value & CC_SHUTDOWN) !== 0) s.csts |= CSTS_SHUTDOWN_DONE;
        else s.csts &= ~CSTS_SHUTDOWN_DONE;
        break;
      }
      case AQA:
        s.adminSizes = value & 0x0fff0fff;
        break;
      case ASQ:
      case ASQ + 4:
        s.adminSq[(offset - ASQ) >> 2] = value;
        break;
      case ACQ:
      case ACQ + 4:
        s.adminCq[(offset - ACQ) >> 2] = value;
        break;
    }
  }

  #doorbell(index: number, value: number): void {
    const s = this.#s;
    const n = index >> 1;
    if ((s.csts & CSTS_READY) === 0 || n >= NVME_QUEUES_MAX) return;
    if ((index & 1) === 0) {
      // A tail that is no entry is an error of the driver without an answer.
      if (value >= s.sqSize[n]) return;
      s.sqTail[n] = value;
    } else {
      if (value >= s.cqSize[n]) return;
      s.cqHead[n] = value;
      this.#updatePin();
    }
    this.#wires.ring();
  }

  #updatePin(): void {
    const s = this.#s;
    if (this.#wires.messages()) return;
    let level = false;
    for (let n = 0; n < NVME_QUEUES_MAX; n++) {
      if (s.cqSize[n] === 0 || s.cqHead[n] === s.cqTail[n] || (s.cqFlags[n] & 2) === 0) continue;
      if ((s.masked & (1 << (s.cqVector[n] & 31))) === 0) level = true;
    }
    this.#wires.irq(level);
  }

  // --- queues -----------------------------------------------------------------------------------------------------

  /** Takes the next entry of queue `n` that can be answered, or undefined. The lock is held. */
  #fetch(n: number): Submission | undefined {
    const s = this.#s;
    if ((s.csts & CSTS_READY) === 0 || s.sqSize[n] === 0 || s.sqHead[n] === s.sqTail[n]) return undefined;
    const cq = s.sqCq[n];
    if (s.cqSize[cq] === 0 || (s.cqTail[cq] + 1) % s.cqSize[cq] === s.cqHead[cq]) return undefined;
    const entry = new Uint8Array(SQ_BYTES);
    this.#wires.memory.read(s.sqHigh[n] * 2 ** 32 + s.sqLow[n] + s.sqHead[n] * SQ_BYTES, entry);
    s.sqHead[n] = (s.sqHead[n] + 1) % s.sqSize[n];
    return { queue: n, view: new DataView(entry.buffer), epoch: s.epoch };
  }

  /** Posts a completion. The lock is held. NVMe 4.6. */
  #post(queue: number, id: number, { status, result = 0 }: Answer): void {
    const s = this.#s;
    const { memory } = this.#wires;
    const cq = s.sqCq[queue];
    if (s.cqSize[cq] === 0) return;
    const at = s.cqHigh[cq] * 2 ** 32 + s.cqLow[cq] + s.cqTail[cq] * CQ_BYTES;
    const phase = (s.cqFlags[cq] & 1) === 0 ? 1 : 0;
    memory.write32(at, result);
    memory.write32(at + 4, 0);
    memory.write32(at + 8, (queue << 16) | s.sqHead[queue]);
    // The phase goes last: a driver polls it. No retry where the command itself is wrong.
    const more = status !== OK && status < 0x280 ? 0x4000 : 0;
    memory.write32(at + 12, ((((status & 0x7ff) | more) << 17) | (phase << 16) | id) >>> 0);
    s.cqTail[cq] = (s.cqTail[cq] + 1) % s.cqSize[cq];
    if (s.cqTail[cq] === 0) s.cqFlags[cq] ^= 1;
    if ((s.cqFlags[cq] & 2) === 0) return;
    if (this.#wires.messages()) this.#wires.message(s.cqVector[cq]);
    else this.#updatePin();
  }

  // --- on the I/O thread ------------------------------------------------------------------------------------------

  /** Serves all queues in turn, at most `budget` commands each; returns whether there may be more at once. */
  process(budget: number, locked: Locked): boolean {
    const s = this.#s;
    let more = false;
    for (let n = 0; n < this.#options.queues; n++) {
      if (s.sqSize[n] === 0) continue;
      let done: { readonly job: Submission; readonly answer: Answer } | undefined;
      for (let left = budget; ; left--) {
        const job: Submission | undefined = locked(() => {
          if (done !== undefined && done.answer.status !== NO_ANSWER && s.epoch === done.job.epoch)
            this.#post(n, done.job.view.getUint16(2, true), done.answer);
          return left > 0 ? this.#fetch(n) : undefined;
        });
        if (job === undefined) {
          more = more || left <= 0;
          break;
        }
        try {
          done = { job, answer: n === 0 ? locked(() => this.#admin(job)) : this.#command(job.view) };
        } catch (problem) {
          if (problem !== PUT_BACK) throw problem;
          locked(() => {
            if (s.epoch === job.epoch) s.sqHead[n] = (s.sqHead[n] + s.sqSize[n] - 1) % s.sqSize[n];
          });
          return false;
        }
      }
    }
    return more;
  }

  /** The pages of a command's data, or undefined where they are wrong. NVMe 4.3. */
  #pages(view: DataView, length: number): ScatterList | undefined {
    const { memory } = this.#wires;
    const list = new ScatterList(memory);
    const get = (at: number): number => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    const add = (address: number, bytes: number): boolean => {
      if (address + bytes > 2 ** 52) return false;
      list.add(address, bytes);
      return true;
    };
    // PSDT: lists of the scatter-gather kind are not offered.
    if ((view.getUint8(1) & 0xc0) !== 0 || length > TRANSFER_MAX) return undefined;
    const first = get(24);
    const head = Math.min(length, PAGE - (first % PAGE));
    if ((first & 3) !== 0 || !add(first, head)) return undefined;
    let left = length - head;
    const second = get(32);
    if (left === 0) return list;
    if (left <= PAGE) return second % PAGE === 0 && add(second, left) ? list : undefined;
    if ((second & 7) !== 0) return undefined;
    for (let at = second; left > 0; at += 8) {
      let entry = memory.read64(at);
      // The last entry of a page of the list leads to the next page of it.
      if (at % PAGE === PAGE - 8 && left > PAGE) {
        if (entry % PAGE !== 0) return undefined;
        at = entry;
        entry = memory.read64(at);
      }
      const bytes = Math.min(left, PAGE);
      if (entry % PAGE !== 0 || !add(entry, bytes)) return undefined;
      left -= bytes;
    }
    return list;
  }

  // --- NVM commands. NVMe 6 ---------------------------------------------------------------------------------------

  #command(view: DataView): Answer {
    const { blockSize, readOnly } = this.#options;
    const opcode = view.getUint8(0);
    const namespace = view.getUint32(4, true);
    if (namespace !== 1 && !(opcode === 0 && namespace === 0xffffffff)) return { status: INVALID_NAMESPACE };
    const lba = view.getUint32(44, true) * 2 ** 32 + view.getUint32(40, true);
    const blocks = view.getUint16(48, true) + 1;
    const fua = (view.getUint8(51) & 0x40) !== 0;
    const bytes = blocks * blockSize;
    const outside = lba + blocks > this.#blocks;
    switch (opcode) {
      case 0x00:
        return { status: readOnly || this.#try('write', (disk) => disk.flush()) ? OK : WRITE_FAULT };
      case 0x01: {
        if (outside) return { status: LBA_OUT_OF_RANGE };
        if (readOnly) return { status: ACCESS_DENIED };
        if (bytes > TRANSFER_MAX) return { status: INVALID_FIELD };
        const list = this.#pages(view, bytes);
        if (list === undefined) return { status: BAD_PRP };
        let ok = true;
        list.each(0, bytes, (data, at) => {
          ok = ok && this.#try('write', (disk) => disk.write(lba * blockSize + at, data));
        });
        return { status: ok && this.#settle(fua) ? OK : WRITE_FAULT };
      }
      case 0x02: {
        if (outside) return { status: LBA_OUT_OF_RANGE };
        if (bytes > TRANSFER_MAX) return { status: INVALID_FIELD };
        const list = this.#pages(view, bytes);
        if (list === undefined) return { status: BAD_PRP };
        let ok = true;
        list.eachInto(0, bytes, (data, at) => {
          ok = ok && this.#try('read', (disk) => disk.read(lba * blockSize + at, data));
        });
        return { status: ok ? OK : READ_ERROR };
      }
      case 0x08: {
        if (outside) return { status: LBA_OUT_OF_RANGE };
        if (readOnly) return { status: ACCESS_DENIED };
        const unmap = (view.getUint8(51) & 2) !== 0;
        const ok = this.#try('write', (disk) => disk.writeZeroes(lba * blockSize, bytes, unmap));
        return { status: ok && this.#settle(fua) ? OK : WRITE_FAULT };
      }
      case 0x09:
        return this.#datasetManagement(view);
      default:
        return { status: INVALID_OPCODE };
    }
  }

  /** Ranges of 16 bytes: attributes, length, first block. Each is checked before any takes effect. NVMe 6.7. */
  #datasetManagement(view: DataView): Answer {
    const { blockSize, readOnly } = this.#options;
    const count = view.getUint8(40) + 1;
    if ((view.getUint8(44) & 4) === 0) return { status: OK }; // hints only
    if (readOnly) return { status: ACCESS_DENIED };
    const list = count > DSM_RANGES_MAX ? undefined : this.#pages(view, count * 16);
    if (list === undefined) return { status: BAD_PRP };
    const data = new Uint8Array(count * 16);
    list.read(0, data);
    const ranges = new DataView(data.buffer);
    const wanted: { readonly offset: number; readonly bytes: number }[] = [];
    for (let n = 0; n < count; n++) {
      const blocks = ranges.getUint32(n * 16 + 4, true);
      const lba = ranges.getUint32(n * 16 + 12, true) * 2 ** 32 + ranges.getUint32(n * 16 + 8, true);
      if (lba + blocks > this.#blocks) return { status: LBA_OUT_OF_RANGE };
      if (blocks > 0) wanted.push({ offset: lba * blockSize, bytes: blocks * blockSize });
    }
    const ok = wanted.every(({ offset, bytes }) => this.#try('write', (disk) => disk.discard(offset, bytes)));
    return { status: ok && this.#settle(false) ? OK : WRITE_FAULT };
  }

  #settle(fua: boolean): boolean {
    return (!fua && this.#s.writeThrough === 0) || this.#try('write', (disk) => disk.flush());
  }
  #try(operation: 'read' | 'write', body: (disk: Disk) => void): boolean {
    const disk = this.#options.disk();
    return disk !== undefined && underPolicy(this.#options.errorPolicy, operation, () => body(disk));
  }

  // --- admin commands. NVMe 5; the lock is held -------------------------------------------------------------------

  #admin({ view }: Submission): Answer {
    const s = this.#s;
    const { queues } = this.#options;
    const word10 = view.getUint32(40, true);
    const word11 = view.getUint32(44, true);
    const id = word10 & 0xffff;
    const entries = (word10 >>> 16) + 1;
    const low = view.getUint32(24, true);
    const high = view.getUint32(28, true);
    switch (view.getUint8(0)) {
      case 0x00: // delete submission queue
        if (id === 0 || id >= queues || s.sqSize[id] === 0) return { status: BAD_QID };
        s.sqSize[id] = 0;
        return { status: OK };
      case 0x01: {
        const cq = word11 >>> 16;
        if (id === 0 || id >= queues || s.sqSize[id] !== 0) return { status: BAD_QID };
        if (cq === 0 || cq >= queues || s.cqSize[cq] === 0) return { status: BAD_CQ };
        if (entries < 2 || entries > ENTRIES_MAX) return { status: BAD_QSIZE };
        if ((word11 & 1) === 0 || low % PAGE !== 0) return { status: INVALID_FIELD };
        this.#openSq(id, entries, low, high, cq);
        return { status: OK };
      }
      case 0x02:
        return this.#log(view, word10);
      case 0x04: {
        if (id === 0 || id >= queues || s.cqSize[id] === 0) return { status: BAD_QID };
        for (let n = 1; n < queues; n++) if (s.sqSize[n] !== 0 && s.sqCq[n] === id) return { status: BAD_DELETION };
        s.cqSize[id] = 0;
        this.#updatePin();
        return { status: OK };
      }
      case 0x05: {
        const vector = word11 >>> 16;
        if (id === 0 || id >= queues || s.cqSize[id] !== 0) return { status: BAD_QID };
        if (entries < 2 || entries > ENTRIES_MAX) return { status: BAD_QSIZE };
        if ((word11 & 2) !== 0 && vector >= (this.#wires.messages() ? queues : 32)) return { status: BAD_VECTOR };
        if ((word11 & 1) === 0 || low % PAGE !== 0) return { status: INVALID_FIELD };
        this.#openCq(id, entries, low, high, vector, (word11 & 2) !== 0);
        return { status: OK };
      }
      case 0x06:
        return this.#identify(view, word10 & 0xff);
      case 0x08: // abort: what was fetched is done by now
        return { status: OK, result: 1 };
      case 0x09:
        return this.#setFeature(word10 & 0xff, word11);
      case 0x0a:
        return this.#getFeature(word10 & 0xff);
      case 0x0c:
        if (s.events >= EVENTS_MAX) return { status: TOO_MANY_EVENTS };
        s.eventIds[s.events++] = view.getUint16(2, true);
        return { status: NO_ANSWER };
      default:
        return { status: INVALID_OPCODE };
    }
  }

  #send(view: DataView, data: Uint8Array): Answer {
    const list = this.#pages(view, data.length);
    if (list === undefined) return { status: BAD_PRP };
    return { status: list.write(0, data) === data.length ? OK : INTERNAL_ERROR };
  }

  /** NVMe 5.15. */
  #identify(view: DataView, what: number): Answer {
    const { identity, queues, blockSize } = this.#options;
    const namespace = view.getUint32(4, true);
    switch (what) {
      case 0:
        if (namespace !== 1 && namespace !== 0xffffffff) return this.#send(view, new Uint8Array(PAGE));
        return this.#send(view, identifyNamespace(identity, this.#blocks, blockSize));
      case 1:
        return this.#send(view, identifyController(identity, queues));
      case 2: {
        const data = new Uint8Array(PAGE);
        if (namespace === 0) data[0] = 1;
        return this.#send(view, data);
      }
      case 3:
        if (namespace !== 1) return { status: INVALID_NAMESPACE };
        return this.#send(view, namespaceDescriptors(identity));
      default:
        return { status: INVALID_FIELD };
    }
  }

  /** NVMe 5.14: errors (none), health, firmware slots. */
  #log(view: DataView, word10: number): Answer {
    const length = (((view.getUint32(44, true) & 0xffff) << 16) | (word10 >>> 16)) * 4 + 4;
    const offset = view.getUint32(48, true);
    const page = word10 & 0xff;
    let data: Uint8Array;
    if (page === 1) data = new Uint8Array(64);
    else if (page === 2) data = smartLog();
    else if (page === 3) {
      data = new Uint8Array(512);
      data[0] = 1;
      data.set(new TextEncoder().encode(this.#options.identity.revision.padEnd(8).slice(0, 8)), 8);
    } else return { status: BAD_LOG };
    if (offset > data.length || length > TRANSFER_MAX) return { status: INVALID_FIELD };
    const out = new Uint8Array(length);
    out.set(data.subarray(offset, offset + length));
    return this.#send(view, out);
  }

  #setFeature(feature: number, value: number): Answer {
    const s = this.#s;
    switch (feature) {
      case 0x06:
        s.writeThrough = (value & 1) === 0 ? 1 : 0;
        return { status: OK };
      case 0x07:
        return { status: OK, result: this.#queueCount };
      case 0x0b:
        s.eventConfig = value;
        return { status: OK };
      // Arbitration, power state, temperature, error recovery, coalescing, vectors, atomicity: as they are.
      case 0x01:
      case 0x02:
      case 0x04:
      case 0x05:
      case 0x08:
      case 0x09:
      case 0x0a:
        return { status: OK };
      default:
        return { status: INVALID_FIELD };
    }
  }

  /** I/O queues of both kinds, from zero. */
  get #queueCount(): number {
    const pairs = this.#options.queues - 2;
    return ((pairs << 16) | pairs) >>> 0;
  }

  #getFeature(feature: number): Answer {
    const s = this.#s;
    switch (feature) {
      case 0x04:
        return { status: OK, result: 0x157 };
      case 0x06:
        return { status: OK, result: s.writeThrough === 0 ? 1 : 0 };
      case 0x07:
        return { status: OK, result: this.#queueCount };
      case 0x0b:
        return { status: OK, result: s.eventConfig };
      case 0x01:
      case 0x02:
      case 0x05:
      case 0x08:
      case 0x09:
      case 0x0a:
        return { status: OK };
      default:
        return { status: INVALID_FIELD };
    }
  }
}
