/**
 * Devices that come and go while the machine runs, as all its threads know of them.
 *
 * Every thread makes its own objects of a device over shared state (docs/architecture.md). The control thread writes into
 * a table in shared memory what was plugged in and what was taken away of what the machine started with; the other threads
 * bring themselves up to date in `PciBus.sync`, which each calls before it dispatches an access. A thread that begins later
 * finds the whole table. The table holds a fixed number of places, so a machine cannot grow without bound.
 */
import type { DeviceConfig, DriveConfig } from '../contract/machine-config.ts';
import type { SharedState } from '../memory/shared-state.ts';
import { bytes, struct, u32s, type View } from '../memory/struct.ts';

const PLACES = 64;
const PLACE_BYTES = 8192;

/** A device, with all that the threads would choose differently if they were left to. */
export interface Plug {
  /** Its properties say where it is: `addr`, or `bus`, `scsi-id` and `lun`. */
  readonly device: DeviceConfig;
  readonly drive: DriveConfig | undefined;
  /** The drive's place among the machine's, and its I/O thread's. */
  readonly driveIndex: number;
  readonly ioIndex: number;
}

/** What stands in a place: a device that came, or the id of one of the configuration that went. */
export type Place = { readonly plug: Plug } | { readonly gone: string };

const hotplugTable = struct(
  'hotplug-table',
  1,
  { generation: u32s(PLACES), length: u32s(PLACES), text: bytes(PLACES * PLACE_BYTES) },
  'host',
);

/** What has to be done on a thread: first what goes, then what comes. */
export interface PlugChanges {
  /** Places whose device went. */
  readonly left: readonly number[];
  /** Ids of devices of the configuration that went. */
  readonly gone: readonly string[];
  readonly come: readonly { readonly place: number; readonly plug: Plug }[];
}

/** One a thread; all calls with the machine lock held. */
export class HotplugTable {
  readonly #s: View<typeof hotplugTable.fields>;
  readonly #seen = new Uint32Array(PLACES);
  /** Places whose device this thread has. */
  readonly #has = new Set<number>();

  constructor(shared: SharedState) {
    this.#s = shared.struct(hotplugTable);
  }

  /** A place that nothing stands in, or -1. */
  free(): number {
    return this.#s.length.indexOf(0);
  }

  /** Whether `value` has room in a place. */
  fits(value: Place): boolean {
    return new TextEncoder().encode(JSON.stringify(value)).length <= PLACE_BYTES;
  }

  /** Writes a place, or empties it. Threads take it over in `changes`; this one too. */
  write(place: number, value: Place | undefined): void {
    const data = new TextEncoder().encode(value === undefined ? '' : JSON.stringify(value));
    this.#s.text.set(data, place * PLACE_BYTES);
    this.#s.length[place] = data.length;
    this.#s.generation[place]++;
  }

  /** This thread has the device of a place: it made it before it wrote the place. */
  own(place: number): void {
    this.#has.add(place);
    this.#seen[place] = this.#s.generation[place];
  }

  /** What this thread has not taken over yet; it counts as taken over from then on. */
  changes(): PlugChanges {
    const left: number[] = [];
    const gone: string[] = [];
    const come: { place: number; plug: Plug }[] = [];
    for (let place = 0; place < PLACES; place++) {
      const generation = this.#s.generation[place];
      if (generation === this.#seen[place]) continue;
      this.#seen[place] = generation;
      if (this.#has.delete(place)) left.push(place);
      const length = this.#s.length[place];
      if (length === 0) continue;
      const at = place * PLACE_BYTES;
      const value = JSON.parse(new TextDecoder().decode(this.#s.text.slice(at, at + length))) as Place;
      if ('gone' in value) gone.push(value.gone);
      else {
        this.#has.add(place);
        come.push({ place, plug: value.plug });
      }
    }
    return { left, gone, come };
  }
}
