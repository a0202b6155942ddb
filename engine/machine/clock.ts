/**
 * Machine time and its timers in shared memory. Deadlines are doubles; the clock thread sleeps until the earliest and
 * runs what is due. Machine time stands while the machine is stopped.
 */
import type { Clock, Timer } from '../bus/clock.ts';
import type { SharedState } from '../memory/shared-state.ts';
import { f64, i32s, struct, u32, type View } from '../memory/struct.ts';
import { COUNT_LIMIT, INSTRUCTIONS } from '../memory/vcpu-state.ts';

export const clockState = struct(
  'clock',
  1,
  {
    /** Host time in ns at machine time 0, corrected for the time it stood. */
    origin: f64,
    /** Machine time at which it was stopped; meaningful while `running` is 0. */
    frozen: f64,
    running: u32,
    /** Rung when a deadline came nearer or the state changed. */
    bell: i32s(1),
    /** Deadline that the clock thread sleeps for. */
    wake: f64,
    /** Wall clock, ms since the epoch, at machine time 0. */
    wallOrigin: f64,
  },
  'host',
);

const timerState = struct('timer', 1, { deadline: f64, armed: u32 });

/** Host time in ns; the same on every thread. */
export function hostNs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e9 + nanoseconds;
}

/** Time in ns that this thread has had a core of the host. */
export function threadNs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) * 1000;
}

/** No count comes here. */
const NEVER = 0xffffffffffffffffn;
/** Callbacks that are run at one place at most: a guest may have a timer that is always due again. */
const MOST_DUE = 1000;

interface MachineTimer {
  readonly name: string;
  readonly state: View<typeof timerState.fields>;
  readonly callback: () => void;
}

export class MachineClock implements Clock {
  readonly state: View<typeof clockState.fields>;
  readonly #shared: SharedState;
  readonly #timers: MachineTimer[] = [];

  constructor(shared: SharedState) {
    this.#shared = shared;
    this.state = shared.struct(clockState);
  }

  /**
   * From now on an instruction takes `scale` ns, and no time passes otherwise: machine time is what the state block of the
   * vCPU says, and where that vCPU halts, time jumps to the next deadline (`skip`). Its thread runs what is due.
   */
  count(vcpu: Int32Array, scale: number): void {
    const words = new Uint32Array(vcpu.buffer, vcpu.byteOffset + INSTRUCTIONS, 2);
    const limit = new BigUint64Array(vcpu.buffer, vcpu.byteOffset + COUNT_LIMIT, 1);
    this.#count = { scale, limit, retired: () => words[0] + words[1] * 4294967296 };
  }
  #count: { readonly scale: number; readonly limit: BigUint64Array; retired: () => number } | undefined;
  get isCounting(): boolean {
    return this.#count !== undefined;
  }
  /** On the vCPU's own thread: how many instructions it has retired, exactly. */
  countBy(retired: () => number): void {
    if (this.#count !== undefined) this.#count.retired = retired;
  }
  /** Lets the vCPU look for timers at a deadline, where that comes before what it waits for already. */
  #nearer(deadline: number): void {
    if (this.#count === undefined || deadline >= this.state.wake) return;
    this.state.wake = deadline;
    const { scale, limit } = this.#count;
    const at = deadline === Infinity ? NEVER : BigInt(Math.max(0, Math.ceil((deadline + this.state.origin) / scale)));
    if (at < limit[0]) limit[0] = at;
  }
  /** On the vCPU's own thread: runs what is due, earliest first, with the lock held. */
  runDue(): void {
    this.#shared.lock.acquire();
    for (let n = 0; n < MOST_DUE; n++) {
      const first = this.#first();
      if (first === undefined || first.state.deadline > this.now()) break;
      first.state.armed = 0;
      first.callback();
    }
    this.state.wake = Infinity;
    if (this.#count !== undefined) this.#count.limit[0] = this.#checkpoint();
    this.#nearer(this.#first()?.state.deadline ?? Infinity);
    this.#next = this.#look();
    if (this.#next !== undefined && this.#count !== undefined) {
      const { limit } = this.#count;
      if (BigInt(this.#next.count) < limit[0]) limit[0] = BigInt(this.#next.count);
    }
    this.#shared.lock.release();
  }
  /** On the vCPU's own thread: calls `report` at the first end of a run after each of the counts. */
  checkpoints(counts: { from: number; to: number; every: number }, report: (count: number) => void): void {
    this.#reports = { ...counts, next: counts.from, report };
  }
  #reports: { to: number; every: number; next: number; report: (count: number) => void } | undefined;
  /** Reports where that is due; the count at which it is the next time. */
  #checkpoint(): bigint {
    const reports = this.#reports;
    if (reports === undefined || this.#count === undefined) return NEVER;
    const count = this.#count.retired();
    if (count >= reports.next && reports.next <= reports.to) {
      reports.report(count);
      reports.next = (Math.floor(count / reports.every) + 1) * reports.every;
    }
    return reports.next <= reports.to ? BigInt(reports.next) : NEVER;
  }
  /**
   * On the vCPU's own thread: what looks for more than timers where those are due. It says when it wants to be asked again:
   * at an instruction count and, where the vCPU is halted then, at a time; undefined where that is not known before.
   */
  asks(look: () => { readonly count: number; readonly time: number } | undefined, waiting: () => boolean): void {
    this.#look = look;
    this.#waiting = waiting;
  }
  #look: () => { readonly count: number; readonly time: number } | undefined = () => undefined;
  #waiting: () => boolean = () => false;
  #next: { readonly count: number; readonly time: number } | undefined;
  /** Lets the vCPU look at the next end of a run, from any thread. */
  poke(): void {
    if (this.#count !== undefined) this.#count.limit[0] = 0n;
  }
  #first(): MachineTimer | undefined {
    let first: MachineTimer | undefined;
    for (const timer of this.#timers)
      if (timer.state.armed !== 0 && (first === undefined || timer.state.deadline < first.state.deadline)) first = timer;
    return first;
  }
  /** On the thread of the vCPU, which is halted: it is the next deadline now. False: there is none. */
  skip(): boolean {
    if (!this.#waiting()) {
      const next = this.#next;
      const deadline = this.#first()?.state.deadline ?? Infinity;
      const comes = next !== undefined && this.#count !== undefined && next.count <= this.#count.retired() ? next.time : Infinity;
      const until = Math.min(deadline, comes);
      if (until === Infinity) return false;
      this.state.origin -= Math.max(0, Math.ceil(until - this.now()));
    }
    this.runDue();
    return true;
  }

  /** Once, by the control thread. */
  initialize(wallMs: number): void {
    if (this.#count !== undefined) {
      this.state.origin = 0;
      this.state.wake = Infinity;
      this.#count.limit[0] = 0n;
      this.state.wallOrigin = wallMs;
      return;
    }
    this.state.origin = hostNs();
    this.state.frozen = 0;
    this.state.running = 0;
    this.state.wallOrigin = wallMs;
  }

  now(): number {
    const { state } = this;
    if (this.#count !== undefined) return this.#count.retired() * this.#count.scale - state.origin;
    return state.running !== 0 ? hostNs() - state.origin : state.frozen;
  }
  wallTime(): number {
    return this.state.wallOrigin + this.now() / 1e6;
  }

  start(): void {
    const { state } = this;
    if (state.running !== 0 || this.#count !== undefined) return;
    state.origin = hostNs() - state.frozen;
    state.running = 1;
    this.#ring();
  }
  stop(): void {
    const { state } = this;
    if (state.running === 0 || this.#count !== undefined) return;
    state.frozen = hostNs() - state.origin;
    state.running = 0;
  }
  /** Sets a clock that stands: machine time, and the wall clock at it in ms since the epoch. */
  set(ns: number, wallMs: number): void {
    const { state } = this;
    state.frozen = ns;
    if (this.#count !== undefined) {
      state.origin = this.#count.retired() * this.#count.scale - Math.floor(ns);
      this.#count.limit[0] = 0n;
    }
    state.wallOrigin = wallMs - ns / 1e6;
  }

  timer(name: string, callback: () => void): Timer {
    const state = this.#shared.struct(timerState, `timer:${name}`);
    this.#timers.push({ name, state, callback });
    const clock = this;
    return {
      arm(deadline: number): void {
        state.deadline = deadline;
        state.armed = 1;
        if (clock.isCounting) clock.#nearer(deadline);
        else if (deadline < clock.state.wake) clock.#ring();
      },
      disarm(): void {
        state.armed = 0;
      },
      get deadline(): number {
        return state.armed !== 0 ? state.deadline : Infinity;
      },
    };
  }

  /** The device of a timer is gone, on this thread. */
  forget(name: string): void {
    const at = this.#timers.findIndex((timer) => timer.name === name);
    if (at >= 0) this.#timers.splice(at, 1);
  }

  #ring(): void {
    const { bell } = this.state;
    Atomics.add(bell, 0, 1);
    Atomics.notify(bell, 0);
  }

  /**
   * The clock thread's loop: runs due timers with the lock held, then sleeps. Returns when `ended` says so. `before` is
   * called with the lock held before timers are looked at: there may be others since.
   */
  serve(ended: () => boolean, before: () => void = () => {}): void {
    const { state } = this;
    while (!ended()) {
      const seen = Atomics.load(state.bell, 0);
      let next = Infinity;
      if (state.running !== 0) {
        this.#shared.lock.acquire();
        // It may have been stopped meanwhile, for its state to be saved.
        if (state.running === 0) {
          this.#shared.lock.release();
          continue;
        }
        // While this runs, arming must not ring for itself.
        state.wake = -Infinity;
        before();
        const now = this.now();
        for (const { state: timer, callback } of this.#timers) {
          if (timer.armed !== 0 && timer.deadline <= now) {
            timer.armed = 0;
            callback();
          }
        }
        for (const { state: timer } of this.#timers) if (timer.armed !== 0 && timer.deadline < next) next = timer.deadline;
        state.wake = next;
        this.#shared.lock.release();
        if (Atomics.load(state.bell, 0) !== seen) continue;
      } else if (this.#count === undefined) state.wake = Infinity;
      const wait = next === Infinity ? 1000 : Math.min(1000, (next - this.now()) / 1e6);
      if (wait > 0) Atomics.wait(state.bell, 0, seen, wait);
    }
  }

  /** Wakes the clock thread, so that it sees that it has ended. */
  wakeUp(): void {
    this.#ring();
  }
}
