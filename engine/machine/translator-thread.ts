/** The thread that makes regions for all vCPUs of a machine. */
import { RegionCompiler, type RegionReply, type RegionShelf } from '../accel/jit/region-compiler.ts';
import { Marks, type RegionJob } from '../accel/jit/region-job.ts';
import * as S from '../memory/vcpu-state.ts';
import type { ThreadData } from './threads.ts';

export interface TranslatorHost {
  /** Calls later, from the event loop. */
  after(milliseconds: number, call: () => void): void;
  /** Calls `answer` for each request of a vCPU, from the event loop, sends the reply, and calls `sent`. */
  serveVcpus(answer: (vcpu: number, job: RegionJob) => RegionReply, sent: (vcpu: number) => void): void;
  /** Where regions made with some options are kept; undefined where nothing can be. */
  regionShelf(options: object): RegionShelf | undefined;
}

/**
 * Milliseconds after a region was made at which its vCPU is to leave and enter again: code that V8 has optimized meanwhile is
 * entered by calls only, and a loop may go on for long.
 */
const ENTER_AGAIN = [30, 100, 300, 1000];

/** Milliseconds between two looks at what V8 has optimized, and can be kept. */
const STORE_MS = 1000;
/** Milliseconds of such a time that may be used to optimize more of it. */
const OPTIMIZE_MS = 250;

/** Makes the regions that the vCPUs ask for. Goes on from the event loop until the thread is ended. */
export function runTranslator({ baseline, layout, memory }: ThreadData, host: TranslatorHost): void {
  if (baseline === undefined) throw new Error('the translator needs the baseline module');
  const { memory64, counting } = baseline;
  const compiler = new RegionCompiler(baseline, new Marks(baseline.marks), host.regionShelf({ memory64, counting }));
  const state = new Int32Array(memory.buffer, layout.vcpus, (layout.cpus * S.VCPU_BYTES) / 4);
  const tell = (vcpu: number, request: number): void => {
    Atomics.or(state, (vcpu * S.VCPU_BYTES + S.PENDING) >> 2, request);
  };
  /** By vCPU: how often it was told to enter again since its last region. */
  const told = new Map<number, number>();
  const enterAgain = (vcpu: number): void => {
    const times = told.get(vcpu) ?? 0;
    if (times === ENTER_AGAIN.length) {
      told.delete(vcpu);
      return;
    }
    host.after(ENTER_AGAIN[times], () => {
      tell(vcpu, S.Pending.PROTECT);
      enterAgain(vcpu);
    });
    told.set(vcpu, times + 1);
  };
  host.serveVcpus(
    (_vcpu, job) => compiler.compile(job),
    (vcpu) => {
      tell(vcpu, S.Pending.REGIONS);
      const waits = told.has(vcpu);
      told.set(vcpu, 0);
      if (!waits) enterAgain(vcpu);
    },
  );
  const store = (): void => {
    compiler.store(OPTIMIZE_MS);
    host.after(STORE_MS, store);
  };
  host.after(STORE_MS, store);
}
