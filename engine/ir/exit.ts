/** What translated code, and a helper that leaves it, gives to the dispatcher; 0 is to go on. */
export const Exit = {
  /** Go on at NEXT_RIP. STOPPED_AT is the branch to link, or 0. */
  JUMP: 1,
  /** EXCEPTION was raised by the instruction at STOPPED_AT. */
  FAULT: 2,
  /** A request is pending; go on at NEXT_RIP. */
  PENDING: 3,
  /** HLT: go on at NEXT_RIP when something happens. */
  HALT: 4,
  /** The record at STOPPED_AT is stale: decode its instruction again. */
  RESYNC: 5,
  /** The run that starts at STOPPED_AT was entered often: translate it for speed. */
  HOT: 6,
} as const;
