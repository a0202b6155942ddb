/** An interrupt input as a device sees it: a level that it sets. Called with the machine lock held. */
export interface IrqLine {
  /** True asserts the line; edge-triggered controllers act on the change. */
  set(level: boolean): void;
}

/** A line that goes nowhere. */
export const noIrq: IrqLine = { set() {} };
