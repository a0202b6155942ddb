/**
 * virtio-scsi: a host bus adapter. virtio 1.2, 5.6.
 *
 * Requests are carried out at once and in order by whichever I/O thread is asked to `process` a queue, so a task is
 * either in a ring or in execution. Task management therefore never takes a task back: it waits until all tasks are
 * done, which leaves nothing to abort, and then answers. `controlWaits` holds new requests back meanwhile.
 */
import { struct, u32, u32s, type View } from '../../memory/struct.ts';
import type { Chain } from './chain.ts';
import { type Doorbell, type Locked, SignalBatch, serveAll, type VirtioDevice, type VirtioTransport } from './device.ts';
import { PUT_BACK } from './disk.ts';
import { absentUnit, check, type ScsiData, type ScsiResult, type ScsiUnit, Sense } from './scsi-unit.ts';

const F_HOTPLUG = 1;
const F_CHANGE = 2;

const CONTROL = 0;
const EVENTS = 1;
const FIRST_REQUEST = 2;

const TARGETS = 256;
export const SCSI_LUNS_MAX = 16384;

/** Configuration. virtio 1.2, 5.6.4. */
const CONFIG_BYTES = 36;
const CONFIG_SENSE_SIZE = 20;
const CONFIG_CDB_SIZE = 24;
const SENSE_SIZE = 96;
const CDB_SIZE = 32;
const SIZE_MAX = 252;

const REQUEST_BYTES = 19;
const RESPONSE_BYTES = 12;
/** Responses. virtio 1.2, 5.6.6.1 and 5.6.6.2. */
const S_OK = 0;
const S_OVERRUN = 1;
const S_BAD_TARGET = 3;
const S_FUNCTION_REJECTED = 11;
const S_INCORRECT_LUN = 12;

const T_TMF = 0;
const T_AN_QUERY = 1;
const T_AN_SUBSCRIBE = 2;
const TMF_BYTES = 24;
const AN_BYTES = 16;
const TMF_NEXUS_RESET = 4;
const TMF_UNIT_RESET = 5;
const TMF_MAX = 7;

/** Events. virtio 1.2, 5.6.6.3. */
const EVENT_BYTES = 16;
const EVENT_TRANSPORT_RESET = 1;
const EVENT_PARAM_CHANGE = 3;
const EVENTS_MISSED = 0x80000000;
const REASON_RESCAN = 1;
const REASON_REMOVED = 2;
const PENDING_MAX = 64;

export const virtioScsiState = struct('virtio-scsi', 1, {
  senseSize: u32,
  cdbSize: u32,
  /** Requests in execution, on all threads. */
  tasks: u32,
  /** 1: task management waits for them. */
  controlWaits: u32,
  /** Events that wait for a buffer: how many; kind, target and unit, reason of each; and whether some were lost. */
  pending: u32,
  pendingEvents: u32s(PENDING_MAX * 3),
  missed: u32,
});

export interface VirtioScsiOptions {
  /** Request queues; one unless said otherwise. */
  readonly queues?: number;
  readonly queueSize?: number;
  /** Blocks of 512 bytes that a driver should ask for at most in one command. */
  readonly maxSectors?: number;
  readonly cmdPerLun?: number;
}

export class VirtioScsi implements VirtioDevice {
  readonly name = 'virtio-scsi';
  readonly type = 8;
  readonly legacyId = 0x1004;
  readonly classCode = 0x010000;
  readonly features = [F_HOTPLUG, F_CHANGE];
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_BYTES;
  readonly #s: View<typeof virtioScsiState.fields>;
  readonly #options: VirtioScsiOptions;
  readonly #doorbell: Doorbell;
  /** This thread's units: by target, then by unit number. Wiring, not state. */
  readonly #targets = new Map<number, Map<number, ScsiUnit>>();
  #transport!: VirtioTransport;

  constructor(state: View<typeof virtioScsiState.fields>, options: VirtioScsiOptions, doorbell: Doorbell) {
    const { queues = 1, queueSize = 256 } = options;
    this.#s = state;
    this.#options = options;
    this.#doorbell = doorbell;
    this.queueSizes = new Array(FIRST_REQUEST + queues).fill(queueSize);
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  reset(): void {
    const s = this.#s;
    s.senseSize = SENSE_SIZE;
    s.cdbSize = CDB_SIZE;
    s.controlWaits = 0;
    s.pending = 0;
    s.missed = 0;
    for (const units of this.#targets.values()) for (const unit of units.values()) unit.reset();
  }

  // Units. Every thread attaches its own instances; one of them announces.

  /** Puts a unit on the bus; one that is plugged in later wants its `reset` called once. Throws where the address is taken or out of range. */
  attachUnit(target: number, lun: number, unit: ScsiUnit): void {
    if (!(target >= 0 && target < TARGETS && lun >= 0 && lun < SCSI_LUNS_MAX))
      throw new RangeError(`no SCSI address ${target}:${lun}`);
    const units = this.#targets.get(target) ?? new Map<number, ScsiUnit>();
    this.#targets.set(target, units);
    if (units.has(lun)) throw new Error(`SCSI address ${target}:${lun} is taken`);
    units.set(lun, unit);
  }
  detachUnit(target: number, lun: number): void {
    const units = this.#targets.get(target);
    units?.delete(lun);
    if (units?.size === 0) this.#targets.delete(target);
  }
  unit(target: number, lun: number): ScsiUnit | undefined {
    return this.#targets.get(target)?.get(lun);
  }

  /** Tells the driver that a unit came or went, with the machine lock held. virtio 1.2, 5.6.6.3.1. */
  announce(target: number, lun: number, what: 'added' | 'removed'): void {
    this.#event(EVENT_TRANSPORT_RESET, F_HOTPLUG, target, lun, what === 'added' ? REASON_RESCAN : REASON_REMOVED);
  }
  /** Tells the driver of a unit attention, such as a new size or medium, with the machine lock held. virtio 1.2, 5.6.6.3.3. */
  changed(target: number, lun: number): void {
    const code = this.unit(target, lun)?.state.attention ?? 0;
    if (code !== 0) this.#event(EVENT_PARAM_CHANGE, F_CHANGE, target, lun, ((code >> 8) & 0xff) | ((code & 0xff) << 8));
  }

  #event(kind: number, feature: number, target: number, lun: number, reason: number): void {
    const s = this.#s;
    if (!this.#transport.driverOk || !this.#transport.hasFeature(feature)) return;
    if (s.pending >= PENDING_MAX) s.missed = 1;
    else s.pendingEvents.set([kind, target * 0x10000 + lun, reason], 3 * s.pending++);
    this.#flushEvents();
  }

  #flushEvents(): void {
    const s = this.#s;
    const queue = this.#transport.queues[EVENTS];
    while (s.pending > 0 || s.missed !== 0) {
      const chain = queue.pop();
      if (chain === undefined) {
        queue.wantNotifications(true);
        break;
      }
      const event = new DataView(new ArrayBuffer(EVENT_BYTES));
      const [kind, address, reason] = s.pending > 0 ? s.pendingEvents.subarray(0, 3) : [0, 0, 0];
      event.setUint32(0, (kind | (s.missed !== 0 ? EVENTS_MISSED : 0)) >>> 0, true);
      if (kind !== 0) {
        const lun = address & 0xffff;
        event.setUint8(4, 1);
        event.setUint8(5, address >>> 16);
        event.setUint16(6, lun < 256 ? lun : 0x4000 | lun);
      }
      event.setUint32(12, reason, true);
      s.missed = 0;
      if (s.pending > 0) {
        s.pendingEvents.copyWithin(0, 3, s.pending * 3);
        s.pending--;
      }
      queue.push(chain, chain.write(0, new Uint8Array(event.buffer)));
    }
    this.#transport.signal(EVENTS);
  }

  config(): Uint8Array {
    const { maxSectors = 0xffff, cmdPerLun = 128 } = this.#options;
    const config = new Uint8Array(CONFIG_BYTES);
    const view = new DataView(config.buffer);
    view.setUint32(0, this.queueSizes.length - FIRST_REQUEST, true);
    view.setUint32(4, Math.max(1, Math.min(this.queueSizes[0], 1024) - 2), true);
    view.setUint32(8, maxSectors, true);
    view.setUint32(12, cmdPerLun, true);
    view.setUint32(16, EVENT_BYTES, true);
    view.setUint32(CONFIG_SENSE_SIZE, this.#s.senseSize, true);
    view.setUint32(CONFIG_CDB_SIZE, this.#s.cdbSize, true);
    view.setUint16(30, TARGETS - 1, true);
    view.setUint32(32, SCSI_LUNS_MAX - 1, true);
    return config;
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    if (offset === CONFIG_SENSE_SIZE && value <= SIZE_MAX) this.#s.senseSize = value;
    if (offset === CONFIG_CDB_SIZE && value <= SIZE_MAX && value >= 1) this.#s.cdbSize = value;
  }

  notified(index: number): void {
    if (index === EVENTS) this.#flushEvents();
    else this.#doorbell.ring(index);
  }

  /**
   * Serves queue `index` on an I/O thread, without the machine lock: at most `budget` requests. Returns whether there may
   * be more at once; where not, the doorbell rings when there is.
   */
  process(index: number, budget: number, locked: Locked): boolean {
    if (index >= FIRST_REQUEST) return this.#requests(index, budget, locked);
    if (index === CONTROL) this.#control(locked);
    return false;
  }

  #requests(index: number, budget: number, locked: Locked): boolean {
    const s = this.#s;
    const transport = this.#transport;
    const queue = transport.queues[index];
    if (queue === undefined) return false;
    let done: Chain | undefined;
    let written = 0;
    const batch = new SignalBatch(transport, index);
    for (let left = budget; ; left--) {
      const next: Chain | undefined = locked(() => {
        if (done !== undefined) {
          queue.push(done, written);
          batch.given();
          transport.ended();
          if (s.tasks > 0 && --s.tasks === 0 && s.controlWaits !== 0) this.#doorbell.ring(CONTROL);
        }
        if (left <= 0 || s.controlWaits !== 0) {
          batch.send();
          return undefined;
        }
        let chain = queue.pop();
        if (chain === undefined) {
          queue.wantNotifications(true);
          chain = queue.pop(); // one may have come before the driver saw that
        }
        if (chain === undefined) {
          batch.send();
          return undefined;
        }
        queue.wantNotifications(false);
        transport.began();
        s.tasks++;
        return chain;
      });
      if (next === undefined) return left <= 0;
      try {
        written = this.#request(next, locked);
      } catch (problem) {
        if (problem !== PUT_BACK) throw problem;
        locked(() => {
          queue.unpop(next);
          batch.send();
          transport.ended();
          if (s.tasks > 0 && --s.tasks === 0 && s.controlWaits !== 0) this.#doorbell.ring(CONTROL);
        });
        return false;
      }
      done = next;
    }
  }

  /** Target and unit of an address in the one format that virtio-scsi has, or undefined. virtio 1.2, 5.6.6.1. */
  #address(bytes: Uint8Array, at: number): { target: number; lun: number } | undefined {
    const rest = bytes.subarray(at + 4, at + 8);
    const form = bytes[at + 2] & 0xc0;
    if (bytes[at] !== 1 || (form !== 0x40 && form !== 0) || rest.some((byte) => byte !== 0)) return undefined;
    return { target: bytes[at + 1], lun: ((bytes[at + 2] & 0x3f) << 8) | bytes[at + 3] };
  }

  #request(chain: Chain, locked: Locked): number {
    const { cdbSize, senseSize } = this.#s;
    const header = new Uint8Array(REQUEST_BYTES + cdbSize);
    const responseBytes = RESPONSE_BYTES + senseSize;
    if (chain.read(0, header) < header.length || chain.writableBytes < responseBytes) {
      locked(() => this.#transport.fail('request without header or room for a response'));
      return 0;
    }
    const response = new Uint8Array(responseBytes);
    const view = new DataView(response.buffer);
    const data = new ChainData(chain, header.length, responseBytes);
    const address = this.#address(header, 0);
    const units = address === undefined ? undefined : this.#targets.get(address.target);
    if (address === undefined || units === undefined) {
      response[11] = S_BAD_TARGET;
      view.setUint32(4, data.outBytes + data.inBytes, true);
      chain.write(0, response);
      return responseBytes;
    }
    const cdb = new Uint8Array(Math.max(32, cdbSize));
    cdb.set(header.subarray(REQUEST_BYTES));
    const luns = [...new Set([0, ...units.keys()])].sort((a, b) => a - b);
    const unit = units.get(address.lun);
    const result: ScsiResult =
      unit !== undefined
        ? unit.execute(cdb, data, luns)
        : address.lun === 0 || cdb[0] === 0x12 || cdb[0] === 0x03
          ? absentUnit(cdb, data, luns)
          : check(Sense.NO_SUCH_UNIT);
    const sense = result.sense?.subarray(0, senseSize) ?? new Uint8Array(0);
    view.setUint32(0, sense.length, true);
    view.setUint32(4, Math.max(0, data.outBytes + data.inBytes - result.moved), true);
    response[10] = result.status;
    response[11] = result.overrun ? S_OVERRUN : S_OK;
    response.set(sense, RESPONSE_BYTES);
    chain.write(0, response);
    return responseBytes + (data.inBytes > 0 ? result.moved : 0);
  }

  // The control queue.

  #control(locked: Locked): void {
    const s = this.#s;
    // What is in the rings now goes first: a task that is to be aborted must not answer after the abortion did.
    for (let index = FIRST_REQUEST; index < this.queueSizes.length; index++)
      this.#requests(index, this.queueSizes[index], locked);
    locked(() => {
      if (this.#transport.queues[CONTROL].waiting() === 0) s.controlWaits = 0;
      else if (s.tasks > 0) {
        s.controlWaits = 1;
        return;
      }
      serveAll(this.#transport, CONTROL, (chain) => this.#controlRequest(chain));
      if (s.controlWaits === 0) return;
      s.controlWaits = 0;
      for (let index = FIRST_REQUEST; index < this.queueSizes.length; index++) this.#doorbell.ring(index);
    });
  }

  #controlRequest(chain: Chain): number {
    const request = chain.readBytes(0, TMF_BYTES);
    if (request.length < 4) return 0;
    const view = new DataView(request.buffer);
    const type = view.getUint32(0, true);
    if (type === T_TMF) {
      const response = request.length < TMF_BYTES ? S_FUNCTION_REJECTED : this.#manage(view.getUint32(4, true), request);
      return chain.write(0, Uint8Array.of(response));
    }
    // No asynchronous notifications are offered: none is active. virtio 1.2, 5.6.6.2.
    if ((type === T_AN_QUERY || type === T_AN_SUBSCRIBE) && request.length >= AN_BYTES) return chain.write(0, new Uint8Array(5));
    return chain.write(0, Uint8Array.of(S_FUNCTION_REJECTED));
  }

  #manage(kind: number, request: Uint8Array): number {
    if (kind > TMF_MAX) return S_FUNCTION_REJECTED;
    const address = this.#address(request, 8);
    const units = address === undefined ? undefined : this.#targets.get(address.target);
    if (address === undefined || units === undefined) return S_BAD_TARGET;
    if (kind === TMF_NEXUS_RESET) {
      for (const unit of units.values()) unit.reset(Sense.DEVICE_RESET);
      return S_OK;
    }
    const unit = units.get(address.lun);
    if (unit === undefined) return S_INCORRECT_LUN;
    if (kind === TMF_UNIT_RESET) unit.reset(Sense.DEVICE_RESET);
    // Aborted or asked for: no such task is left by now. virtio's FUNCTION_COMPLETE is 0.
    return S_OK;
  }
}

/** The data parts of a request's buffers: after the header, and after the response. */
class ChainData implements ScsiData {
  readonly outBytes: number;
  readonly inBytes: number;
  readonly #chain: Chain;
  readonly #out: number;
  readonly #in: number;
  constructor(chain: Chain, out: number, into: number) {
    this.#chain = chain;
    this.#out = out;
    this.#in = into;
    this.outBytes = chain.readableBytes - out;
    this.inBytes = chain.writableBytes - into;
  }
  readOut(offset: number, target: Uint8Array): number {
    return this.#chain.read(this.#out + offset, target);
  }
  writeIn(offset: number, source: Uint8Array): number {
    return this.#chain.write(this.#in + offset, source);
  }
  eachOut(offset: number, length: number, use: (data: Uint8Array, at: number) => void): void {
    this.#chain.eachReadable(this.#out + offset, length, use);
  }
  eachIn(offset: number, length: number, fill: (data: Uint8Array, at: number) => void): void {
    this.#chain.eachWritable(this.#in + offset, length, fill);
  }
}
