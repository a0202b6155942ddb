/**
 * virtio-balloon: memory that the guest lends to the host, memory statistics, and reports of free pages.
 * virtio 1.2, 5.5.
 *
 * The driver always leaves one buffer in the statistics queue. It stays in the ring, unread by the device until the
 * driver has filled it again, and is given back to ask for fresh figures.
 */
import type { Clock, Timer } from '../../bus/clock.ts';
import { f64, f64s, struct, u32, type View } from '../../memory/struct.ts';
import type { Chain } from './chain.ts';
import { serveAll, type VirtioDevice, type VirtioTransport } from './device.ts';

/** Feature bits. virtio 1.2, 5.5.3. */
const F_STATS = 1;
const F_DEFLATE_ON_OOM = 2;
const F_REPORTING = 5;

const INFLATE = 0;
const DEFLATE = 1;
const STATS = 2;
/** Balloon pages are of this size whatever the guest's are. virtio 1.2, 5.5.6. */
const PAGE = 4096;
const QUEUE_SIZE = 128;
const CHAIN_MAX = 2 ** 18;
const STAT_BYTES = 10;
const CONFIG_BYTES = 16;
const CONFIG_ACTUAL = 4;

/** The statistics in order of their tags, by QMP's names. virtio 1.2, 5.5.6.4; tags from 10 on: Linux, include/uapi/linux/virtio_balloon.h. */
export const BALLOON_STATISTICS = [
  'stat-swap-in',
  'stat-swap-out',
  'stat-major-faults',
  'stat-minor-faults',
  'stat-free-memory',
  'stat-total-memory',
  'stat-available-memory',
  'stat-disk-caches',
  'stat-htlb-pgalloc',
  'stat-htlb-pgfail',
  'stat-oom-kills',
  'stat-alloc-stalls',
  'stat-scan-async',
  'stat-scan-direct',
  'stat-reclaim-async',
  'stat-reclaim-direct',
] as const;
export type BalloonStatistic = (typeof BALLOON_STATISTICS)[number];

export const virtioBalloonState = struct('virtio-balloon', 1, {
  /** Pages that the host would like to have. */
  wanted: u32,
  /** Pages that the driver says it has given. */
  actual: u32,
  /** By tag; negative where the driver did not say. Bytes, or counts of events. */
  statistics: f64s(BALLOON_STATISTICS.length),
  /** Milliseconds since the epoch at which the statistics came; 0 for never. */
  updated: f64,
  /** Nanoseconds between requests for statistics; 0 for none. No reset changes this. */
  interval: f64,
});

export interface VirtioBalloonOptions {
  readonly clock: Clock;
  /** `deflate-on-oom`: the guest may take pages back when it has no others. */
  readonly deflateOnOom?: boolean;
  /** `free-page-reporting`. */
  readonly reporting?: boolean;
  /** The guest does not need what is in this range of whole RAM pages; it may read as anything until written. */
  readonly release?: (address: number, length: number) => void;
  /** The guest takes pages back. */
  readonly reclaim?: (address: number, length: number) => void;
  /** The driver says how much memory the guest has now, in bytes. */
  readonly changed?: (bytes: number) => void;
}

export class VirtioBalloon implements VirtioDevice {
  readonly name = 'virtio-balloon';
  readonly type = 5;
  readonly legacyId = 0x1002;
  readonly classCode = 0x00ff00;
  readonly features: readonly number[];
  readonly queueSizes: readonly number[];
  readonly configSize = CONFIG_BYTES;
  readonly #s: View<typeof virtioBalloonState.fields>;
  readonly #options: VirtioBalloonOptions;
  readonly #timer: Timer;
  #transport!: VirtioTransport;

  constructor(state: View<typeof virtioBalloonState.fields>, options: VirtioBalloonOptions) {
    this.#s = state;
    this.#options = options;
    this.features = [F_STATS, ...(options.deflateOnOom ? [F_DEFLATE_ON_OOM] : []), ...(options.reporting ? [F_REPORTING] : [])];
    this.queueSizes = new Array(options.reporting ? 4 : 3).fill(QUEUE_SIZE);
    this.#timer = options.clock.timer('virtio-balloon.statistics', () => {
      if (this.#s.interval === 0) return;
      this.requestStatistics();
      this.#timer.arm(options.clock.now() + this.#s.interval);
    });
  }

  attach(transport: VirtioTransport): void {
    this.#transport = transport;
  }

  reset(): void {
    const s = this.#s;
    s.actual = 0;
    s.statistics.fill(-1);
    s.updated = 0;
  }

  config(): Uint8Array {
    const bytes = new Uint8Array(CONFIG_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, this.#s.wanted, true);
    view.setUint32(CONFIG_ACTUAL, this.#s.actual, true);
    return bytes;
  }

  writeConfig(offset: number, size: number, value: number): void {
    const s = this.#s;
    const at = offset - CONFIG_ACTUAL;
    if (at < 0 || at + size > 4) return;
    const shift = at * 8;
    const mask = (size === 4 ? 0xffffffff : 2 ** (size * 8) - 1) << shift;
    const before = s.actual;
    s.actual = ((before & ~mask) | ((value << shift) & mask)) >>> 0;
    if (s.actual !== before) this.#options.changed?.(this.memory());
  }

  /** Asks the guest to get along with `bytes` of its RAM (QMP `balloon`). */
  setTarget(bytes: number): void {
    const ram = this.#transport.memory.ramBytes;
    const wanted = Math.floor(Math.max(0, ram - Math.max(0, bytes)) / PAGE);
    if (wanted === this.#s.wanted) return;
    this.#s.wanted = wanted;
    this.#transport.configChanged();
  }

  /** RAM that the guest has left, in bytes (QMP `query-balloon`). */
  memory(): number {
    return Math.max(0, this.#transport.memory.ramBytes - this.#s.actual * PAGE);
  }

  /** Asks for statistics every `seconds`; 0 stops (QOM `guest-stats-polling-interval`). */
  setPolling(seconds: number): void {
    this.#s.interval = Math.max(0, seconds) * 1e9;
    if (this.#s.interval === 0) this.#timer.disarm();
    else this.#timer.arm(this.#options.clock.now());
  }

  /** What the driver said last (QOM `guest-stats`): absent where it said nothing. `updated` in ms since the epoch, 0 for never. */
  statistics(): { updated: number; stats: Partial<Record<BalloonStatistic, number>> } {
    const stats: Partial<Record<BalloonStatistic, number>> = {};
    BALLOON_STATISTICS.forEach((name, tag) => {
      if (this.#s.statistics[tag] >= 0) stats[name] = this.#s.statistics[tag];
    });
    return { updated: this.#s.updated, stats };
  }

  /** Gives the statistics buffer back, upon which the driver fills it anew. No effect while the driver has it. */
  requestStatistics(): void {
    if (!this.#transport.driverOk || !this.#transport.hasFeature(F_STATS)) return;
    const queue = this.#transport.queues[STATS];
    const chain = queue.pop();
    if (chain === undefined) return;
    queue.push(chain, 0);
    queue.wantNotifications(true);
    this.#transport.signal(STATS);
  }

  notified(index: number): void {
    if (index === INFLATE) serveAll(this.#transport, index, (chain) => this.#pages(chain, this.#options.release));
    else if (index === DEFLATE) serveAll(this.#transport, index, (chain) => this.#pages(chain, this.#options.reclaim));
    else if (this.#transport.hasFeature(F_STATS) && index === STATS) this.#readStatistics();
    // Queues of features that the driver did not take leave no gap. virtio 1.2, 5.5.2.
    else serveAll(this.#transport, index, (chain) => this.#report(chain));
  }

  /** Page numbers, joined to ranges where they follow each other. Pages that are not RAM are passed over. */
  #pages(chain: Chain, use: ((address: number, length: number) => void) | undefined): number {
    if (chain.readableBytes > CHAIN_MAX) {
      this.#transport.fail('too many pages at once');
      return 0;
    }
    const list = chain.readBytes(0, CHAIN_MAX);
    const view = new DataView(list.buffer);
    let start = 0;
    let end = 0;
    const flush = (): void => {
      if (end > start) use?.(start, end - start);
    };
    for (let at = 0; at + 4 <= list.length; at += 4) {
      const address = view.getUint32(at, true) * PAGE;
      if (this.#transport.memory.view(address, PAGE) === undefined) continue;
      if (address === end && end > start) end += PAGE;
      else if (start > 0 && address + PAGE === start) start -= PAGE;
      else {
        flush();
        start = address;
        end = address + PAGE;
      }
    }
    flush();
    return 0;
  }

  /** Free pages: the buffers of the chain themselves. virtio 1.2, 5.5.6.7. */
  #report(chain: Chain): number {
    for (const { address, length } of chain.writable) {
      const start = Math.ceil(address / PAGE) * PAGE;
      const end = Math.floor((address + length) / PAGE) * PAGE;
      if (end > start && this.#transport.memory.view(start, end - start) !== undefined)
        this.#options.release?.(start, end - start);
    }
    return 0;
  }

  #readStatistics(): void {
    const queue = this.#transport.queues[STATS];
    const chain = queue.pop();
    if (chain === undefined) return;
    queue.unpop(chain);
    const s = this.#s;
    const list = chain.readBytes(0, STAT_BYTES * 64);
    if (list.length === 0) return;
    const view = new DataView(list.buffer);
    s.statistics.fill(-1);
    for (let at = 0; at + STAT_BYTES <= list.length; at += STAT_BYTES) {
      const tag = view.getUint16(at, true);
      const value = view.getBigUint64(at + 2, true);
      if (tag < BALLOON_STATISTICS.length && value !== 0xffffffffffffffffn) s.statistics[tag] = Number(value);
    }
    s.updated = this.#options.clock.wallTime();
  }
}
