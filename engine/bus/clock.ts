/**
 * Machine time and timers. Time is nanoseconds since the machine was made, does not run while the VM is
 * stopped, and is the same on every thread. A timer's deadline lies in shared memory: any thread may arm it;
 * the callback runs on the machine's clock thread (on that thread's own instance of the device), with the
 * machine lock held. So the callback may touch nothing but state structs, buses and lines.
 */
export interface Clock {
  /** Nanoseconds of machine time; a number, exact below 2^53. */
  now(): number;
  /** Milliseconds since the Unix epoch as the guest's RTC should see them. */
  wallTime(): number;
  /** Makes the timer `name` (unique in the machine, e.g. `pit.channel0`). Every thread makes it, with its own callback. */
  timer(name: string, callback: () => void): Timer;
}

export interface Timer {
  /** Runs the callback once at `deadline` (machine time in ns; at once when it has passed). Replaces an earlier deadline. */
  arm(deadline: number): void;
  disarm(): void;
  /** The deadline, or Infinity when it is not armed. */
  readonly deadline: number;
}
