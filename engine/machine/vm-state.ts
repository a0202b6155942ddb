/**
 * The state of a whole machine as a stream of bytes, for snapshots and for saving to a file: device structs by name and
 * version, vCPU state blocks, and the pages of the backing (ROM, video memory, RAM) that are not all zeros.
 *
 *     "VIVARIUM STATE\0\0" | version, header bytes (u32 each) | header: JSON in UTF-8, see `StateHeader`
 *     structs, in the header's order, each padded to 8 bytes | state blocks of the vCPUs
 *     runs of pages: first page, count (u32 each), then count * 4096 bytes; first page 0xffffffff ends the stream
 *
 * All numbers are little-endian. The machine must stand: vCPUs parked, no request on its way to a disk, `control.frozen`
 * set. Both directions are generators that yield now and then, so that whoever runs them can go on with its own work.
 *
 * A stream is checked before anything of the machine is changed, but for the pages, which come last: a stream that is cut
 * off in them leaves a machine that only a reset or another load leads on from (`StateError.torn`).
 */
import * as S from '../memory/vcpu-state.ts';
import { INBOX_ENTRIES } from './control-words.ts';
import type { Machine } from './machine.ts';

const MAGIC = new TextEncoder().encode('VIVARIUM STATE\0\0');
const VERSION = 1;
const PAGE = 4096;
const END = 0xffffffff;
const MAX_HEADER = 1 << 20;
/** Bytes gathered before they are written, and the most that one read asks for. */
const PIECE = 1 << 20;
/** Bytes of the machine memory looked at between two yields. */
const STRIDE = 16 << 20;

/** Where a state goes. Writes come in order; each has its own bytes only until it returns. */
export interface StateSink {
  write(data: Uint8Array): void;
}

/** Where a state comes from. */
export interface StateSource {
  /** Fills `data` with what comes next; throws where there is not as much. */
  read(data: Uint8Array): void;
}

/** Why a state cannot be loaded, in words for the person who asked for it. */
export class StateError extends Error {
  override readonly name = 'StateError';
  /** The machine was changed already: it cannot go on. */
  readonly torn: boolean;
  constructor(message: string, torn = false) {
    super(message);
    this.torn = torn;
  }
}

export interface StateProgress {
  /** Bytes of the backing looked at, and of all. */
  readonly done: number;
  readonly total: number;
}

interface StateHeader {
  readonly machine: { readonly type: string; readonly cpus: number; readonly ramBytes: number; readonly vramBytes: number };
  /** Machine time in ns. */
  readonly time: number;
  /** The guest's wall clock, and how far it is ahead of the host's; ms. */
  readonly wall: number;
  readonly wallAhead: number;
  readonly structs: readonly { readonly id: string; readonly version: number; readonly bytes: number }[];
  readonly cpus: readonly { readonly waitsForSipi: number; readonly sipiVector: number }[];
}

/** Words of a state block that are the process's own: counters, wake-up word, addresses of what is made anew. */
const OWN_WORDS = [S.WAKE, S.INSTRUCTIONS, S.INSTRUCTIONS + 4, S.STOPPED_AT, S.CODE_HIT, S.LEFT_AT];
/** Requests that belong to the machine's state; the others are between this process's threads. */
const GUEST_PENDING = S.Pending.INTR | S.Pending.NMI | S.Pending.INIT | S.Pending.SIPI | S.Pending.SMI | S.Pending.MACHINE_CHECK;

const fail = (message: string): never => {
  throw new StateError(message);
};

// --- saving -------------------------------------------------------------------------------------------------------

/** Gathers small writes. */
class Gatherer {
  readonly #sink: StateSink;
  readonly #buffer = new Uint8Array(PIECE);
  #used = 0;
  constructor(sink: StateSink) {
    this.#sink = sink;
  }
  write(data: Uint8Array): void {
    for (let at = 0; at < data.length; ) {
      const part = data.subarray(at, at + this.#buffer.length - this.#used);
      this.#buffer.set(part, this.#used);
      this.#used += part.length;
      at += part.length;
      if (this.#used === this.#buffer.length) this.flush();
    }
  }
  words(...values: number[]): void {
    const bytes = new Uint8Array(values.length * 4);
    const view = new DataView(bytes.buffer);
    for (const [n, value] of values.entries()) view.setUint32(n * 4, value, true);
    this.write(bytes);
  }
  flush(): void {
    if (this.#used > 0) this.#sink.write(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }
}

const padded = (bytes: number): number => Math.ceil(bytes / 8) * 8;

/** Writes the state. */
export function* saveState(machine: Machine, sink: StateSink): Generator<StateProgress, void, void> {
  const { layout, shared, control, clock, buffer } = machine;
  const out = new Gatherer(sink);
  const all = new Uint8Array(buffer);
  shared.lock.hold(() => {
    const structs = machine.guestStructs();
    const header: StateHeader = {
      machine: {
        type: machine.config.machine.type,
        cpus: layout.cpus,
        ramBytes: layout.ramBytes,
        vramBytes: layout.vramBytes,
      },
      time: clock.now(),
      wall: clock.wallTime(),
      wallAhead: clock.wallTime() - Date.now(),
      structs: structs.map(({ id, version, bytes }) => ({ id, version, bytes })),
      cpus: Array.from({ length: layout.cpus }, (_, n) => ({
        waitsForSipi: control.waitsForSipi[n],
        sipiVector: control.sipiVector[n],
      })),
    };
    const text = new TextEncoder().encode(JSON.stringify(header));
    out.write(MAGIC);
    out.words(VERSION, text.length);
    out.write(text);
    const padding = new Uint8Array(8);
    for (const { address, bytes } of structs) {
      out.write(all.subarray(address, address + bytes));
      out.write(padding.subarray(0, padded(bytes) - bytes));
    }
    for (let n = 0; n < layout.cpus; n++) {
      const block = all.slice(layout.vcpus + n * S.VCPU_BYTES, layout.vcpus + n * S.VCPU_BYTES + S.STATE_BYTES);
      const words = new Int32Array(block.buffer);
      words[S.PENDING >> 2] &= GUEST_PENDING;
      for (const at of OWN_WORDS) words[at >> 2] = 0;
      out.write(block);
    }
  });
  const total = layout.end - layout.backing;
  const pages = Math.floor(total / PAGE);
  const zero = zeroPages(buffer, layout.backing);
  for (let first = 0; first < pages; ) {
    const stop = Math.min(pages, first + STRIDE / PAGE);
    while (first < stop) {
      if (zero(first)) {
        first++;
        continue;
      }
      let end = first + 1;
      while (end < stop && !zero(end)) end++;
      out.words(first, end - first);
      out.write(all.subarray(layout.backing + first * PAGE, layout.backing + end * PAGE));
      first = end;
    }
    yield { done: first * PAGE, total };
  }
  out.words(END, 0);
  out.flush();
}

/** Whether a page of the backing is all zeros. */
function zeroPages(buffer: ArrayBufferLike, backing: number): (page: number) => boolean {
  const words = new Float64Array(buffer, backing);
  const halves = new Int32Array(buffer, backing);
  return (page) => {
    const start = page * (PAGE / 8);
    for (let at = start; at < start + PAGE / 8; at++) if (words[at] !== 0) return false;
    // A sign bit alone, -0, was taken for zero.
    for (let at = 2 * start + 1; at < 2 * start + PAGE / 4; at += 2) if (halves[at] !== 0) return false;
    return true;
  };
}

// --- loading ------------------------------------------------------------------------------------------------------

/** What a stream says of the machine it was made from. */
function readHeader(source: StateSource): StateHeader {
  const start = new Uint8Array(MAGIC.length + 8);
  source.read(start);
  if (!MAGIC.every((byte, n) => byte === start[n])) fail('this is no saved state of a machine of this program');
  const view = new DataView(start.buffer, MAGIC.length);
  const version = view.getUint32(0, true);
  if (version !== VERSION) fail(`the saved state has format ${version}; this version knows ${VERSION}`);
  const length = view.getUint32(4, true);
  if (length > MAX_HEADER) fail('the saved state is damaged: its header is too long');
  const text = new Uint8Array(length);
  source.read(text);
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text));
  } catch {
    fail('the saved state is damaged: its header cannot be read');
  }
  const { machine, time, wall, wallAhead, structs, cpus } = (header ?? {}) as Partial<StateHeader>;
  const finite = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value);
  const good =
    typeof machine === 'object' &&
    machine !== null &&
    [time, wall, wallAhead].every(finite) &&
    Array.isArray(structs) &&
    structs.every((each) => typeof each?.id === 'string' && finite(each.version) && finite(each.bytes)) &&
    Array.isArray(cpus) &&
    cpus.every((each) => finite(each?.waitsForSipi) && finite(each?.sipiVector));
  if (!good) fail('the saved state is damaged: its header is not complete');
  return header as StateHeader;
}

const MIB = 1048576;

/** Throws where a state is of another machine than this one. */
function checkMachine(machine: Machine, header: StateHeader): void {
  const { layout, config, shared } = machine;
  const { type, cpus, ramBytes, vramBytes } = header.machine;
  const differs = (what: string, saved: unknown, here: unknown): void => {
    if (saved !== here) fail(`the saved state is of another machine: it has ${what} ${saved}, this one ${here}`);
  };
  differs('machine type', type, config.machine.type);
  differs('CPUs:', cpus, layout.cpus);
  differs('memory in MiB:', ramBytes / MIB, layout.ramBytes / MIB);
  differs('video memory in MiB:', vramBytes / MIB, layout.vramBytes / MIB);
  if (header.cpus.length !== layout.cpus) fail('the saved state is damaged: it has not as many CPUs as it says');
  const here = new Map(shared.lock.hold(() => machine.guestStructs()).map((entry) => [entry.id, entry]));
  for (const { id, version, bytes } of header.structs) {
    const entry = here.get(id);
    if (entry === undefined) return fail(`the saved state has a device that this machine has not: '${id.slice(0, 60)}'`);
    if (entry.version !== version)
      fail(`the saved state has version ${version} of '${id}'; this program knows version ${entry.version}`);
    if (entry.bytes !== bytes) fail(`the saved state is damaged: the size of '${id}' is not right`);
    here.delete(id);
  }
  const [missing] = here.keys();
  if (missing !== undefined) fail(`this machine has a device that the saved state has not: '${missing}'`);
}

/** Replaces the machine's state. Throws a `StateError`, or what the source throws. */
export function* loadState(machine: Machine, source: StateSource): Generator<StateProgress, void, void> {
  const { layout, shared, control, clock, buffer } = machine;
  const header = readHeader(source);
  checkMachine(machine, header);
  const entries = new Map(shared.entries().map((entry) => [entry.id, entry]));
  const structs = header.structs.map(({ id, bytes }) => {
    const data = new Uint8Array(padded(bytes));
    source.read(data);
    return { entry: entries.get(id), data: data.subarray(0, bytes) };
  });
  const blocks = header.cpus.map(() => {
    const block = new Uint8Array(S.STATE_BYTES);
    source.read(block);
    return block;
  });

  const all = new Uint8Array(buffer);
  shared.lock.hold(() => {
    const { generation } = machine.pci;
    for (const { entry, data } of structs) if (entry !== undefined) all.set(data, entry.address);
    for (const [n, block] of blocks.entries()) {
      const at = layout.vcpus + n * S.VCPU_BYTES;
      const words = new Int32Array(block.buffer);
      const present = new Int32Array(buffer, at, S.STATE_BYTES / 4);
      for (const own of OWN_WORDS)
        words[own >> 2] = own === S.STOPPED_AT || own === S.CODE_HIT || own === S.LEFT_AT ? 0 : present[own >> 2];
      block.set(all.subarray(at + S.EXIT_COUNTS, at + S.PMU), S.EXIT_COUNTS);
      const pending = words[S.PENDING >> 2] & GUEST_PENDING;
      words[S.PENDING >> 2] = pending | S.Pending.FLUSH | S.Pending.INVALIDATE;
      all.set(block, at);
      control.waitsForSipi[n] = header.cpus[n].waitsForSipi === 0 ? 0 : 1;
      control.sipiVector[n] = header.cpus[n].sipiVector & 0xff;
      control.inboxCount[n] = INBOX_ENTRIES + 1;
    }
    const { wall, wallAhead, time } = header;
    clock.set(time, machine.config.rtc.clock === 'host' ? Date.now() + wallAhead : wall);
    machine.pci.replaced(generation);
    Atomics.add(control.loads, 0, 1);
  });

  try {
    yield* loadPages(machine, source);
  } catch (error) {
    throw new StateError(`the machine's memory could not be restored: ${(error as Error).message}`, true);
  }
  machine.memory.code.fill(0);
  machine.memory.granules.fill(0);
  machine.memory.dirty.fill(1);
}

function* loadPages(machine: Machine, source: StateSource): Generator<StateProgress, void, void> {
  const { layout, buffer } = machine;
  const all = new Uint8Array(buffer);
  const total = layout.end - layout.backing;
  const pages = Math.floor(total / PAGE);
  const zero = zeroPages(buffer, layout.backing);
  const clear = (from: number, to: number): void => {
    // Pages that were never touched stay so.
    for (let page = from; page < to; page++)
      if (!zero(page)) all.fill(0, layout.backing + page * PAGE, layout.backing + (page + 1) * PAGE);
  };
  const words = new Uint8Array(8);
  const view = new DataView(words.buffer);
  let next = 0;
  let since = 0;
  for (;;) {
    source.read(words);
    const first = view.getUint32(0, true);
    const count = view.getUint32(4, true);
    if (first === END) break;
    if (first < next || count === 0 || first + count > pages) fail('a run of pages lies outside the memory or is not in order');
    clear(next, first);
    for (let at = layout.backing + first * PAGE, left = count * PAGE; left > 0; ) {
      const part = all.subarray(at, at + Math.min(left, PIECE));
      source.read(part);
      at += part.length;
      left -= part.length;
    }
    since += first + count - next;
    next = first + count;
    if (since >= STRIDE / PAGE) {
      since = 0;
      yield { done: next * PAGE, total };
    }
  }
  clear(next, pages);
}
