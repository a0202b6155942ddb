/**
 * Where the time of this thread goes, by V8's own sampling profiler (inspector protocol, domain Profiler): in the
 * baseline module, in regions, or elsewhere (helpers, the dispatcher, asleep). Nothing in translated code knows of it,
 * so it costs nothing while it is off. Starting makes a pause of some tenths of a second, for V8 notes all code that there
 * is; then each sample costs some microseconds.
 *
 * V8 gives a profile's samples when it is ended, and keeps them till then. So profiles take turns: the next one is
 * begun before the last is ended, which spares the pause. Only those of the console can be in progress side by side.
 */
import type { InspectorNotification, Session } from 'node:inspector';

/** Samples by the place that they were taken at. */
export interface TierSamples {
  readonly baseline: number;
  readonly regions: number;
  readonly other: number;
}

/** Microseconds between samples. */
const INTERVAL = 2000;

interface Profile {
  readonly nodes: readonly { readonly hitCount?: number; readonly callFrame: { readonly url: string } }[];
}

/** Modules are named where they are made; V8 puts the name into the URL of their code. */
const MODULE = /^wasm:\/\/wasm\/(baseline|region)\b/;

export class TierProfiler {
  #session: Session | undefined;
  #console: { profile(label: string): void; profileEnd(label: string): void } | undefined;
  #turn = 0;
  #finished: Profile | undefined;

  /** Begins a new profile, and gives the samples since the last call; undefined where there are none to give, at first or without a profiler. */
  turn(): TierSamples | undefined {
    try {
      if (this.#session === undefined) {
        // Asked for when it is wanted: a runtime may have been built without.
        const inspector = process.getBuiltinModule('node:inspector');
        this.#console = inspector.console;
        this.#session = new inspector.Session();
        this.#session.connect();
        this.#session.on('Profiler.consoleProfileFinished', ({ params }: InspectorNotification<{ profile: Profile }>) => {
          this.#finished = params.profile;
        });
        this.#session.post('Profiler.enable');
        this.#session.post('Profiler.setSamplingInterval', { interval: INTERVAL });
      }
      const last = this.#turn++;
      this.#console?.profile(String(this.#turn));
      return last === 0 ? undefined : this.#end(last);
    } catch {
      // This runtime has none.
      this.stop();
      return undefined;
    }
  }

  /** Ends profiling. */
  stop(): void {
    if (this.#session === undefined) return;
    if (this.#turn > 0) this.#end(this.#turn);
    this.#turn = 0;
    this.#session.disconnect();
    this.#session = undefined;
  }

  #end(turn: number): TierSamples | undefined {
    this.#finished = undefined;
    // What it tells comes before it returns.
    this.#console?.profileEnd(String(turn));
    const profile = this.#finished as Profile | undefined;
    if (profile === undefined) return undefined;
    const counts = { baseline: 0, regions: 0, other: 0 };
    for (const { hitCount = 0, callFrame } of profile.nodes) {
      const module = MODULE.exec(callFrame.url)?.[1];
      counts[module === 'region' ? 'regions' : module === 'baseline' ? 'baseline' : 'other'] += hitCount;
    }
    return counts;
  }
}
