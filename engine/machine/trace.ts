/**
 * Trace events of the vCPU threads, by name and glob (`-trace`, `-d`). Which are on is one word in shared memory, so a
 * monitor can switch them while the machine runs; an event that is off costs the look at that word.
 */
import type { TraceEvent } from '../monitor/machine-control.ts';

/** Bits of the word. */
export const Trace = {
  pio_read: 1,
  pio_write: 2,
  mmio_read: 4,
  mmio_write: 8,
  vcpu_interrupt: 16,
  vcpu_exception: 32,
  vcpu_reset: 64,
  in_asm: 128,
  ir: 256,
  op_opt: 512,
  wasm: 1024,
} as const;

export type TraceName = keyof typeof Trace;

/** The events that an item of `-d` stands for. */
const LOG_ITEMS: Readonly<Record<string, readonly TraceName[]>> = {
  int: ['vcpu_interrupt', 'vcpu_exception'],
  in_asm: ['in_asm'],
  ir: ['ir'],
  op_opt: ['op_opt'],
  wasm: ['wasm'],
  cpu_reset: ['vcpu_reset'],
};

/** True where `name` matches a glob of `*` and `?`. */
function matches(pattern: string, name: string): boolean {
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replace(/\*/g, '.*')
    .replace(/\?/g, '.');
  return new RegExp(`^${source}$`).test(name);
}

export const matchingTraces = (pattern: string): TraceName[] =>
  (Object.keys(Trace) as TraceName[]).filter((name) => matches(pattern, name));

/** The word for patterns and `-d` items; patterns that match nothing are given back. */
export function traceMask(patterns: readonly string[], items: readonly string[]): { mask: number; unknown: string[] } {
  let mask = 0;
  const unknown: string[] = [];
  for (const pattern of patterns) {
    const names = matchingTraces(pattern);
    if (names.length === 0) unknown.push(pattern);
    for (const name of names) mask |= Trace[name];
  }
  for (const item of items) for (const name of LOG_ITEMS[item] ?? []) mask |= Trace[name];
  return { mask, unknown };
}

export const listTraces = (pattern: string, mask: number): TraceEvent[] =>
  matchingTraces(pattern).map((name) => ({ name, enabled: (mask & Trace[name]) !== 0 }));
