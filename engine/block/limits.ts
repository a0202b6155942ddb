/** Limits of bytes and operations a second, kept by a leaky bucket that holds a tenth of a second's worth. */

/** 0 or absent: no limit. */
export interface LimitValues {
  readonly bps?: number;
  readonly bpsRead?: number;
  readonly bpsWrite?: number;
  readonly iops?: number;
  readonly iopsRead?: number;
  readonly iopsWrite?: number;
}

/** What may be used before waiting, in seconds of the rate. */
const BURST = 0.1;

/** One rate. `level` drains by `rate` a second; what overflows has to wait. */
class Bucket {
  rate = 0;
  #level = 0;
  #at = 0;

  /** Adds `amount`; returns the milliseconds that it must wait for. */
  take(amount: number, now: number): number {
    if (this.rate <= 0) return 0;
    this.#level = Math.max(0, this.#level - ((now - this.#at) / 1000) * this.rate);
    this.#at = now;
    this.#level += amount;
    const over = this.#level - this.rate * BURST;
    return over <= 0 ? 0 : (over / this.rate) * 1000;
  }
}

export class Limits {
  readonly #sleep: (milliseconds: number) => void;
  readonly #now: () => number;
  readonly #bytes = { all: new Bucket(), read: new Bucket(), write: new Bucket() };
  readonly #operations = { all: new Bucket(), read: new Bucket(), write: new Bucket() };
  #values: LimitValues = {};
  #any = false;

  constructor(sleep: (milliseconds: number) => void, now: () => number = () => performance.now()) {
    this.#sleep = sleep;
    this.#now = now;
  }

  get values(): LimitValues {
    return this.#values;
  }

  set(values: LimitValues): void {
    this.#values = values;
    this.#bytes.all.rate = values.bps ?? 0;
    this.#bytes.read.rate = values.bpsRead ?? 0;
    this.#bytes.write.rate = values.bpsWrite ?? 0;
    this.#operations.all.rate = values.iops ?? 0;
    this.#operations.read.rate = values.iopsRead ?? 0;
    this.#operations.write.rate = values.iopsWrite ?? 0;
    this.#any = Object.values(values).some((value) => value > 0);
  }

  /** Counts an operation, and waits where it comes too early. */
  take(kind: 'read' | 'write', bytes: number): void {
    if (!this.#any) return;
    const now = this.#now();
    const wait = Math.max(
      this.#bytes.all.take(bytes, now),
      this.#bytes[kind].take(bytes, now),
      this.#operations.all.take(1, now),
      this.#operations[kind].take(1, now),
    );
    if (wait > 0) this.#sleep(wait);
  }
}
