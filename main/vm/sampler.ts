/** Asks a running VM for its counters once a second, and for a picture every few seconds while someone looks. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { MachineStats } from '../../engine/contract/index.ts';
import type { StatsPoint } from '../contract/index.ts';
import type { History } from './history.ts';
import { ratesBetween } from './rates.ts';
import type { VmRun } from './vm-run.ts';

/** A picture larger than this is not sent to the list of VMs. */
const maxPictureBytes = 4 << 20;

export interface SamplerOptions {
  readonly run: VmRun;
  readonly history: History;
  /** The VM's folder: the engine writes its pictures there. */
  readonly folder: string;
  readonly sampleMs: number;
  readonly pictureMs: number;
  wantsPictures(): boolean;
  /** Somebody looks at where the vCPUs' time goes. */
  wantsProfile(): boolean;
  point(point: StatsPoint): void;
  /** The screen differs from the picture before. */
  picture(png: Buffer): void;
}

export class Sampler {
  readonly #options: SamplerOptions;
  readonly #timers: NodeJS.Timeout[];
  #last: MachineStats | undefined;
  #lastPicture: Buffer | undefined;
  #sampling = false;
  #picturing: Promise<Buffer | undefined> | undefined;
  #closed = false;

  constructor(options: SamplerOptions) {
    this.#options = options;
    this.#timers = [
      setInterval(() => void this.#sample(), options.sampleMs),
      setInterval(() => {
        if (options.wantsPictures() && options.run.state !== 'paused') void this.picture();
      }, options.pictureMs),
    ];
    void this.#sample();
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Takes a picture now; undefined when the machine gave none. */
  picture(): Promise<Buffer | undefined> {
    // One file, so one at a time; who asks meanwhile gets the one that is under way.
    this.#picturing ??= this.#takePicture().finally(() => {
      this.#picturing = undefined;
    });
    return this.#picturing;
  }

  async #takePicture(): Promise<Buffer | undefined> {
    const { run, folder, picture } = this.#options;
    const file = join(folder, '.screen.png');
    try {
      await run.screendump(file);
      const png = await readFile(file);
      if (this.#closed || png.length > maxPictureBytes) return png;
      if (this.#lastPicture?.equals(png) !== true) {
        this.#lastPicture = png;
        picture(png);
      }
      return png;
    } catch {
      // The machine has ended, or has no display; the next picture tells.
      return undefined;
    }
  }

  async #sample(): Promise<void> {
    // A machine that is slow to answer is not asked twice.
    if (this.#sampling) return;
    this.#sampling = true;
    try {
      const sample = await this.#options.run.statistics(this.#options.wantsProfile());
      if (this.#closed) return;
      const first = this.#last === undefined;
      const point = ratesBetween(this.#last, sample);
      this.#last = sample;
      if (first) return;
      this.#options.history.add(point);
      this.#options.point(point);
    } catch {
      // The machine has ended, or is stuck; the graph has a gap.
    } finally {
      this.#sampling = false;
    }
  }
}
