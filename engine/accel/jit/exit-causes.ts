/** What a vCPU counts while it translates and runs. */
/** Rows of the vCPU's counters. 10 and 11 are port and MMIO accesses, see machine/control-words. */
export const ExitCause = {
  JUMP: 0,
  FAULT: 1,
  PENDING: 2,
  HALT: 3,
  RESYNC: 4,
  DECODE: 5,
  INTERRUPT: 6,
  INVALIDATE: 8,
  REGIONS: 12,
  /** Microseconds that another thread spent making regions for this one. */
  COMPILE_US: 13,
  /** Runs that could not be made into a region. */
  DECLINED: 14,
  /** Of the regions made, those that go into other pages. */
  FAR_REGIONS: 15,
  /** Microseconds that this thread spent decoding, gathering what regions are made of, and putting them in place. */
  MAKING_US: 16,
  /** Times that all code was dropped for want of room. */
  DROPS: 17,
  /** What there is now: bytes of records, regions, and bytes of their modules. */
  CODE_BYTES: 18,
  LIVE_REGIONS: 19,
  REGION_BYTES: 20,
  /** Microseconds asleep, and since when it is (ms since the epoch; 0: it is not). Kept by the thread. */
  IDLE_US: 21,
  IDLE_SINCE: 22,
  /** Samples of the profiler. Kept by the thread. */
  SAMPLES_BASELINE: 23,
  SAMPLES_REGIONS: 24,
  SAMPLES_OTHER: 25,
} as const;
