/**
 * One sample of a machine's counters, the return value of `x-query-stats`. Counters go up from the start of the
 * process and never back; whoever wants rates takes two samples. Sampling costs the vCPUs nothing: they count in
 * shared memory.
 */
export interface MachineStats {
  /** Milliseconds since the Unix epoch when the sample was taken. */
  readonly timestamp: number;
  /** Nanoseconds of machine time (stands while the machine is stopped). */
  readonly machineNs: number;
  readonly vcpus: readonly VcpuStats[];
  readonly memory: MemoryStats;
  /** Million guest instructions a second, all vCPUs together, since the sample before this one. */
  readonly mips: number;
  /** Per drive, where there are drives. */
  readonly drives?: readonly DriveStats[];
  /** Per network device, where there are any. */
  readonly nics?: readonly NicStats[];
  /** What the translator has done, all vCPUs together; missing where another accelerator runs the guest. */
  readonly translator?: TranslatorStats;
}

/** Times are in nanoseconds, summed over the vCPUs; they go up like counters. */
export interface TranslatorStats {
  /** Regions that were made, those of them that go over into other pages, and runs that none could be made of. */
  readonly regions: number;
  readonly farRegions: number;
  readonly declined: number;
  /** Time of the vCPUs' threads that went into decoding and into putting regions in place. */
  readonly decodeNs: number;
  /** Time that making regions took, on whatever thread. */
  readonly compileNs: number;
  /** Time asleep in HLT and the like. */
  readonly idleNs: number;
  /** How often a vCPU dropped all of its code for want of room. */
  readonly drops: number;
  /** What there is now, and how much there may be. */
  readonly code: {
    readonly regions: number;
    readonly maxRegions: number;
    /** Bytes of decoded records. */
    readonly recordBytes: number;
    readonly maxRecordBytes: number;
    /** Bytes of the regions' modules. */
    readonly moduleBytes: number;
  };
  /**
   * Where the vCPUs' threads were when they were looked at, every 2 ms while somebody asks for it (`profile`): counts of
   * samples, among `other` those asleep. No measure of time by themselves: only their ratios mean something.
   */
  readonly samples: { readonly baseline: number; readonly regions: number; readonly other: number };
}

export interface VcpuStats {
  readonly index: number;
  /** `running`, `halted` (sleeps until an interrupt), `stopped` (the machine is stopped, or the vCPU was never started). */
  readonly state: 'running' | 'halted' | 'stopped';
  /** Host CPU time that the vCPU's thread has used, in ns. */
  readonly hostCpuNs: number;
  /** Guest instructions retired. */
  readonly instructions: number;
  /** How often translated code was left, by cause; names as in `ExitCause`, causes never seen may be missing. */
  readonly exits: Readonly<Partial<Record<ExitCause, number>>>;
}

/** Causes of exits in the order they are shown. */
export const exitCauses = [
  'pio',
  'mmio',
  'hlt',
  'interrupt',
  'exception',
  'tlb',
  'translate',
  'invalidate',
  'system',
  'other',
] as const;
export type ExitCause = (typeof exitCauses)[number];

export interface MemoryStats {
  /** RAM that the guest has, in bytes. */
  readonly totalBytes: number;
  /** What the guest says it uses (balloon statistics, agent); null where it says nothing. */
  readonly usedBytes: number | null;
  /** What of the guest's RAM the host holds, in bytes. */
  readonly residentBytes: number;
}

export interface DriveStats {
  readonly id: string;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly readOperations: number;
  readonly writeOperations: number;
}

export interface NicStats {
  readonly id: string;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}
