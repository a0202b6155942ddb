/** Words by which the threads of a VM process tell each other what the machine as a whole does. */
import { i32s, struct, u32, u32s } from '../memory/struct.ts';

/** What a vCPU or device asks of the control thread; bits of `requests`. */
export const Request = {
  RESET: 1,
  POWEROFF: 2,
  DEBUG_EXIT: 4,
  TRIPLE_FAULT: 8,
  HOST_ERROR: 16,
  IO_ERROR: 32,
  DEBUG: 64,
} as const;

export const MAX_CPUS = 64;
const INBOX = 256;

export const machineState = struct(
  'machine',
  1,
  {
    /** 1 while vCPUs may run; vCPUs wait on it. */
    running: i32s(1),
    /** Number of vCPU threads that stand still. */
    parked: i32s(1),
    /** The process is ending: every thread returns. */
    ending: i32s(1),
    /** Rung for the control thread. */
    bell: i32s(1),
    requests: i32s(1),
    debugExit: u32,
    /** Trace events that are on, see trace.ts. */
    trace: u32,
    /** Number of the turn of the profiler that is wanted; 0: none. */
    profile: u32,
    /** Per vCPU: thread id of its host thread. */
    threadIds: u32s(MAX_CPUS),
    /** Per vCPU: nonzero while it waits for SIPI; the vector it got. */
    waitsForSipi: i32s(MAX_CPUS),
    sipiVector: i32s(MAX_CPUS),
    /** Per vCPU: TSC offset from machine time, two words of a double are awkward; see tscOffset in VcpuBus. */
    inboxCount: i32s(MAX_CPUS),
    inbox: i32s(MAX_CPUS * INBOX),
    /** Rises when a saved state was loaded: whatever was translated is void. */
    loads: i32s(1),
    /** 1 while the state is being saved or loaded: nothing of the guest may change. */
    frozen: i32s(1),
  },
  'host',
);

export const INBOX_ENTRIES = INBOX;

/** Counters of device accesses for statistics: doubles, one row a vCPU. */
export const CounterIndex = { PIO: 10, MMIO: 11 } as const;
